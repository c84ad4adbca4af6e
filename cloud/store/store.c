#include "store/store.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/err.h"

struct foray_store {
  char dir[3072];
  uint8_t key[FORAY_KEY_BYTES], public_key[FORAY_KEY_BYTES];
  sqlite3 *db;
};

static const char SCHEMA[] =
    "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
    "CREATE TABLE IF NOT EXISTS version ("
    " id TEXT PRIMARY KEY, sequence INTEGER NOT NULL, name TEXT NOT NULL, base TEXT NOT NULL,"
    " parent TEXT NOT NULL, payload TEXT NOT NULL, bytes INTEGER NOT NULL, metrics TEXT NOT NULL,"
    " state INTEGER NOT NULL DEFAULT 0, UNIQUE (base, sequence));";

const char *foray_version_state_name(enum foray_version_state s) {
  return s == FORAY_VERSION_SERVED ? "served" : s == FORAY_VERSION_REVOKED ? "revoked" : "new";
}

static enum foray_status sql_error(const struct foray_store *s, struct foray_err *err) {
  return foray_err_set(err, FORAY_E_IO, "%s/versions.db: %s", s->dir, sqlite3_errmsg(s->db));
}

enum foray_status foray_store_open(const char *dir, const uint8_t private_key[FORAY_KEY_BYTES],
                                   struct foray_store **out, struct foray_err *err) {
  struct foray_store *s = calloc(1, sizeof *s);
  char path[4096];
  if (!s) return foray_err_set(err, FORAY_E_NOMEM, "store: out of memory");
  snprintf(s->dir, sizeof s->dir, "%s", dir);
  memcpy(s->key, private_key, FORAY_KEY_BYTES);
  enum foray_status st = foray_key_public(private_key, s->public_key, err);
  if (!st && strlen(dir) >= sizeof s->dir) st = foray_err_set(err, FORAY_E_ARG, "%s: path too long", dir);
  snprintf(path, sizeof path, "%s/files", dir);
  if (!st && ((mkdir(dir, 0777) && errno != EEXIST) || (mkdir(path, 0777) && errno != EEXIST)))
    st = foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(errno));
  snprintf(path, sizeof path, "%s/versions.db", dir);
  if (!st && (sqlite3_open(path, &s->db) || sqlite3_busy_timeout(s->db, 5000) ||
              sqlite3_exec(s->db, SCHEMA, NULL, NULL, NULL)))
    st = sql_error(s, err);
  if (st) {
    foray_store_close(s);
    return st;
  }
  *out = s;
  return FORAY_OK;
}
void foray_store_close(struct foray_store *s) {
  if (!s) return;
  sqlite3_close(s->db);
  free(s);
}

/* First column of the first row as text (owned copy in out); FORAY_E_NOTFOUND without a row. */
static enum foray_status query(struct foray_store *s, const char *sql, const char *const *arg, int n,
                               char *out, size_t cap, struct foray_err *err) {
  sqlite3_stmt *q = NULL;
  enum foray_status st = FORAY_OK;
  if (sqlite3_prepare_v2(s->db, sql, -1, &q, NULL)) return sql_error(s, err);
  for (int i = 0; i < n; i++) sqlite3_bind_text(q, i + 1, arg[i], -1, SQLITE_STATIC);
  int rc = sqlite3_step(q);
  if (rc == SQLITE_ROW) {
    const char *t = (const char *)sqlite3_column_text(q, 0);
    if (out) snprintf(out, cap, "%s", t ? t : "");
  } else {
    st = rc == SQLITE_DONE ? FORAY_E_NOTFOUND : sql_error(s, err);
  }
  sqlite3_finalize(q);
  return st;
}

/* Whole id of a beginning; refuses one that fits several. */
static enum foray_status whole_id(struct foray_store *s, const char *id, char out[FORAY_SHA256_HEX],
                                  struct foray_err *err) {
  char like[FORAY_SHA256_HEX + 2], count[24];
  size_t n = strlen(id);
  if (n < 4 || n > 64 || strspn(id, "0123456789abcdef") != n)
    return foray_err_set(err, FORAY_E_ARG, "'%s' is no id of a version (4 to 64 hexadecimal digits)", id);
  snprintf(like, sizeof like, "%s%%", id);
  const char *arg[1] = {like};
  enum foray_status st =
      query(s, "SELECT count(*) FROM version WHERE id LIKE ?", arg, 1, count, sizeof count, err);
  if (!st && strcmp(count, "1"))
    st = foray_err_set(err, FORAY_E_NOTFOUND, "version %s: %s fit", id, strcmp(count, "0") ? count : "none");
  return st ? st : query(s, "SELECT id FROM version WHERE id LIKE ?", arg, 1, out, FORAY_SHA256_HEX, err);
}

enum foray_status foray_store_path(struct foray_store *s, const char *id, char *path, size_t cap,
                                   struct foray_err *err) {
  char whole[FORAY_SHA256_HEX];
  enum foray_status st = whole_id(s, id, whole, err);
  if (!st && (size_t)snprintf(path, cap, "%s/files/%s.frel", s->dir, whole) >= cap)
    st = foray_err_set(err, FORAY_E_LIMIT, "%s: path too long", s->dir);
  return st;
}

static enum foray_status insert(struct foray_store *s, const struct foray_release_info *i, const char *id,
                                const char *payload_sha, size_t n, struct foray_err *err) {
  sqlite3_stmt *q = NULL;
  if (sqlite3_prepare_v2(s->db,
                         "INSERT INTO version (id, sequence, name, base, parent, payload, bytes, metrics) "
                         "VALUES (?,?,?,?,?,?,?,?)",
                         -1, &q, NULL))
    return sql_error(s, err);
  sqlite3_bind_text(q, 1, id, -1, SQLITE_STATIC);
  sqlite3_bind_int64(q, 2, (sqlite3_int64)i->sequence);
  sqlite3_bind_text(q, 3, i->name, -1, SQLITE_STATIC);
  sqlite3_bind_text(q, 4, i->base_sha256, -1, SQLITE_STATIC);
  sqlite3_bind_text(q, 5, i->parent, -1, SQLITE_STATIC);
  sqlite3_bind_text(q, 6, payload_sha, -1, SQLITE_STATIC);
  sqlite3_bind_int64(q, 7, (sqlite3_int64)n);
  sqlite3_bind_text(q, 8, i->metrics ? i->metrics : "{}", -1, SQLITE_STATIC);
  int rc = sqlite3_step(q);
  enum foray_status st = rc == SQLITE_DONE ? FORAY_OK : sql_error(s, err);
  sqlite3_finalize(q);
  return st;
}

static enum foray_status add_locked(struct foray_store *s, struct foray_release_info *i, const void *payload,
                                    size_t n, const char *payload_sha, char id[FORAY_SHA256_HEX],
                                    struct foray_err *err) {
  char path[4096], final[4096], text[32], parent[FORAY_SHA256_HEX] = "";
  enum foray_status st = FORAY_OK;
  if (*i->parent) {
    st = whole_id(s, i->parent, parent, err);
    if (st) return st;
    memcpy(i->parent, parent, sizeof parent);
  }
  const char *same[3] = {i->base_sha256, i->parent, payload_sha};
  st = query(s, "SELECT id FROM version WHERE base=? AND parent=? AND payload=?", same, 3, id,
             FORAY_SHA256_HEX, err);
  if (st != FORAY_E_NOTFOUND) return st;
  st = query(s, "SELECT coalesce(max(sequence), 0) + 1 FROM version WHERE base=?", same, 1, text, sizeof text,
             err);
  if (st) return st;
  i->sequence = strtoull(text, NULL, 10);
  snprintf(path, sizeof path, "%s/files/new.frel", s->dir);
  st = foray_release_make(i, payload, n, s->key, path, id, err);
  snprintf(final, sizeof final, "%s/files/%s.frel", s->dir, id);
  if (!st && rename(path, final)) st = foray_err_set(err, FORAY_E_IO, "%s: %s", final, strerror(errno));
  return st ? st : insert(s, i, id, payload_sha, n, err);
}

enum foray_status foray_store_add(struct foray_store *s, const struct foray_release_info *info,
                                  const void *payload, size_t n, char id[FORAY_SHA256_HEX],
                                  struct foray_err *err) {
  struct foray_release_info i = *info;
  uint8_t digest[FORAY_SHA256_BYTES];
  char hex[FORAY_SHA256_HEX];
  foray_sha256_once(payload, n, digest);
  foray_sha256_hex(digest, hex);
  if (sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL)) return sql_error(s, err);
  enum foray_status st = add_locked(s, &i, payload, n, hex, id, err);
  if (sqlite3_exec(s->db, st ? "ROLLBACK" : "COMMIT", NULL, NULL, NULL) && !st) st = sql_error(s, err);
  return st;
}

enum foray_status foray_store_set_state(struct foray_store *s, const char *id, enum foray_version_state state,
                                        struct foray_err *err) {
  char whole[FORAY_SHA256_HEX], number[8];
  enum foray_status st = whole_id(s, id, whole, err);
  if (st) return st;
  snprintf(number, sizeof number, "%d", (int)state);
  const char *arg[2] = {whole, number};
  if (sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL)) return sql_error(s, err);
  if (state == FORAY_VERSION_SERVED) {
    st = query(s, "UPDATE version SET state=0 WHERE state=1 AND base=(SELECT base FROM version WHERE id=?)",
               arg, 1, NULL, 0, err);
    if (st == FORAY_E_NOTFOUND) st = FORAY_OK; /* an update gives no row */
  }
  if (!st) st = query(s, "UPDATE version SET state=CAST(?2 AS INTEGER) WHERE id=?1", arg, 2, NULL, 0, err);
  if (st == FORAY_E_NOTFOUND) st = FORAY_OK;
  if (sqlite3_exec(s->db, st ? "ROLLBACK" : "COMMIT", NULL, NULL, NULL) && !st) st = sql_error(s, err);
  return st;
}

enum foray_status foray_store_each(struct foray_store *s, const char *base_sha256, foray_version_fn *fn,
                                   void *arg, struct foray_err *err) {
  sqlite3_stmt *q = NULL;
  int rc;
  if (sqlite3_prepare_v2(s->db,
                         "SELECT id, sequence, name, base, parent, bytes, metrics, state FROM version"
                         " WHERE ?1 IS NULL OR base=?1 ORDER BY base, sequence DESC",
                         -1, &q, NULL))
    return sql_error(s, err);
  if (base_sha256) sqlite3_bind_text(q, 1, base_sha256, -1, SQLITE_STATIC);
  while ((rc = sqlite3_step(q)) == SQLITE_ROW) {
    struct foray_version v = {.sequence = (uint64_t)sqlite3_column_int64(q, 1),
                              .bytes = (uint64_t)sqlite3_column_int64(q, 5),
                              .metrics = (const char *)sqlite3_column_text(q, 6),
                              .state = (enum foray_version_state)sqlite3_column_int(q, 7)};
    snprintf(v.id, sizeof v.id, "%s", (const char *)sqlite3_column_text(q, 0));
    snprintf(v.name, sizeof v.name, "%s", (const char *)sqlite3_column_text(q, 2));
    snprintf(v.base_sha256, sizeof v.base_sha256, "%s", (const char *)sqlite3_column_text(q, 3));
    snprintf(v.parent, sizeof v.parent, "%s", (const char *)sqlite3_column_text(q, 4));
    fn(arg, &v);
  }
  enum foray_status st = rc == SQLITE_DONE ? FORAY_OK : sql_error(s, err);
  sqlite3_finalize(q);
  return st;
}
