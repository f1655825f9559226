// Rows of floats, read and rounded to int8.
#pragma once
#include "numbers.h"

namespace redraft {

inline float load(const void* x, int64_t kind, int64_t i) {
  return kind == FLOAT32 ? static_cast<const float*>(x)[i] : float_of(static_cast<const uint16_t*>(x)[i]);
}

// gelu's tanh form: x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
inline float gelu_of(float x) {
  return 0.5f * x * (1.0f + tanh_of(0.7978845608f * (x + 0.044715f * x * x * x)));
}

// Symmetric rounding of a row to int8, written as value + shift.
inline float quantise(const float* row, int64_t columns, int64_t shift, uint8_t* out) {
  float largest = 0.0f, poison = 0.0f;
#pragma omp simd reduction(max : largest) reduction(+ : poison)
  for (int64_t i = 0; i < columns; ++i) {
    const float size = std::fabs(row[i]);
    largest = size > largest ? size : largest;
    // A maximum skips NaN; this sum does not.
    poison += size * 0.0f;
  }
  const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
#pragma omp simd
  for (int64_t i = 0; i < columns; ++i) {
    // The sum's low bits hold the rounded value, ties to even.
    const float rounded = row[i] * inverse + ROUND;
    uint32_t bits;
    std::memcpy(&bits, &rounded, sizeof bits);
    out[i] = static_cast<uint8_t>(bits + shift);
  }
  return largest / 127.0f + poison;
}

// Row n of x, of whatever kind; `wide` holds it where it is not float32.
inline const float* row_of(const void* x, int64_t kind, int64_t n, int64_t columns, float* wide) {
  if (kind == FLOAT32) return static_cast<const float*>(x) + n * columns;
#pragma omp simd
  for (int64_t i = 0; i < columns; ++i) wide[i] = load(x, BFLOAT16, n * columns + i);
  return wide;
}

}  // namespace redraft
