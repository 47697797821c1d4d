//! Runs a template's tree.

use serde_json::Value;

use super::functions;
use super::parser::{Command, Node, Operand, Pipeline};
use super::{Data, TemplateError, fail};

/// The longest text that a template may make, in bytes.
const MAX_OUTPUT: usize = 64 * 1024 * 1024;

type Result<T> = std::result::Result<T, TemplateError>;

pub(super) fn render(nodes: &[Node], data: &Data<'_>, header: bool) -> Result<String> {
    let mut run = Run {
        data,
        header,
        variables: vec![(String::new(), data.value.clone())],
        out: String::new(),
    };
    run.nodes(nodes, data.value)?;
    Ok(run.out)
}

struct Run<'a> {
    data: &'a Data<'a>,
    /// A table's head is made: what is missing is empty, functions change nothing.
    header: bool,
    variables: Vec<(String, Value)>,
    out: String,
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<()> {
        for node in nodes {
            self.node(node, dot)?;
            if self.out.len() > MAX_OUTPUT {
                return fail("the output is too long");
            }
        }
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<()> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Output { variable: Some(name), pipeline } => {
                let value = self.pipeline(pipeline, dot)?.unwrap_or_default();
                self.set(name, value);
            }
            Node::Output { variable: None, pipeline } => match self.pipeline(pipeline, dot)? {
                Some(value) => functions::print(&value, &mut self.out),
                None if self.header => {}
                None => return fail(missing(pipeline)),
            },
            Node::If { pipeline, then, otherwise } => {
                let value = self.pipeline(pipeline, dot)?.unwrap_or_default();
                let branch = if functions::is_true(&value) { then } else { otherwise };
                self.scoped(|run| run.nodes(branch, dot))?;
            }
            Node::With { variable, pipeline, then, otherwise } => {
                let value = self.pipeline(pipeline, dot)?.unwrap_or_default();
                self.scoped(|run| {
                    if !functions::is_true(&value) {
                        return run.nodes(otherwise, dot);
                    }
                    if let Some(name) = variable {
                        run.variables.push((name.clone(), value.clone()));
                    }
                    run.nodes(then, &value)
                })?;
            }
            Node::Range { variables, pipeline, body, otherwise } => {
                let value = self.pipeline(pipeline, dot)?.unwrap_or_default();
                self.range(variables, &value, body, otherwise, dot)?;
            }
        }
        Ok(())
    }

    fn range(
        &mut self,
        names: &[String],
        value: &Value,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<()> {
        let items: Vec<(Value, Value)> = match value {
            Value::Array(list) => {
                list.iter().enumerate().map(|(i, v)| (Value::from(i), v.clone())).collect()
            }
            Value::Object(map) => {
                let entries = super::functions::by_key(map);
                entries.into_iter().map(|(k, v)| (Value::from(k.as_str()), v.clone())).collect()
            }
            Value::Null => Vec::new(),
            Value::String(_) if self.header => Vec::new(),
            other => return fail(format!("range can't iterate over {other}")),
        };
        if items.is_empty() {
            return self.scoped(|run| run.nodes(otherwise, dot));
        }
        for (key, item) in items {
            self.scoped(|run| {
                match names {
                    [] => {}
                    [value] => run.variables.push((value.clone(), item.clone())),
                    [index, value, ..] => {
                        run.variables.push((index.clone(), key));
                        run.variables.push((value.clone(), item.clone()));
                    }
                }
                run.nodes(body, &item)
            })?;
        }
        Ok(())
    }

    /// Runs something whose variables end with it.
    fn scoped(&mut self, body: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let depth = self.variables.len();
        let result = body(self);
        self.variables.truncate(depth);
        result
    }

    fn set(&mut self, name: &str, value: Value) {
        match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            Some((_, slot)) => *slot = value,
            None => self.variables.push((name.to_owned(), value)),
        }
    }

    /// `None`: a field that is not there.
    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Option<Value>> {
        let mut piped: Option<Option<Value>> = None;
        for command in pipeline {
            piped = Some(self.command(command, piped.map(Option::unwrap_or_default), dot)?);
        }
        Ok(piped.flatten())
    }

    fn command(
        &mut self,
        command: &Command,
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Option<Value>> {
        let arguments = |run: &mut Self| -> Result<Vec<Value>> {
            let mut values = Vec::with_capacity(command.arguments.len() + 1);
            for argument in &command.arguments {
                values.push(run.operand(argument, dot)?.unwrap_or_default());
            }
            values.extend(piped.clone());
            Ok(values)
        };
        match &command.head {
            Operand::Function(name) => {
                let values = arguments(self)?;
                if self.header {
                    return Ok(functions::header(name, &values));
                }
                functions::call(name, &values).map(Some)
            }
            Operand::Fields(path)
                if path.as_slice() == ["Label"]
                    && !(command.arguments.is_empty() && piped.is_none()) =>
            {
                let values = arguments(self)?;
                Ok(Some(self.label(values.first())))
            }
            head if command.arguments.is_empty() && piped.is_none() => self.operand(head, dot),
            _ => fail("can't give argument to non-function"),
        }
    }

    fn label(&self, name: Option<&Value>) -> Value {
        let name = name.and_then(Value::as_str).unwrap_or_default();
        if self.header {
            let last = name.rsplit('.').next().unwrap_or_default();
            return Value::from(last.replace(['-', '_'], " "));
        }
        let value = self.data.labels.and_then(|labels| labels.get(name));
        Value::from(value.map(String::as_str).unwrap_or_default())
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Option<Value>> {
        match operand {
            Operand::Literal(value) => Ok(Some(value.clone())),
            Operand::Fields(path) => {
                let found = functions::field(dot, path).cloned();
                // A header is the field's name unless another one is known.
                Ok(found.or_else(|| {
                    path.last().filter(|_| self.header).map(|name| Value::from(name.to_uppercase()))
                }))
            }
            Operand::Variable(name, path) => {
                match self.variables.iter().rev().find(|(known, _)| known == name) {
                    Some((_, value)) => Ok(functions::field(value, path).cloned()),
                    None => fail(format!("undefined variable \"${name}\"")),
                }
            }
            Operand::Group(pipeline, path) => {
                let value = self.pipeline(pipeline, dot)?;
                Ok(value.and_then(|value| functions::field(&value, path).cloned()))
            }
            Operand::Function(name) if self.header => Ok(functions::header(name, &[])),
            Operand::Function(name) => functions::call(name, &[]).map(Some),
        }
    }
}

fn missing(pipeline: &Pipeline) -> String {
    let name = match pipeline.last().map(|command| &command.head) {
        Some(Operand::Fields(path) | Operand::Variable(_, path) | Operand::Group(_, path)) => {
            path.join(".")
        }
        _ => String::new(),
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    format!(":1: executing \"\" at <.{name}>: map has no entry for key {last:?}")
}
