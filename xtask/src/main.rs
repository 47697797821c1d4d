//! House rules as a program: `cargo run -p xtask -- verify` reads the workspace and names every
//! rule that is broken. The same checks run as tests, so nobody has to remember them.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod architecture;
mod sources;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("verify") => match verify(&workspace_root()) {
            Ok(broken) if broken.is_empty() => ExitCode::SUCCESS,
            Ok(broken) => {
                for rule in broken {
                    eprintln!("{rule}");
                }
                ExitCode::FAILURE
            }
            Err(error) => {
                eprintln!("xtask: {error:#}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("usage: cargo run -p xtask -- verify");
            ExitCode::from(2)
        }
    }
}

/// Every broken rule, one line each.
fn verify(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut broken = architecture::broken_directions(root)?;
    broken.extend(architecture::undocumented_directions(root)?);
    broken.extend(sources::broken_rules(root)?);
    Ok(broken)
}

fn workspace_root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_keeps_its_rules() {
        let broken = verify(&workspace_root()).unwrap();
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }
}
