//! `swarm ca`: the root certificate, and another one.

use brig_api::data::SecretText;
use brig_api::swarm::{ExternalCa, Swarm, SwarmSpec};
use clap::Args;

use super::rotation;
use super::spec::{self, Rotate};
use crate::cli::leaf;
use crate::client::Call;
use crate::context::Context;
use crate::error::{Result, message};
use crate::parse::{duration, pem, swarm::external_ca};

leaf!(CA, "ca", "[OPTIONS]", "Display and rotate the root CA", CaArgs, ca);

#[derive(Args, Debug)]
struct CaArgs {
    /// Path to the PEM-formatted root CA certificate to use for the new cluster
    #[arg(long, value_name = "pem-file", value_parser = pem::file)]
    ca_cert: Option<SecretText>,
    /// Path to the PEM-formatted root CA key to use for the new cluster
    #[arg(long, value_name = "pem-file", value_parser = pem::file)]
    ca_key: Option<SecretText>,
    /// Validity period for node certificates (ns|us|ms|s|m|h) (default 2160h0m0s)
    #[arg(long, value_parser = duration::positive)]
    cert_expiry: Option<i64>,
    /// Exit immediately instead of waiting for the root rotation to converge
    #[arg(long, short = 'd')]
    detach: bool,
    /// Specifications of one or more certificate signing endpoints
    #[arg(long, value_parser = external_ca)]
    external_ca: Vec<ExternalCa>,
    /// Suppress progress output
    #[arg(long, short = 'q')]
    quiet: bool,
    /// Rotate the swarm CA - if no certificate or key are provided, new ones will be generated
    #[arg(long)]
    rotate: bool,
}

impl CaArgs {
    /// Refuses what makes no sense together.
    fn check(&self) -> Result<()> {
        if !self.rotate {
            let given = [
                ("ca-cert", self.ca_cert.is_some()),
                ("ca-key", self.ca_key.is_some()),
                ("cert-expiry", self.cert_expiry.is_some()),
                ("external-ca", !self.external_ca.is_empty()),
            ];
            return match given.iter().find(|(_, given)| *given) {
                Some((flag, _)) => Err(message(format!(
                    "`--{flag}` flag requires the `--rotate` flag to update the CA"
                ))),
                None => Ok(()),
            };
        }
        if !self.external_ca.is_empty() && self.ca_cert.is_none() {
            return Err(message(
                "rotating to an external CA requires the `--ca-cert` flag to specify the external CA's cert - to add an external CA with the current root CA certificate, use the `update` command instead",
            ));
        }
        if self.ca_cert.is_some() && self.external_ca.is_empty() && self.ca_key.is_none() {
            return Err(message(
                "the --ca-cert flag requires that a --ca-key flag and/or --external-ca flag be provided as well",
            ));
        }
        Ok(())
    }

    /// Puts what was given into the settings.
    fn apply(&self, spec: &mut SwarmSpec) {
        let config = &mut spec.ca_config;
        if let Some(expiry) = self.cert_expiry {
            config.node_cert_expiry = expiry;
        }
        if !self.external_ca.is_empty() {
            config.external_cas.clone_from(&self.external_ca);
        }
        if let Some(root) = &self.ca_cert {
            for external in config.external_cas.iter_mut().filter(|ca| ca.ca_cert.is_empty()) {
                root.expose_secret().clone_into(&mut external.ca_cert);
            }
        }
        config.signing_ca_cert =
            self.ca_cert.as_ref().map(|cert| cert.expose_secret().to_owned()).unwrap_or_default();
        config.signing_ca_key = self.ca_key.clone().unwrap_or_default();
        if self.ca_cert.is_none() && self.ca_key.is_none() {
            config.force_rotate += 1;
        }
    }
}

async fn ca(context: &Context, args: CaArgs) -> Result<()> {
    let swarm: Swarm = context.client.json(Call::get("/swarm")).await?;
    args.check()?;
    if !args.rotate {
        return display(&swarm);
    }
    let mut settings = swarm.spec;
    args.apply(&mut settings);
    spec::send(context, swarm.version.index, &settings, Rotate::default()).await?;
    if args.detach {
        return Ok(());
    }
    rotation::wait(context, args.quiet).await?;
    if args.quiet {
        return Ok(());
    }
    display(&context.client.json(Call::get("/swarm")).await?)
}

fn display(swarm: &Swarm) -> Result<()> {
    if swarm.tls_info.trust_root.is_empty() {
        return Err(message("No CA information available"));
    }
    crate::output::line(swarm.tls_info.trust_root.trim())
}
