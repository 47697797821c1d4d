//! Handlers of the Engine API for this node: JSON to calls of the engine and back.
//!
//! Each takes a [`crate::server::Call`] that access was granted for, and decides nothing itself.

pub mod archive;
pub mod attach;
pub mod auth;
pub mod blocking;
pub mod build;
pub mod containers;
pub mod defaults;
pub mod distribution;
pub mod events;
pub mod exec;
pub mod glob;
pub mod image_export;
pub mod image_transfer;
pub mod images;
pub mod logs;
pub mod networks;
pub mod plugins;
pub mod progress;
pub mod prune;
pub mod search;
pub mod stats;
pub mod system;
pub mod times;
pub mod unsupported;
pub mod volumes;
pub mod wait;
