/* engine/engine.h - the target engine: one forward pass of a GGUF model over many sequences.
 *
 *   struct foray_engine *e;
 *   struct foray_engine_opts o = foray_engine_opts_default();
 *   if (foray_engine_open("model.gguf", &o, &e, &err) != FORAY_OK) die(err.msg);
 *   struct foray_engine_seq *s;
 *   if (foray_engine_seq_open(e, &s, &err) != FORAY_OK) die(err.msg);
 *   float *logits = malloc(sizeof(float) * (size_t)foray_engine_info(e)->n_vocab);
 *   struct foray_engine_item it = {.seq = s, .tokens = ids, .n = n_ids, .n_logits = 1, .logits = logits};
 *   if (foray_engine_pass(e, &it, 1, &err) != FORAY_OK) die(err.msg);   // prefill; logits of the last token
 *   ...                                                                 // choose: engine/sampler.h
 *   foray_engine_seq_truncate(s, foray_engine_seq_len(s) - rejected);    // roll a rejected tail back
 *   foray_engine_seq_close(s);
 *   foray_engine_close(e);
 *
 * The promise: the logits of a position are a function of the model and of the tokens of its sequence up to
 * and with that position. They are the same bits whatever else is in the pass, however the tokens were cut
 * into passes, whatever was rolled back before, for any number of threads and for every instruction set.
 * docs/results.md "Target engine" says how it is kept; kernels.h defines each operation.
 *
 * Thread rule: one thread at a time per engine (its sequences included). Two engines are independent. */
#ifndef FORAY_ENGINE_ENGINE_H
#define FORAY_ENGINE_ENGINE_H

#include "core/cpu.h"

#include <foray/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct foray_engine;     /* opaque; the loaded model: weights, threads, page pool */
struct foray_engine_seq; /* opaque; one sequence's KV pages; owned by the caller, must be closed before the
                            engine */
struct foray_gguf;

struct foray_engine_opts {
  int threads;           /* <= 0: one per processor */
  int isa;               /* enum foray_isa, or -1: the best that FORAY_ISA and the machine allow */
  int32_t n_ctx;         /* most tokens of one sequence; <= 0: the model's own context length */
  uint64_t kv_bytes_max; /* most bytes of KV pages, all sequences together; 0: no limit */
  bool (*progress)(void *arg, double done); /* may be NULL; done in 0..1 while loading; false cancels */
  void *progress_arg;
};
struct foray_engine_opts foray_engine_opts_default(void);

/* What callers need to know of the model; lives as long as the engine. */
struct foray_engine_info {
  char arch[32];   /* "llama", "qwen2", "gemma3" */
  int32_t n_vocab; /* logits per position */
  int32_t n_layer;
  int32_t n_embd;
  int32_t n_ctx;         /* most tokens of one sequence in this engine */
  int32_t page_tokens;   /* tokens of one KV page */
  uint64_t page_bytes;   /* bytes of one KV page (all layers, keys and values, F16) */
  uint64_t weight_bytes; /* bytes of repacked weights in memory */
  uint64_t file_bytes;   /* bytes of the GGUF file */
  enum foray_isa isa;    /* kernels in use */
  int threads;
};

/* Opens the GGUF file at `path` and repacks its weights. On success *out owns everything; the file is closed.
 * FORAY_E_UNSUPPORTED names an architecture or tensor type that has no kernels, FORAY_E_FORMAT a bad file,
 * FORAY_E_CANCELLED follows a progress callback's false. On failure *out is NULL. opts may be NULL. */
enum foray_status foray_engine_open(const char *path, const struct foray_engine_opts *opts,
                                    struct foray_engine **out, struct foray_err *err) FORAY_NODISCARD;
void foray_engine_close(struct foray_engine *e); /* NULL is allowed; all sequences must be closed */
const struct foray_engine_info *foray_engine_info(const struct foray_engine *e);

/* ---- sequences ---- */

/* A new, empty sequence. Costs no KV until tokens are passed. */
enum foray_status foray_engine_seq_open(struct foray_engine *e, struct foray_engine_seq **out,
                                        struct foray_err *err) FORAY_NODISCARD;
void foray_engine_seq_close(struct foray_engine_seq *s); /* gives its pages back; NULL is allowed */
/* Tokens whose keys and values are stored. The next token of a pass gets this position. */
int32_t foray_engine_seq_len(const struct foray_engine_seq *s);
/* Forgets every position >= len; a len beyond the present length is FORAY_E_ARG. Frees whole pages.
 * The next pass goes on from there exactly as if the forgotten tokens had never been. */
enum foray_status foray_engine_seq_truncate(struct foray_engine_seq *s, int32_t len);

/* dst (empty) gets the first `len` positions of src (at most its length; whole pages only, so *len is rounded
 * down) without computing or copying them: the pages are shared until one of the two writes to them, which
 * takes a copy. Costs no KV. */
enum foray_status foray_engine_seq_share(struct foray_engine_seq *dst, const struct foray_engine_seq *src,
                                         int32_t *len, struct foray_err *err) FORAY_NODISCARD;

/* Pages in use (a shared one counts once) times page_bytes, all sequences together. */
uint64_t foray_engine_kv_bytes(const struct foray_engine *e);

/* ---- the pass ---- */

struct foray_engine_item {
  struct foray_engine_seq *seq; /* borrowed; must not occur twice in one pass */
  const int32_t *tokens;        /* [n] ids in [0, n_vocab), borrowed */
  int32_t n;                    /* >= 1 */
  int32_t n_logits;             /* logits of the last n_logits of the n positions are wanted; 0..n */
  float *logits; /* out [n_logits][n_vocab], row i = position n - n_logits + i; NULL when n_logits is 0 */
};

/* Appends each item's tokens to its sequence and computes the wanted logits, all in one pass over the weights
 * (long inputs are cut into slices inside). All or nothing: when it fails no sequence has changed.
 * FORAY_E_ARG: a bad id or a sequence twice; FORAY_E_LIMIT: longer than n_ctx, or kv_bytes_max would be
 * exceeded (nothing is computed then; free or truncate sequences and try again). */
enum foray_status foray_engine_pass(struct foray_engine *e, const struct foray_engine_item *items,
                                    int n_items, struct foray_err *err) FORAY_NODISCARD;

/* Appends tokens[0..n) to s and gives logp[i] = ln P(tokens[i] | everything before it) for i >= from; entries
 * below `from` are left alone. logp[0] is always 0: what came before this call has left no logits behind. The
 * distribution is the plain softmax of the logits, summed in double in a fixed order (same bits everywhere).
 */
enum foray_status foray_engine_score(struct foray_engine *e, struct foray_engine_seq *s,
                                     const int32_t *tokens, int32_t n, int32_t from, double *logp,
                                     struct foray_err *err) FORAY_NODISCARD;

/* Natural-log probability of `id` under softmax(logits[0..n)), in double, in the fixed order that score uses.
 */
double foray_engine_logprob(const float *logits, int32_t n, int32_t id);

#endif
