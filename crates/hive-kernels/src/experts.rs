//! Networks of which each row passes a few.

use mlx_rs::{Array, Dtype};
use mlx_sys::mlx_array;

use crate::{Activation, KernelError, LANES, PackedMatrix, build, ffi, require};

/// The weights of all experts, one after the other.
#[derive(Debug, Clone, Copy)]
pub struct ExpertWeights<'a> {
    /// How many there are.
    pub count: usize,
    /// Gate and up of the first, then of the second, and so on, and what is added to their products.
    pub gate_up: (&'a PackedMatrix, Option<&'a Array>),
    /// Their ways back, and what is added.
    pub down: (&'a PackedMatrix, Option<&'a Array>),
    /// What gate and up become.
    pub activation: Activation,
}

/// Passes each row of `x [n, hidden]` through the experts `picked [n, per_token]`, and adds up what comes out by
/// `shares [n, per_token]`: `[n, hidden]`. All contiguous; float32, and uint32 for `picked`.
///
/// A row's sum is in the order of its experts' numbers.
///
/// # Errors
/// The shapes or types do not match.
pub fn experts(x: &Array, picked: &Array, shares: &Array, weights: &ExpertWeights<'_>) -> Result<Array, KernelError> {
    let ExpertWeights { count, gate_up: (gate_up, gate_up_bias), down: (down, down_bias), activation } = *weights;
    require(x.ndim() == 2 && picked.ndim() == 2 && x.dim(0) == picked.dim(0), "experts: rows of x")?;
    require(picked.shape() == shares.shape(), "experts: one share for each that is picked")?;
    require(picked.dtype() == Dtype::Uint32 && shares.dtype() == Dtype::Float32, "experts: types")?;
    let (hidden, per_token) = (x.dim(1) as usize, picked.dim(1) as usize);
    require(count > 0 && (1..=count).contains(&per_token), "experts: number of experts")?;
    let inner = gate_up.rows() / count / 2;
    let fits = inner.is_multiple_of(LANES)
        && hidden.is_multiple_of(LANES)
        && inner > 0
        && gate_up.maps(hidden, count * 2 * inner)
        && down.maps(inner, count * hidden);
    require(fits, "experts: shapes of the matrices")?;
    let has = |bias: Option<&Array>, size: usize| bias.is_none_or(|bias| bias.size() == size);
    require(has(gate_up_bias, count * 2 * inner) && has(down_bias, count * hidden), "experts: size of the biases")?;
    let none = mlx_array { ctx: std::ptr::null_mut() };
    let experts = ffi::ExpertHandles {
        gate_up_bias: gate_up_bias.map_or(none, Array::as_ptr),
        down_bias: down_bias.map_or(none, Array::as_ptr),
        count: count as i32,
        activation: activation.code(),
        limit: activation.limit(),
    };
    let (gate_up, down) = (gate_up.handles(), down.handles());
    let (x, picked, shares) = (x.as_ptr(), picked.as_ptr(), shares.as_ptr());
    // SAFETY: valid handles; shapes are checked above, and the C++ checks contiguity when it evaluates.
    build(|out, stream| unsafe {
        ffi::hive_experts(out, x, picked, shares, &raw const gate_up, &raw const down, &raw const experts, stream)
    })
}
