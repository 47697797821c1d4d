//! brig
fn main() {}
