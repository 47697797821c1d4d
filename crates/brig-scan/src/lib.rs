//! What is in an image, and what is wrong with it.
//!
//! The inventory half reads images (archives, OCI layouts, directories, layers as they are
//! unpacked) and lists every package with the layer that brought it and the file that proves it;
//! it reads and writes CycloneDX and SPDX. The other half holds a database of advisories and
//! compares. Nothing here knows the engine or the API; [`fetch`] alone knows the network, for the
//! database's sake.
//!
//! Bytes of images are hostile. The parsers are total functions over bounded input, without unsafe
//! code, and [`sandbox`] runs them in a process that holds nothing worth stealing.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod db;
pub mod distribution;
pub mod fetch;
pub mod gate;
pub mod inventory;
pub mod kept;
pub mod matching;
pub mod package;
pub mod parse;
pub mod purl;
pub mod report;
pub mod sandbox;
pub mod sbom;
pub mod severity;
pub mod version;
