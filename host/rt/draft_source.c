/* The drafter as a session sees it (rt/session.h); apart, so that a session can be had without devices. */
#include "rt/session.h"

static enum foray_status src_sync(void *ctx, const uint32_t *tokens, uint32_t n, struct foray_err *err) {
  return foray_drafter_sync(ctx, tokens, n, err);
}
static enum foray_status src_draft(void *ctx, const struct foray_draft_params *p, struct foray_draft *out,
                                   uint32_t *n_out, struct foray_err *err) {
  return foray_drafter_draft(ctx, p, out, n_out, err);
}
struct foray_draft_source foray_drafter_source(struct foray_drafter *d) {
  return (struct foray_draft_source){.ctx = d,
                                     .sync = src_sync,
                                     .draft = src_draft,
                                     .n_exits = foray_drafter_exits(d),
                                     .ctx_max = foray_drafter_ctx(d)};
}
