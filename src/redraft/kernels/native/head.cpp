// One pass over a tile of logits: softcap, temperature, online softmax, block sums, probabilities.
//
// Plain C++ with OpenMP and no headers of torch, so that it compiles in a second or two. Loops are written for the
// vectoriser; reductions are marked, everything else keeps IEEE order, and a NaN stays one.
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr float LOG2E = 1.44269504f, LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;
// Adding it to a small float rounds that float to an integer, which the low bits of the sum then hold.
constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23
// Below this, exp is 0 to float32 beside the 1 of the largest term.
constexpr float LEAST = -87.0f;

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
  float y = x < -7.9f ? -7.9f : x;
  y = y > 7.9f ? 7.9f : y;
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

enum Kind { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2 };

}  // namespace

extern "C" {

// The running state of one row, in arrays over rows. `first` is the vocabulary index of the tile's first column.
//
// logits     [rows, columns] of float, bfloat16 or (INT8) int32, contiguous
// row_scale, column_scale   INT8 only: factors that turn a product into a logit
// inverse_temperature [rows]
// top, mass, moment [rows]  largest scaled logit so far, sum of exp(s - top), sum of exp(s - top) (s - top)
// argmax     [rows]
// rescale    [rows]         out: what sums made before this tile must be multiplied with
// block_mass [rows, blocks] out: sums over runs of `block` columns, relative to the new top
// probabilities             out: exp(s - top) as float, bfloat16, or (INT8) uint8 of exp(s - top) * column_scale
// probability_scale [rows]  out, INT8 only
void head_tile(const void* logits, int kind, int64_t rows, int64_t columns, int64_t first, float cap,
               const float* row_scale, const float* column_scale, const float* inverse_temperature, float* top,
               float* mass, float* moment, int64_t* argmax, float* rescale, float* block_mass, int64_t block,
               void* probabilities, float* probability_scale, int threads) {
  const int64_t blocks = (columns + block - 1) / block;
#pragma omp parallel num_threads(threads)
  {
    float* const scratch = kind == FLOAT32 ? nullptr : new float[columns];
#pragma omp for schedule(static)
    for (int64_t n = 0; n < rows; ++n) {
      float* const s = kind == FLOAT32 ? static_cast<float*>(probabilities) + n * columns : scratch;
      if (kind == FLOAT32) {
        if (probabilities != logits)
          std::memcpy(s, static_cast<const float*>(logits) + n * columns, columns * sizeof(float));
      } else if (kind == BFLOAT16) {
        const uint16_t* in = static_cast<const uint16_t*>(logits) + n * columns;
#pragma omp simd
        for (int64_t i = 0; i < columns; ++i) s[i] = float_of(in[i]);
      } else {
        const int32_t* in = static_cast<const int32_t*>(logits) + n * columns;
        const float scale = row_scale[n];
#pragma omp simd
        for (int64_t i = 0; i < columns; ++i) s[i] = static_cast<float>(in[i]) * scale * column_scale[i];
      }
      const float inside = 1.0f / cap, outside = cap * inverse_temperature[n];
      float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
      for (int64_t i = 0; i < columns; ++i) {
        s[i] = tanh_of(s[i] * inside) * outside;
        largest = s[i] > largest ? s[i] : largest;
      }
      float factor = 1.0f;
      if (largest > top[n]) {
        int64_t at = 0;
        while (at + 1 < columns && s[at] != largest) ++at;
        argmax[n] = first + at;
        // The first tile comes with top = -inf and sums of 0.
        const float step = top[n] - largest;
        factor = step < LEAST ? 0.0f : exp_of(step);
        moment[n] = mass[n] == 0.0f ? 0.0f : (moment[n] + step * mass[n]) * factor;
        mass[n] *= factor;
        top[n] = largest;
      }
      rescale[n] = factor;
      const float reference = top[n];
      float tile_mass = 0.0f, tile_moment = 0.0f;
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t end = (b + 1) * block < columns ? (b + 1) * block : columns;
        float sum = 0.0f, weighted = 0.0f;
#pragma omp simd reduction(+ : sum, weighted)
        for (int64_t i = b * block; i < end; ++i) {
          float z = s[i] - reference;
          z = z < LEAST ? LEAST : z;
          const float p = exp_of(z);
          s[i] = p;
          sum += p;
          weighted += p * z;
        }
        block_mass[n * blocks + b] = sum;
        tile_mass += sum;
        tile_moment += weighted;
      }
      mass[n] += tile_mass;
      moment[n] += tile_moment;
      if (kind == BFLOAT16) {
        uint16_t* out = static_cast<uint16_t*>(probabilities) + n * columns;
#pragma omp simd
        for (int64_t i = 0; i < columns; ++i) out[i] = bfloat16_of(s[i]);
      } else if (kind == INT8) {
        uint8_t* out = static_cast<uint8_t*>(probabilities) + n * columns;
        float most = 0.0f;
#pragma omp simd reduction(max : most)
        for (int64_t i = 0; i < columns; ++i) {
          s[i] *= column_scale[i];
          most = s[i] > most ? s[i] : most;
        }
        const float scale = most > 0.0f ? 255.0f / most : 0.0f;
        probability_scale[n] = most / 255.0f;
#pragma omp simd
        for (int64_t i = 0; i < columns; ++i) out[i] = static_cast<uint8_t>(s[i] * scale + 0.5f);
      }
    }
    delete[] scratch;
  }
}
}
