//! Answers computed by a machine that is approved and violates the stage protocol as it likes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hive_net::stage::{Budget, Dial, Inlet, Outlet, Received};
use hive_net::{Channel, Element, Endpoint, Frame, Incoming, Kind, Pace, PeerAddr, Protocol};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Answer;
use crate::events::{Event, FinishReason, Summary};
use crate::request::Request;
use crate::ring::spot::{Found, Spot, Subject};
use crate::ring::{Health, Ring};
use crate::testing;
use hive_peers::Rights;
use hive_protocol::{self as control, Arithmetic, Hello, Pulse, RingId, Role, token_digests};
use hive_stage::testing::Machine;

const PROMPT: [u32; 3] = [1, 2, 3];
/// The token that the machine samples, unless it lies about that.
const TOKEN: u32 = 5;

/// The machine's behaviour when it should sample tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// Token after token, and none of them is the last.
    Endless,
    /// A token that the model does not have.
    Beyond,
    /// A token that it claims ends the answer.
    Ends,
    /// One token and nothing more, while it claims to be well and idle.
    Silent,
}

/// A machine that claims to have the whole model.
#[derive(Clone)]
struct Mallory {
    endpoint: Endpoint,
    lie: Lie,
    coordinator: Arc<Mutex<Option<(RingId, PeerAddr)>>>,
    taken: Arc<Mutex<u32>>,
    /// Pieces that it was asked to recompute.
    recomputed: Arc<AtomicU32>,
}

impl Mallory {
    async fn start(lie: Lie) -> (Self, mpsc::Receiver<Incoming>) {
        let (endpoint, incoming) = testing::endpoint().await;
        (
            Self { endpoint, lie, coordinator: Arc::default(), taken: Arc::default(), recomputed: Arc::default() },
            incoming,
        )
    }

    async fn serve(self, mut incoming: mpsc::Receiver<Incoming>) {
        while let Some(Incoming { protocol, channel, .. }) = incoming.recv().await {
            let mallory = self.clone();
            match protocol {
                Protocol::Control => drop(tokio::spawn(async move { mallory.answer(channel).await })),
                Protocol::Stage => drop(tokio::spawn(async move { mallory.take(channel).await })),
                Protocol::Pair | Protocol::Gauge => {}
            }
        }
    }

    async fn answer(self, mut channel: Channel) {
        let Ok(Some(question)) = channel.read_message().await else { return };
        let answer = match question {
            control::Request::Load(..) => control::Reply::Loaded("a machine like any other".to_owned()),
            control::Request::Join(id, neighbours) => {
                *self.coordinator.lock().unwrap() = Some((id.ring, neighbours.coordinator));
                control::Reply::Done
            }
            control::Request::Open(..) => control::Reply::At(*self.taken.lock().unwrap()),
            control::Request::Check(_) => {
                let arithmetic = Arithmetic::Exact;
                control::Reply::Pulse(Pulse { passed: true, arithmetic, ..Pulse::default() })
            }
            control::Request::Digests(_, span) => control::Reply::Digests(token_digests(&vec![TOKEN; span.rows.len()])),
            control::Request::Recompute(..) => {
                self.recomputed.fetch_add(1, Ordering::Relaxed);
                control::Reply::Recomputed { digests: Vec::new(), token: Some(TOKEN) }
            }
            _ => control::Reply::Done,
        };
        let _ = channel.write_message(&answer).await;
        channel.finish();
    }

    async fn take(self, mut channel: Channel) {
        let Ok(Some(Hello { .. })) = channel.read_message().await else { return };
        let mut inlet = Inlet::new(channel, Budget::new(64 << 20));
        while let Ok(Some(frame)) = inlet.recv().await {
            *self.taken.lock().unwrap() = frame.position + frame.rows;
            if frame.sample {
                let mallory = self.clone();
                let (session, position) = (frame.session, frame.position + frame.rows);
                tokio::spawn(async move { mallory.choose(session, position).await });
            }
            if inlet.acknowledge(Received::of(&frame)).await.is_err() {
                return;
            }
        }
    }

    async fn choose(self, session: u128, first: u32) {
        let (ring, coordinator) = self.coordinator.lock().unwrap().clone().unwrap();
        let endpoint = self.endpoint.clone();
        let dial: Dial = Box::new(move || {
            let (endpoint, coordinator) = (endpoint.clone(), coordinator.clone());
            Box::pin(async move {
                let mut channel = endpoint.open(&coordinator, Protocol::Stage).await?;
                channel.write_message(&Hello { ring, owner: coordinator.id(), to: Role::Coordinator }).await?;
                Ok(channel)
            })
        });
        let mut outlet = Outlet::open(dial, Pace::default()).await.unwrap();
        let many = if self.lie == Lie::Endless { 2000 } else { u32::from(first == PROMPT.len() as u32) };
        for position in first..first + many {
            let token: u32 = if self.lie == Lie::Beyond { u32::MAX } else { TOKEN };
            let frame = Frame {
                kind: Kind::Token,
                element: Element::Byte,
                sample: false,
                last: self.lie == Lie::Ends,
                session,
                epoch: 0,
                position,
                rows: 1,
                width: 4,
                payload: Bytes::copy_from_slice(&token.to_le_bytes()),
            };
            if outlet.send(frame).await.is_err() {
                return;
            }
        }
        // Sent frames arrive as long as its end is open.
        std::future::pending::<()>().await;
    }
}

/// How an answer of at most five tokens ended.
struct Ended {
    tokens: Vec<u32>,
    last: Result<Summary, String>,
    /// Whether it counts against the machine.
    held_against: bool,
}

/// A node, the machine, its server, and a model that the node has loaded there.
async fn loaded(lie: Lie) -> (Machine, Mallory, JoinHandle<()>, Ring) {
    let ann = Machine::start("ann").await;
    let (mallory, incoming) = Mallory::start(lie).await;
    let serving = tokio::spawn(mallory.clone().serve(incoming));
    let ring = testing::ring_on(&ann, "mallory", &mallory.endpoint).await;
    (ann, mallory, serving, ring)
}

fn request() -> Request {
    Request { max_tokens: Some(5), ignore_end: true, reuse: false, ..Request::new(Vec::new()) }
}

async fn ended(lie: Lie) -> Ended {
    let (ann, mallory, serving, ring) = loaded(lie).await;
    let (machine, request) = (mallory.endpoint.id(), request());
    let mut events = ring.generate_tokens(PROMPT.to_vec(), &request).await.unwrap();
    let mut tokens = Vec::new();
    let last = loop {
        match tokio::time::timeout(Duration::from_mins(1), events.recv()).await.expect("it does not hang") {
            Some(Event::Token { sampled, .. }) => tokens.push(sampled.token),
            Some(Event::Finished { summary, .. }) => break Ok(summary),
            Some(Event::Failed(why)) => break Err(why),
            Some(Event::Reading { .. } | Event::Recovering(_)) => {}
            None => panic!("an answer ends with a last event"),
        }
    };
    // Whatever is held against the machine is held by then. A node that stops earlier would wait for its failover.
    let mut state = ring.state();
    let abandoned = state.wait_for(|state| matches!(state.health, Health::Abandoned(_)));
    tokio::time::timeout(Duration::from_mins(1), abandoned).await.expect("nobody else has the model").unwrap();
    let held_against = ann.membership().trust().quarantined_for(machine).is_some();
    ann.stop().await;
    serving.abort();
    mallory.endpoint.close().await;
    Ended { tokens, last, held_against }
}

#[tokio::test]
async fn an_answer_ends_at_its_length_though_the_stage_continues_for_ever() {
    let ended = ended(Lie::Endless).await;
    let summary = ended.last.unwrap();
    assert_eq!((summary.tokens.len(), summary.finish_reason), (5, FinishReason::Length));
    assert!(ended.held_against);
}

#[tokio::test]
async fn a_token_that_the_model_does_not_have_is_dropped_and_counts_against_the_machine() {
    let ended = ended(Lie::Beyond).await;
    assert_eq!((ended.tokens, ended.held_against), (Vec::new(), true));
    assert!(ended.last.is_err(), "nobody else has the model");
}

#[tokio::test]
async fn an_answer_does_not_end_because_the_stage_says_so() {
    let ended = ended(Lie::Ends).await;
    assert_eq!((ended.tokens, ended.held_against), (Vec::new(), true));
    assert!(ended.last.is_err(), "nobody else has the model");
}

#[tokio::test]
async fn a_machine_that_is_well_and_says_nothing_more_is_replaced() {
    let ended = ended(Lie::Silent).await;
    let why = ended.last.unwrap_err();
    assert!(why.contains("mallory passes nothing on"), "{why}");
    assert_eq!((ended.tokens, ended.held_against), (vec![5], false), "it may be the network");
}

#[tokio::test]
async fn a_spot_check_of_machines_that_left_is_not_held_against_those_that_took_over() {
    let (ann, mallory, serving, ring) = loaded(Lie::Silent).await;
    let mut answer = Answer::new(1, ring, None, PROMPT.to_vec(), &request(), 5, Instant::now());
    let _frames = answer.open_with(None).await;
    answer.spot_checks.under_way.spawn(std::future::pending());
    answer.replay().await.unwrap();
    assert!(answer.spot_checks.under_way.is_empty(), "of the machines before");
    answer.spot_checks.under_way.spawn(std::future::pending());
    let _frames = answer.open_with(None).await;
    assert!(answer.spot_checks.under_way.is_empty(), "of the session before");
    serving.abort();
    ann.stop().await;
    mallory.endpoint.close().await;
}

#[tokio::test]
async fn a_standby_replica_is_sent_no_more_of_a_conversation_than_its_machine_may_see() {
    let (ann, mallory, serving, ring) = loaded(Lie::Silent).await;
    let machine = mallory.endpoint.id();
    ann.membership().peers().admit(machine, "mallory", Some(&mallory.endpoint.addr())).unwrap();
    // It holds the stage as well, and gives the same results for both.
    ring.add_standby_of_first(ring.stages().remove(0));
    let known = vec![TOKEN; 500];
    let check = async |from: usize| {
        let subject = Subject {
            session: 1,
            known: known[..from].to_vec(),
            prompt: 3,
            sampling: hive_model::Sampling::default(),
            adapter: None,
            rows_from: 0,
            tokens_from: 3,
        };
        Spot::new(ring.clone()).check(subject).await.1
    };
    let sent = || mallory.recomputed.load(Ordering::Relaxed);
    assert_eq!((check(100).await, sent()), (Found::Nothing, 4), "98 rows, 32 at a time");
    // Its right is revoked during the next check.
    let revoke = async {
        while sent() < 6 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        ann.membership().set_rights(machine, Rights { prompts: false, ..Rights::default() }).unwrap();
    };
    let (found, ()) = tokio::join!(check(500), revoke);
    assert_eq!(found, Found::Unfinished);
    assert!(sent() < 4 + 16, "all of it was sent");
    serving.abort();
    ann.stop().await;
    mallory.endpoint.close().await;
}

#[tokio::test]
async fn the_owner_hears_of_machines_that_differ_though_nobody_can_decide() {
    let cases = [
        // The token after the first piece differs from the replica's, and there is no third machine to ask.
        (32, "mallory and mallory do not compute the same numbers"),
        // It claims that it was given another token.
        (5, "mallory says that it was given something else"),
    ];
    for (at, told) in cases {
        let (ann, mallory, serving, ring) = loaded(Lie::Silent).await;
        ann.membership().peers().admit(mallory.endpoint.id(), "mallory", Some(&mallory.endpoint.addr())).unwrap();
        ring.add_standby_of_first(ring.stages().remove(0));
        let mut known = vec![TOKEN; 34];
        known[at] = TOKEN + 1;
        let heard = || ann.membership().notices(0).iter().any(|notice| notice.text.starts_with(told));
        // A machine that is busy may not answer in time; then the next check begins again.
        for _ in 0..10 {
            let (sampling, known) = (hive_model::Sampling::default(), known.clone());
            let subject =
                Subject { session: 1, known, prompt: 3, sampling, adapter: None, rows_from: 0, tokens_from: 3 };
            assert_eq!(Spot::new(ring.clone()).check(subject).await.1, Found::Unfinished);
            if heard() {
                break;
            }
        }
        assert!(heard(), "{:?}", ann.membership().notices(0));
        serving.abort();
        ann.stop().await;
        mallory.endpoint.close().await;
    }
}
