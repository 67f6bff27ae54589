//! The text worker's side: one thread reads orders and decodes tokens, another does slow work.

use std::fs::File;
use std::io::{Error, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};

use bytes::BytesMut;
use hive_host::sandbox::Confinement;
use hive_model::check_adapter;
use hive_text::Tokenizer;
use hive_text::template::{ChatTemplate, Conversation};
use hive_weights::adapter::Adapter;
use hive_weights::{ModelFiles, OpenError};

use super::super::protocol::{Raw, encode, next_whole};
use super::ModelCard;
use super::error::{TextFailure, TextFault};
use super::order::{Numbered, Order, Reply, Said};

/// Templates nest, and the parser recurses.
const STACK_BYTES: usize = 64 << 20;

/// Read size.
const READ_BYTES: usize = 256 << 10;

/// Serves until the node exits.
pub(in super::super) fn serve(
    model: &Path,
    confinement: Confinement,
    orders: File,
    answers: File,
) -> std::io::Result<()> {
    let say = Say(Arc::new(Mutex::new(answers)));
    say.said(&Said::Confined(confinement))?;
    let text = Arc::new(Text::new(model));
    let (later, queue) = mpsc::channel();
    let (slow_text, slow_say) = (text.clone(), say.clone());
    std::thread::Builder::new().name("slow".to_owned()).stack_size(STACK_BYTES).spawn(move || {
        for Numbered { number, what } in queue {
            // If sending fails, the node has exited, and the other thread ends the process.
            let _ = slow_say.reply(number, slow_text.obey(what));
        }
    })?;
    let mut orders = orders;
    let mut bytes = BytesMut::new();
    let mut room = vec![0; READ_BYTES];
    loop {
        while let Some(Numbered { number, what }) = next_whole(&mut bytes).map_err(Error::other)? {
            // Decoding an answer does not wait for a long prompt.
            if matches!(what, Order::Texts { .. }) && text.tokenizer.get().is_some() {
                say.reply(number, text.obey(what))?;
            } else if later.send(Numbered { number, what }).is_err() {
                return Err(Error::other("the thread for long work has ended"));
            }
        }
        match orders.read(&mut room)? {
            0 => return Ok(()),
            read => bytes.extend_from_slice(&room[..read]),
        }
    }
}

#[derive(Clone)]
struct Say(Arc<Mutex<File>>);

impl Say {
    fn said(&self, said: &Said) -> std::io::Result<()> {
        let bytes = encode(said).map_err(Error::other)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&bytes)
    }

    fn reply(&self, number: u64, what: Result<Reply, TextFailure>) -> std::io::Result<()> {
        self.said(&Said::Reply(Numbered { number, what }))
    }
}

fn conversation(json: &[u8]) -> Result<Conversation, TextFailure> {
    serde_json::from_slice(json).map_err(|why| TextFailure::new(TextFault::Conversation, why))
}

/// A model's text, read on demand.
struct Text {
    path: PathBuf,
    files: OnceLock<Result<ModelFiles, TextFailure>>,
    tokenizer: OnceLock<Result<Tokenizer, TextFailure>>,
    template: OnceLock<Result<ChatTemplate, TextFailure>>,
}

impl Text {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), files: OnceLock::new(), tokenizer: OnceLock::new(), template: OnceLock::new() }
    }

    /// If a library panics on a file, the file is damaged; the library's state is not used again.
    fn obey(&self, order: Order) -> Result<Reply, TextFailure> {
        let damaged =
            TextFailure::new(TextFault::File, "the model's tokenizer or chat template is damaged; download it again");
        catch_unwind(AssertUnwindSafe(|| self.try_to(order))).unwrap_or(Err(damaged))
    }

    fn try_to(&self, order: Order) -> Result<Reply, TextFailure> {
        match order {
            Order::Card => {
                let card = ModelCard::of(self.files()?);
                card.map(|card| Reply::Card(Box::new(card))).map_err(|error| TextFailure::new(TextFault::File, error))
            }
            Order::Outline => Ok(Reply::Extents(self.files()?.outline())),
            Order::Extents(layers) => Ok(Reply::Extents(self.files()?.extents(&layers))),
            Order::Prepare => {
                self.tokenizer()?;
                // The first conversation reports a failure.
                let _ = self.template();
                Ok(Reply::Prepared)
            }
            Order::Converse => {
                self.tokenizer()?;
                self.template()?;
                Ok(Reply::Prepared)
            }
            Order::Options => Ok(Reply::Options(self.template()?.options())),
            Order::Prompt { json, began } => {
                let mut conversation = conversation(&json)?;
                conversation.began.get_or_insert(began);
                let tokens = self.template()?.tokenize(self.tokenizer()?, &conversation);
                tokens.map(Reply::Tokens).map_err(|error| TextFailure::of_template(&error))
            }
            Order::Thinking(json) => {
                let template = self.template()?;
                let Some(markers) = template.thinking(self.tokenizer()?) else { return Ok(Reply::Thinking(None)) };
                let prompt = template.render(&conversation(&json)?);
                let prompt = prompt.map_err(|error| TextFailure::of_template(&error))?;
                Ok(Reply::Thinking(Some((markers, markers.is_open(&prompt)))))
            }
            Order::Adapter(Raw(config), Raw(tensors)) => {
                let files = self.files()?;
                let checked = Adapter::open(&config, &tensors).and_then(|adapter| check_adapter(files, &adapter));
                checked.map(|()| Reply::Prepared).map_err(|error| TextFailure::new(TextFault::Adapter, error))
            }
            Order::Count(text) => {
                let tokens = self.tokenizer()?.encode_literal(&text);
                let tokens = tokens.map_err(|error| TextFailure::new(TextFault::Tokens, error))?;
                Ok(Reply::Counted(tokens.len() as u64))
            }
            Order::Texts { tokens, given } => {
                let tokenizer = self.tokenizer()?;
                let text = |tokens: &[u32]| {
                    tokenizer.decode(tokens).map_err(|error| TextFailure::new(TextFault::Tokens, error))
                };
                Ok(Reply::Texts(text(tokens.get(..given as usize).unwrap_or_default())?, text(&tokens)?))
            }
        }
    }

    fn files(&self) -> Result<&ModelFiles, TextFailure> {
        let open = || {
            ModelFiles::open(&self.path).map_err(|error| {
                let fault = if matches!(error, OpenError::NotFound(_)) { TextFault::Missing } else { TextFault::File };
                TextFailure::new(fault, error)
            })
        };
        self.files.get_or_init(open).as_ref().map_err(Clone::clone)
    }

    fn tokenizer(&self) -> Result<&Tokenizer, TextFailure> {
        let load = || self.files()?.tokenizer().map_err(|error| TextFailure::new(TextFault::Tokens, error));
        self.tokenizer.get_or_init(load).as_ref().map_err(Clone::clone)
    }

    fn template(&self) -> Result<&ChatTemplate, TextFailure> {
        let load = || self.files()?.chat_template().map_err(|error| TextFailure::of_template(&error));
        self.template.get_or_init(load).as_ref().map_err(Clone::clone)
    }
}
