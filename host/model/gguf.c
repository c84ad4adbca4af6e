#include "model/gguf.h"

#include "core/checked.h"
#include "core/err.h"
#include "model/quant.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are read in place");

enum {
  KEY_MAX = 65535,
  ALIGN_MIN = 8,
  ALIGN_MAX = 1 << 20,
  KV_BYTES_MIN = 14,    /* key length, one byte of key, type, one byte of value */
  TENSOR_BYTES_MIN = 33 /* name length, one byte, n_dims, one ne, type, offset */
};

struct foray_gguf {
  char *path;
  const uint8_t *data;
  size_t size;
  bool mapped;
  uint32_t version;
  uint32_t align;
  struct foray_gguf_kv *kv;
  size_t n_kv;
  struct foray_gguf_tensor *tensors;
  size_t n_tensors;
  /* Indices in the order of the names. Sorted tables rather than a hash: a file cannot make them slow. */
  uint32_t *kv_order, *tensor_order;
};

struct cursor {
  struct foray_gguf *g;
  size_t pos;
  struct foray_err *err;
};

/* A name from the file, made safe to print: cut at 80 bytes, control and non-ASCII bytes shown as '?'. */
struct shown {
  char s[84];
};
static struct shown show(const char *p, size_t n) {
  struct shown r;
  size_t k = n < 80 ? n : 80;
  for (size_t i = 0; i < k; i++) r.s[i] = p[i] >= 0x20 && p[i] < 0x7f ? p[i] : '?';
  if (n > k) memcpy(r.s + k, "..", 3);
  r.s[n > k ? k + 2 : k] = 0;
  return r;
}

__attribute__((format(printf, 4, 5))) static enum foray_status fail(struct cursor *c, enum foray_status code,
                                                                    size_t off, const char *fmt, ...) {
  char why[FORAY_ERR_MSG_MAX];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(why, sizeof why, fmt, ap);
  va_end(ap);
  return foray_err_set(c->err, code, "%s: offset %zu: %s", c->g->path, off, why);
}

static size_t left(const struct cursor *c) { return c->g->size - c->pos; }

static enum foray_status take(struct cursor *c, void *out, size_t n, const char *what) {
  if (left(c) < n)
    return fail(c, FORAY_E_FORMAT, c->pos, "the file ends inside %s (%zu bytes needed, %zu left)", what, n,
                left(c));
  memcpy(out, c->g->data + c->pos, n);
  c->pos += n;
  return FORAY_OK;
}

static enum foray_status take_str(struct cursor *c, struct foray_gguf_str *out, const char *what) {
  uint64_t len = 0;
  size_t at = c->pos;
  enum foray_status s = take(c, &len, sizeof len, what);
  if (s) return s;
  if (len > left(c))
    return fail(c, FORAY_E_FORMAT, at, "%s has a length of %llu bytes, but only %zu are left", what,
                (unsigned long long)len, left(c));
  *out = (struct foray_gguf_str){(const char *)c->g->data + c->pos, (size_t)len};
  c->pos += (size_t)len;
  return FORAY_OK;
}

static size_t scalar_bytes(uint32_t t) {
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
  default: return 0;
  }
}

const char *foray_gguf_vtype_name(enum foray_gguf_vtype t) {
  static const char *const names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                      "bool", "string", "array", "u64", "i64", "f64"};
  return (unsigned)t < sizeof names / sizeof *names ? names[t] : "?";
}

static enum foray_status take_array(struct cursor *c, struct foray_gguf_kv *kv) {
  size_t at = c->pos;
  struct shown key = show(kv->key.ptr, kv->key.len);
  uint32_t elem = 0;
  enum foray_status s = take(c, &elem, sizeof elem, "an array's element type");
  if (!s) s = take(c, &kv->count, sizeof kv->count, "an array's count");
  if (s) return s;
  kv->elem = (enum foray_gguf_vtype)elem;
  kv->data = c->g->data + c->pos;
  if (elem == FORAY_GGUF_STR) {
    if (kv->count > left(c) / 8)
      return fail(c, FORAY_E_FORMAT, at, "array '%s' claims %llu strings, but only %zu bytes are left", key.s,
                  (unsigned long long)kv->count, left(c));
    for (uint64_t i = 0; i < kv->count; i++) {
      struct foray_gguf_str str = {0};
      if ((s = take_str(c, &str, "a string of an array"))) return s;
    }
  } else {
    size_t unit = scalar_bytes(elem);
    if (!unit)
      return fail(c, FORAY_E_FORMAT, at, "array '%s' has element type %u, which is not allowed", key.s, elem);
    if (kv->count > left(c) / unit)
      return fail(c, FORAY_E_FORMAT, at, "array '%s' claims %llu elements, but only %zu bytes are left",
                  key.s, (unsigned long long)kv->count, left(c));
    c->pos += (size_t)kv->count * unit;
  }
  kv->bytes = (uint64_t)(c->g->data + c->pos - kv->data);
  return FORAY_OK;
}

static enum foray_status take_kv(struct cursor *c, struct foray_gguf_kv *kv) {
  size_t at = c->pos;
  enum foray_status s = take_str(c, &kv->key, "a key");
  if (s) return s;
  if (kv->key.len == 0 || kv->key.len > KEY_MAX)
    return fail(c, FORAY_E_FORMAT, at, "a key has %zu bytes; 1..%d are allowed", kv->key.len, KEY_MAX);
  struct shown key = show(kv->key.ptr, kv->key.len);
  size_t type_at = c->pos;
  uint32_t type = 0;
  if ((s = take(c, &type, sizeof type, "a value's type"))) return s;
  kv->type = kv->elem = (enum foray_gguf_vtype)type;
  kv->count = 1;
  if (type == FORAY_GGUF_ARRAY) return take_array(c, kv);
  if (type == FORAY_GGUF_STR) {
    struct foray_gguf_str str = {0};
    if ((s = take_str(c, &str, "a string value"))) return s;
    kv->data = (const uint8_t *)str.ptr;
    kv->bytes = kv->count = str.len;
    return FORAY_OK;
  }
  size_t unit = scalar_bytes(type);
  if (!unit)
    return fail(c, FORAY_E_FORMAT, type_at, "key '%s' has value type %u, which does not exist", key.s, type);
  uint8_t value[8] = {0};
  kv->data = c->g->data + c->pos;
  kv->bytes = unit;
  if ((s = take(c, value, unit, "a value"))) return s;
  if (type == FORAY_GGUF_BOOL && value[0] > 1)
    return fail(c, FORAY_E_FORMAT, type_at, "key '%s' is a bool with value %u", key.s, value[0]);
  return FORAY_OK;
}

static enum foray_status take_tensor(struct cursor *c, struct foray_gguf_tensor *t, uint64_t *running) {
  size_t at = c->pos;
  struct foray_gguf_str name = {0};
  enum foray_status s = take_str(c, &name, "a tensor's name");
  if (s) return s;
  if (name.len == 0 || name.len >= FORAY_GGUF_NAME_MAX || memchr(name.ptr, 0, name.len))
    return fail(c, FORAY_E_FORMAT, at,
                "a tensor's name has %zu bytes or a zero byte; 1..%d bytes are allowed", name.len,
                FORAY_GGUF_NAME_MAX - 1);
  memset(t, 0, sizeof *t);
  memcpy(t->name, name.ptr, name.len);
  struct shown shown = show(name.ptr, name.len);
  if ((s = take(c, &t->n_dims, sizeof t->n_dims, "a tensor's dimensions"))) return s;
  if (t->n_dims < 1 || t->n_dims > FORAY_GGUF_DIMS_MAX)
    return fail(c, FORAY_E_FORMAT, at, "tensor '%s' has %u dimensions; 1..%d are allowed", shown.s, t->n_dims,
                FORAY_GGUF_DIMS_MAX);
  uint64_t elems = 1;
  for (uint32_t i = 0; i < FORAY_GGUF_DIMS_MAX; i++) {
    t->ne[i] = 1;
    if (i >= t->n_dims) continue;
    if ((s = take(c, &t->ne[i], 8, "a tensor's shape"))) return s;
    if (t->ne[i] == 0 || t->ne[i] > INT64_MAX || !foray_mul_u64(elems, t->ne[i], &elems) || elems > INT64_MAX)
      return fail(c, FORAY_E_FORMAT, at, "tensor '%s': dimension %u is %llu: zero, negative or too large",
                  shown.s, i, (unsigned long long)t->ne[i]);
  }
  if ((s = take(c, &t->type, sizeof t->type, "a tensor's type"))) return s;
  const struct foray_type_info *info = foray_type_info(t->type);
  if (!info)
    return fail(c, FORAY_E_UNSUPPORTED, at, "tensor '%s' has type %u, which is not supported", shown.s,
                t->type);
  if (t->ne[0] % info->elems)
    return fail(c, FORAY_E_FORMAT, at,
                "tensor '%s': rows of %llu elements are not a multiple of %s's block of %u", shown.s,
                (unsigned long long)t->ne[0], info->name, info->elems);
  if (!foray_mul_u64(elems / info->elems, info->bytes, &t->bytes))
    return fail(c, FORAY_E_FORMAT, at, "tensor '%s' is larger than 2^64 bytes", shown.s);
  if ((s = take(c, &t->offset, sizeof t->offset, "a tensor's offset"))) return s;
  if (t->offset != *running)
    return fail(c, FORAY_E_FORMAT, at,
                "tensor '%s' lies at data offset %llu; %llu is where the one before it ends", shown.s,
                (unsigned long long)t->offset, (unsigned long long)*running);
  uint64_t end;
  if (!foray_add_u64(t->offset, t->bytes, &end) || !foray_align_up_u64(end, c->g->align, running))
    return fail(c, FORAY_E_FORMAT, at, "the tensors up to '%s' are larger than 2^64 bytes", shown.s);
  return FORAY_OK;
}

static int cmp_bytes(const char *a, size_t na, const char *b, size_t nb) {
  int r = memcmp(a, b, na < nb ? na : nb);
  return r ? r : (na > nb) - (na < nb);
}
static int cmp_kv(const void *a, const void *b, void *arg) {
  const struct foray_gguf *g = arg;
  const struct foray_gguf_str x = g->kv[*(const uint32_t *)a].key, y = g->kv[*(const uint32_t *)b].key;
  return cmp_bytes(x.ptr, x.len, y.ptr, y.len);
}
static int cmp_tensor(const void *a, const void *b, void *arg) {
  const struct foray_gguf *g = arg;
  return strcmp(g->tensors[*(const uint32_t *)a].name, g->tensors[*(const uint32_t *)b].name);
}

static enum foray_status make_order(struct cursor *c, size_t n, uint32_t **out,
                                    int (*cmp)(const void *, const void *, void *)) {
  uint32_t *order = malloc((n ? n : 1) * sizeof *order);
  if (!order) return foray_err_set(c->err, FORAY_E_NOMEM, "%s: out of memory", c->g->path);
  for (size_t i = 0; i < n; i++) order[i] = (uint32_t)i;
  qsort_r(order, n, sizeof *order, cmp, c->g);
  *out = order;
  return FORAY_OK;
}

/* Grows an array by doubling, so that memory follows what was really read, not what the header claims. */
static void *grow(void *p, size_t n, size_t *cap, size_t unit) {
  if (n < *cap) return p;
  size_t want = *cap ? *cap * 2 : 16;
  void *q = realloc(p, want * unit);
  if (q) *cap = want;
  return q;
}

static enum foray_status parse_kvs(struct cursor *c, uint64_t n) {
  struct foray_gguf *g = c->g;
  size_t cap = 0;
  for (uint64_t i = 0; i < n; i++) {
    struct foray_gguf_kv *p = grow(g->kv, g->n_kv, &cap, sizeof *p);
    if (!p) return foray_err_set(c->err, FORAY_E_NOMEM, "%s: out of memory for the metadata", g->path);
    g->kv = p;
    enum foray_status s = take_kv(c, &g->kv[g->n_kv]);
    if (s) return s;
    g->n_kv++;
  }
  enum foray_status s = make_order(c, g->n_kv, &g->kv_order, cmp_kv);
  if (s) return s;
  for (size_t i = 1; i < g->n_kv; i++) {
    if (cmp_kv(&g->kv_order[i - 1], &g->kv_order[i], g)) continue;
    const struct foray_gguf_str k = g->kv[g->kv_order[i]].key;
    return fail(c, FORAY_E_FORMAT, (size_t)((const uint8_t *)k.ptr - g->data), "key '%s' occurs twice",
                show(k.ptr, k.len).s);
  }
  return FORAY_OK;
}

static enum foray_status parse_tensors(struct cursor *c, uint64_t n) {
  struct foray_gguf *g = c->g;
  size_t cap = 0;
  uint64_t running = 0;
  for (uint64_t i = 0; i < n; i++) {
    struct foray_gguf_tensor *p = grow(g->tensors, g->n_tensors, &cap, sizeof *p);
    if (!p) return foray_err_set(c->err, FORAY_E_NOMEM, "%s: out of memory for the tensor table", g->path);
    g->tensors = p;
    enum foray_status s = take_tensor(c, &g->tensors[g->n_tensors], &running);
    if (s) return s;
    g->n_tensors++;
  }
  enum foray_status s = make_order(c, g->n_tensors, &g->tensor_order, cmp_tensor);
  if (s) return s;
  for (size_t i = 1; i < g->n_tensors; i++) {
    const char *name = g->tensors[g->tensor_order[i]].name;
    if (strcmp(g->tensors[g->tensor_order[i - 1]].name, name) == 0)
      return fail(c, FORAY_E_FORMAT, c->pos, "tensor '%s' occurs twice", show(name, strlen(name)).s);
  }
  return FORAY_OK;
}

/* Turns offsets inside the data section into pointers, after all of them were found to fit. */
static enum foray_status place_tensors(struct cursor *c) {
  struct foray_gguf *g = c->g;
  uint64_t start;
  if (g->n_tensors == 0) return FORAY_OK;
  if (!foray_align_up_u64(c->pos, g->align, &start))
    return fail(c, FORAY_E_FORMAT, c->pos, "the header is too large");
  for (size_t i = 0; i < g->n_tensors; i++) {
    struct foray_gguf_tensor *t = &g->tensors[i];
    uint64_t begin = start, end;
    if (!foray_add_u64(start, t->offset, &begin) || !foray_add_u64(begin, t->bytes, &end) || end > g->size)
      return fail(c, FORAY_E_FORMAT, begin, "tensor '%s' needs %llu bytes there, but the file has %zu in all",
                  show(t->name, strlen(t->name)).s, (unsigned long long)t->bytes, g->size);
    t->offset = begin;
    t->data = g->data + begin;
  }
  return FORAY_OK;
}

static enum foray_status parse(struct foray_gguf *g, struct foray_err *err) {
  struct cursor cur = {.g = g, .err = err}, *c = &cur;
  char magic[4];
  enum foray_status s = take(c, magic, 4, "the magic number");
  if (s) return s;
  if (memcmp(magic, "GGUF", 4))
    return fail(c, FORAY_E_FORMAT, 0, "this is not a GGUF file (it begins with other bytes)");
  if ((s = take(c, &g->version, 4, "the version"))) return s;
  if (g->version && (g->version & 0xffff) == 0)
    return fail(c, FORAY_E_UNSUPPORTED, 4,
                "the file is in big-endian byte order; only little-endian is supported");
  if (g->version != 2 && g->version != 3)
    return fail(c, FORAY_E_UNSUPPORTED, 4, "GGUF version %u; versions 2 and 3 are supported", g->version);
  uint64_t n_tensors = 0, n_kv = 0;
  if ((s = take(c, &n_tensors, 8, "the tensor count"))) return s;
  if ((s = take(c, &n_kv, 8, "the metadata count"))) return s;
  if (n_tensors > left(c) / TENSOR_BYTES_MIN)
    return fail(c, FORAY_E_FORMAT, 8, "%llu tensors do not fit in the %zu bytes that follow",
                (unsigned long long)n_tensors, left(c));
  if (n_kv > left(c) / KV_BYTES_MIN)
    return fail(c, FORAY_E_FORMAT, 16, "%llu metadata entries do not fit in the %zu bytes that follow",
                (unsigned long long)n_kv, left(c));
  if (n_tensors > UINT32_MAX || n_kv > UINT32_MAX)
    return fail(c, FORAY_E_LIMIT, 8, "more than 2^32 tensors or metadata entries");
  if ((s = parse_kvs(c, n_kv))) return s;

  const struct foray_gguf_kv *kv = foray_gguf_find_kv(g, "general.alignment");
  if (kv) {
    size_t at = (size_t)((const uint8_t *)kv->key.ptr - g->data);
    if (kv->type != FORAY_GGUF_U32)
      return fail(c, FORAY_E_FORMAT, at, "general.alignment is of type %s; it must be u32",
                  foray_gguf_vtype_name(kv->type));
    memcpy(&g->align, kv->data, 4);
    if (g->align < ALIGN_MIN || g->align > ALIGN_MAX || (g->align & (g->align - 1)))
      return fail(c, FORAY_E_FORMAT, at, "general.alignment is %u; it must be a power of two from %d to %d",
                  g->align, ALIGN_MIN, ALIGN_MAX);
  }
  uint32_t splits = 1;
  if ((s = foray_gguf_opt_u32(g, "split.count", &splits, err))) return s;
  if (splits > 1)
    return foray_err_set(err, FORAY_E_UNSUPPORTED,
                         "%s: this is one of %u parts of a split model; join them first "
                         "(llama.cpp's llama-gguf-split --merge does)",
                         g->path, splits);
  if ((s = parse_tensors(c, n_tensors))) return s;
  return place_tensors(c);
}

static enum foray_status open_bytes(const void *data, size_t size, const char *label, bool mapped,
                                    struct foray_gguf **out, struct foray_err *err) {
  struct foray_gguf *g = calloc(1, sizeof *g);
  char *path = strdup(label);
  if (!g || !path) {
    free(g);
    free(path);
    if (mapped) munmap((void *)(uintptr_t)data, size);
    return foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", label);
  }
  *g = (struct foray_gguf){
      .path = path, .data = data, .size = size, .mapped = mapped, .align = FORAY_GGUF_ALIGN};
  enum foray_status s = parse(g, err);
  if (s) {
    foray_gguf_close(g);
    return s;
  }
  *out = g;
  return FORAY_OK;
}

enum foray_status foray_gguf_open_memory(const void *data, size_t size, const char *label,
                                         struct foray_gguf **out, struct foray_err *err) {
  *out = NULL;
  return open_bytes(data, size, label, false, out, err);
}

enum foray_status foray_gguf_open(const char *path, struct foray_gguf **out, struct foray_err *err) {
  *out = NULL;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return foray_err_set(err, errno == ENOENT ? FORAY_E_NOTFOUND : FORAY_E_IO, "%s: %s", path,
                         strerror(errno));
  struct stat st;
  if (fstat(fd, &st)) {
    int e = errno;
    close(fd);
    return foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(e));
  }
  if (!S_ISREG(st.st_mode) || st.st_size <= 0) {
    close(fd);
    return foray_err_set(err, FORAY_E_FORMAT, "%s: offset 0: %s", path,
                         S_ISREG(st.st_mode) ? "the file is empty" : "this is not a regular file");
  }
  void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
  int e = errno;
  close(fd);
  if (p == MAP_FAILED) return foray_err_set(err, FORAY_E_IO, "%s: cannot be mapped: %s", path, strerror(e));
  return open_bytes(p, (size_t)st.st_size, path, true, out, err);
}

void foray_gguf_close(struct foray_gguf *g) {
  if (!g) return;
  if (g->mapped) munmap((void *)(uintptr_t)g->data, g->size);
  free(g->path);
  free(g->kv);
  free(g->tensors);
  free(g->kv_order);
  free(g->tensor_order);
  free(g);
}

const char *foray_gguf_path(const struct foray_gguf *g) { return g->path; }
uint64_t foray_gguf_file_bytes(const struct foray_gguf *g) { return g->size; }
const uint8_t *foray_gguf_file_data(const struct foray_gguf *g) { return g->data; }
uint32_t foray_gguf_version(const struct foray_gguf *g) { return g->version; }
size_t foray_gguf_n_kv(const struct foray_gguf *g) { return g->n_kv; }
const struct foray_gguf_kv *foray_gguf_kv_at(const struct foray_gguf *g, size_t i) { return &g->kv[i]; }
size_t foray_gguf_n_tensors(const struct foray_gguf *g) { return g->n_tensors; }
const struct foray_gguf_tensor *foray_gguf_tensor_at(const struct foray_gguf *g, size_t i) {
  return &g->tensors[i];
}

const struct foray_gguf_kv *foray_gguf_find_kv(const struct foray_gguf *g, const char *key) {
  size_t lo = 0, hi = g->n_kv, len = strlen(key);
  while (lo < hi) {
    size_t mid = lo + (hi - lo) / 2;
    const struct foray_gguf_kv *kv = &g->kv[g->kv_order[mid]];
    int r = cmp_bytes(kv->key.ptr, kv->key.len, key, len);
    if (r == 0) return kv;
    if (r < 0)
      lo = mid + 1;
    else
      hi = mid;
  }
  return NULL;
}

const struct foray_gguf_tensor *foray_gguf_find_tensor(const struct foray_gguf *g, const char *name) {
  size_t lo = 0, hi = g->n_tensors;
  while (lo < hi) {
    size_t mid = lo + (hi - lo) / 2;
    const struct foray_gguf_tensor *t = &g->tensors[g->tensor_order[mid]];
    int r = strcmp(t->name, name);
    if (r == 0) return t;
    if (r < 0)
      lo = mid + 1;
    else
      hi = mid;
  }
  return NULL;
}
