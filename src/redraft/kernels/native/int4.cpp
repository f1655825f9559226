// Products of int8 rows with int4 matrices, and a layer's experts in one call. What a row gets does not depend on the rows
// beside it.
#include "int4.h"

#include <memory>

#include "rounding.h"
#include "shares.h"
#include "tiles.h"

using namespace redraft;
using int4::COLUMNS, int4::Matrix, int4::ROWS, int4::WIDTH;

namespace {

// Int8 rows of whole groups, and their zeros.
struct Rounded {
  int64_t groups;
  const std::unique_ptr<int8_t[]> own;
  const int8_t* x;
  const std::unique_ptr<int32_t[]> zeros;
  // Room for rows that are still to be rounded, or around such as are there.
  Rounded(int64_t rows, int64_t columns, const int8_t* given = nullptr)
      : groups(columns / COLUMNS), own(given == nullptr ? new int8_t[rows * columns] : nullptr),
        x(given == nullptr ? own.get() : given), zeros(new int32_t[rows * groups]) {}

  void sum(int64_t n) {
    for (int64_t g = n * groups; g < (n + 1) * groups; ++g) {
      int32_t total = 0;
      for (int64_t c = 0; c < COLUMNS; ++c) total += x[g * COLUMNS + c];
      zeros[g] = -int4::ZERO * total;
    }
  }

  // Shared among the threads of a team; returns nothing that is not written.
  void round(const void* from, int64_t kind, int64_t rows, float* scale) {
    const int64_t columns = groups * COLUMNS;
    const std::unique_ptr<float[]> wide(kind == FLOAT32 ? nullptr : new float[columns]);
#pragma omp for schedule(static)
    for (int64_t n = 0; n < rows; ++n) {
      uint8_t* const out = reinterpret_cast<uint8_t*>(own.get()) + n * columns;
      scale[n] = quantise(row_of(from, kind, n, columns, wide.get()), columns, 0, out);
      sum(n);
    }
  }
};

// f(row, products) of rows that `row` finds with two blocks.
template <typename Row, typename F>
inline void over(const Rounded& rounded, int64_t rows, Row&& row, const Matrix& above, const Matrix& below, F&& f) {
  in_tiles<int4::MOST_ROWS>(rows, [&](auto count, int64_t n) {
    constexpr int T = decltype(count)::value;
    int4::Rows<T> at;
    for (int t = 0; t < T; ++t) {
      const int64_t place = row(n + t) * rounded.groups;
      at.x[t] = rounded.x + place * COLUMNS;
      at.zeros[t] = rounded.zeros.get() + place;
    }
    float found[T][WIDTH];
    int4::tile<T>(at, above, below, found);
    for (int t = 0; t < T; ++t) f(n + t, found[t]);
  });
}

// The block below, which the last of an odd number does not have: that one twice.
inline Matrix below(const Matrix& m, int64_t block) { return m.at(std::min(block + 1, m.blocks() - 1)); }
inline int64_t width_of(const Matrix& m, int64_t block) { return std::min(WIDTH, m.outputs - block * ROWS); }

}  // namespace

extern "C" {

// out [S, R] = x [S, K] times the matrices of `experts` [E, R, K], the rows of x in runs of counts[e].
void int4_products(const int8_t* x, int64_t rows, const int64_t* counts, int64_t experts, int64_t outputs,
                   int64_t columns, const uint8_t* data, const uint8_t* scales, const float* row_scale, float* out,
                   int64_t threads) {
  const Matrix stack{data, scales, row_scale, outputs, columns / COLUMNS};
  const int64_t steps = (stack.blocks() + 1) / 2;
  Rounded rounded(rows, columns, x);
  const std::unique_ptr<int64_t[]> first(new int64_t[experts]), busy(new int64_t[experts]);
  int64_t used = 0;
  for (int64_t e = 0, at = 0; e < experts; at += counts[e++]) {
    first[e] = at;
    if (counts[e] > 0) busy[used++] = e;
  }
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static)
    for (int64_t n = 0; n < rows; ++n) rounded.sum(n);
#pragma omp for schedule(dynamic, 8)
    for (int64_t task = 0; task < used * steps; ++task) {
      const int64_t e = busy[task / steps], block = task % steps * 2;
      const Matrix m = stack.of(e);
      over(
          rounded, counts[e], [&](int64_t n) { return first[e] + n; }, m.at(block), below(m, block),
          [&](int64_t n, const float* found) {
            std::copy_n(found, width_of(m, block), out + (first[e] + n) * outputs + block * ROWS);
          });
    }
  }
}

// out [N, D] float32 = the sum over a of weight[n, a] * down[e](gelu(gate[e] x) * up[e] x), e = index[n, a], in order of
// the experts. `wide` [E, 2 W, D] holds gate above up; `narrow` [E, D, W]. Rows are rounded as they come.
void int4_experts(const void* x, int64_t kind, int64_t rows, int64_t columns, const int64_t* index, const float* weight,
                  int64_t picks, int64_t experts, int64_t width, const uint8_t* wide, const uint8_t* wide_scales,
                  const float* wide_rows, const uint8_t* narrow, const uint8_t* narrow_scales, const float* narrow_rows,
                  float* out, int64_t threads) {
  const Matrix gate_up{wide, wide_scales, wide_rows, 2 * width, columns / COLUMNS};
  const Matrix down{narrow, narrow_scales, narrow_rows, columns, width / COLUMNS};
  const Shares shares(index, rows * picks, experts);
  const int64_t slots = rows * picks, pieces = width / ROWS;
  Rounded rounded(rows, columns), gated(slots, width);
  const std::unique_ptr<float[]> row_scale(new float[rows]), factors(new float[slots]), hidden(new float[slots * width]);
#pragma omp parallel num_threads(threads)
  {
    rounded.round(x, kind, rows, row_scale.get());
#pragma omp for schedule(dynamic, 8)
    for (int64_t task = 0; task < shares.used * pieces; ++task) {
      const int64_t e = shares.busy[task / pieces], block = task % pieces, start = shares.first[e];
      const Matrix m = gate_up.of(e);
      const auto source = [&](int64_t n) { return shares.picked[start + n] / picks; };
      over(rounded, shares.count(e), source, m.at(block), m.at(pieces + block), [&](int64_t n, const float* found) {
        const float factor = row_scale[source(n)];
        float* const into = hidden.get() + (start + n) * width + block * ROWS;
#pragma omp simd
        for (int64_t r = 0; r < ROWS; ++r) into[r] = gelu_of(found[r] * factor) * (found[ROWS + r] * factor);
      });
    }
    gated.round(hidden.get(), FLOAT32, slots, factors.get());
#pragma omp for schedule(static)
    for (int64_t s = 0; s < slots; ++s) factors[s] *= weight[shares.picked[s]];
#pragma omp for schedule(dynamic)
    for (int64_t block = 0; block < down.blocks(); block += 2) {
      const int64_t lanes = width_of(down, block);
      for (int64_t n = 0; n < rows; ++n) std::fill_n(out + n * columns + block * ROWS, lanes, 0.0f);
      for (int64_t k = 0; k < shares.used; ++k) {
        const int64_t e = shares.busy[k], start = shares.first[e];
        const Matrix m = down.of(e);
        over(
            gated, shares.count(e), [&](int64_t n) { return start + n; }, m.at(block), below(m, block),
            [&](int64_t n, const float* found) {
              float* const into = out + shares.picked[start + n] / picks * columns + block * ROWS;
#pragma omp simd
              for (int64_t r = 0; r < lanes; ++r) into[r] += found[r] * factors[start + n];
            });
      }
    }
  }
}
}
