// Products of bytes by the instructions that add up four of them at once. A matrix lies in blocks of LANES rows, in which
// the same four columns of all rows stand side by side; x is 128 higher than what is meant, and EXCESS times each row's
// sum is too much.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

namespace redraft {

inline int32_t four_bytes(const uint8_t* x) {
  int32_t four;
  std::memcpy(&four, x, sizeof four);
  return four;
}

#if defined(__ARM_FEATURE_DOTPROD)
constexpr int64_t EXCESS = 0;
#else
constexpr int64_t EXCESS = 128;
#endif

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
#define REDRAFT_DOTS
constexpr int64_t LANES = 16;
constexpr int MOST_ROWS = 6;
using Lanes = __m512i;
inline Lanes no_lanes() { return _mm512_setzero_si512(); }
inline Lanes weights_at(const int8_t* w) { return _mm512_loadu_si512(w); }
inline Lanes four_of(const uint8_t* x) { return _mm512_set1_epi32(four_bytes(x)); }
inline Lanes add_dots(Lanes sum, Lanes x, Lanes w) { return _mm512_dpbusd_epi32(sum, x, w); }
inline void store(int32_t* to, Lanes sum) { _mm512_storeu_si512(to, sum); }
#elif defined(__AVXVNNI__)
#define REDRAFT_DOTS
constexpr int64_t LANES = 8;
constexpr int MOST_ROWS = 2;
using Lanes = __m256i;
inline Lanes no_lanes() { return _mm256_setzero_si256(); }
inline Lanes weights_at(const int8_t* w) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w)); }
inline Lanes four_of(const uint8_t* x) { return _mm256_set1_epi32(four_bytes(x)); }
inline Lanes add_dots(Lanes sum, Lanes x, Lanes w) { return _mm256_dpbusd_avx_epi32(sum, x, w); }
inline void store(int32_t* to, Lanes sum) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), sum); }
#elif defined(__ARM_FEATURE_DOTPROD)
#define REDRAFT_DOTS
constexpr int64_t LANES = 4;
constexpr int MOST_ROWS = 6;
using Lanes = int32x4_t;
inline Lanes no_lanes() { return vdupq_n_s32(0); }
inline int8x16_t weights_at(const int8_t* w) { return vld1q_s8(w); }
// Both factors are signed here.
inline int8x16_t four_of(const uint8_t* x) {
  return vreinterpretq_s8_u32(vdupq_n_u32(static_cast<uint32_t>(four_bytes(x)) ^ 0x80808080u));
}
inline Lanes add_dots(Lanes sum, int8x16_t x, int8x16_t w) { return vdotq_s32(sum, w, x); }
inline void store(int32_t* to, Lanes sum) { vst1q_s32(to, sum); }
#else
// Says what the others do, for whatever a compiler makes of it.
constexpr int64_t LANES = 8;
constexpr int MOST_ROWS = 2;
struct Lanes {
  int32_t sum[LANES];
};
struct Weights {
  const int8_t* w;
};
struct Four {
  const uint8_t* x;
};
inline Lanes no_lanes() { return Lanes{}; }
inline Weights weights_at(const int8_t* w) { return Weights{w}; }
inline Four four_of(const uint8_t* x) { return Four{x}; }
inline Lanes add_dots(Lanes sum, Four four, Weights weights) {
  for (int64_t r = 0; r < LANES; ++r)
    for (int64_t c = 0; c < 4; ++c) sum.sum[r] += four.x[c] * weights.w[4 * r + c];
  return sum;
}
inline void store(int32_t* to, const Lanes& sum) { std::memcpy(to, sum.sum, sizeof sum.sum); }
#endif

// Blocks that the same rows of x meet at once.
constexpr int BLOCKS = 4;

// out[t] = T rows of x times BLOCKS blocks, each exact in int32.
template <int T>
inline void dots(const uint8_t* const (&x)[T], const int8_t* const (&w)[BLOCKS], int64_t quads,
                 int32_t (&out)[T][BLOCKS][LANES]) {
  Lanes sum[T][BLOCKS];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 8
    for (int b = 0; b < BLOCKS; ++b) sum[t][b] = no_lanes();
  for (int64_t q = 0; q < quads; ++q) {
    const int64_t at = q * 4 * LANES;
    const auto w0 = weights_at(w[0] + at), w1 = weights_at(w[1] + at);
    const auto w2 = weights_at(w[2] + at), w3 = weights_at(w[3] + at);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      const auto four = four_of(x[t] + 4 * q);
      sum[t][0] = add_dots(sum[t][0], four, w0);
      sum[t][1] = add_dots(sum[t][1], four, w1);
      sum[t][2] = add_dots(sum[t][2], four, w2);
      sum[t][3] = add_dots(sum[t][3], four, w3);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 8
    for (int b = 0; b < BLOCKS; ++b) store(out[t][b], sum[t][b]);
}

}  // namespace redraft
