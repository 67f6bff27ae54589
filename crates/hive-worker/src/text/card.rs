//! A model's figures: all that a node knows of one without reading its files.

use std::borrow::Cow;

use hive_model::{ActivationType, Compute, Footprint};
use hive_weights::ModelFiles;
use hive_weights::weights::{AtLoad, TensorError};
use serde::{Deserialize, Serialize};

use super::TextError;

/// Above any model's number of layers.
const MAX_LAYERS: usize = 10_000;
/// Above any model's number of end tokens.
const MAX_END_TOKENS: usize = 1_000;
/// Above any vocabulary or context; sums stay far below `u64::MAX`.
const MAX_TOKENS: usize = 1 << 30;
/// Above any model's size: 1 PiB.
const MAX_BYTES: u64 = 1 << 50;

/// A model's figures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCard {
    /// Memory with the fast kernels, on a CPU.
    pub packed: Footprint,
    /// Memory with MLX's kernels, on a GPU.
    pub mlx: Footprint,
    /// The same two for a model that is quantized as it is loaded, in each way that differs.
    pub at_load: Vec<(AtLoad, [Footprint; 2])>,
    /// Bytes of a token's hidden states between two stages, at most.
    pub hidden_bytes: u64,
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Maximum context in tokens.
    pub max_context: usize,
    /// Tokens that end an answer.
    pub end_tokens: Vec<u32>,
    /// Identifies the model: two machines with the same model have the same digest.
    pub digest: String,
}

impl ModelCard {
    /// Computes it from a model's files.
    pub(super) fn of(files: &ModelFiles) -> Result<Self, TensorError> {
        let config = files.config();
        let activation = ActivationType::from(files.natural_activation()?);
        let footprints =
            |files: &ModelFiles| Ok([Footprint::of(files, Compute::Fast)?, Footprint::of(files, Compute::Plain)?]);
        let stored = footprints(files)?;
        let mut at_load = Vec::new();
        for choice in AtLoad::all().filter(|_| files.has_plain_matrices()) {
            // Only headers are read.
            match ModelFiles::open_for(files.path(), Some(choice)) {
                Ok(files) => at_load.push((choice, footprints(&files)?)),
                Err(error) => tracing::warn!("the model cannot be quantized as it is loaded: {error}"),
            }
        }
        let [packed, mlx] = stored;
        Ok(Self {
            packed,
            mlx,
            at_load,
            hidden_bytes: (config.boundary_width() * activation.bytes()) as u64,
            vocabulary: config.vocabulary,
            max_context: config.max_context,
            end_tokens: files.end_tokens(),
            digest: files.digest()?,
        })
    }

    /// The card, unless a figure is implausible.
    pub(super) fn checked(self: Box<Self>) -> Result<Box<Self>, TextError> {
        let layers = self.layers();
        let is_sane = |footprint: &Footprint| {
            let Footprint {
                layer_bytes,
                unread_bytes,
                embedding_bytes,
                head_bytes,
                states,
                work_bytes_per_token,
                uncut,
            } = footprint;
            let states_bytes = states.iter().flat_map(|state| [&state.per_token, &state.fixed]);
            let others = [embedding_bytes, head_bytes, work_bytes_per_token, &self.hidden_bytes];
            layer_bytes.len() == layers
                && unread_bytes.len() <= layers
                && states.len() == layers
                && uncut.len() <= layers
                && uncut.iter().all(|boundary| *boundary < layers)
                && unread_bytes.iter().zip(layer_bytes).all(|(unread, all)| unread <= all)
                && layer_bytes.iter().chain(states_bytes).chain(others).all(|bytes| *bytes <= MAX_BYTES)
        };
        let sane = (1..=MAX_LAYERS).contains(&layers)
            && self.end_tokens.len() <= MAX_END_TOKENS
            && self.vocabulary <= MAX_TOKENS
            && self.max_context <= MAX_TOKENS
            && is_sane(&self.packed)
            && is_sane(&self.mlx)
            && self.at_load.len() <= AtLoad::BITS.len()
            && self.at_load.iter().flat_map(|(_, footprints)| footprints).all(is_sane)
            && self.digest.len() <= 64
            && self.digest.chars().all(|digit| digit.is_ascii_hexdigit());
        if sane { Ok(self) } else { Err(TextError::nonsense()) }
    }

    /// The figures of a model that is quantized as it is loaded. One that is quantized already keeps its own.
    #[must_use]
    pub fn quantized(&self, at_load: Option<AtLoad>) -> Cow<'_, Self> {
        let chosen = |choice| self.at_load.iter().find(|(known, _)| *known == choice);
        match at_load.and_then(chosen) {
            Some((_, [packed, mlx])) => Cow::Owned(Self { packed: packed.clone(), mlx: mlx.clone(), ..self.clone() }),
            None => Cow::Borrowed(self),
        }
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.packed.layer_bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hive_model::StateBytes;

    fn footprint() -> Footprint {
        Footprint {
            layer_bytes: vec![10, 20, 30],
            embedding_bytes: 5,
            head_bytes: 7,
            states: vec![StateBytes { per_token: 4, fixed: 8 }; 3],
            ..Footprint::default()
        }
    }

    fn card() -> ModelCard {
        ModelCard { packed: footprint(), mlx: footprint(), vocabulary: 9, ..Default::default() }
    }

    #[test]
    fn numbers_out_of_all_proportion_are_refused() {
        assert!(Box::new(card()).checked().is_ok());
        let wrong = [
            ModelCard { packed: Footprint::default(), mlx: Footprint::default(), ..card() },
            ModelCard { mlx: Footprint { layer_bytes: vec![1; 4], ..footprint() }, ..card() },
            ModelCard { packed: Footprint { layer_bytes: vec![u64::MAX; 3], ..footprint() }, ..card() },
            ModelCard { mlx: Footprint { head_bytes: u64::MAX, ..footprint() }, ..card() },
            ModelCard { mlx: Footprint { states: Vec::new(), ..footprint() }, ..card() },
            ModelCard {
                mlx: Footprint { states: vec![StateBytes { per_token: 0, fixed: u64::MAX }; 3], ..footprint() },
                ..card()
            },
            ModelCard { vocabulary: usize::MAX, ..card() },
            ModelCard { end_tokens: vec![0; 5000], ..card() },
            ModelCard { digest: "../../x".to_owned(), ..card() },
        ];
        for card in wrong {
            assert!(Box::new(card.clone()).checked().is_err(), "{card:?}");
        }
    }
}
