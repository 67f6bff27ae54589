//! Recognizes tokens that mark places in a prompt by their form.

/// Whether a token has the form of a marker, whatever its file says: `<|im_start|>`, `<start_of_turn>`, `[INST]`,
/// `</s>`.
pub(crate) fn is_marker(token: &str) -> bool {
    const NAMED: [&str; 12] = [
        "<s>",
        "</s>",
        "<bos>",
        "<eos>",
        "<start_of_turn>",
        "<end_of_turn>",
        "[INST]",
        "[/INST]",
        "<<SYS>>",
        "<</SYS>>",
        "<EOT>",
        "[EOT]",
    ];
    NAMED.contains(&token) || is_between_bars(token)
}

/// Whether a token has the form `<|name|>`, which does not occur in ordinary text.
fn is_between_bars(token: &str) -> bool {
    let inside = |open, close| token.strip_prefix(open).and_then(|token: &str| token.strip_suffix(close));
    let between_bars = inside("<|", "|>").or_else(|| inside("<｜", "｜>"));
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_-:/▁ ".contains(c));
    between_bars.is_some_and(is_name)
}
