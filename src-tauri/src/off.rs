//! Why the API for programs on this machine is off.

use std::sync::Arc;

use hive_api::{Api, ApiError};
use serde::Serialize;
use specta::Type;

/// The API, or why it is off.
pub(crate) type ApiState = Result<Arc<Api>, Off>;

/// Why the API is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Type)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Off {
    /// Its address is taken or not this machine's; another port may be free.
    Port {
        /// What the system said.
        why: String,
    },
    /// Anything else.
    Other {
        /// What happened.
        why: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl From<&ApiError> for Off {
    fn from(error: &ApiError) -> Self {
        let why = error.to_string();
        match error {
            ApiError::Bind { .. } | ApiError::NotLoopback(_) => Self::Port { why },
            ApiError::Tokens(_) | ApiError::Browsers(_) | ApiError::BindForBrowsers { .. } => {
                Self::Other { why, hint: error.hint().map(str::to_owned) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_port_helps_where_one_is_taken_and_nowhere_else() {
        let address = "127.0.0.1:4483".parse().unwrap();
        let taken = ApiError::Bind { address, why: std::io::ErrorKind::AddrInUse.into() };
        assert!(matches!(Off::from(&taken), Off::Port { why } if why.contains("127.0.0.1:4483")));
        let damaged = ApiError::Tokens("tokens.json is damaged".to_owned());
        assert!(matches!(Off::from(&damaged), Off::Other { .. }));
    }
}
