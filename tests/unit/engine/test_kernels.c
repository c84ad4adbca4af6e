/* Each kernel against its definition in doubles, and every instruction set against the plain C one, to the
 * bit. */
#include "engine/f16.h"
#include "engine/fmath.h"
#include "engine/kernels.h"
#include "engine/repack.h"
#include "unit/engine/synth.h"
#include "unit/harness.h"

static const struct ek_ops *tables[5];
static int n_tables;

static void find_tables(void) {
  n_tables = 0;
  const int native = (int)foray_cpu_isa_native();
  for (int isa = FORAY_ISA_SCALAR; isa <= FORAY_ISA_AMX; isa++)
    if (isa == FORAY_ISA_SCALAR || (isa <= native && (isa == FORAY_ISA_NEON) == (native == FORAY_ISA_NEON)))
      tables[n_tables++] = ek_ops_get((enum foray_isa)isa);
}

struct acts {
  struct ek_act a[3];
  int n;
  void *mem[6];
};

static void *get(size_t n) {
  void *p = calloc(n, 1);
  if (!p) abort();
  return p;
}

/* Quantises `cols` columns of k values into act blocks of a table's width. */
static void acts_make(struct acts *s, const struct ek_ops *ops, const float *x, int cols, int k) {
  const size_t groups = (size_t)(k + 31) / 32, cells = (size_t)cols * groups + 16;
  memset(s, 0, sizeof *s);
  s->mem[0] = get(cells * 32);
  for (int i = 1; i < 5; i++) s->mem[i] = get(cells * 8);
  s->mem[5] = get(cells * 32 * sizeof(float));
  for (int c = 0; c < cols; c += ops->block_width) {
    const size_t at = (size_t)c * groups;
    struct ek_act *a = &s->a[s->n++];
    a->width = cols - c < ops->block_width ? cols - c : ops->block_width;
    a->col0 = c;
    a->q = k % 32 ? NULL : (int8_t *)s->mem[0] + at * 32;
    a->d = (float *)s->mem[1] + at;
    a->s = (float *)s->mem[2] + at;
    a->n32 = (int32_t *)s->mem[3] + at;
    a->n16 = (int32_t *)s->mem[4] + 2 * at;
    a->xf = (float *)s->mem[5] + at * 32;
    for (int i = 0; i < a->width; i++)
      ops->quantise(x + (size_t)(c + i) * (size_t)k, k, a, i, 0, (int)groups);
  }
}
static void acts_free(struct acts *s) {
  for (int i = 0; i < 6; i++) free(s->mem[i]);
}

/* y[cols][rows] of a matrix on one table, in two parts. */
static void product(const struct ek_ops *ops, const struct ek_mat *m, const float *x, int cols, float *y) {
  struct acts s;
  float *ys[32];
  void *scratch = aligned_alloc(64, EK_SCRATCH_BYTES);
  if (!scratch) abort();
  for (int c = 0; c < cols; c++) ys[c] = y + (size_t)c * (size_t)m->rows;
  acts_make(&s, ops, x, cols, m->cols);
  const int blocks = ek_blocks(m);
  ops->gemm(m, s.a, s.n, ys, 0, blocks / 2, scratch);
  ops->gemm(m, s.a, s.n, ys, blocks / 2, blocks, scratch);
  acts_free(&s);
  free(scratch);
}

/* What the activations of column c look like after quantisation. */
static double act_value(const float *x, int i) {
  float a = 0;
  for (int k = i / 32 * 32; k < i / 32 * 32 + 32; k++) a = fabsf(x[k]) > a ? fabsf(x[k]) : a;
  return a < 1e-30f ? 0 : nearbyint((double)(x[i] * (127.0f / a))) * (double)(a / 127.0f);
}

TEST(matrix_products_of_every_type) {
  enum { ROWS = 75, COLS = 768, M = 21 };
  find_tables();
  struct synth_rng r = {77, 0};
  float *x = get(M * COLS * sizeof *x), *w = get(COLS * sizeof *w), *gold = get(COLS * sizeof *gold);
  for (int i = 0; i < M * COLS; i++) x[i] = synth_normal(&r) * ((i & 63) == 5 ? 30.0f : 1.0f);
  for (int i = 0; i < 32; i++) x[COLS + i] = 0.0f; /* a group of zeros */
  for (int t = 0; t < SYNTH_TYPES; t++) {
    const uint32_t type = synth_types[t];
    const char *name = foray_type_info(type)->name;
    uint8_t *src = synth_matrix(&r, type, ROWS, COLS, 0.05f);
    struct ek_mat m;
    CU_ASSERT(ek_mat_shape(&m, type, ROWS, COLS));
    uint8_t *data = aligned_alloc(64, ek_mat_bytes(&m) + 8192);
    if (!data) abort();
    memset(data, 0, ek_mat_bytes(&m) + 8192);
    ek_repack(&m, src, foray_type_row_bytes(type, COLS), data, 0, ek_blocks(&m));
    m.data = data;
    float *want = get(M * ROWS * sizeof *want), *y = get(M * ROWS * sizeof *y);
    product(tables[0], &m, x, M, want);
    double num = 0, den = 0, exact = 0;
    for (int row = 0; row < ROWS; row++) {
      ek_row(&m, row, w);
      CU_ASSERT_EQUAL(
          foray_dequant_row(type, src + (size_t)row * foray_type_row_bytes(type, COLS), gold, COLS),
          FORAY_OK);
      int lost = 0;
      for (int k = 0; k < COLS; k++) lost += w[k] != gold[k];
      CU_ASSERT_EQUAL(lost, 0); /* repacking loses nothing */
      for (int c = 0; c < M; c++) {
        double sum = 0, qsum = 0;
        for (int k = 0; k < COLS; k++) {
          const double xv = (double)x[c * COLS + k];
          sum += xv * (double)gold[k];
          qsum += (m.format >= EK_F32 ? xv : act_value(x + c * COLS, k)) * (double)gold[k];
        }
        const double got = (double)want[c * ROWS + row];
        num += (got - sum) * (got - sum);
        exact += (got - qsum) * (got - qsum);
        den += sum * sum;
      }
    }
    /* Against the true product: the cost of int8 activations. Against quantised activations: float rounding
     * only. */
    if (!(num / den < 5e-4 && exact / den < 1e-11))
      printf("  %s: NMSE %g, %g\n", name, num / den, exact / den);
    CU_ASSERT(num / den < 5e-4);
    CU_ASSERT(exact / den < 1e-11);
    for (int i = 0; i < n_tables; i++)
      for (int cols = 1; cols <= M; cols++) {
        memset(y, 255, M * ROWS * sizeof *y);
        product(tables[i], &m, x, cols, y);
        if (memcmp(y, want, (size_t)cols * ROWS * sizeof *y)) {
          printf("  %s: %s differs at %d columns\n", name, foray_isa_name(tables[i]->isa), cols);
          CU_FAIL("bits differ");
          break;
        }
      }
    free(want);
    free(y);
    free(data);
    free(src);
  }
  free(x);
  free(w);
  free(gold);
}

TEST(no_kernel_for_odd_shapes) {
  struct ek_mat m;
  CU_ASSERT_FALSE(ek_mat_shape(&m, FORAY_GGML_Q4_K, 16, 288));
  CU_ASSERT_FALSE(ek_mat_shape(&m, FORAY_GGML_Q8_0, 16, 48));
  CU_ASSERT_FALSE(ek_mat_shape(&m, FORAY_GGML_I32, 16, 32));
  CU_ASSERT_TRUE(ek_mat_shape(&m, FORAY_GGML_F16, 5, 7));
}

TEST(elementwise) {
  enum { LEN = 608 };
  find_tables();
  struct synth_rng r = {3, 0};
  float x[LEN], u[LEN], w[LEN], want[LEN], y[LEN];
  for (int i = 0; i < LEN; i++) {
    x[i] = synth_normal(&r) * (i % 7 == 0 ? 40.0f : 2.0f);
    u[i] = synth_normal(&r);
    w[i] = synth_normal(&r);
  }
  const float edges[] = {0.0f, -0.0f, 1e-40f, 88.7f, -88.7f, 103.0f, -103.0f, 1e4f, -1e4f, 1e-20f, -1e-20f};
  memcpy(x, edges, sizeof edges);
  for (int what = 0; what < 2; what++) {
    for (int i = 0; i < n_tables; i++) {
      (what ? tables[i]->gelu_mul : tables[i]->silu_mul)(i ? y : want, x, u, LEN);
      if (i) CU_ASSERT(memcmp(y, want, sizeof y) == 0);
    }
    for (int i = 0; i < LEN; i++) {
      const double v = (double)x[i];
      const double t = what ? 2 * 0.7978845608028654 * (v + 0.044715 * v * v * v) : v;
      const double e = t < -700 ? 0 : v / (1 + exp(-t)) * (double)u[i];
      CU_ASSERT(fabs((double)want[i] - e) <=
                4e-7 * fabs(e) + 1e-30 + (what && fabs(v) < 90 ? 2e-6 * fabs(v) * fabs((double)u[i]) : 0));
    }
  }
  memset(x, 0, sizeof edges);
  for (int n = LEN - 17; n <= LEN; n++) {
    double ss = 0;
    for (int k = 0; k < n; k++) ss += (double)x[k] * (double)x[k];
    for (int i = 0; i < n_tables; i++) {
      tables[i]->rmsnorm(i ? y : want, x, w, n, 1e-5f);
      if (i) CU_ASSERT(memcmp(y, want, (size_t)n * sizeof *y) == 0);
    }
    for (int k = 0; k < n; k++) {
      const double e = (double)x[k] / sqrt(ss / n + 1e-5) * (double)w[k];
      CU_ASSERT(fabs((double)want[k] - e) <= 1e-6 * fabs(e) + 1e-12);
    }
  }
}

TEST(attention_over_pages) {
  enum { POS = 200, PAGES = 4, D = 80, HEADS = 5, STRIDE = 64 * (PAGES + 1) };
  find_tables();
  struct synth_rng r = {4, 0};
  static float k[POS][D], v[POS][D], q[HEADS * D], out[HEADS * D], want[HEADS * D], scores[4 * STRIDE];
  static uint16_t store[2][PAGES][2 * 64 * D];
  for (int i = 0; i < HEADS * D; i++) q[i] = synth_normal(&r);
  for (int p = 0; p < POS; p++)
    for (int d = 0; d < D; d++) k[p][d] = synth_normal(&r), v[p][d] = synth_normal(&r);
  for (int i = 0; i < n_tables; i++) {
    uint16_t *pages[PAGES];
    for (int p = 0; p < PAGES; p++) {
      pages[p] = store[i > 0][p];
      memset(pages[p], 0xff, sizeof store[0][0]); /* NaN wherever nothing was stored */
    }
    for (int p = 0; p < POS; p++)
      tables[i]->kv_put(k[p], v[p], D, pages[p / 64], pages[p / 64] + 64 * D, p % 64);
    if (i) CU_ASSERT(memcmp(store[0], store[1], sizeof store[0]) == 0);
    const struct ek_kv kv = {pages, 0, 64 * D};
    for (int hi = 0; hi < POS; hi += 9)
      for (int lo = 0; lo <= hi; lo += 37) {
        tables[0]->attention(want, q, HEADS, D, &kv, lo, hi, 0.11f, scores, STRIDE);
        tables[i]->attention(out, q, HEADS, D, &kv, lo, hi, 0.11f, scores, STRIDE);
        CU_ASSERT(memcmp(out, want, sizeof out) == 0);
        if (i) continue;
        for (int h = 0; h < HEADS; h++) {
          double s[POS], max = -1e300, sum = 0, o[D] = {0};
          for (int p = lo; p <= hi; p++) {
            s[p] = 0;
            for (int d = 0; d < D; d++)
              s[p] += (double)q[h * D + d] * (double)f16_to_f32(f16_from_f32(k[p][d]));
            s[p] *= 0.11f;
            if (s[p] > max) max = s[p];
          }
          for (int p = lo; p <= hi; p++) {
            const double e = exp(s[p] - max);
            sum += e;
            for (int d = 0; d < D; d++) o[d] += e * (double)f16_to_f32(f16_from_f32(v[p][d]));
          }
          for (int d = 0; d < D; d++) CU_ASSERT_DOUBLE_EQUAL((double)want[h * D + d], o[d] / sum, 2e-6);
        }
      }
  }
}

TEST(halves_are_exact) {
  for (uint32_t h = 0; h < 65536; h++) {
    const float f = f16_to_f32((uint16_t)h);
    if (f != f) continue;
    CU_ASSERT_EQUAL(f16_from_f32(f), h);
    /* Half way between two neighbours goes to the even one, a little more or less to the nearer one. */
    const float g = f16_to_f32((uint16_t)(h + 1));
    if ((h & 0x7fff) >= 0x7bff || g != g) continue;
    const float mid = (f + g) * 0.5f;
    CU_ASSERT_EQUAL(f16_from_f32(mid), h + (h & 1));
    CU_ASSERT_EQUAL(f16_from_f32(nextafterf(mid, f)), h);
    CU_ASSERT_EQUAL(f16_from_f32(nextafterf(mid, g)), h + 1);
  }
}

TEST(own_mathematics) {
  for (int i = -7000; i < 7000; i++) {
    const double x = (double)i * 0.1001;
    CU_ASSERT(fabs(fm_exp(x) / exp(x) - 1) < 4e-16 * (2 + fabs(x) * 0.01));
    const double y = fm_exp(x);
    if (y > 0) CU_ASSERT(fabs(fm_log(y) - log(y)) <= 4e-16 * (1 + fabs(log(y))));
    double s, c;
    fm_sincos(x * 31.7, &s, &c);
    CU_ASSERT(fabs(s - sin(x * 31.7)) < 1e-15);
    CU_ASSERT(fabs(c - cos(x * 31.7)) < 1e-15);
  }
}
