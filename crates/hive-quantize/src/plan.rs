//! What will be written, from headers alone: every tensor of the new folder with its type, shape and place in a file.

use std::ops::Range;

use hive_weights::weights::{Float, TensorError};
use hive_weights::{MlxTensor, ModelFiles, Role};
use serde_json::{Map, Value as Json, json};

use crate::recipe::{Quantization, Recipe};

/// The largest file of weights, as mlx-lm writes them at most.
pub(crate) const MAX_FILE_BYTES: u64 = 5_000_000_000;

/// A tensor of the model, and what becomes of it.
pub(crate) struct Planned<'a> {
    pub(crate) tensor: MlxTensor<'a>,
    pub(crate) how: Option<Quantization>,
    /// The type of its scales and biases, or of its numbers.
    pub(crate) to: Float,
}

/// A tensor in a file.
pub(crate) struct Piece {
    pub(crate) name: String,
    kind: &'static str,
    shape: Vec<usize>,
    pub(crate) bytes: u64,
}

/// A file of weights.
pub(crate) struct FilePlan {
    pub(crate) name: String,
    /// Which of the planned tensors it holds.
    pub(crate) tensors: Range<usize>,
    /// What comes before the tensors, its length included.
    pub(crate) header: Vec<u8>,
    pub(crate) bytes: u64,
}

/// The whole folder's weights.
pub(crate) struct Plan<'a> {
    pub(crate) tensors: Vec<Planned<'a>>,
    pub(crate) files: Vec<FilePlan>,
}

fn kind(float: Float) -> &'static str {
    match float {
        Float::F32 => "F32",
        Float::F16 => "F16",
        Float::Bf16 => "BF16",
    }
}

impl Planned<'_> {
    /// Its tensors in the file: words, scales and biases, or plain numbers.
    pub(crate) fn pieces(&self) -> Vec<Piece> {
        let MlxTensor { name, role, shape, .. } = &self.tensor;
        let piece = |name: String, kind, shape: Vec<usize>, width: usize| {
            let bytes = shape.iter().fold(width as u64, |bytes, side| bytes.saturating_mul(*side as u64));
            Piece { name, kind, shape, bytes }
        };
        let Some(Quantization { bits, group }) = self.how else {
            let name = if matches!(role, Role::Vector { .. }) { name.clone() } else { format!("{name}.weight") };
            return vec![piece(name, kind(self.to), shape.clone(), self.to.bytes())];
        };
        let (columns, above) = shape.split_last().map_or((0, &[][..]), |(columns, above)| (*columns, above));
        let wide = |columns: usize| [above, &[columns]].concat();
        let affine =
            |part: &str| piece(format!("{name}.{part}"), kind(self.to), wide(columns / group), self.to.bytes());
        vec![piece(format!("{name}.weight"), "U32", wide(columns * bits / 32), 4), affine("scales"), affine("biases")]
    }

    /// The bytes that are read for it, as they are in memory.
    pub(crate) fn source_bytes(&self) -> u64 {
        self.tensor.numbers().saturating_mul(self.tensor.float.bytes() as u64)
    }
}

impl<'a> Plan<'a> {
    /// `to`: the type that `config.json` says the model's numbers have, if it does.
    pub(crate) fn new(
        files: &'a ModelFiles,
        recipe: &Recipe,
        to: Option<Float>,
        max_file_bytes: u64,
    ) -> Result<Self, TensorError> {
        let layers = files.config().layers;
        let planned = |tensor: MlxTensor<'a>| {
            let keeps_type = matches!(tensor.role, Role::Vector { keeps_type: true, .. });
            let to = to.filter(|_| !keeps_type).unwrap_or(tensor.float);
            Planned { how: recipe.of(&tensor, layers), to, tensor }
        };
        let tensors: Vec<_> = files.in_mlx_form()?.into_iter().map(planned).collect();
        let files = in_files(&tensors, max_file_bytes);
        Ok(Self { tensors, files })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes + file.header.len() as u64).sum()
    }

    /// Whether anything becomes smaller.
    pub(crate) fn is_worth_it(&self) -> bool {
        self.tensors.iter().any(|tensor| tensor.how.is_some())
    }

    /// Those that are quantized otherwise than the rest, as `config.json` lists them.
    pub(crate) fn exceptions(&self, recipe: &Recipe) -> Map<String, Json> {
        let differs = |tensor: &&Planned<'_>| {
            let is_sensitive = tensor.tensor.role == Role::Sensitive;
            tensor.how.is_some_and(|how| is_sensitive || how != recipe.default_quantization())
        };
        let entry = |tensor: &Planned<'_>| {
            let how = tensor.how?;
            Some((tensor.tensor.name.clone(), json!({ "group_size": how.group, "bits": how.bits })))
        };
        self.tensors.iter().filter(differs).filter_map(entry).collect()
    }

    /// `model.safetensors.index.json`.
    pub(crate) fn index(&self) -> Json {
        let mut map: Vec<(String, &str)> = Vec::new();
        for file in &self.files {
            let pieces = self.tensors[file.tensors.clone()].iter().flat_map(Planned::pieces);
            map.extend(pieces.map(|piece| (piece.name, file.name.as_str())));
        }
        map.sort();
        let map: Map<String, Json> = map.into_iter().map(|(name, file)| (name, file.into())).collect();
        let total: u64 = self.files.iter().map(|file| file.bytes).sum();
        let parameters: u64 = self.tensors.iter().map(|tensor| tensor.tensor.numbers()).sum();
        json!({ "metadata": { "total_size": total, "total_parameters": parameters }, "weight_map": map })
    }
}

/// Divides the tensors among files, in their order. One that is larger than a file may be has one of its own.
fn in_files(tensors: &[Planned<'_>], max_file_bytes: u64) -> Vec<FilePlan> {
    let mut ranges: Vec<(Range<usize>, u64)> = Vec::new();
    for (at, tensor) in tensors.iter().enumerate() {
        let bytes: u64 = tensor.pieces().iter().map(|piece| piece.bytes).sum();
        match ranges.last_mut() {
            Some((range, sum)) if *sum + bytes <= max_file_bytes => {
                range.end = at + 1;
                *sum += bytes;
            }
            _ => ranges.push((at..at + 1, bytes)),
        }
    }
    let count = ranges.len();
    let file = |(number, (range, bytes)): (usize, (Range<usize>, u64))| FilePlan {
        name: match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        },
        header: header(&tensors[range.clone()]),
        tensors: range,
        bytes,
    };
    ranges.into_iter().enumerate().map(file).collect()
}

/// The beginning of a safetensors file: the header's length and the header, which ends at a multiple of eight bytes.
fn header(tensors: &[Planned<'_>]) -> Vec<u8> {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({ "format": "mlx" }));
    let mut start = 0;
    for Piece { name, kind, shape, bytes } in tensors.iter().flat_map(Planned::pieces) {
        entries.insert(name, json!({ "dtype": kind, "shape": shape, "data_offsets": [start, start + bytes] }));
        start += bytes;
    }
    let mut text = Json::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text].concat()
}
