/* The exit unit's stream, docs/numerics.md 9, and the table of plain kernels. */
#include "dev/ref.h"

#include "core/imath.h"
#include "core/noise.h"

static void top_insert(struct foray_exit_unit *u, int32_t logit, uint32_t id) {
  int k = FORAY_ABI_TOPK;
  while (k > 0 && (logit > u->top_logit[k - 1] || (logit == u->top_logit[k - 1] && id < u->top_id[k - 1]))) {
    if (k < FORAY_ABI_TOPK) u->top_logit[k] = u->top_logit[k - 1], u->top_id[k] = u->top_id[k - 1];
    k--;
  }
  if (k < FORAY_ABI_TOPK) u->top_logit[k] = logit, u->top_id[k] = id;
}

void foray_ref_exit_stream(void *arg, const int32_t *logits, const uint32_t *ids, uint32_t n,
                           const struct foray_sampling *s, struct foray_exit_unit *u) {
  (void)arg;
  for (uint32_t r = 0; r < n; r++) {
    int32_t logit = logits[r];
    uint32_t id = ids ? ids[r] : r;
    top_insert(u, logit, id);
    int64_t z = foray_rshift_round(logit * INT64_C(1549082005), 30);
    int64_t bin = (z >> 16) + 256;
    uint32_t b = bin < 0 ? 0 : bin > 511 ? 511 : (uint32_t)bin, f = (uint32_t)(z & 0xffff);
    uint64_t t = (uint64_t)foray_exp2_frac_q30(f);
    u->bin_z[b] += t;
    u->bin_fz[b] += (t * f) >> 16;
    int64_t key = s->on ? foray_rshift_round((int64_t)logit * s->inv_temp, 16) +
                              foray_gumbel_q16(s->seed, s->position, id)
                        : logit;
    if (key > u->best_key || (key == u->best_key && id < u->best_id))
      u->best_key = key, u->best_id = id, u->best_logit = logit;
  }
  u->rows += n;
}

const struct foray_kernels foray_ref_kernels = {
    .embed = foray_ref_embed,
    .rmsnorm = foray_ref_rmsnorm,
    .gemv = foray_ref_gemv,
    .head = foray_ref_head,
    .exit_stream = foray_ref_exit_stream,
    .rope = foray_ref_rope,
    .kv_put = foray_ref_kv_put,
    .attn = foray_ref_attn,
    .silu_mul = foray_ref_silu_mul,
    .quant = foray_ref_quant,
    .add = foray_ref_add,
};
