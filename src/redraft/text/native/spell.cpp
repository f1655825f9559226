// Which tokens may stand in which state of an automaton over symbols, and where they lead: a vocabulary, as a tree of
// its spellings, is walked from every state that tokens reach.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <unordered_map>
#include <vector>

#include "sequences.h"

using namespace redraft;

namespace {

constexpr int DEEPEST = 511;  // Nodes of a tree are no deeper.
constexpr size_t NEAR = 64;   // States that a neighbourhood is looked for among.
constexpr int WIDE = 16;      // Symbols that lead a state to itself, where text goes on in it.

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

// What tokens do that never leave the neighbourhood of a state, by the neighbourhood's own numbers: all strings of a
// schema have the same. `leaving` are the nodes of the tree at which others do.
struct Shared {
  struct Inside {
    int32_t target, rules, opens, set;
  };
  struct Leaving {
    int32_t node, from, rules;
  };
  std::vector<Inside> inside;
  std::vector<Leaving> leaving;
};

// States around one: those from which every way leads back among them, in the order in which they are met.
struct Near {
  Ints states, acts;  // of the automaton; sequences of rules on the ways among them
  Ints signature;
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
  int32_t at[DEEPEST + 1], did[DEEPEST + 1];  // states and rules on the way to a node
  Ints where;                                 // [S] number in a neighbourhood, -1 outside
  std::vector<int8_t> wide;                   // [S] -1 where it is not known yet
  std::unordered_map<Ints, Shared, Hash> kept;
  Interned own_steps;
  Numbers own_joined{1024};

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

  // Tokens of the nodes from `first` on, before `last`; `at` and `did` hold what stands above them.
  void walk(const Tree& tree, int64_t first, int64_t last) {
    for (int64_t i = first; i < last;) {
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

  // Whether text goes on and on in a state.
  bool is_wide(int32_t state) {
    int8_t& known = wide[state];
    if (known < 0) {
      int count = 0;
      for (int v = 0; v < 256; ++v) count += next[state * C + kind[v]] == state;
      known = count >= WIDE;
    }
    return known;
  }

  // Fills in the states around one; false where no text goes on among them.
  bool near(int32_t state, Near& found) {
    Ints around{state};
    where[state] = 0;
    size_t level = 0;
    for (int step = 0; step < 4; ++step) {
      const size_t end = around.size();
      for (; level < end && around.size() <= NEAR; ++level)
        for (int64_t c = 0; c < C; ++c) {
          const int32_t target = next[around[level] * C + c];
          if (target >= 0 && where[target] < 0) where[target] = 0, around.push_back(target);
        }
    }
    // Out go states that lead elsewhere and hold no text themselves.
    for (bool changed = true; changed;) {
      changed = false;
      for (size_t i = 1; i < around.size(); ++i) {
        if (where[around[i]] < 0 || is_wide(around[i])) continue;
        for (int64_t c = 0; c < C; ++c) {
          const int32_t target = next[around[i] * C + c];
          if (target >= 0 && where[target] < 0) {
            where[around[i]] = -1, changed = true;
            break;
          }
        }
      }
    }
    // What is left, as far as it is reached without what is not.
    Ints& kept_states = found.states;
    kept_states = {state};
    std::vector<char> met(around.size(), 0);
    for (size_t i = 0; i < around.size(); ++i)
      if (where[around[i]] >= 0) where[around[i]] = static_cast<int32_t>(i) + 1;
    met[0] = 1;
    for (size_t i = 0; i < kept_states.size(); ++i)
      for (int64_t c = 0; c < C; ++c) {
        const int32_t target = next[kept_states[i] * C + c];
        if (target < 0 || where[target] < 0 || met[where[target] - 1]) continue;
        met[where[target] - 1] = 1, kept_states.push_back(target);
      }
    for (int32_t s : around) where[s] = -1;
    bool goes_on = false;
    for (size_t i = 0; i < kept_states.size(); ++i) {
      where[kept_states[i]] = static_cast<int32_t>(i);
      goes_on = goes_on || is_wide(kept_states[i]);
    }
    if (!goes_on) return false;
    found.acts = {0};
    for (int32_t s : kept_states)
      for (int64_t c = 0; c < C; ++c) {
        const int32_t target = next[s * C + c];
        const bool stays = target >= 0 && where[target] >= 0;
        found.signature.push_back(stays ? where[target] : -1);
        if (!stays) continue;
        const int32_t a = act[s * C + c];
        const auto place = std::find(found.acts.begin(), found.acts.end(), a);
        found.signature.push_back(static_cast<int32_t>(place - found.acts.begin()));
        if (place == found.acts.end()) found.acts.push_back(a);
      }
    return true;
  }

  // The walk from a state with a neighbourhood that was not met before. Sequences of rules are made of its own numbers.
  Shared shared(const Near& around, const Tree& tree, int32_t context) {
    Shared found;
    groups.clear(), group_of.clear();
    at[0] = around.states[0], did[0] = 0;
    for (int64_t i = 0; i < tree.N;) {
      ++work;
      const int32_t d = tree.depth[i];
      const int64_t edge = at[d - 1] * C + kind[tree.symbol[i]];
      const int32_t target = next[edge];
      if (target < 0 || where[target] < 0) {
        found.leaving.push_back({static_cast<int32_t>(i), where[at[d - 1]], did[d - 1]});
        i = tree.end[i];
        continue;
      }
      if (act[edge] == 0) {
        did[d] = did[d - 1];
      } else {
        const auto place = std::find(around.acts.begin(), around.acts.end(), act[edge]) - around.acts.begin();
        int32_t* known = own_joined.find(static_cast<uint64_t>(did[d - 1]) << 32 | static_cast<uint64_t>(place));
        if (*known < 0) {
          Ints whole = *own_steps.values[did[d - 1]];
          whole.push_back(static_cast<int32_t>(place));
          *known = own_steps.of(std::move(whole));
        }
        did[d] = *known;
      }
      at[d] = target;
      if (tree.mask[i] >= 0) {
        const uint64_t *below = tree.masks + 8 * static_cast<int64_t>(tree.mask[i]), *own = loop(target);
        uint64_t outside = 0;
        for (int w = 0; w < 8; ++w) outside |= below[w] & ~own[w];
        if (outside == 0) {
          put_all(tree, where[target], did[d], tree.rank[i], tree.rank[tree.end[i]]);
          i = tree.end[i];
          continue;
        }
      }
      put_all(tree, where[target], did[d], tree.rank[i], tree.rank[i + 1]);
      ++i;
    }
    for (Group& group : groups) {
      group.ranges.push_back(context);
      found.inside.push_back({group.target, group.rules, group.opens, sets.of(std::move(group.ranges))});
    }
    return found;
  }

  // The sequence of rules that one of a neighbourhood's numbers stands for.
  int32_t actual(const Near& around, int32_t own) {
    int32_t rules = 0;
    for (int32_t place : *own_steps.values[own]) rules = joined_of(rules, around.acts[place]);
    return rules;
  }

  // Leaves in `groups` what is walked token by token; calls `put_set` for what is known already.
  template <class Put>
  void leave(int32_t state, const Tree& tree, int32_t context, const Put& put_set) {
    Near around;
    const Shared* known = nullptr;
    if (near(state, around)) {
      around.signature.push_back(context);
      auto place = kept.find(around.signature);
      if (place == kept.end()) place = kept.emplace(around.signature, shared(around, tree, context)).first;
      known = &place->second;
    }
    for (int32_t s : around.states) where[s] = -1;
    groups.clear(), group_of.clear();
    at[0] = state, did[0] = 0;
    // Tokens that add nothing.
    if (tree.N) put_all(tree, state, 0, 0, tree.rank[0]);
    if (!known) return walk(tree, 0, tree.N);
    std::unordered_map<int32_t, int32_t> meaning;
    const auto means = [&](int32_t own) {
      const auto [found, fresh] = meaning.emplace(own, 0);
      if (fresh) found->second = actual(around, own);
      return found->second;
    };
    for (const auto& part : known->inside)
      put_set(around.states[part.target], means(part.rules), part.opens, part.set);
    for (const auto& node : known->leaving) {
      const int32_t d = tree.depth[node.node], from = around.states[node.from];
      ++work;
      if (next[from * C + kind[tree.symbol[node.node]]] < 0) continue;
      at[d - 1] = from, did[d - 1] = means(node.rules);
      walk(tree, node.node, tree.end[node.node]);
    }
  }

  void run(int32_t start, int64_t most_states, int64_t most_edges, Spelling& out) {
    loop_known.assign(S, 0), loops.assign(8 * S, 0), where.assign(S, -1);
    wide.assign(S, -1);
    own_steps.of({});
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
      const auto put_set = [&](int32_t target, int32_t rules, int32_t opens, int32_t set) {
        out.target.push_back(visit(target, contexts ? opens : 0));
        out.rules.push_back(rules);
        out.set.push_back(set);
      };
      leave(out.core[place], trees[context], context, put_set);
      for (Group& group : groups) {
        group.ranges.push_back(context);
        put_set(group.target, group.rules, group.opens, sets.of(std::move(group.ranges)));
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
