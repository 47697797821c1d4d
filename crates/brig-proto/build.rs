//! Generates the messages and gRPC stubs of `docker.swarmkit.v1`, of `brig.v1` and of etcd's client
//! protocol, without `protoc`.

use std::error::Error;

const FILES: [&str; 9] = [
    "docker/swarmkit/v1/types.proto",
    "docker/swarmkit/v1/specs.proto",
    "docker/swarmkit/v1/objects.proto",
    "docker/swarmkit/v1/ca.proto",
    "docker/swarmkit/v1/dispatcher.proto",
    "docker/swarmkit/v1/logbroker.proto",
    "docker/swarmkit/v1/resource.proto",
    "docker/swarmkit/v1/health.proto",
    "etcd/v3.proto",
];

/// Messages with a field that must not be printed; `src/redact.rs` writes their `Debug`.
const REDACTED: [&str; 11] = [
    ".docker.swarmkit.v1.SecretSpec",
    ".docker.swarmkit.v1.IssueNodeCertificateRequest",
    ".docker.swarmkit.v1.GetUnlockKeyResponse",
    ".docker.swarmkit.v1.RootCA",
    ".docker.swarmkit.v1.RootRotation",
    ".docker.swarmkit.v1.JoinTokens",
    ".docker.swarmkit.v1.EncryptionKey",
    ".docker.swarmkit.v1.CAConfig",
    ".docker.swarmkit.v1.ContainerSpec.PullOptions",
    ".docker.swarmkit.v1.VolumeSecret",
    ".docker.swarmkit.v1.MaybeEncryptedRecord",
];

/// What is ours beside it, in a package of its own.
const OWN_FILES: [&str; 6] = [
    "brig/v1/access.proto",
    "brig/v1/admission.proto",
    "brig/v1/inventories.proto",
    "brig/v1/managers.proto",
    "brig/v1/scan.proto",
    "brig/v1/trust.proto",
];
const OWN_REDACTED: [&str; 4] =
    [".brig.v1.Access", ".brig.v1.AdoptKeysRequest", ".brig.v1.JoinResponse", ".brig.v1.TrustKey"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .btree_map(".")
        .skip_debug(REDACTED)
        .compile_fds(descriptors)?;
    let own = std::path::PathBuf::from(std::env::var("OUT_DIR")?).join("brig");
    std::fs::create_dir_all(&own)?;
    tonic_prost_build::configure()
        .build_transport(false)
        .out_dir(own)
        .extern_path(".docker.swarmkit.v1", "crate::swarm")
        .skip_debug(OWN_REDACTED)
        .compile_fds(protox::compile(OWN_FILES, ["proto"])?)?;
    Ok(())
}
