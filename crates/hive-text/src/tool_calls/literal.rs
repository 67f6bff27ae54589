//! Values as Python and Gemma 4 write them: JSON with bare keys, other quotes and other constants.

use serde_json::{Map, Number, Value as Json};

/// Gemma's quotes, within which nothing is escaped.
const QUOTE: &str = "<|\"|>";

/// Maximum depth; a reader that recurses on a model's words must have one.
const MAX_DEPTH: usize = 64;

/// Reads a text from its beginning. Every method takes what it reads, after blanks, and returns `None` if it is not there.
pub(super) struct Literal<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Literal<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text, depth: 0 }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.trim_start().is_empty()
    }

    pub(super) fn expect(&mut self, sign: char) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(sign)?;
        Some(())
    }

    /// A name, or a number, or a constant.
    pub(super) fn word(&mut self) -> Option<&'a str> {
        let text = self.rest.trim_start();
        let end = text.find(|c: char| !(c.is_alphanumeric() || "_.-+".contains(c))).unwrap_or(text.len());
        self.rest = &text[end..];
        (end > 0).then(|| &text[..end])
    }

    pub(super) fn object(&mut self) -> Option<Map<String, Json>> {
        self.expect('{')?;
        self.pairs(':', '}')
    }

    /// Names and values up to the closing sign.
    pub(super) fn pairs(&mut self, between: char, close: char) -> Option<Map<String, Json>> {
        let mut pairs = Map::new();
        while self.expect(close).is_none() {
            let key = self.text().or_else(|| self.word().map(str::to_owned))?;
            self.expect(between)?;
            pairs.insert(key, self.value()?);
            if self.expect(',').is_none() {
                self.expect(close)?;
                break;
            }
        }
        Some(pairs)
    }

    fn value(&mut self) -> Option<Json> {
        self.depth += 1;
        let value = if self.depth > MAX_DEPTH { None } else { self.value_within() };
        self.depth -= 1;
        value
    }

    fn value_within(&mut self) -> Option<Json> {
        if self.rest.trim_start().starts_with('{') {
            return self.object().map(Json::Object);
        }
        if self.expect('[').is_some() {
            let mut items = Vec::new();
            while self.expect(']').is_none() {
                items.push(self.value()?);
                if self.expect(',').is_none() {
                    self.expect(']')?;
                    break;
                }
            }
            return Some(Json::Array(items));
        }
        if let Some(text) = self.text() {
            return Some(Json::String(text));
        }
        match self.word()? {
            "true" | "True" => Some(true.into()),
            "false" | "False" => Some(false.into()),
            "null" | "None" => Some(Json::Null),
            number => number.parse::<Number>().ok().map(Json::Number),
        }
    }

    /// A text in quotes of any kind.
    fn text(&mut self) -> Option<String> {
        let text = self.rest.trim_start();
        if let Some(after) = text.strip_prefix(QUOTE) {
            let (text, after) = after.split_once(QUOTE)?;
            self.rest = after;
            return Some(text.to_owned());
        }
        let quote = text.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        let mut characters = text[1..].char_indices();
        let mut unquoted = String::new();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => match characters.next()?.1 {
                    'n' => unquoted.push('\n'),
                    't' => unquoted.push('\t'),
                    'r' => unquoted.push('\r'),
                    'u' => {
                        let digits: String = characters.by_ref().take(4).map(|(_, digit)| digit).collect();
                        unquoted.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
                    }
                    other => unquoted.push(other),
                },
                end if end == quote => {
                    self.rest = &text[1 + at + end.len_utf8()..];
                    return Some(unquoted);
                }
                other => unquoted.push(other),
            }
        }
        None
    }
}
