//! What services refer to: networks, volumes, secrets, configs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use brig_api::network::{Ipam, IpamConfig, NetworkCreateRequest};

use super::Surroundings;
use super::section::Section;
use crate::error::{Result, message};

/// How an object is called in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// Made by the stack: under its prefix, or as `name:` says.
    Own(Option<String>),
    /// Made by somebody else: the name that the file has for it, or another.
    External(Option<String>),
}

impl Name {
    /// Reads `external` and `name`.
    fn read(section: &mut Section, kind: &str, name: &str) -> Result<Self> {
        let given = section.text("name")?;
        let external = match section.take("external") {
            None => None,
            Some(super::value::Value::Map(map)) => {
                // Since 3.5 the name stands beside it; the older form is still read.
                let mut old =
                    Section::new(section.path().to_owned(), super::value::Value::Map(map))?;
                let old_name = old.text("name")?;
                old.finish()?;
                if given.is_some() && old_name.is_some() {
                    return Err(message(format!(
                        "{kind} {name:?}: {kind}.external.name and {kind}.name conflict; only use {kind}.name"
                    )));
                }
                Some(old_name)
            }
            Some(value) => match value.scalar().as_deref() {
                Some("true") => Some(None),
                Some("false") => None,
                _ => {
                    return Err(super::section::must_be(
                        &format!("{}.external", section.path()),
                        "a boolean",
                    ));
                }
            },
        };
        Ok(match external {
            Some(old_name) => Self::External(old_name.or(given)),
            None => Self::Own(given),
        })
    }

    /// The name in the cluster.
    pub(crate) fn of(&self, stack: &str, name: &str) -> String {
        match self {
            Self::Own(Some(given)) | Self::External(Some(given)) => given.clone(),
            Self::Own(None) => format!("{stack}_{name}"),
            Self::External(None) => name.to_owned(),
        }
    }
}

/// A named volume.
#[derive(Clone, Debug)]
pub(super) struct Volume {
    pub(super) name: Name,
    pub(super) driver: String,
    pub(super) options: BTreeMap<String, String>,
    pub(super) labels: BTreeMap<String, String>,
}

/// Named volumes by the name that the file has for them.
pub(super) type Volumes = BTreeMap<String, Volume>;

pub(super) fn volumes(section: Option<Section>) -> Result<Volumes> {
    let mut volumes = Volumes::new();
    for (key, mut section) in entries(section)? {
        let name = Name::read(&mut section, "volume", &key)?;
        let volume = Volume {
            driver: section.text_or_empty("driver")?,
            options: section.labels("driver_opts")?,
            labels: section.labels("labels")?,
            name,
        };
        let alone =
            volume.driver.is_empty() && volume.options.is_empty() && volume.labels.is_empty();
        external_alone("volume", &key, &volume.name, alone)?;
        section.finish()?;
        volumes.insert(key, volume);
    }
    Ok(volumes)
}

/// A network.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) name: Name,
    /// What it is made from, if the stack makes it; its name is the one in the cluster.
    pub(crate) request: NetworkCreateRequest,
}

/// Networks by the name that the file has for them; `default` is always among them.
pub(super) fn networks(
    section: Option<Section>,
    surroundings: &Surroundings<'_>,
) -> Result<BTreeMap<String, Network>> {
    let mut networks = BTreeMap::new();
    for (key, mut section) in entries(section)? {
        let name = Name::read(&mut section, "network", &key)?;
        let mut request = NetworkCreateRequest {
            driver: section.text_or_empty("driver")?,
            options: section.labels("driver_opts")?,
            internal: section.flag("internal")?.unwrap_or_default(),
            attachable: section.flag("attachable")?.unwrap_or_default(),
            enable_ipv6: section.flag("enable_ipv6")?,
            ipam: ipam(&mut section)?,
            labels: section.labels("labels")?,
            ..NetworkCreateRequest::default()
        };
        external_alone("network", &key, &name, request == NetworkCreateRequest::default())?;
        section.finish()?;
        finish_network(&mut request, &name, &key, surroundings);
        networks.insert(key, Network { name, request });
    }
    networks.entry("default".to_owned()).or_insert_with(|| {
        let name = Name::Own(None);
        let mut request = NetworkCreateRequest::default();
        finish_network(&mut request, &name, "default", surroundings);
        Network { name, request }
    });
    Ok(networks)
}

fn finish_network(
    request: &mut NetworkCreateRequest,
    name: &Name,
    key: &str,
    surroundings: &Surroundings<'_>,
) {
    request.name = name.of(surroundings.stack, key);
    if request.driver.is_empty() {
        "overlay".clone_into(&mut request.driver);
    }
    request.labels = surroundings.labels(&request.labels);
}

fn ipam(section: &mut Section) -> Result<Option<Ipam>> {
    let Some(mut section) = section.section("ipam")? else { return Ok(None) };
    let mut ipam = Ipam { driver: section.text_or_empty("driver")?, ..Ipam::default() };
    for (path, item) in section.items("config")? {
        let mut subnet = Section::new(path, item)?;
        ipam.config.push(IpamConfig {
            subnet: subnet.text_or_empty("subnet")?,
            ip_range: subnet.text_or_empty("ip_range")?,
            gateway: subnet.text_or_empty("gateway")?,
            ..IpamConfig::default()
        });
        subnet.finish()?;
    }
    section.finish()?;
    Ok((ipam != Ipam::default()).then_some(ipam))
}

/// A secret or a config.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) name: Name,
    /// Its name in the cluster.
    pub(crate) cluster_name: String,
    /// Nothing with a driver, and for external ones.
    pub(crate) file: Option<PathBuf>,
    pub(crate) driver: Option<brig_api::mount::Driver>,
    pub(crate) template_driver: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// Reads `secrets` or `configs`; `kind` is the singular.
pub(super) fn contents(
    kind: &str,
    section: Option<Section>,
    surroundings: &Surroundings<'_>,
) -> Result<BTreeMap<String, Content>> {
    let mut contents = BTreeMap::new();
    for (key, mut section) in entries(section)? {
        let name = Name::read(&mut section, kind, &key)?;
        let file = section.text("file")?;
        let driver = section.text("driver")?;
        let options = section.labels("driver_opts")?;
        let template_driver = section.text("template_driver")?;
        let labels = section.labels("labels")?;
        section.finish()?;
        external_alone(kind, &key, &name, file.is_none() && driver.is_none() && labels.is_empty())?;
        if matches!(name, Name::Own(_)) && file.is_none() && driver.is_none() {
            return Err(message(format!(
                "{kind} {key:?}: where its content comes from is missing: file, or external: true"
            )));
        }
        contents.insert(
            key.clone(),
            Content {
                cluster_name: name.of(surroundings.stack, &key),
                name,
                file: file.map(|file| surroundings.directory.join(file)),
                driver: driver.map(|name| brig_api::mount::Driver { name, options }),
                template_driver,
                labels: surroundings.labels(&labels),
            },
        );
    }
    Ok(contents)
}

fn entries(section: Option<Section>) -> Result<Vec<(String, Section)>> {
    section.map_or_else(|| Ok(Vec::new()), Section::sections)
}

/// What somebody else made has no settings here.
fn external_alone(kind: &str, key: &str, name: &Name, alone: bool) -> Result<()> {
    if matches!(name, Name::External(_)) && !alone {
        return Err(message(format!(
            "conflicting parameters: {kind} {key:?} is external and has other settings too"
        )));
    }
    Ok(())
}
