//! Clients that write one config after the other through the Engine API, each over a connection
//! of its own that stays open, and what a span of that came to.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::measure::millis;

/// How long a figure is measured.
pub(super) const SPAN: Duration = Duration::from_secs(4);
/// Bytes of a config.
pub(super) const PAYLOAD: usize = 256;

static NAMES: AtomicUsize = AtomicUsize::new(0);

/// A name that nothing had in this run.
pub(super) fn name() -> String {
    format!("bench-{}-{}", std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed))
}

/// What was reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached {
    pub(super) per_second: f64,
    /// Milliseconds.
    pub(super) p50: f64,
    pub(super) p99: f64,
}

impl Reached {
    pub(super) fn of(mut times: Vec<Duration>, span: Duration) -> Self {
        assert!(!times.is_empty(), "nothing was written");
        times.sort_unstable();
        let at = |hundredth: usize| millis(times[(times.len() - 1) * hundredth / 100]);
        Self { per_second: times.len() as f64 / span.as_secs_f64(), p50: at(50), p99: at(99) }
    }

    /// The round in the middle.
    pub(super) fn median(mut rounds: Vec<Self>) -> Self {
        rounds.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        rounds[rounds.len() / 2]
    }
}

impl std::fmt::Display for Reached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>8.0}/s {:>8.1} {:>8.1}", self.per_second, self.p50, self.p99)
    }
}

/// A connection that stays open.
pub(super) struct Connection(BufReader<UnixStream>);

impl Connection {
    pub(super) fn open(socket: &Path, patience: Duration) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(patience))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Creates a config; the answer's status.
    pub(super) fn create_config(&mut self, name: &str) -> io::Result<u16> {
        let data = "eHh4".repeat(PAYLOAD / 3);
        let body = format!(r#"{{"Name":"{name}","Data":"{data}"}}"#);
        let head = "POST /v1.41/configs/create HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n";
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        self.0.get_mut().write_all(request.as_bytes())?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<u16> {
        let status = self.line()?;
        let status = status.split_ascii_whitespace().nth(1).and_then(|word| word.parse().ok());
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            chunked |= line == "transfer-encoding: chunked";
        }
        while chunked {
            length = usize::from_str_radix(&self.line()?, 16).unwrap_or(0);
            self.skip(length + 2)?;
            chunked = length > 0;
            length = 0;
        }
        self.skip(length)?;
        status.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn skip(&mut self, bytes: usize) -> io::Result<()> {
        let skipped = io::copy(&mut self.0.by_ref().take(bytes as u64), &mut io::sink())?;
        if skipped == bytes as u64 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// Has so many clients write through each of the sockets for a while.
pub(super) fn drive(sockets: &[PathBuf], clients: usize) -> Reached {
    let until = Instant::now() + SPAN;
    let write = |socket: &Path| {
        let mut connection = Connection::open(socket, Duration::from_secs(30)).unwrap();
        let mut times = Vec::new();
        while Instant::now() < until {
            let began = Instant::now();
            let status = connection.create_config(&name()).unwrap();
            assert_eq!(status, 201, "a config was not created");
            times.push(began.elapsed());
        }
        times
    };
    let times = std::thread::scope(|scope| {
        let threads: Vec<_> = sockets
            .iter()
            .flat_map(|socket| (0..clients).map(move |_| socket))
            .map(|socket| scope.spawn(move || write(socket)))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    Reached::of(times, SPAN)
}
