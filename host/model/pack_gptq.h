/* model/pack_gptq.h - second-order rounding of a matrix (GPTQ: Frantar et al., arXiv 2210.17323). Internal to
 * the packer. */
#ifndef FORAY_MODEL_PACK_GPTQ_H
#define FORAY_MODEL_PACK_GPTQ_H

#include "model/pack_codes.h"
#include "model/pack_gemm.h"

/* h: k x k, upper triangle = X^T X of the inputs (destroyed). Returns in u (k x k, may not overlap h) the
 * upper triangular U with (H + damping)^-1 = U^T U. The damping is a hundredth of the mean diagonal, more
 * when that is not enough. FORAY_E_NOMEM, or FORAY_E_FORMAT when h is no Gram matrix of finite numbers. */
enum foray_status foray_gptq_factor(struct foray_pack_gemm *g, float *h, float *u, size_t k,
                                    struct foray_err *err) FORAY_NODISCARD;

/* Codes of w (rows x k, destroyed), column by column, each error spread over the columns still to come so
 * that the product with inputs like those of H changes least. c is opened with the type, rows and cols of w,
 * and gets its row scales here. */
enum foray_status foray_gptq_round(struct foray_pack_gemm *g, struct foray_pool *pool, float *w,
                                   const float *u, struct foray_codes *c,
                                   struct foray_err *err) FORAY_NODISCARD;

#endif
