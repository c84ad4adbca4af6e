#include "model/exits.h"

#include <math.h>
#include <stdio.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"
#include "core/hash.h"
#include "model/gguf.h"
#include "model/quant.h"

static enum foray_status bad(const char *path, struct foray_err *err, const char *what) {
  return foray_err_set(err, FORAY_E_FORMAT, "%s: not a valid exits file: %s", path, what);
}

void foray_exits_close(struct foray_exits *x) {
  if (!x) return;
  for (int e = 0; e < FORAY_EXITS_MAX; e++)
    free(x->exit[e].norm), free(x->exit[e].map), free(x->exit[e].prev);
  for (uint32_t i = 0; x->lora && i < x->n_lora; i++) free(x->lora[i].a), free(x->lora[i].b);
  free(x->lora);
  free(x->vocab);
  free(x->command);
  free(x);
}

static enum foray_status text(const struct foray_gguf *g, const char *key, char *out, size_t cap,
                              struct foray_err *err) {
  struct foray_gguf_str s;
  enum foray_status st = foray_gguf_get_str(g, key, &s, err);
  if (st) return st;
  if (s.len >= cap)
    return foray_err_set(err, FORAY_E_FORMAT, "%s: %s is longer than %zu bytes", foray_gguf_path(g), key,
                         cap - 1);
  memcpy(out, s.ptr, s.len);
  out[s.len] = 0;
  return FORAY_OK;
}

static bool hex64(const char *s) {
  size_t n = strspn(s, "0123456789abcdef");
  return n == 64 && s[n] == 0;
}

/* Owned floats of a tensor of exactly this shape; every value finite. */
static enum foray_status floats(const struct foray_gguf *g, const char *name, uint64_t ne0, uint64_t ne1,
                                float **out, struct foray_err *err) {
  const struct foray_gguf_tensor *t = foray_gguf_find_tensor(g, name);
  if (!t || t->ne[0] != ne0 || t->ne[1] != ne1 || t->ne[2] != 1 || t->ne[3] != 1)
    return foray_err_set(err, FORAY_E_FORMAT, "%s: tensor %s is missing or not %llu x %llu",
                         foray_gguf_path(g), name, (unsigned long long)ne0, (unsigned long long)ne1);
  size_t row = foray_type_row_bytes(t->type, (size_t)ne0);
  float *w = malloc((size_t)(ne0 * ne1) * sizeof(float));
  if (!w) return foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", foray_gguf_path(g));
  for (uint64_t r = 0; r < ne1; r++)
    if (foray_dequant_row(t->type, t->data + r * row, w + r * ne0, (size_t)ne0)) {
      free(w);
      return foray_err_set(err, FORAY_E_FORMAT, "%s: tensor %s has a type without values", foray_gguf_path(g),
                           name);
    }
  for (uint64_t i = 0; i < ne0 * ne1; i++)
    if (!isfinite(w[i])) {
      free(w);
      return foray_err_set(err, FORAY_E_FORMAT, "%s: tensor %s has a value that is not finite",
                           foray_gguf_path(g), name);
    }
  *out = w;
  return FORAY_OK;
}

static enum foray_status head(struct foray_exits *x, const struct foray_gguf *g, struct foray_err *err) {
  const char *path = foray_gguf_path(g);
  struct foray_gguf_str s;
  uint32_t version = 0;
  enum foray_status st = foray_gguf_get_str(g, "adapter.type", &s, err);
  if (st) return st;
  if (s.len != 11 || memcmp(s.ptr, "foray-exits", 11)) return bad(path, err, "adapter.type is another");
  if ((st = foray_gguf_get_u32(g, "foray.exits.version", &version, err))) return st;
  if (version < 1 || version > FORAY_EXITS_VERSION)
    return foray_err_set(err, FORAY_E_UNSUPPORTED, "%s: exits file of version %u, this program reads 1 to %d",
                         path, version, FORAY_EXITS_VERSION);
  if ((st = text(g, "foray.exits.base", x->base_sha256, sizeof x->base_sha256, err))) return st;
  if ((st = text(g, "foray.exits.target", x->target_sha256, sizeof x->target_sha256, err))) return st;
  if ((st = text(g, "foray.exits.sha256", x->sha256, sizeof x->sha256, err))) return st;
  if (!hex64(x->base_sha256) || !hex64(x->sha256) || (x->target_sha256[0] && !hex64(x->target_sha256)))
    return bad(path, err, "a hash is not 64 hexadecimal digits");
  if (foray_gguf_get_str(g, "general.name", &s, err)) return err ? err->code : FORAY_E_FORMAT;
  snprintf(x->name, sizeof x->name, "%.*s", (int)(s.len < 63 ? s.len : 63), s.ptr);
  if ((st = foray_gguf_get_u32(g, "foray.exits.n_layer", &x->n_layer, err))) return st;
  if ((st = foray_gguf_get_u32(g, "foray.exits.n_embd", &x->n_embd, err))) return st;
  if (x->n_layer < 2 || x->n_layer > 512 || x->n_embd < 1 || x->n_embd > 16384)
    return bad(path, err, "model shape out of range");
  if ((st = foray_gguf_get_str(g, "foray.exits.command", &s, err))) return st;
  x->command = malloc(s.len + 1);
  if (!x->command) return foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", path);
  memcpy(x->command, s.ptr, s.len);
  x->command[s.len] = 0;
  return FORAY_OK;
}

static enum foray_status vocab(struct foray_exits *x, const struct foray_gguf *g, struct foray_err *err) {
  const char *path = foray_gguf_path(g);
  const struct foray_gguf_tensor *t = foray_gguf_find_tensor(g, "vocab.ids");
  if (!t || t->type != FORAY_GGML_I32 || t->n_dims != 1 || t->ne[0] < 1 || t->ne[0] > 1u << 22)
    return bad(path, err, "vocab.ids is missing or not a list of I32");
  x->n_vocab = (uint32_t)t->ne[0];
  x->vocab = malloc((size_t)x->n_vocab * 4);
  uint8_t *seen = calloc(1u << 19, 1); /* a bit per id below 2^22 */
  enum foray_status st =
      x->vocab && seen ? FORAY_OK : foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", path);
  if (!st) memcpy(x->vocab, t->data, (size_t)x->n_vocab * 4);
  for (uint32_t i = 0; !st && i < x->n_vocab; i++) {
    uint32_t id = x->vocab[i];
    if (id >= 1u << 22)
      st = bad(path, err, "vocab.ids has an id out of range");
    else if (seen[id >> 3] & 1u << (id & 7))
      st = bad(path, err, "vocab.ids names an id twice");
    else
      seen[id >> 3] = (uint8_t)(seen[id >> 3] | 1u << (id & 7));
  }
  free(seen);
  return st;
}

static enum foray_status exits(struct foray_exits *x, const struct foray_gguf *g, struct foray_err *err) {
  const char *path = foray_gguf_path(g);
  const struct foray_gguf_kv *layer, *rows, *thr;
  enum foray_status st;
  if ((st = foray_gguf_get_array(g, "foray.exits.layer", FORAY_GGUF_U32, &layer, err)) ||
      (st = foray_gguf_get_array(g, "foray.exits.head_rows", FORAY_GGUF_U32, &rows, err)) ||
      (st = foray_gguf_get_array(g, "foray.exits.threshold", FORAY_GGUF_F32, &thr, err)))
    return st;
  if (layer->count > FORAY_EXITS_MAX || rows->count != layer->count || thr->count != layer->count)
    return bad(path, err, "the lists of exits differ in length or are too long");
  x->n_exits = (int)layer->count;
  x->check = FORAY_EXITS_CHECK_MAX; /* files of version 1 do not say */
  if (foray_gguf_find_kv(g, "foray.exits.check") &&
      (st = foray_gguf_get_u32(g, "foray.exits.check", &x->check, err)))
    return st;
  if (x->check < 1 || x->check > FORAY_EXITS_CHECK_MAX) return bad(path, err, "check is outside 1..7");
  for (int e = 0; e < x->n_exits; e++) {
    struct foray_exits_head *h = &x->exit[e];
    char name[32];
    h->layer = foray_gguf_array_u32(layer, (uint64_t)e);
    h->head_rows = foray_gguf_array_u32(rows, (uint64_t)e);
    h->threshold = foray_gguf_array_f32(thr, (uint64_t)e);
    if (h->layer < 1 || h->layer >= x->n_layer || (e && h->layer <= x->exit[e - 1].layer))
      return bad(path, err, "layers of exits do not rise within the model");
    if (h->head_rows < 1 || h->head_rows > x->n_vocab)
      return bad(path, err, "an exit's head is longer than vocab.ids");
    if (!(h->threshold >= 0 && h->threshold <= 1)) return bad(path, err, "a threshold is outside 0..1");
    snprintf(name, sizeof name, "exit.%d.norm", e);
    if ((st = floats(g, name, x->n_embd, 1, &h->norm, err))) return st;
    snprintf(name, sizeof name, "exit.%d.map", e);
    if ((st = floats(g, name, x->n_embd, x->n_embd, &h->map, err))) return st;
    snprintf(name, sizeof name, "exit.%d.prev", e);
    bool prev = foray_gguf_find_tensor(g, name) != NULL;
    if (e && prev != (x->exit[0].prev != NULL)) return bad(path, err, "some exits have prev, some have not");
    if (prev && (st = floats(g, name, x->n_embd, x->n_embd, &h->prev, err))) return st;
  }
  return FORAY_OK;
}

static enum foray_status lora(struct foray_exits *x, const struct foray_gguf *g, struct foray_err *err) {
  const char *path = foray_gguf_path(g);
  size_t n = foray_gguf_n_tensors(g), count = 0;
  float alpha = 0;
  enum foray_status st;
  if ((st = foray_gguf_get_f32(g, "adapter.lora.alpha", &alpha, err))) return st;
  x->lora = calloc(n, sizeof *x->lora);
  if (!x->lora) return foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", path);
  for (size_t i = 0; i < n; i++) {
    const struct foray_gguf_tensor *a = foray_gguf_tensor_at(g, i), *b;
    char name[80];
    size_t len = strlen(a->name);
    if (len < 8 || strcmp(a->name + len - 7, ".lora_a")) continue;
    struct foray_exits_lora *l = &x->lora[count];
    snprintf(l->tensor, sizeof l->tensor, "%.*s", (int)(len - 7), a->name);
    snprintf(name, sizeof name, "%s.lora_b", l->tensor);
    b = foray_gguf_find_tensor(g, name);
    if (!b || a->n_dims != 2 || b->n_dims != 2 || a->ne[1] != b->ne[1] || a->ne[1] < 1 ||
        a->ne[1] > FORAY_EXITS_LORA_RANK_MAX || a->ne[0] > 1u << 22 || b->ne[0] > 1u << 22)
      return foray_err_set(err, FORAY_E_FORMAT, "%s: %s has no partner of the same rank", path, a->name);
    x->n_lora = (uint32_t)++count; /* so that close frees it */
    l->rank = (uint32_t)a->ne[1], l->n_in = (uint32_t)a->ne[0], l->n_out = (uint32_t)b->ne[0];
    l->scale = alpha / (float)l->rank;
    if ((st = floats(g, a->name, l->n_in, l->rank, &l->a, err)) ||
        (st = floats(g, name, l->n_out, l->rank, &l->b, err)))
      return st;
  }
  return FORAY_OK;
}

static enum foray_status content(const struct foray_exits *x, const struct foray_gguf *g,
                                 struct foray_err *err) {
  struct foray_sha256 *h = foray_sha256_open();
  uint8_t digest[FORAY_SHA256_BYTES];
  char hex[FORAY_SHA256_HEX];
  if (!h) return foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", foray_gguf_path(g));
  for (size_t i = 0; i < foray_gguf_n_tensors(g); i++) {
    const struct foray_gguf_tensor *t = foray_gguf_tensor_at(g, i);
    foray_sha256_update(h, t->data, (size_t)t->bytes);
  }
  foray_sha256_close(h, digest);
  foray_sha256_hex(digest, hex);
  if (strcmp(hex, x->sha256))
    return foray_err_set(err, FORAY_E_MISMATCH,
                         "%s: content hash is %.12s..., the file says %.12s...: damaged", foray_gguf_path(g),
                         hex, x->sha256);
  return FORAY_OK;
}

enum foray_status foray_exits_open(const char *path, struct foray_exits **out, struct foray_err *err) {
  struct foray_gguf *g;
  enum foray_status st = foray_gguf_open(path, &g, err);
  if (st) return st;
  struct foray_exits *x = calloc(1, sizeof *x);
  if (!x) st = foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", path);
  if (!st) st = head(x, g, err);
  if (!st) st = content(x, g, err);
  if (!st) st = vocab(x, g, err);
  if (!st) st = exits(x, g, err);
  if (!st) st = lora(x, g, err);
  foray_gguf_close(g);
  if (st) {
    foray_exits_close(x);
    return st;
  }
  *out = x;
  return FORAY_OK;
}

enum foray_status foray_exits_check_base(const struct foray_exits *x, const char *base_sha256,
                                         uint32_t n_layer, uint32_t n_embd, struct foray_err *err) {
  if (strcmp(x->base_sha256, base_sha256) || x->n_layer != n_layer || x->n_embd != n_embd)
    return foray_err_set(err, FORAY_E_MISMATCH,
                         "exits of '%s' (%.12s...) do not belong to this model (%.12s...)", x->name,
                         x->base_sha256, base_sha256);
  return FORAY_OK;
}

const struct foray_exits_lora *foray_exits_lora_find(const struct foray_exits *x, const char *tensor) {
  for (uint32_t i = 0; i < x->n_lora; i++)
    if (!strcmp(x->lora[i].tensor, tensor)) return &x->lora[i];
  return NULL;
}

enum foray_status foray_exits_lora_merge(const struct foray_exits *x, const char *tensor, float *w,
                                         uint32_t row0, uint32_t rows, uint32_t n_in, struct foray_err *err) {
  const struct foray_exits_lora *l = foray_exits_lora_find(x, tensor);
  if (!l) return FORAY_OK;
  if (l->n_in != n_in || row0 > l->n_out || rows > l->n_out - row0)
    return foray_err_set(err, FORAY_E_MISMATCH, "LoRA of %s is %u x %u, the model's tensor is another shape",
                         tensor, l->n_out, l->n_in);
  for (uint32_t r = 0; r < rows; r++) {
    float *d = w + (size_t)r * n_in;
    for (uint32_t k = 0; k < l->rank; k++) {
      const float *a = l->a + (size_t)k * n_in;
      float s = l->scale * l->b[(size_t)k * l->n_out + row0 + r];
      for (uint32_t i = 0; i < n_in; i++) d[i] += s * a[i];
    }
  }
  return FORAY_OK;
}
