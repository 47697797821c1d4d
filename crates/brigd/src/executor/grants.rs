//! Secrets and configs of a task, as files for its container.
//!
//! They are read from what the cluster sent when the container starts, never before, and are
//! wiped when they were handed on.

use brig_engine::SecretFile;
use brig_proto::swarm::{
    ConfigReference, ContainerSpec, Driver, FileTarget, SecretReference, config_reference,
    secret_reference,
};
use brig_swarm::{Dependencies, TaskError};
use brig_types::secret::{SecretBytes, SecretString};

use super::template::{Context, Payload, TemplateError};

/// The templating driver that placeholders ask for.
const GOLANG: &str = "golang";
/// Permission bits that a target may have.
const MODE_BITS: u32 = 0o7777;

/// The files of a task.
pub(super) struct Grants {
    pub(super) secrets: Vec<SecretFile>,
    pub(super) configs: Vec<SecretFile>,
}

/// Reads everything that a task was granted.
pub(super) fn files(
    spec: &ContainerSpec,
    context: &Context,
    dependencies: &dyn Dependencies,
) -> Result<Grants, TaskError> {
    let scope = Scope { spec, dependencies };
    let mut grants = Grants { secrets: Vec::new(), configs: Vec::new() };
    for reference in &spec.secrets {
        let Some(target) = secret_target(reference) else {
            tracing::error!(secret = reference.secret_name, "a secret has no file to go to");
            continue;
        };
        let data = scope.secret_data(reference, Some(context))?;
        grants.secrets.push(file(target, data)?);
    }
    for reference in &spec.configs {
        // A config without a file is for the runtime itself.
        if let Some(target) = config_target(reference) {
            let data = scope.config_data(reference, Some(context))?;
            grants.configs.push(file(target, data)?);
        }
    }
    Ok(grants)
}

fn secret_target(reference: &SecretReference) -> Option<&FileTarget> {
    let secret_reference::Target::File(target) = reference.target.as_ref()?;
    Some(target)
}

fn config_target(reference: &ConfigReference) -> Option<&FileTarget> {
    match reference.target.as_ref()? {
        config_reference::Target::File(target) => Some(target),
        config_reference::Target::Runtime(_) => None,
    }
}

fn file(target: &FileTarget, data: SecretBytes) -> Result<SecretFile, TaskError> {
    let number = |what: &str, text: &str| {
        text.parse::<u32>()
            .map_err(|_| TaskError::fatal(format!("invalid {what} {text:?} for {:?}", target.name)))
    };
    Ok(SecretFile {
        target: target.name.clone(),
        uid: number("UID", &target.uid)?,
        gid: number("GID", &target.gid)?,
        mode: target.mode & MODE_BITS,
        data,
    })
}

/// What a task was granted, for reading and for placeholders.
struct Scope<'a> {
    spec: &'a ContainerSpec,
    dependencies: &'a dyn Dependencies,
}

impl Scope<'_> {
    /// A secret's content; placeholders are filled in with a context. Content that is itself put
    /// into a placeholder is taken as it is.
    fn secret_data(
        &self,
        reference: &SecretReference,
        context: Option<&Context>,
    ) -> Result<SecretBytes, TaskError> {
        let id = &reference.secret_id;
        let secret = self.dependencies.secret(id).ok_or_else(|| {
            TaskError::fatal(format!(
                "unable to get secret from secret store: secret {id} not found"
            ))
        })?;
        let spec = secret.spec.as_ref().ok_or_else(|| {
            TaskError::fatal(format!(
                "unable to get secret from secret store: secret {id} is empty"
            ))
        })?;
        self.content(&reference.secret_name, &spec.data, spec.templating.as_ref(), context)
    }

    fn config_data(
        &self,
        reference: &ConfigReference,
        context: Option<&Context>,
    ) -> Result<SecretBytes, TaskError> {
        let id = &reference.config_id;
        let config = self.dependencies.config(id).ok_or_else(|| {
            TaskError::fatal(format!(
                "unable to get config from config store: config {id} not found"
            ))
        })?;
        let spec = config.spec.as_ref().ok_or_else(|| {
            TaskError::fatal(format!(
                "unable to get config from config store: config {id} is empty"
            ))
        })?;
        self.content(&reference.config_name, &spec.data, spec.templating.as_ref(), context)
    }

    fn content(
        &self,
        name: &str,
        data: &[u8],
        templating: Option<&Driver>,
        context: Option<&Context>,
    ) -> Result<SecretBytes, TaskError> {
        match (templating.map_or("", |driver| driver.name.as_str()), context) {
            ("", _) | (_, None) => Ok(SecretBytes::new(data.to_vec())),
            (GOLANG, Some(context)) => context
                .expand_payload(data, self)
                .map_err(|error| TaskError::fatal(format!("{name}: {error}"))),
            (other, _) => {
                Err(TaskError::fatal(format!("{name}: unrecognized template type: {other:?}")))
            }
        }
    }
}

impl Payload for Scope<'_> {
    fn secret(&self, target: &str) -> Result<SecretString, TemplateError> {
        let reference = self
            .spec
            .secrets
            .iter()
            .find(|reference| secret_target(reference).is_some_and(|file| file.name == target))
            .ok_or_else(|| TemplateError::missing("secret target", target))?;
        text(self.secret_data(reference, None), "secret", target)
    }

    fn config(&self, target: &str) -> Result<SecretString, TemplateError> {
        let reference = self
            .spec
            .configs
            .iter()
            .find(|reference| config_target(reference).is_some_and(|file| file.name == target))
            .ok_or_else(|| TemplateError::missing("config target", target))?;
        text(self.config_data(reference, None), "config", target)
    }

    fn env(&self, name: &str) -> Result<SecretString, TemplateError> {
        let value = self.spec.env.iter().find_map(|entry| {
            let (key, value) = entry.split_once('=')?;
            (key == name).then(|| value.to_owned())
        });
        // COMPAT: an absent variable is empty.
        Ok(SecretString::new(value.unwrap_or_default()))
    }
}

fn text(
    data: Result<SecretBytes, TaskError>,
    kind: &str,
    target: &str,
) -> Result<SecretString, TemplateError> {
    let data = data.map_err(|error| TemplateError::other(error.message))?;
    std::str::from_utf8(data.expose_secret())
        .map(|text| SecretString::new(text.to_owned()))
        .map_err(|_| TemplateError::other(format!("{kind} {target} is not UTF-8 text")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use brig_proto::swarm::{Config, ConfigSpec, Secret, SecretSpec, Task};

    use super::super::template::NodeFacts;
    use super::*;

    struct Given;

    impl Dependencies for Given {
        fn secret(&self, id: &str) -> Option<Arc<Secret>> {
            let mut spec = SecretSpec::default();
            match id {
                "s1" => spec.data = b"hunter2".to_vec(),
                "s2" => {
                    spec.data = b"{{secret \"pw\"}}@{{.Service.Name}}{{env \"E\"}}".to_vec();
                    spec.templating = Some(Driver { name: GOLANG.into(), ..Driver::default() });
                }
                _ => return None,
            }
            Some(Arc::new(Secret { id: id.into(), spec: Some(spec), ..Secret::default() }))
        }

        fn config(&self, id: &str) -> Option<Arc<Config>> {
            let spec = ConfigSpec { data: b"{{raw}}".to_vec(), ..ConfigSpec::default() };
            Some(Arc::new(Config { id: id.into(), spec: Some(spec), ..Config::default() }))
        }
    }

    fn target(name: &str, uid: &str) -> FileTarget {
        FileTarget { name: name.into(), uid: uid.into(), gid: "7".into(), mode: 0o440 }
    }

    fn secret(id: &str, name: &str, uid: &str) -> SecretReference {
        SecretReference {
            secret_id: id.into(),
            secret_name: id.into(),
            target: Some(secret_reference::Target::File(target(name, uid))),
        }
    }

    fn context() -> Context {
        let mut task = Task::default();
        task.service_annotations.get_or_insert_default().name = "web".into();
        Context::new(&task, &NodeFacts::default())
    }

    #[test]
    fn granted_files_have_owner_mode_and_content() {
        let spec = ContainerSpec {
            secrets: vec![secret("s1", "pw", "5"), secret("s2", "/abs/url", "0")],
            configs: vec![
                ConfigReference {
                    config_id: "c".into(),
                    config_name: "c".into(),
                    target: Some(config_reference::Target::File(target("etc/c", "0"))),
                },
                ConfigReference {
                    target: Some(config_reference::Target::Runtime(
                        brig_proto::swarm::RuntimeTarget {},
                    )),
                    ..ConfigReference::default()
                },
            ],
            env: vec!["E=!".into()],
            ..ContainerSpec::default()
        };
        let grants = files(&spec, &context(), &Given).unwrap();
        let seen: Vec<_> = grants
            .secrets
            .iter()
            .map(|f| (f.target.as_str(), f.uid, f.gid, f.mode, f.data.expose_secret()))
            .collect();
        assert_eq!(
            seen,
            [("pw", 5, 7, 0o440, &b"hunter2"[..]), ("/abs/url", 0, 7, 0o440, &b"hunter2@web!"[..])]
        );
        assert_eq!(grants.configs.len(), 1);
        assert_eq!(grants.configs[0].data.expose_secret(), b"{{raw}}");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (reference, text) in [
            (secret("gone", "x", "0"), "secret gone not found"),
            (secret("s1", "x", ""), "invalid UID"),
            (secret("s1", "x", "-1"), "invalid UID"),
        ] {
            let spec = ContainerSpec { secrets: vec![reference], ..ContainerSpec::default() };
            let error = files(&spec, &context(), &Given).err().unwrap();
            assert!(error.message.contains(text), "{error}");
            assert!(!error.message.contains("hunter2"));
        }
    }
}
