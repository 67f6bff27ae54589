//! Programs that are in the middle of an answer when their node is stopped, and those that say nothing more when they have asked.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::http;
use common::loopback::Node;
use serde_json::{Value, json};

/// A node that is told to stop has answers ended, and ends itself, within this time.
const LIMIT: Duration = Duration::from_secs(10);

fn question(stream: bool, tokens: usize) -> Value {
    let messages = json!([{ "role": "user", "content": "Write a very long story about bees." }]);
    json!({ "messages": messages, "max_tokens": tokens, "temperature": 0, "stream": stream })
}

fn ask(node: &Node, stream: bool, tokens: usize) -> http::Asked {
    http::ask(&node.folder, "POST", "/v1/chat/completions", &question(stream, tokens))
}

#[test]
fn an_answer_that_its_nodes_end_breaks_off_says_so_with_what_there_is() {
    let home = tempfile::tempdir().unwrap();
    let mut node = Node::start(home.path(), "ann");
    // The model is in memory before the clock runs.
    assert_eq!(ask(&node, false, 1).whole().0, 200);
    // Short enough that there is room for both at a time.
    let whole = ask(&node, false, 1000);
    common::patiently("it is under way", || node.json(&["status"], None)["profile"]["sessions"] == 1);
    let mut streamed = ask(&node, true, 1000);
    streamed.read_until("bees");
    let mut events = http::ask(&node.folder, "GET", "/hive/v1/events", &Value::Null);
    events.read_until("event: update");
    let stopped = Instant::now();
    node.signal("-TERM");
    streamed.read_to_end();
    let events: Vec<&str> = streamed.said.split("data: ").filter(|event| event.starts_with(['{', '['])).collect();
    let [.., error, done] = &*events else { panic!("{}", streamed.said) };
    assert!(done.starts_with("[DONE]"), "{}", streamed.said);
    let error: Value = serde_json::from_str(error.lines().next().unwrap()).unwrap();
    let (status, broken) = whole.whole();
    assert_eq!(status, 500);
    for error in [&error["error"], &broken["error"]] {
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("being stopped"), "{error}");
        assert!(error["code"].is_string() && error["hivemind"]["seed"].is_u64(), "{error}");
        assert!(!error["hivemind"]["tokens"].as_array().unwrap().is_empty(), "{error}");
    }
    // The text of the event is that of the stream.
    assert!(error["error"]["hivemind"]["text"].as_str().unwrap().contains("bees"));
    assert_eq!(node.wait(), Some(0));
    assert!(stopped.elapsed() < LIMIT, "{:?}", stopped.elapsed());

    // With the tokens it was told, the answer continues when the node is back.
    drop(node);
    let node = Node::start(home.path(), "ann");
    let said = error["error"]["hivemind"]["tokens"].clone();
    let count = said.as_array().unwrap().len();
    let mut again = question(false, 5);
    again["hivemind"] = json!({ "said": said });
    let (status, answer) = http::answer(&node.folder, "POST", "/v1/chat/completions", &again);
    assert_eq!((status, &answer["usage"]["completion_tokens"]), (200, &json!(count + 5)), "{answer}");
}

#[test]
fn a_program_that_closes_its_direction_after_asking_gets_its_answer() {
    let home = tempfile::tempdir().unwrap();
    let node = Node::start(home.path(), "ann");
    let asked = ask(&node, false, 40);
    asked.close_own_direction();
    let (status, answer) = asked.whole();
    assert_eq!((status, &answer["usage"]["completion_tokens"]), (200, &json!(40)), "{answer}");
    let mut streamed = ask(&node, true, 40);
    streamed.close_own_direction();
    streamed.read_to_end();
    assert!(streamed.said.contains("data: [DONE]"), "{}", streamed.said);
    // One that has gone ends its answer.
    let sessions = || node.json(&["status"], None)["profile"]["sessions"].as_u64().unwrap();
    let gone = ask(&node, false, 3000);
    common::patiently("it is under way", || sessions() == 1);
    drop(gone);
    common::patiently("nobody computes for it any more", || sessions() == 0);
    let answered = node.json(&["status"], None)["answered_tokens"].as_u64().unwrap();
    assert!(answered < 2000, "it was computed to its end: {answered} tokens");
}
