//! A model in numbers: all that a node knows of one without reading its files.

use std::ops::Range;

use hive_model::weights::TensorError;
use hive_model::{ActivationType, ModelFiles};
use serde::{Deserialize, Serialize};

use super::TextError;

/// More layers than any model has.
const MAX_LAYERS: usize = 10_000;
/// More end tokens than any model has.
const MAX_END_TOKENS: usize = 1_000;
/// More tokens than any vocabulary or context has; what is computed with stays far below `u64`.
const MAX_TOKENS: usize = 1 << 30;
/// More bytes than any model has: 1 PiB.
const MAX_BYTES: u64 = 1 << 50;

/// A model in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCard {
    /// Bytes of each layer's tensors, as stored.
    pub layer_bytes: Vec<u64>,
    /// Bytes of the embedding.
    pub embedding_bytes: u64,
    /// Bytes of the output matrix, which may be the embedding.
    pub head_bytes: u64,
    /// Bytes that one layer's cache takes for one token.
    pub kv_bytes_per_token: u64,
    /// Bytes of a token's hidden state.
    pub hidden_bytes: u64,
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Most tokens of a conversation.
    pub max_context: usize,
    /// Tokens that end an answer.
    pub end_tokens: Vec<u32>,
    /// Whether the output matrix is the embedding.
    pub is_tied: bool,
    /// Tells whether two machines have the same model.
    pub digest: String,
}

impl ModelCard {
    /// Reads it off a model's files.
    pub(super) fn of(files: &ModelFiles) -> Result<Self, TensorError> {
        let config = files.config();
        let of_layer = |layer: usize| {
            let prefix = format!("model.layers.{layer}.");
            files.weights().stored_bytes(|name| name.starts_with(&prefix))
        };
        let embedding_bytes = files.weights().stored_bytes(|name| name.starts_with("model.embed_tokens"));
        let untied = files.weights().stored_bytes(|name| name.starts_with("lm_head"));
        let activation = ActivationType::from(files.natural_activation()?);
        Ok(Self {
            layer_bytes: (0..config.layers).map(of_layer).collect(),
            embedding_bytes,
            head_bytes: if config.tied_embeddings { embedding_bytes } else { untied },
            kv_bytes_per_token: config.kv_bytes_per_token(activation.bytes()),
            hidden_bytes: (config.hidden * activation.bytes()) as u64,
            vocabulary: config.vocabulary,
            max_context: config.max_context,
            end_tokens: files.end_tokens(),
            is_tied: config.tied_embeddings,
            digest: files.digest()?,
        })
    }

    /// The card, unless a number in it is out of all proportion.
    pub(super) fn checked(self: Box<Self>) -> Result<Box<Self>, TextError> {
        let bytes = [self.embedding_bytes, self.head_bytes, self.kv_bytes_per_token, self.hidden_bytes];
        let sane = (1..=MAX_LAYERS).contains(&self.layer_bytes.len())
            && self.end_tokens.len() <= MAX_END_TOKENS
            && self.vocabulary <= MAX_TOKENS
            && self.max_context <= MAX_TOKENS
            && self.layer_bytes.iter().chain(&bytes).all(|bytes| *bytes <= MAX_BYTES)
            && self.digest.len() <= 64
            && self.digest.chars().all(|digit| digit.is_ascii_hexdigit());
        if sane { Ok(self) } else { Err(TextError::nonsense()) }
    }

    /// Layers.
    pub fn layers(&self) -> usize {
        self.layer_bytes.len()
    }

    /// Bytes on disk of the layers given; embedding and output belong to the first and the last layer.
    pub fn stored_bytes(&self, layers: Range<usize>) -> u64 {
        let own: u64 = self.layer_bytes.get(layers.clone()).unwrap_or_default().iter().sum();
        let is_last = layers.end == self.layers();
        let embedding = layers.start == 0 || (is_last && self.is_tied);
        let head = is_last && !self.is_tied;
        own + if embedding { self.embedding_bytes } else { 0 } + if head { self.head_bytes } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> ModelCard {
        ModelCard {
            layer_bytes: vec![10, 20, 30],
            embedding_bytes: 5,
            head_bytes: 7,
            vocabulary: 9,
            ..Default::default()
        }
    }

    #[test]
    fn embedding_and_output_belong_to_the_first_and_the_last_layer() {
        let untied = card();
        assert_eq!([0..1, 1..2, 2..3, 0..3].map(|layers| untied.stored_bytes(layers)), [15, 20, 37, 72]);
        let tied = ModelCard { is_tied: true, head_bytes: 5, ..card() };
        assert_eq!([0..1, 1..2, 2..3, 0..3].map(|layers| tied.stored_bytes(layers)), [15, 20, 35, 65]);
        assert_eq!(untied.stored_bytes(7..9), 0);
    }

    #[test]
    fn numbers_out_of_all_proportion_are_refused() {
        assert!(Box::new(card()).checked().is_ok());
        let wrong = [
            ModelCard { layer_bytes: Vec::new(), ..card() },
            ModelCard { layer_bytes: vec![u64::MAX; 3], ..card() },
            ModelCard { vocabulary: usize::MAX, ..card() },
            ModelCard { end_tokens: vec![0; 5000], ..card() },
            ModelCard { digest: "../../x".to_owned(), ..card() },
        ];
        for card in wrong {
            assert!(Box::new(card.clone()).checked().is_err(), "{card:?}");
        }
    }
}
