// Products of rows of floats with matrices in blocks of LANES rows, the same columns of all side by side: one at a time,
// or in bfloat16 two.
#pragma once
#include "numbers.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#include <arm_neon.h>
#endif

namespace redraft {

#if defined(__AVX512F__)
constexpr int64_t LANES = 16;
constexpr int MOST_ROWS = 6;
#elif defined(__aarch64__)
constexpr int64_t LANES = 4;
constexpr int MOST_ROWS = 6;
#else
constexpr int64_t LANES = 8;
constexpr int MOST_ROWS = 2;
#endif
// Blocks that the same rows meet at once.
constexpr int BLOCKS = 4;
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float))));
// A step's items of LANES rows.
typedef uint32_t Words __attribute__((vector_size(LANES * sizeof(uint32_t))));

// A vector of what lies anywhere.
template <typename Vector>
inline Vector loaded(const void* from) {
  Vector found;
  std::memcpy(&found, from, sizeof found);
  return found;
}

#if defined(__AVX512BF16__)
#define REDRAFT_PAIRS
// Products of pairs of bfloat16, two a lane, added up.
inline Lanes add_pairs(Lanes sum, Words a, Words b) {
  return (Lanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define REDRAFT_PAIRS
inline Lanes add_pairs(Lanes sum, Words a, Words b) {
  return vbfdotq_f32(sum, vreinterpretq_bf16_u32(a), vreinterpretq_bf16_u32(b));
}
#endif

// float32, and bfloat16 where the CPU has no products of it.
struct Single {
  using Item = float;
  static constexpr int64_t STEP = 1;
  static Item item(float x) { return x; }
  static void add(Lanes& sum, const Item* x, Words w) { sum += *x * (Lanes)w; }
};

#if defined(REDRAFT_PAIRS)
struct Pairs {
  using Item = uint16_t;
  static constexpr int64_t STEP = 2;
  static Item item(float x) { return bfloat16_of(x); }
  static void add(Lanes& sum, const Item* x, Words w) {
    uint32_t two;
    std::memcpy(&two, x, sizeof two);
    sum = add_pairs(sum, Words{} + two, w);
  }
};
#else
using Pairs = Single;
#endif

// sum[t] += T rows of x, `stride` items apart, times BLOCKS blocks of which word(step, block) has a step's items.
template <typename U, int T, typename F>
inline void product(const typename U::Item* x, int64_t stride, int64_t steps, F&& word, Lanes (&sum)[T][BLOCKS]) {
  for (int64_t k = 0; k < steps; ++k)
#pragma GCC unroll 8
    for (int b = 0; b < BLOCKS; ++b) {
      const Words w = word(k, b);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) U::add(sum[t][b], x + t * stride + k * U::STEP, w);
    }
}

}  // namespace redraft
