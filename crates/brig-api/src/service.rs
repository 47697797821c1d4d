//! Services and tasks of the cluster.

use std::collections::BTreeMap;

use crate::Empty;
use crate::container::HealthConfig;
use crate::data::Base64;
use crate::host_config::Ulimit;
use crate::mount::{Driver, Mount};
use crate::swarm::Version;

model! {
    /// What a service should be.
    pub struct ServiceSpec {
        name: String = omitempty,
        labels: BTreeMap<String, String>,
        task_template: TaskSpec,
        mode: ServiceMode,
        update_config: Option<UpdateConfig> = omitempty,
        rollback_config: Option<UpdateConfig> = omitempty,
        /// Older clients put networks here; newer ones into the task template.
        networks: Vec<NetworkAttachmentConfig> = omitempty,
        endpoint_spec: Option<EndpointSpec> = omitempty,
    }

    /// What each task of a service should be.
    pub struct TaskSpec {
        container_spec: Option<ContainerSpec> = omitempty,
        plugin_spec: Option<serde_json::Value> = omitempty,
        network_attachment_spec: Option<NetworkAttachmentSpec> = omitempty,
        resources: Option<ResourceRequirements> = omitempty,
        restart_policy: Option<RestartPolicy> = omitempty,
        placement: Option<Placement> = omitempty,
        networks: Vec<NetworkAttachmentConfig> = omitempty,
        log_driver: Option<Driver> = omitempty,
        /// Changing it replaces all tasks.
        force_update: u64,
        /// `container` or empty.
        runtime: String = omitempty,
    }

    /// The container of a task.
    pub struct ContainerSpec {
        image: String = omitempty,
        labels: BTreeMap<String, String> = omitempty,
        /// Replaces the image's entrypoint.
        command: Vec<String> = omitempty,
        /// Replaces the image's command.
        args: Vec<String> = omitempty,
        hostname: String = omitempty,
        env: Vec<String> = omitempty,
        dir: String = omitempty,
        user: String = omitempty,
        groups: Vec<String> = omitempty,
        privileges: Option<Privileges> = omitempty,
        init: Option<bool> = omitempty,
        stop_signal: String = omitempty,
        #[serde(rename = "TTY")] tty: bool = omitempty,
        open_stdin: bool = omitempty,
        read_only: bool = omitempty,
        mounts: Vec<Mount> = omitempty,
        /// Nanoseconds.
        stop_grace_period: Option<i64> = omitempty,
        healthcheck: Option<HealthConfig> = omitempty,
        /// Lines of `/etc/hosts`: `IP name [name…]`.
        hosts: Vec<String> = omitempty,
        #[serde(rename = "DNSConfig")] dns_config: Option<DnsConfig> = omitempty,
        secrets: Vec<SecretReference> = omitempty,
        configs: Vec<ConfigReference> = omitempty,
        isolation: String = omitempty,
        sysctls: BTreeMap<String, String> = omitempty,
        capability_add: Vec<String> = omitempty,
        capability_drop: Vec<String> = omitempty,
        ulimits: Vec<Ulimit> = omitempty,
        oom_score_adj: i64 = omitempty,
    }

    /// Security settings of a task.
    pub struct Privileges {
        credential_spec: Option<CredentialSpec>,
        #[serde(rename = "SELinuxContext")] selinux_context: Option<SelinuxContext>,
        seccomp: Option<SeccompOpts> = omitempty,
        app_armor: Option<AppArmorOpts> = omitempty,
        no_new_privileges: bool = omitempty,
    }

    /// Windows credentials; kept, never used.
    pub struct CredentialSpec {
        config: String,
        file: String,
        registry: String,
    }

    /// SELinux labels.
    pub struct SelinuxContext {
        disable: bool,
        user: String,
        role: String,
        #[serde(rename = "Type")] kind: String,
        level: String,
    }

    /// The seccomp profile of a task.
    pub struct SeccompOpts {
        /// default, unconfined, custom.
        mode: String = omitempty,
        profile: Base64 = omitempty,
    }

    /// The AppArmor profile of a task.
    pub struct AppArmorOpts {
        /// default, disabled.
        mode: String = omitempty,
    }

    /// Name resolution.
    pub struct DnsConfig {
        nameservers: Vec<String> = omitempty,
        search: Vec<String> = omitempty,
        options: Vec<String> = omitempty,
    }

    /// The file of a secret or config in the container.
    pub struct FileTarget {
        /// Relative names are below `/run/secrets` (secrets) or `/` (configs).
        name: String,
        #[serde(rename = "UID")] uid: String,
        #[serde(rename = "GID")] gid: String,
        /// Permission bits, decimal in JSON.
        mode: u32,
    }

    /// A secret that a task may read.
    pub struct SecretReference {
        file: Option<FileTarget>,
        #[serde(rename = "SecretID")] secret_id: String,
        secret_name: String,
    }

    /// A config that a task may read.
    pub struct ConfigReference {
        file: Option<FileTarget> = omitempty,
        /// Instead of a file: used by the runtime itself.
        runtime: Option<Empty> = omitempty,
        #[serde(rename = "ConfigID")] config_id: String,
        config_name: String,
    }

    /// The container that a network attachment belongs to.
    pub struct NetworkAttachmentSpec {
        #[serde(rename = "ContainerID")] container_id: String,
    }

    /// What a task may use at most, and what is kept for it.
    pub struct ResourceRequirements {
        limits: Option<Limit> = omitempty,
        reservations: Option<Resources> = omitempty,
    }

    /// The most that a task may use.
    pub struct Limit {
        #[serde(rename = "NanoCPUs")] nano_cpus: i64 = omitempty,
        memory_bytes: i64 = omitempty,
        pids: i64 = omitempty,
    }

    /// What a node has, or what a task reserves.
    pub struct Resources {
        #[serde(rename = "NanoCPUs")] nano_cpus: i64 = omitempty,
        memory_bytes: i64 = omitempty,
        generic_resources: Vec<GenericResource> = omitempty,
    }

    /// A resource that the operator named; one of the fields is set.
    pub struct GenericResource {
        named_resource_spec: Option<NamedGenericResource> = omitempty,
        discrete_resource_spec: Option<DiscreteGenericResource> = omitempty,
    }

    /// One particular thing (`gpu=UUID1`).
    pub struct NamedGenericResource {
        kind: String = omitempty,
        value: String = omitempty,
    }

    /// A number of things (`ssd=3`).
    pub struct DiscreteGenericResource {
        kind: String = omitempty,
        value: i64 = omitempty,
    }

    /// What happens when a task ends. Durations are nanoseconds.
    pub struct RestartPolicy {
        /// none, on-failure, any.
        condition: String = omitempty,
        delay: Option<i64> = omitempty,
        max_attempts: Option<u64> = omitempty,
        window: Option<i64> = omitempty,
    }

    /// Where tasks may run.
    pub struct Placement {
        constraints: Vec<String> = omitempty,
        preferences: Vec<PlacementPreference> = omitempty,
        /// Most tasks on one node; 0 is no limit.
        max_replicas: u64 = omitempty,
        platforms: Vec<Platform> = omitempty,
    }

    /// One preference.
    pub struct PlacementPreference {
        spread: Option<SpreadOver>,
    }

    /// Spread tasks evenly over the values of a label.
    pub struct SpreadOver {
        spread_descriptor: String,
    }

    /// A platform under docker's names.
    pub struct Platform {
        architecture: String = omitempty,
        #[serde(rename = "OS")] os: String = omitempty,
    }

    /// A network that tasks join.
    pub struct NetworkAttachmentConfig {
        /// Id or name.
        target: String = omitempty,
        aliases: Vec<String> = omitempty,
        driver_opts: BTreeMap<String, String> = omitempty,
    }

    /// How many tasks, and where; exactly one field is set.
    pub struct ServiceMode {
        // COMPAT: docker's SDK for Python writes them small, and Go's decoder does not mind.
        #[serde(alias = "replicated")]
        replicated: Option<ReplicatedService> = omitempty,
        #[serde(alias = "global")]
        global: Option<Empty> = omitempty,
        replicated_job: Option<ReplicatedJob> = omitempty,
        global_job: Option<Empty> = omitempty,
    }

    /// A number of tasks anywhere.
    pub struct ReplicatedService {
        /// `None` is 1.
        replicas: Option<u64> = omitempty,
    }

    /// A number of tasks that end.
    pub struct ReplicatedJob {
        max_concurrent: Option<u64> = omitempty,
        total_completions: Option<u64> = omitempty,
    }

    /// How changes are rolled out. Durations are nanoseconds.
    pub struct UpdateConfig {
        /// 0 is all at once.
        parallelism: u64,
        delay: i64 = omitempty,
        /// pause, continue, rollback.
        failure_action: String = omitempty,
        monitor: i64 = omitempty,
        max_failure_ratio: f32,
        /// stop-first, start-first.
        order: String,
    }

    /// How a service is reached.
    pub struct EndpointSpec {
        /// vip, dnsrr.
        mode: String = omitempty,
        ports: Vec<PortConfig> = omitempty,
    }

    /// A published port of a service.
    pub struct PortConfig {
        name: String = omitempty,
        protocol: String = omitempty,
        target_port: u32 = omitempty,
        published_port: u32 = omitempty,
        /// ingress, host.
        publish_mode: String = omitempty,
    }

    /// A service.
    pub struct Service {
        #[serde(rename = "ID")] id: String,
        version: Version,
        created_at: String,
        updated_at: String,
        spec: ServiceSpec,
        previous_spec: Option<ServiceSpec> = omitempty,
        endpoint: Endpoint,
        update_status: Option<UpdateStatus> = omitempty,
        /// Only in lists with `status=true`.
        service_status: Option<ServiceStatus> = omitempty,
        job_status: Option<JobStatus> = omitempty,
    }

    /// How a service is reached by now.
    pub struct Endpoint {
        spec: EndpointSpec,
        ports: Vec<PortConfig> = omitempty,
        #[serde(rename = "VirtualIPs")] virtual_ips: Vec<EndpointVirtualIp> = omitempty,
    }

    /// A service's address in a network.
    pub struct EndpointVirtualIp {
        #[serde(rename = "NetworkID")] network_id: String = omitempty,
        /// With prefix length.
        addr: String = omitempty,
    }

    /// How a rollout goes.
    pub struct UpdateStatus {
        /// updating, paused, completed, rollback_started, rollback_paused, rollback_completed.
        state: String = omitempty,
        started_at: Option<String> = omitempty,
        completed_at: Option<String> = omitempty,
        message: String = omitempty,
    }

    /// Task counts.
    pub struct ServiceStatus {
        running_tasks: u64,
        desired_tasks: u64,
        completed_tasks: u64,
    }

    /// How a job goes.
    pub struct JobStatus {
        job_iteration: Version,
        last_execution: String = omitempty,
    }

    /// The answer to create.
    pub struct ServiceCreateResponse {
        #[serde(rename = "ID")] id: String,
        warnings: Vec<String> = omitempty,
    }

    /// A task.
    pub struct Task {
        #[serde(rename = "ID")] id: String,
        version: Version,
        created_at: String,
        updated_at: String,
        name: String = omitempty,
        labels: BTreeMap<String, String>,
        spec: TaskSpec,
        #[serde(rename = "ServiceID")] service_id: String = omitempty,
        slot: i64 = omitempty,
        #[serde(rename = "NodeID")] node_id: String = omitempty,
        status: TaskStatus,
        desired_state: String = omitempty,
        networks_attachments: Vec<NetworkAttachment> = omitempty,
        generic_resources: Vec<GenericResource> = omitempty,
        job_iteration: Option<Version> = omitempty,
    }

    /// Where a task is in its life.
    pub struct TaskStatus {
        timestamp: String,
        /// new, pending, assigned, accepted, preparing, ready, starting, running, complete,
        /// shutdown, failed, rejected, remove, orphaned.
        state: String = omitempty,
        message: String = omitempty,
        err: String = omitempty,
        container_status: Option<ContainerStatus> = omitempty,
        port_status: PortStatus,
    }

    /// The container of a task.
    pub struct ContainerStatus {
        #[serde(rename = "ContainerID")] container_id: String,
        #[serde(rename = "PID")] pid: i64,
        exit_code: i64,
    }

    /// Ports that a task publishes on its node.
    pub struct PortStatus {
        ports: Vec<PortConfig> = omitempty,
    }

    /// A network of a task, with its addresses.
    pub struct NetworkAttachment {
        network: SwarmNetwork,
        addresses: Vec<String> = omitempty,
    }

    /// A network of the cluster, as tasks show it.
    pub struct SwarmNetwork {
        #[serde(rename = "ID")] id: String,
        version: Version,
        created_at: String,
        updated_at: String,
        spec: SwarmNetworkSpec,
        driver_state: Driver,
        #[serde(rename = "IPAMOptions")] ipam_options: Option<IpamOptions> = omitempty,
    }

    /// What a network of the cluster should be.
    pub struct SwarmNetworkSpec {
        name: String = omitempty,
        labels: BTreeMap<String, String>,
        driver_configuration: Option<Driver> = omitempty,
        #[serde(rename = "IPv6Enabled")] ipv6_enabled: bool = omitempty,
        internal: bool = omitempty,
        attachable: bool = omitempty,
        ingress: bool = omitempty,
        #[serde(rename = "IPAMOptions")] ipam_options: Option<IpamOptions> = omitempty,
        scope: String = omitempty,
    }

    /// Address management of a network of the cluster.
    pub struct IpamOptions {
        driver: Driver,
        configs: Vec<IpamConfig> = omitempty,
    }

    /// One subnet of a network of the cluster.
    pub struct IpamConfig {
        subnet: String = omitempty,
        range: String = omitempty,
        gateway: String = omitempty,
    }
}
