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

// As src/ffi.rs asserts on its side.
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
