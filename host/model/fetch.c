#include "model/fetch.h"

#include "core/err.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct transfer {
  const struct foray_fetch *f;
  CURL *curl;
  struct foray_buf *mem; /* one of the two */
  FILE *file;
  uint64_t start, got, max;
  bool cancelled, too_large, restarted, write_failed;
};

static void init_curl(void) { curl_global_init(CURL_GLOBAL_DEFAULT); }

static size_t on_data(char *p, size_t unit, size_t n, void *user) {
  struct transfer *t = user;
  n *= unit;
  long code = 0;
  curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &code);
  if (t->start && t->got == 0 && code == 200) {
    /* The server sends the whole file although the rest was asked for: begin again. */
    t->restarted = true;
    t->start = 0;
    if (fflush(t->file) || ftruncate(fileno(t->file), 0)) t->write_failed = true;
  }
  if (t->write_failed) return 0;
  if (t->start + t->got + n > t->max) {
    t->too_large = true;
    return 0;
  }
  if (t->mem ? foray_buf_add(t->mem, p, n) != FORAY_OK : fwrite(p, 1, n, t->file) != n) {
    t->write_failed = true;
    return 0;
  }
  t->got += n;
  return n;
}

static int on_progress(void *user, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d) {
  struct transfer *t = user;
  (void)a, (void)b, (void)c, (void)d;
  if (!t->f->progress || t->f->progress(t->f->user, t->start + t->got)) return 0;
  t->cancelled = true;
  return 1;
}

/* Certificates: where other download programs of this machine are told to look. */
static const char *ca_file(void) {
  static const char *const names[] = {"PIP_CERT", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const char *v = getenv(names[i]);
    if (v && *v && access(v, R_OK) == 0) return v;
  }
  return NULL;
}

enum outcome { DONE, AGAIN, BROKEN };

static enum outcome attempt(struct transfer *t, const char *url, struct foray_err *err) {
  char why[CURL_ERROR_SIZE] = "";
  struct curl_slist *headers =
      curl_slist_append(NULL, "Accept: application/vnd.pypi.simple.v1+json, text/html;q=0.5, */*;q=0.1");
  CURL *c = t->curl = curl_easy_init();
  if (!c) {
    curl_slist_free_all(headers);
    foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", url);
    return BROKEN;
  }
  curl_easy_setopt(c, CURLOPT_URL, url);
  curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(c, CURLOPT_MAXREDIRS, 8L);
  curl_easy_setopt(c, CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(c, CURLOPT_USERAGENT, "foray/" FORAY_VERSION);
  curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, t->f->connect_s > 0 ? (long)t->f->connect_s : 20L);
  curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 100L);
  curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, 60L);
  curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(c, CURLOPT_ERRORBUFFER, why);
  curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_data);
  curl_easy_setopt(c, CURLOPT_WRITEDATA, t);
  curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
  curl_easy_setopt(c, CURLOPT_XFERINFODATA, t);
  curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
  if (t->mem) curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
  if (ca_file()) curl_easy_setopt(c, CURLOPT_CAINFO, ca_file());
  if (t->start) {
    char range[32];
    snprintf(range, sizeof range, "%llu-", (unsigned long long)t->start);
    curl_easy_setopt(c, CURLOPT_RANGE, range);
  }
  CURLcode rc = curl_easy_perform(c);
  long code = 0;
  curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &code);
  curl_easy_cleanup(c);
  curl_slist_free_all(headers);
  if (rc == CURLE_OK) return DONE;
  if (t->cancelled) {
    foray_err_set(err, FORAY_E_CANCELLED,
                  "the download was cancelled; what is there will be continued next time");
    return BROKEN;
  }
  if (t->too_large) {
    foray_err_set(err, FORAY_E_LIMIT, "%s: more than the %llu bytes that were expected", url,
                  (unsigned long long)t->max);
    return BROKEN;
  }
  if (t->write_failed) {
    foray_err_set(err, FORAY_E_IO, "%s: cannot be stored: %s", url, strerror(errno));
    return BROKEN;
  }
  if (code == 416 && t->start) return DONE; /* nothing lies behind what is there; the checksum will tell */
  if (code == 404 || code == 410) {
    foray_err_set(err, FORAY_E_NOTFOUND, "%s: not found (HTTP %ld)", url, code);
    return BROKEN;
  }
  foray_err_set(err, FORAY_E_NET, "%s: %s", url, *why ? why : curl_easy_strerror(rc));
  return code >= 400 && code < 500 && code != 408 && code != 429 ? BROKEN : AGAIN;
}

/* Sleeps in small steps so that cancelling takes effect. */
static bool pause_ms(const struct foray_fetch *f, unsigned ms, uint64_t so_far) {
  for (unsigned done = 0; done < ms; done += 50) {
    if (f->progress && !f->progress(f->user, so_far)) return false;
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
  }
  return true;
}

static enum foray_status run(struct transfer *t, const char *url, const char *path, struct foray_err *err) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, init_curl);
  unsigned wait = t->f->pause_ms ? t->f->pause_ms : 1000;
  int tries = t->f->tries > 0 ? t->f->tries : 3;
  struct foray_err last = {0};
  for (int i = 0; i < tries; i++, wait *= 2) {
    if (i && !pause_ms(t->f, wait, t->start + t->got))
      return foray_err_set(err, FORAY_E_CANCELLED,
                           "the download was cancelled; what is there will be continued next time");
    if (path) {
      t->file = fopen(path, "ab");
      struct stat st;
      if (!t->file || fstat(fileno(t->file), &st)) {
        if (t->file) fclose(t->file);
        return foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(errno));
      }
      t->start = (uint64_t)st.st_size;
    } else {
      foray_buf_clear(t->mem);
      t->start = 0;
    }
    t->got = 0;
    enum outcome o = attempt(t, url, &last);
    if (path && fclose(t->file) && o == DONE) {
      foray_err_set(&last, FORAY_E_IO, "%s: %s", path, strerror(errno));
      o = BROKEN;
    }
    if (o == DONE) return FORAY_OK;
    if (o == BROKEN) break;
  }
  return foray_err_set(err, last.code, "%s", last.msg);
}

enum foray_status foray_fetch_memory(const struct foray_fetch *f, const char *url, struct foray_buf *out,
                                     struct foray_err *err) {
  struct transfer t = {.f = f, .mem = out, .max = out->max};
  return run(&t, url, NULL, err);
}

enum foray_status foray_fetch_file(const struct foray_fetch *f, const char *url, const char *path,
                                   uint64_t bytes_max, struct foray_err *err) {
  struct transfer t = {.f = f, .max = bytes_max};
  return run(&t, url, path, err);
}

enum foray_status foray_fetch_resolve(const char *page_url, const char *link, char *out, size_t cap) {
  CURLU *u = curl_url();
  char *s = NULL;
  enum foray_status st = FORAY_E_FORMAT;
  if (u && !curl_url_set(u, CURLUPART_URL, page_url, 0) && !curl_url_set(u, CURLUPART_URL, link, 0) &&
      !curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0) && !curl_url_get(u, CURLUPART_URL, &s, 0) &&
      (size_t)snprintf(out, cap, "%s", s) < cap)
    st = FORAY_OK;
  curl_free(s);
  curl_url_cleanup(u);
  return st;
}
