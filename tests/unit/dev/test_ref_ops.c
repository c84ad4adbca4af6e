/* Each operation of the reference device against double, with the bound that docs/numerics.md states. */
#include "unit/harness.h"

#include "core/imath.h"
#include "core/noise.h"
#include "dev/exit.h"
#include "dev/ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t rng = 0x9e3779b97f4a7c15u;
static uint64_t next(void) {
  rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
  return rng;
}
static double uniform(void) { return (double)(next() >> 11) / 9007199254740992.0; }
/* Roughly normal, with now and then a large value, as activations are. */
static double heavy(void) {
  double s = 0;
  for (int i = 0; i < 6; i++) s += uniform();
  return (s - 3) * (next() % 97 == 0 ? 60 : 1);
}

enum { N = 576 };
struct yvec {
  int32_t exp, m[4096];
};
struct avec {
  int32_t exp;
  int16_t m[4096];
  uint8_t shift[128];
};
static struct foray_y32 yv(struct yvec *v) { return (struct foray_y32){&v->exp, v->m}; }
static struct foray_a16 av(struct avec *v) { return (struct foray_a16){&v->exp, v->m, v->shift}; }
static double y_at(const struct yvec *v, uint32_t i) { return ldexp(v->m[i], v->exp); }
static double a_at(const struct avec *v, uint32_t i) { return ldexp(v->m[i], v->shift[i / 32] + v->exp); }

static void y_random(struct yvec *v, uint32_t n, int exp) {
  static int64_t w[4096];
  for (uint32_t i = 0; i < n; i++) w[i] = (int64_t)(heavy() * 1e9);
  foray_ref_norm30(w, n, exp, yv(v));
}
static double y_max(const struct yvec *v, uint32_t n) {
  double m = 0;
  for (uint32_t i = 0; i < n; i++) m = fmax(m, fabs(y_at(v, i)));
  return m;
}

TEST(norm30_error) {
  static struct yvec y;
  static int64_t v[N], keep[N];
  for (int round = 0; round < 64; round++) {
    double max = 0, worst = 0;
    for (int i = 0; i < N; i++) keep[i] = v[i] = (int64_t)(next()) >> (round + 1 > 62 ? 62 : round + 1);
    foray_ref_norm30(v, N, -7, yv(&y));
    for (int i = 0; i < N; i++) {
      max = fmax(max, fabs(ldexp((double)keep[i], -7)));
      worst = fmax(worst, fabs(y_at(&y, (uint32_t)i) - ldexp((double)keep[i], -7)));
      CU_ASSERT(abs(y.m[i]) <= 1 << 30);
    }
    CU_ASSERT(worst <= max * 0x1p-30);
  }
  memset(v, 0, sizeof v);
  foray_ref_norm30(v, N, 5, yv(&y));
  CU_ASSERT_EQUAL(y.exp, FORAY_ABI_EXP_ZERO);
  v[3] = -1;
  foray_ref_norm30(v, N, 0, yv(&y));
  CU_ASSERT_EQUAL(y.m[3], -(1 << 29));
  CU_ASSERT_EQUAL(y.exp, -29);
}

TEST(to_a16_error) {
  static struct yvec y;
  static struct avec a;
  for (int round = 0; round < 50; round++) {
    y_random(&y, N, round - 20);
    for (uint32_t i = 64; i < 96; i++) y.m[i] >>= 20; /* a group of small values */
    for (uint32_t i = 96; i < 128; i++) y.m[i] = 0;
    foray_ref_quant(NULL, N, yv(&y), av(&a));
    double max = y_max(&y, N);
    for (uint32_t g = 0; g < N / 32; g++) {
      double gmax = 0, worst = 0;
      for (uint32_t i = g * 32; i < g * 32 + 32; i++) {
        gmax = fmax(gmax, fabs(y_at(&y, i)));
        worst = fmax(worst, fabs(a_at(&a, i) - y_at(&y, i)));
        CU_ASSERT(abs(a.m[i]) <= 1 << 14);
      }
      CU_ASSERT(a.shift[g] <= 15);
      CU_ASSERT(worst <= fmax(gmax * 0x1p-14, max * 0x1p-29));
    }
  }
  memset(&y, 0, sizeof y);
  foray_ref_quant(NULL, N, yv(&y), av(&a));
  CU_ASSERT_EQUAL(a.exp, FORAY_ABI_EXP_ZERO);
}

TEST(add_error) {
  static struct yvec a, b, s;
  for (int d = -70; d <= 70; d += 5) {
    y_random(&a, N, 0);
    y_random(&b, N, d);
    s = a;
    foray_ref_add(NULL, N, yv(&s), yv(&b));
    double max = fmax(y_max(&a, N), y_max(&b, N)), worst = 0;
    for (uint32_t i = 0; i < N; i++) worst = fmax(worst, fabs(y_at(&s, i) - (y_at(&a, i) + y_at(&b, i))));
    CU_ASSERT(worst <= max * 0x1p-29);
  }
  s = a;
  for (int i = 0; i < N; i++) b.m[i] = -a.m[i];
  b.exp = a.exp;
  foray_ref_add(NULL, N, yv(&s), yv(&b));
  CU_ASSERT_EQUAL(s.exp, FORAY_ABI_EXP_ZERO);
}

TEST(rmsnorm_error) {
  static struct yvec x;
  static struct avec a;
  static int32_t gamma[N];
  for (int round = 0; round < 40; round++) {
    y_random(&x, N, -40 + 2 * round);
    for (int i = 0; i < N; i++) gamma[i] = (int32_t)(heavy() * 3e8);
    const uint32_t eps_mant = 11258999; /* 1e-5 = eps_mant * 2^-40 and a bit */
    struct foray_desc_rmsnorm d = {
        .n = N, .gamma_exp = -28, .eps_mant = eps_mant, .eps_exp = -40, .root_n = foray_dev_root_n(N)};
    foray_ref_rmsnorm(NULL, &d, gamma, yv(&x), av(&a));
    double s = 0, max = 0;
    for (uint32_t i = 0; i < N; i++) s += y_at(&x, i) * y_at(&x, i);
    double inv = 1 / sqrt(s / N + ldexp(eps_mant, -40));
    static double want[N];
    for (uint32_t i = 0; i < N; i++)
      max = fmax(max, fabs(want[i] = y_at(&x, i) * inv * ldexp(gamma[i], -28)));
    for (uint32_t g = 0; g < N / 32; g++) {
      double gmax = 0, worst = 0;
      for (uint32_t i = g * 32; i < g * 32 + 32; i++) {
        gmax = fmax(gmax, fabs(want[i]));
        worst = fmax(worst, fabs(a_at(&a, i) - want[i]));
      }
      CU_ASSERT(worst <= gmax * 0x1.02p-14 + max * 0x1p-20);
    }
  }
  memset(&x, 0, sizeof x);
  struct foray_desc_rmsnorm d = {.n = N, .root_n = foray_dev_root_n(N)};
  foray_ref_rmsnorm(NULL, &d, gamma, yv(&x), av(&a));
  CU_ASSERT_EQUAL(a.m[0], 0);
  CU_ASSERT_EQUAL(foray_dev_root_n(576), 24u << 16);
}

TEST(silu_error) {
  static struct yvec g, u;
  static struct avec a;
  for (int round = 0; round < 30; round++) {
    y_random(&g, N, -32 + round % 8);
    y_random(&u, N, -30);
    foray_ref_silu_mul(NULL, N, yv(&g), yv(&u), av(&a));
    double gmaxu = y_max(&g, N) * y_max(&u, N);
    for (uint32_t k = 0; k < N / 32; k++) {
      double gmax = 0, worst = 0, prod = 0;
      for (uint32_t i = k * 32; i < k * 32 + 32; i++) {
        double x = y_at(&g, i), want = x / (1 + exp(-x)) * y_at(&u, i);
        gmax = fmax(gmax, fabs(want));
        prod = fmax(prod, fabs(x * y_at(&u, i)));
        worst = fmax(worst, fabs(a_at(&a, i) - want));
      }
      CU_ASSERT(worst <= gmax * 0x1.02p-14 + prod * 1.2e-5 + gmaxu * 0x1p-28);
    }
  }
}

TEST(rope_error) {
  enum { HD = 64, HEADS = 3 };
  static struct yvec x, y;
  uint64_t freq[HD / 2];
  for (uint32_t i = 0; i < HD / 2; i++) freq[i] = foray_rope_freq_q64(100000, HD, i);
  const uint32_t positions[] = {0, 1, 17, 511, 4095, 32767};
  for (int neox = 0; neox < 2; neox++)
    for (int p = 0; p < 6; p++) {
      y_random(&x, HD * HEADS, -28);
      y = x;
      struct foray_desc_rope d = {.head_dim = HD, .heads = HEADS, .flags = neox ? FORAY_DF_NEOX : 0};
      foray_ref_rope(NULL, &d, freq, positions[p], yv(&y));
      double worst = 0, max = y_max(&x, HD * HEADS);
      for (uint32_t h = 0; h < HEADS; h++)
        for (uint32_t i = 0; i < HD / 2; i++) {
          uint32_t i0 = h * HD + (neox ? i : 2 * i), i1 = i0 + (neox ? HD / 2 : 1);
          double th = positions[p] * pow(100000, -2.0 * i / HD), a = y_at(&x, i0), b = y_at(&x, i1);
          double len = hypot(a, b);
          worst =
              fmax(worst, (fabs(y_at(&y, i0) - (a * cos(th) - b * sin(th))) - max * 0x1p-29) / (len + 1e-30));
          worst =
              fmax(worst, (fabs(y_at(&y, i1) - (a * sin(th) + b * cos(th))) - max * 0x1p-29) / (len + 1e-30));
        }
      CU_ASSERT(worst < 6e-7);
    }
}

/* ---- matrices: random image bytes, and the double product by the value formulas of docs/image.md ---- */

static double q_at(const struct foray_matrix *w, uint32_t r, uint32_t c) {
  const uint8_t *b = w->data + r / 16 * w->layout.block_bytes;
  uint32_t g = c / 32, k = c % 32, rr = r % 16;
  double m = ldexp(w->mant[r], w->exp);
  if (w->qtype == FORAY_QTYPE_Q4A) {
    const uint8_t *pair = b + g / 2 * 576, *codes = pair + g % 2 * 32, *beats = pair + 64 + g % 2 * 256;
    int byte = beats[k / 8 * 64 + rr * 4 + k % 4], q = k % 8 < 4 ? byte & 15 : byte >> 4;
    return m * codes[rr] * (16 * q - codes[16 + rr]);
  }
  const uint8_t *quad = b + g / 4 * 2112;
  return m * quad[g % 4 * 16 + rr] * (int8_t)quad[64 + g % 4 * 512 + k / 4 * 64 + rr * 4 + k % 4];
}

static struct foray_matrix matrix_random(uint32_t qtype, uint32_t rows, uint32_t cols, int32_t *bias) {
  struct foray_matrix w = {
      .qtype = qtype, .rows = rows, .cols = cols, .exp = -35, .bias = bias, .bias_exp = -20};
  CU_ASSERT_TRUE_FATAL(foray_dev_matrix_of(qtype, rows, cols, bias != NULL, &w.layout));
  uint8_t *p = malloc(w.layout.bytes);
  CU_ASSERT_PTR_NOT_NULL_FATAL(p);
  for (uint64_t i = 0; i < w.layout.bytes; i++) p[i] = (uint8_t)next();
  uint16_t *mant = (uint16_t *)(void *)p;
  for (uint32_t r = 0; r < w.layout.rows_pad; r++)
    mant[r] = r < rows ? (uint16_t)(32768 + next() % 32768) : 0;
  w.mant = mant;
  w.data = p + w.layout.data_at;
  return w;
}

TEST(gemv_and_head_error) {
  static struct yvec x, y;
  static struct avec a;
  static int32_t bias[160];
  for (uint32_t qtype = FORAY_QTYPE_Q4A; qtype <= FORAY_QTYPE_Q8S; qtype++)
    for (int round = 0; round < 6; round++) {
      const uint32_t cols_of[] = {32, 64, 96, 160, N, 2048}, rows_of[] = {16, 5, 33, 160, 48, 17};
      uint32_t cols = cols_of[round], rows = rows_of[round];
      bool has_bias = round % 2;
      for (int i = 0; i < 160; i++) bias[i] = (int32_t)next();
      struct foray_matrix w = matrix_random(qtype, rows, cols, has_bias ? bias : NULL);
      for (uint32_t r = rows; r < 160; r++) bias[r] = 0;
      y_random(&x, cols, -30);
      foray_ref_quant(NULL, cols, yv(&x), av(&a));
      struct foray_a16 src = av(&a);
      struct foray_y32 dst = yv(&y);
      foray_ref_gemv(NULL, &w, 1, &src, &dst);
      double max = 0, worst = 0;
      static double want[160];
      for (uint32_t r = 0; r < rows; r++) {
        long double s = 0;
        for (uint32_t c = 0; c < cols; c++) s += (long double)q_at(&w, r, c) * a_at(&a, c);
        want[r] = (double)s;
        if (has_bias) max = fmax(max, fabs(ldexp(bias[r], -20)));
        max = fmax(max, fabs(want[r]));
      }
      for (uint32_t r = 0; r < rows; r++)
        worst = fmax(worst, fabs(y_at(&y, r) - want[r] - (has_bias ? ldexp(bias[r], -20) : 0)));
      CU_ASSERT(worst <= max * 0x1p-28);
      if (!has_bias) {
        static int32_t logits[160];
        int32_t *l = logits;
        foray_ref_head(NULL, &w, rows, 1, &src, &l);
        worst = 0;
        for (uint32_t r = 0; r < rows; r++)
          if (fabs(want[r]) < 32767) worst = fmax(worst, fabs(logits[r] / 65536.0 - want[r]));
        CU_ASSERT(worst <= 0x1p-16);
      }
      free((void *)(uintptr_t)w.mant);
    }
}

TEST(gemv_columns_are_independent_and_extremes_do_not_overflow) {
  static struct avec a[2];
  static struct yvec y[2], alone;
  struct foray_matrix w = matrix_random(FORAY_QTYPE_Q4A, 16, 4096, NULL);
  uint8_t *d = (uint8_t *)(uintptr_t)w.data;
  memset(d, 0xff, w.layout.block_bytes); /* sc = zp = 255, q = 15 */
  for (uint32_t p = 0; p < w.layout.groups / 2; p++)
    for (int g = 0; g < 2; g++) memset(d + p * 576 + (uint32_t)g * 32 + 16, 0, 16); /* zp = 0 */
  for (int k = 0; k < 2; k++) {
    for (int i = 0; i < 4096; i++) a[k].m[i] = k ? -16384 : 16384;
    memset(a[k].shift, 15, sizeof a[k].shift);
    a[k].exp = -15;
  }
  struct foray_a16 src[2] = {av(&a[0]), av(&a[1])};
  struct foray_y32 dst[2] = {yv(&y[0]), yv(&y[1])}, one = yv(&alone);
  foray_ref_gemv(NULL, &w, 2, src, dst);
  double want = 4096.0 * 16384 * 255 * 240 * ldexp(w.mant[0], w.exp);
  CU_ASSERT(fabs(y_at(&y[0], 0) / want - 1) < 1e-8);
  CU_ASSERT(fabs(y_at(&y[1], 0) / want + 1) < 1e-8);
  foray_ref_gemv(NULL, &w, 1, src + 1, &one);
  CU_ASSERT_EQUAL(memcmp(alone.m, y[1].m, 16 * 4), 0);
  CU_ASSERT_EQUAL(alone.exp, y[1].exp);
  free((void *)(uintptr_t)w.mant);
}

/* ---- attention ---- */

enum { HD = 64, KVH = 2, QH = 6, CTX = 300 };
static uint8_t kvmem[KVH * CTX * (16 + 2 * HD)];

static double kv_code(const struct foray_kv *kv, uint32_t h, uint32_t p, uint32_t i, int v) {
  const uint8_t *r = kv->base + ((uint64_t)h * kv->max_pos + p) * kv->record;
  uint32_t g = (uint32_t)v * (HD / 32) + i / 32, s = (uint32_t)(r[2 * g] | r[2 * g + 1] << 8);
  return (int8_t)r[16 + v * HD + (int)i] * ldexp(1024 + (s & 1023), (int)(s >> 10) - 48);
}

TEST(kv_error) {
  struct foray_kv kv = {kvmem, CTX, foray_dev_kv_record(HD), HD, KVH};
  static struct yvec k, v;
  CU_ASSERT_EQUAL(kv.record, 144);
  for (int e = -48; e < 0; e += 6) {
    y_random(&k, HD * KVH, e);
    y_random(&v, HD * KVH, e);
    for (int i = 0; i < 32; i++) v.m[i] = 0;
    v.m[40] = INT32_MAX; /* beyond the bound: clamped */
    foray_ref_kv_put(NULL, &kv, 7, yv(&k), yv(&v));
    v.m[40] = 1 << 30;
    for (uint32_t h = 0; h < KVH; h++)
      for (uint32_t g = 0; g < HD / 32; g++) {
        double mk = 0, mv = 0, wk = 0, wv = 0;
        for (uint32_t i = g * 32; i < g * 32 + 32; i++) {
          mk = fmax(mk, fabs(y_at(&k, h * HD + i)));
          mv = fmax(mv, fabs(y_at(&v, h * HD + i)));
          wk = fmax(wk, fabs(y_at(&k, h * HD + i) - kv_code(&kv, h, 7, i, 0)));
          wv = fmax(wv, fabs(y_at(&v, h * HD + i) - kv_code(&kv, h, 7, i, 1)));
        }
        CU_ASSERT(wk <= mk / 254 * 1.002);
        CU_ASSERT(wv <= mv / 254 * 1.002);
      }
  }
}

TEST(attention_error) {
  struct foray_kv kv = {kvmem, CTX, foray_dev_kv_record(HD), HD, KVH};
  static struct yvec k, v, q;
  static struct avec out, alone, qa;
  double worst = 0;
  for (int hard = 0; hard < 3; hard++) {
    for (uint32_t p = 0; p < CTX; p++) {
      /* V of very different size by position, so that both running maxima move; scores that grow */
      y_random(&k, HD * KVH, -29 + (hard == 2 ? (int)(p / 60) : 0));
      y_random(&v, HD * KVH, -30 + (hard ? (int)(next() % 5) : 0));
      foray_ref_kv_put(NULL, &kv, p, yv(&k), yv(&v));
    }
    y_random(&q, HD * QH, -35 + hard);
    foray_ref_quant(NULL, HD * QH, yv(&q), av(&qa)); /* rounding q has its own bound: to_a16_error */
    struct foray_desc_attn d = {.head_dim = HD, .heads = QH, .kv_heads = KVH};
    foray_dev_attn_scale(HD, &d.scale, &d.scale_exp);
    CU_ASSERT(d.scale >= 1 << 23 && d.scale <= 1 << 24);
    CU_ASSERT(fabs(ldexp(d.scale, d.scale_exp) * sqrt(HD) / 1.4426950408889634 - 1) < 1e-7);
    const uint32_t positions[] = {0, 1, 31, 32, 200, CTX - 1};
    for (int t = 0; t < 6; t++) {
      uint32_t pos = positions[t];
      struct foray_y32 qs = yv(&q);
      struct foray_a16 dst = av(&out);
      foray_ref_attn(NULL, &d, &kv, 1, &pos, &qs, &dst);
      for (uint32_t h = 0; h < QH; h++) {
        static double s[CTX];
        double top = -1e300, z = 0, vmax = 0;
        for (uint32_t p = 0; p <= pos; p++) {
          s[p] = 0;
          for (uint32_t i = 0; i < HD; i++) s[p] += a_at(&qa, h * HD + i) * kv_code(&kv, h / 3, p, i, 0);
          s[p] /= sqrt(HD);
          top = fmax(top, s[p]);
        }
        for (uint32_t p = 0; p <= pos; p++) z += s[p] = exp(s[p] - top);
        for (uint32_t p = 0; p <= pos; p++)
          for (uint32_t i = 0; i < HD; i++) vmax = fmax(vmax, fabs(kv_code(&kv, h / 3, p, i, 1)));
        for (uint32_t i = 0; i < HD; i++) {
          double o = 0;
          for (uint32_t p = 0; p <= pos; p++) o += s[p] / z * kv_code(&kv, h / 3, p, i, 1);
          worst = fmax(worst, fabs(o - a_at(&out, h * HD + i)) / vmax);
        }
      }
      /* the same column inside a batch */
      uint32_t both[2] = {3, pos};
      struct foray_y32 q2[2] = {yv(&q), yv(&q)};
      static struct avec other;
      struct foray_a16 d2[2] = {av(&other), av(&alone)};
      foray_ref_attn(NULL, &d, &kv, 2, both, q2, d2);
      CU_ASSERT_EQUAL(memcmp(alone.m, out.m, HD * QH * 2), 0);
      CU_ASSERT_EQUAL(alone.exp, out.exp);
    }
  }
  CU_ASSERT(worst < 2e-4);
}

/* ---- exit unit ---- */

TEST(exit_features_error) {
  enum { V = 3000 };
  static int32_t l[V];
  static struct foray_exit_unit u, split;
  double e_p = 0, e_h = 0, e_z = 0, e_au = 0, e_eu = 0;
  for (int round = 0; round < 60; round++) {
    double sharp = 0.5 + round * 0.15, shift = round % 7 * 6 - 12;
    for (int i = 0; i < V; i++)
      l[i] = (int32_t)lround(fmax(-170, fmin(170, heavy() * sharp + shift)) * 65536);
    struct foray_sampling s = {false, 0, 0, 0};
    foray_exit_clear(&u);
    foray_ref_exit_stream(NULL, l, NULL, V, &s, &u);
    struct foray_rec_ring r = {0};
    foray_exit_finish(&u, 0, &r);
    double top = -1e9, second = -1e9, z = 0, h = 0, sum = 0, au = 0;
    int arg = 0;
    for (int i = 0; i < V; i++) {
      double x = l[i] / 65536.0;
      if (x > top)
        second = top, top = x, arg = i;
      else if (x > second)
        second = x;
    }
    for (int i = 0; i < V; i++) z += exp(l[i] / 65536.0 - top);
    for (int i = 0; i < V; i++) {
      double lp = l[i] / 65536.0 - top - log(z);
      h -= exp(lp) * lp;
    }
    for (int k = 0; k < 8; k++) sum += fmax(0, r.top_logit[k] / 65536.0);
    for (int k = 0; k < 8 && sum > 0; k++) {
      double a = fmax(0, r.top_logit[k] / 65536.0), dh = 1e-5;
      double psi = (lgamma(a + 1 + dh) - lgamma(a + 1 - dh)) / (2 * dh);
      double psi0 = (lgamma(sum + 1 + dh) - lgamma(sum + 1 - dh)) / (2 * dh);
      au -= a / sum * (psi - psi0);
    }
    CU_ASSERT_EQUAL(r.token, (uint32_t)arg);
    CU_ASSERT_EQUAL(r.top_id[0], (uint32_t)arg);
    e_p = fmax(e_p, fabs(r.top_prob / 65536.0 - 1 / z));
    e_p = fmax(e_p, fabs(r.margin / 65536.0 - (1 - exp(second - top)) / z));
    e_h = fmax(e_h, fabs(r.entropy / 65536.0 - h));
    e_z = fmax(e_z, fabs(r.log_z / 65536.0 - (top + log(z))));
    e_z = fmax(e_z, fabs(r.logprob / 65536.0 + log(z)));
    e_au = fmax(e_au, fabs(r.aleatoric / 65536.0 - au));
    e_eu = fmax(e_eu, fabs(r.epistemic / 65536.0 - 8 / (sum + 8)));
    /* order-free: two halves in the other order give the same unit */
    uint32_t ids[V];
    for (int i = 0; i < V; i++) ids[i] = (uint32_t)i;
    foray_exit_clear(&split);
    foray_ref_exit_stream(NULL, l + 1000, ids + 1000, V - 1000, &s, &split);
    foray_ref_exit_stream(NULL, l, ids, 1000, &s, &split);
    CU_ASSERT_EQUAL(memcmp(&u, &split, sizeof u), 0);
  }
  CU_ASSERT(e_p < 3.5e-5);
  CU_ASSERT(e_h < 3e-4);
  CU_ASSERT(e_z < 5e-5);
  CU_ASSERT(e_au < 2e-4);
  CU_ASSERT(e_eu < 2e-5);
  if (e_p >= 3.5e-5 || e_h >= 3e-4 || e_z >= 5e-5 || e_au >= 2e-4)
    printf("exit: p %.2e h %.2e z %.2e au %.2e eu %.2e\n", e_p, e_h, e_z, e_au, e_eu);
}

TEST(exit_unit_samples_by_the_shared_noise) {
  enum { V = 200 };
  int32_t l[V];
  uint32_t ids[V];
  for (int i = 0; i < V; i++) l[i] = (int32_t)lround(heavy() * 3 * 65536), ids[i] = (uint32_t)(i * 7 + 3);
  for (uint32_t pos = 0; pos < 50; pos++) {
    struct foray_sampling s = {true, 81920 /* T = 0.8 */, 99, pos};
    struct foray_exit_unit u;
    foray_exit_clear(&u);
    foray_ref_exit_stream(NULL, l, ids, V, &s, &u);
    int64_t best = INT64_MIN;
    uint32_t arg = 0;
    for (int i = 0; i < V; i++) {
      int64_t key = llround(l[i] / 65536.0 / 0.8 * 65536) + foray_gumbel_q16(99, pos, ids[i]);
      if (key > best) best = key, arg = ids[i];
    }
    CU_ASSERT_EQUAL(u.best_id, arg);
  }
}

TEST(exit_extremes_are_defined) {
  int32_t l[3] = {INT32_MAX, -INT32_MAX, INT32_MAX};
  uint32_t ids[3] = {9, 1, 4};
  struct foray_sampling s = {false, 0, 0, 0};
  struct foray_exit_unit u;
  struct foray_rec_ring r = {0};
  foray_exit_clear(&u);
  foray_ref_exit_stream(NULL, l, ids, 3, &s, &u);
  foray_exit_finish(&u, -5, &r);
  CU_ASSERT_EQUAL(r.token, 4); /* ties to the lowest id */
  foray_exit_clear(&u);
  foray_ref_exit_stream(NULL, l + 1, ids + 1, 1, &s, &u);
  foray_exit_finish(&u, 0, &r);
  CU_ASSERT_EQUAL(r.token, 1);
  CU_ASSERT_EQUAL(r.margin, r.top_prob);
}
