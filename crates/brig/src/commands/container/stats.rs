//! `stats`.

use std::collections::BTreeMap;
use std::time::Duration;

use brig_api::container::ContainerSummary;
use brig_api::event::Event;
use brig_api::filters::Filters;
use brig_api::stats::{BlkioEntry, ContainerStats};
use clap::Args;
use futures_util::StreamExt as _;
use futures_util::stream::{self, LocalBoxStream, SelectAll};
use serde::de::DeserializeOwned;

use crate::cli::leaf;
use crate::client::{Answer, Call};
use crate::commands::checked;
use crate::context::Context;
use crate::error::{Error, Result, message};
use crate::output::human::{binary_size, short_id, size};
use crate::output::list::{Listing, Row};
use crate::output::print;

leaf!(
    STATS,
    "stats",
    "[OPTIONS] [CONTAINER...]",
    "Display a live stream of container(s) resource usage statistics",
    StatsArgs,
    stats
);

const COLUMNS: &str = "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";
const HEADERS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];
/// Between two pictures.
const REFRESH: Duration = Duration::from_millis(500);
/// Cursor to the top, and the rest of the screen emptied.
const CLEAR: &str = "\x1b[H\x1b[J";
/// The longest line of a stream, in bytes.
const MAX_LINE: usize = 4 << 20;
const NOTHING: &str = "--";

#[derive(Args, Debug)]
struct StatsArgs {
    /// Show all containers (default shows just running)
    #[arg(long, short = 'a')]
    all: bool,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Disable streaming stats and only pull the first result
    #[arg(long)]
    no_stream: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    #[arg(hide = true)]
    containers: Vec<String>,
}

/// What a stream says.
#[derive(Debug)]
enum News {
    Stats(String, Box<ContainerStats>),
    Ended(String),
    Event(Event),
}

type Stream<'a> = LocalBoxStream<'a, Result<News>>;

/// The containers shown, in the order in which they came.
#[derive(Debug, Default)]
struct Board {
    order: Vec<String>,
    latest: BTreeMap<String, ContainerStats>,
}

async fn stats(context: &Context, args: StatsArgs) -> Result<()> {
    for name in &args.containers {
        checked("container", name)?;
    }
    let format =
        args.format.clone().or_else(|| context.config.text("statsFormat").map(str::to_owned));
    let mut board = Board::default();
    let mut streams: SelectAll<Stream<'_>> = SelectAll::new();
    let follows_all = args.containers.is_empty();
    if follows_all && !args.no_stream {
        let filters = Filters::new().with("type", "container");
        let answer = context.client.send(Call::get("/events").filters(&filters)).await?;
        streams.push(lines::<Event>(answer).map(|event| event.map(News::Event)).boxed_local());
    }
    if follows_all {
        let call = Call::get("/containers/json").query_if("all", args.all);
        let list: Vec<ContainerSummary> = context.client.json(call).await?;
        // The newest one comes first, also among those that start later.
        board.order = list.iter().map(|container| short_id(&container.id).to_owned()).collect();
    } else {
        board.order.clone_from(&args.containers);
    }
    for key in &board.order {
        streams.push(watch(context, key, args.no_stream).await?);
    }
    if args.no_stream {
        while let Some(news) = streams.next().await {
            if let News::Stats(key, stats) = news? {
                board.latest.insert(key, *stats);
            }
        }
        return print(&picture(&board, &args, format.as_deref())?);
    }
    let mut refresh = tokio::time::interval(REFRESH);
    let mut open = board.order.len();
    loop {
        tokio::select! {
            _ = refresh.tick() => {
                print(&format!("{CLEAR}{}", picture(&board, &args, format.as_deref())?))?;
            }
            news = streams.next() => match news.transpose()? {
                None => return Ok(()),
                Some(News::Stats(key, stats)) => {
                    if board.order.contains(&key) {
                        board.latest.insert(key, *stats);
                    }
                }
                Some(News::Ended(key)) => {
                    board.drop_container(&key);
                    open = open.saturating_sub(1);
                    if open == 0 && !follows_all {
                        return Ok(());
                    }
                }
                Some(News::Event(event)) => {
                    let id = short_id(&event.actor.id).to_owned();
                    match event.action.as_str() {
                        "create" if args.all => {}
                        "start" => {}
                        "die" if !args.all => {
                            board.drop_container(&id);
                            continue;
                        }
                        _ => continue,
                    }
                    if !board.order.contains(&id) {
                        board.order.insert(0, id.clone());
                        match watch(context, &id, false).await {
                            Ok(stream) => {
                                streams.push(stream);
                                open += 1;
                            }
                            // Gone again.
                            Err(error) if error.is_not_found() => board.drop_container(&id),
                            Err(error) => return Err(error),
                        }
                    }
                }
            }
        }
    }
}

impl Board {
    fn drop_container(&mut self, key: &str) {
        self.order.retain(|known| known != key);
        self.latest.remove(key);
    }
}

/// The statistics of one container as they come.
async fn watch<'a>(context: &'a Context, key: &str, once: bool) -> Result<Stream<'a>> {
    let call =
        Call::get(format!("/containers/{key}/stats")).query("stream", if once { "0" } else { "1" });
    let answer = context.client.send(call).await?;
    let (name, last) = (key.to_owned(), key.to_owned());
    Ok(lines::<ContainerStats>(answer)
        .map(move |stats| stats.map(|stats| News::Stats(name.clone(), Box::new(stats))))
        .chain(stream::once(async move { Ok(News::Ended(last)) }))
        .boxed_local())
}

/// An answer that is a line of JSON after the other.
fn lines<'a, T: DeserializeOwned + 'a>(answer: Answer<'a>) -> LocalBoxStream<'a, Result<T>> {
    let state = (answer, Vec::<u8>::new());
    stream::try_unfold(state, |(mut answer, mut held)| async move {
        loop {
            if let Some(end) = held.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = held.drain(..=end).collect();
                let item = serde_json::from_slice(&line)
                    .map_err(|source| Error::Answer { path: "a stream".to_owned(), source })?;
                return Ok(Some((item, (answer, held))));
            }
            if held.len() > MAX_LINE {
                return Err(message("a line of the daemon's answer is too long"));
            }
            match answer.chunk().await? {
                Some(piece) => held.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
    })
    .boxed_local()
}

fn picture(board: &Board, args: &StatsArgs, format: Option<&str>) -> Result<String> {
    let rows: Vec<Row> =
        board.order.iter().map(|key| row(key, board.latest.get(key), !args.no_trunc)).collect();
    Listing { table: COLUMNS, headers: HEADERS, id: "ID" }.render(&rows, format.unwrap_or_default())
}

fn row(key: &str, stats: Option<&ContainerStats>, trunc: bool) -> Row {
    let id = stats.map_or(key, |stats| stats.id.as_str());
    let id = if trunc { short_id(id) } else { id };
    let name = stats.map_or("", |stats| stats.name.trim_start_matches('/'));
    let row = Row::new()
        .with("Container", key)
        .with("ID", id)
        .with("Name", if name.is_empty() { NOTHING } else { name });
    // One that doesn't run was never read.
    let Some(stats) = stats.filter(|stats| !stats.read.starts_with("0001-")) else {
        return row
            .with("CPUPerc", NOTHING)
            .with("MemUsage", "-- / --")
            .with("MemPerc", NOTHING)
            .with("NetIO", NOTHING)
            .with("BlockIO", NOTHING)
            .with("PIDs", NOTHING);
    };
    let memory = stats.memory_stats.without_cache();
    let limit = stats.memory_stats.limit;
    let share = if limit == 0 { 0.0 } else { memory as f64 / limit as f64 * 100.0 };
    let net = |pick: fn(&brig_api::stats::InterfaceStats) -> u64| {
        stats.networks.values().map(pick).fold(0, u64::saturating_add)
    };
    let blocks = stats.blkio_stats.io_service_bytes_recursive.as_deref().unwrap_or_default();
    row.with("CPUPerc", format!("{:.2}%", cpu_share(stats)))
        .with("MemUsage", format!("{} / {}", binary(memory), binary(limit)))
        .with("MemPerc", format!("{share:.2}%"))
        .with("NetIO", both(net(|i| i.rx_bytes), net(|i| i.tx_bytes)))
        .with("BlockIO", both(blocks_of(blocks, 'r'), blocks_of(blocks, 'w')))
        .with("PIDs", stats.pids_stats.current.to_string())
}

/// Per cent of one processor since the look before.
fn cpu_share(stats: &ContainerStats) -> f64 {
    let (now, before) = (&stats.cpu_stats, &stats.precpu_stats);
    let used = now.cpu_usage.total_usage.saturating_sub(before.cpu_usage.total_usage);
    let passed = now.system_cpu_usage.saturating_sub(before.system_cpu_usage);
    if passed == 0 {
        return 0.0;
    }
    let processors = match now.online_cpus {
        0 => now.cpu_usage.percpu_usage.len() as f64,
        count => f64::from(count),
    };
    used as f64 / passed as f64 * processors * 100.0
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn binary(bytes: u64) -> String {
    binary_size(signed(bytes))
}

fn both(one: u64, other: u64) -> String {
    format!("{} / {}", size(signed(one)), size(signed(other)))
}

fn blocks_of(entries: &[BlkioEntry], first: char) -> u64 {
    entries
        .iter()
        .filter(|entry| entry.op.to_ascii_lowercase().starts_with(first))
        .fold(0, |sum, entry| sum.saturating_add(entry.value))
}

#[cfg(test)]
mod tests {
    use brig_api::stats::{CpuStats, CpuUsage, MemoryStats, PidsStats};

    use super::*;

    #[test]
    fn a_row_is_dockers() {
        let stats = ContainerStats {
            read: "2026-11-21T19:37:12Z".into(),
            id: "0123456789abcdef".into(),
            name: "/web".into(),
            cpu_stats: CpuStats {
                cpu_usage: CpuUsage { total_usage: 150, ..CpuUsage::default() },
                system_cpu_usage: 2000,
                online_cpus: 2,
                ..CpuStats::default()
            },
            precpu_stats: CpuStats {
                cpu_usage: CpuUsage { total_usage: 50, ..CpuUsage::default() },
                system_cpu_usage: 1000,
                ..CpuStats::default()
            },
            memory_stats: MemoryStats { usage: 4 << 20, limit: 64 << 20, ..MemoryStats::default() },
            pids_stats: PidsStats { current: 3, limit: 0 },
            ..ContainerStats::default()
        };
        let board = Board {
            order: vec!["web".into(), "gone".into()],
            latest: [("web".to_owned(), stats)].into(),
        };
        let args = StatsArgs {
            all: false,
            format: None,
            no_stream: true,
            no_trunc: false,
            containers: Vec::new(),
        };
        let format =
            "{{.ID}}|{{.Name}}|{{.CPUPerc}}|{{.MemUsage}}|{{.MemPerc}}|{{.NetIO}}|{{.PIDs}}";
        assert_eq!(
            picture(&board, &args, Some(format)).unwrap(),
            "0123456789ab|web|20.00%|4MiB / 64MiB|6.25%|0B / 0B|3\ngone|--|--|-- / --|--|--|--\n"
        );
        assert!(picture(&Board::default(), &args, None).unwrap().starts_with(
            "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O   BLOCK I/O   PIDS"
        ));
    }
}
