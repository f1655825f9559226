// Products of int8 rows with int4 matrices, and the rounding of a matrix to int4. The layout is that of the files
// (docs/quantised.md): blocks of 8 rows by 32 columns, 128 bytes and 8 scales each, so that a mapped file is multiplied
// as it lies there.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

// Four products of bytes a lane, added to an int32.
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define REDRAFT_ADD_PRODUCTS _mm256_dpbusd_epi32
#elif defined(__AVXVNNI__)
#define REDRAFT_ADD_PRODUCTS _mm256_dpbusd_avx_epi32
#endif
constexpr int64_t ROWS = 8, COLUMNS = 32, BYTES = ROWS * COLUMNS / 2;
constexpr int ZERO = 8;
// Sign, three bits of exponent, four of mantissa: from 2^-7 to 31/16.
constexpr float LEAST = 1.0f / 128, MOST = 31.0f / 16;

inline float scale_of(uint8_t code) {
  uint32_t bits = (static_cast<uint32_t>(code & 0x7F) << 19) + (120u << 23);
  bits |= static_cast<uint32_t>(code & 0x80) << 24;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The nearest scale's code, ties away from zero; beyond the range, its end.
inline uint8_t code_of(float scale) {
  const uint8_t sign = scale < 0.0f ? 0x80 : 0;
  float size = std::fabs(scale);
  size = size < LEAST ? LEAST : (size > MOST ? MOST : size);
  uint32_t bits;
  std::memcpy(&bits, &size, sizeof bits);
  const uint32_t rounded = (bits - (120u << 23) + (1u << 18)) >> 19;
  return sign | static_cast<uint8_t>(rounded > 0x7F ? 0x7F : rounded);
}

inline float larger(float a, float b) { return b > a ? b : a; }

inline float integer_of(float x) {
  const float q = std::nearbyint(x);
  return q < -8.0f ? -8.0f : (q > 7.0f ? 7.0f : q);
}

// Where element (row, column) of a block lies: byte 32 (c % 16 / 4) + 4 row + c % 4, its low half for c < 16.
inline int64_t byte_of(int64_t row, int64_t column) { return 32 * (column % 16 / 4) + 4 * row + column % 4; }

// out[t][0..8] of T rows of x: sums over the groups of a block row, each exact in int32, added up in float32. `zeros` are
// what the integers' offset of 8 adds to each group's sum, negated.
template <int T>
void tile(const int8_t* x, const int32_t* zeros, int64_t groups, const uint8_t* data, const uint8_t* scales,
          const float* row_scale, int64_t stride, float* out) {
#if defined(__AVX2__)
  const __m256i low = _mm256_set1_epi8(15);
#if !defined(REDRAFT_ADD_PRODUCTS)
  const __m256i ones = _mm256_set1_epi16(1);
#endif
  const __m256i fields = _mm256_set1_epi32(0x7F << 19), base = _mm256_set1_epi32(120 << 23);
  const __m256i sign = _mm256_set1_epi32(INT32_MIN);
  __m256 total[T];
  for (int t = 0; t < T; ++t) total[t] = _mm256_setzero_ps();
  for (int64_t g = 0; g < groups; ++g) {
    const __m256i* packed = reinterpret_cast<const __m256i*>(data + g * BYTES);
    __m256i weights[8];
    for (int j = 0; j < 4; ++j) {
      const __m256i both = _mm256_loadu_si256(packed + j);
      weights[j] = _mm256_and_si256(both, low);
      weights[j + 4] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
    }
    const __m256i code =
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales + g * ROWS)));
    const __m256i size = _mm256_add_epi32(_mm256_and_si256(_mm256_slli_epi32(code, 19), fields), base);
    const __m256 scale = _mm256_castsi256_ps(_mm256_or_si256(size, _mm256_and_si256(code, sign)));
    for (int t = 0; t < T; ++t) {
      const int8_t* row = x + t * groups * COLUMNS + g * COLUMNS;
#if defined(REDRAFT_ADD_PRODUCTS)
      __m256i dots = _mm256_set1_epi32(zeros[t * groups + g]);
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
      const __m256i zero = _mm256_set1_epi32(zeros[t * groups + g]);
      const __m256i dots = _mm256_add_epi32(_mm256_madd_epi16(pairs, ones), zero);
#endif
      total[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, total[t]);
    }
  }
  const __m256 factor = _mm256_loadu_ps(row_scale);
  for (int t = 0; t < T; ++t) _mm256_storeu_ps(out + t * stride, _mm256_mul_ps(total[t], factor));
#else
  float total[T][ROWS] = {};
  for (int64_t g = 0; g < groups; ++g) {
    int8_t weights[COLUMNS][ROWS];
    for (int64_t c = 0; c < COLUMNS; ++c)
      for (int64_t r = 0; r < ROWS; ++r) {
        const uint8_t both = data[g * BYTES + byte_of(r, c)];
        weights[c][r] = static_cast<int8_t>((c < 16 ? both & 15 : both >> 4) - ZERO);
      }
    for (int t = 0; t < T; ++t) {
      const int8_t* row = x + t * groups * COLUMNS + g * COLUMNS;
      int32_t dots[ROWS] = {};
      for (int64_t c = 0; c < COLUMNS; ++c)
        for (int64_t r = 0; r < ROWS; ++r) dots[r] += row[c] * weights[c][r];
      for (int64_t r = 0; r < ROWS; ++r) total[t][r] = std::fma(float(dots[r]), scale_of(scales[g * ROWS + r]), total[t][r]);
    }
  }
  (void)zeros;
  for (int t = 0; t < T; ++t)
    for (int64_t r = 0; r < ROWS; ++r) out[t * stride + r] = total[t][r] * row_scale[r];
#endif
}

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
#define REDRAFT_WIDE
// The same of two block rows, one below the other: out[t][0..16]. Each four bytes of x that are loaded
// meet twice as many weights.
template <int T>
void wide_tile(const int8_t* x, const int32_t* zeros, int64_t groups, const uint8_t* data, const uint8_t* scales,
               const float* row_scale, int64_t stride, float* out) {
  const __m512i low = _mm512_set1_epi8(15), fields = _mm512_set1_epi32(0x7F << 19);
  const __m512i base = _mm512_set1_epi32(120 << 23), sign = _mm512_set1_epi32(INT32_MIN);
  const uint8_t* const data_below = data + groups * BYTES;
  const uint8_t* const scales_below = scales + groups * ROWS;
  __m512 total[T];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) total[t] = _mm512_setzero_ps();
  for (int64_t g = 0; g < groups; ++g) {
    __m512i weights[8];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m256i above = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data + g * BYTES) + j);
      const __m256i below = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data_below + g * BYTES) + j);
      const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(above), below, 1);
      weights[j] = _mm512_and_si512(both, low);
      weights[j + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    }
    const __m512i code = _mm512_cvtepi8_epi32(
        _mm_unpacklo_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales + g * ROWS)),
                           _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales_below + g * ROWS))));
    const __m512i size = _mm512_add_epi32(_mm512_and_si512(_mm512_slli_epi32(code, 19), fields), base);
    const __m512 scale = _mm512_castsi512_ps(_mm512_or_si512(size, _mm512_and_si512(code, sign)));
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      const int8_t* row = x + t * groups * COLUMNS + g * COLUMNS;
      __m512i dots = _mm512_set1_epi32(zeros[t * groups + g]);
#pragma GCC unroll 8
      for (int j = 0; j < 8; ++j) {
        int32_t four;
        std::memcpy(&four, row + 4 * j, sizeof four);
        dots = _mm512_dpbusd_epi32(dots, weights[j], _mm512_set1_epi32(four));
      }
      total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), scale, total[t]);
    }
  }
  const __m512 factor = _mm512_loadu_ps(row_scale);
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) _mm512_storeu_ps(out + t * stride, _mm512_mul_ps(total[t], factor));
}
constexpr int64_t BLOCK_ROWS = 2, WIDE = 8;
#else
constexpr int64_t BLOCK_ROWS = 1;
#endif

// `count` block rows from `data` on, at most BLOCK_ROWS, for `rows` rows of x.
void block_rows(int64_t count, const int8_t* x, const int32_t* zeros, int64_t rows, int64_t groups, const uint8_t* data,
                const uint8_t* scales, const float* row_scale, int64_t stride, float* out) {
  int64_t first = 0;
#if defined(REDRAFT_WIDE)
  for (; count == BLOCK_ROWS && first + WIDE <= rows; first += WIDE)
    wide_tile<WIDE>(x + first * groups * COLUMNS, zeros + first * groups, groups, data, scales, row_scale, stride,
                    out + first * stride);
#endif
  for (int64_t b = 0; b < count; ++b) {
    const auto run = [&](auto tiled, int64_t t) {
      tiled(x + t * groups * COLUMNS, zeros + t * groups, groups, data + b * groups * BYTES, scales + b * groups * ROWS,
            row_scale + b * ROWS, stride, out + t * stride + b * ROWS);
    };
    int64_t t = first;
    for (; t + 4 <= rows; t += 4) run(tile<4>, t);
    for (; t < rows; ++t) run(tile<1>, t);
  }
}

// The best code of a scale for one group, and its integers. Tried are clips of the largest magnitude, with either sign:
// -8 has no counterpart. `weight` is the importance of each column, or null.
uint8_t best_group(const float* group, const float* weight, float unit, int8_t* integers) {
  float largest = 0.0f;
  for (int64_t c = 0; c < COLUMNS; ++c) largest = larger(largest, std::fabs(group[c]));
  uint8_t best = code_of(LEAST);
  float least = INFINITY;
  for (int clip = 0; clip < 12; ++clip)
    for (int side = 0; side < 2; ++side) {
      const float wanted = largest * (0.6f + 0.05f * clip) / 8 / unit;
      const uint8_t code = code_of(side ? -wanted : wanted);
      const float scale = scale_of(code) * unit, inverse = 1.0f / scale;
      float error = 0.0f;
#pragma omp simd reduction(+ : error)
      for (int64_t c = 0; c < COLUMNS; ++c) {
        const float off = integer_of(group[c] * inverse) * scale - group[c];
        error += off * off * (weight == nullptr ? 1.0f : weight[c]);
      }
      if (error < least) least = error, best = code;
    }
  const float inverse = 1.0f / (scale_of(best) * unit);
  for (int64_t c = 0; c < COLUMNS; ++c) integers[c] = static_cast<int8_t>(integer_of(group[c] * inverse));
  return best;
}

}  // namespace

extern "C" {

// out [S, R] = x [S, K] times the matrices of `experts` [E, R, K], the rows of x in runs of counts[e].
void int4_products(const int8_t* x, int64_t rows, const int64_t* counts, int64_t experts, int64_t outputs,
                   int64_t columns, const uint8_t* data, const uint8_t* scales, const float* row_scale, float* out,
                   int64_t threads) {
  const int64_t groups = columns / COLUMNS, blocks = outputs / ROWS;
  const int64_t steps = (blocks + BLOCK_ROWS - 1) / BLOCK_ROWS;
  int32_t* const zeros = new int32_t[rows * groups];
  int64_t* const first = new int64_t[experts];
  int64_t* const busy = new int64_t[experts];
  int64_t used = 0;
  for (int64_t e = 0, at = 0; e < experts; at += counts[e++]) {
    first[e] = at;
    if (counts[e] > 0) busy[used++] = e;
  }
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < rows * groups; ++i) {
      int32_t sum = 0;
      for (int64_t c = 0; c < COLUMNS; ++c) sum += x[i * COLUMNS + c];
      zeros[i] = -ZERO * sum;
    }
#pragma omp for schedule(dynamic, 8)
    for (int64_t task = 0; task < used * steps; ++task) {
      const int64_t e = busy[task / steps], block = task % steps * BLOCK_ROWS, at = e * blocks + block;
      block_rows(std::min(BLOCK_ROWS, blocks - block), x + first[e] * columns, zeros + first[e] * groups, counts[e], groups,
                 data + at * groups * BYTES, scales + at * groups * ROWS, row_scale + at * ROWS, outputs,
                 out + first[e] * outputs + block * ROWS);
    }
  }
  delete[] busy;
  delete[] first;
  delete[] zeros;
}

// Rounds a float32 matrix [R, K] to the layout above; `importance` [K] weighs the columns' errors, or is null.
void int4_quantise(const float* matrix, const float* importance, int64_t outputs, int64_t columns, uint8_t* data,
                   uint8_t* scales, float* row_scale, int64_t threads) {
  const int64_t groups = columns / COLUMNS;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t block = 0; block < outputs / ROWS; ++block)
    for (int64_t r = 0; r < ROWS; ++r) {
      const float* row = matrix + (block * ROWS + r) * columns;
      float largest = 0.0f;
      for (int64_t c = 0; c < columns; ++c) largest = larger(largest, std::fabs(row[c]));
      // The largest group's widest clip is the largest scale that there is.
      const float unit = largest > 0.0f ? largest * 1.15f / 8 / MOST : 1.0f;
      row_scale[block * ROWS + r] = unit;
      for (int64_t g = 0; g < groups; ++g) {
        int8_t integers[COLUMNS];
        const float* weight = importance == nullptr ? nullptr : importance + g * COLUMNS;
        scales[(block * groups + g) * ROWS + r] = best_group(row + g * COLUMNS, weight, unit, integers);
        uint8_t* out = data + (block * groups + g) * BYTES;
        for (int64_t c = 0; c < 16; ++c)
          out[byte_of(r, c)] = static_cast<uint8_t>((integers[c] + ZERO) | (integers[c + 16] + ZERO) << 4);
      }
    }
}
}
