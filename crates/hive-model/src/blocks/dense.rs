//! A gated network: `down(activation(gate) * up)`.

use hive_kernels::PackedMatrix;
use hive_weights::config::{Activation, DenseSpec};
use hive_weights::weights::{FileMatrix, TensorError, Weights};
use mlx_rs::{Array, ops};

use crate::adapter::{LayerAdapter, Place, Target, adapted};
use crate::device::is_gpu;
use crate::error::{ComputeError, LoadError};
use crate::linear::{Arithmetic, Linear, Projection};

pub(super) struct Dense {
    gate_up: Projection,
    down: Linear,
    gate: Gate,
}

/// The projections: gate and up; and down.
fn matrices<'a>(
    weights: &'a Weights,
    prefix: &str,
    hidden: usize,
    spec: &DenseSpec,
) -> Result<(Vec<FileMatrix<'a>>, FileMatrix<'a>), TensorError> {
    let DenseSpec { intermediate, is_joined, .. } = *spec;
    let part =
        |name: &str, rows: usize, columns: usize| weights.file_matrix(&format!("{prefix}.{name}"), rows, columns);
    let gate_up = gate_up(intermediate, is_joined);
    let gate_up = gate_up.iter().map(|(name, rows)| part(name, *rows, hidden)).collect::<Result<_, _>>()?;
    Ok((gate_up, part("down_proj", hidden, intermediate)?))
}

/// Gate and up, with their rows.
fn gate_up(intermediate: usize, is_joined: bool) -> Vec<(&'static str, usize)> {
    if is_joined {
        return vec![("gate_up_proj", 2 * intermediate)];
    }
    vec![("gate_proj", intermediate), ("up_proj", intermediate)]
}

impl Dense {
    pub(super) fn load(
        weights: &Weights,
        prefix: &str,
        hidden: usize,
        spec: &DenseSpec,
        arithmetic: Arithmetic,
    ) -> Result<Self, LoadError> {
        let (gate_up, down) = matrices(weights, prefix, hidden, spec)?;
        Ok(Self {
            gate_up: Projection::load(&gate_up, arithmetic)?,
            down: Linear::load(&[down], arithmetic)?,
            gate: Gate::new(spec.activation, spec.intermediate, arithmetic),
        })
    }

    /// The size of such a network in memory, in bytes.
    pub(super) fn bytes_of(
        weights: &Weights,
        prefix: &str,
        hidden: usize,
        spec: &DenseSpec,
        arithmetic: Arithmetic,
    ) -> Result<u64, TensorError> {
        let (gate_up, down) = matrices(weights, prefix, hidden, spec)?;
        Ok(Projection::bytes_of(&gate_up, arithmetic) + Linear::bytes_of(&[down], arithmetic))
    }

    /// Its size in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.gate_up.bytes() + self.down.bytes()
    }

    /// Its matrices for the kernel that computes a layer in one call, if that kernel supports them.
    pub(super) fn packed(&self) -> Option<(&PackedMatrix, &PackedMatrix)> {
        if !self.gate.fast || self.gate.activation != Activation::Silu {
            return None;
        }
        Some((self.gate_up.packed()?, self.down.packed()?))
    }

    /// What adapters can change in such a network.
    pub(super) fn targets(module: &str, hidden: usize, spec: &DenseSpec) -> [Target; 2] {
        let DenseSpec { intermediate, is_joined, .. } = *spec;
        [
            Target::of(Place::GateUp, hidden, module, &gate_up(intermediate, is_joined)),
            Target::of(Place::Down, intermediate, module, &[("down_proj", hidden)]),
        ]
    }

    pub(super) fn forward(&self, x: &Array, adapter: Option<&LayerAdapter>) -> Result<Array, ComputeError> {
        let inner = self.gate.forward(&adapted(adapter, Place::GateUp, self.gate_up.forward(x)?, x)?)?;
        adapted(adapter, Place::Down, self.down.forward(&inner)?, &inner)
    }

    /// `residual + forward(x)`.
    pub(super) fn forward_onto(&self, residual: &Array, x: &Array) -> Result<Array, ComputeError> {
        self.down.forward_onto(residual, &self.gate.forward(&self.gate_up.forward(x)?)?)
    }
}

/// What gate and up, side by side, become.
pub(super) struct Gate {
    activation: Activation,
    intermediate: i32,
    fast: bool,
    /// On a GPU, where each operation is a kernel of its own otherwise.
    fused: bool,
}

impl Gate {
    pub(super) fn new(activation: Activation, intermediate: usize, arithmetic: Arithmetic) -> Self {
        let has_kernel = matches!(activation, Activation::Silu | Activation::Gelu);
        let suits = has_kernel && intermediate.is_multiple_of(hive_kernels::LANES);
        Self { activation, intermediate: intermediate as i32, fast: arithmetic.fast && suits, fused: is_gpu() }
    }

    /// `[…, 2 intermediate] -> […, intermediate]`.
    pub(super) fn forward(&self, gate_up: &Array) -> Result<Array, ComputeError> {
        if self.fast {
            let of_gelu = self.activation == Activation::Gelu;
            return Ok(if of_gelu { hive_kernels::geglu(gate_up)? } else { hive_kernels::swiglu(gate_up)? });
        }
        if self.fused {
            let activation = match self.activation {
                Activation::Silu => hive_kernels::Activation::Silu,
                Activation::Gelu => hive_kernels::Activation::Gelu,
                Activation::Clamped { limit } => hive_kernels::Activation::Clamped(limit),
            };
            return Ok(hive_kernels::fused_gate(gate_up, activation)?);
        }
        let mut parts = gate_up.split_at_indices(&[self.intermediate], -1)?;
        let (Some(up), Some(gate)) = (parts.pop(), parts.pop()) else {
            return Err(ComputeError::Mlx("gate and up did not split".to_owned()));
        };
        let number = |value: f32| Array::from_f32(value).as_dtype(gate.dtype());
        Ok(match self.activation {
            Activation::Silu => gate.multiply(ops::sigmoid(&gate)?)?.multiply(up)?,
            Activation::Gelu => {
                let inner = gate.add(gate.power(number(3.0)?)?.multiply(number(0.044_715)?)?)?;
                let inner = inner.multiply(number((2.0 / std::f32::consts::PI).sqrt())?)?;
                let half = gate.multiply(number(0.5)?)?;
                half.multiply(ops::tanh(&inner)?.add(number(1.0)?)?)?.multiply(up)?
            }
            Activation::Clamped { limit } => {
                let gate = ops::minimum(&gate, number(limit)?)?;
                let up = ops::clip(&up, (number(-limit)?, number(limit)?))?;
                let glu = gate.multiply(ops::sigmoid(gate.multiply(number(1.702)?)?)?)?;
                glu.multiply(up.add(number(1.0)?)?)?
            }
        })
    }
}
