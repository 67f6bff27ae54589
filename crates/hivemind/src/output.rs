//! All output of the command goes through this module.
//!
//! A reader that closes the pipe (`hivemind … | head`) is not an error, so nothing here panics on a closed pipe.
//! Results lost for another reason, such as a full disk, are an error: [`lost`] reports it at the end.
//!
//! On a terminal, control characters and escape sequences are removed ([`terminal`](crate::terminal)), also from
//! answers. Files and programs receive the text unchanged, since a program may want exactly what the model wrote.

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use crate::terminal::Plain;

/// Prints a line of the result.
pub(crate) fn line(text: impl std::fmt::Display) {
    let stdout = std::io::stdout();
    let written = if stdout.is_terminal() {
        writeln!(&stdout, "{}", Plain::new().pass(&text.to_string()))
    } else {
        writeln!(&stdout, "{text}")
    };
    keep(written);
}

/// Filter state of the last piece: an escape sequence may continue in the next.
static PIECES: Mutex<Plain> = Mutex::new(Plain::new());

/// Prints a piece of an answer at once.
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

/// Prints an empty line between two turns on a terminal; a file contains answers only.
pub(crate) fn space() {
    if std::io::stdout().is_terminal() {
        piece("\n");
    }
}

/// Why results were lost, if any were.
static LOST: Mutex<Option<std::io::Error>> = Mutex::new(None);

fn keep(written: std::io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        LOST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Flushes the output; returns why results were lost, if any were.
pub(crate) fn lost() -> Option<std::io::Error> {
    keep(std::io::stdout().flush());
    LOST.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The message for lost results.
pub(crate) fn is_lost(error: &std::io::Error) -> String {
    format!("cannot write the output: {error}")
}

/// Prints a remark to standard error.
pub(crate) fn note(text: impl std::fmt::Display) {
    let stderr = std::io::stderr();
    let _ = if stderr.is_terminal() {
        writeln!(&stderr, "{}", Plain::new().pass(&text.to_string()))
    } else {
        writeln!(&stderr, "{text}")
    };
}

/// Prints an error.
pub(crate) fn error(text: impl std::fmt::Display) {
    note(format_args!("error: {text}"));
}

/// Prints a warning about something that works but needs attention.
pub(crate) fn warning(text: impl std::fmt::Display) {
    note(format_args!("warning: {text}"));
}

/// Prints how to fix an error.
pub(crate) fn hint(text: impl std::fmt::Display) {
    note(format_args!("hint: {text}"));
}

/// Progress of a long operation, on one line of a terminal; prints nothing without a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    of: usize,
    unit: &'static str,
    /// What still goes on once all are done.
    then: &'static str,
    /// What stands in the terminal.
    line: String,
    shown: bool,
}

impl Progress {
    pub(crate) fn new(what: impl Into<String>, of: usize, unit: &'static str) -> Self {
        let what = Plain::new().pass(&what.into());
        Self { what, of, unit, then: "", line: String::new(), shown: std::io::stderr().is_terminal() }
    }

    /// Of a model's layers. On an NVIDIA card, kernels are compiled once they are loaded.
    pub(crate) fn of_layers(what: impl Into<String>, of: usize) -> Self {
        let mut made = Self::new(what, of, "layers");
        made.then = "; getting ready";
        made
    }

    pub(crate) fn set(&mut self, done: usize) {
        let then = if done == self.of { self.then } else { "" };
        let line = format!("{} {done} of {} {}{then}", self.what, self.of, self.unit);
        if self.shown && line != self.line {
            let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
            self.line = line;
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

/// A size in bytes, formatted for people.
pub(crate) fn megabytes(bytes: u64) -> String {
    if bytes >= 1_000_000_000 {
        format!("{:.1} GB", bytes as f64 / 1e9)
    } else {
        format!("{:.1} MB", bytes as f64 / 1e6)
    }
}
