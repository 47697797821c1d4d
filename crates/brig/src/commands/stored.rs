//! What `secret` and `config` have in common: both are lists of named objects whose content is
//! given once.

use brig_api::swarm::{Config, Secret};
use brig_types::Labels;
use clap::Args;
use serde::de::DeserializeOwned;

use super::{checked, each, filters};
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
    /// What messages call it.
    const KIND: &'static str;
    /// Where the API lists them.
    const PATH: &'static str;
    /// The default of `--format` in the user's configuration.
    const FORMAT: &'static str;
    const TABLE: &'static str;

    fn head(&self) -> Head<'_>;

    /// Its content for people, where the API gives it away.
    fn content(&self) -> Option<String>;
}

/// The path of one of them.
fn path<T: Stored>(name: &str) -> Result<String> {
    Ok(format!("{}/{}", T::PATH, checked(T::KIND, name)?))
}

impl Stored for Secret {
    const KIND: &'static str = "secret";
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

    fn content(&self) -> Option<String> {
        None
    }
}

impl Stored for Config {
    const KIND: &'static str = "config";
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

    fn content(&self) -> Option<String> {
        Some(String::from_utf8_lossy(&self.spec.data.0).into_owned())
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

#[derive(Args, Debug)]
pub(super) struct InspectArgs {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(long, short = 'f')]
    format: Option<String>,
    /// Print the information in a human friendly format
    #[arg(long)]
    pretty: bool,
    #[arg(required = true, hide = true)]
    names: Vec<String>,
}

/// Prints objects with all that the API tells of them.
pub(super) async fn inspect<T: Stored>(context: &Context, args: InspectArgs) -> Result<()> {
    if !args.pretty {
        return super::inspect::print_all(&args.names, args.format.as_deref(), |name| async move {
            super::inspect::fetch(&context.client, Call::get(path::<T>(&name)?)).await
        })
        .await;
    }
    let mut text = String::new();
    for name in &args.names {
        let object: T = context.client.json(Call::get(path::<T>(name)?)).await?;
        text.push_str(&pretty(&object));
    }
    crate::output::print(&text)
}

fn pretty(object: &impl Stored) -> String {
    let Head { id, name, driver, created, updated, labels } = object.head();
    let mut text = format!("ID:\t\t\t{id}\nName:\t\t\t{name}\n");
    if !labels.is_empty() {
        text.push_str("Labels:\n");
        for (key, value) in labels {
            let value = if value.is_empty() { String::new() } else { format!("={value}") };
            text.push_str(&format!(" - {key}{value}\n"));
        }
    }
    if let Some(driver) = driver {
        text.push_str(&format!("Driver:            \t{driver}\n"));
    }
    text.push_str(&format!(
        "Created at:            \t{created}\nUpdated at:            \t{updated}\n"
    ));
    if let Some(content) = object.content() {
        text.push_str(&format!("Data:\n{content}\n"));
    }
    text
}

#[derive(Args, Debug)]
pub(super) struct RmArgs {
    #[arg(required = true, hide = true)]
    names: Vec<String>,
}

/// Removes objects.
pub(super) async fn rm<T: Stored>(context: &Context, args: RmArgs) -> Result<()> {
    each(
        &args.names,
        |name| async move { context.client.none(Call::delete(path::<T>(&name)?)).await },
    )
    .await
}
