//! A model's configuration: what it is made of, read from `config.json` or from GGUF metadata by its family
//! (`families/`).

mod error;
mod layers;
mod rope;

pub use error::ConfigError;
pub use layers::{
    Activation, AttentionSpec, DeltaSpec, DenseSpec, Ends, ExpertsSpec, FUSED, HeadNorms, INPUT_GATE, INPUT_NORM,
    KvSource, LatentSpec, LayerInputsSpec, LayerSpec, Mixer, NORMS_OF_BOTH, NetworkSpec, Norms, Order, QueryGrowth,
    ROUTER_FACTORS, Router, SCALAR, SEPARATE, SHARED_GATE, SharedSpec,
};
pub use rope::{Rope, RopeScaling};

/// Limits that no real model comes near; larger numbers are corrupt and would size allocations.
const MAX_LAYERS: usize = 4096;
const MAX_WIDTH: usize = 1 << 20;
const MAX_EXPERTS: usize = 4096;
const MAX_VOCABULARY: usize = 1 << 24;
/// Of a head. Every layer keeps a factor for each pair of its dimensions, and the widest real ones have 512.
pub(crate) const MAX_HEAD_WIDTH: usize = 4096;
/// Of a head of a recurrent state, and of their number.
const MAX_STATE_WIDTH: usize = 4096;
/// Of the rows and heads of latent attention.
const MAX_LATENT_WIDTH: usize = 1 << 14;

/// The configuration of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The architecture's name in the file.
    pub architecture: String,
    /// Transformer layers.
    pub layers: usize,
    /// What each of them is made of.
    pub specs: Vec<LayerSpec>,
    /// What is done before and after them.
    pub ends: Ends,
    /// Width of the hidden state.
    pub hidden: usize,
    /// Width inside the MLP.
    pub intermediate: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Epsilon under the root of the RMS norm.
    pub rms_eps: f32,
    /// Rotary position embedding.
    pub rope: Rope,
    /// The longest context in tokens that the model was trained for.
    pub max_context: usize,
    /// Whether the output projection is the embedding matrix.
    pub tied_embeddings: bool,
    /// Tokens that end an answer.
    pub end_tokens: Vec<u32>,
    /// Tensors in the files that are not loaded, although they belong to the model.
    pub unused: Unused,
}

/// What a model's files hold beside what is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unused {
    /// Parts that read images or sounds.
    pub senses: bool,
    /// Layers after the last, which predict further tokens.
    pub layers: usize,
}

impl ModelConfig {
    /// Width of the hidden states that go into a layer, with the tokens' own inputs to it and to those after it.
    pub fn width_into(&self, layer: usize) -> usize {
        let later = self.specs.get(layer..).unwrap_or_default();
        self.hidden + later.iter().filter_map(|spec| spec.layer_input).sum::<usize>()
    }

    /// The largest width of the hidden states between two stages.
    pub fn boundary_width(&self) -> usize {
        let uncut = self.uncut();
        let first = (1..self.layers).find(|at| !uncut.contains(at));
        self.width_into(first.unwrap_or(self.layers))
    }

    /// The layers before which the model cannot be cut: it, or one after it, attends to keys and values of one before.
    pub fn uncut(&self) -> Vec<usize> {
        let attends_before = |at: &usize| {
            let later = self.specs[*at..].iter().filter_map(LayerSpec::attention);
            later.map(|attention| attention.source).any(|source| matches!(source, KvSource::Layer(of) if of < *at))
        };
        (1..self.specs.len()).filter(attends_before).collect()
    }

    /// The first layer that attends to everything, which may be none.
    fn unlimited(&self) -> Option<&AttentionSpec> {
        self.specs.iter().filter_map(LayerSpec::attention).find(|attention| attention.window.is_none())
    }

    /// The dimensions of a head whose periods have factors in GGUF.
    pub(crate) fn factored(&self) -> usize {
        self.unlimited().map_or(self.head_dim, |attention| attention.rotated)
    }

    /// Replaces the scaling of every rotation, but for those of layers with a window where others have none.
    pub(crate) fn set_rope_factors(&mut self, scaling: &RopeScaling) {
        let all = self.unlimited().is_none();
        let layers = self.specs.iter_mut().filter_map(|layer| match &mut layer.mixer {
            Mixer::Attention(attention) if !all && attention.window.is_some() => None,
            Mixer::Attention(attention) => attention.rope.as_mut(),
            Mixer::Latent(latent) => Some(&mut latent.rope),
            Mixer::Delta(_) => None,
        });
        for rope in layers.chain([&mut self.rope]) {
            rope.scaling = scaling.clone();
        }
    }

    /// Attention of a plain Llama with these widths, with a rotation of all dimensions.
    pub(crate) fn plain_attention(&self) -> AttentionSpec {
        AttentionSpec::plain([self.heads, self.kv_heads], self.head_dim, self.rope.clone())
    }

    /// A gated network of a plain Llama with these widths.
    pub(crate) fn plain_network(&self) -> DenseSpec {
        DenseSpec { intermediate: self.intermediate, activation: Activation::Silu, is_joined: false }
    }

    /// A layer of a plain Llama with this mixer.
    pub(crate) fn plain_layer(&self, mixer: Mixer) -> LayerSpec {
        let network = NetworkSpec::Dense(self.plain_network());
        LayerSpec { mixer, network, norms: Norms::Before, residual: 1.0, layer_input: None, has_scalar: false }
    }

    /// A layer of a plain Llama with this attention.
    pub(crate) fn attending(&self, attention: AttentionSpec) -> LayerSpec {
        self.plain_layer(Mixer::Attention(attention))
    }

    pub(crate) fn checked(self) -> Result<Self, ConfigError> {
        let value = |key, value: &dyn std::fmt::Display| Err(ConfigError::Value { key, value: value.to_string() });
        if self.layers == 0 || self.layers > MAX_LAYERS {
            return value("the number of layers", &self.layers);
        }
        let widths = [
            ("the hidden size", self.hidden),
            ("the intermediate size", self.intermediate),
            ("the number of heads", self.heads),
            ("the number of key-value heads", self.kv_heads),
            ("the head size", self.head_dim),
            ("the context", self.max_context),
        ];
        for (key, width) in widths {
            if width == 0 || width > MAX_WIDTH * 64 || (key != "the context" && width > MAX_WIDTH) {
                return value(key, &width);
            }
        }
        if self.vocabulary == 0 || self.vocabulary > MAX_VOCABULARY {
            return value("the vocabulary", &self.vocabulary);
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return value("the number of key-value heads", &self.kv_heads);
        }
        if !self.head_dim.is_multiple_of(2) || self.head_dim > MAX_HEAD_WIDTH {
            return value("the head size", &self.head_dim);
        }
        if !(self.rms_eps.is_finite() && self.rms_eps >= 0.0) {
            return value("the norm's epsilon", &self.rms_eps);
        }
        if !(self.rope.theta.is_finite() && self.rope.theta > 0.0) {
            return value("the rotary base", &self.rope.theta);
        }
        if let Some(number) = self.rope.scaling.numbers().into_iter().find(|n| !(n.is_finite() && *n > 0.0)) {
            return value("a number of the rotary scaling", &number);
        }
        for (key, factor) in
            [("the factor on the embedding", self.ends.embedding), ("the factor on the logits", self.ends.logits)]
        {
            if !(factor.is_finite() && factor > 0.0) {
                return value(key, &factor);
            }
        }
        if let Some(cap) = self.ends.soft_cap.filter(|cap| !(cap.is_finite() && *cap > 0.0)) {
            return value("the soft cap of the logits", &cap);
        }
        if let Some(LayerInputsSpec { width, vocabulary }) = self.ends.layer_inputs {
            check_width("the width of a layer's own input", width)?;
            if vocabulary < self.vocabulary || vocabulary > MAX_VOCABULARY {
                return value("the vocabulary of the layers' own inputs", &vocabulary);
            }
        }
        self.specs.iter().try_for_each(LayerSpec::checked)?;
        Ok(self)
    }
}

impl LayerSpec {
    /// Checks what the kernels assume.
    fn checked(&self) -> Result<(), ConfigError> {
        let value = |key, value: &dyn std::fmt::Display| Err(ConfigError::Value { key, value: value.to_string() });
        match &self.mixer {
            Mixer::Attention(attention) if attention.head_dim > MAX_HEAD_WIDTH => {
                return value("the head size", &attention.head_dim);
            }
            Mixer::Attention(attention) => attention.checked()?,
            Mixer::Latent(latent) => latent.checked()?,
            Mixer::Delta(delta) => delta.checked()?,
        }
        if !self.residual.is_finite() {
            return value("the factor on the residual", &self.residual);
        }
        match &self.network {
            NetworkSpec::Dense(dense) => dense.checked(),
            NetworkSpec::Experts(experts) => experts.checked(),
            NetworkSpec::Both(dense, experts) => dense.checked().and_then(|()| experts.checked()),
        }
    }
}

impl DenseSpec {
    fn checked(&self) -> Result<(), ConfigError> {
        check_width("the intermediate size", self.intermediate)
    }
}

impl ExpertsSpec {
    fn checked(&self) -> Result<(), ConfigError> {
        let value = |key, value: &dyn std::fmt::Display| Err(ConfigError::Value { key, value: value.to_string() });
        let Self { count, per_token, intermediate, shared, router, activation, .. } = self;
        if *count == 0 || *count > MAX_EXPERTS {
            return value("the number of experts", count);
        }
        if *per_token == 0 || per_token > count {
            return value("the number of experts per token", per_token);
        }
        if let Activation::Clamped { limit } = activation
            && !(limit.is_finite() && *limit > 0.0)
        {
            return value("the limit of what experts compute", limit);
        }
        if let Router::Sigmoid { groups, picked_groups, scale, .. } = router {
            if !(scale.is_finite() && *scale > 0.0) {
                return value("the factor on the experts' shares", scale);
            }
            if *groups == 0 || !count.is_multiple_of(*groups) {
                return value("the number of groups of experts", groups);
            }
            if *picked_groups == 0 || picked_groups > groups || per_token > &(count / groups * picked_groups) {
                return value("the number of groups of experts per token", picked_groups);
            }
        }
        check_width("the intermediate size of an expert", *intermediate)?;
        let shared = shared.map_or(1, |shared| shared.intermediate);
        check_width("the intermediate size of the shared expert", shared)
    }
}

impl AttentionSpec {
    fn checked(&self) -> Result<(), ConfigError> {
        let value = |key, value: &dyn std::fmt::Display| Err(ConfigError::Value { key, value: value.to_string() });
        let Self { heads, kv_heads, head_dim, scale, rope, rotated, window, .. } = self;
        check_width("the number of heads", *heads)?;
        check_width("the head size", *head_dim)?;
        if *kv_heads == 0 || !heads.is_multiple_of(*kv_heads) {
            return value("the number of key-value heads", kv_heads);
        }
        if !head_dim.is_multiple_of(2) {
            return value("the head size", head_dim);
        }
        if !(scale.is_finite() && *scale > 0.0) {
            return value("the scale of attention", scale);
        }
        if let Some(rope) = rope {
            if !(rope.theta.is_finite() && rope.theta > 0.0) {
                return value("the rotary base", &rope.theta);
            }
            if let RopeScaling::Proportional { share, .. } = &rope.scaling
                && *share > 1.0
            {
                return value("the share of rotated dimensions", share);
            }
            if *rotated == 0 {
                return value("the number of rotated dimensions", rotated);
            }
            if let RopeScaling::Factors(factors) | RopeScaling::LongRope { factors, .. } = &rope.scaling
                && factors.len() != rotated / 2
            {
                return value("the number of factors of the rotation", &factors.len());
            }
        }
        if *rotated > *head_dim || !rotated.is_multiple_of(2) {
            return value("the number of rotated dimensions", rotated);
        }
        if *window == Some(0) {
            return value("the window", &0);
        }
        if let Some(QueryGrowth { beta, context }) = self.query_growth
            && !(beta.is_finite() && context.is_finite() && context > 0.0)
        {
            return value("the growth of queries", &beta);
        }
        Ok(())
    }
}

impl LatentSpec {
    fn checked(&self) -> Result<(), ConfigError> {
        let Self { heads, latent, rotated, unrotated, value_dim, query_rank, .. } = self;
        for (key, width) in [
            ("kv_lora_rank", *latent),
            ("qk_rope_head_dim", *rotated),
            ("qk_nope_head_dim", *unrotated),
            ("v_head_dim", *value_dim),
            ("q_lora_rank", query_rank.unwrap_or(1)),
        ] {
            if width == 0 || width > MAX_LATENT_WIDTH || heads * width > MAX_WIDTH {
                return Err(ConfigError::Value { key, value: width.to_string() });
            }
        }
        if !rotated.is_multiple_of(2) {
            return Err(ConfigError::Value { key: "qk_rope_head_dim", value: rotated.to_string() });
        }
        self.as_attention().checked()
    }
}

impl DeltaSpec {
    fn checked(&self) -> Result<(), ConfigError> {
        let Self { key_heads, value_heads, key_dim, value_dim, taps, is_fused: _ } = *self;
        for (key, width) in [
            ("the number of key heads of linear attention", key_heads),
            ("the number of value heads of linear attention", value_heads),
            ("the size of a key of linear attention", key_dim),
            ("the size of a value of linear attention", value_dim),
            ("the size of the convolution", taps),
        ] {
            if width == 0 || width > MAX_STATE_WIDTH {
                return Err(ConfigError::Value { key, value: width.to_string() });
            }
        }
        if !value_heads.is_multiple_of(key_heads) {
            let value = value_heads.to_string();
            return Err(ConfigError::Value { key: "the number of value heads of linear attention", value });
        }
        Ok(())
    }
}

fn check_width(key: &'static str, width: usize) -> Result<(), ConfigError> {
    if width == 0 || width > MAX_WIDTH {
        return Err(ConfigError::Value { key, value: width.to_string() });
    }
    Ok(())
}
