//! Starting, signalling, pausing and deleting containers.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use brig_sys::process;
use brig_types::id::ContainerId;
use brig_types::signal::Signal;
use serde::Deserialize;

use crate::create::remove_if_there;
use crate::error::RuntimeError;
use crate::exits;
use crate::failure::{self, Failure};
use crate::runtime::{Inner, Runtime};
use crate::sealed;
use crate::supervise::Entry;

/// Far more than any of these takes on the slowest machine.
const OCI_LIMIT: Duration = Duration::from_secs(60);
/// How long conmon may take to finish after its container was deleted under it.
const CONMON_LIMIT: Duration = Duration::from_secs(5);

/// How long the kernel may take to freeze processes that wait for something.
const PAUSE_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at that.
const PAUSE_POLL: Duration = Duration::from_millis(5);

/// In the bundle, while limits are changed.
const RESOURCES_FILE: &str = "resources.json";

/// What the OCI runtime says about a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciState {
    /// Its state.
    pub status: OciStatus,
    /// Its first process; 0 when it has none.
    pub pid: i32,
}

/// The states of the OCI runtime specification, and paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OciStatus {
    /// Being made.
    Creating,
    /// Waiting to be started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Ended.
    Stopped,
}

#[derive(Deserialize)]
struct StateJson {
    status: OciStatus,
    #[serde(default)]
    pid: i32,
}

impl Runtime {
    /// Lets a created container run.
    ///
    /// # Errors
    /// [`RuntimeError::Start`].
    pub async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let inner = Arc::clone(&self.inner);
        let id = id.clone();
        self.detached(async move {
            match inner.oci("start", [id.as_str()]).await {
                Err(RuntimeError::Oci { message, .. }) => {
                    Err(RuntimeError::Start(Failure::translate(&message, "")))
                }
                answer => answer.map(drop),
            }
        })
        .await
    }

    /// Sends a signal to the container's first process, or to all of its processes.
    ///
    /// # Errors
    /// [`RuntimeError::NotRunning`], [`RuntimeError::Oci`].
    pub async fn kill(
        &self,
        id: &ContainerId,
        signal: Signal,
        all: bool,
    ) -> Result<(), RuntimeError> {
        if !all && let Some(entry) = self.inner.registry.get(id) {
            // No program needed.
            return match process::send_signal(&entry.init, signal) {
                Ok(()) => Ok(()),
                Err(error) if process::is_gone(&error) => {
                    Err(RuntimeError::NotRunning(id.to_string()))
                }
                Err(error) => Err(RuntimeError::system("sending a signal", error)),
            };
        }
        let number = signal.number().to_string();
        let mut args = vec![id.as_str(), number.as_str()];
        if all {
            args.insert(0, "--all");
        }
        self.inner.oci("kill", args).await.map(drop)
    }

    /// Removes what the OCI runtime keeps of a container, its control groups and its exit file.
    /// With `force` also one that runs. One that is not there is fine. Its end is not reported
    /// any more.
    ///
    /// # Errors
    /// [`RuntimeError::Oci`], for example when it still runs.
    pub async fn delete(&self, id: &ContainerId, force: bool) -> Result<(), RuntimeError> {
        let inner = Arc::clone(&self.inner);
        let id = id.clone();
        self.detached(async move { inner.delete(&id, force).await }).await
    }

    /// What the OCI runtime says; `None` when it does not know the container.
    ///
    /// # Errors
    /// [`RuntimeError::Oci`].
    pub async fn state(&self, id: &ContainerId) -> Result<Option<OciState>, RuntimeError> {
        self.inner.state(id).await
    }

    /// Freezes all processes of a container, and waits until they are.
    ///
    /// # Errors
    /// [`RuntimeError::Oci`], [`RuntimeError::Timeout`].
    pub async fn pause(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.inner.oci("pause", [id.as_str()]).await?;
        // crun only asks the kernel to.
        let frozen = async {
            while self.state(id).await?.is_some_and(|state| state.status != OciStatus::Paused) {
                tokio::time::sleep(PAUSE_POLL).await;
            }
            Ok(())
        };
        tokio::time::timeout(PAUSE_LIMIT, frozen).await.unwrap_or_else(|_| {
            let seconds = PAUSE_LIMIT.as_secs();
            Err(RuntimeError::Timeout { operation: "freezing the container", seconds })
        })
    }

    /// Lets frozen processes go on.
    ///
    /// # Errors
    /// [`RuntimeError::Oci`].
    pub async fn resume(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.inner.oci("resume", [id.as_str()]).await.map(drop)
    }

    /// Changes the limits of a container that runs; `document` is from
    /// [`crate::spec::resources_document`].
    ///
    /// # Errors
    /// [`RuntimeError::Oci`] with what the kernel refused.
    pub async fn update(
        &self,
        id: &ContainerId,
        bundle: &Path,
        document: Vec<u8>,
    ) -> Result<(), RuntimeError> {
        let path = bundle.join(RESOURCES_FILE);
        tokio::fs::write(&path, document)
            .await
            .map_err(|error| RuntimeError::file("writing", &path, error))?;
        let text = path.to_string_lossy().into_owned();
        let updated = self.inner.oci("update", ["--resources", &text, id.as_str()]).await;
        if let Err(error) = tokio::fs::remove_file(&path).await {
            tracing::debug!(%error, "a file of limits stays in the bundle");
        }
        updated.map(drop)
    }

    /// Runs something to its end even if the caller does not wait for it.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, RuntimeError>> + Send + 'static,
    ) -> Result<T, RuntimeError> {
        self.inner
            .tasks
            .spawn(work)
            .await
            .map_err(|error| RuntimeError::system("running a task", std::io::Error::other(error)))?
    }
}

impl Inner {
    pub(crate) async fn delete(&self, id: &ContainerId, force: bool) -> Result<(), RuntimeError> {
        let known = self.registry.get(id);
        let mut args = vec![id.as_str()];
        if force {
            args.insert(0, "--force");
            // Whatever is said about it from here on is nobody's business.
            self.registry.remove(id);
            self.stop(id, known.as_deref()).await?;
        }
        match self.oci("delete", args).await {
            Err(RuntimeError::Oci { message, .. }) if does_not_exist(&message) => {}
            answer => {
                answer?;
            }
        }
        self.registry.remove(id);
        if let Some(entry) = known
            && matches!(exits::read(&self.layout.exits, id, &entry.bundle), Ok(None))
        {
            // conmon is about to write it.
            let end = process::wait_exit(entry.conmon.as_fd());
            let _ = tokio::time::timeout(CONMON_LIMIT, end).await;
        }
        exits::forget(&self.layout.exits, id);
        // Only there when the daemon went away while the container was created.
        remove_if_there(&self.layout.sockets.join(id.as_str()))
    }

    /// Makes sure that deleting by force cannot hang on a frozen container.
    async fn stop(&self, id: &ContainerId, known: Option<&Entry>) -> Result<(), RuntimeError> {
        if let Some(entry) = known {
            return self
                .kill_and_wait(id, &entry.init)
                .await
                .map_err(|error| RuntimeError::system("killing the container", error));
        }
        if self.state(id).await?.is_some_and(|state| state.status == OciStatus::Paused) {
            self.oci("resume", [id.as_str()]).await?;
        }
        Ok(())
    }

    pub(crate) async fn state(&self, id: &ContainerId) -> Result<Option<OciState>, RuntimeError> {
        match self.oci("state", [id.as_str()]).await {
            Ok(json) => {
                let state: StateJson = serde_json::from_slice(&json).map_err(|error| {
                    RuntimeError::Oci { operation: "state", message: error.to_string() }
                })?;
                Ok(Some(OciState { status: state.status, pid: state.pid }))
            }
            Err(RuntimeError::Oci { message, .. }) if does_not_exist(&message) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Runs the OCI runtime and returns what it wrote.
    pub(crate) async fn oci<'a>(
        &self,
        operation: &'static str,
        args: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<u8>, RuntimeError> {
        let mut all = vec![std::ffi::OsString::from("--root"), self.layout.state.clone().into()];
        all.push(operation.into());
        all.extend(args.into_iter().map(Into::into));
        let sealed = self.sealed();
        let program =
            sealed.as_ref().map_or_else(|| self.programs.runtime.clone(), |_| sealed::path());
        let running = self.launcher.output(&program, sealed.as_deref(), all, OCI_LIMIT);
        let output = match running.await {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                return Err(RuntimeError::Timeout { operation, seconds: OCI_LIMIT.as_secs() });
            }
            Err(error) => return Err(RuntimeError::system("running the OCI runtime", error)),
        };
        if output.status.success() {
            return Ok(output.stdout);
        }
        let message = failure::plain(&String::from_utf8_lossy(&output.stderr));
        Err(RuntimeError::Oci { operation, message })
    }
}

/// runc's and crun's ways to say that they do not know a container.
fn does_not_exist(message: &str) -> bool {
    message.contains("does not exist")
        || (message.starts_with("error opening file `") && message.contains("/status`: No such"))
        || (message.starts_with("cannot open directory") && message.contains("No such file"))
}
