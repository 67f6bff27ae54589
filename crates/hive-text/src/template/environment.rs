//! The interpreter, set up like Hugging Face's.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

use super::error::TemplateError;
use super::source::NAME;
use super::{joined, json, source, values};

/// Whitespace control of tags, as in Hugging Face's setup.
pub(super) fn syntax() -> Result<SyntaxConfig, String> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(|e| e.to_string())
}

/// Parses a template's source, with everything around it that does not depend on a conversation.
pub(super) fn environment(source: &str) -> Result<Environment<'static>, String> {
    // Jinja knows only one line ending.
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = joined::with_filter(&source::prepare(&source, syntax()?)?, &syntax()?);
    let mut environment = Environment::new();
    environment.set_syntax(syntax()?);
    environment.set_unknown_method_callback(values::method);
    environment.set_formatter(values::print);
    values::add_writers(&mut environment);
    environment.add_filter(joined::JOINED, joined::joined);
    environment.add_filter("sum", values::sum);
    environment.add_filter("tojson", json::tojson);
    add_tests(&mut environment);
    environment.add_function("joiner", minijinja_contrib::globals::joiner);
    environment.add_function("cycler", |items: Rest<Value>| {
        if items.is_empty() {
            return Err(Error::new(ErrorKind::MissingArgument, "cycler: it needs at least one item"));
        }
        minijinja_contrib::globals::cycler(items.0)
    });
    environment.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        if !values::is_writable(message) {
            return Err(Error::from(ErrorKind::OutOfFuel));
        }
        Err(Error::new(ErrorKind::InvalidOperation, format!("{REFUSED}{message}")))
    });
    environment.add_template_owned(NAME, source).map_err(|e| e.to_string())?;
    Ok(environment)
}

/// Jinja2's tests that differ here.
fn add_tests(environment: &mut Environment<'static>) {
    use ValueKind::{Bool, Iterable, Map, Number, Plain, Seq, String, Undefined};
    environment.add_test("iterable", |value: &Value| matches!(value.kind(), Undefined | String | Seq | Map | Iterable));
    environment.add_test("sequence", |value: &Value| matches!(value.kind(), Undefined | String | Seq | Map));
    environment.add_test("number", |value: &Value| matches!(value.kind(), Bool | Number));
    environment.add_test("callable", |value: &Value| value.kind() == Plain);
}

/// Marks the message of `raise_exception`, to tell it from the template's own failures.
const REFUSED: &str = "refused: ";

/// Converts an error of the interpreter.
pub(super) fn classify(error: &Error) -> TemplateError {
    let detail = error.detail().unwrap_or_default();
    if let Some(message) = detail.strip_prefix(REFUSED) {
        TemplateError::Refused(message.to_owned())
    } else if error.kind() == ErrorKind::OutOfFuel {
        TemplateError::TooLong
    } else {
        TemplateError::Failed(error.to_string())
    }
}
