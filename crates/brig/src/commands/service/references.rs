//! Names into ids: secrets, configs, networks, and an image into its digest.

use std::collections::BTreeMap;

use brig_api::filters::Filters;
use brig_api::image::DistributionInspect;
use brig_api::network::NetworkInspect;
use brig_api::swarm::{
    Config, ConfigReference, NetworkAttachmentConfig, Placement, Platform, Secret, SecretReference,
    ServiceSpec,
};
use brig_types::digest::Digest;
use brig_types::reference::Reference;

use super::changes::container;
use crate::client::{Call, registry_auth};
use crate::context::Context;
use crate::error::{Result, message};
use crate::parse::network::Attachment;

/// Fills in the ids of secrets.
pub(super) async fn secrets(
    context: &Context,
    mut references: Vec<SecretReference>,
) -> Result<Vec<SecretReference>> {
    if references.is_empty() {
        return Ok(references);
    }
    let mut targets = BTreeMap::new();
    for reference in &references {
        let target = reference.file.as_ref().map_or("", |file| file.name.as_str());
        if targets.insert(target.to_owned(), ()).is_some() {
            return Err(message(format!(
                "duplicate secret target for {} not allowed",
                reference.secret_name
            )));
        }
    }
    let filters = references.iter().fold(Filters::new(), |f, r| f.with("name", &r.secret_name));
    let found: Vec<Secret> = context.client.json(Call::get("/secrets").filters(&filters)).await?;
    for reference in &mut references {
        // The filter matches parts of names; the name itself is meant.
        match found.iter().find(|secret| secret.spec.name == reference.secret_name) {
            Some(secret) => reference.secret_id.clone_from(&secret.id),
            None => return Err(message(format!("secret not found: {}", reference.secret_name))),
        }
    }
    Ok(references)
}

/// Fills in the ids of configs.
pub(super) async fn configs(
    context: &Context,
    mut references: Vec<ConfigReference>,
) -> Result<Vec<ConfigReference>> {
    if references.is_empty() {
        return Ok(references);
    }
    let mut targets = BTreeMap::new();
    for reference in &references {
        let target = reference.file.as_ref().map_or("", |file| file.name.as_str());
        if targets.insert(target.to_owned(), ()).is_some() {
            return Err(message(format!(
                "duplicate config target for {} not allowed",
                reference.config_name
            )));
        }
    }
    let filters = references.iter().fold(Filters::new(), |f, r| f.with("name", &r.config_name));
    let found: Vec<Config> = context.client.json(Call::get("/configs").filters(&filters)).await?;
    for reference in &mut references {
        match found.iter().find(|config| config.spec.name == reference.config_name) {
            Some(config) => reference.config_id.clone_from(&config.id),
            None => return Err(message(format!("config not found: {}", reference.config_name))),
        }
    }
    Ok(references)
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

/// Pins the image to the digest that its registry has now; without a registry the tag stays.
pub(super) async fn pin_image(context: &Context, spec: &mut ServiceSpec) -> Result<()> {
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
