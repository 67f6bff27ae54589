//! Errors of placing, loading and asking a model.

use std::sync::Arc;

use hive_peers::FindPeerError;
use hive_plan::{ArrangeError, PlanError};
use hive_ring::{GenerateError, RingError};
use hive_stage::models::FindError;
use hive_types::Reason;
use hive_worker::text::TextError;

/// Why a request cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The model was not found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// No plan is possible.
    #[error("{error}{}", not_counted(exclusions))]
    Plan {
        /// Why.
        error: PlanError,
        /// The excluded machines with the reasons.
        exclusions: Vec<Reason>,
    },
    /// Fewer machines are usable than were asked for.
    #[error("{wanted} machines were asked for, but only {} can take a part{}", usable.join(", "), who_cannot(exclusions))]
    TooFew {
        /// The number of machines asked for.
        wanted: usize,
        /// The names of the usable machines.
        usable: Vec<String>,
        /// The other machines with the reasons.
        exclusions: Vec<Reason>,
    },
    /// A manual plan cannot be followed.
    #[error("this plan cannot be followed: {0}")]
    ManualPlan(#[from] ManualPlanError),
    /// The model did not load.
    #[error(transparent)]
    Load(#[from] RingError),
    /// Somebody paused the download that it needs.
    #[error("the download of {0} was paused; the downloaded data is kept, so load the model or ask again to resume")]
    Paused(String),
    /// The node is stopping and loads nothing more.
    #[error("HiveMind is about to end on this machine")]
    Stopping,
    /// What several waited for failed.
    #[error(transparent)]
    Shared(Arc<ServeError>),
}

impl ServeError {
    /// The error itself, also of something that several waited for.
    pub fn cause(&self) -> &Self {
        match self {
            Self::Shared(error) => error.cause(),
            error => error,
        }
    }
}

fn not_counted(exclusions: &[Reason]) -> String {
    if exclusions.is_empty() { String::new() } else { format!(". Not counted: {}", joined(exclusions)) }
}

fn who_cannot(exclusions: &[Reason]) -> String {
    if exclusions.is_empty() {
        "; no other machine is approved, see `hivemind peers`".to_owned()
    } else {
        format!(": {}", joined(exclusions))
    }
}

fn joined(exclusions: &[Reason]) -> String {
    exclusions.iter().map(Reason::to_string).collect::<Vec<_>>().join("; ")
}

/// Why a manual plan cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ManualPlanError {
    /// It names an unknown machine, or one of several.
    #[error(transparent)]
    Machine(#[from] FindPeerError),
    /// It uses an excluded machine.
    #[error("{0}")]
    Excluded(Reason),
    /// Its layers are invalid.
    #[error(transparent)]
    Layers(#[from] ArrangeError),
}

/// Why an answer did not start.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The model could not be loaded.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The request was refused.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}

/// Why the tokens of a text were not counted.
#[derive(Debug, thiserror::Error)]
pub enum CountError {
    /// The model was not found.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The tokenizer failed.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The tokenizer is not read yet.
    #[error("the model's tokenizer is not read yet; ask again in a moment")]
    NotRead,
}
