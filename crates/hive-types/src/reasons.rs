//! Why a plan is as it is, and why a machine takes no part in it: as values, and in English.

use std::fmt::{Display, Formatter};

use serde::{Deserialize, Serialize};

use crate::{Absence, NotSharing};

/// A reason for a plan.
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// One machine holds the whole model.
    FitsAlone {
        /// Its name.
        machine: String,
        /// Predicted tokens per second.
        tokens_per_s: f64,
    },
    /// Several machines hold the model.
    Split {
        /// Their number.
        machines: usize,
        /// Predicted tokens per second.
        tokens_per_s: f64,
        /// The network's part of the time, in percent.
        network_percent: f64,
    },
    /// One machine could hold it all, but would be slower.
    SlowerAlone {
        /// Its name.
        machine: String,
    },
    /// No machine could hold it all.
    TooBigForOne,
    /// A machine would slow the answers down.
    WouldSlow {
        /// Its name.
        machine: String,
        /// By how many tokens per second.
        tokens_per_s: f64,
    },
    /// The model is on one machine.
    OneMachine,
    /// The stages are about as heavy as each other.
    EvenStages,
    /// The last stage has fewer layers, because it also holds the output layer.
    OutputLayer {
        /// How many layers the output layer is as large as.
        layers: u64,
    },
    /// The owner's choice of machines is followed.
    PlacedManually,
    /// The owner's choice of machines cannot be followed.
    NotAsPlaced {
        /// Why, in words.
        why: String,
    },
    /// Machines where stages failed are used again.
    TriedAgain {
        /// Their names.
        machines: Vec<String>,
    },
    /// Machines are left out that would have to fetch the model first.
    NotWorthFetching {
        /// Their names.
        machines: Vec<String>,
    },
    /// Machines fetch their layers first.
    FetchedFirst {
        /// Their names.
        machines: Vec<String>,
    },
    /// The owner keeps prompts on this machine, and the model fits there.
    StaysHere,
    /// A machine is slower than it reports.
    Slower {
        /// Its name.
        machine: String,
        /// The part of the reported speed that is planned with, in percent.
        percent: f64,
    },
    /// A machine reports more speed than others can confirm.
    Unproven {
        /// Its name.
        machine: String,
        /// How many times the planned speed it reports.
        times: f64,
    },
    /// A machine has refused a stage, so less of its memory is planned with.
    HadNoRoom {
        /// Its name.
        machine: String,
    },
    /// A machine is away.
    Away {
        /// Its name.
        machine: String,
        /// Why, if known.
        why: Option<Absence>,
    },
    /// A machine does not share.
    NotSharing {
        /// Its name.
        machine: String,
        /// Why, if it says so in a way that is known here.
        why: Option<NotSharing>,
        /// Why, in its own words.
        said: Option<String>,
    },
    /// A machine is away or does not share.
    NotThere {
        /// Its name.
        machine: String,
    },
    /// This machine's owner shows a machine no prompts.
    NoPrompts {
        /// Its name.
        machine: String,
    },
    /// A machine does not have the model.
    NoModel {
        /// Its name.
        machine: String,
    },
    /// A machine does not have the starter model of this version.
    NoStarter {
        /// Its name.
        machine: String,
        /// The model.
        model: String,
    },
    /// A machine does not have a model that it could download.
    NoDownload {
        /// Its name.
        machine: String,
        /// The model.
        model: String,
        /// The model's folder in the cache.
        folder: String,
        /// The command that downloads it.
        command: String,
    },
    /// A machine does not have a model that is known only as a file.
    NoFile {
        /// Its name.
        machine: String,
        /// The model.
        model: String,
    },
    /// A machine has another version's starter model.
    OtherStarter {
        /// Its name.
        machine: String,
        /// The model.
        model: String,
    },
    /// A machine has a different model of that name.
    OtherModel {
        /// Its name.
        machine: String,
        /// The model.
        model: String,
    },
    /// A machine has the model, and cannot use its copy.
    UnusableModel {
        /// Its name.
        machine: String,
        /// The model.
        model: String,
    },
    /// A machine is quarantined, because its stages failed.
    Failed {
        /// Its name.
        machine: String,
        /// How much longer, in minutes.
        minutes: u64,
    },
    /// A machine is quarantined, because it computed wrong numbers.
    WrongNumbers {
        /// Its name.
        machine: String,
        /// How much longer, in hours.
        hours: u64,
    },
    /// A pinned model keeps its memory.
    Pinned {
        /// The model.
        model: String,
    },
    /// Added by a newer version.
    #[cfg_attr(feature = "specta", specta(skip))]
    #[serde(other)]
    Unknown,
}

impl Display for Reason {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::FitsAlone { machine, tokens_per_s } => {
                write!(f, "Fits on {machine} alone, with no network hops: about {tokens_per_s:.0} tok/s.")
            }
            Self::Split { machines, tokens_per_s, network_percent } => write!(
                f,
                "Split over {machines} machines: about {tokens_per_s:.0} tok/s; the network takes \
                 {network_percent:.0}% of the time."
            ),
            Self::SlowerAlone { machine } => write!(f, "It would fit on {machine} alone, but more slowly."),
            Self::TooBigForOne => f.write_str("Too big for any one machine."),
            Self::WouldSlow { machine, tokens_per_s } => {
                write!(f, "{machine} isn't used: it would slow answers by {tokens_per_s:.1} tok/s.")
            }
            Self::OneMachine => f.write_str("The model fits on one machine."),
            Self::EvenStages => f.write_str("Each stage reads about as many bytes per token as the others."),
            Self::OutputLayer { layers } => write!(
                f,
                "The last stage has fewer layers: it also holds the output layer, which is as large as {layers} {}.",
                if *layers == 1 { "layer" } else { "layers" }
            ),
            Self::PlacedManually => f.write_str("Placed manually; stays until unloaded."),
            Self::NotAsPlaced { why } => write!(f, "The manual plan cannot be followed now: {why}."),
            Self::TriedAgain { machines } => {
                write!(f, "{} tried again although stages failed there: there is no other plan.", are(machines))
            }
            Self::NotWorthFetching { machines } => write!(
                f,
                "Without {}: the model would have to be fetched there, and would not be much faster.",
                machines.join(", ")
            ),
            Self::FetchedFirst { machines } => {
                write!(f, "The model is not on {} yet, so its layers are fetched there first.", machines.join(", "))
            }
            Self::StaysHere => f.write_str("Runs only here, because you keep prompts on this machine."),
            Self::Slower { machine, percent } => {
                write!(f, "{machine} is planned at {percent:.0}% of the speed that it reports, as measured")
            }
            Self::Unproven { machine, times } => write!(
                f,
                "{machine} reports {times:.0} times the planned speed; used at the planned speed until an answer \
                 confirms it"
            ),
            Self::HadNoRoom { machine } => {
                write!(f, "{machine} is planned with less memory than it reports: it refused a stage a moment ago")
            }
            Self::Away { machine, why } => because(f, machine, "is not here", why.as_ref()),
            Self::NotSharing { machine, said, .. } => because(f, machine, "does not share", said.as_ref()),
            Self::NotThere { machine } => write!(f, "{machine} is not here or does not share"),
            Self::NoPrompts { machine } => {
                write!(f, "{machine} is not used: it may not see this machine's prompts")
            }
            Self::NoModel { machine } => write!(f, "{machine} does not have the model"),
            Self::NoStarter { machine, model } => {
                write!(f, "{machine} does not have {model}, which comes with HiveMind: update HiveMind there")
            }
            Self::NoDownload { machine, model, folder, command } => write!(
                f,
                "{machine} does not have {model}: copy {folder} into the model cache there, or run `{command}` there"
            ),
            Self::NoFile { machine, model } => write!(
                f,
                "{machine} does not have {model}: copy it there, and run `hivemind models load PATH` there once, so \
                 that it is known"
            ),
            Self::OtherStarter { machine, model } => {
                write!(f, "{machine}'s copy of {model} differs from yours: update HiveMind on both machines")
            }
            Self::OtherModel { machine, model } => write!(
                f,
                "{machine}'s copy of {model} differs from yours: bring both to the same version, or copy yours there"
            ),
            Self::UnusableModel { machine, model } => write!(
                f,
                "{machine}'s copy of {model} cannot be used: `hivemind models list` there says why; copy yours there"
            ),
            Self::Failed { machine, minutes } => {
                write!(f, "{machine} is quarantined for {minutes} min: its stages failed")
            }
            Self::WrongNumbers { machine, hours } => {
                write!(f, "{machine} is quarantined for {hours} h: it computed wrong numbers")
            }
            Self::Pinned { model } => write!(f, "the memory of {model}, which is pinned"),
            Self::Unknown => f.write_str("A reason that only a newer version knows."),
        }
    }
}

fn because<W: Display>(f: &mut Formatter<'_>, machine: &str, what: &str, why: Option<&W>) -> std::fmt::Result {
    match why {
        Some(why) => write!(f, "{machine} {what}: {why}"),
        None => write!(f, "{machine} {what}"),
    }
}

/// "bob is", "bob and cat are".
fn are(names: &[String]) -> String {
    match names {
        [] => "nobody is".to_owned(),
        [name] => format!("{name} is"),
        [first @ .., last] => format!("{} and {last} are", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_version_adds_can_be_read() {
        let read = |text| serde_json::from_str::<Reason>(text).unwrap();
        assert_eq!(read(r#"{"kind":"moon_phase","machine":"Studio"}"#), Reason::Unknown);
        let away = r#"{"kind":"away","machine":"Studio","why":{"kind":"moved_house"}}"#;
        let why = Some(Absence::Unknown);
        assert_eq!(read(away), Reason::Away { machine: "Studio".to_owned(), why });
    }

    #[test]
    fn several_machines_are_tried_again() {
        let said = |names: &[&str]| {
            Reason::TriedAgain { machines: names.iter().map(|name| (*name).to_owned()).collect() }.to_string()
        };
        assert!(said(&["bob"]).starts_with("bob is tried again"));
        assert!(said(&["bob", "cat", "dan"]).starts_with("bob, cat and dan are tried again"));
    }
}
