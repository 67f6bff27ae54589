//! A range of a model's layers in memory, and the sessions that run through it.
//!
//! Every call of [`Shard::forward`] takes a batch of any sessions, each at its own position. A session's *position* is
//! the number of its tokens in the cache. A slot must begin exactly there; [`Shard::rollback`] moves a session back.

mod adapting;
mod carried;
mod planned;
mod seating;
mod seats;
mod step;
mod warm_up;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use hive_weights::ModelFiles;
use mlx_rs::{Array, ops};
use serde::{Deserialize, Serialize};

use crate::adaptable::adapters_of;
use crate::adapter::{AdapterId, Adapters};
use crate::device::Compute;
use crate::error::ComputeError;
use crate::hidden::{ActivationType, Hidden, all_finite};
use crate::kv::LayerCache;
use crate::linear::Arithmetic;
use crate::sampling::{History, Row, Sampled, Sampling, Tokens, sample};
use crate::span::Span;
use crate::stage::Stage;

pub use crate::error::LoadError;
pub use crate::session_id::SessionId;
pub use carried::CarriedSession;
pub use step::Step;

use seats::Seats;

/// Which layers to load, and with which kernels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardOptions {
    /// Layers `[start, end)`.
    pub layers: Range<usize>,
    /// The kernels.
    pub compute: Compute,
}

/// The options of a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionOptions {
    /// The sampling settings, for the last stage.
    pub sampling: Sampling,
    /// The prompt, for the last stage's penalties.
    pub prompt: Vec<u32>,
    /// Tokens of the answer that were sampled before this session was opened; the answer resumes after them.
    pub answer: Vec<u32>,
    /// The adapter that changes the model for this session; it must be loaded.
    pub adapter: Option<AdapterId>,
}

/// The input of a stage for one session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// Tokens, for the first stage.
    Tokens(Vec<u32>),
    /// Hidden states, for every other stage.
    Hidden(Hidden),
}

impl Input {
    /// The number of tokens.
    pub fn rows(&self) -> usize {
        match self {
            Self::Tokens(tokens) => tokens.len(),
            Self::Hidden(hidden) => hidden.rows,
        }
    }
}

/// One session's part of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// The session, which must be open.
    pub session: SessionId,
    /// The position of the first token; must equal the session's.
    pub position: usize,
    /// The tokens or their hidden states.
    pub input: Input,
    /// Whether the last stage samples the next token.
    pub sample: bool,
}

/// The output of a stage for one slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Output {
    /// Hidden states for the next stage.
    Hidden(Hidden),
    /// The next token, from the last stage.
    Token(Sampled),
    /// The last stage was not asked to sample.
    Nothing,
}

/// Why a slot was not computed. Its session stays at its position, or, if a computation on MLX's kernels failed, is back
/// at the beginning ([`Shard::position`]).
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The session is not open.
    #[error("session {0:?} is not open")]
    UnknownSession(SessionId),
    /// The session is twice in one batch.
    #[error("session {0:?} is in one batch twice")]
    Twice(SessionId),
    /// The slot does not begin at the session's position.
    #[error("session {session:?} is at position {at}, but the batch begins at {given}")]
    Position {
        /// The session.
        session: SessionId,
        /// The session's position.
        at: usize,
        /// The slot's position.
        given: usize,
    },
    /// The model's context is too short.
    #[error("the conversation needs {needed} positions, but the model has {limit}")]
    Context {
        /// Positions needed.
        needed: usize,
        /// Positions that the model has.
        limit: usize,
    },
    /// The stage cannot take this input.
    #[error("the stage cannot take its input: {0}")]
    Input(String),
    /// The session's adapter is not loaded.
    #[error("the adapter {0:?} is not loaded")]
    UnknownAdapter(AdapterId),
    /// The computation failed.
    #[error(transparent)]
    Compute(#[from] ComputeError),
    /// The result holds NaN or infinity.
    #[error("layers {0:?} computed numbers that are not finite")]
    NotFinite(Range<usize>),
}

struct Session {
    options: SessionOptions,
    position: usize,
    /// Tokens sampled here, with their positions; kept by the last stage for the penalties.
    answer: Vec<(usize, u32)>,
    /// The same as a device needs it for penalties; made when it first does.
    history: Option<History>,
    caches: Vec<LayerCache>,
    /// Whether a failed computation took what had been computed.
    is_reset: bool,
}

impl Session {
    fn new(options: SessionOptions, position: usize, answer: Vec<(usize, u32)>, caches: Vec<LayerCache>) -> Self {
        Self { options, position, answer, history: None, caches, is_reset: false }
    }

    /// Brings what penalties need up to the tokens that are known here.
    fn follow_answer(&mut self) {
        let SessionOptions { sampling, prompt, .. } = &self.options;
        if self.history.is_none() {
            self.history = History::new(sampling, prompt);
        }
        if let Some(history) = &mut self.history {
            history.follow(self.answer.iter().map(|(_, token)| *token));
        }
    }

    /// How the token for a position is sampled.
    fn row(&self, position: usize) -> Row<'_> {
        Row { settings: &self.options.sampling, position: position as u64, history: self.history.as_ref() }
    }

    /// The last position up to this one that all layers can go back to.
    fn reachable(&self, position: usize) -> usize {
        let mut reached = position;
        loop {
            let all = self.caches.iter().map(|cache| cache.reachable(reached));
            match all.min().unwrap_or(reached) {
                least if least == reached => return reached,
                least => reached = least,
            }
        }
    }

    /// Records a token; one that was sampled for its position before is replaced.
    fn sampled(&mut self, position: usize, token: u32) {
        while self.answer.pop_if(|(at, _)| *at >= position).is_some() {}
        self.answer.push((position, token));
    }
}

/// What a batch computes.
enum Computed {
    /// Only what the caches hold.
    Nothing,
    /// The hidden states of all rows.
    Hidden(Array),
    /// The logits of the slots that sample, in single precision.
    Logits(Array),
    /// The tokens of the slots that sample.
    Tokens(Tokens),
}

/// A loaded range of layers.
pub struct Shard {
    stage: Stage,
    layers: Range<usize>,
    arithmetic: Arithmetic,
    vocabulary: usize,
    max_context: usize,
    adapters: Adapters,
    sessions: BTreeMap<SessionId, Session>,
    /// Those of them that share buffers.
    seats: Seats,
}

impl Shard {
    /// Loads the layers; `progress` is called with the number loaded so far.
    pub fn load(
        files: &ModelFiles,
        options: &ShardOptions,
        mut progress: impl FnMut(usize),
    ) -> Result<Self, LoadError> {
        let config = files.config();
        let Range { start, end } = options.layers;
        if start >= end {
            return Err(LoadError::EmptyRange);
        }
        if end > config.layers {
            return Err(LoadError::OutOfRange { start, end, layers: config.layers });
        }
        if let Some(at) = [start, end].into_iter().find(|at| config.uncut().contains(at)) {
            return Err(LoadError::Uncut { at });
        }
        let arithmetic = planned::arithmetic(files, options.compute.resolve() == Compute::Fast)?;
        let stage = Stage::load(files, options.layers.clone(), arithmetic, &mut progress)?;
        // Loading passes every weight through buffers that MLX keeps for reuse; none of that size is needed again.
        mlx_rs::memory::clear_cache().map_err(ComputeError::from)?;
        Ok(Self {
            stage,
            layers: options.layers.clone(),
            arithmetic,
            vocabulary: config.vocabulary,
            max_context: config.max_context,
            adapters: adapters_of(files, options.layers.clone(), arithmetic),
            sessions: BTreeMap::new(),
            seats: Seats::default(),
        })
    }

    /// The layers.
    pub fn layers(&self) -> Range<usize> {
        self.layers.clone()
    }

    /// The size of the weights in memory, in bytes.
    pub fn weight_bytes(&self) -> usize {
        self.stage.bytes()
    }

    /// Whether the fast kernels are used.
    pub fn is_fast(&self) -> bool {
        self.arithmetic.fast
    }

    /// The number format of the output.
    pub fn activation(&self) -> ActivationType {
        self.arithmetic.activation
    }

    /// Opens a session at position 0, replacing any session with this id.
    pub fn open(&mut self, session: SessionId, options: SessionOptions) -> Result<(), ForwardError> {
        self.check_adapter(&options)?;
        self.unseat(|member| member == session)?;
        let caches = self.stage.caches()?;
        let answer = options.answer.iter().enumerate().map(|(n, token)| (options.prompt.len() + n, *token)).collect();
        self.sessions.insert(session, Session::new(options, 0, answer, caches));
        Ok(())
    }

    /// Continues the session `from` under a new id at `position`, or at the last one before it that can be gone back to,
    /// and returns which: the next turn of a conversation reuses what was computed for the previous one. `from` is
    /// closed.
    pub fn adopt(
        &mut self,
        from: SessionId,
        session: SessionId,
        position: usize,
        options: SessionOptions,
    ) -> Result<usize, ForwardError> {
        self.check_adapter(&options)?;
        self.unseat(|member| member == from || member == session)?;
        let state = self.sessions.remove(&from).ok_or(ForwardError::UnknownSession(from))?;
        if position > state.position {
            return Err(ForwardError::Position { session: from, at: state.position, given: position });
        }
        let position = state.reachable(position);
        let answer = options.answer.iter().enumerate().map(|(n, token)| (options.prompt.len() + n, *token)).collect();
        self.sessions.insert(session, Session::new(options, position, answer, state.caches));
        Ok(position)
    }

    /// Closes a session and frees its cache.
    pub fn close(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        // If it fails, those that shared buffers with it are back at the beginning, and their next batch fails.
        let _ = self.unseat(|member| member == session);
    }

    /// The position of an open session.
    pub fn position(&self, session: SessionId) -> Option<usize> {
        self.sessions.get(&session).map(|session| session.position)
    }

    /// Moves a session back to `position`, or to the last one before it that can be gone back to, and returns which. What
    /// came after is discarded.
    pub fn rollback(&mut self, session: SessionId, position: usize) -> Result<usize, ForwardError> {
        let state = self.sessions.get_mut(&session).ok_or(ForwardError::UnknownSession(session))?;
        if position > state.position {
            return Err(ForwardError::Position { session, at: state.position, given: position });
        }
        let position = state.reachable(position);
        state.position = position;
        // The token sampled after position p - 1 is recorded at p; it is kept only if it has been fed back.
        state.answer.retain(|(at, _)| *at < position);
        Ok(position)
    }

    /// Bytes of KV cache held by all sessions.
    pub fn kv_bytes(&self) -> usize {
        let own: usize = self.sessions.values().flat_map(|session| &session.caches).map(LayerCache::bytes).sum();
        own + self.seats.bytes()
    }

    /// Computes a batch with at most one slot per session. Returns one result per slot, in order.
    ///
    /// Slots are independent: one that cannot be computed fails alone, and its session stays at its position. The
    /// others have their output, and their sessions have advanced.
    pub fn forward(&mut self, batch: &[Slot]) -> Vec<Result<Output, ForwardError>> {
        let mut seen = BTreeSet::new();
        let problems: Vec<Option<ForwardError>> = batch.iter().map(|slot| self.check(slot, &mut seen).err()).collect();
        let sound: Vec<&Slot> =
            batch.iter().zip(&problems).filter(|(_, problem)| problem.is_none()).map(|(slot, _)| slot).collect();
        let mut results = self.forward_by_adapter(&sound).into_iter();
        let result = |problem: Option<ForwardError>| match problem {
            Some(problem) => Some(Err(problem)),
            None => results.next(),
        };
        problems.into_iter().filter_map(result).collect()
    }

    /// Computes slots of one adapter: all together or, if that fails on the fast kernels, one by one.
    fn forward_sound(&mut self, batch: &[&Slot]) -> Vec<Result<Output, ForwardError>> {
        match self.forward_together(batch) {
            Ok(results) => results,
            Err(error) if !self.arithmetic.fast => {
                // MLX's arrays may depend on what failed.
                self.forget(batch.iter().map(|slot| slot.session));
                batch.iter().map(|_| Err(ComputeError::Mlx(error.to_string()).into())).collect()
            }
            Err(error) if batch.len() == 1 => vec![Err(error.into())],
            Err(_) => batch.iter().flat_map(|slot| self.forward_sound(&[slot])).collect(),
        }
    }

    /// Moves sessions back to the beginning, with those that share buffers with them: a computation that failed leaves
    /// nothing in their caches that counts.
    fn forget(&mut self, sessions: impl Iterator<Item = SessionId>) {
        let mut lost: BTreeSet<SessionId> = sessions.collect();
        if self.seats.members.iter().any(|member| lost.contains(member)) {
            lost.extend(std::mem::take(&mut self.seats).members);
        }
        for id in lost {
            if let Some(session) = self.sessions.get_mut(&id)
                && let Ok(caches) = self.stage.caches()
            {
                (session.caches, session.position, session.is_reset) = (caches, 0, true);
            }
        }
    }

    fn forward_together(&mut self, batch: &[&Slot]) -> Result<Vec<Result<Output, ForwardError>>, ComputeError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let x = self.input(batch)?;
        let tokens = |slot: &&Slot| (slot.session, slot.position, slot.input.rows());
        self.seat(&batch.iter().map(tokens).collect::<Vec<_>>())?;
        let mut seats = std::mem::take(&mut self.seats);
        // The sessions are taken out while their caches are written. Cache entries past a session's position do not
        // count, so a failure leaves the sessions as they were.
        let mut taken: Vec<Session> = batch.iter().filter_map(|slot| self.sessions.remove(&slot.session)).collect();
        let results = self.compute(x, batch, &mut taken, &mut seats);
        let results = results.and_then(|result| self.outputs(batch, &result, &mut taken));
        for (slot, session) in batch.iter().zip(taken) {
            self.sessions.insert(slot.session, session);
        }
        self.seats = seats;
        let each = results.iter().flatten().zip(batch);
        let failed: Vec<_> = each.filter(|(result, _)| result.is_err()).map(|(_, slot)| slot.session).collect();
        self.unseat(|member| failed.contains(&member))?;
        results
    }

    fn check(&self, slot: &Slot, seen: &mut BTreeSet<SessionId>) -> Result<(), ForwardError> {
        let state = self.sessions.get(&slot.session).ok_or(ForwardError::UnknownSession(slot.session))?;
        if !seen.insert(slot.session) {
            return Err(ForwardError::Twice(slot.session));
        }
        if slot.position != state.position && state.position == 0 && state.is_reset {
            return Err(ComputeError::Mlx("what was computed before was lost with a failure".to_owned()).into());
        }
        if slot.position != state.position {
            return Err(ForwardError::Position { session: slot.session, at: state.position, given: slot.position });
        }
        let needed = slot.position.saturating_add(slot.input.rows());
        if needed > self.max_context {
            return Err(ForwardError::Context { needed, limit: self.max_context });
        }
        let problem = match &slot.input {
            input if input.rows() == 0 => Some("it is empty".to_owned()),
            Input::Tokens(_) if !self.stage.embeds() => Some("tokens, where hidden states belong".to_owned()),
            Input::Hidden(_) if self.stage.embeds() => Some("hidden states, where tokens belong".to_owned()),
            Input::Tokens(tokens) => tokens
                .iter()
                .find(|&&token| token as usize >= self.vocabulary)
                .map(|token| format!("token {token} of a vocabulary of {}", self.vocabulary)),
            Input::Hidden(hidden) if hidden.width != self.stage.input_width() || !hidden.is_consistent() => {
                Some(format!(
                    "{} bytes of {} × {} hidden states, where the width is {}",
                    hidden.bytes.len(),
                    hidden.rows,
                    hidden.width,
                    self.stage.input_width()
                ))
            }
            Input::Hidden(hidden) if !hidden.is_finite_as(self.arithmetic.activation) => {
                Some("hidden states that are not finite".to_owned())
            }
            Input::Hidden(_) => None,
        };
        problem.map_or(Ok(()), |problem| Err(ForwardError::Input(problem)))
    }

    /// The input of all slots as one `[tokens, hidden]` array.
    fn input(&self, batch: &[&Slot]) -> Result<Array, ComputeError> {
        if self.stage.embeds() {
            let tokens: Vec<u32> = batch
                .iter()
                .flat_map(|slot| match &slot.input {
                    Input::Tokens(tokens) => tokens.as_slice(),
                    Input::Hidden(_) => &[],
                })
                .copied()
                .collect();
            return self.stage.embed(&tokens);
        }
        let mut parts = Vec::with_capacity(batch.len());
        for slot in batch {
            if let Input::Hidden(hidden) = &slot.input {
                let shape = [hidden.rows as i32, hidden.width as i32];
                let part = hive_kernels::array_from_bytes(&hidden.bytes, &shape, hidden.activation.mlx())?;
                // Stages with different kernels may compute in different types.
                parts.push(part.as_dtype(self.arithmetic.activation.mlx())?);
            }
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { ops::concatenate(&parts, 0)? })
    }

    fn compute(
        &self,
        x: Array,
        batch: &[&Slot],
        sessions: &mut [Session],
        seats: &mut Seats,
    ) -> Result<Computed, ComputeError> {
        let adapter = self.adapter_of(sessions)?;
        let mut spans = Vec::with_capacity(batch.len());
        let mut start = 0;
        for (slot, session) in batch.iter().zip(sessions.iter_mut()) {
            let rows = start..start + slot.input.rows();
            start = rows.end;
            spans.push(Span { rows, offset: slot.position, caches: &mut session.caches });
        }
        let rows: Vec<_> = batch.iter().map(|slot| (slot.session, slot.position)).collect();
        let hidden = self.stage.forward(x, &mut spans, seats.together(&rows), adapter)?;
        let sampled: Vec<usize> =
            batch.iter().zip(&spans).filter(|(slot, _)| slot.sample).map(|(_, span)| span.rows.end - 1).collect();
        let result = if self.stage.samples() && !sampled.is_empty() {
            let logits = self.stage.logits(&hidden, &sampled)?;
            let mut rows = batch.iter().zip(sessions.iter_mut()).filter(|(slot, _)| slot.sample).collect::<Vec<_>>();
            if !self.arithmetic.fast && rows.iter().all(|(_, session)| session.options.sampling.is_for_device()) {
                for (_, session) in &mut rows {
                    session.follow_answer();
                }
                let rows: Vec<_> =
                    rows.iter().map(|(slot, session)| session.row(slot.position + slot.input.rows())).collect();
                Computed::Tokens(Tokens::sample(&logits, &rows, None)?)
            } else {
                Computed::Logits(logits)
            }
        } else if self.stage.samples() && !self.arithmetic.fast {
            // Of a piece of a prompt, what the last layer makes of its rows is not computed: nobody reads it.
            Computed::Nothing
        } else {
            Computed::Hidden(hidden)
        };
        let array = match &result {
            Computed::Nothing => None,
            Computed::Hidden(array) | Computed::Logits(array) => Some(array),
            Computed::Tokens(tokens) => Some(tokens.arrays()[1]),
        };
        let pending = sessions.iter().flat_map(|session| &session.caches).flat_map(LayerCache::pending);
        mlx_rs::transforms::eval(array.into_iter().chain(pending).chain(seats.pending(&rows)))?;
        Ok(result)
    }

    /// Returns one result per slot; sessions advance past slots that succeeded.
    fn outputs(
        &self,
        batch: &[&Slot],
        result: &Computed,
        sessions: &mut [Session],
    ) -> Result<Vec<Result<Output, ForwardError>>, ComputeError> {
        let mut outputs = match result {
            Computed::Nothing => batch.iter().map(|_| Ok(Output::Nothing)).collect(),
            Computed::Hidden(_) if self.stage.samples() => batch.iter().map(|_| Ok(Output::Nothing)).collect(),
            Computed::Hidden(hidden) => self.hidden_outputs(batch, hidden)?,
            Computed::Logits(logits) => self.sampled_outputs(batch, logits, sessions)?,
            Computed::Tokens(tokens) => self.token_outputs(batch, &tokens.read()?),
        };
        for ((slot, session), output) in batch.iter().zip(sessions).zip(&mut outputs) {
            let position = slot.position + slot.input.rows();
            match output {
                Ok(Output::Token(sampled)) => session.sampled(position, sampled.token),
                Ok(_) => {}
                Err(_) => continue,
            }
            session.position = position;
        }
        Ok(outputs)
    }

    fn sampled_outputs(
        &self,
        batch: &[&Slot],
        result: &Array,
        sessions: &[Session],
    ) -> Result<Vec<Result<Output, ForwardError>>, ComputeError> {
        let logits: &[f32] = result.try_as_slice().map_err(|error| ComputeError::Mlx(error.to_string()))?;
        let mut rows = logits.chunks_exact(self.vocabulary);
        let outputs = batch.iter().zip(sessions).map(|(slot, session)| {
            if !slot.sample {
                return Ok(Output::Nothing);
            }
            let row = rows.next().unwrap_or_default();
            if row.is_empty() || !all_finite(row) {
                return Err(self.not_finite(slot));
            }
            let position = slot.position + slot.input.rows();
            let answer = session.answer.iter().map(|(_, token)| *token);
            let SessionOptions { sampling, prompt, .. } = &session.options;
            Ok(Output::Token(sample(row, sampling, prompt, answer, position as u64)))
        });
        Ok(outputs.collect())
    }

    fn token_outputs(&self, batch: &[&Slot], tokens: &[Option<u32>]) -> Vec<Result<Output, ForwardError>> {
        let mut tokens = tokens.iter();
        let outputs = batch.iter().map(|slot| match slot.sample.then(|| tokens.next().copied().flatten()) {
            None => Ok(Output::Nothing),
            Some(Some(token)) => Ok(Output::Token(Sampled { token, logprob: None, top: Vec::new() })),
            Some(None) => Err(self.not_finite(slot)),
        });
        outputs.collect()
    }

    fn hidden_outputs(
        &self,
        batch: &[&Slot],
        result: &Array,
    ) -> Result<Vec<Result<Output, ForwardError>>, ComputeError> {
        let bytes = hive_kernels::array_bytes(result)?;
        let activation = self.arithmetic.activation;
        let width = self.stage.output_width();
        let output = |slot: &Slot, bytes: Vec<u8>| {
            let hidden = Hidden { activation, rows: slot.input.rows(), width, bytes };
            if hidden.is_finite() { Ok(Output::Hidden(hidden)) } else { Err(self.not_finite(slot)) }
        };
        if let [slot] = batch {
            return Ok(vec![output(slot, bytes)]);
        }
        let mut rest = bytes.as_slice();
        let outputs = batch.iter().map(|slot| {
            let (mine, others) = rest.split_at(slot.input.rows() * width * activation.bytes());
            rest = others;
            output(slot, mine.to_vec())
        });
        Ok(outputs.collect())
    }

    /// The error for a result that is not finite. Inputs near the end of the range overflow in any layer, so the sender
    /// is at fault for those.
    fn not_finite(&self, slot: &Slot) -> ForwardError {
        match &slot.input {
            Input::Hidden(hidden) if !hidden.has_headroom_as(self.arithmetic.activation) => {
                ForwardError::Input("hidden states so large that any layer overflows".to_owned())
            }
            _ => ForwardError::NotFinite(self.layers.clone()),
        }
    }

    /// The logits after `tokens` in a fresh session. For tests; this shard must be the whole model.
    #[doc(hidden)]
    pub fn logits_of(&mut self, tokens: &[u32]) -> Result<Vec<f32>, ForwardError> {
        let mut caches = self.stage.caches()?;
        let span = Span { rows: 0..tokens.len(), offset: 0, caches: &mut caches };
        let hidden = self.stage.forward(self.stage.embed(tokens)?, &mut [span], None, None)?;
        let logits = self.stage.logits(&hidden, &[tokens.len() - 1])?;
        logits.eval().map_err(ComputeError::from)?;
        Ok(logits.try_as_slice::<f32>().map_err(|error| ComputeError::Mlx(error.to_string()))?.to_vec())
    }
}
