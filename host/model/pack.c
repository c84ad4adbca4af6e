/* The packer: what goes into an image, in which types, and where the result is kept. */
#include "model/pack.h"

#include "core/err.h"
#include "model/lora.h"
#include "model/pack_job.h"
#include "model/quant.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double BITS_DEFAULT = 4.9, BITS_LEAST = 4.6;

bool foray_pack_tick(const struct foray_pack_job *j, double frac) {
  if (!j->opts->progress) return true;
  frac = frac < 0 ? 0 : frac > 1 ? 1 : frac;
  return j->opts->progress(j->opts->user, j->stage, j->stage_from + (j->stage_to - j->stage_from) * frac);
}

double foray_pack_bits_max(const struct foray_pack_opts *o) {
  return o->bits_max > 0 ? o->bits_max : BITS_DEFAULT;
}

double foray_pack_bits(struct foray_pack_job *j) {
  return foray_image_plan_place(&j->img, FORAY_IMAGE_PAGE) ? j->img.bits_per_block_weight : INFINITY;
}

static enum foray_status unsupported(const struct foray_model *m, const char *what, struct foray_err *err) {
  return foray_err_set(
      err, FORAY_E_UNSUPPORTED,
      "%s: architecture %s with %s is not supported on edge devices (llama and qwen2 are); it can "
      "still be a cloud model",
      foray_gguf_path(m->gguf), foray_arch_name(m->config.arch), what);
}

static enum foray_status read_config(struct foray_pack_job *j, struct foray_err *err) {
  const struct foray_model_config *c = &j->m->config;
  struct foray_image_config *g = &j->img.config;
  if (c->arch != FORAY_ARCH_LLAMA && c->arch != FORAY_ARCH_QWEN2) return unsupported(j->m, "its blocks", err);
  if (c->qk_norm || c->post_norms) return unsupported(j->m, "further norms", err);
  if (c->window || c->attn_softcap != 0 || c->logit_softcap != 0)
    return unsupported(j->m, "window or softcap", err);
  if (c->rope_dim != c->head_dim || c->rope_scale != 1 || c->rope_base != floorf(c->rope_base) ||
      c->rope_base < 2 || c->rope_base > 1e9f || foray_model_tensor(j->m, FORAY_ROLE_ROPE_FREQS, 0)) {
    return unsupported(j->m, "scaled or partial RoPE", err);
  }
  if (c->embd_scale != 1 || c->act != FORAY_ACT_SILU) return unsupported(j->m, "its activation", err);
  if (c->n_embd % 32 || c->n_ff % 32 || c->head_dim % 32)
    return unsupported(j->m, "widths that 32 does not divide", err);
  *g = (struct foray_image_config){
      .arch = (uint32_t)c->arch,
      .n_layer = c->n_layer,
      .n_embd = c->n_embd,
      .n_ff = c->n_ff,
      .n_head = c->n_head,
      .n_head_kv = c->n_head_kv,
      .head_dim = c->head_dim,
      .n_vocab = c->n_vocab,
      .n_ctx_train = c->n_ctx_train,
      .rope_base = (uint32_t)c->rope_base,
      .tied = c->tied,
  };
  int e;
  float f = frexpf(c->rms_eps, &e);
  g->eps_mant = (int32_t)ldexpf(f, 24);
  g->eps_exp = e - 24;
  foray_model_sha256(j->m, g->source_sha256);
  foray_tokenizer_hash(j->m->tokenizer, g->tokenizer_sha256);
  return FORAY_OK;
}

/* One id a line; empty lines and lines that start with # are skipped. */
static enum foray_status read_vocab(struct foray_pack_job *j, const char *path, struct foray_err *err) {
  FILE *f = fopen(path, "re");
  if (!f) return foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(errno));
  uint32_t n_vocab = j->img.config.n_vocab, n = 0;
  uint32_t *ids = malloc((size_t)n_vocab * sizeof *ids);
  uint8_t *seen = calloc(n_vocab, 1);
  char line[64];
  enum foray_status st = ids && seen ? FORAY_OK : foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  for (unsigned at = 1; st == FORAY_OK && fgets(line, sizeof line, f); at++) {
    char *end;
    if (line[0] == '#' || line[0] == '\n') continue;
    errno = 0;
    unsigned long id = strtoul(line, &end, 10);
    if (end == line || (*end && *end != '\n' && *end != '\r') || errno || id >= n_vocab || seen[id]) {
      st = foray_err_set(err, FORAY_E_FORMAT, "%s: line %u: not an id below %u that is new", path, at,
                         n_vocab);
    } else {
      seen[id] = 1;
      ids[n++] = (uint32_t)id;
    }
  }
  fclose(f);
  free(seen);
  if (st == FORAY_OK && !n) st = foray_err_set(err, FORAY_E_FORMAT, "%s: no ids", path);
  if (st != FORAY_OK) {
    free(ids);
    return st;
  }
  j->vocab = ids;
  j->img.config.n_trim = n;
  return FORAY_OK;
}

static enum foray_status hex_bytes(const char *hex, uint8_t out[FORAY_SHA256_BYTES]) {
  for (int i = 0; i < FORAY_SHA256_BYTES; i++) {
    unsigned v;
    if (sscanf(hex + 2 * i, "%2x", &v) != 1) return FORAY_E_FORMAT;
    out[i] = (uint8_t)v;
  }
  return FORAY_OK;
}

/* Path of the exits file that these options mean; "" for none. */
enum foray_status foray_pack_exits_path(const struct foray_model *m, const struct foray_pack_opts *o,
                                        char *path, size_t cap, struct foray_err *err) {
  path[0] = 0;
  if (o->exits_path) {
    if (strlen(o->exits_path) >= cap)
      return foray_err_set(err, FORAY_E_LIMIT, "path of the exits file is too long");
    memcpy(path, o->exits_path, strlen(o->exits_path) + 1);
    return FORAY_OK;
  }
  uint8_t sha[FORAY_SHA256_BYTES];
  char hex[FORAY_SHA256_HEX];
  foray_model_sha256(m, sha);
  foray_sha256_hex(sha, hex);
  enum foray_status st = foray_exits_locate(hex, NULL, path, cap, err);
  if (st != FORAY_E_NOTFOUND) return st;
  path[0] = 0;
  if (err) *err = (struct foray_err){0};
  return FORAY_OK;
}

static enum foray_status read_exits(struct foray_pack_job *j, struct foray_err *err) {
  char path[FORAY_EXITS_PATH_MAX], hex[FORAY_SHA256_HEX];
  struct foray_image_config *g = &j->img.config;
  enum foray_status st = foray_pack_exits_path(j->m, j->opts, path, sizeof path, err);
  if (st != FORAY_OK) return st;
  if (!path[0]) return j->opts->vocab_path ? read_vocab(j, j->opts->vocab_path, err) : FORAY_OK;
  if ((st = foray_exits_open(path, &j->exits, err)) != FORAY_OK) return st;
  const struct foray_exits *x = j->exits;
  foray_sha256_hex(g->source_sha256, hex);
  if ((st = foray_exits_check_base(x, hex, g->n_layer, g->n_embd, err)) != FORAY_OK) return st;
  if (x->n_vocab > g->n_vocab || hex_bytes(x->sha256, g->exits_sha256) != FORAY_OK) {
    return foray_err_set(err, FORAY_E_FORMAT, "%s: more ids than the model has, or a bad hash", path);
  }
  j->vocab = malloc(x->n_vocab * sizeof *j->vocab);
  if (!j->vocab) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  memcpy(j->vocab, x->vocab, x->n_vocab * sizeof *j->vocab);
  g->n_trim = x->n_vocab;
  g->n_exits = (uint32_t)x->n_exits;
  g->exit_prev = x->n_exits && x->exit[0].prev;
  g->exit_check = x->n_exits ? x->check : 0;
  for (int e = 0; e < x->n_exits; e++) {
    g->exit_layer[e] = x->exit[e].layer;
    g->exit_rows[e] = x->exit[e].head_rows;
    g->exit_threshold[e] = x->exit[e].threshold;
  }
  return foray_image_config_check(g, path, err);
}

static enum foray_status read_adapter(struct foray_pack_job *j, struct foray_err *err) {
  char hex[FORAY_SHA256_HEX];
  if (!j->opts->adapter_path) return FORAY_OK;
  enum foray_status st = foray_lora_open(j->opts->adapter_path, &j->adapter, err);
  if (st != FORAY_OK) return st;
  foray_sha256_hex(j->img.config.source_sha256, hex);
  if (j->adapter->base_sha256[0] && strcmp(j->adapter->base_sha256, hex))
    return foray_err_set(err, FORAY_E_MISMATCH, "%s was made for base model %.12s..., this one is %.12s...",
                         j->opts->adapter_path, j->adapter->base_sha256, hex);
  for (uint32_t i = 0; i < j->adapter->n_lora; i++)
    if (!foray_gguf_find_tensor(j->m->gguf, j->adapter->lora[i].tensor))
      return foray_err_set(err, FORAY_E_MISMATCH, "%s: the model has no tensor %s", j->opts->adapter_path,
                           j->adapter->lora[i].tensor);
  return FORAY_OK;
}

static void name_tensor(const struct foray_pack_job *j, struct foray_image_tensor *t) {
  static const enum foray_role role[] = {
      [FORAY_IMAGE_ATTN_NORM] = FORAY_ROLE_ATTN_NORM,     [FORAY_IMAGE_ATTN_Q] = FORAY_ROLE_ATTN_Q,
      [FORAY_IMAGE_ATTN_K] = FORAY_ROLE_ATTN_K,           [FORAY_IMAGE_ATTN_V] = FORAY_ROLE_ATTN_V,
      [FORAY_IMAGE_ATTN_OUTPUT] = FORAY_ROLE_ATTN_OUTPUT, [FORAY_IMAGE_FFN_NORM] = FORAY_ROLE_FFN_NORM,
      [FORAY_IMAGE_FFN_GATE] = FORAY_ROLE_FFN_GATE,       [FORAY_IMAGE_FFN_UP] = FORAY_ROLE_FFN_UP,
      [FORAY_IMAGE_FFN_DOWN] = FORAY_ROLE_FFN_DOWN,
  };
  if (t->role <= FORAY_IMAGE_FFN_DOWN) {
    foray_role_tensor_name(role[t->role], t->index, t->name, sizeof t->name);
  } else if (t->role == FORAY_IMAGE_EXIT_NORM || t->role == FORAY_IMAGE_EXIT_MAP ||
             t->role == FORAY_IMAGE_EXIT_PREV) {
    snprintf(t->name, sizeof t->name, "exit.%u.%s", t->index,
             t->role == FORAY_IMAGE_EXIT_NORM  ? "norm"
             : t->role == FORAY_IMAGE_EXIT_MAP ? "map"
                                               : "prev");
  } else if (t->role == FORAY_IMAGE_OUTPUT_NORM) {
    snprintf(t->name, sizeof t->name, "output_norm.weight");
  } else if (t->role == FORAY_IMAGE_TOKEN_EMBD) {
    snprintf(t->name, sizeof t->name, "token_embd.weight");
  } else {
    snprintf(t->name, sizeof t->name, "%s%s", foray_model_head(j->m)->name,
             t->role == FORAY_IMAGE_HEAD ? "(trimmed)" : "");
  }
}

/* True where most block weights are 4-bit groups of 32 in the file, so that rounding to nearest finds them.
 */
static bool four_bit_source(const struct foray_model *m) {
  double all = 0, four = 0;
  for (size_t i = 0; i < foray_gguf_n_tensors(m->gguf); i++) {
    const struct foray_gguf_tensor *t = foray_gguf_tensor_at(m->gguf, i);
    if (strncmp(t->name, "blk.", 4) != 0 || t->n_dims != 2) continue;
    double n = (double)t->ne[0] * (double)t->ne[1];
    all += n;
    if (t->type == FORAY_GGML_Q4_0 || t->type == FORAY_GGML_Q4_1) four += n;
  }
  return four > 0.9 * all;
}

static void job_deinit(struct foray_pack_job *j) {
  for (uint32_t i = 0; j->codes && i < j->img.n_tensors; i++) foray_codes_close(j->codes[i]);
  free(j->codes);
  free(j->img.tensors);
  free(j->vocab);
  foray_exits_close(j->exits);
  foray_exits_close(j->adapter);
}

static enum foray_status build(struct foray_pack_job *j, const char *out_path, struct foray_err *err) {
  const struct foray_pack_opts *o = j->opts;
  double bits_max = foray_pack_bits_max(o);
  if (!(bits_max >= BITS_LEAST)) {
    return foray_err_set(err, FORAY_E_ARG, "%.2f bits a weight: 4-bit codes with their scales need %.1f",
                         bits_max, BITS_LEAST);
  }
  enum foray_status st = read_config(j, err);
  if (st == FORAY_OK) st = read_exits(j, err);
  if (st == FORAY_OK) st = read_adapter(j, err);
  if (st != FORAY_OK) return st;
  j->img.tensors =
      calloc((size_t)j->img.config.n_layer * 9 + 3 * FORAY_IMAGE_EXITS_MAX + 8, sizeof *j->img.tensors);
  if (!j->img.tensors) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  j->img.n_tensors = foray_image_plan_list(&j->img.config, !o->no_full_head, j->img.tensors);
  j->codes = calloc(j->img.n_tensors, sizeof *j->codes);
  if (!j->codes) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  for (uint32_t i = 0; i < j->img.n_tensors; i++) {
    struct foray_image_tensor *t = &j->img.tensors[i];
    name_tensor(j, t);
    if (t->rows == 1 && t->role != FORAY_IMAGE_HEAD) continue; /* norms */
    t->type = t->role <= FORAY_IMAGE_FFN_DOWN ? FORAY_IMAGE_Q4A : FORAY_IMAGE_Q8S;
  }
  double least = foray_pack_bits(j);
  if (least > bits_max) {
    return foray_err_set(err, FORAY_E_LIMIT,
                         "%s: 4-bit codes come to %.3f bits a block weight, more than %.3f",
                         foray_gguf_path(j->m->gguf), least, bits_max);
  }
  bool lora = j->adapter || (j->exits && j->exits->n_lora);
  j->calibrate = o->calib == FORAY_PACK_CALIB_ON ||
                 (o->calib == FORAY_PACK_CALIB_AUTO && (lora || !four_bit_source(j->m)));
  if (o->base_image) j->calibrate = false;
  j->measured_kl = -1;
  j->stage = "calibrating";
  j->stage_from = 0;
  j->stage_to = 0.85;
  if (j->calibrate) {
    bool found = false;
    st = foray_pack_layers_key(j, err);
    if (st == FORAY_OK && j->reuse_dir) st = foray_pack_reuse(j, &found, err);
    if (st == FORAY_OK && !found) st = foray_pack_calibrate(j, err);
    if (st != FORAY_OK) return st;
  }
  if (o->base_image && (st = foray_pack_take_base(j, err)) != FORAY_OK) return st;
  j->stage = "packing";
  j->stage_from = j->calibrate ? 0.85 : 0;
  j->stage_to = 1;
  return foray_pack_write(j, out_path, err);
}

enum foray_status foray_pack_run_with(const struct foray_model *m, const struct foray_pack_opts *opts,
                                      const char *out_path, const char *reuse_dir, struct foray_err *err) {
  struct foray_pack_job j = {.m = m, .opts = opts, .reuse_dir = reuse_dir};
  enum foray_status st = build(&j, out_path, err);
  job_deinit(&j);
  return st;
}

enum foray_status foray_pack_run(const struct foray_model *m, const struct foray_pack_opts *opts,
                                 const char *out_path, char **json, struct foray_err *err) {
  static const struct foray_pack_opts none;
  enum foray_status st = foray_pack_run_with(m, opts ? opts : &none, out_path, NULL, err);
  if (st != FORAY_OK || !json) return st;
  struct foray_image *img;
  st = foray_image_open(out_path, &img, err);
  if (st == FORAY_OK) {
    st = foray_image_inspect(img, json, err);
    foray_image_close(img);
  }
  return st;
}
