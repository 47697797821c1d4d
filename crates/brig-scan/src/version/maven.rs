//! Maven's `ComparableVersion` (3.8 and later 3.x): nested lists of numbers and words, split at
//! dots, dashes and where digits meet letters; what says nothing at an end is dropped.

use std::cmp::Ordering;

use super::{numbers, take_while};

/// Longer versions are compared by their beginning: every dash nests one level deeper.
const MAX_LENGTH: usize = 512;

/// Known words, oldest first; the empty word is the release itself.
const QUALIFIERS: [&[u8]; 7] = [b"alpha", b"beta", b"milestone", b"rc", b"snapshot", b"", b"sp"];
const RELEASE: usize = 5;

#[derive(Debug)]
enum Item {
    Number(Vec<u8>),
    Word(Vec<u8>),
    List(Vec<Item>),
}

pub(super) fn compare(a: &str, b: &str) -> Ordering {
    lists(&parse(a), &parse(b))
}

impl Item {
    fn says_nothing(&self) -> bool {
        match self {
            Self::Number(digits) => numbers(digits, b"").is_eq(),
            Self::Word(word) => rank(word) == RELEASE,
            Self::List(items) => items.is_empty(),
        }
    }

    fn word(text: &[u8], before_digit: bool) -> Self {
        let full: &[u8] = match text {
            b"a" if before_digit => b"alpha",
            b"b" if before_digit => b"beta",
            b"m" if before_digit => b"milestone",
            b"ga" | b"final" | b"release" => b"",
            b"cr" => b"rc",
            text => text,
        };
        Self::Word(full.to_vec())
    }
}

fn rank(word: &[u8]) -> usize {
    QUALIFIERS.iter().position(|known| *known == word).unwrap_or(QUALIFIERS.len())
}

fn items(a: &Item, b: Option<&Item>) -> Ordering {
    match (a, b) {
        (Item::Number(a), None) => numbers(a, b""),
        (Item::Number(a), Some(Item::Number(b))) => numbers(a, b),
        // 1.1 is after 1-sp and after 1-1.
        (Item::Number(_), Some(_)) => Ordering::Greater,
        (Item::Word(a), None) => rank(a).cmp(&RELEASE),
        (Item::Word(a), Some(Item::Word(b))) => rank(a)
            .cmp(&rank(b))
            .then_with(|| if rank(a) == QUALIFIERS.len() { a.cmp(b) } else { Ordering::Equal }),
        (Item::Word(_), Some(_)) => Ordering::Less,
        (Item::List(a), None) => a
            .iter()
            .map(|item| items(item, None))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal),
        (Item::List(_), Some(Item::Number(_))) => Ordering::Less,
        (Item::List(_), Some(Item::Word(_))) => Ordering::Greater,
        (Item::List(a), Some(Item::List(b))) => lists(a, b),
    }
}

fn lists(a: &[Item], b: &[Item]) -> Ordering {
    for at in 0..a.len().max(b.len()) {
        let order = match (a.get(at), b.get(at)) {
            (Some(a), b) => items(a, b),
            (None, Some(b)) => items(b, None).reverse(),
            (None, None) => Ordering::Equal,
        };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn parse(version: &str) -> Vec<Item> {
    let text = version.trim().to_ascii_lowercase();
    let bytes = text.as_bytes().get(..MAX_LENGTH).unwrap_or(text.as_bytes());
    // The innermost list is the last; each becomes the last item of the one before it.
    let mut open: Vec<Vec<Item>> = vec![Vec::new()];
    let mut rest = bytes;
    let mut at_start = true;
    while let Some((&first, after)) = rest.split_first() {
        if matches!(first, b'.' | b'-') {
            if at_start {
                put(&mut open, Item::Number(Vec::new()));
            }
            if first == b'-' {
                open.push(Vec::new());
            }
            rest = after;
            at_start = true;
            continue;
        }
        let digits = first.is_ascii_digit();
        let (run, end) =
            take_while(rest, |c| c.is_ascii_digit() == digits && !matches!(c, b'.' | b'-'));
        let meets_other = end.first().is_some_and(|c| !matches!(c, b'.' | b'-'));
        if digits {
            put(&mut open, Item::Number(run.to_vec()));
        } else {
            let ends = end.is_empty();
            // `1.0.x1` and `1.0.x` read as `1.0-x1` and `1.0-x`.
            if (meets_other || ends) && open.last().is_some_and(|list| !list.is_empty()) {
                open.push(Vec::new());
            }
            put(&mut open, Item::word(run, meets_other));
        }
        if meets_other {
            open.push(Vec::new());
        }
        at_start = false;
        rest = end;
    }
    let mut inner: Option<Vec<Item>> = None;
    while let Some(mut list) = open.pop() {
        if let Some(inner) = inner.take() {
            list.push(Item::List(inner));
        }
        normalise(&mut list);
        inner = Some(list);
    }
    inner.unwrap_or_default()
}

fn put(open: &mut [Vec<Item>], item: Item) {
    if let Some(list) = open.last_mut() {
        list.push(item);
    }
}

/// Drops what says nothing from the end, looking through the lists that stand there.
fn normalise(list: &mut Vec<Item>) {
    let mut at = list.len();
    while at > 0 {
        at -= 1;
        match list.get(at) {
            Some(item) if item.says_nothing() => {
                list.remove(at);
            }
            Some(Item::List(_)) => {}
            _ => break,
        }
    }
}
