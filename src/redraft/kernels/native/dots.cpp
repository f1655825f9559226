// Products of int8 matrices, packed for `dots.h`, with rows that are rounded to bytes as they come; a layer's experts in
// one call. Sums are exact in int32, and what a row gets does not depend on the rows beside it.
#include <algorithm>
#include <memory>
#include <type_traits>

#include "dots.h"
#include "rounding.h"
#include "shares.h"
#include "tiles.h"

using namespace redraft;

namespace {

constexpr int64_t ZERO = 128;

inline int64_t quads_of(int64_t columns) { return (columns + 3) / 4; }
inline int64_t blocks_of(int64_t outputs) { return (outputs + LANES - 1) / LANES; }

// A packed matrix [outputs, columns], or a stack of them.
struct Matrix {
  const int8_t* data;
  const int32_t* zeros;
  const float* scale;
  int64_t outputs, quads;
  Matrix of(int64_t n) const {
    return {data + n * blocks_of(outputs) * quads * 4 * LANES, zeros + n * outputs, scale + n * outputs, outputs, quads};
  }
  const int8_t* block(int64_t b) const { return data + std::min(b, blocks_of(outputs) - 1) * quads * 4 * LANES; }
  int64_t width(int64_t b) const { return std::max<int64_t>(0, std::min(LANES, outputs - b * LANES)); }
  // What output o of a row is, but for the row's own scale.
  float value(int64_t o, int32_t sum) const { return static_cast<float>(sum + zeros[o]) * scale[o]; }
};

// Rounded rows, each padded to whole quads. Shared among the threads of a team.
void round_rows(const void* x, int64_t kind, int64_t rows, int64_t columns, uint8_t* out, float* scale) {
  const int64_t padded = 4 * quads_of(columns);
  const std::unique_ptr<float[]> wide(kind == FLOAT32 ? nullptr : new float[columns]);
#pragma omp for schedule(static)
  for (int64_t n = 0; n < rows; ++n) {
    scale[n] = quantise(row_of(x, kind, n, columns, wide.get()), columns, ZERO, out + n * padded);
    std::memset(out + n * padded + columns, ZERO, padded - columns);
  }
}

// Outputs from block `first` on of all rows. `scale` of each row, or null.
template <typename Out>
void product(const uint8_t* x, const float* row_scale, int64_t rows, const Matrix& m, int64_t first, Out* out) {
  const int8_t* const w[BLOCKS] = {m.block(first), m.block(first + 1), m.block(first + 2), m.block(first + 3)};
  in_tiles<MOST_ROWS>(rows, [&](auto count, int64_t n) {
    constexpr int T = decltype(count)::value;
    const uint8_t* at[T];
    for (int t = 0; t < T; ++t) at[t] = x + (n + t) * 4 * m.quads;
    int32_t sums[T][BLOCKS][LANES];
    dots<T>(at, w, m.quads, sums);
    for (int t = 0; t < T; ++t) {
      const float factor = row_scale == nullptr ? 1.0f : row_scale[n + t];
      for (int b = 0; b < BLOCKS; ++b) {
        const int64_t from = (first + b) * LANES, width = m.width(first + b);
        Out* const into = out + (n + t) * m.outputs + from;
        const auto put = [&](int64_t lanes) {
#pragma omp simd
          for (int64_t r = 0; r < lanes; ++r) {
            const float value = m.value(from + r, sums[t][b][r]) * factor;
            if constexpr (std::is_same_v<Out, float>)
              into[r] = value;
            else
              into[r] = bfloat16_of(value);
          }
        };
        width == LANES ? put(LANES) : put(width);
      }
    }
  });
}

// gelu(gate) * up of an expert's rows, in columns of two blocks of each from `block` on.
void gate(const uint8_t* x, const float* row_scale, int64_t picks, const Shares& shares, int64_t e, const Matrix& m,
          int64_t block, float* hidden) {
  const int64_t width = m.outputs / 2, up = width / LANES, padded = 4 * m.quads;
  const int blocks = static_cast<int>(std::min<int64_t>(2, up - block));
  const int64_t second = block + blocks - 1;
  const int8_t* const w[BLOCKS] = {m.block(block), m.block(second), m.block(up + block), m.block(up + second)};
  const int64_t start = shares.first[e];
  in_tiles<MOST_ROWS>(shares.count(e), [&](auto count, int64_t n) {
    constexpr int T = decltype(count)::value;
    const uint8_t* at[T];
    for (int t = 0; t < T; ++t) at[t] = x + shares.picked[start + n + t] / picks * padded;
    int32_t sums[T][BLOCKS][LANES];
    dots<T>(at, w, m.quads, sums);
    for (int t = 0; t < T; ++t) {
      const float factor = row_scale[shares.picked[start + n + t] / picks];
      for (int b = 0; b < blocks; ++b) {
        const int64_t from = (block + b) * LANES;
        float* const into = hidden + (start + n + t) * width + from;
#pragma omp simd
        for (int64_t r = 0; r < LANES; ++r)
          into[r] = gelu_of(m.value(from + r, sums[t][b][r]) * factor) *
                    (m.value(width + from + r, sums[t][2 + b][r]) * factor);
      }
    }
  });
}

// Adds an expert's results, weighed, to the outputs from block `first` on of its rows.
void add_back(const uint8_t* x, const float* factors, int64_t picks, const Shares& shares, int64_t e, const Matrix& m,
              int64_t first, float* out) {
  const int8_t* const w[BLOCKS] = {m.block(first), m.block(first + 1), m.block(first + 2), m.block(first + 3)};
  const int64_t start = shares.first[e];
  in_tiles<MOST_ROWS>(shares.count(e), [&](auto count, int64_t n) {
    constexpr int T = decltype(count)::value;
    const uint8_t* at[T];
    for (int t = 0; t < T; ++t) at[t] = x + (start + n + t) * 4 * m.quads;
    int32_t sums[T][BLOCKS][LANES];
    dots<T>(at, w, m.quads, sums);
    for (int t = 0; t < T; ++t) {
      float* const row = out + shares.picked[start + n + t] / picks * m.outputs;
      const float factor = factors[start + n + t];
      for (int b = 0; b < BLOCKS; ++b) {
        const int64_t from = (first + b) * LANES, width = m.width(first + b);
        const auto put = [&](int64_t lanes) {
#pragma omp simd
          for (int64_t r = 0; r < lanes; ++r) row[from + r] += m.value(from + r, sums[t][b][r]) * factor;
        };
        width == LANES ? put(LANES) : put(width);
      }
    }
  });
}

}  // namespace

extern "C" {

// How many rows a block has; 0 where the CPU has no such instruction.
void dots_lanes(int64_t* lanes, int64_t) {
#if defined(REDRAFT_DOTS)
  *lanes = LANES;
#else
  *lanes = 0;
#endif
}

// data [E, ceil(R / LANES), ceil(K / 4), LANES, 4] of matrices [E, R, K], zeros beyond their ends; zeros [E, R].
void dots_pack(const int8_t* matrices, int64_t count, int64_t outputs, int64_t columns, int8_t* data, int32_t* zeros,
               int64_t threads) {
  const int64_t quads = quads_of(columns), blocks = blocks_of(outputs);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t task = 0; task < count * blocks; ++task) {
    const int64_t e = task / blocks, first = task % blocks * LANES;
    int8_t* const block = data + task * quads * 4 * LANES;
    std::memset(block, 0, quads * 4 * LANES);
    for (int64_t r = 0; r < std::min(LANES, outputs - first); ++r) {
      const int8_t* const row = matrices + (e * outputs + first + r) * columns;
      int32_t sum = 0;
      for (int64_t k = 0; k < columns; ++k) {
        block[(k / 4 * LANES + r) * 4 + k % 4] = row[k];
        sum += row[k];
      }
      zeros[e * outputs + first + r] = static_cast<int32_t>(-EXCESS * sum);
    }
  }
}

// out [S, R] = (x [S, Kp] - 128) times the packed matrix, rows of x padded to whole quads.
void dots_product(const uint8_t* x, int64_t rows, const int8_t* data, const int32_t* zeros, const float* scale,
                  int64_t outputs, int64_t quads, float* out, int64_t threads) {
  const Matrix m{data, zeros, scale, outputs, quads};
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t b = 0; b < blocks_of(outputs); b += BLOCKS) product(x, nullptr, rows, m, b, out);
}

// out [S, R] = x [S, K] times the packed matrix; x is rounded row by row, and out is of its kind.
void dots_linear(const void* x, int64_t kind, int64_t rows, int64_t columns, const int8_t* data, const int32_t* zeros,
                 const float* scale, int64_t outputs, void* out, int64_t threads) {
  const Matrix m{data, zeros, scale, outputs, quads_of(columns)};
  const std::unique_ptr<uint8_t[]> rounded(new uint8_t[rows * 4 * m.quads]);
  const std::unique_ptr<float[]> row_scale(new float[rows]);
#pragma omp parallel num_threads(threads)
  {
    round_rows(x, kind, rows, columns, rounded.get(), row_scale.get());
#pragma omp for schedule(dynamic)
    for (int64_t b = 0; b < blocks_of(outputs); b += BLOCKS) {
      if (kind == FLOAT32)
        product(rounded.get(), row_scale.get(), rows, m, b, static_cast<float*>(out));
      else
        product(rounded.get(), row_scale.get(), rows, m, b, static_cast<uint16_t*>(out));
    }
  }
}

// out [N, D] float32 = the sum over a of weight[n, a] * down[e](gelu(gate[e] x) * up[e] x), e = index[n, a], in order of
// the experts. `wide` [E, 2 W, D] holds gate above up, of which LANES divides W; `narrow` [E, D, W].
void dots_experts(const void* x, int64_t kind, int64_t rows, int64_t columns, const int64_t* index, const float* weight,
                  int64_t picks, int64_t experts, int64_t width, const int8_t* wide, const int32_t* wide_zeros,
                  const float* wide_scale, const int8_t* narrow, const int32_t* narrow_zeros, const float* narrow_scale,
                  float* out, int64_t threads) {
  const Matrix gate_up{wide, wide_zeros, wide_scale, 2 * width, quads_of(columns)};
  const Matrix down{narrow, narrow_zeros, narrow_scale, columns, quads_of(width)};
  const Shares shares(index, rows * picks, experts);
  const int64_t slots = rows * picks, pairs = (width / LANES + 1) / 2;
  const std::unique_ptr<uint8_t[]> rounded(new uint8_t[rows * 4 * gate_up.quads]), gated(new uint8_t[slots * 4 * down.quads]);
  const std::unique_ptr<float[]> row_scale(new float[rows]), factors(new float[slots]), hidden(new float[slots * width]);
#pragma omp parallel num_threads(threads)
  {
    round_rows(x, kind, rows, columns, rounded.get(), row_scale.get());
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < shares.used * pairs; ++task) {
      const int64_t e = shares.busy[task / pairs];
      gate(rounded.get(), row_scale.get(), picks, shares, e, gate_up.of(e), task % pairs * 2, hidden.get());
    }
    round_rows(hidden.get(), FLOAT32, slots, width, gated.get(), factors.get());
#pragma omp for schedule(static)
    for (int64_t s = 0; s < slots; ++s) factors[s] *= weight[shares.picked[s]];
#pragma omp for schedule(dynamic)
    for (int64_t b = 0; b < blocks_of(columns); b += BLOCKS) {
      const int64_t from = b * LANES, until = std::min(columns, from + BLOCKS * LANES);
      for (int64_t n = 0; n < rows; ++n) std::fill(out + n * columns + from, out + n * columns + until, 0.0f);
      for (int64_t k = 0; k < shares.used; ++k)
        add_back(gated.get(), factors.get(), picks, shares, shares.busy[k], down.of(shares.busy[k]), b, out);
    }
  }
}
}
