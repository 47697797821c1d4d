//! Reading foreign bytes in a process that holds nothing worth stealing.
//!
//! The parent opens the source and starts its own program again with [`READER`] as its argument, the
//! source as descriptor 3 and a pipe as descriptor 1: no environment, no other descriptor. Before it
//! looks at a byte, that process moves into namespaces of its own where the kernel lets it (no
//! network, an empty root or the scanned directory as root), gives up all privileges, sets hard
//! limits, and lets a filter end it at any system call that reading does not take: no sockets, no
//! processes, no files but what is open. What comes back is a bounded answer that the parent parses
//! as untrusted.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use brig_sys::confine::{self, Reach, Resources};
use brig_sys::spawn::{Child, Spawn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use crate::inventory::layer::{LayerInventory, read_layer};
use crate::inventory::{Limits, Options, ScanError, open, read_fd};
use crate::package::Inventory;

/// The argument by which a program knows that it is the reader. Its `main` hands over to [`reader`]
/// before it does anything else.
pub const READER: &str = "scan-reader";

/// Largest answer when nothing else is said, in bytes.
const MAX_ANSWER: u64 = 512 << 20;
/// How long the reader may take to end after its answer.
const GRACE: Duration = Duration::from_secs(2);
const SOURCE: i32 = 3;
/// How much of a layer waits in its pipe, in bytes, where the kernel allows it.
const PIPE: usize = 1 << 20;
const PIECE: usize = 256 << 10;

/// How the reader is confined.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The program; this one without it.
    pub program: PathBuf,
    /// Longest time it may take.
    pub time: Duration,
    /// Its address space, in bytes.
    pub memory: u64,
    /// Largest answer, in bytes: what the parent has to hold.
    pub answer: u64,
    /// How far it stands back behind others (nice), from 0 to 19.
    pub niceness: u8,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            time: Duration::from_secs(600),
            memory: 2 << 30,
            answer: MAX_ANSWER,
            niceness: 0,
        }
    }
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Found(Box<Inventory>),
    Layer(Box<LayerInventory>),
    /// The input cannot be read.
    Failed(String),
    /// The process could not be made what it must be.
    Unable(String),
}

/// What the reader is told.
#[derive(Serialize, Deserialize)]
struct Order {
    work: Work,
    memory: u64,
    cpu: u64,
    niceness: u8,
}

#[derive(Serialize, Deserialize)]
enum Work {
    /// The source is a file or a directory.
    Source(Options),
    /// One layer's uncompressed archive comes through a pipe.
    Layer(Limits),
}

impl Sandbox {
    /// Makes the inventory of a file or directory.
    ///
    /// # Errors
    /// [`ScanError::Open`] when it cannot be opened, [`ScanError::Sandbox`] for everything that the
    /// reader says or that ends it.
    pub fn read_path(&self, path: &Path, options: &Options) -> Result<Inventory, ScanError> {
        self.read_fd(open(path)?, options)
    }

    /// Makes the inventory of an open file or directory.
    ///
    /// # Errors
    /// As [`Sandbox::read_path`].
    pub fn read_fd(&self, source: OwnedFd, options: &Options) -> Result<Inventory, ScanError> {
        match self.started(source, Work::Source(options.clone()))?.answer(self)? {
            Answer::Found(inventory) => Ok(*inventory),
            Answer::Failed(message) => Err(ScanError::Sandbox(message)),
            Answer::Unable(message) => Err(ScanError::Unable(message)),
            Answer::Layer(_) => Err(other_answer()),
        }
    }

    /// Reads one layer's uncompressed archive as `source` gives it. The caller says which layer it
    /// was: the digest of what came is not computed here. Blocks.
    ///
    /// # Errors
    /// [`ScanError::Read`] when the source fails, else as [`Sandbox::read_path`].
    pub fn read_layer(
        &self,
        mut source: impl Read + Send,
        limits: &Limits,
    ) -> Result<LayerInventory, ScanError> {
        let (reading, feeding) = pipe()?;
        // A small pipe is only slower.
        let _ = rustix::pipe::fcntl_setpipe_size(&feeding, PIPE);
        let running = self.started(reading, Work::Layer(*limits))?;
        let (fed, answer) = std::thread::scope(|scope| {
            let feeder = std::thread::Builder::new()
                .name("brig-layer".to_owned())
                .spawn_scoped(scope, move || feed(&mut source, File::from(feeding)))
                .map_err(ScanError::Thread)?;
            let answer = running.answer(self);
            let fed = feeder.join().unwrap_or_else(|_| Err(io::Error::other("a reader failed")));
            Ok((fed, answer))
        })?;
        // What the other end says of a source that ended early is not the cause.
        let size = fed.map_err(ScanError::Read)?;
        match answer? {
            Answer::Layer(mut layer) => {
                layer.size = size;
                Ok(*layer)
            }
            Answer::Failed(message) => Err(ScanError::Sandbox(message)),
            Answer::Unable(message) => Err(ScanError::Unable(message)),
            Answer::Found(_) => Err(other_answer()),
        }
    }

    fn started(&self, source: OwnedFd, work: Work) -> Result<Running, ScanError> {
        let started = |source| ScanError::Start { source };
        // Spawning twice the time: both threads of a machine may be at work.
        let cpu = self.time.as_secs().saturating_mul(4).max(1);
        let order = Order { work, memory: self.memory, cpu, niceness: self.niceness };
        let order = serde_json::to_string(&order)
            .map_err(|error| ScanError::Sandbox(format!("writing the order: {error}")))?;
        let (answer, answering) = pipe()?;
        let child = Spawn::new(&self.program)
            .args([READER, &order])
            .dir(Path::new("/"))
            .fd(answering, 1)
            .fd(source, SOURCE)
            .start()
            .map_err(started)?;
        Ok(Running { child, answer: File::from(answer), deadline: Instant::now() + self.time })
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), ScanError> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| ScanError::Start { source: errno.into() })
}

fn other_answer() -> ScanError {
    ScanError::Sandbox("the process that reads the image answered something else".to_owned())
}

/// Hands a source over; returns how many bytes it had. A reader that is gone says itself why.
fn feed(source: &mut impl Read, mut pipe: File) -> io::Result<u64> {
    let mut buffer = vec![0_u8; PIECE];
    let mut total = 0_u64;
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        total += read as u64;
        if pipe.write_all(buffer.get(..read).unwrap_or_default()).is_err() {
            return Ok(total);
        }
    }
}

/// The reading process.
struct Running {
    child: Child,
    answer: File,
    deadline: Instant,
}

impl Running {
    fn answer(self, sandbox: &Sandbox) -> Result<Answer, ScanError> {
        let bytes = collect(self.answer, self.deadline, sandbox.answer);
        let grace = if bytes.is_ok() { GRACE } else { Duration::ZERO };
        let status = self.child.end_within(grace).map_err(|source| ScanError::Start { source })?;
        serde_json::from_slice(&bytes?).map_err(|_| {
            let why = ended(status, sandbox);
            // The machine was short of memory, or somebody ended it.
            let killed = status.signal() == Some(libc_signal::KILL);
            if killed { ScanError::Unable(why) } else { ScanError::Sandbox(why) }
        })
    }
}

/// Why there is no answer.
fn ended(status: ExitStatus, sandbox: &Sandbox) -> String {
    let mib = sandbox.memory >> 20;
    match status.signal() {
        Some(libc_signal::SYS) => {
            "the process that reads the image made a system call that reading does not take, and was \
             ended: the image may be an attack, please report it"
                .to_owned()
        }
        Some(libc_signal::ABRT | libc_signal::SEGV | libc_signal::KILL) => format!(
            "the process that reads the image ended without an answer: its memory of {mib} MiB was \
             probably not enough for what the image asks"
        ),
        Some(libc_signal::XCPU) => {
            "the process that reads the image used up its processor time".to_owned()
        }
        _ => format!("the process that reads the image gave no answer ({status})"),
    }
}

/// Numbers of signals, the same on every architecture that brig knows.
mod libc_signal {
    pub(super) const ABRT: i32 = 6;
    pub(super) const KILL: i32 = 9;
    pub(super) const SEGV: i32 = 11;
    pub(super) const XCPU: i32 = 24;
    pub(super) const SYS: i32 = 31;
}

/// Everything that comes through the pipe until its other end closes.
fn collect(mut pipe: File, deadline: Instant, most: u64) -> Result<Vec<u8>, ScanError> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0_u8; 256 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        let ready = poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&timeout));
        match ready {
            Ok(0) => {
                return Err(ScanError::TooSlow);
            }
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(ScanError::Read(error.into())),
            Ok(_) => {}
        }
        match pipe.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(count) => {
                bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
                if bytes.len() as u64 > most {
                    let what = "bytes of packages and paths";
                    return Err(ScanError::Limit { what, limit: most });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ScanError::Read(error)),
        }
    }
}

/// Whether these are the arguments (the program's name first) of the reader.
#[must_use]
pub fn is_reader(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> bool {
    arguments.nth(1).is_some_and(|first| first == READER)
}

/// The reader's whole life: confines the process, reads, answers. It must have one thread yet.
#[must_use]
pub fn reader() -> ExitCode {
    let order = std::env::args().nth(2).unwrap_or_default();
    let answer = match std::panic::catch_unwind(|| read(&order)) {
        Ok(Ok(answer)) => answer,
        Ok(Err(answer)) => answer,
        Err(_) => Answer::Failed("the reader of the image failed: please report it".to_owned()),
    };
    let mut out = io::stdout().lock();
    let written = serde_json::to_writer(io::BufWriter::with_capacity(64 << 10, &mut out), &answer)
        .map_err(io::Error::from)
        .and_then(|()| out.flush());
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read(order: &str) -> Result<Answer, Answer> {
    let order: Order = serde_json::from_str(order)
        .map_err(|_| Answer::Unable("this is not meant to be called".to_owned()))?;
    let source = brig_sys::spawn::inherited(SOURCE)
        .map_err(|error| Answer::Unable(format!("the source is not there: {error}")))?;
    confine(source.as_fd(), &order).map_err(|error| {
        Answer::Unable(format!("the process that reads the image could not be confined: {error}"))
    })?;
    match &order.work {
        Work::Source(options) => read_fd(source, options).map(Box::new).map(Answer::Found),
        Work::Layer(limits) => {
            let source = io::BufReader::with_capacity(PIECE, File::from(source));
            read_layer(source, limits).map(Box::new).map(Answer::Layer)
        }
    }
    .map_err(|error| Answer::Failed(brig_types::error::chain(&error)))
}

fn confine(source: BorrowedFd<'_>, order: &Order) -> io::Result<()> {
    let kind = rustix::fs::fstat(source)?.st_mode;
    let folder = rustix::fs::FileType::from_raw_mode(kind) == rustix::fs::FileType::Directory;
    let reach = if folder { Reach::Below(source) } else { Reach::OpenOnly };
    if order.niceness > 0 {
        let _ = rustix::process::nice(i32::from(order.niceness));
    }
    // SECURITY: namespaces are one wall of several. Hosts and containers that forbid them still have
    // the filter, which no call for a socket, a process or a file passes.
    let _ = confine::namespaces(reach);
    confine::resources(Resources { memory: order.memory, cpu: order.cpu, files: 1100 })?;
    confine::privileges()?;
    confine::system_calls(reach)
}
