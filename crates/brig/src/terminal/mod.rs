//! The terminal: raw mode that is always undone, its size, stdin without a thread, stdout that
//! does not hold up the rest.

pub(crate) mod detach;
pub(crate) mod secret;
pub(crate) mod stdin;
pub(crate) mod writer;

use std::os::fd::AsFd;

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use crate::error::{Error, Result};

/// Whether stdin is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    isatty(std::io::stdin())
}

/// Whether stdout is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    isatty(std::io::stdout())
}

/// Height and width of the terminal on stdout; zeroes when it is none.
pub(crate) fn size() -> [u32; 2] {
    tcgetwinsize(std::io::stdout())
        .map(|size| [size.ws_row.into(), size.ws_col.into()])
        .unwrap_or_default()
}

/// A terminal in raw mode, put back when dropped.
#[derive(Debug)]
pub(crate) struct RawMode {
    /// `None` when stdin is no terminal.
    saved: Option<Termios>,
}

impl RawMode {
    /// Puts stdin into raw mode if it is a terminal.
    pub(crate) fn enter() -> Result<Self> {
        let stdin = std::io::stdin();
        if !isatty(&stdin) {
            return Ok(Self { saved: None });
        }
        let failed = |e: rustix::io::Errno| Error::io("setting the terminal to raw mode", e.into());
        let saved = tcgetattr(&stdin).map_err(failed)?;
        let mut raw = saved.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self { saved: Some(saved) })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            // There is nobody left to tell.
            let _ = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Now, saved);
        }
    }
}

/// Turns echo off while a password is typed, and on again when dropped.
#[derive(Debug)]
pub(crate) struct NoEcho(Option<Termios>);

impl NoEcho {
    /// Turns echo off if stdin is a terminal.
    pub(crate) fn enter() -> Self {
        use rustix::termios::LocalModes;
        let stdin = std::io::stdin();
        let Ok(saved) = tcgetattr(&stdin) else {
            return Self(None);
        };
        let mut silent = saved.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        match tcsetattr(&stdin, OptionalActions::Flush, &silent) {
            Ok(()) => Self(Some(saved)),
            Err(_) => Self(None),
        }
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        if let Some(saved) = &self.0 {
            let _ = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Now, saved);
        }
    }
}
