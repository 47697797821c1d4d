//! What a client wants to be built, from the query of `POST /build`.

use std::collections::BTreeMap;

use brig_image::Platform;
use brig_types::reference::Reference;
use serde::Deserialize;

use crate::api::image_transfer::platform;
use crate::api::images::reference;
use crate::server::ApiError;
use crate::server::query::Query;

/// Where `RUN` steps are connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildNetwork {
    /// A network of this node, by name.
    Bridge(String),
    /// The host's own.
    Host,
    /// None.
    None,
}

/// One build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildRequest {
    /// Path of the Dockerfile within the context.
    pub dockerfile: String,
    /// Names of the image.
    pub tags: Vec<Reference>,
    /// Only the id is told.
    pub quiet: bool,
    /// Nothing that was built before is used again.
    pub no_cache: bool,
    /// Base images are fetched even if they are here.
    pub pull: bool,
    /// Arguments; those without a value are unset.
    pub arguments: BTreeMap<String, String>,
    /// Where steps are connected to.
    pub network: BuildNetwork,
    /// What the image is for.
    pub platform: Option<Platform>,
    /// Flags of the builder that come from the query one to one.
    pub flags: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ulimit {
    name: String,
    soft: i64,
    hard: i64,
}

impl BuildRequest {
    /// Reads the query.
    ///
    /// # Errors
    /// 400 for malformed values, 501 for what is not available.
    pub fn read(query: &Query) -> Result<Self, ApiError> {
        if query.text("version") == Some("2") {
            return Err(ApiError::not_implemented(
                "this engine has no BuildKit: build with DOCKER_BUILDKIT=0, or use \"docker \
                 buildx\" with the docker-container or remote driver",
            ));
        }
        if query.non_empty("remote").is_some() {
            return Err(ApiError::not_implemented(
                "building from a URL is not available; send the context as the request's body, as \
                 \"docker build\" does",
            ));
        }
        if query.flag("squash") {
            return Err(ApiError::not_implemented("squash is not available"));
        }
        if query.non_empty("outputs").is_some_and(|outputs| outputs != "[]") {
            return Err(ApiError::not_implemented("outputs need BuildKit"));
        }
        let tags = query
            .all("t")
            .filter(|tag| !tag.is_empty())
            .map(|tag| {
                let tag = reference(tag, None)?;
                if tag.digest().is_some() {
                    return Err(ApiError::invalid(
                        "refusing to create a tag with a digest reference",
                    ));
                }
                Ok(tag.with_default_tag())
            })
            .collect::<Result<Vec<_>, _>>()?;
        let arguments: BTreeMap<String, Option<String>> = json(query, "buildargs")?;
        Ok(Self {
            dockerfile: query.non_empty("dockerfile").unwrap_or("Dockerfile").to_owned(),
            tags,
            quiet: query.flag("q"),
            no_cache: query.flag("nocache"),
            pull: query.flag("pull"),
            arguments: arguments
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
            network: network(query.non_empty("networkmode"))?,
            platform: query.non_empty("platform").map(platform).transpose()?,
            flags: flags(query)?,
        })
    }
}

fn flags(query: &Query) -> Result<Vec<String>, ApiError> {
    let mut flags = Vec::new();
    let labels: BTreeMap<String, String> = json(query, "labels")?;
    flags.extend(labels.iter().map(|(name, value)| format!("--label={name}={value}")));
    flags.extend(query.non_empty("target").map(|target| format!("--target={target}")));
    for hosts in query.all("extrahosts").filter(|hosts| !hosts.is_empty()) {
        flags.extend(hosts.split(',').map(|host| format!("--add-host={}", host.trim())));
    }
    for (key, flag) in [
        ("cpushares", "--cpu-shares"),
        ("cpuperiod", "--cpu-period"),
        ("cpuquota", "--cpu-quota"),
        ("memory", "--memory"),
        ("shmsize", "--shm-size"),
    ] {
        if let Some(number) = query.number::<u64>(key)?.filter(|&number| number > 0) {
            flags.push(format!("{flag}={number}"));
        }
    }
    if let Some(number) = query.number::<i64>("memswap")?.filter(|&number| number != 0) {
        flags.push(format!("--memory-swap={number}"));
    }
    for (key, flag) in [("cpusetcpus", "--cpuset-cpus"), ("cpusetmems", "--cpuset-mems")] {
        flags.extend(query.non_empty(key).map(|set| format!("{flag}={set}")));
    }
    flags.extend(query.non_empty("cgroupparent").map(|path| format!("--cgroup-parent={path}")));
    let ulimits: Vec<Ulimit> = json(query, "ulimits")?;
    flags.extend(
        ulimits
            .iter()
            .map(|limit| format!("--ulimit={}={}:{}", limit.name, limit.soft, limit.hard)),
    );
    Ok(flags)
}

fn network(mode: Option<&str>) -> Result<BuildNetwork, ApiError> {
    Ok(match mode {
        None | Some("default" | "bridge") => BuildNetwork::Bridge("bridge".to_owned()),
        Some("host") => BuildNetwork::Host,
        Some("none") => BuildNetwork::None,
        Some(mode) if mode.starts_with("container:") => {
            return Err(ApiError::not_implemented(
                "building in the network of a container is not available; name a network",
            ));
        }
        Some(name) => BuildNetwork::Bridge(name.to_owned()),
    })
}

fn json<T: serde::de::DeserializeOwned + Default>(query: &Query, key: &str) -> Result<T, ApiError> {
    match query.non_empty(key) {
        None | Some("null") => Ok(T::default()),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| ApiError::invalid(format!("invalid {key}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read() {
        let query = "t=a&t=b:2&dockerfile=x%2FDockerfile&nocache=1&q=1&buildargs=%7B%22A%22%3A%221%22%2C%22B%22%3Anull%7D\
            &labels=%7B%22k%22%3A%22v%22%7D&target=t&memory=4096&networkmode=mine&ulimits=null&extrahosts=a%3A1.2.3.4%2Cb%3A2.3.4.5";
        let request = BuildRequest::read(&Query::parse(Some(query))).unwrap();
        let tags: Vec<String> = request.tags.iter().map(Reference::familiar).collect();
        assert_eq!(tags, ["a:latest", "b:2"]);
        assert_eq!(request.dockerfile, "x/Dockerfile");
        assert!(request.no_cache && request.quiet && !request.pull);
        assert_eq!(request.arguments, BTreeMap::from([("A".to_owned(), "1".to_owned())]));
        assert_eq!(request.network, BuildNetwork::Bridge("mine".to_owned()));
        assert_eq!(
            request.flags,
            [
                "--label=k=v",
                "--target=t",
                "--add-host=a:1.2.3.4",
                "--add-host=b:2.3.4.5",
                "--memory=4096"
            ]
        );
        for bad in ["version=2", "remote=https%3A%2F%2Fx", "t=A", "buildargs=x", "memory=x"] {
            assert!(BuildRequest::read(&Query::parse(Some(bad))).is_err(), "{bad}");
        }
    }
}
