//! Flags before the command: which daemon, which configuration.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::client::Endpoint;
use crate::error::{Result, message};

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
        switch("tls", "Use TLS; implied by --tlsverify"),
        value("tlscacert", "Trust certs signed only by this CA").value_name("string"),
        value("tlscert", "Path to TLS certificate file").value_name("string"),
        value("tlskey", "Path to TLS key file").value_name("string"),
        switch("tlsverify", "Use TLS and verify the remote"),
        switch("version", "Print version information and quit").short('v'),
        Arg::new("help").long("help").short('h').action(ArgAction::Help).help("Print usage"),
    ]
}

impl Globals {
    /// Reads the flags.
    pub(crate) fn read(matches: &ArgMatches) -> Result<Self> {
        let text = |name: &str| matches.get_one::<String>(name).cloned();
        if matches.get_flag("tls") || matches.get_flag("tlsverify") {
            return Err(message(
                "TLS connections are not available in this version of brig: use a unix socket",
            ));
        }
        Ok(Self {
            hosts: matches
                .get_many::<String>("host")
                .map(|h| h.cloned().collect())
                .unwrap_or_default(),
            config: text("config").map(PathBuf::from),
            context: text("context"),
            version: matches.get_flag("version"),
        })
    }

    /// The daemon: `--host`, `BRIG_HOST`, `DOCKER_HOST`, or the default for the program's name.
    pub(crate) fn endpoint(&self, program: &str) -> Result<Endpoint> {
        let named = self.context.clone().or_else(|| {
            // A host beats a context that only the environment names.
            self.hosts.is_empty().then(|| variable("DOCKER_CONTEXT")).flatten()
        });
        if let Some(context) = named.filter(|name| name != "default") {
            return Err(message(format!(
                "contexts are not available in this version of brig: {context:?} cannot be used, use --host"
            )));
        }
        match self.hosts.as_slice() {
            [] => match variable("BRIG_HOST").or_else(|| variable("DOCKER_HOST")) {
                Some(host) => Endpoint::parse(&host),
                None => Ok(Endpoint::default_for(program)),
            },
            [host] => Endpoint::parse(host),
            _ => Err(message("specify only one -H")),
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

fn variable(name: &str) -> Option<String> {
    crate::parse::env::process_env(name).filter(|value| !value.is_empty())
}
