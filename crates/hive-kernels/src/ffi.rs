//! The C functions in `cpp/`. `mlx_array` and `mlx_stream` are one pointer each, like `Handle` in `cpp/handles.h`.

use std::ffi::{c_char, c_int};

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
pub(crate) struct LayerHandles {
    pub(crate) attention_norm: mlx_array,
    pub(crate) mlp_norm: mlx_array,
    pub(crate) periods: mlx_array,
    pub(crate) qkv: MatrixHandles,
    pub(crate) output: MatrixHandles,
    pub(crate) gate_up: MatrixHandles,
    pub(crate) down: MatrixHandles,
    pub(crate) heads: c_int,
    pub(crate) kv_heads: c_int,
    pub(crate) head_dim: c_int,
    pub(crate) scale: f32,
    pub(crate) rope_scale: f32,
    pub(crate) eps: f32,
}

#[repr(C)]
pub(crate) struct SessionHandles {
    pub(crate) keys: mlx_array,
    pub(crate) values: mlx_array,
    pub(crate) offset: c_int,
    pub(crate) tokens: c_int,
}

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
    pub(crate) fn hive_swiglu(out: *mut mlx_array, gate_up: mlx_array, stream: mlx_stream) -> c_int;
    pub(crate) fn hive_attention(
        out: *mut mlx_array,
        qkv: mlx_array,
        keys: mlx_array,
        values: mlx_array,
        periods: mlx_array,
        heads: c_int,
        kv_heads: c_int,
        head_dim: c_int,
        offset: c_int,
        scale: f32,
        rope_scale: f32,
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
