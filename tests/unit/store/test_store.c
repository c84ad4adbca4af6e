/* The cloud's versions: order, parents, states, and what a board then takes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/store.h"
#include "unit/harness.h"

static const char BASE[] = "1111111111111111111111111111111111111111111111111111111111111111";
static const char OTHER[] = "2222222222222222222222222222222222222222222222222222222222222222";

struct seen {
  int n;
  struct foray_version v[8];
};
static void see(void *arg, const struct foray_version *v) {
  struct seen *s = arg;
  if (s->n < 8) s->v[s->n++] = *v;
}
static enum foray_status add(struct foray_store *s, const char *base, const char *parent, const char *bytes,
                             char id[FORAY_SHA256_HEX], struct foray_err *err) {
  struct foray_release_info i = {.name = "x", .metrics = "{\"em\": 12}"};
  snprintf(i.base_sha256, sizeof i.base_sha256, "%s", base);
  snprintf(i.parent, sizeof i.parent, "%s", parent);
  return foray_store_add(s, &i, bytes, strlen(bytes), id, err);
}

TEST(versions_of_a_store_reach_a_board) {
  struct foray_err err = {0};
  struct foray_store *s, *again;
  struct foray_shelf shelf;
  uint8_t secret[32], public[32];
  char dir[64] = "/tmp/foray-store-XXXXXX", path[256], board[96], a[FORAY_SHA256_HEX], b[FORAY_SHA256_HEX],
       c[FORAY_SHA256_HEX], d[FORAY_SHA256_HEX];
  CU_ASSERT_FATAL(mkdtemp(dir) != NULL && foray_key_make(secret, public, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_store_open(dir, secret, &s, &err) == FORAY_OK);
  CU_ASSERT(add(s, BASE, "", "one", a, &err) == FORAY_OK);
  CU_ASSERT(add(s, BASE, a, "two", b, &err) == FORAY_OK);
  CU_ASSERT(add(s, OTHER, "", "one", c, &err) == FORAY_OK);
  CU_ASSERT(add(s, BASE, "", "one", d, &err) == FORAY_OK && !strcmp(a, d)); /* the same again */
  CU_ASSERT(add(s, BASE, "ffffffff", "three", d, &err) == FORAY_E_NOTFOUND);
  CU_ASSERT(add(s, BASE, "zz", "three", d, &err) == FORAY_E_ARG);
  foray_store_close(s);
  CU_ASSERT_FATAL(foray_store_open(dir, secret, &again, &err) == FORAY_OK);
  struct seen seen = {0};
  CU_ASSERT(foray_store_each(again, BASE, see, &seen, &err) == FORAY_OK && seen.n == 2);
  CU_ASSERT(!strcmp(seen.v[0].id, b) && seen.v[0].sequence == 2 && !strcmp(seen.v[0].parent, a));
  CU_ASSERT(!strcmp(seen.v[1].id, a) && seen.v[1].sequence == 1);
  CU_ASSERT(foray_store_set_state(again, a, FORAY_VERSION_SERVED, &err) == FORAY_OK);
  CU_ASSERT(foray_store_set_state(again, c, FORAY_VERSION_SERVED, &err) == FORAY_OK);
  CU_ASSERT(foray_store_set_state(again, b, FORAY_VERSION_SERVED, &err) ==
            FORAY_OK); /* ends that of a, not of c */
  seen.n = 0;
  CU_ASSERT(foray_store_each(again, NULL, see, &seen, &err) == FORAY_OK && seen.n == 3);
  for (int i = 0; i < 3; i++)
    CU_ASSERT(seen.v[i].state == (strcmp(seen.v[i].id, a) ? FORAY_VERSION_SERVED : FORAY_VERSION_NEW));
  CU_ASSERT(foray_store_set_state(again, b, FORAY_VERSION_REVOKED, &err) == FORAY_OK);
  snprintf(board, sizeof board, "%s/board", dir);
  CU_ASSERT_FATAL(foray_shelf_open(board, public, BASE, &shelf, &err) == FORAY_OK);
  char part[9];
  memcpy(part, a, 8), part[8] = 0;
  CU_ASSERT(foray_store_path(again, part, path, sizeof path, &err) == FORAY_OK);
  CU_ASSERT(foray_shelf_install(&shelf, path, &err) == FORAY_OK && !strcmp(shelf.current, a));
  CU_ASSERT(foray_store_path(again, c, path, sizeof path, &err) == FORAY_OK);
  CU_ASSERT(foray_shelf_install(&shelf, path, &err) == FORAY_E_MISMATCH); /* another base model */
  CU_ASSERT(foray_store_path(again, "abcd", path, sizeof path, &err) == FORAY_E_NOTFOUND ||
            !strncmp(a, "abcd", 4));
  foray_store_close(again);
  snprintf(path, sizeof path, "rm -rf %s", dir);
  CU_ASSERT(system(path) == 0);
}
