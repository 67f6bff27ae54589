//! What went wrong, as the windows show it: what happened, and what to do.

use serde::Serialize;
use specta::Type;

/// A problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Type)]
pub(crate) struct Problem {
    /// A name that the windows can rely on.
    pub(crate) code: String,
    /// What happened and why, in words.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl Problem {
    /// A problem by name.
    pub(crate) fn new(code: &str, message: impl std::fmt::Display) -> Self {
        Self { code: code.to_owned(), message: message.to_string(), hint: None }
    }

    /// The same problem, with what to do about it.
    pub(crate) fn hinted(self, hint: Option<&str>) -> Self {
        Self { hint: hint.map(str::to_owned), ..self }
    }

    /// Makes problems of errors.
    pub(crate) fn of<E: std::fmt::Display>(code: &str) -> impl Fn(E) -> Self {
        move |error| Self::new(code, error)
    }
}

impl From<hive_node::data::DataError> for Problem {
    fn from(error: hive_node::data::DataError) -> Self {
        match &error {
            hive_node::data::DataError::InUse { by, .. } => {
                Self::new("data_folder", format!("HiveMind already runs on this machine ({by})"))
                    .hinted(Some("End the other one, then try again."))
            }
            _ => Self::new("data_folder", &error).hinted(error.hint()),
        }
    }
}

impl From<hive_node::data::NotKept> for Problem {
    fn from(error: hive_node::data::NotKept) -> Self {
        Self::new("not_kept", &error).hinted(Some(error.hint()))
    }
}

impl From<hive_node::RightsError> for Problem {
    fn from(error: hive_node::RightsError) -> Self {
        Self::new("not_kept", &error).hinted(Some(error.hint()))
    }
}
