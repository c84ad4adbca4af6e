/* model/gguf.h - reader of GGUF v2 and v3 files.
 *
 *   struct foray_gguf *g;
 *   if (foray_gguf_open("m.gguf", &g, &err)) return err.code;   // "m.gguf: offset 24: key 'a' ..."
 *   uint32_t layers;
 *   if (foray_gguf_get_u32(g, "llama.block_count", &layers, &err)) ...
 *   const struct foray_gguf_tensor *t = foray_gguf_find_tensor(g, "token_embd.weight");
 *   foray_gguf_close(g);
 *
 * The file is mapped read-only; strings, arrays and tensor data point into the mapping and live as long as
 * the foray_gguf. Everything is checked while opening: counts and sizes against the rest of the file,
 * element types, duplicate names, types, shapes, offsets (each must be the running padded sum, as ggml
 * demands), alignment. Errors name file, offset and reason. No allocation is larger than what the file's
 * own bytes justify. A file that another process shrinks while it is mapped raises SIGBUS: replace model
 * files by rename, as foray_catalogue_pull does.
 *
 * Thread rule: immutable after open, so any number of threads may read. */
#ifndef FORAY_MODEL_GGUF_H
#define FORAY_MODEL_GGUF_H

#include <foray/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum foray_gguf_vtype {
  FORAY_GGUF_U8 = 0,
  FORAY_GGUF_I8 = 1,
  FORAY_GGUF_U16 = 2,
  FORAY_GGUF_I16 = 3,
  FORAY_GGUF_U32 = 4,
  FORAY_GGUF_I32 = 5,
  FORAY_GGUF_F32 = 6,
  FORAY_GGUF_BOOL = 7,
  FORAY_GGUF_STR = 8,
  FORAY_GGUF_ARRAY = 9,
  FORAY_GGUF_U64 = 10,
  FORAY_GGUF_I64 = 11,
  FORAY_GGUF_F64 = 12,
};

enum {
  FORAY_GGUF_DIMS_MAX = 4,
  FORAY_GGUF_NAME_MAX = 64, /* tensor names are shorter than this, as in ggml */
  FORAY_GGUF_ALIGN = 32     /* default of general.alignment */
};

/* Bytes inside the mapping, not NUL-terminated, any bytes allowed (zero too). */
struct foray_gguf_str {
  const char *ptr;
  size_t len;
};

/* One metadata entry. `data` points at the little-endian value; for a string at its first byte, for an array
 * at its first element (strings of an array: see foray_gguf_array_next). */
struct foray_gguf_kv {
  struct foray_gguf_str key;
  enum foray_gguf_vtype type;
  enum foray_gguf_vtype elem; /* element type when type is ARRAY, else the same as type */
  uint64_t count;             /* elements of an array, bytes of a string, else 1 */
  const uint8_t *data;
  uint64_t bytes; /* length of the value at data */
};

/* ne[0] is the contiguous row (the input dimension of a weight), ne[1] the number of rows; unused ones are 1.
 */
struct foray_gguf_tensor {
  char name[FORAY_GGUF_NAME_MAX];
  uint32_t type; /* enum foray_ggml_type, always one that foray_type_info() knows */
  uint32_t n_dims;
  uint64_t ne[FORAY_GGUF_DIMS_MAX];
  const uint8_t *data; /* borrowed from the mapping, aligned to general.alignment in the file */
  uint64_t bytes;
  uint64_t offset; /* of data from the start of the file */
};

struct foray_gguf; /* opaque */

/* Maps and checks a file. FORAY_E_IO, FORAY_E_FORMAT, FORAY_E_UNSUPPORTED (version 1, other byte order, split
 * files, unknown tensor types), FORAY_E_NOMEM. On success *out is owned by the caller. */
enum foray_status foray_gguf_open(const char *path, struct foray_gguf **out,
                                  struct foray_err *err) FORAY_NODISCARD;
/* The same on bytes in memory, which are borrowed until close; label stands for the path in errors. */
enum foray_status foray_gguf_open_memory(const void *data, size_t size, const char *label,
                                         struct foray_gguf **out, struct foray_err *err) FORAY_NODISCARD;
void foray_gguf_close(struct foray_gguf *g); /* NULL is allowed */

const char *foray_gguf_path(const struct foray_gguf *g);
uint64_t foray_gguf_file_bytes(const struct foray_gguf *g);
const uint8_t *foray_gguf_file_data(const struct foray_gguf *g); /* the whole mapping, for hashing */
uint32_t foray_gguf_version(const struct foray_gguf *g);

size_t foray_gguf_n_kv(const struct foray_gguf *g);
const struct foray_gguf_kv *foray_gguf_kv_at(const struct foray_gguf *g, size_t i); /* i < n_kv, file order */
const struct foray_gguf_kv *foray_gguf_find_kv(const struct foray_gguf *g,
                                               const char *key); /* NULL: absent */

/* Typed getters. FORAY_E_NOTFOUND when the key is absent, FORAY_E_FORMAT when its type or range is wrong;
 * *out is written on success only. Integers are taken from any integer type whose value fits; floats from F32
 * and F64, finite only. Error texts name file, key, and both types. */
enum foray_status foray_gguf_get_u32(const struct foray_gguf *g, const char *key, uint32_t *out,
                                     struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_gguf_get_u64(const struct foray_gguf *g, const char *key, uint64_t *out,
                                     struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_gguf_get_f32(const struct foray_gguf *g, const char *key, float *out,
                                     struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_gguf_get_bool(const struct foray_gguf *g, const char *key, bool *out,
                                      struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_gguf_get_str(const struct foray_gguf *g, const char *key, struct foray_gguf_str *out,
                                     struct foray_err *err) FORAY_NODISCARD;
/* The entry itself, an array of `elem`; read numbers with foray_gguf_array_*(), strings with array_next. */
enum foray_status foray_gguf_get_array(const struct foray_gguf *g, const char *key,
                                       enum foray_gguf_vtype elem, const struct foray_gguf_kv **out,
                                       struct foray_err *err) FORAY_NODISCARD;
/* As the getters, but an absent key is FORAY_OK and leaves *out alone (set the default before). */
enum foray_status foray_gguf_opt_u32(const struct foray_gguf *g, const char *key, uint32_t *out,
                                     struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_gguf_opt_u64(const struct foray_gguf *g, const char *key, uint64_t *out,
                                     struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_gguf_opt_f32(const struct foray_gguf *g, const char *key, float *out,
                                     struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_gguf_opt_bool(const struct foray_gguf *g, const char *key, bool *out,
                                      struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_gguf_opt_str(const struct foray_gguf *g, const char *key, struct foray_gguf_str *out,
                                     struct foray_err *err) FORAY_NODISCARD;

/* Element i (< count) of a numeric array of exactly that element type. */
uint32_t foray_gguf_array_u32(const struct foray_gguf_kv *kv, uint64_t i); /* elem U32 or I32 (as bits) */
float foray_gguf_array_f32(const struct foray_gguf_kv *kv, uint64_t i);    /* elem F32 */
/* Walks the strings of an array: *at starts at 0 and is advanced; false after the last one. */
bool foray_gguf_array_next(const struct foray_gguf_kv *kv, size_t *at, struct foray_gguf_str *out);

size_t foray_gguf_n_tensors(const struct foray_gguf *g);
const struct foray_gguf_tensor *foray_gguf_tensor_at(const struct foray_gguf *g,
                                                     size_t i); /* i < n, file order */
const struct foray_gguf_tensor *foray_gguf_find_tensor(const struct foray_gguf *g,
                                                       const char *name); /* or NULL */

const char *foray_gguf_vtype_name(enum foray_gguf_vtype t); /* "u32", "array", ...; "?" for others */

#endif
