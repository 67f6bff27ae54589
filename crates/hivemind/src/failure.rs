//! The error type of all commands.

use std::process::ExitCode;

use crate::output;

/// What went wrong, and how to fix it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
    /// The partial answer, if an answer was interrupted.
    pub(crate) broken: Option<Box<Broken>>,
}

/// A partial answer, from which it can be resumed.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) text: String,
    pub(crate) tokens: Vec<u32>,
    pub(crate) seed: u64,
}

impl Failure {
    /// A failure of the work itself; exit code 1.
    pub(crate) fn new(error: impl std::fmt::Display) -> Self {
        Self { message: error.to_string(), hint: None, code: 1, broken: None }
    }

    /// An invalid request; exit code 2.
    pub(crate) fn usage(error: impl std::fmt::Display) -> Self {
        Self { code: 2, ..Self::new(error) }
    }

    /// Ctrl-C before there was a result; exit code 130.
    pub(crate) fn interrupted() -> Self {
        Self::stopped("stopped before the answer began")
    }

    /// Ctrl-C; exit code 130.
    pub(crate) fn stopped(what: &str) -> Self {
        Self { code: 130, ..Self::new(what) }
    }

    /// Adds a hint, if there is one.
    pub(crate) fn hinted(self, hint: Option<&str>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Prints a failure, and returns its exit code.
pub(crate) fn report(failure: &Failure) -> ExitCode {
    output::error(&failure.message);
    if let Some(hint) = &failure.hint {
        output::hint(hint);
    }
    ExitCode::from(failure.code)
}
