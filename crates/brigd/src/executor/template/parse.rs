//! Cuts a text into what stands as it is and what is to be filled in (Go's `text/template`).

use super::TemplateError;

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Action(Action),
}

/// What stands between braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Value(Argument),
    Call { function: String, arguments: Vec<Argument> },
}

/// An operand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Argument {
    /// A path without its leading dot.
    Field(String),
    Text(String),
}

const KEYWORDS: [&str; 10] =
    ["if", "else", "end", "range", "with", "define", "template", "block", "break", "continue"];
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// Cuts a text into pieces.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece<'_>>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    while let Some((before, after)) = rest.split_once("{{") {
        let (after, trim_before) = match after.strip_prefix('-') {
            Some(inner) if inner.starts_with(SPACE) => (inner, true),
            _ => (after, false),
        };
        push_text(&mut pieces, before, trim_next, trim_before);
        let (action, remainder, trim_after) = action(after)?;
        pieces.extend(action.map(Piece::Action));
        trim_next = trim_after;
        rest = remainder;
    }
    push_text(&mut pieces, rest, trim_next, false);
    Ok(pieces)
}

fn push_text<'a>(pieces: &mut Vec<Piece<'a>>, text: &'a str, start: bool, end: bool) {
    let text = if start { text.trim_start_matches(SPACE) } else { text };
    let text = if end { text.trim_end_matches(SPACE) } else { text };
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
}

type Parsed<'a> = (Option<Action>, &'a str, bool);

/// Reads up to and with the closing braces; a comment is no action.
fn action(text: &str) -> Result<Parsed<'_>, TemplateError> {
    let inner = text.trim_start_matches(SPACE);
    if let Some(comment) = inner.strip_prefix("/*") {
        let (_, after) =
            comment.split_once("*/").ok_or_else(|| TemplateError::new("unclosed comment"))?;
        let (after, trim) = closing(after)
            .ok_or_else(|| TemplateError::new("comment ends before closing delimiter"))?;
        return Ok((None, after, trim));
    }
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        if let Some((after, trim)) = closing(rest) {
            return Ok((Some(assemble(words)?), after, trim));
        }
        rest = rest.trim_start_matches(SPACE);
        let (word, after) = word(rest)?;
        words.push(word);
        rest = after;
    }
}

/// The closing braces with the white space before them, and whether they trim.
fn closing(text: &str) -> Option<(&str, bool)> {
    let trimmed = text.trim_start_matches(SPACE);
    if let Some(after) = trimmed.strip_prefix("}}") {
        return Some((after, false));
    }
    let spaced = trimmed.len() < text.len();
    trimmed.strip_prefix("-}}").filter(|_| spaced).map(|after| (after, true))
}

enum Word {
    Argument(Argument),
    Name(String),
}

fn word(text: &str) -> Result<(Word, &str), TemplateError> {
    let mut chars = text.chars();
    match chars.next() {
        None => Err(TemplateError::new("unclosed action")),
        Some('"') => {
            let (string, rest) = quoted(chars.as_str())?;
            Ok((Word::Argument(Argument::Text(string)), rest))
        }
        Some('`') => {
            let (string, rest) = chars
                .as_str()
                .split_once('`')
                .ok_or_else(|| TemplateError::new("unterminated raw quoted string"))?;
            Ok((Word::Argument(Argument::Text(string.to_owned())), rest))
        }
        Some('.') => {
            let end = chars
                .as_str()
                .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.')))
                .unwrap_or(chars.as_str().len());
            let (path, rest) = chars.as_str().split_at(end);
            if path.is_empty() || path.split('.').any(str::is_empty) {
                return Err(TemplateError::new("a field's name is missing"));
            }
            Ok((Word::Argument(Argument::Field(path.to_owned())), rest))
        }
        Some(first) if first.is_alphabetic() || first == '_' => {
            let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
            let (name, rest) = text.split_at(end);
            if KEYWORDS.contains(&name) {
                return Err(TemplateError::new(format!("{name:?} is not supported")));
            }
            Ok((Word::Name(name.to_owned()), rest))
        }
        Some(other) => Err(TemplateError::new(format!("unexpected {other:?} in action"))),
    }
}

/// Reads an interpreted string after its opening quote.
fn quoted(text: &str) -> Result<(String, &str), TemplateError> {
    let unterminated = || TemplateError::new("unterminated quoted string");
    let mut string = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next().ok_or_else(unterminated)? {
            '"' => return Ok((string, chars.as_str())),
            '\n' => return Err(unterminated()),
            '\\' => match chars.next().ok_or_else(unterminated)? {
                'n' => string.push('\n'),
                't' => string.push('\t'),
                'r' => string.push('\r'),
                same @ ('\\' | '"' | '\'') => string.push(same),
                other => {
                    return Err(TemplateError::new(format!("unknown escape \\{other}")));
                }
            },
            other => string.push(other),
        }
    }
}

fn assemble(words: Vec<Word>) -> Result<Action, TemplateError> {
    let mut words = words.into_iter();
    let first = words.next().ok_or_else(|| TemplateError::new("missing value for command"))?;
    let arguments = words
        .map(|word| match word {
            Word::Argument(argument) => Ok(argument),
            Word::Name(name) => Err(TemplateError::new(format!("unexpected {name:?} in action"))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    match first {
        Word::Name(function) => Ok(Action::Call { function, arguments }),
        Word::Argument(argument) if arguments.is_empty() => Ok(Action::Value(argument)),
        Word::Argument(_) => Err(TemplateError::new("can't give arguments to a value")),
    }
}
