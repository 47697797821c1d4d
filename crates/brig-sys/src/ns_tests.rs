use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::mount::{
    BindOptions, OverlayOptions, bind, is_mountpoint, make_shared_mountpoint, mountinfo, overlay,
    unmount, unshared_mounts,
};

/// A process in namespaces of its own; killed and reaped at the end.
pub(crate) struct Unshared(std::process::Child);

impl Unshared {
    pub(crate) fn spawn(flags: &[&str]) -> Self {
        let child = Command::new("unshare").args(flags).args(["sleep", "60"]).spawn().unwrap();
        let unshared = Self(child);
        // unshare(1) has done its work once it has become sleep(1).
        for _ in 0..2000 {
            if std::fs::read_to_string(format!("/proc/{}/comm", unshared.pid()))
                .is_ok_and(|name| name.trim() == "sleep")
            {
                return unshared;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("unshare did not start");
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for Unshared {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn in_net_sees_the_other_namespace_and_leaves_the_caller() {
    let child = Unshared::spawn(&["-n"]);
    let ns = open(child.pid(), NsKind::Net).unwrap();
    let link = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/net")).unwrap();
    let before = link("thread-self");
    let inside = in_net(ns.as_fd(), || Ok(link("thread-self"))).unwrap();
    assert_eq!(inside, link(&child.pid().to_string()));
    assert_ne!(inside, before);
    assert_eq!(link("thread-self"), before);
}

#[test]
fn wrong_kind_and_panics_are_errors() {
    let ns = open(i32::try_from(std::process::id()).unwrap(), NsKind::Uts).unwrap();
    assert!(in_net(ns.as_fd(), || Ok(())).is_err());
    let error = on_thread::<(), _>(|| panic!("boom")).unwrap_err();
    assert!(error.to_string().contains("boom"));
}

#[test]
fn private_mounts_hide_and_follow() {
    let top = tempfile::tempdir().unwrap();
    let shared = top.path().join("shared");
    let hidden = top.path().join("hidden");
    for dir in ["shared/target", "hidden", "lower", "upper", "work"] {
        std::fs::create_dir_all(top.path().join(dir)).unwrap();
    }
    make_shared_mountpoint(&shared).unwrap();
    make_shared_mountpoint(&hidden).unwrap();
    std::fs::write(top.path().join("lower/file"), "x").unwrap();

    let mounts = PrivateMounts::new(&[&hidden, Path::new(crate::cgroup::HYBRID_UNIFIED)]).unwrap();
    // Made after the namespace.
    let target = shared.join("target");
    overlay(
        &[top.path().join("lower")],
        &top.path().join("upper"),
        &top.path().join("work"),
        &target,
        OverlayOptions { volatile: true },
    )
    .unwrap();
    let (inside_target, inside_hidden) = (target.clone(), hidden.clone());
    let (seen, hidden_inside, unified) = mounts
        .run(move || {
            (
                inside_target.join("file").exists(),
                !is_mountpoint(&inside_hidden).unwrap(),
                Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists(),
            )
        })
        .unwrap();
    let overlay_id =
        mountinfo(None).unwrap().into_iter().find(|m| m.mount_point == target).unwrap().id;
    let travels = !unshared_mounts().unwrap().iter().any(|(id, _)| *id == overlay_id);
    assert!(travels, "it travels by itself");
    // A child is in there too.
    let path = hidden.clone();
    let child = mounts
        .run(move || Command::new("mountpoint").arg("-q").arg(path).status().unwrap())
        .unwrap();
    let host_still = is_mountpoint(&hidden).unwrap();
    unmount(&target, false).unwrap();
    let still_inside = {
        let target = target.clone();
        mounts.run(move || is_mountpoint(&target).unwrap()).unwrap()
    };
    let panicked = mounts.run(|| panic!("boom"));

    // Below a private mount, a later mount is only seen after a renewal.
    let private = top.path().join("private");
    std::fs::create_dir_all(private.join("sub")).unwrap();
    bind(&private, &private, BindOptions::default()).unwrap();
    rustix::mount::mount_change(&private, MountPropagationFlags::PRIVATE).unwrap();
    mounts.renew().unwrap();
    mounts.run(|| ()).unwrap();
    bind(&hidden, &private.join("sub"), BindOptions::default()).unwrap();
    let (sub, again) = (private.join("sub"), hidden.clone());
    let sees = || {
        let (sub, again) = (sub.clone(), again.clone());
        mounts.run(move || (is_mountpoint(&sub).unwrap(), is_mountpoint(&again).unwrap())).unwrap()
    };
    let before_renewal = sees();
    mounts.renew().unwrap();
    let after_renewal = sees();
    let unshared = unshared_mounts().unwrap();
    let counted = mountinfo(None).unwrap().into_iter().find(|m| m.mount_point == sub).unwrap();
    unmount(&sub, true).unwrap();
    unmount(&private, true).unwrap();
    unmount(&shared, true).unwrap();
    unmount(&hidden, true).unwrap();

    assert!(seen && hidden_inside && !unified && host_still);
    assert!(!child.success());
    assert!(!still_inside, "an unmount on the host reaches the namespace");
    assert!(panicked.is_err());
    assert_eq!(before_renewal, (false, false));
    assert_eq!(after_renewal, (true, false));
    assert!(unshared.contains(&(counted.id, counted.mount_point)));
    let table = mountinfo(None).unwrap();
    assert!(!table.iter().any(|m| m.mount_point.starts_with(top.path())));
}
