//! Answers of each family, whole and in every cut.

use proptest::prelude::*;

use super::*;

const THINK: Option<Markers> = Some(Markers::Tags { begin: "<think>", end: "</think>" });
const GEMMA: Option<Markers> = Some(Markers::Tags { begin: "<|channel>thought\n", end: "<channel|>" });
const HARMONY: Option<Markers> = Some(Markers::Harmony);

/// What was thought and what was answered, of an answer that arrives in these pieces.
fn split<'a>(markers: Option<Markers>, inside: bool, arriving: impl IntoIterator<Item = &'a str>) -> (String, String) {
    let mut splitter = Splitter::new(markers, inside);
    let mut pieces: Vec<Piece> = arriving.into_iter().flat_map(|text| splitter.push(text)).collect();
    pieces.extend(splitter.finish());
    let (mut thinking, mut answer) = (String::new(), String::new());
    for piece in pieces {
        match piece {
            Piece::Thinking(text) => thinking += &text,
            Piece::Answer(text) => answer += &text,
        }
    }
    (thinking, answer)
}

fn check(markers: Option<Markers>, inside: bool, text: &str, thinking: &str, answer: &str) {
    let expected = (thinking.to_owned(), answer.to_owned());
    assert_eq!(split(markers, inside, [text]), expected, "{text:?}");
    assert_eq!(split(markers, inside, text.split_inclusive(|_| true)), expected, "{text:?}, letter by letter");
}

#[test]
fn what_stands_between_the_markers_is_thinking_and_line_breaks_beside_them_are_neither() {
    check(THINK, false, "<think>\nA bee?\n\nYes.\n</think>\n\nBees.", "A bee?\n\nYes.", "Bees.");
    check(THINK, true, "\nA bee?\n</think>\n\nBees.", "A bee?", "Bees.");
    check(GEMMA, false, "<|channel>thought\nA bee?\n<channel|>Bees.", "A bee?", "Bees.");
    check(THINK, false, "<think>\n\n</think>\n\n    code", "", "    code");
    // Several times, before the answer.
    check(THINK, false, "\n<think>a</think>\n<think>b</think>c", "ab", "c");
    // Opened in the prompt, and again by the model.
    check(THINK, true, "<think>\nA bee?</think>Bees.", "A bee?", "Bees.");
    // The end of an empty thought, of which the prompt has the beginning.
    check(THINK, false, "</think>\n\nBees.", "", "Bees.");
}

#[test]
fn an_answer_without_thinking_is_left_as_it_is() {
    for markers in [None, THINK, GEMMA, HARMONY] {
        for text in ["Bees.", "", " \n two lines\n", "<", "<thin king>", "a < b <think", "\n\n"] {
            check(markers, false, text, "", text);
        }
    }
    check(None, false, "<think>a</think>", "", "<think>a</think>");
}

#[test]
fn markers_that_an_answer_talks_about_stay_in_it() {
    let text = "Write\n```\n<think>\nx\n</think>\n```\n<|channel|>analysis<|message|>y<|end|>";
    for markers in [THINK, HARMONY] {
        check(markers, false, text, "", text);
    }
    check(THINK, true, "a</think>Use <think>b</think>.", "a", "Use <think>b</think>.");
    let last = "<|channel|>final<|message|>Use <|end|> and <|start|>.";
    check(HARMONY, false, last, "", "Use <|end|> and <|start|>.");
}

#[test]
fn thinking_without_an_end_is_thinking() {
    check(THINK, false, "<think>\nA bee?\n</thi", "A bee?\n</thi", "");
    check(THINK, true, "<thi", "<thi", "");
    check(HARMONY, false, "<|channel|>analysis<|message|>A bee?<|en", "A bee?<|en", "");
    check(GEMMA, false, "<|channel>thought\n", "", "");
}

#[test]
fn messages_of_gpt_oss_are_told_apart_in_a_text_without_its_special_tokens() {
    check(HARMONY, false, "analysisA bee?assistantfinalBees.", "A bee?", "Bees.");
    check(HARMONY, false, "finalBees.", "", "Bees.");
    check(HARMONY, false, "analysisA bee? assistantfin", "A bee? assistantfin", "");
    for words in ["analysis", "finally, bees", "analysises", "final"] {
        check(HARMONY, false, words, "", words);
    }
}

#[test]
fn messages_of_gpt_oss_are_told_by_their_channel() {
    let text = "<|channel|>analysis<|message|>A bee?<|end|><|start|>assistant<|channel|>final<|message|>Bees.";
    check(HARMONY, false, text, "A bee?", "Bees.");
    // Without the end of a message, and with words to whoever asked between thoughts.
    let text = "<|channel|>analysis<|message|>a<|start|>assistant<|channel|>commentary<|message|>b<|end|>\
                <|start|>assistant<|channel|>analysis<|message|>c<|end|><|start|>assistant<|channel|>final<|message|>d";
    check(HARMONY, false, text, "ac", "bd");
    // A prompt may have the header.
    check(HARMONY, true, "a<|end|><|start|>assistant<|channel|>final<|message|>b", "a", "b");
    // A header that is none.
    let endless = format!("<|start|>{}", "x".repeat(400));
    check(HARMONY, false, &endless, "", &endless);
}

#[test]
fn a_call_of_gpt_oss_stays_in_the_answer_as_it_is() {
    let call = "<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\":1}<|call|>";
    check(HARMONY, false, &format!("<|channel|>analysis<|message|>a<|end|>{call}"), "a", call);
    let call = " to=functions.f<|channel|>commentary json<|message|>{\"a\":1}";
    check(HARMONY, false, call, "", call);
}

#[test]
fn text_is_shown_as_soon_as_it_is_certain() {
    let mut splitter = Splitter::new(THINK, true);
    assert_eq!(splitter.push("A bee"), [Piece::Thinking("A bee".to_owned())]);
    assert_eq!(splitter.push(" < b\n"), [Piece::Thinking(" < b".to_owned())]);
    assert_eq!(splitter.push("</think"), []);
    assert_eq!(splitter.push(">\n\n"), []);
    assert_eq!(splitter.push("B"), [Piece::Answer("B".to_owned())]);
    assert_eq!(splitter.push(" <thi"), [Piece::Answer(" <thi".to_owned())]);
}

#[test]
fn the_markers_are_those_of_the_template_or_else_of_the_vocabulary() {
    let tags = |begin, end| Some(Markers::Tags { begin, end });
    for (template, markers) in [
        ("{{ content.split('</think>')[-1].lstrip('\\n') }}", THINK),
        ("{{- '<|im_start|>assistant\\n<think>\\n' }}{# </think> #}", THINK),
        ("{{ '<|channel>thought\\n' + thinking_text + '\\n<channel|>' }}", GEMMA),
        ("{{ '[THINK]' + block['thinking'] + '[/THINK]' }}", tags("[THINK]", "[/THINK]")),
        ("<seed:think></seed:think>", tags("<seed:think>", "</seed:think>")),
        ("{{ '<|start|>assistant<|channel|>analysis<|message|>' + message.thinking + '<|end|>' }}", HARMONY),
        ("{{ message.content }}", None),
    ] {
        assert_eq!(Markers::of(template, |_| false), markers, "{template}");
    }
    let vocabulary = |tokens: &'static [&str]| Markers::of("{{ x }}", |text| tokens.contains(&text));
    assert_eq!(vocabulary(&["<think>", "</think>"]), THINK);
    assert_eq!(vocabulary(&["<|channel|>", "<|message|>", "</think>"]), HARMONY);
    // What the template says counts more.
    assert_eq!(Markers::of("</think>", |text| text.starts_with("<|")), THINK);
}

#[test]
fn markers_are_the_same_after_they_were_passed_on_and_unknown_ones_are_refused() {
    for markers in [THINK, GEMMA, HARMONY] {
        let json = serde_json::to_string(&markers).unwrap();
        assert_eq!(serde_json::from_str::<Option<Markers>>(&json).unwrap(), markers);
    }
    assert!(serde_json::from_str::<Markers>("\"<b>\"").is_err());
}

#[test]
fn a_prompt_that_opens_a_thought_says_so() {
    for (markers, prompt, open) in [
        (THINK, "<|im_start|>assistant\n<think>\n", true),
        (THINK, "<|Assistant|><think>", true),
        (THINK, "<|im_start|>assistant\n<think>\n\n</think>\n\n", false),
        (THINK, "What is <think>?<|im_end|>\n<|im_start|>assistant\n", false),
        (GEMMA, "<|turn>model\n<|channel>thought\n", true),
        (GEMMA, "<|turn>model\n<|channel>thought\n<channel|>", false),
        (HARMONY, "<|start|>assistant<|channel|>analysis<|message|>", true),
        (HARMONY, "<|start|>assistant<|channel|>final<|message|>", false),
        (HARMONY, "<|start|>assistant", false),
    ] {
        assert_eq!(markers.unwrap().is_open(prompt), open, "{prompt:?}");
    }
}

/// Texts made of markers, parts of markers and words.
fn texts() -> impl Strategy<Value = String> {
    const PARTS: [&str; 22] = [
        "<think>",
        "</think>",
        "<",
        "</thi",
        "\n",
        "\n\n",
        " ",
        "é",
        "bee",
        "<|channel>thought\n",
        "<channel|>",
        "<|chan",
        "<|start|>",
        "assistant",
        "<|channel|>",
        "analysis",
        "final",
        "commentary",
        " to=f",
        "<|message|>",
        "<|end|>",
        "<|call|>",
    ];
    prop::collection::vec(prop::sample::select(&PARTS[..]), 0..16).prop_map(|parts| parts.concat())
}

/// The text without blanks and markers.
fn words(text: &str) -> String {
    let text = text.replace(['\n', ' '], "");
    let markers = ["<think>", "</think>", "<|channel>thought", "<channel|>"];
    markers.iter().fold(text, |text, marker| text.replace(marker, ""))
}

proptest! {
    #[test]
    fn however_a_text_is_cut_the_streams_are_the_same(
        text in texts(), inside: bool, kind in 0..3usize, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let markers = [THINK, GEMMA, HARMONY][kind];
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        at.retain(|at| text.is_char_boundary(*at));
        at.extend([0, text.len()]);
        at.sort_unstable();
        let pieces = at.windows(2).map(|range| &text[range[0]..range[1]]);
        prop_assert_eq!(split(markers, inside, pieces), split(markers, inside, [text.as_str()]));
    }

    #[test]
    fn nothing_is_lost_or_doubled(text in texts(), inside: bool, gemma: bool) {
        let markers = if gemma { GEMMA } else { THINK };
        let mut splitter = Splitter::new(markers, inside);
        let mut pieces = splitter.push(&text);
        pieces.extend(splitter.finish());
        let all: String = pieces
            .into_iter()
            .map(|piece| match piece { Piece::Thinking(text) | Piece::Answer(text) => text })
            .collect();
        prop_assert_eq!(words(&all), words(&text));
    }
}
