#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use futures_util::future::{BoxFuture, ready};
use futures_util::stream;
use tokio::sync::Semaphore;

use super::*;
use crate::chats::Chats;
use crate::conversation::Choices;
use crate::model::{Asked, Failure, Model};
use crate::store::Store;

/// Answers questions at once, and with a permit for a title says this.
#[derive(Clone)]
struct Namer {
    title: &'static str,
    permits: Arc<Semaphore>,
    bytes: Arc<AtomicU64>,
    busy: Arc<AtomicBool>,
    /// How often it has been asked whether it is busy.
    polled: Arc<AtomicUsize>,
    /// Titles that are being written, and questions for one so far.
    writing: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<Question>>>,
    /// Whether answers wait until they are stopped.
    slow: Arc<AtomicBool>,
}

impl Namer {
    fn new(title: &'static str, permits: usize) -> Self {
        Self {
            title,
            permits: Arc::new(Semaphore::new(permits)),
            bytes: Arc::new(AtomicU64::new(2_000_000_000)),
            busy: Arc::default(),
            polled: Arc::default(),
            writing: Arc::default(),
            asked: Arc::default(),
            slow: Arc::default(),
        }
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

struct Writing(Arc<AtomicUsize>);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Model for Namer {
    fn answer(&self, question: Question) -> Pin<Box<dyn Future<Output = Result<Asked, Failure>> + Send>> {
        let namer = self.clone();
        let wants_title = question.turns.last().unwrap().text.contains("Write a title");
        let writing = wants_title.then(|| {
            namer.asked.lock().unwrap().push(question);
            namer.writing.fetch_add(1, Ordering::SeqCst);
            Writing(namer.writing.clone())
        });
        let end = async move {
            let text = if writing.is_some() {
                namer.permits.acquire().await.unwrap().forget();
                namer.title
            } else {
                while namer.slow.load(Ordering::SeqCst) {
                    sleep(Duration::from_millis(1)).await;
                }
                "Yes"
            };
            let (tokens, prompt_tokens) = (vec![1], 7);
            AnswerEvent::Finished {
                text: text.to_owned(),
                tokens,
                prompt_tokens,
                tokens_per_s: 1.0,
                first_s: 1.0,
                cut: false,
            }
        };
        let events = stream::once(end).boxed();
        Box::pin(ready(Ok(Asked { machines: Vec::new(), context_limit: 100, unknown_options: Vec::new(), events })))
    }

    fn weight_bytes(&self, _: &Choices) -> BoxFuture<'static, Option<u64>> {
        Box::pin(ready(Some(self.bytes.load(Ordering::SeqCst))))
    }

    fn is_busy(&self) -> bool {
        self.polled.fetch_add(1, Ordering::SeqCst);
        self.busy.load(Ordering::SeqCst)
    }
}

fn open(folder: &Path, model: &Namer) -> Chats {
    Chats::new(Store::open(folder).unwrap(), model.clone())
}

async fn until(is: impl AsyncFn() -> bool) {
    let reached = async {
        while !is().await {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(10), reached).await.expect("it never came");
}

/// Until no title is being written.
async fn until_none_is_named(chats: &Chats) {
    until(async || chats.inner.state().naming.is_none()).await;
}

/// Until every answer so far has had its turn to get a title.
async fn until_all_had_their_turn(chats: &Chats) {
    let is_over = async || {
        let state = chats.inner.state();
        state.live.is_empty() && state.untitled.is_empty() && state.naming.is_none()
    };
    until(is_over).await;
}

async fn asked(chats: &Chats, question: &str) -> String {
    let id = chats.begin().await.unwrap().id;
    chats.ask(&id, question, None).await.unwrap();
    until(async || chats.answering() == 0).await;
    id
}

async fn title(chats: &Chats, id: &str) -> String {
    chats.get(id).await.unwrap().title
}

#[tokio::test]
async fn a_new_chat_gets_a_title_once_and_shows_nothing_of_it() {
    let (folder, model) = (tempfile::tempdir().unwrap(), Namer::new("\"Lisbon in a week.\"", 0));
    let chats = open(folder.path(), &model);
    let id = asked(&chats, "Plan a week in Lisbon, please").await;
    until(async || model.writing.load(Ordering::SeqCst) == 1).await;
    // While it is written, the chat is as if nothing was.
    assert_eq!((chats.answering(), title(&chats, &id).await.as_str()), (0, "Plan a week in Lisbon, please"));
    assert!(!chats.list("").await.unwrap()[0].answering);
    let changes = chats.changes();
    model.permits.add_permits(1);
    until(async || title(&chats, &id).await == "Lisbon in a week").await;
    until(async || changes.has_changed().unwrap()).await;
    assert_eq!(chats.get(&id).await.unwrap().messages.len(), 2);
    chats.ask(&id, "And in winter?", None).await.unwrap();
    until_all_had_their_turn(&chats).await;
    assert_eq!(model.asked(), 1, "a chat with a title needs no other");
    chats.close().await;
    drop(chats);
    assert_eq!(title(&open(folder.path(), &model), &id).await, "Lisbon in a week");
}

#[tokio::test]
async fn a_title_of_a_person_stays() {
    let (folder, model) = (tempfile::tempdir().unwrap(), Namer::new("Bees and honey", 0));
    let chats = open(folder.path(), &model);
    let id = asked(&chats, "What do bees do?").await;
    until(async || model.writing.load(Ordering::SeqCst) == 1).await;
    chats.rename(&id, "Mine").await.unwrap();
    model.permits.add_permits(1);
    until_all_had_their_turn(&chats).await;
    assert_eq!(title(&chats, &id).await, "Mine");
    // Named before its first question.
    let early = chats.begin().await.unwrap().id;
    chats.rename(&early, "Early").await.unwrap();
    assert_eq!(asked(&chats, "What do wasps do?").await, early);
    until_all_had_their_turn(&chats).await;
    assert_eq!((title(&chats, &early).await.as_str(), model.asked()), ("Early", 1));
}

#[tokio::test]
async fn a_persons_question_ends_the_writing_of_a_title_which_comes_later() {
    let (folder, model) = (tempfile::tempdir().unwrap(), Namer::new("Bees and honey", 0));
    let chats = open(folder.path(), &model);
    let first = asked(&chats, "What do bees do?").await;
    until(async || model.writing.load(Ordering::SeqCst) == 1).await;
    model.slow.store(true, Ordering::SeqCst);
    let second = chats.begin().await.unwrap().id;
    chats.ask(&second, "What do wasps do?", None).await.unwrap();
    model.permits.add_permits(2);
    until_none_is_named(&chats).await;
    assert_eq!((title(&chats, &first).await.as_str(), model.asked()), ("What do bees do?", 1), "a person waits");
    model.slow.store(false, Ordering::SeqCst);
    for id in [&first, &second] {
        until(async || title(&chats, id).await == "Bees and honey").await;
    }
    assert_eq!(model.asked(), 3);
}

#[tokio::test]
async fn no_title_comes_from_a_small_or_busy_model_or_where_it_is_switched_off() {
    let (folder, model) = (tempfile::tempdir().unwrap(), Namer::new("Bees and honey", 9));
    let chats = open(folder.path(), &model);
    model.bytes.store(98_000_000, Ordering::SeqCst);
    asked(&chats, "What do bees do?").await;
    until_all_had_their_turn(&chats).await;
    model.bytes.store(2_000_000_000, Ordering::SeqCst);
    chats.set_titles(false).await.unwrap();
    asked(&chats, "What do wasps do?").await;
    until_all_had_their_turn(&chats).await;
    chats.set_titles(true).await.unwrap();
    model.busy.store(true, Ordering::SeqCst);
    let id = asked(&chats, "What do ants do?").await;
    until(async || model.polled.load(Ordering::SeqCst) == 2).await;
    assert_eq!((model.asked(), title(&chats, &id).await.as_str()), (0, "What do ants do?"));
    model.busy.store(false, Ordering::SeqCst);
    until(async || title(&chats, &id).await == "Bees and honey").await;
}

#[tokio::test]
async fn closing_waits_for_no_title_and_loses_nothing() {
    let (folder, model) = (tempfile::tempdir().unwrap(), Namer::new("Bees and honey", 0));
    let chats = open(folder.path(), &model);
    let id = asked(&chats, "What do bees do?").await;
    until(async || model.writing.load(Ordering::SeqCst) == 1).await;
    timeout(Duration::from_secs(5), chats.close()).await.expect("closing waits");
    drop(chats);
    let again = open(folder.path(), &model);
    let read = again.get(&id).await.unwrap();
    assert_eq!((read.title.as_str(), read.messages[1].text.as_str()), ("What do bees do?", "Yes"));
    // The next answer brings it.
    model.permits.add_permits(1);
    again.ask(&id, "And honey?", None).await.unwrap();
    until(async || title(&again, &id).await == "Bees and honey").await;
}

#[tokio::test]
async fn what_is_no_title_is_not_asked_for_again() {
    let (folder, model) = (tempfile::tempdir().unwrap(), Namer::new("What do bees do?", 9));
    let chats = open(folder.path(), &model);
    let id = asked(&chats, "What do bees do?").await;
    until_all_had_their_turn(&chats).await;
    assert_eq!(model.asked(), 1);
    chats.ask(&id, "And honey?", None).await.unwrap();
    until_all_had_their_turn(&chats).await;
    assert_eq!((title(&chats, &id).await.as_str(), model.asked()), ("What do bees do?", 1));
}
