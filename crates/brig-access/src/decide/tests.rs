use super::*;
use crate::bindings::Scope;
use proptest::prelude::*;
use std::collections::BTreeMap;

use crate::facts::{Reference, STACK_LABEL};

fn set(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn ci() -> Principal {
    Principal::Certificate { name: "ci".into(), fingerprint: String::new(), grants: Vec::new() }
}

const BINDINGS: &str = r#"{"bindings":[
    {"certificate":"ci","role":"deployer","services":["web"],"stacks":["shop"],"secrets":["key"],
     "networks":["front"],"volumes":["data"]},
    {"uid":1001,"role":"viewer"},
    {"uid":1002,"role":"operator"},
    {"gid":50,"role":"viewer"}
]}"#;

fn rules() -> Rules {
    Rules::from_text("", BINDINGS).unwrap()
}

fn web() -> Object {
    Object { id: "id1".into(), service: "web".into(), ..Object::named("service", "web") }
}

fn wish() -> Facts {
    Facts { makes: true, name: "web".into(), image: "app:2".into(), ..Facts::default() }
}

fn ask(
    rules: &Rules,
    principal: &Principal,
    action: Action,
    object: &Object,
    facts: &Facts,
) -> Decision {
    rules.decide(&Request { principal, action, object, facts })
}

fn lent(role: &str) -> Principal {
    Principal::Lent { role: role.into(), scope: Scope::default(), container: "c1".into() }
}

fn local(uid: u32, gid: u32) -> Principal {
    Principal::Local { uid, gid, pid: 7 }
}

#[test]
fn without_rules_whoever_got_in_as_docker_lets_in_may_do_everything_and_nobody_else_anything() {
    let rules = Rules::dockers().unwrap();
    for &action in Action::ALL {
        let object = Object::named("x", "x");
        assert!(ask(&rules, &local(1000, 998), action, &object, &Facts::default()).allowed);
        assert!(ask(&rules, &ci(), action, &object, &Facts::default()).allowed);
        let key = Principal::SshKey { fingerprint: "SHA256:x".into(), grants: Vec::new() };
        let decision = ask(&rules, &key, action, &object, &Facts::default());
        assert_eq!((decision.allowed, decision.rule.as_str()), (false, "default"));
        assert!(decision.reason.contains("ssh:SHA256:x"), "{decision:?}");
    }
    assert!(rules.unrestricted(&local(1, 1)) && rules.unrestricted(&ci()));
    let holder = Principal::Certificate {
        name: "ops".into(),
        fingerprint: String::new(),
        grants: vec![crate::Grant::of("admin")],
    };
    assert!(rules.unrestricted(&holder));
    let lent = lent("viewer");
    assert!(ask(&rules, &lent, Action::ServiceList, &Object::default(), &Facts::default()).allowed);
}

#[test]
fn a_deployer_updates_its_service_and_each_refusal_has_its_rule() {
    let rules = rules();
    let stranger = Principal::Certificate {
        name: "other".into(),
        fingerprint: String::new(),
        grants: Vec::new(),
    };
    assert!(rules.powerless(&stranger), "with bindings, only who is bound has a role");
    let update = |facts: &Facts| ask(&rules, &ci(), Action::ServiceUpdate, &web(), facts);
    assert!(update(&wish()).allowed, "{:?}", update(&wish()));
    let granted = Facts {
        secrets: vec![Reference::named("key")],
        networks: vec![Reference::named("front")],
        volumes: vec![Reference::named("data"), Reference::named("shop_db")],
        ports: set(&["80:80/tcp"]),
        ..wish()
    };
    assert!(update(&granted).allowed, "{:?}", update(&granted));
    let refused: [(&str, &str, Facts); 12] = [
        ("deployer/no-privileged", "", Facts { privileged: true, ..wish() }),
        ("deployer/no-host-mounts", "/etc", Facts { host_mounts: set(&["/etc"]), ..wish() }),
        (
            "deployer/no-capabilities",
            "SYS_ADMIN",
            Facts { capabilities: set(&["SYS_ADMIN"]), ..wish() },
        ),
        (
            "deployer/no-host-namespaces",
            "pid=host",
            Facts { host_namespaces: set(&["pid=host"]), ..wish() },
        ),
        ("deployer/no-devices", "/dev/sda", Facts { devices: set(&["/dev/sda"]), ..wish() }),
        (
            "deployer/no-other-access",
            "a plugin",
            Facts { other_access: set(&["a plugin"]), ..wish() },
        ),
        ("base/secret-use", "db", Facts { secrets: vec![Reference::named("db")], ..wish() }),
        (
            "deployer/no-ungranted-networks",
            "back",
            Facts { networks: vec![Reference::named("back")], ..wish() },
        ),
        (
            "deployer/no-ungranted-volumes",
            "other",
            Facts { volumes: vec![Reference::named("other")], ..wish() },
        ),
        (
            "deployer/no-ungranted-configs",
            "conf",
            Facts { configs: vec![Reference::named("conf")], ..wish() },
        ),
        ("deployer/only-named-new", "db", Facts { name: "db".into(), ..wish() }),
        ("deployer/only-named-new", "web", Facts { stack: "shop".into(), ..wish() }),
    ];
    for (rule, detail, facts) in refused {
        let decision = update(&facts);
        assert!(!decision.allowed, "{rule}");
        assert_eq!(decision.rule, rule, "{decision:?}");
        assert!(decision.reason.contains(detail), "{decision:?}");
    }
    let db = Object { service: "db".into(), ..Object::named("service", "db") };
    let other =
        ask(&rules, &ci(), Action::ServiceUpdate, &db, &Facts { name: "db".into(), ..wish() });
    assert_eq!(other.rule, "deployer/only-named");
    for action in [
        Action::ContainerExec,
        Action::ContainerReadFiles,
        Action::ContainerCreate,
        Action::NodeUpdate,
        Action::SwarmInspect,
        Action::VolumeCreate,
        Action::AccessInspect,
        Action::AuditRead,
    ] {
        let decision = ask(&rules, &ci(), action, &web(), &Facts::default());
        assert_eq!((decision.allowed, decision.rule.as_str()), (false, "deployer/default"));
    }
}

#[test]
fn a_stack_is_claimed_by_label_and_name_together() {
    let rules = rules();
    let create = |name: &str, stack: &str| {
        let facts = Facts { name: name.into(), stack: stack.into(), ..wish() };
        let object = Object::named("service", "");
        ask(&rules, &ci(), Action::ServiceCreate, &object, &facts).allowed
    };
    for (name, stack, expected) in [
        ("web", "", true),
        ("shop_api", "shop", true),
        ("web", "shop", true),
        ("api", "shop", false),
        ("shop_", "shop", false),
        ("shop_api", "", false),
        ("shop_api", "bank", false),
        ("web", "bank", false),
        ("", "", false),
    ] {
        assert_eq!(create(name, stack), expected, "{name} of {stack}");
    }
    let of_stack = |kind: &str| {
        Object { id: "i".into(), ..Object::named(kind, "shop_x") }
            .with_labels([(STACK_LABEL.to_owned(), "shop".to_owned())].into())
    };
    for (action, kind) in [(Action::NetworkRemove, "network"), (Action::SecretRemove, "secret")] {
        assert!(ask(&rules, &ci(), action, &of_stack(kind), &Facts::default()).allowed, "{kind}");
    }
    // What the binding only lets be used is not its to remove.
    let front = Object::named("network", "front");
    assert!(!ask(&rules, &ci(), Action::NetworkRemove, &front, &Facts::default()).allowed);
}

#[test]
fn operators_do_not_get_at_the_host_nor_at_rights_nor_at_secrets() {
    let rules = rules();
    let operator = local(1002, 7);
    let box_ = Object::named("container", "box");
    let ask =
        |action, object: &Object, facts: &Facts| ask(&rules, &operator, action, object, facts);
    assert!(ask(Action::ContainerCreate, &box_, &Facts::default()).allowed);
    assert!(ask(Action::ContainerExec, &box_, &Facts::default()).allowed);
    assert!(ask(Action::NodeUpdate, &Object::named("node", "n"), &Facts::default()).allowed);
    let mount = Facts { host_mounts: set(&["/"]), ..Facts::default() };
    let decision = ask(Action::ContainerCreate, &box_, &mount);
    assert_eq!(decision.rule, "operator/no-host-access");
    assert!(decision.reason.contains("mount of /"), "{decision:?}");
    let mighty = Object { host_access: set(&["privileged"]), ..box_.clone() };
    let decision = ask(Action::ContainerExec, &mighty, &Facts::default());
    assert_eq!(decision.rule, "operator/no-reach-into-privileged");
    assert!(ask(Action::ContainerStop, &mighty, &Facts::default()).allowed);
    let holder = Object { secrets: vec![Reference::named("db")], ..box_ };
    for action in [
        Action::ContainerExec,
        Action::ContainerAttach,
        Action::ContainerCommit,
        Action::ContainerExport,
        Action::ContainerReadFiles,
        Action::ContainerWriteFiles,
    ] {
        assert_eq!(ask(action, &holder, &Facts::default()).rule, "base/secret-use", "{action}");
    }
    assert!(ask(Action::ContainerStop, &holder, &Facts::default()).allowed);
    for action in [Action::AccessInspect, Action::AuditRead, Action::SwarmUnlockKey] {
        let decision = ask(action, &Object::default(), &Facts::default());
        assert_eq!(decision.rule, "operator/no-access-administration");
    }
    let trusted =
        Rules::from_text("", r#"{"bindings":[{"uid":1002,"role":"operator","secrets":["*"]}]}"#);
    let request = Request {
        principal: &operator,
        action: Action::ContainerExec,
        object: &holder,
        facts: &Facts::default(),
    };
    assert!(trusted.unwrap().decide(&request).allowed);
}

#[test]
fn bindings_name_principals_and_root_is_never_locked_out() {
    let rules = Rules::from_text("", &BINDINGS.replacen('{', r#"{"local":"none","#, 1)).unwrap();
    let role = |principal: &Principal| {
        let grants = rules.bindings().grants(principal);
        grants.into_iter().map(|grant| grant.role).collect::<Vec<_>>()
    };
    assert_eq!(role(&local(0, 0)), ["admin"]);
    assert_eq!(role(&local(1001, 1)), ["viewer"]);
    assert_eq!(role(&local(5, 50)), ["viewer"]);
    assert_eq!(role(&local(1002, 50)), ["operator", "viewer"]);
    assert_eq!(role(&local(5, 5)), [""; 0]);
    assert_eq!(
        role(&Principal::SshKey { fingerprint: "SHA256:x".into(), grants: Vec::new() }),
        [""; 0]
    );
}

#[test]
fn of_several_roles_the_one_that_allows_counts() {
    let rules = rules();
    let both = local(1002, 50);
    let decision = ask(&rules, &both, Action::ServiceList, &Object::default(), &Facts::default());
    assert!(decision.allowed);
    let viewer = Principal::Local { uid: 1001, gid: 50, pid: 0 };
    assert!(!ask(&rules, &viewer, Action::ServiceRemove, &web(), &Facts::default()).allowed);
    assert!(!ask(&rules, &viewer, Action::EnvironmentRead, &web(), &Facts::default()).allowed);
    assert!(ask(&rules, &viewer, Action::ServiceLogs, &web(), &Facts::default()).allowed);
}

#[test]
fn own_policies_add_rights_and_take_them_from_everybody() {
    let policies = r#"
        @id("pull-ours")
        @reason("images come from our registry")
        forbid (principal, action == Action::"container.create", resource)
        unless { context.image like "registry.corp/*" };

        @id("ci-restarts")
        permit (principal == Principal::"cert:ci", action == Action::"container.restart", resource)
        when { resource.hasTag("team") && resource.getTag("team") == "web" };
    "#;
    let rules = Rules::from_text(policies, BINDINGS).unwrap();
    let image = |image: &str| Facts { image: image.into(), ..Facts::default() };
    let create = |uid, facts: &Facts| {
        ask(&rules, &local(uid, uid), Action::ContainerCreate, &Object::default(), facts)
    };
    assert!(create(0, &image("registry.corp/x")).allowed);
    let denied = create(0, &image("docker.io/x"));
    assert_eq!(
        (denied.rule.as_str(), denied.reason.as_str()),
        ("text/pull-ours", "images come from our registry")
    );
    assert!(!rules.unrestricted(&local(0, 0)));
    let team = |team: &str| {
        Object::named("container", "c").with_labels([("team".to_owned(), team.to_owned())].into())
    };
    assert!(ask(&rules, &ci(), Action::ContainerRestart, &team("web"), &Facts::default()).allowed);
    assert!(!ask(&rules, &ci(), Action::ContainerRestart, &team("db"), &Facts::default()).allowed);
}

#[test]
fn a_policy_that_fails_denies() {
    // Integers overflow at run time only; that passes the validator.
    let policies = r#"
        forbid (principal, action == Action::"container.stop", resource)
        when { 9223372036854775807 + 1 == 0 };
    "#;
    let rules = Rules::from_text(policies, "{}").unwrap();
    let decision = ask(&rules, &local(0, 0), Action::ContainerStop, &web(), &Facts::default());
    assert_eq!((decision.allowed, decision.rule.as_str()), (false, "policy-error"));
    assert!(ask(&rules, &local(0, 0), Action::ContainerStart, &web(), &Facts::default()).allowed);
}

#[test]
fn mistakes_are_told_with_file_and_line() {
    let dir = std::env::temp_dir().join(format!("brig-access-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let load = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        let error = Rules::load(&dir).unwrap_err().to_string();
        std::fs::remove_file(path).unwrap();
        error
    };
    let ok = "permit (principal, action, resource);\n";
    for (name, text, expected) in [
        ("a.cedar", format!("{ok}\npermit (principal, action resource);"), "a.cedar:3"),
        (
            "a.cedar",
            format!("{ok}permit (principal, action, resource) when {{ context.nope }};"),
            "a.cedar:2",
        ),
        (
            "a.cedar",
            "permit (principal, action == Action::\"no.such\", resource);".into(),
            "a.cedar",
        ),
        ("admin.cedar", ok.into(), "built-in role"),
        ("bindings.json", "{\n\"bindings\": [{}]}".into(), "bindings.json:2"),
        (
            "bindings.json",
            r#"{"bindings":[{"uid":1,"gid":2,"role":"viewer"}]}"#.into(),
            "exactly one",
        ),
        ("bindings.json", r#"{"bindings":[{"uid":1,"role":"veiwer"}]}"#.into(), "veiwer"),
        ("bindings.json", r#"{"bindings":[{"user":1,"role":"viewer"}]}"#.into(), "unknown field"),
    ] {
        let error = load(name, &text);
        assert!(error.contains(expected), "{name}: {error}");
    }
    assert!(Rules::load(&dir).is_ok());
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(Rules::load(&dir).unwrap_err().to_string().contains("chmod go-w"));
    std::fs::remove_dir_all(&dir).unwrap();
}

proptest::proptest! {
    /// Whatever else a request asks for, a deployer never gets at the host, and never beyond
    /// what it is bound to.
    #[test]
    fn a_deployer_never_gets_more(
        which in 0_usize..6,
        thing in "[a-z/]{1,8}",
        name in "(web|shop_a|db|bank_a)",
        stack in "(|shop|bank)",
        action in proptest::sample::select(Action::ALL),
    ) {
        static RULES: std::sync::LazyLock<Rules> = std::sync::LazyLock::new(rules);
        let rules = &*RULES;
        let mut facts = Facts { name: name.clone(), stack: stack.clone(), ..wish() };
        let one: BTreeSet<String> = [thing].into();
        match which {
            0 => facts.privileged = true,
            1 => facts.host_mounts = one,
            2 => facts.capabilities = one,
            3 => facts.host_namespaces = one,
            4 => facts.devices = one,
            _ => facts.security_options = one,
        }
        let object = Object { service: name.clone(), stack: stack.clone(), ..Object::named("service", &name) };
        proptest::prop_assert!(!ask(rules, &ci(), action, &object, &facts).allowed);
        let plain = Facts { name, stack, ..wish() };
        let scope = Scope { services: set(&["web"]), stacks: set(&["shop"]), ..Scope::default() };
        let decision = ask(rules, &ci(), action, &object, &plain);
        // Whoever has a certificate may have the next one: with the same rights.
        if action.is_change() && action != Action::AccessRenew && decision.allowed {
            proptest::prop_assert!(scope.owns(&object) || scope.owns_new(&object, &plain));
        }
    }
}

#[test]
fn nobody_lends_more_than_they_have() {
    let policies = r#"
        @id("ci-lends") permit (principal == Principal::"cert:ci", action == Action::"access.lend",
            resource) when { resource.name == "viewer" };
        @id("no-lent-admins") @reason("not here")
        forbid (principal, action == Action::"container.create", resource)
        when { context.engineAccess.contains("admin") };
    "#;
    let plain = rules();
    let lend = |rules: &Rules, who: &Principal, role: &str, secrets: &[&str]| {
        let facts = Facts {
            engine_access: set(&[role]),
            secrets: secrets.iter().map(|name| Reference::named(*name)).collect(),
            ..wish()
        };
        let action = if *who == ci() { Action::ServiceUpdate } else { Action::ContainerCreate };
        let object = if *who == ci() { web() } else { Object::named("container", "") };
        ask(rules, who, action, &object, &facts)
    };
    let operator = local(1002, 1);
    for role in ["operator", "deployer", "viewer"] {
        assert!(lend(&plain, &operator, role, &[]).allowed, "{role}");
        assert!(lend(&plain, &lent("operator"), role, &[]).allowed, "{role}");
        assert!(lend(&plain, &local(0, 0), role, &["db"]).allowed, "{role}");
        for other in [lent("viewer"), lent("deployer"), local(1001, 1)] {
            assert!(!lend(&plain, &other, role, &[]).allowed, "{role}");
        }
        let denied = lend(&plain, &ci(), role, &[]);
        assert_eq!((denied.allowed, denied.rule.as_str()), (false, "base/lend"));
        assert!(denied.reason.ends_with(role), "{denied:?}");
    }
    for role in ["admin", "custom"] {
        assert!(!lend(&plain, &operator, role, &[]).allowed, "{role}");
        assert!(lend(&plain, &local(0, 0), role, &[]).allowed, "{role}");
    }
    assert_eq!(lend(&plain, &operator, "deployer", &["db"]).rule, "base/secret-use");
    let custom = Rules::from_text(policies, BINDINGS).unwrap();
    assert!(lend(&custom, &ci(), "viewer", &[]).allowed);
    assert!(!lend(&custom, &ci(), "operator", &[]).allowed);
    assert_eq!(lend(&custom, &local(0, 0), "admin", &[]).rule, "text/no-lent-admins");
    assert!(lend(&custom, &local(0, 0), "viewer", &[]).allowed);
    assert!(custom.knows_role("viewer") && !custom.knows_role("vieer"));
}

#[test]
fn who_gets_into_a_container_has_what_it_was_lent() {
    let rules = rules();
    let container =
        Object { engine_access: set(&["admin"]), ..Object::named("container", "portainer") };
    let exec = |who: &Principal, action| ask(&rules, who, action, &container, &Facts::default());
    assert_eq!(exec(&local(1002, 1), Action::ContainerExec).rule, "base/lend");
    assert!(exec(&local(1002, 1), Action::ContainerStop).allowed);
    assert!(exec(&local(0, 0), Action::ContainerExec).allowed);
}

#[test]
fn a_lent_role_is_about_what_it_was_lent_for() {
    let rules = rules();
    let scope = Scope { services: set(&["web"]), ..Scope::default() };
    let who = Principal::Lent { role: "deployer".into(), scope, container: "c1".into() };
    assert!(ask(&rules, &who, Action::ServiceUpdate, &web(), &wish()).allowed);
    assert!(!ask(&rules, &lent("deployer"), Action::ServiceUpdate, &web(), &wish()).allowed);
    assert_eq!(who.name(), "lent:deployer");
    assert_eq!(who.container(), "c1");
}

/// A condition that Cedar accepts, of parts that are understood and parts that are not.
fn any_condition() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[ab]".prop_map(|text| format!("context.image == \"{text}\"")),
        "[ab*]{0,3}".prop_map(|text| format!("context.image like \"{text}\"")),
        "[ab]".prop_map(|text| format!("context.hostMounts.contains(\"{text}\")")),
        "[ab]".prop_map(|text| format!("[\"{text}\", \"c\"].contains(resource.stack)")),
        "[ab]".prop_map(|text| format!("context.ports.containsAny([\"{text}\"])")),
        "[ab]".prop_map(|text| format!("context.labels.containsAll([\"{text}=a\"])")),
        "[ab]".prop_map(|text| format!("resource.hasTag(\"{text}\")")),
        "[ab]".prop_map(|text| format!("context.labels == [\"{text}=b\"]")),
        Just("context.ports.isEmpty()".to_owned()),
        Just("context.privileged != false".to_owned()),
        Just("context.own".to_owned()),
        Just("principal in Role::\"deployer\"".to_owned()),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|part| format!("!({part})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) && ({b})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("({a}) || ({b})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    /// Leaving policies out that surely don't apply changes no decision.
    #[test]
    fn conditions_change_how_long_a_decision_takes_and_nothing_else(
        policies in prop::collection::vec((any::<bool>(), any_condition(), any::<bool>()), 1..12),
        images in prop::collection::vec("[ab]{0,2}", 12),
        mounts in prop::collection::btree_set("[ab]", 0..2),
        privileged in any::<bool>(),
    ) {
        let text: String = policies.iter().map(|(permit, condition, when)| format!(
            "{} (principal, action, resource) {} {{ {condition} }};\n",
            if *permit { "permit" } else { "forbid" },
            if *when { "when" } else { "unless" },
        )).collect();
        let rules = Rules::from_text(&text, BINDINGS).unwrap();
        let mut plain = Rules::from_text(&text, BINDINGS).unwrap();
        plain.conditions.fill(Condition::Unknown);
        for (number, image) in images.iter().enumerate() {
            let labels: BTreeMap<String, String> = [(image.clone(), "a".to_owned())].into();
            let object = Object { stack: image.clone(), ..web() }.with_labels(labels.clone());
            let facts = Facts {
                image: image.clone(),
                host_mounts: mounts.clone(),
                ports: mounts.clone(),
                labels,
                privileged: privileged && number % 2 == 0,
                ..wish()
            };
            for principal in [ci(), local(1001, 9), local(1002, 9), lent("viewer")] {
                let ask = |rules: &Rules| ask(rules, &principal, Action::ServiceUpdate, &object, &facts);
                prop_assert_eq!(ask(&rules), ask(&plain), "{}", text);
            }
        }
    }
}

/// Conditions rest on it: what the schema promises is always there, in its type.
#[test]
fn every_attribute_of_the_schema_is_given() {
    let schema = policy::schema().unwrap();
    let names = Names::new().unwrap();
    Attributes::with_places(|attributes| {
        let principal = uid(&names.principal, "a");
        let resource = uid(&names.object, "b");
        let entities = [(&principal, Variable::Principal), (&resource, Variable::Resource)].map(
            |(id, variable)| {
                Entity::new_with_tags(id.clone(), attributes.expressions(variable), [], []).unwrap()
            },
        );
        Entities::from_entities(entities, Some(&schema)).unwrap();
        let context = Context::from_pairs(attributes.expressions(Variable::Context)).unwrap();
        let action = uid(&names.action, Action::ServiceUpdate.name());
        cedar_policy::Request::new(principal, action, resource, context, Some(&schema)).unwrap();
    });
}
