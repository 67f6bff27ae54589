//! The memory that this machine's owner lets it give, and who has it.

use hive_net::PeerId;

/// Bytes of the stages here, as planned, those on their way into memory included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Of stages that compute.
    pub(super) stages: u64,
    /// Of copies, which yield to them.
    pub(super) copies: u64,
}

impl Taken {
    pub(super) fn all(self) -> u64 {
        self.stages.saturating_add(self.copies)
    }

    pub(super) fn of(&mut self, standby: bool) -> &mut u64 {
        if standby { &mut self.copies } else { &mut self.stages }
    }
}

/// Whether a stage may be loaded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// Once the copies are freed.
    AfterCopies,
    /// So many bytes do not yield.
    None(u64),
}

/// Copies yield to stages, not to other copies.
pub(super) fn room(bytes: u64, standby: bool, taken: Taken, cap: u64) -> Room {
    let firm = if standby { taken.all() } else { taken.stages };
    if taken.all().saturating_add(bytes) <= cap {
        Room::Free
    } else if firm.saturating_add(bytes) <= cap {
        Room::AfterCopies
    } else {
        Room::None(firm)
    }
}

/// Memory that was promised to a stage which is being loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Promise {
    pub(super) owner: PeerId,
    pub(super) bytes: u64,
    pub(super) standby: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_yield_to_stages_and_not_to_copies() {
        let taken = Taken { stages: 50, copies: 30 };
        assert_eq!(room(20, false, taken, 100), Room::Free);
        assert_eq!(room(50, false, taken, 100), Room::AfterCopies);
        assert_eq!(room(51, false, taken, 100), Room::None(50));
        assert_eq!(room(21, true, taken, 100), Room::None(80));
        assert_eq!(room(u64::MAX, false, taken, 100), Room::None(50));
    }
}
