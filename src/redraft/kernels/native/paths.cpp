// A canvas under an automaton: forward-backward, Viterbi, and the entropies of the marginals, in one call.
//
// A state may be e^-700 less likely than another and still be the only one that can end, so sums are kept as a double
// and an exponent of two. That takes no exp and no log an edge, as sums in log space would.
#include "numbers.h"

#include <algorithm>
#include <vector>

using namespace redraft;

namespace {

constexpr double LOG2E_WIDE = 1.4426950408889634, LN2_WIDE = 0.6931471805599453;
// The exponent of zero. Sums of two of them stay below every real one.
constexpr int64_t NOTHING = -(int64_t(1) << 40);

// m * 2^e, as arrays.
struct Wide {
  std::vector<double> m;
  std::vector<int64_t> e;
  explicit Wide(int64_t count) : m(count, 0.0), e(count, NOTHING) {}
};

// 2^n of n <= 0; 0 where a double has nothing left beside 1.
inline double power(int64_t n) {
  const int64_t kept = n < -1022 ? -1023 : n;
  const uint64_t bits = static_cast<uint64_t>(kept + 1023) << 52;
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline void set(double& m, int64_t& e, double value, int64_t exponent) {
  int shift = 0;
  m = std::frexp(value, &shift);
  e = value > 0.0 ? exponent + shift : NOTHING;
}

// e^x of a sum that is known by its log.
inline void set_exp(double& m, int64_t& e, double log) {
  if (log == -INFINITY) return set(m, e, 0.0, 0);
  const double whole = std::nearbyint(log * LOG2E_WIDE);
  set(m, e, std::exp(log - whole * LN2_WIDE), static_cast<int64_t>(whole));
}

inline double log_of(double m, int64_t e) { return std::log(m) + static_cast<double>(e) * LN2_WIDE; }

// Sums of products into slots that are met in any order: first the largest exponent of each, then the sums beside it.
struct Scatter {
  Wide sum;
  explicit Scatter(int64_t count) : sum(count) {}
  void clear() {
    std::fill(sum.m.begin(), sum.m.end(), 0.0);
    std::fill(sum.e.begin(), sum.e.end(), NOTHING);
  }
  void see(int64_t slot, int64_t e) { sum.e[slot] = std::max(sum.e[slot], e); }
  void add(int64_t slot, double m, int64_t e) { sum.m[slot] += m * power(e - sum.e[slot]); }
  void finish() {
    for (size_t i = 0; i < sum.m.size(); ++i) set(sum.m[i], sum.e[i], sum.m[i], sum.e[i]);
  }
};

struct Automaton {
  const int32_t* class_of;                   // [V], negative where no state takes the token
  int64_t V, C, S, K;
  const int64_t *offsets, *target, *kinds;   // [S + 1], [E], [E]: edges by source, what each takes is a set of classes
  const int64_t *set_begin, *member;         // [K + 1], classes of all sets
};

// What a row of logits says of each class.
struct Row {
  std::vector<double> best, level, log_mass;  // [C] largest score, mean score under p, log of the sum
  explicit Row(int64_t C) : best(C), level(C), log_mass(C) {}
};

void read(const Automaton& a, const float* logits, double scale, bool sums, Row& row) {
  std::fill(row.best.begin(), row.best.end(), -INFINITY);
  for (int64_t v = 0; v < a.V; ++v) {
    const int32_t c = a.class_of[v];
    if (c < 0) continue;
    const double score = logits[v] * scale;
    if (score > row.best[c]) row.best[c] = score;
  }
  if (!sums) return;
  std::vector<double> mass(a.C, 0.0);
  std::fill(row.level.begin(), row.level.end(), 0.0);
  for (int64_t v = 0; v < a.V; ++v) {
    const int32_t c = a.class_of[v];
    if (c < 0 || logits[v] == -INFINITY) continue;
    const double score = logits[v] * scale, share = std::exp(score - row.best[c]);
    mass[c] += share;
    row.level[c] += share * score;
  }
  for (int64_t c = 0; c < a.C; ++c) {
    row.log_mass[c] = mass[c] > 0.0 ? row.best[c] + std::log(mass[c]) : -INFINITY;
    if (mass[c] > 0.0) row.level[c] /= mass[c];
  }
}

// A token of one set: the best, or with `uniform` the one that the draw means, in the order of the vocabulary.
int64_t token_of(const Automaton& a, const float* logits, double scale, int64_t kind, const double* uniform) {
  std::vector<bool> inside(a.C, false);
  for (int64_t j = a.set_begin[kind]; j < a.set_begin[kind + 1]; ++j) inside[a.member[j]] = true;
  const auto taken = [&](int64_t v) { return a.class_of[v] >= 0 && inside[a.class_of[v]]; };
  int64_t best = -1;
  for (int64_t v = 0; v < a.V; ++v)
    if (taken(v) && (best < 0 || logits[v] > logits[best])) best = v;
  if (uniform == nullptr || best < 0) return best;
  const double top = logits[best] * scale;
  double total = 0.0;
  for (int64_t v = 0; v < a.V; ++v)
    if (taken(v)) total += std::exp(logits[v] * scale - top);
  const double threshold = *uniform * total;
  double sum = 0.0;
  for (int64_t v = 0; v < a.V; ++v) {
    if (!taken(v)) continue;
    sum += std::exp(logits[v] * scale - top);
    if (sum > threshold) return v;
  }
  return best;
}

}  // namespace

extern "C" {

// logits      [L, V]
// scale       [1] 1 / temperature; 0 means temperature 0, where only `argmax` is written
// end         [S] log weight of each state behind the last position
// state       before the first position
// uniform     [2, L] draws in [0, 1): of the edge, and of the token on it
// argmax, sample [L], entropy, local [L] in nats: out; see `CanvasDraw`. The first of `argmax` is -1 where no sequence
//             leads to an end.
void canvas_paths(const float* logits, int64_t L, int64_t V, const double* scale, const int32_t* class_of, int64_t C,
                  const int64_t* offsets, const int64_t* target, const int64_t* kinds, int64_t S,
                  const int64_t* set_begin, const int64_t* member, int64_t K, const double* end, int64_t state,
                  const double* uniform, int64_t* argmax, int64_t* sample, double* entropy, double* local,
                  int64_t threads) {
  const Automaton a{class_of, V, C, S, K, offsets, target, kinds, set_begin, member};
  const bool sums = *scale > 0.0;
  const double factor = sums ? *scale : 1.0;
  std::vector<Row> rows(L, Row(C));
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t i = 0; i < L; ++i) read(a, logits + i * V, factor, sums, rows[i]);

  // Viterbi, backwards, so that ties go to the first edge.
  std::vector<double> best((L + 1) * S, -INFINITY), best_set(L * K, -INFINITY);
  std::copy(end, end + S, best.begin() + L * S);
  for (int64_t i = L - 1; i >= 0; --i) {
    double* const of_set = best_set.data() + i * K;
    for (int64_t k = 0; k < K; ++k)
      for (int64_t j = set_begin[k]; j < set_begin[k + 1]; ++j) of_set[k] = std::max(of_set[k], rows[i].best[member[j]]);
    const double* const after = best.data() + (i + 1) * S;
    for (int64_t s = 0; s < S; ++s) {
      double found = -INFINITY;
      for (int64_t j = offsets[s]; j < offsets[s + 1]; ++j) found = std::max(found, of_set[kinds[j]] + after[target[j]]);
      best[i * S + s] = found;
    }
  }
  argmax[0] = -1;
  if (!(best[state] > -INFINITY)) return;
  for (int64_t i = 0, s = state; i < L; ++i) {
    int64_t chosen = offsets[s];
    double found = -INFINITY;
    for (int64_t j = offsets[s]; j < offsets[s + 1]; ++j) {
      const double value = best_set[i * K + kinds[j]] + best[(i + 1) * S + target[j]];
      if (value > found) found = value, chosen = j;
    }
    argmax[i] = token_of(a, logits + i * V, factor, kinds[chosen], nullptr);
    s = target[chosen];
  }
  if (!sums) return;

  // Weights of the sets, and what may follow each state.
  Wide weight(L * K), backward((L + 1) * S);
  for (int64_t s = 0; s < S; ++s) set_exp(backward.m[L * S + s], backward.e[L * S + s], end[s]);
  Wide mass(L * C);
  for (int64_t i = L - 1; i >= 0; --i) {
    for (int64_t c = 0; c < C; ++c) set_exp(mass.m[i * C + c], mass.e[i * C + c], rows[i].log_mass[c]);
    for (int64_t k = 0; k < K; ++k) {
      int64_t top = NOTHING;
      for (int64_t j = set_begin[k]; j < set_begin[k + 1]; ++j) top = std::max(top, mass.e[i * C + member[j]]);
      double sum = 0.0;
      for (int64_t j = set_begin[k]; j < set_begin[k + 1]; ++j)
        sum += mass.m[i * C + member[j]] * power(mass.e[i * C + member[j]] - top);
      set(weight.m[i * K + k], weight.e[i * K + k], sum, top);
    }
    const double *wm = weight.m.data() + i * K, *fm = backward.m.data() + (i + 1) * S;
    const int64_t *we = weight.e.data() + i * K, *fe = backward.e.data() + (i + 1) * S;
    for (int64_t s = 0; s < S; ++s) {
      int64_t top = 2 * NOTHING;
      for (int64_t j = offsets[s]; j < offsets[s + 1]; ++j) top = std::max(top, we[kinds[j]] + fe[target[j]]);
      double sum = 0.0;
      for (int64_t j = offsets[s]; j < offsets[s + 1]; ++j)
        sum += wm[kinds[j]] * fm[target[j]] * power(we[kinds[j]] + fe[target[j]] - top);
      set(backward.m[i * S + s], backward.e[i * S + s], sum, top);
    }
  }

  for (int64_t i = 0, s = state; i < L; ++i) {
    const double *wm = weight.m.data() + i * K, *fm = backward.m.data() + (i + 1) * S;
    const int64_t *we = weight.e.data() + i * K, *fe = backward.e.data() + (i + 1) * S;
    int64_t top = 2 * NOTHING;
    for (int64_t j = offsets[s]; j < offsets[s + 1]; ++j) top = std::max(top, we[kinds[j]] + fe[target[j]]);
    const auto value = [&](int64_t j) {
      return wm[kinds[j]] * fm[target[j]] * power(we[kinds[j]] + fe[target[j]] - top);
    };
    double total = 0.0, sum = 0.0;
    for (int64_t j = offsets[s]; j < offsets[s + 1]; ++j) total += value(j);
    const double threshold = uniform[i] * total;
    int64_t chosen = offsets[s];
    for (int64_t j = offsets[s]; j < offsets[s + 1]; ++j) {
      const double share = value(j);
      if (share > 0.0) chosen = j;
      sum += share;
      if (sum > threshold) break;
    }
    sample[i] = token_of(a, logits + i * V, factor, kinds[chosen], uniform + L + i);
    s = target[chosen];
  }

  // A token's marginal is its own share times a factor r that its whole class has in common, so
  // H = - sum over classes of P(class) (log r + the mean log share within it).
  Scatter forward(S), next(S), of_set(K), of_class(C);
  const double log_all = log_of(backward.m[state], backward.e[state]);
  set(forward.sum.m[state], forward.sum.e[state], 1.0, 0);
  for (int64_t i = 0; i < L; ++i) {
    const double *wm = weight.m.data() + i * K, *fm = backward.m.data() + (i + 1) * S;
    const int64_t *we = weight.e.data() + i * K, *fe = backward.e.data() + (i + 1) * S;
    next.clear(), of_set.clear(), of_class.clear();
    for (int pass = 0; pass < 2; ++pass)
      for (int64_t s = 0; s < S; ++s) {
        const double m = forward.sum.m[s];
        const int64_t e = forward.sum.e[s];
        if (m == 0.0) continue;
        for (int64_t j = offsets[s]; j < offsets[s + 1]; ++j) {
          const int64_t k = kinds[j], t = target[j];
          if (pass == 0) {
            next.see(t, e + we[k]), of_set.see(k, e + fe[t]);
          } else {
            next.add(t, m * wm[k], e + we[k]), of_set.add(k, m * fm[t], e + fe[t]);
          }
        }
      }
    next.finish(), of_set.finish();
    for (int pass = 0; pass < 2; ++pass)
      for (int64_t k = 0; k < K; ++k) {
        const double m = of_set.sum.m[k];
        const int64_t e = of_set.sum.e[k];
        if (m == 0.0) continue;
        for (int64_t j = set_begin[k]; j < set_begin[k + 1]; ++j)
          pass == 0 ? of_class.see(member[j], e) : of_class.add(member[j], m, e);
      }
    of_class.finish();
    double total = 0.0, top = -INFINITY;
    for (int64_t c = 0; c < C; ++c)
      if (of_class.sum.m[c] != 0.0) top = std::max(top, rows[i].log_mass[c]);
    double all = 0.0, mean = 0.0;
    for (int64_t c = 0; c < C; ++c) {
      if (of_class.sum.m[c] == 0.0 || mass.m[i * C + c] == 0.0) continue;
      const double log_r = log_of(of_class.sum.m[c], of_class.sum.e[c]) - log_all;
      const double marginal = std::exp(log_r + rows[i].log_mass[c]);
      if (marginal > 0.0) total -= marginal * (log_r + rows[i].level[c]);
      const double share = std::exp(rows[i].log_mass[c] - top);
      all += share, mean += share * rows[i].level[c];
    }
    entropy[i] = std::max(total, 0.0);
    local[i] = std::max(top + std::log(all) - mean / all, 0.0);
    std::swap(forward, next);
  }
}
}
