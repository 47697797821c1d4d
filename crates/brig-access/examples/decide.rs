//! How long a decision takes: `cargo run --release -p brig-access --example decide [POLICIES]`.
//!
//! Sets of policies: each about a principal of its own, as grants are; and each about everybody with
//! a condition: on the image's name, on its beginning, on labels, and one that only Cedar can tell.

use std::time::{Duration, Instant};

use brig_access::{Action, Facts, Object, Principal, Reference, Request, Rules};

const BINDINGS: &str = r#"{"bindings":[
    {"certificate":"ci","role":"deployer","services":["web"],"secrets":["key"],"networks":["front"]}
]}"#;
const DECISIONS: usize = 20_000;

/// A name, and the text of a policy by its number.
type Policies = (&'static str, fn(usize) -> String);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: usize = std::env::args().nth(1).map_or(Ok(1_000), |text| text.parse())?;
    let sets: [Policies; 5] = [
        ("scoped", |number| {
            format!(
                "permit (principal == Principal::\"cert:{number}\", action == \
                 Action::\"service.update\", resource) when {{ resource.name == \"s{number}\" }};"
            )
        }),
        ("images", |number| about_all(&format!("context.image == \"bad{number}\""))),
        ("prefixes", |number| about_all(&format!("context.image like \"bad{number}/*:latest\""))),
        ("labels", |number| {
            about_all(&format!(
                "context.labels.contains(\"team={number}\") && resource.hasTag(\"x\") && resource.getTag(\"x\") == \"y\""
            ))
        }),
        ("opaque", |number| about_all(&format!("context.labels == [\"team={number}\"]"))),
    ];
    for (name, policy) in sets {
        let text: String = (0..count).map(policy).collect();
        let started = Instant::now();
        let rules = Rules::from_text(&text, BINDINGS)?;
        let loaded = started.elapsed();
        let mut times = measure(&rules)?;
        times.sort_unstable();
        let at = |share: usize| times.get(times.len() * share / 1000).copied().unwrap_or_default();
        println!(
            "{name}: {count} policies loaded in {loaded:?}; decision p50 {:?} p99 {:?} p99.9 {:?}",
            at(500),
            at(990),
            at(999)
        );
    }
    Ok(())
}

fn about_all(condition: &str) -> String {
    format!("forbid (principal, action, resource) when {{ {condition} }};\n")
}

fn measure(rules: &Rules) -> Result<Vec<Duration>, String> {
    let principal = Principal::Certificate {
        name: "ci".to_owned(),
        fingerprint: String::new(),
        grants: Vec::new(),
    };
    let object = Object {
        id: "id".to_owned(),
        service: "web".to_owned(),
        ..Object::named("service", "web")
    };
    let mut facts = Facts {
        makes: true,
        name: "web".to_owned(),
        image: "registry.example/web:2".to_owned(),
        networks: vec![Reference::named("front")],
        ports: ["80:80/tcp".to_owned()].into(),
        ..Facts::default()
    };
    let action = Action::ServiceUpdate;
    let mut times = Vec::with_capacity(DECISIONS);
    for number in 0..DECISIONS {
        facts.image = format!("registry.example/web:{number}");
        let request = Request { principal: &principal, action, object: &object, facts: &facts };
        let started = Instant::now();
        let decision = rules.decide(&request);
        times.push(started.elapsed());
        if !decision.allowed {
            return Err(decision.reason);
        }
    }
    Ok(times)
}
