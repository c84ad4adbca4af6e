#include "train/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/checked.h"
#include "core/err.h"
#include "model/quant.h"

/* ---- writing ---- */
struct part {
  const float *data;
  size_t bytes;
};
struct foray_st_writer {
  json_t *head, *meta;
  struct part *part;
  size_t n, cap, offset;
  bool failed;
};

struct foray_st_writer *foray_st_writer_open(void) {
  struct foray_st_writer *w = calloc(1, sizeof *w);
  if (!w) return NULL;
  w->head = json_object();
  w->meta = json_object();
  if (w->head && w->meta) return w;
  foray_st_writer_close(w);
  return NULL;
}
void foray_st_writer_close(struct foray_st_writer *w) {
  if (!w) return;
  json_decref(w->head);
  json_decref(w->meta);
  free(w->part);
  free(w);
}
void foray_st_writer_meta(struct foray_st_writer *w, const char *key, const char *value) {
  if (json_object_set_new(w->meta, key, json_string(value))) w->failed = true;
}
void foray_st_writer_f32(struct foray_st_writer *w, const char *name, const uint64_t *shape, int dims,
                         const float *data) {
  size_t bytes = sizeof(float);
  json_t *dim = json_array();
  for (int i = 0; i < dims; i++) {
    if (!foray_mul_size(bytes, (size_t)shape[i], &bytes)) w->failed = true;
    json_array_append_new(dim, json_integer((json_int_t)shape[i]));
  }
  if (w->n == w->cap) {
    size_t cap = w->cap ? 2 * w->cap : 64;
    struct part *p = realloc(w->part, cap * sizeof *p);
    if (!p) {
      w->failed = true;
      json_decref(dim);
      return;
    }
    w->part = p;
    w->cap = cap;
  }
  w->part[w->n++] = (struct part){data, bytes};
  json_t *t = json_pack("{s:s, s:o, s:[I,I]}", "dtype", "F32", "shape", dim, "data_offsets",
                        (json_int_t)w->offset, (json_int_t)(w->offset + bytes));
  w->offset += bytes;
  if (!t || json_object_get(w->head, name) || json_object_set_new(w->head, name, t)) w->failed = true;
}

static void sync_dir(const char *path) {
  char dir[4096];
  snprintf(dir, sizeof dir, "%s", path);
  int fd = open(dirname(dir), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

enum foray_status foray_st_writer_save(struct foray_st_writer *w, const char *path, struct foray_err *err) {
  char tmp[4096];
  if (w->failed) return foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory, or a tensor twice", path);
  if (json_object_size(w->meta) && json_object_set(w->head, "__metadata__", w->meta))
    return foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", path);
  char *text = json_dumps(w->head, JSON_COMPACT);
  if (!text) return foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", path);
  snprintf(tmp, sizeof tmp, "%s.tmp", path);
  FILE *f = fopen(tmp, "wb");
  uint64_t len = strlen(text), padded = (len + 7) / 8 * 8;
  bool ok = f && fwrite(&padded, 8, 1, f) == 1 && fwrite(text, 1, len, f) == len;
  for (uint64_t i = len; ok && i < padded; i++) ok = fputc(' ', f) != EOF;
  for (size_t i = 0; ok && i < w->n; i++)
    ok = fwrite(w->part[i].data, 1, w->part[i].bytes, f) == w->part[i].bytes;
  ok = ok && fflush(f) == 0 && fsync(fileno(f)) == 0;
  if (f) ok = fclose(f) == 0 && ok;
  free(text);
  if (!ok || rename(tmp, path)) {
    int e = errno;
    unlink(tmp);
    return foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(e));
  }
  sync_dir(path);
  return FORAY_OK;
}

/* ---- reading ---- */
struct entry {
  struct foray_st_tensor t;
  uint32_t type;
  size_t from, to;
};
struct foray_st {
  json_t *head;
  struct entry *entry;
  size_t n;
  uint8_t *data;
  size_t size;
};

void foray_st_close(struct foray_st *s) {
  if (!s) return;
  json_decref(s->head);
  free(s->entry);
  free(s->data);
  free(s);
}

static bool entry_read(struct entry *e, const char *name, json_t *v) {
  static const struct {
    const char *name;
    uint32_t type;
    size_t bytes;
  } TYPES[] = {{"F32", FORAY_GGML_F32, 4}, {"F16", FORAY_GGML_F16, 2}, {"BF16", FORAY_GGML_BF16, 2}};
  const char *dtype = json_string_value(json_object_get(v, "dtype"));
  json_t *shape = json_object_get(v, "shape"), *off = json_object_get(v, "data_offsets");
  size_t size = 0, n = 1;
  for (size_t i = 0; dtype && i < sizeof TYPES / sizeof *TYPES; i++)
    if (!strcmp(dtype, TYPES[i].name)) e->type = TYPES[i].type, size = TYPES[i].bytes;
  if (!size || !json_is_array(shape) || json_array_size(shape) > FORAY_ST_DIMS || json_array_size(off) != 2)
    return false;
  e->t.name = name;
  e->t.dims = (int)json_array_size(shape);
  for (int i = 0; i < e->t.dims; i++) {
    json_int_t d = json_integer_value(json_array_get(shape, (size_t)i));
    if (d < 1 || !foray_mul_size(n, (size_t)d, &n)) return false;
    e->t.shape[i] = (uint64_t)d;
  }
  json_int_t a = json_integer_value(json_array_get(off, 0)), b = json_integer_value(json_array_get(off, 1));
  e->t.n = n;
  if (a < 0 || b < a || !foray_mul_size(n, size, &n) || (size_t)(b - a) != n) return false;
  e->from = (size_t)a, e->to = (size_t)b;
  return true;
}

static int by_offset(const void *a, const void *b) {
  const struct entry *x = a, *y = b;
  return x->from < y->from ? -1 : x->from > y->from;
}

static enum foray_status parse(struct foray_st *s, const char *path, const char *text, size_t len,
                               struct foray_err *err) {
  json_error_t je;
  const char *name;
  json_t *v;
  s->head = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
  if (!json_is_object(s->head)) return foray_err_set(err, FORAY_E_FORMAT, "%s: header: %s", path, je.text);
  s->entry = calloc(json_object_size(s->head) + 1, sizeof *s->entry);
  if (!s->entry) return foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", path);
  json_object_foreach(s->head, name, v) {
    if (!strcmp(name, "__metadata__")) continue;
    if (!entry_read(&s->entry[s->n], name, v))
      return foray_err_set(err, FORAY_E_FORMAT, "%s: tensor '%s': dtype, shape and offsets do not fit", path,
                           name);
    s->n++;
  }
  qsort(s->entry, s->n, sizeof *s->entry, by_offset);
  size_t at = 0;
  for (size_t i = 0; i < s->n; at = s->entry[i++].to)
    if (s->entry[i].from != at)
      return foray_err_set(err, FORAY_E_FORMAT, "%s: tensor '%s' does not start where the one before it ends",
                           path, s->entry[i].t.name);
  return at == s->size
             ? FORAY_OK
             : foray_err_set(err, FORAY_E_FORMAT, "%s: %zu bytes of tensors, %zu of data (truncated?)", path,
                             at, s->size);
}

enum foray_status foray_st_open(const char *path, struct foray_st **out, struct foray_err *err) {
  struct stat info;
  uint64_t len = 0;
  char *text = NULL;
  struct foray_st *s = calloc(1, sizeof *s);
  FILE *f = fopen(path, "rb");
  enum foray_status st = FORAY_OK;
  if (!s) st = foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", path);
  if (!st && (!f || fstat(fileno(f), &info)))
    st = foray_err_set(err, errno == ENOENT ? FORAY_E_NOTFOUND : FORAY_E_IO, "%s: %s", path, strerror(errno));
  if (!st && (fread(&len, 8, 1, f) != 1 || len > FORAY_ST_HEADER_MAX || len + 8 > (uint64_t)info.st_size))
    st = foray_err_set(err, FORAY_E_FORMAT, "%s: not a safetensors file, or truncated", path);
  if (!st) {
    s->size = (size_t)info.st_size - 8 - (size_t)len;
    text = malloc((size_t)len + 1);
    s->data = malloc(s->size ? s->size : 1);
    if (!text || !s->data)
      st = foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", path);
    else if (fread(text, 1, (size_t)len, f) != len || fread(s->data, 1, s->size, f) != s->size)
      st = foray_err_set(err, FORAY_E_IO, "%s: read error", path);
  }
  if (!st) st = parse(s, path, text, (size_t)len, err);
  free(text);
  if (f) fclose(f);
  if (st) {
    foray_st_close(s);
    return st;
  }
  *out = s;
  return FORAY_OK;
}

size_t foray_st_count(const struct foray_st *s) { return s->n; }
const struct foray_st_tensor *foray_st_at(const struct foray_st *s, size_t i) { return &s->entry[i].t; }
const struct foray_st_tensor *foray_st_find(const struct foray_st *s, const char *name) {
  for (size_t i = 0; i < s->n; i++)
    if (!strcmp(s->entry[i].t.name, name)) return &s->entry[i].t;
  return NULL;
}
const char *foray_st_meta(const struct foray_st *s, const char *key) {
  return json_string_value(json_object_get(json_object_get(s->head, "__metadata__"), key));
}
void foray_st_read(const struct foray_st *s, const struct foray_st_tensor *t, float *out) {
  const struct entry *e = (const struct entry *)(const void *)t; /* t is its first member */
  if (foray_dequant_row(e->type, s->data + e->from, out, t->n)) memset(out, 0, t->n * sizeof(float));
}
