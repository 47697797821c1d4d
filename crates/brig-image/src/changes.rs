//! Dockerfile directives that change an image's configuration (`docker import --change`,
//! `docker commit --change`).

use crate::config::{Empty, Healthcheck, RunConfig};
use crate::error::ImageError;

const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// Longest directive, in bytes.
const MAX_DIRECTIVE: usize = 64 << 10;
/// Most ports that one `EXPOSE` range may name.
const MAX_PORTS: usize = 65_536;

/// Applies one directive.
///
/// # Errors
/// [`ImageError::Change`] for directives that do not exist, may not change an image, or are
/// malformed.
pub fn apply(config: &mut RunConfig, directive: &str) -> Result<(), ImageError> {
    let directive = directive.trim();
    if directive.len() > MAX_DIRECTIVE {
        return Err(bad("the directive is too long"));
    }
    let (name, rest) =
        directive.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((directive, ""));
    let (name, rest) = (name.to_ascii_uppercase(), rest.trim());
    if rest.is_empty() {
        return Err(bad(format!("{name} requires at least one argument")));
    }
    match name.as_str() {
        "CMD" => config.cmd = Some(command(config, rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(config, rest)),
        "ENV" => {
            for (key, value) in pairs("ENV", rest)? {
                let prefix = format!("{key}=");
                let line = format!("{key}={value}");
                match config.env.iter_mut().find(|known| known.starts_with(&prefix)) {
                    Some(known) => *known = line,
                    None => config.env.push(line),
                }
            }
        }
        "LABEL" => config.labels.extend(pairs("LABEL", rest)?),
        "EXPOSE" => {
            for word in words(rest)? {
                for port in ports(&word)? {
                    config.exposed_ports.insert(port, Empty {});
                }
            }
        }
        "USER" => rest.clone_into(&mut config.user),
        "VOLUME" => {
            let volumes = json_list(rest).map_or_else(|| words(rest), Ok)?;
            if volumes.iter().any(|volume| volume.trim().is_empty()) {
                return Err(bad("VOLUME specified can not be an empty string"));
            }
            config.volumes.extend(volumes.into_iter().map(|volume| (volume, Empty {})));
        }
        "WORKDIR" => config.working_dir = work_dir(&config.working_dir, &single(rest)?),
        "STOPSIGNAL" => {
            brig_types::signal::Signal::parse(rest).map_err(|error| bad(error.to_string()))?;
            rest.clone_into(&mut config.stop_signal);
        }
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        "ONBUILD" => {
            let first = rest.split_ascii_whitespace().next().unwrap_or_default();
            match first.to_ascii_uppercase().as_str() {
                "ONBUILD" => {
                    return Err(bad("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"));
                }
                "FROM" | "MAINTAINER" => {
                    return Err(bad(format!("{first} isn't allowed as an ONBUILD trigger")));
                }
                _ => config.on_build.push(rest.to_owned()),
            }
        }
        _ => return Err(bad(format!("{name} is not a valid change command"))),
    }
    Ok(())
}

fn bad(text: impl Into<String>) -> ImageError {
    ImageError::Change(text.into())
}

/// The exec form, else the shell form.
fn command(config: &RunConfig, rest: &str) -> Vec<String> {
    json_list(rest).unwrap_or_else(|| {
        let mut command = if config.shell.is_empty() {
            DEFAULT_SHELL.map(str::to_owned).to_vec()
        } else {
            config.shell.clone()
        };
        command.push(rest.to_owned());
        command
    })
}

fn json_list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// Words with the shell's quotes and backslashes.
fn words(text: &str) -> Result<Vec<String>, ImageError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                let next = chars.next().ok_or_else(|| bad("backslash at the end"))?;
                word.get_or_insert_default().push(next);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(bad("a quote is not closed"));
    }
    words.extend(word);
    Ok(words)
}

fn single(text: &str) -> Result<String, ImageError> {
    Ok(words(text)?.join(" "))
}

/// `KEY=value …`, or the old form `KEY value`.
fn pairs(directive: &str, rest: &str) -> Result<Vec<(String, String)>, ImageError> {
    let words = words(rest)?;
    let first = words.first().map_or("", String::as_str);
    if !first.contains('=') {
        let (key, value) = rest
            .split_once(|c: char| c.is_ascii_whitespace())
            .ok_or_else(|| bad(format!("{directive} must have two arguments")))?;
        return Ok(vec![(key.to_owned(), single(value.trim())?)]);
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(bad(format!("{directive} names can not be blank"))),
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(bad(format!(
                "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
            ))),
        })
        .collect()
}

/// `80`, `80/udp`, `8000-8010/tcp` as docker's keys.
fn ports(word: &str) -> Result<Vec<String>, ImageError> {
    let invalid = || bad(format!("invalid containerPort: {word}"));
    let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(bad(format!("invalid proto: {protocol}")));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().map_err(|_| invalid());
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(invalid());
    }
    Ok((first..=last).take(MAX_PORTS).map(|port| format!("{port}/{protocol}")).collect())
}

/// Relative directories are below the current one; `.` and `..` are resolved.
fn work_dir(current: &str, next: &str) -> String {
    let joined = if next.starts_with('/') { next.to_owned() } else { format!("{current}/{next}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

fn healthcheck(rest: &str) -> Result<Healthcheck, ImageError> {
    let mut check = Healthcheck::default();
    let mut rest = rest;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag
            .split_once(|c: char| c.is_ascii_whitespace())
            .ok_or_else(|| bad("Missing command after HEALTHCHECK CMD"))?;
        let (name, value) =
            flag.split_once('=').ok_or_else(|| bad(format!("Missing a value on flag: {flag}")))?;
        match name {
            "interval" => check.interval = duration(value)?,
            "timeout" => check.timeout = duration(value)?,
            "start-period" => check.start_period = duration(value)?,
            "start-interval" => check.start_interval = duration(value)?,
            "retries" => {
                check.retries = value
                    .parse::<u32>()
                    .map(i64::from)
                    .map_err(|_| bad(format!("--retries must be a number (not {value})")))?;
            }
            _ => return Err(bad(format!("Unknown flag: {name}"))),
        }
        rest = after.trim_start();
    }
    let (kind, line) = rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, ""));
    check.test = match (kind.to_ascii_uppercase().as_str(), line.trim()) {
        ("NONE", "") => vec!["NONE".to_owned()],
        ("CMD", "") => return Err(bad("Missing command after HEALTHCHECK CMD")),
        ("CMD", line) => match json_list(line) {
            Some(list) => std::iter::once("CMD".to_owned()).chain(list).collect(),
            None => vec!["CMD-SHELL".to_owned(), line.to_owned()],
        },
        _ => return Err(bad(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)"))),
    };
    Ok(check)
}

/// Go's durations (`1m30s`, `500ms`) in nanoseconds.
fn duration(text: &str) -> Result<i64, ImageError> {
    let invalid = || bad(format!("time: invalid duration {text:?}"));
    let mut total = 0.0_f64;
    let mut rest = text;
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(invalid)?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let nanos = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3_600e9,
            _ => return Err(invalid()),
        };
        total += number.parse::<f64>().map_err(|_| invalid())? * nanos;
        rest = next;
    }
    // A hundred years; more than that is a mistake, and fits an i64.
    if !(0.0..=3.2e18).contains(&total) {
        return Err(invalid());
    }
    #[allow(clippy::cast_possible_truncation)] // within the bounds above
    Ok(total.round() as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn applied(directives: &[&str]) -> RunConfig {
        let mut config = RunConfig::default();
        for directive in directives {
            apply(&mut config, directive).unwrap();
        }
        config
    }

    #[test]
    fn directives_change_the_configuration() {
        let config = applied(&[
            r#"CMD ["/bin/sh", "-i"]"#,
            "entrypoint exec /init",
            r#"ENV A=1 B="two words" C=three\ words"#,
            "ENV A 2",
            r#"LABEL a.b="c d" e=f"#,
            "EXPOSE 80 53/udp 9000-9002",
            "USER nobody:nogroup",
            r#"VOLUME ["/data"]"#,
            "VOLUME /x /y",
            "WORKDIR /srv",
            "WORKDIR app/../web",
            "STOPSIGNAL SIGINT",
            "HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f http://localhost",
            "ONBUILD RUN true",
        ]);
        assert_eq!(config.cmd.unwrap(), ["/bin/sh", "-i"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "exec /init"]);
        assert_eq!(config.env, ["A=2", "B=two words", "C=three words"]);
        assert_eq!(config.labels["a.b"], "c d");
        assert_eq!(config.exposed_ports.len(), 5);
        assert!(config.exposed_ports.contains_key("53/udp"));
        assert_eq!(config.user, "nobody:nogroup");
        assert_eq!(config.volumes.len(), 3);
        assert_eq!(config.working_dir, "/srv/web");
        assert_eq!(config.stop_signal, "SIGINT");
        let check = config.healthcheck.unwrap();
        assert_eq!((check.interval, check.retries), (90_000_000_000, 3));
        assert_eq!(check.test, ["CMD-SHELL", "curl -f http://localhost"]);
        assert_eq!(config.on_build, ["RUN true"]);
    }

    #[test]
    fn wrong_directives_are_refused() {
        for directive in [
            "",
            "RUN true",
            "CMD",
            "ENV",
            "ENV A",
            "ENV =1",
            "EXPOSE x",
            "EXPOSE 1/icmp",
            "EXPOSE 9-1",
            "STOPSIGNAL FOO",
            "LABEL a=\"b",
            "HEALTHCHECK CMD",
            "HEALTHCHECK x",
            "HEALTHCHECK --retries=x CMD true",
            "ONBUILD ONBUILD RUN x",
            "ONBUILD FROM a",
        ] {
            assert!(apply(&mut RunConfig::default(), directive).is_err(), "{directive}");
        }
    }

    proptest! {
        #[test]
        fn any_directive_is_answered(directive in "(CMD|ENV|EXPOSE|HEALTHCHECK|VOLUME|WORKDIR) .{0,60}") {
            let _ = apply(&mut RunConfig::default(), &directive);
        }
    }
}
