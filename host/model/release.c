#include "model/release.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/err.h"

static const char MAGIC[8] = "FRYREL1\n";
enum { HEADER = 24 };

/* ---- keys ---- */
static enum foray_status crypto(struct foray_err *err, const char *what) {
  return foray_err_set(err, FORAY_E_STATE, "Ed25519: %s failed", what);
}

enum foray_status foray_key_public(const uint8_t private_key[FORAY_KEY_BYTES],
                                   uint8_t public_key[FORAY_KEY_BYTES], struct foray_err *err) {
  size_t n = FORAY_KEY_BYTES;
  EVP_PKEY *k = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, private_key, FORAY_KEY_BYTES);
  int ok = k && EVP_PKEY_get_raw_public_key(k, public_key, &n) == 1;
  EVP_PKEY_free(k);
  return ok ? FORAY_OK : crypto(err, "public key");
}
enum foray_status foray_key_make(uint8_t private_key[FORAY_KEY_BYTES], uint8_t public_key[FORAY_KEY_BYTES],
                                 struct foray_err *err) {
  EVP_PKEY *k = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
  size_t n = FORAY_KEY_BYTES, m = FORAY_KEY_BYTES;
  int ok = k && EVP_PKEY_get_raw_private_key(k, private_key, &n) == 1 &&
           EVP_PKEY_get_raw_public_key(k, public_key, &m) == 1;
  EVP_PKEY_free(k);
  return ok ? FORAY_OK : crypto(err, "key generation");
}
enum foray_status foray_key_save(const char *path, const uint8_t key[FORAY_KEY_BYTES], bool secret,
                                 struct foray_err *err) {
  char hex[FORAY_SHA256_HEX];
  foray_sha256_hex(key, hex); /* 32 bytes to text */
  int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (secret ? O_EXCL : O_TRUNC), secret ? 0600 : 0644);
  if (fd < 0) return foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(errno));
  bool ok = dprintf(fd, "%s\n", hex) == FORAY_SHA256_HEX;
  ok = close(fd) == 0 && ok;
  return ok ? FORAY_OK : foray_err_set(err, FORAY_E_IO, "%s: cannot be written", path);
}
enum foray_status foray_key_load(const char *path, uint8_t key[FORAY_KEY_BYTES], struct foray_err *err) {
  char text[FORAY_SHA256_HEX + 1] = "";
  FILE *f = fopen(path, "re");
  if (!f)
    return foray_err_set(err, errno == ENOENT ? FORAY_E_NOTFOUND : FORAY_E_IO, "%s: %s", path,
                         strerror(errno));
  bool ok = fgets(text, sizeof text, f) && strspn(text, "0123456789abcdef") == 64;
  fclose(f);
  for (int i = 0; ok && i < FORAY_KEY_BYTES; i++) {
    char two[3] = {text[2 * i], text[2 * i + 1], 0};
    key[i] = (uint8_t)strtoul(two, NULL, 16);
  }
  return ok ? FORAY_OK
            : foray_err_set(err, FORAY_E_FORMAT, "%s: a key is one line of 64 hexadecimal digits", path);
}

/* ---- files ---- */
struct piece {
  const void *p;
  size_t n;
};
static enum foray_status sync_folder(const char *path, struct foray_err *err) {
  char dir[4096];
  snprintf(dir, sizeof dir, "%s", path);
  char *slash = strrchr(dir, '/');
  if (slash)
    *slash = 0;
  else
    snprintf(dir, sizeof dir, ".");
  int fd = open(*dir ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  bool ok = fd >= 0 && fsync(fd) == 0;
  if (fd >= 0) close(fd);
  return ok ? FORAY_OK : foray_err_set(err, FORAY_E_IO, "%s: %s", dir, strerror(errno));
}
/* Temporary file, sync, rename, sync: after a power cut there is the old content or the new. */
static enum foray_status replace_file(const char *path, const struct piece *part, int parts,
                                      struct foray_err *err) {
  char tmp[4096];
  snprintf(tmp, sizeof tmp, "%s.tmp", path);
  FILE *f = fopen(tmp, "wbe");
  bool ok = f != NULL;
  for (int i = 0; ok && i < parts; i++) ok = fwrite(part[i].p, 1, part[i].n, f) == part[i].n;
  ok = ok && fflush(f) == 0 && fsync(fileno(f)) == 0;
  if (f) ok = fclose(f) == 0 && ok;
  if (!ok || rename(tmp, path)) {
    int e = errno;
    unlink(tmp);
    return foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(e));
  }
  return sync_folder(path, err);
}

static enum foray_status read_file(const char *path, size_t max, uint8_t **out, size_t *len,
                                   struct foray_err *err) {
  struct stat info;
  FILE *f = fopen(path, "rbe");
  if (!f || fstat(fileno(f), &info)) {
    int e = errno;
    if (f) fclose(f);
    return foray_err_set(err, e == ENOENT ? FORAY_E_NOTFOUND : FORAY_E_IO, "%s: %s", path, strerror(e));
  }
  enum foray_status st = FORAY_OK;
  *len = (size_t)info.st_size;
  *out = NULL;
  if (*len > max)
    st = foray_err_set(err, FORAY_E_LIMIT, "%s: %zu bytes, %zu at most", path, *len, max);
  else if (!(*out = malloc(*len + 1)))
    st = foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", path);
  else if (fread(*out, 1, *len, f) != *len)
    st = foray_err_set(err, FORAY_E_IO, "%s: read error", path);
  fclose(f);
  if (st) {
    free(*out);
    *out = NULL;
  }
  return st;
}

/* ---- releases ---- */
static void put32(uint8_t *p, uint32_t v) {
  for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> 8 * i);
}
static void put64(uint8_t *p, uint64_t v) { put32(p, (uint32_t)v), put32(p + 4, (uint32_t)(v >> 32)); }
static uint32_t get32(const uint8_t *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static uint64_t get64(const uint8_t *p) { return get32(p) | (uint64_t)get32(p + 4) << 32; }

enum foray_status foray_release_make(const struct foray_release_info *info, const void *payload,
                                     size_t payload_len, const uint8_t private_key[FORAY_KEY_BYTES],
                                     const char *out_path, char id[FORAY_SHA256_HEX], struct foray_err *err) {
  uint8_t digest[FORAY_SHA256_BYTES], signature[FORAY_SIGNATURE_BYTES], *head = NULL;
  char hex[FORAY_SHA256_HEX];
  size_t sig_len = sizeof signature;
  json_error_t je;
  json_t *metrics = info->metrics ? json_loads(info->metrics, 0, &je) : json_object();
  if (!json_is_object(metrics) || payload_len > FORAY_RELEASE_PAYLOAD_MAX) {
    json_decref(metrics);
    return foray_err_set(err, FORAY_E_ARG,
                         "version '%s': metrics are no JSON object, or the adapter is too large", info->name);
  }
  foray_sha256_once(payload, payload_len, digest);
  foray_sha256_hex(digest, hex);
  json_t *m = json_pack("{s:i, s:s, s:I, s:s, s:s, s:s, s:I, s:o}", "format", 1, "name", info->name,
                        "sequence", (json_int_t)info->sequence, "base", info->base_sha256, "parent",
                        info->parent, "payload", hex, "bytes", (json_int_t)payload_len, "metrics", metrics);
  char *text = m ? json_dumps(m, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
  size_t n = text ? strlen(text) : 0;
  json_decref(m);
  enum foray_status st =
      text && n <= FORAY_RELEASE_MANIFEST_MAX && (head = malloc(HEADER + n))
          ? FORAY_OK
          : foray_err_set(err, FORAY_E_LIMIT, "version '%s': manifest too long", info->name);
  if (!st) {
    memcpy(head, MAGIC, 8);
    put32(head + 8, (uint32_t)n), put32(head + 12, 0), put64(head + 16, payload_len);
    memcpy(head + HEADER, text, n);
    EVP_PKEY *k = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, private_key, FORAY_KEY_BYTES);
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    if (!k || !c || EVP_DigestSignInit(c, NULL, NULL, NULL, k) != 1 ||
        EVP_DigestSign(c, signature, &sig_len, head, HEADER + n) != 1 || sig_len != sizeof signature)
      st = crypto(err, "signing");
    EVP_MD_CTX_free(c);
    EVP_PKEY_free(k);
  }
  if (!st) {
    struct piece part[3] = {{head, HEADER + n}, {signature, sizeof signature}, {payload, payload_len}};
    foray_sha256_once(head, HEADER + n, digest);
    foray_sha256_hex(digest, id);
    st = replace_file(out_path, part, 3, err);
  }
  free(text), free(head);
  return st;
}

void foray_release_close(struct foray_release *r) {
  if (!r) return;
  free(r->file), free(r->metrics);
  free(r);
}

static bool take(json_t *m, const char *key, char *out, size_t cap) {
  const char *s = json_string_value(json_object_get(m, key));
  return s && (size_t)snprintf(out, cap, "%s", s) < cap;
}

static enum foray_status check(struct foray_release *r, const char *path, const uint8_t *public_key,
                               const char *base_sha256, uint64_t after, struct foray_err *err) {
  uint8_t digest[FORAY_SHA256_BYTES];
  char hex[FORAY_SHA256_HEX];
  if (r->file_len < HEADER + FORAY_SIGNATURE_BYTES || memcmp(r->file, MAGIC, 8) || get32(r->file + 12))
    return foray_err_set(err, FORAY_E_FORMAT, "%s: not a version of an adapter, or truncated", path);
  size_t n = get32(r->file + 8);
  uint64_t bytes = get64(r->file + 16);
  if (n > FORAY_RELEASE_MANIFEST_MAX || bytes > FORAY_RELEASE_PAYLOAD_MAX ||
      r->file_len != HEADER + n + FORAY_SIGNATURE_BYTES + bytes)
    return foray_err_set(err, FORAY_E_FORMAT, "%s: %zu bytes are not what its header says: truncated", path,
                         r->file_len);
  EVP_PKEY *k = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public_key, FORAY_KEY_BYTES);
  EVP_MD_CTX *c = EVP_MD_CTX_new();
  int good = k && c && EVP_DigestVerifyInit(c, NULL, NULL, NULL, k) == 1 &&
             EVP_DigestVerify(c, r->file + HEADER + n, FORAY_SIGNATURE_BYTES, r->file, HEADER + n) == 1;
  EVP_MD_CTX_free(c);
  EVP_PKEY_free(k);
  if (!good)
    return foray_err_set(err, FORAY_E_MISMATCH, "%s: the signature is not by the key that this board trusts",
                         path);
  r->payload = r->file + HEADER + n + FORAY_SIGNATURE_BYTES;
  r->payload_len = (size_t)bytes;
  foray_sha256_once(r->file, HEADER + n, digest);
  foray_sha256_hex(digest, r->id);
  json_t *m = json_loadb((const char *)r->file + HEADER, n, JSON_REJECT_DUPLICATES, NULL);
  json_int_t sequence = json_integer_value(json_object_get(m, "sequence"));
  bool ok = json_integer_value(json_object_get(m, "format")) == 1 && sequence > 0 &&
            take(m, "name", r->info.name, sizeof r->info.name) &&
            take(m, "base", r->info.base_sha256, sizeof r->info.base_sha256) &&
            take(m, "parent", r->info.parent, sizeof r->info.parent) &&
            take(m, "payload", r->payload_sha256, sizeof r->payload_sha256);
  r->info.sequence = (uint64_t)sequence;
  r->metrics = json_dumps(json_object_get(m, "metrics"), JSON_COMPACT | JSON_SORT_KEYS);
  r->info.metrics = r->metrics;
  json_decref(m);
  if (!ok) return foray_err_set(err, FORAY_E_FORMAT, "%s: its manifest lacks something", path);
  foray_sha256_once(r->payload, r->payload_len, digest);
  foray_sha256_hex(digest, hex);
  if (strcmp(hex, r->payload_sha256))
    return foray_err_set(err, FORAY_E_MISMATCH, "%s: the adapter in it is damaged", path);
  if (base_sha256 && strcmp(base_sha256, r->info.base_sha256))
    return foray_err_set(err, FORAY_E_MISMATCH, "%s: made for base model %.12s..., this board runs %.12s...",
                         path, r->info.base_sha256, base_sha256);
  if (after && r->info.sequence <= after)
    return foray_err_set(err, FORAY_E_STATE,
                         "%s: version %" PRIu64 " is not newer than %" PRIu64 ", which was here already",
                         path, r->info.sequence, after);
  return FORAY_OK;
}

enum foray_status foray_release_open(const char *path, const uint8_t public_key[FORAY_KEY_BYTES],
                                     const char *base_sha256, uint64_t after, struct foray_release **out,
                                     struct foray_err *err) {
  struct foray_release *r = calloc(1, sizeof *r);
  if (!r) return foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", path);
  enum foray_status st =
      read_file(path, (size_t)FORAY_RELEASE_PAYLOAD_MAX + (2u << 16), &r->file, &r->file_len, err);
  if (!st) st = check(r, path, public_key, base_sha256, after, err);
  if (st) {
    foray_release_close(r);
    return st;
  }
  *out = r;
  return FORAY_OK;
}

/* ---- a board's folder ---- */
static void version_path(const struct foray_shelf *s, const char *id, char out[4096]) {
  snprintf(out, 4096, "%s/%s.frel", s->dir, id);
}
static bool good(const struct foray_shelf *s, const char *id) {
  struct foray_release *r = NULL;
  char path[4096];
  if (strspn(id, "0123456789abcdef") != 64) return false;
  version_path(s, id, path);
  if (foray_release_open(path, s->public_key, s->base_sha256, 0, &r, NULL)) return false;
  bool same = !strcmp(r->id, id);
  foray_release_close(r);
  return same;
}

/* Without a readable pointer: the newest complete version, so that nothing older can be replayed either. */
static void newest(struct foray_shelf *s) {
  DIR *d = opendir(s->dir);
  for (struct dirent *e; d && (e = readdir(d));) {
    struct foray_release *r = NULL;
    char path[4096], id[FORAY_SHA256_HEX];
    if (strlen(e->d_name) != 69 || strcmp(e->d_name + 64, ".frel")) continue;
    snprintf(id, sizeof id, "%.64s", e->d_name);
    version_path(s, id, path);
    if (!good(s, id) || foray_release_open(path, s->public_key, s->base_sha256, s->floor, &r, NULL)) continue;
    s->floor = r->info.sequence;
    memcpy(s->current, id, sizeof id);
    foray_release_close(r);
  }
  if (d) closedir(d);
}

static enum foray_status write_current(const struct foray_shelf *s, struct foray_err *err) {
  char path[4096], line[256];
  snprintf(path, sizeof path, "%s/current", s->dir);
  int n = snprintf(line, sizeof line, "%s %s %" PRIu64 "\n", *s->current ? s->current : "-",
                   *s->previous ? s->previous : "-", s->floor);
  struct piece part = {line, (size_t)n};
  return replace_file(path, &part, 1, err);
}

enum foray_status foray_shelf_open(const char *dir, const uint8_t public_key[FORAY_KEY_BYTES],
                                   const char *base_sha256, struct foray_shelf *out, struct foray_err *err) {
  char path[4096], current[FORAY_SHA256_HEX] = "", previous[FORAY_SHA256_HEX] = "";
  uint8_t *text = NULL;
  size_t n = 0;
  *out = (struct foray_shelf){.floor = 0};
  if (strlen(dir) >= sizeof out->dir) return foray_err_set(err, FORAY_E_ARG, "%s: path too long", dir);
  snprintf(out->dir, sizeof out->dir, "%s", dir);
  snprintf(out->base_sha256, sizeof out->base_sha256, "%s", base_sha256);
  memcpy(out->public_key, public_key, FORAY_KEY_BYTES);
  if (mkdir(dir, 0777) && errno != EEXIST)
    return foray_err_set(err, FORAY_E_IO, "%s: %s", dir, strerror(errno));
  snprintf(path, sizeof path, "%s/current", dir);
  enum foray_status st = read_file(path, 4096, &text, &n, err);
  if (st == FORAY_E_NOTFOUND) return FORAY_OK;
  if (st) return st;
  text[n] = 0;
  unsigned long long top = 0;
  if (sscanf((const char *)text, "%64s %64s %llu", current, previous, &top) == 3) {
    out->floor = top;
    if (good(out, current)) snprintf(out->current, sizeof out->current, "%s", current);
    if (good(out, previous)) snprintf(out->previous, sizeof out->previous, "%s", previous);
    if (!*out->current && strcmp(current, "-")) { /* damaged: the one before it */
      memcpy(out->current, out->previous, sizeof out->current);
      *out->previous = 0;
    }
  } else {
    newest(out);
  }
  free(text);
  return FORAY_OK;
}

enum foray_status foray_shelf_install(struct foray_shelf *s, const char *path, struct foray_err *err) {
  struct foray_release *r = NULL;
  char to[4096];
  enum foray_status st = foray_release_open(path, s->public_key, s->base_sha256, s->floor, &r, err);
  if (st) return st;
  version_path(s, r->id, to);
  struct piece whole = {r->file, r->file_len};
  struct foray_shelf next = *s;
  st = replace_file(to, &whole, 1, err);
  if (!st) {
    memcpy(next.previous, s->current, sizeof next.previous);
    memcpy(next.current, r->id, sizeof next.current);
    next.floor = r->info.sequence;
    st = write_current(&next, err);
  }
  if (!st) *s = next;
  foray_release_close(r);
  return st;
}

enum foray_status foray_shelf_rollback(struct foray_shelf *s, struct foray_err *err) {
  struct foray_shelf next = *s;
  if (!*s->current)
    return foray_err_set(err, FORAY_E_STATE, "%s: the base model runs alone; there is nothing to take back",
                         s->dir);
  memcpy(next.current, s->previous, sizeof next.current);
  *next.previous = 0;
  enum foray_status st = write_current(&next, err);
  if (!st) *s = next;
  return st;
}

enum foray_status foray_shelf_current(const struct foray_shelf *s, struct foray_release **out,
                                      struct foray_err *err) {
  char path[4096];
  *out = NULL;
  if (!*s->current) return FORAY_OK;
  version_path(s, s->current, path);
  return foray_release_open(path, s->public_key, s->base_sha256, 0, out, err);
}
