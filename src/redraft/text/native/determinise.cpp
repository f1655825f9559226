// The subset construction of an automaton over symbols whose ways carry rules. `determinise.py` has the definition;
// states, classes and rules come out in the same order.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <unordered_map>
#include <vector>

#include "sequences.h"

using namespace redraft;

namespace {


struct Way {
  int32_t first, last, target, rules;
};

struct Result {
  int64_t status = 0;  // 0 done, 1 too large, 2 ambiguous
  int64_t S = 0, C = 0;
  std::vector<int32_t> next, act, kind, final;
  std::vector<int64_t> begin;  // of each sequence of rules in `flat`
  Ints flat;
  Ints ambiguous;
};

struct Builder {
  const int32_t* edges;  // [E, 5] source, first, last, target, rules
  const int32_t* jumps;  // [J, 3] source, target, rules
  int32_t end;
  std::vector<int64_t> edge_begin, jump_begin;
  std::vector<std::vector<Way>> ways;
  std::vector<int32_t> ends;  // rules at the end of the text, -1 where it may not end, -2 where not known yet
  Interned sequences;         // those of the input, then joined ones
  std::vector<int32_t> seen, seen_rules;
  Result* out;

  int32_t joined(int32_t one, int32_t other) {
    if (sequences.values[one]->empty()) return other;
    if (sequences.values[other]->empty()) return one;
    Ints whole = *sequences.values[one];
    whole.insert(whole.end(), sequences.values[other]->begin(), sequences.values[other]->end());
    return sequences.of(whole);
  }

  bool ambiguous(int32_t one, int32_t other) {
    out->status = 2;
    for (int32_t s : {one, other})
      if (s >= 0) out->ambiguous.insert(out->ambiguous.end(), sequences.values[s]->begin(), sequences.values[s]->end());
    return false;
  }

  // Fills in what leaves a state.
  bool know(int32_t state) {
    if (ends[state] != -2) return true;
    Ints reached{state};
    seen[state] = state + 1, seen_rules[state] = 0;
    ends[state] = -1;
    for (size_t place = 0; place < reached.size(); ++place) {
      const int32_t source = reached[place], before = seen_rules[source];
      if (source == end) ends[state] = before;
      for (int64_t j = edge_begin[source]; j < edge_begin[source + 1]; ++j) {
        const int32_t* e = edges + 5 * j;
        ways[state].push_back({e[1], e[2], e[3], joined(before, e[4])});
      }
      for (int64_t j = jump_begin[source]; j < jump_begin[source + 1]; ++j) {
        const int32_t target = jumps[3 * j + 1], rules = joined(before, jumps[3 * j + 2]);
        if (seen[target] == state + 1) {
          if (seen_rules[target] != rules) return ambiguous(seen_rules[target], rules);
          continue;
        }
        seen[target] = state + 1, seen_rules[target] = rules;
        reached.push_back(target);
      }
    }
    return true;
  }
};

void determinise(Builder& b, int64_t states, int64_t E, int64_t J, int32_t start, int64_t symbols, int64_t most_states,
                 int64_t most_work) {
  Result& out = *b.out;
  b.edge_begin.assign(states + 1, 0), b.jump_begin.assign(states + 1, 0);
  for (int64_t j = 0; j < E; ++j) ++b.edge_begin[b.edges[5 * j] + 1];
  for (int64_t j = 0; j < J; ++j) ++b.jump_begin[b.jumps[3 * j] + 1];
  for (int64_t s = 0; s < states; ++s) b.edge_begin[s + 1] += b.edge_begin[s], b.jump_begin[s + 1] += b.jump_begin[s];
  b.ways.resize(states), b.ends.assign(states, -2), b.seen.assign(states, 0), b.seen_rules.assign(states, 0);

  std::vector<char> begins(symbols + 1, 0);
  begins[0] = 1;
  for (int64_t j = 0; j < E; ++j) begins[b.edges[5 * j + 1]] = begins[b.edges[5 * j + 2] + 1] = 1;
  out.kind.resize(symbols);
  for (int64_t v = 0; v < symbols; ++v) out.kind[v] = v == 0 ? 0 : out.kind[v - 1] + begins[v];
  const int64_t C = out.C = out.kind[symbols - 1] + 1;

  Interned kernels, steps;
  steps.of({});
  kernels.of({start});
  std::vector<Ints> targets(C);
  Ints rules(C, -1), touched;
  int64_t work = 0;
  for (int32_t state = 0; state < static_cast<int32_t>(kernels.values.size()); ++state) {
    const Ints kernel = *kernels.values[state];
    int32_t final = -1;
    touched.clear();
    for (int32_t member : kernel) {
      if (!b.know(member)) return;
      if (b.ends[member] >= 0) {
        if (final >= 0 && final != b.ends[member]) return void(b.ambiguous(final, b.ends[member]));
        final = b.ends[member];
      }
      for (const Way& way : b.ways[member])
        for (int32_t c = out.kind[way.first]; c <= out.kind[way.last]; ++c) {
          ++work;
          if (targets[c].empty()) touched.push_back(c), rules[c] = way.rules;
          if (rules[c] != way.rules) return void(b.ambiguous(rules[c], way.rules));
          targets[c].push_back(way.target);
        }
    }
    out.final.push_back(final < 0 ? -1 : steps.of(*b.sequences.values[final]));
    out.next.resize((state + 1) * C, -1), out.act.resize((state + 1) * C, 0);
    std::sort(touched.begin(), touched.end());
    for (int32_t c : touched) {
      Ints& set = targets[c];
      std::sort(set.begin(), set.end());
      set.erase(std::unique(set.begin(), set.end()), set.end());
      out.next[state * C + c] = kernels.of(set);
      out.act[state * C + c] = steps.of(*b.sequences.values[rules[c]]);
      work += static_cast<int64_t>(set.size());
      set.clear();
    }
    if (static_cast<int64_t>(kernels.values.size()) > most_states || work > most_work) {
      out.status = 1;
      return;
    }
  }
  out.S = static_cast<int64_t>(kernels.values.size());
  for (const Ints* sequence : steps.values) {
    out.begin.push_back(static_cast<int64_t>(out.flat.size()));
    out.flat.insert(out.flat.end(), sequence->begin(), sequence->end());
  }
  out.begin.push_back(static_cast<int64_t>(out.flat.size()));
}

}  // namespace

extern "C" {

// edges [E, 5], jumps [J, 3], both sorted by source; rules are numbers of sequences, which lie in `flat` from `begin`
// on; the first is empty. sizes [7] out: status, S, C, sequences, rules in them, ambiguous rules.
void* determinise_new(const int32_t* edges, int64_t E, const int32_t* jumps, int64_t J, int64_t states, int64_t start,
                      int64_t end, const int64_t* begin, int64_t sequences, const int32_t* flat, int64_t symbols,
                      int64_t most_states, int64_t most_work, int64_t* sizes) {
  auto* out = new Result;
  Builder b;
  b.edges = edges, b.jumps = jumps, b.end = static_cast<int32_t>(end), b.out = out;
  for (int64_t i = 0; i < sequences; ++i) b.sequences.of(Ints(flat + begin[i], flat + begin[i + 1]));
  determinise(b, states, E, J, static_cast<int32_t>(start), symbols, most_states, most_work);
  const int64_t found[] = {out->status, out->S, out->C, static_cast<int64_t>(out->begin.size()) - 1,
                           static_cast<int64_t>(out->flat.size()), static_cast<int64_t>(out->ambiguous.size())};
  std::memcpy(sizes, found, sizeof found);
  return out;
}

void determinise_take(void* handle, int32_t* next, int32_t* act, int32_t* kind, int32_t* final, int64_t* begin,
                      int32_t* flat, int32_t* ambiguous) {
  const auto* out = static_cast<Result*>(handle);
  if (out->status == 2) return copied(out->ambiguous, ambiguous);
  copied(out->next, next), copied(out->act, act), copied(out->kind, kind), copied(out->final, final);
  copied(out->begin, begin), copied(out->flat, flat);
}

void determinise_free(void* handle) { delete static_cast<Result*>(handle); }
}
