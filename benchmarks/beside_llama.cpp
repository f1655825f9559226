// A forward of llama.cpp, timed: one token behind a prompt, and a canvas' rows with logits at all of them.
//
//   beside_llama MODEL.gguf THREADS PROMPT ROWS REPETITIONS
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "llama.h"

namespace {

struct Timed {
  llama_context* context;
  int vocabulary;

  // Seconds for `count` tokens from a position on; logits of all of them or of the last.
  double forward(int position, int count, bool everywhere) const {
    llama_batch batch = llama_batch_init(count, 0, 1);
    batch.n_tokens = count;
    for (int i = 0; i < count; ++i) {
      batch.token[i] = 3 + std::rand() % (vocabulary - 3);
      batch.pos[i] = position + i;
      batch.n_seq_id[i] = 1;
      batch.seq_id[i][0] = 0;
      batch.logits[i] = everywhere || i == count - 1;
    }
    const auto begin = std::chrono::steady_clock::now();
    if (llama_decode(context, batch) != 0) std::exit(1);
    llama_synchronize(context);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    llama_batch_free(batch);
    return took.count();
  }

  double median(int prompt, int count, bool everywhere, int repetitions) const {
    std::vector<double> found;
    for (int i = 0; i < repetitions; ++i) {
      llama_memory_seq_rm(llama_get_memory(context), 0, prompt, -1);
      found.push_back(forward(prompt, count, everywhere));
    }
    std::nth_element(found.begin(), found.begin() + found.size() / 2, found.end());
    return found[found.size() / 2];
  }
};

}  // namespace

int main(int, char** argv) {
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  llama_model* const model = llama_model_load_from_file(argv[1], llama_model_default_params());
  if (model == nullptr) return 1;
  const int threads = std::atoi(argv[2]), prompt = std::atoi(argv[3]), rows = std::atoi(argv[4]);
  const int repetitions = std::atoi(argv[5]);
  llama_context_params params = llama_context_default_params();
  params.n_ctx = 2 * (prompt + rows);
  params.n_batch = params.n_ubatch = std::max(prompt, rows);
  params.n_threads = params.n_threads_batch = threads;
  llama_context* const context = llama_init_from_model(model, params);
  if (context == nullptr) return 1;
  const Timed timed{context, llama_vocab_n_tokens(llama_model_get_vocab(model))};
  timed.forward(0, prompt, false);
  timed.median(prompt, 1, true, 2);
  const double token = timed.median(prompt, 1, true, 8 * repetitions);
  const double layers = timed.median(prompt, rows, false, repetitions);
  const double all = timed.median(prompt, rows, true, repetitions);
  std::printf("{\"token_s\": %.6f, \"layers_s\": %.6f, \"forward_s\": %.6f}\n", token, layers, all);
}
