//! MLX's products with matrices of small floating-point numbers (MXFP4, NVFP4, MXFP8), which the bindings reach for
//! affine quantization only.

use std::ffi::CStr;

use mlx_rs::Array;
use mlx_sys::{mlx_array, mlx_optional_int};

use crate::{KernelError, build, require};

/// Such matrices: codes packed into 32-bit words, and a scale of one byte per group.
#[derive(Debug, Clone, Copy)]
pub struct BlockFloats<'a> {
    /// `[.., rows, columns bits / 32]`.
    pub words: &'a Array,
    /// `[.., rows, columns / group]`.
    pub scales: &'a Array,
    /// Numbers per scale.
    pub group: i32,
    /// Bits per number.
    pub bits: i32,
    /// MLX's name of the format.
    pub mode: &'a CStr,
}

const NONE: mlx_array = mlx_array { ctx: std::ptr::null_mut() };

fn some(value: i32) -> mlx_optional_int {
    mlx_optional_int { value, has_value: true }
}

/// `x [.., columns] · Wᵀ`.
///
/// # Errors
/// MLX refuses the shapes.
pub fn block_matmul(x: &Array, w: &BlockFloats<'_>) -> Result<Array, KernelError> {
    require(w.words.ndim() >= 2 && w.words.ndim() == w.scales.ndim(), "block_matmul: matrices")?;
    // SAFETY: valid handles, a null one where there are no biases; MLX checks the shapes.
    build(|out, stream| unsafe {
        let (words, scales, mode) = (w.words.as_ptr(), w.scales.as_ptr(), w.mode.as_ptr());
        mlx_sys::mlx_quantized_matmul(
            out,
            x.as_ptr(),
            words,
            scales,
            NONE,
            true,
            some(w.group),
            some(w.bits),
            mode,
            stream,
        )
    })
}

/// Rows `x [.., 1, columns]`, each with the matrix of its index; `sorted`: the indices ascend.
///
/// # Errors
/// MLX refuses the shapes.
pub fn block_gather(x: &Array, w: &BlockFloats<'_>, indices: &Array, sorted: bool) -> Result<Array, KernelError> {
    require(w.words.ndim() == 3, "block_gather: several matrices")?;
    // SAFETY: as above.
    build(|out, stream| unsafe {
        let (words, scales, mode) = (w.words.as_ptr(), w.scales.as_ptr(), w.mode.as_ptr());
        let (x, indices) = (x.as_ptr(), indices.as_ptr());
        let (group, bits) = (some(w.group), some(w.bits));
        mlx_sys::mlx_gather_qmm(out, x, words, scales, NONE, NONE, indices, true, group, bits, mode, sorted, stream)
    })
}
