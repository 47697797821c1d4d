//! Listing containers, with docker's filters.

use std::collections::BTreeMap;
use std::sync::Arc;

use brig_api::container::{ContainerSummary, HostConfigSummary, NetworkSettingsSummary};
use brig_api::filters::{Filters, InvalidFilter};
use brig_types::digest::Digest;
use regex::{Regex, RegexBuilder};
use time::OffsetDateTime;

use super::Container;
use super::record::Record;
use super::state::Status;
use super::{ports, status_text};
use crate::engine::Engine;
use crate::error::EngineError;

const KNOWN_FILTERS: [&str; 16] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "label!",
];

/// Largest automaton that a pattern may become, in bytes.
const MAX_COMPILED_PATTERN: usize = 1 << 20;

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Those that don't run too.
    pub all: bool,
    /// At most so many, the newest; 0: all. Includes those that don't run.
    pub limit: usize,
    /// With sizes on disk.
    pub size: bool,
    /// Docker's filters.
    pub filters: Filters,
}

struct Entry {
    container: Arc<Container>,
    record: Record,
    health: Option<String>,
}

impl Engine {
    /// Lists containers, newest first.
    ///
    /// # Errors
    /// Unknown filters or values; unknown containers in `before` and `since`.
    pub async fn list(&self, options: ListOptions) -> Result<Vec<ContainerSummary>, EngineError> {
        let entries = self.select(&options)?;
        let now = OffsetDateTime::now_utc();
        let mut images = BTreeMap::new();
        let mut list = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut summary = self.summary(&entry, now, &mut images);
            if options.size {
                let (rw, root) = self.sizes(&entry.container).await?;
                summary.size_rw = Some(rw);
                summary.size_root_fs = Some(root);
            }
            list.push(summary);
        }
        Ok(list)
    }

    fn select(&self, options: &ListOptions) -> Result<Vec<Entry>, EngineError> {
        let filters = &options.filters;
        let invalid = |error: InvalidFilter| EngineError::Invalid(error.to_string());
        filters.check_keys(&KNOWN_FILTERS).map_err(invalid)?;
        filters.check_values("status", &Status::ALL.map(Status::as_str)).map_err(invalid)?;
        filters
            .check_values("health", &["starting", "healthy", "unhealthy", "none"])
            .map_err(invalid)?;
        let is_task = filters.boolean("is-task").map_err(invalid)?;
        let exited = filters
            .get("exited")
            .map(|value| {
                value
                    .parse::<i32>()
                    .map_err(|_| EngineError::Invalid(format!("Invalid filter 'exited={value}'")))
            })
            .collect::<Result<Vec<i32>, _>>()?;
        // The newest `before` and the oldest `since` of several decide nothing else than docker's.
        let bound = |key: &str| -> Result<Option<OffsetDateTime>, EngineError> {
            let mut created = None;
            for name in filters.get(key) {
                created = Some(self.registry().find(name)?.record().created);
            }
            Ok(created)
        };
        let (before, since) = (bound("before")?, bound("since")?);
        let ancestors: Vec<Digest> = filters
            .get("ancestor")
            .filter_map(|name| self.images().resolve(name).ok())
            .map(|image| image.id.clone())
            .collect();
        let ports_wanted = |key: &str| {
            filters
                .get(key)
                .map(ports::parse_ports)
                .collect::<Result<Vec<_>, _>>()
                .map(|lists| lists.into_iter().flatten().collect::<Vec<_>>())
        };
        let (published, exposed) = (ports_wanted("publish")?, ports_wanted("expose")?);
        let (ids, names) = (Patterns::of(filters, "id"), Patterns::of(filters, "name"));
        let stopped_too = options.all || options.limit > 0 || filters.contains("status");

        let mut entries: Vec<Entry> = self
            .registry()
            .all()
            .into_iter()
            .map(|container| {
                let cell = container.cell();
                let health = cell.health.as_ref().map(|health| health.status().to_owned());
                let record = cell.record.clone();
                drop(cell);
                Entry { container, record, health }
            })
            .filter(|entry| {
                let record = &entry.record;
                let state = &record.state;
                let name = record.name.as_str();
                let labels = &record.config.labels;
                (stopped_too || state.status.is_up())
                    && ids.as_ref().is_none_or(|ids| ids.matches(record.id.as_str()))
                    && name_matches(names.as_ref(), name)
                    && filters.matches_labels("label", labels)
                    && filters.matches_no_label("label!", labels)
                    && filters.matches_exactly("status", state.status.as_str())
                    && filters.matches_exactly("health", entry.health.as_deref().unwrap_or("none"))
                    && (exited.is_empty()
                        || (state.status == Status::Exited && exited.contains(&state.exit_code)))
                    && (!filters.contains("ancestor")
                        || ancestors.contains(&record.image_id)
                        || filters.get("ancestor").any(|wanted| wanted == record.config.image))
                    && before.is_none_or(|before| record.created < before)
                    && since.is_none_or(|since| record.created > since)
                    && is_task.is_none_or(|wanted| {
                        labels.contains_key("com.docker.swarm.task.id") == wanted
                    })
                    && volume_matches(filters, record)
                    && network_matches(filters, record)
                    && (published.is_empty() || has_port(record, &published, true))
                    && (exposed.is_empty() || has_port(record, &exposed, false))
            })
            .collect();
        entries.sort_by(|a, b| {
            b.record.created.cmp(&a.record.created).then_with(|| b.record.id.cmp(&a.record.id))
        });
        if options.limit > 0 {
            entries.truncate(options.limit);
        }
        Ok(entries)
    }

    fn summary(
        &self,
        entry: &Entry,
        now: OffsetDateTime,
        images: &mut BTreeMap<String, Option<Digest>>,
    ) -> ContainerSummary {
        let record = &entry.record;
        let name = &record.config.image;
        let current = images
            .entry(name.clone())
            .or_insert_with(|| self.images().resolve(name).ok().map(|image| image.id.clone()));
        // A name that went to another image since does not name this one.
        let image = if current.as_ref() == Some(&record.image_id) {
            name.clone()
        } else {
            record.image_id.to_string()
        };
        ContainerSummary {
            id: record.id.to_string(),
            names: vec![format!("/{}", record.name)],
            image,
            image_id: record.image_id.to_string(),
            command: command_text(&record.command()),
            created: record.created.unix_timestamp(),
            ports: ports::summaries(&record.ports),
            labels: record.config.labels.clone(),
            state: record.state.status.as_str().to_owned(),
            status: status_text::status_text(&record.state, entry.health.as_deref(), now),
            host_config: HostConfigSummary {
                network_mode: record.host_config.network_mode.clone(),
                annotations: record.host_config.annotations.clone(),
            },
            network_settings: NetworkSettingsSummary { networks: record.networks.clone() },
            mounts: record.mounts.iter().map(super::record::MountRecord::point).collect(),
            ..ContainerSummary::default()
        }
    }
}

/// The command as listings print it: words with spaces in quotes.
fn command_text(words: &[String]) -> String {
    let quoted = words.iter().enumerate().map(|(index, word)| {
        if index > 0 && word.contains(' ') { format!("'{word}'") } else { word.clone() }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Docker's filters by name and id: regular expressions that match anywhere in the text.
struct Patterns {
    exact: Vec<String>,
    compiled: Vec<Regex>,
}

impl Patterns {
    /// The patterns of a filter; `None` without one. What is no regular expression matches only
    /// itself, as with docker.
    fn of(filters: &Filters, key: &str) -> Option<Self> {
        let exact: Vec<String> = filters.get(key).map(str::to_owned).collect();
        if exact.is_empty() {
            return None;
        }
        let compile =
            |text: &String| RegexBuilder::new(text).size_limit(MAX_COMPILED_PATTERN).build().ok();
        let compiled = exact.iter().filter_map(compile).collect();
        Some(Self { exact, compiled })
    }

    fn matches(&self, text: &str) -> bool {
        self.exact.iter().any(|exact| exact == text)
            || self.compiled.iter().any(|pattern| pattern.is_match(text))
    }
}

/// Names are matched with and without docker's leading slash.
fn name_matches(patterns: Option<&Patterns>, name: &str) -> bool {
    patterns.is_none_or(|patterns| patterns.matches(name) || patterns.matches(&format!("/{name}")))
}

fn volume_matches(filters: &Filters, record: &Record) -> bool {
    !filters.contains("volume")
        || filters.get("volume").any(|wanted| {
            record.mounts.iter().any(|mount| {
                mount.destination == wanted || mount.name == wanted || mount.source == wanted
            })
        })
}

fn network_matches(filters: &Filters, record: &Record) -> bool {
    !filters.contains("network")
        || filters.get("network").any(|wanted| {
            record.networks.iter().any(|(name, endpoint)| {
                name == wanted
                    || (!endpoint.network_id.is_empty() && endpoint.network_id.starts_with(wanted))
            })
        })
}

fn has_port(record: &Record, wanted: &[ports::ContainerPort], published: bool) -> bool {
    let map = if record.ports.is_empty() && !published {
        ports::exposed(&record.config, &record.host_config)
            .map(|set| ports::port_map(&set, &[]))
            .unwrap_or_default()
    } else {
        record.ports.clone()
    };
    ports::summaries(&map).iter().any(|port| {
        wanted.iter().any(|want| {
            let number = if published { port.public_port } else { port.private_port };
            number == want.number && port.kind == want.protocol.as_str()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_quoted() {
        let words = ["sh", "-c", "echo hi"].map(str::to_owned);
        assert_eq!(command_text(&words), "sh -c 'echo hi'");
    }

    #[test]
    fn name_filters() {
        for (pattern, expected) in [
            ("eb", true),
            ("^web", true),
            ("^/web-1$", true),
            ("/eb", false),
            ("/web", true),
            ("web$", false),
            ("b-1$", true),
            ("w.b-[0-9]+", true),
            ("^(api|web)", true),
            ("(", false),
        ] {
            let filters = Filters::new().with("name", pattern);
            let patterns = Patterns::of(&filters, "name");
            assert_eq!(name_matches(patterns.as_ref(), "web-1"), expected, "{pattern}");
        }
        assert!(name_matches(None, "x"));
        // Too large to be compiled: never matches, and takes no time.
        let filters = Filters::new().with("name", r"(\w{1000}){1000}");
        assert!(!name_matches(Patterns::of(&filters, "name").as_ref(), "web-1"));
    }

    #[test]
    fn port_filters() {
        let mut record = crate::container::record::tests::sample();
        record.config.exposed_ports.insert("80/tcp".to_owned(), brig_api::Empty {});
        let wanted = ports::parse_ports("80").unwrap();
        assert!(has_port(&record, &wanted, false));
        assert!(!has_port(&record, &wanted, true));
    }
}
