//! Attacks by an approved but hostile machine, over the wire with a client of its own, and their results.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hive_net::stage::{Dial, Outlet};
use hive_net::{Element, Endpoint, EndpointOptions, Frame, Identity, Kind, Pace, PeerId, Protocol};
use tokio::sync::mpsc;

use super::guests::{Eviction, LEASE, NOTICE};
use super::orders::{Claims, Denied};
use super::{HostOptions, StageHost};
use crate::adapters::AdapterBytes;
use crate::fetching::message::TransferMessage;
use crate::models;
use crate::testing::Machine;
use hive_model::Compute;
use hive_peers::Rights;
use hive_protocol::{
    AdapterHead, Drain, Hello, ModelSource, Neighbours, Recompute, Replay, Reply, Request, RingId, Role, SessionSpec,
    Span, StageId, StageSpec, WantedBytes,
};
use hive_worker::Raw;

/// The attacker knows these ids, as a machine that was in the ring earlier would.
const STAGE: StageId = StageId { ring: RingId(0xdead_beef), index: 1 };
const SESSION: u128 = 7;

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn node(name: &str) -> Machine {
    Machine::start(name).await
}

/// A machine that a node has approved and that sends what it likes.
struct Peer {
    endpoint: Endpoint,
    of: StageHost,
}

impl Peer {
    async fn approved_by(node: &StageHost) -> Self {
        let (endpoint, _) = Endpoint::bind(EndpointOptions::new(Identity::generate(), loopback())).await.unwrap();
        endpoint.admission().approve(node.membership().id());
        node.membership().allow(&endpoint.addr());
        Self { endpoint, of: node.clone() }
    }

    fn id(&self) -> PeerId {
        self.endpoint.id()
    }

    async fn asks(&self, request: Request) -> Reply {
        let mut channel = self.endpoint.open(&self.of.membership().addr(), Protocol::Control).await.unwrap();
        channel.write_message(&request).await.unwrap();
        loop {
            match channel.read_message().await.unwrap() {
                Some(Reply::Progress(_)) => {}
                Some(answer) => return answer,
                None => panic!("it broke off"),
            }
        }
    }

    /// The first answer to a request for a model's files.
    async fn is_given(&self, request: Request) -> TransferMessage {
        let mut channel = self.endpoint.open(&self.of.membership().addr(), Protocol::Control).await.unwrap();
        channel.write_message(&request).await.unwrap();
        channel.read_part().await.unwrap().expect("it answers")
    }

    async fn is_denied(&self, request: Request) {
        let told = format!("{request:?}");
        assert_eq!(self.asks(request).await, Reply::Refused(Denied::NoSuchStage.to_string()), "{told}");
    }

    /// Sends a frame of this session in a stage stream, which lives as long as the returned value.
    async fn sends(&self, hello: Hello, session: u128) -> Outlet {
        let mut outlet = self.stream(hello).await;
        let frame = Frame {
            kind: Kind::Token,
            element: Element::Byte,
            sample: false,
            last: false,
            session,
            epoch: 0,
            position: 8,
            rows: 1,
            width: 4,
            payload: vec![1, 2, 3, 4].into(),
        };
        outlet.send(frame).await.unwrap();
        outlet
    }

    async fn stream(&self, hello: Hello) -> Outlet {
        let (endpoint, addr) = (self.endpoint.clone(), self.of.membership().addr());
        let dial: Dial = Box::new(move || {
            let (endpoint, addr) = (endpoint.clone(), addr.clone());
            Box::pin(async move {
                let mut channel = endpoint.open(&addr, Protocol::Stage).await?;
                channel.write_message(&hello).await?;
                Ok(channel)
            })
        });
        Outlet::open(dial, Pace::default()).await.unwrap()
    }
}

fn holds(node: &StageHost, id: StageId) -> bool {
    node.stages().contains_key(&id)
}

fn session(prompt: usize, end_tokens: usize) -> SessionSpec {
    SessionSpec {
        session: SESSION,
        answer: 1,
        options: hive_model::SessionOptions { prompt: vec![1; prompt], ..hive_model::SessionOptions::default() },
        end_tokens: vec![1; end_tokens],
        last_position: 10,
        continues: None,
    }
}

fn stage_spec(name: Option<&str>) -> StageSpec {
    StageSpec {
        source: ModelSource::Named(name.map(str::to_owned), String::new()),
        layers: 0..1,
        compute: Compute::Auto,
        threads: 0,
        bytes: 0,
        standby: false,
        at_load: None,
    }
}

fn neighbours(coordinator: &Endpoint, previous: PeerId) -> Neighbours {
    Neighbours { epoch: 1, next: None, first: None, previous, coordinator: coordinator.addr() }
}

/// What announces an adapter with these contents.
fn head(config: &[u8], tensors: &[u8]) -> AdapterHead {
    AdapterBytes { config: config.to_vec(), tensors: tensors.to_vec() }.head()
}

/// Every order about a stage.
fn orders(to: &Endpoint) -> Vec<Request> {
    let order = Drain { to: to.addr(), bytes_per_row: 1, rows_per_s: None };
    let (options, input) = (hive_model::SessionOptions::default(), hive_model::shard::Input::Tokens(vec![1]));
    let once_more = Recompute { session: SESSION, options, position: 0, input, sample: true };
    vec![
        Request::Load(STAGE, stage_spec(None)),
        Request::Join(STAGE, neighbours(to, to.id())),
        Request::Open(STAGE, session(1, 1)),
        Request::Close(STAGE, SESSION),
        Request::Report(STAGE),
        Request::Unload(STAGE),
        Request::Retain(STAGE, SESSION),
        Request::Check(STAGE),
        Request::Replay(STAGE, Replay { session: SESSION, from: 0, sample_from: 0 }),
        Request::Drain(STAGE, order),
        Request::ReceiveSessions(STAGE),
        Request::ExpectSessions(STAGE, to.id()),
        Request::Digests(STAGE, Span { session: SESSION, rows: 0..1 }),
        Request::Rows(STAGE, Span { session: SESSION, rows: 0..1 }),
        Request::Recompute(STAGE, Box::new(once_more)),
        Request::Adapt(STAGE, head(&[1], &[2])),
    ]
}

#[tokio::test]
async fn who_knows_the_ids_of_anothers_stage_commands_nothing_and_learns_nothing() {
    let ann = node("ann").await;
    let (bob, mallory) = (Peer::approved_by(&ann).await, Peer::approved_by(&ann).await);
    let _orders = ann.host_idle(STAGE, bob.id());
    let opened = bob.asks(Request::Open(STAGE, session(1, 1))).await;
    assert_eq!(opened, Reply::At(0));
    for request in orders(&mallory.endpoint) {
        mallory.is_denied(request).await;
    }
    // The same reply as for stages that do not exist.
    mallory.is_denied(Request::Check(StageId { ring: RingId(1), index: 1 })).await;
    // Nothing has changed: the stage is bob's, its session is open, and nobody is named.
    let claims = ann.stages().get(&STAGE).map(|hosted| hosted.claims);
    assert_eq!(claims, Some(Claims::of(bob.id())));
    assert!(matches!(bob.asks(Request::Check(STAGE)).await, Reply::Pulse(_)));
    let again = Replay { session: SESSION, from: 0, sample_from: 0 };
    assert_eq!(bob.asks(Request::Replay(STAGE, again)).await, Reply::Done, "the session is still open");
    assert_eq!(mallory.asks(Request::RenewLeases(Vec::new())).await, Reply::Done, "it has nothing here");
    assert!(holds(&ann, STAGE));
    ann.stop().await;
}

#[tokio::test]
async fn frames_come_from_neighbours_only_and_wait_for_the_order_that_makes_them_neighbours() {
    let ann = node("ann").await;
    let (bob, mallory) = (Peer::approved_by(&ann).await, Peer::approved_by(&ann).await);
    // Ann coordinates a ring in which bob holds a stage.
    let (frames, mut queue) = mpsc::channel(8);
    ann.coordinate(STAGE.ring, frames);
    ann.lease(STAGE, bob.id());
    let hello = Hello { ring: STAGE.ring, owner: ann.membership().id(), to: Role::Coordinator };
    let _of_mallory = mallory.sends(hello, 666).await;
    let _of_bob = bob.sends(hello, SESSION).await;
    assert_eq!(queue.recv().await.unwrap().session, SESSION);
    assert!(queue.try_recv().is_err(), "a frame of a machine that is not in the ring came through");
    assert_eq!(ann.inlet(mallory.id(), hello).err(), Some(Denied::NotItsNeighbour));
    // Only now, and only because ann wants it.
    ann.lease(StageId { index: 2, ..STAGE }, mallory.id());
    assert_eq!(queue.recv().await.unwrap().session, 666);
    // After a failover to other machines, the ring accepts no more of its frames, even on the open stream.
    ann.lease_only(STAGE.ring, [(STAGE.index, bob.id())].into_iter());
    assert_eq!(ann.inlet(mallory.id(), hello).err(), Some(Denied::NotItsNeighbour));
    // The sender says whose ring it is; that is checked.
    let lied = Hello { owner: mallory.id(), ..hello };
    assert!(ann.inlet(bob.id(), lied).is_err());
    ann.stop().await;
}

#[tokio::test]
async fn a_stage_takes_frames_from_those_that_its_owner_has_joined_it_to() {
    let ann = node("ann").await;
    let (bob, cat, mallory) =
        (Peer::approved_by(&ann).await, Peer::approved_by(&ann).await, Peer::approved_by(&ann).await);
    let _orders = ann.host_idle(STAGE, bob.id());
    let hello = Hello { ring: STAGE.ring, owner: bob.id(), to: Role::Stage(STAGE.index) };
    let may = |peer: &Peer| ann.inlet(peer.id(), hello).is_ok();
    assert_eq!((may(&bob), may(&cat), may(&mallory)), (true, false, false));
    // A ring's tokens go to its owner: nobody can make this machine send to another's ring.
    let elsewhere = bob.asks(Request::Join(STAGE, neighbours(&cat.endpoint, cat.id()))).await;
    assert!(matches!(elsewhere, Reply::Refused(_)), "{elsewhere:?}");
    assert!(!may(&cat));
    let joined = bob.asks(Request::Join(STAGE, neighbours(&bob.endpoint, cat.id()))).await;
    assert_eq!((joined, may(&cat), may(&mallory)), (Reply::Done, true, false));
    let joined = bob.asks(Request::Join(STAGE, neighbours(&bob.endpoint, mallory.id()))).await;
    assert_eq!((joined, may(&cat), may(&mallory)), (Reply::Done, false, true), "the neighbours have changed");
    ann.stop().await;
}

#[tokio::test]
async fn a_stage_that_takes_nothing_keeps_no_frames_from_another_one() {
    let ann = node("ann").await;
    let bob = Peer::approved_by(&ann).await;
    let other = StageId { index: 3, ..STAGE };
    let _orders = [STAGE, other].map(|id| ann.host_idle(id, bob.id()));
    let large = |position: u32| Frame {
        kind: Kind::Hidden,
        element: Element::F32,
        sample: false,
        last: false,
        session: SESSION,
        epoch: 0,
        position,
        rows: 1,
        width: 1 << 18,
        payload: vec![0; 1 << 20].into(),
    };
    let mut streams = Vec::new();
    for id in [STAGE, other] {
        assert_eq!(bob.asks(Request::Open(id, session(1, 1))).await, Reply::At(0));
        streams.push(bob.stream(Hello { ring: id.ring, owner: bob.id(), to: Role::Stage(id.index) }).await);
    }
    let (mut second, mut first) = (streams.pop().unwrap(), streams.pop().unwrap());
    // Its worker takes no orders: they pile up, then the frames do, until no more are accepted.
    let filling = async {
        for position in 0.. {
            first.send(large(position)).await.unwrap();
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(5), filling).await.is_err());
    second.send(large(0)).await.unwrap();
    let taken = async {
        let rows = Request::Digests(other, Span { session: SESSION, rows: 0..1 });
        while !matches!(bob.asks(rows.clone()).await, Reply::Digests(_)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), taken).await.expect("the other stage gets its frame");
    ann.stop().await;
}

#[tokio::test]
async fn sessions_are_taken_over_once_from_the_machine_that_the_owner_has_named() {
    let ann = node("ann").await;
    let (bob, cat, mallory) =
        (Peer::approved_by(&ann).await, Peer::approved_by(&ann).await, Peer::approved_by(&ann).await);
    let _orders = ann.host_idle(STAGE, bob.id());
    let carries = async |peer: &Peer| {
        let mut channel = peer.endpoint.open(&ann.membership().addr(), Protocol::Control).await.unwrap();
        channel.write_message(&Request::ReceiveSessions(STAGE)).await.unwrap();
        channel.finish();
        channel.read_message::<Reply>().await.unwrap().unwrap()
    };
    let denied = || Reply::Refused(Denied::NoSuchStage.to_string());
    assert_eq!((carries(&cat).await, carries(&bob).await), (denied(), denied()), "nobody is named");
    assert_eq!(bob.asks(Request::ExpectSessions(STAGE, cat.id())).await, Reply::Done);
    assert_eq!(carries(&mallory).await, denied());
    assert_eq!(carries(&cat).await, Reply::SessionsReceived(0));
    assert_eq!(carries(&cat).await, denied(), "once");
    ann.stop().await;
}

#[tokio::test]
async fn an_adapter_is_what_was_announced_or_nothing() {
    let ann = node("ann").await;
    let bob = Peer::approved_by(&ann).await;
    let _orders = ann.host_idle(STAGE, bob.id());
    let open = async |head: AdapterHead| {
        let mut channel = bob.endpoint.open(&ann.membership().addr(), Protocol::Control).await.unwrap();
        channel.write_message(&Request::Adapt(STAGE, head)).await.unwrap();
        channel
    };
    let sends = async |head: AdapterHead, parts: &[&[u8]]| {
        let mut channel = open(head).await;
        assert_eq!(channel.read_message::<Reply>().await.unwrap(), Some(Reply::Lacks));
        for part in parts {
            channel.write_part(&Raw(part.to_vec())).await.unwrap();
        }
        channel.finish();
        match channel.read_message::<Reply>().await.unwrap() {
            Some(Reply::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let announced = head(b"{}", b"matrices");
    assert_eq!(sends(announced, &[b"{}", b"others.."]).await, "what arrived is not the adapter that was announced");
    assert_eq!(sends(announced, &[b"{}", b"matrices and more"]).await, "it sent more than it announced");
    assert_eq!(sends(announced, &[b"{}", b"matr"]).await, "it broke off");
    assert_eq!(sends(announced, &[b"{}", b""]).await, "it broke off");
    for huge in
        [AdapterHead { tensor_bytes: u64::MAX, ..announced }, AdapterHead { config_bytes: 1 << 30, ..announced }]
    {
        let reply = bob.asks(Request::Adapt(STAGE, huge)).await;
        assert!(matches!(&reply, Reply::Refused(why) if why.contains("are not accepted")), "{reply:?}");
    }
    // One at a time for a stage; who hangs up makes room.
    let mut first = open(announced).await;
    assert_eq!(first.read_message::<Reply>().await.unwrap(), Some(Reply::Lacks));
    let mut second = open(announced).await;
    let waits = tokio::time::timeout(Duration::from_millis(300), second.read_message::<Reply>()).await;
    assert!(waits.is_err(), "{waits:?}");
    drop(first);
    assert_eq!(second.read_message::<Reply>().await.unwrap(), Some(Reply::Lacks));
    // Within the owner's limit for that machine.
    ann.membership().peers().admit(bob.id(), "bob", None).unwrap();
    ann.membership().set_rights(bob.id(), Rights { memory_limit_bytes: Some(1_000_010), ..Rights::default() }).unwrap();
    drop(second);
    let reply = bob.asks(Request::Adapt(STAGE, announced)).await;
    assert!(matches!(&reply, Reply::Full(_)), "{reply:?}");
    ann.stop().await;
}

#[tokio::test]
async fn no_path_leads_to_a_model_and_no_answer_tells_of_the_disk() {
    let ann = node("ann").await;
    let mallory = Peer::approved_by(&ann).await;
    let absolute = std::path::absolute("src/lib.rs").unwrap();
    let names = [
        absolute.to_str().unwrap(),
        "src/lib.rs",
        "src/nothing.rs",
        "./src/lib.rs",
        "../hive-node/Cargo.toml",
        "etc/shadow",
        "",
        ".",
        "..",
        "no/such model",
        "no/such\0model",
        "owner/model/../../..",
    ];
    for name in names {
        let answer = mallory.asks(Request::Load(STAGE, stage_spec(Some(name)))).await;
        assert_eq!(answer, Reply::Lacks, "what is there and what is not are told apart: {name:?}");
    }
    let path = StageSpec { source: ModelSource::Path(absolute), ..stage_spec(None) };
    let answer = mallory.asks(Request::Load(STAGE, path)).await;
    assert!(matches!(&answer, Reply::Refused(why) if why.contains("named")), "{answer:?}");
    ann.stop().await;
}

#[tokio::test]
async fn sessions_are_bounded_in_number_and_in_what_they_bring() {
    let ann = node("ann").await;
    let mallory = Peer::approved_by(&ann).await;
    let _orders = ann.host_idle(STAGE, mallory.id());
    let opens = async |spec: SessionSpec| mallory.asks(Request::Open(STAGE, spec)).await;
    let refused = |answer: Reply| matches!(answer, Reply::Refused(_));
    assert!(refused(opens(session(1, 65)).await), "tokens that end an answer");
    assert!(refused(opens(session(65, 1)).await), "a prompt longer than the model's context");
    for number in 0..256 {
        assert_eq!(opens(SessionSpec { session: number, ..session(64, 64) }).await, Reply::At(0));
    }
    assert!(refused(opens(SessionSpec { session: 999, ..session(1, 1) }).await), "sessions without end");
    // Open sessions stay open.
    assert_eq!(opens(session(1, 1)).await, Reply::At(0));
    ann.stop().await;
}

#[tokio::test]
async fn who_may_have_one_answer_at_a_time_is_told_so_of_the_next_and_computes_nothing_beside_it() {
    let ann = node("ann").await;
    let mallory = Peer::approved_by(&ann).await;
    ann.membership().peers().admit(mallory.id(), "mallory", None).unwrap();
    ann.membership().set_rights(mallory.id(), Rights { session_limit: Some(1), ..Rights::default() }).unwrap();
    let _orders = ann.host_idle(STAGE, mallory.id());
    let opens = async |session_id: u128| {
        let spec = SessionSpec { session: session_id, ..session(1, 1) };
        let answer = mallory.asks(Request::Open(STAGE, spec)).await;
        // By the next request, the stage has counted it.
        mallory.asks(Request::Digests(STAGE, Span { session: session_id, rows: 0..0 })).await;
        answer
    };
    assert_eq!(opens(1).await, Reply::At(0));
    assert!(matches!(opens(2).await, Reply::Full(_)), "there is room when another has ended");
    assert_eq!(opens(1).await, Reply::At(0));
    let (options, input) = (hive_model::SessionOptions::default(), hive_model::shard::Input::Tokens(vec![1]));
    let once_more = Recompute { session: 3, options, position: 0, input, sample: true };
    assert!(matches!(mallory.asks(Request::Recompute(STAGE, Box::new(once_more))).await, Reply::Full(_)));
    assert_eq!(mallory.asks(Request::Close(STAGE, 1)).await, Reply::Done);
    assert_eq!(opens(2).await, Reply::At(0));
    ann.stop().await;
}

#[tokio::test]
async fn a_question_is_small_and_arrives_whole_or_not_at_all() {
    let ann = node("ann").await;
    let (mallory, bob) = (Peer::approved_by(&ann).await, Peer::approved_by(&ann).await);
    // Announced to be larger than any request: nothing more is read.
    let mut large = mallory.endpoint.open(&ann.membership().addr(), Protocol::Control).await.unwrap();
    large.write_raw(&(2u32 << 20).to_le_bytes()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), large.hung_up()).await.expect("it is refused at once");
    // Half a message, on more streams than are read at a time: they time out, and others are served meanwhile.
    let mut halves = Vec::new();
    for _ in 0..40 {
        let mut half = mallory.endpoint.open(&ann.membership().addr(), Protocol::Control).await.unwrap();
        half.write_raw(&(1u32 << 20).to_le_bytes()).await.unwrap();
        half.write_raw(&[0; 1000]).await.unwrap();
        halves.push(half);
    }
    assert_eq!(bob.asks(Request::RenewLeases(Vec::new())).await, Reply::Done);
    let first = halves.remove(0);
    tokio::time::timeout(Duration::from_secs(20), first.hung_up()).await.expect("half a request is waited for");
    assert_eq!(bob.asks(Request::RenewLeases(Vec::new())).await, Reply::Done);
    ann.stop().await;
}

#[tokio::test]
async fn a_machine_has_four_connections_of_a_protocol_at_most() {
    let ann = node("ann").await;
    let identity = Identity::generate();
    let (mut peers, mut streams) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        // Each endpoint of one machine makes a connection of its own.
        let (endpoint, _) = Endpoint::bind(EndpointOptions::new(identity.clone(), loopback())).await.unwrap();
        endpoint.admission().approve(ann.membership().id());
        ann.membership().allow(&endpoint.addr());
        let peer = Peer { endpoint, of: ann.clone() };
        let mut channel = peer.endpoint.open(&ann.membership().addr(), Protocol::Control).await.unwrap();
        channel.write_message(&Request::RenewLeases(Vec::new())).await.unwrap();
        assert_eq!(channel.read_message::<Reply>().await.unwrap(), Some(Reply::Done));
        streams.push(peer.endpoint.open(&ann.membership().addr(), Protocol::Control).await.unwrap());
        peers.push(peer);
    }
    let mut open = Vec::new();
    for stream in &mut streams {
        stream.write_raw(&[1]).await.ok();
        // A closed connection says so; a live one waits for the rest of the request.
        let closed = tokio::time::timeout(Duration::from_millis(200), stream.read_message::<Reply>()).await.is_ok();
        open.push(!closed);
    }
    assert_eq!(open, [false, false, true, true, true, true]);
    ann.stop().await;
}

#[tokio::test]
async fn guests_end_when_their_owner_stays_away_when_sharing_ends_and_when_memory_is_taken_back() {
    let ann = node("ann").await;
    let mallory = Peer::approved_by(&ann).await;
    let gone = Identity::generate().id();
    let (of_gone, of_mallory, own) = (
        StageId { ring: RingId(2), index: 0 },
        StageId { ring: RingId(3), index: 0 },
        StageId { ring: RingId(4), index: 0 },
    );
    // It is present: it has sent something.
    assert_eq!(mallory.asks(Request::RenewLeases(Vec::new())).await, Reply::Done);
    let _orders = [
        ann.host_idle(of_gone, gone),
        ann.host_idle(of_mallory, mallory.id()),
        ann.host_idle(own, ann.membership().id()),
    ];
    let now = Instant::now();
    ann.evict(true, None, now);
    ann.evict(true, None, now + LEASE / 2);
    assert!(holds(&ann, of_gone));
    ann.evict(true, None, now + LEASE + Duration::from_secs(5));
    assert!(!holds(&ann, of_gone) && holds(&ann, of_mallory) && holds(&ann, own));

    let later = now + LEASE * 2;
    ann.evict(false, None, later);
    ann.evict(false, None, later + NOTICE / 2);
    assert!(holds(&ann, of_mallory));
    ann.evict(false, None, later + NOTICE);
    assert!(!holds(&ann, of_mallory) && holds(&ann, own));
    let told = mallory.asks(Request::Check(of_mallory)).await;
    assert_eq!(told, Reply::Refused(Eviction::NotSharing.to_string()), "its owner is told why");

    let _orders = ann.host_idle(of_mallory, mallory.id());
    let (cap_bytes, much_later) = (Some(1_500_000), later + LEASE);
    ann.evict(true, cap_bytes, much_later);
    assert!(holds(&ann, of_mallory));
    ann.evict(true, cap_bytes, much_later + NOTICE);
    assert!(!holds(&ann, of_mallory) && holds(&ann, own));
    ann.stop().await;
}

#[tokio::test]
async fn what_a_stage_takes_is_read_from_the_model_and_not_from_the_claim() {
    let digest = crate::models::open(None).await.unwrap().card().digest.clone();
    let options = HostOptions { memory_cap: Some(120_000_000), ..HostOptions::default() };
    let ann = Machine::start_with("ann", options).await;
    let mallory = Peer::approved_by(&ann).await;
    let spec = |layers| StageSpec { source: ModelSource::Named(None, digest.clone()), layers, ..stage_spec(None) };
    let whole = mallory.asks(Request::Load(STAGE, spec(0..30))).await;
    assert!(matches!(&whole, Reply::Full(why) if why.contains("120 MB given")), "{whole:?}");
    for none in [5..5, 29..31, 30..31, usize::MAX - 1..usize::MAX, std::ops::Range { start: 7, end: 3 }] {
        let answer = mallory.asks(Request::Load(STAGE, spec(none.clone()))).await;
        assert!(matches!(&answer, Reply::Refused(why) if why.contains("30 layers")), "{none:?}: {answer:?}");
    }
    assert!(!holds(&ann, STAGE));
    ann.stop().await;
}

#[tokio::test]
async fn the_files_of_a_model_go_to_machines_that_were_asked_to_hold_layers_of_it_and_to_no_other() {
    let node = node("ann").await;
    let peer = Peer::approved_by(&node).await;
    let model = models::open(None).await.unwrap();
    node.catalogue().nature(model.path()).await.unwrap();
    let digest = model.card().digest.clone();
    let file = model.path().file_name().unwrap().to_str().unwrap().to_owned();
    let size = std::fs::metadata(model.path()).unwrap().len();
    let second_mib = 1 << 20..2 << 20;
    let bytes = WantedBytes { digest: digest.clone(), file, size, ranges: vec![second_mib] };
    for request in [Request::Outline(digest.clone()), Request::Bytes(bytes.clone())] {
        assert!(matches!(peer.is_given(request.clone()).await, TransferMessage::Nothing), "{request:?}");
    }
    // To be asked for one model opens no other.
    node.gives(peer.id(), &ModelSource::Named(None, "0".repeat(32)));
    assert!(matches!(peer.is_given(Request::Bytes(bytes.clone())).await, TransferMessage::Nothing));
    node.gives(peer.id(), &ModelSource::Named(None, digest.clone()));
    assert!(matches!(peer.is_given(Request::Outline(digest)).await, TransferMessage::Manifest(_)));
    assert!(matches!(peer.is_given(Request::Bytes(bytes)).await, TransferMessage::Piece { .. }));
    node.stop().await;
}
