/* The exit stream with AVX-512, sixteen rows at a time. Sums go to the bins one by one. The noise function is
 * computed only for rows that may win: Philox gives all sixteen words, and a word too small for what the
 * row's logit lacks to the best key so far is dropped by a table (cpu_exit.h). */
#include "dev/cpu_exit.h"

#if defined(__x86_64__)
#include "core/noise.h"
#include "gen/foray_tables.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

enum { PHILOX_DOMAIN = 0x464F5241 }; /* as in core/noise.c; checked against it by the tests */

struct wide {
  __m512i lo, hi;
};

INLINE struct wide mul_wide(__m512i a, uint32_t b) {
  const __m512i m = _mm512_set1_epi64(b);
  const __m512i even = _mm512_mul_epu32(a, m), odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), m);
  return (struct wide){_mm512_mask_mov_epi32(even, 0xaaaa, _mm512_slli_epi64(odd, 32)),
                       _mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xaaaa, odd)};
}

/* The noise words of sixteen ids: word id mod 4 of the block id div 4. */
INLINE __m512i noise_words(uint64_t seed, uint32_t position, __m512i id) {
  __m512i c0 = _mm512_srli_epi32(id, 2), c1 = _mm512_set1_epi32((int)position);
  __m512i c2 = _mm512_set1_epi32(PHILOX_DOMAIN), c3 = _mm512_setzero_si512();
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    const struct wide p0 = mul_wide(c0, 0xD2511F53u), p1 = mul_wide(c2, 0xCD9E8D57u);
    c0 = _mm512_xor_si512(_mm512_xor_si512(p1.hi, c1), _mm512_set1_epi32((int)k0));
    c2 = _mm512_xor_si512(_mm512_xor_si512(p0.hi, c3), _mm512_set1_epi32((int)k1));
    c1 = p1.lo;
    c3 = p0.lo;
  }
  const __m512i which = _mm512_and_si512(id, _mm512_set1_epi32(3));
  __m512i w = _mm512_mask_mov_epi32(c0, _mm512_cmpeq_epi32_mask(which, _mm512_set1_epi32(1)), c1);
  w = _mm512_mask_mov_epi32(w, _mm512_cmpeq_epi32_mask(which, _mm512_set1_epi32(2)), c2);
  return _mm512_mask_mov_epi32(w, _mm512_cmpeq_epi32_mask(which, _mm512_set1_epi32(3)), c3);
}

/* R(v * m, s) of sixteen int32, as even and odd int64 lanes; 1 <= s. */
INLINE void scaled(__m512i v, int64_t m, int s, __m512i *even, __m512i *odd) {
  const __m512i f = _mm512_set1_epi64(m), one = _mm512_set1_epi64(1);
  const __m512i e = _mm512_srai_epi64(_mm512_mullo_epi64(_mm512_srai_epi64(_mm512_slli_epi64(v, 32), 32), f),
                                      (unsigned)(s - 1));
  const __m512i o = _mm512_srai_epi64(_mm512_mullo_epi64(_mm512_srai_epi64(v, 32), f), (unsigned)(s - 1));
  *even = _mm512_add_epi64(_mm512_srai_epi64(e, 1), _mm512_and_si512(e, one));
  *odd = _mm512_add_epi64(_mm512_srai_epi64(o, 1), _mm512_and_si512(o, one));
}

INLINE __m512i join(__m512i even, __m512i odd) {
  return _mm512_mask_mov_epi32(even, 0xaaaa, _mm512_slli_epi64(odd, 32));
}

static void sums(__m512i logit, uint32_t n, struct foray_exit_unit *u) {
  __m512i ze, zo;
  scaled(logit, 1549082005, 30, &ze, &zo);
  const __m512i low = _mm512_setzero_si512(), high = _mm512_set1_epi64(511), offset = _mm512_set1_epi64(256);
  const __m512i be =
      _mm512_min_epi64(_mm512_max_epi64(_mm512_add_epi64(_mm512_srai_epi64(ze, 16), offset), low), high);
  const __m512i bo =
      _mm512_min_epi64(_mm512_max_epi64(_mm512_add_epi64(_mm512_srai_epi64(zo, 16), offset), low), high);
  const __m512i f = _mm512_and_si512(join(ze, zo), _mm512_set1_epi32(0xffff));
  const __m512i i = _mm512_srli_epi32(f, 8), r = _mm512_and_si512(f, _mm512_set1_epi32(255));
  const __m512i a = _mm512_i32gather_epi32(i, (const int *)foray_tab_exp2, 4);
  const __m512i b = _mm512_i32gather_epi32(i, (const int *)foray_tab_exp2 + 1, 4);
  __m512i t = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_sub_epi32(b, a), r), _mm512_set1_epi32(128));
  t = _mm512_add_epi32(a, _mm512_srli_epi32(t, 8));
  const __m512i te = _mm512_srli_epi64(_mm512_mul_epu32(t, f), 16);
  const __m512i to =
      _mm512_srli_epi64(_mm512_mul_epu32(_mm512_srli_epi64(t, 32), _mm512_srli_epi64(f, 32)), 16);
  uint32_t bin[16], z[16];
  uint64_t fz[16]; /* evens, then odds */
  _mm512_storeu_si512(bin, join(be, bo));
  _mm512_storeu_si512(z, t);
  _mm512_storeu_si512(fz, te);
  _mm512_storeu_si512(fz + 8, to);
  for (uint32_t k = 0; k < n; k++) {
    u->bin_z[bin[k]] += z[k];
    u->bin_fz[bin[k]] += fz[(k & 1) * 8 + k / 2];
  }
}

static void top(struct foray_exit_unit *u, int32_t logit, uint32_t id) {
  int k = FORAY_ABI_TOPK;
  while (k > 0 && (logit > u->top_logit[k - 1] || (logit == u->top_logit[k - 1] && id < u->top_id[k - 1]))) {
    if (k < FORAY_ABI_TOPK) u->top_logit[k] = u->top_logit[k - 1], u->top_id[k] = u->top_id[k - 1];
    k--;
  }
  if (k < FORAY_ABI_TOPK) u->top_logit[k] = logit, u->top_id[k] = id;
}

INLINE void consider(struct foray_exit_unit *u, int64_t key, uint32_t id, int32_t logit) {
  if (key > u->best_key || (key == u->best_key && id < u->best_id))
    u->best_key = key, u->best_id = id, u->best_logit = logit;
}

/* Which of sixteen rows may reach best_key; even and odd base keys are given. */
INLINE __mmask16 may_win(__m512i even, __m512i odd, int64_t best_key, __m512i word, const uint32_t *bound) {
  const __m512i best = _mm512_set1_epi64(best_key);
  const __m512i least = _mm512_set1_epi64(FORAY_GUMBEL_Q16_MIN),
                most = _mm512_set1_epi64(FORAY_GUMBEL_Q16_MAX + 1);
  const __m512i ne = _mm512_min_epi64(_mm512_max_epi64(_mm512_sub_epi64(best, even), least), most);
  const __m512i no = _mm512_min_epi64(_mm512_max_epi64(_mm512_sub_epi64(best, odd), least), most);
  const __m512i need = join(ne, no); /* MIN .. MAX + 1 */
  const __mmask16 can = _mm512_cmple_epi32_mask(need, _mm512_set1_epi32(FORAY_GUMBEL_Q16_MAX));
  const __m512i i = _mm512_srli_epi32(_mm512_sub_epi32(need, _mm512_set1_epi32(FORAY_GUMBEL_Q16_MIN)),
                                      FORAY_CPU_NOISE_STEP);
  const __m512i w = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), can, i, (const int *)bound, 4);
  return _mm512_mask_cmpge_epu32_mask(can, word, w);
}

void foray_cpu_exit_avx512(const int32_t *logits, const uint32_t *ids, uint32_t first, uint32_t n,
                           const struct foray_sampling *s, struct foray_exit_unit *u) {
  const uint32_t *bound = s->on ? foray_cpu_noise_bounds() : NULL;
  const __m512i step = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (uint32_t r = 0; r < n; r += 16) {
    const uint32_t m = n - r < 16 ? n - r : 16;
    const __mmask16 live = (__mmask16)((1u << m) - 1);
    const __m512i logit = _mm512_maskz_loadu_epi32(live, logits + first + r);
    const __m512i id = ids ? _mm512_maskz_loadu_epi32(live, ids + first + r)
                           : _mm512_add_epi32(step, _mm512_set1_epi32((int)(first + r)));
    int32_t l[16];
    uint32_t d[16];
    _mm512_storeu_si512(l, logit);
    _mm512_storeu_si512(d, id);
    sums(logit, m, u);
    unsigned hit =
        _mm512_mask_cmpge_epi32_mask(live, logit, _mm512_set1_epi32(u->top_logit[FORAY_ABI_TOPK - 1]));
    for (; hit; hit &= hit - 1) top(u, l[__builtin_ctz(hit)], d[__builtin_ctz(hit)]);
    if (!s->on) {
      const int64_t best = u->best_key < INT32_MIN   ? INT32_MIN
                           : u->best_key > INT32_MAX ? INT32_MAX
                                                     : u->best_key;
      hit = _mm512_mask_cmpge_epi32_mask(live, logit, _mm512_set1_epi32((int32_t)best));
      for (; hit; hit &= hit - 1)
        consider(u, l[__builtin_ctz(hit)], d[__builtin_ctz(hit)], l[__builtin_ctz(hit)]);
      continue;
    }
    __m512i even, odd;
    scaled(logit, s->inv_temp, 16, &even, &odd);
    const __m512i word = noise_words(s->seed, s->position, id);
    hit = live & (u->best_key == INT64_MIN ? 0xffffu : may_win(even, odd, u->best_key, word, bound));
    if (!hit) continue;
    int64_t key[16];
    uint32_t w[16];
    _mm512_storeu_si512(key, even);
    _mm512_storeu_si512(key + 8, odd);
    _mm512_storeu_si512(w, word);
    for (; hit; hit &= hit - 1) {
      const int k = __builtin_ctz(hit);
      consider(u, key[(k & 1) * 8 + k / 2] + foray_gumbel_from_word_q16(w[k]), d[k], l[k]);
    }
  }
  u->rows += n;
}
#else
typedef int foray_cpu_exit_avx512_unused;
#endif
