//! Stop strings, which may span tokens: text is held back while it could be the beginning of one.

/// Searches a stream of text for stop strings.
#[derive(Debug, Clone)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
}

/// The result of adding a piece of text.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// Continue; this text is certain to be shown.
    Continue(String),
    /// A stop string was found; this is the last text before it.
    Stopped(String),
}

impl StopStrings {
    /// Searches for `stops`; empty ones are ignored.
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        Self { stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(), held: String::new() }
    }

    /// Adds text.
    pub fn push(&mut self, text: &str) -> Stop {
        self.held.push_str(text);
        let first = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = first {
            self.held.truncate(at);
            return Stop::Stopped(std::mem::take(&mut self.held));
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Stop::Continue(std::mem::replace(&mut self.held, rest))
    }

    /// The answer has ended otherwise: returns the text that was held back.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest suffix of `text` that is a proper prefix of `stop`.
pub(crate) fn overlap(text: &str, stop: &str) -> usize {
    let beginnings = stop.char_indices().map(|(at, _)| at).skip(1);
    beginnings.filter(|&length| text.ends_with(&stop[..length])).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut watch = StopStrings::new(stops.iter().map(|stop| (*stop).to_owned()));
        let mut shown = String::new();
        for piece in pieces {
            match watch.push(piece) {
                Stop::Continue(text) => shown += &text,
                Stop::Stopped(text) => return (shown + &text, true),
            }
        }
        (shown + &watch.finish(), false)
    }

    #[test]
    fn a_stop_string_over_three_tokens_is_found_and_never_shown() {
        assert_eq!(run(&["\n\nUser:"], &["Paris.\n", "\nUs", "er: and"]), ("Paris.".to_owned(), true));
    }

    #[test]
    fn what_only_began_like_one_is_shown_in_the_end() {
        assert_eq!(run(&["<end>"], &["a <en", "glish> <e"]), ("a <english> <e".to_owned(), false));
        assert_eq!(run(&["ééa"], &["xé", "éb"]), ("xééb".to_owned(), false));
    }

    #[test]
    fn the_earliest_of_several_wins() {
        assert_eq!(run(&["c", "b"], &["abc"]), ("a".to_owned(), true));
    }
}
