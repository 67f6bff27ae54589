//! Tool calls in an answer: text in, text and calls out, as it arrives and wherever it is cut.
//!
//! Models write calls as text, each family in a [`Format`] of its own, which its chat template shows. A [`Reader`] holds a
//! call back until it is complete. What looks like a call but is none is given back as text: nothing is lost. Where a
//! model also thinks, its thinking is split off first ([`crate::reasoning`]).
//!
//! The caller checks whether the tool exists and its arguments fit.

mod call;
mod gemma;
mod glm;
mod harmony;
mod json;
mod kimi;
mod literal;
mod mistral;
mod pythonic;
mod schema;
mod xml;

pub use call::Call;
pub use schema::Schema;

use crate::stop::overlap;

/// Part of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Text between calls.
    Text(String),
    /// A complete call.
    Call(Call),
}

/// How a family writes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: Hermes, Qwen 2.5 and 3.
    Json,
    /// `<tool_call><function=NAME><parameter=KEY>…</parameter></function></tool_call>`: Qwen 3 Coder, Qwen 3.5.
    Xml,
    /// `<tool_call>NAME<arg_key>KEY</arg_key><arg_value>…</arg_value></tool_call>`: GLM 4.5 to 5.
    Glm,
    /// `<|tool_call>call:NAME{KEY:…}<tool_call|>`: Gemma 4.
    Gemma,
    /// `<|tool_calls_section_begin|><|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{…}<|tool_call_end|>…`:
    /// Kimi K2.
    Kimi,
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}}]` or `[TOOL_CALLS]NAME[ARGS]{…}`: Mistral.
    Mistral,
    /// `<|tool_call_start|>[NAME(KEY=…)]<|tool_call_end|>`: LFM 2.
    Pythonic,
    /// `<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{…}<|call|>`: gpt-oss.
    Harmony,
}

impl Format {
    /// The format that a chat template shows its model; `None` if it shows none of these.
    pub fn of(template: &str) -> Option<Self> {
        // Formats that are part of another one come after it.
        let signs = [
            ("<|tool_calls_section_begin|>", Self::Kimi),
            ("<|tool_call>", Self::Gemma),
            ("<|tool_call_start|>", Self::Pythonic),
            ("[TOOL_CALLS]", Self::Mistral),
            ("<arg_key>", Self::Glm),
            ("<function=", Self::Xml),
            ("<tool_call>", Self::Json),
            ("<|channel|>commentary", Self::Harmony),
        ];
        signs.into_iter().find(|(sign, _)| template.contains(sign)).map(|(_, format)| format)
    }

    /// The texts with which calls begin. Some models leave out the outer one.
    fn begins(self) -> &'static [&'static str] {
        match self {
            Self::Json | Self::Glm => &["<tool_call>"],
            Self::Xml => &["<tool_call>", "<function="],
            Self::Gemma => &["<|tool_call>"],
            Self::Kimi => &["<|tool_calls_section_begin|>"],
            Self::Mistral => &["[TOOL_CALLS]"],
            Self::Pythonic => &["<|tool_call_start|>"],
            Self::Harmony => &["<|start|>assistant", "<|channel|>", " to=functions."],
        }
    }

    /// The text with which a call ends that began with `begin`; `None` is the end of the answer.
    fn end(self, begin: &str) -> Option<&'static str> {
        match self {
            Self::Xml if begin == "<function=" => Some("</function>"),
            Self::Json | Self::Glm | Self::Xml => Some("</tool_call>"),
            Self::Gemma => Some("<tool_call|>"),
            Self::Kimi => Some("<|tool_calls_section_end|>"),
            Self::Mistral => None,
            Self::Pythonic => Some("<|tool_call_end|>"),
            Self::Harmony => Some("<|call|>"),
        }
    }

    /// Reads a call from its beginning to its end, either included; `None` if it is none. The end may be missing at the
    /// end of an answer, which is no call if arguments could be missing with it.
    fn read(self, call: &str, schema: &Schema) -> Option<Vec<Call>> {
        let inside = || {
            let (begin, inside) = self.begins().iter().find_map(|begin| Some((begin, call.strip_prefix(begin)?)))?;
            Some(self.end(begin).and_then(|end| inside.strip_suffix(end)).unwrap_or(inside).trim())
        };
        match self {
            Self::Json => Some(vec![json::call(inside()?)?]),
            Self::Xml => Some(vec![xml::call(call, schema)?]),
            Self::Glm => Some(vec![glm::call(call, schema)?]),
            Self::Gemma => Some(vec![gemma::call(inside()?)?]),
            Self::Kimi => kimi::calls(inside()?),
            Self::Mistral => mistral::calls(call),
            Self::Pythonic => pythonic::calls(inside()?),
            Self::Harmony => Some(vec![harmony::call(call)?]),
        }
    }
}

/// Reads one answer.
#[derive(Debug)]
pub struct Reader {
    format: Format,
    schema: Schema,
    held: String,
    /// The end of the call that the text at hand begins with.
    call: Option<InCall>,
}

#[derive(Debug)]
struct InCall {
    end: Option<&'static str>,
    /// How much of the text at hand has no end in it.
    searched: usize,
}

impl Reader {
    /// For an answer in this format. `schema` says which arguments are text.
    pub fn new(format: Format, schema: Schema) -> Self {
        Self { format, schema, held: String::new(), call: None }
    }

    /// Adds text; returns the pieces that are now certain, in order.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        while self.step(&mut pieces) {}
        pieces
    }

    /// Goes on as far as the text at hand allows; says whether there may be more.
    fn step(&mut self, pieces: &mut Vec<Piece>) -> bool {
        let Some(call) = &mut self.call else {
            let begins = self.format.begins();
            let found = begins.iter().filter_map(|begin| Some((self.held.find(begin)?, *begin))).min();
            let certain = found.map_or_else(
                || self.held.len() - begins.iter().map(|begin| overlap(&self.held, begin)).max().unwrap_or(0),
                |(at, _)| at,
            );
            push_text(pieces, self.take(certain));
            self.call = found.map(|(_, begin)| InCall { end: self.format.end(begin), searched: begin.len() });
            return found.is_some();
        };
        let Some(end) = call.end else { return false };
        if let Some(at) = self.held[call.searched..].find(end) {
            let bytes = call.searched + at + end.len();
            self.read(bytes, pieces);
            return true;
        }
        call.searched = self.held.len() - overlap(&self.held[call.searched..], end);
        false
    }

    /// Reads the call with which the text at hand begins.
    fn read(&mut self, bytes: usize, pieces: &mut Vec<Piece>) {
        self.call = None;
        let text = self.take(bytes);
        match self.format.read(&text, &self.schema) {
            Some(calls) => pieces.extend(calls.into_iter().map(Piece::Call)),
            None => push_text(pieces, text),
        }
    }

    /// Takes the first bytes of the text at hand.
    fn take(&mut self, bytes: usize) -> String {
        let rest = self.held.split_off(bytes);
        std::mem::replace(&mut self.held, rest)
    }

    /// The answer has ended: returns the text that was held back, or the last call, whose end a model may leave out.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if self.call.is_some() {
            self.read(self.held.len(), &mut pieces);
        } else {
            push_text(&mut pieces, std::mem::take(&mut self.held));
        }
        pieces
    }
}

/// Adds text; neighbours become one, and empty ones are dropped.
fn push_text(pieces: &mut Vec<Piece>, text: String) {
    match pieces.last_mut() {
        _ if text.is_empty() => {}
        Some(Piece::Text(last)) => last.push_str(&text),
        _ => pieces.push(Piece::Text(text)),
    }
}

#[cfg(test)]
mod tests;
