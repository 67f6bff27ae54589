//! The app in a real window, with real nodes.
//!
//! `HIVEMIND_SCREENS=docs/screens` keeps pictures of what it shows.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

#[path = "app/driver.rs"]
mod driver;
#[path = "app/notices.rs"]
mod notices;
#[path = "app/releases.rs"]
mod releases;

use std::process::Stdio;

use driver::{App, Desktop, Ends, Look, hivemind, patiently, settle};
use notices::Notices;
use releases::Releases;
use serde_json::json;

const QUESTION: &str = "What is the capital of France?";
const LONG: &str = "Count to one thousand.";

/// The words under an answer, which come with its end.
fn note(app: &App, which: usize) -> String {
    let body = "return [...document.querySelectorAll('li footer .numbers')][arguments[0]]?.innerText ?? ''";
    app.script_with(body, &json!([which])).as_str().unwrap_or_default().to_owned()
}

/// The most certain words, so that an answer is what the model would say.
fn surely(app: &App) {
    app.click("Instructions and sampling");
    let body = "const range = document.querySelector('.panel input');
        range.value = 0;
        range.dispatchEvent(new Event('input', { bubbles: true }));";
    app.script(body);
    app.click("Instructions and sampling");
}

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

    // Stopped in the middle, what came stands, and is gone on with.
    app.click("New chat");
    app.ask(LONG);
    patiently("it grows", || app.script("return document.querySelector('.body')?.innerText.length > 20") == true);
    app.picture("answering");
    app.click("Stop");
    patiently("it can be gone on with", || {
        app.script(
            "return [...document.querySelectorAll('li button')].some((button) => button.innerText === 'Continue')",
        ) == true
    });
    let body = "return document.querySelector('.body')?.innerText ?? ''";
    let stopped = app.script(body).as_str().unwrap().to_owned();
    app.click("Continue");
    patiently("it goes on", || {
        let now = app.script(body).as_str().unwrap().to_owned();
        assert!(now.starts_with(stopped.trim_end()), "{now} does not go on from {stopped}");
        now.len() > stopped.len() + 20
    });
    app.click("Stop");
    patiently("it has stopped", || app.text(".field button") == "Send");

    // A question that is found again after a restart, by a word of its answer.
    let desktop = app.quit();
    let app = App::start(desktop.looking(Look::Dark), &folder);
    let search = "const field = document.querySelector('input[type=search]');
        field.value = arguments[0];
        field.dispatchEvent(new Event('input', { bubbles: true }));";
    app.script_with(search, &json!(["zebra"]));
    patiently("nothing fits", || app.text(".list").contains("No conversation"));
    app.script_with(search, &json!(["paris"]));
    patiently("it is found", || app.text(".list").contains(QUESTION));
    app.click(QUESTION);
    patiently("it is all there", || app.text(".body").contains("Paris"));
    app.picture("chat");
    app.click(&format!("Delete {QUESTION}"));
    patiently("it is gone", || !app.text(".list").contains(QUESTION));
    app.script_with(search, &json!([""]));
    app.click(LONG);
    patiently("what was stopped is there", || app.text(".body").starts_with(stopped.trim_end()));
    app.click("Continue");
    patiently("it goes on", || app.text(".field button") == "Stop");
    app.picture("answering");
    app.quit();
}

#[test]
fn a_node_that_cannot_start_says_why_in_a_window() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("config.toml"), "shaer = true\n").unwrap();
    let app = App::open(Desktop::new(Look::Light), home.path());
    patiently("it says why", || app.text("main").contains("unknown field `shaer`"));
}

/// Keeps a conversation as the app does.
fn keep(app: &App, id: &str, title: &str, messages: &serde_json::Value) {
    let keep = "const conversation = { id: arguments[0], title: arguments[1], system: '', draft: '',
            updated_s: Date.now() / 1000, messages: arguments[2] };
        window.__TAURI_INTERNALS__.invoke('keep_conversation', { conversation });";
    app.script_with(keep, &json!([id, title, messages]));
}

fn said(role: &str, text: &str) -> serde_json::Value {
    json!({ "role": role, "text": text, "tokens": [], "seed": 1, "note": null, "complete": true })
}

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
        patiently("it says why", || app.text(".problem").contains("reads at most"));
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
fn a_newer_version_is_found_checked_and_installed() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let installed = home.path().join("installed");
    std::fs::write(&installed, "\x7fELF old").unwrap();
    let releases = Releases::new();
    let app_file = |what: &str| [b"\x7fELF", what.as_bytes(), &[0; 64]].concat();
    let (new, evil) = (app_file("new"), app_file("evil"));
    let (url, key) = (releases.url(), releases.key());
    let over = installed.to_str().unwrap();
    let environment =
        [("HIVEMIND_UPDATE_URL", url.as_str()), ("HIVEMIND_UPDATE_KEY", &key), ("HIVEMIND_UPDATE_OVER", over)];
    let app = App::open_with(Desktop::new(Look::Light), home.path(), &environment);
    patiently("the window", || app.script("return document.querySelector('nav') !== null") == true);
    let said = || app.text("[aria-label=Updates]");
    let tray = app.tray();
    tray.click("Settings…");
    // Nothing is there.
    tray.click("Check for Updates…");
    patiently("why it did not work", || said().contains("no newer version could be looked for"));
    // The version that runs is the newest.
    releases.offer("0.0.1", b"", b"");
    app.click("Check for Updates");
    patiently("it is the newest", || said().contains("This is the newest version."));
    // One that somebody else has tampered with is not installed.
    releases.offer("9.9.9", &evil, &new);
    tray.click("Check for Updates…");
    patiently("it is found", || said().contains("Version 9.9.9 is there.") && said().contains("Faster."));
    app.picture("update");
    tray.click("Update to 9.9.9…");
    patiently("it is refused", || said().contains("9.9.9 was not installed"));
    assert_eq!(std::fs::read(&installed).unwrap(), b"\x7fELF old");
    // The publisher's is.
    releases.offer("9.9.9", &new, &new);
    app.click("Check for Updates");
    patiently("it is found", || said().contains("Version 9.9.9 is there."));
    app.click("Install");
    patiently("it runs after a restart", || said().contains("runs after a restart"));
    assert_eq!(std::fs::read(&installed).unwrap(), new);
    app.quit();
}

#[test]
fn a_notification_tells_of_a_request_and_leads_to_the_popover() {
    let home = tempfile::tempdir().unwrap();
    let (studio, attic) = (home.path().join("studio"), home.path().join("attic"));
    settle(&studio, "Studio");
    settle(&attic, "Attic");
    let desktop = Desktop::new(Look::Light);
    let notices = Notices::on(&desktop.bus);
    let app = App::start(desktop, &studio);
    let mut node = hivemind(&attic, &["node"]);
    let _other = Ends(node.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    patiently("the other node answers", || hivemind(&attic, &["status"]).output().unwrap().status.success());
    let invited = hivemind(&studio, &["invite", "--json"]).output().unwrap().stdout;
    let invitation: serde_json::Value = serde_json::from_slice(&invited).unwrap();
    let join = || hivemind(&attic, &["join", invitation["ticket"].as_str().unwrap(), "--json"]).output().unwrap();

    // Asked once, when it is first useful; until then nothing is shown.
    app.click("Machines");
    let asked: serde_json::Value = serde_json::from_slice(&join().stdout).unwrap();
    patiently("the request", || app.text("article").contains("Attic wants to join"));
    app.click("Yes");
    patiently("it is remembered", || {
        std::fs::read_to_string(studio.join("config.toml")).unwrap().contains("notify = true")
    });
    assert_eq!(notices.shown(), []);
    app.click("Deny");
    patiently("it is gone", || !app.text(".picture").contains("wants to join"));

    app.hide();
    let deny = |data: &std::path::Path, who: &str| {
        let mut deny = hivemind(data, &["deny", who]);
        let _ = deny.stdout(Stdio::null()).stderr(Stdio::null()).status();
    };
    deny(&attic, asked["id"].as_str().unwrap());
    let invited = hivemind(&studio, &["invite", "--json"]).output().unwrap().stdout;
    let invitation: serde_json::Value = serde_json::from_slice(&invited).unwrap();
    let again = hivemind(&attic, &["join", invitation["ticket"].as_str().unwrap(), "--json"]).output().unwrap();
    let again: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    patiently("the notification", || notices.shown().len() == 1);
    let (title, text) = notices.shown().remove(0);
    assert_eq!(title, "Attic wants to join");
    assert!(text.contains(again["code"].as_str().unwrap()), "{text}");
    notices.click();
    patiently("the popover", || app.windows_seen() == 1);
    patiently("Escape closes it", || {
        app.press("Escape");
        app.windows_seen() == 0
    });
    app.quit();
}

#[test]
fn what_a_model_says_does_nothing() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let app = App::start(Desktop::new(Look::Light), home.path());
    let evil = "<script>window.evil = 1</script><img src=x onerror='window.evil = 1'> [link](javascript:window.evil=1) \
                ![picture](https://example.invalid/x.png) <svg onload='window.evil=1'></svg>";
    let keep = "const conversation = { id: 'evil', title: 'Evil', system: '', draft: '', updated_s: Date.now() / 1000,
            messages: [{ role: 'assistant', text: arguments[0], tokens: [], seed: 1, note: null, complete: true }] };
        window.__TAURI_INTERNALS__.invoke('keep_conversation', { conversation });";
    app.script_with(keep, &json!([evil]));
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

#[test]
fn the_tray_the_window_and_the_command_line_have_one_switch() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let app = App::start(Desktop::new(Look::Light), home.path());
    let tray = app.tray();
    tray.click("Settings…");
    let on = "return document.querySelector('[role=switch]')?.getAttribute('aria-checked') === 'true'";
    // Nothing is shared before its owner says so.
    patiently("off everywhere", || app.script(on) == false && tray.is_on("Share Compute") == Some(false));
    assert_eq!(app.status()["profile"]["not_sharing"], "sharing is switched off");
    tray.click("Share Compute");
    patiently("on everywhere", || app.script(on) == true && tray.is_on("Share Compute") == Some(true));
    assert_eq!(app.status()["profile"]["sharing"], true);
    app.click("Share compute");
    patiently("off again", || app.script(on) == false && tray.is_on("Share Compute") == Some(false));
    assert!(hivemind(home.path(), &["share", "on"]).stdout(Stdio::null()).status().unwrap().success());
    patiently("on by the command line", || app.script(on) == true && tray.is_on("Share Compute") == Some(true));
    tray.click("Pause for an Hour");
    patiently("paused", || {
        app.status()["profile"]["not_sharing"].as_str().is_some_and(|why| why.starts_with("paused for"))
    });
    tray.click("End the Pause");
    patiently("it shares", || app.status()["profile"]["sharing"] == true);
    app.quit();
}

#[test]
fn a_machine_is_let_in_by_its_code_takes_layers_and_leaves_without_a_word_lost() {
    let home = tempfile::tempdir().unwrap();
    let (studio, attic) = (home.path().join("studio"), home.path().join("attic"));
    settle(&studio, "Studio");
    settle(&attic, "Attic");
    let app = App::start(Desktop::new(Look::Light), &studio);
    let quiet = || Stdio::null();
    let mut other = Ends(hivemind(&attic, &["node"]).stdout(quiet()).stderr(quiet()).spawn().unwrap());
    let answers = |arguments: &[&str]| hivemind(&attic, arguments).stderr(quiet()).output().unwrap();
    patiently("the other node answers", || answers(&["status"]).status.success());
    let invitation = hivemind(&studio, &["invite", "--json"]).output().unwrap().stdout;
    let invitation: serde_json::Value = serde_json::from_slice(&invitation).unwrap();
    let asked: serde_json::Value =
        serde_json::from_slice(&answers(&["join", invitation["ticket"].as_str().unwrap(), "--json"]).stdout).unwrap();
    let code = asked["code"].as_str().unwrap();

    // Both show the same code, and both owners approve.
    app.click("Share compute");
    app.show_popover();
    patiently("the request", || app.text("article").contains("Attic wants to join"));
    assert!(app.text("article .code").replace(' ', "") == code.replace(' ', ""), "{}", app.text("article"));
    app.picture_of_popover("request");
    let mut approval =
        hivemind(&attic, &["approve", asked["id"].as_str().unwrap(), "--code", code]).stdout(quiet()).spawn().unwrap();
    app.click("Approve");
    patiently("both are in", || app.text("main").contains("2 machines"));
    assert!(approval.wait().unwrap().success());

    // Less memory here than the model needs: layers move to where there is room.
    let slide = "const range = document.querySelector('input[type=range]');
        range.value = arguments[0];
        range.dispatchEvent(new Event('input', { bubbles: true }));
        range.dispatchEvent(new Event('change', { bubbles: true }));";
    app.script_with(slide, &json!([256 << 20]));
    patiently("the cap holds", || app.status()["profile"]["cap_bytes"] == 256 << 20);
    patiently("the popover says so", || app.text("main section header").contains("268 MB of"));
    app.picture_of_popover("popover");
    app.show_main();
    surely(&app);
    app.ask(QUESTION);
    patiently("an answer by both or the other", || note(&app, 0).contains("Attic"));
    assert!(app.text(".body").contains("Paris"), "{}", app.text(".body"));
    app.click("Machines");
    let ring = "return document.querySelector('.picture svg').textContent.includes('Attic')";
    patiently("the ring", || app.text(".picture").contains("2 machines") && app.script(ring) == true);
    app.picture("machines");

    // Quit and opened again, in the dark: both are here, and answer as before.
    let desktop = app.quit();
    let app = App::start(desktop.looking(Look::Dark), &studio);
    app.show_popover();
    patiently("both are here again", || app.text("main").contains("2 machines"));
    app.picture_of_popover("popover");
    app.show_main();
    surely(&app);
    app.ask(QUESTION);
    patiently("an answer by both or the other", || note(&app, 0).contains("Attic"));
    app.click("Machines");
    patiently("the ring", || app.text(".picture").contains("2 machines") && app.script(ring) == true);
    app.picture("machines");

    // It is gone in the middle of a sentence; the words go on.
    assert!(hivemind(&studio, &["share", "--memory", "100GB"]).stdout(quiet()).status().unwrap().success());
    app.click("Chat");
    app.click("New chat");
    app.ask(LONG);
    let length = "return document.querySelector('.body')?.innerText.length ?? 0";
    patiently("it grows", || app.script(length).as_u64() > Some(20));
    let _ = other.0.kill();
    let before = app.script(length).as_u64();
    patiently("it goes on", || app.script(length).as_u64() > before.map(|before| before + 100));
    app.click("Stop");
    patiently("nothing broke off", || app.text(".field button") == "Send");
    assert_eq!(app.text(".problem"), "");

    // It comes back by itself, and is out at once when its owner's approval is taken back.
    let _again = Ends(hivemind(&attic, &["node"]).stdout(quiet()).stderr(quiet()).spawn().unwrap());
    app.click("Machines");
    patiently("it is back", || app.text(".picture").contains("2 machines"));
    app.script(
        "document.querySelector('[aria-label^=\"Attic\"]').dispatchEvent(new MouseEvent('click', { bubbles: true }))",
    );
    app.click("Remove");
    patiently("it is out here", || !app.text(".picture").contains("2 machines"));
    let peers = || String::from_utf8(answers(&["peers", "--json"]).stdout).unwrap();
    patiently("it is out there", || peers().contains("has not approved this machine"));
    app.quit();
}

/// Twelve machines, as a picture; run it by name with `--ignored` and `HIVEMIND_SCREENS`.
#[test]
#[ignore = "it takes a picture, and judges nothing"]
fn twelve_machines() {
    const NAMES: [&str; 11] = [
        "Attic",
        "Kitchen Mac mini",
        "MacBook Pro (Anna)",
        "Rack 1",
        "Rack 2",
        "Garage",
        "Living Room",
        "Old iMac",
        "Workshop with a rather long name",
        "Guest",
        "Lab",
    ];
    let home = tempfile::tempdir().unwrap();
    let studio = home.path().join("studio");
    settle(&studio, "Studio");
    let app = App::start(Desktop::new(Look::Light), &studio);
    let quiet = || Stdio::null();
    let mut others = Vec::new();
    for name in NAMES {
        let folder = home.path().join(name);
        settle(&folder, name);
        others.push(Ends(hivemind(&folder, &["node"]).stdout(quiet()).stderr(quiet()).spawn().unwrap()));
        let answers = |arguments: &[&str]| hivemind(&folder, arguments).stderr(quiet()).output().unwrap();
        patiently("the other node answers", || answers(&["status"]).status.success());
        let invitation = hivemind(&studio, &["invite", "--json"]).output().unwrap().stdout;
        let invitation: serde_json::Value = serde_json::from_slice(&invitation).unwrap();
        let asked = answers(&["join", invitation["ticket"].as_str().unwrap(), "--json"]).stdout;
        let asked: serde_json::Value = serde_json::from_slice(&asked).unwrap();
        let (who, code) = (asked["id"].as_str().unwrap(), asked["code"].as_str().unwrap());
        let mut approval = hivemind(&folder, &["approve", who, "--code", code]).stdout(quiet()).spawn().unwrap();
        let approve = ["approve", name, "--code", code];
        patiently("it is approved", || {
            hivemind(&studio, &approve).stdout(quiet()).stderr(quiet()).status().unwrap().success()
        });
        approval.wait().unwrap();
    }
    let mut app = app;
    for look in [Look::Light, Look::Dark] {
        let desktop = app.quit();
        app = App::start(desktop.looking(look), &studio);
        app.click("Machines");
        let drawn = "return document.querySelectorAll('.picture svg g:not(.away)').length";
        // This machine does not share, and is drawn as one that does not.
        patiently("all are here", || app.script(drawn) == 11);
        app.picture("twelve");
        app.show_popover();
        app.picture_of_popover("twelve-popover");
        app.show_main();
    }
    app.quit();
}

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
fn figures() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let (desktop, began) = (Desktop::new(Look::Light), std::time::Instant::now());
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
        std::thread::sleep(std::time::Duration::from_secs(1));
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
        let before = std::time::Instant::now();
        tray.click("Share Compute");
        while app.script(on) != (round % 2 == 0) {}
        switched.push(before.elapsed().as_millis());
    }
    println!("switched in the tray, seen in the window after, ms: {switched:?}");
    app.hide();
    let mut shown = Vec::new();
    for _ in 0..10 {
        let before = std::time::Instant::now();
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
