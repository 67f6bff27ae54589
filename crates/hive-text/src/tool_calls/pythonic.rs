//! Calls written as in Python: `[NAME(KEY=VALUE, …), …]`.

use super::call::Call;
use super::literal::Literal;

pub(super) fn calls(text: &str) -> Option<Vec<Call>> {
    let mut literal = Literal::new(text);
    let mut calls = Vec::new();
    literal.expect('[')?;
    loop {
        let name = literal.word()?.to_owned();
        literal.expect('(')?;
        calls.push(Call { name, arguments: literal.pairs('=', ')')? });
        if literal.expect(',').is_none() {
            break;
        }
    }
    literal.expect(']')?;
    literal.is_at_end().then_some(calls)
}
