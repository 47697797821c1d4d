//! Volumes of a service: `source:target[:options]`, the long form, and `tmpfs`.

use std::path::{Path, PathBuf};

use brig_api::mount::{BindOptions, Driver, ImageOptions, Mount, TmpfsOptions, VolumeOptions};

use super::Surroundings;
use super::objects::{Name, Volume, Volumes};
use super::section::{Section, must_be};
use super::value::Value;
use crate::error::{Error, Result, message};
use crate::parse::size;

/// A volume as the file has it, in either form.
#[derive(Debug, Default)]
struct Wanted {
    kind: String,
    source: String,
    target: String,
    read_only: bool,
    consistency: String,
    propagation: String,
    no_copy: bool,
    subpath: String,
    image_subpath: String,
    tmpfs_size: i64,
}

/// Reads `volumes` and `tmpfs`.
pub(super) fn mounts(
    service: &mut Section,
    volumes: &Volumes,
    surroundings: &Surroundings<'_>,
) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for (path, item) in service.items("volumes")? {
        let wanted = match item {
            Value::Text(text) => short(&path, &text)?,
            item => long(Section::new(path.clone(), item)?)?,
        };
        mounts.push(mount(&path, wanted, volumes, surroundings)?);
    }
    for text in service.texts("tmpfs")? {
        mounts.push(tmpfs(&text)?);
    }
    Ok(mounts)
}

fn short(path: &str, text: &str) -> Result<Wanted> {
    let wrong = |why: &str| message(format!("{path}: invalid volume {text:?}: {why}"));
    let parts: Vec<&str> = text.split(':').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(wrong("empty section between colons"));
    }
    let (source, target, options) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => return Err(wrong("too many colons")),
    };
    let mut wanted = Wanted {
        kind: if is_path(source) { "bind" } else { "volume" }.to_owned(),
        source: source.to_owned(),
        target: target.to_owned(),
        ..Wanted::default()
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => wanted.read_only = true,
            "rw" => wanted.read_only = false,
            "nocopy" => wanted.no_copy = true,
            "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate" => {
                option.clone_into(&mut wanted.propagation);
            }
            // Labels of SELinux and hints for other systems mean nothing here.
            _ => {}
        }
    }
    Ok(wanted)
}

fn is_path(source: &str) -> bool {
    source.starts_with(['/', '.', '~'])
}

fn long(mut section: Section) -> Result<Wanted> {
    let mut wanted = Wanted {
        kind: section.text_or_empty("type")?,
        source: section.text_or_empty("source")?,
        target: section.text_or_empty("target")?,
        read_only: section.flag("read_only")?.unwrap_or_default(),
        consistency: section.text_or_empty("consistency")?,
        ..Wanted::default()
    };
    if wanted.kind.is_empty() {
        return Err(message(format!("{} type is required", section.path())));
    }
    if let Some(mut bind) = section.section("bind")? {
        wanted.propagation = bind.text_or_empty("propagation")?;
        bind.remove("create_host_path");
        bind.finish()?;
    }
    if let Some(mut volume) = section.section("volume")? {
        wanted.no_copy = volume.flag("nocopy")?.unwrap_or_default();
        wanted.subpath = volume.text_or_empty("subpath")?;
        volume.finish()?;
    }
    if let Some(mut image) = section.section("image")? {
        wanted.image_subpath = image.text_or_empty("subpath")?;
        image.finish()?;
    }
    if let Some(mut tmpfs) = section.section("tmpfs")? {
        wanted.tmpfs_size = tmpfs.bytes("size")?.unwrap_or_default();
        tmpfs.finish()?;
    }
    section.finish()?;
    Ok(wanted)
}

fn mount(
    path: &str,
    wanted: Wanted,
    volumes: &Volumes,
    surroundings: &Surroundings<'_>,
) -> Result<Mount> {
    let needs_source =
        |what: &str| message(format!("invalid {what} source, source cannot be empty"));
    let mut mount = Mount {
        kind: wanted.kind.clone(),
        source: wanted.source.clone(),
        target: wanted.target.clone(),
        read_only: wanted.read_only,
        consistency: wanted.consistency.clone(),
        ..Mount::default()
    };
    match wanted.kind.as_str() {
        "bind" => {
            if wanted.source.is_empty() {
                return Err(needs_source("bind"));
            }
            mount.source = host_path(&wanted.source, surroundings)?;
            if !wanted.propagation.is_empty() {
                mount.bind_options =
                    Some(BindOptions { propagation: wanted.propagation, ..BindOptions::default() });
            }
        }
        "volume" => named(&mut mount, wanted, volumes, surroundings)?,
        "tmpfs" if wanted.source.is_empty() => {
            if wanted.tmpfs_size > 0 {
                let size =
                    TmpfsOptions { size_bytes: wanted.tmpfs_size, ..TmpfsOptions::default() };
                mount.tmpfs_options = Some(size);
            }
        }
        "tmpfs" => return Err(message("invalid tmpfs source, source must be empty")),
        "image" => {
            if wanted.source.is_empty() {
                return Err(needs_source("image"));
            }
            if !wanted.image_subpath.is_empty() {
                mount.image_options = Some(ImageOptions { subpath: wanted.image_subpath });
            }
        }
        _ => return Err(must_be(&format!("{path}.type"), "bind, volume, tmpfs or image")),
    }
    if mount.target.is_empty() {
        return Err(message(format!("{path} target is required")));
    }
    Ok(mount)
}

fn named(
    mount: &mut Mount,
    wanted: Wanted,
    volumes: &Volumes,
    surroundings: &Surroundings<'_>,
) -> Result<()> {
    let mut options = VolumeOptions {
        no_copy: wanted.no_copy,
        subpath: wanted.subpath,
        ..VolumeOptions::default()
    };
    if !wanted.source.is_empty() {
        let volume = volumes
            .get(&wanted.source)
            .ok_or_else(|| message(format!("undefined volume {:?}", wanted.source)))?;
        let Volume { name, driver, options: driver_options, labels } = volume;
        mount.source = name.of(surroundings.stack, &wanted.source);
        if let Name::Own(_) = name {
            options.labels = surroundings.labels(labels);
            if !driver.is_empty() || !driver_options.is_empty() {
                options.driver_config =
                    Some(Driver { name: driver.clone(), options: driver_options.clone() });
            }
        }
    }
    if options != VolumeOptions::default() {
        mount.volume_options = Some(options);
    }
    Ok(())
}

/// A path of the host: relative ones start where the file is, `~` at the user's home.
fn host_path(source: &str, surroundings: &Surroundings<'_>) -> Result<String> {
    let path = match source.strip_prefix('~') {
        Some(rest) => {
            let home = (surroundings.lookup)("HOME")
                .ok_or_else(|| message(format!("{source}: HOME is not set")))?;
            PathBuf::from(home).join(rest.trim_start_matches('/'))
        }
        None => surroundings.directory.join(source),
    };
    crate::parse::mount::absolute(&path.to_string_lossy()).map_err(|e| message(e.to_string()))
}

/// `/path[:size=64m,mode=1770]`.
fn tmpfs(text: &str) -> Result<Mount> {
    let (target, list) = crate::parse::mount::tmpfs(text);
    let wrong =
        |option: &str| -> Error { message(format!("tmpfs {text:?}: invalid option {option:?}")) };
    let mut options = TmpfsOptions::default();
    for option in list.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => {
                options.size_bytes = size::bytes(value).map_err(|_| wrong(option))?;
            }
            Some(("mode", value)) => {
                options.mode = u32::from_str_radix(value, 8).map_err(|_| wrong(option))?;
            }
            _ => return Err(wrong(option)),
        }
    }
    if !Path::new(&target).is_absolute() {
        return Err(message(format!("tmpfs {text:?}: the path must be absolute")));
    }
    Ok(Mount {
        kind: "tmpfs".to_owned(),
        target,
        tmpfs_options: (options != TmpfsOptions::default()).then_some(options),
        ..Mount::default()
    })
}
