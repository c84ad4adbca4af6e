/* rt/drafter.h - the edge model on a device: hand it the tokens so far, get drafts.
 *
 *   struct foray_drafter *d;
 *   if (foray_drafter_open(image, dev, &(struct foray_drafter_opts){.ctx = 4096}, &d, &err)) ...
 *   foray_drafter_sync(d, tokens, n, &err);              // the whole prefix each time; the common part is
 * reused struct foray_draft out[8]; struct foray_draft_params p = foray_draft_defaults(); p.max = 8; uint32_t
 * got; foray_drafter_draft(d, &p, out, &got, &err);          // out[i].id, out[i].exit, out[i].conf ...
 *
 * A draft is a function of (tokens, parameters) alone: not of what was drafted or rolled back before, not of
 * how the prefix was fed, and not of the device (every device gives the same bits).
 *
 * Exits are numbered 0 .. n_exits-1 from the shallowest; n_exits means full depth. Thread rule: one caller.
 */
#ifndef FORAY_RT_DRAFTER_H
#define FORAY_RT_DRAFTER_H

#include <foray/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rt/policy.h"

struct foray_image; /* model/image.h */
struct foray_dev;   /* dev/device.h */
struct foray_drafter;

enum {
  FORAY_DRAFT_MAX = 64,      /* tokens of one call */
  FORAY_DRAFT_EXITS_MAX = 8, /* early exits of one program */
  FORAY_DRAFT_CANDS = 8,     /* candidates kept for each token */
  FORAY_DRAFT_STOPS = 8,     /* ids that end a draft */
  FORAY_DRAFT_CHECK_MAX = 7, /* early tokens that may wait for full depth's look at them */
};

struct foray_drafter_opts {
  uint32_t ctx;     /* positions of KV (0: 4096, or what the model allows if less) */
  uint32_t columns; /* most columns of one weight pass (0: what the device offers) */
  bool no_exits;    /* lower without the image's exits: every token at full depth */
  bool full_head;   /* choose among all ids instead of the trimmed vocabulary list */
  bool logits;      /* make room for foray_drafter_logits */
};

struct foray_draft_params {
  uint32_t max;      /* tokens, 1..FORAY_DRAFT_MAX */
  float temperature; /* 0: argmax; else coupled Gumbel noise of `seed` */
  uint64_t seed;
  float exit_top[FORAY_DRAFT_EXITS_MAX]; /* leave at exit e when its largest probability is >= this; > 1:
                                            never */
  float stop_top, stop_margin;           /* end the block after a token whose value is below; 0: never */
  float stop_entropy;                    /* ... or whose entropy (nats) is above; <= 0: never */
  uint32_t check; /* full depth looks again at early tokens of this block and corrects them; at most this many
                     wait for it (0..FORAY_DRAFT_CHECK_MAX; 0: early tokens stay as they are). Stop rules are
                     then judged where full depth has decided. docs/numerics.md 10 */
  uint32_t stop_ids[FORAY_DRAFT_STOPS]; /* a draft ends behind one of these (end-of-generation ids) */
  uint32_t n_stop;
};
/* max 8, T 0, exit_top .7, check 7, no stop */
static inline struct foray_draft_params foray_draft_defaults(void) {
  struct foray_draft_params p = {.max = 8, .check = FORAY_DRAFT_CHECK_MAX};
  for (int e = 0; e < FORAY_DRAFT_EXITS_MAX; e++) p.exit_top[e] = .7f;
  return p;
}

struct foray_draft {
  uint32_t id;
  uint32_t exit; /* 0 .. n_exits; n_exits = full depth */
  struct foray_conf conf;
  uint32_t n_cand;
  struct {
    uint32_t id;
    int32_t logprob;         /* Q16.16 natural logarithm, at temperature 1 */
  } cand[FORAY_DRAFT_CANDS]; /* most likely first; the chosen id need not be cand[0] when temperature > 0 */
  uint64_t bytes; /* streamed from device memory for this token, catch-up included (the first of a block also
                     carries what feeding the prefix cost) */
};

/* Totals since open, or since the last foray_drafter_stats_reset. */
struct foray_drafter_stats {
  uint64_t doorbells, fed; /* fed: prefix positions (not drafts) that went through segment 0 */
  uint64_t drafted[FORAY_DRAFT_EXITS_MAX + 1];
  uint64_t checked, corrected;      /* early tokens that full depth looked at again; and replaced */
  uint64_t bytes_weights, bytes_kv; /* streamed from device memory */
  double seconds;
};

/* Plans the device's memory, uploads the image's weights (borrowed: both must outlive the drafter) and lowers
 * the program. FORAY_E_UNSUPPORTED names what this device or this lowering cannot do. */
enum foray_status foray_drafter_open(const struct foray_image *image, struct foray_dev *dev,
                                     const struct foray_drafter_opts *opts, struct foray_drafter **out,
                                     struct foray_err *err) FORAY_NODISCARD;
void foray_drafter_close(struct foray_drafter *d); /* NULL is allowed; does not close device or image */

/* Bytes of device heap that foray_drafter_open will take: open the device with at least this. */
enum foray_status foray_drafter_heap_bytes(const struct foray_image *image,
                                           const struct foray_drafter_opts *opts, uint64_t *bytes,
                                           struct foray_err *err) FORAY_NODISCARD;

/* The program that drafts, as it lies on the device: *n descriptors of FORAY_ABI_DESC_WORDS words. Borrowed.
 */
const uint32_t (*foray_drafter_program(const struct foray_drafter *d, uint32_t *n))[16];

uint32_t foray_drafter_ctx(const struct foray_drafter *d);
uint32_t foray_drafter_vocab(const struct foray_drafter *d); /* ids are below this */
uint32_t foray_drafter_layers(const struct foray_drafter *d);
uint32_t foray_drafter_exits(const struct foray_drafter *d); /* n_exits */
uint32_t foray_drafter_exit_layer(const struct foray_drafter *d,
                                  uint32_t e); /* layers run; e == n_exits: all */

/* foray_draft_defaults with the thresholds that the image's exits were trained for. */
struct foray_draft_params foray_drafter_defaults(const struct foray_drafter *d);

/* The tokens that the next call continues. Copied; nothing is computed yet. FORAY_E_LIMIT when n > ctx. */
enum foray_status foray_drafter_sync(struct foray_drafter *d, const uint32_t *tokens, uint32_t n,
                                     struct foray_err *err) FORAY_NODISCARD;
/* Drafts behind the synced tokens (at least one) and keeps the drafts as the new tail, so that a further call
 * drafts on. *n_out <= params->max; less when a stop rule fired or the context is full. */
enum foray_status foray_drafter_draft(struct foray_drafter *d, const struct foray_draft_params *p,
                                      struct foray_draft *out, uint32_t *n_out,
                                      struct foray_err *err) FORAY_NODISCARD;
/* Runs the synced tokens, except the newest, through all layers without drafting (prompt processing ahead of
 * time; the newest one makes the first draft's logits). */
enum foray_status foray_drafter_prefill(struct foray_drafter *d, struct foray_err *err) FORAY_NODISCARD;
/* Full-head logits (natural units) of the last m <= n positions of tokens[n]: out[m][vocab]. Syncs to tokens.
 * FORAY_E_UNSUPPORTED when the image has no full head. */
enum foray_status foray_drafter_logits(struct foray_drafter *d, const uint32_t *tokens, uint32_t n,
                                       uint32_t m, float *out, struct foray_err *err) FORAY_NODISCARD;

void foray_drafter_stats(const struct foray_drafter *d, struct foray_drafter_stats *out);
void foray_drafter_stats_reset(struct foray_drafter *d);

#endif
