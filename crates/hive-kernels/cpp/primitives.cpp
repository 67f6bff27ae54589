// The kernels as MLX primitives: lazy like any other operation, evaluated on MLX's CPU thread, rows split over threads.
// The C functions at the end are what src/ffi.rs declares.

#include <stdexcept>
#include <vector>

#include "handles.h"
#include "rows.h"
#include "threads.h"

#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/mlx.h"
#include "mlx/primitives.h"

namespace hive {
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

  template <typename F>
  void dispatch(F&& body) {
    mx::cpu::get_command_encoder(stream()).dispatch(std::forward<F>(body));
  }
};

class Matmul : public CpuOnly {
 public:
  Matmul(mx::Stream stream, Matrix matrix, bool residual) : CpuOnly(stream), matrix_(matrix), residual_(residual) {}
  const char* name() const override { return "HiveMatmul"; }

  // Inputs: x, the matrix's arrays, and the residual, if there is one.
  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const float* x = floats(inputs[0]);
    const Matrix m = matrix_;
    const float* residual = residual_ ? floats(inputs.back()) : nullptr;
    const int tokens = static_cast<int>(inputs[0].size() / m.columns);
    float* y = allocate(outputs[0]);
    dispatch([=] { multiply(m, x, tokens, residual, y); });
  }

 private:
  Matrix matrix_;
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

class Gate : public CpuOnly {
 public:
  Gate(mx::Stream stream, Activation activation) : CpuOnly(stream), activation_(activation) {}
  const char* name() const override { return "HiveGate"; }

  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const float* gate_up = floats(inputs[0]);
    const int width = inputs[0].shape(-1) / 2;
    const int tokens = static_cast<int>(inputs[0].size() / (2 * width));
    float* y = allocate(outputs[0]);
    dispatch([=, activation = activation_] { activate(activation, 0.0f, gate_up, width, tokens, y); });
  }

 private:
  Activation activation_;
};

class Attention : public CpuOnly {
 public:
  Attention(mx::Stream stream, AttentionShape shape, const AttentionHandles& handles) : CpuOnly(stream), shape_(shape), handles_(handles) {}
  const char* name() const override { return "HiveAttention"; }

  // Inputs: qkv, keys, values, periods, and norms and sinks, if there are any.
  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const float* qkv = floats(inputs[0]);
    float* keys = const_cast<float*>(floats(inputs[1]));
    float* values = const_cast<float*>(floats(inputs[2]));
    std::size_t next = 3;
    const auto data = [&](Handle part) { return part.ctx ? floats(inputs[next++]) : nullptr; };
    HeadWeights weights{data(handles_.periods),  handles_.rope_scale,     handles_.rope_magnitude, nullptr, nullptr, handles_.eps,
                        handles_.growth,         handles_.growth_context, nullptr};
    weights.q_norm = data(handles_.q_norm);
    weights.k_norm = data(handles_.k_norm);
    weights.sinks = data(handles_.sinks);
    float* out = allocate(outputs[0]);
    dispatch([=, s = shape_] { attend(s, weights, qkv, keys, values, out); });
  }

 private:
  AttentionShape shape_;
  // Which parts there are, and numbers; the arrays themselves are inputs.
  AttentionHandles handles_;
};

struct ExpertHandles {
  Handle gate_up_bias;
  Handle down_bias;
  int count;
  int activation;
  float limit;
};

// As src/ffi.rs asserts on its side.
static_assert(sizeof(ExpertHandles) == 32 && std::is_standard_layout_v<ExpertHandles>);
static_assert(offsetof(ExpertHandles, gate_up_bias) == 0);
static_assert(offsetof(ExpertHandles, down_bias) == 8);
static_assert(offsetof(ExpertHandles, count) == 16);
static_assert(offsetof(ExpertHandles, activation) == 20);
static_assert(offsetof(ExpertHandles, limit) == 24);

class PassExperts : public CpuOnly {
 public:
  PassExperts(mx::Stream stream, Matrix gate_up, Matrix down, const ExpertHandles& handles)
      : CpuOnly(stream), gate_up_(gate_up), down_(down), handles_(handles) {}
  const char* name() const override { return "HiveExperts"; }

  // Inputs: x, picked, shares, the biases, if there are any, and the matrices' arrays.
  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const float* x = floats(inputs[0]);
    if (inputs[1].dtype() != mx::uint32 || !inputs[1].flags().row_contiguous)
      throw std::runtime_error("the numbers of experts are no contiguous uint32 array");
    const std::uint32_t* picked = inputs[1].data<std::uint32_t>();
    const float* shares = floats(inputs[2]);
    const int tokens = inputs[1].shape(0), per_token = inputs[1].shape(1);
    std::size_t next = 3;
    const auto bias = [&](Handle part) { return part.ctx ? floats(inputs[next++]) : nullptr; };
    Experts experts{handles_.count, gate_up_, down_, nullptr, nullptr, static_cast<Activation>(handles_.activation), handles_.limit};
    experts.gate_up_bias = bias(handles_.gate_up_bias);
    experts.down_bias = bias(handles_.down_bias);
    float* y = allocate(outputs[0]);
    dispatch([=] { pass_experts(experts, x, picked, shares, tokens, per_token, y); });
  }

 private:
  Matrix gate_up_;
  Matrix down_;
  // Which biases there are, and numbers; the biases themselves are inputs.
  ExpertHandles handles_;
};

struct DeltaHandles {
  Handle convolution;
  Handle rates;
  Handle step_bias;
  Handle norm;
  int key_heads;
  int value_heads;
  int key_dim;
  int value_dim;
  int taps;
  float eps;
  float length_eps;
};

// As src/ffi.rs asserts on its side.
static_assert(sizeof(DeltaHandles) == 64 && std::is_standard_layout_v<DeltaHandles>);
static_assert(offsetof(DeltaHandles, convolution) == 0);
static_assert(offsetof(DeltaHandles, rates) == 8);
static_assert(offsetof(DeltaHandles, step_bias) == 16);
static_assert(offsetof(DeltaHandles, norm) == 24);
static_assert(offsetof(DeltaHandles, key_heads) == 32);
static_assert(offsetof(DeltaHandles, value_heads) == 36);
static_assert(offsetof(DeltaHandles, key_dim) == 40);
static_assert(offsetof(DeltaHandles, value_dim) == 44);
static_assert(offsetof(DeltaHandles, taps) == 48);
static_assert(offsetof(DeltaHandles, eps) == 52);
static_assert(offsetof(DeltaHandles, length_eps) == 56);

class Delta : public CpuOnly {
 public:
  Delta(mx::Stream stream, DeltaShape shape) : CpuOnly(stream), shape_(shape) {}
  const char* name() const override { return "HiveDelta"; }

  // Inputs: rows, seen, state, and the weights in the order of DeltaWeights. Outputs: the rows read, seen, state.
  void eval_cpu(const std::vector<mx::array>& inputs, std::vector<mx::array>& outputs) override {
    const float *rows = floats(inputs[0]), *seen = floats(inputs[1]), *state = floats(inputs[2]);
    const DeltaWeights weights{floats(inputs[3]), floats(inputs[4]), floats(inputs[5]), floats(inputs[6])};
    float *y = allocate(outputs[0]), *now_seen = allocate(outputs[1]), *now_state = allocate(outputs[2]);
    dispatch([=, s = shape_] { change_state(s, weights, rows, seen, state, y, now_seen, now_state); });
  }

 private:
  DeltaShape shape_;
};

mx::Stream stream_of(Handle handle) { return *static_cast<mx::Stream*>(handle.ctx); }

} // namespace
} // namespace hive

using namespace hive;

extern "C" {

const char* hive_last_error() { return last_error.c_str(); }
void hive_set_threads(int count) { set_threads(count); }

int hive_matmul(Handle* out, Handle x, const MatrixHandles* matrix, Handle residual, Handle stream) {
  return guarded(out, [&] {
    std::vector<mx::array> inputs{get(x), get(matrix->weights)};
    for (const Handle& part : {matrix->scales, matrix->biases})
      if (part.ctx) inputs.push_back(get(part));
    if (residual.ctx) inputs.push_back(get(residual));
    auto shape = get(x).shape();
    shape.back() = matrix->rows;
    const auto product = std::make_shared<Matmul>(stream_of(stream), matrix_of(*matrix), residual.ctx != nullptr);
    return mx::array(shape, mx::float32, product, std::move(inputs));
  });
}

int hive_rms_norm(Handle* out, Handle x, Handle weight, float eps, Handle stream) {
  return guarded(out, [&] {
    return mx::array(get(x).shape(), mx::float32, std::make_shared<RmsNorm>(stream_of(stream), eps), {get(x), get(weight)});
  });
}

int hive_gate(Handle* out, Handle gate_up, int activation, Handle stream) {
  return guarded(out, [&] {
    auto shape = get(gate_up).shape();
    shape.back() /= 2;
    const auto gate = std::make_shared<Gate>(stream_of(stream), static_cast<Activation>(activation));
    return mx::array(shape, mx::float32, gate, {get(gate_up)});
  });
}

int hive_attention(Handle* out, Handle qkv, Handle keys, Handle values, const AttentionHandles* attention, int offset, Handle stream) {
  return guarded(out, [&] {
    const int tokens = get(qkv).shape(0);
    const AttentionShape s = shape_of(*attention, tokens, offset, get(values).shape(1));
    std::vector<mx::array> inputs{get(qkv), get(keys), get(values)};
    for (const Handle& part : {attention->periods, attention->q_norm, attention->k_norm, attention->sinks})
      if (part.ctx) inputs.push_back(get(part));
    return mx::array(mx::Shape{tokens, s.heads * s.head_dim}, mx::float32,
                     std::make_shared<Attention>(stream_of(stream), s, *attention), std::move(inputs));
  });
}

// Stores three arrays.
int hive_delta(Handle* out, Handle rows, Handle seen, Handle state, const DeltaHandles* d, Handle stream) {
  try {
    const int tokens = get(rows).shape(0);
    const DeltaShape s{tokens, d->key_heads, d->value_heads, d->key_dim, d->value_dim, d->taps, d->eps, d->length_eps};
    auto made = mx::array::make_arrays(
        {mx::Shape{tokens, s.values()}, mx::Shape{s.taps - 1, s.channels()}, mx::Shape{s.value_heads, s.key_dim, s.value_dim}},
        {mx::float32, mx::float32, mx::float32}, std::make_shared<Delta>(stream_of(stream), s),
        {get(rows), get(seen), get(state), get(d->convolution), get(d->rates), get(d->step_bias), get(d->norm)});
    for (int i = 0; i < 3; ++i) out[i].ctx = new mx::array(made[i]);
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
    return 1;
  }
}

int hive_experts(Handle* out, Handle x, Handle picked, Handle shares, const MatrixHandles* gate_up, const MatrixHandles* down,
                 const ExpertHandles* experts, Handle stream) {
  return guarded(out, [&] {
    std::vector<mx::array> inputs{get(x), get(picked), get(shares)};
    for (const Handle& bias : {experts->gate_up_bias, experts->down_bias})
      if (bias.ctx) inputs.push_back(get(bias));
    for (const MatrixHandles* matrix : {gate_up, down})
      for (const Handle& part : {matrix->weights, matrix->scales, matrix->biases})
        if (part.ctx) inputs.push_back(get(part));
    const auto pass = std::make_shared<PassExperts>(stream_of(stream), matrix_of(*gate_up), matrix_of(*down), *experts);
    return mx::array(get(x).shape(), mx::float32, pass, std::move(inputs));
  });
}

} // extern "C"
