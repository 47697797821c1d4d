//! Who was refused, and why, in the log: one line a minute for each peer and reason, because
//! whoever is refused tries again.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Time in which the same refusal is told once.
const QUIET: Duration = Duration::from_secs(60);
/// Refusals that are remembered; a peer can make up as many names as it likes.
const MAX_REMEMBERED: usize = 1024;

/// The refusals of late.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<BTreeMap<(IpAddr, String, &'static str), Instant>>);

impl Refusals {
    /// A handshake was refused; `subject` is what the certificate claims.
    pub(crate) fn handshake(&self, peer: SocketAddr, subject: &str, reason: &dyn Display) {
        if self.is_news(peer, subject, "handshake") {
            tracing::warn!(%peer, certificate = subject, %reason, "refused a connection");
        } else {
            tracing::debug!(%peer, certificate = subject, %reason, "refused a connection again");
        }
    }

    /// A call was refused.
    pub(crate) fn call(
        &self,
        peer: SocketAddr,
        subject: &str,
        method: &str,
        kind: &'static str,
        reason: &dyn Display,
    ) {
        if self.is_news(peer, subject, kind) {
            tracing::warn!(%peer, certificate = subject, method, %reason, "refused a call");
        } else {
            tracing::debug!(%peer, certificate = subject, method, %reason, "refused a call again");
        }
    }

    fn is_news(&self, peer: SocketAddr, subject: &str, kind: &'static str) -> bool {
        let now = Instant::now();
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (peer.ip(), subject.to_owned(), kind);
        let is_news = told.get(&key).is_none_or(|at| now.duration_since(*at) >= QUIET);
        if is_news {
            if told.len() >= MAX_REMEMBERED {
                told.retain(|_, at| now.duration_since(*at) < QUIET);
            }
            // Full of recent ones: forgetting them costs a few lines more.
            if told.len() >= MAX_REMEMBERED {
                told.clear();
            }
            told.insert(key, now);
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_refusal_is_told_once_a_minute() {
        let refusals = Refusals::default();
        let peer = |port| SocketAddr::from(([10, 0, 0, 1], port));
        assert!(refusals.is_news(peer(1), "a", "x"));
        assert!(!refusals.is_news(peer(2), "a", "x"), "another port is the same peer");
        assert!(refusals.is_news(peer(1), "b", "x") && refusals.is_news(peer(1), "a", "y"));
        tokio::time::advance(QUIET).await;
        assert!(refusals.is_news(peer(1), "a", "x"));
        for name in 0..5 * MAX_REMEMBERED {
            refusals.is_news(peer(1), &name.to_string(), "x");
        }
        assert!(refusals.0.lock().unwrap().len() <= MAX_REMEMBERED);
    }
}
