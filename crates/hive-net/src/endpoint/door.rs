//! Handshake admission, and how long a stranger's connection stays.
//!
//! Invariants: strangers share a bounded number of handshakes and connections, divided by origin ([`PerOrigin`]). An
//! approved machine that connects from a known address does not queue among them. A forgeable address counts for
//! nothing until its sender proves that it receives packets there ([`choose`]). A silent stranger is evicted; one whose
//! request has arrived stays only while it is served.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use iroh::endpoint::{Connection, Incoming, IncomingAddr, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::addr::PeerId;
use crate::admission::Admission;
use crate::lock::lock;
use crate::near::Comer;
use crate::strangers::{Gate, Origin, PerOrigin};

/// Concurrent handshakes of strangers, in all and per origin. Each costs some cryptography.
const HANDSHAKES: usize = 32;
const HANDSHAKES_EACH: usize = 8;
/// Concurrent handshakes from addresses of approved machines.
const KNOWN_HANDSHAKES: usize = 32;
/// From this many on, these must prove their address as well: some may be forged.
const KNOWN_PROVE_FROM: usize = KNOWN_HANDSHAKES / 2;

/// Connections of strangers, in all and per origin.
const STRANGERS: usize = 64;
const STRANGERS_EACH: usize = 8;
/// Connections of machines whose pairing is shown to this owner.
const EXPECTED: usize = 32;
const EXPECTED_EACH: usize = 4;
/// Time-out for a stranger's request.
const FIRST_WORDS: Duration = Duration::from_secs(15);
/// Interval between checks whether a stranger still wants anything.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Close code for a silent stranger, or one whose seat was taken.
const EVICTED: u32 = 4;

/// A bounded number of seats; each holder has a [`Seat`]. Clones share them.
#[derive(Debug, Clone)]
struct Seats(Arc<Mutex<Seated>>);

#[derive(Debug)]
struct Seated {
    taken: PerOrigin<u64>,
    next: u64,
    /// Dropping the sender evicts the holder.
    ends: HashMap<u64, oneshot::Sender<()>>,
}

/// A seat, held until it is dropped or evicted.
#[derive(Debug)]
struct Seat {
    seats: Seats,
    number: u64,
    end: oneshot::Receiver<()>,
}

impl Seats {
    fn new(most: usize, most_each: usize) -> Self {
        let taken = PerOrigin::new(most, most_each);
        Self(Arc::new(Mutex::new(Seated { taken, next: 0, ends: HashMap::new() })))
    }

    /// Takes a seat, evicting another holder if all are taken.
    fn take(&self, origin: Origin) -> Seat {
        let (sender, end) = oneshot::channel();
        let mut seated = lock(&self.0);
        let number = seated.next;
        seated.next += 1;
        if let Some(evicted) = seated.taken.insert(origin, number) {
            seated.ends.remove(&evicted);
        }
        seated.ends.insert(number, sender);
        Seat { seats: self.clone(), number, end }
    }

    #[cfg(test)]
    fn taken(&self) -> usize {
        lock(&self.0).taken.len()
    }
}

impl Seat {
    /// Resolves when the seat was taken by another.
    async fn is_evicted(&mut self) {
        let _ = (&mut self.end).await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seated = lock(&self.seats.0);
        seated.taken.remove(&self.number);
        seated.ends.remove(&self.number);
    }
}

/// A stranger's connection, shared by its channels: whether its request has arrived.
#[derive(Debug, Default)]
pub(crate) struct Visit(AtomicBool);

impl Visit {
    /// The stranger's request has arrived.
    pub(crate) fn heard(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_heard(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters for handshakes and connections.
#[derive(Debug)]
pub(super) struct Door {
    gate: Mutex<Gate>,
    handshakes: Seats,
    known_handshakes: Arc<Semaphore>,
    strangers: Seats,
    expected: Seats,
}

/// What to do with a new handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// Continues, outside the strangers' limits.
    Known,
    /// Continues within the strangers' limits, if there is room.
    Stranger,
    /// Must prove its address and retry with the proof. This costs one packet and keeps no state.
    Prove,
}

/// Decides about a handshake, given how many known machines' handshakes are under way.
fn choose(comer: Comer, is_proven: bool, known_under_way: usize) -> Choice {
    let has_room = known_under_way < if is_proven { KNOWN_HANDSHAKES } else { KNOWN_PROVE_FROM };
    match comer {
        Comer::Known if has_room => Choice::Known,
        _ if is_proven => Choice::Stranger,
        _ => Choice::Prove,
    }
}

/// An admitted handshake, counted until it is dropped.
#[derive(Debug)]
pub(super) enum Handshake {
    Known { _permit: OwnedSemaphorePermit },
    Stranger(SeatOfHandshake),
}

/// The seat of a stranger's handshake.
#[derive(Debug)]
pub(super) struct SeatOfHandshake(Seat);

impl Handshake {
    /// Resolves when another handshake needs the seat.
    pub(super) async fn is_evicted(&mut self) {
        match self {
            Self::Known { .. } => std::future::pending().await,
            Self::Stranger(SeatOfHandshake(seat)) => seat.is_evicted().await,
        }
    }
}

impl Default for Door {
    fn default() -> Self {
        Self {
            gate: Mutex::default(),
            handshakes: Seats::new(HANDSHAKES, HANDSHAKES_EACH),
            known_handshakes: Arc::new(Semaphore::new(KNOWN_HANDSHAKES)),
            strangers: Seats::new(STRANGERS, STRANGERS_EACH),
            expected: Seats::new(EXPECTED, EXPECTED_EACH),
        }
    }
}

impl Door {
    /// Admits a handshake, with the place it holds; others are ignored, or asked to prove their address first. `comer`
    /// classifies an address.
    pub(super) fn answer(
        &self,
        incoming: Incoming,
        admission: &Admission,
        comer: impl Fn(IpAddr) -> Comer,
    ) -> Option<(Incoming, Handshake)> {
        let from = incoming.remote_addr();
        let comer = match &from {
            IncomingAddr::Ip(socket) => comer(socket.ip()),
            // The relay has verified the key.
            IncomingAddr::Relay { endpoint_id, .. } if admission.is_approved(PeerId::new(*endpoint_id)) => Comer::Known,
            _ => Comer::Stranger,
        };
        let under_way = KNOWN_HANDSHAKES - self.known_handshakes.available_permits();
        match choose(comer, incoming.remote_addr_validated(), under_way) {
            Choice::Known => {
                if let Ok(permit) = self.known_handshakes.clone().try_acquire_owned() {
                    return Some((incoming, Handshake::Known { _permit: permit }));
                }
            }
            Choice::Stranger => {}
            Choice::Prove => {
                if let Err(error) = incoming.retry() {
                    error.into_incoming().ignore();
                }
                return None;
            }
        }
        let (origin, is_expected) = (Origin::from(&from), comer != Comer::Stranger);
        if !lock(&self.gate).admits(origin, is_expected, Instant::now()) {
            incoming.ignore();
            return None;
        }
        Some((incoming, Handshake::Stranger(SeatOfHandshake(self.handshakes.take(origin)))))
    }

    /// Resolves when an unapproved machine's connection should be closed: it is silent, has no open channel, or is
    /// evicted.
    pub(super) async fn should_close(&self, origin: Origin, peer: PeerId, admission: &Admission, visit: &Arc<Visit>) {
        let since = Instant::now();
        let mut is_expected = admission.is_expected(peer);
        let seats = |is_expected| if is_expected { &self.expected } else { &self.strangers };
        let mut seat = seats(is_expected).take(origin);
        let mut looks = tokio::time::interval(POLL_INTERVAL);
        loop {
            let is_evicted = tokio::select! {
                () = seat.is_evicted() => true,
                _ = looks.tick() => false,
            };
            if admission.is_approved(peer) {
                drop(seat);
                return std::future::pending().await;
            }
            // Since then its pairing was shown, or ended: it moves to the other seats.
            if is_evicted && admission.is_expected(peer) == is_expected {
                break;
            }
            if admission.is_expected(peer) != is_expected {
                is_expected = !is_expected;
                seat = seats(is_expected).take(origin);
            }
            // Each channel holds the visit, as do this task and the accepting one.
            let wants_something = Arc::strong_count(visit) > 2;
            if since.elapsed() >= FIRST_WORDS && !(visit.is_heard() && wants_something) {
                break;
            }
        }
    }
}

/// Closes a stranger's connection.
pub(super) fn evict(connection: &Connection) {
    connection.close(VarInt::from_u32(EVICTED), b"not approved, and others wait");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_address_holds_no_place() {
        for comer in [Comer::Stranger, Comer::Expected] {
            assert_eq!(choose(comer, false, 0), Choice::Prove);
            assert_eq!(choose(comer, true, 0), Choice::Stranger);
        }
    }

    #[test]
    fn whoever_forges_the_address_of_a_known_machine_leaves_room_for_that_machine() {
        let mut under_way = 0;
        while choose(Comer::Known, false, under_way) == Choice::Known {
            under_way += 1;
        }
        assert_eq!((under_way, choose(Comer::Known, false, under_way)), (KNOWN_PROVE_FROM, Choice::Prove));
        assert_eq!(choose(Comer::Known, true, under_way), Choice::Known);
        // However many there are, at worst they queue among strangers.
        assert_eq!(choose(Comer::Known, true, KNOWN_HANDSHAKES), Choice::Stranger);
    }

    #[tokio::test]
    async fn whoever_has_to_go_hears_of_it_and_an_empty_seat_is_free() {
        let seats = Seats::new(2, 1);
        let from = |last: u8| Origin::of(IpAddr::from([10, 0, 0, last]));
        let (mut one, mut two) = (seats.take(from(1)), seats.take(from(2)));
        let again = seats.take(from(1));
        one.is_evicted().await;
        assert_eq!(seats.taken(), 2);
        let three = seats.take(from(3));
        two.is_evicted().await;
        drop((one, two));
        assert_eq!(seats.taken(), 2, "a seat that was taken away is not given back twice");
        drop((again, three));
        assert_eq!(seats.taken(), 0);
        assert!(lock(&seats.0).ends.is_empty());
    }
}
