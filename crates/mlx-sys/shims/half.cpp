// mlx-c has its half-precision accessors on aarch64 only, but mlx-rs calls them on every platform.
#if !defined(__aarch64__)
#include "mlx/c/array.h"
#include "mlx/c/error.h"
#include "mlx/c/private/mlx.h"

namespace {

template <typename T>
int item(T* result, const mlx_array array) {
  try {
    *result = mlx_array_get_(array).item<T>();
    return 0;
  } catch (std::exception& error) {
    mlx_error(error.what());
    return 1;
  }
}

template <typename T>
const T* data(const mlx_array array) {
  try {
    return mlx_array_get_(array).data<T>();
  } catch (std::exception& error) {
    mlx_error(error.what());
    return nullptr;
  }
}

} // namespace

using half = mlx::core::float16_t;
using brain = mlx::core::bfloat16_t;

extern "C" int mlx_array_item_float16(half* result, const mlx_array array) { return item(result, array); }
extern "C" int mlx_array_item_bfloat16(brain* result, const mlx_array array) { return item(result, array); }
extern "C" const half* mlx_array_data_float16(const mlx_array array) { return data<half>(array); }
extern "C" const brain* mlx_array_data_bfloat16(const mlx_array array) { return data<brain>(array); }
#endif
