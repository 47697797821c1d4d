//! The decision as a table, and against what it must never do.

use proptest::prelude::*;
use time::macros::datetime;

use super::*;

const FROM: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);

fn valid_for(hours: i64) -> CertInfo {
    CertInfo {
        not_before: FROM,
        not_after: FROM + time::Duration::hours(hours),
        subject: "CN=node".to_owned(),
        issuer: "CN=swarm-ca".to_owned(),
        issuer_der: Vec::new(),
        subject_der: Vec::new(),
        public_key_der: Vec::new(),
    }
}

fn decide(
    root: &Root,
    registered: bool,
    hours: i64,
    after: time::Duration,
) -> Result<Standing, Refusal> {
    let certificate = valid_for(hours);
    Facts { root, registered, certificate: &certificate, now: FROM + after }.standing()
}

#[test]
fn the_grace_is_as_long_as_the_certificate_lived_up_to_thirty_days() {
    let grace = |hours| grace_end(&valid_for(hours)) - valid_for(hours).not_after;
    assert_eq!(grace(2), time::Duration::hours(2));
    assert_eq!(grace(30 * 24), time::Duration::days(30));
    assert_eq!(grace(90 * 24), MAX_GRACE);
    assert_eq!(grace(-5), time::Duration::ZERO);
}

#[test]
fn every_row_of_the_table() {
    let hour = time::Duration::HOUR;
    let unfit = Root::Unfit("x".to_owned());
    for root in [&Root::Present, &Root::Foreign, &Root::SelfSigned, &unfit] {
        assert_eq!(decide(root, true, 2, hour), Ok(Standing::Full));
        let until = FROM + hour * 4;
        assert_eq!(decide(root, true, 2, hour * 3), Ok(Standing::RenewOnly { until }));
        let since = FROM + hour * 2;
        assert_eq!(decide(root, true, 2, hour * 5), Err(Refusal::GraceOver { since, until }));
        let early = decide(root, true, 2, -hour);
        assert_eq!(early, Err(Refusal::NotYetValid { from: FROM, now: FROM - hour }));
    }
    assert_eq!(decide(&Root::Present, false, 2, hour), Ok(Standing::Full));
    let since = FROM + hour * 2;
    let expired = decide(&Root::Present, false, 2, hour * 3);
    assert_eq!(expired, Err(Refusal::ExpiredUnknown { since }));
    assert!(expired.unwrap_err().to_string().contains("2026-01-01T02:00:00Z"));
    let foreign = Refusal::ForeignRoot { issuer: "CN=swarm-ca".to_owned() };
    assert_eq!(decide(&Root::Foreign, false, 2, hour), Err(foreign));
    assert_eq!(decide(&Root::SelfSigned, false, 2, hour), Err(Refusal::SelfSigned));
    assert_eq!(decide(&unfit, false, 2, hour), Err(Refusal::Unfit("x".to_owned())));
}

fn roots() -> impl Strategy<Value = Root> {
    prop_oneof![
        Just(Root::Present),
        Just(Root::Foreign),
        Just(Root::SelfSigned),
        Just(Root::Unfit(String::new())),
    ]
}

proptest! {
    #[test]
    fn belief_needs_a_reason(
        root in roots(),
        registered: bool,
        lifetime in -10_i64..20_000,
        minutes in -1_000_000_i64..4_000_000,
    ) {
        let certificate = valid_for(lifetime);
        let now = FROM + time::Duration::minutes(minutes);
        let facts = Facts { root: &root, registered, certificate: &certificate, now };
        let until = grace_end(&certificate);
        match facts.standing() {
            Ok(Standing::Full) => {
                prop_assert!(registered || root == Root::Present);
                prop_assert!(certificate.is_valid_at(now));
            }
            Ok(Standing::RenewOnly { until: told }) => {
                prop_assert!(registered, "only what is registered is renewed");
                prop_assert!(certificate.not_after < now && now <= until);
                prop_assert_eq!(told, until);
                prop_assert!(until - certificate.not_after <= MAX_GRACE);
            }
            Err(refusal) => {
                let believable = registered || root == Root::Present;
                prop_assert!(!(believable && certificate.is_valid_at(now)), "{refusal}");
                prop_assert!(
                    !(registered && certificate.not_after < now
                        && certificate.not_before <= now && now <= until),
                    "{refusal}"
                );
            }
        }
    }

    #[test]
    fn belief_never_comes_back(
        registered: bool,
        lifetime in 1_i64..10_000,
        first in 0_i64..2_000_000,
        later in 0_i64..2_000_000,
    ) {
        let certificate = valid_for(lifetime);
        let rank = |minutes| {
            let now = FROM + time::Duration::minutes(minutes);
            let facts =
                Facts { root: &Root::Present, registered, certificate: &certificate, now };
            match facts.standing() {
                Ok(Standing::Full) => 2,
                Ok(Standing::RenewOnly { .. }) => 1,
                Err(_) => 0,
            }
        };
        prop_assert!(rank(first) >= rank(first + later));
    }
}
