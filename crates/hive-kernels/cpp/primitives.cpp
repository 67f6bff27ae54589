// The kernels as MLX primitives: lazy like any other operation, evaluated on MLX's CPU thread, rows split over threads.
// The C functions at the end are what src/ffi.rs declares.

#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"
#include "threads.h"

#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/mlx.h"
#include "mlx/primitives.h"

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

namespace mx = mlx::core;

class CpuOnly : public mx::Primitive {
 public:
  using mx::Primitive::Primitive;
  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error("the fast kernels run on the CPU only");
  }

 protected:
  static float* allocate(mx::array& out) {
    out.set_data(mx::allocator::malloc(out.nbytes()));
    return out.data<float>();
  }

  static const float* floats(const mx::array& in) {
    if (in.dtype() != mx::float32 || !in.flags().row_contiguous)
      throw std::runtime_error("the fast kernels take contiguous float32 arrays");
    return in.data<float>();
  }

  // The matrix with its weights, and its scales and biases if it has them, from the inputs on from `next`.
  static Matrix with_data(Matrix m, const std::vector<mx::array>& inputs, std::size_t& next) {
    m.weights = inputs[next++].data<void>();
    if (m.format == Format::Q4 || m.format == Format::Q8) {
      m.scales = floats(inputs[next++]);
      m.biases = floats(inputs[next++]);
    }
    return m;
  }

  template <typename F>
  void dispatch(F&& body) {
    mx::cpu::get_command_encoder(stream()).dispatch(std::forward<F>(body));
  }
};

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

// What the primitives do, on the thread that evaluates them. Rooms that are thread-local are that thread's, and grow to what it
// has needed most.

// y = x times the matrix, plus the residual where there is one.
void multiply(const Matrix& m, const float* x, int tokens, const float* residual, float* y) {
  const Kernels& k = kernels();
  const int groups = m.columns / m.group;
  static thread_local std::vector<float> sums;
  static thread_local std::vector<float> scratch;
  if (m.scales) {
    sums.resize(static_cast<std::size_t>(tokens) * groups);
    for (int t = 0; t < tokens; ++t)
      k.group_sums(x + static_cast<std::size_t>(t) * m.columns, m.columns, m.group, sums.data() + static_cast<std::size_t>(t) * groups);
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

// Rows per unit for work that goes token by token.
constexpr int kTokensPerUnit = 16;

void activate(const float* gate_up, int width, int tokens, float* y) {
  parallel_for((tokens + kTokensPerUnit - 1) / kTokensPerUnit, [&](int unit, int) {
    for (int t = unit * kTokensPerUnit; t < tokens && t < (unit + 1) * kTokensPerUnit; ++t)
      kernels().swiglu(gate_up + static_cast<std::size_t>(t) * 2 * width, width, y + static_cast<std::size_t>(t) * width);
  });
}

// Writes the new keys and values into the cache in place: rows past a cache's length are nobody's, so whoever holds
// the same buffers sees nothing change.
void attend(const AttentionShape& s, const Rope& rope, const float* qkv, float* keys, float* values, float* out) {
  const Kernels& k = kernels();
  static thread_local std::vector<float> q;
  static thread_local std::vector<float> scores;
  q.resize(static_cast<std::size_t>(s.tokens) * s.heads * s.head_dim);
  scores.resize(static_cast<std::size_t>(s.capacity) * threads());
  float* queries = q.data();
  float* room = scores.data();
  for (int t = 0; t < s.tokens; ++t) k.rope_and_store(s, rope, qkv, t, queries, keys, values);
  // A few tokens of one head at a time: enough to share, and the head's keys stay in cache.
  const int at_once = s.tokens < kTokensPerUnit ? 1 : kTokensPerUnit;
  const int spans = (s.tokens + at_once - 1) / at_once;
  parallel_for(spans * s.heads, [&](int unit, int worker) {
    const int head = unit % s.heads;
    const int first = unit / s.heads * at_once;
    for (int t = first; t < s.tokens && t < first + at_once; ++t)
      k.attend(s, queries, keys, values, t, head, room + static_cast<std::size_t>(s.capacity) * worker, out);
  });
}

class Matmul : public CpuOnly {
 public:
  Matmul(mx::Stream stream, Matrix shape, bool residual) : CpuOnly(stream), shape_(shape), residual_(residual) {}
  const char* name() const override { return "HiveMatmul"; }

  // Inputs: x, weights, [scales, biases], [residual].
  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const float* x = floats(inputs[0]);
    std::size_t next = 1;
    const Matrix m = with_data(shape_, inputs, next);
    const float* residual = residual_ ? floats(inputs[next]) : nullptr;
    const int tokens = static_cast<int>(inputs[0].size() / m.columns);
    float* y = allocate(outputs[0]);
    dispatch([=] { multiply(m, x, tokens, residual, y); });
  }

 private:
  Matrix shape_;
  bool residual_;
};

class RmsNorm : public CpuOnly {
 public:
  RmsNorm(mx::Stream stream, float eps) : CpuOnly(stream), eps_(eps) {}
  const char* name() const override { return "HiveRmsNorm"; }

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const float* x = floats(inputs[0]);
    const float* weight = floats(inputs[1]);
    const int width = inputs[1].size();
    const int tokens = static_cast<int>(inputs[0].size() / width);
    float* y = allocate(outputs[0]);
    dispatch([=, eps = eps_] { normalize(x, weight, eps, width, tokens, y); });
  }

 private:
  float eps_;
};

class Swiglu : public CpuOnly {
 public:
  using CpuOnly::CpuOnly;
  const char* name() const override { return "HiveSwiglu"; }

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const float* gate_up = floats(inputs[0]);
    const int width = inputs[0].shape(-1) / 2;
    const int tokens = static_cast<int>(inputs[0].size() / (2 * width));
    float* y = allocate(outputs[0]);
    dispatch([=] { activate(gate_up, width, tokens, y); });
  }
};

class Attention : public CpuOnly {
 public:
  Attention(mx::Stream stream, AttentionShape shape, float rope_scale) : CpuOnly(stream), shape_(shape), rope_scale_(rope_scale) {}
  const char* name() const override { return "HiveAttention"; }

  // Inputs: qkv, keys, values, periods.
  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const float* qkv = floats(inputs[0]);
    float* keys = const_cast<float*>(floats(inputs[1]));
    float* values = const_cast<float*>(floats(inputs[2]));
    const Rope rope{floats(inputs[3]), rope_scale_};
    float* out = allocate(outputs[0]);
    dispatch([=, s = shape_] { attend(s, rope, qkv, keys, values, out); });
  }

 private:
  AttentionShape shape_;
  float rope_scale_;
};

// The matrices and the rest of what a layer is, without its data.
struct LayerShape {
  Matrix qkv;
  Matrix output;
  Matrix gate_up;
  Matrix down;
  AttentionShape attention;
  float rope_scale;
  float eps;
};

// A whole layer as one operation: for a token, building seven and handing each to another thread takes as long as some of them.
// The same functions in the same order, so the same bits.
class Layer : public CpuOnly {
 public:
  Layer(mx::Stream stream, LayerShape shape) : CpuOnly(stream), shape_(shape) {}
  const char* name() const override { return "HiveLayer"; }

  // Inputs: x, both norms' weights, periods, keys, values, and the matrices, each with scales and biases if it has them.
  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const float* x = floats(inputs[0]);
    const float* attention_norm = floats(inputs[1]);
    const float* mlp_norm = floats(inputs[2]);
    const Rope rope{floats(inputs[3]), shape_.rope_scale};
    float* keys = const_cast<float*>(floats(inputs[4]));
    float* values = const_cast<float*>(floats(inputs[5]));
    LayerShape s = shape_;
    std::size_t next = 6;
    for (Matrix* m : {&s.qkv, &s.output, &s.gate_up, &s.down}) *m = with_data(*m, inputs, next);
    float* y = allocate(outputs[0]);
    dispatch([=] {
      const int tokens = s.attention.tokens;
      const int width = s.qkv.columns;
      const auto rows = [&](int columns) { return static_cast<std::size_t>(tokens) * columns; };
      static thread_local std::vector<float> room;
      room.resize(rows(2 * width + s.qkv.rows + s.output.columns + s.gate_up.rows + s.down.columns));
      float* normed = room.data();
      float* attended_onto = normed + rows(width);
      float* qkv = attended_onto + rows(width);
      float* attended = qkv + rows(s.qkv.rows);
      float* gate_up = attended + rows(s.output.columns);
      float* activated = gate_up + rows(s.gate_up.rows);
      normalize(x, attention_norm, s.eps, width, tokens, normed);
      multiply(s.qkv, normed, tokens, nullptr, qkv);
      attend(s.attention, rope, qkv, keys, values, attended);
      multiply(s.output, attended, tokens, x, attended_onto);
      normalize(attended_onto, mlp_norm, s.eps, width, tokens, normed);
      multiply(s.gate_up, normed, tokens, nullptr, gate_up);
      activate(gate_up, s.down.columns, tokens, activated);
      multiply(s.down, activated, tokens, attended_onto, y);
    });
  }

 private:
  LayerShape shape_;
};

struct Handle {
  void* ctx;
};

// As src/ffi.rs has them.
struct MatrixHandles {
  Handle weights;
  Handle scales;
  Handle biases;
  int format;
  int rows;
  int columns;
  int group;
};
struct LayerHandles {
  Handle attention_norm;
  Handle mlp_norm;
  Handle periods;
  Handle keys;
  Handle values;
  MatrixHandles qkv;
  MatrixHandles output;
  MatrixHandles gate_up;
  MatrixHandles down;
  int heads;
  int kv_heads;
  int head_dim;
  int offset;
  float scale;
  float rope_scale;
  float eps;
};

const mx::array& get(Handle handle) { return *static_cast<mx::array*>(handle.ctx); }
mx::Stream stream_of(Handle handle) { return *static_cast<mx::Stream*>(handle.ctx); }

thread_local std::string last_error;

// Runs `body`, which returns an array; 0 and the array in `out`, or 1 and the reason in hive_last_error.
template <typename F>
int guarded(Handle* out, F&& body) {
  try {
    out->ctx = new mx::array(body());
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
    return 1;
  }
}

} // namespace
} // namespace hive

using namespace hive;

extern "C" {

const char* hive_last_error() { return last_error.c_str(); }
const char* hive_kernels_name() { return kernels().name; }
void hive_set_threads(int count) { set_threads(count); }

// 0 if the processor has the set.
int hive_force_kernels(const char* name) {
#if defined(HIVE_X86)
  if (!std::strcmp(name, "avx512") && __builtin_cpu_supports("avx512dq")) return forced = &kernels_avx512, 0;
  if (!std::strcmp(name, "avx2") && __builtin_cpu_supports("avx2")) return forced = &kernels_avx2, 0;
#endif
  if (!std::strcmp(name, "baseline")) return forced = &kernels_baseline, 0;
  return 1;
}

int hive_matmul(Handle* out, Handle x, Handle weights, Handle scales, Handle biases, Handle residual, int format, int rows,
                int columns, int group, Handle stream) {
  return guarded(out, [&] {
    std::vector<mx::array> inputs{get(x), get(weights)};
    if (scales.ctx) {
      inputs.push_back(get(scales));
      inputs.push_back(get(biases));
    }
    if (residual.ctx) inputs.push_back(get(residual));
    auto shape = get(x).shape();
    shape.back() = rows;
    const Matrix m{static_cast<Format>(format), rows, columns, group, nullptr, nullptr, nullptr};
    return mx::array(shape, mx::float32, std::make_shared<Matmul>(stream_of(stream), m, residual.ctx != nullptr), std::move(inputs));
  });
}

int hive_rms_norm(Handle* out, Handle x, Handle weight, float eps, Handle stream) {
  return guarded(out, [&] {
    return mx::array(get(x).shape(), mx::float32, std::make_shared<RmsNorm>(stream_of(stream), eps), {get(x), get(weight)});
  });
}

int hive_swiglu(Handle* out, Handle gate_up, Handle stream) {
  return guarded(out, [&] {
    auto shape = get(gate_up).shape();
    shape.back() /= 2;
    return mx::array(shape, mx::float32, std::make_shared<Swiglu>(stream_of(stream)), {get(gate_up)});
  });
}

int hive_attention(Handle* out, Handle qkv, Handle keys, Handle values, Handle periods, int heads, int kv_heads, int head_dim,
                   int offset, float scale, float rope_scale, Handle stream) {
  return guarded(out, [&] {
    const int tokens = get(qkv).shape(0);
    const AttentionShape s{tokens, heads, kv_heads, head_dim, offset, get(values).shape(1), scale};
    return mx::array(mx::Shape{tokens, heads * head_dim}, mx::float32, std::make_shared<Attention>(stream_of(stream), s, rope_scale),
                     {get(qkv), get(keys), get(values), get(periods)});
  });
}

int hive_layer(Handle* out, Handle x, const LayerHandles* layer, Handle stream) {
  return guarded(out, [&] {
    const LayerHandles& l = *layer;
    std::vector<mx::array> inputs{get(x), get(l.attention_norm), get(l.mlp_norm), get(l.periods), get(l.keys), get(l.values)};
    const auto matrix = [&](const MatrixHandles& m) {
      inputs.push_back(get(m.weights));
      if (m.scales.ctx) {
        inputs.push_back(get(m.scales));
        inputs.push_back(get(m.biases));
      }
      return Matrix{static_cast<Format>(m.format), m.rows, m.columns, m.group, nullptr, nullptr, nullptr};
    };
    LayerShape s;
    s.qkv = matrix(l.qkv);
    s.output = matrix(l.output);
    s.gate_up = matrix(l.gate_up);
    s.down = matrix(l.down);
    s.attention = {get(x).shape(0), l.heads, l.kv_heads, l.head_dim, l.offset, get(l.values).shape(1), l.scale};
    s.rope_scale = l.rope_scale;
    s.eps = l.eps;
    return mx::array(get(x).shape(), mx::float32, std::make_shared<Layer>(stream_of(stream), s), std::move(inputs));
  });
}

} // extern "C"
