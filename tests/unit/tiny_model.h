/* unit/tiny_model.h - small random models as GGUF files in memory, the same on every machine, for tests that
 * need a whole model and none of the real ones. They have real tokenizers (bytes, a few merges, the ChatML or
 * Gemma control tokens), so that everything from text to logits runs on them.
 *
 *   struct foray_tiny d = foray_tiny_default(FORAY_ARCH_QWEN2);
 *   struct foray_buf b;
 *   foray_tiny_build(&d, &b);                               // frees nothing of yours; foray_buf_deinit(&b)
 * at the end foray_model_open_memory(b.data, b.len, "tiny", &m, &err); */
#ifndef FORAY_UNIT_TINY_MODEL_H
#define FORAY_UNIT_TINY_MODEL_H

#include "core/buf.h"
#include "model/config.h"
#include "model/gguf_write.h"

enum { FORAY_TINY_VOCAB = 320 };

struct foray_tiny {
  enum foray_arch arch;
  uint32_t n_layer, n_embd, n_head, n_head_kv, head_dim, n_ff, n_ctx;
  uint32_t window; /* gemma3 */
  uint32_t type;   /* of matrices: F32, F16, BF16, Q8_0, Q4_0, Q4_1; vectors are F32 */
  bool tied;
  uint64_t seed;
};

/* Two layers (gemma3: seven, so that one is global), width 64, F32, tied except qwen2, seed 1. */
struct foray_tiny foray_tiny_default(enum foray_arch arch);
/* Initialises *out and fills it with the file; fails the test when it cannot. */
void foray_tiny_build(const struct foray_tiny *d, struct foray_buf *out);
/* The metadata alone (for tests that change it): adds all keys to w. */
void foray_tiny_metadata(const struct foray_tiny *d, struct foray_gguf_writer *w);

#endif
