// The arithmetic. Compiled once per instruction set, with a 16-lane vector type that the compiler lowers to one
// AVX-512 register, two AVX2 ones or four NEON ones.
//
// What holds: an output element depends only on its own row of weights and its own row of x, summed in one fixed
// order with fused multiply-adds. So results are the same bits whatever the batch, the number of threads or the
// instruction set, and a prompt recomputed in other chunks gives the very same key-value cache. Between x86 and Arm, positions
// may differ in a last bit: sine and cosine are those of the system's library.

#include "kernels.h"

#include <cmath>
#include <cstring>
#include <limits>
#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#endif

#define HIVE_CAT2(a, b) a##b
#define HIVE_CAT(a, b) HIVE_CAT2(a, b)

namespace hive {
namespace {

typedef float Floats __attribute__((vector_size(64)));
typedef std::uint32_t Words __attribute__((vector_size(64)));
typedef std::int32_t Ints __attribute__((vector_size(64)));
typedef std::uint16_t Halves __attribute__((vector_size(32)));
#if !defined(__x86_64__)
typedef __fp16 HalfFloats __attribute__((vector_size(32)));
#endif

template <typename V, typename T>
inline V load(const T* from) {
  V value;
  std::memcpy(&value, from, sizeof(V));
  return value;
}

inline void store(float* to, Floats value) { std::memcpy(to, &value, sizeof(value)); }
inline Floats splat(float value) { return Floats{} + value; }

// The lanes added pairwise: a tree, the same on every instruction set.
inline float sum_lanes(Floats v) {
  float a[16];
  store(a, v);
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) a[i] += a[i + width];
  return a[0];
}

inline float max_lanes(Floats v) {
  float best = v[0];
  for (int i = 1; i < 16; ++i) best = v[i] > best ? v[i] : best;
  return best;
}

// e^x, to about 1e-7 relative; x at most 0 or small. Cephes' polynomial after splitting off the power of two.
inline Floats exp_lanes(Floats x) {
  const Floats low = splat(-87.0f);
  const Floats high = splat(88.0f);
  x = x < low ? low : x;
  x = x > high ? high : x;
  // Adding and taking away 1.5 * 2^23 rounds to the nearest integer.
  const Floats magic = splat(12582912.0f);
  Floats n = x * 1.44269504088896341f + magic;
  n = n - magic;
  Floats r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  Floats p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  Floats result = p * (r * r) + r + 1.0f;
  Ints power = (__builtin_convertvector(n, Ints) + 127) << 23;
  Floats scale;
  std::memcpy(&scale, &power, sizeof(scale));
  return result * scale;
}

// ---- numbers of 16 bits ----

inline Floats from_f16(Halves w) {
#if defined(__AVX512F__)
  return (Floats)_mm512_cvtph_ps((__m256i)w);
#elif defined(__F16C__)
  const __m256 halves[2] = {_mm256_cvtph_ps(_mm256_castsi256_si128((__m256i)w)), _mm256_cvtph_ps(_mm256_extractf128_si256((__m256i)w, 1))};
  return load<Floats>(halves);
#elif defined(__x86_64__)
  // No instruction for it: shift the bits into place and rescale the exponent.
  Words bits = __builtin_convertvector(w, Words);
  Words sign = (bits & 0x8000u) << 16;
  Words magnitude = (bits & 0x7fffu) << 13;
  Floats value;
  std::memcpy(&value, &magnitude, sizeof(value));
  value = value * 0x1p112f;
  Words out;
  std::memcpy(&out, &value, sizeof(out));
  out |= sign;
  return (Floats)out;
#else
  return __builtin_convertvector((HalfFloats)w, Floats);
#endif
}

inline Floats from_bf16(Halves w) { return (Floats)(__builtin_convertvector(w, Words) << 16); }

// ---- weights, 16 rows at a time ----

template <Format F>
struct Unpack;

// Calls `use(k, w)` for the columns [first, last) with the 16 rows' weights as floats (unscaled).
template <>
struct Unpack<Format::Q4> {
  static constexpr int per_word = 8;
  using Element = std::uint32_t;
  static inline Floats nibble(Words w) {
#if defined(__AVX512F__)
    // A permutation looks at the low four bits of each index only: a table of 0.0 .. 15.0 masks and converts at once.
    const __m512 table = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return (Floats)_mm512_permutexvar_ps((__m512i)w, table);
#else
    return __builtin_convertvector((Ints)(w & 15u), Floats);
#endif
  }
  static inline Floats take(Words w, int i) { return nibble(w >> (4 * i)); }
};

template <>
struct Unpack<Format::Q8> {
  static constexpr int per_word = 4;
  using Element = std::uint32_t;
  static inline Floats take(Words w, int i) { return __builtin_convertvector((Ints)((w >> (8 * i)) & 255u), Floats); }
};

template <>
struct Unpack<Format::F32> {
  static constexpr int per_word = 1;
  using Element = std::uint32_t;
  static inline Floats take(Words w, int) { return (Floats)w; }
};

template <>
struct Unpack<Format::F16> {
  static constexpr int per_word = 1;
  using Element = std::uint16_t;
  static inline Floats take(Halves w, int) { return from_f16(w); }
};

template <>
struct Unpack<Format::BF16> {
  static constexpr int per_word = 1;
  using Element = std::uint16_t;
  static inline Floats take(Halves w, int) { return from_bf16(w); }
};

template <Format F>
inline auto load_word(const typename Unpack<F>::Element* from) {
  if constexpr (sizeof(typename Unpack<F>::Element) == 4) {
    return load<Words>(from);
  } else {
    return load<Halves>(from);
  }
}

void group_sums(const float* x, int columns, int group, float* sums) {
  for (int first = 0; first < columns; first += group) {
    Floats sum = load<Floats>(x + first);
    for (int k = 16; k < group; k += 16) sum = sum + load<Floats>(x + first + k);
    sums[first / group] = sum_lanes(sum);
  }
}

// The scales and biases of 16 rows in one group of columns.
struct Affine {
  Floats scale;
  Floats bias;
};

template <Scaling S>
inline Affine affine_of(const Matrix& m, int block, int g) {
  const std::size_t at = (static_cast<std::size_t>(block) * (m.columns / m.group) + g) * kLanes;
  if constexpr (S == Scaling::F32) {
    return {load<Floats>(static_cast<const float*>(m.scales) + at), load<Floats>(static_cast<const float*>(m.biases) + at)};
  } else if constexpr (S == Scaling::F32Multiple) {
    const Floats scale = load<Floats>(static_cast<const float*>(m.scales) + at);
    return {scale, scale};
  } else {
    const Halves scales = load<Halves>(static_cast<const std::uint16_t*>(m.scales) + at);
    if constexpr (S == Scaling::F16Multiple) {
      const Floats scale = from_f16(scales);
      return {scale, scale};
    } else {
      const Halves biases = load<Halves>(static_cast<const std::uint16_t*>(m.biases) + at);
      if constexpr (S == Scaling::F16) return {from_f16(scales), from_f16(biases)};
      return {from_bf16(scales), from_bf16(biases)};
    }
  }
}

// How a matrix's products are scaled: one scale and bias for each group, in some format, or none at all.
struct Unscaled {
  static constexpr bool scaled = false;
};
template <Scaling S>
struct Scaled {
  static constexpr bool scaled = true;
  static inline Affine of(const Matrix& m, int block, int g) { return affine_of<S>(m, block, g); }
};

// One group of columns done: y += scale * partial + bias * sum of x.
inline Floats finish_group(const Affine& affine, float sum, Floats partial, Floats y) {
  y = affine.scale * partial + y;
  return affine.bias * sum + y;
}

inline void write(const Matrix& m, int token, int block, const float* residual, float* y, Floats value) {
  const std::size_t at = static_cast<std::size_t>(token) * m.rows + static_cast<std::size_t>(block) * kLanes;
  if (residual) value = value + load<Floats>(residual + at);
  store(y + at, value);
}

// Few tokens: weights are unpacked in registers. B blocks at once keep the multiply-add units busy.
template <Format F, typename A, int B, int T>
inline void few(const Matrix& m, const float* x, const float* sums, int token, int block, const float* residual, float* y) {
  using U = Unpack<F>;
  const auto* weights = static_cast<const typename U::Element*>(m.weights);
  const int words = m.columns / U::per_word;
  const int groups = m.columns / m.group;
  const int words_per_group = m.group / U::per_word;
  Floats total[T][B] = {};
  for (int g = 0; g < groups; ++g) {
    Floats partial[T][B] = {};
    for (int w = g * words_per_group; w < (g + 1) * words_per_group; ++w) {
      decltype(load_word<F>(weights)) word[B];
      for (int b = 0; b < B; ++b) word[b] = load_word<F>(weights + (static_cast<std::size_t>(block + b) * words + w) * kLanes);
#pragma GCC unroll 8
      for (int i = 0; i < U::per_word; ++i) {
        const int k = w * U::per_word + i;
        for (int b = 0; b < B; ++b) {
          const Floats weight = U::take(word[b], i);
          for (int t = 0; t < T; ++t) partial[t][b] = weight * x[static_cast<std::size_t>(token + t) * m.columns + k] + partial[t][b];
        }
      }
    }
    for (int b = 0; b < B; ++b) {
      if constexpr (A::scaled) {
        const Affine affine = A::of(m, block + b, g);
        for (int t = 0; t < T; ++t)
          total[t][b] = finish_group(affine, sums[static_cast<std::size_t>(token + t) * groups + g], partial[t][b], total[t][b]);
      } else {
        for (int t = 0; t < T; ++t) total[t][b] = partial[t][b];
      }
    }
  }
  for (int t = 0; t < T; ++t)
    for (int b = 0; b < B; ++b) write(m, token + t, block + b, residual, y, total[t][b]);
}

template <Format F, typename A, int B>
void few_tokens(const Matrix& m, const float* x, const float* sums, int tokens, int block, const float* residual, float* y) {
  int token = 0;
  for (; token + 4 <= tokens; token += 4) few<F, A, B, 4>(m, x, sums, token, block, residual, y);
  for (; token + 2 <= tokens; token += 2) few<F, A, B, 2>(m, x, sums, token, block, residual, y);
  for (; token < tokens; ++token) few<F, A, B, 1>(m, x, sums, token, block, residual, y);
}

// Many tokens: weights are unpacked once into a panel that stays in cache, and every token passes over it.
#if defined(__AVX512F__)
inline constexpr int kTokensAtOnce = 12;
inline constexpr int kBlocksAtOnce = 2;
#elif defined(__AVX2__)
inline constexpr int kTokensAtOnce = 5;
inline constexpr int kBlocksAtOnce = 1;
#else
inline constexpr int kTokensAtOnce = 4;
inline constexpr int kBlocksAtOnce = 1;
#endif

template <Format F, int B>
void fill_panel(const Matrix& m, int block, float* panel) {
  using U = Unpack<F>;
  const auto* weights = static_cast<const typename U::Element*>(m.weights);
  const int words = m.columns / U::per_word;
  for (int b = 0; b < B; ++b)
    for (int w = 0; w < words; ++w) {
      const auto word = load_word<F>(weights + (static_cast<std::size_t>(block + b) * words + w) * kLanes);
      for (int i = 0; i < U::per_word; ++i)
        store(panel + (static_cast<std::size_t>(w * U::per_word + i) * B + b) * kLanes, U::take(word, i));
    }
}

template <typename A, int B, int T>
inline void pass(const Matrix& m, const float* panel, const float* x, const float* sums, int token, int block,
                 const float* residual, float* y) {
  const int groups = m.columns / m.group;
  const float* rows[T];
  for (int t = 0; t < T; ++t) rows[t] = x + static_cast<std::size_t>(token + t) * m.columns;
  Floats total[T][B] = {};
  for (int g = 0; g < groups; ++g) {
    Floats partial[T][B] = {};
    for (int k = g * m.group; k < (g + 1) * m.group; ++k) {
      Floats weight[B];
      for (int b = 0; b < B; ++b) weight[b] = load<Floats>(panel + (static_cast<std::size_t>(k) * B + b) * kLanes);
#pragma GCC unroll 12
      for (int t = 0; t < T; ++t) {
        const float value = rows[t][k];
        for (int b = 0; b < B; ++b) partial[t][b] = weight[b] * value + partial[t][b];
      }
    }
    for (int b = 0; b < B; ++b) {
      if constexpr (A::scaled) {
        const Affine affine = A::of(m, block + b, g);
        for (int t = 0; t < T; ++t)
          total[t][b] = finish_group(affine, sums[static_cast<std::size_t>(token + t) * groups + g], partial[t][b], total[t][b]);
      } else {
        for (int t = 0; t < T; ++t) total[t][b] = partial[t][b];
      }
    }
  }
  for (int t = 0; t < T; ++t)
    for (int b = 0; b < B; ++b) write(m, token + t, block + b, residual, y, total[t][b]);
}

template <Format F, typename A, int B>
void many_tokens(const Matrix& m, const float* x, const float* sums, int tokens, int block, const float* residual, float* y,
                 float* panel) {
  fill_panel<F, B>(m, block, panel);
  int token = 0;
  for (; token + kTokensAtOnce <= tokens; token += kTokensAtOnce)
    pass<A, B, kTokensAtOnce>(m, panel, x, sums, token, block, residual, y);
  for (; token + 4 <= tokens; token += 4) pass<A, B, 4>(m, panel, x, sums, token, block, residual, y);
  for (; token < tokens; ++token) pass<A, B, 1>(m, panel, x, sums, token, block, residual, y);
}

// From this many tokens on, filling a panel costs less than unpacking again for every four tokens.
inline constexpr int kManyTokens = 9;

template <Format F, typename A>
void matmul_of(const Matrix& m, const float* x, const float* sums, int tokens, int first, int blocks, const float* residual,
               float* y, float* scratch) {
  const int end = first + blocks;
  int block = first;
  if (tokens >= kManyTokens) {
    if constexpr (kBlocksAtOnce == 2)
      for (; block + 2 <= end; block += 2) many_tokens<F, A, 2>(m, x, sums, tokens, block, residual, y, scratch);
    for (; block < end; ++block) many_tokens<F, A, 1>(m, x, sums, tokens, block, residual, y, scratch);
    return;
  }
  for (; block + 4 <= end; block += 4) few_tokens<F, A, 4>(m, x, sums, tokens, block, residual, y);
  for (; block + 2 <= end; block += 2) few_tokens<F, A, 2>(m, x, sums, tokens, block, residual, y);
  for (; block < end; ++block) few_tokens<F, A, 1>(m, x, sums, tokens, block, residual, y);
}

template <Format F>
void scaled_matmul(const Matrix& m, const float* x, const float* sums, int tokens, int first, int blocks, const float* residual,
                   float* y, float* scratch) {
  switch (m.scaling) {
    case Scaling::F32: return matmul_of<F, Scaled<Scaling::F32>>(m, x, sums, tokens, first, blocks, residual, y, scratch);
    case Scaling::F16: return matmul_of<F, Scaled<Scaling::F16>>(m, x, sums, tokens, first, blocks, residual, y, scratch);
    case Scaling::BF16: return matmul_of<F, Scaled<Scaling::BF16>>(m, x, sums, tokens, first, blocks, residual, y, scratch);
    case Scaling::F16Multiple:
      return matmul_of<F, Scaled<Scaling::F16Multiple>>(m, x, sums, tokens, first, blocks, residual, y, scratch);
    case Scaling::F32Multiple:
      return matmul_of<F, Scaled<Scaling::F32Multiple>>(m, x, sums, tokens, first, blocks, residual, y, scratch);
  }
}

void matmul(const Matrix& m, const float* x, const float* sums, int tokens, int first, int blocks, const float* residual,
            float* y, float* scratch) {
  switch (m.format) {
    case Format::Q4: return scaled_matmul<Format::Q4>(m, x, sums, tokens, first, blocks, residual, y, scratch);
    case Format::Q8: return scaled_matmul<Format::Q8>(m, x, sums, tokens, first, blocks, residual, y, scratch);
    case Format::F32: return matmul_of<Format::F32, Unscaled>(m, x, sums, tokens, first, blocks, residual, y, scratch);
    case Format::F16: return matmul_of<Format::F16, Unscaled>(m, x, sums, tokens, first, blocks, residual, y, scratch);
    case Format::BF16: return matmul_of<Format::BF16, Unscaled>(m, x, sums, tokens, first, blocks, residual, y, scratch);
  }
}

// ---- the rest of a layer ----

void rms_norm(const float* x, const float* weight, float eps, int width, float* y) {
  Floats squares = {};
  int i = 0;
  for (; i + 16 <= width; i += 16) {
    const Floats v = load<Floats>(x + i);
    squares = v * v + squares;
  }
  float sum = sum_lanes(squares);
  for (; i < width; ++i) sum += x[i] * x[i];
  const float scale = 1.0f / std::sqrt(sum / static_cast<float>(width) + eps);
  if (!weight) {
    for (i = 0; i + 16 <= width; i += 16) store(y + i, load<Floats>(x + i) * scale);
    for (; i < width; ++i) y[i] = x[i] * scale;
    return;
  }
  for (i = 0; i + 16 <= width; i += 16) store(y + i, load<Floats>(x + i) * scale * load<Floats>(weight + i));
  for (; i < width; ++i) y[i] = x[i] * scale * weight[i];
}

// y = silu(gate) * up, where a row is gate then up.
void swiglu(const float* gate_up, int width, float* y) {
  const float* up = gate_up + width;
  for (int i = 0; i < width; i += 16) {
    const Floats gate = load<Floats>(gate_up + i);
    store(y + i, gate / (1.0f + exp_lanes(-gate)) * load<Floats>(up + i));
  }
}

// gelu by tanh is x times the sigmoid of 2 sqrt(2 / pi) (x + 0.044715 x^3).
void geglu(const float* gate_up, int width, float* y) {
  const float* up = gate_up + width;
  for (int i = 0; i < width; i += 16) {
    const Floats gate = load<Floats>(gate_up + i);
    const Floats inner = gate * gate * gate * 0.044715f + gate;
    store(y + i, gate / (1.0f + exp_lanes(-1.5957691216f * inner)) * load<Floats>(up + i));
  }
}

void clamped_swiglu(const float* gate_up, int width, float limit, float* y) {
  const float* up = gate_up + width;
  const Floats most = splat(limit), least = splat(-limit);
  for (int i = 0; i < width; i += 16) {
    Floats gate = load<Floats>(gate_up + i), value = load<Floats>(up + i);
    gate = gate < most ? gate : most;
    value = value < most ? value : most;
    value = value > least ? value : least;
    store(y + i, gate / (1.0f + exp_lanes(-1.702f * gate)) * (value + 1.0f));
  }
}

inline void rotate(const float* in, float* out, std::size_t stride, const float* cosines, const float* sines, int half, int width) {
  for (int i = 0; i < half; ++i) {
    const float a = in[i];
    const float b = in[i + half];
    out[i * stride] = a * cosines[i] - b * sines[i];
    out[(i + half) * stride] = b * cosines[i] + a * sines[i];
  }
  for (int i = 2 * half; i < width; ++i) out[i * stride] = in[i];
}

// Keys lie in blocks of 16 positions, [kv_head][capacity / 16][head_dim][16], so that a lane is a key; values lie
// [kv_head][capacity][head_dim], so that a lane is a dimension.
void rope_and_store(const AttentionShape& s, const HeadWeights& w, const float* qkv, int t, float* q, float* keys, float* values) {
  const int half = s.rotated / 2;
  const int position = s.offset + t;
  const float* row = qkv + static_cast<std::size_t>(t) * s.row();
  float cosines[512];
  float sines[512];
  for (int i = 0; i < half; ++i) {
    const float angle = static_cast<float>(position) * w.scale / w.periods[i];
    cosines[i] = std::cos(angle) * w.magnitude;
    sines[i] = std::sin(angle) * w.magnitude;
  }
  float normed[1024];
  const auto norm = [&](const float* head, const float* weight) {
    if (!weight) return head;
    rms_norm(head, weight, w.eps, s.head_dim, normed);
    return static_cast<const float*>(normed);
  };
  float* q_row = q + static_cast<std::size_t>(t) * s.heads * s.head_dim;
  const float grown = w.growth == 0.0f ? 1.0f : 1.0f + w.growth * std::log(1.0f + std::floor(static_cast<float>(position) / w.growth_context));
  for (int h = 0; h < s.heads; ++h)
    rotate(norm(row + h * s.head_dim, w.q_norm), q_row + h * s.head_dim, 1, cosines, sines, half, s.head_dim);
  if (grown != 1.0f)
    for (int i = 0; i < s.heads * s.head_dim; ++i) q_row[i] *= grown;
  if (s.source == KvSource::Cached) return;
  row += s.heads * s.head_dim;
  for (int h = 0; h < s.kv_heads; ++h) {
    float* block = keys + (static_cast<std::size_t>(h) * (s.capacity / 16) + position / 16) * s.head_dim * 16 + position % 16;
    rotate(norm(row + h * s.head_dim, w.k_norm), block, 16, cosines, sines, half, s.head_dim);
  }
  if (s.source != KvSource::Joint) row += s.kv_heads * s.head_dim;
  for (int h = 0; h < s.kv_heads; ++h) {
    float* value = values + (static_cast<std::size_t>(h) * s.capacity + position) * s.head_dim;
    if (s.source == KvSource::Projected)
      std::memcpy(value, row + h * s.head_dim, sizeof(float) * s.head_dim);
    else
      rms_norm(row + h * s.head_dim, nullptr, w.eps, s.head_dim, value);
  }
}

template <int B>
inline void score_blocks(const float* q, const float* block, int head_dim, float scale, float* scores) {
  Floats sum[B] = {};
  for (int d = 0; d < head_dim; ++d)
    for (int b = 0; b < B; ++b) sum[b] = load<Floats>(block + (static_cast<std::size_t>(b) * head_dim + d) * 16) * q[d] + sum[b];
  for (int b = 0; b < B; ++b) store(scores + b * 16, sum[b] * scale);
}

void attend(const AttentionShape& s, const float* sink, const float* q, const float* keys, const float* values, int t, int head,
            float* scores, float* out) {
  const int kv_head = head / (s.heads / s.kv_heads);
  const int count = s.offset + t + 1;
  const int start = s.window > 0 && count > s.window ? count - s.window : 0;
  // Keys lie in blocks, and the first may begin before the window.
  const int first = start / 16;
  const int blocks = (count + 15) / 16;
  const float* query = q + (static_cast<std::size_t>(t) * s.heads + head) * s.head_dim;
  const float* key = keys + static_cast<std::size_t>(kv_head) * s.capacity * s.head_dim;
  int block = first;
  for (; block + 4 <= blocks; block += 4)
    score_blocks<4>(query, key + static_cast<std::size_t>(block) * s.head_dim * 16, s.head_dim, s.scale, scores + block * 16);
  for (; block < blocks; ++block)
    score_blocks<1>(query, key + static_cast<std::size_t>(block) * s.head_dim * 16, s.head_dim, s.scale, scores + block * 16);
  for (int i = first * 16; i < start; ++i) scores[i] = -std::numeric_limits<float>::infinity();
  for (int i = count; i < blocks * 16; ++i) scores[i] = -std::numeric_limits<float>::infinity();

  Floats most = splat(-std::numeric_limits<float>::infinity());
  for (int i = first * 16; i < blocks * 16; i += 16) {
    const Floats v = load<Floats>(scores + i);
    most = v > most ? v : most;
  }
  float top = max_lanes(most);
  if (sink && *sink > top) top = *sink;
  Floats sums = {};
  for (int i = first * 16; i < blocks * 16; i += 16) {
    Floats v = exp_lanes(load<Floats>(scores + i) - top);
    store(scores + i, v);
  }
  for (int i = first * 16; i < start; ++i) scores[i] = 0.0f;
  for (int i = count; i < blocks * 16; ++i) scores[i] = 0.0f;
  for (int i = first * 16; i < blocks * 16; i += 16) sums = sums + load<Floats>(scores + i);
  const float share = 1.0f / (sum_lanes(sums) + (sink ? std::exp(*sink - top) : 0.0f));

  const float* value = values + static_cast<std::size_t>(kv_head) * s.capacity * s.head_dim;
  float* target = out + (static_cast<std::size_t>(t) * s.heads + head) * s.head_dim;
  int d = 0;
  for (; d + 64 <= s.head_dim; d += 64) {
    Floats sum[4] = {};
    for (int i = start; i < count; ++i)
      for (int v = 0; v < 4; ++v) sum[v] = load<Floats>(value + static_cast<std::size_t>(i) * s.head_dim + d + v * 16) * scores[i] + sum[v];
    for (int v = 0; v < 4; ++v) store(target + d + v * 16, sum[v] * share);
  }
  for (; d < s.head_dim; d += 16) {
    Floats sum = {};
    for (int i = start; i < count; ++i) sum = load<Floats>(value + static_cast<std::size_t>(i) * s.head_dim + d) * scores[i] + sum;
    store(target + d, sum * share);
  }
}

// ---- gated delta nets ----

void convolve(const float* const* rows, const float* weights, int taps, int stride, int width, float* y) {
  for (int i = 0; i < width; i += 16) {
    Floats sum = {};
    for (int tap = 0; tap < taps; ++tap)
      sum = load<Floats>(rows[tap] + i) * load<Floats>(weights + static_cast<std::size_t>(tap) * stride + i) + sum;
    store(y + i, sum / (1.0f + exp_lanes(-sum)));
  }
}

void to_length(float* x, int width, float eps, float scale) {
  Floats squares = {};
  for (int i = 0; i < width; i += 16) {
    const Floats v = load<Floats>(x + i);
    squares = v * v + squares;
  }
  const float factor = scale / std::sqrt(sum_lanes(squares) + eps);
  for (int i = 0; i < width; i += 16) store(x + i, load<Floats>(x + i) * factor);
}

// B vectors of values at a time, whose part of the state stays in the cache between reading and writing.
template <int B>
inline void delta_block(const float* from, float* to, int key_dim, int value_dim, const float* q, const float* k, const float* v,
                        float kept, float written, float* y) {
  Floats said[B] = {};
  for (int i = 0; i < key_dim; ++i)
    for (int b = 0; b < B; ++b) {
      const Floats s = load<Floats>(from + static_cast<std::size_t>(i) * value_dim + b * 16) * kept;
      store(to + static_cast<std::size_t>(i) * value_dim + b * 16, s);
      said[b] = s * k[i] + said[b];
    }
  Floats change[B];
  for (int b = 0; b < B; ++b) change[b] = (load<Floats>(v + b * 16) - said[b]) * written;
  Floats read[B] = {};
  for (int i = 0; i < key_dim; ++i)
    for (int b = 0; b < B; ++b) {
      const Floats s = change[b] * k[i] + load<Floats>(to + static_cast<std::size_t>(i) * value_dim + b * 16);
      store(to + static_cast<std::size_t>(i) * value_dim + b * 16, s);
      read[b] = s * q[i] + read[b];
    }
  for (int b = 0; b < B; ++b) store(y + b * 16, read[b]);
}

void delta(const float* from, float* to, int key_dim, int value_dim, const float* q, const float* k, const float* v, float kept,
           float written, float* y) {
  int d = 0;
  for (; d + 64 <= value_dim; d += 64) delta_block<4>(from + d, to + d, key_dim, value_dim, q, k, v + d, kept, written, y + d);
  for (; d < value_dim; d += 16) delta_block<1>(from + d, to + d, key_dim, value_dim, q, k, v + d, kept, written, y + d);
}

void gated_norm(float* x, const float* gate, const float* weight, float eps, int width) {
  rms_norm(x, weight, eps, width, x);
  for (int i = 0; i < width; i += 16) {
    const Floats g = load<Floats>(gate + i);
    store(x + i, load<Floats>(x + i) * (g / (1.0f + exp_lanes(-g))));
  }
}

#define HIVE_STRING2(a) #a
#define HIVE_STRING(a) HIVE_STRING2(a)

} // namespace

extern const Kernels HIVE_CAT(kernels_, HIVE_ISA);
const Kernels HIVE_CAT(kernels_, HIVE_ISA) = {HIVE_STRING(HIVE_ISA), group_sums, matmul, rms_norm, swiglu, geglu, clamped_swiglu, rope_and_store, attend,
                                              convolve, to_length, delta, gated_norm};

} // namespace hive
