//! Limits on a template's source, checked before it is parsed.
//!
//! The parser and the compiler recurse over operators and brackets, so these are counted first. A value stored in a
//! namespace outlives the loop that stored it and can nest without end. So each such assignment is rewritten to pass a
//! filter that limits it ([`super::values::settled`]).
//!
//! Invariant: the source is read by minijinja's own lexer. A lexer of our own that disagreed about a comment, a raw
//! block or the end of a tag would count what the parser never sees, and miss what it does.

use minijinja::machinery::{Span, Token, Tokenizer};
use minijinja::syntax::SyntaxConfig;

/// Real templates reach about 30 KB.
const MAX_SOURCE_BYTES: usize = 64 << 10;
/// Nested brackets; real templates have about five.
const MAX_BRACKETS: usize = 100;
/// Consecutive `-` or `not`.
const MAX_PREFIXES: usize = 50;
/// Operators, names and constants in one tag. A chain of operators nests as deep as it is long.
const MAX_TAG_TOKENS: usize = 4096;
/// Tags in a template: each `elif` nests in the one before.
const MAX_TAGS: usize = 4096;

/// The template's name in minijinja's messages.
pub(super) const NAME: &str = "chat";

/// The name of the filter for assignments to namespaces.
pub(super) const SETTLED: &str = "__settled";

/// Checks the source; returns it with its assignments to namespaces limited.
///
/// # Errors
/// The exceeded limit, or the lexer's error.
pub(super) fn prepare(source: &str, syntax: SyntaxConfig) -> Result<String, String> {
    if source.len() > MAX_SOURCE_BYTES {
        return Err(format!("it has {} bytes; more than {MAX_SOURCE_BYTES} are not accepted", source.len()));
    }
    let mut tokens = Tokenizer::new(source, NAME, false, syntax);
    let (mut counts, mut part) = (Counts::default(), Part::Other);
    let (mut prepared, mut copied) = (String::with_capacity(source.len() + 64), 0);
    while let Some((token, span)) = tokens.next_token().map_err(|error| error.to_string())? {
        counts.add(&token)?;
        let next = part.then(&token);
        if part == Part::Start
            && let Some(block) = plain_block(&token)
        {
            prepared.push_str(&source[copied..span.start_offset as usize]);
            prepared.push_str(block);
            copied = span.end_offset as usize;
        }
        if let Some((at, inserted)) = limited(part, next, span) {
            prepared.push_str(&source[copied..at]);
            prepared.extend(inserted);
            copied = at;
        }
        part = next;
    }
    prepared.push_str(&source[copied..]);
    Ok(prepared)
}

/// Counters along the tokens.
#[derive(Default)]
struct Counts {
    tags: usize,
    /// In the current tag.
    tokens: usize,
    /// In a row.
    prefixes: usize,
    /// Currently open. A tag ends only if there are none.
    brackets: usize,
}

impl Counts {
    fn add(&mut self, token: &Token<'_>) -> Result<(), String> {
        match token {
            Token::TemplateData(_) | Token::VariableEnd | Token::BlockEnd => return Ok(()),
            Token::VariableStart | Token::BlockStart => {
                *self = Self { tags: self.tags + 1, ..Self::default() };
            }
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => self.brackets += 1,
            Token::ParenClose | Token::BracketClose | Token::BraceClose => {
                // If one is closed too early, added brackets would move the end of the tag.
                self.brackets = self.brackets.checked_sub(1).ok_or("it closes a bracket that is not open")?;
            }
            _ => {}
        }
        self.tokens += 1;
        self.prefixes = if matches!(token, Token::Minus | Token::Ident("not")) { self.prefixes + 1 } else { 0 };
        if self.tags > MAX_TAGS {
            return Err(format!("it has more than {MAX_TAGS} tags"));
        }
        if self.brackets > MAX_BRACKETS {
            return Err(format!("it nests brackets more than {MAX_BRACKETS} deep"));
        }
        if self.prefixes > MAX_PREFIXES {
            return Err(format!("it has more than {MAX_PREFIXES} prefix operators in a row"));
        }
        if self.tokens > MAX_TAG_TOKENS {
            return Err(format!("it has a tag of more than {MAX_TAG_TOKENS} words and operators"));
        }
        Ok(())
    }
}

/// Hugging Face's tag `generation` tells a trainer which text is the assistant's own. Otherwise it is a scope, as is
/// `with`.
fn plain_block(name: &Token<'_>) -> Option<&'static str> {
    match name {
        Token::Ident("generation") => Some("with"),
        Token::Ident("endgeneration") => Some("endwith"),
        _ => None,
    }
}

/// The part of an assignment read so far.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    /// A tag has begun.
    Start,
    /// The targets; whether an attribute is among them, which only namespaces have.
    Target { has_attribute: bool },
    /// The value for an attribute.
    Value,
    /// Filters of a block whose text is assigned to an attribute.
    Filters,
    /// Not an assignment to an attribute.
    Other,
}

impl Part {
    fn then(self, token: &Token<'_>) -> Self {
        match (self, token) {
            (_, Token::BlockStart) => Self::Start,
            (_, Token::BlockEnd) => Self::Other,
            (Self::Start, Token::Ident("set")) => Self::Target { has_attribute: false },
            (Self::Target { .. }, Token::Dot) => Self::Target { has_attribute: true },
            (Self::Target { .. }, Token::Ident(_) | Token::Comma | Token::ParenOpen | Token::ParenClose)
            | (Self::Value | Self::Filters, _) => self,
            (Self::Target { has_attribute: true }, Token::Assign) => Self::Value,
            (Self::Target { has_attribute: true }, Token::Pipe) => Self::Filters,
            _ => Self::Other,
        }
    }
}

/// What to insert, and where, when a token leads from one part to the next: brackets around the value, which may be
/// several separated by commas, and the filter after it.
fn limited(part: Part, next: Part, span: Span) -> Option<(usize, [&'static str; 3])> {
    match (part, next) {
        (Part::Target { .. }, Part::Value) => Some((span.end_offset as usize, ["(", "", ""])),
        (Part::Value, Part::Other) => Some((span.start_offset as usize, [")", "|", SETTLED])),
        (Part::Filters, Part::Other) => Some((span.start_offset as usize, ["", "|", SETTLED])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prepare(source: &str) -> Result<String, String> {
        super::prepare(source, crate::template::environment::syntax().unwrap())
    }

    #[test]
    fn what_is_assigned_to_a_namespace_passes_the_filter_and_nothing_else_changes() {
        let same = [
            "plain { text",
            "{% set x = [1, 2] %}{{ x }}",
            "{# {% set ns.x = 1 %} #}",
            "{% raw %}{% set ns.x = 1 %}{% endraw %}",
            "{{ '{% set ns.x = 1 %}' }}",
            "{%- set x %}a.b = c{% endset -%}",
            "{{ {'a': {'b': 1}} }}",
            "{% set x = y.z %}{% if x.y == 1 %}{% endif %}\n",
            "{{ generation }}{% set generation = 1 %}{# {% generation %} #}",
        ];
        for source in same {
            assert_eq!(prepare(source).unwrap(), source);
        }
        for (source, expected) in [
            ("{%- set ns.x = a if b else '%}' -%}", "{%- set ns.x =( a if b else '%}' )|__settled-%}"),
            ("{%set ns.x=ns.x+[1]%}", "{%set ns.x=(ns.x+[1])|__settled%}"),
            ("{% set ns . x = {'a': 1} +%}", "{% set ns . x =( {'a': 1} )|__settled+%}"),
            ("{%- generation -%} a {% endgeneration +%}", "{%- with -%} a {% endwith +%}"),
            ("{% set ns.x, (y) = 1, 2 %}", "{% set ns.x, (y) =( 1, 2 )|__settled%}"),
            (
                "{% set ns.x | default([ns.x]) %}a{% endset %}",
                "{% set ns.x | default([ns.x]) |__settled%}a{% endset %}",
            ),
            ("{% raw %}a{%- endraw -%}{% set n.x = 1 %}", "{% raw %}a{%- endraw -%}{% set n.x =( 1 )|__settled%}"),
        ] {
            assert_eq!(prepare(source).unwrap(), expected);
        }
    }

    /// Texts before a tag that may hide it from a reader unlike the parser.
    const DISGUISES: [&str; 12] = [
        "{#}{% raw %}#}",
        "{#-#}{# {% raw %} #}",
        "{#}#}{#-}#}",
        "{##}{#{#}",
        "{% raw %}{%-- endraw %}{# {% endraw %}",
        "{% raw %}{%-+ endraw %}{# {% endraw %}",
        "{%- raw -%}{%+ endrawn %}{# {%+endraw+%}",
        "{% raw %}{%\u{a0}endraw %}{# {% endraw %}",
        "{% raw %}{# #}{% endraw --%}{# {% endraw -%}",
        "{{ '\\'{#' }}",
        "{{ \"{% raw %}\" }}",
        "{{{'}}': '{#'}}}",
    ];

    #[test]
    fn nothing_hides_a_tag_from_the_limits() {
        let deep = format!("{{{{ {}1 }}}}", "-".repeat(51));
        for disguise in DISGUISES {
            let hidden = disguise.to_owned() + &deep;
            assert!(prepare(&hidden).is_err(), "{disguise}");
            // The parser sees the tag there.
            let shown = disguise.to_owned() + "{{ 'seen' }}";
            let template = crate::template::ChatTemplate::new(&shown, []).unwrap();
            assert!(
                template.render(&crate::template::Conversation::default()).unwrap().ends_with("seen"),
                "{disguise}"
            );
            let assigned = disguise.to_owned() + "{% set ns.x = [ns.x] %}";
            assert!(prepare(&assigned).unwrap().ends_with("{% set ns.x =( [ns.x] )|__settled%}"), "{disguise}");
        }
        // Here the brackets for the filter would end the tag before the parser's lexer does.
        for closed in ["{% set ns.x = 1) %}{# ( %}", "{{ 1] }}{# [ }}", "{{ } }}{{ { }}"] {
            assert!(prepare(&(closed.to_owned() + &deep)).is_err(), "{closed}");
        }
        for refused in ["{%\u{a0}raw %}", "{#", "{#}", "{% raw %}{% endraw", "{{ '", "{{ '\\' }}", "{{ $ }}"] {
            assert!(prepare(&(refused.to_owned() + &deep)).is_err(), "{refused}");
        }
    }

    /// The tags and texts of a source, as the lexer sees them.
    fn outline(source: &str) -> Vec<String> {
        let mut tokens = Tokenizer::new(source, "", false, crate::template::environment::syntax().unwrap());
        let all = std::iter::from_fn(|| tokens.next_token().unwrap());
        let is_outside = |token: &Token<'_>| {
            let tag = [Token::BlockStart, Token::BlockEnd, Token::VariableStart, Token::VariableEnd];
            let same = |other| std::mem::discriminant(token) == std::mem::discriminant(&other);
            matches!(token, Token::TemplateData(_)) || tag.into_iter().any(same)
        };
        all.filter(|(token, _)| is_outside(token)).map(|(token, _)| format!("{token:?}")).collect()
    }

    proptest! {
        #[test]
        fn what_is_inserted_moves_no_end_of_a_tag(
            source in "(\\{%|%\\}|\\{\\{|\\}\\}|\\{#|#\\}|raw|endraw|set ns\\.x|set |=|\\||[-+'\\\\(){}\\[\\], .1a\n]|not ){0,40}"
        ) {
            if let Ok(prepared) = prepare(&source) {
                prop_assert_eq!(outline(&prepared), outline(&source));
            }
        }
    }

    #[test]
    fn each_limit_says_which_it_is() {
        for (source, words) in [
            ("a".repeat(MAX_SOURCE_BYTES + 1), "bytes"),
            (format!("{{{{ {}1 }}}}", "-".repeat(51)), "prefix"),
            (format!("{{{{ {} 1 }}}}", "not ".repeat(51)), "prefix"),
            (format!("{{{{ {} }}}}", "[".repeat(101)), "brackets"),
            (format!("{{{{ a{} }}}}", "+a".repeat(2048)), "words and operators"),
            ("{{a}}".repeat(4097), "tags"),
            ("{{ ) }}".to_owned(), "not open"),
            ("{# no end".to_owned(), "comment"),
        ] {
            let why = prepare(&source).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
        assert!(prepare(&format!("{{% set s = '{}' %}}", "-[({".repeat(10_000))).is_ok(), "a long text is no nesting");
    }
}
