//! `create`, and the part of `run` that makes the container.

use std::io::Write as _;
use std::path::Path;

use brig_api::container::{ContainerCreateRequest, ContainerCreateResponse};
use brig_api::version::ApiVersion;
use brig_types::reference::Reference;
use clap::Args;

use super::flags::ContainerFlags;
use super::request;
use crate::cli::{leaf, with_hint};
use crate::client::Call;
use crate::commands::image::pull_for_run;
use crate::commands::trust::{tag_trusted, trusted_for_run};
use crate::context::Context;
use crate::error::{Error, Result, message};

leaf!(
    CREATE,
    "create",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create a new container",
    CreateArgs,
    create,
    true
);

#[derive(Args, Debug)]
struct CreateArgs {
    #[command(flatten)]
    container: ContainerFlags,
}

async fn create(context: &Context, args: CreateArgs) -> Result<()> {
    let run = async {
        let mut body = request::create(&args.container, crate::terminal::size())?;
        create_container(context, &args.container, &mut body).await
    };
    match run.await {
        Ok(id) => crate::output::line(&id),
        Err(error @ (Error::BrokenPipe | Error::Endpoint(_))) => Err(error),
        Err(error) => Err(with_hint(&context.path, &error, error.run_status())),
    }
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pull {
    Always,
    Missing,
    Never,
}

/// The file of `--cidfile`: made before the container, removed if that fails.
struct CidFile {
    path: Option<String>,
    written: bool,
}

impl CidFile {
    fn create(path: Option<&str>) -> Result<Self> {
        if let Some(path) = path {
            if Path::new(path).exists() {
                return Err(message(format!(
                    "container ID file found, make sure the other container isn't running or delete {path}"
                )));
            }
            std::fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(
                |source| {
                    Error::io(format!("failed to create the container ID file {path}"), source)
                },
            )?;
        }
        Ok(Self { path: path.map(str::to_owned), written: false })
    }

    fn write(&mut self, id: &str) -> Result<()> {
        if let Some(path) = &self.path {
            std::fs::OpenOptions::new()
                .write(true)
                .open(path)
                .and_then(|mut file| file.write_all(id.as_bytes()))
                .map_err(|source| {
                    Error::io(format!("failed to write the container ID to {path}"), source)
                })?;
        }
        self.written = true;
        Ok(())
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if let Some(path) = self.path.as_ref().filter(|_| !self.written) {
            // Nothing was created: an empty file would stop the next attempt.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Creates the container, pulling its image when it has to, and gives its id.
pub(super) async fn create_container(
    context: &Context,
    flags: &ContainerFlags,
    body: &mut ContainerCreateRequest,
) -> Result<String> {
    let pull = match flags.pull.as_str() {
        "always" => Pull::Always,
        "missing" | "" => Pull::Missing,
        "never" => Pull::Never,
        other => {
            return Err(message(format!(
                "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
            )));
        }
    };
    let mut cid_file = CidFile::create(flags.cidfile.as_deref())?;
    let version = context.client.version().await?;
    place_mac_address(body, version);
    let trusted = trusted_image(context, flags, &body.config.image).await?;
    if let Some((_, digested)) = &trusted {
        body.config.image = digested.familiar();
    }
    let body = &*body;
    let image = body.config.image.as_str();
    if !body.host_config.annotations.is_empty() && version < ApiVersion::new(1, 43) {
        return Err(message(format!(
            "\"--annotation\" requires API version 1.43, but the daemon API version is {version}"
        )));
    }
    let call = || -> Result<Call> {
        Call::post("/containers/create")
            .query_opt("platform", flags.platform.as_deref())
            .query_opt("name", flags.name.as_deref())
            .json(body)
    };
    let pull_image = async || {
        pull_for_run(context, image, flags.platform.as_deref(), flags.quiet).await?;
        match &trusted {
            Some((tagged, digested)) => tag_trusted(context, digested, tagged).await,
            None => Ok(()),
        }
    };
    if pull == Pull::Always {
        pull_image().await?;
    }
    let created: Result<ContainerCreateResponse> = context.client.json(call()?).await;
    let response = match created {
        Err(error) if pull == Pull::Missing && is_missing_image(&error) => {
            if !flags.quiet {
                crate::output::warn(&format!("Unable to find image '{}' locally", familiar(image)));
            }
            pull_image().await?;
            context.client.json(call()?).await?
        }
        other => other?,
    };
    for warning in &response.warnings {
        crate::output::warn(&format!("WARNING: {warning}"));
    }
    cid_file.write(&response.id)?;
    Ok(response.id)
}

/// With content trust: the tag that was asked for, and the digest that was signed for it.
async fn trusted_image(
    context: &Context,
    flags: &ContainerFlags,
    image: &str,
) -> Result<Option<(Reference, Reference)>> {
    if !flags.trust.enabled {
        return Ok(None);
    }
    // An id names no repository: nobody signs for it.
    let Ok(reference) = Reference::parse(image) else {
        return Ok(None);
    };
    let digested = trusted_for_run(context, &reference).await?;
    Ok(digested.map(|digested| (reference.with_default_tag(), digested)))
}

/// The address belongs to a network from API 1.44 on, to the container before.
fn place_mac_address(body: &mut ContainerCreateRequest, version: ApiVersion) {
    if version >= ApiVersion::new(1, 44) {
        body.config.mac_address.clear();
    } else {
        for endpoint in body.networking_config.endpoints_config.values_mut().flatten() {
            endpoint.mac_address.clear();
        }
    }
}

/// A 404 of create is a missing image, unless it says that something else is missing.
fn is_missing_image(error: &Error) -> bool {
    error.is_not_found() && {
        let text = error.text().to_ascii_lowercase();
        text.contains("no such image")
            || !(text.contains("network") || text.contains("volume") || text.contains("container"))
    }
}

fn familiar(image: &str) -> String {
    brig_types::reference::Reference::parse(image)
        .map(|reference| reference.with_default_tag().familiar())
        .unwrap_or_else(|_| image.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cid_file_without_container_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cid").display().to_string();
        drop(CidFile::create(Some(&path)).unwrap());
        assert!(!Path::new(&path).exists());
        let mut file = CidFile::create(Some(&path)).unwrap();
        file.write("abc").unwrap();
        drop(file);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "abc");
        assert!(CidFile::create(Some(&path)).is_err());
        assert!(Path::new(&path).exists());
    }

    #[test]
    fn only_missing_images_are_pulled() {
        let api = |text: &str| Error::Api { status: 404, message: text.to_owned() };
        assert!(is_missing_image(&api("No such image: nope:latest")));
        assert!(!is_missing_image(&api("network x not found")));
        assert!(!is_missing_image(&Error::Api {
            status: 409,
            message: "No such image".to_owned()
        }));
    }
}
