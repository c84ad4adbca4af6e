/* core/philox.h - Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers:
 * as easy as 1, 2, 3" (SC'11). The same (key, counter) gives the same four words on every machine, so that
 * edge and cloud derive the same sampling noise without exchanging it. */
#ifndef FORAY_CORE_PHILOX_H
#define FORAY_CORE_PHILOX_H

#include <stdint.h>

struct foray_philox {
  uint32_t v[4];
};

static inline struct foray_philox foray_philox4x32(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2,
                                                   uint32_t c3) {
  uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
    uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)p1;
    c3 = (uint32_t)p0;
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return (struct foray_philox){{c0, c1, c2, c3}};
}

#endif
