//! Parses JSON as clients send it: with a byte order mark, with half a surrogate pair, or missing.

use std::borrow::Cow;

use serde_json::Value;

/// Why a body is not JSON; completes "the request is …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonError {
    #[error("empty")]
    Empty,
    #[error("compressed; send it uncompressed")]
    Compressed,
    #[error("not JSON: {0}")]
    Syntax(String),
}

/// Parses a request body.
pub(crate) fn read(body: &[u8]) -> Result<Value, JsonError> {
    // Some editors and clients prepend a UTF-8 byte order mark.
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if body.trim_ascii().is_empty() {
        return Err(JsonError::Empty);
    }
    let is_compressed = [&b"\x1f\x8b"[..], b"\x28\xb5\x2f\xfd"].iter().any(|magic| body.starts_with(magic));
    if is_compressed {
        return Err(JsonError::Compressed);
    }
    serde_json::from_slice(&whole_characters(body)).map_err(|error| JsonError::Syntax(error.to_string()))
}

/// Replaces unpaired surrogate escapes with the replacement character. A client that truncates text may split an emoji,
/// and could otherwise never send that conversation again.
fn whole_characters(body: &[u8]) -> Cow<'_, [u8]> {
    let unit = |at: usize| {
        let digits = body.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut repaired, mut copied, mut at) = (Vec::new(), 0, 0);
    while let Some(next) = body[at..].iter().position(|byte| *byte == b'\\') {
        at += next;
        let is_half = match unit(at) {
            Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => {
                at += 12;
                continue;
            }
            Some(0xd800..=0xdfff) => true,
            _ => false,
        };
        if is_half {
            repaired.extend_from_slice(&body[copied..at]);
            repaired.extend_from_slice(b"\\ufffd");
            at += 6;
            copied = at;
        } else {
            // Skips an escaped character, which may itself be a backslash.
            at = (at + 2).min(body.len());
        }
    }
    if copied == 0 {
        return Cow::Borrowed(body);
    }
    repaired.extend_from_slice(&body[copied..]);
    Cow::Owned(repaired)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mark_at_the_beginning_is_no_part_of_the_text() {
        assert_eq!(read(b"\xef\xbb\xbf{\"a\":1}"), Ok(json!({ "a": 1 })));
    }

    #[test]
    fn half_a_character_is_replaced_and_whole_ones_stay() {
        for (text, read_as) in [
            (r#""x\ud83d""#, "x\u{fffd}"),
            (r#""\ude00x""#, "\u{fffd}x"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
            (r#""\ud83d\ude00""#, "😀"),
            (r#""\\ud83d""#, "\\ud83d"),
            (r#""\\\ud83d""#, "\\\u{fffd}"),
            (r#""\u00e4\n\"""#, "ä\n\""),
        ] {
            assert_eq!(read(text.as_bytes()), Ok(json!(read_as)), "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_called_what_it_is() {
        let message = |body: &[u8]| read(body).unwrap_err().to_string();
        assert_eq!(message(b" \n"), "empty");
        assert_eq!(message(b"\x1f\x8b\x08\x00"), "compressed; send it uncompressed");
        assert!(message(b"{\"a\":").starts_with("not JSON: EOF"), "{}", message(b"{\"a\":"));
        for cut in [&b"\"\\"[..], b"\"\\u", b"\"\\ud83", b"\\", b"\"\\ud83d\\u"] {
            assert!(read(cut).is_err());
        }
    }
}
