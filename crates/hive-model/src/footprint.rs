//! What a model will take in memory, known from its headers: planned is what is held, not what the file has.
//!
//! The fast kernels hold matrices as they are stored; MLX wants scales and plain weights in the type it computes in,
//! and both keep their caches in that type. Weights and caches are exact to the byte (the tests load models and count);
//! `work_bytes_per_token` is an estimate.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Bytes of memory that each part of a model takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// Of each layer's weights.
    pub layer_bytes: Vec<u64>,
    /// Of the embedding, which the first stage holds.
    pub embedding_bytes: u64,
    /// Of the output matrix and the norm before it, which the last stage holds; if it is the embedding, in a form of
    /// its own.
    pub head_bytes: u64,
    /// Of one layer's cache, for one token.
    pub kv_bytes_per_token: u64,
    /// Of what is between the operations of a layer while it computes, for one token.
    pub work_bytes_per_token: u64,
}

impl Footprint {
    /// Of the weights of some layers; embedding and output belong to the first and the last one.
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
