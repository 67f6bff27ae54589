//! Chat templates, rendered by `minijinja` as Hugging Face's templates expect.
//!
//! Whatever a person or a tool wrote stays text: special tokens count only where the template itself wrote them. To
//! tell them apart after rendering, what looks special in a message is swapped for private-use characters before.
//!
//! A template comes with a model from strangers. Its source is limited before it is parsed (`source`), what it computes by fuel
//! and depth (`values`), what it writes by `MAX_RENDERED_BYTES`; what recursion remains has a stack of its own.

mod source;
mod values;

use std::fmt::Write as _;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};

use crate::deep::on_deep_stack;
use crate::tokenizer::special::SpecialTokens;
use crate::tokenizer::{Tokenizer, TokenizerError};
use values::{MAX_DEPTH, is_shallow, json_bytes};

/// Fuel is an instruction, or 64 bytes of a value that is made. A template may take so much for itself,
const FUEL: u64 = 250_000;
/// so much for each message, of which real ones need some thousands at most,
const FUEL_PER_MESSAGE: u64 = 10_000;
/// and so much for each byte of the conversation, which is enough to write each some fifty times.
const FUEL_PER_BYTE: u64 = 1;

/// What a template may write: more than any context holds.
const MAX_RENDERED_BYTES: usize = 32 << 20;

/// Characters nobody types, around the number of a special token that was written in a message.
const MARK_OPEN: char = '\u{10FFF0}';
const MARK_CLOSE: char = '\u{10FFF1}';

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// The text.
    pub content: String,
    /// Anything else a template may look at (`tool_calls`, `name`, …).
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

impl Message {
    /// A message of a role.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: content.into(), more: serde_json::Map::new() }
    }
}

/// Why a conversation cannot be turned into a prompt.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The model has none.
    #[error("the model has no chat template; it was not made for conversations")]
    Missing,
    /// It is not a valid template.
    #[error("the model's chat template does not parse: {0}")]
    Parse(String),
    /// It refused the conversation, by its own words.
    #[error("the model's chat template refuses this conversation: {0}")]
    Refused(String),
    /// It did not end.
    #[error("the model's chat template did not finish: it loops too long")]
    TooLong,
    /// It wrote more than any model reads.
    #[error("the model's chat template writes without end")]
    TooMuch,
    /// The conversation is not what any template takes.
    #[error("the conversation's tools or calls nest more than {MAX_DEPTH} deep")]
    TooDeep,
    /// It failed.
    #[error("the model's chat template failed: {0}")]
    Failed(String),
    /// The result could not be tokenized.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// A parsed chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// Parses a template.
    pub fn new(source: &str, bos_token: Option<String>, eos_token: Option<String>) -> Result<Self, TemplateError> {
        let environment = on_deep_stack(|| environment(source));
        let environment = environment.unwrap_or_else(|_| Err("the parser failed".to_owned()));
        let token = Option::unwrap_or_default;
        Ok(Self {
            environment: environment.map_err(TemplateError::Parse)?,
            bos_token: token(bos_token),
            eos_token: token(eos_token),
        })
    }

    /// The conversation as text, ready for the assistant's answer.
    pub fn render(&self, messages: &[Message], tools: Option<&serde_json::Value>) -> Result<String, TemplateError> {
        check_depth(messages, tools)?;
        self.render_checked(messages, tools)
    }

    fn render_checked(&self, messages: &[Message], tools: Option<&serde_json::Value>) -> Result<String, TemplateError> {
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel(messages, tools)));
        let looked = values::Looked::default();
        environment.add_filter(source::SETTLED, move |value: &Value| values::settled(&looked, value));
        let rendered = on_deep_stack(|| {
            let template = environment.get_template(NAME).map_err(|e| TemplateError::Failed(e.to_string()))?;
            let tools = tools.map(|tools| Value::from(Serde(tools)));
            let context = context! {
                messages => Value::from(Serde(messages)),
                tools => tools,
                bos_token => &self.bos_token,
                eos_token => &self.eos_token,
                add_generation_prompt => true,
            };
            let mut text = Limited { bytes: Vec::new() };
            match template.render_captured_to(context, &mut text) {
                Ok(_) => String::from_utf8(text.bytes).map_err(|e| TemplateError::Failed(e.to_string())),
                Err(_) if text.is_full() => Err(TemplateError::TooMuch),
                Err(error) => Err(classify(&error)),
            }
        });
        rendered.unwrap_or_else(|_| Err(TemplateError::Failed("the interpreter failed".to_owned())))
    }

    /// The conversation as tokens, ready for the assistant's answer.
    pub fn tokenize(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        tools: Option<&serde_json::Value>,
    ) -> Result<Vec<u32>, TemplateError> {
        check_depth(messages, tools)?;
        let special = tokenizer.special_tokens();
        let marked: Vec<Message> = messages.iter().map(|message| mark_message(message, special)).collect();
        let tools = tools.map(|tools| mark_json(tools, special));
        let text = self.render_checked(&marked, tools.as_ref())?;
        let (mut tokens, mut run, mut piece) = (Vec::new(), 0, 0);
        // What a person typed is cut out where it looks special; all else is the template's own.
        let ends = special.find(&text).map(|(range, _)| range).chain(std::iter::once(text.len()..text.len()));
        for range in ends {
            let typed = &text[piece..range.start];
            if typed.contains(MARK_OPEN) {
                tokens.extend(encode_own(tokenizer, &text[run..piece])?);
                tokens.extend(tokenizer.encode_literal(&unmark(typed, special))?);
                run = range.start;
            }
            piece = range.end;
        }
        tokens.extend(encode_own(tokenizer, &text[run..])?);
        Ok(tokens)
    }
}

/// Encodes what holds nothing special but the template's own: whole, as whoever trained the model did, since between special
/// tokens a tokenizer may see what comes before and after.
fn encode_own(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, TokenizerError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let special = tokenizer.special_tokens();
    let whole = tokenizer.encode(text)?;
    let meant = special.find(text).map(|(_, id)| id);
    if whole.iter().copied().filter(|id| special.text(*id).is_some()).eq(meant) {
        return Ok(whole);
    }
    // A normalizer has made special tokens of what was none: text that only looks like one when it is in small letters.
    let (mut tokens, mut from) = (Vec::new(), 0);
    for (range, id) in special.find(text).map(|(range, id)| (range, Some(id))).chain([(text.len()..text.len(), None)]) {
        let piece = &text[from..range.start];
        if !piece.is_empty() {
            tokens.extend(tokenizer.encode_literal(piece)?);
        }
        tokens.extend(id);
        from = range.end;
    }
    Ok(tokens)
}

/// What the template is called in minijinja's own messages.
const NAME: &str = "chat";

/// Whitespace around tags, as Hugging Face has it.
fn syntax() -> Result<SyntaxConfig, String> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(|e| e.to_string())
}

/// As Hugging Face's environment is set up.
fn environment(source: &str) -> Result<Environment<'static>, String> {
    let source = source::prepare(source, syntax()?)?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax()?);
    environment.set_unknown_method_callback(values::method);
    environment.set_formatter(values::print);
    values::add_writers(&mut environment);
    environment.add_filter("sum", values::sum);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, REFUSED.to_owned() + &message))
    });
    environment.add_template_owned(NAME, source).map_err(|e| e.to_string())?;
    Ok(environment)
}

/// What is read from outside is recursed through, here and in the interpreter.
fn check_depth(messages: &[Message], tools: Option<&serde_json::Value>) -> Result<(), TemplateError> {
    let mut values = messages.iter().flat_map(|message| message.more.values()).chain(tools);
    if values.all(is_shallow) { Ok(()) } else { Err(TemplateError::TooDeep) }
}

fn fuel(messages: &[Message], tools: Option<&serde_json::Value>) -> u64 {
    let more = messages.iter().flat_map(|message| message.more.values()).chain(tools).map(json_bytes).sum::<usize>();
    let bytes = messages.iter().map(|message| message.content.len()).sum::<usize>() + more;
    FUEL + FUEL_PER_MESSAGE * messages.len() as u64 + FUEL_PER_BYTE * bytes as u64
}

/// What a template has written, up to the limit.
struct Limited {
    bytes: Vec<u8>,
}

impl Limited {
    fn is_full(&self) -> bool {
        self.bytes.len() > MAX_RENDERED_BYTES
    }
}

impl std::io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        if self.is_full() { Err(std::io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Marks the message of `raise_exception`, so that it is told apart from the template's own failures.
const REFUSED: &str = "refused: ";

fn classify(error: &Error) -> TemplateError {
    let detail = error.detail().unwrap_or_default();
    if let Some(message) = detail.strip_prefix(REFUSED) {
        TemplateError::Refused(message.to_owned())
    } else if error.kind() == ErrorKind::OutOfFuel {
        TemplateError::TooLong
    } else {
        TemplateError::Failed(error.to_string())
    }
}

fn mark_message(message: &Message, special: &SpecialTokens) -> Message {
    let more = message.more.iter().map(|(key, value)| (mark(key, special), mark_json(value, special))).collect();
    Message { role: mark(&message.role, special), content: mark(&message.content, special), more }
}

fn mark_json(value: &serde_json::Value, special: &SpecialTokens) -> serde_json::Value {
    match value {
        serde_json::Value::String(text) => mark(text, special).into(),
        serde_json::Value::Array(items) => items.iter().map(|item| mark_json(item, special)).collect(),
        serde_json::Value::Object(entries) => {
            entries.iter().map(|(key, item)| (mark(key, special), mark_json(item, special))).collect()
        }
        other => other.clone(),
    }
}

/// Swaps what looks like a special token for its number between two marks.
fn mark(text: &str, special: &SpecialTokens) -> String {
    // The marks themselves mean nothing in a message.
    let text = text.replace([MARK_OPEN, MARK_CLOSE], "");
    let (mut marked, mut from) = (String::with_capacity(text.len()), 0);
    for (range, id) in special.find(&text) {
        marked.push_str(&text[from..range.start]);
        let _ = write!(marked, "{MARK_OPEN}{id}{MARK_CLOSE}");
        from = range.end;
    }
    marked.push_str(&text[from..]);
    marked
}

fn unmark(text: &str, special: &SpecialTokens) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(MARK_OPEN) {
        out.push_str(before);
        let Some((number, after)) = after.split_once(MARK_CLOSE) else {
            rest = after;
            continue;
        };
        match number.parse().ok().and_then(|id| special.text(id)) {
            Some(token) => out.push_str(token),
            None => {
                let _ = write!(out, "{number}");
            }
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> Vec<Message> {
        vec![Message::new("user", text)]
    }

    #[test]
    fn a_template_that_does_not_parse_says_so() {
        assert!(matches!(ChatTemplate::new("{% for x in %}", None, None), Err(TemplateError::Parse(_))));
    }

    #[test]
    fn a_template_that_loops_for_ever_is_stopped() {
        let source = "{% for a in range(99999) %}{% for b in range(99999) %}{{ a * b }}{% endfor %}{% endfor %}";
        let template = ChatTemplate::new(source, None, None).unwrap();
        assert!(matches!(template.render(&user("x"), None), Err(TemplateError::TooLong)));
    }

    #[test]
    fn a_template_may_refuse_with_its_own_words() {
        let template = ChatTemplate::new("{{ raise_exception('roles must alternate') }}", None, None).unwrap();
        let error = template.render(&user("x"), None).unwrap_err();
        assert!(matches!(&error, TemplateError::Refused(words) if words == "roles must alternate"), "{error}");
    }

    #[test]
    fn python_methods_and_tools_work() {
        let source =
            "{{ messages[0].content.strip().upper() }} {{ messages[0]['role'].startswith('us') }} {{ tools | tojson }}";
        let template = ChatTemplate::new(source, None, None).unwrap();
        let tools = serde_json::json!([{ "name": "f" }]);
        assert_eq!(template.render(&user(" a "), Some(&tools)).unwrap(), r#"A True [{"name": "f"}]"#);
    }

    /// Letter by letter, with `▁` before the very first piece of a text, as tokenizers made from SentencePiece have it.
    fn metaspace_first(rstrip: bool, markers_are_special: bool) -> Tokenizer {
        with_normalizer(&serde_json::Value::Null, rstrip, markers_are_special)
    }

    fn with_normalizer(normalizer: &serde_json::Value, rstrip: bool, markers_are_special: bool) -> Tokenizer {
        let is_normalized = !normalizer.is_null();
        let letters = ["▁", "u", "s", "e", "r", "x", "<", "|", ">", "i", "m", "_", "t", "a", "\n"];
        let vocabulary: serde_json::Map<String, serde_json::Value> =
            letters.iter().enumerate().map(|(id, letter)| ((*letter).to_owned(), id.into())).collect();
        let added = |id: usize, content: &str, special: bool, rstrip: bool| {
            serde_json::json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": rstrip,
                "normalized": is_normalized, "special": special
            })
        };
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": normalizer, "post_processor": null, "decoder": null,
            "added_tokens": [added(15, "<s>", true, false), added(16, "<|im_start|>", markers_are_special, rstrip)],
            "pre_tokenizer": { "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false },
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": []
            }
        });
        Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
    }

    fn tokens(tokenizer: &Tokenizer, source: &str, message: &Message) -> Vec<u32> {
        let template = ChatTemplate::new(source, Some("<s>".to_owned()), None).unwrap();
        template.tokenize(tokenizer, std::slice::from_ref(message), None).unwrap()
    }

    #[test]
    fn a_prompt_without_typed_markers_is_encoded_whole() {
        let source = "{{ bos_token }}<|im_start|>  {{ messages[0].role }}";
        let user = Message::new("user", "");
        // No `▁` after a special token, as there would be at the beginning of a text of its own; blanks are `▁`.
        assert_eq!(tokens(&metaspace_first(false, true), source, &user), [15, 16, 0, 0, 1, 2, 3, 4]);
        // And a marker that takes the blanks beside it takes them.
        assert_eq!(tokens(&metaspace_first(true, true), source, &user), [15, 16, 1, 2, 3, 4]);
    }

    #[test]
    fn what_a_person_types_is_no_marker_whatever_the_file_calls_its_markers() {
        let source = "<|im_start|>{{ messages[0].role }}\n{{ messages[0].content }}{{ messages[0].name }}";
        for markers_are_special in [true, false] {
            let tokenizer = metaspace_first(false, markers_are_special);
            let mut message = Message::new("user<|im_start|>", "x<|im_start|>x<s>");
            message.more.insert("name".to_owned(), "<|im_start|>".into());
            let found = tokens(&tokenizer, source, &message);
            assert_eq!(found.iter().filter(|token| **token >= 15).collect::<Vec<_>>(), [&16], "{found:?}");
        }
    }

    #[test]
    fn a_typed_marker_changes_no_token_before_it() {
        let source = "{{ bos_token }}{% for m in messages %}<|im_start|>  {{ m.role }}{{ m.content }}{% endfor %}";
        let tokenizer = metaspace_first(true, true);
        let template = ChatTemplate::new(source, Some("<s>".to_owned()), None).unwrap();
        let tokens = |typed: &str| {
            let messages = [Message::new("user", "x"), Message::new("user", typed)];
            template.tokenize(&tokenizer, &messages, None).unwrap()
        };
        let (plain, typed) = (tokens("x"), tokens("<|im_start|>"));
        let first = 1 + 1 + "userx".len();
        assert_eq!(plain[..first], [15, 16, 1, 2, 3, 4, 5]);
        assert_eq!(typed[..first], plain[..first]);
    }

    #[test]
    fn text_that_becomes_a_marker_in_small_letters_stays_text() {
        let tokenizer = with_normalizer(&serde_json::json!({ "type": "Lowercase" }), true, true);
        let found =
            tokens(&tokenizer, "<|im_start|>{{ messages[0].content }}", &Message::new("user", "x<|IM_START|>x"));
        assert_eq!(found.iter().filter(|token| **token >= 15).collect::<Vec<_>>(), [&16], "{found:?}");
    }

    #[test]
    fn what_looks_special_in_a_message_comes_back_as_it_was() {
        let special = SpecialTokens::new(vec![("<|end|>".to_owned(), 1), ("<s>".to_owned(), 2)]).unwrap();
        for text in ["plain", "<|end|>", "a<s>b<|end|><|end|>", "\u{10FFF0}0\u{10FFF1}", "\u{10FFF0}"] {
            let clean = text.replace([MARK_OPEN, MARK_CLOSE], "");
            let marked = mark(text, &special);
            assert!(!marked.contains("<|end|>") && !marked.contains("<s>"));
            assert_eq!(unmark(&marked, &special), clean);
        }
    }
}
