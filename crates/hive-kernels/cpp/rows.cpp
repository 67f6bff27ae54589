// Rows split over threads. Rooms that are thread-local are the calling thread's, and grow to what it has needed most.
#include "rows.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "threads.h"

namespace hive {

#if defined(HIVE_X86)
extern const Kernels kernels_avx512;
extern const Kernels kernels_avx2;
#endif
extern const Kernels kernels_baseline;

namespace {
const Kernels* forced = nullptr;

const Kernels& best() {
#if defined(HIVE_X86)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    return kernels_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) return kernels_avx2;
#endif
  return kernels_baseline;
}
} // namespace

const Kernels& kernels() {
  static const Kernels& chosen = best();
  return forced ? *forced : chosen;
}

namespace {

// Blocks of rows per unit of work: large enough to keep the multiply-add units busy, small enough to share evenly.
int blocks_per_unit(int blocks, int tokens) {
  const int count = threads();
  if (count == 1) return blocks;
  int best = 4;
  int best_time = 1 << 30;
  for (int size : {8, 4, 2}) {
    if (tokens > 8 && size > 4) continue;
    const int units = (blocks + size - 1) / size;
    const int time = (units + count - 1) / count * size;
    if (time < best_time) {
      best_time = time;
      best = size;
    }
  }
  return best;
}

// Rows per unit for work that goes token by token.
constexpr int kTokensPerUnit = 16;

} // namespace

void multiply(const Matrix& m, const float* x, int tokens, const float* residual, float* y) {
  const Kernels& k = kernels();
  const int groups = m.columns / m.group;
  static thread_local std::vector<float> sums;
  static thread_local std::vector<float> scratch;
  if (m.scales) {
    sums.resize(static_cast<std::size_t>(tokens) * groups);
    for (int t = 0; t < tokens; ++t)
      k.group_sums(x + static_cast<std::size_t>(t) * m.columns, m.columns, m.group, sums.data() + static_cast<std::size_t>(t) * groups);
    if (m.scaling == Scaling::F16Multiple || m.scaling == Scaling::F32Multiple)
      for (float& sum : sums) sum *= m.multiple;
  }
  const std::size_t panel = panel_floats(m.columns);
  if (tokens > 1) scratch.resize(panel * threads());
  const int blocks = m.rows / kLanes;
  const int size = blocks_per_unit(blocks, tokens);
  const float* sum = sums.data();
  float* room = scratch.data();
  parallel_for((blocks + size - 1) / size, [&](int unit, int worker) {
    const int first = unit * size;
    const int count = first + size > blocks ? blocks - first : size;
    k.matmul(m, x, sum, tokens, first, count, residual, y, room + panel * worker);
  });
}

void normalize(const float* x, const float* weight, float eps, int width, int tokens, float* y) {
  for (std::size_t t = 0; t < static_cast<std::size_t>(tokens); ++t) kernels().rms_norm(x + t * width, weight, eps, width, y + t * width);
}

void activate(Activation activation, float limit, const float* gate_up, int width, int tokens, float* y) {
  const Kernels& k = kernels();
  parallel_for((tokens + kTokensPerUnit - 1) / kTokensPerUnit, [&](int unit, int) {
    for (int t = unit * kTokensPerUnit; t < tokens && t < (unit + 1) * kTokensPerUnit; ++t) {
      const float* row = gate_up + static_cast<std::size_t>(t) * 2 * width;
      float* to = y + static_cast<std::size_t>(t) * width;
      switch (activation) {
        case Activation::Silu: k.swiglu(row, width, to); break;
        case Activation::Gelu: k.geglu(row, width, to); break;
        case Activation::Clamped: k.clamped_swiglu(row, width, limit, to); break;
      }
    }
  });
}

void attend(const AttentionShape& s, const HeadWeights& weights, const float* qkv, float* keys, float* values, float* out) {
  const Kernels& k = kernels();
  static thread_local std::vector<float> q;
  static thread_local std::vector<float> scores;
  q.resize(static_cast<std::size_t>(s.tokens) * s.heads * s.head_dim);
  scores.resize(static_cast<std::size_t>(s.capacity) * threads());
  float* queries = q.data();
  float* room = scores.data();
  for (int t = 0; t < s.tokens; ++t) k.rope_and_store(s, weights, qkv, t, queries, keys, values);
  // A few tokens of one head at a time: enough to share, and the head's keys stay in cache.
  const int at_once = s.tokens < kTokensPerUnit ? 1 : kTokensPerUnit;
  const int spans = (s.tokens + at_once - 1) / at_once;
  parallel_for(spans * s.heads, [&](int unit, int worker) {
    const int head = unit % s.heads;
    const int first = unit / s.heads * at_once;
    for (int t = first; t < s.tokens && t < first + at_once; ++t)
      k.attend(s, weights.sinks ? weights.sinks + head : nullptr, queries, keys, values, t, head, room + static_cast<std::size_t>(s.capacity) * worker, out);
  });
}

namespace {

std::size_t element_bytes(Format format) { return format == Format::F16 || format == Format::BF16 ? 2 : 4; }

int per_element(Format format) { return format == Format::Q4 ? 8 : format == Format::Q8 ? 4 : 1; }

std::size_t scale_bytes(Scaling scaling) { return scaling == Scaling::F32 || scaling == Scaling::F32Multiple ? 4 : 2; }

// One of several matrices that are stacked.
Matrix one_of(const Matrix& all, int count, int n) {
  Matrix one = all;
  one.rows = all.rows / count;
  const std::size_t first = static_cast<std::size_t>(n) * one.rows;
  const auto at = [](const void* data, std::size_t bytes) {
    return data ? static_cast<const void*>(static_cast<const char*>(data) + bytes) : nullptr;
  };
  const std::size_t groups = all.columns / all.group;
  one.weights = at(all.weights, first * (all.columns / per_element(all.format)) * element_bytes(all.format));
  one.scales = at(all.scales, first * groups * scale_bytes(all.scaling));
  one.biases = at(all.biases, first * groups * scale_bytes(all.scaling));
  return one;
}

void add_to_rows(const float* bias, int width, int rows, float* y) {
  for (int r = 0; r < rows; ++r)
    for (int i = 0; i < width; ++i) y[static_cast<std::size_t>(r) * width + i] += bias[i];
}

} // namespace

void pass_experts(const Experts& experts, const float* x, const std::uint32_t* picked, const float* shares, int tokens,
                  int per_token, float* y) {
  const auto& [count, gate_up, down, gate_up_bias, down_bias, activation, limit] = experts;
  const int hidden = gate_up.columns;
  const int inner = down.columns;
  struct Pair {
    std::uint32_t expert;
    int token;
    float share;
  };
  static thread_local std::vector<Pair> pairs;
  pairs.clear();
  for (int t = 0; t < tokens; ++t)
    for (int i = 0; i < per_token; ++i) {
      // A number that no expert has is read as the last one's: nothing outside the matrices is read.
      const std::uint32_t expert = std::min(picked[t * per_token + i], static_cast<std::uint32_t>(count - 1));
      pairs.push_back({expert, t, shares[t * per_token + i]});
    }
  std::stable_sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) { return a.expert < b.expert; });
  std::fill(y, y + static_cast<std::size_t>(tokens) * hidden, 0.0f);
  static thread_local std::vector<float> room;
  for (std::size_t first = 0; first < pairs.size();) {
    std::size_t end = first;
    while (end < pairs.size() && pairs[end].expert == pairs[first].expert) ++end;
    const int rows = static_cast<int>(end - first);
    const int expert = static_cast<int>(pairs[first].expert);
    room.resize(static_cast<std::size_t>(rows) * (2 * hidden + 3 * inner));
    float* in = room.data();
    float* gates = in + static_cast<std::size_t>(rows) * hidden;
    float* activated = gates + static_cast<std::size_t>(rows) * 2 * inner;
    float* out = activated + static_cast<std::size_t>(rows) * inner;
    for (int r = 0; r < rows; ++r)
      std::memcpy(in + static_cast<std::size_t>(r) * hidden, x + static_cast<std::size_t>(pairs[first + r].token) * hidden,
                  sizeof(float) * hidden);
    multiply(one_of(gate_up, count, expert), in, rows, nullptr, gates);
    if (gate_up_bias) add_to_rows(gate_up_bias + static_cast<std::size_t>(expert) * 2 * inner, 2 * inner, rows, gates);
    activate(activation, limit, gates, inner, rows, activated);
    multiply(one_of(down, count, expert), activated, rows, nullptr, out);
    if (down_bias) add_to_rows(down_bias + static_cast<std::size_t>(expert) * hidden, hidden, rows, out);
    for (int r = 0; r < rows; ++r) {
      float* to = y + static_cast<std::size_t>(pairs[first + r].token) * hidden;
      const float* from = out + static_cast<std::size_t>(r) * hidden;
      for (int i = 0; i < hidden; ++i) to[i] += pairs[first + r].share * from[i];
    }
    first = end;
  }
}

} // namespace hive

extern "C" {

const char* hive_kernels_name() { return hive::kernels().name; }

// 0 if the processor has the set.
int hive_force_kernels(const char* name) {
#if defined(HIVE_X86)
  if (!std::strcmp(name, "avx512") && __builtin_cpu_supports("avx512dq")) return hive::forced = &hive::kernels_avx512, 0;
  if (!std::strcmp(name, "avx2") && __builtin_cpu_supports("avx2")) return hive::forced = &hive::kernels_avx2, 0;
#endif
  if (!std::strcmp(name, "baseline")) return hive::forced = &hive::kernels_baseline, 0;
  return 1;
}

} // extern "C"
