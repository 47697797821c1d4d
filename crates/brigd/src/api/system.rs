//! The engine itself: ping, version, info, disk usage.

use std::collections::BTreeMap;

use brig_access::Object;
use brig_api::system::{
    AddressPool, ComponentVersion, DiskUsage, IndexConfig, Platform, PluginsInfo, RegistryConfig,
    RuntimeInfo, SystemInfo, Version,
};
use brig_api::time::rfc3339nano;
use brig_api::version::{MAX, MIN};
use brig_engine::ListOptions;
use brig_runtime::{AppArmor, Flavor};
use http::{HeaderValue, header};
use time::OffsetDateTime;

use super::images::{size, summary};
use crate::access::{Action, object};
use crate::config::LogLevel;
use crate::host::sysctl_enabled;
use crate::server::body;
use crate::server::{ApiError, Call, Response};

type Answer = Result<Response, ApiError>;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Where unqualified image names come from, in docker's words.
const INDEX_SERVER: &str = "https://index.docker.io/v1/";

/// `/_ping`.
///
/// # Errors
/// None.
pub async fn ping(call: Call) -> Answer {
    let mut response = http::Response::new(body::full("OK"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    // The classic builder: this engine has no BuildKit.
    headers.insert("builder-version", HeaderValue::from_static("1"));
    headers.insert("swarm", HeaderValue::from_static(crate::swarm::ping_status(&call.state)));
    Ok(response)
}

/// `GET /version`.
///
/// # Errors
/// None.
pub async fn version(call: Call) -> Answer {
    let host = &call.state.host;
    let arch = host.architecture().to_owned();
    let details = [
        ("ApiVersion", MAX.to_string()),
        ("MinAPIVersion", MIN.to_string()),
        ("Arch", arch.clone()),
        ("Os", "linux".to_owned()),
        ("KernelVersion", host.kernel.clone()),
        ("Experimental", "false".to_owned()),
        // Clients print these lines whether or not there is something to say.
        ("GitCommit", String::new()),
        ("GoVersion", String::new()),
        ("BuildTime", String::new()),
    ];
    let details = details.map(|(key, value)| (key.to_owned(), value)).into();
    let engine =
        ComponentVersion { name: "Engine".to_owned(), version: VERSION.to_owned(), details };
    let mut components = vec![engine];
    components.extend(call.state.programs.versions().await);
    body::ok(&Version {
        platform: Platform { name: "brig".to_owned() },
        components,
        version: VERSION.to_owned(),
        api_version: MAX.to_string(),
        min_api_version: MIN.to_string(),
        os: "linux".to_owned(),
        arch,
        kernel_version: host.kernel.clone(),
        ..Version::default()
    })
}

/// `GET /info`.
///
/// # Errors
/// When the containers can't be listed.
pub async fn info(call: Call) -> Answer {
    let state = &call.state;
    let containers = super::containers::all(state).await?;
    let count = |wanted: &[&str]| {
        let matching = containers.iter().filter(|c| wanted.contains(&c.state.as_str()));
        i64::try_from(matching.count()).unwrap_or(i64::MAX)
    };
    let (running, paused) = (count(&["running", "restarting"]), count(&["paused"]));
    let total = i64::try_from(containers.len()).unwrap_or(i64::MAX);
    let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let runtime = state.engine.runtime();
    let runtime_name = match runtime.flavor() {
        Flavor::Crun => "crun",
        Flavor::Runc => "runc",
    };
    let runtime_info =
        RuntimeInfo { path: runtime.program().display().to_string(), runtime_args: Vec::new() };
    let unified = brig_sys::cgroup::mode() == brig_sys::cgroup::CgroupMode::V2;
    let host = state.host.clone();
    let config = &state.config;
    let init = config.containers.init_path.as_ref();
    let swarm = crate::swarm::info(state).await;
    // As dockerd does: the CLI prints no others.
    let mut warnings = swarm.warnings.clone();
    warnings.extend(crate::swarm::expiring::warnings(state));
    body::ok(&SystemInfo {
        id: state.engine_id.clone(),
        containers: total,
        containers_running: running,
        containers_paused: paused,
        containers_stopped: total - running - paused,
        images: i64::try_from(state.engine.images().list().len()).unwrap_or(i64::MAX),
        driver: "overlay2".to_owned(),
        driver_status: vec![["Native Overlay Diff".to_owned(), "true".to_owned()]],
        plugins: PluginsInfo {
            volume: list(&["local"]),
            network: list(&["bridge", "host", "null"]),
            authorization: Vec::new(),
            log: list(&["json-file", "local", "none"]),
        },
        memory_limit: true,
        swap_limit: true,
        kernel_memory: (!call.speaks(1, 42)).then_some(false),
        kernel_memory_tcp: (!call.speaks(1, 42)).then_some(false),
        cpu_cfs_period: true,
        cpu_cfs_quota: true,
        cpu_shares: true,
        cpu_set: true,
        pids_limit: true,
        ipv4_forwarding: sysctl_enabled("/proc/sys/net/ipv4/ip_forward"),
        // Bridged packets are filtered by nftables itself, for which these switches do not count.
        bridge_nf_iptables: true,
        bridge_nf_ip6tables: true,
        debug: config.log_level == LogLevel::Debug,
        nfd: open_files(),
        oom_kill_disable: !unified,
        ngoroutines: threads(),
        system_time: rfc3339nano(OffsetDateTime::now_utc()),
        logging_driver: config.containers.log_driver.clone().unwrap_or_else(|| "json-file".into()),
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: if unified { "2" } else { "1" }.to_owned(),
        nevents_listener: 0,
        architecture: host.machine.clone(),
        kernel_version: host.kernel,
        operating_system: host.operating_system,
        os_version: host.os_version,
        os_type: "linux".to_owned(),
        index_server_address: INDEX_SERVER.to_owned(),
        registry_config: registries(&config.registries),
        ncpu: i64::from(host.cpus),
        mem_total: size(host.memory),
        docker_root_dir: config.data_root.display().to_string(),
        name: host.hostname,
        labels: config.labels.clone(),
        server_version: VERSION.to_owned(),
        default_runtime: runtime_name.to_owned(),
        runtimes: BTreeMap::from([(runtime_name.to_owned(), runtime_info)]),
        swarm,
        live_restore_enabled: true,
        init_binary: init.map(|path| path.display().to_string()).unwrap_or_default(),
        security_options: security_options(state.engine.runtime().facts().apparmor, unified),
        default_address_pools: pools(config),
        warnings,
        ..SystemInfo::default()
    })
}

fn security_options(apparmor: AppArmor, unified: bool) -> Vec<String> {
    let mut options = vec!["name=seccomp,profile=builtin".to_owned()];
    // SECURITY: only said where containers are confined by it unless they ask not to be.
    if apparmor == AppArmor::Ready {
        options.insert(0, "name=apparmor".to_owned());
    }
    if unified {
        options.push("name=cgroupns".to_owned());
    }
    options
}

fn registries(config: &crate::config::RegistryConfig) -> RegistryConfig {
    let (cidrs, hosts): (Vec<_>, Vec<_>) =
        config.insecure.iter().cloned().partition(|registry| registry.contains('/'));
    let mut insecure_registry_cidrs = cidrs;
    insecure_registry_cidrs.push("127.0.0.0/8".to_owned());
    let official = IndexConfig {
        name: brig_types::reference::DEFAULT_DOMAIN.to_owned(),
        mirrors: config.mirrors.clone(),
        secure: true,
        official: true,
    };
    let others = hosts.into_iter().map(|name| {
        (name.clone(), IndexConfig { name, mirrors: Vec::new(), secure: false, official: false })
    });
    RegistryConfig {
        insecure_registry_cidrs,
        index_configs: std::iter::once((official.name.clone(), official)).chain(others).collect(),
        mirrors: config.mirrors.clone(),
        ..RegistryConfig::default()
    }
}

fn pools(config: &crate::config::Config) -> Vec<AddressPool> {
    let pool = |pool: &crate::config::AddressPool| AddressPool {
        base: format!("{}/{}", pool.base.address, pool.base.prefix),
        size: i64::from(pool.size),
    };
    config.network.pools.iter().map(pool).collect()
}

fn open_files() -> i64 {
    let count = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    i64::try_from(count).unwrap_or(0)
}

fn threads() -> i64 {
    let count = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    i64::try_from(count).unwrap_or(0)
}

/// `GET /system/df`.
///
/// # Errors
/// When the containers can't be listed.
pub async fn disk_usage(call: Call) -> Answer {
    let kinds: Vec<&str> = call.query.all("type").collect();
    let wanted = |kind: &str| kinds.is_empty() || kinds.contains(&kind);
    if let Some(other) =
        kinds.iter().find(|kind| !["container", "image", "volume", "build-cache"].contains(kind))
    {
        return Err(ApiError::invalid(format!("unknown object type: {other}")));
    }
    let mut usage = DiskUsage::default();
    let options = ListOptions { all: true, size: true, ..ListOptions::default() };
    let mut containers = call.state.engine.list(options).await?;
    let may = |action, object: &Object| call.authorized.may(action, object);
    let restricted = !call.authorized.is_unrestricted();
    containers.retain(|found| may(Action::ContainerInspect, &object::summary(found)));
    if wanted("image") {
        let store = call.state.engine.images();
        usage.layers_size = size(store.layers_size());
        usage.images = store
            .list()
            .iter()
            .map(|image| {
                let users = containers.iter().filter(|c| c.image_id == image.id.as_str()).count();
                brig_api::image::ImageSummary {
                    containers: i64::try_from(users).unwrap_or(i64::MAX),
                    shared_size: size(store.shared_size(image)),
                    ..summary(image, &call)
                }
            })
            .collect();
        let all = usage.images.len();
        usage.images.retain(|image| {
            let name = image.repo_tags.first().map_or(image.id.as_str(), String::as_str);
            may(Action::ImageInspect, &Object::named("image", name))
        });
        if restricted && usage.images.len() < all {
            // The sum would tell of what is not shown.
            usage.layers_size = usage.images.iter().map(|image| image.size).sum();
        }
    }
    if wanted("container") {
        usage.containers = containers;
    }
    if wanted("volume") {
        usage.volumes = super::volumes::with_usage(&call).await?;
        usage.volumes.retain(|volume| {
            let known = Object::named("volume", &volume.name).with_labels(volume.labels.clone());
            may(Action::VolumeInspect, &known)
        });
    }
    if wanted("build-cache") && may(Action::ImageList, &Object::named("image", "")) {
        let state = call.state.clone();
        let bytes = tokio::task::spawn_blocking(move || state.builder.cache_size())
            .await
            .map_err(|_| ApiError::system("the work ended unexpectedly"))?;
        if bytes > 0 {
            usage.build_cache.push(serde_json::json!({
                "ID": "buildah", "Parent": "", "Parents": null, "Type": "regular",
                "Description": "layers of earlier builds", "InUse": false, "Shared": false,
                "Size": bytes, "CreatedAt": brig_api::time::zero(), "LastUsedAt": null,
                "UsageCount": 0,
            }));
        }
    }
    usage.builder_size = (!call.speaks(1, 42)).then_some(0);
    body::ok(&usage)
}
