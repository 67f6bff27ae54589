//! Decides whether this machine computes for others now, and why not: the owner comes first.
//!
//! `decide` maps the owner's settings and the observed state of the machine to a named choice. A machine that stops
//! sharing tells the others, which move its layers elsewhere before they release it (`ring/failover.rs`). This
//! machine's own questions are computed here in any case.

use std::num::NonZeroU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hive_host::{Heat, Power};
use hive_stage::AtLoad;
use hive_types::NotSharing;
use serde::{Deserialize, Serialize};

/// The owner's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Only on mains power.
    pub only_on_power: bool,
    /// Only if nobody has used the machine for this long.
    pub only_when_idle: Option<Duration>,
    /// Unload models after this long without use.
    pub unload_after: Option<Duration>,
    /// Limit on the rate of sending to other machines, in bits per second.
    pub bits_per_s: Option<u64>,
    /// Limit on the rate of downloads, in bytes per second.
    pub download_bytes_per_s: Option<NonZeroU64>,
    /// How plain matrices are quantized as they are loaded.
    pub quantize_at_load: Option<AtLoad>,
    /// Whether models that fit on this machine stay on it.
    pub keep_prompts_here: bool,
}

/// The owner's switches at run time; kept over restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Switches {
    /// On or off; `None` follows the settings.
    pub(crate) share: Option<bool>,
    /// When a pause ends, in seconds since 1970.
    pub(crate) paused_until_s: Option<u64>,
    /// The most memory to share, in bytes, within the limit in the settings.
    pub(crate) memory_bytes: Option<u64>,
}

/// The file that stores the switches; it exists once anything was switched.
pub const FILE: &str = "sharing.json";

impl Switches {
    /// The switches that apply when a node starts: an earlier "on" does not override settings that say no.
    pub(crate) fn at_start(self, share: bool) -> Self {
        Self { share: self.share.filter(|on| share || !on), ..self }
    }

    /// The most memory to share, in bytes, if the settings allow `set`.
    pub(crate) fn memory_cap(self, set: Option<u64>) -> Option<u64> {
        self.memory_bytes.into_iter().chain(set).min()
    }

    /// Whether sharing is on, if the settings say `set`.
    pub(crate) fn wants_to_share(self, set: bool) -> bool {
        self.share.unwrap_or(set)
    }

    /// Remaining seconds of a pause.
    pub(crate) fn paused_for_s(self, now: SystemTime) -> u64 {
        self.paused_until_s.unwrap_or(0).saturating_sub(seconds(now))
    }

    /// Pauses for this long from now on.
    pub(crate) fn paused(self, time: Duration, now: SystemTime) -> Self {
        Self { paused_until_s: Some(seconds(now + time)), ..self }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// The observed state of the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) power: Power,
    pub(crate) heat: Heat,
    pub(crate) idle: Option<Duration>,
    /// Free memory and total memory, in bytes.
    pub(crate) free_bytes: u64,
    pub(crate) memory_bytes: u64,
}

/// One part of all memory in this many must stay free for the owner's programs; with less, the machine slows down.
const SHORT: u64 = 32;

/// Whether to share now. `sharing` is whether the machine shares already: to start again, a wavering value must be
/// clearly better (hysteresis).
pub(crate) fn decide(
    share: bool,
    leaving: bool,
    policy: &Policy,
    switches: Switches,
    observed: Observed,
    sharing: bool,
    now: SystemTime,
) -> Result<(), NotSharing> {
    let Observed { power, heat, idle, free_bytes, memory_bytes } = observed;
    let seconds_left = switches.paused_for_s(now);
    let short = memory_bytes / SHORT;
    let enough = if sharing { short } else { short * 2 };
    let unused = |wanted: Duration| idle.is_none_or(|idle| idle >= wanted);
    if leaving {
        Err(NotSharing::Quitting)
    } else if !switches.wants_to_share(share) {
        Err(NotSharing::SwitchedOff)
    } else if seconds_left > 0 {
        Err(NotSharing::Paused { minutes: seconds_left.div_ceil(60) })
    } else if heat >= Heat::Serious {
        Err(NotSharing::Hot)
    } else if policy.only_on_power && power.on_battery {
        Err(NotSharing::OnBattery)
    } else if policy.only_on_power && power.low_power_mode {
        Err(NotSharing::SavingEnergy)
    } else if !policy.only_when_idle.is_none_or(unused) {
        Err(NotSharing::InUse)
    } else if free_bytes < enough {
        Err(NotSharing::ShortOfMemory)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn calm() -> Observed {
        Observed { free_bytes: 8 * GIB, memory_bytes: 16 * GIB, ..Observed::default() }
    }

    fn judge(policy: &Policy, switches: Switches, observed: Observed) -> Result<(), NotSharing> {
        decide(true, false, policy, switches, observed, true, UNIX_EPOCH + Duration::from_secs(1000))
    }

    #[test]
    fn the_owners_wishes_come_first() {
        let (policy, none) = (Policy::default(), Switches::default());
        assert_eq!(judge(&policy, none, calm()), Ok(()));
        assert_eq!(judge(&policy, Switches { share: Some(false), ..none }, calm()), Err(NotSharing::SwitchedOff));
        let paused = none.paused(Duration::from_secs(90), UNIX_EPOCH + Duration::from_secs(1000));
        assert_eq!(judge(&policy, paused, calm()), Err(NotSharing::Paused { minutes: 2 }));
        let over = none.paused(Duration::from_secs(90), UNIX_EPOCH + Duration::from_mins(15));
        assert_eq!(judge(&policy, over, calm()), Ok(()));
        assert_eq!(decide(true, true, &policy, none, calm(), true, UNIX_EPOCH), Err(NotSharing::Quitting));
    }

    #[test]
    fn settings_that_say_no_are_not_overruled_by_an_earlier_switch() {
        let switched = |on| Switches { share: Some(on), ..Switches::default() };
        assert_eq!(switched(true).at_start(false).share, None);
        assert_eq!(switched(true).at_start(true).share, Some(true));
        assert_eq!(switched(false).at_start(true).share, Some(false));
    }

    #[test]
    fn battery_and_use_count_where_the_owner_says_so() {
        let none = Switches::default();
        let battery = Observed { power: Power { on_battery: true, ..Power::default() }, ..calm() };
        assert_eq!(judge(&Policy::default(), none, battery), Ok(()));
        let careful = Policy { only_on_power: true, only_when_idle: Some(Duration::from_mins(5)), ..Policy::default() };
        assert_eq!(judge(&careful, none, battery), Err(NotSharing::OnBattery));
        let used = Observed { idle: Some(Duration::from_mins(1)), ..calm() };
        assert_eq!(judge(&careful, none, used), Err(NotSharing::InUse));
        assert_eq!(judge(&careful, none, Observed { idle: Some(Duration::from_mins(6)), ..calm() }), Ok(()));
        // A server without a desktop has nobody using it.
        assert_eq!(judge(&careful, none, calm()), Ok(()));
    }

    #[test]
    fn heat_and_want_of_memory_count_always_and_memory_does_not_waver() {
        let (policy, none) = (Policy::default(), Switches::default());
        assert_eq!(judge(&policy, none, Observed { heat: Heat::Serious, ..calm() }), Err(NotSharing::Hot));
        assert_eq!(judge(&policy, none, Observed { free_bytes: GIB / 4, ..calm() }), Err(NotSharing::ShortOfMemory));
        let some = Observed { free_bytes: GIB * 3 / 4, ..calm() };
        assert_eq!(judge(&policy, none, some), Ok(()));
        assert_eq!(decide(true, false, &policy, none, some, false, UNIX_EPOCH), Err(NotSharing::ShortOfMemory));
    }

    #[test]
    fn a_cap_may_be_lowered_but_not_above_the_settings() {
        let switched = Switches { memory_bytes: Some(4), ..Switches::default() };
        assert_eq!((switched.memory_cap(None), switched.memory_cap(Some(8))), (Some(4), Some(4)));
        assert_eq!(switched.memory_cap(Some(2)), Some(2));
        assert_eq!((Switches::default().memory_cap(Some(8)), Switches::default().memory_cap(None)), (Some(8), None));
    }
}
