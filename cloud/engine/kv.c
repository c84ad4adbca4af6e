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

static void page_put(struct foray_engine *e, uint16_t *page) {
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

uint64_t foray_engine_kv_bytes(const struct foray_engine *e) { return e->kv_bytes; }

static uint16_t *page_get(struct foray_engine *e) {
  uint16_t *p = e->n_free ? e->free_pages[--e->n_free] : aligned_alloc(64, (size_t)e->info.page_bytes);
  if (p) e->kv_bytes += e->info.page_bytes;
  return p;
}

enum foray_status engine_seq_reserve(struct foray_engine_seq *s, int32_t len, struct foray_err *err) {
  struct foray_engine *e = s->engine;
  const int32_t need = len / EK_PAGE + (len % EK_PAGE != 0);
  if (need <= s->n_pages) return FORAY_OK;
  const uint64_t more = (uint64_t)(need - s->n_pages) * e->info.page_bytes;
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
