/* model/lora.h - reads an adapter in llama.cpp's GGUF layout (general.type = adapter, X.lora_a: rank rows of
 * n_in, X.lora_b: n_out rows of rank) into the form that the packer merges (model/exits.h). */
#ifndef FORAY_MODEL_LORA_H
#define FORAY_MODEL_LORA_H

#include "model/exits.h"

/* *out holds only lora, n_lora, base_sha256 ("" when the file does not say) and sha256 (of all tensor bytes);
 * close it with foray_exits_close. FORAY_E_FORMAT for anything else than a complete LoRA of finite numbers.
 */
enum foray_status foray_lora_open(const char *path, struct foray_exits **out,
                                  struct foray_err *err) FORAY_NODISCARD;
/* The same from memory (the payload of a release). */
enum foray_status foray_lora_open_memory(const void *data, size_t size, struct foray_exits **out,
                                         struct foray_err *err) FORAY_NODISCARD;

#endif
