//! Everything the CLI prints goes through here.

pub(crate) mod human;
pub(crate) mod list;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod template;

use std::io::{self, Write as _};

use crate::error::{Error, Result};

fn written(result: io::Result<()>) -> Result<()> {
    result.map_err(|source| {
        if source.kind() == io::ErrorKind::BrokenPipe {
            Error::BrokenPipe
        } else {
            Error::io("writing output", source)
        }
    })
}

/// Prints text as it is.
pub(crate) fn print(text: &str) -> Result<()> {
    print_bytes(text.as_bytes())
}

/// Prints bytes as they are.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    written(out.write_all(bytes).and_then(|()| out.flush()))
}

/// Prints a line.
pub(crate) fn line(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    written(
        out.write_all(text.as_bytes())
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.flush()),
    )
}

/// Prints a line on stderr; nobody is told when that fails.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints text on stderr as it is; nobody is told when that fails.
pub(crate) fn warn_raw(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Asks for a line on the terminal.
pub(crate) fn prompt(text: &str) -> Result<String> {
    warn_raw(text);
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(|source| Error::io("reading the answer", source))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// JSON as `inspect` prints it: the daemon's own text, four spaces a level.
///
/// Order and numbers stay as they came. The text must be JSON; what else it is is copied.
pub(crate) fn indent(json: &str, depth: usize) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = depth;
    let mut in_string = false;
    let mut escaped = false;
    let mut chars = json.chars().peekable();
    while let Some(c) = chars.next() {
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        match c {
            '"' => {
                in_string = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
                if let Some(close) = chars.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("    ", depth));
}

#[cfg(test)]
mod tests {
    use super::indent;

    #[test]
    fn json_is_indented_in_its_own_order() {
        let json = "{\"b\":[1,2.50],\"a\": {\"x\":\"{,:\\\"}\"}, \"e\":[ ],\"f\":{}}\n";
        let expected = "{\n    \"b\": [\n        1,\n        2.50\n    ],\n    \"a\": {\n        \"x\": \"{,:\\\"}\"\n    },\n    \"e\": [],\n    \"f\": {}\n}";
        assert_eq!(indent(json, 0), expected);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in ".*") {
            let _ = indent(&text, 1);
        }
    }
}
