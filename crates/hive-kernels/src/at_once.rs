//! A few tokens through a whole layer, or through the model's head, computed before the function returns.
//!
//! Gives the same bits as the single operations, without building an MLX operation and waking MLX's thread for each.

use mlx_rs::Array;

use crate::{
    AttentionShape, HeadWeights, KernelError, KvBuffers, LANES, PackedMatrix, check_attention, ffi, receive, require,
};

/// The weights of a layer: norm, attention, norm and a gated network, with residual connections.
#[derive(Debug, Clone, Copy)]
pub struct LayerWeights<'a> {
    /// Weights of the norm before attention, `[hidden]`.
    pub attention_norm: &'a Array,
    /// Queries, keys and values, concatenated.
    pub qkv: &'a PackedMatrix,
    /// What attention has besides its projections.
    pub heads: HeadWeights<'a>,
    /// Projects attention back to the hidden width.
    pub output: &'a PackedMatrix,
    /// Weights of the norm before the network, `[hidden]`.
    pub mlp_norm: &'a Array,
    /// Gate and up, concatenated.
    pub gate_up: &'a PackedMatrix,
    /// Projects the network back to the hidden width.
    pub down: &'a PackedMatrix,
    /// Epsilon of both norms.
    pub eps: f32,
}

/// One session's share of the tokens. No two of them write into one cache:
///
/// ```compile_fail,E0499
/// # fn shares(cache: &mut hive_kernels::KvBuffers) {
/// use hive_kernels::SessionRows;
/// let first = SessionRows { cache, offset: 0, tokens: 1 };
/// let second = SessionRows { cache, offset: 0, tokens: 1 };
/// drop([first, second]);
/// # }
/// ```
#[derive(Debug)]
pub struct SessionRows<'a> {
    /// Its cache, with room reserved for them; they are written into it.
    pub cache: &'a mut KvBuffers,
    /// Position of the first token.
    pub offset: usize,
    /// Number of tokens.
    pub tokens: usize,
}

/// `x [n, hidden] -> [n, hidden]`: the sessions' tokens, concatenated. Extends their caches.
///
/// # Errors
/// The shapes do not match.
pub fn layer(
    x: &Array,
    weights: &LayerWeights<'_>,
    shape: &AttentionShape,
    sessions: &mut [SessionRows<'_>],
) -> Result<Array, KernelError> {
    let LayerWeights { attention_norm, qkv, heads, output, mlp_norm, gate_up, down, eps } = *weights;
    require(x.ndim() == 2 && attention_norm.ndim() == 1, "layer: shape of x")?;
    let (tokens, hidden) = (x.dim(0) as usize, x.dim(1) as usize);
    let norms = attention_norm.size() == hidden && mlp_norm.size() == hidden;
    require(norms, "layer: width of the norms")?;
    shape.check()?;
    let inner = gate_up.rows() / 2;
    let fits = qkv.maps(hidden, shape.qkv_width())
        && output.maps(shape.heads * shape.head_dim, hidden)
        && gate_up.maps(hidden, 2 * inner)
        && down.maps(inner, hidden)
        && inner.is_multiple_of(LANES);
    require(fits, "layer: shapes of the matrices")?;
    let all = sessions.iter().try_fold(0usize, |all, session| all.checked_add(session.tokens));
    require(all == Some(tokens), "layer: tokens of the sessions")?;
    for session in &*sessions {
        check_attention(session.cache, &heads, shape, session.offset.checked_add(session.tokens))?;
    }
    let layer = ffi::LayerHandles {
        attention_norm: attention_norm.as_ptr(),
        mlp_norm: mlp_norm.as_ptr(),
        attention: heads.handles(shape),
        qkv: qkv.handles(),
        output: output.handles(),
        gate_up: gate_up.handles(),
        down: down.handles(),
        eps,
    };
    let handles = |session: &mut SessionRows| {
        let [keys, values] = session.cache.arrays().map(Array::as_ptr);
        ffi::SessionHandles { keys, values, offset: session.offset as i32, tokens: session.tokens as i32 }
    };
    let sessions: Vec<_> = sessions.iter_mut().map(handles).collect();
    let (first, count) = (sessions.as_ptr(), sessions.len() as i32);
    // SAFETY: valid handles that outlive the call; shapes are checked above, types and contiguity in the C++.
    receive(|out| unsafe { ffi::hive_layer(out, x.as_ptr(), &raw const layer, first, count) })
}

/// Norm and projection of some rows of `x [n, hidden]`: `[rows, matrix.rows()]`.
///
/// # Errors
/// `x` has no such row, or the shapes do not match.
pub fn head(x: &Array, rows: &[usize], norm: &Array, eps: f32, matrix: &PackedMatrix) -> Result<Array, KernelError> {
    require(x.ndim() == 2 && rows.iter().all(|&row| row < x.dim(0) as usize), "head: rows of x")?;
    let hidden = x.dim(1) as usize;
    require(norm.size() == hidden && matrix.maps(hidden, matrix.rows()), "head: widths differ")?;
    let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let (first, count) = (rows.as_ptr(), rows.len() as i32);
    let (x, norm, matrix) = (x.as_ptr(), norm.as_ptr(), matrix.handles());
    // SAFETY: valid handles that outlive the call; shapes are checked above, types and contiguity in the C++.
    receive(|out| unsafe { ffi::hive_head(out, x, first, count, norm, eps, &raw const matrix) })
}
