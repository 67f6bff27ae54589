//! What a template's source may be, looked at before anything parses it.
//!
//! The parser and the compiler recurse along operators and brackets, so these are counted first. What a template stores in
//! a namespace outlives the loop that stored it and can nest without end; each such assignment is made to pass a filter that
//! limits it ([`super::values::settled`]).

/// Real templates reach about 30 KB.
const MAX_SOURCE_BYTES: usize = 64 << 10;
/// Brackets in each other; real templates have about five.
const MAX_BRACKETS: usize = 100;
/// `-` or `not`, one after the other.
const MAX_PREFIXES: usize = 50;
/// Operators, names and constants of one tag. A chain of operators nests as deep as it is long.
const MAX_TAG_TOKENS: usize = 4096;
/// Tags of a template: each `elif` nests in the one before.
const MAX_TAGS: usize = 4096;

/// The name of the filter that assignments to namespaces pass.
pub(super) const SETTLED: &str = "__settled";

/// Checks the source, and gives it with its assignments to namespaces limited.
///
/// # Errors
/// Which limit it passes.
pub(super) fn prepare(source: &str) -> Result<String, String> {
    if source.len() > MAX_SOURCE_BYTES {
        return Err(format!("it has {} bytes; more than {MAX_SOURCE_BYTES} are not accepted", source.len()));
    }
    let mut prepared = String::with_capacity(source.len() + 64);
    let (mut rest, mut tags) = (source, 0);
    while let Some(at) = rest.find('{') {
        let (before, tag) = rest.split_at(at);
        prepared.push_str(before);
        let end = match tag.as_bytes().get(1) {
            Some(b'#') => tag.find("#}").map_or(tag.len(), |end| end + 2),
            Some(b'%') if is_basic_tag(&tag[2..], "raw") => end_of_raw(tag),
            Some(b'%' | b'{') => {
                tags += 1;
                if tags > MAX_TAGS {
                    return Err(format!("it has more than {MAX_TAGS} tags"));
                }
                let end = end_of_tag(tag)?;
                push_tag(&mut prepared, &tag[..end]);
                rest = &tag[end..];
                continue;
            }
            _ => 1,
        };
        prepared.push_str(&tag[..end]);
        rest = &tag[end..];
    }
    prepared.push_str(rest);
    Ok(prepared)
}

/// Whether a tag, behind its `{%`, says one word.
fn is_basic_tag(tag: &str, word: &str) -> bool {
    let tag = tag.trim_start_matches(['-', '+']).trim_start();
    let after = tag.strip_prefix(word).map(|rest| rest.trim_start().trim_start_matches(['-', '+']));
    after.is_some_and(|rest| rest.starts_with("%}"))
}

fn end_of_raw(tag: &str) -> usize {
    let ends = tag.match_indices("{%").filter(|(at, _)| is_basic_tag(&tag[at + 2..], "endraw"));
    // A raw block that never ends is the parser's to refuse.
    ends.map(|(at, _)| at).next().unwrap_or(tag.len())
}

/// Where a tag ends, its limits checked on the way.
fn end_of_tag(tag: &str) -> Result<usize, String> {
    let close = if tag.starts_with("{%") { "%}" } else { "}}" };
    let (mut at, mut tokens, mut prefixes, mut brackets) = (2, 0, 0, 0usize);
    let bytes = tag.as_bytes();
    while at < bytes.len() {
        // As the lexer has it: within brackets, `}}` closes two dictionaries.
        let sign = usize::from(matches!(bytes[at], b'-' | b'+'));
        if brackets == 0 && tag[at + sign..].starts_with(close) {
            return Ok(at + sign + close.len());
        }
        let length = match bytes[at] {
            quote @ (b'"' | b'\'') => string_bytes(&bytes[at..], quote),
            byte if is_word(byte) => bytes[at..].iter().take_while(|&&byte| is_word(byte)).count(),
            _ => 1,
        };
        let token = &bytes[at..at + length];
        at += length;
        if token.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        tokens += 1;
        prefixes = if matches!(token, b"-" | b"not") { prefixes + 1 } else { 0 };
        match token {
            b"(" | b"[" | b"{" => brackets += 1,
            b")" | b"]" | b"}" => brackets = brackets.saturating_sub(1),
            _ => {}
        }
        if brackets > MAX_BRACKETS {
            return Err(format!("it nests brackets more than {MAX_BRACKETS} deep"));
        }
        if prefixes > MAX_PREFIXES {
            return Err(format!("it has more than {MAX_PREFIXES} prefix operators in a row"));
        }
        if tokens > MAX_TAG_TOKENS {
            return Err(format!("it has a tag of more than {MAX_TAG_TOKENS} words and operators"));
        }
    }
    Ok(tag.len())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Bytes of a string with its quotes.
fn string_bytes(bytes: &[u8], quote: u8) -> usize {
    let mut escaped = false;
    for (at, &byte) in bytes.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            byte if byte == quote => return at + 1,
            _ => {}
        }
    }
    bytes.len()
}

/// Copies a tag; what it assigns to a namespace passes the filter.
fn push_tag(to: &mut String, tag: &str) {
    let rest = tag.strip_prefix("{%").map(|rest| rest.trim_start_matches(['-', '+']).trim_start());
    let target = rest.and_then(|rest| rest.strip_prefix("set")).filter(|rest| !rest.starts_with(is_word_char));
    let body = tag.strip_suffix("%}").map(|tag| tag.strip_suffix(['-', '+']).unwrap_or(tag));
    let parts = target.zip(body).and_then(|(target, body)| {
        let (start, length) = (tag.len() - target.len(), target.find(['=', '|', '%'])?);
        target[..length].contains('.').then_some((&tag[..=start + length], body.get(start + length + 1..)?))
    });
    match parts {
        Some((target, value)) if target.ends_with('=') => to.extend([target, "(", value, ")|", SETTLED]),
        Some((target, value)) => to.extend([target, value, "|", SETTLED]),
        None => return to.push_str(tag),
    }
    to.push_str(&tag[body.map_or(tag.len(), str::len)..]);
}

fn is_word_char(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_assigned_to_a_namespace_passes_the_filter_and_nothing_else_changes() {
        let same = [
            "plain { text",
            "{% set x = [1, 2] %}{{ x }}",
            "{# {% set ns.x = 1 %} #}",
            "{% raw %}{% set ns.x = 1 %}{% endraw %}",
            "{{ '{% set ns.x = 1 %}' }}",
            "{%- set x %}a.b = c{% endset -%}",
            "{% settings.x = 1 %}",
            "{{ {'a': {'b': 1}} }}",
        ];
        for source in same {
            assert_eq!(prepare(source).unwrap(), source);
        }
        for (source, expected) in [
            ("{%- set ns.x = a if b else '%}' -%}", "{%- set ns.x =( a if b else '%}' )|__settled-%}"),
            ("{%set ns.x=ns.x+[1]%}", "{%set ns.x=(ns.x+[1])|__settled%}"),
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

    #[test]
    fn each_limit_says_which_it_is() {
        for (source, words) in [
            ("a".repeat(MAX_SOURCE_BYTES + 1), "bytes"),
            (format!("{{{{ {}1 }}}}", "-".repeat(51)), "prefix"),
            (format!("{{{{ {} 1 }}}}", "not ".repeat(51)), "prefix"),
            (format!("{{{{ {} }}}}", "[".repeat(101)), "brackets"),
            (format!("{{{{ a{} }}}}", "+a".repeat(2048)), "words and operators"),
            ("{{a}}".repeat(4097), "tags"),
        ] {
            let why = prepare(&source).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
        assert!(prepare(&format!("{{% set s = '{}' %}}", "-[({".repeat(10_000))).is_ok(), "a long text is no nesting");
    }
}
