#include "model/gguf_write.h"

#include "core/checked.h"
#include "core/err.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct out_tensor {
  char name[FORAY_GGUF_NAME_MAX];
  uint32_t type, n_dims;
  uint64_t ne[FORAY_GGUF_DIMS_MAX];
  const void *data;
  uint64_t bytes;
};

struct foray_gguf_writer {
  struct foray_buf kv; /* encoded entries */
  uint64_t n_kv;
  struct out_tensor *tensors;
  size_t n_tensors, cap_tensors;
  struct foray_err err; /* first failure; code FORAY_OK while there is none */
};

struct foray_gguf_writer *foray_gguf_writer_open(void) {
  struct foray_gguf_writer *w = calloc(1, sizeof *w);
  if (w) foray_buf_init(&w->kv, SIZE_MAX / 2);
  return w;
}

void foray_gguf_writer_close(struct foray_gguf_writer *w) {
  if (!w) return;
  foray_buf_deinit(&w->kv);
  free(w->tensors);
  free(w);
}

static void put(struct foray_gguf_writer *w, const void *p, size_t n) {
  if (w->err.code) return;
  enum foray_status s = foray_buf_add(&w->kv, p, n);
  if (s) foray_err_set(&w->err, s, "out of memory for GGUF metadata");
}
static void put_u32(struct foray_gguf_writer *w, uint32_t v) { put(w, &v, 4); }
static void put_u64(struct foray_gguf_writer *w, uint64_t v) { put(w, &v, 8); }
static void put_strn(struct foray_gguf_writer *w, const char *p, size_t n) {
  put_u64(w, n);
  put(w, p, n);
}
static void head(struct foray_gguf_writer *w, const char *key, enum foray_gguf_vtype t) {
  if (!*key && !w->err.code) foray_err_set(&w->err, FORAY_E_ARG, "a metadata key is empty");
  put_strn(w, key, strlen(key));
  put_u32(w, (uint32_t)t);
  w->n_kv++;
}

void foray_gguf_writer_u32(struct foray_gguf_writer *w, const char *key, uint32_t v) {
  head(w, key, FORAY_GGUF_U32);
  put_u32(w, v);
}
void foray_gguf_writer_u64(struct foray_gguf_writer *w, const char *key, uint64_t v) {
  head(w, key, FORAY_GGUF_U64);
  put_u64(w, v);
}
void foray_gguf_writer_i32(struct foray_gguf_writer *w, const char *key, int32_t v) {
  head(w, key, FORAY_GGUF_I32);
  put(w, &v, 4);
}
void foray_gguf_writer_f32(struct foray_gguf_writer *w, const char *key, float v) {
  head(w, key, FORAY_GGUF_F32);
  put(w, &v, 4);
}
void foray_gguf_writer_bool(struct foray_gguf_writer *w, const char *key, bool v) {
  uint8_t b = v;
  head(w, key, FORAY_GGUF_BOOL);
  put(w, &b, 1);
}
void foray_gguf_writer_strn(struct foray_gguf_writer *w, const char *key, const char *v, size_t len) {
  head(w, key, FORAY_GGUF_STR);
  put_strn(w, v, len);
}
void foray_gguf_writer_str(struct foray_gguf_writer *w, const char *key, const char *v) {
  foray_gguf_writer_strn(w, key, v, strlen(v));
}
void foray_gguf_writer_arr_str(struct foray_gguf_writer *w, const char *key, const char *const *v, size_t n) {
  head(w, key, FORAY_GGUF_ARRAY);
  put_u32(w, FORAY_GGUF_STR);
  put_u64(w, n);
  for (size_t i = 0; i < n; i++) put_strn(w, v[i], strlen(v[i]));
}
void foray_gguf_writer_arr_strn(struct foray_gguf_writer *w, const char *key, const struct foray_gguf_str *v,
                                size_t n) {
  head(w, key, FORAY_GGUF_ARRAY);
  put_u32(w, FORAY_GGUF_STR);
  put_u64(w, n);
  for (size_t i = 0; i < n; i++) put_strn(w, v[i].ptr, v[i].len);
}

static size_t elem_bytes(enum foray_gguf_vtype t) {
  switch (t) {
  case FORAY_GGUF_U8:
  case FORAY_GGUF_I8:
  case FORAY_GGUF_BOOL: return 1;
  case FORAY_GGUF_U16:
  case FORAY_GGUF_I16: return 2;
  case FORAY_GGUF_U32:
  case FORAY_GGUF_I32:
  case FORAY_GGUF_F32: return 4;
  case FORAY_GGUF_U64:
  case FORAY_GGUF_I64:
  case FORAY_GGUF_F64: return 8;
  case FORAY_GGUF_STR:
  case FORAY_GGUF_ARRAY: break;
  }
  return 0;
}

void foray_gguf_writer_arr(struct foray_gguf_writer *w, const char *key, enum foray_gguf_vtype elem,
                           const void *v, size_t n) {
  size_t bytes;
  if (!elem_bytes(elem) || !foray_mul_size(elem_bytes(elem), n, &bytes)) {
    if (!w->err.code) foray_err_set(&w->err, FORAY_E_ARG, "key '%s': not an array of fixed-size values", key);
    return;
  }
  head(w, key, FORAY_GGUF_ARRAY);
  put_u32(w, (uint32_t)elem);
  put_u64(w, n);
  put(w, v, bytes);
}

void foray_gguf_writer_copy_kv(struct foray_gguf_writer *w, const struct foray_gguf_kv *kv) {
  put_strn(w, kv->key.ptr, kv->key.len);
  put_u32(w, (uint32_t)kv->type);
  if (kv->type == FORAY_GGUF_STR) put_u64(w, kv->bytes);
  if (kv->type == FORAY_GGUF_ARRAY) {
    put_u32(w, (uint32_t)kv->elem);
    put_u64(w, kv->count);
  }
  put(w, kv->data, (size_t)kv->bytes);
  w->n_kv++;
}

void foray_gguf_writer_tensor(struct foray_gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims,
                              const uint64_t *ne, const void *data) {
  if (w->err.code) return;
  const struct foray_type_info *info = foray_type_info(type);
  size_t len = strlen(name);
  if (!info || len == 0 || len >= FORAY_GGUF_NAME_MAX || n_dims < 1 || n_dims > FORAY_GGUF_DIMS_MAX) {
    foray_err_set(&w->err, FORAY_E_ARG, "tensor '%.80s': bad name, type or number of dimensions", name);
    return;
  }
  if (w->n_tensors == w->cap_tensors) {
    size_t cap = w->cap_tensors ? 2 * w->cap_tensors : 64;
    struct out_tensor *p = realloc(w->tensors, cap * sizeof *p);
    if (!p) {
      foray_err_set(&w->err, FORAY_E_NOMEM, "out of memory for the tensor table");
      return;
    }
    w->tensors = p;
    w->cap_tensors = cap;
  }
  struct out_tensor *t = &w->tensors[w->n_tensors];
  memset(t, 0, sizeof *t);
  memcpy(t->name, name, len);
  t->type = type;
  t->n_dims = n_dims;
  t->data = data;
  uint64_t elems = 1;
  for (uint32_t i = 0; i < n_dims; i++) {
    t->ne[i] = ne[i];
    if (ne[i] == 0 || !foray_mul_u64(elems, ne[i], &elems)) elems = 0;
  }
  if (elems == 0 || ne[0] % info->elems || !foray_mul_u64(elems / info->elems, info->bytes, &t->bytes)) {
    foray_err_set(&w->err, FORAY_E_ARG, "tensor '%s': its shape does not suit type %s", name, info->name);
    return;
  }
  w->n_tensors++;
}

static enum foray_status header(struct foray_gguf_writer *w, struct foray_buf *b) {
  uint32_t version = 3;
  uint64_t n = w->n_tensors, offset = 0;
  enum foray_status s = foray_buf_add(b, "GGUF", 4);
  if (!s) s = foray_buf_add(b, &version, 4);
  if (!s) s = foray_buf_add(b, &n, 8);
  if (!s) s = foray_buf_add(b, &w->n_kv, 8);
  if (!s) s = foray_buf_add(b, w->kv.data, w->kv.len);
  for (size_t i = 0; i < w->n_tensors && !s; i++) {
    const struct out_tensor *t = &w->tensors[i];
    uint64_t len = strlen(t->name);
    if (!s) s = foray_buf_add(b, &len, 8);
    if (!s) s = foray_buf_add(b, t->name, (size_t)len);
    if (!s) s = foray_buf_add(b, &t->n_dims, 4);
    if (!s) s = foray_buf_add(b, t->ne, 8 * (size_t)t->n_dims);
    if (!s) s = foray_buf_add(b, &t->type, 4);
    if (!s) s = foray_buf_add(b, &offset, 8);
    offset += (t->bytes + FORAY_GGUF_ALIGN - 1) / FORAY_GGUF_ALIGN * FORAY_GGUF_ALIGN;
  }
  return s;
}

typedef enum foray_status sink_fn(void *arg, const void *p, size_t n);

static enum foray_status emit(struct foray_gguf_writer *w, sink_fn *sink, void *arg, struct foray_err *err) {
  static const uint8_t zeros[FORAY_GGUF_ALIGN];
  struct foray_buf b;
  foray_buf_init(&b, SIZE_MAX / 2);
  enum foray_status s = header(w, &b);
  size_t pad = (FORAY_GGUF_ALIGN - b.len % FORAY_GGUF_ALIGN) % FORAY_GGUF_ALIGN;
  if (!s && w->n_tensors) s = foray_buf_add(&b, zeros, pad);
  if (s) foray_err_set(err, s, "out of memory for the GGUF header");
  if (!s) s = sink(arg, b.data, b.len);
  foray_buf_deinit(&b);
  for (size_t i = 0; i < w->n_tensors && !s; i++) {
    const struct out_tensor *t = &w->tensors[i];
    pad = (size_t)((FORAY_GGUF_ALIGN - t->bytes % FORAY_GGUF_ALIGN) % FORAY_GGUF_ALIGN);
    s = sink(arg, t->data, (size_t)t->bytes);
    if (!s) s = sink(arg, zeros, pad);
  }
  return s;
}

static enum foray_status to_buf(void *arg, const void *p, size_t n) { return foray_buf_add(arg, p, n); }
static enum foray_status to_file(void *arg, const void *p, size_t n) {
  return fwrite(p, 1, n, arg) == n ? FORAY_OK : FORAY_E_IO;
}

enum foray_status foray_gguf_writer_save_buf(struct foray_gguf_writer *w, struct foray_buf *out,
                                             struct foray_err *err) {
  if (w->err.code) return foray_err_set(err, w->err.code, "%s", w->err.msg);
  size_t start = out->len;
  enum foray_status s = emit(w, to_buf, out, err);
  if (s) return foray_err_set(err, s, "no room for the GGUF file in memory");
  struct foray_gguf *check = NULL; /* see foray_gguf_writer_save */
  s = foray_gguf_open_memory(out->data + start, out->len - start, "new GGUF file", &check, err);
  foray_gguf_close(check);
  if (s) out->len = start;
  return s;
}

enum foray_status foray_gguf_writer_save(struct foray_gguf_writer *w, const char *path,
                                         struct foray_err *err) {
  if (w->err.code) return foray_err_set(err, w->err.code, "%s: %s", path, w->err.msg);
  char tmp[4096];
  if (snprintf(tmp, sizeof tmp, "%s.tmp", path) >= (int)sizeof tmp)
    return foray_err_set(err, FORAY_E_LIMIT, "%s: the path is too long", path);
  FILE *f = fopen(tmp, "wb");
  if (!f) return foray_err_set(err, FORAY_E_IO, "%s: %s", tmp, strerror(errno));
  enum foray_status s = emit(w, to_file, f, err);
  if (s == FORAY_E_IO) foray_err_set(err, s, "%s: %s", tmp, strerror(errno));
  if (!s && (fflush(f) || fsync(fileno(f))))
    s = foray_err_set(err, FORAY_E_IO, "%s: %s", tmp, strerror(errno));
  if (fclose(f) && !s) s = foray_err_set(err, FORAY_E_IO, "%s: %s", tmp, strerror(errno));
  if (!s) {
    /* The reader is the judge of what may be written: duplicate names and the like are found here. */
    struct foray_gguf *check = NULL;
    s = foray_gguf_open(tmp, &check, err);
    foray_gguf_close(check);
  }
  if (!s && rename(tmp, path)) s = foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(errno));
  if (s) unlink(tmp);
  return s;
}
