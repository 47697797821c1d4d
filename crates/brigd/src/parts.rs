//! The configuration of each part, from the daemon's.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context as _;
use brig_engine::EngineConfig;
use brig_image::{OpenOptions, RegistrySettings};
use brig_network::{AddressPool, Ipv4Net, Ipv6Net, NetworkConfig};
use brig_runtime::RuntimeConfig;
use brig_swarm::{Executor, StoreSettings, SwarmConfig};
use brig_sys::cgroup;

use crate::config::{Cidr, Config};
use crate::instance::Instance;
use crate::tools::Tools;

/// The parent of all containers' cgroups, for the default instance.
const CGROUP_PARENT: &str = "/brig";
/// Below it: that of the store's member.
const STORE_GROUP: &str = "etcd";

/// How the image store is opened.
#[must_use]
pub fn image_options(config: &Config) -> OpenOptions {
    OpenOptions {
        registry: RegistrySettings {
            insecure: config.registries.insecure.clone(),
            mirrors: config.registries.mirrors.clone(),
            concurrent_downloads: config.registries.max_concurrent_downloads,
            concurrent_uploads: config.registries.max_concurrent_uploads,
            ..RegistrySettings::default()
        },
        ..OpenOptions::default()
    }
}

/// How the engine is started.
///
/// # Errors
/// Addresses of the wrong family.
pub fn engine_config(
    config: &Config,
    instance: &Instance,
    tools: &Tools,
) -> anyhow::Result<EngineConfig> {
    let suffix = instance.suffix();
    let cgroup_parent = cgroup_parent(config, instance);
    let runtime = RuntimeConfig {
        exec_root: config.exec_root.clone(),
        cache_dir: config.data_root.join("cache"),
        cgroup_parent,
        runtime: Some(tools.runtime.clone()),
        conmon: Some(tools.conmon.clone()),
        init: config.containers.init_path.clone(),
    };
    let mut network = NetworkConfig::new(suffix, config.data_root.join("network"));
    network.default_subnet =
        config.network.bip.map(bridge_subnet).transpose().context("invalid value for bip")?;
    network.default_ipv6 = config.network.ipv6;
    network.default_subnet6 = config.network.fixed_cidr_v6.and_then(|cidr| match cidr.address {
        IpAddr::V6(address) => Some(Ipv6Net::new(address, cidr.prefix)),
        IpAddr::V4(_) => None,
    });
    if !config.network.pools.is_empty() {
        network.pools = config
            .network
            .pools
            .iter()
            .map(|pool| Ok(AddressPool { base: net(pool.base)?, size: pool.size }))
            .collect::<anyhow::Result<_>>()
            .context("invalid value for default-address-pools")?;
    }
    network.dns_upstreams.clone_from(&config.network.dns);
    Ok(EngineConfig {
        data_root: config.data_root.clone(),
        exec_root: config.exec_root.clone(),
        runtime,
        network,
        log_options: config.containers.log_opts.clone(),
        dns: config.network.dns.iter().map(IpAddr::to_string).collect(),
        sockets: config.socket_binds.sockets.clone(),
        socket_mounts_allowed: config.socket_mounts_allowed,
        admission: None,
    })
}

fn cgroup_parent(config: &Config, instance: &Instance) -> String {
    let suffix = instance.suffix();
    config.cgroup_parent.clone().unwrap_or_else(|| {
        if suffix.is_empty() {
            CGROUP_PARENT.to_owned()
        } else {
            format!("{CGROUP_PARENT}-{suffix}")
        }
    })
}

/// The subnet of a bridge that has the first address of it, as ours do.
fn bridge_subnet(bip: Cidr) -> anyhow::Result<Ipv4Net> {
    let subnet = net(bip)?;
    let first = std::net::Ipv4Addr::from_bits(subnet.network().to_bits().saturating_add(1));
    anyhow::ensure!(
        bip.address == first,
        "the bridge has the first address of its subnet, {first}"
    );
    Ok(subnet)
}

fn net(cidr: Cidr) -> anyhow::Result<Ipv4Net> {
    match cidr.address {
        IpAddr::V4(address) => Ok(Ipv4Net::new(address, cidr.prefix)),
        IpAddr::V6(address) => {
            anyhow::bail!("{address} is no IPv4 address; IPv6 is set with ipv6 and fixed-cidr-v6")
        }
    }
}

/// How the cluster's part is opened.
#[must_use]
pub fn swarm_config(
    config: &Config,
    instance: &Instance,
    executor: Arc<dyn Executor>,
) -> SwarmConfig {
    let group = format!("{}/{STORE_GROUP}", cgroup_parent(config, instance));
    let groups = cgroup::create_tracking_group(&group).unwrap_or_else(|error| {
        tracing::warn!(%error, "etcd stays in the daemon's control group");
        Vec::new()
    });
    SwarmConfig {
        state_dir: config.data_root.join("swarm"),
        executor,
        store: StoreSettings { external: config.store.clone(), groups, ..StoreSettings::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bridge_has_the_first_address() {
        let cidr = |text: &str| Cidr { address: text.parse().unwrap(), prefix: 16 };
        let subnet = bridge_subnet(cidr("172.17.0.1")).unwrap();
        assert_eq!(subnet, Ipv4Net::new([172, 17, 0, 0].into(), 16));
        assert!(bridge_subnet(cidr("172.17.42.1")).is_err());
        assert!(bridge_subnet(cidr("fd00::1")).is_err());
    }
}
