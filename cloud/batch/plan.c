#include "batch/plan.h"

#include <stdbool.h>
#include <string.h>

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

static int64_t class_of(const struct foray_plan_want *w, const struct foray_plan_limits *l) {
  int64_t c = w->priority;
  if (l->age_ns > 0 && l->now > w->since) c -= (l->now - w->since) / l->age_ns;
  return c < 0 ? 0 : c;
}

/* True when b goes strictly before a; so that a stable sort keeps ties in their order. */
static bool before(const struct foray_plan_want *b, const struct foray_plan_want *a,
                   const struct foray_plan_limits *l) {
  const int64_t cb = class_of(b, l), ca = class_of(a, l);
  if (cb != ca) return cb < ca;
  const bool ob = b->deadline && b->deadline <= l->now, oa = a->deadline && a->deadline <= l->now;
  if (ob != oa) return ob;
  if (ob && b->deadline != a->deadline) return b->deadline < a->deadline;
  if (b->share < a->share || b->share > a->share) return b->share < a->share;
  return b->since < a->since;
}

/* Merge sort, bottom up: v[0..n) by before(); v has room for 2 n. */
static void sort(const struct foray_plan_want *w, uint32_t n, const struct foray_plan_limits *l,
                 uint32_t *v) {
  uint32_t *from = v, *to = v + n;
  for (uint32_t i = 0; i < n; i++) v[i] = i;
  for (uint32_t step = 1; step < n; step *= 2) {
    for (uint32_t at = 0; at < n; at += 2 * step) {
      uint32_t a = at, mid = least(at + step, n), b = mid, end = least(at + 2 * step, n);
      for (uint32_t k = at; k < end; k++)
        to[k] = a < mid && (b == end || !before(&w[from[b]], &w[from[a]], l)) ? from[a++] : from[b++];
    }
    uint32_t *t = from;
    from = to;
    to = t;
  }
  if (from != v) memcpy(v, from, n * sizeof *v);
}

uint32_t foray_plan_draft_max(uint32_t rows, uint32_t sessions, uint32_t draft_max) {
  if (sessions == 0) return draft_max;
  const uint32_t each = rows / sessions;
  return each < 2 ? least(1, draft_max) : least(each - 1, draft_max);
}

uint32_t foray_plan_pass(const struct foray_plan_want *w, uint32_t n, const struct foray_plan_limits *l,
                         uint32_t *order, struct foray_plan_item *out) {
  sort(w, n, l, order);
  uint32_t n_out = 0, rows = l->rows, tokens = l->tokens;
  uint32_t slice = l->slice ? l->slice : 1;
  /* Those that can choose now: one row each first, so that a long draft of one does not shut others out... */
  for (uint32_t i = 0; i < n && n_out < l->items; i++) {
    const struct foray_plan_want *v = &w[order[i]];
    if (v->uncached > slice || rows < 1 || (tokens < v->uncached && n_out)) continue;
    out[n_out++] = (struct foray_plan_item){order[i], v->uncached, 0, 1};
    rows -= 1;
    tokens -= least(tokens, v->uncached);
  }
  /* ... then the guesses, in the same order. */
  for (uint32_t i = 0; i < n_out; i++) {
    uint32_t m = least(w[out[i].want].guesses, least(rows, tokens));
    out[i].guesses = m;
    rows -= m;
    tokens -= m;
  }
  /* Prompts take what is left; the first of all gets a slice even when nothing is left. Beside somebody who
   * waits for a choice they stay short, or every prompt would be heard as a pause by all others. */
  if (n_out && l->beside) tokens = least(tokens, l->beside);
  for (uint32_t i = 0; i < n && n_out < l->items; i++) {
    const struct foray_plan_want *v = &w[order[i]];
    if (v->uncached <= slice) continue;
    uint32_t m = i == 0 && tokens == 0 ? least(slice, l->beside ? l->beside : slice) : least(slice, tokens);
    if (m == 0) continue;
    out[n_out++] = (struct foray_plan_item){order[i], m, 0, 0};
    tokens -= least(tokens, m);
  }
  if (n_out == 0 && n) { /* limits too small for anything: the first alone */
    const struct foray_plan_want *v = &w[order[0]];
    uint32_t feed = least(v->uncached, slice);
    out[n_out++] = (struct foray_plan_item){order[0], feed, 0, feed == v->uncached};
  }
  return n_out;
}
