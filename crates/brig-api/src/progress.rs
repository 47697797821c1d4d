//! Lines of JSON message streams: pull, push, load, import.

use bytes::Bytes;

model! {
    /// One line.
    pub struct JsonMessage {
        #[serde(rename = "stream")] stream: String = omitempty,
        #[serde(rename = "status")] status: String = omitempty,
        /// `Some` and empty is written as `{}`, as docker does for states without numbers.
        #[serde(rename = "progressDetail")] progress_detail: Option<ProgressDetail> = omitempty,
        /// The bar, drawn by the engine for clients that only print.
        #[serde(rename = "progress")] progress: String = omitempty,
        #[serde(rename = "id")] id: String = omitempty,
        #[serde(rename = "aux")] aux: Option<serde_json::Value> = omitempty,
        #[serde(rename = "errorDetail")] error_detail: Option<ErrorDetail> = omitempty,
        #[serde(rename = "error")] error: String = omitempty,
    }

    /// How far something is.
    pub struct ProgressDetail {
        #[serde(rename = "current")] current: i64 = omitempty,
        #[serde(rename = "total")] total: i64 = omitempty,
        /// Unix seconds.
        #[serde(rename = "start")] start: i64 = omitempty,
        #[serde(rename = "units")] units: String = omitempty,
        #[serde(rename = "hidecounts")] hide_counts: bool = omitempty,
    }

    /// An error after the answer has begun.
    pub struct ErrorDetail {
        #[serde(rename = "code")] code: i64 = omitempty,
        #[serde(rename = "message")] message: String = omitempty,
    }
}

/// Width of the engine's progress bar without brackets.
const BAR_WIDTH: usize = 50;

impl JsonMessage {
    /// A status without numbers.
    #[must_use]
    pub fn status(id: &str, status: impl Into<String>) -> Self {
        Self { id: id.to_owned(), status: status.into(), ..Self::default() }
    }

    /// A state of a layer that has no numbers: `progressDetail` is `{}`.
    #[must_use]
    pub fn state(id: &str, status: impl Into<String>) -> Self {
        Self { progress_detail: Some(ProgressDetail::default()), ..Self::status(id, status) }
    }

    /// A state of a layer with its numbers and the bar.
    #[must_use]
    pub fn progress(id: &str, status: impl Into<String>, current: u64, total: u64) -> Self {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let detail =
            ProgressDetail { current: number(current), total: number(total), ..Default::default() };
        Self {
            progress: bar(current, total),
            progress_detail: Some(detail),
            ..Self::status(id, status)
        }
    }

    /// Text that clients print as it is.
    #[must_use]
    pub fn stream(text: impl Into<String>) -> Self {
        Self { stream: text.into(), ..Self::default() }
    }

    /// The last line of a stream that failed.
    #[must_use]
    pub fn error(code: i64, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            error_detail: Some(ErrorDetail { code, message: message.clone() }),
            error: message,
            ..Self::default()
        }
    }

    /// The line as it is sent, CRLF included.
    #[must_use]
    pub fn to_line(&self) -> Bytes {
        // A struct of strings and numbers cannot fail to serialise; an empty object keeps the
        // stream readable all the same.
        let mut line = serde_json::to_vec(self).unwrap_or_else(|_| b"{}".to_vec());
        line.extend_from_slice(b"\r\n");
        line.into()
    }
}

/// `[==>     ]  1.2MB/3.4MB`, or only the size so far when the total is not known.
#[must_use]
pub fn bar(current: u64, total: u64) -> String {
    if current == 0 && total == 0 {
        return String::new();
    }
    if total == 0 || current > total {
        return human_size(current);
    }
    let filled = usize::try_from(u128::from(current) * BAR_WIDTH as u128 / u128::from(total))
        .unwrap_or(BAR_WIDTH)
        .min(BAR_WIDTH);
    let mut text = String::with_capacity(BAR_WIDTH + 32);
    text.push('[');
    for _ in 0..filled {
        text.push('=');
    }
    text.push('>');
    for _ in filled + 1..BAR_WIDTH {
        text.push(' ');
    }
    text.push_str("]  ");
    text.push_str(&human_size(current));
    text.push('/');
    text.push_str(&human_size(total));
    text
}

/// A size in powers of 1000 with four significant digits: `1.234MB`.
#[must_use]
pub fn human_size(bytes: u64) -> String {
    human_size_with_precision(bytes as f64, 4)
}

/// A size in powers of 1000 with as many significant digits as asked for.
#[must_use]
pub fn human_size_with_precision(mut size: f64, precision: usize) -> String {
    const UNITS: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if size < 1000.0 {
            break;
        }
        size /= 1000.0;
        unit = next;
    }
    format!("{}{unit}", significant(size, precision))
}

/// Go's `%.Ng`: that many significant digits, no trailing zeroes.
fn significant(value: f64, digits: usize) -> String {
    let before_point = if value < 1.0 { 1 } else { value.log10().floor() as usize + 1 };
    let text = format!("{value:.*}", digits.saturating_sub(before_point));
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_capture() {
        let line = |m: JsonMessage| String::from_utf8(m.to_line().to_vec()).unwrap();
        assert_eq!(
            line(JsonMessage::status("1", "Pulling from lay")),
            "{\"status\":\"Pulling from lay\",\"id\":\"1\"}\r\n"
        );
        assert_eq!(
            line(JsonMessage::state("0dcc68f6b88d", "Pulling fs layer")),
            "{\"status\":\"Pulling fs layer\",\"progressDetail\":{},\"id\":\"0dcc68f6b88d\"}\r\n"
        );
        let text = line(JsonMessage::progress("0dcc68f6b88d", "Downloading", 131_072, 10_489_230));
        assert!(
            text.contains("\"progressDetail\":{\"current\":131072,\"total\":10489230}"),
            "{text}"
        );
        assert!(text.contains(">   "), "{text}");
        assert!(text.contains("]  131.1kB/10.49MB\""), "{text}");
        assert_eq!(
            line(JsonMessage::error(0, "no such tag")),
            "{\"errorDetail\":{\"message\":\"no such tag\"},\"error\":\"no such tag\"}\r\n"
        );
    }

    #[test]
    fn sizes_have_four_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (131_072, "131.1kB"),
            (10_489_230, "10.49MB"),
            (4_261_574, "4.262MB"),
            (1_234_567_890_123, "1.235TB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn the_bar_is_fifty_wide_at_any_point() {
        assert_eq!(bar(0, 0), "");
        assert_eq!(bar(7, 0), "7B");
        assert!(bar(1, 100).starts_with(&format!("[>{}]", " ".repeat(49))));
        assert!(bar(50, 100).starts_with(&format!("[{}>{}]", "=".repeat(25), " ".repeat(24))));
        assert!(bar(100, 100).starts_with(&format!("[{}>]", "=".repeat(50))));
    }
}
