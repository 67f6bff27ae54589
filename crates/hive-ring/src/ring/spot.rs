//! Spot checks: the standby replica of a stage on another machine recomputes the stage's rows, and the results are
//! compared bit for bit.
//!
//! The standby replica follows the answer: it gets the rows that the stage got, from the log of the stage before, in
//! pieces as large as a chunk of a prompt, with pauses, so that tokens are not held up. Its output is compared with
//! what arrived at the next stage; for the last stage, with the tokens that arrived here. Only kernels that give the
//! same bits everywhere are compared, and only stages that have a standby replica.

mod verdict;

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use hive_model::shard::Input;
use hive_model::{Sampling, SessionOptions};
use hive_net::{PeerAddr, PeerId};
use tokio::sync::mpsc;

use hive_protocol::{
    Arithmetic, Recompute, Reply, Request, RingId, RowDigest, Span, StageId, StageSpec, digests, random_id,
    token_digests,
};
use hive_stage::{AdapterFiles, StageHost};

use super::Ring;
use super::assembly::{load_stage, spec, unload};
use super::checkup::{Checked, check};
use super::placed::{PlacedStage, Standby};
use verdict::{Evidence, Verdict};

/// Bytes of hidden states that are fetched and recomputed at a time.
const PIECE_BYTES: usize = 512 << 10;
/// And this many rows; fewer for the last stage, of which only the token after each piece is compared.
const PIECE_ROWS: u32 = 128;
const LAST_PIECE_ROWS: u32 = 32;

/// After each piece, the machines get a pause this many times as long as it took.
const PAUSE_TIMES: u32 = 4;

/// A piece takes well under a second. A machine that takes longer than this is too busy for a spot check.
const PIECE_TIMEOUT: Duration = Duration::from_secs(20);

/// An answer whose stages are checked, as far as it is known.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) session: u128,
    /// Prompt and answer so far.
    pub(crate) known: Vec<u32>,
    /// How many of these tokens are the prompt's.
    pub(crate) prompt: u32,
    pub(crate) sampling: Sampling,
    pub(crate) adapter: Option<AdapterFiles>,
    /// The first position that the current holders of the stages computed; earlier ones are not theirs.
    pub(crate) rows_from: u32,
    /// The first token that they sampled.
    pub(crate) tokens_from: u32,
}

/// The result of a spot check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// All results are the same, or nothing could be compared.
    Nothing,
    /// It could not be completed: a machine has left, or does not answer.
    Unfinished,
    /// A stage computed wrong numbers.
    Wrong {
        /// The stage.
        index: usize,
        /// Its machine.
        machine: PeerId,
        /// The machine's name.
        name: String,
        /// The first position that is wrong.
        position: u32,
    },
}

/// The spot checks of one answer: how far each standby replica has followed it.
pub(crate) struct Spot {
    ring: Ring,
    readers: HashMap<usize, Reader>,
}

/// The session in which a standby replica follows the answer.
#[derive(Clone)]
struct Reader {
    on: PlacedStage,
    stage: StageId,
    session: u128,
    next: u32,
}

impl Reader {
    /// Whether it is on this standby replica.
    fn is_on(&self, replica: &PlacedStage) -> bool {
        self.on.placement.addr.id() == replica.placement.addr.id() && self.on.incarnation == replica.incarnation
    }
}

/// A stage that a third machine loads to decide. It is unloaded when this is dropped, however the check ended.
///
/// It is in a ring of its own: the same machine may take over the stage itself meanwhile, and keeps that.
struct Borrowed {
    host: StageHost,
    stage: StageId,
    on: PeerAddr,
}

impl Borrowed {
    /// Call this before loading: the machine may have loaded the stage although no reply came.
    fn begin(host: &StageHost, index: usize, on: &PeerAddr) -> Self {
        let stage = StageId { ring: RingId(random_id()), index: index as u32 };
        // Nothing comes back, as it is not joined.
        let (frames, _) = mpsc::channel(1);
        host.coordinate(stage.ring, frames);
        Self { host: host.clone(), stage, on: on.clone() }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.host.retire(self.stage.ring);
        let (host, ring, on) = (self.host.clone(), self.stage.ring, (self.stage.index as usize, self.on.clone()));
        self.host.membership().spawn(async move { unload(&host, ring, std::iter::once(on)).await });
    }
}

/// No result: a machine has left, or has forgotten the rows in question. Nobody is at fault.
struct Unknown;

impl Spot {
    pub(crate) fn new(ring: Ring) -> Self {
        Self { ring, readers: HashMap::new() }
    }

    fn host(&self) -> &StageHost {
        &self.ring.inner.host
    }

    /// Has everything since the last check recomputed, stage by stage.
    pub(crate) async fn check(mut self, subject: Subject) -> (Self, Found) {
        let (stages, mut found) = (self.ring.stages(), Found::Nothing);
        for standby in self.ring.standbys() {
            let Some(stage) = stages.get(standby.index) else { continue };
            // This machine trusts itself.
            if stage.placement.addr.id() == self.host().membership().id() {
                continue;
            }
            match self.check_stage(&standby, &stages, &subject).await {
                Ok(wrong @ Found::Wrong { .. }) => return (self, wrong),
                Ok(_) => {}
                Err(Unknown) => found = Found::Unfinished,
            }
        }
        (self, found)
    }

    async fn check_stage(
        &mut self,
        standby: &Standby,
        stages: &[PlacedStage],
        subject: &Subject,
    ) -> Result<Found, Unknown> {
        let (index, replica) = (standby.index, &standby.stage);
        let id = self.ring.inner.stage_id(index);
        let is_last = index + 1 == stages.len();
        if is_last && has_penalties(&subject.sampling) {
            return Ok(Found::Nothing);
        }
        for holder in [&stages[index], replica] {
            let Checked::Pulse(pulse) = check(self.host(), holder, Request::Check(id)).await else {
                return Err(Unknown);
            };
            if pulse.arithmetic != Arithmetic::Exact {
                return Ok(Found::Nothing);
            }
        }
        // The newest positions may not have passed all stages.
        let end = (subject.known.len() as u32).saturating_sub(2);
        let most = if is_last { LAST_PIECE_ROWS } else { PIECE_ROWS };
        loop {
            let reader = self.reader(index, id, replica);
            let start = reader.next;
            if start >= end {
                let (name, other) = (&stages[index].placement.name, &replica.placement.name);
                tracing::info!("{other} has computed {end} positions of {name} once more: they are the same");
                return Ok(Found::Nothing);
            }
            let started = Instant::now();
            let rows = start..end.min(start + self.piece_rows(most));
            let Ok(found) = self.piece(&reader, stages, subject, rows.clone()).await else {
                // The next check, if there is one, begins at the first position.
                self.close_reader(index);
                return Err(Unknown);
            };
            if found != Found::Nothing {
                return Ok(found);
            }
            if let Some(reader) = self.readers.get_mut(&index) {
                reader.next = rows.end;
            }
            tokio::time::sleep(started.elapsed() * PAUSE_TIMES).await;
        }
    }

    /// Checks one piece.
    async fn piece(
        &self,
        reader: &Reader,
        stages: &[PlacedStage],
        subject: &Subject,
        rows: Range<u32>,
    ) -> Result<Found, Unknown> {
        let index = reader.stage.index as usize;
        let own = self.host().membership().id();
        let input = self.undisputed_input(index, stages, subject, rows.clone()).await?;
        let is_last = index + 1 == stages.len();
        let replica_here = reader.on.placement.addr.id() == own;
        // Rows computed by former holders.
        let skipped = subject.rows_from.saturating_sub(rows.start).min(rows.len() as u32);
        let is_theirs = if is_last { rows.end >= subject.tokens_from } else { (skipped as usize) < rows.len() };
        let verdict = if !is_theirs {
            self.recompute(reader, subject, rows.clone(), input).await?;
            Verdict::Agree
        } else if is_last {
            let (_, token) = self.recompute(reader, subject, rows.clone(), input.clone()).await?;
            let (used, replica) = ([subject.known[rows.end as usize]], [token.ok_or(Unknown)?]);
            let seen =
                Evidence { used: &used, claimed: None, replica: &replica, third: None, used_here: true, replica_here };
            match seen.judge() {
                Verdict::AskThird => {
                    let third = self.by_a_third(index, stages, &reader.on, subject, rows.clone()).await.ok();
                    let token = third.and_then(|(_, token)| token).map(|token| [token]);
                    Evidence { third: token.as_ref().map(<[u32; 1]>::as_slice), ..seen }.judge()
                }
                verdict => verdict,
            }
        } else {
            let (replica, _) = self.recompute(reader, subject, rows.clone(), input).await?;
            let used = self.received(index + 1, stages, subject.session, rows.clone()).await?;
            let used_here = stages[index + 1].placement.addr.id() == own;
            let claimed =
                if used == replica { None } else { self.sent(index, stages, subject.session, rows.clone()).await.ok() };
            let claimed = claimed.map(|input| input_digests(&input));
            let theirs = |digests: &[RowDigest]| digests.get(skipped as usize..).unwrap_or_default().to_vec();
            let (used, replica, claimed) = (theirs(&used), theirs(&replica), claimed.as_deref().map(theirs));
            let seen = Evidence {
                used: &used,
                claimed: claimed.as_deref(),
                replica: &replica,
                third: None,
                used_here,
                replica_here,
            };
            match seen.judge() {
                Verdict::AskThird => {
                    let third = self.by_a_third(index, stages, &reader.on, subject, rows.clone()).await.ok();
                    let third = third.map(|(third, _)| theirs(&third));
                    Evidence { third: third.as_deref(), ..seen }.judge()
                }
                verdict => verdict,
            }
        };
        let rows = rows.start + skipped..rows.end;
        self.act_on(verdict, index, stages, reader, &rows)
    }

    /// Acts on a verdict.
    fn act_on(
        &self,
        verdict: Verdict,
        index: usize,
        stages: &[PlacedStage],
        reader: &Reader,
        rows: &Range<u32>,
    ) -> Result<Found, Unknown> {
        let (host, stage, next) = (self.host(), &stages[index], stages.get(index + 1));
        let name = stage.placement.name.clone();
        match verdict {
            Verdict::Agree => Ok(Found::Nothing),
            Verdict::Stage(row) => {
                // For the last stage, a token was compared, and any row before it may be wrong.
                let position = if next.is_none() { rows.start } else { rows.start + row as u32 };
                Ok(Found::Wrong { index, machine: stage.placement.addr.id(), name, position })
            }
            Verdict::Standby(_) => {
                let (machine, name) = (reader.on.placement.addr.id(), &reader.on.placement.name);
                tracing::warn!("{name} computed wrong numbers with its standby replica of layers {:?}", stage.layers);
                host.membership().quarantine(machine, name);
                self.ring.dismiss_standby_of(index);
                Err(Unknown)
            }
            Verdict::AskThird | Verdict::Contradiction | Verdict::Unclear => {
                let text = match (verdict, next) {
                    (Verdict::Contradiction, Some(next)) => {
                        format!(
                            "{name} and {} contradict each other about what passed between them.",
                            next.placement.name
                        )
                    }
                    _ => format!(
                        "{name} and {} do not compute the same numbers, and no third machine can decide.",
                        reader.on.placement.name
                    ),
                };
                host.membership().report_disagreement(stage.placement.addr.id(), text);
                Err(Unknown)
            }
        }
    }

    /// The input of a stage. If the stage says it was given something else, it contradicts the sender: if this machine
    /// is the sender, it is right; otherwise it is not known which of the two is wrong, and the owner is notified.
    async fn undisputed_input(
        &self,
        index: usize,
        stages: &[PlacedStage],
        subject: &Subject,
        rows: Range<u32>,
    ) -> Result<Input, Unknown> {
        let input = self.input(index, stages, subject, rows.clone()).await?;
        let given = self.received(index, stages, subject.session, rows.clone()).await?;
        let sent = input_digests(&input);
        if given == sent {
            return Ok(input);
        }
        // The first row that differs, or that one of them is missing.
        let row = given.iter().zip(&sent).position(|(given, sent)| given != sent);
        let position = rows.start + row.unwrap_or(given.len().min(sent.len())) as u32;
        let sender = index.checked_sub(1).unwrap_or(stages.len() - 1);
        let [stage, sender] = [index, sender].map(|at| &stages[at].placement);
        // Everything computed since the ring was joined was sent once only.
        let sent_here = sender.addr.id() == self.host().membership().id() && position >= subject.rows_from;
        let is_prompt = index == 0 && position < subject.prompt;
        let sender = if is_prompt { self.host().membership().name() } else { &sender.name };
        let text = format!("{} says that it was given something else than {sender} says it sent.", stage.name);
        self.host().membership().report_disagreement(stage.addr.id(), text);
        if sent_here || is_prompt { Ok(input) } else { Err(Unknown) }
    }

    /// The input of a stage, as its sender says: tokens, or the output of the stage before.
    async fn input(
        &self,
        index: usize,
        stages: &[PlacedStage],
        subject: &Subject,
        rows: Range<u32>,
    ) -> Result<Input, Unknown> {
        match index.checked_sub(1) {
            None => {
                let known = subject.known.get(rows.start as usize..rows.end as usize).ok_or(Unknown)?;
                Ok(Input::Tokens(known.to_vec()))
            }
            Some(before) => self.sent(before, stages, subject.session, rows).await,
        }
    }

    async fn sent(
        &self,
        index: usize,
        stages: &[PlacedStage],
        session: u128,
        rows: Range<u32>,
    ) -> Result<Input, Unknown> {
        let request = Request::Rows(self.ring.inner.stage_id(index), Span { session, rows });
        match self.ask(&stages[index], request).await? {
            Reply::Rows(hidden) if hidden.is_consistent() => Ok(Input::Hidden(hidden)),
            _ => Err(Unknown),
        }
    }

    async fn received(
        &self,
        index: usize,
        stages: &[PlacedStage],
        session: u128,
        rows: Range<u32>,
    ) -> Result<Vec<RowDigest>, Unknown> {
        let request = Request::Digests(self.ring.inner.stage_id(index), Span { session, rows });
        match self.ask(&stages[index], request).await? {
            Reply::Digests(digests) => Ok(digests),
            _ => Err(Unknown),
        }
    }

    async fn recompute(
        &self,
        reader: &Reader,
        subject: &Subject,
        rows: Range<u32>,
        input: Input,
    ) -> Result<(Vec<RowDigest>, Option<u32>), Unknown> {
        if !self.may_read(reader) {
            return Err(Unknown);
        }
        if let Some(adapter) = &subject.adapter {
            let given = self.host().give_adapter(&reader.on.placement.addr, reader.stage, adapter);
            tokio::time::timeout(PIECE_TIMEOUT, given).await.map_err(|_| Unknown)?.map_err(|_| Unknown)?;
        }
        let options = SessionOptions {
            sampling: Sampling { logprobs: None, ..subject.sampling.clone() },
            adapter: subject.adapter.as_ref().map(AdapterFiles::id),
            ..SessionOptions::default()
        };
        let wanted = Recompute { session: reader.session, options, position: rows.start, input, sample: true };
        match self.ask(&reader.on, Request::Recompute(reader.stage, Box::new(wanted))).await? {
            Reply::Recomputed { digests, token } => Ok((digests, token)),
            _ => Err(Unknown),
        }
    }

    /// Has a machine that holds neither the stage nor its standby replica compute all rows up to the end of a piece;
    /// this machine, if it has room. Returns the piece.
    async fn by_a_third(
        &self,
        index: usize,
        stages: &[PlacedStage],
        replica: &PlacedStage,
        subject: &Subject,
        rows: Range<u32>,
    ) -> Result<(Vec<RowDigest>, Option<u32>), Unknown> {
        let (inner, host) = (&self.ring.inner, self.host());
        let suspects = [stages[index].placement.addr.id(), replica.placement.addr.id()];
        let planned = inner.plan.stages.get(index).ok_or(Unknown)?;
        let needed = planned.bytes();
        let mut machines = host.membership().machines(&inner.options.source);
        machines.retain(|(placement, profile)| {
            let machine = placement.addr.id();
            // Nobody downloads a model to decide.
            let has_it = host.membership().has_copy(machine, &inner.options.source);
            !suspects.contains(&machine) && profile.memory_bytes >= needed && has_it
        });
        let own = machines.iter().position(|(placement, _)| placement.addr.id() == host.membership().id());
        let Some((placement, _)) = machines.get(own.unwrap_or(0)) else { return Err(Unknown) };
        let borrowed = Borrowed::begin(host, index, &placement.addr);
        let id = borrowed.stage;
        let spec = StageSpec { standby: true, ..spec(planned, &inner.options) };
        let on = load_stage(host, id, placement, spec, |_| ()).await.map_err(|_| Unknown)?;
        match check(host, &on, Request::Check(id)).await {
            Checked::Pulse(pulse) if pulse.arithmetic == Arithmetic::Exact => {}
            _ => return Err(Unknown),
        }
        tracing::info!(
            "{} decides between {} and {}",
            placement.name,
            stages[index].placement.name,
            replica.placement.name
        );
        let reader = Reader { on, stage: id, session: random_id(), next: 0 };
        self.recompute_from_start(&reader, stages, subject, rows).await
    }

    /// Whether a machine may be sent the next piece, which reveals the prompt: a standby replica may have been
    /// unloaded, or have taken over.
    fn may_read(&self, reader: &Reader) -> bool {
        let is_it = |standby: &Standby| standby.index == reader.stage.index as usize && reader.is_on(&standby.stage);
        let is_third = reader.stage.ring != self.ring.inner.id;
        let is_current = is_third || self.ring.standbys().iter().any(is_it);
        is_current && self.host().membership().may_see_prompts(reader.on.placement.addr.id())
    }

    async fn recompute_from_start(
        &self,
        reader: &Reader,
        stages: &[PlacedStage],
        subject: &Subject,
        rows: Range<u32>,
    ) -> Result<(Vec<RowDigest>, Option<u32>), Unknown> {
        let index = reader.stage.index as usize;
        let mut at = 0;
        while at < rows.start {
            let until = rows.start.min(at + self.piece_rows(PIECE_ROWS));
            let input = self.undisputed_input(index, stages, subject, at..until).await?;
            self.recompute(reader, subject, at..until, input).await?;
            at = until;
        }
        let input = self.input(index, stages, subject, rows.clone()).await?;
        self.recompute(reader, subject, rows, input).await
    }

    /// The session in which a standby replica follows the answer; a new one if it is on another machine now.
    fn reader(&mut self, index: usize, stage: StageId, replica: &PlacedStage) -> Reader {
        if let Some(reader) = self.readers.get(&index).filter(|reader| reader.is_on(replica)) {
            return reader.clone();
        }
        self.close_reader(index);
        let reader = Reader { on: replica.clone(), stage, session: random_id(), next: 0 };
        self.readers.insert(index, reader.clone());
        reader
    }

    fn piece_rows(&self, most: u32) -> u32 {
        // Hidden states travel in single precision at most.
        let row_bytes = self.ring.inner.model.card().hidden_bytes as usize * 2;
        most.min((PIECE_BYTES / row_bytes.max(1)).max(1) as u32)
    }

    async fn ask(&self, holder: &PlacedStage, request: Request) -> Result<Reply, Unknown> {
        let asked = self.host().ask(&holder.placement.addr, request, |_| ());
        match tokio::time::timeout(PIECE_TIMEOUT, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(why)) => {
                tracing::debug!("{} was not checked: {why}", holder.placement.name);
                Err(Unknown)
            }
            Err(_) => Err(Unknown),
        }
    }

    fn close_reader(&mut self, index: usize) {
        if let Some(reader) = self.readers.remove(&index) {
            let host = self.host().clone();
            self.host().membership().spawn(async move {
                let request = Request::Close(reader.stage, reader.session);
                let asked = host.ask(&reader.on.placement.addr, request, |_| ());
                let _ = tokio::time::timeout(PIECE_TIMEOUT, asked).await;
            });
        }
    }
}

impl Drop for Spot {
    fn drop(&mut self) {
        for index in self.readers.keys().copied().collect::<Vec<_>>() {
            self.close_reader(index);
        }
    }
}

fn input_digests(input: &Input) -> Vec<RowDigest> {
    match input {
        Input::Tokens(tokens) => token_digests(tokens),
        Input::Hidden(hidden) => digests(&hidden.bytes, hidden.rows),
    }
}

/// Whether a token depends on the tokens sampled before, which a standby replica does not know.
fn has_penalties(sampling: &Sampling) -> bool {
    sampling.repetition_penalty != 1.0 || sampling.presence_penalty != 0.0 || sampling.frequency_penalty != 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use hive_peers::Placement;
    use hive_protocol::ModelSource;
    use hive_stage::testing::Machine;

    #[tokio::test]
    async fn what_a_third_machine_was_asked_to_load_is_wanted_no_longer_than_the_check_takes() {
        let host = Machine::start("ann").await;
        let (frames, _queue) = mpsc::channel(1);
        let other = StageId { ring: RingId(7), index: 1 };
        host.coordinate(other.ring, frames);
        host.lease(other, host.membership().id());
        {
            let borrowed = Borrowed::begin(&host, 1, &host.membership().addr());
            let spec = StageSpec {
                source: ModelSource::Named(Some("no/such-model".to_owned()), String::new()),
                layers: 0..1,
                compute: hive_model::Compute::Auto,
                threads: 0,
                bytes: 0,
                standby: true,
                at_load: None,
            };
            let placement = Placement { name: "ann".to_owned(), addr: host.membership().addr(), gpu: false };
            assert!(load_stage(&host, borrowed.stage, &placement, spec, |_| ()).await.is_err());
            assert!(host.leased_on(host.membership().id()).contains(&borrowed.stage));
            let _orders = host.host_idle(borrowed.stage, host.membership().id());
            host.host_idle(other, host.membership().id());
            assert_eq!(host.hosted().len(), 2);
        }
        assert_eq!(host.leased_on(host.membership().id()), [other]);
        let freed = async {
            while host.hosted().len() > 1 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), freed).await.expect("it is freed");
        assert_eq!(host.hosted(), [other], "and nothing else");
        host.stop().await;
    }
}
