//! The only place that prints.
//!
//! A reader that goes away (`hivemind … | head`) is no failure, so nothing here panics on a closed pipe. Results that are lost
//! otherwise, on a full disk, are one: [`lost`] tells at the end.
//!
//! What goes to a terminal loses its control characters and escape sequences ([`terminal`](crate::terminal)), answers
//! included. What goes to a file or a program is passed on as it is: a program may want exactly what the model wrote.

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use crate::terminal::Plain;

/// A line of result.
pub(crate) fn line(text: impl std::fmt::Display) {
    let stdout = std::io::stdout();
    let written = if stdout.is_terminal() {
        writeln!(&stdout, "{}", Plain::new().pass(&text.to_string()))
    } else {
        writeln!(&stdout, "{text}")
    };
    keep(written);
}

/// Where the last piece left off: an escape sequence may go on in the next.
static PIECES: Mutex<Plain> = Mutex::new(Plain::new());

/// A piece of an answer, shown at once.
pub(crate) fn piece(text: &str) {
    let mut stdout = std::io::stdout();
    let written = if stdout.is_terminal() {
        let plain = PIECES.lock().unwrap_or_else(PoisonError::into_inner).pass(text);
        stdout.write_all(plain.as_bytes())
    } else {
        stdout.write_all(text.as_bytes())
    };
    keep(written.and_then(|()| stdout.flush()));
}

/// An empty line between two turns on a terminal. A file gets answers only.
pub(crate) fn space() {
    if std::io::stdout().is_terminal() {
        piece("\n");
    }
}

/// Why results were lost, if some were.
static LOST: Mutex<Option<std::io::Error>> = Mutex::new(None);

fn keep(written: std::io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        LOST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Writes what is left, and says why results were lost, if some were.
pub(crate) fn lost() -> Option<std::io::Error> {
    keep(std::io::stdout().flush());
    LOST.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// That results were lost, in words.
pub(crate) fn is_lost(error: &std::io::Error) -> String {
    format!("cannot write the output: {error}")
}

/// A remark beside the result.
pub(crate) fn note(text: impl std::fmt::Display) {
    let stderr = std::io::stderr();
    let _ = if stderr.is_terminal() {
        writeln!(&stderr, "{}", Plain::new().pass(&text.to_string()))
    } else {
        writeln!(&stderr, "{text}")
    };
}

/// What went wrong.
pub(crate) fn error(text: impl std::fmt::Display) {
    note(format_args!("error: {text}"));
}

/// What its owner should know, though it works.
pub(crate) fn warning(text: impl std::fmt::Display) {
    note(format_args!("warning: {text}"));
}

/// What to do about it.
pub(crate) fn hint(text: impl std::fmt::Display) {
    note(format_args!("hint: {text}"));
}

/// Progress of something long, on one line of a terminal; nothing where there is no terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    of: usize,
    unit: &'static str,
    shown: bool,
}

impl Progress {
    pub(crate) fn new(what: impl Into<String>, of: usize, unit: &'static str) -> Self {
        let what = Plain::new().pass(&what.into());
        Self { what, of, unit, shown: std::io::stderr().is_terminal() }
    }

    pub(crate) fn set(&mut self, done: usize) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r{} {done} of {} {}", self.what, self.of, self.unit);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// Bytes for people.
pub(crate) fn megabytes(bytes: u64) -> String {
    if bytes >= 1_000_000_000 {
        format!("{:.1} GB", bytes as f64 / 1e9)
    } else {
        format!("{:.1} MB", bytes as f64 / 1e6)
    }
}
