use std::sync::Arc;

use brig_pki::ca::RootCa;
use brig_proto::swarm::{
    Annotations, ContainerSpec, JoinTokens, RootCa as StoredRoot, Secret, SecretReference,
    SecretSpec, Service, ServiceSpec, TaskSpec, task_spec,
};
use brig_types::secret::SecretString;

use super::*;
use crate::manager::control::cluster::new_token;

fn annotations(name: &str) -> Option<Annotations> {
    Some(Annotations { name: name.to_owned(), ..Annotations::default() })
}

fn objects() -> Vec<Object> {
    let root = RootCa::generate().unwrap();
    let ca_cert = root.cert_pem().to_vec();
    let token = || new_token(&ca_cert).unwrap();
    let cluster = Cluster {
        id: "cluster1".to_owned(),
        root_ca: Some(StoredRoot {
            ca_key: root.key_pem().unwrap().expose_secret().to_vec(),
            join_tokens: Some(JoinTokens {
                worker: token(),
                manager: token(),
                ..JoinTokens::default()
            }),
            ca_cert: ca_cert.clone(),
            ..StoredRoot::default()
        }),
        ..Cluster::default()
    };
    let mut spec = SecretSpec::default();
    spec.annotations = annotations("db-password");
    spec.data = b"hunter2-hunter2".to_vec();
    let secret = Secret { id: "secret1".to_owned(), spec: Some(spec), ..Secret::default() };
    let container = ContainerSpec {
        secrets: vec![SecretReference {
            secret_id: "secret1".to_owned(),
            ..SecretReference::default()
        }],
        ..ContainerSpec::default()
    };
    let service = Service {
        id: "service1".to_owned(),
        spec: Some(ServiceSpec {
            annotations: annotations("web-frontend"),
            task: Some(TaskSpec {
                runtime: Some(task_spec::Runtime::Container(container)),
                ..TaskSpec::default()
            }),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    vec![
        Object::Cluster(Arc::new(cluster)),
        Object::Secret(Arc::new(secret)),
        Object::Service(Arc::new(service)),
    ]
}

const PHRASE: &str = "correct horse battery";

fn written(objects: Vec<Object>) -> Result<Vec<u8>, BackupError> {
    let snapshot = Snapshot { state: State::of(objects).unwrap(), node: "node1".to_owned() };
    let readers = Readers::passphrase(SecretString::new(PHRASE.to_owned())).unwrap();
    let mut file = Vec::new();
    snapshot.write(&readers, &mut file)?;
    Ok(file)
}

fn read(file: &[u8]) -> Result<Backup, BackupError> {
    Backup::read(file, &Opener::passphrase(SecretString::new(PHRASE.to_owned())))
}

#[tokio::test]
async fn a_backup_comes_back_whole() {
    let file = written(objects()).unwrap();
    for plain in ["cluster1", "node1", "hunter2", "db-password", "web-frontend", "PRIVATE KEY"] {
        assert!(!file.windows(plain.len()).any(|w| w == plain.as_bytes()), "{plain}");
    }
    let backup = read(&file).unwrap();
    assert_eq!(backup.summary.header.encryption, "age");
    assert_eq!(backup.summary.cluster, "cluster1");
    assert_eq!(backup.summary.objects["secret"], 1);
    assert!(!backup.summary.autolock);
    let temp = tempfile::tempdir().unwrap();
    backup.try_out(temp.path()).await.unwrap();
    let secret = backup.state.by_name::<Secret>("db-password").unwrap();
    assert_eq!(secret.spec.as_ref().unwrap().data, b"hunter2-hunter2");
}

#[test]
fn what_was_cut_or_altered_is_refused_by_name() {
    let file = written(objects()).unwrap();
    let told = |file: &[u8]| brig_types::error::chain(&read(file).unwrap_err());
    assert!(told(b"PK zip").contains("no backup of a cluster"));
    assert!(told(b"brig-cluster-backup 9\n{}\n").contains("has format 9"));
    assert!(told(b"brig-cluster-backup 1\n{\n").contains("header is damaged"));
    let cut = told(&file[..file.len() - 1]);
    assert!(cut.contains("cut off or altered"), "{cut}");
    let mut altered = file.clone();
    *altered.last_mut().unwrap() ^= 1;
    assert!(told(&altered).contains("cut off or altered"));
    let year = file.windows(10).position(|w| w == b"\"Created\":").unwrap() + 11;
    let mut renamed = file.clone();
    renamed[year] = b'3';
    assert!(told(&renamed).contains("its header is another one's"), "{}", told(&renamed));
    let other = Opener::passphrase(SecretString::new("another passphrase".to_owned()));
    let told = brig_types::error::chain(&Backup::read(file.as_slice(), &other).unwrap_err());
    assert!(told.contains("the passphrase is wrong"), "{told}");
}

#[test]
fn what_could_not_be_restored_is_not_written() {
    let told = |objects| written(objects).unwrap_err().to_string();
    let without = |kind: Kind| objects().into_iter().filter(move |o| o.kind() != kind).collect();
    assert!(told(without(Kind::Cluster)).contains("no cluster in it"));
    assert!(told(without(Kind::Secret)).contains("uses secret secret1, which is missing"));
    let change = |f: fn(&mut StoredRoot)| {
        let mut objects = objects();
        for object in &mut objects {
            if let Object::Cluster(cluster) = object {
                f(Arc::make_mut(cluster).root_ca.as_mut().unwrap());
            }
        }
        objects
    };
    assert!(told(change(|root| root.ca_key.clear())).contains("key is missing"));
    let other = change(|root| {
        root.ca_key = RootCa::generate().unwrap().key_pem().unwrap().expose_secret().to_vec();
    });
    assert!(told(other).contains("do not belong together"));
    let tokens = change(|root| root.join_tokens = None);
    assert!(told(tokens).contains("join token is damaged"));
}

#[test]
fn streams_that_lie_are_refused() {
    let preface = stream::Preface {
        header: String::new(),
        cluster: "c".to_owned(),
        node: "n".to_owned(),
        revision: 1,
    };
    let mut writer = StreamWriter::begin(Vec::new(), &preface).unwrap();
    for object in objects() {
        writer.object(&object).unwrap();
    }
    let good = writer.finish().unwrap();
    let all = |bytes: &[u8]| -> Result<usize, BackupError> {
        let mut reader = StreamReader::begin(bytes)?;
        let mut count = 0;
        while reader.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    };
    assert_eq!(all(&good).unwrap(), 3);
    for at in 0..good.len() {
        assert!(all(&good[..at]).is_err(), "cut at {at}");
        let mut altered = good.clone();
        altered[at] ^= 0x10;
        assert!(all(&altered).is_err(), "altered at {at}");
    }
    let longer = [good.as_slice(), b"x"].concat();
    assert!(all(&longer).is_err());
    assert!(all(&[0, 0xff, 0xff, 0xff, 0xff]).is_err());
}
