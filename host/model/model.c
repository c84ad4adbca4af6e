#include "model/model.h"

#include "core/err.h"
#include "model/catalogue.h"
#include "model/quant.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct foray_model_lazy {
  pthread_mutex_t mu;
  bool known;
  uint8_t sha256[FORAY_SHA256_BYTES];
};

static const struct {
  const char *name;
  bool per_layer;
  char rows, cols; /* letters of FORAY_ROLE_MAP; rows == 1: a vector */
} roles[FORAY_ROLES] = {
#define X(role, name, layer, rows, cols) {name, layer, rows, cols},
    FORAY_ROLE_MAP(X)
#undef X
};

const char *foray_role_name(enum foray_role role) {
  return (unsigned)role < FORAY_ROLES ? roles[role].name : "?";
}
bool foray_role_per_layer(enum foray_role role) {
  return (unsigned)role < FORAY_ROLES && roles[role].per_layer;
}

void foray_role_tensor_name(enum foray_role role, uint32_t layer, char *out, size_t cap) {
  if (foray_role_per_layer(role))
    snprintf(out, cap, "blk.%u.%s", layer, foray_role_name(role));
  else
    snprintf(out, cap, "%s", foray_role_name(role));
}

static uint64_t extent(const struct foray_model_config *c, char letter) {
  switch (letter) {
  case 'E': return c->n_embd;
  case 'F': return c->n_ff;
  case 'Q': return (uint64_t)c->n_head * c->head_dim;
  case 'K': return (uint64_t)c->n_head_kv * c->head_dim;
  case 'D': return c->head_dim;
  case 'V': return c->n_vocab;
  case 'R': return c->rope_dim / 2;
  default: return 1;
  }
}

enum need { ABSENT, OPTIONAL, NEEDED };

static enum need need_of(const struct foray_model_config *c, enum foray_role role) {
  switch (role) {
  case FORAY_ROLE_OUTPUT: return OPTIONAL;
  case FORAY_ROLE_ROPE_FREQS: return c->arch == FORAY_ARCH_LLAMA ? OPTIONAL : ABSENT;
  case FORAY_ROLE_ATTN_Q_BIAS:
  case FORAY_ROLE_ATTN_K_BIAS:
  case FORAY_ROLE_ATTN_V_BIAS: return c->qkv_bias ? NEEDED : ABSENT;
  case FORAY_ROLE_ATTN_Q_NORM:
  case FORAY_ROLE_ATTN_K_NORM: return c->qk_norm ? NEEDED : ABSENT;
  case FORAY_ROLE_ATTN_POST_NORM:
  case FORAY_ROLE_FFN_POST_NORM: return c->post_norms ? NEEDED : ABSENT;
  default: return NEEDED;
  }
}

static size_t slot(enum foray_role role, uint32_t layer) {
  return roles[role].per_layer ? (size_t)layer * FORAY_ROLES + role : (size_t)role;
}

static enum foray_status bind(struct foray_model *m, enum foray_role role, uint32_t layer, size_t *bound,
                              struct foray_err *err) {
  const struct foray_model_config *c = &m->config;
  const char *path = foray_gguf_path(m->gguf);
  char name[FORAY_GGUF_NAME_MAX];
  foray_role_tensor_name(role, layer, name, sizeof name);
  const struct foray_gguf_tensor *t = foray_gguf_find_tensor(m->gguf, name);
  enum need need = need_of(c, role);
  if (!t) {
    if (need == NEEDED) return foray_err_set(err, FORAY_E_FORMAT, "%s: tensor '%s' is missing", path, name);
    return FORAY_OK;
  }
  if (need == ABSENT)
    return foray_err_set(err, FORAY_E_UNSUPPORTED, "%s: tensor '%s' does not belong to architecture %s", path,
                         name, foray_arch_name(c->arch));
  uint64_t cols = extent(c, roles[role].cols), rows = extent(c, roles[role].rows);
  bool vector = roles[role].rows == 1;
  if (t->ne[0] != cols || t->ne[1] != rows || t->ne[2] != 1 || t->ne[3] != 1)
    return foray_err_set(err, FORAY_E_FORMAT,
                         "%s: offset %llu: tensor '%s' is %llu x %llu; the metadata says %llu x %llu", path,
                         (unsigned long long)t->offset, name, (unsigned long long)t->ne[0],
                         (unsigned long long)t->ne[1], (unsigned long long)cols, (unsigned long long)rows);
  if (vector ? t->type != FORAY_GGML_F32 : !foray_type_info(t->type)->dequant)
    return foray_err_set(err, FORAY_E_UNSUPPORTED, "%s: offset %llu: tensor '%s' has type %s", path,
                         (unsigned long long)t->offset, name, foray_type_info(t->type)->name);
  m->tensors[slot(role, layer)] = t;
  ++*bound;
  return FORAY_OK;
}

static enum foray_status bind_all(struct foray_model *m, struct foray_err *err) {
  size_t bound = 0;
  m->tensors = calloc((size_t)m->config.n_layer * FORAY_ROLES, sizeof *m->tensors);
  if (!m->tensors) return foray_err_set(err, FORAY_E_NOMEM, "out of memory for the tensor table");
  for (int role = 0; role < FORAY_ROLES; role++) {
    uint32_t layers = roles[role].per_layer ? m->config.n_layer : 1;
    for (uint32_t l = 0; l < layers; l++) {
      enum foray_status s = bind(m, (enum foray_role)role, l, &bound, err);
      if (s) return s;
    }
  }
  if (bound == foray_gguf_n_tensors(m->gguf)) return FORAY_OK;
  /* A tensor that no role takes would be left out of the computation in silence: find it and say so. */
  for (size_t i = 0; i < foray_gguf_n_tensors(m->gguf); i++) {
    const struct foray_gguf_tensor *t = foray_gguf_tensor_at(m->gguf, i);
    bool used = false;
    for (size_t k = 0; k < (size_t)m->config.n_layer * FORAY_ROLES && !used; k++) used = m->tensors[k] == t;
    if (!used)
      return foray_err_set(
          err, FORAY_E_UNSUPPORTED, "%s: offset %llu: tensor '%s' has no place in architecture %s",
          foray_gguf_path(m->gguf), (unsigned long long)t->offset, t->name, foray_arch_name(m->config.arch));
  }
  return FORAY_OK;
}

/* Takes the gguf over, on failure too. */
static enum foray_status build(struct foray_gguf *g, struct foray_model **out, struct foray_err *err) {
  struct foray_model *m = calloc(1, sizeof *m);
  struct foray_model_lazy *lazy = calloc(1, sizeof *lazy);
  if (!m || !lazy) {
    free(m);
    free(lazy);
    foray_gguf_close(g);
    return foray_err_set(err, FORAY_E_NOMEM, "out of memory for a model");
  }
  pthread_mutex_init(&lazy->mu, NULL);
  m->gguf = g;
  m->lazy = lazy;
  const char *path = foray_gguf_path(g), *base = strrchr(path, '/');
  snprintf(m->name, sizeof m->name, "%s", base ? base + 1 : path);
  size_t len = strlen(m->name);
  if (len > 5 && strcmp(m->name + len - 5, ".gguf") == 0) m->name[len - 5] = 0;

  struct foray_gguf_str kind;
  enum foray_status s = FORAY_OK;
  if (foray_gguf_get_str(g, "general.type", &kind, NULL) == FORAY_OK &&
      (kind.len != 5 || memcmp(kind.ptr, "model", 5)))
    s = foray_err_set(err, FORAY_E_UNSUPPORTED, "%s: this file holds a '%.*s', not a model", path,
                      (int)(kind.len < 40 ? kind.len : 40), kind.ptr);
  if (!s) s = foray_config_read(g, &m->config, err);
  if (!s) s = bind_all(m, err);
  if (!s) s = foray_tokenizer_open(g, &m->tokenizer, err);
  if (!s && foray_tokenizer_n_vocab(m->tokenizer) != m->config.n_vocab)
    s = foray_err_set(err, FORAY_E_FORMAT, "%s: the tokenizer has %u tokens, but the embedding has %u rows",
                      path, foray_tokenizer_n_vocab(m->tokenizer), m->config.n_vocab);
  if (s) {
    foray_model_close(m);
    return s;
  }
  *out = m;
  return FORAY_OK;
}

enum foray_status foray_model_open_memory(const void *data, size_t size, const char *label,
                                          struct foray_model **out, struct foray_err *err) {
  struct foray_gguf *g;
  *out = NULL;
  enum foray_status s = foray_gguf_open_memory(data, size, label, &g, err);
  return s ? s : build(g, out, err);
}

static bool looks_like_path(const char *s) {
  size_t n = strlen(s);
  return strchr(s, '/') || (n > 5 && strcmp(s + n - 5, ".gguf") == 0) || access(s, F_OK) == 0;
}

enum foray_status foray_model_open(const char *path_or_name, struct foray_model **out,
                                   struct foray_err *err) {
  *out = NULL;
  char path[4096];
  if (looks_like_path(path_or_name)) {
    if (snprintf(path, sizeof path, "%s", path_or_name) >= (int)sizeof path)
      return foray_err_set(err, FORAY_E_LIMIT, "the model's path is longer than %zu bytes", sizeof path - 1);
  } else {
    bool present = false;
    enum foray_status s = foray_cache_path(path_or_name, path, sizeof path, &present, err);
    if (s) return s;
    if (!present && foray_catalogue_find(path_or_name))
      return foray_err_set(err, FORAY_E_NOTFOUND,
                           "model '%s' is not on this machine; get it with: foray pull %s", path_or_name,
                           path_or_name);
    if (!present)
      return foray_err_set(err, FORAY_E_NOTFOUND,
                           "there is no file and no model of the name '%s'; `foray models` lists "
                           "the names",
                           path_or_name);
  }
  struct foray_gguf *g;
  enum foray_status s = foray_gguf_open(path, &g, err);
  return s ? s : build(g, out, err);
}

void foray_model_close(struct foray_model *m) {
  if (!m) return;
  foray_tokenizer_close(m->tokenizer);
  foray_gguf_close(m->gguf);
  if (m->lazy) pthread_mutex_destroy(&m->lazy->mu);
  free(m->lazy);
  free(m->tensors);
  free(m);
}

const struct foray_gguf_tensor *foray_model_tensor(const struct foray_model *m, enum foray_role role,
                                                   uint32_t layer) {
  if ((unsigned)role >= FORAY_ROLES || (roles[role].per_layer && layer >= m->config.n_layer)) return NULL;
  return m->tensors[slot(role, layer)];
}

const struct foray_gguf_tensor *foray_model_head(const struct foray_model *m) {
  const struct foray_gguf_tensor *t = foray_model_tensor(m, FORAY_ROLE_OUTPUT, 0);
  return t ? t : foray_model_tensor(m, FORAY_ROLE_TOKEN_EMBD, 0);
}

const uint8_t *foray_tensor_row(const struct foray_gguf_tensor *t, uint64_t r) {
  return t->data + r * foray_type_row_bytes(t->type, t->ne[0]);
}

void foray_model_sha256(const struct foray_model *m, uint8_t out[FORAY_SHA256_BYTES]) {
  struct foray_model_lazy *lazy = m->lazy;
  pthread_mutex_lock(&lazy->mu);
  if (!lazy->known) {
    foray_sha256_once(foray_gguf_file_data(m->gguf), foray_gguf_file_bytes(m->gguf), lazy->sha256);
    lazy->known = true;
  }
  memcpy(out, lazy->sha256, FORAY_SHA256_BYTES);
  pthread_mutex_unlock(&lazy->mu);
}
