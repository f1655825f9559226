// Calls a function of a library with the arguments of a file, and writes what it changed back into that file.
//
//   emulated LIBRARY FUNCTION FILE
//
// The file holds, for each argument, its kind and a value of eight bytes: an integer, a float, a null pointer, or a
// buffer's length, whose bytes follow, filled up to a multiple of eight.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

int main(int, char** argv) {
  void* const library = dlopen(argv[1], RTLD_NOW);
  if (library == nullptr) return std::fprintf(stderr, "%s\n", dlerror()), 1;
  std::vector<char> bytes;
  std::FILE* file = std::fopen(argv[3], "rb");
  std::fseek(file, 0, SEEK_END);
  bytes.resize(std::ftell(file));
  std::rewind(file);
  if (std::fread(bytes.data(), 1, bytes.size(), file) != bytes.size()) return 1;
  std::fclose(file);

  // Integers and pointers, and floats, are passed in registers of their own, each in its order.
  int64_t n[48] = {};
  float f[8] = {};
  int whole = 0, broken = 0;
  for (size_t at = 0; at < bytes.size();) {
    int64_t kind, value;
    std::memcpy(&kind, bytes.data() + at, 8);
    std::memcpy(&value, bytes.data() + at + 8, 8);
    at += 16;
    if (kind == 1) {
      std::memcpy(&f[broken++], &value, sizeof(float));
    } else if (kind == 2) {
      n[whole++] = reinterpret_cast<int64_t>(bytes.data() + at);
      at += (value + 7) / 8 * 8;
    } else {
      n[whole++] = value;
    }
  }
  using Function = void (*)(float, float, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
                            int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
                            int64_t, int64_t, int64_t, int64_t, int64_t);
  const Function function = reinterpret_cast<Function>(dlsym(library, argv[2]));
  if (function == nullptr || whole > 24 || broken > 2) return std::fprintf(stderr, "cannot call %s\n", argv[2]), 1;
  function(f[0], f[1], n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11], n[12], n[13], n[14],
           n[15], n[16], n[17], n[18], n[19], n[20], n[21], n[22], n[23]);
  file = std::fopen(argv[3], "wb");
  std::fwrite(bytes.data(), 1, bytes.size(), file);
  std::fclose(file);
}
