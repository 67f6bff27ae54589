//! A model that is on no disk: found, fetched and asked in the window.

use serde_json::json;

use crate::QUESTION;
use crate::driver::{App, Desktop, Look, patiently, settle};
use crate::stand_in::{Fault, Repo, StandIn};
use crate::steps::{note, surely};

/// Where the norm of the starter's first layer begins: numbers in single precision.
const FIRST_NORM_AT: usize = 31_866_688;
const MODEL: &str = "owner/name/starter-Q4_1.gguf";
/// What a connection may have on its way when the app is killed, of eight.
const ON_THE_WAY: u64 = 16 << 20;

/// The part of the model that has come, in percent; `None` if nothing is being fetched.
fn fetched(app: &App) -> Option<u64> {
    let percent = app.script(
        "const bar = document.querySelector('progress');
        return bar && bar.max > 1e6 ? Math.floor(100 * bar.value / bar.max) : null",
    );
    percent.as_u64()
}

fn search(app: &App, text: &str) {
    let body = "const field = document.querySelector('main input[type=search]');
        field.value = arguments[0];
        field.dispatchEvent(new Event('input', { bubbles: true }));";
    app.script_with(body, &json!([text]));
}

#[test]
fn a_person_finds_a_model_fetches_it_over_two_days_and_chats_with_it() {
    let starter = std::env::var_os("HIVEMIND_STARTER").expect("./dev test names the starter model");
    let mut weights = std::fs::read(starter).unwrap();
    weights[FIRST_NORM_AT] ^= 1;
    let size = weights.len() as u64;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let hub = StandIn::start(Repo::new(&[("starter-Q4_1.gguf", weights.into())]));
    hub.faults(|seen| seen.is_get_of("starter-Q4_1.gguf").then_some(Fault::Slow(std::time::Duration::from_millis(8))));

    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("studio");
    settle(&folder, "Studio");
    let (url, cache) = (hub.url(), home.path().join("cache/hub"));
    let environment = [("HF_ENDPOINT", url.as_str()), ("HF_HUB_CACHE", cache.to_str().unwrap())];
    let app = App::start_with(Desktop::new(Look::Light), &folder, &environment);
    let options = "return document.querySelector('select[aria-label=Model]')?.options.length ?? 0";
    patiently("the picker is there", || app.script(options).as_u64() > Some(1));
    app.script(
        "const picker = document.querySelector('select[aria-label=Model]');
        picker.selectedIndex = picker.options.length - 1;
        picker.dispatchEvent(new Event('change', { bubbles: true }));",
    );
    let focused = "return document.activeElement?.getAttribute('aria-label')";
    patiently("the picker leads to the search", || app.script(focused) == "Search models");
    search(&app, "qwen3 8b");
    patiently("the catalogue answers", || app.text("main").contains("Qwen3 8B"));
    app.picture("find-model");
    search(&app, "https://huggingface.co/owner/name");
    app.click("Get owner/name");
    patiently("it comes", || fetched(&app).is_some_and(|percent| percent >= 20));
    app.picture("fetching");
    app.click(&format!("Pause {MODEL}"));
    patiently("it is paused", || fetched(&app).is_none());
    app.click(&format!("Resume {MODEL}"));
    patiently("it resumes", || fetched(&app).is_some_and(|percent| percent >= 25));
    let desktop = app.kill();

    let app = App::start_with(desktop.looking(Look::Dark), &folder, &environment);
    app.click("Models");
    search(&app, "qwen3 8b");
    patiently("the catalogue answers", || app.text("main").contains("Qwen3 8B"));
    app.picture("find-model");
    search(&app, "owner/name");
    // What came counts as the model, in parts.
    app.click(&format!("Resume {MODEL}"));
    patiently("it resumes", || fetched(&app).is_some_and(|percent| percent >= 20));
    app.picture("fetching");
    app.click(&format!("Chat {MODEL}"));
    patiently("the field has the focus", || app.script("return document.activeElement?.tagName") == "TEXTAREA");
    surely(&app);
    app.ask(QUESTION);
    patiently("an answer", || !note(&app, 0).is_empty());
    assert!(app.text(".body").contains("Paris"), "{}", app.text(".body"));
    let picked = "return document.querySelector('select[aria-label=Model]').selectedOptions[0].text";
    assert_eq!(app.script(picked), MODEL);
    let sent = hub.sent();
    assert!(sent <= size + ON_THE_WAY, "{sent} bytes were sent of {size}");
    app.quit();
}
