//! The connections of a fetch: several ranges of a file at once, each asked for again until it is there.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;

use super::failure::Failure;
use super::limit::RateLimit;
use super::progress::{FetchOptions, Meter, Wait};
use super::range::{End, Sink, Source, Target};
use crate::backoff::Backoff;
use crate::beside::beside;
use crate::error::HubError;
use crate::hub::Hub;
use crate::hub::request::host;

/// Connections of a fetch. The window limits a single one to a distant server; eight fill most lines.
const CONNECTIONS: usize = 8;

/// What all files of a fetch share.
pub(crate) struct Connections<'a> {
    hub: &'a Hub,
    meter: &'a Meter<'a>,
    limit: RateLimit,
    permits: Semaphore,
}

/// The purpose of a connection.
#[derive(Debug, Clone)]
enum Aim {
    /// The missing part of a range.
    Segment(Range<u64>),
    /// The file from its start to its end.
    Whole,
}

impl<'a> Connections<'a> {
    pub(crate) fn new(hub: &'a Hub, meter: &'a Meter<'a>, options: &FetchOptions) -> Self {
        Self { hub, meter, limit: options.limit.clone(), permits: Semaphore::new(CONNECTIONS) }
    }

    /// Downloads the missing parts of these ranges, several at once. `false` if the server knows no ranges.
    pub(crate) async fn in_ranges(
        &self,
        source: &Source<'_>,
        to: &Arc<dyn Target>,
        segments: Vec<Range<u64>>,
    ) -> Result<bool, Failure> {
        let aims = segments.into_iter().map(Aim::Segment);
        let mut all: FuturesUnordered<_> = aims.map(|aim| self.persist(source, to, aim)).collect();
        while let Some(outcome) = all.next().await {
            match outcome {
                Ok(()) => {}
                Err(None) => return Ok(false),
                Err(Some(failure)) => return Err(failure),
            }
        }
        Ok(true)
    }

    /// Brings the file from its start to its end.
    pub(crate) async fn in_one(&self, source: &Source<'_>, to: &Arc<dyn Target>) -> Result<(), Failure> {
        let no_hub =
            || HubError::NotAHub { host: host(&source.address), why: "its answers contradict each other".to_owned() };
        let outcome = self.persist(source, to, Aim::Whole).await;
        outcome.map_err(|failure| failure.unwrap_or_else(|| Failure::Hub(no_hub())))
    }

    /// Repeats an attempt until it succeeds, or several in a row make no progress. `None` if the server knows no ranges.
    async fn persist(&self, source: &Source<'_>, to: &Arc<dyn Target>, aim: Aim) -> Result<(), Option<Failure>> {
        let sink = Sink { to, meter: self.meter, limit: &self.limit };
        let mut backoff = Backoff::new(self.hub.line().retry_policy());
        loop {
            let before = to.done();
            let permit = self.permits.acquire().await.expect("nobody closes the semaphore");
            let ended = match &aim {
                Aim::Whole => source.take_whole(sink).await,
                Aim::Segment(segment) => match next(to, segment.clone()).await {
                    Ok(Some(range)) => source.take(range, sink).await,
                    Ok(None) => return Ok(()),
                    Err(error) => Err(End::Disk(error)),
                },
            };
            drop(permit);
            let failure = match (ended, &aim) {
                (Ok(()), Aim::Whole) => return Ok(()),
                // Bytes written by others may cut a segment in two: its rest is requested next.
                (Ok(()), Aim::Segment(_)) => continue,
                (Err(End::IgnoresRanges), _) => return Err(None),
                (Err(End::Disk(error)), _) => return Err(Some(Failure::Disk(error))),
                (Err(End::Request(failure)), _) => failure,
            };
            if to.done() > before {
                backoff.progress();
            }
            let error = failure.error().clone();
            let after = backoff.after(failure).map_err(|error| Some(Failure::Hub(error)))?;
            self.meter.wait(Wait::NextAttempt { error, after });
            tokio::time::sleep(after).await;
        }
    }
}

async fn next(to: &Arc<dyn Target>, segment: Range<u64>) -> io::Result<Option<Range<u64>>> {
    let to = Arc::clone(to);
    beside(move || Ok(to.next(&segment))).await
}
