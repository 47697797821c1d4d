//! Every route and every ready role: what is allowed, what is denied, and what depends.
//!
//! The table is made of the decisions themselves. Each route is asked about twice: on an object
//! that the role is bound to, with a request that asks for nothing special; and on one that it
//! isn't bound to, with a request that asks for everything.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use brig_access::{
    Action, Facts, Grant, LoadError, Object, Principal, Reference, Request, RoleName, Rules, Scope,
};

use super::object;
use crate::server::{Route, Verb};

/// The name of what a role is bound to here.
const OWN: &str = "own";
/// The name of what it is not bound to.
const OTHER: &str = "other";

/// The table, as Markdown.
///
/// # Errors
/// When the built-in rules can't be used.
pub fn render(routes: &[&'static Route]) -> Result<String, LoadError> {
    let rules = Rules::dockers()?;
    let mut text = String::from(
        "# Routes and roles\n\n\
         Made from the route table and the policies of the ready roles; a test compares it. \
         `depends` is allowed for what the role is bound to, or unless the request asks for \
         something that the role forbids.\n\n\
         | method | path | action | admin | operator | deployer | viewer |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for route in routes {
        let verb = match route.verb {
            Verb::Head => "HEAD",
            Verb::Get => "GET",
            Verb::Post => "POST",
            Verb::Put => "PUT",
            Verb::Delete => "DELETE",
        };
        let _ = write!(text, "| {verb} | `{}` | {} |", route.path, route.action);
        for role in RoleName::ALL {
            let _ = write!(text, " {} |", word(&rules, role, route));
        }
        text.push('\n');
    }
    Ok(text)
}

fn word(rules: &Rules, role: RoleName, route: &Route) -> &'static str {
    let names: BTreeSet<String> = [OWN.to_owned()].into();
    let grant = Grant {
        role: role.name().to_owned(),
        scope: Scope {
            services: names.clone(),
            stacks: names.clone(),
            secrets: names.clone(),
            configs: names.clone(),
            networks: names.clone(),
            volumes: names,
        },
    };
    let principal = Principal::Local { uid: 1, gid: 1, pid: 0 };
    let ask = |object: &Object, facts: &Facts| {
        let request = Request { principal: &principal, action: route.action, object, facts };
        rules.decide_in(std::slice::from_ref(&grant), &request).allowed
    };
    let kind = object::kind(route.action);
    let exists = route.path.contains('{');
    let own = |name: &str| Object {
        id: if exists { "id".to_owned() } else { String::new() },
        service: name.to_owned(),
        stack: name.to_owned(),
        secrets: vec![Reference::named(name)],
        ..Object::named(kind, name)
    };
    let wishes = |name: &str, stack: &str| Facts {
        makes: true,
        name: name.to_owned(),
        stack: stack.to_owned(),
        ..Facts::default()
    };
    let modest = wishes(if exists { OWN } else { "own_web" }, OWN);
    let greedy = greedy(route, wishes(OTHER, OTHER));
    let foreign = Object { host_access: ["privileged".to_owned()].into(), ..own(OTHER) };
    match (ask(&own(OWN), &modest), ask(&foreign, &greedy)) {
        (true, true) => "allow",
        (false, false) => "deny",
        (true, false) | (false, true) => "depends",
    }
}

/// The most that a request on this route can ask for.
fn greedy(route: &Route, name: Facts) -> Facts {
    let one = |what: &str| [what.to_owned()].into();
    match route.action {
        Action::ContainerExec => Facts { privileged: true, ..Facts::default() },
        // Only what makes something can ask for something.
        _ if !super::judge::reads_body(route) => Facts::default(),
        Action::SecretCreate
        | Action::SecretUpdate
        | Action::ConfigCreate
        | Action::ConfigUpdate => name,
        Action::NetworkCreate => Facts { other_access: one("network driver macvlan"), ..name },
        Action::VolumeCreate => Facts { host_mounts: one("/"), ..name },
        _ => Facts {
            privileged: true,
            host_mounts: one("/"),
            capabilities: one("SYS_ADMIN"),
            secrets: vec![Reference::named(OTHER)],
            ..name
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set to write the table anew.
    const UPDATE: &str = "BRIG_UPDATE_TABLES";

    #[test]
    fn the_checked_in_table_is_what_the_rules_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/access-table.md");
        let router = crate::routes::router();
        let table = render(router.routes()).unwrap();
        if std::env::var_os(UPDATE).is_some() {
            std::fs::write(path, &table).unwrap();
        }
        let known = std::fs::read_to_string(path).unwrap_or_default();
        for line in table.lines() {
            assert!(known.lines().any(|l| l == line), "missing: {line}\nwrite it with {UPDATE}=1");
        }
        assert_eq!(known, table, "write it anew with {UPDATE}=1");
    }

    #[test]
    fn no_route_is_denied_to_administrators_and_viewers_change_nothing() {
        let rules = Rules::dockers().unwrap();
        for route in crate::routes::router().routes() {
            assert_eq!(word(&rules, RoleName::Admin, route), "allow", "{route:?}");
            if route.action.is_change() {
                assert_eq!(word(&rules, RoleName::Viewer, route), "deny", "{route:?}");
            }
        }
    }
}
