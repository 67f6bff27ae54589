//! The actor of a stage: handles its commands, frames and worker events one by one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hive_model::shard::Output;
use hive_model::{CarriedSession, SessionId, SessionOptions};
use hive_net::stage::RoundTrips;
use hive_net::{Frame, Kind};
use tokio::sync::{mpsc, oneshot};

use super::adapters::Adapters;
use super::adopting::{Adopting, AllAdopting};
use super::digest::Received;
use super::frames::{Fault, failed_frame, hidden_frame, input_of, read_frame, token_frame, turns};
use super::pulse::Activity;
use super::recompute::Recomputing;
use super::routes::{Command, Destination, Routes, Tenancy};
use super::sent::{Arrival, Sent, arrival, without};
use super::spec_bytes::{bytes_of, bytes_of_options};
use super::tombstones::{End, Tombstones};
use super::transit::{Part, Transit};
use hive_audit::Usage;
use hive_peers::Tasks;
use hive_protocol::{Continued, Recompute, Reply, Request, SessionSpec, Span, StageReport, logged};
use hive_worker::{
    AdaptFailure, Blame, Death, Ending, Events, FromWorker, Raw, ToWorker, Work, Worker, WorkerEvent, WorkerReport,
};

/// A session on this stage.
struct Open {
    spec: SessionSpec,
    /// The next position. Rows before it are already taken; they arrive again only if they are resent or replayed.
    next: u32,
    /// On the first stage, input before this position came from the coordinator; later tokens were sampled by the last
    /// stage.
    asked: u32,
    /// Whether its answer is done and only its cache is kept.
    retained: bool,
    sent: Sent,
    received: Received,
}

impl Open {
    /// Memory on this node for the session, in bytes, without the caches, which the worker holds.
    fn bytes(&self) -> usize {
        size_of::<Self>() + bytes_of(&self.spec) + self.sent.bytes()
    }
}

/// Maximum number of tokens that end an answer: models have a handful.
const MOST_END_TOKENS: usize = 64;
/// Maximum number of sessions on a stage, including retained ones. A machine computes far fewer at a time.
const MOST_SESSIONS: usize = 256;
/// Maximum size of the specs of all sessions, in bytes: mostly prompts, which only the last stage gets.
const MOST_SPEC_BYTES: usize = 64 << 20;

/// A session that is being handed over.
struct Departure {
    to: mpsc::UnboundedSender<Part>,
    /// Layers whose caches the worker has yet to export.
    layers: usize,
}

pub(super) struct Actor {
    worker: Worker,
    /// Its index in the ring.
    index: u32,
    /// The ring's epoch when this stage was joined.
    epoch: u32,
    sessions: HashMap<u128, Open>,
    /// The number of sessions being computed, shared with the handles.
    busy: Arc<AtomicUsize>,
    /// This stage's work, for the audit log.
    usage: Arc<Usage>,
    /// Memory on this node for all sessions, in bytes.
    held_bytes: Arc<AtomicUsize>,
    tenancy: Tenancy,
    /// Why this machine ends the worker, and whom to notify when it has ended.
    ending: Option<(String, oneshot::Sender<()>)>,
    routes: Option<Routes>,
    /// Why the worker has ended, once it has.
    dead: Option<String>,
    reports: Vec<oneshot::Sender<Result<Reply, String>>>,
    /// Checks that wait for the worker's reply.
    checks: Vec<oneshot::Sender<Result<Reply, String>>>,
    activity: Activity,
    recomputing: Recomputing,
    departures: HashMap<u128, Departure>,
    /// Sessions that continue another's cache, which the worker is preparing.
    adopting: AllAdopting,
    /// The adapters that the worker has, and who waits for others.
    adapters: Adapters,
    /// Sessions that the worker is importing.
    arrivals: HashMap<u128, (Open, oneshot::Sender<Result<(), String>>)>,
    /// Sessions that ended before they arrived.
    ended: Tombstones,
    link: Option<RoundTrips>,
    /// The actor's own queue; weak, so that the actor ends with its last handle.
    commands: mpsc::WeakSender<Command>,
    tasks: Tasks,
}

impl Actor {
    pub(super) fn new(
        worker: Worker,
        index: u32,
        tenancy: Tenancy,
        activity: Activity,
        commands: mpsc::WeakSender<Command>,
        tasks: Tasks,
    ) -> Self {
        Self {
            worker,
            index,
            epoch: 0,
            sessions: HashMap::new(),
            busy: Arc::default(),
            usage: Arc::default(),
            held_bytes: Arc::default(),
            tenancy,
            ending: None,
            routes: None,
            dead: None,
            reports: Vec::new(),
            checks: Vec::new(),
            activity,
            recomputing: Recomputing::default(),
            departures: HashMap::new(),
            adopting: AllAdopting::new(),
            adapters: Adapters::default(),
            arrivals: HashMap::new(),
            ended: Tombstones::default(),
            link: None,
            commands,
            tasks,
        }
    }

    pub(super) fn busy(&self) -> Arc<AtomicUsize> {
        self.busy.clone()
    }

    pub(super) fn held_bytes(&self) -> Arc<AtomicUsize> {
        self.held_bytes.clone()
    }

    pub(super) fn adapter_bytes(&self) -> Arc<AtomicU64> {
        self.adapters.bytes()
    }

    pub(super) fn usage(&self) -> Arc<Usage> {
        self.usage.clone()
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut frames: mpsc::Receiver<Frame>,
        mut events: Events,
    ) {
        let mut looked = Instant::now();
        loop {
            tokio::select! {
                // Commands first: a session is opened before its frames are taken, and closed before more are.
                biased;
                command = commands.recv() => match command {
                    Some(Command::End(why, ended)) => {
                        self.ending = Some((why, ended));
                        events.kill();
                    }
                    Some(command) => self.command(command).await,
                    None => return,
                },
                Some(event) = events.next() => match event {
                    WorkerEvent::Said(message) => self.said(message).await,
                    WorkerEvent::Died(how) => self.died(&how).await,
                },
                Some(frame) = frames.recv(), if self.worker.has_room() => self.frame(frame).await,
            }
            let busy = self.sessions.values().filter(|open| !open.retained).count() + self.adopting.len();
            let was_busy = self.busy.swap(busy, Ordering::Relaxed) > 0;
            let passed_ms = looked.elapsed().as_millis() as u64;
            if !was_busy {
                looked = Instant::now();
            } else if passed_ms > 0 {
                self.usage.busy_ms.fetch_add(passed_ms, Ordering::Relaxed);
                looked += Duration::from_millis(passed_ms);
            }
            let held_bytes: usize = self.sessions.values().map(Open::bytes).sum();
            let adopting_bytes: usize = self.adopting.values().map(Adopting::bytes).sum();
            self.held_bytes.store(held_bytes + adopting_bytes, Ordering::Relaxed);
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Join(routes) => {
                self.link = match &routes.next {
                    Some(Destination::Remote(outlet)) => Some(outlet.round_trips()),
                    _ => None,
                };
                self.watch(&routes);
                self.epoch = routes.epoch;
                self.routes = Some(routes);
            }
            Command::Lost(whom, why) => {
                for session in self.sessions.keys().copied().collect::<Vec<_>>() {
                    self.fail(session, Fault::Link, &format!("{whom} cannot be reached: {why}")).await;
                }
            }
            Command::Adapt(id, bytes, answer) => {
                if let Some(why) = &self.dead {
                    let _ = answer.send(Err(AdaptFailure::Failed(why.clone())));
                } else if let Some(order) = self.adapters.wanted(id, bytes, answer) {
                    self.worker.order(&order);
                }
            }
            Command::List(answer) => {
                let _ = answer.send(self.sessions.iter().map(|(session, open)| (*session, open.next)).collect());
            }
            Command::GiveAway(session, to) => self.give_away(session, to),
            Command::TakeIn(transit, answer) => self.take_in(*transit, answer),
            // Handled in `run`, which has the worker's events.
            Command::End(..) => {}
            Command::Ask(request, answer) => {
                if let Some(why) = &self.dead {
                    let _ = answer.send(Err(why.clone()));
                } else if matches!(request, Request::Report(_)) {
                    self.reports.push(answer);
                    self.worker.order(&ToWorker::Report);
                } else if matches!(request, Request::Check(_)) {
                    self.checks.push(answer);
                    self.worker.order(&ToWorker::Check);
                } else if let Request::Recompute(_, wanted) = request {
                    self.recompute(*wanted, answer);
                } else if let Request::Open(_, spec) = request {
                    self.open_asked(spec, answer);
                } else {
                    let _ = answer.send(self.asked(request).await);
                }
            }
        }
    }

    async fn asked(&mut self, request: Request) -> Result<Reply, String> {
        match request {
            Request::Retain(_, session) => self.keep(session),
            Request::Close(_, session) => self.close(session),
            Request::Replay(_, wanted) => {
                let open = self.sessions.get(&wanted.session).ok_or("it does not know the session")?;
                for frame in open.sent.replay(wanted) {
                    self.send(frame).await;
                }
            }
            Request::Digests(_, Span { session, rows }) => {
                let open = self.sessions.get(&session).ok_or("it does not know the session")?;
                return open
                    .received
                    .rows(&rows)
                    .map(Reply::Digests)
                    .ok_or_else(|| "it does not know these rows".to_owned());
            }
            Request::Rows(_, Span { session, rows }) => {
                let open = self.sessions.get(&session).ok_or("it does not know the session")?;
                return open.sent.hidden(&rows).map(Reply::Rows).ok_or_else(|| "it did not send these rows".to_owned());
            }
            _ => {}
        }
        Ok(Reply::Done)
    }

    /// Recomputes rows in a session of their own.
    fn recompute(&mut self, wanted: Recompute, answer: oneshot::Sender<Result<Reply, String>>) {
        if self.sessions.contains_key(&wanted.session) {
            let _ = answer.send(Err("a conversation has this session".to_owned()));
            return;
        }
        if let Err(why) = self.fits(&wanted.options, &[]).and_then(|()| self.within_context(&wanted)) {
            let _ = answer.send(Err(why));
            return;
        }
        let Ok(is_new) = self.recomputing.begin(&wanted, answer) else { return };
        let Recompute { session: id, options, position, input, sample } = wanted;
        let session = SessionId(id);
        if is_new {
            self.worker.order(&ToWorker::Open(session, options));
        }
        self.activity.ordered(id, input.rows() as u32);
        self.worker.order(&ToWorker::Forward(Work { session, position, sample, input }));
    }

    fn give_away(&mut self, session: u128, to: mpsc::UnboundedSender<Part>) {
        if self.dead.is_none() && self.sessions.contains_key(&session) {
            self.activity.ended(session);
            self.worker.order(&ToWorker::Export(SessionId(session)));
            self.worker.order(&ToWorker::Close(SessionId(session)));
            self.departures.insert(session, Departure { to, layers: 0 });
        }
    }

    /// The worker has done everything that was ordered in the session and has exported its state. If the receiver of
    /// the parts is gone, they are dropped.
    fn depart(&mut self, session: u128, exported: Option<(CarriedSession, usize)>) {
        let (open, departure) = (self.sessions.remove(&session), self.departures.get_mut(&session));
        if let (Some(Open { spec, retained, sent, .. }), Some((state, layers)), Some(departure)) =
            (open, exported, departure)
        {
            departure.layers = layers;
            let _ = departure.to.send(Part::Session(Box::new(spec), retained, state));
            for frame in sent.all(session) {
                let _ = departure.to.send(Part::sent(&frame));
            }
        } else {
            self.departures.remove(&session);
        }
    }

    fn carry(&mut self, session: u128, cache: &[u8]) {
        let Some(departure) = self.departures.get_mut(&session) else { return };
        for part in Part::of_cache(cache) {
            let _ = departure.to.send(part);
        }
        departure.layers = departure.layers.saturating_sub(1);
        if departure.layers == 0 {
            let _ = departure.to.send(Part::Whole);
            self.departures.remove(&session);
        }
    }

    fn take_in(&mut self, transit: Transit, answer: oneshot::Sender<Result<(), String>>) {
        let Transit { spec, retained, state, sent, layers, .. } = transit;
        let (id, next) = (SessionId(spec.session), state.position as u32);
        let end = self.ended.of(id.0);
        let retained = retained || end == Some(End::Kept);
        let refusal = match &self.dead {
            Some(why) => Some(why.clone()),
            None if end == Some(End::Closed) => Some("it was closed on the way".to_owned()),
            None if self.sessions.contains_key(&id.0) => Some("it is open here already".to_owned()),
            None => self.fits(&spec.options, &spec.end_tokens).err(),
        };
        if let Some(why) = refusal {
            let _ = answer.send(Err(why));
            return;
        }
        for cache in layers {
            self.worker.order(&ToWorker::Cache(id, Raw(cache)));
        }
        self.worker.order(&ToWorker::Import(id, spec.options.clone(), state));
        let received = Received::starting_at(next);
        self.arrivals.insert(id.0, (Open { spec, next, asked: 0, retained, sent, received }, answer));
    }

    fn arrive(&mut self, session: u128, imported: Result<(), String>) {
        let Some((open, answer)) = self.arrivals.remove(&session) else { return };
        if imported.is_ok() {
            let (answer, next) = (open.spec.answer, open.next);
            tracing::debug!(answer, session = logged(session), stage = self.index, next, "a session was carried here");
            if open.retained {
                self.worker.order(&ToWorker::Rest(SessionId(session)));
            } else {
                self.run_ahead(&open.spec);
            }
            self.sessions.insert(session, open);
        }
        let _ = answer.send(imported);
    }

    /// Lets the answer run ahead if this stage is the whole model.
    fn run_ahead(&self, spec: &SessionSpec) {
        if self.tenancy.is_whole {
            let ending = Ending { end_tokens: spec.end_tokens.clone(), last_position: spec.last_position };
            self.worker.order(&ToWorker::RunAhead(SessionId(spec.session), ending));
        }
    }

    /// Retains a session: the answer is done, and the cache stays for the conversation's next turn.
    fn keep(&mut self, session: u128) {
        if let Some(open) = self.sessions.get_mut(&session) {
            open.retained = true;
            self.activity.ended(session);
            self.worker.order(&ToWorker::Rest(SessionId(session)));
        } else if let Some((open, _)) = self.arrivals.get_mut(&session) {
            open.retained = true;
        } else {
            self.ended.note(session, End::Kept);
        }
    }

    fn close(&mut self, session: u128) {
        if self.sessions.remove(&session).is_none() {
            // It may be on its way here.
            self.arrivals.remove(&session);
            self.adopting.remove(&session);
            self.ended.note(session, End::Closed);
        }
        self.activity.ended(session);
        self.recomputing.close(session);
        self.worker.order(&ToWorker::Close(SessionId(session)));
    }

    /// Checks the limits for one more session.
    fn fits(&self, options: &SessionOptions, end_tokens: &[u32]) -> Result<(), String> {
        let tokens = options.prompt.len() + options.answer.len();
        let open = self.sessions.values().map(|open| &open.spec);
        let coming = self.arrivals.values().map(|(open, _)| &open.spec);
        let adopting = self.adopting.values().map(|adopting| &adopting.spec);
        let held_bytes: usize = open.chain(coming).chain(adopting).map(bytes_of).sum();
        if let Err(error) = options.sampling.check() {
            Err(error.to_string())
        } else if end_tokens.len() > MOST_END_TOKENS {
            Err(format!("an answer has at most {MOST_END_TOKENS} tokens that end it"))
        } else if tokens > self.tenancy.context {
            Err(format!("the conversation has {tokens} tokens, but the model takes {}", self.tenancy.context))
        } else if self.sessions.len() + self.arrivals.len() + self.adopting.len() >= MOST_SESSIONS {
            Err(format!("a stage has at most {MOST_SESSIONS} sessions"))
        } else if held_bytes + bytes_of_options(options, end_tokens) > MOST_SPEC_BYTES {
            Err("the sessions that are open here leave no room for another one".to_owned())
        } else {
            Ok(())
        }
    }

    /// Checks that the rows to recompute are within the model's context.
    fn within_context(&self, wanted: &Recompute) -> Result<(), String> {
        let (end, context) = (wanted.position as usize + wanted.input.rows(), self.tenancy.context);
        if end <= context { Ok(()) } else { Err(format!("position {end} is past the {context} that the model takes")) }
    }

    /// Opens a session, and answers with its next position. One that continues a recurrent state waits for the worker to
    /// say which.
    fn open_asked(&mut self, spec: SessionSpec, answer: oneshot::Sender<Result<Reply, String>>) {
        if let Some(Continued { session: from, position }) = spec.continues
            && !self.sessions.contains_key(&spec.session)
            && self.may_open(&spec).is_ok()
            && self.sessions.get(&from).is_some_and(|open| position <= open.next)
            && let Some(Open { sent, received, .. }) = self.sessions.remove(&from)
        {
            let (session, options) = (SessionId(spec.session), spec.options.clone());
            self.worker.order(&ToWorker::Adopt { from: SessionId(from), session, position, options });
            self.run_ahead(&spec);
            let id = spec.session;
            self.adopting.insert(id, Adopting::new(spec, sent, received, answer));
            if !self.tenancy.is_recurrent {
                self.adopted(id, position);
            }
        } else {
            let _ = answer.send(self.open(spec).map(Reply::At));
        }
    }

    fn adopted(&mut self, session: u128, reached: u32) {
        if let Some(adopting) = self.adopting.remove(&session) {
            let (spec, sent, received) = adopting.done(reached);
            self.begin(spec, reached, sent, received);
        }
    }

    /// Why a session cannot be opened, if it cannot.
    fn may_open(&self, spec: &SessionSpec) -> Result<(), String> {
        if self.departures.contains_key(&spec.session) {
            return Err("it is on its way to another machine".to_owned());
        }
        if self.ended.of(spec.session) == Some(End::Closed) {
            // A later close overtook this request.
            return Err("it was closed already".to_owned());
        }
        if self.adopting.contains_key(&spec.session) {
            return Err("it is being opened already".to_owned());
        }
        self.fits(&spec.options, &spec.end_tokens)
    }

    /// Opens a session unless it is open already; returns the next position.
    fn open(&mut self, spec: SessionSpec) -> Result<u32, String> {
        let known = self.sessions.get(&spec.session).map(|open| open.next);
        if let Some(next) = known.filter(|_| !self.departures.contains_key(&spec.session)) {
            return Ok(next);
        }
        self.may_open(&spec)?;
        // If it takes over in the middle of a conversation, the stage before it replays the beginning.
        self.worker.order(&ToWorker::Open(SessionId(spec.session), spec.options.clone()));
        self.run_ahead(&spec);
        self.begin(spec, 0, Sent::default(), Received::default());
        Ok(0)
    }

    /// The worker has opened the session.
    fn begin(&mut self, spec: SessionSpec, next: u32, sent: Sent, received: Received) {
        tracing::debug!(
            answer = spec.answer,
            session = logged(spec.session),
            stage = self.index,
            next,
            "a session is open"
        );
        self.sessions.insert(spec.session, Open { spec, next, asked: 0, retained: false, sent, received });
        self.usage.sessions.fetch_add(1, Ordering::Relaxed);
    }

    /// Handles a frame from the previous stage, the coordinator or, on the first stage, the last one.
    async fn frame(&mut self, frame: Frame) {
        let Some(open) = self.sessions.get_mut(&frame.session) else { return };
        if self.departures.contains_key(&frame.session) {
            // The session is being handed over: the frame is replayed to the new stage.
            return;
        }
        let frame = match arrival(open.next, frame.position, frame.rows) {
            Arrival::Next => frame,
            Arrival::PartlyKnown(rows) => without(&frame, rows),
            out_of_turn => {
                tracing::debug!(
                    answer = open.spec.answer,
                    session = logged(frame.session),
                    stage = self.index,
                    position = frame.position,
                    "dropped a frame: {out_of_turn:?} where {} comes next",
                    open.next
                );
                return;
            }
        };
        if frame.kind == Kind::Tokens {
            open.asked = frame.position.saturating_add(frame.rows);
        }
        let Some(next) = frame.position.checked_add(frame.rows) else {
            let fault = Fault::of_sender(self.index, frame.position, open.asked);
            return self.fail(frame.session, fault, "rows past the last position there can be").await;
        };
        open.next = next;
        let (session, position) = (SessionId(frame.session), frame.position);
        let (id, rows) = (frame.session, frame.rows);
        let Some((input, sample)) = input_of(frame.clone()) else { return };
        self.activity.ordered(id, rows);
        self.worker.order(&ToWorker::Forward(Work { session, position, sample, input }));
        // After the order, so that the worker starts first.
        if let Some(open) = self.sessions.get_mut(&id) {
            open.received.note(&frame);
        }
    }

    async fn said(&mut self, message: FromWorker) {
        self.activity.spoke(match &message {
            FromWorker::Output { session, rows, .. } => Some((session.0, *rows)),
            FromWorker::Failed { session, .. } => Some((session.0, u32::MAX)),
            _ => None,
        });
        match message {
            FromWorker::Output { session, rows, output, .. } if self.recomputing.has(session.0) => {
                self.usage.tokens.fetch_add(u64::from(rows), Ordering::Relaxed);
                self.recomputing.computed(session.0, rows, output);
            }
            FromWorker::Output { session, position, rows, output, sample } => {
                self.usage.tokens.fetch_add(u64::from(rows), Ordering::Relaxed);
                let Some(open) = self.sessions.get_mut(&session.0) else { return };
                let frame = match output {
                    Output::Hidden(hidden) => hidden_frame(session.0, position, sample, hidden),
                    Output::Token(sampled) => token_frame(&open.spec, position + rows, &sampled),
                    // The last stage has read a chunk of a prompt. This is progress only: if it is lost, the reader
                    // just waits.
                    Output::Nothing => {
                        if let Some(routes) = &mut self.routes {
                            let _ = routes.coordinator.send(read_frame(session.0, position + rows)).await;
                        }
                        return;
                    }
                };
                if self.tenancy.is_whole && turns(&frame) {
                    // The worker is already running ahead with it.
                    open.next = frame.position + 1;
                    open.received.note(&frame);
                    if !open.retained && !self.departures.contains_key(&session.0) {
                        self.activity.ordered(session.0, 1);
                    }
                }
                self.send(frame.clone()).await;
                // After sending: the next stage waits for the frame, while the log is needed only for a replay.
                if let Some(open) = self.sessions.get_mut(&session.0) {
                    open.sent.note(&frame);
                }
            }
            FromWorker::Failed { session, why, .. } if self.recomputing.has(session.0) => {
                self.recomputing.failed(session.0, why);
                self.worker.order(&ToWorker::Close(session));
            }
            FromWorker::Failed { session, why, .. } if self.adopting.contains_key(&session.0) => {
                if let Some(adopting) = self.adopting.remove(&session.0) {
                    adopting.failed(why);
                    self.worker.order(&ToWorker::Close(session));
                }
            }
            FromWorker::Failed { session, position, why, blame } => {
                let Some(open) = self.sessions.get_mut(&session.0) else { return };
                // The rows are replayed after the failover.
                open.next = open.next.min(position.unwrap_or(open.next));
                let fault = match blame {
                    Blame::Request => Fault::Request,
                    Blame::Own => Fault::Stage(self.index),
                    Blame::Previous => Fault::of_sender(self.index, open.next, open.asked),
                };
                // Errors of libraries may contain paths on this machine.
                if self.tenancy.is_guest && blame == Blame::Own {
                    tracing::warn!("layers failed for another machine: {why}");
                    self.fail(session.0, fault, "its layers could not be computed; the log there says why").await;
                } else {
                    self.fail(session.0, fault, &why).await;
                }
            }
            FromWorker::Report(report) => {
                if !self.reports.is_empty() {
                    let WorkerReport { peak_bytes, kv_bytes, decode_us, decoded } = report;
                    let round_trip = self.link.as_ref().and_then(RoundTrips::median);
                    let link_round_trip_us = round_trip.map(|time| time.as_micros() as u64);
                    let report = StageReport { peak_bytes, kv_bytes, decode_us, decoded, link_round_trip_us };
                    let _ = self.reports.remove(0).send(Ok(Reply::Report(report)));
                }
            }
            FromWorker::Checked => {
                if !self.checks.is_empty() {
                    let _ = self.checks.remove(0).send(Ok(Reply::Done));
                }
            }
            FromWorker::Exported(session, exported) => self.depart(session.0, exported),
            FromWorker::Cache(session, Raw(cache)) => self.carry(session.0, &cache),
            FromWorker::Adapted(id, adapted, loaded) => self.adapters.adapted(id, &adapted, loaded),
            FromWorker::Adopted(session, reached) => self.adopted(session.0, reached),
            FromWorker::Imported(session, imported) => self.arrive(session.0, imported),
            FromWorker::Progress(_) | FromWorker::Loaded { .. } | FromWorker::LoadFailed(_) | FromWorker::Unfit(_) => {}
        }
    }

    async fn send(&mut self, frame: Frame) {
        self.activity.sending(true);
        if frame.kind == Kind::Token {
            self.send_back(frame).await;
        } else {
            self.send_on(frame).await;
        }
        self.activity.sending(false);
    }

    async fn send_on(&mut self, frame: Frame) {
        let session = frame.session;
        let sent = match self.routes.as_mut().and_then(|routes| routes.next.as_mut()) {
            Some(next) => next.send(frame).await,
            None => Err("it is not connected".to_owned()),
        };
        if let Err(why) = sent {
            self.fail(session, Fault::Link, &format!("the next machine cannot be reached: {why}")).await;
        }
    }

    /// Sends a token to the first stage, so that the ring continues, and to the coordinator, which shows it.
    async fn send_back(&mut self, frame: Frame) {
        // The worker of a whole model has it already. Sent to itself, it would wait in a queue that only this actor empties.
        let is_taken =
            self.tenancy.is_whole && self.sessions.get(&frame.session).is_some_and(|open| open.next > frame.position);
        let Some(routes) = &mut self.routes else { return };
        let mut failed = None;
        if turns(&frame)
            && !is_taken
            && let Some(first) = &mut routes.first
        {
            failed = first.send(frame.clone()).await.err();
        }
        let session = frame.session;
        if routes.coordinator.send(frame).await.is_err() {
            // Nobody waits for this answer any more.
            self.sessions.remove(&session);
            self.activity.ended(session);
            self.worker.order(&ToWorker::Close(SessionId(session)));
        } else if let Some(why) = failed {
            self.fail(session, Fault::Link, &format!("the first machine cannot be reached: {why}")).await;
        }
    }

    async fn fail(&mut self, session: u128, fault: Fault, why: &str) {
        let (epoch, answer) = (self.epoch, self.sessions.get(&session).map(|open| open.spec.answer));
        tracing::info!(answer, session = logged(session), stage = self.index, "a session failed here: {why}");
        if let Some(routes) = &mut self.routes {
            let _ = routes.coordinator.send(failed_frame(session, epoch, fault, why)).await;
        }
    }

    async fn died(&mut self, how: &Death) {
        let ending = self.ending.take();
        let why = if let Some((why, _)) = &ending {
            why.clone()
        } else {
            tracing::warn!("the worker process ended ({how})");
            // Its last output may contain paths on this machine.
            let how = if self.tenancy.is_guest { how.status.clone() } else { how.to_string() };
            format!("the worker process ended ({how})")
        };
        self.dead = Some(why.clone());
        self.reports.clear();
        self.checks.clear();
        self.recomputing.clear();
        self.departures.clear();
        self.adopting.clear();
        self.adapters.clear();
        self.arrivals.clear();
        for session in std::mem::take(&mut self.sessions).into_keys() {
            self.fail(session, Fault::Link, &why).await;
        }
        if let Some((_, ended)) = ending {
            let _ = ended.send(());
        }
    }

    /// Watches the streams to the neighbours, so that a permanent break is noticed even while nothing is sent.
    fn watch(&self, routes: &Routes) {
        let neighbours = [("the next machine", &routes.next), ("the first machine", &routes.first)];
        for (whom, destination) in neighbours {
            if let (Some(Destination::Remote(outlet)), commands) = (destination, self.commands.clone()) {
                let ended = outlet.ended();
                self.tasks.spawn(async move {
                    if let (Some(why), Some(commands)) = (ended.await, commands.upgrade()) {
                        let _ = commands.send(Command::Lost(whom, why)).await;
                    }
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
