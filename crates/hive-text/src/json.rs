//! JSON files as editors and Python write them: with a mark before the text, or with words that JSON does not have.

use serde_json::Value as Json;

/// Parses a file. The error describes the fault.
pub fn parse(file: &[u8]) -> Result<Json, String> {
    let text = without_mark(file);
    if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
        return Err("it is encoded as UTF-16; save it as UTF-8".to_owned());
    }
    serde_json::from_slice(text).map_err(|error| match not_a_number(text) {
        Some(word) => format!("{error}: it holds {word}, which Python writes and JSON does not have"),
        None => error.to_string(),
    })
}

/// A text without the byte order mark that some editors write before it.
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// The first of Python's words for what is not a number that stands outside a text.
fn not_a_number(json: &[u8]) -> Option<&'static str> {
    let mut rest = json;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'N' | b'I')) {
        let from = &rest[at..];
        if from[0] != b'"' {
            let word = ["NaN", "Infinity"].into_iter().find(|word| from.starts_with(word.as_bytes()));
            if word.is_some() {
                return word;
            }
            rest = &from[1..];
            continue;
        }
        // To the end of the text, which is no quotation mark behind a backslash.
        let mut is_escaped = false;
        let end = from[1..].iter().position(|byte| {
            let is_end = *byte == b'"' && !is_escaped;
            is_escaped = *byte == b'\\' && !is_escaped;
            is_end
        });
        rest = end.map_or(&[], |end| &from[end + 2..]);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_writes_for_no_number_is_named() {
        for (json, word) in [
            (r#"{"a": NaN}"#, Some("NaN")),
            (r#"{"a": [0.0, -Infinity]}"#, Some("Infinity")),
            (r#"{"a\": NaN": "\\", "b": Infinity"#, Some("Infinity")),
            (r#"{"NaN": "Infinity \" NaN"}"#, None),
            (r#"{"a": "NaN"#, None),
            (r#"{"a": "\"#, None),
            (r#"{"a": nan, "b": None}"#, None),
        ] {
            assert_eq!(not_a_number(json.as_bytes()), word, "{json}");
        }
        let why = parse("\u{feff}{\"rms_norm_eps\": NaN}".as_bytes()).unwrap_err();
        assert!(why.contains("it holds NaN, which Python writes"), "{why}");
        assert!(parse(b"\xff\xfe{\0}\0").unwrap_err().contains("UTF-16"));
        assert_eq!(parse("\u{feff}[1]".as_bytes()), Ok(serde_json::json!([1])));
    }
}
