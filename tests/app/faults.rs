//! Faults that people met in the window once, each as a person meets it: with a real wheel, real keys and real clicks.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::driver::{App, Desktop, Look, patiently, patiently_or, settle};
use crate::steps::{keep, said};

const STORY: &str = "Write a very long story about bees.";

const ANSWER: &str = "Do this:\n\n3. Install it.\n\n```sh\napt install bees\n```\n\n4. Run it.\n\n- [x] read\n- [ ] understood\n\n\
    | Model | Rate | Memory | Word |\n|:---|:---:|---:|---|\n\
    | SmolLM2 | 13/1,072 | 98 MB | Pneumonoultramicroscopicsilicovolcanoconiosis |\n\nIts area is \\(a^2\\), and\n\n$$\\int_0^1 x\\,dx$$\n\n---\n\nThe end.";

fn xdotool(app: &App, arguments: &[&str]) -> String {
    let mut command = Command::new("xdotool");
    command.args(arguments).env("DISPLAY", &app.desktop.display).stderr(Stdio::null());
    String::from_utf8(command.output().expect("xdotool is installed").stdout).unwrap()
}

fn window(app: &App) -> String {
    let found = xdotool(app, &["search", "--onlyvisible", "--name", "^HiveMind$"]);
    found.lines().next().expect("the window is on the screen").to_owned()
}

/// Moves the mouse to the middle of what a selector finds.
fn to(app: &App, selector: &str) {
    let body = "const found = document.querySelector(arguments[0]);
        found.scrollIntoView({ block: 'nearest' });
        const box = found.getBoundingClientRect();
        return [box.left + box.width / 2, box.top + box.height / 2].map(Math.round)";
    let place = app.script_with(body, &json!([selector]));
    xdotool(app, &["mousemove", "--window", &window(app), &place[0].to_string(), &place[1].to_string()]);
}

fn press(app: &App, keys: &str) {
    xdotool(app, &["windowfocus", "--sync", &window(app), "key", "--clearmodifiers", keys]);
}

/// Marks the button of this name, and clicks it with the mouse: only a person's own click reaches the clipboard.
fn click(app: &App, name: &str) {
    let body = "for (const marked of document.querySelectorAll('#marked')) marked.removeAttribute('id');
        const named = [...document.querySelectorAll('button')].find((button) => button.innerText.trim() === arguments[0]);
        if (named) named.id = 'marked';
        return named !== undefined";
    patiently(&format!("a button {name:?}"), || app.script_with(body, &json!([name])) == true);
    to(app, "#marked");
    xdotool(app, &["click", "1"]);
}

fn turn_to(app: &App, title: &str) {
    let body = "const entry = document.querySelector(`.list [title='${arguments[0]}']`);
        entry?.click();
        return entry !== null";
    patiently(title, || app.script_with(body, &json!([title])) == true);
    patiently("it is open", || app.text("h1") == title);
}

fn type_draft(app: &App, text: &str) {
    let body = "const field = document.querySelector('.field textarea');
        field.value = arguments[0];
        field.dispatchEvent(new Event('input', { bubbles: true }));";
    app.script_with(body, &json!([text]));
}

fn place(app: &App) -> f64 {
    app.script("return document.querySelector('.messages').scrollTop").as_f64().unwrap()
}

/// How far the end is below what is seen.
fn below(app: &App) -> f64 {
    let body = "const messages = document.querySelector('.messages');
        return messages.scrollHeight - messages.scrollTop - messages.clientHeight";
    app.script(body).as_f64().unwrap()
}

fn length(app: &App) -> u64 {
    app.script("return document.querySelector('.newest .body, li:last-child .body')?.textContent.length ?? 0")
        .as_u64()
        .unwrap()
}

/// Scrolls up while an answer arrives, and says whether more of it came after that.
#[track_caller]
fn stays_where_it_was_scrolled_to(app: &App, up: &str) -> bool {
    app.script("document.querySelector('.pill')?.click()");
    patiently("it grows", || length(app) > 10);
    patiently("the end is followed", || below(app) < 8.0);
    let before = place(app);
    if up == "wheel" {
        to(app, ".messages");
        xdotool(app, &["click", "4"]);
    } else {
        app.script("document.querySelector('.messages').focus()");
        press(app, up);
    }
    patiently(&format!("{up} scrolls up"), || place(app) < before - 8.0);
    std::thread::sleep(Duration::from_millis(300));
    let (at, long) = (place(app), length(app));
    patiently("it grows meanwhile", || length(app) > long + 5 || app.text(".field button") == "Send");
    assert!((place(app) - at).abs() < 2.0, "{up}: from {at} to {}", place(app));
    length(app) > long
}

#[test]
fn the_field_grows_and_whoever_scrolls_up_in_an_answer_stays_there() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let app = App::start(Desktop::new(Look::Light), home.path());

    // The field is as high as what is written in it, up to a limit.
    let field = || {
        app.script(
            "const field = document.querySelector('.field textarea'); return [field.clientHeight, field.scrollHeight]",
        )
    };
    type_draft(&app, "one");
    let one = field()[0].as_u64().unwrap();
    type_draft(&app, "one\ntwo\nthree\nfour\nfive");
    patiently_or(|| field().to_string(), || field()[0].as_u64() > Some(3 * one / 2) && field()[0] == field()[1]);
    type_draft(&app, "");
    patiently("it is small again", || field()[0] == one);

    // An answer that fills the page is followed to its end, until the wheel or a key goes up; from then on it stays.
    let filler = "A line of the question.\n".repeat(60);
    app.ask(&format!("{STORY}\n\n{filler}"));
    for up in ["wheel", "Prior", "Up"] {
        // An answer may end too soon; the next one is as good.
        while !stays_where_it_was_scrolled_to(&app, up) {
            patiently("it has ended", || app.text(".field button") == "Send");
            app.ask(STORY);
        }
    }
    app.click("↓ Newest");
    patiently("the end is followed again", || below(&app) < 8.0);
    app.quit();
}

#[test]
fn what_a_model_writes_stands_as_it_was_meant() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("studio");
    settle(&folder, "Studio");
    // A model that is broken is on the disk.
    let cache = home.path().join("hub");
    let snapshot = cache.join("models--owner--broken/snapshots/1");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(cache.join("models--owner--broken/refs")).unwrap();
    std::fs::write(cache.join("models--owner--broken/refs/main"), "1").unwrap();
    std::fs::write(snapshot.join("broken.gguf"), "GGUF").unwrap();
    let app = App::start_with(
        Desktop::new(Look::Light),
        &folder,
        &[
            ("HF_HUB_CACHE", cache.to_str().unwrap()),
            ("XDG_CACHE_HOME", folder.join("XDG_CACHE_HOME").to_str().unwrap()),
        ],
    );
    keep(
        &app,
        "bees",
        "Bees",
        &json!([
            said("user", "How?"),
            said("assistant", ANSWER),
            said("user", "And then?"),
            said("assistant", "Then rest.")
        ]),
    );
    app.show_main();
    turn_to(&app, "Bees");
    patiently("the formulas are set", || app.script("return document.querySelectorAll('.body .katex').length") == 2);

    let lists = app.script("return [...document.querySelectorAll('.body ol')].map((list) => list.start)");
    assert_eq!(lists, json!([3, 4]), "numbers continue after code");
    let boxes = app.script(
        "return [...document.querySelectorAll('.body li input')].map((box) => [box.type, box.checked, box.getBoundingClientRect().width < 30])",
    );
    assert_eq!(boxes, json!([["checkbox", true, true], ["checkbox", false, true]]));
    let aligned = app.script(
        "return [...document.querySelectorAll('.body th')].slice(0, 3).map((cell) => getComputedStyle(cell).textAlign)",
    );
    assert_eq!(aligned, json!(["left", "center", "right"]));
    // A wide table scrolls, and breaks no word.
    let cells = "const table = document.querySelector('.body table');
        const cell = [...table.querySelectorAll('td')].find((cell) => cell.innerText.startsWith('Pneumono'));
        const range = document.createRange();
        range.selectNodeContents(cell);
        return [new Set([...range.getClientRects()].map(({ top }) => Math.round(top))).size, getComputedStyle(cell).overflowWrap]";
    xdotool(&app, &["windowsize", "--sync", &window(&app), "420", "600"]);
    patiently("the window is narrow", || app.script("return innerWidth") == 420);
    assert_eq!(app.script(cells), json!([1, "normal"]), "a word is on one line");
    let scrolls = "const table = document.querySelector('.body .table');
        return [table.scrollWidth > table.clientWidth + 20, getComputedStyle(table).overflowX]";
    assert_eq!(app.script(scrolls), json!([true, "auto"]));
    xdotool(&app, &["windowsize", "--sync", &window(&app), "1000", "700"]);
    let written = app.text(".body");
    assert!(!written.contains("\\(") && !written.contains("$$") && !written.contains("\\,"), "{written}");
    // A rule is a hairline, and a question and its answer belong together.
    let rule = "const style = getComputedStyle(document.querySelector('.body hr'));
        return style.borderTopColor === getComputedStyle(document.querySelector('header')).borderBottomColor";
    assert_eq!(app.script(rule), true);
    let hole = app.script(
        "const [question, answer] = document.querySelectorAll('[data-message]');
        return answer.querySelector('.body').getBoundingClientRect().top - question.querySelector('.text').getBoundingClientRect().bottom",
    );
    assert!(hole.as_f64().unwrap() <= 36.0, "{hole} pixels between a question and its answer");

    // The broken model is named with what is wrong, and offered nowhere.
    let offered =
        app.script("return [...document.querySelectorAll('header select option')].map((option) => option.textContent)");
    assert!(!offered.to_string().contains("broken"), "{offered}");
    app.click("Models");
    let models = || app.text(".models");
    patiently_or(models, || models().contains("broken"));
    assert!(!app.text(".models").contains(home.path().to_str().unwrap()), "{}", app.text(".models"));

    // Memory that is not shared is not called given.
    app.show_popover();
    let memory = || app.text("section[aria-label='Memory on this machine']");
    patiently_or(memory, || memory().contains("Would share up to"));
    let colour = app.script(
        "return getComputedStyle(document.querySelector('.track .given')).backgroundColor
            === getComputedStyle(document.querySelector('button.main')).backgroundColor",
    );
    assert_eq!(colour, false, "off looks off");
    app.show_main();

    // An invitation gets into the clipboard by one click, and says so.
    app.click("Machines");
    click(&app, "Copy invitation");
    patiently("it says so", || app.script("return document.querySelector('#marked')?.innerText") == "Copied");
    to(&app, ".side form input");
    xdotool(&app, &["click", "1"]);
    press(&app, "ctrl+v");
    let pasted = || app.script("return document.querySelector('.side form input').value");
    patiently_or(|| pasted().to_string(), || pasted().as_str().is_some_and(|text| text.starts_with("hivemind")));
    app.quit();
}
