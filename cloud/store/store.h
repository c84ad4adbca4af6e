/* store/store.h - the cloud's adapters: an SQLite table of what there is, and one signed file for each
 * (model/release.h), named by its id.
 *
 *   struct foray_store *s;
 *   foray_store_open("store", secret_key, &s, &err);
 *   foray_store_add(s, &info, gguf_bytes, n, id, &err);       // next sequence of this base, signed
 *   foray_store_each(s, base, print, NULL, &err);
 *
 * A version enters the table only after its file is complete, so the table never names a file that is not
 * there. Thread rule: one thread per store; several processes may open one folder. */
#ifndef FORAY_STORE_STORE_H
#define FORAY_STORE_STORE_H

#include "model/release.h"

struct foray_store; /* opaque */

enum foray_version_state {
  FORAY_VERSION_NEW = 0,     /* made, not served yet */
  FORAY_VERSION_SERVED = 1,  /* what boards are given */
  FORAY_VERSION_REVOKED = 2, /* measured worse: taken back */
};
struct foray_version {
  char id[FORAY_SHA256_HEX], name[FORAY_RELEASE_NAME], base_sha256[FORAY_SHA256_HEX],
      parent[FORAY_SHA256_HEX];
  uint64_t sequence, bytes;
  enum foray_version_state state;
  const char *metrics; /* JSON; valid during the call that hands it out */
};

/* Creates what is missing. private_key is copied. */
enum foray_status foray_store_open(const char *dir, const uint8_t private_key[FORAY_KEY_BYTES],
                                   struct foray_store **out, struct foray_err *err) FORAY_NODISCARD;
void foray_store_close(struct foray_store *s); /* NULL is allowed */

/* info->sequence is chosen here. An adapter with the same bytes, base and parent as a stored one gives that
 * id back. FORAY_E_NOTFOUND: the parent is not in the store. */
enum foray_status foray_store_add(struct foray_store *s, const struct foray_release_info *info,
                                  const void *payload, size_t n, char id[FORAY_SHA256_HEX],
                                  struct foray_err *err) FORAY_NODISCARD;
/* Path of a version's file; id may be a unique beginning of at least 4 digits. */
enum foray_status foray_store_path(struct foray_store *s, const char *id, char *path, size_t cap,
                                   struct foray_err *err) FORAY_NODISCARD;
/* Serving one ends that of the others of its base. */
enum foray_status foray_store_set_state(struct foray_store *s, const char *id, enum foray_version_state state,
                                        struct foray_err *err) FORAY_NODISCARD;
/* Versions of a base (NULL: all), newest first. */
typedef void foray_version_fn(void *arg, const struct foray_version *v);
enum foray_status foray_store_each(struct foray_store *s, const char *base_sha256, foray_version_fn *fn,
                                   void *arg, struct foray_err *err) FORAY_NODISCARD;
const char *foray_version_state_name(enum foray_version_state s);

#endif
