/* Fetching models from a server inside this process: resume, broken connections, wrong hashes, missing pages,
 * bad archives. */
#include "unit/harness.h"

#include "core/buf.h"
#include "core/hash.h"
#include "model/fetch.h"
#include "model/pull.h"
#include "model/zip.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

/* ---------------------------------------------------------------- a server for tests */

enum { FILES_MAX = 16 };
struct page {
  const char *path, *type;
  const void *data;
  size_t n;
  int cut_times;  /* answers that break off in the middle */
  bool no_ranges; /* always sends everything */
};
static struct {
  int fd, port;
  pthread_t thread;
  struct page pages[FILES_MAX];
  int n;
  _Atomic int requests, ranges;
  _Atomic size_t sent;
} srv;

static struct page *add_page(const char *path, const char *type, const void *data, size_t n) {
  struct page *p = &srv.pages[srv.n++];
  *p = (struct page){.path = path, .type = type, .data = data, .n = n};
  return p;
}

static void answer(int fd, char *req) {
  char path[256] = "", head[512];
  sscanf(req, "GET %255s", path);
  srv.requests++;
  struct page *p = NULL;
  for (int i = 0; i < srv.n; i++)
    if (!strcmp(srv.pages[i].path, path)) p = &srv.pages[i];
  if (!p) {
    const char *gone = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    (void)!write(fd, gone, strlen(gone));
    return;
  }
  size_t from = 0;
  const char *r = strstr(req, "Range: bytes=");
  if (r && !p->no_ranges) {
    from = strtoul(r + 13, NULL, 10);
    srv.ranges++;
  }
  if (from >= p->n && from) {
    const char *none = "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    (void)!write(fd, none, strlen(none));
    return;
  }
  int n = snprintf(head, sizeof head,
                   "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\n",
                   from ? "206 Partial Content" : "200 OK", p->type, p->n - from);
  if (from)
    n += snprintf(head + n, sizeof head - (size_t)n, "Content-Range: bytes %zu-%zu/%zu\r\n", from, p->n - 1,
                  p->n);
  n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
  (void)!write(fd, head, (size_t)n);
  size_t len = p->n - from;
  if (p->cut_times > 0) {
    p->cut_times--;
    len /= 2;
  }
  for (size_t at = 0; at < len;) {
    ssize_t k = write(fd, (const char *)p->data + from + at, len - at);
    if (k <= 0) break;
    at += (size_t)k;
    srv.sent += (size_t)k;
  }
}

static void *serve(void *arg) {
  (void)arg;
  for (;;) {
    int fd = accept(srv.fd, NULL, NULL);
    if (fd < 0) return NULL;
    char req[4096];
    size_t n = 0;
    while (n < sizeof req - 1) {
      ssize_t k = read(fd, req + n, sizeof req - 1 - n);
      if (k <= 0) break;
      n += (size_t)k;
      req[n] = 0;
      if (strstr(req, "\r\n\r\n")) break;
    }
    req[n] = 0;
    answer(fd, req);
    shutdown(fd, SHUT_RDWR);
    close(fd);
  }
}

static char dir[64];

static void start(void) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t len = sizeof a;
  memset(&srv, 0, sizeof srv);
  setenv("no_proxy", "127.0.0.1", 1);
  setenv("NO_PROXY", "127.0.0.1", 1);
  srv.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CU_ASSERT_EQUAL_FATAL(bind(srv.fd, (struct sockaddr *)&a, sizeof a), 0);
  CU_ASSERT_EQUAL_FATAL(listen(srv.fd, 8), 0);
  getsockname(srv.fd, (struct sockaddr *)&a, &len);
  srv.port = ntohs(a.sin_port);
  pthread_create(&srv.thread, NULL, serve, NULL);
  snprintf(dir, sizeof dir, "/tmp/foray-pull-XXXXXX");
  CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
}

static void stop(void) {
  shutdown(srv.fd, SHUT_RDWR);
  close(srv.fd);
  pthread_join(srv.thread, NULL);
  char cmd[128];
  snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
  CU_ASSERT_EQUAL(system(cmd), 0);
}

static const char *url(const char *path) {
  static char u[300];
  snprintf(u, sizeof u, "http://127.0.0.1:%d%s", srv.port, path);
  return u;
}

/* ---------------------------------------------------------------- archives */

static void le(struct foray_buf *b, uint32_t v, int bytes) {
  for (int i = 0; i < bytes; i++) {
    uint8_t x = (uint8_t)(v >> (8 * i));
    CU_ASSERT_EQUAL(foray_buf_add(b, &x, 1), FORAY_OK);
  }
}

/* A zip file with a small text and `name`, deflated or stored. */
static void make_zip(struct foray_buf *z, const char *name, const void *data, size_t n, bool deflated) {
  foray_buf_init(z, 1 << 24);
  static uint8_t packed[1 << 20];
  struct {
    const char *name;
    const void *data, *raw;
    size_t n, packed;
    uint32_t at;
    int method;
  } m[2] = {{"x/readme.txt", "hello", "hello", 5, 5, 0, 0}, {name, data, data, n, n, 0, 0}};
  if (deflated) {
    z_stream s = {.next_in = (Bytef *)(uintptr_t)data,
                  .avail_in = (uInt)n,
                  .next_out = packed,
                  .avail_out = sizeof packed};
    CU_ASSERT_EQUAL_FATAL(deflateInit2(&s, 6, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY), Z_OK);
    CU_ASSERT_EQUAL_FATAL(deflate(&s, Z_FINISH), Z_STREAM_END);
    m[1].raw = packed;
    m[1].packed = s.total_out;
    m[1].method = 8;
    deflateEnd(&s);
  }
  for (int i = 0; i < 2; i++) {
    m[i].at = (uint32_t)z->len;
    le(z, 0x04034b50, 4), le(z, 20, 2), le(z, 0, 2), le(z, (uint32_t)m[i].method, 2), le(z, 0, 4);
    le(z, (uint32_t)crc32(0, m[i].data, (uInt)m[i].n), 4), le(z, (uint32_t)m[i].packed, 4),
        le(z, (uint32_t)m[i].n, 4);
    le(z, (uint32_t)strlen(m[i].name), 2), le(z, 0, 2);
    CU_ASSERT_EQUAL(foray_buf_add(z, m[i].name, strlen(m[i].name)), FORAY_OK);
    CU_ASSERT_EQUAL(foray_buf_add(z, m[i].raw, m[i].packed), FORAY_OK);
  }
  size_t at = z->len;
  for (int i = 0; i < 2; i++) {
    le(z, 0x02014b50, 4), le(z, 20, 2), le(z, 20, 2), le(z, 0, 2), le(z, (uint32_t)m[i].method, 2),
        le(z, 0, 4);
    le(z, (uint32_t)crc32(0, m[i].data, (uInt)m[i].n), 4), le(z, (uint32_t)m[i].packed, 4),
        le(z, (uint32_t)m[i].n, 4);
    le(z, (uint32_t)strlen(m[i].name), 2), le(z, 0, 4), le(z, 0, 4), le(z, 0, 4), le(z, m[i].at, 4);
    CU_ASSERT_EQUAL(foray_buf_add(z, m[i].name, strlen(m[i].name)), FORAY_OK);
  }
  size_t end = z->len;
  le(z, 0x06054b50, 4), le(z, 0, 4), le(z, 2, 2), le(z, 2, 2), le(z, (uint32_t)(end - at), 4),
      le(z, (uint32_t)at, 4), le(z, 0, 2);
}

static uint8_t content[300000];
static struct foray_catalogue_entry entry;
static char sha[FORAY_SHA256_HEX];

static void make_content(void) {
  uint8_t d[FORAY_SHA256_BYTES];
  for (size_t i = 0; i < sizeof content; i++) content[i] = (uint8_t)(i * i >> 7);
  foray_sha256_once(content, sizeof content, d);
  foray_sha256_hex(d, sha);
  entry = (struct foray_catalogue_entry){"toy", "a toy", "none", sizeof content, sha};
}

static bool is_whole(const char *path) {
  static uint8_t got[sizeof content + 1];
  FILE *f = fopen(path, "rb");
  if (!f) return false;
  size_t n = fread(got, 1, sizeof got, f);
  fclose(f);
  return n == sizeof content && !memcmp(got, content, n);
}

static int files_in_dir(void) {
  char cmd[128], out[16] = "";
  snprintf(cmd, sizeof cmd, "ls -A %s | wc -l", dir);
  FILE *p = popen(cmd, "r");
  CU_ASSERT_PTR_NOT_NULL_FATAL(p);
  CU_ASSERT_PTR_NOT_NULL(fgets(out, sizeof out, p));
  pclose(p);
  return (int)strtol(out, NULL, 10);
}

static enum foray_status pull(const struct foray_source *s, size_t n, struct foray_pull_opts o,
                              struct foray_err *err) {
  static char index[64];
  char path[256];
  snprintf(index, sizeof index, "http://127.0.0.1:%d/simple", srv.port);
  o.index_url = index;
  o.cache_dir = dir;
  if (!o.tries) o.tries = 1;
  enum foray_status st = foray_pull_sources(&entry, s, n, &o, path, sizeof path, err);
  if (!st) CU_ASSERT_TRUE(is_whole(path));
  return st;
}

/* ---------------------------------------------------------------- tests */

TEST(plain_url_resumes_after_a_broken_connection) {
  make_content();
  start();
  add_page("/toy.gguf", "x", content, sizeof content)->cut_times = 2;
  char u[300];
  snprintf(u, sizeof u, "%s", url("/toy.gguf"));
  const struct foray_source src = {.kind = FORAY_SOURCE_URL, .where = u};
  struct foray_err err = {0};
  CU_ASSERT_EQUAL(pull(&src, 1, (struct foray_pull_opts){0}, &err), FORAY_E_NET); /* half of it is there */
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "toy"));
  CU_ASSERT_EQUAL(files_in_dir(), 2); /* part and state */
  CU_ASSERT_EQUAL(pull(&src, 1, (struct foray_pull_opts){.tries = 2}, &err), FORAY_OK);
  CU_ASSERT_EQUAL(srv.requests, 3);
  CU_ASSERT_EQUAL(srv.ranges, 2);
  CU_ASSERT_EQUAL(srv.sent, sizeof content); /* no byte came twice */
  CU_ASSERT_EQUAL(files_in_dir(), 1);
  CU_ASSERT_EQUAL(pull(&src, 1, (struct foray_pull_opts){0}, &err), FORAY_OK); /* nothing to do */
  CU_ASSERT_EQUAL(srv.requests, 3);
  stop();
}

/* The first source is out of reach; what the second one has sent so far must survive the next try of the
 * first. */
TEST(a_download_goes_on_at_the_source_where_it_began) {
  make_content();
  start();
  add_page("/toy.gguf", "x", content, sizeof content)->cut_times = 1;
  char u[2][300];
  snprintf(u[0], sizeof u[0], "%s", url("/gone"));
  snprintf(u[1], sizeof u[1], "%s", url("/toy.gguf"));
  const struct foray_source src[2] = {{.kind = FORAY_SOURCE_URL, .where = u[0]},
                                      {.kind = FORAY_SOURCE_URL, .where = u[1]}};
  struct foray_err err = {0};
  CU_ASSERT_EQUAL(pull(src, 2, (struct foray_pull_opts){0}, &err), FORAY_E_NET);
  CU_ASSERT_EQUAL(srv.requests, 2);
  CU_ASSERT_EQUAL(pull(src, 2, (struct foray_pull_opts){0}, &err), FORAY_OK);
  CU_ASSERT_EQUAL(srv.requests, 3);
  CU_ASSERT_EQUAL(srv.ranges, 1);
  CU_ASSERT_EQUAL(srv.sent, sizeof content); /* no byte came twice */
  stop();
}

TEST(server_without_ranges_begins_again) {
  make_content();
  start();
  struct page *p = add_page("/toy.gguf", "x", content, sizeof content);
  p->cut_times = 1;
  p->no_ranges = true;
  char u[300];
  snprintf(u, sizeof u, "%s", url("/toy.gguf"));
  const struct foray_source src = {.kind = FORAY_SOURCE_URL, .where = u};
  struct foray_err err = {0};
  CU_ASSERT_EQUAL(pull(&src, 1, (struct foray_pull_opts){0}, &err), FORAY_E_NET);
  CU_ASSERT_EQUAL(pull(&src, 1, (struct foray_pull_opts){0}, &err), FORAY_OK);
  stop();
}

TEST(wrong_content_is_thrown_away_and_the_next_source_tried) {
  make_content();
  start();
  static uint8_t wrong[sizeof content];
  memcpy(wrong, content, sizeof content);
  wrong[77] ^= 1;
  add_page("/wrong", "x", wrong, sizeof wrong);
  add_page("/short", "x", content, 1000);
  add_page("/right", "x", content, sizeof content);
  char u[3][300];
  const char *const paths[] = {"/wrong", "/short", "/right"};
  struct foray_source src[4] = {{.kind = FORAY_SOURCE_URL, .where = "http://127.0.0.1:1/x"}};
  for (int i = 0; i < 3; i++) {
    snprintf(u[i], sizeof u[i], "%s", url(paths[i]));
    src[i + 1] = (struct foray_source){.kind = FORAY_SOURCE_URL, .where = u[i]};
  }
  struct foray_err err = {0};
  CU_ASSERT_EQUAL(pull(src, 2, (struct foray_pull_opts){0}, &err), FORAY_E_MISMATCH);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "SHA-256"));
  CU_ASSERT_EQUAL(files_in_dir(), 0);
  CU_ASSERT_EQUAL(pull(src + 2, 1, (struct foray_pull_opts){0}, &err), FORAY_E_MISMATCH);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "1000 bytes instead of 300000"));
  CU_ASSERT_EQUAL(pull(src, 4, (struct foray_pull_opts){0}, &err), FORAY_OK);
  stop();
}

/* Three wheels, the middle one deflated; pages as HTML with a relative link and a hash, as JSON, and as HTML
 * without hash. */
static char page_text[3][600];
static struct foray_buf wheels[3];
static const struct foray_source packages = {
    FORAY_SOURCE_PACKAGES, "toy-part%d", "1.2", "part%02d.bin", 9, 11};

static void add_packages(void) {
  static const char *const pages[] = {"/simple/toy-part9/", "/simple/toy-part10/", "/simple/toy-part11/"};
  static const char *const files[] = {"/f/toy_part9-1.2-py3-none-any.whl",
                                      "/f/toy_part10-1.2-py3-none-any.whl",
                                      "/f/toy_part11-1.2-py3-none-any.whl"};
  for (int i = 0; i < 3; i++) {
    char member[64], hex[FORAY_SHA256_HEX];
    uint8_t d[FORAY_SHA256_BYTES];
    snprintf(member, sizeof member, "toy/data/part%02d.bin", 9 + i);
    make_zip(&wheels[i], member, content + 100000 * i, 100000, i == 1);
    foray_sha256_once(wheels[i].data, wheels[i].len, d);
    foray_sha256_hex(d, hex);
    if (i == 1)
      snprintf(page_text[i], sizeof page_text[i],
               "{\"files\":[{\"filename\":\"toy_part10-1.2.tar.gz\",\"url\":\"/"
               "nope\",\"hashes\":{}},{\"filename\":"
               "\"toy_part10-1.2-py3-none-any.whl\",\"url\":\"%s\",\"hashes\":{\"sha256\":\"%s\"}}]}",
               files[i], hex);
    else
      snprintf(page_text[i], sizeof page_text[i],
               "<html><a href=\"/f/toy_part%d-1.20-py3-none-any.whl\">old</a><a "
               "href=\"../../f/%s%s%s\">x</a></html>",
               9 + i, files[i] + 3, i ? "" : "#sha256=", i ? "" : hex);
    add_page(pages[i], i == 1 ? "application/vnd.pypi.simple.v1+json" : "text/html", page_text[i],
             strlen(page_text[i]));
    add_page(files[i], "x", wheels[i].data, wheels[i].len);
  }
}

static void free_packages(void) {
  for (int i = 0; i < 3; i++) foray_buf_deinit(&wheels[i]);
}

TEST(packages_are_joined_by_number) {
  make_content();
  start();
  add_packages();
  struct foray_err err = {0};
  enum foray_status s = pull(&packages, 1, (struct foray_pull_opts){0}, &err);
  if (s) printf("  %s\n", err.msg);
  CU_ASSERT_EQUAL(s, FORAY_OK);
  CU_ASSERT_EQUAL(files_in_dir(), 1);
  free_packages();
  stop();
}

TEST(packages_resume_in_the_middle_of_a_wheel) {
  make_content();
  start();
  add_packages();
  for (int i = 0; i < srv.n; i++)
    if (strstr(srv.pages[i].path, "part10-")) srv.pages[i].cut_times = 1;
  struct foray_err err = {0};
  CU_ASSERT_EQUAL(pull(&packages, 1, (struct foray_pull_opts){0}, &err), FORAY_E_NET);
  size_t first = srv.sent;
  CU_ASSERT_EQUAL(pull(&packages, 1, (struct foray_pull_opts){0}, &err), FORAY_OK);
  size_t all = wheels[0].len + wheels[1].len + wheels[2].len + strlen(page_text[0]) +
               2 * strlen(page_text[1]) + strlen(page_text[2]);
  CU_ASSERT_TRUE(first > wheels[0].len);
  CU_ASSERT_EQUAL(srv.sent, all);
  free_packages();
  stop();
}

static int calls;
static bool cancel_at_third(void *user, const struct foray_pull_progress *p) {
  CU_ASSERT_TRUE(p->done <= p->total && p->total == entry.bytes);
  return ++calls < *(int *)user;
}

TEST(cancelling_leaves_what_a_later_pull_continues) {
  make_content();
  start();
  add_packages();
  struct foray_err err = {0};
  int limit = 1;
  calls = 0;
  CU_ASSERT_EQUAL(
      pull(&packages, 1, (struct foray_pull_opts){.progress = cancel_at_third, .user = &limit}, &err),
      FORAY_E_CANCELLED);
  limit = 1 << 30;
  CU_ASSERT_EQUAL(
      pull(&packages, 1, (struct foray_pull_opts){.progress = cancel_at_third, .user = &limit}, &err),
      FORAY_OK);
  CU_ASSERT_TRUE(calls > 2);
  free_packages();
  stop();
}

TEST(missing_pages_versions_and_hashes_are_told) {
  make_content();
  start();
  add_packages();
  struct foray_err err = {0};
  struct foray_source s = packages;
  s.where = "other%d";
  CU_ASSERT_EQUAL(pull(&s, 1, (struct foray_pull_opts){.tries = 3}, &err), FORAY_E_NET);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "/simple/other9/: not found (HTTP 404)"));
  CU_ASSERT_EQUAL(srv.requests, 1); /* a missing page is not asked for again */
  s = packages;
  s.version = "3.0";
  CU_ASSERT_EQUAL(pull(&s, 1, (struct foray_pull_opts){0}, &err), FORAY_E_NET);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "no wheel of version 3.0"));
  s = packages;
  s.member = "absent%d";
  CU_ASSERT_EQUAL(pull(&s, 1, (struct foray_pull_opts){0}, &err), FORAY_E_NET);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "no file 'absent9'"));
  wheels[0].data[60] ^= 1;
  CU_ASSERT_EQUAL(pull(&packages, 1, (struct foray_pull_opts){0}, &err), FORAY_E_MISMATCH);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "the index says"));
  free_packages();
  stop();
}

TEST(broken_archives_are_refused) {
  make_content();
  struct foray_buf z;
  FILE *out = tmpfile();
  CU_ASSERT_PTR_NOT_NULL_FATAL(out);
  for (int deflated = 0; deflated < 2; deflated++) {
    make_zip(&z, "d/part.bin", content, 3000, deflated);
    CU_ASSERT_EQUAL(foray_zip_extract_memory(z.data, z.len, "z", "part.bin", 3000, out, NULL), FORAY_OK);
    CU_ASSERT_EQUAL(foray_zip_extract_memory(z.data, z.len, "z", "part.bin", 2999, out, NULL), FORAY_E_LIMIT);
    CU_ASSERT_EQUAL(foray_zip_extract_memory(z.data, z.len, "z", "art.bin", 3000, out, NULL),
                    FORAY_E_NOTFOUND);
    for (size_t n = 0; n < z.len;
         n += n < 200 ? 1 : 37) { /* a copy of exactly that size, for AddressSanitizer */
      uint8_t *copy = malloc(n + 1);
      memcpy(copy, z.data, n);
      CU_ASSERT_NOT_EQUAL(foray_zip_extract_memory(copy, n, "z", "part.bin", 3000, out, NULL), FORAY_OK);
      free(copy);
    }
    int survived = 0;
    for (size_t i = 0; i < z.len;
         i++) { /* the data is covered by its checksum, so that hardly a change goes unseen */
      z.data[i] ^= 0x55;
      survived += foray_zip_extract_memory(z.data, z.len, "z", "part.bin", 3000, out, NULL) == FORAY_OK;
      z.data[i] ^= 0x55;
    }
    CU_ASSERT_TRUE(survived < 250); /* other entries, names, dates */
    foray_buf_deinit(&z);
  }
  fclose(out);
}

TEST(index_url_comes_from_the_environment_and_pip_conf) {
  char u[256], conf[] = "/tmp/foray-pip-XXXXXX";
  int fd = mkstemp(conf);
  const char *text =
      "# x\n[list]\nindex-url = http://wrong\n[global]\ncert = a\nindex-url = http://from.conf/simple \n";
  CU_ASSERT_EQUAL(write(fd, text, strlen(text)), (ssize_t)strlen(text));
  close(fd);
  unsetenv("FORAY_INDEX_URL");
  unsetenv("PIP_INDEX_URL");
  setenv("PIP_CONFIG_FILE", conf, 1);
  CU_ASSERT_EQUAL(foray_pull_index_url(u, sizeof u, NULL), FORAY_OK);
  CU_ASSERT_STRING_EQUAL(u, "http://from.conf/simple");
  setenv("PIP_INDEX_URL", "http://from.pip", 1);
  CU_ASSERT_EQUAL(foray_pull_index_url(u, sizeof u, NULL), FORAY_OK);
  CU_ASSERT_STRING_EQUAL(u, "http://from.pip");
  setenv("FORAY_INDEX_URL", "http://ours", 1);
  CU_ASSERT_EQUAL(foray_pull_index_url(u, sizeof u, NULL), FORAY_OK);
  CU_ASSERT_STRING_EQUAL(u, "http://ours");
  unlink(conf);
  unsetenv("FORAY_INDEX_URL");
  unsetenv("PIP_INDEX_URL");
  unsetenv("PIP_CONFIG_FILE");
}

TEST(catalogue_entries_are_complete) {
  CU_ASSERT_EQUAL(foray_catalogue_count(), 4);
  for (size_t i = 0; i < foray_catalogue_count(); i++) {
    const struct foray_catalogue_entry *e = foray_catalogue_at(i);
    CU_ASSERT_EQUAL(strlen(e->sha256), 64);
    CU_ASSERT_TRUE(e->bytes > 1 << 26);
    CU_ASSERT_PTR_EQUAL(foray_catalogue_find(e->name), e);
  }
  struct foray_err err = {0};
  CU_ASSERT_EQUAL(foray_catalogue_pull("nothing", NULL, NULL, 0, &err), FORAY_E_NOTFOUND);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "gemma3-270m"));
}
