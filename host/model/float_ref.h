/* model/float_ref.h - the float reference: one plain forward pass of every architecture, that all other
 * engines are tested against. Weights stay as they are in the file and are dequantised row by row when they
 * are used (so memory is that of the KV and one batch); activations are float32; norms and softmax sums are
 * in double.
 *
 *   struct foray_float_ref *r;
 *   foray_float_ref_open(model, pool, 512, &r, &err);
 *   foray_float_ref_feed(r, ids, n, logits, n, &err);     // logits[i * n_vocab + v], position i
 *   foray_float_ref_truncate(r, 10);                      // forget positions 10 and later
 *
 * Results do not depend on the pool's thread count, nor on how a text is cut into feeds (each output element
 * is summed in one fixed order), but may differ in the last bits between instruction sets.
 * Thread rule: one thread at a time per foray_float_ref. */
#ifndef FORAY_MODEL_FLOAT_REF_H
#define FORAY_MODEL_FLOAT_REF_H

#include "core/pool.h"
#include "model/model.h"

struct foray_float_ref; /* opaque */

/* Hooks for calibration, training data and "what if" measurements. Called in the feeding thread; x may be
 * modified in place (to quantise what flows there). */
struct foray_float_tap {
  void *user;
  /* Input of matrix (role, layer), n positions x width, position-major, before the product. q, k and v share
   * one input, reported once as ATTN_Q; gate and up as FFN_GATE; the head as OUTPUT. */
  void (*input)(void *user, enum foray_role role, uint32_t layer, float *x, size_t n, size_t width);
  /* Residual stream after layer `layer` (n_layer values; layer = -1: after the embedding), n x n_embd, of
   * positions pos .. pos+n-1. */
  void (*residual)(void *user, int layer, float *x, size_t n, size_t pos);
};

/* model and pool (may be NULL: one thread) are borrowed until close; n_ctx positions of KV memory are
 * reserved. FORAY_E_NOMEM, FORAY_E_ARG. */
enum foray_status foray_float_ref_open(const struct foray_model *m, struct foray_pool *pool, size_t n_ctx,
                                       struct foray_float_ref **out, struct foray_err *err) FORAY_NODISCARD;
void foray_float_ref_close(struct foray_float_ref *r); /* NULL is allowed */

/* The float copy of a tensor, rows x columns (made at the first call and kept: 4 bytes a weight); NULL where
 * the model has none, or no memory is left. TOKEN_EMBD and OUTPUT of a tied model are one array. Valid until
 * set_tensor of the same one, or close. */
const float *foray_float_ref_tensor(struct foray_float_ref *r, enum foray_role role, uint32_t layer);
/* Replaces a tensor by `owned` (from malloc, same shape; taken over, freed at close). Setting OUTPUT of a
 * tied model unties it: the embedding stays. FORAY_E_ARG for a role that this model lacks (owned is freed).
 */
enum foray_status foray_float_ref_set_tensor(struct foray_float_ref *r, enum foray_role role, uint32_t layer,
                                             float *owned) FORAY_NODISCARD;
/* Adds taps (copied); NULL removes them. */
void foray_float_ref_set_tap(struct foray_float_ref *r, const struct foray_float_tap *tap);

/* Appends n tokens at the present length. logits (may be NULL) receives n_logits x n_vocab values for the
 * last n_logits (<= n) of them. FORAY_E_LIMIT when n_ctx would be exceeded, FORAY_E_ARG for an id outside the
 * vocabulary; nothing is appended then. */
enum foray_status foray_float_ref_feed(struct foray_float_ref *r, const int32_t *ids, size_t n, float *logits,
                                       size_t n_logits, struct foray_err *err) FORAY_NODISCARD;
size_t foray_float_ref_len(const struct foray_float_ref *r);
/* Forgets positions len and later; no effect when len is not smaller than the present length. */
void foray_float_ref_truncate(struct foray_float_ref *r, size_t len);

#endif
