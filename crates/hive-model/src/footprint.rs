//! A model's memory footprint, computed from its headers: the size that it will have in memory, not on disk.
//!
//! The fast kernels hold matrices as stored, or with the next wider number of bits that they have. MLX converts scales
//! and plain weights to the type in which it computes, requantizes what it has no kernel for, and both keep their caches
//! in that type. Weights and caches are exact to the byte (the tests load models and compare); `work_bytes_per_token` is
//! an estimate.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The memory of each part of a model, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// The weights of each layer.
    pub layer_bytes: Vec<u64>,
    /// Those of them that a token does not read: the experts that it does not pick.
    pub unread_bytes: Vec<u64>,
    /// The embedding, on the first stage.
    pub embedding_bytes: u64,
    /// The output matrix and the norm before it, on the last stage. If the output matrix is the embedding, it takes a
    /// form of its own.
    pub head_bytes: u64,
    /// What each layer keeps for a session.
    pub states: Vec<StateBytes>,
    /// The layers before which the model cannot be cut.
    #[serde(default)]
    pub uncut: Vec<usize>,
    /// The intermediate results of one layer, per token.
    pub work_bytes_per_token: u64,
}

/// What a layer keeps for a session, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateBytes {
    /// For each of its tokens.
    pub per_token: u64,
    /// However many tokens it has, at most.
    pub fixed: u64,
}

impl Footprint {
    /// The weights of these layers; the embedding belongs to the first layer, the output to the last.
    pub fn weight_bytes(&self, layers: Range<usize>) -> u64 {
        let own = self.layer_bytes.get(layers.clone()).unwrap_or_default();
        let embedding = if layers.start == 0 { self.embedding_bytes } else { 0 };
        let head = if layers.end == self.layer_bytes.len() { self.head_bytes } else { 0 };
        own.iter().chain([&embedding, &head]).fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedding_and_output_belong_to_the_first_and_the_last_layer() {
        let footprint =
            Footprint { layer_bytes: vec![10, 20, 30], embedding_bytes: 5, head_bytes: 7, ..Footprint::default() };
        assert_eq!([0..1, 1..2, 2..3, 0..3].map(|layers| footprint.weight_bytes(layers)), [15, 20, 37, 72]);
        assert_eq!(footprint.weight_bytes(7..9), 0);
    }
}
