//! Where an inventory comes from: files, directories, the one that the daemon keeps of an image, or
//! the image as `save` sends it. None of their bytes is read in this process.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal as _, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use brig_scan::inventory::Options;
use brig_scan::package::{DETECTOR_VERSION, INVENTORY_FORMAT, Inventory};
use brig_scan::sandbox::Sandbox;

use super::failed;
use crate::client::Call;
use crate::commands::checked;
use crate::commands::image::platform_json;
use crate::context::Context;
use crate::error::{Error, Result, message};

/// Largest image that is kept on its way to the reader, in bytes.
const MAX_SPOOL: u64 = 64 << 30;
/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

/// A file when there is one of that name, else an image.
pub(super) async fn any(
    context: &Context,
    name: &str,
    platform: Option<String>,
) -> Result<Inventory> {
    // An image's name has no leading `.` or `/`, and a tag in it is no part of a file's name.
    if Path::new(name).exists() {
        return file(PathBuf::from(name), Options { platform, ..Options::default() }).await;
    }
    image(context, name, platform).await
}

/// An archive, an OCI layout, a bill of materials or a directory.
pub(super) async fn file(path: PathBuf, options: Options) -> Result<Inventory> {
    blocking(move || Sandbox::default().read_path(&path, &options).map_err(failed)).await
}

/// The daemon's image.
pub(super) async fn image(
    context: &Context,
    name: &str,
    platform: Option<String>,
) -> Result<Inventory> {
    if let Some(inventory) = kept(context, name).await?
        && platform.as_deref().is_none_or(|wanted| fits(&inventory, wanted))
    {
        return Ok(inventory);
    }
    let mut call = Call::get("/images/get").query("names", name);
    if let Some(platform) = &platform {
        call = call.query("platform", platform_json(platform));
    }
    let mut answer = match context.client.send(call).await {
        // What `save` says of an image that is not there names neither the image nor a way out.
        Err(Error::Api { status: 404, .. }) => {
            return Err(message(format!(
                "No such image: {name}; get it with: {program} pull {name}, or scan a file with: {program} scan --input FILE",
                program = context.program
            )));
        }
        answer => answer?,
    };
    let mut spool = Spool::new(MAX_SPOOL)?;
    while let Some(chunk) = answer.chunk().await? {
        spool.add(&chunk)?;
    }
    let options = Options { platform, ..Options::default() };
    blocking(move || spool.read(&options)).await
}

/// What comes through standard input: an archive, or a bill of materials.
pub(super) async fn stdin(options: Options) -> Result<Inventory> {
    if std::io::stdin().is_terminal() {
        return Err(message(
            "nothing is piped in: give --input - an archive or a bill of materials, as in: \
             docker save IMAGE | brig scan --input -",
        ));
    }
    blocking(move || {
        let mut spool = Spool::new(MAX_SPOOL)?;
        spool.fill(std::io::stdin().lock())?;
        spool.read(&options)
    })
    .await
}

/// Bytes on their way to the reader, which takes a file only: what says what is in an archive may
/// stand at its end.
struct Spool {
    file: File,
    left: u64,
    limit: u64,
}

impl Spool {
    fn new(limit: u64) -> Result<Self> {
        Ok(Self { file: unnamed().map_err(kept_failed)?, left: limit, limit })
    }

    fn add(&mut self, bytes: &[u8]) -> Result<()> {
        let more = u64::try_from(bytes.len()).ok();
        self.left = more.and_then(|more| self.left.checked_sub(more)).ok_or_else(|| {
            message(format!("the image has more than {} bytes: save it to a file", self.limit))
        })?;
        self.file.write_all(bytes).map_err(kept_failed)
    }

    fn fill(&mut self, mut from: impl Read) -> Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            match from.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(read) => self.add(piece.get(..read).unwrap_or_default())?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("reading standard input", error)),
            }
        }
    }

    fn read(mut self, options: &Options) -> Result<Inventory> {
        if self.left == self.limit {
            return Err(message("there is nothing to scan: the input is empty"));
        }
        // Not everything is read in places: a bill of materials begins where the file stands.
        self.file.rewind().map_err(kept_failed)?;
        Sandbox::default().read_fd(self.file.into(), options).map_err(failed)
    }
}

fn kept_failed(source: std::io::Error) -> Error {
    Error::io("keeping the image for the scan", source)
}

/// The inventory that the daemon keeps of an image. `None` where there is none that this program would
/// make itself: another engine, an older one, an image that it does not have.
pub(super) async fn kept(context: &Context, name: &str) -> Result<Option<Inventory>> {
    let Ok(name) = checked("image", name) else { return Ok(None) };
    let call = Call::get(format!("/brig/images/{name}/inventory"));
    let inventory: Inventory = match context.client.json(call).await {
        Ok(inventory) => inventory,
        // One without the route, or who asks may have the image but not this.
        Err(Error::Api { status: 400 | 403 | 404 | 405 | 501, .. }) => return Ok(None),
        Err(Error::Answer { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let current = inventory.format == INVENTORY_FORMAT && inventory.detector == DETECTOR_VERSION;
    Ok(current.then_some(inventory))
}

/// Whether it is of an image for this platform.
fn fits(inventory: &Inventory, wanted: &str) -> bool {
    let Some(platform) = &inventory.image.platform else { return false };
    let mut parts = platform.split('/');
    wanted.split('/').all(|part| parts.next() == Some(part))
}

/// A file without a name: gone with the process, whatever happens.
pub(super) fn unnamed() -> std::io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let folder = std::env::temp_dir();
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(&folder, flags, Mode::RUSR | Mode::WUSR)?))
}

async fn blocking(work: impl FnOnce() -> Result<Inventory> + Send + 'static) -> Result<Inventory> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| message(format!("reading the image: {error}")))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_not_kept() {
        let mut spool = Spool::new(10).unwrap();
        spool.fill(&b"0123456789"[..]).unwrap();
        assert_eq!(spool.file.metadata().unwrap().len(), 10);
        let refused = spool.fill(&b"x"[..]).unwrap_err().text();
        assert!(refused.contains("more than 10 bytes"), "{refused}");
        assert_eq!(spool.file.metadata().unwrap().len(), 10);
        let empty = Spool::new(10).unwrap().read(&Options::default()).unwrap_err().text();
        assert!(empty.contains("the input is empty"), "{empty}");
    }
}
