//! The C functions of `cpp/primitives.cpp`. `mlx_array` and `mlx_stream` are one pointer each, as `Handle` is there.

use std::ffi::{c_char, c_int};

use mlx_sys::{mlx_array, mlx_stream};

unsafe extern "C" {
    pub(crate) fn hive_last_error() -> *const c_char;
    pub(crate) fn hive_kernels_name() -> *const c_char;
    pub(crate) fn hive_set_threads(count: c_int);
    pub(crate) fn hive_force_kernels(name: *const c_char) -> c_int;
    pub(crate) fn hive_matmul(
        out: *mut mlx_array,
        x: mlx_array,
        weights: mlx_array,
        scales: mlx_array,
        biases: mlx_array,
        residual: mlx_array,
        format: c_int,
        rows: c_int,
        columns: c_int,
        group: c_int,
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
}
