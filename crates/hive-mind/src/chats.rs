//! The conversations and their answers in progress, for everyone who changes or watches them.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answer;
use crate::conversation::{Choices, Conversation, Entry, Message, Role};
use crate::error::ChatError;
use crate::live::{ChatEvent, Ended, Inner, KEPT_EVENTS, Live, Status, Watch, blocking};
use crate::model::{Model, Question, Turn};
use crate::store::{Store, StoreError};

type Result<T> = std::result::Result<T, ChatError>;

/// The conversations of this machine's owner. Clones share them.
#[derive(Clone)]
pub struct Chats {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for Chats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chats").field("state", &self.inner.state).finish_non_exhaustive()
    }
}

impl Chats {
    /// The conversations in `store`, answered by `model`.
    pub fn new(store: Store, model: impl Model) -> Self {
        let inner = Inner {
            store,
            model: Box::new(model),
            state: Mutex::default(),
            list: watch::Sender::new(0),
            shelf: watch::Sender::new(0),
            ended: broadcast::Sender::new(KEPT_EVENTS),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Stops all answers in progress and waits until they are saved.
    pub async fn close(&self) {
        self.inner.closing.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// A counter that changes whenever the list of conversations does.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.list.subscribe()
    }

    /// Receives each answer's end.
    pub fn ended(&self) -> broadcast::Receiver<Ended> {
        self.inner.ended.subscribe()
    }

    /// How many answers are in progress.
    pub fn answering(&self) -> usize {
        self.inner.state().live.len()
    }

    /// Conversations whose title or messages contain the words, pinned ones first, then newest first; all if `words` is
    /// empty. Conversations without a message are not listed.
    pub async fn list(&self, words: &str) -> Result<Vec<Entry>> {
        let words = words.to_owned();
        let mut list = self.inner.store(move |store| store.list(&words)).await?;
        let state = self.inner.state();
        for entry in &mut list {
            entry.answering = state.live.contains_key(&entry.id);
        }
        drop(state);
        Ok(list)
    }

    /// Reads a conversation, with the text so far of an answer in progress.
    pub async fn get(&self, id: &str) -> Result<Conversation> {
        let inner = self.inner.clone();
        let id = id.to_owned();
        blocking(move || inner.conversation(&inner.state(), &id)).await
    }

    /// Returns the latest conversation without messages, with its draft, or creates one if there is none.
    pub async fn begin(&self) -> Result<Conversation> {
        Ok(self.inner.store(Store::begin).await?)
    }

    /// Creates a conversation, even if there is one without messages.
    pub async fn create(&self) -> Result<Conversation> {
        Ok(self.inner.store(Store::create).await?)
    }

    /// Asks a question and begins its answer. With `edited`, the question is another version of that message; otherwise
    /// it follows the last message shown.
    pub async fn ask(&self, id: &str, text: &str, edited: Option<&str>) -> Result<()> {
        let text = text.trim().to_owned();
        if text.is_empty() {
            return Err(ChatError::NoQuestion);
        }
        let (of, edited) = (id.to_owned(), edited.map(str::to_owned));
        self.start(id, move |store| store.ask(&of, edited.as_deref(), &text, new_seed())?.ok_or(ChatError::NoQuestion))
            .await
    }

    /// Begins another answer to a question; `message` is the question or one of its answers.
    pub async fn answer_again(&self, id: &str, message: &str) -> Result<()> {
        let (of, message) = (id.to_owned(), message.to_owned());
        self.start(id, move |store| store.answer_again(&of, &message, new_seed())?.ok_or(ChatError::NoQuestion)).await
    }

    /// Resumes the last message shown from its last token, if it is an answer that was stopped or interrupted.
    pub async fn resume(&self, id: &str) -> Result<()> {
        let of = id.to_owned();
        self.start(id, move |store| {
            let conversation = store.get(&of)?.ok_or(StoreError::NoConversation(of))?;
            let last = conversation.messages.into_iter().next_back();
            last.filter(|last| last.role == Role::Assistant && !last.complete).ok_or(ChatError::NothingToContinue)
        })
        .await
    }

    /// Begins the answer that `begin` writes to the store.
    async fn start(&self, id: &str, begin: impl FnOnce(&Store) -> Result<Message> + Send + 'static) -> Result<()> {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        let (stop, ended) = (inner.closing.child_token(), CancellationToken::new());
        {
            // Claimed before anything is written, so that two questions at once do not both begin.
            let mut state = inner.state();
            if inner.closing.is_cancelled() {
                return Err(ChatError::Stopping);
            }
            if state.live.contains_key(&id) {
                return Err(ChatError::Answering);
            }
            let live = Live {
                message: Message::default(),
                status: Status::default(),
                stop: stop.clone(),
                ended,
                began: Instant::now(),
            };
            state.live.insert(id.clone(), live);
            state.problems.remove(&id);
            // A person comes first.
            if let Some(naming) = &state.naming {
                naming.cancel();
            }
        }
        let mut claim = Claim { inner: inner.clone(), id: id.clone(), kept: false };
        let (of, writer) = (id.clone(), inner.clone());
        let (message, question) = blocking(move || {
            let message = begin(&writer.store)?;
            let conversation = writer.store.get(&of)?.ok_or(StoreError::NoConversation(of))?;
            let question = question(&conversation, &message);
            Ok::<_, ChatError>((message, question))
        })
        .await?;
        {
            let mut state = inner.state();
            if let Some(live) = state.live.get_mut(&id) {
                live.message = message.clone();
            }
            inner.show_whole(&state, &id);
        }
        inner.listed();
        claim.kept = true;
        inner.tasks.spawn(answer::run(inner.clone(), id, question, message, stop));
        Ok(())
    }

    /// Stops the answer in progress, if there is one, and waits until it is saved.
    pub async fn stop(&self, id: &str) {
        let ended = {
            let state = self.inner.state();
            state.live.get(id).map(|live| {
                live.stop.cancel();
                live.ended.clone()
            })
        };
        if let Some(ended) = ended {
            ended.cancelled().await;
        }
    }

    /// Shows the branch that contains this version of a message.
    pub async fn choose(&self, id: &str, message: &str) -> Result<()> {
        if self.inner.state().live.contains_key(id) {
            return Err(ChatError::Answering);
        }
        let message = message.to_owned();
        self.change(id, move |store, id| store.choose(id, &message)).await
    }

    /// Renames a conversation.
    pub async fn rename(&self, id: &str, title: &str) -> Result<()> {
        let title = title.to_owned();
        self.change(id, move |store, id| store.rename(id, &title)).await
    }

    /// Sets the system prompt.
    pub async fn instruct(&self, id: &str, system: &str) -> Result<()> {
        let system = system.to_owned();
        Ok(self.on(id, move |store, id| store.instruct(id, &system)).await?)
    }

    /// Saves text that was typed but not sent.
    pub async fn draft(&self, id: &str, draft: &str) -> Result<()> {
        let draft = draft.to_owned();
        Ok(self.on(id, move |store, id| store.draft(id, &draft)).await?)
    }

    /// Saves an edited question that was not sent; an empty one ends the edit.
    pub async fn edit(&self, id: &str, message: &str, text: &str) -> Result<()> {
        let (message, text) = (message.to_owned(), text.to_owned());
        Ok(self.on(id, move |store, id| store.edit(id, &message, &text)).await?)
    }

    /// Sets model and sampling.
    pub async fn set_choices(&self, id: &str, choices: Choices) -> Result<()> {
        Ok(self.on(id, move |store, id| store.set_choices(id, &choices)).await?)
    }

    /// Pins a conversation to the top of the list, or unpins it.
    pub async fn pin(&self, id: &str, pinned: bool) -> Result<()> {
        self.change(id, move |store, id| store.pin(id, pinned)).await
    }

    /// Archives a conversation, or takes it back from the archive.
    pub async fn archive(&self, id: &str, archived: bool) -> Result<()> {
        self.change(id, move |store, id| store.archive(id, archived)).await
    }

    /// Stops an answer in progress and deletes the conversation; [`Chats::restore`] brings it back until the next start.
    pub async fn delete(&self, id: &str) -> Result<()> {
        self.stop(id).await;
        self.on(id, Store::delete).await?;
        let mut state = self.inner.state();
        if let Some(watchers) = state.watchers.remove(id) {
            let _ = watchers.send(ChatEvent::Deleted);
        }
        drop(state);
        self.inner.listed();
        Ok(())
    }

    /// Brings a deleted conversation back.
    pub async fn restore(&self, id: &str) -> Result<()> {
        self.change(id, Store::restore).await
    }

    /// Writes a whole conversation, for example one from another machine. It replaces one with the same ID.
    pub async fn import(&self, conversation: Conversation) -> Result<()> {
        let id = conversation.id.clone();
        self.stop(&id).await;
        self.change(&id, move |store, _| store.import(&conversation)).await
    }

    /// Watches a conversation.
    pub async fn watch(&self, id: &str) -> Result<Watch> {
        let (inner, id) = (self.inner.clone(), id.to_owned());
        blocking(move || {
            let mut state = inner.state();
            let whole = inner.whole(&state, &id)?;
            state.watchers.retain(|_, watchers| watchers.receiver_count() > 0);
            let sender = state.watchers.entry(id.clone()).or_insert_with(|| broadcast::Sender::new(KEPT_EVENTS));
            let events = sender.subscribe();
            drop(state);
            Ok(Watch { id, first: Some(whole), events, inner })
        })
        .await
    }

    async fn on(
        &self,
        id: &str,
        change: impl FnOnce(&Store, &str) -> std::result::Result<(), StoreError> + Send + 'static,
    ) -> std::result::Result<(), StoreError> {
        let id = id.to_owned();
        self.inner.store(move |store| change(store, &id)).await
    }

    /// Changes something that the list and the watchers show.
    async fn change(
        &self,
        id: &str,
        change: impl FnOnce(&Store, &str) -> std::result::Result<(), StoreError> + Send + 'static,
    ) -> Result<()> {
        self.on(id, change).await?;
        let (inner, id) = (self.inner.clone(), id.to_owned());
        blocking(move || inner.show_whole(&inner.state(), &id)).await;
        self.inner.listed();
        Ok(())
    }
}

/// Marks a conversation as being answered. Dropping it removes the mark, unless the answer has begun (`kept`).
struct Claim {
    inner: Arc<Inner>,
    id: String,
    kept: bool,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Some(live) = self.inner.state().live.remove(&self.id) {
            live.ended.cancel();
        }
    }
}

fn new_seed() -> u32 {
    // 31 bits, which JavaScript and `SQLite` hold exactly.
    getrandom::u32().unwrap_or_default() >> 1
}

/// The question to the model whose answer is `message`: the messages before it, and the answer's tokens so far.
fn question(conversation: &Conversation, message: &Message) -> Question {
    let system = conversation.system.trim();
    let system = (!system.is_empty()).then(|| Turn { role: "system", text: system.to_owned() });
    let before = conversation.messages.iter().take_while(|before| before.id != message.id);
    let turn = |message: &Message| Turn { role: message.role.name(), text: message.text.clone() };
    Question {
        turns: system.into_iter().chain(before.map(turn)).collect(),
        choices: conversation.choices.clone(),
        seed: message.seed,
        resume_tokens: message.tokens.clone(),
        began_s: conversation.began_s,
        aside: false,
    }
}

#[cfg(test)]
#[path = "chats_tests.rs"]
mod tests;
