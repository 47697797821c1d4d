//! `cp`: files between this machine and a container.
//!
//! Where things go and what they are called there is docker's (and `cp -a`'s) rule. Archives of a
//! container are extracted beneath the destination: its links lead nowhere else on this machine.

use std::io::{self, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use brig_api::archive::{HEADER, PathStat};
use brig_archive::{ExtractOptions, Links, Owner, base_name, clean};
use bytes::Bytes;
use clap::Args;
use rustix::fs::{FileType, Mode, OFlags};
use tokio::sync::mpsc;

use crate::cli::leaf;
use crate::client::{Answer, Call};
use crate::context::Context;
use crate::error::{Error, Result, message};
use crate::output::human::size;
use crate::output::{print_bytes, warn};
use crate::terminal::stdout_is_terminal;

leaf!(
    CP,
    "cp",
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-",
    "Copy files/folders between a container and the local filesystem",
    CpArgs,
    cp
);

/// Most links that a local destination may go through.
const MAX_LINKS: usize = 10;
/// Pieces of an archive that wait to be extracted.
const PIECES: usize = 8;

#[derive(Args, Debug)]
struct CpArgs {
    /// Archive mode (copy all uid/gid information)
    #[arg(long, short = 'a')]
    archive: bool,
    /// Always follow symbol link in SRC_PATH
    #[arg(long, short = 'L')]
    follow_link: bool,
    /// Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached
    #[arg(long, short = 'q')]
    quiet: bool,
    #[arg(hide = true, allow_hyphen_values = true)]
    source: String,
    #[arg(hide = true, allow_hyphen_values = true)]
    destination: String,
}

async fn cp(context: &Context, args: CpArgs) -> Result<()> {
    for (text, what) in [(&args.source, "source"), (&args.destination, "destination")] {
        if text.is_empty() {
            return Err(message(format!("{what} can not be empty")));
        }
    }
    match (side(&args.source), side(&args.destination)) {
        ((Some(_), _), (Some(_), _)) => Err(message("copying between containers is not supported")),
        ((None, _), (None, _)) => Err(message("must specify at least one container source")),
        ((Some(container), source), (None, local)) => {
            from_container(context, &args, container, source, local).await
        }
        ((None, local), (Some(container), target)) => {
            to_container(context, &args, local, container, target).await
        }
    }
}

/// `container:path`, or a local path: one from the root, or with a dot at its beginning.
fn side(text: &str) -> (Option<&str>, &str) {
    if text.starts_with('/') {
        return (None, text);
    }
    match text.split_once(':') {
        Some((container, path)) if !container.starts_with('.') => (Some(container), path),
        _ => (None, text),
    }
}

fn names_current_dir(path: &str) -> bool {
    base_name(Path::new(path)) == "."
}

/// Directory and last name of a path; `a/.` has the name `.`.
fn split(path: &str) -> (PathBuf, Vec<u8>) {
    let absolute = path.starts_with('/');
    let mut whole = clean(Path::new(path));
    if !absolute && let Ok(relative) = whole.strip_prefix("/") {
        whole = relative.to_owned();
    }
    if names_current_dir(path) {
        return (whole, b".".to_vec());
    }
    let name = whole.file_name().map(|name| name.as_bytes().to_vec()).unwrap_or_default();
    let dir = whole.parent().unwrap_or(Path::new("/")).to_owned();
    (dir, name)
}

/// What a copy's source is called, and where it goes.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    dir: PathBuf,
    name: Vec<u8>,
}

/// What is known of a destination.
#[derive(Debug)]
struct Destination<'a> {
    path: &'a str,
    exists: bool,
    is_dir: bool,
}

/// Docker's rule: into a directory that exists, else under the destination's own name.
fn plan(source_name: Vec<u8>, source_is_dir: bool, destination: &Destination<'_>) -> Result<Plan> {
    if destination.exists && destination.is_dir {
        return Ok(Plan { dir: PathBuf::from(destination.path), name: source_name });
    }
    if destination.exists && source_is_dir {
        return Err(message("cannot copy directory"));
    }
    let asserts_dir = destination.path.ends_with('/') || names_current_dir(destination.path);
    if !destination.exists && !source_is_dir && asserts_dir {
        return Err(message("no such directory"));
    }
    let (dir, name) = split(destination.path);
    Ok(Plan { dir, name })
}

/// The end of what a link leads to, as the link's own path had it; and the name that the copy
/// keeps when both differ.
fn rebased(path: &str, resolved: String) -> (String, Option<Vec<u8>>) {
    let mut resolved = resolved;
    if names_current_dir(path) && !names_current_dir(&resolved) {
        resolved.push_str("/.");
    }
    if path.ends_with('/') && !resolved.ends_with('/') {
        resolved.push('/');
    }
    let name = base_name(Path::new(path));
    let differs = name != base_name(Path::new(&resolved));
    (resolved, differs.then(|| name.as_bytes().to_vec()))
}

fn archive_path(container: &str) -> Result<String> {
    Ok(format!("/containers/{}/archive", crate::commands::checked("container", container)?))
}

fn stat_of(answer: &Answer<'_>) -> Result<PathStat> {
    answer.header(HEADER).and_then(PathStat::from_header).ok_or_else(|| {
        message("unable to decode container path stat header: it is missing or malformed")
    })
}

/// A HEAD has no text: what it says is told by its status alone.
async fn stat_path(context: &Context, container: &str, path: &str) -> Result<PathStat> {
    let call = Call::head(archive_path(container)?).query("path", path);
    let answer = context.client.send(call).await?;
    let stat = stat_of(&answer)?;
    answer.bytes(0).await?;
    Ok(stat)
}

/// Where a container's link leads, from the root.
fn link_target(path: &str, target: &str) -> String {
    if target.starts_with('/') {
        return target.to_owned();
    }
    let dir = Path::new(path).parent().unwrap_or(Path::new("/"));
    clean(&dir.join(target)).display().to_string()
}

async fn from_container(
    context: &Context,
    args: &CpArgs,
    container: &str,
    source: &str,
    local: &str,
) -> Result<()> {
    let mut source = source.to_owned();
    let mut rebase = None;
    if args.follow_link
        && let Ok(stat) = stat_path(context, container, &source).await
        && stat.is_symlink()
    {
        (source, rebase) = rebased(&source, link_target(&source, &stat.link_target));
    }
    let call = Call::get(archive_path(container)?).query("path", &source);
    let mut answer = context.client.send(call).await?;
    let stat = stat_of(&answer)?;
    if local == "-" {
        while let Some(piece) = answer.chunk().await? {
            print_bytes(&piece)?;
        }
        return Ok(());
    }
    let (_, archived) = split(&source);
    let (path, exists, is_dir) = local_destination(local)?;
    let name = rebase.unwrap_or_else(|| archived.clone());
    let plan = plan(name, stat.is_dir(), &Destination { path: &path, exists, is_dir })?;
    let dir = open_local(&plan.dir, OFlags::DIRECTORY)?;
    let options = ExtractOptions {
        links: Links::Beneath,
        owner: Owner::Caller,
        keep_kinds: true,
        rename: (plan.name != archived).then_some((archived, plan.name)),
    };
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    let extracted = tokio::task::spawn_blocking(move || {
        brig_archive::extract(Pieces::new(receiver), &dir, Path::new(""), &options)
    });
    let mut copied = 0_usize;
    let received = loop {
        match answer.chunk().await {
            Ok(Some(piece)) => {
                copied += piece.len();
                // The extractor gave up: it says why.
                if sender.send(Ok(piece)).await.is_err() {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => {
                let broken = io::Error::new(io::ErrorKind::UnexpectedEof, "the archive broke off");
                let _ = sender.send(Err(broken)).await;
                break Err(error);
            }
        }
    };
    drop(sender);
    let extracted = extracted.await.map_err(|error| message(error.to_string()))?;
    received?;
    extracted.map_err(|error| message(brig_types::error::chain(&error)))?;
    told(args, copied, &path);
    Ok(())
}

async fn to_container(
    context: &Context,
    args: &CpArgs,
    local: &str,
    container: &str,
    target: &str,
) -> Result<()> {
    // What the destination is decides where to; that it cannot be found says the same as that it
    // isn't there: its parent will tell.
    let mut target = target.to_owned();
    let mut stat = stat_path(context, container, &target).await;
    if let Ok(found) = &stat
        && found.is_symlink()
    {
        target = link_target(&target, &found.link_target);
        stat = stat_path(context, container, &target).await;
    }
    let stat = match stat {
        Ok(stat) => Some(stat),
        Err(Error::Api { .. }) => None,
        Err(error) => return Err(error),
    };
    if stat.as_ref().is_some_and(|stat| !stat.is_dir() && !stat.is_regular()) {
        return Err(message(format!(
            "destination \"{container}:{target}\" must be a directory or a regular file"
        )));
    }
    let is_dir = stat.as_ref().is_some_and(PathStat::is_dir);
    let call = |dir: &str| -> Result<Call> {
        Ok(Call::put(archive_path(container)?)
            .query("path", dir)
            .query("noOverwriteDirNonDir", "true")
            .query_opt("copyUIDGID", args.archive.then_some("true")))
    };
    if local == "-" {
        if !is_dir {
            return Err(message(format!(
                "destination \"{container}:{target}\" must be a directory"
            )));
        }
        let fd = std::io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| Error::io("opening stdin", source))?;
        let stdin = tokio::fs::File::from_std(fd.into());
        return context.client.none(call(&target)?.stream("application/x-tar", stdin)).await;
    }
    let (path, rebase) = local_source(local, args.follow_link)?;
    let source = open_local(Path::new(&path), OFlags::NOFOLLOW)?;
    let failed = |source: io::Error| Error::io(format!("lstat {path}"), source);
    let kind = rustix::fs::fstat(&source).map_err(|error| failed(error.into()))?.st_mode;
    let source_is_dir = FileType::from_raw_mode(kind).is_dir();
    let name = rebase.unwrap_or_else(|| split(&path).1);
    let name = if name.is_empty() { b"/".to_vec() } else { name };
    let destination = Destination { path: &target, exists: stat.is_some(), is_dir };
    let plan = plan(name, source_is_dir, &destination)?;
    let (reader, writer) = io::pipe().map_err(|source| Error::io("making a pipe", source))?;
    let packed = tokio::task::spawn_blocking(move || {
        let mut out = Counted { inner: io::BufWriter::new(writer), bytes: 0 };
        let packed = brig_archive::pack(source, &plan.name, &mut out, &|_| false).map(drop);
        (packed, out.bytes)
    });
    let reader = tokio::fs::File::from_std(OwnedFd::from(reader).into());
    let dir = plan.dir.display().to_string();
    let dir = if dir.is_empty() { "/" } else { &dir };
    let sent = context.client.none(call(dir)?.stream("application/x-tar", reader)).await;
    let (packed, copied) = packed.await.map_err(|error| message(error.to_string()))?;
    match (packed, sent) {
        // The daemon stopped to listen, and says why.
        (Err(brig_archive::PackError::Write(_)) | Ok(()), sent) => sent?,
        (Err(error), _) => return Err(message(brig_types::error::chain(&error))),
    }
    told(args, copied, &format!("{container}:{target}"));
    Ok(())
}

fn told(args: &CpArgs, copied: usize, to: &str) {
    if !args.quiet && stdout_is_terminal() {
        let bytes = i64::try_from(copied).unwrap_or(i64::MAX);
        warn(&format!("Successfully copied {} to {to}", size(bytes)));
    }
}

fn open_local(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty())
        .map_err(|error| Error::io(format!("lstat {}", path.display()), error.into()))
}

/// The local source and the name it keeps.
fn local_source(path: &str, follow: bool) -> Result<(String, Option<Vec<u8>>)> {
    if !follow {
        return Ok((absolute(path)?, None));
    }
    let resolved =
        std::fs::canonicalize(path).map_err(|source| Error::io(format!("lstat {path}"), source))?;
    Ok(rebased(path, resolved.display().to_string()))
}

/// A local path from the root; what stands at its end is kept.
fn absolute(path: &str) -> Result<String> {
    let whole = std::path::absolute(path)
        .map_err(|source| Error::io(format!("resolving {path}"), source))?;
    let mut whole = whole.display().to_string();
    let (dot, slash) = (names_current_dir(path), path.ends_with('/'));
    if dot && !names_current_dir(&whole) {
        whole.push_str(if whole.ends_with('/') { "." } else { "/." });
    } else if slash && !whole.ends_with('/') {
        whole.push('/');
    }
    Ok(whole)
}

/// Where a local destination is after its links, whether it is there, and a directory.
fn local_destination(path: &str) -> Result<(String, bool, bool)> {
    let mut path = absolute(path)?;
    for _ in 0..=MAX_LINKS {
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_symlink() => {
                let link = std::fs::read_link(&path)
                    .map_err(|source| Error::io(format!("readlink {path}"), source))?;
                let dir = Path::new(&path).parent().unwrap_or(Path::new("/")).to_owned();
                path = dir.join(link).display().to_string();
            }
            Ok(meta) => return Ok((path, true, meta.is_dir())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (dir, _) = split(&path);
                let stat = |source| Error::io(format!("stat {}", dir.display()), source);
                if !std::fs::metadata(&dir).map_err(stat)?.is_dir() {
                    return Err(message("not a directory"));
                }
                return Ok((path, false, false));
            }
            Err(source) => return Err(Error::io(format!("lstat {path}"), source)),
        }
    }
    Err(message("too many symlinks"))
}

/// Counts what is written.
#[derive(Debug)]
struct Counted<W> {
    inner: W,
    bytes: usize,
}

impl<W: io::Write> io::Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.bytes += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Pieces of an archive for a thread that blocks.
#[derive(Debug)]
struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Pieces {
    const fn new(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { receiver, piece: Bytes::new() }
    }
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.piece = piece?,
            }
        }
        let taken = self.piece.split_to(buf.len().min(self.piece.len()));
        if let Some(place) = buf.get_mut(..taken.len()) {
            place.copy_from_slice(&taken);
        }
        Ok(taken.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides() {
        assert_eq!(side("c:/x"), (Some("c"), "/x"));
        assert_eq!(side("/a:b"), (None, "/a:b"));
        assert_eq!(side("./a:b"), (None, "./a:b"));
        assert_eq!(side("file"), (None, "file"));
        assert_eq!(side("-"), (None, "-"));
    }

    #[test]
    fn where_things_go() {
        let go = |name: &[u8], source_is_dir, path: &str, exists, is_dir| {
            plan(name.to_vec(), source_is_dir, &Destination { path, exists, is_dir })
                .map(|plan| {
                    format!("{} {}", plan.dir.display(), String::from_utf8(plan.name).unwrap())
                })
                .map_err(|error| error.text())
        };
        assert_eq!(go(b"f", false, "/tmp", true, true).unwrap(), "/tmp f");
        assert_eq!(go(b"f", false, "/tmp/g", false, false).unwrap(), "/tmp g");
        assert_eq!(go(b"f", false, "/tmp/g", true, false).unwrap(), "/tmp g");
        assert_eq!(go(b".", true, "/tmp/new", false, false).unwrap(), "/tmp new");
        assert_eq!(go(b".", true, "/tmp", true, true).unwrap(), "/tmp .");
        assert_eq!(go(b"d", true, "/f", true, false).unwrap_err(), "cannot copy directory");
        assert_eq!(go(b"f", false, "/nope/", false, false).unwrap_err(), "no such directory");
        assert_eq!(go(b"d", true, "/new/", false, false).unwrap(), "/ new");
    }

    #[test]
    fn names_after_links() {
        assert_eq!(rebased("/l", "/d/real".into()), ("/d/real".into(), Some(b"l".to_vec())));
        assert_eq!(rebased("/l/.", "/real".into()), ("/real/.".into(), None));
        assert_eq!(rebased("/l/", "/real".into()), ("/real/".into(), Some(b"l".to_vec())));
        assert_eq!(split("/a/b/."), (PathBuf::from("/a/b"), b".".to_vec()));
        assert_eq!(split("/a/b/"), (PathBuf::from("/a"), b"b".to_vec()));
        assert_eq!(split("/"), (PathBuf::from("/"), Vec::new()));
        assert_eq!(split("rel"), (PathBuf::from(""), b"rel".to_vec()));
    }
}
