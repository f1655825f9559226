// Small vectorisable functions on floats that the kernels share.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace redraft {

constexpr float LOG2E = 1.44269504f, LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;
// Adding it to a small float rounds that float to an integer, which the low bits of the sum then hold.
constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23
// Below this, exp is 0 to float32 beside the 1 of the largest term.
constexpr float LEAST = -87.0f;

// Where tanh is 1 to float32, and its fit below is too.
constexpr float TANH_ENDS = 7.90531110763549805f;

enum Kind { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2 };

// exp for x in [-87, 88], within 2 units in the last place (Cephes' polynomial).
inline float exp_of(float x) {
  const float rounded = x * LOG2E + ROUND;
  const float n = rounded - ROUND;
  const float r = (x - n * LN2_HIGH) - n * LN2_LOW;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float e = p * r * r + r + 1.0f;
  uint32_t bits;
  std::memcpy(&bits, &rounded, sizeof bits);
  bits = (bits + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return e * power;
}

// tanh as a quotient of polynomials, within 4 units in the last place (the fit that Eigen and XLA use).
inline float tanh_of(float x) {
  float y = x < -TANH_ENDS ? -TANH_ENDS : x;
  y = y > TANH_ENDS ? TANH_ENDS : y;
  const float q = y * y;
  float over = -2.76076847742355e-16f;
  over = over * q + 2.00018790482477e-13f;
  over = over * q - 8.60467152213735e-11f;
  over = over * q + 5.12229709037114e-08f;
  over = over * q + 1.48572235717979e-05f;
  over = over * q + 6.37261928875436e-04f;
  over = over * q + 4.89352455891786e-03f;
  float under = 1.19825839466702e-06f;
  under = under * q + 1.18534705686654e-04f;
  under = under * q + 2.26843463243900e-03f;
  under = under * q + 4.89352518554385e-03f;
  return y * over / under;
}

inline uint16_t bfloat16_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

inline float float_of(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline float value_of(float x) { return x; }
inline float value_of(uint16_t x) { return float_of(x); }
inline void put(float& out, float value) { out = value; }
inline void put(uint16_t& out, float value) { out = bfloat16_of(value); }

}  // namespace redraft
