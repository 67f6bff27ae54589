//! Chat templates, rendered with a fixed conversation.

use hive_text::template::{ChatTemplate, Conversation, Message};

/// Parses and renders a template. Whether it could be rendered.
pub fn run(data: &[u8]) -> bool {
    let Ok(source) = std::str::from_utf8(data) else { return false };
    let Ok(template) = ChatTemplate::new(source, [("bos_token".to_owned(), "<s>".to_owned())]) else { return false };
    let mut call = Message::new("assistant", "");
    call.more
        .insert("tool_calls".to_owned(), serde_json::json!([{ "function": { "name": "f", "arguments": {"a": [1]} } }]));
    let messages = [Message::new("system", "Be brief."), Message::new("user", "Hi <s> ü\n"), call];
    let tools = serde_json::json!([{ "type": "function", "function": { "name": "f", "parameters": {} } }]);
    template.render(&Conversation { tools: Some(tools), ..Conversation::new(messages) }).is_ok()
}

/// Templates of every kind of tag and operator.
pub fn seeds() -> Vec<Vec<u8>> {
    [
        "{% for m in messages %}{{ '<|' ~ m.role + '|>' }}{{ m.content | trim }}{% endfor %}",
        "{%- set ns = namespace(x=[], n=0) -%}{% for m in messages %}{% set ns.x = ns.x + [m.content[1:]] %}{% set ns.n = ns.n + 1 %}{% if loop.first and not m.tool_calls is defined %}{{ ns.x | tojson(indent=2) }}{% elif m['role'] == 'user' %}{% continue %}{% else %}{{ loop.index0 }}{% endif %}{% endfor %}",
        "{% macro f(a, b=1) %}{{ caller() if caller else a * b }}{% endmacro %}{% call f(1) %}x{% endcall %}{{ f(2, b=3) }}",
        "{{ tools | map(attribute='function.name') | join(', ') }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
        "{% set x %}a{% endset %}{{ x.replace('a', 'bb').split('b') | sort(reverse=true) | unique | batch(2) | list }}",
        "{{ '{:>5}|{:.2f}'.format('x', 1.5) }}{{ '%s %d' | format('a', 2) }}{{ (1, 2) ~ {'a': [none, true]} }}",
        "{% generation %}{{ strftime_now('%d %b %Y') }}{% endgeneration %}{{ tools | tojson(ensure_ascii=true, separators=(',', ':')) }}{{ 'a b'.rsplit(none, 1) }}{{ [1e16] }}",
        "{% raw %}{{ x }}{% endraw %}{# c #}{% with a = 1 %}{{ -a ** 2 // 3 % 4 in [1] }}{% endwith %}{% filter upper %}b{% endfilter %}",
        "{{ raise_exception('no') if messages[0].role != 'system' else bos_token }}{{ dict(a=1).items() | list }}{{ range(3)[::-1] | list }}",
    ]
    .map(|source| source.as_bytes().to_vec())
    .to_vec()
}
