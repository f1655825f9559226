// From what may be spelled in each state, and what that counts, to an automaton over tokens: states with their
// registers, sets of tokens as classes that no state tells apart, distances to an end.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <unordered_map>
#include <vector>

#include "rules.h"
#include "sequences.h"

using namespace redraft;

namespace {

constexpr int32_t FAR = INT32_MAX;

struct Edge {
  int32_t source, target, kind;
};

struct Expansion {
  int64_t status = 0;  // 0 done, 1 too large, 2 nothing can be spelled
  int64_t S = 0, C = 0;
  std::vector<Edge> edges;
  std::vector<uint8_t> accepting;
  Ints shortest, class_of;
  std::vector<int64_t> begin;  // [K + 1]
  std::vector<int64_t> member;
};

struct Input {
  const int32_t* core;
  const int64_t* begin;
  const int32_t *target, *rules, *set;
  const int64_t* set_begin;
  const int32_t *ranges, *set_tree, *final;
  Rules registers;
  const int32_t* order[2];
  int64_t ranks[2];
  const int32_t* ends;  // ids of end-of-turn
  int64_t E;
  int64_t pad, V;
};

// Marks of kinds: sums of them tell tokens apart.
inline uint64_t mark_of(int64_t kind) {
  uint64_t z = static_cast<uint64_t>(kind + 1) * 0x9E3779B97F4A7C15ull;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ z >> 27) * 0x94D049BB133111EBull;
  return z ^ z >> 31;
}

void expand(const Input& in, int64_t most_states, int64_t most_edges, Expansion& out) {
  std::unordered_map<State, int32_t, StateHash> number;
  std::vector<State> states;
  const auto visit = [&](const State& state) {
    const auto [found, fresh] = number.emplace(state, static_cast<int32_t>(states.size()));
    if (fresh) states.push_back(state);
    return found->second;
  };
  // Kinds are unions of sets; the first two stand for end-of-turn, and for that and padding.
  std::unordered_map<Ints, int32_t, Hash> kind_of;
  std::vector<const Ints*> kinds{nullptr, nullptr};
  std::vector<std::pair<int32_t, int32_t>> leading;
  Ints sets;
  visit({0, {}});
  for (size_t place = 0; place < states.size(); ++place) {
    const State from = states[place];
    leading.clear();
    for (int64_t j = in.begin[from.state]; j < in.begin[from.state + 1]; ++j) {
      State to{in.target[j], from.registers};
      if (in.registers.apply(in.rules[j], to.registers) >= 0) continue;
      leading.emplace_back(visit(to), in.set[j]);
    }
    std::sort(leading.begin(), leading.end());
    for (size_t i = 0; i < leading.size();) {
      const int32_t target = leading[i].first;
      sets.clear();
      for (; i < leading.size() && leading[i].first == target; ++i) sets.push_back(leading[i].second);
      const auto [found, fresh] = kind_of.emplace(sets, static_cast<int32_t>(kinds.size()));
      if (fresh) kinds.push_back(&found->first);
      out.edges.push_back({static_cast<int32_t>(place), target, found->second});
    }
    Registers last = from.registers;
    const int32_t final = in.final[in.core[from.state]];
    out.accepting.push_back(final >= 0 && in.registers.apply(final, last) < 0);
    if (static_cast<int64_t>(states.size()) > most_states || static_cast<int64_t>(out.edges.size()) > most_edges) {
      out.status = 1;
      return;
    }
  }
  const int32_t done = static_cast<int32_t>(states.size());
  out.S = done + 1;
  out.accepting.push_back(1);
  std::vector<Edge> edges;
  edges.reserve(out.edges.size() + out.S);
  for (size_t j = 0, s = 0; s < static_cast<size_t>(done); ++s) {
    for (; j < out.edges.size() && out.edges[j].source == static_cast<int32_t>(s); ++j) edges.push_back(out.edges[j]);
    if (in.E && out.accepting[s]) edges.push_back({static_cast<int32_t>(s), done, 0});
  }
  if (in.E || in.pad >= 0) edges.push_back({done, done, 1});

  // Tokens from each state to the nearest accepting one.
  std::vector<int64_t> into(out.S + 1, 0);
  for (const Edge& e : edges) ++into[e.target + 1];
  for (int64_t s = 0; s < out.S; ++s) into[s + 1] += into[s];
  Ints source(edges.size());
  std::vector<int64_t> filled(into.begin(), into.end() - 1);
  for (const Edge& e : edges) source[filled[e.target]++] = e.source;
  out.shortest.assign(out.S, FAR);
  Ints queue;
  for (int32_t s = 0; s < out.S; ++s)
    if (out.accepting[s]) out.shortest[s] = 0, queue.push_back(s);
  for (size_t i = 0; i < queue.size(); ++i)
    for (int64_t j = into[queue[i]]; j < into[queue[i] + 1]; ++j)
      if (out.shortest[source[j]] == FAR) out.shortest[source[j]] = out.shortest[queue[i]] + 1, queue.push_back(source[j]);
  if (out.shortest[0] == FAR) {
    out.status = 2;
    return;
  }
  out.edges.clear();
  Ints renumbered(kinds.size(), -1), used;
  for (const Edge& e : edges) {
    if (out.shortest[e.target] == FAR) continue;
    if (renumbered[e.kind] < 0) renumbered[e.kind] = static_cast<int32_t>(used.size()), used.push_back(e.kind);
    out.edges.push_back({e.source, e.target, renumbered[e.kind]});
  }

  // Classes: tokens that are in the same kinds.
  std::vector<uint64_t> marks(in.V, 0);
  std::vector<uint64_t> changes[2];
  for (int t = 0; t < 2; ++t) changes[t].assign(in.ranks[t] + 1, 0);
  // What ends a turn is no text, even where it could be read as one.
  std::vector<uint8_t> no_text(in.V, 0);
  for (int64_t i = 0; i < in.E; ++i) no_text[in.ends[i]] = 1;
  const bool pads = in.pad >= 0 && !no_text[in.pad];
  if (pads) no_text[in.pad] = 1;
  const auto behind = [&](int32_t kind, const auto& what) {
    for (int64_t i = 0; i < in.E; ++i) what(in.ends[i]);
    if (kind == 1 && pads) what(static_cast<int32_t>(in.pad));
  };
  for (int32_t kind : used) {
    const uint64_t mark = mark_of(kind);
    if (kind < 2) {
      behind(kind, [&](int32_t v) { marks[v] += mark; });
      continue;
    }
    for (int32_t set : *kinds[kind])
      for (int64_t j = in.set_begin[set]; j < in.set_begin[set + 1]; j += 2) {
        changes[in.set_tree[set]][in.ranges[j]] += mark;
        changes[in.set_tree[set]][in.ranges[j + 1]] -= mark;
      }
  }
  for (int t = 0; t < 2; ++t) {
    uint64_t sum = 0;
    for (int64_t r = 0; r < in.ranks[t]; ++r) {
      sum += changes[t][r];
      if (!no_text[in.order[t][r]]) marks[in.order[t][r]] += sum;
    }
  }
  std::unordered_map<uint64_t, int32_t> classes;
  out.class_of.assign(in.V, -1);
  for (int64_t v = 0; v < in.V; ++v)
    if (marks[v]) out.class_of[v] = classes.emplace(marks[v], static_cast<int32_t>(classes.size())).first->second;
  out.C = static_cast<int64_t>(classes.size());
  Ints seen(out.C, -1);
  for (size_t k = 0; k < used.size(); ++k) {
    const size_t first = out.member.size();
    out.begin.push_back(static_cast<int64_t>(first));
    const auto add = [&](int32_t v) {
      const int32_t c = out.class_of[v];
      if (seen[c] != static_cast<int32_t>(k)) seen[c] = static_cast<int32_t>(k), out.member.push_back(c);
    };
    if (used[k] < 2) {
      behind(used[k], add);
    } else {
      for (int32_t set : *kinds[used[k]])
        for (int64_t j = in.set_begin[set]; j < in.set_begin[set + 1]; j += 2)
          for (int32_t r = in.ranges[j]; r < in.ranges[j + 1]; ++r)
            if (!no_text[in.order[in.set_tree[set]][r]]) add(in.order[in.set_tree[set]][r]);
    }
    std::sort(out.member.begin() + static_cast<int64_t>(first), out.member.end());
  }
  out.begin.push_back(static_cast<int64_t>(out.member.size()));
}

}  // namespace

extern "C" {

// sizes [6] out: status, states, classes, edges, kinds, members of kinds
void* expand_new(const int32_t* core, const int64_t* begin, const int32_t* target, const int32_t* rules,
                 const int32_t* set, const int64_t* set_begin, const int32_t* ranges, const int32_t* set_tree,
                 const int32_t* final, const int64_t* table, const uint8_t* enabled, const int64_t* step_begin,
                 const int32_t* steps, const int32_t* order, int64_t ranks, const int32_t* order_at_start,
                 int64_t ranks_at_start, const int32_t* ends, int64_t E, int64_t pad, int64_t V, int64_t most_states,
                 int64_t most_edges, int64_t* sizes) {
  const Input in{core,     begin,    target, rules, set, set_begin,
                 ranges,   set_tree, final,  {table, enabled, step_begin, steps},
                 {order, order_at_start}, {ranks, ranks_at_start}, ends, E, pad, V};
  auto* out = new Expansion;
  expand(in, most_states, most_edges, *out);
  const int64_t found[] = {out->status,
                           out->S,
                           out->C,
                           static_cast<int64_t>(out->edges.size()),
                           static_cast<int64_t>(out->begin.size()) - 1,
                           static_cast<int64_t>(out->member.size())};
  std::memcpy(sizes, found, sizeof found);
  return out;
}

void expand_take(void* handle, int32_t* class_of, int64_t* source, int64_t* target, int64_t* kinds, uint8_t* accepting,
                 int32_t* shortest, int64_t* begin, int64_t* member) {
  const auto* out = static_cast<Expansion*>(handle);
  for (size_t j = 0; j < out->edges.size(); ++j)
    source[j] = out->edges[j].source, target[j] = out->edges[j].target, kinds[j] = out->edges[j].kind;
  std::copy(out->class_of.begin(), out->class_of.end(), class_of);
  std::copy(out->accepting.begin(), out->accepting.end(), accepting);
  std::copy(out->shortest.begin(), out->shortest.end(), shortest);
  std::copy(out->begin.begin(), out->begin.end(), begin);
  std::copy(out->member.begin(), out->member.end(), member);
}

void expand_free(void* handle) { delete static_cast<Expansion*>(handle); }
}
