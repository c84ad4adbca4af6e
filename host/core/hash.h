/* core/hash.h - SHA-256 (OpenSSL's) for content identity, and FNV-1a for tables. */
#ifndef FORAY_CORE_HASH_H
#define FORAY_CORE_HASH_H

#include <foray/status.h>
#include <stddef.h>
#include <stdint.h>

enum { FORAY_SHA256_BYTES = 32, FORAY_SHA256_HEX = 65 };

struct foray_sha256;                          /* opaque, owned by the caller of open */
struct foray_sha256 *foray_sha256_open(void); /* NULL: out of memory */
void foray_sha256_update(struct foray_sha256 *h, const void *p, size_t n);
void foray_sha256_close(struct foray_sha256 *h,
                        uint8_t out[FORAY_SHA256_BYTES]); /* frees h; out may be NULL */

void foray_sha256_once(const void *p, size_t n, uint8_t out[FORAY_SHA256_BYTES]);
void foray_sha256_hex(const uint8_t digest[FORAY_SHA256_BYTES], char out[FORAY_SHA256_HEX]);

static inline uint64_t foray_fnv1a(const void *p, size_t n) {
  const uint8_t *b = p;
  uint64_t h = 0xcbf29ce484222325u;
  for (size_t i = 0; i < n; i++) h = (h ^ b[i]) * 0x100000001b3u;
  return h;
}

#endif
