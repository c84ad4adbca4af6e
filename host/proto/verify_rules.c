/* See verify_rules.h. The blocks under FORAY_MUTANT_RULE_* are the known mistakes of this craft, compiled in
 * by tests/e2e/mutants.sh only, to prove that the enumeration test notices each of them. */
#include "proto/verify_rules.h"

#include "core/philox.h"

#include <math.h>
#include <string.h>

/* ---------------------------------------------------------------- chance */
static uint64_t word(struct foray_chance_philox *s) {
  struct foray_philox r =
      foray_philox4x32(s->seed, (uint32_t)s->counter, (uint32_t)(s->counter >> 32), s->stream, 0x52554c45);
  s->counter++;
  return (uint64_t)r.v[1] << 32 | r.v[0];
}

static uint64_t below(struct foray_chance_philox *s, uint64_t n) {
  uint64_t skip = -n % n; /* 2^64 mod n: values below it would be drawn once too often */
  for (;;) {
    uint64_t w = word(s);
    if (w >= skip) return w % n;
  }
}

static bool philox_yes(void *ctx, uint64_t num, uint64_t den) { return below(ctx, den) < num; }

static uint32_t philox_pick(void *ctx, const uint64_t *w, uint32_t n, uint64_t total) {
  uint64_t u = below(ctx, total);
  for (uint32_t i = 0; i < n; i++) {
    if (u < w[i]) return i;
    u -= w[i];
  }
  return n - 1;
}

struct foray_chance foray_chance_of(struct foray_chance_philox *s) {
  return (struct foray_chance){.ctx = s, .yes = philox_yes, .pick = philox_pick};
}

/* ---------------------------------------------------------------- quantised q */
void foray_rule_quantise(const double *q, uint32_t n, uint32_t *b) {
  double sum = 0;
  for (uint32_t i = 0; i < n; i++) sum += q[i];
  int64_t left = FORAY_RULE_Q;
  for (uint32_t i = 0; i < n; i++) {
    b[i] = (uint32_t)floor(q[i] / sum * FORAY_RULE_Q + .5);
    left -= b[i];
  }
  /* Move the entries whose rounding went furthest the wrong way, one count at a time. |left| <= n / 2. */
  while (left != 0) {
    uint32_t at = n;
    double most = -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
      double over = b[i] - q[i] / sum * FORAY_RULE_Q; /* rounded up by */
      double key = left > 0 ? -over : over;
      if ((left > 0 || b[i]) && key > most) most = key, at = i;
    }
    if (at == n) break;
    b[at] = left > 0 ? b[at] + 1 : b[at] - 1;
    left += left > 0 ? -1 : 1;
  }
}

uint32_t foray_rule_draw(const struct foray_chance *c, const uint32_t *b, uint32_t n, uint64_t *scratch) {
  for (uint32_t i = 0; i < n; i++) scratch[i] = b[i];
  return c->pick(c->ctx, scratch, n, FORAY_RULE_Q);
}

/* ---------------------------------------------------------------- the rule */
static uint32_t draw_target(const struct foray_chance *c, const uint64_t *p, uint32_t n) {
  return c->pick(c->ctx, p, n, FORAY_RULE_P);
}

static uint32_t draw_residual(const struct foray_chance *c, const uint64_t *p, const uint32_t *b, uint32_t x,
                              uint32_t n, uint64_t *w) {
  uint64_t total = 0;
  for (uint32_t y = 0; y < n; y++) {
    uint64_t have = (uint64_t)b[y] << 16;
    w[y] = p[y] > have ? p[y] - have : 0;
#ifdef FORAY_MUTANT_RULE_ZEROED /* p without the drafted token, although the draft was sampled */
    w[y] = y == x ? 0 : p[y];
#endif
  }
#ifdef FORAY_MUTANT_RULE_TOP2 /* the residual of only the two likeliest tokens of p */
  for (uint32_t y = 0; y < n; y++) {
    uint32_t above = 0;
    for (uint32_t z = 0; z < n; z++) above += p[z] > p[y] || (p[z] == p[y] && z < y);
    if (above >= 2) w[y] = 0;
  }
#endif
  (void)x;
  for (uint32_t y = 0; y < n; y++) total += w[y];
#if defined(FORAY_MUTANT_RULE_NO_RESIDUAL) /* the extra token from p instead of the residual */
  total = 0;
#endif
  return total ? c->pick(c->ctx, w, n, total) : draw_target(c, p, n);
}

uint32_t foray_rule_token(const struct foray_chance *c, const uint32_t *x, uint32_t gamma, uint32_t n,
                          const uint32_t *b, const uint64_t *p, uint64_t *scratch, uint32_t *extra) {
  for (uint32_t j = 0; j < gamma; j++) {
    const uint32_t *bj = b + (uint64_t)j * n;
    const uint64_t *pj = p + (uint64_t)j * n;
    uint64_t den = (uint64_t)bj[x[j]] << 16, num = pj[x[j]] < den ? pj[x[j]] : den;
#ifdef FORAY_MUTANT_RULE_TYPICAL /* Medusa's typical acceptance: whatever is likely enough */
    double h = 0, px = (double)pj[x[j]] / (double)FORAY_RULE_P;
    for (uint32_t y = 0; y < n; y++)
      if (pj[y]) h -= (double)pj[y] / (double)FORAY_RULE_P * log((double)pj[y] / (double)FORAY_RULE_P);
    num = px > fmin(.3, .09 * exp(-h)) ? den : 0;
#endif
    if (den && c->yes(c->ctx, num, den)) continue;
    *extra = draw_residual(c, pj, bj, x[j], n, scratch);
    return j;
  }
  *extra = draw_target(c, p + (uint64_t)gamma * n, n);
  return gamma;
}

/* ---------------------------------------------------------------- a round */
uint64_t foray_rule_work_bytes(const struct foray_rule_round *r) {
  uint64_t v = r->vocab, g = r->gamma;
  return v * sizeof(double) + v * sizeof(uint64_t) + (g + 1) * v * sizeof(uint64_t) +
         (g + 1) * v * sizeof(uint32_t);
}

uint32_t foray_rule_play(const struct foray_rule_round *r, const struct foray_chance *c, uint32_t *seq,
                         uint32_t n, void *work) {
  uint32_t v = r->vocab, k = 0, x[FORAY_RULE_GAMMA_MAX];
  double *q = work;
  uint64_t *scratch = (uint64_t *)(q + v), *p = scratch + v;
  uint32_t *b = (uint32_t *)(p + (uint64_t)(r->gamma + 1) * v);
  for (; k < r->gamma && k < FORAY_RULE_GAMMA_MAX; k++) {
    uint32_t *bk = b + (uint64_t)k * v, best = 0;
    r->q(r->ctx, seq, n + k, q);
    double sum = 0;
    for (uint32_t i = 0; i < v; i++) sum += q[i];
    for (uint32_t i = 1; i < v; i++)
      if (q[i] > q[best]) best = i;
    foray_rule_quantise(q, v, bk);            /* 1. quantise */
    if (q[best] < r->stop_below * sum) break; /* 2. stop: seen from the distribution alone */
    if (r->greedy) {
      x[k] = best;
#ifndef FORAY_MUTANT_RULE_GREEDY /* a greedy draft verified as if it had been sampled from q */
      memset(bk, 0, v * sizeof *bk);
      bk[best] = FORAY_RULE_Q;
#endif
    } else
      x[k] = foray_rule_draw(c, bk, v, scratch); /* 3. then sample what was quantised */
#ifdef FORAY_MUTANT_RULE_LATTICE                 /* sampled from q, verified with a coarser rounding of it */
    for (uint32_t i = 0; i < v; i++) bk[i] = (bk[i] + 128) / 256 * 256;
#endif
    seq[n + k] = x[k];
#ifdef FORAY_MUTANT_RULE_DROP /* sample, then drop the token if it is unlikely */
    if (bk[x[k]] < FORAY_RULE_Q / 4) break;
#endif
  }
  for (uint32_t j = 0; j <= k; j++) r->p(r->ctx, seq, n + j, p + (uint64_t)j * v);
  uint32_t extra = 0, acc = foray_rule_token(c, x, k, v, b, p, scratch, &extra);
  seq[n + acc] = extra;
  return acc + 1;
}
