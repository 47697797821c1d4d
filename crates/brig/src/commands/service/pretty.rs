//! `service inspect --pretty`.

use brig_api::swarm::{ContainerSpec, Service, UpdateConfig};

use super::ls::mode;
use crate::output::human::{binary_size, since};
use crate::parse::duration;

/// The service as a list of facts.
pub(super) fn pretty(service: &Service) -> String {
    let mut page = Page::default();
    let spec = &service.spec;
    page.fact(0, "ID", &service.id);
    page.fact(0, "Name", &spec.name);
    page.map(0, "Labels", &spec.labels);
    page.fact(0, "Service Mode", &crate::output::human::capitalized(mode(service)));
    if let Some(replicated) = &spec.mode.replicated {
        page.fact(1, "Replicas", &replicated.replicas.unwrap_or(1).to_string());
    }
    if let Some(job) = &spec.mode.replicated_job {
        page.fact(1, "Max Concurrent", &job.max_concurrent.unwrap_or_default().to_string());
        page.fact(1, "Total Completions", &job.total_completions.unwrap_or_default().to_string());
    }
    if let Some(update) = service.update_status.as_ref().filter(|update| !update.state.is_empty()) {
        let now = brig_api::time::now();
        page.head("UpdateStatus");
        page.fact(1, "State", &update.state);
        page.fact(
            1,
            "Started",
            &update.started_at.as_deref().map(|at| since(at, now)).unwrap_or_default(),
        );
        page.fact(
            1,
            "Completed",
            &update.completed_at.as_deref().map(|at| since(at, now)).unwrap_or_default(),
        );
        page.fact(1, "Message", &update.message);
    }
    if let Some(placement) = &spec.task_template.placement
        && (!placement.constraints.is_empty()
            || !placement.preferences.is_empty()
            || placement.max_replicas > 0)
    {
        page.head("Placement");
        page.fact(1, "Constraints", &format!("[{}]", placement.constraints.join(" ")));
        let spreads = placement.preferences.iter().filter_map(|p| p.spread.as_ref());
        let spreads: Vec<&str> = spreads.map(|spread| spread.spread_descriptor.as_str()).collect();
        page.fact(1, "Preferences", &spreads.join(", "));
        if placement.max_replicas > 0 {
            page.fact(1, "Max Replicas Per Node", &placement.max_replicas.to_string());
        }
    }
    if let Some(config) = &spec.update_config {
        rollout(&mut page, "UpdateConfig", "update", config);
    }
    if let Some(config) = &spec.rollback_config {
        rollout(&mut page, "RollbackConfig", "rollback", config);
    }
    if let Some(container) = &spec.task_template.container_spec {
        container_facts(&mut page, container);
    }
    if let Some(resources) = &spec.task_template.resources {
        let cpus =
            |nanos: i64| if nanos == 0 { String::new() } else { (nanos as f64 / 1e9).to_string() };
        let bytes = |n: i64| if n == 0 { String::new() } else { binary_size(n) };
        let before = page.text.len();
        page.head("Resources");
        let head = page.text.len();
        if let Some(reserved) = &resources.reservations {
            page.fact(1, "Reservations CPU", &cpus(reserved.nano_cpus));
            page.fact(1, "Reservations Memory", &bytes(reserved.memory_bytes));
        }
        if let Some(limits) = &resources.limits {
            page.fact(1, "Limits CPU", &cpus(limits.nano_cpus));
            page.fact(1, "Limits Memory", &bytes(limits.memory_bytes));
            page.fact(
                1,
                "Limits PIDs",
                &if limits.pids == 0 { String::new() } else { limits.pids.to_string() },
            );
        }
        if page.text.len() == head {
            page.text.truncate(before);
        }
    }
    let networks: Vec<&str> =
        spec.task_template.networks.iter().map(|network| network.target.as_str()).collect();
    page.fact(0, "Networks", &networks.join(" "));
    page.fact(0, "Endpoint Mode", &service.endpoint.spec.mode);
    if !service.endpoint.ports.is_empty() {
        page.head("Ports");
        for port in &service.endpoint.ports {
            page.fact(1, "PublishedPort", &port.published_port.to_string());
            page.fact(2, "Protocol", &port.protocol);
            page.fact(2, "TargetPort", &port.target_port.to_string());
            page.fact(2, "PublishMode", &port.publish_mode);
        }
    }
    page.text
}

fn rollout(page: &mut Page, head: &str, word: &str, config: &UpdateConfig) {
    page.head(head);
    page.fact(1, "Parallelism", &config.parallelism.to_string());
    if config.delay != 0 {
        page.fact(1, "Delay", &duration::format(config.delay));
    }
    page.fact(1, "On failure", &config.failure_action);
    if config.monitor != 0 {
        page.fact(1, "Monitoring Period", &duration::format(config.monitor));
    }
    page.fact(1, "Max failure ratio", &config.max_failure_ratio.to_string());
    page.fact(1, &format!("{} order", crate::output::human::capitalized(word)), &config.order);
}

fn container_facts(page: &mut Page, container: &ContainerSpec) {
    page.head("ContainerSpec");
    page.fact(1, "Image", &container.image);
    page.fact(1, "Command", &container.command.join(" "));
    page.fact(1, "Args", &container.args.join(" "));
    page.fact(1, "Env", &container.env.join(" "));
    page.fact(1, "Dir", &container.dir);
    page.fact(1, "User", &container.user);
    page.fact(1, "Init", &container.init.map(|init| init.to_string()).unwrap_or_default());
    if !container.mounts.is_empty() {
        page.head("Mounts");
        for mount in &container.mounts {
            page.fact(1, "Target", &mount.target);
            page.fact(2, "Source", &mount.source);
            page.fact(2, "ReadOnly", &mount.read_only.to_string());
            page.fact(2, "Type", &mount.kind);
        }
    }
    let files = |kind: &str, page: &mut Page, files: Vec<(&str, &str)>| {
        if files.is_empty() {
            return;
        }
        page.head(kind);
        for (target, name) in files {
            page.fact(1, "Target", target);
            page.fact(2, "Source", name);
        }
    };
    let target = |file: &'_ Option<brig_api::swarm::FileTarget>| {
        file.as_ref().map(|f| f.name.clone()).unwrap_or_default()
    };
    let secrets: Vec<(String, &str)> =
        container.secrets.iter().map(|s| (target(&s.file), s.secret_name.as_str())).collect();
    files("Secrets", page, secrets.iter().map(|(t, n)| (t.as_str(), *n)).collect());
    let configs: Vec<(String, &str)> =
        container.configs.iter().map(|c| (target(&c.file), c.config_name.as_str())).collect();
    files("Configs", page, configs.iter().map(|(t, n)| (t.as_str(), *n)).collect());
}

/// Lines of facts; empty ones are left out.
#[derive(Debug, Default)]
struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, label: &str) {
        self.text.push_str(&format!("{label}:\n"));
    }

    fn fact(&mut self, depth: usize, label: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        let label = format!("{}{label}:", " ".repeat(depth));
        self.text
            .push_str(&format!("{label:<16}{}{value}\n", if label.len() < 16 { "" } else { " " }));
    }

    fn map(&mut self, depth: usize, label: &str, map: &brig_types::Labels) {
        if map.is_empty() {
            return;
        }
        self.head(label);
        for (key, value) in map {
            self.text.push_str(&format!("{} {key}={value}\n", " ".repeat(depth)));
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_service_is_told_in_lines() {
        let service = serde_json::from_value(serde_json::json!({
            "ID": "s1", "Spec": {"Name": "web", "Labels": {"a": "b"}, "Mode": {"Replicated": {"Replicas": 2}},
                "TaskTemplate": {"ContainerSpec": {"Image": "x:1", "Secrets": [{"File": {"Name": "t"}, "SecretName": "sec"}]},
                    "Resources": {"Limits": {"NanoCPUs": 500_000_000}}},
                "UpdateConfig": {"Parallelism": 1, "Monitor": 5_000_000_000_i64, "Order": "stop-first"}}}))
        .unwrap();
        let text = super::pretty(&service);
        for line in [
            "ID:             s1\n",
            "Service Mode:   Replicated\n Replicas:      2\n",
            " Monitoring Period: 5s\n",
            " Image:         x:1\n",
            "Secrets:\n Target:        t\n  Source:       sec\n",
            " Limits CPU:    0.5\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
