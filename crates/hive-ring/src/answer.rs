//! An answer on its way: frames in, events out, and resuming after a machine is lost.
//!
//! When a stage is lost, another machine takes over (`ring/failover.rs`). The answer then asks every stage which
//! position it expects next, and has the stage before it replay the missing rows; the first stage gets the tokens from
//! here. So only rows that the new stage lacks are recomputed, and the answer resumes at the very next token. If no
//! machine can take over, the model is loaded again wherever it fits, and prompt and answer are replayed. Sampling
//! depends on the position, and rows are replayed in the same pieces as the first time (`Pieces`). On CPUs, the words
//! are those of an undisturbed run; docs/exactness.md describes GPUs.

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test ends with its runtime")]
mod against_liars;
mod end;
pub(crate) mod run;
mod session;
mod silence;
mod spot_checking;
mod spot_checks;
mod stalled;
mod tokens;
mod verify;

use std::sync::Arc;
use std::time::Instant;

use hive_model::Sampling;
use hive_net::PeerId;
use hive_stage::{AdapterFiles, Pieces};
use hive_text::detokenizer::Detokenizer;
use hive_text::stop::StopStrings;
use tokio::sync::OwnedSemaphorePermit;

use crate::request::Request;
use crate::ring::{Failed, Ring};
use crate::source::Source;
use end::Bound;
use silence::Stall;
use spot_checks::SpotChecks;

/// An answer on its way.
pub(crate) struct Answer {
    id: u64,
    /// Its share of the room in the stages' KV caches.
    room: Option<OwnedSemaphorePermit>,
    bound: Bound,
    source: Option<Arc<dyn Source>>,
    ring: Ring,
    /// The epoch of the ring in which the session was opened or replayed last.
    epoch: u32,
    session: u128,
    prompt: Vec<u32>,
    adapter: Option<AdapterFiles>,
    /// Why its adapter can no longer be used.
    unfit: Option<String>,
    sampling: Sampling,
    end_tokens: Vec<u32>,
    last_position: u32,
    reuse: bool,
    /// The pieces in which the known tokens were computed.
    pieces: Pieces,
    /// How many of the known tokens the stages have in their KV caches already.
    cached: usize,
    /// The same when the answer began.
    cached_at_first: usize,
    /// The first ring's traffic when the answer began there.
    traffic: Option<(u64, usize)>,
    /// Whether the stages have ended the answer themselves: their KV caches then hold the conversation, and can be
    /// retained.
    complete: bool,
    stops: StopStrings,
    detokenizer: Detokenizer,
    tokens: Vec<u32>,
    resumed_tokens: usize,
    stall: Stall,
    /// Its failure in an earlier ring, if no token has come since.
    failed: Option<Failed<PeerId>>,
    spot_checks: SpotChecks,
    /// The first position that the current holders of the stages computed.
    rows_from: u32,
    /// The first token that they sampled.
    tokens_from: u32,
    started: Instant,
    first: Option<Instant>,
    latest: Instant,
}

impl Answer {
    pub(crate) fn new(
        id: u64,
        ring: Ring,
        source: Option<Arc<dyn Source>>,
        prompt: Vec<u32>,
        request: &Request,
        max_tokens: usize,
        started: Instant,
    ) -> Self {
        let card = ring.model().card();
        Self {
            id,
            room: None,
            bound: Bound {
                deadline: request.deadline.map(|time| started + time),
                tasks: ring.host().membership().tasks().clone(),
            },
            source,
            epoch: 0,
            session: 0,
            adapter: request.adapter.clone(),
            unfit: None,
            sampling: request.sampling.clone(),
            end_tokens: if request.ignore_end { Vec::new() } else { card.end_tokens.clone() },
            last_position: (prompt.len() + request.resume_tokens.len() + max_tokens - 1) as u32,
            reuse: request.reuse,
            pieces: Pieces::default(),
            cached: 0,
            cached_at_first: 0,
            traffic: None,
            complete: false,
            stops: StopStrings::new(request.stop.clone()),
            prompt,
            detokenizer: Detokenizer::new(),
            tokens: request.resume_tokens.clone(),
            resumed_tokens: request.resume_tokens.len(),
            stall: Stall::default(),
            failed: None,
            spot_checks: SpotChecks::default(),
            rows_from: 0,
            tokens_from: 0,
            started,
            first: None,
            latest: started,
            ring,
        }
    }

    /// The position of the next token.
    pub(super) fn next_position(&self) -> u32 {
        (self.prompt.len() + self.tokens.len()) as u32
    }
}
