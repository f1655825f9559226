// Attention of a sequence's queries over runs of its keys, grouped heads, scale 1: softmax(q k^T) v in one call.
//
// The query heads of a key-value head are rows of one product, so that keys are packed once for all of them. A row's
// scores are all there before its softmax: nothing is rescaled, and what a row gets does not depend on other rows.
#include <algorithm>
#include <memory>

#include "packing.h"
#include "tiles.h"

using namespace redraft;

namespace {

// Of scores that a task keeps at a time.
constexpr int64_t SCORE_BYTES = 1 << 19;
constexpr int64_t MOST_TILES = 4;
// Rows of a key-value head that are not worth packing it.
constexpr int64_t FEW = 8;
// Steps of values that few rows meet before they go on to the next elements.
constexpr int64_t RUN = 8;

struct Shape {
  int64_t queries, heads, size, shared, keys, stride;
  // How far back a query sees, itself included; whether it sees what follows.
  int64_t window;
  bool causal;
  int64_t group() const { return heads / shared; }
  // The keys that query t sees: from, until.
  int64_t from(int64_t t) const { return causal ? std::max<int64_t>(0, until(t) - window) : 0; }
  int64_t until(int64_t t) const { return causal ? keys - queries + t + 1 : keys; }
};

inline int64_t padded(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

// Of keys and values in blocks: keys with their elements in steps; elements with the keys in steps.
template <typename U>
struct Blocks {
  static constexpr int64_t AT_ONCE = LANES * BLOCKS;
  int64_t keys, values, key_steps, value_steps;
  explicit Blocks(const Shape& s)
      : keys(padded(s.keys, AT_ONCE) / LANES), values(padded(s.size, AT_ONCE) / LANES),
        key_steps(padded(s.size, U::STEP) / U::STEP), value_steps(padded(s.keys, U::STEP) / U::STEP) {}
  // Words of a head.
  int64_t of_keys() const { return keys * key_steps; }
  int64_t of_values() const { return values * value_steps; }
};

// f(step, words) of a block of a head's keys.
template <typename U, typename Kind, typename F>
inline void keys_over(const Shape& s, const Kind* keys, int64_t head, int64_t block, F&& f) {
  const int64_t first = std::min(block * LANES, s.keys);
  over_steps<U>(keys + head * s.stride + first * s.size, s.keys - first, s.size, f);
}

// A step of a block of a head's values.
template <typename U, typename Kind>
inline Words values_at(const Shape& s, const Kind* values, int64_t head, int64_t step, int64_t block) {
  const int64_t first = step * U::STEP, column = std::min(block * LANES, s.size);
  return columns_of<U>(values + head * s.stride + first * s.size + column, s.size, s.keys - first, s.size - column);
}

template <typename U, typename Kind>
inline typename U::Item item_of(Kind x) {
  if constexpr (std::is_same_v<typename U::Item, Kind>)
    return x;
  else
    return U::item(value_of(x));
}

// exp(score - largest) of the keys that a query sees, 0 elsewhere, as items; returns 1 / their sum.
template <typename U>
float softmax(const float* scores, int64_t from, int64_t until, int64_t keys, typename U::Item* out) {
  float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
  for (int64_t i = from; i < until; ++i) largest = scores[i] > largest ? scores[i] : largest;
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = from; i < until; ++i) {
    const float below = scores[i] - largest;
    const float p = below < LEAST ? 0.0f : exp_of(below);
    sum += p;
    out[i] = U::item(p);
  }
  for (int64_t i = 0; i < from; ++i) out[i] = 0;
  for (int64_t i = until; i < keys; ++i) out[i] = 0;
  return 1.0f / sum;
}

// A tile of the query heads that share a key-value head: its rows, where they lie, what they see, their buffers.
template <typename U, typename Kind>
struct Tile {
  using Item = typename U::Item;
  const Shape& s;
  const Blocks<U> blocks;
  const int64_t columns, width;
  int64_t head = 0, first = 0, count = 0, from = 0, until = 0;
  std::unique_ptr<Item[]> wide, shares;
  std::unique_ptr<float[]> scores, inverse;
  Tile(const Shape& shape, int64_t height)
      : s(shape), blocks(shape), columns(blocks.keys * LANES), width(blocks.key_steps * U::STEP),
        wide(new Item[height * width]), shares(new Item[height * columns]), scores(new float[height * columns]),
        inverse(new float[height]) {}

  int64_t query(int64_t r) const { return (first + r) / s.group(); }
  int64_t place(int64_t r) const { return (query(r) * s.heads + head * s.group() + (first + r) % s.group()) * s.size; }

  void begin(const Kind* q, int64_t head_, int64_t first_, int64_t count_) {
    head = head_, first = first_, count = count_;
    from = s.from(query(0)), until = s.until(query(count - 1));
    for (int64_t r = 0; r < count; ++r)
      for (int64_t d = 0; d < width; ++d) wide[r * width + d] = d < s.size ? item_of<U>(q[place(r) + d]) : 0;
  }

  void soften() {
    for (int64_t r = 0; r < count; ++r)
      inverse[r] = softmax<U>(scores.get() + r * columns, s.from(query(r)), s.until(query(r)),
                              blocks.value_steps * U::STEP, shares.get() + r * columns);
  }

  // Of the keys that a row of the tile sees, in steps: where they begin and end.
  int64_t begin_step() const { return from / U::STEP; }
  int64_t end_step() const { return (until + U::STEP - 1) / U::STEP; }

  // sums [T][BLOCKS] of the rows from r on, at the elements from d on, into the result.
  template <int T>
  void put_sums(const Lanes (&sums)[T][BLOCKS], int64_t r, int64_t d, Kind* out) const {
    const int64_t last = std::min<int64_t>(BLOCKS * LANES, s.size - d);
    for (int t = 0; t < T; ++t) {
      float values[BLOCKS * LANES];
      std::memcpy(values, sums[t], sizeof values);
      for (int64_t i = 0; i < last; ++i) put(out[place(r + t) + d + i], values[i] * inverse[r + t]);
    }
  }
};

template <typename U, typename Kind>
void attend_many(const Shape& s, const Kind* q, const Kind* k, const Kind* v, Kind* out, int64_t threads) {
  const Blocks<U> blocks(s);
  const int64_t rows = s.queries * s.group(), of_tile = 4 * blocks.keys * LANES * MOST_ROWS;
  const int64_t height = std::max<int64_t>(1, std::min(MOST_TILES, SCORE_BYTES / of_tile)) * MOST_ROWS;
  const int64_t pieces = (rows + height - 1) / height;
  const std::unique_ptr<Words[]> keys(new Words[s.shared * blocks.of_keys()]);
  const std::unique_ptr<Words[]> values(new Words[s.shared * blocks.of_values()]);
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static) nowait
    for (int64_t i = 0; i < s.shared * blocks.keys; ++i)
      keys_over<U>(s, k, i / blocks.keys, i % blocks.keys,
                   [&](int64_t step, Words words) { keys[i * blocks.key_steps + step] = words; });
#pragma omp for schedule(static)
    for (int64_t i = 0; i < s.shared * blocks.value_steps; ++i)
      for (int64_t b = 0; b < blocks.values; ++b) {
        const int64_t head = i / blocks.value_steps, step = i % blocks.value_steps;
        values[head * blocks.of_values() + b * blocks.value_steps + step] = values_at<U>(s, v, head, step, b);
      }
    Tile<U, Kind> tile(s, height);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < s.shared * pieces; ++task) {
      const int64_t head = task / pieces, first = task % pieces * height;
      tile.begin(q, head, first, std::min(height, rows - first));
      for (int64_t block = tile.from / (BLOCKS * LANES) * BLOCKS; block * LANES < tile.until; block += BLOCKS) {
        const Words* const w = keys.get() + head * blocks.of_keys() + block * blocks.key_steps;
        in_tiles<MOST_ROWS>(tile.count, [&](auto size, int64_t r) {
          Lanes sums[decltype(size)::value][BLOCKS] = {};
          product<U>(tile.wide.get() + r * tile.width, tile.width, blocks.key_steps,
                     [&](int64_t step, int64_t b) { return w[b * blocks.key_steps + step]; }, sums);
          for (int t = 0; t < size; ++t)
            std::memcpy(tile.scores.get() + (r + t) * tile.columns + block * LANES, sums[t], sizeof sums[t]);
        });
      }
      tile.soften();
      // Steps that no row of the tile sees are left out.
      const int64_t begin = tile.begin_step(), steps = tile.end_step() - begin;
      for (int64_t block = 0; block < blocks.values; block += BLOCKS) {
        const Words* const w = values.get() + head * blocks.of_values() + block * blocks.value_steps + begin;
        in_tiles<MOST_ROWS>(tile.count, [&](auto size, int64_t r) {
          Lanes sums[decltype(size)::value][BLOCKS] = {};
          product<U>(tile.shares.get() + r * tile.columns + begin * U::STEP, tile.columns, steps,
                     [&](int64_t step, int64_t b) { return w[b * blocks.value_steps + step]; }, sums);
          tile.put_sums(sums, r, block * LANES, out);
        });
      }
    }
  }
}

// Few rows of a head do not repay the packing: keys are turned in registers, values met as they lie. What is added to
// what, in which order, is the same.
template <typename U, typename Kind>
void attend_few(const Shape& s, const Kind* q, const Kind* k, const Kind* v, Kind* out, int64_t threads) {
  const Blocks<U> blocks(s);
  const int64_t rows = s.queries * s.group(), pieces = (rows + MOST_ROWS - 1) / MOST_ROWS;
#pragma omp parallel num_threads(threads)
  {
    Tile<U, Kind> tile(s, MOST_ROWS);
    const std::unique_ptr<Lanes[]> totals(new Lanes[MOST_ROWS * blocks.values]);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < s.shared * pieces; ++task) {
      const int64_t head = task / pieces, piece = task % pieces, first = rows * piece / pieces;
      tile.begin(q, head, first, rows * (piece + 1) / pieces - first);
      with_count<MOST_ROWS>(tile.count, 0, [&](auto size, int64_t) {
        constexpr int T = decltype(size)::value;
        for (int64_t block = tile.from / LANES; block * LANES < tile.until; ++block) {
          Lanes sum[T] = {};
          keys_over<U>(s, k, head, block, [&](int64_t step, Words words) {
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t) U::add(sum[t], tile.wide.get() + t * tile.width + step * U::STEP, words);
          });
          for (int t = 0; t < T; ++t)
            std::memcpy(tile.scores.get() + t * tile.columns + block * LANES, &sum[t], sizeof sum[t]);
        }
        tile.soften();
        Lanes(*const total)[T][BLOCKS] = reinterpret_cast<Lanes(*)[T][BLOCKS]>(totals.get());
        std::fill_n(totals.get(), T * blocks.values, Lanes{});
        for (int64_t step = tile.begin_step(); step < tile.end_step(); step += RUN)
          for (int64_t block = 0; block < blocks.values; block += BLOCKS)
            product<U>(tile.shares.get() + step * U::STEP, tile.columns, std::min(RUN, tile.end_step() - step),
                       [&](int64_t c, int64_t b) { return values_at<U>(s, v, head, step + c, block + b); },
                       total[block / BLOCKS]);
        for (int64_t block = 0; block < blocks.values; block += BLOCKS)
          tile.put_sums(total[block / BLOCKS], 0, block * LANES, out);
      });
    }
  }
}

template <typename U, typename Kind>
void attend_any(const Shape& s, const void* q, const void* k, const void* v, void* out, int64_t threads) {
  const auto run = s.queries * s.group() <= FEW ? attend_few<U, Kind> : attend_many<U, Kind>;
  run(s, static_cast<const Kind*>(q), static_cast<const Kind*>(k), static_cast<const Kind*>(v), static_cast<Kind*>(out),
      threads);
}

}  // namespace

extern "C" {

// out [T, H, D] of q [T, H, D] over keys and values [K, S, D] whose heads lie `stride` elements apart. Query t of T sees
// the `window` keys up to the (S - T + t)th if `causal`, else all of them. FLOAT32 or BFLOAT16.
void attention(const void* q, const void* k, const void* v, int64_t kind, int64_t queries, int64_t heads, int64_t size,
               int64_t shared, int64_t keys, int64_t stride, int64_t causal, int64_t window, void* out, int64_t threads) {
  const Shape shape{queries, heads, size, shared, keys, stride, window, causal != 0};
  if (kind == FLOAT32)
    attend_any<Single, float>(shape, q, k, v, out, threads);
  else
    attend_any<Pairs, uint16_t>(shape, q, k, v, out, threads);
}
}
