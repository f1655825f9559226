// Products of rows of floats with matrices in blocks of LANES rows, the same columns of all side by side: one at a time,
// or in bfloat16 two.
#pragma once
#include "numbers.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace redraft {

#if defined(__AVX512F__)
constexpr int64_t LANES = 16;
constexpr int MOST_ROWS = 6;
#else
constexpr int64_t LANES = 8;
constexpr int MOST_ROWS = 2;
#endif
// Blocks that the same rows meet at once.
constexpr int BLOCKS = 4;
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

// float32, and bfloat16 where the CPU has no products of it.
struct Single {
  using Item = float;
  static constexpr int64_t STEP = 1;
  static Item item(float x) { return x; }
  static void add(Lanes& sum, const Item* x, const Item* w) {
    sum += *x * *reinterpret_cast<const Lanes*>(w);
  }
};

#if defined(__AVX512BF16__)
struct Pairs {
  using Item = uint16_t;
  static constexpr int64_t STEP = 2;
  static Item item(float x) { return bfloat16_of(x); }
  static void add(Lanes& sum, const Item* x, const Item* w) {
    int32_t two;
    std::memcpy(&two, x, sizeof two);
    const __m512i both = _mm512_set1_epi32(two), weights = _mm512_loadu_si512(w);
    sum = (Lanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)both, (__m512bh)weights);
  }
};
#else
using Pairs = Single;
#endif

// out[t] = T rows of x times BLOCKS blocks that lie `stride` items apart.
template <typename U, int T>
inline void product(const typename U::Item* const (&x)[T], const typename U::Item* w, int64_t stride, int64_t steps,
                    Lanes (&out)[T][BLOCKS]) {
  Lanes sum[T][BLOCKS];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 8
    for (int b = 0; b < BLOCKS; ++b) sum[t][b] = Lanes{};
  for (int64_t k = 0; k < steps; ++k) {
    const typename U::Item* const at = w + k * LANES * U::STEP;
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 8
      for (int b = 0; b < BLOCKS; ++b) U::add(sum[t][b], x[t] + k * U::STEP, at + b * stride);
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 8
    for (int b = 0; b < BLOCKS; ++b) out[t][b] = sum[t][b];
}

}  // namespace redraft
