//! Names into ids: secrets, configs, networks, and an image into its digest.

use std::collections::{BTreeMap, BTreeSet};

use brig_api::filters::Filters;
use brig_api::image::DistributionInspect;
use brig_api::network::NetworkInspect;
use brig_api::swarm::{
    Config, ConfigReference, NetworkAttachmentConfig, Placement, Platform, Secret, SecretReference,
    ServiceSpec,
};
use brig_types::digest::Digest;
use brig_types::reference::Reference;
use serde::de::DeserializeOwned;

use super::changes::container;
use crate::client::{Call, registry_auth};
use crate::commands::trust::{ContentTrust, trusted_for_service};
use crate::context::Context;
use crate::error::{Result, message};
use crate::parse::network::Attachment;

/// Fills in the ids of secrets.
pub(super) async fn secrets(
    context: &Context,
    mut references: Vec<SecretReference>,
) -> Result<Vec<SecretReference>> {
    let wanted = references
        .iter()
        .map(|r| Wanted { target: r.file.as_ref().map_or("", |f| &f.name), name: &r.secret_name })
        .collect();
    let named = |secret: &Secret| (secret.spec.name.clone(), secret.id.clone());
    let ids = ids_of(context, "secret", "/secrets", wanted, named).await?;
    for (reference, id) in references.iter_mut().zip(ids) {
        reference.secret_id = id;
    }
    Ok(references)
}

/// Fills in the ids of configs.
pub(super) async fn configs(
    context: &Context,
    mut references: Vec<ConfigReference>,
) -> Result<Vec<ConfigReference>> {
    let wanted = references
        .iter()
        .map(|r| Wanted { target: r.file.as_ref().map_or("", |f| &f.name), name: &r.config_name })
        .collect();
    let named = |config: &Config| (config.spec.name.clone(), config.id.clone());
    let ids = ids_of(context, "config", "/configs", wanted, named).await?;
    for (reference, id) in references.iter_mut().zip(ids) {
        reference.config_id = id;
    }
    Ok(references)
}

/// A secret or config that a service is to be granted.
struct Wanted<'a> {
    /// Its file in the container.
    target: &'a str,
    name: &'a str,
}

/// The ids of what is wanted, in the same order. No two may have the same target.
async fn ids_of<T: DeserializeOwned>(
    context: &Context,
    kind: &str,
    path: &str,
    wanted: Vec<Wanted<'_>>,
    named: impl Fn(&T) -> (String, String),
) -> Result<Vec<String>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut targets = BTreeSet::new();
    for Wanted { target, name } in &wanted {
        if !targets.insert(*target) {
            return Err(message(format!("duplicate {kind} target for {name} not allowed")));
        }
    }
    let filters = wanted.iter().fold(Filters::new(), |f, w| f.with("name", w.name));
    let found: Vec<T> = context.client.json(Call::get(path).filters(&filters)).await?;
    // The filter matches parts of names; the name itself is meant.
    let ids: BTreeMap<String, String> = found.iter().map(named).collect();
    let id_of = |w: &Wanted<'_>| ids.get(w.name).cloned();
    wanted
        .iter()
        .map(|w| id_of(w).ok_or_else(|| message(format!("{kind} not found: {}", w.name))))
        .collect()
}

/// A network of the cluster by name or id.
pub(super) async fn network_id(context: &Context, name: &str) -> Result<String> {
    let call = Call::get(format!("/networks/{name}")).query("scope", "swarm");
    let network: NetworkInspect = context.client.json(call).await?;
    Ok(network.id)
}

/// Networks as a service has them.
pub(super) async fn networks(
    context: &Context,
    wanted: &[Attachment],
) -> Result<Vec<NetworkAttachmentConfig>> {
    let mut networks = Vec::new();
    for network in wanted {
        networks.push(NetworkAttachmentConfig {
            target: network_id(context, &network.target).await?,
            aliases: network.aliases.clone(),
            driver_opts: network.driver_opts.clone(),
        });
    }
    networks.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(networks)
}

/// The image in full, with its default tag.
pub(super) fn normalized(image: &str) -> Result<String> {
    let reference = Reference::parse(image).map_err(|e| message(format!("{e}: {image}")))?;
    Ok(reference.with_default_tag().familiar())
}

/// With content trust: pins the image to the digest that was signed for its tag.
pub(super) async fn trust_image(context: &Context, spec: &mut ServiceSpec) -> Result<()> {
    if ContentTrust::from_environment().enabled {
        let image = container(spec).image.clone();
        container(spec).image = trusted_for_service(context, &image).await?;
    }
    Ok(())
}

/// Pins the image to the digest that its registry has now; without a registry the tag stays.
pub(crate) async fn pin_image(context: &Context, spec: &mut ServiceSpec) -> Result<()> {
    let image = container(spec).image.clone();
    let Ok(reference) = Reference::parse(&image) else {
        return Ok(());
    };
    if reference.digest().is_some() {
        return Ok(());
    }
    let auth = registry_auth::for_image(&context.config, &image).await;
    let call = Call::get(format!("/distribution/{image}/json")).registry_auth_if_any(&auth);
    match context.client.json::<DistributionInspect>(call).await {
        Ok(found) => {
            let digest =
                Digest::parse(&found.descriptor.digest).map_err(|e| message(e.to_string()))?;
            container(spec).image = reference.with_digest(digest).familiar();
            let platforms = found
                .platforms
                .into_iter()
                .map(|platform| Platform { architecture: platform.architecture, os: platform.os });
            let placement: &mut Placement = spec.task_template.placement.get_or_insert_default();
            placement.platforms = platforms.collect();
            Ok(())
        }
        Err(error @ (crate::error::Error::Connect { .. } | crate::error::Error::Http { .. })) => {
            Err(error)
        }
        Err(_) => {
            crate::output::warn(&format!(
                "image {image} could not be accessed on a registry to record\nits digest. Each node will access {image} independently,\n\
                 possibly leading to different nodes running different\nversions of the image.\n"
            ));
            Ok(())
        }
    }
}
