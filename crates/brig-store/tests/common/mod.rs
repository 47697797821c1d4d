//! Objects and a sealer for the tests. The sealer is no cryptography, but it binds the place and
//! leaves no plaintext, which is what the store relies on.

#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod etcd;

use std::sync::Arc;

use brig_proto::swarm::{
    Annotations, Config, ConfigSpec, Secret, SecretSpec, Service, ServiceSpec, Task,
};
use brig_store::{BlindName, SealError, Sealer};
use brig_types::id::random_swarm_id;
use brig_types::secret::SecretBytes;

pub struct TestSealer(pub u8);

fn mix(key: u8, kind: &str, id: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ u64::from(key);
    for byte in kind.bytes().chain([0]).chain(id.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

impl Sealer for TestSealer {
    fn seal(&self, kind: &str, id: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let tag = mix(self.0, kind, id).to_be_bytes();
        let hidden = plain.iter().zip(tag.iter().cycle()).map(|(a, b)| a ^ b ^ 0x5a);
        Ok(tag.into_iter().chain(hidden).collect())
    }

    fn open(&self, kind: &str, id: &str, sealed: &[u8]) -> Result<SecretBytes, SealError> {
        let tag = mix(self.0, kind, id).to_be_bytes();
        let body = sealed.strip_prefix(&tag).ok_or("moved, or another key")?;
        let plain = body.iter().zip(tag.iter().cycle()).map(|(a, b)| a ^ b ^ 0x5a);
        Ok(SecretBytes::new(plain.collect()))
    }

    fn blind(&self, kind: &str, name: &str) -> BlindName {
        let mut blind = [0; 32];
        for (i, chunk) in blind.chunks_mut(8).enumerate() {
            let key = self.0.wrapping_add(u8::try_from(i).unwrap());
            chunk.copy_from_slice(&mix(key, kind, name).to_be_bytes());
        }
        blind
    }
}

pub fn sealer() -> Arc<dyn Sealer> {
    Arc::new(TestSealer(1))
}

pub fn annotations(name: &str) -> Option<Annotations> {
    Some(Annotations { name: name.to_owned(), ..Annotations::default() })
}

pub fn secret(name: &str, data: &[u8]) -> Secret {
    let mut spec = SecretSpec::default();
    spec.annotations = annotations(name);
    spec.data = data.to_vec();
    Secret { id: random_swarm_id(), spec: Some(spec), ..Secret::default() }
}

pub fn config(id: &str, name: &str) -> Config {
    let spec = ConfigSpec { annotations: annotations(name), ..ConfigSpec::default() };
    Config { id: id.to_owned(), spec: Some(spec), ..Config::default() }
}

pub fn service(name: &str) -> Service {
    let spec = ServiceSpec { annotations: annotations(name), ..ServiceSpec::default() };
    Service { id: random_swarm_id(), spec: Some(spec), ..Service::default() }
}

pub fn task(service: &str, node: &str) -> Task {
    Task {
        id: random_swarm_id(),
        service_id: service.to_owned(),
        node_id: node.to_owned(),
        ..Task::default()
    }
}
