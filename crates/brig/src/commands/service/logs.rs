//! `service logs`: the logs of all tasks, each line with where it comes from.

use std::collections::BTreeMap;

use brig_api::stream::{FrameDecoder, StdStream};
use brig_api::swarm::{Service, Task};
use clap::Args;

use crate::cli::leaf;
use crate::client::Call;
use crate::commands::checked;
use crate::commands::container::{LogFlags, copy_frames};
use crate::commands::tasks::Names;
use crate::context::Context;
use crate::error::{Result, message};
use crate::output::human::short_id;

leaf!(
    LOGS,
    "logs",
    "[OPTIONS] SERVICE|TASK",
    "Fetch the logs of a service or task",
    LogsArgs,
    logs
);

const NODE: &str = "com.docker.swarm.node.id";
const SERVICE: &str = "com.docker.swarm.service.id";
const TASK: &str = "com.docker.swarm.task.id";
/// The longest line that is kept until it ends, in bytes.
const MAX_LINE: usize = 1024 * 1024;

#[derive(Args, Debug)]
struct LogsArgs {
    #[command(flatten)]
    flags: LogFlags,
    /// Do not map IDs to Names in output
    #[arg(long)]
    no_resolve: bool,
    /// Do not include task IDs in output
    #[arg(long)]
    no_task_ids: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Do not neatly format logs
    #[arg(long)]
    raw: bool,
    #[arg(hide = true)]
    name: String,
}

async fn logs(context: &Context, args: LogsArgs) -> Result<()> {
    let name = checked("service", &args.name)?;
    let client = &context.client;
    let call = Call::get(format!("/services/{name}")).query("insertDefaults", "false");
    let (path, tty, replicas) = match client.json::<Service>(call).await {
        Ok(service) => {
            let tty = service.spec.task_template.container_spec.is_some_and(|spec| spec.tty);
            let replicas = service.spec.mode.replicated.and_then(|r| r.replicas).unwrap_or(1);
            (format!("/services/{}/logs", service.id), tty, replicas)
        }
        Err(error) if error.is_not_found() => {
            match client.json::<Task>(Call::get(format!("/tasks/{name}"))).await {
                Ok(task) => {
                    let tty = task.spec.container_spec.as_ref().is_some_and(|spec| spec.tty);
                    (format!("/tasks/{}/logs", task.id), tty, 1)
                }
                Err(error) if error.is_not_found() => {
                    return Err(message(format!("no such task or service: {name}")));
                }
                Err(error) => return Err(error),
            }
        }
        Err(error) => return Err(error),
    };
    if tty && !args.raw {
        return Err(message("tty service logs only supported with --raw"));
    }
    // Where a line comes from is in its details.
    let call = args.flags.query(Call::get(path), None, args.flags.details || !args.raw)?;
    let mut answer = client.send(call).await?;
    if args.raw {
        return copy_frames(answer, tty).await;
    }
    let mut printer = Printer {
        names: Names::new(client, !args.no_resolve),
        context,
        args: &args,
        tasks: BTreeMap::new(),
        width: replicas.max(1).to_string().len(),
        partial: BTreeMap::new(),
    };
    let mut frames = FrameDecoder::new();
    while let Some(chunk) = answer.chunk().await? {
        frames.push(&chunk);
        while let Some((stream, payload)) =
            frames.next_frame().map_err(|e| message(e.to_string()))?
        {
            if stream == StdStream::SystemErr {
                return Err(message(String::from_utf8_lossy(&payload).into_owned()));
            }
            printer.take(stream == StdStream::Stderr, &payload).await?;
        }
    }
    printer.rest().await
}

struct Printer<'a> {
    names: Names<'a>,
    context: &'a Context,
    args: &'a LogsArgs,
    /// What is printed before the lines of each task.
    tasks: BTreeMap<String, String>,
    width: usize,
    /// The unfinished line of stdout and stderr.
    partial: BTreeMap<bool, Vec<u8>>,
}

impl Printer<'_> {
    async fn take(&mut self, stderr: bool, payload: &[u8]) -> Result<()> {
        let mut rest = self.partial.remove(&stderr).unwrap_or_default();
        rest.extend_from_slice(payload);
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            self.line(stderr, &line).await?;
        }
        if rest.len() > MAX_LINE {
            self.line(stderr, &std::mem::take(&mut rest)).await?;
        }
        if !rest.is_empty() {
            self.partial.insert(stderr, rest);
        }
        Ok(())
    }

    async fn rest(mut self) -> Result<()> {
        for (stderr, line) in std::mem::take(&mut self.partial) {
            self.line(stderr, &line).await?;
        }
        Ok(())
    }

    async fn line(&mut self, stderr: bool, line: &[u8]) -> Result<()> {
        let line = String::from_utf8_lossy(line);
        let parsed = Line::parse(&line, self.args.flags.timestamps).ok_or_else(|| {
            message(format!("invalid context in log message: {}", line.trim_end()))
        })?;
        let mut text = String::new();
        if let Some(timestamp) = parsed.timestamp {
            text.push_str(timestamp);
            text.push(' ');
        }
        text.push_str(&self.origin(&parsed).await?);
        text.push_str("    | ");
        if self.args.flags.details && !parsed.details.is_empty() {
            let details: Vec<String> =
                parsed.details.iter().map(|(k, v)| format!("{k}={v}")).collect();
            text.push_str(&details.join(","));
            text.push(' ');
        }
        text.push_str(parsed.text.trim_end_matches('\n'));
        text.push('\n');
        if stderr {
            crate::output::warn_raw(&text);
            Ok(())
        } else {
            crate::output::print(&text)
        }
    }

    /// `web.1.<task>@node`, padded so that the lines of all tasks begin at one column.
    async fn origin(&mut self, line: &Line<'_>) -> Result<String> {
        if let Some(known) = self.tasks.get(&line.task) {
            return Ok(known.clone());
        }
        let service = self.names.service(&line.service).await?;
        let node = self.names.node(&line.node).await?;
        let slot = if self.args.no_resolve {
            String::new()
        } else {
            let task: Result<Task> =
                self.context.client.json(Call::get(format!("/tasks/{}", line.task))).await;
            match task {
                Ok(task) if task.slot != 0 => format!(".{}", task.slot),
                Ok(_) => format!(".{}", line.node),
                Err(error) if error.is_not_found() => String::new(),
                Err(error) => return Err(error),
            }
        };
        let id = if self.args.no_trunc { line.task.as_str() } else { short_id(&line.task) };
        let padding = " ".repeat((self.width + 1).saturating_sub(slot.len()).min(self.width));
        let task = if self.args.no_task_ids { String::new() } else { format!(".{id}") };
        let text = format!("{service}{slot}{task}@{node}{padding}");
        self.tasks.insert(line.task.clone(), text.clone());
        Ok(text)
    }
}

/// One line of a log, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    timestamp: Option<&'a str>,
    node: String,
    service: String,
    task: String,
    /// What the log driver added besides.
    details: BTreeMap<String, String>,
    text: &'a str,
}

impl<'a> Line<'a> {
    /// `[timestamp ]details text`; `None` without the three ids.
    fn parse(line: &'a str, has_timestamp: bool) -> Option<Self> {
        let (timestamp, rest) = if has_timestamp {
            let (timestamp, rest) = line.split_once(' ')?;
            (Some(timestamp), rest)
        } else {
            (None, line)
        };
        let (details, text) = rest.split_once(' ')?;
        let mut details: BTreeMap<String, String> = details
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (unescape(key), unescape(value)))
            .collect();
        Some(Self {
            timestamp,
            node: details.remove(NODE)?,
            service: details.remove(SERVICE)?,
            task: details.remove(TASK)?,
            details,
            text,
        })
    }
}

/// `%41` and `+` as they are in queries.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits: Option<u8> = bytes
                    .clone()
                    .take(2)
                    .map(|b| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok()))
                    .try_fold(0_u8, |value, digit| {
                        Some(value.wrapping_mul(16).wrapping_add(digit?))
                    });
                match digits.filter(|_| bytes.len() >= 2) {
                    Some(value) => {
                        out.push(value);
                        bytes.nth(1);
                    }
                    None => out.push(b'%'),
                }
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_where_it_comes_from() {
        let text = "2024-01-01T00:00:00Z com.docker.swarm.node.id=n,com.docker.swarm.service.id=s,com.docker.swarm.task.id=t,a=b%2Cc hello world\n";
        let line = Line::parse(text, true).unwrap();
        assert_eq!(line.timestamp, Some("2024-01-01T00:00:00Z"));
        assert_eq!(
            (line.node.as_str(), line.service.as_str(), line.task.as_str()),
            ("n", "s", "t")
        );
        assert_eq!(line.details["a"], "b,c");
        assert_eq!(line.text, "hello world\n");
        assert_eq!(Line::parse("just text\n", false), None);
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape("a%20b+c%C3%A4%"), "a b cä%");
        assert_eq!(unescape("%zz%4"), "%zz%4");
    }
}
