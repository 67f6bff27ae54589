//! Filters control characters and escape sequences from untrusted text before it reaches a terminal.
//!
//! The text comes from a model, a file or another machine, and a terminal obeys its escape sequences: they set the
//! title, clear the screen, fill the clipboard, or make the terminal report itself as if typed. Everything but line
//! breaks and tabs is removed. A sequence may begin in one piece of text and end in another, so the filter keeps state
//! between pieces.

/// The filter for the pieces of one text.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    state: State,
}

/// Position within an escape sequence (ECMA-48).
#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC [ or its C1 form.
    Control,
    /// In a string: a title, the clipboard, a device command. A line break ends it, so that an unterminated string
    /// hides no more than its line.
    String,
    /// After ESC in a string.
    StringEscape,
}

impl Plain {
    /// The state at the start of a text.
    pub(crate) const fn new() -> Self {
        Self { state: State::Text }
    }

    /// Returns the printable part of the next piece.
    pub(crate) fn pass(&mut self, piece: &str) -> String {
        piece.chars().filter(|c| self.shows(*c)).collect()
    }

    fn shows(&mut self, c: char) -> bool {
        let (state, shown) = match (self.state, c) {
            (State::Escape, ' '..='/') | (State::Control, ' '..='?') => (self.state, false),
            (State::Escape, '[') => (State::Control, false),
            (State::Escape, ']' | 'P' | 'X' | '^' | '_') => (State::String, false),
            (State::Escape, '0'..='~')
            | (State::Control, '@'..='~')
            | (State::String, '\u{7}' | '\u{9c}')
            | (State::StringEscape, '\\') => (State::Text, false),
            (State::String, '\u{1b}') => (State::StringEscape, false),
            (State::String, '\n') => (State::Text, true),
            (State::String, _) => (State::String, false),
            // Another sequence interrupts the string.
            (State::StringEscape, _) => {
                self.state = State::Escape;
                return self.shows(c);
            }
            (State::Text | State::Escape | State::Control, _) => match c {
                '\u{1b}' => (State::Escape, false),
                '\u{9b}' => (State::Control, false),
                '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => (State::String, false),
                '\n' | '\t' => (State::Text, true),
                c => (State::Text, !c.is_control()),
            },
        };
        self.state = state;
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}]0;title\u{7}b\u{1b}[2J\u{1b}[1;32mc\u{1b}[0m\u{1b}]52;c;cm0=\u{1b}\\d\u{9b}31me\
                           \u{9d}8;;http://x\u{9c}f\u{1b}P1$r\u{1b}\\g\u{1b}(0h\u{1b}ci\r\u{8}\u{7f}\u{0}\u{85}j\n\tk";
    const SHOWN: &str = "abcdefghij\n\tk";

    #[test]
    fn what_a_terminal_obeys_is_dropped() {
        assert_eq!(Plain::new().pass(HOSTILE), SHOWN);
        let honest = "Ärger, 語, 🐝 and a tab:\t[31m is text\n";
        assert_eq!(Plain::new().pass(honest), honest);
    }

    #[test]
    fn a_sequence_may_be_cut_anywhere() {
        for (at, _) in HOSTILE.char_indices() {
            let mut plain = Plain::new();
            let (first, second) = HOSTILE.split_at(at);
            assert_eq!(plain.pass(first) + &plain.pass(second), SHOWN, "cut at {at}");
        }
        let mut plain = Plain::new();
        let one_by_one: String = HOSTILE.chars().map(|c| plain.pass(&c.to_string())).collect();
        assert_eq!(one_by_one, SHOWN);
    }

    #[test]
    fn a_sequence_without_an_end_hides_no_more_than_its_line() {
        assert_eq!(Plain::new().pass("a\u{1b}]0;never\nends"), "a\nends");
        assert_eq!(Plain::new().pass("a\u{1b}[31\nm"), "a\nm");
        assert_eq!(Plain::new().pass("a\u{1b}\nb"), "a\nb");
        assert_eq!(Plain::new().pass("a\u{1b}]0;x\u{1b}[31mb"), "ab");
    }
}
