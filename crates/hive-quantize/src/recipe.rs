//! Which tensors are quantized, and in how many bits.

use hive_weights::{MlxTensor, Role};

/// The bits per weight that MLX has.
pub const BITS: [usize; 6] = [2, 3, 4, 5, 6, 8];
/// The columns per scale that MLX has.
pub const GROUPS: [usize; 3] = [32, 64, 128];

/// How mlx-lm keeps what is sensitive.
const SENSITIVE: Quantization = Quantization { bits: 8, group: 64 };

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// Bits per weight, one of [`BITS`].
    pub bits: usize,
    /// Columns per scale, one of [`GROUPS`].
    pub group: usize,
    /// More bits for embeddings, the output and the layers that matter most.
    pub mixed: bool,
}

/// How a matrix is quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quantization {
    pub(crate) bits: usize,
    pub(crate) group: usize,
}

impl Recipe {
    pub(crate) fn default_quantization(&self) -> Quantization {
        Quantization { bits: self.bits, group: self.group }
    }

    /// How a tensor of a model with this many layers is quantized; `None` if it stays as it is.
    pub(crate) fn of(&self, tensor: &MlxTensor<'_>, layers: usize) -> Option<Quantization> {
        let chosen = match tensor.role {
            Role::Vector { .. } | Role::Kept => return None,
            Role::Sensitive => SENSITIVE,
            Role::Embedding | Role::Head if self.mixed => self.better(),
            Role::Linear if self.mixed && deserves_more(&tensor.name, layers) => self.better(),
            Role::Linear | Role::Embedding | Role::Head => self.default_quantization(),
        };
        let columns = *tensor.shape.last()?;
        // mlx-lm asks this of the default's groups only, and fails at a router that lacks the others.
        (columns.is_multiple_of(chosen.group) && columns.is_multiple_of(self.group)).then_some(chosen)
    }

    /// What has more bits in a mixture.
    fn better(&self) -> Quantization {
        Quantization { bits: if self.bits < 6 { 6 } else { 8 }, group: self.group }
    }
}

/// Whether mlx-lm's mixtures give a matrix more bits: values and down projections in the first and the last eighth of
/// the layers, and in every third between, as llama.cpp's `Q4_K_M` does.
fn deserves_more(name: &str, layers: usize) -> bool {
    let mut parts = name.split('.');
    let layer = parts.find(|part| *part == "layers").and_then(|_| parts.next()?.parse::<usize>().ok());
    let Some(layer) = layer else { return false };
    let eighth = layers / 8;
    // Python's remainder, which is never negative.
    let is_third = (layer as i64 - eighth as i64).rem_euclid(3) == 2;
    let is_chosen = layer < eighth || layer >= 7 * layers / 8 || is_third;
    is_chosen && ["v_proj", "v_a_proj", "v_b_proj", "down_proj"].iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mixture_favours_the_ends_and_every_third_layer() {
        let name = |layer: usize| format!("language_model.model.layers.{layer}.mlp.switch_mlp.down_proj");
        let chosen: Vec<usize> = (0..32).filter(|layer| deserves_more(&name(*layer), 32)).collect();
        // mixed_quant_predicate of mlx-lm 0.32.2, for 32 layers.
        assert_eq!(chosen, [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]);
        assert!(deserves_more("model.layers.0.self_attn.v_proj", 32));
        for other in ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj", "model.embed_tokens"] {
            assert!(!deserves_more(other, 32), "{other}");
        }
        let few: Vec<usize> = (0..3).filter(|layer| deserves_more(&name(*layer), 3)).collect();
        assert_eq!(few, [2]);
    }
}
