/* The block kernels of the `cpu` device against the sum as docs/image.md writes it. */
#include "unit/harness.h"

#include "core/cpu.h"
#include "dev/cpu_gemv.h"
#include "model/image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GROUPS_MAX = 21, COLS = FORAY_CPU_COLS, BLOCK_MAX = 16384 };

static uint64_t rng_state = 0x9E3779B97F4A7C15u;
static uint32_t rnd(void) {
  rng_state ^= rng_state << 13;
  rng_state ^= rng_state >> 7;
  rng_state ^= rng_state << 17;
  return (uint32_t)(rng_state >> 32);
}

/* Corner values first: all largest, all smallest, zeros, then mixtures. */
static int value(int style, int lo, int hi) {
  switch (style) {
  case 0: return hi;
  case 1: return lo;
  case 2: return 0;
  case 3: return rnd() & 1 ? hi : lo;
  default: return lo + (int)(rnd() % (uint32_t)(hi - lo + 1));
  }
}

struct problem {
  enum foray_image_type type;
  uint32_t groups;
  int k;
  uint8_t *block;
  uint32_t block_bytes;
  uint8_t q[16][GROUPS_MAX * 32], sc[16][GROUPS_MAX], zp[16][GROUPS_MAX];
  int16_t a[COLS][GROUPS_MAX * 32];
  uint8_t shift[COLS][GROUPS_MAX];
  int64_t want[COLS][16];
};

static void fill(struct problem *p, int wstyle, int astyle, int sstyle) {
  struct foray_image_layout lay;
  if (!foray_image_layout_of(p->type, 16, p->groups * 32, false, &lay)) abort();
  p->block_bytes = lay.block_bytes;
  memset(p->block, 0, p->block_bytes);
  for (uint32_t g = 0; g < p->groups; g++)
    for (int r = 0; r < 16; r++) {
      uint8_t *codes = p->block + foray_image_codes_at(p->type, g);
      uint8_t *beats = p->block + foray_image_beats_at(p->type, g);
      codes[r] = p->sc[r][g] = (uint8_t)value(wstyle, 0, 255);
      if (p->type == FORAY_IMAGE_Q4A)
        codes[16 + r] = p->zp[r][g] = (uint8_t)value(wstyle == 0 ? 4 : wstyle, 0, 255);
      for (int c = 0; c < 32; c++) {
        uint8_t *q = &p->q[r][g * 32 + (uint32_t)c];
        if (p->type == FORAY_IMAGE_Q4A) {
          *q = (uint8_t)value(wstyle, 0, 15);
          beats[64 * (c / 8) + 4 * r + c % 4] |= (uint8_t)(c % 8 < 4 ? *q : *q << 4);
        } else {
          *q = (uint8_t)value(wstyle, -127, 127);
          beats[64 * (c / 4) + 4 * r + c % 4] = *q;
        }
      }
    }
  for (int k = 0; k < p->k; k++)
    for (uint32_t g = 0; g < p->groups; g++) {
      p->shift[k][g] = (uint8_t)value(sstyle, 0, 15);
      for (int c = 0; c < 32; c++) p->a[k][g * 32 + (uint32_t)c] = (int16_t)value(astyle, -32768, 32767);
    }
  for (int k = 0; k < p->k; k++)
    for (int r = 0; r < 16; r++) {
      int64_t acc = 0;
      for (uint32_t g = 0; g < p->groups; g++)
        for (uint32_t c = 32 * g; c < 32 * g + 32; c++) {
          int64_t w = p->type == FORAY_IMAGE_Q4A ? 16 * p->q[r][c] - p->zp[r][g] : (int8_t)p->q[r][c];
          acc += w * p->sc[r][g] * p->a[k][c] * ((int64_t)1 << p->shift[k][g]);
        }
      p->want[k][r] = acc;
    }
}

static long run(struct problem *p, const struct foray_cpu_gemv *v, int64_t *acc, struct foray_cpu_group *x) {
  for (int k = 0; k < p->k; k++) foray_cpu_gemv_prepare(v->form, p->a[k], p->shift[k], p->groups, k, p->k, x);
  memset(acc, 0x5A, COLS * 24 * sizeof *acc);
  (p->type == FORAY_IMAGE_Q4A ? v->q4a : v->q8s)(p->block, p->groups, x, p->k, acc, 24);
  long bad = 0;
  for (int k = 0; k < COLS; k++)
    for (int r = 0; r < 24; r++) {
      int64_t want = k < p->k && r < 16 ? p->want[k][r] : 0x5A5A5A5A5A5A5A5A;
      bad += acc[24 * k + r] != want;
    }
  return bad;
}

static void all_shapes(enum foray_isa isa) {
  enum foray_isa parsed;
  if (foray_isa_parse(foray_isa_name(isa), &parsed, NULL) != FORAY_OK) {
    foray_test_skip("this processor lacks the instruction set");
    return;
  }
  struct problem *p = malloc(sizeof *p);
  uint8_t *mem = aligned_alloc(64, BLOCK_MAX);
  struct foray_cpu_group *x = aligned_alloc(64, ((GROUPS_MAX * COLS * sizeof *x) + 63) / 64 * 64);
  int64_t *acc = malloc(COLS * 24 * sizeof *acc);
  CU_ASSERT_FATAL(p && mem && x && acc);
  p->block = mem;
  const struct foray_cpu_gemv *v = foray_cpu_gemv_of(isa);
  for (int type = FORAY_IMAGE_Q4A; type <= FORAY_IMAGE_Q8S; type++)
    for (uint32_t groups = 1; groups <= GROUPS_MAX; groups += groups < 6 ? 1 : 5)
      for (int k = 1; k <= COLS; k++) {
        long bad = 0;
        p->type = (enum foray_image_type)type;
        p->groups = groups;
        p->k = k;
        for (int w = 0; w < 5; w++)
          for (int a = 0; a < 5; a++) {
            fill(p, w, a, (w + a) % 5);
            bad += run(p, v, acc, x);
          }
        if (bad)
          printf("%s type %d groups %u columns %d: %ld wrong\n", foray_isa_name(isa), type, groups, k, bad);
        CU_ASSERT_EQUAL(bad, 0);
      }
  free(p);
  free(mem);
  free(x);
  free(acc);
}

TEST(scalar_blocks_equal_the_definition) { all_shapes(FORAY_ISA_SCALAR); }
TEST(avx2_blocks_equal_the_definition) { all_shapes(FORAY_ISA_AVX2); }
TEST(avx512_blocks_equal_the_definition) { all_shapes(FORAY_ISA_AVX512); }
TEST(amx_blocks_equal_the_definition) { all_shapes(FORAY_ISA_AMX); }
