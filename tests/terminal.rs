//! `hivemind chat` as a person has it: on a terminal, with keys that are pressed and pastes that are made.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use common::of_nobody;

const QUESTION: &str = "What is the capital of France?";
const ANSWER: &str = "The capital of France is Paris.";

const ENTER: &str = "\r";
const ALT_ENTER: &str = "\u{1b}\r";
const CTRL_C: &str = "\u{3}";
const CTRL_D: &str = "\u{4}";
const LEFT: &str = "\u{1b}[D";
const UP: &str = "\u{1b}[A";

/// A chat on a terminal of its own.
struct Terminal {
    keys: File,
    shown: Arc<Mutex<String>>,
    child: Child,
}

impl Terminal {
    /// Starts a chat with a data folder; what it answers goes to `answers` instead, where that is given.
    fn start(folder: &Path, options: &[&str], answers: Option<File>) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let terminal = || Stdio::from(File::options().read(true).write(true).open(&name).unwrap());
        // With a session of its own, Ctrl-C goes where it goes at home.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait", env!("CARGO_BIN_EXE_hivemind"), "chat", "--temperature", "0"]).args(options);
        of_nobody(&mut command);
        command.env("HIVEMIND_DATA_DIR", folder).env("TERM", "xterm-256color");
        command.stdin(terminal()).stdout(answers.map_or_else(terminal, Stdio::from)).stderr(terminal());
        let child = command.spawn().unwrap();
        let keys = File::from(master);
        let shown: Arc<Mutex<String>> = Arc::default();
        let (mut reader, text) = (keys.try_clone().unwrap(), shown.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Where nobody holds the other end any more, reading is an error.
            while let Ok(read) = reader.read(&mut bytes)
                && read > 0
            {
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        });
        let terminal = Self { keys, shown, child };
        terminal.shows("Type /help for more");
        terminal.prompts(1);
        terminal
    }

    fn press(&mut self, keys: &[&str]) {
        self.keys.write_all(keys.concat().as_bytes()).unwrap();
    }

    fn text(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    fn shows(&self, words: &str) {
        self.shows_times(words, 1);
    }

    /// Until the words have been shown so often.
    #[track_caller]
    fn shows_times(&self, words: &str, times: usize) {
        let started = std::time::Instant::now();
        while self.text().matches(words).count() < times {
            assert!(started.elapsed() < common::timeout::TEST_TIMEOUT, "{words:?} is missing in {:?}", self.text());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Until it has asked for a line so often.
    fn prompts(&self, times: usize) {
        self.shows_times("\u{1b}[K› \r", times);
    }

    fn count(&self, words: &str) -> usize {
        self.text().matches(words).count()
    }

    /// Until it has ended by itself; gives its exit code.
    fn end(mut self) -> Option<i32> {
        common::wait(&mut self.child);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_line_is_edited_and_comes_back_also_in_the_next_chat() {
    let folder = tempfile::tempdir().unwrap();
    let mut chat = Terminal::start(folder.path(), &[], None);
    // A letter was forgotten.
    chat.press(&["What is the capital of Frnce?", LEFT, LEFT, LEFT, LEFT, "a", ENTER]);
    chat.shows(ANSWER);
    chat.prompts(2);
    chat.press(&["/clear", ENTER]);
    chat.shows("Started a new conversation");
    chat.prompts(3);
    chat.press(&[UP, UP, ENTER]);
    chat.shows_times(ANSWER, 2);
    chat.prompts(4);
    chat.press(&[CTRL_D]);
    assert_eq!(chat.end(), Some(0));

    let file = folder.path().join("chat-history.jsonl");
    let kept = std::fs::read_to_string(&file).unwrap();
    assert_eq!(kept, format!("\"{QUESTION}\"\n\"/clear\"\n\"{QUESTION}\"\n"));
    let mut chat = Terminal::start(folder.path(), &["--no-history"], None);
    chat.press(&[UP, "secret", ENTER]);
    chat.shows("tok/s");
    chat.prompts(2);
    chat.press(&["/bye", ENTER]);
    assert_eq!(chat.end(), Some(0));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), kept);

    let mut chat = Terminal::start(folder.path(), &[], None);
    chat.press(&[UP, ENTER]);
    chat.shows(ANSWER);
    chat.press(&["quit", ENTER]);
    assert_eq!(chat.end(), Some(0));
}

#[test]
fn a_paste_of_several_lines_is_one_message_and_so_is_what_is_typed_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut chat = Terminal::start(folder.path(), &[], None);
    let ways: [&[&str]; 4] = [
        // Terminals paste the key Enter for each line's end.
        &["\u{1b}[200~What is the\rcapital of France?\u{1b}[201~", ENTER],
        &["\u{1b}[200~What is the\r\ncapital of France?\r\n\u{1b}[201~", ENTER],
        &["What is the", ALT_ENTER, "capital of France?", ENTER],
        &["\"\"\"What is the", ENTER, "capital of France?", ENTER, "\"\"\"", ENTER],
    ];
    for (at, keys) in ways.into_iter().enumerate() {
        let (sent, before) = keys.split_last().unwrap();
        chat.press(before);
        chat.press(&[sent]);
        chat.shows_times("tok/s", at + 1);
        // What was sent before its end would have another answer.
        assert_eq!(chat.count(ANSWER), at + 1, "{keys:?}: {:?}", chat.text());
        chat.prompts(2 * at + 2);
        chat.press(&["/clear", ENTER]);
        chat.shows_times("Started a new conversation", at + 1);
        chat.prompts(2 * at + 3);
    }
    // While an answer comes, too.
    chat.press(&["Count to ten.", ENTER, "\u{1b}[200~What is the\rcapital of France?\u{1b}[201~", ENTER]);
    chat.shows_times("tok/s", 6);
    chat.prompts(11);
    // What is typed ahead, all at once, is not lost.
    chat.press(&["/hepl", ENTER, "/?", ENTER, "exit", ENTER]);
    chat.shows("unknown command /hepl");
    chat.shows("Alt-Enter");
    assert_eq!(chat.count("tok/s"), 6, "the paste was more than one message");
    assert_eq!(chat.end(), Some(0));
}

#[test]
fn ctrl_c_stops_an_answer_clears_a_line_and_says_how_to_leave() {
    let folder = tempfile::tempdir().unwrap();
    let mut chat = Terminal::start(folder.path(), &["--max-tokens", "2000"], None);
    chat.press(&[CTRL_C]);
    chat.shows("Ctrl-D or /bye ends the chat");
    chat.prompts(2);
    chat.press(&["a line that nobody wants", CTRL_C]);
    chat.prompts(3);
    assert_eq!(chat.count("Ctrl-D or /bye ends the chat"), 1);
    chat.press(&["Write a very long story about bees.", ENTER]);
    let answer = || chat.text().split_once("about bees.").map_or(0, |(_, answer)| answer.len());
    common::patiently("an answer comes", || answer() > 60);
    chat.press(&[CTRL_C]);
    chat.shows("stopped");
    chat.prompts(4);
    assert_eq!(
        chat.count("Ctrl-D or /bye ends the chat"),
        1,
        "what stopped an answer does nothing else: {:?}",
        chat.text()
    );
    chat.press(&["/clear", ENTER]);
    chat.prompts(5);
    chat.press(&[QUESTION, ENTER]);
    chat.shows(ANSWER);
    chat.prompts(6);
    chat.press(&[CTRL_D]);
    assert_eq!(chat.end(), Some(0));
}

#[test]
fn answers_that_go_to_a_file_have_no_prompt_among_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("answers");
    let mut chat = Terminal::start(folder.path(), &[], Some(File::create(&file).unwrap()));
    chat.press(&[QUESTION, ENTER]);
    chat.shows("tok/s");
    chat.prompts(2);
    chat.press(&["/bye", ENTER]);
    let text = chat.text();
    assert_eq!(chat.end(), Some(0));
    assert!(text.contains(QUESTION), "{text:?}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), format!("{ANSWER}\n"));
}

#[test]
fn the_help_of_the_command_says_what_can_be_typed() {
    let (code, stdout, _) = common::run(&["chat", "--help"], None);
    assert_eq!(code, 0);
    for words in ["Alt-Enter", "\"\"\"", "/clear", "/bye", "Ctrl-R", "a paste is one message", "--lines", "pipe"] {
        assert!(stdout.contains(words), "{words} is missing in {stdout}");
    }
}
