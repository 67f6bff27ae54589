//! What a person does before a message is sent: files, their tokens, and a new chat in place of a full one.

use std::fmt::Write;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{ConnectionExt, GrabMode, ModMask};

use crate::driver::{App, Desktop, Look, patiently, patiently_or, settle};
use crate::steps::{keep, said};

/// A PDF file of these objects; the first is the catalogue.
fn pdf(objects: &[String]) -> String {
    let (mut file, mut places) = ("%PDF-1.4\n".to_owned(), String::new());
    for (number, object) in objects.iter().enumerate() {
        writeln!(places, "{:010} 00000 n ", file.len()).unwrap();
        writeln!(file, "{} 0 obj\n{object}\nendobj", number + 1).unwrap();
    }
    let (table, size) = (file.len(), objects.len() + 1);
    file + &format!(
        "xref\n0 {size}\n0000000000 65535 f \n{places}trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n"
    )
}

/// So many pages with a line each in Latin letters, and one in Japanese, which needs a table of the app's.
fn pages(count: usize) -> String {
    let first = 7;
    let kids: Vec<String> = (0..count).map(|page| format!("{} 0 R", first + 2 * page)).collect();
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        format!("<< /Type /Pages /Kids [{}] /Count {count} >>", kids.join(" ")),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_owned(),
        "<< /Type /Font /Subtype /Type0 /BaseFont /Ryumin-Light /Encoding /90ms-RKSJ-H /DescendantFonts [5 0 R] >>"
            .to_owned(),
        "<< /Type /Font /Subtype /CIDFontType0 /BaseFont /Ryumin-Light /DW 1000 /FontDescriptor 6 0 R \
         /CIDSystemInfo << /Registry (Adobe) /Ordering (Japan1) /Supplement 2 >> >>"
            .to_owned(),
        "<< /Type /FontDescriptor /FontName /Ryumin-Light /Flags 4 /FontBBox [0 0 1000 1000] /ItalicAngle 0 \
         /Ascent 800 /Descent -200 /CapHeight 700 /StemV 80 >>"
            .to_owned(),
    ];
    for page in 0..count {
        let text = format!(
            "BT /F1 12 Tf 50 700 Td (Bees make honey on page {}.) Tj ET BT /F2 12 Tf 50 680 Td <93FA967B> Tj ET",
            page + 1
        );
        objects.push(format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents {} 0 R \
             /Resources << /Font << /F1 3 0 R /F2 4 0 R >> >> >>",
            first + 2 * page + 1
        ));
        objects.push(format!("<< /Length {} >>\nstream\n{text}\nendstream", text.len()));
    }
    pdf(&objects)
}

/// Chooses a file of this text, as the dialog does.
fn pick(app: &App, name: &str, text: &str) {
    let body = "const chosen = new DataTransfer();
        chosen.items.add(new File([arguments[1]], arguments[0]));
        const input = document.querySelector('input[type=file]');
        input.files = chosen.files;
        input.dispatchEvent(new Event('change', { bubbles: true }));";
    app.script_with(body, &json!([name, text]));
}

#[test]
fn a_pdf_is_attached_and_its_tokens_are_counted_by_the_model() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("studio");
    settle(&folder, "Studio");
    let app = App::start(Desktop::new(Look::Light), &folder);
    patiently("a chat is open", || app.script("return document.querySelector('.field textarea') !== null") == true);
    pick(&app, "bees.pdf", &pages(40));
    let size = || app.text(".files .hint");
    patiently_or(|| app.text("section"), || size().starts_with("40 pages · ") && !size().contains("about"));
    app.picture("pdf");
    // The node's own count of the same text.
    app.script("document.querySelector('.files summary').click()");
    let text = || app.script("return document.querySelector('.files textarea')?.value ?? ''");
    patiently("its text", || {
        text().as_str().is_some_and(|text| text.contains("[Page 40]\nBees make honey on page 40.\n日本"))
    });
    let body = "const [text, done] = arguments;
        window.__TAURI_INTERNALS__.invoke('request',
            { method: 'POST', path: '/hive/v1/models/tokens', body: JSON.stringify({ text }) }).then((reply) => done(JSON.parse(reply)));";
    let counted = app.script_later(body, &json!([text()]));
    let tokens = counted["tokens"].as_u64().unwrap();
    assert!((300..3000).contains(&tokens), "{counted}");
    let shown: String = size().split(" · ").nth(1).unwrap().chars().filter(char::is_ascii_digit).collect();
    assert_eq!(shown, tokens.to_string());
    assert!(app.status()["model"].is_null(), "counting loads no model");
    for (name, text, why) in [
        (
            "scan.pdf",
            pdf(&[
                "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
                "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
                "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>".to_owned(),
            ]),
            "no text",
        ),
        ("torn.pdf", pages(3)[..400].to_owned(), "damaged"),
    ] {
        pick(&app, name, &text);
        patiently_or(|| app.text("section"), || app.text(".problem").contains(why));
    }
    app.quit();
}

#[test]
fn a_full_chat_goes_on_in_a_new_one_with_a_summary() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("studio");
    settle(&folder, "Studio");
    let app = App::start(Desktop::new(Look::Light), &folder);
    let mut answer = said("assistant", "Paris is the capital of France. The trip is in May, for three days.");
    answer["computed"] = json!({ "context_tokens": 7000, "context_limit": 8192, "parts": [], "unknown_options": [] });
    keep(&app, "full", "Paris", &json!([said("user", "What is the capital of France?"), answer]));
    app.script("[...document.querySelectorAll('.list .title')].find((entry) => entry.title === 'Paris').closest('button').click()");
    app.click("New chat with a summary");
    app.picture("summarising");
    let card = || app.text(".files .name");
    patiently_or(|| app.text("section"), || card().contains("Summary of “Paris”"));
    app.script("document.querySelector('.files summary').click()");
    let text = || app.script("return document.querySelector('.files textarea')?.value ?? ''");
    patiently("its text", || text().as_str().is_some_and(|text| !text.is_empty()));
    app.picture("summary");
    let titles = "return [...document.querySelectorAll('.list .title')].map((entry) => entry.title).join()";
    patiently_or(|| app.script(titles).to_string(), || app.script(titles) == "Paris");
    app.ask("And of Spain?");
    let question = || app.text("li.own");
    patiently_or(question, || question().contains("Summary of “Paris”") && question().contains("And of Spain?"));
    app.quit();
}

/// Presses keys, or does what else a hand at the keyboard does.
fn xdotool(app: &App, arguments: &[&str]) {
    let mut keys = Command::new("xdotool");
    assert!(keys.args(arguments).env("DISPLAY", &app.desktop.display).status().unwrap().success());
}

/// Keeps Ctrl+Shift+K, as a program that has it already.
fn take_ctrl_shift_k(app: &App) -> impl Sized + use<> {
    /// Where the letter is on the keyboard of the display.
    const K: u8 = 45;
    let (connection, screen) = x11rb::connect(Some(&app.desktop.display)).unwrap();
    let root = connection.setup().roots[screen].root;
    let grab = connection.grab_key(false, root, ModMask::CONTROL | ModMask::SHIFT, K, GrabMode::ASYNC, GrabMode::ASYNC);
    grab.unwrap().check().unwrap();
    connection
}

#[test]
fn a_question_is_asked_from_anywhere_once_a_shortcut_is_chosen() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("studio");
    settle(&folder, "Studio");
    let app = App::start(Desktop::new(Look::Light), &folder);
    let keys = || xdotool(&app, &["key", "ctrl+shift+space"]);
    keys();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(app.windows_seen(), 1, "no shortcut is heard that nobody chose");
    let choose = |keys: &str| {
        let body = "const [value, done] = arguments;
            window.__TAURI_INTERNALS__.invoke('change', { change: { field: 'quick_ask', value } }).then(done);";
        app.script_later(body, &json!([keys]))["refused"].clone()
    };
    let _taken = take_ctrl_shift_k(&app);
    assert_eq!(choose("Space")["kind"], "shortcut");
    assert_eq!(choose("CmdOrCtrl+Shift+K")["kind"], "shortcut_taken");
    assert_eq!(choose("CmdOrCtrl+Shift+Space"), json!(null));
    keys();
    patiently("the popover is seen", || app.windows_seen() == 2);
    // The popover has the keys, and its field the focus.
    std::thread::sleep(Duration::from_millis(500));
    xdotool(&app, &["type", "--delay", "30", "What is the capital of France?"]);
    xdotool(&app, &["key", "Return"]);
    let titles =
        || app.script("return [...document.querySelectorAll('.list .title')].map((entry) => entry.title).join()");
    patiently_or(|| titles().to_string(), || titles() == "What is the capital of France?");
    // It works after the next start, too, until it is removed.
    let app = App::start(app.quit(), &folder);
    let keys = || xdotool(&app, &["key", "ctrl+shift+space"]);
    patiently("the popover is seen again", || {
        keys();
        app.windows_seen() == 2
    });
    app.quit();
}
