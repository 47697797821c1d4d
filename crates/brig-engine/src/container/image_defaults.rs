//! What an image says about its containers, and how a request's own settings go over it.

use std::collections::BTreeMap;

use brig_api::container::{ContainerConfig, HealthConfig};
use serde::Deserialize;

use crate::error::EngineError;

/// The search path of processes whose image sets none.
pub(crate) const DEFAULT_PATH: &str =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The `config` object of an image's configuration, which has the fields of a container's.
///
/// Source: OCI image specification, "OCI Image Configuration", and docker's additions to it
/// (`Healthcheck`, `Shell`, `OnBuild`).
pub(crate) fn parse(raw: &[u8]) -> Result<ContainerConfig, EngineError> {
    #[derive(Deserialize)]
    struct Image {
        #[serde(default)]
        config: Option<ContainerConfig>,
    }
    let image: Image = serde_json::from_slice(raw).map_err(|source| EngineError::System {
        action: "read the image's configuration",
        source: source.into(),
    })?;
    Ok(image.config.unwrap_or_default())
}

/// Fills what the request leaves open with the image's values, by docker's rules.
pub(crate) fn merge(config: &mut ContainerConfig, image: ContainerConfig) {
    if config.user.is_empty() {
        config.user = image.user;
    }
    for (port, value) in image.exposed_ports {
        config.exposed_ports.entry(port).or_insert(value);
    }
    let own: Vec<String> = config.env.iter().map(|line| key(line).to_owned()).collect();
    let inherited = image.env.into_iter().filter(|line| !own.iter().any(|k| k == key(line)));
    config.env.extend(inherited);
    for (name, value) in image.labels {
        // SECURITY: whoever made the image has no say in what its containers are lent.
        if name == brig_api::engine_access::LABEL {
            continue;
        }
        config.labels.entry(name).or_insert(value);
    }
    // An own entry point drops the image's command, which was written for another program.
    if config.entrypoint.is_empty() {
        if config.cmd.is_empty() {
            config.cmd = image.cmd;
            config.args_escaped = image.args_escaped;
        }
        config.entrypoint = image.entrypoint;
    }
    match (&mut config.healthcheck, image.healthcheck) {
        (Some(own), Some(image)) => merge_health(own, image),
        (own @ None, image) => *own = image,
        (Some(_), None) => {}
    }
    if config.working_dir.is_empty() {
        config.working_dir = image.working_dir;
    }
    for (path, value) in image.volumes {
        config.volumes.entry(path).or_insert(value);
    }
    if config.stop_signal.is_empty() {
        config.stop_signal = image.stop_signal;
    }
    if config.shell.is_empty() {
        config.shell = image.shell;
    }
}

fn merge_health(own: &mut HealthConfig, image: HealthConfig) {
    if own.test.is_empty() {
        own.test = image.test;
    }
    for (own, image) in [
        (&mut own.interval, image.interval),
        (&mut own.timeout, image.timeout),
        (&mut own.start_period, image.start_period),
        (&mut own.start_interval, image.start_interval),
        (&mut own.retries, image.retries),
    ] {
        if *own == 0 {
            *own = image;
        }
    }
}

fn key(line: &str) -> &str {
    line.split_once('=').map_or(line, |(key, _)| key)
}

/// The environment of a container's process: path, host name and terminal first, then the
/// configured lines, later ones over earlier ones, lines without `=` taken away.
pub(crate) fn environment(config: &ContainerConfig, hostname: &str) -> Vec<String> {
    let mut lines = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if config.tty {
        lines.push("TERM=xterm".to_owned());
    }
    overlay_env(lines, &config.env)
}

/// Puts `over` over `base`: same keys are replaced in place, a bare key removes.
pub(crate) fn overlay_env(base: Vec<String>, over: &[String]) -> Vec<String> {
    let mut position = BTreeMap::new();
    let mut lines: Vec<Option<String>> = Vec::with_capacity(base.len() + over.len());
    for line in base.into_iter().chain(over.iter().cloned()) {
        let name = key(&line).to_owned();
        let value = line.contains('=').then_some(line);
        match position.get(&name).and_then(|index: &usize| lines.get_mut(*index)) {
            Some(slot) => *slot = value,
            None => {
                position.insert(name, lines.len());
                lines.push(value);
            }
        }
    }
    lines.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn image() -> ContainerConfig {
        parse(
            br#"{"architecture":"amd64","config":{"Env":["PATH=/bin","A=1"],"Cmd":["serve"],
            "Entrypoint":["/app"],"WorkingDir":"/srv","User":"www","Labels":{"l":"i","m":"i"},
            "ExposedPorts":{"80/tcp":{}},"Volumes":{"/data":{}},"StopSignal":"SIGINT",
            "Healthcheck":{"Test":["CMD","ok"],"Interval":5,"Retries":2}}}"#,
        )
        .unwrap()
    }

    #[test]
    fn the_image_fills_the_gaps() {
        let mut config = ContainerConfig {
            env: strings(&["A=2", "B=3"]),
            labels: [("l".to_owned(), "own".to_owned())].into(),
            healthcheck: Some(HealthConfig { retries: 7, ..HealthConfig::default() }),
            ..ContainerConfig::default()
        };
        merge(&mut config, image());
        assert_eq!(config.env, strings(&["A=2", "B=3", "PATH=/bin"]));
        assert_eq!(config.labels.get("l").unwrap(), "own");
        assert_eq!(config.labels.get("m").unwrap(), "i");
        assert_eq!((config.entrypoint, config.cmd), (strings(&["/app"]), strings(&["serve"])));
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/srv", "www"));
        assert!(config.exposed_ports.contains_key("80/tcp"));
        let health = config.healthcheck.unwrap();
        assert_eq!((health.retries, health.interval), (7, 5));
        assert_eq!(health.test, strings(&["CMD", "ok"]));
    }

    #[test]
    fn an_own_entry_point_drops_the_images_command() {
        let mut config =
            ContainerConfig { entrypoint: strings(&["sh"]), ..ContainerConfig::default() };
        merge(&mut config, image());
        assert_eq!((config.entrypoint, config.cmd), (strings(&["sh"]), Vec::new()));
        let mut config = ContainerConfig { cmd: strings(&["x"]), ..ContainerConfig::default() };
        merge(&mut config, image());
        assert_eq!((config.entrypoint, config.cmd), (strings(&["/app"]), strings(&["x"])));
    }

    #[test]
    fn environment_lines() {
        let config = ContainerConfig {
            tty: true,
            env: strings(&["A=1", "A=2", "TERM=dumb", "HOSTNAME", "X=a=b"]),
            ..ContainerConfig::default()
        };
        assert_eq!(environment(&config, "h"), [DEFAULT_PATH, "TERM=dumb", "A=2", "X=a=b"]);
    }

    #[test]
    fn an_image_without_config() {
        assert_eq!(parse(b"{\"config\":null}").unwrap(), ContainerConfig::default());
        assert!(parse(b"[").is_err());
    }
}
