//! Pictures for `docs/tour.md` that no other test takes.

use std::time::Duration;

use serde_json::json;

use crate::QUESTION;
use crate::driver::{App, Desktop, Look, patiently, settle};
use crate::steps::{keep, said, surely};

fn type_into(app: &App, selector: &str, text: &str) {
    let body = "const field = document.querySelector(arguments[0]);
        field.value = arguments[1];
        field.dispatchEvent(new Event('input', { bubbles: true }));";
    app.script_with(body, &json!([selector, text]));
}

/// Run it by name with `--ignored` and `HIVEMIND_SCREENS`.
#[test]
#[ignore = "it takes pictures, and judges nothing"]
fn pictures_of_branches_files_searches_and_a_quick_question() {
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let app = App::start(Desktop::new(Look::Light), home.path());
    for (id, title, question, answer) in [
        (
            "lisbon",
            "A week in Lisbon",
            "Plan a slow week in Lisbon.",
            "Lisbon rewards slow mornings. Take the tram to Graça first.",
        ),
        (
            "regex",
            "Regex for dates",
            "A regex for ISO dates?",
            "`\\d{4}-\\d{2}-\\d{2}` finds every date that is written that way.",
        ),
        (
            "bread",
            "Bread without kneading",
            "How do I bake bread?",
            "Mix flour, water, salt and yeast, and wait overnight.",
        ),
        (
            "bees",
            "Why bees dance",
            "Why do bees dance?",
            "To share flowers: the dance says how far they are, and which way.",
        ),
    ] {
        keep(&app, id, title, &json!([said("user", question), said("assistant", answer)]));
    }
    app.show_main();

    // An edited question is a branch.
    surely(&app);
    app.ask("What is the capital of Spain?");
    let idle =
        || patiently("it is answered", || app.text(".field button") == "Send" && !app.text(".newest .body").is_empty());
    idle();
    app.script("document.querySelector('[data-edit]').click()");
    patiently("the field", || app.script("return document.querySelector('.edited textarea') !== null") == true);
    type_into(&app, ".edited textarea", QUESTION);
    app.script("document.querySelector('.edited button.main').click()");
    patiently("it is another version", || app.text(".branches").contains("2/2"));
    idle();
    app.picture("branches");

    // Files go with a question.
    app.click("New chat");
    let choose = "const chosen = new DataTransfer();
        chosen.items.add(new File(['# Flight LH 1166\\n\\nFrankfurt to Lisbon, 6 May, 09:40'], 'flight.md'));
        chosen.items.add(new File(['day,place\\n1,Alfama\\n2,Sintra\\n3,Cascais\\n'], 'plan.csv'));
        const input = document.querySelector('input[type=file]');
        input.files = chosen.files;
        input.dispatchEvent(new Event('change', { bubbles: true }));";
    app.script(choose);
    patiently("they are attached", || app.text(".files").contains("plan.csv"));
    type_into(&app, ".field textarea", "Which day is best for Sintra?");
    app.picture("files");
    type_into(&app, ".field textarea", "");

    // A word is found in its passage.
    type_into(&app, "input[type=search]", "flowers");
    patiently("it is found", || app.script("return document.querySelectorAll('.list mark').length") == 1);
    app.script("document.querySelector('.list .title').click()");
    patiently("its passage is shown", || app.script("return document.querySelector('.sought') !== null") == true);
    app.picture("found");
    type_into(&app, "input[type=search]", "");
    app.script("document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'k', ctrlKey: true, bubbles: true }))");
    patiently("Jump", || app.script("return document.querySelectorAll('[role=option]').length > 5") == true);
    app.picture("jump");

    app.show_popover();
    // A small model says something else now and then.
    patiently("it is answered", || {
        type_into(&app, "main textarea", QUESTION);
        app.script(
            "document.querySelector('main textarea').dispatchEvent(
                new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true }))",
        );
        std::thread::sleep(Duration::from_secs(3));
        app.text("main").contains("The capital of France is Paris.")
    });
    app.picture_of_popover("quick-ask");
    app.quit();
}
