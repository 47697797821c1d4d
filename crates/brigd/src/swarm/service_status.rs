//! Task counts of a service, for `GET /services?status=true`.

use std::sync::Arc;

use brig_api::swarm::ServiceStatus;
use brig_proto::swarm::service_spec::Mode;
use brig_proto::swarm::{Service, Task, TaskState};

/// Counts the tasks of a service.
pub(super) fn count(service: &Service, tasks: &[Arc<Task>]) -> ServiceStatus {
    let observed = |task: &Task| task.status.as_ref().map_or(0, |status| status.state);
    let count = |wanted: &dyn Fn(&Task) -> bool| {
        u64::try_from(tasks.iter().filter(|task| wanted(task)).count()).unwrap_or(u64::MAX)
    };
    let running = count(&|task| {
        observed(task) == TaskState::Running as i32
            && task.desired_state <= TaskState::Running as i32
    });
    let this_run = |task: &Task| {
        let iteration = service.job_status.as_ref().and_then(|job| job.job_iteration);
        task.job_iteration == iteration
    };
    let completed = count(&|task| observed(task) == TaskState::Complete as i32 && this_run(task));
    let wanted = count(&|task| task.desired_state <= TaskState::Running as i32);
    let (desired, completed) = match service.spec.as_ref().and_then(|spec| spec.mode.as_ref()) {
        Some(Mode::Replicated(mode)) => (mode.replicas, 0),
        Some(Mode::ReplicatedJob(job)) => {
            (job.max_concurrent.min(job.total_completions.saturating_sub(completed)), completed)
        }
        Some(Mode::GlobalJob(_)) => {
            (count(&|task| task.desired_state == TaskState::Complete as i32), completed)
        }
        Some(Mode::Global(_)) | None => (wanted, 0),
    };
    ServiceStatus { running_tasks: running, desired_tasks: desired, completed_tasks: completed }
}

#[cfg(test)]
mod tests {
    use brig_proto::swarm::{GlobalService, ReplicatedService, ServiceSpec, TaskStatus};

    use super::*;

    fn service(mode: Mode) -> Service {
        let spec = ServiceSpec { mode: Some(mode), ..ServiceSpec::default() };
        Service { spec: Some(spec), ..Service::default() }
    }

    fn task(observed: TaskState, desired: TaskState) -> Arc<Task> {
        Arc::new(Task {
            status: Some(TaskStatus { state: observed.into(), ..TaskStatus::default() }),
            desired_state: desired.into(),
            ..Task::default()
        })
    }

    #[test]
    fn counts() {
        let tasks = [
            task(TaskState::Running, TaskState::Running),
            task(TaskState::Starting, TaskState::Running),
            task(TaskState::Running, TaskState::Shutdown),
            task(TaskState::Failed, TaskState::Shutdown),
        ];
        let replicated = service(Mode::Replicated(ReplicatedService { replicas: 5 }));
        let status = count(&replicated, &tasks);
        assert_eq!((status.running_tasks, status.desired_tasks, status.completed_tasks), (1, 5, 0));
        let status = count(&service(Mode::Global(GlobalService {})), &tasks);
        assert_eq!((status.running_tasks, status.desired_tasks), (1, 2));
    }
}
