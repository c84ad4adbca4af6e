/* The block kernels of the `cpu` device against the sum as docs/image.md writes it. */
#include "unit/harness.h"

#include "core/cpu.h"
#include "dev/cpu_gemv.h"
#include "model/image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  GROUPS_MAX = 13,
  BLOCKS_MAX = 11,
  ROWS_MAX = 16 * BLOCKS_MAX,
  COLS = FORAY_ABI_COLS_MAX,
  STRIDE = ROWS_MAX + 8
};

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
  uint32_t groups, blocks;
  int k;
  uint8_t *data;
  uint64_t block_bytes;
  uint8_t q[ROWS_MAX][GROUPS_MAX * 32], sc[ROWS_MAX][GROUPS_MAX], zp[ROWS_MAX][GROUPS_MAX];
  int16_t a[COLS][GROUPS_MAX * 32]; /* as stored: beyond the bound too */
  uint8_t shift[COLS][GROUPS_MAX];
  int64_t want[COLS][STRIDE], got[COLS][STRIDE];
  struct foray_cpu_group x[COLS * GROUPS_MAX];
};

static void weights(struct problem *p, int style) {
  struct foray_dev_matrix lay;
  if (!foray_dev_matrix_of((uint32_t)p->type, p->blocks * 16, p->groups * 32, false, &lay)) abort();
  p->block_bytes = lay.block_bytes;
  memset(p->data, 0, p->blocks * p->block_bytes);
  for (uint32_t g = 0; g < p->groups; g++)
    for (uint32_t r = 0; r < p->blocks * 16; r++) {
      uint8_t *block = p->data + r / 16 * p->block_bytes;
      uint8_t *codes = block + foray_image_codes_at(p->type, g) + r % 16;
      uint8_t *beats = block + foray_image_beats_at(p->type, g) + 4 * (r % 16);
      codes[0] = p->sc[r][g] = (uint8_t)value(style, 0, 255);
      if (p->type == FORAY_IMAGE_Q4A)
        codes[16] = p->zp[r][g] = (uint8_t)value(style == 0 ? 4 : style, 0, 255);
      for (uint32_t c = 0; c < 32; c++) {
        uint8_t *q = &p->q[r][g * 32 + c];
        if (p->type == FORAY_IMAGE_Q4A) {
          *q = (uint8_t)value(style, 0, 15);
          beats[64 * (c / 8) + c % 4] |= (uint8_t)(c % 8 < 4 ? *q : *q << 4);
        } else {
          *q = (uint8_t)value(style, -128, 127);
          beats[64 * (c / 4) + c % 4] = *q;
        }
      }
    }
}

static void activations(struct problem *p, int astyle, int sstyle) {
  const int bound = astyle == 4 ? 32767 : 1 << FORAY_ABI_A16_BITS;
  for (int k = 0; k < p->k; k++)
    for (uint32_t g = 0; g < p->groups; g++) {
      p->shift[k][g] = (uint8_t)value(sstyle, 0, sstyle == 4 ? 255 : 15);
      for (uint32_t c = 0; c < 32; c++) p->a[k][g * 32 + c] = (int16_t)value(astyle, -bound, bound);
    }
}

static void expect(struct problem *p) {
  memset(p->want, 0x5A, sizeof p->want);
  for (int k = 0; k < p->k; k++)
    for (uint32_t r = 0; r < p->blocks * 16; r++) {
      int64_t acc = 0;
      for (uint32_t g = 0; g < p->groups; g++) {
        int64_t part = 0;
        for (uint32_t c = 32 * g; c < 32 * g + 32; c++) {
          int64_t w = p->type == FORAY_IMAGE_Q4A ? 16 * p->q[r][c] - p->zp[r][g] : (int8_t)p->q[r][c];
          part += w * foray_clamp_a(p->a[k][c]);
        }
        acc += part * p->sc[r][g] * ((int64_t)1 << (p->shift[k][g] & 15));
      }
      p->want[k][r] = acc;
    }
}

static bool run_equals(struct problem *p, const struct foray_cpu_gemv *v) {
  for (int k = 0; k < p->k; k++)
    v->prepare((struct foray_a16){.m = p->a[k], .shift = p->shift[k]}, p->groups, k, p->k, p->x);
  memset(p->got, 0x5A, sizeof p->got);
  struct foray_cpu_run n = {p->data, p->block_bytes, p->blocks, p->groups, p->x, p->k, p->got[0], STRIDE};
  (p->type == FORAY_IMAGE_Q4A ? v->q4a : v->q8s)(&n);
  return !memcmp(p->got, p->want, sizeof p->want);
}

static void all_shapes(enum foray_isa isa) {
  enum foray_isa parsed;
  if (foray_isa_parse(foray_isa_name(isa), &parsed, NULL) != FORAY_OK) {
    foray_test_skip("this processor lacks the instruction set");
    return;
  }
  struct problem *p = malloc(sizeof *p);
  CU_ASSERT_FATAL(p != NULL);
  p->data = aligned_alloc(64, BLOCKS_MAX * (GROUPS_MAX + 3) * 576);
  CU_ASSERT_FATAL(p->data != NULL);
  const struct foray_cpu_gemv *v = foray_cpu_gemv_of(isa);
  for (int type = FORAY_IMAGE_Q4A; type <= FORAY_IMAGE_Q8S; type++)
    for (uint32_t groups = 1; groups <= GROUPS_MAX; groups += groups < 6 ? 1 : 7)
      for (p->k = 1; p->k <= COLS; p->k++) {
        int bad = 0;
        p->type = (enum foray_image_type)type;
        p->groups = groups;
        for (int style = 0; style < 7; style++) {
          p->blocks = (groups + (uint32_t)(p->k * 5 + style)) % BLOCKS_MAX + 1;
          weights(p, style);
          activations(p, (style * 3 + p->k) % 5, (style + (int)groups) % 5);
          expect(p);
          bad += !run_equals(p, v);
        }
        if (bad)
          printf("%s type %d groups %u columns %d: %d of 7 wrong\n", foray_isa_name(isa), type, groups, p->k,
                 bad);
        CU_ASSERT_EQUAL(bad, 0);
      }
  free(p->data);
  free(p);
}

TEST(scalar_runs_equal_the_definition) { all_shapes(FORAY_ISA_SCALAR); }
TEST(avx2_runs_equal_the_definition) { all_shapes(FORAY_ISA_AVX2); }
TEST(avx512_runs_equal_the_definition) { all_shapes(FORAY_ISA_AVX512); }
TEST(amx_runs_equal_the_definition) { all_shapes(FORAY_ISA_AMX); }
