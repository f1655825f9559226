// Attention of a sequence's queries over runs of its keys, grouped heads, scale 1: softmax(q k^T) v in one call.
//
// The query heads of a key-value head are rows of one product, so that keys are packed once for all of them. A row's
// scores are all there before its softmax: nothing is rescaled, and what a row gets does not depend on other rows.
#include <algorithm>
#include <memory>

#include "lanes.h"
#include "tiles.h"

using namespace redraft;

namespace {

// Of scores that a task keeps at a time.
constexpr int64_t SCORE_BYTES = 1 << 19;
constexpr int64_t MOST_TILES = 4;
// Rows of a key-value head that are not worth it.
constexpr int64_t FEW = 8;

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

inline float value_of(const float* x, int64_t i) { return x[i]; }
inline float value_of(const uint16_t* x, int64_t i) { return float_of(x[i]); }
inline void put(float* out, int64_t i, float value) { out[i] = value; }
inline void put(uint16_t* out, int64_t i, float value) { out[i] = bfloat16_of(value); }

template <typename U, typename Kind>
inline typename U::Item item_of(const Kind* x, int64_t i) {
  if constexpr (std::is_same_v<typename U::Item, Kind>)
    return x[i];
  else
    return U::item(value_of(x, i));
}

// A head's keys and values, packed: blocks of keys with their elements in steps; blocks of elements with keys in steps.
template <typename U>
struct Packed {
  using Item = typename U::Item;
  int64_t key_blocks, value_blocks, key_steps, value_steps;
  std::unique_ptr<Item[]> keys, values;
  explicit Packed(const Shape& s)
      : key_blocks(padded(s.keys, LANES * BLOCKS) / LANES), value_blocks(padded(s.size, LANES * BLOCKS) / LANES),
        key_steps(padded(s.size, U::STEP) / U::STEP), value_steps(padded(s.keys, U::STEP) / U::STEP),
        keys(new Item[s.shared * key_blocks * key_stride()]), values(new Item[s.shared * value_blocks * value_stride()]) {}
  int64_t key_stride() const { return key_steps * LANES * U::STEP; }
  int64_t value_stride() const { return value_steps * LANES * U::STEP; }
  Item* keys_of(int64_t head) const { return keys.get() + head * key_blocks * key_stride(); }
  Item* values_of(int64_t head) const { return values.get() + head * value_blocks * value_stride(); }
};

template <typename U, typename Kind>
void pack_keys(const Shape& s, const Packed<U>& packed, const Kind* keys, int64_t head, int64_t block) {
  typename U::Item* const out = packed.keys_of(head) + block * packed.key_stride();
  for (int64_t r = 0; r < LANES; ++r) {
    const int64_t n = block * LANES + r;
    const Kind* const row = keys + head * s.stride + n * s.size;
    for (int64_t d = 0; d < packed.key_steps * U::STEP; ++d)
      out[(d / U::STEP * LANES + r) * U::STEP + d % U::STEP] = n < s.keys && d < s.size ? item_of<U>(row, d) : 0;
  }
}

template <typename U, typename Kind>
void pack_values(const Shape& s, const Packed<U>& packed, const Kind* values, int64_t head, int64_t step) {
  typename U::Item* const out = packed.values_of(head);
  for (int64_t c = 0; c < U::STEP; ++c) {
    const int64_t n = step * U::STEP + c;
    const Kind* const row = values + head * s.stride + n * s.size;
    for (int64_t block = 0; block < packed.value_blocks; ++block)
      for (int64_t r = 0; r < LANES; ++r) {
        const int64_t d = block * LANES + r;
        out[block * packed.value_stride() + (step * LANES + r) * U::STEP + c] =
            n < s.keys && d < s.size ? item_of<U>(row, d) : 0;
      }
  }
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

template <typename U, typename Kind>
void attend(const Shape& s, const Kind* q, const Kind* k, const Kind* v, Kind* out, int64_t threads) {
  using Item = typename U::Item;
  const Packed<U> packed(s);
  const int64_t columns = packed.key_blocks * LANES, rows = s.queries * s.group();
  const int64_t tiles = std::max<int64_t>(1, std::min(MOST_TILES, SCORE_BYTES / (4 * columns * MOST_ROWS)));
  const int64_t height = tiles * MOST_ROWS, pieces = (rows + height - 1) / height;
  const int64_t chunk = BLOCKS * LANES, width = padded(s.size, U::STEP);
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static) nowait
    for (int64_t i = 0; i < s.shared * packed.key_blocks; ++i)
      pack_keys(s, packed, k, i / packed.key_blocks, i % packed.key_blocks);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < s.shared * packed.value_steps; ++i)
      pack_values(s, packed, v, i / packed.value_steps, i % packed.value_steps);
    const std::unique_ptr<float[]> scores(new float[height * columns]);
    const std::unique_ptr<Item[]> shares(new Item[height * columns]), wide(new Item[height * width]);
    const std::unique_ptr<float[]> inverse(new float[height]);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < s.shared * pieces; ++task) {
      const int64_t head = task / pieces, first = task % pieces * height, count = std::min(height, rows - first);
      const auto place = [&](int64_t r) {
        return ((first + r) / s.group() * s.heads + head * s.group() + (first + r) % s.group()) * s.size;
      };
      for (int64_t r = 0; r < count; ++r)
        for (int64_t d = 0; d < width; ++d) wide[r * width + d] = d < s.size ? item_of<U>(q + place(r), d) : 0;
      const int64_t until = s.until((first + count - 1) / s.group()), from = s.from(first / s.group());
      for (int64_t c = from / chunk * chunk; c < until; c += chunk)
        in_tiles<MOST_ROWS>(count, [&](auto size, int64_t r) {
          constexpr int T = decltype(size)::value;
          const Item* x[T];
          for (int t = 0; t < T; ++t) x[t] = wide.get() + (r + t) * width;
          Lanes found[T][BLOCKS];
          product<U, T>(x, packed.keys_of(head) + c / LANES * packed.key_stride(), packed.key_stride(), packed.key_steps,
                        found);
          for (int t = 0; t < T; ++t) std::memcpy(scores.get() + (r + t) * columns + c, found[t], sizeof found[t]);
        });
      for (int64_t r = 0; r < count; ++r) {
        const int64_t t = (first + r) / s.group();
        inverse[r] = softmax<U>(scores.get() + r * columns, s.from(t), s.until(t), packed.value_steps * U::STEP,
                                shares.get() + r * columns);
      }
      // Steps that no row of the tile sees are left out.
      const int64_t begin = from / U::STEP, steps = (until + U::STEP - 1) / U::STEP - begin;
      for (int64_t b = 0; b < packed.value_blocks; b += BLOCKS)
        in_tiles<MOST_ROWS>(count, [&](auto size, int64_t r) {
          constexpr int T = decltype(size)::value;
          const Item* x[T];
          for (int t = 0; t < T; ++t) x[t] = shares.get() + (r + t) * columns + begin * U::STEP;
          Lanes found[T][BLOCKS];
          product<U, T>(x, packed.values_of(head) + b * packed.value_stride() + begin * LANES * U::STEP,
                        packed.value_stride(), steps, found);
          for (int t = 0; t < T; ++t) {
            float values[BLOCKS * LANES];
            std::memcpy(values, found[t], sizeof values);
            Kind* const into = out + place(r + t) + b * LANES;
            const int64_t end = std::min<int64_t>(BLOCKS * LANES, s.size - b * LANES);
            for (int64_t d = 0; d < end; ++d) put(into, d, values[d] * inverse[r + t]);
          }
        });
    }
  }
}

// Few rows of a head do not repay the packing: each meets its keys as they lie.
template <typename Kind>
void attend_few(const Shape& s, const Kind* q, const Kind* k, const Kind* v, Kind* out, int64_t threads) {
#pragma omp parallel num_threads(threads)
  {
    const std::unique_ptr<float[]> scores(new float[s.keys]), shares(new float[s.keys]), row(new float[2 * s.size]);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < s.queries * s.heads; ++task) {
      const int64_t t = task / s.heads, base = task % s.heads / s.group() * s.stride, from = s.from(t), until = s.until(t);
      float *const query = row.get(), *const total = row.get() + s.size;
      for (int64_t d = 0; d < s.size; ++d) query[d] = value_of(q + task * s.size, d), total[d] = 0.0f;
      for (int64_t n = from; n < until; ++n) {
        const Kind* const key = k + base + n * s.size;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t d = 0; d < s.size; ++d) sum += query[d] * value_of(key, d);
        scores[n] = sum;
      }
      const float inverse = softmax<Single>(scores.get(), from, until, s.keys, shares.get());
      for (int64_t n = from; n < until; ++n) {
        const Kind* const value = v + base + n * s.size;
        const float share = shares[n];
#pragma omp simd
        for (int64_t d = 0; d < s.size; ++d) total[d] += share * value_of(value, d);
      }
      for (int64_t d = 0; d < s.size; ++d) put(out + task * s.size, d, total[d] * inverse);
    }
  }
}

template <typename U, typename Kind>
void attend_any(const Shape& s, const void* q, const void* k, const void* v, void* out, int64_t threads) {
  const Kind *const queries = static_cast<const Kind*>(q), *const keys = static_cast<const Kind*>(k);
  const Kind* const values = static_cast<const Kind*>(v);
  if (s.queries * s.group() <= FEW)
    attend_few(s, queries, keys, values, static_cast<Kind*>(out), threads);
  else
    attend<U>(s, queries, keys, values, static_cast<Kind*>(out), threads);
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
