//! What commands fail with.

use std::process::ExitCode;

use crate::output;

/// What went wrong, and what to do about it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
    /// Of an answer that broke off: what there is of it.
    pub(crate) broken: Option<Box<Broken>>,
}

/// The beginning of an answer, from which it can go on.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) text: String,
    pub(crate) tokens: Vec<u32>,
    pub(crate) seed: u64,
}

impl Failure {
    /// A failure of the work itself.
    pub(crate) fn new(error: impl std::fmt::Display) -> Self {
        Self { message: error.to_string(), hint: None, code: 1, broken: None }
    }

    /// A request that cannot be.
    pub(crate) fn usage(error: impl std::fmt::Display) -> Self {
        Self { code: 2, ..Self::new(error) }
    }

    /// Somebody pressed Ctrl-C before there was a result.
    pub(crate) fn interrupted() -> Self {
        Self { code: 130, ..Self::new("stopped before the answer began") }
    }

    /// A hint, where there is one.
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

/// Says it, and gives the exit code for it.
pub(crate) fn report(failure: &Failure) -> ExitCode {
    output::error(&failure.message);
    if let Some(hint) = &failure.hint {
        output::hint(hint);
    }
    ExitCode::from(failure.code)
}
