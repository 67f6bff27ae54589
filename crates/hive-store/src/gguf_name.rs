//! Names of GGUF files: quantizations, numbers of parts, and where a revision ends before them. What is fetched by a name
//! is found by the same name.

/// Whether a file is GGUF.
pub fn is_gguf(file: &str) -> bool {
    file.len() > ".gguf".len() && file.to_ascii_lowercase().ends_with(".gguf")
}

/// The end of a revision within a name: before a label or a file. Branches may contain slashes, too.
pub fn end_of_revision(text: &str) -> usize {
    if let Some(colon) = text.find(':') {
        return colon;
    }
    if !is_gguf(text) {
        return text.len();
    }
    // Pull requests have three parts: refs/pr/1.
    let slashes = if text.starts_with("refs/") { 3 } else { 1 };
    text.match_indices('/').nth(slashes - 1).map_or(text.len(), |(at, _)| at)
}

/// Whether a GGUF file is, or is part of, a model of its own: neither a vision projector nor an importance matrix.
pub fn is_model(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file).to_ascii_lowercase();
    is_gguf(&name) && !name.starts_with("mmproj") && !name.contains("imatrix")
}

/// The number of a part and of how many, in `name-00002-of-00003.gguf`.
pub fn part_of(file: &str) -> Option<(u32, u32)> {
    let (before, of) = stem(file).rsplit_once("-of-")?;
    let (_, number) = before.rsplit_once('-')?;
    Some((number.parse().ok()?, of.parse().ok()?))
}

/// A path without the number of a part: `name.gguf` of `name-00001-of-00003.gguf`.
pub fn joined(file: &str) -> String {
    let stem = stem(file);
    let whole = part_of(file).and_then(|_| stem.rsplit_once("-of-")?.0.rsplit_once('-')).map(|(before, _)| before);
    whole.map_or_else(|| file.to_owned(), |whole| format!("{whole}{}", &file[stem.len()..]))
}

fn stem(file: &str) -> &str {
    file.get(..file.len().saturating_sub(".gguf".len())).unwrap_or(file)
}

/// A relative path without its extension and part numbers, in capitals.
pub fn bare(file: &str) -> String {
    stem(&joined(file)).to_ascii_uppercase()
}

/// Whether a file's name contains this quantization.
pub fn has_label(file: &str, label: &str) -> bool {
    let (file, label) = (bare(file), label.to_ascii_uppercase());
    let before = |c: Option<char>| c.is_none_or(|c| matches!(c, '-' | '.' | '/' | '_'));
    let after = |c: Option<char>| c.is_none_or(|c| matches!(c, '-' | '.' | '/'));
    file.match_indices(&label)
        .any(|(at, _)| before(file[..at].chars().next_back()) && after(file[at + label.len()..].chars().next()))
}

/// The quantization of a file: the last part of its name that is one.
pub fn label(file: &str) -> Option<String> {
    let bare = bare(file);
    let says = |part: &&str| {
        let numbered = ["IQ", "TQ", "Q"].into_iter().find_map(|kind| part.strip_prefix(kind));
        let is_number = numbered.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        is_number || part.starts_with("MXFP") || ["F32", "F16", "BF16", "FP16", "FP32"].contains(part)
    };
    bare.split(['-', '.', '/']).rfind(says).map(str::to_owned)
}
