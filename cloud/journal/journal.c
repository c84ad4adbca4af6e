#include "journal/journal.h"

#include "core/err.h"
#include "journal/pack.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum op_kind { OP_BEGIN, OP_TOKENS, OP_END };

struct op {
  struct op *next;
  enum op_kind kind;
  uint64_t id, tenant;
  double weight;
  uint32_t priority, first, n; /* n: ids, or bytes of a packed request */
  uint8_t hash[FORAY_SHA256_BYTES];
  size_t bytes;
  uint8_t data[]; /* ids (int32, as they lie in memory), or the request */
};

struct foray_journal {
  sqlite3 *db;
  sqlite3_stmt *begin, *tokens, *end, *end_tokens;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  pthread_t writer;
  bool running, stop;
  struct op *first, **last;
  size_t pending;
  struct foray_err failed;
};

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS sessions(id INTEGER PRIMARY KEY, secret BLOB NOT NULL, tenant INTEGER NOT "
    "NULL,"
    " weight REAL NOT NULL, priority INTEGER NOT NULL, request BLOB NOT NULL) STRICT;"
    "CREATE TABLE IF NOT EXISTS tokens(session INTEGER NOT NULL, first INTEGER NOT NULL, ids BLOB NOT NULL,"
    " PRIMARY KEY(session, first)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS model(one INTEGER PRIMARY KEY CHECK(one = 1), sha256 BLOB NOT NULL) STRICT;";

static enum foray_status sql_error(struct foray_journal *j, const char *what, struct foray_err *err) {
  const int c = j->db ? sqlite3_errcode(j->db) : SQLITE_NOMEM;
  const enum foray_status st = c == SQLITE_BUSY || c == SQLITE_LOCKED      ? FORAY_E_BUSY
                               : c == SQLITE_CORRUPT || c == SQLITE_NOTADB ? FORAY_E_FORMAT
                               : c == SQLITE_NOMEM                         ? FORAY_E_NOMEM
                                                                           : FORAY_E_IO;
  return foray_err_set(err, st, "commit log, %s: %s", what, j->db ? sqlite3_errmsg(j->db) : "out of memory");
}

static bool prepare(struct foray_journal *j, const char *sql, sqlite3_stmt **out) {
  return sqlite3_prepare_v3(j->db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL) == SQLITE_OK;
}

enum foray_status foray_journal_open(const char *path, struct foray_journal **out, struct foray_err *err) {
  *out = NULL;
  struct foray_journal *j = calloc(1, sizeof *j);
  if (!j) return foray_err_set(err, FORAY_E_NOMEM, "commit log");
  pthread_mutex_init(&j->lock, NULL);
  pthread_cond_init(&j->wake, NULL);
  j->last = &j->first;
  const mode_t before = umask(077);
  /* Exclusive: nobody else writes it, and the index of the log needs no shared memory. NORMAL: a power cut
   * may lose the last transactions, never the order of them. */
  bool ok = sqlite3_open_v2(path, &j->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                            NULL) == SQLITE_OK &&
            sqlite3_exec(j->db,
                         "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
                         "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON;",
                         NULL, NULL, NULL) == SQLITE_OK &&
            sqlite3_exec(j->db, schema, NULL, NULL, NULL) == SQLITE_OK;
  umask(before);
  ok = ok && prepare(j, "INSERT OR REPLACE INTO sessions VALUES(?,?,?,?,?,?)", &j->begin) &&
       prepare(j, "INSERT OR REPLACE INTO tokens VALUES(?,?,?)", &j->tokens) &&
       prepare(j, "DELETE FROM sessions WHERE id=?", &j->end) &&
       prepare(j, "DELETE FROM tokens WHERE session=?", &j->end_tokens);
  if (!ok) {
    enum foray_status st = sql_error(j, path, err);
    foray_journal_close(j);
    return st;
  }
  *out = j;
  return FORAY_OK;
}

void foray_journal_close(struct foray_journal *j) {
  if (!j) return;
  if (j->running) {
    pthread_mutex_lock(&j->lock);
    j->stop = true;
    pthread_cond_signal(&j->wake);
    pthread_mutex_unlock(&j->lock);
    pthread_join(j->writer, NULL);
  }
  if (j->begin) (void)!foray_journal_flush(j, NULL);
  for (struct op *o; (o = j->first); free(o)) j->first = o->next;
  sqlite3_finalize(j->begin);
  sqlite3_finalize(j->tokens);
  sqlite3_finalize(j->end);
  sqlite3_finalize(j->end_tokens);
  sqlite3_close(j->db);
  pthread_mutex_destroy(&j->lock);
  pthread_cond_destroy(&j->wake);
  free(j);
}

enum foray_status foray_journal_identity(struct foray_journal *j, const uint8_t sha256[FORAY_SHA256_BYTES],
                                         struct foray_err *err) {
  sqlite3_stmt *q = NULL;
  if (!prepare(j, "SELECT sha256 FROM model WHERE one = 1", &q)) return sql_error(j, "reading", err);
  const bool same = sqlite3_step(q) == SQLITE_ROW && sqlite3_column_bytes(q, 0) == FORAY_SHA256_BYTES &&
                    memcmp(sqlite3_column_blob(q, 0), sha256, FORAY_SHA256_BYTES) == 0;
  sqlite3_finalize(q);
  if (same) return FORAY_OK;
  bool ok =
      sqlite3_exec(j->db, "BEGIN IMMEDIATE; DELETE FROM sessions; DELETE FROM tokens; DELETE FROM model;",
                   NULL, NULL, NULL) == SQLITE_OK &&
      prepare(j, "INSERT INTO model VALUES(1, ?)", &q);
  if (ok) {
    sqlite3_bind_blob(q, 1, sha256, FORAY_SHA256_BYTES, SQLITE_STATIC);
    ok = sqlite3_step(q) == SQLITE_DONE;
    sqlite3_finalize(q);
  }
  ok = ok && sqlite3_exec(j->db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK;
  return ok ? FORAY_OK : sql_error(j, "writing", err);
}

/* ---------------------------------------------------------------- queue */

static struct op *op_new(enum op_kind kind, uint64_t id, const void *data, size_t n) {
  struct op *o = malloc(sizeof *o + n);
  if (!o) return NULL;
  *o = (struct op){.kind = kind, .id = id, .bytes = sizeof *o + n};
  if (n) memcpy(o->data, data, n);
  return o;
}
static void push(struct foray_journal *j, struct op *o) {
  pthread_mutex_lock(&j->lock);
  if (!o && !j->failed.code) foray_err_set(&j->failed, FORAY_E_NOMEM, "commit log: out of memory");
  if (o && j->pending + o->bytes > FORAY_JOURNAL_PENDING_MAX && !j->failed.code)
    foray_err_set(&j->failed, FORAY_E_LIMIT, "commit log: the disk does not keep up");
  const bool dead = j->failed.code != 0;
  if (o && !dead) {
    o->next = NULL;
    *j->last = o;
    j->last = &o->next;
    j->pending += o->bytes;
    pthread_cond_signal(&j->wake);
  }
  pthread_mutex_unlock(&j->lock);
  if (dead) free(o);
}

void foray_journal_begin(struct foray_journal *j, const struct foray_journal_session *s) {
  struct foray_buf b;
  foray_buf_init(&b, FORAY_PROTO_FRAME_MAX);
  struct op *o =
      foray_request_pack(s->request, &b) == FORAY_OK ? op_new(OP_BEGIN, s->id, b.data, b.len) : NULL;
  if (o) {
    o->tenant = s->tenant;
    o->weight = s->weight;
    o->priority = s->priority;
    o->n = (uint32_t)b.len;
    memcpy(o->hash, s->secret_sha256, sizeof o->hash);
  }
  foray_buf_deinit(&b);
  push(j, o);
  if (s->n_ids) foray_journal_tokens(j, s->id, 0, (const int32_t *)s->ids, s->n_ids);
}
void foray_journal_tokens(struct foray_journal *j, uint64_t id, uint32_t first, const int32_t *ids,
                          uint32_t n) {
  struct op *o = op_new(OP_TOKENS, id, ids, n * sizeof *ids);
  if (o) {
    o->first = first;
    o->n = n;
  }
  push(j, o);
}
void foray_journal_end(struct foray_journal *j, uint64_t id) { push(j, op_new(OP_END, id, NULL, 0)); }

bool foray_journal_failed(struct foray_journal *j, struct foray_err *why) {
  pthread_mutex_lock(&j->lock);
  const bool dead = j->failed.code != 0;
  if (dead && why) *why = j->failed;
  pthread_mutex_unlock(&j->lock);
  return dead;
}

/* ---------------------------------------------------------------- writing */

static bool step(sqlite3_stmt *s) {
  const bool ok = sqlite3_step(s) == SQLITE_DONE;
  return sqlite3_reset(s) == SQLITE_OK && ok;
}

static bool apply(struct foray_journal *j, const struct op *o) {
  switch (o->kind) {
  case OP_BEGIN:
    sqlite3_bind_int64(j->begin, 1, (sqlite3_int64)o->id);
    sqlite3_bind_blob(j->begin, 2, o->hash, sizeof o->hash, SQLITE_STATIC);
    sqlite3_bind_int64(j->begin, 3, (sqlite3_int64)o->tenant);
    sqlite3_bind_double(j->begin, 4, o->weight);
    sqlite3_bind_int64(j->begin, 5, o->priority);
    sqlite3_bind_blob(j->begin, 6, o->data, (int)o->n, SQLITE_STATIC);
    return step(j->begin);
  case OP_TOKENS:
    sqlite3_bind_int64(j->tokens, 1, (sqlite3_int64)o->id);
    sqlite3_bind_int64(j->tokens, 2, o->first);
    sqlite3_bind_blob(j->tokens, 3, o->data, (int)(o->n * sizeof(int32_t)), SQLITE_STATIC);
    return step(j->tokens);
  case OP_END:
    sqlite3_bind_int64(j->end, 1, (sqlite3_int64)o->id);
    sqlite3_bind_int64(j->end_tokens, 1, (sqlite3_int64)o->id);
    return step(j->end) && step(j->end_tokens);
  }
  return false;
}

static bool run(struct foray_journal *j, const char *sql) {
  return sqlite3_exec(j->db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

enum foray_status foray_journal_flush(struct foray_journal *j, struct foray_err *err) {
  pthread_mutex_lock(&j->lock);
  struct op *list = j->first;
  j->first = NULL;
  j->last = &j->first;
  j->pending = 0;
  const struct foray_err dead = j->failed;
  pthread_mutex_unlock(&j->lock);
  struct foray_err why = dead;
  if (list && !why.code) {
    bool ok = run(j, "BEGIN IMMEDIATE");
    for (const struct op *o = list; o && ok; o = o->next) ok = apply(j, o);
    if (!ok || !run(j, "COMMIT")) {
      sql_error(j, "writing", &why);
      (void)run(j, "ROLLBACK");
      pthread_mutex_lock(&j->lock);
      j->failed = why;
      pthread_mutex_unlock(&j->lock);
    }
  }
  for (struct op *o; (o = list); free(o)) list = o->next;
  if (why.code && err) *err = why;
  return why.code;
}

static void *writer(void *arg) {
  struct foray_journal *j = arg;
  for (;;) {
    pthread_mutex_lock(&j->lock);
    while (!j->first && !j->stop) pthread_cond_wait(&j->wake, &j->lock);
    const bool stop = j->stop;
    pthread_mutex_unlock(&j->lock);
    (void)!foray_journal_flush(j, NULL); /* what came while one was written goes together in the next */
    if (stop) return NULL;
  }
}

enum foray_status foray_journal_start(struct foray_journal *j, struct foray_err *err) {
  j->running = pthread_create(&j->writer, NULL, writer, j) == 0;
  return j->running ? FORAY_OK : foray_err_set(err, FORAY_E_NOMEM, "commit log: cannot start a thread");
}

/* ---------------------------------------------------------------- reading */

/* Joins the pieces of a session; false: there is a hole. */
static bool read_tokens(sqlite3_stmt *q, struct foray_journal_session *s, uint32_t *cap) {
  s->n_ids = 0;
  bool whole = true;
  while (sqlite3_step(q) == SQLITE_ROW) {
    const uint32_t first = (uint32_t)sqlite3_column_int64(q, 0);
    const void *p = sqlite3_column_blob(q, 1);
    const uint32_t n = (uint32_t)sqlite3_column_bytes(q, 1) / (uint32_t)sizeof(int32_t);
    if (first > s->n_ids || n > FORAY_PROTO_TOKENS_MAX || first > FORAY_PROTO_TOKENS_MAX) {
      whole = false;
      break;
    }
    if (first + n > *cap) {
      uint32_t *v = realloc(s->ids, (size_t)(first + n) * 2 * sizeof *v);
      if (!v) return false;
      s->ids = v;
      *cap = 2 * (first + n);
    }
    if (n) memcpy(s->ids + first, p, n * sizeof *s->ids);
    if (first + n > s->n_ids) s->n_ids = first + n;
  }
  sqlite3_reset(q);
  return whole;
}

enum foray_status foray_journal_each(struct foray_journal *j,
                                     void (*fn)(void *, struct foray_journal_session *), void *arg,
                                     struct foray_err *err) {
  sqlite3_stmt *q = NULL, *t = NULL;
  if (!prepare(j, "SELECT id, secret, tenant, weight, priority, request FROM sessions", &q) ||
      !prepare(j, "SELECT first, ids FROM tokens WHERE session=? ORDER BY first", &t)) {
    sqlite3_finalize(q);
    return sql_error(j, "reading", err);
  }
  struct foray_journal_session s = {0};
  uint32_t cap = 0;
  int r;
  while ((r = sqlite3_step(q)) == SQLITE_ROW) {
    s.id = (uint64_t)sqlite3_column_int64(q, 0);
    s.tenant = (uint64_t)sqlite3_column_int64(q, 2);
    s.weight = sqlite3_column_double(q, 3);
    s.priority = (uint32_t)sqlite3_column_int64(q, 4);
    s.request = foray_request_unpack(sqlite3_column_blob(q, 5), (size_t)sqlite3_column_bytes(q, 5));
    const bool secret = sqlite3_column_bytes(q, 1) == FORAY_SHA256_BYTES;
    if (secret) memcpy(s.secret_sha256, sqlite3_column_blob(q, 1), FORAY_SHA256_BYTES);
    sqlite3_bind_int64(t, 1, (sqlite3_int64)s.id);
    if (s.request && secret && read_tokens(t, &s, &cap) && s.n_ids <= s.request->max_tokens) fn(arg, &s);
    free(s.request);
  }
  free(s.ids);
  enum foray_status st = r == SQLITE_DONE ? FORAY_OK : sql_error(j, "reading", err);
  sqlite3_finalize(q);
  sqlite3_finalize(t);
  return st;
}
