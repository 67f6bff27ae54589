//! Answers with calls of each family, whole and in every cut.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

fn read<'a>(format: Format, schema: &Schema, arriving: impl IntoIterator<Item = &'a str>) -> Vec<Piece> {
    let mut reader = Reader::new(format, schema.clone());
    let mut pieces: Vec<Piece> = arriving.into_iter().flat_map(|text| reader.push(text)).collect();
    pieces.extend(reader.finish());
    let mut joined = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => push_text(&mut joined, text),
            call @ Piece::Call(_) => joined.push(call),
        }
    }
    joined
}

fn text(text: &str) -> Piece {
    Piece::Text(text.to_owned())
}

fn call(name: &str, arguments: &Json) -> Piece {
    Piece::Call(Call { name: name.to_owned(), arguments: arguments.as_object().unwrap().clone() })
}

fn check(format: Format, answer: &str, expected: &[Piece]) {
    let schema = Schema::default();
    assert_eq!(read(format, &schema, [answer]), expected, "{answer}");
    assert_eq!(read(format, &schema, answer.split_inclusive(|_| true)), expected, "{answer}, letter by letter");
}

/// An answer with a call in each format, and its arguments.
fn examples() -> Vec<(Format, &'static str, Json)> {
    let whole = json!({ "city": "Zürich \"ZH\"", "days": [1, 2.5], "on": { "a": true, "b": null } });
    vec![
        (
            Format::Json,
            r#"<tool_call>
{"name": "f", "arguments": {"city": "Zürich \"ZH\"", "days": [1, 2.5], "on": {"a": true, "b": null}}}
</tool_call>"#,
            whole.clone(),
        ),
        (
            Format::Xml,
            "<tool_call>\n<function=f>\n<parameter=city>\nZürich \"ZH\"\n</parameter>\n<parameter=days>\n[1, 2.5]\n\
             </parameter>\n<parameter=on>\n{\"a\": true, \"b\": null}\n</parameter>\n</function>\n</tool_call>",
            whole.clone(),
        ),
        (
            Format::Glm,
            "<tool_call>f<arg_key>city</arg_key><arg_value>Zürich \"ZH\"</arg_value>\n<arg_key>days</arg_key>\
             <arg_value>[1, 2.5]</arg_value><arg_key>on</arg_key><arg_value>{\"a\": true, \"b\": null}</arg_value></tool_call>",
            whole.clone(),
        ),
        (
            Format::Gemma,
            r#"<|tool_call>call:f{city:<|"|>Zürich "ZH"<|"|>,days:[1,2.5],on:{<|"|>a<|"|>:true,b:null}}<tool_call|>"#,
            whole.clone(),
        ),
        (
            Format::Kimi,
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"city\": \
             \"Zürich \\\"ZH\\\"\", \"days\": [1, 2.5], \"on\": {\"a\": true, \"b\": null}}<|tool_call_end|>\
             <|tool_calls_section_end|>",
            whole.clone(),
        ),
        (
            Format::Mistral,
            r#"[TOOL_CALLS][{"name": "f", "arguments": {"city": "Zürich \"ZH\"", "days": [1, 2.5], "on": {"a": true, "b": null}}, "id": "123456789"}]"#,
            whole.clone(),
        ),
        (
            Format::Mistral,
            r#"[TOOL_CALLS]f[CALL_ID]123456789[ARGS]{"city": "Zürich \"ZH\"", "days": [1, 2.5], "on": {"a": true, "b": null}}"#,
            whole.clone(),
        ),
        (
            Format::Pythonic,
            r#"<|tool_call_start|>[f(city='Zürich "ZH"', days=[1, 2.5], on={"a": True, 'b': None})]<|tool_call_end|>"#,
            whole.clone(),
        ),
        (
            Format::Harmony,
            "<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"city\": \
             \"Zürich \\\"ZH\\\"\", \"days\": [1, 2.5], \"on\": {\"a\": true, \"b\": null}}<|call|>",
            whole,
        ),
    ]
}

#[test]
fn a_call_of_each_family_is_read_wherever_its_text_is_cut() {
    for (format, written, arguments) in examples() {
        check(format, written, &[call("f", &arguments)]);
        check(
            format,
            &format!("I'll look <it> up.\n{written}"),
            &[text("I'll look <it> up.\n"), call("f", &arguments)],
        );
    }
}

#[test]
fn a_call_without_its_last_mark_is_read_at_the_end_of_the_answer() {
    for (format, written, arguments) in examples() {
        let end = ["</tool_call>", "<tool_call|>", "<|tool_calls_section_end|>", "<|tool_call_end|>", "<|call|>"];
        // Only the mark says that there are no more arguments.
        if format == Format::Glm {
            continue;
        }
        let cut = end.iter().find_map(|end| written.strip_suffix(end)).unwrap_or(written);
        check(format, cut, &[call("f", &arguments)]);
    }
}

#[test]
fn a_broken_call_is_text_and_what_follows_is_read() {
    for (format, written, arguments) in examples() {
        if format != Format::Mistral {
            let broken = written.replacen('f', "<", 1).replacen('{', "", 1).replacen('(', "", 1);
            check(format, &broken, &[text(&broken)]);
            check(format, &format!("{broken} {written}"), &[text(&format!("{broken} ")), call("f", &arguments)]);
        }
        let half: String = written.chars().take(written.chars().count() / 2).collect();
        check(format, &half, &[text(&half)]);
    }
    let prose = "Write [TOOL_CALLS] before a call.";
    check(Format::Mistral, prose, &[text(prose)]);
}

#[test]
fn several_calls_come_in_their_order() {
    let (f, g) = (call("f", &json!({ "a": 1 })), call("g", &json!({})));
    for (format, written) in [
        (Format::Json, r#"<tool_call>{"name":"f","arguments":{"a":1}}</tool_call><tool_call>{"name":"g"}</tool_call>"#),
        (
            Format::Kimi,
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"a\":1}\
             <|tool_call_end|><|tool_call_begin|>functions.g:1<|tool_call_argument_begin|>{}<|tool_call_end|>\
             <|tool_calls_section_end|>",
        ),
        (Format::Mistral, "[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]g[ARGS]{}"),
        (Format::Mistral, r#"[TOOL_CALLS][{"name":"f","arguments":{"a":1}},{"name":"g","arguments":{}}]"#),
        (Format::Pythonic, "<|tool_call_start|>[f(a=1), g()]<|tool_call_end|>"),
        (Format::Gemma, "<|tool_call>call:f{a:1}<tool_call|><|tool_call>call:g{}<tool_call|>"),
        (
            Format::Glm,
            "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call><tool_call>g</tool_call>",
        ),
        // Without the outer mark.
        (Format::Xml, "<function=f><parameter=a>1</parameter></function><function=g></function>"),
    ] {
        check(format, written, &[f.clone(), g.clone()]);
    }
}

#[test]
fn a_call_of_gpt_oss_is_read_once_its_thinking_is_split_off() {
    use crate::reasoning::{Markers, Piece as Stream, Splitter};

    let answer = "<|channel|>analysis<|message|>Which city?<|end|><|start|>assistant to=functions.f<|channel|>commentary \
                  json<|message|>{\"a\": 1}";
    let mut splitter = Splitter::new(Some(Markers::Harmony), false);
    let streams = [splitter.push(answer), splitter.finish()].concat();
    let said: Vec<&str> = streams
        .iter()
        .filter_map(|stream| match stream {
            Stream::Answer(text) => Some(text.as_str()),
            Stream::Thinking(_) => None,
        })
        .collect();
    check(Format::Harmony, &said.concat(), &[call("f", &json!({ "a": 1 }))]);
}

#[test]
fn what_a_tool_wants_as_text_stays_text() {
    let tools = json!([{ "type": "function", "function": { "name": "f", "parameters": {
        "type": "object", "properties": { "zip": { "type": "string" }, "count": { "type": "integer" } }
    } } }]);
    let expected = [call("f", &json!({ "zip": "8001", "count": 2 }))];
    let xml = "<tool_call>\n<function=f>\n<parameter=zip>\n8001\n</parameter>\n<parameter=count>\n2\n</parameter>\n\
               </function>\n</tool_call>";
    let glm = "<tool_call>f<arg_key>zip</arg_key><arg_value>8001</arg_value><arg_key>count</arg_key>\
               <arg_value>2</arg_value></tool_call>";
    for (format, answer) in [(Format::Xml, xml), (Format::Glm, glm)] {
        assert_eq!(read(format, &Schema::new(&tools), [answer]), expected);
        assert_eq!(read(format, &Schema::default(), [answer]), [call("f", &json!({ "zip": 8001, "count": 2 }))]);
    }
}

#[test]
fn text_that_cannot_be_a_call_is_shown_at_once() {
    let mut reader = Reader::new(Format::Json, Schema::default());
    assert_eq!(reader.push("a < b <too"), [text("a < b ")]);
    assert_eq!(reader.push("l>"), [text("<tool>")]);
    assert_eq!(reader.push("<tool_call>{"), []);
}

#[test]
fn values_nested_without_end_are_no_call() {
    let answer = format!("<|tool_call>call:f{{a:{}<tool_call|>", "[".repeat(100_000));
    check(Format::Gemma, &answer, &[text(&answer)]);
}

#[test]
fn the_format_is_the_one_that_a_template_shows() {
    for (template, format) in [
        (r#"{{- '<tool_call>\n{"name": "' }}"#, Some(Format::Json)),
        ("<tool_call>\n<function=example_function_name>", Some(Format::Xml)),
        ("<tool_call>{function-name}<arg_key>{arg-key-1}</arg_key>", Some(Format::Glm)),
        ("{{- '<|tool_call>call:' + function['name'] + '{' -}}", Some(Format::Gemma)),
        ("<|tool_calls_section_begin|><tool_call>", Some(Format::Kimi)),
        ("{{- '[TOOL_CALLS]' + tool_call.function.name }}", Some(Format::Mistral)),
        ("{{- '<|tool_call_start|>[' }}", Some(Format::Pythonic)),
        ("{{ 'functions.' + name + '<|channel|>commentary ' }}", Some(Format::Harmony)),
        ("{{ message.content }}", None),
    ] {
        assert_eq!(Format::of(template), format, "{template}");
    }
}

proptest! {
    #[test]
    fn however_an_answer_is_cut_its_pieces_are_the_same(
        kinds in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let examples = examples();
        let (format, ..) = examples[kinds[0].0.index(examples.len())];
        // Whole calls of this family and others', and halves.
        let mut answer = String::new();
        for (kind, is_whole) in &kinds {
            let written = examples[kind.index(examples.len())].1;
            let length = if *is_whole { usize::MAX } else { written.chars().count() * 2 / 3 };
            answer += "é ";
            answer.extend(written.chars().take(length));
        }
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(answer.len() + 1)).collect();
        at.retain(|at| answer.is_char_boundary(*at));
        at.extend([0, answer.len()]);
        at.sort_unstable();
        let pieces = at.windows(2).map(|range| &answer[range[0]..range[1]]);
        let schema = Schema::default();
        prop_assert_eq!(read(format, &schema, pieces), read(format, &schema, [answer.as_str()]));
    }

    /// An answer may end anywhere, and half a call must not be made.
    #[test]
    fn the_beginning_of_a_call_is_text(kind in any::<prop::sample::Index>(), cut: prop::sample::Index) {
        let examples = examples();
        let (format, written, _) = examples[kind.index(examples.len())];
        let last = ["</function>", "</tool_call>", "}", ")]", "\"}]"].iter().filter_map(|end| written.rfind(end)).min();
        let mut length = cut.index(last.unwrap());
        while !written.is_char_boundary(length) {
            length -= 1;
        }
        let answer = format!("a {}", &written[..length]);
        prop_assert_eq!(read(format, &Schema::default(), [answer.as_str()]), [text(&answer)]);
    }
}
