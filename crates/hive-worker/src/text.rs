//! A model's text: its headers, tokenizer and chat template, read in a separate process.
//!
//! Strangers write all of these, and a chat template is a program. So the node never parses them: a **text worker**
//! does, one per open model, confined to that model's files, with a memory limit and a timeout per order. A file that
//! crashes its worker costs one clear error; the node, its other models and their answers continue. Orders carry all
//! their state, so a restarted worker resumes where the last one died.

mod actor;
mod card;
mod error;
mod order;
mod serve;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hive_net::border;
use hive_text::detokenizer::Detokenizer;
use hive_text::reasoning::Splitter;
use hive_text::template::Conversation;
use hive_weights::Extent;
use hive_weights::weights::AtLoad;
use jiff::civil::DateTime;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::protocol::Raw;
use actor::{Actor, Ask};
use order::{Order, Reply};

pub(crate) use actor::confine;
pub use card::ModelCard;
pub use error::{TextError, TextFault};
pub(crate) use serve::serve;

/// Covers the headers and norms of a large model on a slow disk, and the parsing of the largest vocabularies.
const OPEN_TIMEOUT: Duration = Duration::from_mins(1);
/// A conversation of a few thousand tokens takes milliseconds.
const PROMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// A long conversation adds a second per this many bytes.
const PROMPT_BYTES_PER_S: u64 = 100_000;
/// Decoding a token takes microseconds, but a restarted worker reads the vocabulary first.
const TEXT_TIMEOUT: Duration = Duration::from_secs(5);

/// Above the size of any model's file, in bytes.
const MOST_FILE_BYTES: u64 = 1 << 50;
/// Above three for each of a model's tensors.
const MOST_EXTENTS: usize = 1 << 20;

/// Capacity of the queue of orders to a text worker.
const QUEUE: usize = 64;

/// An open model's text. Clones share the process, which ends with the last of them.
#[derive(Debug, Clone)]
pub struct Model {
    inner: Arc<Inner>,
    /// How it is quantized at load, and its figures then.
    quantized: Option<Arc<(AtLoad, ModelCard)>>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    name: String,
    card: ModelCard,
    asks: mpsc::Sender<Ask>,
    _actor: AbortOnDropHandle<()>,
}

impl Model {
    /// Opens a `.gguf` file or a model's folder. `name` is shown to people.
    pub async fn open(path: &Path, name: &str) -> Result<Self, TextError> {
        let (asks, queue) = mpsc::channel(QUEUE);
        #[allow(clippy::disallowed_methods, reason = "it ends with the last handle to the model")]
        let actor = AbortOnDropHandle::new(tokio::spawn(Actor::new(path.to_owned()).run(queue)));
        let card = match ask(&asks, Order::Card, OPEN_TIMEOUT).await? {
            Reply::Card(card) => card.checked()?,
            _ => return Err(TextError::nonsense()),
        };
        let name = border::line(name, border::REASON_COLUMNS);
        let inner = Inner { path: path.to_owned(), name, card: *card, asks, _actor: actor };
        Ok(Self { inner: Arc::new(inner), quantized: None })
    }

    /// The same model, quantized as it is loaded. One that is quantized already stays as it is.
    #[must_use]
    pub fn quantized(self, at_load: Option<AtLoad>) -> Self {
        let chosen = at_load.filter(|choice| self.inner.card.at_load.iter().any(|(known, _)| known == choice));
        let quantized = chosen.map(|choice| Arc::new((choice, self.inner.card.quantized(at_load).into_owned())));
        Self { quantized, ..self }
    }

    /// How it is quantized as it is loaded, if it is.
    pub fn at_load(&self) -> Option<AtLoad> {
        self.quantized.as_ref().map(|quantized| quantized.0)
    }

    /// The file or folder.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Its name for people.
    pub fn name(&self) -> String {
        self.inner.name.clone()
    }

    /// The model's figures.
    pub fn card(&self) -> &ModelCard {
        self.quantized.as_ref().map_or(&self.inner.card, |quantized| &quantized.1)
    }

    /// The bytes of its files that say what the model is: with these alone, it opens and has the same digest.
    pub async fn outline(&self) -> Result<Vec<Extent>, TextError> {
        self.extents_by(Order::Outline).await
    }

    /// The bytes of its files that hold these layers.
    pub async fn extents(&self, layers: Range<usize>) -> Result<Vec<Extent>, TextError> {
        self.extents_by(Order::Extents(layers)).await
    }

    async fn extents_by(&self, order: Order) -> Result<Vec<Extent>, TextError> {
        let is_sane = |extent: &Extent| extent.bytes.start < extent.bytes.end && extent.bytes.end <= MOST_FILE_BYTES;
        match self.ask(order, OPEN_TIMEOUT).await? {
            Reply::Extents(extents) if extents.len() <= MOST_EXTENTS && extents.iter().all(is_sane) => Ok(extents),
            _ => Err(TextError::nonsense()),
        }
    }

    /// Loads tokenizer and chat template, so that the first conversation need not wait for them. A missing chat
    /// template is not an error here.
    pub async fn prepare(&self) -> Result<(), TextError> {
        match self.ask(Order::Prepare, OPEN_TIMEOUT).await? {
            Reply::Prepared => Ok(()),
            _ => Err(TextError::nonsense()),
        }
    }

    /// Checks that the model can hold conversations: that it has a usable tokenizer and chat template.
    pub async fn can_converse(&self) -> Result<(), TextError> {
        match self.ask(Order::Converse, OPEN_TIMEOUT).await? {
            Reply::Prepared => Ok(()),
            _ => Err(TextError::nonsense()),
        }
    }

    /// Checks that an adapter suits the model, by the bytes of its configuration and of the file with its matrices.
    pub async fn check_adapter(&self, config: Vec<u8>, tensors: Vec<u8>) -> Result<(), TextError> {
        let timeout = prompt_timeout(tensors.len());
        match self.ask(Order::Adapter(Raw(config), Raw(tensors)), timeout).await? {
            Reply::Prepared => Ok(()),
            _ => Err(TextError::nonsense()),
        }
    }

    /// Options of a conversation that the chat template does not use.
    pub async fn unknown_options(&self, conversation: &Conversation) -> Result<Vec<String>, TextError> {
        if conversation.variables.is_empty() {
            return Ok(Vec::new());
        }
        match self.ask(Order::Options, OPEN_TIMEOUT).await? {
            Reply::Options(known) => {
                let unknown = conversation.variables.keys().filter(|name| !known.contains(name));
                Ok(unknown.cloned().collect())
            }
            _ => Err(TextError::nonsense()),
        }
    }

    /// The tokens of a conversation, ready for the assistant's answer. `began` is its start time, unless it has one
    /// itself.
    pub async fn prompt(&self, conversation: &Conversation, began: DateTime) -> Result<Vec<u32>, TextError> {
        let json = serde_json::to_vec(conversation).map_err(|error| TextError::Died(error.to_string()))?;
        let timeout = prompt_timeout(json.len());
        match self.ask(Order::Prompt { json, began }, timeout).await? {
            Reply::Tokens(tokens) if self.knows(&tokens) => Ok(tokens),
            _ => Err(TextError::nonsense()),
        }
    }

    /// Splits the thinking off an answer to this conversation. An answer that broke off continues after its tokens,
    /// which
    /// are not given again.
    pub async fn splitter(&self, conversation: &Conversation, resume_tokens: &[u32]) -> Result<Splitter, TextError> {
        let json = serde_json::to_vec(conversation).map_err(|error| TextError::Died(error.to_string()))?;
        let timeout = prompt_timeout(json.len());
        let (markers, inside) = match self.ask(Order::Thinking(json), timeout).await? {
            Reply::Thinking(Some((markers, inside))) => (markers, inside),
            Reply::Thinking(None) => return Ok(Splitter::new(None, false)),
            _ => return Err(TextError::nonsense()),
        };
        let mut splitter = Splitter::new(Some(markers), inside);
        let mut said = Detokenizer::new();
        for token in resume_tokens {
            said.window_with(*token);
        }
        // Text given before is known already.
        splitter.push(&self.finish(&mut said).await?);
        Ok(splitter)
    }

    /// The number of tokens of a text, in which nothing is a special token.
    pub async fn count(&self, text: &str) -> Result<u64, TextError> {
        match self.ask(Order::Count(text.to_owned()), prompt_timeout(text.len())).await? {
            Reply::Counted(tokens) => Ok(tokens),
            _ => Err(TextError::nonsense()),
        }
    }

    /// Appends the next token of an answer; returns the text that is now final, which may be empty.
    pub async fn push(&self, answer: &mut Detokenizer, token: u32) -> Result<String, TextError> {
        let (given, all) = self.texts(answer.window_with(token)).await?;
        Ok(answer.take(&given, &all))
    }

    /// The remaining text of an answer.
    pub async fn finish(&self, answer: &mut Detokenizer) -> Result<String, TextError> {
        let (given, all) = self.texts(answer.window()).await?;
        Ok(answer.take_all(&given, &all))
    }

    async fn texts(&self, (given, all): (&[u32], &[u32])) -> Result<(String, String), TextError> {
        if all.is_empty() {
            return Ok(Default::default());
        }
        let order = Order::Texts { tokens: all.to_vec(), given: given.len() as u32 };
        let reply = match self.ask(order.clone(), TEXT_TIMEOUT).await {
            // An answer must not end because a process hung: retry once.
            Err(TextError::Late(_)) => self.ask(order, TEXT_TIMEOUT).await,
            reply => reply,
        };
        match reply? {
            Reply::Texts(given, all) => Ok((given, all)),
            _ => Err(TextError::nonsense()),
        }
    }

    fn knows(&self, tokens: &[u32]) -> bool {
        tokens.iter().all(|token| (*token as usize) < self.inner.card.vocabulary)
    }

    async fn ask(&self, order: Order, timeout: Duration) -> Result<Reply, TextError> {
        ask(&self.inner.asks, order, timeout).await
    }
}

fn prompt_timeout(bytes: usize) -> Duration {
    PROMPT_TIMEOUT + Duration::from_secs(bytes as u64 / PROMPT_BYTES_PER_S)
}

async fn ask(asks: &mpsc::Sender<Ask>, order: Order, timeout: Duration) -> Result<Reply, TextError> {
    let ended = || TextError::Died("it has ended".to_owned());
    let (reply, replied) = oneshot::channel();
    asks.send(Ask::Order(order, reply)).await.map_err(|_| ended())?;
    if let Ok(reply) = tokio::time::timeout(timeout, replied).await {
        return reply.unwrap_or_else(|_| Err(ended()));
    }
    // The worker hangs: restart it.
    let _ = asks.send(Ask::Restart).await;
    Err(TextError::Late(timeout.as_secs()))
}
