//! `--mount`, `--volume` and `--tmpfs`.

use std::path::{Path, PathBuf};

use brig_api::mount::{BindOptions, Driver, Mount, TmpfsOptions, VolumeOptions};

use super::{BadValue, bad, boolean, csv, size};

/// Reads `type=bind,source=/a,target=/b,readonly`.
pub(crate) fn mount(spec: &str) -> Result<Mount, BadValue> {
    let mut mount = Mount { kind: "volume".to_owned(), ..Mount::default() };
    for (key, value) in csv::pairs(spec)? {
        let Some(value) = value else {
            match key.as_str() {
                "readonly" | "ro" => mount.read_only = true,
                "volume-nocopy" => volume(&mut mount).no_copy = true,
                "bind-nonrecursive" => bind(&mut mount).non_recursive = true,
                _ => return bad(format!("invalid field '{key}' must be a key=value pair")),
            }
            continue;
        };
        let flag =
            || boolean(&value).map_err(|_| BadValue(format!("invalid value for {key}: {value}")));
        match key.as_str() {
            "type" => mount.kind = value.to_ascii_lowercase(),
            "source" | "src" => mount.source = value,
            "target" | "dst" | "destination" => mount.target = value,
            "readonly" | "ro" => mount.read_only = flag()?,
            "consistency" => mount.consistency = value.to_ascii_lowercase(),
            "bind-propagation" => bind(&mut mount).propagation = value.to_ascii_lowercase(),
            "bind-nonrecursive" => bind(&mut mount).non_recursive = flag()?,
            "bind-recursive" => recursive(bind(&mut mount), &value)?,
            "volume-subpath" => volume(&mut mount).subpath = value,
            "volume-nocopy" => volume(&mut mount).no_copy = flag()?,
            "volume-label" => {
                volume(&mut mount).labels.extend([super::key_value(&value)]);
            }
            "volume-driver" => driver(&mut mount).name = value,
            "volume-opt" => {
                driver(&mut mount).options.extend([super::key_value(&value)]);
            }
            "image-subpath" => {
                mount.image_options.get_or_insert_default().subpath = value;
            }
            "tmpfs-size" => tmpfs_options(&mut mount).size_bytes = size::bytes(&value)?,
            "tmpfs-mode" => {
                tmpfs_options(&mut mount).mode = u32::from_str_radix(&value, 8)
                    .map_err(|_| BadValue(format!("invalid value for {key}: {value}")))?;
            }
            _ => return bad(format!("unexpected key '{key}' in '{key}={value}'")),
        }
    }
    check(&mut mount)?;
    Ok(mount)
}

fn bind(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_default()
}

fn volume(mount: &mut Mount) -> &mut VolumeOptions {
    mount.volume_options.get_or_insert_default()
}

fn driver(mount: &mut Mount) -> &mut Driver {
    volume(mount).driver_config.get_or_insert_default()
}

fn tmpfs_options(mount: &mut Mount) -> &mut TmpfsOptions {
    mount.tmpfs_options.get_or_insert_default()
}

fn recursive(options: &mut BindOptions, value: &str) -> Result<(), BadValue> {
    match value {
        "enabled" => {}
        "disabled" => options.non_recursive = true,
        "writable" => options.read_only_non_recursive = true,
        "readonly" => options.read_only_force_recursive = true,
        _ => {
            return bad(format!(
                "invalid value for bind-recursive: {value} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
            ));
        }
    }
    Ok(())
}

fn check(mount: &mut Mount) -> Result<(), BadValue> {
    if mount.kind.is_empty() {
        return bad("type is required");
    }
    if mount.target.is_empty() {
        return bad("target is required");
    }
    for (used, kind, prefix) in [
        (mount.bind_options.is_some(), "bind", "bind-*"),
        (mount.volume_options.is_some(), "volume", "volume-*"),
        (mount.image_options.is_some(), "image", "image-*"),
        (mount.tmpfs_options.is_some(), "tmpfs", "tmpfs-*"),
    ] {
        if used && mount.kind != kind {
            return bad(format!("cannot mix '{prefix}' options with mount type '{}'", mount.kind));
        }
    }
    if let Some(options) = &mount.bind_options {
        if options.read_only_non_recursive && !mount.read_only {
            return bad(
                "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction",
            );
        }
        if options.read_only_force_recursive
            && !(mount.read_only && options.propagation == "rprivate")
        {
            return bad(
                "option 'bind-recursive=readonly' requires 'readonly' and 'bind-propagation=rprivate' to be specified in conjunction",
            );
        }
    }
    if mount.kind == "bind" && mount.source.starts_with('.') {
        mount.source = absolute(&mount.source)?;
    }
    Ok(())
}

/// A path of the CLI's side as the daemon can use it.
pub(crate) fn absolute(path: &str) -> Result<String, BadValue> {
    let path = std::path::absolute(path).map_err(|e| BadValue(format!("{path}: {e}")))?;
    let clean = clean(&path);
    clean.to_str().map(str::to_owned).ok_or_else(|| BadValue("path is not valid UTF-8".to_owned()))
}

/// The path without `.` and `..`, by its text alone.
fn clean(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    clean
}

/// A `--volume`: an anonymous one, or a bind in the API's form.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum VolumeFlag {
    /// Only a path in the container.
    Anonymous(String),
    /// `source:target[:options]`.
    Bind(String),
}

/// Reads `--volume`.
pub(crate) fn volume_flag(spec: &str) -> Result<VolumeFlag, BadValue> {
    let parts: Vec<&str> = spec.split(':').collect();
    match parts.as_slice() {
        [] | [""] => bad(format!("invalid volume specification: '{spec}'")),
        [target] => Ok(VolumeFlag::Anonymous((*target).to_owned())),
        [source, _, ..] if parts.len() <= 3 => {
            if parts.iter().any(|part| part.is_empty()) {
                return bad(format!(
                    "invalid volume specification: '{spec}': empty section between colons"
                ));
            }
            if source.starts_with('.') {
                let source = absolute(source)?;
                let rest = parts.get(1..).unwrap_or_default().join(":");
                return Ok(VolumeFlag::Bind(format!("{source}:{rest}")));
            }
            Ok(VolumeFlag::Bind(spec.to_owned()))
        }
        _ => bad(format!("invalid volume specification: '{spec}'")),
    }
}

/// Reads `--tmpfs`: a path and its options.
pub(crate) fn tmpfs(spec: &str) -> (String, String) {
    let (path, options) = spec.split_once(':').unwrap_or((spec, ""));
    (path.to_owned(), options.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(spec: &str) -> serde_json::Value {
        serde_json::to_value(mount(spec).unwrap()).unwrap()
    }

    #[test]
    fn mounts_are_what_the_api_takes() {
        assert_eq!(
            parsed("type=bind,src=/b,dst=/b,ro,bind-propagation=rslave"),
            json!({"Type": "bind", "Source": "/b", "Target": "/b", "ReadOnly": true,
                   "BindOptions": {"Propagation": "rslave"}})
        );
        assert_eq!(
            parsed(
                "source=sv,target=/v,volume-nocopy,volume-label=a=b,volume-driver=local,volume-opt=type=nfs"
            ),
            json!({"Type": "volume", "Source": "sv", "Target": "/v", "VolumeOptions": {
                "NoCopy": true, "Labels": {"a": "b"},
                "DriverConfig": {"Name": "local", "Options": {"type": "nfs"}}}})
        );
        assert_eq!(
            parsed("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770"),
            json!({"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1_048_576, "Mode": 1016}})
        );
        for spec in [
            "",
            "type=bind",
            "target=/a,bogus=1",
            "target=/a,bogus",
            "type=bind,target=/a,volume-nocopy",
            "target=/a,tmpfs-mode=9",
            "type=bind,src=/a,dst=/a,bind-recursive=readonly",
        ] {
            assert!(mount(spec).is_err(), "{spec}");
        }
    }

    #[test]
    fn volumes_are_anonymous_or_binds() {
        assert_eq!(volume_flag("/c").unwrap(), VolumeFlag::Anonymous("/c".to_owned()));
        assert_eq!(volume_flag("a:/b:ro").unwrap(), VolumeFlag::Bind("a:/b:ro".to_owned()));
        let here = std::env::current_dir().unwrap();
        let here = here.parent().unwrap().to_str().unwrap();
        assert_eq!(volume_flag("../x:/b").unwrap(), VolumeFlag::Bind(format!("{here}/x:/b")));
        for spec in ["", ":/b", "a:", "a:/b:ro:z"] {
            assert!(volume_flag(spec).is_err(), "{spec}");
        }
        assert_eq!(tmpfs("/tt:size=1m"), ("/tt".to_owned(), "size=1m".to_owned()));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(spec in ".*") {
            let _ = (mount(&spec), volume_flag(&spec));
        }
    }
}
