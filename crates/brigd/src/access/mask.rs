//! Taking out of answers what not everybody may see: environments, and which secrets are held.

use brig_access::{Action, Object};
use brig_api::container::ContainerInspect;
use brig_api::swarm::{Service, ServiceSpec, Task, TaskSpec};

use super::Authorized;

/// What stands in place of what is hidden.
const HIDDEN: &str = "***";

fn environment(env: &mut [String]) {
    for variable in env {
        let name = variable.split('=').next().unwrap_or_default().to_owned();
        *variable = format!("{name}={HIDDEN}");
    }
}

fn template(spec: &mut TaskSpec) {
    let Some(container) = &mut spec.container_spec else { return };
    environment(&mut container.env);
    for secret in &mut container.secrets {
        HIDDEN.clone_into(&mut secret.secret_id);
        HIDDEN.clone_into(&mut secret.secret_name);
        if let Some(file) = &mut secret.file {
            HIDDEN.clone_into(&mut file.name);
        }
    }
}

fn hides(authorized: &Authorized, object: &Object) -> bool {
    !authorized.may(Action::EnvironmentRead, object)
}

/// A container as this principal may see it.
#[must_use]
pub fn container(authorized: &Authorized, mut json: ContainerInspect) -> ContainerInspect {
    if authorized.is_unrestricted() {
        return json;
    }
    let object = super::object::inspected(&json);
    if hides(authorized, &object) {
        environment(&mut json.config.env);
    }
    json
}

/// A service as this principal may see it.
#[must_use]
pub fn service(authorized: &Authorized, object: &Object, mut json: Service) -> Service {
    if hides(authorized, object) {
        let specs: [Option<&mut ServiceSpec>; 2] =
            [Some(&mut json.spec), json.previous_spec.as_mut()];
        for spec in specs.into_iter().flatten() {
            template(&mut spec.task_template);
        }
    }
    json
}

/// A task as this principal may see it.
#[must_use]
pub fn task(authorized: &Authorized, object: &Object, mut json: Task) -> Task {
    if hides(authorized, object) {
        template(&mut json.spec);
    }
    json
}

#[cfg(test)]
mod tests {
    use brig_api::swarm::{ContainerSpec, SecretReference};

    use super::*;

    #[test]
    fn values_go_and_names_stay() {
        let mut spec = TaskSpec {
            container_spec: Some(ContainerSpec {
                env: vec!["A=secret".into(), "B".into(), "C=x=y".into()],
                secrets: vec![SecretReference {
                    secret_id: "id".into(),
                    secret_name: "db".into(),
                    ..SecretReference::default()
                }],
                ..ContainerSpec::default()
            }),
            ..TaskSpec::default()
        };
        template(&mut spec);
        let container = spec.container_spec.unwrap();
        assert_eq!(container.env, ["A=***", "B=***", "C=***"]);
        assert_eq!(container.secrets[0].secret_name, "***");
        assert_eq!(container.secrets[0].secret_id, "***");
    }
}
