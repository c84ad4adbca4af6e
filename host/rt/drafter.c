#include "rt/drafter.h"
struct foray_draft_params foray_draft_defaults(void) {
  struct foray_draft_params p = {.max = 8};
  for (int e = 0; e < FORAY_DRAFT_EXITS_MAX; e++) p.exit_top[e] = .7f;
  return p;
}
enum foray_status foray_drafter_sync(struct foray_drafter *d, const uint32_t *tokens, uint32_t n,
                                     struct foray_err *err) {
  (void)d;
  (void)tokens;
  (void)n;
  (void)err;
  return FORAY_E_UNSUPPORTED;
}
enum foray_status foray_drafter_draft(struct foray_drafter *d, const struct foray_draft_params *p,
                                      struct foray_draft *out, uint32_t *n_out, struct foray_err *err) {
  (void)d;
  (void)p;
  (void)out;
  (void)n_out;
  (void)err;
  return FORAY_E_UNSUPPORTED;
}
uint32_t foray_drafter_ctx(const struct foray_drafter *d) {
  (void)d;
  return 0;
}
uint32_t foray_drafter_exits(const struct foray_drafter *d) {
  (void)d;
  return 0;
}
