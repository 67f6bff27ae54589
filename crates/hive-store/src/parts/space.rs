//! Which copies to evict before a fetch: the least recently used, and none in use.

use std::time::SystemTime;

use crate::size::size;

/// The disk that the store may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that may still be written to the disk.
    pub free: u64,
    /// The most bytes for all copies together, if their owner limits them. Without a limit, no copy is evicted.
    pub cap: Option<u64>,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// The disk is too full.
    #[error("the disk has room for {}", size(*available))]
    Disk {
        /// Bytes that there is room for.
        available: u64,
    },
    /// The copies in use reach the owner's limit.
    #[error("the limit of {} leaves room for {}", size(*cap), size(*available))]
    Cap {
        /// The limit in bytes.
        cap: u64,
        /// Bytes that there is room for.
        available: u64,
    },
}

/// A copy, as a candidate for eviction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    /// Its bytes on the disk.
    pub(super) bytes: u64,
    /// Its bytes that are being fetched.
    pub(super) pending: u64,
    pub(super) used: SystemTime,
    pub(super) in_use: bool,
}

/// The copies, by their places in the list, that have to go for `needed` bytes; none if these fit as it is.
pub(super) fn leaving(kept: &[Kept], needed: u64, space: Space) -> Result<Vec<usize>, NoRoom> {
    let Space { free, cap } = space;
    // Bytes that other fetches have reserved count as written.
    let pending: u64 = kept.iter().map(|copy| copy.pending).sum();
    let to_come = needed.saturating_add(pending);
    let Some(cap) = cap else {
        let available = free.saturating_sub(pending);
        return if to_come <= free { Ok(Vec::new()) } else { Err(NoRoom::Disk { available }) };
    };
    let taken: u64 = kept.iter().map(|copy| copy.bytes + copy.pending).sum();
    let to_free = to_come.saturating_sub(free).max(taken.saturating_add(needed).saturating_sub(cap));
    let mut unused: Vec<usize> = (0..kept.len()).filter(|place| !kept[*place].in_use).collect();
    unused.sort_by_key(|place| kept[*place].used);
    let mut freed = 0;
    let mut leaving = Vec::new();
    for place in unused {
        if freed >= to_free {
            break;
        }
        freed += kept[place].bytes;
        leaving.push(place);
    }
    if freed >= to_free {
        return Ok(leaving);
    }
    let under_cap = cap.saturating_sub(taken - freed);
    let on_disk = free.saturating_add(freed).saturating_sub(pending);
    Err(if under_cap <= on_disk {
        NoRoom::Cap { cap, available: under_cap }
    } else {
        NoRoom::Disk { available: on_disk }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Copies of 10 bytes each; the first was used last.
    fn kept(in_use: [bool; 3]) -> Vec<Kept> {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let copies = in_use.into_iter().zip([30, 10, 20]);
        copies.map(|(in_use, used)| Kept { bytes: 10, pending: 0, used: at(used), in_use }).collect()
    }

    #[test]
    fn what_nobody_has_used_for_longest_goes_first_and_no_more_than_needed() {
        let space = Space { free: 1000, cap: Some(40) };
        for (needed, goes) in [(10, vec![]), (11, vec![1]), (20, vec![1]), (21, vec![1, 2]), (40, vec![1, 2, 0])] {
            assert_eq!(leaving(&kept([false; 3]), needed, space), Ok(goes), "{needed}");
        }
        assert_eq!(leaving(&kept([false; 3]), 41, space), Err(NoRoom::Cap { cap: 40, available: 40 }));
    }

    #[test]
    fn what_is_in_use_stays() {
        let space = Space { free: 1000, cap: Some(40) };
        assert_eq!(leaving(&kept([false, true, false]), 20, space), Ok(vec![2]));
        let refused = Err(NoRoom::Cap { cap: 40, available: 20 });
        assert_eq!(leaving(&kept([false, true, true]), 21, space), refused);
    }

    #[test]
    fn a_full_disk_makes_room_only_where_there_is_a_limit() {
        let kept = kept([false; 3]);
        assert_eq!(leaving(&kept, 5, Space { free: 5, cap: None }), Ok(vec![]));
        assert_eq!(leaving(&kept, 6, Space { free: 5, cap: None }), Err(NoRoom::Disk { available: 5 }));
        assert_eq!(leaving(&kept, 6, Space { free: 5, cap: Some(100) }), Ok(vec![1]));
        assert_eq!(leaving(&kept, 36, Space { free: 5, cap: Some(100) }), Err(NoRoom::Disk { available: 35 }));
    }

    #[test]
    fn what_is_being_fetched_counts_on_the_disk_and_against_the_limit() {
        let mut kept = kept([false, true, false]);
        kept[1].pending = 8;
        let on_disk = |needed, free| leaving(&kept, needed, Space { free, cap: None });
        assert_eq!((on_disk(5, 13), on_disk(6, 13)), (Ok(vec![]), Err(NoRoom::Disk { available: 5 })));
        let within = |needed| leaving(&kept, needed, Space { free: 1000, cap: Some(40) });
        assert_eq!((within(2), within(3)), (Ok(vec![]), Ok(vec![2])));
    }

    #[test]
    fn what_is_being_fetched_may_be_more_than_is_free() {
        let mut kept = kept([false, true, false]);
        kept[1].pending = 8;
        let within = |needed| leaving(&kept, needed, Space { free: 3, cap: Some(100) });
        assert_eq!((within(1), within(6)), (Ok(vec![2]), Ok(vec![2, 0])));
        assert_eq!(within(16), Err(NoRoom::Disk { available: 15 }));
    }

    #[test]
    fn copies_above_a_limit_that_was_lowered_leave_even_for_nothing() {
        assert_eq!(leaving(&kept([false; 3]), 0, Space { free: 1000, cap: Some(15) }), Ok(vec![1, 2]));
    }
}
