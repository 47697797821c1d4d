//! `service update` and `rollback`.

mod edit;

use brig_api::container::UpdateResponse;
use brig_api::engine_access::EngineAccess;
use brig_api::swarm::{
    ConfigReference, PlacementPreference, SecretReference, Service, ServiceSpec,
};
use clap::Args;

use super::flags::ServiceFlags;
use super::{changes, progress, references};
use crate::cli::leaf;
use crate::client::{Call, registry_auth};
use crate::commands::checked;
use crate::context::Context;
use crate::error::{Result, message};
use crate::parse::network::{Attachment, attachment};
use crate::parse::{mount, resources, security, shell_words, swarm};

leaf!(UPDATE, "update", "[OPTIONS] SERVICE", "Update a service", UpdateArgs, update);
leaf!(
    ROLLBACK,
    "rollback",
    "[OPTIONS] SERVICE",
    "Revert changes to a service's configuration",
    RollbackArgs,
    rollback
);

/// What changes. Lists have flags to add to them and to take from them.
#[derive(Args, Debug)]
pub(super) struct UpdateArgs {
    #[command(flatten)]
    pub(super) service: ServiceFlags,
    /// Service command args
    #[arg(long)]
    pub(super) args: Option<String>,
    /// Add Linux capabilities
    #[arg(long)]
    pub(super) cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long)]
    pub(super) cap_drop: Vec<String>,
    /// Add or update a config file on a service
    #[arg(long, value_parser = swarm::config)]
    pub(super) config_add: Vec<ConfigReference>,
    /// Remove a configuration file
    #[arg(long)]
    pub(super) config_rm: Vec<String>,
    /// Add or update a placement constraint
    #[arg(long)]
    pub(super) constraint_add: Vec<String>,
    /// Remove a constraint
    #[arg(long)]
    pub(super) constraint_rm: Vec<String>,
    /// Add or update a container label
    #[arg(long)]
    pub(super) container_label_add: Vec<String>,
    /// Remove a container label by its key
    #[arg(long)]
    pub(super) container_label_rm: Vec<String>,
    /// Lend the containers a socket of the engine: ROLE[:service=NAME,stack=NAME,...]
    #[arg(long, value_parser = security::engine_access)]
    pub(super) engine_access: Option<EngineAccess>,
    /// Do not lend the containers a socket of the engine
    #[arg(long, conflicts_with = "engine_access")]
    pub(super) engine_access_rm: bool,
    /// Add or update a custom DNS server
    #[arg(long)]
    pub(super) dns_add: Vec<String>,
    /// Add or update a DNS option
    #[arg(long)]
    pub(super) dns_option_add: Vec<String>,
    /// Remove a DNS option
    #[arg(long)]
    pub(super) dns_option_rm: Vec<String>,
    /// Remove a custom DNS server
    #[arg(long)]
    pub(super) dns_rm: Vec<String>,
    /// Add or update a custom DNS search domain
    #[arg(long)]
    pub(super) dns_search_add: Vec<String>,
    /// Remove a DNS search domain
    #[arg(long)]
    pub(super) dns_search_rm: Vec<String>,
    /// Add or update an environment variable
    #[arg(long)]
    pub(super) env_add: Vec<String>,
    /// Remove an environment variable
    #[arg(long)]
    pub(super) env_rm: Vec<String>,
    /// Force update even if no changes require it
    #[arg(long)]
    pub(super) force: bool,
    /// Add a Generic resource
    #[arg(long, value_parser = resources::generic)]
    pub(super) generic_resource_add: Vec<brig_api::swarm::GenericResource>,
    /// Remove a Generic resource
    #[arg(long)]
    pub(super) generic_resource_rm: Vec<String>,
    /// Add an additional supplementary user group to the container
    #[arg(long)]
    pub(super) group_add: Vec<String>,
    /// Remove a previously added supplementary user group from the container
    #[arg(long)]
    pub(super) group_rm: Vec<String>,
    /// Add a custom host-to-IP mapping ("host:ip")
    #[arg(long, value_parser = swarm::extra_host)]
    pub(super) host_add: Vec<String>,
    /// Remove a custom host-to-IP mapping ("host:ip")
    #[arg(long)]
    pub(super) host_rm: Vec<String>,
    /// Service image tag
    #[arg(long)]
    pub(super) image: Option<String>,
    /// Add or update a service label
    #[arg(long)]
    pub(super) label_add: Vec<String>,
    /// Remove a label by its key
    #[arg(long)]
    pub(super) label_rm: Vec<String>,
    /// Add or update a mount on a service
    #[arg(long, value_parser = mount::mount)]
    pub(super) mount_add: Vec<brig_api::mount::Mount>,
    /// Remove a mount by its target path
    #[arg(long)]
    pub(super) mount_rm: Vec<String>,
    /// Add a network
    #[arg(long, value_parser = attachment)]
    pub(super) network_add: Vec<Attachment>,
    /// Remove a network
    #[arg(long)]
    pub(super) network_rm: Vec<String>,
    /// Add a placement preference
    #[arg(long, value_parser = swarm::placement_preference)]
    pub(super) placement_pref_add: Vec<PlacementPreference>,
    /// Remove a placement preference
    #[arg(long, value_parser = swarm::placement_preference)]
    pub(super) placement_pref_rm: Vec<PlacementPreference>,
    /// Add or update a published port
    #[arg(long)]
    pub(super) publish_add: Vec<String>,
    /// Remove a published port by its target port
    #[arg(long)]
    pub(super) publish_rm: Vec<String>,
    /// Rollback to previous specification
    #[arg(long)]
    pub(super) rollback: bool,
    /// Add or update a secret on a service
    #[arg(long, value_parser = swarm::secret)]
    pub(super) secret_add: Vec<SecretReference>,
    /// Remove a secret
    #[arg(long)]
    pub(super) secret_rm: Vec<String>,
    /// Add or update a Sysctl option
    #[arg(long)]
    pub(super) sysctl_add: Vec<String>,
    /// Remove a Sysctl option
    #[arg(long)]
    pub(super) sysctl_rm: Vec<String>,
    /// Add or update a ulimit option
    #[arg(long, value_parser = resources::ulimit)]
    pub(super) ulimit_add: Vec<brig_api::container::Ulimit>,
    /// Remove a ulimit option
    #[arg(long)]
    pub(super) ulimit_rm: Vec<String>,
    #[arg(hide = true)]
    pub(super) name: String,
}

/// Reads a service as it was written, without the engine's defaults.
pub(super) async fn fetch(context: &Context, name: &str) -> Result<Service> {
    let call = Call::get(format!("/services/{}", checked("service", name)?))
        .query("insertDefaults", "false");
    context.client.json(call).await
}

/// Where the daemon takes registry credentials from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Registry<'a> {
    /// Whatever the daemon does by itself.
    Unsaid,
    /// Those that the service has.
    Spec,
    /// The user's, for this image.
    User(&'a str),
}

/// Replaces a service's specification, if nobody else has meanwhile.
pub(super) async fn send(
    context: &Context,
    service: &Service,
    spec: &ServiceSpec,
    registry: Registry<'_>,
    rollback: bool,
) -> Result<()> {
    let mut call = Call::post(format!("/services/{}/update", service.id));
    match registry {
        Registry::Unsaid => {}
        Registry::Spec => call = call.query("registryAuthFrom", "spec"),
        Registry::User(image) => {
            call = call.registry_auth(&registry_auth::for_image(&context.config, image).await);
        }
    }
    if rollback {
        call = call.query("rollback", "previous");
    }
    let call = call.query("version", service.version.index.to_string()).json(spec)?;
    let response: UpdateResponse = context.client.json(call).await?;
    for warning in &response.warnings {
        crate::output::warn(warning);
    }
    Ok(())
}

async fn update(context: &Context, args: UpdateArgs) -> Result<()> {
    let service = fetch(context, &args.name).await?;
    let mut spec = service.spec.clone();
    if args.rollback {
        send(context, &service, &spec, Registry::Spec, true).await?;
    } else {
        change(context, &args, &mut spec).await?;
        let image = changes::container(&mut spec).image.clone();
        let registry =
            if args.service.with_registry_auth { Registry::User(&image) } else { Registry::Spec };
        send(context, &service, &spec, registry, false).await?;
    }
    crate::output::line(&args.name)?;
    if args.service.detach {
        return Ok(());
    }
    progress::wait(context, &service.id, args.service.quiet).await
}

async fn change(context: &Context, args: &UpdateArgs, spec: &mut ServiceSpec) -> Result<()> {
    changes::apply(&args.service, spec)?;
    if let Some(image) = &args.image {
        changes::container(spec).image = references::normalized(image)?;
        references::trust_image(context, spec).await?;
    }
    if let Some(arguments) = &args.args {
        changes::container(spec).args = shell_words(arguments)?;
    }
    let secrets = references::secrets(context, args.secret_add.clone()).await?;
    edit::secrets(&mut changes::container(spec).secrets, secrets, &args.secret_rm);
    let configs = references::configs(context, args.config_add.clone()).await?;
    edit::configs(&mut changes::container(spec).configs, configs, &args.config_rm);

    // Services of older clients have their networks beside the template.
    let mut networks = std::mem::take(&mut spec.networks);
    networks.append(&mut spec.task_template.networks);
    for name in &args.network_rm {
        let id = references::network_id(context, name).await?;
        networks.retain(|network| network.target != id && network.target != *name);
    }
    for network in references::networks(context, &args.network_add).await? {
        if networks.iter().any(|known| known.target == network.target) {
            return Err(message(format!(
                "service is already attached to network {}",
                network.target
            )));
        }
        networks.push(network);
    }
    networks.sort_by(|a, b| a.target.cmp(&b.target));
    spec.task_template.networks = networks;

    edit::lists(args, spec)?;
    if args.force {
        spec.task_template.force_update += 1;
    }
    if (args.image.is_some() || args.force) && !args.service.no_resolve_image {
        references::pin_image(context, spec).await?;
    }
    Ok(())
}

#[derive(Args, Debug)]
struct RollbackArgs {
    /// Exit immediately instead of waiting for the service to converge
    #[arg(long, short = 'd')]
    detach: bool,
    /// Suppress progress output
    #[arg(long, short = 'q')]
    quiet: bool,
    #[arg(hide = true)]
    service: String,
}

async fn rollback(context: &Context, args: RollbackArgs) -> Result<()> {
    let service = fetch(context, &args.service).await?;
    send(context, &service, &service.spec, Registry::Unsaid, true).await?;
    crate::output::line(&args.service)?;
    if args.detach {
        return Ok(());
    }
    progress::wait(context, &service.id, args.quiet).await
}
