//! Vulnerabilities: the database that this engine judges images by, and its copies on the other
//! managers.

pub mod api;
mod database;
mod download;
mod follow;
mod gate;
mod vulnerable;

pub use database::{Database, DatabaseError, Loaded};
pub use download::{Attempts, follow as follow_source};
pub use follow::follow;
pub use gate::ScanGate;
pub use vulnerable::follow as follow_running;
