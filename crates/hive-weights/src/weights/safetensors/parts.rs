//! Finds the files in a folder that belong to the model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use hive_text::json::without_mark;
use hive_text::regular;
use serde::Deserialize;

use super::error::FolderError;

/// The index of a model in several files: which file holds each tensor.
const INDEX: &str = "model.safetensors.index.json";
/// Limit on the index; the largest real ones have a few megabytes.
const MAX_INDEX_BYTES: u64 = 32 << 20;

/// The files with the model's tensors; at least one.
pub(super) fn parts(path: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let io = |source| FolderError::Io { file: path.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        names.extend(entry.map_err(io)?.file_name().into_string());
    }
    let has_index = names.iter().any(|name| name == INDEX);
    let index = if has_index { Some(read_index(&path.join(INDEX))?) } else { None };
    let foreign = names.iter().find(|name| is_foreign(name)).cloned();
    let files = chosen(names, index).map_err(|file| FolderError::NoShard { file: path.join(file) })?;
    if files.is_empty() {
        return Err(match (foreign, path.to_owned()) {
            (Some(file), folder) => FolderError::Foreign { folder, file },
            (None, folder) => FolderError::Empty(folder),
        });
    }
    let files: Vec<PathBuf> = files.iter().map(|file| path.join(file)).collect();
    match files.iter().find(|file| file.is_symlink() && !file.exists()) {
        Some(file) => Err(FolderError::Dangling { file: file.clone() }),
        None => Ok(files),
    }
}

fn read_index(path: &Path) -> Result<BTreeSet<String>, FolderError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let refuse = |why: String| FolderError::Index { file: path.to_owned(), why };
    let unread = |source| FolderError::Io { file: path.to_owned(), source };
    let bytes = regular::read(path, MAX_INDEX_BYTES).map_err(unread)?;
    if regular::is_lfs_pointer(path) {
        return Err(FolderError::Pointer { file: path.to_owned() });
    }
    let index: Index = serde_json::from_slice(without_mark(&bytes)).map_err(|error| refuse(error.to_string()))?;
    let files: BTreeSet<String> = index.weight_map.into_values().collect();
    match files.iter().find(|file| Path::new(file).file_name().is_none_or(|name| name != file.as_str())) {
        Some(file) => Err(refuse(format!("\"{file}\" is not the name of a file in this folder"))),
        None => Ok(files),
    }
}

/// The model's files among those in its folder: the ones in the index, else `model*.safetensors`, else every file that
/// is not hidden. Others are left over, or belong to something else (`adapters.safetensors`, macOS's `._model…`).
///
/// # Errors
/// The folder lacks a file that the index names.
fn chosen(names: Vec<String>, index: Option<BTreeSet<String>>) -> Result<Vec<String>, String> {
    let is_here = |file: &String| names.contains(file);
    // An index without any of its files was left over from the model that this one was derived from.
    if let Some(index) = index.filter(|index| index.iter().any(is_here)) {
        return match index.iter().find(|file| !is_here(file)) {
            Some(missing) => Err(missing.clone()),
            None => Ok(index.into_iter().collect()),
        };
    }
    let mut all = names;
    all.retain(|name| !name.starts_with('.') && Path::new(name).extension().is_some_and(|kind| kind == "safetensors"));
    all.sort();
    let models: Vec<String> = all.iter().filter(|name| name.starts_with("model")).cloned().collect();
    Ok(if models.is_empty() { all } else { models })
}

/// Whether a file's name is that of weights in an unsupported format.
fn is_foreign(name: &str) -> bool {
    let kind = Path::new(name).extension().and_then(|kind| kind.to_str()).unwrap_or_default();
    match kind {
        "npz" | "onnx" | "h5" | "msgpack" | "ckpt" | "pth" | "pt" => true,
        "bin" => name.starts_with("pytorch_model") || name.starts_with("model"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::safetensors::{QuantizationTable, SafetensorsFolder};

    fn of_names(names: &[&str], index: Option<&[&str]>) -> Result<Vec<String>, String> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        chosen(owned(names), index.map(|index| owned(index).into_iter().collect()))
    }

    #[test]
    fn the_index_says_which_files_are_the_models() {
        let left_over = "model-00001-of-00003.safetensors";
        let two = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        assert_eq!(of_names(&[two[1], left_over, two[0], "config.json"], Some(&two)).unwrap(), two);
        assert_eq!(of_names(&[two[0]], Some(&two)).unwrap_err(), two[1]);
        assert_eq!(
            of_names(&["model.safetensors"], Some(&two)).unwrap(),
            ["model.safetensors"],
            "the index is another's"
        );
    }

    #[test]
    fn without_an_index_what_is_called_a_model_is_one_and_hidden_files_are_none() {
        let model = "model.safetensors";
        assert_eq!(
            of_names(&["zz-old.safetensors", "adapters.safetensors", "._model.safetensors", model], None).unwrap(),
            [model]
        );
        assert_eq!(of_names(&["weights.safetensors", "._weights.safetensors"], None).unwrap(), ["weights.safetensors"]);
        assert_eq!(of_names(&["._model.safetensors", "model.bin"], None).unwrap(), [""; 0]);
    }

    /// A file with one tensor that holds one number.
    fn shard(to: &Path, tensor: &str, number: f32) {
        let header = format!("{{\"{tensor}\":{{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}}}");
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &number.to_le_bytes()].concat();
        std::fs::write(to, bytes).unwrap();
    }

    fn opened(folder: &Path) -> Result<SafetensorsFolder, String> {
        SafetensorsFolder::open(folder, QuantizationTable::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn weights_in_another_format_and_links_to_nothing_are_called_what_they_are() {
        for file in ["weights.00.npz", "pytorch_model-00001-of-00002.bin", "model.onnx", "consolidated.00.pth"] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("training_args.bin"), "x").unwrap();
            assert!(opened(folder.path()).unwrap_err().contains("holds no .safetensors file"));
            std::fs::write(folder.path().join(file), "x").unwrap();
            let message = opened(folder.path()).unwrap_err();
            assert!(message.contains(&format!("has its weights in {file}")), "{message}");
        }
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("../../blobs/abc", folder.path().join("model.safetensors")).unwrap();
        let message = opened(folder.path()).unwrap_err();
        assert!(message.contains("is a link to a file that is not there"), "{message}");
    }

    #[test]
    fn no_tensor_comes_from_a_file_that_is_not_the_models_and_none_twice() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        shard(&at("model-00001-of-00001.safetensors"), "norm", 1.0);
        shard(&at("model-00001-of-00002.safetensors"), "norm", 2.0);
        let message = opened(folder.path()).unwrap_err();
        assert!(message.contains("both hold \"norm\""), "{message}");
        let index =
            |file: &str| std::fs::write(at(INDEX), format!("{{\"weight_map\":{{\"norm\":\"{file}\"}}}}")).unwrap();
        index("model-00001-of-00001.safetensors");
        assert_eq!(opened(folder.path()).unwrap().vector("norm", 1).unwrap().to_f32(), [1.0]);
        // Some editors write a byte order mark.
        let marked = [b"\xef\xbb\xbf", std::fs::read(at(INDEX)).unwrap().as_slice()].concat();
        std::fs::write(at(INDEX), marked).unwrap();
        assert!(opened(folder.path()).is_ok());
        std::fs::write(
            at(INDEX),
            r#"{"weight_map":{"norm":"model-00001-of-00002.safetensors","head":"model-00002-of-00002.safetensors"}}"#,
        )
        .unwrap();
        assert!(opened(folder.path()).unwrap_err().contains("is missing"));
        for outside in ["../model.safetensors", "/etc/passwd", "a/b.safetensors", ""] {
            index(outside);
            assert!(opened(folder.path()).unwrap_err().contains("is not the name of a file"), "{outside}");
        }
    }

    #[test]
    fn a_pointer_of_git_lfs_is_called_one() {
        let folder = tempfile::tempdir().unwrap();
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n";
        for file in ["model.safetensors", INDEX] {
            std::fs::write(folder.path().join(file), pointer).unwrap();
            let message = opened(folder.path()).unwrap_err();
            assert!(message.contains(&format!("{file} is a Git LFS pointer")), "{message}");
            assert!(message.contains("git lfs pull"), "{message}");
        }
    }
}
