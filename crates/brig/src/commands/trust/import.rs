//! `trust import`: takes a repository over from another trust server.

use std::path::PathBuf;

use brig_trust::remote::{Action, Credentials, HttpRemote, ServerAddress};
use brig_trust::{Gun, KeyId};
use brig_trust_server::import::fetch;
use brig_trust_server::import_into;
use brig_types::error::chain;
use brig_types::secret::SecretString;
use clap::Args;
use time::format_description::well_known::Rfc3339;

use super::session::{connector, proxies};
use crate::cli::leaf;
use crate::config_file::registry_key;
use crate::context::Context;
use crate::error::{Error, Result, message};
use crate::output::line;

leaf!(
    IMPORT,
    "import",
    "[OPTIONS] URL REPOSITORY",
    "Take a repository over from another trust server into the data of one's own",
    ImportArgs,
    import
);

/// Stands for a registry that is not this machine.
const NO_REGISTRY: &str = "0.0.0.0";

#[derive(Args, Debug)]
struct ImportArgs {
    /// Folder that the trust server keeps everything in; it must not be running
    #[arg(long, value_name = "folder")]
    data_root: Option<PathBuf>,
    /// File that unseals the server's keys, where it is not in the data root
    #[arg(long, value_name = "file")]
    seal_key: Option<PathBuf>,
    /// ID of the root key that the repository must have
    #[arg(long, value_name = "id")]
    root_key: Option<String>,
    #[arg(hide = true)]
    url: Option<String>,
    #[arg(hide = true)]
    repository: Option<String>,
}

async fn import(context: &Context, args: ImportArgs) -> Result<()> {
    let (Some(url), Some(repository)) = (args.url, args.repository) else {
        return Err(message(
            "name the server and the repository: brig trust import --data-root FOLDER https://SERVER REGISTRY/NAME",
        ));
    };
    let data_root = args
        .data_root
        .ok_or_else(|| message("the trust server's folder is needed: --data-root FOLDER"))?;
    let failed = |error: &(dyn std::error::Error + 'static)| message(chain(error));
    let gun = Gun::parse(&repository).map_err(|error| failed(&error))?;
    let wanted = args.root_key.as_deref().map(KeyId::parse).transpose();
    let wanted = wanted.map_err(|error| failed(&error))?;
    let address = ServerAddress::parse(&url).map_err(|error| failed(&error))?;
    let registry = gun.as_str().split('/').next().unwrap_or_default();
    // The old server's certificate counts even where docker would not look at it.
    let tls = connector(context, &address, NO_REGISTRY)?;
    let login = context.config.credentials(&registry_key(registry)).await;
    let secret = |text: &str| SecretString::new(text.to_owned());
    let credentials = Credentials {
        username: login.username.clone(),
        password: secret(login.password.expose_secret()),
        identity_token: secret(login.identitytoken.expose_secret()),
    };
    let remote = HttpRemote::new(address, tls, credentials, Action::Pull).through(proxies()?);
    let fetched = fetch(&remote, &gun).await.map_err(|error| failed(&error))?;
    let mut root_ids = fetched.root_keys.iter().chain(&fetched.root_certificates);
    if let Some(wanted) = wanted.filter(|wanted| !root_ids.any(|id| id == wanted)) {
        return Err(message(format!(
            "{gun} has another root key than {wanted}: nothing was taken over"
        )));
    }
    let keys: Vec<_> = fetched.root_keys.iter().map(KeyId::as_str).collect();
    let keys = keys.join(", ");
    let seal_key = args.seal_key;
    let imported = tokio::task::spawn_blocking({
        let gun = gun.clone();
        move || import_into(&data_root, seal_key.as_deref(), &gun, fetched.files)
    })
    .await
    .map_err(|error| Error::io("storing the trust data", std::io::Error::other(error)))?
    .map_err(|error| failed(&error))?;
    let until = imported.timestamp_end.format(&Rfc3339).unwrap_or_default();
    line(&format!("Imported {gun}: {} files, root key {keys}", imported.files))?;
    line(&format!(
        "The old server's keys stay with it. Clients can read until {until}; before that, whoever holds the root key gives the roles to the new server: DOCKER_CONTENT_TRUST_SERVER=https://NEW-SERVER brig trust key rotate {gun} server"
    ))
}
