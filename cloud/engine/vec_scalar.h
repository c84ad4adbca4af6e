/* engine/vec_scalar.h - 16 virtual lanes as plain arrays: the definition that the SIMD headers are tested
 * against. */
#ifndef FORAY_ENGINE_VEC_SCALAR_H
#define FORAY_ENGINE_VEC_SCALAR_H

#include "engine/f16.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
  float f[16];
} vf;
typedef struct {
  int32_t i[16];
} vi;
typedef struct {
  uint8_t b[64];
} vb;

/* Sanitizers instrument every element; inlined a thousand times over that takes minutes to compile. */
#if defined(__SANITIZE_ADDRESS__)
#define V_FN static __attribute__((noinline, unused))
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define V_FN static __attribute__((noinline, unused))
#endif
#endif
#ifndef V_FN
#define V_FN static inline
#endif
#define V_EACH for (int l = 0; l < 16; l++)

V_FN vf vf_load(const float *p) {
  vf r;
  memcpy(r.f, p, sizeof r.f);
  return r;
}
V_FN void vf_store(float *p, vf a) { memcpy(p, a.f, sizeof a.f); }
V_FN vf vf_set1(float x) {
  vf r;
  V_EACH r.f[l] = x;
  return r;
}
V_FN vf vf_add(vf a, vf b) {
  V_EACH a.f[l] = a.f[l] + b.f[l];
  return a;
}
V_FN vf vf_sub(vf a, vf b) {
  V_EACH a.f[l] = a.f[l] - b.f[l];
  return a;
}
V_FN vf vf_mul(vf a, vf b) {
  V_EACH a.f[l] = a.f[l] * b.f[l];
  return a;
}
V_FN vf vf_div(vf a, vf b) {
  V_EACH a.f[l] = a.f[l] / b.f[l];
  return a;
}
V_FN vf vf_fma(vf a, vf b, vf c) {
  V_EACH c.f[l] = fmaf(a.f[l], b.f[l], c.f[l]);
  return c;
}
/* a > b ? a : b, lane by lane (so b where a is NaN). */
V_FN vf vf_max(vf a, vf b) {
  V_EACH a.f[l] = a.f[l] > b.f[l] ? a.f[l] : b.f[l];
  return a;
}
/* a < b ? a : b */
V_FN vf vf_min(vf a, vf b) {
  V_EACH a.f[l] = a.f[l] < b.f[l] ? a.f[l] : b.f[l];
  return a;
}
/* The largest lane (numbers only: the order cannot matter). */
V_FN float vf_hmax(vf a) {
  float m = a.f[0];
  V_EACH m = a.f[l] > m ? a.f[l] : m;
  return m;
}
V_FN vf vf_abs(vf a) {
  V_EACH a.f[l] = fabsf(a.f[l]);
  return a;
}
/* x < limit ? 0 : a */
V_FN vf vf_zero_below(vf a, vf x, float limit) {
  V_EACH a.f[l] = x.f[l] < limit ? 0.0f : a.f[l];
  return a;
}
/* Bits of a plus (low 9 bits of the bits of n) << 23: scales by a power of two that n carries in its
 * mantissa. */
V_FN vf vf_scale2(vf a, vf n) {
  V_EACH {
    uint32_t x, y;
    memcpy(&x, &a.f[l], 4);
    memcpy(&y, &n.f[l], 4);
    x += y << 23;
    memcpy(&a.f[l], &x, 4);
  }
  return a;
}
V_FN vf vf_from_f16(const uint16_t *p) {
  vf r;
  V_EACH r.f[l] = f16_to_f32(p[l]);
  return r;
}
V_FN void vf_to_f16(uint16_t *p, vf a) { V_EACH p[l] = f16_from_f32(a.f[l]); }
V_FN vf vf_from_bf16(const uint16_t *p) {
  vf r;
  V_EACH r.f[l] = bf16_to_f32(p[l]);
  return r;
}
V_FN vf vf_from_u8(const uint8_t *p) {
  vf r;
  V_EACH r.f[l] = (float)p[l];
  return r;
}
V_FN vf vf_from_i8(const int8_t *p) {
  vf r;
  V_EACH r.f[l] = (float)p[l];
  return r;
}
V_FN vi vi_set1(int32_t x) {
  vi r;
  V_EACH r.i[l] = x;
  return r;
}
V_FN vf vi_to_f(vi a) {
  vf r;
  V_EACH r.f[l] = (float)a.i[l];
  return r;
}
/* Low bytes of the bits of a, as 16 int8; and their sum. */
V_FN int32_t vf_low_bytes(int8_t *p, vf a) {
  int32_t sum = 0;
  V_EACH {
    uint32_t x;
    memcpy(&x, &a.f[l], 4);
    p[l] = (int8_t)(x & 255);
    sum += p[l];
  }
  return sum;
}

V_FN vb vb_load(const uint8_t *p) {
  vb r;
  memcpy(r.b, p, 64);
  return r;
}
V_FN vb vb_and1(vb a, uint8_t m) {
  for (int l = 0; l < 64; l++) a.b[l] = (uint8_t)(a.b[l] & m);
  return a;
}
/* (a << n) & m and (a >> n) & m; bits that a wider shift would bring in from a neighbour are not in m. */
#define vb_shl_and(a, n, m) vb_shl_and_((a), (n), (m))
#define vb_shr_and(a, n, m) vb_shr_and_((a), (n), (m))
V_FN vb vb_shl_and_(vb a, int n, uint8_t m) {
  for (int l = 0; l < 64; l++) a.b[l] = (uint8_t)((a.b[l] << n) & m);
  return a;
}
V_FN vb vb_shr_and_(vb a, int n, uint8_t m) {
  for (int l = 0; l < 64; l++) a.b[l] = (uint8_t)((a.b[l] >> n) & m);
  return a;
}
V_FN vb vb_or(vb a, vb b) {
  for (int l = 0; l < 64; l++) a.b[l] = a.b[l] | b.b[l];
  return a;
}
/* a | ((h << n) & m), a | ((h >> n) & m) */
#define vb_or_shl(a, h, n, m) vb_or((a), vb_shl_and((h), (n), (m)))
#define vb_or_shr(a, h, n, m) vb_or((a), vb_shr_and((h), (n), (m)))
/* acc[lane] += sum of w[4 lane + j] (unsigned) * x[j]. */
V_FN vi vi_dot(vi acc, vb w, const int8_t *x) {
  V_EACH acc.i[l] +=
      w.b[4 * l] * x[0] + w.b[4 * l + 1] * x[1] + w.b[4 * l + 2] * x[2] + w.b[4 * l + 3] * x[3];
  return acc;
}
/* The same for 8-bit weights stored plus 128; the caller starts acc at VEC_OFF8 * (-isum). */
#define VEC_HIGH16        0
#define vi_add_16th(a, b) ((void)(b), (a))
#define VEC_OFF8          128
#define vi_dot8(a, w, x)  vi_dot(a, w, x)
#define vec_prefetch(p)   ((void)(p))

#endif
