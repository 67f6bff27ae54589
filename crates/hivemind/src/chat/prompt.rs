//! The input line on a terminal, with editing, history, and multi-line paste.
//!
//! The editor blocks while the user types, so it runs on its own thread, which also writes the history. The prompt
//! appears on standard output, or on the terminal itself if standard output goes to a file.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use futures_util::FutureExt;
use rustyline::completion::Completer;
use rustyline::config::Behavior;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{
    Cmd, ConditionalEventHandler, Config, Context, Editor, Event, EventContext, EventHandler, Helper, KeyCode,
    KeyEvent, Modifiers, RepeatCount,
};
use tokio::signal::unix::Signal;
use tokio::sync::oneshot;
use tokio::task::unconstrained;

use super::history::History;
use super::typed;
use crate::{Failure, output};

/// Shown before the input line.
const PROMPT: &str = "› ";
/// Maximum number of entries that the arrow keys reach within one chat.
const MOST: usize = 1000;

/// Turns bracketed paste on. It stays on during an answer, so that text pasted meanwhile arrives as one message.
const MARK_PASTES: &str = "\x1b[?2004h";
const LEAVE_PASTES: &str = "\x1b[?2004l";

/// Terminals that are sent no escape sequences; the same list as the editor's.
const PLAIN_TERMINALS: [&str; 3] = ["dumb", "cons25", "emacs"];

/// The result of a prompt.
#[derive(Debug)]
pub(super) enum Line {
    /// A submitted line.
    Typed(String),
    /// Ctrl-C.
    Interrupted {
        /// Whether the line was empty.
        was_empty: bool,
    },
    /// Invalid UTF-8.
    Unreadable,
    /// Ctrl-D, or the terminal was closed.
    End,
}

/// Reads lines from the terminal.
pub(super) struct Prompt {
    asks: mpsc::Sender<oneshot::Sender<Line>>,
    /// The pending reply for a line that is still being typed.
    waiting: Option<oneshot::Receiver<Line>>,
}

/// Whether a line can be edited: input comes from a terminal, and there is one to show it on.
pub(super) fn is_possible() -> bool {
    std::io::stdin().is_terminal() && (std::io::stdout().is_terminal() || File::open("/dev/tty").is_ok())
}

impl Prompt {
    /// Opens the terminal; with a data folder, loads and writes the history there.
    pub(super) fn open(folder: Option<&Path>) -> Result<Self, Failure> {
        let (history, before) = folder.map(History::open).unzip();
        let mut editor = editor(before.unwrap_or_default())
            .map_err(|error| Failure::new(format_args!("cannot use the terminal: {error}")))?;
        let (asks, asked) = mpsc::channel::<oneshot::Sender<Line>>();
        let is_empty = Arc::new(AtomicBool::new(true));
        editor.bind_sequence(
            KeyEvent(KeyCode::Char('C'), Modifiers::CTRL),
            EventHandler::Conditional(Box::new(NoteEmpty(is_empty.clone()))),
        );
        let mut keeper = Keeper { history, has_complained: false };
        let serve = move || {
            for reply in asked {
                is_empty.store(true, Ordering::Relaxed);
                let line = line(editor.readline(PROMPT), is_empty.load(Ordering::Relaxed));
                if let Line::Typed(text) = &line
                    && !text.trim().is_empty()
                {
                    // An in-memory history does not fail.
                    let _ = editor.add_history_entry(text.trim_end());
                    keeper.keep(text.trim_end());
                }
                if reply.send(line).is_err() {
                    return;
                }
            }
        };
        let started = std::thread::Builder::new().name("prompt".to_owned()).spawn(serve);
        started.map_err(|error| Failure::new(format_args!("cannot start a thread: {error}")))?;
        tell_terminal(MARK_PASTES);
        Ok(Self { asks, waiting: None })
    }

    /// Waits for the next line; `interrupts` are those that the terminal sends as signals.
    pub(super) async fn ask(&mut self, interrupts: &mut Signal) -> Line {
        // Drop interrupts pressed once more during the last answer. `unconstrained`, since an exhausted task budget would make
        // the channel look empty.
        while unconstrained(interrupts.recv()).now_or_never().flatten().is_some() {}
        let mut waiting = self.waiting.take().unwrap_or_else(|| {
            let (reply, waiting) = oneshot::channel();
            // If the editor's thread has ended, no reply arrives.
            let _ = self.asks.send(reply);
            waiting
        });
        tokio::select! {
            line = &mut waiting => line.unwrap_or(Line::End),
            // From a terminal without line editing, or from another process.
            _ = interrupts.recv() => {
                self.waiting = Some(waiting);
                Line::Interrupted { was_empty: true }
            }
        }
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        tell_terminal(LEAVE_PASTES);
    }
}

/// Sends the terminal an escape sequence, if it supports any.
fn tell_terminal(sequence: &str) {
    let kind = std::env::var("TERM").unwrap_or_default();
    if PLAIN_TERMINALS.iter().any(|plain| plain.eq_ignore_ascii_case(&kind)) {
        return;
    }
    // Errors mean that the terminal is gone.
    let _ = if std::io::stdout().is_terminal() {
        let mut stdout = std::io::stdout();
        stdout.write_all(sequence.as_bytes()).and_then(|()| stdout.flush())
    } else {
        File::options().write(true).open("/dev/tty").and_then(|mut terminal| terminal.write_all(sequence.as_bytes()))
    };
}

/// Converts the editor's result.
fn line(read: rustyline::Result<String>, is_empty: bool) -> Line {
    match read {
        Ok(text) => Line::Typed(text),
        Err(ReadlineError::Interrupted) => Line::Interrupted { was_empty: is_empty },
        Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => Line::Unreadable,
        Err(_) => Line::End,
    }
}

fn editor(history: Vec<String>) -> rustyline::Result<Editor<Keys, MemHistory>> {
    // Keep the prompt out of answers that go to a file.
    let behavior = if std::io::stdout().is_terminal() { Behavior::Stdio } else { Behavior::PreferTerm };
    let config = Config::builder().max_history_size(MOST)?.behavior(behavior).bracketed_paste(false).build();
    let mut editor = Editor::with_history(config.clone(), MemHistory::with_config(&config))?;
    editor.set_helper(Some(Keys));
    editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::ALT), Cmd::Newline);
    for entry in history {
        editor.add_history_entry(entry)?;
    }
    Ok(editor)
}

/// Writes the history, and reports a failure only once.
struct Keeper {
    history: Option<History>,
    has_complained: bool,
}

impl Keeper {
    fn keep(&mut self, message: &str) {
        let Some(history) = &mut self.history else { return };
        if let Err(error) = history.add(message)
            && !self.has_complained
        {
            self.has_complained = true;
            output::note(format_args!("Cannot save your input for later chats: {error}"));
        }
    }
}

/// Records whether the line was empty when it was interrupted.
struct NoteEmpty(Arc<AtomicBool>);

impl ConditionalEventHandler for NoteEmpty {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext) -> Option<Cmd> {
        self.0.store(context.line().is_empty(), Ordering::Relaxed);
        Some(Cmd::Interrupt)
    }
}

/// Validation and completion of the input line.
struct Keys;

impl Validator for Keys {
    fn validate(&self, context: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        let is_complete = typed::is_complete(context.input());
        Ok(if is_complete { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Completer for Keys {
    type Candidate = &'static str;

    fn complete(&self, line: &str, at: usize, _: &Context) -> rustyline::Result<(usize, Vec<&'static str>)> {
        Ok((0, typed::completions(&line[..at])))
    }
}

impl Hinter for Keys {
    type Hint = String;
}

impl Highlighter for Keys {}

impl Helper for Keys {}
