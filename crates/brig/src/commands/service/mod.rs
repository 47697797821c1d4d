//! `service …`.

mod changes;
mod create;
mod flags;
mod inspect_service;
mod logs;
mod ls;
mod pretty;
mod progress;
mod references;
mod scale;
mod spec;
mod update;

use brig_api::swarm::ServiceSpec;

use crate::cli::Leaf;
use crate::context::Context;
use crate::error::Result;

pub(crate) use ls::{found, print};
pub(crate) use progress::wait;
pub(crate) use references::pin_image;

/// `service …`.
pub(crate) const COMMANDS: &[&Leaf] = &[
    &create::CREATE,
    &inspect_service::INSPECT,
    &logs::LOGS,
    &ls::LS,
    &ls::PS,
    &ls::RM,
    &update::ROLLBACK,
    &scale::SCALE,
    &update::UPDATE,
];

/// Fills in the ids of the secrets and configs that a specification names.
pub(crate) async fn grant(context: &Context, spec: &mut ServiceSpec) -> Result<()> {
    let container = changes::container(spec);
    let (secrets, configs) =
        (std::mem::take(&mut container.secrets), std::mem::take(&mut container.configs));
    let secrets = references::secrets(context, secrets).await?;
    let configs = references::configs(context, configs).await?;
    let container = changes::container(spec);
    (container.secrets, container.configs) = (secrets, configs);
    Ok(())
}
