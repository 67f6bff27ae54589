//! Tokens of a text, counted by the model's own tokenizer through the API.

#![allow(clippy::unwrap_used)]

mod common;

use common::http;
use common::loopback::Node;
use serde_json::{Value, json};

const COUNT: &str = "/hive/v1/models/tokens";

#[test]
fn a_text_is_counted_as_the_model_reads_it_and_no_model_is_loaded_for_it() {
    let home = tempfile::tempdir().unwrap();
    let node = Node::start(home.path(), "one");
    let ask = |body: Value| http::answer(&node.folder, "POST", COUNT, &body);
    let (_, models) = http::answer(&node.folder, "GET", "/hive/v1/models", &Value::Null);
    let starter = &models[0]["name"];
    let tokens = |text: &str| {
        let (status, counted) = ask(json!({ "text": text }));
        assert_eq!((status, &counted["model"]), (200, starter), "{counted}");
        counted["tokens"].as_u64().unwrap()
    };
    assert_eq!(tokens(""), 0);
    let (short, long) = ("Bees make honey.", "Bees make honey.\n".repeat(200));
    let (of_short, of_long) = (tokens(short), tokens(&long));
    assert!(of_short < of_long);
    // What a person writes is text, even if it looks like a special token.
    assert!(tokens("<|im_start|>") > 1);
    assert!(node.json(&["status"], None)["model"].is_null(), "nothing is loaded");
    // With the same frame around both, prompts differ by what the texts have.
    let prompt = |text: &str| {
        let question = json!({ "messages": [{ "role": "user", "content": text }], "max_tokens": 1 });
        let (status, answer) = http::answer(&node.folder, "POST", "/v1/chat/completions", &question);
        assert_eq!(status, 200, "{answer}");
        answer["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    // A template may trim what it is given.
    let of_long = of_long - (tokens(&long) - tokens(long.trim()));
    assert_eq!(prompt(long.trim()) - prompt(short), of_long - of_short);
    assert_eq!(tokens(short), of_short, "a model in memory counts the same");

    let (status, refused) = ask(json!({ "text": "x".repeat(2_000_001) }));
    assert_eq!((status, &refused["error"]["code"]), (413, &json!("too_long")));
    assert_eq!(ask(json!({ "text": "x".repeat(2_000_000) })).0, 200);
    let (status, refused) = ask(json!({ "text": "x", "model": "nobody/nothing" }));
    assert_eq!((status, &refused["error"]["code"]), (404, &json!("model_not_found")));
}
