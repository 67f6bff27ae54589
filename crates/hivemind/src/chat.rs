//! `hivemind chat`: answers one prompt or piped input, or holds a conversation on the terminal or line by line.

mod history;
mod prompt;
mod typed;

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use hive_node::{Conversation, Message, Request, Sampling};
use jiff::civil::DateTime;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Broken, Failure, report};
use crate::output::Progress;
use crate::talk::{Answer, Figures, Piece, Talk};
use crate::{output, swarm, values};
use prompt::{Line, Prompt};
use typed::{Command, Typed};

pub(crate) use typed::HELP;

/// Help text of the chat template option.
const TEMPLATE_OPTION: &str = "Option of the model's chat template, such as enable_thinking=false or reasoning_effort=high; \
                               can be repeated";

#[derive(Debug, Args)]
pub(crate) struct ChatOptions {
    #[command(flatten)]
    pub(crate) run: swarm::RunOptions,
    /// Answer this prompt and exit; piped input is appended to it
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) prompt: Option<String>,
    /// Answer piped input line by line, as one conversation; by default, all of it is one question
    #[arg(long, conflicts_with = "prompt")]
    pub(crate) lines: bool,
    /// Do not save your input for later chats
    #[arg(long, env = "HIVEMIND_NO_HISTORY")]
    pub(crate) no_history: bool,
    /// System prompt: instructions placed before the conversation
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) system: Option<String>,
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = hive_node::variable, help = TEMPLATE_OPTION)]
    pub(crate) variables: Vec<(String, serde_json::Value)>,
    /// Maximum length of the answer, in tokens
    #[arg(
        long,
        value_name = "N",
        value_parser = values::number("a number of tokens, such as 500", 0_usize..),
        allow_negative_numbers = true
    )]
    pub(crate) max_tokens: Option<usize>,
    /// Stop the answer at this text; can be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) stop: Vec<String>,
    #[command(flatten)]
    pub(crate) sampling: SamplingOptions,
    /// Print one JSON object per answer
    #[arg(long)]
    pub(crate) json: bool,
}

/// How tokens are chosen.
#[derive(Debug, Clone, Args)]
#[allow(clippy::struct_field_names)]
pub(crate) struct SamplingOptions {
    /// Randomness: 0 always picks the likeliest token, higher is more random
    #[arg(
        long,
        default_value_t = 0.0,
        value_name = "T",
        value_parser = values::decimal::<f32>("a temperature, such as 0.7"),
        allow_negative_numbers = true
    )]
    temperature: f32,
    /// Sample only from the K likeliest tokens
    #[arg(
        long,
        default_value_t = 0,
        value_name = "K",
        value_parser = values::number("a number of tokens, such as 40", 0_u32..),
        allow_negative_numbers = true
    )]
    top_k: u32,
    /// Sample only from the likeliest tokens that together have this probability
    #[arg(
        long,
        default_value_t = 1.0,
        value_name = "P",
        value_parser = values::decimal::<f32>("a probability, such as 0.9"),
        allow_negative_numbers = true
    )]
    top_p: f32,
    /// Sample only from tokens at least this likely relative to the likeliest
    #[arg(
        long,
        default_value_t = 0.0,
        value_name = "P",
        value_parser = values::decimal::<f32>("a probability, such as 0.05"),
        allow_negative_numbers = true
    )]
    min_p: f32,
    /// Make tokens that have already appeared less likely; 1 is off
    #[arg(
        long,
        default_value_t = 1.0,
        value_name = "X",
        value_parser = values::decimal::<f32>("a penalty, such as 1.1"),
        allow_negative_numbers = true
    )]
    repetition_penalty: f32,
    /// Sampling seed: the same seed gives the same answer; by default, a new one each time
    #[arg(
        long,
        value_name = "S",
        value_parser = values::number("a seed: a whole number, such as 42", 0_u64..),
        allow_negative_numbers = true
    )]
    seed: Option<u64>,
}

impl SamplingOptions {
    /// The sampling settings; without `--seed`, the seed is taken from the clock.
    pub(crate) fn sampling(&self) -> Sampling {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let arbitrary = now.map_or(0, |time| time.as_nanos() as u64);
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed.unwrap_or(arbitrary),
            ..Sampling::default()
        }
    }
}

pub(crate) async fn run(options: ChatOptions, folder: &Path) -> Result<(), Failure> {
    let sampling = options.sampling.sampling();
    // Report a wrong setting before loading a model.
    sampling.check().map_err(Failure::usage)?;
    if options.max_tokens == Some(0) {
        return Err(Failure::usage("cannot answer in 0 tokens").hint("set --max-tokens to at least 1"));
    }
    let talk = Talk::open(&options.run, folder).await?;
    let interrupts = signal(SignalKind::interrupt()).map_err(Failure::new)?;
    let mut chat =
        Chat { talk: &talk, sampling, began: now(), messages: Vec::new(), broken: None, interrupts, options: &options };
    if let Some(system) = &options.system {
        chat.messages.push(Message::new("system", system.clone()));
    }
    let result = chat.run(folder).await;
    talk.close().await;
    result
}

struct Chat<'a> {
    talk: &'a Talk,
    sampling: Sampling,
    /// When the conversation began, for chat templates that include the date.
    began: DateTime,
    messages: Vec<Message>,
    /// The answer to the last message, if it was interrupted.
    broken: Option<Box<Broken>>,
    /// Ctrl-C. There is one receiver, so that each interrupt is seen once: by the answer that it stops, or by the prompt.
    interrupts: Signal,
    options: &'a ChatOptions,
}

/// The local time.
fn now() -> DateTime {
    jiff::ZonedDateTime::now().datetime()
}

/// How an answer ended.
enum End {
    Complete(Box<Figures>),
    /// Stopped with Ctrl-C; the text so far is kept.
    Stopped,
}

impl Chat<'_> {
    async fn run(&mut self, folder: &Path) -> Result<(), Failure> {
        if self.options.prompt.is_none() && prompt::is_possible() {
            return self.converse(folder).await;
        }
        if self.options.prompt.is_none() && (self.options.lines || std::io::stdin().is_terminal()) {
            return self.answer_lines().await;
        }
        let read = async {
            match self.options.prompt {
                None => piped().await,
                Some(_) if is_piped() => piped_soon().await,
                Some(_) => Ok(String::new()),
            }
        };
        let piped = tokio::select! {
            piped = read => piped?,
            _ = self.interrupts.recv() => return Err(Failure::interrupted()),
        };
        let parts = [self.options.prompt.as_deref().unwrap_or_default(), piped.trim_end()];
        let question = parts.into_iter().filter(|part| !part.trim().is_empty()).collect::<Vec<_>>().join("\n\n");
        if question.is_empty() {
            return Err(Failure::usage("no question was given").hint("use --prompt, or pipe a question in"));
        }
        match self.ask(question).await? {
            End::Stopped if !self.has_answer() => Err(Failure::interrupted()),
            // The text so far counts as a result.
            End::Stopped | End::Complete(_) => Ok(()),
        }
    }

    /// Answers each input line as one turn of a single conversation.
    async fn answer_lines(&mut self) -> Result<(), Failure> {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        loop {
            let line = tokio::select! {
                line = lines.next_line() => line.map_err(unreadable)?,
                _ = self.interrupts.recv() => return Err(Failure::stopped("stopped")),
            };
            let Some(line) = line else { return Ok(()) };
            if line.trim().is_empty() {
                continue;
            }
            // A failed turn ends the run: in a pipe, nobody would notice it.
            if let End::Stopped = self.ask(line).await? {
                output::note("stopped");
            }
        }
    }

    /// Answers turn after turn on a terminal, until the user quits.
    async fn converse(&mut self, folder: &Path) -> Result<(), Failure> {
        output::note(self.talk.describe());
        output::note("Ctrl-C stops an answer, Ctrl-D ends the chat. Type /help for more.");
        let mut prompt = Prompt::open(Some(folder).filter(|_| !self.options.no_history))?;
        loop {
            output::space();
            match prompt.ask(&mut self.interrupts).await {
                Line::Typed(text) => {
                    if self.turn(&text).await.is_break() {
                        return Ok(());
                    }
                }
                Line::End => return Ok(()),
                Line::Interrupted { was_empty: true } => output::note("Ctrl-D or /bye ends the chat."),
                Line::Interrupted { was_empty: false } => {}
                Line::Unreadable => output::note("That was not UTF-8 text; check the terminal's settings."),
            }
        }
    }

    /// Runs the typed command, or answers the typed message.
    async fn turn(&mut self, text: &str) -> ControlFlow<()> {
        match typed::read(text) {
            Typed::Nothing => {}
            Typed::Unknown(why) => output::note(why),
            Typed::Command(Command::Leave) => return ControlFlow::Break(()),
            Typed::Command(Command::Help) => output::note(HELP),
            Typed::Command(Command::Clear) => {
                self.begin_anew();
                output::note("Started a new conversation.");
            }
            Typed::Command(Command::Continue) => {
                if let Some(broken) = self.broken.take() {
                    let answered = self.answer(Some(broken)).await;
                    self.tell(answered);
                } else {
                    output::note("Nothing to continue.");
                }
            }
            Typed::Message(message) => {
                if self.broken.take().is_some() {
                    // Drop the question that was not answered, so that it is not sent with the next one.
                    self.messages.pop();
                }
                let answered = self.ask(message).await;
                self.tell(answered);
            }
        }
        ControlFlow::Continue(())
    }

    /// Reports how an answer ended. A failed turn does not end the conversation.
    fn tell(&self, answered: Result<End, Failure>) {
        match answered {
            Ok(End::Complete(figures)) => output::note(remark(&figures)),
            Ok(End::Stopped) => output::note("stopped"),
            Err(failure) => drop(report(&self.explain(failure))),
        }
    }

    /// Forgets the messages; the system prompt stays.
    fn begin_anew(&mut self) {
        self.broken = None;
        self.began = now();
        self.messages.truncate(usize::from(self.options.system.is_some()));
    }

    /// Whether the last question has a complete or partial answer.
    fn has_answer(&self) -> bool {
        self.messages.last().is_some_and(|message| message.role == "assistant")
    }

    async fn ask(&mut self, prompt: String) -> Result<End, Failure> {
        self.messages.push(Message::new("user", prompt));
        self.answer(None).await
    }

    /// Answers the last message, resuming `broken` if there is one, and keeps both in the conversation.
    async fn answer(&mut self, broken: Option<Box<Broken>>) -> Result<End, Failure> {
        let conversation = Conversation {
            variables: self.options.variables.iter().cloned().collect(),
            began: Some(self.began),
            ..Conversation::new(self.messages.clone())
        };
        let mut request = Request {
            conversation,
            sampling: self.sampling.clone(),
            max_tokens: self.options.max_tokens,
            stop: self.options.stop.clone(),
            ..Request::new(Vec::new())
        };
        let mut before = String::new();
        if let Some(broken) = &broken {
            before.clone_from(&broken.text);
            request.max_tokens = request.max_tokens.map(|most| most.saturating_sub(broken.tokens.len()).max(1));
            request.resume_tokens.clone_from(&broken.tokens);
            request.sampling.seed = broken.seed;
        }
        let asked = tokio::select! {
            asked = self.talk.ask(request) => asked.map(Some),
            // Also covers the time while the model loads.
            _ = self.interrupts.recv() => Ok(None),
        };
        let outcome = match asked {
            Ok(Some(answer)) => self.follow(answer).await,
            Ok(None) => Ok((String::new(), End::Stopped)),
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok((text, end)) => {
                if self.options.json {
                    output::line(json(&text, &end));
                }
                let whole = before + &text;
                if whole.is_empty() && matches!(end, End::Stopped) {
                    // Drop the withdrawn question, so that it is not sent with the next one.
                    self.messages.pop();
                } else {
                    self.messages.push(Message::new("assistant", whole));
                }
                Ok(end)
            }
            Err(mut failure) => {
                self.broken = match failure.broken.take() {
                    Some(again) => Some(Box::new(Broken { text: before + &again.text, ..*again })),
                    // The resumed answer produced nothing; keep what there was.
                    None => broken,
                };
                if self.broken.is_none() {
                    // Drop the question that was not answered, so that it is not sent with the next one.
                    self.messages.pop();
                }
                Err(failure)
            }
        }
    }

    /// In a conversation, adds a hint how to resume the interrupted answer.
    fn explain(&self, failure: Failure) -> Failure {
        match &self.broken {
            Some(_) => failure.hint(format!("{} picks up where it stopped; or ask something else", typed::CONTINUE)),
            None => failure,
        }
    }

    /// Shows an answer as it streams in.
    async fn follow(&mut self, mut pieces: Answer) -> Result<(String, End), Failure> {
        let mut answer = String::new();
        let is_json = self.options.json;
        let show = |text: &str| {
            if !is_json {
                output::piece(text);
            }
        };
        // Shows progress while a long prompt is read, until the first token.
        let mut reading: Option<Progress> = None;
        let end = loop {
            let piece = tokio::select! {
                piece = pieces.next() => piece,
                // Returning drops the answer, which cancels it on every machine.
                _ = self.interrupts.recv() => break End::Stopped,
            };
            match piece {
                Ok(Piece::Reading { tokens, of }) => {
                    reading.get_or_insert_with(|| Progress::new("Reading:", of, "tokens")).set(tokens);
                }
                Ok(Piece::Text(text)) => {
                    reading = None;
                    show(&text);
                    answer += &text;
                }
                Ok(Piece::Note(status)) => output::note(format_args!("\n{status}…")),
                Ok(Piece::End(figures)) => {
                    for name in &figures.unknown_options {
                        output::note(format_args!(
                            "\n--set {name} had no effect: the model's chat template has no option \"{name}\"."
                        ));
                    }
                    break End::Complete(figures);
                }
                Err(failure) => {
                    show("\n");
                    return Err(failure);
                }
            }
        };
        show("\n");
        Ok((answer, end))
    }
}

/// Who computed the answer, and how fast.
fn remark(figures: &Figures) -> String {
    format!(
        "{:.1} tok/s · {} · {:.1} s to first word",
        figures.decode_tokens_per_s,
        swarm::who(&figures.stages),
        figures.ttft_ms / 1e3
    )
}

fn json(text: &str, end: &End) -> serde_json::Value {
    match end {
        End::Complete(figures) => serde_json::json!({
            "text": text,
            "tokens": figures.tokens,
            "prompt_tokens": figures.prompt_tokens,
            "cached_tokens": figures.cached_tokens,
            "completion_tokens": figures.completion_tokens,
            "finish_reason": figures.finish_reason,
            "ttft_ms": figures.ttft_ms,
            "decode_tokens_per_s": figures.decode_tokens_per_s,
            "stages": figures.stages,
            "unknown_options": figures.unknown_options,
        }),
        End::Stopped => serde_json::json!({ "text": text, "finish_reason": "cancelled" }),
    }
}

/// Whether standard input is a pipe or a file. Under a service or a test it is neither, and there is nothing to read.
fn is_piped() -> bool {
    let kind = std::io::stdin().as_fd().try_clone_to_owned().and_then(|fd| std::fs::File::from(fd).metadata());
    kind.is_ok_and(|kind| kind.file_type().is_fifo() || kind.file_type().is_file())
}

/// How long `--prompt` waits for piped input: many programs leave the pipe open and never write. After `PIPE_SILENCE` a
/// note says what is being waited for; a slow command has the rest of `PIPE_TIMEOUT`.
const PIPE_TIMEOUT: Duration = Duration::from_secs(15);
const PIPE_SILENCE: Duration = Duration::from_secs(2);

/// Reads all piped input, if any arrives in time.
async fn piped_soon() -> Result<String, Failure> {
    let mut input = tokio::io::stdin();
    let mut bytes = vec![0; 4096];
    let mut read = std::pin::pin!(tokio::time::timeout(PIPE_TIMEOUT, input.read(&mut bytes)));
    let read = if let Ok(read) = tokio::time::timeout(PIPE_SILENCE, &mut read).await {
        read
    } else {
        output::note("Waiting for piped input; if there is none, add </dev/null to the command.");
        read.await
    };
    let Ok(read) = read else {
        output::note("No piped input arrived; answering the prompt without it.");
        return Ok(String::new());
    };
    bytes.truncate(read.map_err(unread)?);
    input.read_to_end(&mut bytes).await.map_err(unread)?;
    String::from_utf8(bytes).map_err(|_| not_utf_8())
}

/// Reads all piped input.
async fn piped() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    tokio::io::stdin().read_to_end(&mut bytes).await.map_err(unread)?;
    String::from_utf8(bytes).map_err(|_| not_utf_8())
}

/// An error while reading lines, where invalid UTF-8 is an I/O error.
fn unreadable(error: std::io::Error) -> Failure {
    if error.kind() == std::io::ErrorKind::InvalidData { not_utf_8() } else { unread(error) }
}

#[allow(clippy::needless_pass_by_value, reason = "map_err passes it by value")]
fn unread(error: std::io::Error) -> Failure {
    Failure::new(format_args!("cannot read the input: {error}"))
}

fn not_utf_8() -> Failure {
    Failure::new("the input is not UTF-8 text").hint("convert it first, for example with iconv")
}
