//! Placement constraints: `key == value` and `key != value` over what is known of a node.

use std::net::IpAddr;

use brig_proto::swarm::{Node, NodeRole, Platform};

/// One constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Constraint {
    key: String,
    equal: bool,
    value: String,
}

impl Constraint {
    /// Reads `key==value` or `key!=value`.
    ///
    /// # Errors
    /// What is wrong, in SwarmKit's words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (equal, (key, value)) = match (text.split_once("=="), text.split_once("!=")) {
            (Some(parts), None) => (true, parts),
            (None, Some(parts)) => (false, parts),
            (Some(eq), Some(ne)) if eq.0.len() < ne.0.len() => (true, eq),
            (Some(_), Some(ne)) => (false, ne),
            (None, None) => {
                return Err("constraint expected one operator from ==, !=".to_owned());
            }
        };
        let (key, value) = (key.trim(), value.trim());
        if !is_key(key) {
            return Err(format!("key '{key}' is invalid"));
        }
        if !is_value(value) {
            return Err(format!("value '{value}' is invalid"));
        }
        Ok(Self { key: key.to_owned(), equal, value: value.to_owned() })
    }

    /// Whether a node meets the constraint. A key that is not known is never met.
    pub(crate) fn matches(&self, node: &Node) -> bool {
        let description = node.description.as_ref();
        let is = |actual: &str| actual.eq_ignore_ascii_case(&self.value) == self.equal;
        let key = self.key.to_ascii_lowercase();
        match key.as_str() {
            "node.id" => is(&node.id),
            "node.hostname" => is(description.map_or("", |d| d.hostname.as_str())),
            "node.ip" => self.matches_address(node),
            "node.role" => is(match node.role() {
                NodeRole::Manager => "manager",
                NodeRole::Worker => "worker",
            }),
            "node.platform.os" => is(platform(node).map_or("", |p| p.os.as_str())),
            "node.platform.arch" => {
                let actual = architecture(platform(node).map_or("", |p| p.architecture.as_str()));
                (actual == architecture(&self.value)) == self.equal
            }
            _ => {
                if let Some(label) = strip(&self.key, &key, "node.labels.") {
                    let labels = node
                        .spec
                        .as_ref()
                        .and_then(|spec| spec.annotations.as_ref())
                        .map(|annotations| &annotations.labels);
                    is(labels.and_then(|l| l.get(label)).map_or("", String::as_str))
                } else if let Some(label) = strip(&self.key, &key, "engine.labels.") {
                    let labels =
                        description.and_then(|d| d.engine.as_ref()).map(|engine| &engine.labels);
                    is(labels.and_then(|l| l.get(label)).map_or("", String::as_str))
                } else {
                    false
                }
            }
        }
    }

    fn matches_address(&self, node: &Node) -> bool {
        let Some(actual) =
            node.status.as_ref().and_then(|status| status.addr.parse::<IpAddr>().ok())
        else {
            return false;
        };
        let within = match self.value.split_once('/') {
            None => self.value.parse::<IpAddr>().ok().map(|ip| ip == actual),
            Some((ip, bits)) => ip
                .parse::<IpAddr>()
                .ok()
                .zip(bits.parse::<u32>().ok())
                .and_then(|(ip, bits)| in_subnet(actual, ip, bits)),
        };
        within.is_some_and(|within| within == self.equal)
    }
}

/// Whether a node meets all constraints; one that cannot be read is not met.
pub(crate) fn all_match(constraints: &[String], node: &Node) -> bool {
    constraints
        .iter()
        .all(|text| Constraint::parse(text).is_ok_and(|constraint| constraint.matches(node)))
}

/// Whether a node is one of the platforms; no platforms mean any.
pub(crate) fn platform_matches(platforms: &[Platform], node: &Node) -> bool {
    if platforms.is_empty() {
        return true;
    }
    let Some(actual) = platform(node) else {
        return true;
    };
    platforms.iter().any(|wanted| {
        (wanted.os.is_empty() || wanted.os.eq_ignore_ascii_case(&actual.os))
            && (wanted.architecture.is_empty()
                || architecture(&wanted.architecture) == architecture(&actual.architecture))
    })
}

fn platform(node: &Node) -> Option<&Platform> {
    node.description.as_ref()?.platform.as_ref()
}

/// One name for an architecture that goes by several.
fn architecture(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "x86_64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        "i386" | "i686" => "386".to_owned(),
        _ => name,
    }
}

fn strip<'a>(original: &'a str, lower: &str, prefix: &str) -> Option<&'a str> {
    lower
        .starts_with(prefix)
        .then(|| original.get(prefix.len()..))
        .flatten()
        .filter(|label| !label.is_empty())
}

fn in_subnet(address: IpAddr, network: IpAddr, bits: u32) -> Option<bool> {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            Some(u32::from(a) & mask == u32::from(n) & mask)
        }
        (IpAddr::V6(a), IpAddr::V6(n)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            Some(u128::from(a) & mask == u128::from(n) & mask)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Some(false),
        _ => None,
    }
}

fn is_key(key: &str) -> bool {
    let mut bytes = key.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && key.len() >= 2
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'))
}

fn is_value(value: &str) -> bool {
    !value.is_empty()
        && value.bytes().all(|b| {
            b.is_ascii_alphanumeric()
                || b.is_ascii_whitespace()
                || matches!(
                    b,
                    b':' | b'-'
                        | b'_'
                        | b'.'
                        | b'*'
                        | b'('
                        | b')'
                        | b'?'
                        | b'+'
                        | b'['
                        | b']'
                        | b'\\'
                        | b'^'
                        | b'$'
                        | b'|'
                        | b'/'
                        | b'@'
                        | b','
                )
        })
}

#[cfg(test)]
mod tests {
    use brig_proto::swarm::{Annotations, NodeDescription, NodeSpec, NodeStatus};
    use proptest::prelude::*;

    use super::*;

    fn node() -> Node {
        Node {
            id: "n1".to_owned(),
            role: NodeRole::Manager as i32,
            spec: Some(NodeSpec {
                annotations: Some(Annotations {
                    labels: [("zone".to_owned(), "East".to_owned())].into(),
                    ..Annotations::default()
                }),
                ..NodeSpec::default()
            }),
            status: Some(NodeStatus { addr: "10.1.2.3".to_owned(), ..NodeStatus::default() }),
            description: Some(NodeDescription {
                hostname: "web-1".to_owned(),
                platform: Some(Platform {
                    architecture: "x86_64".to_owned(),
                    os: "linux".to_owned(),
                }),
                ..NodeDescription::default()
            }),
            ..Node::default()
        }
    }

    #[test]
    fn constraints_are_met_or_not() {
        let cases = [
            ("node.id==n1", true),
            ("node.id != n1", false),
            ("node.hostname==WEB-1", true),
            ("node.role==manager", true),
            ("node.role!=worker", true),
            ("node.labels.zone==east", true),
            ("node.labels.zone!=east", false),
            ("node.labels.rack!=east", true),
            ("node.labels.rack==east", false),
            ("engine.labels.gpu==yes", false),
            ("node.platform.os==linux", true),
            ("node.platform.arch==amd64", true),
            ("node.ip==10.1.2.3", true),
            ("node.ip==10.1.0.0/16", true),
            ("node.ip!=10.1.0.0/16", false),
            ("node.ip==10.2.0.0/16", false),
            ("node.colour==red", false),
        ];
        for (text, expected) in cases {
            let constraint = Constraint::parse(text).unwrap();
            assert_eq!(constraint.matches(&node()), expected, "{text}");
        }
    }

    #[test]
    fn malformed_constraints_are_refused() {
        for text in ["", "node.id", "node.id=n1", "==x", "node.id==", "1x==y", "a b==c"] {
            assert!(Constraint::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn platforms() {
        let wanted = |architecture: &str, os: &str| Platform {
            architecture: architecture.to_owned(),
            os: os.to_owned(),
        };
        assert!(platform_matches(&[], &node()));
        assert!(platform_matches(&[wanted("amd64", "linux")], &node()));
        assert!(platform_matches(&[wanted("", "linux")], &node()));
        assert!(!platform_matches(&[wanted("arm64", "linux")], &node()));
        assert!(!platform_matches(&[wanted("amd64", "windows")], &node()));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,60}") {
            if let Ok(constraint) = Constraint::parse(&text) {
                let _ = constraint.matches(&node());
            }
        }
    }
}
