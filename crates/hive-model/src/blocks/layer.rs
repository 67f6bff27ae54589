//! A layer: a mixer, then a network, each with its norms, on one residual.

use std::ops::Range;

use hive_kernels::{AttentionShape, KvSource, LayerWeights, SessionRows};
use hive_weights::config::{AttentionSpec, ExpertsSpec, LayerSpec, Mixer, ModelConfig, NetworkSpec, SCALAR};
use hive_weights::weights::{TensorError, Weights};
use mlx_rs::Array;

use super::ahead::Ahead;
use super::attention::Attention;
use super::beside::Beside;
use super::delta::DeltaNet;
use super::dense::Dense;
use super::experts::Experts;
use super::heads::Heads;
use super::input_gate::InputGate;
use super::latent::Latent;
use super::norm::{Norm, vector};
use crate::adapter::{Place, Target, adapted};
use crate::error::{ComputeError, LoadError};
use crate::kv::{CacheShape, LayerCache};
use crate::linear::{Arithmetic, Linear};
use crate::recurrent::RecurrentShape;
use crate::span::{Batch, Span};

/// Up to this many tokens pass a layer in one call. With more, building seven operations takes negligible time, and the
/// intermediate results of one call would take memory.
pub(crate) const ROWS_AT_ONCE: usize = 8;

/// The norms around half a layer.
struct Around {
    before: Option<Norm>,
    after: Option<Norm>,
}

/// How a token learns of those before it.
enum Mixing {
    Attention(Box<Attention>),
    Latent(Box<Latent>),
    Delta(Box<DeltaNet>),
}

enum Network {
    Dense(Dense),
    Experts(Box<Experts>),
    Both(Box<Beside>),
}

pub(crate) struct Layer {
    mixing: Mixing,
    around_mixing: Around,
    network: Network,
    around_network: Around,
    /// Factor on what each half adds.
    residual: f32,
    /// Lets the token's own input in, and that input's width.
    input: Option<(InputGate, usize)>,
    /// Factor on what comes out.
    scalar: Option<Array>,
    between_bytes: usize,
}

impl Around {
    fn load(
        weights: &Weights,
        prefix: &str,
        names: [Option<&str>; 2],
        config: &ModelConfig,
        arithmetic: Arithmetic,
    ) -> Result<Self, LoadError> {
        let norm = |name: Option<&str>| {
            let load = |name| Norm::load(weights, &format!("{prefix}.{name}"), config.hidden, config, arithmetic);
            name.map(load).transpose()
        };
        let [before, after] = names;
        Ok(Self { before: norm(before)?, after: norm(after)? })
    }

    fn bytes(&self) -> usize {
        self.before.iter().chain(&self.after).map(Norm::bytes).sum()
    }

    fn before(&self, x: &Array) -> Result<Array, ComputeError> {
        self.before.as_ref().map_or_else(|| Ok(x.clone()), |norm| norm.forward(x))
    }

    /// Adds what half a layer has computed to the residual.
    fn added(&self, residual: &Array, computed: Array, factor: f32) -> Result<Array, ComputeError> {
        let computed = match &self.after {
            Some(norm) => norm.forward(&computed)?,
            None => computed,
        };
        if factor == 1.0 {
            return Ok(residual.add(computed)?);
        }
        let factor = Array::from_f32(factor).as_dtype(computed.dtype())?;
        Ok(residual.add(computed.multiply(factor)?)?)
    }

    /// Whether what half a layer computes is added as it is.
    fn adds_plainly(&self, factor: f32) -> bool {
        self.after.is_none() && factor == 1.0
    }
}

impl Mixing {
    fn load(
        weights: &Weights,
        prefix: &str,
        config: &ModelConfig,
        mixer: &Mixer,
        arithmetic: Arithmetic,
    ) -> Result<Self, LoadError> {
        let prefix = format!("{prefix}.{}", mixer.module());
        Ok(match mixer {
            Mixer::Attention(spec) => {
                Self::Attention(Box::new(Attention::load(weights, &prefix, config, spec, arithmetic)?))
            }
            Mixer::Latent(spec) => Self::Latent(Box::new(Latent::load(weights, &prefix, config, spec, arithmetic)?)),
            Mixer::Delta(spec) => Self::Delta(Box::new(DeltaNet::load(weights, &prefix, config, spec, arithmetic)?)),
        })
    }

    fn bytes_of(
        weights: &Weights,
        prefix: &str,
        config: &ModelConfig,
        mixer: &Mixer,
        arithmetic: Arithmetic,
    ) -> Result<u64, TensorError> {
        let prefix = format!("{prefix}.{}", mixer.module());
        match mixer {
            Mixer::Attention(spec) => Attention::bytes_of(weights, &prefix, config, spec, arithmetic),
            Mixer::Latent(spec) => Latent::bytes_of(weights, &prefix, config, spec, arithmetic),
            Mixer::Delta(spec) => DeltaNet::bytes_of(weights, &prefix, config, spec, arithmetic),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Attention(attention) => attention.bytes(),
            Self::Latent(latent) => latent.bytes(),
            Self::Delta(delta) => delta.bytes(),
        }
    }

    fn cache_shape(&self) -> CacheShape {
        match self {
            Self::Attention(attention) => cache_of(*attention.shape()),
            Self::Latent(latent) => cache_of(*latent.shape()),
            Self::Delta(delta) => CacheShape::Recurrent(delta.state_shape()),
        }
    }

    /// `x [n, hidden]`, normalized, to what is projected back. Extends the caches.
    fn mixed(&self, x: &Array, layer: usize, batch: &mut Batch) -> Result<Array, ComputeError> {
        match self {
            Self::Attention(attention) => attention.attended(x, layer, batch),
            Self::Latent(latent) => latent.attended(x, layer, batch),
            Self::Delta(delta) => delta.mixed(x, layer, batch),
        }
    }

    /// The projection back.
    fn output(&self) -> &Linear {
        match self {
            Self::Attention(attention) => &attention.output,
            Self::Latent(latent) => &latent.output,
            Self::Delta(delta) => &delta.output,
        }
    }
}

impl Layer {
    pub(crate) fn load(
        weights: &Weights,
        index: usize,
        config: &ModelConfig,
        spec: &LayerSpec,
        arithmetic: Arithmetic,
    ) -> Result<Self, LoadError> {
        let prefix = format!("model.layers.{index}");
        let [of_mixer, of_network] = spec.norms.names();
        let around = |names| Around::load(weights, &prefix, names, config, arithmetic);
        let network = match &spec.network {
            NetworkSpec::Dense(dense) => {
                Network::Dense(Dense::load(weights, &format!("{prefix}.mlp"), config.hidden, dense, arithmetic)?)
            }
            NetworkSpec::Experts(experts) => {
                Network::Experts(Box::new(Experts::load(weights, &prefix, config, experts, arithmetic)?))
            }
            NetworkSpec::Both(dense, experts) => {
                Network::Both(Box::new(Beside::load(weights, &prefix, config, (dense, experts), arithmetic)?))
            }
        };
        let gate = |width| InputGate::load(weights, &prefix, config, width, arithmetic).map(|gate| (gate, width));
        let scalar = || vector(weights, &format!("{prefix}.{SCALAR}"), 1, arithmetic);
        Ok(Self {
            around_mixing: around(of_mixer)?,
            mixing: Mixing::load(weights, &prefix, config, &spec.mixer, arithmetic)?,
            around_network: around(of_network)?,
            network,
            residual: spec.residual,
            input: spec.layer_input.map(gate).transpose()?,
            scalar: spec.has_scalar.then(scalar).transpose()?,
            between_bytes: between_bytes(config.hidden, spec),
        })
    }

    /// The size of a layer in memory, in bytes.
    pub(crate) fn bytes_of(
        weights: &Weights,
        index: usize,
        config: &ModelConfig,
        spec: &LayerSpec,
        arithmetic: Arithmetic,
    ) -> Result<u64, TensorError> {
        let prefix = format!("model.layers.{index}");
        let hidden = config.hidden;
        let network = match &spec.network {
            NetworkSpec::Dense(dense) => Dense::bytes_of(weights, &format!("{prefix}.mlp"), hidden, dense, arithmetic)?,
            NetworkSpec::Experts(experts) => Experts::bytes_of(weights, &prefix, hidden, experts, arithmetic)?,
            NetworkSpec::Both(dense, experts) => {
                Beside::bytes_of(weights, &prefix, hidden, (dense, experts), arithmetic)?
            }
        };
        let input = match spec.layer_input {
            Some(width) => InputGate::bytes_of(weights, &prefix, hidden, width, arithmetic)?,
            None => 0,
        };
        let scalar = if spec.has_scalar { arithmetic.activation.bytes() as u64 } else { 0 };
        let norms = spec.norms.names().into_iter().flatten().flatten().count() as u64;
        Ok(Mixing::bytes_of(weights, &prefix, config, &spec.mixer, arithmetic)?
            + network
            + input
            + scalar
            + norms * Norm::bytes_of(hidden, arithmetic))
    }

    /// What adapters can change in a layer.
    pub(crate) fn targets(hidden: usize, spec: &LayerSpec) -> Vec<Target> {
        let module = spec.mixer.module();
        let mut targets = match &spec.mixer {
            Mixer::Attention(spec) => Attention::targets(module, hidden, spec),
            Mixer::Latent(spec) => Latent::targets(module, hidden, spec),
            Mixer::Delta(spec) => DeltaNet::targets(module, hidden, spec),
        };
        match &spec.network {
            NetworkSpec::Dense(dense) | NetworkSpec::Both(dense, _) => {
                targets.extend(Dense::targets("mlp", hidden, dense));
            }
            NetworkSpec::Experts(_) => {}
        }
        targets
    }

    /// Those of these bytes that a token does not read.
    pub(crate) fn unread_bytes_of(
        weights: &Weights,
        index: usize,
        config: &ModelConfig,
        spec: &LayerSpec,
        arithmetic: Arithmetic,
    ) -> Result<u64, TensorError> {
        match &spec.network {
            NetworkSpec::Dense(_) => Ok(0),
            NetworkSpec::Experts(experts) | NetworkSpec::Both(_, experts) => {
                let prefix = format!("model.layers.{index}");
                Experts::unread_bytes_of(weights, &prefix, config.hidden, experts, arithmetic)
            }
        }
    }

    /// Its size in memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let network = match &self.network {
            Network::Dense(dense) => dense.bytes(),
            Network::Experts(experts) => experts.bytes(),
            Network::Both(both) => both.bytes(),
        };
        let input = self.input.as_ref().map_or(0, |(gate, _)| gate.bytes());
        let others = network + input + self.scalar.as_ref().map_or(0, Array::nbytes);
        self.around_mixing.bytes() + self.mixing.bytes() + self.around_network.bytes() + others
    }

    /// What it keeps for a session.
    pub(crate) fn cache_shape(&self) -> CacheShape {
        self.mixing.cache_shape()
    }

    /// The width of a token's own input to it, 0 if it has none.
    pub(crate) fn input_width(&self) -> usize {
        self.input.as_ref().map_or(0, |(_, width)| *width)
    }

    /// The size of its intermediate results, per token, in bytes.
    pub(crate) fn between_bytes(&self) -> usize {
        self.between_bytes
    }

    /// The layer for the kernel that computes it in one call, if that kernel supports it and the formats of its
    /// matrices.
    fn whole(&self) -> Option<(LayerWeights<'_>, &AttentionShape)> {
        let Self { mixing, around_mixing, network, around_network, residual, input: None, scalar: None, .. } = self
        else {
            return None;
        };
        let (Mixing::Attention(attention), Network::Dense(network)) = (mixing, network) else { return None };
        let ((qkv, heads, output), (gate_up, down)) = (attention.packed()?, network.packed()?);
        let in_lanes =
            [qkv, output, gate_up, down].iter().all(|matrix| matrix.rows().is_multiple_of(hive_kernels::LANES));
        let is_plain = around_mixing.adds_plainly(*residual) && around_network.adds_plainly(*residual);
        let (attention_norm, mlp_norm) = (around_mixing.before.as_ref()?, around_network.before.as_ref()?);
        let weights = LayerWeights {
            attention_norm: &attention_norm.weight,
            qkv,
            heads,
            output,
            mlp_norm: &mlp_norm.weight,
            gate_up,
            down,
            eps: attention_norm.eps,
        };
        (is_plain && in_lanes).then_some((weights, attention.shape()))
    }

    /// `x [n, hidden]`, and the tokens' own inputs to this layer, if it has some. Extends the caches at `layer`.
    pub(crate) fn forward(
        &self,
        x: &Array,
        input: Option<&Array>,
        layer: usize,
        batch: &mut Batch,
        ahead: &mut Ahead,
    ) -> Result<Array, ComputeError> {
        let adapter = batch.adapter;
        if adapter.is_none()
            && x.dim(0) as usize <= ROWS_AT_ONCE
            && let Some((whole, shape)) = self.whole()
            && let Some(mut sessions) = rows_at_once(shape, layer, batch.spans)?
        {
            return Ok(hive_kernels::layer(x, &whole, shape, &mut sessions)?);
        }
        let around = &self.around_mixing;
        let mixed = self.mixing.mixed(&around.before(x)?, layer, batch)?;
        let x = if adapter.is_none() && around.adds_plainly(self.residual) {
            self.mixing.output().forward_onto(x, &mixed)?
        } else {
            let output = adapted(adapter, Place::Output, self.mixing.output().forward(&mixed)?, &mixed)?;
            around.added(x, output, self.residual)?
        };
        ahead.built_half(&x)?;
        let around = &self.around_network;
        let normed = around.before(&x)?;
        let x = match &self.network {
            Network::Dense(dense) if adapter.is_none() && around.adds_plainly(self.residual) => {
                dense.forward_onto(&x, &normed)?
            }
            Network::Dense(dense) => around.added(&x, dense.forward(&normed, adapter)?, self.residual)?,
            Network::Experts(experts) => around.added(&x, experts.forward(&normed)?, self.residual)?,
            Network::Both(both) => around.added(&x, both.forward(&x, &normed, adapter)?, self.residual)?,
        };
        let x = match (&self.input, input) {
            (Some((gate, _)), Some(input)) => gate.forward(&x, input)?,
            _ => x,
        };
        let x = match &self.scalar {
            Some(scalar) => x.multiply(scalar)?,
            None => x,
        };
        ahead.built_half(&x)?;
        Ok(x)
    }
}

/// The size of a layer's intermediate results, per token, in single precision, in bytes.
pub(crate) fn between_bytes(hidden: usize, spec: &LayerSpec) -> usize {
    let mixed = match &spec.mixer {
        Mixer::Attention(AttentionSpec { heads, kv_heads, head_dim, .. }) => 2 * (heads + kv_heads) * head_dim,
        Mixer::Latent(spec) => spec.heads * (3 * (spec.latent + spec.rotated) + spec.unrotated + spec.value_dim),
        Mixer::Delta(spec) => 2 * (spec.channels() + spec.values()),
    };
    let of_experts = |experts: &ExpertsSpec| {
        let ExpertsSpec { per_token, intermediate, shared, .. } = experts;
        // What goes in and comes out is there once for each expert as well.
        per_token * (intermediate + 2 * hidden / 3) + shared.map_or(0, |shared| shared.intermediate)
    };
    let inside = match &spec.network {
        NetworkSpec::Dense(dense) => dense.intermediate,
        NetworkSpec::Experts(experts) => of_experts(experts),
        NetworkSpec::Both(dense, experts) => dense.intermediate + of_experts(experts),
    };
    (4 * hidden + mixed + 3 * inside) * size_of::<f32>()
}

/// What such a layer keeps for a session.
pub(crate) fn cache_shape(spec: &LayerSpec) -> CacheShape {
    match &spec.mixer {
        Mixer::Attention(spec) => cache_of(Heads::shape(spec)),
        Mixer::Latent(spec) => cache_of(Latent::shape_of(spec)),
        Mixer::Delta(spec) => CacheShape::Recurrent(RecurrentShape::of(spec)),
    }
}

/// What such attention keeps for a session.
fn cache_of(shape: AttentionShape) -> CacheShape {
    if shape.source == KvSource::Cached { CacheShape::Nothing } else { CacheShape::Attention(shape) }
}

/// The sessions' parts of a batch for the one-call kernel, with room reserved in their caches.
fn rows_at_once<'a>(
    shape: &AttentionShape,
    layer: usize,
    spans: &'a mut [Span],
) -> Result<Option<Vec<SessionRows<'a>>>, ComputeError> {
    let mut sessions = Vec::with_capacity(spans.len());
    for Span { rows, offset, caches } in spans {
        let Range { start, end } = *rows;
        let LayerCache::Fast(cache) = &mut caches[layer] else { return Ok(None) };
        cache.reserve(shape, *offset + (end - start))?;
        sessions.push(SessionRows { cache, offset: *offset, tokens: end - start });
    }
    Ok(Some(sessions))
}
