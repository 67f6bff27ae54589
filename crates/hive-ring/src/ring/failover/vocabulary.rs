//! The inputs and outputs of a failover.

use super::loss::{Check, Departure, FaultReport, Holder, StageLoss};
use super::takeover::{NoRoom, Offer};

/// Identifies a task of a ring; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(super) u64);

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event<M> {
    /// A fault was found.
    Reported(FaultReport),
    /// Machines came, went, or changed their sharing.
    FleetChanged,
    /// The ring was abandoned or superseded by somebody else.
    Withdrawn,
    /// A task has finished.
    Finished(Ticket, Outcome<M>),
}

/// An action. Actions are carried out in order; only [`Action::Start`] leads to an event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action<M> {
    /// Start a task.
    Start(Ticket, Task<M>),
    /// Cancel a task; its outcome does not matter any more.
    Cancel(Ticket),
    /// Count wrong output against a machine, in other plans too.
    HoldAgainst(M),
    /// Announce that the ring fails over. If it was abandoned or superseded already, that is an [`Event::Withdrawn`].
    Begin(Cause<M>),
    /// Record the new holder of a stage, as placed by the task that just finished.
    Place(Holder<M>),
    /// Have a machine unload a stage.
    Unload(Holder<M>),
    /// Announce that the ring is whole, in this epoch, as the task that just finished has joined it.
    Whole(u32),
    /// Announce that the model must be loaded again; unload the ring's stages, unless running answers will.
    Abandon(Abandonment<M>),
}

/// A task: something that takes time or depends on the current state of the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task<M> {
    /// Observe for every stage whether its machine may still hold it: [`Outcome::Observed`].
    Observe,
    /// Ask the machine of a stage for a pulse: [`Outcome::Checked`].
    Check(Holder<M>),
    /// Find out whether answers are under way or prefixes are retained: [`Outcome::Use`].
    CheckUse,
    /// Take the standby replica of a stage, if one can compute: [`Outcome::StandbyTaken`]. Never cancelled.
    TakeStandby(usize),
    /// End the hung worker of a stage on this machine: [`Outcome::WorkerEnded`].
    EndWorker(Holder<M>),
    /// List the machines that may take a stage: [`Outcome::Offered`].
    ListOffers(usize),
    /// Have a machine load a stage: [`Outcome::Loaded`] or [`Outcome::LoadFailed`].
    Load(Holder<M>),
    /// Move the sessions of a stage to its new machine: [`Outcome::Drained`], however much arrived.
    Drain {
        /// The stage and who held it.
        from: Holder<M>,
        /// Who holds it now.
        to: M,
    },
    /// Join the stages in this epoch: [`Outcome::Joined`] or [`Outcome::NotJoined`].
    Join(u32),
}

/// How a task finished.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome<M> {
    /// For each stage, why its machine must not hold it any longer; `None` if it may.
    Observed(Vec<Option<Departure>>),
    /// How a machine answered.
    Checked(Check),
    /// Whether answers are under way or prefixes are retained.
    Use(bool),
    /// The standby replica that takes over; `None` if there was none, or none that can.
    StandbyTaken(Option<Holder<M>>),
    /// The hung worker has ended, or nothing more can be done about it.
    WorkerEnded,
    /// The machines that may take a stage.
    Offered {
        /// Those that share, may see prompts, and are within their limits.
        offers: Vec<Offer<M>>,
        /// Whether the machine that held the stage may see prompts.
        holder_may_see_prompts: bool,
    },
    /// The machine has loaded the stage.
    Loaded(Holder<M>),
    /// The machine has not loaded the stage, for this reason.
    LoadFailed(Holder<M>, String),
    /// The sessions that could move have moved.
    Drained,
    /// All stages are joined.
    Joined,
    /// The stage of this index could not be joined, for this reason.
    NotJoined(usize, String),
}

/// Why a ring fails over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause<M> {
    /// A stage is lost: the first of them.
    Loss(StageLoss<M>),
    /// A report, in these words, although every stage is healthy: they are joined again.
    Report(String),
}

/// Why a ring is abandoned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Abandonment<M> {
    /// Nobody uses it, and more than workers died. No failover was announced.
    Unused(Cause<M>),
    /// No machine has room for a stage.
    NoRoom(NoRoom),
    /// Every attempt failed.
    AttemptsExhausted,
}
