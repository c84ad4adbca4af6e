/* clang-format off: a table */
/* train/exits_file.h - what an exits file holds, and its writer. The reader is host/model/exits.h.
 *
 * Container: GGUF v3. Metadata:
 *   general.architecture   string   of the base model ("qwen2", "llama")
 *   general.type           string   "adapter"
 *   adapter.type           string   "foray-exits"
 *   general.name           string
 *   foray.exits.version    u32      2
 *   foray.exits.sha256     string   SHA-256 (hex) over the data of all tensors, in file order, without
 * padding foray.exits.base       string   SHA-256 (hex) of the base model's GGUF file foray.exits.target
 * string   SHA-256 of the target model's file; "" when trained towards the base itself foray.exits.n_layer
 * u32      of the base, for a check before anything is merged foray.exits.n_embd     u32 foray.exits.layer
 * u32[]    one per exit: blocks that run before it, rising foray.exits.head_rows  u32[]    one per exit: how
 * much of vocab.ids its head covers foray.exits.threshold  f32[]    one per exit: default confidence
 * threshold foray.exits.check      u32      default number of early tokens that may wait for a check; 7
 * without foray.exits.command    string   the arguments that made the file foray.exits.seed       u64
 *   foray.exits.tokens     u64      training tokens seen (all epochs)
 *   foray.exits.report     string   JSON: agreement, coverage and calibration by exit on held-out text
 *   adapter.lora.alpha     f32      scale of a LoRA = alpha / rank, rank = rows of its lora_a
 *
 * Tensors (GGUF dimensions, fastest first):
 *   vocab.ids              I32  {n_vocab}           ids by falling frequency in the target's text; specials
 * and all single-byte tokens are in it exit.<e>.norm          F32  {n_embd} exit.<e>.map           Q8_0 or
 * F16 {n_embd, n_embd}   row = output; calibration temperature included exit.<e>.prev          Q8_0 or F16
 * {n_embd, n_embd}   of what the position before kept; of all exits or none <base tensor>.lora_a   Q8_0 or
 * F16 {n_in, rank} <base tensor>.lora_b   Q8_0 or F16 {n_out, rank}      (transposed: W' = W + scale * b^T a)
 *
 * Q8_0 where the row length is a multiple of 32, else F16. */
/* clang-format on */
#ifndef FORAY_TRAIN_EXITS_FILE_H
#define FORAY_TRAIN_EXITS_FILE_H

#include <foray/status.h>
#include <stddef.h>
#include <stdint.h>

struct foray_exits_write {
  const char *arch, *name, *base_sha256, *target_sha256, *command, *report_json;
  uint64_t seed, tokens;
  uint32_t n_layer, n_embd;
  int n_exits;
  const uint32_t *layer, *head_rows; /* n_exits each */
  const float *threshold;
  uint32_t check;           /* foray_exits.check */
  const float *const *norm; /* n_exits x n_embd */
  const float *const *map;  /* n_exits x (n_embd x n_embd) */
  const float *const *prev; /* the same, or NULL: exits do not read the position before */
  uint32_t n_vocab;
  const uint32_t *vocab;
  uint32_t n_lora;
  const struct foray_exits_write_lora {
    char tensor[64];
    uint32_t rank, n_in, n_out;
    const float *a, *b; /* rank x n_in; rank x n_out, both row-major */
  } * lora;
  float lora_alpha;
};

/* Writes to a temporary file beside path, then renames. Borrows everything. */
enum foray_status foray_exits_file_write(const char *path, const struct foray_exits_write *w,
                                         struct foray_err *err) FORAY_NODISCARD;

#endif
