/* The promise of engine.h on small random models of every architecture and tensor type, and on a real one
 * where it is at hand: the bits of a position's logits depend on the tokens before it and on nothing else. */
#include "engine/engine.h"
#include "unit/engine/synth.h"
#include "model/float_ref.h"
#include "unit/harness.h"

#include <math.h>

static const char *const archs[] = {"llama", "qwen2", "gemma3"};
enum { N = 75 }; /* tokens of a test sequence: crosses a page (64) and the window (20) */

static struct foray_engine *open_engine(const char *path, int isa, int threads, uint64_t kv_max) {
  struct foray_engine_opts o = foray_engine_opts_default();
  struct foray_engine *e = NULL;
  struct foray_err err = {0};
  o.isa = isa;
  o.threads = threads;
  o.kv_bytes_max = kv_max;
  CU_ASSERT_EQUAL(foray_engine_open(path, &o, &e, &err), FORAY_OK);
  if (!e) printf("  %s\n", err.msg);
  return e;
}

static struct foray_engine_seq *open_seq(struct foray_engine *e) {
  struct foray_engine_seq *s = NULL;
  CU_ASSERT_EQUAL(foray_engine_seq_open(e, &s, NULL), FORAY_OK);
  return s;
}

static void tokens_of(int32_t *t, int n, int32_t n_vocab, uint64_t seed) {
  struct synth_rng r = {seed, 0};
  for (int i = 0; i < n; i++) t[i] = (int32_t)(synth_u32(&r) % (uint32_t)n_vocab);
}

/* Appends t[0..n), wanting all logits. */
static enum foray_status feed(struct foray_engine *e, struct foray_engine_seq *s, const int32_t *t, int n,
                              float *out) {
  const struct foray_engine_item it = {.seq = s, .tokens = t, .n = n, .n_logits = out ? n : 0, .logits = out};
  return foray_engine_pass(e, &it, 1, NULL);
}

static bool same(const float *a, const float *b, int positions, int32_t n_vocab) {
  return memcmp(a, b, (size_t)positions * (size_t)n_vocab * sizeof *a) == 0;
}

/* Logits of t, one token at a time, plain C kernels, one thread: what everything else must equal. */
static float *reference(const char *path, const int32_t *t, int n) {
  struct foray_engine *e = open_engine(path, FORAY_ISA_SCALAR, 1, 0);
  if (!e) return NULL;
  const int32_t v = foray_engine_info(e)->n_vocab;
  float *out = malloc((size_t)n * (size_t)v * sizeof *out);
  struct foray_engine_seq *s = open_seq(e);
  for (int i = 0; out && i < n; i++)
    CU_ASSERT_EQUAL(feed(e, s, t + i, 1, out + (size_t)i * (size_t)v), FORAY_OK);
  foray_engine_seq_close(s);
  foray_engine_close(e);
  return out;
}

/* Cuts, batches and rollbacks on one engine against the reference of two sequences. */
static void check_engine(struct foray_engine *e, const int32_t *ta, const int32_t *tb, const float *ra,
                         const float *rb, int step) {
  const int32_t v = foray_engine_info(e)->n_vocab;
  const size_t row = (size_t)v;
  float *out = malloc((size_t)N * row * sizeof *out), *out2 = malloc((size_t)N * row * sizeof *out2);
  if (!out || !out2) abort();
  struct foray_engine_seq *a = open_seq(e), *b = open_seq(e), *c = open_seq(e);
  /* All at once. */
  CU_ASSERT_EQUAL(feed(e, a, ta, N, out), FORAY_OK);
  CU_ASSERT(same(out, ra, N, v));
  CU_ASSERT_EQUAL(foray_engine_seq_len(a), N);
  /* Draft lengths 1..32 (every step-th) after a rollback, with a wrong tail in between. */
  for (int n = 1; n <= 32; n += step) {
    const int at = 1 + (n * 7) % (N - 33);
    CU_ASSERT_EQUAL(foray_engine_seq_truncate(a, at), FORAY_OK);
    CU_ASSERT_EQUAL(feed(e, a, tb + 3, 1 + n % 5, NULL), FORAY_OK);
    CU_ASSERT_EQUAL(foray_engine_seq_truncate(a, at), FORAY_OK);
    CU_ASSERT_EQUAL(feed(e, a, ta + at, n, out), FORAY_OK);
    CU_ASSERT(same(out, ra + (size_t)at * row, n, v));
    CU_ASSERT_EQUAL(feed(e, a, ta + at + n, N - at - n, out), FORAY_OK);
    CU_ASSERT(same(out, ra + (size_t)(at + n) * row, N - at - n, v));
  }
  /* Mixed sequences of several lengths in one pass, some without logits. */
  CU_ASSERT_EQUAL(foray_engine_seq_truncate(a, 0), FORAY_OK);
  int na = 0, nb = 0, nc = 0;
  for (int round = 0; na < N || nb < N; round++) {
    const int ka = round % 3 == 0 ? 1 : (round * 5) % 9, kb = (round * 3) % 18, kc = 1;
    struct foray_engine_item it[3];
    int k = 0;
    const int da = ka < N - na ? ka : N - na, db = kb < N - nb ? kb : N - nb;
    if (da) it[k++] = (struct foray_engine_item){a, ta + na, da, da, out + (size_t)na * row};
    if (nc < N) it[k++] = (struct foray_engine_item){c, ta + nc, kc, 0, NULL};
    if (db) it[k++] = (struct foray_engine_item){b, tb + nb, db, db, out2 + (size_t)nb * row};
    CU_ASSERT_EQUAL(foray_engine_pass(e, it, k, NULL), FORAY_OK);
    na += da;
    nb += db;
    nc += nc < N;
  }
  CU_ASSERT(same(out, ra, N, v));
  CU_ASSERT(same(out2, rb, N, v));
  foray_engine_seq_close(a);
  foray_engine_seq_close(b);
  foray_engine_seq_close(c);
  CU_ASSERT_EQUAL(foray_engine_kv_bytes(e), 0);
  free(out);
  free(out2);
}

static void check_arch(const char *arch, bool tied) {
  char path[256];
  int32_t ta[N], tb[N];
  synth_write(arch, tied, 42, path, sizeof path);
  tokens_of(ta, N, SYNTH_VOCAB, 1);
  tokens_of(tb, N, SYNTH_VOCAB, 2);
  float *ra = reference(path, ta, N), *rb = reference(path, tb, N);
  for (int isa = FORAY_ISA_SCALAR; ra && rb && isa <= FORAY_ISA_AMX; isa++) {
    const int native = (int)foray_cpu_isa_native();
    if (isa > native || (isa == FORAY_ISA_NEON) != (native == FORAY_ISA_NEON && isa)) continue;
    for (int threads = 1; threads <= 3; threads++) {
      if (isa == FORAY_ISA_SCALAR && threads > 1 && native != FORAY_ISA_SCALAR)
        continue; /* slow, and the same code path */
      struct foray_engine *e = open_engine(path, isa, threads, 0);
      /* The slow ones look at fewer draft lengths; what they share with the others is tested there. */
      if (e)
        check_engine(e, ta, tb, ra, rb, isa == FORAY_ISA_SCALAR || threads == 3 ? 15 : threads == 2 ? 4 : 1);
      foray_engine_close(e);
    }
  }
  for (int i = 0; ra && i < N * SYNTH_VOCAB; i++)
    if (!isfinite(ra[i])) {
      CU_FAIL("a logit is not finite");
      break;
    }
  free(ra);
  free(rb);
  unlink(path);
}

TEST(same_bits_llama) { check_arch("llama", true); }
TEST(same_bits_qwen2) { check_arch("qwen2", false); }
TEST(same_bits_gemma3) { check_arch("gemma3", true); }

/* NMSE of the engine's logits against the float reference: what int8 activations and half-float keys cost. */
static double nmse_against_float(const char *path, const int32_t *t, int n) {
  struct foray_model *m = NULL;
  struct foray_float_ref *r = NULL;
  struct foray_err err = {0};
  CU_ASSERT_EQUAL(foray_model_open(path, &m, &err), FORAY_OK);
  if (!m) {
    printf("  %s\n", err.msg);
    return 1;
  }
  CU_ASSERT_EQUAL(foray_float_ref_open(m, NULL, (size_t)n, &r, &err), FORAY_OK);
  struct foray_engine *e = open_engine(path, -1, 2, 0);
  double num = 0, den = 0;
  if (r && e) {
    const size_t v = (size_t)foray_engine_info(e)->n_vocab;
    float *want = malloc((size_t)n * v * sizeof *want), *got = malloc((size_t)n * v * sizeof *got);
    struct foray_engine_seq *s = open_seq(e);
    CU_ASSERT_EQUAL(foray_float_ref_feed(r, t, (size_t)n, want, (size_t)n, &err), FORAY_OK);
    CU_ASSERT_EQUAL(feed(e, s, t, n, got), FORAY_OK);
    for (size_t i = 0; want && got && i < (size_t)n * v; i++) {
      num += ((double)got[i] - (double)want[i]) * ((double)got[i] - (double)want[i]);
      den += (double)want[i] * (double)want[i];
    }
    foray_engine_seq_close(s);
    free(want);
    free(got);
  }
  foray_engine_close(e);
  foray_float_ref_close(r);
  foray_model_close(m);
  return den > 0 ? num / den : 1;
}

TEST(close_to_the_float_reference) {
  for (size_t a = 0; a < sizeof archs / sizeof *archs; a++) {
    char path[256];
    int32_t t[N];
    synth_write(archs[a], a & 1, 7, path, sizeof path);
    tokens_of(t, N, SYNTH_VOCAB, 3);
    const double e = nmse_against_float(path, t, N);
    if (!(e < 2e-2)) printf("  %s: NMSE %g\n", archs[a], e);
    CU_ASSERT(e < 2e-2);
    unlink(path);
  }
}

TEST(close_to_the_float_reference_smollm2) {
  const char *path = foray_test_model("smollm2-135m-instruct");
  if (!path) {
    foray_test_skip("smollm2-135m-instruct is not on this machine");
    return;
  }
  int32_t t[8];
  tokens_of(t, 8, 49152, 21);
  const double e = nmse_against_float(path, t, 8);
  printf("  SmolLM2: NMSE %g\n", e);
  CU_ASSERT(e < 1e-3);
}

TEST(limits_and_errors) {
  char path[256];
  struct foray_err err = {0};
  int32_t t[N];
  float *out = malloc(N * SYNTH_VOCAB * sizeof *out);
  synth_write("llama", true, 5, path, sizeof path);
  tokens_of(t, N, SYNTH_VOCAB, 4);
  struct foray_engine *e = open_engine(path, -1, 1, 0);
  const uint64_t page = e ? foray_engine_info(e)->page_bytes : 1;
  foray_engine_close(e);
  e = open_engine(path, -1, 1, 2 * page);
  if (e && out) {
    struct foray_engine_seq *a = open_seq(e), *b = open_seq(e);
    CU_ASSERT_EQUAL(feed(e, a, t, 64, NULL), FORAY_OK);
    CU_ASSERT_EQUAL(foray_engine_kv_bytes(e), page);
    const struct foray_engine_item two[2] = {{a, t, 1, 0, NULL}, {b, t, 1, 0, NULL}};
    CU_ASSERT_EQUAL(foray_engine_pass(e, two, 2, &err), FORAY_E_LIMIT); /* two more pages, one is left */
    CU_ASSERT_EQUAL(foray_engine_seq_len(a), 64);
    CU_ASSERT_EQUAL(foray_engine_seq_len(b), 0);
    CU_ASSERT_EQUAL(foray_engine_kv_bytes(e), page);
    CU_ASSERT_EQUAL(feed(e, b, t, 64, NULL), FORAY_OK);
    CU_ASSERT_EQUAL(feed(e, b, t, 1, NULL), FORAY_E_LIMIT);
    CU_ASSERT_EQUAL(foray_engine_seq_truncate(a, 0), FORAY_OK);
    CU_ASSERT_EQUAL(feed(e, b, t, 1, out), FORAY_OK);
    const struct foray_engine_item twice[2] = {{b, t, 1, 0, NULL}, {b, t, 1, 0, NULL}};
    CU_ASSERT_EQUAL(foray_engine_pass(e, twice, 2, &err), FORAY_E_ARG);
    const int32_t bad[2] = {3, SYNTH_VOCAB};
    CU_ASSERT_EQUAL(feed(e, b, bad, 2, NULL), FORAY_E_ARG);
    CU_ASSERT_EQUAL(feed(e, b, t, 0, NULL), FORAY_E_ARG);
    CU_ASSERT_EQUAL(foray_engine_seq_len(b), 65);
    CU_ASSERT_EQUAL(foray_engine_seq_truncate(b, 66), FORAY_E_ARG);
    CU_ASSERT_EQUAL(foray_engine_seq_truncate(b, -1), FORAY_E_ARG);
    foray_engine_seq_close(a);
    foray_engine_seq_close(b);
  }
  foray_engine_close(e);
  struct foray_engine_opts o = foray_engine_opts_default();
  o.n_ctx = 70;
  o.threads = 1;
  CU_ASSERT_EQUAL(foray_engine_open(path, &o, &e, &err), FORAY_OK);
  struct foray_engine_seq *s = open_seq(e);
  CU_ASSERT_EQUAL(feed(e, s, t, 71, NULL), FORAY_E_LIMIT);
  CU_ASSERT_EQUAL(feed(e, s, t, 70, NULL), FORAY_OK);
  foray_engine_seq_close(s);
  foray_engine_close(e);
  CU_ASSERT_NOT_EQUAL(foray_engine_open("/nonexistent.gguf", &o, &e, &err), FORAY_OK);
  CU_ASSERT_PTR_NULL(e);
  unlink(path);
  free(out);
}

TEST(scores_are_the_softmax_of_the_logits) {
  char path[256];
  int32_t t[N];
  double logp[N];
  synth_write("qwen2", true, 9, path, sizeof path);
  tokens_of(t, N, SYNTH_VOCAB, 6);
  float *ref = reference(path, t, N);
  struct foray_engine *e = open_engine(path, -1, 2, 0);
  if (e && ref) {
    struct foray_engine_seq *s = open_seq(e);
    for (int from = 0; from < N; from += 37) {
      for (int i = 0; i < N; i++) logp[i] = 7.0;
      CU_ASSERT_EQUAL(foray_engine_seq_truncate(s, 0), FORAY_OK);
      CU_ASSERT_EQUAL(foray_engine_score(e, s, t, N, from, logp, NULL), FORAY_OK);
      CU_ASSERT_EQUAL(foray_engine_seq_len(s), N);
      for (int i = 0; i < N; i++) {
        if (i < from) {
          CU_ASSERT_EQUAL(logp[i], 7.0);
          continue;
        }
        if (i == 0) continue;
        const float *l = ref + (size_t)(i - 1) * SYNTH_VOCAB;
        double sum = 0;
        for (int k = 0; k < SYNTH_VOCAB; k++) sum += exp((double)l[k]);
        CU_ASSERT_DOUBLE_EQUAL(logp[i], (double)l[t[i]] - log(sum), 1e-12);
        CU_ASSERT_EQUAL(logp[i], foray_engine_logprob(l, SYNTH_VOCAB, t[i]));
      }
    }
    foray_engine_seq_close(s);
  }
  foray_engine_close(e);
  free(ref);
  unlink(path);
}

/* A real model: every instruction set, one pass and token by token. */
TEST(same_bits_smollm2) {
  enum { M = 20 };
  const char *path = foray_test_model("smollm2-135m-instruct");
  if (!path) {
    foray_test_skip("smollm2-135m-instruct is not on this machine");
    return;
  }
  int32_t t[M];
  tokens_of(t, M, 49152, 8);
  float *ref = reference(path, t, 4);
  float *first = NULL;
  for (int isa = FORAY_ISA_AVX2; ref && isa <= (int)foray_cpu_isa_native(); isa++) {
    struct foray_engine *e = open_engine(path, isa, 2, 0);
    if (!e) continue;
    const int32_t v = foray_engine_info(e)->n_vocab;
    float *out = malloc((size_t)M * (size_t)v * sizeof *out);
    struct foray_engine_seq *s = open_seq(e);
    CU_ASSERT_EQUAL(feed(e, s, t, M, out), FORAY_OK);
    CU_ASSERT(same(out, ref, 4, v));
    if (first) CU_ASSERT(same(out, first, M, v));
    foray_engine_seq_close(s);
    foray_engine_close(e);
    free(first);
    first = out;
  }
  free(first);
  free(ref);
}
