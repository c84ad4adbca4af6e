#include "dev/selftest.h"

#include "core/err.h"
#include "dev/tiny_program.h"

#include <stdio.h>

enum { BLOCKS = 100, BROKEN = 60, WHY = 200, RESID_SLOTS = 64, PROMPT = 19 };

static const uint32_t prompt[PROMPT] = {3, 50, 7, 99, 21, 0, 64, 8, 77, 31, 12, 5, 88, 43, 9, 61, 2, 18, 33};

struct test {
  struct tiny a, b; /* ref, the device */
  const char *spec;
  uint64_t rng;
  uint32_t cols;
  bool spoilt;   /* the program is broken on purpose */
  char why[WHY]; /* what failed first in this part; "" */
  uint8_t *x, *y;
};

static uint32_t below(struct test *t, uint32_t n) {
  t->rng ^= t->rng << 13, t->rng ^= t->rng >> 7, t->rng ^= t->rng << 17;
  return (uint32_t)(t->rng >> 32) % n;
}

static bool differ(struct test *t, const char *what, uint64_t at) {
  if (!*t->why)
    snprintf(t->why, sizeof t->why, "%s (at %llu), %u columns a pass", what, (unsigned long long)at, t->cols);
  return false;
}

/* A range of both heaps. */
static bool same_bytes(struct test *t, uint64_t at, uint64_t n, const char *what) {
  struct foray_err err = {0};
  if (foray_dev_download(t->a.d, at, t->x, n, &err) != FORAY_OK ||
      foray_dev_download(t->b.d, at, t->y, n, &err) != FORAY_OK) {
    if (!*t->why) snprintf(t->why, sizeof t->why, "%.150s", err.msg);
    return false;
  }
  for (uint64_t i = 0; i < n; i++)
    if (t->x[i] != t->y[i]) return differ(t, what, at + i);
  return true;
}

/* Records of the positions that both have: layer, head, position. */
static bool same_kv(struct test *t, uint32_t positions) {
  const uint64_t layer = foray_dev_kv_bytes(TINY_HD, TINY_KVH, TINY_MAX_POS),
                 rec = foray_dev_kv_record(TINY_HD);
  for (uint32_t l = 0; l < TINY_LAYERS; l++)
    for (uint32_t h = 0; h < TINY_KVH; h++)
      if (positions && !same_bytes(t, t->a.kv + l * layer + (uint64_t)h * TINY_MAX_POS * rec, positions * rec,
                                   "KV records"))
        return false;
  return true;
}

/* Saved residuals of the newest positions: exponent and mantissas; the rest of a header means nothing. */
static bool same_residuals(struct test *t, uint32_t positions) {
  const uint64_t each = foray_dev_y32_bytes(TINY_WIDTH);
  for (uint32_t p = positions > RESID_SLOTS ? positions - RESID_SLOTS : 0; p < positions; p++) {
    const uint64_t at = t->a.resid + p % RESID_SLOTS * each;
    if (!same_bytes(t, at, 4, "residuals") || !same_bytes(t, at + 64, 4 * TINY_WIDTH, "residuals"))
      return false;
  }
  return true;
}

/* One run on both; everything that a program leaves must be alike. */
static bool both(struct test *t, const uint32_t *tokens, uint32_t n, uint32_t start, uint32_t drafts) {
  t->b.run = t->a.run;
  const enum foray_status sa = tiny_run(&t->a, tokens, n, start, drafts),
                          sb = tiny_run(&t->b, tokens, n, start, drafts);
  if (sa != sb && sb != FORAY_OK && sb != FORAY_E_DEVICE) {
    if (!*t->why) snprintf(t->why, sizeof t->why, "%.180s", t->b.err.msg);
    return false;
  }
  /* A device may have less room than ref, and say so. */
  if (t->spoilt && (t->b.res.error == FORAY_DEVERR_SCRATCH || t->b.res.error == FORAY_DEVERR_SHAPE))
    return true;
  if (sa != sb || t->a.res.error != t->b.res.error) {
    if (!*t->why)
      snprintf(t->why, sizeof t->why, "a run ends with error %u, on ref with %u", t->b.res.error,
               t->a.res.error);
    return false;
  }
  /* What a legal but broken program computes may hang on scratch memory that it never wrote. */
  if (t->spoilt && !t->a.res.error) return true;
  if (memcmp(&t->a.res, &t->b.res, sizeof t->a.res)) return differ(t, "results of a run", 0);
  for (uint32_t i = 0; i < t->a.res.drafted; i++) {
    const uint64_t slot = ((uint64_t)t->a.run.ring_head + i) % TINY_RING;
    if (!same_bytes(t, t->a.ring + slot * FORAY_RING_BYTES, FORAY_RING_BYTES, "ring")) return false;
  }
  if (t->a.res.error && t->a.res.error != FORAY_DEVERR_STEPS) return true;
  return same_bytes(t, t->a.state, FORAY_STATE_BYTES, "context") && same_kv(t, t->a.res.len) &&
         same_residuals(t, t->a.res.len) &&
         same_bytes(t, t->a.dump, (uint64_t)t->a.res.dumped * 448, "dumped logits");
}

static bool begin(struct test *t, uint64_t seed, uint32_t cols) {
  t->cols = cols;
  if (tiny_open(&t->a, "ref", seed, cols) && tiny_open(&t->b, t->spec, seed, cols)) return true;
  if (!*t->why)
    snprintf(t->why, sizeof t->why, "%.180s", t->b.d ? "its memory cannot be used" : t->b.err.msg);
  tiny_close(&t->a);
  tiny_close(&t->b);
  t->a.d = t->b.d = NULL;
  return false;
}

static void end(struct test *t) {
  tiny_close(&t->a);
  tiny_close(&t->b);
  t->a.d = t->b.d = NULL;
}

static void exits(struct foray_rec_run *r) {
  r->tests = 3;
  r->exit_rule[0] = -52428, r->exit_rule[1] = 65536;
  r->exit_rule[8] = -26214, r->exit_rule[9] = 65536;
}

/* ---- parts; each returns whether it passed ---- */

static bool part_open(struct test *t) {
  struct foray_dev *d = NULL;
  struct foray_err err = {0};
  if (foray_dev_open(t->spec, &(struct foray_dev_opts){.heap_bytes = TINY_HEAP}, &d, &err) != FORAY_OK) {
    snprintf(t->why, sizeof t->why, "%.190s", err.msg);
    return false;
  }
  const struct foray_dev_info *i = foray_dev_info(d);
  t->cols = i->cols_max;
  const bool ok = i->abi_hash == FORAY_ABI_HASH && i->heap_bytes >= TINY_HEAP && i->cols_max >= 1;
  if (!ok) (void)differ(t, "what the device says of itself", 0);
  foray_dev_close(d);
  return ok;
}

static bool part_memory(struct test *t) {
  static const uint32_t sizes[] = {1, 3, 4, 63, 64, 65, 4095, 4096, 65539};
  if (!begin(t, 1, 1)) return false;
  bool ok = true;
  for (uint32_t i = 0; i < TINY_HEAP; i++) t->x[i] = (uint8_t)below(t, 256);
  for (size_t k = 0; ok && k < sizeof sizes / sizeof *sizes; k++)
    for (uint32_t at = 64; ok && at < TINY_HEAP - sizes[k]; at = at * 2 + (uint32_t)k) {
      ok = foray_dev_upload(t->b.d, at, t->x + at, sizes[k], NULL) == FORAY_OK &&
           foray_dev_download(t->b.d, at, t->y, sizes[k], NULL) == FORAY_OK &&
           !memcmp(t->y, t->x + at, sizes[k]);
      if (!ok) (void)differ(t, "memory does not keep what is written", at);
    }
  end(t);
  return ok;
}

static bool part_programs(struct test *t) {
  const uint32_t most = t->cols;
  bool ok = true;
  for (uint32_t cols = 1; ok && cols <= most; cols++) {
    if (!begin(t, 10 + cols, cols)) return false;
    exits(&t->a.run);
    ok = both(t, prompt, PROMPT, 0, 20);
    t->a.run.flags = FORAY_RUN_SAMPLE | FORAY_RUN_FLUSH, t->a.run.inv_temp = 81920, t->a.run.seed = 5;
    ok = ok && both(t, prompt + 2, 9, t->a.res.len, 17);
    t->a.run.flags = FORAY_RUN_SCORE, t->a.run.inv_temp = 0;
    ok = ok && both(t, prompt, PROMPT, 3, 0);
    t->a.run.flags = 0, t->a.run.check = 4;
    ok = ok && both(t, prompt, 5, t->a.res.len, 24);
    end(t);
  }
  t->cols = most;
  return ok;
}

static bool part_rollback(struct test *t) {
  uint32_t longer[TINY_MAX_POS];
  for (uint32_t i = 0; i < TINY_MAX_POS; i++) longer[i] = (i * i + 7) % TINY_VOCAB;
  if (!begin(t, 30, t->cols)) return false;
  exits(&t->a.run);
  bool ok = both(t, longer, TINY_MAX_POS - 30, 0, 20);
  for (uint32_t start = TINY_MAX_POS - 31; ok && start > 40; start -= 23)
    ok = both(t, longer + start, 2, start, 6);
  end(t);
  return ok;
}

/* Words of the program and of the run block are spoilt; both must name the same error, and go on after it. */
static bool part_errors(struct test *t) {
  if (!begin(t, 40, t->cols)) return false;
  bool ok = true;
  for (int k = 0; ok && k < BROKEN; k++) {
    const uint64_t at = k % 3 == 0 ? 0 : t->a.prog + 4 * (uint64_t)below(t, t->a.n * FORAY_ABI_DESC_WORDS);
    const struct foray_rec_run keep = t->a.run;
    uint32_t word = 0, spoilt;
    if (at) {
      ok = foray_dev_download(t->a.d, at, &word, 4, NULL) == FORAY_OK;
      spoilt = word ^ (1u << below(t, 32));
      ok = ok && foray_dev_upload(t->a.d, at, &spoilt, 4, NULL) == FORAY_OK &&
           foray_dev_upload(t->b.d, at, &spoilt, 4, NULL) == FORAY_OK;
    } else {
      uint32_t *const fields[] = {&t->a.run.magic,  &t->a.run.program,    &t->a.run.state,
                                  &t->a.run.ring,   &t->a.run.ring_slots, &t->a.run.flags,
                                  &t->a.run.stop_n, &t->a.run.step_limit};
      *fields[below(t, 8)] ^= 1u << below(t, 32);
    }
    t->a.run.step_limit =
        t->a.run.step_limit ? t->a.run.step_limit : 4000; /* a spoilt program may be a legal long one */
    t->spoilt = true;
    ok = ok && both(t, prompt, 7, 0, 3);
    t->spoilt = false;
    t->a.run = keep;
    if (at)
      ok = ok && foray_dev_upload(t->a.d, at, &word, 4, NULL) == FORAY_OK &&
           foray_dev_upload(t->b.d, at, &word, 4, NULL) == FORAY_OK;
    ok = ok && tiny_reset(&t->a, RESID_SLOTS) && tiny_reset(&t->b, RESID_SLOTS);
    if (!ok && !*t->why) (void)differ(t, "device memory", at);
  }
  ok = ok && both(t, prompt, PROMPT, 0, 4);
  end(t);
  return ok;
}

/* Those below BUSY count events, which are the same everywhere. */
static bool part_counters(struct test *t) {
  uint64_t a[FORAY_COUNTER_COUNT], b[FORAY_COUNTER_COUNT];
  if (!begin(t, 50, t->cols)) return false;
  exits(&t->a.run);
  bool ok = both(t, prompt, PROMPT, 0, 15) && both(t, prompt, 3, 20, 9);
  foray_dev_counters(t->a.d, a);
  foray_dev_counters(t->b.d, b);
  for (int i = 0; ok && i < FORAY_COUNTER_BUSY; i++)
    if (a[i] != b[i]) {
      ok = false;
      snprintf(t->why, sizeof t->why, "counter %d is %llu, on ref %llu", i, (unsigned long long)b[i],
               (unsigned long long)a[i]);
    }
  end(t);
  return ok;
}

static bool part_blocks(struct test *t, uint32_t blocks) {
  bool ok = true;
  const uint32_t most = t->cols;
  for (uint32_t done = 0; ok && done < blocks;) {
    if (!begin(t, 60 + done, 1 + below(t, most))) return false;
    uint32_t len = 0;
    for (int k = 0; ok && k < 20 && done < blocks; k++, done++) {
      uint32_t tokens[24], n = 1 + below(t, 24), from = below(t, 3) ? len : below(t, len + 1);
      if (from + n + TINY_RING > TINY_MAX_POS) from = 0;
      if (from > len) from = len;
      for (uint32_t i = 0; i < n; i++) tokens[i] = below(t, TINY_VOCAB);
      struct foray_rec_run *r = &t->a.run;
      r->flags = below(t, 2) ? FORAY_RUN_SAMPLE : 0;
      r->inv_temp = r->flags ? 1u << (14 + below(t, 5)) : 0;
      r->seed = (uint64_t)below(t, 1u << 30) << 32 | below(t, 1u << 30);
      r->tests = below(t, 4), r->check = below(t, 3) ? 0 : 1 + below(t, 7), r->ring_head = below(t, 100);
      for (int e = 0; e < 2; e++)
        r->exit_rule[8 * e] = -(int32_t)below(t, 1 << 16), r->exit_rule[8 * e + 1] = 1 << 16;
      ok = both(t, tokens, n, from, 1 + below(t, TINY_RING - 1));
      len = t->a.res.error ? 0 : t->a.res.len;
    }
    end(t);
  }
  t->cols = most;
  return ok;
}

/* A second user after the first one has gone finds a device as new. */
static bool part_reset(struct test *t) {
  if (!begin(t, 70, t->cols)) return false;
  (void)tiny_run(&t->b, prompt, PROMPT, 0, 8);
  end(t);
  if (!begin(t, 71, t->cols)) return false;
  exits(&t->a.run);
  const bool ok = both(t, prompt, PROMPT, 0, 12);
  end(t);
  return ok;
}

enum foray_status foray_dev_selftest(const char *spec, const struct foray_selftest_opts *o,
                                     foray_selftest_fn *tell, void *arg, struct foray_err *err) {
  static const struct {
    const char *name;
    bool (*run)(struct test *t);
  } parts[] = {{"open", part_open},
               {"memory", part_memory},
               {"programs", part_programs},
               {"rollback", part_rollback},
               {"errors", part_errors},
               {"counters", part_counters},
               {"blocks", NULL},
               {"reset", part_reset}};
  struct test *t = calloc(1, sizeof *t);
  if (t) t->x = malloc(TINY_HEAP), t->y = malloc(TINY_HEAP);
  enum foray_status st = t && t->x && t->y ? FORAY_OK : foray_err_set(err, FORAY_E_NOMEM, "self test");
  for (size_t i = 0; st != FORAY_E_NOMEM && i < sizeof parts / sizeof *parts; i++) {
    const uint32_t cols = t->cols;
    t->spec = spec;
    t->rng = (o && o->seed ? o->seed : 1) * 0x9E3779B97F4A7C15u + i;
    *t->why = 0;
    const bool ok = parts[i].run ? parts[i].run(t) : part_blocks(t, o && o->blocks ? o->blocks : BLOCKS);
    if (i) t->cols = cols;
    tell(arg, parts[i].name, ok ? NULL : *t->why ? t->why : "failed");
    if (ok) continue;
    if (i == 0) { /* nothing else can work */
      st = foray_err_set(err, FORAY_E_UNSUPPORTED, "%s", t->why);
      break;
    }
    st = foray_err_set(err, FORAY_E_MISMATCH, "device '%s' is not conformant: %s: %s", spec, parts[i].name,
                       t->why);
  }
  if (t) free(t->x), free(t->y);
  free(t);
  return st;
}
