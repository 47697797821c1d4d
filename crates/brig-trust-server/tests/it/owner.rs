//! A publisher with keys in memory.

use brig_pki::signing::{Curve, PublisherCertificate, SigningKey};
use brig_trust::metadata::{Expires, FileMeta};
use brig_trust::remote::{HttpRemote, Remote as _, ServerRole};
use brig_trust::{Document, Gun, Key, Role, Root, Signed, Targets};
use time::OffsetDateTime;

pub(crate) struct Owner {
    pub(crate) gun: Gun,
    root_key: SigningKey,
    wrapped: Key,
    targets_key: SigningKey,
    pub(crate) signers: Vec<SigningKey>,
}

fn key() -> SigningKey {
    SigningKey::generate(Curve::P256).unwrap()
}

pub(crate) fn signed<T: Document>(document: T, role: &Role, by: &SigningKey) -> Vec<u8> {
    let id = Key::of(by).unwrap().id();
    Signed::sign(document, role, &[(&id, by)]).unwrap().raw().to_vec()
}

pub(crate) fn signer_role(at: usize) -> Role {
    Role::parse(&format!("targets/s{at}")).unwrap()
}

impl Owner {
    pub(crate) fn new(gun: &str, signers: usize) -> Self {
        let (gun, root_key) = (Gun::parse(gun).unwrap(), key());
        let pem =
            PublisherCertificate::issue(gun.as_str(), &root_key, OffsetDateTime::now_utc()).unwrap();
        Self {
            gun,
            root_key,
            wrapped: Key::from_certificate(pem.as_bytes()).unwrap(),
            targets_key: key(),
            signers: (0..signers).map(|_| key()).collect(),
        }
    }

    pub(crate) fn root(&self, version: u64, snapshot: Key, timestamp: Key) -> Vec<u8> {
        let expires = Expires::in_days(OffsetDateTime::now_utc(), Root::DAYS);
        let targets = Key::of(&self.targets_key).unwrap();
        let mut root = Root::new(expires, self.wrapped.clone(), targets, snapshot, timestamp);
        root.version = version;
        let id = self.wrapped.id();
        Signed::sign(root, &Role::Root, &[(&id, &self.root_key)]).unwrap().raw().to_vec()
    }

    pub(crate) fn targets(&self, version: u64) -> Vec<u8> {
        let expires = Expires::in_days(OffsetDateTime::now_utc(), Targets::DAYS);
        let mut targets = Targets::new(expires, version);
        for (at, signer) in self.signers.iter().enumerate() {
            let key = Key::of(signer).unwrap();
            targets.delegate(&signer_role(at), &[key], &[String::new()]);
        }
        signed(targets, &Role::Targets, &self.targets_key)
    }

    /// A signer's file with one tag, which says the version.
    pub(crate) fn signers_file(&self, at: usize, version: u64) -> Vec<u8> {
        let expires = Expires::in_days(OffsetDateTime::now_utc(), Targets::DAYS);
        let mut targets = Targets::new(expires, version);
        targets.targets.insert(format!("v{version}"), FileMeta::of_image([7; 32], version));
        signed(targets, &signer_role(at), self.signers.get(at).unwrap())
    }

    pub(crate) async fn first(&self, remote: &HttpRemote) -> Vec<(Role, Vec<u8>)> {
        let snapshot = remote.server_key(&self.gun, ServerRole::Snapshot).await.unwrap();
        let timestamp = remote.server_key(&self.gun, ServerRole::Timestamp).await.unwrap();
        vec![
            (Role::Root, self.root(1, snapshot, timestamp)),
            (Role::Targets, self.targets(1)),
        ]
    }

    /// Makes the repository.
    pub(crate) async fn publish(&self, remote: &HttpRemote) {
        let files = self.first(remote).await;
        remote.publish(&self.gun, &files).await.unwrap();
    }
}
