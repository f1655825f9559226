// Which tokens may stand in which state of an automaton over symbols, and where they lead: a vocabulary, as a tree of
// its spellings, is walked from every state that tokens reach.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <unordered_map>
#include <vector>

namespace {

using Ints = std::vector<int32_t>;

struct Hash {
  size_t operator()(const Ints& values) const {
    uint64_t h = 0xCBF29CE484222325ull;
    for (int32_t v : values) h = (h ^ static_cast<uint32_t>(v)) * 0x9E3779B97F4A7C15ull, h ^= h >> 29;
    return h;
  }
};

struct Interned {
  std::unordered_map<Ints, int32_t, Hash> number;
  std::vector<const Ints*> values;
  int32_t of(Ints&& value) {
    const auto [found, fresh] = number.emplace(std::move(value), static_cast<int32_t>(values.size()));
    if (fresh) values.push_back(&found->first);
    return found->second;
  }
};

// Numbers of 64-bit keys, in open addressing.
struct Numbers {
  std::vector<uint64_t> keys;
  std::vector<int32_t> values;
  size_t count = 0;
  explicit Numbers(size_t room = 256) : keys(room, ~0ull), values(room) {}
  void clear() {
    std::fill(keys.begin(), keys.end(), ~0ull);
    count = 0;
  }
  int32_t* find(uint64_t key) {
    if (2 * ++count > keys.size()) grow();
    size_t place = slot(key);
    if (keys[place] == key) --count;
    else keys[place] = key, values[place] = -1;
    return &values[place];
  }
  size_t slot(uint64_t key) const {
    size_t place = (key * 0x9E3779B97F4A7C15ull >> 20) & (keys.size() - 1);
    while (keys[place] != ~0ull && keys[place] != key) place = (place + 1) & (keys.size() - 1);
    return place;
  }
  void grow() {
    Numbers larger(2 * keys.size());
    for (size_t i = 0; i < keys.size(); ++i)
      if (keys[i] != ~0ull) {
        const size_t place = larger.slot(keys[i]);
        larger.keys[place] = keys[i], larger.values[place] = values[i];
      }
    keys.swap(larger.keys), values.swap(larger.values);
  }
};

struct Tree {
  int64_t N = 0;
  const int16_t *symbol = nullptr, *depth = nullptr;  // [N] in depth-first order
  const int32_t *end = nullptr, *rank = nullptr;      // [N] behind the subtree; [N + 1] tokens that end before each node
  const int32_t* opened = nullptr;                    // [R + 1] tokens before each place that a start follows
  const int32_t* mask = nullptr;                      // [N] which of `masks`, -1 for small subtrees
  const uint64_t* masks = nullptr;                    // [., 8] symbols below a node
};

struct Group {
  int32_t target, rules, opens;
  Ints ranges;
};

struct Spelling {
  int64_t status = 0, states = 0;  // status 1: too large
  std::vector<int32_t> core, context;
  std::vector<int64_t> begin{0};
  Ints target, rules, set;
  std::vector<int64_t> set_begin, step_begin;
  Ints ranges, set_tree, steps;
};

struct Walker {
  const int32_t *next, *act, *kind;
  int64_t S, C;
  Tree trees[2];
  bool contexts;
  int64_t work = 0, most_work = 0;
  Interned steps, sets;
  Numbers joined{4096};
  std::vector<int8_t> loop_known;
  std::vector<uint64_t> loops;  // [S, 8] symbols that lead from a state to itself and do nothing else
  std::vector<Group> groups;
  Numbers group_of{1024};

  const uint64_t* loop(int32_t s) {
    uint64_t* found = loops.data() + 8 * static_cast<int64_t>(s);
    if (!loop_known[s]) {
      loop_known[s] = 1;
      for (int v = 0; v < 512; ++v) {
        const int64_t edge = s * C + kind[v];
        if (next[edge] == s && act[edge] == 0) found[v >> 6] |= 1ull << (v & 63);
      }
    }
    return found;
  }

  int32_t joined_of(int32_t before, int32_t added) {
    int32_t* found = joined.find(static_cast<uint64_t>(before) << 32 | static_cast<uint32_t>(added));
    if (*found < 0) {
      Ints whole = *steps.values[before];
      whole.insert(whole.end(), steps.values[added]->begin(), steps.values[added]->end());
      *found = steps.of(std::move(whole));
    }
    return *found;
  }

  void put(int32_t target, int32_t rules, int32_t opens, int32_t first, int32_t last) {
    int32_t* found = group_of.find((static_cast<uint64_t>(target) << 1 | opens) << 31 | static_cast<uint32_t>(rules));
    if (*found < 0) *found = static_cast<int32_t>(groups.size()), groups.push_back({target, rules, opens, {}});
    Ints& ranges = groups[*found].ranges;
    if (!ranges.empty() && ranges.back() == first) ranges.back() = last;
    else ranges.push_back(first), ranges.push_back(last);
  }

  void put_all(const Tree& tree, int32_t target, int32_t rules, int32_t first, int32_t last) {
    if (first == last) return;
    if (!contexts || tree.opened[first] == tree.opened[last]) return put(target, rules, 0, first, last);
    for (int32_t r = first; r < last; ++r) put(target, rules, tree.opened[r + 1] - tree.opened[r], r, r + 1);
  }

  void walk(int32_t state, const Tree& tree) {
    groups.clear(), group_of.clear();
    int32_t at[512], did[512];
    at[0] = state, did[0] = 0;
    // Tokens that add nothing.
    if (tree.N) put_all(tree, state, 0, 0, tree.rank[0]);
    for (int64_t i = 0; i < tree.N;) {
      ++work;
      const int32_t d = tree.depth[i];
      const int64_t edge = at[d - 1] * C + kind[tree.symbol[i]];
      const int32_t target = next[edge];
      if (target < 0) {
        i = tree.end[i];
        continue;
      }
      const int32_t rules = act[edge] == 0 ? did[d - 1] : joined_of(did[d - 1], act[edge]);
      at[d] = target, did[d] = rules;
      if (tree.mask[i] >= 0) {
        const uint64_t *below = tree.masks + 8 * static_cast<int64_t>(tree.mask[i]), *own = loop(target);
        uint64_t outside = 0;
        for (int w = 0; w < 8; ++w) outside |= below[w] & ~own[w];
        if (outside == 0) {
          put_all(tree, target, rules, tree.rank[i], tree.rank[tree.end[i]]);
          i = tree.end[i];
          continue;
        }
      }
      put_all(tree, target, rules, tree.rank[i], tree.rank[i + 1]);
      ++i;
    }
  }

  void run(int32_t start, int64_t most_states, int64_t most_edges, Spelling& out) {
    loop_known.assign(S, 0), loops.assign(8 * S, 0);
    std::vector<int32_t> number(2 * S, -1);
    const auto visit = [&](int32_t core, int32_t context) {
      int32_t& found = number[2 * core + context];
      if (found < 0) {
        found = static_cast<int32_t>(out.core.size());
        out.core.push_back(core), out.context.push_back(context);
      }
      return found;
    };
    visit(start, contexts ? 1 : 0);
    for (size_t place = 0; place < out.core.size(); ++place) {
      const int32_t context = out.context[place];
      walk(out.core[place], trees[context]);
      for (Group& group : groups) {
        out.target.push_back(visit(group.target, contexts ? group.opens : 0));
        out.rules.push_back(group.rules);
        group.ranges.push_back(context);
        out.set.push_back(sets.of(std::move(group.ranges)));
      }
      out.begin.push_back(static_cast<int64_t>(out.target.size()));
      const int64_t edges = static_cast<int64_t>(out.target.size());
      if (static_cast<int64_t>(out.core.size()) > most_states || edges > most_edges || work > most_work) {
        out.status = 1;
        return;
      }
    }
    out.states = static_cast<int64_t>(out.core.size());
    for (const Ints* ranges : sets.values) {
      out.set_begin.push_back(static_cast<int64_t>(out.ranges.size()));
      out.ranges.insert(out.ranges.end(), ranges->begin(), ranges->end() - 1);
      out.set_tree.push_back(ranges->back());
    }
    out.set_begin.push_back(static_cast<int64_t>(out.ranges.size()));
    for (const Ints* sequence : steps.values) {
      out.step_begin.push_back(static_cast<int64_t>(out.steps.size()));
      out.steps.insert(out.steps.end(), sequence->begin(), sequence->end());
    }
    out.step_begin.push_back(static_cast<int64_t>(out.steps.size()));
  }
};

template <class T>
void copied(const std::vector<T>& from, T* to) {
  if (!from.empty()) std::memcpy(to, from.data(), from.size() * sizeof(T));
}

}  // namespace

extern "C" {

// sizes [6] out: status, states, edges, sets, ends of ranges, sequences of rules, rules in them
void* spell_new(const int32_t* next, const int32_t* act, const int32_t* kind, int64_t S, int64_t C, int64_t start,
                const int64_t* step_begin, int64_t sequences, const int32_t* flat, int64_t contexts, const int64_t* N,
                const int16_t* const* symbol, const int16_t* const* depth, const int32_t* const* end,
                const int32_t* const* rank, const int32_t* const* opened, const int32_t* const* mask,
                const uint64_t* const* masks, int64_t most_states, int64_t most_edges, int64_t most_work,
                int64_t* sizes) {
  Walker w;
  w.next = next, w.act = act, w.kind = kind, w.S = S, w.C = C, w.contexts = contexts != 0, w.most_work = most_work;
  for (int64_t i = 0; i < sequences; ++i) w.steps.of(Ints(flat + step_begin[i], flat + step_begin[i + 1]));
  for (int t = 0; t < (contexts ? 2 : 1); ++t)
    w.trees[t] = {N[t], symbol[t], depth[t], end[t], rank[t], opened[t], mask[t], masks[t]};
  auto* out = new Spelling;
  w.run(static_cast<int32_t>(start), most_states, most_edges, *out);
  const int64_t found[] = {out->status,
                           out->states,
                           static_cast<int64_t>(out->target.size()),
                           static_cast<int64_t>(out->set_tree.size()),
                           static_cast<int64_t>(out->ranges.size()),
                           static_cast<int64_t>(out->step_begin.size()) - 1,
                           static_cast<int64_t>(out->steps.size())};
  std::memcpy(sizes, found, sizeof found);
  return out;
}

void spell_take(void* handle, int32_t* core, int64_t* begin, int32_t* target, int32_t* rules, int32_t* set,
                int64_t* set_begin, int32_t* ranges, int32_t* set_tree, int64_t* step_begin, int32_t* steps) {
  const auto* out = static_cast<Spelling*>(handle);
  copied(out->core, core), copied(out->begin, begin), copied(out->target, target), copied(out->rules, rules);
  copied(out->set, set), copied(out->set_begin, set_begin), copied(out->ranges, ranges);
  copied(out->set_tree, set_tree), copied(out->step_begin, step_begin), copied(out->steps, steps);
}

void spell_free(void* handle) { delete static_cast<Spelling*>(handle); }
}
