//! `login` and `logout`.

use std::io::Read as _;

use brig_api::auth::RegistryAuth;
use brig_api::data::SecretText;
use brig_api::system::{AuthRequest, AuthResponse};
use clap::Args;

use crate::cli::leaf;
use crate::client::Call;
use crate::config_file::{ConfigFile, INDEX_SERVER, host_of, registry_key};
use crate::context::Context;
use crate::error::{Error, Result, message};
use crate::terminal::{NoEcho, stdin_is_terminal};

leaf!(LOGIN, "login", "[OPTIONS] [SERVER]", "Authenticate to a registry", LoginArgs, login);
leaf!(LOGOUT, "logout", "[SERVER]", "Log out from a registry", LogoutArgs, logout);

/// The longest password that is read, in bytes.
const MAX_PASSWORD: u64 = 64 * 1024;

#[derive(Args)]
struct LoginArgs {
    /// Password or Personal Access Token (PAT)
    #[arg(long, short = 'p')]
    password: Option<String>,
    /// Take the Password or Personal Access Token (PAT) from stdin
    #[arg(long)]
    password_stdin: bool,
    /// Username
    #[arg(long, short = 'u')]
    username: Option<String>,
    #[arg(hide = true)]
    server: Option<String>,
}

fn key(server: Option<&str>) -> String {
    match server {
        None | Some("") => INDEX_SERVER.to_owned(),
        Some(server) if server == INDEX_SERVER => INDEX_SERVER.to_owned(),
        Some(server) => registry_key(host_of(server)),
    }
}

async fn login(context: &Context, args: LoginArgs) -> Result<()> {
    let registry = key(args.server.as_deref());
    let username = args.username.filter(|name| !name.trim().is_empty());
    let password = if args.password_stdin {
        if args.password.is_some() {
            return Err(message("--password and --password-stdin are mutually exclusive"));
        }
        if username.is_none() {
            return Err(message("Must provide --username with --password-stdin"));
        }
        let mut text = String::new();
        std::io::stdin()
            .lock()
            .take(MAX_PASSWORD)
            .read_to_string(&mut text)
            .map_err(|source| Error::io("reading the password", source))?;
        let trimmed = text.trim_end_matches(['\r', '\n']).to_owned();
        drop(SecretText::from(text));
        Some(SecretText::from(trimmed))
    } else if let Some(password) = args.password {
        crate::output::warn(
            "WARNING! Using --password via the CLI is insecure. Use --password-stdin.",
        );
        Some(SecretText::from(password))
    } else {
        None
    };

    let mut config = ConfigFile::load(&context.globals.config_dir());
    let auth = if username.is_none() && password.is_none() {
        let stored = config.credentials(&registry).await;
        if stored.is_anonymous() { ask(None, None, &registry)? } else { stored }
    } else {
        ask(username, password, &registry)?
    };
    let request = AuthRequest {
        username: auth.username.clone(),
        password: auth.password.clone(),
        serveraddress: registry.clone(),
        identitytoken: auth.identitytoken.clone(),
        ..AuthRequest::default()
    };
    let len = auth.password.expose_secret().len();
    let response: AuthResponse =
        context.client.json(Call::post("/auth").secret_json(&request, len)?).await?;
    let kept = if response.identity_token.is_empty() {
        auth
    } else {
        RegistryAuth {
            identitytoken: response.identity_token,
            password: SecretText::default(),
            ..auth
        }
    };
    config.store(&registry, &kept).await?;
    crate::output::line(&response.status)
}

fn ask(
    username: Option<String>,
    password: Option<SecretText>,
    registry: &str,
) -> Result<RegistryAuth> {
    if (username.is_none() || password.is_none()) && !stdin_is_terminal() {
        return Err(message("Error: Cannot perform an interactive login from a non TTY device"));
    }
    let username = match username {
        Some(name) => name.trim().to_owned(),
        None => crate::output::prompt("Username: ")?,
    };
    if username.is_empty() {
        return Err(message("Error: Non-null Username Required"));
    }
    let password = match password {
        Some(password) => password,
        None => {
            let silent = NoEcho::enter();
            let answer = crate::output::prompt("Password: ");
            drop(silent);
            crate::output::warn("");
            SecretText::from(answer?)
        }
    };
    if password.is_empty() {
        return Err(message("Error: Password Required"));
    }
    Ok(RegistryAuth {
        username,
        password,
        serveraddress: registry.to_owned(),
        ..RegistryAuth::default()
    })
}

#[derive(Args, Debug)]
struct LogoutArgs {
    #[arg(hide = true)]
    server: Option<String>,
}

async fn logout(context: &Context, args: LogoutArgs) -> Result<()> {
    let registry = key(args.server.as_deref());
    crate::output::line(&format!("Removing login credentials for {registry}"))?;
    ConfigFile::load(&context.globals.config_dir()).erase(&registry).await
}
