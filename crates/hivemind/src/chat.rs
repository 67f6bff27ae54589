//! `hivemind chat`: one answer, to what is given or piped in, or a conversation, in the terminal or line by line.

mod history;
mod prompt;
mod typed;

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use hive_node::{Conversation, Message, Request, Sampling};
use jiff::civil::DateTime;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::arguments::ChatOptions;
use crate::failure::{Broken, Failure, report};
use crate::output::Progress;
use crate::talk::{Answer, Figures, Piece, Talk};
use crate::{output, swarm};
use prompt::{Line, Prompt};
use typed::{Command, Typed};

pub(crate) use typed::HELP;

pub(crate) async fn run(options: ChatOptions, folder: &Path) -> Result<(), Failure> {
    let sampling = options.sampling.sampling();
    // A wrong setting is told before a model is loaded for it.
    sampling.check().map_err(Failure::usage)?;
    if options.max_tokens == Some(0) {
        return Err(Failure::usage("cannot answer in 0 tokens").hint("set --max-tokens to at least 1"));
    }
    let talk = Talk::open(&options.run, folder).await?;
    let mut chat = Chat { talk: &talk, sampling, began: now(), messages: Vec::new(), broken: None, options: &options };
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
    /// For models whose prompt says the day.
    began: DateTime,
    messages: Vec<Message>,
    /// The answer to the last message, if it broke off.
    broken: Option<Box<Broken>>,
    options: &'a ChatOptions,
}

/// The local time.
fn now() -> DateTime {
    jiff::ZonedDateTime::now().datetime()
}

/// How an answer came to its end.
enum End {
    Complete(Box<Figures>),
    /// Ctrl-C: the part that came stands.
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
        let piped = match self.options.prompt {
            None => piped().await?,
            Some(_) if is_piped() => piped_soon().await?,
            Some(_) => String::new(),
        };
        let parts = [self.options.prompt.as_deref().unwrap_or_default(), piped.trim_end()];
        let question = parts.into_iter().filter(|part| !part.trim().is_empty()).collect::<Vec<_>>().join("\n\n");
        if question.is_empty() {
            return Err(Failure::usage("no question was given").hint("use --prompt, or pipe a question in"));
        }
        match self.ask(question).await? {
            End::Stopped if !self.has_answer() => Err(Failure::interrupted()),
            // What came of it counts.
            End::Stopped | End::Complete(_) => Ok(()),
        }
    }

    /// Line after line, each a turn of one conversation.
    async fn answer_lines(&mut self) -> Result<(), Failure> {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Some(line) = lines.next_line().await.map_err(unreadable)? {
            if line.trim().is_empty() {
                continue;
            }
            // A turn that fails is the end: in a pipe nobody would notice it.
            if let End::Stopped = self.ask(line).await? {
                output::note("stopped");
            }
        }
        Ok(())
    }

    /// Turn after turn on a terminal, until somebody has enough.
    async fn converse(&mut self, folder: &Path) -> Result<(), Failure> {
        output::note(self.talk.describe());
        output::note("Ctrl-C stops an answer, Ctrl-D ends the chat. Type /help for more.");
        let mut prompt = Prompt::open(Some(folder).filter(|_| !self.options.no_history))?;
        loop {
            output::space();
            match prompt.ask().await {
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

    /// Does what was typed, or has it answered.
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
                    // Another question: the one that was not answered does not burden it.
                    self.messages.pop();
                }
                let answered = self.ask(message).await;
                self.tell(answered);
            }
        }
        ControlFlow::Continue(())
    }

    /// Says how an answer ended. A failed turn is not the end of a conversation.
    fn tell(&self, answered: Result<End, Failure>) {
        match answered {
            Ok(End::Complete(figures)) => output::note(remark(&figures)),
            Ok(End::Stopped) => output::note("stopped"),
            Err(failure) => drop(report(&self.explain(failure))),
        }
    }

    /// Forgets all that was said; what stands before a conversation stays.
    fn begin_anew(&mut self) {
        self.broken = None;
        self.began = now();
        self.messages.truncate(usize::from(self.options.system.is_some()));
    }

    /// Whether the last question has an answer, or the beginning of one.
    fn has_answer(&self) -> bool {
        self.messages.last().is_some_and(|message| message.role == "assistant")
    }

    async fn ask(&mut self, prompt: String) -> Result<End, Failure> {
        self.messages.push(Message::new("user", prompt));
        self.answer(None).await
    }

    /// Answers the last message, from where a broken answer ended, and keeps both in the conversation.
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
            request.said.clone_from(&broken.tokens);
            request.sampling.seed = broken.seed;
        }
        let asked = tokio::select! {
            asked = self.talk.ask(request) => asked.map(Some),
            // The model may still be loading.
            Ok(()) = tokio::signal::ctrl_c() => Ok(None),
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
                    // A question that was taken back does not burden the next.
                    self.messages.pop();
                } else {
                    self.messages.push(Message::new("assistant", whole));
                }
                Ok(end)
            }
            Err(mut failure) => {
                self.broken = match failure.broken.take() {
                    Some(again) => Some(Box::new(Broken { text: before + &again.text, ..*again })),
                    // It did not even begin again: what there was is still there.
                    None => broken,
                };
                if self.broken.is_none() {
                    // The question was not answered, so it does not burden the next.
                    self.messages.pop();
                }
                Err(failure)
            }
        }
    }

    /// In a conversation, what is left of a broken answer is not lost.
    fn explain(&self, failure: Failure) -> Failure {
        match &self.broken {
            Some(_) => failure.hint(format!("{} picks up where it stopped; or ask something else", typed::CONTINUE)),
            None => failure,
        }
    }

    /// Shows an answer while it grows.
    async fn follow(&self, mut pieces: Answer) -> Result<(String, End), Failure> {
        let mut answer = String::new();
        let show = |text: &str| {
            if !self.options.json {
                output::piece(text);
            }
        };
        // Reading a long question takes a while; the first word ends it.
        let mut reading: Option<Progress> = None;
        let end = loop {
            let piece = tokio::select! {
                piece = pieces.next() => piece,
                // Dropping the answer, on return, cancels it everywhere.
                Ok(()) = tokio::signal::ctrl_c() => break End::Stopped,
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

/// Who computed, and how fast.
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

/// Whether something may come through a pipe or out of a file. Nothing does from where a service or a test has its input.
fn is_piped() -> bool {
    let kind = std::io::stdin().as_fd().try_clone_to_owned().and_then(|fd| std::fs::File::from(fd).metadata());
    kind.is_ok_and(|kind| kind.file_type().is_fifo() || kind.file_type().is_file())
}

/// How long a pipe may be silent that comes with a prompt: programs leave theirs open and write nothing. After a while it is
/// said what is waited for; a command that is slow to begin has the rest.
const PIPE_TIMEOUT: Duration = Duration::from_secs(15);
const PIPE_SILENCE: Duration = Duration::from_secs(2);

/// All that comes through a pipe, if something does.
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

/// All that comes.
async fn piped() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    tokio::io::stdin().read_to_end(&mut bytes).await.map_err(unread)?;
    String::from_utf8(bytes).map_err(|_| not_utf_8())
}

/// Of lines, where bytes that are no text are an error of reading.
fn unreadable(error: std::io::Error) -> Failure {
    if error.kind() == std::io::ErrorKind::InvalidData { not_utf_8() } else { unread(error) }
}

#[allow(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn unread(error: std::io::Error) -> Failure {
    Failure::new(format_args!("cannot read the input: {error}"))
}

fn not_utf_8() -> Failure {
    Failure::new("the input is not UTF-8 text").hint("convert it first, for example with iconv")
}
