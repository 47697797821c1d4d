//! Cuts a template into text and actions, and actions into tokens.

use super::{TemplateError, fail};

/// A piece of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Segment {
    /// Printed as it is.
    Text(String),
    /// The tokens between `{{` and `}}`.
    Action(Vec<Token>),
}

/// A piece of an action.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// `.`, or `.Name`; several in a row are a chain.
    Field(String),
    /// `$` or `$name`.
    Variable(String),
    /// A function's or keyword's name.
    Word(String),
    /// A quoted string.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// `|`
    Pipe,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `,`
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    /// White space, which ends a chain of fields.
    Space,
}

/// The most actions and text pieces of a template.
const MAX_SEGMENTS: usize = 10_000;

pub(super) fn segments(text: &str) -> Result<Vec<Segment>, TemplateError> {
    let mut segments = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    loop {
        if segments.len() > MAX_SEGMENTS {
            return fail("the template is too long");
        }
        let (before, action) = match rest.split_once("{{") {
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        let mut before = if trim_next { before.trim_start() } else { before };
        let Some(mut body) = action else {
            push_text(&mut segments, before);
            return Ok(segments);
        };
        if let Some(trimmed) = body.strip_prefix('-')
            && trimmed.starts_with(char::is_whitespace)
        {
            before = before.trim_end();
            body = trimmed;
        }
        push_text(&mut segments, before);
        let (tokens, after) = action_tokens(body)?;
        (rest, trim_next) = after;
        // A comment has no tokens.
        segments.extend(tokens.map(Segment::Action));
    }
}

fn push_text(segments: &mut Vec<Segment>, text: &str) {
    if !text.is_empty() {
        segments.push(Segment::Text(text.to_owned()));
    }
}

/// What follows an action, and whether its leading white space is cut.
type After<'a> = (&'a str, bool);

/// The tokens up to the end of the action; `None` for a comment.
fn action_tokens(body: &str) -> Result<(Option<Vec<Token>>, After<'_>), TemplateError> {
    if let Some(comment) = body.trim_start().strip_prefix("/*") {
        let Some((_, after)) = comment.split_once("*/") else {
            return fail("unclosed comment");
        };
        let after = after.trim_start();
        return match after
            .strip_prefix("}}")
            .map(|a| (a, false))
            .or_else(|| after.strip_prefix("-}}").map(|a| (a, true)))
        {
            Some(after) => Ok((None, after)),
            None => fail("comment ends before closing delimiter"),
        };
    }
    let mut tokens = Vec::new();
    let mut rest = body;
    loop {
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((Some(tokens), (after, false)));
        }
        let Some(c) = rest.chars().next() else {
            return fail("unclosed action");
        };
        if c.is_whitespace() {
            let trimmed = rest.trim_start();
            if let Some(after) = trimmed.strip_prefix("-}}") {
                return Ok((Some(tokens), (after, true)));
            }
            tokens.push(Token::Space);
            rest = trimmed;
            continue;
        }
        let (token, after) = token(rest, c)?;
        tokens.push(token);
        rest = after;
    }
}

fn token(rest: &str, first: char) -> Result<(Token, &str), TemplateError> {
    let single = |token| Ok((token, rest.get(1..).unwrap_or_default()));
    match first {
        '|' => single(Token::Pipe),
        '(' => single(Token::Open),
        ')' => single(Token::Close),
        ',' => single(Token::Comma),
        '=' => single(Token::Assign),
        ':' => match rest.strip_prefix(":=") {
            Some(after) => Ok((Token::Declare, after)),
            None => fail("expected :="),
        },
        '.' => {
            let (name, after) = name(rest.get(1..).unwrap_or_default());
            Ok((Token::Field(name.to_owned()), after))
        }
        '$' => {
            let (name, after) = name(rest.get(1..).unwrap_or_default());
            Ok((Token::Variable(name.to_owned()), after))
        }
        '`' => match rest.get(1..).unwrap_or_default().split_once('`') {
            Some((text, after)) => Ok((Token::Text(text.to_owned()), after)),
            None => fail("unterminated raw quoted string"),
        },
        '"' => quoted(rest.get(1..).unwrap_or_default()),
        c if c.is_ascii_digit() || matches!(c, '-' | '+') => number(rest),
        c if c.is_alphabetic() || c == '_' => {
            let (word, after) = name(rest);
            Ok((Token::Word(word.to_owned()), after))
        }
        c => fail(format!("unexpected {c:?} in command")),
    }
}

fn name(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    text.split_at(end)
}

fn number(text: &str) -> Result<(Token, &str), TemplateError> {
    let end = text
        .char_indices()
        .skip(1)
        .find(|(_, c)| !(c.is_ascii_alphanumeric() || *c == '.'))
        .map_or(text.len(), |(at, _)| at);
    let (digits, after) = text.split_at(end);
    if let Ok(integer) = digits.parse() {
        Ok((Token::Integer(integer), after))
    } else if let Ok(float) = digits.parse::<f64>() {
        Ok((Token::Float(float), after))
    } else {
        fail(format!("bad number syntax: {digits:?}"))
    }
}

fn quoted(text: &str) -> Result<(Token, &str), TemplateError> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Text(value), text.get(at + 1..).unwrap_or_default())),
            '\n' => break,
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, c @ ('"' | '\\' | '\''))) => value.push(c),
                Some((_, c)) => return fail(format!("unknown escape sequence \\{c}")),
                None => break,
            },
            c => value.push(c),
        }
    }
    fail("unterminated quoted string")
}
