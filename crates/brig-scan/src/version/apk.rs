//! Alpine's order, as apk-tools 3 has it:
//! `digits(.digits)*[letter][digits]{_suffix[digits]}[~hash][-rN]`.
//!
//! apk refuses digits after the letter (`1.9.5p2-r1`), yet advisories hold such versions; they and
//! any other leftover have a place here too.

use std::cmp::Ordering;

use super::{dpkg, numbers, take_while};

/// One token; a later variant at the same place means an older version, as fewer parts do.
#[derive(Debug, Clone, Copy)]
enum Token<'a> {
    First(&'a [u8]),
    Digits(&'a [u8]),
    Letter(u8),
    LetterNumber(&'a [u8]),
    Suffix(u8),
    SuffixNumber(&'a [u8]),
    Hash(&'a [u8]),
    Revision(&'a [u8]),
    Leftover(&'a [u8]),
    End,
}

/// Where a suffix stands; below this it is a pre-release.
const RELEASE: u8 = 4;
const SUFFIXES: [(&[u8], u8); 9] = [
    (b"alpha", 0),
    (b"beta", 1),
    (b"pre", 2),
    (b"rc", 3),
    (b"cvs", 5),
    (b"svn", 6),
    (b"git", 7),
    (b"hg", 8),
    (b"p", 9),
];

impl Token<'_> {
    /// The grammar's order: a token may only follow one of a rank that is not higher.
    fn rank(self) -> u8 {
        match self {
            Self::First(_) => 0,
            Self::Digits(_) => 1,
            Self::Letter(_) => 2,
            Self::LetterNumber(_) => 3,
            Self::Suffix(_) => 4,
            Self::SuffixNumber(_) => 5,
            Self::Hash(_) => 6,
            Self::Revision(_) => 7,
            Self::Leftover(_) => 8,
            Self::End => 9,
        }
    }

    fn is_pre_release(self) -> bool {
        matches!(self, Self::Suffix(order) if order < RELEASE)
    }
}

pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (Tokens::new(a), Tokens::new(b));
    loop {
        let (token_a, token_b) = (a.next(), b.next());
        let order = match (token_a, token_b) {
            (Token::End, Token::End) => return Ordering::Equal,
            (Token::First(x), Token::First(y))
            | (Token::LetterNumber(x), Token::LetterNumber(y))
            | (Token::SuffixNumber(x), Token::SuffixNumber(y))
            | (Token::Revision(x), Token::Revision(y)) => numbers(x, y),
            // A part that starts with 0 is a fraction.
            (Token::Digits(x), Token::Digits(y)) if x.starts_with(b"0") || y.starts_with(b"0") => {
                x.cmp(y)
            }
            (Token::Digits(x), Token::Digits(y)) => numbers(x, y),
            (Token::Letter(x), Token::Letter(y)) | (Token::Suffix(x), Token::Suffix(y)) => {
                x.cmp(&y)
            }
            (Token::Hash(x), Token::Hash(y)) => x.cmp(y),
            (Token::Leftover(x), Token::Leftover(y)) => {
                return dpkg::parts(x, y);
            }
            // What does not start like a version is older than all that do.
            (Token::First(_), _) => Ordering::Greater,
            (_, Token::First(_)) => Ordering::Less,
            (x, _) if x.is_pre_release() => Ordering::Less,
            (_, y) if y.is_pre_release() => Ordering::Greater,
            (x, y) => y.rank().cmp(&x.rank()),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

struct Tokens<'a> {
    rest: &'a [u8],
    /// The rank of the last token; none before the first.
    last: Option<u8>,
}

impl<'a> Tokens<'a> {
    fn new(version: &'a str) -> Self {
        Self { rest: version.trim().as_bytes(), last: None }
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.read();
        self.last = Some(token.rank());
        token
    }

    fn read(&mut self) -> Token<'a> {
        let Some((&first, after)) = self.rest.split_first() else {
            return Token::End;
        };
        let Some(last) = self.last else {
            return match self.digits(self.rest) {
                Some(digits) => Token::First(digits),
                None => self.leftover(),
            };
        };
        let token = match first {
            b'.' if last <= 1 => self.digits(after).map(Token::Digits),
            b'a'..=b'z' if last <= 1 => {
                self.rest = after;
                Some(Token::Letter(first))
            }
            b'0'..=b'9' if last == 2 => self.digits(self.rest).map(Token::LetterNumber),
            b'0'..=b'9' if last == 4 => self.digits(self.rest).map(Token::SuffixNumber),
            b'_' if last <= 5 => self.suffix(after),
            b'~' if last < 6 => {
                let (hash, rest) = take_while(after, |c| c.is_ascii_hexdigit());
                (!hash.is_empty()).then(|| {
                    self.rest = rest;
                    Token::Hash(hash)
                })
            }
            b'-' if last < 7 => match after.strip_prefix(b"r") {
                Some(number) => self.digits(number).map(Token::Revision),
                None => None,
            },
            _ => None,
        };
        token.unwrap_or_else(|| self.leftover())
    }

    fn digits(&mut self, from: &'a [u8]) -> Option<&'a [u8]> {
        let (digits, rest) = take_while(from, |c| c.is_ascii_digit());
        (!digits.is_empty()).then(|| {
            self.rest = rest;
            digits
        })
    }

    fn suffix(&mut self, from: &'a [u8]) -> Option<Token<'a>> {
        let (word, rest) = take_while(from, |c| c.is_ascii_lowercase());
        let order = SUFFIXES.iter().find(|(name, _)| *name == word)?.1;
        self.rest = rest;
        Some(Token::Suffix(order))
    }

    fn leftover(&mut self) -> Token<'a> {
        Token::Leftover(std::mem::take(&mut self.rest))
    }
}
