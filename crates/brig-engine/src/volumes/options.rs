//! The `local` driver's mount options: `type`, `o` and `device`, as mount(8) takes them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;

/// What to mount over a volume's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountOptions {
    kind: String,
    device: String,
    flags: MountFlags,
    bind: Option<brig_sys::mount::BindOptions>,
    data: String,
}

impl MountOptions {
    /// Reads the options; `None` when there is nothing to mount.
    pub(crate) fn parse(options: &BTreeMap<String, String>) -> Result<Option<Self>, String> {
        for key in options.keys() {
            if !matches!(key.as_str(), "type" | "o" | "device") {
                return Err(format!("invalid option: {key:?}"));
            }
        }
        if options.is_empty() {
            return Ok(None);
        }
        let need = |key: &str| {
            options
                .get(key)
                .filter(|value| !value.is_empty())
                .cloned()
                .ok_or_else(|| format!("missing required option: {key:?}"))
        };
        let kind = need("type")?;
        let device = need("device")?;
        let mut flags = MountFlags::empty();
        let mut bind = None;
        let mut data = Vec::new();
        for option in options.get("o").map(String::as_str).unwrap_or_default().split(',') {
            match option {
                "" | "rw" | "defaults" => {}
                "ro" => flags |= MountFlags::RDONLY,
                "nosuid" => flags |= MountFlags::NOSUID,
                "nodev" => flags |= MountFlags::NODEV,
                "noexec" => flags |= MountFlags::NOEXEC,
                "noatime" => flags |= MountFlags::NOATIME,
                "nodiratime" => flags |= MountFlags::NODIRATIME,
                "relatime" => flags |= MountFlags::RELATIME,
                "strictatime" => flags |= MountFlags::STRICTATIME,
                "sync" => flags |= MountFlags::SYNCHRONOUS,
                "bind" => bind = Some(false),
                "rbind" => bind = Some(true),
                other => data.push(other),
            }
        }
        let read_only = flags.contains(MountFlags::RDONLY);
        let bind = bind.map(|recursive| brig_sys::mount::BindOptions { recursive, read_only });
        if bind.is_some() && !Path::new(&device).is_absolute() {
            return Err(format!("invalid device {device:?}: a bind needs an absolute path"));
        }
        Ok(Some(Self { kind, device, flags, bind, data: data.join(",") }))
    }

    /// What is mounted.
    pub(crate) fn device(&self) -> &str {
        &self.device
    }

    /// What of the host it binds.
    pub(crate) fn bound(&self) -> Option<&Path> {
        self.bind.is_some().then(|| Path::new(&self.device))
    }

    /// Directories of the host that an overlay is made of.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &str> {
        let options = self.data.split(',').filter(|_| self.kind == "overlay");
        options
            .filter_map(|option| option.split_once('='))
            .flat_map(|(_, layers)| layers.split(':'))
            .filter(|layer| layer.starts_with('/'))
    }

    /// The file system's own options, a file server's name replaced by its address: the kernel
    /// looks no names up. Blocking.
    fn resolved_data(&self) -> io::Result<String> {
        if !matches!(self.kind.as_str(), "nfs" | "nfs4" | "cifs" | "smb3") {
            return Ok(self.data.clone());
        }
        let resolve = |option: &str| match option.strip_prefix("addr=") {
            Some(host) if host.parse::<IpAddr>().is_err() => {
                let address = (host, 0).to_socket_addrs()?.next();
                let address = address.ok_or_else(|| {
                    io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"))
                })?;
                Ok(format!("addr={}", address.ip()))
            }
            _ => Ok(option.to_owned()),
        };
        let options: io::Result<Vec<String>> = self.data.split(',').map(resolve).collect();
        Ok(options?.join(","))
    }

    /// Mounts it at `target`. Blocking, for as long as a file server likes.
    pub(crate) fn mount(&self, target: &Path) -> io::Result<()> {
        match self.bind {
            Some(options) => brig_sys::mount::bind(&PathBuf::from(&self.device), target, options),
            None => {
                let data = std::ffi::CString::new(self.resolved_data()?)?;
                rustix::mount::mount(
                    self.device.as_str(),
                    target,
                    self.kind.as_str(),
                    self.flags,
                    data.as_c_str(),
                )?;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<Option<MountOptions>, String> {
        let map = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        MountOptions::parse(&map)
    }

    #[test]
    fn options_are_split_into_flags_and_data() {
        let got = parse(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,nosuid,ro")])
            .unwrap()
            .unwrap();
        assert_eq!(got.data, "size=1m");
        assert_eq!(got.flags, MountFlags::NOSUID | MountFlags::RDONLY);
        assert!(parse(&[]).unwrap().is_none());
        let bind = parse(&[("type", "none"), ("device", "/srv"), ("o", "bind")]).unwrap().unwrap();
        assert!(bind.bind.is_some_and(|options| !options.recursive));
    }

    #[test]
    fn incomplete_options_are_refused() {
        assert_eq!(parse(&[("type", "tmpfs")]).unwrap_err(), "missing required option: \"device\"");
        assert_eq!(parse(&[("o", "bind")]).unwrap_err(), "missing required option: \"type\"");
        assert!(parse(&[("type", "none"), ("device", "srv"), ("o", "bind")]).is_err());
    }

    #[test]
    fn a_file_server_is_looked_up() {
        let nfs = |o| parse(&[("type", "nfs"), ("device", ":/x"), ("o", o)]).unwrap().unwrap();
        assert_eq!(nfs("addr=192.0.2.1,nolock").resolved_data().unwrap(), "addr=192.0.2.1,nolock");
        let found = nfs("vers=4,addr=localhost").resolved_data().unwrap();
        assert!(["vers=4,addr=127.0.0.1", "vers=4,addr=::1"].contains(&found.as_str()), "{found}");
        let tmpfs = parse(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "addr=localhost")]);
        assert_eq!(tmpfs.unwrap().unwrap().resolved_data().unwrap(), "addr=localhost");
    }

    #[test]
    fn a_tmpfs_is_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let options =
            parse(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=64k")]).unwrap().unwrap();
        options.mount(dir.path()).unwrap();
        let mounted = brig_sys::mount::is_mountpoint(dir.path()).unwrap();
        brig_sys::mount::unmount(dir.path(), false).unwrap();
        assert!(mounted);
    }
}
