/* A run from its configuration: data, models, rounds, checkpoints. */
#include "cotune/fed.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/err.h"
#include "cotune/algos.h"
#include "cotune/dpm.h"
#include "cotune/metrics.h"
#include "train/safetensors.h"

static enum foray_status nomem(struct foray_err *err) {
  return foray_err_set(err, FORAY_E_NOMEM, "co-tuning: out of memory");
}

/* ---- data ---- */
static enum foray_status load_data(struct foray_fed *f, struct foray_err *err) {
  const struct foray_fed_config *c = f->c;
  struct foray_dataset all = {0};
  enum foray_status st = FORAY_OK;
  for (int i = 0; !st && i < c->n_train; i++)
    st = foray_dataset_add(&all, c->train[i].path, c->train[i].domain, c->max_chars, c->max_train, err);
  for (int i = 0; !st && i < c->n_dev; i++)
    st = foray_dataset_add(&f->dev, c->dev[i].path, c->dev[i].domain, c->max_chars, c->max_dev, err);
  /* the public share is drawn from every domain alike; domains keep their numbers in all sets */
  int *order = malloc(((size_t)all.n + 1) * sizeof *order), seen[FORAY_DOMAINS_MAX] = {0},
      size[FORAY_DOMAINS_MAX] = {0};
  if (!st && !order) st = nomem(err);
  for (int i = 0; !st && i < all.n; i++) order[i] = i, size[all.ex[i].domain]++;
  if (!st) foray_shuffle(order, all.n, c->seed, 0x30000);
  for (int i = 0; !st && i < all.n; i++) {
    struct foray_example *e = &all.ex[order[i]];
    bool pub = seen[e->domain]++ < (int)(c->public_share * size[e->domain] + 0.5);
    st = foray_dataset_put(pub ? &f->pub : &f->train, e->prompt, e->completion, all.domain[e->domain], err);
  }
  free(order);
  foray_dataset_deinit(&all);
  if (!st && (!f->train.n || !f->pub.n || !f->dev.n))
    st =
        foray_err_set(err, FORAY_E_ARG, "%d training, %d public and %d dev examples: some of each are needed",
                      f->train.n, f->pub.n, f->dev.n);
  return st;
}

/* Tokens of a set for every model; what is too long for one is dropped for all, so that all see the same
 * data. */
static enum foray_status encode_set(struct foray_fed *f, struct foray_dataset *d, int which,
                                    struct foray_err *err) {
  enum foray_status st = FORAY_OK;
  int kept = 0;
  for (int m = 0; m < f->n_models; m++) {
    struct foray_enc *e = calloc((size_t)d->n + 1, sizeof *e);
    if (!e) return nomem(err);
    *(which == 0 ? &f->model[m].train : which == 1 ? &f->model[m].pub : &f->model[m].dev) = e;
  }
  for (int i = 0; !st && i < d->n; i++) {
    bool fits = true;
    d->ex[kept] = d->ex[i]; /* compacted in place */
    for (int m = 0; !st && m < f->n_models; m++) {
      struct foray_fed_model *x = &f->model[m];
      struct foray_enc *e = &(which == 0 ? x->train : which == 1 ? x->pub : x->dev)[kept];
      foray_enc_deinit(e);
      enum foray_status one = foray_enc_make(&x->l->style, &d->ex[kept], f->c->max_tokens, e, err);
      if (one == FORAY_E_LIMIT)
        fits = false;
      else
        st = one;
    }
    if (fits || st) {
      kept++;
      continue;
    }
    for (int m = 0; m < f->n_models; m++) {
      struct foray_fed_model *x = &f->model[m];
      foray_enc_deinit(&(which == 0 ? x->train : which == 1 ? x->pub : x->dev)[kept]);
    }
    free(d->ex[kept].prompt), free(d->ex[kept].completion);
  }
  if (!st) d->n = kept;
  if (!st && !kept)
    st = foray_err_set(err, FORAY_E_ARG, "no example has at most %d tokens under every model",
                       f->c->max_tokens);
  return st;
}

/* ---- models ---- */
static enum foray_status open_model(struct foray_fed *f, int at, const char *path, bool cut,
                                    struct foray_err *err) {
  const struct foray_fed_config *c = f->c;
  struct foray_fed_model *m = &f->model[at];
  struct foray_learner_opts o = {.rank = c->rank,
                                 .private_rank = cut ? c->private_rank : 0,
                                 .drop = (float)c->drop,
                                 .rows = c->batch * c->max_tokens,
                                 .checkpoint = c->checkpoint,
                                 .plain = c->plain,
                                 .seed = c->seed + (uint64_t)at};
  enum foray_status st = foray_model_open(path, &m->m, err);
  if (!st) st = foray_learner_open(m->m, f->gemm, &o, &m->l, err);
  if (st) return st;
  m->l->optim.lr = at == f->cloud ? c->cloud_lr : c->lr;
  m->l->optim.clip = c->clip, m->l->optim.decay = c->decay;
  if (f->log)
    fprintf(f->log, "model %-32s %d blocks, width %d\n", m->m->name, m->l->net->n_layer, m->l->net->D),
        fflush(f->log);
  return FORAY_OK;
}

enum foray_status foray_fed_make_proxy(struct foray_fed *f, struct foray_err *err) {
  const struct foray_fed_config *c = f->c;
  struct foray_learner *whole = f->model[f->cloud].l;
  struct foray_dpm_opts o = {.layers = c->proxy_layers,
                             .rank = 16,
                             .steps = f->algo->distil ? c->distil_steps : 0,
                             .batch = c->batch,
                             .max_tokens = c->max_tokens,
                             .k = c->k,
                             .lr = c->distil_lr,
                             .mu = c->distil_mu,
                             .tau = 1,
                             .seed = c->seed,
                             .checkpoint = c->checkpoint,
                             .stop = f->stop,
                             .log = f->log};
  struct foray_dpm_report r;
  char path[FORAY_PATH + 64];
  struct stat info;
  char **text = calloc((size_t)f->pub.n + 1, sizeof *text);
  enum foray_status st = text ? FORAY_OK : nomem(err);
  for (int i = 0; !st && i < f->pub.n; i++) {
    size_t n = strlen(f->pub.ex[i].prompt) + strlen(f->pub.ex[i].completion) + 2;
    if (!(text[i] = malloc(n))) st = nomem(err);
    if (!st) snprintf(text[i], n, "%s\n%s", f->pub.ex[i].prompt, f->pub.ex[i].completion);
  }
  snprintf(path, sizeof path, "%s/proxy-%s-%d-%d-%llu.gguf", c->work, f->model[f->cloud].m->name,
           c->proxy_layers, o.steps, (unsigned long long)c->seed);
  if (!st && stat(path, &info)) {
    st = foray_dpm_make(whole, (const char *const *)text, f->pub.n, &o, path, &r, err);
    if (!st && f->log)
      fprintf(f->log, "proxy of %d blocks, %.1f MiB: KL %.4f -> %.4f, agreement %.3f -> %.3f\n", r.layers,
              (double)r.bytes / 1048576, r.kl_before, r.kl_after, r.agree_before, r.agree_after);
    if (!st) f->dpm_before = r.kl_before, f->dpm_after = r.kl_after;
    if (!st)
      st = stat(path, &info) ? foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(errno)) : FORAY_OK;
  }
  for (int i = 0; text && i < f->pub.n; i++) free(text[i]);
  free(text);
  if (!st) f->proxy_bytes = (uint64_t)info.st_size;
  if (!st) st = open_model(f, f->proxy, path, true, err);
  if (st) return st;
  struct foray_learner *l = f->model[f->proxy].l;
  foray_net_move_ranks(l->net, l->rank, l->rank + l->private_rank);
  st = foray_slot_take(&f->private_start, l, err);
  foray_net_move_ranks(l->net, 0, l->rank);
  return st ? st : foray_slot_take(&f->pi, l, err);
}

static enum foray_status open_models(struct foray_fed *f, struct foray_err *err) {
  const struct foray_fed_config *c = f->c;
  enum foray_status st = FORAY_OK;
  f->model = calloc((size_t)c->n_devices + 2, sizeof *f->model);
  f->device = calloc((size_t)c->n_devices, sizeof *f->device);
  if (!f->model || !f->device) return nomem(err);
  f->n_devices = c->n_devices;
  f->proxy = -1;
  for (int k = 0; k < c->n_devices; k++) {
    int same = -1;
    for (int i = 0; i < k && same < 0; i++)
      if (!strcmp(c->device[i].model, c->device[k].model)) same = f->device[i].model;
    f->device[k].model = same >= 0 ? same : f->n_models++;
  }
  f->cloud = f->n_models++;
  for (int m = 0; !st && m < f->cloud; m++)
    for (int k = 0; !st && k < c->n_devices; k++)
      if (f->device[k].model == m && !f->model[m].l) st = open_model(f, m, c->device[k].model, false, err);
  if (!st) st = open_model(f, f->cloud, c->cloud, false, err);
  return st;
}

static enum foray_status shares(struct foray_fed *f, struct foray_err *err) {
  const struct foray_fed_config *c = f->c;
  struct foray_share *s = calloc((size_t)f->n_devices, sizeof *s);
  int domain[FORAY_FED_DEVICES];
  enum foray_status st = s ? FORAY_OK : nomem(err);
  for (int k = 0; !st && k < f->n_devices; k++) {
    domain[k] = f->device[k].domain =
        *c->device[k].domain ? foray_dataset_domain(&f->train, c->device[k].domain) : -1;
    if (!c->dirichlet && domain[k] < 0)
      st = foray_err_set(err, FORAY_E_ARG, "device %d: no training data of domain '%s'", k,
                         c->device[k].domain);
  }
  if (!st)
    st = c->dirichlet ? foray_split_dirichlet(&f->train, c->dirichlet_alpha, f->n_devices, c->seed, s, err)
                      : foray_split_domain(&f->train, domain, f->n_devices, s, err);
  for (int k = 0; s && k < f->n_devices; k++) f->device[k].share = s[k];
  free(s);
  for (int k = 0; !st && k < f->n_devices; k++) {
    struct foray_device *d = &f->device[k];
    st = foray_slot_take(&d->own, f->model[d->model].l, err);
    if (!st && f->proxy >= 0) {
      d->priv = f->private_start;
      if (!(d->priv.state = malloc((3 * d->priv.n + 1) * sizeof(float)))) return nomem(err);
      memcpy(d->priv.state, f->private_start.state, 3 * d->priv.n * sizeof(float));
    }
  }
  return st;
}

enum foray_status foray_fed_open(const struct foray_fed_config *c, struct foray_mm *gemm, FILE *log,
                                 FILE *json, const volatile sig_atomic_t *stop, struct foray_fed **out,
                                 struct foray_err *err) {
  struct foray_fed *f = calloc(1, sizeof *f);
  if (!f) return nomem(err);
  *f = (struct foray_fed){
      .c = c, .algo = foray_algo_find(c->algorithm), .gemm = gemm, .log = log, .json = json, .stop = stop};
  enum foray_status st = FORAY_OK;
  if (!f->algo)
    st = foray_err_set(err, FORAY_E_ARG, "algorithm '%s' is not known (foray-tune run --help lists them)",
                       c->algorithm);
  if (!st && mkdir(c->work, 0777) && errno != EEXIST)
    st = foray_err_set(err, FORAY_E_IO, "%s: %s", c->work, strerror(errno));
  if (!st) st = load_data(f, err);
  if (!st) st = open_models(f, err);
  if (!st && f->algo->proxy) {
    f->proxy = f->n_models++;
    st = foray_fed_make_proxy(f, err);
  }
  if (!st) st = encode_set(f, &f->train, 0, err);
  if (!st) st = encode_set(f, &f->pub, 1, err);
  if (!st) st = encode_set(f, &f->dev, 2, err);
  for (int m = 0; !st && m < f->n_models; m++) {
    const struct foray_tokenizer *cloud = f->model[f->cloud].m->tokenizer, *own = f->model[m].m->tokenizer;
    st = foray_align_open(cloud, own, &f->model[m].from_cloud, err);
    if (!st) st = foray_align_open(own, cloud, &f->model[m].to_cloud, err);
  }
  if (!st) st = shares(f, err);
  if (!st) st = foray_slot_take(&f->cloud_slot, f->model[f->cloud].l, err);
  if (st) {
    foray_fed_close(f);
    return st;
  }
  *out = f;
  return FORAY_OK;
}

void foray_fed_close(struct foray_fed *f) {
  if (!f) return;
  for (int m = 0; f->model && m < f->n_models; m++) {
    struct foray_fed_model *x = &f->model[m];
    for (int i = 0; x->train && i < f->train.n; i++) foray_enc_deinit(&x->train[i]);
    for (int i = 0; x->pub && i < f->pub.n; i++) foray_enc_deinit(&x->pub[i]);
    for (int i = 0; x->dev && i < f->dev.n; i++) foray_enc_deinit(&x->dev[i]);
    free(x->train), free(x->pub), free(x->dev);
    foray_align_close(x->from_cloud), foray_align_close(x->to_cloud);
    foray_learner_close(x->l);
    foray_model_close(x->m);
  }
  for (int k = 0; f->device && k < f->n_devices; k++) {
    struct foray_device *d = &f->device[k];
    foray_share_deinit(&d->share);
    foray_slot_free(&d->own), foray_slot_free(&d->priv), foray_slot_free(&d->copy);
  }
  foray_slot_free(&f->cloud_slot), foray_slot_free(&f->pi), foray_slot_free(&f->private_start);
  foray_dataset_deinit(&f->train), foray_dataset_deinit(&f->pub), foray_dataset_deinit(&f->dev);
  free(f->model), free(f->device);
  free(f);
}

/* ---- checkpoint: all slots and cursors after a complete round ---- */
struct member {
  char name[24];
  struct foray_slot *s;
};
static int members(struct foray_fed *f, struct member *m) {
  int n = 0;
  m[n++] = (struct member){"cloud", &f->cloud_slot};
  if (f->proxy >= 0) m[n++] = (struct member){"pi", &f->pi};
  for (int k = 0; k < f->n_devices; k++) {
    struct foray_slot *const s[3] = {&f->device[k].own, &f->device[k].priv, &f->device[k].copy};
    static const char *const what[3] = {"own", "priv", "copy"};
    for (int i = 0; i < (f->proxy >= 0 ? 3 : 1); i++) {
      snprintf(m[n].name, sizeof m[n].name, "%s.%d", what[i], k);
      m[n++].s = s[i];
    }
  }
  return n;
}
static void checkpoint_path(const struct foray_fed *f, char *out, size_t cap) {
  snprintf(out, cap, "%s/%s-%llu.safetensors", f->c->work, f->c->algorithm, (unsigned long long)f->c->seed);
}
/* What shaped the run: a checkpoint of another one is not taken up. */
static void run_key(const struct foray_fed *f, char out[FORAY_SHA256_HEX]) {
  uint8_t digest[FORAY_SHA256_BYTES];
  struct foray_fed_config c;
  memcpy(&c, f->c, sizeof c); /* with the zeros between the fields */
  c.rounds = c.threads = c.max_new = c.eval_every = c.n_algorithms = c.n_seeds = 0;
  memset(c.algorithms, 0, sizeof c.algorithms);
  memset(c.seeds, 0, sizeof c.seeds);
  memset(c.work, 0, sizeof c.work);
  foray_sha256_once(&c, sizeof c, digest);
  foray_sha256_hex(digest, out);
}

static enum foray_status save(struct foray_fed *f, struct foray_err *err) {
  struct member m[3 * FORAY_FED_DEVICES + 2];
  int n = members(f, m);
  struct foray_st_writer *w = foray_st_writer_open();
  char path[FORAY_PATH + 64], text[256], key[FORAY_SHA256_HEX];
  if (!w) return nomem(err);
  for (int i = 0; i < n; i++) {
    uint64_t shape[1] = {3 * m[i].s->n};
    snprintf(text, sizeof text, "%d", m[i].s->step);
    if (m[i].s->n) foray_st_writer_f32(w, m[i].name, shape, 1, m[i].s->state);
    foray_st_writer_meta(w, m[i].name, text);
  }
  for (int k = 0; k <= f->n_devices; k++) {
    const struct foray_cursor *c = k < f->n_devices ? &f->device[k].cursor : &f->pub_cursor;
    char name[24];
    snprintf(name, sizeof name, "cursor.%d", k);
    snprintf(text, sizeof text, "%d %u %llu", c->at, c->epoch,
             k < f->n_devices ? (unsigned long long)f->device[k].tokens : 0ull);
    foray_st_writer_meta(w, name, text);
  }
  run_key(f, key);
  foray_st_writer_meta(w, "key", key);
  snprintf(text, sizeof text, "%d %llu %llu %.9g %.9g", f->round + 1, (unsigned long long)f->wire.up,
           (unsigned long long)f->wire.down, f->dpm_before, f->dpm_after);
  foray_st_writer_meta(w, "round", text);
  checkpoint_path(f, path, sizeof path);
  enum foray_status st = foray_st_writer_save(w, path, err);
  foray_st_writer_close(w);
  return st;
}

static enum foray_status restore(struct foray_fed *f, struct foray_err *err) {
  struct member m[3 * FORAY_FED_DEVICES + 2];
  int n = members(f, m);
  char path[FORAY_PATH + 64], key[FORAY_SHA256_HEX];
  struct foray_st *s;
  checkpoint_path(f, path, sizeof path);
  if (access(path, R_OK)) return FORAY_OK;
  enum foray_status st = foray_st_open(path, &s, err);
  if (st) return st;
  run_key(f, key);
  const char *theirs = foray_st_meta(s, "key"), *round = foray_st_meta(s, "round");
  unsigned long long up = 0, down = 0, tokens;
  if (!theirs || strcmp(theirs, key)) {
    st = foray_err_set(err, FORAY_E_MISMATCH,
                       "%s belongs to another configuration: choose another [run] work", path);
  } else if (!round || sscanf(round, "%d %llu %llu %lf %lf", &f->round, &up, &down, &f->dpm_before,
                              &f->dpm_after) != 5) {
    st = foray_err_set(err, FORAY_E_FORMAT, "%s: no round", path);
  }
  for (int i = 0; !st && i < n; i++) {
    const struct foray_st_tensor *t = foray_st_find(s, m[i].name);
    const char *step = foray_st_meta(s, m[i].name);
    if (!t) continue;
    if (m[i].s->n && 3 * m[i].s->n != t->n)
      st = foray_err_set(err, FORAY_E_MISMATCH, "%s: %s has another size", path, m[i].name);
    if (!st && !m[i].s->n && !(m[i].s->state = malloc(t->n * sizeof(float)))) st = nomem(err);
    if (st) break;
    m[i].s->n = t->n / 3;
    m[i].s->step = step ? (int)strtol(step, NULL, 10) : 0;
    foray_st_read(s, t, m[i].s->state);
  }
  for (int k = 0; !st && k <= f->n_devices; k++) {
    struct foray_cursor *c = k < f->n_devices ? &f->device[k].cursor : &f->pub_cursor;
    char name[24];
    snprintf(name, sizeof name, "cursor.%d", k);
    const char *text = foray_st_meta(s, name);
    if (!text || sscanf(text, "%d %u %llu", &c->at, &c->epoch, &tokens) != 3 || c->at < 0)
      st = foray_err_set(err, FORAY_E_FORMAT, "%s: %s", path, name);
    else if (k < f->n_devices)
      f->device[k].tokens = tokens;
  }
  f->wire.up = up, f->wire.down = down;
  foray_st_close(s);
  return st;
}

/* ---- scores ---- */
static enum foray_status score(struct foray_fed *f, int model, int domain, struct foray_score *out,
                               struct foray_err *err) {
  struct foray_fed_model *m = &f->model[model];
  const struct foray_enc **enc = malloc(((size_t)f->dev.n + 1) * sizeof *enc);
  int *index = malloc(((size_t)f->dev.n + 1) * sizeof *index), n = 0;
  char **answer = calloc((size_t)f->dev.n + 1, sizeof *answer);
  enum foray_status st = enc && index && answer ? FORAY_OK : nomem(err);
  *out = (struct foray_score){0};
  const char *name = domain >= 0 ? f->train.domain[domain] : NULL;
  for (int i = 0; !st && i < f->dev.n; i++)
    if (!name || !strcmp(f->dev.domain[f->dev.ex[i].domain], name)) enc[n] = &m->dev[i], index[n++] = i;
  if (!st && n) st = foray_learner_perplexity(m->l, enc, n, &out->perplexity, &out->accuracy, err);
  if (!st && n) st = foray_learner_answer(m->l, enc, n, f->c->max_new, answer, err);
  for (int i = 0; !st && i < n; i++) {
    const char *want = f->dev.ex[index[i]].completion;
    bool numbers = strstr(want, "#### ") != NULL;
    struct foray_rouge plain, stem;
    st = foray_rouge_l(answer[i], want, false, &plain, err);
    if (!st) st = foray_rouge_l(answer[i], want, true, &stem, err);
    int squad = foray_exact_match(FORAY_EM_SQUAD, answer[i], want),
        same = foray_exact_match(FORAY_EM_PLAIN, answer[i], want);
    if (squad < 0 || same < 0) st = nomem(err);
    if (st) break;
    out->rouge += plain.f, out->rouge_stem += stem.f, out->em_squad += squad, out->em_plain += same;
    out->em += numbers ? foray_exact_match(FORAY_EM_GSM8K, answer[i], want) : squad;
  }
  out->n = n;
  if (n) {
    double k = 100.0 / n;
    out->rouge *= k, out->rouge_stem *= k, out->em_squad *= k, out->em_plain *= k, out->em *= k;
  }
  for (int i = 0; answer && i < n; i++) free(answer[i]);
  free(enc), free(index), free(answer);
  return st;
}

enum foray_status foray_fed_evaluate(struct foray_fed *f, struct foray_fed_result *out,
                                     struct foray_err *err) {
  enum foray_status st = FORAY_OK;
  struct foray_score *mean = &out->mean;
  *mean = (struct foray_score){0};
  for (int k = 0; !st && k < f->n_devices; k++) {
    struct foray_device *d = &f->device[k];
    struct foray_score *s = &out->device[k];
    foray_slot_put(&d->own, f->model[d->model].l);
    st = score(f, d->model, f->c->dirichlet ? -1 : d->domain, s, err);
    double w = 1.0 / f->n_devices;
    mean->n += s->n, mean->perplexity += w * s->perplexity, mean->accuracy += w * s->accuracy,
        mean->rouge += w * s->rouge;
    mean->rouge_stem += w * s->rouge_stem, mean->em_squad += w * s->em_squad,
        mean->em_plain += w * s->em_plain;
    mean->em += w * s->em;
  }
  foray_slot_put(&f->cloud_slot, f->model[f->cloud].l);
  if (!st) st = score(f, f->cloud, -1, &out->cloud, err);
  out->up = f->wire.up, out->down = f->wire.down;
  return st;
}

static json_t *score_json(const struct foray_score *s) {
  return json_pack("{s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "n", s->n, "perplexity", s->perplexity,
                   "accuracy", s->accuracy, "rouge_l", s->rouge, "rouge_l_stem", s->rouge_stem, "em_squad",
                   s->em_squad, "em_plain", s->em_plain, "em", s->em);
}
char *foray_fed_result_json(const struct foray_fed *f, const struct foray_fed_result *r) {
  json_t *devices = json_array();
  for (int k = 0; k < f->n_devices; k++) {
    json_t *s = score_json(&r->device[k]);
    json_object_set_new(s, "model", json_string(f->model[f->device[k].model].m->name));
    json_object_set_new(s, "domain",
                        json_string(f->device[k].domain >= 0 ? f->train.domain[f->device[k].domain] : "all"));
    json_object_set_new(s, "examples", json_integer(f->device[k].share.n));
    json_object_set_new(s, "tokens", json_integer((json_int_t)f->device[k].tokens));
    json_array_append_new(devices, s);
  }
  json_t *o = json_pack("{s:s, s:I, s:i, s:I, s:I, s:f, s:f, s:f, s:o, s:o, s:o}", "algorithm",
                        f->c->algorithm, "seed", (json_int_t)f->c->seed, "rounds", f->round, "bytes_up",
                        (json_int_t)r->up, "bytes_down", (json_int_t)r->down, "seconds", r->seconds,
                        "proxy_kl_before", f->dpm_before, "proxy_kl_after", f->dpm_after, "mean",
                        score_json(&r->mean), "cloud", score_json(&r->cloud), "devices", devices);
  char *text = json_dumps(o, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
  json_decref(o);
  return text;
}

enum foray_status foray_fed_run(struct foray_fed *f, struct foray_fed_result *out, struct foray_err *err) {
  double t0 = foray_clock_s();
  int who[FORAY_FED_DEVICES], percent[FORAY_FED_DEVICES];
  *out = (struct foray_fed_result){0};
  enum foray_status st = restore(f, err);
  foray_slot_put(&f->cloud_slot, f->model[f->cloud].l);
  for (; !st && f->round < f->c->rounds; f->round++) {
    double began = foray_clock_s();
    uint64_t up = f->wire.up, down = f->wire.down;
    int n = foray_fed_draw(f, f->round, who, percent);
    st = f->algo->round(f, who, percent, n, err);
    if (!st) st = foray_slot_take(&f->cloud_slot, f->model[f->cloud].l, err);
    if (!st) st = save(f, err);
    if (st) break;
    double s = foray_clock_s() - began;
    if (f->log)
      fprintf(f->log,
              "%s, seed %llu: round %d of %d, %d of %d devices, %.1f KiB up, %.1f KiB down, %.1f s, about "
              "%.0f s left\n",
              f->c->algorithm, (unsigned long long)f->c->seed, f->round + 1, f->c->rounds, n, f->n_devices,
              (double)(f->wire.up - up) / 1024, (double)(f->wire.down - down) / 1024, s,
              s * (f->c->rounds - f->round - 1)),
          fflush(f->log);
    if (f->json)
      fprintf(f->json,
              "{\"event\":\"round\",\"algorithm\":\"%s\",\"round\":%d,\"devices\":%d,\"bytes_up\":%llu,"
              "\"bytes_down\":%llu,\"seconds\":%.3f}\n",
              f->c->algorithm, f->round + 1, n, (unsigned long long)(f->wire.up - up),
              (unsigned long long)(f->wire.down - down), s),
          fflush(f->json);
  }
  if (!st) st = foray_fed_evaluate(f, out, err);
  out->seconds = foray_clock_s() - t0;
  return st;
}
