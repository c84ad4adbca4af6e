/* The commit log: killed at every write, full disks, rubbish files. */
#include "unit/harness.h"

#include "core/err.h"
#include "journal/journal.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SESSIONS = 3, ROUNDS = 12, PIECE = 5 };

/* ---- the system calls of SQLite, counted: at the chosen one half is written and the process is gone */
static int kill_at, calls, full_at;
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);

static void count(void) {
  if (++calls == kill_at) _exit(9);
}
static ssize_t my_pwrite(int fd, const void *p, size_t n, off_t at) {
  if (full_at && calls + 1 >= full_at) {
    errno = ENOSPC;
    return -1;
  }
  if (calls + 1 == kill_at) (void)!real_pwrite(fd, p, n / 2, at);
  count();
  return real_pwrite(fd, p, n, at);
}
static int my_ftruncate(int fd, off_t n) {
  count();
  return real_ftruncate(fd, n);
}
static int my_fsync(int fd) {
  count();
  return real_fsync(fd);
}
static void hook(bool on) {
  sqlite3_vfs *v = sqlite3_vfs_find(NULL);
  static const char *const names[] = {"pwrite", "pwrite64"};
  for (int i = 0; i < 2; i++) {
    sqlite3_syscall_ptr p = v->xGetSystemCall(v, names[i]);
    if (!p) continue;
    if (!real_pwrite) real_pwrite = (ssize_t(*)(int, const void *, size_t, off_t))(void (*)(void))p;
    v->xSetSystemCall(v, names[i], on ? (sqlite3_syscall_ptr)(void (*)(void))my_pwrite : NULL);
  }
  if (!real_ftruncate)
    real_ftruncate = (int (*)(int, off_t))(void (*)(void))v->xGetSystemCall(v, "ftruncate");
  if (!real_fsync) real_fsync = fsync;
  v->xSetSystemCall(v, "ftruncate", on ? (sqlite3_syscall_ptr)(void (*)(void))my_ftruncate : NULL);
  v->xSetSystemCall(v, "fsync", on ? (sqlite3_syscall_ptr)(void (*)(void))my_fsync : NULL);
}

static int32_t token(uint64_t session, uint32_t i) { return (int32_t)(session * 1000 + i * 7 % 1000); }

static struct foray_gen_request *request(void) {
  static uint32_t prompt[] = {5, 6, 7};
  static const char *stops[] = {"END"};
  static uint32_t len[] = {3};
  static struct foray_gen_request r = {.prompt = prompt,
                                       .n_prompt = 3,
                                       .max_tokens = 500,
                                       .stops = stops,
                                       .stop_len = len,
                                       .n_stops = 1,
                                       .sampling = {.temperature = 0.5f, .seed = 77}};
  return &r;
}

/* What a server does; after each flush one byte tells the parent that it returned. */
static enum foray_status work(const char *path, int told, struct foray_err *err) {
  struct foray_journal *j;
  enum foray_status st = foray_journal_open(path, &j, err);
  if (st) return st;
  for (uint64_t s = 1; s <= SESSIONS; s++) {
    struct foray_journal_session b = {
        .id = s, .tenant = s * 10, .weight = 2, .priority = 1, .request = request()};
    memset(b.secret_sha256, (int)s, sizeof b.secret_sha256);
    foray_journal_begin(j, &b);
  }
  for (uint32_t r = 0; r < ROUNDS && !st; r++) {
    for (uint64_t s = 1; s <= SESSIONS; s++) {
      int32_t ids[PIECE];
      for (uint32_t i = 0; i < PIECE; i++) ids[i] = token(s, r * PIECE + i);
      foray_journal_tokens(j, s, r * PIECE, ids, PIECE);
    }
    if (r == ROUNDS - 2) foray_journal_end(j, SESSIONS);
    st = foray_journal_flush(j, err);
    if (!st && told >= 0) (void)!write(told, "x", 1);
  }
  foray_journal_close(j);
  return st;
}

struct seen {
  uint32_t n[SESSIONS + 1], sessions, wrong;
};
static void look(void *arg, struct foray_journal_session *s) {
  struct seen *v = arg;
  v->sessions++;
  if (s->id < 1 || s->id > SESSIONS) {
    v->wrong++;
    return;
  }
  v->n[s->id] = s->n_ids;
  for (uint32_t i = 0; i < s->n_ids; i++) v->wrong += (int32_t)s->ids[i] != token(s->id, i);
  v->wrong += s->tenant != s->id * 10 || s->weight != 2 || s->priority != 1 || s->secret_sha256[5] != s->id ||
              s->request->n_prompt != 3 || s->request->prompt[1] != 6 || s->request->sampling.seed != 77 ||
              s->request->n_stops != 1 || memcmp(s->request->stops[0], "END", 3) != 0;
}
static void temp(char *dir, char *path, size_t cap) {
  memcpy(dir, "/tmp/foray-log-XXXXXX", 22);
  CU_ASSERT_FATAL(mkdtemp(dir) != NULL);
  snprintf(path, cap, "%s/log", dir);
}
static void clean(const char *dir) {
  char path[128];
  static const char *const names[] = {"log", "log-wal", "log-shm", "log-journal"};
  for (int i = 0; i < 4; i++) {
    snprintf(path, sizeof path, "%s/%s", dir, names[i]);
    unlink(path);
  }
  rmdir(dir);
}

TEST(killed_at_every_write_it_holds_a_prefix) {
  int at = 1, kills = 0;
  for (bool more = true; more; at++) {
    char dir[64], path[96];
    temp(dir, path, sizeof path);
    int told[2];
    CU_ASSERT_EQUAL_FATAL(pipe(told), 0);
    pid_t pid = fork();
    if (pid == 0) {
      close(told[0]);
      kill_at = at;
      hook(true);
      _exit(work(path, told[1], NULL) == FORAY_OK ? 0 : 1);
    }
    close(told[1]);
    uint32_t flushed = 0;
    for (char c; read(told[0], &c, 1) == 1;) flushed++;
    close(told[0]);
    int status = 0;
    waitpid(pid, &status, 0);
    CU_ASSERT_FATAL(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 9));
    more = WEXITSTATUS(status) == 9;
    kills += more;
    struct foray_err err = {0};
    struct foray_journal *j;
    struct seen v = {0};
    CU_ASSERT_EQUAL_FATAL(foray_journal_open(path, &j, &err), FORAY_OK);
    CU_ASSERT_EQUAL(foray_journal_each(j, look, &v, &err), FORAY_OK);
    foray_journal_close(j);
    CU_ASSERT_EQUAL(v.wrong, 0);
    for (uint32_t s = 1; s < SESSIONS && flushed; s++)
      CU_ASSERT(v.n[s] >= flushed * PIECE && v.n[s] % PIECE == 0);
    if (!more) CU_ASSERT(v.n[1] == ROUNDS * PIECE && v.sessions == SESSIONS - 1);
    clean(dir);
    if (v.wrong) break;
  }
  CU_ASSERT(kills > 30);
}

TEST(a_full_disk_ends_the_log_and_nothing_else) {
  char dir[64], path[96];
  temp(dir, path, sizeof path);
  struct foray_err err = {0};
  calls = kill_at = 0;
  full_at = 20;
  hook(true);
  enum foray_status st = work(path, -1, &err);
  hook(false);
  full_at = 0;
  CU_ASSERT_EQUAL(st, FORAY_E_IO);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "full"));
  struct foray_journal *j;
  struct seen v = {0};
  CU_ASSERT_EQUAL_FATAL(foray_journal_open(path, &j, &err), FORAY_OK); /* what was written before is there */
  CU_ASSERT_EQUAL(foray_journal_each(j, look, &v, &err), FORAY_OK);
  CU_ASSERT_EQUAL(v.wrong, 0);
  CU_ASSERT(!foray_journal_failed(j, NULL));
  struct foray_journal *second; /* one owner at a time */
  CU_ASSERT_EQUAL(foray_journal_open(path, &second, &err), FORAY_E_BUSY);
  struct stat sb;
  CU_ASSERT(stat(path, &sb) == 0 && (sb.st_mode & 0077) == 0);
  foray_journal_close(j);
  clean(dir);
}

TEST(another_model_begins_with_nothing) {
  char dir[64], path[96];
  temp(dir, path, sizeof path);
  struct foray_err err = {0};
  CU_ASSERT_EQUAL_FATAL(work(path, -1, &err), FORAY_OK);
  uint8_t model[2][32] = {{1}, {2}};
  const uint32_t expect[] = {0, 0, SESSIONS - 1};
  for (int k = 0; k < 3; k++) { /* the first sees sessions that belong to no model it knows */
    struct foray_journal *j;
    struct seen v = {0};
    if (k == 2) CU_ASSERT_EQUAL_FATAL(work(path, -1, &err), FORAY_OK);
    CU_ASSERT_EQUAL_FATAL(foray_journal_open(path, &j, &err), FORAY_OK);
    CU_ASSERT_EQUAL(foray_journal_identity(j, model[k > 0], &err), FORAY_OK);
    CU_ASSERT_EQUAL(foray_journal_each(j, look, &v, &err), FORAY_OK);
    CU_ASSERT_EQUAL(v.sessions, expect[k]);
    foray_journal_close(j);
  }
  clean(dir);
}

TEST(rubbish_is_refused_and_damage_invents_nothing) {
  char dir[64], path[96];
  temp(dir, path, sizeof path);
  FILE *f = fopen(path, "w");
  for (int i = 0; i < 5000; i++) fputc(i * 31 & 255, f);
  fclose(f);
  struct foray_err err = {0};
  struct foray_journal *j;
  CU_ASSERT_EQUAL(foray_journal_open(path, &j, &err), FORAY_E_FORMAT);
  unlink(path);
  CU_ASSERT_EQUAL_FATAL(work(path, -1, &err), FORAY_OK);
  struct stat sb;
  CU_ASSERT_FATAL(stat(path, &sb) == 0);
  char *whole = malloc((size_t)sb.st_size), copy[96];
  f = fopen(path, "r");
  CU_ASSERT_EQUAL_FATAL(fread(whole, 1, (size_t)sb.st_size, f), (size_t)sb.st_size);
  fclose(f);
  snprintf(copy, sizeof copy, "%s/log", dir);
  uint64_t rng = 5;
  for (int k = 0; k < 200; k++) { /* bytes changed here and there: an error or fewer sessions, no crash */
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    size_t at = (size_t)(rng >> 20) % (size_t)sb.st_size;
    f = fopen(copy, "w");
    fwrite(whole, 1, (size_t)sb.st_size, f);
    fseek(f, (long)at, SEEK_SET);
    fputc((int)(rng >> 8) & 255, f);
    fclose(f);
    struct seen v = {0};
    if (foray_journal_open(copy, &j, &err) != FORAY_OK) continue;
    (void)!foray_journal_each(j, look, &v, &err);
    CU_ASSERT(v.sessions <= SESSIONS);
    foray_journal_close(j);
  }
  free(whole);
  clean(dir);
}
