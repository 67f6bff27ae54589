// What is done to rows of numbers, on the calling thread and its helpers.
#pragma once
#include "kernels.h"

namespace hive {

// y[tokens][m.rows] = x[tokens][m.columns] times the matrix, plus the residual where there is one.
void multiply(const Matrix& m, const float* x, int tokens, const float* residual, float* y);

// RMS norm of each row.
void normalize(const float* x, const float* weight, float eps, int width, int tokens, float* y);

// silu(gate) * up of each row: [tokens][2 * width] to [tokens][width].
void activate(const float* gate_up, int width, int tokens, float* y);

// Attention of one session. Writes its new keys and values into the cache in place: rows past a cache's length are
// nobody's, so whoever holds the same buffers sees nothing change.
void attend(const AttentionShape& s, const HeadWeights& weights, const float* qkv, float* keys, float* values, float* out);

// Networks of which each row passes a few: gate and up of all experts stacked in one matrix, the ways back in another.
// `picked` and `shares` are [tokens][per_token]. A row's sum is in the order of its experts' numbers.
void pass_experts(const Matrix& gate_up, const Matrix& down, int count, const float* x, const std::uint32_t* picked,
                  const float* shares, int tokens, int per_token, float* y);

} // namespace hive
