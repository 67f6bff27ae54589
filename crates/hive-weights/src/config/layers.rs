//! What layers are made of, as values: a family says what, `blocks/` compute it.
//!
//! A layer is two halves on one residual: a mixer, through which a token learns of those before it, and a network. What
//! families vary is a field here, not code of their own, so everything that handles layers (loading, planning, caches,
//! kernels) handles all families.

use super::rope::Rope;

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// The first half.
    pub mixer: Mixer,
    /// The second half.
    pub network: NetworkSpec,
    /// The norms around the halves.
    pub norms: Norms,
    /// Factor on what each half adds to the residual.
    pub residual: f32,
    /// Width of the token's own input to this layer, if it has one: from an embedding beside the model's.
    pub layer_input: Option<usize>,
    /// Whether the file has a factor on what comes out of the layer, `layer_scalar`.
    pub has_scalar: bool,
}

/// How a token learns of those before it.
#[derive(Debug, Clone, PartialEq)]
pub enum Mixer {
    /// By attention to their keys and values.
    Attention(AttentionSpec),
    /// By attention to a narrow row of each, from which all heads have their keys and values.
    Latent(LatentSpec),
    /// From a state that each of them has changed.
    Delta(DeltaSpec),
}

/// Where the norms of a layer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norms {
    /// Before each half.
    Before,
    /// Before and after each half.
    Around,
    /// After each half, before its result is added.
    After,
}

/// Attention: projections to queries, keys and values, and back.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Rotary position embedding, if the layer has positions.
    pub rope: Option<Rope>,
    /// The first dimensions of each head, which are rotated.
    pub rotated: usize,
    /// Norms of queries and keys.
    pub head_norms: HeadNorms,
    /// Where its keys and values come from.
    pub source: KvSource,
    /// How many tokens a token attends to, itself included, if not to all.
    pub window: Option<usize>,
    /// How queries grow with their position, if they do.
    pub query_growth: Option<QueryGrowth>,
    /// Whether each head has a score that takes its share of attention and adds nothing.
    pub has_sinks: bool,
    /// Whether queries, keys and values are one matrix in the file, `qkv_proj`.
    pub is_joined: bool,
    /// Whether `q_proj` has a gate beside each query: what a head attends to is multiplied by its sigmoid.
    pub is_gated: bool,
}

impl AttentionSpec {
    /// Attention of a plain Llama with so many heads of queries and of keys, and a rotation of all dimensions.
    pub(crate) fn plain([heads, kv_heads]: [usize; 2], head_dim: usize, rope: Rope) -> Self {
        Self {
            heads,
            kv_heads,
            head_dim,
            scale: (head_dim as f32).powf(-0.5),
            rope: Some(rope),
            rotated: head_dim,
            head_norms: HeadNorms::None,
            source: KvSource::Projected,
            window: None,
            query_growth: None,
            has_sinks: false,
            is_joined: false,
            is_gated: false,
        }
    }
}

/// Latent attention: DeepSeek-V2 (arXiv 2405.04434).
#[derive(Debug, Clone, PartialEq)]
pub struct LatentSpec {
    /// Query heads.
    pub heads: usize,
    /// Width of the row that is cached for each token, without the rotated dimensions.
    pub latent: usize,
    /// The rotated dimensions of a query and, for all heads, of a key.
    pub rotated: usize,
    /// The other dimensions of a query.
    pub unrotated: usize,
    /// Width of a value.
    pub value_dim: usize,
    /// Width of the row that queries go through, if they do.
    pub query_rank: Option<usize>,
    /// Factor on the scores.
    pub scale: f32,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Epsilon of the norms of the rows.
    pub eps: f32,
}

impl LatentSpec {
    /// The same as attention with one key-value head, once queries are turned into the row's space.
    pub fn as_attention(&self) -> AttentionSpec {
        let plain = AttentionSpec::plain([self.heads, 1], self.rotated + self.latent, self.rope.clone());
        AttentionSpec { scale: self.scale, rotated: self.rotated, ..plain }
    }
}

/// A gated delta net: every value head has a matrix that maps keys to values, and that every token changes a little.
///
/// Yang et al., "Gated Delta Networks" (arXiv 2412.06464). A short convolution over the tokens precedes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaSpec {
    /// Heads of queries and keys.
    pub key_heads: usize,
    /// Heads of values; a multiple.
    pub value_heads: usize,
    /// Width of a query and of a key.
    pub key_dim: usize,
    /// Width of a value.
    pub value_dim: usize,
    /// Tokens that the convolution sees, the latest included.
    pub taps: usize,
    /// Whether the file has its projections in two matrices, sorted by key head: `in_proj_qkvz` and `in_proj_ba`.
    pub is_fused: bool,
}

impl DeltaSpec {
    /// Width of what the convolution sees: queries, keys and values of a token.
    pub fn channels(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.values()
    }

    /// Width of the values of a token.
    pub fn values(&self) -> usize {
        self.value_heads * self.value_dim
    }
}

/// How queries grow with their position p: by `1 + beta ln(1 + floor(p / context))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueryGrowth {
    /// How fast they grow.
    pub beta: f32,
    /// Positions up to which they do not.
    pub context: f32,
}

/// Norms of queries and keys before they are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadNorms {
    /// None.
    None,
    /// Over each head, with the same weights for all heads.
    Each,
    /// Over all heads together.
    All,
}

/// Where the keys and values of attention come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvSource {
    /// From a projection each.
    Projected,
    /// The same, and each value is normalized, without weights.
    NormedValues,
    /// From one projection: what it gives, normalized without weights, is also the value.
    Joint,
    /// They are those of an earlier layer, which has the same heads.
    Layer(usize),
}

/// What follows attention.
#[derive(Debug, Clone, PartialEq)]
pub enum NetworkSpec {
    /// A gated network: `down(activation(gate) * up)`.
    Dense(DenseSpec),
    /// Many of them, of which each token passes a few.
    Experts(ExpertsSpec),
    /// Both side by side, each with norms of its own.
    Both(DenseSpec, ExpertsSpec),
}

/// A gated network.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseSpec {
    /// Width inside.
    pub intermediate: usize,
    /// What gate and up become.
    pub activation: Activation,
    /// Whether gate and up are one matrix in the file, `gate_up_proj`.
    pub is_joined: bool,
}

/// What gate and up become.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `silu(gate) * up`.
    Silu,
    /// `gelu(gate) * up`, by tanh.
    Gelu,
    /// gpt-oss: `gate * sigmoid(1.702 gate) * (up + 1)`, gate and up clamped to this limit.
    Clamped {
        /// The limit.
        limit: f32,
    },
}

/// Networks of which each token passes a few.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertsSpec {
    /// Networks.
    pub count: usize,
    /// How many of them a token passes.
    pub per_token: usize,
    /// Width inside each.
    pub intermediate: usize,
    /// What gate and up become.
    pub activation: Activation,
    /// How scores become shares.
    pub router: Router,
    /// The module's name in a layer.
    pub module: &'static str,
    /// The router's name in the module.
    pub router_name: &'static str,
    /// The name of the matrices of all experts in the module, where each is one tensor.
    pub stacked: &'static str,
    /// A network that every token passes as well.
    pub shared: Option<SharedSpec>,
}

/// A network beside the experts, which every token passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedSpec {
    /// Its name in the module.
    pub name: &'static str,
    /// Width inside.
    pub intermediate: usize,
    /// Whether each token has a share of it, too: the sigmoid of a product with `shared_expert_gate`.
    pub is_gated: bool,
}

/// How scores are sorted to find the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The best are last.
    Ascending,
    /// The best are first.
    Descending,
}

/// How a router's scores become the shares of the experts that it picks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Router {
    /// The best by softmax over all; `normalized`: their shares sum to one.
    Softmax {
        /// Whether the shares sum to one.
        normalized: bool,
        /// How the scores are sorted, which decides between equal ones: as in mlx-lm.
        order: Order,
    },
    /// By sigmoid, picked with a correction that does not count in the shares; in groups.
    Sigmoid {
        /// Whether the shares sum to one before they are scaled.
        normalized: bool,
        /// Factor on the shares.
        scale: f32,
        /// Groups of experts.
        groups: usize,
        /// How many groups a token may pick from.
        picked_groups: usize,
    },
    /// By softmax over the best, times a factor of each expert. The router reads the residual with a norm of its own.
    Normed,
}

/// What is done before the first layer and after the last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ends {
    /// Factor on the embedding.
    pub embedding: f32,
    /// Factor on the logits.
    pub logits: f32,
    /// The logits stay within plus and minus this.
    pub soft_cap: Option<f32>,
    /// Whether the weights of norms are stored as the difference from one.
    pub norms_from_one: bool,
    /// What gives each token an input of its own to every layer, if there is that.
    pub layer_inputs: Option<LayerInputsSpec>,
}

/// An embedding beside the model's, of which each layer has a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerInputsSpec {
    /// Width of a layer's part.
    pub width: usize,
    /// Tokens that it has, at least those of the model.
    pub vocabulary: usize,
}

impl Default for Ends {
    fn default() -> Self {
        Self { embedding: 1.0, logits: 1.0, soft_cap: None, norms_from_one: false, layer_inputs: None }
    }
}

impl Norms {
    /// The names of the norm before and after attention, and before and after the network.
    pub fn names(self) -> [[Option<&'static str>; 2]; 2] {
        match self {
            Self::Before => [[Some("input_layernorm"), None], [Some("post_attention_layernorm"), None]],
            Self::Around => [
                [Some("input_layernorm"), Some("post_attention_layernorm")],
                [Some("pre_feedforward_layernorm"), Some("post_feedforward_layernorm")],
            ],
            Self::After => [[None, Some("post_attention_layernorm")], [None, Some("post_feedforward_layernorm")]],
        }
    }
}

impl Mixer {
    /// Its module's name in a layer: what the names of its tensors begin with.
    pub fn module(&self) -> &'static str {
        match self {
            Self::Attention(_) | Self::Latent(_) => "self_attn",
            Self::Delta(_) => "linear_attn",
        }
    }

    /// Whether it has a matrix of this name.
    fn has_matrix(&self, part: &str) -> bool {
        match self {
            Self::Attention(spec) if spec.is_joined => ["qkv_proj", "o_proj"].contains(&part),
            Self::Attention(spec) => spec.projections().contains(&part) || part == "o_proj",
            Self::Latent(spec) => {
                let queries: &[&str] = if spec.query_rank.is_some() { &["q_a_proj", "q_b_proj"] } else { &["q_proj"] };
                let others = ["kv_a_proj_with_mqa", "kv_b_proj", "embed_q", "unembed_out", "o_proj"];
                queries.contains(&part) || others.contains(&part)
            }
            Self::Delta(spec) => {
                let projections: &[&str] = if spec.is_fused { &FUSED } else { &SEPARATE };
                projections.contains(&part) || part == "out_proj"
            }
        }
    }

    /// Whether it has a vector of this name.
    fn has_vector(&self, part: &str) -> bool {
        match self {
            Self::Attention(spec) => match part {
                "q_norm.weight" => spec.head_norms != HeadNorms::None,
                "k_norm.weight" => spec.head_norms != HeadNorms::None && !matches!(spec.source, KvSource::Layer(_)),
                "sinks" => spec.has_sinks,
                _ => false,
            },
            Self::Latent(spec) => match part {
                "q_a_layernorm.weight" => spec.query_rank.is_some(),
                _ => part == "kv_a_layernorm.weight",
            },
            Self::Delta(_) => ["A_log", "dt_bias", "conv1d.weight", "norm.weight"].contains(&part),
        }
    }
}

impl AttentionSpec {
    /// The projections of queries, keys and values that it has.
    fn projections(&self) -> &'static [&'static str] {
        match self.source {
            KvSource::Projected | KvSource::NormedValues => &PROJECTIONS,
            KvSource::Joint => &PROJECTIONS[..2],
            KvSource::Layer(_) => &PROJECTIONS[..1],
        }
    }
}

impl LayerSpec {
    /// Its attention, if it has that.
    pub fn attention(&self) -> Option<&AttentionSpec> {
        match &self.mixer {
            Mixer::Attention(attention) => Some(attention),
            Mixer::Latent(_) | Mixer::Delta(_) => None,
        }
    }

    /// The name of a tensor within the mixer's module.
    fn of_mixer<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(self.mixer.module())?.strip_prefix('.')
    }

    /// Whether the layer computes with a matrix of this name, which has no `.weight`.
    pub(crate) fn has_matrix(&self, name: &str) -> bool {
        if let Some(part) = self.of_mixer(name) {
            return self.mixer.has_matrix(part);
        }
        if self.layer_input.is_some() && INPUT_GATE.contains(&name) {
            return true;
        }
        let of_dense = |dense: &DenseSpec| name.strip_prefix("mlp.").is_some_and(|part| dense.has_matrix(part));
        match &self.network {
            NetworkSpec::Dense(dense) => of_dense(dense),
            NetworkSpec::Experts(experts) => experts.has_matrix_in_layer(name),
            NetworkSpec::Both(dense, experts) => of_dense(dense) || experts.has_matrix_in_layer(name),
        }
    }

    /// Whether files may have a tensor of this name that the layer does not compute with: keys and values of layers
    /// that attend to those of an earlier one.
    pub(crate) fn ignores(&self, name: &str) -> bool {
        let shares = self.attention().is_some_and(|attention| matches!(attention.source, KvSource::Layer(_)));
        shares
            && self.of_mixer(name).is_some_and(|part| {
                part.split_once('.').is_some_and(|(module, _)| ["k_proj", "v_proj", "k_norm"].contains(&module))
            })
    }

    /// Whether the layer computes with a vector of this name.
    pub(crate) fn has_vector(&self, name: &str) -> bool {
        if let Some(part) = self.of_mixer(name) {
            return self.mixer.has_vector(part);
        }
        if let Some(norm) = name.strip_suffix(".weight") {
            let is_beside = matches!(self.network, NetworkSpec::Both(..)) && NORMS_OF_BOTH.contains(&norm);
            let is_of_input = self.layer_input.is_some() && norm == INPUT_NORM;
            let is_around = self.norms.names().iter().flatten().flatten().any(|name| *name == norm);
            return is_around || is_beside || is_of_input;
        }
        if name == SCALAR {
            return self.has_scalar;
        }
        match &self.network {
            NetworkSpec::Experts(experts) | NetworkSpec::Both(_, experts) if experts.router == Router::Normed => {
                let part = name.strip_prefix(experts.router_module()).and_then(|rest| rest.strip_prefix('.'));
                part.is_some_and(|part| ROUTER_FACTORS.contains(&part))
            }
            NetworkSpec::Experts(experts) if experts.router.is_corrected() => {
                name.strip_prefix(experts.module) == Some(".gate.e_score_correction_bias")
            }
            _ => false,
        }
    }
}

const PROJECTIONS: [&str; 3] = ["q_proj", "k_proj", "v_proj"];
/// The matrices of a delta net's projections: of queries, keys and values; of the output's gate; of how much is written; and of how
/// much is kept.
pub const SEPARATE: [&str; 4] = ["in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"];
/// The same in two matrices: the first two of them, and the last two.
pub const FUSED: [&str; 2] = ["in_proj_qkvz", "in_proj_ba"];
/// The matrix of each token's share of the network beside the experts.
pub const SHARED_GATE: &str = "shared_expert_gate";
/// The matrices that let a token's own input into a layer, and back.
pub const INPUT_GATE: [&str; 2] = ["per_layer_input_gate", "per_layer_projection"];
/// The norm after them.
pub const INPUT_NORM: &str = "post_per_layer_input_norm";
/// Where a network and experts are side by side: the norms after the network, before the experts and after them.
pub const NORMS_OF_BOTH: [&str; 3] =
    ["post_feedforward_layernorm_1", "pre_feedforward_layernorm_2", "post_feedforward_layernorm_2"];
/// The factors of a router that has a norm: of the norm, and of each expert.
pub const ROUTER_FACTORS: [&str; 2] = ["scale", "per_expert_scale"];
/// The factor on what comes out of a layer.
pub const SCALAR: &str = "layer_scalar";
const GATED: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

impl DenseSpec {
    fn has_matrix(&self, part: &str) -> bool {
        if self.is_joined { ["gate_up_proj", "down_proj"].contains(&part) } else { GATED.contains(&part) }
    }
}

impl ExpertsSpec {
    /// The names of one expert's matrices in files that have each expert by itself: gate, up and down.
    pub fn parts(&self) -> [&'static str; 3] {
        if self.module == "block_sparse_moe" { ["w1", "w3", "w2"] } else { GATED }
    }

    /// The name of the router's module in a layer.
    pub fn router_module(&self) -> &'static str {
        if self.router == Router::Normed { "router" } else { self.module }
    }

    /// Whether it has a matrix of this name in a layer.
    fn has_matrix_in_layer(&self, name: &str) -> bool {
        let part_of = |module: &str| name.strip_prefix(module).and_then(|rest| rest.strip_prefix('.'));
        part_of(self.router_module()) == Some(self.router_name)
            || part_of(self.module).is_some_and(|part| self.has_matrix(part))
    }

    fn has_matrix(&self, part: &str) -> bool {
        let of_all = part.strip_prefix(self.stacked).and_then(|rest| rest.strip_prefix('.'));
        if of_all.is_some_and(|part| GATED.contains(&part)) {
            return true;
        }
        if let Some(shared) = self.shared {
            if shared.is_gated && part == SHARED_GATE {
                return true;
            }
            if let Some(part) = part.strip_prefix(shared.name).and_then(|rest| rest.strip_prefix('.')) {
                return GATED.contains(&part);
            }
        }
        let of_expert = part.strip_prefix("experts.").and_then(|rest| rest.split_once('.'));
        of_expert.is_some_and(|(number, part)| {
            number.parse::<usize>().is_ok_and(|expert| expert < self.count && expert.to_string() == number)
                && self.parts().contains(&part)
        })
    }
}

impl Router {
    /// Whether a correction of the scores decides which experts are picked.
    pub fn is_corrected(self) -> bool {
        matches!(self, Self::Sigmoid { .. })
    }
}
