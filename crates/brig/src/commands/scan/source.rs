//! Where an inventory comes from: files, directories, the one that the daemon keeps of an image, or
//! the image as `save` sends it. None of their bytes is read in this process.

use std::io::Write as _;
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
    let spool = |source| Error::io("keeping the image for the scan", source);
    let mut file = unnamed().map_err(spool)?;
    while let Some(chunk) = answer.chunk().await? {
        file.write_all(&chunk).map_err(spool)?;
    }
    let options = Options { platform, ..Options::default() };
    blocking(move || Sandbox::default().read_fd(file.into(), &options).map_err(failed)).await
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
