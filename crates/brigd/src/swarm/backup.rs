//! `/brig/cluster/backup` and `/brig/cluster/restore`.
//!
//! What leaves here is encrypted already: no client, proxy or log sees the cluster's keys in the
//! clear. So what opens a backup comes here too, in front of it.

use std::io::{self, Read, Write};

use brig_api::cluster::{BackupOpening, BackupRequest, BackupSummary, MAX_OPENING, RestoreAnswer};
use brig_pki::agefile::{Opener, Readers};
use brig_swarm::{Backup, BackupError, RestoreRequest};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::HeaderValue;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::SyncIoBridge;
use tokio_util::sync::CancellationToken;

use super::{Answer, events, local, places};
use crate::api::blocking::blocking;
use crate::server::body::BodyError;
use crate::server::{ApiError, Call, body};

const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// Pieces that wait for the client.
const QUEUE: usize = 8;
/// Bytes that are gathered into a piece.
const PIECE: usize = 64 << 10;

/// `POST /brig/cluster/backup`: the cluster as it is now.
///
/// What goes wrong after the first bytes cuts the connection: an answer that ends is a backup.
pub(super) async fn backup(mut call: Call) -> Answer {
    let control = local::control(&call.state)?;
    let request: BackupRequest = call.required_json().await?;
    let readers = readers(request)?;
    let snapshot = control.snapshot();
    let snapshot = blocking(move || snapshot.check().map(|()| snapshot)).await?;
    let (pieces, received) = mpsc::channel::<Result<Bytes, BodyError>>(QUEUE);
    let stop = call.state.stop.clone();
    let failing = pieces.clone();
    call.state.tasks.spawn_blocking(move || {
        let out = io::BufWriter::with_capacity(PIECE, Pieces { pieces, stop });
        if let Err(error) = snapshot.write(&readers, out) {
            tracing::error!(error = %brig_types::error::chain(&error), "a backup broke off");
            // The client may be what broke.
            let _ = failing.blocking_send(Err(error.into()));
        }
    });
    // Not cut short when the daemon stops, which would look like an end: the writer says so.
    let items = ReceiverStream::new(received).boxed();
    Ok(body::stream(Some(BYTES), items, CancellationToken::new()))
}

fn readers(request: BackupRequest) -> Result<Readers, ApiError> {
    match (request.recipients.is_empty(), request.passphrase.is_empty()) {
        (false, true) => Ok(Readers::recipients(request.recipients.iter().map(String::as_str))?),
        (true, false) => Ok(Readers::passphrase(request.passphrase.0)?),
        (true, true) => Err(brig_pki::agefile::AgeError::NoReaders.into()),
        (false, false) => {
            Err(ApiError::invalid("a backup is for recipients or for a passphrase, not for both"))
        }
    }
}

/// Sends what is written to it to a client.
struct Pieces {
    pieces: mpsc::Sender<Result<Bytes, BodyError>>,
    stop: CancellationToken,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.stop.is_cancelled() {
            return Err(io::Error::other("the daemon stops"));
        }
        let piece = Bytes::copy_from_slice(bytes);
        let sent = self.pieces.blocking_send(Ok(piece));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `POST /brig/cluster/backup/verify`: reads a backup to its end, checks what is in it, and
/// restores it into a store that is thrown away. Needs no cluster.
pub(super) async fn verify(mut call: Call) -> Answer {
    let backup = read(&mut call).await?;
    call.state.swarm.try_out(&backup).await?;
    body::ok(&summary(&backup))
}

/// `POST /brig/cluster/restore`: makes this node the manager of the backup's cluster.
pub(super) async fn restore(mut call: Call) -> Answer {
    call.state.swarm.check_free()?;
    let text = |key: &str| call.query.text(key).unwrap_or_default().to_owned();
    let request = RestoreRequest {
        listen_addr: places::resolve(text("listenAddr")).await?,
        advertise_addr: places::resolve(text("advertiseAddr")).await?,
        data_path_addr: places::resolve(text("dataPathAddr")).await?,
    };
    let backup = read(&mut call).await?;
    let node_id = call.state.swarm.restore(request, &backup).await?;
    events::follow(&call.state);
    body::ok(&RestoreAnswer { node_id, backup: summary(&backup) })
}

/// Reads what opens a backup, and the backup.
async fn read(call: &mut Call) -> Result<Backup, ApiError> {
    let mut body = SyncIoBridge::new(call.reader());
    blocking(move || {
        let opener = opener(&mut body)?;
        Backup::read(body, &opener).map_err(|error: BackupError| ApiError::from(error))
    })
    .await
}

fn opener(body: &mut impl Read) -> Result<Opener, ApiError> {
    let short = |_| ApiError::invalid("the body ends before the backup begins");
    let mut length = [0; 4];
    body.read_exact(&mut length).map_err(short)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_OPENING {
        return Err(ApiError::too_large(MAX_OPENING));
    }
    let mut json = zeroize::Zeroizing::new(vec![0; length]);
    body.read_exact(&mut json).map_err(short)?;
    let opening: BackupOpening = serde_json::from_slice(&json)
        .map_err(|error| ApiError::invalid(format!("invalid JSON: {error}")))?;
    if opening.identities.is_empty() {
        return Ok(Opener::passphrase(opening.passphrase.0));
    }
    Ok(Opener::identities(&opening.identities.0)?)
}

fn summary(backup: &Backup) -> BackupSummary {
    let summary = &backup.summary;
    BackupSummary {
        format: summary.header.format,
        brig: summary.header.brig.clone(),
        created: summary.header.created.clone(),
        cluster: summary.cluster.clone(),
        node: summary.node.clone(),
        revision: summary.revision,
        autolock: summary.autolock,
        objects: summary
            .objects
            .iter()
            .map(|(kind, count)| ((*kind).to_owned(), *count as u64))
            .collect(),
    }
}
