//! The app in German: every view in a small and in the smallest window, with no text cut.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::driver::{App, Desktop, Look, patiently, patiently_or, settle};

/// What stands on the rail, and the name of its picture.
const VIEWS: [(&str, &str); 4] =
    [("Chat", "chat"), ("Rechner", "machines"), ("Modelle", "models"), ("Einstellungen", "settings")];

/// Buttons, labels and headings whose text has no room, or that stand out of the window to a side. Names of people's own
/// end in an ellipsis by design.
const CUT: &str = "
    const parts = document.querySelectorAll('button, label, h1, h2, h3, nav span, select, .row > span, .hint, .quiet, th');
    const page = document.scrollingElement;
    const over = page.scrollHeight > innerHeight + 1 ? [`the page is ${page.scrollHeight} high`] : [];
    const cut = [...parts].filter((part) => {
        const box = part.getBoundingClientRect();
        if (box.width <= 2 || part.closest('.unseen, .skip') || (part.closest('.cut') && !part.closest('nav'))) return false;
        const inline = getComputedStyle(part).display === 'inline';
        const narrow = !inline && part.clientWidth > 0 && part.scrollWidth > part.clientWidth + 1;
        return narrow || box.left < -1 || box.right > innerWidth + 1;
    }).map((part) => `${part.tagName} ${part.innerText || part.ariaLabel}: ${part.scrollWidth} of ${part.clientWidth}`);
    return [...over, ...cut]";

/// A page has drawn itself after this time.
const REST: Duration = Duration::from_millis(300);

fn resize(app: &App, wide: u64, high: u64) {
    let xdotool = |arguments: &[&str]| {
        let mut hand = Command::new("xdotool");
        hand.args(arguments).env("DISPLAY", &app.desktop.display);
        let done = hand.stderr(Stdio::null()).output().expect("xdotool is installed");
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    };
    let window = xdotool(&["search", "--onlyvisible", "--name", "^HiveMind$"]);
    let window = window.lines().next().expect("the window is on the screen");
    xdotool(&["windowsize", "--sync", window, &wide.to_string(), &high.to_string()]);
    patiently("the window has its size", || app.script("return innerWidth") == wide);
}

/// What is cut, once what moves or loads has come to rest.
fn cut(app: &App, place: &str) -> Option<String> {
    std::thread::sleep(REST);
    app.picture(&format!("german-{place}"));
    let cut = app.script(CUT);
    (cut != json!([])).then(|| format!("{place}: {cut}"))
}

fn language(app: &App) -> Value {
    app.script("return document.documentElement.lang")
}

#[test]
fn every_view_fits_in_german_and_the_language_changes_at_once() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let file = home.path().join("config.toml");
    let settings = || std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{}language = \"de\"\n", settings())).unwrap();
    let app = App::start(Desktop::new(Look::Light), home.path());
    assert_eq!(language(&app), "de");
    let entries: Vec<String> = app.tray().entries().into_iter().map(|(_, text, _)| text).collect();
    for entry in ["Rechenleistung freigeben", "Rechner", "Einstellungen …", "HiveMind beenden"] {
        assert!(entries.iter().any(|found| found == entry), "{entry} is not among {entries:?}");
    }
    let mut faults = Vec::new();
    for (wide, high) in [(720, 480), (320, 480), (1000, 700)] {
        resize(&app, wide, high);
        for (name, place) in VIEWS {
            app.click(name);
            faults.extend(cut(&app, &format!("{place}-{wide}")));
        }
    }
    app.click("Chat");
    app.click("Anweisungen und Sampling");
    resize(&app, 320, 480);
    faults.extend(cut(&app, "panel-320"));
    resize(&app, 720, 480);
    // A question with a short answer in every run, and a question about a reset.
    let body = "const field = document.querySelector('.field textarea');
        field.value = 'What is the capital of France?';
        field.dispatchEvent(new Event('input', { bubbles: true }));";
    app.script(body);
    patiently("it can be sent", || app.script("return !document.querySelector('.field button').disabled") == true);
    app.click("Senden");
    patiently_or(|| app.text(".messages"), || app.text(".messages").contains("erstes Wort: "));
    faults.extend(cut(&app, "answer-720"));
    resize(&app, 320, 480);
    faults.extend(cut(&app, "answer-320"));
    app.click("Einstellungen");
    for part in 1..6 {
        app.script_with("document.querySelector('.settings').scrollTop = 400 * arguments[0]", &json!([part]));
        app.picture(&format!("german-settings-320-{part}"));
    }
    app.click("Zurücksetzen\u{a0}…");
    faults.extend(cut(&app, "reset-320"));
    app.click("Abbrechen");
    app.show_popover();
    resize(&app, 340, 580);
    faults.extend(cut(&app, "popover"));
    app.show_main();
    assert!(faults.is_empty(), "{faults:#?}");

    // The owner changes the language: the window, the menu and the settings follow at once.
    app.click("Einstellungen");
    let choose = "const choice = document.getElementById('language');
        if (!choice) return false;
        choice.value = arguments[0];
        choice.dispatchEvent(new Event('change', { bubbles: true }));
        return true";
    patiently("there is a choice", || app.script_with(choose, &json!(["en"])) == true);
    patiently("the page is English", || app.text(".settings h1") == "Settings" && language(&app) == "en");
    patiently("the menu is English", || app.tray().is_on("Share Compute").is_some());
    assert!(settings().contains("language = \"en\""), "{}", settings());
    // Without a choice, it is the system's language.
    app.script_with(choose, &json!([""]));
    patiently("nothing is chosen", || !settings().contains("language"));
    let app = App::start_with(app.quit(), home.path(), &[("LANGUAGE", "de_AT:en")]);
    patiently("it is the system's", || {
        language(&app) == "de" && app.tray().is_on("Rechenleistung freigeben").is_some()
    });
    app.kill();
}
