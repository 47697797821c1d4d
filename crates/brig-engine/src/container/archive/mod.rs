//! Copying files out of and into containers, and exporting their root file systems.

mod stream;
mod view;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use brig_api::archive::{PathStat, mode};
use brig_archive::{ExtractOptions, Links, Owner, PackError, Wanted, extract, pack};
use brig_image::unpack::compression::Decoder;
use rustix::fs::{FileType, OFlags, Stat};
use tokio::sync::mpsc;

pub use self::stream::ByteStream;
use self::stream::PipeWriter;
use self::view::{Scope, View};
use super::Container;
use super::stage::resolve_user;
use crate::engine::Engine;
use crate::error::EngineError;

/// How to write an archive into a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchiveWrite {
    /// Refuse to put a file where a directory is, and the other way round.
    pub keep_kinds: bool,
    /// Everything belongs to the container's user.
    pub copy_uid_gid: bool,
}

impl Engine {
    /// What a path in a container is.
    ///
    /// # Errors
    /// Unknown container, no such path, a path of secrets.
    pub async fn archive_stat(&self, key: &str, path: &str) -> Result<PathStat, EngineError> {
        let container = self.registry().find(key)?;
        let (wanted, named) = (Wanted::parse(path), Named::new(key, path));
        self.with_view(&container, Scope::Everything, move |view| {
            find(view, &wanted, &named).map(|(_, _, stat)| stat)
        })
        .await
    }

    /// Reads a path of a container, with everything below it, as an archive.
    ///
    /// # Errors
    /// Unknown container, no such path, a path with secrets in it. What goes wrong later cuts the
    /// archive off.
    pub async fn archive_read(
        &self,
        key: &str,
        path: &str,
    ) -> Result<(PathStat, ByteStream), EngineError> {
        let container = self.registry().find(key)?;
        let (wanted, named) = (Wanted::parse(path), Named::new(key, path));
        let read = self
            .stream(&container, Scope::Everything, move |view| {
                let (fd, raw, stat) = find(view, &wanted, &named)?;
                if let Some(point) = view.secrets_below(&raw) {
                    return Err(secret(&named.path, point));
                }
                let name = wanted.name().to_vec();
                Ok((stat, move |view: &View, out: PipeWriter| {
                    pack(fd, &name, out, &|stat| view.is_secret(stat)).map(drop)
                }))
            })
            .await?;
        self.container_event(&container, "archive-path", &[]);
        Ok(read)
    }

    /// Reads a container's root file system as an archive: without volumes and other mounts.
    ///
    /// # Errors
    /// Unknown container; disk. What goes wrong later cuts the archive off.
    pub async fn export(&self, key: &str) -> Result<ByteStream, EngineError> {
        let container = self.registry().find(key)?;
        let ((), archive) = self
            .stream(&container, Scope::Root, |view| {
                let root = view
                    .root()
                    .try_clone()
                    .map_err(|source| EngineError::system("read the root file system", source))?;
                Ok(((), move |_: &View, out: PipeWriter| {
                    pack(root, b"", out, &|_| false).map(drop)
                }))
            })
            .await?;
        self.container_event(&container, "export", &[]);
        Ok(archive)
    }

    /// Extracts an archive into a directory of a container. It may be compressed.
    ///
    /// # Errors
    /// Unknown container, no such directory, read-only places, what the archive does wrong; what
    /// was extracted by then stays.
    pub async fn archive_write(
        &self,
        key: &str,
        path: &str,
        options: ArchiveWrite,
        archive: impl Read + Send + 'static,
    ) -> Result<(), EngineError> {
        let container = self.registry().find(key)?;
        let named = Named::new(key, path);
        let user = container.record().config.user;
        self.with_view(&container, Scope::Everything, move |view| {
            write(view, &named, &user, options, archive)
        })
        .await?;
        self.container_event(&container, "extract-to-dir", &[]);
        Ok(())
    }

    /// Prepares an archive on a container's files and streams it in a task of its own.
    async fn stream<T, P, W>(
        &self,
        container: &Arc<Container>,
        scope: Scope,
        prepare: P,
    ) -> Result<(T, ByteStream), EngineError>
    where
        T: Send + 'static,
        P: FnOnce(&View) -> Result<(T, W), EngineError> + Send + 'static,
        W: FnOnce(&View, PipeWriter) -> Result<(), PackError>,
    {
        if self.is_shutting_down() {
            return Err(EngineError::ShuttingDown);
        }
        // What is told first is the answer: how it began, or why it didn't.
        let (answer, mut answers) = mpsc::channel(1);
        let (writer, reader) = stream::pipe();
        let (engine, container) = (self.clone(), Arc::clone(container));
        self.spawn(async move {
            let (id, begun) = (container.id.clone(), answer.clone());
            let worked = engine.with_view(&container, scope, move |view| {
                let (head, work) = prepare(view)?;
                let breaker = writer.breaker();
                if begun.blocking_send(Ok(head)).is_err() {
                    return Ok(());
                }
                match work(view, writer) {
                    // Its reader has gone.
                    Ok(()) | Err(PackError::Write(_)) => {}
                    Err(error) => {
                        let text = brig_types::error::chain(&error);
                        tracing::warn!(container = %id, error = text, "an archive was cut off");
                        let _ = breaker.blocking_send(Err(std::io::Error::other(text)));
                    }
                }
                Ok(())
            });
            if let Err(error) = worked.await {
                let _ = answer.try_send(Err(error));
            }
        });
        let head = answers.recv().await.unwrap_or(Err(EngineError::ShuttingDown))?;
        Ok((head, reader))
    }
}

/// How a caller named a place: what docker's errors repeat.
#[derive(Clone, Debug)]
struct Named {
    container: String,
    path: String,
}

impl Named {
    fn new(container: &str, path: &str) -> Self {
        Self { container: container.to_owned(), path: path.to_owned() }
    }

    fn failed(&self, error: rustix::io::Errno) -> EngineError {
        match error {
            rustix::io::Errno::NOENT => EngineError::NoSuchFile {
                path: self.path.clone(),
                container: self.container.clone(),
            },
            rustix::io::Errno::NOTDIR => {
                EngineError::Invalid(format!("{}: not a directory", self.path))
            }
            error => EngineError::disk("open", Path::new(&self.path), error.into()),
        }
    }
}

fn secret(path: &str, point: &Path) -> EngineError {
    EngineError::Forbidden(format!(
        "copying {path} is refused: secrets are mounted at {}, and they do not leave a container",
        point.display()
    ))
}

/// Opens a path of a container and says what it is.
fn find(
    view: &View,
    wanted: &Wanted,
    named: &Named,
) -> Result<(std::os::fd::OwnedFd, Stat, PathStat), EngineError> {
    let failed = |error| named.failed(error);
    let fd = wanted.open(view.root()).map_err(failed)?;
    let stat = rustix::fs::fstat(&fd).map_err(failed)?;
    if view.is_secret(&stat) {
        return Err(secret(&named.path, Path::new(&named.path)));
    }
    let link_target = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => brig_archive::evaluate(view.root(), wanted.path())
            .map(|path| path.display().to_string())
            .map_err(|source| EngineError::disk("follow", wanted.path(), source))?,
        _ => String::new(),
    };
    let answer = PathStat {
        name: String::from_utf8_lossy(wanted.name()).into_owned(),
        size: stat.st_size,
        mode: mode::of_unix(stat.st_mode),
        mtime: modified(&stat),
        link_target,
    };
    Ok((fd, stat, answer))
}

fn modified(stat: &Stat) -> String {
    let nanos = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
    time::OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .map_or_else(|_| brig_api::time::zero(), brig_api::time::rfc3339nano)
}

fn write(
    view: &View,
    named: &Named,
    user: &str,
    options: ArchiveWrite,
    archive: impl Read,
) -> Result<(), EngineError> {
    let path = brig_archive::clean(Path::new(&named.path));
    let dir = brig_archive::open(view.root(), &path, Links::InRoot, OFlags::empty())
        .map_err(|error| named.failed(error))?;
    let stat = rustix::fs::fstat(&dir).map_err(|error| named.failed(error))?;
    if !FileType::from_raw_mode(stat.st_mode).is_dir() {
        return Err(EngineError::Invalid("extraction point is not a directory".to_owned()));
    }
    view.check_writable(&dir)?;
    let owner = if options.copy_uid_gid && !user.is_empty() {
        let user = resolve_user(view.root(), user, &[])?;
        Owner::Fixed(user.uid, user.gid)
    } else {
        Owner::Archive
    };
    let archive = Decoder::detect(archive)
        .map_err(|error| EngineError::Invalid(brig_types::error::chain(&error)))?;
    let options = ExtractOptions {
        links: Links::InRoot,
        owner,
        keep_kinds: options.keep_kinds,
        rename: None,
    };
    Ok(extract(archive, view.root(), &path, &options)?)
}
