//! `secret …`.

use std::io::Read as _;

use brig_api::swarm::{CreateResponse, Secret, SecretSpec};
use brig_types::secret::SecretBytes;
use clap::Args;

use crate::cli::{Leaf, leaf};
use crate::client::Call;
use crate::commands::stored::{InspectArgs, LsArgs, RmArgs, inspect, ls, rm};
use crate::context::Context;
use crate::error::{Error, Result, message};
use crate::parse::key_value_map;

leaf!(
    CREATE,
    "create",
    "[OPTIONS] SECRET [file|-]",
    "Create a secret from a file or STDIN as content",
    CreateArgs,
    create
);
leaf!(
    INSPECT,
    "inspect",
    "[OPTIONS] SECRET [SECRET...]",
    "Display detailed information on one or more secrets",
    InspectArgs,
    inspect::<Secret>
);
leaf!(LS, "ls" | "list", "[OPTIONS]", "List secrets", LsArgs, ls::<Secret>);
leaf!(
    RM,
    "rm" | "remove",
    "SECRET [SECRET...]",
    "Remove one or more secrets",
    RmArgs,
    rm::<Secret>
);

/// `secret …`.
pub(crate) const COMMANDS: &[&Leaf] = &[&CREATE, &INSPECT, &LS, &RM];

/// The largest secret: 500 KiB.
pub(crate) const MAX_SECRET: usize = 500 * 1024;

#[derive(Args, Debug)]
struct CreateArgs {
    /// Secret driver
    #[arg(long, short = 'd')]
    driver: Option<String>,
    /// Secret labels
    #[arg(long, short = 'l')]
    label: Vec<String>,
    /// Template driver
    #[arg(long)]
    template_driver: Option<String>,
    #[arg(hide = true)]
    secret: String,
    #[arg(hide = true)]
    file: Option<String>,
}

async fn create(context: &Context, args: CreateArgs) -> Result<()> {
    if args.driver.is_some() && args.file.is_some() {
        return Err(message("secret data must be empty when using a secret driver"));
    }
    // The content must not end up in a core dump of this process; where that is refused, the
    // secret is still only in memory that is wiped.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let data = match (&args.file, &args.driver) {
        (Some(file), _) => read(file, MAX_SECRET, "secret")?,
        (None, Some(_)) => SecretBytes::default(),
        (None, None) => {
            return Err(message("either a file, or - for STDIN, or a secret driver is needed"));
        }
    };
    let driver = |name: Option<String>| {
        name.map(|name| brig_api::mount::Driver { name, ..Default::default() })
    };
    let len = data.len();
    let spec = SecretSpec {
        name: args.secret,
        labels: key_value_map(&args.label),
        data: data.into(),
        driver: driver(args.driver),
        templating: driver(args.template_driver),
    };
    let call = Call::post("/secrets/create").secret_json(&spec, len)?;
    drop(spec);
    let response: CreateResponse = context.client.json(call).await?;
    crate::output::line(&response.id)
}

/// Reads a secret's or config's content from a file, or from stdin for `-`, into memory that is
/// never moved, so that no copies stay behind.
pub(crate) fn read(file: &str, max: usize, kind: &str) -> Result<SecretBytes> {
    let name = if file == "-" { "STDIN" } else { file };
    let failed = |source| Error::io(format!("error reading content from {name:?}"), source);
    let mut source: Box<dyn std::io::Read> = if file == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(file).map_err(failed)?)
    };
    let mut buffer = vec![0_u8; max + 1];
    let mut len = 0;
    let result = loop {
        match source.read(buffer.get_mut(len..).unwrap_or_default()) {
            Ok(0) => break Ok(()),
            Ok(n) => len += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    // From here on the buffer is wiped, whatever happens.
    let whole = SecretBytes::new(buffer);
    result.map_err(failed)?;
    if len > max {
        return Err(message(format!("{kind} data must not be larger than {} KiB", max / 1024)));
    }
    if len == 0 && kind == "secret" {
        return Err(message(format!("error reading from {name}: data is empty")));
    }
    Ok(SecretBytes::new(whole.expose_secret().get(..len).unwrap_or_default().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_limited_and_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, len: usize| {
            let path = dir.path().join(name);
            std::fs::write(&path, vec![b'x'; len]).unwrap();
            path.display().to_string()
        };
        assert_eq!(
            read(&file("most", MAX_SECRET), MAX_SECRET, "secret").unwrap().len(),
            MAX_SECRET
        );
        let error = read(&file("over", MAX_SECRET + 1), MAX_SECRET, "secret").unwrap_err();
        assert_eq!(error.text(), "secret data must not be larger than 500 KiB");
        assert!(read(&file("none", 0), MAX_SECRET, "secret").is_err());
        assert!(
            read("/nonexistent", MAX_SECRET, "secret").unwrap_err().text().contains("/nonexistent")
        );
    }
}
