//! The operator `~`, which writes its operands as text.
//!
//! The interpreter writes them before it accounts for the result, and a list of lists may be endless as text. So in a
//! template's source, every chain of the operator becomes a filter over its operands that looks at them first
//! ([`joined`]): `a ~ b ~ c` becomes `(a , b , c)|__joined`. A name for it would be one that a template could replace.
//! An operand that is the bare word `not` is an error then, as in Jinja; minijinja alone takes it for a variable.
//!
//! Invariant: where a chain begins and ends is what minijinja's own parser says.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use minijinja::machinery::ast::{BinOpKind, Call, CallArg, Expr, Macro, Spanned, Stmt};
use minijinja::machinery::{Span, Token, Tokenizer, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Error, ErrorKind, State, Value};

use super::source::NAME;
use super::values::is_writable;

/// The name of the filter.
pub(super) const JOINED: &str = "__joined";

/// The longest text that is made at once: as much as a template may write in all.
const MAX_JOINED_BYTES: usize = 32 << 20;

/// The filter over the operands.
pub(super) fn joined(state: &mut State, operands: &Value) -> Result<Value, Error> {
    let operands: Vec<Value> = operands.try_iter()?.collect();
    let is_safe = operands.iter().all(Value::is_safe);
    let escapes = !matches!(state.auto_escape(), AutoEscape::None) && operands.iter().any(Value::is_safe);
    let mut text = String::new();
    for operand in operands {
        if !is_writable(&operand) {
            return Err(ErrorKind::OutOfFuel.into());
        }
        let operand = if escapes { minijinja::filters::escape(state, &operand)? } else { operand };
        // A text takes all that is written to it.
        let _ = write!(text, "{operand}");
        if text.len() > MAX_JOINED_BYTES {
            return Err(ErrorKind::OutOfFuel.into());
        }
    }
    Ok(if is_safe || escapes { Value::from_safe_string(text) } else { text.into() })
}

/// Puts the filter in place of the operator. A source that cannot be parsed is returned as it is.
pub(super) fn with_filter(source: &str, syntax: &SyntaxConfig) -> String {
    let Ok(template) = parse(source, NAME, syntax.clone()) else { return source.to_owned() };
    let mut chains = Chains::default();
    chains.statement(&template);
    // What is put in, and how much is taken away there. A chain may end where another one does.
    let mut changes: BTreeMap<usize, (String, usize)> = BTreeMap::new();
    for (start, end) in chains.0 {
        changes.entry(start).or_default().0.push('(');
        changes.entry(end).or_default().0 += &[")|", JOINED].concat();
    }
    let mut tokens = Tokenizer::new(source, NAME, false, syntax.clone());
    while let Ok(Some((token, span))) = tokens.next_token() {
        if matches!(token, Token::Tilde) {
            let change = changes.entry(span.start_offset as usize).or_default();
            change.0.push(',');
            change.1 = (span.end_offset - span.start_offset) as usize;
        }
    }
    let (mut changed, mut copied) = (String::with_capacity(source.len() + 64), 0);
    for (at, (inserted, removed)) in changes {
        changed += &source[copied..at];
        changed += &inserted;
        copied = at + removed;
    }
    changed + &source[copied..]
}

/// Where chains of the operator begin and end.
#[derive(Default)]
struct Chains(Vec<(usize, usize)>);

impl Chains {
    fn statements(&mut self, all: &[Stmt<'_>]) {
        for statement in all {
            self.statement(statement);
        }
    }

    fn statement(&mut self, statement: &Stmt<'_>) {
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::EmitExpr(emitted) => self.expression(&emitted.expr),
            Stmt::EmitRaw(_) | Stmt::Continue(_) | Stmt::Break(_) => {}
            Stmt::ForLoop(of) => {
                self.expressions([&of.target, &of.iter].into_iter().chain(&of.filter_expr));
                self.statements(&of.body);
                self.statements(&of.else_body);
            }
            Stmt::IfCond(of) => {
                self.expression(&of.expr);
                self.statements(&of.true_body);
                self.statements(&of.false_body);
            }
            Stmt::WithBlock(with) => {
                self.expressions(with.assignments.iter().flat_map(|(target, value)| [target, value]));
                self.statements(&with.body);
            }
            Stmt::Set(set) => self.expressions([&set.target, &set.expr]),
            Stmt::SetBlock(set) => {
                self.expressions([&set.target].into_iter().chain(&set.filter));
                self.statements(&set.body);
            }
            Stmt::AutoEscape(escape) => {
                self.expression(&escape.enabled);
                self.statements(&escape.body);
            }
            Stmt::FilterBlock(filter) => {
                self.expression(&filter.filter);
                self.statements(&filter.body);
            }
            Stmt::Block(block) => self.statements(&block.body),
            Stmt::Import(import) => self.expressions([&import.expr, &import.name]),
            Stmt::FromImport(import) => self.expression(&import.expr),
            Stmt::Extends(extends) => self.expression(&extends.name),
            Stmt::Include(include) => self.expression(&include.name),
            Stmt::Macro(of) => self.of_macro(of),
            Stmt::CallBlock(block) => {
                self.call(&block.call);
                self.of_macro(&block.macro_decl);
            }
            Stmt::Do(of) => self.call(&of.call),
        }
    }

    fn of_macro(&mut self, of: &Spanned<Macro<'_>>) {
        self.expressions(of.args.iter().chain(&of.defaults));
        self.statements(&of.body);
    }

    fn call(&mut self, call: &Spanned<Call<'_>>) {
        self.expression(&call.expr);
        self.arguments(&call.args);
    }

    fn arguments(&mut self, all: &[CallArg<'_>]) {
        self.expressions(all.iter().map(|argument| match argument {
            CallArg::Pos(of) | CallArg::Kwarg(_, of) | CallArg::PosSplat(of) | CallArg::KwargSplat(of) => of,
        }));
    }

    fn expressions<'a, 'b: 'a>(&mut self, all: impl IntoIterator<Item = &'a Expr<'b>>) {
        for expression in all {
            self.expression(expression);
        }
    }

    fn expression(&mut self, expression: &Expr<'_>) {
        match expression {
            Expr::Var(_) | Expr::Const(_) => {}
            Expr::Slice(of) => {
                self.expressions([&of.expr].into_iter().chain(&of.start).chain(&of.stop).chain(&of.step));
            }
            Expr::UnaryOp(of) => self.expression(&of.expr),
            Expr::BinOp(of) if matches!(of.op, BinOpKind::Concat) => {
                let Span { start_offset, end_offset, .. } = of.span();
                self.0.push((start_offset as usize, end_offset as usize));
                self.expression(&of.right);
                // What was joined before the last operand. In brackets, it is a chain of its own.
                let mut left = &of.left;
                while let Expr::BinOp(before) = left
                    && matches!(before.op, BinOpKind::Concat)
                    && before.span().start_offset == start_offset
                {
                    self.expression(&before.right);
                    left = &before.left;
                }
                self.expression(left);
            }
            Expr::BinOp(of) => self.expressions([&of.left, &of.right]),
            Expr::Compare(of) => self.expressions([&of.expr].into_iter().chain(of.ops.iter().map(|op| &op.expr))),
            Expr::IfExpr(of) => {
                self.expressions([&of.test_expr, &of.true_expr].into_iter().chain(&of.false_expr));
            }
            Expr::Filter(of) => {
                self.expressions(&of.expr);
                self.arguments(&of.args);
            }
            Expr::Test(of) => {
                self.expression(&of.expr);
                self.arguments(&of.args);
            }
            Expr::GetAttr(of) => self.expression(&of.expr),
            Expr::GetItem(of) => self.expressions([&of.expr, &of.subscript_expr]),
            Expr::Call(of) => self.call(of),
            Expr::List(of) => self.expressions(&of.items),
            Expr::Tuple(of) => self.expressions(&of.items),
            Expr::Map(of) => self.expressions(of.keys.iter().chain(&of.values)),
        }
    }
}

#[cfg(test)]
mod tests {
    use minijinja::Environment;
    use proptest::prelude::*;

    use super::*;
    use crate::template::environment::syntax;

    fn changed(source: &str) -> String {
        with_filter(source, &syntax().unwrap())
    }

    #[test]
    fn chains_of_the_operator_become_a_filter_and_nothing_else_changes() {
        for same in ["a ~ b", "{{ '~' }}{# a ~ b #}{% raw %}{{ a ~ b }}{% endraw %}", "{{ a ~ }}", "{{ a + b }}"] {
            assert_eq!(changed(same), same);
        }
        for (source, expected) in [
            ("{{ a ~ b }}", "{{ (a , b)|__joined }}"),
            ("{{ a~b.c[0]~d(e) }}", "{{ (a,b.c[0],d(e))|__joined }}"),
            ("{{ 'x' + a * 2 ~ -b|f is g == c }}", "{{ 'x' + (a * 2 , -b|f is g)|__joined == c }}"),
            ("{{ (a ~ b) ~ (c ~ d) }}", "{{ (((a , b)|__joined) , ((c , d)|__joined))|__joined }}"),
            (
                "{{ f(a ~ b, c=[d ~ e]) ~ {'k': g ~ h}['k'] }}",
                "{{ (f((a , b)|__joined, c=[(d , e)|__joined]) , {'k': (g , h)|__joined}['k'])|__joined }}",
            ),
            (
                "{% for x in a ~ b if c ~ d %}{{ x ~ 1 if y ~ 2 else z ~ 3 }}{% else %}{{ a ~ b }}{% endfor %}",
                "{% for x in (a , b)|__joined if (c , d)|__joined %}{{ (x , 1)|__joined if (y , 2)|__joined else \
              (z , 3)|__joined }}{% else %}{{ (a , b)|__joined }}{% endfor %}",
            ),
            (
                "{% if not a ~ b is none and c ~ d in e ~ f %}{% elif a ~ b %}{{ a ~ b }}{% endif %}",
                "{% if not (a , b is none)|__joined and (c , d)|__joined in (e , f)|__joined %}{% elif (a , b)|__joined \
              %}{{ (a , b)|__joined }}{% endif %}",
            ),
            (
                "{%- set x, y.z = a ~ b, c -%}{% set w | f(a ~ b) %}{{ a ~ b }}{% endset %}",
                "{%- set x, y.z = (a , b)|__joined, c -%}{% set w | f((a , b)|__joined) %}{{ (a , b)|__joined }}{% endset %}",
            ),
            (
                "{% macro m(x=a ~ b) %}{{ x ~ x }}{% endmacro %}{% call(y) m(a ~ b) %}{{ y ~ y }}{% endcall %}",
                "{% macro m(x=(a , b)|__joined) %}{{ (x , x)|__joined }}{% endmacro %}{% call(y) m((a , b)|__joined) %}\
              {{ (y , y)|__joined }}{% endcall %}",
            ),
            (
                "{% with a = b ~ c %}{% filter f(d ~ e) %}{{ x[a ~ b:c ~ d] }}{% endfilter %}{% endwith %}",
                "{% with a = (b , c)|__joined %}{% filter f((d , e)|__joined) %}{{ x[(a , b)|__joined:(c , d)|__joined] }}\
              {% endfilter %}{% endwith %}",
            ),
            (
                "{% autoescape a ~ b %}{% do f(a ~ b) %}{% endautoescape %}",
                "{% autoescape (a , b)|__joined %}{% do f((a , b)|__joined) %}{% endautoescape %}",
            ),
        ] {
            assert_eq!(changed(source), expected);
        }
    }

    /// What a source renders, with the interpreter's own operator and with the filter.
    fn rendered(source: &str) -> [Result<String, ()>; 2] {
        [source.to_owned(), changed(source)].map(|source| {
            let mut environment = Environment::new();
            environment.set_syntax(syntax().unwrap());
            environment.add_filter(JOINED, joined);
            environment.render_str(&source, minijinja::context! { a => 1, b => "<b>", c => vec![1, 2] }).map_err(drop)
        })
    }

    #[test]
    fn what_is_joined_is_the_same_text() {
        for source in [
            "{{ a ~ b ~ c ~ none ~ nothing ~ true ~ 1.0 ~ {'k': (1, 'x')} }}",
            "{{ ('<' ~ b|safe) ~ ' ' ~ (b|safe ~ b|safe) is safe }}",
            "{% autoescape true %}{{ '<' ~ b ~ a }}{{ '<' ~ b|safe ~ c }}{{ b|safe ~ (b ~ '<') }}{% endautoescape %}",
            "{% set x = a ~ b %}{{ x * 2 ~ x|upper ~ -a }}{{ (x ~ x)|length + 1 }}",
        ] {
            let [own, filtered] = rendered(source);
            assert!(own.is_ok(), "{source}");
            assert_eq!(own, filtered, "{source}");
        }
    }

    #[test]
    fn a_bare_not_is_no_operand() {
        assert_eq!(rendered("{{ a ~ not }}")[1], Err(()));
        assert_eq!(rendered("{{ a ~ (not b) }}")[1], rendered("{{ a ~ (not b) }}")[0]);
    }

    proptest! {
        #[test]
        fn no_expression_changes_its_value(
            expression in "(a|b|c|1|'x'|-|not | is string| if a else |~|~|~|\\+|\\*|\\(|\\)|\\[|\\]|, |==| and |\\|upper|\\.x){1,12}"
        ) {
            prop_assume!(!expression.contains("~not "));
            let [own, filtered] = rendered(&format!("{{{{ {expression} }}}}"));
            prop_assert_eq!(own, filtered);
        }
    }
}
