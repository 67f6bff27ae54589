//! The line that is typed on a terminal: with editing, history, and a paste of several lines in one piece.
//!
//! Whoever types takes their time, so the editor has a thread of its own, which also keeps the history. It shows the prompt
//! where the answers are shown, and on the terminal itself where these go to a file.

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
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::unconstrained;

use super::history::History;
use super::typed;
use crate::{Failure, output};

/// What stands before the line.
const PROMPT: &str = "› ";
/// What the arrow keys reach back to within one chat.
const MOST: usize = 1000;

/// Has the terminal mark what is pasted. It stays so while an answer comes: what is pasted meanwhile is one message, too.
const MARK_PASTES: &str = "\x1b[?2004h";
const LEAVE_PASTES: &str = "\x1b[?2004l";

/// Terminals that are sent no sequences, as the editor has them.
const PLAIN_TERMINALS: [&str; 3] = ["dumb", "cons25", "emacs"];

/// What came of a prompt.
#[derive(Debug)]
pub(super) enum Line {
    /// This was sent.
    Typed(String),
    /// Ctrl-C.
    Interrupted {
        /// Whether nothing stood on the line.
        was_empty: bool,
    },
    /// Bytes that are no text.
    Unreadable,
    /// Ctrl-D, or the terminal is gone.
    End,
}

/// Asks for a line and waits for it.
pub(super) struct Prompt {
    asks: mpsc::Sender<oneshot::Sender<Line>>,
    /// A line that is being typed.
    waiting: Option<oneshot::Receiver<Line>>,
    interrupts: Signal,
}

/// Whether a line can be edited here: what is typed comes from a terminal, and there is one to show it on.
pub(super) fn is_possible() -> bool {
    std::io::stdin().is_terminal() && (std::io::stdout().is_terminal() || File::open("/dev/tty").is_ok())
}

impl Prompt {
    /// Opens the terminal; with a data folder, the history in it is known and kept.
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
                    // Kept in memory in any case.
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
        let interrupts = signal(SignalKind::interrupt()).map_err(Failure::new)?;
        tell_terminal(MARK_PASTES);
        Ok(Self { asks, waiting: None, interrupts })
    }

    /// The next line.
    pub(super) async fn ask(&mut self) -> Line {
        // What was pressed while an answer came was for that. Looked at also where the runtime wants this task to make room for
        // others, which would read as if nothing had been pressed.
        while unconstrained(self.interrupts.recv()).now_or_never().flatten().is_some() {}
        let mut waiting = self.waiting.take().unwrap_or_else(|| {
            let (reply, waiting) = oneshot::channel();
            // Where nobody takes it any more, nothing comes back.
            let _ = self.asks.send(reply);
            waiting
        });
        tokio::select! {
            line = &mut waiting => line.unwrap_or(Line::End),
            // From a terminal that knows no editing, or from another process.
            _ = self.interrupts.recv() => {
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

/// Sends the terminal a sequence, if it knows any.
fn tell_terminal(sequence: &str) {
    let kind = std::env::var("TERM").unwrap_or_default();
    if PLAIN_TERMINALS.iter().any(|plain| plain.eq_ignore_ascii_case(&kind)) {
        return;
    }
    // A terminal that is gone needs to hear nothing.
    let _ = if std::io::stdout().is_terminal() {
        let mut stdout = std::io::stdout();
        stdout.write_all(sequence.as_bytes()).and_then(|()| stdout.flush())
    } else {
        File::options().write(true).open("/dev/tty").and_then(|mut terminal| terminal.write_all(sequence.as_bytes()))
    };
}

/// What the editor says, in our words.
fn line(read: rustyline::Result<String>, is_empty: bool) -> Line {
    match read {
        Ok(text) => Line::Typed(text),
        Err(ReadlineError::Interrupted) => Line::Interrupted { was_empty: is_empty },
        Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => Line::Unreadable,
        Err(_) => Line::End,
    }
}

fn editor(history: Vec<String>) -> rustyline::Result<Editor<Keys, MemHistory>> {
    // Answers that go to a file are not to have the prompt among them.
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

/// Keeps what is typed, and says once that it cannot.
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
            output::note(format_args!("Cannot save what you type for later chats: {error}"));
        }
    }
}

/// Remembers whether something stood on the line when it was interrupted.
struct NoteEmpty(Arc<AtomicBool>);

impl ConditionalEventHandler for NoteEmpty {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext) -> Option<Cmd> {
        self.0.store(context.line().is_empty(), Ordering::Relaxed);
        Some(Cmd::Interrupt)
    }
}

/// What the editor asks about the line.
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
