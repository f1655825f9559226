// A vocabulary's spellings as a tree, in depth-first order.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

namespace {

constexpr int64_t SMALL = 8;  // Subtrees with fewer nodes need no mask.

struct Tree {
  std::vector<int16_t> symbol, depth;
  std::vector<int32_t> order, end, rank, mask;
  std::vector<uint64_t> masks;
};

}  // namespace

extern "C" {

// bytes, begin [V + 1]   spellings; those that may not be written have `written` 0
// marked [V]             the symbol that a special token is, -1 for others
// sizes [3] out: nodes, tokens, masks
void* tree_new(const uint8_t* bytes, const int64_t* begin, const uint8_t* written, const int16_t* marked, int64_t V,
               int64_t* sizes) {
  auto* out = new Tree;
  const auto length = [&](int32_t v) { return marked[v] >= 0 ? int64_t(1) : begin[v + 1] - begin[v]; };
  const auto at = [&](int32_t v, int64_t i) -> int16_t { return marked[v] >= 0 ? marked[v] : bytes[begin[v] + i]; };
  for (int32_t v = 0; v < V; ++v)
    if (written[v] || marked[v] >= 0) out->order.push_back(v);
  std::sort(out->order.begin(), out->order.end(), [&](int32_t a, int32_t b) {
    if (marked[a] < 0 && marked[b] < 0) {
      const int64_t n = std::min(length(a), length(b));
      const int found = n ? std::memcmp(bytes + begin[a], bytes + begin[b], n) : 0;
      if (found) return found < 0;
      return length(a) != length(b) ? length(a) < length(b) : a < b;
    }
    const int32_t x = marked[a] >= 0 ? 1 + marked[a] : 0, y = marked[b] >= 0 ? 1 + marked[b] : 0;
    return x != y ? x < y : a < b;
  });
  std::vector<int32_t> open;  // nodes on the way to the last token
  const auto close = [&](size_t kept) {
    while (open.size() > kept) {
      out->end[open.back()] = static_cast<int32_t>(out->symbol.size());
      open.pop_back();
    }
  };
  int32_t rank = 0;
  for (size_t r = 0; r < out->order.size(); ++r) {
    const int32_t v = out->order[r];
    size_t shared = 0;
    while (shared < open.size() && static_cast<int64_t>(shared) < length(v) &&
           out->symbol[open[shared]] == at(v, static_cast<int64_t>(shared)))
      ++shared;
    close(shared);
    for (int64_t i = static_cast<int64_t>(shared); i < length(v); ++i) {
      open.push_back(static_cast<int32_t>(out->symbol.size()));
      out->symbol.push_back(at(v, i)), out->depth.push_back(static_cast<int16_t>(i + 1));
      out->end.push_back(0), out->rank.push_back(rank), out->mask.push_back(-1);
    }
    ++rank;
  }
  close(0);
  out->rank.push_back(rank);
  const int64_t N = static_cast<int64_t>(out->symbol.size());
  for (int64_t i = 0; i < N; ++i) {
    if (out->end[i] - i < SMALL) continue;
    out->mask[i] = static_cast<int32_t>(out->masks.size() / 8);
    out->masks.resize(out->masks.size() + 8, 0);
    uint64_t* found = &out->masks[8 * out->mask[i]];
    for (int64_t j = i + 1; j < out->end[i]; ++j) found[out->symbol[j] >> 6] |= 1ull << (out->symbol[j] & 63);
  }
  const int64_t found[] = {N, rank, static_cast<int64_t>(out->masks.size() / 8)};
  std::memcpy(sizes, found, sizeof found);
  return out;
}

void tree_take(void* handle, int16_t* symbol, int16_t* depth, int32_t* end, int32_t* rank, int32_t* mask,
               uint64_t* masks, int32_t* order) {
  const auto* out = static_cast<Tree*>(handle);
  const auto copied = [](const auto& from, auto* to) {
    if (!from.empty()) std::memcpy(to, from.data(), from.size() * sizeof(from[0]));
  };
  copied(out->symbol, symbol), copied(out->depth, depth), copied(out->end, end), copied(out->rank, rank);
  copied(out->mask, mask), copied(out->masks, masks), copied(out->order, order);
}

void tree_free(void* handle) { delete static_cast<Tree*>(handle); }
}
