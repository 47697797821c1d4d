//! Turns tokens into a tree.

use serde_json::Value;

use super::lexer::{Segment, Token};
use super::{TemplateError, fail};

/// The deepest nesting of blocks and parentheses.
const MAX_DEPTH: usize = 100;

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// Printed as it is.
    Text(String),
    /// Printed, unless it only sets a variable.
    Output { variable: Option<String>, pipeline: Pipeline },
    /// `{{if}} … {{else}} … {{end}}`
    If { pipeline: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    /// `{{with}} … {{else}} … {{end}}`
    With { variable: Option<String>, pipeline: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    /// `{{range $k, $v := …}} … {{else}} … {{end}}`
    Range { variables: Vec<String>, pipeline: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
}

/// Commands, each getting the one before as its last argument.
pub(super) type Pipeline = Vec<Command>;

/// A function or value with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Command {
    pub(super) head: Operand,
    pub(super) arguments: Vec<Operand>,
}

/// A value in a command.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    /// A string, number, boolean or nil.
    Literal(Value),
    /// `.A.B`; empty for the dot itself.
    Fields(Vec<String>),
    /// `$name.A.B`
    Variable(String, Vec<String>),
    /// A function's name.
    Function(String),
    /// `(pipeline).A.B`
    Group(Pipeline, Vec<String>),
}

pub(super) fn parse(segments: &[Segment]) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser { segments, at: 0 };
    let (nodes, end) = parser.block(0)?;
    match end {
        Close::Template => Ok(nodes),
        Close::Else(_) => fail("unexpected {{else}}"),
        Close::End => fail("unexpected {{end}}"),
    }
}

enum Close {
    Template,
    End,
    /// With what follows the word: `{{else if …}}`.
    Else(Vec<Token>),
}

struct Parser<'a> {
    segments: &'a [Segment],
    at: usize,
}

impl Parser<'_> {
    fn block(&mut self, depth: usize) -> Result<(Vec<Node>, Close), TemplateError> {
        if depth > MAX_DEPTH {
            return fail("the template is nested too deeply");
        }
        let mut nodes = Vec::new();
        while let Some(segment) = self.segments.get(self.at) {
            self.at += 1;
            match segment {
                Segment::Text(text) => nodes.push(Node::Text(text.clone())),
                Segment::Action(tokens) => {
                    let tokens = trim(tokens);
                    let (word, rest) = match tokens.split_first() {
                        Some((Token::Word(word), rest)) => (word.as_str(), trim(rest)),
                        Some(_) => ("", tokens),
                        None => return fail("missing value for command"),
                    };
                    match word {
                        "end" => return Ok((nodes, Close::End)),
                        "else" => return Ok((nodes, Close::Else(rest.to_vec()))),
                        "if" | "with" | "range" => nodes.push(self.compound(word, rest, depth)?),
                        "define" | "template" | "block" | "break" | "continue" => {
                            return fail(format!("{{{{{word}}}}} is not supported"));
                        }
                        _ => {
                            let (variables, pipeline) = declaration(tokens)?;
                            let variable = variables.into_iter().next();
                            nodes.push(Node::Output { variable, pipeline });
                        }
                    }
                }
            }
        }
        Ok((nodes, Close::Template))
    }

    fn compound(
        &mut self,
        word: &str,
        tokens: &[Token],
        depth: usize,
    ) -> Result<Node, TemplateError> {
        let (mut variables, pipeline) = declaration(tokens)?;
        let (then, end) = self.block(depth + 1)?;
        let otherwise = match end {
            Close::Template => return fail("unexpected EOF: {{end}} is missing"),
            Close::End => Vec::new(),
            Close::Else(tokens) => match tokens.split_first() {
                None => match self.block(depth + 1)? {
                    (nodes, Close::End) => nodes,
                    _ => return fail("expected {{end}} after {{else}}"),
                },
                // The chained block takes the one {{end}} of all.
                Some((Token::Word(word), rest)) if matches!(word.as_str(), "if" | "with") => {
                    vec![self.compound(word, trim(rest), depth + 1)?]
                }
                Some(_) => return fail("unexpected token after {{else}}"),
            },
        };
        let variable = if word == "range" { None } else { variables.pop() };
        Ok(match word {
            "if" => Node::If { pipeline, then, otherwise },
            "with" => Node::With { variable, pipeline, then, otherwise },
            _ => Node::Range { variables, pipeline, body: then, otherwise },
        })
    }
}

fn trim(tokens: &[Token]) -> &[Token] {
    let start = tokens.iter().take_while(|t| **t == Token::Space).count();
    let end = tokens.len() - tokens.iter().rev().take_while(|t| **t == Token::Space).count();
    tokens.get(start..end.max(start)).unwrap_or_default()
}

/// `$a, $b := pipeline`, `$a = pipeline`, or only a pipeline.
fn declaration(tokens: &[Token]) -> Result<(Vec<String>, Pipeline), TemplateError> {
    let sign = tokens.iter().position(|t| matches!(t, Token::Declare | Token::Assign));
    let Some(sign) = sign else {
        return Ok((Vec::new(), pipeline(tokens, 0)?));
    };
    let (left, right) = tokens.split_at(sign);
    let mut variables = Vec::new();
    for token in left {
        match token {
            Token::Variable(name) => variables.push(name.clone()),
            Token::Space | Token::Comma => {}
            _ => return fail("only variables can be set"),
        }
    }
    if variables.is_empty() || variables.len() > 2 {
        return fail("too many declarations");
    }
    Ok((variables, pipeline(right.get(1..).unwrap_or_default(), 0)?))
}

fn pipeline(tokens: &[Token], depth: usize) -> Result<Pipeline, TemplateError> {
    if depth > MAX_DEPTH {
        return fail("the template is nested too deeply");
    }
    let mut commands = Vec::new();
    let mut nesting = 0_usize;
    let mut start = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Open => nesting += 1,
            Token::Close => {
                nesting = nesting
                    .checked_sub(1)
                    .ok_or_else(|| TemplateError("unexpected right paren".to_owned()))?;
            }
            Token::Pipe if nesting == 0 => {
                commands.push(command(tokens.get(start..at).unwrap_or_default(), depth)?);
                start = at + 1;
            }
            _ => {}
        }
    }
    if nesting != 0 {
        return fail("unclosed left paren");
    }
    commands.push(command(tokens.get(start..).unwrap_or_default(), depth)?);
    Ok(commands)
}

fn command(tokens: &[Token], depth: usize) -> Result<Command, TemplateError> {
    let mut operands = Vec::new();
    let mut rest = trim(tokens);
    while !rest.is_empty() {
        let (operand, after) = operand(rest, depth)?;
        operands.push(operand);
        rest = trim(after);
    }
    let mut operands = operands.into_iter();
    let Some(head) = operands.next() else {
        return fail("missing value for command");
    };
    Ok(Command { head, arguments: operands.collect() })
}

fn operand(tokens: &[Token], depth: usize) -> Result<(Operand, &[Token]), TemplateError> {
    let Some((first, rest)) = tokens.split_first() else {
        return fail("missing value for command");
    };
    Ok(match first {
        Token::Text(text) => (Operand::Literal(Value::from(text.as_str())), rest),
        Token::Integer(n) => (Operand::Literal(Value::from(*n)), rest),
        Token::Float(n) => (Operand::Literal(Value::from(*n)), rest),
        Token::Word(word) => match word.as_str() {
            "true" => (Operand::Literal(Value::Bool(true)), rest),
            "false" => (Operand::Literal(Value::Bool(false)), rest),
            "nil" => (Operand::Literal(Value::Null), rest),
            _ => (Operand::Function(word.clone()), rest),
        },
        Token::Field(_) => {
            let (fields, rest) = chain(tokens);
            (Operand::Fields(fields), rest)
        }
        Token::Variable(name) => {
            let (fields, rest) = chain(rest);
            (Operand::Variable(name.clone(), fields), rest)
        }
        Token::Open => {
            let mut nesting = 1_usize;
            let close = rest.iter().position(|token| {
                match token {
                    Token::Open => nesting += 1,
                    Token::Close => nesting -= 1,
                    _ => {}
                }
                nesting == 0
            });
            let Some(close) = close else {
                return fail("unclosed left paren");
            };
            let (inner, after) = rest.split_at(close);
            let (fields, after) = chain(after.get(1..).unwrap_or_default());
            (Operand::Group(pipeline(inner, depth + 1)?, fields), after)
        }
        token => return fail(format!("unexpected {token:?} in operand")),
    })
}

/// Fields without space between them.
fn chain(tokens: &[Token]) -> (Vec<String>, &[Token]) {
    let len = tokens.iter().take_while(|t| matches!(t, Token::Field(_))).count();
    let (fields, rest) = tokens.split_at(len);
    let names = fields
        .iter()
        .filter_map(|t| match t {
            Token::Field(name) if !name.is_empty() => Some(name.clone()),
            _ => None,
        })
        .collect();
    (names, rest)
}
