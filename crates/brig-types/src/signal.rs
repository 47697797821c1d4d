//! Signals by the names and numbers that docker accepts (`KILL`, `SIGKILL`, `9`, `RTMIN+3`).

use std::fmt;

/// A Linux signal number, 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(u8);

/// Not the name or number of a signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid signal: {0}")]
pub struct InvalidSignal(String);

// signal(7), x86-64 and arm64 numbers.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

impl Signal {
    /// SIGHUP.
    pub const HUP: Self = Self(1);
    /// SIGKILL.
    pub const KILL: Self = Self(9);
    /// SIGTERM.
    pub const TERM: Self = Self(15);

    /// Reads a signal's name, with or without `SIG`, in any case, or its number.
    ///
    /// # Errors
    /// [`InvalidSignal`] when there is no such signal.
    pub fn parse(text: &str) -> Result<Self, InvalidSignal> {
        let invalid = || InvalidSignal(text.chars().take(40).collect());
        if let Ok(number) = text.parse::<u8>() {
            return if (1..=RTMAX).contains(&number) { Ok(Self(number)) } else { Err(invalid()) };
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let real_time = |offset: &str, base: u8, up: bool| -> Option<u8> {
            let n: u8 = if offset.is_empty() { 0 } else { offset.get(1..)?.parse().ok()? };
            let number = if up { base.checked_add(n)? } else { base.checked_sub(n)? };
            (RTMIN..=RTMAX).contains(&number).then_some(number)
        };
        if let Some(rest) = name.strip_prefix("RTMIN")
            && (rest.is_empty() || rest.starts_with('+'))
        {
            return real_time(rest, RTMIN, true).map(Self).ok_or_else(invalid);
        }
        if let Some(rest) = name.strip_prefix("RTMAX")
            && (rest.is_empty() || rest.starts_with('-'))
        {
            return real_time(rest, RTMAX, false).map(Self).ok_or_else(invalid);
        }
        let alias = match name {
            "IOT" => "ABRT",
            "CLD" => "CHLD",
            "POLL" => "IO",
            other => other,
        };
        NAMES
            .iter()
            .position(|known| *known == alias)
            .and_then(|index| u8::try_from(index + 1).ok())
            .map(Self)
            .ok_or_else(invalid)
    }

    /// The signal's number.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0 as i32
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0).saturating_sub(1)) {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_read() {
        for (text, number) in [
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("9", 9),
            ("HUP", 1),
            ("WINCH", 28),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(Signal::parse(text).unwrap().number(), number, "{text}");
        }
        for text in ["", "FOO", "0", "65", "-1", "RTMIN+31", "RTMIN-1", "SIG"] {
            assert!(Signal::parse(text).is_err(), "{text}");
        }
    }
}
