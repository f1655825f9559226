// Sequences of numbers: by number, equal ones once, and on their way out.
#pragma once
#include <cstdint>
#include <cstring>
#include <unordered_map>
#include <utility>
#include <vector>

namespace redraft {

using Ints = std::vector<int32_t>;

struct Hash {
  size_t operator()(const Ints& values) const {
    uint64_t h = 0xCBF29CE484222325ull;
    for (int32_t v : values) h = (h ^ static_cast<uint32_t>(v)) * 0x9E3779B97F4A7C15ull, h ^= h >> 29;
    return h;
  }
};

// Sequences by number, equal ones once.
struct Interned {
  std::unordered_map<Ints, int32_t, Hash> number;
  std::vector<const Ints*> values;
  int32_t of(Ints value) {
    const auto [found, fresh] = number.emplace(std::move(value), static_cast<int32_t>(values.size()));
    if (fresh) values.push_back(&found->first);
    return found->second;
  }
};

template <class T>
void copied(const std::vector<T>& from, T* to) {
  if (!from.empty()) std::memcpy(to, from.data(), from.size() * sizeof(T));
}

}  // namespace redraft
