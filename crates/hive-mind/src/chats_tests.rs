#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::too_many_lines)]

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use hive_types::{Loss, Trouble};
use tokio::sync::mpsc;

use super::*;
use crate::model::{AnswerEvent, Asked, Failure};

/// Writes one word per permit; what it writes depends on the question alone, so that a resumed answer can be compared.
#[derive(Clone)]
struct Script {
    words: usize,
    permits: Arc<tokio::sync::Semaphore>,
    asked: Arc<Mutex<Vec<Question>>>,
    running: Arc<AtomicUsize>,
}

impl Script {
    fn new(words: usize, permits: usize) -> Self {
        let permits = Arc::new(tokio::sync::Semaphore::new(permits));
        Self { words, permits, asked: Arc::default(), running: Arc::default() }
    }
}

fn word(question: &str, number: usize) -> String {
    format!("{}{number} ", question.chars().next().unwrap_or('?'))
}

fn answer_of(question: &str, words: usize) -> String {
    (0..words).map(|number| word(question, number)).collect()
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Model for Script {
    fn answer(&self, question: Question) -> Pin<Box<dyn Future<Output = std::result::Result<Asked, Failure>> + Send>> {
        let script = self.clone();
        script.running.fetch_add(1, Ordering::SeqCst);
        let running = Running(script.running.clone());
        script.asked.lock().unwrap().push(question.clone());
        Box::pin(async move {
            if question.turns.last().unwrap().text == "refuse" {
                return Err(Failure { why: "no room".to_owned(), code: Some("no_plan") });
            }
            let (send, receive) = mpsc::channel(8);
            tokio::spawn(async move {
                let _running = running;
                let text = question.turns.last().unwrap().text.clone();
                for number in question.resume_tokens.len()..script.words {
                    let permit = tokio::select! {
                        permit = script.permits.acquire() => permit.unwrap(),
                        () = send.closed() => return,
                    };
                    permit.forget();
                    if text == "lose" && number == 2 {
                        send.send(AnswerEvent::Recovering(attic_left())).await.unwrap();
                        send.send(AnswerEvent::Machines(vec!["Studio".to_owned()])).await.unwrap();
                    }
                    if text == "break" && number == 2 {
                        let _ = send.send(AnswerEvent::Failed("all machines left".to_owned().into())).await;
                        return;
                    }
                    let token = AnswerEvent::Token { token: number as u32, text: word(&text, number) };
                    if send.send(token).await.is_err() {
                        return;
                    }
                }
                let tokens = (0..script.words as u32).collect();
                let end = AnswerEvent::Finished {
                    text: String::new(),
                    tokens,
                    prompt_tokens: 7,
                    tokens_per_s: 20.0,
                    first_s: 0.5,
                    cut: false,
                };
                let _ = send.send(end).await;
            });
            let machines = vec!["Attic".to_owned(), "Studio".to_owned()];
            let events =
                futures_util::stream::unfold(receive, |mut events| async { Some((events.recv().await?, events)) });
            Ok(Asked { machines, context_limit: 100, unknown_options: Vec::new(), events: events.boxed() })
        })
    }
}

fn attic_left() -> Trouble {
    Trouble::Lost { machine: "Attic".to_owned(), loss: Loss::Left }
}

fn open(folder: &Path, script: &Script) -> Chats {
    Chats::new(Store::open(folder).unwrap(), script.clone())
}

async fn until_done(chats: &Chats) {
    while chats.answering() > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn texts(chats: &Chats, id: &str) -> Vec<String> {
    chats.get(id).await.unwrap().messages.into_iter().map(|message| message.text).collect()
}

/// What a watcher that only applies events has at last.
async fn watched(
    mut watch: Watch,
    until: impl Fn(&Conversation, Option<&str>) -> bool,
) -> (Conversation, Option<String>) {
    let (mut shown, mut growing, mut why) = (Conversation::default(), None, None);
    loop {
        match watch.next().await.unwrap() {
            ChatEvent::Whole { conversation, answering, problem, .. } => {
                (shown, growing, why) = (*conversation, answering, problem);
            }
            ChatEvent::Text { text } => {
                let message = shown.messages.iter_mut().find(|message| Some(&message.id) == growing.as_ref());
                message.unwrap().text += &text;
            }
            ChatEvent::Status { .. } => {}
            ChatEvent::Deleted => panic!("deleted"),
        }
        if until(&shown, growing.as_deref()) {
            return (shown, why);
        }
    }
}

fn is_done(conversation: &Conversation, growing: Option<&str>) -> bool {
    growing.is_none() && !conversation.messages.is_empty()
}

#[tokio::test]
async fn an_answer_needs_no_window_and_every_window_sees_all_of_it() {
    let (folder, script) = (tempfile::tempdir().unwrap(), Script::new(30, 10));
    let chats = open(folder.path(), &script);
    let id = chats.begin().await.unwrap().id;
    let early = tokio::spawn(watched(chats.watch(&id).await.unwrap(), is_done));
    chats.ask(&id, "bees", None).await.unwrap();
    // A window that is left in the middle, and another that comes in the middle.
    let left = watched(chats.watch(&id).await.unwrap(), |shown, _| shown.messages[1].text.len() > 5).await;
    assert!(answer_of("bees", 30).starts_with(&left.0.messages[1].text));
    let all = |shown: &Conversation, _: Option<&str>| shown.messages[1].text == answer_of("bees", 10);
    watched(chats.watch(&id).await.unwrap(), all).await;
    assert_eq!(texts(&chats, &id).await[1], answer_of("bees", 10), "what is not saved yet is there, too");
    let late = tokio::spawn(watched(chats.watch(&id).await.unwrap(), is_done));
    assert!(matches!(chats.ask(&id, "more", None).await, Err(ChatError::Answering)));
    script.permits.add_permits(20);
    for window in [early, late] {
        let (shown, why) = window.await.unwrap();
        assert_eq!((shown.messages[1].text.clone(), why), (answer_of("bees", 30), None));
        assert_eq!(chats.get(&id).await.unwrap(), shown);
    }
    let answer = chats.get(&id).await.unwrap().messages.remove(1);
    assert_eq!(answer.note.as_deref(), Some("20.0 tok/s · Attic + Studio · 0.5 s to first word"));
    assert_eq!((answer.complete, answer.tokens.len()), (true, 30));
    let computed = answer.computed.unwrap();
    assert_eq!((computed.context_tokens, computed.context_limit), (Some(37), Some(100)));
}

#[tokio::test]
async fn conversations_are_answered_at_the_same_time() {
    let (folder, script) = (tempfile::tempdir().unwrap(), Script::new(5, 0));
    let chats = open(folder.path(), &script);
    let mut ids = Vec::new();
    for question in ["ants", "bees", "cats", "dogs"] {
        let id = chats.begin().await.unwrap().id;
        chats.ask(&id, question, None).await.unwrap();
        ids.push((id, question));
    }
    while script.running.load(Ordering::SeqCst) < 4 {
        tokio::task::yield_now().await;
    }
    assert!(chats.list("").await.unwrap().iter().all(|entry| entry.answering));
    script.permits.add_permits(20);
    until_done(&chats).await;
    for (id, question) in ids {
        assert_eq!(texts(&chats, &id).await, [question.to_owned(), answer_of(question, 5)]);
    }
    assert!(chats.list("").await.unwrap().iter().all(|entry| !entry.answering));
}

#[tokio::test]
async fn a_stopped_answer_is_resumed_from_its_last_token_after_a_restart_too() {
    let (folder, script) = (tempfile::tempdir().unwrap(), Script::new(12, 4));
    let chats = open(folder.path(), &script);
    let id = chats.begin().await.unwrap().id;
    chats.ask(&id, "bees", None).await.unwrap();
    watched(chats.watch(&id).await.unwrap(), |shown, _| {
        shown.messages.get(1).is_some_and(|answer| answer.text == answer_of("bees", 4))
    })
    .await;
    chats.stop(&id).await;
    let stopped = chats.get(&id).await.unwrap().messages.remove(1);
    assert_eq!((stopped.text.clone(), stopped.complete, stopped.tokens.len()), (answer_of("bees", 4), false, 4));
    assert!(stopped.note.unwrap().contains("Attic + Studio"), "a stopped answer says who computed it");
    chats.close().await;
    assert!(matches!(chats.resume(&id).await, Err(ChatError::Stopping)));
    drop(chats);
    let chats = open(folder.path(), &script);
    script.permits.add_permits(8);
    chats.resume(&id).await.unwrap();
    until_done(&chats).await;
    assert_eq!(texts(&chats, &id).await[1], answer_of("bees", 12));
    let asked = script.asked.lock().unwrap().clone();
    assert_eq!((asked[1].resume_tokens.clone(), asked[1].seed), (vec![0, 1, 2, 3], asked[0].seed));
    assert!(matches!(chats.resume(&id).await, Err(ChatError::NothingToContinue)));
}

#[tokio::test]
async fn a_crash_loses_at_most_a_second() {
    let (folder, script) = (tempfile::tempdir().unwrap(), Script::new(100, 20));
    let chats = open(folder.path(), &script);
    let id = chats.begin().await.unwrap().id;
    chats.ask(&id, "bees", None).await.unwrap();
    let all = |shown: &Conversation, _: Option<&str>| {
        shown.messages.get(1).is_some_and(|answer| answer.text == answer_of("bees", 20))
    };
    watched(chats.watch(&id).await.unwrap(), all).await;
    // What a crash at this moment would leave, as the next start would find it.
    let saved = || {
        let crashed = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap()) {
            std::fs::copy(file.path(), crashed.path().join(file.file_name())).unwrap();
        }
        let disk = rusqlite::Connection::open(crashed.path().join(crate::FILE)).unwrap();
        let sql = "SELECT text FROM message WHERE role = 'assistant'";
        disk.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap()
    };
    for words in [20, 40, 60] {
        let began = std::time::Instant::now();
        loop {
            let saved = saved();
            if saved == answer_of("bees", words) {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "not saved while it grows: {saved:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        script.permits.add_permits(20);
    }
}

#[tokio::test]
async fn what_is_done_while_an_answer_grows_stays_done() {
    let (folder, script) = (tempfile::tempdir().unwrap(), Script::new(6, 2));
    let chats = open(folder.path(), &script);
    let id = chats.begin().await.unwrap().id;
    chats.ask(&id, "bees", None).await.unwrap();
    watched(chats.watch(&id).await.unwrap(), |shown, _| shown.messages.get(1).is_some_and(|m| m.text.len() > 5)).await;
    chats.rename(&id, "Mine").await.unwrap();
    chats.draft(&id, "next").await.unwrap();
    assert!(matches!(chats.choose(&id, "x").await, Err(ChatError::Answering)));
    script.permits.add_permits(4);
    until_done(&chats).await;
    let read = chats.get(&id).await.unwrap();
    assert_eq!((read.title.as_str(), read.draft.as_str()), ("Mine", "next"));
    // Deleted in the middle of an answer, and brought back: the words that were there are there.
    chats.ask(&id, "wasps", None).await.unwrap();
    script.permits.add_permits(3);
    let third = |shown: &Conversation, _: Option<&str>| {
        shown.messages.get(3).is_some_and(|answer| answer.text == answer_of("wasps", 3))
    };
    watched(chats.watch(&id).await.unwrap(), third).await;
    let mut other = chats.watch(&id).await.unwrap();
    chats.delete(&id).await.unwrap();
    assert!(chats.get(&id).await.is_err() && script.running.load(Ordering::SeqCst) == 0);
    while let Some(event) = other.next().await {
        if event == ChatEvent::Deleted {
            break;
        }
    }
    chats.restore(&id).await.unwrap();
    assert_eq!(texts(&chats, &id).await[3], answer_of("wasps", 3));
}

#[tokio::test]
async fn a_lost_machine_is_a_new_part_and_a_lost_answer_keeps_its_words() {
    let (folder, script) = (tempfile::tempdir().unwrap(), Script::new(5, 100));
    let chats = open(folder.path(), &script);
    let id = chats.begin().await.unwrap().id;
    chats.ask(&id, "lose", None).await.unwrap();
    until_done(&chats).await;
    let parts = chats.get(&id).await.unwrap().messages.remove(1).computed.unwrap().parts;
    assert_eq!(parts.iter().map(|part| part.tokens).collect::<Vec<_>>(), [2, 3]);
    assert_eq!((parts[0].machines.len(), parts[1].machines.clone()), (2, vec!["Studio".to_owned()]));
    let after = parts[1].after.as_ref().unwrap();
    assert_eq!(after.trouble, Some(attic_left()));
    assert_eq!(after.why, "Attic left; continuing without it");
    for (question, why, kept) in [("break", "all machines left", Some("b0 b1 ")), ("refuse", "no room", None)] {
        chats.ask(&id, question, None).await.unwrap();
        let (shown, problem) = watched(chats.watch(&id).await.unwrap(), is_done).await;
        assert_eq!(problem.as_deref(), Some(why));
        let last = shown.messages.last().unwrap();
        // Without a word, the question stays and can be answered again.
        assert_eq!((last.text.as_str(), last.complete), (kept.unwrap_or(question), kept.is_none()));
    }
    let question = chats.get(&id).await.unwrap().messages.pop().unwrap();
    assert!(matches!(chats.ask(&id, " \n", None).await, Err(ChatError::NoQuestion)));
    assert!(matches!(chats.answer_again(&id, "nobody").await, Err(ChatError::NoQuestion)));
    chats.answer_again(&id, &question.id).await.unwrap();
    until_done(&chats).await;
    let (_, problem) = watched(chats.watch(&id).await.unwrap(), is_done).await;
    assert_eq!(problem.as_deref(), Some("no room"), "a new attempt has a problem of its own");
}

/// What a person must find in a conversation.
#[derive(Debug, Clone, Default, PartialEq)]
struct Expected {
    title: String,
    draft: String,
    /// All messages ever written: ID, parent's index, text.
    tree: Vec<(Option<usize>, String)>,
    /// The message shown last.
    leaf: Option<usize>,
    deleted: bool,
}

impl Expected {
    fn path(&self) -> Vec<String> {
        let (mut at, mut path) = (self.leaf, Vec::new());
        while let Some(index) = at {
            path.push(self.tree[index].1.clone());
            at = self.tree[index].0;
        }
        path.reverse();
        path
    }

    fn push(&mut self, parent: Option<usize>, text: String) -> usize {
        self.tree.push((parent, text));
        self.tree.len() - 1
    }

    /// The indices of the messages shown.
    fn shown(&self) -> Vec<usize> {
        let (mut at, mut path) = (self.leaf, Vec::new());
        while let Some(index) = at {
            path.push(index);
            at = self.tree[index].0;
        }
        path.reverse();
        path
    }
}

/// Two thousand random actions in chats of one person, restarts included: nothing is lost and nothing doubled.
#[tokio::test]
async fn random_actions_lose_nothing() {
    let (folder, script) = (tempfile::tempdir().unwrap(), Script::new(3, usize::MAX >> 4));
    let mut chats = open(folder.path(), &script);
    let mut expected: BTreeMap<String, Expected> = BTreeMap::new();
    let mut random = 88_172_645_463_325_252_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below.max(1) as u64) as usize
    };
    for step in 0..2000 {
        let ids: Vec<String> = expected.keys().cloned().collect();
        let Some(id) = (if ids.is_empty() { None } else { Some(ids[next(ids.len())].clone()) }) else {
            expected.insert(chats.begin().await.unwrap().id, Expected::default());
            continue;
        };
        let model = expected.get_mut(&id).unwrap();
        let action = next(12);
        if model.deleted && !matches!(action, 8..=10) {
            assert!(chats.get(&id).await.is_err());
            continue;
        }
        match action {
            0 | 1 => {
                let question = format!("{}{step}", char::from(b'a' + (step % 26) as u8));
                chats.ask(&id, &question, None).await.unwrap();
                let asked = model.push(model.leaf, question.clone());
                model.leaf = Some(model.push(Some(asked), answer_of(&question, 3)));
                if model.title.is_empty() {
                    model.title.clone_from(&question);
                }
                model.draft.clear();
            }
            2 => {
                model.title = format!("title {step}");
                chats.rename(&id, &model.title).await.unwrap();
            }
            3 => {
                model.draft = format!("draft {step}");
                chats.draft(&id, &model.draft).await.unwrap();
            }
            4..=6 if model.leaf.is_some() => {
                let shown = model.shown();
                let at = next(shown.len());
                let message = chats.get(&id).await.unwrap().messages[at].clone();
                match (action, message.role) {
                    (4, Role::User) => {
                        let question = format!("{}{step}", char::from(b'A' + (step % 26) as u8));
                        chats.ask(&id, &question, Some(&message.id)).await.unwrap();
                        let asked = model.push(model.tree[shown[at]].0, question.clone());
                        model.leaf = Some(model.push(Some(asked), answer_of(&question, 3)));
                    }
                    (5, role) => {
                        chats.answer_again(&id, &message.id).await.unwrap();
                        let question = if role == Role::User { shown[at] } else { shown[at - 1] };
                        let text = answer_of(&model.tree[question].1.clone(), 3);
                        model.leaf = Some(model.push(Some(question), text));
                    }
                    _ => {
                        let version = next(message.branches.len());
                        chats.choose(&id, &message.branches[version]).await.unwrap();
                        let parent = model.tree[shown[at]].0;
                        let versions = (0..model.tree.len()).filter(|&other| model.tree[other].0 == parent);
                        let mut leaf = versions.collect::<Vec<_>>()[version];
                        while let Some(child) =
                            (0..model.tree.len()).rev().find(|&child| model.tree[child].0 == Some(leaf))
                        {
                            leaf = child;
                        }
                        model.leaf = Some(leaf);
                    }
                }
            }
            7 => {
                // Another action before the answer is done.
                let question = format!("q{step}");
                chats.ask(&id, &question, None).await.unwrap();
                let asked = model.push(model.leaf, question.clone());
                model.leaf = Some(model.push(Some(asked), answer_of(&question, 3)));
                model.draft = format!("while {step}");
                chats.draft(&id, &model.draft).await.unwrap();
                model.title = format!("while {step}");
                chats.rename(&id, &model.title).await.unwrap();
            }
            8 if !model.deleted => {
                chats.delete(&id).await.unwrap();
                model.deleted = true;
            }
            9 if model.deleted => {
                chats.restore(&id).await.unwrap();
                model.deleted = false;
            }
            10 if step % 20 == 0 => {
                chats.close().await;
                drop(chats);
                chats = open(folder.path(), &script);
                expected.retain(|_, model| !model.deleted);
                continue;
            }
            11 if expected.len() < 6 => {
                let begun = chats.begin().await.unwrap();
                expected.entry(begun.id).or_default();
            }
            _ => {}
        }
        until_done(&chats).await;
        for (id, model) in expected.iter().filter(|(_, model)| !model.deleted) {
            let read = chats.get(id).await.unwrap();
            let path: Vec<String> = read.messages.iter().map(|message| message.text.clone()).collect();
            assert_eq!(
                (&read.title, &read.draft, path),
                (&model.title, &model.draft, model.path()),
                "step {step}, action {action}"
            );
        }
        let listed: Vec<_> = chats.list("").await.unwrap().into_iter().map(|entry| entry.id).collect();
        let visible = expected.iter().filter(|(_, model)| !model.deleted && model.leaf.is_some());
        let mut visible: Vec<_> = visible.map(|(id, _)| id.clone()).collect();
        let mut sorted = listed.clone();
        sorted.sort();
        visible.sort();
        assert_eq!(sorted, visible, "step {step}");
    }
}
