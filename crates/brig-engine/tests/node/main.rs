//! Real containers on a node of their own: each test runs in fresh network and mount namespaces.
//! Needs root, `unshare`, `crun` or `runc`, `conmon`, `nft`, `ip` and `busybox`.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod exec;
mod lifecycle;
mod recovery;
mod secrets;
mod storage;
mod support;
