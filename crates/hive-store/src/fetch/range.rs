//! One connection: requests a range of a file once and writes the bytes that arrive.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::{Method, StatusCode, Url};
use tokio::sync::Mutex;

use super::limit::RateLimit;
use super::progress::Meter;
use crate::beside::beside;
use crate::error::HubError;
use crate::hub::failure::{RequestFailure, of_connection};
use crate::hub::request::{Answer, Line, Question, host, silence};
use crate::hub::{Hub, Listing, RemoteFile, total};

/// Bytes collected before they are written. A killed process loses what eight connections have collected: half a
/// megabyte.
const WRITE: usize = 64 << 10;

/// The source of a file's bytes.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    line: &'a Line,
    /// The file's address on the hub.
    pub(crate) address: Url,
    /// The address that the hub redirected to, for the next range. It expires after an hour.
    place: Mutex<Option<Url>>,
    commit: &'a str,
    bytes: u64,
    /// The repository, and the file in it, for messages.
    model: String,
    what: String,
}

/// Why a connection ended before its range did.
#[derive(Debug)]
pub(crate) enum End {
    /// The network or the hub.
    Request(RequestFailure),
    /// The server ignores ranges and sends the whole file.
    IgnoresRanges,
    /// The disk.
    Disk(io::Error),
}

impl From<RequestFailure> for End {
    fn from(failure: RequestFailure) -> Self {
        Self::Request(failure)
    }
}

/// A file on the disk that is written in any order.
pub(crate) trait Target: Send + Sync + 'static {
    /// Writes bytes at an offset, and returns how many of them are new.
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<u64>;

    /// The next missing range of a segment, if there is one.
    fn next(&self, segment: &Range<u64>) -> Option<Range<u64>>;

    /// Bytes written so far.
    fn done(&self) -> u64;

    /// Bytes are written in multiples of this, except where a range ends.
    fn unit(&self) -> usize;
}

/// The context that all connections of a file share.
#[derive(Clone, Copy)]
pub(crate) struct Sink<'a> {
    pub(crate) to: &'a Arc<dyn Target>,
    pub(crate) meter: &'a Meter<'a>,
    pub(crate) limit: &'a RateLimit,
}

impl<'a> Source<'a> {
    pub(crate) fn new(hub: &'a Hub, listing: &'a Listing, file: &RemoteFile) -> Self {
        let model = listing.model.repository();
        Self {
            line: hub.line(),
            address: hub.address(listing, &file.name),
            place: Mutex::new(None),
            commit: &listing.commit,
            bytes: file.bytes,
            what: format!("{} of {model}", file.name),
            model,
        }
    }

    /// Fetches a range, or as much of it as one connection delivers.
    pub(crate) async fn take(&self, range: Range<u64>, sink: Sink<'_>) -> Result<(), End> {
        let is_whole = range == (0..self.bytes);
        let (answer, used) = self.ask(Some(range.clone()).filter(|_| !is_whole)).await?;
        match answer.response.status() {
            StatusCode::PARTIAL_CONTENT if !self.is_range(&answer, &range) => {
                Err(self.other_file(&answer, used).await.into())
            }
            StatusCode::PARTIAL_CONTENT => self.copy(answer, range, sink).await,
            _ if is_whole => self.copy(answer, range, sink).await,
            _ => Err(End::IgnoresRanges),
        }
    }

    /// Fetches the whole file from a server without ranges; bytes already present are not written again.
    pub(crate) async fn take_whole(&self, sink: Sink<'_>) -> Result<(), End> {
        let (answer, _) = self.ask(None).await?;
        self.copy(answer, 0..self.bytes, sink).await
    }

    /// Asks the address that the hub redirected to earlier, else the hub. Also returns whether it was the former.
    async fn ask(&self, range: Option<Range<u64>>) -> Result<(Answer, bool), RequestFailure> {
        let mut place = self.place.lock().await;
        let Some(url) = place.clone() else {
            // While the hub is asked, the others wait: one answer is enough for all.
            let answer = self.ask_at(self.address.clone(), range).await?;
            *place = Some(answer.url.clone());
            return Ok((answer, false));
        };
        drop(place);
        let asked = self.ask_at(url, range).await;
        if asked.is_err() {
            // The link may be too old, or that server may be down: the hub names another.
            self.forget_place().await;
        }
        Ok((asked?, true))
    }

    async fn ask_at(&self, url: Url, range: Option<Range<u64>>) -> Result<Answer, RequestFailure> {
        let (method, model, what) = (Method::GET, &*self.model, &*self.what);
        let answer = self.line.ask(&Question { method, url, range, model, what, stay_on_hub: false }).await?;
        match answer.header("x-repo-commit") {
            Some(commit) if commit != self.commit => {
                let why = format!("asked for commit {}, it gives {commit:.40}", self.commit);
                Err(RequestFailure::Permanent(HubError::NotAHub { host: host(&answer.url), why }))
            }
            _ => Ok(answer),
        }
    }

    async fn forget_place(&self) {
        *self.place.lock().await = None;
    }

    /// Writes a response's body to its range.
    async fn copy(&self, mut answer: Answer, range: Range<u64>, sink: Sink<'_>) -> Result<(), End> {
        let host = host(&answer.url);
        let mut speed_check = SpeedCheck::new(self.line.retry_policy().idle, self.line.retry_policy().least_bytes);
        let mut at = range.start;
        let mut collected = BytesMut::new();
        loop {
            let ended = match speed_check.next(&mut answer).await {
                None => Some(silence(&host)),
                Some(Err(error)) => Some(of_connection(&host, error)),
                Some(Ok(None)) => Some(interrupted(&host, "the answer ended too early")),
                Some(Ok(Some(bytes))) => {
                    let wanted = (range.end - at) as usize - collected.len();
                    collected.extend_from_slice(&bytes[..bytes.len().min(wanted)]);
                    sink.limit.pay(bytes.len()).await;
                    None
                }
            };
            let is_last = at + collected.len() as u64 == range.end;
            if collected.len() >= WRITE || is_last || ended.is_some() {
                let left = if is_last { 0 } else { collected.len() % sink.to.unit() };
                let bytes = collected.split_to(collected.len() - left).freeze();
                let length = bytes.len() as u64;
                write(sink, at, bytes).await.map_err(End::Disk)?;
                at += length;
            }
            match ended {
                _ if is_last => return Ok(()),
                Some(failure) => return Err(failure.into()),
                None => {}
            }
        }
    }

    /// Whether a response has the requested range, of a file of the right size.
    fn is_range(&self, answer: &Answer, range: &Range<u64>) -> bool {
        let start = || answer.header("content-range")?.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok();
        start() == Some(range.start) && total(answer).is_none_or(|total| total == self.bytes)
    }

    async fn other_file(&self, answer: &Answer, used: bool) -> RequestFailure {
        let why = format!("it gives other bytes than asked of {}", self.what);
        let error = HubError::NotAHub { host: host(&answer.url), why };
        self.forget_place().await;
        if used { RequestFailure::Transient(error, None) } else { RequestFailure::Permanent(error) }
    }
}

async fn write(sink: Sink<'_>, at: u64, bytes: Bytes) -> io::Result<()> {
    let to = Arc::clone(sink.to);
    let new = beside(move || to.write(at, &bytes)).await?;
    sink.meter.receive(new);
    Ok(())
}

fn interrupted(host: &str, why: &str) -> RequestFailure {
    RequestFailure::Transient(HubError::Interrupted { host: host.to_owned(), why: why.to_owned() }, None)
}

/// Ends a connection that delivers too little. Only the time spent waiting for bytes counts.
struct SpeedCheck {
    idle: Duration,
    least_bytes: u64,
    listened: Duration,
    bytes: u64,
}

impl SpeedCheck {
    fn new(idle: Duration, least_bytes: u64) -> Self {
        Self { idle, least_bytes, listened: Duration::ZERO, bytes: 0 }
    }

    /// The next bytes; `None` if the connection is too slow.
    async fn next(&mut self, answer: &mut Answer) -> Option<reqwest::Result<Option<Bytes>>> {
        let began = Instant::now();
        let left = self.idle.saturating_sub(self.listened);
        let next = tokio::time::timeout(left, answer.response.chunk()).await.ok()?;
        self.listened += began.elapsed();
        if let Ok(Some(bytes)) = &next {
            self.bytes += bytes.len() as u64;
        }
        if self.bytes >= self.least_bytes {
            (self.listened, self.bytes) = (Duration::ZERO, 0);
        }
        Some(next)
    }
}
