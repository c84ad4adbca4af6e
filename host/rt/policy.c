/* Policies as pure functions; see policy.h. Floats are welcome here: a policy never touches the output, only
 * how much of it is guessed ahead. */
#include "rt/policy.h"

#include <math.h>
#include <string.h>

static const char *const kind_names[FORAY_POLICY_KINDS] = {"fixed",    "max-prob", "margin", "entropy",
                                                           "evidence", "adaptive", "goodput"};

const char *foray_policy_name(enum foray_policy_kind kind) {
  return (unsigned)kind < FORAY_POLICY_KINDS ? kind_names[kind] : "?";
}

bool foray_policy_parse(const char *name, enum foray_policy_kind *out) {
  for (int i = 0; i < FORAY_POLICY_KINDS; i++)
    if (!strcmp(name, kind_names[i])) {
      *out = (enum foray_policy_kind)i;
      return true;
    }
  if (!strcmp(name, "maxprob")) { /* as it is often typed */
    *out = FORAY_POLICY_MAXPROB;
    return true;
  }
  return false;
}

struct foray_policy_cfg foray_policy_default(enum foray_policy_kind kind) {
  struct foray_policy_cfg c = {.kind = kind, .min = 1, .max = 8, .target = .9f, .probe_every = 16};
  switch (kind) {
  case FORAY_POLICY_MAXPROB: c.threshold = .5f; break;
  case FORAY_POLICY_MARGIN: c.threshold = .3f; break;
  case FORAY_POLICY_ENTROPY: c.threshold = .4f; break;
  case FORAY_POLICY_EVIDENCE: c.threshold = .85f; break;
  case FORAY_POLICY_ADAPTIVE: c.threshold = .6f; break;
  case FORAY_POLICY_GOODPUT:
    c.threshold = .35f; /* stands in for the rule until times are known: least chance that all are accepted */
    c.max = 16;
    c.learn = true;
    c.may_switch_off = true;
    break;
  default: break;
  }
  return c;
}

/* ---------------------------------------------------------------- logistic model */
static float clampf(float v, float lo, float hi) { return v < lo ? lo : v > hi ? hi : v; }
static float finite_or(float v, float other) { return isfinite(v) ? v : other; }

static void features(const struct foray_conf *c, uint32_t k, float x[FORAY_LOGIT_FEATURES]) {
  float top = clampf(finite_or(c->top, .5f), .0025f, .9975f);
  x[0] = 1;
  x[1] = logf(top / (1 - top));
  x[2] = clampf(finite_or(c->margin, 0), 0, 1);
  x[3] = sqrtf(clampf(finite_or(c->entropy, 0), 0, 16));
  x[4] = clampf(finite_or(c->aleatoric, 0), 0, 8);
  x[5] = 10 * clampf(finite_or(c->epistemic, 0), 0, 1);
  x[6] = clampf(finite_or(c->depth, 1), 0, 1) - 1;
  x[7] = (float)(k < FORAY_POLICY_BLOCK_MAX ? k : FORAY_POLICY_BLOCK_MAX) / 8;
}

static float sigmoid(float z) { return 1 / (1 + expf(-clampf(z, -30, 30))); }

void foray_logit_start(struct foray_logit *m) {
  *m = (struct foray_logit){0};
  m->w[1] = 1;
  for (int i = 0; i < FORAY_LOGIT_FEATURES; i++)
    m->g2[i] = 1; /* the prior's weight against the first verdicts */
}

float foray_logit_predict(const struct foray_logit *m, const struct foray_conf *c, uint32_t k) {
  float x[FORAY_LOGIT_FEATURES], z = 0;
  features(c, k, x);
  for (int i = 0; i < FORAY_LOGIT_FEATURES; i++) z += m->w[i] * x[i];
  return sigmoid(z);
}

void foray_logit_learn(struct foray_logit *m, const struct foray_conf *c, uint32_t k, bool accepted) {
  float x[FORAY_LOGIT_FEATURES];
  features(c, k, x);
  float err = (accepted ? 1.f : 0.f) - foray_logit_predict(m, c, k);
  for (int i = 0; i < FORAY_LOGIT_FEATURES; i++) {
    float g = err * x[i];
    m->g2[i] += g * g;
    m->w[i] += .2f * g / sqrtf(m->g2[i]);
  }
  m->seen++;
}

/* ---------------------------------------------------------------- goodput */
double foray_goodput_expect(double alpha, uint32_t gamma) {
  double e = 1, p = 1;
  for (uint32_t i = 0; i < gamma; i++) e += p *= alpha; /* the closed form, without its 0/0 at alpha = 1 */
  return e;
}

static double round_seconds(const struct foray_policy_times *t, uint32_t gamma) {
  return (double)gamma * t->draft + t->rtt + t->verify + (double)gamma * t->verify_tok;
}

double foray_goodput_seconds(const struct foray_policy_times *t, double alpha, uint32_t gamma) {
  return round_seconds(t, gamma) / foray_goodput_expect(alpha, gamma);
}

double foray_goodput_rtt_max(double alpha, uint32_t gamma, double draft, double plain) {
  return (foray_goodput_expect(alpha, gamma) - 1) * plain - (double)gamma * draft;
}

uint32_t foray_goodput_best(const struct foray_policy_times *t, double alpha, uint32_t max) {
  uint32_t best = 1;
  double least = INFINITY;
  if (!max) return 0;
  for (uint32_t g = 1; g <= max; g++) {
    double s = foray_goodput_seconds(t, alpha, g);
    if (s < least) least = s, best = g;
  }
  return t->plain > 0 && least >= t->plain ? 0 : best;
}

/* ---------------------------------------------------------------- state */
struct foray_policy_state foray_policy_start(const struct foray_policy_cfg *cfg) {
  struct foray_policy_state s = {
      .eta = cfg->threshold, .rate = cfg->target, .alpha = .7f, .survive = 1, .expect = 1};
  foray_logit_start(&s.model);
  return s;
}

static float score(const struct foray_policy_cfg *cfg, const struct foray_conf *c) {
  switch (cfg->kind) {
  case FORAY_POLICY_MARGIN: return c->margin;
  case FORAY_POLICY_ENTROPY: return 1 - sqrtf(.2f * (c->entropy > 0 ? c->entropy : 0));
  case FORAY_POLICY_EVIDENCE: return 1 - clampf(c->aleatoric * c->epistemic, 0, 1);
  default: return c->top;
  }
}

static float bar(const struct foray_policy_cfg *cfg, const struct foray_policy_state *s) {
  return cfg->kind == FORAY_POLICY_ENTROPY || cfg->kind == FORAY_POLICY_ADAPTIVE ? s->eta : cfg->threshold;
}

static void drafted(const struct foray_policy_cfg *cfg, struct foray_policy_state *s,
                    const struct foray_conf *c) {
  float a = cfg->learn ? foray_logit_predict(&s->model, c, s->k) : clampf(finite_or(c->top, 0), 0, 1);
  s->k++;
  s->survive *= a;
  s->expect += s->survive;
  if (cfg->kind != FORAY_POLICY_FIXED && cfg->kind != FORAY_POLICY_GOODPUT && s->k >= cfg->min &&
      !(score(cfg, c) >= bar(cfg, s)))
    s->stopped = true;
}

static void verdict(const struct foray_policy_cfg *cfg, struct foray_policy_state *s,
                    const struct foray_policy_event *ev) {
  uint32_t acc = ev->accepted < ev->n ? ev->accepted : ev->n;
  for (uint32_t j = 0; j < ev->n && j <= acc; j++) { /* behind the first rejection nothing is known */
    bool right = j < acc;
    if (ev->conf) foray_logit_learn(&s->model, &ev->conf[j], j, right);
    s->alpha += .03f * ((right ? 1.f : 0.f) - s->alpha);
  }
  if (ev->n) {
    s->rate = .5f * s->rate + .5f * (float)acc / (float)ev->n;
    float step = s->rate < cfg->target ? .01f : ev->n >= cfg->max ? 0 : -.01f;
    s->eta = clampf(.9f * s->eta + .1f * (s->eta + step), 0, 1);
  }
  s->rounds++;
}

static void blend(float *mean, float v) {
  if (v > 0 && isfinite(v)) *mean = *mean > 0 ? *mean + .2f * (v - *mean) : v;
}

/* Running least squares of verification time over the number of drafts in it. */
static void fit_verify(struct foray_policy_state *s, uint32_t n, float v) {
  const float x[4] = {(float)n, v, (float)n * (float)n, (float)n * v};
  if (!isfinite(v)) return;
  s->fit[0] = .95f * s->fit[0] + 1;
  for (int i = 0; i < 4; i++) s->fit[i + 1] += (x[i] - s->fit[i + 1]) / s->fit[0];
  float mn = s->fit[1], mv = s->fit[2], var = s->fit[3] - mn * mn;
  float slope = var > .1f ? clampf((s->fit[4] - mn * mv) / var, 0, mv) : s->t.verify_tok;
  if (slope * mn > mv) slope = mn > 0 ? mv / mn : 0;
  s->t.verify_tok = slope;
  s->t.verify = mv - slope * mn;
}

static bool pays(const struct foray_policy_cfg *cfg, const struct foray_policy_state *s) {
  bool known = s->t.plain > 0 && s->t.verify > 0 && s->t.draft > 0;
  return !known || foray_goodput_best(&s->t, s->alpha, cfg->max) > 0;
}

struct foray_policy_state foray_policy_next(const struct foray_policy_cfg *cfg,
                                            const struct foray_policy_state *from,
                                            const struct foray_policy_event *ev) {
  struct foray_policy_state s = *from;
  switch (ev->type) {
  case FORAY_POLICY_EV_BLOCK:
    s.k = 0;
    s.survive = s.expect = 1;
    s.stopped = false;
    if (cfg->kind == FORAY_POLICY_GOODPUT && cfg->may_switch_off)
      s.off_for = pays(cfg, &s) ? 0 : s.off_for + 1;
    break;
  case FORAY_POLICY_EV_DRAFT:
    for (uint32_t i = 0; i < ev->n; i++) drafted(cfg, &s, &ev->conf[i]);
    break;
  case FORAY_POLICY_EV_VERDICT: verdict(cfg, &s, ev); break;
  case FORAY_POLICY_EV_TIMES:
    blend(&s.t.rtt, ev->times.rtt);
    blend(&s.t.draft, ev->times.draft);
    if (ev->times.verify_tok > 0) {
      blend(&s.t.verify, ev->times.verify);
      blend(&s.t.verify_tok, ev->times.verify_tok);
    } else if (ev->times.verify > 0)
      fit_verify(&s, ev->n, ev->times.verify);
    blend(&s.t.plain, ev->times.plain);
    break;
  }
  return s;
}

/* One more draft pays while (chance that it is reached and right) * (seconds a token is worth now) exceeds
 * what it costs: survive alpha T/E > draft + verify_tok. */
static bool one_more(const struct foray_policy_cfg *cfg, const struct foray_policy_state *s) {
  float next = s->survive * s->alpha;
  if (!(s->t.verify > 0) || !(s->t.draft > 0)) return next >= cfg->threshold;
  double worth = (double)next * round_seconds(&s->t, s->k) / s->expect;
  return worth > (double)s->t.draft + s->t.verify_tok;
}

struct foray_policy_action foray_policy_decide(const struct foray_policy_cfg *cfg,
                                               const struct foray_policy_state *s) {
  const struct foray_policy_action stop = {.kind = FORAY_POLICY_STOP, .stop_entropy = INFINITY};
  struct foray_policy_action a = {.kind = FORAY_POLICY_DRAFT, .stop_entropy = INFINITY};
  uint32_t max = cfg->max < FORAY_POLICY_BLOCK_MAX ? cfg->max : FORAY_POLICY_BLOCK_MAX;
  if (s->k == 0 && cfg->kind == FORAY_POLICY_GOODPUT && cfg->may_switch_off && s->off_for &&
      !(cfg->probe_every && s->off_for % cfg->probe_every == 0))
    return (struct foray_policy_action){.kind = FORAY_POLICY_OFF, .stop_entropy = INFINITY};
  if (s->stopped || s->k >= max) return stop;
  if (s->k < cfg->min && cfg->min > 1) { /* min 1 needs no care: the token that is looked at stays */
    a.max = (cfg->min < max ? cfg->min : max) - s->k;
    return a;
  }
  a.max = max - s->k;
  switch (cfg->kind) {
  case FORAY_POLICY_MAXPROB:
  case FORAY_POLICY_ADAPTIVE: a.stop_top = bar(cfg, s); break;
  case FORAY_POLICY_MARGIN: a.stop_margin = bar(cfg, s); break;
  case FORAY_POLICY_ENTROPY: a.stop_entropy = 5 * (1 - s->eta) * (1 - s->eta); break;
  case FORAY_POLICY_EVIDENCE: a.max = 1; break; /* no device threshold: look at each token */
  case FORAY_POLICY_GOODPUT:
    if (s->k >= cfg->min && !one_more(cfg, s)) return stop;
    a.max = 1;
    break;
  default: break;
  }
  return a;
}
