/* Integer codes of a matrix: the search for them, and their bytes. */
#include "model/pack_codes.h"

#include "core/checked.h"
#include "core/err.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GROUP = FORAY_IMAGE_GROUP, LANES = 4, VECS = GROUP / LANES };
typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));

void foray_codes_close(struct foray_codes *c) {
  if (!c) return;
  free(c->span);
  free(c->mant);
  free(c->sc);
  free(c->zp);
  free(c->q);
  free(c);
}

enum foray_status foray_codes_open(enum foray_image_type type, uint32_t rows, uint32_t cols,
                                   struct foray_codes **out, struct foray_err *err) {
  struct foray_image_layout l;
  size_t ng, nq;
  if ((type != FORAY_IMAGE_Q4A && type != FORAY_IMAGE_Q8S) ||
      !foray_image_layout_of(type, rows, cols, false, &l) || !foray_mul_size(rows, l.groups, &ng) ||
      !foray_mul_size(rows, cols, &nq)) {
    return foray_err_set(err, FORAY_E_ARG, "a matrix of %u x %u cannot be coded in groups of 32", rows, cols);
  }
  struct foray_codes *c = calloc(1, sizeof *c);
  if (!c) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  c->type = type;
  c->rows = rows;
  c->cols = cols;
  c->groups = l.groups;
  c->span = calloc(rows, sizeof *c->span);
  c->mant = calloc(rows, sizeof *c->mant);
  c->sc = calloc(ng, 1);
  c->zp = type == FORAY_IMAGE_Q4A ? calloc(ng, 1) : NULL;
  c->q = calloc(nq, 1);
  if (!c->span || !c->mant || !c->sc || !c->q || (type == FORAY_IMAGE_Q4A && !c->zp)) {
    foray_codes_close(c);
    return foray_err_set(err, FORAY_E_NOMEM, "out of memory for a matrix of %u x %u", rows, cols);
  }
  *out = c;
  return FORAY_OK;
}

static void load(const float *w, vec v[VECS]) { memcpy(v, w, GROUP * sizeof *w); }
static float hsum(const vec v[VECS]) {
  vec s = ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
  return (s[0] + s[1]) + (s[2] + s[3]);
}
static vec pick(ivec mask, vec a, vec b) { return (vec)((mask & (ivec)a) | (~mask & (ivec)b)); }
static vec vmax(vec a, vec b) { return pick((ivec)(a > b), a, b); }
static vec vmin(vec a, vec b) { return pick((ivec)(a < b), a, b); }
static vec splat(float f) { return (vec){f, f, f, f}; }

/* Range of a group, with 0 in it: a zero point of 0..255/16 steps reaches no range that excludes 0. */
static void range(const float *w, float *lo, float *hi) {
  vec v[VECS];
  load(w, v);
  vec mn = v[0], mx = v[0];
  for (int i = 1; i < VECS; i++) {
    mn = vmin(mn, v[i]);
    mx = vmax(mx, v[i]);
  }
  float a = 0, b = 0;
  for (int i = 0; i < LANES; i++) {
    a = mn[i] < a ? mn[i] : a;
    b = mx[i] > b ? mx[i] : b;
  }
  *lo = a;
  *hi = b;
}

void foray_codes_scale(struct foray_codes *c, uint32_t r, const float *row, float margin) {
  float m = 0;
  for (uint32_t g = 0; g < c->groups; g++) {
    float lo, hi;
    range(row + (size_t)g * GROUP, &lo, &hi);
    float s = c->type == FORAY_IMAGE_Q4A ? (hi - lo) / (15.0f * 16.0f) : (hi > -lo ? hi : -lo) / 127.0f;
    m = s > m ? s : m;
  }
  c->span[r] = m * margin;
}

void foray_codes_exp(struct foray_codes *c) {
  float top = 0;
  for (uint32_t r = 0; r < c->rows; r++) top = c->span[r] > top ? c->span[r] : top;
  c->exp = 0;
  memset(c->mant, 0, c->rows * sizeof *c->mant);
  if (!(top > 0)) return;
  /* unit of the largest row, top / 255, becomes a mantissa in [32768, 65535] */
  int e;
  frexp((double)top / 255.0, &e);
  c->exp = e - 16 < -190 ? -190 : e - 16;
  for (uint32_t r = 0; r < c->rows; r++) {
    double m = ceil(ldexp((double)c->span[r] / 255.0, -c->exp) - 1e-6);
    c->mant[r] = (uint16_t)(m > 65535 ? 65535 : m < 1 && c->span[r] > 0 ? 1 : m);
  }
}

double foray_codes_unit(const struct foray_codes *c, uint32_t r) { return ldexp((double)c->mant[r], c->exp); }

/* Error of coding v with step s and lowest value m; codes in q. */
static float try_q4a(const vec v[VECS], const vec *wt, float s, float m, vec q[VECS]) {
  vec e[VECS];
  float inv = 1.0f / s;
  for (int i = 0; i < VECS; i++) {
    vec x = (v[i] - m) * inv;
    x = vmin(vmax(x, splat(0)), splat(15.0f)) + 0.5f;
    q[i] = __builtin_convertvector(__builtin_convertvector(x, ivec), vec);
    vec d = (q[i] * s + m) - v[i];
    e[i] = wt ? d * d * wt[i] : d * d;
  }
  return hsum(e);
}

static void fit_q4a(double unit, const float *w, const float *weight, uint8_t *sc, uint8_t *zp) {
  static const float shrink[] = {1.0f, 0.92f, 0.84f};
  vec v[VECS], wt[VECS], q[VECS];
  load(w, v);
  if (weight) load(weight, wt);
  const vec *pw = weight ? wt : NULL;
  float lo, hi, best = INFINITY, step = (float)(16.0 * unit);
  float total = weight ? hsum(wt) : (float)GROUP;
  range(w, &lo, &hi);
  *sc = *zp = 0;
  if (!(hi > lo) || !(step > 0) || !(total > 0)) return;
  for (size_t k = 0; k < sizeof shrink / sizeof *shrink; k++) {
    float s = (hi - lo) / 15.0f * shrink[k], m = (lo + hi) * 0.5f - 7.5f * s;
    for (int it = 0; it < 3; it++) {
      float fs = s / step + 0.5f;
      int is = fs >= 255 ? 255 : fs <= 1 ? 1 : (int)fs;
      float ss = step * (float)is, fz = -m / ss * 16.0f + 0.5f;
      int iz = fz >= 255 ? 255 : fz <= 0 ? 0 : (int)fz;
      float e = try_q4a(v, pw, ss, -ss * (float)iz / 16.0f, q);
      if (!(e >= best) || !*sc) {
        best = e;
        *sc = (uint8_t)is;
        *zp = (uint8_t)iz;
      }
      /* least squares for these codes */
      vec a[VECS], b[VECS];
      for (int i = 0; i < VECS; i++) {
        a[i] = pw ? q[i] * pw[i] : q[i];
        b[i] = pw ? v[i] * pw[i] : v[i];
      }
      float qm = hsum(a) / total, vm = hsum(b) / total;
      for (int i = 0; i < VECS; i++) {
        vec d = q[i] - qm;
        a[i] = pw ? d * d * pw[i] : d * d;
        b[i] = pw ? d * (v[i] - vm) * pw[i] : d * (v[i] - vm);
      }
      float var = hsum(a), cov = hsum(b);
      if (!(var > 0) || !(cov > 0)) break;
      s = cov / var;
      m = vm - s * qm;
    }
  }
}

static float try_q8s(const vec v[VECS], float s) {
  vec e[VECS];
  float inv = 1.0f / s;
  for (int i = 0; i < VECS; i++) {
    vec x = vmin(vmax(v[i] * inv, splat(-127.0f)), splat(127.0f)) + 128.5f;
    vec d = (__builtin_convertvector(__builtin_convertvector(x, ivec), vec) - 128.0f) * s - v[i];
    e[i] = d * d;
  }
  return hsum(e);
}

/* The least scale without clipping, or one less where that is better. Larger ones are taken only when they
 * meet every weight: so unpacked weights, whose largest code need not be 127, find their own scale again. */
static void fit_q8s(double unit, const float *w, uint8_t *sc) {
  float lo, hi, best = INFINITY;
  vec v[VECS];
  load(w, v);
  range(w, &lo, &hi);
  float top = hi > -lo ? hi : -lo;
  *sc = 0;
  if (!(top > 0) || !(unit > 0)) return;
  double least = ceil((double)top / 127.0 / unit - 1e-4); /* 1e-4: nothing is lost to float rounding */
  vec sq[VECS];
  for (int i = 0; i < VECS; i++) sq[i] = v[i] * v[i];
  float exact = 1e-10f * hsum(sq);
  for (int k = -1; k <= 3; k++) {
    double s = least + k < 1 ? 1 : least + k > 255 ? 255 : least + k;
    float e = try_q8s(v, (float)(unit * s));
    if (k <= 0 ? !(e >= best) || !*sc : e < best && e <= exact) {
      best = e;
      *sc = (uint8_t)s;
    }
  }
}

void foray_codes_fit_group(enum foray_image_type type, double unit, const float *w, const float *weight,
                           uint8_t *sc, uint8_t *zp) {
  if (type == FORAY_IMAGE_Q4A) {
    fit_q4a(unit, w, weight, sc, zp);
  } else {
    *zp = 0;
    fit_q8s(unit, w, sc);
  }
}

double foray_codes_fit_row(struct foray_codes *c, uint32_t r, const float *row, const float *weight) {
  double unit = foray_codes_unit(c, r), err = 0;
  for (uint32_t g = 0; g < c->groups; g++) {
    const float *w = row + (size_t)g * GROUP;
    uint8_t *q = c->q + (size_t)r * c->cols + (size_t)g * GROUP, sc, zp;
    vec v[VECS], e[VECS];
    load(w, v);
    foray_codes_fit_group(c->type, unit, w, weight ? weight + (size_t)g * GROUP : NULL, &sc, &zp);
    c->sc[(size_t)r * c->groups + g] = sc;
    if (c->zp) c->zp[(size_t)r * c->groups + g] = zp;
    float s = (float)(unit * sc * (c->zp ? 16 : 1)), inv = s > 0 ? 1.0f / s : 0, z = (float)zp / 16.0f;
    for (int i = 0; i < VECS; i++) {
      vec x = v[i] * inv, d;
      ivec k;
      if (c->type == FORAY_IMAGE_Q4A) {
        x = vmin(vmax(x + z, splat(0)), splat(15.0f)) + 0.5f;
        k = __builtin_convertvector(x, ivec);
        d = (__builtin_convertvector(k, vec) - z) * s - v[i];
      } else {
        x = vmin(vmax(x, splat(-127.0f)), splat(127.0f)) + 128.5f;
        k = __builtin_convertvector(x, ivec) - 128;
        d = __builtin_convertvector(k, vec) * s - v[i];
      }
      e[i] = d * d;
      for (int j = 0; j < LANES; j++) q[i * LANES + j] = (uint8_t)(s > 0 ? k[j] : 0);
    }
    err += (double)hsum(e);
  }
  return err;
}

void foray_codes_row(const struct foray_codes *c, uint32_t r, float *dst) {
  double unit = foray_codes_unit(c, r);
  for (uint32_t g = 0; g < c->groups; g++) {
    size_t at = (size_t)r * c->groups + g;
    for (uint32_t i = g * GROUP; i < (g + 1) * GROUP; i++) {
      dst[i] =
          foray_codes_value(c->type, unit, c->sc[at], c->zp ? c->zp[at] : 0, c->q[(size_t)r * c->cols + i]);
    }
  }
}

void foray_codes_write(const struct foray_codes *c, const int32_t *bias, uint8_t *dst) {
  struct foray_image_layout l;
  if (!foray_image_layout_of(c->type, c->rows, c->cols, bias != NULL, &l)) return; /* open checked it */
  memcpy(dst + l.scale_at, c->mant, (size_t)c->rows * 2);
  if (bias) memcpy(dst + l.bias_at, bias, (size_t)c->rows * 4);
  for (uint32_t r = 0; r < c->rows; r++) {
    uint8_t *block = dst + l.data_at + (size_t)(r / FORAY_IMAGE_ROWS) * l.block_bytes;
    uint32_t lane = r % FORAY_IMAGE_ROWS;
    for (uint32_t g = 0; g < c->groups; g++) {
      size_t at = (size_t)r * c->groups + g;
      const uint8_t *q = c->q + (size_t)r * c->cols + (size_t)g * GROUP;
      uint8_t *codes = block + foray_image_codes_at(c->type, g);
      uint8_t *beats = block + foray_image_beats_at(c->type, g) + lane * 4;
      codes[lane] = c->sc[at];
      if (c->type == FORAY_IMAGE_Q4A) {
        codes[16 + lane] = c->zp[at];
        for (uint32_t j = 0; j < 4; j++) {
          for (uint32_t k = 0; k < 4; k++) {
            beats[j * 64 + k] = (uint8_t)((q[8 * j + k] & 15) | q[8 * j + 4 + k] << 4);
          }
        }
      } else {
        for (uint32_t j = 0; j < 8; j++) memcpy(beats + j * 64, q + 4 * j, 4);
      }
    }
  }
}

enum foray_status foray_codes_read(const struct foray_image *img, const struct foray_image_tensor *t,
                                   struct foray_codes **out, struct foray_err *err) {
  struct foray_codes *c;
  enum foray_status st = foray_codes_open(t->type, t->rows, t->cols, &c, err);
  if (st != FORAY_OK) return st;
  const uint8_t *base = foray_image_data(img);
  c->exp = t->exp;
  memcpy(c->mant, base + t->scale_off, (size_t)t->rows * 2);
  for (uint32_t r = 0; r < t->rows; r++) {
    const uint8_t *block = base + t->data_off + (size_t)(r / FORAY_IMAGE_ROWS) * t->block_bytes;
    uint32_t lane = r % FORAY_IMAGE_ROWS;
    for (uint32_t g = 0; g < c->groups; g++) {
      size_t at = (size_t)r * c->groups + g;
      uint8_t *q = c->q + (size_t)r * c->cols + (size_t)g * GROUP;
      const uint8_t *codes = block + foray_image_codes_at(c->type, g);
      const uint8_t *beats = block + foray_image_beats_at(c->type, g) + lane * 4;
      c->sc[at] = codes[lane];
      if (c->type == FORAY_IMAGE_Q4A) {
        c->zp[at] = codes[16 + lane];
        for (uint32_t j = 0; j < 4; j++) {
          for (uint32_t k = 0; k < 4; k++) {
            q[8 * j + k] = beats[j * 64 + k] & 15;
            q[8 * j + 4 + k] = beats[j * 64 + k] >> 4;
          }
        }
      } else {
        for (uint32_t j = 0; j < 8; j++) memcpy(q + 4 * j, beats + j * 64, 4);
      }
    }
  }
  *out = c;
  return FORAY_OK;
}

void foray_codes_v32(const float *v, uint32_t n, int32_t *mant, int32_t *exp) {
  double top = 0;
  for (uint32_t i = 0; i < n; i++) top = fabs((double)v[i]) > top ? fabs((double)v[i]) : top;
  *exp = 0;
  if (top > 0) {
    int e;
    frexp(top, &e);
    *exp = e - 30 < -190 ? -190 : e - 30;
  }
  for (uint32_t i = 0; i < n; i++) mant[i] = (int32_t)llrint(ldexp((double)v[i], -*exp));
}
