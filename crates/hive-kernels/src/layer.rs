//! A whole layer as one operation.

use mlx_rs::Array;

use crate::{AttentionShape, KernelError, KvBuffers, LANES, PackedMatrix, build, check_attention, ffi, require};

/// What a layer is made of: norm, attention, norm, and a gated network, each onto what came before.
#[derive(Debug, Clone, Copy)]
pub struct LayerWeights<'a> {
    /// Of the norm before attention, `[hidden]`.
    pub attention_norm: &'a Array,
    /// Queries, keys and values side by side.
    pub qkv: &'a PackedMatrix,
    /// Rotation periods, `[head_dim / 2]`.
    pub periods: &'a Array,
    /// Back to the hidden width.
    pub output: &'a PackedMatrix,
    /// Of the norm before the network, `[hidden]`.
    pub mlp_norm: &'a Array,
    /// Gate and up side by side.
    pub gate_up: &'a PackedMatrix,
    /// Back to the hidden width.
    pub down: &'a PackedMatrix,
    /// Of both norms.
    pub eps: f32,
}

/// `x [n, hidden] -> [n, hidden]` for one session whose tokens stand at `offset`, its cache extended: the bits that the single
/// operations give, in one.
///
/// # Errors
/// Shapes that do not fit together.
pub fn layer(
    x: &Array,
    weights: &LayerWeights<'_>,
    cache: &KvBuffers,
    shape: &AttentionShape,
    offset: usize,
) -> Result<Array, KernelError> {
    let LayerWeights { attention_norm, qkv, periods, output, mlp_norm, gate_up, down, eps } = *weights;
    require(x.ndim() == 2 && attention_norm.ndim() == 1, "layer: shape of x")?;
    let (tokens, hidden) = (x.dim(0) as usize, x.dim(1) as usize);
    let norms = attention_norm.size() == hidden && mlp_norm.size() == hidden;
    require(norms, "layer: width of the norms")?;
    let inner = gate_up.rows() / 2;
    let fits = qkv.maps(hidden, shape.qkv_width())
        && output.maps(shape.heads * shape.head_dim, hidden)
        && gate_up.maps(hidden, 2 * inner)
        && down.maps(inner, hidden)
        && inner.is_multiple_of(LANES);
    require(fits, "layer: shapes of the matrices")?;
    check_attention(cache, periods, shape, offset + tokens)?;
    let [keys, values] = cache.arrays();
    let handles = ffi::LayerHandles {
        attention_norm: attention_norm.as_ptr(),
        mlp_norm: mlp_norm.as_ptr(),
        periods: periods.as_ptr(),
        keys: keys.as_ptr(),
        values: values.as_ptr(),
        qkv: qkv.handles(),
        output: output.handles(),
        gate_up: gate_up.handles(),
        down: down.handles(),
        heads: shape.heads as i32,
        kv_heads: shape.kv_heads as i32,
        head_dim: shape.head_dim as i32,
        offset: offset as i32,
        scale: shape.scale,
        rope_scale: shape.rope_scale,
        eps,
    };
    // SAFETY: valid handles that outlive the call; shapes checked above, and the C++ checks types and contiguity when it
    // evaluates.
    build(|out, stream| unsafe { ffi::hive_layer(out, x.as_ptr(), &raw const handles, stream) })
}
