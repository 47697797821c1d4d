//! Capabilities and `--security-opt`.

use std::collections::BTreeSet;
use std::path::Path;

use brig_api::engine_access::EngineAccess;

use super::env::read_limited;
use crate::error::{Result, message};

/// The largest seccomp profile that is read, in bytes.
const MAX_PROFILE: u64 = 1024 * 1024;

/// `--engine-access`: `ROLE[:service=NAME,stack=NAME,…]`.
pub(crate) fn engine_access(text: &str) -> std::result::Result<EngineAccess, String> {
    EngineAccess::parse(text).map_err(|error| error.to_string())
}

/// `--cap-add` and `--cap-drop`, normalised to `CAP_X`, sorted, adding wins over dropping.
pub(crate) fn capabilities(add: &[String], drop: &[String]) -> (Vec<String>, Vec<String>) {
    let normal = |list: &[String]| -> BTreeSet<String> {
        list.iter()
            .map(|name| {
                let name = name.to_ascii_uppercase();
                if matches!(name.as_str(), "ALL" | "RESET") || name.starts_with("CAP_") {
                    name
                } else {
                    format!("CAP_{name}")
                }
            })
            .collect()
    };
    let (mut add, mut drop) = (normal(add), normal(drop));
    if add.contains("ALL") {
        add = BTreeSet::from(["ALL".to_owned()]);
    }
    if drop.contains("ALL") {
        drop = BTreeSet::from(["ALL".to_owned()]);
    }
    drop.retain(|name| !add.contains(name));
    (add.into_iter().collect(), drop.into_iter().collect())
}

/// `--security-opt` as the API takes it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SecurityOptions {
    pub(crate) options: Vec<String>,
    /// `systempaths=unconfined`: no masked and no read-only paths.
    pub(crate) unconfined_paths: bool,
}

/// Reads `--security-opt`; a seccomp profile is read here and sent inline.
pub(crate) fn options(flags: &[String]) -> Result<SecurityOptions> {
    let mut result = SecurityOptions::default();
    for flag in flags {
        let invalid = || message(format!("Invalid --security-opt: {flag:?}"));
        if flag == "systempaths=unconfined" {
            result.unconfined_paths = true;
            continue;
        }
        let option = match flag.split_once('=') {
            None if flag == "no-new-privileges" => flag.clone(),
            None => match flag.split_once(':') {
                // The form that docker deprecated long ago.
                Some((key, value)) => seccomp_inline(key, value)?.unwrap_or_else(|| flag.clone()),
                None => return Err(invalid()),
            },
            Some((key, value)) => seccomp_inline(key, value)?.unwrap_or_else(|| flag.clone()),
        };
        result.options.push(option);
    }
    Ok(result)
}

fn seccomp_inline(key: &str, value: &str) -> Result<Option<String>> {
    if key != "seccomp" || matches!(value, "unconfined" | "builtin") {
        return Ok(None);
    }
    let text = read_limited(Path::new(value), MAX_PROFILE)?;
    let profile: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|e| message(format!("compacting json for seccomp profile failed: {e}")))?;
    Ok(Some(format!("seccomp={profile}")))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn capabilities_are_normalised_and_adding_wins() {
        let (add, drop) =
            capabilities(&strings(&["net_admin", "CAP_CHOWN"]), &strings(&["ALL", "x"]));
        assert_eq!((add, drop), (strings(&["CAP_CHOWN", "CAP_NET_ADMIN"]), strings(&["ALL"])));
        let (_, drop) = capabilities(&strings(&["chown"]), &strings(&["chown", "kill"]));
        assert_eq!(drop, ["CAP_KILL"]);
    }

    #[test]
    fn profiles_are_sent_inline() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "{{ \"defaultAction\": \"SCMP_ACT_ALLOW\" }}").unwrap();
        let flag = format!("seccomp={}", file.path().display());
        let read =
            options(&[flag, "no-new-privileges".into(), "systempaths=unconfined".into()]).unwrap();
        assert_eq!(
            read.options,
            [r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#, "no-new-privileges"]
        );
        assert!(read.unconfined_paths);
        assert_eq!(
            options(&strings(&["seccomp=unconfined"])).unwrap().options,
            ["seccomp=unconfined"]
        );
        assert!(options(&strings(&["bogus"])).is_err());
        assert!(options(&strings(&["seccomp=/nonexistent"])).is_err());
    }
}
