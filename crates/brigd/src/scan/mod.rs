//! Vulnerabilities: the database that this engine judges images by, and its copies on the other
//! managers.

pub mod api;
mod database;
mod follow;
mod gate;
mod vulnerable;

pub use database::{Database, DatabaseError, Loaded};
pub use follow::follow;
pub use gate::ScanGate;
pub use vulnerable::follow as follow_running;
