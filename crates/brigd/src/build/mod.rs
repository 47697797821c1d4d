//! Building images with buildah: the classic API of docker, `POST /build`.
//!
//! buildah has a storage of its own below the data root, which also is the build cache. Base images
//! come from this node's images (pulled first where they are missing, with the client's
//! credentials), and the result goes back to them; so buildah itself never talks to a registry.

pub mod dockerfile;
pub mod output;
pub mod request;

mod error;
mod folders;
mod sandbox;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use brig_image::{BuildContext, ImageStore};
use brig_network::Networks;
use brig_types::digest::Digest;
use brig_types::id::random_hex;
use tokio::sync::{RwLock, mpsc};

pub use error::BuildError;
use folders::{Work, make_dir, remove, tree_size};
use output::Translator;
use request::{BuildNetwork, BuildRequest};
use sandbox::Job;

/// Larger, the cache is thrown away before the next build.
const MAX_CACHE: u64 = 20 << 30;
/// Largest Dockerfile.
const MAX_DOCKERFILE: u64 = 4 << 20;
/// Longest output of buildah that is kept whole.
const MAX_ANSWER: usize = 16 << 20;
const POLICY: &str = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
const REGISTRIES: &str =
    "unqualified-search-registries = [\"docker.io\"]\nshort-name-mode = \"disabled\"\n";
const STORAGE: &str = "[storage]\ndriver = \"overlay\"\n";

/// Builds images.
#[derive(Debug)]
pub struct Builder {
    data: PathBuf,
    exec: PathBuf,
    runtime: PathBuf,
    /// Held shared by builds, alone by whoever empties the cache.
    cache: Arc<RwLock<()>>,
}

/// What a build tells while it goes on.
#[derive(Debug)]
pub enum Told {
    /// Text as it is.
    Text(String),
}

impl Builder {
    /// A builder with its folders below the daemon's. What an earlier one left unfinished goes.
    /// Blocks.
    ///
    /// # Errors
    /// When the leftovers cannot be removed.
    pub fn open(data_root: &Path, exec_root: &Path, runtime: PathBuf) -> Result<Self, BuildError> {
        let builder = Self {
            data: data_root.join("builder"),
            exec: exec_root.join("builder"),
            runtime,
            cache: Arc::default(),
        };
        for folder in [builder.data.join("tmp"), builder.exec.clone()] {
            remove(&folder)?;
        }
        Ok(builder)
    }

    /// The program, if it is installed: looked for each time, so that installing it is enough.
    fn buildah() -> Result<PathBuf, BuildError> {
        crate::tools::find("buildah").ok_or(BuildError::NoBuildah)
    }

    /// Bytes of the cache. Blocks.
    #[must_use]
    pub fn cache_size(&self) -> u64 {
        tree_size(&self.data.join("storage"), 0)
    }

    /// Throws the cache away; how many bytes it had.
    ///
    /// # Errors
    /// [`BuildError::Busy`] while something is built; when it cannot be removed.
    pub async fn prune(&self) -> Result<u64, BuildError> {
        let alone = Arc::clone(&self.cache).try_write_owned().map_err(|_| BuildError::Busy)?;
        let storage = self.data.join("storage");
        tokio::task::spawn_blocking(move || {
            let _alone = alone;
            let size = tree_size(&storage, 0);
            remove(&storage)?;
            Ok(size)
        })
        .await
        .map_err(|error| BuildError::sandbox("empty the cache")(io::Error::other(error)))?
    }

    /// Which images a build needs, as its Dockerfile names them.
    ///
    /// # Errors
    /// [`BuildError::NoDockerfile`], [`BuildError::NotText`].
    pub fn base_images(
        &self,
        context: &BuildContext,
        request: &BuildRequest,
    ) -> Result<Vec<String>, BuildError> {
        Self::buildah()?;
        let text = context
            .read(&request.dockerfile, MAX_DOCKERFILE)?
            .ok_or_else(|| BuildError::NoDockerfile(request.dockerfile.clone()))?;
        let text = String::from_utf8(text).map_err(|_| BuildError::NotText)?;
        Ok(dockerfile::base_images(&text, &request.arguments))
    }

    /// Builds; the image's id. `bases` are here already. Dropped, it ends at once.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn build(
        &self,
        images: &ImageStore,
        networks: &Networks,
        context: BuildContext,
        request: &BuildRequest,
        bases: &[String],
        told: mpsc::Sender<Told>,
    ) -> Result<Digest, BuildError> {
        self.trim().await;
        let _shared = self.cache.read().await;
        let work = self.work()?;
        self.hand_over(&work, images, networks, bases).await?;
        let folder = work.data.join("context");
        make_dir(&folder)?;
        let iid = work.data.join("iid");
        let mut args: Vec<OsString> = vec!["build".into()];
        args.extend(
            ["--isolation=oci", "--format=docker", "--layers", "--pull-never"].map(Into::into),
        );
        args.extend(["--http-proxy=false", "--force-rm", "--identity-label=false"].map(Into::into));
        args.push(option("--runtime=", &self.runtime));
        args.push(option("--signature-policy=", &work.policy));
        args.push(option("--iidfile=", &iid));
        // The namespace is the network already.
        let network = if request.network == BuildNetwork::None { "none" } else { "host" };
        args.push(format!("--network={network}").into());
        if request.no_cache {
            args.push("--no-cache".into());
        }
        if let Some(platform) = &request.platform {
            args.push(format!("--platform={platform}").into());
        }
        args.extend(request.flags.iter().map(Into::into));
        let mut env = Vec::new();
        for (name, value) in &request.arguments {
            if may_be_environment(name) {
                args.push(format!("--build-arg={name}").into());
                env.push((name.clone(), value.clone()));
            } else {
                args.push(format!("--build-arg={name}={value}").into());
            }
        }
        args.push(option("--file=", &folder.join(&request.dockerfile)));
        args.push(folder.clone().into_os_string());

        let tar: OwnedFd = context.tar().map_err(BuildError::sandbox("open the context"))?.into();
        let job = self.job(&work, args, env, Some((tar, folder)), request.network.clone())?;
        let mut running = job.start(networks).await?;
        let mut translator = Translator::default();
        let mut output = pipe_chunks(running.output.take());
        while let Some(chunk) = output.recv().await {
            for text in translator.feed(&chunk) {
                let _ = told.send(Told::Text(text)).await;
            }
        }
        for text in translator.finish() {
            let _ = told.send(Told::Text(text)).await;
        }
        let code = running.wait().await?;
        if code != 0 {
            let (code, message) = translator.failure(code);
            return Err(BuildError::Failed { message, code });
        }
        let id = std::fs::read_to_string(&iid).map_err(BuildError::disk("read", &iid))?;
        let id = Digest::parse(id.trim()).map_err(|_| BuildError::Buildah {
            action: "name the image",
            detail: id.chars().take(100).collect(),
        })?;
        self.bring_back(&work, images, networks, &id).await?;
        Ok(id)
    }

    /// Throws the cache away when it is too large and nobody builds: failed and broken off builds
    /// leave something in it, too.
    async fn trim(&self) {
        let storage = self.data.join("storage");
        let size =
            tokio::task::spawn_blocking(move || tree_size(&storage, 0)).await.unwrap_or_default();
        if size > MAX_CACHE {
            match self.prune().await {
                Ok(_) => tracing::info!(size, "the build cache was too large and is gone"),
                Err(error) => tracing::info!(size, %error, "the build cache is too large"),
            }
        }
    }

    fn work(&self) -> Result<Work, BuildError> {
        let name = random_hex();
        let name = name.get(..16).unwrap_or(&name);
        let work = Work {
            data: self.data.join("tmp").join(name),
            exec: self.exec.join(name),
            policy: self.exec.join(name).join("policy.json"),
        };
        for folder in [&self.data.join("storage"), &work.data, &work.exec] {
            make_dir(folder)?;
        }
        for (name, text) in [
            ("policy.json", POLICY),
            ("registries.conf", REGISTRIES),
            ("storage.conf", STORAGE),
            // Nothing to log in with: whatever needs a login was fetched before.
            ("auth.json", "{}"),
        ] {
            let path = work.exec.join(name);
            std::fs::write(&path, text).map_err(BuildError::disk("write", &path))?;
        }
        Ok(work)
    }

    fn job(
        &self,
        work: &Work,
        args: Vec<OsString>,
        env: Vec<(String, String)>,
        context: Option<(OwnedFd, PathBuf)>,
        network: BuildNetwork,
    ) -> Result<Job, BuildError> {
        let path = |name: &str| work.exec.join(name);
        let mut all = vec![
            option("--root=", &self.data.join("storage")),
            option("--runroot=", &path("run")),
            "--storage-driver=overlay".into(),
            option("--registries-conf=", &path("registries.conf")),
        ];
        all.extend(args);
        let text = |path: PathBuf| path.display().to_string();
        let mut environment = vec![
            ("HOME".to_owned(), text(work.exec.clone())),
            ("TMPDIR".to_owned(), text(work.data.clone())),
            ("CONTAINERS_CONF".to_owned(), "/dev/null".to_owned()),
            ("CONTAINERS_STORAGE_CONF".to_owned(), text(path("storage.conf"))),
            ("REGISTRY_AUTH_FILE".to_owned(), text(path("auth.json"))),
        ];
        environment.extend(env);
        Ok(Job {
            program: Self::buildah()?,
            args: all,
            env: environment,
            context,
            network,
            scratch: work.exec.clone(),
        })
    }

    /// Runs buildah for something small; what it printed.
    async fn ask(
        &self,
        work: &Work,
        networks: &Networks,
        action: &'static str,
        args: Vec<OsString>,
    ) -> Result<Vec<u8>, BuildError> {
        let job = self.job(work, args, Vec::new(), None, BuildNetwork::None)?;
        let mut running = job.start(networks).await?;
        let mut chunks = pipe_chunks(running.output.take());
        let mut printed = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            if printed.len() < MAX_ANSWER {
                printed.extend_from_slice(&chunk);
            }
        }
        match running.wait().await? {
            0 => Ok(printed),
            _ => Err(BuildError::Buildah {
                action,
                detail: String::from_utf8_lossy(&printed).trim().chars().take(2_000).collect(),
            }),
        }
    }

    /// Gives buildah the base images that it does not have.
    async fn hand_over(
        &self,
        work: &Work,
        images: &ImageStore,
        networks: &Networks,
        bases: &[String],
    ) -> Result<(), BuildError> {
        if bases.is_empty() {
            return Ok(());
        }
        #[derive(serde::Deserialize)]
        struct Known {
            id: String,
            #[serde(default)]
            names: Option<Vec<String>>,
        }
        let args = ["images", "--json", "--all"].map(OsString::from).to_vec();
        let printed = self.ask(work, networks, "list its images", args).await?;
        let known: Vec<Known> = serde_json::from_slice(&printed).unwrap_or_default();
        let mut by_name: BTreeMap<String, String> = BTreeMap::new();
        for image in &known {
            for name in image.names.iter().flatten() {
                by_name.insert(name.clone(), image.id.clone());
            }
        }
        for (number, base) in bases.iter().enumerate() {
            let image = images.resolve(base)?;
            let reference = brig_types::reference::Reference::parse(base).ok();
            let named = reference
                .filter(|r| r.digest().is_none())
                .map(brig_types::reference::Reference::with_default_tag)
                .filter(|r| image.tags.contains(r));
            let there = match &named {
                Some(name) => {
                    by_name.get(&name.to_string()).map(String::as_str) == Some(image.id.hex())
                }
                None => known.iter().any(|known| known.id == image.id.hex()),
            };
            if there {
                continue;
            }
            let path = work.data.join(format!("base-{number}.tar"));
            let save = images.save(&[named
                .as_ref()
                .map_or_else(|| image.id.to_string(), |name| name.to_string())])?;
            let target = path.clone();
            tokio::task::spawn_blocking(move || {
                std::fs::File::create_new(&target).and_then(|file| save.write(file))
            })
            .await
            .map_err(|error| BuildError::sandbox("save a base image")(io::Error::other(error)))?
            .map_err(BuildError::disk("write", &path))?;
            let args = vec![
                "pull".into(),
                "-q".into(),
                option("--signature-policy=", &work.policy),
                option("docker-archive:", &path),
            ];
            self.ask(work, networks, "take a base image", args).await?;
            let _ = std::fs::remove_file(&path);
        }
        Ok(())
    }

    /// Takes the built image out of buildah's storage.
    async fn bring_back(
        &self,
        work: &Work,
        images: &ImageStore,
        networks: &Networks,
        id: &Digest,
    ) -> Result<(), BuildError> {
        if images.resolve(id.as_str()).is_ok() {
            return Ok(());
        }
        let path = work.data.join("image.tar");
        let args = vec![
            "push".into(),
            "-q".into(),
            "--format=docker".into(),
            option("--signature-policy=", &work.policy),
            id.hex().into(),
            option("docker-archive:", &path),
        ];
        self.ask(work, networks, "hand over the image", args).await?;
        let file = tokio::fs::File::open(&path).await.map_err(BuildError::disk("open", &path))?;
        let loaded = images.load(file, &|_| {}).await?;
        if loaded.iter().all(|loaded| loaded.id != *id) {
            return Err(BuildError::Buildah {
                action: "hand over the image",
                detail: format!("it is not {id}"),
            });
        }
        Ok(())
    }
}

fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}

/// Whether an argument may travel in buildah's environment, where other users cannot read it,
/// rather than on its command line.
fn may_be_environment(name: &str) -> bool {
    const OWN: [&str; 8] =
        ["PATH", "HOME", "TMPDIR", "IFS", "ENV", "SHELL", "USER", "REGISTRY_AUTH_FILE"];
    const PREFIXES: [&str; 11] = [
        "LD_",
        "GO",
        "BUILDAH",
        "CONTAINERS_",
        "STORAGE_",
        "XDG_",
        "SSL_",
        "MALLOC_",
        "TMP",
        "_",
        "CONTAINER_",
    ];
    name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !OWN.contains(&name)
        && !PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// What comes out of a pipe, read on a thread that ends with it.
fn pipe_chunks(pipe: Option<io::PipeReader>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(16);
    if let Some(mut pipe) = pipe {
        tokio::task::spawn_blocking(move || {
            use std::io::Read as _;
            let mut buffer = vec![0; 32 << 10];
            loop {
                match pipe.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => {
                        let chunk = buffer.get(..read).unwrap_or_default().to_vec();
                        if sender.blocking_send(chunk).is_err() {
                            break;
                        }
                    }
                }
            }
        });
    }
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_mean_something_to_programs_stay_out_of_the_environment() {
        for name in ["VERSION", "http_proxy", "A1_b"] {
            assert!(may_be_environment(name), "{name}");
        }
        for name in ["LD_PRELOAD", "PATH", "GODEBUG", "1A", "A-B", "", "A=B", "BUILDAH_ISOLATION"] {
            assert!(!may_be_environment(name), "{name}");
        }
    }
}
