//! Which context is the current one, and which daemon that means: docker's precedence.
//!
//! `--context`, `--host`, `BRIG_HOST`, `DOCKER_HOST`, `DOCKER_CONTEXT`, `currentContext` of
//! `config.json`, in this order; then the default socket.

use std::path::PathBuf;

use super::{DEFAULT, Store, TlsFiles};
use crate::cli::Globals;
use crate::cli::globals::variable;
use crate::client::{Address, Endpoint};
use crate::config_file::ConfigFile;
use crate::error::{Error, Result, message};

/// What the default context is described as.
pub(crate) const CURRENT_HOST: &str = "Current DOCKER_HOST based configuration";
/// Variables that name a host.
const HOST_VARIABLES: [&str; 2] = ["BRIG_HOST", "DOCKER_HOST"];

/// The variable that names the host, and its value.
pub(crate) fn host_variable() -> Option<(&'static str, String)> {
    HOST_VARIABLES.into_iter().find_map(|name| Some((name, variable(name)?)))
}

/// The name of the current context. Whether it exists shows when it is used.
pub(crate) fn current(globals: &Globals, config: &ConfigFile) -> String {
    if let Some(name) = &globals.context {
        return name.clone();
    }
    if !globals.hosts.is_empty() || host_variable().is_some() {
        return DEFAULT.to_owned();
    }
    variable("DOCKER_CONTEXT")
        .or_else(|| config.text("currentContext").map(str::to_owned))
        .unwrap_or_else(|| DEFAULT.to_owned())
}

/// What the default context means: the host as text, its TLS files if there is TLS, and whether
/// the server's certificate is not checked.
pub(crate) fn default_context(
    globals: &Globals,
    program: &str,
) -> Result<(String, Option<TlsFiles>, bool)> {
    let host = match globals.hosts.as_slice() {
        [] => host_variable().map(|(_, host)| host),
        [host] => Some(host.clone()),
        _ => return Err(message("Specify only one -H")),
    };
    let host = match host {
        Some(host) => Address::parse(&host, globals.tls.is_on())?.to_string(),
        None => Endpoint::default_address(program).to_string(),
    };
    if !globals.tls.is_on() {
        return Ok((host, None, false));
    }
    let dir = variable("DOCKER_CERT_PATH").map_or_else(|| globals.config_dir(), PathBuf::from);
    let ca = globals.tls.ca.clone().unwrap_or_else(|| dir.join("ca.pem"));
    let or_default = |given: &Option<PathBuf>, name: &str| {
        given.clone().or_else(|| Some(dir.join(name)).filter(|path| path.exists()))
    };
    let cert = or_default(&globals.tls.cert, "cert.pem");
    let key = or_default(&globals.tls.key, "key.pem");
    let files = TlsFiles::read(Some(&ca), cert.as_deref(), key.as_deref())?;
    Ok((host, Some(files), !globals.tls.verifies()))
}

/// The daemon of the current context. A context that cannot be used matters to whoever connects.
pub(crate) fn endpoint(globals: &Globals, config: &ConfigFile, program: &str) -> Result<Endpoint> {
    if globals.context.is_some() && !globals.hosts.is_empty() {
        return Err(message("conflicting options: cannot specify both --host and --context"));
    }
    let name = current(globals, config);
    let found = match name.as_str() {
        DEFAULT => of_default(globals, program),
        name => of_context(globals, name, program),
    };
    Ok(found.unwrap_or_else(|error: Error| Endpoint::unusable(&error)))
}

fn of_default(globals: &Globals, program: &str) -> Result<Endpoint> {
    let (host, files, skip) = default_context(globals, program)?;
    let address = Address::parse(&host, files.is_some())?;
    let tls = match files {
        // Neither a socket nor ssh needs it.
        Some(files) if matches!(address, Address::Tcp { .. }) => Some(files.client(skip)?),
        _ => None,
    };
    Ok(Endpoint::new(address, tls))
}

fn of_context(globals: &Globals, name: &str, program: &str) -> Result<Endpoint> {
    let store = Store::in_config(&globals.config_dir());
    let meta = store.meta(name)?;
    let files = TlsFiles::of_context(&store.tls(name)?);
    let skip = meta.skips_verification();
    let with_tls = skip || !files.is_empty();
    let address = match meta.host() {
        "" => Endpoint::default_address(program),
        host => Address::parse(host, with_tls)?,
    };
    let tls = match &address {
        Address::Tcp { .. } if with_tls => Some(files.client(skip)?),
        _ => None,
    };
    Ok(Endpoint::new(address, tls))
}
