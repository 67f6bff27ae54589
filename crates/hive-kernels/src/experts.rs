//! Networks of which each row passes a few.

use mlx_rs::{Array, Dtype};

use crate::{KernelError, LANES, PackedMatrix, build, ffi, require};

/// Passes each row of `x [n, hidden]` through the experts `picked [n, per_token]`, and adds up what comes out by
/// `shares [n, per_token]`: `[n, hidden]`. All contiguous; float32, and uint32 for `picked`.
///
/// `gate_up` holds the gate and up of all `count` experts, one expert after the other, and `down` their ways back. A
/// row's sum is in the order of its experts' numbers.
///
/// # Errors
/// The shapes or types do not match.
pub fn experts(
    x: &Array,
    picked: &Array,
    shares: &Array,
    gate_up: &PackedMatrix,
    down: &PackedMatrix,
    count: usize,
) -> Result<Array, KernelError> {
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
    let (gate_up, down) = (gate_up.handles(), down.handles());
    let (x, picked, shares) = (x.as_ptr(), picked.as_ptr(), shares.as_ptr());
    // SAFETY: valid handles; shapes are checked above, and the C++ checks contiguity when it evaluates.
    build(|out, stream| unsafe {
        ffi::hive_experts(out, x, picked, shares, &raw const gate_up, &raw const down, count as i32, stream)
    })
}
