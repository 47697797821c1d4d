//! Sockets that containers were lent: each is its own listener, and whoever comes by it has the
//! role that it was lent with.

use brig_engine::LentSocket;
use tokio::net::UnixListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use super::connection::{ACCEPT_PAUSE, serve};
use super::peer::PeerWatch;
use super::pool::{Limits, Pool};
use super::service::ApiService;
use crate::access::{Principal, lend};

/// Connections of one container at a time: what it floods is its own.
const MAX_CONNECTIONS: usize = 256;

/// Serves every socket that the engine lends, each until its container's run ends or the daemon
/// does.
pub async fn accept(
    mut sockets: UnboundedReceiver<LentSocket>,
    service: ApiService,
    stop: CancellationToken,
) {
    while let Some(Some(socket)) = stop.run_until_cancelled(sockets.recv()).await {
        let (service, stop) = (service.clone(), stop.clone());
        service.state().tasks.clone().spawn(listen(socket, service, stop));
    }
}

async fn listen(socket: LentSocket, service: ApiService, stop: CancellationToken) {
    let LentSocket { container, access, listener, ended } = socket;
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%container, %error, "a container's socket of the engine is not served");
            return;
        }
    };
    tracing::info!(%container, %access, "a container has a socket of the engine");
    let principal = Principal::Lent {
        role: access.role.clone(),
        scope: lend::scope(&access),
        container: container.to_string(),
    };
    let pool = Pool::new(Limits { total: MAX_CONNECTIONS, handshakes: MAX_CONNECTIONS });
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            () = ended.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%container, %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let admitted = tokio::select! {
            () = stop.cancelled() => return,
            () = ended.cancelled() => return,
            slot = pool.admit() => slot,
        };
        let peer = match PeerWatch::leased(&stream, admitted, ended.clone()) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%container, %error, "cannot watch a connection");
                continue;
            }
        };
        peer.slot().established();
        let (service, stop, principal) = (service.clone(), stop.clone(), principal.clone());
        service.state().tasks.clone().spawn(serve(stream, principal, peer, true, service, stop));
    }
}
