/* The register-level card: a program run through registers and shared memory gives the bytes that the device
 * class behind it gives directly. */
#include "unit/harness.h"
#include "unit/tiny_program.h"

#include "card/card.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>

enum { BASE = 0x40000000, HEAP_AT = 4096, MEM = HEAP_AT + TINY_HEAP };
static _Alignas(64) uint8_t mem[MEM];
static const uint32_t prompt[] = {3, 50, 7, 99, 21, 0, 64, 8, 77, 31};

/* The heap of a device with a tiny program, before any run, goes to the card's memory. */
static void load(struct tiny *t, uint8_t *to) {
  CU_ASSERT_EQUAL(foray_dev_download(t->d, 0, to, TINY_HEAP, NULL), FORAY_OK);
  uint32_t w[FORAY_ABI_RUN_WORDS];
  t->run.feed_n = sizeof prompt / sizeof *prompt, t->run.max_drafts = 12;
  foray_rec_run_pack(&t->run, w);
  memcpy(to + t->feed, prompt, sizeof prompt);
  memcpy(to + t->run_addr, w, sizeof w);
}

static void args(struct foray_card *c, const struct tiny *t) {
  foray_card_write(c, FORAY_REG_ARG_HEAP_LO, BASE + HEAP_AT);
  foray_card_write(c, FORAY_REG_ARG_HEAP_HI, 0);
  foray_card_write(c, FORAY_REG_ARG_HEAP_UNITS, TINY_HEAP / 64);
  foray_card_write(c, FORAY_REG_ARG_RUN, FORAY_DEV_UNITS(t->run_addr));
}

static struct foray_card *card(const char *device, void (*irq)(void *), void *arg) {
  struct foray_card *c = NULL;
  struct foray_err err = {0};
  const struct foray_card_opts o = {.device = device,
                                    .threads = 1,
                                    .mem = mem,
                                    .mem_bytes = MEM,
                                    .mem_base = BASE,
                                    .irq = irq,
                                    .irq_arg = arg};
  CU_ASSERT_EQUAL(foray_card_open(&o, &c, &err), FORAY_OK);
  if (!c) printf("%s\n", err.msg);
  return c;
}

static void expect_same(struct tiny *t) {
  static uint8_t want[TINY_HEAP];
  CU_ASSERT_EQUAL(tiny_run(t, prompt, sizeof prompt / sizeof *prompt, 0, 12), FORAY_OK);
  CU_ASSERT_EQUAL(foray_dev_download(t->d, 0, want, TINY_HEAP, NULL), FORAY_OK);
  CU_ASSERT(!memcmp(want, mem + HEAP_AT, TINY_HEAP));
}

TEST(a_run_by_registers_equals_the_device) {
  static struct tiny t;
  const char *const devices[] = {"ref", "cpu"};
  for (int k = 0; k < 2; k++) {
    CU_ASSERT_TRUE_FATAL(tiny_open(&t, "ref", 5, 8));
    load(&t, mem + HEAP_AT);
    struct foray_card *c = card(devices[k], NULL, NULL);
    CU_ASSERT_PTR_NOT_NULL_FATAL(c);
    CU_ASSERT_EQUAL(foray_card_read(c, FORAY_REG_TYPE), FORAY_TYPE_ID);
    CU_ASSERT_EQUAL(foray_card_read(c, FORAY_REG_ABI_HASH_LO), (uint32_t)FORAY_ABI_HASH);
    CU_ASSERT_EQUAL(foray_card_read(c, FORAY_REG_ABI_HASH_HI), (uint32_t)(FORAY_ABI_HASH >> 32));
    CU_ASSERT(foray_card_read(c, FORAY_REG_SCRATCH_UNITS) > 0);
    CU_ASSERT(foray_card_read(c, FORAY_REG_CONTROL) & FORAY_CARD_IDLE);
    args(c, &t);
    foray_card_write(c, FORAY_REG_CONTROL, FORAY_CARD_START);
    CU_ASSERT(foray_card_wait(c, 20000));
    CU_ASSERT_EQUAL(foray_card_read(c, FORAY_REG_CONTROL),
                    FORAY_CARD_DONE | FORAY_CARD_IDLE | FORAY_CARD_READY);
    CU_ASSERT_EQUAL(foray_card_read(c, FORAY_REG_CONTROL), FORAY_CARD_IDLE); /* cleared by reading */
    CU_ASSERT_EQUAL(foray_card_read(c, FORAY_REG_ERROR), FORAY_DEVERR_NONE);
    CU_ASSERT_EQUAL(foray_card_read(c, FORAY_REG_COUNTERS + 8 * FORAY_COUNTER_DRAFTED), 12);
    expect_same(&t);
    foray_card_close(c);
    tiny_close(&t);
  }
}

TEST(bad_arguments_end_with_an_error_and_the_card_goes_on) {
  static struct tiny t;
  CU_ASSERT_TRUE_FATAL(tiny_open(&t, "ref", 6, 4));
  load(&t, mem + HEAP_AT);
  struct foray_card *c = card("ref", NULL, NULL);
  CU_ASSERT_PTR_NOT_NULL_FATAL(c);
  const struct {
    uint32_t reg, value;
  } bad[] = {{FORAY_REG_ARG_HEAP_LO, BASE - 64},  {FORAY_REG_ARG_HEAP_HI, 1},
             {FORAY_REG_ARG_HEAP_UNITS, 0},       {FORAY_REG_ARG_HEAP_UNITS, UINT32_MAX},
             {FORAY_REG_ARG_RUN, TINY_HEAP / 64}, {FORAY_REG_ARG_HEAP_LO, BASE + HEAP_AT + 4},
             {FORAY_REG_ARG_HEAP_LO, BASE + MEM}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    args(c, &t);
    foray_card_write(c, bad[i].reg, bad[i].value);
    foray_card_write(c, FORAY_REG_CONTROL, FORAY_CARD_START);
    CU_ASSERT(foray_card_wait(c, 20000));
    CU_ASSERT_EQUAL(foray_card_read(c, FORAY_REG_ERROR), FORAY_DEVERR_ADDRESS);
  }
  args(c, &t);
  foray_card_write(c, FORAY_REG_ARG_RUN, FORAY_DEV_UNITS(t.state)); /* no run block there */
  foray_card_write(c, FORAY_REG_CONTROL, FORAY_CARD_START);
  CU_ASSERT(foray_card_wait(c, 20000));
  CU_ASSERT_EQUAL(foray_card_read(c, FORAY_REG_ERROR), FORAY_DEVERR_RUN);
  args(c, &t);
  foray_card_write(c, FORAY_REG_CONTROL, FORAY_CARD_START);
  CU_ASSERT(foray_card_wait(c, 20000));
  CU_ASSERT_EQUAL(foray_card_read(c, FORAY_REG_ERROR), FORAY_DEVERR_NONE);
  expect_same(&t);
  foray_card_close(c);
  tiny_close(&t);
  struct foray_err err = {0};
  struct foray_card *none;
  CU_ASSERT_EQUAL(
      foray_card_open(&(struct foray_card_opts){.device = "nothing", .mem = mem, .mem_bytes = MEM}, &none,
                      &err),
      FORAY_E_NOTFOUND);
}

static void rang(void *arg) { atomic_fetch_add((atomic_int *)arg, 1); }

TEST(the_interrupt_rises_once_until_it_is_taken) {
  static struct tiny t;
  static atomic_int rings;
  CU_ASSERT_TRUE_FATAL(tiny_open(&t, "ref", 7, 4));
  load(&t, mem + HEAP_AT);
  struct foray_card *c = card("ref", rang, &rings);
  CU_ASSERT_PTR_NOT_NULL_FATAL(c);
  args(c, &t);
  const int want[] = {0, 1, 1, 2}; /* off; on; not taken; taken */
  for (int i = 0; i < 4; i++) {
    if (i == 1) foray_card_write(c, FORAY_REG_IRQ_GLOBAL, 1), foray_card_write(c, FORAY_REG_IRQ_ENABLE, 1);
    if (i == 3) foray_card_write(c, FORAY_REG_IRQ_STATUS, 1);
    foray_card_write(c, FORAY_REG_CONTROL, FORAY_CARD_START);
    CU_ASSERT(foray_card_wait(c, 20000));
    foray_card_write(c, FORAY_REG_CONTROL, 0); /* the worker has rung when it takes the lock again */
    for (int k = 0; k < 2000 && atomic_load(&rings) < want[i]; k++)
      nanosleep(&(struct timespec){0, 1000000}, NULL);
    CU_ASSERT_EQUAL(atomic_load(&rings), want[i]);
  }
  foray_card_close(c);
  tiny_close(&t);
}

struct served {
  struct foray_card *c;
  volatile uint32_t *window;
  atomic_bool stop;
};
static void *serve(void *arg) {
  struct served *s = arg;
  foray_card_serve(s->c, s->window, &s->stop);
  return NULL;
}

TEST(a_window_in_shared_memory_is_served) {
  static struct tiny t;
  static volatile uint32_t w[FORAY_CARD_REGS_BYTES / 4];
  CU_ASSERT_TRUE_FATAL(tiny_open(&t, "ref", 8, 8));
  load(&t, mem + HEAP_AT);
  struct served s = {.c = card("ref", NULL, NULL), .window = w};
  CU_ASSERT_PTR_NOT_NULL_FATAL(s.c);
  pthread_t th;
  CU_ASSERT_EQUAL_FATAL(pthread_create(&th, NULL, serve, &s), 0);
  for (int k = 0; k < 20000 && w[FORAY_REG_CONTROL / 4] != (FORAY_CARD_IDLE | FORAY_CARD_READY); k++)
    nanosleep(&(struct timespec){0, 1000000}, NULL);
  CU_ASSERT_EQUAL(w[FORAY_REG_TYPE / 4], FORAY_TYPE_ID);
  w[FORAY_REG_ARG_HEAP_LO / 4] = BASE + HEAP_AT;
  w[FORAY_REG_ARG_HEAP_UNITS / 4] = TINY_HEAP / 64;
  w[FORAY_REG_ARG_RUN / 4] = FORAY_DEV_UNITS(t.run_addr);
  atomic_thread_fence(memory_order_release);
  w[FORAY_REG_CONTROL / 4] = FORAY_CARD_START;
  for (int k = 0; k < 20000 && !(w[FORAY_REG_CONTROL / 4] & FORAY_CARD_DONE); k++)
    nanosleep(&(struct timespec){0, 1000000}, NULL);
  CU_ASSERT(w[FORAY_REG_CONTROL / 4] & FORAY_CARD_DONE);
  CU_ASSERT_EQUAL(w[FORAY_REG_ERROR / 4], FORAY_DEVERR_NONE);
  atomic_store(&s.stop, true);
  pthread_join(th, NULL);
  expect_same(&t);
  foray_card_close(s.c);
  tiny_close(&t);
}
