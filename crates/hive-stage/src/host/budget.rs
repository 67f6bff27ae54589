//! The memory that this machine's owner shares, and who has it.

use hive_net::PeerId;

/// Planned bytes of the stages here, including those that are loading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct MemoryUse {
    /// Of stages that compute.
    pub(super) stages: u64,
    /// Of standby replicas, which yield to them.
    pub(super) standbys: u64,
}

impl MemoryUse {
    pub(super) fn all(self) -> u64 {
        self.stages.saturating_add(self.standbys)
    }

    pub(super) fn of(&mut self, standby: bool) -> &mut u64 {
        if standby { &mut self.standbys } else { &mut self.stages }
    }
}

/// Whether a stage may be loaded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Free,
    /// Once the standby replicas are freed.
    AfterStandbys,
    /// This many bytes do not yield.
    OverBudget(u64),
}

/// Standby replicas yield to stages, but not to other standby replicas.
pub(super) fn fit(bytes: u64, standby: bool, taken: MemoryUse, cap: u64) -> Fit {
    let firm = if standby { taken.all() } else { taken.stages };
    if taken.all().saturating_add(bytes) <= cap {
        Fit::Free
    } else if firm.saturating_add(bytes) <= cap {
        Fit::AfterStandbys
    } else {
        Fit::OverBudget(firm)
    }
}

/// Memory reserved for a stage that is loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) owner: PeerId,
    pub(super) bytes: u64,
    pub(super) standby: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_yield_to_stages_and_not_to_copies() {
        let taken = MemoryUse { stages: 50, standbys: 30 };
        assert_eq!(fit(20, false, taken, 100), Fit::Free);
        assert_eq!(fit(50, false, taken, 100), Fit::AfterStandbys);
        assert_eq!(fit(51, false, taken, 100), Fit::OverBudget(50));
        assert_eq!(fit(21, true, taken, 100), Fit::OverBudget(80));
        assert_eq!(fit(u64::MAX, false, taken, 100), Fit::OverBudget(50));
    }
}
