// Arrays as src/ffi.rs hands them over: a pointer each.
#pragma once
#include <stdexcept>
#include <string>

#include "kernels.h"

#include "mlx/mlx.h"

namespace hive {

struct Handle {
  void* ctx;
};

// A matrix; scales and biases are null where the format has none.
struct MatrixHandles {
  Handle weights;
  Handle scales;
  Handle biases;
  int format;
  int rows;
  int columns;
  int group;
};

inline mlx::core::array& get(Handle handle) { return *static_cast<mlx::core::array*>(handle.ctx); }

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
