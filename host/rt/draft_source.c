/* The drafter as a session sees it (rt/session.h); apart, so that a session can be had without devices. */
#include "rt/session.h"

static enum foray_status src_sync(void *ctx, const uint32_t *tokens, uint32_t n, struct foray_err *err) {
  return foray_drafter_sync(ctx, tokens, n, err);
}
static enum foray_status src_draft(void *ctx, const struct foray_draft_params *p, struct foray_draft *out,
                                   uint32_t *n_out, struct foray_err *err) {
  return foray_drafter_draft(ctx, p, out, n_out, err);
}
static enum foray_status src_prefill(void *ctx, uint64_t *bytes, struct foray_err *err) {
  struct foray_drafter_stats a, b;
  foray_drafter_stats(ctx, &a);
  enum foray_status s = foray_drafter_prefill(ctx, err);
  foray_drafter_stats(ctx, &b);
  *bytes = b.bytes_weights + b.bytes_kv - a.bytes_weights - a.bytes_kv;
  return s;
}
struct foray_draft_source foray_drafter_source(struct foray_drafter *d) {
  return (struct foray_draft_source){.ctx = d,
                                     .sync = src_sync,
                                     .draft = src_draft,
                                     .prefill = src_prefill,
                                     .n_exits = foray_drafter_exits(d),
                                     .ctx_max = foray_drafter_ctx(d)};
}
