/* model/release.h - an adapter as a version: what it is (manifest), who says so (Ed25519 signature), and the
 * adapter itself, in one file; and the folder in which a board keeps the version that it runs.
 *
 *   struct foray_release *r;
 *   foray_release_open("x.frel", public_key, base_sha256, last_sequence, &r, &err);   // verified, or refused
 * by name
 *   ... r->payload, r->payload_len: a GGUF LoRA ...
 *   foray_release_close(r);
 *
 * File: "FRYREL1\n", u32 length of the manifest, u32 0, u64 length of the payload (little endian), the
 * manifest (JSON), 64 bytes of signature over all of that, the payload. The manifest holds the payload's
 * SHA-256, so the signature covers every byte. The id of a version is the SHA-256 of header and manifest.
 *
 * Thread rule: a release is immutable; one caller at a time per folder. */
#ifndef FORAY_MODEL_RELEASE_H
#define FORAY_MODEL_RELEASE_H

#include "core/hash.h"
#include <foray/status.h>
#include <stdbool.h>

enum {
  FORAY_KEY_BYTES = 32, /* Ed25519, public or private */
  FORAY_SIGNATURE_BYTES = 64,
  FORAY_RELEASE_MANIFEST_MAX = 1 << 16,
  FORAY_RELEASE_PAYLOAD_MAX = 1 << 30,
  FORAY_RELEASE_NAME = 64
};

struct foray_release_info {
  char name[FORAY_RELEASE_NAME];
  uint64_t sequence;                  /* rises with every version of a base model; an older one is a replay */
  char base_sha256[FORAY_SHA256_HEX]; /* of the base model's file */
  char parent[FORAY_SHA256_HEX];      /* id of the version that it was made from, or "" */
  const char *metrics;                /* JSON object as text, or NULL; borrowed */
};
struct foray_release {
  struct foray_release_info info; /* metrics owned by the release */
  char id[FORAY_SHA256_HEX], payload_sha256[FORAY_SHA256_HEX];
  uint8_t *file; /* owned: the whole file */
  size_t file_len;
  const uint8_t *payload;
  size_t payload_len;
  char *metrics;
};

/* A new key pair; both parts raw. */
enum foray_status foray_key_make(uint8_t private_key[FORAY_KEY_BYTES], uint8_t public_key[FORAY_KEY_BYTES],
                                 struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_key_public(const uint8_t private_key[FORAY_KEY_BYTES],
                                   uint8_t public_key[FORAY_KEY_BYTES],
                                   struct foray_err *err) FORAY_NODISCARD;
/* One line of hexadecimal in a file; private ones are created with mode 0600 and never replaced. */
enum foray_status foray_key_save(const char *path, const uint8_t key[FORAY_KEY_BYTES], bool secret,
                                 struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_key_load(const char *path, uint8_t key[FORAY_KEY_BYTES],
                                 struct foray_err *err) FORAY_NODISCARD;

/* Writes out_path (temporary file, sync, rename). id receives the version's name. */
enum foray_status foray_release_make(const struct foray_release_info *info, const void *payload,
                                     size_t payload_len, const uint8_t private_key[FORAY_KEY_BYTES],
                                     const char *out_path, char id[FORAY_SHA256_HEX],
                                     struct foray_err *err) FORAY_NODISCARD;
/* FORAY_E_FORMAT: not such a file, or truncated, or longer than it says. FORAY_E_MISMATCH: wrong signature,
 * damaged payload, or another base model (base_sha256 NULL: any). FORAY_E_STATE: sequence <= after (0: any),
 * a replay. */
enum foray_status foray_release_open(const char *path, const uint8_t public_key[FORAY_KEY_BYTES],
                                     const char *base_sha256, uint64_t after, struct foray_release **out,
                                     struct foray_err *err) FORAY_NODISCARD;
void foray_release_close(struct foray_release *r); /* NULL is allowed */

/* ---- a board's folder: <id>.frel files and `current`, one line "id sequence floor previous" ---- */
struct foray_shelf {
  char dir[3072];
  uint8_t public_key[FORAY_KEY_BYTES];
  char base_sha256[FORAY_SHA256_HEX];
  char current[FORAY_SHA256_HEX], previous[FORAY_SHA256_HEX]; /* "": the base model alone */
  uint64_t floor;                                             /* highest sequence that was ever installed */
};
/* Reads the folder (created if need be). Whatever a power cut left: the current version, if that is damaged
 * the previous one, else the base model alone. */
enum foray_status foray_shelf_open(const char *dir, const uint8_t public_key[FORAY_KEY_BYTES],
                                   const char *base_sha256, struct foray_shelf *out,
                                   struct foray_err *err) FORAY_NODISCARD;
/* Verifies, copies, and makes it the current one; the old current one becomes the previous. On any error
 * nothing has changed. */
enum foray_status foray_shelf_install(struct foray_shelf *s, const char *path,
                                      struct foray_err *err) FORAY_NODISCARD;
/* Back to the previous version (or the base model). The floor stays: what was rolled back cannot be installed
 * again. */
enum foray_status foray_shelf_rollback(struct foray_shelf *s, struct foray_err *err) FORAY_NODISCARD;
/* The current version, verified; NULL in *out when the base model runs alone. */
enum foray_status foray_shelf_current(const struct foray_shelf *s, struct foray_release **out,
                                      struct foray_err *err) FORAY_NODISCARD;

#endif
