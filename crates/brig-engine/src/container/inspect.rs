//! Everything about one container, in docker's shape.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use brig_api::container::{
    ContainerInspect, ContainerState, GraphDriver, HostConfig, MountPoint, NetworkSettings,
};
use brig_api::time::{rfc3339nano, zero};
use time::OffsetDateTime;

use super::record::Record;
use super::state::Status;
use super::{Container, spec};
use crate::engine::Engine;
use crate::error::EngineError;

impl Engine {
    /// Inspects a container, with its sizes on disk if `size`.
    ///
    /// # Errors
    /// Unknown container; disk.
    pub async fn inspect(&self, key: &str, size: bool) -> Result<ContainerInspect, EngineError> {
        let container = self.registry().find(key)?;
        let mut answer = self.inspect_container(&container);
        if size {
            let (rw, root) = self.sizes(&container).await?;
            answer.size_rw = Some(rw);
            answer.size_root_fs = Some(root);
        }
        Ok(answer)
    }

    fn inspect_container(&self, container: &Container) -> ContainerInspect {
        let (record, health, execs) = {
            let cell = container.cell();
            let execs: Vec<String> = cell.execs.iter().map(ToString::to_string).collect();
            let last = cell.record.last_health.clone();
            let health = cell.health.as_ref().map(|health| health.report()).or(last);
            (cell.record.clone(), health, execs)
        };
        let command = record.command();
        let (path, args) = match command.split_first() {
            Some((path, args)) => (path.clone(), args.to_vec()),
            None => (String::new(), Vec::new()),
        };
        let text = |path: std::path::PathBuf| path.display().to_string();
        let paths = &container.paths;
        ContainerInspect {
            id: record.id.to_string(),
            created: rfc3339nano(record.created),
            path,
            args,
            state: ContainerState { health, ..state(&record) },
            image: record.image_id.to_string(),
            resolv_conf_path: text(paths.resolv_conf()),
            hostname_path: text(paths.hostname()),
            hosts_path: text(paths.hosts()),
            log_path: text(paths.log()),
            name: format!("/{}", record.name),
            restart_count: record.restart_count,
            driver: "overlay2".to_owned(),
            app_armor_profile: self.apparmor_profile(&record),
            platform: "linux".to_owned(),
            exec_ids: execs,
            graph_driver: self.graph_driver(container),
            mounts: mounts(&record),
            network_settings: network_settings(&record),
            config: record.config,
            host_config: record.host_config,
            ..ContainerInspect::default()
        }
    }

    /// The AppArmor profile that the container has, or would have if it were started.
    fn apparmor_profile(&self, record: &Record) -> String {
        let host = &record.host_config;
        // Checked when the container was created.
        let asked = spec::Security::parse(&host.security_opt).ok().and_then(|s| s.apparmor);
        let apparmor = self.runtime().facts().apparmor;
        apparmor.profile_for(asked.as_deref(), host.privileged).unwrap_or_default()
    }

    fn graph_driver(&self, container: &Container) -> GraphDriver {
        let snapshots = self.snapshots();
        let text = |path: &Path| path.display().to_string();
        let lower = snapshots.container_layers(&container.id).unwrap_or_default();
        let lower: Vec<String> = lower.iter().map(|path| text(path)).collect();
        GraphDriver {
            data: BTreeMap::from([
                ("LowerDir".to_owned(), lower.join(":")),
                ("MergedDir".to_owned(), text(&container.paths.rootfs)),
                ("UpperDir".to_owned(), text(&snapshots.upper_dir(&container.id))),
                ("WorkDir".to_owned(), text(&snapshots.work_dir(&container.id))),
            ]),
            name: "overlay2".to_owned(),
        }
    }

    /// Bytes that the container wrote, and those with its image.
    pub(crate) async fn sizes(
        &self,
        container: &Arc<Container>,
    ) -> Result<(i64, i64), EngineError> {
        let upper = self.snapshots().upper_dir(&container.id);
        let image = self.snapshots().lower_size(&container.id).unwrap_or(0);
        let own = self.blocking(move || Ok(tree_size(&upper, 0))).await?;
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Ok((signed(own), signed(own.saturating_add(image))))
    }
}

/// Bytes of the files below `dir`. What cannot be read, or goes away meanwhile, counts nothing.
fn tree_size(dir: &Path, depth: usize) -> u64 {
    const MAX_DEPTH: usize = 256;
    let Ok(items) = std::fs::read_dir(dir) else { return 0 };
    items
        .flatten()
        .map(|item| match item.metadata() {
            Ok(meta) if meta.is_dir() && depth < MAX_DEPTH => tree_size(&item.path(), depth + 1),
            Ok(meta) if meta.is_file() || meta.is_symlink() => meta.len(),
            _ => 0,
        })
        .sum()
}

fn state(record: &Record) -> ContainerState {
    let state = &record.state;
    let time = |at: Option<OffsetDateTime>| at.map_or_else(zero, rfc3339nano);
    ContainerState {
        status: state.status.as_str().to_owned(),
        running: state.status.is_up(),
        paused: state.status == Status::Paused,
        restarting: state.status == Status::Restarting,
        oom_killed: state.oom_killed,
        dead: state.status == Status::Dead,
        pid: state.process.map_or(0, |process| i64::from(process.pid)),
        exit_code: i64::from(state.exit_code),
        error: state.error.clone(),
        started_at: time(state.started_at),
        finished_at: time(state.finished_at),
        health: None,
    }
}

/// Mounts of the list; memory file systems of `--tmpfs` are in the host configuration only.
fn mounts(record: &Record) -> Vec<MountPoint> {
    let in_host_config =
        |host: &HostConfig, destination: &str| host.tmpfs.keys().any(|key| key == destination);
    record
        .mounts
        .iter()
        .filter(|mount| !in_host_config(&record.host_config, &mount.destination))
        .map(super::record::MountRecord::point)
        .collect()
}

fn network_settings(record: &Record) -> NetworkSettings {
    let running = record.state.status.has_process();
    let mut settings = NetworkSettings {
        ports: record.ports.clone(),
        networks: record.networks.clone(),
        ..NetworkSettings::default()
    };
    if running && record.host_config.network_mode != "host" {
        settings.sandbox_id = record.id.to_string();
        if let Some(process) = record.state.process {
            settings.sandbox_key = format!("/proc/{}/ns/net", process.pid);
        }
    }
    // The old fields speak of the default bridge only.
    if let Some(endpoint) = record.networks.get("bridge") {
        settings.endpoint_id.clone_from(&endpoint.endpoint_id);
        settings.gateway.clone_from(&endpoint.gateway);
        settings.ip_address.clone_from(&endpoint.ip_address);
        settings.ip_prefix_len = endpoint.ip_prefix_len;
        settings.mac_address.clone_from(&endpoint.mac_address);
        settings.ipv6_gateway.clone_from(&endpoint.ipv6_gateway);
        settings.global_ipv6_address.clone_from(&endpoint.global_ipv6_address);
        settings.global_ipv6_prefix_len = endpoint.global_ipv6_prefix_len;
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::tests::sample;

    #[test]
    fn state_fields() {
        let mut record = sample();
        assert_eq!(state(&record).started_at, "0001-01-01T00:00:00Z");
        record.state.status = Status::Paused;
        let paused = state(&record);
        assert!(paused.running && paused.paused && !paused.restarting);
        assert_eq!(paused.status, "paused");
    }

    #[test]
    fn the_old_network_fields_are_the_default_bridges() {
        let mut record = sample();
        let endpoint = brig_api::container::EndpointSettings {
            ip_address: "172.17.0.2".into(),
            ip_prefix_len: 16,
            ..Default::default()
        };
        record.networks.insert("bridge".into(), endpoint);
        assert_eq!(network_settings(&record).ip_address, "172.17.0.2");
    }
}
