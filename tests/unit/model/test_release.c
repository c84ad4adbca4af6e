/* Versions of adapters: every refusal, and a folder that survives a cut at any byte. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/release.h"
#include "unit/harness.h"

static const char BASE[] = "1111111111111111111111111111111111111111111111111111111111111111";
static const char OTHER[] = "2222222222222222222222222222222222222222222222222222222222222222";
static char g_dir[64];
static uint8_t g_secret[32], g_public[32];

static void begin(void) {
  struct foray_err err = {0};
  snprintf(g_dir, sizeof g_dir, "/tmp/foray-rel-XXXXXX");
  CU_ASSERT_FATAL(mkdtemp(g_dir) != NULL);
  CU_ASSERT_FATAL(foray_key_make(g_secret, g_public, &err) == FORAY_OK);
}
static void end(void) {
  char cmd[128];
  snprintf(cmd, sizeof cmd, "rm -rf %s", g_dir);
  CU_ASSERT(system(cmd) == 0);
}
static void make(const char *name, uint64_t sequence, const char *payload, char path[128],
                 char id[FORAY_SHA256_HEX]) {
  struct foray_release_info i = {.sequence = sequence, .metrics = "{\"rouge_l\":31.5}"};
  struct foray_err err = {0};
  snprintf(i.name, sizeof i.name, "%s", name);
  snprintf(i.base_sha256, sizeof i.base_sha256, "%s", BASE);
  snprintf(path, 128, "%s/%s.frel", g_dir, name);
  CU_ASSERT_FATAL(foray_release_make(&i, payload, strlen(payload), g_secret, path, id, &err) == FORAY_OK);
}
static uint8_t *slurp(const char *path, size_t *n) {
  FILE *f = fopen(path, "rb");
  uint8_t *d = malloc(1 << 16);
  CU_ASSERT_FATAL(f != NULL && d != NULL);
  *n = fread(d, 1, 1 << 16, f);
  fclose(f);
  return d;
}
static void spill(const char *path, const uint8_t *d, size_t n) {
  FILE *f = fopen(path, "wb");
  CU_ASSERT_FATAL(f != NULL && fwrite(d, 1, n, f) == n);
  fclose(f);
}

TEST(a_version_says_what_it_is) {
  struct foray_err err = {0};
  struct foray_release *r;
  char path[128], id[FORAY_SHA256_HEX];
  begin();
  make("a", 7, "payload bytes", path, id);
  CU_ASSERT_FATAL(foray_release_open(path, g_public, BASE, 6, &r, &err) == FORAY_OK);
  CU_ASSERT(r->payload_len == 13 && !memcmp(r->payload, "payload bytes", 13));
  CU_ASSERT(!strcmp(r->id, id) && r->info.sequence == 7 && !strcmp(r->info.name, "a"));
  CU_ASSERT(strstr(r->metrics, "31.5") != NULL);
  foray_release_close(r);
  end();
}

TEST(wrong_key_base_order_and_every_damaged_byte_are_refused) {
  struct foray_err err = {0};
  struct foray_release *r;
  char path[128], bad[128], id[FORAY_SHA256_HEX];
  uint8_t secret[32], public[32];
  size_t n;
  begin();
  make("a", 7, "payload bytes", path, id);
  snprintf(bad, sizeof bad, "%s/bad", g_dir);
  CU_ASSERT_FATAL(foray_key_make(secret, public, &err) == FORAY_OK);
  CU_ASSERT(foray_release_open(path, public, BASE, 0, &r, &err) == FORAY_E_MISMATCH &&
            strstr(err.msg, "signature"));
  CU_ASSERT(foray_release_open(path, g_public, OTHER, 0, &r, &err) == FORAY_E_MISMATCH &&
            strstr(err.msg, "base model"));
  CU_ASSERT(foray_release_open(path, g_public, BASE, 7, &r, &err) == FORAY_E_STATE);
  CU_ASSERT(foray_release_open(path, g_public, BASE, 9, &r, &err) == FORAY_E_STATE);
  uint8_t *d = slurp(path, &n);
  for (size_t i = 0; i < n; i++) {
    spill(bad, d, i);
    CU_ASSERT(foray_release_open(bad, g_public, BASE, 0, &r, &err) == FORAY_E_FORMAT);
    for (int bit = 0; bit < 8; bit += 5) {
      d[i] ^= (uint8_t)(1u << bit);
      spill(bad, d, n);
      enum foray_status st = foray_release_open(bad, g_public, BASE, 0, &r, &err);
      CU_ASSERT(st == FORAY_E_FORMAT || st == FORAY_E_MISMATCH);
      d[i] ^= (uint8_t)(1u << bit);
    }
  }
  d = realloc(d, n + 1);
  d[n] = 0;
  spill(bad, d, n + 1);
  CU_ASSERT(foray_release_open(bad, g_public, BASE, 0, &r, &err) == FORAY_E_FORMAT);
  free(d);
  end();
}

TEST(install_replay_rollback) {
  struct foray_err err = {0};
  struct foray_shelf s;
  struct foray_release *r;
  char p[3][128], id[3][FORAY_SHA256_HEX], dir[96];
  begin();
  for (int i = 0; i < 3; i++)
    make(i == 0 ? "one" : i == 1 ? "two" : "three", (uint64_t)(10 + i), i ? "second" : "first", p[i], id[i]);
  snprintf(dir, sizeof dir, "%s/shelf", g_dir);
  CU_ASSERT_FATAL(foray_shelf_open(dir, g_public, BASE, &s, &err) == FORAY_OK);
  CU_ASSERT(foray_shelf_current(&s, &r, &err) == FORAY_OK && !r);
  CU_ASSERT(foray_shelf_rollback(&s, &err) == FORAY_E_STATE);
  CU_ASSERT(foray_shelf_install(&s, p[0], &err) == FORAY_OK);
  CU_ASSERT(foray_shelf_install(&s, p[1], &err) == FORAY_OK);
  CU_ASSERT(foray_shelf_install(&s, p[0], &err) == FORAY_E_STATE); /* older */
  CU_ASSERT(foray_shelf_install(&s, p[1], &err) == FORAY_E_STATE); /* the same again */
  CU_ASSERT(!strcmp(s.current, id[1]) && !strcmp(s.previous, id[0]));
  CU_ASSERT(foray_shelf_rollback(&s, &err) == FORAY_OK && !strcmp(s.current, id[0]));
  CU_ASSERT(foray_shelf_install(&s, p[1], &err) == FORAY_E_STATE); /* what was taken back stays out */
  CU_ASSERT_FATAL(foray_shelf_open(dir, g_public, BASE, &s, &err) == FORAY_OK);
  CU_ASSERT(!strcmp(s.current, id[0]) && s.floor == 11);
  CU_ASSERT(foray_shelf_install(&s, p[2], &err) == FORAY_OK);
  CU_ASSERT(foray_shelf_current(&s, &r, &err) == FORAY_OK && r && !strcmp(r->info.name, "three"));
  foray_release_close(r);
  end();
}

/* Power cut while version two is installed over version one: the new file and the pointer are written beside,
 * so each prefix of either leaves version one; a damaged file of the current version leaves the one before
 * it. */
TEST(a_cut_at_any_byte_leaves_a_complete_version) {
  struct foray_err err = {0};
  struct foray_shelf s;
  char p[2][128], id[2][FORAY_SHA256_HEX], dir[96], path[256];
  size_t n;
  begin();
  make("one", 1, "first", p[0], id[0]);
  make("two", 2, "second", p[1], id[1]);
  snprintf(dir, sizeof dir, "%s/shelf", g_dir);
  CU_ASSERT_FATAL(foray_shelf_open(dir, g_public, BASE, &s, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_shelf_install(&s, p[0], &err) == FORAY_OK);
  uint8_t *d = slurp(p[1], &n);
  for (size_t i = 0; i <= n; i++) {
    snprintf(path, sizeof path, "%s/%s.frel.tmp", dir, id[1]);
    spill(path, d, i);
    CU_ASSERT_FATAL(foray_shelf_open(dir, g_public, BASE, &s, &err) == FORAY_OK);
    CU_ASSERT(!strcmp(s.current, id[0]));
  }
  snprintf(path, sizeof path, "%s/current.tmp", dir);
  for (size_t i = 0; i < 130; i++) {
    spill(path, d, i);
    CU_ASSERT(foray_shelf_open(dir, g_public, BASE, &s, &err) == FORAY_OK && !strcmp(s.current, id[0]));
  }
  CU_ASSERT_FATAL(foray_shelf_install(&s, p[1], &err) == FORAY_OK);
  snprintf(path, sizeof path, "%s/%s.frel", dir, id[1]);
  for (size_t i = 0; i < n; i += 3) { /* a disk that lost the end of a file */
    spill(path, d, i);
    CU_ASSERT(foray_shelf_open(dir, g_public, BASE, &s, &err) == FORAY_OK && !strcmp(s.current, id[0]));
  }
  snprintf(path, sizeof path, "%s/current", dir);
  spill(path, (const uint8_t *)"nonsense", 8);
  CU_ASSERT(foray_shelf_open(dir, g_public, BASE, &s, &err) == FORAY_OK && !strcmp(s.current, id[0]) &&
            s.floor == 1);
  spill(path, (const uint8_t *)"", 0);
  CU_ASSERT(foray_shelf_open(dir, g_public, BASE, &s, &err) == FORAY_OK && !strcmp(s.current, id[0]));
  free(d);
  end();
}

TEST(keys_on_disk) {
  struct foray_err err = {0};
  char path[128];
  uint8_t k[32];
  struct stat info;
  begin();
  snprintf(path, sizeof path, "%s/key", g_dir);
  CU_ASSERT(foray_key_save(path, g_secret, true, &err) == FORAY_OK);
  CU_ASSERT(foray_key_save(path, g_secret, true, &err) == FORAY_E_IO); /* never over an old one */
  CU_ASSERT(stat(path, &info) == 0 && (info.st_mode & 0777) == 0600);
  CU_ASSERT(foray_key_load(path, k, &err) == FORAY_OK && !memcmp(k, g_secret, 32));
  CU_ASSERT(foray_key_public(k, k, &err) == FORAY_OK && !memcmp(k, g_public, 32));
  spill(path, (const uint8_t *)"12ab\n", 5);
  CU_ASSERT(foray_key_load(path, k, &err) == FORAY_E_FORMAT);
  CU_ASSERT(foray_key_load("/nonexistent", k, &err) == FORAY_E_NOTFOUND);
  end();
}
