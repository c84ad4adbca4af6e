/* model/image.h - the weight image: what a device streams, and its reader. docs/image.md is the format.
 *
 *   struct foray_image *img;
 *   if (foray_image_open("qwen.fimg", &img, &err)) return err.code;     // every field is checked
 *   const struct foray_image_tensor *q = foray_image_find(img, FORAY_IMAGE_ATTN_Q, 3);
 *   upload(foray_image_data(img) + q->off, q->bytes);                   // the mapping, 64-byte aligned
 *   foray_image_row(img, q, 17, row);                                   // inverse: q->cols floats
 *   foray_image_close(img);
 *
 * Values. All numbers are integers; E = t->exp is one power of two per tensor, M[r] (u16) one mantissa per
 * row, and a group is 32 neighbouring columns of one row:
 *
 *   Q4A  w[r][c] = M[r] * sc[r][g] * (16 * q[r][c] - zp[r][g]) * 2^E     q 0..15, sc 0..255, zp 0..255
 *   Q8S  w[r][c] = M[r] * sc[r][g] * q[r][c] * 2^E                       q -127..127, sc 0..255
 *   V32  v[i]    = m[i] * 2^E                                            m int32 (norms)
 *   bias b[r]    = m[r] * 2^bias_exp                                     m int32
 *
 * so a row of a product is  M[r] * sum_g sc_g * (16 * sum_c q*a - zp_g * sum_c a)  and the sum of a group's
 * activations is shared by all rows. |16 q - zp| <= 255.
 *
 * Bytes of a matrix at t->off (every part starts on 64 bytes):
 *   row mantissas   rows_pad x u16, zero padded to 64 bytes         rows_pad = rows rounded up to 16
 *   bias            rows_pad x i32, only when t->has_bias
 *   row blocks      rows_pad / 16 of them, one after the other, each block_bytes long; a block is, from the
 *                   first column to the last:
 *     Q4A: for each pair of groups (p = 0, 1, ...): one code beat of 64 bytes
 *            [sc of group 2p: 16 rows][zp of 2p: 16 rows][sc of 2p+1: 16 rows][zp of 2p+1: 16 rows]
 *          then 4 beats for group 2p, then 4 beats for group 2p+1; beat j (0..3) of a group covers its
 * columns 8j .. 8j+7, byte r*4+k: low nibble = column 8j+k, high nibble = column 8j+4+k, of row r Q8S: for
 * each four groups: one code beat [sc of 4p][sc of 4p+1][sc of 4p+2][sc of 4p+3], 16 rows each, then 8 beats
 * per group; beat j (0..7) covers columns 4j .. 4j+3, byte r*4+k = column 4j+k of row r A group count that is
 * no multiple of 2 (4) leaves zero codes for the missing groups and no beats for them. Padding rows have M =
 * sc = zp = q = 0.
 *
 * Thread rule: immutable after open; any thread may read. */
#ifndef FORAY_MODEL_IMAGE_H
#define FORAY_MODEL_IMAGE_H

#include "core/hash.h"
#include <foray/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  FORAY_IMAGE_VERSION = 1,
  FORAY_IMAGE_PAGE = 4096,   /* header, sections and segments start on pages */
  FORAY_IMAGE_BEAT = 64,     /* tensors and their parts start on beats */
  FORAY_IMAGE_GROUP = 32,    /* columns that share codes */
  FORAY_IMAGE_ROWS = 16,     /* rows of a row block */
  FORAY_IMAGE_EXITS_MAX = 8, /* as FORAY_EXITS_MAX */
  FORAY_IMAGE_NAME_MAX = 48,
};

/* Values in the file; hw/abi gives devices the same numbers. */
enum foray_image_type { FORAY_IMAGE_Q4A = 1, FORAY_IMAGE_Q8S = 2, FORAY_IMAGE_V32 = 3 };

/* X(role, index means, matrix) */
#define FORAY_IMAGE_ROLES(X)                                                                                 \
  X(ATTN_NORM, "layer", false)                                                                               \
  X(ATTN_Q, "layer", true)                                                                                   \
  X(ATTN_K, "layer", true)                                                                                   \
  X(ATTN_V, "layer", true)                                                                                   \
  X(ATTN_OUTPUT, "layer", true)                                                                              \
  X(FFN_NORM, "layer", false)                                                                                \
  X(FFN_GATE, "layer", true)                                                                                 \
  X(FFN_UP, "layer", true)                                                                                   \
  X(FFN_DOWN, "layer", true)                                                                                 \
  X(EXIT_NORM, "exit", false)                                                                                \
  X(EXIT_MAP, "exit", true)                                                                                  \
  X(OUTPUT_NORM, "none", false)                                                                              \
  X(HEAD, "none", true)       /* trimmed: row i is token vocab[i]; absent without a list */                  \
  X(TOKEN_EMBD, "none", true) /* whole vocabulary; also the full head of a tied model */                     \
  X(HEAD_FULL, "none", true)  /* whole vocabulary; absent in tied models and when left out */                \
  X(EXIT_PREV, "exit", true)  /* map of what the position before kept; see exit_prev */

enum foray_image_role {
#define X(role, index, matrix) FORAY_IMAGE_##role,
  FORAY_IMAGE_ROLES(X)
#undef X
      FORAY_IMAGE_ROLE_COUNT
};

struct foray_image_tensor {
  char name[FORAY_IMAGE_NAME_MAX]; /* of the source tensor, "blk.3.attn_q.weight" */
  enum foray_image_role role;
  uint32_t index; /* layer, or exit number, or 0 */
  enum foray_image_type type;
  bool has_bias;
  uint32_t rows, cols; /* V32: rows = 1 */
  uint32_t rows_pad;   /* multiple of 16; V32: 1 */
  uint32_t groups;     /* cols / 32; V32: 0 */
  int32_t exp, bias_exp;
  uint64_t off, bytes; /* in the file: all parts */
  uint64_t scale_off;  /* row mantissas (u16), = off; V32: 0 */
  uint64_t bias_off;   /* i32; 0 without bias */
  uint64_t data_off;   /* row blocks, or the mantissas (i32) of a V32 */
  uint32_t block_bytes;
  float cost;      /* what this tensor's rounding costs, by the packer's measure (see meta); 0 unknown */
  float rms_error; /* sqrt(mean (w' - w)^2 / mean w^2) */
};

/* Only llama and qwen2 shapes: RoPE is always of the half-split kind (element i with i + head_dim/2): the
 * packer permutes rows of q and k where a file has neighbours. */
struct foray_image_config {
  uint32_t arch; /* enum foray_arch */
  uint32_t n_layer, n_embd, n_ff, n_head, n_head_kv, head_dim, n_vocab, n_ctx_train;
  uint32_t rope_base; /* an integer, exact */
  int32_t eps_mant;   /* RMS epsilon = eps_mant * 2^eps_exp, exactly the file's float32 */
  int32_t eps_exp;
  uint32_t tied;
  uint32_t n_exits;
  uint32_t exit_layer[FORAY_IMAGE_EXITS_MAX];  /* blocks that run before, strictly rising, 1..n_layer-1 */
  uint32_t exit_rows[FORAY_IMAGE_EXITS_MAX];   /* how many rows of the trimmed head it uses */
  float exit_threshold[FORAY_IMAGE_EXITS_MAX]; /* default: leave when the top probability is greater */
  uint32_t exit_check; /* default: early tokens that may wait for a check; 0: an older image, as 7 */
  uint32_t exit_prev;  /* 1: exits also read the final state of the position before (model/exits.h) */
  uint32_t n_trim;     /* ids in the vocabulary list; 0: no trimmed head */
  uint8_t source_sha256[FORAY_SHA256_BYTES];    /* the GGUF file */
  uint8_t tokenizer_sha256[FORAY_SHA256_BYTES]; /* foray_tokenizer_hash */
  uint8_t exits_sha256[FORAY_SHA256_BYTES];     /* foray_exits.sha256; zeros without */
};

struct foray_image {
  struct foray_image_config config;
  uint32_t n_tensors;
  struct foray_image_tensor *tensors; /* owned; in file order = order of consumption */
  const uint32_t *vocab;              /* n_trim ids, no duplicates; borrowed from the mapping */
  const char *meta;                   /* JSON object, NUL-terminated: how it was made; owned */
  uint64_t stream_off, stream_bytes;  /* all that decoding reads, in order: layers, exits, final norm, head */
  uint64_t rest_off, rest_bytes;      /* embedding and full head */
  uint8_t sha256[FORAY_SHA256_BYTES]; /* of everything after the header page: the identity of the image */
  uint64_t file_bytes;
  double bits_per_block_weight; /* bits of all tensors of the layers, padding included, per weight */
  struct foray_image_priv *priv;
};

/* Maps and checks an image: header hash, every field, sections, tensors in exactly the order and shapes that
 * the configuration implies, no overlap, nothing outside the file, vocabulary ids. Bodies are not hashed: see
 * foray_image_verify. FORAY_E_IO, FORAY_E_FORMAT, FORAY_E_UNSUPPORTED (other version), FORAY_E_NOMEM. */
enum foray_status foray_image_open(const char *path, struct foray_image **out,
                                   struct foray_err *err) FORAY_NODISCARD;
/* The same on memory (64-byte aligned), borrowed until close; label stands for the path in errors. */
enum foray_status foray_image_open_memory(const void *data, size_t size, const char *label,
                                          struct foray_image **out, struct foray_err *err) FORAY_NODISCARD;
void foray_image_close(struct foray_image *img);                /* NULL is allowed */
const uint8_t *foray_image_data(const struct foray_image *img); /* the whole file */
const char *foray_image_path(const struct foray_image *img);

/* Hashes the body and compares (about 0.5 s per GB). Also checks what arithmetic relies on: Q8S codes are
 * never -128, padding is zero. FORAY_E_MISMATCH, FORAY_E_FORMAT. */
enum foray_status foray_image_verify(const struct foray_image *img, struct foray_err *err) FORAY_NODISCARD;

/* NULL when the image has no such tensor. HEAD_FULL of a tied model is its TOKEN_EMBD. */
const struct foray_image_tensor *foray_image_find(const struct foray_image *img, enum foray_image_role role,
                                                  uint32_t index);
const char *foray_image_role_name(enum foray_image_role role); /* "attn_q" */
const char *foray_image_type_name(enum foray_image_type type); /* "Q4A" */

/* The inverse: row r < rows as floats (exact while the product of integers fits 24 bits, else rounded once),
 * cols of them. V32: the whole vector, r = 0. */
void foray_image_row(const struct foray_image *img, const struct foray_image_tensor *t, uint32_t r,
                     float *dst);
/* Bias as floats, rows of them. Only where has_bias. */
void foray_image_bias(const struct foray_image *img, const struct foray_image_tensor *t, float *dst);
/* Row r of a Q8S matrix as integers: codes[cols], sc[groups]; *mant = M[r]. What EMBED reads. */
void foray_image_row_q8s(const struct foray_image *img, const struct foray_image_tensor *t, uint32_t r,
                         int8_t *codes, uint8_t *sc, uint16_t *mant);

/* ---- layout arithmetic, shared by packer, reader, kernels and tests ---- */

struct foray_image_layout {
  uint32_t rows_pad, groups, block_bytes;
  uint64_t scale_at, bias_at, data_at; /* from the start of the tensor; bias_at = 0 without bias */
  uint64_t bytes;
};
/* False when a size overflows, cols is no multiple of 32, or a dimension is 0. */
bool foray_image_layout_of(enum foray_image_type type, uint32_t rows, uint32_t cols, bool has_bias,
                           struct foray_image_layout *out);

/* Offset in a row block of the code bytes of group g (Q4A: 16 sc then 16 zp; Q8S: 16 sc), and of its beats.
 */
static inline uint32_t foray_image_codes_at(enum foray_image_type type, uint32_t g) {
  return type == FORAY_IMAGE_Q4A ? (g / 2) * (64 + 2 * 256) + (g % 2) * 32
                                 : (g / 4) * (64 + 4 * 512) + (g % 4) * 16;
}
static inline uint32_t foray_image_beats_at(enum foray_image_type type, uint32_t g) {
  return type == FORAY_IMAGE_Q4A ? (g / 2) * (64 + 2 * 256) + 64 + (g % 2) * 256
                                 : (g / 4) * (64 + 4 * 512) + 64 + (g % 4) * 512;
}

#endif
