//! Calls of Gemma 4: `call:NAME{KEY:VALUE,…}`, with texts between `<|"|>`.

use super::call::Call;
use super::literal::Literal;

pub(super) fn call(text: &str) -> Option<Call> {
    let text = text.strip_prefix("call:")?;
    let (name, _) = text.split_once('{')?;
    let mut literal = Literal::new(&text[name.len()..]);
    let arguments = literal.object()?;
    (literal.is_at_end() && !name.trim().is_empty()).then(|| Call { name: name.trim().to_owned(), arguments })
}
