//! Composer's order: a version is brought to four numbers and a stability, then compared as PHP's
//! `version_compare` does.

use std::cmp::Ordering;

use super::{numbers, take_while};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(u8),
    Number(Vec<u8>),
}

const DEV: u8 = 0;
const ALPHA: u8 = 1;
const BETA: u8 = 2;
const CANDIDATE: u8 = 3;
const STABLE: u8 = 4;
const PATCH: u8 = 6;

impl Token {
    /// dev < alpha < beta < RC < the end < numbers < patch.
    fn class(token: Option<&Self>) -> u8 {
        match token {
            None => STABLE,
            Some(Self::Number(_)) => STABLE + 1,
            Some(Self::Word(rank)) => *rank,
        }
    }
}

/// A branch's name (`dev-main`) compares with nothing.
pub(super) fn is_version(version: &str) -> bool {
    normalise(version).is_some()
}

pub(super) fn compare(a: &str, b: &str) -> Ordering {
    match (normalise(a), normalise(b)) {
        (Some(a), Some(b)) => {
            for at in 0..=a.len().max(b.len()) {
                let (a, b) = (a.get(at), b.get(at));
                let order = Token::class(a).cmp(&Token::class(b)).then_with(|| match (a, b) {
                    (Some(Token::Number(a)), Some(Token::Number(b))) => numbers(a, b),
                    _ => Ordering::Equal,
                });
                if order != Ordering::Equal {
                    return order;
                }
            }
            Ordering::Equal
        }
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => a.cmp(b),
    }
}

fn normalise(version: &str) -> Option<Vec<Token>> {
    let version = version.trim();
    // `1.0.x-dev as 1.0.0`, `1.0@beta`, `dev-main#0a1b2c`, `1.0+build`.
    let version = version.split(" as ").next().unwrap_or(version);
    let version =
        version.split(['@', '#', '+', ' ']).next().unwrap_or(version).to_ascii_lowercase();
    if version.starts_with("dev-") {
        return None;
    }
    if let Some(branch) =
        version.strip_suffix("-dev").and_then(|v| branch_numbers(v.trim_start_matches('v')))
    {
        let mut tokens: Vec<Token> = branch.into_iter().map(Token::Number).collect();
        tokens.push(Token::Word(DEV));
        return Some(tokens);
    }
    let mut rest = version.strip_prefix('v').unwrap_or(&version).as_bytes();
    let mut tokens = Vec::new();
    // Four numbers at most; more, or a first number of more than five digits, is a date.
    loop {
        let (digits, after) = take_while(rest, |c| c.is_ascii_digit());
        if digits.is_empty() {
            break;
        }
        tokens.push(Token::Number(digits.to_vec()));
        rest = after;
        match rest.split_first() {
            Some((b'.' | b'-' | b':', next)) if next.first().is_some_and(u8::is_ascii_digit) => {
                rest = next
            }
            _ => break,
        }
    }
    let dated = matches!(tokens.first(), Some(Token::Number(first)) if first.len() > 5);
    if tokens.is_empty() {
        return None;
    }
    while !dated && tokens.len() < 4 {
        tokens.push(Token::Number(b"0".to_vec()));
    }
    suffix(rest, &mut tokens)?;
    Some(tokens)
}

/// `[._-]?(stable|beta|b|rc|alpha|a|patch|pl|p)(numbers)? [.-]?dev?`.
fn suffix(rest: &[u8], tokens: &mut Vec<Token>) -> Option<()> {
    let mut rest = without_separator(rest);
    let (word, after) = take_while(rest, |c| c.is_ascii_alphabetic());
    let rank = match word {
        b"stable" => Some(STABLE),
        b"beta" | b"b" => Some(BETA),
        b"rc" => Some(CANDIDATE),
        b"alpha" | b"a" => Some(ALPHA),
        b"patch" | b"pl" | b"p" => Some(PATCH),
        _ => None,
    };
    if let Some(rank) = rank {
        rest = after;
        let mut numbered = Vec::new();
        loop {
            let (digits, after) = take_while(without_separator(rest), |c| c.is_ascii_digit());
            if digits.is_empty() {
                break;
            }
            numbered.push(Token::Number(digits.to_vec()));
            rest = after;
        }
        if rank != STABLE {
            tokens.push(Token::Word(rank));
            tokens.append(&mut numbered);
        }
        rest = without_separator(rest);
    }
    match rest {
        b"" => Some(()),
        b"dev" => {
            tokens.push(Token::Word(DEV));
            Some(())
        }
        _ => None,
    }
}

/// `1.x`, `1.2.*`: the numbers of a branch, the open ones as high as can be.
fn branch_numbers(version: &str) -> Option<Vec<Vec<u8>>> {
    if !version.split('.').any(|part| matches!(part, "x" | "*")) {
        return None;
    }
    let mut parts = Vec::new();
    for part in version.split('.').chain(std::iter::repeat("x")).take(4) {
        match part {
            "x" | "*" => parts.push(b"9999999".to_vec()),
            digits if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                parts.push(digits.as_bytes().to_vec());
            }
            _ => return None,
        }
    }
    Some(parts)
}

fn without_separator(rest: &[u8]) -> &[u8] {
    match rest.split_first() {
        Some((b'.' | b'_' | b'-', after)) => after,
        _ => rest,
    }
}
