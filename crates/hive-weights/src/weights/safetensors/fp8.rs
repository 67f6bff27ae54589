//! Weights in FP8, as checkpoints of `DeepSeek`, Qwen and Mistral have them: a number of 8 bits (E4M3) each, and
//! scales beside them.
//!
//! `X.weight` holds the codes, and `X.weight_scale_inv` the scales of blocks of the matrix: a weight is its code's number
//! times its block's scale. A scale may also stand for a whole matrix or for a row, and compressed-tensors calls it
//! `X.weight_scale`. There are no kernels for these, so weights become bfloat16 as they are read, as in mlx-lm, or
//! single precision in a folder that has its norms in it: a number and its scale are multiplied in single precision and
//! rounded once.
//!
//! Scales of activations are not read: activations are not rounded here, so they need none.

use serde_json::Value as Json;

use crate::weights::Float;
use crate::weights::block_floats::e4m3;

/// The scales' name after a matrix's, however the folder calls them.
pub(crate) const SCALES: &str = "weight_scale_inv";

/// How a folder stores its weights in FP8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fp8 {
    scaling: Scaling,
    /// The scales' name after a matrix's in the files.
    stored: &'static str,
}

/// What shares a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scaling {
    /// Blocks of so many rows and columns; those at the edges are smaller.
    Block([usize; 2]),
    /// A row.
    Row,
    /// A matrix.
    Matrix,
}

/// The block size of `DeepSeek` V3, and what Transformers assumes of a folder that does not say it.
const DEFAULT_BLOCK: [usize; 2] = [128, 128];

impl Fp8 {
    /// Reads the value of `quantization_config`: how weights are stored in FP8, or `None` if it says of no quantization.
    ///
    /// # Errors
    /// What is not supported, as the object of "asks for".
    pub(crate) fn from_json(config: &Json) -> Result<Option<Self>, String> {
        match config["quant_method"].as_str() {
            // The tensors' types tell what these are.
            None | Some("bitsandbytes") => Ok(None),
            Some("fp8") => Self::of_fine_grained(config).map(Some),
            Some("compressed-tensors") => Self::of_compressed(config).map(Some),
            Some(method) => Err(format!("weights quantized by {method}")),
        }
    }

    /// Transformers' own.
    fn of_fine_grained(config: &Json) -> Result<Self, String> {
        if let Some(format) = config["fmt"].as_str().filter(|format| *format != "e4m3") {
            return Err(format!("FP8 weights in {format}; of these, only e4m3 can be read"));
        }
        let scaling = match config.get("weight_block_size") {
            None => Scaling::Block(DEFAULT_BLOCK),
            Some(Json::Null) => Scaling::Matrix,
            Some(size) => Scaling::Block(block_size(size)?),
        };
        Ok(Self { scaling, stored: SCALES })
    }

    /// vLLM's, whose groups of matrices must all be stored in the same way.
    fn of_compressed(config: &Json) -> Result<Self, String> {
        let format = config["format"].as_str().unwrap_or("no format");
        if format != "float-quantized" {
            return Err(format!("weights quantized by compressed-tensors as {format}"));
        }
        let is_set = |value: &Json| value.as_object().is_some_and(|table| !table.is_empty());
        let sparsity = config["sparsity_config"]["format"].as_str().unwrap_or("dense");
        if sparsity != "dense" || is_set(&config["transform_config"]) {
            return Err("weights that compressed-tensors transformed or thinned".to_owned());
        }
        let groups = config["config_groups"].as_object().into_iter().flatten().map(|(_, group)| &group["weights"]);
        let mut found = None;
        for weights in groups {
            let scaling = match weights["strategy"].as_str() {
                Some("tensor") => Scaling::Matrix,
                Some("channel") => Scaling::Row,
                Some("block") => Scaling::Block(block_size(&weights["block_structure"])?),
                Some(other) => return Err(format!("FP8 weights with scales by {other}")),
                None => return Err("FP8 weights without a scaling strategy".to_owned()),
            };
            let is_plain = weights["num_bits"] == 8 && weights["type"] == "float" && weights["symmetric"] != false;
            if !is_plain || found.is_some_and(|found| found != scaling) {
                return Err("weights that compressed-tensors quantized in several ways".to_owned());
            }
            found = Some(scaling);
        }
        let scaling = found.ok_or("compressed-tensors weights without a quantization scheme")?;
        Ok(Self { scaling, stored: "weight_scale" })
    }

    /// A tensor's name as this crate has it: `None` for scales of activations.
    pub(super) fn name<'a>(&self, stored: &'a str) -> Option<std::borrow::Cow<'a, str>> {
        let (matrix, part) = stored.rsplit_once('.').unwrap_or((stored, ""));
        match part {
            "activation_scale" | "input_scale" => None,
            part if part == self.stored => Some(format!("{matrix}.{SCALES}").into()),
            _ => Some(stored.into()),
        }
    }

    /// The shapes that the scales of a matrix may have.
    pub(super) fn shapes(&self, [rows, columns]: [usize; 2]) -> Vec<Vec<usize>> {
        match self.scaling {
            Scaling::Block([high, wide]) => vec![vec![rows.div_ceil(high), columns.div_ceil(wide)]],
            Scaling::Row => vec![vec![rows, 1]],
            Scaling::Matrix => vec![vec![], vec![1]],
        }
    }

    /// Rows and columns that share a scale in a matrix of this shape.
    pub(super) fn block(&self, [rows, columns]: [usize; 2]) -> [usize; 2] {
        match self.scaling {
            Scaling::Block(block) => block,
            Scaling::Row => [1, columns.max(1)],
            Scaling::Matrix => [rows.max(1), columns.max(1)],
        }
    }
}

/// Rows and columns of a block.
fn block_size(value: &Json) -> Result<[usize; 2], String> {
    let number = |value: &Json| value.as_u64().filter(|number| *number > 0).and_then(|n| usize::try_from(n).ok());
    let numbers = value.as_array().map(|list| list.iter().map(number).collect::<Option<Vec<_>>>());
    match numbers.flatten().as_deref() {
        Some(&[high, wide]) => Ok([high, wide]),
        _ => Err(format!("FP8 weights in blocks of {}", value.to_string().chars().take(60).collect::<String>())),
    }
}

/// Rows of a matrix: codes, and the scales of the blocks that they lie in.
pub(super) struct Rows<'a> {
    /// One byte a number, row after row.
    pub(super) codes: &'a [u8],
    pub(super) columns: usize,
    /// The first row's number in the matrix.
    pub(super) first: usize,
    /// Rows and columns of a block.
    pub(super) block: [usize; 2],
    /// From those of the first row's block on.
    pub(super) scales: &'a [f32],
}

impl Rows<'_> {
    /// The numbers, little-endian in this format; `None` if a code or a scale stands for no number.
    pub(super) fn numbers(&self, float: Float) -> Option<Vec<u8>> {
        let Self { codes, columns, first, block: [high, wide], scales } = *self;
        let is_none = |code: &u8| code & 0x7f == 0x7f;
        if codes.iter().any(is_none) || !scales.iter().all(|scale| scale.is_finite()) {
            return None;
        }
        let of_codes: [f32; 256] = std::array::from_fn(|code| e4m3(code as u8));
        let across = columns.div_ceil(wide);
        let mut numbers = Vec::with_capacity(codes.len() * float.bytes());
        for (row, codes) in codes.chunks_exact(columns).enumerate() {
            let block = (first + row) / high - first / high;
            for (codes, scale) in codes.chunks(wide).zip(&scales[block * across..]) {
                let values = codes.iter().map(|code| of_codes[usize::from(*code)] * scale);
                match float {
                    Float::F32 => numbers.extend(values.flat_map(f32::to_le_bytes)),
                    Float::F16 => numbers.extend(values.flat_map(|value| half::f16::from_f32(value).to_le_bytes())),
                    Float::Bf16 => numbers.extend(values.flat_map(|value| half::bf16::from_f32(value).to_le_bytes())),
                }
            }
        }
        Some(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::to_f32;
    use serde_json::json;

    /// By the definition: sign, four bits of exponent with a bias of 7, three of mantissa; no infinities, and one pair of
    /// codes for no number.
    fn defined(code: u8) -> Option<f64> {
        let (sign, exponent, mantissa) = (code >> 7, i32::from(code >> 3 & 0xf), f64::from(code & 7));
        let magnitude = match (exponent, code & 7) {
            (15, 7) => return None,
            (0, _) => mantissa / 8.0 * 2f64.powi(-6),
            _ => (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7),
        };
        Some(if sign == 1 { -magnitude } else { magnitude })
    }

    #[test]
    fn every_code_has_its_number_and_two_have_none() {
        for code in 0..=u8::MAX {
            let rows = Rows { codes: &[code], columns: 1, first: 0, block: [1, 1], scales: &[1.0] };
            let found = [Float::F32, Float::Bf16, Float::F16]
                .map(|float| rows.numbers(float).map(|bytes| f64::from(to_f32(float, &bytes)[0])));
            assert_eq!(found, [defined(code); 3], "code {code:#04x}");
            let negative = defined(code).is_some_and(f64::is_sign_negative);
            assert_eq!(found[0].is_some_and(f64::is_sign_negative), negative, "code {code:#04x}");
        }
        assert_eq!((0..=u8::MAX).filter(|code| defined(*code).is_none()).collect::<Vec<_>>(), [0x7f, 0xff]);
        assert_eq!((defined(0x7e), defined(0x01)), (Some(448.0), Some(2f64.powi(-9))));
    }

    #[test]
    fn a_product_is_rounded_once() {
        let codes: Vec<u8> = (0..=u8::MAX).filter(|code| defined(*code).is_some()).collect();
        for scale in [1.0f32, 0.000_213_7, 3.0625e3, 1.0 / 448.0, 2f32.powi(-30)] {
            let scales = vec![scale; codes.len().div_ceil(128)];
            let rows = Rows { codes: &codes, columns: codes.len(), first: 0, block: [128, 128], scales: &scales };
            let read = to_f32(Float::Bf16, &rows.numbers(Float::Bf16).unwrap());
            // In double precision the product is exact, so this rounds twice as well: to single, then to bfloat16.
            let exact = codes.iter().map(|code| (defined(*code).unwrap() * f64::from(scale)) as f32);
            let expected: Vec<f32> = exact.map(|value| half::bf16::from_f32(value).to_f32()).collect();
            assert_eq!(read, expected, "{scale}");
        }
    }

    #[test]
    fn rows_from_the_middle_have_the_scales_of_their_blocks() {
        let (height, columns, block) = (200usize, 300usize, [48usize, 40]);
        let codes: Vec<u8> = (0..height * columns).map(|at| (at * 37 % 127) as u8).collect();
        let across = columns.div_ceil(block[1]);
        let scales: Vec<f32> = (0..height.div_ceil(block[0]) * across).map(|at| 1.0 + at as f32 / 64.0).collect();
        for rows in [0..200, 0..1, 47..49, 150..200, 199..200] {
            let (high, codes) = (rows.start / block[0], &codes[rows.start * columns..rows.end * columns]);
            let read = Rows { codes, columns, first: rows.start, block, scales: &scales[high * across..] };
            let read = to_f32(Float::F32, &read.numbers(Float::F32).unwrap());
            let places = rows.clone().flat_map(|row| (0..columns).map(move |column| (row, column)));
            for ((row, column), (read, code)) in places.zip(read.iter().zip(codes)) {
                let scale = scales[row / block[0] * across + column / block[1]];
                assert_eq!(f64::from(*read), defined(*code).unwrap() * f64::from(scale), "{rows:?}: {row}, {column}");
            }
        }
    }

    #[test]
    fn numbers_that_are_none_are_not_made_up() {
        let rows = |codes: &[u8], scale: f32| {
            Rows { codes, columns: 2, first: 0, block: [8, 8], scales: &[scale] }.numbers(Float::Bf16)
        };
        assert!(rows(&[0x7e, 0xfe], 1.0).is_some());
        for (codes, scale) in [([0x7f, 0], 1.0), ([0, 0xff], 1.0), ([0, 0], f32::NAN), ([0, 0], f32::INFINITY)] {
            assert_eq!(rows(&codes, scale), None);
        }
    }

    #[test]
    fn what_a_folder_says_is_read_or_refused_by_name() {
        let read = |config: Json| Fp8::from_json(&config);
        let scaling = |config: Json| read(config).unwrap().unwrap().scaling;
        for none in [json!(null), json!({ "group_size": 64 }), json!({ "quant_method": "bitsandbytes" })] {
            assert_eq!(read(none), Ok(None));
        }
        let fp8 = |size: Json| json!({ "quant_method": "fp8", "fmt": "e4m3", "weight_block_size": size });
        assert_eq!(scaling(fp8(json!([128, 64]))), Scaling::Block([128, 64]));
        assert_eq!(scaling(json!({ "quant_method": "fp8" })), Scaling::Block([128, 128]));
        assert_eq!(scaling(fp8(json!(null))), Scaling::Matrix);
        let groups = |weights: &[Json]| {
            let groups: Vec<Json> = weights.iter().map(|weights| json!({ "weights": weights })).collect();
            let groups: serde_json::Map<_, _> =
                groups.into_iter().enumerate().map(|(n, group)| (n.to_string(), group)).collect();
            json!({ "quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": groups })
        };
        let rows = json!({ "num_bits": 8, "type": "float", "strategy": "channel", "symmetric": true });
        let whole = json!({ "num_bits": 8, "type": "float", "strategy": "tensor" });
        assert_eq!(scaling(groups(&[rows.clone(), rows.clone()])), Scaling::Row);
        assert_eq!(scaling(groups(std::slice::from_ref(&whole))), Scaling::Matrix);
        let mut four = rows.clone();
        four["num_bits"] = 4.into();
        let mut grouped = rows.clone();
        grouped["strategy"] = "group".into();
        let mut without = rows.clone();
        without["strategy"].take();
        for (config, words) in [
            (json!({ "quant_method": "awq" }), "weights quantized by awq"),
            (json!({ "quant_method": "fp8", "fmt": "e5m2" }), "FP8 weights in e5m2"),
            (fp8(json!([0, 128])), "blocks of [0,128]"),
            (fp8(json!([128])), "blocks of [128]"),
            (fp8(json!([128, -1])), "blocks of [128,-1]"),
            (fp8(json!("128")), "blocks of \"128\""),
            (json!({ "quant_method": "compressed-tensors", "format": "pack-quantized" }), "as pack-quantized"),
            (groups(&[]), "without a quantization scheme"),
            (groups(&[rows, whole]), "in several ways"),
            (groups(&[four]), "in several ways"),
            (groups(&[grouped]), "scales by group"),
            (groups(&[without]), "without a scaling strategy"),
        ] {
            let why = read(config).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }
}
