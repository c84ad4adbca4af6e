/* model/pack_codes.h - a matrix as integer codes: choosing them, and the way to and from the image's bytes.
 * Internal to the packer, used by tests.
 *
 *   foray_codes_open(FORAY_IMAGE_Q4A, rows, cols, &c)
 *   foray_codes_scale(c, r, row, margin) for every row, then foray_codes_exp(c)       row mantissas
 *   foray_codes_fit_row(c, r, row, weight)                                            codes
 *   foray_codes_write(c, bias, bytes) / foray_codes_read(img, t, &c)
 *
 * Thread rule: rows are independent after foray_codes_exp, so different rows may be fitted by different
 * threads. */
#ifndef FORAY_MODEL_PACK_CODES_H
#define FORAY_MODEL_PACK_CODES_H

#include "model/image.h"

struct foray_codes {
  enum foray_image_type type; /* Q4A or Q8S */
  uint32_t rows, cols, groups;
  int32_t exp;
  float *span;    /* rows: largest |step| that a group of the row asks for, per unit of sc = 255 */
  uint16_t *mant; /* rows */
  uint8_t *sc;    /* rows x groups */
  uint8_t *zp;    /* rows x groups; Q8S: NULL */
  uint8_t *q;     /* rows x cols: 0..15, or int8 */
};

enum foray_status foray_codes_open(enum foray_image_type type, uint32_t rows, uint32_t cols,
                                   struct foray_codes **out, struct foray_err *err) FORAY_NODISCARD;
void foray_codes_close(struct foray_codes *c); /* NULL is allowed */

/* Notes the scale that row r needs. margin >= 1: room for weights that calibration will move. */
void foray_codes_scale(struct foray_codes *c, uint32_t r, const float *row, float margin);
/* Chooses exponent and row mantissas from all spans. */
void foray_codes_exp(struct foray_codes *c);
/* Value of one unit: weight = unit * sc * (16 q - zp), or unit * sc * q. */
double foray_codes_unit(const struct foray_codes *c, uint32_t r);

/* Codes of one group that minimise sum weight[i] (w'[i] - w[i])^2 over a search of scales; weight NULL: all
 * 1. Sets sc and zp only; q follows from foray_codes_round. */
void foray_codes_fit_group(enum foray_image_type type, double unit, const float *w, const float *weight,
                           uint8_t *sc, uint8_t *zp);
/* All codes of row r. Returns the sum of squared errors (unweighted). */
double foray_codes_fit_row(struct foray_codes *c, uint32_t r, const float *row, const float *weight);

/* The float of a code, as foray_image_row gives it. */
static inline float foray_codes_value(enum foray_image_type type, double unit, uint8_t sc, uint8_t zp,
                                      uint8_t q) {
  int v = type == FORAY_IMAGE_Q4A ? 16 * (int)q - (int)zp : (int)(int8_t)q;
  return (float)(unit * (double)sc * v);
}
void foray_codes_row(const struct foray_codes *c, uint32_t r, float *dst);

/* Bytes of the matrix in an image (foray_image_layout_of), into zeroed memory of that size. bias: rows
 * mantissas, or NULL. */
void foray_codes_write(const struct foray_codes *c, const int32_t *bias, uint8_t *dst);
/* The inverse of write: codes of a matrix in an image. */
enum foray_status foray_codes_read(const struct foray_image *img, const struct foray_image_tensor *t,
                                   struct foray_codes **out, struct foray_err *err) FORAY_NODISCARD;

/* Mantissas and exponent of a float vector: the largest magnitude takes 30 bits. */
void foray_codes_v32(const float *v, uint32_t n, int32_t *mant, int32_t *exp);

#endif
