//! Networks for real: each test runs in a network namespace of its own, so the machine's interfaces
//! and rules are never touched. Needs root, `unshare`, `ip`, `nft` and `busybox`.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod connectivity;
mod dual_stack;
mod lifecycle;
mod names;
mod support;
