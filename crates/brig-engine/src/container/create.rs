//! Creating a container: a record, a writable layer and its volumes. Nothing is mounted and no
//! process started.

use std::path::Path;
use std::sync::Arc;

use brig_api::container::{
    ContainerConfig, ContainerCreateRequest, ContainerCreateResponse, HostConfig,
};
use brig_api::engine_access;
use brig_image::Image;
use brig_sys::cgroup::CgroupMode;
use brig_types::id::ContainerId;
use time::OffsetDateTime;

use super::mounts::{self, MountRequest};
use super::record::{MountKind, MountRecord, Record};
use super::state::State;
use super::{Container, image_defaults, links, logs, networking, ports, spec, validate};
use crate::admission::{AdmissionRequest, Occasion, Origin, Refusal};
use crate::disk;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::events::kind;

const DEFAULT_SHM_SIZE: i64 = 64 << 20;

impl Engine {
    /// Creates a container of an image that is here. Without a name it gets a random one.
    ///
    /// # Errors
    /// Everything that is wrong with the request, in docker's words; no such image; name taken;
    /// disk.
    pub async fn create_container(
        &self,
        name: Option<&str>,
        request: ContainerCreateRequest,
    ) -> Result<ContainerCreateResponse, EngineError> {
        self.create_container_for(name, request, Origin::Client).await
    }

    /// [`Engine::create_container`] for somebody.
    ///
    /// # Errors
    /// As there.
    pub async fn create_container_for(
        &self,
        name: Option<&str>,
        request: ContainerCreateRequest,
        origin: Origin,
    ) -> Result<ContainerCreateResponse, EngineError> {
        let name = match name.filter(|name| !name.is_empty()) {
            Some(name) => Some(
                brig_types::name::container_name(name)
                    .map_err(|error| EngineError::Invalid(error.to_string()))?
                    .to_owned(),
            ),
            None => None,
        };
        let engine = self.clone();
        self.detached(async move {
            if request.config.image.is_empty() {
                return Err(EngineError::Invalid(
                    "Config cannot be empty in order to create a container".to_owned(),
                ));
            }
            let image = engine.images().resolve(&request.config.image)?;
            let warnings = {
                let asked = &request.config.image;
                engine.admit(asked, &image, origin, Occasion::Create).await?
            };
            let this = engine.clone();
            let create = move || this.create_blocking(name.as_deref(), request, &image);
            let mut created = engine.blocking(create).await?;
            created.warnings.extend(warnings);
            Ok(created)
        })
        .await
    }

    /// Asks whether an image may be run. What was judged is what is run: a name may lead to another
    /// image by the time it is looked at again.
    pub(crate) async fn admit(
        &self,
        asked: &str,
        image: &Image,
        origin: Origin,
        occasion: Occasion,
    ) -> Result<Vec<String>, EngineError> {
        let Some(admission) = &self.config().admission else { return Ok(Vec::new()) };
        let request = AdmissionRequest {
            asked: asked.to_owned(),
            image: image.id.clone(),
            repo_digests: image.repo_digests.clone(),
            tags: image.tags.clone(),
            origin,
            occasion,
        };
        admission.admit(&request).await.map_err(|refusal| self.refuse(asked, refusal))
    }

    /// Tells everybody who listens that an image was refused, and makes it the caller's error.
    #[must_use]
    pub fn refuse(&self, asked: &str, refusal: Refusal) -> EngineError {
        self.events().emit(kind::IMAGE, "refuse", asked, refusal.attributes);
        EngineError::Forbidden(refusal.message)
    }

    fn create_blocking(
        &self,
        name: Option<&str>,
        request: ContainerCreateRequest,
        image: &Image,
    ) -> Result<ContainerCreateResponse, EngineError> {
        let ContainerCreateRequest { mut config, mut host_config, networking_config } = request;
        host_config.engine_access =
            engine_access::asked(host_config.engine_access.as_ref(), &config.labels)
                .map_err(|error| EngineError::Invalid(error.to_string()))?;
        image_defaults::merge(&mut config, image_defaults::parse(&image.raw)?);
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let mut warnings = validate::request(&config, &host_config, &networking_config, cpus)?;
        warnings.extend(discard_weights(&mut host_config, brig_sys::cgroup::has_weights()));
        ports::publications(&config, &host_config)?;
        spec::Security::parse(&host_config.security_opt)?;
        let id = ContainerId::generate();
        self.fill_defaults(&id, &mut config, &mut host_config);
        logs::rotate::check(&host_config.log_config.kind, &host_config.log_config.config)?;
        for link in &host_config.links {
            links::Link::parse(link)?;
            links::find(self, link)?;
        }
        let wanted =
            mounts::collect(&config, &host_config, self.volumes_from(&host_config.volumes_from)?)?;
        check_binds(&wanted)?;
        self.guard_sources(&wanted)?;

        let mut record = Record {
            version: Record::current_version(),
            id: id.clone(),
            name: self.registry().reserve(name, &id)?,
            created: OffsetDateTime::now_utc(),
            image_id: image.id.clone(),
            config,
            host_config,
            networking: networking_config,
            mounts: Vec::new(),
            state: State::default(),
            restart_count: 0,
            stopped_by_hand: false,
            needs_secrets: false,
            last_health: None,
            remove_volumes: false,
            networks: Default::default(),
            ports: Default::default(),
        };
        record.networks = networking::configured(&record);
        if record.command().is_empty() {
            self.registry().release(&record.name, &id);
            return Err(EngineError::Invalid("No command specified".to_owned()));
        }
        if let Err(error) = self.create_on_disk(&mut record, image, wanted) {
            self.undo_create(&record);
            return Err(error);
        }
        let container = Container::new(record, self.paths(&id));
        self.registry().insert(id.clone(), Arc::clone(&container));
        self.container_event(&container, "create", &[]);
        Ok(ContainerCreateResponse { id: id.to_string(), warnings })
    }

    fn create_on_disk(
        &self,
        record: &mut Record,
        image: &Image,
        wanted: Vec<MountRequest>,
    ) -> Result<(), EngineError> {
        for request in wanted {
            let mount = self.create_mount(&record.id, request)?;
            record.mounts.push(mount);
        }
        self.snapshots().prepare(&record.id, image)?;
        let dir = self.paths(&record.id).dir;
        let failed = |source| EngineError::disk("create", &dir, source);
        disk::create_dir(&dir, 0o700)
            .and_then(|()| record.save(&dir, record.durability()))
            .map_err(failed)?;
        let anonymous = record.mounts.iter().filter(|m| m.anonymous && m.kind == MountKind::Volume);
        for mount in anonymous {
            self.volumes().settle(&mount.name).map_err(failed)?;
        }
        Ok(())
    }

    fn undo_create(&self, record: &Record) {
        self.registry().release(&record.name, &record.id);
        for mount in record.mounts.iter().filter(|mount| mount.kind == MountKind::Volume) {
            self.volumes().release(&mount.name, &record.id);
            if mount.anonymous
                && let Err(error) = self.volumes().remove(&mount.name)
            {
                tracing::warn!(
                    volume = mount.name,
                    error = brig_types::error::chain(&error),
                    "a volume of a container that was not created stays"
                );
            }
        }
        if let Err(error) = self.snapshots().remove(&record.id) {
            tracing::warn!(container = %record.id, error = brig_types::error::chain(&error), "a layer of a container that was not created stays");
        }
        if let Err(error) = disk::remove_tree(&self.paths(&record.id).dir) {
            tracing::warn!(container = %record.id, %error, "a directory of a container that was not created stays");
        }
    }

    /// Makes or finds the volume of a mount, and notes its use.
    fn create_mount(
        &self,
        id: &ContainerId,
        request: MountRequest,
    ) -> Result<MountRecord, EngineError> {
        let mut mount = request.record;
        if mount.kind == MountKind::Volume {
            let (info, new) = self.volumes().create_for(
                Some(id),
                &mount.name,
                &request.volume_driver,
                &request.volume_options,
                &request.volume_labels,
            )?;
            if new {
                self.volume_event("create", &info.name);
            }
            self.volumes().acquire(&info.name, id)?;
            mount.source = info.mountpoint.display().to_string();
            mount.name = info.name;
        }
        Ok(mount)
    }

    /// What must not be mounted is refused at once, before anything is made. Volumes are looked at
    /// when they are made, and again when they are mounted.
    fn guard_sources(&self, wanted: &[MountRequest]) -> Result<(), EngineError> {
        for request in wanted {
            let mount = &request.record;
            if mount.kind == MountKind::Bind {
                self.guard().check(Path::new(&mount.source), mount.reach())?;
            }
        }
        Ok(())
    }

    /// The mounts of `--volumes-from container[:ro]`.
    fn volumes_from(&self, others: &[String]) -> Result<Vec<MountRecord>, EngineError> {
        let mut mounts = Vec::new();
        for text in others {
            let (key, mode) = text.split_once(':').unwrap_or((text, ""));
            if !matches!(mode, "" | "ro" | "rw" | "z" | "Z") {
                return Err(EngineError::Invalid(format!("invalid mode: {mode}")));
            }
            // No 404, which clients take for a missing image.
            let found = self.registry().find(key);
            let found = found.map_err(|error| EngineError::Invalid(error.to_string()))?;
            let inherited = found.record().mounts.into_iter();
            let inherited =
                inherited.filter(|m| matches!(m.kind, MountKind::Bind | MountKind::Volume));
            mounts.extend(inherited.map(|mut mount| {
                mount.rw &= mode != "ro";
                // It goes with the container that it was made for.
                mount.anonymous = false;
                mount
            }));
        }
        Ok(mounts)
    }

    /// What docker fills in and shows.
    fn fill_defaults(&self, id: &ContainerId, config: &mut ContainerConfig, host: &mut HostConfig) {
        if host.network_mode.is_empty() {
            "default".clone_into(&mut host.network_mode);
        }
        // Whose network it shares, by that name it is known in it.
        if let Some(peer) = host.network_mode.strip_prefix("container:")
            && let Ok(peer) = self.registry().find(peer)
        {
            let peer = peer.record().config;
            (config.hostname, config.domainname) = (peer.hostname, peer.domainname);
        }
        if config.hostname.is_empty() {
            config.hostname = if host.network_mode == "host" || host.uts_mode == "host" {
                rustix::system::uname().nodename().to_string_lossy().into_owned()
            } else {
                id.short().to_owned()
            };
        }
        if host.shm_size == 0 {
            host.shm_size = DEFAULT_SHM_SIZE;
        }
        if host.ipc_mode.is_empty() {
            "private".clone_into(&mut host.ipc_mode);
        }
        if host.cgroupns_mode.is_empty() {
            let mode = match brig_sys::cgroup::mode() {
                CgroupMode::V2 => "private",
                CgroupMode::V1 | CgroupMode::Hybrid => "host",
            };
            mode.clone_into(&mut host.cgroupns_mode);
        }
        if host.restart_policy.name.is_empty() {
            "no".clone_into(&mut host.restart_policy.name);
        }
        if host.runtime.is_empty() {
            "runc".clone_into(&mut host.runtime);
        }
        if host.log_config.kind.is_empty() {
            "json-file".clone_into(&mut host.log_config.kind);
            for (key, value) in &self.config().log_options {
                let options = &mut host.log_config.config;
                options.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        // The CLI's way to say "not set".
        host.memory_swappiness = host.memory_swappiness.filter(|value| *value != -1);
        host.pids_limit = host.pids_limit.filter(|value| *value > 0);
        host.oom_kill_disable = Some(host.oom_kill_disable == Some(true));
        if host.memory > 0 && host.memory_swap == 0 {
            host.memory_swap = host.memory.saturating_mul(2);
        }
        if !host.privileged {
            let strings = |list: &[&str]| list.iter().map(|path| (*path).to_owned()).collect();
            host.masked_paths.get_or_insert_with(|| strings(&brig_runtime::spec::MASKED_PATHS));
            host.readonly_paths.get_or_insert_with(|| strings(&brig_runtime::spec::READONLY_PATHS));
        }
    }
}

/// A bind that was asked for with `--mount` needs its source; `-v` makes it at the start.
fn check_binds(wanted: &[MountRequest]) -> Result<(), EngineError> {
    for request in wanted {
        let mount = &request.record;
        if mount.kind == MountKind::Bind
            && !mount.create_source
            && !std::path::Path::new(&mount.source).exists()
        {
            return Err(EngineError::Invalid(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {}",
                mount.source
            )));
        }
    }
    Ok(())
}
/// Takes out weights of block devices that the kernel knows nothing of, and says so.
fn discard_weights(host: &mut HostConfig, known: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if !known && host.blkio_weight > 0 {
        host.blkio_weight = 0;
        warnings.push("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.".to_owned());
    }
    if !known && !host.blkio_weight_device.is_empty() {
        host.blkio_weight_device.clear();
        warnings.push("Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.".to_owned());
    }
    warnings
}
