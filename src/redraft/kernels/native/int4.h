// Int4 matrices as they lie in files (docs/quantised.md): blocks of 8 rows by 32 columns, 128 bytes and 8 scales each, so
// that a mapped file is multiplied as it lies there. Tiles of products of int8 rows with two blocks.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

namespace redraft {
namespace int4 {

constexpr int64_t ROWS = 8, COLUMNS = 32, BYTES = ROWS * COLUMNS / 2;
constexpr int ZERO = 8;
// Outputs of a tile.
constexpr int64_t WIDTH = 2 * ROWS;

// Sign, three bits of exponent, four of mantissa.
inline float scale_of(uint8_t code) {
  uint32_t bits = (static_cast<uint32_t>(code & 0x7F) << 19) + (120u << 23);
  bits |= static_cast<uint32_t>(code & 0x80) << 24;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Where element (row, column) of a block lies: byte 32 (c % 16 / 4) + 4 row + c % 4, its low half for c < 16.
inline int64_t byte_of(int64_t row, int64_t column) { return 32 * (column % 16 / 4) + 4 * row + column % 4; }

// A matrix, or a stack of them, whose rows come in blocks of eight.
struct Matrix {
  const uint8_t *data, *scales;
  const float* row_scale;
  int64_t outputs, groups;
  Matrix of(int64_t n) const { return at(n * blocks()); }
  Matrix at(int64_t block) const {
    return {data + block * groups * BYTES, scales + block * groups * ROWS, row_scale + block * ROWS, outputs, groups};
  }
  int64_t blocks() const { return outputs / ROWS; }
};

// T int8 rows, and what the integers' offset of 8 adds to each of their groups' sums, negated.
template <int T>
struct Rows {
  const int8_t* x[T];
  const int32_t* zeros[T];
};

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
constexpr int MOST_ROWS = 8;

// out[t][0..16] of two blocks of rows: sums over the groups, each exact in int32, added up in float32.
template <int T>
inline void tile(const Rows<T>& rows, const Matrix& above, const Matrix& below, float (&out)[T][WIDTH]) {
  const __m512i low = _mm512_set1_epi8(15), fields = _mm512_set1_epi32(0x7F << 19);
  const __m512i base = _mm512_set1_epi32(120 << 23), sign = _mm512_set1_epi32(INT32_MIN);
  __m512 total[T];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) total[t] = _mm512_setzero_ps();
  for (int64_t g = 0; g < above.groups; ++g) {
    __m512i weights[8];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(above.data + g * BYTES) + j);
      const __m256i second = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(below.data + g * BYTES) + j);
      const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
      weights[j] = _mm512_and_si512(both, low);
      weights[j + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    }
    const __m512i code = _mm512_cvtepi8_epi32(
        _mm_unpacklo_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(above.scales + g * ROWS)),
                           _mm_loadl_epi64(reinterpret_cast<const __m128i*>(below.scales + g * ROWS))));
    const __m512i size = _mm512_add_epi32(_mm512_and_si512(_mm512_slli_epi32(code, 19), fields), base);
    const __m512 scale = _mm512_castsi512_ps(_mm512_or_si512(size, _mm512_and_si512(code, sign)));
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      __m512i dots = _mm512_set1_epi32(rows.zeros[t][g]);
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) {
        int32_t four;
        std::memcpy(&four, rows.x[t] + g * COLUMNS + 4 * j, sizeof four);
        dots = _mm512_dpbusd_epi32(dots, weights[j], _mm512_set1_epi32(four));
      }
      total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), scale, total[t]);
    }
  }
  const __m512 factor = _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(above.row_scale)),
                                           _mm256_loadu_ps(below.row_scale), 1);
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) _mm512_storeu_ps(out[t], _mm512_mul_ps(total[t], factor));
}
#else
constexpr int MOST_ROWS = 4;

#if defined(__AVX2__)
// Four products of bytes a lane, added to an int32.
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define REDRAFT_ADD_PRODUCTS _mm256_dpbusd_epi32
#elif defined(__AVXVNNI__)
#define REDRAFT_ADD_PRODUCTS _mm256_dpbusd_avx_epi32
#endif

// out[t][0..8] of a block of rows.
template <int T>
inline void block(const Rows<T>& rows, const Matrix& m, float (&out)[T][WIDTH], int64_t from) {
  const __m256i low = _mm256_set1_epi8(15);
#if !defined(REDRAFT_ADD_PRODUCTS)
  const __m256i ones = _mm256_set1_epi16(1);
#endif
  const __m256i fields = _mm256_set1_epi32(0x7F << 19), base = _mm256_set1_epi32(120 << 23);
  const __m256i sign = _mm256_set1_epi32(INT32_MIN);
  __m256 total[T];
  for (int t = 0; t < T; ++t) total[t] = _mm256_setzero_ps();
  for (int64_t g = 0; g < m.groups; ++g) {
    const __m256i* packed = reinterpret_cast<const __m256i*>(m.data + g * BYTES);
    __m256i weights[8];
    for (int j = 0; j < 4; ++j) {
      const __m256i both = _mm256_loadu_si256(packed + j);
      weights[j] = _mm256_and_si256(both, low);
      weights[j + 4] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
    }
    const __m256i code =
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(m.scales + g * ROWS)));
    const __m256i size = _mm256_add_epi32(_mm256_and_si256(_mm256_slli_epi32(code, 19), fields), base);
    const __m256 scale = _mm256_castsi256_ps(_mm256_or_si256(size, _mm256_and_si256(code, sign)));
    for (int t = 0; t < T; ++t) {
      const int8_t* const row = rows.x[t] + g * COLUMNS;
      const __m256i zero = _mm256_set1_epi32(rows.zeros[t][g]);
#if defined(REDRAFT_ADD_PRODUCTS)
      __m256i dots = zero;
      for (int j = 0; j < 8; ++j) {
        int32_t four;
        std::memcpy(&four, row + 4 * j, sizeof four);
        dots = REDRAFT_ADD_PRODUCTS(dots, weights[j], _mm256_set1_epi32(four));
      }
#else
      // Eight products of pairs stay below 8 * 2 * 15 * 127 = 30,480: no overflow in int16.
      __m256i pairs = _mm256_setzero_si256();
      for (int j = 0; j < 8; ++j) {
        int32_t four;
        std::memcpy(&four, row + 4 * j, sizeof four);
        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(weights[j], _mm256_set1_epi32(four)));
      }
      const __m256i dots = _mm256_add_epi32(_mm256_madd_epi16(pairs, ones), zero);
#endif
      total[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, total[t]);
    }
  }
  const __m256 factor = _mm256_loadu_ps(m.row_scale);
  for (int t = 0; t < T; ++t) _mm256_storeu_ps(out[t] + from, _mm256_mul_ps(total[t], factor));
}
#elif defined(__ARM_FEATURE_DOTPROD)
inline float32x4_t scales_of(int16x4_t codes) {
  const int32x4_t code = vmovl_s16(codes), size = vshlq_n_s32(vandq_s32(code, vdupq_n_s32(0x7F)), 19);
  const int32x4_t sign = vandq_s32(code, vdupq_n_s32(INT32_MIN));
  return vreinterpretq_f32_s32(vorrq_s32(vaddq_s32(size, vdupq_n_s32(120 << 23)), sign));
}

template <int T>
inline void block(const Rows<T>& rows, const Matrix& m, float (&out)[T][WIDTH], int64_t from) {
  float32x4_t total[T][2];
  for (int t = 0; t < T; ++t) total[t][0] = total[t][1] = vdupq_n_f32(0.0f);
  for (int64_t g = 0; g < m.groups; ++g) {
    // Of the upper and the lower four rows.
    int8x16_t weights[8][2];
    for (int j = 0; j < 4; ++j)
      for (int half = 0; half < 2; ++half) {
        const uint8x16_t both = vld1q_u8(m.data + g * BYTES + 32 * j + 16 * half);
        weights[j][half] = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15)));
        weights[j + 4][half] = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
      }
    const int16x8_t codes = vmovl_s8(vreinterpret_s8_u8(vld1_u8(m.scales + g * ROWS)));
    const float32x4_t scales[2] = {scales_of(vget_low_s16(codes)), scales_of(vget_high_s16(codes))};
    for (int t = 0; t < T; ++t) {
      int32x4_t dots[2] = {vdupq_n_s32(rows.zeros[t][g]), vdupq_n_s32(rows.zeros[t][g])};
      for (int j = 0; j < 8; ++j) {
        int32_t four;
        std::memcpy(&four, rows.x[t] + g * COLUMNS + 4 * j, sizeof four);
        const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
        for (int half = 0; half < 2; ++half) dots[half] = vdotq_s32(dots[half], weights[j][half], x);
      }
      for (int half = 0; half < 2; ++half)
        total[t][half] = vfmaq_f32(total[t][half], vcvtq_f32_s32(dots[half]), scales[half]);
    }
  }
  for (int t = 0; t < T; ++t)
    for (int half = 0; half < 2; ++half)
      vst1q_f32(out[t] + from + 4 * half, vmulq_f32(total[t][half], vld1q_f32(m.row_scale + 4 * half)));
}
#else
template <int T>
inline void block(const Rows<T>& rows, const Matrix& m, float (&out)[T][WIDTH], int64_t from) {
  float total[T][ROWS] = {};
  for (int64_t g = 0; g < m.groups; ++g) {
    int8_t weights[COLUMNS][ROWS];
    for (int64_t c = 0; c < COLUMNS; ++c)
      for (int64_t r = 0; r < ROWS; ++r) {
        const uint8_t both = m.data[g * BYTES + byte_of(r, c)];
        weights[c][r] = static_cast<int8_t>((c < 16 ? both & 15 : both >> 4) - ZERO);
      }
    for (int t = 0; t < T; ++t) {
      int32_t dots[ROWS] = {};
      for (int64_t c = 0; c < COLUMNS; ++c)
        for (int64_t r = 0; r < ROWS; ++r) dots[r] += rows.x[t][g * COLUMNS + c] * weights[c][r];
      for (int64_t r = 0; r < ROWS; ++r)
        total[t][r] = __builtin_fmaf(float(dots[r]), scale_of(m.scales[g * ROWS + r]), total[t][r]);
    }
  }
  for (int t = 0; t < T; ++t)
    for (int64_t r = 0; r < ROWS; ++r) out[t][from + r] = total[t][r] * m.row_scale[r];
}
#endif

template <int T>
inline void tile(const Rows<T>& rows, const Matrix& above, const Matrix& below, float (&out)[T][WIDTH]) {
  block<T>(rows, above, out, 0);
  block<T>(rows, below, out, ROWS);
}
#endif

}  // namespace int4
}  // namespace redraft
