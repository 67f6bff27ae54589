//! The C functions in `cpp/`. `mlx_array` and `mlx_stream` are one pointer each, like `Handle` in `cpp/handles.h`.

use std::ffi::{c_char, c_int};
use std::mem::offset_of;

use mlx_sys::{mlx_array, mlx_stream};

#[repr(C)]
pub(crate) struct MatrixHandles {
    pub(crate) weights: mlx_array,
    pub(crate) scales: mlx_array,
    pub(crate) biases: mlx_array,
    pub(crate) format: c_int,
    pub(crate) scaling: c_int,
    pub(crate) rows: c_int,
    pub(crate) columns: c_int,
    pub(crate) group: c_int,
    pub(crate) multiple: f32,
}

#[repr(C)]
pub(crate) struct AttentionHandles {
    pub(crate) periods: mlx_array,
    pub(crate) q_norm: mlx_array,
    pub(crate) k_norm: mlx_array,
    pub(crate) sinks: mlx_array,
    pub(crate) heads: c_int,
    pub(crate) kv_heads: c_int,
    pub(crate) head_dim: c_int,
    pub(crate) rotated: c_int,
    pub(crate) window: c_int,
    pub(crate) scale: f32,
    pub(crate) rope_scale: f32,
    pub(crate) rope_magnitude: f32,
    pub(crate) eps: f32,
    pub(crate) growth: f32,
    pub(crate) growth_context: f32,
    pub(crate) source: c_int,
}

/// How gate and up of an expert are combined, and what is added to their products; null where there is nothing.
#[repr(C)]
pub(crate) struct ExpertHandles {
    pub(crate) gate_up_bias: mlx_array,
    pub(crate) down_bias: mlx_array,
    pub(crate) count: c_int,
    pub(crate) activation: c_int,
    /// The limit of clamped SwiGLU.
    pub(crate) limit: f32,
}

/// A gated delta net without its projections.
#[repr(C)]
pub(crate) struct DeltaHandles {
    pub(crate) convolution: mlx_array,
    pub(crate) rates: mlx_array,
    pub(crate) step_bias: mlx_array,
    pub(crate) norm: mlx_array,
    pub(crate) key_heads: c_int,
    pub(crate) value_heads: c_int,
    pub(crate) key_dim: c_int,
    pub(crate) value_dim: c_int,
    pub(crate) taps: c_int,
    pub(crate) eps: f32,
    pub(crate) length_eps: f32,
}

#[repr(C)]
pub(crate) struct LayerHandles {
    pub(crate) attention_norm: mlx_array,
    pub(crate) mlp_norm: mlx_array,
    pub(crate) attention: AttentionHandles,
    pub(crate) qkv: MatrixHandles,
    pub(crate) output: MatrixHandles,
    pub(crate) gate_up: MatrixHandles,
    pub(crate) down: MatrixHandles,
    pub(crate) eps: f32,
}

#[repr(C)]
pub(crate) struct SessionHandles {
    pub(crate) keys: mlx_array,
    pub(crate) values: mlx_array,
    pub(crate) offset: c_int,
    pub(crate) tokens: c_int,
}

// The same numbers are asserted in `cpp/handles.h` and `cpp/at_once.cpp`: whoever changes one side has to change both.
const _: () = {
    assert!(size_of::<mlx_array>() == 8 && size_of::<mlx_stream>() == 8 && size_of::<c_int>() == 4);
    assert!(size_of::<MatrixHandles>() == 48);
    assert!(offset_of!(MatrixHandles, weights) == 0);
    assert!(offset_of!(MatrixHandles, scales) == 8);
    assert!(offset_of!(MatrixHandles, biases) == 16);
    assert!(offset_of!(MatrixHandles, format) == 24);
    assert!(offset_of!(MatrixHandles, scaling) == 28);
    assert!(offset_of!(MatrixHandles, rows) == 32);
    assert!(offset_of!(MatrixHandles, columns) == 36);
    assert!(offset_of!(MatrixHandles, group) == 40);
    assert!(offset_of!(MatrixHandles, multiple) == 44);
    assert!(size_of::<AttentionHandles>() == 80);
    assert!(offset_of!(AttentionHandles, periods) == 0);
    assert!(offset_of!(AttentionHandles, q_norm) == 8);
    assert!(offset_of!(AttentionHandles, k_norm) == 16);
    assert!(offset_of!(AttentionHandles, sinks) == 24);
    assert!(offset_of!(AttentionHandles, heads) == 32);
    assert!(offset_of!(AttentionHandles, kv_heads) == 36);
    assert!(offset_of!(AttentionHandles, head_dim) == 40);
    assert!(offset_of!(AttentionHandles, rotated) == 44);
    assert!(offset_of!(AttentionHandles, window) == 48);
    assert!(offset_of!(AttentionHandles, scale) == 52);
    assert!(offset_of!(AttentionHandles, rope_scale) == 56);
    assert!(offset_of!(AttentionHandles, rope_magnitude) == 60);
    assert!(offset_of!(AttentionHandles, eps) == 64);
    assert!(offset_of!(AttentionHandles, growth) == 68);
    assert!(offset_of!(AttentionHandles, growth_context) == 72);
    assert!(offset_of!(AttentionHandles, source) == 76);
    assert!(size_of::<ExpertHandles>() == 32);
    assert!(offset_of!(ExpertHandles, gate_up_bias) == 0);
    assert!(offset_of!(ExpertHandles, down_bias) == 8);
    assert!(offset_of!(ExpertHandles, count) == 16);
    assert!(offset_of!(ExpertHandles, activation) == 20);
    assert!(offset_of!(ExpertHandles, limit) == 24);
    assert!(size_of::<DeltaHandles>() == 64);
    assert!(offset_of!(DeltaHandles, convolution) == 0);
    assert!(offset_of!(DeltaHandles, rates) == 8);
    assert!(offset_of!(DeltaHandles, step_bias) == 16);
    assert!(offset_of!(DeltaHandles, norm) == 24);
    assert!(offset_of!(DeltaHandles, key_heads) == 32);
    assert!(offset_of!(DeltaHandles, value_heads) == 36);
    assert!(offset_of!(DeltaHandles, key_dim) == 40);
    assert!(offset_of!(DeltaHandles, value_dim) == 44);
    assert!(offset_of!(DeltaHandles, taps) == 48);
    assert!(offset_of!(DeltaHandles, eps) == 52);
    assert!(offset_of!(DeltaHandles, length_eps) == 56);
    assert!(size_of::<LayerHandles>() == 296);
    assert!(offset_of!(LayerHandles, attention_norm) == 0);
    assert!(offset_of!(LayerHandles, mlp_norm) == 8);
    assert!(offset_of!(LayerHandles, attention) == 16);
    assert!(offset_of!(LayerHandles, qkv) == 96);
    assert!(offset_of!(LayerHandles, output) == 144);
    assert!(offset_of!(LayerHandles, gate_up) == 192);
    assert!(offset_of!(LayerHandles, down) == 240);
    assert!(offset_of!(LayerHandles, eps) == 288);
    assert!(size_of::<SessionHandles>() == 24);
    assert!(offset_of!(SessionHandles, keys) == 0);
    assert!(offset_of!(SessionHandles, values) == 8);
    assert!(offset_of!(SessionHandles, offset) == 16);
    assert!(offset_of!(SessionHandles, tokens) == 20);
};

unsafe extern "C" {
    pub(crate) fn hive_last_error() -> *const c_char;
    pub(crate) fn hive_kernels_name() -> *const c_char;
    pub(crate) fn hive_set_threads(count: c_int);
    pub(crate) fn hive_force_kernels(name: *const c_char) -> c_int;
    pub(crate) fn hive_matmul(
        out: *mut mlx_array,
        x: mlx_array,
        matrix: *const MatrixHandles,
        residual: mlx_array,
        stream: mlx_stream,
    ) -> c_int;
    pub(crate) fn hive_rms_norm(
        out: *mut mlx_array,
        x: mlx_array,
        weight: mlx_array,
        eps: f32,
        stream: mlx_stream,
    ) -> c_int;
    pub(crate) fn hive_fused_gate(
        out: *mut mlx_array,
        gate_up: mlx_array,
        width: c_int,
        activation: c_int,
        limit: f32,
    ) -> c_int;
    pub(crate) fn hive_gate(out: *mut mlx_array, gate_up: mlx_array, activation: c_int, stream: mlx_stream) -> c_int;
    pub(crate) fn hive_attention(
        out: *mut mlx_array,
        qkv: mlx_array,
        keys: mlx_array,
        values: mlx_array,
        attention: *const AttentionHandles,
        offset: c_int,
        stream: mlx_stream,
    ) -> c_int;
    pub(crate) fn hive_experts(
        out: *mut mlx_array,
        x: mlx_array,
        picked: mlx_array,
        shares: mlx_array,
        gate_up: *const MatrixHandles,
        down: *const MatrixHandles,
        experts: *const ExpertHandles,
        stream: mlx_stream,
    ) -> c_int;
    /// Stores three arrays.
    pub(crate) fn hive_delta(
        out: *mut mlx_array,
        rows: mlx_array,
        seen: mlx_array,
        state: mlx_array,
        delta: *const DeltaHandles,
        stream: mlx_stream,
    ) -> c_int;
    pub(crate) fn hive_layer(
        out: *mut mlx_array,
        x: mlx_array,
        layer: *const LayerHandles,
        sessions: *const SessionHandles,
        count: c_int,
    ) -> c_int;
    pub(crate) fn hive_head(
        out: *mut mlx_array,
        x: mlx_array,
        rows: *const c_int,
        count: c_int,
        norm: mlx_array,
        eps: f32,
        matrix: *const MatrixHandles,
    ) -> c_int;
}
