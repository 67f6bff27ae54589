//! The settings page: each change acts at once, and what is wrong is said beside its field.

use serde_json::json;

use crate::driver::{App, Desktop, Look, patiently, settle};

/// Types into a field, and leaves it.
fn fill(app: &App, field: &str, text: &str) {
    let body = "const field = document.getElementById(arguments[0]);
        field.focus();
        field.value = arguments[1];
        field.dispatchEvent(new Event('input', { bubbles: true }));
        field.blur();";
    app.script_with(body, &json!([format!("field-{field}"), text]));
}

#[test]
fn settings_act_at_once_and_wrong_ones_are_refused_beside_their_field() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let settings = || std::fs::read_to_string(home.path().join("config.toml")).unwrap();
    let app = App::start(Desktop::new(Look::Light), home.path());
    app.tray().click("Settings…");
    patiently("the fields are there", || app.text(".settings").contains("Memory limit"));
    app.picture("settings");
    for (field, text, said) in [
        ("memory", "0", "To share nothing, turn sharing off."),
        ("memory", "900000", "Enter 100 MB to"),
        ("only_when_idle_minutes", "2.5", "Enter a whole number from 1 to 1,440."),
        ("only_when_idle_minutes", "-3", "Enter a whole number from 1 to 1,440."),
        ("name", &"x".repeat(300), "Use at most 32 characters."),
        ("api", "0.0.0.0:1", "Enter an address of this machine"),
    ] {
        let before = settings();
        fill(&app, field, text);
        let wrong = format!("#wrong-{field}");
        patiently(&format!("{field} = {text}"), || app.text(&wrong).contains(said));
        assert_eq!(settings(), before);
    }
    app.picture("settings-refused");
    // What was typed is still there after another page.
    app.click("Models");
    app.click("Settings");
    let minutes = || app.script("return document.getElementById('field-only_when_idle_minutes')?.value");
    patiently("it is kept", || minutes() == "-3");
    fill(&app, "only_when_idle_minutes", "10");
    patiently("it is saved", || settings().contains("only_when_idle_minutes = 10"));
    // A number without a unit has the one beside it.
    fill(&app, "memory", "1");
    patiently("it is saved", || settings().contains("memory = \"1 GB\""));
    patiently("it acts at once", || {
        app.status()["profile"]["cap_bytes"].as_f64().is_some_and(|bytes| (bytes - 1e9).abs() < 1.0)
    });
    fill(&app, "name", "Attic");
    patiently("it waits for a restart", || app.text(".settings").contains("Takes effect after a restart."));
    assert!(settings().contains("name = \"Attic\""));
    // A key for a program works.
    let body = "const field = document.getElementById('program');
        field.value = 'editor';
        field.dispatchEvent(new Event('input', { bubbles: true }));";
    app.script(body);
    app.click("Create");
    patiently("it is shown", || app.text(".fresh .key").starts_with("hive-"));
    let (key, url) = (app.text(".fresh .key"), app.text(".settings code"));
    let models = reqwest::blocking::Client::new().get(format!("{url}/models")).bearer_auth(&key).send().unwrap();
    assert!(models.status().is_success(), "{models:?}");
    app.picture("settings-key");
    app.quit();
}

#[test]
fn a_chosen_theme_is_not_the_desktops() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let app = App::start(Desktop::new(Look::Light), home.path());
    app.tray().click("Settings…");
    patiently("it is light", || ground_of(&app) == "rgb(255, 255, 255)");
    let body = "const theme = document.getElementById('look');
        if (!theme) return false;
        theme.value = 'dark';
        theme.dispatchEvent(new Event('change', { bubbles: true }));
        return true";
    patiently("there is a choice", || app.script(body) == true);
    patiently("it is dark", || ground_of(&app) == "rgb(30, 30, 32)");
    app.picture("settings-dark-theme");
    let app = App::start(app.quit(), home.path());
    patiently("it is dark after a restart", || ground_of(&app) == "rgb(30, 30, 32)");
    app.quit();
}

fn ground_of(app: &App) -> serde_json::Value {
    app.script("return getComputedStyle(document.body).backgroundColor")
}
