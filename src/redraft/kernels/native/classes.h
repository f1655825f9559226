// An automaton over tokens, what each position of a canvas says of its classes, and the choice of tokens.
#pragma once
#include "wide.h"

namespace redraft {

using Index = const int64_t*;

struct Automaton {
  int64_t C, S, K;
  Index offsets, target, kinds;  // [S + 1], [E], [E]: edges by source, what each takes is a set of classes
  Index set_begin, member;       // [K + 1], classes of all sets
};

// Scores of explicit tokens, one by one, and of broad classes as a whole.
struct Scores {
  const float* score;                // [L, X]
  int64_t X;
  double scale;                      // of `score`
  const int32_t* kind;               // [X] class of each explicit token
  Index id;                          // [X] its number in the vocabulary, ascending
  int64_t G;
  Index broad;                       // [G] classes
  const double* best;                // [L, G]
  Index token;                       // [L, G]
  const double *log_mass, *level;    // [L, G]
};

// What each position says of each class.
struct Classes {
  int64_t C;
  std::vector<double> best, level, m;  // [L, C] largest score, mean score under p, mass ...
  std::vector<int64_t> e;              // ... times two to this
  Classes(int64_t L, int64_t C, bool sums)
      : C(C), best(L * C, -INFINITY), level(sums ? L * C : 0, 0.0), m(sums ? L * C : 0, 0.0),
        e(sums ? L * C : 0, NOTHING) {}

  // `share` [X] is scratch.
  void read(const Scores& from, int64_t i, bool sums, double* share) {
    double* const top = best.data() + i * C;
    const float* const row = from.score + i * from.X;
    const int32_t* const kind = from.kind;
    for (int64_t x = 0; x < from.X; ++x) {
      const double score = row[x] * from.scale;
      if (score > top[kind[x]]) top[kind[x]] = score;
    }
    if (sums) {
      double *const mass = m.data() + i * C, *const mean = level.data() + i * C;
      const double scale = from.scale;
#pragma omp simd
      for (int64_t x = 0; x < from.X; ++x) {
        const double score = row[x];
        const double below = score == -INFINITY ? -INFINITY : score * scale - top[kind[x]];
        share[x] = exp_wide(below);
      }
      for (int64_t x = 0; x < from.X; ++x) {
        if (share[x] == 0.0) continue;
        mass[kind[x]] += share[x];
        mean[kind[x]] += share[x] * (row[x] * scale);
      }
      for (int64_t c = 0; c < C; ++c) {
        if (!(mass[c] > 0.0)) continue;
        mean[c] /= mass[c];
        set_exp(mass[c], e[i * C + c], top[c], mass[c]);
      }
    }
    for (int64_t g = 0; g < from.G; ++g) {
      const int64_t c = from.broad[g], at = i * from.G + g;
      top[c] = from.best[at];
      if (!sums) continue;
      set_exp(m[i * C + c], e[i * C + c], from.log_mass[at]);
      level[i * C + c] = from.level[at];
    }
  }
};

struct Picked {
  int64_t token;  // -1 - g where the draw means a token of broad class g
  double rest;    // what is left of the draw then, in [0, 1)
  int64_t kind;   // class of the best token; -1 of one that was drawn
};

// Chooses tokens, by scratch of its own.
struct Picker {
  const Automaton& a;
  const Scores& from;
  const Classes& classes;
  std::vector<double> bias, share, broad_share;  // [C] 0 inside the set, [X], [G]

  Picker(const Automaton& a, const Scores& from, const Classes& classes)
      : a(a), from(from), classes(classes), bias(a.C, -INFINITY), share(from.X), broad_share(from.G) {}

  // A token of one set: the best, or with `uniform` the one that the draw means: explicit ones in the order of the
  // vocabulary, then broad classes.
  Picked pick(int64_t i, int64_t kind, const double* uniform) {
    const Index begin = a.member + a.set_begin[kind], end = a.member + a.set_begin[kind + 1];
    double top = -INFINITY;
    for (Index c = begin; c < end; ++c) bias[*c] = 0.0, top = std::max(top, classes.best[i * a.C + *c]);
    const Picked found = uniform == nullptr ? best_of(i, top) : drawn(i, top, *uniform);
    for (Index c = begin; c < end; ++c) bias[*c] = -INFINITY;
    return found;
  }

 private:
  Picked best_of(int64_t i, double top) const {
    const float* const row = from.score + i * from.X;
    int64_t best = -1, of = -1;
    for (int64_t x = 0; x < from.X && best < 0; ++x)
      if (row[x] * from.scale == top && bias[from.kind[x]] == 0.0) best = from.id[x], of = from.kind[x];
    for (int64_t g = 0; g < from.G; ++g)
      if (bias[from.broad[g]] == 0.0 && from.best[i * from.G + g] == top) {
        const int64_t token = from.token[i * from.G + g];
        if (best < 0 || token < best) best = token, of = from.broad[g];
      }
    return {best, 0.0, of};
  }

  Picked drawn(int64_t i, double top, double uniform) {
    const float* const row = from.score + i * from.X;
    const double *const of_class = bias.data(), scale = from.scale;
    const int32_t* const kind = from.kind;
    double* const weight = share.data();
    double explicit_mass = 0.0;
#pragma omp simd
    for (int64_t x = 0; x < from.X; ++x) {
      const double score = row[x];
      const double below = score == -INFINITY ? -INFINITY : score * scale - top;
      weight[x] = exp_wide(std::min(below + of_class[kind[x]], 0.0));
    }
    for (int64_t x = 0; x < from.X; ++x) explicit_mass += weight[x];
    double total = explicit_mass;
    for (int64_t g = 0; g < from.G; ++g) {
      broad_share[g] = bias[from.broad[g]] == 0.0 ? std::exp(from.log_mass[i * from.G + g] - top) : 0.0;
      total += broad_share[g];
    }
    const double threshold = uniform * total;
    double sum = 0.0;
    int64_t last = -1;
    for (int64_t x = 0; x < from.X && threshold < explicit_mass; ++x) {
      if (weight[x] == 0.0) continue;
      last = x, sum += weight[x];
      if (sum > threshold) break;
    }
    if (last >= 0) return {from.id[last], 0.0, -1};
    Picked found = best_of(i, top);
    sum = explicit_mass;
    for (int64_t g = 0; g < from.G; ++g) {
      if (!(broad_share[g] > 0.0)) continue;
      // Where rounding leaves something behind the last class, that is it.
      found = {-1 - g, std::min((threshold - sum) / broad_share[g], 1.0 - 0x1p-53), -1};
      sum += broad_share[g];
      if (sum > threshold) break;
    }
    return found;
  }
};

}  // namespace redraft
