//! `secret ls` and `config ls`: the same list of two kinds of objects.

use brig_api::swarm::{Config, Secret};
use brig_types::Labels;
use clap::Args;
use serde::de::DeserializeOwned;

use super::filters;
use crate::client::Call;
use crate::context::Context;
use crate::error::Result;
use crate::output::human::{natural_order, since};
use crate::output::list::{Listing, Row};

#[derive(Args, Debug)]
pub(super) struct LsArgs {
    /// Filter output based on conditions provided
    #[arg(long, short = 'f')]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only display IDs
    #[arg(long, short = 'q')]
    quiet: bool,
}

/// What the list shows of an object.
pub(super) struct Head<'a> {
    id: &'a str,
    name: &'a str,
    /// Only secrets have drivers.
    driver: Option<&'a str>,
    created: &'a str,
    updated: &'a str,
    labels: &'a Labels,
}

/// An object that is listed so.
pub(super) trait Stored: DeserializeOwned {
    /// Where the API lists them.
    const PATH: &'static str;
    /// The default of `--format` in the user's configuration.
    const FORMAT: &'static str;
    const TABLE: &'static str;

    fn head(&self) -> Head<'_>;
}

impl Stored for Secret {
    const PATH: &'static str = "/secrets";
    const FORMAT: &'static str = "secretFormat";
    const TABLE: &'static str = "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.CreatedAt}}\t{{.UpdatedAt}}";

    fn head(&self) -> Head<'_> {
        Head {
            id: &self.id,
            name: &self.spec.name,
            driver: Some(self.spec.driver.as_ref().map_or("", |driver| driver.name.as_str())),
            created: &self.created_at,
            updated: &self.updated_at,
            labels: &self.spec.labels,
        }
    }
}

impl Stored for Config {
    const PATH: &'static str = "/configs";
    const FORMAT: &'static str = "configFormat";
    const TABLE: &'static str = "{{.ID}}\t{{.Name}}\t{{.CreatedAt}}\t{{.UpdatedAt}}";

    fn head(&self) -> Head<'_> {
        Head {
            id: &self.id,
            name: &self.spec.name,
            driver: None,
            created: &self.created_at,
            updated: &self.updated_at,
            labels: &self.spec.labels,
        }
    }
}

/// Prints all objects of a kind, by name.
pub(super) async fn ls<T: Stored>(context: &Context, args: LsArgs) -> Result<()> {
    let call = Call::get(T::PATH).filters(&filters(&args.filter)?);
    let mut objects: Vec<T> = context.client.json(call).await?;
    objects.sort_by(|a, b| natural_order(a.head().name, b.head().name));
    let now = brig_api::time::now();
    let rows: Vec<Row> = objects
        .iter()
        .map(|object| {
            let head = object.head();
            let row = Row::new()
                .with("ID", head.id)
                .with("Name", head.name)
                .with("CreatedAt", since(head.created, now))
                .with("UpdatedAt", since(head.updated, now))
                .labels(head.labels);
            match head.driver {
                Some(driver) => row.with("Driver", driver),
                None => row,
            }
        })
        .collect();
    let listing = Listing {
        table: T::TABLE,
        headers: &[("CreatedAt", "CREATED"), ("UpdatedAt", "UPDATED")],
        id: "ID",
    };
    let format =
        args.format.as_deref().or_else(|| context.config.text(T::FORMAT).filter(|_| !args.quiet));
    listing.print(&rows, format, args.quiet)
}
