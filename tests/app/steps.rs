//! Steps that several tests take.

use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use serde_json::{Value, json};

use crate::LONG;
use crate::driver::{App, Ends, hivemind, patiently, settle};

/// The words under an answer, which come with its end.
pub(crate) fn note(app: &App, which: usize) -> String {
    let body = "return [...document.querySelectorAll('li footer .numbers')][arguments[0]]?.innerText ?? ''";
    app.script_with(body, &json!([which])).as_str().unwrap_or_default().to_owned()
}

/// The most certain words, so that an answer is what the model would say.
pub(crate) fn surely(app: &App) {
    app.click("Instructions and sampling");
    let body = "const range = document.querySelector('.panel input');
        range.value = 0;
        range.dispatchEvent(new Event('input', { bubbles: true }));";
    app.script(body);
    app.click("Instructions and sampling");
}

/// Asks for a long answer of the most certain words in a new chat: words that were sampled may be few.
pub(crate) fn ask_at_length(app: &App) {
    app.click("New chat");
    surely(app);
    app.ask(LONG);
}

/// Puts a conversation among the others.
pub(crate) fn keep(app: &App, id: &str, title: &str, messages: &serde_json::Value) {
    let keep = "const conversation = { id: arguments[0], title: arguments[1], messages: arguments[2], updated_s: Date.now() / 1000 };
        window.__TAURI_INTERNALS__.invoke('request',
            { method: 'PUT', path: `/hive/v1/conversations/${arguments[0]}`, body: JSON.stringify(conversation) });";
    app.script_with(keep, &json!([id, title, messages]));
    let listed = format!(
        "return [...document.querySelectorAll('.list .title')].some((entry) => entry.title === {})",
        json!(title)
    );
    patiently("it is listed", || app.script(&listed) == true);
}

/// A message of such a conversation.
pub(crate) fn said(role: &str, text: &str) -> serde_json::Value {
    json!({ "role": role, "text": text, "complete": true })
}

/// A machine beside the app's: a node without a window, asked by the command line.
pub(crate) struct Other {
    folder: PathBuf,
    node: Ends,
}

impl Other {
    /// Starts it, and waits until it answers.
    pub(crate) fn start(folder: PathBuf, name: &str) -> Self {
        settle(&folder, name);
        let other = Self { node: node(&folder), folder };
        patiently("the other node answers", || other.run(&["status"]).status.success());
        other
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        hivemind(&self.folder, arguments).stderr(Stdio::null()).output().unwrap()
    }

    /// Pulls its plug.
    pub(crate) fn kill(&mut self) {
        let _ = self.node.0.kill();
    }

    pub(crate) fn start_again(&mut self) {
        self.node = node(&self.folder);
    }

    /// Asks to join the machine of that data folder, by its invitation. Gives who that is, and the code that both show.
    pub(crate) fn join(&self, whom: &Path) -> (String, String) {
        let said = |output: Output| serde_json::from_slice::<Value>(&output.stdout).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let invitation = said(hivemind(whom, &["invite", "--json"]).output().unwrap());
        let asked = said(self.run(&["join", &text(&invitation["ticket"]), "--json"]));
        (text(&asked["id"]), text(&asked["code"]))
    }

    /// Lets a machine in; this ends when that one's owner has decided, too.
    pub(crate) fn approve(&self, whom: &str, code: &str) -> Child {
        hivemind(&self.folder, &["approve", whom, "--code", code]).stdout(Stdio::null()).spawn().unwrap()
    }
}

fn node(folder: &Path) -> Ends {
    Ends(hivemind(folder, &["node"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}
