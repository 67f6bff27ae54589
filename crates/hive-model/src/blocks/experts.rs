//! Experts: many gated networks, of which a router picks a few for each token.
//!
//! On the fast kernels, a row's result is the sum over its experts in the order of their numbers, whatever else is in
//! the batch.

use hive_kernels::ExpertWeights;
use hive_weights::config::{
    Activation, DenseSpec, ExpertsSpec, ModelConfig, Order, ROUTER_FACTORS, Router, SHARED_GATE, SharedSpec,
};
use hive_weights::weights::{FileMatrix, TensorError, Weights};
use mlx_rs::ops::indexing::IndexOp;
use mlx_rs::{Array, Dtype, ops};

use super::dense::{Dense, Gate};
use super::norm::{Norm, vector};
use crate::embedding::scaled;
use crate::error::{ComputeError, LoadError};
use crate::linear::{Arithmetic, Linear, evaluated};

/// From this many pairs of token and expert on, tokens are sorted by expert, so that each expert's weights are read
/// once.
const SORTED_PAIRS: usize = 64;

pub(super) struct Experts {
    router: Linear,
    /// Where the router has a norm of its own: that, and a factor on each expert's share.
    normed: Option<(Norm, Array)>,
    /// Of the scores, by expert; decides only which experts are picked.
    correction: Option<Array>,
    /// Of all experts: gate and up of the first, then of the second, and so on; or all gates, and all ups, if they are
    /// stored in different formats.
    gate_up: Vec<Linear>,
    down: Linear,
    gate: Gate,
    shared: Option<Shared>,
    spec: ExpertsSpec,
}

/// A network beside the experts.
struct Shared {
    network: Dense,
    /// Each token's share of it, before the sigmoid.
    gate: Option<Linear>,
}

impl Shared {
    fn bytes(&self) -> usize {
        self.network.bytes() + self.gate.as_ref().map_or(0, Linear::bytes)
    }

    fn forward(&self, x: &Array) -> Result<Array, ComputeError> {
        let y = self.network.forward(x, None)?;
        match &self.gate {
            Some(gate) => Ok(ops::sigmoid(gate.forward(x)?)?.multiply(y)?),
            None => Ok(y),
        }
    }
}

struct Matrices<'a> {
    router: FileMatrix<'a>,
    gate_up: Vec<Vec<FileMatrix<'a>>>,
    down: Vec<FileMatrix<'a>>,
}

fn matrices<'a>(
    weights: &'a Weights,
    layer: &str,
    hidden: usize,
    spec: &ExpertsSpec,
) -> Result<Matrices<'a>, TensorError> {
    let ExpertsSpec { count, intermediate, .. } = *spec;
    let prefix = format!("{layer}.{}", spec.module);
    let all = |part: usize, rows: usize, columns: usize| -> Result<Vec<FileMatrix<'a>>, TensorError> {
        let joined = format!("{prefix}.{}.{}", spec.stacked, ["gate_proj", "up_proj", "down_proj"][part]);
        if weights.contains(&format!("{joined}.weight")) {
            return weights.stacked_matrices(&joined, count, rows, columns);
        }
        let name = spec.parts()[part];
        let one = |expert| weights.file_matrix(&format!("{prefix}.experts.{expert}.{name}"), rows, columns);
        (0..count).map(one).collect()
    };
    let (gates, ups) = (all(0, intermediate, hidden)?, all(1, intermediate, hidden)?);
    let together = |(gate, up): (&FileMatrix<'a>, &FileMatrix<'a>)| gate.format() == up.format();
    let gate_up = if gates.iter().zip(&ups).all(together) {
        vec![gates.into_iter().zip(ups).flat_map(|(gate, up)| [gate, up]).collect()]
    } else {
        vec![gates, ups]
    };
    Ok(Matrices {
        router: weights.file_matrix(
            &format!("{layer}.{}.{}", spec.router_module(), spec.router_name),
            count,
            hidden,
        )?,
        gate_up,
        down: all(2, hidden, intermediate)?,
    })
}

/// The arithmetic of all experts' matrices: what the fast kernel cannot compute is as a whole on MLX's.
fn stacked(matrices: &Matrices<'_>, spec: &ExpertsSpec, hidden: usize, arithmetic: Arithmetic) -> Arithmetic {
    let parts = || matrices.gate_up.iter().chain([&matrices.down]);
    let suits = matrices.gate_up.len() == 1
        && [spec.intermediate, hidden].iter().all(|width| width.is_multiple_of(hive_kernels::LANES))
        && parts().all(|part| Linear::can_be_packed(part));
    Arithmetic { fast: arithmetic.fast && suits, ..arithmetic }
}

/// The size of all experts in memory, in bytes.
fn stacked_bytes(matrices: &Matrices<'_>, spec: &ExpertsSpec, hidden: usize, arithmetic: Arithmetic) -> u64 {
    let arithmetic = stacked(matrices, spec, hidden, arithmetic);
    matrices.gate_up.iter().chain([&matrices.down]).map(|part| Linear::bytes_of(part, arithmetic)).sum()
}

/// The names of the norm and of the factors of a router that has them.
fn router_factors(layer: &str, spec: &ExpertsSpec) -> Option<[String; 2]> {
    let name = |part| format!("{layer}.{}.{part}", spec.router_module());
    (spec.router == Router::Normed).then(|| ROUTER_FACTORS.map(name))
}

/// The network beside the experts in a file: the name of its matrices, what it is, and the matrix of tokens' shares of it.
fn shared<'a>(
    weights: &'a Weights,
    layer: &str,
    hidden: usize,
    spec: &ExpertsSpec,
) -> Result<Option<(String, DenseSpec, Option<FileMatrix<'a>>)>, TensorError> {
    let Some(SharedSpec { name, intermediate, is_gated }) = spec.shared else { return Ok(None) };
    let prefix = format!("{layer}.{}", spec.module);
    let gate = || weights.file_matrix(&format!("{prefix}.{SHARED_GATE}"), 1, hidden);
    let network = DenseSpec { intermediate, activation: spec.activation, is_joined: false };
    Ok(Some((format!("{prefix}.{name}"), network, is_gated.then(gate).transpose()?)))
}

impl Experts {
    /// Loads those of this layer, by its name.
    pub(super) fn load(
        weights: &Weights,
        layer: &str,
        config: &ModelConfig,
        spec: &ExpertsSpec,
        arithmetic: Arithmetic,
    ) -> Result<Self, LoadError> {
        let hidden = config.hidden;
        let matrices = matrices(weights, layer, hidden, spec)?;
        let of_experts = stacked(&matrices, spec, hidden, arithmetic);
        let stack = |part: &Vec<FileMatrix<'_>>| Linear::load_stacked(part, spec.count, of_experts);
        let correction = format!("{layer}.{}.{}.e_score_correction_bias", spec.module, spec.router_name);
        let normed = match router_factors(layer, spec) {
            Some([scale, of_experts]) => {
                let weight = scaled(vector(weights, &scale, hidden, arithmetic)?, (hidden as f32).powf(-0.5))?;
                let weight = evaluated(&weight, weight.dtype()).map_err(ComputeError::from)?;
                let norm = Norm { weight, eps: config.rms_eps, fast: arithmetic.fast };
                Some((norm, vector(weights, &of_experts, spec.count, arithmetic)?))
            }
            None => None,
        };
        let shared = match shared(weights, layer, hidden, spec)? {
            Some((prefix, spec, gate)) => Some(Shared {
                network: Dense::load(weights, &prefix, hidden, &spec, arithmetic)?,
                gate: gate.map(|gate| Linear::load(&[gate], arithmetic)).transpose()?,
            }),
            None => None,
        };
        Ok(Self {
            gate_up: matrices.gate_up.iter().map(stack).collect::<Result<_, _>>()?,
            down: stack(&matrices.down)?,
            router: Linear::load(&[matrices.router], arithmetic)?,
            correction: if spec.router.is_corrected() {
                Some(vector(weights, &correction, spec.count, arithmetic)?)
            } else {
                None
            },
            normed,
            gate: Gate::new(spec.activation, spec.intermediate, arithmetic),
            shared,
            spec: spec.clone(),
        })
    }

    /// The size of such experts in memory, in bytes.
    pub(super) fn bytes_of(
        weights: &Weights,
        layer: &str,
        hidden: usize,
        spec: &ExpertsSpec,
        arithmetic: Arithmetic,
    ) -> Result<u64, TensorError> {
        let matrices = matrices(weights, layer, hidden, spec)?;
        let factors = if spec.router == Router::Normed { hidden + spec.count } else { 0 };
        let correction = if spec.router.is_corrected() { spec.count * arithmetic.activation.bytes() } else { 0 };
        let shared = match shared(weights, layer, hidden, spec)? {
            Some((prefix, spec, gate)) => {
                let gate = gate.map_or(0, |gate| Linear::bytes_of(&[gate], arithmetic));
                Dense::bytes_of(weights, &prefix, hidden, &spec, arithmetic)? + gate
            }
            None => 0,
        };
        Ok(stacked_bytes(&matrices, spec, hidden, arithmetic)
            + Linear::bytes_of(&[matrices.router], arithmetic)
            + (correction + factors * arithmetic.activation.bytes()) as u64
            + shared)
    }

    /// Those of these bytes that a token does not read: the experts that it does not pick.
    pub(super) fn unread_bytes_of(
        weights: &Weights,
        layer: &str,
        hidden: usize,
        spec: &ExpertsSpec,
        arithmetic: Arithmetic,
    ) -> Result<u64, TensorError> {
        let bytes = stacked_bytes(&matrices(weights, layer, hidden, spec)?, spec, hidden, arithmetic);
        Ok(bytes / spec.count as u64 * (spec.count - spec.per_token) as u64)
    }

    /// Its size in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let correction = self.correction.as_ref().map_or(0, Array::nbytes);
        let shared = self.shared.as_ref().map_or(0, Shared::bytes);
        let gate_up: usize = self.gate_up.iter().map(Linear::bytes).sum();
        let normed = self.normed.as_ref().map_or(0, |(norm, factors)| norm.bytes() + factors.nbytes());
        self.router.bytes() + normed + correction + gate_up + self.down.bytes() + shared
    }

    /// `[n, hidden] -> [n, hidden]`.
    pub(super) fn forward(&self, x: &Array) -> Result<Array, ComputeError> {
        self.forward_routed(x, x)
    }

    /// The same, where the router reads something else than the experts.
    pub(super) fn forward_routed(&self, x: &Array, read: &Array) -> Result<Array, ComputeError> {
        let scores = match &self.normed {
            Some((norm, _)) => self.router.forward(&norm.forward(read)?)?,
            None => self.router.forward(read)?,
        };
        let (picked, shares) = self.route(&scores)?;
        let y = match self.packed() {
            Some(weights) => {
                let shares = shares.as_dtype(Dtype::Float32)?.contiguous()?;
                hive_kernels::experts(x, &picked.contiguous()?, &shares, &weights)?
            }
            None => self.gathered(x, &picked, &shares)?,
        };
        match &self.shared {
            Some(shared) => Ok(y.add(shared.forward(x)?)?),
            None => Ok(y),
        }
    }

    /// The experts for the fast kernel, if it supports them.
    fn packed(&self) -> Option<ExpertWeights<'_>> {
        let [gate_up] = self.gate_up.as_slice() else { return None };
        let activation = match self.spec.activation {
            Activation::Silu => hive_kernels::Activation::Silu,
            Activation::Gelu => hive_kernels::Activation::Gelu,
            Activation::Clamped { limit } => hive_kernels::Activation::Clamped(limit),
        };
        let (gate_up, down) = (gate_up.packed_with_bias()?, self.down.packed_with_bias()?);
        Some(ExpertWeights { count: self.spec.count, gate_up, down, activation })
    }

    /// The experts of each row, `[n, per_token]`, and their shares, from scores `[n, count]`.
    fn route(&self, scores: &Array) -> Result<(Array, Array), ComputeError> {
        let per_token = self.spec.per_token as i32;
        let best = |scores: &Array, order: Order| -> Result<Array, ComputeError> {
            Ok(match order {
                Order::Ascending => ops::argpartition_axis(scores, -per_token, -1)?.index((.., -per_token..)),
                Order::Descending => {
                    ops::argpartition_axis(scores.negative()?, per_token - 1, -1)?.index((.., ..per_token))
                }
            })
        };
        match self.spec.router {
            Router::Softmax { normalized, order } => {
                let all = ops::softmax_axis(scores, -1, true)?;
                let picked = best(&all, order)?;
                let shares = all.take_along_axis(&picked, -1)?;
                Ok((picked, if normalized { divided_by_sum(&shares)? } else { shares }))
            }
            Router::Normed => {
                let picked = best(scores, Order::Ascending)?;
                let shares = ops::softmax_axis(scores.take_along_axis(&picked, -1)?, -1, false)?;
                match &self.normed {
                    Some((_, factors)) => {
                        let shares = shares.multiply(factors.take_axis(&picked, 0)?)?;
                        Ok((picked, shares))
                    }
                    None => Ok((picked, shares)),
                }
            }
            Router::Sigmoid { normalized, scale, groups, picked_groups } => {
                let all = ops::sigmoid(scores.as_dtype(Dtype::Float32)?)?;
                let mut order = all.clone();
                if let Some(correction) = &self.correction {
                    order = order.add(correction)?;
                }
                if groups > picked_groups {
                    order = in_groups(&order, groups as i32, picked_groups as i32)?;
                }
                let picked = best(&order, Order::Descending)?;
                let shares = all.take_along_axis(&picked, -1)?;
                let shares = if normalized && per_token > 1 { divided_by_sum(&shares)? } else { shares };
                Ok((picked, shares.multiply(Array::from_f32(scale))?))
            }
        }
    }

    /// The picked experts on MLX's kernels.
    fn gathered(&self, x: &Array, picked: &Array, shares: &Array) -> Result<Array, ComputeError> {
        let (n, hidden, per_token) = (x.dim(0), x.dim(1), picked.dim(1));
        let sorts = picked.size() >= SORTED_PAIRS;
        let (rows, experts, back) = if sorts {
            let flat = picked.flatten(None, None)?;
            let order = ops::argsort_axis(&flat, -1)?;
            let back = ops::argsort_axis(&order, -1)?;
            let tokens = order.floor_divide(Array::from_slice(&[per_token as u32], &[1]))?;
            let rows = x.take_axis(&tokens, 0)?.reshape(&[n * per_token, 1, hidden])?;
            (rows, flat.take_axis(&order, 0)?, Some(back))
        } else {
            (x.reshape(&[n, 1, 1, hidden])?, picked.clone(), None)
        };
        let parts =
            self.gate_up.iter().map(|part| part.gather(&rows, &experts, sorts)).collect::<Result<Vec<_>, _>>()?;
        let gate_up = if let [one] = parts.as_slice() { one.clone() } else { ops::concatenate(&parts, -1)? };
        let y = self.down.gather(&self.gate.forward(&gate_up)?, &experts, sorts)?;
        let y = match back {
            Some(back) => y.take_axis(&back, 0)?,
            None => y,
        };
        let y = y.reshape(&[n, per_token, hidden])?;
        let shares = shares.as_dtype(y.dtype())?.reshape(&[n, per_token, 1])?;
        Ok(y.multiply(shares)?.sum_axis(1, false)?)
    }
}

fn divided_by_sum(shares: &Array) -> Result<Array, ComputeError> {
    Ok(shares.divide(shares.sum_axis(-1, true)?)?)
}

/// Sets the scores outside each row's best groups to zero; a group is as good as its two best experts.
fn in_groups(scores: &Array, groups: i32, picked: i32) -> Result<Array, ComputeError> {
    let n = scores.dim(0);
    let grouped = scores.reshape(&[n, groups, -1])?;
    let best = ops::indexing::topk_axis(&grouped, 2.min(grouped.dim(-1)), -1)?.sum_axis(-1, true)?;
    let worst = ops::argpartition_axis(&best, groups - picked - 1, -2)?.index((.., ..groups - picked, ..));
    let zeros = Array::from_f32(0.0).as_dtype(scores.dtype())?;
    Ok(ops::indexing::put_along_axis(&grouped, &worst, zeros, -2)?.reshape(&[n, -1])?)
}
