//! `docker commit`: an image of what a container is now.

use brig_api::container::ContainerConfig;
use brig_image::{CommitOptions, RunConfig, changes};
use brig_types::digest::Digest;
use brig_types::reference::Reference;

use super::image_defaults::merge;
use super::state::Status;
use crate::engine::Engine;
use crate::error::EngineError;

/// What the runtime makes in every root file system to mount something on. Empty, it is nothing
/// that the container changed.
const PLACEHOLDERS: [&str; 9] = [
    "dev",
    "proc",
    "sys",
    "run/secrets",
    "etc/hostname",
    "etc/hosts",
    "etc/resolv.conf",
    "sbin/docker-init",
    "dev/init",
];

/// What becomes of a container.
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    /// The container.
    pub container: String,
    /// The image's name.
    pub reference: Option<Reference>,
    /// Who makes it.
    pub author: String,
    /// Comment.
    pub message: String,
    /// Freeze the container meanwhile if it runs.
    pub pause: bool,
    /// Dockerfile directives, one each.
    pub changes: Vec<String>,
    /// Settings that go over the container's own.
    pub config: Option<ContainerConfig>,
}

impl Engine {
    /// Makes an image of a container; returns the image's id.
    ///
    /// # Errors
    /// No such container, wrong directives, the image store.
    pub async fn commit(&self, request: CommitRequest) -> Result<Digest, EngineError> {
        let container = self.registry().find(&request.container)?;
        let record = container.record();
        if record.state.status == Status::Removing {
            return Err(EngineError::Conflict(format!(
                "You cannot commit container {} which is being removed",
                container.id
            )));
        }
        if record.state.status == Status::Dead {
            return Err(EngineError::Conflict(format!(
                "You cannot commit container {} which is Dead",
                container.id
            )));
        }
        let mut run: RunConfig = converted(&request.config.unwrap_or_default())?;
        for change in &request.changes {
            changes::apply(&mut run, change)?;
        }
        let mut config: ContainerConfig = converted(&run)?;
        merge(&mut config, record.config.clone());
        let options = CommitOptions {
            reference: request.reference.clone(),
            author: request.author,
            message: request.message.clone(),
            created_by: record.config.cmd.join(" "),
            config: converted(&config)?,
            placeholders: PLACEHOLDERS.map(str::to_owned).to_vec(),
        };
        let frozen = request.pause && record.state.status == Status::Running;
        if frozen {
            self.pause(container.id.as_str()).await?;
        }
        // To its end even when the client hangs up: the container must not stay frozen.
        let (engine, id) = (self.clone(), container.id.clone());
        let image = self
            .detached(async move {
                let made = engine.images().commit_container(&id, &record.image_id, options).await;
                if frozen && let Err(error) = engine.unpause(id.as_str()).await {
                    tracing::warn!(container = %id, %error, "the container stays paused");
                }
                Ok(made?)
            })
            .await?;
        let name = request.reference.map(|name| name.familiar()).unwrap_or_default();
        let attributes =
            [("comment", request.message), ("imageID", image.to_string()), ("imageRef", name)];
        self.container_event(&container, "commit", &attributes);
        Ok(image)
    }
}

/// The same settings in the image's or the container's type: both have docker's names.
fn converted<A: serde::Serialize, B: serde::de::DeserializeOwned>(
    config: &A,
) -> Result<B, EngineError> {
    serde_json::to_value(config).and_then(serde_json::from_value).map_err(|source| {
        EngineError::System { action: "convert the configuration", source: source.into() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_go_over_the_containers_settings() {
        let mut run = RunConfig::default();
        for change in ["CMD [\"new\"]", "ENV A=2", "LABEL x=y", "EXPOSE 80"] {
            changes::apply(&mut run, change).unwrap();
        }
        let mut config: ContainerConfig = converted(&run).unwrap();
        let container = ContainerConfig {
            cmd: vec!["old".into()],
            env: vec!["A=1".into(), "B=1".into()],
            working_dir: "/srv".into(),
            user: "nobody".into(),
            hostname: "box".into(),
            ..ContainerConfig::default()
        };
        merge(&mut config, container);
        let run: RunConfig = converted(&config).unwrap();
        assert_eq!(run.cmd, Some(vec!["new".to_owned()]));
        assert_eq!(run.env, ["A=2", "B=1"]);
        assert_eq!((run.working_dir.as_str(), run.user.as_str()), ("/srv", "nobody"));
        assert_eq!(run.labels["x"], "y");
        assert!(run.exposed_ports.contains_key("80/tcp"));
    }
}
