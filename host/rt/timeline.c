#include "rt/timeline.h"

#include "core/err.h"

#include <stdlib.h>
#include <string.h>

void foray_timeline_init(struct foray_timeline *t, uint32_t max, uint64_t seed) {
  *t = (struct foray_timeline){.max = max, .seed = seed};
}

void foray_timeline_deinit(struct foray_timeline *t) {
  free(t->tok);
  *t = (struct foray_timeline){0};
}

static enum foray_status room(struct foray_timeline *t, uint32_t at, uint32_t n, struct foray_err *err) {
  if (n > t->max || at > t->max - n)
    return foray_err_set(err, FORAY_E_LIMIT, "context is full: %u tokens do not fit behind %u of %u", n, at,
                         t->max);
  uint32_t need = at + n;
  if (need <= t->cap) return FORAY_OK;
  uint32_t cap = t->cap ? t->cap : 256;
  while (cap < need) cap = cap > UINT32_MAX / 2 ? need : cap * 2;
  uint32_t *p = realloc(t->tok, (size_t)cap * sizeof *p);
  if (!p) return foray_err_set(err, FORAY_E_NOMEM, "timeline of %u tokens: out of memory", cap);
  t->tok = p;
  t->cap = cap;
  return FORAY_OK;
}

enum foray_status foray_timeline_start(struct foray_timeline *t, const uint32_t *prompt, uint32_t n,
                                       struct foray_err *err) {
  enum foray_status s = room(t, 0, n, err);
  if (s != FORAY_OK) return s;
  if (n) memcpy(t->tok, prompt, (size_t)n * sizeof *prompt);
  t->n = t->n_prompt = t->n_committed = n;
  return FORAY_OK;
}

enum foray_status foray_timeline_draft(struct foray_timeline *t, const uint32_t *ids, uint32_t n,
                                       struct foray_err *err) {
  enum foray_status s = room(t, t->n, n, err);
  if (s != FORAY_OK) return s;
  if (n) memcpy(t->tok + t->n, ids, (size_t)n * sizeof *ids);
  t->n += n;
  return FORAY_OK;
}

enum foray_status foray_timeline_commit(struct foray_timeline *t, uint32_t at, const uint32_t *ids,
                                        uint32_t n, uint32_t *kept, struct foray_err *err) {
  if (at != t->n_committed)
    return foray_err_set(err, FORAY_E_STATE, "tokens for position %u where %u is next", at, t->n_committed);
  uint32_t k = 0;
  while (k < n && at + k < t->n && t->tok[at + k] == ids[k]) k++;
  if (k < n) { /* a difference, or more than the tail had */
    enum foray_status s = room(t, at, n, err);
    if (s != FORAY_OK) return s;
    memcpy(t->tok + at + k, ids + k, (size_t)(n - k) * sizeof *ids);
    t->n = at + n;
  }
  t->n_committed = at + n;
  if (kept) *kept = k;
  return FORAY_OK;
}

void foray_timeline_truncate(struct foray_timeline *t, uint32_t n) {
  if (n < t->n_prompt) n = t->n_prompt;
  if (n < t->n) t->n = n;
  if (t->n_committed > t->n) t->n_committed = t->n;
}
