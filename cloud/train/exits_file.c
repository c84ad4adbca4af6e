#include "train/exits_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"
#include "core/hash.h"
#include "model/exits.h"
#include "model/gguf_write.h"

struct out {
  struct foray_gguf_writer *w;
  struct foray_sha256 *hash;
  void **keep; /* quantised tensors, borrowed by the writer until saved */
  size_t n_keep, cap;
  enum foray_status st;
};

static void tensor(struct out *o, const char *name, uint32_t type, uint64_t ne0, uint64_t ne1, void *data,
                   size_t bytes) {
  uint64_t ne[2] = {ne0, ne1};
  if (o->n_keep == o->cap || !data) {
    free(data);
    o->st = FORAY_E_NOMEM;
    return;
  }
  o->keep[o->n_keep++] = data;
  foray_sha256_update(o->hash, data, bytes);
  foray_gguf_writer_tensor(o->w, name, type, ne1 ? 2 : 1, ne, data);
}

static void matrix(struct out *o, const char *name, uint32_t rows, uint32_t cols, const float *src) {
  uint32_t type = cols % 32 ? FORAY_GGML_F16 : FORAY_GGML_Q8_0;
  size_t row = foray_type_row_bytes(type, cols);
  uint8_t *d = malloc(row * rows);
  for (uint32_t r = 0; d && r < rows; r++)
    if (foray_quantise_row(type, src + (size_t)r * cols, d + r * row, cols)) o->st = FORAY_E_FORMAT;
  tensor(o, name, type, cols, rows, d, row * rows);
}

static void *copy(const void *src, size_t n) {
  void *p = malloc(n);
  if (p) memcpy(p, src, n);
  return p;
}

static void tensors(struct out *o, const struct foray_exits_write *w) {
  char name[80];
  tensor(o, "vocab.ids", FORAY_GGML_I32, w->n_vocab, 0, copy(w->vocab, w->n_vocab * 4), w->n_vocab * 4);
  for (int e = 0; e < w->n_exits; e++) {
    snprintf(name, sizeof name, "exit.%d.norm", e);
    tensor(o, name, FORAY_GGML_F32, w->n_embd, 0, copy(w->norm[e], w->n_embd * 4), w->n_embd * 4);
    snprintf(name, sizeof name, "exit.%d.map", e);
    matrix(o, name, w->n_embd, w->n_embd, w->map[e]);
    snprintf(name, sizeof name, "exit.%d.prev", e);
    if (w->prev) matrix(o, name, w->n_embd, w->n_embd, w->prev[e]);
  }
  for (uint32_t i = 0; i < w->n_lora; i++) {
    const struct foray_exits_write_lora *l = &w->lora[i];
    snprintf(name, sizeof name, "%s.lora_a", l->tensor);
    matrix(o, name, l->rank, l->n_in, l->a);
    snprintf(name, sizeof name, "%s.lora_b", l->tensor);
    matrix(o, name, l->rank, l->n_out, l->b);
  }
}

enum foray_status foray_exits_file_write(const char *path, const struct foray_exits_write *w,
                                         struct foray_err *err) {
  struct out o = {.w = foray_gguf_writer_open(), .hash = foray_sha256_open()};
  uint8_t digest[FORAY_SHA256_BYTES];
  char hex[FORAY_SHA256_HEX];
  enum foray_status st = FORAY_OK;
  o.cap = 1 + 3 * (size_t)w->n_exits + 2 * (size_t)w->n_lora;
  o.keep = calloc(o.cap, sizeof *o.keep);
  if (!o.w || !o.hash || !o.keep) {
    foray_sha256_close(o.hash, digest);
    foray_gguf_writer_close(o.w);
    free(o.keep);
    return foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", path);
  }
  tensors(&o, w);
  foray_sha256_close(o.hash, digest);
  foray_sha256_hex(digest, hex);
  foray_gguf_writer_str(o.w, "general.architecture", w->arch);
  foray_gguf_writer_str(o.w, "general.type", "adapter");
  foray_gguf_writer_str(o.w, "general.name", w->name);
  foray_gguf_writer_str(o.w, "adapter.type", "foray-exits");
  foray_gguf_writer_f32(o.w, "adapter.lora.alpha", w->lora_alpha);
  foray_gguf_writer_u32(o.w, "foray.exits.version", FORAY_EXITS_VERSION);
  foray_gguf_writer_str(o.w, "foray.exits.sha256", hex);
  foray_gguf_writer_str(o.w, "foray.exits.base", w->base_sha256);
  foray_gguf_writer_str(o.w, "foray.exits.target", w->target_sha256);
  foray_gguf_writer_u32(o.w, "foray.exits.n_layer", w->n_layer);
  foray_gguf_writer_u32(o.w, "foray.exits.n_embd", w->n_embd);
  foray_gguf_writer_arr(o.w, "foray.exits.layer", FORAY_GGUF_U32, w->layer, (size_t)w->n_exits);
  foray_gguf_writer_arr(o.w, "foray.exits.head_rows", FORAY_GGUF_U32, w->head_rows, (size_t)w->n_exits);
  foray_gguf_writer_arr(o.w, "foray.exits.threshold", FORAY_GGUF_F32, w->threshold, (size_t)w->n_exits);
  foray_gguf_writer_u32(o.w, "foray.exits.check", w->check);
  foray_gguf_writer_str(o.w, "foray.exits.command", w->command);
  foray_gguf_writer_u64(o.w, "foray.exits.seed", w->seed);
  foray_gguf_writer_u64(o.w, "foray.exits.tokens", w->tokens);
  foray_gguf_writer_str(o.w, "foray.exits.report", w->report_json);
  if (o.st)
    st = foray_err_set(err, o.st, "%s: %s", path,
                       o.st == FORAY_E_NOMEM ? "out of memory" : "values that are not numbers");
  else
    st = foray_gguf_writer_save(o.w, path, err);
  foray_gguf_writer_close(o.w);
  for (size_t i = 0; i < o.n_keep; i++) free(o.keep[i]);
  free(o.keep);
  return st;
}
