//! The messages of newcomers, and the doors that are closed to them.

use std::sync::Arc;

use brig_pki::csr::NodeKey;
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;

const NAME: &str = "laptop";

struct Client {
    stream: BufReader<DuplexStream>,
    request: Vec<u8>,
    nonce: [u8; NONCE_LEN],
    served: JoinHandle<std::io::Result<()>>,
}

impl Client {
    fn new(newcomers: &Arc<Newcomers>, server_key: &'static [u8]) -> Self {
        let (near, far) = duplex(1 << 16);
        let newcomers = Arc::clone(newcomers);
        let served = tokio_util::task::TaskTracker::new().spawn(async move {
            newcomers.serve(far, server_key, "10.0.0.9:4000".parse().unwrap()).await
        });
        let request = NodeKey::generate().unwrap().csr_pem().unwrap();
        Self { stream: BufReader::new(near), request, nonce: [7; NONCE_LEN], served }
    }

    async fn line(&mut self) -> serde_json::Value {
        hear(&mut self.stream).await.unwrap()
    }

    async fn say(&mut self, message: serde_json::Value) {
        tell(&mut self.stream, &message).await.unwrap();
    }

    /// The server's nonce.
    async fn commit(&mut self) -> [u8; NONCE_LEN] {
        let said = enrol::commitment(&self.request, NAME, &self.nonce);
        let said = brig_pki::hash::hex(&said);
        self.say(serde_json::json!({"commitment": said, "name": NAME})).await;
        unhex(self.line().await["nonce"].as_str().unwrap()).unwrap()
    }

    async fn open(&mut self) {
        let request = std::str::from_utf8(&self.request).unwrap().to_owned();
        let nonce = brig_pki::hash::hex(&self.nonce);
        self.say(serde_json::json!({"request": request, "nonce": nonce})).await;
    }

    fn code(&self, server_key: &[u8], server_nonce: [u8; NONCE_LEN]) -> Code {
        let (request, client_nonce) = (self.request.as_slice(), &self.nonce);
        let server_nonce = &server_nonce;
        Transcript { server_key, request, name: NAME, client_nonce, server_nonce }.code().unwrap()
    }
}

async fn waits(newcomers: &Newcomers, count: usize) {
    while newcomers.list().len() != count {
        tokio::task::yield_now().await;
    }
}

fn welcome() -> Welcome {
    Welcome {
        certificate: "c".into(),
        authority: "a".into(),
        name: NAME.into(),
        role: "viewer".into(),
        ends: String::new(),
    }
}

#[tokio::test]
async fn both_ends_show_the_same_code_and_the_answer_arrives() {
    let newcomers = Arc::new(Newcomers::default());
    newcomers.open(Duration::from_secs(60));
    let mut client = Client::new(&newcomers, b"key");
    let nonce = client.commit().await;
    client.open().await;
    waits(&newcomers, 1).await;
    let code = client.code(b"key", nonce);
    let (shown, request) = newcomers.look(&code.to_string()).unwrap();
    assert_eq!((shown.name.as_str(), &request), (NAME, &client.request));
    assert!(newcomers.take(&code).unwrap().welcome(welcome()));
    assert_eq!(client.line().await["welcome"]["role"], "viewer");
    client.served.await.unwrap().unwrap();
    assert!(newcomers.list().is_empty());
}

/// Somebody in between shows either end a key of their own: no code fits both.
#[tokio::test]
async fn somebody_in_between_has_another_code() {
    let newcomers = Arc::new(Newcomers::default());
    newcomers.open(Duration::from_secs(60));
    let mut between = Client::new(&newcomers, b"key");
    let nonce = between.commit().await;
    between.open().await;
    waits(&newcomers, 1).await;
    // The victim saw the other's key, and whatever nonce the other chose to pass on.
    let victim = Client::new(&newcomers, b"key");
    let seen = victim.code(b"other key", nonce);
    assert!(newcomers.look(&seen.to_string()).is_err());
    drop(between.stream);
    waits(&newcomers, 0).await;
}

#[tokio::test]
async fn whoever_changes_their_mind_after_the_nonce_is_refused() {
    let newcomers = Arc::new(Newcomers::default());
    newcomers.open(Duration::from_secs(60));
    let mut client = Client::new(&newcomers, b"key");
    client.commit().await;
    client.nonce = [8; NONCE_LEN];
    client.open().await;
    let refused = client.line().await;
    assert!(refused["refused"].as_str().unwrap().contains("announced"), "{refused}");
    assert!(newcomers.list().is_empty());
}

#[tokio::test]
async fn nobody_gets_in_while_it_is_closed_nor_when_there_are_many() {
    let newcomers = Arc::new(Newcomers::default());
    let mut early = Client::new(&newcomers, b"key");
    assert!(early.line().await["refused"].as_str().unwrap().contains("brig access open"));
    newcomers.open(Duration::from_secs(60));
    let mut all = Vec::new();
    for count in 1..=MAX_OF_ONE {
        let mut client = Client::new(&newcomers, b"key");
        client.nonce = [u8::try_from(count).unwrap(); NONCE_LEN];
        client.commit().await;
        client.open().await;
        waits(&newcomers, count).await;
        all.push(client);
    }
    let mut more = Client::new(&newcomers, b"key");
    assert!(more.line().await["refused"].as_str().unwrap().contains("too many"));
    newcomers.open(Duration::ZERO);
    assert!(!newcomers.is_open() && newcomers.list().is_empty());
    for mut client in all {
        assert!(client.line().await["refused"].is_string());
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let newcomers = Newcomers::default();
            newcomers.open(Duration::from_secs(60));
            let (mut near, far) = duplex(1 << 16);
            near.write_all(&bytes).await.unwrap();
            near.shutdown().await.unwrap();
            let _ = newcomers.serve(far, b"key", "10.0.0.9:1".parse().unwrap()).await;
            assert!(newcomers.list().is_empty());
        });
    }
}
