//! `stack deploy`: networks, secrets and configs first, then the services, as docker does it.

use std::collections::BTreeMap;

use brig_api::data::Base64;
use brig_api::info::SystemInfo;
use brig_api::network::{NetworkCreateResponse, NetworkInspect};
use brig_api::swarm::{
    Config, ConfigSpec, CreateResponse, Secret, SecretSpec, Service, ServiceCreateResponse,
    ServiceSpec,
};
use brig_types::secret::SecretBytes;
use clap::Args;

use super::ls::services_of;
use super::{Detach, checked, of_stack};
use crate::cli::leaf;
use crate::client::{Call, registry_auth};
use crate::commands::trust::{ContentTrust, trusted_for_service};
use crate::commands::{config, secret, service};
use crate::compose::{self, Content, LABEL_IMAGE, Name, Network, Notes, Surroundings};
use crate::context::Context;
use crate::error::{Result, message};
use crate::parse::env::process_env;

leaf!(
    DEPLOY,
    "deploy" | "up",
    "[OPTIONS] STACK",
    "Deploy a new stack or update an existing stack",
    DeployArgs,
    deploy
);

#[derive(Args, Debug)]
struct DeployArgs {
    /// Path to a Compose file, or "-" to read from stdin
    #[arg(long, short = 'c')]
    compose_file: Vec<String>,
    #[command(flatten)]
    detach: Detach,
    #[command(flatten)]
    trust: ContentTrust,
    /// Prune services that are no longer referenced
    #[arg(long)]
    prune: bool,
    /// Suppress progress output
    #[arg(long, short = 'q')]
    quiet: bool,
    /// Query the registry to resolve image digest and supported platforms ("always", "changed", "never")
    #[arg(long, default_value = "always")]
    resolve_image: String,
    /// Send registry authentication details to Swarm agents
    #[arg(long)]
    with_registry_auth: bool,
    #[arg(hide = true)]
    stack: String,
}

/// When registries are asked for digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolve {
    Always,
    Changed,
    Never,
}

impl Resolve {
    fn parse(text: &str) -> Result<Self> {
        match text {
            "always" => Ok(Self::Always),
            "changed" => Ok(Self::Changed),
            "never" => Ok(Self::Never),
            other => Err(message(format!("Invalid option {other} for flag --resolve-image"))),
        }
    }
}

async fn deploy(context: &Context, args: DeployArgs) -> Result<()> {
    checked(&args.stack)?;
    let resolve = Resolve::parse(&args.resolve_image)?;
    if args.compose_file.is_empty() {
        return Err(message("please specify a Compose file (with --compose-file)"));
    }
    let (tree, directory) = compose::read(&args.compose_file, Some(&process_env))?;
    let surroundings =
        Surroundings { stack: &args.stack, directory: &directory, lookup: &process_env };
    let mut stack = compose::stack(tree, &surroundings)?;
    tell(&stack.notes);
    if args.detach.0.is_none() {
        crate::output::warn(
            "Since --detach=false was not specified, tasks will be created in the background.\n\
             In a future release, --detach=false will become the default.",
        );
    }
    check_manager(context).await?;
    check_external(context, &stack.networks).await?;
    // Before anything is changed: what is not signed is not deployed in part either.
    if args.trust.enabled {
        for spec in &mut stack.services {
            let image = image(spec).clone();
            *self::image(spec) = trusted_for_service(context, &image).await?;
        }
    }
    let secrets = loaded(&stack.secrets, secret::MAX_SECRET, "secret")?;
    let configs = loaded(&stack.configs, config::MAX_CONFIG, "config")?;
    let existing: BTreeMap<String, Service> = services_of(context, &args.stack)
        .await?
        .into_iter()
        .map(|service| (service.spec.name.clone(), service))
        .collect();
    if args.prune {
        prune(context, &existing, &stack.services).await?;
    }
    make_networks(context, &args.stack, &stack.networks).await?;
    for (secret, data) in secrets {
        store_secret(context, secret, data).await?;
    }
    for (config, data) in configs {
        store_config(context, config, data).await?;
    }
    let mut ids = Vec::new();
    for spec in stack.services {
        let old = existing.get(&spec.name);
        ids.push(deploy_service(context, spec, old, resolve, args.with_registry_auth).await?);
    }
    if args.detach.0.unwrap_or(true) {
        return Ok(());
    }
    for id in ids {
        service::wait(context, &id, args.quiet).await?;
    }
    Ok(())
}

fn tell(notes: &Notes) {
    for warning in &notes.warnings {
        crate::output::warn(warning);
    }
    if !notes.ignored.is_empty() {
        let names: Vec<&str> = notes.ignored.iter().map(String::as_str).collect();
        crate::output::warn(&format!("Ignoring unsupported options: {}\n", names.join(", ")));
    }
    if !notes.deprecated.is_empty() {
        let lines: Vec<String> =
            notes.deprecated.iter().map(|(name, why)| format!("{name}: {why}")).collect();
        crate::output::warn(&format!("Ignoring deprecated options:\n\n{}\n", lines.join("\n\n")));
    }
}

async fn check_manager(context: &Context) -> Result<()> {
    let info: SystemInfo = context.client.json(Call::get("/info")).await?;
    if info.swarm.control_available {
        return Ok(());
    }
    let program = &context.program;
    Err(message(format!(
        "this node is not a swarm manager. Use \"{program} swarm init\" or \"{program} swarm join\" to connect this node to swarm and try again"
    )))
}

/// Networks that others made must be there before anything is.
async fn check_external(context: &Context, networks: &[Network]) -> Result<()> {
    for network in networks.iter().filter(|network| matches!(network.name, Name::External(_))) {
        let name = &network.request.name;
        if !crate::parse::network::is_user_defined(name) {
            continue;
        }
        let found = context
            .client
            .json::<NetworkInspect>(Call::get(format!("/networks/{name}")))
            .await
            .map(|found| (found.name == *name || found.id == *name).then_some(found));
        match found {
            Ok(Some(found)) if found.scope == "swarm" => {}
            Ok(Some(found)) => {
                return Err(message(format!(
                    "network {name:?} is declared as external, but it is not in the right scope: {:?} instead of \"swarm\"",
                    found.scope
                )));
            }
            // The daemon takes the beginning of an id for a name.
            Ok(None) => return Err(not_there(name)),
            Err(error) if error.is_not_found() => return Err(not_there(name)),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn not_there(network: &str) -> crate::error::Error {
    message(format!(
        "network {network:?} is declared as external, but could not be found. You need to create a swarm-scoped network before the stack is deployed"
    ))
}

async fn prune(
    context: &Context,
    existing: &BTreeMap<String, Service>,
    wanted: &[ServiceSpec],
) -> Result<()> {
    for (name, service) in existing {
        if !wanted.iter().any(|spec| spec.name == *name) {
            crate::output::line(&format!("Removing service {name}"))?;
            context.client.none(Call::delete(format!("/services/{}", service.id))).await?;
        }
    }
    Ok(())
}

async fn make_networks(context: &Context, stack: &str, networks: &[Network]) -> Result<()> {
    let there: Vec<NetworkInspect> =
        context.client.json(Call::get("/networks").filters(&of_stack(stack))).await?;
    for network in networks.iter().filter(|network| matches!(network.name, Name::Own(_))) {
        let name = &network.request.name;
        if there.iter().any(|old| old.name == *name) {
            continue;
        }
        crate::output::line(&format!("Creating network {name}"))?;
        let call = Call::post("/networks/create").json(&network.request)?;
        context.client.json::<NetworkCreateResponse>(call).await?;
    }
    Ok(())
}

fn templating(content: &Content) -> Option<brig_api::mount::Driver> {
    let name = content.template_driver.clone()?;
    Some(brig_api::mount::Driver { name, ..brig_api::mount::Driver::default() })
}

/// What the stack makes itself, with its file's content; nothing where a driver makes that.
fn loaded<'a>(
    contents: &'a [Content],
    max: usize,
    kind: &str,
) -> Result<Vec<(&'a Content, SecretBytes)>> {
    // Secrets must not end up in a core dump of this process.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    contents
        .iter()
        .filter(|content| matches!(content.name, Name::Own(_)))
        .map(|content| {
            let data = match &content.file {
                Some(file) => secret::read(&file.to_string_lossy(), max, kind)?,
                None => SecretBytes::default(),
            };
            Ok((content, data))
        })
        .collect()
}

/// Makes a secret; one that is there keeps its content, and gets the labels.
async fn store_secret(context: &Context, content: &Content, data: SecretBytes) -> Result<()> {
    let len = data.len();
    let spec = SecretSpec {
        name: content.cluster_name.clone(),
        labels: content.labels.clone(),
        data: data.into(),
        driver: content.driver.clone(),
        templating: templating(content),
    };
    let name = &content.cluster_name;
    match context.client.json::<Secret>(Call::get(format!("/secrets/{name}"))).await {
        Ok(old) => {
            let call = Call::post(format!("/secrets/{}/update", old.id))
                .query("version", old.version.index.to_string())
                .secret_json(&spec, len)?;
            context.client.none(call).await.map_err(|e| failed("secret", name, &e))
        }
        Err(error) if error.is_not_found() => {
            crate::output::line(&format!("Creating secret {name}"))?;
            let call = Call::post("/secrets/create").secret_json(&spec, len)?;
            context.client.json::<CreateResponse>(call).await.map(|_| ())
        }
        Err(error) => Err(error),
    }
}

/// Makes a config; one that is there keeps its content, and gets the labels.
async fn store_config(context: &Context, content: &Content, data: SecretBytes) -> Result<()> {
    let name = &content.cluster_name;
    let spec = ConfigSpec {
        name: name.clone(),
        labels: content.labels.clone(),
        data: Base64(data.expose_secret().to_vec()),
        templating: templating(content),
    };
    match context.client.json::<Config>(Call::get(format!("/configs/{name}"))).await {
        Ok(old) => {
            let call = Call::post(format!("/configs/{}/update", old.id))
                .query("version", old.version.index.to_string())
                .json(&spec)?;
            context.client.none(call).await.map_err(|e| failed("config", name, &e))
        }
        Err(error) if error.is_not_found() => {
            crate::output::line(&format!("Creating config {name}"))?;
            let call = Call::post("/configs/create").json(&spec)?;
            context.client.json::<CreateResponse>(call).await.map(|_| ())
        }
        Err(error) => Err(error),
    }
}

fn failed(kind: &str, name: &str, error: &crate::error::Error) -> crate::error::Error {
    message(format!(
        "failed to update {kind} {name}: {}; its content cannot change, so give a new one another name (name: in the file)",
        error.text()
    ))
}

fn image(spec: &mut ServiceSpec) -> &mut String {
    &mut spec.task_template.container_spec.get_or_insert_default().image
}

/// Makes or updates a service, and gives its id.
async fn deploy_service(
    context: &Context,
    mut spec: ServiceSpec,
    old: Option<&Service>,
    resolve: Resolve,
    with_registry_auth: bool,
) -> Result<String> {
    service::grant(context, &mut spec).await?;
    let written = spec.labels.get(LABEL_IMAGE).cloned().unwrap_or_default();
    let auth = registry_auth::for_image(&context.config, &written).await;
    let same = old.filter(|old| old.spec.labels.get(LABEL_IMAGE) == Some(&written));
    // An image that is as it was stays at the digest that it was pinned to.
    if resolve == Resolve::Always || (resolve == Resolve::Changed && same.is_none()) {
        service::pin_image(context, &mut spec).await?;
    } else if let Some(running) =
        same.and_then(|old| old.spec.task_template.container_spec.as_ref())
        && !image(&mut spec).contains('@')
    {
        image(&mut spec).clone_from(&running.image);
    }
    let Some(old) = old else {
        crate::output::line(&format!("Creating service {}", spec.name))?;
        let mut call = Call::post("/services/create").json(&spec)?;
        if with_registry_auth {
            call = call.registry_auth(&auth);
        }
        let response: ServiceCreateResponse = context.client.json(call).await?;
        warn(&response.warnings);
        return Ok(response.id);
    };
    crate::output::line(&format!("Updating service {} (id: {})", spec.name, old.id))?;
    // There is no --force here: what was forced before is kept.
    spec.task_template.force_update = old.spec.task_template.force_update;
    let mut call = Call::post(format!("/services/{}/update", old.id))
        .query("version", old.version.index.to_string())
        .json(&spec)?;
    call = if with_registry_auth {
        call.registry_auth(&auth)
    } else {
        call.query("registryAuthFrom", "spec")
    };
    let response: brig_api::container::UpdateResponse = context.client.json(call).await?;
    warn(&response.warnings);
    Ok(old.id.clone())
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        crate::output::warn(warning);
    }
}
