//! Reads entries from TOML. An error names the line and the key.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use crate::model::{CatalogueEntry, GOOD_AT, Variant};

/// Why a catalogue cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(crate) struct ParseError {
    /// The line, counted from 1.
    pub(crate) line: usize,
    /// The error in it.
    pub(crate) what: String,
}

/// A file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    model: Vec<Spanned<Model>>,
}

/// `[[model]]`: the keys of [`CatalogueEntry`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    name: Spanned<String>,
    family: String,
    parameters: Spanned<u64>,
    active_parameters: Option<Spanned<u64>>,
    layers: Spanned<usize>,
    hidden: Spanned<u64>,
    vocabulary: Spanned<u64>,
    #[serde(default)]
    tied_embeddings: bool,
    kv_bytes_per_token: u64,
    #[serde(default)]
    state_bytes: u64,
    context: Spanned<u64>,
    licence: String,
    #[serde(default)]
    good_at: Vec<Spanned<String>>,
    /// `tools`, `thinking`.
    #[serde(default)]
    capabilities: Vec<Spanned<String>>,
    variants: Spanned<Vec<Spanned<Quantized>>>,
}

/// One of `variants`: the keys of [`Variant`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Quantized {
    repository: Spanned<String>,
    file: Option<String>,
    revision: Option<Spanned<String>>,
    quantization: String,
    bits_per_weight: Spanned<f64>,
    /// Without it, the parameters times the bits.
    bytes: Option<Spanned<u64>>,
    #[serde(default)]
    approximate: bool,
}

/// What capabilities there are.
const CAPABILITIES: [&str; 2] = ["tools", "thinking"];
/// More layers than any model has.
const MOST_LAYERS: usize = 1000;
/// The length of a commit's name, in hexadecimal digits.
const COMMIT_DIGITS: usize = 40;

/// Reads the entries of a file, in its order.
pub(crate) fn parse(text: &str) -> Result<Vec<CatalogueEntry>, ParseError> {
    let at = |span: Range<usize>, what: String| {
        let line = text.get(..span.start).unwrap_or(text).matches('\n').count() + 1;
        ParseError { line, what }
    };
    let file: File =
        toml::from_str(text).map_err(|error| at(error.span().unwrap_or_default(), error.message().to_owned()))?;
    let (mut entries, mut names, mut models) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for model in file.model {
        let span = model.get_ref().name.span();
        let entry = checked(model.into_inner()).map_err(|(span, what)| at(span, what))?;
        if let Some(other) = names.insert(entry.name.to_lowercase(), entry.name.clone()) {
            return Err(at(span, format!("name: \"{other}\" has an entry already")));
        }
        for variant in &entry.variants {
            if let Some(other) = models.insert(variant.model().to_lowercase(), entry.name.clone()) {
                return Err(at(span, format!("variants: {} is listed already, for \"{other}\"", variant.model())));
            }
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// The error, and its line.
type Wrong = (Range<usize>, String);

fn checked(model: Model) -> Result<CatalogueEntry, Wrong> {
    let name = filled("name", model.name)?;
    let parameters = positive("parameters", &model.parameters)?;
    let active_parameters = model.active_parameters.map(|active| positive("active_parameters", &active)).transpose()?;
    if active_parameters.is_some_and(|active| active > parameters) {
        return Err((model.parameters.span(), "active_parameters: more than there are parameters".to_owned()));
    }
    let layers = *model.layers.get_ref();
    if layers == 0 || layers > MOST_LAYERS {
        return Err((model.layers.span(), format!("layers: {layers} is no number of layers")));
    }
    for word in &model.good_at {
        known("good_at", word, &GOOD_AT)?;
    }
    for word in &model.capabilities {
        known("capabilities", word, &CAPABILITIES)?;
    }
    let can = |capability: &str| model.capabilities.iter().any(|word| word.get_ref() == capability);
    let (tools, thinking) = (can("tools"), can("thinking"));
    let span = model.variants.span();
    let variants = model.variants.into_inner().into_iter().map(|one| variant(one.into_inner(), parameters));
    let variants: Vec<Variant> = variants.collect::<Result<_, _>>()?;
    if variants.is_empty() {
        return Err((span, "variants: there is none".to_owned()));
    }
    Ok(CatalogueEntry {
        name,
        family: model.family,
        parameters,
        active_parameters,
        layers,
        hidden: positive("hidden", &model.hidden)?,
        vocabulary: positive("vocabulary", &model.vocabulary)?,
        tied_embeddings: model.tied_embeddings,
        kv_bytes_per_token: model.kv_bytes_per_token,
        state_bytes: model.state_bytes,
        context: positive("context", &model.context)?,
        licence: model.licence,
        good_at: model.good_at.into_iter().map(Spanned::into_inner).collect(),
        tools,
        thinking,
        variants,
    })
}

fn variant(one: Quantized, parameters: u64) -> Result<Variant, Wrong> {
    if !is_repository(one.repository.get_ref()) {
        let what = format!("repository: \"{}\" is not of the form owner/name", one.repository.get_ref());
        return Err((one.repository.span(), what));
    }
    if let Some(revision) = one.revision.as_ref() {
        let is_commit = |text: &str| text.len() == COMMIT_DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !is_commit(revision.get_ref()) {
            return Err((
                revision.span(),
                "revision: it is not the name of a commit, 40 hexadecimal digits".to_owned(),
            ));
        }
    }
    let bits_per_weight = *one.bits_per_weight.get_ref();
    if !(0.5..=32.0).contains(&bits_per_weight) {
        return Err((one.bits_per_weight.span(), format!("bits_per_weight: {bits_per_weight} is no number of bits")));
    }
    let known_bytes = one.bytes.map(|bytes| positive("bytes", &bytes)).transpose()?;
    Ok(Variant {
        repository: one.repository.into_inner(),
        file: one.file,
        revision: one.revision.map(Spanned::into_inner),
        quantization: one.quantization,
        bits_per_weight,
        bytes: known_bytes.unwrap_or((parameters as f64 * bits_per_weight / 8.0) as u64),
        approximate: one.approximate || known_bytes.is_none(),
    })
}

fn filled(key: &str, text: Spanned<String>) -> Result<String, Wrong> {
    if text.get_ref().trim().is_empty() {
        return Err((text.span(), format!("{key}: it is empty")));
    }
    Ok(text.into_inner())
}

fn positive(key: &str, number: &Spanned<u64>) -> Result<u64, Wrong> {
    match *number.get_ref() {
        0 => Err((number.span(), format!("{key}: it is 0"))),
        number => Ok(number),
    }
}

fn known(key: &str, word: &Spanned<String>, words: &[&str]) -> Result<(), Wrong> {
    if words.contains(&word.get_ref().as_str()) {
        return Ok(());
    }
    Err((word.span(), format!("{key}: \"{}\" is none of {}", word.get_ref(), words.join(", "))))
}

/// Whether a text names a repository: an owner and a name, of letters, digits, dots, dashes and underscores.
fn is_repository(text: &str) -> bool {
    let is_plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    text.split_once('/').is_some_and(|(owner, name)| is_plain(owner) && is_plain(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"[[model]]
name = "Tiny"
family = "llama"
parameters = 1_000_000
layers = 2
hidden = 64
vocabulary = 100
kv_bytes_per_token = 512
context = 2048
licence = "MIT"
good_at = ["chat"]
variants = [{ repository = "owner/tiny", quantization = "4-bit", bits_per_weight = 4.0 }]
"#;

    #[test]
    fn what_is_not_said_is_computed_and_marked_as_such() {
        let entry = parse(ONE).unwrap().remove(0);
        let Variant { bytes, approximate, .. } = &entry.variants[0];
        assert_eq!((*bytes, *approximate, entry.tools), (500_000, true, false));
        let known = parse(&ONE.replace("bits_per_weight = 4.0", "bits_per_weight = 4.0, bytes = 7")).unwrap().remove(0);
        assert_eq!((known.variants[0].bytes, known.variants[0].approximate), (7, false));
    }

    #[test]
    fn an_error_names_the_line_and_the_key() {
        for (from, to, line, words) in [
            ("layers = 2", "layers = 0", 5, "layers: 0"),
            ("layers = 2\n", "", 1, "missing field `layers`"),
            ("layers = 2", "layers = \"two\"", 5, "invalid type: string"),
            ("layers = 2", "layer = 2", 5, "unknown field `layer`"),
            ("\"chat\"", "\"chess\"", 11, "good_at: \"chess\" is none of chat, code"),
            ("licence", "capabilities = [\"images\"]\nlicence", 10, "capabilities: \"images\" is none of tools"),
            ("owner/tiny", "tiny", 12, "repository: \"tiny\" is not of the form owner/name"),
            ("owner/tiny", "../tiny", 12, "repository: \"../tiny\""),
            ("owner/tiny", "a/b/c", 12, "repository: \"a/b/c\""),
            ("bits_per_weight = 4.0", "bits_per_weight = 400.0", 12, "bits_per_weight: 400"),
            ("quantization", "revision = \"main\", quantization", 12, "revision: it is not the name of a commit"),
            ("\"Tiny\"", "\" \"", 2, "name: it is empty"),
            ("family", "active_parameters = 2_000_000\nfamily", 5, "active_parameters: more than"),
            ("context = 2048", "context = ", 9, ""),
        ] {
            let ParseError { line: found, what } = parse(&ONE.replacen(from, to, 1)).unwrap_err();
            assert!(found == line && what.contains(words), "{to}: line {found}: {what}");
        }
        let twice = |second: &str| parse(&format!("{ONE}\n{second}")).unwrap_err();
        assert_eq!(twice(ONE), ParseError { line: 15, what: "name: \"Tiny\" has an entry already".to_owned() });
        let other = twice(&ONE.replace("Tiny", "Other"));
        assert!(other.line == 15 && other.what.contains("owner/tiny is listed already, for \"Tiny\""), "{other}");
    }
}
