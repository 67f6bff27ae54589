//! An approved machine's rights.

use serde::{Deserialize, Serialize};

use crate::data::{DataError, NotKept};

/// The rights of an approved machine, and its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rights {
    /// It may use this machine's memory, that is, place layers of its models here.
    pub memory: bool,
    /// It may see this machine's prompts, that is, hold layers of models that this machine's owner uses.
    pub prompts: bool,
    /// Maximum memory of its layers here, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// Maximum number of its answers computed here at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_limit: Option<u32>,
}

impl Rights {
    /// The rights that both grant.
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

/// Why rights could not be changed in full.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    /// They are in effect, but will not survive a restart.
    #[error(transparent)]
    NotKept(#[from] NotKept),
    /// No rights were added. Withdrawals are in effect only until a restart.
    #[error("this could not be saved, so no rights were added, and withdrawn rights return with a restart: {0}")]
    NotGiven(DataError),
}

impl RightsError {
    /// How to fix it.
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
