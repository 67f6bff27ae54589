//! An answer on its way: frames in, events out, and going on when a machine leaves.
//!
//! When a stage is lost, another machine takes it over (`ring/mend.rs`). The coordinator then asks every stage which position
//! comes next there, and has the stage before it send on what is missing; to the first stage it sends the tokens itself. So
//! only what the new stage does not have is computed again, at the speed of a prompt, and the answer goes on from the very
//! next token. When no machine can take the stage over, the model is loaded anew wherever it fits, and prompt and answer go
//! through it again. Sampling is keyed by position and the kernels give the same bits in any chunk, so the words are
//! those of an undisturbed run.

#[cfg(test)]
mod against_liars;
mod end;
mod look_into;
mod looks;
pub(crate) mod run;
mod session;
mod silence;
mod spot;
mod tokens;
mod verify;

use std::sync::Arc;
use std::time::Instant;

use hive_model::Sampling;
use hive_model::detokenizer::Detokenizer;
use hive_model::stop::StopStrings;
use tokio::sync::OwnedSemaphorePermit;

use crate::request::Request;
use crate::ring::Ring;
use crate::source::Source;
use end::Bound;
use looks::Looks;
use silence::Stuck;

/// An answer on its way.
pub(crate) struct Answer {
    id: u64,
    /// Its part of the stages' caches.
    room: Option<OwnedSemaphorePermit>,
    bound: Bound,
    source: Option<Arc<dyn Source>>,
    ring: Ring,
    /// The state of the ring that the session has been brought to.
    epoch: u32,
    session: u128,
    prompt: Vec<u32>,
    sampling: Sampling,
    end_tokens: Vec<u32>,
    last_position: u32,
    reuse: bool,
    /// How much of what is known the stages have in their caches already.
    cached: usize,
    /// And how much that was when the answer began.
    cached_at_first: usize,
    /// The first ring's traffic when the answer began there.
    traffic: Option<(u64, usize)>,
    /// Whether the ring has come to its end by itself: then the stages' caches are the conversation, and can be kept.
    complete: bool,
    stops: StopStrings,
    detokenizer: Detokenizer,
    tokens: Vec<u32>,
    said_tokens: usize,
    stuck: Stuck,
    looks: Looks,
    /// The first position that the machines that hold the stages now have computed of it.
    rows_from: u32,
    /// And the first token that they have chosen.
    tokens_from: u32,
    started: Instant,
    first: Option<Instant>,
    latest: Instant,
}

impl Answer {
    pub(super) fn new(
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
            sampling: request.sampling.clone(),
            end_tokens: if request.ignore_end { Vec::new() } else { card.end_tokens.clone() },
            last_position: (prompt.len() + request.said.len() + max_tokens - 1) as u32,
            reuse: request.reuse,
            cached: 0,
            cached_at_first: 0,
            traffic: None,
            complete: false,
            stops: StopStrings::new(request.stop.clone()),
            prompt,
            detokenizer: Detokenizer::new(),
            tokens: request.said.clone(),
            said_tokens: request.said.len(),
            stuck: Stuck::default(),
            looks: Looks::default(),
            rows_from: 0,
            tokens_from: 0,
            started,
            first: None,
            latest: started,
            ring,
        }
    }

    /// Where the next token stands.
    pub(super) fn next_position(&self) -> u32 {
        (self.prompt.len() + self.tokens.len()) as u32
    }
}
