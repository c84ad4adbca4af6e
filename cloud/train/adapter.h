/* train/adapter.h - LoRA adapters and training checkpoints as files.
 *
 * Two layouts of the same adapter: a folder as the `peft` library has it (adapter_config.json and
 * adapter_model.safetensors, names and orientation of the published model), and a GGUF LoRA as llama.cpp
 * loads it. The published llama models hold the rows of q and k in another order than GGUF files do; that is
 * undone and redone here.
 *
 * A range of ranks [from, to) may be written or read alone: two adapters that live side by side in one
 * network are two ranges of one LoRA (docs/cotuning.md). */
#ifndef FORAY_TRAIN_ADAPTER_H
#define FORAY_TRAIN_ADAPTER_H

#include "train/optim.h"

struct foray_adapter_info {
  char base_sha256[FORAY_SHA256_HEX]; /* of the base model's file; "" when not recorded */
  char base_name[128];
  int rank;
  float alpha;      /* scale is alpha / rank */
  unsigned targets; /* bits FORAY_LIN_x */
  float drop;
};

/* rank, alpha and targets are filled from the network. */
enum foray_status foray_adapter_save_peft(const struct foray_net *n, int from, int to,
                                          const struct foray_adapter_info *info, const char *dir,
                                          struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_adapter_save_gguf(const struct foray_net *n, int from, int to,
                                          const struct foray_adapter_info *info, const char *path,
                                          struct foray_err *err) FORAY_NODISCARD;
/* Folder or GGUF file, by what it is. */
enum foray_status foray_adapter_info(const char *path, struct foray_adapter_info *out,
                                     struct foray_err *err) FORAY_NODISCARD;
/* Into ranks [from, to) of a network whose LoRA has the same targets. FORAY_E_MISMATCH names what differs:
 * rank, scale, a matrix, or the base when both sides name one. Nothing is changed then. */
enum foray_status foray_adapter_load(struct foray_net *n, int from, int to, const char *path,
                                     struct foray_err *err) FORAY_NODISCARD;

/* Weights, moments, step and `note` (what the caller needs to go on; any text) in one safetensors file;
 * replaced atomically. */
enum foray_status foray_checkpoint_save(struct foray_net *n, const struct foray_optim *o, const char *note,
                                        const char *path, struct foray_err *err) FORAY_NODISCARD;
/* note (may be NULL) is owned by the caller. FORAY_E_MISMATCH when the file belongs to other parameters. */
enum foray_status foray_checkpoint_load(struct foray_net *n, struct foray_optim *o, char **note,
                                        const char *path, struct foray_err *err) FORAY_NODISCARD;

#endif
