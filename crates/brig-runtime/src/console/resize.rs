//! The size of a terminal, through conmon's control pipe.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// conmon's control pipe in a bundle.
const CONTROL: &str = "ctl";
/// conmon up to 2.1 applies the first of two sizes twice when it reads both at once.
const SPACING: Duration = Duration::from_millis(60);

#[derive(Debug)]
pub(super) struct Resizer {
    bundle: PathBuf,
    last_asked: AtomicU64,
    last_sent: Mutex<Option<Instant>>,
}

impl Resizer {
    pub(super) fn new(bundle: PathBuf) -> Self {
        Self { bundle, last_asked: AtomicU64::new(0), last_sent: Mutex::new(None) }
    }

    pub(super) async fn resize(&self, height: u16, width: u16) -> io::Result<()> {
        let number = self.last_asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut last_sent = self.last_sent.lock().await;
        if let Some(last) = *last_sent {
            tokio::time::sleep_until(last + SPACING).await;
        }
        if self.last_asked.load(Ordering::SeqCst) != number {
            // A newer size waits for the lock.
            return Ok(());
        }
        let mut pipe = OpenOptions::new()
            .write(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(self.bundle.join(CONTROL))?;
        // conmon's wm_control: type 1, height, width. Shorter than a pipe's atomic write.
        pipe.write_all(format!("1 {height} {width}\n").as_bytes())?;
        *last_sent = Some(Instant::now());
        Ok(())
    }
}
