/* The choice of a token: Gumbel noise from Philox4x32-10, the largest key, docs/numerics.md 9. */
#include "include/hls_ops.h"

/* Word `id mod 4` of the generator's block `id div 4`. */
static uint32_t philox_word(uint64_t seed, uint32_t position, uint32_t id) {
  uint32_t c[4] = {id >> 2, position, 0x464F5241, 0}, k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int round = 0; round < 10; round++) {
    HLS_UNROLL
    uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
    c[0] = (uint32_t)(b >> 32) ^ c[1] ^ k0;
    c[2] = (uint32_t)(a >> 32) ^ c[3] ^ k1;
    c[1] = (uint32_t)b;
    c[3] = (uint32_t)a;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c[id & 3];
}

/* -ln(-ln u), u = (2 w + 1) / 2^33: the inner logarithm from log2 below one half, from the series table of
 * -ln(1 - v) / v above. */
int32_t hls_gumbel(uint64_t seed, uint32_t position, uint32_t id) {
  uint32_t w = philox_word(seed, position, id);
  uint64_t u = 2 * (uint64_t)w + 1, e;
  int frac;
  if (w >> 31) {
    uint64_t v = ((uint64_t)1 << 33) - u;
    uint32_t i = (uint32_t)(v >> 23);
    uint64_t lo = foray_tab_nlog[i], step = foray_tab_nlog[i + 1] - lo;
    e = v * (lo + ((step * (v & 0x7fffff)) >> 23));
    frac = 63;
  } else {
    e = (uint64_t)(((int64_t)33 << 32) - hls_log2_q32(u));
    e = ((e >> 8) * (uint64_t)HLS_LN2_Q32) >> 6;
    frac = 50;
  }
  int64_t l = ((int64_t)frac << 32) - hls_log2_q32(e);
  return (int32_t)hls_round((l >> 4) * (HLS_LN2_Q32 >> 4), 40);
}

void hls_sample_take(struct hls_exit *u, const struct hls_sampling *s, int32_t logit, uint32_t id) {
  int64_t key = logit;
  if (s->on) key = hls_round((int64_t)logit * s->inv_temp, 16) + hls_gumbel(s->seed, s->position, id);
  if (key > u->best_key || (key == u->best_key && id < u->best_id)) {
    u->best_key = key;
    u->best_id = id;
    u->best_logit = logit;
  }
}

HLS_MEMORY(heap, gmem)
void foray_hls_sample(foray_word *heap, uint32_t logits, uint32_t n, uint32_t sample, uint32_t inv_temp,
                      uint64_t seed, uint32_t position, uint32_t out) {
#ifdef FORAY_HLS_TOP_sample
  HLS_PORT_HEAP
  HLS_PORT_SCALAR(logits)
  HLS_PORT_SCALAR(n)
  HLS_PORT_SCALAR(sample)
  HLS_PORT_SCALAR(inv_temp)
  HLS_PORT_SCALAR(seed)
  HLS_PORT_SCALAR(position)
  HLS_PORT_SCALAR(out)
  HLS_PORT_RETURN
#endif
  HLS_LOCAL struct hls_exit u;
  struct hls_sampling s;
  s.on = sample;
  s.inv_temp = inv_temp;
  s.seed = seed;
  s.position = position;
  u.best_key = INT64_MIN;
  u.best_id = UINT32_MAX;
  u.best_logit = 0;
  for (uint32_t i = 0; i < n; i++) {
    HLS_PIPELINE
    HLS_TRIP(1, 1048576)
    hls_sample_take(&u, &s, (int32_t)hls_word32(heap, (uint64_t)logits * HLS_BEAT, i), i);
  }
  heap[(uint64_t)out * HLS_BEAT] = hls_pair((int32_t)u.best_id, u.best_logit);
}
