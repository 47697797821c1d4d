//! Volumes, binds and memory file systems in containers.

use brig_engine::RemoveOptions;
use brig_types::error::{Categorized, ErrorKind};

use crate::support::{Node, finish, isolated, run, sh};

#[test]
fn volumes_are_filled_kept_and_guarded() {
    isolated("storage::volumes_are_filled_kept_and_guarded", || async {
        let node = Node::new();
        let engine = node.engine().await;
        let mut writer = sh("cat /data/seed; echo more > /data/new");
        writer.host_config.binds = vec!["vol1:/data".to_owned()];
        let (code, out, err) = run(&engine, writer).await;
        assert_eq!((code, out.as_str()), (0, "from the image"), "{err}");
        let mut reader = sh("cat /data/new; echo x > /data/y");
        reader.host_config.binds = vec!["vol1:/data:ro".to_owned()];
        let (code, out, _) = run(&engine, reader).await;
        assert_eq!((code, out.as_str()), (1, "more\n"));
        let error = engine.volumes().remove("vol1").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);

        let mut anonymous = sh("ls /data");
        anonymous.config.volumes.insert("/data".to_owned(), brig_api::Empty {});
        let id = engine.create_container(None, anonymous).await.unwrap().id;
        let mounts = engine.inspect(&id, false).await.unwrap().mounts;
        assert_eq!((mounts[0].kind.as_str(), mounts[0].name.len()), ("volume", 64));
        assert_eq!(engine.volumes().list().len(), 2);
        engine.remove(&id, RemoveOptions { force: false, volumes: true }).await.unwrap();
        assert_eq!(engine.volumes().list().len(), 1);
        finish(engine.clone()).await;
        engine.volumes().remove("vol1").unwrap();
    });
}

#[test]
fn binds_and_tmpfs() {
    isolated("storage::binds_and_tmpfs", || async {
        let node = Node::new();
        let engine = node.engine().await;
        let dir = node.path().join("shared/made");
        let mut wanted = sh("echo hi > /b/file; touch /root-is-ro; grep ' /t ' /proc/mounts");
        wanted.host_config.binds = vec![format!("{}:/b", dir.display())];
        wanted.host_config.tmpfs.insert("/t".to_owned(), "size=64k".to_owned());
        wanted.host_config.readonly_rootfs = true;
        let (code, out, err) = run(&engine, wanted).await;
        assert_eq!(code, 0, "{err}");
        assert!(out.contains("size=64k") && err.contains("Read-only"), "{out}{err}");
        assert_eq!(std::fs::read_to_string(dir.join("file")).unwrap(), "hi\n");

        let mut missing = sh("true");
        missing.host_config.mounts = vec![brig_api::container::Mount {
            kind: "bind".to_owned(),
            source: "/no/such/dir".to_owned(),
            target: "/x".to_owned(),
            ..Default::default()
        }];
        let error = engine.create_container(None, missing).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid mount config for type \"bind\": bind source path does not exist: /no/such/dir"
        );
        finish(engine).await;
    });
}

#[test]
fn what_was_written_survives_a_stop() {
    isolated("storage::what_was_written_survives_a_stop", || async {
        let node = Node::new();
        let engine = node.engine().await;
        let id = engine
            .create_container(None, sh("test -f /kept && exit 9; touch /kept"))
            .await
            .unwrap()
            .id;
        for expected in [0, 9] {
            let ended = engine.wait(&id, brig_engine::WaitCondition::NextExit).unwrap();
            engine.start_container(&id, Default::default()).await.unwrap();
            assert_eq!(ended.wait().await.exit_code, expected);
        }
        finish(engine).await;
    });
}
