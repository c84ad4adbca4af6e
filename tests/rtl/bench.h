// What the benches of tests/rtl share: random numbers, wide signals, a scratchpad, streams with stalls.
#ifndef FORAY_TESTS_RTL_BENCH_H
#define FORAY_TESTS_RTL_BENCH_H

#include <verilated.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace bench {

inline uint64_t rng_state = 0x9E3779B97F4A7C15u;
inline uint32_t rnd() {
  rng_state ^= rng_state << 13;
  rng_state ^= rng_state >> 7;
  rng_state ^= rng_state << 17;
  return static_cast<uint32_t>(rng_state >> 32);
}
inline uint32_t below(uint32_t n) { return rnd() % n; }
inline int between(int lo, int hi) {
  return lo + static_cast<int>(below(static_cast<uint32_t>(hi - lo) + 1));
}

// Styles 0..3 are corners (all largest, all smallest, zero, either), others are uniform.
inline int value(int style, int lo, int hi) {
  switch (style) {
  case 0: return hi;
  case 1: return lo;
  case 2: return 0;
  case 3: return rnd() & 1 ? hi : lo;
  default: return between(lo, hi);
  }
}

inline void put(QData &to, const uint8_t *from) { memcpy(&to, from, sizeof to); }
inline void put(IData &to, const uint8_t *from) { memcpy(&to, from, sizeof to); }
template <std::size_t N> void put(VlWide<N> &to, const uint8_t *from) { memcpy(to.data(), from, 4 * N); }
template <std::size_t N> void get(const VlWide<N> &from, uint8_t *to) { memcpy(to, from.data(), 4 * N); }

struct Scratch {
  std::vector<uint8_t> mem;
  bool bad = false;
  explicit Scratch(uint32_t units) : mem(std::size_t(units) * 64) {}
  uint8_t *unit(uint32_t u) { return mem.data() + std::size_t(u) * 64; }
  uint32_t units() const { return static_cast<uint32_t>(mem.size() / 64); }
};

// A stream of bytes in beats of `width` bytes, offered with a probability of `stall` / 256 of a pause a beat.
struct Source {
  std::vector<uint8_t> bytes;
  std::size_t at = 0;
  uint32_t width = 64, stall = 0;
  bool valid = false;
  void load(std::vector<uint8_t> b, uint32_t w, uint32_t s) {
    bytes = std::move(b), at = 0, width = w, stall = s, valid = false;
    bytes.resize((bytes.size() + w - 1) / w * w);
  }
  bool empty() const { return at >= bytes.size(); }
  // before the clock edge: decides valid for the cycle that begins
  void offer() {
    if (!valid) valid = !empty() && (stall == 0 || below(256) >= stall);
  }
  const uint8_t *data() const {
    static const uint8_t zero[64] = {0};
    return valid ? bytes.data() + at : zero;
  }
  void took() { at += width, valid = false; }
};

[[noreturn]] inline void fail(const char *what) {
  fprintf(stderr, "FAIL %s\n", what);
  exit(1);
}

} // namespace bench
#endif
