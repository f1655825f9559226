// Which rules a text breaks, or can only break from where it stops; `grammar/breaches.py` has the definition.
#include <algorithm>
#include <queue>
#include <unordered_set>

#include "rules.h"

using namespace redraft;

namespace {

struct Core {
  const int32_t *next, *act, *kind;
  int64_t S, C;
  const int32_t *final, *distances;
  Rules rules;

  // Whether a sequence breaks no rule; the first that it breaks is marked, by what it asks for.
  bool passes(int32_t sequence, Registers& registers, uint8_t* asking, uint8_t* failing) const {
    const int32_t number = rules.apply(sequence, registers);
    if (number >= 0) (rules.table[6 * number] == REQUIRE ? asking : failing)[number] = 1;
    return number < 0;
  }
};

struct Tried {
  int32_t distance;
  int64_t order;
  State state;
  bool operator<(const Tried& other) const {
    return distance != other.distance ? distance > other.distance : order > other.order;
  }
};

// Rules in the way from an open end to an end.
void in_the_way(const Core& core, const State& from, int64_t most, int64_t n, uint8_t* found) {
  std::vector<uint8_t> asking(n, 0), failing(n, 0);
  std::unordered_set<State, StateHash> seen{from};
  std::priority_queue<Tried> queue;
  int64_t pushed = 0;
  queue.push({core.distances[from.state], pushed, from});
  bool closes = true;
  for (int64_t tried = 0; tried < most; ++tried) {
    if (queue.empty()) {
      closes = false;
      break;
    }
    const State state = queue.top().state;
    queue.pop();
    Registers last = state.registers;
    const int32_t final = core.final[state.state];
    if (final >= 0 && core.passes(final, last, asking.data(), failing.data())) break;
    int32_t before = -1, did = -1;
    for (int64_t c = 0; c < core.C; ++c) {
      const int64_t edge = state.state * core.C + c;
      if (core.next[edge] < 0 || (core.next[edge] == before && core.act[edge] == did)) continue;
      before = core.next[edge], did = core.act[edge];
      State to{before, state.registers};
      if (!core.passes(did, to.registers, asking.data(), failing.data())) continue;
      if (seen.insert(to).second) queue.push({core.distances[before], --pushed, to});
    }
  }
  for (int64_t i = 0; i < n; ++i) found[i] |= asking[i] | (!closes && failing[i]);
}

}  // namespace

extern "C" {

// found [n] out: rules that are broken
void breaches_new(const int32_t* next, const int32_t* act, const int32_t* kind, int64_t S, int64_t C, int64_t start,
                  const int32_t* final, const int32_t* distances, const int64_t* table, int64_t n, const uint8_t* enabled,
                  const int64_t* step_begin, const int32_t* steps, const int64_t* ends, int64_t E, const uint8_t* inside,
                  const int64_t* inside_begin, const uint8_t* at_start, const int64_t* at_start_begin,
                  const uint8_t* opens, const int16_t* marked, const int64_t* tokens, int64_t T, int64_t most,
                  uint8_t* found) {
  const Core core{next, act, kind, S, C, final, distances, {table, enabled, step_begin, steps}};
  std::vector<int32_t> broken;
  State at{static_cast<int32_t>(start), {}};
  bool opened = true, alive = true, ended = false;
  const auto read = [&](int32_t symbol) {
    const int64_t edge = at.state * C + kind[symbol];
    alive = next[edge] >= 0;
    if (!alive) return;
    core.rules.apply(act[edge], at.registers, &broken);
    at.state = next[edge];
  };
  for (int64_t i = 0; i < T && alive; ++i) {
    const int64_t v = tokens[i];
    if ((ended = std::find(ends, ends + E, v) != ends + E)) break;
    if (marked[v] >= 0) {
      read(marked[v]);
    } else {
      const uint8_t* const bytes = opened ? at_start : inside;
      const int64_t* const begin = opened ? at_start_begin : inside_begin;
      for (int64_t j = begin[v]; j < begin[v + 1] && alive; ++j) read(bytes[j]);
    }
    opened = opens[v];
  }
  if (ended && final[at.state] >= 0) core.rules.apply(final[at.state], at.registers, &broken);
  for (int32_t number : broken) found[number] = 1;
  if (alive && !ended) in_the_way(core, at, most, n, found);
}
}
