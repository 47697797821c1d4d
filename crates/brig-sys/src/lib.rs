//! Thin safe wrappers around the Linux interfaces that brig needs and the standard library lacks:
//! namespaces, mounts, sequenced-packet sockets, process descriptors, inotify, control groups,
//! capabilities, mapped files.
//!
//! This is the only crate that may hold `unsafe`. It knows the kernel and nothing about
//! containers. Functions block unless they say otherwise; none of them spawns a process.

#![allow(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod caps;
pub mod cgroup;
pub mod confine;
pub mod hardening;
pub mod inotify;
pub mod mmap;
pub mod mount;
pub mod ns;
pub mod openat;
pub mod peer;
pub mod process;
mod reactor;
pub mod remove;
pub mod seqpacket;
pub mod spawn;
