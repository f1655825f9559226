// One pass over a tile of logits: softcap, temperature, online softmax, block sums, probabilities.
//
// Plain C++ with OpenMP and no headers of torch, so that it compiles in a second or two. Loops are written for the
// vectoriser; reductions are marked, everything else keeps IEEE order, and a NaN stays one.
#include "watched.h"

using namespace redraft;

namespace {

void reduce(const void* logits, int64_t kind, int64_t rows, int64_t columns, int64_t first, float cap,
               const float* row_scale, const float* column_scale, const float* inverse_temperature, float* top,
               float* mass, float* moment, int64_t* argmax, float* rescale, float* block_mass, int64_t block,
               void* probabilities, float* probability_scale, const Watched* watched,
               int64_t threads) {
  const int64_t blocks = (columns + block - 1) / block;
#pragma omp parallel num_threads(threads)
  {
    float* const scratch = kind == FLOAT32 ? nullptr : new float[columns];
    float* const weighted_of = watched == nullptr ? nullptr : new float[columns];
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
      const uint64_t beside =
          watched == nullptr ? 0 : watched->apart(n, s, columns, watched->see(n, s, columns, largest), reference);
      float tile_mass = 0.0f, tile_moment = 0.0f;
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t end = (b + 1) * block < columns ? (b + 1) * block : columns;
        float sum = 0.0f, weighted = 0.0f;
        if (beside == 0) {
#pragma omp simd reduction(+ : sum, weighted)
          for (int64_t i = b * block; i < end; ++i) {
            const float below = s[i] - reference;
            const float z = below < LEAST ? LEAST : below;
            const float p = below < LEAST ? 0.0f : exp_of(z);
            s[i] = p;
            sum += p;
            weighted += p * z;
          }
        } else {
#pragma omp simd reduction(+ : sum, weighted)
          for (int64_t i = b * block; i < end; ++i) {
            const float below = s[i] - reference;
            const float z = below < LEAST ? LEAST : below;
            const float p = below < LEAST ? 0.0f : exp_of(z);
            s[i] = p;
            weighted_of[i] = p * z;
            sum += p;
            weighted += p * z;
          }
        }
        block_mass[n * blocks + b] = sum;
        tile_mass += sum;
        tile_moment += weighted;
      }
      mass[n] += tile_mass;
      moment[n] += tile_moment;
      if (beside != 0) {
        Watched::Sums found;
        for (int64_t begin = 0, r = 0; begin < columns; begin += watched->run, ++r) {
          const int64_t width = begin + watched->run < columns ? watched->run : columns - begin;
          watched->add(n, r, s + begin, weighted_of + begin, width, beside, found);
        }
        watched->finish(n, beside, reference, found);
      }
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
    delete[] weighted_of;
  }
}

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
void head_tile(const void* logits, int64_t kind, int64_t rows, int64_t columns, int64_t first, float cap,
               const float* row_scale, const float* column_scale, const float* inverse_temperature, float* top,
               float* mass, float* moment, int64_t* argmax, float* rescale, float* block_mass, int64_t block,
               void* probabilities, float* probability_scale, int64_t threads) {
  reduce(logits, kind, rows, columns, first, cap, row_scale, column_scale, inverse_temperature, top, mass, moment, argmax,
         rescale, block_mass, block, probabilities, probability_scale, nullptr, threads);
}

// The same, and what the tile says of an automaton's classes; see `Watched`.
//
// taken, place       explicit columns of this tile, and the place of the first of them in `explicit_columns`
// broad_of           [vocabulary];  explicit_columns [X] of the vocabulary, as columns of their tiles
// present            [J] bits of the broad classes in each run of `run` columns, of which no tile shares one
void head_tile_watched(const void* logits, int64_t kind, int64_t rows, int64_t columns, int64_t first, float cap,
               const float* row_scale, const float* column_scale, const float* inverse_temperature, float* top,
               float* mass, float* moment, int64_t* argmax, float* rescale, float* block_mass, int64_t block,
               void* probabilities, float* probability_scale, int64_t taken, int64_t place,
               const int32_t* broad_of, const int32_t* explicit_columns, const uint64_t* present, int64_t X, int64_t G,
               int64_t J, int64_t tiles, int64_t run, int64_t tile, float* scores, float* class_top,
               int64_t* class_token, double* class_mass, double* class_moment, float* class_sums, float* reference,
               int64_t threads) {
  const Watched watched{broad_of + first, present + first / run, explicit_columns + place, taken, place, scores, X, G, J,
                        tiles, run, tile, first / run, first, class_top, class_token, class_mass, class_moment,
                        class_sums, reference};
  reduce(logits, kind, rows, columns, first, cap, row_scale, column_scale, inverse_temperature, top, mass, moment, argmax,
         rescale, block_mass, block, probabilities, probability_scale, &watched, threads);
}

// Raw logits of one block of columns for each row: out[n, j] = hidden[n] . embedding[start[n] + j].
//
// hidden    [rows, width] of float, bfloat16 or int8;  embedding [vocabulary, width] of the same kind
// start     [rows]  first column;  columns beyond the vocabulary get -inf
void head_block(const void* hidden, const void* embedding, int64_t kind, int64_t rows, int64_t width, int64_t vocabulary,
                const int64_t* start, int64_t block, float* out, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t n = 0; n < rows; ++n) {
    for (int64_t j = 0; j < block; ++j) {
      const int64_t v = start[n] + j;
      if (v >= vocabulary) {
        out[n * block + j] = -INFINITY;
        continue;
      }
      float sum = 0.0f;
      if (kind == FLOAT32) {
        const float* a = static_cast<const float*>(hidden) + n * width;
        const float* b = static_cast<const float*>(embedding) + v * width;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; ++i) sum += a[i] * b[i];
      } else if (kind == BFLOAT16) {
        const uint16_t* a = static_cast<const uint16_t*>(hidden) + n * width;
        const uint16_t* b = static_cast<const uint16_t*>(embedding) + v * width;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; ++i) sum += float_of(a[i]) * float_of(b[i]);
        // The tile's products were rounded to bfloat16 as well.
        sum = float_of(bfloat16_of(sum));
      } else {
        const int8_t* a = static_cast<const int8_t*>(hidden) + n * width;
        const int8_t* b = static_cast<const int8_t*>(embedding) + v * width;
        int32_t whole = 0;
#pragma omp simd reduction(+ : whole)
        for (int64_t i = 0; i < width; ++i) whole += static_cast<int32_t>(a[i]) * b[i];
        sum = static_cast<float>(whole);
      }
      out[n * block + j] = sum;
    }
  }
}
}
