/* train/safetensors.h - the file format of adapters and checkpoints: eight bytes of header length, a JSON
 * object {name: {dtype, shape, data_offsets}}, then the tensors' bytes.
 *
 *   struct foray_st_writer *w = foray_st_writer_open();
 *   foray_st_writer_meta(w, "step", "17");
 *   foray_st_writer_f32(w, "a", (const uint64_t[]){4, 8}, 2, data);        // borrowed until save
 *   st = foray_st_writer_save(w, "x.safetensors", &err);
 *   foray_st_writer_close(w);
 *
 * Written: F32. Read: F32, F16, BF16 (as floats). A file is checked as a whole when it is opened: offsets
 * inside the data, no overlap, no gap, sizes that fit the shapes. Thread rule: one thread. */
#ifndef FORAY_TRAIN_SAFETENSORS_H
#define FORAY_TRAIN_SAFETENSORS_H

#include <foray/status.h>
#include <stddef.h>
#include <stdint.h>

enum { FORAY_ST_DIMS = 4, FORAY_ST_HEADER_MAX = 64 << 20 };

struct foray_st_writer;
struct foray_st_writer *foray_st_writer_open(void);    /* NULL: out of memory */
void foray_st_writer_close(struct foray_st_writer *w); /* NULL is allowed */
/* Errors are sticky and reported by save. */
void foray_st_writer_meta(struct foray_st_writer *w, const char *key, const char *value);
void foray_st_writer_f32(struct foray_st_writer *w, const char *name, const uint64_t *shape, int dims,
                         const float *data);
/* To path + ".tmp", synced, renamed, directory synced: after a power cut there is the old file or the new. */
enum foray_status foray_st_writer_save(struct foray_st_writer *w, const char *path,
                                       struct foray_err *err) FORAY_NODISCARD;

struct foray_st_tensor {
  const char *name;
  uint64_t shape[FORAY_ST_DIMS];
  int dims;
  size_t n; /* elements */
};
struct foray_st;
enum foray_status foray_st_open(const char *path, struct foray_st **out,
                                struct foray_err *err) FORAY_NODISCARD;
void foray_st_close(struct foray_st *s); /* NULL is allowed */
size_t foray_st_count(const struct foray_st *s);
const struct foray_st_tensor *foray_st_at(const struct foray_st *s, size_t i);
const struct foray_st_tensor *foray_st_find(const struct foray_st *s, const char *name); /* or NULL */
const char *foray_st_meta(const struct foray_st *s, const char *key);                    /* or NULL */
/* t->n floats. */
void foray_st_read(const struct foray_st *s, const struct foray_st_tensor *t, float *out);

#endif
