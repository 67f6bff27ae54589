//! GGUF: llama.cpp's format, metadata and quantized tensors in one file. Large models are split into several.
//!
//! Layout: magic, version, counts; key-value metadata; tensor infos; tensor data at aligned offsets. Everything in the
//! header is untrusted: each count and length is checked against the rest of the file before anything is allocated.
//! Source: the format's specification in the ggml repository (docs/gguf.md).

mod affine;
mod blocks;
mod header;
mod metadata;
mod order;
mod spelling;
mod split;

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use header::{HeaderError, Items, Numbers, Strings, Value};

use crate::config::{ModelConfig, RopeScaling};
use crate::weights::block_floats::BlockFloat;
use crate::weights::names;

use super::{AtLoad, FloatTensor, Matrix, MatrixFormat, StoredTensor, TensorError, TensorPlace, read_within};
use blocks::{BlockType, SUPPORTED};
use header::TensorInfo;
use order::{Layout, Order};
use spelling::{GATES_AND_UPS, Spelling};

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
    /// What the order of its rows and columns follows from.
    layout: Layout,
    pub(super) at_load: Option<AtLoad>,
}

impl Gguf {
    /// Reads and checks the header. With any file of a split model, opens all of them.
    pub fn open(path: &Path) -> Result<Self, HeaderError> {
        let (files, metadata, tensors) = split::open(path)?;
        let (spelling, layout) = (Spelling::of(None), Layout::default());
        let mut gguf = Self { files, metadata, tensors, spelling, layout, at_load: None };
        gguf.spelling = Spelling::of(gguf.string("general.architecture"));
        if let Some(architecture) = gguf.string("general.architecture") {
            // One for all layers, or one for each, which are then the same.
            let first = |key: &str| gguf.numbers(key)?.integers().next().and_then(|first| u64::try_from(first).ok());
            gguf.layout = Layout::of(architecture, |key| gguf.number(key).or_else(|| first(key)));
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
    pub(crate) fn strings(&self, key: &str) -> Option<&Strings> {
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
    pub(crate) fn real(&self, key: &str) -> Option<f64> {
        match self.value(key)? {
            Value::Float(number) => Some(*number),
            Value::Unsigned(number) => Some(*number as f64),
            Value::Signed(number) => Some(*number as f64),
            _ => None,
        }
    }

    /// Whether the file has the tensor `name` (with `.weight` or `.bias`), by its Hugging Face name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(&self.located(name))
    }

    /// The file's name of a tensor. Gates and ups of all experts may be in one.
    fn located(&self, name: &str) -> String {
        let stored = self.spelling.stored(name);
        if self.tensors.contains_key(&stored) {
            return stored;
        }
        let joined = ["ffn_gate_exps", "ffn_up_exps"].iter().find(|part| stored.contains(**part));
        let joined = joined.map(|part| stored.replace(part, GATES_AND_UPS));
        joined.filter(|joined| self.tensors.contains_key(joined)).unwrap_or(stored)
    }

    /// The order of a tensor's rows.
    fn order(&self, name: &str, info: &TensorInfo) -> Order {
        // Of each expert, its gate and then its up.
        if info.name.contains(GATES_AND_UPS) {
            let each = (info.shape.get(1).copied().unwrap_or_default() / 2).max(1);
            let first = if self.spelling.stored(name).contains("ffn_up_exps") { each } else { 0 };
            return Order::Half { first, each };
        }
        self.layout.rows(name, info.shape.first().copied().unwrap_or_default())
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
        self.read(self.info(&self.located(name))?, offset, length)
    }

    /// Reads the vector `name`, which must have this length.
    pub(crate) fn vector(&self, name: &str, length: usize) -> Result<FloatTensor, TensorError> {
        let stored = self.located(name);
        let info = self.info(&stored)?;
        expect_shape(&stored, &info.shape, &[length])?;
        let found = || TensorError::Type { name: stored.clone(), found: info.block.to_string(), supported: FLOATS };
        let float = info.block.float().ok_or_else(found)?;
        let bytes = self.ordered(info, self.order(name, info), 0..length, float.bytes())?;
        Ok(FloatTensor { float, shape: vec![length], bytes })
    }

    /// Reads the weights of a convolution over tokens: `[channels, taps]`.
    pub(super) fn convolution(&self, name: &str, channels: usize, taps: usize) -> Result<FloatTensor, TensorError> {
        let stored = self.located(name);
        let info = self.info(&stored)?;
        expect_shape(&stored, &info.shape, &[channels, taps])?;
        let float = info.block.float().ok_or_else(|| unsupported(&stored, info.block))?;
        let bytes = self.ordered(info, self.order(name, info), 0..channels, taps * float.bytes())?;
        Ok(FloatTensor { float, shape: vec![channels, taps], bytes })
    }

    /// Reads one of `count` vectors of this length in one tensor.
    pub(super) fn stacked_vector(
        &self,
        name: &str,
        count: usize,
        length: usize,
        at: usize,
    ) -> Result<FloatTensor, TensorError> {
        let stored = self.located(name);
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
        let (stored, info, order) = self.matrix_info(name)?;
        let shape: Vec<usize> = stacked_in.into_iter().chain([order.stored_rows(rows), columns]).collect();
        // A matrix of one row is a vector.
        if shape != [1, columns] || info.shape != [columns] {
            expect_shape(&stored, &info.shape, &shape)?;
        }
        let format = info.block.format().filter(|_| columns.is_multiple_of(info.block.elements() as usize));
        let format = format.filter(|format| match (self.layout.columns(name), format) {
            (Some((_, unit)), MatrixFormat::Quantized { bits, group, .. }) => {
                columns.is_multiple_of(unit) && unit.is_multiple_of(*group) && (unit * bits).is_multiple_of(32)
            }
            (Some((_, unit)), MatrixFormat::Float(_)) => columns.is_multiple_of(unit),
            (None, _) => true,
        });
        Ok((format.ok_or_else(|| unsupported(&stored, info.block))?, order.together()))
    }

    /// A matrix (without `.weight`): its name in the file, its tensor, and the order of its rows.
    fn matrix_info(&self, name: &str) -> Result<(String, &TensorInfo, Order), TensorError> {
        let name = format!("{name}.weight");
        let stored = self.located(&name);
        let info = self.info(&stored)?;
        Ok((stored, info, self.order(&name, info)))
    }

    /// The kind of small floating-point numbers that a matrix is stored as, if it is.
    pub(super) fn block_float(&self, name: &str) -> Option<BlockFloat> {
        self.matrix_info(name).ok()?.1.block.block_float()
    }

    /// Reads rows of such a matrix: codes and scales.
    pub(super) fn block_rows(
        &self,
        name: &str,
        columns: usize,
        rows: Range<usize>,
    ) -> Result<[Vec<u8>; 2], TensorError> {
        let (_, info, order) = self.matrix_info(name)?;
        let count = rows.len();
        let parts = info.block.codes_and_scales(&self.ordered_rows(info, order, columns, rows)?);
        Ok(match self.layout.columns(name) {
            Some((order, unit)) => parts.map(|part| order.columns(&part, count, columns / unit)),
            None => parts,
        })
    }

    /// Reads rows of a matrix in Hugging Face's order.
    pub(super) fn matrix_rows(&self, name: &str, columns: usize, rows: Range<usize>) -> Result<Matrix, TensorError> {
        let (stored, info, order) = self.matrix_info(name)?;
        let count = rows.len();
        let bytes = self.ordered_rows(info, order, columns, rows)?;
        let matrix = match info.block.float() {
            Some(float) => Some(Matrix::Float(FloatTensor { float, shape: vec![count, columns], bytes })),
            None => info.block.to_affine(&bytes, count, columns).map(Matrix::Quantized),
        };
        let mut matrix = matrix.ok_or_else(|| unsupported(&stored, info.block))?;
        if let Some((order, unit)) = self.layout.columns(name) {
            matrix.each_part(|part| *part = order.columns(part, count, columns / unit));
        }
        Ok(matrix)
    }

    fn ordered_rows(
        &self,
        info: &TensorInfo,
        order: Order,
        columns: usize,
        rows: Range<usize>,
    ) -> Result<Vec<u8>, TensorError> {
        self.ordered(info, order, rows, (columns as u64 / info.block.elements() * info.block.bytes()) as usize)
    }

    /// Reads rows of so many bytes in Hugging Face's order.
    fn ordered(
        &self,
        info: &TensorInfo,
        order: Order,
        rows: Range<usize>,
        row_bytes: usize,
    ) -> Result<Vec<u8>, TensorError> {
        order.read(rows, row_bytes, |at, length| self.read(info, at as u64, length as u64))
    }

    pub(super) fn unknown(&self, config: &ModelConfig) -> Option<String> {
        // Factors of the rotary periods.
        let is_known = |name: &str| match name {
            "rope_freqs.weight" => true,
            "rope_factors_long.weight" | "rope_factors_short.weight" => {
                matches!(config.rope.scaling, RopeScaling::LongRope { .. })
            }
            _ => {
                let ours = self.spelling.ours(name);
                // By another name than that of the format, it would not be read.
                names::is_known(&ours, config) && self.located(&ours) == name
            }
        };
        self.tensors.keys().find(|name| !is_known(name)).cloned()
    }

    /// Checks that every tensor has a supported type; otherwise the model would fail to load later.
    pub(crate) fn check_types(&self) -> Result<(), TensorError> {
        let foreign = self.tensors.values().find(|info| matches!(info.block, BlockType::Other(_)));
        foreign.map_or(Ok(()), |info| Err(unsupported(&info.name, info.block)))
    }

    fn info(&self, stored: &str) -> Result<&TensorInfo, TensorError> {
        let missing = || TensorError::Missing { file: self.path().to_owned(), name: stored.to_owned() };
        self.tensors.get(stored).ok_or_else(missing)
    }

    fn read(&self, info: &TensorInfo, offset: u64, length: u64) -> Result<Vec<u8>, TensorError> {
        // The header's reader has checked that the tensor lies inside the file.
        let (path, file) = &self.files[info.part];
        let read = read_within(file, info.start..info.start + info.bytes, offset, length);
        read.map_err(|source| TensorError::Read { name: info.name.clone(), file: path.clone(), source })
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// A file without a tensor.
    fn empty(architecture: &str) -> Gguf {
        Gguf {
            files: vec![(PathBuf::new(), tempfile::tempfile().unwrap())],
            metadata: BTreeMap::new(),
            tensors: BTreeMap::new(),
            spelling: Spelling::of(Some(architecture)),
            layout: Layout::default(),
            at_load: None,
        }
    }

    /// Adds a tensor at the beginning of the file.
    fn add(gguf: &mut Gguf, name: &str, shape: &[usize]) {
        let bytes = shape.iter().product::<usize>() as u64 * 4;
        let (name, shape) = (name.to_owned(), shape.to_vec());
        let info = TensorInfo { name: name.clone(), shape, block: BlockType::F32, part: 0, start: 0, bytes };
        gguf.tensors.insert(name, info);
    }

    #[test]
    fn gates_and_ups_in_one_tensor_have_twice_the_rows_of_each() {
        let shape = |rows: usize| {
            let mut gguf = empty("qwen3moe");
            add(&mut gguf, "blk.0.ffn_gate_up_exps.weight", &[2, rows, 32]);
            let of = |part: &str| {
                gguf.matrix_format(&format!("model.layers.0.mlp.switch_mlp.{part}"), Some(2), 48, 32).map(drop)
            };
            of("gate_proj").and(of("up_proj")).map_err(|error| error.to_string())
        };
        assert_eq!(shape(96), Ok(()));
        for rows in [0, 1, 48, 64, 95, 97, 192] {
            let why = shape(rows).unwrap_err();
            assert!(why.contains(&format!("has shape [2, {rows}, 32], expected [2, 96, 32]")), "{why}");
        }
    }

    #[test]
    fn nothing_is_read_beyond_the_end_of_a_tensor() {
        let mut gguf = empty("llama");
        gguf.files[0].1.write_all_at(&[7; 64], 0).unwrap();
        add(&mut gguf, "output_norm.weight", &[8]);
        let read = |offset, length| gguf.read_stored("model.norm.weight", offset, length);
        assert_eq!(read(28, 4).unwrap(), [7; 4]);
        for (offset, length) in [(28, 5), (0, 33), (32, 1), (u64::MAX, 2), (1, u64::MAX)] {
            let why = read(offset, length).unwrap_err().to_string();
            assert!(why.contains("the tensor has only 32 bytes"), "{why}");
        }
    }

    #[test]
    fn heads_that_are_written_for_each_layer_are_those_of_all() {
        let mut bytes = [&b"GGUF"[..], &3u32.to_le_bytes(), &0u64.to_le_bytes(), &3u64.to_le_bytes()].concat();
        let mut entry = |key: &str, kind: u32, value: &[u8]| {
            bytes.extend((key.len() as u64).to_le_bytes());
            bytes.extend(key.as_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(value);
        };
        entry("general.architecture", 8, &[&5u64.to_le_bytes()[..], b"llama"].concat());
        entry("llama.attention.head_count", 4, &4u32.to_le_bytes());
        let each = [&5u32.to_le_bytes()[..], &2u64.to_le_bytes(), &2i32.to_le_bytes(), &2i32.to_le_bytes()];
        entry("llama.attention.head_count_kv", 9, &each.concat());
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(&bytes, 0).unwrap();
        assert_eq!(Gguf::open(file.path()).unwrap().layout.heads, Some((4, 2)));
    }

    #[test]
    fn a_tensor_by_another_name_than_the_formats_is_not_known() {
        let config = serde_json::json!({
            "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128,
            "num_attention_heads": 4, "vocab_size": 100, "rms_norm_eps": 1e-5
        });
        let config = ModelConfig::from_json(&config).unwrap();
        let unknown = |name: &str| {
            let mut gguf = empty("llama");
            add(&mut gguf, name, &[1]);
            gguf.unknown(&config)
        };
        for name in ["blk.0.attn_q.weight", "blk.1.ffn_norm.weight", "output.weight", "rope_freqs.weight"] {
            assert_eq!(unknown(name), None);
        }
        for name in ["model.layers.0.self_attn.q_proj.weight", "blk.0.mlp.gate_proj.weight", "lm_head.weight"] {
            assert_eq!(unknown(name).as_deref(), Some(name));
        }
    }

    #[test]
    fn a_bias_is_put_in_order_like_the_matrix_it_belongs_to() {
        let mut stored = empty("llama");
        stored.layout = Layout { heads: Some((2, 1)), delta: None };
        let bytes: Vec<u8> = (0..8u8).flat_map(|number| f32::from(number).to_le_bytes()).collect();
        stored.files[0].1.write_all_at(&bytes, 0).unwrap();
        for name in ["blk.0.attn_q.bias", "blk.0.attn_k.bias", "blk.0.attn_v.bias"] {
            add(&mut stored, name, &[8]);
        }
        let read = |part: &str| stored.vector(&format!("model.layers.0.self_attn.{part}.bias"), 8).unwrap().to_f32();
        assert_eq!(read("q_proj"), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        assert_eq!(read("k_proj"), [0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]);
        assert_eq!(read("v_proj"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    }
}
