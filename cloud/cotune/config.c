#include "cotune/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"

enum { TEXT_MAX = 1 << 20 };

/* ---- TOML to a tree ---- */
/* End of a value that starts at s: a line end outside of strings and brackets; *comment: where a comment
 * begins. */
static const char *value_end(const char *s, const char **comment) {
  int depth = 0;
  bool quoted = false;
  *comment = NULL;
  for (; *s; s++) {
    if (quoted) {
      if (*s == '\\' && s[1])
        s++;
      else if (*s == '"')
        quoted = false;
      continue;
    }
    if (*s == '"') quoted = true;
    if (*s == '[') depth++;
    if (*s == ']') depth--;
    if (*s == '#') {
      if (depth) return s; /* not in arrays: the caller will refuse what is left */
      *comment = s;
      return s + strcspn(s, "\n");
    }
    if (*s == '\n' && depth <= 0) return s;
  }
  return s;
}

static json_t *table_of(json_t *root, const char *name, bool list) {
  json_t *t = json_object_get(root, name);
  if (!list) {
    if (!t) json_object_set_new(root, name, t = json_object());
    return json_is_object(t) ? t : NULL;
  }
  if (!t) json_object_set_new(root, name, t = json_array());
  if (!json_is_array(t)) return NULL;
  json_array_append_new(t, json_object());
  return json_array_get(t, json_array_size(t) - 1);
}

enum foray_status foray_toml_parse(const char *text, const char *label, json_t **out, struct foray_err *err) {
  json_t *root = json_object(), *table = root;
  const char *s = text, *why = NULL;
  int line = 1;
  while (!why && *s) {
    char name[64];
    size_t n;
    const char *start = s, *comment;
    s += strspn(s, " \t\r");
    if (*s == '\n' || *s == '#' || !*s) {
      s += strcspn(s, "\n");
    } else if (*s == '[') {
      bool list = s[1] == '[';
      s += list ? 2 : 1;
      n = strspn(s, "abcdefghijklmnopqrstuvwxyz_0123456789");
      if (!n || n >= sizeof name || strncmp(s + n, list ? "]]" : "]", list ? 2 : 1)) {
        why = "table name";
        break;
      }
      memcpy(name, s, n);
      name[n] = 0;
      s += n + (list ? 2 : 1);
      s += strspn(s, " \t\r");
      if (*s == '#') s += strcspn(s, "\n");
      if (*s && *s != '\n') why = "text behind a table name";
      if (!(table = table_of(root, name, list))) why = "name is both a table and a list";
    } else {
      n = strspn(s, "abcdefghijklmnopqrstuvwxyz_0123456789");
      const char *eq = s + n + strspn(s + n, " \t");
      if (!n || n >= sizeof name || *eq != '=') {
        why = "expected key = value";
        break;
      }
      memcpy(name, s, n);
      name[n] = 0;
      const char *from = eq + 1, *to = value_end(from, &comment);
      json_t *v = json_loadb(from, (size_t)((comment ? comment : to) - from), JSON_DECODE_ANY, NULL);
      if (!v)
        why = "value is no string, number, true, false or array";
      else if (json_object_get(table, name)) {
        why = "key stands twice";
        json_decref(v);
      } else
        json_object_set_new(table, name, v);
      s = to;
    }
    if (why) break;
    for (; start < s; start++) line += *start == '\n';
    if (*s == '\n') s++, line++;
  }
  if (why) {
    json_decref(root);
    return foray_err_set(err, FORAY_E_FORMAT, "%s:%d: %s", label, line, why);
  }
  *out = root;
  return FORAY_OK;
}

/* ---- tree to struct ---- */
struct reader {
  const char *label;
  json_t *root;
  enum foray_status st;
  struct foray_err *err;
};
static json_t *take(struct reader *r, const char *section, const char *key) {
  json_t *t = json_object_get(r->root, section), *v = json_object_get(t, key);
  if (v) json_incref(v), json_object_del(t, key); /* what is left in the end is unknown */
  return v;
}
static void wrong(struct reader *r, const char *section, const char *key, const char *what) {
  if (!r->st) r->st = foray_err_set(r->err, FORAY_E_ARG, "%s: [%s] %s: %s", r->label, section, key, what);
}
static void number(struct reader *r, const char *section, const char *key, double *out, double lo,
                   double hi) {
  json_t *v = take(r, section, key);
  char text[64];
  if (!v) return;
  double d = json_number_value(v);
  snprintf(text, sizeof text, "a number from %g to %g", lo, hi);
  if (!json_is_number(v) || d < lo || d > hi)
    wrong(r, section, key, text);
  else
    *out = d;
  json_decref(v);
}
static void integer(struct reader *r, const char *section, const char *key, int *out, int lo, int hi) {
  double d = *out;
  number(r, section, key, &d, lo, hi);
  *out = (int)d;
}
static void boolean(struct reader *r, const char *section, const char *key, bool *out) {
  json_t *v = take(r, section, key);
  if (v && !json_is_boolean(v)) wrong(r, section, key, "true or false");
  if (v) *out = json_is_true(v);
  json_decref(v);
}
static void string_in(struct reader *r, const char *section, const char *key, json_t *v, char *out,
                      size_t cap) {
  const char *s = json_string_value(v);
  if (!s || strlen(s) >= cap)
    wrong(r, section, key, "a string, not too long");
  else
    snprintf(out, cap, "%s", s);
}
static void string(struct reader *r, const char *section, const char *key, char *out, size_t cap) {
  json_t *v = take(r, section, key);
  if (v) string_in(r, section, key, v, out, cap);
  json_decref(v);
}
/* ["domain=path", ...] */
static int files(struct reader *r, const char *key, struct foray_fed_file *out) {
  json_t *v = take(r, "data", key);
  size_t n = json_array_size(v);
  if (v && (!json_is_array(v) || n > FORAY_FED_FILES)) wrong(r, "data", key, "a list of \"domain=path\"");
  for (size_t i = 0; !r->st && i < n; i++) {
    const char *s = json_string_value(json_array_get(v, i)), *eq = s ? strchr(s, '=') : NULL;
    if (!eq || eq - s >= 32 || eq == s || strlen(eq + 1) >= FORAY_PATH) {
      wrong(r, "data", key, "each entry is \"domain=path\"");
      break;
    }
    memcpy(out[i].domain, s, (size_t)(eq - s));
    snprintf(out[i].path, FORAY_PATH, "%s", eq + 1);
  }
  json_decref(v);
  return r->st ? 0 : (int)n;
}

static void devices(struct reader *r, struct foray_fed_config *c) {
  json_t *list = json_object_get(r->root, "device"), *d;
  size_t i;
  if (json_array_size(list) > FORAY_FED_DEVICES) {
    wrong(r, "device", "count", "too many devices");
    return;
  }
  json_array_foreach(list, i, d) {
    json_t *m = json_object_get(d, "model"), *dom = json_object_get(d, "domain");
    string_in(r, "device", "model", m, c->device[i].model, FORAY_PATH);
    if (dom) string_in(r, "device", "domain", dom, c->device[i].domain, sizeof c->device[i].domain);
    if (json_object_size(d) != (dom ? 2u : 1u)) wrong(r, "device", "keys", "only model and domain are known");
  }
  c->n_devices = (int)json_array_size(list);
  json_object_del(r->root, "device");
}

static void all(struct reader *r, struct foray_fed_config *c) {
  char split[16] = "domain", div[16] = "kl";
  double seed = (double)c->seed;
  integer(r, "run", "rounds", &c->rounds, 1, 1000);
  integer(r, "run", "threads", &c->threads, 0, 256);
  number(r, "run", "seed", &seed, 0, 9e15);
  c->seed = (uint64_t)seed;
  string(r, "run", "algorithm", c->algorithm, sizeof c->algorithm);
  string(r, "run", "kernel", c->kernel, sizeof c->kernel);
  string(r, "run", "work", c->work, sizeof c->work);
  c->n_train = files(r, "train", c->train);
  c->n_dev = files(r, "dev", c->dev);
  integer(r, "data", "max_chars", &c->max_chars, 16, 1 << 20);
  integer(r, "data", "max_tokens", &c->max_tokens, 16, 8192);
  integer(r, "data", "max_train", &c->max_train, 0, 1 << 24);
  integer(r, "data", "max_dev", &c->max_dev, 0, 1 << 24);
  number(r, "data", "public_share", &c->public_share, 0.01, 0.9);
  string(r, "data", "split", split, sizeof split);
  number(r, "data", "dirichlet_alpha", &c->dirichlet_alpha, 0.001, 1000);
  c->dirichlet = !strcmp(split, "dirichlet");
  if (!c->dirichlet && strcmp(split, "domain")) wrong(r, "data", "split", "domain or dirichlet");
  string(r, "cloud", "model", c->cloud, sizeof c->cloud);
  number(r, "cloud", "lr", &c->cloud_lr, 0, 1);
  integer(r, "proxy", "layers", &c->proxy_layers, 1, FORAY_FED_LAYERS);
  integer(r, "proxy", "distil_steps", &c->distil_steps, 0, 1 << 20);
  number(r, "proxy", "distil_lr", &c->distil_lr, 0, 1);
  number(r, "proxy", "distil_mu", &c->distil_mu, 0, 1);
  integer(r, "train", "batch", &c->batch, 1, 1024);
  integer(r, "train", "dst_steps", &c->dst_steps, 0, 1 << 20);
  integer(r, "train", "saml_steps", &c->saml_steps, 0, 1 << 20);
  integer(r, "train", "server_steps", &c->server_steps, 0, 1 << 20);
  integer(r, "train", "rank", &c->rank, 1, 256);
  integer(r, "train", "private_rank", &c->private_rank, 0, 256);
  integer(r, "train", "k", &c->k, 1, 4096);
  number(r, "train", "lr", &c->lr, 0, 1);
  number(r, "train", "alpha", &c->alpha, 0, 1);
  number(r, "train", "beta", &c->beta, 0, 1);
  number(r, "train", "gamma", &c->gamma, 0, 1);
  number(r, "train", "tau", &c->tau, 0.05, 100);
  number(r, "train", "prox", &c->prox, 0, 1000);
  number(r, "train", "drop", &c->drop, 0, 0.9);
  number(r, "train", "clip", &c->clip, 0, 1000);
  number(r, "train", "decay", &c->decay, 0, 10);
  boolean(r, "train", "checkpoint", &c->checkpoint);
  boolean(r, "train", "plain", &c->plain);
  boolean(r, "train", "rest", &c->rest);
  string(r, "train", "div", div, sizeof div);
  if (!foray_div_find(div, &c->div)) wrong(r, "train", "div", "kl, rkl, jsd, tvd or skew-kl");
  number(r, "federation", "participation", &c->participation, 0.01, 1);
  number(r, "federation", "straggler", &c->straggler, 0, 1);
  number(r, "federation", "dropout", &c->dropout, 0, 0.99);
  boolean(r, "privacy", "secure", &c->secure);
  integer(r, "eval", "max_new", &c->max_new, 1, 4096);
  integer(r, "eval", "every", &c->eval_every, 0, 1000);
  json_t *a = take(r, "compare", "algorithms"), *s = take(r, "compare", "seeds");
  if (json_array_size(a) > 16 || json_array_size(s) > 32)
    wrong(r, "compare", "algorithms, seeds", "too many");
  for (size_t i = 0; !r->st && i < json_array_size(a); i++)
    string_in(r, "compare", "algorithms", json_array_get(a, i), c->algorithms[c->n_algorithms++], 32);
  for (size_t i = 0; !r->st && i < json_array_size(s); i++)
    c->seeds[c->n_seeds++] = (uint64_t)json_integer_value(json_array_get(s, i));
  json_decref(a), json_decref(s);
  devices(r, c);
}

enum foray_status foray_fed_config_parse(const char *text, const char *label, struct foray_fed_config *out,
                                         struct foray_err *err) {
  struct reader r = {.label = label, .err = err};
  const char *section;
  json_t *t;
  *out = (struct foray_fed_config){.rounds = 3,
                                   .seed = 1,
                                   .algorithm = "coplm",
                                   .kernel = "auto",
                                   .work = "cotune-work",
                                   .max_chars = 1200,
                                   .max_tokens = 320,
                                   .public_share = 0.2,
                                   .dirichlet_alpha = 0.5,
                                   .cloud_lr = 1e-4,
                                   .proxy_layers = 8,
                                   .distil_steps = 50,
                                   .distil_lr = 5e-4,
                                   .distil_mu = 0.5,
                                   .batch = 4,
                                   .dst_steps = 10,
                                   .saml_steps = 10,
                                   .server_steps = 10,
                                   .rank = 8,
                                   .private_rank = 4,
                                   .k = 64,
                                   .lr = 2e-4,
                                   .alpha = 0.5,
                                   .beta = 0.5,
                                   .gamma = 0.5,
                                   .tau = 1,
                                   .prox = 0.01,
                                   .clip = 1,
                                   .rest = true,
                                   .participation = 1,
                                   .max_new = 48};
  enum foray_status st = foray_toml_parse(text, label, &r.root, err);
  if (st) return st;
  all(&r, out);
  json_object_foreach(r.root, section, t) {
    const char *key = json_object_iter_key(json_object_iter(t));
    if (key) wrong(&r, section, key, "is not known");
  }
  json_decref(r.root);
  if (!r.st && (!out->n_train || !out->n_dev || !out->n_devices || !*out->cloud))
    r.st = foray_err_set(err, FORAY_E_ARG,
                         "%s: needs [data] train and dev, [cloud] model and at least one [[device]]", label);
  return r.st;
}

enum foray_status foray_fed_config_read(const char *path, struct foray_fed_config *out,
                                        struct foray_err *err) {
  FILE *f = fopen(path, "rb");
  if (!f) return foray_err_set(err, FORAY_E_NOTFOUND, "%s: %s", path, strerror(errno));
  char *text = malloc(TEXT_MAX + 1);
  size_t n = text ? fread(text, 1, TEXT_MAX + 1, f) : 0;
  fclose(f);
  if (!text || n > TEXT_MAX) {
    free(text);
    return foray_err_set(err, FORAY_E_LIMIT, "%s: more than %d bytes", path, TEXT_MAX);
  }
  text[n] = 0;
  enum foray_status st = foray_fed_config_parse(text, path, out, err);
  free(text);
  return st;
}
