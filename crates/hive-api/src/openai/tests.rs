//! Answers as programs read them: thinking beside the answer, whole and in chunks.

use std::time::Duration;

use hive_node::reasoning::Markers;
use hive_node::{FinishReason, Sampled};

use super::*;

const THINK: Markers = Markers::Tags { begin: "<think>", end: "</think>" };

/// An answer whose text arrives like this, the last of it with its end.
fn answer(texts: &[&str]) -> mpsc::Receiver<Event> {
    let (events, answer) = mpsc::channel(texts.len());
    let summary = Summary {
        finish_reason: FinishReason::Stop,
        tokens: Vec::new(),
        resumed_tokens: 0,
        prompt_tokens: 1,
        cached_tokens: 0,
        time_to_first_token: Duration::ZERO,
        decode_time: Duration::ZERO,
        stages: Vec::new(),
    };
    let (last, others) = texts.split_last().unwrap();
    for text in others {
        let sampled = Sampled { token: 1, logprob: None, top: Vec::new() };
        events.try_send(Event::Token { sampled, text: (*text).to_owned() }).unwrap();
    }
    events.try_send(Event::Finished { text: (*last).to_owned(), summary }).unwrap();
    answer
}

fn so_far() -> SoFar {
    SoFar { text: String::new(), tokens: Vec::new(), seed: 0 }
}

async fn message(texts: &[&str], splitter: Splitter) -> Value {
    let (message, _) = whole(answer(texts), so_far(), splitter).await.unwrap();
    message
}

/// What each chunk adds.
async fn deltas(texts: &[&str], splitter: Splitter) -> Vec<Value> {
    let head = Head { id: "chatcmpl-1".to_owned(), created: 0, model: "m".to_owned(), ignored: Vec::new() };
    let frames = frames(answer(texts), head, false, so_far(), splitter).map(Ok::<_, Infallible>);
    let body = Sse::new(frames).into_response().into_body();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let lines = std::str::from_utf8(&body).unwrap().lines().filter_map(|line| line.strip_prefix("data: "));
    let chunks = lines.filter(|line| *line != "[DONE]").map(|line| serde_json::from_str::<Value>(line).unwrap());
    chunks.map(|chunk| chunk["choices"][0]["delta"].clone()).collect()
}

#[tokio::test]
async fn thinking_is_beside_the_answer_and_no_part_of_it() {
    let inside = || Splitter::new(Some(THINK), true);
    let texts = ["A bee", "?\n</th", "ink>\n\nBe", "es."];
    let expected = json!({ "role": "assistant", "content": "Bees.", "reasoning_content": "A bee?" });
    assert_eq!(message(&texts, inside()).await, expected);
    let expected = [
        json!({ "role": "assistant", "content": "" }),
        json!({ "reasoning_content": "A bee" }),
        json!({ "reasoning_content": "?" }),
        json!({ "content": "Be" }),
        json!({ "content": "es." }),
        json!({}),
    ];
    assert_eq!(deltas(&texts, inside()).await, expected);
}

#[tokio::test]
async fn an_answer_without_thinking_has_its_text_alone() {
    let texts = ["<think>", "x", "", "</thin"];
    let expected = json!({ "role": "assistant", "content": "<think>x</thin" });
    assert_eq!(message(&texts, Splitter::new(None, false)).await, expected);
    // What was held back comes at the end.
    let expected = [
        json!({ "role": "assistant", "content": "" }),
        json!({ "reasoning_content": "x" }),
        json!({ "reasoning_content": "</thin" }),
        json!({}),
    ];
    assert_eq!(deltas(&texts, Splitter::new(Some(THINK), false)).await, expected);
}
