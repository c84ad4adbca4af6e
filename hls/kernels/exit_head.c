/* HEAD and the exit unit, docs/numerics.md 5 and 9: logits are streamed, none is kept. */
#include "include/hls_ops.h"

void hls_exit_clear(struct hls_exit *u) {
  u->rows = 0;
  u->best_id = UINT32_MAX;
  u->best_logit = 0;
  u->best_key = INT64_MIN;
  for (uint32_t k = 0; k < FORAY_ABI_TOPK; k++) u->top_logit[k] = -INT32_MAX, u->top_id[k] = UINT32_MAX;
  for (uint32_t b = 0; b < HLS_BINS; b++) {
    HLS_PIPELINE
    u->bin_z[b] = u->bin_fz[b] = 0;
  }
}

/* A logit is compared with all candidates at once; those behind it move one place down. */
static void candidates(struct hls_exit *u, int32_t logit, uint32_t id) {
  uint8_t ahead[FORAY_ABI_TOPK];
  for (uint32_t k = 0; k < FORAY_ABI_TOPK; k++) {
    HLS_UNROLL
    ahead[k] = logit > u->top_logit[k] || (logit == u->top_logit[k] && id < u->top_id[k]);
  }
  for (uint32_t k = FORAY_ABI_TOPK; k-- > 0;) {
    HLS_UNROLL
    if (!ahead[k]) continue;
    uint32_t moved = k > 0 && ahead[k - 1];
    u->top_logit[k] = moved ? u->top_logit[k - 1] : logit;
    u->top_id[k] = moved ? u->top_id[k - 1] : id;
  }
}

void hls_exit_take(struct hls_exit *u, int32_t logit, uint32_t id) {
  candidates(u, logit, id);
  int64_t z = hls_round(logit * HLS_LOG2E_Q30, 30), bin = (z >> 16) + HLS_BINS / 2;
  uint32_t b = bin < 0 ? 0 : bin >= HLS_BINS ? HLS_BINS - 1 : (uint32_t)bin, f = (uint32_t)(z & 0xffff);
  uint64_t power = (uint64_t)hls_exp2_frac(f);
  u->bin_z[b] += power;
  u->bin_fz[b] += (power * f) >> 16;
  u->rows++;
}

static int32_t neg_power_q16(int64_t d) {
  if (d <= 0) return 65536;
  int whole = d >> 16 > 40 ? 40 : (int)(d >> 16);
  return (int32_t)hls_round(hls_exp2_neg((uint32_t)(d & 0xffff)), 14 + whole);
}
static int64_t ln2_q16(int64_t v) { return hls_round((v >> 10) * (HLS_LN2_Q32 >> 8), 30); }

static void evidence(const struct hls_exit *u, struct foray_rec_ring *r) {
  const int64_t cap = 4095 << 16, all = (int64_t)FORAY_ABI_TOPK << 16;
  int64_t alpha[FORAY_ABI_TOPK], sum = 0, total = 0;
  for (uint32_t k = 0; k < FORAY_ABI_TOPK; k++) {
    int64_t a = u->top_logit[k];
    alpha[k] = a < 0 ? 0 : a > cap ? cap : a;
    sum += alpha[k];
  }
  r->epistemic = (int32_t)((all << 16) / (sum + all));
  r->aleatoric = 0;
  if (sum == 0) return;
  int64_t psi = hls_digamma((uint32_t)(sum + 65536));
  for (uint32_t k = 0; k < FORAY_ABI_TOPK; k++)
    total += alpha[k] * (psi - hls_digamma((uint32_t)(alpha[k] + 65536)));
  r->aleatoric = hls_sat32(total / sum);
}

void hls_exit_finish(const struct hls_exit *u, int32_t cum_before, struct foray_rec_ring *r) {
  int top = 0;
  for (int b = 0; b < HLS_BINS; b++) {
    HLS_PIPELINE
    if (u->bin_z[b]) top = b;
  }
  int64_t z = 0, n = 0;
  for (int k = 0; k < 40; k++) { /* from the highest bin down */
    HLS_PIPELINE
    if (k > top) continue;
    z += (int64_t)(u->bin_z[top - k] >> k);
    n += (-k * (int64_t)u->bin_z[top - k] + (int64_t)u->bin_fz[top - k]) >> k;
  }
  int64_t mant = hls_log2_q32((uint64_t)z) - ((int64_t)30 << 32);
  int64_t log2z = mant + (top - HLS_BINS / 2) * ((int64_t)1 << 32);
  int zbits = hls_bits_u((uint64_t)z), sh = zbits > 40 ? zbits - 40 : 0;
  int64_t mean = ((n >> sh) * 65536) / (z >> sh), entropy = ln2_q16(mant - mean * 65536);
  r->entropy = hls_sat32(entropy < 0 ? 0 : entropy);
  r->log_z = hls_sat32(ln2_q16(log2z));
  int64_t lz = hls_round(log2z, 16), z1 = hls_round(u->top_logit[0] * HLS_LOG2E_Q30, 30),
          z2 = hls_round(u->top_logit[1] * HLS_LOG2E_Q30, 30);
  r->top_prob = neg_power_q16(lz - z1);
  r->margin = u->rows > 1 ? r->top_prob - neg_power_q16(lz - z2) : r->top_prob;
  r->logit_gap = hls_sat32((int64_t)u->top_logit[0] - u->top_logit[1]);
  r->cum = hls_sat32(cum_before + (z1 > lz ? 0 : z1 - lz));
  evidence(u, r);
  r->token = u->best_id;
  r->logprob = hls_sat32((int64_t)u->best_logit - r->log_z);
  r->rows = u->rows;
  for (uint32_t k = 0; k < FORAY_ABI_TOPK; k++)
    r->top_id[k] = u->top_id[k], r->top_logit[k] = u->top_logit[k];
}

int64_t hls_exit_rule(const int32_t c[FORAY_ABI_FEATURES], const struct foray_rec_ring *r) {
  int64_t s = c[0];
  s += hls_round((int64_t)c[1] * r->top_prob, 16);
  s += hls_round((int64_t)c[2] * r->margin, 16);
  s += hls_round((int64_t)c[3] * r->entropy, 16);
  s += hls_round((int64_t)c[4] * r->aleatoric, 16);
  s += hls_round((int64_t)c[5] * r->epistemic, 16);
  s += hls_round((int64_t)c[6] * r->logit_gap, 16);
  s += hls_round((int64_t)c[7] * r->cum, 16);
  return s;
}

enum { CHUNK = 512 }; /* rows whose mantissas and ids are fetched at once */

void hls_head(foray_word *heap, const foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS],
              uint32_t c0, uint32_t c1, const struct hls_sampling *s, uint32_t dump, uint32_t dump_step,
              struct hls_act *act, struct hls_exit units[FORAY_HLS_COLS]) {
  struct foray_desc_head d;
  foray_desc_head_unpack(desc, &d);
  struct hls_layout l = hls_layout_of(d.qtype, d.rows, d.cols, 0);
  uint64_t base = (uint64_t)d.addr * HLS_BEAT, ids_at = (uint64_t)d.ids * HLS_BEAT;
  uint32_t n = c1 - c0;
  int t = hls_product_shift(l.groups);
  HLS_LOCAL foray_word mant[CHUNK / 4], ids[CHUNK / 2];
  int64_t acc[FORAY_HLS_COLS][FORAY_ABI_ROW_BLOCK];
  HLS_SPLIT(acc, 0)
  hls_act_load(scratch, d.src, d.cols, c0, c1, act);
  for (uint32_t r0 = 0; r0 < d.used; r0 += FORAY_ABI_ROW_BLOCK) {
    HLS_TRIP(1, 65536)
    if (r0 % CHUNK == 0) {
      for (uint32_t i = 0; i < CHUNK / 4; i++) {
        HLS_PIPELINE
        if (r0 / 4 + i < l.bias) mant[i] = heap[base + r0 / 4 + i];
      }
      for (uint32_t i = 0; i < CHUNK / 2; i++) {
        HLS_PIPELINE
        if (d.ids != 0 && r0 + 2 * i < d.used) ids[i] = heap[ids_at + r0 / 2 + i];
      }
    }
    uint64_t at = base + l.data + l.block * (r0 / FORAY_ABI_ROW_BLOCK);
    if (d.qtype == FORAY_QTYPE_Q4A)
      hls_q4_block(heap, at, l.groups, n, act, acc);
    else
      hls_q8_block(heap, at, l.groups, n, act, acc);
    for (uint32_t k = 0; k < n; k++) {
      HLS_TRIP(1, 8)
      int32_t e = act->exp[k] + d.exp + t;
      uint64_t to = ((uint64_t)dump + (uint64_t)k * dump_step) * HLS_BEAT + r0 / 2;
      struct hls_sampling own = *s;
      own.position += k;
      foray_word pair = 0;
      for (uint32_t r = 0; r < FORAY_ABI_ROW_BLOCK; r++) {
        HLS_PIPELINE
        if (r0 + r >= d.used) continue;
        uint32_t in = r0 % CHUNK + r;
        int64_t m = (uint16_t)(mant[in / 4] >> (16 * (r % 4)));
        int32_t logit = hls_sat32(hls_round(hls_round(acc[k][r], t) * m, -(e + 16)));
        if (dump != 0) {
          pair = r % 2 ? hls_pair(hls_low(pair), logit) : hls_pair(logit, hls_high(heap[to + r / 2]));
          if (r % 2 || r0 + r + 1 == d.used) heap[to + r / 2] = pair;
        } else {
          uint32_t id = d.ids ? (uint32_t)(ids[in / 2] >> (32 * (r % 2))) : r0 + r;
          hls_exit_take(&units[k], logit, id);
          hls_sample_take(&units[k], &own, logit, id);
        }
      }
    }
  }
}

HLS_MEMORY(heap, gmem)
HLS_MEMORY(scratch, gmem1)
HLS_MEMORY(desc, gmem2)
void foray_hls_exit_head(foray_word *heap, foray_word *scratch, const uint32_t desc[FORAY_ABI_DESC_WORDS],
                         uint32_t c0, uint32_t sample, uint32_t inv_temp, uint64_t seed, uint32_t position,
                         uint32_t ring) {
#ifdef FORAY_HLS_TOP_exit_head
  HLS_PORT_HEAP
  HLS_PORT_SCRATCH
  HLS_PORT_DESC
  HLS_PORT_SCALAR(c0)
  HLS_PORT_SCALAR(sample)
  HLS_PORT_SCALAR(inv_temp)
  HLS_PORT_SCALAR(seed)
  HLS_PORT_SCALAR(position)
  HLS_PORT_SCALAR(ring)
  HLS_PORT_RETURN
#endif
  HLS_LOCAL struct hls_act act;
  HLS_LOCAL struct hls_exit units[FORAY_HLS_COLS];
  struct hls_sampling s;
  struct foray_rec_ring r = {0};
  uint32_t w[FORAY_ABI_RING_WORDS];
  s.on = sample;
  s.inv_temp = inv_temp;
  s.seed = seed;
  s.position = position;
  hls_exit_clear(&units[0]);
  hls_head(heap, scratch, desc, c0, c0 + 1, &s, 0, 0, &act, units);
  hls_exit_finish(&units[0], 0, &r);
  r.position = position;
  foray_rec_ring_pack(&r, w);
  for (uint32_t i = 0; i < FORAY_ABI_RING_WORDS / 2; i++)
    heap[(uint64_t)ring * HLS_BEAT + i] = hls_pair((int32_t)w[2 * i], (int32_t)w[2 * i + 1]);
}
