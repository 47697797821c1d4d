//! What the leader does for the store's members: takes those out whose managers are none any
//! more, gives free pages back, ends alarms. And what each manager does for itself: it follows
//! the list of members and keeps its certificates young.

use std::sync::Arc;
use std::time::Duration;

use brig_proto::swarm::{Node, NodeRole};
use brig_store::Store;
use brig_store::etcd::{EtcdClient, EtcdError, MemberInfo};
use tokio::time::Instant;

use super::child::QUOTA;
use super::{CALL, Replica, endpoint, is_abandoned, take_out};
use crate::manager::keys::KeyManager;
use crate::manager::leading::manager_claim;

/// How often members are looked at.
const EVERY: Duration = Duration::from_secs(5);
/// How often their databases are.
const SIZES_EVERY: Duration = Duration::from_secs(600);
/// How long giving pages back may take.
const DEFRAGMENT: Duration = Duration::from_secs(120);
/// How long forgetting the history may take.
const COMPACT: Duration = Duration::from_secs(60);
/// A database is worth it from this size on, when less than half of it is used.
const WORTH_IT: i64 = 64 << 20;
/// How often one looks whether it is its turn while the store's authority changes.
const AUTHORITY_EVERY: Duration = Duration::from_millis(500);
/// How long a former manager that is there may take to go.
const LEAVING_PATIENCE: Duration = Duration::from_secs(30);
/// How long a learner may stay one before it makes place.
const LEARNER_PATIENCE: Duration = Duration::from_secs(600);
/// The same where no manager is there that could start it: one that another manager is just taking
/// in may not be known yet.
const ABANDONED_PATIENCE: Duration = Duration::from_secs(10);

/// Keeps this manager's list of members; runs until it is dropped.
pub(crate) async fn follow(replica: Arc<Replica>, store: Store) {
    let mut looked: Option<Instant> = None;
    let mut was_full = false;
    loop {
        if let Some(client) = replica.client().filter(|_| replica.has_members())
            && looked.is_none_or(|looked| looked.elapsed() >= EVERY)
            && let Ok(members) = client.members(CALL).await
        {
            looked = Some(Instant::now());
            if replica.is_refused(&client).await {
                replica.count_missing();
            } else {
                replica.look_for_own(&members);
            }
            // Nobody can become the leader in a store that takes no claims.
            let full = is_full(&client).await;
            if full && was_full {
                tracing::warn!("the store is full, and nobody who leads makes room");
                if let Err(error) = make_room(&client, &members).await {
                    tracing::warn!(error = %brig_types::error::chain(&error), "cannot make room in the store");
                }
            }
            was_full = full;
            let mut endpoints: Vec<String> = client.endpoints().into_iter().take(1).collect();
            let others = members.iter().filter(|member| member.name != replica.node);
            endpoints.extend(
                others.flat_map(|member| &member.client_urls).filter_map(|url| endpoint(url)),
            );
            if endpoints != client.endpoints()
                && let Err(error) = client.set_endpoints(&endpoints)
            {
                tracing::warn!(error = %brig_types::error::chain(&error), "cannot follow the store's members");
            }
        }
        if let Some(client) = replica.client().filter(|_| replica.has_members())
            && let Some(local) = client.endpoints().first()
            && client.status_of(local, CALL).await.is_ok_and(|status| !status.is_learner)
        {
            client.prefer_first();
        }
        let is_settled = replica.follow_authority(&store).await.unwrap_or_else(|error| {
            tracing::error!(error = %brig_types::error::chain(&error), "the store's certificates were not renewed");
            true
        });
        tokio::time::sleep(if is_settled { EVERY } else { AUTHORITY_EVERY }).await;
    }
}

/// The leader's part; runs until it is dropped.
pub(crate) async fn lead(replica: Arc<Replica>, store: Store, keys: KeyManager) {
    let mut seen = Seen { sizes: Instant::now(), learner: None, leaving: None };
    loop {
        if let Some(client) = replica.client().filter(|_| replica.has_members()) {
            let outcome = look(&replica, &store, &client, &mut seen).await;
            if let Err(error) = outcome {
                tracing::debug!(error = %brig_types::error::chain(&error), "cannot look after the store's members");
            }
        }
        // Whoever is not trusted any more could read another authority's key as long as the data
        // key that it knows seals.
        let is_settled = match replica.lead_authority(&store, keys.is_settled()).await {
            Ok(is_settled) => is_settled,
            Err(error) => {
                tracing::warn!(error = %brig_types::error::chain(&error), "the store's authority was not changed, which is tried again");
                true
            }
        };
        tokio::time::sleep(if is_settled { EVERY } else { AUTHORITY_EVERY }).await;
    }
}

/// What the leader remembers from one look to the next.
struct Seen {
    /// When to look at sizes next.
    sizes: Instant,
    /// The learner, and since when it is one.
    learner: Option<(u64, Instant)>,
    /// A manager that was demoted and is there, and since when.
    leaving: Option<(String, Instant)>,
}

async fn look(
    replica: &Replica,
    store: &Store,
    client: &EtcdClient,
    seen: &mut Seen,
) -> Result<(), EtcdError> {
    // A manager that joins changes the members itself.
    let Ok(_changing) = replica.changing.try_lock() else { return Ok(()) };
    let members = client.members(CALL).await?;
    let view = store.view();
    let is_manager =
        |name: &str| view.get::<Node>(name).is_some_and(|node| node.role() == NodeRole::Manager);
    let is_former = |member: &&MemberInfo| {
        !member.name.is_empty() && member.name != replica.node && !is_manager(&member.name)
    };
    match members.iter().find(is_former).filter(|_| members.len() > 1) {
        None => seen.leaving = None,
        Some(member) => {
            let since = match &seen.leaving {
                Some((name, since)) if *name == member.name => *since,
                Some(_) | None => Instant::now(),
            };
            seen.leaving = Some((member.name.clone(), since));
            // One that is there goes by itself, and its demotion may be taken back before that.
            let is_there = replica.live.get(&manager_claim(&member.name)).is_some();
            if !is_there || since.elapsed() > LEAVING_PATIENCE {
                tracing::info!(node = member.name, "taking a former manager out of the store");
                take_out(client, member.id).await?;
            }
            return Ok(());
        }
    }
    match members.iter().find(|member| member.is_learner) {
        None => seen.learner = None,
        Some(learner) => {
            let since = match seen.learner {
                Some((id, since)) if id == learner.id => since,
                Some(_) | None => Instant::now(),
            };
            seen.learner = Some((learner.id, since));
            // It may have caught up after its manager stopped asking.
            let promoted = client.promote(learner.id, CALL).await;
            let patience = if is_abandoned(learner, &members, &view) {
                ABANDONED_PATIENCE
            } else {
                LEARNER_PATIENCE
            };
            if promoted.is_err() && since.elapsed() > patience {
                tracing::warn!(node = learner.name, urls = ?learner.peer_urls, "a manager never got ready and makes place");
                take_out(client, learner.id).await?;
                seen.learner = None;
            }
        }
    }
    let alarms = client.alarms(CALL).await?;
    let full = alarms.iter().any(|(_, is_space)| *is_space);
    for (member, _) in alarms.iter().filter(|(_, is_space)| !is_space) {
        tracing::error!(member, "etcd says that this member's data is damaged");
    }
    if full || Instant::now() >= seen.sizes {
        seen.sizes = Instant::now() + SIZES_EVERY;
        if full {
            make_room(client, &members).await?;
        } else {
            give_back(client, &members, false).await?;
        }
    }
    Ok(())
}

async fn is_full(client: &EtcdClient) -> bool {
    client.alarms(CALL).await.is_ok_and(|alarms| alarms.iter().any(|(_, is_space)| *is_space))
}

/// Ends the alarm of a store that has no space left. Two managers may do it at once: what one has
/// done is nothing to the other.
async fn make_room(client: &EtcdClient, members: &[MemberInfo]) -> Result<(), EtcdError> {
    // Only history is given up: until then nothing can be removed either.
    client.compact(COMPACT).await?;
    give_back(client, members, true).await?;
    let alarms = client.alarms(CALL).await?;
    for (member, _) in alarms.iter().filter(|(_, is_space)| *is_space) {
        client.disarm(*member, CALL).await?;
    }
    Ok(())
}

/// Gives the free pages of the members back, one member after the other, the leader last.
async fn give_back(
    client: &EtcdClient,
    members: &[MemberInfo],
    full: bool,
) -> Result<(), EtcdError> {
    let mut found = Vec::new();
    for member in members {
        let Some(address) = member.client_urls.iter().find_map(|url| endpoint(url)) else {
            continue;
        };
        let Ok(status) = client.status_of(&address, CALL).await else { continue };
        let used = u64::try_from(status.db_size_in_use).unwrap_or(0);
        if used > QUOTA / 5 * 4 {
            tracing::error!(
                node = member.name,
                used,
                quota = QUOTA,
                "the replicated store is nearly full: remove services, secrets or configs that are not needed"
            );
        }
        let is_loose = status.db_size > WORTH_IT && status.db_size_in_use < status.db_size / 2;
        if full || is_loose {
            found.push((status.leader == member.id, address));
        }
    }
    found.sort();
    for (_, address) in found {
        tracing::info!(address, "giving free pages of the store back");
        client.defragment(&address, DEFRAGMENT).await?;
    }
    Ok(())
}
