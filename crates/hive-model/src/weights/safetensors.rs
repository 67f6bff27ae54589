//! A folder of safetensors files, as Hugging Face and MLX keep models.
//!
//! Headers are parsed and validated by the `safetensors` crate (no gaps, no overlaps, sizes that match); here is only
//! what that leaves open: the header's length against the file's, and the data's length against the header's.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;

use super::{Float, FloatTensor, Matrix, QuantizedMatrix, TensorError};
use crate::regular;

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

impl SafetensorsFolder {
    /// Reads and checks the header of every `.safetensors` file in the folder.
    pub fn open(path: &Path, quantization: QuantizationTable) -> Result<Self, FolderError> {
        let io = |source| FolderError::Io { file: path.to_owned(), source };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path).map_err(io)? {
            let file = entry.map_err(io)?.path();
            if file.extension().is_some_and(|extension| extension == "safetensors") {
                files.push(file);
            }
        }
        if files.is_empty() {
            return Err(FolderError::Empty(path.to_owned()));
        }
        files.sort();
        let mut tensors = BTreeMap::new();
        let mut left = MAX_HEADERS_BYTES;
        for file in files {
            tensors.append(&mut read_header(file, &mut left)?);
        }
        Ok(Self { path: path.to_owned(), tensors, quantization })
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub(super) fn stored_bytes(&self, wanted: impl Fn(&str) -> bool) -> u64 {
        self.tensors.iter().filter(|(name, _)| wanted(name)).map(|(_, entry)| entry.bytes).sum()
    }

    pub(super) fn vector(&self, name: &str, length: usize) -> Result<FloatTensor, TensorError> {
        self.float(name, &[length])
    }

    pub(super) fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Matrix, TensorError> {
        let weight = format!("{name}.weight");
        let quantization = self.quantization.of(name).filter(|_| self.contains(&format!("{name}.scales")));
        let Some(Quantization { group_size, bits }) = quantization else {
            return Ok(Matrix::Float(self.float(&weight, &[rows, columns])?));
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
        let words = Self::read(&weight, entry)?;
        let scales = self.float(&format!("{name}.scales"), &[rows, columns / group_size])?;
        let biases = self.float(&format!("{name}.biases"), &[rows, columns / group_size])?;
        if scales.float != biases.float {
            return Err(wrong_type(&format!("{name}.biases"), self.entry(&format!("{name}.biases"))?));
        }
        Ok(Matrix::Quantized(QuantizedMatrix {
            rows,
            columns,
            bits,
            group: group_size,
            words,
            float: scales.float,
            scales: scales.bytes,
            biases: biases.bytes,
        }))
    }

    fn float(&self, name: &str, shape: &[usize]) -> Result<FloatTensor, TensorError> {
        let entry = self.entry(name)?;
        expect(name, entry, shape)?;
        let float = match entry.dtype {
            Dtype::F32 => Float::F32,
            Dtype::F16 => Float::F16,
            Dtype::BF16 => Float::Bf16,
            _ => return Err(wrong_type(name, entry)),
        };
        Ok(FloatTensor { float, shape: shape.to_vec(), bytes: Self::read(name, entry)? })
    }

    fn entry(&self, name: &str) -> Result<&Entry, TensorError> {
        self.tensors.get(name).ok_or_else(|| TensorError::Missing { file: self.path.clone(), name: name.to_owned() })
    }

    fn read(name: &str, entry: &Entry) -> Result<Vec<u8>, TensorError> {
        // The header's reader has checked that the tensor lies inside the file.
        let (path, file) = &*entry.file;
        let mut bytes = vec![0; entry.bytes as usize];
        let read = file.read_exact_at(&mut bytes, entry.start);
        read.map_err(|source| TensorError::Read { name: name.to_owned(), file: path.clone(), source })?;
        Ok(bytes)
    }
}

/// Reads a header of at most `left` bytes, which are fewer then.
fn read_header(path: PathBuf, left: &mut u64) -> Result<BTreeMap<String, Entry>, FolderError> {
    let io = |source| FolderError::Io { file: path.clone(), source };
    let (file, length) = regular::open(&path).map_err(io)?;
    let mut prefix = [0; 8];
    file.read_exact_at(&mut prefix, 0).map_err(io)?;
    let claimed = u64::from_le_bytes(prefix);
    if claimed > MAX_HEADER_BYTES.min(*left) || claimed > length - 8 {
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
