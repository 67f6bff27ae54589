//! Both ends of a stage stream: frames one way, receipts the other.
//!
//! Invariant: every frame that is sent arrives, as long as some connection can be made. The sender keeps each frame
//! until its receipt arrives. When the connection breaks, it redials and resends those frames in order, and the
//! receiver drops duplicates.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use iroh::endpoint::{ReadExactError, RecvStream, SendStream};
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::control::ControlError;
use crate::endpoint::{Channel, ConnectError};
use crate::lock::lock;
use crate::pace::Pace;
use crate::wire::{Frame, HEADER_BYTES, Header, RECEIPT_BYTES, Receipt, WireError};

/// Round trips remembered per link.
const REMEMBERED: usize = 512;

/// Payloads are read in pieces of this size, so that a peer that announces a large payload and sends none costs no
/// memory.
const PIECE_BYTES: usize = 1 << 20;

/// Frames at multiples of this position, and large ones, are acknowledged at once, to measure the round trip and free
/// the sender's buffer. The receipts of other frames are delayed: each would cost as much as a token's frame.
const PROMPT_RECEIPTS: u32 = 8;
const MANY_BYTES: usize = 64 << 10;
/// Maximum delay of a receipt.
const RECEIPT_DELAY: Duration = Duration::from_millis(100);

/// How long a broken stream is redialled before it is abandoned: enough to replug a cable or change networks.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two redials.
const REPAIR_PAUSE: Duration = Duration::from_millis(100);

/// Why a stage stream ended.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The connection broke and could not be re-established.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The other side sent an invalid frame.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Why a stage stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The peer could not be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The first message could not be sent.
    #[error(transparent)]
    Greeting(#[from] ControlError),
}

impl DialError {
    /// Whether a retry is pointless. Asking again does not get a machine approved.
    fn is_final(&self) -> bool {
        matches!(self, Self::Connect(ConnectError::NotAllowed(_) | ConnectError::Refused(_)))
    }
}

/// Opens the stream again, with its first message already written.
pub type Dial = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Channel, DialError>> + Send>> + Send + Sync>;

/// Unacknowledged frames, and recent times from sending a frame to its receipt.
#[derive(Debug, Default)]
struct Flight {
    waiting: VecDeque<(Frame, Instant)>,
    round_trips: VecDeque<Duration>,
}

/// The sending end. Dropping it ends the stream.
pub struct Outlet {
    shared: Arc<Shared>,
    ended: watch::Receiver<Option<String>>,
    /// Reads receipts, and reopens the stream.
    _keeper: AbortOnDropHandle<()>,
}

struct Shared {
    /// `None` while reconnecting.
    stream: AsyncMutex<Option<SendStream>>,
    flight: Arc<Mutex<Flight>>,
    dial: Dial,
    pace: Pace,
    ended: watch::Sender<Option<String>>,
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlet").field("ended", &*self.ended.borrow()).finish_non_exhaustive()
    }
}

impl Outlet {
    /// Opens a stream and reopens it whenever it breaks. Sends observe the rate limit.
    pub async fn open(dial: Dial, pace: Pace) -> Result<Self, DialError> {
        let Channel { send, recv, .. } = dial().await?;
        let (sender, ended) = watch::channel(None);
        let shared =
            Arc::new(Shared { stream: AsyncMutex::new(Some(send)), flight: Arc::default(), dial, pace, ended: sender });
        #[allow(clippy::disallowed_methods, reason = "it ends with the outlet")]
        let keeper = tokio::spawn(keep(Arc::downgrade(&shared), recv));
        Ok(Self { shared, ended, _keeper: AbortOnDropHandle::new(keeper) })
    }

    /// Sends a frame. Returns once it is on its way, or queued until the stream is reconnected.
    pub async fn send(&mut self, frame: Frame) -> Result<(), StageError> {
        self.shared.pace.pass(HEADER_BYTES + frame.payload.len()).await;
        let mut stream = self.shared.stream.lock().await;
        if let Some(why) = &*self.ended.borrow() {
            return Err(StageError::Broken(why.clone()));
        }
        lock(&self.shared.flight).waiting.push_back((frame.clone(), Instant::now()));
        if let Some(open) = &mut *stream
            && write(open, frame).await.is_err()
        {
            // The keeper notices the break as well and reconnects; this frame is among those it resends.
            *stream = None;
        }
        Ok(())
    }

    /// Resolves when the stream has broken for good, with the reason; with `None` if its owner has dropped it.
    pub fn ended(&self) -> impl Future<Output = Option<String>> + Send + 'static {
        let mut ended = self.ended.clone();
        async move { ended.wait_for(Option::is_some).await.ok().and_then(|why| why.clone()) }
    }

    /// The observed round trips, for reports.
    pub fn round_trips(&self) -> RoundTrips {
        RoundTrips(self.shared.flight.clone())
    }
}

async fn write(stream: &mut SendStream, frame: Frame) -> Result<(), iroh::endpoint::WriteError> {
    let mut parts = [Bytes::copy_from_slice(&frame.header()), frame.payload];
    stream.write_all_chunks(&mut parts).await
}

/// A handle to a link's round trips that does not borrow the link.
#[derive(Debug, Clone)]
pub struct RoundTrips(Arc<Mutex<Flight>>);

impl RoundTrips {
    /// The median of the latest round trips, if there are any.
    pub fn median(&self) -> Option<Duration> {
        let mut sorted: Vec<_> = lock(&self.0).round_trips.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

/// Reads receipts, and reconnects the stream when it breaks.
async fn keep(outlet: Weak<Shared>, mut recv: RecvStream) {
    loop {
        if let Some(shared) = outlet.upgrade() {
            let flight = shared.flight.clone();
            // Only the owner keeps the outlet alive while this reads.
            drop(shared);
            read_receipts(&mut recv, &flight).await;
        }
        let Some(shared) = outlet.upgrade() else { return };
        match repair(&shared).await {
            Ok(again) => recv = again,
            Err(why) => {
                shared.ended.send_replace(Some(why));
                return;
            }
        }
    }
}

async fn repair(shared: &Shared) -> Result<RecvStream, String> {
    *shared.stream.lock().await = None;
    let until = Instant::now() + REPAIR_TIMEOUT;
    loop {
        match (shared.dial)().await {
            Ok(Channel { mut send, recv, .. }) => {
                let mut stream = shared.stream.lock().await;
                let waiting: Vec<Frame> = lock(&shared.flight).waiting.iter().map(|(frame, _)| frame.clone()).collect();
                let mut whole = true;
                for frame in waiting {
                    whole &= write(&mut send, frame).await.is_ok();
                }
                if whole {
                    *stream = Some(send);
                    return Ok(recv);
                }
            }
            Err(error) if error.is_final() || Instant::now() > until => return Err(error.to_string()),
            Err(_) => {}
        }
        tokio::time::sleep(REPAIR_PAUSE).await;
    }
}

async fn read_receipts(recv: &mut RecvStream, flight: &Mutex<Flight>) {
    let mut bytes = [0; RECEIPT_BYTES];
    while recv.read_exact(&mut bytes).await.is_ok() {
        let receipt = Receipt::decode(bytes);
        let mut flight = lock(flight);
        // Frames arrive in order, so a receipt covers earlier ones too; a resent frame may get two receipts.
        if flight.waiting.iter().any(|(frame, _)| frame.receipt() == receipt) {
            while let Some((frame, sent)) = flight.waiting.pop_front() {
                if frame.receipt() == receipt {
                    if is_prompt(&frame) {
                        if flight.round_trips.len() == REMEMBERED {
                            flight.round_trips.pop_front();
                        }
                        flight.round_trips.push_back(sent.elapsed());
                    }
                    break;
                }
            }
        }
    }
}

/// The receipt of a frame, to be acknowledged once the frame has been passed on.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    receipt: Receipt,
    is_prompt: bool,
}

impl Received {
    /// The receipt of this frame.
    pub fn of(frame: &Frame) -> Self {
        Self { receipt: frame.receipt(), is_prompt: is_prompt(frame) }
    }

    /// Whether the receipt is sent at once.
    pub fn is_prompt(&self) -> bool {
        self.is_prompt
    }
}

/// Whether a frame's receipt is sent at once. Both ends use this rule to tell which receipts measure a round trip.
fn is_prompt(frame: &Frame) -> bool {
    frame.position.is_multiple_of(PROMPT_RECEIPTS) || frame.payload.len() >= MANY_BYTES
}

/// Payloads up to this size take no budget: their queues are bounded.
const SMALL_BYTES: usize = 4 << 10;

/// Memory that one machine's frames may take here until they are computed. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget {
    /// In KiB.
    room: Arc<Semaphore>,
    most: u32,
}

impl Budget {
    /// A budget of this many bytes.
    pub fn new(bytes: usize) -> Self {
        let most = u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
        Self { room: Arc::new(Semaphore::new(most as usize)), most }
    }

    /// Waits for room for a payload. A payload larger than the budget waits until it is alone.
    async fn room_for(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        if bytes <= SMALL_BYTES {
            return None;
        }
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX).min(self.most);
        self.room.clone().acquire_many_owned(kib).await.ok()
    }
}

/// A payload and its share of the budget, released when the last slice is dropped.
struct Held {
    bytes: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Inlet {
    channel: Channel,
    budget: Budget,
    /// The part of the next frame's header received so far.
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    /// The latest receipt, and since when it has been due.
    due: Option<(Receipt, Instant)>,
}

impl Inlet {
    /// Takes a channel opened by the other side. Its frames use the budget.
    pub fn new(channel: Channel, budget: Budget) -> Self {
        Self { channel, budget, header: [0; HEADER_BYTES], header_bytes: 0, due: None }
    }

    /// Receives the next frame; `None` when the sender has finished. Pass the frame on before acknowledging it: the
    /// frame is on a token's critical path, the receipt is not.
    pub async fn recv(&mut self) -> Result<Option<Frame>, StageError> {
        let broken = |error: ReadExactError| StageError::Broken(error.to_string());
        while self.header_bytes < HEADER_BYTES {
            let since = self.due.map(|(_, since)| since);
            let overdue = async {
                match since {
                    Some(since) => tokio::time::sleep_until((since + RECEIPT_DELAY).into()).await,
                    None => std::future::pending().await,
                }
            };
            let read = tokio::select! {
                biased;
                // Cancel-safe: no bytes are lost.
                read = self.channel.recv.read(&mut self.header[self.header_bytes..]) => Some(read),
                () = overdue => None,
            };
            match read {
                Some(Ok(Some(bytes))) => self.header_bytes += bytes,
                Some(Ok(None)) if self.header_bytes == 0 => return Ok(None),
                Some(Ok(None)) => return Err(StageError::Broken("a frame's header is cut".to_owned())),
                Some(Err(error)) => return Err(StageError::Broken(error.to_string())),
                None => self.send_receipt().await?,
            }
        }
        self.header_bytes = 0;
        let header = Header::decode(&self.header)?;
        let length = header.payload_bytes as usize;
        let room = self.budget.room_for(length).await;
        let mut payload = Vec::with_capacity(length.min(PIECE_BYTES));
        while payload.len() < length {
            let start = payload.len();
            payload.resize((start + PIECE_BYTES).min(length), 0);
            self.channel.recv.read_exact(&mut payload[start..]).await.map_err(broken)?;
        }
        let payload = match room {
            None => payload.into(),
            room => Bytes::from_owner(Held { bytes: payload, _room: room }),
        };
        Ok(Some(header.with_payload(payload)))
    }

    /// Acknowledges a frame, now or together with the next ones.
    pub async fn acknowledge(&mut self, receipt: Received) -> Result<(), StageError> {
        let Received { receipt, is_prompt } = receipt;
        let since = self.due.map_or_else(Instant::now, |(_, since)| since);
        self.due = Some((receipt, since));
        if is_prompt { self.send_receipt().await } else { Ok(()) }
    }

    async fn send_receipt(&mut self) -> Result<(), StageError> {
        let Some((receipt, _)) = self.due.take() else { return Ok(()) };
        let written = self.channel.send.write_all(&receipt.encode()).await;
        written.map_err(|error| StageError::Broken(error.to_string()))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test ends with its runtime")]
mod tests {
    use super::*;
    use crate::endpoint::{Endpoint, EndpointOptions, Incoming};
    use crate::identity::Identity;
    use crate::protocol::Protocol;
    use crate::wire::{Element, Kind};
    use tokio::sync::mpsc;

    async fn pair() -> (Endpoint, Endpoint, mpsc::Receiver<Incoming>) {
        let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let bind = || Endpoint::bind(EndpointOptions::new(Identity::generate(), loopback));
        let ((here, _), (there, incoming)) = (bind().await.unwrap(), bind().await.unwrap());
        here.admission().approve(there.id());
        there.admission().approve(here.id());
        (here, there, incoming)
    }

    fn dial(from: &Endpoint, to: &Endpoint) -> Dial {
        let (from, addr) = (from.clone(), to.addr());
        Box::new(move || {
            let (from, addr) = (from.clone(), addr.clone());
            Box::pin(async move {
                let mut channel = from.open(&addr, Protocol::Stage).await?;
                channel.write_message(&1u8).await?;
                Ok(channel)
            })
        })
    }

    fn frame(position: u32) -> Frame {
        Frame {
            kind: Kind::Token,
            element: Element::Byte,
            sample: false,
            last: false,
            session: 1,
            epoch: 0,
            position,
            rows: 1,
            width: 4,
            payload: Bytes::from_static(&[1, 2, 3, 4]),
        }
    }

    async fn inlet(incoming: &mut mpsc::Receiver<Incoming>) -> Inlet {
        let mut channel = incoming.recv().await.unwrap().channel;
        assert_eq!(channel.read_message::<u8>().await.unwrap(), Some(1));
        Inlet::new(channel, Budget::new(1 << 20))
    }

    #[tokio::test]
    async fn who_waits_for_the_end_of_a_stream_hears_of_an_owner_that_drops_it() {
        let (sender, ended) = watch::channel(None);
        #[allow(clippy::disallowed_methods, reason = "it has ended")]
        let keeper = AbortOnDropHandle::new(tokio::spawn(async {}));
        let dial: Dial = Box::new(|| Box::pin(std::future::pending()));
        let (stream, flight) = (AsyncMutex::new(None), Arc::default());
        let shared = Arc::new(Shared { stream, flight, dial, pace: Pace::default(), ended: sender });
        let outlet = Outlet { shared, ended, _keeper: keeper };
        let waiting = outlet.ended();
        drop(outlet);
        let heard = tokio::time::timeout(Duration::from_secs(5), waiting).await;
        assert_eq!(heard.expect("it is waited for ever"), None);
    }

    #[tokio::test]
    async fn large_frames_wait_until_there_is_room_for_them() {
        let budget = Budget::new(64 << 10);
        assert!(budget.room_for(SMALL_BYTES).await.is_none());
        let half = budget.room_for(32 << 10).await.unwrap();
        let payload = Bytes::from_owner(Held { bytes: vec![1; 32 << 10], _room: Some(half) });
        let (part, budget_again) = (payload.slice(5..), budget.clone());
        let mut larger = tokio::spawn(async move { budget_again.room_for(1 << 20).await });
        drop(payload);
        tokio::task::yield_now().await;
        assert!(!larger.is_finished(), "a part of the first one is still here");
        drop(part);
        assert!((&mut larger).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn frames_without_a_receipt_come_again_after_a_break() {
        let (here, there, mut incoming) = pair().await;
        let mut outlet = Outlet::open(dial(&here, &there), Pace::default()).await.unwrap();
        for position in 0..3 {
            outlet.send(frame(position)).await.unwrap();
        }
        let mut first = inlet(&mut incoming).await;
        let got = first.recv().await.unwrap().unwrap();
        first.acknowledge(Received::of(&got)).await.unwrap();
        // Until its receipt arrives, a frame counts as lost.
        while lock(&outlet.shared.flight).waiting.len() == 3 {
            tokio::task::yield_now().await;
        }
        there.admission().hang_up(here.id(), Instant::now());
        let mut second = inlet(&mut incoming).await;
        outlet.send(frame(3)).await.unwrap();
        for position in 1..4 {
            assert_eq!(second.recv().await.unwrap().unwrap(), frame(position));
        }
    }

    #[tokio::test]
    async fn receipts_of_tokens_come_together_and_the_last_ones_soon() {
        let (here, there, mut incoming) = pair().await;
        let mut outlet = Outlet::open(dial(&here, &there), Pace::default()).await.unwrap();
        let mut inlet = inlet(&mut incoming).await;
        let flight = outlet.shared.flight.clone();
        let waiting = || lock(&flight).waiting.len();
        for position in 1..=8 {
            outlet.send(frame(position)).await.unwrap();
            let got = inlet.recv().await.unwrap().unwrap();
            inlet.acknowledge(Received::of(&got)).await.unwrap();
            if position < 8 {
                assert_eq!(waiting(), position as usize, "its receipt waits");
            }
        }
        while waiting() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(lock(&flight).round_trips.len(), 1, "one round trip was told");
        outlet.send(frame(9)).await.unwrap();
        let got = inlet.recv().await.unwrap().unwrap();
        inlet.acknowledge(Received::of(&got)).await.unwrap();
        // No more frames come; the pending `recv` sends the receipt when it is due.
        let idle = tokio::spawn(async move { inlet.recv().await });
        while waiting() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(lock(&flight).round_trips.len(), 1, "a receipt that waited tells none");
        drop(outlet);
        assert!(matches!(idle.await.unwrap(), Ok(None) | Err(_)));
    }

    #[tokio::test]
    async fn a_stream_to_a_machine_that_refuses_ends_with_a_reason() {
        let (here, there, mut incoming) = pair().await;
        let outlet = Outlet::open(dial(&here, &there), Pace::default()).await.unwrap();
        let _first = inlet(&mut incoming).await;
        here.admission().revoke(there.id());
        let why = tokio::time::timeout(REPAIR_TIMEOUT / 2, outlet.ended()).await.expect("no use in waiting").unwrap();
        assert!(why.contains("not approved"), "{why}");
    }
}
