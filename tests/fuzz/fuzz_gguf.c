/* Any bytes as a GGUF file: reader, metadata, shapes, tokenizer, chat template, values of the first rows. */
#include "model/chat.h"
#include "model/model.h"
#include "model/quant.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void touch_values(const struct foray_gguf *g) {
  float row[4096];
  for (size_t i = 0; i < foray_gguf_n_tensors(g) && i < 64; i++) {
    const struct foray_gguf_tensor *t = foray_gguf_tensor_at(g, i);
    const struct foray_type_info *info = foray_type_info(t->type);
    size_t n = t->ne[0] < 4096 ? (size_t)t->ne[0] : 4096 / info->elems * info->elems;
    if (info->dequant && foray_dequant_row(t->type, foray_tensor_row(t, t->ne[1] - 1), row, n)) abort();
  }
}

static void touch_keys(const struct foray_gguf *g) {
  for (size_t i = 0; i < foray_gguf_n_kv(g); i++) {
    const struct foray_gguf_kv *kv = foray_gguf_kv_at(g, i);
    struct foray_gguf_str s;
    size_t at = 0, n = 0;
    uint32_t sum = 0;
    if (kv->type != FORAY_GGUF_ARRAY) continue;
    if (kv->elem == FORAY_GGUF_STR) {
      while (foray_gguf_array_next(kv, &at, &s)) n++, sum += s.len ? (uint8_t)s.ptr[s.len - 1] : 0;
      if (n != kv->count) abort();
    } else if (kv->elem == FORAY_GGUF_U32 && kv->count) {
      sum += foray_gguf_array_u32(kv, kv->count - 1);
    }
    (void)*(volatile uint32_t *)&sum;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct foray_gguf *g = NULL;
  struct foray_model *m = NULL;
  struct foray_chat chat;
  if (foray_gguf_open_memory(data, size, "fuzz", &g, NULL)) return 0;
  touch_keys(g);
  touch_values(g);
  (void)!foray_chat_open(g, NULL, &chat, NULL);
  foray_gguf_close(g);
  if (foray_model_open_memory(data, size, "fuzz", &m, NULL)) return 0;
  struct foray_ids ids = {0};
  const char text[] = "Hello  <|im_start|> 123\n\xff\xe4\xb8";
  (void)!foray_tokenizer_encode(m->tokenizer, text, sizeof text, FORAY_ENCODE_SPECIAL | FORAY_ENCODE_BOS,
                                &ids, NULL);
  for (size_t i = 0; i < ids.n; i++)
    if (ids.ids[i] < 0 || (uint32_t)ids.ids[i] >= m->config.n_vocab) abort();
  foray_ids_deinit(&ids);
  uint8_t hash[FORAY_SHA256_BYTES];
  foray_tokenizer_hash(m->tokenizer, hash);
  foray_model_close(m);
  return 0;
}
