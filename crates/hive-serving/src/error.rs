//! Why a model is not served.

use hive_peers::FindPeerError;
use hive_plan::{ArrangeError, PlanError};
use hive_ring::{GenerateError, RingError};
use hive_stage::models::FindError;

/// Why a request could not be met.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The model.
    #[error(transparent)]
    Find(#[from] FindError),
    /// There is no plan.
    #[error("{error}{}", not_counted(left_out))]
    Plan {
        /// Why.
        error: PlanError,
        /// The machines that take no part, and why, in words.
        left_out: Vec<String>,
    },
    /// Fewer machines can take a part than were asked for.
    #[error("{wanted} machines were asked for, but only {} can take a part{}", usable.join(", "), who_cannot(left_out))]
    TooFew {
        /// Machines asked for.
        wanted: usize,
        /// The names of those that can.
        usable: Vec<String>,
        /// Those that cannot, and why, in words.
        left_out: Vec<String>,
    },
    /// A plan made by hand cannot be.
    #[error("this plan cannot be followed: {0}")]
    ByHand(#[from] ByHandError),
    /// It did not load.
    #[error(transparent)]
    Load(#[from] RingError),
    /// Nothing is loaded any more.
    #[error("HiveMind is about to end on this machine")]
    Stopping,
}

fn not_counted(left_out: &[String]) -> String {
    if left_out.is_empty() { String::new() } else { format!(". Not counted: {}", left_out.join("; ")) }
}

fn who_cannot(left_out: &[String]) -> String {
    if left_out.is_empty() {
        "; no other machine is approved, see `hivemind peers`".to_owned()
    } else {
        format!(": {}", left_out.join("; "))
    }
}

/// Why a plan made by hand cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ByHandError {
    /// It names a machine that there is not.
    #[error(transparent)]
    Machine(#[from] FindPeerError),
    /// A machine takes no part, for a reason that is said with its name.
    #[error("{0}")]
    LeftOut(String),
    /// Its layers are wrong.
    #[error(transparent)]
    Layers(#[from] ArrangeError),
}

/// Why an answer by the swarm did not begin.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// There is no model to ask.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The request was not taken.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}
