// Sums that a double cannot hold: a double and an exponent of two.
//
// A state may be e^-700 less likely than another and still be the only one that can end. Beside a double, an exponent
// takes no exp and no log an edge, as sums in log space would.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace redraft {

constexpr double LOG2E_WIDE = 1.4426950408889634, LN2_WIDE = 0.6931471805599453;
// The exponent of zero. Sums of two of them stay below every real one.
constexpr int64_t NOTHING = -(int64_t(1) << 40);

// m * 2^e, as arrays.
struct Wide {
  std::vector<double> m;
  std::vector<int64_t> e;
  explicit Wide(int64_t count) : m(count, 0.0), e(count, NOTHING) {}
};

// 2^n of n <= 0; 0 where a double has nothing left beside 1.
inline double power(int64_t n) {
  const int64_t kept = n < -1022 ? -1023 : n;
  const uint64_t bits = static_cast<uint64_t>(kept + 1023) << 52;
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// e^x of x <= 0, within a unit or two in the last place, for the vectoriser; 0 below the normal numbers.
inline double exp_wide(double x) {
  constexpr double round = 6755399441055744.0;  // 1.5 * 2^52: what is added to it becomes an integer in its low bits
  const double kept = x < -708.0 ? -708.0 : x;
  const double shifted = kept * LOG2E_WIDE + round;
  const double n = shifted - round;
  const double r = (kept - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  double p = 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  const double e = p * r * r + r + 1.0;
  uint64_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 1023) << 52;
  double power;
  std::memcpy(&power, &bits, sizeof power);
  return x < -708.0 ? 0.0 : e * power;
}

// A normal number, or 0.
inline void set(double& m, int64_t& e, double value, int64_t exponent) {
  if (!(value > 0.0)) {
    m = 0.0, e = NOTHING;
    return;
  }
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  e = exponent + static_cast<int64_t>(bits >> 52) - 1022;
  bits = (bits & 0x000FFFFFFFFFFFFF) | 0x3FE0000000000000;
  std::memcpy(&m, &bits, sizeof m);
}

// factor * e^x of a sum that is known by its log.
inline void set_exp(double& m, int64_t& e, double log, double factor = 1.0) {
  if (log == -INFINITY) return set(m, e, 0.0, 0);
  const double whole = std::nearbyint(log * LOG2E_WIDE);
  set(m, e, factor * std::exp(log - whole * LN2_WIDE), static_cast<int64_t>(whole));
}

inline double log_of(double m, int64_t e) { return std::log(m) + static_cast<double>(e) * LN2_WIDE; }

// Sums of products into slots that are met in any order: first the largest exponent of each, then the sums beside it.
// Only slots that were seen are looked at again.
struct Scatter {
  Wide sum;
  std::vector<int64_t> seen;
  explicit Scatter(int64_t count) : sum(count) {}
  void clear() {
    for (const int64_t slot : seen) sum.m[slot] = 0.0, sum.e[slot] = NOTHING;
    seen.clear();
  }
  void see(int64_t slot, int64_t e) {
    if (sum.e[slot] == NOTHING) seen.push_back(slot);
    if (e > sum.e[slot]) sum.e[slot] = e;
  }
  void add(int64_t slot, double m, int64_t e) { sum.m[slot] += m * power(e - sum.e[slot]); }
  void finish() {
    for (const int64_t slot : seen) set(sum.m[slot], sum.e[slot], sum.m[slot], sum.e[slot]);
  }
};

}  // namespace redraft
