//! Fast CPU kernels for quantized models on `mlx-rs` arrays: MLX extension primitives, and, for a few tokens, calls
//! that compute a whole layer before they return.
//!
//! MLX's own CPU kernels are plain loops; these use the processor's vectors (AVX-512, AVX2 or NEON, chosen at run time)
//! and several threads. Invariant: **an output row depends on its own input row only, in one fixed order of
//! additions**. So a token's result has the same bits alone or in a batch, in any prompt chunk, on any number of
//! threads. Recovery relies on it: a recomputed cache equals the lost one.
//!
//! All arithmetic is float32. Weights stay quantized; packing interleaves their rows by 16 ([`PackedMatrix`]), so that
//! one vector lane is one output row. Besides `mlx-sys`, this is the only crate that calls C; its safe API checks what
//! the C++ assumes: shapes, types and alignment.

#![allow(unsafe_code)]

mod at_once;
mod block_floats;
mod delta;
mod error;
mod experts;
mod ffi;
mod matrix;
mod room;

use std::ffi::{CStr, CString, c_void};

use mlx_rs::{Array, Dtype, Stream};
use mlx_sys::mlx_array;

pub use at_once::{LayerWeights, SessionRows, head, layer};
pub use block_floats::{BlockFloats, block_gather, block_matmul};
pub use delta::{DeltaShape, DeltaWeights, delta};
pub use error::KernelError;
use error::from_mlx;
pub use experts::{ExpertWeights, experts};
pub use matrix::{Affine, Format, Layout, PackError, PackedMatrix, Packing, Scaling};
use room::Room;

/// Output rows that are interleaved.
pub const LANES: usize = 16;

/// Sets the number of compute threads, the calling one included; at least one.
pub fn set_threads(count: usize) {
    // SAFETY: stores one integer.
    unsafe { ffi::hive_set_threads(i32::try_from(count).unwrap_or(i32::MAX)) }
}

/// The active instruction set: `avx512`, `avx2` or `baseline` (NEON on Arm).
pub fn instruction_set() -> String {
    // SAFETY: the function returns a string literal.
    unsafe { CStr::from_ptr(ffi::hive_kernels_name()) }.to_string_lossy().into_owned()
}

/// Switches to the named instruction set. For tests and measurements.
///
/// # Errors
/// The processor does not support it.
pub fn force_instruction_set(name: &str) -> Result<(), KernelError> {
    let refused = || KernelError(format!("this processor has no {name}"));
    let name = CString::new(name).map_err(|_| refused())?;
    // SAFETY: a null-terminated string that outlives the call.
    if unsafe { ffi::hive_force_kernels(name.as_ptr()) } == 0 { Ok(()) } else { Err(refused()) }
}

/// RMS norm over the last axis; `x` and `weight` are contiguous float32.
pub fn rms_norm(x: &Array, weight: &Array, eps: f32) -> Result<Array, KernelError> {
    require(x.ndim() > 0 && weight.ndim() == 1 && x.dim(-1) == weight.dim(0), "rms_norm: widths differ")?;
    require(weight.dim(0) > 0, "rms_norm: no width")?;
    // SAFETY: valid handles; the shapes match.
    build(|out, stream| unsafe { ffi::hive_rms_norm(out, x.as_ptr(), weight.as_ptr(), eps, stream) })
}

/// What gate and up become.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `silu(gate) * up`.
    Silu,
    /// `gelu(gate) * up`, by tanh.
    Gelu,
    /// gpt-oss's: `gate * sigmoid(1.702 gate) * (up + 1)`, gate and up clamped to this limit.
    Clamped(f32),
}

impl Activation {
    fn code(self) -> i32 {
        match self {
            Self::Silu => 0,
            Self::Gelu => 1,
            Self::Clamped(_) => 2,
        }
    }

    fn limit(self) -> f32 {
        if let Self::Clamped(limit) = self { limit } else { 0.0 }
    }
}

/// `silu(gate) * up` for rows of gate followed by up: `[n, 2w] -> [n, w]`, with w a multiple of 16.
pub fn swiglu(gate_up: &Array) -> Result<Array, KernelError> {
    gate(gate_up, Activation::Silu)
}

/// `gelu(gate) * up` for such rows.
pub fn geglu(gate_up: &Array) -> Result<Array, KernelError> {
    gate(gate_up, Activation::Gelu)
}

fn gate(gate_up: &Array, activation: Activation) -> Result<Array, KernelError> {
    require(gate_up.ndim() > 0 && gate_up.dim(-1) % (2 * LANES as i32) == 0, "gate: width is no multiple of 32")?;
    require(gate_up.dim(-1) > 0, "gate: no width")?;
    // SAFETY: a valid handle, with a width the kernel accepts.
    build(|out, stream| unsafe { ffi::hive_gate(out, gate_up.as_ptr(), activation.code(), stream) })
}

/// What gate and up become, for rows of gate followed by up, `[…, 2w] -> […, w]`, of any float type. MLX computes it, and
/// on a GPU as one kernel.
pub fn fused_gate(gate_up: &Array, activation: Activation) -> Result<Array, KernelError> {
    require(gate_up.ndim() > 0 && gate_up.dim(-1) % 2 == 0, "fused_gate: the width is odd")?;
    let (width, code, limit) = (gate_up.dim(-1) / 2, activation.code(), activation.limit());
    // SAFETY: a valid handle, and half its width.
    receive(|out| unsafe { ffi::hive_fused_gate(out, gate_up.as_ptr(), width, code, limit) })
}

/// Where the keys and values of an attention layer come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvSource {
    /// Its input has them.
    Projected,
    /// Its input has them, and each value is normalized.
    NormedValues,
    /// The keys in its input are also its values, each normalized.
    Joint,
    /// They are in the cache, where an earlier layer has put them; its input has queries only.
    Cached,
}

impl KvSource {
    /// How many parts of its input are keys or values.
    fn parts(self) -> usize {
        match self {
            Self::Projected | Self::NormedValues => 2,
            Self::Joint => 1,
            Self::Cached => 0,
        }
    }

    fn code(self) -> i32 {
        match self {
            Self::Projected => 0,
            Self::NormedValues => 1,
            Self::Joint => 2,
            Self::Cached => 3,
        }
    }
}

/// The constants of an attention layer.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head, a multiple of 16 up to 1024.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// The first dimensions of a head, which are rotated; an even number.
    pub rotated: usize,
    /// Factor on positions before rotation.
    pub rope_scale: f32,
    /// Factor on the rotated values.
    pub rope_magnitude: f32,
    /// How many tokens a token attends to, itself included, if not to all.
    pub window: Option<usize>,
    /// Where its keys and values come from.
    pub source: KvSource,
}

/// What attention has besides its projections: contiguous float32.
#[derive(Debug, Clone, Copy)]
pub struct HeadWeights<'a> {
    /// Rotation periods, `[rotated / 2]`.
    pub periods: &'a Array,
    /// RMS norms of each query and each key before they are rotated, `[head_dim]` each, and their epsilon, which is
    /// also that of normalized values.
    pub norms: Option<(&'a Array, &'a Array, f32)>,
    /// A score for each head that takes its share of attention and adds nothing, `[heads]`.
    pub sinks: Option<&'a Array>,
    /// Queries at position p are multiplied by `1 + b ln(1 + floor(p / c))`: b and c.
    pub growth: Option<(f32, f32)>,
}

impl HeadWeights<'_> {
    /// Handles for the C++.
    fn handles(&self, shape: &AttentionShape) -> ffi::AttentionHandles {
        let none = mlx_array { ctx: std::ptr::null_mut() };
        ffi::AttentionHandles {
            periods: self.periods.as_ptr(),
            q_norm: self.norms.map_or(none, |(q, ..)| q.as_ptr()),
            k_norm: self.norms.map_or(none, |(_, k, _)| k.as_ptr()),
            sinks: self.sinks.map_or(none, Array::as_ptr),
            heads: shape.heads as i32,
            kv_heads: shape.kv_heads as i32,
            head_dim: shape.head_dim as i32,
            rotated: shape.rotated as i32,
            window: shape.window.map_or(0, |window| i32::try_from(window).unwrap_or(i32::MAX)),
            scale: shape.scale,
            rope_scale: shape.rope_scale,
            rope_magnitude: shape.rope_magnitude,
            eps: self.norms.map_or(0.0, |(_, _, eps)| eps),
            growth: self.growth.map_or(0.0, |(by, _)| by),
            growth_context: self.growth.map_or(1.0, |(_, context)| context),
            source: shape.source.code(),
        }
    }
}

/// The keys and values of one session in one layer: float32, growing in blocks.
///
/// Attention writes into the buffers in place; positions at and past the session's length are undefined.
#[derive(Debug)]
pub struct KvBuffers {
    keys: Array,
    values: Array,
}

/// Growth of [`KvBuffers`], in positions.
pub const KV_BLOCK: usize = 256;

impl KvBuffers {
    /// Empty buffers with capacity for one block.
    pub fn new(shape: &AttentionShape) -> Result<Self, KernelError> {
        shape.check()?;
        Ok(Self { keys: Self::zeros_keys(shape, KV_BLOCK)?, values: Self::zeros_values(shape, KV_BLOCK)? })
    }

    /// Capacity in positions.
    pub fn capacity(&self) -> usize {
        self.values.dim(1) as usize
    }

    /// Keys `[kv_heads, capacity / 16, head_dim, 16]` and values `[kv_heads, capacity, head_dim]`.
    pub fn arrays(&self) -> [&Array; 2] {
        [&self.keys, &self.values]
    }

    /// Buffers from the arrays of [`Self::arrays`]. Nobody else may hold the arrays, which are written in place.
    ///
    /// # Errors
    /// The arrays do not match the layer's shape.
    pub fn from_arrays(shape: &AttentionShape, [keys, values]: [Array; 2]) -> Result<Self, KernelError> {
        shape.check()?;
        let capacity = if values.ndim() == 3 { values.dim(1) as usize } else { 0 };
        require(capacity > 0 && capacity.is_multiple_of(KV_BLOCK), "a cache is not in whole blocks")?;
        require(keys.shape() == Self::keys_shape(shape, capacity), "keys of another shape")?;
        require(values.shape() == Self::values_shape(shape, capacity), "values of another shape")?;
        let floats = keys.dtype() == Dtype::Float32 && values.dtype() == Dtype::Float32;
        require(floats, "a cache of another type")?;
        Ok(Self { keys, values })
    }

    /// The shapes of both arrays for this many positions, a multiple of 16.
    pub fn shapes(shape: &AttentionShape, positions: usize) -> [Vec<i32>; 2] {
        [Self::keys_shape(shape, positions).to_vec(), Self::values_shape(shape, positions).to_vec()]
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.keys.nbytes() + self.values.nbytes()
    }

    /// Ensures capacity for `positions` in total.
    pub fn reserve(&mut self, shape: &AttentionShape, positions: usize) -> Result<(), KernelError> {
        shape.check()?;
        require(positions <= MAX_POSITIONS, "reserve: more positions than there can be")?;
        let missing = positions.saturating_sub(self.capacity()).div_ceil(KV_BLOCK) * KV_BLOCK;
        if missing == 0 {
            return Ok(());
        }
        require(self.keys.shape() == Self::keys_shape(shape, self.capacity()), "reserve: cache of another shape")?;
        let grow = |old: &Array, more: Array| {
            mlx_rs::ops::concatenate(&[old, &more], 1).and_then(|new| new.eval().map(|()| new)).map_err(from_mlx)
        };
        self.keys = grow(&self.keys, Self::zeros_keys(shape, missing)?)?;
        self.values = grow(&self.values, Self::zeros_values(shape, missing)?)?;
        Ok(())
    }

    fn zeros_keys(shape: &AttentionShape, positions: usize) -> Result<Array, KernelError> {
        zeros(&Self::keys_shape(shape, positions))
    }

    fn zeros_values(shape: &AttentionShape, positions: usize) -> Result<Array, KernelError> {
        zeros(&Self::values_shape(shape, positions))
    }

    fn keys_shape(shape: &AttentionShape, positions: usize) -> [i32; 4] {
        [shape.kv_heads as i32, (positions / LANES) as i32, shape.head_dim as i32, LANES as i32]
    }

    fn values_shape(shape: &AttentionShape, positions: usize) -> [i32; 3] {
        [shape.kv_heads as i32, positions as i32, shape.head_dim as i32]
    }
}

/// Most positions the C++ can count.
const MAX_POSITIONS: usize = 1 << 30;

impl AttentionShape {
    /// Attention to all tokens before, with heads that are rotated as a whole.
    pub fn new(heads: usize, kv_heads: usize, head_dim: usize, scale: f32) -> Self {
        let (rope_scale, rope_magnitude) = (1.0, 1.0);
        let (window, source) = (None, KvSource::Projected);
        Self { heads, kv_heads, head_dim, scale, rotated: head_dim, rope_scale, rope_magnitude, window, source }
    }

    /// Checks that each width fits into 32 bits, and that `kv_heads` divides `heads`.
    fn check(&self) -> Result<(), KernelError> {
        let Self { heads, kv_heads, head_dim, .. } = *self;
        require(
            heads > 0 && kv_heads > 0 && heads.is_multiple_of(kv_heads),
            "heads are no multiple of key-value heads",
        )?;
        require(head_dim > 0 && head_dim.is_multiple_of(LANES) && head_dim <= 1024, "attention: head size")?;
        require(self.rotated <= head_dim && self.rotated.is_multiple_of(2), "attention: rotated dimensions")?;
        require(self.window != Some(0), "attention: a window of nothing")?;
        require(heads <= 1 << 16 && kv_heads <= 1 << 16, "attention: number of heads")
    }

    /// Width of queries, keys and values, concatenated, as far as the layer has its own.
    pub(crate) fn qkv_width(&self) -> usize {
        (self.heads + self.source.parts() * self.kv_heads) * self.head_dim
    }
}

/// Checks cache and weights for attention over this many positions in total; `None` means an overflow.
pub(crate) fn check_attention(
    cache: &KvBuffers,
    weights: &HeadWeights<'_>,
    shape: &AttentionShape,
    positions: Option<usize>,
) -> Result<(), KernelError> {
    shape.check()?;
    require(weights.periods.size() == shape.rotated / 2, "attention: one period per pair")?;
    let fits = |norm: &Array| norm.size() == shape.head_dim;
    require(weights.norms.is_none_or(|(q, k, _)| fits(q) && fits(k)), "attention: width of the heads' norms")?;
    let norms_values = matches!(shape.source, KvSource::NormedValues | KvSource::Joint);
    require(!norms_values || weights.norms.is_some(), "attention: values are normalized with the heads")?;
    require(weights.sinks.is_none_or(|sinks| sinks.size() == shape.heads), "attention: one sink per head")?;
    require(cache.keys.shape() == KvBuffers::keys_shape(shape, cache.capacity()), "attention: cache of another shape")?;
    require(positions.is_some_and(|positions| positions <= cache.capacity()), "attention: no room in the cache")
}

/// Causal attention with rotary positions for one session:
/// `qkv [n, (heads + 2 kv_heads) head_dim] -> [n, heads head_dim]`, or with fewer columns, as [`KvSource`] says.
///
/// Rotates queries and keys, appends keys and values to `cache` at `offset`, unless they are there, and attends to every
/// position up to each token's own, or to its window. The caller has reserved `offset + n`. The cache is written when the
/// result is evaluated.
pub fn attention(
    qkv: &Array,
    cache: &mut KvBuffers,
    weights: &HeadWeights<'_>,
    shape: &AttentionShape,
    offset: usize,
) -> Result<Array, KernelError> {
    shape.check()?;
    require(qkv.ndim() == 2 && qkv.dim(1) as usize == shape.qkv_width(), "attention: width of qkv")?;
    check_attention(cache, weights, shape, offset.checked_add(qkv.dim(0) as usize))?;
    let attention = weights.handles(shape);
    let (keys, values) = (cache.keys.as_ptr(), cache.values.as_ptr());
    // SAFETY: valid handles; shapes are checked above, and the C++ checks type and contiguity when it evaluates.
    build(|out, stream| unsafe {
        ffi::hive_attention(out, qkv.as_ptr(), keys, values, &raw const attention, offset as i32, stream)
    })
}

/// A new array from raw little-endian bytes.
///
/// # Errors
/// The number of bytes does not match the shape and type.
pub fn array_from_bytes(bytes: &[u8], shape: &[i32], dtype: Dtype) -> Result<Array, KernelError> {
    let item_bytes = match dtype {
        Dtype::Bool | Dtype::Uint8 | Dtype::Int8 => 1,
        Dtype::Float16 | Dtype::Bfloat16 | Dtype::Uint16 | Dtype::Int16 => 2,
        Dtype::Float32 | Dtype::Uint32 | Dtype::Int32 => 4,
        _ => 8,
    };
    let expected = shape.iter().try_fold(item_bytes, |n: usize, &dim| n.checked_mul(usize::try_from(dim).ok()?));
    require(expected == Some(bytes.len()), "array_from_bytes: length does not match the shape")?;
    // SAFETY: the buffer holds exactly the bytes of the shape, and MLX copies them before this returns.
    Ok(unsafe { Array::from_raw_data(bytes.as_ptr().cast::<c_void>(), shape, dtype) })
}

fn zeros(shape: &[i32]) -> Result<Array, KernelError> {
    let array = Array::zeros::<f32>(shape).map_err(from_mlx)?;
    array.eval().map_err(from_mlx)?;
    Ok(array)
}

fn require(holds: bool, what: &str) -> Result<(), KernelError> {
    if holds { Ok(()) } else { Err(KernelError(what.to_owned())) }
}

/// Calls a function that creates an array on the current default stream.
fn build(call: impl FnOnce(*mut mlx_array, mlx_sys::mlx_stream) -> i32) -> Result<Array, KernelError> {
    let stream = Stream::thread_local_or_default();
    receive(|out| call(out, stream.as_ptr()))
}

/// Calls a function that creates three arrays on the current default stream.
fn build_three(call: impl FnOnce(*mut mlx_array, mlx_sys::mlx_stream) -> i32) -> Result<[Array; 3], KernelError> {
    let stream = Stream::thread_local_or_default();
    let mut out = [mlx_array { ctx: std::ptr::null_mut() }; 3];
    if call(out.as_mut_ptr(), stream.as_ptr()) == 0 {
        // SAFETY: on success the function stored three new arrays that have no other owner.
        return Ok(out.map(|array| unsafe { Array::from_ptr(array) }));
    }
    Err(last_error())
}

/// Calls a function that returns an array.
fn receive(call: impl FnOnce(*mut mlx_array) -> i32) -> Result<Array, KernelError> {
    let mut out = mlx_array { ctx: std::ptr::null_mut() };
    if call(&raw mut out) == 0 {
        // SAFETY: on success the function stored a new array that has no other owner.
        return Ok(unsafe { Array::from_ptr(out) });
    }
    Err(last_error())
}

/// Why the last call failed.
fn last_error() -> KernelError {
    // SAFETY: the message is in thread-local storage until the next call.
    let message = unsafe { CStr::from_ptr(ffi::hive_last_error()) };
    KernelError(message.to_string_lossy().into_owned())
}

/// The bytes of an evaluated array, row-major.
///
/// # Errors
/// Evaluation fails, or the array is not contiguous.
pub fn array_bytes(array: &Array) -> Result<Vec<u8>, KernelError> {
    array.eval().map_err(from_mlx)?;
    let bytes = array.nbytes();
    let copy = |pointer: *const u8| {
        // SAFETY: a contiguous, evaluated array holds `nbytes` bytes at its data pointer.
        unsafe { std::slice::from_raw_parts(pointer, bytes) }.to_vec()
    };
    let slice_error = |error: mlx_rs::error::AsSliceError| KernelError(error.to_string());
    // `try_as_slice` checks contiguity; its element type only has to match the array's.
    Ok(match array.dtype() {
        Dtype::Float32 => copy(array.try_as_slice::<f32>().map_err(slice_error)?.as_ptr().cast()),
        Dtype::Float16 => copy(array.try_as_slice::<half::f16>().map_err(slice_error)?.as_ptr().cast()),
        Dtype::Bfloat16 => copy(array.try_as_slice::<half::bf16>().map_err(slice_error)?.as_ptr().cast()),
        Dtype::Uint32 => copy(array.try_as_slice::<u32>().map_err(slice_error)?.as_ptr().cast()),
        other => return Err(KernelError(format!("array_bytes: {other:?} is not a type that travels"))),
    })
}
