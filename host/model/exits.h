/* model/exits.h - reader of an exits file: the trained early exits of one edge model, the LoRA that goes with
 * them, and the vocabulary list of the trimmed head. Written by `foray-tune exits`; the content of the file
 * is described in cloud/train/exits_file.h.
 *
 *   char path[FORAY_EXITS_PATH_MAX];
 *   if (foray_exits_locate(base_sha256_hex, NULL, path, sizeof path, &err) == FORAY_OK &&
 *       foray_exits_open(path, &x, &err) == FORAY_OK) {
 *     foray_exits_lora_merge(x, "blk.3.attn_q.weight", w, n_out, n_in);  // packer, before quantising
 *     for (int e = 0; e < x->n_exits; e++) { ... lower x->exit[e] after layer x->exit[e].layer ... }
 *     foray_exits_close(x);
 *   }
 *
 * An exit e that follows `layer` blocks (the residual h after blocks 0..layer-1) is exactly this op list:
 *
 *   n      = rmsnorm(h, norm)                  (the base model's epsilon; h itself stays as it is)
 *   z      = map n + prev k                    (n_embd x n_embd each, no bias, no residual)
 *   KEEP z
 *   logits = head[0 .. head_rows) z            (the first head_rows rows of the trimmed head: vocab[0..])
 *   EXIT: p = softmax(logits); sure when p[argmax] > threshold
 *
 * where k is what was kept for the position before: at full depth KEEP n, else KEEP z of the exit that it
 * left at. Files of version 1 have no `prev`: z = map n, and nothing is kept.
 *
 * Full depth is: n = rmsnorm(h, the base model's output_norm), logits = head[0 .. n_vocab) n. Row i of
 * the trimmed head is row vocab[i] of the base model's output matrix (or of token_embd where tied), with LoRA
 * merged if the file holds one for it. Calibration is already inside `map` (the temperature that makes "more
 * than 0.7 sure" mean right at least 80 % of the time scales its rows), so the ops need no extra scale.
 *
 * Thread rule: immutable after open, so it may be read from any thread. */
#ifndef FORAY_MODEL_EXITS_H
#define FORAY_MODEL_EXITS_H

#include <foray/status.h>
#include <stddef.h>
#include <stdint.h>

enum {
  FORAY_EXITS_VERSION = 2, /* 1 is read too */
  FORAY_EXITS_MAX = 8,     /* exits per model */
  FORAY_EXITS_PATH_MAX = 4096,
  FORAY_EXITS_CHECK_MAX = 7,
  FORAY_EXITS_LORA_RANK_MAX = 256,
};

/* W' = W + scale * b^T a. Row-major: a is rank x n_in, b is rank x n_out (stored transposed, so that both
 * have long rows). */
struct foray_exits_lora {
  char tensor[64]; /* name in the base model, e.g. "blk.0.attn_q.weight" */
  uint32_t rank, n_in, n_out;
  float scale;
  float *a, *b;
};

struct foray_exits_head {
  uint32_t layer;     /* blocks that run before this exit, 1..n_layer-1; strictly increasing over exits */
  uint32_t head_rows; /* length of the prefix of vocab that this exit's head covers, 1..n_vocab */
  float threshold;    /* default: leave when the top probability is greater */
  float *norm;        /* n_embd */
  float *map;         /* n_embd x n_embd, row-major, row = output */
  float *prev;        /* the same; all exits of a file have it or none (NULL) */
};

struct foray_exits {
  char base_sha256[65];   /* lower-case hex, of the base model's whole GGUF file */
  char target_sha256[65]; /* of the target that the exits were trained towards; "" = the base model itself */
  char sha256[65];        /* of all tensor bytes of this file in file order: the identity of the adapter */
  char name[64];
  uint32_t n_layer, n_embd;
  uint32_t check; /* default: early tokens that may wait for full depth's look, 1..FORAY_EXITS_CHECK_MAX */
  int n_exits;
  struct foray_exits_head exit[FORAY_EXITS_MAX];
  uint32_t n_vocab;
  uint32_t *vocab; /* n_vocab token ids, by falling frequency in text that the target wrote; no duplicates */
  uint32_t n_lora;
  struct foray_exits_lora *lora;
  char *command; /* the command line that made the file */
};

/* Reads and checks the whole file (shapes, ranges, duplicates, finite numbers, content hash). *out is owned
 * by the caller. FORAY_E_IO, FORAY_E_FORMAT, FORAY_E_UNSUPPORTED (a newer version), FORAY_E_MISMATCH (hash).
 */
enum foray_status foray_exits_open(const char *path, struct foray_exits **out,
                                   struct foray_err *err) FORAY_NODISCARD;
void foray_exits_close(struct foray_exits *x); /* NULL is allowed */

/* FORAY_E_MISMATCH unless the file belongs to this base model. */
enum foray_status foray_exits_check_base(const struct foray_exits *x, const char *base_sha256,
                                         uint32_t n_layer, uint32_t n_embd,
                                         struct foray_err *err) FORAY_NODISCARD;

/* The LoRA of a base tensor, or NULL. Borrowed from x. */
const struct foray_exits_lora *foray_exits_lora_find(const struct foray_exits *x, const char *tensor);
/* Adds the delta to rows [row0, row0 + rows) of the tensor, held in w (rows x n_in floats). Returns FORAY_OK
 * and leaves w alone where the file has no LoRA for the tensor; FORAY_E_MISMATCH for other shapes. */
enum foray_status foray_exits_lora_merge(const struct foray_exits *x, const char *tensor, float *w,
                                         uint32_t row0, uint32_t rows, uint32_t n_in,
                                         struct foray_err *err) FORAY_NODISCARD;

/* Finds the exits file of a base model by SHA-256: every *.exits.gguf in, in this order, `dir` (may be NULL),
 * $FORAY_EXITS_DIR, <directory of the running program>/../share/foray/exits, the source tree's
 * cloud/train/shipped when the program runs from a build tree, $XDG_DATA_HOME/foray/exits. FORAY_E_NOTFOUND.
 */
enum foray_status foray_exits_locate(const char *base_sha256, const char *dir, char *path, size_t cap,
                                     struct foray_err *err) FORAY_NODISCARD;

#endif
