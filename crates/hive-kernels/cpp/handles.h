// Arrays as src/ffi.rs hands them over: a pointer each.
#pragma once
#include <cstddef>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "kernels.h"

#include "mlx/mlx.h"

namespace hive {

struct Handle {
  void* ctx;
};

// A matrix; scales and biases are null where the format has none, and biases where they are multiples of the scales.
struct MatrixHandles {
  Handle weights;
  Handle scales;
  Handle biases;
  int format;
  int scaling;
  int rows;
  int columns;
  int group;
  float multiple;
};

// Attention without its projections. Norms and sinks are null where the model has none.
struct AttentionHandles {
  Handle periods;
  Handle q_norm;
  Handle k_norm;
  Handle sinks;
  int heads;
  int kv_heads;
  int head_dim;
  int rotated;
  int window;
  float scale;
  float rope_scale;
  float rope_magnitude;
  float eps;
  float growth;
  float growth_context;
  int source;
};

// As src/ffi.rs asserts on its side.
static_assert(sizeof(AttentionHandles) == 80 && std::is_standard_layout_v<AttentionHandles>);
static_assert(offsetof(AttentionHandles, periods) == 0);
static_assert(offsetof(AttentionHandles, q_norm) == 8);
static_assert(offsetof(AttentionHandles, k_norm) == 16);
static_assert(offsetof(AttentionHandles, sinks) == 24);
static_assert(offsetof(AttentionHandles, heads) == 32);
static_assert(offsetof(AttentionHandles, kv_heads) == 36);
static_assert(offsetof(AttentionHandles, head_dim) == 40);
static_assert(offsetof(AttentionHandles, rotated) == 44);
static_assert(offsetof(AttentionHandles, window) == 48);
static_assert(offsetof(AttentionHandles, scale) == 52);
static_assert(offsetof(AttentionHandles, rope_scale) == 56);
static_assert(offsetof(AttentionHandles, rope_magnitude) == 60);
static_assert(offsetof(AttentionHandles, eps) == 64);
static_assert(offsetof(AttentionHandles, growth) == 68);
static_assert(offsetof(AttentionHandles, growth_context) == 72);
static_assert(offsetof(AttentionHandles, source) == 76);
static_assert(sizeof(Handle) == 8 && sizeof(int) == 4 && sizeof(float) == 4);
static_assert(sizeof(MatrixHandles) == 48 && std::is_standard_layout_v<MatrixHandles>);
static_assert(offsetof(MatrixHandles, weights) == 0);
static_assert(offsetof(MatrixHandles, scales) == 8);
static_assert(offsetof(MatrixHandles, biases) == 16);
static_assert(offsetof(MatrixHandles, format) == 24);
static_assert(offsetof(MatrixHandles, scaling) == 28);
static_assert(offsetof(MatrixHandles, rows) == 32);
static_assert(offsetof(MatrixHandles, columns) == 36);
static_assert(offsetof(MatrixHandles, group) == 40);
static_assert(offsetof(MatrixHandles, multiple) == 44);

inline mlx::core::array& get(Handle handle) { return *static_cast<mlx::core::array*>(handle.ctx); }

// Its numbers are where the handles say, once they are computed: those of a packed matrix always are.
inline Matrix matrix_of(const MatrixHandles& h) {
  const auto data = [](Handle handle) { return handle.ctx ? get(handle).data<void>() : nullptr; };
  return {static_cast<Format>(h.format), static_cast<Scaling>(h.scaling), h.rows, h.columns, h.group, h.multiple,
          data(h.weights), data(h.scales), data(h.biases)};
}

inline const float* floats(const mlx::core::array& in) {
  if (in.dtype() != mlx::core::float32 || !in.flags().row_contiguous)
    throw std::runtime_error("the fast kernels take contiguous float32 arrays");
  return in.data<float>();
}

inline AttentionShape shape_of(const AttentionHandles& h, int tokens, int offset, int capacity) {
  return {tokens, h.heads, h.kv_heads, h.head_dim, h.rotated, h.window, offset, capacity, h.scale, static_cast<KvSource>(h.source)};
}

// Its arrays have been computed.
inline HeadWeights head_weights_of(const AttentionHandles& h) {
  const auto data = [](Handle handle) { return handle.ctx ? floats(get(handle)) : nullptr; };
  return {floats(get(h.periods)), h.rope_scale, h.rope_magnitude, data(h.q_norm), data(h.k_norm), h.eps, h.growth,
          h.growth_context, data(h.sinks)};
}

inline thread_local std::string last_error;

// Runs `body`, which returns an array; 0 and the array in `out`, or 1 and the reason in hive_last_error.
template <typename F>
int guarded(Handle* out, F&& body) {
  try {
    out->ctx = new mlx::core::array(body());
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
    return 1;
  }
}

} // namespace hive
