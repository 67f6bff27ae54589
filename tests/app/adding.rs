//! Models and documents that a person drags onto the window, or chooses. The drags are real ones of the window system; the
//! dialog is the system's and is passed over, by `HIVEMIND_CHOSEN`.

use std::path::{Path, PathBuf};

use crate::dragging::Drag;
use crate::driver::{App, Desktop, Look, patiently, patiently_or, settle};

/// A copy of the starter model with a name that is hard to write.
fn a_model(home: &Path) -> PathBuf {
    let starter = std::env::var_os("HIVEMIND_STARTER").expect("./dev test names the starter model");
    let file = home.join("Größer als\n7 B (kopiert).gguf");
    std::fs::copy(starter, &file).unwrap();
    file
}

/// Whether the models' page has a card for a file that is in memory.
fn is_loaded(app: &App, file: &Path) -> bool {
    let body = "const card = [...document.querySelectorAll('article')].find((card) => card.getAttribute('aria-label') === arguments[0]);
        return card?.querySelector('.loaded') !== null && card !== undefined";
    app.script_with(body, &serde_json::json!([file.to_str()])) == true
}

fn is_listed(app: &App, file: &Path) -> bool {
    let body = "return [...document.querySelectorAll('article')].some((card) => card.getAttribute('aria-label') === arguments[0])";
    app.script_with(body, &serde_json::json!([file.to_str()])) == true
}

fn drag(app: &App, files: &[&Path]) -> Drag {
    Drag::over(&app.desktop.display, files)
}

#[test]
fn a_model_that_is_dropped_is_loaded_and_still_listed_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let (folder, file) = (home.path().join("studio"), a_model(home.path()));
    settle(&folder, "Studio");
    let app = App::start(Desktop::new(Look::Light), &folder);
    app.click("Machines");
    let over = drag(&app, &[&file]);
    patiently("it says what a drop does", || app.text(".drop") == "Drop to add this model");
    over.drop_here();
    patiently_or(|| app.text("main"), || is_loaded(&app, &file));
    assert!(app.text(".drop").is_empty());
    assert!(app.text("main").contains("Added Größer als"), "{}", app.text("main"));
    let kept = || std::fs::read_to_string(folder.join("models.json")).unwrap_or_default();
    patiently_or(kept, || kept().contains("(kopiert).gguf"));
    let app = App::start(app.quit(), &folder);
    app.click("Models");
    patiently_or(|| app.text("main"), || is_listed(&app, &file));
    app.quit();
}

#[test]
fn what_is_no_model_says_so_and_what_was_deleted_meanwhile_is_not_there() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("studio");
    settle(&folder, "Studio");
    let file = |name: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, "not a model").unwrap();
        path
    };
    let (notes, pickle, torn, gone) = (file("notes.txt"), file("model.pt"), file("torn.gguf"), file("gone.gguf"));
    let app = App::start(Desktop::new(Look::Light), &folder);
    app.click("Models");
    drag(&app, &[&notes, &pickle]).drop_here();
    let said = || app.text("main [role=alert]");
    patiently_or(said, || said().contains("notes.txt is not a model. Drop a .gguf file"));
    assert!(said().contains("model.pt wasn’t opened"), "{}", said());
    let over = drag(&app, &[&gone]);
    std::fs::remove_file(&gone).unwrap();
    over.drop_here();
    patiently_or(said, || said().contains("gone.gguf no longer exists"));
    drag(&app, &[&torn]).drop_here();
    patiently_or(said, || said().contains("torn.gguf wasn’t added"));
    assert!(!is_listed(&app, &torn) && !said().contains(home.path().to_str().unwrap()), "{}", said());
    app.quit();
}

#[test]
fn documents_that_are_dropped_on_a_chat_are_attached_and_a_model_goes_to_the_models() {
    let home = tempfile::tempdir().unwrap();
    let (folder, model) = (home.path().join("studio"), a_model(home.path()));
    settle(&folder, "Studio");
    let notes = home.path().join("Ünsere Notizen.md");
    std::fs::write(&notes, "Bees make honey.").unwrap();
    let app = App::start(Desktop::new(Look::Light), &folder);
    patiently("a chat is open", || app.script("return document.querySelector('.field textarea') !== null") == true);
    let over = drag(&app, &[&notes]);
    patiently("it says what a drop does", || app.text(".drop") == "Drop files to attach them");
    over.drop_here();
    patiently_or(|| app.text("main"), || app.text(".files").contains("Ünsere Notizen.md"));
    let text = "document.querySelector('.files summary').click(); return document.querySelector('.files textarea')?.value ?? ''";
    patiently("its text", || app.script(text).as_str().is_some_and(|text| text.contains("Bees make honey.")));
    drag(&app, &[&model]).drop_here();
    patiently_or(|| app.text("main"), || is_loaded(&app, &model));
    app.quit();
}

#[test]
fn a_model_is_added_with_a_button() {
    let home = tempfile::tempdir().unwrap();
    let (folder, file) = (home.path().join("studio"), a_model(home.path()));
    settle(&folder, "Studio");
    let chosen = [("HIVEMIND_CHOSEN", file.to_str().unwrap())];
    let app = App::start_with(Desktop::new(Look::Light), &folder, &chosen);
    app.click("Models");
    app.click("Add a file or folder…");
    patiently_or(|| app.text("main"), || is_loaded(&app, &file));
    app.quit();
}
