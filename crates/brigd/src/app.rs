//! The composition root: every part of the daemon is made here, in the order in which it needs
//! the others, and taken down in the reverse order.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use brig_engine::{Engine, EngineConfig};
use brig_image::ImageStore;
use brig_pki::engine::{AccessTrust, EngineServer};
use brig_swarm::Swarm;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Gate;
use crate::access::enrol::newcomers::Newcomers;
use crate::access::enrol::ssh::Keys;
use crate::access::enrol::{self, Authority};
use crate::admission::facts::ClusterFacts;
use crate::admission::policies::Policies;
use crate::admission::trust::TrustGate;
use crate::admission::{self, Admission, hook};
use crate::audit::AuditLog;
use crate::build::Builder;
use crate::cli::Flags;
use crate::config::{Config, Host};
use crate::host::HostFacts;
use crate::instance::{Instance, Roots};
use crate::inventory::Inventories;
use crate::logging::LogControl;
use crate::programs::Programs;
use crate::scan::{self, Database, ScanGate};
use crate::server::listener::{ListenError, Listener};
use crate::server::service::ApiService;
use crate::server::tls::{self, TlsListener};
use crate::server::{connection, lent, open};
use crate::signals::{Request, Signals};
use crate::state::{AppState, State};
use crate::tools::Tools;
use crate::{engine_id, executor, notify, parts, routes, swarm, trust_server};

/// Time for the cluster's part and the engine to write down what they must.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// When it can't be started. Once it runs, it ends well.
pub async fn run(
    flags: &Flags,
    config: Config,
    log: &LogControl,
    sockets: Vec<UnixListener>,
) -> anyhow::Result<()> {
    let mut signals = Signals::take().context("cannot take over signals")?;
    let (roots, config) = Roots::take(&config)?;
    let authority = Authority::open(config.data_root.join("access"))
        .context("cannot open the access authority")?;
    // The operator's files are looked at before anything is started.
    let remote = if config.tls_auto { None } else { remote(&config, authority.trust())? };
    let (state, scan_gate) = build(config, roots.instance(), authority, &sockets).await?;
    let remote = match remote {
        None if state.config.tls_auto => certified(&state).await?,
        remote => remote,
    };
    // Whoever waits for the socket's file finds the ports open too.
    let ports = ports(&state.config, remote.as_ref()).await?;
    let listeners = listen(&state.config, sockets)?;
    trust_server::start(&state).await.context("cannot start the trust server")?;
    swarm::events::follow(&state);
    state.tasks.spawn(state.gate.audit().clone().keep_sealed(state.stop.clone()));
    swarm::expiring::follow(&state);
    state.tasks.spawn(admission::follow(Arc::clone(&state.admission), state.stop.clone()));
    state.tasks.spawn(scan::follow(Arc::clone(&state)));
    state.tasks.spawn(scan::follow_source(Arc::clone(&state)));
    state.tasks.spawn(scan::follow_running(Arc::clone(&state), scan_gate));
    state.tasks.spawn(state.inventories.clone().keep());

    let service = ApiService::new(Arc::clone(&state), Arc::new(routes::router()));
    let (local_places, remote_places) = (connection::pool(), connection::pool());
    for listener in &listeners {
        let accept = connection::accept(
            Arc::clone(listener),
            service.clone(),
            Arc::clone(&local_places),
            state.stop.clone(),
        );
        state.tasks.spawn(accept);
    }
    if let Some(sockets) = state.engine.lent_sockets() {
        state.tasks.spawn(lent::accept(sockets, service.clone(), state.stop.clone()));
    }
    for port in ports {
        let places = Arc::clone(&remote_places);
        state.tasks.spawn(tls::accept(port, service.clone(), places, state.stop.clone()));
    }
    state.tasks.spawn(enrol::follow(Arc::clone(&state), state.stop.clone()));
    let ssh_service = service.clone();
    let (ssh_places, ssh_state) = (Arc::clone(&local_places), Arc::clone(&state));
    state.tasks.spawn(async move {
        let stop = ssh_state.stop.clone();
        ssh_state.ssh.serve(ssh_service, ssh_places, stop).await;
    });
    if let Some(server) = &remote {
        state.authority.serve(Arc::clone(server));
        state.tasks.spawn(tls::follow(Arc::clone(server), state.stop.clone()));
    }
    notify::ready();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), data_root = %state.config.data_root.display(), "ready");

    while signals.next().await == Request::Reload {
        reload(flags, &state.config, log);
        reload_rules(&state).await;
        if let Some(server) = &remote {
            tls::reload(server);
        }
    }
    notify::stopping();
    tracing::info!("stopping; containers go on");
    drop(service);
    drain(&state, &mut signals).await;
    drop(listeners);
    drop(roots);
    tracing::info!("stopped");
    Ok(())
}

/// Makes the parts: images, then the engine on them, then the cluster's part on the engine.
async fn build(
    mut config: Config,
    instance: &Instance,
    authority: Authority,
    handed_over: &[UnixListener],
) -> anyhow::Result<(AppState, ScanGate)> {
    config.socket_binds.sockets.extend(handed_over.iter().filter_map(path_of));
    let tools = Tools::find(&config)?;
    let images = ImageStore::open(&config.data_root, parts::image_options(&config))
        .context("cannot open the image store")?;
    let hook = Arc::new(hook::Hook::default());
    let engine_config = EngineConfig {
        admission: Some(Arc::clone(&hook) as Arc<_>),
        ..parts::engine_config(&config, instance, &tools)?
    };
    let engine = Engine::start(engine_config, images).await.context("cannot start the engine")?;
    let stop = CancellationToken::new();
    let inventories = Inventories::open(&config.data_root, engine.images().clone(), stop.clone())
        .context("cannot open the inventories of images")?;
    let host = HostFacts::read();
    let executor = executor::new(
        engine.clone(),
        host.clone(),
        Arc::clone(&hook),
        inventories.clone(),
        &config,
    );
    let swarm = Swarm::open(parts::swarm_config(&config, instance, executor))
        .await
        .context("cannot open the cluster's state")?;
    let builder =
        Builder::open(&config.data_root, &config.exec_root, engine.runtime().program().to_owned())
            .context("cannot tidy up after the builder")?;
    let engine_id = engine_id::load(&config.data_root)?;
    let audit =
        AuditLog::open(&config.data_root.join("audit")).context("cannot open the audit log")?;
    let facts = Arc::new(ClusterFacts::new(config.data_root.join("admission"), swarm.clone()));
    let policies = Policies::open(config.data_root.join("policies"), Arc::clone(&facts))
        .context("cannot read the policies")?;
    let vulnerabilities = Database::open(config.data_root.join("scan"))
        .context("cannot open the vulnerability database's folder")?;
    let vulnerabilities = Arc::new(vulnerabilities);
    let scan_gate =
        ScanGate::new(Arc::clone(&vulnerabilities), inventories.clone(), engine.images().clone());
    let trust = Box::new(TrustGate::new(
        &config.data_root.join("trust"),
        config.registries.insecure.clone(),
        facts,
        engine.images().clone(),
    ));
    let scan = Box::new(scan_gate.clone());
    let admission = Admission::new(policies, trust, scan, engine.images().clone(), audit.clone());
    let admission = Arc::new(admission);
    hook.set(Arc::clone(&admission));
    let gate = Gate::open(config.access.clone(), audit, config.audit_failure)
        .context("cannot use the access rules")?;
    let ssh = Keys::open(authority.dir(), &config.exec_root).context("cannot read the SSH keys")?;
    let state = Arc::new(State {
        config,
        engine_id,
        gate,
        admission,
        authority,
        newcomers: Newcomers::default(),
        ssh,
        host,
        engine,
        inventories,
        programs: Programs::new(vec![tools.runtime.clone(), tools.conmon.clone()]),
        builder,
        swarm,
        vulnerabilities,
        open: Arc::default(),
        tasks: TaskTracker::new(),
        stop,
    });
    Ok((state, scan_gate))
}

/// Where a socket that somebody else made is to be found.
fn path_of(socket: &UnixListener) -> Option<PathBuf> {
    Some(socket.local_addr().ok()?.as_pathname()?.to_owned())
}

fn listen(
    config: &Config,
    handed_over: Vec<UnixListener>,
) -> Result<Vec<Arc<Listener>>, ListenError> {
    let mut listeners = Vec::new();
    let mut handed_over = handed_over.into_iter();
    for host in &config.hosts {
        match host {
            Host::Unix(path) => {
                listeners.push(Arc::new(Listener::bind(path, config.group.as_deref())?));
            }
            Host::Systemd => {
                let first = handed_over.next().ok_or(ListenError::NothingHandedOver)?;
                for socket in std::iter::once(first).chain(handed_over.by_ref()) {
                    listeners.push(Arc::new(Listener::from_systemd(socket)?));
                }
            }
            Host::Tls(_) => {}
        }
    }
    Ok(listeners)
}

/// The TLS of the ports, if there are any. Checked before anything is started.
///
/// # Errors
/// When the files are no good.
pub fn remote(
    config: &Config,
    access: Option<AccessTrust>,
) -> anyhow::Result<Option<Arc<EngineServer>>> {
    let listens = config.hosts.iter().any(|host| matches!(host, Host::Tls(_)));
    let Some(files) = config.tls.clone().filter(|_| listens) else { return Ok(None) };
    let server = EngineServer::load(files, access).context("cannot listen with TLS")?;
    Ok(Some(Arc::new(server)))
}

/// The TLS of ports that have a certificate of the access authority's.
async fn certified(state: &State) -> anyhow::Result<Option<Arc<EngineServer>>> {
    if !state.config.hosts.iter().any(|host| matches!(host, Host::Tls(_))) {
        return Ok(None);
    }
    state.authority.sync(&state.swarm).await.context("cannot open the access authority")?;
    if let Err(error) = state.authority.own_certificate(state).await {
        // A locked cluster's key cannot be had; it must be possible to unlock it from this host.
        let error = brig_types::error::chain(&error);
        tracing::error!(%error, "the port stays closed: it has no certificate; restart the daemon once this is mended");
        return Ok(None);
    }
    remote(&state.config, state.authority.trust())
}

async fn ports(
    config: &Config,
    remote: Option<&Arc<EngineServer>>,
) -> Result<Vec<Arc<TlsListener>>, ListenError> {
    let mut ports = Vec::new();
    for host in &config.hosts {
        if let (Host::Tls(address), Some(server)) = (host, remote) {
            ports.push(Arc::new(TlsListener::bind(address, Arc::clone(server)).await?));
        }
    }
    Ok(ports)
}

/// SIGHUP: the log level is taken over at once, all else needs a restart.
fn reload(flags: &Flags, running: &Config, log: &LogControl) {
    match Config::load(flags) {
        Ok(new) => {
            log.set(new.log_level);
            tracing::info!(level = ?new.log_level, "configuration read again");
            let comparable = Config {
                log_level: running.log_level,
                data_root: without_links(new.data_root),
                exec_root: without_links(new.exec_root),
                ..new
            };
            for key in comparable.differences(running) {
                tracing::warn!(key, "this change of the configuration needs a restart");
            }
        }
        Err(error) => {
            let error = brig_types::error::chain(&error);
            tracing::error!(%error, "the configuration is kept as it was");
        }
    }
}

/// SIGHUP: the access rules are taken over at once, or kept when the new ones have a mistake.
async fn reload_rules(state: &AppState) {
    let reloading = Arc::clone(state);
    match tokio::task::spawn_blocking(move || reloading.gate.reload()).await {
        Ok(Err(error)) => {
            let error = brig_types::error::chain(&error);
            tracing::error!(%error, "the access rules are kept as they were");
        }
        // What is under way goes on only if it would be allowed now.
        Ok(Ok(())) | Err(_) => open::review(state).await,
    }
}

fn without_links(path: PathBuf) -> PathBuf {
    path.canonicalize().unwrap_or(path)
}

/// Lets requests end, within the time that the configuration gives them or until a second signal.
async fn drain(state: &AppState, signals: &mut Signals) {
    state.stop.cancel();
    state.tasks.close();
    tokio::select! {
        () = state.tasks.wait() => {}
        () = tokio::time::sleep(state.config.shutdown_timeout) => {
            tracing::warn!(left = state.tasks.len(), "requests did not end in time");
        }
        _ = signals.next() => tracing::warn!(left = state.tasks.len(), "told again to stop"),
    }
    let last_words = async {
        state.gate.audit().seal_logged().await;
        state.swarm.shutdown().await;
        state.engine.shutdown().await;
    };
    if tokio::time::timeout(LAST_WORDS, last_words).await.is_err() {
        tracing::warn!("the engine did not come to rest in time");
    }
}
