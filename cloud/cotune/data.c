#include "cotune/data.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"
#include "core/philox.h"

static enum foray_status nomem(struct foray_err *err) {
  return foray_err_set(err, FORAY_E_NOMEM, "data: out of memory");
}

int foray_dataset_domain(const struct foray_dataset *d, const char *name) {
  for (int i = 0; i < d->n_domains; i++)
    if (!strcmp(d->domain[i], name)) return i;
  return -1;
}

enum foray_status foray_dataset_put(struct foray_dataset *d, const char *prompt, const char *completion,
                                    const char *domain, struct foray_err *err) {
  int dom = foray_dataset_domain(d, domain);
  if (dom < 0) {
    if (d->n_domains == FORAY_DOMAINS_MAX || strlen(domain) >= FORAY_DOMAIN_NAME)
      return foray_err_set(err, FORAY_E_LIMIT, "domain '%s': more than %d, or a name of more than %d bytes",
                           domain, FORAY_DOMAINS_MAX, FORAY_DOMAIN_NAME - 1);
    dom = d->n_domains++;
    snprintf(d->domain[dom], FORAY_DOMAIN_NAME, "%s", domain);
  }
  if (d->n == d->cap) {
    int cap = d->cap ? 2 * d->cap : 256;
    struct foray_example *p = realloc(d->ex, (size_t)cap * sizeof *p);
    if (!p) return nomem(err);
    d->ex = p, d->cap = cap;
  }
  struct foray_example e = {strdup(prompt), strdup(completion), dom};
  if (!e.prompt || !e.completion) {
    free(e.prompt), free(e.completion);
    return nomem(err);
  }
  d->ex[d->n++] = e;
  return FORAY_OK;
}

enum foray_status foray_dataset_add(struct foray_dataset *d, const char *path, const char *domain,
                                    int max_chars, int max_n, struct foray_err *err) {
  FILE *f = fopen(path, "rb");
  char *line = malloc(FORAY_LINE_MAX);
  enum foray_status st = FORAY_OK;
  int number = 0, took = 0;
  if (!f)
    st = foray_err_set(err, errno == ENOENT ? FORAY_E_NOTFOUND : FORAY_E_IO, "%s: %s", path, strerror(errno));
  if (!st && !line) st = nomem(err);
  while (!st && (!max_n || took < max_n) && fgets(line, FORAY_LINE_MAX, f)) {
    json_error_t je;
    size_t len = strlen(line);
    number++;
    if (len + 1 == FORAY_LINE_MAX && line[len - 1] != '\n') {
      st = foray_err_set(err, FORAY_E_LIMIT, "%s:%d: line of more than %d bytes", path, number,
                         FORAY_LINE_MAX);
      break;
    }
    if (strspn(line, " \t\r\n") == len) continue;
    json_t *j = json_loads(line, 0, &je);
    const char *p = json_string_value(json_object_get(j, "prompt"));
    const char *c = json_string_value(json_object_get(j, "completion"));
    if (!p || !c || !*c)
      st = foray_err_set(err, FORAY_E_FORMAT, "%s:%d: %s", path, number,
                         j ? "needs \"prompt\" and a \"completion\" that is not empty" : je.text);
    else if (strlen(p) + strlen(c) <= (size_t)max_chars) {
      st = foray_dataset_put(d, p, c, domain, err);
      took++;
    }
    json_decref(j);
  }
  if (!st && ferror(f)) st = foray_err_set(err, FORAY_E_IO, "%s: read error", path);
  free(line);
  if (f) fclose(f);
  return st;
}

void foray_dataset_deinit(struct foray_dataset *d) {
  for (int i = 0; i < d->n; i++) free(d->ex[i].prompt), free(d->ex[i].completion);
  free(d->ex);
  *d = (struct foray_dataset){0};
}

/* ---- shares ---- */
void foray_share_deinit(struct foray_share *s) {
  free(s->index);
  *s = (struct foray_share){0};
}
static uint32_t word(uint64_t seed, uint32_t stream, uint32_t i) {
  return foray_philox4x32(seed, i, stream, 0x64617461, 0).v[0];
}
static double uniform(uint64_t seed, uint32_t stream, uint32_t i) {
  return ((double)word(seed, stream, i) + 0.5) / 4294967296.0;
}
void foray_shuffle(int *v, int n, uint64_t seed, uint32_t stream) {
  for (int i = n - 1; i > 0; i--) {
    int k = (int)((uint64_t)word(seed, stream, (uint32_t)i) * (uint64_t)(i + 1) >> 32), t = v[i];
    v[i] = v[k], v[k] = t;
  }
}

static enum foray_status share_add(struct foray_share *s, int index, struct foray_err *err) {
  if ((s->n & (s->n - 1)) == 0) { /* full at every power of two */
    int *p = realloc(s->index, (size_t)(s->n ? 2 * s->n : 1) * sizeof *p);
    if (!p) return nomem(err);
    s->index = p;
  }
  s->index[s->n++] = index;
  return FORAY_OK;
}

enum foray_status foray_split_domain(const struct foray_dataset *d, const int *domain, int devices,
                                     struct foray_share *out, struct foray_err *err) {
  int turn[FORAY_DOMAINS_MAX] = {0};
  enum foray_status st = FORAY_OK;
  for (int i = 0; !st && i < d->n; i++) {
    int dom = d->ex[i].domain, owners = 0;
    for (int k = 0; k < devices; k++) owners += domain[k] == dom;
    if (!owners) continue;
    int want = turn[dom]++ % owners;
    for (int k = 0; k < devices; k++)
      if (domain[k] == dom && want-- == 0) st = share_add(&out[k], i, err);
  }
  return st;
}

/* Gamma(alpha, 1) by Marsaglia and Tsang's rejection; alpha below 1 through alpha + 1. */
static double gamma_draw(double alpha, uint64_t seed, uint32_t stream) {
  double boost = alpha < 1 ? pow(uniform(seed, stream, 0), 1 / alpha) : 1, a = alpha < 1 ? alpha + 1 : alpha;
  double d = a - 1.0 / 3, c = 1 / sqrt(9 * d);
  for (uint32_t i = 1; i < 3000; i += 3) {
    double x =
        sqrt(-2 * log(uniform(seed, stream, i))) * cos(6.283185307179586 * uniform(seed, stream, i + 1));
    double v = 1 + c * x;
    if (v <= 0) continue;
    v = v * v * v;
    if (log(uniform(seed, stream, i + 2)) < 0.5 * x * x + d - d * v + d * log(v)) return boost * d * v;
  }
  return boost * d;
}

enum foray_status foray_split_dirichlet(const struct foray_dataset *d, double alpha, int devices,
                                        uint64_t seed, struct foray_share *out, struct foray_err *err) {
  int *list = malloc((size_t)(d->n ? d->n : 1) * sizeof *list);
  double *part = malloc((size_t)devices * sizeof *part);
  enum foray_status st = list && part ? FORAY_OK : nomem(err);
  for (int dom = 0; !st && dom < d->n_domains; dom++) {
    int n = 0;
    double sum = 0, seen = 0;
    for (int i = 0; i < d->n; i++)
      if (d->ex[i].domain == dom) list[n++] = i;
    foray_shuffle(list, n, seed, 0x10000u + (uint32_t)dom);
    for (int k = 0; k < devices; k++)
      sum += part[k] = gamma_draw(alpha, seed, (uint32_t)(dom * 4096 + k)) + 1e-300;
    for (int k = 0, at = 0; !st && k < devices; k++) {
      seen += part[k];
      int to = k + 1 == devices ? n : (int)(seen / sum * n + 0.5);
      for (; !st && at < to; at++) st = share_add(&out[k], list[at], err);
    }
  }
  free(list), free(part);
  return st;
}

/* ---- tokens ---- */
enum foray_status foray_style_open(const struct foray_model *m, bool plain, struct foray_style *out,
                                   struct foray_err *err) {
  struct foray_err mine = {0};
  *out = (struct foray_style){.m = m, .end_id = foray_tokenizer_eos(m->tokenizer)};
  out->has_chat = !plain && foray_chat_open(m->gguf, NULL, &out->chat, &mine) == FORAY_OK;
  return out->end_id >= 0 ? FORAY_OK
                          : foray_err_set(err, FORAY_E_UNSUPPORTED, "model '%s' has no end token", m->name);
}

void foray_enc_deinit(struct foray_enc *e) {
  free(e->ids);
  foray_cut_deinit(&e->cut);
  *e = (struct foray_enc){0};
}

static enum foray_status finish(const struct foray_style *s, struct foray_ids *ids, const char *completion,
                                int max_tokens, struct foray_enc *out, struct foray_err *err) {
  *out = (struct foray_enc){.answer = (int)ids->n, .completion = completion};
  enum foray_status st =
      foray_cut_text(s->m->tokenizer, completion, strlen(completion), s->end_id, &out->cut, err);
  if (!st && ids->n + (size_t)out->cut.n > (size_t)max_tokens)
    st = foray_err_set(err, FORAY_E_LIMIT, "%zu tokens, %d at most", ids->n + (size_t)out->cut.n, max_tokens);
  for (int i = 0; !st && i < out->cut.n; i++)
    if (foray_ids_add(ids, out->cut.ids[i])) st = nomem(err);
  if (st) {
    foray_ids_deinit(ids);
    foray_enc_deinit(out);
    return st;
  }
  out->n = (int)ids->n;
  out->ids = ids->ids;
  return FORAY_OK;
}

enum foray_status foray_enc_make(const struct foray_style *s, const struct foray_example *e, int max_tokens,
                                 struct foray_enc *out, struct foray_err *err) {
  struct foray_ids ids = {0};
  enum foray_status st;
  if (s->has_chat) {
    struct foray_chat_message msg = {"user", e->prompt};
    st = foray_chat_encode(&s->chat, s->m->tokenizer, &msg, 1, true, &ids, err);
  } else {
    struct foray_span span[2] = {{e->prompt, strlen(e->prompt), false}, {"\n", 1, false}};
    int32_t bos = foray_tokenizer_bos(s->m->tokenizer);
    st = foray_tokenizer_encode_spans(s->m->tokenizer, span, 2, FORAY_ENCODE_BOS, &ids, err);
    if (!st && !ids.n && foray_ids_add(&ids, bos < 0 ? s->end_id : bos)) st = nomem(err);
  }
  if (st) {
    foray_ids_deinit(&ids);
    return st;
  }
  return finish(s, &ids, e->completion, max_tokens, out, err);
}

enum foray_status foray_enc_text(const struct foray_style *s, const char *text, int max_tokens,
                                 struct foray_enc *out, struct foray_err *err) {
  struct foray_ids ids = {0};
  int32_t bos = foray_tokenizer_bos(s->m->tokenizer);
  if (foray_ids_add(&ids, bos < 0 ? s->end_id : bos)) return nomem(err);
  return finish(s, &ids, text, max_tokens, out, err);
}
