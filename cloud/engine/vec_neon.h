/* engine/vec_neon.h - 16 virtual lanes in four q registers: v[i] holds lanes 4i..4i+3. Plain ARMv8.0, so that
 * it runs on every 64-bit board (Cortex-A53 of Zynq UltraScale+ included); with the dot-product extension
 * (-march= armv8.2-a+dotprod) one instruction takes the place of four. */
#ifndef FORAY_ENGINE_VEC_NEON_H
#define FORAY_ENGINE_VEC_NEON_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

typedef struct {
  float32x4_t v[4];
} vf;
typedef struct {
  int32x4_t v[4];
} vi;
typedef struct {
  uint8x16_t v[4];
} vb;

#define V_FN   static inline __attribute__((always_inline))
#define V_EACH for (int r = 0; r < 4; r++)

V_FN vf vf_load(const float *p) {
  return (vf){{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
}
V_FN void vf_store(float *p, vf a) { V_EACH vst1q_f32(p + 4 * r, a.v[r]); }
V_FN vf vf_set1(float x) {
  const float32x4_t s = vdupq_n_f32(x);
  return (vf){{s, s, s, s}};
}
V_FN vf vf_add(vf a, vf b) {
  V_EACH a.v[r] = vaddq_f32(a.v[r], b.v[r]);
  return a;
}
V_FN vf vf_sub(vf a, vf b) {
  V_EACH a.v[r] = vsubq_f32(a.v[r], b.v[r]);
  return a;
}
V_FN vf vf_mul(vf a, vf b) {
  V_EACH a.v[r] = vmulq_f32(a.v[r], b.v[r]);
  return a;
}
V_FN vf vf_div(vf a, vf b) {
  V_EACH a.v[r] = vdivq_f32(a.v[r], b.v[r]);
  return a;
}
V_FN vf vf_fma(vf a, vf b, vf c) {
  V_EACH c.v[r] = vfmaq_f32(c.v[r], a.v[r], b.v[r]);
  return c;
}
/* a > b ? a : b, as the definition says; FMAX would give NaN where one is. */
V_FN vf vf_max(vf a, vf b) {
  V_EACH a.v[r] = vbslq_f32(vcgtq_f32(a.v[r], b.v[r]), a.v[r], b.v[r]);
  return a;
}
V_FN vf vf_min(vf a, vf b) {
  V_EACH a.v[r] = vbslq_f32(vcltq_f32(a.v[r], b.v[r]), a.v[r], b.v[r]);
  return a;
}
V_FN float vf_hmax(vf a) {
  return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3])));
}
V_FN vf vf_abs(vf a) {
  V_EACH a.v[r] = vabsq_f32(a.v[r]);
  return a;
}
V_FN vf vf_zero_below(vf a, vf x, float limit) {
  const float32x4_t t = vdupq_n_f32(limit);
  V_EACH a.v[r] = vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a.v[r]), vcltq_f32(x.v[r], t)));
  return a;
}
V_FN vf vf_scale2(vf a, vf n) {
  V_EACH a.v[r] = vreinterpretq_f32_u32(
      vaddq_u32(vreinterpretq_u32_f32(a.v[r]), vshlq_n_u32(vreinterpretq_u32_f32(n.v[r]), 23)));
  return a;
}
V_FN vf vf_from_f16(const uint16_t *p) {
  vf a;
  V_EACH a.v[r] = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * r)));
  return a;
}
V_FN void vf_to_f16(uint16_t *p, vf a) {
  V_EACH vst1_u16(p + 4 * r, vreinterpret_u16_f16(vcvt_f16_f32(a.v[r])));
}
V_FN vf vf_from_bf16(const uint16_t *p) {
  vf a;
  V_EACH a.v[r] = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * r), 16));
  return a;
}
V_FN vf vf_from_u8(const uint8_t *p) {
  const uint8x16_t x = vld1q_u8(p);
  const uint16x8_t lo = vmovl_u8(vget_low_u8(x)), hi = vmovl_u8(vget_high_u8(x));
  return (vf){{vcvtq_f32_u32(vmovl_u16(vget_low_u16(lo))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(lo))),
               vcvtq_f32_u32(vmovl_u16(vget_low_u16(hi))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(hi)))}};
}
V_FN vf vf_from_i8(const int8_t *p) {
  const int8x16_t x = vld1q_s8(p);
  const int16x8_t lo = vmovl_s8(vget_low_s8(x)), hi = vmovl_s8(vget_high_s8(x));
  return (vf){{vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(lo))),
               vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(hi)))}};
}
V_FN vi vi_set1(int32_t x) {
  const int32x4_t s = vdupq_n_s32(x);
  return (vi){{s, s, s, s}};
}
V_FN vf vi_to_f(vi a) {
  vf b;
  V_EACH b.v[r] = vcvtq_f32_s32(a.v[r]);
  return b;
}
V_FN int32_t vf_low_bytes(int8_t *p, vf a) {
  const int16x8_t lo =
      vcombine_s16(vmovn_s32(vreinterpretq_s32_f32(a.v[0])), vmovn_s32(vreinterpretq_s32_f32(a.v[1])));
  const int16x8_t hi =
      vcombine_s16(vmovn_s32(vreinterpretq_s32_f32(a.v[2])), vmovn_s32(vreinterpretq_s32_f32(a.v[3])));
  const int8x16_t b = vcombine_s8(vmovn_s16(lo), vmovn_s16(hi));
  vst1q_s8(p, b);
  return vaddlvq_s8(b);
}

V_FN vb vb_load(const uint8_t *p) {
  return (vb){{vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)}};
}
V_FN vb vb_and1(vb a, uint8_t m) {
  const uint8x16_t k = vdupq_n_u8(m);
  V_EACH a.v[r] = vandq_u8(a.v[r], k);
  return a;
}
/* Bits that a wider shift would bring in from a neighbour are not in m, and byte shifts bring none in. The
 * amount of a shift by a variable is negative for a shift right. */
V_FN vb vb_shift_and(vb a, int n, uint8_t m) {
  const uint8x16_t k = vdupq_n_u8(m);
  const int8x16_t s = vdupq_n_s8((int8_t)n);
  V_EACH a.v[r] = vandq_u8(vshlq_u8(a.v[r], s), k);
  return a;
}
#define vb_shl_and(x, n, m) vb_shift_and((x), (n), (m))
#define vb_shr_and(x, n, m) vb_shift_and((x), -(n), (m))
V_FN vb vb_or(vb a, vb b) {
  V_EACH a.v[r] = vorrq_u8(a.v[r], b.v[r]);
  return a;
}
/* a | ((h << n) & m), a | ((h >> n) & m) */
#define vb_or_shl(a, h, n, m) vb_or((a), vb_shl_and((h), (n), (m)))
#define vb_or_shr(a, h, n, m) vb_or((a), vb_shr_and((h), (n), (m)))

/* acc + the sums of four neighbouring products: a pair stays below 2^15 (2 * 128 * 127). */
V_FN int32x4_t dot4(int32x4_t acc, int8x16_t w, int8x16_t x) {
#if defined(__ARM_FEATURE_DOTPROD)
  return vdotq_s32(acc, w, x);
#else
  const int16x8_t lo = vmull_s8(vget_low_s8(w), vget_low_s8(x)), hi = vmull_high_s8(w, x);
  return vpadalq_s16(acc, vpaddq_s16(lo, hi));
#endif
}
V_FN int8x16_t four_bytes(const int8_t *x) {
  int32_t x4;
  memcpy(&x4, x, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(x4));
}
/* Weights of up to 6 bits are the same signed or unsigned. */
V_FN vi vi_dot(vi acc, vb w, const int8_t *x) {
  const int8x16_t xv = four_bytes(x);
  V_EACH acc.v[r] = dot4(acc.v[r], vreinterpretq_s8_u8(w.v[r]), xv);
  return acc;
}
/* 8-bit weights are stored plus 128: turning the top bit takes it away, no offset is left. */
#define VEC_HIGH16        0
#define vi_add_16th(a, b) ((void)(b), (a))
#define VEC_OFF8          0
V_FN vi vi_dot8(vi acc, vb w, const int8_t *x) {
  const int8x16_t xv = four_bytes(x);
  const uint8x16_t top = vdupq_n_u8(0x80);
  V_EACH acc.v[r] = dot4(acc.v[r], vreinterpretq_s8_u8(veorq_u8(w.v[r], top)), xv);
  return acc;
}
#define vec_prefetch(p) __builtin_prefetch(p)

#endif
