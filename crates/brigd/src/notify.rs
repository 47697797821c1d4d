//! What systemd is told, and what it hands over.

use std::os::unix::net::UnixListener;

use sd_notify::NotifyState;

/// Tells systemd that requests are answered.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// Tells systemd that the daemon is on its way out.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// The Unix sockets of the socket unit; empty when the daemon was started in another way.
///
/// Takes the variables out of the environment, so that no child mistakes them for its own: call
/// it before any thread is started.
#[must_use]
pub fn handed_over() -> Vec<UnixListener> {
    let mut sockets = listenfd::ListenFd::from_env();
    (0..sockets.len())
        .filter_map(|index| match sockets.take_unix_listener(index) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, index, "a descriptor from systemd is no Unix socket");
                None
            }
        })
        .collect()
}

fn send(state: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell, which is no error.
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}
