//! Steps of decoding that run ahead: the next one is on the device before the tokens of the last one are read.
//!
//! A whole model on MLX's kernels decodes this way. A step computes one token for each of its sessions, and nothing
//! waits until [`Shard::finish`] reads the tokens. A session advances when its token is read. A step that was started in
//! vain, as the answer has ended with the token before, leaves no trace: rows past a session's position do not count.

use std::collections::BTreeSet;

use mlx_rs::Array;

use super::seats::Seats;
use super::{ForwardError, Input, Output, Session, SessionId, Shard, Slot};
use crate::error::ComputeError;
use crate::kv::LayerCache;
use crate::sampling::{Sampled, Tokens};
use crate::span::Span;

/// A step under way.
#[derive(Debug)]
pub struct Step {
    /// The sessions, and the position of the token that each of them computes.
    rows: Vec<(SessionId, usize)>,
    tokens: Tokens,
}

impl Step {
    /// The sessions, and the position of the token that each of them computes.
    pub fn rows(&self) -> &[(SessionId, usize)] {
        &self.rows
    }
}

impl Shard {
    /// Whether [`Shard::start`] can take this batch: on a whole model with MLX's kernels, one token of every session, to
    /// be followed by one that the device samples.
    pub fn can_run_ahead(&self, batch: &[Slot]) -> bool {
        let mut seen = BTreeSet::new();
        let mut is_for_device = |slot: &Slot| {
            let session = self.sessions.get(&slot.session);
            slot.sample
                && matches!(&slot.input, Input::Tokens(tokens) if tokens.len() == 1)
                && session.is_some_and(|session| session.options.sampling.is_for_device())
                && self.check(slot, &mut seen).is_ok()
        };
        !self.arithmetic.fast
            && self.stage.embeds()
            && self.stage.samples()
            && self.is_of_one_adapter(batch)
            && batch.iter().all(&mut is_for_device)
    }

    /// Starts a step with these tokens, if [`Shard::can_run_ahead`] with them.
    pub fn start(&mut self, batch: &[Slot]) -> Result<Step, ForwardError> {
        let x = self.input(&batch.iter().collect::<Vec<_>>())?;
        let rows = batch.iter().map(|slot| (slot.session, slot.position)).collect();
        Ok(self.step(x, rows, None)?)
    }

    /// Starts the step after one that is under way. `None` if a session's context ends with that one.
    pub fn start_after(&mut self, step: &Step) -> Result<Option<Step>, ForwardError> {
        if step.rows.iter().any(|(_, position)| position + 2 > self.max_context) {
            return Ok(None);
        }
        let x = self.stage.embed_sampled(step.tokens.next_input())?;
        let rows = step.rows.iter().map(|(session, position)| (*session, position + 1)).collect();
        Ok(Some(self.step(x, rows, Some(&step.tokens))?))
    }

    /// `before` is the step before, if its tokens are not read yet.
    fn step(&mut self, x: Array, rows: Vec<(SessionId, usize)>, before: Option<&Tokens>) -> Result<Step, ComputeError> {
        let tokens: Vec<_> = rows.iter().map(|(session, position)| (*session, *position, 1)).collect();
        if let Err(error) = self.seat(&tokens) {
            self.forget(rows.iter().map(|(session, _)| *session));
            return Err(error);
        }
        let mut seats = std::mem::take(&mut self.seats);
        let mut taken: Vec<Session> = rows.iter().filter_map(|(session, _)| self.sessions.remove(session)).collect();
        let tokens = self.lay(x, &rows, &mut taken, &mut seats, before);
        for ((session, _), state) in rows.iter().zip(taken) {
            self.sessions.insert(*session, state);
        }
        self.seats = seats;
        if tokens.is_err() {
            self.forget(rows.iter().map(|(session, _)| *session));
        }
        Ok(Step { tokens: tokens?, rows })
    }

    /// Builds the step and hands it to the device.
    fn lay(
        &self,
        x: Array,
        rows: &[(SessionId, usize)],
        sessions: &mut [Session],
        seats: &mut Seats,
        before: Option<&Tokens>,
    ) -> Result<Tokens, ComputeError> {
        sessions.iter_mut().for_each(Session::follow_answer);
        let adapter = self.adapter_of(sessions)?;
        let spans = rows.iter().zip(sessions.iter_mut()).enumerate();
        let mut spans: Vec<Span> = spans
            .map(|(row, ((_, offset), session))| Span {
                rows: row..row + 1,
                offset: *offset,
                caches: &mut session.caches,
            })
            .collect();
        let hidden = self.stage.forward(x, &mut spans, seats.together(rows), adapter)?;
        let logits = self.stage.logits(&hidden, &(0..rows.len()).collect::<Vec<_>>())?;
        let settings = rows.iter().zip(sessions.iter());
        let settings: Vec<_> = settings.map(|((_, at), session)| session.row(at + 1)).collect();
        let tokens = Tokens::sample(&logits, &settings, before)?;
        let pending = sessions.iter().flat_map(|session| &session.caches).flat_map(LayerCache::pending);
        mlx_rs::transforms::async_eval(tokens.arrays().into_iter().chain(pending).chain(seats.pending(rows)))?;
        Ok(tokens)
    }

    /// Waits for a step. Returns the position and the result of every session that is still where the step began and
    /// whose answer `goes_on`; the others stay where they are.
    pub fn finish(
        &mut self,
        step: &Step,
        goes_on: impl Fn(SessionId) -> bool,
    ) -> Vec<(SessionId, usize, Result<Output, ForwardError>)> {
        let read = step.tokens.read();
        if read.is_err() {
            // One that has ended stays where it is. If its rows are lost, too, its next turn fails here and is replayed.
            self.forget(step.rows.iter().map(|(session, _)| *session).filter(|session| goes_on(*session)));
        }
        let (mut outputs, mut failed) = (Vec::with_capacity(step.rows.len()), Vec::new());
        for (row, &(id, position)) in step.rows.iter().enumerate() {
            let Some(session) = self.sessions.get_mut(&id).filter(|_| goes_on(id)) else { continue };
            let token = match &read {
                Ok(tokens) if session.position == position => tokens[row],
                Ok(_) => continue,
                Err(error) => {
                    outputs.push((id, position, Err(ComputeError::Mlx(error.to_string()).into())));
                    continue;
                }
            };
            let output = if let Some(token) = token {
                session.position = position + 1;
                session.sampled(position + 1, token);
                Ok(Output::Token(Sampled { token, logprob: None, top: Vec::new() }))
            } else {
                failed.push(id);
                Err(ForwardError::NotFinite(self.layers.clone()))
            };
            outputs.push((id, position, output));
        }
        // If that fails, the members are back at the beginning, and their next batch fails.
        let _ = self.unseat(|member| failed.contains(&member));
        outputs
    }
}
