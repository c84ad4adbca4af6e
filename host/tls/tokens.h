/* tls/tokens.h - access tokens: random secrets that clients present, kept only as SHA-256 (they have 256 bits
 * of chance, so that a plain hash cannot be searched). One text file, a line each:
 *
 *   NAME SHA256HEX SCOPES EXPIRY WEIGHT PRIORITY      # scopes: edge,api,metrics,enroll; expiry: unix seconds
 * or 0
 *
 * The file is looked at again when it changed: taking a line out revokes at once, without a restart. */
#ifndef FORAY_TLS_TOKENS_H
#define FORAY_TLS_TOKENS_H

#include <foray/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FORAY_TOKEN_BYTES = 64, FORAY_TOKEN_NAME_MAX = 64, FORAY_TOKENS_MAX = 65536 };

enum foray_token_scope {
  FORAY_SCOPE_EDGE = 1,
  FORAY_SCOPE_API = 2,
  FORAY_SCOPE_METRICS = 4,
  FORAY_SCOPE_ENROLL = 8
};
/* "edge,api" to bits; false: an unknown word. */
bool foray_scopes_parse(const char *text, unsigned *out);

struct foray_token {
  char name[FORAY_TOKEN_NAME_MAX];
  uint8_t hash[32];
  unsigned scopes;
  int64_t expiry; /* unix seconds; 0: never */
  double weight;
  uint32_t priority;
};

struct foray_tokens; /* opaque; not thread-safe */

/* A file that is not there is an empty list (it may come later). FORAY_E_FORMAT with the line. */
enum foray_status foray_tokens_open(const char *path, struct foray_tokens **out,
                                    struct foray_err *err) FORAY_NODISCARD;
void foray_tokens_close(struct foray_tokens *t);
/* The live token with this secret and all these scopes, else NULL. now: unix seconds. The time it takes does
 * not depend on how much of a secret is right (hashes are compared). Borrowed until the next call. */
const struct foray_token *foray_tokens_find(struct foray_tokens *t, const char *secret, unsigned scopes,
                                            int64_t now);
uint32_t foray_tokens_count(struct foray_tokens *t);
const struct foray_token *foray_tokens_at(struct foray_tokens *t, uint32_t i);

/* Makes a token, adds its hash to the file, and gives the secret ("fry_" and 43 characters), which is nowhere
 * else. */
enum foray_status foray_tokens_add(const char *path, const struct foray_token *what,
                                   char secret[FORAY_TOKEN_BYTES], struct foray_err *err) FORAY_NODISCARD;
/* FORAY_E_NOTFOUND: no such name. */
enum foray_status foray_tokens_revoke(const char *path, const char *name,
                                      struct foray_err *err) FORAY_NODISCARD;

#endif
