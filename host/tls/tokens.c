#include "tls/tokens.h"

#include "core/buf.h"
#include "core/err.h"
#include "core/hash.h"
#include "tls/pki.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

struct foray_tokens {
  char *path;
  struct foray_token *v;
  uint32_t n;
  struct timespec changed;
  ino_t inode;
  off_t size;
};

static const struct {
  const char *name;
  unsigned bit;
} scopes[] = {{"edge", FORAY_SCOPE_EDGE},
              {"api", FORAY_SCOPE_API},
              {"metrics", FORAY_SCOPE_METRICS},
              {"enroll", FORAY_SCOPE_ENROLL}};
enum { SCOPES = sizeof scopes / sizeof *scopes };

bool foray_scopes_parse(const char *text, unsigned *out) {
  *out = 0;
  for (const char *p = text; *p;) {
    size_t n = strcspn(p, ","), k = 0;
    while (k < SCOPES && (strlen(scopes[k].name) != n || strncmp(scopes[k].name, p, n) != 0)) k++;
    if (k == SCOPES) return false;
    *out |= scopes[k].bit;
    p += n + (p[n] == ',');
  }
  return *out != 0;
}
static void scopes_text(unsigned bits, char *out, size_t cap) {
  size_t n = 0;
  out[0] = 0;
  for (size_t k = 0; k < SCOPES; k++)
    if (bits & scopes[k].bit) n += (size_t)snprintf(out + n, cap - n, "%s%s", n ? "," : "", scopes[k].name);
}

static int digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

static bool parse(const char *line, struct foray_token *t) {
  char hash[65], words[64];
  long long expiry;
  int end = 0;
  *t = (struct foray_token){0};
  if (sscanf(line, "%63s %64s %63s %lld %lf %u %n", t->name, hash, words, &expiry, &t->weight, &t->priority,
             &end) != 6 ||
      (line[end] && line[end] != '#') || strlen(hash) != 64 || expiry < 0 ||
      !(t->weight > 0 && t->weight <= 1e6) || t->priority > 9 || !foray_scopes_parse(words, &t->scopes) ||
      !foray_pki_name_ok(t->name))
    return false;
  for (int i = 0; i < 32; i++) {
    int hi = digit(hash[2 * i]), lo = digit(hash[2 * i + 1]);
    if (hi < 0 || lo < 0) return false;
    t->hash[i] = (uint8_t)(hi * 16 + lo);
  }
  t->expiry = expiry;
  return true;
}

static enum foray_status read_file(struct foray_tokens *t, struct foray_err *err) {
  FILE *f = fopen(t->path, "r");
  struct foray_token *v = NULL;
  uint32_t n = 0, cap = 0, number = 0;
  enum foray_status st = FORAY_OK;
  if (!f && errno != ENOENT) return foray_err_set(err, FORAY_E_IO, "%s: %s", t->path, strerror(errno));
  char line[512];
  while (f && !st && fgets(line, sizeof line, f)) {
    number++;
    const char *p = line + strspn(line, " \t\r\n");
    if (!*p || *p == '#') continue;
    if (n == cap) {
      cap = cap ? 2 * cap : 16;
      struct foray_token *more = cap <= 2 * FORAY_TOKENS_MAX ? realloc(v, cap * sizeof *v) : NULL;
      if (!more) {
        st = foray_err_set(err, FORAY_E_LIMIT, "%s: more than %d tokens", t->path, FORAY_TOKENS_MAX);
        break;
      }
      v = more;
    }
    if (!parse(p, &v[n++]))
      st = foray_err_set(
          err, FORAY_E_FORMAT,
          "%s, line %u: write NAME SHA256HEX SCOPES EXPIRY WEIGHT PRIORITY (forayd token add does)", t->path,
          number);
  }
  if (f) fclose(f);
  if (st) {
    free(v);
    return st;
  }
  free(t->v);
  t->v = v;
  t->n = n;
  return FORAY_OK;
}

/* Reads the file again when it is another one; what cannot be read lets nobody in. */
static void look(struct foray_tokens *t) {
  struct stat st = {0};
  (void)stat(t->path, &st);
  if (st.st_mtim.tv_sec == t->changed.tv_sec && st.st_mtim.tv_nsec == t->changed.tv_nsec &&
      st.st_ino == t->inode && st.st_size == t->size)
    return;
  t->changed = st.st_mtim;
  t->inode = st.st_ino;
  t->size = st.st_size;
  if (read_file(t, NULL) != FORAY_OK) t->n = 0;
}

enum foray_status foray_tokens_open(const char *path, struct foray_tokens **out, struct foray_err *err) {
  struct foray_tokens *t = *out = calloc(1, sizeof *t);
  if (t) t->path = strdup(path);
  enum foray_status st = t && t->path ? read_file(t, err) : foray_err_set(err, FORAY_E_NOMEM, "tokens");
  if (st) {
    foray_tokens_close(t);
    *out = NULL;
  }
  return st;
}
void foray_tokens_close(struct foray_tokens *t) {
  if (!t) return;
  free(t->path);
  free(t->v);
  free(t);
}
uint32_t foray_tokens_count(struct foray_tokens *t) {
  look(t);
  return t->n;
}
const struct foray_token *foray_tokens_at(struct foray_tokens *t, uint32_t i) { return &t->v[i]; }

const struct foray_token *foray_tokens_find(struct foray_tokens *t, const char *secret, unsigned want,
                                            int64_t now) {
  uint8_t hash[FORAY_SHA256_BYTES];
  const size_t n = strnlen(secret, 256);
  look(t);
  if (n == 0 || n == 256) return NULL;
  foray_sha256_once(secret, n, hash);
  const struct foray_token *found = NULL;
  for (uint32_t i = 0; i < t->n; i++)
    if (CRYPTO_memcmp(t->v[i].hash, hash, sizeof hash) == 0) found = &t->v[i];
  return found && (found->scopes & want) == want && (!found->expiry || now < found->expiry) ? found : NULL;
}

/* ---------------------------------------------------------------- changing the file */

/* The whole file under a lock; fn gets its text and makes the new one. */
static enum foray_status change(const char *path, struct foray_buf *text, int *lock, struct foray_err *err) {
  char name[4096];
  int k = snprintf(name, sizeof name, "%s.lock", path);
  if (k < 0 || (size_t)k >= sizeof name)
    return foray_err_set(err, FORAY_E_LIMIT, "%s: the path is too long", path);
  *lock = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (*lock < 0 || flock(*lock, LOCK_EX) != 0)
    return foray_err_set(err, FORAY_E_IO, "%s: %s", name, strerror(errno));
  FILE *f = fopen(path, "r");
  char b[4096];
  size_t n;
  enum foray_status st = FORAY_OK;
  while (f && !st && (n = fread(b, 1, sizeof b, f)) > 0) st = foray_buf_add(text, b, n);
  if (f) fclose(f);
  return st ? foray_err_set(err, st, "%s is too large", path) : FORAY_OK;
}
/* Where the line of this name begins; NULL: there is none. */
static char *line_of(struct foray_buf *text, const char *name) {
  size_t n = strlen(name);
  for (char *p = text->len ? (char *)text->data : NULL; p && *p;) {
    if (!strncmp(p, name, n) && (p[n] == ' ' || p[n] == '\t')) return p;
    p = strchr(p, '\n');
    if (p) p++;
  }
  return NULL;
}

enum foray_status foray_tokens_add(const char *path, const struct foray_token *what,
                                   char secret[FORAY_TOKEN_BYTES], struct foray_err *err) {
  static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  uint8_t random[43], hash[FORAY_SHA256_BYTES];
  char hex[65], words[64];
  if (!foray_pki_name_ok(what->name))
    return foray_err_set(err, FORAY_E_ARG, "'%s' is no name for a token: letters, digits, '.', '_', '-'",
                         what->name);
  if (getrandom(random, sizeof random, 0) != sizeof random)
    return foray_err_set(err, FORAY_E_IO, "the system gives no random bytes");
  memcpy(secret, "fry_", 4);
  for (size_t i = 0; i < sizeof random; i++) secret[4 + i] = letters[random[i] & 63];
  secret[4 + sizeof random] = 0;
  foray_sha256_once(secret, strlen(secret), hash);
  foray_sha256_hex(hash, hex);
  scopes_text(what->scopes, words, sizeof words);
  struct foray_buf text;
  foray_buf_init(&text, 64 << 20);
  int lock = -1;
  enum foray_status st = change(path, &text, &lock, err);
  if (!st && line_of(&text, what->name))
    st = foray_err_set(err, FORAY_E_STATE, "there is a token '%s' already: revoke it first", what->name);
  if (!st && foray_buf_addf(&text, "%s %s %s %lld %g %u\n", what->name, hex, words, (long long)what->expiry,
                            what->weight > 0 ? what->weight : 1, what->priority))
    st = foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  if (!st) st = foray_pki_write(path, text.data, text.len, 0600, true, err);
  if (lock >= 0) close(lock);
  foray_buf_deinit(&text);
  return st;
}

enum foray_status foray_tokens_revoke(const char *path, const char *name, struct foray_err *err) {
  struct foray_buf text;
  foray_buf_init(&text, 64 << 20);
  int lock = -1;
  enum foray_status st = change(path, &text, &lock, err);
  char *p = st ? NULL : line_of(&text, name);
  if (!st && !p) st = foray_err_set(err, FORAY_E_NOTFOUND, "there is no token '%s'", name);
  if (!st) {
    char *end = strchr(p, '\n');
    size_t n = end ? (size_t)(end + 1 - p) : strlen(p), at = (size_t)(p - (char *)text.data);
    memmove(p, p + n, text.len - at - n);
    text.len -= n;
    st = foray_pki_write(path, text.data, text.len, 0600, true, err);
  }
  if (lock >= 0) close(lock);
  foray_buf_deinit(&text);
  return st;
}
