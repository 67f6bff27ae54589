//! Messages between nodes keep the bytes that other versions know: one file per message in `wire/`.

#![allow(clippy::unwrap_used)]

#[path = "../../../tests/common/golden.rs"]
mod golden;

use std::path::Path;

use golden::Golden;
use hive_host::{Heat, Power};
use hive_model::sampling::Sampling;
use hive_model::shard::Input;
use hive_model::{ActivationType, AdapterId, AtLoad, Compute, Hidden, SessionOptions};
use hive_net::{Identity, PeerAddr, PeerId};
use hive_protocol::{
    AdapterHead, Arithmetic, Beat, Continued, Drain, Greeting, Hello, ModelCopy, ModelSource, Neighbours, Profile,
    Pulse, Recompute, Replay, Reply, Request, RingId, Role, RowDigest, SPEAKS, SessionSpec, Span, StageId, StageReport,
    StageSpec, WantedBytes,
};

fn peer(number: u8) -> PeerId {
    Identity::from_text(&format!("1 - {}", format!("{number:02x}").repeat(32)), None).unwrap().id()
}

fn addr(number: u8) -> PeerAddr {
    let sockets = [format!("192.168.1.{number}:7000"), format!("[fd00::{number:x}]:7001")];
    PeerAddr::new(peer(number), sockets.map(|socket| socket.parse().unwrap()))
}

fn stage() -> StageId {
    StageId { ring: RingId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10), index: 3 }
}

fn stage_spec() -> StageSpec {
    StageSpec {
        source: ModelSource::Named(Some("owner/name".to_owned()), "d1635e".to_owned()),
        layers: 5..19,
        compute: Compute::Auto,
        threads: 6,
        bytes: 70_000,
        standby: false,
        at_load: AtLoad::new(6),
    }
}

fn neighbours() -> Neighbours {
    Neighbours {
        epoch: 2,
        next: Some(addr(1)),
        first: None,
        previous: peer(2),
        coordinator: addr(3).with_relay("https://relay.example"),
    }
}

fn wanted_bytes() -> WantedBytes {
    let ranges = vec![4096..8192, 1 << 30..(1 << 30) + 1];
    WantedBytes { digest: "d1635e".to_owned(), file: "model.safetensors".to_owned(), size: 1 << 31, ranges }
}

fn options() -> SessionOptions {
    let sampling = Sampling {
        temperature: 0.5,
        top_k: 40,
        top_p: 0.75,
        min_p: 0.125,
        repetition_penalty: 1.25,
        presence_penalty: 1.5,
        frequency_penalty: 1.75,
        logit_bias: [(7, -2.0), (300, 4.0)].into(),
        logprobs: Some(5),
        seed: 99,
    };
    SessionOptions { sampling, prompt: vec![1, 200, 70_000], answer: vec![4, 5], adapter: Some(AdapterId([7; 32])) }
}

fn session_spec() -> SessionSpec {
    SessionSpec {
        session: 0x1112,
        answer: 8,
        options: options(),
        end_tokens: vec![2, 128_009],
        last_position: 511,
        continues: Some(Continued { session: 0x1314, position: 64 }),
    }
}

fn hand_over() -> Drain {
    Drain { to: addr(4), bytes_per_row: 9_000, rows_per_s: Some(250.5) }
}

fn span() -> Span {
    Span { session: 0x1516, rows: 10..12 }
}

fn hidden() -> Hidden {
    Hidden { activation: ActivationType::F16, rows: 2, width: 3, bytes: (1..=12).collect() }
}

fn recompute(input: Input) -> Recompute {
    Recompute { session: 0x1718, options: SessionOptions::default(), position: 33, input, sample: true }
}

fn report() -> StageReport {
    StageReport { peak_bytes: Some(600), kv_bytes: 700, decode_us: 800, decoded: 9, link_round_trip_us: Some(1_000) }
}

fn pulse() -> Pulse {
    Pulse { passed: true, owed_rows: 4, quiet_ms: 5_000, held_up: false, arithmetic: Arithmetic::Exact }
}

fn digests() -> Vec<RowDigest> {
    vec![RowDigest::of(b"one"), RowDigest::of(b"two")]
}

fn profile() -> Profile {
    Profile {
        name: "Studio".to_owned(),
        version: "0.1.0".to_owned(),
        chip: "Apple M4 Max".to_owned(),
        os: "macos".to_owned(),
        threads: 12,
        memory_bytes: 64,
        taken_bytes: 9,
        offered_bytes: 40,
        sharing: true,
        not_sharing: Some("paused".to_owned()),
        why_not_sharing: None,
        gpu: true,
        decode_tokens_per_s: Some(312.5),
        bytes_per_s: Some(4.5e11),
        prefill_tokens_per_s: Some(8000.0),
        cap_bytes: Some(48),
        held_bytes: 20,
        over_cap: false,
        limit_bytes: Some(50),
        sends_bits_per_s: Some(1_000_000),
        models: vec!["owner/name".to_owned()],
        copies: Some(vec![ModelCopy { name: Some("owner/name".to_owned()), digest: Some("d1635e".to_owned()) }]),
        fetches: true,
        sessions: 2,
        power: Power { on_battery: true, battery_percent: Some(80), low_power_mode: false },
        heat: Heat::Fair,
    }
}

/// The name of a request's file. A new request needs a file, and an example below.
fn question_name(request: &Request) -> &'static str {
    match request {
        Request::Greet(_) => "greet",
        Request::Measure(_) => "measure",
        Request::Load(..) => "load",
        Request::Join(..) => "join",
        Request::Open(..) => "open",
        Request::Close(..) => "close",
        Request::Report(_) => "report",
        Request::Unload(_) => "unload",
        Request::RenewLeases(_) => "retain",
        Request::Retain(..) => "keep",
        Request::Check(_) => "check",
        Request::Replay(..) => "resend",
        Request::Drain(..) => "hand-over",
        Request::ReceiveSessions(_) => "take-over",
        Request::GrantKey(_) => "lend",
        Request::ExpectSessions(..) => "expect",
        Request::Digests(..) => "digests",
        Request::Rows(..) => "rows",
        Request::Recompute(..) => "recompute",
        Request::Fetch(..) => "fetch",
        Request::Outline(_) => "outline",
        Request::Bytes(_) => "bytes",
        Request::Adapt(..) => "adapt",
    }
}

fn requests() -> Vec<(&'static str, Request)> {
    let from_path = StageSpec { source: ModelSource::Path("/models/m.gguf".into()), standby: true, ..stage_spec() };
    let starter = StageSpec { source: ModelSource::Named(None, "d1635e".to_owned()), at_load: None, ..stage_spec() };
    let last = Neighbours { next: None, first: Some(addr(1)), ..neighbours() };
    let afresh = SessionSpec { continues: None, options: SessionOptions::default(), ..session_spec() };
    vec![
        ("", Request::Greet("{}".to_owned())),
        ("", Request::Measure(300)),
        ("", Request::Load(stage(), stage_spec())),
        ("-path", Request::Load(stage(), from_path)),
        ("-starter", Request::Load(stage(), starter)),
        ("", Request::Join(stage(), neighbours())),
        ("-last", Request::Join(stage(), last)),
        ("", Request::Open(stage(), session_spec())),
        ("-afresh", Request::Open(stage(), afresh)),
        ("", Request::Close(stage(), 0x1112)),
        ("", Request::Report(stage())),
        ("", Request::Unload(stage())),
        ("", Request::RenewLeases(vec![stage(), StageId { index: 4, ..stage() }])),
        ("", Request::Retain(stage(), 0x1112)),
        ("", Request::Check(stage())),
        ("", Request::Replay(stage(), Replay { session: 0x1112, from: 20, sample_from: 30 })),
        ("", Request::Drain(stage(), hand_over())),
        ("", Request::ReceiveSessions(stage())),
        ("", Request::GrantKey(peer(5))),
        ("", Request::ExpectSessions(stage(), peer(6))),
        ("", Request::Digests(stage(), span())),
        ("", Request::Rows(stage(), span())),
        ("", Request::Recompute(stage(), Box::new(recompute(Input::Tokens(vec![7, 300]))))),
        ("-hidden", Request::Recompute(stage(), Box::new(recompute(Input::Hidden(hidden()))))),
        ("", Request::Fetch(stage_spec().source, 5..19)),
        ("", Request::Outline("d1635e".to_owned())),
        ("", Request::Bytes(wanted_bytes())),
        ("", Request::Adapt(stage(), AdapterHead { id: AdapterId([7; 32]), config_bytes: 300, tensor_bytes: 70_000 })),
    ]
}

/// The name of a reply's file. A new reply needs a file, and an example below.
fn answer_name(answer: &Reply) -> &'static str {
    match answer {
        Reply::Greeting(_) => "greeting",
        Reply::Progress(_) => "progress",
        Reply::Loaded(_) => "loaded",
        Reply::Done => "done",
        Reply::Report(_) => "report",
        Reply::Refused(_) => "refused",
        Reply::Declined(_) => "declined",
        Reply::At(_) => "at",
        Reply::SessionsReceived(_) => "taken",
        Reply::Full(_) => "full",
        Reply::Pulse(_) => "pulse",
        Reply::Digests(_) => "digests",
        Reply::Rows(_) => "rows",
        Reply::Recomputed { .. } => "recomputed",
        Reply::Lacks => "lacks",
        Reply::Unfit(_) => "unfit",
        Reply::Fetched { .. } => "fetched",
    }
}

fn answers() -> Vec<(&'static str, Reply)> {
    vec![
        ("", Reply::Greeting("{}".to_owned())),
        ("", Reply::Progress(300)),
        ("", Reply::Loaded("CPU".to_owned())),
        ("", Reply::Done),
        ("", Reply::Report(report())),
        ("-empty", Reply::Report(StageReport::default())),
        ("", Reply::Refused("no".to_owned())),
        ("", Reply::Declined("paused".to_owned())),
        ("", Reply::At(70_000)),
        ("", Reply::SessionsReceived(3)),
        ("", Reply::Full("taken".to_owned())),
        ("", Reply::Pulse(pulse())),
        ("", Reply::Digests(digests())),
        ("", Reply::Rows(hidden())),
        ("", Reply::Recomputed { digests: digests(), token: None }),
        ("-last", Reply::Recomputed { digests: Vec::new(), token: Some(300) }),
        ("", Reply::Lacks),
        ("", Reply::Unfit("damaged".to_owned())),
        ("", Reply::Fetched { done: 300, of: 70_000 }),
    ]
}

#[test]
fn control_messages_have_the_bytes_that_other_versions_know() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire").join(SPEAKS.1.to_string());
    let mut golden = Golden::open(folder, "the newest version in `SPEAKS` (control.rs)");
    let request =
        |(suffix, request): (&str, Request)| (format!("request-{}{suffix}", question_name(&request)), request);
    golden.postcard_enum(requests().into_iter().map(request));
    let answer = |(suffix, answer): (&str, Reply)| (format!("answer-{}{suffix}", answer_name(&answer)), answer);
    golden.postcard_enum(answers().into_iter().map(answer));
    let hello = |to| Hello { ring: stage().ring, owner: peer(7), to };
    golden.postcard("hello-stage", &hello(Role::Stage(3)));
    golden.postcard("hello-coordinator", &hello(Role::Coordinator));
    golden.postcard("hello-head", &hello(Role::Head));
    // The parts of messages, so that a failure names the part.
    golden.postcard("part-stage-spec", &stage_spec());
    golden.postcard("part-neighbours", &neighbours());
    golden.postcard("part-session-spec", &session_spec());
    golden.postcard("part-hand-over", &hand_over());
    golden.postcard("part-recompute", &recompute(Input::Hidden(hidden())));
    golden.postcard("part-stage-report", &report());
    golden.postcard("part-pulse", &pulse());
    let named = |names: &[&str], part: &str| names.iter().map(|name| format!("part-{part}-{name}")).collect::<Vec<_>>();
    let sources = [ModelSource::Path("/m".into()), ModelSource::Named(None, "d1".to_owned())];
    golden.postcard_enum(named(&["path", "named"], "source").into_iter().zip(sources));
    let roles = [Role::Stage(3), Role::Coordinator, Role::Head];
    golden.postcard_enum(named(&["stage", "coordinator", "head"], "role").into_iter().zip(roles));
    let computes = [Compute::Plain, Compute::Fast, Compute::Auto];
    golden.postcard_enum(named(&["plain", "fast", "auto"], "compute").into_iter().zip(computes));
    let arithmetics = [Arithmetic::Exact, Arithmetic::ByShape, Arithmetic::Gpu];
    golden.postcard_enum(named(&["exact", "by-shape", "gpu"], "arithmetic").into_iter().zip(arithmetics));
    let types = [ActivationType::F32, ActivationType::F16, ActivationType::Bf16];
    golden.postcard_enum(named(&["f32", "f16", "bf16"], "activation").into_iter().zip(types));
    let inputs = [Input::Tokens(vec![7, 300]), Input::Hidden(hidden())];
    golden.postcard_enum(named(&["tokens", "hidden"], "input").into_iter().zip(inputs));
    // The messages of presence.
    golden.postcard("beat", &Beat { number: 300, profile: Some("{}".to_owned()) });
    golden.postcard("beat-without-news", &Beat { number: 301, profile: None });
    let greeting = Greeting { speaks: (1, 2), incarnation: 5, profile: profile() };
    let reads = |text: &str| serde_json::from_str::<Greeting>(text).is_ok_and(|read| read == greeting);
    golden.json("greeting", &serde_json::to_string(&greeting).unwrap(), reads);
    let plain = Profile::default();
    let reads = |text: &str| serde_json::from_str::<Profile>(text).is_ok_and(|read| read == plain);
    golden.json("profile-default", &serde_json::to_string(&plain).unwrap(), reads);
    let heats = [Heat::Nominal, Heat::Fair, Heat::Serious, Heat::Critical];
    let reads = |text: &str| serde_json::from_str::<[Heat; 4]>(text).is_ok_and(|read| read == heats);
    golden.json("part-heats", &serde_json::to_string(&heats).unwrap(), reads);
    golden.finish();
}
