//! Progress of pulls, loads and services: plain lines into pipes, lines redrawn by id on a
//! terminal.

use std::collections::BTreeMap;

use brig_api::progress::{JsonMessage, bar};

use super::{print, warn_raw};
use crate::error::{Error, Result};

/// The longest line of a message stream, in bytes.
const MAX_LINE: usize = 4 * 1024 * 1024;

/// Where progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Shows messages.
#[derive(Debug)]
pub(crate) struct Display {
    target: Target,
    terminal: bool,
    /// The line of each id, from the first one drawn.
    lines: BTreeMap<String, usize>,
    /// Lines drawn since the last message without id.
    drawn: usize,
    partial: Vec<u8>,
}

impl Display {
    /// A display; `terminal` says whether lines can be redrawn.
    pub(crate) fn new(target: Target, terminal: bool) -> Self {
        Self { target, terminal, lines: BTreeMap::new(), drawn: 0, partial: Vec::new() }
    }

    fn put(&self, text: &str) -> Result<()> {
        match self.target {
            Target::Stdout => print(text),
            Target::Stderr => {
                warn_raw(text);
                Ok(())
            }
        }
    }

    /// Takes bytes of a message stream and shows whole messages.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.read(bytes, Self::show)
    }

    /// Takes bytes of a message stream and shows nothing but an error, as the result.
    pub(crate) fn feed_errors(&mut self, bytes: &[u8]) -> Result<()> {
        self.read(bytes, |this, message| this.check(message))
    }

    /// Shows nothing of a message; an error message becomes an error.
    pub(crate) fn check(&mut self, message: &JsonMessage) -> Result<()> {
        match error_text(message) {
            Some(text) => Err(crate::error::message(text)),
            None => Ok(()),
        }
    }

    /// Takes bytes of a message stream and gives whole messages away.
    pub(crate) fn read(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(&mut Self, &JsonMessage) -> Result<()>,
    ) -> Result<()> {
        self.partial.extend_from_slice(bytes);
        while let Some(end) = self.partial.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let message: JsonMessage = serde_json::from_slice(&line).map_err(|source| {
                Error::Answer { path: "the message stream".to_owned(), source }
            })?;
            take(self, &message)?;
        }
        if self.partial.len() > MAX_LINE {
            return Err(crate::error::message("a line of the message stream is too long"));
        }
        Ok(())
    }

    /// Shows what came without a line's end.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.feed(b"\n")
    }

    /// Shows one message; an error message becomes an error.
    pub(crate) fn show(&mut self, message: &JsonMessage) -> Result<()> {
        if let Some(text) = error_text(message) {
            return Err(crate::error::message(text));
        }
        if !message.stream.is_empty() {
            return self.put(&message.stream);
        }
        if message.status.is_empty() && message.progress_detail.is_none() {
            return Ok(());
        }
        let progress = progress_text(message);
        if !self.terminal {
            // Without a terminal, what only moves is not shown.
            return if progress.is_empty() { self.put(&plain_line(message)) } else { Ok(()) };
        }
        if message.id.is_empty() {
            self.lines.clear();
            self.drawn = 0;
            return self.put(&format!("{}\n", message.status));
        }
        let known = self.lines.get(&message.id).copied();
        let row = known.unwrap_or(self.drawn);
        let mut text = String::new();
        if known.is_none() {
            self.lines.insert(message.id.clone(), row);
            self.drawn += 1;
            text.push('\n');
        }
        let up = self.drawn - row;
        text.push_str(&format!("\x1b[{up}A\x1b[2K\r{}: {}", message.id, message.status));
        if !progress.is_empty() {
            text.push_str(&format!(" {progress}"));
        }
        text.push_str(&format!("\r\x1b[{up}B"));
        self.put(&text)
    }
}

/// An error message's text.
pub(crate) fn error_text(message: &JsonMessage) -> Option<String> {
    if let Some(detail) = &message.error_detail
        && !detail.message.is_empty()
    {
        return Some(detail.message.clone());
    }
    (!message.error.is_empty()).then(|| message.error.clone())
}

fn plain_line(message: &JsonMessage) -> String {
    if message.id.is_empty() {
        format!("{}\n", message.status)
    } else {
        format!("{}: {}\n", message.id, message.status)
    }
}

fn progress_text(message: &JsonMessage) -> String {
    match &message.progress_detail {
        Some(detail) if detail.current > 0 || detail.total > 0 => {
            let number = |n: i64| u64::try_from(n).unwrap_or_default();
            let text = bar(number(detail.current), number(detail.total));
            if detail.hide_counts {
                text.split_once(']').map(|(bar, _)| format!("{bar}]")).unwrap_or(text)
            } else if !detail.units.is_empty() {
                format!("{}/{} {}", detail.current, detail.total, detail.units)
            } else {
                text
            }
        }
        _ => message.progress.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_end_the_stream() {
        let mut display = Display::new(Target::Stderr, false);
        let error = display
            .feed(b"{\"errorDetail\":{\"message\":\"no such tag\"},\"error\":\"no such tag\"}\r\n")
            .unwrap_err();
        assert_eq!(error.text(), "no such tag");
        assert!(display.feed(b"not json\n").is_err());
    }

    #[test]
    fn messages_are_found_across_reads() {
        let mut display = Display::new(Target::Stderr, false);
        let mut seen = Vec::new();
        for part in [&b"{\"aux\":{\"a\":1}}\r\n{\"aux\""[..], b":{\"b\":2}}\n", b"\r\n"] {
            display
                .read(part, |_, m| {
                    seen.push(m.aux.clone());
                    Ok(())
                })
                .unwrap();
        }
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn plain_output_leaves_moving_lines_out() {
        let moving = JsonMessage::progress("a", "Downloading", 1, 10);
        assert!(!progress_text(&moving).is_empty());
        let still = JsonMessage::state("a", "Pull complete");
        assert_eq!(progress_text(&still), "");
        assert_eq!(plain_line(&still), "a: Pull complete\n");
    }
}
