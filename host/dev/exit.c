#include "dev/exit.h"

#include "core/imath.h"

#include <string.h>

#define LN2_Q32 2977044472LL

void foray_exit_clear(struct foray_exit_unit *u) {
  memset(u, 0, sizeof *u);
  for (int k = 0; k < FORAY_ABI_TOPK; k++) u->top_logit[k] = -INT32_MAX, u->top_id[k] = UINT32_MAX;
  u->best_key = INT64_MIN;
  u->best_id = UINT32_MAX;
}

/* 2^-(d / 2^16) for d >= 0, Q16. */
static int32_t neg_power_q16(int64_t d) {
  if (d <= 0) return 65536;
  return (int32_t)foray_rshift_round(foray_exp2_neg_q30((uint32_t)(d & 0xffff)),
                                     14 + (int)(d >> 16 > 40 ? 40 : d >> 16));
}

/* v (Q32, |v| < 2^41) * ln 2, as Q16. */
static int64_t ln2_q16(int64_t v) { return foray_rshift_round((v >> 10) * (LN2_Q32 >> 8), 22 + 24 - 16); }

static void evidence(const struct foray_exit_unit *u, struct foray_rec_ring *r) {
  int64_t alpha[FORAY_ABI_TOPK], sum = 0;
  const int64_t cap = 4095 << 16;
  for (int k = 0; k < FORAY_ABI_TOPK; k++) {
    int64_t a = u->top_logit[k];
    alpha[k] = a < 0 ? 0 : a > cap ? cap : a;
    sum += alpha[k];
  }
  const int64_t all = (int64_t)FORAY_ABI_TOPK << 16;
  r->epistemic = (int32_t)((all << 16) / (sum + all));
  r->aleatoric = 0;
  if (sum == 0) return;
  int64_t psi0 = foray_digamma_q16((uint32_t)(sum + 65536)), total = 0;
  for (int k = 0; k < FORAY_ABI_TOPK; k++)
    total += alpha[k] * (psi0 - foray_digamma_q16((uint32_t)(alpha[k] + 65536)));
  r->aleatoric = foray_sat32(total / sum);
}

void foray_exit_finish(const struct foray_exit_unit *u, int32_t cum_before, struct foray_rec_ring *r) {
  int top = 511;
  while (top > 0 && u->bin_z[top] == 0) top--;
  int64_t z = 0, n = 0;
  for (int i = top; i >= 0 && i > top - 40; i--) {
    z += (int64_t)(u->bin_z[i] >> (top - i));
    n += ((i - top) * (int64_t)u->bin_z[i] + (int64_t)u->bin_fz[i]) >> (top - i);
  }
  int64_t mant = foray_log2_q32((uint64_t)z) - ((int64_t)30 << 32); /* log2 of Z against 2^(top - 256) */
  int64_t log2z = mant + (top - 256) * ((int64_t)1 << 32);
  int sh = foray_bitlen64(z) > 40 ? foray_bitlen64(z) - 40 : 0;
  int64_t mean = ((n >> sh) * 65536) / (z >> sh); /* mean of (log2 weight - (top - 256)), Q16 */
  int64_t entropy = ln2_q16(mant - mean * 65536);
  r->entropy = foray_sat32(entropy < 0 ? 0 : entropy);
  r->log_z = foray_sat32(ln2_q16(log2z));
  int64_t lz16 = foray_rshift_round(log2z, 16);
  int64_t z1 = foray_rshift_round(u->top_logit[0] * INT64_C(1549082005), 30);
  int64_t z2 = foray_rshift_round(u->top_logit[1] * INT64_C(1549082005), 30);
  r->top_prob = neg_power_q16(lz16 - z1);
  r->margin = u->rows > 1 ? r->top_prob - neg_power_q16(lz16 - z2) : r->top_prob;
  r->logit_gap = foray_sat32((int64_t)u->top_logit[0] - u->top_logit[1]);
  int64_t cum = cum_before + (z1 - lz16 > 0 ? 0 : z1 - lz16);
  r->cum = foray_sat32(cum);
  evidence(u, r);
  r->token = u->best_id;
  r->logprob = foray_sat32((int64_t)u->best_logit - r->log_z);
  r->rows = u->rows;
  for (int k = 0; k < FORAY_ABI_TOPK; k++) r->top_id[k] = u->top_id[k], r->top_logit[k] = u->top_logit[k];
}

int64_t foray_exit_rule(const int32_t *c, const struct foray_rec_ring *r) {
  const int32_t f[FORAY_ABI_FEATURES] = {
      0, r->top_prob, r->margin, r->entropy, r->aleatoric, r->epistemic, r->logit_gap, r->cum};
  int64_t s = c[0];
  for (int k = 1; k < FORAY_ABI_FEATURES; k++) s += foray_rshift_round((int64_t)c[k] * f[k], 16);
  return s;
}
