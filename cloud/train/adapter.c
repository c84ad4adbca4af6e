#include "train/adapter.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/err.h"
#include "model/gguf_write.h"
#include "train/safetensors.h"

/* Names of FORAY_LIN_x in published models and in GGUF files. */
static const struct {
  const char *module, *hf, *gguf;
} NAME[FORAY_LIN_N] = {
    {"q_proj", "self_attn.q_proj", "attn_q"},   {"k_proj", "self_attn.k_proj", "attn_k"},
    {"v_proj", "self_attn.v_proj", "attn_v"},   {"o_proj", "self_attn.o_proj", "attn_output"},
    {"gate_proj", "mlp.gate_proj", "ffn_gate"}, {"up_proj", "mlp.up_proj", "ffn_up"},
    {"down_proj", "mlp.down_proj", "ffn_down"}};

static enum foray_status nomem(struct foray_err *err) {
  return foray_err_set(err, FORAY_E_NOMEM, "adapter: out of memory");
}

/* Row of a GGUF matrix that holds row `hf` of the published one: q and k of llama files have the two halves
 * of each head interleaved. */
static size_t gguf_row(const struct foray_net *n, int j, size_t hf) {
  if (n->cfg.arch != FORAY_ARCH_LLAMA || (j != FORAY_LIN_Q && j != FORAY_LIN_K)) return hf;
  size_t hd = n->cfg.head_dim, h = hf / hd, i = hf % hd, half = hd / 2;
  return h * hd + i % half * 2 + i / half;
}

/* One entry of an adapter: B as n_out x rank, which is how both layouts hold it. */
static float *columns(const struct foray_net *n, const struct foray_lin *l, int j, int from, int to,
                      bool hf) {
  size_t r = (size_t)(to - from), rows = (size_t)l->n_out;
  float *b = malloc(rows * r * sizeof(float));
  for (size_t o = 0; b && o < rows; o++) {
    size_t src = hf ? gguf_row(n, j, o) : o;
    for (size_t k = 0; k < r; k++) b[o * r + k] = l->b.w[((size_t)from + k) * rows + src];
  }
  return b;
}

static unsigned targets_of(const struct foray_net *n, float *scale) {
  unsigned t = 0;
  for (int i = 0; i < n->n_layer; i++)
    for (int j = 0; j < FORAY_LIN_N; j++)
      if (n->layer[i].lin[j].rank) t |= 1u << j, *scale = n->layer[i].lin[j].scale;
  return t;
}

static enum foray_status config_save(const struct foray_adapter_info *info, int rank, float alpha,
                                     unsigned targets, const char *dir, struct foray_err *err) {
  char path[4096];
  json_t *modules = json_array();
  for (int j = 0; j < FORAY_LIN_N; j++)
    if (targets >> j & 1) json_array_append_new(modules, json_string(NAME[j].module));
  json_t *c = json_pack("{s:s, s:s, s:i, s:f, s:f, s:s, s:o, s:b, s:b, s:s, s:s}", "peft_type", "LORA",
                        "base_model_name_or_path", info->base_name, "r", rank, "lora_alpha", (double)alpha,
                        "lora_dropout", (double)info->drop, "bias", "none", "target_modules", modules,
                        "fan_in_fan_out", 0, "inference_mode", 1, "task_type", "CAUSAL_LM",
                        "foray_base_sha256", info->base_sha256);
  snprintf(path, sizeof path, "%s/adapter_config.json", dir);
  int bad = !c || json_dump_file(c, path, JSON_INDENT(2));
  json_decref(c);
  return bad ? foray_err_set(err, FORAY_E_IO, "%s: cannot be written", path) : FORAY_OK;
}

enum foray_status foray_adapter_save_peft(const struct foray_net *n, int from, int to,
                                          const struct foray_adapter_info *info, const char *dir,
                                          struct foray_err *err) {
  char name[160], path[4096];
  float scale = 0, **owned = calloc((size_t)n->n_layer * FORAY_LIN_N, sizeof *owned);
  unsigned targets = targets_of(n, &scale);
  struct foray_st_writer *w = foray_st_writer_open();
  enum foray_status st = w && owned ? FORAY_OK : nomem(err);
  if (!st && mkdir(dir, 0777) && errno != EEXIST)
    st = foray_err_set(err, FORAY_E_IO, "%s: %s", dir, strerror(errno));
  for (int i = 0; !st && i < n->n_layer; i++)
    for (int j = 0; !st && j < FORAY_LIN_N; j++) {
      const struct foray_lin *l = &n->layer[i].lin[j];
      if (!l->rank) continue;
      float *b = columns(n, l, j, from, to, true);
      if (!(owned[i * FORAY_LIN_N + j] = b)) st = nomem(err);
      if (st) break;
      uint64_t r = (uint64_t)(to - from), a_shape[2] = {r, (uint64_t)l->n_in},
               b_shape[2] = {(uint64_t)l->n_out, r};
      snprintf(name, sizeof name, "base_model.model.model.layers.%d.%s.lora_A.weight", i, NAME[j].hf);
      foray_st_writer_f32(w, name, a_shape, 2, l->a.w + (size_t)from * (size_t)l->n_in);
      snprintf(name, sizeof name, "base_model.model.model.layers.%d.%s.lora_B.weight", i, NAME[j].hf);
      foray_st_writer_f32(w, name, b_shape, 2, b);
    }
  if (!st) {
    foray_st_writer_meta(w, "format", "pt");
    if (*info->base_sha256) foray_st_writer_meta(w, "foray_base_sha256", info->base_sha256);
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", dir);
    st = foray_st_writer_save(w, path, err);
  }
  if (!st) st = config_save(info, to - from, scale * (float)(to - from), targets, dir, err);
  for (int k = 0; owned && k < n->n_layer * FORAY_LIN_N; k++) free(owned[k]);
  free(owned);
  foray_st_writer_close(w);
  return st;
}

enum foray_status foray_adapter_save_gguf(const struct foray_net *n, int from, int to,
                                          const struct foray_adapter_info *info, const char *path,
                                          struct foray_err *err) {
  char name[96];
  float scale = 0, **owned = calloc((size_t)n->n_layer * FORAY_LIN_N, sizeof *owned);
  struct foray_gguf_writer *w = foray_gguf_writer_open();
  enum foray_status st = w && owned ? FORAY_OK : nomem(err);
  targets_of(n, &scale);
  if (!st) {
    foray_gguf_writer_str(w, "general.type", "adapter");
    foray_gguf_writer_str(w, "general.architecture", foray_arch_name(n->cfg.arch));
    foray_gguf_writer_str(w, "adapter.type", "lora");
    foray_gguf_writer_f32(w, "adapter.lora.alpha", scale * (float)(to - from));
    if (*info->base_name) foray_gguf_writer_str(w, "general.base_model.0.name", info->base_name);
    if (*info->base_sha256) foray_gguf_writer_str(w, "foray.base_sha256", info->base_sha256);
  }
  for (int i = 0; !st && i < n->n_layer; i++)
    for (int j = 0; !st && j < FORAY_LIN_N; j++) {
      const struct foray_lin *l = &n->layer[i].lin[j];
      if (!l->rank) continue;
      float *b = columns(n, l, j, from, to, false);
      if (!(owned[i * FORAY_LIN_N + j] = b)) st = nomem(err);
      if (st) break;
      uint64_t r = (uint64_t)(to - from), a_ne[2] = {(uint64_t)l->n_in, r}, b_ne[2] = {r, (uint64_t)l->n_out};
      snprintf(name, sizeof name, "blk.%d.%s.weight.lora_a", i, NAME[j].gguf);
      foray_gguf_writer_tensor(w, name, FORAY_GGML_F32, 2, a_ne, l->a.w + (size_t)from * (size_t)l->n_in);
      snprintf(name, sizeof name, "blk.%d.%s.weight.lora_b", i, NAME[j].gguf);
      foray_gguf_writer_tensor(w, name, FORAY_GGML_F32, 2, b_ne, b);
    }
  if (!st) st = foray_gguf_writer_save(w, path, err);
  for (int k = 0; owned && k < n->n_layer * FORAY_LIN_N; k++) free(owned[k]);
  free(owned);
  foray_gguf_writer_close(w);
  return st;
}

/* ---- reading: both layouts behind one lookup ---- */
struct source {
  struct foray_st *st;
  struct foray_gguf *gguf;
  struct foray_adapter_info info;
  const char *path;
};
static void source_close(struct source *s) {
  foray_st_close(s->st);
  if (s->gguf) foray_gguf_close(s->gguf);
}

/* A (r x n_in) or B (n_out x r) of matrix j of block i: its floats (owned by the caller) or NULL when there
 * is none; *bad when it has another shape. */
static float *matrix(const struct source *s, int i, int j, bool b, size_t rows, size_t cols, bool *bad) {
  char name[160];
  float *out = NULL;
  if (s->st) {
    snprintf(name, sizeof name, "base_model.model.model.layers.%d.%s.lora_%c.weight", i, NAME[j].hf,
             b ? 'B' : 'A');
    const struct foray_st_tensor *t = foray_st_find(s->st, name);
    if (!t) return NULL;
    *bad = t->dims != 2 || t->shape[0] != rows || t->shape[1] != cols;
    if (!*bad && (out = malloc(t->n * sizeof(float)))) foray_st_read(s->st, t, out);
  } else {
    snprintf(name, sizeof name, "blk.%d.%s.weight.lora_%c", i, NAME[j].gguf, b ? 'b' : 'a');
    const struct foray_gguf_tensor *t = foray_gguf_find_tensor(s->gguf, name);
    if (!t) return NULL;
    *bad = t->ne[0] != cols || t->ne[1] != rows || t->ne[2] != 1 || t->ne[3] != 1;
    if (!*bad && (out = malloc(rows * cols * sizeof(float))))
      for (size_t r = 0; r < rows; r++)
        if (foray_dequant_row(t->type, foray_tensor_row(t, r), out + r * cols, cols)) *bad = true;
  }
  return out;
}

static unsigned targets_in(const struct source *s) {
  unsigned t = 0;
  size_t n = s->st ? foray_st_count(s->st) : foray_gguf_n_tensors(s->gguf);
  for (size_t i = 0; i < n; i++)
    for (int j = 0; j < FORAY_LIN_N; j++) {
      char part[64];
      snprintf(part, sizeof part, s->st ? ".%s." : ".%s.weight", s->st ? NAME[j].hf : NAME[j].gguf);
      if (strstr(s->st ? foray_st_at(s->st, i)->name : foray_gguf_tensor_at(s->gguf, i)->name, part))
        t |= 1u << j;
    }
  return t;
}

static enum foray_status open_peft(struct source *s, const char *path, struct foray_err *err) {
  char file[4096];
  json_error_t je;
  snprintf(file, sizeof file, "%s/adapter_model.safetensors", path);
  enum foray_status st = foray_st_open(file, &s->st, err);
  if (st) return st;
  snprintf(file, sizeof file, "%s/adapter_config.json", path);
  json_t *c = json_load_file(file, 0, &je);
  if (!c) return foray_err_set(err, FORAY_E_FORMAT, "%s: %s", file, je.text);
  const char *type = json_string_value(json_object_get(c, "peft_type"));
  const char *sha = foray_st_meta(s->st, "foray_base_sha256");
  const char *base = json_string_value(json_object_get(c, "base_model_name_or_path"));
  s->info.rank = (int)json_integer_value(json_object_get(c, "r"));
  s->info.alpha = (float)json_number_value(json_object_get(c, "lora_alpha"));
  s->info.drop = (float)json_number_value(json_object_get(c, "lora_dropout"));
  if (!sha) sha = json_string_value(json_object_get(c, "foray_base_sha256"));
  snprintf(s->info.base_sha256, sizeof s->info.base_sha256, "%s", sha ? sha : "");
  snprintf(s->info.base_name, sizeof s->info.base_name, "%s", base ? base : "");
  bool odd = !type || strcmp(type, "LORA") || json_is_true(json_object_get(c, "use_dora")) ||
             json_is_true(json_object_get(c, "use_rslora")) ||
             json_is_true(json_object_get(c, "fan_in_fan_out"));
  json_decref(c);
  return odd ? foray_err_set(err, FORAY_E_UNSUPPORTED, "%s: not a plain LoRA", file) : FORAY_OK;
}

static enum foray_status open_gguf(struct source *s, const char *path, struct foray_err *err) {
  struct foray_gguf_str v = {0};
  enum foray_status st = foray_gguf_open(path, &s->gguf, err);
  if (!st) st = foray_gguf_opt_str(s->gguf, "adapter.type", &v, err);
  if (!st && (v.len != 4 || memcmp(v.ptr, "lora", 4)))
    st = foray_err_set(err, FORAY_E_FORMAT, "%s: not a LoRA (adapter.type)", path);
  if (!st) st = foray_gguf_opt_f32(s->gguf, "adapter.lora.alpha", &s->info.alpha, err);
  v = (struct foray_gguf_str){0};
  if (!st) st = foray_gguf_opt_str(s->gguf, "foray.base_sha256", &v, err);
  if (!st && v.len < sizeof s->info.base_sha256) memcpy(s->info.base_sha256, v.ptr ? v.ptr : "", v.len);
  for (size_t i = 0; !st && i < foray_gguf_n_tensors(s->gguf); i++) {
    const struct foray_gguf_tensor *t = foray_gguf_tensor_at(s->gguf, i);
    size_t len = strlen(t->name);
    if (len > 7 && !strcmp(t->name + len - 7, ".lora_a")) s->info.rank = (int)t->ne[1];
  }
  return st;
}

static enum foray_status source_open(struct source *s, const char *path, struct foray_err *err) {
  struct stat info;
  *s = (struct source){.path = path};
  if (stat(path, &info)) return foray_err_set(err, FORAY_E_NOTFOUND, "%s: %s", path, strerror(errno));
  enum foray_status st = S_ISDIR(info.st_mode) ? open_peft(s, path, err) : open_gguf(s, path, err);
  if (!st && (s->info.rank < 1 || !(s->info.alpha > 0)))
    st = foray_err_set(err, FORAY_E_FORMAT, "%s: rank %d, alpha %g", path, s->info.rank,
                       (double)s->info.alpha);
  if (!st) s->info.targets = targets_in(s);
  if (st) {
    source_close(s);
    *s = (struct source){0};
  }
  return st;
}

enum foray_status foray_adapter_info(const char *path, struct foray_adapter_info *out,
                                     struct foray_err *err) {
  struct source s;
  enum foray_status st = source_open(&s, path, err);
  if (st) return st;
  *out = s.info;
  source_close(&s);
  return FORAY_OK;
}

static enum foray_status check_fit(const struct source *s, const struct foray_net *n, int from, int to,
                                   struct foray_err *err) {
  float scale = 0, theirs = s->info.alpha / (float)s->info.rank;
  char sha[FORAY_SHA256_HEX] = "";
  uint8_t digest[FORAY_SHA256_BYTES];
  unsigned targets = targets_of(n, &scale);
  if (n->model && *s->info.base_sha256) {
    foray_model_sha256(n->model, digest);
    foray_sha256_hex(digest, sha);
    if (strcmp(sha, s->info.base_sha256))
      return foray_err_set(err, FORAY_E_MISMATCH, "%s was made for base model %.12s..., this one is %.12s...",
                           s->path, s->info.base_sha256, sha);
  }
  if (s->info.rank != to - from || s->info.targets != targets || fabsf(theirs - scale) > 1e-6f * fabsf(scale))
    return foray_err_set(err, FORAY_E_MISMATCH,
                         "%s: rank %d, scale %g, targets 0x%x; needed are %d, %g, 0x%x", s->path,
                         s->info.rank, (double)theirs, s->info.targets, to - from, (double)scale, targets);
  return FORAY_OK;
}

enum foray_status foray_adapter_load(struct foray_net *n, int from, int to, const char *path,
                                     struct foray_err *err) {
  struct source s;
  size_t r = (size_t)(to - from), count = (size_t)n->n_layer * FORAY_LIN_N;
  float **a = calloc(count, sizeof *a), **b = calloc(count, sizeof *b);
  enum foray_status st = source_open(&s, path, err);
  if (!st && (!a || !b)) st = nomem(err);
  if (!st) st = check_fit(&s, n, from, to, err);
  for (size_t k = 0; !st && k < count; k++) { /* everything is read before anything is changed */
    int i = (int)k / FORAY_LIN_N, j = (int)k % FORAY_LIN_N;
    const struct foray_lin *l = &n->layer[i].lin[j];
    bool bad_a = false, bad_b = false;
    if (!l->rank) continue;
    a[k] = matrix(&s, i, j, false, r, (size_t)l->n_in, &bad_a);
    b[k] = matrix(&s, i, j, true, (size_t)l->n_out, r, &bad_b);
    if (bad_a || bad_b || !a[k] || !b[k])
      st = foray_err_set(err, FORAY_E_MISMATCH, "%s: block %d, %s: missing or of another shape", path, i,
                         NAME[j].gguf);
  }
  for (size_t k = 0; !st && k < count; k++) {
    int j = (int)k % FORAY_LIN_N;
    struct foray_lin *l = &n->layer[(int)k / FORAY_LIN_N].lin[j];
    if (!l->rank) continue;
    size_t rows = (size_t)l->n_out, in = (size_t)l->n_in;
    memcpy(l->a.w + (size_t)from * in, a[k], r * in * sizeof(float));
    for (size_t o = 0; o < rows; o++) {
      size_t dst = s.st ? gguf_row(n, j, o) : o;
      for (size_t q = 0; q < r; q++) l->b.w[((size_t)from + q) * rows + dst] = b[k][o * r + q];
    }
  }
  for (size_t k = 0; k < count; k++) {
    if (a) free(a[k]);
    if (b) free(b[k]);
  }
  free(a), free(b);
  source_close(&s);
  return st;
}

/* ---- checkpoints ---- */
struct check {
  struct foray_st_writer *w;
  const struct foray_st *st;
  const char *path;
  char (*name)[96];
  int n, found;
  bool mismatch;
};
static void name_part(char *out, size_t cap, const struct foray_param *p, int index, const char *what) {
  snprintf(out, cap, "%d.%s.%s", index, p->name, what);
}
static void put_param(void *arg, struct foray_param *p) {
  static const char *const what[3] = {"weight", "moment1", "moment2"};
  struct check *c = arg;
  float *const data[3] = {p->w, p->m, p->v};
  uint64_t shape[1] = {p->n};
  char name[128];
  for (int k = 0; k < 3; k++) {
    name_part(name, sizeof name, p, c->n, what[k]);
    foray_st_writer_f32(c->w, name, shape, 1, data[k]);
  }
  c->n++;
}
static void get_param(void *arg, struct foray_param *p) {
  static const char *const what[3] = {"weight", "moment1", "moment2"};
  struct check *c = arg;
  float *const data[3] = {p->w, p->m, p->v};
  char name[128];
  for (int k = 0; k < 3; k++) {
    name_part(name, sizeof name, p, c->n, what[k]);
    const struct foray_st_tensor *t = foray_st_find(c->st, name);
    if (!t || t->n != p->n)
      c->mismatch = true;
    else if (c->found)
      foray_st_read(c->st, t, data[k]);
  }
  c->n++;
}

enum foray_status foray_checkpoint_save(struct foray_net *n, const struct foray_optim *o, const char *note,
                                        const char *path, struct foray_err *err) {
  struct check c = {.w = foray_st_writer_open()};
  char step[24];
  if (!c.w) return nomem(err);
  foray_net_params(n, put_param, &c);
  snprintf(step, sizeof step, "%d", o->step);
  foray_st_writer_meta(c.w, "step", step);
  if (note) foray_st_writer_meta(c.w, "note", note);
  enum foray_status st = foray_st_writer_save(c.w, path, err);
  foray_st_writer_close(c.w);
  return st;
}

enum foray_status foray_checkpoint_load(struct foray_net *n, struct foray_optim *o, char **note,
                                        const char *path, struct foray_err *err) {
  struct foray_st *s = NULL;
  enum foray_status st = foray_st_open(path, &s, err);
  struct check c = {.st = s, .path = path};
  if (st) return st;
  const char *step = foray_st_meta(s, "step"), *text = foray_st_meta(s, "note");
  foray_net_params(n, get_param, &c); /* looks, then takes */
  if (c.mismatch || !step || foray_st_count(s) != (size_t)c.n * 3)
    st = foray_err_set(err, FORAY_E_MISMATCH,
                       "%s: a checkpoint of another network or another set of parameters", path);
  if (!st && note && !(*note = strdup(text ? text : ""))) st = nomem(err);
  if (!st) {
    c.n = 0, c.found = 1;
    foray_net_params(n, get_param, &c);
    o->step = (int)strtol(step, NULL, 10);
  }
  foray_st_close(s);
  return st;
}
