//! What CFSSL's `sign` endpoint is asked, and what it answers.

use brig_pki::identity::NodeIdentity;
use brig_pki::issued::node_names;
use serde::{Deserialize, Serialize};

/// Longest text of the other side that gets into errors, in characters.
const MAX_TEXT: usize = 400;
/// Go's zero time: the server's policy decides about the validity.
const UNSET: &str = "0001-01-01T00:00:00Z";
/// The profile that signs authorities.
const CA_PROFILE: &str = "CA";

/// A request as SwarmKit's managers send it, field by field.
#[derive(Debug, Serialize)]
pub(super) struct SignRequest<'a> {
    hosts: Vec<String>,
    certificate_request: &'a str,
    subject: Subject,
    profile: &'static str,
    crl_override: &'static str,
    label: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extensions: Vec<Extension>,
    #[serde(rename = "NotBefore")]
    not_before: &'static str,
    #[serde(rename = "NotAfter")]
    not_after: &'static str,
    #[serde(rename = "ReturnPrecert")]
    return_precert: bool,
}

#[derive(Debug, Serialize)]
struct Subject {
    #[serde(rename = "CN")]
    common_name: String,
    names: Vec<Name>,
    #[serde(rename = "SerialNumber")]
    serial_number: &'static str,
}

#[derive(Debug, Serialize)]
struct Name {
    #[serde(rename = "OU", skip_serializing_if = "String::is_empty")]
    unit: String,
    #[serde(rename = "O", skip_serializing_if = "String::is_empty")]
    organization: String,
}

#[derive(Debug, Serialize)]
struct Extension {
    id: &'static str,
    critical: bool,
    value: &'static str,
}

/// Basic constraints: an authority, without a limit to the length of chains.
const AUTHORITY: Extension = Extension { id: "2.5.29.19", critical: true, value: "30030101ff" };

impl<'a> SignRequest<'a> {
    /// A node's certificate.
    pub(super) fn node(csr: &'a str, identity: &NodeIdentity) -> Self {
        Self {
            hosts: node_names(identity),
            certificate_request: csr,
            subject: Subject {
                common_name: identity.node.to_string(),
                names: vec![Name {
                    unit: identity.role.organizational_unit().to_owned(),
                    organization: identity.cluster.clone(),
                }],
                serial_number: "",
            },
            profile: "",
            crl_override: "",
            label: "",
            extensions: Vec::new(),
            not_before: UNSET,
            not_after: UNSET,
            return_precert: false,
        }
    }

    /// Another root's key and name, signed as an authority.
    pub(super) fn authority(csr: &'a str, subject: &brig_pki::ca::RootName) -> Self {
        let mut names: Vec<Name> = Vec::new();
        let longest = subject.units.len().max(subject.organizations.len());
        for index in 0..longest {
            let at = |values: &[String]| values.get(index).cloned().unwrap_or_default();
            names.push(Name { unit: at(&subject.units), organization: at(&subject.organizations) });
        }
        Self {
            hosts: Vec::new(),
            certificate_request: csr,
            subject: Subject { common_name: subject.common_name.clone(), names, serial_number: "" },
            profile: CA_PROFILE,
            crl_override: "",
            label: "",
            extensions: vec![AUTHORITY],
            not_before: UNSET,
            not_after: UNSET,
            return_precert: false,
        }
    }
}

/// An answer that brings no certificate.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnswerError {
    /// Something that is no answer of a CFSSL server.
    #[error("the answer is not CFSSL's JSON: {0:?}")]
    NotJson(String),
    /// The server says no.
    #[error("the server refused: {0}")]
    Refused(String),
    /// The server says yes and sends nothing.
    #[error("the server says that it signed, but sent no certificate")]
    NoCertificate,
}

#[derive(Deserialize)]
struct Answer {
    success: bool,
    #[serde(default)]
    result: serde_json::Value,
    errors: Option<Vec<Message>>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

/// Reads an answer: the certificate in PEM.
pub(crate) fn certificate(body: &[u8]) -> Result<String, AnswerError> {
    let answer: Answer =
        serde_json::from_slice(body).map_err(|_| AnswerError::NotJson(readable(body)))?;
    if !answer.success {
        let errors = answer.errors.unwrap_or_default();
        let texts: Vec<String> =
            errors.iter().map(|error| format!("{} (code {})", error.message, error.code)).collect();
        let text = if texts.is_empty() { "no reason given".to_owned() } else { texts.join("; ") };
        return Err(AnswerError::Refused(readable(text.as_bytes())));
    }
    answer
        .result
        .get("certificate")
        .and_then(serde_json::Value::as_str)
        .filter(|certificate| !certificate.is_empty())
        .map(str::to_owned)
        .ok_or(AnswerError::NoCertificate)
}

/// Foreign text for an error: one short line that cannot steer a terminal.
pub(super) fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut short: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TEXT).collect();
    if text.trim().chars().nth(MAX_TEXT).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use brig_pki::token::NodeRole;
    use brig_types::id::NodeId;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_swarmkits() {
        let node = NodeId::generate();
        let identity = NodeIdentity {
            cluster: "cluster".to_owned(),
            role: NodeRole::Manager,
            node: node.clone(),
        };
        assert_eq!(
            serde_json::to_string(&SignRequest::node("csr", &identity)).unwrap(),
            format!(
                r#"{{"hosts":["swarm-manager","{node}","swarm-ca"],"certificate_request":"csr","subject":{{"CN":"{node}","names":[{{"OU":"swarm-manager","O":"cluster"}}],"SerialNumber":""}},"profile":"","crl_override":"","label":"","NotBefore":"0001-01-01T00:00:00Z","NotAfter":"0001-01-01T00:00:00Z","ReturnPrecert":false}}"#
            )
        );
        let root = brig_pki::ca::RootName {
            common_name: "swarm-ca".to_owned(),
            ..brig_pki::ca::RootName::default()
        };
        assert_eq!(
            serde_json::to_string(&SignRequest::authority("csr", &root)).unwrap(),
            r#"{"hosts":[],"certificate_request":"csr","subject":{"CN":"swarm-ca","names":[],"SerialNumber":""},"profile":"CA","crl_override":"","label":"","extensions":[{"id":"2.5.29.19","critical":true,"value":"30030101ff"}],"NotBefore":"0001-01-01T00:00:00Z","NotAfter":"0001-01-01T00:00:00Z","ReturnPrecert":false}"#
        );
    }

    #[test]
    fn answers_are_told_apart() {
        let good = br#"{"success":true,"result":{"certificate":"PEM"},"errors":[],"messages":[]}"#;
        assert_eq!(certificate(good).unwrap(), "PEM");
        let refused = |body: &str| match certificate(body.as_bytes()) {
            Err(AnswerError::Refused(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            refused(
                r#"{"success":false,"result":null,"errors":[{"code":9002,"message":"CSR Decode failed"}],"messages":[]}"#
            ),
            "CSR Decode failed (code 9002)"
        );
        assert_eq!(refused(r#"{"success":false}"#), "no reason given");
        assert_eq!(
            refused("{\"success\":false,\"errors\":[{\"message\":\"a\\u001b[2Jb\\n\"}]}"),
            "a [2Jb  (code 0)"
        );
        let long =
            format!(r#"{{"success":false,"errors":[{{"message":"{}"}}]}}"#, "x".repeat(9999));
        assert!(refused(&long).chars().count() == MAX_TEXT + 1);
        for nothing in [
            r#"{"success":true}"#,
            r#"{"success":true,"result":null}"#,
            r#"{"success":true,"result":{"certificate":7}}"#,
            r#"{"success":true,"result":{"certificate":""}}"#,
            r#"{"success":true,"result":["certificate"]}"#,
        ] {
            assert_eq!(certificate(nothing.as_bytes()), Err(AnswerError::NoCertificate));
        }
        for other in ["", "<html>", "null", "[]", "{}", r#"{"success":"yes"}"#] {
            let told = certificate(other.as_bytes());
            assert!(matches!(told, Err(AnswerError::NotJson(_))), "{told:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(body in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Err(AnswerError::NotJson(text)) = certificate(&body) {
                prop_assert!(!text.contains(char::is_control));
                prop_assert!(text.chars().count() <= MAX_TEXT + 1);
            }
        }

        #[test]
        fn what_was_signed_comes_back(pem in "[ -~\n]{1,200}") {
            let body = serde_json::json!({"success": true, "result": {"certificate": pem}});
            prop_assert_eq!(certificate(body.to_string().as_bytes()), Ok(pem));
        }
    }
}
