//! Presets and prompts through the API.

use serde_json::{Value, json};

use super::Running;

#[tokio::test]
async fn presets_and_prompts_are_written_listed_and_deleted() {
    let running = Running::start().await;
    let token = running.owner();
    let ask = async |method: &str, path: &str, body: Value| -> Value {
        let path = format!("/hive/v1{path}");
        running.ask(Some(&token), method, &path).json(&body).send().await.unwrap().json().await.unwrap()
    };
    assert_eq!(ask("GET", "/presets", json!(null)).await, json!([]));
    let poet = json!({ "name": " Poet ", "system": "Rhyme", "choices": { "temperature": 0.5 }, "for_new": true });
    assert_eq!(ask("PUT", "/presets/p1", poet).await, json!({ "done": true }));
    assert_eq!(
        ask("GET", "/presets", json!(null)).await,
        json!([{ "id": "p1", "name": "Poet", "system": "Rhyme", "for_new": true,
            "choices": { "model": null, "temperature": 0.5, "top_p": 0.95, "max_tokens": null, "options": [] } }])
    );
    assert_eq!(ask("POST", "/conversations", json!(null)).await["system"], "Rhyme");
    assert_eq!(ask("PUT", "/presets/p2", json!({ "name": " " })).await["error"]["code"], "invalid_value");
    assert_eq!(ask("DELETE", "/presets/p1", json!(null)).await, json!({ "done": true }));
    assert_eq!(ask("GET", "/presets", json!(null)).await, json!([]));

    let prompts = ask("GET", "/prompts", json!(null)).await;
    assert!(prompts.as_array().unwrap().iter().all(|prompt| prompt["starter"] == true), "{prompts}");
    let own = json!({ "name": "Mine", "text": "Say {{word}}" });
    assert_eq!(ask("PUT", "/prompts/summarise", own).await, json!({ "done": true }));
    let prompts = ask("GET", "/prompts", json!(null)).await;
    let own = json!({ "id": "summarise", "name": "Mine", "text": "Say {{word}}", "starter": false });
    assert!(prompts.as_array().unwrap().contains(&own), "{prompts}");
    assert_eq!(ask("DELETE", "/prompts/summarise", json!(null)).await, json!({ "done": true }));

    assert_eq!(ask("GET", "/titles", json!(null)).await, json!({ "on": true }));
    assert_eq!(ask("PUT", "/titles", json!({ "on": false })).await, json!({ "done": true }));
    assert_eq!(ask("GET", "/titles", json!(null)).await, json!({ "on": false }));
    running.stop().await;
}
