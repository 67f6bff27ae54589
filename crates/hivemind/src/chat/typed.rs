//! Parses typed input: a message or one of a few commands.
//!
//! A command is a single line of a slash and a word of letters. Paths, comments and multi-line text that begin with a
//! slash are therefore messages, and a leading space makes any input a message.

/// Parsed input, of one or more lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Typed {
    /// Only white space.
    Nothing,
    /// A message for the model.
    Message(String),
    Command(Command),
    /// Probably a mistyped command, with the error.
    Unknown(String),
}

/// A command handled without the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Clear,
    Continue,
    Leave,
}

/// Resumes an interrupted answer.
pub(super) const CONTINUE: &str = "/continue";

/// Commands with all their names; the canonical name comes first.
const COMMANDS: [(&[&str], Command); 4] = [
    (&["/help", "/?"], Command::Help),
    (&["/clear", "/new"], Command::Clear),
    (&[CONTINUE], Command::Continue),
    (&["/bye", "/exit", "/quit"], Command::Leave),
];

/// Words that also end a conversation; no question consists of one of them alone.
const ALONE: [&str; 2] = ["exit", "quit"];

/// Delimits a multi-line message.
const QUOTES: &str = "\"\"\"";

/// The help text: everything that can be typed.
pub(crate) const HELP: &str = "\
On a terminal:
  Enter          sends the message; a paste is one message, however many lines it has
  Alt-Enter      starts a new line; so does Enter after \"\"\", until \"\"\" ends the message
  arrow keys     recall and edit earlier messages, also from earlier chats; Ctrl-R searches them
  Ctrl-C         stops the answer and keeps what has arrived; at the prompt, clears the line
  Ctrl-D         ends the chat; so do /bye, /exit, /quit, exit and quit
  /clear, /new   starts a new conversation
  /continue      continues an interrupted answer
  /help, /?      shows this help
A message can start with a path, as in \"/etc/hosts is empty\". If it starts with a slash and a single word, type a space first.";

/// Parses typed input.
pub(super) fn read(text: &str) -> Typed {
    let text = text.trim_end();
    let plain = text.trim_start();
    if plain.is_empty() {
        return Typed::Nothing;
    }
    if let Some(quoted) = quoted(plain) {
        return if quoted.trim().is_empty() { Typed::Nothing } else { Typed::Message(quoted.to_owned()) };
    }
    if ALONE.iter().any(|word| plain.eq_ignore_ascii_case(word)) {
        return Typed::Command(Command::Leave);
    }
    match as_command(text) {
        Some((word, rest)) => command(word, rest),
        // Drop the leading space that escaped the slash.
        None => Typed::Message(if plain.starts_with('/') { plain } else { text }.to_owned()),
    }
}

/// Whether Enter submits the input: opened quotes must be closed.
pub(super) fn is_complete(text: &str) -> bool {
    !text.trim_start().starts_with(QUOTES) || text.matches(QUOTES).count().is_multiple_of(2)
}

/// The text between quotes that enclose all of it; a program that begins with a docstring has further quotes.
fn quoted(text: &str) -> Option<&str> {
    let inner = text.strip_prefix(QUOTES)?.strip_suffix(QUOTES)?;
    let inner = (!inner.contains(QUOTES)).then_some(inner)?;
    let inner = inner.strip_prefix('\n').unwrap_or(inner);
    Some(inner.strip_suffix('\n').unwrap_or(inner))
}

/// Splits input that looks like a command into its first word and the rest.
fn as_command(text: &str) -> Option<(&str, &str)> {
    let is_one_line = !text.contains('\n');
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let name = word.strip_prefix('/').filter(|_| is_one_line)?;
    let is_word = name == "?" || name.chars().all(|c| c.is_ascii_alphabetic() || c == '-' || c == '_');
    is_word.then(|| (word, rest.trim()))
}

fn command(word: &str, rest: &str) -> Typed {
    let is_it = |(names, _): &&(&[&str], Command)| names.iter().any(|name| name.eq_ignore_ascii_case(word));
    match COMMANDS.iter().find(is_it) {
        Some((_, Command::Help)) => Typed::Command(Command::Help),
        Some((_, command)) if rest.is_empty() => Typed::Command(*command),
        Some(_) => Typed::Unknown(format!(
            "{word} takes no arguments; to send this to the model, put a space before the slash"
        )),
        None => Typed::Unknown(format!(
            "unknown command {word}; type /help for a list, or put a space before the slash to send it to the model"
        )),
    }
}

/// The canonical command names that begin with this text.
pub(super) fn completions(beginning: &str) -> Vec<&'static str> {
    let names = COMMANDS.iter().map(|(names, _)| names[0]);
    names.filter(|name| !beginning.is_empty() && name.starts_with(beginning)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Typed {
        Typed::Message(text.to_owned())
    }

    #[test]
    fn commands_are_known_by_all_their_names() {
        for (text, command) in [
            ("/help", Command::Help),
            ("/?", Command::Help),
            ("/help me", Command::Help),
            ("/clear", Command::Clear),
            ("/new ", Command::Clear),
            ("/continue", Command::Continue),
            ("/bye", Command::Leave),
            ("/EXIT", Command::Leave),
            ("/quit", Command::Leave),
            ("exit", Command::Leave),
            (" Quit ", Command::Leave),
        ] {
            assert_eq!(read(text), Typed::Command(command), "{text:?}");
        }
        for (names, _) in COMMANDS {
            for name in names {
                assert!(HELP.contains(name), "{name} is not in the help");
            }
        }
    }

    #[test]
    fn what_is_no_command_is_not_sent_but_what_to_do_is_said() {
        for text in ["/hepl", "/set parameter seed 5", "/tmp is full, why?", "/", "/clear it", "/bye-bye"] {
            let Typed::Unknown(why) = read(text) else { panic!("{text:?} was taken for something") };
            assert!(why.contains("space before the slash"), "{why}");
        }
    }

    #[test]
    fn paths_comments_and_texts_of_several_lines_are_messages() {
        for text in [
            "/etc/hosts is empty, why?",
            "/usr/bin",
            "/dev/sda1",
            "/file.txt",
            "/2",
            "// a comment",
            "/* a comment */",
            "/help\nis what I typed",
            "exit the program: how?",
            "What does /help do?",
            "    indented code",
        ] {
            assert_eq!(read(text), message(text));
        }
        assert_eq!(read(" /tmp is full, why?"), message("/tmp is full, why?"));
        assert_eq!(read(" /help"), message("/help"));
        for text in ["", "  ", "\n\n", "\"\"\"\n\"\"\"", "\"\"\"\"\"\""] {
            assert_eq!(read(text), Typed::Nothing, "{text:?}");
        }
    }

    #[test]
    fn quotes_hold_several_lines_together() {
        for open in ["\"\"\"", "\"\"\"one\ntwo", "  \"\"\"one \"\"\" two \"\"\" three"] {
            assert!(!is_complete(open), "{open:?}");
        }
        for (text, inner) in [
            ("\"\"\"one\ntwo\"\"\"", "one\ntwo"),
            ("\"\"\"\none\n\n  two\n\"\"\"", "one\n\n  two"),
            ("\"\"\"/help\"\"\"", "/help"),
        ] {
            assert!(is_complete(text));
            assert_eq!(read(text), message(inner));
        }
        // Pasted code is sent unchanged.
        for program in ["\"\"\"What it does.\"\"\"\nimport os", "\"\"\"A\"\"\"\nb = \"\"\"c\"\"\"", "x = \"\"\""] {
            assert!(is_complete(program));
            assert_eq!(read(program), message(program));
        }
    }
}
