//! The state of a ring, for its answers and for `hive-serving`.

/// Whether a ring computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It computes.
    Whole,
    /// A stage was lost, for this reason, and another machine is taking it over.
    FailingOver(String),
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
