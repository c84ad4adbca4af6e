/* Pages of keys and values. A page holds 64 positions of one sequence, all layers and heads, as half floats:
 * keys [head_dim][64] (16 positions in the lanes of a score), then values [64][head_dim]. */
#include "engine/internal.h"

#include "core/err.h"

#include <stdlib.h>
#include <string.h>

size_t engine_page_offset(const struct foray_engine *e, int layer, int kv_head) {
  return ((size_t)layer * e->cfg.n_head_kv + (size_t)kv_head) * 2 * EK_PAGE * e->cfg.head_dim;
}

enum foray_status foray_engine_seq_open(struct foray_engine *e, struct foray_engine_seq **out,
                                        struct foray_err *err) {
  *out = calloc(1, sizeof **out);
  if (!*out) return foray_err_set(err, FORAY_E_NOMEM, "out of memory for a sequence");
  (*out)->engine = e;
  e->n_seqs++;
  return FORAY_OK;
}

/* How many sequences hold a page: behind its values. */
static uint32_t *page_refs(const struct foray_engine *e, uint16_t *page) {
  return (uint32_t *)(void *)((char *)page + e->info.page_bytes);
}

static void page_put(struct foray_engine *e, uint16_t *page) {
  if (--*page_refs(e, page)) return;
  e->kv_bytes -= e->info.page_bytes;
  if (e->n_free < e->cap_free)
    e->free_pages[e->n_free++] = page;
  else
    free(page);
}

void engine_seq_trim(struct foray_engine_seq *s) {
  const int32_t keep = s->len / EK_PAGE + (s->len % EK_PAGE != 0);
  while (s->n_pages > keep) page_put(s->engine, s->pages[--s->n_pages]);
}

void foray_engine_seq_close(struct foray_engine_seq *s) {
  if (!s) return;
  s->len = 0;
  engine_seq_trim(s);
  s->engine->n_seqs--;
  free(s->pages);
  free(s);
}

int32_t foray_engine_seq_len(const struct foray_engine_seq *s) { return s->len; }

enum foray_status foray_engine_seq_truncate(struct foray_engine_seq *s, int32_t len) {
  if (len < 0 || len > s->len) return FORAY_E_ARG;
  if (len == s->len) return FORAY_OK;
  s->len = len;
  engine_seq_trim(s);
#ifdef FORAY_MUTANT_KV_OFF_BY_ONE
  s->mutant_kv = 1;
#endif
#ifdef FORAY_MUTANT_ROPE_AFTER_ROLLBACK
  s->mutant_rope = 1;
#endif
  return FORAY_OK;
}

enum foray_status foray_engine_seq_share(struct foray_engine_seq *dst, const struct foray_engine_seq *src,
                                         int32_t *len, struct foray_err *err) {
  const int32_t n = (*len < src->len ? *len : src->len) / EK_PAGE;
  *len = 0;
  if (dst->engine != src->engine || dst->len || n < 0)
    return foray_err_set(err, FORAY_E_ARG,
                         "a sequence can share its beginning with an empty one of its engine");
  if (n > dst->cap_pages) {
    uint16_t **p = realloc(dst->pages, (size_t)n * sizeof *p);
    if (!p) return foray_err_set(err, FORAY_E_NOMEM, "out of memory for a table of %d pages", (int)n);
    dst->pages = p;
    dst->cap_pages = n;
  }
  for (int32_t i = 0; i < n; i++) {
    dst->pages[i] = src->pages[i];
    ++*page_refs(dst->engine, dst->pages[i]);
  }
  dst->n_pages = n;
  dst->len = *len = n * EK_PAGE;
  return FORAY_OK;
}

uint64_t foray_engine_kv_bytes(const struct foray_engine *e) { return e->kv_bytes; }

static uint16_t *page_get(struct foray_engine *e) {
  uint16_t *p = e->n_free ? e->free_pages[--e->n_free]
                          : aligned_alloc(64, ((size_t)e->info.page_bytes + sizeof(uint32_t) + 63) / 64 * 64);
  if (!p) return NULL;
  e->kv_bytes += e->info.page_bytes;
  *page_refs(e, p) = 1;
  return p;
}

enum foray_status engine_seq_reserve(struct foray_engine_seq *s, int32_t len, struct foray_err *err) {
  struct foray_engine *e = s->engine;
  const int32_t need = len / EK_PAGE + (len % EK_PAGE != 0);
  /* The page that is written on may be shared: a roll-back can end inside one. */
  const int32_t last = s->len / EK_PAGE;
  const bool copy = len > s->len && last<s->n_pages && * page_refs(e, s->pages[last])> 1;
  if (need <= s->n_pages && !copy) return FORAY_OK;
  const uint64_t more = (uint64_t)(need - s->n_pages + copy) * e->info.page_bytes;
  if (e->kv_bytes_max && (more > e->kv_bytes_max || e->kv_bytes > e->kv_bytes_max - more))
    return foray_err_set(err, FORAY_E_LIMIT,
                         "keys and values of %d positions need %llu more bytes; %llu of %llu are in use",
                         (int)len, (unsigned long long)more, (unsigned long long)e->kv_bytes,
                         (unsigned long long)e->kv_bytes_max);
  if (need > s->cap_pages) {
    const int32_t cap = need + need / 2;
    uint16_t **p = realloc(s->pages, (size_t)cap * sizeof *p);
    if (!p) return foray_err_set(err, FORAY_E_NOMEM, "out of memory for a table of %d pages", (int)cap);
    s->pages = p;
    s->cap_pages = cap;
  }
  if (copy) {
    uint16_t *p = page_get(e);
    if (!p) return foray_err_set(err, FORAY_E_NOMEM, "out of memory for a page of keys and values");
    memcpy(p, s->pages[last], (size_t)e->info.page_bytes);
    page_put(e, s->pages[last]);
    s->pages[last] = p;
  }
  while (s->n_pages < need) {
    uint16_t *p = page_get(e);
    if (!p) {
      engine_seq_trim(s);
      return foray_err_set(err, FORAY_E_NOMEM, "out of memory for a page of keys and values");
    }
    s->pages[s->n_pages++] = p;
  }
  return FORAY_OK;
}
