// What a tile of logits says of an automaton's classes, while it is in cache.
//
// A broad class has an online softmax of its own in each row: it may lie far below the row's top, where the row's
// exponentials have nothing left of it. As long as it does not, they are used again.
#pragma once
#include "numbers.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace redraft {

// A class whose top is so many nats below another's, exponentials beside that one still tell enough about: what they
// lose lies e^-47 below its top.
constexpr float FAR = 40.0f;
// What lies so far below a class's top adds nothing to it in a double.
constexpr float NEGLIGIBLE = 60.0f;
// 64 classes at most, as bits.
constexpr int MOST = 64;
constexpr int64_t MOST_RUN = 1024;

// Two running values each, since an addition waits for the last one: the compiler would keep one.
constexpr int64_t LANES = 16;

#if defined(__AVX512F__)
using Floats = __m512;
using Mask = __mmask16;
inline Floats filled(float value) { return _mm512_set1_ps(value); }
inline Mask equal(const int32_t* of, int32_t g) {
  return _mm512_cmpeq_epi32_mask(_mm512_loadu_si512(of), _mm512_set1_epi32(g));
}
inline Floats added(Floats sum, Mask mask, const float* x) {
  return _mm512_mask_add_ps(sum, mask, sum, _mm512_loadu_ps(x));
}
inline Floats larger(Floats most, Mask mask, const float* x) {
  return _mm512_mask_max_ps(most, mask, _mm512_loadu_ps(x), most);
}
inline float total_of(Floats first, Floats second) { return _mm512_reduce_add_ps(_mm512_add_ps(first, second)); }
inline float most_of(Floats first, Floats second) { return _mm512_reduce_max_ps(_mm512_max_ps(first, second)); }
#else
typedef float Floats __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t Mask __attribute__((vector_size(64), aligned(4), may_alias));
inline Floats filled(float value) { return Floats{} + value; }
inline Mask equal(const int32_t* of, int32_t g) { return *reinterpret_cast<const Mask*>(of) == Mask{} + g; }
inline Floats added(Floats sum, Mask mask, const float* x) {
  return sum + (mask ? *reinterpret_cast<const Floats*>(x) : Floats{});
}
inline Floats larger(Floats most, Mask mask, const float* x) {
  const Floats value = mask ? *reinterpret_cast<const Floats*>(x) : most;
  return value > most ? value : most;
}
inline float total_of(Floats first, Floats second) {
  float lanes[LANES];
  const Floats both = first + second;
  std::memcpy(lanes, &both, sizeof lanes);
  for (int64_t width = LANES / 2; width > 0; width /= 2)
    for (int64_t k = 0; k < width; ++k) lanes[k] += lanes[k + width];
  return lanes[0];
}
inline float most_of(Floats first, Floats second) {
  float lanes[LANES];
  const Floats both = first > second ? first : second;
  std::memcpy(lanes, &both, sizeof lanes);
  for (int64_t width = LANES / 2; width > 0; width /= 2)
    for (int64_t k = 0; k < width; ++k) lanes[k] = lanes[k] > lanes[k + width] ? lanes[k] : lanes[k + width];
  return lanes[0];
}
#endif

// The largest value of one class.
inline float largest_of(const float* s, const int32_t* of, int32_t g, int64_t count) {
  Floats first = filled(-INFINITY), second = first;
  int64_t i = 0;
  for (; i + 2 * LANES <= count; i += 2 * LANES) {
    first = larger(first, equal(of + i, g), s + i);
    second = larger(second, equal(of + i + LANES, g), s + i + LANES);
  }
  float most = most_of(first, second);
  for (; i < count; ++i)
    if (of[i] == g && s[i] > most) most = s[i];
  return most;
}

// Sums of p and w over one class.
inline void sums_of(const float* p, const float* w, const int32_t* of, int32_t g, int64_t count, float& sum,
                    float& weighted) {
  Floats p0 = filled(0.0f), p1 = p0, w0 = p0, w1 = p0;
  int64_t i = 0;
  for (; i + 2 * LANES <= count; i += 2 * LANES) {
    const Mask a = equal(of + i, g), b = equal(of + i + LANES, g);
    p0 = added(p0, a, p + i), w0 = added(w0, a, w + i);
    p1 = added(p1, b, p + i + LANES), w1 = added(w1, b, w + i + LANES);
  }
  sum = total_of(p0, p1), weighted = total_of(w0, w1);
  for (; i < count; ++i)
    if (of[i] == g) sum += p[i], weighted += w[i];
}

struct Watched {
  const int32_t* broad_of;  // [columns] number of the broad class of each column, -1 for others
  const uint64_t* present;  // [runs of the tile] classes that have a column in the run
  const int32_t* columns;   // [taken] explicit columns of the tile, ascending
  int64_t taken, place;     // place of the first of them in a row of `scores`
  float* scores;            // [rows, X]
  int64_t X, G, J, tiles, run, tile, first_run, first;
  float* top;               // [rows, G]
  int64_t* token;           // [rows, G]
  double *mass, *moment;    // [rows, G] relative to `top`
  float* sums;              // [rows, G, J] of runs of columns, relative to `reference`
  float* reference;         // [rows, G, tiles]

  // Sums of a tile, relative to one reference.
  struct Sums {
    double mass[MOST] = {}, moment[MOST] = {};
  };

  // Takes the explicit columns, and the largest of each class; `most` is the tile's. Returns the classes that have
  // anything to add.
  uint64_t see(int64_t n, const float* s, int64_t count, float most) const {
    for (int64_t x = 0; x < taken; ++x) scores[n * X + place + x] = s[columns[x]];
    uint64_t inside = 0, found = 0;
    for (int64_t r = 0; r * run < count; ++r) inside |= present[r];
    for (uint64_t left = inside; left != 0; left &= left - 1) {
      const int32_t g = __builtin_ctzll(left);
      const int64_t at = n * G + g;
      // Where the whole tile lies below what the class has had, so does the class.
      float largest = most;
      if (most > top[at]) {
        largest = largest_of(s, broad_of, g, count);
        if (largest > top[at]) rise(at, g, s, count, largest);
      }
      if (top[at] - largest < NEGLIGIBLE) found |= uint64_t(1) << g;
    }
    return found;
  }

  void rise(int64_t at, int32_t g, const float* s, int64_t count, float largest) const {
    int64_t i = 0;
    while (i + 1 < count && !(broad_of[i] == g && s[i] == largest)) ++i;
    token[at] = first + i;
    const double step = static_cast<double>(top[at]) - largest;
    const double factor = mass[at] == 0.0 ? 0.0 : std::exp(step);
    moment[at] = mass[at] == 0.0 ? 0.0 : (moment[at] + step * mass[at]) * factor;
    mass[at] *= factor;
    top[at] = largest;
  }

  // Those of some classes whose top is not far below `level`.
  uint64_t near(int64_t n, uint64_t classes, float level) const {
    uint64_t found = 0;
    for (uint64_t left = classes; left != 0; left &= left - 1) {
      const int g = __builtin_ctzll(left);
      if (level - top[n * G + g] <= FAR) found |= uint64_t(1) << g;
    }
    return found;
  }

  // One run's p and p z, where z = s - reference and p = exp(z).
  void add(int64_t n, int64_t r, const float* p, const float* w, int64_t count, uint64_t classes, Sums& into) const {
    const int32_t* const of = broad_of + r * run;
    for (uint64_t left = present[r] & classes; left != 0; left &= left - 1) {
      const int32_t g = __builtin_ctzll(left);
      float sum, weighted;
      sums_of(p, w, of, g, count, sum, weighted);
      sums[(n * G + g) * J + first_run + r] = sum;
      into.mass[g] += sum, into.moment[g] += weighted;
    }
  }

  void finish(int64_t n, uint64_t classes, float level, const Sums& from) const {
    for (uint64_t left = classes; left != 0; left &= left - 1) {
      const int g = __builtin_ctzll(left);
      const int64_t at = n * G + g;
      const double above = static_cast<double>(level) - top[at], factor = std::exp(above);
      mass[at] += factor * from.mass[g];
      moment[at] += factor * (from.moment[g] + above * from.mass[g]);
      reference[at * tiles + tile] = level;
    }
  }

  // Classes that lie far below the row's top, by exponentials of their own; those near each other share them.
  // Returns the others.
  uint64_t apart(int64_t n, const float* s, int64_t count, uint64_t classes, float row_top) const {
    const uint64_t beside = near(n, classes, row_top);
    float p[MOST_RUN], w[MOST_RUN];
    for (uint64_t left = classes & ~beside; left != 0;) {
      float level = -INFINITY;
      for (uint64_t some = left; some != 0; some &= some - 1) {
        const float most = top[n * G + __builtin_ctzll(some)];
        level = most > level ? most : level;
      }
      const uint64_t together = near(n, left, level);
      if (together == 0) break;
      Sums found;
      for (int64_t begin = 0, r = 0; begin < count; begin += run, ++r) {
        if ((present[r] & together) == 0) continue;
        const int64_t width = begin + run < count ? run : count - begin;
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) {
          const float below = s[begin + i] - level;
          // Columns of classes further up are no part of these sums.
          const float z = below < LEAST ? LEAST : (below > 0.0f ? 0.0f : below);
          p[i] = below < LEAST ? 0.0f : exp_of(z);
          w[i] = p[i] * z;
        }
        add(n, r, p, w, width, together, found);
      }
      finish(n, together, level, found);
      left &= ~together;
    }
    return beside;
  }
};

}  // namespace redraft
