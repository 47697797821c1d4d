//! `/brig/access/…`: identities, newcomers, SSH keys.

use std::time::Duration;

use brig_access::{Grant, Principal};
use brig_api::time::rfc3339nano;
use brig_pki::access_ca::Issued;
use brig_proto::brig::AccessIdentity;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::newcomers::{MAX_OPEN, Welcome};
use super::register::{self, Wanted};
use super::ssh::{Key, Login, PublicKey, ShownScope};
use crate::config::Host;
use crate::route;
use crate::server::{ApiError, Call, Response, Route, body};
use crate::state::State;

type Answer = Result<Response, ApiError>;

/// Largest body: a signing request and some names.
const BODY: usize = 256 << 10;
/// Lifetime of certificates when nobody says otherwise.
const DEFAULT_LIFETIME: u64 = 24 * 3600;

/// Routes about identities.
pub static ROUTES: &[Route] = &[
    route!(GET "/brig/access/identities", AccessInspect, identities),
    route!(POST "/brig/access/identities", AccessIssue, issue, json(BODY)),
    route!(DELETE "/brig/access/identities/{name}", AccessRevoke, revoke),
    route!(POST "/brig/access/renew", AccessRenew, renew, json(BODY)),
    route!(GET "/brig/access/newcomers", AccessInspect, newcomers),
    route!(POST "/brig/access/newcomers", AccessEnrol, open),
    route!(POST "/brig/access/newcomers/{code}/approve", AccessIssue, approve, json(BODY)),
    route!(DELETE "/brig/access/newcomers/{code}", AccessEnrol, turn_away),
    route!(GET "/brig/access/ssh", AccessInspect, keys),
    route!(POST "/brig/access/ssh", AccessIssue, add_key, json(BODY)),
    route!(DELETE "/brig/access/ssh/{key*}", AccessRevoke, remove_key),
];

fn text(at: i64) -> String {
    OffsetDateTime::from_unix_timestamp(at).map(rfc3339nano).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownIdentity {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    role: String,
    #[serde(flatten)]
    scope: ShownScope,
    state: &'static str,
    renews: bool,
    issued_by: String,
    created: String,
    issued: String,
    ends: String,
    revoked: String,
    last_seen: String,
    fingerprints: Vec<String>,
}

fn shown(state: &State, identity: &AccessIdentity, now: OffsetDateTime) -> ShownIdentity {
    let last = identity.certificates.iter().max_by_key(|one| one.ends);
    ShownIdentity {
        id: identity.id.clone(),
        name: identity.name.clone(),
        role: identity.role.clone(),
        scope: (&register::grant(identity).scope).into(),
        state: register::standing(identity, now).as_str(),
        renews: identity.renews,
        issued_by: identity.issued_by.clone(),
        created: text(identity.created),
        issued: last.map(|one| text(one.issued)).unwrap_or_default(),
        ends: text(register::ends(identity)),
        revoked: if identity.revoked == 0 { String::new() } else { text(identity.revoked) },
        last_seen: state.authority.last_seen(&identity.id).map(rfc3339nano).unwrap_or_default(),
        fingerprints: identity
            .certificates
            .iter()
            .map(|one| brig_pki::hash::hex(&one.fingerprint))
            .collect(),
    }
}

/// `GET /brig/access/identities`.
async fn identities(call: Call) -> Answer {
    let now = OffsetDateTime::now_utc();
    let state = &call.state;
    let list: Vec<ShownIdentity> = state.authority.with(|access| {
        access.identities.iter().map(|identity| shown(state, identity, now)).collect()
    });
    body::ok(&list)
}

/// What somebody is to be; the facts that policies judge as well.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Wish {
    /// The name; also as `name` of the query, where the audit log finds it.
    pub name: String,
    /// The role.
    pub role: String,
    #[serde(flatten)]
    scope: ShownScope,
    /// In seconds.
    lifetime: u64,
    renews: bool,
    /// The signing request, PEM.
    request: String,
    /// Where the client reaches this engine, if it knows.
    host: String,
    /// An SSH key.
    key: String,
    user: String,
    /// Answer the line only.
    print: bool,
}

impl Wish {
    fn grant(&self, call: &Call) -> Result<Grant, ApiError> {
        let role = &self.role;
        if role.is_empty() {
            return Err(ApiError::invalid("a role is needed: --role viewer"));
        }
        if !call.state.gate.rules().knows_role(role) {
            return Err(ApiError::invalid(format!(
                "role {role:?} is neither admin, operator, deployer or viewer nor named in a policy"
            )));
        }
        Ok(Grant { role: role.clone(), scope: self.scope.clone().into() })
    }

    fn wanted(&self, call: &Call, name: &str) -> Result<Wanted, ApiError> {
        let lifetime = if self.lifetime == 0 { DEFAULT_LIFETIME } else { self.lifetime };
        let wanted = Wanted {
            name: name.to_owned(),
            grant: self.grant(call)?,
            lifetime: Duration::from_secs(lifetime),
            renews: self.renews,
            issued_by: call.authorized.principal().name(),
        };
        // Two sources of rights under one name would be more than whoever issues this asked for.
        let rules = call.state.gate.rules();
        let mut bound = rules.bindings().bindings.iter();
        if bound.any(|binding| binding.certificate.as_deref() == Some(name)) {
            return Err(ApiError::conflict(format!(
                "bindings.json gives cert:{name} a role already: choose another name"
            )));
        }
        Ok(wanted)
    }
}

fn named(call: &Call, wish: &Wish) -> String {
    if wish.name.is_empty() {
        call.query.text("name").unwrap_or_default().to_owned()
    } else {
        wish.name.clone()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    name: String,
    role: String,
    certificate: String,
    authority: String,
    fingerprint: String,
    ends: String,
    renews: bool,
    /// Where this engine can be reached, as it knows it.
    hosts: Vec<String>,
}

fn pem(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What the port's certificate is checked against: the operator's authority where there is one.
async fn server_authority(state: &State, own: &[u8]) -> Result<String, ApiError> {
    let path = state.config.tls.as_ref().filter(|_| !state.config.tls_auto);
    let Some(path) = path.and_then(|files| files.ca.clone()) else { return Ok(pem(own)) };
    let read = move || {
        super::files::read(&path)?.ok_or_else(|| {
            super::EnrolError::NotFound(format!("there is no CA certificate at {}", path.display()))
        })
    };
    crate::api::blocking::blocking(read).await.map(|bytes| pem(&bytes))
}

fn hosts(state: &State) -> Vec<String> {
    let name = &state.host.hostname;
    let of = |address: &String| {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "2376"));
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let anywhere =
            bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_unspecified());
        if !anywhere {
            return format!("tcp://{host}:{port}");
        }
        let own = state.config.tls_names.first().unwrap_or(name);
        if own.contains(':') {
            format!("tcp://[{own}]:{port}")
        } else {
            format!("tcp://{own}:{port}")
        }
    };
    let ports = state.config.hosts.iter().filter_map(|host| match host {
        Host::Tls(address) => Some(of(address)),
        Host::Unix(_) | Host::Systemd => None,
    });
    ports.collect()
}

async fn given(
    state: &State,
    name: &str,
    role: &str,
    renews: bool,
    issued: &Issued,
    authority: &[u8],
) -> Result<Given, ApiError> {
    Ok(Given {
        name: name.to_owned(),
        role: role.to_owned(),
        certificate: pem(&issued.chain_pem),
        authority: server_authority(state, authority).await?,
        fingerprint: brig_pki::hash::hex(&issued.fingerprint),
        ends: rfc3339nano(issued.not_after),
        renews,
        hosts: hosts(state),
    })
}

/// `POST /brig/access/identities`.
async fn issue(mut call: Call) -> Answer {
    let wish: Wish = call.required_json().await?;
    let name = named(&call, &wish);
    let wanted = wish.wanted(&call, &name)?;
    let state = &call.state;
    if wish.host.is_empty() && hosts(state).is_empty() {
        return Err(no_port());
    }
    let (issued, authority) =
        state.authority.issue(&state.swarm, &wanted, wish.request.as_bytes()).await?;
    note(&call, &name, &wanted, &issued);
    let role = &wanted.grant.role;
    let given = given(state, &name, role, wanted.renews, &issued, &authority).await?;
    body::json(StatusCode::CREATED, &given)
}

fn note(call: &Call, name: &str, wanted: &Wanted, issued: &Issued) {
    let note = format!(
        "certificate sha256:{} of role {:?} until {}",
        brig_pki::hash::hex(&issued.fingerprint),
        wanted.grant.role,
        rfc3339nano(issued.not_after)
    );
    tracing::info!(name, note, "issued");
    call.state.gate.note(&call.authorized, name, note);
}

/// `DELETE /brig/access/identities/{name}`.
async fn revoke(call: Call) -> Answer {
    let state = &call.state;
    let name = state.authority.revoke(&state.swarm, call.param("name")).await?;
    tracing::info!(name, "identity taken away");
    Ok(body::empty(StatusCode::NO_CONTENT))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Renewal {
    request: String,
}

/// `POST /brig/access/renew`.
async fn renew(mut call: Call) -> Answer {
    let wish: Renewal = call.required_json().await?;
    let Principal::Certificate { name, fingerprint, grants } = call.authorized.principal().clone()
    else {
        return Err(ApiError::invalid("only holders of a certificate have one to renew"));
    };
    let state = &call.state;
    let (issued, authority) =
        state.authority.renew(&state.swarm, &fingerprint, wish.request.as_bytes()).await?;
    let role = grants.first().map(|grant| grant.role.clone()).unwrap_or_default();
    body::ok(&given(state, &name, &role, true, &issued, &authority).await?)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownNewcomers {
    open_until: String,
    newcomers: Vec<ShownNewcomer>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownNewcomer {
    code: String,
    name: String,
    from: String,
    since: String,
}

/// `GET /brig/access/newcomers`.
async fn newcomers(call: Call) -> Answer {
    let door = &call.state.newcomers;
    body::ok(&ShownNewcomers {
        open_until: door.open_until().map(rfc3339nano).unwrap_or_default(),
        newcomers: door
            .list()
            .into_iter()
            .map(|one| ShownNewcomer {
                code: one.code.to_string(),
                name: one.name,
                from: one.from.to_string(),
                since: rfc3339nano(one.since),
            })
            .collect(),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Door {
    /// Seconds; 0 closes.
    seconds: u64,
}

/// `POST /brig/access/newcomers`.
async fn open(mut call: Call) -> Answer {
    let door: Door = call.required_json().await?;
    let time = Duration::from_secs(door.seconds);
    if time > MAX_OPEN {
        return Err(ApiError::invalid("newcomers may be let in for 24 hours at most: --for 10m"));
    }
    let state = &call.state;
    if !time.is_zero() && hosts(state).is_empty() {
        return Err(no_port());
    }
    let until = state.newcomers.open(time);
    tracing::info!(?until, "newcomers may enrol");
    body::ok(&ShownNewcomers {
        open_until: until.map(rfc3339nano).unwrap_or_default(),
        newcomers: Vec::new(),
    })
}

fn no_port() -> ApiError {
    ApiError::conflict(
        "this engine listens on no port: start it with -H tcp://0.0.0.0:2376 --tlsauto beside its other -H, or set \"hosts\" and \"tlsauto\" in its configuration",
    )
}

/// `POST /brig/access/newcomers/{code}/approve`.
async fn approve(mut call: Call) -> Answer {
    let wish: Wish = call.required_json().await?;
    let (newcomer, request) = call.state.newcomers.look(call.param("code"))?;
    let name = if wish.name.is_empty() { newcomer.name.clone() } else { wish.name.clone() };
    let wanted = wish.wanted(&call, &name)?;
    let state = &call.state;
    let (issued, authority) = state.authority.issue(&state.swarm, &wanted, &request).await?;
    let role = &wanted.grant.role;
    let given = given(state, &name, role, wanted.renews, &issued, &authority).await?;
    let welcome = Welcome {
        certificate: given.certificate.clone(),
        authority: given.authority.clone(),
        name: name.clone(),
        role: role.clone(),
        ends: given.ends.clone(),
    };
    let told = state.newcomers.take(&newcomer.code).is_some_and(|answer| answer.welcome(welcome));
    if !told {
        // Nobody has the certificate; nobody shall find it.
        state.authority.revoke(&state.swarm, &name).await?;
        return Err(ApiError::conflict("the client has gone meanwhile: let it enrol again"));
    }
    note(&call, &name, &wanted, &issued);
    body::json(StatusCode::CREATED, &given)
}

/// `DELETE /brig/access/newcomers/{code}`.
async fn turn_away(call: Call) -> Answer {
    let (newcomer, _) = call.state.newcomers.look(call.param("code"))?;
    if let Some(answer) = call.state.newcomers.take(&newcomer.code) {
        answer.refuse("an administrator has turned this request down");
    }
    Ok(body::empty(StatusCode::NO_CONTENT))
}

/// `GET /brig/access/ssh`.
async fn keys(call: Call) -> Answer {
    body::ok(&call.state.ssh.list())
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AddedKey {
    #[serde(flatten)]
    key: Key,
    line: String,
    file: String,
}

/// `POST /brig/access/ssh`.
async fn add_key(mut call: Call) -> Answer {
    let wish: Wish = call.required_json().await?;
    let grant = wish.grant(&call)?;
    let public = PublicKey::parse(&wish.key)?;
    let own = match (wish.user.as_str(), call.authorized.principal()) {
        ("", Principal::Local { uid, .. }) => Some(*uid),
        ("", _) => return Err(ApiError::invalid("a login of the host is needed: --user NAME")),
        _ => None,
    };
    let user = wish.user.clone();
    let login = crate::api::blocking::blocking(move || Login::find(&user, own)).await?;
    let file = login.file().display().to_string();
    let key = Key {
        fingerprint: public.fingerprint(),
        key: public.data(),
        comment: public.comment().to_owned(),
        user: login.name.clone(),
        uid: login.uid,
        role: grant.role.clone(),
        scope: (&grant.scope).into(),
        added: rfc3339nano(OffsetDateTime::now_utc()),
        added_by: call.authorized.principal().name(),
        ..Key::default()
    };
    let (key, line) = call.state.ssh.add(login, key, !wish.print).await?;
    let note =
        format!("SSH key {} of role {:?} for login {:?}", key.fingerprint, key.role, key.user);
    tracing::info!(note, "added");
    call.state.gate.note(&call.authorized, &key.fingerprint, note);
    let line = format!("{line} brig-access:{}", key.id);
    body::json(StatusCode::CREATED, &AddedKey { key, line, file })
}

/// `DELETE /brig/access/ssh/{key}`.
async fn remove_key(call: Call) -> Answer {
    let gone = call.state.ssh.remove(call.param("key")).await?;
    for key in &gone {
        tracing::info!(key = key.fingerprint, user = key.user, "SSH key taken away");
    }
    body::ok(&gone)
}
