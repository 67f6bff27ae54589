//! What an answer runs into on its machines, and goes on after: as values, and in English.

use std::fmt::{Display, Formatter};

use serde::{Deserialize, Serialize};

/// Trouble that an answer has run into.
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Trouble {
    /// A machine takes no part any longer; others take over its layers.
    Lost {
        /// Its name.
        machine: String,
        /// How it was lost.
        loss: Loss,
    },
    /// Nothing comes, although no machine is lost: all are connected again.
    Stuck {
        /// What was found, in words.
        why: String,
    },
    /// Machines do not answer; it is found out whether they are lost.
    NotAnswering {
        /// Their names.
        machines: Vec<String>,
        /// Since when nothing has come, in seconds.
        seconds: u64,
    },
    /// A machine computed wrong numbers, and is quarantined.
    WrongNumbers {
        /// Its name.
        machine: String,
        /// The first token of the answer that may be wrong, counted from 1.
        token: usize,
    },
    /// Added by a newer version.
    #[cfg_attr(feature = "specta", specta(skip))]
    #[serde(other)]
    Unknown,
}

impl Display for Trouble {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost { machine, loss } => {
                let what = match loss {
                    Loss::Left => "left",
                    Loss::StoppedSharing => "stopped sharing",
                    Loss::MayNotSeePrompts => "may not see prompts any more",
                    Loss::SharesLess => "shares less memory now",
                    Loss::Silent => "does not answer",
                    Loss::NoProgress => "has stopped making progress",
                    Loss::WrongNumbers => "computed wrong numbers",
                    Loss::Failed | Loss::Unknown => "failed",
                };
                write!(f, "{machine} {what}; continuing without it")
            }
            Self::Stuck { why } => write!(f, "{why}; connecting the machines again"),
            Self::NotAnswering { machines, seconds } => {
                let who = if machines.is_empty() { "The model".to_owned() } else { machines.join(", ") };
                let has = if machines.len() > 1 { "have" } else { "has" };
                write!(f, "{who} {has} not answered for {seconds} s; checking")
            }
            Self::WrongNumbers { machine, token } => write!(
                f,
                "{machine} computed wrong numbers and is quarantined; the text from token {token} on may be wrong"
            ),
            Self::Unknown => f.write_str("trouble that only a newer version knows"),
        }
    }
}

/// How a machine was lost.
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// It quit, or has started anew.
    Left,
    /// Its owner stopped sharing it.
    StoppedSharing,
    /// It may no longer see prompts.
    MayNotSeePrompts,
    /// Its owner shares less memory than its layers take.
    SharesLess,
    /// It does not answer.
    Silent,
    /// It answers, and makes no progress.
    NoProgress,
    /// It computed what cannot be.
    WrongNumbers,
    /// Its worker died, or it has the layers no more.
    Failed,
    /// Added by a newer version.
    #[cfg_attr(feature = "specta", specta(skip))]
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_with_what_is_done_about_it() {
        let left = Trouble::Lost { machine: "bob".to_owned(), loss: Loss::Left };
        assert_eq!(left.to_string(), "bob left; continuing without it");
        let silent = |machines: &[&str]| {
            let machines = machines.iter().map(|machine| (*machine).to_owned()).collect();
            Trouble::NotAnswering { machines, seconds: 3 }.to_string()
        };
        assert_eq!(silent(&["bob", "cat"]), "bob, cat have not answered for 3 s; checking");
        assert_eq!(silent(&[]), "The model has not answered for 3 s; checking");
    }

    #[test]
    fn what_a_newer_version_adds_can_be_read() {
        let read = |text| serde_json::from_str::<Trouble>(text).unwrap();
        assert_eq!(read(r#"{"kind":"eclipse","machine":"bob"}"#), Trouble::Unknown);
        let lost = Trouble::Lost { machine: "bob".to_owned(), loss: Loss::Unknown };
        assert_eq!(read(r#"{"kind":"lost","machine":"bob","loss":"eclipse"}"#), lost);
    }
}
