// Runs of elementwise operations that MLX makes one kernel of, on a GPU. Each result is rounded as if it stood alone.
#include <cmath>
#include <numbers>
#include <vector>

#include "handles.h"

namespace hive {
namespace {

using mlx::core::array;
using Arrays = std::vector<array>;

array number(float value, const array& like) { return array(value, like.dtype()); }

Arrays silu(const Arrays& in) {
  const array &gate = in[0], &up = in[1];
  return {gate * mlx::core::sigmoid(gate) * up};
}

Arrays gelu(const Arrays& in) {
  const array &gate = in[0], &up = in[1];
  const array inner = gate + mlx::core::power(gate, number(3.0f, gate)) * number(0.044715f, gate);
  const array grown = mlx::core::tanh(inner * number(std::sqrt(2.0f / std::numbers::pi_v<float>), gate));
  return {gate * number(0.5f, gate) * (grown + number(1.0f, gate)) * up};
}

// The third is the limit.
Arrays clamped(const Arrays& in) {
  const array gate = mlx::core::minimum(in[0], in[2]);
  const array up = mlx::core::maximum(mlx::core::minimum(in[1], in[2]), -in[2]);
  return {gate * mlx::core::sigmoid(gate * number(1.702f, gate)) * (up + number(1.0f, gate))};
}

} // namespace
} // namespace hive

// `[…, 2 width] -> […, width]`, of any float type.
extern "C" int hive_fused_gate(hive::Handle* out, hive::Handle gate_up, int width, int activation, float limit) {
  return hive::guarded(out, [&] {
    using namespace hive;
    // Traced once: a compiled function knows its kernels as long as it lives.
    static thread_local const auto of_silu = mlx::core::compile(silu, true);
    static thread_local const auto of_gelu = mlx::core::compile(gelu, true);
    static thread_local const auto of_clamped = mlx::core::compile(clamped, true);
    const array& both = get(gate_up);
    const Arrays halves = mlx::core::split(both, mlx::core::Shape{width}, -1);
    switch (activation) {
      case 0: return of_silu(halves)[0];
      case 1: return of_gelu(halves)[0];
      default: return of_clamped({halves[0], halves[1], number(limit, both)})[0];
    }
  });
}
