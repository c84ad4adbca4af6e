/* Typed access to the metadata of an opened file. */
#include "core/err.h"
#include "model/gguf.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static enum foray_status absent(const struct foray_gguf *g, const char *key, struct foray_err *err) {
  return foray_err_set(err, FORAY_E_NOTFOUND, "%s: key '%s' is missing", foray_gguf_path(g), key);
}

static enum foray_status wrong(const struct foray_gguf *g, const struct foray_gguf_kv *kv, const char *want,
                               struct foray_err *err) {
  return foray_err_set(err, FORAY_E_FORMAT, "%s: offset %zu: key '%.*s' is of type %s%s%s; %s is needed",
                       foray_gguf_path(g), (size_t)((const uint8_t *)kv->key.ptr - foray_gguf_file_data(g)),
                       (int)(kv->key.len < 80 ? kv->key.len : 80), kv->key.ptr,
                       foray_gguf_vtype_name(kv->type), kv->type == FORAY_GGUF_ARRAY ? " of " : "",
                       kv->type == FORAY_GGUF_ARRAY ? foray_gguf_vtype_name(kv->elem) : "", want);
}

/* An integer of any width as sign and magnitude's worth: false when it is negative or not an integer. */
static bool as_unsigned(const struct foray_gguf_kv *kv, uint64_t *out) {
  uint64_t raw = 0;
  if (kv->bytes > 8) return false;
  memcpy(&raw, kv->data, (size_t)kv->bytes);
  switch (kv->type) {
  case FORAY_GGUF_U8:
  case FORAY_GGUF_U16:
  case FORAY_GGUF_U32:
  case FORAY_GGUF_U64: break;
  case FORAY_GGUF_I8:
  case FORAY_GGUF_I16:
  case FORAY_GGUF_I32:
  case FORAY_GGUF_I64:
    if (raw >> (8 * kv->bytes - 1)) return false;
    break;
  default: return false;
  }
  *out = raw;
  return true;
}

enum foray_status foray_gguf_get_u64(const struct foray_gguf *g, const char *key, uint64_t *out,
                                     struct foray_err *err) {
  const struct foray_gguf_kv *kv = foray_gguf_find_kv(g, key);
  if (!kv) return absent(g, key, err);
  if (!as_unsigned(kv, out)) return wrong(g, kv, "a non-negative integer", err);
  return FORAY_OK;
}

enum foray_status foray_gguf_get_u32(const struct foray_gguf *g, const char *key, uint32_t *out,
                                     struct foray_err *err) {
  const struct foray_gguf_kv *kv = foray_gguf_find_kv(g, key);
  uint64_t v;
  if (!kv) return absent(g, key, err);
  if (!as_unsigned(kv, &v) || v > UINT32_MAX) return wrong(g, kv, "an integer from 0 to 2^32-1", err);
  *out = (uint32_t)v;
  return FORAY_OK;
}

enum foray_status foray_gguf_get_f32(const struct foray_gguf *g, const char *key, float *out,
                                     struct foray_err *err) {
  const struct foray_gguf_kv *kv = foray_gguf_find_kv(g, key);
  if (!kv) return absent(g, key, err);
  float f;
  if (kv->type == FORAY_GGUF_F32) {
    memcpy(&f, kv->data, sizeof f);
  } else if (kv->type == FORAY_GGUF_F64) {
    double d;
    memcpy(&d, kv->data, sizeof d);
    f = (float)d;
  } else {
    return wrong(g, kv, "f32", err);
  }
  if (!isfinite(f)) return wrong(g, kv, "a finite number", err);
  *out = f;
  return FORAY_OK;
}

enum foray_status foray_gguf_get_bool(const struct foray_gguf *g, const char *key, bool *out,
                                      struct foray_err *err) {
  const struct foray_gguf_kv *kv = foray_gguf_find_kv(g, key);
  if (!kv) return absent(g, key, err);
  if (kv->type != FORAY_GGUF_BOOL) return wrong(g, kv, "bool", err);
  *out = kv->data[0] != 0;
  return FORAY_OK;
}

enum foray_status foray_gguf_get_str(const struct foray_gguf *g, const char *key, struct foray_gguf_str *out,
                                     struct foray_err *err) {
  const struct foray_gguf_kv *kv = foray_gguf_find_kv(g, key);
  if (!kv) return absent(g, key, err);
  if (kv->type != FORAY_GGUF_STR) return wrong(g, kv, "string", err);
  *out = (struct foray_gguf_str){(const char *)kv->data, (size_t)kv->bytes};
  return FORAY_OK;
}

enum foray_status foray_gguf_get_array(const struct foray_gguf *g, const char *key,
                                       enum foray_gguf_vtype elem, const struct foray_gguf_kv **out,
                                       struct foray_err *err) {
  const struct foray_gguf_kv *kv = foray_gguf_find_kv(g, key);
  if (!kv) return absent(g, key, err);
  if (kv->type != FORAY_GGUF_ARRAY || kv->elem != elem) {
    char want[32];
    snprintf(want, sizeof want, "array of %s", foray_gguf_vtype_name(elem));
    return wrong(g, kv, want, err);
  }
  *out = kv;
  return FORAY_OK;
}

#define OPT(name, type)                                                                                      \
  enum foray_status foray_gguf_opt_##name(const struct foray_gguf *g, const char *key, type *out,            \
                                          struct foray_err *err) {                                           \
    return foray_gguf_find_kv(g, key) ? foray_gguf_get_##name(g, key, out, err) : FORAY_OK;                  \
  }
OPT(u32, uint32_t)
OPT(u64, uint64_t)
OPT(f32, float)
OPT(bool, bool)
OPT(str, struct foray_gguf_str)

uint32_t foray_gguf_array_u32(const struct foray_gguf_kv *kv, uint64_t i) {
  uint32_t v;
  memcpy(&v, kv->data + i * 4, sizeof v);
  return v;
}

float foray_gguf_array_f32(const struct foray_gguf_kv *kv, uint64_t i) {
  float v;
  memcpy(&v, kv->data + i * 4, sizeof v);
  return v;
}

bool foray_gguf_array_next(const struct foray_gguf_kv *kv, size_t *at, struct foray_gguf_str *out) {
  if (*at >= kv->bytes) return false;
  uint64_t len;
  memcpy(&len, kv->data + *at, sizeof len);
  *out = (struct foray_gguf_str){(const char *)kv->data + *at + 8, (size_t)len};
  *at += 8 + (size_t)len;
  return true;
}
