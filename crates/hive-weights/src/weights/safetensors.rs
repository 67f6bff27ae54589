//! A folder of safetensors files, in the format of Hugging Face and MLX.
//!
//! `parts` finds the files that belong to the model, and `header` reads the positions of the tensors in one.

mod error;
pub(crate) mod fp8;
mod header;
mod parts;
mod quantization;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::Dtype;

pub use error::FolderError;
pub(crate) use fp8::Fp8;
pub use quantization::{Mode, Quantization, QuantizationTable};

use super::{
    AtLoad, Biases, Float, FloatTensor, Matrix, MatrixFormat, QuantizedMatrix, StoredTensor, TensorError, TensorPlace,
    read_within, to_f32,
};
use crate::config::ModelConfig;
use crate::weights::block_floats::BlockFloat;
use crate::weights::names;
use header::{Entry, read_header};
use parts::parts;

/// Limit on the headers of all files together.
const MAX_HEADERS_BYTES: u64 = 128 << 20;

/// An open folder.
#[derive(Debug)]
pub struct SafetensorsFolder {
    path: PathBuf,
    files: Vec<PathBuf>,
    tensors: BTreeMap<String, Entry>,
    quantization: QuantizationTable,
    /// What weights in FP8 become.
    from_fp8: Float,
    pub(super) at_load: Option<AtLoad>,
}

impl SafetensorsFolder {
    /// Reads and checks the headers of the model's files.
    pub fn open(path: &Path, quantization: QuantizationTable) -> Result<Self, FolderError> {
        let mut tensors: BTreeMap<String, Entry> = BTreeMap::new();
        let mut left = MAX_HEADERS_BYTES;
        let files = parts(path)?;
        for file in &files {
            for (name, entry) in read_header(file.clone(), &mut left)? {
                let name = names::of_text(&name);
                let name = match &quantization.fp8 {
                    Some(fp8) => fp8.name(&name).map(Cow::into_owned),
                    None => Some(name.into_owned()),
                };
                let Some(name) = name else { continue };
                if let Some(other) = tensors.insert(name.clone(), entry) {
                    return Err(FolderError::Twice { name, file: file.clone(), other: other.file.0.clone() });
                }
            }
        }
        let has_single = tensors.get("model.norm.weight").is_some_and(|norm| norm.dtype == Dtype::F32);
        let from_fp8 = if has_single { Float::F32 } else { Float::Bf16 };
        Ok(Self { path: path.to_owned(), files, tensors, quantization, from_fp8, at_load: None })
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub(super) fn unknown(&self, config: &ModelConfig) -> Option<String> {
        // Scales of FP8 in a folder that does not say how to read them.
        let is_stray = |name: &str| self.quantization.fp8.is_none() && name.ends_with(fp8::SCALES);
        self.tensors.keys().find(|name| !names::is_known(name, config) || is_stray(name)).cloned()
    }

    /// Every tensor, in order of name.
    pub(super) fn stored(&self) -> Vec<StoredTensor> {
        let stored = |(name, entry): (&String, &Entry)| StoredTensor {
            name: name.clone(),
            kind: format!("{:?}", entry.dtype),
            shape: entry.shape.clone(),
            bytes: entry.bytes,
        };
        self.tensors.iter().map(stored).collect()
    }

    /// The model's files.
    pub(super) fn files(&self) -> Vec<&Path> {
        self.files.iter().map(PathBuf::as_path).collect()
    }

    /// Where every tensor lies.
    pub(super) fn places(&self) -> Vec<TensorPlace<'_>> {
        let places = self.tensors.iter().map(|(name, entry)| TensorPlace {
            name: name.clone(),
            file: &entry.file.0,
            bytes: entry.start..entry.start + entry.bytes,
        });
        places.collect()
    }

    pub(super) fn read_stored(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, TensorError> {
        Self::read_part(name, self.entry(name)?, offset, length)
    }

    pub(super) fn vector(&self, name: &str, length: usize) -> Result<FloatTensor, TensorError> {
        self.float(name, &[length])
    }

    /// Reads the weights of a convolution over tokens, as MLX or as Hugging Face's checkpoints have it: the numbers lie in
    /// the same order.
    pub(super) fn convolution(&self, name: &str, channels: usize, taps: usize) -> Result<FloatTensor, TensorError> {
        let shape = if self.has_original_convolutions() { [channels, 1, taps] } else { [channels, taps, 1] };
        self.float(name, &shape)
    }

    /// Whether convolutions lie as in Hugging Face's checkpoints, which are then not converted for MLX.
    pub(crate) fn has_original_convolutions(&self) -> bool {
        // Other parts, which hear, have convolutions of another kind.
        let of_layers = |name: &str| name.starts_with("model.layers.") && name.ends_with(".linear_attn.conv1d.weight");
        let mut all = self.tensors.iter().filter(|(name, _)| of_layers(name));
        all.any(|(_, entry)| entry.shape.last() != Some(&1))
    }

    /// Reads one of `count` vectors of this length in one tensor.
    pub(super) fn stacked_vector(
        &self,
        name: &str,
        count: usize,
        length: usize,
        at: usize,
    ) -> Result<FloatTensor, TensorError> {
        let float = self.float_of(name, &[count, length])?;
        let bytes = (length * float.bytes()) as u64;
        let bytes = Self::read_part(name, self.entry(name)?, at as u64 * bytes, bytes)?;
        Ok(FloatTensor { float, shape: vec![length], bytes })
    }

    /// The format of a matrix, or of `stacked` matrices in one tensor.
    pub(super) fn matrix_format(
        &self,
        name: &str,
        stacked: Option<usize>,
        rows: usize,
        columns: usize,
    ) -> Result<MatrixFormat, TensorError> {
        let shape = |columns: usize| -> Vec<usize> { stacked.into_iter().chain([rows, columns]).collect() };
        let weight = format!("{name}.weight");
        if let (Some(fp8), None) = (&self.quantization.fp8, stacked) {
            return self.format_beside_fp8(fp8, name, [rows, columns]);
        }
        let quantization = self.quantization.of(name).filter(|_| self.contains(&format!("{name}.scales")));
        let Some(Quantization { group_size, bits, mode }) = quantization else {
            // What is not read beside the weights would change them.
            let mut beside = ["scales", "biases"].into_iter().map(|part| format!("{name}.{part}"));
            if let Some(part) = beside.find(|part| self.contains(part)) {
                let found = format!("{:?} beside {part}", self.entry(&weight)?.dtype);
                let supported = "plain numbers alone, or those that config.json says are quantized";
                return Err(TensorError::Type { name: weight, found, supported });
            }
            return Ok(MatrixFormat::Float(self.float_of(&weight, &shape(columns))?));
        };
        if let Some(kind) = mode.block_float() {
            return self.block_format(kind, &weight, (group_size, bits), columns, &shape);
        }
        let suits = matches!(group_size, 16 | 32 | 64 | 128)
            && matches!(bits, 2..=6 | 8)
            && columns.is_multiple_of(group_size)
            && (columns * bits).is_multiple_of(32);
        if !suits {
            let found = format!("{bits}-bit groups of {group_size} over {columns} columns");
            let supported = "2 to 6 and 8 bits in whole groups of 16, 32, 64 or 128";
            return Err(TensorError::Type { name: weight, found, supported });
        }
        let entry = self.entry(&weight)?;
        expect(&weight, entry, &shape(columns * bits / 32))?;
        if entry.dtype != Dtype::U32 {
            return Err(wrong_type(&weight, entry));
        }
        let float = self.float_of(&format!("{name}.scales"), &shape(columns / group_size))?;
        let biases = format!("{name}.biases");
        if self.float_of(&biases, &shape(columns / group_size))? != float {
            return Err(wrong_type(&biases, self.entry(&biases)?));
        }
        Ok(MatrixFormat::Quantized { bits, group: group_size, float, multiple: None })
    }

    /// The format of a matrix in a folder with weights in FP8: the type that they become, or that of weights that the
    /// folder left as they were.
    fn format_beside_fp8(&self, fp8: &Fp8, name: &str, shape: [usize; 2]) -> Result<MatrixFormat, TensorError> {
        let [weight, scales] = ["weight", fp8::SCALES].map(|part| format!("{name}.{part}"));
        let entry = self.entry(&weight)?;
        if entry.dtype != Dtype::F8_E4M3 {
            if self.contains(&scales) {
                let found = format!("{:?} beside {scales}", entry.dtype);
                return Err(TensorError::Type { name: weight, found, supported: "F8_E4M3 there" });
            }
            return Ok(MatrixFormat::Float(self.float_of(&weight, &shape)?));
        }
        expect(&weight, entry, &shape)?;
        let (found, wanted) = (self.entry(&scales)?, fp8.shapes(shape));
        if !wanted.contains(&found.shape) {
            let expected = wanted.into_iter().next_back().unwrap_or_default();
            return Err(TensorError::Shape { name: scales, found: found.shape.clone(), expected });
        }
        self.float_of(&scales, &found.shape)?;
        Ok(MatrixFormat::Float(self.from_fp8))
    }

    /// Reads rows of a matrix in FP8, whose format is known.
    fn fp8_rows(
        &self,
        fp8: &Fp8,
        name: &str,
        columns: usize,
        float: Float,
        rows: Range<usize>,
    ) -> Result<Matrix, TensorError> {
        let [weight, scales] = ["weight", fp8::SCALES].map(|part| format!("{name}.{part}"));
        let all = self.entry(&weight)?.shape.first().copied().unwrap_or_default();
        let block = fp8.block([all, columns]);
        let blocks = rows.start / block[0]..rows.end.div_ceil(block[0]);
        let stored = self.entry(&scales)?;
        let of_scales = self.float_of(&scales, &stored.shape)?;
        let scales = self.rows_of(name, fp8::SCALES, columns.div_ceil(block[1]) * of_scales.bytes(), &blocks)?;
        let codes = self.rows_of(name, "weight", columns, &rows)?;
        let scales = to_f32(of_scales, &scales);
        let read = fp8::Rows { codes: &codes, columns, first: rows.start, block, scales: &scales };
        let bytes = read.numbers(float).ok_or(TensorError::NotANumber { name: weight })?;
        Ok(Matrix::Float(FloatTensor { float, shape: vec![rows.len(), columns], bytes }))
    }

    /// The kind of small floating-point numbers that a matrix is stored as, if it is.
    pub(super) fn block_float(&self, name: &str) -> Option<BlockFloat> {
        let quantization = self.quantization.of(name).filter(|_| self.contains(&format!("{name}.scales")));
        quantization?.mode.block_float()
    }

    /// Checks a matrix of small floating-point numbers, which is stored as codes and a scale per group.
    fn block_format(
        &self,
        kind: BlockFloat,
        weight: &str,
        (group, bits): (usize, usize),
        columns: usize,
        shape: &dyn Fn(usize) -> Vec<usize>,
    ) -> Result<MatrixFormat, TensorError> {
        if group != kind.group() || bits != kind.bits() || !columns.is_multiple_of(group) {
            let found = format!("{bits}-bit {kind:?} in groups of {group} over {columns} columns");
            let supported = "4-bit MXFP4 in groups of 32, 4-bit NVFP4 in groups of 16 and 8-bit MXFP8 in groups of 32";
            return Err(TensorError::Type { name: weight.to_owned(), found, supported });
        }
        let scales = format!("{}scales", weight.strip_suffix("weight").unwrap_or(weight));
        let [words, groups] = kind.row_bytes(columns);
        for (name, dtype, width) in [(weight, Dtype::U32, words / 4), (scales.as_str(), Dtype::U8, groups)] {
            let entry = self.entry(name)?;
            expect(name, entry, &shape(width))?;
            if entry.dtype != dtype {
                return Err(wrong_type(name, entry));
            }
        }
        Ok(kind.format())
    }

    /// Reads rows of such a matrix: codes and scales.
    pub(super) fn block_rows(
        &self,
        name: &str,
        kind: BlockFloat,
        columns: usize,
        rows: &Range<usize>,
    ) -> Result<[Vec<u8>; 2], TensorError> {
        let [codes, scales] = kind.row_bytes(columns);
        Ok([self.rows_of(name, "weight", codes, rows)?, self.rows_of(name, "scales", scales, rows)?])
    }

    /// Reads rows of a part of a matrix.
    fn rows_of(&self, name: &str, part: &str, row_bytes: usize, rows: &Range<usize>) -> Result<Vec<u8>, TensorError> {
        let name = format!("{name}.{part}");
        let entry = self.entry(&name)?;
        Self::read_part(&name, entry, (rows.start * row_bytes) as u64, (rows.len() * row_bytes) as u64)
    }

    /// Reads rows of a matrix whose format is known.
    pub(super) fn matrix_rows(
        &self,
        name: &str,
        columns: usize,
        format: MatrixFormat,
        rows: Range<usize>,
    ) -> Result<Matrix, TensorError> {
        if let Some(kind) = self.block_float(name) {
            let [codes, scales] = self.block_rows(name, kind, columns, &rows)?;
            return Ok(kind.converted(&codes, &scales, rows.len(), columns));
        }
        if let (Some(fp8), MatrixFormat::Float(float)) = (&self.quantization.fp8, format)
            && self.entry(&format!("{name}.weight"))?.dtype == Dtype::F8_E4M3
        {
            return self.fp8_rows(fp8, name, columns, float, rows);
        }
        let [weights, scales, biases] = format.row_bytes(columns);
        let read = |part: &str, row_bytes: usize| self.rows_of(name, part, row_bytes, &rows);
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
        let read = read_within(file, entry.start..entry.start + entry.bytes, offset, length);
        read.map_err(|source| TensorError::Read { name: name.to_owned(), file: path.clone(), source })
    }
}

fn expect(name: &str, entry: &Entry, shape: &[usize]) -> Result<(), TensorError> {
    if entry.shape == shape {
        return Ok(());
    }
    Err(TensorError::Shape { name: name.to_owned(), found: entry.shape.clone(), expected: shape.to_vec() })
}

fn wrong_type(name: &str, entry: &Entry) -> TensorError {
    let supported = "F32, F16, BF16, U32 for quantized weights, and F8_E4M3 where config.json says how it is scaled";
    TensorError::Type { name: name.to_owned(), found: format!("{:?}", entry.dtype), supported }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    /// A folder with one file of tensors, all zeros: names, types and shapes.
    fn opened(tensors: &[(&str, &str, &[usize])], quantization: &Json) -> Result<SafetensorsFolder, String> {
        let (mut header, mut end) = (serde_json::Map::new(), 0);
        for (name, dtype, shape) in tensors {
            let width = match *dtype {
                "F8_E4M3" | "F8_E5M2" | "U8" => 1,
                "F16" | "BF16" => 2,
                _ => 4,
            };
            let next = end + shape.iter().product::<usize>() * width;
            header.insert((*name).to_owned(), json!({ "dtype": dtype, "shape": shape, "data_offsets": [end, next] }));
            end = next;
        }
        let header = Json::Object(header).to_string();
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; end]].concat();
        of_bytes(&file, quantization)
    }

    fn of_bytes(file: &[u8], quantization: &Json) -> Result<SafetensorsFolder, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.safetensors"), file).unwrap();
        let table = match Fp8::from_json(quantization)? {
            Some(fp8) => QuantizationTable::of_fp8(Some(fp8)),
            None => QuantizationTable::from_json(quantization)?,
        };
        SafetensorsFolder::open(folder.path(), table).map_err(|error| error.to_string())
    }

    #[test]
    fn scales_that_would_not_be_read_are_refused() {
        let plain = ("a.weight", "F16", &[2, 64][..]);
        let read = |tensors: &[(&str, &str, &[usize])], quantization: Json| {
            let folder = opened(tensors, &quantization).unwrap();
            folder.matrix_format("a", None, 2, 64).map_err(|error| error.to_string())
        };
        assert_eq!(read(&[plain], json!(null)), Ok(MatrixFormat::Float(Float::F16)));
        assert_eq!(read(&[plain], json!({ "bits": 4, "group_size": 64 })), Ok(MatrixFormat::Float(Float::F16)));
        for part in ["a.scales", "a.biases"] {
            let beside = [plain, (part, "F16", &[2, 1])];
            for quantization in [json!(null), json!({ "bits": 4, "group_size": 64, "a": false })] {
                let why = read(&beside, quantization).unwrap_err();
                assert!(why.contains(&format!("a.weight has type F16 beside {part}")), "{why}");
            }
        }
    }

    #[test]
    fn groups_are_those_that_kernels_have() {
        let read = |group: usize| {
            let (columns, groups) = (2 * group, [1, 2]);
            let words = [1, columns * 4 / 32];
            let tensors =
                [("a.weight", "U32", &words[..]), ("a.scales", "F16", &groups[..]), ("a.biases", "F16", &groups[..])];
            let folder = opened(&tensors, &json!({ "bits": 4, "group_size": group })).unwrap();
            folder.matrix_format("a", None, 1, columns).map(drop).map_err(|error| error.to_string())
        };
        for group in [16, 32, 64, 128] {
            assert_eq!(read(group), Ok(()));
        }
        for group in [8, 24, 96, 256] {
            let why = read(group).unwrap_err();
            assert!(
                why.contains(&format!("4-bit groups of {group} over")) && why.contains("16, 32, 64 or 128"),
                "{why}"
            );
        }
    }

    #[test]
    fn weights_in_fp8_need_their_scales_and_scales_need_weights_in_fp8() {
        fn scales(kind: &'static str, shape: &'static [usize]) -> (&'static str, &'static str, &'static [usize]) {
            ("a.weight_scale_inv", kind, shape)
        }
        let fp8 = |size: Json| json!({ "quant_method": "fp8", "fmt": "e4m3", "weight_block_size": size });
        let compressed = |strategy: &str| {
            let weights = json!({ "num_bits": 8, "type": "float", "strategy": strategy });
            json!({ "quant_method": "compressed-tensors", "format": "float-quantized",
                "config_groups": { "group_0": { "weights": weights } } })
        };
        // 200 rows and 300 columns: the last blocks have 72 rows and 44 columns.
        let read = |tensors: &[(&str, &str, &[usize])], config: &Json| {
            let folder = opened(tensors, config).unwrap();
            let format = folder.matrix_format("a", None, 200, 300).map_err(|error| error.to_string())?;
            let rows = folder.matrix_rows("a", 300, format, 150..200).map_err(|error| error.to_string())?;
            assert_eq!((rows.rows(), rows.columns(), rows.bytes()), (50, 300, 50 * 300 * 2));
            Ok::<_, String>(format)
        };
        let weight = ("a.weight", "F8_E4M3", &[200, 300][..]);
        let blocks = fp8(json!([128, 128]));
        let bf16 = Ok(MatrixFormat::Float(Float::Bf16));
        assert_eq!(read(&[weight, scales("F32", &[2, 3])], &blocks), bf16);
        assert_eq!(read(&[weight, scales("BF16", &[2, 3])], &blocks), bf16);
        assert_eq!(read(&[weight, scales("F32", &[1, 1])], &fp8(json!([4096, usize::MAX]))), bf16);
        assert_eq!(read(&[weight, scales("F32", &[])], &fp8(json!(null))), bf16);
        assert_eq!(read(&[weight, ("a.weight_scale", "BF16", &[200, 1])], &compressed("channel")), bf16);
        assert_eq!(read(&[weight, ("a.weight_scale", "F32", &[1])], &compressed("tensor")), bf16);
        // What the folder did not convert, and scales of activations, which are not rounded here.
        assert_eq!(read(&[("a.weight", "BF16", &[200, 300])], &blocks), bf16);
        let beside = [weight, scales("F32", &[]), ("a.activation_scale", "F32", &[])];
        assert_eq!(read(&beside, &fp8(json!(null))), bf16);
        for (tensors, config, words) in [
            (vec![weight], &blocks, "has no tensor a.weight_scale_inv"),
            (vec![weight, scales("F32", &[3, 2])], &blocks, "a.weight_scale_inv has shape [3, 2], expected [2, 3]"),
            (vec![weight, scales("F32", &[2, 3, 1])], &blocks, "expected [2, 3]"),
            (vec![weight, scales("U8", &[2, 3])], &blocks, "a.weight_scale_inv has type U8"),
            (vec![("a.weight", "F8_E4M3", &[200, 299][..]), scales("F32", &[2, 3])], &blocks, "expected [200, 300]"),
            (vec![("a.weight", "F8_E5M2", &[200, 300][..])], &blocks, "a.weight has type F8_E5M2"),
            (
                vec![("a.weight", "BF16", &[200, 300][..]), scales("F32", &[2, 3])],
                &blocks,
                "a.weight has type BF16 beside a.weight_scale_inv",
            ),
            (vec![weight], &json!(null), "a.weight has type F8_E4M3"),
        ] {
            let why = read(&tensors, config).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn only_convolutions_of_layers_say_whether_a_folder_is_converted() {
        let is_original = |name: &str| opened(&[(name, "F32", &[8, 1, 4])], &json!(null)).unwrap();
        assert!(is_original("model.layers.0.linear_attn.conv1d.weight").has_original_convolutions());
        assert!(!is_original("audio_tower.layers.0.conv1d.weight").has_original_convolutions());
        let converted = opened(&[("model.layers.0.linear_attn.conv1d.weight", "F32", &[8, 4, 1])], &json!(null));
        assert!(!converted.unwrap().has_original_convolutions());
    }

    #[test]
    fn headers_beyond_any_real_one_are_refused_in_a_short_sentence() {
        let long = "a".repeat(1025);
        let deep = [1; 9];
        let many: Vec<String> = (0..=(1 << 17)).map(|number| number.to_string()).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), "F32", &[0][..])).collect();
        assert!(opened(&[(&long[1..], "F32", &deep[1..])], &json!(null)).is_ok());
        for (tensors, words) in [
            (vec![(long.as_str(), "F32", &[1][..])], "the name of a tensor has 1025 bytes"),
            (vec![("a", "F32", &deep[..])], "tensor a has 9 dimensions"),
            (many, "it lists 131073 tensors; more than 131072 are not accepted"),
        ] {
            let why = opened(&tensors, &json!(null)).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
        let name = "b".repeat(1 << 20);
        let header = json!({ name: { "dtype": "F32", "shape": [1], "data_offsets": [0, 8] } }).to_string();
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat();
        let why = of_bytes(&file, &json!(null)).unwrap_err();
        assert!(why.len() < 1000, "{} bytes", why.len());
    }

    #[test]
    fn a_file_without_room_for_a_header_is_called_short() {
        for bytes in [0, 3, 7] {
            let why = of_bytes(&vec![0; bytes], &json!(null)).unwrap_err();
            assert!(why.contains(&format!("has only {bytes} bytes: it is truncated")), "{why}");
        }
    }
}
