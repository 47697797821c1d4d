//! Checks of settings that name external authorities, before they are stored.

use std::sync::Arc;

use brig_pki::ca::{self, RootCa};
use brig_pki::tls::TlsCredentials;
use brig_proto::swarm::external_ca::CaProtocol;
use brig_proto::swarm::{CaConfig, Cluster};
use brig_types::error::chain;

use super::ExternalCa;
use super::https::Endpoint;
use crate::error::ControlError;
use crate::manager::ca::rotation::{self, Request, Signers};
use crate::validate::service::invalid;

/// Most authorities that settings may name.
const MAX_EXTERNAL: usize = 32;

/// Checks what can be checked without asking anybody.
pub(crate) fn check_settings(settings: &CaConfig) -> Result<(), ControlError> {
    if settings.external_cas.len() > MAX_EXTERNAL {
        return Err(invalid(format!("more than {MAX_EXTERNAL} external CAs")));
    }
    for external in &settings.external_cas {
        if CaProtocol::try_from(external.protocol).is_err() {
            return Err(invalid("the protocol of an external CA can only be cfssl"));
        }
        let url = &external.url;
        Endpoint::parse(url)
            .map_err(|error| invalid(format!("external CA {url:?} cannot be used: {error}")))?;
        if !external.ca_cert.is_empty() {
            ca::check_bundle(&external.ca_cert).map_err(|error| {
                invalid(format!(
                    "the CA certificate of external CA {url:?} cannot be used: {}",
                    chain(&error)
                ))
            })?;
        }
    }
    Ok(())
}

/// The authorities of a new cluster, if its settings name any: those whose root, which all have to
/// give, becomes the cluster's. The node that makes the cluster has no certificate to show yet.
pub(crate) fn initial(settings: &CaConfig) -> Result<Option<(RootCa, ExternalCa)>, ControlError> {
    let Some(first) = settings.external_cas.first() else { return Ok(None) };
    let root = first.ca_cert.as_slice();
    let external = ExternalCa::new(settings, &[], root, None);
    let all = external.filter(|external| external.urls.len() == settings.external_cas.len());
    let Some(external) = all else {
        return Err(invalid(
            "a swarm that begins with external CAs takes over their root: give every \
             --external-ca the certificate of the root that it signs with, the same for all \
             (cacert=FILE)",
        ));
    };
    let root = RootCa::desired(root, None).map_err(|error| {
        invalid(format!("the CA certificate cannot be used: {}", chain(&error)))
    })?;
    Ok(Some((root, external)))
}

/// Finds out who signs in a cluster with these settings. Settings that would leave every node
/// without certificate are refused while that can be told to somebody.
///
/// A root whose key is not in the cluster is asked for its part in a rotation right here, because
/// the change of the cluster itself cannot wait for anybody.
pub(crate) async fn find_signers(
    cluster: &Cluster,
    settings: &CaConfig,
    identity: &Arc<TlsCredentials>,
) -> Result<Signers, ControlError> {
    let Some(root) = &cluster.root_ca else { return Ok(Signers::default()) };
    let before = cluster.spec.as_ref().and_then(|spec| spec.ca_config.as_ref());
    let reach = async |wanted: &[u8], which: &str| {
        require_reachable(settings, &root.ca_cert, wanted, which, identity).await
    };
    let of_current = |settings: &CaConfig| {
        ExternalCa::new(settings, &root.ca_cert, &root.ca_cert, None).map(|external| external.urls)
    };
    let now = of_current(settings);
    if root.ca_key.is_empty() || (now.is_some() && now != before.and_then(of_current)) {
        reach(&root.ca_cert, "current").await?;
    }
    let new = match rotation::request(root, settings)? {
        Request::Keep => {
            let next = root.root_rotation.as_ref().filter(|next| next.ca_key.is_empty());
            if let Some(next) = next {
                reach(&next.ca_cert, "next").await?;
            }
            return Ok(Signers::default());
        }
        Request::Known(desired) => {
            // Without a key or an authority the key that is there stays.
            let named =
                ExternalCa::new(settings, &root.ca_cert, desired.cert_pem(), None).is_some();
            let external = !desired.can_sign() && named;
            if external {
                reach(desired.cert_pem(), "desired").await?;
            }
            return Ok(Signers { external, cross_signed: None });
        }
        Request::Other(desired) if desired.can_sign() => desired,
        Request::Other(_) if root.ca_key.is_empty() => {
            return Err(invalid(
                "rotating from one external CA to a different external CA is not supported",
            ));
        }
        Request::Other(desired) => {
            reach(desired.cert_pem(), "desired").await?;
            return Ok(Signers { external: true, cross_signed: None });
        }
        Request::Fresh if !root.ca_key.is_empty() => return Ok(Signers::default()),
        Request::Fresh => RootCa::generate().map_err(ControlError::Pki)?,
    };
    if !root.ca_key.is_empty() {
        return Ok(Signers::default());
    }
    let present =
        ExternalCa::new(settings, &root.ca_cert, &root.ca_cert, Some(Arc::clone(identity)));
    let Some(present) = present else { return Ok(Signers::default()) };
    let cross = present.cross_sign(&new).await.map_err(|error| {
        invalid(format!(
            "unable to generate a cross-signed certificate for root rotation: {}",
            chain(&error)
        ))
    })?;
    Ok(Signers { external: false, cross_signed: Some((new, cross)) })
}

/// Demands an external authority for `root` with which TLS can be had; `which` of the cluster's
/// roots that is: `current`, `desired` or `next`.
async fn require_reachable(
    settings: &CaConfig,
    current: &[u8],
    root: &[u8],
    which: &str,
    identity: &Arc<TlsCredentials>,
) -> Result<(), ControlError> {
    let text = format!(
        "there must be at least one valid, reachable external CA corresponding to the {which} CA certificate"
    );
    let Some(external) = ExternalCa::new(settings, current, root, Some(Arc::clone(identity)))
    else {
        return Err(invalid(format!(
            "{text}: no --external-ca names that certificate (cacert=FILE)"
        )));
    };
    external.reach().await.map_err(|error| invalid(format!("{text}: {}", chain(&error))))
}
