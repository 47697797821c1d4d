//! `search`.

use clap::Args;
use serde::Deserialize;

use crate::cli::leaf;
use crate::client::{Call, registry_auth};
use crate::commands::filters;
use crate::context::Context;
use crate::error::{Result, message};
use crate::output::human::ellipsis;
use crate::output::list::{Listing, Row};

leaf!(SEARCH, "search", "[OPTIONS] TERM", "Search Docker Hub for images", SearchArgs, search);

const TABLE: &str = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";
const HEADERS: &[(&str, &str)] =
    &[("StarCount", "STARS"), ("IsOfficial", "OFFICIAL"), ("IsAutomated", "AUTOMATED")];
const MAX_DESCRIPTION: usize = 45;

#[derive(Args, Debug)]
struct SearchArgs {
    /// Filter output based on conditions provided
    #[arg(long, short = 'f')]
    filter: Vec<String>,
    /// Pretty-print search using a Go template
    #[arg(long)]
    format: Option<String>,
    /// Max number of search results
    #[arg(long, default_value = "0", hide_default_value = true)]
    limit: u32,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    #[arg(hide = true)]
    term: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Found {
    name: String,
    description: String,
    star_count: i64,
    is_official: bool,
    is_automated: bool,
}

async fn search(context: &Context, args: SearchArgs) -> Result<()> {
    if args.format.as_deref() == Some("json") {
        return Err(message("table format is required"));
    }
    let auth = registry_auth::for_image(&context.config, &args.term).await;
    let mut call = Call::get("/images/search")
        .query("term", &args.term)
        .filters(&filters(&args.filter)?)
        .registry_auth(&auth);
    if args.limit > 0 {
        call = call.query("limit", args.limit.to_string());
    }
    let found: Vec<Found> = context.client.json(call).await?;
    let ok = |yes: bool| if yes { "[OK]" } else { "" };
    let rows: Vec<Row> = found
        .iter()
        .map(|one| {
            let description = one.description.replace(['\n', '\r'], " ");
            let description =
                if args.no_trunc { description } else { ellipsis(&description, MAX_DESCRIPTION) };
            Row::new()
                .with("Name", one.name.as_str())
                .with("Description", description)
                .with("StarCount", one.star_count.to_string())
                .with("IsOfficial", ok(one.is_official))
                .with("IsAutomated", ok(one.is_automated))
        })
        .collect();
    Listing { table: TABLE, headers: HEADERS, id: "Name" }.print(
        &rows,
        args.format.as_deref(),
        false,
    )
}
