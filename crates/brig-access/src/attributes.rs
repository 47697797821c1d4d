//! Everything that a policy may look at: the attributes of principal, object and context, by their
//! names in the schema. Conditions and Cedar are given the same values.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::RestrictedExpression;

use crate::bindings::{Grant, Scope};
use crate::decide::Request;
use crate::facts::{Facts, Object, Reference};
use crate::principal::{Principal, Transport};

/// What a request takes for granted and its principal was not granted, by name.
#[derive(Debug, Default)]
pub(crate) struct Ungranted {
    pub(crate) secrets: BTreeSet<String>,
    pub(crate) access: BTreeSet<String>,
}

/// What a policy calls the thing that has an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variable {
    Principal,
    Resource,
    Context,
}

/// An attribute's value.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    Text(Cow<'a, str>),
    Flag(bool),
    /// Sorted.
    Set(Vec<Cow<'a, str>>),
}

impl<'a> Value<'a> {
    fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    fn set<T: Into<Cow<'a, str>>>(items: impl IntoIterator<Item = T>) -> Self {
        let mut items: Vec<Cow<'a, str>> = items.into_iter().map(Into::into).collect();
        items.sort_unstable();
        items.dedup();
        Self::Set(items)
    }

    fn references(items: &'a [Reference]) -> Self {
        Self::set(items.iter().map(|item| item.name.as_str()))
    }

    fn expression(&self) -> RestrictedExpression {
        let string = |text: &str| RestrictedExpression::new_string(text.to_owned());
        match self {
            Self::Text(text) => string(text),
            Self::Flag(flag) => RestrictedExpression::new_bool(*flag),
            Self::Set(items) => {
                RestrictedExpression::new_set(items.iter().map(|item| string(item)))
            }
        }
    }
}

/// All attributes of a request, always the same ones in the same order.
#[derive(Debug)]
pub(crate) struct Attributes<'a> {
    list: Vec<(Variable, &'static str, Value<'a>)>,
    labels: &'a BTreeMap<String, String>,
}

impl<'a> Attributes<'a> {
    /// Of a request in a role; `principal` is the name of who asks.
    pub(crate) fn of(
        principal: &'a str,
        grant: &'a Grant,
        request: &Request<'a>,
        ungranted: &'a Ungranted,
    ) -> Self {
        let (object, facts, scope) = (request.object, request.facts, &grant.scope);
        let mut list = Vec::with_capacity(40);
        list.push((Variable::Principal, "kind", Value::text(request.principal.kind())));
        list.push((Variable::Principal, "name", Value::text(principal)));
        list.extend(of_object(object).map(|(name, value)| (Variable::Resource, name, value)));
        let role = ("role", Value::text(&grant.role));
        let transport = ("transport", Value::text(Transport::of(request.principal).name()));
        let context = [role, transport]
            .into_iter()
            .chain(of_facts(facts))
            .chain(of_scope(scope, object, facts))
            .chain(of_ungranted(ungranted));
        list.extend(context.map(|(name, value)| (Variable::Context, name, value)));
        Self { list, labels: &object.labels }
    }

    /// Where each attribute is found, and a value of its kind.
    pub(crate) fn with_places<T>(use_them: impl FnOnce(&Attributes<'_>) -> T) -> T {
        let (principal, object, facts) =
            (Principal::Local { uid: 0, gid: 0, pid: 0 }, Object::default(), Facts::default());
        let request = Request {
            principal: &principal,
            action: crate::action::Action::SecretUse,
            object: &object,
            facts: &facts,
        };
        use_them(&Attributes::of("", &Grant::default(), &request, &Ungranted::default()))
    }

    /// The place of an attribute.
    pub(crate) fn place(&self, variable: Variable, name: &str) -> Option<usize> {
        self.list.iter().position(|(of, known, _)| *of == variable && *known == name)
    }

    /// The value at a place.
    pub(crate) fn at(&self, place: usize) -> Option<&Value<'a>> {
        self.list.get(place).map(|(_, _, value)| value)
    }

    /// The object's labels, which are its tags.
    pub(crate) const fn labels(&self) -> &'a BTreeMap<String, String> {
        self.labels
    }

    /// Those of one variable, for Cedar.
    pub(crate) fn expressions(
        &self,
        variable: Variable,
    ) -> impl Iterator<Item = (String, RestrictedExpression)> {
        self.list
            .iter()
            .filter(move |(of, _, _)| *of == variable)
            .map(|(_, name, value)| ((*name).to_owned(), value.expression()))
    }

    /// The object's labels, for Cedar.
    pub(crate) fn tags(&self) -> impl Iterator<Item = (String, RestrictedExpression)> {
        self.labels
            .iter()
            .map(|(name, value)| (name.clone(), RestrictedExpression::new_string(value.clone())))
    }
}

type Named<'a> = (&'static str, Value<'a>);

fn of_object(object: &Object) -> [Named<'_>; 9] {
    [
        ("kind", Value::text(&object.kind)),
        ("id", Value::text(&object.id)),
        ("name", Value::text(&object.name)),
        ("service", Value::text(&object.service)),
        ("stack", Value::text(&object.stack)),
        ("image", Value::text(&object.image)),
        ("secrets", Value::references(&object.secrets)),
        ("hostAccess", Value::set(&object.host_access)),
        ("engineAccess", Value::set(&object.engine_access)),
    ]
}

fn of_facts(facts: &Facts) -> [Named<'_>; 17] {
    let labels = facts.labels.iter().map(|(key, value)| format!("{key}={value}"));
    [
        ("name", Value::text(&facts.name)),
        ("image", Value::text(&facts.image)),
        ("privileged", Value::Flag(facts.privileged)),
        ("hostMounts", Value::set(&facts.host_mounts)),
        ("capabilities", Value::set(&facts.capabilities)),
        ("hostNamespaces", Value::set(&facts.host_namespaces)),
        ("devices", Value::set(&facts.devices)),
        ("securityOptions", Value::set(&facts.security_options)),
        ("otherAccess", Value::set(&facts.other_access)),
        ("hostAccess", Value::set(facts.host_access())),
        ("networks", Value::references(&facts.networks)),
        ("volumes", Value::references(&facts.volumes)),
        ("ports", Value::set(&facts.ports)),
        ("secrets", Value::references(&facts.secrets)),
        ("configs", Value::references(&facts.configs)),
        ("labels", Value::set(labels)),
        ("engineAccess", Value::set(&facts.engine_access)),
    ]
}

fn of_scope<'a>(scope: &Scope, object: &Object, facts: &Facts) -> [Named<'a>; 5] {
    [
        ("own", Value::Flag(scope.owns(object))),
        ("ownNew", Value::Flag(scope.owns_new(object, facts))),
        ("ungrantedConfigs", Value::set(scope.missing(&scope.configs, &facts.configs))),
        ("ungrantedNetworks", Value::set(scope.missing(&scope.networks, &facts.networks))),
        ("ungrantedVolumes", Value::set(missing_volumes(scope, facts))),
    ]
}

fn of_ungranted(ungranted: &Ungranted) -> [Named<'_>; 2] {
    [
        ("ungrantedSecrets", Value::set(&ungranted.secrets)),
        ("ungrantedAccess", Value::set(&ungranted.access)),
    ]
}

/// A stack's volumes are known by their names: they have no labels before they exist.
pub(crate) fn missing_volumes(scope: &Scope, facts: &Facts) -> BTreeSet<String> {
    let mut missing = scope.missing(&scope.volumes, &facts.volumes);
    missing.retain(|name| {
        !scope.stacks.iter().any(|stack| {
            name.strip_prefix(stack.as_str()).is_some_and(|rest| rest.starts_with('_'))
        })
    });
    missing
}
