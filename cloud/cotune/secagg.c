#include "cotune/secagg.h"

#include <math.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"
#include "core/hash.h"
#include "core/philox.h"

static const float UNIT = 1048576.0f; /* 2^20 steps of one */

/* ---- GF(256), polynomial 0x11b ---- */
static uint8_t gf_mul(uint8_t a, uint8_t b) {
  uint8_t r = 0;
  for (; b; b >>= 1) {
    r ^= (uint8_t)(b & 1 ? a : 0);
    a = (uint8_t)(a << 1 ^ (a & 0x80 ? 0x1b : 0));
  }
  return r;
}
static uint8_t gf_inv(uint8_t a) { /* a^254 */
  uint8_t r = 1;
  for (int i = 0; i < 254; i++) r = gf_mul(r, a);
  return r;
}

enum foray_status foray_shamir_split(const uint8_t secret[FORAY_SECAGG_SECRET], int shares, int threshold,
                                     struct foray_secagg_share *out, struct foray_err *err) {
  uint8_t c[FORAY_SECAGG_DEVICES][FORAY_SECAGG_SECRET];
  if (threshold < 1 || threshold > shares || shares > FORAY_SECAGG_DEVICES)
    return foray_err_set(err, FORAY_E_ARG, "sharing among %d with threshold %d", shares, threshold);
  if (threshold > 1 && RAND_bytes(c[1], (threshold - 1) * FORAY_SECAGG_SECRET) != 1)
    return foray_err_set(err, FORAY_E_STATE, "the system gives no random bytes");
  memcpy(c[0], secret, FORAY_SECAGG_SECRET);
  for (int s = 0; s < shares; s++) {
    out[s].x = (uint8_t)(s + 1);
    for (int b = 0; b < FORAY_SECAGG_SECRET; b++) {
      uint8_t y = 0;
      for (int k = threshold; k-- > 0;) y = (uint8_t)(gf_mul(y, out[s].x) ^ c[k][b]);
      out[s].y[b] = y;
    }
  }
  return FORAY_OK;
}

void foray_shamir_join(const struct foray_secagg_share *s, int n, uint8_t secret[FORAY_SECAGG_SECRET]) {
  memset(secret, 0, FORAY_SECAGG_SECRET);
  for (int i = 0; i < n; i++) {
    uint8_t l = 1; /* Lagrange at 0 */
    for (int k = 0; k < n; k++)
      if (k != i) l = gf_mul(l, gf_mul(s[k].x, gf_inv((uint8_t)(s[k].x ^ s[i].x))));
    for (int b = 0; b < FORAY_SECAGG_SECRET; b++) secret[b] ^= gf_mul(l, s[i].y[b]);
  }
}

/* ---- keys and masks ---- */
static enum foray_status crypto(struct foray_err *err) {
  return foray_err_set(err, FORAY_E_STATE, "X25519 failed");
}

static bool public_of(const uint8_t *secret, uint8_t *public) {
  size_t n = FORAY_SECAGG_SECRET;
  EVP_PKEY *k = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, secret, FORAY_SECAGG_SECRET);
  bool ok = k && EVP_PKEY_get_raw_public_key(k, public, &n) == 1;
  EVP_PKEY_free(k);
  return ok;
}
/* Seed that both ends of a pair derive: SHA-256 of the X25519 secret. */
static bool pair_seed(const uint8_t *secret, const uint8_t *public, uint8_t seed[FORAY_SHA256_BYTES]) {
  uint8_t shared[FORAY_SECAGG_SECRET];
  size_t n = sizeof shared;
  EVP_PKEY *k = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, secret, FORAY_SECAGG_SECRET);
  EVP_PKEY *p = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, public, FORAY_SECAGG_SECRET);
  EVP_PKEY_CTX *c = k ? EVP_PKEY_CTX_new(k, NULL) : NULL;
  bool ok = c && p && EVP_PKEY_derive_init(c) == 1 && EVP_PKEY_derive_set_peer(c, p) == 1 &&
            EVP_PKEY_derive(c, shared, &n) == 1 && n == sizeof shared;
  if (ok) foray_sha256_once(shared, sizeof shared, seed);
  EVP_PKEY_CTX_free(c);
  EVP_PKEY_free(p);
  EVP_PKEY_free(k);
  return ok;
}
/* out += or -= ChaCha20 stream of the seed, as words. */
static bool add_mask(const uint8_t seed[FORAY_SHA256_BYTES], bool minus, uint32_t *out, size_t n) {
  static const uint8_t zero[4096] = {0}, iv[16] = {0};
  uint32_t word[1024];
  EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
  bool ok = c && EVP_EncryptInit_ex(c, EVP_chacha20(), NULL, seed, iv) == 1;
  for (size_t at = 0; ok && at < n; at += 1024) {
    size_t k = n - at < 1024 ? n - at : 1024;
    int len = 0;
    ok = EVP_EncryptUpdate(c, (uint8_t *)word, &len, zero, (int)(4 * k)) == 1 && (size_t)len == 4 * k;
    for (size_t i = 0; ok && i < k; i++) out[at + i] += minus ? 0u - word[i] : word[i];
  }
  EVP_CIPHER_CTX_free(c);
  return ok;
}

enum foray_status foray_secagg_open(struct foray_secagg_device *d, int number, int devices, int threshold,
                                    struct foray_err *err) {
  *d = (struct foray_secagg_device){.number = number, .devices = devices, .threshold = threshold};
  if (devices < 2 || devices > FORAY_SECAGG_DEVICES || number < 0 || number >= devices || threshold < 2 ||
      threshold > devices)
    return foray_err_set(err, FORAY_E_ARG,
                         "device %d of %d, threshold %d (2 to %d devices, threshold from 2)", number, devices,
                         threshold, FORAY_SECAGG_DEVICES);
  if (RAND_bytes(d->mask_secret, FORAY_SECAGG_SECRET) != 1 ||
      RAND_bytes(d->own_seed, FORAY_SECAGG_SECRET) != 1)
    return foray_err_set(err, FORAY_E_STATE, "the system gives no random bytes");
  return public_of(d->mask_secret, d->mask_public) ? FORAY_OK : crypto(err);
}

enum foray_status foray_secagg_split(const struct foray_secagg_device *d,
                                     struct foray_secagg_share *key_share,
                                     struct foray_secagg_share *seed_share, struct foray_err *err) {
  enum foray_status st = foray_shamir_split(d->mask_secret, d->devices, d->threshold, key_share, err);
  return st ? st : foray_shamir_split(d->own_seed, d->devices, d->threshold, seed_share, err);
}

enum foray_status foray_secagg_mask(const struct foray_secagg_device *d,
                                    const uint8_t publics[][FORAY_SECAGG_SECRET], const float *v, size_t n,
                                    uint32_t *out, struct foray_err *err) {
  uint8_t seed[FORAY_SHA256_BYTES];
  for (size_t i = 0; i < n; i++) {
    if (!(fabsf(v[i]) <= FORAY_SECAGG_RANGE))
      return foray_err_set(err, FORAY_E_LIMIT, "value %zu is outside of +-%g", i, (double)FORAY_SECAGG_RANGE);
    out[i] = (uint32_t)(int32_t)lrintf(v[i] * UNIT);
  }
  bool ok = add_mask(d->own_seed, false, out, n);
  for (int k = 0; ok && k < d->devices; k++)
    if (k != d->number)
      ok = pair_seed(d->mask_secret, publics[k], seed) && add_mask(seed, k < d->number, out, n);
  return ok ? FORAY_OK : crypto(err);
}

enum foray_status foray_secagg_unmask(int devices, int threshold, const bool *arrived, const bool *from,
                                      const struct foray_secagg_share answer[][FORAY_SECAGG_DEVICES],
                                      const uint8_t publics[][FORAY_SECAGG_SECRET], const uint32_t *acc,
                                      size_t n, float *sum, struct foray_err *err) {
  int holders = 0;
  for (int h = 0; h < devices; h++) holders += from[h];
  if (holders < threshold)
    return foray_err_set(err, FORAY_E_STATE, "%d devices answered, %d are needed: the sum stays hidden",
                         holders, threshold);
  uint32_t *t = malloc((n + 1) * sizeof *t);
  if (!t) return foray_err_set(err, FORAY_E_NOMEM, "secure sum: out of memory");
  memcpy(t, acc, n * sizeof *t);
  bool ok = true;
  for (int i = 0; ok && i < devices; i++) {
    struct foray_secagg_share s[FORAY_SECAGG_DEVICES];
    uint8_t secret[FORAY_SECAGG_SECRET], seed[FORAY_SHA256_BYTES];
    int k = 0;
    for (int h = 0; h < devices && k < threshold; h++)
      if (from[h]) s[k++] = answer[h][i];
    foray_shamir_join(s, k, secret);
    if (arrived[i]) { /* its own mask comes off */
      ok = add_mask(secret, true, t, n);
      continue;
    }
    /* what the others masked against it: + where its number is higher than theirs */
    for (int o = 0; ok && o < devices; o++)
      if (arrived[o]) ok = pair_seed(secret, publics[o], seed) && add_mask(seed, i > o, t, n);
  }
  for (size_t i = 0; ok && i < n; i++) sum[i] = (float)((double)(int32_t)t[i] / (double)UNIT);
  free(t);
  return ok ? FORAY_OK : crypto(err);
}
