// tests/rtl/tb.hpp - what the benches of single units share: random numbers, access to wide ports, verdicts.
#ifndef FORAY_TESTS_RTL_TB_HPP
#define FORAY_TESTS_RTL_TB_HPP

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

#include "verilated.h"

extern "C" {
#define _Thread_local thread_local
#define _Static_assert static_assert
#define _Atomic /* the benches have one thread */
#include "core/imath.h"
#include "dev/exit.h"
#include "dev/kernels.h"
#include "dev/ref.h"
}

// xorshift64*: the same cases on every machine; FORAY_SEED moves them.
struct tb_rng {
  uint64_t s;
  explicit tb_rng(uint64_t seed) : s(seed * 0x9E3779B97F4A7C15u + 1) {}
  uint64_t next() {
    s ^= s >> 12, s ^= s << 25, s ^= s >> 27;
    return s * 0x2545F4914F6CDD1Du;
  }
  uint32_t below(uint32_t n) { return n ? (uint32_t)((next() >> 32) % n) : 0; }
  int range(int lo, int hi) { return lo + (int)below((uint32_t)(hi - lo + 1)); }
  bool one_in(uint32_t n) { return below(n) == 0; }
};

inline uint64_t tb_env(const char *name, uint64_t otherwise) {
  const char *v = getenv(name);
  return v ? strtoull(v, nullptr, 0) : otherwise;
}

struct tb_unit { // 64 bytes: a word of the scratchpad, a beat of a stream
  uint32_t w[16];
};

// A mantissa of up to `bits` bits with corner values now and then.
inline int32_t tb_mantissa(tb_rng &r, int bits) {
  if (r.one_in(16)) {
    static const int32_t corner[] = {0, 1, -1, 1 << 30, -(1 << 30), (1 << 30) - 1, INT32_MAX, INT32_MIN, INT32_MIN + 1};
    int32_t v = corner[r.below(9)];
    return bits >= 30 ? v : v >> (31 - (bits ? bits : 1));
  }
  if (bits == 0) return 0;
  return (int32_t)((int64_t)(r.next() >> 1) >> (63 - bits)) * (r.one_in(2) ? 1 : -1);
}

#endif
