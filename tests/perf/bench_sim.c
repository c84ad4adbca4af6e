/* Cycles of a whole token on a simulated device: a program with the shapes of Qwen2.5 0.5B (24 layers, full
 * head) over random weights, at a given context. Layers share their weights, which changes neither bytes nor
 * addresses' order inside a layer; timing does not depend on values. Simulated cycles, never a measurement of
 * hardware.
 *
 *   bench_sim [SPEC [CONTEXT [LAYERS [COLUMNS [HEAD_ROWS]]]]]     default: sim:mid,mem=ddr4 1023 24 1 151936
 */
#include "core/imath.h"
#include "dev/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 896, FF = 4864, HD = 64, HEADS = 14, KVH = 2, VOCAB = 1024, DESCS = 1024, EXP = -32 };

struct bench {
  struct foray_dev *d;
  struct foray_err err;
  uint32_t w[DESCS][FORAY_ABI_DESC_WORDS], n, cols, at;
  uint64_t rng;
  bool failed;
};

static uint32_t next(struct bench *b) {
  b->rng ^= b->rng << 13, b->rng ^= b->rng >> 7, b->rng ^= b->rng << 17;
  return (uint32_t)(b->rng >> 20);
}

static uint64_t put(struct bench *b, const void *data, uint64_t bytes) {
  uint64_t at = 0;
  if (foray_dev_alloc(b->d, bytes, &at, &b->err) != FORAY_OK ||
      (data && foray_dev_upload(b->d, at, data, bytes, &b->err) != FORAY_OK))
    b->failed = true;
  return at;
}

struct mat {
  uint32_t qtype, rows, cols, addr;
  bool bias;
};

static struct mat matrix(struct bench *b, uint32_t qtype, uint32_t rows, uint32_t cols, bool bias) {
  struct foray_dev_matrix m = {0};
  struct mat r = {qtype, rows, cols, 0, bias};
  if (!foray_dev_matrix_of(qtype, rows, cols, bias, &m)) b->failed = true;
  uint32_t *p = malloc(m.bytes);
  if (!p) {
    b->failed = true;
    return r;
  }
  for (uint64_t i = 0; i < m.bytes / 4; i++) p[i] = next(b);
  r.addr = FORAY_DEV_UNITS(put(b, p, m.bytes));
  free(p);
  return r;
}

#define EMIT(b, name, ...)                                                                                   \
  do {                                                                                                       \
    struct foray_desc_##name d_ = {__VA_ARGS__};                                                             \
    foray_desc_##name##_pack(&d_, (b)->w[(b)->n++]);                                                         \
  } while (0)

static void mul(struct bench *b, struct mat m, uint32_t src, uint32_t dst) {
  EMIT(b, gemv, .flags = m.bias ? FORAY_DF_BIAS : 0, .qtype = m.qtype, .src = src, .dst = dst, .cols = m.cols,
       .rows = m.rows, .addr = m.addr, .exp = EXP, .bias_exp = m.bias ? -33 : 0);
}

static uint32_t vec(struct bench *b, uint32_t n) {
  uint32_t at = b->at;
  b->at += (uint32_t)(foray_dev_y32_bytes(n) / 64) * b->cols;
  return at;
}

static uint64_t build(struct bench *b, uint32_t layers, uint32_t ctx, uint32_t head_rows) {
  uint32_t x = vec(b, WIDTH), n = vec(b, WIDTH), q = vec(b, HEADS * HD), k = vec(b, KVH * HD),
           v = vec(b, KVH * HD), a = vec(b, HEADS * HD), y = vec(b, WIDTH), g = vec(b, FF), u = vec(b, FF),
           h = vec(b, FF);
  int32_t gamma_v[WIDTH];
  for (int i = 0; i < WIDTH; i++) gamma_v[i] = 1 << 29;
  uint64_t freq_v[HD / 2];
  for (uint32_t i = 0; i < HD / 2; i++) freq_v[i] = foray_rope_freq_q64(1000000, HD, i);
  uint32_t gamma = FORAY_DEV_UNITS(put(b, gamma_v, sizeof gamma_v)),
           freq = FORAY_DEV_UNITS(put(b, freq_v, sizeof freq_v));
  const uint32_t q4 = FORAY_QTYPE_Q4A;
  struct mat wq = matrix(b, q4, HEADS * HD, WIDTH, true), wk = matrix(b, q4, KVH * HD, WIDTH, true),
             wv = matrix(b, q4, KVH * HD, WIDTH, true), wo = matrix(b, q4, WIDTH, HEADS * HD, false),
             wg = matrix(b, q4, FF, WIDTH, false), wu = matrix(b, q4, FF, WIDTH, false),
             wd = matrix(b, q4, WIDTH, FF, false), embd = matrix(b, FORAY_QTYPE_Q8S, VOCAB, WIDTH, false),
             head = matrix(b, FORAY_QTYPE_Q8S, head_rows, WIDTH, false);
  uint32_t ids = FORAY_DEV_UNITS(put(b, NULL, 4 * (uint64_t)head_rows)), scale,
           root = foray_dev_root_n(WIDTH);
  int32_t scale_exp;
  foray_dev_attn_scale(HD, &scale, &scale_exp);
#define NORM                                                                                                 \
  EMIT(b, rmsnorm, .src = x, .dst = n, .n = WIDTH, .gamma = gamma, .gamma_exp = -30, .eps_exp = -40,         \
       .eps_mant = 1 << 20, .root_n = root)
  b->n = 1;
  EMIT(b, seg, .index = 0);
  EMIT(b, embed, .qtype = FORAY_QTYPE_Q8S, .dst = x, .cols = WIDTH, .rows = VOCAB, .addr = embd.addr,
       .exp = EXP);
  for (uint32_t l = 0; l < layers; l++) {
    uint32_t kv = (uint32_t)(foray_dev_kv_bytes(HD, KVH, ctx) / 64) * l;
    NORM;
    mul(b, wq, n, q), mul(b, wk, n, k), mul(b, wv, n, v);
    EMIT(b, rope, .flags = FORAY_DF_NEOX, .vec = q, .head_dim = HD, .heads = HEADS, .freq = freq);
    EMIT(b, rope, .flags = FORAY_DF_NEOX, .vec = k, .head_dim = HD, .heads = KVH, .freq = freq);
    EMIT(b, kv_put, .k = k, .v = v, .head_dim = HD, .heads = KVH, .offset = kv);
    EMIT(b, attn, .q = q, .dst = a, .head_dim = HD, .heads = HEADS, .offset = kv, .kv_heads = KVH,
         .scale_exp = scale_exp, .scale = scale);
    mul(b, wo, a, y);
    EMIT(b, add, .acc = x, .src = y, .n = WIDTH);
    NORM;
    mul(b, wg, n, g), mul(b, wu, n, u);
    EMIT(b, silu_mul, .gate = g, .up = u, .dst = h, .n = FF);
    mul(b, wd, h, y);
    EMIT(b, add, .acc = x, .src = y, .n = WIDTH);
  }
  EMIT(b, test, .flags = FORAY_DF_FINAL, .index = 0);
  NORM;
  EMIT(b, head, .qtype = FORAY_QTYPE_Q8S, .src = n, .ids = ids, .cols = WIDTH, .rows = head_rows,
       .addr = head.addr, .exp = EXP, .used = head_rows);
  EMIT(b, exit, .flags = 0);
  EMIT(b, end, .flags = 0);
  struct foray_desc_prog p = {.version = FORAY_ABI_VERSION,
                              .n_desc = b->n,
                              .n_seg = 1,
                              .n_test = 1,
                              .cols = b->cols,
                              .width = WIDTH,
                              .resid = x,
                              .vocab = VOCAB,
                              .abi_hash = FORAY_ABI_HASH};
  foray_desc_prog_pack(&p, b->w[0]);
  return put(b, b->w, b->n * FORAY_ABI_UNIT);
}

static int report(struct bench *b, const uint64_t *c, double port_bytes) {
  static const struct {
    const char *name;
    int first;
  } rows[] = {{"matrix", FORAY_COUNTER_MATRIX_BUSY},
              {"attention", FORAY_COUNTER_ATTN_BUSY},
              {"vector", FORAY_COUNTER_VECTOR_BUSY},
              {"exit", FORAY_COUNTER_EXIT_BUSY}};
  double all = (double)c[FORAY_COUNTER_BUSY];
  printf("| engine | busy | starved | blocked |\n|---|---|---|---|\n");
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    printf("| %s | %.4f | %.4f | %.4f |\n", rows[i].name, (double)c[rows[i].first] / all,
           (double)c[rows[i].first + 1] / all, (double)c[rows[i].first + 2] / all);
  printf("| sequencer | %.4f | | |\n", (double)c[FORAY_COUNTER_CYC_SEQ] / all);
  uint64_t sum = 0, need = c[FORAY_COUNTER_WEIGHT_BYTES] + c[FORAY_COUNTER_VECTOR_BYTES] +
                           c[FORAY_COUNTER_EMBED_BYTES] + c[FORAY_COUNTER_KV_READ_BYTES] +
                           c[FORAY_COUNTER_KV_WRITE_BYTES];
  for (int i = FORAY_COUNTER_CYC_SEQ; i <= FORAY_COUNTER_EXIT_BLOCKED; i++) sum += c[i];
  uint64_t attn = c[FORAY_COUNTER_ATTN_BUSY] + c[FORAY_COUNTER_ATTN_STARVED] + c[FORAY_COUNTER_ATTN_BLOCKED];
  printf("cycles %llu, explained %llu; needed bytes %llu (weights %llu, KV %llu), read %llu\n",
         (unsigned long long)c[FORAY_COUNTER_BUSY], (unsigned long long)sum, (unsigned long long)need,
         (unsigned long long)c[FORAY_COUNTER_WEIGHT_BYTES],
         (unsigned long long)c[FORAY_COUNTER_KV_READ_BYTES],
         (unsigned long long)c[FORAY_COUNTER_READ_UNITS] * 64);
  printf("needed bytes / (cycles x %.0f) = %.4f; attention: KV bytes / (its cycles x %.0f) = %.4f\n",
         port_bytes, (double)need / (all * port_bytes), port_bytes,
         (double)c[FORAY_COUNTER_KV_READ_BYTES] / ((double)(attn ? attn : 1) * port_bytes));
  (void)b;
  return sum == c[FORAY_COUNTER_BUSY] ? 0 : 1;
}

int main(int argc, char **argv) {
  static struct bench b;
  const char *spec = argc > 1 ? argv[1] : "sim:mid,mem=ddr4";
  uint32_t arg[4] = {1023, 24, 1, 151936};
  for (int i = 0; i < 4 && i + 2 < argc; i++) arg[i] = (uint32_t)strtoul(argv[i + 2], NULL, 10);
  uint32_t ctx = arg[0], layers = arg[1], max_pos = ctx + 16;
  b.rng = 88172645463325252u, b.cols = arg[2];
  if (layers < 1 || layers > 60 || max_pos > FORAY_ABI_POSITIONS_MAX || b.cols < 1 || b.cols > 8 ||
      ctx < b.cols)
    return 1;
  if (foray_dev_open(spec, &(struct foray_dev_opts){.heap_bytes = UINT64_C(512) << 20}, &b.d, &b.err) !=
      FORAY_OK) {
    fprintf(stderr, "bench_sim: %s\n", b.err.msg);
    return 1;
  }
  uint64_t kv_bytes = layers * foray_dev_kv_bytes(HD, KVH, max_pos);
  uint64_t kv = put(&b, NULL, kv_bytes), state = put(&b, NULL, FORAY_STATE_BYTES),
           run_at = put(&b, NULL, FORAY_RUN_BYTES), feed = put(&b, NULL, 64),
           ring = put(&b, NULL, 8 * FORAY_RING_BYTES);
  uint64_t prog = build(&b, layers, max_pos, arg[3]);
  /* a context that has ctx + 1 - cols positions, of which nothing is known: records of zeros */
  struct foray_rec_state st = {.magic = FORAY_MAGIC_STATE,
                               .len = ctx + 1 - b.cols,
                               .max_pos = max_pos,
                               .kv = FORAY_DEV_UNITS(kv),
                               .kv_units = (uint32_t)(kv_bytes / 64)};
  st.done[0] = st.len;
  uint32_t w[FORAY_ABI_RUN_WORDS], tokens[16] = {1, 2, 3, 4, 5, 6, 7, 8};
  foray_rec_state_pack(&st, w);
  struct foray_rec_run run = {.magic = FORAY_MAGIC_RUN,
                              .program = FORAY_DEV_UNITS(prog),
                              .state = FORAY_DEV_UNITS(state),
                              .feed = FORAY_DEV_UNITS(feed),
                              .feed_n = b.cols,
                              .start = st.len,
                              .max_drafts = 1,
                              .ring = FORAY_DEV_UNITS(ring),
                              .ring_slots = 8};
  uint64_t c[FORAY_COUNTER_COUNT];
  struct foray_dev_result res;
  bool ok = !b.failed && foray_dev_upload(b.d, state, w, FORAY_STATE_BYTES, &b.err) == FORAY_OK &&
            foray_dev_upload(b.d, feed, tokens, sizeof tokens, &b.err) == FORAY_OK;
  foray_rec_run_pack(&run, w);
  ok = ok && foray_dev_upload(b.d, run_at, w, FORAY_RUN_BYTES, &b.err) == FORAY_OK &&
       foray_dev_run(b.d, run_at, 0, &res, &b.err) == FORAY_OK;
  if (!ok) {
    fprintf(stderr, "bench_sim: %s\n", b.err.msg);
    return 1;
  }
  foray_dev_counters(b.d, c);
  printf("%s, context %u, %u layers, %u columns, head of %u rows\n", spec, ctx, layers, b.cols, arg[3]);
  int bad = report(&b, c, strstr(spec, "tiny") ? 8 : 64);
  foray_dev_close(b.d);
  return bad;
}
