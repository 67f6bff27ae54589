//! The queue of strangers that ask to pair: whose code is shown, and who is told to ask later.
//!
//! A code costs two people's attention, so few are shown at a time. Invariants: one place (network address) has few
//! codes, and its newest request replaces its oldest; a flood, from however many places, shows no more codes than
//! people can look at. Machines that this owner has asked or approved skip the queue.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hive_net::{Origin, PeerId, TokenBucket};

/// Maximum number of codes shown for machines that asked on their own. Nobody compares more.
const SHOWN: usize = 8;
/// The same, per place.
const SHOWN_AT_ONE_PLACE: usize = 2;

/// Token buckets for requests: per place, and for all places together.
const OF_ONE_PLACE: Refill = Refill { most: 10, regain: Duration::from_secs(6) };
const OF_ALL: Refill = Refill { most: 30, regain: Duration::from_secs(2) };

/// Maximum number of places remembered; those with a full bucket are forgotten.
const REMEMBERED_PLACES: usize = 1024;

/// A token bucket's capacity, and the time in which it regains one token.
#[derive(Debug, Clone, Copy)]
struct Refill {
    most: u32,
    regain: Duration,
}

impl Refill {
    fn bucket(self, now: Instant) -> TokenBucket {
        TokenBucket::new(f64::from(self.most), 1.0 / self.regain.as_secs_f64(), now)
    }
}

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Show a code, in place of another machine's if there is one.
    Now {
        /// The machine at the same place whose code is withdrawn.
        instead_of: Option<PeerId>,
    },
    /// Too many machines ask.
    Later,
}

#[derive(Debug)]
pub(crate) struct Line {
    /// Machines whose codes are shown, oldest first.
    shown: Vec<(Origin, PeerId)>,
    places: HashMap<Origin, TokenBucket>,
    all: TokenBucket,
}

impl Line {
    pub(crate) fn new(now: Instant) -> Self {
        Self { shown: Vec::new(), places: HashMap::new(), all: OF_ALL.bucket(now) }
    }

    /// Handles the request of a machine at a place.
    pub(crate) fn ask(&mut self, peer: PeerId, place: Origin, now: Instant) -> Turn {
        if self.places.len() >= REMEMBERED_PLACES {
            self.places.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.places.len() >= REMEMBERED_PLACES && !self.places.contains_key(&place) {
            return Turn::Later;
        }
        let here: Vec<PeerId> = self.shown.iter().filter(|(at, _)| *at == place).map(|(_, peer)| *peer).collect();
        let crowded = here.len() >= SHOWN_AT_ONE_PLACE;
        let bucket = self.places.entry(place).or_insert_with(|| OF_ONE_PLACE.bucket(now));
        if !bucket.has_one(now) || !self.all.has_one(now) || !crowded && self.shown.len() >= SHOWN {
            return Turn::Later;
        }
        bucket.take(now);
        self.all.take(now);
        let instead_of = here.first().copied().filter(|_| crowded);
        self.shown.retain(|(_, shown)| Some(*shown) != instead_of);
        self.shown.push((place, peer));
        Turn::Now { instead_of }
    }

    /// Removes a machine's code.
    pub(crate) fn leave(&mut self, peer: PeerId) {
        self.shown.retain(|(_, shown)| *shown != peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hive_net::Identity;

    fn id() -> PeerId {
        Identity::generate().id()
    }

    fn place(n: u8) -> Origin {
        Origin::of([10, 77, 0, n].into())
    }

    fn is_now(turn: Turn) -> bool {
        matches!(turn, Turn::Now { .. })
    }

    #[test]
    fn strangers_may_ask_now_and_then_but_not_all_the_time() {
        let now = Instant::now();
        let mut line = Line::new(now);
        let mut asked = |then| is_now(line.ask(id(), place(1), then));
        assert_eq!((0..1000).filter(|_| asked(now)).count(), OF_ONE_PLACE.most as usize);
        assert!(!asked(now + OF_ONE_PLACE.regain / 2));
        assert!(asked(now + OF_ONE_PLACE.regain));
        assert!(!asked(now + OF_ONE_PLACE.regain));
        let later = now + Duration::from_hours(1);
        assert_eq!((0..1000).filter(|_| asked(later)).count(), OF_ONE_PLACE.most as usize);
    }

    #[test]
    fn the_third_request_of_a_place_takes_the_room_of_its_first() {
        let now = Instant::now();
        let (mut line, [one, two, three, other]) = (Line::new(now), [id(), id(), id(), id()]);
        assert_eq!(line.ask(one, place(1), now), Turn::Now { instead_of: None });
        assert_eq!(line.ask(other, place(2), now), Turn::Now { instead_of: None });
        assert_eq!(line.ask(two, place(1), now), Turn::Now { instead_of: None });
        assert_eq!(line.ask(three, place(1), now), Turn::Now { instead_of: Some(one) });
        line.leave(two);
        assert_eq!(line.ask(one, place(1), now), Turn::Now { instead_of: None });
    }

    #[test]
    fn a_flood_from_many_places_shows_few_codes_and_remembers_few_places() {
        let now = Instant::now();
        let mut line = Line::new(now);
        let mut shown = 0;
        for n in 0..3000u32 {
            let from = Origin::of(n.to_be_bytes().into());
            shown += u32::from(is_now(line.ask(id(), from, now + Duration::from_millis(u64::from(n)))));
        }
        assert_eq!((shown as usize, line.shown.len()), (SHOWN, SHOWN));
        assert!(line.places.len() <= REMEMBERED_PLACES);
        // Repeated requests from fifty places show no more codes than people can look at.
        let mut line = Line::new(now);
        let later = |n: u32| now + Duration::from_millis(u64::from(n));
        let codes = (0..2000).filter(|n| is_now(line.ask(id(), place((n % 50) as u8), later(*n)))).count();
        assert!(codes <= (OF_ALL.most + 6) as usize, "{codes}");
    }
}
