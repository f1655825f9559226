// Rows in tiles whose size the compiler knows.
#pragma once
#include <cstdint>
#include <type_traits>

namespace redraft {

template <int T, typename F>
void with_count(int64_t count, int64_t first, F&& f) {
  if constexpr (T > 0) {
    if (count == T)
      f(std::integral_constant<int, T>(), first);
    else
      with_count<T - 1>(count, first, f);
  }
}

// f(T, first row) for as few tiles of at most MOST rows as there can be, all about as large: a tile of one row costs
// nearly what one of six does.
template <int MOST, typename F>
void in_tiles(int64_t rows, F&& f) {
  const int64_t tiles = (rows + MOST - 1) / MOST;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t first = rows * i / tiles;
    with_count<MOST>(rows * (i + 1) / tiles - first, first, f);
  }
}

}  // namespace redraft
