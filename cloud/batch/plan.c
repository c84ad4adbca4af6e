#include "batch/plan.h"

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

uint32_t foray_plan_pass(const struct foray_plan_want *w, uint32_t n, const struct foray_plan_limits *l,
                         uint32_t *order, struct foray_plan_item *out) {
  /* insertion sort by age; ties keep their order */
  for (uint32_t i = 0; i < n; i++) {
    uint32_t k = i;
    for (; k > 0 && w[order[k - 1]].since > w[i].since; k--) order[k] = order[k - 1];
    order[k] = i;
  }
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
  /* ... then the guesses, oldest first. */
  for (uint32_t i = 0; i < n_out; i++) {
    uint32_t m = least(w[out[i].want].guesses, least(rows, tokens));
    out[i].guesses = m;
    rows -= m;
    tokens -= m;
  }
  /* Prompts take what is left; the oldest of all gets a slice even when nothing is left. */
  for (uint32_t i = 0; i < n && n_out < l->items; i++) {
    const struct foray_plan_want *v = &w[order[i]];
    if (v->uncached <= slice) continue;
    uint32_t m = i == 0 ? slice : least(slice, tokens);
    if (m == 0) continue;
    out[n_out++] = (struct foray_plan_item){order[i], m, 0, 0};
    tokens -= least(tokens, m);
  }
  if (n_out == 0 && n) { /* limits too small for anything: the oldest alone */
    const struct foray_plan_want *v = &w[order[0]];
    uint32_t feed = least(v->uncached, slice);
    out[n_out++] = (struct foray_plan_item){order[0], feed, 0, feed == v->uncached};
  }
  return n_out;
}
