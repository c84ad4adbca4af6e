/* batch/engine_target.h - the built-in engine, its sampler and the model's tokenizer as a batch/target.h. */
#ifndef FORAY_BATCH_ENGINE_TARGET_H
#define FORAY_BATCH_ENGINE_TARGET_H

#include "batch/target.h"
#include "core/hash.h"
#include "engine/engine.h"

struct foray_engine_target; /* opaque */
struct foray_model;

struct foray_engine_target_info {
  char name[128];
  uint8_t tokenizer_sha256[FORAY_SHA256_BYTES], model_sha256[FORAY_SHA256_BYTES];
  const struct foray_engine_info *engine;
};

/* model: catalogue name or path. opts as for foray_engine_open (its progress covers the weights; the
 * rest of loading, a checksum of the file, is short). */
enum foray_status foray_engine_target_open(const char *model, const struct foray_engine_opts *opts,
                                           struct foray_engine_target **out,
                                           struct foray_err *err) FORAY_NODISCARD;
/* All sequences and samplers must be closed. NULL is fine. */
void foray_engine_target_close(struct foray_engine_target *t);
const struct foray_target *foray_engine_target_vtable(struct foray_engine_target *t);
const struct foray_engine_target_info *foray_engine_target_info(const struct foray_engine_target *t);
const struct foray_model *foray_engine_target_model(const struct foray_engine_target *t);
struct foray_engine *foray_engine_target_engine(struct foray_engine_target *t);

#endif
