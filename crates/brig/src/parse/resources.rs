//! Limits, devices and generic resources.

use brig_api::container::{DeviceMapping, DeviceRequest, ThrottleDevice, Ulimit, WeightDevice};
use brig_api::swarm::{DiscreteGenericResource, GenericResource};

use super::{BadValue, bad, csv, size};

const ULIMITS: [&str; 16] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
    "as",
];

/// Reads `nofile=10:20`; one number is both limits.
pub(crate) fn ulimit(spec: &str) -> Result<Ulimit, BadValue> {
    let Some((name, values)) = spec.split_once('=') else {
        return bad(format!("invalid ulimit argument: {spec}"));
    };
    if !ULIMITS.contains(&name) {
        return bad(format!("invalid ulimit type: {name}"));
    }
    let number = |text: &str| {
        text.parse::<i64>().map_err(|_| BadValue(format!("invalid ulimit value: {text}")))
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(values)?, number(values)?),
    };
    if hard != -1 && (soft == -1 || soft > hard) {
        return bad(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        ));
    }
    Ok(Ulimit { name: name.to_owned(), hard, soft })
}

/// Reads `/dev/a[:/dev/b][:rwm]`.
pub(crate) fn device(spec: &str) -> Result<DeviceMapping, BadValue> {
    let is_mode = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| matches!(c, 'r' | 'w' | 'm'))
            && ['r', 'w', 'm'].iter().all(|c| text.matches(*c).count() <= 1)
    };
    let parts: Vec<&str> = spec.split(':').collect();
    let (source, target, mode) = match parts.as_slice() {
        [source] if !source.is_empty() => (*source, *source, "rwm"),
        [source, mode] if is_mode(mode) => (*source, *source, *mode),
        [source, target] => (*source, *target, "rwm"),
        [source, target, mode] if is_mode(mode) => {
            (*source, if target.is_empty() { *source } else { *target }, *mode)
        }
        _ => return bad(format!("invalid device specification: {spec}")),
    };
    Ok(DeviceMapping {
        path_on_host: source.to_owned(),
        path_in_container: target.to_owned(),
        cgroup_permissions: mode.to_owned(),
    })
}

/// Reads `/dev/a:500`, a block I/O weight.
pub(crate) fn weight_device(spec: &str) -> Result<WeightDevice, BadValue> {
    let invalid = || BadValue(format!("invalid weight for device: {spec}"));
    let (path, weight) =
        spec.split_once(':').ok_or_else(|| BadValue(format!("bad format: {spec}")))?;
    if !path.starts_with("/dev/") {
        return bad(format!("bad format for device path: {spec}"));
    }
    let weight: u16 = weight.parse().map_err(|_| invalid())?;
    if weight != 0 && !(10..=1000).contains(&weight) {
        return Err(invalid());
    }
    Ok(WeightDevice { path: path.to_owned(), weight })
}

/// Reads `/dev/a:1mb`, a rate in bytes, or in operations when `operations` is set.
fn throttle(spec: &str, operations: bool) -> Result<ThrottleDevice, BadValue> {
    let (path, rate) =
        spec.split_once(':').ok_or_else(|| BadValue(format!("bad format: {spec}")))?;
    if !path.starts_with("/dev/") {
        return bad(format!("bad format for device path: {spec}"));
    }
    let rate = if operations {
        rate.parse().ok()
    } else {
        size::bytes(rate).ok().and_then(|n| u64::try_from(n).ok())
    };
    let rate = rate.ok_or_else(|| {
        BadValue(format!(
            "invalid rate for device: {spec}. The correct format is <device-path>:<number>[<unit>]"
        ))
    })?;
    Ok(ThrottleDevice { path: path.to_owned(), rate })
}

/// A rate in bytes a second.
pub(crate) fn bytes_rate(spec: &str) -> Result<ThrottleDevice, BadValue> {
    throttle(spec, false)
}

/// A rate in operations a second.
pub(crate) fn operations_rate(spec: &str) -> Result<ThrottleDevice, BadValue> {
    throttle(spec, true)
}

/// Reads `--gpus`: `all`, a number, or `device=…,capabilities=…`.
pub(crate) fn gpus(spec: &str) -> Result<DeviceRequest, BadValue> {
    let mut request = DeviceRequest::default();
    let mut counted = false;
    let mut capabilities = vec!["gpu".to_owned()];
    for (key, value) in csv::pairs(spec)? {
        let (key, value) = match value {
            Some(value) => (key, value),
            None => ("count".to_owned(), key),
        };
        match key.as_str() {
            "count" => {
                counted = true;
                request.count = if value == "all" {
                    -1
                } else {
                    value.parse().map_err(|_| {
                        BadValue(format!(
                            "invalid count ({value}): value must be either \"all\" or an integer"
                        ))
                    })?
                };
            }
            "driver" => request.driver = value,
            "device" => request.device_ids = value.split(',').map(str::to_owned).collect(),
            "capabilities" => capabilities.extend(value.split(',').map(str::to_owned)),
            "options" => {
                request.options =
                    csv::fields(&value)?.iter().map(|o| super::key_value(o)).collect();
            }
            _ => return bad(format!("unexpected key '{key}' in '{key}={value}'")),
        }
    }
    if !counted && request.device_ids.is_empty() {
        request.count = 1;
    }
    request.capabilities = vec![capabilities];
    Ok(request)
}

/// Reads `--generic-resource`: `ssd=3`. Named ones (`gpu=UUID1`) only nodes can have.
pub(crate) fn generic(spec: &str) -> Result<GenericResource, BadValue> {
    let Some((kind, value)) = spec.split_once('=').filter(|(k, v)| !k.is_empty() && !v.is_empty())
    else {
        return bad(format!("incorrect term {spec}, missing '=' or malformed expression"));
    };
    match value.parse::<i64>() {
        Ok(value) => Ok(GenericResource {
            discrete_resource_spec: Some(DiscreteGenericResource { kind: kind.to_owned(), value }),
            ..GenericResource::default()
        }),
        Err(_) => bad(format!(
            "invalid generic-resource request `{spec}`, Named Generic Resources is not supported for service create or update"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_devices() {
        assert_eq!(
            ulimit("nofile=10:20").unwrap(),
            Ulimit { name: "nofile".into(), hard: 20, soft: 10 }
        );
        assert_eq!(ulimit("core=-1").unwrap().hard, -1);
        for spec in ["nofile", "bogus=1", "nofile=20:10", "nofile=x"] {
            assert!(ulimit(spec).is_err(), "{spec}");
        }
        let d = device("/dev/a:/dev/b:r").unwrap();
        assert_eq!((d.path_in_container.as_str(), d.cgroup_permissions.as_str()), ("/dev/b", "r"));
        assert_eq!(device("/dev/a:rw").unwrap().path_in_container, "/dev/a");
        assert!(device("/dev/a:/dev/b:x").is_err());
        assert_eq!(bytes_rate("/dev/sda:1mb").unwrap().rate, 1_048_576);
        assert_eq!(operations_rate("/dev/sda:7").unwrap().rate, 7);
        assert!(operations_rate("/dev/sda:1mb").is_err());
        assert!(weight_device("/dev/sda:5").is_err());
        assert_eq!(gpus("all").unwrap().count, -1);
        assert_eq!(gpus("\"device=0,1\"").unwrap().device_ids, ["0", "1"]);
        assert!(generic("gpu=U1").is_err());
        assert!(generic("gpu=3").unwrap().discrete_resource_spec.is_some());
    }
}
