//! The confined reader alone, for tests: `brig` and `brigd` start themselves instead.

use std::process::ExitCode;

fn main() -> ExitCode {
    brig_scan::sandbox::reader()
}
