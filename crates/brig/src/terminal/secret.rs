//! Asking for what must not be seen: keys and passphrases, typed or piped in, never an argument.

use std::io::{BufRead as _, Read as _};

use brig_api::data::SecretText;

use super::{NoEcho, stdin_is_terminal};
use crate::error::{Error, Result};

/// The longest line that is read, in bytes.
const MAX_LINE: u64 = 4096;

/// Asks on the terminal without showing what is typed; without a terminal the first line of stdin.
pub(crate) fn ask(prompt: &str) -> Result<SecretText> {
    if stdin_is_terminal() {
        let silent = NoEcho::enter();
        let answer = crate::output::prompt(prompt);
        drop(silent);
        crate::output::line("")?;
        return answer.map(|text| trimmed(SecretText::from(text)));
    }
    // Grown once: no copies are left behind.
    let mut line = String::with_capacity(MAX_LINE as usize);
    let read = std::io::stdin().lock().take(MAX_LINE).read_line(&mut line);
    let line = SecretText::from(line);
    read.map_err(|source| Error::io("reading from stdin", source))?;
    Ok(trimmed(line))
}

fn trimmed(text: SecretText) -> SecretText {
    SecretText::from(text.expose_secret().trim().to_owned())
}
