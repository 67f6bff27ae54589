//! The door: whose handshakes are answered, and how long a stranger's connection stays.
//!
//! What holds: strangers have so many handshakes and connections between them and no more, shared out by where they
//! come from ([`PerOrigin`]); an approved machine that comes from where it has been before does not wait among them; an address
//! that anybody can forge counts for nothing until whoever comes from it has proven to receive what is sent there
//! ([`choose`]); a stranger that says nothing is sent away, and one that has said what it wants stays no longer than that
//! takes.

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

/// Handshakes of strangers under way at a time, in all and of one origin. Each costs some cryptography.
const HANDSHAKES: usize = 32;
const HANDSHAKES_EACH: usize = 8;
/// Handshakes under way of machines that come from where an approved one has been.
const KNOWN_HANDSHAKES: usize = 32;
/// From so many on, those prove their address as well: some of them only say that they come from there.
const KNOWN_PROVE_FROM: usize = KNOWN_HANDSHAKES / 2;

/// Connections of strangers, in all and of one origin.
const STRANGERS: usize = 64;
const STRANGERS_EACH: usize = 8;
/// Connections of machines whose pairing is shown to this owner.
const EXPECTED: usize = 32;
const EXPECTED_EACH: usize = 4;
/// How soon a stranger says what it wants.
const FIRST_WORDS: Duration = Duration::from_secs(15);
/// How often it is looked whether a stranger still wants anything.
const LOOK: Duration = Duration::from_secs(1);

/// Close code for a stranger that says nothing, or whose seat another needs.
const EVICTED: u32 = 4;

/// A bounded number of seats; whoever has one holds a [`Seat`]. Clones share them.
#[derive(Debug, Clone)]
struct Seats(Arc<Mutex<Seated>>);

#[derive(Debug)]
struct Seated {
    taken: PerOrigin<u64>,
    next: u64,
    /// Whoever sits there hears of it when the sender goes.
    ends: HashMap<u64, oneshot::Sender<()>>,
}

/// A seat, until it is dropped or taken away.
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

    /// Sits somebody down, in the seat of another if need be.
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
    /// Ends when another needs the seat.
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

/// A stranger's connection, as its channels know it: whether it has said what it wants.
#[derive(Debug, Default)]
pub(crate) struct Visit(AtomicBool);

impl Visit {
    /// It has said what it wants.
    pub(crate) fn heard(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_heard(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted of those who come.
#[derive(Debug)]
pub(super) struct Door {
    gate: Mutex<Gate>,
    handshakes: Seats,
    known_handshakes: Arc<Semaphore>,
    strangers: Seats,
    expected: Seats,
}

/// What becomes of somebody who begins a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// It goes on, beside those of strangers.
    Known,
    /// It goes on among those of strangers, if there is room.
    Stranger,
    /// It is asked to prove its address, and comes again with the proof. This costs one packet, and is forgotten at once.
    Prove,
}

/// Decides about a handshake, while so many of known machines are under way.
fn choose(comer: Comer, is_proven: bool, known_under_way: usize) -> Choice {
    let has_room = known_under_way < if is_proven { KNOWN_HANDSHAKES } else { KNOWN_PROVE_FROM };
    match comer {
        Comer::Known if has_room => Choice::Known,
        _ if is_proven => Choice::Stranger,
        _ => Choice::Prove,
    }
}

/// A handshake that may go on; it ends when it is dropped.
#[derive(Debug)]
pub(super) enum Handshake {
    Known { _permit: OwnedSemaphorePermit },
    Stranger(SeatOfHandshake),
}

/// The seat of a stranger's handshake.
#[derive(Debug)]
pub(super) struct SeatOfHandshake(Seat);

impl Handshake {
    /// Ends when others need its place.
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
    /// Whether a handshake may go on, and with what it holds its place. Others are ignored, or asked to prove their
    /// address first. `comer` tells who comes from an address.
    pub(super) fn answer(
        &self,
        incoming: Incoming,
        admission: &Admission,
        comer: impl Fn(IpAddr) -> Comer,
    ) -> Option<(Incoming, Handshake)> {
        let from = incoming.remote_addr();
        let comer = match &from {
            IncomingAddr::Ip(socket) => comer(socket.ip()),
            // The relay has made sure of the key.
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

    /// Ends when a connection should be closed: one of a machine that was not approved, and that says nothing, wants nothing
    /// any more, or is evicted.
    pub(super) async fn should_close(&self, origin: Origin, peer: PeerId, admission: &Admission, visit: &Arc<Visit>) {
        let since = Instant::now();
        let mut is_expected = admission.is_expected(peer);
        let seats = |is_expected| if is_expected { &self.expected } else { &self.strangers };
        let mut seat = seats(is_expected).take(origin);
        let mut looks = tokio::time::interval(LOOK);
        loop {
            let is_evicted = tokio::select! {
                () = seat.is_evicted() => true,
                _ = looks.tick() => false,
            };
            if admission.is_approved(peer) {
                drop(seat);
                return std::future::pending().await;
            }
            // One whose code is shown by now sits elsewhere.
            if is_evicted && admission.is_expected(peer) == is_expected {
                break;
            }
            if admission.is_expected(peer) != is_expected {
                is_expected = !is_expected;
                seat = seats(is_expected).take(origin);
            }
            // Besides this one, each channel holds the visit, and whoever accepts them.
            let wants_something = Arc::strong_count(visit) > 2;
            if since.elapsed() >= FIRST_WORDS && !(visit.is_heard() && wants_something) {
                break;
            }
        }
    }
}

/// Closes the connection of a stranger.
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
        // However many there are, they wait among strangers at worst.
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
