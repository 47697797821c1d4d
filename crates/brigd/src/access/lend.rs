//! The engine's socket in containers: what is lent, to whom, and what binds of the real one become.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use brig_access::{Facts, Reference, Scope};
use brig_api::container::HostConfig;
use brig_api::engine_access::{self, EngineAccess, EngineAccessError, LABEL};
use brig_api::swarm::ServiceSpec;

use super::Gate;
use crate::server::ApiError;

/// Where docker's clients look for an engine.
const USUAL: [&str; 2] = ["/var/run/docker.sock", "/run/docker.sock"];
/// Everything of a kind, in the lists of an access.
const ALL: &str = "*";
/// The role that may use no secret, whatever its lists say.
const VIEWER: &str = "viewer";

/// What becomes of binds of the engine's own socket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SocketBinds {
    /// A lent socket in their place; without it they stay binds, which the engine refuses.
    pub lend: Option<EngineAccess>,
    /// Paths of the engine's sockets.
    pub sockets: Vec<PathBuf>,
}

impl SocketBinds {
    /// SECURITY: by its text alone, so that what is judged here is what is done later: a link
    /// that leads to the socket today may lead elsewhere then.
    fn is_socket(&self, source: &str) -> bool {
        let source = Path::new(source);
        let usual = USUAL.into_iter().map(Path::new);
        usual.chain(self.sockets.iter().map(PathBuf::as_path)).any(|socket| socket == source)
    }

    /// Says in the host configuration what a container is lent, whichever way it was asked for.
    ///
    /// # Errors
    /// A field or a label that makes no sense.
    pub fn settle(
        &self,
        labels: &BTreeMap<String, String>,
        host: &mut HostConfig,
    ) -> Result<(), EngineAccessError> {
        host.engine_access = engine_access::asked(host.engine_access.as_ref(), labels)?;
        let Some(lend) = &self.lend else { return Ok(()) };
        let mut targets = Vec::new();
        host.binds.retain(|bind| match bind.split_once(':') {
            Some((source, rest)) if self.is_socket(source) => {
                targets.push(rest.split(':').next().unwrap_or(rest).to_owned());
                false
            }
            _ => true,
        });
        host.mounts.retain(|mount| {
            let socket = mount.kind == "bind" && self.is_socket(&mount.source);
            if socket {
                targets.push(mount.target.clone());
            }
            !socket
        });
        if !targets.is_empty() {
            host.engine_access.get_or_insert_with(|| lend.clone()).targets.extend(targets);
        }
        Ok(())
    }

    /// The specification as it will be understood by a node that is set up as this one.
    #[must_use]
    pub fn understood(&self, spec: &ServiceSpec) -> ServiceSpec {
        let mut spec = spec.clone();
        let Some(lend) = &self.lend else { return spec };
        let Some(container) = &mut spec.task_template.container_spec else { return spec };
        let before = container.mounts.len();
        container.mounts.retain(|mount| !(mount.kind == "bind" && self.is_socket(&mount.source)));
        if container.mounts.len() < before {
            container.labels.entry(LABEL.to_owned()).or_insert_with(|| lend.to_string());
        }
        spec
    }
}

/// Notes what a request lends, or an object was lent.
pub fn note(facts: &mut Facts, access: &EngineAccess) {
    facts.engine_access.insert(access.role.clone());
    facts.secrets.extend(secrets(access));
}

/// Notes what a label lends. One that makes no sense lends nothing: nobody will make a socket of
/// it.
pub fn note_label(facts: &mut Facts, labels: &BTreeMap<String, String>) {
    if let Ok(Some(access)) = engine_access::asked(None, labels) {
        note(facts, &access);
    }
}

/// Secrets that come with what is lent: whoever lends must have them.
fn secrets(access: &EngineAccess) -> Vec<Reference> {
    if access.role == VIEWER {
        return Vec::new();
    }
    let named = access.secrets.iter().map(Reference::named);
    // A role that is about a stack may use the stack's secrets.
    let of_stacks = access
        .stacks
        .iter()
        .map(|stack| Reference { name: format!("{ALL} of stack {stack}"), stack: stack.clone() });
    named.chain(of_stacks).collect()
}

/// What the role is about.
#[must_use]
pub fn scope(access: &EngineAccess) -> Scope {
    let set = |list: &[String]| list.iter().cloned().collect();
    Scope {
        services: set(&access.services),
        stacks: set(&access.stacks),
        secrets: set(&access.secrets),
        configs: set(&access.configs),
        networks: set(&access.networks),
        volumes: set(&access.volumes),
    }
}

/// Refuses a role that nobody knows: it is more likely a slip of the pen.
///
/// # Errors
/// 400.
pub fn check_role(gate: &Gate, access: Option<&EngineAccess>) -> Result<(), ApiError> {
    let Some(access) = access else { return Ok(()) };
    if gate.rules().knows_role(&access.role) {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "cannot lend a socket of role {:?}: it is neither admin, operator, deployer or viewer nor \
         named in a policy; see brig access ls",
        access.role
    )))
}

#[cfg(test)]
mod tests {
    use brig_api::container::Mount;

    use super::*;

    fn binds() -> SocketBinds {
        SocketBinds {
            lend: Some(EngineAccess::parse("viewer").unwrap()),
            sockets: vec!["/run/brig/brig.sock".into()],
        }
    }

    #[test]
    fn binds_of_the_socket_become_lent_ones() {
        let bind = |source: &str, target: &str| Mount {
            kind: "bind".into(),
            source: source.into(),
            target: target.into(),
            ..Mount::default()
        };
        let host = HostConfig {
            binds: vec!["/var/run/docker.sock:/var/run/docker.sock:ro".into(), "v:/v".into()],
            mounts: vec![bind("/run/brig/brig.sock", "/s"), bind("/srv", "/srv")],
            ..HostConfig::default()
        };
        let mut settled = host.clone();
        binds().settle(&BTreeMap::new(), &mut settled).unwrap();
        let access = settled.engine_access.unwrap();
        assert_eq!(
            (access.role.as_str(), access.targets),
            ("viewer", vec!["/var/run/docker.sock".to_owned(), "/s".to_owned()])
        );
        assert_eq!((settled.binds, settled.mounts.len()), (vec!["v:/v".to_owned()], 1));
        // What was asked for by name goes over it.
        let labels = BTreeMap::from([(LABEL.to_owned(), "deployer:service=web".to_owned())]);
        let mut settled = host.clone();
        binds().settle(&labels, &mut settled).unwrap();
        let access = settled.engine_access.unwrap();
        assert_eq!((access.role.as_str(), access.targets.len()), ("deployer", 2));
        let mut settled = host.clone();
        SocketBinds { lend: None, ..binds() }.settle(&BTreeMap::new(), &mut settled).unwrap();
        assert_eq!(settled, host);
        let labels = BTreeMap::from([(LABEL.to_owned(), "a b".to_owned())]);
        assert!(binds().settle(&labels, &mut settled).is_err());
    }

    #[test]
    fn what_comes_with_a_role_is_its_lenders_to_have() {
        let of = |text: &str| {
            let mut facts = Facts::default();
            note(&mut facts, &EngineAccess::parse(text).unwrap());
            facts.secrets
        };
        assert!(of("viewer:stack=shop,secret=db").is_empty());
        let secrets = of("deployer:stack=shop,secret=db");
        assert_eq!(secrets[0], Reference::named("db"));
        assert_eq!(secrets[1].stack, "shop");
    }
}
