/* The draft program's ops for OpenCL, bit for bit those of docs/numerics.md. In front of this text stand the function
 * tables and the integer functions of host/core (opencl.mk), so that there is one text of them.
 *
 * LANES 16: a work-item does the 16 rows of a row block in vector types (processors); LANES 1: a row each (GPUs).
 * LOCAL: work-items of a group of the vector kernels. y: int64 work space, a column after the other. Vectors are
 * named by their byte offset in the scratchpad. */

enum { A16_MAX = 1 << 14, Y32_MAX = 1 << 30, EXP_MAX = 8191 };

#if LANES == 16
typedef int16 V;
typedef long16 VL;
#define LOAD32(p, lane) vload16(0, (__global const int *)(p))
#define LOAD8(p, lane)  convert_int16(vload16(0, (__global const uchar *)(p)))
#define LOAD16(p, lane) convert_long16(vload16(0, (__global const ushort *)(p)))
#define WIDE(v)         convert_long16(v)
#define STORE64(v, p)   vstore16(v, 0, p)
#define ORALL(v)        or16(as_ulong16(v))
ulong or16(ulong16 v) {
  ulong8 a = v.lo | v.hi;
  ulong4 b = a.lo | a.hi;
  ulong2 c = b.lo | b.hi;
  return c.x | c.y;
}
#else
typedef int V;
typedef long VL;
#define LOAD32(p, lane) (((__global const int *)(p))[lane])
#define LOAD8(p, lane)  ((int)((__global const uchar *)(p))[lane])
#define LOAD16(p, lane) ((long)((__global const ushort *)(p))[lane])
#define WIDE(v)         ((long)(v))
#define STORE64(v, p)   (*(p) = (v))
#define ORALL(v)        ((ulong)(v))
#endif

int clamp_exp(long e) { return (int)clamp(e, -(long)EXP_MAX, (long)EXP_MAX); }
int clamp_y(int m) { return clamp(m, -Y32_MAX, (int)Y32_MAX); }
short clamp_a(short m) { return clamp(m, (short)-A16_MAX, (short)A16_MAX); }
ulong magnitude(long v) { return v < 0 ? 0 - (ulong)v : (ulong)v; }
int bits_of(ulong any) { return any ? 64 - (int)clz(any) : 0; }

__global int *y32_at(__global uchar *s, ulong at, uint n, uint c) {
  return (__global int *)(s + at + (64 + (4 * (ulong)n + 63) / 64 * 64) * c);
}
ulong a16_bytes(uint n) { return 64 + (2 * (ulong)n + 63) / 64 * 64 + (n / 32 + 63) / 64 * 64; }
__global uchar *a16_at(__global uchar *s, ulong at, uint n, uint c) { return s + at + a16_bytes(n) * c; }
ulong a16_shifts(uint n) { return 64 + (2 * (ulong)n + 63) / 64 * 64; }

/* Over the work-items of a group; every item gets the result. */
ulong group_or(ulong v, __local ulong *red) {
#if LOCAL > 1
  uint l = get_local_id(0);
  barrier(CLK_LOCAL_MEM_FENCE);
  red[l] = v;
  for (uint k = LOCAL / 2; k > 0; k /= 2) {
    barrier(CLK_LOCAL_MEM_FENCE);
    if (l < k) red[l] |= red[l + k];
  }
  barrier(CLK_LOCAL_MEM_FENCE);
  v = red[0];
#endif
  return v;
}
ulong group_sum(ulong v, __local ulong *red) {
#if LOCAL > 1
  uint l = get_local_id(0);
  barrier(CLK_LOCAL_MEM_FENCE);
  red[l] = v;
  for (uint k = LOCAL / 2; k > 0; k /= 2) {
    barrier(CLK_LOCAL_MEM_FENCE);
    if (l < k) red[l] += red[l + k];
  }
  barrier(CLK_LOCAL_MEM_FENCE);
  v = red[0];
#endif
  return v;
}
int group_max(int v, __local ulong *red) {
#if LOCAL > 1
  uint l = get_local_id(0);
  barrier(CLK_LOCAL_MEM_FENCE);
  red[l] = (ulong)(long)v;
  for (uint k = LOCAL / 2; k > 0; k /= 2) {
    barrier(CLK_LOCAL_MEM_FENCE);
    if (l < k) red[l] = (ulong)max((long)red[l], (long)red[l + k]);
  }
  barrier(CLK_LOCAL_MEM_FENCE);
  v = (int)(long)red[0];
#endif
  return v;
}

/* ---- rounding of whole vectors ---- */

void norm30(__global const long *v, uint n, long exp, ulong any, __global int *dst) {
  uint l = get_local_id(0);
  int bits = bits_of(any), s = bits - 30;
  if (bits == 0)
    for (uint i = l; i < n; i += LOCAL) dst[16 + i] = 0;
  else if (s > 0)
    for (uint i = l; i < n; i += LOCAL) dst[16 + i] = (int)((v[i] >> s) + ((v[i] >> (s - 1)) & 1));
  else
    for (uint i = l; i < n; i += LOCAL) dst[16 + i] = (int)(v[i] << -s);
  if (l == 0) dst[0] = bits ? clamp_exp(exp + s) : -EXP_MAX;
}

void to_a16(__global const long *v, uint n, __global const int *exp, int step, int exp_all, __global uchar *dst,
            __local ulong *red) {
  uint l = get_local_id(0), groups = n / 32;
  int top = INT_MIN;
  for (uint g = l; g < groups; g += LOCAL) {
    ulong any = 0;
    for (uint i = 0; i < 32; i++) any |= magnitude(v[g * 32 + i]);
    int e = step ? exp[g] : exp_all;
    if (any) top = max(top, bits_of(any) + e);
  }
  top = group_max(top, red);
  __global short *m = (__global short *)(dst + 64);
  __global uchar *shift = dst + a16_shifts(n);
  int base = top - 14 - 15;
  for (uint g = l; g < groups; g += LOCAL) {
    ulong any = 0;
    for (uint i = 0; i < 32; i++) any |= magnitude(v[g * 32 + i]);
    int e = step ? exp[g] : exp_all, sh = 0, s = 63;
    if (any && top != INT_MIN) {
      sh = max(0, 15 - (top - (bits_of(any) + e)));
      s = base + sh - e;
    }
    shift[g] = (uchar)sh;
    if (s > 62)
      for (uint i = 0; i < 32; i++) m[g * 32 + i] = 0;
    else if (s > 0)
      for (uint i = 0; i < 32; i++)
        m[g * 32 + i] = (short)((v[g * 32 + i] >> s) + ((v[g * 32 + i] >> (s - 1)) & 1));
    else
      for (uint i = 0; i < 32; i++) m[g * 32 + i] = (short)(v[g * 32 + i] << -s);
  }
  if (l == 0) *(__global int *)dst = top == INT_MIN ? -EXP_MAX : clamp_exp(base);
}

/* ---- vector ops: a group of LOCAL items per column ---- */

__kernel void embed(__global const uchar *heap, __global uchar *scr, ulong at, ulong dst, uint cols, uint block_bytes,
                    ulong data, uint row, int exp, uint column) {
  __local ulong red[LOCAL];
  uint l = get_local_id(0), r = row % 16;
  __global const uchar *w = heap + at, *block = w + data + (ulong)(row / 16) * block_bytes;
  long mant = ((__global const ushort *)w)[row];
  __global int *d = y32_at(scr, dst, cols, column);
  ulong any = 0;
  for (uint c = l; c < cols; c += LOCAL) {
    __global const uchar *quad = block + (c / 128) * (64 + 4 * 512);
    long sc = quad[(c / 32 % 4) * 16 + r] * mant;
    any |= magnitude(sc * (char)quad[64 + (c / 32 % 4) * 512 + c % 32 / 4 * 64 + r * 4 + c % 4]);
  }
  int bits = bits_of(group_or(any, red));
  for (uint c = l; c < cols; c += LOCAL) {
    __global const uchar *quad = block + (c / 128) * (64 + 4 * 512);
    long sc = quad[(c / 32 % 4) * 16 + r] * mant;
    long v = sc * (char)quad[64 + (c / 32 % 4) * 512 + c % 32 / 4 * 64 + r * 4 + c % 4];
    d[16 + c] = bits ? (int)foray_rshift_round(v, bits - 30) : 0;
  }
  if (l == 0) d[0] = bits ? clamp_exp((long)exp + bits - 30) : -EXP_MAX;
}

__kernel void rmsnorm(__global const uchar *heap, __global uchar *scr, __global long *y, ulong src, ulong dst, uint n,
                      ulong gamma_at, int gamma_exp, int eps_exp, uint eps_mant, uint root_n, uint c0) {
  __local ulong red[LOCAL];
  uint l = get_local_id(0), col = get_group_id(0);
  __global const int *x = y32_at(scr, src, n, c0 + col);
  __global const int *gamma = (__global const int *)(heap + gamma_at);
  __global long *v = y + (ulong)col * n;
  int e = clamp_exp(x[0]);
  ulong any = 0;
  for (uint i = l; i < n; i += LOCAL) any |= (ulong)abs(clamp_y(x[16 + i]));
  int bits = bits_of(group_or(any, red)), sx = max(0, bits - 24);
  long sum = 0, halved = sx ? 1L << (sx - 1) : 0;
  for (uint i = l; i < n; i += LOCAL) {
    long q = (clamp_y(x[16 + i]) + halved) >> sx;
    sum += q * q;
  }
  sum = (long)group_sum((ulong)sum, red);
  long eps = foray_rshift_round((long)eps_mant * n, 2 * (e + sx) - eps_exp), cap = 1L << 61;
  sum += min(eps, cap);
  int k;
  uint r = foray_rsqrt((ulong)sum, &k);
  long f = (long)r * root_n;
  int fs = foray_bitlen64(f) - 31;
  f = foray_rshift_round(f, fs);
  for (uint i = l; i < n; i += LOCAL) {
    long p = clamp_y(x[16 + i]) * f;
    v[i] = ((p >> 31) + ((p >> 30) & 1)) * gamma[i];
  }
  barrier(CLK_GLOBAL_MEM_FENCE);
  to_a16(v, n, 0, 0, -sx + k - 31 - 16 + fs + 31 + gamma_exp, a16_at(scr, dst, n, c0 + col), red);
}

__kernel void quant(__global uchar *scr, __global long *y, ulong src, ulong dst, uint n, uint c0) {
  __local ulong red[LOCAL];
  uint l = get_local_id(0), col = get_group_id(0);
  __global const int *x = y32_at(scr, src, n, c0 + col);
  __global long *v = y + (ulong)col * n;
  int e = clamp_exp(x[0]);
  for (uint i = l; i < n; i += LOCAL) v[i] = clamp_y(x[16 + i]);
  barrier(CLK_GLOBAL_MEM_FENCE);
  to_a16(v, n, 0, 0, e, a16_at(scr, dst, n, c0 + col), red);
}

/* acc += src, both Y32 columns. */
void add_columns(__global int *a, __global const int *b, uint n, __global long *v, __local ulong *red) {
  uint l = get_local_id(0);
  int ea = clamp_exp(a[0]), eb = clamp_exp(b[0]), e = max(ea, eb);
  ulong any = 0;
  for (uint i = l; i < n; i += LOCAL) {
    v[i] = foray_rshift_round(clamp_y(a[16 + i]), e - ea) + foray_rshift_round(clamp_y(b[16 + i]), e - eb);
    any |= magnitude(v[i]);
  }
  any = group_or(any, red);
  barrier(CLK_GLOBAL_MEM_FENCE);
  norm30(v, n, e, any, a);
}

__kernel void add(__global uchar *scr, __global long *y, ulong acc, ulong src, uint n, uint c0) {
  __local ulong red[LOCAL];
  uint col = get_group_id(0);
  add_columns(y32_at(scr, acc, n, c0 + col), y32_at(scr, src, n, c0 + col), n, y + (ulong)col * n, red);
}

__kernel void silu_mul(__global uchar *scr, __global long *y, ulong gate, ulong up, ulong dst, uint n, uint c0) {
  __local ulong red[LOCAL];
  uint l = get_local_id(0), col = get_group_id(0);
  __global const int *g = y32_at(scr, gate, n, c0 + col), *u = y32_at(scr, up, n, c0 + col);
  __global long *v = y + (ulong)col * n;
  int eg = clamp_exp(g[0]), eu = clamp_exp(u[0]);
  for (uint i = l; i < n; i += LOCAL) {
    long x = clamp_y(g[16 + i]);
    long p = x * foray_sigmoid_q30(foray_rshift_round(x, -(eg + 16)));
    v[i] = ((p >> 30) + ((p >> 29) & 1)) * clamp_y(u[16 + i]);
  }
  barrier(CLK_GLOBAL_MEM_FENCE);
  to_a16(v, n, 0, 0, eg + eu, a16_at(scr, dst, n, c0 + col), red);
}

__kernel void rope(__global const uchar *heap, __global uchar *scr, ulong vec, uint head_dim, uint heads, int neox,
                   ulong freq_at, uint position, uint c0) {
  uint l = get_local_id(0), col = get_group_id(0), halved = head_dim / 2;
  __global const ulong *freq = (__global const ulong *)(heap + freq_at);
  __global int *v = y32_at(scr, vec, heads * head_dim, c0 + col);
  for (uint i = l; i < halved; i += LOCAL) {
    int s, c;
    foray_sincos_q30((uint)(((ulong)(position + col) * freq[i]) >> 32), &s, &c);
    for (uint h = 0; h < heads; h++) {
      __global int *x = v + 16 + h * head_dim + (neox ? i : 2 * i), *z = x + (neox ? halved : 1);
      long a = clamp_y(*x), b = clamp_y(*z), p = a * c - b * s, q = a * s + b * c;
      *x = (int)((p >> 31) + ((p >> 30) & 1));
      *z = (int)((q >> 31) + ((q >> 30) & 1));
    }
  }
  if (l == 0) {
    int e = clamp_exp(v[0]);
    v[0] = e == -EXP_MAX ? e : clamp_exp((long)e + 1);
  }
}

__kernel void kv_put(__global uchar *heap, __global uchar *scr, ulong k_at, ulong v_at, ulong base, uint head_dim,
                     uint heads, uint record, uint max_pos, uint position, uint c0) {
  uint l = get_local_id(0), col = get_group_id(0), groups = head_dim / 32, meta = record - 2 * head_dim;
  for (uint i = l; i < heads * 2 * groups; i += LOCAL) {
    uint h = i / (2 * groups), g = i % (2 * groups);
    __global uchar *rec = heap + base + ((ulong)h * max_pos + position + col) * record;
    __global const int *y = y32_at(scr, g < groups ? k_at : v_at, heads * head_dim, c0 + col);
    __global const int *x = y + 16 + h * head_dim + g % groups * 32;
    __global char *codes = (__global char *)rec + meta + g * 32;
    if (g == 0)
      for (uint b = 4 * groups; b < meta; b++) rec[b] = 0;
    ulong amax = 0;
    for (uint j = 0; j < 32; j++) amax = max(amax, (ulong)abs(clamp_y(x[j])));
    ushort scale = 0;
    long x48 = -1, inv = 0;
    int len = 11;
    if (amax) {
      ulong num = (amax << 32) / 127;
      len = foray_bitlen64((long)num);
      ulong s = (num + (1UL << (len - 11)) - 1) >> (len - 11);
      if (s == 2048) s = 1024, len++;
      x48 = (long)clamp_exp(y[0]) + len + 5;
      inv = (long)((1UL << 32) / s);
      scale = (ushort)(min(x48, 63L) << 10 | (long)(s - 1024));
    }
    if (x48 < 0) scale = 0;
    for (uint j = 0; j < 32; j++)
      codes[j] = x48 < 0 ? 0 : (char)clamp(foray_rshift_round(clamp_y(x[j]) * inv, len - 11), -127L, 127L);
    rec[2 * g] = (uchar)scale;
    rec[2 * g + 1] = (uchar)(scale >> 8);
  }
}

/* ---- attention: a group of LOCAL items per (column, head); q lies in dst as A16 ---- */

int sum16(int16 v) {
  int8 a = v.lo + v.hi;
  int4 b = a.lo + a.hi;
  int2 c = b.lo + b.hi;
  return c.x + c.y;
}

__kernel void attn(__global const uchar *heap, __global uchar *scr, __global long *y, __global int *exps, ulong dst,
                   uint head_dim, uint heads, uint kv_heads, ulong base, uint record, uint max_pos, uint scale,
                   int scale_exp, uint position, uint c0) {
  __local long acc[256];
  __local int t[32], w[8][32], ml_, mv[8], moved[8], whole[32];
  __local long sum, pw[32];
  uint l = get_local_id(0), col = get_group_id(0) / heads, h = get_group_id(0) % heads;
  uint groups = head_dim / 32, meta = record - 2 * head_dim, n_all = heads * head_dim;
  __global const uchar *q = a16_at(scr, dst, n_all, c0 + col);
  __global const short *qm = (__global const short *)(q + 64) + h * head_dim;
  __global const uchar *qs = q + a16_shifts(n_all) + h * groups;
  int q_exp = *(__global const int *)q;
  __global const uchar *recs = heap + base + (ulong)(h / (heads / kv_heads)) * max_pos * record;
  uint last = position + col;
  for (uint i = l; i < head_dim; i += LOCAL) acc[i] = 0;
  for (uint g = l; g < groups; g += LOCAL) mv[g] = -(1 << 24);
  if (l == 0) ml_ = -(1 << 24), sum = 0;
  barrier(CLK_LOCAL_MEM_FENCE);
  for (uint p = 0; p <= last; p += 32) {
    uint n = min(last - p + 1, 32u);
    __global const uchar *rec = recs + (ulong)p * record;
    for (uint j = l; j < n; j += LOCAL) {
      __global const uchar *r = rec + j * record;
      long total = 0;
      for (uint g = 0; g < groups; g++) {
        uint s = ((__global const ushort *)r)[g];
        __global const char *k = (__global const char *)r + meta + g * 32;
        int16 prod = convert_int16(vload16(0, k)) * convert_int16(vload16(0, qm + g * 32)) +
                     convert_int16(vload16(0, k + 16)) * convert_int16(vload16(0, qm + g * 32 + 16));
        int e = qs[g] + q_exp + (int)(s >> 10) - 48 + scale_exp + 16;
        long term = foray_rshift_round((long)sum16(prod) * (1024 + (s & 1023)) * scale, -e);
        total += clamp(term, -(1L << 27), 1L << 27);
      }
      t[j] = (int)total;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (l == 0) {
      int top = t[0];
      for (uint j = 1; j < n; j++) top = max(top, t[j]);
      int ml = max((top + 65535) >> 16, ml_);
      long s = foray_rshift_round(sum, ml - ml_);
      for (uint j = 0; j < n; j++) {
        long d = (long)ml * 65536 - t[j];
        whole[j] = (int)(d >> 16);
        pw[j] = foray_exp2_neg_q30((uint)(d & 0xffff));
        s += foray_rshift_round(pw[j], whole[j]);
      }
      ml_ = ml;
      sum = s;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    int ml = ml_;
    for (uint g = l; g < groups; g += LOCAL) {
      int top = mv[g];
      for (uint j = 0; j < n; j++)
        top = max(top, (int)(((__global const ushort *)(rec + j * record))[groups + g] >> 10) + ml - whole[j]);
      for (uint j = 0; j < n; j++) {
        uint s = ((__global const ushort *)(rec + j * record))[groups + g];
        int a = (int)(s >> 10) + ml - whole[j];
        w[g][j] = (int)foray_rshift_round(pw[j] * (1024 + (s & 1023)), 27 + top - a);
      }
      moved[g] = top - mv[g];
      mv[g] = top;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint c = l; c < head_dim / 16; c += LOCAL) {
      int16 s = 0;
      uint g = c / 2;
      __global const char *v = (__global const char *)rec + meta + head_dim + c * 16;
      for (uint j = 0; j < n; j++) s += w[g][j] * convert_int16(vload16(0, v + j * record));
      int m = moved[g];
      long16 a = vload16(c, acc), add = 256 * convert_long16(s);
      if (m > 62)
        a = add;
      else if (m > 0)
        a = (a >> m) + ((a >> (m - 1)) & 1L) + add;
      else
        a += add;
      vstore16(a, c, acc);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  long s = sum;
  int k = foray_bitlen64(s) - 32;
  ulong lambda = k >= 0 ? (ulong)s >> k : (ulong)s << -k;
  long inv = (long)((1UL << 63) / lambda);
  __global long *out = y + (ulong)col * n_all + h * head_dim;
  for (uint g = l; g < groups; g += LOCAL) {
    ulong any = 0;
    for (uint i = 0; i < 32; i++) any |= magnitude(acc[g * 32 + i]);
    int sa = max(0, bits_of(any) - 30);
    for (uint i = 0; i < 32; i++) out[g * 32 + i] = foray_rshift_round(acc[g * 32 + i], sa) * inv;
    exps[(col * heads + h) * groups + g] = sa - 63 - k + mv[g] - ml_ - 29;
  }
}

__kernel void attn_end(__global uchar *scr, __global const long *y, __global const int *exps, ulong dst, uint n,
                       uint c0) {
  __local ulong red[LOCAL];
  uint col = get_group_id(0);
  to_a16(y + (ulong)col * n, n, exps + col * (n / 32), 1, 0, a16_at(scr, dst, n, c0 + col), red);
}

/* ---- matrices ---- */

/* Columns made ready for the products: per group 32 clamped mantissas in pairs (of each four: 0 and 2, 1 and 3, which
 * are the halves of a 32-bit word of codes), then the sum and the shift. */
enum { XW = 18 /* ints a group: 16 of mantissas */ };

/* Of each 32-bit word: the sum of the products of its signed halves with those of `pair`. Compilers do not find the
 * instruction that x86 has for it without shuffling, so it is named where it exists. */
#if LANES == 16 && defined(__AVX512BW__)
typedef short v32hi __attribute__((vector_size(64)));
typedef int v16si __attribute__((vector_size(64)));
V madd(V v, int pair) {
  union { V v; v32hi h; } a, b;
  union { v16si s; V v; } r;
  a.v = v;
  b.v = (V)(pair);
  r.s = __builtin_ia32_pmaddwd512(a.h, b.h);
  return r.v;
}
#elif LANES == 16 && defined(__AVX2__)
typedef short v16hi __attribute__((vector_size(32)));
typedef int v8si __attribute__((vector_size(32)));
int8 madd8(int8 v, int pair) {
  union { int8 v; v16hi h; } a, b;
  union { v8si s; int8 v; } r;
  a.v = v;
  b.v = (int8)(pair);
  r.s = __builtin_ia32_pmaddwd256(a.h, b.h);
  return r.v;
}
V madd(V v, int pair) { return (V)(madd8(v.lo, pair), madd8(v.hi, pair)); }
#else
V madd(V v, int pair) { return ((v << 16) >> 16) * ((pair << 16) >> 16) + (v >> 16) * (pair >> 16); }
#endif

__kernel void prepare(__global uchar *scr, __global int *x, ulong src, uint n, uint c0, uint ncols) {
  uint i = get_global_id(0), groups = n / 32;
  if (i >= groups * ncols) return;
  uint col = i / groups, g = i % groups;
  __global const uchar *a = a16_at(scr, src, n, c0 + col);
  __global const short *m = (__global const short *)(a + 64) + g * 32;
  __global int *o = x + (ulong)i * XW;
  __global short *om = (__global short *)o;
  int sum = 0;
  for (uint j = 0; j < 32; j++) {
    short v = clamp_a(m[j]);
    om[(j & ~3u) | (j & 1) << 1 | (j >> 1 & 1)] = v;
    sum += v;
  }
  o[16] = sum;
  o[17] = a[a16_shifts(n) + g] & 15;
}

/* One core does not keep enough lines in flight by itself. */
#if LANES == 16 && defined(__clang__) && defined(__x86_64__)
#define AHEAD(p) __builtin_prefetch((const void *)((size_t)(p) + 2048))
#else
#define AHEAD(p) (void)0
#endif

#define COLUMNS(c) for (uint c = 0; c < NC; c++)

#define Q4A_GROUP(beats, xg)                                                                                 \
  for (uint j = 0; j < 4; j++) {                                                                             \
    AHEAD((beats) + 64 * j);                                                                                 \
    const V b = LOAD32((beats) + 64 * j, lane);                                                              \
    const V q0 = b & 0x000f000f, q1 = (b >> 8) & 0x000f000f, q2 = (b >> 4) & 0x000f000f,                     \
            q3 = (b >> 12) & 0x000f000f;                                                                     \
    COLUMNS(c) {                                                                                             \
      __global const int *m = (xg) + (ulong)c * groups * XW + 4 * j;                                         \
      d[c] += madd(q0, m[0]) + madd(q1, m[1]) + madd(q2, m[2]) + madd(q3, m[3]);                             \
    }                                                                                                        \
  }
/* Codes + 128, which are unsigned; d begins with -128 times the sum of the mantissas. */
#define Q8S_GROUP(beats, xg)                                                                                 \
  for (uint j = 0; j < 8; j++) {                                                                             \
    AHEAD((beats) + 64 * j);                                                                                 \
    const V b = LOAD32((beats) + 64 * j, lane) ^ (int)0x80808080;                                            \
    const V q0 = b & 0x00ff00ff, q1 = (b >> 8) & 0x00ff00ff;                                                 \
    COLUMNS(c) {                                                                                             \
      __global const int *m = (xg) + (ulong)c * groups * XW + 2 * j;                                         \
      d[c] += madd(q0, m[0]) + madd(q1, m[1]);                                                               \
    }                                                                                                        \
  }

/* acc[c] of one row block (or, with LANES 1, of its row `lane`). */
#define DEFINE_Q4A(name)                                                                                     \
  void name(__global const uchar *b, uint lane, uint groups, __global const int *x, VL *acc) {               \
    COLUMNS(c) acc[c] = 0;                                                                                   \
    for (uint g = 0; g < groups; g++) {                                                                      \
      __global const uchar *code = b + (g / 2) * 576 + (g % 2) * 32, *beats = b + (g / 2) * 576 + 64 + (g % 2) * 256; \
      __global const int *xg = x + (ulong)g * XW;                                                            \
      V d[NC];                                                                                               \
      COLUMNS(c) d[c] = 0;                                                                                   \
      Q4A_GROUP(beats, xg)                                                                                   \
      V sc = LOAD8(code, lane), zp = LOAD8(code + 16, lane);                                                 \
      COLUMNS(c) {                                                                                           \
        __global const int *o = xg + (ulong)c * groups * XW + 16;                                            \
        acc[c] += WIDE(16 * d[c] - zp * o[0]) * WIDE(sc << o[1]);                                            \
      }                                                                                                      \
    }                                                                                                        \
  }
#define DEFINE_Q8S(name)                                                                                     \
  void name(__global const uchar *b, uint lane, uint groups, __global const int *x, VL *acc) {               \
    COLUMNS(c) acc[c] = 0;                                                                                   \
    for (uint g = 0; g < groups; g++) {                                                                      \
      __global const uchar *quad = b + (g / 4) * 2112;                                                       \
      __global const int *xg = x + (ulong)g * XW;                                                            \
      V d[NC];                                                                                               \
      COLUMNS(c) d[c] = -128 * xg[(ulong)c * groups * XW + 16];                                                                                   \
      Q8S_GROUP(quad + 64 + (g % 4) * 512, xg)                                                               \
      V sc = LOAD8(quad + (g % 4) * 16, lane);                                                               \
      COLUMNS(c) acc[c] += WIDE(d[c]) * WIDE(sc << xg[(ulong)c * groups * XW + 17]);                         \
    }                                                                                                        \
  }

#define NC 1
DEFINE_Q4A(q4a_1)
DEFINE_Q8S(q8s_1)
#undef NC
#define NC 2
DEFINE_Q4A(q4a_2)
DEFINE_Q8S(q8s_2)
#undef NC
#define NC 4
DEFINE_Q4A(q4a_4)
DEFINE_Q8S(q8s_4)
#undef NC

void row_product(uint q8s, uint nc, __global const uchar *b, uint lane, uint groups, __global const int *x, VL *acc) {
  if (nc == 1) q8s ? q8s_1(b, lane, groups, x, acc) : q4a_1(b, lane, groups, x, acc);
  else if (nc == 2) q8s ? q8s_2(b, lane, groups, x, acc) : q4a_2(b, lane, groups, x, acc);
  else q8s ? q8s_4(b, lane, groups, x, acc) : q4a_4(b, lane, groups, x, acc);
}

/* Columns `first`, `first + 1`, ... are done 4, 2 or 1 at a time; a block's bytes stay in the cache meanwhile. */
#define CHUNK(left) ((left) >= 4 ? 4u : (left) >= 2 ? 2u : 1u)

/* R(acc, t) * M: y[column][row]; any: OR of magnitudes a work-item. */
__kernel void gemv(__global const uchar *heap, __global long *y, __global ulong *any, __global const int *x, ulong at,
                   ulong data, uint block_bytes, uint q8s, uint rows_pad, uint groups, uint ncols, int t) {
  uint item = get_global_id(0), lane = LANES == 16 ? 0 : item % 16, block = LANES == 16 ? item : item / 16;
  uint items = rows_pad / LANES;
  if (item >= items) return;
  VL acc[4], mant = LOAD16(heap + at + 32 * (ulong)block, lane);
  for (uint first = 0, nc; first < ncols; first += nc) {
    nc = CHUNK(ncols - first);
    row_product(q8s, nc, heap + at + data + (ulong)block * block_bytes, lane, groups, x + (ulong)first * groups * XW,
                acc);
    for (uint c = 0; c < nc; c++) {
      VL v = ((acc[c] >> t) + ((acc[c] >> (t - 1)) & 1L)) * mant;
      STORE64(v, y + (ulong)(first + c) * rows_pad + item * LANES);
      any[(first + c) * items + item] = ORALL((v ^ (v >> 63)) - (v >> 63)); /* |v| < 2^62 */
    }
  }
}

/* To Y32, and the bias on top. */
__kernel void gemv_end(__global const uchar *heap, __global uchar *scr, __global long *y, __global const ulong *any,
                       ulong dst, uint rows_pad, uint items, int exp, ulong src, uint cols,
                       ulong bias_at, int bias_exp, __global int *bias, uint c0) {
  __local ulong red[LOCAL];
  uint l = get_local_id(0), col = get_group_id(0);
  __global long *v = y + (ulong)col * rows_pad;
  __global int *d = y32_at(scr, dst, rows_pad, c0 + col);
  ulong all = 0;
  for (uint i = l; i < items; i += LOCAL) all |= any[col * items + i];
  all = group_or(all, red);
  int e = clamp_exp(*(__global const int *)a16_at(scr, src, cols, c0 + col));
  norm30(v, rows_pad, (long)e + exp, all, d); /* exp: of the matrix + t */
  if (bias_at) {
    __global const int *b = (__global const int *)(heap + bias_at);
    __global int *bv = bias + (ulong)col * (rows_pad + 16);
    ulong ab = 0;
    for (uint i = l; i < rows_pad; i += LOCAL) v[i] = b[i], ab |= magnitude(b[i]);
    ab = group_or(ab, red);
    barrier(CLK_GLOBAL_MEM_FENCE);
    norm30(v, rows_pad, bias_exp, ab, bv);
    barrier(CLK_GLOBAL_MEM_FENCE);
    add_columns(d, bv, rows_pad, v, red);
  }
}

__kernel void head(__global const uchar *heap, __global uchar *scr, __global int *logits, __global const int *x,
                   ulong at, ulong data, uint block_bytes, uint q8s, uint used, uint groups, uint ncols, int t, int exp,
                   ulong src, uint cols, uint c0, uint cap) {
  uint item = get_global_id(0), lane = LANES == 16 ? 0 : item % 16, block = LANES == 16 ? item : item / 16;
  if (block * 16 + lane >= used) return;
  VL acc[4], mant = LOAD16(heap + at + 32 * (ulong)block, lane);
  for (uint first = 0, nc; first < ncols; first += nc) {
    nc = CHUNK(ncols - first);
    row_product(q8s, nc, heap + at + data + (ulong)block * block_bytes, lane, groups, x + (ulong)first * groups * XW,
                acc);
    for (uint c = 0; c < nc; c++) {
      int s = -(clamp_exp(*(__global const int *)a16_at(scr, src, cols, c0 + first + c)) + exp + t + 16);
      VL v = ((acc[c] >> t) + ((acc[c] >> (t - 1)) & 1L)) * mant;
      __global int *out = logits + (ulong)(first + c) * cap + item * LANES;
#if LANES == 16
      long o[16];
      vstore16(v, 0, o);
      for (uint i = 0; i < 16; i++) out[i] = foray_sat32(foray_rshift_round(o[i], s));
#else
      *out = foray_sat32(foray_rshift_round(v, s));
#endif
    }
  }
}

/* ---- exit unit: UNITS groups, each with a unit of its own; then one group adds them up ---- */

typedef struct {
  uint rows;
  int top_logit[8];
  uint top_id[8];
  uint pad;
  ulong bin_z[512], bin_fz[512];
  long best_key;
  uint best_id;
  int best_logit;
} unit_t;

#define BEFORE(la, ia, lb, ib) ((la) > (lb) || ((la) == (lb) && (ia) < (ib)))

#define INSERT(LOGIT, ID, logit_, id_)                                                                       \
  if (BEFORE(logit_, id_, LOGIT[7], ID[7])) {                                                                \
    int at_ = 7;                                                                                             \
    for (; at_ > 0 && BEFORE(logit_, id_, LOGIT[at_ - 1], ID[at_ - 1]); at_--)                               \
      LOGIT[at_] = LOGIT[at_ - 1], ID[at_] = ID[at_ - 1];                                                    \
    LOGIT[at_] = logit_, ID[at_] = id_;                                                                      \
  }

enum { GUMBEL_MAX = 1499061 };

__kernel void exit_stream(__global const uchar *heap, __global const int *logits, __global unit_t *units, ulong from,
                          ulong ids_at, uint n, uint sample, uint inv_temp, ulong seed, uint position) {
  __local uint bin[2048]; /* z low, z high, fz low, fz high of each bin */
  __local int tl[LOCAL][8];
  __local uint ti[LOCAL][8];
  __local long bk[LOCAL];
  __local uint bi[LOCAL];
  __local int bl[LOCAL];
  uint l = get_local_id(0), unit = get_group_id(0), units_n = get_num_groups(0);
  uint each = (n + units_n - 1) / units_n, begin = min(n, unit * each), end = min(n, begin + each);
  __global const uint *ids = (__global const uint *)(heap + ids_at);
  for (uint i = l; i < 2048; i += LOCAL) bin[i] = 0;
  for (uint k = 0; k < 8; k++) tl[l][k] = -INT_MAX, ti[l][k] = UINT_MAX;
  long best = LONG_MIN;
  uint best_id = UINT_MAX;
  int best_logit = 0;
  barrier(CLK_LOCAL_MEM_FENCE);
  for (uint r = begin + l; r < end; r += LOCAL) {
    int logit = logits[from + r];
    uint id = ids_at ? ids[r] : r;
    INSERT(tl[l], ti[l], logit, id)
    long z = foray_rshift_round(logit * 1549082005L, 30);
    uint b = (uint)clamp((z >> 16) + 256, 0L, 511L), f = (uint)(z & 0xffff);
    uint p = (uint)foray_exp2_frac_q30(f), pf = (uint)(((ulong)p * f) >> 16);
#if LOCAL == 1
    ulong both = ((ulong)bin[b * 4 + 1] << 32 | bin[b * 4]) + p;
    bin[b * 4] = (uint)both, bin[b * 4 + 1] = (uint)(both >> 32);
    both = ((ulong)bin[b * 4 + 3] << 32 | bin[b * 4 + 2]) + pf;
    bin[b * 4 + 2] = (uint)both, bin[b * 4 + 3] = (uint)(both >> 32);
#else
    uint old = atomic_add(&bin[b * 4], p);
    if (old + p < old) atomic_add(&bin[b * 4 + 1], 1u);
    old = atomic_add(&bin[b * 4 + 2], pf);
    if (old + pf < old) atomic_add(&bin[b * 4 + 3], 1u);
#endif
    long key = logit;
    if (sample) {
      key = foray_rshift_round((long)logit * inv_temp, 16);
      /* Noise is bounded, so most candidates cannot win whatever theirs is. */
      key = best != LONG_MIN && key + GUMBEL_MAX < best ? LONG_MIN : key + foray_gumbel_q16(seed, position, id);
    }
    if (key > best || (key == best && id < best_id && key != LONG_MIN)) best = key, best_id = id, best_logit = logit;
  }
  bk[l] = best, bi[l] = best_id, bl[l] = best_logit;
  barrier(CLK_LOCAL_MEM_FENCE);
  __global unit_t *u = units + unit;
  for (uint i = l; i < 512; i += LOCAL) {
    u->bin_z[i] = (ulong)bin[i * 4 + 1] << 32 | bin[i * 4];
    u->bin_fz[i] = (ulong)bin[i * 4 + 3] << 32 | bin[i * 4 + 2];
  }
  if (l) return;
  for (uint i = 1; i < LOCAL; i++) {
    for (uint k = 0; k < 8; k++) INSERT(tl[0], ti[0], tl[i][k], ti[i][k])
    if (bk[i] > bk[0] || (bk[i] == bk[0] && bi[i] < bi[0])) bk[0] = bk[i], bi[0] = bi[i], bl[0] = bl[i];
  }
  u->rows = end - begin;
  u->pad = 0;
  for (uint k = 0; k < 8; k++) u->top_logit[k] = tl[0][k], u->top_id[k] = ti[0][k];
  u->best_key = bk[0], u->best_id = bi[0], u->best_logit = bl[0];
}

/* Adds units 1 .. n - 1 to unit 0. */
__kernel void exit_merge(__global unit_t *u, uint n) {
  uint l = get_local_id(0);
  for (uint i = l; i < 512; i += LOCAL)
    for (uint k = 1; k < n; k++) u[0].bin_z[i] += u[k].bin_z[i], u[0].bin_fz[i] += u[k].bin_fz[i];
  if (l) return;
  for (uint i = 1; i < n; i++) {
    for (uint k = 0; k < 8; k++) INSERT(u[0].top_logit, u[0].top_id, u[i].top_logit[k], u[i].top_id[k])
    if (u[i].best_key > u[0].best_key || (u[i].best_key == u[0].best_key && u[i].best_id < u[0].best_id))
      u[0].best_key = u[i].best_key, u[0].best_id = u[i].best_id, u[0].best_logit = u[i].best_logit;
    u[0].rows += u[i].rows;
  }
}
