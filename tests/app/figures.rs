//! How long things take, and how smoothly they move.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::QUESTION;
use crate::driver::{App, Desktop, Look, patiently, settle};
use crate::steps::{keep, note, said, surely};

/// Frames of a scroll from end to end: how many a second, and the longest in milliseconds.
const SCROLL: &str = "const [selector, done] = [arguments[0], arguments[arguments.length - 1]];
    const part = document.querySelector(selector);
    part.scrollTo({ top: 0 });
    const [frames, began] = [[], performance.now()];
    let last = began;
    const step = (now) => {
        frames.push(now - last);
        last = now;
        part.scrollTop += part.clientHeight / 8;
        if (now - began < 4000) return requestAnimationFrame(step);
        frames.shift();
        done([frames.length / (frames.reduce((sum, frame) => sum + frame, 0) / 1000), Math.max(...frames)]);
    };
    requestAnimationFrame(step);";

/// Figures for `docs/performance.md`; run it by name with `--ignored --nocapture`.
#[test]
#[ignore = "it measures, and judges nothing"]
#[allow(clippy::print_stdout)]
fn of_the_window() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let (desktop, began) = (Desktop::new(Look::Light), Instant::now());
    let app = App::start(desktop, home.path());
    surely(&app);
    app.ask(QUESTION);
    patiently("the first answer", || !note(&app, 0).is_empty());
    println!("from the very first start to the end of the first answer, s: {:.1}", began.elapsed().as_secs_f64());
    app.quit();
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let app = App::start(Desktop::new(Look::Light), home.path());
    let paragraph =
        "Bees **dance** to tell each other where `flowers` are; the angle is the direction, and the time is the way. ";
    let part = |n: u32| format!("## Part {n}\n\n{}\n\n- one\n- two", paragraph.repeat(4));
    let whole = (0..90).map(part).collect::<Vec<_>>().join("\n\n");
    for n in 0..198 {
        keep(&app, &format!("c{n}"), &format!("Conversation {n}"), &json!([said("user", "Hello.")]));
    }
    keep(&app, "long", "Ten thousand tokens", &json!([said("user", "Tell me all."), said("assistant", &whole)]));
    let many: Vec<_> =
        (0..250).flat_map(|n| [said("user", &format!("Question {n}?")), said("assistant", paragraph)]).collect();
    keep(&app, "many", "Five hundred messages", &json!(many));
    app.show_main();
    patiently("they are listed", || app.script("return document.querySelectorAll('aside li').length") == 200);
    for (title, about) in [("Ten thousand tokens", whole.len()), ("Five hundred messages", many.len())] {
        app.click(title);
        patiently("it is open", || app.text("h1") == title);
        std::thread::sleep(Duration::from_secs(1));
        println!(
            "{title} ({about}): frames a second and longest frame in ms: {}",
            app.script_later(SCROLL, &json!([".messages"]))
        );
    }
    println!("200 conversations: {}", app.script_later(SCROLL, &json!([".list"])));
    let listed = "const done = arguments[arguments.length - 1];
        const began = performance.now();
        const field = document.querySelector('input[type=search]');
        field.value = 'conversation';
        field.dispatchEvent(new Event('input', { bubbles: true }));
        const wait = () => document.querySelectorAll('aside li').length === 198
            ? requestAnimationFrame(() => done(performance.now() - began)) : requestAnimationFrame(wait);
        wait();";
    println!("searched in 200 conversations, ms: {}", app.script_later(listed, &json!([])));
    let tray = app.tray();
    tray.click("Settings…");
    let on = "return document.querySelector('[role=switch]')?.getAttribute('aria-checked') === 'true'";
    patiently("the switch", || app.script(on) == false);
    let mut switched = Vec::new();
    for round in 0..10 {
        let before = Instant::now();
        tray.click("Share Compute");
        while app.script(on) != (round % 2 == 0) {}
        switched.push(before.elapsed().as_millis());
    }
    println!("switched in the tray, seen in the window after, ms: {switched:?}");
    app.hide();
    let mut shown = Vec::new();
    for _ in 0..10 {
        let before = Instant::now();
        tray.click("Show Overview…");
        while app.windows_seen() == 0 {}
        shown.push(before.elapsed().as_millis());
        patiently("it is closed", || {
            app.press("Escape");
            app.windows_seen() == 0
        });
    }
    println!("popover shown after, ms, the search for its window included: {shown:?}");
    app.quit();
}
