// The rounding of a matrix to int4: the best scale of every group among clips of its largest magnitude.
#include <cmath>

#include "int4.h"

using namespace redraft::int4;

namespace {

// From 2^-7 to 31/16.
constexpr float LEAST = 1.0f / 128, MOST = 31.0f / 16;

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
