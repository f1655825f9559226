// Products of int8 rows with int8 matrices, for CPUs whose own 8-bit products saturate (AVX2 before VNNI) and others
// that oneDNN has no exact ones for. Sums are exact in int32.
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

// A matrix comes in blocks of 8 rows; inside a block lie 16 bytes for each pair of columns, two for each row.
constexpr int64_t ROWS = 8, STEP = 16;
// Fewer rows than this do not repay the packing of a matrix.
constexpr int64_t FEW = 8;

// T rows of x, widened to int16, times one block.
template <int T>
void tile(const int16_t* x, int64_t columns, const int8_t* block, int32_t (*out)[ROWS]) {
#if defined(__AVX2__)
  __m256i total[T];
  for (int t = 0; t < T; ++t) total[t] = _mm256_setzero_si256();
  for (int64_t k = 0; k < columns; k += STEP) {
    const __m128i* packed = reinterpret_cast<const __m128i*>(block + k * ROWS);
    __m256i weights[STEP / 2];
    for (int j = 0; j < STEP / 2; ++j) weights[j] = _mm256_cvtepi8_epi16(_mm_loadu_si128(packed + j));
    for (int t = 0; t < T; ++t)
      for (int j = 0; j < STEP / 2; ++j) {
        int32_t two;
        std::memcpy(&two, x + t * columns + k + 2 * j, sizeof two);
        total[t] = _mm256_add_epi32(total[t], _mm256_madd_epi16(weights[j], _mm256_set1_epi32(two)));
      }
  }
  for (int t = 0; t < T; ++t) _mm256_storeu_si256(reinterpret_cast<__m256i*>(out[t]), total[t]);
#else
  for (int t = 0; t < T; ++t) {
    int32_t total[ROWS] = {};
    for (int64_t k = 0; k < columns; k += 2)
      for (int64_t r = 0; r < ROWS; ++r)
        total[r] += x[t * columns + k] * block[k * ROWS + 2 * r] + x[t * columns + k + 1] * block[k * ROWS + 2 * r + 1];
    std::memcpy(out[t], total, sizeof total);
  }
#endif
}

template <int T>
void scaled(const int16_t* x, int64_t columns, const int8_t* block, const float* scale, int64_t width, int64_t outputs,
            float* out) {
  int32_t sums[T][ROWS];
  tile<T>(x, columns, block, sums);
  for (int t = 0; t < T; ++t)
    for (int64_t r = 0; r < width; ++r) out[t * outputs + r] = sums[t][r] * scale[r];
}

template <int T>
void exact(const int16_t* x, int64_t columns, const int8_t* block, int64_t width, int64_t outputs, int32_t* out) {
  int32_t sums[T][ROWS];
  tile<T>(x, columns, block, sums);
  for (int t = 0; t < T; ++t) std::memcpy(out + t * outputs, sums[t], width * sizeof(int32_t));
}

int32_t dot(const int16_t* x, const int8_t* row, int64_t columns) {
  int32_t sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t k = 0; k < columns; ++k) sum += x[k] * static_cast<int16_t>(row[k]);
  return sum;
}

// One block of a matrix whose element (r, k) lies at r * row + k * column, with zeros where it ends.
void pack(const int8_t* matrix, int64_t row, int64_t column, int64_t width, int64_t columns, int64_t padded, int8_t* out) {
  std::memset(out, 0, padded * ROWS);
  if (column == 1) {
    for (int64_t r = 0; r < width; ++r)
      for (int64_t k = 0; k < columns; ++k) out[(k / 2) * 2 * ROWS + 2 * r + k % 2] = matrix[r * row + k];
  } else {
    for (int64_t k = 0; k < columns; ++k)
      for (int64_t r = 0; r < width; ++r) out[(k / 2) * 2 * ROWS + 2 * r + k % 2] = matrix[r * row + k * column];
  }
}

// Rows of int8 or uint8, less `shift`, as int16 with zeros up to `padded`. Shared among the threads of a team.
void widen(const uint8_t* x, int64_t rows, int64_t columns, bool is_unsigned, int64_t shift, int64_t padded,
           int16_t* wide) {
#pragma omp for schedule(static)
  for (int64_t s = 0; s < rows; ++s) {
    for (int64_t k = 0; k < columns; ++k) {
      const uint8_t value = x[s * columns + k];
      wide[s * padded + k] = static_cast<int16_t>((is_unsigned ? value : static_cast<int8_t>(value)) - shift);
    }
    for (int64_t k = columns; k < padded; ++k) wide[s * padded + k] = 0;
  }
}

inline int64_t blocks_of(int64_t outputs) { return (outputs + ROWS - 1) / ROWS; }
inline int64_t width_of(int64_t outputs, int64_t block) {
  return outputs - block * ROWS < ROWS ? outputs - block * ROWS : ROWS;
}

}  // namespace

extern "C" {

// data [ceil(R / 8), Kp / 2, 8, 2] of a matrix [R, K], with zeros up to Kp, the next multiple of 16.
void int8_pack(const int8_t* matrix, int64_t outputs, int64_t columns, int64_t padded, int8_t* data, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t block = 0; block < blocks_of(outputs); ++block)
    pack(matrix + block * ROWS * columns, columns, 1, width_of(outputs, block), columns, padded,
         data + block * padded * ROWS);
}

// out [S, R] = (x [S, K] - shift) times the packed matrix's rows, each by its scale. x holds uint8 if `shift` is not 0.
void int8_product(const uint8_t* x, int64_t rows, int64_t columns, int64_t shift, const int8_t* data, const float* scale,
                  int64_t outputs, int64_t padded, float* out, int64_t threads) {
  int16_t* const wide = new int16_t[rows * padded];
#pragma omp parallel num_threads(threads)
  {
    widen(x, rows, columns, shift != 0, shift, padded, wide);
#pragma omp for schedule(static)
    for (int64_t block = 0; block < blocks_of(outputs); ++block) {
      const int8_t* const weights = data + block * padded * ROWS;
      const int64_t width = width_of(outputs, block);
      const float* const factor = scale + block * ROWS;
      float* const into = out + block * ROWS;
      int64_t s = 0;
      for (; s + 4 <= rows; s += 4)
        scaled<4>(wide + s * padded, padded, weights, factor, width, outputs, into + s * outputs);
      for (; s < rows; ++s) scaled<1>(wide + s * padded, padded, weights, factor, width, outputs, into + s * outputs);
    }
  }
  delete[] wide;
}

// out [S, R] = x [S, K] times a matrix [R, K] that lies as `pack` says; x holds int8, or uint8 if `is_unsigned`.
void integer_product(const uint8_t* x, int64_t rows, int64_t columns, int64_t is_unsigned, const int8_t* matrix,
                     int64_t row, int64_t column, int64_t outputs, int32_t* out, int64_t threads) {
  const int64_t padded = (columns + STEP - 1) / STEP * STEP;
  int16_t* const wide = new int16_t[rows * padded];
#pragma omp parallel num_threads(threads)
  {
    int8_t* const packed = new int8_t[padded * ROWS];
    widen(x, rows, columns, is_unsigned != 0, 0, padded, wide);
    if (rows < FEW && column == 1) {
#pragma omp for schedule(static)
      for (int64_t r = 0; r < outputs; ++r)
        for (int64_t s = 0; s < rows; ++s) out[s * outputs + r] = dot(wide + s * padded, matrix + r * row, columns);
    } else {
#pragma omp for schedule(static)
      for (int64_t block = 0; block < blocks_of(outputs); ++block) {
        const int64_t width = width_of(outputs, block);
        pack(matrix + block * ROWS * row, row, column, width, columns, padded, packed);
        int32_t* const into = out + block * ROWS;
        int64_t s = 0;
        for (; s + 4 <= rows; s += 4) exact<4>(wide + s * padded, padded, packed, width, outputs, into + s * outputs);
        for (; s < rows; ++s) exact<1>(wide + s * padded, padded, packed, width, outputs, into + s * outputs);
      }
    }
    delete[] packed;
  }
  delete[] wide;
}
}
