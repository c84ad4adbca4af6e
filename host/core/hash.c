#include "core/hash.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

/* EVP_MD_CTX is used through the opaque name, so that no header of ours needs OpenSSL's. */
struct foray_sha256 *foray_sha256_open(void) {
  EVP_MD_CTX *c = EVP_MD_CTX_new();
  if (c && EVP_DigestInit_ex(c, EVP_sha256(), NULL) != 1) {
    EVP_MD_CTX_free(c);
    c = NULL;
  }
  return (struct foray_sha256 *)c;
}

void foray_sha256_update(struct foray_sha256 *h, const void *p, size_t n) {
  (void)EVP_DigestUpdate((EVP_MD_CTX *)h, p, n);
}

void foray_sha256_close(struct foray_sha256 *h, uint8_t out[FORAY_SHA256_BYTES]) {
  if (!h) return;
  uint8_t digest[FORAY_SHA256_BYTES];
  unsigned len = sizeof digest;
  (void)EVP_DigestFinal_ex((EVP_MD_CTX *)h, digest, &len);
  if (out) memcpy(out, digest, sizeof digest);
  EVP_MD_CTX_free((EVP_MD_CTX *)h);
}

void foray_sha256_once(const void *p, size_t n, uint8_t out[FORAY_SHA256_BYTES]) {
  unsigned len = FORAY_SHA256_BYTES;
  (void)EVP_Digest(p, n, out, &len, EVP_sha256(), NULL);
}

void foray_sha256_hex(const uint8_t digest[FORAY_SHA256_BYTES], char out[FORAY_SHA256_HEX]) {
  for (int i = 0; i < FORAY_SHA256_BYTES; i++) snprintf(out + 2 * i, 3, "%02x", digest[i]);
}
