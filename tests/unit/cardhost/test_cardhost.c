/* The host side of the control map against the card model, and against cards that are gone, dead, busy, of
 * another kind. */
#include "unit/harness.h"
#include "unit/tiny_program.h"

#include "card/card.h"
#include "cardhost/cardhost.h"

#include <stdio.h>

enum { BASE = 0x80000000u, MEM = TINY_HEAP };
static _Alignas(64) uint8_t mem[MEM];

/* A bus to a card model, with faults. */
struct fake {
  struct foray_card *card;
  uint32_t ones_after; /* accesses until every read gives ones; 0: never */
  uint32_t accesses;
  uint32_t reg, value; /* this register reads so; reg 0: no such thing */
  bool deaf;           /* starts are swallowed: CONTROL stays 1 */
  bool started;
  int closed;
};

static enum foray_status read32(void *arg, uint32_t at, uint32_t *v, struct foray_err *err) {
  struct fake *f = arg;
  (void)err;
  *v = foray_card_read(f->card, at);
  if (f->reg && at == f->reg) *v = f->value;
  if (f->started && at == FORAY_REG_CONTROL) *v = 1;
  if (f->ones_after && ++f->accesses > f->ones_after) *v = UINT32_MAX;
  return FORAY_OK;
}
static enum foray_status write32(void *arg, uint32_t at, uint32_t v, struct foray_err *err) {
  struct fake *f = arg;
  (void)err;
  if (f->deaf && at == FORAY_REG_CONTROL)
    f->started = true;
  else
    foray_card_write(f->card, at, v);
  return FORAY_OK;
}
static enum foray_status mem_read(void *arg, uint64_t at, void *to, uint64_t n, struct foray_err *err) {
  (void)arg, (void)err;
  memcpy(to, mem + at, n);
  return FORAY_OK;
}
static enum foray_status mem_write(void *arg, uint64_t at, const void *from, uint64_t n,
                                   struct foray_err *err) {
  (void)arg, (void)err;
  memcpy(mem + at, from, n);
  return FORAY_OK;
}
static void closed(void *arg) { ((struct fake *)arg)->closed++; }

static struct foray_bus bus_of(struct fake *f) {
  return (struct foray_bus){.arg = f,
                            .read32 = read32,
                            .write32 = write32,
                            .mem_read = mem_read,
                            .mem_write = mem_write,
                            .close = closed};
}

static void card(struct fake *f) {
  *f = (struct fake){0};
  const struct foray_card_opts o = {
      .device = "ref", .threads = 1, .mem = mem, .mem_bytes = MEM, .mem_base = BASE};
  struct foray_err err = {0};
  CU_ASSERT_EQUAL_FATAL(foray_card_open(&o, &f->card, &err), FORAY_OK);
}

static enum foray_status host(struct fake *f, uint32_t limit_ms, struct foray_cardhost **h,
                              struct foray_err *err) {
  const struct foray_bus b = bus_of(f);
  return foray_cardhost_open(&b,
                             &(struct foray_cardhost_opts){
                                 .where = "fake", .mem_base = BASE, .mem_bytes = MEM, .limit_ms = limit_ms},
                             h, err);
}

static const uint32_t prompt[] = {3, 50, 7, 99, 21, 0, 64, 8, 77, 31};
enum { P = sizeof prompt / sizeof *prompt };

/* The bytes of `t` before a run go to the card. */
static void load(struct foray_cardhost *h, struct tiny *t, uint32_t drafts) {
  static uint8_t image[TINY_HEAP];
  uint32_t w[FORAY_ABI_RUN_WORDS];
  t->run.feed_n = P, t->run.max_drafts = drafts;
  foray_rec_run_pack(&t->run, w);
  CU_ASSERT_EQUAL(foray_dev_download(t->d, 0, image, TINY_HEAP, NULL), FORAY_OK);
  CU_ASSERT_EQUAL(foray_cardhost_upload(h, 0, image, TINY_HEAP, NULL), FORAY_OK);
  CU_ASSERT_EQUAL(foray_cardhost_upload(h, t->feed, prompt, sizeof prompt, NULL), FORAY_OK);
  CU_ASSERT_EQUAL(foray_cardhost_upload(h, t->run_addr, w, sizeof w, NULL), FORAY_OK);
}

TEST(a_run_over_the_bus_equals_the_device) {
  static struct tiny t;
  static uint8_t want[TINY_HEAP];
  struct fake f;
  struct foray_cardhost *h;
  struct foray_err err = {0};
  card(&f);
  CU_ASSERT_TRUE_FATAL(tiny_open(&t, "ref", 9, 8));
  CU_ASSERT_EQUAL_FATAL(host(&f, 0, &h, &err), FORAY_OK);
  struct foray_dev_info info = {0};
  foray_cardhost_info(h, &info);
  CU_ASSERT_EQUAL(info.abi_hash, FORAY_ABI_HASH);
  CU_ASSERT_EQUAL(info.heap_bytes, MEM);
  CU_ASSERT_EQUAL(info.cols_max, FORAY_ABI_COLS_MAX);
  load(h, &t, 14);
  struct foray_dev_result res;
  struct foray_cardhost_traffic a, b;
  foray_cardhost_traffic(h, &a);
  CU_ASSERT_EQUAL(foray_cardhost_run(h, FORAY_DEV_UNITS(t.run_addr), 0, &res, &err), FORAY_OK);
  foray_cardhost_traffic(h, &b);
  CU_ASSERT_EQUAL(b.reg_writes - a.reg_writes, 5);
  CU_ASSERT_EQUAL(b.mem_read_bytes - a.mem_read_bytes, 24);
  CU_ASSERT_EQUAL(b.mem_write_bytes, a.mem_write_bytes);
  CU_ASSERT_EQUAL(tiny_run(&t, prompt, P, 0, 14), FORAY_OK);
  CU_ASSERT(!memcmp(&res, &t.res, sizeof res));
  CU_ASSERT_EQUAL(foray_dev_download(t.d, 0, want, TINY_HEAP, NULL), FORAY_OK);
  CU_ASSERT(!memcmp(want, mem, TINY_HEAP));
  uint64_t c[FORAY_COUNTER_COUNT] = {0}, d[FORAY_COUNTER_COUNT];
  foray_cardhost_counters(h, c);
  foray_dev_counters(t.d, d);
  c[FORAY_COUNTER_BUSY] = d[FORAY_COUNTER_BUSY] = 0;
  CU_ASSERT(!memcmp(c, d, sizeof c));
  /* errors of the program come as results: the magic is gone */
  const uint32_t zero = 0;
  CU_ASSERT_EQUAL(foray_cardhost_upload(h, t.run_addr, &zero, 4, NULL), FORAY_OK);
  CU_ASSERT_EQUAL(foray_cardhost_run(h, FORAY_DEV_UNITS(t.run_addr), 0, &res, &err), FORAY_OK);
  CU_ASSERT_EQUAL(res.error, FORAY_DEVERR_RUN);
  CU_ASSERT_EQUAL(res.stop, FORAY_STOP_ERROR);
  CU_ASSERT_EQUAL(foray_cardhost_run(h, UINT32_MAX, 0, &res, &err), FORAY_OK);
  CU_ASSERT_EQUAL(res.error, FORAY_DEVERR_ADDRESS);
  foray_cardhost_close(h);
  CU_ASSERT_EQUAL(f.closed, 1);
  foray_card_close(f.card);
  tiny_close(&t);
}

TEST(a_stop_ends_a_run_at_a_segment_border) {
  static struct tiny t;
  struct fake f;
  struct foray_err err = {0};
  card(&f);
  CU_ASSERT_TRUE_FATAL(tiny_open(&t, "ref", 4, 1));
  struct foray_cardhost *h;
  CU_ASSERT_EQUAL_FATAL(host(&f, 0, &h, &err), FORAY_OK);
  load(h, &t, 1);
  static uint32_t tokens[TINY_MAX_POS];
  CU_ASSERT_EQUAL(foray_cardhost_upload(h, t.feed, tokens, sizeof tokens, NULL), FORAY_OK);
  uint32_t w[FORAY_ABI_RUN_WORDS];
  t.run.feed_n = TINY_MAX_POS - 1;
  foray_rec_run_pack(&t.run, w);
  CU_ASSERT_EQUAL(foray_cardhost_upload(h, t.run_addr, w, sizeof w, NULL), FORAY_OK);
  struct foray_dev_result res;
  CU_ASSERT_EQUAL(foray_cardhost_run(h, FORAY_DEV_UNITS(t.run_addr), 1, &res, &err), FORAY_OK);
  CU_ASSERT(res.error == FORAY_DEVERR_DEADLINE ||
            res.error == FORAY_DEVERR_NONE); /* a machine may be that fast */
  CU_ASSERT(res.len <= TINY_MAX_POS);
  foray_cardhost_close(h);
  foray_card_close(f.card);
  tiny_close(&t);
}

TEST(cards_that_are_gone_dead_busy_or_strange_are_named) {
  static struct tiny t;
  struct fake f;
  struct foray_cardhost *h;
  struct foray_err err;
  struct foray_dev_result res;
  CU_ASSERT_TRUE_FATAL(tiny_open(&t, "ref", 9, 8));
  const struct {
    uint32_t reg, value;
    enum foray_status st;
    const char *text;
  } bad[] = {
      {FORAY_REG_TYPE, 0x12345678, FORAY_E_FORMAT, "no Foray card"},
      {FORAY_REG_VERSION, FORAY_ABI_VERSION + 1, FORAY_E_MISMATCH, "ABI"},
      {FORAY_REG_ABI_HASH_LO, (uint32_t)FORAY_ABI_HASH ^ 1, FORAY_E_MISMATCH, "bitstream of this release"},
      {FORAY_REG_ABI_HASH_HI, 0, FORAY_E_MISMATCH, "ABI"},
      {FORAY_REG_COLS, 0, FORAY_E_FORMAT, "columns"},
      {FORAY_REG_COLS, FORAY_ABI_COLS_MAX + 1, FORAY_E_FORMAT, "columns"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    card(&f);
    f.reg = bad[i].reg, f.value = bad[i].value;
    err = (struct foray_err){0};
    CU_ASSERT_EQUAL(host(&f, 0, &h, &err), bad[i].st);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, bad[i].text));
    CU_ASSERT_EQUAL(f.closed, 0);
    foray_card_close(f.card);
  }
  /* gone: from the start, and in the middle of a run */
  for (uint32_t after = 1; after < 14; after++) {
    card(&f);
    f.ones_after = after;
    err = (struct foray_err){0};
    enum foray_status st = host(&f, 0, &h, &err);
    if (st == FORAY_OK) {
      load(h, &t, 3);
      st = foray_cardhost_run(h, FORAY_DEV_UNITS(t.run_addr), 0, &res, &err);
      foray_cardhost_close(h);
    }
    CU_ASSERT(after > 7 ? st == FORAY_E_CLOSED || st == FORAY_OK
                        : st == FORAY_E_MISMATCH || st == FORAY_E_FORMAT || st == FORAY_E_CLOSED);
    if (after >= 8 && after <= 9) {
      CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "all reads give ones"));
    }
    foray_card_close(f.card);
  }
  /* dead: the start is swallowed; after the limit and a stop the card is refused for good */
  card(&f);
  err = (struct foray_err){0};
  CU_ASSERT_EQUAL_FATAL(host(&f, 20, &h, &err), FORAY_OK);
  load(h, &t, 3);
  f.deaf = true;
  CU_ASSERT_EQUAL(foray_cardhost_run(h, FORAY_DEV_UNITS(t.run_addr), 0, &res, &err), FORAY_E_DEVICE);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "did not stop"));
  CU_ASSERT_EQUAL(foray_cardhost_run(h, FORAY_DEV_UNITS(t.run_addr), 0, &res, &err), FORAY_E_DEVICE);
  CU_ASSERT_EQUAL(foray_cardhost_upload(h, 64, &res, 4, &err), FORAY_E_DEVICE);
  foray_cardhost_close(h);
  /* busy at attach: the run of somebody else */
  err = (struct foray_err){0};
  CU_ASSERT_EQUAL(host(&f, 0, &h, &err), FORAY_E_BUSY);
  CU_ASSERT_PTR_NOT_NULL(strstr(err.msg, "another process"));
  foray_card_close(f.card);
  /* more heap than memory */
  card(&f);
  const struct foray_bus b = bus_of(&f);
  CU_ASSERT_EQUAL(foray_cardhost_open(
                      &b, &(struct foray_cardhost_opts){.mem_bytes = MEM, .heap_bytes = 2 * MEM}, &h, &err),
                  FORAY_E_LIMIT);
  foray_card_close(f.card);
  tiny_close(&t);
}
