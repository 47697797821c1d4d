//! A volume's own turn: mounts, unmounts and removal of one volume happen one after the other, and
//! never hold up those of another. Waiting for it ends after a time: a file server that does not
//! answer keeps a mount in the kernel for as long as it likes.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The turn of one volume.
#[derive(Debug, Default)]
pub(super) struct Gate {
    busy: Mutex<bool>,
    free: Condvar,
}

/// Having the turn.
#[derive(Debug)]
pub(super) struct Turn(Arc<Gate>);

impl Gate {
    /// Waits for the turn, at most for `patience`.
    pub(super) fn enter(self: &Arc<Self>, patience: Duration) -> Option<Turn> {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut busy, _) = self
            .free
            .wait_timeout_while(busy, patience, |busy| *busy)
            .unwrap_or_else(PoisonError::into_inner);
        if *busy {
            return None;
        }
        *busy = true;
        Some(Turn(Arc::clone(self)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.busy.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.free.notify_one();
    }
}

/// Runs `mount` on a thread of its own and waits for it, at most for `patience`. The thread has the
/// turn until it is done; what it finished too late is taken back with `undo`, for nobody knows of
/// it.
///
/// # Errors
/// `TimedOut` when it took too long; else what `mount` answers.
pub(super) fn bounded<M, U>(turn: Turn, patience: Duration, mount: M, undo: U) -> io::Result<()>
where
    M: FnOnce() -> io::Result<()> + Send + 'static,
    U: FnOnce() + Send + 'static,
{
    // Without a buffer: handing over fails exactly when nobody waits any more.
    let (sender, receiver) = sync_channel(0);
    std::thread::Builder::new().name("volume-mount".to_owned()).spawn(move || {
        let result = mount();
        let worked = result.is_ok();
        // Given back first, so that who waited finds it free, unless there is something to undo.
        if sender.send(result).is_err() && worked {
            undo();
        }
        drop(turn);
    })?;
    match receiver.recv_timeout(patience) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(io::ErrorKind::TimedOut.into()),
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the mount was interrupted")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_comes_too_late_is_taken_back() {
        let gate = Arc::new(Gate::default());
        let (release, hang) = sync_channel::<()>(0);
        let undone = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&undone);
        let turn = gate.enter(LONG).unwrap();
        let mount = move || hang.recv().map_err(io::Error::other);
        let late = bounded(turn, Duration::from_millis(10), mount, move || {
            flag.store(true, Ordering::SeqCst);
        });
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(gate.enter(Duration::from_millis(10)).is_none(), "it is still under way");
        release.send(()).unwrap();
        let turn = gate.enter(LONG).unwrap();
        assert!(undone.load(Ordering::SeqCst), "before anybody else has the turn");
        bounded(turn, LONG, || Ok(()), || panic!("it was in time")).unwrap();
        gate.enter(LONG).unwrap();
    }
}
