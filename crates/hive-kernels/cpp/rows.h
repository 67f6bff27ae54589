// Operations on rows of numbers, on the calling thread and its helpers.
#pragma once
#include "kernels.h"

namespace hive {

// y[tokens][m.rows] = x[tokens][m.columns] times the matrix, plus the residual where there is one.
void multiply(const Matrix& m, const float* x, int tokens, const float* residual, float* y);

// RMS norm of each row.
void normalize(const float* x, const float* weight, float eps, int width, int tokens, float* y);

// Combines gate and up of each row: [tokens][2 * width] to [tokens][width]. The limit is that of clamped SwiGLU.
void activate(Activation activation, float limit, const float* gate_up, int width, int tokens, float* y);

// Attention of one session. Writes its new keys and values into the cache in place: rows past a cache's length are
// nobody's, so whoever holds the same buffers sees nothing change.
void attend(const AttentionShape& s, const HeadWeights& weights, const float* qkv, float* keys, float* values, float* out);

// A gated delta net's weights besides its projections.
struct DeltaWeights {
  const float* convolution;  // [taps][channels]
  const float* rates;        // [value_heads]
  const float* step_bias;    // [value_heads]
  const float* norm;         // [value_dim]
};

// Tokens of one session, one after the other: see hive_kernels::delta for the shapes.
void change_state(const DeltaShape& s, const DeltaWeights& w, const float* rows, const float* seen, const float* state, float* y,
                  float* now_seen, float* now_state);

// Networks of which each row passes a few.
struct Experts {
  int count;
  Matrix gate_up;             // of all of them, stacked
  Matrix down;
  const float* gate_up_bias;  // [count][gate_up rows of one], or null
  const float* down_bias;     // [count][down rows of one], or null
  Activation activation;
  float limit;                // of clamped SwiGLU
};

// `picked` and `shares` are [tokens][per_token]. A row's sum is in the order of its experts' numbers.
void pass_experts(const Experts& experts, const float* x, const std::uint32_t* picked, const float* shares, int tokens,
                  int per_token, float* y);

} // namespace hive
