//! Flags before the command: which daemon, which configuration.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::flags::optional_boolean;

/// The global flags.
#[derive(Clone, Debug, Default)]
pub(crate) struct Globals {
    /// `--host`.
    pub(crate) hosts: Vec<String>,
    /// `--config`: the folder of `config.json`.
    pub(crate) config: Option<PathBuf>,
    /// `--context`.
    pub(crate) context: Option<String>,
    /// `--version`.
    pub(crate) version: bool,
    /// `--tls…`.
    pub(crate) tls: TlsFlags,
}

/// The flags about TLS; docker's variables count where a flag is absent.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsFlags {
    /// `--tls`.
    pub(crate) tls: Option<bool>,
    /// `--tlsverify`.
    pub(crate) verify: Option<bool>,
    /// `--tlscacert`.
    pub(crate) ca: Option<PathBuf>,
    /// `--tlscert`.
    pub(crate) cert: Option<PathBuf>,
    /// `--tlskey`.
    pub(crate) key: Option<PathBuf>,
}

impl TlsFlags {
    /// Whether the server's certificate is checked.
    pub(crate) fn verifies(&self) -> bool {
        self.verify.unwrap_or_else(|| variable("DOCKER_TLS_VERIFY").is_some())
    }

    /// Whether there is TLS: asked for, or because `--tlsverify` was given, whatever its value.
    pub(crate) fn is_on(&self) -> bool {
        self.verify.is_some()
            || self.verifies()
            || self.tls.unwrap_or_else(|| variable("DOCKER_TLS").is_some())
    }
}

/// The command line up to the command.
pub(crate) fn command(program: &str) -> Command {
    Command::new(program.to_owned())
        .allow_external_subcommands(true)
        .disable_help_subcommand(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true)
        .args(arguments())
}

/// The flags themselves.
pub(crate) fn arguments() -> Vec<Arg> {
    let value = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::Set).help(help)
    };
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    vec![
        value("config", "Location of client config files").value_name("string"),
        value("context", "Name of the context to use to connect to the daemon")
            .short('c')
            .value_name("string"),
        switch("debug", "Enable debug mode").short('D'),
        value("host", "Daemon socket to connect to")
            .short('H')
            .action(ArgAction::Append)
            .value_name("list"),
        value("log-level", "Set the logging level").short('l').value_name("string"),
        optional_boolean(switch("tls", "Use TLS; implied by --tlsverify")),
        value("tlscacert", "Trust certs signed only by this CA").value_name("string"),
        value("tlscert", "Path to TLS certificate file").value_name("string"),
        value("tlskey", "Path to TLS key file").value_name("string"),
        optional_boolean(switch("tlsverify", "Use TLS and verify the remote")),
        switch("version", "Print version information and quit").short('v'),
        Arg::new("help").long("help").short('h').action(ArgAction::Help).help("Print usage"),
    ]
}

impl Globals {
    /// Reads the flags.
    pub(crate) fn read(matches: &ArgMatches) -> Self {
        let text = |name: &str| matches.get_one::<String>(name).cloned();
        let switch = |name: &str| matches.get_one::<bool>(name).copied();
        Self {
            hosts: matches
                .get_many::<String>("host")
                .map(|h| h.cloned().collect())
                .unwrap_or_default(),
            config: text("config").map(PathBuf::from),
            context: text("context").filter(|name| !name.is_empty()),
            version: matches.get_flag("version"),
            tls: TlsFlags {
                tls: switch("tls"),
                verify: switch("tlsverify"),
                ca: text("tlscacert").map(PathBuf::from),
                cert: text("tlscert").map(PathBuf::from),
                key: text("tlskey").map(PathBuf::from),
            },
        }
    }

    /// The folder of `config.json`.
    pub(crate) fn config_dir(&self) -> PathBuf {
        if let Some(dir) = &self.config {
            return dir.clone();
        }
        if let Some(dir) = variable("DOCKER_CONFIG") {
            return dir.into();
        }
        std::env::home_dir().unwrap_or_else(|| PathBuf::from("/root")).join(".docker")
    }
}

/// A variable of the environment that is not empty.
pub(crate) fn variable(name: &str) -> Option<String> {
    crate::parse::env::process_env(name).filter(|value| !value.is_empty())
}
