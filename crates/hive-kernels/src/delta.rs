//! Gated delta nets: a convolution over a few tokens, a state that every token changes, and a norm with a gate.

use mlx_rs::{Array, Dtype};

use crate::{KernelError, LANES, build_three, ffi, require};

/// The widths of a gated delta net.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaShape {
    /// Heads of queries and keys; divides `value_heads`.
    pub key_heads: usize,
    /// Heads of values.
    pub value_heads: usize,
    /// Width of a query and of a key, a multiple of 16 up to 1024.
    pub key_dim: usize,
    /// Width of a value, a multiple of 16 up to 1024.
    pub value_dim: usize,
    /// Tokens that the convolution sees, the latest included.
    pub taps: usize,
}

/// Its weights besides the projections: contiguous float32.
#[derive(Debug, Clone, Copy)]
pub struct DeltaWeights<'a> {
    /// `[taps, channels]`, where the channels are queries, keys and values.
    pub convolution: &'a Array,
    /// Factor on the softplus that is the exponent of the decay, `[value_heads]`.
    pub rates: &'a Array,
    /// Added within that softplus, `[value_heads]`.
    pub step_bias: &'a Array,
    /// Weights of the norm of each head's output, `[value_dim]`.
    pub norm: &'a Array,
    /// Epsilon of that norm.
    pub eps: f32,
    /// Added to the squares of queries and keys before they are divided by their length.
    pub length_eps: f32,
}

impl DeltaShape {
    fn channels(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim
    }

    fn check(&self) -> Result<(), KernelError> {
        let fits = |width: usize| width > 0 && width <= 1024 && width.is_multiple_of(LANES);
        require(fits(self.key_dim) && fits(self.value_dim), "delta: width of a head")?;
        let heads = self.key_heads > 0 && self.value_heads > 0 && self.value_heads.is_multiple_of(self.key_heads);
        require(heads && self.value_heads <= 1 << 16 && self.taps > 0, "delta: number of heads")
    }
}

/// One session's tokens: `rows [n, channels + value_heads value_dim + 2 value_heads]` are queries, keys and values before
/// the convolution, the output's gates, and for each value head how much is written and how much is kept. `seen [taps -
/// 1, channels]` are the rows before them, and `state [value_heads, key_dim, value_dim]` what they find.
///
/// Returns what is read, `[n, value_heads value_dim]`, and the new `seen` and `state`. One token follows the other, so
/// the numbers do not depend on how many come at once.
///
/// # Errors
/// The shapes or types do not match.
pub fn delta(
    rows: &Array,
    seen: &Array,
    state: &Array,
    weights: &DeltaWeights<'_>,
    shape: &DeltaShape,
) -> Result<[Array; 3], KernelError> {
    shape.check()?;
    let DeltaShape { value_heads, key_dim, value_dim, taps, .. } = *shape;
    let (channels, values) = (shape.channels(), value_heads * value_dim);
    let width = channels + values + 2 * value_heads;
    require(rows.ndim() == 2 && rows.dim(0) > 0 && rows.dim(1) as usize == width, "delta: width of a row")?;
    require(seen.size() == (taps - 1) * channels, "delta: rows before")?;
    require(state.size() == value_heads * key_dim * value_dim, "delta: size of the state")?;
    let DeltaWeights { convolution, rates, step_bias, norm, eps, length_eps } = *weights;
    require(convolution.size() == taps * channels && norm.size() == value_dim, "delta: convolution and norm")?;
    require(rates.size() == value_heads && step_bias.size() == value_heads, "delta: a rate for each head")?;
    let all = [rows, seen, state, convolution, rates, step_bias, norm];
    require(all.iter().all(|array| array.dtype() == Dtype::Float32), "delta: types")?;
    let handles = ffi::DeltaHandles {
        convolution: convolution.as_ptr(),
        rates: rates.as_ptr(),
        step_bias: step_bias.as_ptr(),
        norm: norm.as_ptr(),
        key_heads: shape.key_heads as i32,
        value_heads: value_heads as i32,
        key_dim: key_dim as i32,
        value_dim: value_dim as i32,
        taps: taps as i32,
        eps,
        length_eps,
    };
    let (rows, seen, state) = (rows.as_ptr(), seen.as_ptr(), state.as_ptr());
    // SAFETY: valid handles; shapes and types are checked above, and the C++ checks contiguity when it evaluates.
    build_three(|out, stream| unsafe { ffi::hive_delta(out, rows, seen, state, &raw const handles, stream) })
}
