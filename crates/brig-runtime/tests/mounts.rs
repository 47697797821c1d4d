//! What containers see of the host's mounts.

#![allow(missing_docs, unreachable_pub, dead_code, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;

use brig_runtime::spec::MountSpec;
use brig_sys::mount::{BindOptions, bind, unmount};

use common::Rig;

/// The host mounts something after the daemon has started, and a container binds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn binds_of_later_mounts() {
    for program in ["crun", "runc"] {
        let mut rig = Rig::new(program);
        let (source, target) = (rig.dir.path().join("source"), rig.dir.path().join("target"));
        fs::create_dir(&source).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(source.join("file"), "seen").unwrap();
        bind(&source, &target, BindOptions::default()).unwrap();
        let mut input = rig.sh("cat /data/file; touch /data/new");
        input.mounts.push(MountSpec::bind(target.clone(), "/data".into(), false));
        let (info, out, err) = rig.run(&input).await;
        unmount(&target, true).unwrap();
        assert_eq!((info.code, out.as_str()), (0, "seen"), "{err}");
        assert!(source.join("new").exists());
    }
}
