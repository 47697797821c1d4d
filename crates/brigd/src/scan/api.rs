//! `/brig/scan/database`.

use std::sync::Arc;

use brig_api::event::{Actor, Event};
use brig_api::scan::{ScanCoverage, ScanDatabase, ScanFeed, ScanFetch};
use brig_api::time::rfc3339nano;
use brig_types::error::{Categorized, ErrorKind};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderValue, StatusCode, header};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio_util::io::ReaderStream;

use super::database::{DatabaseError, Loaded};
use super::download::Attempts;
use super::follow;
use crate::route;
use crate::server::body::BodyError;
use crate::server::{ApiError, Call, Response, Route, body};
use crate::state::State;
use crate::swarm::local;

type Answer = Result<Response, ApiError>;

/// Routes about the database.
pub static ROUTES: &[Route] = &[
    route!(GET "/brig/scan/database", ScanDatabaseInspect, inspect),
    route!(POST "/brig/scan/database", ScanDatabaseUpdate, update, streamed(), attended()),
    route!(GET "/brig/scan/database/file", ScanDatabaseInspect, export),
];

/// Bytes that are sent at once.
const PIECE: usize = 128 << 10;

impl Categorized for DatabaseError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unusable(_) | Self::TooLarge | Self::Cut(_) => ErrorKind::InvalidParameter,
            Self::File { .. } | Self::Interrupted => ErrorKind::System,
        }
    }
}

fn current(state: &State) -> Result<Arc<Loaded>, ApiError> {
    state.vulnerabilities.current().ok_or_else(|| {
        let none =
            "this engine has no vulnerability database; give it one: brig scan db update --engine";
        let tried = state.vulnerabilities.attempts().filter(|tried| !tried.error.is_empty());
        match tried.map(shown_attempts) {
            Some(tried) => ApiError::not_found(format!(
                "{none}; it was not had from {} on {}: {}",
                tried.url, tried.attempted, tried.error
            )),
            None => ApiError::not_found(none),
        }
    })
}

fn shown_attempts(attempts: Attempts) -> ScanFetch {
    let shown = |seconds: i64| {
        let time = OffsetDateTime::from_unix_timestamp(seconds).ok().filter(|_| seconds > 0);
        time.map(rfc3339nano).unwrap_or_default()
    };
    ScanFetch {
        interval: attempts.interval,
        attempted: shown(attempts.attempted),
        succeeded: shown(attempts.succeeded),
        next: shown(attempts.next),
        url: attempts.url,
        error: attempts.error,
    }
}

/// `GET /brig/scan/database`.
async fn inspect(call: Call) -> Answer {
    body::ok(&shown(&call.state, &*current(&call.state)?))
}

/// `GET /brig/scan/database/file`: the file as it is.
async fn export(call: Call) -> Answer {
    let loaded = current(&call.state)?;
    let file = tokio::fs::File::open(&loaded.path)
        .await
        .map_err(|source| DatabaseError::File { path: loaded.path.clone(), source })?;
    let pieces = ReaderStream::with_capacity(file, PIECE)
        .map(|piece: std::io::Result<Bytes>| piece.map_err(BodyError::from));
    let content = HeaderValue::from_static("application/octet-stream");
    let mut response = body::stream(Some(content), pieces, call.state.stop.clone());
    if let Ok(length) = HeaderValue::try_from(loaded.index.size().to_string()) {
        response.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
    Ok(response)
}

/// `POST /brig/scan/database`: the file is the body.
async fn update(mut call: Call) -> Answer {
    let reader = call.reader();
    let state = call.state.clone();
    let arrived = state.vulnerabilities.receive(reader).await?;
    let before = state.vulnerabilities.current();
    // From here on it goes to its end, whether or not the client waits for that.
    let work = {
        let state = state.clone();
        async move {
            let changing = state.vulnerabilities.change().await;
            let loaded = state.vulnerabilities.install(arrived, &changing).await?;
            follow::share(&state, &loaded).await?;
            Ok::<_, ApiError>(loaded)
        }
    };
    let loaded = state.tasks.spawn(work).await.map_err(|_| ApiError::system("interrupted"))??;
    announce(&state, &loaded);
    let mut answer = shown(&state, &loaded);
    if let Some(before) = before
        && before.index.created() > loaded.index.created()
    {
        answer.warnings.push(format!(
            "it was made on {}, before the one that it replaces, of {}",
            loaded.index.created(),
            before.index.created()
        ));
    }
    body::json(StatusCode::OK, &answer)
}

/// Tells whoever listens to events.
pub(super) fn announce(state: &State, loaded: &Loaded) {
    state.engine.events().publish(Event {
        kind: "daemon".to_owned(),
        action: "scan-database".to_owned(),
        actor: Actor {
            id: state.engine_id.clone(),
            attributes: [
                ("digest".to_owned(), loaded.digest.clone()),
                ("created".to_owned(), loaded.index.created().to_owned()),
            ]
            .into(),
        },
        scope: "local".to_owned(),
        ..Event::default()
    });
}

fn shown(state: &State, loaded: &Loaded) -> ScanDatabase {
    let index = &loaded.index;
    let (flaws, packages, _) = index.counts();
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let shared = local::control(state).ok().and_then(|control| control.scan_database());
    let received = OffsetDateTime::from_unix_timestamp(loaded.received);
    ScanDatabase {
        digest: format!("sha256:{}", loaded.digest),
        content: index.digest().to_owned(),
        created: index.created().to_owned(),
        size: count(index.size()),
        newest: index.newest().to_owned(),
        coverage: index
            .coverage()
            .unwrap_or_default()
            .into_iter()
            .map(|known| ScanCoverage {
                age: age(&known.newest),
                name: known.family,
                newest: known.newest,
                feeds: known.feeds,
            })
            .collect(),
        vulnerabilities: count(flaws),
        packages: count(packages),
        feeds: index
            .feeds()
            .iter()
            .map(|feed| ScanFeed {
                name: feed.name.clone(),
                origin: feed.origin.clone(),
                newest: feed.newest.clone(),
                age: age(&feed.newest),
                read: feed.read.clone(),
                records: feed.records,
                skipped: feed.skipped,
            })
            .collect(),
        received: received.map(rfc3339nano).unwrap_or_default(),
        shared: shared.is_some(),
        node: shared.as_ref().map(|shared| shared.node.clone()).unwrap_or_default(),
        awaited: shared
            .filter(|shared| shared.digest != loaded.digest)
            .map(|shared| format!("sha256:{}", shared.digest))
            .unwrap_or_default(),
        warnings: Vec::new(),
        fetch: state.vulnerabilities.attempts().map(shown_attempts),
    }
}

/// Days since a day; -1 when it is none.
fn age(day: &str) -> i64 {
    let format = format_description!("[year]-[month]-[day]");
    let day = day.get(..10).and_then(|day| time::Date::parse(day, &format).ok());
    day.map_or(-1, |day| (OffsetDateTime::now_utc().date() - day).whole_days())
}
