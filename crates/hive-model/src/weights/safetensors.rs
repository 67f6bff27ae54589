//! A folder of safetensors files, as Hugging Face and MLX keep models.
//!
//! Headers are parsed and validated by the `safetensors` crate (no gaps, no overlaps, sizes that match); here is only
//! what that leaves open: the header's length against the file's, and the data's length against the header's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hive_text::regular;
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;

use super::{Biases, Float, FloatTensor, Matrix, MatrixFormat, QuantizedMatrix, StoredTensor, TensorError};
use crate::weights::family;

/// On the header of a file; the format allows 100 MB, and the largest real ones have ten.
const MAX_HEADER_BYTES: u64 = 64 << 20;
/// On the headers of all files.
const MAX_HEADERS_BYTES: u64 = 128 << 20;

/// Why a folder is no usable model.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Listing or reading failed.
    #[error("cannot read {file}: {source}")]
    Io {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// No weights at all.
    #[error("{0} holds no .safetensors file")]
    Empty(PathBuf),
    /// Weights in another format.
    #[error(
        "{folder} has its weights in {file}; HiveMind reads .safetensors and .gguf files, so take a model that has these"
    )]
    Foreign {
        /// The model.
        folder: PathBuf,
        /// One of the files.
        file: String,
    },
    /// A link to nothing: a cache whose downloads were deleted, or a folder copied without them.
    #[error("{file} is a link to a file that is not there; download the model again")]
    Dangling {
        /// The link.
        file: PathBuf,
    },
    /// The header's length cannot be true.
    #[error("{file}: the header claims {claimed} bytes, more than the file holds or the format allows")]
    HeaderLength {
        /// The file.
        file: PathBuf,
        /// The claim.
        claimed: u64,
    },
    /// The header is not what the format asks for.
    #[error("{file}: the header is corrupt: {why}")]
    Header {
        /// The file.
        file: PathBuf,
        /// The parser's words.
        why: String,
    },
    /// A file that the index names is missing.
    #[error("{file} is missing, but the index lists it; download the model again")]
    NoShard {
        /// The file.
        file: PathBuf,
    },
    /// The index is not what it should be.
    #[error("{file}: the index is corrupt: {why}")]
    Index {
        /// The file.
        file: PathBuf,
        /// The cause.
        why: String,
    },
    /// Two files hold a tensor of one name.
    #[error("{file} and {other} both hold \"{name}\"; remove the one that does not belong to the model")]
    Twice {
        /// The tensor.
        name: String,
        /// A file.
        file: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// What `git` left where a large file should be.
    #[error("{file} is a Git LFS pointer, not the file itself; run `git lfs pull`")]
    Pointer {
        /// The file.
        file: PathBuf,
    },
    /// Less or more data than the header describes.
    #[error("{file} has {found} bytes of tensors where its header describes {expected}: it is truncated or corrupt")]
    DataLength {
        /// The file.
        file: PathBuf,
        /// Bytes after the header.
        found: u64,
        /// Bytes the header describes.
        expected: u64,
    },
}

/// How one matrix is quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Quantization {
    /// Columns per scale.
    pub group_size: usize,
    /// Bits per weight.
    pub bits: usize,
}

/// The `quantization` of an MLX `config.json`: a default, and what differs by name.
#[derive(Debug, Clone, Default)]
pub struct QuantizationTable {
    default: Option<Quantization>,
    /// `None` where a matrix is left unquantized.
    overrides: BTreeMap<String, Option<Quantization>>,
}

impl QuantizationTable {
    /// Reads the value of `quantization`; entries that are neither an override nor a known setting are ignored.
    ///
    /// # Errors
    /// A quantization mode other than `affine`, by name.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, String> {
        if let Some(mode) = value.get("mode").and_then(serde_json::Value::as_str).filter(|&mode| mode != "affine") {
            return Err(mode.to_owned());
        }
        let overrides = value.as_object().into_iter().flatten().filter_map(|(name, entry)| match entry {
            serde_json::Value::Bool(false) => Some((name.clone(), None)),
            serde_json::Value::Object(_) => Some((name.clone(), serde_json::from_value(entry.clone()).ok())),
            _ => None,
        });
        Ok(Self { default: serde_json::from_value(value.clone()).ok(), overrides: overrides.collect() })
    }

    fn of(&self, name: &str) -> Option<Quantization> {
        self.overrides.get(name).copied().unwrap_or(self.default)
    }
}

#[derive(Debug)]
struct Entry {
    file: Arc<(PathBuf, File)>,
    dtype: Dtype,
    shape: Vec<usize>,
    start: u64,
    bytes: u64,
}

/// An open folder.
#[derive(Debug)]
pub struct SafetensorsFolder {
    path: PathBuf,
    tensors: BTreeMap<String, Entry>,
    quantization: QuantizationTable,
}

/// Whether a file's name is that of weights in a format that is not read.
fn is_foreign(name: &str) -> bool {
    let kind = Path::new(name).extension().and_then(|kind| kind.to_str()).unwrap_or_default();
    match kind {
        "npz" | "onnx" | "h5" | "msgpack" | "ckpt" | "pth" | "pt" => true,
        "bin" => name.starts_with("pytorch_model") || name.starts_with("model"),
        _ => false,
    }
}

impl SafetensorsFolder {
    /// Reads and checks the headers of the model's files.
    pub fn open(path: &Path, quantization: QuantizationTable) -> Result<Self, FolderError> {
        let io = |source| FolderError::Io { file: path.to_owned(), source };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(io)? {
            names.extend(entry.map_err(io)?.file_name().into_string());
        }
        let has_index = names.iter().any(|name| name == INDEX);
        let index = if has_index { Some(read_index(&path.join(INDEX))?) } else { None };
        let foreign = names.iter().find(|name| is_foreign(name)).cloned();
        let files = shards(names, index).map_err(|file| FolderError::NoShard { file: path.join(file) })?;
        if files.is_empty() {
            let folder = path.to_owned();
            return Err(
                foreign.map_or(FolderError::Empty(folder.clone()), |file| FolderError::Foreign { folder, file })
            );
        }
        if let Some(file) = files.iter().map(|file| path.join(file)).find(|file| file.is_symlink() && !file.exists()) {
            return Err(FolderError::Dangling { file });
        }
        let mut tensors: BTreeMap<String, Entry> = BTreeMap::new();
        let mut left = MAX_HEADERS_BYTES;
        for file in files {
            let file = path.join(file);
            for (name, entry) in read_header(file.clone(), &mut left)? {
                if let Some(other) = tensors.insert(name.clone(), entry) {
                    return Err(FolderError::Twice { name, file, other: other.file.0.clone() });
                }
            }
        }
        Ok(Self { path: path.to_owned(), tensors, quantization })
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub(super) fn unknown(&self, layers: usize) -> Option<String> {
        self.tensors.keys().find(|name| !family::is_known(name, layers)).cloned()
    }

    pub(super) fn stored_bytes(&self, wanted: impl Fn(&str) -> bool) -> u64 {
        self.tensors.iter().filter(|(name, _)| wanted(name)).map(|(_, entry)| entry.bytes).sum()
    }

    /// Every tensor, in the order of the names.
    pub(super) fn stored(&self) -> Vec<StoredTensor> {
        let stored = |(name, entry): (&String, &Entry)| StoredTensor {
            name: name.clone(),
            kind: format!("{:?}", entry.dtype),
            shape: entry.shape.clone(),
            bytes: entry.bytes,
        };
        self.tensors.iter().map(stored).collect()
    }

    pub(super) fn read_stored(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, TensorError> {
        Self::read_part(name, self.entry(name)?, offset, length)
    }

    pub(super) fn vector(&self, name: &str, length: usize) -> Result<FloatTensor, TensorError> {
        self.float(name, &[length])
    }

    pub(super) fn matrix_format(&self, name: &str, rows: usize, columns: usize) -> Result<MatrixFormat, TensorError> {
        let weight = format!("{name}.weight");
        let quantization = self.quantization.of(name).filter(|_| self.contains(&format!("{name}.scales")));
        let Some(Quantization { group_size, bits }) = quantization else {
            return Ok(MatrixFormat::Float(self.float_of(&weight, &[rows, columns])?));
        };
        let suits = group_size > 0
            && matches!(bits, 2..=6 | 8)
            && columns.is_multiple_of(group_size)
            && (columns * bits).is_multiple_of(32);
        if !suits {
            let found = format!("{bits}-bit groups of {group_size} over {columns} columns");
            return Err(TensorError::Type { name: weight, found, supported: "2 to 6 and 8 bits in whole groups" });
        }
        let entry = self.entry(&weight)?;
        expect(&weight, entry, &[rows, columns * bits / 32])?;
        if entry.dtype != Dtype::U32 {
            return Err(wrong_type(&weight, entry));
        }
        let float = self.float_of(&format!("{name}.scales"), &[rows, columns / group_size])?;
        let biases = format!("{name}.biases");
        if self.float_of(&biases, &[rows, columns / group_size])? != float {
            return Err(wrong_type(&biases, self.entry(&biases)?));
        }
        Ok(MatrixFormat::Quantized { bits, group: group_size, float, multiple: None })
    }

    /// Some rows of a matrix whose format is known.
    pub(super) fn matrix_rows(
        &self,
        name: &str,
        columns: usize,
        format: MatrixFormat,
        rows: Range<usize>,
    ) -> Result<Matrix, TensorError> {
        let [weights, scales, biases] = format.row_bytes(columns);
        let read = |part: &str, row_bytes: usize| {
            let name = format!("{name}.{part}");
            let entry = self.entry(&name)?;
            Self::read_part(&name, entry, (rows.start * row_bytes) as u64, (rows.len() * row_bytes) as u64)
        };
        let words = read("weight", weights)?;
        Ok(match format {
            MatrixFormat::Float(float) => {
                Matrix::Float(FloatTensor { float, shape: vec![rows.len(), columns], bytes: words })
            }
            MatrixFormat::Quantized { bits, group, float, .. } => Matrix::Quantized(QuantizedMatrix {
                rows: rows.len(),
                columns,
                bits,
                group,
                words,
                float,
                scales: read("scales", scales)?,
                biases: Biases::Stored(read("biases", biases)?),
            }),
        })
    }

    fn float(&self, name: &str, shape: &[usize]) -> Result<FloatTensor, TensorError> {
        let float = self.float_of(name, shape)?;
        Ok(FloatTensor { float, shape: shape.to_vec(), bytes: Self::read(name, self.entry(name)?)? })
    }

    /// The number format of a tensor of this shape.
    fn float_of(&self, name: &str, shape: &[usize]) -> Result<Float, TensorError> {
        let entry = self.entry(name)?;
        expect(name, entry, shape)?;
        match entry.dtype {
            Dtype::F32 => Ok(Float::F32),
            Dtype::F16 => Ok(Float::F16),
            Dtype::BF16 => Ok(Float::Bf16),
            _ => Err(wrong_type(name, entry)),
        }
    }

    fn entry(&self, name: &str) -> Result<&Entry, TensorError> {
        self.tensors.get(name).ok_or_else(|| TensorError::Missing { file: self.path.clone(), name: name.to_owned() })
    }

    fn read(name: &str, entry: &Entry) -> Result<Vec<u8>, TensorError> {
        Self::read_part(name, entry, 0, entry.bytes)
    }

    fn read_part(name: &str, entry: &Entry, offset: u64, length: u64) -> Result<Vec<u8>, TensorError> {
        // The header's reader has checked that the tensor lies inside the file.
        let (path, file) = &*entry.file;
        let mut bytes = vec![0; length as usize];
        let read = file.read_exact_at(&mut bytes, entry.start + offset);
        read.map_err(|source| TensorError::Read { name: name.to_owned(), file: path.clone(), source })?;
        Ok(bytes)
    }
}

/// Says which file holds each tensor of a model in several.
const INDEX: &str = "model.safetensors.index.json";
/// The largest real ones have some megabytes.
const MAX_INDEX_BYTES: u64 = 32 << 20;

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
    let index: Index = serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))?;
    let files: BTreeSet<String> = index.weight_map.into_values().collect();
    match files.iter().find(|file| Path::new(file).file_name().is_none_or(|name| name != file.as_str())) {
        Some(file) => Err(refuse(format!("\"{file}\" is not the name of a file in this folder"))),
        None => Ok(files),
    }
}

/// The files that are a model's, of those in its folder: what the index names, or else `model*.safetensors`, or else every
/// one that is not hidden. Others were left over, or belong to something else (`adapters.safetensors`, macOS's `._model…`).
///
/// # Errors
/// A file that the index names and the folder lacks.
fn shards(names: Vec<String>, index: Option<BTreeSet<String>>) -> Result<Vec<String>, String> {
    let is_here = |file: &String| names.contains(file);
    // An index of which nothing is here was left over from the model that this one was made of.
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

/// Reads a header of at most `left` bytes, which are fewer then.
fn read_header(path: PathBuf, left: &mut u64) -> Result<BTreeMap<String, Entry>, FolderError> {
    let io = |source| FolderError::Io { file: path.clone(), source };
    let (file, length) = regular::open(&path).map_err(io)?;
    let mut prefix = [0; 8];
    file.read_exact_at(&mut prefix, 0).map_err(io)?;
    let claimed = u64::from_le_bytes(prefix);
    if claimed > MAX_HEADER_BYTES.min(*left) || claimed > length - 8 {
        if regular::is_lfs_pointer(&path) {
            return Err(FolderError::Pointer { file: path });
        }
        return Err(FolderError::HeaderLength { file: path, claimed });
    }
    *left -= claimed;
    let mut header = vec![0; claimed as usize];
    file.read_exact_at(&mut header, 8).map_err(io)?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| FolderError::Header { file: path.clone(), why: error.to_string() })?;
    // Deserializing has validated offsets, sizes and order.
    let expected = metadata.data_len() as u64;
    let found = length - 8 - claimed;
    if expected != found {
        return Err(FolderError::DataLength { file: path, found, expected });
    }
    let file = Arc::new((path, file));
    let entries = metadata.tensors().into_iter().map(|(name, info)| {
        let (start, end) = info.data_offsets;
        let entry = Entry {
            file: file.clone(),
            dtype: info.dtype,
            shape: info.shape.clone(),
            start: 8 + claimed + start as u64,
            bytes: (end - start) as u64,
        };
        (name, entry)
    });
    Ok(entries.collect())
}

fn expect(name: &str, entry: &Entry, shape: &[usize]) -> Result<(), TensorError> {
    if entry.shape == shape {
        return Ok(());
    }
    Err(TensorError::Shape { name: name.to_owned(), found: entry.shape.clone(), expected: shape.to_vec() })
}

fn wrong_type(name: &str, entry: &Entry) -> TensorError {
    let supported = "F32, F16, BF16, and U32 for quantized weights";
    TensorError::Type { name: name.to_owned(), found: format!("{:?}", entry.dtype), supported }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], index: Option<&[&str]>) -> Result<Vec<String>, String> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        shards(owned(names), index.map(|index| owned(index).into_iter().collect()))
    }

    #[test]
    fn the_index_says_which_files_are_the_models() {
        let left_over = "model-00001-of-00003.safetensors";
        let two = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        assert_eq!(chosen(&[two[1], left_over, two[0], "config.json"], Some(&two)).unwrap(), two);
        assert_eq!(chosen(&[two[0]], Some(&two)).unwrap_err(), two[1]);
        assert_eq!(
            chosen(&["model.safetensors"], Some(&two)).unwrap(),
            ["model.safetensors"],
            "the index is another's"
        );
    }

    #[test]
    fn without_an_index_what_is_called_a_model_is_one_and_hidden_files_are_none() {
        let model = "model.safetensors";
        assert_eq!(
            chosen(&["zz-old.safetensors", "adapters.safetensors", "._model.safetensors", model], None).unwrap(),
            [model]
        );
        assert_eq!(chosen(&["weights.safetensors", "._weights.safetensors"], None).unwrap(), ["weights.safetensors"]);
        assert_eq!(chosen(&["._model.safetensors", "model.bin"], None).unwrap(), [""; 0]);
    }

    /// A file with one tensor of one number.
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
