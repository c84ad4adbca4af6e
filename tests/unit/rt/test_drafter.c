/* The drafter over every device that this machine has: a draft is a function of (prefix, parameters) and of
 * nothing else, whatever was drafted, rolled back or left early before. */
#include "unit/harness.h"

#include "core/noise.h"
#include "dev/device.h"
#include "rt/session.h"
#include "tiny_image.h"

#include <stdio.h>

enum { CTX = 96 };
static const char *const specs[] = {"ref", "cpu"};
enum { SPECS = 2 };

struct rig {
  struct foray_dev *dev;
  struct foray_drafter *d;
};

static bool have(const char *spec) {
  struct foray_dev *dev = NULL;
  struct foray_err e = {0};
  enum foray_status s = foray_dev_open(spec, &(struct foray_dev_opts){.heap_bytes = 1 << 16}, &dev, &e);
  if (s == FORAY_OK) foray_dev_close(dev);
  return s == FORAY_OK;
}

static struct rig rig_open(const char *spec, const struct foray_image *img, struct foray_drafter_opts o) {
  struct rig r = {0};
  struct foray_err e = {0};
  uint64_t heap = 0;
  if (!o.ctx) o.ctx = CTX;
  enum foray_status s = foray_drafter_heap_bytes(img, &o, &heap, &e);
  if (s == FORAY_OK)
    s = foray_dev_open(spec, &(struct foray_dev_opts){.heap_bytes = heap, .threads = 1}, &r.dev, &e);
  if (s == FORAY_OK) s = foray_drafter_open(img, r.dev, &o, &r.d, &e);
  if (s != FORAY_OK) printf("  %s: %s\n", spec, e.msg);
  CU_ASSERT_EQUAL_FATAL(s, FORAY_OK);
  return r;
}
static void rig_close(struct rig *r) {
  foray_drafter_close(r->d);
  foray_dev_close(r->dev);
}

static uint32_t draft(struct rig *r, const uint32_t *tok, uint32_t n, const struct foray_draft_params *p,
                      struct foray_draft *out) {
  struct foray_err e = {0};
  uint32_t got = 0;
  enum foray_status s = foray_drafter_sync(r->d, tok, n, &e);
  if (s == FORAY_OK) s = foray_drafter_draft(r->d, p, out, &got, &e);
  if (s != FORAY_OK) printf("  %s\n", e.msg);
  CU_ASSERT_EQUAL_FATAL(s, FORAY_OK);
  return got;
}

static bool same_bits(float a, float b) { return memcmp(&a, &b, sizeof a) == 0; }
static bool same_draft(const struct foray_draft *a, const struct foray_draft *b, bool exit_too) {
  bool ok = a->id == b->id && a->n_cand == b->n_cand && (!exit_too || a->exit == b->exit) &&
            same_bits(a->conf.top, b->conf.top) && same_bits(a->conf.margin, b->conf.margin) &&
            same_bits(a->conf.entropy, b->conf.entropy) && same_bits(a->conf.aleatoric, b->conf.aleatoric) &&
            same_bits(a->conf.epistemic, b->conf.epistemic);
  for (uint32_t i = 0; ok && i < a->n_cand; i++)
    ok = a->cand[i].id == b->cand[i].id && a->cand[i].logprob == b->cand[i].logprob;
  return ok;
}

static struct foray_draft_params random_params(uint64_t seed, uint32_t k) {
  static const float tops[] = {2, 2, .03f, .05f, .08f, .12f, .2f};
  struct foray_draft_params p = foray_draft_defaults();
  p.max = 1 + tiny_rnd(seed, 50, k) % 9;
  for (uint32_t e = 0; e < FORAY_DRAFT_EXITS_MAX; e++) p.exit_top[e] = tops[tiny_rnd(seed, 51 + e, k) % 7];
  p.check = tiny_rnd(seed, 64, k) % 3 ? tiny_rnd(seed, 65, k) % (FORAY_DRAFT_CHECK_MAX + 1) : 0;
  p.temperature = tiny_rnd(seed, 60, k) % 2 ? .9f : 0;
  p.seed = seed;
  switch (tiny_rnd(seed, 61, k) % 5) {
  case 0: p.stop_top = .06f; break;
  case 1: p.stop_margin = .01f; break;
  case 2: p.stop_entropy = 4; break;
  default: break;
  }
  if (tiny_rnd(seed, 62, k) % 4 == 0) {
    p.n_stop = 3;
    for (uint32_t i = 0; i < 3; i++) p.stop_ids[i] = tiny_rnd(seed, 63, k + i) % 203;
  }
  return p;
}

static struct tiny_opts shape(uint64_t seed) {
  return (struct tiny_opts){.seed = seed,
                            .n_layer = 3 + (uint32_t)(seed % 3),
                            .n_exits = 1 + (uint32_t)(seed % 2),
                            .n_trim = 72,
                            .prev = seed % 3 != 1,
                            .qwen2 = seed % 2,
                            .tied = seed % 3 == 0,
                            .head_dim = seed % 4 == 3 ? 64 : 32};
}

/* A drafter that has lived (random rollbacks, changed tokens, early exits, stops) against one that was opened
 * a moment ago: same tokens, same parameters, same bits. */
TEST(a_draft_depends_on_prefix_and_parameters_alone) {
  uint32_t early = 0, deep = 0, short_blocks = 0, rolled = 0;
  for (uint64_t seed = 1; seed <= 9; seed++) {
    struct tiny_image t;
    struct foray_err e = {0};
    struct tiny_opts o = shape(seed);
    CU_ASSERT_TRUE_FATAL(tiny_image_make(&o, &t, &e));
    struct rig r =
        rig_open("ref", t.img, (struct foray_drafter_opts){.columns = 1 + (uint32_t)(seed * 3 % 8)});
    uint32_t tok[CTX], n = 2;
    for (uint32_t i = 0; i < CTX; i++) tok[i] = tiny_rnd(seed, 40, i) % 203;
    for (uint32_t k = 0; k < 16; k++) {
      struct foray_draft_params p = random_params(seed, k);
      struct foray_draft a[FORAY_DRAFT_MAX], b[FORAY_DRAFT_MAX];
      if (k % 4 == 3) { /* prompt processing ahead of time changes nothing */
        CU_ASSERT_EQUAL(foray_drafter_sync(r.d, tok, n, NULL), FORAY_OK);
        CU_ASSERT_EQUAL(foray_drafter_prefill(r.d, NULL), FORAY_OK);
      }
      uint32_t na = draft(&r, tok, n, &p, a);
      struct rig f = rig_open("ref", t.img, (struct foray_drafter_opts){0});
      uint32_t nb = draft(&f, tok, n, &p, b);
      rig_close(&f);
      CU_ASSERT_EQUAL_FATAL(na, nb);
      CU_ASSERT_TRUE(na >= 1 && na <= p.max);
      for (uint32_t i = 0; i < na; i++) {
        CU_ASSERT_TRUE(same_draft(&a[i], &b[i], true));
        if (a[i].exit < foray_drafter_exits(r.d))
          early++;
        else
          deep++;
      }
      short_blocks += na < p.max;
      /* what comes next: some drafts stay, a token changes, or the text is cut further back */
      uint32_t keep = tiny_rnd(seed, 41, k) % (na + 1);
      for (uint32_t i = 0; i < keep && n < CTX - 12; i++) tok[n++] = a[i].id;
      for (uint32_t i = tiny_rnd(seed, 45, k) % 4; i < 4 && n < CTX - 12; i++)
        tok[n++] = tiny_rnd(seed, 42, 4 * k + i) % 203; /* one to four tokens that were not drafted */
      if (tiny_rnd(seed, 43, k) % 4 == 0) n = 1 + tiny_rnd(seed, 44, k) % n, rolled++;
    }
    rig_close(&r);
    tiny_image_free(&t);
  }
  CU_ASSERT_TRUE(early > 20 && deep > 20 && short_blocks > 2 && rolled > 3);
}

/* Catch-up: a token at full depth after tokens that left early has the bits of one that never knew exits. */
TEST(full_depth_after_early_exits_is_full_depth) {
  uint32_t checked = 0, pending = 0;
  for (uint64_t seed = 11; seed <= 16; seed++) {
    struct tiny_image t;
    struct foray_err e = {0};
    struct tiny_opts o = shape(seed);
    CU_ASSERT_TRUE_FATAL(tiny_image_make(&o, &t, &e));
    struct rig r = rig_open("ref", t.img, (struct foray_drafter_opts){.columns = 1 + (uint32_t)(seed % 5)});
    struct rig plain = rig_open("ref", t.img, (struct foray_drafter_opts){.no_exits = true});
    uint32_t tok[CTX], n = 3;
    for (uint32_t i = 0; i < n; i++) tok[i] = tiny_rnd(seed, 40, i) % 203;
    uint32_t run = 0;
    while (n < CTX - 10) {
      struct foray_draft_params p = random_params(seed, n);
      p.stop_top = p.stop_margin = p.stop_entropy = 0;
      p.check = 0;
      struct foray_draft a[FORAY_DRAFT_MAX], b[FORAY_DRAFT_MAX];
      uint32_t na = draft(&r, tok, n, &p, a);
      for (uint32_t i = 0; i < na; i++) {
        if (a[i].exit == foray_drafter_exits(r.d)) {
          struct foray_draft_params q = p;
          q.max = 1;
          CU_ASSERT_EQUAL(draft(&plain, tok, n, &q, b), 1);
          CU_ASSERT_TRUE(same_draft(&a[i], &b[0], false));
          checked++;
          if (run > pending) pending = run;
          run = 0;
        } else
          run++;
        tok[n++] = a[i].id;
      }
    }
    rig_close(&r);
    rig_close(&plain);
    tiny_image_free(&t);
  }
  CU_ASSERT_TRUE(checked > 40);
  CU_ASSERT_TRUE(pending > 8); /* more tokens were waiting than one pass carries */
}

/* With checks and every exit taken, a block is what full depth drafts, but for the tail that full depth has
 * not seen; so is its stop. */
TEST(checked_drafts_are_full_depth_drafts) {
  uint32_t compared = 0, corrected = 0, confirmed = 0, tails = 0, stops = 0;
  for (uint64_t seed = 21; seed <= 28; seed++) {
    struct tiny_image t;
    struct foray_err e = {0};
    struct tiny_opts o = shape(seed);
    CU_ASSERT_TRUE_FATAL(tiny_image_make(&o, &t, &e));
    struct rig r =
        rig_open("ref", t.img, (struct foray_drafter_opts){.columns = 1 + (uint32_t)(seed * 5 % 8)});
    struct rig plain = rig_open("ref", t.img, (struct foray_drafter_opts){.no_exits = true});
    uint32_t tok[CTX], n = 3;
    for (uint32_t i = 0; i < n; i++) tok[i] = tiny_rnd(seed, 40, i) % 203;
    while (n < CTX - 12) {
      struct foray_draft_params p = random_params(seed, n), q;
      for (uint32_t x = 0; x < FORAY_DRAFT_EXITS_MAX; x++) p.exit_top[x] = 0;
      p.check = 1 + tiny_rnd(seed, 66, n) % FORAY_DRAFT_CHECK_MAX;
      p.max = 3 + tiny_rnd(seed, 67, n) % 7;
      if (tiny_rnd(seed, 68, n) % 4) p.temperature = 12; /* the same noise on both makes them agree often */
      if (tiny_rnd(seed, 69, n) % 3 == 0) p.stop_top = .8f, p.stop_margin = p.stop_entropy = 0;
      q = p;
      struct foray_draft a[FORAY_DRAFT_MAX], b[FORAY_DRAFT_MAX];
      uint32_t na = draft(&r, tok, n, &p, a), nb = draft(&plain, tok, n, &q, b), seen = 0;
      for (uint32_t i = 0; i < na; i++)
        if (a[i].exit == foray_drafter_exits(r.d) || a[i].conf.depth == 1) seen = i + 1;
      for (uint32_t i = 0; i < seen && i < nb; i++) {
        CU_ASSERT_TRUE(same_draft(&a[i], &b[i], false));
        compared++;
      }
      /* full depth would have ended here: the block may only hold what was drafted before that was known */
      if (nb < p.max && !p.n_stop) {
        CU_ASSERT_TRUE(na <= nb + p.check + 1);
        stops++;
      }
      tails += na > seen;
      for (uint32_t i = 0; i < na && n < CTX - 12; i++) tok[n++] = a[i].id;
      tok[n] = tiny_rnd(seed, 42, n) % 203;
      n++;
    }
    struct foray_drafter_stats st;
    foray_drafter_stats(r.d, &st);
    corrected += (uint32_t)st.corrected;
    confirmed += (uint32_t)(st.checked - st.corrected);
    rig_close(&r);
    rig_close(&plain);
    tiny_image_free(&t);
  }
  CU_ASSERT_TRUE(compared > 100 && corrected > 20 && confirmed > 20 && tails > 5 && stops > 5);
}

/* Cutting the context at every length gives what a fresh context of that length gives. */
TEST(rollback_at_every_length_equals_a_fresh_context) {
  struct tiny_image t;
  struct foray_err e = {0};
  struct tiny_opts o = shape(5);
  CU_ASSERT_TRUE_FATAL(tiny_image_make(&o, &t, &e));
  struct rig r = rig_open("ref", t.img, (struct foray_drafter_opts){.columns = 3});
  uint32_t tok[CTX];
  for (uint32_t i = 0; i < CTX; i++) tok[i] = tiny_rnd(77, 40, i) % 203;
  struct foray_draft_params p = foray_draft_defaults();
  p.max = 4;
  p.exit_top[0] = .08f;
  p.exit_top[1] = .08f;
  for (uint32_t n = 1; n <= 24; n++) {
    struct foray_draft a[8], b[8];
    draft(&r, tok, 24, &p, a); /* beyond */
    uint32_t cut[CTX], m = n;
    memcpy(cut, tok, n * sizeof *tok);
    for (uint32_t i = 0; i < n % 4; i++) cut[m++] = (tok[n + i] + 1) % 203; /* and then another text */
    uint32_t na = draft(&r, cut, m, &p, a);
    struct rig f = rig_open("ref", t.img, (struct foray_drafter_opts){0});
    CU_ASSERT_EQUAL(draft(&f, cut, m, &p, b), na);
    for (uint32_t i = 0; i < na; i++) CU_ASSERT_TRUE(same_draft(&a[i], &b[i], true));
    rig_close(&f);
  }
  rig_close(&r);
  tiny_image_free(&t);
}

/* ---------------------------------------------------------------- against plain floats */
static void mul(const struct foray_image *img, enum foray_image_role role, uint32_t index, const double *x,
                double *y) {
  const struct foray_image_tensor *t = foray_image_find(img, role, index);
  float row[256], bias[256];
  CU_ASSERT_TRUE_FATAL(t->cols <= 256 && t->rows <= 256);
  if (t->has_bias) foray_image_bias(img, t, bias);
  for (uint32_t r = 0; r < t->rows; r++) {
    foray_image_row(img, t, r, row);
    y[r] = t->has_bias ? (double)bias[r] : 0;
    for (uint32_t c = 0; c < t->cols; c++) y[r] += (double)row[c] * x[c];
  }
}
static void rms(const struct foray_image *img, enum foray_image_role role, uint32_t index, const double *x,
                double *y) {
  const struct foray_image_tensor *t = foray_image_find(img, role, index);
  float g[256];
  foray_image_row(img, t, 0, g);
  double ss = 0;
  for (uint32_t i = 0; i < t->cols; i++) ss += x[i] * x[i];
  double k = 1 / sqrt(ss / t->cols + ldexp(img->config.eps_mant, img->config.eps_exp));
  for (uint32_t i = 0; i < t->cols; i++) y[i] = x[i] * k * (double)g[i];
}
static void rope(double *v, uint32_t heads, uint32_t d, uint32_t pos, double base) {
  for (uint32_t h = 0; h < heads; h++)
    for (uint32_t i = 0; i < d / 2; i++) {
      double a = pos * pow(base, -2.0 * i / d), *p = v + h * d + i, *q = p + d / 2, x = *p, y = *q;
      *p = x * cos(a) - y * sin(a);
      *q = x * sin(a) + y * cos(a);
    }
}
/* Logits (all ids) of every position of tok[n]. */
static void float_forward(const struct foray_image *img, const uint32_t *tok, uint32_t n, double *logits) {
  const struct foray_image_config *c = &img->config;
  static double x[64][256], k[64][256], v[64][256], xn[256], q[256], a[256], y[256], g[256], u[256];
  uint32_t d = c->head_dim;
  float row[256];
  for (uint32_t p = 0; p < n; p++) {
    foray_image_row(img, foray_image_find(img, FORAY_IMAGE_TOKEN_EMBD, 0), tok[p], row);
    for (uint32_t i = 0; i < c->n_embd; i++) x[p][i] = (double)row[i];
  }
  for (uint32_t l = 0; l < c->n_layer; l++)
    for (uint32_t p = 0; p < n; p++) {
      rms(img, FORAY_IMAGE_ATTN_NORM, l, x[p], xn);
      mul(img, FORAY_IMAGE_ATTN_Q, l, xn, q);
      mul(img, FORAY_IMAGE_ATTN_K, l, xn, k[p]);
      mul(img, FORAY_IMAGE_ATTN_V, l, xn, v[p]);
      rope(q, c->n_head, d, p, c->rope_base);
      rope(k[p], c->n_head_kv, d, p, c->rope_base);
      for (uint32_t h = 0; h < c->n_head; h++) {
        uint32_t kh = h / (c->n_head / c->n_head_kv);
        double w[64], sum = 0;
        for (uint32_t j = 0; j <= p; j++) {
          double s = 0;
          for (uint32_t i = 0; i < d; i++) s += q[h * d + i] * k[j][kh * d + i];
          sum += w[j] = exp(s / sqrt(d));
        }
        for (uint32_t i = 0; i < d; i++) {
          double s = 0;
          for (uint32_t j = 0; j <= p; j++) s += w[j] * v[j][kh * d + i];
          a[h * d + i] = s / sum;
        }
      }
      mul(img, FORAY_IMAGE_ATTN_OUTPUT, l, a, y);
      for (uint32_t i = 0; i < c->n_embd; i++) x[p][i] += y[i];
      rms(img, FORAY_IMAGE_FFN_NORM, l, x[p], xn);
      mul(img, FORAY_IMAGE_FFN_GATE, l, xn, g);
      mul(img, FORAY_IMAGE_FFN_UP, l, xn, u);
      for (uint32_t i = 0; i < c->n_ff; i++) u[i] *= g[i] / (1 + exp(-g[i]));
      mul(img, FORAY_IMAGE_FFN_DOWN, l, u, y);
      for (uint32_t i = 0; i < c->n_embd; i++) x[p][i] += y[i];
    }
  for (uint32_t p = 0; p < n; p++) {
    rms(img, FORAY_IMAGE_OUTPUT_NORM, 0, x[p], xn);
    mul(img, FORAY_IMAGE_HEAD_FULL, 0, xn, logits + p * c->n_vocab);
  }
}

/* The program computes the model: logits of the integer device stay close to a float forward of the image's
 * own weights, for both architectures, at every position and whatever the batch. */
TEST(logits_are_those_of_a_float_forward) {
  for (int k = 0; k < SPECS; k++) {
    if (!have(specs[k])) continue;
    for (uint64_t seed = 1; seed <= 4; seed++) {
      struct tiny_image t;
      struct foray_err e = {0};
      struct tiny_opts o = shape(seed);
      CU_ASSERT_TRUE_FATAL(tiny_image_make(&o, &t, &e));
      struct rig r = rig_open(specs[k], t.img, (struct foray_drafter_opts){.logits = true});
      enum { N = 40, VOCAB = 203 };
      uint32_t tok[N];
      static double want[N * VOCAB];
      static float got[N * VOCAB], again[N * VOCAB];
      for (uint32_t i = 0; i < N; i++) tok[i] = tiny_rnd(seed, 40, i) % VOCAB;
      float_forward(t.img, tok, N, want);
      CU_ASSERT_EQUAL_FATAL(foray_drafter_logits(r.d, tok, N, N, got, &e), FORAY_OK);
      double err = 0, size = 0;
      for (uint32_t p = 0; p < N; p++) {
        double diff = 0; /* a constant offset does not count */
        for (uint32_t i = 0; i < VOCAB; i++) diff += (double)got[p * VOCAB + i] - want[p * VOCAB + i];
        for (uint32_t i = 0; i < VOCAB; i++) {
          double w = want[p * VOCAB + i], d = (double)got[p * VOCAB + i] - w - diff / VOCAB;
          err += d * d;
          size += w * w;
        }
      }
      double rel = sqrt(err / size);
      if (rel > .05) printf("  %s seed %d: relative error %.4f\n", specs[k], (int)seed, rel);
      CU_ASSERT_TRUE(rel < .05); /* int8 K and V make most of it; a wrong op makes it about 1 */
      /* one by one, and after a rollback: the same bits */
      for (uint32_t n = N; n >= N - 20; n -= 5) {
        CU_ASSERT_EQUAL(foray_drafter_logits(r.d, tok, n, n < 7 ? n : 7, again, &e), FORAY_OK);
        CU_ASSERT_EQUAL(memcmp(again, got + (n - 7) * VOCAB, 7 * VOCAB * sizeof *got), 0);
      }
      /* argmax and coupled choice of a draft are those of the logits */
      for (int T = 0; T < 2; T++) {
        struct foray_draft_params p = foray_draft_defaults();
        struct foray_draft d;
        p.max = 1;
        p.temperature = T ? .5f : 0;
        p.seed = 99;
        struct rig g =
            rig_open(specs[k], t.img, (struct foray_drafter_opts){.no_exits = true, .full_head = true});
        for (uint32_t n = 1; n <= N; n += 3) {
          int64_t best = INT64_MIN;
          uint32_t id = 0;
          for (uint32_t i = 0; i < VOCAB; i++) {
            int64_t key = (int64_t)llround((double)got[(n - 1) * VOCAB + i] * (T ? 2 : 1) * 65536) +
                          (T ? foray_gumbel_q16(99, n, i) : 0);
            if (key > best) best = key, id = i;
          }
          CU_ASSERT_EQUAL(draft(&g, tok, n, &p, &d), 1);
          CU_ASSERT_EQUAL(d.id, id);
        }
        rig_close(&g);
      }
      rig_close(&r);
      tiny_image_free(&t);
    }
  }
}

/* Devices agree on every bit of every result, over random models, rollbacks, exits and stops. */
TEST(devices_give_the_same_bits) {
  if (!have("cpu")) {
    foray_test_skip("no cpu device in this build");
    return;
  }
  for (uint64_t seed = 21; seed <= 40; seed++) {
    struct tiny_image t;
    struct foray_err e = {0};
    struct tiny_opts o = shape(seed);
    CU_ASSERT_TRUE_FATAL(tiny_image_make(&o, &t, &e));
    struct rig a = rig_open("ref", t.img, (struct foray_drafter_opts){.columns = 1 + (uint32_t)(seed % 8)});
    struct rig b =
        rig_open("cpu", t.img, (struct foray_drafter_opts){.columns = 1 + (uint32_t)(seed * 5 % 8)});
    uint32_t tok[CTX], n = 2;
    for (uint32_t i = 0; i < CTX; i++) tok[i] = tiny_rnd(seed, 40, i) % 203;
    for (uint32_t k = 0; k < 10; k++) {
      struct foray_draft_params p = random_params(seed, k);
      struct foray_draft x[FORAY_DRAFT_MAX], y[FORAY_DRAFT_MAX];
      uint32_t nx = draft(&a, tok, n, &p, x), ny = draft(&b, tok, n, &p, y);
      CU_ASSERT_EQUAL_FATAL(nx, ny);
      for (uint32_t i = 0; i < nx; i++) CU_ASSERT_TRUE(same_draft(&x[i], &y[i], true));
      for (uint32_t i = 0; i < nx && n < CTX - 12; i++) tok[n++] = x[i].id;
      if (tiny_rnd(seed, 43, k) % 3 == 0) n = 1 + tiny_rnd(seed, 44, k) % n;
    }
    rig_close(&a);
    rig_close(&b);
    tiny_image_free(&t);
  }
}

/* A whole generation with real drafts: the target is another tiny model, the output is its own greedy or
 * coupled text at every policy, with and without drafting ahead. */
struct target {
  struct rig r;
  uint32_t tok[CTX * 2], n, max, n_prompt;
  uint64_t seed;
  bool sampled;
  struct foray_verdict v;
  bool ready;
  uint32_t late;
};
static uint32_t target_choice(struct target *t) {
  static float logits[203];
  struct foray_err e = {0};
  CU_ASSERT_EQUAL_FATAL(foray_drafter_logits(t->r.d, t->tok, t->n, 1, logits, &e), FORAY_OK);
  int64_t best = INT64_MIN;
  uint32_t id = 0;
  for (uint32_t i = 0; i < 203; i++) {
    int64_t key =
        (int64_t)llround((double)logits[i] * 65536) + (t->sampled ? foray_gumbel_q16(t->seed, t->n, i) : 0);
    if (key > best) best = key, id = i;
  }
  return id;
}
static enum foray_status target_propose(void *ctx, uint32_t at, const uint32_t *ids, uint32_t n,
                                        uint32_t alone, struct foray_err *err) {
  struct target *t = ctx;
  (void)err;
  CU_ASSERT_EQUAL_FATAL(at, t->n);
  t->v = (struct foray_verdict){.at = at};
  for (uint32_t i = 0; i <= (alone ? alone - 1 : n); i++) {
    uint32_t y = target_choice(t);
    t->tok[t->n++] = y;
    bool right = i < n && ids[i] == y;
    if (right)
      t->v.accepted++;
    else
      t->v.ids[t->v.n++] = y;
    if (t->n - t->n_prompt >= t->max) {
      t->v.finish = FORAY_FINISH_LENGTH;
      break;
    }
    if (!right && !alone) break;
  }
  t->ready = true;
  t->late = 5;
  return FORAY_OK;
}
static enum foray_status target_wait(void *ctx, double timeout_s, struct foray_verdict *out, bool *ready,
                                     struct foray_err *err) {
  struct target *t = ctx;
  (void)err;
  *ready = t->ready && (timeout_s < 0 || !t->late--);
  if (*ready) *out = t->v, t->ready = false;
  return FORAY_OK;
}
static bool collect(void *me, const struct foray_gen_token *tok) {
  struct target *t = me;
  t->tok[t->n++] = tok->id;
  return true;
}

TEST(generation_with_real_drafts_is_the_targets_text) {
  uint32_t accepted = 0, drafted = 0, used = 0;
  for (uint64_t seed = 31; seed <= 36; seed++) {
    struct tiny_image edge, big;
    struct foray_err e = {0};
    struct tiny_opts o = shape(seed), o2 = o;
    o2.tied = o.tied;
    CU_ASSERT_TRUE_FATAL(tiny_image_make(&o, &edge, &e));
    CU_ASSERT_TRUE_FATAL(
        tiny_image_make(&o2, &big, &e)); /* the same weights, all ids and depth: it will agree often */
    struct target t = {.seed = seed, .sampled = seed % 2, .max = 50, .n_prompt = 3, .n = 3, .tok = {5, 6, 7}};
    t.r = rig_open("ref", big.img,
                   (struct foray_drafter_opts){.no_exits = true, .logits = true, .ctx = 2 * CTX});
    while (t.n < t.n_prompt + t.max) t.tok[t.n] = target_choice(&t), t.n++;
    uint32_t want[CTX];
    memcpy(want, t.tok, t.n * sizeof *want);
    t.n = t.n_prompt;
    struct rig r = rig_open("ref", edge.img, (struct foray_drafter_opts){.full_head = seed % 3 != 0});
    struct foray_draft_source src = foray_drafter_source(r.d);
    struct foray_link link = {.ctx = &t, .propose = target_propose, .wait = target_wait};
    struct foray_gen_params p = foray_gen_defaults();
    p.max_tokens = t.max;
    p.temperature = t.sampled ? 1 : 0;
    p.seed = seed;
    p.policy = foray_policy_default((enum foray_policy_kind)(seed % FORAY_POLICY_KINDS));
    p.ahead = seed % 4 < 2 ? 6 : 0;
    p.branches = (uint32_t)(seed % 3);
    p.exit_top[0] = 2;
    p.exit_top[1] = seed % 2 ? .97f : 2;
    struct target out = {0};
    struct foray_gen_stats st;
    enum foray_status s = foray_generate(want, 3, &p, &src, &link, collect, &out, &st, &e);
    if (s != FORAY_OK) printf("  %s\n", e.msg);
    CU_ASSERT_EQUAL_FATAL(s, FORAY_OK);
    CU_ASSERT_EQUAL(out.n, t.max);
    CU_ASSERT_EQUAL(memcmp(out.tok, want + 3, t.max * sizeof *want), 0);
    CU_ASSERT_TRUE(st.draft_bytes > 0);
    accepted += st.accepted;
    drafted += st.drafted;
    used += st.ahead_used;
    rig_close(&r);
    rig_close(&t.r);
    tiny_image_free(&edge);
    tiny_image_free(&big);
  }
  CU_ASSERT_TRUE(accepted > 50 && drafted > accepted && used > 10);
}

TEST(limits_stops_and_bytes) {
  struct tiny_image t;
  struct foray_err e = {0};
  struct tiny_opts o = shape(2);
  o.prev = false; /* the first token may leave early */
  CU_ASSERT_TRUE_FATAL(tiny_image_make(&o, &t, &e));
  struct rig r = rig_open("ref", t.img, (struct foray_drafter_opts){.ctx = 24});
  uint32_t tok[32] = {1, 2, 3}, got = 9;
  struct foray_draft d[FORAY_DRAFT_MAX];
  struct foray_draft_params p = foray_draft_defaults();
  CU_ASSERT_EQUAL(foray_drafter_draft(r.d, &p, d, &got, &e), FORAY_E_STATE);
  tok[1] = 203;
  CU_ASSERT_EQUAL(foray_drafter_sync(r.d, tok, 3, &e), FORAY_E_ARG);
  tok[1] = 2;
  CU_ASSERT_EQUAL(foray_drafter_sync(r.d, tok, 25, &e), FORAY_E_LIMIT);
  p.max = 0;
  CU_ASSERT_EQUAL(foray_drafter_sync(r.d, tok, 3, &e), FORAY_OK);
  CU_ASSERT_EQUAL(foray_drafter_draft(r.d, &p, d, &got, &e), FORAY_E_ARG);
  p.max = 64; /* more than fits: the context ends the block */
  p.check = 0;
  for (int x = 0; x < FORAY_DRAFT_EXITS_MAX; x++) p.exit_top[x] = 2;
  got = draft(&r, tok, 3, &p, d);
  CU_ASSERT_EQUAL(got, 21);
  CU_ASSERT_EQUAL(draft(&r, tok, 24, &p, d), 0);
  /* a stop id ends the block and is in it */
  got = draft(&r, tok, 3, &p, d);
  p.n_stop = 1;
  p.stop_ids[0] = d[4].id;
  uint32_t first = 0;
  while (d[first].id != d[4].id) first++;
  CU_ASSERT_EQUAL(draft(&r, tok, 3, &p, d), first + 1);
  CU_ASSERT_EQUAL(d[first].id, p.stop_ids[0]);
  /* early tokens cost less; all bytes are accounted for */
  p.n_stop = 0;
  p.max = 6;
  uint64_t sum[2] = {0, 0};
  for (int early = 0; early < 2; early++) {
    struct foray_drafter_stats st;
    p.exit_top[0] = early ? 0 : 2;
    tok[0] = (uint32_t)early; /* another text: nothing is reused */
    foray_drafter_stats_reset(r.d);
    got = draft(&r, tok, 3, &p, d);
    CU_ASSERT_EQUAL(got, 6);
    for (uint32_t i = 0; i < got; i++) {
      sum[early] += d[i].bytes;
      CU_ASSERT_TRUE(d[i].bytes > 0);
      CU_ASSERT_EQUAL(d[i].exit, early ? 0 : foray_drafter_exits(r.d));
    }
    foray_drafter_stats(r.d, &st);
    CU_ASSERT_EQUAL(sum[early], st.bytes_weights + st.bytes_kv);
    CU_ASSERT_EQUAL(st.doorbells, 1);
    CU_ASSERT_EQUAL(st.drafted[early ? 0 : foray_drafter_exits(r.d)], 6);
  }
  CU_ASSERT_TRUE(sum[1] < sum[0] * 2 / 3);
  rig_close(&r);
  tiny_image_free(&t);
}
