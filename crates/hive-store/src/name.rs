//! The names by which people ask for a model on a hub.
//!
//! `owner/name`, `owner/name@revision`, `owner/name:Q4_K_M` for one quantization of a GGUF repository,
//! `owner/name/file.gguf` for one file, and links copied from a browser. Every part of a name that was read is plain:
//! none leads out of a folder.

use std::fmt;
use std::str::FromStr;

use crate::gguf_name::{end_of_revision, is_gguf};

/// The branch that a name without a revision means.
pub const MAIN: &str = "main";
/// Hosts of links, as people copy them.
const HOSTS: [&str; 3] = ["huggingface.co", "www.huggingface.co", "hf.co"];
/// The hub's own limit for owner and name.
const LONGEST: usize = 96;

/// A model as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    pub(crate) owner: String,
    pub(crate) name: String,
    pub(crate) revision: Option<String>,
    pub(crate) part: Part,
}

/// The requested part of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The model; in a GGUF repository, the only one.
    Whole,
    /// The GGUF files with this quantization in their names.
    Quantization(String),
    /// The GGUF file of this path; of a split model, any of its files or the name without a number.
    File(String),
}

/// Why a text names no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It does not have the form of a name.
    #[error(
        "\"{0}\" is not a model's name; write owner/name, owner/name@revision, owner/name:Q4_K_M or a link to huggingface.co"
    )]
    Form(String),
    /// A link to another site.
    #[error(
        "\"{0}\" is not a link to huggingface.co; models come from there, or from the mirror that HF_ENDPOINT names"
    )]
    OtherSite(String),
    /// A data set or a space.
    #[error("\"{0}\" is not a model but one of the hub's {1}; give the link of a model's page")]
    NoModel(String, &'static str),
}

impl ModelName {
    /// Owner and name.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The branch, tag or commit; `main` if none was given.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }

    /// The requested part of the repository.
    pub fn part(&self) -> &Part {
        &self.part
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        match &self.part {
            Part::Whole => Ok(()),
            Part::Quantization(label) => write!(f, ":{label}"),
            Part::File(file) => write!(f, "/{file}"),
        }
    }
}

impl FromStr for ModelName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let text = text.trim();
        let without_scheme = ["https://", "http://"].into_iter().find_map(|scheme| text.strip_prefix(scheme));
        let rest = without_scheme.unwrap_or(text);
        let on_hub = HOSTS.into_iter().find_map(|host| rest.strip_prefix(host)?.strip_prefix('/'));
        let found = match (without_scheme, on_hub) {
            (_, Some(path)) => of_link(text, path)?,
            (Some(_), None) => return Err(NameError::OtherSite(text.to_owned())),
            (None, None) => of_name(rest),
        };
        found.filter(Self::is_plain).ok_or_else(|| NameError::Form(text.to_owned()))
    }
}

impl ModelName {
    fn is_plain(&self) -> bool {
        let is_id =
            |part: &str| is_plain(part) && part.len() <= LONGEST && !part.contains("--") && !part.contains("..");
        let is_part = match &self.part {
            Part::Whole => true,
            Part::Quantization(label) => is_plain(label),
            Part::File(file) => is_gguf(file),
        };
        let is_revision = |revision: &String| revision.split('/').all(is_plain) && !revision.contains("..");
        is_id(&self.owner) && is_id(&self.name) && self.revision.as_ref().is_none_or(is_revision) && is_part
    }
}

/// The name in the path of a link: a repository's page, a revision's (`tree`), a file's page (`blob`) or the file.
fn of_link(text: &str, path: &str) -> Result<Option<ModelName>, NameError> {
    for (folder, kind) in [("datasets/", "data sets"), ("spaces/", "spaces")] {
        if path.starts_with(folder) {
            return Err(NameError::NoModel(text.to_owned(), kind));
        }
    }
    let path = path.split(['?', '#']).next().unwrap_or(path).trim_end_matches('/');
    let Some(parts) = path.split('/').map(decoded).collect::<Option<Vec<String>>>() else { return Ok(None) };
    let Some([owner, name, place, below @ ..]) = parts.get(..) else { return Ok(of_name(path)) };
    if !["tree", "blob", "resolve"].contains(&place.as_str()) {
        return Ok(of_name(path));
    }
    // The branch of a pull request has three parts: refs/pr/1.
    let of_revision = if below.first().is_some_and(|part| part == "refs") { 3 } else { 1 };
    let Some((revision, file)) = below.split_at_checked(of_revision) else { return Ok(None) };
    let revision = revision.join("/");
    let part = match (place.as_str(), file) {
        ("tree", _) => Part::Whole,
        // Any other file stands for its model.
        (_, file) if file.last().is_some_and(|name| is_gguf(name)) => Part::File(file.join("/")),
        (_, _) => Part::Whole,
    };
    let revision = Some(revision).filter(|revision| revision != MAIN);
    Ok(Some(ModelName { owner: owner.clone(), name: name.clone(), revision, part }))
}

/// A name as it is written by hand.
fn of_name(text: &str) -> Option<ModelName> {
    let (owner, rest) = text.split_once('/')?;
    let end = rest.find(['@', ':', '/']).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    let (revision, rest) = match rest.strip_prefix('@') {
        Some(rest) => {
            let (revision, rest) = rest.split_at(end_of_revision(rest));
            (Some(revision.to_owned()), rest)
        }
        None => (None, rest),
    };
    let part = match rest.split_at_checked(1) {
        None => Part::Whole,
        Some((":", label)) => Part::Quantization(label.to_owned()),
        Some(("/", file)) => Part::File(file.to_owned()),
        Some(_) => return None,
    };
    Some(ModelName { owner: owner.to_owned(), name: name.to_owned(), revision, part })
}

/// A part of a link's path without its percent signs; `None` if they code no text.
fn decoded(part: &str) -> Option<String> {
    let mut made = Vec::with_capacity(part.len());
    let mut bytes = part.bytes();
    while let Some(byte) = bytes.next() {
        made.push(match byte {
            b'%' => {
                let hex = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(made).ok()
}

/// Whether a part has only the characters of names on the hub; none of them leads out of a folder.
fn is_plain(part: &str) -> bool {
    part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_links_are_read_as_people_write_them() {
        for (text, shown) in [
            ("owner/name", "owner/name"),
            ("  owner/name\n", "owner/name"),
            ("owner/name@v1.2", "owner/name@v1.2"),
            ("owner/name@refs/pr/3", "owner/name@refs/pr/3"),
            ("owner/name:Q4_K_M", "owner/name:Q4_K_M"),
            ("owner/name@dev:Q4_K_M", "owner/name@dev:Q4_K_M"),
            ("owner/name/a-Q4_0.gguf", "owner/name/a-Q4_0.gguf"),
            ("owner/name@dev/Q4/a.gguf", "owner/name@dev/Q4/a.gguf"),
            ("hf.co/owner/name", "owner/name"),
            ("hf.co/owner/name:Q8_0", "owner/name:Q8_0"),
            ("https://huggingface.co/owner/name/", "owner/name"),
            ("https://huggingface.co/owner/name?library=mlx#use", "owner/name"),
            ("https://huggingface.co/owner/name/tree/main", "owner/name"),
            ("https://huggingface.co/owner/name/tree/dev", "owner/name@dev"),
            ("https://huggingface.co/owner/name/tree/refs%2Fpr%2F7", "owner/name@refs/pr/7"),
            ("https://huggingface.co/owner/name/tree/refs/pr/7", "owner/name@refs/pr/7"),
            ("https://hf.co/owner/name/blob/main/Q4/a%20b.gguf", "owner/name/Q4/a b.gguf"),
            ("https://hf.co/owner/name/resolve/dev/a.gguf?download=true", "owner/name@dev/a.gguf"),
            ("https://hf.co/owner/name/blob/main/config.json", "owner/name"),
        ] {
            let name = ModelName::from_str(text).map(|name| name.to_string());
            assert_eq!(name.as_deref(), Ok(shown), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_or_leads_elsewhere_is_refused() {
        for text in [
            "",
            "name",
            "/name",
            "owner/",
            "owner/name/",
            "owner/name/readme.md",
            "../name",
            "owner/..",
            "a/b@../../c",
            "a/b@x..y",
            "a--b/c",
            "a/b--c",
            "a/b:",
            "a/b:../c",
            "owner/na me",
            "~/model",
            "a/b@",
            "hf.co/a/%00",
            "https://hf.co/a/b/tree",
            "https://hf.co/%2e%2e/b/tree/main",
        ] {
            assert_eq!(ModelName::from_str(text), Err(NameError::Form(text.to_owned())));
        }
        let other = ModelName::from_str("https://example.com/owner/name");
        assert!(matches!(other, Err(NameError::OtherSite(_))), "{other:?}");
        let data = ModelName::from_str("https://huggingface.co/datasets/owner/name");
        assert!(matches!(data, Err(NameError::NoModel(_, "data sets"))), "{data:?}");
    }
}
