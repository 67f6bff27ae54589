//! Schedules a worker's batches: single tokens of every conversation first, then a piece of a prompt.
//!
//! A long prompt must not stall other conversations. While others are mid-answer, prompts are cut into pieces that take
//! little longer than one token, or than the fastest piece (`piece_size.rs`), and pieces and tokens alternate: a token waits for one piece at most,
//! and is not delayed by a piece in its own batch. Alone, a prompt is computed in the chunks it arrived in.
//!
//! With [`Arithmetic::Exact`], results do not depend on the cuts: short chunks that wait are joined, and prompts of
//! several sessions share a batch. Otherwise a row's numbers depend on the rows computed with it, so what is replayed
//! after a failure has to be computed in the same pieces as before: each chunk is computed by itself, and only the
//! first stage cuts, since everybody sees its cuts by the frames that it sends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use hive_model::shard::Input;
use hive_model::{Hidden, SessionId};

use super::piece_size::PieceSize;
use super::protocol::Work;
use hive_protocol::Arithmetic;

/// Rows per batch: enough to use the kernels well, few enough that nobody waits long for the next batch.
const MAX_BATCH_ROWS: usize = 1024;
/// Rows to which chunks that wait are joined: as many as in a chunk of a prompt.
const JOINED_ROWS: usize = 256;
/// A conversation with a token this recently is mid-answer, even if its next token is still at another stage.
const IN_THE_MIDDLE: Duration = Duration::from_millis(250);

/// Queued work, in order of arrival within each session.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Whether results do not depend on the cuts.
    exact: bool,
    /// Single tokens, at most one per session.
    tokens: VecDeque<Work>,
    /// Prompts, and whatever arrived after them in their sessions.
    prompts: VecDeque<Work>,
    /// When each running session last had a token.
    latest_tokens: BTreeMap<SessionId, Instant>,
    /// Whether the previous batch was of tokens, so that a waiting prompt is next.
    tokens_had_their_turn: bool,
    /// Seconds per batch of tokens: a running average that adapts within a few values.
    token_s: Option<f64>,
    piece_size: PieceSize,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            exact: true,
            tokens: VecDeque::new(),
            prompts: VecDeque::new(),
            latest_tokens: BTreeMap::new(),
            tokens_had_their_turn: false,
            token_s: None,
            piece_size: PieceSize::any(),
        }
    }
}

impl Schedule {
    pub(super) fn of(arithmetic: Arithmetic) -> Self {
        let exact = arithmetic == Arithmetic::Exact;
        let piece_size = if arithmetic == Arithmetic::Gpu { PieceSize::doubling() } else { PieceSize::any() };
        Self { exact, piece_size, ..Self::default() }
    }

    pub(super) fn push(&mut self, work: Work) {
        let Some(work) = self.join(work) else { return };
        let behind_its_prompt = self.prompts.iter().any(|prompt| prompt.session == work.session);
        let twice = self.tokens.iter().any(|token| token.session == work.session);
        if work.input.rows() == 1 && !behind_its_prompt && !twice {
            self.tokens.push_back(work);
        } else {
            self.prompts.push_back(work);
        }
    }

    /// Appends a chunk to the session's latest if that waits, and results do not depend on it; returns it otherwise.
    fn join(&mut self, work: Work) -> Option<Work> {
        if !self.exact {
            return Some(work);
        }
        if let Some(latest) = self.prompts.iter_mut().rfind(|latest| latest.session == work.session) {
            return joined(latest, work);
        }
        let Some(at) = self.tokens.iter().position(|token| token.session == work.session) else { return Some(work) };
        let rest = joined(&mut self.tokens[at], work);
        if rest.is_none() {
            self.prompts.extend(self.tokens.remove(at));
        }
        rest
    }

    /// Drops a session's queued work: its answer is done or cancelled.
    pub(super) fn cancel(&mut self, session: SessionId) {
        self.latest_tokens.remove(&session);
        self.tokens.retain(|work| work.session != session);
        self.prompts.retain(|work| work.session != session);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.prompts.is_empty()
    }

    /// The next batch: at most one item per session.
    pub(super) fn next(&mut self, now: Instant) -> Vec<Work> {
        self.latest_tokens.retain(|_, at| now.saturating_duration_since(*at) < IN_THE_MIDDLE);
        self.latest_tokens.extend(self.tokens.iter().map(|token| (token.session, now)));
        let others_wait = self.prompts.iter().any(|prompt| self.others_wait(prompt, now));
        let prompts_turn = self.tokens.is_empty() || (self.tokens_had_their_turn && !self.prompts.is_empty());
        let apart = others_wait || !self.exact;
        if apart
            && prompts_turn
            && let Some(first) = self.first_ready()
        {
            self.tokens_had_their_turn = false;
            return self.piece(first, now).into_iter().collect();
        }
        self.tokens_had_their_turn = true;
        let mut batch: Vec<Work> = Vec::new();
        let mut sessions = BTreeSet::new();
        while batch.len() < MAX_BATCH_ROWS
            && let Some(token) = self.tokens.pop_front()
        {
            sessions.insert(token.session);
            batch.push(token);
        }
        if apart {
            return batch;
        }
        let mut rows = batch.len();
        let mut kept = VecDeque::new();
        while let Some(prompt) = self.prompts.pop_front() {
            let room = MAX_BATCH_ROWS.saturating_sub(rows);
            if room == 0 || !sessions.insert(prompt.session) {
                sessions.insert(prompt.session);
                kept.push_back(prompt);
                continue;
            }
            let (piece, rest) = cut(prompt, room);
            rows += piece.input.rows();
            batch.push(piece);
            kept.extend(rest);
        }
        self.prompts = kept;
        batch
    }

    /// The first prompt whose session has no earlier token queued: replay after a lost machine arrives as single rows,
    /// too.
    fn first_ready(&self) -> Option<usize> {
        self.prompts.iter().position(|prompt| self.tokens.iter().all(|token| token.session != prompt.session))
    }

    /// A piece of a prompt.
    fn piece(&mut self, which: usize, now: Instant) -> Option<Work> {
        let prompt = self.prompts.remove(which)?;
        let rows = match &prompt.input {
            Input::Hidden(_) if !self.exact => usize::MAX,
            _ if self.others_wait(&prompt, now) => self.piece_size.of(prompt.input.rows()),
            _ => MAX_BATCH_ROWS,
        };
        let (piece, rest) = cut(prompt, rows);
        if let Some(rest) = rest {
            self.prompts.insert(which, rest);
        }
        Some(piece)
    }

    /// Updates the timing estimates.
    pub(super) fn took(&mut self, tokens: usize, prompt_rows: usize, time: Duration) {
        let seconds = time.as_secs_f64();
        if prompt_rows == 0 {
            self.token_s = Some(self.token_s.map_or(seconds, |before| before * 0.8 + seconds * 0.2));
        } else if tokens == 0
            && let Some(token_s) = self.token_s
        {
            self.piece_size.took(prompt_rows, time, token_s);
        }
    }

    /// Whether other conversations are mid-answer.
    fn others_wait(&self, prompt: &Work, now: Instant) -> bool {
        let here = self.tokens.iter().any(|token| token.session != prompt.session);
        let lately = |(session, at): (&SessionId, &Instant)| {
            *session != prompt.session && now.saturating_duration_since(*at) < IN_THE_MIDDLE
        };
        here || self.latest_tokens.iter().any(lately)
    }
}

/// Appends work to the one before it if that samples no token and both are few rows; returns it otherwise.
fn joined(before: &mut Work, work: Work) -> Option<Work> {
    let rows = before.input.rows();
    if before.sample || before.position + rows as u32 != work.position || rows + work.input.rows() > JOINED_ROWS {
        return Some(work);
    }
    match (&mut before.input, work.input) {
        (Input::Tokens(first), Input::Tokens(then)) => first.extend(then),
        (Input::Hidden(first), Input::Hidden(then))
            if (first.activation, first.width) == (then.activation, then.width) =>
        {
            first.rows += then.rows;
            first.bytes.extend(then.bytes);
        }
        (_, input) => return Some(Work { input, ..work }),
    }
    before.sample = work.sample;
    None
}

/// The first `rows` of an item, and the rest. Only the last piece samples a token.
fn cut(work: Work, rows: usize) -> (Work, Option<Work>) {
    if work.input.rows() <= rows {
        return (work, None);
    }
    let Work { session, position, sample, input } = work;
    let (first, rest) = match input {
        Input::Tokens(mut tokens) => {
            let rest = tokens.split_off(rows);
            (Input::Tokens(tokens), Input::Tokens(rest))
        }
        Input::Hidden(Hidden { activation, rows: all, width, mut bytes }) => {
            let rest = bytes.split_off(rows * width * activation.bytes());
            (
                Input::Hidden(Hidden { activation, rows, width, bytes }),
                Input::Hidden(Hidden { activation, rows: all - rows, width, bytes: rest }),
            )
        }
    };
    let rest = Work { session, position: position + rows as u32, sample, input: rest };
    (Work { session, position, sample: false, input: first }, Some(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(session: u128, position: u32, rows: usize) -> Work {
        let input = Input::Tokens((0..rows as u32).map(|row| position + row).collect());
        Work { session: SessionId(session), position, sample: true, input }
    }

    /// (session, position, rows) of a batch.
    fn shape(batch: &[Work]) -> Vec<(u128, u32, usize)> {
        batch.iter().map(|work| (work.session.0, work.position, work.input.rows())).collect()
    }

    #[test]
    fn tokens_and_pieces_of_prompts_take_turns() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.took(1, 0, Duration::from_millis(10));
        schedule.push(work(1, 0, 100));
        schedule.push(work(2, 50, 1));
        schedule.push(work(3, 70, 1));
        assert_eq!(shape(&schedule.next(now)), [(2, 50, 1), (3, 70, 1)]);
        // More tokens do not displace the prompt.
        schedule.push(work(2, 51, 1));
        assert_eq!(shape(&schedule.next(now)), [(1, 0, 4)]);
        assert_eq!(shape(&schedule.next(now)), [(2, 51, 1)]);
        // The next tokens are at another stage; the prompt is still cut.
        assert_eq!(shape(&schedule.next(now)), [(1, 4, 4)]);
        assert_eq!(shape(&schedule.next(now)), [(1, 8, 4)]);
        // No conversation is mid-answer any more.
        let later = now + IN_THE_MIDDLE * 2;
        let rest = schedule.next(later);
        assert_eq!(shape(&rest), [(1, 12, 88)]);
        assert!(rest[0].sample);
        assert!(schedule.is_empty());
    }

    #[test]
    fn a_prompt_is_not_held_back_by_an_answer_that_has_ended() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let both = |schedule: &mut Schedule| {
            schedule.push(work(1, 50, 1));
            schedule.push(work(2, 70, 1));
            schedule.next(now);
            schedule.cancel(SessionId(2));
        };
        both(&mut schedule);
        schedule.push(work(3, 0, 100));
        assert_eq!(shape(&schedule.next(now)), [(3, 0, 4)], "one of them is still in the middle");
        schedule.cancel(SessionId(1));
        assert_eq!(shape(&schedule.next(now)), [(3, 4, 96)]);
    }

    #[test]
    fn a_session_keeps_its_order() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.push(work(1, 0, 30));
        schedule.push(work(1, 30, 1));
        schedule.push(work(2, 0, 20));
        assert_eq!(shape(&schedule.next(now)), [(1, 0, 30), (2, 0, 20)]);
        assert_eq!(shape(&schedule.next(now)), [(1, 30, 1)]);
    }

    #[test]
    fn rows_that_come_one_by_one_keep_their_order_when_it_is_the_prompts_turn() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        // Another conversation is mid-answer, and had its turn.
        schedule.push(work(2, 50, 1));
        assert_eq!(shape(&schedule.next(now)), [(2, 50, 1)]);
        // The second row is queued as a prompt, since a session has one token at a time.
        schedule.push(work(1, 23, 1));
        schedule.push(work(1, 24, 1));
        schedule.push(work(3, 0, 30));
        assert_eq!(shape(&schedule.next(now)), [(3, 0, 4)], "the prompt that is ready");
        assert_eq!(shape(&schedule.next(now)), [(1, 23, 1)]);
        assert_eq!(shape(&schedule.next(now)), [(1, 24, 1)]);
    }

    #[test]
    fn a_prompt_alone_is_not_cut_and_several_go_together() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.push(work(1, 0, 256));
        schedule.push(work(1, 256, 256));
        schedule.push(work(2, 0, 256));
        assert_eq!(shape(&schedule.next(now)), [(1, 0, 256), (2, 0, 256)]);
        assert_eq!(shape(&schedule.next(now)), [(1, 256, 256)]);
    }

    #[test]
    fn rows_that_are_replayed_one_by_one_are_joined_where_that_changes_nothing() {
        let mut schedule = Schedule::of(Arithmetic::Exact);
        for position in 20..300 {
            schedule.push(Work { sample: position >= 298, ..work(1, position, 1) });
        }
        schedule.push(Work { sample: false, ..work(2, 0, 1) });
        let now = Instant::now();
        assert_eq!(shape(&schedule.next(now)), [(2, 0, 1)]);
        let later = now + IN_THE_MIDDLE * 2;
        assert_eq!(shape(&schedule.next(later)), [(1, 20, 256)]);
        assert_eq!(shape(&schedule.next(later)), [(1, 276, 23)]);
        assert_eq!(shape(&schedule.next(later)), [(1, 299, 1)]);
        assert!(schedule.is_empty());
    }

    #[test]
    fn what_is_joined_is_what_came() {
        let hidden = |position: u32, bytes: [u8; 4]| {
            let hidden =
                Hidden { activation: hive_model::ActivationType::F16, rows: 1, width: 2, bytes: bytes.to_vec() };
            Work { session: SessionId(1), position, sample: position == 6, input: Input::Hidden(hidden) }
        };
        let mut schedule = Schedule::of(Arithmetic::Exact);
        schedule.push(hidden(5, [1, 2, 3, 4]));
        schedule.push(hidden(6, [5, 6, 7, 8]));
        let batch = schedule.next(Instant::now());
        let [Work { position: 5, sample: true, input: Input::Hidden(joined), .. }] = batch.as_slice() else {
            panic!("{batch:?}")
        };
        assert_eq!((joined.rows, joined.bytes.as_slice()), (2, [1, 2, 3, 4, 5, 6, 7, 8].as_slice()));
    }

    #[test]
    fn where_results_depend_on_the_pieces_they_are_those_that_came() {
        let (mut schedule, now) = (Schedule::of(Arithmetic::Gpu), Instant::now());
        let hidden = |session: u128, position: u32, rows: usize| {
            let hidden =
                Hidden { activation: hive_model::ActivationType::F16, rows, width: 1, bytes: vec![0; 2 * rows] };
            Work { sample: false, input: Input::Hidden(hidden), ..work(session, position, rows) }
        };
        // One prompt, and rows that are replayed one by one, beside a token of another conversation.
        schedule.push(hidden(2, 70, 1));
        for work in [hidden(1, 0, 200), hidden(1, 200, 1), hidden(1, 201, 1), hidden(3, 0, 50)] {
            schedule.push(work);
        }
        assert_eq!(shape(&schedule.next(now)), [(2, 70, 1)]);
        let rest = [(1, 0, 200), (1, 200, 1), (1, 201, 1), (3, 0, 50)];
        for piece in rest {
            assert_eq!(shape(&schedule.next(now)), [piece]);
        }
        assert!(schedule.is_empty());
        // The first stage cuts, as its frames show.
        schedule.push(work(2, 71, 1));
        schedule.push(work(1, 0, 100));
        assert_eq!(shape(&schedule.next(now)), [(2, 71, 1)]);
        assert_eq!(shape(&schedule.next(now)), [(1, 0, 32)]);
        assert_eq!(shape(&schedule.next(now)), [(1, 32, 32)]);
        assert_eq!(shape(&schedule.next(now)), [(1, 64, 32)]);
        assert_eq!(shape(&schedule.next(now)), [(1, 96, 4)]);
    }

    #[test]
    fn a_cancelled_session_wants_nothing_more() {
        let mut schedule = Schedule::default();
        schedule.push(work(1, 0, 30));
        schedule.push(work(1, 30, 30));
        schedule.push(work(2, 0, 1));
        schedule.cancel(SessionId(1));
        assert_eq!(shape(&schedule.next(Instant::now())), [(2, 0, 1)]);
        assert!(schedule.is_empty());
    }

    #[test]
    fn hidden_states_are_cut_between_rows() {
        let activation = hive_model::ActivationType::F16;
        let bytes: Vec<u8> = (0..24).collect();
        let hidden = Hidden { activation, rows: 3, width: 4, bytes };
        let work = Work { session: SessionId(1), position: 5, sample: true, input: Input::Hidden(hidden) };
        let (first, rest) = cut(work, 1);
        let rest = rest.unwrap();
        assert!(!first.sample && rest.sample && rest.position == 6);
        match (first.input, rest.input) {
            (Input::Hidden(first), Input::Hidden(rest)) => {
                assert_eq!((first.rows, first.bytes), (1, (0..8).collect()));
                assert_eq!((rest.rows, rest.bytes), (2, (8..24).collect()));
            }
            other => panic!("{other:?}"),
        }
    }
}
