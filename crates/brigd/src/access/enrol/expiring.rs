//! Ends of the access authority and of what it has issued, for `GET /system/expiring`.

use brig_api::expiring::Expiring;
use brig_api::time::rfc3339nano;
use brig_pki::identity::CertInfo;
use time::OffsetDateTime;

use super::register::{self, Standing};
use crate::state::State;

/// Everything that has not been taken away.
#[must_use]
pub fn list(state: &State) -> Vec<Expiring> {
    let now = OffsetDateTime::now_utc();
    let text =
        |at: i64| OffsetDateTime::from_unix_timestamp(at).map(rfc3339nano).unwrap_or_default();
    let word = |over: bool| if over { "expired" } else { "ok" }.to_owned();
    state.authority.with(|access| {
        let authority = CertInfo::from_pem(&access.ca_certificate).ok().map(|info| Expiring {
            kind: "access-ca".to_owned(),
            id: brig_pki::hash::hex(&brig_pki::hash::sha256(&access.ca_certificate)),
            name: "access authority".to_owned(),
            issued: rfc3339nano(info.not_before),
            ends: rfc3339nano(info.not_after),
            state: word(info.not_after < now),
            ..Expiring::default()
        });
        let identities = access.identities.iter().filter_map(|identity| {
            let standing = register::standing(identity, now);
            let last = identity.certificates.iter().max_by_key(|one| one.ends)?;
            (standing != Standing::Revoked).then(|| Expiring {
                kind: "access-certificate".to_owned(),
                id: identity.id.clone(),
                name: identity.name.clone(),
                role: identity.role.clone(),
                issued: text(last.issued),
                ends: text(last.ends),
                renews_from: if identity.renews {
                    text(last.issued.midpoint(last.ends))
                } else {
                    String::new()
                },
                renews_until: if identity.renews { text(last.ends) } else { String::new() },
                state: word(standing == Standing::Expired),
                ..Expiring::default()
            })
        });
        authority.into_iter().chain(identities).collect()
    })
}
