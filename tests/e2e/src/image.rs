//! The image that the tests run: Debian's busybox, packed once per test process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/busybox-image.sh")
}

fn packed(name: &str, args: &[&str]) -> PathBuf {
    let folder = crate::daemon::build_folder();
    let ready = folder.join(name);
    if !ready.exists() {
        // Test processes race for it: each packs its own, and the rename is atomic.
        let own = folder.join(format!("{name}.{}", std::process::id()));
        let mut command = Command::new(script());
        let mut places = args
            .iter()
            .map(|arg| if *arg == "OUT" { own.display().to_string() } else { (*arg).to_owned() });
        command.args(&mut places);
        let output = command.output().expect("the packing script starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::rename(&own, &ready).expect("the archive can be renamed");
    }
    ready
}

/// A docker archive of `busybox:latest`.
///
/// # Panics
/// When it cannot be packed.
#[must_use]
pub fn busybox() -> PathBuf {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| packed("busybox-image.tar", &["OUT", "busybox:latest"])).clone()
}

/// Its root file system, for `import`.
///
/// # Panics
/// When it cannot be packed.
#[must_use]
pub fn busybox_rootfs() -> PathBuf {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| packed("busybox-rootfs.tar", &["--rootfs", "OUT"])).clone()
}
