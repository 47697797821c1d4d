//! Go's `path.Match`, which the `reference` filter of images uses.

/// Whether `text` as a whole matches `pattern`: `*` for any run without a slash, `?` for one such
/// character, `[a-z]` and `[^a-z]` for one of a set, `\` before a character that means itself.
///
/// A malformed pattern matches nothing.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // For each position of the text: can the pattern so far end there? Linear, whatever the
    // pattern.
    let mut reachable = vec![false; text.len() + 1];
    if let Some(start) = reachable.first_mut() {
        *start = true;
    }
    let mut rest = pattern.as_slice();
    while let Some((token, after)) = next_token(rest) {
        rest = after;
        let mut next = vec![false; reachable.len()];
        let mut run = false;
        for (at, slot) in next.iter_mut().enumerate() {
            let here = reachable.get(at).copied().unwrap_or(false);
            let before = at.checked_sub(1).and_then(|i| text.get(i)).copied();
            *slot = match &token {
                Token::Any => {
                    run = here || (run && before.is_some_and(|c| c != '/'));
                    run
                }
                Token::Malformed => return false,
                one => {
                    let came = at.checked_sub(1).and_then(|i| reachable.get(i)).copied();
                    came.unwrap_or(false) && before.is_some_and(|c| one.takes(c))
                }
            };
        }
        reachable = next;
    }
    reachable.last().copied().unwrap_or(false)
}

enum Token {
    Any,
    One,
    Literal(char),
    Set { negated: bool, ranges: Vec<(char, char)> },
    Malformed,
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::One => c != '/',
            Self::Literal(literal) => *literal == c,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
            Self::Any | Self::Malformed => false,
        }
    }
}

fn next_token(pattern: &[char]) -> Option<(Token, &[char])> {
    let (first, rest) = pattern.split_first()?;
    Some(match first {
        '*' => (Token::Any, rest),
        '?' => (Token::One, rest),
        '\\' => match rest.split_first() {
            Some((literal, rest)) => (Token::Literal(*literal), rest),
            None => (Token::Malformed, rest),
        },
        '[' => set(rest).unwrap_or((Token::Malformed, &[])),
        literal => (Token::Literal(*literal), rest),
    })
}

fn set(mut rest: &[char]) -> Option<(Token, &[char])> {
    let negated = rest.first() == Some(&'^');
    if negated {
        rest = rest.get(1..)?;
    }
    let mut ranges = Vec::new();
    loop {
        if rest.first() == Some(&']') && !ranges.is_empty() {
            return Some((Token::Set { negated, ranges }, rest.get(1..)?));
        }
        let (low, after) = set_character(rest)?;
        rest = after;
        let mut high = low;
        if rest.first() == Some(&'-') {
            (high, rest) = set_character(rest.get(1..)?)?;
        }
        ranges.push((low, high));
    }
}

fn set_character(rest: &[char]) -> Option<(char, &[char])> {
    let (first, after) = rest.split_first()?;
    match first {
        '-' | ']' => None,
        '\\' => after.split_first().map(|(literal, after)| (*literal, after)),
        plain => Some((*plain, after)),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_are_gos() {
        for (pattern, text, expected) in [
            ("busybox", "busybox", true),
            ("busybox", "busybox:1", false),
            ("busy*", "busybox:1", true),
            ("*", "team/app", false),
            ("*/*", "team/app:1", true),
            ("team/*:1", "team/app:1", true),
            ("b?sybox", "busybox", true),
            ("b?x", "b/x", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[]x", "]x", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("a\\", "a", false),
            ("", "", true),
            ("*a*b*c", "xaybzc", true),
            ("*a*b*c", "xaybz", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn hostile_patterns_take_no_time() {
        let pattern = "*a".repeat(200);
        assert!(!matches(&pattern, &"a".repeat(150)));
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(pattern in "\\PC{0,20}", text in "\\PC{0,20}") {
            let _ = matches(&pattern, &text);
        }

        #[test]
        fn text_without_signs_matches_itself_only(a in "[a-z/:.]{0,8}", b in "[a-z/:.]{0,8}") {
            proptest::prop_assert_eq!(matches(&a, &b), a == b);
        }
    }
}
