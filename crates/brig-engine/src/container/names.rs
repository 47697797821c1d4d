//! Names for containers that were given none: an adjective and a ship's word.

use brig_types::id::random_hex;

const ADJECTIVES: [&str; 64] = [
    "able", "agile", "amber", "ample", "apt", "blithe", "bold", "brave", "bright", "brisk", "calm",
    "candid", "clear", "clever", "cosy", "crisp", "daring", "deft", "eager", "early", "fair",
    "fast", "fine", "firm", "fond", "frank", "fresh", "gentle", "glad", "golden", "grand", "hale",
    "happy", "hardy", "honest", "jolly", "keen", "kind", "lively", "loyal", "lucid", "merry",
    "mild", "neat", "noble", "patient", "plucky", "proud", "quick", "quiet", "ready", "robust",
    "serene", "sharp", "sleek", "smart", "snug", "sound", "spry", "steady", "sunny", "swift",
    "tidy", "warm",
];

const SURNAMES: [&str; 64] = [
    "amundsen",
    "anson",
    "baffin",
    "baudin",
    "bellingshausen",
    "bering",
    "blackburn",
    "bougainville",
    "bowditch",
    "cabot",
    "cabral",
    "cartier",
    "chichester",
    "cook",
    "cousteau",
    "dampier",
    "davis",
    "dezhnev",
    "diaz",
    "drake",
    "elcano",
    "erikson",
    "fitzroy",
    "flinders",
    "franklin",
    "frobisher",
    "gama",
    "gilbert",
    "hanno",
    "harrison",
    "hudson",
    "ibnmajid",
    "janszoon",
    "joyon",
    "knoxjohnston",
    "lomonosov",
    "macarthur",
    "magellan",
    "malaspina",
    "maury",
    "mcclure",
    "mercator",
    "moitessier",
    "nansen",
    "nordenskiold",
    "orellana",
    "parry",
    "piccard",
    "pytheas",
    "quiros",
    "rackham",
    "raleigh",
    "ross",
    "scoresby",
    "shackleton",
    "slocum",
    "tabarly",
    "tasman",
    "tupaia",
    "vancouver",
    "vespucci",
    "weddell",
    "wilkes",
    "zhenghe",
];

/// A random name; `attempt` beyond the first few adds digits so that a free one is found.
#[must_use]
pub fn random_name(attempt: u32) -> String {
    let random = random_hex();
    let number =
        random.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0);
    let pick = |words: &[&'static str; 64], bits: u32| {
        words.get((bits & 63) as usize).copied().unwrap_or("brig")
    };
    let name = format!("{}_{}", pick(&ADJECTIVES, number), pick(&SURNAMES, number >> 6));
    if attempt < 4 {
        name
    } else {
        format!("{name}{}", (number >> 12) % 10_u32.pow(attempt.min(8) - 3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_valid_and_vary() {
        let names: std::collections::BTreeSet<String> = (0..50).map(random_name).collect();
        assert!(names.len() > 25);
        for name in &names {
            assert!(brig_types::name::container_name(name).is_ok(), "{name}");
        }
    }
}
