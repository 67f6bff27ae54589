//! The Llama family: Llama 2 and 3, SmolLM2, Mistral. Read top to bottom: Attention → Mlp → Layer → Stage.
//!
//! Shapes: a batch is all its sessions' tokens in a row, `[tokens, hidden]`; only attention looks at sessions one by
//! one. The same layers run on MLX's kernels (then the operations and their order are those of mlx-lm, and so are the
//! tokens) or on the fast ones.

use std::ops::Range;

use hive_kernels::{AttentionShape, LayerWeights, SessionRows};
use mlx_rs::fast::ScaledDotProductAttentionMask::Causal;
use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, ops};

use crate::config::ModelConfig;
use crate::embedding::Embedding;
use crate::files::ModelFiles;
use crate::hidden::ActivationType;
use crate::kv::{KvLayout, LayerCache, PlainCache};
use crate::linear::{Arithmetic, ComputeError, Linear, Projection, evaluated};
use crate::shard::LoadError;
use crate::weights::{Matrix, Weights};

/// On a CPU, building the operations of a layer takes a tenth as long as computing them; every so many layers the ones
/// built so far begin, so that building goes on beside them.
const LAYERS_AHEAD: usize = 4;

/// Up to so many tokens pass a layer in one call. With more, building seven operations takes no time beside them, and what is in
/// between takes memory.
const ROWS_AT_ONCE: usize = 8;

/// One session's part of a batch.
pub(crate) struct Span<'a> {
    /// Its tokens' rows.
    pub(crate) rows: Range<usize>,
    /// Position of the first, and tokens in the cache before it.
    pub(crate) offset: usize,
    /// One cache per layer of the stage.
    pub(crate) caches: &'a mut [LayerCache],
}

struct Attention {
    qkv: Projection,
    output: Linear,
    shape: AttentionShape,
    theta: f32,
    /// Periods that are not plain powers of theta.
    special_periods: Option<Array>,
    /// All periods, for the fast kernel.
    periods: Array,
}

impl Attention {
    fn load(weights: &Weights, prefix: &str, config: &ModelConfig, arithmetic: Arithmetic) -> Result<Self, LoadError> {
        let ModelConfig { hidden, heads, kv_heads, head_dim, .. } = *config;
        let part = |name: &str, heads: usize| -> Result<(Matrix, Option<Vec<f32>>), LoadError> {
            let name = format!("{prefix}.self_attn.{name}");
            let rows = heads * head_dim;
            Ok((weights.matrix(&name, rows, hidden)?, bias(weights, &name, rows)?))
        };
        let output = format!("{prefix}.self_attn.o_proj");
        let array = |periods: &[f32]| Array::from_slice(periods, &[periods.len() as i32]);
        let special = config.rope.periods(head_dim);
        Ok(Self {
            qkv: Projection::new(
                vec![part("q_proj", heads)?, part("k_proj", kv_heads)?, part("v_proj", kv_heads)?],
                arithmetic,
            )?,
            output: Linear::new(
                &[weights.matrix(&output, hidden, heads * head_dim)?],
                bias(weights, &output, hidden)?,
                arithmetic,
            )?,
            shape: AttentionShape {
                heads,
                kv_heads,
                head_dim,
                scale: (head_dim as f32).powf(-0.5),
                rope_scale: config.rope.position_scale(),
            },
            theta: config.rope.theta,
            special_periods: special.as_deref().map(array),
            periods: array(&special.unwrap_or_else(|| config.rope.plain_periods(head_dim))),
        })
    }

    fn forward(&self, residual: &Array, x: &Array, layer: usize, spans: &mut [Span]) -> Result<Array, ComputeError> {
        let qkv = self.qkv.forward(x)?;
        let mut outputs = Vec::with_capacity(spans.len());
        let alone = spans.len() == 1;
        for span in spans {
            let rows = if alone { qkv.clone() } else { qkv.index((span.rows.start as i32..span.rows.end as i32, ..)) };
            outputs.push(match &mut span.caches[layer] {
                LayerCache::Fast(buffers) => {
                    buffers.reserve(&self.shape, span.offset + span.rows.len())?;
                    hive_kernels::attention(&rows, buffers, &self.periods, &self.shape, span.offset)?
                }
                LayerCache::Plain(cache) => self.attend(&rows, span.offset, cache)?,
            });
        }
        let attended = if alone { outputs.remove(0) } else { ops::concatenate(&outputs, 0)? };
        self.output.forward_onto(residual, &attended)
    }

    /// Attention of one session on MLX's kernels, `[n, (heads + 2 kv_heads) head_dim] -> [n, heads head_dim]`.
    fn attend(&self, qkv: &Array, offset: usize, cache: &mut PlainCache) -> Result<Array, ComputeError> {
        let AttentionShape { heads, kv_heads, head_dim, scale, rope_scale } = self.shape;
        let n = qkv.dim(0);
        // Heads before tokens: [1, heads, n, head_dim].
        let split = |from: usize, count: usize| -> Result<Array, ComputeError> {
            let part = qkv.index((.., (from * head_dim) as i32..((from + count) * head_dim) as i32));
            Ok(part.reshape(&[1, n, count as i32, head_dim as i32])?.transpose_axes(&[0, 2, 1, 3])?)
        };
        let rope = |x: Array| {
            let base = self.special_periods.is_none().then_some(self.theta);
            mlx_rs::fast::rope(x, head_dim as i32, false, base, rope_scale, offset as i32, &self.special_periods)
        };
        let queries = rope(split(0, heads)?)?;
        let keys = rope(split(heads, kv_heads)?)?;
        let values = split(heads + kv_heads, kv_heads)?;
        let (keys, values) = cache.update(&keys, &values, offset)?;
        let mask = (n > 1).then_some(Causal);
        let attended = mlx_rs::fast::scaled_dot_product_attention(queries, keys, values, scale, mask, None)?;
        Ok(attended.transpose_axes(&[0, 2, 1, 3])?.reshape(&[n, (heads * head_dim) as i32])?)
    }
}

struct Mlp {
    gate_up: Projection,
    down: Linear,
    intermediate: usize,
    fast: bool,
}

impl Mlp {
    fn load(weights: &Weights, prefix: &str, config: &ModelConfig, arithmetic: Arithmetic) -> Result<Self, LoadError> {
        let ModelConfig { hidden, intermediate, .. } = *config;
        let part = |name: &str, rows: usize, columns: usize| -> Result<(Matrix, Option<Vec<f32>>), LoadError> {
            let name = format!("{prefix}.mlp.{name}");
            Ok((weights.matrix(&name, rows, columns)?, bias(weights, &name, rows)?))
        };
        let (down, down_bias) = part("down_proj", hidden, intermediate)?;
        Ok(Self {
            gate_up: Projection::new(
                vec![part("gate_proj", intermediate, hidden)?, part("up_proj", intermediate, hidden)?],
                arithmetic,
            )?,
            down: Linear::new(&[down], down_bias, arithmetic)?,
            intermediate,
            fast: arithmetic.fast && intermediate.is_multiple_of(hive_kernels::LANES),
        })
    }

    fn forward(&self, residual: &Array, x: &Array) -> Result<Array, ComputeError> {
        let gate_up = self.gate_up.forward(x)?;
        let activated = if self.fast {
            hive_kernels::swiglu(&gate_up)?
        } else {
            let gate = gate_up.index((.., ..self.intermediate as i32));
            let up = gate_up.index((.., self.intermediate as i32..));
            gate.multiply(ops::sigmoid(&gate)?)?.multiply(up)?
        };
        self.down.forward_onto(residual, &activated)
    }
}

struct Norm {
    weight: Array,
    eps: f32,
    fast: bool,
}

impl Norm {
    fn load(weights: &Weights, name: &str, config: &ModelConfig, arithmetic: Arithmetic) -> Result<Self, LoadError> {
        let tensor = weights.vector(&format!("{name}.weight"), config.hidden)?;
        let dtype = ActivationType::from(tensor.float).mlx();
        let weight = hive_kernels::array_from_bytes(&tensor.bytes, &[config.hidden as i32], dtype)
            .map_err(ComputeError::from)?;
        let weight = evaluated(&weight, arithmetic.activation.mlx()).map_err(ComputeError::from)?;
        Ok(Self { weight, eps: config.rms_eps, fast: arithmetic.fast })
    }

    fn forward(&self, x: &Array) -> Result<Array, ComputeError> {
        if self.fast {
            return Ok(hive_kernels::rms_norm(x, &self.weight, self.eps)?);
        }
        Ok(mlx_rs::fast::rms_norm(x, Some(&self.weight), self.eps)?)
    }
}

struct Layer {
    attention_norm: Norm,
    attention: Attention,
    mlp_norm: Norm,
    mlp: Mlp,
}

impl Layer {
    fn load(weights: &Weights, index: usize, config: &ModelConfig, arithmetic: Arithmetic) -> Result<Self, LoadError> {
        let prefix = format!("model.layers.{index}");
        Ok(Self {
            attention_norm: Norm::load(weights, &format!("{prefix}.input_layernorm"), config, arithmetic)?,
            attention: Attention::load(weights, &prefix, config, arithmetic)?,
            mlp_norm: Norm::load(weights, &format!("{prefix}.post_attention_layernorm"), config, arithmetic)?,
            mlp: Mlp::load(weights, &prefix, config, arithmetic)?,
        })
    }

    /// The layer for the kernel that computes all of it at once, where its matrices are in that kernel's formats.
    fn whole(&self) -> Option<LayerWeights<'_>> {
        let Self { attention_norm, attention, mlp_norm, mlp } = self;
        let matrices = (attention.qkv.packed()?, attention.output.packed()?, mlp.gate_up.packed()?, mlp.down.packed()?);
        let all = [matrices.0, matrices.1, matrices.2, matrices.3];
        let in_lanes = all.iter().all(|matrix| matrix.rows().is_multiple_of(hive_kernels::LANES));
        let (qkv, output, gate_up, down) = matrices;
        (mlp.fast && in_lanes).then_some(LayerWeights {
            attention_norm: &attention_norm.weight,
            qkv,
            periods: &attention.periods,
            output,
            mlp_norm: &mlp_norm.weight,
            gate_up,
            down,
            eps: attention_norm.eps,
        })
    }

    fn forward(&self, x: &Array, layer: usize, spans: &mut [Span]) -> Result<Array, ComputeError> {
        if x.dim(0) as usize <= ROWS_AT_ONCE
            && let Some(whole) = self.whole()
            && let Some(sessions) = rows_at_once(&self.attention.shape, layer, spans)?
        {
            return Ok(hive_kernels::layer(x, &whole, &self.attention.shape, &sessions)?);
        }
        let x = self.attention.forward(x, &self.attention_norm.forward(x)?, layer, spans)?;
        self.mlp.forward(&x, &self.mlp_norm.forward(&x)?)
    }
}

/// The sessions' parts of a batch for that kernel, with room made in their caches.
fn rows_at_once<'a>(
    shape: &AttentionShape,
    layer: usize,
    spans: &'a mut [Span],
) -> Result<Option<Vec<SessionRows<'a>>>, ComputeError> {
    let mut sessions = Vec::with_capacity(spans.len());
    for Span { rows, offset, caches } in spans {
        let LayerCache::Fast(cache) = &mut caches[layer] else { return Ok(None) };
        cache.reserve(shape, *offset + rows.len())?;
        sessions.push(SessionRows { cache, offset: *offset, tokens: rows.len() });
    }
    Ok(Some(sessions))
}

struct Head {
    norm: Norm,
    output: Linear,
}

/// A contiguous range of layers; the first stage also embeds, the last also norms and projects.
pub(crate) struct Stage {
    embedding: Option<Embedding>,
    layers: Vec<Layer>,
    head: Option<Head>,
    arithmetic: Arithmetic,
    shape: AttentionShape,
}

impl Stage {
    /// Loads the layers; `progress` hears how many of them are done.
    pub(crate) fn load(
        files: &ModelFiles,
        range: Range<usize>,
        arithmetic: Arithmetic,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self, LoadError> {
        let (config, weights) = (files.config(), files.weights());
        let table = || weights.matrix("model.embed_tokens", config.vocabulary, config.hidden);
        let mut layers = Vec::with_capacity(range.len());
        for index in range.clone() {
            layers.push(Layer::load(weights, index, config, arithmetic)?);
            progress(layers.len());
        }
        let head = if range.end == config.layers {
            let matrix = if config.tied_embeddings {
                table()?
            } else {
                weights.matrix("lm_head", config.vocabulary, config.hidden)?
            };
            let norm = Norm::load(weights, "model.norm", config, arithmetic)?;
            Some(Head { norm, output: Linear::new(&[matrix], None, arithmetic)? })
        } else {
            None
        };
        let embedding = if range.start == 0 { Some(Embedding::new(table()?)) } else { None };
        let shape = layers.first().map(|layer| layer.attention.shape).ok_or(LoadError::EmptyRange)?;
        Ok(Self { embedding, layers, head, arithmetic, shape })
    }

    /// Empty caches for a new session.
    pub(crate) fn caches(&self) -> Result<Vec<LayerCache>, ComputeError> {
        let one = || {
            if self.arithmetic.fast {
                LayerCache::fast(&self.shape)
            } else {
                LayerCache::plain(&self.shape, self.arithmetic.activation.mlx())
            }
        };
        self.layers.iter().map(|_| one()).collect()
    }

    /// How caches lie in memory here.
    pub(crate) fn kv_layout(&self) -> KvLayout {
        if self.arithmetic.fast { KvLayout::Fast } else { KvLayout::Plain(self.arithmetic.activation) }
    }

    /// Caches of so many positions that were exported from a stage of the same layers.
    pub(crate) fn imported_caches(
        &self,
        positions: usize,
        layers: &[Vec<u8>],
    ) -> Result<Vec<LayerCache>, ComputeError> {
        if layers.len() != self.layers.len() {
            return Err(ComputeError::Mlx(format!("caches of {} layers, not of {}", layers.len(), self.layers.len())));
        }
        layers.iter().map(|bytes| LayerCache::import(&self.shape, self.kv_layout(), positions, bytes)).collect()
    }

    /// Whether the stage begins with tokens.
    pub(crate) fn embeds(&self) -> bool {
        self.embedding.is_some()
    }

    /// Whether the stage ends with logits.
    pub(crate) fn samples(&self) -> bool {
        self.head.is_some()
    }

    pub(crate) fn embed(&self, tokens: &[u32]) -> Result<Array, ComputeError> {
        match &self.embedding {
            Some(embedding) => embedding.forward(tokens, self.arithmetic),
            None => Err(ComputeError::Mlx("tokens came to a stage that does not embed".to_owned())),
        }
    }

    /// `[tokens, hidden] -> [tokens, hidden]`, caches extended.
    pub(crate) fn forward(&self, mut x: Array, spans: &mut [Span]) -> Result<Array, ComputeError> {
        let builds = self.arithmetic.fast && x.dim(0) as usize > ROWS_AT_ONCE;
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, index, spans)?;
            if builds && index % LAYERS_AHEAD == 0 {
                mlx_rs::transforms::async_eval([&x])?;
            }
        }
        Ok(x)
    }

    /// Logits of the rows given, single precision: `[rows, vocabulary]`.
    pub(crate) fn logits(&self, x: &Array, rows: &[usize]) -> Result<Array, ComputeError> {
        let Some(head) = &self.head else {
            return Err(ComputeError::Mlx("logits asked of a stage that does not sample".to_owned()));
        };
        if rows.len() <= ROWS_AT_ONCE
            && let Head { norm: Norm { weight, eps, fast: true }, output } = head
            && let Some(matrix) = output.packed()
            && matrix.rows().is_multiple_of(hive_kernels::LANES)
        {
            return Ok(hive_kernels::head(x, rows, weight, *eps, matrix)?);
        }
        let picked: Vec<Array> = rows.iter().map(|&row| x.index((row as i32..row as i32 + 1, ..))).collect();
        let picked = if let [one] = picked.as_slice() { one.clone() } else { ops::concatenate(&picked, 0)? };
        Ok(head.output.forward(&head.norm.forward(&picked)?)?.as_dtype(mlx_rs::Dtype::Float32)?)
    }
}

fn bias(weights: &Weights, name: &str, rows: usize) -> Result<Option<Vec<f32>>, LoadError> {
    let name = format!("{name}.bias");
    Ok(if weights.contains(&name) { Some(weights.vector(&name, rows)?.to_f32()) } else { None })
}
