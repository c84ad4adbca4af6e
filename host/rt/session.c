/* The loop of a generation; see session.h. State of one round:
 *
 *   timeline  [ settled | sent drafts | drafted ahead ]
 *                       ^at           ^at + sent
 *
 * A verdict commits into the timeline: what the tail had right stays, so that tokens drafted ahead along the
 * right guess are simply the beginning of the next block (the "pointer switch"). Branches are the same for
 * other guesses: a few ids kept aside, put in as the new tail when the verdict is the one they were made for.
 */
#include "rt/session.h"

#include "core/clock.h"
#include "core/err.h"
#include "core/noise.h"
#include "rt/timeline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TAIL_MAX = 2 * FORAY_GEN_BLOCK_MAX + 2 };

struct branch {
  uint32_t at, id; /* "the token at position `at` is `id`, and all drafts before it are right" */
  uint32_t n;
  struct foray_draft d[FORAY_GEN_BLOCK_MAX];
};

struct gen {
  const struct foray_gen_params *p;
  const struct foray_draft_source *src;
  const struct foray_link *link;
  foray_gen_on_token *on_token;
  void *me;
  struct foray_gen_stats *st;
  struct foray_timeline t;
  struct foray_policy_state pol;
  struct foray_draft tail[TAIL_MAX]; /* tail[i] describes position n_committed + i */
  uint32_t sent, ahead_from; /* of the tail: sent for verification; drafted while waiting from here on */
  struct branch br[FORAY_GEN_BRANCHES];
  uint32_t n_br;
  uint32_t produced, ctx_max;
  uint32_t plain_run; /* tokens of the measured plain run that gives t_ar; 0 = done or not wanted */
  bool cancelled;
};

struct foray_gen_params foray_gen_defaults(void) {
  struct foray_gen_params p = {.max_tokens = 128, .policy = foray_policy_default(FORAY_POLICY_MAXPROB)};
  struct foray_draft_params d = foray_draft_defaults();
  memcpy(p.exit_top, d.exit_top, sizeof p.exit_top);
  p.check = d.check;
  return p;
}

static void event(struct gen *g, const struct foray_policy_event *ev) {
  g->pol = foray_policy_next(&g->p->policy, &g->pol, ev);
  if (g->p->trace) g->p->trace(g->me, ev);
}

/* Drafts up to max tokens behind `tokens` (the timeline, or a branch of it). */
static enum foray_status draft_some(struct gen *g, const uint32_t *tokens, uint32_t n,
                                    const struct foray_policy_action *a, uint32_t max,
                                    struct foray_draft *out, uint32_t *got, struct foray_err *err) {
  struct foray_draft_params dp = foray_draft_defaults();
  dp.max = max;
  dp.temperature = g->p->temperature;
  dp.seed = g->p->seed;
  memcpy(dp.exit_top, g->p->exit_top, sizeof dp.exit_top);
  dp.check = g->p->check;
  for (uint32_t i = 0; i < g->p->n_eog && i < FORAY_DRAFT_STOPS; i++) dp.stop_ids[dp.n_stop++] = g->p->eog[i];
  if (a) {
    dp.stop_top = a->stop_top;
    dp.stop_margin = a->stop_margin;
    dp.stop_entropy = isfinite(a->stop_entropy) ? a->stop_entropy : 0;
  }
  double t0 = foray_clock_s();
  enum foray_status s = g->src->sync(g->src->ctx, tokens, n, err);
  *got = 0;
  if (s == FORAY_OK) s = g->src->draft(g->src->ctx, &dp, out, got, err);
  double dt = foray_clock_s() - t0;
  g->st->draft_seconds += dt;
  for (uint32_t i = 0; i < *got; i++) g->st->draft_bytes += out[i].bytes;
  if (s == FORAY_OK && *got && g->st->verifications) /* the first block also pays for the prompt */
    event(g, &(struct foray_policy_event){.type = FORAY_POLICY_EV_TIMES,
                                          .times = {.draft = (float)(dt / *got)}});
  return s;
}

static bool is_eog(const struct gen *g, uint32_t id) {
  for (uint32_t i = 0; i < g->p->n_eog; i++)
    if (g->p->eog[i] == id) return true;
  return false;
}

/* Adds drafts to the timeline's tail. Behind the end of a text there is nothing to guess. */
static enum foray_status extend(struct gen *g, const struct foray_policy_action *a, uint32_t max,
                                uint32_t *got, struct foray_err *err) {
  uint32_t tail = foray_timeline_tail(&g->t);
  struct foray_draft *out = g->tail + tail;
  *got = 0;
  if (tail && is_eog(g, g->t.tok[g->t.n - 1])) return FORAY_OK;
  enum foray_status s = draft_some(g, g->t.tok, g->t.n, a, max, out, got, err);
  for (uint32_t i = 0; i < *got; i++)
    if (is_eog(g, out[i].id)) *got = i + 1;
  for (uint32_t i = 0; s == FORAY_OK && i < *got; i++) s = foray_timeline_draft(&g->t, &out[i].id, 1, err);
  return s;
}

static uint32_t room(const struct gen *g) {
  uint32_t left = g->p->max_tokens > g->produced ? g->p->max_tokens - g->produced : 0;
  uint32_t pos = g->t.n_committed + 1 < g->ctx_max ? g->ctx_max - g->t.n_committed - 1 : 0;
  uint32_t r = left ? left - 1 : 0; /* the target always adds one more */
  return r < pos ? r : pos;
}

/* The block of this round: what was drafted ahead and is still right, then what the policy asks for. */
static enum foray_status make_block(struct gen *g, bool *off, struct foray_err *err) {
  event(g, &(struct foray_policy_event){.type = FORAY_POLICY_EV_BLOCK});
  *off = false;
  g->sent = 0;
  if (!g->src) return FORAY_OK;
  uint32_t max = room(g), tail = foray_timeline_tail(&g->t);
  if (max > FORAY_GEN_BLOCK_MAX) max = FORAY_GEN_BLOCK_MAX;
  uint32_t n = 0;
  while (n < max) {
    struct foray_policy_action a = foray_policy_decide(&g->p->policy, &g->pol);
    *off = a.kind == FORAY_POLICY_OFF;
    if (a.kind != FORAY_POLICY_DRAFT) break;
    uint32_t take = 0;
    if (n < tail) { /* drafted already; the rule sees one token after another, as the device would have */
      take = 1;
      g->st->ahead_used++;
    } else {
      uint32_t want = a.max < max - n ? a.max : max - n;
      enum foray_status s = extend(g, &a, want, &take, err);
      if (s != FORAY_OK) return s;
      if (!take) break; /* the context is full, or the text has ended */
    }
    for (uint32_t i = 0; i < take; i++, n++)
      event(g, &(struct foray_policy_event){.type = FORAY_POLICY_EV_DRAFT, .conf = &g->tail[n].conf, .n = 1});
  }
  g->sent = n;
  return FORAY_OK;
}

/* ---------------------------------------------------------------- while a verdict is under way */
/* Rank of a candidate under the coupled choice: log-probability / T plus the position's noise. */
static int64_t coupled(const struct gen *g, uint32_t position, uint32_t id, int32_t logprob) {
  if (!(g->p->temperature > 0)) return logprob;
  return (int64_t)((double)logprob / (double)g->p->temperature) + foray_gumbel_q16(g->p->seed, position, id);
}

/* The likeliest verdict that nothing was drafted for yet: for some position of the tail up to the guessed
 * extra token, all before is right and the runner-up is the target's choice. */
static bool next_branch(const struct gen *g, uint32_t *pos, uint32_t *id) {
  uint32_t tail = foray_timeline_tail(&g->t);
  double before = 1, best = 0;
  for (uint32_t i = 0; i < tail && i <= g->sent; i++) {
    const struct foray_draft *d = &g->tail[i];
    double top = d->conf.top > .001f ? (d->conf.top < .999f ? (double)d->conf.top : .999) : .001;
    uint32_t second = UINT32_MAX;
    int64_t rank = INT64_MIN;
    double p2 = 0;
    for (uint32_t c = 0; c < d->n_cand; c++) {
      bool taken = d->cand[c].id == d->id;
      for (uint32_t b = 0; b < g->n_br; b++)
        taken |= g->br[b].at == g->t.n_committed + i && g->br[b].id == d->cand[c].id;
      int64_t r = coupled(g, g->t.n_committed + i, d->cand[c].id, d->cand[c].logprob);
      if (!taken && r > rank) rank = r, second = d->cand[c].id, p2 = exp(d->cand[c].logprob / 65536.0);
    }
    if (second != UINT32_MAX && before * p2 > best) best = before * p2, *pos = i, *id = second;
    before *= top;
  }
  return best > .01;
}

static enum foray_status draft_branch(struct gen *g, uint32_t pos, uint32_t id, struct foray_err *err) {
  struct branch *b = &g->br[g->n_br];
  uint32_t n = g->t.n_committed + pos;
  uint32_t *tokens = malloc(((size_t)n + 1) * sizeof *tokens);
  if (!tokens) return foray_err_set(err, FORAY_E_NOMEM, "branch of %u tokens: out of memory", n + 1);
  memcpy(tokens, g->t.tok, (size_t)n * sizeof *tokens);
  tokens[n] = id;
  uint32_t max = g->p->policy.max ? g->p->policy.max : 1;
  if (max > FORAY_GEN_BLOCK_MAX) max = FORAY_GEN_BLOCK_MAX;
  *b = (struct branch){.at = n, .id = id};
  enum foray_status s =
      n + 1 < g->ctx_max ? draft_some(g, tokens, n + 1, NULL, max, b->d, &b->n, err) : FORAY_OK;
  free(tokens);
  if (s == FORAY_OK) g->n_br++, g->st->ahead_drafted += b->n;
  return s;
}

/* One step of work that may turn out useful; *idle when there is nothing left to guess. */
static enum foray_status work_ahead(struct gen *g, bool *idle, struct foray_err *err) {
  uint32_t tail = foray_timeline_tail(&g->t), pos = 0, id = 0;
  *idle = true;
  if (!g->src || !g->sent) return FORAY_OK;
  if (tail - g->sent < g->p->ahead && tail < TAIL_MAX && g->t.n + 1 < g->ctx_max && room(g) > tail) {
    uint32_t got = 0;
    enum foray_status s = extend(g, NULL, 1, &got, err);
    if (s != FORAY_OK) return s;
    g->st->ahead_drafted += got;
    *idle = got == 0;
    if (got) return FORAY_OK;
  }
  if (g->n_br < g->p->branches && g->n_br < FORAY_GEN_BRANCHES && next_branch(g, &pos, &id)) {
    *idle = false;
    return draft_branch(g, pos, id, err);
  }
  return FORAY_OK;
}

/* ---------------------------------------------------------------- verdicts */
static void emit(struct gen *g, const struct foray_gen_token *tok) {
  g->st->tokens++;
  g->produced++;
  if (g->on_token && !g->cancelled && !g->on_token(g->me, tok)) {
    g->cancelled = true;
    if (g->link->cancel) g->link->cancel(g->link->ctx);
  }
}

static enum foray_status settle(struct gen *g, const struct foray_verdict *v, bool first,
                                struct foray_err *err) {
  uint32_t at = g->t.n_committed, sent = first ? g->sent : 0;
  if (v->at != at || v->accepted > sent || v->n > FORAY_GEN_VERDICT_MAX ||
      (!v->accepted && !v->n && !v->finish))
    return foray_err_set(err, FORAY_E_PROTO,
                         "verdict of %u + %u tokens at %u, where %u drafts were sent at %u", v->accepted,
                         v->n, v->at, sent, at);
  if (v->n && v->accepted < sent && v->ids[0] == g->t.tok[at + v->accepted])
    return foray_err_set(err, FORAY_E_PROTO, "verdict rejects token %u at %u and says the same", v->ids[0],
                         at + v->accepted);
  uint32_t ids[FORAY_GEN_BLOCK_MAX + FORAY_GEN_VERDICT_MAX], n = v->accepted + v->n, kept = 0;
  memcpy(ids, g->t.tok + at, v->accepted * sizeof *ids);
  memcpy(ids + v->accepted, v->ids, v->n * sizeof *ids);
  struct foray_draft was[FORAY_GEN_BLOCK_MAX + 1];
  memcpy(was, g->tail, (sent + 1) * sizeof *was);
  enum foray_status s = foray_timeline_commit(&g->t, at, ids, n, &kept, err);
  if (s != FORAY_OK) return s;
  if (kept == n)
    memmove(g->tail, g->tail + n, foray_timeline_tail(&g->t) * sizeof *g->tail);
  else if (n == v->accepted + 1)
    for (uint32_t b = 0; b < g->n_br; b++) /* was it foreseen? */
      if (g->br[b].at == at + n - 1 && g->br[b].id == ids[n - 1]) {
        g->st->branch_hits++;
        for (uint32_t i = 0; s == FORAY_OK && i < g->br[b].n; i++) {
          g->tail[i] = g->br[b].d[i];
          s = foray_timeline_draft(&g->t, &g->br[b].d[i].id, 1, err);
        }
        break;
      }
  if (s != FORAY_OK) return s;
  if (first && sent) {
    struct foray_conf conf[FORAY_GEN_BLOCK_MAX];
    for (uint32_t i = 0; i < sent; i++) {
      conf[i] = was[i].conf;
      uint32_t e = was[i].exit <= FORAY_DRAFT_EXITS_MAX ? was[i].exit : FORAY_DRAFT_EXITS_MAX;
      g->st->exit_drafted[e]++;
      g->st->exit_accepted[e] += i < v->accepted;
      g->st->exit_judged[e] += i <= v->accepted; /* behind the first wrong one nothing can be right */
    }
    g->st->drafted += sent;
    g->st->accepted += v->accepted;
    event(g, &(struct foray_policy_event){
                 .type = FORAY_POLICY_EV_VERDICT, .conf = conf, .n = sent, .accepted = v->accepted});
  }
  for (uint32_t i = 0; i < n && !g->cancelled && g->produced < g->p->max_tokens; i++) {
    struct foray_gen_token tok = {.id = ids[i], .position = at + i, .source = FORAY_TOKEN_PLAIN};
    if (i < v->accepted)
      tok.source = FORAY_TOKEN_DRAFT;
    else if (sent && i == v->accepted)
      tok.source = v->accepted < sent ? FORAY_TOKEN_CORRECTION : FORAY_TOKEN_BONUS;
    if (tok.source == FORAY_TOKEN_DRAFT || tok.source == FORAY_TOKEN_CORRECTION) {
      tok.exit = was[i].exit;
      tok.conf = was[i].conf;
      tok.rejected = was[i].id;
    }
    emit(g, &tok);
  }
  g->n_br = 0;
  return FORAY_OK;
}

/* One proposal and its answer. */
static enum foray_status round_trip(struct gen *g, uint32_t alone, struct foray_err *err) {
  uint32_t at = g->t.n_committed, before = g->produced, sent = g->sent;
  double t0 = foray_clock_s(), compute = 0;
  enum foray_status s = g->link->propose(g->link->ctx, at, g->t.tok + at, g->sent, alone, err);
  for (bool more = true, first = true; s == FORAY_OK && more; first = false) {
    struct foray_verdict v = {0};
    bool ready = false, idle = alone || !(g->p->ahead || g->p->branches);
    while (s == FORAY_OK && !ready) {
      double w0 = foray_clock_s();
      s = g->link->wait(g->link->ctx, idle ? -1 : 0, &v, &ready, err);
      g->st->wait_seconds += foray_clock_s() - w0;
      if (s == FORAY_OK && !ready && !idle) s = work_ahead(g, &idle, err);
    }
    if (s != FORAY_OK) return s;
    s = settle(g, &v, first, err);
    more = v.more && v.finish == FORAY_FINISH_NONE;
    compute += (double)v.verify_s;
    if (v.finish != FORAY_FINISH_NONE) g->st->finish = v.finish;
  }
  if (s != FORAY_OK) return s;
  double dt = foray_clock_s() - t0;
  g->st->verifications += alone ? g->produced - before : 1;
  struct foray_policy_event ev = {.type = FORAY_POLICY_EV_TIMES, .n = sent};
  if (alone > 1 && g->produced > before)
    ev.times.plain = (float)((compute > 0 ? compute : dt) / (g->produced - before));
  else if (g->st->verifications > 1) { /* the first pass is the prompt's */
    ev.times.verify = (float)(compute > 0 ? compute : dt);
    if (compute > 0 && dt > compute) ev.times.rtt = (float)(dt - compute);
  }
  event(g, &ev);
  return FORAY_OK;
}

static enum foray_status run(struct gen *g, struct foray_err *err) {
  while (g->st->finish == FORAY_FINISH_NONE && !g->cancelled) {
    if (g->produced >= g->p->max_tokens) {
      g->st->finish = FORAY_FINISH_LENGTH;
      break;
    }
    uint32_t left = g->p->max_tokens - g->produced, alone = 0;
    bool off = false;
    enum foray_status s = FORAY_OK;
    if (!g->src) {
      alone = left;
      g->sent = 0;
    } else if (g->plain_run && g->st->verifications >= 2) {
      alone = g->plain_run < left ? g->plain_run : left; /* how fast is the cloud alone? */
      g->plain_run = 0;
      g->sent = 0;
    } else {
      s = make_block(g, &off, err);
      if (off) alone = left < 16 ? left : 16;
    }
    if (s == FORAY_OK) s = round_trip(g, alone, err);
    if (s != FORAY_OK) return s;
  }
  if (g->cancelled) g->st->finish = FORAY_FINISH_CANCEL;
  return FORAY_OK;
}

enum foray_status foray_generate(const uint32_t *prompt, uint32_t n_prompt, const struct foray_gen_params *p,
                                 const struct foray_draft_source *source, const struct foray_link *link,
                                 foray_gen_on_token *on_token, void *me, struct foray_gen_stats *stats,
                                 struct foray_err *err) {
  struct foray_gen_stats unused;
  if (!stats) stats = &unused;
  *stats = (struct foray_gen_stats){0};
  if (!n_prompt) return foray_err_set(err, FORAY_E_ARG, "the prompt is empty: give at least one token");
  struct gen *g = calloc(1, sizeof *g);
  if (!g) return foray_err_set(err, FORAY_E_NOMEM, "generation: out of memory");
  g->p = p;
  g->src = source;
  g->link = link;
  g->on_token = on_token;
  g->me = me;
  g->st = stats;
  g->ctx_max = source ? source->ctx_max : UINT32_MAX;
  g->pol = p->state ? *p->state : foray_policy_start(&p->policy);
  if (source && p->policy.kind == FORAY_POLICY_GOODPUT && p->policy.may_switch_off && !(g->pol.t.plain > 0))
    g->plain_run = 3;
  uint32_t most =
      p->max_tokens < UINT32_MAX - n_prompt - TAIL_MAX ? n_prompt + p->max_tokens + TAIL_MAX : UINT32_MAX;
  foray_timeline_init(&g->t, most, p->seed);
  double t0 = foray_clock_s();
  enum foray_status s = foray_timeline_start(&g->t, prompt, n_prompt, err);
  if (s == FORAY_OK && source && source->prefill && n_prompt < source->ctx_max) {
    s = source->sync(source->ctx, prompt, n_prompt, err);
    if (s == FORAY_OK) s = source->prefill(source->ctx, &stats->prompt_bytes, err);
  }
  if (s == FORAY_OK) s = run(g, err);
  stats->seconds = foray_clock_s() - t0;
  if (link->bytes) link->bytes(link->ctx, &stats->bytes_up, &stats->bytes_down);
  if (p->state) *p->state = g->pol;
  foray_timeline_deinit(&g->t);
  free(g);
  return s;
}
