//! Malicious templates: each is refused or rendered within a second and a gigabyte, and none ends the process.
//!
//! A stack overflow ends the whole test, which reveals it. One kind is left to the time-out of the process that
//! renders: a key that is a list which contains another a thousand times, which contains another a thousand times, is
//! hashed item by item, and the interpreter's fuel does not account for that.

// The table of templates is long, and their names are printed so that a crash names its template.
#![allow(clippy::unwrap_used, clippy::too_many_lines, clippy::print_stdout)]

use std::time::{Duration, Instant};

use hive_text::template::{ChatTemplate, Conversation, Message, TemplateError};
use serde_json::{Value, json};

/// Debug builds of the interpreter are about ten times slower.
const LONGEST: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 1 });
const MOST_BYTES: u64 = 1 << 30;

/// CPU time of this process, so that others on the machine do not count. Known on Linux, in steps of 10 ms.
fn computed() -> Duration {
    static STARTED: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return STARTED.elapsed() };
    let fields: Vec<i64> = stat.rsplit(')').next().unwrap().split_whitespace().filter_map(|f| f.parse().ok()).collect();
    // User and system time are fields 11 and 12 after the state, which is not a number.
    Duration::from_millis((fields[10] + fields[11]) as u64 * 10)
}

/// Peak memory of this process; known on Linux.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) << 10
}

/// As many as fit into the largest template.
fn fill(before: &str, part: &str, middle: &str, after_part: &str, after: &str) -> String {
    let count = (60_000 - before.len() - middle.len() - after.len()) / (part.len() + after_part.len());
    few(count, before, part, middle, after_part, after)
}

fn few(count: usize, before: &str, part: &str, middle: &str, after_part: &str, after: &str) -> String {
    format!("{before}{}{middle}{}{after}", part.repeat(count), after_part.repeat(count))
}

/// Name and source.
fn templates() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    // Operators, brackets and chains: as many as fit, and as many as the limits allow.
    for (name, part, after) in [
        ("minus", "-", ""),
        ("minus with spaces", "- ", ""),
        ("plus in front", "+", ""),
        ("not", "not ", ""),
        ("minus and not", "-not ", ""),
        ("parentheses", "(", ")"),
        ("lists", "[", "]"),
        ("tuples", "(1,", ")"),
        ("dictionaries", "{1:", "}"),
        ("calls", "dict(a=", ")"),
        ("mixed brackets", "[{1:(", ")}]"),
        ("minus in brackets", "(-", ")"),
        ("sums", "1+", ""),
        ("differences", "1-", ""),
        ("products", "1*", ""),
        ("powers", "1**", ""),
        ("joined texts", "1~", ""),
        ("and", "1 and ", ""),
        ("or", "0 or ", ""),
        ("comparisons", "1==", ""),
        ("in", "1 in ", ""),
        ("conditions", "1 if 0 else ", ""),
        ("conditions in front", "1 if ", " else 2"),
        ("attributes", "", ".a"),
        ("subscripts", "", "[0]"),
        ("slices", "", "[:]"),
        ("calls of calls", "", "()"),
        ("filters", "", "|list"),
        ("lazy filters", "", "|map('upper')"),
        ("tests", "", " is none"),
        ("texts", "'", "'"),
        ("escapes", "'\\\\'", ""),
    ] {
        for count in [99, 49, 600, 1300] {
            all.push((format!("{name} × {count}"), few(count, "{{ ", part, "messages", after, " }}")));
        }
        all.push((name.to_owned(), fill("{{ ", part, "messages", after, " }}")));
    }
    // After something that a reader may take for a comment or a raw block but the parser does not, and the reverse.
    for disguise in [
        "{#}{% raw %}#}",
        "{#}#}{#-}#}",
        "{% raw %}{%-- endraw %}{# {% endraw %}",
        "{% raw %}{%\u{a0}endraw %}{# {% endraw %}",
        "{% set x.a = 1) %}{# (",
    ] {
        for (part, after) in [("-", ""), ("(", ")"), ("1+", ""), ("", ".a"), ("", "|list")] {
            let name = format!("{part}{after} behind {disguise}");
            all.push((name, fill(&format!("{disguise}{{{{ "), part, "messages", after, " }}")));
        }
        let blocks = fill(disguise, "{% if 0 %}x{% elif 0 %}", "", "", "{% endif %}");
        all.push((format!("elif behind {disguise}"), blocks));
        let nests = "{% set ns = namespace(x=[]) %}{% for a in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}";
        all.push((format!("namespace behind {disguise}"), disguise.to_owned() + nests + "{{ ns.x | tojson }}"));
    }
    // Nested blocks.
    for (name, part, after) in [
        ("for", "{% for a in [1,2] %}", "{% endfor %}"),
        ("if", "{% if 1 %}", "{% endif %}"),
        ("elif", "{% if 0 %}x{% elif 0 %}", "{% endif %}"),
        ("else", "{% if 0 %}{% else %}", "{% endif %}"),
        ("set", "{% set a %}", "{% endset %}"),
        ("filter", "{% filter upper %}", "{% endfilter %}"),
        ("macro", "{% macro m() %}", "{% endmacro %}"),
        ("call", "{% call m() %}", "{% endcall %}"),
        ("with", "{% with a=1 %}", "{% endwith %}"),
        ("autoescape", "{% autoescape true %}", "{% endautoescape %}"),
        ("block", "{% block a %}", "{% endblock %}"),
        ("raw", "{% raw %}", "{% endraw %}"),
        ("comments", "{#", "#}"),
    ] {
        for count in [50, 140] {
            all.push((format!("{name} × {count}"), few(count, "", part, "x", after, "")));
        }
        all.push((format!("{name} in itself"), fill("", part, "x", after, "")));
        all.push((format!("{name} without end"), fill("", part, "", "", "")));
    }
    all.push(("elif chain".to_owned(), fill("{% if 0 %}", "{% elif 0 %}", "", "", "{% endif %}")));
    let each = |body: &str| {
        format!("{{% set ns = namespace(x=[], y={{}}, s='ab') %}}{{% for a in range(99999) %}}{body}{{% endfor %}}")
    };
    for (name, source) in [
        // Recursion.
        ("macro", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
        (
            "two macros",
            "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{{ a() }}{% endmacro %}{{ a() }}",
        ),
        ("macro with a growing argument", "{% macro m(x) %}{{ m([x, x]) }}{% endmacro %}{{ m(1) }}"),
        (
            "macro that doubles",
            "{% macro m(s, n) %}{% if n %}{{ m(s ~ s, n - 1) }}{% endif %}{% endmacro %}{{ m('a', 60) }}",
        ),
        (
            "call in call",
            "{% macro m() %}{{ caller() }}{% endmacro %}{% macro r() %}{% call m() %}{{ r() }}{% endcall %}{% endmacro %}{{ r() }}",
        ),
        ("include itself", "{% include 'chat' %}"),
        ("extends itself", "{% extends 'chat' %}"),
        ("import itself", "{% import 'chat' as c %}{{ c }}"),
        ("from itself", "{% from 'chat' import m %}{% macro m() %}{% endmacro %}"),
        ("block in itself", "{% block a %}{{ self.a() }}{% endblock %}"),
        ("super", "{% block a %}{{ super() }}{% endblock %}"),
        ("recursive loop", "{% for a in [1] recursive %}{{ loop([a]) }}{% endfor %}"),
        ("recursive loop that doubles", "{% for a in [1] recursive %}{{ loop([a, a]) }}{% endfor %}"),
        // Growth.
        ("width", "{{ '{:>2000000000}'.format(1) }}"),
        ("width with zeros", "{{ '{:02000000000d}'.format(1) }}"),
        ("precision", "{{ '{:.2000000000f}'.format(1.5) }}"),
        ("width from an argument", "{{ '{:>{}}'.format(1, 2000000000) }}"),
        ("many widths", "{{ ('{:>9999}' * 100000).format(1) }}"),
        ("width of the filter", "{{ '%2000000000d' | format(1) }}"),
        ("width of the filter from an argument", "{{ '%*d' | format(2000000000, 1) }}"),
        ("precision of the filter", "{{ '%.2000000000f' | format(1.5) }}"),
        ("text times", "{{ 'abc' * 2000000000 }}"),
        ("number times text", "{{ 2000000000 * 'abc' }}"),
        ("text times times", "{{ ('a' * 10000000) * 10000000 }}"),
        ("list times", "{{ ([1, 2, 3] * 100000000) | length }}"),
        ("list times times", "{{ ([[1] * 1000000] * 1000000) | length }}"),
        ("list times in json", "{{ ([1, 2, 3] * 100000000) | tojson }}"),
        (
            "nested lists in json",
            "{% set a = [1] * 1000 %}{% set b = [a] * 1000 %}{% set c = [b] * 1000 %}{{ ([c] * 1000) | tojson }}",
        ),
        (
            "nested lists compared",
            "{% set a = [1] * 1000 %}{% set b = [a] * 1000 %}{% set c = [b] * 1000 %}{{ c == [b] * 1000 }}",
        ),
        ("nested lists printed", "{% set a = [1] * 1000 %}{% set b = [a] * 1000 %}{% set c = [b] * 1000 %}{{ c }}"),
        (
            "nested lists in a list",
            "{% set a = [1] * 1000 %}{% set b = [a] * 1000 %}{% set c = [b] * 1000 %}{{ a in c }}{{ c | unique | list }}",
        ),
        (
            "nested lists captured",
            "{% set a = [1] * 1000 %}{% set b = [a] * 1000 %}{% set c = [b] * 1000 %}{% set x %}{{ c }}{% endset %}",
        ),
        (
            "nested lists as text",
            "{% set a = [1] * 1000 %}{% set b = [a] * 1000 %}{% set c = [b] * 1000 %}{{ c | string }}",
        ),
        (
            "nested lists joined",
            "{% set a = [1] * 1000 %}{% set b = [a] * 1000 %}{% set c = [b] * 1000 %}{{ c | join }}{{ ''.join(c) }}",
        ),
        (
            "nested lists formatted",
            "{% set a = [1] * 1000 %}{% set b = [a] * 1000 %}{% set c = [b] * 1000 %}{{ '%s' | format(c) }}",
        ),
        (
            "nested lists in a format",
            "{% set a = [1] * 1000 %}{% set b = [a] * 1000 %}{% set c = [b] * 1000 %}{{ '{}'.format(c) }}",
        ),
        (
            "nested lists, pretty",
            "{% set a = [1] * 1000 %}{% set b = [a] * 1000 %}{% set c = [b] * 1000 %}{{ c | pprint }}",
        ),
        (
            "nested by hand",
            "{% set a = [1,1,1,1,1,1,1,1] %}{% set a = [a,a,a,a,a,a,a,a] %}{% set a = [a,a,a,a,a,a,a,a] %}{% set a = [a,a,a,a,a,a,a,a] %}{% set a = [a,a,a,a,a,a,a,a] %}{% set a = [a,a,a,a,a,a,a,a] %}{% set a = [a,a,a,a,a,a,a,a] %}{% set a = [a,a,a,a,a,a,a,a] %}{% set a = [a,a,a,a,a,a,a,a] %}{{ a | tojson }}",
        ),
        ("indented by a position", "{{ [[1]] | tojson(2000000000) }}"),
        ("range", "{{ range(2000000000) | list | length }}"),
        ("range, sorted", "{{ range(99999) | sort(reverse=true) | list | length }}"),
        ("range, backwards", "{{ range(99999)[::-1] | list | length }}"),
        ("large range of ranges", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
        ("grouped", "{{ ([{'a': 1}] * 1000000) | groupby('a') | length }}"),
        ("in batches", "{{ range(99999) | batch(1) | list | length }}"),
        ("batch filled", "{{ [1] | batch(2000000000, 'x') | list | length }}"),
        ("sliced filled", "{{ [1] | slice(2000000000, 'x') | list | length }}"),
        ("unique", "{{ range(99999) | unique | list | length }}"),
        ("sum of lists", "{{ ([[1]] * 100000) | sum(start=[]) | length }}"),
        ("sorted texts", "{{ (['a' * 100000] * 100000) | sort | length }}"),
        ("joined", "{{ (['a'] * 100000) | join('b' * 100000) | length }}"),
        ("joined by the method", "{{ ('b' * 100000).join(['a'] * 100000) | length }}"),
        ("replaced", "{{ ('a' * 1000000) | replace('a', 'b' * 100000) | length }}"),
        ("replaced by the method", "{{ ('a' * 1000000).replace('a', 'b' * 100000) | length }}"),
        ("nothing replaced", "{{ ('a' * 1000000).replace('', 'b' * 100000) | length }}"),
        ("split", "{{ ('a,' * 4000000).split(',') | length }}"),
        ("split by the filter", "{{ ('a,' * 4000000) | split(',') | list | length }}"),
        ("lines", "{{ ('\n' * 8000000).splitlines() | length }}"),
        ("indented", "{{ ('a\n' * 100000) | indent(1000000) | length }}"),
        ("indented json", "{{ [[1]] | tojson(indent=2000000000) }}"),
        ("title", "{{ ('ß' * 4000000).upper() | title | length }}"),
        ("printed lists", "{{ [messages] * 1000000 }}"),
        ("power", "{{ 9 ** 9 ** 9 ** 9 }}"),
        ("many decimals", "{{ 1.5 | round(2000000000) }}"),
        ("cycler", "{% set c = cycler('a', 'b') %}{% for a in range(99999) %}{{ c.next() }}{% endfor %}"),
        ("joiner", "{% set j = joiner('a' * 100000) %}{% for a in range(99999) %}{{ j() }}{% endfor %}"),
        ("lipsum", "{{ lipsum(n=100000) }}"),
        ("debug", "{{ debug() }}"),
        (
            "nested captures",
            "{% set a %}{% for b in range(99999) %}{{ 'x' * 1000 }}{% endfor %}{% endset %}{{ a * 100 }}",
        ),
        ("escaped", "{{ ('<' * 10000000) | escape | escape | length }}"),
        ("urlencode", "{{ ('<' * 10000000) | urlencode | length }}"),
        ("dictionary of many", "{{ dict(range(99999) | batch(2)) | length }}"),
        ("namespace of itself", "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns | tojson }}"),
        (
            "namespace in its own list",
            "{% set ns = namespace() %}{% set ns.a = [{'b': (1, ns)}] %}{{ ns == ns }}{{ ns }}",
        ),
        (
            "namespace by a block",
            "{% set ns = namespace() %}{% set ns.a | default(ns, true) %}{% endset %}{{ ns | tojson }}",
        ),
        ("namespace by two names", "{% set ns = namespace() %}{% set (ns.a, b) = (ns, 1) %}{{ ns | tojson }}"),
        ("namespace by a cycler", "{% set ns = namespace() %}{% set ns.a = cycler(ns) %}{{ ns }}"),
        (
            "namespace by a macro",
            "{% set ns = namespace() %}{% macro m() %}{{ ns }}{% endmacro %}{% set ns.a = m %}{{ ns }}",
        ),
        (
            "namespaces in namespaces",
            "{% set a = namespace() %}{% set b = namespace(x=a) %}{% set a.x = b %}{{ a | tojson }}",
        ),
    ] {
        all.push((name.to_owned(), source.to_owned()));
    }
    // Nested lists, where a text is wanted.
    for expression in [
        "c | upper",
        "c | lower",
        "c | title",
        "c | capitalize",
        "c | trim",
        "'a' | trim(c)",
        "c | replace('a', 'b')",
        "'a' | replace(c, 'b')",
        "'a' | replace('a', c)",
        "c | replace('a', 'b', 1)",
        "'a' | replace('a', c, count=1)",
        "c | indent",
        "c | safe",
        "c | escape",
        "c | e",
        "c | urlencode",
        "[c] | map('upper') | list",
        "c is startingwith('[')",
        "'a' is endingwith(c)",
        "raise_exception(c)",
        "'x' ~ c",
        "c ~ 'x'",
        "('x' * 20000000) ~ ('x' * 20000000)",
    ] {
        let nested = "{% set a = [1] * 1000 %}{% set b = [a] * 1000 %}{% set c = [b] * 1000 %}{% set c = [c] * 1000 %}";
        all.push((format!("nested lists: {expression}"), format!("{nested}{{{{ {expression} }}}}")));
    }
    // Endless nesting in a namespace, and its uses.
    for (name, body) in [
        ("list", "{% set ns.x = [ns.x] %}"),
        ("lists at once", "{% set ns.x = [[[[[[[[ns.x]]]]]]]] %}"),
        ("pair", "{% set ns.x = (ns.x, ns.x) %}"),
        ("dictionary", "{% set ns.x = {'a': ns.x} %}"),
        ("called dictionary", "{% set ns.x = dict(a=ns.x) %}"),
        ("slice", "{% set ns.x = ns.x[:] %}"),
        ("slice backwards", "{% set ns.x = ns.x[::-1] %}"),
        ("lazy filter", "{% set ns.x = ns.x | map('upper') %}"),
        ("lazy filter in a list", "{% set ns.x = [ns.x | select] %}"),
        ("reverse", "{% set ns.x = ns.x | reverse %}"),
        ("items", "{% set ns.y = {'a': ns.y | items} %}"),
        ("chain", "{% set ns.x = ns.x | chain([1]) %}"),
        ("zip", "{% set ns.x = ns.x | zip(ns.x) %}"),
        ("appended", "{% set ns.x = ns.x + [a] %}"),
        ("doubled", "{% set ns.x = ns.x + ns.x + [1] %}"),
        ("doubled text", "{% set ns.s = ns.s ~ ns.s %}"),
        ("text", "{% set ns.s = ns.s + 'abc' %}"),
        ("block", "{% set ns.x | default([ns.x], true) %}{% endset %}"),
        ("macro", "{% set y = ns.x %}{% macro m() %}{{ y }}{% endmacro %}{% set ns.x = m %}"),
        ("cycler", "{% set ns.x = cycler(ns.x) %}"),
        ("two", "{% set ns.x, ns.y = [ns.y], [ns.x] %}"),
        ("condition", "{% set ns.x = [ns.x] if true else 1 %}"),
    ] {
        for (what, after) in [
            ("dropped", ""),
            ("printed", "{{ ns.x }}"),
            ("in json", "{{ ns.x | tojson }}"),
            ("compared", "{{ ns.x == ns.x }}{{ ns.x < ns.x }}"),
            ("hashed", "{{ {ns.x: 1} }}"),
        ] {
            all.push((format!("namespace: {name}, {what}"), each(body) + after));
        }
    }
    all
}

#[test]
fn no_template_ends_the_process_or_takes_long_or_much() {
    let messages = [
        Message::new("system", "You are helpful."),
        Message::new("user", "Hello"),
        Message::new("assistant", "Hi."),
        Message::new("user", "Go on."),
    ];
    let tools = json!([{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }]);
    let conversation = Conversation { tools: Some(tools), ..Conversation::new(messages) };
    let all = templates();
    assert!(all.len() > 300, "{}", all.len());
    let mut failures = Vec::new();
    for (name, source) in all {
        // The last line of a crashed test names its cause.
        println!("{name}");
        let (before, started) = (peak_bytes(), computed());
        let result = ChatTemplate::new(&source, []).and_then(|template| template.render(&conversation));
        let (took, peak) = (computed().saturating_sub(started), peak_bytes());
        let what = match &result {
            Ok(text) => format!("{} bytes", text.len()),
            Err(error) => error.to_string().chars().take(120).collect(),
        };
        if took > LONGEST / 4 || peak > before.max(200 << 20) {
            println!("{name}: {took:?}, peak {} MB: {what}", peak >> 20);
        }
        if took > LONGEST || peak > MOST_BYTES && peak > before {
            failures.push(format!("{name}: {took:?}, peak {} MB", peak >> 20));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn what_real_templates_do_with_namespaces_still_works() {
    let source = "{%- set ns = namespace(found=false, last=none, rest=[], n=0) -%}
{%- for m in messages -%}
{%- if m.role == 'user' -%}{%- set ns.found = true -%}{%- set ns.last = m -%}{%- endif -%}
{%- set ns.rest = ns.rest + [m.content | upper] -%}
{%- set ns.n = ns.n + 1 -%}
{%- endfor -%}
{%- set ns.tail = messages[1:] -%}
{%- set ns.text -%}a.b = c{%- endset -%}
{{- ns.found }} {{ ns.last.content }} {{ ns.rest }} {{ ns.n }} {{ ns.tail | length }} {{ ns.tail[0].role }} {{ ns.text }}";
    let template = ChatTemplate::new(source, []).unwrap();
    let text = template.render(&Conversation::new([Message::new("system", "x"), Message::new("user", "y")])).unwrap();
    assert_eq!(text, r#"True y ["X", "Y"] 2 1 user a.b = c"#.replace('"', "'"));
}

#[test]
fn a_long_conversation_has_fuel_for_a_template_that_looks_at_all_of_it() {
    let source = "{% set ns = namespace(n=0) %}{% for m in messages %}{% set content = m.content | trim %}
{% if loop.index0 % 2 == 0 %}{% set ns.n = ns.n + 1 %}{% endif %}{% for l in content.split('\n') %}{{ l | trim }}{% endfor %}
<|{{ m.role }}|>{{ content.strip() + '\n' }}{{ tools | tojson(indent=2) }}{% endfor %}{{ ns.n }}";
    let template = ChatTemplate::new(source, []).unwrap();
    let messages: Vec<_> = (0..200).map(|n| Message::new("user", format!("{n} line\n").repeat(200))).collect();
    let tools = json!([{ "name": "f", "description": "x".repeat(2000) }]);
    let conversation = Conversation { tools: Some(tools), ..Conversation::new(messages) };
    assert!(template.render(&conversation).unwrap().len() > 1_000_000);
}

#[test]
fn arguments_nested_too_deep_are_refused_before_anything_recurses() {
    let deep = |levels: usize| (0..levels).fold(json!(1), |inner, _| Value::Array(vec![inner]));
    let template = ChatTemplate::new("{{ messages[0] | tojson }}{{ tools == tools }}{{ tools }}", []).unwrap();
    let mut message = Message::new("assistant", "x");
    let with = |message: &Message, tools| Conversation { tools, ..Conversation::new([message.clone()]) };
    assert!(template.render(&with(&message, Some(deep(90)))).is_ok());
    let too_deep = |conversation| matches!(template.render(&conversation), Err(TemplateError::TooDeep));
    assert!(too_deep(with(&message, Some(deep(101)))));
    assert!(too_deep(Conversation::new([Message { content: deep(101), ..message.clone() }])));
    let variables = [("x".to_owned(), deep(101))].into_iter().collect();
    assert!(too_deep(Conversation { variables, ..Conversation::new([message.clone()]) }));
    message.more.insert("tool_calls".to_owned(), deep(5000));
    assert!(matches!(template.render(&with(&message, None)), Err(TemplateError::TooDeep)));
    // Dropping such JSON recurses in its library, one level after the other.
    let mut json = message.more.remove("tool_calls").unwrap();
    while let Value::Array(mut items) = json {
        json = items.pop().unwrap_or_default();
    }
}

#[test]
fn a_template_that_writes_without_end_is_stopped() {
    let template = ChatTemplate::new("{% for m in messages %}{{ m.content * 40 }}{% endfor %}", []).unwrap();
    let messages: Vec<_> = (0..40).map(|_| Message::new("user", "x".repeat(100_000))).collect();
    assert!(matches!(template.render(&Conversation::new(messages)), Err(TemplateError::TooMuch)));
}
