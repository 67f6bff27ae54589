//! Errors as the windows show them: what happened, and what to do.

use serde::Serialize;
use specta::Type;

/// An error shown to the owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Type)]
pub(crate) struct Problem {
    /// A stable code.
    pub(crate) code: String,
    /// What happened and why.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl Problem {
    /// A problem with this code and message.
    pub(crate) fn new(code: &str, message: impl std::fmt::Display) -> Self {
        Self { code: code.to_owned(), message: message.to_string(), hint: None }
    }

    /// Adds a hint, if there is one.
    pub(crate) fn hinted(self, hint: Option<&str>) -> Self {
        Self { hint: hint.map(str::to_owned), ..self }
    }

    /// Converts errors to problems with this code.
    pub(crate) fn of<E: std::fmt::Display>(code: &str) -> impl Fn(E) -> Self {
        move |error| Self::new(code, error)
    }
}

impl From<hive_node::data::DataError> for Problem {
    fn from(error: hive_node::data::DataError) -> Self {
        Self::new("data_folder", &error).hinted(error.hint())
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

#[cfg(test)]
mod tests {
    use hive_node::data::DataError;

    use super::*;

    #[test]
    fn a_full_disk_has_a_hint_and_none_is_for_the_command_line() {
        let path = || "/data".into();
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert!(Problem::from(DataError::Unusable { path: path(), error: full }).hint.is_some());
        let closed = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        for error in [
            DataError::Unusable { path: path(), error: closed },
            DataError::Damaged { path: path(), why: "it is cut".to_owned() },
        ] {
            let problem = Problem::from(error);
            assert!(!format!("{problem:?}").contains("--"), "{problem:?}");
        }
    }
}
