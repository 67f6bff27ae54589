//! How long other machines' stages may stay here, and how much memory they may take, by use and not by claim.
//!
//! A guest, a stage of another machine, holds a lease, which ends when its owner has been away for [`LEASE`]. When this
//! machine stops sharing or shares less memory, the owners get [`NOTICE`] to move their stages. A guest that uses more
//! than was planned for it ends at once if that exceeds a limit; one that keeps to its plan never ends because of
//! another. This machine's own stages always stay.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

use hive_net::PeerId;

use hive_protocol::StageId;
use hive_types::megabytes;

/// How long a stage outlives contact with its owner: a machine that restarts or changes networks is back by then.
pub(crate) const LEASE: Duration = Duration::from_mins(1);
/// How long owners have to move their stages off a machine that stops sharing. They begin at once, and most are done
/// within two seconds; what remains is recomputed elsewhere.
pub(crate) const NOTICE: Duration = Duration::from_secs(10);

/// Tolerance above a limit before a stage ends: memory is allocated in pieces.
const TOLERANCE_PERCENT: u64 = 10;
/// A stage that takes this multiple of its planned memory, plus this many bytes, has run away, with or without a limit.
/// The plan covers one conversation; if there is memory, several have their caches at a time.
const RUNAWAY_FACTOR: u64 = 2;
const RUNAWAY_BYTES: u64 = 512 << 20;

/// The state of a stage here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tenant {
    pub(crate) id: StageId,
    pub(crate) owner: PeerId,
    /// Whether it belongs to another machine.
    pub(crate) is_guest: bool,
    /// Whether its owner is in contact.
    pub(crate) owner_is_here: bool,
    /// Its memory as planned, in bytes.
    pub(crate) planned_bytes: u64,
    /// Its memory as measured, in bytes.
    pub(crate) used_bytes: u64,
}

/// The limits that this machine's owner has set.
pub(crate) struct Rules<'a> {
    /// Whether it shares with a machine now.
    pub(crate) shares_with: &'a dyn Fn(PeerId) -> bool,
    /// The most memory for all stages, in bytes.
    pub(crate) cap_bytes: Option<u64>,
    /// The most memory for the stages of one machine, in bytes.
    pub(crate) cap_of: &'a dyn Fn(PeerId) -> Option<u64>,
}

/// Why a stage ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eviction {
    /// Its owner has been away too long.
    OwnerAway,
    /// This machine has stopped sharing, and the notice is over.
    NotSharing,
    /// This machine gives less memory, and the notice is over.
    LessMemory,
    /// It has taken far more memory than planned.
    RanAway { used_bytes: u64, planned_bytes: u64 },
    /// All stages, or those of its owner, take more than the limit.
    PastLimit { used_bytes: u64, limit_bytes: u64 },
}

impl fmt::Display for Eviction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnerAway => write!(f, "its owner was away for {} s", LEASE.as_secs()),
            Self::NotSharing => f.write_str("the machine does not share any more"),
            Self::LessMemory => f.write_str("the machine gives less memory now"),
            Self::RanAway { used_bytes, planned_bytes } => {
                let (used, planned) = (megabytes(*used_bytes), megabytes(*planned_bytes));
                write!(f, "it took {used} MB of memory where {planned} MB were planned")
            }
            Self::PastLimit { used_bytes, limit_bytes } => {
                let (used, limit) = (megabytes(*used_bytes), megabytes(*limit_bytes));
                write!(f, "{used} MB of memory were in use; the limit is {limit} MB")
            }
        }
    }
}

/// A limit on memory. When it is lowered, the old one applies until the notice is over.
#[derive(Debug)]
struct Limit {
    latest: Option<u64>,
    counting: Option<u64>,
    lowered: Instant,
}

impl Limit {
    fn new(bytes: Option<u64>, now: Instant) -> Self {
        Self { latest: bytes, counting: bytes, lowered: now }
    }

    /// Updates the limit to `bytes`; returns the one that applies.
    fn follow(&mut self, bytes: Option<u64>, now: Instant) -> Option<u64> {
        let is_less =
            |bytes: Option<u64>, than: Option<u64>| bytes.is_some_and(|bytes| bytes < than.unwrap_or(u64::MAX));
        if is_less(bytes, self.latest) {
            self.lowered = now;
        }
        self.latest = bytes;
        if !is_less(bytes, self.counting) || now >= self.lowered + NOTICE {
            self.counting = bytes;
        }
        self.counting
    }
}

/// When each of these conditions began.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    away: HashMap<PeerId, Instant>,
    not_sharing: HashMap<PeerId, Instant>,
    cap: Option<Limit>,
    caps: HashMap<PeerId, Limit>,
}

impl Watch {
    /// The stages that end now. Call it regularly.
    pub(crate) fn evictions(
        &mut self,
        tenants: &[Tenant],
        rules: &Rules<'_>,
        now: Instant,
    ) -> Vec<(StageId, Eviction)> {
        let guests = || tenants.iter().filter(|tenant| tenant.is_guest);
        self.away.retain(|owner, _| guests().any(|guest| guest.owner == *owner && !guest.owner_is_here));
        for guest in guests().filter(|guest| !guest.owner_is_here) {
            self.away.entry(guest.owner).or_insert(now);
        }
        self.not_sharing.retain(|owner, _| !(rules.shares_with)(*owner) && guests().any(|guest| guest.owner == *owner));
        for guest in guests().filter(|guest| !(rules.shares_with)(guest.owner)) {
            self.not_sharing.entry(guest.owner).or_insert(now);
        }
        let cap_bytes = rules.cap_bytes;
        let cap_bytes = self.cap.get_or_insert_with(|| Limit::new(cap_bytes, now)).follow(cap_bytes, now);
        self.caps.retain(|owner, _| guests().any(|guest| guest.owner == *owner));
        let is_over = |since: Option<Instant>, after: Duration| since.is_some_and(|since| now >= since + after);

        let mut ends: Vec<(StageId, Eviction)> = Vec::new();
        for guest in guests() {
            let Tenant { id, owner, planned_bytes, used_bytes, .. } = *guest;
            let runaway_bytes = planned_bytes.saturating_mul(RUNAWAY_FACTOR).saturating_add(RUNAWAY_BYTES);
            if is_over(self.away.get(&owner).copied(), LEASE) {
                ends.push((id, Eviction::OwnerAway));
            } else if is_over(self.not_sharing.get(&owner).copied(), NOTICE) {
                ends.push((id, Eviction::NotSharing));
            } else if used_bytes > runaway_bytes {
                ends.push((id, Eviction::RanAway { used_bytes, planned_bytes }));
            }
        }
        // First each machine's limit, then the limit for all.
        for owner in guests().map(|guest| guest.owner).collect::<HashSet<_>>() {
            let cap = (rules.cap_of)(owner);
            let cap = self.caps.entry(owner).or_insert_with(|| Limit::new(cap, now)).follow(cap, now);
            beyond(&mut ends, tenants.iter().filter(|tenant| tenant.owner == owner), cap);
        }
        beyond(&mut ends, tenants.iter(), cap_bytes);
        ends
    }
}

/// Adds the guests that end because a limit is exceeded, by measured memory that is above the plan or by planned
/// memory.
fn beyond<'a>(
    ends: &mut Vec<(StageId, Eviction)>,
    tenants: impl Iterator<Item = &'a Tenant>,
    limit_bytes: Option<u64>,
) {
    let Some(limit_bytes) = limit_bytes else { return };
    let mut tenants: Vec<_> = tenants.filter(|tenant| ends.iter().all(|(id, _)| *id != tenant.id)).collect();
    ends.extend(past_limit(&mut tenants, limit_bytes));
    let planned_bytes = tenants.iter().map(|tenant| tenant.planned_bytes).fold(0, u64::saturating_add);
    let guests = tenants.into_iter().filter(|tenant| tenant.is_guest);
    let freed = fewest(guests, planned_bytes.saturating_sub(limit_bytes));
    ends.extend(freed.into_iter().map(|id| (id, Eviction::LessMemory)));
}

/// Removes and returns the guests that end because the stages together use more than a limit allows, beginning with
/// those that exceed their plans the most.
fn past_limit(tenants: &mut Vec<&Tenant>, limit_bytes: u64) -> Vec<(StageId, Eviction)> {
    let most_bytes = limit_bytes.saturating_add(limit_bytes / 100 * TOLERANCE_PERCENT);
    tenants.sort_by_key(|tenant| i128::from(tenant.used_bytes) - i128::from(tenant.planned_bytes));
    let mut used_bytes = tenants.iter().map(|tenant| tenant.used_bytes).fold(0, u64::saturating_add);
    let has_grown = |tenant: &&Tenant| tenant.is_guest && tenant.used_bytes > tenant.planned_bytes;
    let mut ends = Vec::new();
    while used_bytes > most_bytes
        && let Some(at) = tenants.iter().rposition(has_grown)
    {
        let worst = tenants.remove(at);
        ends.push((worst.id, Eviction::PastLimit { used_bytes, limit_bytes }));
        used_bytes -= worst.used_bytes;
    }
    ends
}

/// Chooses guests to free this many planned bytes: the smallest that suffices alone; else the largest, and so on for
/// the rest.
fn fewest<'a>(guests: impl Iterator<Item = &'a Tenant>, excess_bytes: u64) -> Vec<StageId> {
    let mut guests: Vec<_> = guests.map(|guest| (guest.planned_bytes, guest.id)).collect();
    guests.sort_unstable_by_key(|(bytes, _)| *bytes);
    let (mut excess_bytes, mut freed) = (excess_bytes, Vec::new());
    while excess_bytes > 0 && !guests.is_empty() {
        let at = guests.iter().position(|(bytes, _)| *bytes >= excess_bytes).unwrap_or(guests.len() - 1);
        let (bytes, id) = guests.remove(at);
        excess_bytes = excess_bytes.saturating_sub(bytes);
        freed.push(id);
    }
    freed
}

#[cfg(test)]
mod tests {
    use super::*;
    use hive_protocol::RingId;

    const MB: u64 = 1_000_000;

    fn machine() -> PeerId {
        hive_net::Identity::generate().id()
    }

    fn id(index: u32) -> StageId {
        StageId { ring: RingId(1), index }
    }

    fn guest(index: u32, owner: PeerId, bytes: u64) -> Tenant {
        let (planned_bytes, used_bytes) = (bytes, bytes);
        Tenant { id: id(index), owner, is_guest: true, owner_is_here: true, planned_bytes, used_bytes }
    }

    fn rules(shares: bool, cap_bytes: Option<u64>, cap_of: &dyn Fn(PeerId) -> Option<u64>) -> Rules<'_> {
        Rules { shares_with: if shares { &|_| true } else { &|_| false }, cap_bytes, cap_of }
    }

    const UNLIMITED: &dyn Fn(PeerId) -> Option<u64> = &|_| None;

    #[test]
    fn a_stage_ends_when_its_owner_has_been_away_for_the_lease_and_not_before() {
        let (mut watch, start, owner) = (Watch::default(), Instant::now(), machine());
        let (here, away) = (guest(0, owner, MB), Tenant { owner_is_here: false, ..guest(0, owner, MB) });
        let own = Tenant { is_guest: false, owner_is_here: false, ..guest(1, machine(), MB) };
        let rules = rules(true, None, UNLIMITED);
        let mut ends = |tenant: Tenant, after_s: u64| {
            watch.evictions(&[tenant, own], &rules, start + Duration::from_secs(after_s))
        };
        assert_eq!(ends(away, 0), []);
        assert_eq!(ends(away, 59), []);
        assert_eq!(ends(here, 60), [], "it is back");
        assert_eq!(ends(away, 61), []);
        assert_eq!(ends(away, 120), []);
        assert_eq!(ends(away, 121), [(id(0), Eviction::OwnerAway)]);
    }

    #[test]
    fn guests_have_ten_seconds_when_sharing_ends() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let stage = guest(0, machine(), MB);
        let own = Tenant { is_guest: false, ..guest(1, machine(), MB) };
        let mut ends = |shares: bool, after_s: u64| {
            watch.evictions(&[stage, own], &rules(shares, None, UNLIMITED), start + Duration::from_secs(after_s))
        };
        assert_eq!(ends(false, 0), []);
        assert_eq!(ends(false, 9), []);
        assert_eq!(ends(true, 10), [], "it shares again");
        assert_eq!(ends(false, 11), []);
        assert_eq!(ends(false, 21), [(id(0), Eviction::NotSharing)]);
    }

    #[test]
    fn a_lowered_cap_ends_as_few_guests_as_it_takes() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let stages = [guest(0, machine(), 5 * MB), guest(1, machine(), MB), guest(2, machine(), 2 * MB)];
        let own = Tenant { is_guest: false, ..guest(3, machine(), MB) };
        let tenants: Vec<_> = stages.into_iter().chain([own]).collect();
        // The used memory is less than planned: nobody exceeds the limit, but the limit is now less than was promised.
        let calm: Vec<_> = tenants.iter().map(|tenant| Tenant { used_bytes: 0, ..*tenant }).collect();
        assert_eq!(watch.evictions(&calm, &rules(true, None, UNLIMITED), start), []);
        let lowered = rules(true, Some(7 * MB + MB / 2), UNLIMITED);
        assert_eq!(watch.evictions(&calm, &lowered, start), []);
        assert_eq!(watch.evictions(&calm, &lowered, start + NOTICE), [(id(2), Eviction::LessMemory)]);
        assert_eq!(fewest(tenants.iter().filter(|tenant| tenant.is_guest), 7 * MB), [id(0), id(2)]);
        assert_eq!(fewest(tenants.iter().filter(|tenant| tenant.is_guest), 90 * MB), [id(0), id(2), id(1)]);
    }

    #[test]
    fn limits_hold_within_a_tenth_of_what_is_used_whatever_was_claimed() {
        let (mut watch, start, liar, honest) = (Watch::default(), Instant::now(), machine(), machine());
        let grown = Tenant { planned_bytes: MB, used_bytes: 60 * MB, ..guest(0, liar, 0) };
        let within = guest(1, honest, 49 * MB);
        let own = Tenant { is_guest: false, ..guest(2, machine(), MB) };
        let rules_of = |cap: u64| rules(true, Some(cap), UNLIMITED);
        assert_eq!(watch.evictions(&[grown, within, own], &rules_of(100 * MB), start), []);
        assert_eq!(watch.evictions(&[grown, within, own], &rules_of(99 * MB), start), [], "there is notice of less");
        let ends = watch.evictions(&[grown, within, own], &rules_of(99 * MB), start + NOTICE);
        assert_eq!(ends, [(id(0), Eviction::PastLimit { used_bytes: 110 * MB, limit_bytes: 99 * MB })]);
        // This machine's own stages never end, not even for the guests' sake.
        let later = start + NOTICE * 2;
        assert_eq!(watch.evictions(&[own], &rules_of(1), later), []);
        assert_eq!(watch.evictions(&[own], &rules_of(1), later + NOTICE), []);
    }

    #[test]
    fn a_guest_that_keeps_to_its_plan_does_not_end_for_what_others_use() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let within = guest(0, machine(), 60 * MB);
        let own = Tenant { is_guest: false, planned_bytes: MB, used_bytes: 60 * MB, ..guest(1, machine(), 0) };
        let rules = rules(true, Some(100 * MB), UNLIMITED);
        for after in [Duration::ZERO, NOTICE] {
            assert_eq!(watch.evictions(&[within, own], &rules, start + after), []);
        }
        // Another stage slightly above its plan does no harm while all planned memory is within the limit.
        let grown = Tenant { planned_bytes: 39 * MB, used_bytes: 45 * MB, ..guest(2, machine(), 0) };
        for after in [NOTICE * 2, NOTICE * 3] {
            assert_eq!(watch.evictions(&[within, grown], &rules, start + after), []);
        }
    }

    #[test]
    fn there_is_notice_of_a_lower_limit_of_one_machine() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let within = guest(0, machine(), 60 * MB);
        let mut ends = |limit: u64, after: Duration| {
            watch.evictions(&[within], &rules(true, None, &|_| Some(limit * MB)), start + after)
        };
        assert_eq!(ends(100, Duration::ZERO), []);
        assert_eq!(ends(40, Duration::ZERO), []);
        assert_eq!(ends(50, NOTICE / 2), []);
        assert_eq!(ends(50, NOTICE), [(id(0), Eviction::LessMemory)]);
    }

    #[test]
    fn the_limit_of_one_machine_is_not_anothers() {
        let (mut watch, start, liar, honest) = (Watch::default(), Instant::now(), machine(), machine());
        let grown = Tenant { planned_bytes: MB, used_bytes: 60 * MB, ..guest(0, liar, 0) };
        let within = guest(1, honest, 60 * MB);
        let cap_of = |_: PeerId| Some(54 * MB);
        let of_liar = |owner: PeerId| if owner == liar { cap_of(owner) } else { None };
        let ends = watch.evictions(&[grown, within], &rules(true, None, &of_liar), start);
        assert_eq!(ends, [(id(0), Eviction::PastLimit { used_bytes: 60 * MB, limit_bytes: 54 * MB })]);
    }

    #[test]
    fn a_worker_that_runs_away_ends_without_any_limit() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let grown = Tenant { used_bytes: 3000 * MB, ..guest(0, machine(), MB) };
        let ends = watch.evictions(&[grown], &rules(true, None, UNLIMITED), start);
        assert_eq!(ends, [(id(0), Eviction::RanAway { used_bytes: 3000 * MB, planned_bytes: MB })]);
    }
}
