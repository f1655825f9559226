// Which rows go to which of a layer's experts.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>

namespace redraft {

// Assignments of rows to experts in order of the experts; ties stay in order of the rows.
struct Shares {
  std::unique_ptr<int64_t[]> first, busy, picked;
  int64_t used = 0;
  Shares(const int64_t* index, int64_t count, int64_t experts)
      : first(new int64_t[experts + 1]()), busy(new int64_t[experts]), picked(new int64_t[count]) {
    for (int64_t i = 0; i < count; ++i) ++first[index[i] + 1];
    for (int64_t e = 0; e < experts; ++e) {
      if (first[e + 1] > 0) busy[used++] = e;
      first[e + 1] += first[e];
    }
    const std::unique_ptr<int64_t[]> next(new int64_t[experts]);
    std::copy(first.get(), first.get() + experts, next.get());
    for (int64_t i = 0; i < count; ++i) picked[next[index[i]]++] = i;
  }
  int64_t count(int64_t e) const { return first[e + 1] - first[e]; }
};

}  // namespace redraft
