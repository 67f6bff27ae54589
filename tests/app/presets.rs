//! Presets and prompts: kept over a restart, applied to a chat, and inserted at a slash.

use serde_json::{Value, json};

use crate::driver::{App, Desktop, Look, patiently, patiently_or, settle};

/// Types into a field, as a person does.
fn fill(app: &App, selector: &str, text: &str) {
    let body = "const field = document.querySelector(arguments[0]);
        field.focus();
        field.value = arguments[1];
        field.dispatchEvent(new Event('input', { bubbles: true }));";
    app.script_with(body, &json!([selector, text]));
}

/// Presses a key where the focus is; whether the page left it to the field.
fn press(app: &App, key: &str) -> bool {
    let body = "return document.activeElement.dispatchEvent(
            new KeyboardEvent('keydown', { key: arguments[0], bubbles: true, cancelable: true }))";
    app.script_with(body, &json!([key])) == true
}

fn value(app: &App, selector: &str) -> Value {
    app.script_with("return document.querySelector(arguments[0])?.value", &json!([selector]))
}

/// The presets that can be chosen.
fn offered(app: &App) -> String {
    let body = "return [...document.querySelectorAll('.presets option')].map((option) => option.textContent).join()";
    app.script(body).as_str().unwrap_or_default().to_owned()
}

const INSTRUCTIONS: &str = ".panel textarea";
const PRESETS: &str = ".presets select";
const FIND: &str = ".prompts input";

#[test]
fn a_preset_survives_a_restart_and_a_prompt_comes_at_a_slash() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("studio");
    settle(&folder, "Studio");
    let app = App::start(Desktop::new(Look::Light), &folder);
    patiently("a chat is open", || app.script("return document.querySelector('.field textarea') !== null") == true);
    app.click("Instructions and sampling");
    fill(&app, INSTRUCTIONS, "You are a poet.");
    fill(&app, ".panel input[type=range]", "0.9");
    app.click("Save as preset…");
    fill(&app, ".presets input", "Poet");
    app.click("Save");
    patiently_or(|| app.text("section"), || offered(&app).contains("Poet"));
    app.click("Use for new chats");
    patiently_or(|| app.text(".presets"), || app.text(".presets").contains("Used for new chats"));
    app.picture("preset");

    let app = App::start(app.quit(), &folder);
    patiently("a chat is open", || app.script("return document.querySelector('.field textarea') !== null") == true);
    app.click("Instructions and sampling");
    patiently_or(|| app.text("section"), || offered(&app).contains("Poet"));
    // Something else, and then the preset again.
    fill(&app, INSTRUCTIONS, "You are a judge.");
    fill(&app, ".panel input[type=range]", "0.1");
    let apply = "const select = document.querySelector(arguments[0]);
        select.value = [...select.options].find((option) => option.text.startsWith('Poet')).value;
        select.dispatchEvent(new Event('change', { bubbles: true }));";
    app.script_with(apply, &json!([PRESETS]));
    patiently("it is applied", || value(&app, INSTRUCTIONS) == "You are a poet.");
    assert_eq!(value(&app, ".panel input[type=range]"), "0.9");
    app.click("Instructions and sampling");

    // What comes with HiveMind, at a slash.
    app.script("document.querySelector('.field textarea').focus()");
    assert!(!press(&app, "/"), "the slash opens the list");
    patiently("four prompts", || app.script("return document.querySelectorAll('.prompts [role=option]').length") == 4);
    app.picture("prompts");
    fill(&app, FIND, "transl");
    patiently("one is found", || app.script("return document.querySelectorAll('.prompts [role=option]').length") == 1);
    press(&app, "Enter");
    patiently("its fields are asked for", || app.text("dialog[open]").contains("language"));
    fill(&app, "dialog[open] label:nth-of-type(1) textarea", "French");
    fill(&app, "dialog[open] label:nth-of-type(2) textarea", "Good morning");
    app.picture("prompt-fields");
    app.click("Insert");
    let question = || value(&app, ".field textarea");
    patiently_or(
        || question().to_string(),
        || question().as_str().is_some_and(|text| text.contains("into French") && text.ends_with("Good morning")),
    );
    // Deleted for good, once Undo is not taken.
    fill(&app, ".field textarea", "");
    press(&app, "/");
    app.click("Delete “Explain simply”");
    patiently("it can be undone", || app.text(".news").contains("Deleted the prompt “Explain simply”"));
    let app = App::start(app.quit(), &folder);
    patiently("a chat is open", || app.script("return document.querySelector('.field textarea') !== null") == true);
    // Opened again, should the page have closed it while it was still loading.
    let opened = "const list = document.querySelector('.prompts');
        if (!list) document.querySelector('button[aria-label=\"Insert a prompt (/)\"]')?.click();
        return list?.querySelectorAll('[role=option]').length ?? 0";
    patiently("three prompts", || app.script(opened) == 3);
    app.quit();
}
