//! A stage that this node hosts: a worker, and where its outputs go.
//!
//! An actor: everything that happens to a stage passes one queue, so its state needs no lock. Frames come from the
//! previous stage (or the coordinator), results from the worker.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hive_model::sampling::Sampled;
use hive_model::shard::{Input, Output};
use hive_model::{ActivationType, Hidden, SessionId};
use hive_net::stage::{Outlet, RoundTrips};
use hive_net::{Element, Frame, Kind};
use tokio::sync::{mpsc, oneshot};

use crate::control::{Continued, SessionSpec, StageReport, StageSpec};
use crate::worker::{Events, FromWorker, LoadOrder, ToWorker, Work, Worker, WorkerEvent, WorkerReport};

/// Frames and commands on their way to a stage.
const QUEUE: usize = 256;

/// A worker that computes a large batch cannot report; that is no reason to wait for ever.
const REPORT_PATIENCE: Duration = Duration::from_secs(30);

/// Where frames go: to this very node, or over a link.
#[derive(Debug)]
pub(crate) enum Destination {
    Local(mpsc::Sender<Frame>),
    Remote(Outlet),
}

impl Destination {
    pub(crate) async fn send(&mut self, frame: Frame) -> Result<(), String> {
        match self {
            Self::Local(queue) => queue.send(frame).await.map_err(|_| "it has ended".to_owned()),
            Self::Remote(outlet) => outlet.send(frame).await.map_err(|error| error.to_string()),
        }
    }
}

/// Destinations of one stage.
#[derive(Debug)]
pub(crate) struct Routes {
    pub(crate) next: Option<Destination>,
    pub(crate) first: Option<Destination>,
    pub(crate) coordinator: Destination,
}

enum Command {
    Join(Routes),
    /// A stream to a neighbour broke for good.
    Lost(&'static str, String),
    Open(SessionSpec, oneshot::Sender<Result<(), String>>),
    Close(u64),
    Keep(u64),
    Report(oneshot::Sender<StageReport>),
}

/// A handle to a running stage; the last one dropped ends it, and its worker.
#[derive(Clone)]
pub(crate) struct Stage {
    commands: mpsc::Sender<Command>,
    frames: mpsc::Sender<Frame>,
    sessions: Arc<AtomicUsize>,
}

impl Stage {
    /// Starts a worker and loads the shard; says on which device.
    pub(crate) async fn load(
        path: &Path,
        spec: &StageSpec,
        mut progress: impl FnMut(usize),
    ) -> Result<(Self, String), String> {
        let (worker, mut events) = Worker::spawn().map_err(|error| error.to_string())?;
        let StageSpec { layers, compute, threads, .. } = spec.clone();
        let threads = if threads == 0 { hive_host::threads() } else { threads };
        worker.order(&ToWorker::Load(LoadOrder { path: path.to_owned(), layers, compute, threads }));
        let device = loop {
            match events.next().await {
                Some(WorkerEvent::Said(FromWorker::Progress(layers))) => progress(layers),
                Some(WorkerEvent::Said(FromWorker::Loaded { device })) => break device,
                Some(WorkerEvent::Said(FromWorker::LoadFailed(why))) => return Err(why),
                Some(WorkerEvent::Said(_)) => {}
                Some(WorkerEvent::Died(how)) => return Err(format!("the worker ended while loading ({how})")),
                None => return Err("the worker ended while loading".to_owned()),
            }
        };
        let (commands, command_queue) = mpsc::channel(QUEUE);
        let (frames, frame_queue) = mpsc::channel(QUEUE);
        let busy = Arc::new(AtomicUsize::new(0));
        let actor = Actor {
            worker,
            sessions: HashMap::new(),
            busy: busy.clone(),
            routes: None,
            dead: None,
            reports: Vec::new(),
            link: None,
            commands: commands.downgrade(),
        };
        tokio::spawn(actor.run(command_queue, frame_queue, events));
        Ok((Self { commands, frames, sessions: busy }, device))
    }

    /// Sessions that are being computed on this stage.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Where frames for this stage go.
    pub(crate) fn frames(&self) -> mpsc::Sender<Frame> {
        self.frames.clone()
    }

    pub(crate) async fn join(&self, routes: Routes) {
        let _ = self.commands.send(Command::Join(routes)).await;
    }

    pub(crate) async fn open(&self, spec: SessionSpec) -> Result<(), String> {
        let (answer, opened) = oneshot::channel();
        let _ = self.commands.send(Command::Open(spec, answer)).await;
        opened.await.unwrap_or_else(|_| Err("the stage has ended".to_owned()))
    }

    pub(crate) async fn keep(&self, session: u64) {
        let _ = self.commands.send(Command::Keep(session)).await;
    }

    pub(crate) async fn close(&self, session: u64) {
        let _ = self.commands.send(Command::Close(session)).await;
    }

    pub(crate) async fn report(&self) -> Result<StageReport, String> {
        let (answer, reported) = oneshot::channel();
        let _ = self.commands.send(Command::Report(answer)).await;
        match tokio::time::timeout(REPORT_PATIENCE, reported).await {
            Ok(Ok(report)) => Ok(report),
            _ => Err("the stage does not answer".to_owned()),
        }
    }
}

/// A session on this stage.
struct Open {
    spec: SessionSpec,
    /// Position of the next row: what lies before has been taken, and comes again only after a link was mended.
    next: u32,
    /// Whether its answer is done and only its cache is kept.
    kept: bool,
}

struct Actor {
    worker: Worker,
    sessions: HashMap<u64, Open>,
    /// How many of them are being computed, for whoever asks from outside.
    busy: Arc<AtomicUsize>,
    routes: Option<Routes>,
    /// Why the worker is gone, once it is.
    dead: Option<String>,
    reports: Vec<oneshot::Sender<StageReport>>,
    link: Option<RoundTrips>,
    /// To itself; weak, so that the actor ends with its last handle.
    commands: mpsc::WeakSender<Command>,
}

impl Actor {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut frames: mpsc::Receiver<Frame>,
        mut events: Events,
    ) {
        loop {
            tokio::select! {
                // Commands first: a session is opened before its frames come, and closed before more do.
                biased;
                command = commands.recv() => match command {
                    Some(command) => self.command(command).await,
                    None => return,
                },
                Some(event) = events.next() => match event {
                    WorkerEvent::Said(message) => self.said(message).await,
                    WorkerEvent::Died(how) => self.died(&how).await,
                },
                Some(frame) = frames.recv(), if self.worker.has_room() => self.frame(frame).await,
            }
            let busy = self.sessions.values().filter(|open| !open.kept).count();
            self.busy.store(busy, Ordering::Relaxed);
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
                self.routes = Some(routes);
            }
            Command::Lost(whom, why) => {
                let sessions: Vec<_> = self.sessions.iter().map(|(id, open)| (*id, open.spec.epoch)).collect();
                for (session, epoch) in sessions {
                    self.fail(session, epoch, &format!("{whom} cannot be reached: {why}")).await;
                }
            }
            Command::Open(spec, answer) => {
                let result = if let Some(why) = &self.dead { Err(why.clone()) } else { self.open(spec).await };
                let _ = answer.send(result);
            }
            Command::Keep(session) => {
                if let Some(open) = self.sessions.get_mut(&session) {
                    open.kept = true;
                }
            }
            Command::Close(session) => {
                if self.sessions.remove(&session).is_some() {
                    self.worker.order(&ToWorker::Close(SessionId(session)));
                }
            }
            Command::Report(answer) => {
                if self.dead.is_none() {
                    self.reports.push(answer);
                    self.worker.order(&ToWorker::Report);
                }
            }
        }
    }

    async fn open(&mut self, spec: SessionSpec) -> Result<(), String> {
        let (session, options) = (SessionId(spec.session), spec.options.clone());
        let mut next = 0;
        if let Some(Continued { session: from, position }) = spec.continues {
            if self.sessions.remove(&from).is_none() {
                return Err("it has forgotten the beginning of the conversation".to_owned());
            }
            next = position;
            self.worker.order(&ToWorker::Adopt { from: SessionId(from), session, position, options });
        } else {
            self.worker.order(&ToWorker::Open(session, options));
        }
        self.sessions.insert(spec.session, Open { spec, next, kept: false });
        Ok(())
    }

    /// A frame from the previous stage, the coordinator, or, to the first stage, the last one.
    async fn frame(&mut self, frame: Frame) {
        let open = self.sessions.get_mut(&frame.session).filter(|open| open.spec.epoch == frame.epoch);
        let Some(open) = open.filter(|open| frame.position >= open.next) else {
            tracing::debug!(
                session = frame.session,
                position = frame.position,
                "dropped a frame that came late or twice"
            );
            return;
        };
        open.next = frame.position + frame.rows;
        let (session, epoch, position) = (frame.session, frame.epoch, frame.position);
        let Some((input, sample)) = input_of(frame) else { return };
        self.worker.order(&ToWorker::Forward(Work { session: SessionId(session), epoch, position, sample, input }));
    }

    async fn said(&mut self, message: FromWorker) {
        match message {
            FromWorker::Output { session, epoch, position, rows, output, sample } => {
                let Some(open) = self.sessions.get(&session.0).filter(|open| open.spec.epoch == epoch) else { return };
                match output {
                    Output::Hidden(hidden) => {
                        let frame = hidden_frame(session.0, epoch, position, sample, hidden);
                        self.send_on(frame).await;
                    }
                    Output::Token(sampled) => {
                        let frame = token_frame(&open.spec, position + rows, &sampled);
                        self.send_back(frame).await;
                    }
                    Output::Nothing => {}
                }
            }
            FromWorker::Failed { session, epoch, why } => self.fail(session.0, epoch, &why).await,
            FromWorker::Report(report) => {
                if !self.reports.is_empty() {
                    let WorkerReport { peak_bytes, kv_bytes, decode_us, decoded } = report;
                    let round_trip = self.link.as_ref().and_then(RoundTrips::median);
                    let link_round_trip_us = round_trip.map(|time| time.as_micros() as u64);
                    let report = StageReport { peak_bytes, kv_bytes, decode_us, decoded, link_round_trip_us };
                    let _ = self.reports.remove(0).send(report);
                }
            }
            FromWorker::Progress(_) | FromWorker::Loaded { .. } | FromWorker::LoadFailed(_) => {}
        }
    }

    async fn send_on(&mut self, frame: Frame) {
        let (session, epoch) = (frame.session, frame.epoch);
        let sent = match self.routes.as_mut().and_then(|routes| routes.next.as_mut()) {
            Some(next) => next.send(frame).await,
            None => Err("it is not connected".to_owned()),
        };
        if let Err(why) = sent {
            self.fail(session, epoch, &format!("the next machine cannot be reached: {why}")).await;
        }
    }

    /// A token goes to the first stage, so that the ring turns, and to the coordinator, who shows it.
    async fn send_back(&mut self, frame: Frame) {
        let Some(routes) = &mut self.routes else { return };
        let mut failed = None;
        if !frame.last
            && let Some(first) = &mut routes.first
        {
            failed = first.send(frame.clone()).await.err();
        }
        let (session, epoch) = (frame.session, frame.epoch);
        if routes.coordinator.send(frame).await.is_err() {
            // Nobody waits for this answer any more.
            self.sessions.remove(&session);
            self.worker.order(&ToWorker::Close(SessionId(session)));
        } else if let Some(why) = failed {
            self.fail(session, epoch, &format!("the first machine cannot be reached: {why}")).await;
        }
    }

    async fn fail(&mut self, session: u64, epoch: u32, why: &str) {
        if let Some(routes) = &mut self.routes {
            let _ = routes.coordinator.send(failed_frame(session, epoch, why)).await;
        }
    }

    async fn died(&mut self, how: &str) {
        let why = format!("the worker process ended ({how})");
        tracing::warn!("{why}");
        self.dead = Some(why.clone());
        self.reports.clear();
        let sessions: Vec<_> = self.sessions.drain().collect();
        for (session, open) in sessions {
            self.fail(session, open.spec.epoch, &why).await;
        }
    }

    /// Hears of streams that break for good while nothing is being sent on them.
    fn watch(&self, routes: &Routes) {
        let neighbours = [("the next machine", &routes.next), ("the first machine", &routes.first)];
        for (whom, destination) in neighbours {
            if let (Some(Destination::Remote(outlet)), commands) = (destination, self.commands.clone()) {
                let ended = outlet.ended();
                tokio::spawn(async move {
                    let why = ended.await;
                    if let Some(commands) = commands.upgrade() {
                        let _ = commands.send(Command::Lost(whom, why)).await;
                    }
                });
            }
        }
    }
}

/// What a frame means for the worker, and whether a token is wanted; `None` for frames that are not a stage's.
fn input_of(frame: Frame) -> Option<(Input, bool)> {
    match frame.kind {
        Kind::Tokens => {
            let token = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            Some((Input::Tokens(frame.payload.chunks_exact(4).map(token).collect()), frame.sample))
        }
        Kind::Hidden => {
            let activation = match frame.element {
                Element::F16 => ActivationType::F16,
                Element::Bf16 => ActivationType::Bf16,
                _ => ActivationType::F32,
            };
            let (rows, width) = (frame.rows as usize, frame.width as usize);
            Some((Input::Hidden(Hidden { activation, rows, width, bytes: frame.payload.into() }), frame.sample))
        }
        Kind::Token => Some((Input::Tokens(vec![token_of(&frame)]), true)),
        Kind::Failed => None,
    }
}

fn hidden_frame(session: u64, epoch: u32, position: u32, sample: bool, hidden: Hidden) -> Frame {
    let element = match hidden.activation {
        ActivationType::F32 => Element::F32,
        ActivationType::F16 => Element::F16,
        ActivationType::Bf16 => Element::Bf16,
    };
    Frame {
        kind: Kind::Hidden,
        element,
        sample,
        last: false,
        session,
        epoch,
        position,
        rows: hidden.rows as u32,
        width: hidden.width as u32,
        payload: hidden.bytes.into(),
    }
}

/// The frame that carries a chunk of the prompt.
pub(crate) fn prompt_frame(session: u64, epoch: u32, position: u32, tokens: &[u32], sample: bool) -> Frame {
    let payload: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    Frame {
        kind: Kind::Tokens,
        element: Element::U32,
        sample,
        last: false,
        session,
        epoch,
        position,
        rows: tokens.len() as u32,
        width: 1,
        payload: payload.into(),
    }
}

/// The token that stands at `position`: four bytes, and its probabilities where they were asked for.
fn token_frame(spec: &SessionSpec, position: u32, sampled: &Sampled) -> Frame {
    let mut payload = sampled.token.to_le_bytes().to_vec();
    if let Some(logprob) = sampled.logprob {
        payload.extend(logprob.to_le_bytes());
        for (token, logprob) in &sampled.top {
            payload.extend(token.to_le_bytes());
            payload.extend(logprob.to_le_bytes());
        }
    }
    let last = position >= spec.last_position || spec.end_tokens.contains(&sampled.token);
    byte_frame(Kind::Token, last, spec.session, spec.epoch, position, payload)
}

/// The frame that says why a session failed.
pub(crate) fn failed_frame(session: u64, epoch: u32, why: &str) -> Frame {
    let cut = why.char_indices().map(|(at, _)| at).take_while(|at| *at < 8000).last().unwrap_or(0);
    let end = if why.len() < 8000 { why.len() } else { cut };
    byte_frame(Kind::Failed, true, session, epoch, 0, why.as_bytes()[..end].to_vec())
}

fn byte_frame(kind: Kind, last: bool, session: u64, epoch: u32, position: u32, payload: Vec<u8>) -> Frame {
    Frame {
        kind,
        element: Element::Byte,
        sample: false,
        last,
        session,
        epoch,
        position,
        rows: 1,
        width: payload.len() as u32,
        payload: Bytes::from(payload),
    }
}

/// The token of a token frame.
pub(crate) fn token_of(frame: &Frame) -> u32 {
    sampled_of(frame).token
}

/// The token of a token frame with its probabilities. A frame's decoder has checked that there are four bytes.
pub(crate) fn sampled_of(frame: &Frame) -> Sampled {
    let word = |at: usize| -> Option<[u8; 4]> { frame.payload.get(at..at + 4)?.try_into().ok() };
    let token = word(0).map_or(0, u32::from_le_bytes);
    let logprob = word(4).map(f32::from_le_bytes);
    let pair = |at: usize| Some((u32::from_le_bytes(word(at)?), f32::from_le_bytes(word(at + 4)?)));
    Sampled { token, logprob, top: (8..).step_by(8).map_while(pair).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> SessionSpec {
        SessionSpec {
            session: 7,
            epoch: 2,
            options: hive_model::SessionOptions::default(),
            end_tokens: vec![2],
            last_position: 10,
            continues: None,
        }
    }

    #[test]
    fn a_token_frame_carries_the_token_and_its_probabilities() {
        let sampled = Sampled { token: 5, logprob: Some(-0.5), top: vec![(5, -0.5), (9, -2.0)] };
        let frame = token_frame(&spec(), 3, &sampled);
        assert_eq!(sampled_of(&frame), sampled);
        assert!(!frame.last);
        let bare = Sampled { token: 5, logprob: None, top: Vec::new() };
        assert_eq!(token_frame(&spec(), 3, &bare).payload.len(), 4);
    }

    #[test]
    fn an_answer_ends_at_an_end_token_or_at_its_last_position() {
        let sampled = |token| Sampled { token, logprob: None, top: Vec::new() };
        assert!(token_frame(&spec(), 3, &sampled(2)).last);
        assert!(token_frame(&spec(), 10, &sampled(5)).last);
        assert!(!token_frame(&spec(), 9, &sampled(5)).last);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = failed_frame(1, 1, &"é".repeat(9000));
        assert!(std::str::from_utf8(&frame.payload).is_ok() && frame.payload.len() <= 8000);
    }
}
