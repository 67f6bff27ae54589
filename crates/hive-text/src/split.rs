//! GGUF models in several files: `name-00001-of-00003.gguf` to `name-00003-of-00003.gguf`, in one folder.

use std::path::{Path, PathBuf};

/// Digits of both numbers in a part's name.
const DIGITS: usize = 5;
/// The most files of one model; the largest real models have about sixty. Each is kept open.
pub const MOST_PARTS: u64 = 128;

/// The parsed name of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartName<'a> {
    /// The model's name.
    pub model: &'a str,
    /// The number of this part, from 1.
    pub number: u64,
    /// The number of parts.
    pub count: u64,
    /// The extension, as written.
    extension: &'a str,
}

impl<'a> PartName<'a> {
    /// Reads a file's name; `None` if it is not that of a part.
    pub fn read(file: &'a str) -> Option<Self> {
        let (stem, extension) = file.rsplit_once('.')?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (model, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
        if !extension.eq_ignore_ascii_case("gguf") || !digits(number) || !digits(count) || model.is_empty() {
            return None;
        }
        let (number, count) = (number.parse().ok()?, count.parse().ok()?);
        (1..=count).contains(&number).then_some(Self { model, number, count, extension })
    }

    /// The file name of another part.
    fn of(&self, number: u64) -> String {
        format!("{}-{number:05}-of-{:05}.{}", self.model, self.count, self.extension)
    }
}

/// The files of a model, whether or not they exist: all parts in order if the path is that of one, else the path itself.
pub fn files_of(model: &Path) -> Vec<PathBuf> {
    let name = model.file_name().and_then(|name| name.to_str()).and_then(PartName::read);
    match name.filter(|name| name.count <= MOST_PARTS) {
        Some(name) => (1..=name.count).map(|number| model.with_file_name(name.of(number))).collect(),
        None => vec![model.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_told_by_its_name_and_names_the_others() {
        let name = PartName::read("Model-Q4_K_M-00002-of-00003.gguf").unwrap();
        assert_eq!((name.model, name.number, name.count), ("Model-Q4_K_M", 2, 3));
        assert_eq!(name.of(3), "Model-Q4_K_M-00003-of-00003.gguf");
        for other in [
            "model.gguf",
            "model-of-00003.gguf",
            "model-2-of-3.gguf",
            "model-00004-of-00003.gguf",
            "model-00000-of-00003.gguf",
            "model-00001-of-00003.safetensors",
            "model-+0001-of-00003.gguf",
            "-00001-of-00003.gguf",
        ] {
            assert_eq!(PartName::read(other), None, "{other}");
        }
        let files = ["/m/a-00001-of-00002.GGUF", "/m/a-00002-of-00002.GGUF"].map(PathBuf::from);
        assert_eq!(files_of(&files[1]), files);
        for one in ["/m/a.gguf", "/m", "/m/a-00001-of-99999.gguf"].map(PathBuf::from) {
            assert_eq!(files_of(&one), [one]);
        }
    }
}
