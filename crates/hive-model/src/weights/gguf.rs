//! GGUF: llama.cpp's format, metadata and quantized tensors in one file. Large models are split into several.
//!
//! Layout: magic, version, counts; key-value metadata; tensor infos; tensor data at aligned offsets. Everything in the
//! header is untrusted: each count and length is checked against the rest of the file before anything is allocated.
//! Source: the format's specification in the ggml repository (docs/gguf.md).

mod affine;
mod blocks;
mod header;
mod metadata;
#[cfg(test)]
pub(crate) mod oracle;
mod spelling;
mod split;

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub use header::{HeaderError, Items, Numbers, Strings, Value};

use crate::config::ModelConfig;
use crate::weights::block_floats::BlockFloat;
use crate::weights::names;

use super::{FloatTensor, Matrix, MatrixFormat, StoredTensor, TensorError, TensorPlace};
use blocks::{BlockType, SUPPORTED};
use header::TensorInfo;
use spelling::Spelling;

/// The types of a vector.
const FLOATS: &str = "F32, F16 and BF16 for a vector";

/// An open GGUF file, or all files of a split model.
#[derive(Debug)]
pub struct Gguf {
    /// The files in order; only the first describes the model.
    files: Vec<(PathBuf, File)>,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorInfo>,
    /// How the architecture's tensors are called.
    spelling: Spelling,
    /// The numbers of query and key heads, if llama.cpp's converter permutes their rows for this architecture.
    permuted_heads: Option<(usize, usize)>,
}

impl Gguf {
    /// Reads and checks the header. With any file of a split model, opens all of them.
    pub fn open(path: &Path) -> Result<Self, HeaderError> {
        let (files, metadata, tensors) = split::open(path)?;
        let (spelling, permuted_heads) = (Spelling::of(None), None);
        let mut gguf = Self { files, metadata, tensors, spelling, permuted_heads };
        gguf.spelling = Spelling::of(gguf.string("general.architecture"));
        if let Some(architecture) = gguf.string("general.architecture").filter(|name| spelling::is_permuted(name)) {
            let heads = |key: &str| gguf.number(&format!("{architecture}.attention.{key}")).map(|heads| heads as usize);
            let count = heads("head_count").unwrap_or(0);
            gguf.permuted_heads = Some((count, heads("head_count_kv").unwrap_or(count)));
        }
        Ok(gguf)
    }

    /// The file, or the first of several.
    pub fn path(&self) -> &Path {
        &self.files[0].0
    }

    /// A metadata value.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// A string from the metadata.
    pub fn string(&self, key: &str) -> Option<&str> {
        match self.value(key)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// An array of texts from the metadata.
    pub fn strings(&self, key: &str) -> Option<&Strings> {
        match self.value(key)? {
            Value::Array(Items::Strings(strings)) => Some(strings),
            _ => None,
        }
    }

    /// An array of numbers from the metadata.
    pub fn numbers(&self, key: &str) -> Option<&Numbers> {
        match self.value(key)? {
            Value::Array(Items::Numbers(numbers)) => Some(numbers),
            _ => None,
        }
    }

    /// A whole number from the metadata.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.value(key)?.whole()
    }

    /// A real number from the metadata.
    pub fn real(&self, key: &str) -> Option<f64> {
        match self.value(key)? {
            Value::Float(number) => Some(*number),
            Value::Unsigned(number) => Some(*number as f64),
            Value::Signed(number) => Some(*number as f64),
            _ => None,
        }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(&self.spelling.stored(name))
    }

    /// Every tensor, in order of name.
    pub(super) fn stored(&self) -> Vec<StoredTensor> {
        let stored = |info: &TensorInfo| StoredTensor {
            name: self.spelling.ours(&info.name),
            kind: info.block.to_string(),
            shape: info.shape.clone(),
            bytes: info.bytes,
        };
        self.tensors.values().map(stored).collect()
    }

    /// The model's files.
    pub(super) fn files(&self) -> Vec<&Path> {
        self.files.iter().map(|(path, _)| path.as_path()).collect()
    }

    /// Where every tensor lies.
    pub(super) fn places(&self) -> Vec<TensorPlace<'_>> {
        let place = |info: &TensorInfo| TensorPlace {
            name: self.spelling.ours(&info.name),
            file: &self.files[info.part].0,
            bytes: info.start..info.start + info.bytes,
        };
        self.tensors.values().map(place).collect()
    }

    pub(super) fn read_stored(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, TensorError> {
        self.read(self.info(&self.spelling.stored(name))?, offset, length)
    }

    pub(super) fn vector(&self, name: &str, length: usize) -> Result<FloatTensor, TensorError> {
        let stored = self.spelling.stored(name);
        let info = self.info(&stored)?;
        expect_shape(&stored, &info.shape, &[length])?;
        let found = || TensorError::Type { name: stored.clone(), found: info.block.to_string(), supported: FLOATS };
        let float = info.block.float().ok_or_else(found)?;
        let bytes = self.in_order(&stored, length, self.read(info, 0, info.bytes)?);
        Ok(FloatTensor { float, shape: vec![length], bytes })
    }

    /// Reads the weights of a convolution over tokens: `[channels, taps]`.
    pub(super) fn convolution(&self, name: &str, channels: usize, taps: usize) -> Result<FloatTensor, TensorError> {
        let stored = self.spelling.stored(name);
        let info = self.info(&stored)?;
        expect_shape(&stored, &info.shape, &[channels, taps])?;
        let float = info.block.float().ok_or_else(|| unsupported(&stored, info.block))?;
        Ok(FloatTensor { float, shape: vec![channels, taps], bytes: self.read(info, 0, info.bytes)? })
    }

    /// Reads one of `count` vectors of this length in one tensor.
    pub(super) fn stacked_vector(
        &self,
        name: &str,
        count: usize,
        length: usize,
        at: usize,
    ) -> Result<FloatTensor, TensorError> {
        let stored = self.spelling.stored(name);
        let info = self.info(&stored)?;
        expect_shape(&stored, &info.shape, &[count, length])?;
        let float = info.block.float().ok_or_else(|| unsupported(&stored, info.block))?;
        let bytes = (length * float.bytes()) as u64;
        Ok(FloatTensor { float, shape: vec![length], bytes: self.read(info, at as u64 * bytes, bytes)? })
    }

    /// The format of a matrix, or of several stacked in one tensor, and how many of its rows are read together.
    pub(super) fn matrix_format(
        &self,
        name: &str,
        stacked_in: Option<usize>,
        rows: usize,
        columns: usize,
    ) -> Result<(MatrixFormat, usize), TensorError> {
        let stored = self.spelling.stored(&format!("{name}.weight"));
        let info = self.info(&stored)?;
        let shape: Vec<usize> = stacked_in.into_iter().chain([rows, columns]).collect();
        expect_shape(&stored, &info.shape, &shape)?;
        let format = info.block.format().filter(|_| columns.is_multiple_of(info.block.elements() as usize));
        let format = format.ok_or_else(|| unsupported(&stored, info.block))?;
        Ok((format, self.permuted_rows(&stored, rows).unwrap_or(1)))
    }

    /// The kind of small floating-point numbers that a matrix is stored as, if it is.
    pub(super) fn block_float(&self, name: &str) -> Option<BlockFloat> {
        self.info(&self.spelling.stored(&format!("{name}.weight"))).ok()?.block.block_float()
    }

    /// Reads rows of such a matrix: codes and scales.
    pub(super) fn block_rows(
        &self,
        name: &str,
        columns: usize,
        rows: Range<usize>,
        together: usize,
    ) -> Result<[Vec<u8>; 2], TensorError> {
        let stored = self.spelling.stored(&format!("{name}.weight"));
        let info = self.info(&stored)?;
        Ok(info.block.codes_and_scales(&self.stored_rows(info, columns, rows, together)?))
    }

    /// Reads rows of a matrix in Hugging Face's order. If that differs from the file's, whole heads of `together` rows
    /// are read.
    pub(super) fn matrix_rows(
        &self,
        name: &str,
        columns: usize,
        rows: Range<usize>,
        together: usize,
    ) -> Result<Matrix, TensorError> {
        let stored = self.spelling.stored(&format!("{name}.weight"));
        let info = self.info(&stored)?;
        let count = rows.len();
        let bytes = self.stored_rows(info, columns, rows, together)?;
        if let Some(float) = info.block.float() {
            return Ok(Matrix::Float(FloatTensor { float, shape: vec![count, columns], bytes }));
        }
        let matrix = info.block.to_affine(&bytes, count, columns);
        matrix.map(Matrix::Quantized).ok_or_else(|| unsupported(&stored, info.block))
    }

    fn stored_rows(
        &self,
        info: &TensorInfo,
        columns: usize,
        rows: Range<usize>,
        together: usize,
    ) -> Result<Vec<u8>, TensorError> {
        let row_bytes = columns as u64 / info.block.elements() * info.block.bytes();
        let count = rows.len();
        let bytes = self.read(info, rows.start as u64 * row_bytes, count as u64 * row_bytes)?;
        Ok(if together > 1 { unpermute(&bytes, count, count / together) } else { bytes })
    }

    /// The rows of a stored matrix, or the numbers of a stored bias, in Hugging Face's order.
    fn in_order(&self, stored: &str, rows: usize, bytes: Vec<u8>) -> Vec<u8> {
        match self.permuted_rows(stored, rows) {
            Some(together) => unpermute(&bytes, rows, rows / together),
            None => bytes,
        }
    }

    /// How many of a stored tensor's rows make up a head, if the rows are permuted.
    fn permuted_rows(&self, stored: &str, rows: usize) -> Option<usize> {
        let heads = self.heads_of(stored).filter(|&heads| heads > 0 && rows.is_multiple_of(2 * heads))?;
        Some(rows / heads)
    }

    pub(super) fn unknown(&self, config: &ModelConfig) -> Option<String> {
        // Factors of the rotary periods.
        let is_known = |name: &str| name == "rope_freqs.weight" || names::is_known(&self.spelling.ours(name), config);
        self.tensors.keys().find(|name| !is_known(name)).cloned()
    }

    /// Checks that every tensor has a supported type; otherwise the model would fail to load later.
    pub(crate) fn check_types(&self) -> Result<(), TensorError> {
        let foreign = self.tensors.values().find(|info| matches!(info.block, BlockType::Other(_)));
        foreign.map_or(Ok(()), |info| Err(unsupported(&info.name, info.block)))
    }

    /// The number of heads in which the rows of a stored tensor are permuted, if they are.
    fn heads_of(&self, stored: &str) -> Option<usize> {
        let (heads, kv_heads) = self.permuted_heads?;
        let name = stored.strip_suffix(".weight").or_else(|| stored.strip_suffix(".bias"))?;
        if name.ends_with("attn_q") {
            Some(heads)
        } else if name.ends_with("attn_k") {
            Some(kv_heads)
        } else {
            None
        }
    }

    fn info(&self, stored: &str) -> Result<&TensorInfo, TensorError> {
        let missing = || TensorError::Missing { file: self.path().to_owned(), name: stored.to_owned() };
        self.tensors.get(stored).ok_or_else(missing)
    }

    fn read(&self, info: &TensorInfo, offset: u64, length: u64) -> Result<Vec<u8>, TensorError> {
        // The header's reader has checked that the tensor lies inside the file.
        let mut bytes = vec![0; length as usize];
        let (path, file) = &self.files[info.part];
        let read = file.read_exact_at(&mut bytes, info.start + offset);
        read.map_err(|source| TensorError::Read { name: info.name.clone(), file: path.clone(), source })?;
        Ok(bytes)
    }
}

fn expect_shape(name: &str, found: &[usize], expected: &[usize]) -> Result<(), TensorError> {
    if found == expected {
        return Ok(());
    }
    Err(TensorError::Shape { name: name.to_owned(), found: found.to_vec(), expected: expected.to_vec() })
}

fn unsupported(name: &str, block: BlockType) -> TensorError {
    TensorError::Type { name: name.to_owned(), found: block.to_string(), supported: SUPPORTED }
}

/// Undoes the converter's permutation: the file interleaves the rows of a head's halves, Hugging Face keeps the halves
/// apart.
fn unpermute(bytes: &[u8], rows: usize, heads: usize) -> Vec<u8> {
    let row_bytes = bytes.len() / rows;
    let half = rows / heads / 2;
    let mut out = Vec::with_capacity(bytes.len());
    for head in 0..heads {
        for part in 0..2 {
            for pair in 0..half {
                let row = head * 2 * half + pair * 2 + part;
                out.extend_from_slice(&bytes[row * row_bytes..(row + 1) * row_bytes]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bias_is_put_in_order_like_the_matrix_it_belongs_to() {
        let gguf = |permuted_heads| Gguf {
            files: vec![(PathBuf::new(), tempfile::tempfile().unwrap())],
            metadata: BTreeMap::new(),
            tensors: BTreeMap::new(),
            spelling: Spelling::of(Some("llama")),
            permuted_heads,
        };
        let eight = [0u8, 1, 2, 3, 4, 5, 6, 7];
        let permuted = gguf(Some((2, 1)));
        for part in ["weight", "bias"] {
            let order = |name: &str| permuted.in_order(&format!("blk.0.{name}.{part}"), 8, eight.to_vec());
            assert_eq!(order("attn_q"), [0, 2, 1, 3, 4, 6, 5, 7], "{part}");
            assert_eq!(order("attn_k"), [0, 2, 4, 6, 1, 3, 5, 7], "{part}");
            assert_eq!(order("attn_v"), eight, "{part}");
        }
        assert_eq!(gguf(None).in_order("blk.0.attn_q.bias", 8, eight.to_vec()), eight);
        // The order in which it is read from the file.
        let mut stored = permuted;
        let bytes: Vec<u8> = eight.iter().flat_map(|number| f32::from(*number).to_le_bytes()).collect();
        stored.files[0].1.write_all_at(&bytes, 0).unwrap();
        for name in ["blk.0.attn_q.bias", "blk.0.attn_v.bias"] {
            let info = TensorInfo {
                name: name.to_owned(),
                shape: vec![8],
                block: BlockType::F32,
                part: 0,
                start: 0,
                bytes: 32,
            };
            stored.tensors.insert(name.to_owned(), info);
        }
        let read = |part: &str| stored.vector(&format!("model.layers.0.self_attn.{part}.bias"), 8).unwrap().to_f32();
        assert_eq!(read("q_proj"), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        assert_eq!(read("v_proj"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    }

    #[test]
    fn rows_of_a_head_go_from_pairs_to_halves() {
        // Two heads of four rows, one byte each: pairs (0,1) (2,3) become halves (0,2) (1,3).
        assert_eq!(unpermute(&[0, 1, 2, 3, 4, 5, 6, 7], 8, 2), [0, 2, 1, 3, 4, 6, 5, 7]);
    }
}
