//! What a container wants mounted: `-v`, `--mount`, `--tmpfs`, `--volumes-from` and the image's
//! volumes become one list. Pure; volumes are made by the caller.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use brig_api::container::{ContainerConfig, HostConfig, Mount};
use brig_api::engine_access;

use super::record::{MountKind, MountRecord};
use crate::error::EngineError;

/// A mount to make, and what its volume (if it is one) is created with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountRequest {
    pub(crate) record: MountRecord,
    pub(crate) volume_driver: String,
    pub(crate) volume_options: std::collections::BTreeMap<String, String>,
    pub(crate) volume_labels: std::collections::BTreeMap<String, String>,
}

fn invalid<T>(text: String) -> Result<T, EngineError> {
    Err(EngineError::Invalid(text))
}

fn blank(kind: MountKind, destination: &str) -> MountRequest {
    MountRequest {
        record: MountRecord {
            kind,
            name: String::new(),
            source: String::new(),
            destination: destination.to_owned(),
            rw: true,
            mode: String::new(),
            propagation: String::new(),
            no_copy: false,
            subpath: String::new(),
            anonymous: false,
            non_recursive: false,
            create_source: false,
            tmpfs_options: Vec::new(),
        },
        volume_driver: String::new(),
        volume_options: Default::default(),
        volume_labels: Default::default(),
    }
}

/// The path without `.`, `..` and doubled slashes; `None` unless it is absolute.
fn clean(path: &str) -> Option<String> {
    if !path.starts_with('/') || path.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

/// Reads `source:destination[:options]` or `destination`.
pub(crate) fn parse_bind(text: &str) -> Result<MountRequest, EngineError> {
    let fail = || EngineError::Invalid(format!("invalid volume specification: '{text}'"));
    let fields: Vec<&str> = text.split(':').collect();
    let (source, destination, mode) = match *fields.as_slice() {
        [destination] => ("", destination, ""),
        [source, destination] => (source, destination, ""),
        [source, destination, mode] => (source, destination, mode),
        _ => return Err(fail()),
    };
    let kind = if source.starts_with('/') { "bind" } else { "volume" };
    let target = clean(destination).ok_or_else(|| {
        EngineError::Invalid(format!(
            "invalid volume specification: '{text}': invalid mount config for type \"{kind}\": invalid mount path: '{destination}' mount path must be absolute"
        ))
    })?;
    if target == "/" {
        return invalid(format!(
            "invalid volume specification: '{text}': invalid mount config for type \"bind\": invalid specification: destination can't be '/'"
        ));
    }
    if fields.len() > 1 && source.is_empty() {
        return Err(fail());
    }
    let kind = if source.starts_with('/') { MountKind::Bind } else { MountKind::Volume };
    let mut request = blank(kind, &target);
    let record = &mut request.record;
    record.mode = mode.to_owned();
    let mut kinds = Vec::new();
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        // One of each sort at the most: `ro,rw` could mean either.
        let sort = match option {
            "ro" | "rw" => "access",
            "z" | "Z" => "label",
            "consistent" | "cached" | "delegated" => "consistency",
            "nocopy" => "copy",
            _ => "propagation",
        };
        if kinds.contains(&sort) {
            return invalid(format!("invalid mode: {mode}"));
        }
        kinds.push(sort);
        match (option, kind) {
            ("rw", _) => record.rw = true,
            ("ro", _) => record.rw = false,
            // Labels of SELinux, and hints of Docker Desktop: nothing to do here.
            ("z" | "Z" | "consistent" | "cached" | "delegated", _) => {}
            ("nocopy", MountKind::Volume) => record.no_copy = true,
            (
                "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave",
                MountKind::Bind,
            ) => {
                record.propagation = option.to_owned();
            }
            _ => return invalid(format!("invalid mode: {mode}")),
        }
    }
    match kind {
        MountKind::Bind => {
            record.source = clean(source).ok_or_else(fail)?;
            record.create_source = true;
            if record.propagation.is_empty() {
                record.propagation = "rprivate".to_owned();
            }
        }
        MountKind::Volume | MountKind::Tmpfs | MountKind::Engine => {
            record.name = source.to_owned();
            record.anonymous = source.is_empty();
            if record.mode.is_empty() && !source.is_empty() {
                "z".clone_into(&mut record.mode);
            }
        }
    }
    Ok(request)
}

/// Reads one `--mount`.
pub(crate) fn parse_mount(mount: &Mount) -> Result<MountRequest, EngineError> {
    let kind = mount.kind.as_str();
    let fail = |text: String| {
        EngineError::Invalid(format!("invalid mount config for type \"{kind}\": {text}"))
    };
    if mount.target.is_empty() {
        return Err(fail("field Target must not be empty".to_owned()));
    }
    let target = clean(&mount.target).ok_or_else(|| {
        fail(format!("invalid mount path: '{}' mount path must be absolute", mount.target))
    })?;
    if target == "/" {
        return Err(fail("invalid specification: destination can't be '/'".to_owned()));
    }
    let extraneous = |field: &str| Err(fail(format!("field {field} must not be specified")));
    if kind != "bind" && mount.bind_options.is_some() {
        return extraneous("BindOptions");
    }
    if kind != "volume" && mount.volume_options.is_some() {
        return extraneous("VolumeOptions");
    }
    if kind != "tmpfs" && mount.tmpfs_options.is_some() {
        return extraneous("TmpfsOptions");
    }
    match kind {
        "bind" => {
            if mount.source.is_empty() {
                return Err(fail("field Source must not be empty".to_owned()));
            }
            let source = clean(&mount.source).ok_or_else(|| {
                fail(format!("invalid mount path: '{}' mount path must be absolute", mount.source))
            })?;
            let mut request = blank(MountKind::Bind, &target);
            request.record.source = source;
            request.record.rw = !mount.read_only;
            request.record.propagation = "rprivate".to_owned();
            if let Some(options) = &mount.bind_options {
                request.record.non_recursive = options.non_recursive;
                request.record.create_source = options.create_mountpoint;
                match options.propagation.as_str() {
                    "" => {}
                    "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                        request.record.propagation.clone_from(&options.propagation);
                    }
                    other => return Err(fail(format!("invalid propagation mode: {other}"))),
                }
            }
            Ok(request)
        }
        "volume" => {
            let mut request = blank(MountKind::Volume, &target);
            request.record.name.clone_from(&mount.source);
            request.record.anonymous = mount.source.is_empty();
            request.record.rw = !mount.read_only;
            "z".clone_into(&mut request.record.mode);
            if let Some(options) = &mount.volume_options {
                request.record.no_copy = options.no_copy;
                let subpath = Path::new(&options.subpath);
                if subpath.components().any(|part| !matches!(part, Component::Normal(_))) {
                    return Err(fail(
                        "subpath must be a relative path within the volume".to_owned(),
                    ));
                }
                request.record.subpath.clone_from(&options.subpath);
                request.volume_labels.clone_from(&options.labels);
                if let Some(driver) = &options.driver_config {
                    request.volume_driver.clone_from(&driver.name);
                    request.volume_options.clone_from(&driver.options);
                }
            }
            Ok(request)
        }
        "tmpfs" => {
            if !mount.source.is_empty() {
                return extraneous("Source");
            }
            let mut request = blank(MountKind::Tmpfs, &target);
            request.record.rw = !mount.read_only;
            if let Some(options) = &mount.tmpfs_options {
                if options.size_bytes > 0 {
                    request.record.tmpfs_options.push(format!("size={}", options.size_bytes));
                }
                if options.mode != 0 {
                    request.record.tmpfs_options.push(format!("mode={:o}", options.mode));
                }
                request
                    .record
                    .tmpfs_options
                    .extend(options.options.iter().map(|option| option.join("=")));
            }
            Ok(request)
        }
        "" => invalid("mount type must not be empty".to_owned()),
        other => invalid(format!("mount type {other:?} is not supported")),
    }
}

/// Where the engine's socket is to be seen, if it is lent.
fn lent(host: &HostConfig) -> impl Iterator<Item = Result<MountRequest, EngineError>> {
    let access = host.engine_access.as_ref();
    let more = access.into_iter().flat_map(|access| access.targets.iter().map(String::as_str));
    let usual = engine_access::TARGETS.into_iter().filter(move |_| access.is_some());
    let targets: BTreeSet<&str> = usual.chain(more).collect();
    targets.into_iter().map(|path| {
        let target = clean(path).filter(|target| target != "/").ok_or_else(|| {
            EngineError::Invalid(format!(
                "invalid mount path: '{path}' mount path must be absolute"
            ))
        })?;
        Ok(blank(MountKind::Engine, &target))
    })
}

/// All mounts of a request. `inherited` are those of `--volumes-from`.
///
/// What is named explicitly goes over what is inherited, and that over the image's volumes.
pub(crate) fn collect(
    config: &ContainerConfig,
    host: &HostConfig,
    inherited: Vec<MountRecord>,
) -> Result<Vec<MountRequest>, EngineError> {
    let mut taken = BTreeSet::new();
    let mut requests = Vec::new();
    let explicit = host
        .binds
        .iter()
        .map(|text| {
            let mut request = parse_bind(text)?;
            request.volume_driver.clone_from(&host.volume_driver);
            Ok(request)
        })
        .chain(host.mounts.iter().map(parse_mount))
        .chain(lent(host))
        .chain(host.tmpfs.iter().map(|(path, options)| {
            let target = clean(path).filter(|target| target != "/").ok_or_else(|| {
                EngineError::Invalid(format!(
                    "invalid mount path: '{path}' mount path must be absolute"
                ))
            })?;
            let mut request = blank(MountKind::Tmpfs, &target);
            request.record.tmpfs_options =
                options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect();
            Ok(request)
        }));
    for request in explicit {
        let request: MountRequest = request?;
        if !taken.insert(request.record.destination.clone()) {
            return invalid(format!("Duplicate mount point: {}", request.record.destination));
        }
        requests.push(request);
    }
    for record in inherited {
        if taken.insert(record.destination.clone()) {
            requests.push(MountRequest { record, ..blank(MountKind::Volume, "/") });
        }
    }
    for path in config.volumes.keys() {
        let target = clean(path).filter(|target| target != "/").ok_or_else(|| {
            EngineError::Invalid(format!("invalid volume specification: '{path}'"))
        })?;
        if taken.insert(target.clone()) {
            let mut request = blank(MountKind::Volume, &target);
            request.record.anonymous = true;
            request.volume_driver.clone_from(&host.volume_driver);
            requests.push(request);
        }
    }
    // Parents are mounted before what lies in them.
    requests.sort_by_key(|request| request.record.destination.matches('/').count());
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use brig_api::Empty;
    use brig_api::container::{BindOptions, TmpfsOptions};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bind_notations() {
        let bind = parse_bind("/a/../b:/x/:ro,z").unwrap().record;
        assert_eq!((bind.kind, bind.source.as_str(), bind.rw), (MountKind::Bind, "/b", false));
        assert_eq!((bind.destination.as_str(), bind.propagation.as_str()), ("/x", "rprivate"));
        let volume = parse_bind("data:/x:nocopy").unwrap().record;
        assert_eq!((volume.kind, volume.name.as_str()), (MountKind::Volume, "data"));
        assert!(volume.no_copy && volume.rw && !volume.anonymous);
        assert!(parse_bind("/x").unwrap().record.anonymous);
        for bad in ["", "a:b", "/a:/", ":/x", "/a:/x:bogus", "/a:/x:ro:y", "data:/x:shared"] {
            assert!(parse_bind(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mount_notations() {
        let mount = Mount {
            kind: "bind".into(),
            source: "/s".into(),
            target: "/t".into(),
            read_only: true,
            bind_options: Some(BindOptions { propagation: "rslave".into(), ..Default::default() }),
            ..Mount::default()
        };
        let record = parse_mount(&mount).unwrap().record;
        assert!(!record.rw && !record.create_source);
        assert_eq!(record.propagation, "rslave");
        let tmpfs = Mount {
            kind: "tmpfs".into(),
            target: "/t".into(),
            tmpfs_options: Some(TmpfsOptions {
                size_bytes: 4096,
                mode: 0o700,
                ..Default::default()
            }),
            ..Mount::default()
        };
        assert_eq!(parse_mount(&tmpfs).unwrap().record.tmpfs_options, ["size=4096", "mode=700"]);
        let error = parse_mount(&Mount { kind: "volume".into(), ..Mount::default() }).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid mount config for type \"volume\": field Target must not be empty"
        );
    }

    #[test]
    fn explicit_mounts_hide_the_images_volumes() {
        let config = ContainerConfig {
            volumes: [("/data".to_owned(), Empty {}), ("/other".to_owned(), Empty {})].into(),
            ..ContainerConfig::default()
        };
        let host = HostConfig { binds: vec!["v1:/data".into()], ..HostConfig::default() };
        let got = collect(&config, &host, Vec::new()).unwrap();
        let names: Vec<(&str, &str)> =
            got.iter().map(|m| (m.record.destination.as_str(), m.record.name.as_str())).collect();
        assert_eq!(names, [("/data", "v1"), ("/other", "")]);
        let host =
            HostConfig { binds: vec!["a1:/d".into(), "b1:/d/".into()], ..HostConfig::default() };
        assert_eq!(
            collect(&config, &host, Vec::new()).unwrap_err().to_string(),
            "Duplicate mount point: /d"
        );
    }

    proptest! {
        #[test]
        fn destinations_are_clean(text in "[a-z/.:]{0,30}") {
            if let Ok(request) = parse_bind(&text) {
                let target = request.record.destination;
                prop_assert!(target.starts_with('/') && target.len() > 1);
                prop_assert!(!target.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")));
            }
        }
    }
}
