// Rows of floats as `product` meets them: LANES of them, a step's items of all side by side, a word each.
#pragma once
#include <algorithm>

#include "lanes.h"

namespace redraft {

typedef uint16_t Halves __attribute__((vector_size(LANES * sizeof(uint16_t))));

inline Words words_of(const uint16_t* halves) { return __builtin_convertvector(loaded<Halves>(halves), Words); }

// LANES steps of a row.
template <typename U, typename Kind>
inline Words steps_of(const Kind* row) {
  if constexpr (std::is_same_v<typename U::Item, Kind>)
    return loaded<Words>(row);
  else
    return words_of(row) << 16;
}

// A step of LANES columns: of one row, or of two that lie `stride` items apart.
template <typename U, typename Kind>
inline Words columns_of(const Kind* row, int64_t stride) {
  if constexpr (U::STEP == 1)
    return steps_of<U>(row);
  else
    return words_of(row) | words_of(row + stride) << 16;
}

// The same where only `count` rows and `columns` columns are there; the rest is zeros.
template <typename U, typename Kind>
inline Words columns_of(const Kind* row, int64_t stride, int64_t count, int64_t columns) {
  if (count >= U::STEP && columns >= LANES) return columns_of<U>(row, stride);
  Kind part[U::STEP][LANES] = {};
  for (int64_t c = 0; c < std::min(count, U::STEP); ++c)
    for (int64_t r = 0; r < std::min(columns, LANES); ++r) part[c][r] = row[c * stride + r];
  return columns_of<U>(part[0], LANES);
}

// Lanes of a and b in turns: of their lower halves, or of their upper ones.
inline Words in_turns(Words a, Words b, bool upper) {
#if defined(__clang__)
  Words out;
  for (int64_t r = 0; r < LANES; ++r) out[r] = (r % 2 ? b : a)[r / 2 + (upper ? LANES / 2 : 0)];
  return out;
#else
  Words places;
  for (int64_t r = 0; r < LANES; ++r) places[r] = r / 2 + r % 2 * LANES + (upper ? LANES / 2 : 0);
  return __builtin_shuffle(a, b, places);
#endif
}

// Rows become columns: each round halves how far apart two words of a column lie.
inline void turn(Words (&square)[LANES]) {
#pragma GCC unroll 4
  for (int64_t round = 1; round < LANES; round *= 2) {
    Words next[LANES];
#pragma GCC unroll 8
    for (int64_t r = 0; r < LANES / 2; ++r) {
      next[2 * r] = in_turns(square[r], square[r + LANES / 2], false);
      next[2 * r + 1] = in_turns(square[r], square[r + LANES / 2], true);
    }
#pragma GCC unroll 16
    for (int64_t r = 0; r < LANES; ++r) square[r] = next[r];
  }
}

// f(step, a word of each row) for up to LANES rows, one behind the other; where there is no row, zeros.
template <typename U, typename Kind, typename F>
inline void over_steps(const Kind* rows, int64_t count, int64_t columns, F&& f) {
  const int64_t width = LANES * U::STEP;
  for (int64_t c = 0; c < columns; c += width) {
    Words square[LANES];
    if (count >= LANES && c + width <= columns) {
#pragma GCC unroll 16
      for (int64_t r = 0; r < LANES; ++r) square[r] = steps_of<U>(rows + r * columns + c);
    } else {
      for (int64_t r = 0; r < LANES; ++r) {
        Kind part[LANES * U::STEP] = {};
        if (r < count) std::copy_n(rows + r * columns + c, std::min(width, columns - c), part);
        square[r] = steps_of<U>(part);
      }
    }
    turn(square);
    const int64_t steps = std::min(LANES, (columns - c + U::STEP - 1) / U::STEP);
    if (steps == LANES) {
#pragma GCC unroll 16
      for (int64_t k = 0; k < LANES; ++k) f(c / U::STEP + k, square[k]);
    } else {
      for (int64_t k = 0; k < steps; ++k) f(c / U::STEP + k, square[k]);
    }
  }
}

}  // namespace redraft
