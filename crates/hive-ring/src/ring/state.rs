//! How a ring is, and what can be wrong with it.

use hive_stage::Fault;

/// How a ring is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It computes.
    Whole,
    /// A stage is missing, for this reason, and being replaced.
    Mending(String),
    /// It could not be mended, for this reason: the model must be loaded anew.
    Lost(String),
    /// The model is loaded by a better plan, and its answers go on there.
    Superseded,
}

/// How a ring is, and how often it has been mended.
#[derive(Debug, Clone)]
pub struct State {
    /// How often it has been mended.
    pub epoch: u32,
    /// How it is.
    pub health: Health,
}

/// Something that does not work.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// The state of the ring it was seen in.
    pub(crate) epoch: u32,
    pub(crate) cause: Cause,
    pub(crate) why: String,
}

/// What does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// What a stage or this node has seen go wrong.
    Fault(Fault),
    /// The stage of this index does not go on with what it owes.
    Hung(usize),
}
