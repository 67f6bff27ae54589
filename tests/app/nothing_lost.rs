//! Whatever becomes of the app while it answers, no word is lost.

use std::time::Duration;

use serde_json::json;

use crate::driver::{App, Desktop, Look, patiently, settle};
use crate::steps::{ask_at_length, note, surely};
use crate::{LONG, QUESTION};

/// The answer that is shown.
fn shown(app: &App) -> String {
    app.text(".body").trim_end().to_owned()
}

fn grows_to(app: &App, letters: usize) -> String {
    patiently("it grows", || shown(app).len() >= letters);
    shown(app)
}

fn stop(app: &App) {
    app.click("Stop");
    patiently("it has stopped", || app.text(".field button") == "Send");
}

#[test]
fn two_chats_answer_at_once_and_each_is_whole_for_whoever_returns() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let app = App::start(Desktop::new(Look::Light), home.path());
    ask_at_length(&app);
    let before = grows_to(&app, 40);
    // Another chat is asked and answered meanwhile; the list says that the first one continues.
    app.click("New chat");
    surely(&app);
    app.ask(QUESTION);
    app.picture("two-answers");
    patiently("the second is answered", || !note(&app, 0).is_empty() && app.text(".field button") == "Send");
    assert!(shown(&app).contains("Paris"), "{}", shown(&app));
    let lights = "return [...document.querySelectorAll('.list .light')].map((light) => light.closest('li').innerText)";
    patiently("the first one continues, and the second does not", || {
        let answering = app.script(lights).to_string();
        answering.contains(LONG) && !answering.contains(QUESTION)
    });
    app.click(LONG);
    patiently("it is there", || shown(&app).starts_with(&before));
    let length = shown(&app).len();
    grows_to(&app, length + 40);
    // A letter in the field writes the draft, and nothing else.
    app.script_with(
        "const field = document.querySelector('.field textarea');
        field.value = arguments[0];
        field.dispatchEvent(new Event('input', { bubbles: true }));",
        &json!(["half a thought"]),
    );
    let length = shown(&app).len();
    grows_to(&app, length + 40);
    stop(&app);
    let stopped = shown(&app);
    // Reloaded, as a web view may be at any time.
    app.show_main();
    app.click(LONG);
    patiently("it is there", || shown(&app) == stopped);
    let draft = "return document.querySelector('.field textarea').value";
    patiently("the draft is there", || app.script(draft) == "half a thought");
    app.quit();
}

#[test]
fn an_app_that_is_killed_or_quit_while_it_answers_goes_on_with_the_very_words() {
    /// Letters that are compared.
    const COMPARED: usize = 500;
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let rounds = if std::env::var_os("HIVEMIND_TEST_LONG").is_some() { 50 } else { 2 };
    let mut app = App::start(Desktop::new(Look::Light), home.path());
    ask_at_length(&app);
    let undisturbed: String = grows_to(&app, COMPARED).chars().take(COMPARED).collect();
    stop(&app);
    for round in 0..=rounds {
        ask_at_length(&app);
        let seen = grows_to(&app, 20 + 97 * round % 300);
        // A crash loses the words of a second at most; an app that its owner quits loses none.
        let desktop = if round < rounds {
            std::thread::sleep(Duration::from_millis(1100));
            app.kill()
        } else {
            app.quit()
        };
        app = App::start(desktop, home.path());
        patiently("it is listed", || app.script("return document.querySelector('.list .title') !== null") == true);
        app.script("document.querySelector('.list .title').click()");
        patiently("it can be continued", || {
            app.script(
                "return [...document.querySelectorAll('li button')].some((button) => button.innerText === 'Continue')",
            ) == true
        });
        let kept = shown(&app);
        assert!(kept.starts_with(&seen), "{kept:?} lost something of {seen:?}");
        app.click("Continue");
        let now = grows_to(&app, COMPARED);
        assert_eq!(now.chars().take(COMPARED).collect::<String>(), undisturbed);
        stop(&app);
    }
    app.quit();
}
