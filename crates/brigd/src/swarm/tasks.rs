//! `/tasks`.

use brig_api::filters::Filters;
use brig_proto::swarm::Task;
use brig_swarm::{Control, ControlError};

use super::{Answer, convert, local};
use crate::access::{Action, mask, object};
use crate::executor::container_name;
use crate::server::{ApiError, Call, body};

const FILTERS: [&str; 8] =
    ["_up-to-date", "desired-state", "id", "label", "name", "node", "runtime", "service"];

/// `GET /tasks`.
pub(super) async fn list(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.check_keys(&FILTERS)?;
    let up_to_date = filters.boolean("_up-to-date")?.unwrap_or(false);
    let control = local::control(&call.state)?;
    let selection = Selection::new(&control, filters)?;
    let shown: Vec<_> = control
        .tasks()
        .iter()
        .filter(|task| selection.matches(task) && (!up_to_date || control.is_up_to_date(task)))
        .map(|task| (object::task(task, &control), task))
        .filter(|(object, _)| call.authorized.may(Action::TaskInspect, object))
        .map(|(object, task)| mask::task(&call.authorized, &object, convert::task::json(task)))
        .collect();
    body::ok(&shown)
}

/// `GET /tasks/{id}`.
pub(super) async fn inspect(call: Call) -> Answer {
    let control = local::control(&call.state)?;
    let task = control.task(call.param("id"))?;
    let object = object::task(&task, &control);
    body::ok(&mask::task(&call.authorized, &object, convert::task::json(&task)))
}

/// Filters whose names have become ids.
struct Selection {
    filters: Filters,
    services: Option<Vec<String>>,
    nodes: Option<Vec<String>>,
    desired: Option<Vec<i32>>,
}

impl Selection {
    fn new(control: &Control, filters: Filters) -> Result<Self, ApiError> {
        let ids = |key: &str, find: &dyn Fn(&str) -> Result<String, ControlError>| {
            let wanted = filters.contains(key);
            wanted.then(|| filters.get(key).map(find).collect::<Result<Vec<_>, _>>()).transpose()
        };
        let services = ids("service", &|name| control.service(name).map(|s| s.id.clone()))?;
        let nodes = ids("node", &|name| control.node(name).map(|n| n.id.clone()))?;
        Ok(Self { desired: desired(&filters)?, services, nodes, filters })
    }

    fn matches(&self, task: &Task) -> bool {
        let one_of = |ids: &Option<Vec<String>>, id: &str| {
            ids.as_ref().is_none_or(|ids| ids.iter().any(|i| i == id))
        };
        let (_, labels) = convert::name_and_labels(task.service_annotations.as_ref());
        one_of(&self.services, &task.service_id)
            && one_of(&self.nodes, &task.node_id)
            && self.desired.as_ref().is_none_or(|states| states.contains(&task.desired_state))
            && self.filters.matches_prefix("id", &task.id)
            && self.filters.matches_prefix("name", &container_name(task))
            && self.filters.matches_labels("label", &labels)
            && self
                .filters
                .matches_exactly("runtime", convert::template::runtime_word(task.spec.as_ref()))
    }
}

fn desired(filters: &Filters) -> Result<Option<Vec<i32>>, ApiError> {
    let states = filters
        .get("desired-state")
        .map(|word| {
            convert::task::parse_state(word)
                .map(i32::from)
                .ok_or_else(|| ApiError::invalid(format!("Invalid filter 'desired-state={word}'")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok((!states.is_empty()).then_some(states))
}

#[cfg(test)]
mod tests {
    use brig_proto::swarm::{Annotations, TaskState};

    use super::*;

    fn selection(filters: Filters) -> Selection {
        Selection {
            desired: desired(&filters).unwrap(),
            services: Some(vec!["sid".into()]),
            nodes: None,
            filters,
        }
    }

    #[test]
    fn filters() {
        let task = Task {
            id: "tid".into(),
            service_id: "sid".into(),
            slot: 1,
            desired_state: TaskState::Running.into(),
            service_annotations: Some(Annotations {
                name: "web".into(),
                labels: [("a".to_owned(), "b".to_owned())].into(),
                ..Annotations::default()
            }),
            ..Task::default()
        };
        for (key, value, expected) in [
            ("id", "t", true),
            ("name", "web.1", true),
            ("name", "web.2", false),
            ("label", "a=b", true),
            ("label", "c", false),
            ("desired-state", "running", true),
            ("desired-state", "shutdown", false),
        ] {
            let selection = selection(Filters::new().with(key, value));
            assert_eq!(selection.matches(&task), expected, "{key}={value}");
        }
        let other = Task { service_id: "other".into(), ..task };
        assert!(!selection(Filters::new()).matches(&other));
        let error = desired(&Filters::new().with("desired-state", "asleep")).unwrap_err();
        assert_eq!(error.message(), "Invalid filter 'desired-state=asleep'");
    }
}
