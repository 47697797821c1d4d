//! Placeholders in specs (`{{.Service.Name}}`) and in secrets and configs that ask for it
//! (`{{secret "name"}}`): the part of Go's template language that such texts use.
//!
//! Actions are a field of the task's surroundings, a string, or a call of one function. Conditions,
//! loops, variables and pipes are refused by name, so that nothing is silently left out.

mod parse;

use std::collections::BTreeMap;

use brig_proto::swarm::Task;
use brig_types::secret::{SecretBytes, SecretString};

use self::parse::{Action, Argument, Piece};
use super::names;

/// Longest text that is expanded, before and after.
const MAX_TEXT: usize = 4 << 20;

/// A placeholder that cannot be filled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expanding template failed: {0}")]
pub(super) struct TemplateError(String);

impl TemplateError {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Something a placeholder names is not there.
    pub(super) fn missing(what: &str, name: &str) -> Self {
        Self(format!("{what} {name} not found"))
    }

    /// Any other reason.
    pub(super) fn other(text: String) -> Self {
        Self(text)
    }
}

/// What placeholders can say about the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeFacts {
    pub(super) id: String,
    pub(super) hostname: String,
    pub(super) architecture: String,
    pub(super) os: String,
}

/// What only secrets and configs may refer to.
pub(super) trait Payload {
    /// The content of the task's secret with this target.
    fn secret(&self, target: &str) -> Result<SecretString, TemplateError>;
    /// The content of the task's config with this target.
    fn config(&self, target: &str) -> Result<SecretString, TemplateError>;
    /// A variable of the task's environment.
    fn env(&self, name: &str) -> Result<SecretString, TemplateError>;
}

/// The surroundings of a task.
#[derive(Clone, Debug)]
pub(super) struct Context {
    fields: BTreeMap<&'static str, String>,
    service_labels: BTreeMap<String, String>,
}

impl Context {
    pub(super) fn new(task: &Task, node: &NodeFacts) -> Self {
        let service = task.service_annotations.clone().unwrap_or_default();
        let fields = [
            ("Service.ID", task.service_id.clone()),
            ("Service.Name", service.name),
            ("Node.ID", task.node_id.clone()),
            ("Node.Hostname", node.hostname.clone()),
            ("Node.Platform.Architecture", node.architecture.clone()),
            ("Node.Platform.OS", node.os.clone()),
            ("Task.ID", task.id.clone()),
            ("Task.Name", names::container_name(task)),
            ("Task.Slot", names::slot(task)),
        ];
        Self { fields: fields.into(), service_labels: service.labels }
    }

    /// Expands a text of a spec.
    pub(super) fn expand(&self, text: &str) -> Result<String, TemplateError> {
        if !text.contains("{{") {
            return Ok(text.to_owned());
        }
        let pieces = self.pieces(text, None)?;
        Ok(pieces.iter().map(Expanded::text).collect())
    }

    /// Expands the content of a secret or config.
    pub(super) fn expand_payload(
        &self,
        content: &[u8],
        payload: &dyn Payload,
    ) -> Result<SecretBytes, TemplateError> {
        let text = std::str::from_utf8(content)
            .map_err(|_| TemplateError::new("the content is not UTF-8 text"))?;
        let pieces = self.pieces(text, Some(payload))?;
        // One allocation of the final size: growing would leave copies behind.
        let size = pieces.iter().map(|piece| piece.text().len()).sum();
        let mut bytes = Vec::with_capacity(size);
        for piece in &pieces {
            bytes.extend_from_slice(piece.text().as_bytes());
        }
        Ok(SecretBytes::new(bytes))
    }

    fn pieces<'a>(
        &self,
        text: &'a str,
        payload: Option<&dyn Payload>,
    ) -> Result<Vec<Expanded<'a>>, TemplateError> {
        if text.len() > MAX_TEXT {
            return Err(TemplateError::new("the text is too long"));
        }
        let mut size = 0;
        parse::pieces(text)?
            .into_iter()
            .map(|piece| {
                let expanded = match piece {
                    Piece::Text(text) => Expanded::Plain(text),
                    Piece::Action(action) => Expanded::Value(self.evaluate(&action, payload)?),
                };
                size += expanded.text().len();
                if size > MAX_TEXT {
                    return Err(TemplateError::new("the result is too long"));
                }
                Ok(expanded)
            })
            .collect()
    }

    fn evaluate(
        &self,
        action: &Action,
        payload: Option<&dyn Payload>,
    ) -> Result<SecretString, TemplateError> {
        match action {
            Action::Value(argument) => self.value(argument).map(SecretString::new),
            Action::Call { function, arguments } => {
                match (function.as_str(), arguments.as_slice(), payload) {
                    ("index", [Argument::Field(map), key], _) if map == "Service.Labels" => {
                        let key = self.value(key)?;
                        Ok(SecretString::new(self.label(&key)))
                    }
                    ("secret", [name], Some(payload)) => payload.secret(&self.value(name)?),
                    ("config", [name], Some(payload)) => payload.config(&self.value(name)?),
                    ("env", [name], Some(payload)) => payload.env(&self.value(name)?),
                    _ => Err(TemplateError::new(format!(
                        "{function:?} cannot be called here with {} arguments",
                        arguments.len()
                    ))),
                }
            }
        }
    }

    fn value(&self, argument: &Argument) -> Result<String, TemplateError> {
        match argument {
            Argument::Text(text) => Ok(text.clone()),
            Argument::Field(path) => match path.strip_prefix("Service.Labels.") {
                Some(label) => Ok(self.label(label)),
                None => self
                    .fields
                    .get(path.as_str())
                    .cloned()
                    .ok_or_else(|| TemplateError::new(format!("there is no field .{path}"))),
            },
        }
    }

    /// A label of the service; an absent one is empty, as in Go.
    fn label(&self, name: &str) -> String {
        self.service_labels.get(name).cloned().unwrap_or_default()
    }
}

/// A part of the result.
enum Expanded<'a> {
    Plain(&'a str),
    Value(SecretString),
}

impl Expanded<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Value(value) => value.expose_secret(),
        }
    }
}

#[cfg(test)]
mod tests {
    use brig_proto::swarm::Annotations;
    use proptest::prelude::*;

    use super::*;

    fn context() -> Context {
        let task = Task {
            id: "tid".into(),
            service_id: "sid".into(),
            node_id: "nid".into(),
            slot: 2,
            service_annotations: Some(Annotations {
                name: "web".into(),
                labels: [("a.b".to_owned(), "dots".to_owned()), ("c".to_owned(), "see".to_owned())]
                    .into(),
                ..Annotations::default()
            }),
            ..Task::default()
        };
        let node = NodeFacts {
            id: "nid".into(),
            hostname: "host".into(),
            architecture: "x86_64".into(),
            os: "linux".into(),
        };
        Context::new(&task, &node)
    }

    #[test]
    fn fields() {
        let context = context();
        for (text, expanded) in [
            ("plain { } text", "plain { } text"),
            ("{{.Service.Name}}-{{ .Task.Slot }}", "web-2"),
            ("{{.Node.Hostname}}/{{.Node.ID}}", "host/nid"),
            ("{{.Node.Platform.OS}}:{{.Node.Platform.Architecture}}", "linux:x86_64"),
            ("{{.Task.Name}} {{.Task.ID}} {{.Service.ID}}", "web.2.tid tid sid"),
            ("{{.Service.Labels.c}}{{index .Service.Labels \"a.b\"}}", "seedots"),
            ("{{index .Service.Labels `none`}}|", "|"),
            ("a  {{- /* note */ -}}  b", "ab"),
            ("{{\"{{\"}} {{`}}`}}", "{{ }}"),
        ] {
            assert_eq!(context.expand(text).as_deref(), Ok(expanded), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "{{.Service.Nope}}",
            "{{.Node}}",
            "{{if .Service.Name}}x{{end}}",
            "{{.Service.Name | printf \"%s\"}}",
            "{{$x := 1}}",
            "{{secret \"x\"}}",
            "{{env \"x\"}}",
            "{{.Service.Name",
            "{{}}",
            "{{\"open}}",
        ] {
            assert!(context().expand(text).is_err(), "{text}");
        }
    }

    struct Given;

    impl Payload for Given {
        fn secret(&self, target: &str) -> Result<SecretString, TemplateError> {
            match target {
                "db" => Ok(SecretString::new("hunter2".to_owned())),
                _ => Err(TemplateError::new(format!("secret target {target} not found"))),
            }
        }

        fn config(&self, _: &str) -> Result<SecretString, TemplateError> {
            Ok(SecretString::new("conf".to_owned()))
        }

        fn env(&self, name: &str) -> Result<SecretString, TemplateError> {
            Ok(SecretString::new(format!("<{name}>")))
        }
    }

    #[test]
    fn payloads_may_refer_to_secrets() {
        let text = b"pw={{secret \"db\"}} c={{config \"x\"}} e={{env \"E\"}} s={{.Service.Name}}";
        let expanded = context().expand_payload(text, &Given).unwrap();
        assert_eq!(expanded.expose_secret(), b"pw=hunter2 c=conf e=<E> s=web");
        assert!(context().expand_payload(b"{{secret \"other\"}}", &Given).is_err());
        assert!(context().expand_payload(&[0xff], &Given).is_err());
    }

    proptest! {
        #[test]
        fn text_without_braces_stays(text in "[^{]{0,60}") {
            prop_assert_eq!(context().expand(&text), Ok(text));
        }

        #[test]
        fn nothing_panics(text in "(\\{\\{-? ?|-? ?\\}\\}|[.a-zA-Z\"`\\\\ ]|\\PC){0,30}") {
            let _ = context().expand(&text);
            let _ = context().expand_payload(text.as_bytes(), &Given);
        }
    }
}
