//! Where an inventory comes from: files, directories, or the daemon's image as `save` sends it. None
//! of their bytes is read in this process.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use brig_scan::inventory::{Options, Verify};
use brig_scan::package::Inventory;
use brig_scan::sandbox::Sandbox;

use super::failed;
use crate::client::Call;
use crate::commands::image::platform_json;
use crate::context::Context;
use crate::error::{Error, Result, message};

/// A file when there is one of that name, else an image.
pub(super) async fn any(
    context: &Context,
    name: &str,
    platform: Option<String>,
) -> Result<Inventory> {
    // An image's name has no leading `.` or `/`, and a tag in it is no part of a file's name.
    if Path::new(name).exists() {
        return file(PathBuf::from(name), platform, Verify::DiffIds).await;
    }
    image(context, name, platform).await
}

/// An archive, an OCI layout, a bill of materials or a directory.
pub(super) async fn file(
    path: PathBuf,
    platform: Option<String>,
    verify: Verify,
) -> Result<Inventory> {
    let options = Options { platform, verify, ..Options::default() };
    blocking(move || Sandbox::default().read_path(&path, &options).map_err(failed)).await
}

/// The daemon's image.
pub(super) async fn image(
    context: &Context,
    name: &str,
    platform: Option<String>,
) -> Result<Inventory> {
    let mut call = Call::get("/images/get").query("names", name);
    if let Some(platform) = &platform {
        call = call.query("platform", platform_json(platform));
    }
    let mut answer = context.client.send(call).await?;
    let spool = |source| Error::io("keeping the image for the scan", source);
    let mut file = unnamed().map_err(spool)?;
    while let Some(chunk) = answer.chunk().await? {
        file.write_all(&chunk).map_err(spool)?;
    }
    let options = Options { platform, ..Options::default() };
    blocking(move || Sandbox::default().read_fd(file.into(), &options).map_err(failed)).await
}

/// A file without a name: gone with the process, whatever happens.
pub(super) fn unnamed() -> std::io::Result<std::fs::File> {
    use rustix::fs::{Mode, OFlags};
    let folder = std::env::temp_dir();
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(std::fs::File::from(rustix::fs::open(&folder, flags, Mode::RUSR | Mode::WUSR)?))
}

async fn blocking(work: impl FnOnce() -> Result<Inventory> + Send + 'static) -> Result<Inventory> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| message(format!("reading the image: {error}")))?
}
