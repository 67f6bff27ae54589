//! Chat templates, rendered by `minijinja` as Hugging Face's templates expect.
//!
//! Models are trained on prompts rendered by Hugging Face's `transformers`, so that is the reference: Jinja2 in its
//! immutable sandbox, with a few additional functions (`environment`). Where `minijinja` differs from Python, the
//! modules here follow Python: `json`, `methods`, `python`, `dates`.
//!
//! Whatever a person or a tool wrote stays text: only special tokens written by the template itself count (`marks`,
//! `tokens`).
//!
//! Templates are untrusted. Limits apply to the source before it is parsed (`source`), to the computation by fuel and
//! depth (`values`, `joined`), and to the output (`MAX_RENDERED_BYTES`); the remaining recursion has a stack of its own.

mod conversation;
mod dates;
mod environment;
mod error;
mod joined;
mod json;
mod marks;
mod methods;
mod python;
mod source;
mod tokens;
mod values;

use std::collections::BTreeMap;

use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value};

pub use conversation::{Conversation, Message, RESERVED_VARIABLES, VariableError, variable};
pub use error::TemplateError;

use crate::deep::on_deep_stack;
use crate::reasoning::Markers;
use crate::tokenizer::Tokenizer;
use environment::{classify, environment};
use marks::mark_conversation;
use source::NAME;
use tokens::tokens;
use values::{is_shallow, json_bytes};

/// One unit of fuel is an instruction, or 64 bytes of a new value. A template gets this much,
const FUEL: u64 = 250_000;
/// this much per message, of which real templates need a few thousand at most,
const FUEL_PER_MESSAGE: u64 = 10_000;
/// and this much per byte of the conversation, enough to write each byte about fifty times.
const FUEL_PER_BYTE: u64 = 1;

/// Maximum output, which is more than any context holds.
const MAX_RENDERED_BYTES: usize = 32 << 20;

/// Hugging Face's templates always find it there.
const DOCUMENTS: &str = "documents";

/// A parsed chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// The tokens that the model names, such as `bos_token`.
    tokens: BTreeMap<String, String>,
    source: String,
}

impl ChatTemplate {
    /// Parses a template. It can refer to `tokens` by name, such as `bos_token`.
    pub fn new(source: &str, tokens: impl IntoIterator<Item = (String, String)>) -> Result<Self, TemplateError> {
        let environment = on_deep_stack(|| environment(source));
        let environment = environment.unwrap_or_else(|_| Err("the parser failed".to_owned()));
        let environment = environment.map_err(TemplateError::Parse)?;
        Ok(Self { environment, tokens: tokens.into_iter().collect(), source: source.to_owned() })
    }

    /// The names of the template's options, such as `enable_thinking`: variables it uses that are no part of a
    /// conversation.
    pub fn options(&self) -> Vec<String> {
        let names = on_deep_stack(|| {
            let template = self.environment.get_template(NAME).ok()?;
            Some(template.undeclared_variables(false))
        });
        let own: Vec<&str> = self.environment.globals().map(|(name, _)| name).collect();
        let is_given = |name: &str| {
            RESERVED_VARIABLES.contains(&name)
                || own.contains(&name)
                || self.tokens.contains_key(name)
                || name == DOCUMENTS
        };
        let mut names: Vec<String> =
            names.ok().flatten().unwrap_or_default().into_iter().filter(|name| !is_given(name)).collect();
        names.sort();
        names
    }

    /// How the model marks its thinking; `None` if it does not think.
    pub fn thinking(&self, tokenizer: &Tokenizer) -> Option<Markers> {
        Markers::of(&self.source, |text| tokenizer.has_token(text))
    }

    /// Renders the conversation as text, ready for the assistant's answer.
    pub fn render(&self, conversation: &Conversation) -> Result<String, TemplateError> {
        check_depth(conversation)?;
        self.render_checked(conversation)
    }

    /// Some old templates add a message's content to a text even if it is null. Those get an empty text instead.
    fn render_checked(&self, conversation: &Conversation) -> Result<String, TemplateError> {
        let rendered = self.render_as_it_is(conversation);
        let is_null = |message: &Message| message.content.is_null();
        if !matches!(rendered, Err(TemplateError::Failed(_))) || !conversation.messages.iter().any(is_null) {
            return rendered;
        }
        let mut with_texts = conversation.clone();
        with_texts
            .messages
            .iter_mut()
            .filter(|message| is_null(message))
            .for_each(|message| message.content = "".into());
        self.render_as_it_is(&with_texts).or(rendered)
    }

    fn render_as_it_is(&self, conversation: &Conversation) -> Result<String, TemplateError> {
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel(conversation)));
        let looked = values::Looked::default();
        environment.add_filter(source::SETTLED, move |value: &Value| values::settled(&looked, value));
        let began = conversation.began.unwrap_or_default();
        environment.add_function("strftime_now", move |format: &str| {
            let unknown = || Error::new(ErrorKind::InvalidOperation, "strftime_now: it is not a date's format");
            dates::strftime(began, format).ok_or_else(unknown)
        });
        let rendered = on_deep_stack(|| {
            let template = environment.get_template(NAME).map_err(|e| TemplateError::Failed(e.to_string()))?;
            let mut text = Limited { bytes: Vec::new() };
            match template.render_captured_to(self.context(conversation), &mut text) {
                Ok(_) => String::from_utf8(text.bytes).map_err(|e| TemplateError::Failed(e.to_string())),
                Err(_) if text.is_full() => Err(TemplateError::TooMuch),
                Err(error) => Err(classify(&error)),
            }
        });
        rendered.unwrap_or_else(|_| Err(TemplateError::Failed("the interpreter failed".to_owned())))
    }

    /// Everything that the template can see.
    fn context(&self, conversation: &Conversation) -> Value {
        let tokens = self.tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str())));
        let variables = conversation.variables.iter().filter(|(name, _)| !RESERVED_VARIABLES.contains(&name.as_str()));
        let variables = variables.map(|(name, value)| (name.as_str(), Value::from(Serde(value))));
        let own = [
            ("messages", Value::from(Serde(&conversation.messages))),
            ("tools", conversation.tools.as_ref().map_or_else(|| Value::from(()), |tools| Value::from(Serde(tools)))),
            ("add_generation_prompt", Value::from(true)),
        ];
        let documents = [(DOCUMENTS, Value::from(()))];
        Value::from_pairs(documents.into_iter().chain(tokens).chain(variables).chain(own))
    }

    /// Renders the conversation as tokens, ready for the assistant's answer.
    pub fn tokenize(&self, tokenizer: &Tokenizer, conversation: &Conversation) -> Result<Vec<u32>, TemplateError> {
        check_depth(conversation)?;
        let text = self.render_checked(&mark_conversation(conversation, tokenizer.special_tokens()))?;
        Ok(tokens(tokenizer, &text)?)
    }
}

/// Input from outside is traversed recursively, here and in the interpreter.
fn check_depth(conversation: &Conversation) -> Result<(), TemplateError> {
    if conversation.values().all(is_shallow) { Ok(()) } else { Err(TemplateError::TooDeep) }
}

fn fuel(conversation: &Conversation) -> u64 {
    let bytes = conversation.values().map(json_bytes).sum::<usize>();
    FUEL + FUEL_PER_MESSAGE * conversation.messages.len() as u64 + FUEL_PER_BYTE * bytes as u64
}

/// The template's output, up to the limit.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> Conversation {
        Conversation::new([Message::new("user", text)])
    }

    #[test]
    fn a_template_that_does_not_parse_says_so() {
        assert!(matches!(ChatTemplate::new("{% for x in %}", []), Err(TemplateError::Parse(_))));
    }

    #[test]
    fn a_template_that_loops_for_ever_is_stopped() {
        let source = "{% for a in range(99999) %}{% for b in range(99999) %}{{ a * b }}{% endfor %}{% endfor %}";
        let template = ChatTemplate::new(source, []).unwrap();
        assert!(matches!(template.render(&user("x")), Err(TemplateError::TooLong)));
    }

    #[test]
    fn a_message_without_content_is_none_and_an_empty_text_where_a_template_cannot_add_none() {
        let calls = Message { content: serde_json::Value::Null, ..Message::new("assistant", "") };
        let conversation = Conversation::new([Message::new("user", "x"), calls]);
        for (source, expected) in [
            ("{% for m in messages %}[{{ 'none' if m.content is none else m.content }}]{% endfor %}", "[x][none]"),
            ("{% for m in messages %}{{ '[' + m['content'] + ']' }}{% endfor %}", "[x][]"),
        ] {
            let template = ChatTemplate::new(source, []).unwrap();
            assert_eq!(template.render(&conversation).unwrap(), expected);
        }
        // Other errors are reported unchanged.
        let template = ChatTemplate::new("{{ messages[0].content + 1 }}", []).unwrap();
        assert!(matches!(template.render(&conversation), Err(TemplateError::Failed(_))));
    }

    #[test]
    fn the_options_of_a_template_are_what_it_asks_for_beside_the_conversation() {
        let source = "{{ bos_token }}{% if tools and not documents %}{{ raise_exception('x') }}{% endif %}\
            {% macro m(own) %}{{ own }}{{ budget }}{% endmacro %}{% set ns = namespace(a=1) %}\
            {% if enable_thinking is defined and enable_thinking is false %}{{ strftime_now('%Y') }}{{ ns.a }}{% endif %}\
            {% for m in messages %}{{ m.role }}{% if loop.last and add_generation_prompt %}{{ range(2) }}{% endif %}{% endfor %}";
        let template = ChatTemplate::new(source, [("bos_token".to_owned(), "<s>".to_owned())]).unwrap();
        assert_eq!(template.options(), ["budget", "enable_thinking"]);
    }

    #[test]
    fn a_template_written_on_windows_renders_as_any_other() {
        let template = ChatTemplate::new("{% if true %}\r\na\r\n{% endif %}b\r{{ '\r\n' }}", []).unwrap();
        assert_eq!(template.render(&user("x")).unwrap(), "a\nb\n\n");
    }

    #[test]
    fn the_day_is_that_on_which_the_conversation_began() {
        let template = ChatTemplate::new("{{ strftime_now('%d %b %Y') }}", []).unwrap();
        let began = Some(jiff::civil::date(2026, 11, 27).at(23, 59, 0, 0));
        assert_eq!(template.render(&Conversation { began, ..user("x") }).unwrap(), "27 Nov 2026");
    }

    #[test]
    fn options_reach_a_template_and_what_is_not_given_is_there_as_none() {
        let source = "{{ enable_thinking }} {{ documents is none }} {{ tools is none }} {{ add_generation_prompt }} {{ x is defined }}";
        let template = ChatTemplate::new(source, []).unwrap();
        let variables = [("enable_thinking", false.into()), ("add_generation_prompt", false.into())];
        let variables =
            variables.map(|(name, value): (&str, serde_json::Value)| (name.to_owned(), value)).into_iter().collect();
        assert_eq!(template.render(&Conversation { variables, ..user("x") }).unwrap(), "False True True True False");
    }

    #[test]
    fn what_can_be_iterated_is_what_python_iterates() {
        let source = "{% for x in [none, 1, 'a', {}, [], nothing] %}{{ x is iterable }}{{ x is sequence }} {% endfor %}{{ true is number }}";
        let template = ChatTemplate::new(source, []).unwrap();
        let expected = "FalseFalse FalseFalse TrueTrue TrueTrue TrueTrue TrueTrue True";
        assert_eq!(template.render(&user("x")).unwrap(), expected);
    }

    #[test]
    fn a_template_may_refuse_with_its_own_words() {
        let template = ChatTemplate::new("{{ raise_exception('roles must alternate') }}", []).unwrap();
        let error = template.render(&user("x")).unwrap_err();
        assert!(matches!(&error, TemplateError::Refused(words) if words == "roles must alternate"), "{error}");
    }

    #[test]
    fn python_methods_and_tools_work() {
        let source =
            "{{ messages[0].content.strip().upper() }} {{ messages[0]['role'].startswith('us') }} {{ tools | tojson }}";
        let template = ChatTemplate::new(source, []).unwrap();
        let conversation = Conversation { tools: Some(serde_json::json!([{ "name": "f" }])), ..user(" a ") };
        assert_eq!(template.render(&conversation).unwrap(), r#"A True [{"name": "f"}]"#);
    }

    #[test]
    fn marks_for_trainers_around_an_answer_are_no_part_of_it() {
        let source = "{% for m in messages %}{{ m.role }}:{% generation %}{% set ended = '.' %}{{ m.content + ended }}\n\
                      {%- endgeneration %}{{ ended is defined }} {% endfor %}";
        let template = ChatTemplate::new(source, []).unwrap();
        let conversation = Conversation::new([Message::new("user", "x"), Message::new("assistant", "y")]);
        assert_eq!(template.render(&conversation).unwrap(), "user:x.False assistant:y.False ");
    }
}
