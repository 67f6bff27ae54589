// Gated delta nets: a convolution over a few tokens, a state for each value head that every token changes, and a norm with a
// gate. Tokens follow each other, and heads are shared among threads, so that the numbers depend on neither.

#include <cmath>
#include <cstring>
#include <vector>

#include "rows.h"
#include "threads.h"

namespace hive {

void change_state(const DeltaShape& s, const DeltaWeights& w, const float* rows, const float* seen, const float* state, float* y,
                  float* now_seen, float* now_state) {
  const Kernels& k = kernels();
  const int channels = s.channels();
  const int values = s.values();
  const std::size_t width = channels + values + 2 * s.value_heads;
  const int key_width = s.key_heads * s.key_dim;
  const auto row_at = [&](int t) {
    return t < 0 ? seen + static_cast<std::size_t>(s.taps - 1 + t) * channels : rows + static_cast<std::size_t>(t) * width;
  };
  static thread_local std::vector<float> room;
  room.resize(static_cast<std::size_t>(s.tokens) * channels);
  float* mixed = room.data();
  const float scale = 1.0f / std::sqrt(static_cast<float>(s.key_dim));
  parallel_for(s.tokens, [&](int t, int) {
    std::vector<const float*> before(s.taps);
    for (int tap = 0; tap < s.taps; ++tap) before[tap] = row_at(t - s.taps + 1 + tap);
    float* out = mixed + static_cast<std::size_t>(t) * channels;
    k.convolve(before.data(), w.convolution, s.taps, channels, channels, out);
    for (int head = 0; head < 2 * s.key_heads; ++head)
      k.to_length(out + static_cast<std::size_t>(head) * s.key_dim, s.key_dim, s.length_eps, head < s.key_heads ? scale : 1.0f);
  });
  const std::size_t state_size = static_cast<std::size_t>(s.key_dim) * s.value_dim;
  parallel_for(s.value_heads, [&](int head, int) {
    const int key_head = head / (s.value_heads / s.key_heads);
    const float* from = state + head * state_size;
    float* to = now_state + head * state_size;
    for (int t = 0; t < s.tokens; ++t) {
      const float* row = rows + static_cast<std::size_t>(t) * width;
      const float* in = mixed + static_cast<std::size_t>(t) * channels;
      const float* gates = row + channels + values;
      const float written = 1.0f / (1.0f + std::exp(-gates[head]));
      const float step = gates[s.value_heads + head] + w.step_bias[head];
      const float softplus = step > 20.0f ? step : std::log1p(std::exp(step));
      const float kept = std::exp(w.rates[head] * softplus);
      float* out = y + static_cast<std::size_t>(t) * values + static_cast<std::size_t>(head) * s.value_dim;
      k.delta(from, to, s.key_dim, s.value_dim, in + static_cast<std::size_t>(key_head) * s.key_dim,
              in + key_width + static_cast<std::size_t>(key_head) * s.key_dim,
              in + 2 * key_width + static_cast<std::size_t>(head) * s.value_dim, kept, written, out);
      k.gated_norm(out, row + channels + static_cast<std::size_t>(head) * s.value_dim, w.norm, s.eps, s.value_dim);
      from = to;
    }
  });
  for (int tap = 0; tap < s.taps - 1; ++tap)
    std::memcpy(now_seen + static_cast<std::size_t>(tap) * channels, row_at(s.tokens - s.taps + 1 + tap), sizeof(float) * channels);
}

} // namespace hive
