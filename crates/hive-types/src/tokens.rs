//! Rights of programs, and the tokens that carry them.

use serde::{Deserialize, Deserializer, Serialize};

/// A right that a token can grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Ask models for answers.
    Chat,
    /// List, load, unload and remove models, and ask for plans.
    Models,
    /// See the status and the machines, approve or remove machines, invite, and change what is shared.
    Machines,
    /// Read the owner's conversations, ask in them, and change them.
    Conversations,
    /// Be served at the address for browsers, too; given to browsers alone.
    Browser,
    /// Everything about conversations, manage tokens, stop the node.
    Admin,
}

impl Right {
    /// All rights.
    pub const ALL: [Self; 6] =
        [Self::Chat, Self::Models, Self::Machines, Self::Conversations, Self::Browser, Self::Admin];

    /// The name used in commands and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Models => "models",
            Self::Machines => "machines",
            Self::Conversations => "conversations",
            Self::Browser => "browser",
            Self::Admin => "admin",
        }
    }

    /// Names of rights, separated by commas.
    pub fn list(rights: &[Self]) -> String {
        rights.iter().map(|right| right.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Right {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|right| right.as_str() == text)
            .ok_or_else(|| format!("\"{text}\" is not a right; there are {}", Self::list(&Self::ALL)))
    }
}

/// All tokens of programs: `GET /hive/v1/tokens`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenList {
    /// The tokens.
    pub tokens: Vec<TokenView>,
}

/// A listed token, without its secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenView {
    /// Its name.
    pub name: String,
    /// Its rights; those of a newer version are skipped.
    #[serde(deserialize_with = "known_rights")]
    pub may: Vec<Right>,
    /// When it was created, in days since 1970 in UTC.
    pub made_day: u64,
    /// When it was last used, in days since 1970 in UTC.
    pub last_used_day: Option<u64>,
}

fn known_rights<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Right>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// Creates a token for a program: `POST /hive/v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// The program's name.
    pub name: String,
    /// Its rights.
    pub may: Vec<Right>,
}

/// A newly created token; its secret is shown only once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedToken {
    /// Its name.
    pub name: String,
    /// The secret.
    pub token: String,
}

impl std::fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedToken").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The reply after the owner's token was renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerTokenRenewal {
    /// Always true.
    pub done: bool,
    /// The file in the data folder that contains it.
    pub file: String,
}
