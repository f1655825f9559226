// Products of rows of floats with matrices that lie as they are stored, row by row: for few rows, where reading the matrix
// is all there is to do, and for a layer's experts in one call.
#include "lanes.h"
#include "rounding.h"
#include "shares.h"
#include "tiles.h"

using namespace redraft;

namespace {

// Rows of x, and of a matrix, that a tile has.
constexpr int HIGH = 4, BROAD = 4;

typedef uint16_t Halves __attribute__((vector_size(LANES * sizeof(uint16_t))));

template <typename Kind>
struct Dot;
template <>
struct Dot<float> {
  static constexpr int64_t WIDTH = LANES;
  static Lanes at(const float* x) { return loaded<Lanes>(x); }
  static void add(Lanes& sum, Lanes a, Lanes b) { sum += a * b; }
};
#if defined(REDRAFT_PAIRS)
template <>
struct Dot<uint16_t> {
  static constexpr int64_t WIDTH = 2 * LANES;
  static Words at(const uint16_t* x) { return loaded<Words>(x); }
  static void add(Lanes& sum, Words a, Words b) { sum = add_pairs(sum, a, b); }
};
#else
template <>
struct Dot<uint16_t> {
  static constexpr int64_t WIDTH = LANES;
  static Lanes at(const uint16_t* x) {
    return (Lanes)(__builtin_convertvector(loaded<Halves>(x), Words) << 16);
  }
  static void add(Lanes& sum, Lanes a, Lanes b) { sum += a * b; }
};
#endif

inline float sum_of(Lanes lanes) {
  float part[LANES];
  std::memcpy(part, &lanes, sizeof part);
#pragma GCC unroll 8
  for (int64_t half = LANES / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (int64_t r = 0; r < half; ++r) part[r] += part[r + half];
  return part[0];
}

// out[t][j] = row t of x . row j of a matrix.
template <int T, int J, typename Kind>
inline void dots(const Kind* const (&x)[T], const Kind* const (&w)[J], int64_t columns, float (&out)[T][J]) {
  Lanes sum[T][J];
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) sum[t][j] = Lanes{};
  int64_t k = 0;
  for (; k + Dot<Kind>::WIDTH <= columns; k += Dot<Kind>::WIDTH)
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
      for (int j = 0; j < J; ++j) Dot<Kind>::add(sum[t][j], Dot<Kind>::at(x[t] + k), Dot<Kind>::at(w[j] + k));
  for (int t = 0; t < T; ++t)
    for (int j = 0; j < J; ++j) {
      float total = sum_of(sum[t][j]);
      for (int64_t c = k; c < columns; ++c) total += value_of(x[t][c]) * value_of(w[j][c]);
      out[t][j] = total;
    }
}

// f(T, J, first row, first output, products) over tiles of rows that `row` finds and outputs from `first` until `end`.
template <typename Kind, typename Row, typename F>
void over(int64_t rows, Row&& row, const Kind* matrix, int64_t columns, int64_t first, int64_t end, F&& f) {
  const auto tiles = [&](auto width, int64_t o) {
    constexpr int J = decltype(width)::value;
    const Kind* w[J];
    for (int j = 0; j < J; ++j) w[j] = matrix + (o + j) * columns;
    in_tiles<HIGH>(rows, [&](auto count, int64_t n) {
      constexpr int T = decltype(count)::value;
      const Kind* x[T];
      for (int t = 0; t < T; ++t) x[t] = row(n + t);
      float found[T][J];
      dots<T, J>(x, w, columns, found);
      for (int t = 0; t < T; ++t)
        for (int j = 0; j < J; ++j) f(n + t, o + j, found[t][j]);
    });
  };
  int64_t o = first;
  for (; o + BROAD <= end; o += BROAD) tiles(std::integral_constant<int, BROAD>(), o);
  for (; o < end; ++o) tiles(std::integral_constant<int, 1>(), o);
}

// Outputs of a matrix that are one task: as much as some tens of kilobytes, in whole tiles.
inline int64_t task_of(int64_t columns, int64_t itemsize) {
  return std::max<int64_t>(BROAD, (1 << 16) / (columns * itemsize) / BROAD * BROAD);
}

template <typename Kind>
void linear(const Kind* x, int64_t rows, int64_t columns, const Kind* matrix, int64_t outputs, Kind* out,
            int64_t threads) {
  const int64_t task = task_of(columns, sizeof(Kind));
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t o = 0; o < outputs; o += task)
    over(
        rows, [&](int64_t n) { return x + n * columns; }, matrix, columns, o, std::min(outputs, o + task),
        [&](int64_t n, int64_t at, float value) { put(out[n * outputs + at], value); });
}

template <typename Kind>
void experts(const Kind* x, int64_t rows, int64_t columns, const int64_t* index, const float* weight, int64_t picks,
             int64_t count, int64_t width, const Kind* wide, const Kind* narrow, float* out, int64_t threads) {
  const Shares shares(index, rows * picks, count);
  const int64_t slots = rows * picks, broad = task_of(2 * columns, sizeof(Kind)), pieces = (width + broad - 1) / broad;
  const std::unique_ptr<float[]> gates(new float[slots * width]);
  const std::unique_ptr<Kind[]> hidden(new Kind[slots * width]);
  const int64_t down = task_of(width, sizeof(Kind));
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < shares.used * pieces; ++task) {
      const int64_t e = shares.busy[task / pieces], first = task % pieces * broad, end = std::min(width, first + broad);
      const int64_t start = shares.first[e];
      const Kind* const matrix = wide + e * 2 * width * columns;
      const auto row = [&](int64_t n) { return x + shares.picked[start + n] / picks * columns; };
      over(shares.count(e), row, matrix, columns, first, end,
           [&](int64_t n, int64_t o, float value) { gates[(start + n) * width + o] = value; });
      over(shares.count(e), row, matrix + width * columns, columns, first, end, [&](int64_t n, int64_t o, float value) {
        const int64_t at = (start + n) * width + o;
        gates[at] = gelu_of(gates[at]) * value;
      });
      for (int64_t n = start; n < shares.first[e + 1]; ++n)
        for (int64_t o = first; o < end; ++o) put(hidden[n * width + o], gates[n * width + o]);
    }
#pragma omp for schedule(dynamic)
    for (int64_t o = 0; o < columns; o += down) {
      const int64_t end = std::min(columns, o + down);
      for (int64_t n = 0; n < rows; ++n) std::fill(out + n * columns + o, out + n * columns + end, 0.0f);
      for (int64_t k = 0; k < shares.used; ++k) {
        const int64_t e = shares.busy[k], start = shares.first[e];
        over(
            shares.count(e), [&](int64_t n) { return hidden.get() + (start + n) * width; }, narrow + e * columns * width,
            width, o, end, [&](int64_t n, int64_t at, float value) {
              const int64_t picked = shares.picked[start + n];
              out[picked / picks * columns + at] += value * weight[picked];
            });
      }
    }
  }
}

}  // namespace

extern "C" {

// out [N, R] = x [N, K] times a matrix [R, K], all float32 or all bfloat16.
void float_linear(const void* x, int64_t kind, int64_t rows, int64_t columns, const void* matrix, int64_t outputs,
                  void* out, int64_t threads) {
  if (kind == FLOAT32)
    linear(static_cast<const float*>(x), rows, columns, static_cast<const float*>(matrix), outputs,
           static_cast<float*>(out), threads);
  else
    linear(static_cast<const uint16_t*>(x), rows, columns, static_cast<const uint16_t*>(matrix), outputs,
           static_cast<uint16_t*>(out), threads);
}

// out [N, D] float32 = the sum over a of weight[n, a] * down[e](gelu(gate[e] x) * up[e] x), e = index[n, a], in order of
// the experts; wide [E, 2 W, D] holds gate above up, narrow [E, D, W].
void float_experts(const void* x, int64_t kind, int64_t rows, int64_t columns, const int64_t* index, const float* weight,
                   int64_t picks, int64_t count, int64_t width, const void* wide, const void* narrow, float* out,
                   int64_t threads) {
  if (kind == FLOAT32)
    experts(static_cast<const float*>(x), rows, columns, index, weight, picks, count, width,
            static_cast<const float*>(wide), static_cast<const float*>(narrow), out, threads);
  else
    experts(static_cast<const uint16_t*>(x), rows, columns, index, weight, picks, count, width,
            static_cast<const uint16_t*>(wide), static_cast<const uint16_t*>(narrow), out, threads);
}
}
