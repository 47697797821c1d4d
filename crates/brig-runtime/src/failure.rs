//! What OCI runtimes say when a command cannot be run, in the words that people script against.
//!
//! The docker CLI derives the exit statuses 126 and 127 from the text of the error, and the texts
//! it looks for are runc's. crun says the same things differently.

use std::fmt;

/// Longer messages are cut.
const MAX_MESSAGE: usize = 4096;

/// A failed create, start or exec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What happened, in runc's words where there are any.
    pub message: String,
    /// 127 no such command, 126 cannot be run, else 125.
    pub exit_code: i32,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Failure {
    /// Translates what a runtime wrote when it should run `argv0`.
    pub(crate) fn translate(raw: &str, argv0: &str) -> Self {
        let message = plain(raw);
        let message = crun_wording(&message, argv0).unwrap_or(message);
        let exit_code = exit_code(&message);
        Self { message, exit_code }
    }
}

/// The same rule as the docker CLI's.
fn exit_code(message: &str) -> i32 {
    if message.contains("executable file not found")
        || message.contains("no such file or directory")
    {
        127
    } else if message.contains("permission denied") || message.contains("is a directory") {
        126
    } else {
        125
    }
}

/// The message without a logger's decoration; of several lines the last that says something.
pub(crate) fn plain(raw: &str) -> String {
    let line = raw.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    let text = json_message(line).or_else(|| text_message(line)).unwrap_or_else(|| line.to_owned());
    let mut text = text.trim().to_owned();
    if text.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    if text.is_empty() { "the OCI runtime gave no reason".to_owned() } else { text }
}

/// `{"level":"error","msg":"...","time":"..."}`
fn json_message(line: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(value.get("msg")?.as_str()?.to_owned())
}

/// `time="..." level=error msg="..."`
fn text_message(line: &str) -> Option<String> {
    let (head, quoted) = line.split_once(" msg=\"")?;
    if !head.starts_with("time=") && !head.contains("level=") {
        return None;
    }
    let mut text = String::new();
    let mut escaped = false;
    for c in quoted.chars() {
        match c {
            _ if escaped => {
                text.push(if c == 'n' { ' ' } else { c });
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => break,
            _ => text.push(c),
        }
    }
    Some(text)
}

fn crun_wording(message: &str, argv0: &str) -> Option<String> {
    const START: &str = "unable to start container process: exec:";
    if let Some(rest) = message.strip_prefix("executable file `") {
        let (name, _) = rest.split_once('`')?;
        return Some(if name.contains('/') {
            format!("{START} {name:?}: stat {name}: no such file or directory")
        } else {
            format!("{START} {name:?}: executable file not found in $PATH")
        });
    }
    if let Some(reason) = message.strip_prefix("open executable: ") {
        let reason = match reason {
            // A directory is not executable either.
            "Operation not permitted" | "Permission denied" => "permission denied".to_owned(),
            other => lower_first(other),
        };
        return Some(format!("{START} {argv0:?}: {reason}"));
    }
    if let Some((path, reason)) =
        message.strip_prefix("chdir `").and_then(|rest| rest.split_once("`: "))
    {
        return Some(format!(
            "unable to start container process: chdir to cwd ({path:?}) set in config.json \
             failed: {}",
            lower_first(reason)
        ));
    }
    // C writes the kernel's reasons with a capital letter, Go does not.
    let (head, reason) = message.rsplit_once(": ")?;
    Some(format!("{head}: {}", lower_first(reason)))
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_runtimes_end_in_the_same_words() {
        for (raw, argv0, code, part) in [
            (
                "executable file `nosuch` not found in $PATH: No such file or directory",
                "nosuch",
                127,
                "exec: \"nosuch\": executable file not found in $PATH",
            ),
            (
                "runc create failed: unable to start container process: exec: \"nosuch\": \
                 executable file not found in $PATH",
                "nosuch",
                127,
                "exec: \"nosuch\": executable file not found in $PATH",
            ),
            (
                "executable file `/nosuch` not found in $PATH: No such file or directory",
                "/nosuch",
                127,
                "exec: \"/nosuch\": stat /nosuch: no such file or directory",
            ),
            ("open executable: Permission denied", "/etc/x", 126, "\"/etc/x\": permission denied"),
            ("open executable: Operation not permitted", "/etc", 126, "permission denied"),
            (
                "time=\"2026-11-21T22:09:50Z\" level=error msg=\"exec failed: unable to start \
                 container process: exec: \\\"/x\\\": permission denied\"",
                "/x",
                126,
                "exec failed: unable to start container process: exec: \"/x\": permission denied",
            ),
            ("chdir `/etc/x`: Not a directory", "sh", 125, "(\"/etc/x\") set in config.json"),
            (
                "error stat'ing file `/nosuchsrc`: No such file or directory",
                "sh",
                127,
                "no such file or directory",
            ),
            (
                "{\"level\":\"error\",\"msg\":\"container does not exist\",\"time\":\"x\"}",
                "sh",
                125,
                "container does not exist",
            ),
            ("warning: x\nlast line\n\n", "sh", 125, "last line"),
            ("", "sh", 125, "gave no reason"),
        ] {
            let failure = Failure::translate(raw, argv0);
            assert_eq!(failure.exit_code, code, "{raw}: {failure}");
            assert!(failure.message.contains(part), "{raw}: {failure}");
        }
        assert!(plain(&"ä".repeat(MAX_MESSAGE)).len() <= MAX_MESSAGE);
    }

    proptest::proptest! {
        #[test]
        fn nothing_a_runtime_says_is_too_much(raw in ".*", argv0 in ".{0,20}") {
            let failure = Failure::translate(&raw, &argv0);
            proptest::prop_assert!(!failure.message.is_empty());
            proptest::prop_assert!([125, 126, 127].contains(&failure.exit_code));
        }
    }
}
