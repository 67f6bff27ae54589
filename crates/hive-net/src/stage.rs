//! Both ends of a stage stream: frames one way, receipts the other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use iroh::endpoint::{ReadExactError, RecvStream, SendStream};

use crate::endpoint::Channel;
use crate::wire::{Frame, HEADER_BYTES, Header, RECEIPT_BYTES, Receipt, WireError};

/// Round trips that a link remembers.
const REMEMBERED: usize = 512;

/// Payload is read in pieces of this size, so that a peer that announces much and sends nothing costs nothing.
const PIECE_BYTES: usize = 1 << 20;

/// Why a stage stream ended.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The other side sent no frame.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Times from sending a frame to its receipt.
#[derive(Debug, Default)]
struct Flight {
    waiting: VecDeque<(Receipt, Instant)>,
    round_trips: VecDeque<Duration>,
}

/// The sending end.
#[derive(Debug)]
pub struct Outlet {
    send: SendStream,
    flight: Arc<Mutex<Flight>>,
}

impl Outlet {
    /// Takes over a channel that this side opened.
    pub fn new(channel: Channel) -> Self {
        let flight = Arc::new(Mutex::new(Flight::default()));
        tokio::spawn(read_receipts(channel.recv, flight.clone()));
        Self { send: channel.send, flight }
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: Frame) -> Result<(), StageError> {
        self.lock().waiting.push_back((frame.receipt(), Instant::now()));
        let mut parts = [Bytes::copy_from_slice(&frame.header()), frame.payload];
        self.send.write_all_chunks(&mut parts).await.map_err(|error| StageError::Broken(error.to_string()))
    }

    /// The round trips observed, for whoever wants to report them.
    pub fn round_trips(&self) -> RoundTrips {
        RoundTrips(self.flight.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Flight> {
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A view of a link's round trips that outlives the borrow of the link.
#[derive(Debug, Clone)]
pub struct RoundTrips(Arc<Mutex<Flight>>);

impl RoundTrips {
    /// The median of the latest ones, if there were any.
    pub fn median(&self) -> Option<Duration> {
        let flight = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sorted: Vec<_> = flight.round_trips.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

async fn read_receipts(mut recv: RecvStream, flight: Arc<Mutex<Flight>>) {
    let mut bytes = [0; RECEIPT_BYTES];
    while recv.read_exact(&mut bytes).await.is_ok() {
        let receipt = Receipt::decode(bytes);
        let mut flight = flight.lock().unwrap_or_else(PoisonError::into_inner);
        // Frames arrive in order, so their receipts do too.
        while let Some((waiting, sent)) = flight.waiting.pop_front() {
            if waiting == receipt {
                if flight.round_trips.len() == REMEMBERED {
                    flight.round_trips.pop_front();
                }
                flight.round_trips.push_back(sent.elapsed());
                break;
            }
        }
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Inlet {
    channel: Channel,
}

impl Inlet {
    /// Takes over a channel that the other side opened.
    pub fn new(channel: Channel) -> Self {
        Self { channel }
    }

    /// The next frame; `None` when the sender has finished. The caller passes it on and then acknowledges it: the
    /// receipt is for the sender's peace of mind, the frame is on the way of a token.
    pub async fn recv(&mut self) -> Result<Option<Frame>, StageError> {
        let broken = |error: ReadExactError| StageError::Broken(error.to_string());
        let mut bytes = [0; HEADER_BYTES];
        match self.channel.recv.read_exact(&mut bytes).await {
            Ok(()) => {}
            Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
            Err(error) => return Err(broken(error)),
        }
        let header = Header::decode(&bytes)?;
        let length = header.payload_bytes as usize;
        let mut payload = Vec::with_capacity(length.min(PIECE_BYTES));
        while payload.len() < length {
            let start = payload.len();
            payload.resize((start + PIECE_BYTES).min(length), 0);
            self.channel.recv.read_exact(&mut payload[start..]).await.map_err(broken)?;
        }
        Ok(Some(header.with_payload(payload.into())))
    }

    /// Tells the sender that a frame has come.
    pub async fn acknowledge(&mut self, receipt: Receipt) -> Result<(), StageError> {
        let written = self.channel.send.write_all(&receipt.encode()).await;
        written.map_err(|error| StageError::Broken(error.to_string()))
    }
}
