//! The decision.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::path::Path;
use std::sync::{Arc, RwLock};

use cedar_policy::{
    ActionConstraint, Authorizer, Context, Entities, Entity, EntityId, EntityTypeName, EntityUid,
    PolicySet, PrincipalConstraint, Schema,
};

use crate::action::{Action, Class};
use crate::attributes::{Attributes, Ungranted, Variable, missing_volumes};
use crate::bindings::{Bindings, Grant};
use crate::condition::Condition;
use crate::facts::{Facts, Object};
use crate::policy::{self, LoadError, Loaded, RoleName};
use crate::principal::Principal;

/// Most selections of policies that are kept.
const MAX_SLICES: usize = 4_096;

/// Somebody wants something.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who.
    pub principal: &'a Principal,
    /// What.
    pub action: Action,
    /// On what.
    pub object: &'a Object,
    /// With which wishes.
    pub facts: &'a Facts,
}

/// The answer, and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// The policy that decided: `deployer/no-host-mounts`.
    pub rule: String,
    /// The role in which it was asked; empty when there was none.
    pub role: String,
    /// Why it was denied, for people.
    pub reason: String,
}

type SliceKey = (Action, String, String, Vec<String>);

/// Policies by their places in the list.
type Selection = Vec<u32>;

/// All policies and bindings, ready to decide.
#[derive(Debug)]
pub struct Rules {
    names: Names,
    policies: Vec<Loaded>,
    /// When each of the policies has a say.
    conditions: Vec<Condition>,
    custom: usize,
    bindings: Bindings,
    authorizer: Authorizer,
    actions: HashMap<Action, (EntityUid, Vec<Entity>)>,
    slices: RwLock<HashMap<SliceKey, Arc<Selection>>>,
    sets: RwLock<HashMap<Selection, Arc<PolicySet>>>,
}

/// Names of entity types, parsed once.
#[derive(Debug)]
struct Names {
    principal: EntityTypeName,
    role: EntityTypeName,
    action: EntityTypeName,
    object: EntityTypeName,
}

impl Names {
    fn new() -> Result<Self, LoadError> {
        let name = |text: &str| {
            text.parse::<EntityTypeName>().map_err(|error| LoadError::BuiltIn(error.to_string()))
        };
        Ok(Self {
            principal: name("Principal")?,
            role: name("Role")?,
            action: name("Action")?,
            object: name("Object")?,
        })
    }
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

impl Rules {
    /// Docker's rule: no policies of the operator's, local processes may do everything.
    ///
    /// # Errors
    /// [`LoadError::BuiltIn`].
    pub fn dockers() -> Result<Self, LoadError> {
        Self::new(&policy::schema()?, Vec::new(), Bindings::default())
    }

    /// Reads a directory of policies and bindings. A missing directory gives docker's rule.
    ///
    /// # Errors
    /// [`LoadError`] with the file and the line.
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        let schema = policy::schema()?;
        let found = policy::read_dir(dir, &schema)?;
        let rules = Self::new(&schema, found.policies, found.bindings)?;
        rules.check_roles(&dir.join(policy::BINDINGS_FILE))?;
        Ok(rules)
    }

    /// Rules of these texts, for tests and measurements.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn from_text(policies: &str, bindings: &str) -> Result<Self, LoadError> {
        let schema = policy::schema()?;
        let policies = policy::parse("text", policies, &schema, Some("text"))?;
        Self::new(&schema, policies, policy::parse_bindings(Path::new("text"), bindings)?)
    }

    fn new(
        schema: &Schema,
        custom: Vec<cedar_policy::Policy>,
        bindings: Bindings,
    ) -> Result<Self, LoadError> {
        let names = Names::new()?;
        let mut policies = policy::built_in(schema)?;
        let count = custom.len();
        policies.extend(custom.into_iter().map(|policy| Loaded { policy, role: None }));
        let mut seen = BTreeSet::new();
        for loaded in &policies {
            let id = loaded.policy.id().to_string();
            if let Some(id) = seen.replace(id) {
                let reason = "the @id is used twice".to_owned();
                return Err(LoadError::Policy { place: id, reason });
            }
        }
        let class = |class: Class| uid(&names.action, class.name());
        let actions = Action::ALL
            .iter()
            .map(|&action| {
                let own = uid(&names.action, action.name());
                let parent = class(action.class());
                let entities = vec![
                    Entity::new_no_attrs(own.clone(), [parent.clone()].into()),
                    Entity::new_no_attrs(parent, [].into()),
                ];
                (action, (own, entities))
            })
            .collect();
        let conditions = Attributes::with_places(|places| {
            policies.iter().map(|loaded| Condition::of(&loaded.policy, places)).collect()
        });
        Ok(Self {
            names,
            policies,
            conditions,
            custom: count,
            bindings,
            authorizer: Authorizer::new(),
            actions,
            slices: RwLock::default(),
            sets: RwLock::default(),
        })
    }

    /// A role that no policy mentions gives nothing; it is more likely a slip of the pen.
    fn check_roles(&self, path: &Path) -> Result<(), LoadError> {
        let known = |role: &str| self.knows_role(role);
        let bound = self.bindings.bindings.iter().map(|binding| binding.role.as_str());
        let local = self.bindings.local.as_deref().filter(|role| *role != "none");
        match bound.chain(local).find(|role| !known(role)) {
            None => Ok(()),
            Some(role) => Err(LoadError::Bindings {
                path: path.to_owned(),
                line: 0,
                reason: format!(
                    "role {role:?} is neither admin, operator, deployer or viewer nor named in a policy"
                ),
            }),
        }
    }

    /// Whether there is a role of this name: a ready one, or one that a policy names.
    #[must_use]
    pub fn knows_role(&self, role: &str) -> bool {
        let custom = self.policies.iter().skip(self.policies.len().saturating_sub(self.custom));
        RoleName::ALL.iter().any(|known| known.name() == role)
            || custom
                .map(|loaded| loaded.policy.to_string())
                .any(|text| text.contains(&format!("{role:?}")))
    }

    /// Whether this principal may do everything, so that nothing needs to be looked at.
    #[must_use]
    pub fn unrestricted(&self, principal: &Principal) -> bool {
        self.custom == 0
            && self
                .bindings
                .grants(principal)
                .iter()
                .any(|grant| grant.role == RoleName::Admin.name())
    }

    /// Whether this principal has no role, and no policy could give it anything.
    #[must_use]
    pub fn powerless(&self, principal: &Principal) -> bool {
        self.custom == 0 && self.bindings.grants(principal).is_empty()
    }

    /// The bindings.
    #[must_use]
    pub const fn bindings(&self) -> &Bindings {
        &self.bindings
    }

    /// Every policy: its name, whether it forbids, its text.
    pub fn policies(&self) -> impl Iterator<Item = (String, bool, String)> + '_ {
        self.policies.iter().map(|loaded| {
            (loaded.policy.id().to_string(), loaded.forbids(), loaded.policy.to_string())
        })
    }

    /// Decides. The first role of the principal that allows it counts; among denials the one of a
    /// rule that forbids says more than that nothing allows it.
    #[must_use]
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        if self.unrestricted(request.principal) {
            return Decision {
                allowed: true,
                rule: "admin/all".to_owned(),
                role: RoleName::Admin.name().to_owned(),
                reason: String::new(),
            };
        }
        self.decide_in(&self.bindings.grants(request.principal), request)
    }

    /// Decides with roles given from outside.
    #[must_use]
    pub fn decide_in(&self, grants: &[Grant], request: &Request<'_>) -> Decision {
        let nobody = [Grant::default()];
        let considered = match grants {
            [] if self.custom == 0 => {
                return Decision {
                    allowed: false,
                    rule: "default".to_owned(),
                    role: String::new(),
                    reason: format!("no role is bound to {}", request.principal.name()),
                };
            }
            [] => &nobody[..],
            some => some,
        };
        let roles: Vec<String> = grants.iter().map(|grant| grant.role.clone()).collect();
        let mut denial: Option<Decision> = None;
        for grant in considered {
            let decision = self.judge(grant, &roles, request);
            if decision.allowed {
                return decision;
            }
            let says_more = denial.as_ref().is_none_or(|known| {
                known.rule.ends_with("default") && !decision.rule.ends_with("default")
            });
            if says_more {
                denial = Some(decision);
            }
        }
        denial.unwrap_or_else(|| broken("", "no role was considered"))
    }

    fn judge(&self, grant: &Grant, roles: &[String], request: &Request<'_>) -> Decision {
        let mut ungranted = Ungranted::default();
        if !matches!(request.action, Action::SecretUse | Action::AccessLend) {
            let nothing = BTreeSet::new();
            let (held, lent): (&[_], _) = match request.action.class() {
                Class::Reach => (&request.object.secrets, &request.object.engine_access),
                Class::Read
                | Class::Logs
                | Class::Guarded
                | Class::Change
                | Class::Administration => (&[], &nothing),
            };
            for secret in request.facts.secrets.iter().chain(held) {
                let object = Object {
                    kind: "secret".to_owned(),
                    name: secret.name.clone(),
                    stack: secret.stack.clone(),
                    ..Object::default()
                };
                let use_it = Request {
                    principal: request.principal,
                    action: Action::SecretUse,
                    object: &object,
                    facts: &Facts::default(),
                };
                if !self.evaluate(grant, roles, &use_it, &Ungranted::default()).allowed {
                    ungranted.secrets.insert(secret.name.clone());
                }
            }
            for role in request.facts.engine_access.iter().chain(lent) {
                let object = Object::named("access", role);
                let lend = Request {
                    principal: request.principal,
                    action: Action::AccessLend,
                    object: &object,
                    facts: &Facts::default(),
                };
                if !self.evaluate(grant, roles, &lend, &Ungranted::default()).allowed {
                    ungranted.access.insert(role.clone());
                }
            }
        }
        self.evaluate(grant, roles, request, &ungranted)
    }

    fn evaluate(
        &self,
        grant: &Grant,
        roles: &[String],
        request: &Request<'_>,
        ungranted: &Ungranted,
    ) -> Decision {
        let role = grant.role.as_str();
        let Some((action, action_entities)) = self.actions.get(&request.action) else {
            return broken(role, "the action is unknown");
        };
        let name = request.principal.name();
        let principal = uid(&self.names.principal, &name);
        let resource_id = format!("{}:{}", request.object.kind, request.object.label());
        let resource = uid(&self.names.object, &resource_id);
        let parents: Vec<EntityUid> =
            roles.iter().map(|role| uid(&self.names.role, role)).collect();
        let attributes = Attributes::of(&name, grant, request, ungranted);
        let built = (|| {
            let mut entities = action_entities.clone();
            entities.push(
                Entity::new_with_tags(
                    principal.clone(),
                    attributes.expressions(Variable::Principal),
                    parents.clone(),
                    [],
                )
                .map_err(|error| error.to_string())?,
            );
            entities.push(
                Entity::new_with_tags(
                    resource.clone(),
                    attributes.expressions(Variable::Resource),
                    [],
                    attributes.tags(),
                )
                .map_err(|error| error.to_string())?,
            );
            let entities =
                Entities::from_entities(entities, None).map_err(|error| error.to_string())?;
            let context = Context::from_pairs(attributes.expressions(Variable::Context))
                .map_err(|error| error.to_string())?;
            let request = cedar_policy::Request::new(
                principal.clone(),
                action.clone(),
                resource,
                context,
                None,
            )
            .map_err(|error| error.to_string())?;
            Ok::<_, String>((request, entities))
        })();
        let (cedar, entities) = match built {
            Ok(built) => built,
            Err(reason) => return broken(role, &reason),
        };
        let slice = self.slice(request.action, role, &name, roles, &principal, &parents);
        let policies = match self.applicable(&slice, &attributes) {
            Ok(policies) => policies,
            Err(reason) => return broken(role, &reason),
        };
        let response = self.authorizer.is_authorized(&cedar, &policies, &entities);
        // SECURITY: a policy that fails is skipped; a skipped `forbid` would open what it closes.
        if let Some(error) = response.diagnostics().errors().next() {
            return broken(role, &error.to_string());
        }
        let allowed = response.decision() == cedar_policy::Decision::Allow;
        let mut reasons: Vec<String> =
            response.diagnostics().reason().map(ToString::to_string).collect();
        reasons.sort_unstable();
        let deciding = reasons.into_iter().next();
        let reason = match (&deciding, allowed) {
            (_, true) => String::new(),
            (Some(rule), false) => denial(&policies, rule, grant, request, ungranted),
            (None, false) if role.is_empty() => {
                format!("no role is bound to {name}, and no policy allows {}", request.action)
            }
            (None, false) => format!("role {role:?} does not allow {}", request.action),
        };
        let rule = deciding.unwrap_or_else(|| {
            if role.is_empty() { "default".to_owned() } else { format!("{role}/default") }
        });
        Decision { allowed, rule, role: role.to_owned(), reason }
    }

    /// The policies that can have a say, by their scopes: a policy whose scope doesn't fit is
    /// neither satisfied nor in error, so leaving it out changes nothing.
    fn slice(
        &self,
        action: Action,
        role: &str,
        name: &str,
        roles: &[String],
        principal: &EntityUid,
        parents: &[EntityUid],
    ) -> Arc<Selection> {
        let key = (action, role.to_owned(), name.to_owned(), roles.to_vec());
        if let Ok(slices) = self.slices.read()
            && let Some(found) = slices.get(&key)
        {
            return Arc::clone(found);
        }
        let own = uid(&self.names.action, action.name());
        let class = uid(&self.names.action, action.class().name());
        let fits = |loaded: &Loaded| {
            let about_action = match loaded.policy.action_constraint() {
                ActionConstraint::Any => true,
                ActionConstraint::Eq(other) => other == own,
                ActionConstraint::In(list) => list.contains(&own) || list.contains(&class),
            };
            let about_principal = match loaded.policy.principal_constraint() {
                PrincipalConstraint::Any => true,
                PrincipalConstraint::Eq(other) => other == *principal,
                PrincipalConstraint::In(other) => other == *principal || parents.contains(&other),
                PrincipalConstraint::Is(kind) => kind == self.names.principal,
                PrincipalConstraint::IsIn(kind, other) => {
                    kind == self.names.principal
                        && (other == *principal || parents.contains(&other))
                }
            };
            let about_role = loaded.role.is_none_or(|built_in| built_in == role);
            about_action && about_principal && about_role
        };
        let numbered = (0_u32..).zip(&self.policies);
        let slice: Selection =
            numbered.filter(|(_, loaded)| fits(loaded)).map(|(number, _)| number).collect();
        keep(&self.slices, key, Arc::new(slice))
    }

    /// Those of a slice whose conditions are not surely false.
    fn applicable(
        &self,
        slice: &[u32],
        attributes: &Attributes<'_>,
    ) -> Result<Arc<PolicySet>, String> {
        let condition = |number: &u32| self.conditions.get(*number as usize);
        let key: Selection = slice
            .iter()
            .filter(|number| {
                condition(number).is_none_or(|known| known.holds(attributes) != Some(false))
            })
            .copied()
            .collect();
        if let Ok(sets) = self.sets.read()
            && let Some(found) = sets.get(&key)
        {
            return Ok(Arc::clone(found));
        }
        let mut set = PolicySet::new();
        for loaded in key.iter().filter_map(|number| self.policies.get(*number as usize)) {
            set.add(loaded.policy.clone()).map_err(|error| error.to_string())?;
        }
        Ok(keep(&self.sets, key, Arc::new(set)))
    }
}

/// Remembers a value; when there are too many, starts anew.
fn keep<K: Eq + Hash, V>(cache: &RwLock<HashMap<K, Arc<V>>>, key: K, value: Arc<V>) -> Arc<V> {
    if let Ok(mut kept) = cache.write() {
        if kept.len() >= MAX_SLICES {
            kept.clear();
        }
        kept.insert(key, Arc::clone(&value));
    }
    value
}

/// SECURITY: what can't be decided is denied.
fn broken(role: &str, reason: &str) -> Decision {
    Decision {
        allowed: false,
        rule: "policy-error".to_owned(),
        role: role.to_owned(),
        reason: format!("a policy cannot be evaluated: {reason}"),
    }
}

/// Why a rule denies, with what it is about.
fn denial(
    policies: &PolicySet,
    rule: &str,
    grant: &Grant,
    request: &Request<'_>,
    ungranted: &Ungranted,
) -> String {
    let id = cedar_policy::PolicyId::new(rule);
    let text = policies.annotation(&id, "reason").unwrap_or("a policy forbids it");
    let facts = request.facts;
    let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
    let object = request.object;
    let scope = &grant.scope;
    let short = rule.rsplit('/').next().unwrap_or(rule);
    let detail = match short {
        "no-host-mounts" => names(&facts.host_mounts),
        "no-capabilities" => names(&facts.capabilities),
        "no-host-namespaces" => names(&facts.host_namespaces),
        "no-devices" => names(&facts.devices),
        "no-security-options" => names(&facts.security_options),
        "no-other-access" => names(&facts.other_access),
        "no-host-access" => names(&facts.host_access()),
        "no-reach-into-privileged" | "no-change-of-privileged" => names(&object.host_access),
        "secret-use" => names(&ungranted.secrets),
        "lend" => names(&ungranted.access),
        "no-ungranted-networks" => names(&scope.missing(&scope.networks, &facts.networks)),
        "no-ungranted-volumes" => names(&missing_volumes(scope, facts)),
        "no-ungranted-configs" => names(&scope.missing(&scope.configs, &facts.configs)),
        "only-named" => object.label().to_owned(),
        "only-named-new" => facts.name.clone(),
        _ => String::new(),
    };
    if detail.is_empty() { text.to_owned() } else { format!("{text}: {detail}") }
}

#[cfg(test)]
mod tests;
