//! Another authority of the store, once a manager is none any more: its certificates, and those that
//! it could make with the authority's key, are to open nothing.
//!
//! The leader puts the next authority beside the present one, sealed with a data key that the
//! former manager never had. Then every manager goes through the same steps, each when all are
//! ready for it, and says in its claim how far it is:
//!
//! 1. its member trusts both, for which it is restarted;
//! 2. once the members of all managers trust both, its certificates come from the next one;
//! 3. once those of all do, the leader makes the next one the present one, and every member is
//!    restarted once more and trusts that one alone, which ends all old connections.
//!
//! Members are restarted one after the other, in the order of their managers' ids. The steps follow
//! from what is stored and from the files, so it does not matter who is killed where. A manager
//! that is away is waited for. So is the end of former managers' members before the second and the
//! third step: those do not go along, and where they are the majority nobody could take them out
//! any more.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use brig_pki::ca::{self, RootCa};
use brig_pki::hash;
use brig_pki::identity::CertInfo;
use brig_proto::swarm::{Cluster, EncryptionKey, NodeRole};
use brig_store::etcd::EtcdClient;
use brig_store::{State, Store, StoreError};
use brig_types::secret::SecretBytes;
use time::OffsetDateTime;

use super::{
    AUTHORITY, CA, CALL, CLIENT_CERT, ISSUER, MEMBER_CERT, Replica, Request, TRUSTED, endpoint,
};
use crate::error::SwarmError;
use crate::node::{blocking, files, pki};

/// Under which the next authority is kept among the cluster's keys.
pub(crate) const NEXT: &str = "brig-store-ca-next";

/// What is said of authorities, and of one as well: the same for the same certificates.
pub(crate) fn id(pem: &[u8]) -> Result<String, SwarmError> {
    let pem = ca::normalize(pem).map_err(pki("read the store's authority"))?;
    Ok(hash::sha256(&pem).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// How far a manager is: whom its member trusts, and who issued its certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    trusted: String,
    issuer: String,
}

impl Standing {
    /// What the files say; what they do not say is as it was at the beginning.
    fn read(dir: &Path, present: &str) -> Self {
        let word = |name: &str| {
            let text = fs::read_to_string(dir.join(name)).unwrap_or_default();
            if text.is_empty() { present.to_owned() } else { text }
        };
        Self { trusted: word(TRUSTED), issuer: word(ISSUER) }
    }

    fn claim(&self) -> String {
        format!("{} {}", self.trusted, self.issuer)
    }

    fn parse(claim: &str) -> Option<Self> {
        let (trusted, issuer) = claim.split_once(' ')?;
        Some(Self { trusted: trusted.to_owned(), issuer: issuer.to_owned() })
    }
}

fn claim_of(node: &str) -> String {
    format!("ca/{node}")
}

/// The authorities as the cluster keeps them.
pub(super) struct Authorities {
    pub(super) present: RootCa,
    next: Option<RootCa>,
}

impl Authorities {
    pub(super) fn of(cluster: &Cluster) -> Result<Option<Self>, SwarmError> {
        let find = |subsystem: &str| -> Result<Option<RootCa>, SwarmError> {
            let kept = cluster.unlock_keys.iter().find(|kept| kept.subsystem == subsystem);
            let read =
                |kept: &EncryptionKey| RootCa::from_bundle(&SecretBytes::new(kept.key.clone()));
            kept.map(read).transpose().map_err(pki("read the store's authority"))
        };
        let Some(present) = find(AUTHORITY)? else { return Ok(None) };
        Ok(Some(Self { present, next: find(NEXT)? }))
    }

    /// Whom members are to trust.
    fn trusted(&self) -> Vec<u8> {
        let mut pem = self.present.cert_pem().to_vec();
        if let Some(next) = &self.next {
            pem.extend_from_slice(next.cert_pem());
        }
        pem
    }
}

/// Whether half of the time is gone of a certificate that the member or its clients use here, or
/// it is not valid yet: a clock was wrong when it was made.
fn are_due(dir: &Path, now: OffsetDateTime) -> bool {
    [MEMBER_CERT, CLIENT_CERT].iter().any(|name| {
        let read = fs::read(dir.join(name)).ok();
        // One that cannot be read is no use to anybody.
        let Some(info) = read.and_then(|pem| CertInfo::from_pem(&pem).ok()) else { return true };
        now < info.not_before || now - info.not_before >= (info.not_after - info.not_before) / 2
    })
}

/// The managers that are in the store. Whoever is on the way in waits for the change to end.
fn managers(state: &State) -> Vec<String> {
    let managers = state.managers().filter(|node| node.role() == NodeRole::Manager);
    managers.map(|node| node.id.clone()).collect()
}

impl Replica {
    fn standings(&self) -> BTreeMap<String, Standing> {
        let entries = self.live.entries();
        let entries = entries.borrow();
        let standing = |(key, value): (&String, &String)| {
            Some((key.strip_prefix("ca/")?.to_owned(), Standing::parse(value)?))
        };
        entries.iter().filter_map(standing).collect()
    }

    /// One manager's part. Makes its certificates anew as well when half of their time is gone.
    /// Answers whether nothing is on the way.
    pub(crate) async fn follow_authority(&self, store: &Store) -> Result<bool, SwarmError> {
        let cluster = store.view().get::<Cluster>(&self.cluster);
        let Some(cluster) = cluster.filter(|_| self.has_members()) else { return Ok(true) };
        let Some(authorities) = Authorities::of(&cluster)? else { return Ok(true) };
        let dir = self.layout.replica();
        let present = id(authorities.present.cert_pem())?;
        let trusted = authorities.trusted();
        let wanted = id(&trusted)?;
        let (mut own, are_due) = blocking({
            let (dir, wanted, present) = (dir.clone(), wanted.clone(), present.clone());
            move || {
                let path = dir.join(CA);
                let found = fs::read(&path).map_err(|error| files::failed("read", &path, error))?;
                if id(&found).ok().as_deref() != Some(wanted.as_str()) {
                    files::write_private(&path, &trusted)?;
                }
                let are_due = are_due(&dir, OffsetDateTime::now_utc());
                Ok((Standing::read(&dir, &present), are_due))
            }
        })
        .await?;
        let managers = managers(&store.view());
        let standings = self.standings();
        let trusts = |node: &String| standings.get(node).is_some_and(|one| one.trusted == wanted);
        if own.trusted != wanted {
            // Whoever is no manager any more is about to go.
            let is_turn = managers.contains(&self.node)
                && managers.iter().filter(|node| **node < self.node).all(trusts);
            if is_turn && self.all_are_well().await {
                tracing::info!("restarting this manager's etcd, whose authorities have changed");
                if let Some(child) = self.state().child {
                    child.restart().await?;
                }
            }
            self.say(&own);
            return Ok(false);
        }
        let issuer = match &authorities.next {
            Some(next) if id(next.cert_pem())? == own.issuer => next,
            // The others trust the next one first, which may take as long as one of them is away.
            Some(next) if managers.iter().all(trusts) && self.has_only(&managers).await => next,
            Some(_) | None => &authorities.present,
        };
        let name = id(issuer.cert_pem())?;
        if are_due || own.issuer != name {
            self.renew_certificates(issuer).await?;
            tracing::info!("this manager's certificates of the store were renewed");
            own.issuer = name;
        }
        self.say(&own);
        Ok(authorities.next.is_none())
    }

    fn say(&self, standing: &Standing) {
        let (claim, value) = (claim_of(&self.node), standing.claim());
        if self.live.get(&claim).as_ref() != Some(&value) {
            self.live.claim(&claim, &value);
        }
    }

    /// Whether every member answers, is a full one and has a leader.
    async fn all_are_well(&self) -> bool {
        let Some(client) = self.client() else { return false };
        let Ok(members) = client.members(CALL).await else { return false };
        for member in &members {
            let address = member.client_urls.iter().find_map(|url| endpoint(url));
            let Some(address) = address.filter(|_| !member.is_learner) else { return false };
            match client.status_of(&address, CALL).await {
                Ok(status) if status.leader != 0 => {}
                Ok(_) | Err(_) => return false,
            }
        }
        true
    }

    /// Whether all members that vote are those of managers, as far as can be known now.
    async fn has_only(&self, managers: &[String]) -> bool {
        let Some(client) = self.client() else { return false };
        let Ok(members) = client.members(CALL).await else { return false };
        members.iter().all(|member| member.is_learner || managers.contains(&member.name))
    }

    /// Makes the certificates anew.
    async fn renew_certificates(&self, authority: &RootCa) -> Result<(), SwarmError> {
        let own = Request::new()?;
        let issued = own.issue(self.settings(), authority, self.ip)?;
        let (dir, ca) = (self.layout.replica(), authority.cert_pem().to_vec());
        blocking(move || own.write_certificates(&dir, &ca, &issued)).await
    }

    /// The leader's part. Answers whether nothing is on the way.
    pub(crate) async fn lead_authority(
        &self,
        store: &Store,
        is_sealed: bool,
    ) -> Result<bool, SwarmError> {
        let cluster = store.view().get::<Cluster>(&self.cluster);
        let Some(cluster) = cluster.filter(|_| self.has_members()) else { return Ok(true) };
        let Some(authorities) = Authorities::of(&cluster)? else { return Ok(true) };
        let rotation = cluster.data_key_rotation.clone().unwrap_or_default();
        let Some(next) = &authorities.next else {
            if rotation.authority_wanted <= rotation.authority_made {
                return Ok(true);
            }
            if is_sealed {
                self.put_next(store).await?;
            }
            return Ok(false);
        };
        if !self.has_only(&managers(&store.view())).await {
            return Ok(false);
        }
        let name = id(next.cert_pem())?;
        let standings = self.standings();
        let is_ready = |node: &String| standings.get(node).is_some_and(|one| one.issuer == name);
        if self.promote_next(store, is_ready).await? {
            tracing::info!("the store has another authority");
        }
        Ok(false)
    }

    async fn put_next(&self, store: &Store) -> Result<(), SwarmError> {
        let made = RootCa::generate_for_store().map_err(pki("make the store's authority"))?;
        let key = super::bundle(&made);
        self.change(store, |_, cluster| {
            if cluster.unlock_keys.iter().any(|kept| kept.subsystem == NEXT) {
                return false;
            }
            let rotation = cluster.data_key_rotation.get_or_insert_default();
            rotation.authority_making = rotation.authority_wanted;
            cluster.unlock_keys.push(EncryptionKey {
                subsystem: NEXT.to_owned(),
                key: key.clone(),
                ..EncryptionKey::default()
            });
            true
        })
        .await
        .map(drop)
    }

    /// Makes the next authority the present one if all managers that there are then are ready.
    async fn promote_next(
        &self,
        store: &Store,
        is_ready: impl Fn(&String) -> bool,
    ) -> Result<bool, SwarmError> {
        self.change(store, |state, cluster| {
            let next = cluster.unlock_keys.iter().position(|kept| kept.subsystem == NEXT);
            let next = next.filter(|_| managers(state).iter().all(&is_ready));
            let Some(mut next) = next.map(|at| cluster.unlock_keys.remove(at)) else {
                return false;
            };
            AUTHORITY.clone_into(&mut next.subsystem);
            cluster.unlock_keys.retain(|kept| kept.subsystem != AUTHORITY);
            cluster.unlock_keys.push(next);
            let rotation = cluster.data_key_rotation.get_or_insert_default();
            rotation.authority_made = rotation.authority_making;
            true
        })
        .await
    }

    /// Changes the cluster object, if it is to be; answers whether it was.
    pub(super) async fn change(
        &self,
        store: &Store,
        change: impl Fn(&State, &mut Cluster) -> bool,
    ) -> Result<bool, SwarmError> {
        let change = &change;
        store
            .update(|tx| -> Result<_, StoreError> {
                let Some(current) = tx.get::<Cluster>(&self.cluster) else { return Ok(false) };
                let mut next = (*current).clone();
                if !change(tx, &mut next) {
                    return Ok(false);
                }
                tx.update(next)?;
                Ok(true)
            })
            .await
            .map_err(SwarmError::Store)
    }

    /// Whether the other members have another authority, and this manager's has no leader: it was
    /// taken out while it was away, and they do not talk to it any more.
    pub(crate) async fn is_refused(&self, client: &EtcdClient) -> bool {
        let endpoints = client.endpoints();
        let Some((local, others)) = endpoints.split_first() else { return false };
        if client.status_of(local, CALL).await.is_ok_and(|status| status.leader != 0) {
            return false;
        }
        let mut refused = false;
        for other in others {
            match client.status_of(other, CALL).await {
                Ok(_) => return false,
                Err(error) => refused |= error.is_other_authority(),
            }
        }
        refused
    }

    /// Whether one authority is about to take the place of another.
    pub(crate) fn is_changing_authority(&self, store: &Store) -> bool {
        let cluster = store.view().get::<Cluster>(&self.cluster);
        cluster.is_some_and(|cluster| cluster.unlock_keys.iter().any(|kept| kept.subsystem == NEXT))
    }
}
