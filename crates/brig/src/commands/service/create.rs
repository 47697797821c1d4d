//! `service create`.

use brig_api::engine_access::EngineAccess;
use brig_api::swarm::{
    ConfigReference, PlacementPreference, SecretReference, ServiceCreateResponse,
};
use clap::Args;

use super::flags::ServiceFlags;
use super::{changes, progress, references, spec};
use crate::cli::leaf;
use crate::client::{Call, registry_auth};
use crate::context::Context;
use crate::error::Result;
use crate::parse::network::{Attachment, attachment};
use crate::parse::{mount, resources, security, swarm};

leaf!(
    CREATE,
    "create",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create a new service",
    CreateArgs,
    create,
    true
);

/// What a new service is made from.
#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    pub(super) service: ServiceFlags,
    /// Add Linux capabilities
    #[arg(long)]
    pub(super) cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long)]
    pub(super) cap_drop: Vec<String>,
    /// Specify configurations to expose to the service
    #[arg(long, value_parser = swarm::config)]
    pub(super) config: Vec<ConfigReference>,
    /// Placement constraints
    #[arg(long)]
    pub(super) constraint: Vec<String>,
    /// Container labels
    #[arg(long)]
    pub(super) container_label: Vec<String>,
    /// Set custom DNS servers
    #[arg(long)]
    pub(super) dns: Vec<String>,
    /// Set DNS options
    #[arg(long)]
    pub(super) dns_option: Vec<String>,
    /// Set custom DNS search domains
    #[arg(long)]
    pub(super) dns_search: Vec<String>,
    /// Lend the containers a socket of the engine: ROLE[:service=NAME,stack=NAME,...]
    #[arg(long, value_parser = security::engine_access)]
    pub(super) engine_access: Option<EngineAccess>,
    /// Set environment variables
    #[arg(long, short = 'e')]
    pub(super) env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long)]
    pub(super) env_file: Vec<String>,
    /// User defined resources
    #[arg(long, value_parser = resources::generic)]
    pub(super) generic_resource: Vec<brig_api::swarm::GenericResource>,
    /// Set one or more supplementary user groups for the container
    #[arg(long)]
    pub(super) group: Vec<String>,
    /// Set one or more custom host-to-IP mappings (host:ip)
    #[arg(long, value_parser = swarm::extra_host)]
    pub(super) host: Vec<String>,
    /// Service labels
    #[arg(long, short = 'l')]
    pub(super) label: Vec<String>,
    /// Service mode ("replicated", "global", "replicated-job", "global-job")
    #[arg(long, default_value = "replicated")]
    pub(super) mode: String,
    /// Attach a filesystem mount to the service
    #[arg(long, value_parser = mount::mount)]
    pub(super) mount: Vec<brig_api::mount::Mount>,
    /// Service name
    #[arg(long, default_value = "")]
    pub(super) name: String,
    /// Network attachments
    #[arg(long, value_parser = attachment)]
    pub(super) network: Vec<Attachment>,
    /// Add a placement preference
    #[arg(long, value_parser = swarm::placement_preference)]
    pub(super) placement_pref: Vec<PlacementPreference>,
    /// Publish a port as a node port
    #[arg(long, short = 'p')]
    pub(super) publish: Vec<String>,
    /// Specify secrets to expose to the service
    #[arg(long, value_parser = swarm::secret)]
    pub(super) secret: Vec<SecretReference>,
    /// Sysctl options
    #[arg(long)]
    pub(super) sysctl: Vec<String>,
    /// Ulimit options
    #[arg(long, value_parser = resources::ulimit)]
    pub(super) ulimit: Vec<brig_api::container::Ulimit>,
    #[arg(required = true, hide = true)]
    pub(super) command: Vec<String>,
}

async fn create(context: &Context, args: CreateArgs) -> Result<()> {
    let mut spec = spec::from_flags(&args)?;
    spec.task_template.networks = references::networks(context, &args.network).await?;
    changes::container(&mut spec).secrets =
        references::secrets(context, args.secret.clone()).await?;
    changes::container(&mut spec).configs =
        references::configs(context, args.config.clone()).await?;
    references::trust_image(context, &mut spec).await?;
    let image = changes::container(&mut spec).image.clone();
    if !args.service.no_resolve_image {
        references::pin_image(context, &mut spec).await?;
    }
    let mut call = Call::post("/services/create").json(&spec)?;
    if args.service.with_registry_auth {
        call = call.registry_auth(&registry_auth::for_image(&context.config, &image).await);
    }
    let response: ServiceCreateResponse = context.client.json(call).await?;
    for warning in &response.warnings {
        crate::output::warn(warning);
    }
    crate::output::line(&response.id)?;
    if args.service.detach {
        return Ok(());
    }
    progress::wait(context, &response.id, args.service.quiet).await
}
