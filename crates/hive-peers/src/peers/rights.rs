//! What an approved machine may do.

use serde::{Deserialize, Serialize};

use crate::data::{DataError, NotKept};

/// What an approved machine may do, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rights {
    /// It may use this machine's memory: have layers of its models here.
    pub memory: bool,
    /// It may see this machine's prompts: hold layers of the models that answer here.
    pub prompts: bool,
    /// The most memory that its layers may take here, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// The most answers of its that are computed here at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_limit: Option<u32>,
}

impl Rights {
    /// What both allow.
    pub(super) fn common(self, other: Self) -> Self {
        Self {
            memory: self.memory && other.memory,
            prompts: self.prompts && other.prompts,
            memory_limit_bytes: self.memory_limit_bytes.into_iter().chain(other.memory_limit_bytes).min(),
            session_limit: self.session_limit.into_iter().chain(other.session_limit).min(),
        }
    }
}

impl Default for Rights {
    fn default() -> Self {
        Self { memory: true, prompts: true, memory_limit_bytes: None, session_limit: None }
    }
}

/// Why rights are not as they were wished.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    /// They count, and will not survive a restart.
    #[error(transparent)]
    NotKept(#[from] NotKept),
    /// What the machine would have been given more was not given, and what was taken from it counts until a restart.
    #[error(
        "this could not be saved, so the machine was given nothing more, and what was taken from it comes back with a restart: {0}"
    )]
    NotGiven(DataError),
}

impl RightsError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotKept(error) => error.hint(),
            Self::NotGiven(error) => error.hint().unwrap_or("make the data folder writable, then do it again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_wishes_have_in_common_is_the_less_of_each() {
        let all = Rights::default();
        let some = Rights { prompts: false, memory_limit_bytes: Some(9), ..all };
        let other = Rights { memory: false, memory_limit_bytes: Some(5), session_limit: Some(2), ..all };
        assert_eq!((all.common(some), some.common(all)), (some, some));
        let least = Rights { memory: false, prompts: false, memory_limit_bytes: Some(5), session_limit: Some(2) };
        assert_eq!((some.common(other), other.common(some)), (least, least));
    }
}
