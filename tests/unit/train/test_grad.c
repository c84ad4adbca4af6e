/* Reverse mode of the trainer against central differences of a plain forward pass in double precision,
 * written here a second time: every weight of small networks of all three architectures, LoRA with and
 * without dropout, and every loss. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/philox.h"
#include "train/ewise.h"
#include "train/lm.h"
#include "train/optim.h"
#include "unit/harness.h"

enum {
  ROWS = 15,
  LAYERS = 3,
  D = 16,
  F = 20,
  HEADS = 4,
  KVS = 2,
  HD = 6,
  Q = HEADS * HD,
  K = KVS * HD,
  V = 22,
  RANK = 3
};

static struct foray_model_config config(enum foray_arch arch) {
  bool gemma = arch == FORAY_ARCH_GEMMA3;
  return (struct foray_model_config){.arch = arch,
                                     .n_layer = LAYERS,
                                     .n_embd = D,
                                     .n_ff = F,
                                     .n_head = HEADS,
                                     .n_head_kv = KVS,
                                     .head_dim = HD,
                                     .n_vocab = V,
                                     .rms_eps = 1e-5f,
                                     .rope_style =
                                         arch == FORAY_ARCH_LLAMA ? FORAY_ROPE_NORM : FORAY_ROPE_NEOX,
                                     .rope_dim = arch == FORAY_ARCH_LLAMA ? 4 : HD,
                                     .rope_base = 1000,
                                     .rope_base_local = gemma ? 50 : 1000,
                                     .rope_scale = 0.5f,
                                     .attn_scale = 0.4f,
                                     .window = gemma ? 3 : 0,
                                     .window_pattern = gemma ? 2 : 0,
                                     .qkv_bias = arch == FORAY_ARCH_QWEN2,
                                     .qk_norm = gemma,
                                     .post_norms = gemma,
                                     .tied = true,
                                     .embd_scale = gemma ? 4 : 1,
                                     .act = gemma ? FORAY_ACT_GELU_TANH : FORAY_ACT_SILU};
}

/* ---------------------------------------------------------------- the same network in double */
struct dlin {
  double *w, *bias, *a, *b;
};
struct dnet {
  const struct foray_model_config *c;
  struct dlin lin[LAYERS][FORAY_LIN_N];
  double *norm[LAYERS][FORAY_NORM_N];
  double *out_norm, *embd;
  const float *mask[LAYERS][FORAY_LIN_N]; /* dropout factors of the LoRA's inputs, or NULL */
};
static double *wide(const float *w, size_t n) {
  double *o = malloc(n * sizeof *o);
  for (size_t i = 0; w && i < n; i++) o[i] = (double)w[i];
  if (w) return o;
  free(o);
  return NULL;
}

static void dnorm(const double *x, const double *w, double eps, double *y, int n) {
  double s = 0;
  for (int i = 0; i < n; i++) s += x[i] * x[i];
  s = 1 / sqrt(s / n + eps);
  for (int i = 0; i < n; i++) y[i] = x[i] * s * w[i];
}
static void dlinear(const struct foray_lin *l, const struct dlin *d, const double *x, const float *mask,
                    double *y) {
  double t[RANK];
  for (int r = 0; r < l->rank; r++) {
    t[r] = 0;
    for (int i = 0; i < l->n_in; i++) t[r] += d->a[r * l->n_in + i] * x[i] * (mask ? (double)mask[i] : 1);
    t[r] *= (double)l->scale;
  }
  for (int o = 0; o < l->n_out; o++) {
    y[o] = d->bias ? d->bias[o] : 0;
    for (int i = 0; i < l->n_in; i++) y[o] += d->w[o * l->n_in + i] * x[i];
    for (int r = 0; r < l->rank; r++) y[o] += t[r] * d->b[r * l->n_out + o];
  }
}
static void drope(const struct foray_model_config *c, double base, double scale, double *x, int heads,
                  int pos) {
  int half = (int)c->rope_dim / 2;
  for (int h = 0; h < heads; h++)
    for (int i = 0; i < half; i++) {
      bool neox = c->rope_style == FORAY_ROPE_NEOX;
      double *p = x + h * HD + (neox ? i : 2 * i), *q = x + h * HD + (neox ? i + half : 2 * i + 1);
      double t = pos * scale * pow(base, -2.0 * i / c->rope_dim), u = *p, w = *q;
      *p = u * cos(t) - w * sin(t);
      *q = u * sin(t) + w * cos(t);
    }
}

/* Final residual of each row. */
static void dforward(const struct foray_net *n, const struct dnet *d, int m, const int32_t *tokens,
                     const struct foray_segment *seg, int n_seg, double x[ROWS][D]) {
  static double q[ROWS][Q], k[ROWS][K], v[ROWS][K];
  const struct foray_model_config *c = d->c;
  for (int r = 0; r < m; r++)
    for (int i = 0; i < D; i++) x[r][i] = d->embd[tokens[r] * D + i] * (double)c->embd_scale;
  for (int l = 0; l < LAYERS; l++) {
    bool local = foray_config_layer_local(c, (uint32_t)l);
    const struct foray_net_layer *y = &n->layer[l];
#define LIN(j, row, in, out)                                                                                 \
  dlinear(&y->lin[j], &d->lin[l][j], in,                                                                     \
          d->mask[l][j] ? d->mask[l][j] + (size_t)(row) * (size_t)y->lin[j].n_in : NULL, out)
    for (int s = 0; s < n_seg; s++) {
      for (int r = seg[s].start; r < seg[s].start + seg[s].len; r++) {
        double h[D];
        dnorm(x[r], d->norm[l][FORAY_NORM_1], (double)c->rms_eps, h, D);
        LIN(FORAY_LIN_Q, r, h, q[r]);
        LIN(FORAY_LIN_K, r, h, k[r]);
        LIN(FORAY_LIN_V, r, h, v[r]);
        for (int a = 0; c->qk_norm && a < HEADS; a++)
          dnorm(q[r] + a * HD, d->norm[l][FORAY_NORM_Q], (double)c->rms_eps, q[r] + a * HD, HD);
        for (int a = 0; c->qk_norm && a < KVS; a++)
          dnorm(k[r] + a * HD, d->norm[l][FORAY_NORM_K], (double)c->rms_eps, k[r] + a * HD, HD);
        double base = (double)(local ? c->rope_base_local : c->rope_base),
               sc = local ? 1 : (double)c->rope_scale;
        drope(c, base, sc, q[r], HEADS, r - seg[s].start);
        drope(c, base, sc, k[r], KVS, r - seg[s].start);
      }
      for (int r = seg[s].start; r < seg[s].start + seg[s].len; r++) {
        double att[Q] = {0}, o[D], h[D], g[F], u[F];
        int lo = seg[s].start;
        if (local && r - lo + 1 > (int)c->window) lo = r + 1 - (int)c->window;
        for (int a = 0; a < HEADS; a++) {
          double p[ROWS], sum = 0;
          int kv = a / (HEADS / KVS) * HD;
          for (int t = lo; t <= r; t++) {
            p[t] = 0;
            for (int i = 0; i < HD; i++) p[t] += q[r][a * HD + i] * k[t][kv + i];
            sum += p[t] = exp(p[t] * (double)c->attn_scale);
          }
          for (int t = lo; t <= r; t++)
            for (int i = 0; i < HD; i++) att[a * HD + i] += p[t] / sum * v[t][kv + i];
        }
        LIN(FORAY_LIN_O, r, att, o);
        if (c->post_norms) dnorm(o, d->norm[l][FORAY_NORM_POST1], (double)c->rms_eps, o, D);
        for (int i = 0; i < D; i++) x[r][i] += o[i];
        dnorm(x[r], d->norm[l][FORAY_NORM_2], (double)c->rms_eps, h, D);
        LIN(FORAY_LIN_GATE, r, h, g);
        LIN(FORAY_LIN_UP, r, h, u);
        for (int i = 0; i < F; i++)
          g[i] = u[i] *
                 (c->act == FORAY_ACT_SILU
                      ? g[i] / (1 + exp(-g[i]))
                      : 0.5 * g[i] * (1 + tanh(0.7978845608028654 * (g[i] + 0.044715 * g[i] * g[i] * g[i]))));
        LIN(FORAY_LIN_DOWN, r, g, o);
        if (c->post_norms) dnorm(o, d->norm[l][FORAY_NORM_POST2], (double)c->rms_eps, o, D);
        for (int i = 0; i < D; i++) x[r][i] += o[i];
      }
    }
  }
}

static double dxlogx(double p, double q) { return p > 0 ? p * log(p / q) : 0; }
static double dbucket(const struct foray_lm_opts *o, double p, double q) {
  double b = (double)o->beta, m = b * p + (1 - b) * q;
  switch (o->div) {
  case FORAY_DIV_KL: return dxlogx(p, q);
  case FORAY_DIV_RKL: return dxlogx(q, p < 1e-12 ? 1e-12 : p);
  case FORAY_DIV_JSD: return b * dxlogx(p, m) + (1 - b) * dxlogx(q, m);
  case FORAY_DIV_TVD: return 0.5 * fabs(p - q);
  case FORAY_DIV_SKEW_KL: return dxlogx(p, m);
  }
  return 0;
}
static double dloss(const struct dnet *d, double x[ROWS][D], const struct foray_lm_goal *goals, int n,
                    const struct foray_lm_opts *o) {
  double total = 0, h[D], z[V];
  for (int g = 0; g < n; g++) {
    double lse = 0, tsum = 0, mass = 0, qs = 0, div = 0, tau = (double)o->tau;
    dnorm(x[goals[g].row], d->out_norm, (double)d->c->rms_eps, h, D);
    for (int i = 0; i < V; i++) {
      z[i] = 0;
      for (int k = 0; k < D; k++) z[i] += d->embd[i * D + k] * h[k];
      lse += exp(z[i]);
      tsum += exp(z[i] / tau);
    }
    if (goals[g].next >= 0) total += (double)goals[g].ce_weight * (log(lse) - z[goals[g].next]);
    const struct foray_sparse *s = goals[g].goal;
    if (!s) continue;
    for (int k = 0; k < s->n; k++) mass += (double)s->p[k];
    for (int k = 0; k < s->n; k++) {
      double q = exp(z[s->row[k]] / tau) / tsum;
      qs += q;
      div += dbucket(o, (double)s->p[k] / (o->rest ? 1 : mass), q);
    }
    if (s->n < V && (o->rest || o->div != FORAY_DIV_KL)) div += dbucket(o, o->rest ? 1 - mass : 0, 1 - qs);
    total += (double)goals[g].div_weight * div * (o->tau_square ? tau * tau : 1);
  }
  return total;
}

/* ---------------------------------------------------------------- the comparison */
struct rig {
  struct foray_model_config c;
  struct foray_pool *pool;
  struct foray_mm *gemm;
  struct foray_net *n;
  struct foray_acts *acts;
  struct foray_lm *lm;
  struct dnet d;
  int32_t tokens[ROWS];
  struct foray_segment seg[2];
  struct foray_lm_goal goals[ROWS];
  struct foray_sparse sparse[ROWS];
  int32_t row[ROWS][4];
  float p[ROWS][4];
  int n_goals, stride;
  double worst;
  int checked;
};

static float rnd(uint32_t stream, uint32_t i) {
  return (float)foray_philox4x32(3, i, stream, 0, 0).v[0] / 2147483648.0f - 1.0f;
}
static void fill(void *arg, struct foray_param *p) {
  uint32_t *stream = arg;
  (*stream)++;
  for (size_t i = 0; i < p->n; i++) p->w[i] += 0.15f * rnd(*stream, (uint32_t)i);
}

static void open_rig(struct rig *r, enum foray_arch arch, bool full, float drop, bool checkpoint,
                     int threads) {
  struct foray_err err = {0};
  uint32_t stream = 50;
  memset(r, 0, sizeof *r);
  r->c = config(arch);
  CU_ASSERT_FATAL(foray_pool_open(threads, &r->pool, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_mm_open(FORAY_MM_F32, r->pool, &r->gemm, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_net_open_random(&r->c, r->gemm, 4, &r->n, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_net_full_head(r->n, true, &err) == FORAY_OK);
  enum foray_status st =
      full ? foray_net_train_all(r->n, &err)
           : foray_net_add_lora_on(r->n, 0, RANK, 4, FORAY_LIN_ALL & ~(1u << FORAY_LIN_K), drop, 9, &err);
  CU_ASSERT_FATAL(st == FORAY_OK);
  foray_net_params(r->n, fill, &stream);
  CU_ASSERT_FATAL(foray_acts_open_with(r->n, ROWS, checkpoint, &r->acts, &err) == FORAY_OK);
  CU_ASSERT_FATAL(foray_lm_open(r->n, ROWS, &r->lm, &err) == FORAY_OK);
  r->seg[0] = (struct foray_segment){0, 9};
  r->seg[1] = (struct foray_segment){9, 6};
  for (int i = 0; i < ROWS; i++) r->tokens[i] = (i * 7 + 2) % V;
  for (int i = 0; i < ROWS; i++) {
    if (i == 8 || i == 14 || i == 3) continue;
    struct foray_sparse *s = &r->sparse[i];
    *s = (struct foray_sparse){4, r->row[i], r->p[i]};
    for (int k = 0; k < 4; k++) r->row[i][k] = (i * 5 + k * 3) % V, r->p[i][k] = 0.4f / (float)(1 << k);
    r->goals[r->n_goals++] = (struct foray_lm_goal){.row = i,
                                                    .next = i % 4 == 1 ? -1 : r->tokens[i + 1],
                                                    .ce_weight = 1,
                                                    .div_weight = i % 3 ? 0.7f : 0,
                                                    .goal = i % 3 ? s : NULL};
  }
  r->stride = 1;
}
static void close_rig(struct rig *r) {
  foray_lm_close(r->lm);
  foray_acts_close(r->acts);
  foray_net_close(r->n);
  foray_mm_close(r->gemm);
  foray_pool_close(r->pool);
}

static double run(struct rig *r, const struct foray_lm_opts *o, bool back) {
  struct foray_err err = {0};
  struct foray_lm_sums s = {0};
  float *d[LAYERS + 1] = {0};
  CU_ASSERT_FATAL(foray_net_forward(r->n, r->acts, ROWS, r->tokens, r->seg, 2, &err) == FORAY_OK);
  if (back) d[LAYERS] = calloc(ROWS * D, sizeof(float));
  CU_ASSERT_FATAL(foray_lm_loss(r->lm, r->acts, r->goals, r->n_goals, o, 1, d[LAYERS], &s, NULL, &err) ==
                  FORAY_OK);
  if (back) CU_ASSERT_FATAL(foray_net_backward(r->n, r->acts, d, &err) == FORAY_OK);
  free(d[LAYERS]);
  return s.ce + s.div;
}

static double reference(struct rig *r, const struct foray_lm_opts *o) {
  static double x[ROWS][D];
  dforward(r->n, &r->d, ROWS, r->tokens, r->seg, 2, x);
  return dloss(&r->d, x, r->goals, r->n_goals, o);
}

static void compare(struct rig *r, const struct foray_lm_opts *o, const struct foray_param *p, double *w) {
  double top = 0, worst = 0;
  for (size_t i = 0; i < p->n; i++) top = fmax(top, fabs((double)p->g[i]));
  size_t step = p->n > 40 ? (size_t)r->stride : 1;
  for (size_t i = 0; i < p->n; i += step) {
    const double keep = w[i], h = 1e-5;
    w[i] = keep + h;
    double up = reference(r, o);
    w[i] = keep - h;
    double fd = (up - reference(r, o)) / (2 * h);
    w[i] = keep;
    worst = fmax(worst, fabs(fd - (double)p->g[i]));
    r->checked++;
  }
  CU_ASSERT(top > 0);
  if (!(worst <= 1e-4 * top)) printf("%s: off by %g of %g\n", p->name, worst, top);
  r->worst = fmax(r->worst, worst / top);
}

static float *masks(struct rig *r) {
  size_t at = 0, total = 0;
  for (int l = 0; l < LAYERS; l++)
    for (int j = 0; j < FORAY_LIN_N; j++) total += ROWS * (size_t)r->n->layer[l].lin[j].n_in;
  float *all = malloc(total * sizeof(float)), *one = malloc(ROWS * (size_t)(D + F + Q) * sizeof(float));
  for (int i = 0; i < ROWS * (D + F + Q); i++) one[i] = 1;
  for (int l = 0; l < LAYERS; l++)
    for (int j = 0; j < FORAY_LIN_N; j++) {
      const struct foray_lin *y = &r->n->layer[l].lin[j];
      size_t n = ROWS * (size_t)y->n_in;
      foray_ew_dropout(NULL, n, r->n->drop, y->drop_key, y->drop_pass, one, all + at, false);
      r->d.mask[l][j] = all + at;
      at += n;
    }
  free(one);
  return all;
}

static void check_all(struct rig *r, const struct foray_lm_opts *o) {
  float *mask = r->n->drop > 0 ? masks(r) : NULL;
  r->d.c = &r->c;
  r->d.out_norm = wide(r->n->out_norm, D);
  r->d.embd = wide(r->n->embd, V * D);
  for (int l = 0; l < LAYERS; l++) {
    struct foray_net_layer *y = &r->n->layer[l];
    const float *norm[FORAY_NORM_N] = {y->norm1, y->norm2, y->post1, y->post2, y->qn, y->kn};
    for (int k = 0; k < FORAY_NORM_N; k++) r->d.norm[l][k] = wide(norm[k], k >= FORAY_NORM_Q ? HD : D);
    for (int j = 0; j < FORAY_LIN_N; j++) {
      const struct foray_lin *s = &y->lin[j];
      r->d.lin[l][j] =
          (struct dlin){wide(s->dense, (size_t)(s->n_in * s->n_out)), wide(s->bias, (size_t)s->n_out),
                        wide(s->a.w, s->a.n), wide(s->b.w, s->b.n)};
    }
  }
  double value = run(r, o, true), exact = reference(r, o);
  CU_ASSERT(fabs(value - exact) < 1e-5 * (1 + fabs(exact)));
  for (int l = 0; l < LAYERS; l++)
    for (int j = 0; j < FORAY_LIN_N; j++) {
      const struct foray_lin *s = &r->n->layer[l].lin[j];
      const struct foray_param *p[4] = {&s->w, &s->bias_p, &s->a, &s->b};
      double *w[4] = {r->d.lin[l][j].w, r->d.lin[l][j].bias, r->d.lin[l][j].a, r->d.lin[l][j].b};
      for (int k = 0; k < 4; k++)
        if (p[k]->n) compare(r, o, p[k], w[k]);
    }
  for (int l = 0; l < LAYERS; l++)
    for (int k = 0; k < FORAY_NORM_N; k++)
      if (r->n->layer[l].norm_p[k].n) compare(r, o, &r->n->layer[l].norm_p[k], r->d.norm[l][k]);
  if (r->n->out_norm_p.n) compare(r, o, &r->n->out_norm_p, r->d.out_norm);
  if (r->n->embd_p.n) compare(r, o, &r->n->embd_p, r->d.embd);
  CU_ASSERT(r->worst <= 1e-4);
  free(mask), free(r->d.out_norm), free(r->d.embd);
  for (int l = 0; l < LAYERS; l++) {
    for (int k = 0; k < FORAY_NORM_N; k++) free(r->d.norm[l][k]);
    for (int j = 0; j < FORAY_LIN_N; j++)
      free(r->d.lin[l][j].w), free(r->d.lin[l][j].bias), free(r->d.lin[l][j].a), free(r->d.lin[l][j].b);
  }
}

static const struct foray_lm_opts KL = {FORAY_DIV_KL, 0.5f, 1.5f, true, true};

static void full(enum foray_arch arch, bool checkpoint) {
  struct rig r;
  open_rig(&r, arch, true, 0, checkpoint, 2);
  r.stride = checkpoint ? 11 : 3;
  check_all(&r, &KL);
  CU_ASSERT(r.checked > 300);
  close_rig(&r);
}
TEST(full_gradients_llama) { full(FORAY_ARCH_LLAMA, false); }
TEST(full_gradients_qwen2) { full(FORAY_ARCH_QWEN2, false); }
TEST(full_gradients_gemma3) { full(FORAY_ARCH_GEMMA3, false); }
TEST(gradients_with_checkpointing) {
  full(FORAY_ARCH_GEMMA3, true);
  full(FORAY_ARCH_QWEN2, true);
}

TEST(lora_gradients_with_dropout) {
  for (int arch = 0; arch < 3; arch++) {
    struct rig r;
    open_rig(&r, (enum foray_arch)arch, false, 0.3f, arch == 2, 1);
    foray_net_set_pass(r.n, 7);
    r.stride = 5;
    check_all(&r, &KL);
    CU_ASSERT(r.n->layer[0].lin[FORAY_LIN_K].rank == 0);
    /* without a pass the same network is deterministic and different */
    double with = run(&r, &KL, false);
    foray_net_set_pass(r.n, 8);
    CU_ASSERT(fabs(run(&r, &KL, false) - with) > 1e-9);
    close_rig(&r);
  }
}

TEST(gradients_of_every_divergence) {
  for (int div = 0; div <= FORAY_DIV_SKEW_KL; div++)
    for (int rest = 0; rest < 2; rest++) {
      if (!rest && div != FORAY_DIV_KL) continue;
      struct rig r;
      struct foray_lm_opts o = {(enum foray_div)div, 0.3f, div & 1 ? 1 : 2, rest != 0, div == FORAY_DIV_JSD};
      open_rig(&r, FORAY_ARCH_LLAMA, false, 0, false, 1);
      r.stride = 13;
      check_all(&r, &o);
      close_rig(&r);
    }
}

/* A goal over every row that equals the head's own distribution costs nothing and pulls nowhere. */
TEST(own_distribution_is_the_minimum) {
  for (int div = 0; div <= FORAY_DIV_SKEW_KL; div++) {
    struct rig r;
    struct foray_err err = {0};
    struct foray_lm_opts o = {(enum foray_div)div, 0.3f, 1, true, false};
    struct foray_lm_sums s = {0};
    int rows[1] = {4};
    int32_t id[V];
    float p[V], dz[ROWS * D] = {0}, top = 0;
    struct foray_sparse own = {0, id, p};
    open_rig(&r, FORAY_ARCH_QWEN2, false, 0, false, 1);
    run(&r, &o, false);
    for (int k = 3; k <= V; k += V - 3) { /* a few with the rest, and all */
      CU_ASSERT_FATAL(foray_lm_top(r.lm, r.acts, rows, 1, k, 1, &own, &err) == FORAY_OK);
      CU_ASSERT(own.n == k);
      for (int i = 1; i < k; i++) CU_ASSERT(p[i] <= p[i - 1]);
      struct foray_lm_goal g = {.row = 4, .next = -1, .div_weight = 1, .goal = &own};
      s = (struct foray_lm_sums){0};
      CU_ASSERT_FATAL(foray_lm_loss(r.lm, r.acts, &g, 1, &o, 1, dz, &s, NULL, &err) == FORAY_OK);
      CU_ASSERT(fabs(s.div) < 1e-5);
      for (int i = 0; i < ROWS * D; i++) top = fmaxf(top, fabsf(dz[i]));
    }
    if (div != FORAY_DIV_TVD) CU_ASSERT(top < 1e-5f);
    close_rig(&r);
  }
}

static void steps(struct rig *r, float *out) {
  struct foray_optim o = foray_optim_default(1e-2);
  struct foray_err err = {0};
  o.decay = 0.1, o.schedule = FORAY_LR_COSINE, o.warmup = 1, o.steps = 4, o.floor = 0.1;
  for (int i = 0; i < 4; i++) {
    foray_net_set_pass(r->n, i);
    run(r, &KL, true);
    foray_optim_step(&o, r->n, 0.5);
    CU_ASSERT(foray_net_refresh(r->n, &err) == FORAY_OK);
  }
  foray_params_get(r->n, out);
}
TEST(steps_have_the_same_bits_for_every_thread_count_and_with_checkpointing) {
  for (int kind = 0; kind < 2; kind++) {
    struct rig r[3];
    float *w[3];
    for (int i = 0; i < 3; i++) {
      open_rig(&r[i], FORAY_ARCH_GEMMA3, kind != 0, kind ? 0 : 0.2f, i == 2, i == 1 ? 3 : 1);
      w[i] = malloc(foray_params_count(r[i].n) * sizeof(float));
      steps(&r[i], w[i]);
    }
    size_t bytes = foray_params_count(r[0].n) * sizeof(float);
    CU_ASSERT(memcmp(w[0], w[1], bytes) == 0);
    CU_ASSERT(memcmp(w[0], w[2], bytes) == 0);
    for (int i = 0; i < 3; i++) free(w[i]), close_rig(&r[i]);
  }
}

/* Two halves of a batch whose gradients are added equal the whole. */
TEST(accumulation_equals_one_batch) {
  struct rig a, b;
  struct foray_err err = {0};
  open_rig(&a, FORAY_ARCH_QWEN2, false, 0, false, 1);
  open_rig(&b, FORAY_ARCH_QWEN2, false, 0, false, 1);
  run(&a, &KL, true);
  for (int s = 0; s < 2; s++) {
    struct foray_lm_goal part[ROWS];
    struct foray_segment one = {0, b.seg[s].len};
    struct foray_lm_sums sums = {0};
    float *d[LAYERS + 1] = {0};
    int n = 0;
    for (int i = 0; i < b.n_goals; i++)
      if (b.goals[i].row >= b.seg[s].start && b.goals[i].row < b.seg[s].start + b.seg[s].len) {
        part[n] = b.goals[i];
        part[n++].row -= b.seg[s].start;
      }
    d[LAYERS] = calloc(ROWS * D, sizeof(float));
    CU_ASSERT(foray_net_forward(b.n, b.acts, one.len, b.tokens + b.seg[s].start, &one, 1, &err) == FORAY_OK);
    CU_ASSERT(foray_lm_loss(b.lm, b.acts, part, n, &KL, 1, d[LAYERS], &sums, NULL, &err) == FORAY_OK);
    CU_ASSERT(foray_net_backward(b.n, b.acts, d, &err) == FORAY_OK);
    free(d[LAYERS]);
  }
  size_t n = foray_params_count(a.n);
  float *ga = malloc(n * sizeof(float)), *gb = malloc(n * sizeof(float)), worst = 0, top = 0;
  foray_params_grad(a.n, ga);
  foray_params_grad(b.n, gb);
  for (size_t i = 0; i < n; i++) worst = fmaxf(worst, fabsf(ga[i] - gb[i])), top = fmaxf(top, fabsf(ga[i]));
  CU_ASSERT(top > 0 && worst < 1e-5f * top);
  free(ga), free(gb);
  close_rig(&a);
  close_rig(&b);
}

TEST(adamw_and_schedules_as_defined) {
  struct rig r;
  open_rig(&r, FORAY_ARCH_QWEN2, false, 0, false, 1);
  struct foray_param *p = &r.n->layer[0].lin[FORAY_LIN_Q].a;
  size_t n = foray_params_count(r.n);
  float *anchor = calloc(n, sizeof(float));
  struct foray_optim o = foray_optim_default(0.01);
  o.decay = 0.1, o.clip = 0;
  double w = (double)p->w[5], m = 0, v = 0;
  for (int t = 1; t <= 3; t++) {
    double g = 0.3 * t;
    p->g[5] = (float)g;
    foray_optim_step(&o, r.n, 1);
    m = 0.9 * m + 0.1 * g, v = 0.999 * v + 0.001 * g * g;
    w = w * (1 - 0.01 * 0.1) - 0.01 * (m / (1 - pow(0.9, t))) / (sqrt(v / (1 - pow(0.999, t))) + 1e-8);
    CU_ASSERT(fabs((double)p->w[5] - w) < 1e-6);
    CU_ASSERT(p->g[5] == 0);
  }
  /* clipping: the norm is reported before, and the step sees the scaled gradient */
  o = foray_optim_default(0.01);
  foray_optim_clear(r.n);
  memset(p->m, 0, p->n * sizeof(float));
  p->g[0] = 3, p->g[1] = 4;
  CU_ASSERT(fabs(foray_optim_step(&o, r.n, 1) - 5) < 1e-6);
  CU_ASSERT(fabsf(p->m[0] - 0.06f) < 1e-6f);
  /* proximal term pulls to the anchor */
  o = foray_optim_default(0.01);
  o.prox = 0.5, o.anchor = anchor, o.clip = 0;
  memset(p->m, 0, p->n * sizeof(float));
  float before = p->w[0];
  foray_optim_step(&o, r.n, 0.25);
  CU_ASSERT(fabsf(p->m[0] - 0.1f * 0.5f * before) < 1e-6f);
  /* only the chosen ranks move */
  float *w0 = malloc(n * sizeof(float)), *w1 = malloc(n * sizeof(float));
  foray_params_get(r.n, w0);
  foray_net_move_ranks(r.n, 1, 2);
  CU_ASSERT(foray_params_count(r.n) == n / RANK);
  o = foray_optim_default(0.01);
  run(&r, &KL, true);
  foray_optim_step(&o, r.n, 1);
  foray_net_move_ranks(r.n, 0, RANK);
  foray_params_get(r.n, w1);
  for (int i = 0; i < D; i++) {
    CU_ASSERT(p->w[i] == w0[i] && p->w[2 * D + i] == w0[2 * D + i]);
    CU_ASSERT(p->w[D + i] != w0[D + i]);
  }
  struct foray_optim s = foray_optim_default(1);
  s.schedule = FORAY_LR_LINEAR, s.warmup = 4, s.steps = 14, s.floor = 0.2;
  CU_ASSERT(fabs(foray_optim_rate(&s) - 0.25) < 1e-12);
  s.step = 9;
  CU_ASSERT(fabs(foray_optim_rate(&s) - 0.6) < 1e-12);
  s.schedule = FORAY_LR_COSINE;
  CU_ASSERT(fabs(foray_optim_rate(&s) - 0.6) < 1e-12);
  s.step = 40;
  CU_ASSERT(fabs(foray_optim_rate(&s) - 0.2) < 1e-12);
  free(anchor), free(w0), free(w1);
  close_rig(&r);
}

TEST(dropout_keeps_the_mean) {
  enum { N = 40000 };
  float *x = malloc(N * sizeof(float)), *y = malloc(N * sizeof(float)), *z = malloc(N * sizeof(float));
  double sum = 0;
  int zero = 0, same = 0;
  for (int i = 0; i < N; i++) x[i] = 1;
  foray_ew_dropout(NULL, N, 0.25f, 5, 1, x, y, false);
  foray_ew_dropout(NULL, N, 0.25f, 5, 2, x, z, false);
  for (int i = 0; i < N; i++) {
    sum += (double)y[i], zero += y[i] == 0, same += y[i] == z[i];
    CU_ASSERT(y[i] == 0 || fabsf(y[i] - 4.0f / 3) < 1e-6f);
  }
  CU_ASSERT(abs(zero - N / 4) < 400 && fabs(sum / N - 1) < 0.02);
  CU_ASSERT(abs(same - (int)(N * 0.625)) < 500); /* another pass, other noise */
  free(x), free(y), free(z);
}
