#include "batch/prefix.h"

#include <stdlib.h>
#include <string.h>

struct entry {
  uint64_t tenant, used;
  int32_t *tokens;
  uint32_t n; /* a multiple of the target's page */
  void *seq;
};

struct foray_prefix {
  const struct foray_target *t;
  struct entry *v;
  uint32_t n, max;
  uint64_t clock;
  struct foray_prefix_stats stats;
};

struct foray_prefix *foray_prefix_open(const struct foray_target *t, uint32_t entries_max) {
  if (!t->seq_share || !t->page_tokens || !entries_max) return NULL;
  struct foray_prefix *p = calloc(1, sizeof *p);
  if (!p) return NULL;
  p->t = t;
  p->max = entries_max;
  p->v = calloc(entries_max, sizeof *p->v);
  if (p->v) return p;
  free(p);
  return NULL;
}

static void remove_at(struct foray_prefix *p, uint32_t i) {
  p->t->seq_close(p->t->self, p->v[i].seq);
  free(p->v[i].tokens);
  p->v[i] = p->v[--p->n];
}

void foray_prefix_close(struct foray_prefix *p) {
  if (!p) return;
  while (p->n) remove_at(p, p->n - 1);
  free(p->v);
  free(p);
}

static uint32_t common(const struct entry *e, const int32_t *tokens, uint32_t n) {
  uint32_t most = e->n < n ? e->n : n, k = 0;
  while (k < most && e->tokens[k] == tokens[k]) k++;
  return k;
}

uint32_t foray_prefix_find(struct foray_prefix *p, uint64_t tenant, const int32_t *tokens, uint32_t n,
                           void *seq) {
  if (!p || n < 2) return 0;
  const uint32_t page = p->t->page_tokens;
  struct entry *best = NULL;
  uint32_t len = 0;
  for (uint32_t i = 0; i < p->n; i++) {
    struct entry *e = &p->v[i];
#ifdef FORAY_MUTANT_PREFIX_ACROSS_TENANTS
    (void)tenant;
#else
    if (e->tenant != tenant) continue;
#endif
    uint32_t k = common(e, tokens, n - 1) / page * page; /* the last token makes the logits: it is fed */
    if (k > len) {
      len = k;
      best = e;
    }
  }
  p->stats.queries += n;
  if (!best) return 0;
#ifdef FORAY_MUTANT_PREFIX_PAGE_TOO_MANY
  if (len + page <= best->n && len + page < n) len += page;
#endif
  best->used = ++p->clock;
  if (p->t->seq_share(p->t->self, seq, best->seq, &len) != FORAY_OK) return 0;
  p->stats.hits += len;
  return len;
}

bool foray_prefix_drop(struct foray_prefix *p) {
  if (!p || !p->n) return false;
  uint32_t old = 0;
  for (uint32_t i = 1; i < p->n; i++)
    if (p->v[i].used < p->v[old].used) old = i;
  remove_at(p, old);
  return true;
}

void foray_prefix_keep(struct foray_prefix *p, uint64_t tenant, const int32_t *tokens, uint32_t n,
                       void *seq) {
  if (!p) return;
  const uint32_t page = p->t->page_tokens;
  uint32_t len = n / page * page;
  if (!len) return;
  for (uint32_t i = 0; i < p->n;) {
    struct entry *e = &p->v[i];
    const uint32_t k = e->tenant == tenant ? common(e, tokens, len) : 0;
    if (k == len && k) { /* known already, perhaps with more behind it */
      e->used = ++p->clock;
      return;
    }
    if (k == e->n && k)
      remove_at(p, i); /* a beginning of this one */
    else
      i++;
  }
  if (p->n == p->max) foray_prefix_drop(p);
  struct entry e = {.tenant = tenant, .used = ++p->clock, .tokens = malloc(len * sizeof *e.tokens)};
  if (!e.tokens || p->t->seq_open(p->t->self, &e.seq, NULL) != FORAY_OK) {
    free(e.tokens);
    return;
  }
  if (p->t->seq_share(p->t->self, e.seq, seq, &len) != FORAY_OK || !len) {
    p->t->seq_close(p->t->self, e.seq);
    free(e.tokens);
    return;
  }
  memcpy(e.tokens, tokens, len * sizeof *e.tokens);
  e.n = len;
  p->v[p->n++] = e;
}

void foray_prefix_stats_get(const struct foray_prefix *p, struct foray_prefix_stats *s) {
  *s = p ? p->stats : (struct foray_prefix_stats){0};
  s->entries = p ? p->n : 0;
}
