#include "model/lora.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"
#include "core/hash.h"
#include "model/gguf.h"
#include "model/quant.h"

/* rows x cols floats of a tensor, transposed when asked; owned, NULL when a value is not finite or memory is
 * short. */
static float *values(const struct foray_gguf_tensor *t, bool transpose) {
  size_t cols = (size_t)t->ne[0], rows = (size_t)t->ne[1], bytes = foray_type_row_bytes(t->type, cols);
  float *out = malloc(rows * cols * sizeof *out), *row = malloc(cols * sizeof *row);
  bool ok = out && row && bytes;
  for (size_t r = 0; ok && r < rows; r++) {
    ok = foray_dequant_row(t->type, t->data + r * bytes, row, cols) == FORAY_OK;
    for (size_t c = 0; ok && c < cols; c++) {
      ok = isfinite(row[c]);
      out[transpose ? c * rows + r : r * cols + c] = row[c];
    }
  }
  free(row);
  if (ok) return out;
  free(out);
  return NULL;
}

static enum foray_status read_lora(struct foray_exits *x, const struct foray_gguf *g, struct foray_err *err) {
  const char *path = foray_gguf_path(g);
  struct foray_gguf_str v = {0};
  struct foray_sha256 *h = foray_sha256_open();
  uint8_t digest[FORAY_SHA256_BYTES];
  float alpha = 0;
  size_t n = foray_gguf_n_tensors(g);
  enum foray_status st = h ? foray_gguf_get_f32(g, "adapter.lora.alpha", &alpha, err)
                           : foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", path);
  if (!st) st = foray_gguf_opt_str(g, "foray.base_sha256", &v, err);
  if (!st && v.len && v.len < sizeof x->base_sha256) memcpy(x->base_sha256, v.ptr, v.len);
  if (!st && !(x->lora = calloc(n + 1, sizeof *x->lora)))
    st = foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", path);
  for (size_t i = 0; !st && i < n; i++) {
    const struct foray_gguf_tensor *a = foray_gguf_tensor_at(g, i), *b;
    char name[FORAY_GGUF_NAME_MAX];
    size_t len = strlen(a->name);
    foray_sha256_update(h, a->data, (size_t)a->bytes);
    if (len < 8 || strcmp(a->name + len - 7, ".lora_a")) continue;
    struct foray_exits_lora *l = &x->lora[x->n_lora];
    snprintf(l->tensor, sizeof l->tensor, "%.*s", (int)(len - 7), a->name);
    snprintf(name, sizeof name, "%.*s.lora_b", (int)(len - 7), a->name);
    b = foray_gguf_find_tensor(g, name);
    if (!b || a->n_dims != 2 || b->n_dims > 2 || b->ne[0] != a->ne[1] || a->ne[1] < 1 ||
        a->ne[1] > FORAY_EXITS_LORA_RANK_MAX || a->ne[0] > 1u << 22 || b->ne[1] > 1u << 22) {
      st = foray_err_set(err, FORAY_E_FORMAT, "%s: %s has no partner of the same rank", path, a->name);
      break;
    }
    x->n_lora++; /* so that close frees it */
    l->rank = (uint32_t)a->ne[1], l->n_in = (uint32_t)a->ne[0], l->n_out = (uint32_t)b->ne[1];
    l->scale = alpha / (float)l->rank;
    l->a = values(a, false);
    l->b = values(b, true);
    if (!l->a || !l->b)
      st = foray_err_set(err, FORAY_E_FORMAT, "%s: %s: not all values are finite numbers", path, a->name);
  }
  foray_sha256_close(h, digest);
  foray_sha256_hex(digest, x->sha256);
  if (!st && !x->n_lora) st = foray_err_set(err, FORAY_E_FORMAT, "%s: holds no LoRA", path);
  return st;
}

static enum foray_status finish(struct foray_gguf *g, struct foray_exits **out, struct foray_err *err) {
  struct foray_exits *x = calloc(1, sizeof *x);
  enum foray_status st =
      x ? read_lora(x, g, err) : foray_err_set(err, FORAY_E_NOMEM, "adapter: out of memory");
  foray_gguf_close(g);
  if (st) {
    foray_exits_close(x);
    return st;
  }
  *out = x;
  return FORAY_OK;
}
enum foray_status foray_lora_open(const char *path, struct foray_exits **out, struct foray_err *err) {
  struct foray_gguf *g;
  enum foray_status st = foray_gguf_open(path, &g, err);
  return st ? st : finish(g, out, err);
}
enum foray_status foray_lora_open_memory(const void *data, size_t size, struct foray_exits **out,
                                         struct foray_err *err) {
  struct foray_gguf *g;
  enum foray_status st = foray_gguf_open_memory(data, size, "adapter", &g, err);
  return st ? st : finish(g, out, err);
}
