//! Pushing to docker-registry over lines that break.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use brig_image::{LayerState, Progress};

use crate::make::{assert_tidy, docker_archive, names, no_progress, noise, reference, store, tar};
use crate::real_registry::{available, start};

/// Passes bytes on to the registry; cuts uploads after `cut` bytes, as often as `cuts` says.
fn cutting_proxy(registry: String, cut: usize, cuts: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // Ends with the test process.
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(&registry) else { continue };
            let cuts = Arc::clone(&cuts);
            let (mut back, mut client_out) =
                (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut back, &mut client_out);
                let _ = client_out.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || forward(client, server, cut, &cuts));
        }
    });
    address
}

fn forward(mut client: TcpStream, mut server: TcpStream, cut: usize, cuts: &AtomicUsize) {
    let mut buffer = [0; 16 << 10];
    let mut uploading = None;
    while let Ok(read) = client.read(&mut buffer) {
        if read == 0 {
            break;
        }
        if buffer.starts_with(b"PATCH ") {
            uploading = Some(0);
        }
        if server.write_all(&buffer[..read]).is_err() {
            break;
        }
        if let Some(sent) = &mut uploading {
            *sent += read;
            let left = |n: usize| n.checked_sub(1);
            if *sent > cut && cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok() {
                let _ = client.shutdown(Shutdown::Both);
                // The registry sees the end of what came, and keeps it.
                let _ = server.shutdown(Shutdown::Write);
                return;
            }
        }
    }
    let _ = server.shutdown(Shutdown::Write);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_is_taken_up_again() {
    if !available("docker-registry") {
        eprintln!("SKIPPED: there is no docker-registry");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let registry = start(dir.path(), IpAddr::V4(Ipv4Addr::LOCALHOST), "");
    let cuts = Arc::new(AtomicUsize::new(3));
    let address = cutting_proxy(registry.address.clone(), 300_000, Arc::clone(&cuts));

    let root = tempfile::tempdir().unwrap();
    let own = store(root.path());
    let layers = [tar(&[("noise", &noise(1, 3_000_000))]), tar(&[("small", b"x")])];
    let name = format!("{address}/team/x:1");
    let archive = docker_archive(&layers, "x", &[&name]);
    own.load(&archive[..], &no_progress).await.unwrap();
    let states: Arc<Mutex<Vec<LayerState>>> = Arc::default();
    let seen = Arc::clone(&states);
    let progress = move |step: Progress| {
        if let Progress::Layer { state, .. } = step {
            seen.lock().unwrap().push(state);
        }
    };
    let pushed = own.push(&reference(&name), None, &progress).await.unwrap();
    assert_eq!(cuts.load(Ordering::SeqCst), 0, "nothing was cut");
    let states = states.lock().unwrap().clone();
    assert!(states.iter().any(|state| matches!(state, LayerState::Retrying { .. })));
    assert_eq!(states.iter().filter(|state| **state == LayerState::Pushed).count(), 2);
    assert_tidy(root.path());

    // What arrived is the image, and what is remembered of it outlives the store.
    let id = own.resolve(&name).unwrap().id.clone();
    drop(own);
    let own = store(root.path());
    let again = own.push(&reference(&name), None, &no_progress).await.unwrap();
    assert_eq!(again, pushed);
    let other = tempfile::tempdir().unwrap();
    let peer = store(other.path());
    let pulled = peer.pull(&reference(&name), None, None, &no_progress).await.unwrap();
    assert_eq!((pulled.id, pulled.digest), (id, pushed[0].digest.clone()));
    assert_eq!(names(&other.path().join("image/layers")), names(&root.path().join("image/layers")));
    let repository = reference(&format!("{address}/team/x"));
    let all = peer.pull_all(&repository, None, None, &no_progress).await.unwrap();
    assert_eq!(all.len(), 1);
}
