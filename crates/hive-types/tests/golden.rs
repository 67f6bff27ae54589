//! Every JSON file in `golden/` can be read, and is written again unchanged.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use hive_types::{
    AnswerFigures, AnswerNews, CatalogueView, Condition, ErrorDetails, ErrorKind, ErrorReply, Heat, LinkKind,
    ModelOnDisk, PeerState, PeerView, PlanView, Profile, Reason, Rights, SharingChange, SharingReply, Status,
    TokenList, Update,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name).with_extension("json");
    std::fs::read_to_string(path).unwrap()
}

#[track_caller]
fn assert_read_and_written<T: Serialize + DeserializeOwned>(name: &str) {
    let written = golden(name);
    let read: T = serde_json::from_str(&written).unwrap();
    assert_eq!(serde_json::to_string_pretty(&read).unwrap() + "\n", written, "{name}");
}

#[test]
fn every_reply_is_read_and_written_again_as_it_was() {
    assert_read_and_written::<Status>("status");
    assert_read_and_written::<Status>("status-alone");
    assert_read_and_written::<Vec<PeerView>>("peers");
    assert_read_and_written::<Update>("update");
    assert_read_and_written::<SharingReply>("sharing");
    assert_read_and_written::<SharingReply>("sharing-kept");
    assert_read_and_written::<Vec<ModelOnDisk>>("models");
    assert_read_and_written::<PlanView>("plan");
    assert_read_and_written::<CatalogueView>("catalogue");
}

/// Every way to remove one field of an object, at any depth.
fn each_without_one_field(whole: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let within: Vec<(String, &Value)> = match whole {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (name, value) in within {
        if let Value::Object(fields) = whole {
            let mut without = fields.clone();
            without.shift_remove(&name);
            found.push((name.clone(), Value::Object(without)));
        }
        for (path, less) in each_without_one_field(value) {
            let mut changed = whole.clone();
            match &mut changed {
                Value::Object(fields) => fields[&name] = less,
                Value::Array(items) => items[name.parse::<usize>().unwrap()] = less,
                _ => {}
            }
            found.push((format!("{name}/{path}"), changed));
        }
    }
    found
}

#[test]
fn a_field_that_another_version_lacks_keeps_nothing_from_being_read() {
    // A machine's state and its fields have always been required.
    let needed = ["state", "code", "why"];
    let status: Value = serde_json::from_str(&golden("status")).unwrap();
    let less = each_without_one_field(&status);
    assert!(less.len() > 200, "{}", less.len());
    for (path, status) in less {
        let parts: Vec<_> = path.split('/').collect();
        if parts.len() == 3 && parts[0] == "peers" && needed.contains(&parts[2]) {
            continue;
        }
        serde_json::from_value::<Status>(status).unwrap_or_else(|error| panic!("without {path}: {error}"));
    }
    let nothing: Status = serde_json::from_value(json!({})).unwrap();
    assert_eq!(nothing, Status::default());
    let some: PeerView = serde_json::from_value(json!({ "state": "approved", "rights": {} })).unwrap();
    assert_eq!((some.state, some.rights), (PeerState::Approved, Some(Rights::default())));
}

#[test]
fn what_only_a_newer_version_knows_is_skipped_or_called_unknown() {
    let newer = json!({
        "state": "dreaming", "since": 5, "mood": { "good": true }, "condition": "eclipse",
        "link": { "kind": "carrier pigeon", "remote": "", "round_trip_us": 5, "feathers": 2 },
        "profile": { "heat": "plasma", "quantum": true },
    });
    let peer: PeerView = serde_json::from_value(newer).unwrap();
    assert_eq!((peer.state, peer.condition), (PeerState::Unknown, Some(Condition::Unknown)));
    assert_eq!(peer.link.map(|link| link.kind), Some(LinkKind::Other));
    assert_eq!(peer.profile.map(|profile| profile.heat), Some(Heat::Unknown));
    let list = json!({ "tokens": [{ "name": "editor", "may": ["chat", "dream"], "made_day": 5 }] });
    let list: TokenList = serde_json::from_value(list).unwrap();
    assert_eq!(list.tokens[0].may, [hive_types::Right::Chat]);
    let refusal = json!({ "error": { "message": "no", "type": "odd_error", "code": "odd", "hivemind": { "odd": 1 } } });
    let ErrorReply { error } = serde_json::from_value(refusal).unwrap();
    assert_eq!((error.kind, error.hivemind), (ErrorKind::ServerError, Some(ErrorDetails::Unknown {})));
}

#[test]
fn a_wish_with_a_typo_is_refused() {
    assert!(serde_json::from_value::<SharingChange>(json!({ "pause": 5 })).is_err());
    assert!(serde_json::from_value::<hive_types::RightsChange>(json!({ "promts": false })).is_err());
    let named = json!({ "model": "owner/name", "stage": [] });
    assert!(serde_json::from_value::<hive_types::LoadRequest>(named).is_err());
}

#[test]
fn wishes_are_written_as_ever() {
    let written = |wish: SharingChange| serde_json::to_string(&wish).unwrap();
    assert_eq!(written(SharingChange::Share(true)), r#"{"share":true}"#);
    assert_eq!(written(SharingChange::PauseMinutes(5)), r#"{"pause_minutes":5}"#);
    assert_eq!(written(SharingChange::MemoryBytes(None)), r#"{"memory_bytes":null}"#);
}

#[test]
fn the_parts_of_an_answer_are_told_apart() {
    let news = |part: Value| serde_json::from_value::<AnswerNews>(part).unwrap();
    assert!(matches!(news(json!({ "status": "a machine is replaced" })), AnswerNews::Status { .. }));
    assert!(matches!(news(json!({ "reading": { "tokens": 1, "of": 2 } })), AnswerNews::Reading { .. }));
    let figures = json!({ "stages": [{ "node": "Studio", "layers": [0, 30] }], "tokens": [1], "ttft_ms": 2.5 });
    let AnswerNews::Figures(AnswerFigures { tokens, ttft_ms, ignored, .. }) = news(figures) else { panic!("figures") };
    assert_eq!((tokens, ttft_ms, ignored.len()), (vec![1], 2.5, 0));
}

#[test]
fn a_value_that_is_not_understood_keeps_nothing_else_from_being_read() {
    let plan = r#"{"model":"m","because":[{"kind":"one_machine"},{"kind":"away"},{"kind":"moon_phase"},7]}"#;
    let plan: PlanView = serde_json::from_str(plan).unwrap();
    assert_eq!(plan.because, [Reason::OneMachine, Reason::Unknown, Reason::Unknown, Reason::Unknown]);
    let profile = r#"{"name":"Mini","why_not_sharing":{"kind":"paused","until":7}}"#;
    let profile: Profile = serde_json::from_str(profile).unwrap();
    assert_eq!((profile.name.as_str(), profile.why_not_sharing), ("Mini", None));
    let away = r#"{"state":"unreachable","why":"far away","absence":{}}"#;
    let why = "far away".to_owned();
    let read: PeerState = serde_json::from_str(away).unwrap();
    assert_eq!(read, PeerState::Unreachable { why, absence: None, since: 0 });
}
