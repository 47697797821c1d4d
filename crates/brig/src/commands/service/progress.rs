//! Waiting until a service runs as it should, and showing how it gets there.
//!
//! Docker's way: the service, its tasks of the current version and the nodes are asked for every
//! 200 ms. The service has converged when all wanted tasks run, and have run for as long as its
//! update's monitor says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use brig_api::filters::Filters;
use brig_api::progress::{JsonMessage, ProgressDetail};
use brig_api::swarm::{Node, Service, Task};
use tokio::time::Instant;

use crate::client::Call;
use crate::context::Context;
use crate::error::{Result, message};
use crate::output::progress::{Display, Target};
use crate::terminal::stdout_is_terminal;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long tasks have to run where the service says nothing.
const DEFAULT_MONITOR: Duration = Duration::from_secs(5);
/// With more tasks than this, only the sum is shown.
const MAX_BARS: usize = 20;
/// States of a task in order; up to `running` they are what a bar shows.
const STATES: [&str; 13] = [
    "new",
    "allocated",
    "pending",
    "assigned",
    "accepted",
    "preparing",
    "ready",
    "starting",
    "running",
    "complete",
    "shutdown",
    "failed",
    "rejected",
];
/// Where `running` is among them, from 1.
const RUNNING: usize = 9;
const COMPLETE: usize = 10;
/// Longest error that is shown.
const MAX_ERROR: usize = 100;

fn rank(state: &str) -> usize {
    STATES.iter().position(|known| *known == state).map_or(0, |at| at + 1)
}

/// Waits until the service has converged, its update is paused, or the user interrupts.
pub(crate) async fn wait(context: &Context, id: &str, quiet: bool) -> Result<()> {
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
        .map_err(|source| crate::error::Error::io("watching signals", source))?;
    let mut screen = Screen::new(quiet);
    let mut watch = Watch::default();
    loop {
        let service: Service = context
            .client
            .json(Call::get(format!("/services/{id}")).query("insertDefaults", "false"))
            .await?;
        if watch.follow_update(&service, &mut screen)? || watch.is_stable(&service, &mut screen)? {
            return Ok(());
        }
        let filters = Filters::new().with("service", id).with("_up-to-date", "true");
        let tasks: Vec<Task> = context.client.json(Call::get("/tasks").filters(&filters)).await?;
        let nodes: Vec<Node> = context.client.json(Call::get("/nodes")).await?;
        if watch.look(&service, &tasks, &nodes, &mut screen)? {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = interrupt.recv() => {
                if watch.converged_at.is_none() {
                    screen.text("Operation continuing in background.")?;
                    screen.text(&format!("Use `{} service ps {id}` to check progress.", context.program))?;
                }
                return Ok(());
            }
        }
    }
}

/// Shows lines, each only when it has changed.
#[derive(Debug)]
struct Screen {
    display: Option<Display>,
    shown: BTreeMap<String, String>,
}

impl Screen {
    fn new(quiet: bool) -> Self {
        let display = (!quiet).then(|| Display::new(Target::Stdout, stdout_is_terminal()));
        Self { display, shown: BTreeMap::new() }
    }

    fn status(&mut self, id: &str, status: impl Into<String>) -> Result<()> {
        self.show(JsonMessage::status(id, status))
    }

    fn text(&mut self, text: &str) -> Result<()> {
        match &mut self.display {
            Some(display) => display.show(&JsonMessage::status("", text)),
            None => Ok(()),
        }
    }

    fn show(&mut self, message: JsonMessage) -> Result<()> {
        let Some(display) = &mut self.display else {
            return Ok(());
        };
        let text = format!("{} {:?}", message.status, message.progress_detail);
        if self.shown.get(&message.id) == Some(&text) {
            return Ok(());
        }
        self.shown.insert(message.id.clone(), text);
        display.show(&message)
    }
}

/// What is known from looks before.
#[derive(Debug, Default)]
struct Watch {
    rollback: bool,
    /// The last line after a rollback.
    farewell: Option<String>,
    converged_at: Option<Instant>,
    /// Rows of slots, in the order in which they came.
    rows: BTreeMap<String, usize>,
    drawn: bool,
}

impl Watch {
    /// Follows the update's state; `true`: it is over and there is nothing to wait for.
    fn follow_update(&mut self, service: &Service, screen: &mut Screen) -> Result<bool> {
        let Some(update) = &service.update_status else {
            return Ok(false);
        };
        match update.state.as_str() {
            "updating" => self.rollback = false,
            "completed" if self.converged_at.is_none() => {
                return Ok(true);
            }
            "paused" => return Err(message(format!("service update paused: {}", update.message))),
            "rollback_started" => {
                if !self.rollback && !update.message.is_empty() {
                    screen.status("rollback", &update.message)?;
                }
                self.rollback = true;
            }
            "rollback_paused" => {
                return Err(message(format!("service rollback paused: {}", update.message)));
            }
            "rollback_completed" => {
                if self.converged_at.is_none() {
                    self.farewell = Some(update.message.clone());
                }
                self.rollback = true;
            }
            _ => {}
        }
        Ok(false)
    }

    /// Whether the tasks have run for long enough.
    fn is_stable(&self, service: &Service, screen: &mut Screen) -> Result<bool> {
        let Some(since) = self.converged_at else {
            return Ok(false);
        };
        if since.elapsed() < monitor(service) {
            return Ok(false);
        }
        screen.status("verify", format!("Service {} converged", service.id))?;
        if let Some(text) = &self.farewell {
            screen.status("rollback", text)?;
        }
        Ok(true)
    }

    /// Compares tasks with what is wanted; `true`: a job is done.
    fn look(
        &mut self,
        service: &Service,
        tasks: &[Task],
        nodes: &[Node],
        screen: &mut Screen,
    ) -> Result<bool> {
        let up: BTreeSet<&str> = nodes
            .iter()
            .filter(|node| node.status.state != "down")
            .map(|node| node.id.as_str())
            .collect();
        let (wanted, done) = self.count(service, tasks, &up, screen)?;
        if service.job_status.is_some() {
            if done >= wanted {
                screen.text("job complete")?;
                return Ok(true);
            }
            return Ok(false);
        }
        if done != wanted {
            if self.converged_at.take().is_some() {
                screen.status("verify", "Detected task failure")?;
            }
            return Ok(false);
        }
        let since = *self.converged_at.get_or_insert_with(Instant::now);
        if let Some(left) = monitor(service).checked_sub(since.elapsed()) {
            let seconds = left.as_secs() + 1;
            screen.status(
                "verify",
                format!("Waiting {seconds} seconds to verify that tasks are stable..."),
            )?;
        }
        Ok(false)
    }

    /// How many tasks are wanted, and how many are there.
    fn count(
        &mut self,
        service: &Service,
        tasks: &[Task],
        up: &BTreeSet<&str>,
        screen: &mut Screen,
    ) -> Result<(usize, usize)> {
        let mode = &service.spec.mode;
        let is_job = mode.replicated_job.is_some() || mode.global_job.is_some();
        let is_global = mode.global.is_some() || mode.global_job.is_some();
        let current = current_tasks(service, tasks, up, is_global);
        let wanted = if let Some(replicated) = &mode.replicated {
            usize::try_from(replicated.replicas.unwrap_or(1)).unwrap_or(usize::MAX)
        } else if let Some(job) = &mode.replicated_job {
            usize::try_from(job.total_completions.unwrap_or(1)).unwrap_or(usize::MAX)
        } else {
            // A task for each node that may run one.
            current.len()
        };
        let goal = if is_job { COMPLETE } else { RUNNING };
        let is_done = |task: &Task| {
            rank(&task.status.state) == goal && (is_job || rank(&task.desired_state) <= RUNNING)
        };
        let done = current.values().filter(|task| is_done(task)).count();
        let overall = if is_job { "job progress" } else { "overall progress" };
        let prefix = if self.rollback { "rolling back update: " } else { "" };
        let noun = if is_job { "complete" } else { "tasks" };
        screen.status(overall, format!("{prefix}{done} out of {wanted} {noun}"))?;
        if wanted <= MAX_BARS && !is_job {
            self.draw(&current, wanted, is_global, screen)?;
        }
        Ok((wanted, done))
    }

    fn draw(
        &mut self,
        tasks: &BTreeMap<String, &Task>,
        wanted: usize,
        is_global: bool,
        screen: &mut Screen,
    ) -> Result<()> {
        if !self.drawn && !is_global {
            for row in 1..=wanted {
                screen.status(&format!("{row}/{wanted}"), " ")?;
            }
            self.drawn = true;
        }
        for (slot, task) in tasks {
            let next = self.rows.len() + 1;
            let row = *self.rows.entry(slot.clone()).or_insert(next);
            if row > wanted {
                continue;
            }
            let id =
                if is_global { slot.chars().take(12).collect() } else { format!("{row}/{wanted}") };
            if !task.status.err.is_empty() {
                let error = task.status.err.replace('\n', " ");
                screen.status(&id, crate::output::human::ellipsis(&error, MAX_ERROR))?;
                continue;
            }
            let state = rank(&task.status.state);
            if rank(&task.desired_state) <= RUNNING && state <= RUNNING {
                let detail = ProgressDetail {
                    current: i64::try_from(state).unwrap_or_default(),
                    total: i64::try_from(RUNNING).unwrap_or_default(),
                    hide_counts: true,
                    ..ProgressDetail::default()
                };
                let status = format!("{:<9}", task.status.state);
                screen.show(JsonMessage {
                    progress_detail: Some(detail),
                    ..JsonMessage::status(&id, status)
                })?;
            }
        }
        Ok(())
    }
}

fn monitor(service: &Service) -> Duration {
    service
        .spec
        .update_config
        .as_ref()
        .and_then(|config| u64::try_from(config.monitor).ok())
        .filter(|nanos| *nanos > 0)
        .map_or(DEFAULT_MONITOR, Duration::from_nanos)
}

/// One task for each slot or node: the one that is wanted most, then the one that is furthest
/// behind.
fn current_tasks<'a>(
    service: &Service,
    tasks: &'a [Task],
    up: &BTreeSet<&str>,
    is_global: bool,
) -> BTreeMap<String, &'a Task> {
    let mut current: BTreeMap<String, &Task> = BTreeMap::new();
    for task in tasks {
        let order = |task: &Task| (rank(&task.desired_state), rank(&task.status.state));
        let (desired, state) = order(task);
        if desired == 0 || state == 0 {
            continue;
        }
        if let (Some(job), Some(iteration)) = (&service.job_status, &task.job_iteration)
            && iteration.index != job.job_iteration.index
        {
            continue;
        }
        if is_global && service.job_status.is_none() && desired > RUNNING {
            continue;
        }
        if !task.node_id.is_empty() && !up.contains(task.node_id.as_str()) {
            continue;
        }
        let key = if is_global { task.node_id.clone() } else { format!("{:08}", task.slot) };
        match current.get(&key) {
            Some(known) if order(known) <= (desired, state) => {}
            _ => {
                current.insert(key, task);
            }
        }
    }
    current
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(extra: serde_json::Value) -> Service {
        let mut base = json!({"ID": "s1", "Spec": {"Mode": {"Replicated": {"Replicas": 2}}}});
        for (key, value) in extra.as_object().unwrap() {
            base[key] = value.clone();
        }
        serde_json::from_value(base).unwrap()
    }

    fn task(slot: i64, state: &str, desired: &str) -> Task {
        serde_json::from_value(json!({"Slot": slot, "NodeID": "n", "DesiredState": desired, "Status": {"State": state}})).unwrap()
    }

    fn nodes(state: &str) -> Vec<Node> {
        vec![serde_json::from_value(json!({"ID": "n", "Status": {"State": state}})).unwrap()]
    }

    #[tokio::test(start_paused = true)]
    async fn converged_is_running_for_as_long_as_the_monitor_says() {
        let s = service(json!({}));
        let mut screen = Screen::new(true);
        let mut watch = Watch::default();
        let running = [task(1, "running", "running"), task(2, "running", "running")];
        let starting = [task(1, "running", "running"), task(2, "starting", "running")];
        watch.look(&s, &starting, &nodes("ready"), &mut screen).unwrap();
        assert!(watch.converged_at.is_none());
        watch.look(&s, &running, &nodes("ready"), &mut screen).unwrap();
        assert!(watch.converged_at.is_some());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(!watch.is_stable(&s, &mut screen).unwrap());
        watch.look(&s, &starting, &nodes("ready"), &mut screen).unwrap();
        assert!(watch.converged_at.is_none(), "a failure starts the clock again");
        watch.look(&s, &running, &nodes("ready"), &mut screen).unwrap();
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(watch.is_stable(&s, &mut screen).unwrap());
    }

    #[test]
    fn old_tasks_and_dead_nodes_do_not_count() {
        let s = service(json!({}));
        let up: BTreeSet<&str> = BTreeSet::from(["n"]);
        let tasks = [
            task(1, "running", "shutdown"),
            task(1, "preparing", "running"),
            task(2, "running", "running"),
        ];
        let current = current_tasks(&s, &tasks, &up, false);
        assert_eq!(current["00000001"].status.state, "preparing");
        assert_eq!(current.len(), 2);
        assert!(current_tasks(&s, &tasks, &BTreeSet::new(), false).is_empty());
    }

    #[tokio::test]
    async fn a_paused_update_is_an_error_and_a_completed_one_the_end() {
        let mut screen = Screen::new(true);
        let state =
            |state: &str| service(json!({"UpdateStatus": {"State": state, "Message": "m"}}));
        let error = Watch::default().follow_update(&state("paused"), &mut screen).unwrap_err();
        assert_eq!(error.text(), "service update paused: m");
        assert!(Watch::default().follow_update(&state("completed"), &mut screen).unwrap());
        assert!(!Watch::default().follow_update(&state("updating"), &mut screen).unwrap());
    }

    #[tokio::test]
    async fn a_job_is_done_when_its_tasks_are() {
        let s = service(
            json!({"Spec": {"Mode": {"ReplicatedJob": {"TotalCompletions": 1}}}, "JobStatus": {"JobIteration": {"Index": 1}}}),
        );
        let mut screen = Screen::new(true);
        let mut watch = Watch::default();
        let mut one = task(1, "running", "complete");
        one.job_iteration = Some(brig_api::swarm::Version { index: 1 });
        assert!(!watch.look(&s, &[one.clone()], &nodes("ready"), &mut screen).unwrap());
        one.status.state = "complete".to_owned();
        assert!(watch.look(&s, &[one], &nodes("ready"), &mut screen).unwrap());
    }
}
