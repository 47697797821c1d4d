//! `trust serve`: Notary v1 over HTTPS, until it is told to stop.

use std::path::PathBuf;

use brig_pki::engine::EngineFiles;
use brig_trust_server::auth::{AuthError, AuthSettings, Authentication};
use brig_trust_server::{CacheAges, Config, ServerError, TrustServer};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;

use crate::cli::leaf;
use crate::context::Context;
use crate::error::{Error, Result, message};

leaf!(
    SERVE,
    "serve",
    "[OPTIONS]",
    "Serve signed trust data to docker, notary and brig",
    ServeArgs,
    serve
);

#[derive(Args, Debug)]
struct ServeArgs {
    /// Address to listen on
    #[arg(
        long,
        value_name = "host:port",
        default_value = "127.0.0.1:4443",
        hide_default_value = true
    )]
    listen: String,
    /// Certificate of the server, PEM
    #[arg(long, value_name = "file")]
    tlscert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "file")]
    tlskey: Option<PathBuf>,
    /// Folder that everything is kept in
    #[arg(long, value_name = "folder")]
    data_root: Option<PathBuf>,
    /// File that unseals the server's keys, kept elsewhere than the data root
    #[arg(long, value_name = "file")]
    seal_key: Option<PathBuf>,
    /// Ask for passwords of this file (htpasswd -B)
    #[arg(long, value_name = "file")]
    auth_htpasswd: Option<PathBuf>,
    /// Let anybody read, with --auth-htpasswd
    #[arg(long)]
    auth_anonymous_pull: bool,
    /// Ask for tokens of this token server
    #[arg(long, value_name = "url")]
    auth_token_realm: Option<String>,
    /// Name of this server in tokens
    #[arg(long, value_name = "name")]
    auth_token_service: Option<String>,
    /// Name of whoever makes tokens
    #[arg(long, value_name = "name")]
    auth_token_issuer: Option<String>,
    /// Certificates of the keys that sign tokens, PEM
    #[arg(long, value_name = "file")]
    auth_token_bundle: Option<PathBuf>,
    /// Serve only repositories whose names begin with this (REGISTRY/PATH/)
    #[arg(long, value_name = "prefix")]
    gun_prefix: Vec<String>,
    /// Seconds for which clients may keep the newest files (default 300)
    #[arg(long, value_name = "seconds")]
    cache_newest: Option<u32>,
    /// Seconds for which clients may keep files by hash or version (default 2592000)
    #[arg(long, value_name = "seconds")]
    cache_fixed: Option<u32>,
    /// Log every failed connection too
    #[arg(long)]
    debug: bool,
}

async fn serve(_: &Context, args: ServeArgs) -> Result<()> {
    let (done, ended) = tokio::sync::oneshot::channel();
    // Serving needs threads, which no other command does.
    let server = std::thread::Builder::new()
        .name("trust-server".to_owned())
        .spawn(move || {
            // Nobody waits any more when the command was interrupted.
            let _ = done.send(run(args));
        })
        .map_err(|source| Error::io("starting the server's thread", source))?;
    let outcome = ended.await.map_err(|_| message("the trust server ended unexpectedly"))?;
    server.join().map_err(|_| message("the trust server ended unexpectedly"))?;
    outcome
}

fn run(args: ServeArgs) -> Result<()> {
    log(args.debug);
    let listen = args.listen.clone();
    let folder = args
        .data_root
        .clone()
        .ok_or_else(|| message("a folder for the trust data is needed: --data-root FOLDER"))?;
    let seal_key = args.seal_key.clone();
    let config = config(args)?;
    brig_pki::install_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::io("starting the runtime", source))?;
    let server = TrustServer::new(config).map_err(failed)?;
    server.place().folder(&folder, seal_key.as_deref()).map_err(failed)?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let wait = |kind| signal(kind).map_err(|source| Error::io("waiting for signals", source));
        let (mut terminate, mut interrupt) =
            (wait(SignalKind::terminate())?, wait(SignalKind::interrupt())?);
        let listener = TrustServer::listen(&listen).await.map_err(failed)?;
        let address = listener.local_addr().map_or(listen, |address| address.to_string());
        let until = server.certificate_end();
        crate::output::warn(&format!(
            "serving trust data on https://{address} (certificate valid until {until})"
        ));
        let serving = server.serve(listener, stop.clone());
        let stopping = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stop.cancel();
        };
        tokio::join!(serving, stopping);
        Ok(())
    })
}

fn config(args: ServeArgs) -> Result<Config> {
    let needed = |value: Option<PathBuf>, flag: &str, what: &str| {
        value.ok_or_else(|| message(format!("{what} is needed: --{flag}")))
    };
    let tls = EngineFiles {
        ca: None,
        cert: needed(args.tlscert, "tlscert FILE", "the server's certificate")?,
        key: needed(args.tlskey, "tlskey FILE", "the server's private key")?,
        revoked: None,
    };
    let settings = AuthSettings {
        htpasswd: args.auth_htpasswd,
        anonymous_pull: args.auth_anonymous_pull,
        token_realm: args.auth_token_realm,
        token_service: args.auth_token_service,
        token_issuer: args.auth_token_issuer,
        token_bundle: args.auth_token_bundle,
    };
    let authentication = settings.load().map_err(wrong)?;
    if matches!(authentication, Authentication::Open) {
        crate::output::warn(
            "WARNING: everybody who reaches this server may publish new repositories and delete \
             any: add --auth-htpasswd FILE or --auth-token-…",
        );
    }
    let default = CacheAges::default();
    Ok(Config {
        tls,
        authentication,
        gun_prefixes: args.gun_prefix,
        cache: CacheAges {
            newest: args.cache_newest.unwrap_or(default.newest),
            fixed: args.cache_fixed.unwrap_or(default.fixed),
        },
    })
}

fn log(debug: bool) {
    let level = if debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    // Only fails when there is a log already.
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_max_level(level)
        .try_init();
}

fn failed(error: ServerError) -> Error {
    message(brig_types::error::chain(&error))
}

fn wrong(error: AuthError) -> Error {
    message(brig_types::error::chain(&error))
}
