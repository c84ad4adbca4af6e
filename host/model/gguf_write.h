/* model/gguf_write.h - writes small GGUF v3 files: exits, adapters, test models.
 *
 *   struct foray_gguf_writer *w = foray_gguf_writer_open();
 *   foray_gguf_writer_str(w, "general.type", "adapter");
 *   foray_gguf_writer_tensor(w, "exit.0.map", FORAY_GGML_Q8_0, 2, (uint64_t[]){576, 576}, bytes);
 *   st = foray_gguf_writer_save(w, "exits.gguf", &err);
 *   foray_gguf_writer_close(w);
 *
 * Errors are sticky: the adding calls return nothing, the first failure (memory, duplicate or bad name, bad
 * shape) is reported by save. Thread rule: one thread. */
#ifndef FORAY_MODEL_GGUF_WRITE_H
#define FORAY_MODEL_GGUF_WRITE_H

#include "core/buf.h"
#include "model/gguf.h"
#include "model/quant.h"

struct foray_gguf_writer; /* opaque */

struct foray_gguf_writer *foray_gguf_writer_open(void);    /* NULL: out of memory */
void foray_gguf_writer_close(struct foray_gguf_writer *w); /* NULL is allowed */

void foray_gguf_writer_u32(struct foray_gguf_writer *w, const char *key, uint32_t v);
void foray_gguf_writer_u64(struct foray_gguf_writer *w, const char *key, uint64_t v);
void foray_gguf_writer_i32(struct foray_gguf_writer *w, const char *key, int32_t v);
void foray_gguf_writer_f32(struct foray_gguf_writer *w, const char *key, float v);
void foray_gguf_writer_bool(struct foray_gguf_writer *w, const char *key, bool v);
void foray_gguf_writer_str(struct foray_gguf_writer *w, const char *key, const char *v);
void foray_gguf_writer_strn(struct foray_gguf_writer *w, const char *key, const char *v, size_t len);
void foray_gguf_writer_arr_str(struct foray_gguf_writer *w, const char *key, const char *const *v, size_t n);
/* Strings with their own lengths (bytes of any value). */
void foray_gguf_writer_arr_strn(struct foray_gguf_writer *w, const char *key, const struct foray_gguf_str *v,
                                size_t n);
/* elem: a fixed-size type; v: n values in host (little-endian) layout. */
void foray_gguf_writer_arr(struct foray_gguf_writer *w, const char *key, enum foray_gguf_vtype elem,
                           const void *v, size_t n);
/* Copies an entry of an opened file as it is. */
void foray_gguf_writer_copy_kv(struct foray_gguf_writer *w, const struct foray_gguf_kv *kv);
/* data (borrowed until save) holds the blocks of the whole tensor; ne[0] is the row length. */
void foray_gguf_writer_tensor(struct foray_gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims,
                              const uint64_t *ne, const void *data);

/* Writes to path + ".tmp", syncs and renames. FORAY_E_IO, or the sticky error. */
enum foray_status foray_gguf_writer_save(struct foray_gguf_writer *w, const char *path,
                                         struct foray_err *err) FORAY_NODISCARD;
/* Appends the file's bytes to a buffer instead. */
enum foray_status foray_gguf_writer_save_buf(struct foray_gguf_writer *w, struct foray_buf *out,
                                             struct foray_err *err) FORAY_NODISCARD;

#endif
