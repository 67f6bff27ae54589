//! The candidates for taking over a lost stage. `hive_plan::replace` chooses among them.

use std::time::Instant;

use hive_plan::{Candidate, Replacement, replace};

use super::loss::{Holder, LossKind};

/// A machine that may take a further stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Offer<M> {
    /// Which.
    pub(crate) machine: M,
    /// Bytes of memory that it still shares.
    pub(crate) memory_bytes: u64,
    /// Bytes of weights that it reads per second.
    pub(crate) bytes_per_s: f64,
    /// Whether it has the model on its disk, or parts of it.
    pub(crate) has_copy: bool,
}

/// No machine has room for a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRoom {
    /// Bytes that the stage needs.
    pub(crate) needed_bytes: u64,
    /// Bytes that the roomiest machine shares.
    pub(crate) most_bytes: u64,
}

/// A lost stage that is moving to another machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Takeover<M> {
    /// The stage and its holder so far.
    pub(super) from: Holder<M>,
    /// How it was lost.
    pub(super) kind: LossKind,
    /// Whether the machine is this one.
    pub(super) is_own: bool,
    /// When this began; deaths are counted at this time.
    pub(super) since: Instant,
}

impl<M: Copy + Eq> Takeover<M> {
    /// Whether a hung worker of this machine must be ended first. Elsewhere, the machine itself may be what hangs.
    pub(super) fn must_end_worker(&self) -> bool {
        self.kind == LossKind::Hung && self.is_own
    }

    /// The deaths that count against the machine. A worker that must be ended counts as dead.
    pub(super) fn deaths(&self) -> usize {
        if self.must_end_worker() { LossKind::WorkerDied.deaths() } else { self.kind.deaths() }
    }

    /// Chooses the machine. `holds_one` says whether a machine holds a stage of the ring, and `has_failed` whether
    /// stages keep dying there.
    pub(super) fn choose(
        &self,
        needed_bytes: u64,
        mut offers: Vec<Offer<M>>,
        holder_may_see_prompts: bool,
        holds_one: impl Fn(M) -> bool,
        has_failed: impl Fn(M) -> bool,
    ) -> Result<M, NoRoom> {
        let holder = self.from.machine;
        let may_restart = self.kind == LossKind::WorkerDied || self.must_end_worker();
        if may_restart && holder_may_see_prompts && offers.iter().all(|offer| offer.machine != holder) {
            // A node that does not share, as those of one process do not, may still restart its own stage.
            offers.push(Offer { machine: holder, memory_bytes: 0, bytes_per_s: 0.0, has_copy: true });
        }
        let candidate = |offer: &Offer<M>| {
            let restarts = may_restart && offer.machine == holder;
            // The worker that ended there has freed its memory, though the machine may not have announced it yet.
            let freed_bytes = if restarts { needed_bytes } else { 0 };
            Candidate {
                memory_bytes: offer.memory_bytes.saturating_add(freed_bytes),
                bytes_per_s: offer.bytes_per_s,
                holds_it_now: restarts,
                holds_another: holds_one(offer.machine),
                failed: has_failed(offer.machine),
                has_copy: offer.has_copy,
            }
        };
        let candidates: Vec<_> = offers.iter().map(candidate).collect();
        match replace(needed_bytes, &candidates) {
            Replacement::By(chosen) => Ok(offers[chosen].machine),
            Replacement::NoRoom { most_bytes } => Err(NoRoom { needed_bytes, most_bytes }),
        }
    }
}
