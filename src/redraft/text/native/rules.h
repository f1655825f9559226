// What an automaton counts beside its state; `grammar/registers.py` has the definition.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

namespace redraft {

constexpr int FIELDS = 4;
// Others, which only tell where items begin and end, count nothing.
enum Kind { COUNT = 0, CHECK = 1, SET = 2, REQUIRE = 3 };

struct Registers {
  uint64_t bits = 0;
  uint32_t counts[FIELDS] = {};
  bool operator==(const Registers& other) const {
    return bits == other.bits && std::memcmp(counts, other.counts, sizeof counts) == 0;
  }
};

struct State {
  int32_t state;
  Registers registers;
  bool operator==(const State& other) const { return state == other.state && registers == other.registers; }
};

struct StateHash {
  size_t operator()(const State& s) const {
    uint64_t h = static_cast<uint64_t>(s.state) * 0x9E3779B97F4A7C15ull ^ s.registers.bits;
    h = (h ^ h >> 32) * 0xD6E8FEB86659FD93ull;
    for (uint32_t c : s.registers.counts) h = (h ^ c ^ h >> 29) * 0xD6E8FEB86659FD93ull;
    return h ^ h >> 32;
  }
};

// Rules by number, and sequences of them.
struct Rules {
  const int64_t* table;    // [n, 6] kind, place, least, most, need, clear
  const uint8_t* enabled;  // [n]
  const int64_t* begin;    // [sequences + 1] in `flat`
  const int32_t* flat;

  // The registers after a sequence; the number of the first rule that is broken, -1 where none is. With `broken`, all
  // of them go there, and what they say is passed over.
  int32_t apply(int32_t sequence, Registers& r, std::vector<int32_t>* broken = nullptr) const {
    for (int64_t i = begin[sequence]; i < begin[sequence + 1]; ++i) {
      const int32_t number = flat[i];
      const int64_t* rule = table + 6 * number;
      bool fails = false;
      if (rule[0] == COUNT) {
        const bool bounded = enabled[number] && rule[3] >= 0;
        uint32_t& count = r.counts[rule[1]];
        fails = bounded && count >= rule[3];
        if (!fails && (bounded || count < rule[2])) ++count;
      } else if (rule[0] == CHECK) {
        fails = r.counts[rule[1]] < rule[2];
        if (!fails || broken) r.counts[rule[1]] = 0;
      } else if (rule[0] == SET) {
        if (!enabled[number]) continue;
        fails = r.bits >> rule[1] & 1;
        r.bits |= 1ull << rule[1];
      } else if (rule[0] == REQUIRE) {
        fails = enabled[number] && (static_cast<uint64_t>(rule[4]) & ~r.bits);
        r.bits &= ~static_cast<uint64_t>(rule[5]);
      }
      if (fails && !broken) return number;
      if (fails) broken->push_back(number);
    }
    return -1;
  }
};

}  // namespace redraft
