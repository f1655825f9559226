// A canvas under an automaton: forward-backward, Viterbi, and the entropies of the marginals, in one call.
#include "classes.h"

using namespace redraft;

namespace {

// States that some sequence leads to before each position, whatever the scores. Once the list stays what it was, it
// stays so.
struct Reached {
  std::vector<std::vector<int64_t>> lists;
  std::vector<int64_t> list_of;  // [L + 1]

  Reached(const Automaton& a, int64_t L, int64_t state) : lists{{state}}, list_of(L + 1, 0) {
    std::vector<char> mark(a.S);
    for (int64_t i = 0; i < L; ++i) {
      const std::vector<int64_t>& before = lists[list_of[i]];
      if (i > 0 && list_of[i] == list_of[i - 1]) {
        list_of[i + 1] = list_of[i];
        continue;
      }
      std::fill(mark.begin(), mark.end(), 0);
      for (const int64_t s : before)
        for (int64_t j = a.offsets[s]; j < a.offsets[s + 1]; ++j) mark[a.target[j]] = 1;
      std::vector<int64_t> after;
      for (int64_t s = 0; s < a.S; ++s)
        if (mark[s]) after.push_back(s);
      const bool same = after == before;
      if (!same) lists.push_back(std::move(after));
      list_of[i + 1] = same ? list_of[i] : static_cast<int64_t>(lists.size()) - 1;
    }
  }
  const std::vector<int64_t>& at(int64_t i) const { return lists[list_of[i]]; }
};

double largest_of(const double* of_class, Index begin, Index end) {
  double top = -INFINITY;
#pragma omp simd reduction(max : top)
  for (Index c = begin; c < end; ++c) {
    const double value = of_class[*c];
    top = value > top ? value : top;
  }
  return top;
}

double sum_of(const double* of_class, Index begin, Index end) {
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (Index c = begin; c < end; ++c) sum += of_class[*c];
  return sum;
}

// The likeliest sequence: its edges' sets, and the states before each position that lie on any sequence at all.
struct Best {
  std::vector<int64_t> sets;
  std::vector<std::vector<int64_t>> alive;
  bool any;

  Best(const Automaton& a, const Classes& classes, const double* end, int64_t L, int64_t state)
      : sets(L), alive(L + 1) {
    const Reached reached(a, L, state);
    // Backwards, so that ties go to the first edge.
    std::vector<double> best((L + 1) * a.S, -INFINITY), of_set(a.K);
    std::vector<int64_t> chosen(L * a.S, -1), made(a.K, -1);
    for (const int64_t s : reached.at(L)) {
      best[L * a.S + s] = end[s];
      if (end[s] > -INFINITY) alive[L].push_back(s);
    }
    for (int64_t i = L - 1; i >= 0; --i) {
      const double *const after = best.data() + (i + 1) * a.S, *const of_class = classes.best.data() + i * a.C;
      for (const int64_t s : reached.at(i)) {
        double found = -INFINITY;
        for (int64_t j = a.offsets[s]; j < a.offsets[s + 1]; ++j) {
          const double behind = after[a.target[j]];
          if (behind == -INFINITY) continue;
          const int64_t k = a.kinds[j];
          if (made[k] != i) {
            of_set[k] = largest_of(of_class, a.member + a.set_begin[k], a.member + a.set_begin[k + 1]), made[k] = i;
          }
          if (of_set[k] + behind > found) found = of_set[k] + behind, chosen[i * a.S + s] = j;
        }
        best[i * a.S + s] = found;
        if (found > -INFINITY) alive[i].push_back(s);
      }
    }
    any = best[state] > -INFINITY;
    for (int64_t i = 0, s = state; i < L && any; ++i) {
      const int64_t j = chosen[i * a.S + s];
      sets[i] = a.kinds[j];
      s = a.target[j];
    }
  }
};

// Weights of sets at a position, made when an edge asks.
struct Sets {
  const Automaton& a;
  const Classes& classes;
  Wide weight;
  std::vector<double> flat;
  std::vector<int64_t> made, spread;
  int64_t top = NOTHING, least = 0, now = -1;

  Sets(const Automaton& a, const Classes& classes, int64_t L)
      : a(a), classes(classes), weight(L * a.K), flat(a.C), made(a.K, -1), spread(L) {}

  void move_to(int64_t i) {
    now = i, top = NOTHING, least = -NOTHING;
    const int64_t* const e = classes.e.data() + i * a.C;
    for (int64_t c = 0; c < a.C; ++c) {
      if (e[c] == NOTHING) continue;
      top = std::max(top, e[c]), least = std::min(least, e[c]);
    }
    spread[i] = top - least;
    // Nearly always a double holds all classes of a position beside each other.
    for (int64_t c = 0; c < a.C && is_flat(); ++c) flat[c] = classes.m[i * a.C + c] * power(e[c] - top);
  }
  bool is_flat() const { return top - least < 900; }

  void make(int64_t k) {
    if (made[k] == now) return;
    made[k] = now;
    const Index begin = a.member + a.set_begin[k], end = a.member + a.set_begin[k + 1];
    const double* const m = classes.m.data() + now * a.C;
    const int64_t* const e = classes.e.data() + now * a.C;
    int64_t reference = top;
    double sum = 0.0;
    if (is_flat()) {
      sum = sum_of(flat.data(), begin, end);
    } else {
      reference = NOTHING;
      for (Index c = begin; c < end; ++c) reference = std::max(reference, e[*c]);
      for (Index c = begin; c < end; ++c) sum += m[*c] * power(e[*c] - reference);
    }
    set(weight.m[now * a.K + k], weight.e[now * a.K + k], sum, reference);
  }
};

// [L + 1, S] the weight of everything that may follow each state.
Wide what_follows(const Automaton& a, Sets& sets, const std::vector<std::vector<int64_t>>& alive, const double* end,
                  int64_t L) {
  const int64_t S = a.S;
  const Index offsets = a.offsets, target = a.target, kinds = a.kinds;
  Wide backward((L + 1) * S);
  for (const int64_t s : alive[L]) set_exp(backward.m[L * S + s], backward.e[L * S + s], end[s]);
  for (int64_t i = L - 1; i >= 0; --i) {
    sets.move_to(i);
    const double *wm = sets.weight.m.data() + i * a.K, *fm = backward.m.data() + (i + 1) * S;
    const int64_t *we = sets.weight.e.data() + i * a.K, *fe = backward.e.data() + (i + 1) * S;
    for (const int64_t s : alive[i]) {
      int64_t top = 2 * NOTHING;
      for (int64_t j = offsets[s]; j < offsets[s + 1]; ++j) {
        if (fm[target[j]] == 0.0) continue;
        sets.make(kinds[j]);
        top = std::max(top, we[kinds[j]] + fe[target[j]]);
      }
      double sum = 0.0;
      for (int64_t j = offsets[s]; j < offsets[s + 1]; ++j)
        sum += wm[kinds[j]] * fm[target[j]] * power(std::min<int64_t>(we[kinds[j]] + fe[target[j]] - top, 0));
      set(backward.m[i * S + s], backward.e[i * S + s], sum, top);
    }
  }
  return backward;
}

// Marginals from the left, position by position.
class Marginals {
 public:
  Marginals(const Automaton& a, const Classes& classes, const Sets& sets, const Wide& backward, int64_t state)
      : a(a), classes(classes), sets(sets), backward(backward), all_m(backward.m[state]), all_e(backward.e[state]),
        forward(a.S), next(a.S), of_set(a.K), of_class(a.C), factor(a.C, 0.0), factor_e(a.C, 0), possible(a.C, 0) {
    forward.see(state, 0), forward.add(state, 1.0, 0), forward.finish();
  }

  // `best` is the class of the likeliest sequence's token.
  void move(int64_t i, int64_t best, double* entropy, double* local, double* best_log_prob) {
    edges(i);
    found.clear();
    if (sets.spread[i] < 400) {
      classes_beside_each_other();
    } else {
      classes_apart();
    }
    entropies(i, best, entropy, local, best_log_prob);
    for (const int64_t c : found) factor[c] = 0.0, possible[c] = 0;
    std::swap(forward, next);
  }

 private:
  // Sums over what leads to each state, and over all edges of each set but for the set's own weight.
  void edges(int64_t i) {
    const double *wm = sets.weight.m.data() + i * a.K, *fm = backward.m.data() + (i + 1) * a.S;
    const int64_t *we = sets.weight.e.data() + i * a.K, *fe = backward.e.data() + (i + 1) * a.S;
    const Index offsets = a.offsets, target = a.target, kinds = a.kinds;
    next.clear(), of_set.clear();
    for (const int64_t s : forward.seen) {
      const int64_t e = forward.sum.e[s];
      for (int64_t j = offsets[s]; j < offsets[s + 1]; ++j) {
        const int64_t k = kinds[j], t = target[j];
        if (fm[t] != 0.0 && wm[k] != 0.0) next.see(t, e + we[k]), of_set.see(k, e + fe[t]);
      }
    }
    for (const int64_t s : forward.seen) {
      const double m = forward.sum.m[s];
      const int64_t e = forward.sum.e[s];
      for (int64_t j = offsets[s]; j < offsets[s + 1]; ++j) {
        const int64_t k = kinds[j], t = target[j];
        if (fm[t] != 0.0 && wm[k] != 0.0) next.add(t, m * wm[k], e + we[k]), of_set.add(k, m * fm[t], e + fe[t]);
      }
    }
    next.finish(), of_set.finish();
  }

  // The factor r of each class, where masses of classes lie so near each other that a set which is lost beside the
  // largest has no share in anything.
  void classes_beside_each_other() {
    int64_t top = 2 * NOTHING;
    for (const int64_t k : of_set.seen) top = std::max(top, of_set.sum.e[k]);
    double* const sum = factor.data();
    char* const known = possible.data();
    for (const int64_t k : of_set.seen) {
      const double m = of_set.sum.m[k] * power(of_set.sum.e[k] - top);
      const Index end = a.member + a.set_begin[k + 1];
      for (Index c = a.member + a.set_begin[k]; c < end; ++c) {
        sum[*c] += m;
        if (!known[*c]) known[*c] = 1, found.push_back(*c);
      }
    }
    for (const int64_t c : found) factor_e[c] = top;
  }

  void classes_apart() {
    of_class.clear();
    for (const int64_t k : of_set.seen)
      for (int64_t j = a.set_begin[k]; j < a.set_begin[k + 1]; ++j) of_class.see(a.member[j], of_set.sum.e[k]);
    for (const int64_t k : of_set.seen)
      for (int64_t j = a.set_begin[k]; j < a.set_begin[k + 1]; ++j)
        of_class.add(a.member[j], of_set.sum.m[k], of_set.sum.e[k]);
    for (const int64_t c : of_class.seen)
      factor[c] = of_class.sum.m[c], factor_e[c] = of_class.sum.e[c], possible[c] = 1, found.push_back(c);
  }

  // A token's marginal is its own share times a factor r that its whole class has in common, so
  // H = - sum over classes of P(class) (log r + the mean log share within it).
  void entropies(int64_t i, int64_t best, double* entropy, double* local, double* best_log_prob) const {
    const double *const m = classes.m.data() + i * classes.C, *const level = classes.level.data() + i * classes.C;
    const int64_t* const e = classes.e.data() + i * classes.C;
    int64_t top = NOTHING;
    for (const int64_t c : found) top = std::max(top, e[c]);
    double total = 0.0, all = 0.0, mean = 0.0;
    for (const int64_t c : found) {
      if (m[c] == 0.0) continue;
      const int64_t exponent = factor_e[c] + e[c] - all_e;
      const double joint = factor[c] * m[c] / all_m;
      // The exponent of a probability may be positive where its mantissa is small.
      const double marginal = exponent <= 0 ? joint * power(exponent) : std::ldexp(joint, static_cast<int>(exponent));
      // x log x of less has no digit beside anything that an entropy is compared with.
      if (marginal > 1e-22) total -= marginal * (log_of(factor[c] / all_m, factor_e[c] - all_e) + level[c]);
      const double share = m[c] * power(e[c] - top);
      all += share, mean += share * level[c];
    }
    *entropy = std::max(total, 0.0);
    const double log_all = log_of(all, top);
    *local = std::max(log_all - mean / all, 0.0);
    // The best token of its class: what is best in a whole set is that in its own class as well.
    const double score = classes.best[i * classes.C + best];
    const double log_factor = log_of(factor[best] / all_m, factor_e[best] - all_e);
    *best_log_prob = std::min({score + log_factor, score - log_all, 0.0});
  }

  const Automaton& a;
  const Classes& classes;
  const Sets& sets;
  const Wide& backward;
  const double all_m;
  const int64_t all_e;
  Scatter forward, next, of_set, of_class;
  std::vector<double> factor;
  std::vector<int64_t> factor_e, found;
  std::vector<char> possible;
};

}  // namespace

extern "C" {

// score       [L, X] of explicit tokens;  scale [1] what they are multiplied with
// kind, id    [X] class of each, and its number in the vocabulary
// broad       [G] classes that are given as a whole, with best, token, log_mass and level [L, G]
// sums        0: temperature 0, where only `argmax` is written
// end         [S] log weight of each state behind the last position
// state       before the first position
// uniform     [2, L] draws in [0, 1): of the edge, and of the token on it
// argmax, sample [L], entropy, local, best_log_prob [L] in nats: out; see `CanvasDraw`. The first of `argmax` is -1 where
//             no sequence leads to an end. -1 - g in `sample` is a token of broad class g, by the draw in `rest` [L].
void canvas_paths(const float* score, int64_t L, int64_t X, const double* scale, const int32_t* kind, Index id,
                  int64_t G, Index broad, const double* broad_best, Index broad_token, const double* broad_mass,
                  const double* broad_level, int64_t sums, int64_t C, Index offsets, Index target, Index kinds,
                  int64_t S, Index set_begin, Index member, int64_t K, const double* end, int64_t state,
                  const double* uniform, int64_t* argmax, int64_t* sample, double* rest, double* entropy,
                  double* local, double* best_log_prob, int64_t threads) {
  const Automaton a{C, S, K, offsets, target, kinds, set_begin, member};
  const Scores from{score, X, *scale, kind, id, G, broad, broad_best, broad_token, broad_mass, broad_level};
  Classes classes(L, C, sums);
#pragma omp parallel num_threads(threads)
  {
    std::vector<double> share(X);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < L; ++i) classes.read(from, i, sums, share.data());
  }

  Picker picker(a, from, classes);
  std::vector<std::vector<int64_t>> alive;
  std::vector<int64_t> best_kind(L);
  argmax[0] = -1;
  {
    Best best(a, classes, end, L, state);
    if (!best.any) return;
    for (int64_t i = 0; i < L; ++i) {
      const Picked found = picker.pick(i, best.sets[i], nullptr);
      argmax[i] = found.token, best_kind[i] = found.kind;
    }
    alive = std::move(best.alive);
  }
  if (!sums) return;

  Sets sets(a, classes, L);
  const Wide backward = what_follows(a, sets, alive, end, L);

  for (int64_t i = 0, s = state; i < L; ++i) {
    const double *wm = sets.weight.m.data() + i * K, *fm = backward.m.data() + (i + 1) * S;
    const int64_t *we = sets.weight.e.data() + i * K, *fe = backward.e.data() + (i + 1) * S;
    const auto weighs = [&](int64_t j) { return fm[target[j]] != 0.0 && wm[kinds[j]] != 0.0; };
    int64_t top = 2 * NOTHING;
    for (int64_t j = offsets[s]; j < offsets[s + 1]; ++j)
      if (weighs(j)) top = std::max(top, we[kinds[j]] + fe[target[j]]);
    const auto value = [&](int64_t j) {
      return weighs(j) ? wm[kinds[j]] * fm[target[j]] * power(we[kinds[j]] + fe[target[j]] - top) : 0.0;
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
    const Picked found = picker.pick(i, kinds[chosen], uniform + L + i);
    sample[i] = found.token, rest[i] = found.rest;
    s = target[chosen];
  }

  Marginals marginals(a, classes, sets, backward, state);
  for (int64_t i = 0; i < L; ++i) marginals.move(i, best_kind[i], entropy + i, local + i, best_log_prob + i);
}
}
