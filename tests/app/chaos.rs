//! A person's random actions in the window, against a model of what must be there: nothing is lost, and nothing doubled.
//!
//! `HIVEMIND_CHAOS_SEED` chooses the actions, and `HIVEMIND_TEST_LONG` makes them 200.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::driver::{App, Desktop, Look, patiently, patiently_or, settle};

/// Its answer is short, or long enough to be left, stopped and killed.
const QUESTIONS: [&str; 2] = ["What is the capital of France?", "Write a very long story about bees."];

/// As many answers are under way at most.
const AT_ONCE: usize = 2;

/// A crash loses the words of a second at most.
const SAVED_AFTER: Duration = Duration::from_millis(1100);

const ACTIONS: [(&str, usize); 18] = [
    ("ask", 9),
    ("type", 5),
    ("new chat", 4),
    ("switch", 5),
    ("switch while typing", 3),
    ("rename", 3),
    ("edit", 5),
    ("answer again", 3),
    ("choose a branch", 4),
    ("stop", 4),
    ("continue", 3),
    ("delete", 3),
    ("undo", 3),
    ("pin", 3),
    ("archive", 3),
    ("search", 3),
    ("reload", 2),
    ("restart", 1),
];

/// Numbers that the same seed gives again (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        if all.is_empty() { None } else { Some(all[self.below(all.len())].clone()) }
    }

    fn action(&mut self) -> &'static str {
        let mut left = self.below(ACTIONS.iter().map(|(_, weight)| weight).sum());
        for (action, weight) in ACTIONS {
            if left < weight {
                return action;
            }
            left -= weight;
        }
        ACTIONS[0].0
    }
}

/// A message that must be there.
#[derive(Debug, Clone)]
struct Said {
    id: String,
    /// The message before it.
    after: Option<String>,
    own: bool,
    /// Of an answer, what has been seen of it.
    text: String,
}

/// What a person must find in a chat.
#[derive(Debug, Clone, Default)]
struct Chat {
    /// Given by the person; until then, the app chooses one.
    title: Option<String>,
    draft: String,
    /// All messages ever written, oldest first.
    said: Vec<Said>,
    /// The last message shown.
    last: Option<String>,
    /// A question that was just asked, after this message, whose ID the node gives.
    asked: Option<(Option<String>, String)>,
    /// The question to which another answer was just asked for.
    again: Option<String>,
    pinned: bool,
    archived: bool,
    deleted: bool,
}

impl Chat {
    fn find(&self, id: &str) -> &Said {
        self.said.iter().find(|said| said.id == id).unwrap_or_else(|| panic!("no message {id} in {self:#?}"))
    }

    /// The messages shown.
    fn shown(&self) -> Vec<String> {
        let (mut at, mut shown) = (self.last.as_deref(), Vec::new());
        while let Some(id) = at {
            shown.push(id.to_owned());
            at = self.find(id).after.as_deref();
        }
        shown.reverse();
        shown
    }

    /// The versions of a message.
    fn versions(&self, id: &str) -> Vec<String> {
        let after = &self.find(id).after;
        self.said.iter().filter(|said| said.after == *after).map(|said| said.id.clone()).collect()
    }

    /// What is shown when this version is chosen.
    fn newest_below(&self, id: &str) -> String {
        let below = self.said.iter().rev().find(|said| said.after.as_deref() == Some(id));
        below.map_or_else(|| id.to_owned(), |below| self.newest_below(&below.id))
    }

    /// Takes over what only the node knows: the messages just written, and how far an answer has come.
    fn learn(&mut self, read: &Value) {
        let messages = read["messages"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        if let Some((after, question)) = self.asked.take() {
            let found = messages.iter().find(|message| {
                message["text"] == question.as_str() && !self.said.iter().any(|said| message["id"] == said.id.as_str())
            });
            let id = text(&found.unwrap_or_else(|| panic!("{question:?} is lost: {read:#}"))["id"]);
            self.said.push(Said { id: id.clone(), after, own: true, text: question });
            self.again = Some(id);
        }
        if let Some(question) = self.again.take() {
            let at = messages.iter().position(|message| message["id"] == question.as_str());
            let at = at.unwrap_or_else(|| panic!("the question is lost: {read:#}"));
            let answer = messages.get(at + 1).map(|answer| text(&answer["id"]));
            self.last = Some(question.clone());
            // Stopped before its first word, an answer leaves nothing.
            if let Some(id) = answer.filter(|id| !self.said.iter().any(|said| said.id == *id)) {
                self.said.push(Said { id, after: Some(question), own: false, text: String::new() });
            }
            self.last = Some(self.newest_below(&self.last.clone().unwrap()));
        }
        // The same goes for one whose first word never came.
        while let Some(last) = self.last.clone() {
            let said = self.find(&last).clone();
            if said.own || !said.text.is_empty() || messages.iter().any(|message| message["id"] == last.as_str()) {
                break;
            }
            self.said.retain(|said| said.id != last);
            self.last = said.after.map(|after| self.newest_below(&after));
        }
    }

    /// Compares with what the node has.
    fn check(&mut self, read: &Value, answering: bool, what: &str) {
        if let Some(title) = &self.title {
            assert_eq!(read["title"], title.as_str(), "{what}");
        }
        assert_eq!(read["draft"], self.draft.as_str(), "{what}");
        assert_eq!((&read["pinned"], &read["archived"]), (&json!(self.pinned), &json!(self.archived)), "{what}");
        let messages = read["messages"].as_array().unwrap();
        let ids: Vec<&str> = messages.iter().map(|message| message["id"].as_str().unwrap()).collect();
        assert_eq!(ids, self.shown(), "{what}");
        for message in messages {
            let id = message["id"].as_str().unwrap();
            assert_eq!(message["branches"], json!(self.versions(id)), "{what}: the versions of {id}");
            let text = message["text"].as_str().unwrap();
            let grows = answering && self.last.as_deref() == Some(id);
            let said = self.said.iter_mut().find(|said| said.id == id).unwrap();
            assert_eq!(message["role"] == "user", said.own, "{what}");
            if grows {
                assert!(text.starts_with(&said.text), "{what}: {text:?} lost something of {:?}", said.text);
                text.clone_into(&mut said.text);
            } else {
                assert_eq!(text, said.text, "{what}: {id}");
            }
        }
    }
}

/// The node, asked as a program with its owner's key.
struct Node {
    client: reqwest::blocking::Client,
    url: String,
    key: String,
}

impl Node {
    fn of(app: &App) -> Self {
        let read = |name: &str| std::fs::read_to_string(app.folder.join(name)).unwrap_or_default();
        let address = || serde_json::from_str::<Value>(&read("api.json")).map(|found| found["address"].clone());
        patiently("the API says where it is", || address().is_ok_and(|address| address.is_string()));
        let url = format!("http://{}/hive/v1/conversations", address().unwrap().as_str().unwrap());
        let client = reqwest::blocking::Client::new();
        Self { client, url, key: read("api-token").trim().to_owned() }
    }

    fn ask(&self, request: reqwest::blocking::RequestBuilder) -> Value {
        request.bearer_auth(&self.key).send().unwrap().json().unwrap()
    }

    fn read(&self, id: &str) -> Value {
        self.ask(self.client.get(format!("{}/{id}", self.url)))
    }

    fn list(&self) -> Vec<Value> {
        self.ask(self.client.get(&self.url)).as_array().unwrap().clone()
    }

    fn answering(&self) -> Vec<String> {
        let under_way = self.list().into_iter().filter(|entry| entry["answering"] == true);
        under_way.map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
    }

    /// The chat that has no message yet.
    fn unsent(&self) -> String {
        self.ask(self.client.post(&self.url))["id"].as_str().unwrap().to_owned()
    }
}

/// The person: what they see, what they did, and what must be there.
struct Person {
    app: App,
    node: Node,
    chats: BTreeMap<String, Chat>,
    open: String,
    /// The chat that Undo brings back.
    deleted: Option<String>,
    /// What was under way before the last action: it may have grown since.
    grew: Vec<String>,
    random: Random,
    step: usize,
    what: String,
}

impl Person {
    fn chat(&mut self) -> &mut Chat {
        self.chats.entry(self.open.clone()).or_default()
    }

    /// The chats in the list.
    fn listed(&self) -> Vec<String> {
        let listed = self.chats.iter().filter(|(_, chat)| !chat.deleted && !chat.archived && chat.last.is_some());
        listed.map(|(id, _)| id.clone()).collect()
    }

    /// Does something with a chat's entry in the list; `body` has the entry as `entry`.
    fn entry(&self, id: &str, body: &str) {
        let body = format!(
            "const entry = document.getElementById(`about-${{arguments[0]}}`)?.closest('li');
            if (!entry) return false;
            {body};
            return true"
        );
        patiently(&format!("{}: the entry", self.what), || self.app.script_with(&body, &json!([id])) == true);
    }

    /// Clicks the button of an entry whose name begins so.
    fn offer(&self, id: &str, name: &str) {
        let named = format!("button[aria-label^=\"{name} \"]");
        let body = format!("const button = entry.querySelector('{named}'); if (!button) return false; button.click()");
        self.entry(id, &body);
    }

    fn type_draft(&self, text: &str) {
        let body = "const field = document.querySelector('.field textarea');
            field.value = arguments[0];
            field.dispatchEvent(new Event('input', { bubbles: true }));";
        self.app.script_with(body, &json!([text]));
    }

    /// Waits until the window shows a chat.
    fn shows(&mut self, id: &str) {
        id.clone_into(&mut self.open);
        let shown = self.chat().shown();
        let ids = "return [...document.querySelectorAll('[data-message]')].map((message) => message.dataset.message)";
        let now = || self.app.script(ids);
        patiently_or(
            || format!("{}: {shown:?} in the window, where {} is", self.what, now()),
            || {
                // An answer without a word may have gone.
                let now = now();
                let now: Vec<&str> = now.as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
                now == shown || now == self.node_ids(id)
            },
        );
    }

    fn node_ids(&self, id: &str) -> Vec<String> {
        let messages = self.node.read(id)["messages"].as_array().cloned().unwrap_or_default();
        messages.iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect()
    }

    fn switch(&mut self, id: &str) {
        self.entry(id, "entry.querySelector('.title').click()");
        self.shows(id);
    }

    fn new_chat(&mut self) {
        self.app.click("New chat");
        let id = self.node.unsent();
        self.shows(&id);
    }

    fn is_answering(&self) -> bool {
        self.node.answering().contains(&self.open)
    }

    /// Waits until the page offers to send, as it does once it knows that nothing is under way.
    fn idle(&self) {
        patiently("the field offers Send", || self.app.text(".field button") == "Send");
    }

    /// Does one action, if it is possible now. Says whether it was.
    #[allow(clippy::too_many_lines, reason = "one short arm for each thing that a person does")]
    fn act(&mut self, action: &str) -> bool {
        let step = self.step;
        let busy = self.is_answering();
        let (listed, open) = (self.listed(), self.open.clone());
        let shown = self.chat().shown();
        match action {
            "ask" if !busy && !self.chat().archived && self.node.answering().len() < AT_ONCE => {
                let which = self.random.below(QUESTIONS.len());
                let question = format!("{} ({step})", QUESTIONS[which]);
                self.idle();
                self.app.ask(&question);
                let after = self.chat().last.clone();
                self.chat().draft.clear();
                self.chat().asked = Some((after, question.clone()));
                patiently("it is asked", || {
                    self.node.read(&open)["messages"].to_string().contains(&json!(question).to_string())
                });
            }
            "type" => {
                let draft = format!("draft {step}");
                self.type_draft(&draft);
                self.chat().draft.clone_from(&draft);
                patiently("the draft is kept", || self.node.read(&open)["draft"] == draft.as_str());
            }
            "new chat" => self.new_chat(),
            "switch" | "switch while typing" => {
                let Some(id) = self.random.of(&listed) else { return false };
                if action == "switch while typing" && id != open {
                    let draft = format!("while {step}");
                    self.type_draft(&draft);
                    self.chat().draft = draft;
                }
                self.switch(&id);
            }
            "rename" => {
                let Some(id) = self.random.of(&listed) else { return false };
                let title = format!("Title {step}");
                self.offer(&id, "Rename");
                self.entry_field(&title);
                patiently("it is renamed", || self.node.read(&id)["title"] == title.as_str());
                self.chats.get_mut(&id).unwrap().title = Some(title);
            }
            "edit" if !busy && self.node.answering().len() < AT_ONCE => {
                let own: Vec<String> = shown.into_iter().filter(|id| self.chat().find(id).own).collect();
                let Some(message) = self.random.of(&own) else { return false };
                self.idle();
                let question = format!("{} Edited. ({step})", QUESTIONS[0]);
                self.edit(&message, &question);
                let after = self.chat().find(&message).after.clone();
                self.chat().asked = Some((after, question.clone()));
                patiently("it is asked", || {
                    self.node.read(&open)["messages"].to_string().contains(&json!(question).to_string())
                });
            }
            "answer again" if !busy && self.node.answering().len() < AT_ONCE => {
                let Some(last) = shown.last().filter(|id| !self.chat().find(id).own) else { return false };
                let question = self.chat().find(last).after.clone();
                self.idle();
                self.press(last, "Answer again");
                patiently("it answers again", || self.node_ids(&open).last() != Some(last));
                self.chat().again = question;
            }
            "choose a branch" if !busy => {
                let chat = self.chat().clone();
                let several: Vec<&String> = shown.iter().filter(|id| chat.versions(id).len() > 1).collect();
                let Some(message) = self.random.of(&several) else { return false };
                self.idle();
                let versions = chat.versions(message);
                let at = versions.iter().position(|id| id == message).unwrap();
                let (name, to) = if at > 0 { ("Previous version", at - 1) } else { ("Next version", 1) };
                self.press(message, name);
                self.chat().last = Some(chat.newest_below(&versions[to]));
                patiently("it is chosen", || self.node_ids(&open).contains(&versions[to]));
            }
            "stop" if busy => {
                // It may end by itself before it is clicked.
                self.app.script(
                    "const stop = document.querySelector('.field button'); if (stop.innerText === 'Stop') stop.click()",
                );
                patiently("it has stopped", || !self.is_answering());
            }
            "continue" if !busy => {
                let before = self.node.read(&open);
                let Some(last) = before["messages"].as_array().unwrap().last() else { return false };
                if last["role"] == "user" || last["complete"] == true {
                    return false;
                }
                self.idle();
                self.press(last["id"].as_str().unwrap(), "Continue");
                self.grew.push(open.clone());
                let length = last["text"].as_str().unwrap().len();
                patiently("it continues", || {
                    let now = self.node.read(&open);
                    let last = now["messages"].as_array().unwrap().last().cloned().unwrap_or_default();
                    last["complete"] == true || last["text"].as_str().is_some_and(|text| text.len() > length)
                });
            }
            "delete" if listed.len() > 1 => {
                let Some(id) = self.random.of(&listed) else { return false };
                self.offer(&id, "Delete");
                patiently("it is deleted", || self.node.read(&id)["error"].is_object());
                self.chats.get_mut(&id).unwrap().deleted = true;
                self.deleted = Some(id.clone());
                if id == open {
                    let unsent = self.node.unsent();
                    self.shows(&unsent);
                }
            }
            "undo" => {
                let Some(id) = self.deleted.take() else { return false };
                self.app.click("Undo");
                patiently("it is back", || self.node.read(&id)["id"] == id.as_str());
                self.chats.get_mut(&id).unwrap().deleted = false;
                // It may have been answered until it was deleted.
                self.grew.push(id);
            }
            "pin" => {
                let Some(id) = self.random.of(&listed) else { return false };
                let on = !self.chats[&id].pinned;
                self.offer(&id, if on { "Pin" } else { "Unpin" });
                patiently("it is pinned", || self.node.read(&id)["pinned"] == on);
                self.chats.get_mut(&id).unwrap().pinned = on;
            }
            "archive" => self.archive(&listed),
            "search" => {
                let Some(id) = self.random.of(&listed) else { return false };
                let chat = &self.chats[&id];
                let Some(said) = chat.said.iter().find(|said| said.own) else { return false };
                let words = said.text.clone();
                self.search(&words);
                let found = |chat: &&Chat| {
                    let title = chat.title.as_deref().unwrap_or_default();
                    chat.said.iter().any(|said| said.text.contains(&words)) || title.contains(&words)
                };
                let all = self.chats.values().filter(|chat| !chat.deleted).filter(found).count();
                let entries = || self.app.script("return document.querySelectorAll('.list .title').length");
                patiently_or(|| format!("{words:?}: {all}, and not {}", entries()), || entries() == all);
                self.search("");
            }
            "reload" => {
                let draft = format!("before a reload {step}");
                self.type_draft(&draft);
                self.chat().draft.clone_from(&draft);
                self.app.show_main();
                patiently("the draft is kept", || self.node.read(&open)["draft"] == draft.as_str());
                self.opened_anew();
            }
            _ => return false,
        }
        true
    }

    /// Fills the field of a name, and leaves it by a click elsewhere or by Enter.
    fn entry_field(&mut self, title: &str) {
        let leave = if self.random.below(2) == 0 {
            "field.blur()"
        } else {
            "field.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true }))"
        };
        let body = format!(
            "const field = document.querySelector('.list li input');
            if (!field) return false;
            field.value = arguments[0];
            {leave};
            return true"
        );
        patiently("the field of the name", || self.app.script_with(&body, &json!([title])) == true);
    }

    fn edit(&self, message: &str, question: &str) {
        self.press(message, "Edit");
        let body = "const field = document.querySelector('.edited textarea');
            if (!field) return false;
            field.value = arguments[0];
            field.dispatchEvent(new Event('input', { bubbles: true }));
            return true";
        patiently("the field", || self.app.script_with(body, &json!([question])) == true);
        patiently("it is sent", || {
            self.app.script(
                "
            const send = document.querySelector('.edited button.main');
            if (!send || send.disabled) return false;
            send.click();
            return true",
            ) == true
        });
    }

    /// Clicks a button of a message.
    fn press(&self, message: &str, name: &str) {
        let body = "const [message, name] = arguments;
            const buttons = document.querySelectorAll(`[data-message='${message}'] footer button:not(:disabled)`);
            const named = [...buttons].find((button) => button.innerText === name || button.ariaLabel === name);
            named?.click();
            return named !== undefined";
        let what = format!("{}: {name}", self.what);
        patiently(&what, || self.app.script_with(body, &json!([message, name])) == true);
    }

    /// Archives a chat, or takes one back from the archive.
    fn archive(&mut self, listed: &[String]) {
        let archived = self.chats.iter().find(|(_, chat)| chat.archived && !chat.deleted).map(|(id, _)| id.clone());
        if let Some(id) = archived {
            self.app.click("Archived");
            self.offer(&id, "Move out of the archive");
            patiently("it is in the list", || self.node.read(&id)["archived"] == false);
            self.chats.get_mut(&id).unwrap().archived = false;
            self.app.script(
                "const archive = [...document.querySelectorAll('aside > button[aria-pressed=true]')][0]; archive?.click()",
            );
        } else if let Some(id) = self.random.of(listed) {
            self.offer(&id, "Archive");
            patiently("it is in the archive", || self.node.read(&id)["archived"] == true);
            self.chats.get_mut(&id).unwrap().archived = true;
        }
    }

    fn search(&self, words: &str) {
        let body = "const field = document.querySelector('input[type=search]');
            field.value = arguments[0];
            field.dispatchEvent(new Event('input', { bubbles: true }));";
        self.app.script_with(body, &json!([words]));
    }

    /// A window that was loaded begins with the chat that has no message yet, and cannot undo what was before.
    fn opened_anew(&mut self) {
        self.deleted = None;
        let id = self.node.unsent();
        self.shows(&id);
    }

    /// Ends the app, by Quit or by a crash, and opens it again.
    fn restart(mut self, killed: bool) -> Self {
        let Self { app, .. } = self;
        let folder = app.folder.clone();
        let desktop = if killed {
            std::thread::sleep(SAVED_AFTER);
            app.kill()
        } else {
            app.quit()
        };
        self.app = App::start(desktop, &folder);
        self.node = Node::of(&self.app);
        // What was deleted is deleted for good.
        self.chats.retain(|_, chat| !chat.deleted);
        self.opened_anew();
        self
    }

    /// Compares all that must be there with what the node has, and with what the window shows.
    fn check(&mut self) {
        let under_way = self.node.answering();
        for (id, chat) in self.chats.iter_mut().filter(|(_, chat)| !chat.deleted) {
            let read = self.node.read(id);
            assert!(read["messages"].is_array(), "{}: {id} is lost: {read}", self.what);
            let grows =
                chat.asked.is_some() || chat.again.is_some() || under_way.contains(id) || self.grew.contains(id);
            chat.learn(&read);
            chat.check(&read, grows, &self.what);
        }
        self.grew = under_way;
        let mut there: Vec<String> =
            self.node.list().iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect();
        there.sort();
        let kept = self.chats.iter().filter(|(_, chat)| !chat.deleted && chat.last.is_some());
        assert_eq!(there, kept.map(|(id, _)| id.clone()).collect::<Vec<_>>(), "{}: the node's list", self.what);
        let there = || {
            let list = "return [...document.querySelectorAll('.list .title')].map((title) => title.getAttribute('aria-describedby').slice(6)).sort()";
            self.app.script(list)
        };
        let listed = json!(self.listed());
        patiently_or(|| format!("{}: listed {}, not {listed}", self.what, there()), || there() == listed);
        let shown = || {
            self.app.script(
                "return [document.querySelector('.field textarea').value, document.querySelector('h1').title,
                    [...document.querySelectorAll('[data-message]')].map((message) => [message.dataset.message,
                        (message.querySelector('.text') ?? message.querySelector('.body'))?.innerText ?? ''])]",
            )
        };
        let agrees = || {
            let (shown, read) = (shown(), self.node.read(&self.open));
            let (there, here) = (read["messages"].as_array().unwrap(), shown[2].as_array().unwrap());
            shown[0] == read["draft"]
                && shown[1] == read["title"]
                && there.len() == here.len()
                && there.iter().zip(here).all(|(there, here)| {
                    there["id"] == here[0] && letters(&here[1]).starts_with(&letters(&there["text"]))
                })
        };
        let differs = || format!("{}: the window shows {:#}, not {:#}", self.what, shown(), self.node.read(&self.open));
        patiently_or(differs, agrees);
    }
}

/// The first letters of a text, without what Markdown makes of it.
fn letters(text: &Value) -> String {
    text.as_str().unwrap_or_default().chars().filter(|letter| letter.is_alphabetic()).take(30).collect()
}

#[test]
#[allow(clippy::print_stderr, reason = "a failure is repeated by its seed and its steps")]
fn whatever_a_person_does_nothing_is_lost_and_nothing_doubled() {
    let long = std::env::var_os("HIVEMIND_TEST_LONG").is_some();
    let seed = std::env::var("HIVEMIND_CHAOS_SEED").map_or(7, |seed| seed.parse().expect("a seed is a number"));
    let home = tempfile::tempdir().unwrap();
    settle(home.path(), "Studio");
    let app = App::start(Desktop::new(Look::Light), home.path());
    let node = Node::of(&app);
    let mut person = Person {
        app,
        node,
        chats: BTreeMap::new(),
        open: String::new(),
        deleted: None,
        grew: Vec::new(),
        // Near seeds would begin alike.
        random: Random(seed ^ 0x9e37_79b9_7f4a_7c15),
        step: 0,
        what: "the first look".to_owned(),
    };
    person.opened_anew();
    for step in 1..=if long { 200 } else { 40 } {
        // Both ends of an app are in every run.
        let killed = match step {
            14 => true,
            28 => false,
            _ => person.random.below(3) > 0,
        };
        person.step = step;
        loop {
            let action = if matches!(step, 14 | 28) { "restart" } else { person.random.action() };
            person.what = format!("step {step} of seed {seed}, {action}");
            if action == "restart" {
                person = person.restart(killed);
            } else if !person.act(action) {
                // Not possible now.
                continue;
            }
            break;
        }
        eprintln!("{}", person.what);
        person.check();
    }
    person.app.quit();
}
