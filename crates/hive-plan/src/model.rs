//! What the planner knows of a model: the bytes of each layer, what each keeps of a conversation, and where the model
//! may be cut.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A model's memory requirements.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelProfile {
    /// Bytes of weights of each layer.
    pub layer_bytes: Vec<u64>,
    /// Those of them that a token does not read: the experts that it does not pick. Empty if it reads all.
    pub unread_bytes: Vec<u64>,
    /// Bytes of the embedding, held by the first stage.
    pub embedding_bytes: u64,
    /// Bytes of the output projection, held and read for every token by the last stage.
    pub head_bytes: u64,
    /// The state that each layer keeps of a conversation; as many as there are layers.
    pub states: Vec<StateBytes>,
    /// Where the model may not be cut: `b` stands for the boundary between layers `b - 1` and `b`, which are then on
    /// the same stage. In any order; empty for most models.
    pub uncut: Vec<usize>,
    /// Fixed overhead of a stage in bytes, whatever it holds: its process and its working memory.
    pub base_bytes: u64,
}

/// The state that one layer keeps of a conversation: a KV cache, whole or of a sliding window, a recurrent state, or
/// nothing if it reads another layer's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateBytes {
    /// Bytes per token of a conversation.
    pub per_token: u64,
    /// Tokens from which on it grows no further; `None` if it always does.
    pub most_tokens: Option<u64>,
    /// Bytes per conversation, whatever its length.
    pub fixed: u64,
}

impl StateBytes {
    /// Bytes for this many conversations of `tokens` each.
    pub fn bytes(&self, tokens: u64, conversations: u64) -> u64 {
        let kept_tokens = tokens.min(self.most_tokens.unwrap_or(u64::MAX));
        self.per_token.saturating_mul(kept_tokens).saturating_add(self.fixed).saturating_mul(conversations)
    }
}

impl ModelProfile {
    /// The boundaries at which a stage may begin or end, in order. The first is 0, the last the number of layers.
    pub(crate) fn cuts(&self) -> Vec<usize> {
        let layers = self.layer_bytes.len();
        let mut may_cut = vec![true; layers + 1];
        // A model begins and ends at its ends, whatever is said of them.
        for &boundary in self.uncut.iter().filter(|boundary| (1..layers).contains(*boundary)) {
            may_cut[boundary] = false;
        }
        (0..=layers).filter(|boundary| may_cut[*boundary]).collect()
    }

    /// Bytes of the layers' states for this many conversations of `tokens` each.
    pub(crate) fn state_sums(&self, tokens: u64, conversations: u64) -> Sums {
        assert!(self.states.len() == self.layer_bytes.len(), "each layer needs a state, even an empty one");
        Sums::of(self.states.iter().map(|state| state.bytes(tokens, conversations)))
    }

    /// Bytes of a stage's weights; `layers` are the sums of the layers' weights.
    pub(crate) fn weight_bytes(&self, sums: &Sums, layers: &Range<usize>) -> u64 {
        let embedding_bytes = if layers.start == 0 { self.embedding_bytes } else { 0 };
        let head_bytes = if layers.end == self.layer_bytes.len() { self.head_bytes } else { 0 };
        sums.over(layers).saturating_add(embedding_bytes).saturating_add(head_bytes)
    }
}

/// Bytes of any range of layers, by subtraction: the sum of all layers before each.
pub(crate) struct Sums(Vec<u128>);

impl Sums {
    pub(crate) fn of(layers: impl Iterator<Item = u64>) -> Self {
        // Wide enough for any number of layers: a sum that saturated would make the layers after it seem empty.
        let mut before = vec![0];
        let mut sum = 0;
        for bytes in layers {
            sum += u128::from(bytes);
            before.push(sum);
        }
        Self(before)
    }

    pub(crate) fn over(&self, layers: &Range<usize>) -> u64 {
        u64::try_from(self.0[layers.end] - self.0[layers.start]).unwrap_or(u64::MAX)
    }
}
