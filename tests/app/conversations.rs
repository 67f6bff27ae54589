//! What a person does with conversations.

use serde_json::json;

use crate::driver::{App, Desktop, Look, patiently, settle};
use crate::steps::{ask_at_length, keep, note, said, surely};
use crate::{LONG, QUESTION};

#[test]
fn a_person_asks_stops_goes_on_and_finds_everything_again() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("studio");
    settle(&folder, "Studio");
    for look in [Look::Light, Look::Dark] {
        let app = App::start(Desktop::new(look), &folder);
        app.picture("empty");
        for page in ["Machines", "Models", "Settings"] {
            app.click(page);
            app.picture(&format!("alone-{}", page.to_lowercase()));
        }
        app.quit();
    }
    let app = App::start(Desktop::new(Look::Light), &folder);
    surely(&app);
    app.ask(QUESTION);
    patiently("an answer", || !note(&app, 0).is_empty());
    assert!(app.text(".body").contains("Paris"), "{}", app.text(".body"));
    assert!(note(&app, 0).contains("Studio"));
    app.picture("chat");

    // Stopped in the middle, the answer keeps its text, and can be continued.
    ask_at_length(&app);
    patiently("it grows", || app.script("return document.querySelector('.body')?.innerText.length > 20") == true);
    app.picture("answering");
    app.click("Stop");
    patiently("it can be continued", || {
        app.script(
            "return [...document.querySelectorAll('li button')].some((button) => button.innerText === 'Continue')",
        ) == true
    });
    let body = "return document.querySelector('.body')?.innerText ?? ''";
    let stopped = app.script(body).as_str().unwrap().to_owned();
    app.click("Continue");
    patiently("it continues", || {
        let now = app.script(body).as_str().unwrap().to_owned();
        assert!(now.starts_with(stopped.trim_end()), "{now} does not continue {stopped}");
        now.len() > stopped.len() + 20
    });
    app.click("Stop");
    patiently("it has stopped", || app.text(".field button") == "Send");

    // A question that is being changed is still there after a restart, as far as it was changed.
    app.script("[...document.querySelectorAll('li.own')].at(-1).querySelector('[data-edit]').click()");
    patiently("it can be changed", || app.script("return document.querySelector('.edited textarea') !== null") == true);
    let change = "const field = document.querySelector('.edited textarea');
        field.value = arguments[0];
        field.dispatchEvent(new Event('input', { bubbles: true }));";
    app.script_with(change, &json!([CHANGED]));

    // A question that is found again after a restart, by a word of its answer.
    let desktop = app.quit();
    let app = App::start(desktop.looking(Look::Dark), &folder);
    let search = "const field = document.querySelector('input[type=search]');
        field.value = arguments[0];
        field.dispatchEvent(new Event('input', { bubbles: true }));";
    app.script_with(search, &json!(["zebra"]));
    patiently("nothing fits", || app.text(".list").contains("No matches"));
    app.script_with(search, &json!(["paris"]));
    patiently("it is found", || app.text(".list").contains(QUESTION));
    app.click(QUESTION);
    patiently("it is all there", || app.text(".body").contains("Paris"));
    patiently("the word is marked", || {
        app.script("return !('highlights' in CSS) || [...CSS.highlights.get('sought') ?? []].join() === 'Paris'")
            == true
    });
    app.picture("chat");
    app.click(&format!("Delete {QUESTION}"));
    patiently("it is gone", || !app.text(".list").contains(QUESTION));
    app.script_with(search, &json!([""]));
    app.click(LONG);
    patiently("what was stopped is there", || app.text(".body").starts_with(stopped.trim_end()));
    let changed = app.script("return document.querySelector('.edited textarea')?.value");
    assert_eq!(changed, CHANGED, "the changed question is lost");
    app.click("Continue");
    patiently("it continues", || app.text(".field button") == "Stop");
    app.picture("answering");
    app.quit();
}

const CHANGED: &str = "A question that is not sent yet";

const CODE: &str = "Here is a function, and what it costs.\n\n```python\ndef mean(values: list[float]) -> float:\n    \
    \"\"\"The arithmetic mean of some numbers.\"\"\"\n    if not values:\n        raise ValueError(\"no numbers\")  # nothing to divide by\n    \
    return sum(values) / len(values)\n```\n\n| numbers | time | memory |\n|---|---|---|\n| 1,000 | 12 µs | 8 kB |\n| 1,000,000 | 11 ms | 8 MB |\n\n\
    > It reads every number once.\n\n1. **First** the sum\n2. then the *division*";

#[test]
fn code_long_words_and_errors_are_shown_as_they_should_be() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let mut desktop = Desktop::new(Look::Light);
    for look in [Look::Light, Look::Dark] {
        desktop = desktop.looking(look);
        let app = App::start(desktop, home.path());
        let long = "Pneumonoultramicroscopicsilicovolcanoconiosis".repeat(8);
        keep(
            &app,
            "code",
            "A function for the arithmetic mean",
            &json!([said("user", "Write a mean."), said("assistant", CODE)]),
        );
        keep(&app, "long", &long, &json!([said("user", &long), said("assistant", &format!("{long}\n\n`{long}`"))]));
        app.show_main();
        app.click("A function for the arithmetic mean");
        patiently("the code has colours", || {
            app.script("return document.querySelectorAll('.body .hljs-keyword').length > 2") == true
        });
        assert_eq!(app.text(".body pre").lines().count(), 5);
        app.picture("code");
        app.click(&long);
        patiently("it is shown", || app.text(".body").starts_with("Pneumono"));
        // However long a word is, nothing is pushed off the side.
        let wide = "return [...document.querySelectorAll('.chat, .messages, aside, header')].filter(
            (part) => part.scrollWidth > part.clientWidth + 1).map((part) => part.className || part.tagName)";
        assert_eq!(app.script(wide), json!([]));
        app.picture("long");
        // More than the model reads: what happened, and nothing is lost.
        app.click("New chat");
        app.ask(&"word ".repeat(12_000));
        patiently("it says why", || app.text(".problem").contains("too long"));
        app.picture("error");
        desktop = app.quit();
    }
}

#[test]
fn an_exported_conversation_lies_among_the_downloads() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let downloads = home.path().join("downloads");
    std::fs::create_dir_all(&downloads).unwrap();
    std::fs::create_dir_all(home.path().join("XDG_CONFIG_HOME")).unwrap();
    let dirs = format!("XDG_DOWNLOAD_DIR=\"{}\"\n", downloads.display());
    std::fs::write(home.path().join("XDG_CONFIG_HOME/user-dirs.dirs"), dirs).unwrap();
    let app = App::start(Desktop::new(Look::Light), home.path());
    keep(&app, "lisbon", "Lisbon", &json!([said("user", "Plan a week."), said("assistant", "Go by tram.")]));
    app.show_main();
    app.click("Lisbon");
    patiently("it is open", || app.text(".body").contains("tram"));
    app.click("Export");
    patiently("it says where", || app.text(".news").contains("Lisbon.md"));
    let written = std::fs::read_to_string(downloads.join("Lisbon.md")).unwrap();
    assert_eq!(written, "# Lisbon\n\n## You\n\nPlan a week.\n\n## Answer\n\nGo by tram.\n");
    app.quit();
}

#[test]
fn what_a_model_says_does_nothing() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let app = App::start(Desktop::new(Look::Light), home.path());
    let evil = "<script>window.evil = 1</script><img src=x onerror='window.evil = 1'> [link](javascript:window.evil=1) \
                ![picture](https://example.invalid/x.png) <svg onload='window.evil=1'></svg>";
    keep(&app, "evil", "Evil", &json!([said("assistant", evil)]));
    app.show_main();
    app.click("Evil");
    patiently("it is shown", || app.text(".body").contains("picture"));
    app.script("for (const link of document.querySelectorAll('.body a')) link.click()");
    let left = app.script(
        "return [typeof window.evil, location.pathname, document.querySelectorAll('.body img, .body script, .body svg').length,
            [...document.querySelectorAll('.body a')].filter((link) => link.href.startsWith('javascript')).length]",
    );
    assert_eq!(left, json!(["undefined", "/index.html", 0, 0]));
    // Nothing of Tauri's own can be called from the page.
    let refused = app.script(
        "window.refused = 'pending';
        window.__TAURI_INTERNALS__.invoke('plugin:window|destroy').then(() => (window.refused = 'done'), (why) => (window.refused = String(why)))",
    );
    assert_eq!(refused, serde_json::Value::Null);
    patiently("it is refused", || {
        app.script("return window.refused").as_str().is_some_and(|text| text.contains("not allowed"))
    });
    app.quit();
}
