//! The state of a ring, for its answers and for `hive-serving`.

use hive_types::Trouble;

/// Whether a ring computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It computes.
    Whole,
    /// The ring has run into trouble: a lost stage is being taken over by another machine, or all are joined again.
    FailingOver(Trouble),
    /// No machine could take over, for this reason: the model must be loaded again.
    Abandoned(String),
    /// The model has migrated, and its answers move to the new ring.
    Superseded,
}

/// The health of a ring, and how often it has failed over.
#[derive(Debug, Clone)]
pub struct State {
    /// Failovers that succeeded. Reports from an earlier epoch are stale.
    pub epoch: u32,
    /// Whether it computes.
    pub health: Health,
}
