//! How long a letter waits while several answers arrive.

use std::time::Duration;

use serde_json::json;

use crate::driver::{App, Desktop, Look, patiently, settle};
use crate::steps::keep;

/// Chats that are answered at once.
const ANSWERS: usize = 4;

/// Types letters, one after the other, and gives how long each took until it was in the field and the page was free again,
/// and how late the page was meanwhile to take a key: both in milliseconds, sorted.
const TYPE: &str = "const done = arguments[arguments.length - 1];
    const field = document.querySelector('.field textarea');
    const [handled, late] = [[], []];
    const letter = (left) => {
        const due = performance.now() + 20 + Math.random() * 40;
        setTimeout(() => {
            const began = performance.now();
            late.push(began - due);
            field.value += 'a';
            field.dispatchEvent(new InputEvent('input', { bubbles: true, data: 'a' }));
            /* After the framework's own work, which is in microtasks, and the layout that it causes. */
            queueMicrotask(() => {
                field.getBoundingClientRect();
                handled.push(performance.now() - began);
                if (left > 0) return letter(left - 1);
                const sorted = (times) => times.sort((a, b) => a - b);
                done([sorted(handled), sorted(late)]);
            });
        }, due - performance.now());
    };
    letter(200);";

/// A figure for `docs/performance.md`; run it by name with `--ignored --nocapture`.
#[test]
#[ignore = "it measures, and judges nothing"]
#[allow(clippy::print_stdout)]
fn while_four_answers_arrive() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let app = App::start(Desktop::new(Look::Light), home.path());
    for number in 0..ANSWERS {
        let id = format!("c{number}");
        keep(&app, &id, &format!("Chat {number}"), &json!([{ "role": "user", "text": "Hello.", "complete": true }]));
        app.script_with(
            "window.__TAURI_INTERNALS__.invoke('request', { method: 'POST', path: `/hive/v1/conversations/${arguments[0]}/ask`,
                body: JSON.stringify({ text: 'Write a very long story about bees.' }) })",
            &json!([id]),
        );
    }
    patiently("all answer", || app.script("return document.querySelectorAll('.list .light').length") == ANSWERS);
    app.script("document.querySelector('.list .title').click()");
    patiently("the open one grows", || app.text(".body").len() > 200);
    std::thread::sleep(Duration::from_secs(1));
    let typed = app.script_later(TYPE, &json!([]));
    assert_eq!(app.script("return document.querySelectorAll('.list .light').length"), ANSWERS, "all still answer");
    for (what, times) in [("a letter is handled in", &typed[0]), ("the page is late for a key by", &typed[1])] {
        let times = times.as_array().unwrap();
        let at = |part: f64| times[(times.len() as f64 * part) as usize].as_f64().unwrap();
        println!("{what}, ms: median {:.1}, 99 of 100 {:.1}, longest {:.1}", at(0.5), at(0.99), at(0.9999));
    }
    app.quit();
}
