//! What happens to the cluster's root when its settings ask for another one, and when every node
//! has followed.
//!
//! While a rotation is under way the old root stays the one that nodes trust, and new certificates
//! are signed by the new one; its cross certificate, signed by the old root, is a part of every
//! chain. When the new root has taken over, that cross certificate is kept for as long as a node
//! may come back that knows nothing but the old root.

use std::time::{Duration, SystemTime};

use brig_pki::PkiError;
use brig_pki::ca::RootCa;
use brig_pki::hash;
use brig_pki::identity::CertInfo;
use brig_proto::swarm::{
    CaConfig, Cluster, ClusterSpec, CrossCertificate, JoinTokens, Node, NodeTlsInfo,
    RootCa as StoredRoot, RootRotation,
};
use brig_types::secret::SecretBytes;

use crate::error::ControlError;
use crate::manager::control::cluster::new_token;
use crate::validate::service::invalid;
use crate::wire_time;

/// Roots before the present one that chains lead back to. Together with the cross certificate of
/// a rotation that is under way, this is as long as chains may be for every implementation.
const MAX_CROSS_CERTIFICATES: usize = 5;
/// How long after the end of its certificate a node may still come back.
const GRACE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What somebody else than this cluster's keys contributes to its next root.
#[derive(Debug, Default)]
pub(crate) struct Signers {
    /// External authorities sign for the root that is asked for, without its key.
    pub(crate) external: bool,
    /// The root to rotate to and its certificate that external authorities signed for the present
    /// one, whose key is not in the cluster.
    pub(crate) cross_signed: Option<(RootCa, Vec<u8>)>,
}

/// What settings ask of the cluster's root.
pub(crate) enum Request {
    /// Nothing: it stays, and so does a rotation that is under way.
    Keep,
    /// A new one that the cluster makes for itself.
    Fresh,
    /// This one: it is there already, or being rotated to.
    Known(RootCa),
    /// This one.
    Other(RootCa),
}

/// Reads what settings ask for.
///
/// # Errors
/// [`ControlError::InvalidArgument`] for a root that cannot be.
pub(crate) fn request(root: &StoredRoot, config: &CaConfig) -> Result<Request, ControlError> {
    if config.signing_ca_cert.is_empty() {
        if !config.signing_ca_key.is_empty() {
            return Err(invalid(
                "if a signing CA key is provided, the signing CA cert must also be provided",
            ));
        }
        let is_forced = config.force_rotate != root.last_forced_rotation;
        return Ok(if is_forced { Request::Fresh } else { Request::Keep });
    }
    let desired = desired(config)?;
    let pending = root.root_rotation.as_ref();
    let is_known =
        desired.is(&root.ca_cert) || pending.is_some_and(|pending| desired.is(&pending.ca_cert));
    Ok(if is_known { Request::Known(desired) } else { Request::Other(desired) })
}

/// The cluster's root after its settings were changed; `None` when they ask for no other one.
///
/// # Errors
/// [`ControlError::InvalidArgument`] for a root that cannot be.
pub(crate) fn requested(
    root: &StoredRoot,
    config: &CaConfig,
    signers: &Signers,
) -> Result<Option<StoredRoot>, ControlError> {
    let forced = config.force_rotate;
    let desired = match request(root, config)? {
        Request::Keep => return Ok(None),
        Request::Fresh => match &signers.cross_signed {
            Some((new, cross)) => return Ok(Some(begun(root, new, forced, cross.clone()))),
            None => {
                let new = RootCa::generate().map_err(ControlError::Pki)?;
                return begin(root, &new, forced).map(Some);
            }
        },
        Request::Other(_) if signers.cross_signed.is_some() => {
            let cross_signed = signers.cross_signed.as_ref();
            return Ok(cross_signed.map(|(new, cross)| begun(root, new, forced, cross.clone())));
        }
        Request::Other(desired) => {
            if !desired.can_sign() && !signers.external {
                return Err(no_signer());
            }
            return begin(root, &desired, forced).map(Some);
        }
        Request::Known(desired) => desired,
    };
    let key = desired.key_pem().map(|key| key.expose_secret().to_vec());
    let mut after = root.clone();
    after.last_forced_rotation = forced;
    if desired.is(&root.ca_cert) {
        after.root_rotation = None;
        replace_key(&mut after.ca_key, key, signers)?;
    } else if let Some(pending) = &mut after.root_rotation {
        replace_key(&mut pending.ca_key, key, signers)?;
    }
    Ok((after != *root).then_some(after))
}

/// The root that a new cluster begins with.
///
/// # Errors
/// [`ControlError::InvalidArgument`] for a root that cannot be.
pub(crate) fn first(spec: &ClusterSpec) -> Result<RootCa, ControlError> {
    let config = spec.ca_config.as_ref();
    let Some(config) = config.filter(|config| !config.signing_ca_cert.is_empty()) else {
        return RootCa::generate().map_err(ControlError::Pki);
    };
    let root = desired(config)?;
    if root.can_sign() { Ok(root) } else { Err(no_signer()) }
}

/// The root that the settings name.
fn desired(config: &CaConfig) -> Result<RootCa, ControlError> {
    let key = SecretBytes::new(config.signing_ca_key.clone());
    let key = (!key.expose_secret().is_empty()).then_some(key);
    RootCa::desired(&config.signing_ca_cert, key.as_ref()).map_err(|error| refused(&error))
}

/// Without a key, external authorities sign and the cluster keeps none; where there are none the
/// key that is there stays.
fn replace_key(
    key: &mut Vec<u8>,
    given: Option<Vec<u8>>,
    signers: &Signers,
) -> Result<(), ControlError> {
    match given {
        Some(given) => *key = given,
        None if signers.external => key.clear(),
        None if key.is_empty() => return Err(no_signer()),
        None => {}
    }
    Ok(())
}

fn no_signer() -> ControlError {
    invalid(
        "there must be at least one valid, reachable external CA corresponding to the desired CA certificate",
    )
}

fn refused(error: &PkiError) -> ControlError {
    invalid(brig_types::error::chain(error))
}

/// Begins a rotation, or begins it anew: always from the root that nodes trust.
fn begin(root: &StoredRoot, new: &RootCa, forced: u64) -> Result<StoredRoot, ControlError> {
    let key = SecretBytes::new(root.ca_key.clone());
    let old = RootCa::from_pem(&root.ca_cert, Some(&key)).map_err(ControlError::Pki)?;
    let cross = old.cross_sign(new).map_err(|error| match error {
        PkiError::Certificate { .. } => refused(&error),
        other => ControlError::Pki(other),
    })?;
    Ok(begun(root, new, forced, cross))
}

/// The beginning of a rotation to a root that was cross-signed.
fn begun(root: &StoredRoot, new: &RootCa, forced: u64, cross: Vec<u8>) -> StoredRoot {
    let key = new.key_pem().map(|key| key.expose_secret().to_vec()).unwrap_or_default();
    StoredRoot {
        root_rotation: Some(RootRotation {
            ca_cert: new.cert_pem().to_vec(),
            ca_key: key,
            cross_signed_ca_cert: cross,
        }),
        last_forced_rotation: forced,
        ..root.clone()
    }
}

/// The root that nodes are to have certificates of.
pub(crate) fn target(root: &StoredRoot) -> &[u8] {
    root.root_rotation.as_ref().map_or(&root.ca_cert, |rotation| &rotation.ca_cert)
}

/// What leads from the signing root back to those before it, PEM, in the order of a chain.
pub(crate) fn way_back(root: &StoredRoot, now: SystemTime) -> Vec<u8> {
    let pending = root.root_rotation.as_ref().map(|rotation| &rotation.cross_signed_ca_cert);
    let past = kept(root, now).map(|cross| &cross.certificate);
    pending.into_iter().chain(past).flatten().copied().collect()
}

/// The cross certificates that are still of use: each one is worth something only together with
/// all that are newer.
fn kept(root: &StoredRoot, now: SystemTime) -> impl Iterator<Item = &CrossCertificate> {
    root.cross_certificates
        .iter()
        .take(MAX_CROSS_CERTIFICATES)
        .take_while(move |cross| wire_time::instant(cross.until.as_ref()) > now)
}

/// Whether a node's certificate is of this issuer, as the node says.
pub(crate) fn is_issued_by(node: &Node, issuer: &CertInfo) -> bool {
    let info = node.description.as_ref().and_then(|description| description.tls_info.as_ref());
    info.is_some_and(|NodeTlsInfo { cert_issuer_subject, cert_issuer_public_key, .. }| {
        *cert_issuer_subject == issuer.subject_der
            && *cert_issuer_public_key == issuer.public_key_der
    })
}

/// The new root takes over. Join tokens pin the root, so there are new ones; their limits stay,
/// because who limited a token did not mean to let more nodes in by rotating.
///
/// # Errors
/// [`ControlError::Pki`] when no tokens can be made.
pub(crate) fn finished<'a>(
    cluster: &Cluster,
    nodes: impl Iterator<Item = &'a Node>,
    now: SystemTime,
) -> Result<Option<Cluster>, ControlError> {
    let mut cluster = cluster.clone();
    let until = [now + super::expiry(&cluster) + GRACE]
        .into_iter()
        .chain(nodes.filter_map(certificate_end))
        .max();
    let Some(root) = &mut cluster.root_ca else { return Ok(None) };
    let Some(rotation) = root.root_rotation.take() else { return Ok(None) };
    let cross = CrossCertificate {
        certificate: rotation.cross_signed_ca_cert,
        until: until.map(wire_time::timestamp),
    };
    let past = kept(root, now).take(MAX_CROSS_CERTIFICATES - 1).cloned();
    root.cross_certificates = [cross].into_iter().chain(past).collect();
    let limits = root.join_tokens.take().unwrap_or_default();
    root.join_tokens = Some(JoinTokens {
        worker: new_token(&rotation.ca_cert)?,
        manager: new_token(&rotation.ca_cert)?,
        ..limits
    });
    root.ca_cert_hash = format!("sha256:{}", hash::hex(&hash::sha256(&rotation.ca_cert)));
    root.ca_cert = rotation.ca_cert;
    root.ca_key = rotation.ca_key;
    Ok(Some(cluster))
}

/// When the certificate that a node was issued last has been out for a while. External authorities
/// decide themselves how long theirs are valid.
fn certificate_end(node: &Node) -> Option<SystemTime> {
    let certificate = node.certificate.as_ref()?;
    let info = CertInfo::from_pem(&certificate.certificate).ok()?;
    SystemTime::from(info.not_after).checked_add(GRACE)
}

/// How long a node that is to get a new certificate and does not is left alone before it is asked
/// again.
pub(crate) fn patience(times: u32) -> Duration {
    const FIRST: Duration = Duration::from_secs(3);
    const LONGEST: Duration = Duration::from_secs(60);
    FIRST.saturating_mul(1 << times.min(5)).min(LONGEST)
}
