//! `brigd --purge`: takes an instance off the machine. What it put outside of its roots is removed
//! by the parts that put it there; then the roots' contents go.

use std::path::Path;

use anyhow::Context as _;
use brig_engine::Engine;
use brig_image::ImageStore;

use crate::access::enrol::ssh::Keys;
use crate::config::Config;
use crate::instance::Roots;
use crate::parts;
use crate::tools::Tools;

/// Removes containers, networks, mounts and all state of the configured roots.
///
/// # Errors
/// When a daemon is running on them, or something could not be removed.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let (roots, config) = Roots::take(&config)?;
    let tools = Tools::find(&config)?;
    let images = ImageStore::open(&config.data_root, parts::image_options(&config))
        .context("cannot open the image store")?;
    let engine = Engine::start(parts::engine_config(&config, roots.instance(), &tools)?, images)
        .await
        .context("cannot start the engine")?;
    engine.purge().await.context("something is left")?;
    drop(engine);
    Keys::open(&config.data_root.join("access"), &config.exec_root)
        .and_then(|keys| keys.purge())
        .context("the lines of SSH keys are left")?;
    for root in [&config.exec_root, &config.data_root] {
        empty(root).with_context(|| format!("cannot empty {}", root.display()))?;
    }
    drop(roots);
    Ok(())
}

/// Removes what is in a folder; the folder may be a mount point, so it stays.
fn empty(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        brig_sys::remove::remove_tree(&entry?.path())?;
    }
    Ok(())
}
