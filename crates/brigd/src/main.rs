//! brigd
fn main() {}
