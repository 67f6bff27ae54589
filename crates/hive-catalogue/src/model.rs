//! An entry of the catalogue, and the memory it needs.

use hive_types::{CatalogueModel, CatalogueVariant};

/// The tasks that a model may be good at.
pub(crate) const GOOD_AT: [&str; 7] =
    ["chat", "code", "reasoning", "tools", "languages", "long documents", "small machines"];

/// A model, in all its quantizations.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogueEntry {
    /// Its name, for people.
    pub name: String,
    /// Its family: the `model_type` of its configuration.
    pub family: String,
    /// Its parameters.
    pub parameters: u64,
    /// Parameters that a token uses, if not all of them.
    pub active_parameters: Option<u64>,
    /// Its layers.
    pub layers: usize,
    /// Numbers in a hidden state.
    pub hidden: u64,
    /// Tokens of its vocabulary.
    pub vocabulary: u64,
    /// Whether the output matrix is the embedding.
    pub tied_embeddings: bool,
    /// Keys and values of a token in all layers, of 16 bits each, in bytes.
    pub kv_bytes_per_token: u64,
    /// Recurrent states of a conversation, in bytes.
    pub state_bytes: u64,
    /// The longest conversation that it was made for, in tokens.
    pub context: u64,
    /// Its licence: an SPDX identifier, or its own name.
    pub licence: String,
    /// The tasks it is good at.
    pub good_at: Vec<String>,
    /// Whether it was trained to call tools.
    pub tools: bool,
    /// Whether it can think before it answers.
    pub thinking: bool,
    /// Its quantizations, at least one.
    pub variants: Vec<Variant>,
}

/// A quantization of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// The repository, `owner/name`.
    pub repository: String,
    /// Which of several GGUF files in it.
    pub file: Option<String>,
    /// The commit, if it is known for certain.
    pub revision: Option<String>,
    /// The quantization, for people.
    pub quantization: String,
    /// Bits per weight, on average.
    pub bits_per_weight: f64,
    /// Size of its files, in bytes.
    pub bytes: u64,
    /// Whether that is an estimate.
    pub approximate: bool,
}

/// The memory that a model needs, in bytes: an estimate that assumes all layers alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Its layers.
    pub layers: usize,
    /// Weights of a layer.
    pub layer_bytes: u64,
    /// Those of them that a token does not read.
    pub unread_bytes: u64,
    /// The embedding, held by the first machine.
    pub embedding_bytes: u64,
    /// The output matrix, held by the last machine.
    pub head_bytes: u64,
    /// Keys and values of a token in a layer, of 16 bits each.
    pub kv_bytes_per_token: u64,
    /// Recurrent states of a conversation in a layer.
    pub state_bytes: u64,
    /// Numbers in a hidden state.
    pub hidden: u64,
}

impl CatalogueEntry {
    /// The memory that a quantization needs. The embedding and the output matrix are split off, and a tied one counts
    /// twice,
    /// since both ends of the model hold it.
    pub fn needs(&self, variant: &Variant) -> Needs {
        let layers = (self.layers as u64).max(1);
        let end_parameters = self.vocabulary.saturating_mul(self.hidden);
        // Capped, so that wrong numbers in an entry leave something for its layers.
        let end_bytes = ((end_parameters as f64 * variant.bits_per_weight / 8.0) as u64).min(variant.bytes / 3);
        let ends = if self.tied_embeddings { 1 } else { 2 };
        let layer_bytes = variant.bytes.saturating_sub(ends * end_bytes) / layers;
        let unread_share = self.active_parameters.map_or(0.0, |active| {
            let at_ends = end_parameters.saturating_mul(ends);
            let in_layers = self.parameters.saturating_sub(at_ends).max(1) as f64;
            1.0 - (active.saturating_sub(at_ends) as f64 / in_layers).clamp(0.02, 1.0)
        });
        Needs {
            layers: self.layers,
            layer_bytes,
            unread_bytes: (layer_bytes as f64 * unread_share) as u64,
            embedding_bytes: end_bytes,
            head_bytes: end_bytes,
            kv_bytes_per_token: self.kv_bytes_per_token.div_ceil(layers),
            state_bytes: self.state_bytes.div_ceil(layers),
            hidden: self.hidden,
        }
    }

    /// The entry for people and programs; its fit on machines is added later.
    pub fn view(&self) -> CatalogueModel {
        let Self { name, family, parameters, active_parameters, context, licence, good_at, tools, thinking, .. } = self;
        CatalogueModel {
            name: name.clone(),
            family: family.clone(),
            parameters: *parameters,
            active_parameters: *active_parameters,
            context: *context,
            licence: licence.clone(),
            good_at: good_at.clone(),
            tools: *tools,
            thinking: *thinking,
            images: false,
            variants: self.variants.iter().map(Variant::view).collect(),
        }
    }
}

impl Variant {
    /// The name by which it is fetched and loaded: `owner/name`, with the file or the commit where there is one.
    pub fn model(&self) -> String {
        let Self { repository, file, revision, .. } = self;
        let revision = revision.as_ref().map(|revision| format!("@{revision}")).unwrap_or_default();
        let file = file.as_ref().map(|file| format!(":{file}")).unwrap_or_default();
        format!("{repository}{revision}{file}")
    }

    fn view(&self) -> CatalogueVariant {
        CatalogueVariant {
            model: self.model(),
            quantization: self.quantization.clone(),
            bits_per_weight: self.bits_per_weight,
            bytes: self.bytes,
            approximate: self.approximate,
            ..CatalogueVariant::default()
        }
    }
}
