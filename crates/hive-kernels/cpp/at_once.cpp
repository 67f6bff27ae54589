// A few tokens through a whole layer, or through the end of the model, on the calling thread: building an operation for MLX and
// handing it to another thread takes as long as some of them compute. The same functions as the primitives' in the same
// order, so the same bits.

#include <vector>

#include "handles.h"
#include "rows.h"

#include "mlx/allocator.h"

namespace hive {
namespace {

namespace mx = mlx::core;

// As src/ffi.rs has them.
struct LayerHandles {
  Handle attention_norm;
  Handle mlp_norm;
  AttentionHandles attention;
  MatrixHandles qkv;
  MatrixHandles output;
  MatrixHandles gate_up;
  MatrixHandles down;
  float eps;
};
struct SessionHandles {
  Handle keys;
  Handle values;
  int offset;
  int tokens;
};

// As src/ffi.rs asserts on its side.
static_assert(sizeof(LayerHandles) == 296 && std::is_standard_layout_v<LayerHandles>);
static_assert(offsetof(LayerHandles, attention_norm) == 0);
static_assert(offsetof(LayerHandles, mlp_norm) == 8);
static_assert(offsetof(LayerHandles, attention) == 16);
static_assert(offsetof(LayerHandles, qkv) == 96);
static_assert(offsetof(LayerHandles, output) == 144);
static_assert(offsetof(LayerHandles, gate_up) == 192);
static_assert(offsetof(LayerHandles, down) == 240);
static_assert(offsetof(LayerHandles, eps) == 288);
static_assert(sizeof(SessionHandles) == 24 && std::is_standard_layout_v<SessionHandles>);
static_assert(offsetof(SessionHandles, keys) == 0);
static_assert(offsetof(SessionHandles, values) == 8);
static_assert(offsetof(SessionHandles, offset) == 16);
static_assert(offsetof(SessionHandles, tokens) == 20);

const float* computed(Handle handle) {
  if (!get(handle).is_available()) get(handle).eval();
  return floats(get(handle));
}

mx::array room_for(int rows, int columns) {
  return mx::array(mx::allocator::malloc(static_cast<std::size_t>(rows) * columns * sizeof(float)), {rows, columns}, mx::float32);
}

} // namespace
} // namespace hive

using namespace hive;

extern "C" {

int hive_layer(Handle* out, Handle x_handle, const LayerHandles* layer, const SessionHandles* sessions, int count) {
  return guarded(out, [&] {
    const LayerHandles& l = *layer;
    const float* x = computed(x_handle);
    const int tokens = get(x_handle).shape(0);
    const Matrix qkv = matrix_of(l.qkv), output = matrix_of(l.output), gate_up = matrix_of(l.gate_up), down = matrix_of(l.down);
    for (const Handle& part : {l.attention.periods, l.attention.q_norm, l.attention.k_norm, l.attention.sinks})
      if (part.ctx) computed(part);
    const HeadWeights heads = head_weights_of(l.attention);
    const int width = qkv.columns;
    const auto rows = [&](int columns) { return static_cast<std::size_t>(tokens) * columns; };
    static thread_local std::vector<float> room;
    room.resize(rows(2 * width + qkv.rows + output.columns + gate_up.rows + down.columns));
    float* normed = room.data();
    float* attended_onto = normed + rows(width);
    float* mixed = attended_onto + rows(width);
    float* attended = mixed + rows(qkv.rows);
    float* gates = attended + rows(output.columns);
    float* activated = gates + rows(gate_up.rows);
    mx::array y = room_for(tokens, width);

    normalize(x, computed(l.attention_norm), l.eps, width, tokens, normed);
    multiply(qkv, normed, tokens, nullptr, mixed);
    int first = 0;
    for (const SessionHandles* s = sessions; s != sessions + count; first += s++->tokens) {
      const AttentionShape shape = shape_of(l.attention, s->tokens, s->offset, get(s->values).shape(1));
      attend(shape, heads, mixed + static_cast<std::size_t>(first) * qkv.rows, const_cast<float*>(computed(s->keys)),
             const_cast<float*>(computed(s->values)), attended + static_cast<std::size_t>(first) * output.columns);
    }
    multiply(output, attended, tokens, x, attended_onto);
    normalize(attended_onto, computed(l.mlp_norm), l.eps, width, tokens, normed);
    multiply(gate_up, normed, tokens, nullptr, gates);
    activate(Activation::Silu, 0.0f, gates, down.columns, tokens, activated);
    multiply(down, activated, tokens, attended_onto, y.data<float>());
    return y;
  });
}

int hive_head(Handle* out, Handle x_handle, const int* rows, int count, Handle norm, float eps, const MatrixHandles* matrix) {
  return guarded(out, [&] {
    const float* x = computed(x_handle);
    const Matrix m = matrix_of(*matrix);
    static thread_local std::vector<float> normed;
    normed.resize(static_cast<std::size_t>(count) * m.columns);
    for (int i = 0; i < count; ++i)
      normalize(x + static_cast<std::size_t>(rows[i]) * m.columns, computed(norm), eps, m.columns, 1,
                normed.data() + static_cast<std::size_t>(i) * m.columns);
    mx::array logits = room_for(count, m.rows);
    multiply(m, normed.data(), count, nullptr, logits.data<float>());
    return logits;
  });
}

} // extern "C"
