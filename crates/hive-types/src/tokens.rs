//! What programs may do, and the tokens that say so.

use serde::{Deserialize, Deserializer, Serialize};

/// One thing that a program may be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Ask models for answers.
    Chat,
    /// List, load, unload and remove models, and ask for plans.
    Models,
    /// See the machines and how this one is, decide on them, invite, and change what is shared.
    Machines,
    /// Read and change conversations, manage tokens, stop the node.
    Admin,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Chat, Self::Models, Self::Machines, Self::Admin];

    /// As it is written in commands and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Models => "models",
            Self::Machines => "machines",
            Self::Admin => "admin",
        }
    }

    /// Rights in words, separated by commas.
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

/// The tokens of programs: `GET /hive/v1/tokens`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenList {
    /// They.
    pub tokens: Vec<TokenView>,
}

/// A program's token, as it is listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenView {
    /// Its name.
    pub name: String,
    /// What it allows; rights of a newer version are left out.
    #[serde(deserialize_with = "known_rights")]
    pub may: Vec<Right>,
    /// When it was made, in days since 1970 in UTC.
    pub made_day: u64,
    /// When it was last used, in days since 1970 in UTC.
    pub last_used_day: Option<u64>,
}

fn known_rights<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Right>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// A token for a program: `POST /hive/v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// The name of the program.
    pub name: String,
    /// What it may do.
    pub may: Vec<Right>,
}

/// A token that was made: the only time that it is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedToken {
    /// Its name.
    pub name: String,
    /// The token.
    pub token: String,
}

impl std::fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedToken").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The owner's token was renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerTokenRenewal {
    /// Always true.
    pub done: bool,
    /// The file in the data folder that has it.
    pub file: String,
}
