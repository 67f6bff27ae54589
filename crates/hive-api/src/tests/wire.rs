//! Golden tests of the JSON that programs read: replies keep their names and shapes.
//!
//! Replies with many fields are compared with the files in `hive-types/golden`, which `hive-types` parses back; the
//! others are requested over HTTP.

use hive_node::reach::Condition;
use hive_node::serving::{Layout, LoadingView, ModelView, StageView};
use hive_node::{
    Link, LinkKind, MachineWork, MeasuredPath, ModelCopy, ModelOnDisk, Notice, Paired, PeerState, PeerView, Plan,
    PlannedStage, Profile, Rights, Status,
};
use hive_types::{Absence, CatalogueModel, CatalogueVariant, CatalogueView, Fit, FitView, NotSharing, Reason};
use serde_json::{Value, json};

use super::*;
use crate::views;

const DONE: &str = r#"{"done":true}"#;

/// Compares a reply with its golden file.
#[track_caller]
fn assert_golden(name: &str, reply: &impl Serialize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hive-types/golden").join(name).with_extension("json");
    let found = serde_json::to_string_pretty(reply).unwrap() + "\n";
    assert_eq!(found, std::fs::read_to_string(&path).unwrap(), "{name}");
}

fn profile() -> Profile {
    Profile {
        name: "Studio".to_owned(),
        version: "0.1.0".to_owned(),
        chip: "Apple M4 Max".to_owned(),
        os: "macos".to_owned(),
        threads: 12,
        memory_bytes: 64 << 30,
        taken_bytes: 9 << 30,
        offered_bytes: 40 << 30,
        sharing: true,
        not_sharing: None,
        why_not_sharing: None,
        gpu: true,
        decode_tokens_per_s: Some(312.5),
        bytes_per_s: Some(4.5e11),
        prefill_tokens_per_s: Some(8000.0),
        cap_bytes: Some(48 << 30),
        held_bytes: 5 << 30,
        over_cap: false,
        limit_bytes: Some(48 << 30),
        sends_bits_per_s: Some(100_000_000),
        models: vec!["owner/name".to_owned()],
        copies: Some(vec![
            ModelCopy { name: Some("owner/name".to_owned()), digest: Some("1f".to_owned()) },
            ModelCopy { name: None, digest: None },
        ]),
        fetches: true,
        sessions: 2,
        power: hive_host::Power { on_battery: true, battery_percent: Some(80), low_power_mode: false },
        heat: hive_host::Heat::Fair,
    }
}

fn link(kind: LinkKind) -> Link {
    Link { kind, remote: "10.0.0.7:4433".to_owned(), round_trip_us: 310 }
}

/// A machine nearby that has not been paired.
fn found() -> PeerView {
    PeerView {
        id: "k1".to_owned(),
        name: "Mini".to_owned(),
        fingerprint: "otter-lamp-river".to_owned(),
        state: PeerState::Found,
        paired: None,
        link: None,
        condition: None,
        bits_per_s: None,
        other_paths: Vec::new(),
        profile: None,
        rights: None,
    }
}

/// One machine in every state.
fn peers() -> Vec<PeerView> {
    let pending = PeerState::Pending { code: "482 915".to_owned(), asked_by_them: true, approved_here: false };
    let away = |condition| PeerView {
        state: PeerState::Unreachable {
            why: "it does not answer".to_owned(),
            absence: Some(Absence::Silent),
            since: 1_764_000_000,
        },
        paired: Some(Paired { code: None, at_s: 1_763_000_000 }),
        condition: Some(condition),
        rights: Some(Rights::default()),
        ..found()
    };
    let other = |kind| MeasuredPath { link: link(kind), bits_per_s: 90_000_000 };
    let kinds =
        [LinkKind::Loopback, LinkKind::Ethernet, LinkKind::Wifi, LinkKind::Vpn, LinkKind::Relay, LinkKind::Other];
    let approved = PeerView {
        state: PeerState::Approved,
        paired: Some(Paired { code: Some("482 915".to_owned()), at_s: 1_763_000_000 }),
        link: Some(link(LinkKind::Thunderbolt)),
        bits_per_s: Some(20_000_000_000),
        other_paths: kinds.map(other).to_vec(),
        profile: Some(Profile {
            sharing: false,
            not_sharing: Some("paused: on battery".to_owned()),
            why_not_sharing: Some(NotSharing::OnBattery),
            ..Profile::default()
        }),
        rights: Some(Rights {
            memory: false,
            prompts: true,
            memory_limit_bytes: Some(8 << 30),
            session_limit: Some(2),
        }),
        ..found()
    };
    vec![
        found(),
        PeerView { state: pending, ..found() },
        approved,
        away(Condition::LocalNetworkDenied),
        away(Condition::Firewalled),
        away(Condition::RelayedNearby),
        PeerView { state: PeerState::Blocked, ..found() },
    ]
}

fn status() -> Status {
    let stage =
        |node: &str, from, to| StageView { node: node.to_owned(), layers: [from, to], device: "gpu".to_owned() };
    Status {
        id: "k0".to_owned(),
        fingerprint: "stone-sister-cause".to_owned(),
        profile: profile(),
        share: true,
        paused: false,
        addresses: vec!["10.0.0.5:4433".parse().unwrap(), "[fe80::1]:4433".parse().unwrap()],
        discovery: "on".to_owned(),
        peers: peers(),
        left_out: 3,
        answered_tokens: 7,
        today: vec![MachineWork { id: "k0".to_owned(), answers: 2, tokens: 340 }],
        model: Some(ModelView {
            name: "owner/name".to_owned(),
            stages: vec![stage("Studio", 0, 20), stage("Mini", 20, 30)],
            copies: vec![stage("Attic", 20, 30)],
            bytes: 12 << 30,
        }),
        loads: vec![LoadingView {
            name: "owner/other".to_owned(),
            layers: 4,
            of: 32,
            fetched_bytes: 7,
            fetching_bytes: 9,
        }],
    }
}

#[test]
fn what_the_node_says_of_itself_and_the_machines_is_written_as_ever() {
    let alone = Status { peers: Vec::new(), model: None, loads: Vec::new(), profile: Profile::default(), ..status() };
    let notice = Notice { number: 5, peer: "k1".to_owned(), text: "Mini is in.".to_owned() };
    assert_golden("status", &views::status_view(status()));
    let alone = views::status_view(alone);
    assert_golden("status-alone", &alone);
    assert_golden("peers", &peers().into_iter().map(views::peer).collect::<Vec<_>>());
    assert_golden("update", &hive_types::Update { status: alone.clone(), notices: vec![notice] });
    let not_kept = Some("the disk is full; free some space".to_owned());
    assert_golden("sharing", &hive_types::SharingReply { status: alone.clone(), not_kept });
    assert_golden("sharing-kept", &hive_types::SharingReply { status: alone, not_kept: None });
}

#[test]
fn models_are_written_as_ever() {
    let usable = ModelOnDisk {
        name: "owner/name".to_owned(),
        bytes: 12 << 30,
        whole_bytes: Some(24 << 30),
        loaded: true,
        pinned: true,
        aliases: vec!["fast".to_owned()],
        adapted: vec!["tuned".to_owned()],
        removable: true,
        in_place: false,
        also_on: vec!["Mini".to_owned()],
        lacking: vec!["Attic does not have it".to_owned()],
        unusable: None,
    };
    let unusable = ModelOnDisk {
        name: "owner/broken".to_owned(),
        loaded: false,
        pinned: false,
        aliases: Vec::new(),
        adapted: Vec::new(),
        also_on: Vec::new(),
        lacking: Vec::new(),
        unusable: Some("its header is cut".to_owned()),
        ..usable.clone()
    };
    assert_golden("models", &[usable, unusable]);
}

#[test]
fn models_that_can_be_fetched_are_listed_as_ever() {
    let fit = |context, fit, rate: Option<f64>| {
        let machines = if rate.is_some() { vec!["Studio".to_owned(), "Mini".to_owned()] } else { Vec::new() };
        let room_tokens = if rate.is_some() { 40_000 } else { 0 };
        FitView { context, fit, machines, room_tokens, decode_tokens_per_s: rate }
    };
    let variant = CatalogueVariant {
        model: "owner/tiny-4bit".to_owned(),
        quantization: "4-bit".to_owned(),
        bits_per_weight: 4.5,
        bytes: 1_700_000_000,
        approximate: true,
        on_disk: true,
        loaded: false,
        fits: vec![
            fit(4096, Fit::Comfortable, Some(42.5)),
            fit(32_768, Fit::Snug { machine: "Mini".to_owned(), left_bytes: 5_000_000 }, Some(42.5)),
            fit(131_072, Fit::NeedsMore { bytes: 6_000_000_000, advice: "share 6 GB more on Mini".to_owned() }, None),
        ],
    };
    let model = CatalogueModel {
        name: "Tiny 3B A1B".to_owned(),
        family: "llama".to_owned(),
        parameters: 3_000_000_000,
        active_parameters: Some(1_000_000_000),
        context: 131_072,
        licence: "MIT".to_owned(),
        good_at: vec!["chat".to_owned()],
        tools: true,
        thinking: false,
        images: false,
        variants: vec![variant],
    };
    let problem = Some("catalogue.toml, line 3: unknown field `layer`".to_owned());
    assert_golden("catalogue", &CatalogueView { models: vec![model], problem });
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_are_written_as_ever() {
    let running = Running::start().await;
    let owner = running.owner();
    let ask = async |method: &str, path: &str, body: Value| {
        let response = running.ask(Some(&owner), method, &format!("/hive/v1{path}")).json(&body).send().await.unwrap();
        response.text().await.unwrap()
    };
    let text =
        |reply: &str, field: &str| serde_json::from_str::<Value>(reply).unwrap()[field].as_str().unwrap().to_owned();

    // The plan of a model.
    let stage = PlannedStage { machine: 0, layers: 0..30, weight_bytes: 5, kv_bytes: 6, base_bytes: 7 };
    let plan = Plan {
        stages: vec![stage],
        reasons: vec![Reason::OneMachine],
        decode_tokens_per_s: Some(41.5),
        room_tokens: 9,
        own_tokens: 0,
    };
    let placements = vec![hive_node::Placement { name: "Studio".to_owned(), addr: running.node.addr(), gpu: false }];
    let layout = Layout { model: "owner/name".to_owned(), layers: 30, plan, placements };
    assert_golden("plan", &views::plan(layout));

    // A second machine: invited, approved, renamed, limited and removed.
    let options = hive_node::NodeOptions::new("mini".to_owned(), ([127, 0, 0, 1], 0).into());
    let mini = Node::start(hive_node::NodeOptions { share: false, ..options }).await.unwrap();
    let invited = ask("POST", "/invites", json!({ "valid_for_s": 90 })).await;
    assert_eq!(invited, format!(r#"{{"ticket":"{}","valid_for_s":90}}"#, text(&invited, "ticket")));
    assert!(ask("POST", "/invites", json!({})).await.ends_with(r#","valid_for_s":86400}"#));
    let ticket = mini.invite(TEST_TIMEOUT).unwrap().to_text();
    let asked = ask("POST", "/join", json!({ "ticket": ticket })).await;
    let (id, code) = (mini.id().to_text(), text(&asked, "code"));
    assert_eq!(asked, format!(r#"{{"id":"{id}","code":"{code}"}}"#));
    assert_eq!(ask("POST", &format!("/peers/{id}/approve"), json!({ "code": code })).await, DONE);
    mini.approve(running.node.id(), hive_node::Code::parse(&code).unwrap()).unwrap();
    while running.node.rights(mini.id()).is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let rights = format!("/peers/{id}/rights");
    assert_eq!(ask("POST", &rights, json!({})).await, r#"{"memory":true,"prompts":true}"#);
    let wanted = json!({ "memory": null, "prompts": false, "memory_limit_bytes": 1000, "session_limit": 2 });
    assert_eq!(
        ask("POST", &rights, wanted).await,
        r#"{"memory":true,"prompts":false,"memory_limit_bytes":1000,"session_limit":2}"#
    );
    let wanted = json!({ "memory_limit_bytes": 0, "session_limit": 0 });
    assert_eq!(ask("POST", &rights, wanted).await, r#"{"memory":true,"prompts":false}"#);
    assert_eq!(ask("POST", &format!("/peers/{id}/rename"), json!({ "name": "Attic" })).await, DONE);
    assert_eq!(ask("POST", &format!("/peers/{id}/block"), json!(null)).await, DONE);
    assert_eq!(ask("POST", &format!("/peers/{id}/remove"), json!(null)).await, DONE);
    mini.stop().await;
    assert_eq!(
        ask("POST", "/peers/nobody/deny", json!(null)).await,
        r#"{"error":{"message":"no machine \"nobody\"; `hivemind peers` lists them","type":"invalid_request_error","code":"no_such_peer","param":null,"hint":null}}"#
    );

    for wanted in [json!({ "share": true }), json!({ "pause_minutes": 0 }), json!({ "memory_bytes": null })] {
        let reply: Value = serde_json::from_str(&ask("POST", "/sharing", wanted).await).unwrap();
        assert!(reply["profile"].is_object() && reply.get("not_kept").is_none(), "{reply}");
    }

    // API tokens.
    let made = ask("POST", "/tokens", json!({ "name": "editor", "may": ["models", "chat"] })).await;
    let token = text(&made, "token");
    assert_eq!(made, format!(r#"{{"name":"editor","token":"{token}"}}"#));
    let day = today();
    assert_eq!(
        ask("GET", "/tokens", json!(null)).await,
        format!(r#"{{"tokens":[{{"name":"editor","may":["chat","models"],"made_day":{day},"last_used_day":null}}]}}"#)
    );
    let refused = running.ask(Some(&token), "GET", "/hive/v1/status").send().await.unwrap().text().await.unwrap();
    assert_eq!(
        refused,
        r#"{"error":{"message":"the token \"editor\" lacks the right \"machines\"; it has chat, models","type":"invalid_request_error","code":"missing_right","param":null,"hint":"make one that has it: hivemind tokens add NAME --may machines","hivemind":{"missing":["machines"]}}}"#
    );
    let renewed = ask("POST", "/tokens/editor/renew", json!(null)).await;
    assert_eq!(renewed, format!(r#"{{"name":"editor","token":"{}"}}"#, text(&renewed, "token")));
    assert_eq!(ask("DELETE", "/tokens/editor", json!(null)).await, DONE);

    let log = ask("GET", "/log", json!(null)).await;
    assert!(log.starts_with(r#"{"entries":[{"at":""#), "{log}");
    assert!(log.ends_with(r#"],"cut":false,"unreadable":0,"lost":0}"#), "{log}");
    assert_eq!(ask("POST", "/quit", json!(null)).await, DONE);
    assert_eq!(ask("POST", "/owner-token/renew", json!(null)).await, r#"{"done":true,"file":"api-token"}"#);
    running.stop().await;
}

#[tokio::test]
async fn replies_about_conversations_are_written_as_ever() {
    let running = Running::start().await;
    let token = running.owner();
    let ask = async |method: &str, path: &str, body: serde_json::Value| {
        let path = format!("/hive/v1{path}");
        running.ask(Some(&token), method, &path).json(&body).send().await.unwrap().text().await.unwrap()
    };
    let said = json!({ "id": "m1", "role": "user", "text": "Hello", "complete": true });
    let conversation = json!({ "title": "A talk", "messages": [said], "updated_s": 5.5 });
    assert_eq!(ask("PUT", "/conversations/c1", conversation).await, DONE);
    let listed = ask("GET", "/conversations?words=talk", json!(null)).await;
    assert_eq!(
        listed,
        r#"[{"id":"c1","title":"A talk","updated_s":5.5,"snippet":"Hello","found":null,"pinned":false,"archived":false,"answering":false}]"#
    );
    assert_eq!(
        ask("GET", "/conversations/c1", json!(null)).await,
        r#"{"id":"c1","title":"A talk","system":"","draft":"","choices":{"model":null,"temperature":0.3,"top_p":0.95,"max_tokens":null,"options":[]},"messages":[{"id":"m1","role":"user","text":"Hello","tokens":[],"seed":0,"complete":true,"note":null,"computed":null,"edit":null,"branches":["m1"]}],"updated_s":5.5,"began_s":null,"pinned":false,"archived":false}"#
    );
    let markdown = ask("GET", "/conversations/c1/markdown", json!(null)).await;
    assert!(markdown.starts_with(r##"{"file_name":"A talk.md","markdown":"# A talk"##), "{markdown}");
    assert_eq!(ask("POST", "/conversations/c1/rename", json!({ "title": "Ours" })).await, DONE);
    for (call, body) in [
        ("draft", json!({ "draft": "half" })),
        ("draft", json!({ "draft": "Hello again", "message": "m1" })),
        ("instructions", json!({ "instructions": "Be brief" })),
        ("choices", json!({ "model": "big", "temperature": 0.5 })),
        ("pin", json!({ "on": true })),
        ("archive", json!({ "on": true })),
        ("choose", json!({ "message": "m1" })),
        ("stop", json!(null)),
    ] {
        assert_eq!(ask("POST", &format!("/conversations/c1/{call}"), body).await, DONE, "{call}");
    }
    let read = ask("GET", "/conversations/c1", json!(null)).await;
    let kept =
        r#""title":"Ours","system":"Be brief","draft":"half","choices":{"model":"big","temperature":0.5,"top_p":0.95,"#;
    assert!(read.contains(kept) && read.ends_with(r#""pinned":true,"archived":true}"#), "{read}");
    assert_eq!(ask("DELETE", "/conversations/c1", json!(null)).await, DONE);
    assert!(ask("GET", "/conversations/c1", json!(null)).await.contains("no_such_conversation"));
    assert_eq!(ask("POST", "/conversations/c1/restore", json!(null)).await, DONE);
    assert!(ask("POST", "/conversations/c1/resume", json!(null)).await.contains("nothing_to_continue"));
    assert!(ask("POST", "/conversations/c1/ask", json!({ "text": " " })).await.contains("no_question"));
    assert!(ask("POST", "/conversations/c1/choose", json!({ "message": "m9" })).await.contains("no_such_message"));
    running.stop().await;
}
