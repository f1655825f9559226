// Passes over the rows of a matrix that would be half a dozen operators each: norm, gate, rounding to int8.
#include "rounding.h"

using namespace redraft;

namespace {

inline void put(void* out, int64_t kind, int64_t i, float value) {
  if (kind == FLOAT32)
    static_cast<float*>(out)[i] = value;
  else
    static_cast<uint16_t*>(out)[i] = bfloat16_of(value);
}

// 1 / sqrt(mean(x^2) + eps) of a row.
template <int KIND>
inline float inverse_of(const void* x, int64_t base, int64_t columns, float eps) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < columns; ++i) {
    const float value = load(x, KIND, base + i);
    sum += value * value;
  }
  return 1.0f / std::sqrt(sum / columns + eps);
}

template <int KIND>
void norm(const void* x, const float* weight, int64_t rows, int64_t columns, float eps, const void* residual,
          float factor, void* out, float* inverses, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t n = 0; n < rows; ++n) {
    const int64_t base = n * columns;
    const float inverse = inverse_of<KIND>(x, base, columns, eps);
    if (inverses != nullptr) inverses[n] = inverse;
    if (residual == nullptr) {
#pragma omp simd
      for (int64_t i = 0; i < columns; ++i) {
        float value = load(x, KIND, base + i) * inverse;
        if (weight != nullptr) value *= weight[i];
        put(out, KIND, base + i, value);
      }
    } else {
#pragma omp simd
      for (int64_t i = 0; i < columns; ++i)
        put(out, KIND, base + i, (load(residual, KIND, base + i) + load(x, KIND, base + i) * inverse * weight[i]) * factor);
    }
  }
}

// A row of a head, normed, and its pairs (i, i + half) turned by the angles of its position where there are any.
template <int KIND>
void turned_heads(const void* x, const float* weight, int64_t rows, int64_t heads, int64_t size, const void* cosines,
                const void* sines, float eps, void* out, int64_t threads) {
  const int64_t half = size / 2;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t n = 0; n < rows; ++n)
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t base = (n * heads + h) * size, table = n * half;
      const float inverse = inverse_of<KIND>(x, base, size, eps);
      const auto at = [&](int64_t i) {
        const float value = load(x, KIND, base + i) * inverse;
        return weight == nullptr ? value : value * weight[i];
      };
      if (cosines == nullptr) {
#pragma omp simd
        for (int64_t i = 0; i < size; ++i) put(out, KIND, base + i, at(i));
      } else {
#pragma omp simd
        for (int64_t i = 0; i < half; ++i) {
          const float first = at(i), second = at(half + i);
          const float cosine = load(cosines, KIND, table + i), sine = load(sines, KIND, table + i);
          put(out, KIND, base + i, first * cosine - second * sine);
          put(out, KIND, base + half + i, second * cosine + first * sine);
        }
      }
    }
}

}  // namespace

extern "C" {

// x / sqrt(mean(x^2) + eps) * weight, row by row; weight is float32 or null. `inverses` [rows] gets
// 1 / sqrt(mean(x^2) + eps) unless it is null.
void rms_norm(const void* x, int64_t kind, const float* weight, int64_t rows, int64_t columns, float eps, void* out,
              float* inverses, int64_t threads) {
  if (kind == FLOAT32)
    norm<FLOAT32>(x, weight, rows, columns, eps, nullptr, 1.0f, out, inverses, threads);
  else
    norm<BFLOAT16>(x, weight, rows, columns, eps, nullptr, 1.0f, out, inverses, threads);
}

// (residual + x / sqrt(mean(x^2) + eps) * weight) * factor, row by row, all of one kind but the weight.
void norm_add(const void* x, int64_t kind, const float* weight, int64_t rows, int64_t columns, float eps,
              const void* residual, const float* factor, void* out, int64_t threads) {
  const float by = factor == nullptr ? 1.0f : *factor;
  if (kind == FLOAT32)
    norm<FLOAT32>(x, weight, rows, columns, eps, residual, by, out, nullptr, threads);
  else
    norm<BFLOAT16>(x, weight, rows, columns, eps, residual, by, out, nullptr, threads);
}

// Heads [rows, heads, size], normed by a weight [size] or none, and turned by tables [rows, size / 2] or not at all.
void norm_heads(const void* x, int64_t kind, const float* weight, int64_t rows, int64_t heads, int64_t size,
                const void* cosines, const void* sines, float eps, void* out, int64_t threads) {
  if (kind == FLOAT32)
    turned_heads<FLOAT32>(x, weight, rows, heads, size, cosines, sines, eps, out, threads);
  else
    turned_heads<BFLOAT16>(x, weight, rows, heads, size, cosines, sines, eps, out, threads);
}

// The gradients of rms_norm in float32. `grad_weight` [parts, columns] or null gets a sum over each of `parts` runs of
// rows, so that the caller's total does not depend on the number of threads.
void rms_norm_backward(const float* x, const float* weight, const float* inverses, const float* grad, int64_t rows,
                       int64_t columns, float* grad_x, float* grad_weight, int64_t parts, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t part = 0; part < parts; ++part) {
    float* const total = grad_weight == nullptr ? nullptr : grad_weight + part * columns;
    for (int64_t n = part * rows / parts; n < (part + 1) * rows / parts; ++n) {
      const float* a = x + n * columns;
      const float* g = grad + n * columns;
      float* out = grad_x + n * columns;
      const float inverse = inverses[n];
      float along = 0.0f;
      if (weight == nullptr) {
#pragma omp simd reduction(+ : along)
        for (int64_t i = 0; i < columns; ++i) along += g[i] * a[i];
      } else {
#pragma omp simd reduction(+ : along)
        for (int64_t i = 0; i < columns; ++i) along += g[i] * weight[i] * a[i];
      }
      along *= inverse * inverse / columns;
      if (weight == nullptr) {
#pragma omp simd
        for (int64_t i = 0; i < columns; ++i) out[i] = (g[i] - a[i] * along) * inverse;
      } else {
#pragma omp simd
        for (int64_t i = 0; i < columns; ++i) out[i] = (g[i] * weight[i] - a[i] * along) * inverse;
      }
      if (total != nullptr) {
#pragma omp simd
        for (int64_t i = 0; i < columns; ++i) total[i] += g[i] * a[i] * inverse;
      }
    }
  }
}

// Rounds each row to int8 with its own scale; `shift` 128 writes it as uint8 with that zero point.
void quantise_rows(const void* x, int64_t kind, int64_t rows, int64_t columns, int64_t shift, uint8_t* out, float* scale,
                   int threads) {
#pragma omp parallel num_threads(threads)
  {
    float* const wide = kind == FLOAT32 ? nullptr : new float[columns];
#pragma omp for schedule(static)
    for (int64_t n = 0; n < rows; ++n)
      scale[n] = quantise(row_of(x, kind, n, columns, wide), columns, shift, out + n * columns);
    delete[] wide;
  }
}

// gelu(gate) * up of rows [gate | up] that are still to be multiplied by their scale, rounded to int8 at once.
void gate_quantise(const float* gate_up, const float* row_scale, int64_t rows, int64_t width, int64_t shift, uint8_t* out,
                   float* scale, int64_t threads) {
#pragma omp parallel num_threads(threads)
  {
    float* const gated = new float[width];
#pragma omp for schedule(static)
    for (int64_t n = 0; n < rows; ++n) {
      const float* gate = gate_up + n * 2 * width;
      const float* up = gate + width;
      const float factor = row_scale[n];
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) gated[i] = gelu_of(gate[i] * factor) * (up[i] * factor);
      scale[n] = quantise(gated, width, shift, out + n * width);
    }
    delete[] gated;
  }
}
}
