// The functions of one instruction set's kernels. Every set computes the same bits, see kernels.cpp.
#pragma once
#include <cstddef>
#include <cstdint>

namespace hive {

// Rows of a weight matrix are interleaved by this many, so that one vector lane is one output row.
inline constexpr int kLanes = 16;

enum class Format : int { Q4 = 0, Q8 = 1, F32 = 2, F16 = 3, BF16 = 4 };

// How the scales and biases of a quantized matrix are stored. The multiples have no biases: each is a multiple of its
// scale.
enum class Scaling : int { F32 = 0, F16 = 1, BF16 = 2, F16Multiple = 3, F32Multiple = 4 };

// A weight matrix [rows, columns], rows a multiple of kLanes, stored as [rows / 16][columns / per_word][16].
struct Matrix {
  Format format;
  Scaling scaling;
  int rows;
  int columns;
  int group;           // columns per scale; equals columns where the format has no scales
  float multiple;      // of the multiples, a power of two: multiplying with it loses no bits
  const void* weights;
  const void* scales;  // [rows / 16][columns / group][16], or null
  const void* biases;  // the same, or null where they are multiples
};

// What attention has besides its projections; null where a model has none.
struct HeadWeights {
  const float* periods;  // [rotated / 2]: the angle at position p is p / period
  float scale;           // multiplies the position
  float magnitude;       // multiplies the rotated values
  const float* q_norm;   // [head_dim]: RMS norm of each query, before it is rotated
  const float* k_norm;   // the same of each key
  float eps;             // of these norms, and of the values'
  float growth;          // queries at position p are multiplied by 1 + growth * ln(1 + floor(p / growth_context))
  float growth_context;
  const float* sinks;    // [heads]: a score that takes its share and adds nothing
};

// Where the keys and values of a layer come from; its input has queries, then keys, then values, as far as they are its own.
enum class KvSource : int {
  Projected = 0,     // they are in the input
  NormedValues = 1,  // the same, and each value is normalized
  Joint = 2,         // the keys in the input are also the values, each normalized
  Cached = 3,        // they are in the cache, where an earlier layer has put them
};

// What gate and up become.
enum class Activation : int { Silu = 0, Gelu = 1, Clamped = 2 };

struct AttentionShape {
  int tokens;
  int heads;
  int kv_heads;
  int head_dim;  // a multiple of 16
  int rotated;   // the first dimensions of a head, which are rotated; an even number
  int window;    // how many tokens a token attends to, itself included; 0 if to all
  int offset;    // position of the first token, and the number of keys before it
  int capacity;  // keys the cache has room for, a multiple of 16
  float scale;
  KvSource source;
  int row() const { return (heads + (source == KvSource::Cached ? 0 : source == KvSource::Joint ? 1 : 2) * kv_heads) * head_dim; }
};

// A gated delta net, see delta.cpp. Widths of heads are multiples of 16.
struct DeltaShape {
  int tokens;
  int key_heads;
  int value_heads;
  int key_dim;
  int value_dim;
  int taps;
  float eps;         // of the norm of the output
  float length_eps;  // added to the squares of queries and keys
  int channels() const { return 2 * key_heads * key_dim + value_heads * value_dim; }
  int values() const { return value_heads * value_dim; }
};

struct Kernels {
  const char* name;
  // Sum of x over each group: sums[columns / group] for one row of x.
  void (*group_sums)(const float* x, int columns, int group, float* sums);
  // y[m][first_block*16 ...] for the blocks given. `residual` may be null. `scratch` holds panel_floats(columns). Where biases
  // are multiples of the scales, `sums` have been multiplied by that.
  void (*matmul)(const Matrix&, const float* x, const float* sums, int tokens, int first_block, int blocks,
                 const float* residual, float* y, float* scratch);
  // The weights may be null.
  void (*rms_norm)(const float* x, const float* weight, float eps, int width, float* y);
  void (*swiglu)(const float* gate_up, int width, float* y);
  // The same by gelu, with tanh.
  void (*geglu)(const float* gate_up, int width, float* y);
  // The same as gpt-oss has it: both clamped to the limit.
  void (*clamped_swiglu)(const float* gate_up, int width, float limit, float* y);
  // Rotates token t of qkv: queries to `q`, its key and value into the cache, unless they are there.
  void (*rope_and_store)(const AttentionShape&, const HeadWeights&, const float* qkv, int t, float* q, float* keys, float* values);
  // One head of one token. `scores` holds capacity floats; `sink` is null or the head's.
  void (*attend)(const AttentionShape&, const float* sink, const float* q, const float* keys, const float* values, int t, int head,
                 float* scores, float* out);
  // silu of the sum of the products of `taps` rows, each `stride` behind the one before, with as many rows of weights:
  // `width` channels, a multiple of 16. rows[tap] begins at the first of them.
  void (*convolve)(const float* const* rows, const float* weights, int taps, int stride, int width, float* y);
  // x / sqrt(its squares + eps) * scale, in place; `width` is a multiple of 16.
  void (*to_length)(float* x, int width, float eps, float scale);
  // One token and head: keeps a share of the state [key_dim][value_dim], replaces a share of what it says about the key,
  // and reads it. `from` and `to` may be the same.
  void (*delta)(const float* from, float* to, int key_dim, int value_dim, const float* q, const float* k, const float* v,
                float kept, float written, float* y);
  // y = RMS norm of x, times silu(gate), in place.
  void (*gated_norm)(float* x, const float* gate, const float* weight, float eps, int width);
};

inline constexpr int kPanelBlocks = 2;
inline std::size_t panel_floats(int columns) { return static_cast<std::size_t>(columns) * kLanes * kPanelBlocks; }

// The best set this processor has.
const Kernels& kernels();

} // namespace hive
