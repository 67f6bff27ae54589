//! The answers in progress, and who watches which conversation.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hive_types::{Trouble, if_known};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::conversation::{Conversation, Message};
use crate::error::ChatError;
use crate::model::{Failure, Model};
use crate::store::{Store, StoreError};

type Result<T> = std::result::Result<T, ChatError>;

/// Events kept for a watcher that is slow; one that misses some is sent the whole conversation.
pub(crate) const KEPT_EVENTS: usize = 256;

/// The status of an answer in progress.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Status {
    /// Nothing to report: it waits for its turn, or words are coming.
    #[default]
    Answering,
    /// Reading the prompt.
    Reading {
        /// Tokens read so far.
        tokens: u32,
        /// Tokens in total.
        of: u32,
    },
    /// The answer has run into trouble, and continues.
    Recovering {
        /// What happened, in words.
        why: String,
        /// The same, as a value.
        #[cfg_attr(feature = "specta", specta(type = Option<Trouble>))]
        #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
        trouble: Option<Trouble>,
    },
    /// The answer is complete, but could not be saved yet.
    Unsaved {
        /// Why not.
        why: String,
    },
}

/// An event for a watcher of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "specta", derive(specta::Type))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ChatEvent {
    /// The conversation as it is now: first, and after every change but those below.
    Whole {
        /// The conversation.
        conversation: Box<Conversation>,
        /// The message that is being written.
        answering: Option<String>,
        /// Its status.
        status: Status,
        /// Why the last answer was interrupted, in words.
        problem: Option<String>,
        /// The code of that problem in error replies, if it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    },
    /// More text of the message that is being written.
    Text {
        /// The text.
        text: String,
    },
    /// The answer in progress does something else.
    Status {
        /// Its status.
        status: Status,
    },
    /// The conversation was deleted.
    Deleted,
}

/// An answer that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// The conversation.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Whether the answer is complete.
    pub complete: bool,
    /// How long it took, in seconds.
    pub took_s: f64,
}

/// An answer in progress.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) message: Message,
    pub(crate) status: Status,
    pub(crate) stop: CancellationToken,
    /// Cancelled when the answer is saved.
    pub(crate) ended: CancellationToken,
    pub(crate) began: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// Answers in progress, by conversation.
    pub(crate) live: HashMap<String, Live>,
    /// Why the last answer of a conversation was interrupted.
    pub(crate) problems: HashMap<String, Failure>,
    pub(crate) watchers: HashMap<String, broadcast::Sender<ChatEvent>>,
    /// Conversations that may want a title of the model.
    pub(crate) untitled: VecDeque<String>,
    /// Ends the writing of titles; none while none is written.
    pub(crate) naming: Option<CancellationToken>,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) model: Box<dyn Model>,
    pub(crate) state: Mutex<State>,
    /// Counts the changes of the list.
    pub(crate) list: watch::Sender<u64>,
    /// Counts the changes of presets and prompts.
    pub(crate) shelf: watch::Sender<u64>,
    pub(crate) ended: broadcast::Sender<Ended>,
    pub(crate) tasks: TaskTracker,
    pub(crate) closing: CancellationToken,
}

/// Runs a use of the store, which waits for the disk, where that holds nobody up.
pub(crate) async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(run).await {
        Ok(made) => made,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl Inner {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn model(&self) -> &dyn Model {
        &*self.model
    }

    pub(crate) async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Tells watchers of the list that it has changed.
    pub(crate) fn listed(&self) {
        self.list.send_modify(|count| *count += 1);
    }

    pub(crate) async fn store<T: Send + 'static>(
        self: &Arc<Self>,
        run: impl FnOnce(&Store) -> std::result::Result<T, StoreError> + Send + 'static,
    ) -> std::result::Result<T, StoreError> {
        let inner = self.clone();
        blocking(move || run(&inner.store)).await
    }

    /// A conversation, including the text so far of its answer in progress.
    pub(crate) fn conversation(&self, state: &State, id: &str) -> Result<Conversation> {
        let found = self.store.get(id)?;
        let mut conversation = found.ok_or_else(|| StoreError::NoConversation(id.to_owned()))?;
        if let Some(live) = state.live.get(id) {
            for message in conversation.messages.iter_mut().filter(|message| message.id == live.message.id) {
                let branches = std::mem::take(&mut message.branches);
                *message = Message { branches, ..live.message.clone() };
            }
        }
        Ok(conversation)
    }

    pub(crate) fn whole(&self, state: &State, id: &str) -> Result<ChatEvent> {
        let (live, problem) = (state.live.get(id), state.problems.get(id));
        Ok(ChatEvent::Whole {
            conversation: Box::new(self.conversation(state, id)?),
            answering: live.map(|live| live.message.id.clone()),
            status: live.map(|live| live.status.clone()).unwrap_or_default(),
            problem: problem.map(|problem| problem.why.clone()),
            code: problem.and_then(|problem| problem.code).map(str::to_owned),
        })
    }

    fn show(state: &State, id: &str, event: ChatEvent) {
        if let Some(watchers) = state.watchers.get(id) {
            // Nobody may be watching any more.
            let _ = watchers.send(event);
        }
    }

    pub(crate) fn show_whole(&self, state: &State, id: &str) {
        if state.watchers.get(id).is_some_and(|watchers| watchers.receiver_count() > 0) {
            match self.whole(state, id) {
                Ok(whole) => Self::show(state, id, whole),
                Err(error) => tracing::warn!("a conversation cannot be shown: {error}"),
            }
        }
    }

    /// Sets the status of an answer in progress.
    pub(crate) fn set_status(&self, id: &str, status: Status) {
        let mut state = self.state();
        let Some(live) = state.live.get_mut(id) else { return };
        if live.status != status {
            live.status = status.clone();
            Self::show(&state, id, ChatEvent::Status { status });
        }
    }

    /// Shows more text of an answer in progress.
    pub(crate) fn grown(&self, id: &str, message: &Message, text: String) {
        let mut state = self.state();
        let Some(live) = state.live.get_mut(id) else { return };
        live.message.clone_from(message);
        if text.is_empty() {
            return;
        }
        if live.status != Status::default() {
            live.status = Status::default();
            Self::show(&state, id, ChatEvent::Status { status: Status::default() });
        }
        Self::show(&state, id, ChatEvent::Text { text });
    }

    /// Saves how far an answer has come.
    pub(crate) async fn save(self: &Arc<Self>, id: &str, message: &Message) -> std::result::Result<(), StoreError> {
        let (id, message) = (id.to_owned(), message.clone());
        self.store(move |store| {
            // An empty answer is not kept, unless the model itself ended it.
            let nothing = message.text.is_empty() && !message.complete;
            if nothing { Ok(()) } else { store.write(&id, &message) }
        })
        .await
    }

    /// Ends an answer that is saved.
    pub(crate) async fn ended(self: &Arc<Self>, id: &str, message: &Message, problem: Option<Failure>) {
        let (inner, id, message) = (self.clone(), id.to_owned(), message.clone());
        blocking(move || {
            let nothing = message.text.is_empty() && !message.complete;
            if nothing && let Err(error) = inner.store.drop_answer(&id, &message.id) {
                tracing::warn!("an empty answer stays: {error}");
            }
            let mut state = inner.state();
            let live = state.live.remove(&id);
            if let Some(problem) = problem {
                state.problems.insert(id.clone(), problem);
            }
            if message.complete && !state.untitled.contains(&id) {
                state.untitled.push_back(id.clone());
            }
            inner.show_whole(&state, &id);
            drop(state);
            if let Some(live) = live {
                let title = inner.store.get(&id).ok().flatten().map(|found| found.title).unwrap_or_default();
                let took_s = live.began.elapsed().as_secs_f64();
                let _ = inner.ended.send(Ended { id, title, complete: message.complete, took_s });
                live.ended.cancel();
            }
            inner.listed();
        })
        .await;
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("store", &self.store).finish_non_exhaustive()
    }
}

/// A watched conversation.
#[derive(Debug)]
pub struct Watch {
    pub(crate) id: String,
    pub(crate) first: Option<ChatEvent>,
    pub(crate) events: broadcast::Receiver<ChatEvent>,
    pub(crate) inner: Arc<Inner>,
}

impl Watch {
    /// The next event; none after the conversation was deleted.
    pub async fn next(&mut self) -> Option<ChatEvent> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        match self.events.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Closed) => None,
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let (inner, id) = (self.inner.clone(), self.id.clone());
                let caught_up = blocking(move || {
                    let state = inner.state();
                    // Later events follow this one.
                    let events = state.watchers.get(&id)?.subscribe();
                    Some((inner.whole(&state, &id).ok()?, events))
                });
                let (whole, events) = caught_up.await?;
                self.events = events;
                Some(whole)
            }
        }
    }
}
