/* bf16 tile kernel. A panel of B holds 32 columns; per step of 32 inner indices it has two tiles of 16 rows
 * (pairs of k) by 16 columns, 1 KiB each, in the order in which they are used. Four accumulators of 16x16
 * give one tile product per tile load, which a core's L2 can feed. */
#include "train/gemm.h"

#include <immintrin.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/cpu.h"

enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };

struct tile_config {
  uint8_t palette, start_row, reserved[14];
  uint16_t colsb[16];
  uint8_t rows[16];
};

bool foray_mm_amx_ready(void) {
  if (foray_cpu_isa() < FORAY_ISA_AMX) return false;
  if (!__builtin_cpu_supports("avx512f")) return false;
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

void foray_mm_amx_round(const float *a, size_t lda, int m, int k, int kp, int row0, int rows, uint16_t *out) {
  for (int r = row0; r < row0 + rows; r++) {
    uint16_t *o = out + (size_t)r * (size_t)kp;
    if (r >= m) {
      memset(o, 0, (size_t)kp * 2);
      continue;
    }
    const float *x = a + (size_t)r * lda;
    int i = 0;
    for (; i + 32 <= k; i += 32) {
      __m512bh v = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + i + 16), _mm512_loadu_ps(x + i));
      memcpy(o + i, &v, 64);
    }
    if (i < kp) {
      float tail[32] = {0};
      memcpy(tail, x + i, (size_t)(k - i) * sizeof(float));
      __m512bh v = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(tail + 16), _mm512_loadu_ps(tail));
      memcpy(o + i, &v, 64);
    }
  }
}

static uint16_t bf16(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

void foray_mm_amx_pack_panel(const float *src, size_t ld, bool transposed, int k, int kp, int n, int col0,
                             uint16_t *out) {
  for (int k0 = 0; k0 < kp; k0 += FORAY_AMX_STEP)
    for (int t = 0; t < 2; t++, out += 512)
      for (int p = 0; p < 16; p++)
        for (int j = 0; j < 16; j++)
          for (int h = 0; h < 2; h++) {
            int kk = k0 + 2 * p + h, col = col0 + 16 * t + j;
            float v = 0;
            if (kk < k && col < n)
              v = transposed ? src[(size_t)col * ld + (size_t)kk] : src[(size_t)kk * ld + (size_t)col];
            out[p * 32 + j * 2 + h] = bf16(v);
          }
}

static void spill(const float *acc, float *c, size_t ldc, int rows, int cols, bool add) {
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < cols; j++) {
      float *d = c + (size_t)r * ldc + j;
      *d = add ? *d + acc[r * 16 + j] : acc[r * 16 + j];
    }
}

void foray_mm_amx_panel(const uint16_t *a, int m, int mp, int kp, const uint16_t *panel, float *c, size_t ldc,
                        int cols, bool add) {
  struct tile_config cfg = {.palette = 1};
  for (int t = 0; t < 8; t++) cfg.colsb[t] = 64, cfg.rows[t] = 16;
  _tile_loadconfig(&cfg);
  const size_t stride = (size_t)kp * 2;
  for (int r0 = 0; r0 < mp; r0 += FORAY_AMX_ROWS) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const uint16_t *a0 = a + (size_t)r0 * (size_t)kp, *a1 = a0 + 16 * (size_t)kp, *b = panel;
    for (int k0 = 0; k0 < kp; k0 += FORAY_AMX_STEP, b += 1024) {
      _tile_loadd(4, a0 + k0, stride);
      _tile_loadd(6, b, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, b + 512, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, a1 + k0, stride);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    float *d = c + (size_t)r0 * ldc;
    if (r0 + FORAY_AMX_ROWS <= m && cols == FORAY_AMX_COLS && !add) {
      _tile_stored(0, d, ldc * 4);
      _tile_stored(1, d + 16, ldc * 4);
      _tile_stored(2, d + 16 * ldc, ldc * 4);
      _tile_stored(3, d + 16 * ldc + 16, ldc * 4);
      continue;
    }
    float acc[4][256];
    _tile_stored(0, acc[0], 64);
    _tile_stored(1, acc[1], 64);
    _tile_stored(2, acc[2], 64);
    _tile_stored(3, acc[3], 64);
    for (int q = 0; q < 4; q++) {
      int rr = r0 + 16 * (q >> 1), cc = 16 * (q & 1);
      int rows = m - rr < 16 ? m - rr : 16, nc = cols - cc < 16 ? cols - cc : 16;
      if (rows > 0 && nc > 0) spill(acc[q], c + (size_t)rr * ldc + cc, ldc, rows, nc, add);
    }
  }
  _tile_release();
}
