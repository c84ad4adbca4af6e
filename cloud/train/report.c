/* Measures on held-out text (teacher-forced: the text is the writer's, every head predicts each next token of
 * the answers), chooses a temperature per exit, and plays the draft loop to count bytes. "Right" = the head's
 * choice is the writer's most likely token. */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/err.h"
#include "train/train.h"

/* A draft block; early tokens that may wait for a check (rt/drafter.h); lengths of a run of early tokens that
 * are told apart: an exit that reads the position before knows its final state, its own guess, a guess of a
 * guess. */
enum { DRAFTS = 8, CHECK_MAX = 7, CHAIN = 3 };
static const double KEPT = 0.95;
static const double OFF = 2; /* threshold of an exit that is not tested */
static const double STOP =
    0.5; /* a block ends behind a less probable token: policy max-prob (docs/drafting.md) */

struct table {
  int n, cap, heads;                                     /* positions; heads = exits + 1, full depth last */
  struct foray_guess *guess[FORAY_EXITS_MAX + 1][CHAIN]; /* full depth: [0] only */
  int32_t *right;                                        /* the writer's choice */
  int *doc;
  int temp[FORAY_EXITS_MAX + 1]; /* chosen index into FORAY_LOSS_TEMP */
  double kl[FORAY_EXITS_MAX + 1];
};

static enum foray_status nomem(struct foray_err *err) {
  return foray_err_set(err, FORAY_E_NOMEM, "report: out of memory");
}

static void table_free(struct table *s) {
  for (int h = 0; h <= FORAY_EXITS_MAX; h++)
    for (int c = 0; c < CHAIN; c++) free(s->guess[h][c]);
  free(s->right);
  free(s->doc);
}

/* What every head says behind `early` tokens that left early in a row. */
static enum foray_status fill(struct foray_tune *t, struct table *s, int early, struct foray_err *err) {
  struct foray_net *n = t->net;
  const struct foray_tune_opts *o = t->o;
  int32_t *tokens = malloc((size_t)o->batch * 4);
  struct foray_segment *seg = malloc((size_t)o->batch * sizeof *seg);
  struct foray_goals goals = {0};
  enum foray_status st = tokens && seg ? FORAY_OK : nomem(err);
  double weight = 0;
  s->heads = n->n_exits + 1;
  s->cap = o->eval_tokens + o->batch;
  s->n = 0;
  for (int h = 0; h < s->heads; h++)
    if (!s->guess[h][early] && !(s->guess[h][early] = malloc((size_t)s->cap * sizeof ***s->guess)))
      st = nomem(err);
  if (!s->right) s->right = malloc((size_t)s->cap * 4);
  if (!s->doc) s->doc = malloc((size_t)s->cap * sizeof(int));
  if (!s->right || !s->doc) st = nomem(err);
  for (int d = 15; !st && d < t->corpus.n && s->n < o->eval_tokens;) {
    int m = 0, n_seg = 0, at = s->n;
    goals.n = 0;
    for (; d < t->corpus.n && m + t->corpus.doc[d].n <= o->batch; d += 16) {
      const struct foray_doc *c = &t->corpus.doc[d];
      memcpy(tokens + m, c->ids, (size_t)c->n * 4);
      seg[n_seg++] = (struct foray_segment){m, c->n};
      if ((st = foray_goals_add(&goals, c, m, 0, err))) break;
      for (int i = c->answer; i < c->n; i++) {
        s->right[s->n] = c->top[(size_t)(i - c->first) * FORAY_CORPUS_TOP];
        s->doc[s->n++] = d;
      }
      m += c->n;
    }
    if (!st && goals.n) st = foray_net_forward(n, t->acts, m, tokens, seg, n_seg, err);
    for (int h = 0; !st && goals.n && h < s->heads; h++) {
      double kl;
      int e = h == n->n_exits ? -1 : h;
      struct foray_chain chain = {.last = foray_acts_state(t->acts, n->n_layer),
                                  .early = early,
                                  .scale = early ? FORAY_LOSS_TEMP[s->temp[h]] : 1};
      st = foray_loss_head(t->loss, n, e, foray_acts_state(t->acts, e < 0 ? n->n_layer : n->exit[e].layer),
                           &chain, &goals, 1, NULL, &kl, s->guess[h][early] + at, err);
      if (early == 0) s->kl[h] += kl * goals.n;
    }
    weight += goals.n;
    if (m == 0) break;
  }
  for (int h = 0; early == 0 && h < s->heads; h++) s->kl[h] /= weight > 0 ? weight : 1;
  foray_goals_deinit(&goals);
  free(tokens);
  free(seg);
  return st;
}

static const struct foray_guess *guess(const struct table *s, int h, int early, int i) {
  return &s->guess[h][h == s->heads - 1 ? 0 : early < CHAIN ? early : CHAIN - 1][i];
}
static float sure(const struct table *s, int h, int early, int i) {
  return guess(s, h, early, i)->sure[s->temp[h]];
}

/* The exit that position i takes behind `early` tokens that left early; heads - 1 = full depth. */
static int leaves(const struct table *s, int i, int early, const double thr[FORAY_EXITS_MAX]) {
  int h = 0;
  while (h < s->heads - 1 && !((double)sure(s, h, early, i) > thr[h])) h++;
  return h;
}

/* Mean gap between confidence and being right, in ten bins of confidence. */
static double calibration_error(const struct table *s, int h, int temp) {
  double gap[10] = {0}, sum = 0;
  for (int i = 0; i < s->n; i++) {
    float p = s->guess[h][0][i].sure[temp];
    gap[(int)(p * 9.9999f)] += (double)p - (s->guess[h][0][i].id == s->right[i]);
  }
  for (int b = 0; b < 10; b++) sum += fabs(gap[b]);
  return s->n ? sum / s->n : 0;
}

/* Each exit by itself: the best calibrated temperature at which more than 0.7 sure is right at least 85 % of
 * the time (80 % is promised; other text may be harder than this). */
static void calibrate(struct table *s) {
  int base = 0;
  while (FORAY_LOSS_TEMP[base] < 1.0f) base++;
  s->temp[s->heads - 1] = base;
  for (int h = 0; h < s->heads - 1; h++) {
    double least = 2;
    s->temp[h] = 0;
    for (int k = 0; k < FORAY_LOSS_TEMPS; k++) {
      int n = 0, ok = 0;
      for (int i = 0; i < s->n; i++)
        if (s->guess[h][0][i].sure[k] > 0.7f) n++, ok += s->guess[h][0][i].id == s->right[i];
      double e = calibration_error(s, h, k);
      if ((n == 0 || ok >= 0.85 * n) && e < least) least = e, s->temp[h] = k;
    }
  }
}

struct cost {
  double layer, map, exit_head, head; /* bytes */
};
struct play {
  double drafted, accepted, bytes, blocks, left[FORAY_EXITS_MAX + 1], left_ok[FORAY_EXITS_MAX + 1];
};

/* Drafts one block from position i on, as the device does it (docs/numerics.md 10, Checks): full depth looks
 * again at the early tokens before it and replaces a wrong one, where the draft then goes on. Text that a
 * wrong draft would have changed is taken as it is. */
static struct block {
  int n, id[DRAFTS], by[DRAFTS];
} draft(const struct foray_net *n, const struct table *s, const struct cost *c,
        const double thr[FORAY_EXITS_MAX], int check, double stop, int i, double *bytes) {
  struct block b = {0};
  int full = s->heads - 1, unchecked = 0;
  for (bool end = false; !end && b.n < DRAFTS && i + b.n < s->n && s->doc[i + b.n] == s->doc[i];) {
    int k = b.n, early = k - unchecked, h = full, tests = 0;
    if (early < check && !(k == 0 && full > 0 && n->exit[0].prev.n)) {
      h = leaves(s, i + k, early, thr);
      for (int e = 0; e <= h && e < full; e++) tests += thr[e] < OFF;
    }
    *bytes += (h < full ? n->exit[h].layer : n->n_layer) * c->layer + tests * (c->map + c->exit_head) +
              (h == full ? c->head : 0);
    b.id[k] = guess(s, h, early, i + k)->id;
    b.by[k] = h;
    b.n++;
    for (int j = unchecked; h == full && j < b.n; j++) {
      int id = guess(s, full, 0, i + j)->id;
      end |= (double)sure(s, full, 0, i + j) < stop;
      if (b.id[j] == id) continue;
      b.id[j] = id;
      b.by[j] = full;
      b.n = j + 1;
    }
    if (h == full) unchecked = b.n;
  }
  return b;
}

/* Blocks over each answer; a block ends behind a token that full depth gives less than `stop`. */
static struct play play(const struct foray_net *n, const struct table *s, const struct cost *c,
                        const double thr[FORAY_EXITS_MAX], int check, double stop) {
  struct play p = {0};
  for (int i = 0; i < s->n;) {
    struct block b = draft(n, s, c, thr, check, stop, i, &p.bytes);
    int ok = 1, acc = 0;
    for (int k = 0; k < b.n; k++) {
      int right = b.id[k] == s->right[i + k];
      p.drafted++;
      if (ok) p.left[b.by[k]]++, p.left_ok[b.by[k]] += right;
      ok = ok && right;
      acc += ok;
    }
    p.accepted += acc;
    p.blocks++;
    i += acc + 1;
  }
  return p;
}

static enum foray_status add(struct foray_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static enum foray_status add(struct foray_buf *b, const char *fmt, ...) {
  char s[1024];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(s, sizeof s, fmt, ap);
  va_end(ap);
  return foray_buf_add(b, s, strlen(s));
}

static enum foray_status describe(const struct foray_tune *t, const struct table *s, struct foray_buf *b) {
  const struct foray_net *n = t->net;
  static const double MARK[] = {0.5, 0.7, 0.9};
  enum foray_status st = add(b, "{\"positions\":%d,\"vocab\":%d,\"vocab_coverage\":%.4f,\"heads\":[", s->n,
                             n->n_head, t->coverage);
  for (int h = 0; !st && h < s->heads; h++) {
    int agree = 0, full = 0, chain[CHAIN] = {0};
    double ece = 0;
    for (int i = 0; i < s->n; i++) {
      agree += s->guess[h][0][i].id == s->right[i];
      full += s->guess[h][0][i].id == s->guess[s->heads - 1][0][i].id;
      for (int c = 0; c < CHAIN; c++) chain[c] += guess(s, h, c, i)->id == s->guess[s->heads - 1][0][i].id;
    }
    for (int bin = 0; bin < 10; bin++) {
      double conf = 0, ok = 0;
      for (int i = 0; i < s->n; i++)
        if ((int)(sure(s, h, 0, i) * 9.9999f) == bin)
          conf += (double)sure(s, h, 0, i), ok += s->guess[h][0][i].id == s->right[i];
      ece += fabs(conf - ok) / (s->n ? s->n : 1);
    }
    st = add(b,
             "%s{\"layer\":%d,\"kl\":%.4f,\"agree\":%.4f,\"agree_full\":%.4f,\"inverse_temperature\":%.2f,"
             "\"ece\":%.4f",
             h ? "," : "", h < s->heads - 1 ? n->exit[h].layer : n->n_layer, s->kl[h], (double)agree / s->n,
             (double)full / s->n, (double)FORAY_LOSS_TEMP[s->temp[h]], ece);
    for (int m = 0; !st && m < 3; m++) {
      int c = 0, ok = 0;
      for (int i = 0; i < s->n; i++)
        if ((double)sure(s, h, 0, i) > MARK[m]) c++, ok += s->guess[h][0][i].id == s->right[i];
      st = add(b, ",\"over_%.1f\":{\"coverage\":%.4f,\"right\":%.4f}", MARK[m], (double)c / s->n,
               c ? (double)ok / c : 0.0);
    }
    for (int c = 0; !st && h < s->heads - 1 && c < CHAIN; c++)
      st = add(b, "%s%.4f", c ? "," : ",\"agree_full_after_early\":[", (double)chain[c] / s->n);
    if (!st) st = add(b, h < s->heads - 1 ? "]}" : "}");
  }
  return st ? st : add(b, "]");
}

static struct cost costs(const struct foray_net *n);

/* What the draft loop streams. Block weights at 5 bits, heads and maps at 8.5, as the packer lays them out.
 */
static enum foray_status simulate(const struct foray_tune *t, const struct table *s, struct foray_buf *b) {
  const struct foray_net *n = t->net;
  struct cost c = costs(n);
  enum foray_status st = add(b, ",\"drafting\":[");
  for (int q = 0; !st && q < 2; q++) {
    double stop = q ? STOP : 0;
    double thr[FORAY_EXITS_MAX], base = 0;
    /* full depth, the chosen thresholds, then one threshold for all exits */
    for (int k = -2; !st && k < 6; k++) {
      static const double ALL[] = {0.2, 0.3, 0.4, 0.5, 0.7, 0.9};
      for (int e = 0; e < FORAY_EXITS_MAX; e++) thr[e] = k == -2 ? OFF : k == -1 ? t->threshold[e] : ALL[k];
      double threshold = k == -2 ? 1 : k == -1 ? 0 : ALL[k];
      struct play p = play(n, s, &c, thr, k == -1 ? t->check : CHECK_MAX, stop);
      if (k == -2) base = p.accepted / p.bytes;
      st = add(b,
               "%s{\"stop\":%.1f,\"threshold\":%.2f,\"accepted_per_block\":%.3f,\"drafted\":%.0f,\"bytes_per_"
               "accepted\":%.0f,\"ratio\":%.4f,\"exits\":[",
               q || k > -2 ? "," : "", stop, threshold, p.accepted / p.blocks, p.drafted,
               p.bytes / p.accepted, p.accepted / p.bytes / base);
      for (int h = 0; !st && h < s->heads; h++)
        st = add(b, "%s{\"share\":%.4f,\"right\":%.4f}", h ? "," : "",
                 p.left[h] / (p.drafted > 0 ? p.drafted : 1), p.left[h] > 0 ? p.left_ok[h] / p.left[h] : 0.0);
      if (!st) st = add(b, "]}");
    }
  }
  if (!st) st = add(b, "],\"thresholds\":[");
  for (int e = 0; !st && e < n->n_exits; e++)
    st = add(b, t->threshold[e] < OFF ? "%s%.2f" : "%snull", e ? "," : "", t->threshold[e]);
  return st ? st : add(b, "],\"check\":%d,\"ratio\":%.4f}", t->check, t->ratio);
}

static struct cost costs(const struct foray_net *n) {
  double D = n->D, weights = D * (2 * n->Q + 2 * n->K) + 3 * D * n->F;
  double maps = n->n_exits && n->exit[0].prev.n ? 2 : 1;
  struct cost c = {
      .layer = weights * 5.0 / 8, .map = maps * D * D * 8.5 / 8, .head = D * n->n_head * 8.5 / 8};
  c.exit_head = n->n_exits ? D * n->exit[0].head_rows * 8.5 / 8 : 0;
  return c;
}

/* Thresholds, and how many early tokens may wait for a check, with the most accepted tokens a byte, by
 * coordinate ascent; an exit that does not pay for its test is off. A block must keep KEPT of what full depth
 * gets accepted: long unchecked tails are cheap here, but they cost the cloud rounds and verification. */
static double choose(const struct foray_net *n, const struct table *s, double thr[FORAY_EXITS_MAX],
                     int *check) {
  static const double GRID[] = {0.02, 0.05, 0.1,  0.15, 0.2,  0.25, 0.3,  0.35, 0.4,  0.45, 0.5,
                                0.55, 0.6,  0.65, 0.7,  0.75, 0.8,  0.85, 0.9,  0.95, 0.98};
  static const double START[] = {OFF, 0.9, 0.6, 0.3};
  struct cost c = costs(n);
  double best = 0, base = 0, block = 0;
  *check = CHECK_MAX;
  for (int start = 0; start < 4; start++)
    for (int waiting = 1; waiting <= CHECK_MAX; waiting++) {
      double try[FORAY_EXITS_MAX];
      for (int e = 0; e < FORAY_EXITS_MAX; e++) try[e] = START[start];
      struct play p = play(n, s, &c, try, waiting, STOP);
      double top = p.accepted / p.bytes, least = p.accepted / p.blocks;
      if (start == 0) base = top, block = least;
      if (least < KEPT * block) top = 0;
      for (int round = 0; round < 3; round++)
        for (int e = n->n_exits - 1; e >= 0; e--) {
          double keep = try[e];
          for (int k = -1; k < (int)(sizeof GRID / sizeof GRID[0]); k++) {
            try[e] = k < 0 ? OFF : GRID[k];
            p = play(n, s, &c, try, waiting, STOP);
            if (p.accepted / p.bytes > top && p.accepted / p.blocks >= KEPT * block)
              top = p.accepted / p.bytes, keep = try[e];
          }
          try[e] = keep;
        }
      if (top > best) {
        best = top;
        *check = waiting;
        memcpy(thr, try, sizeof try);
      }
    }
  return base > 0 ? best / base : 0;
}

enum foray_status foray_tune_report(struct foray_tune *t, bool fold, char **report, struct foray_err *err) {
  struct table s = {0};
  struct foray_buf b;
  foray_buf_init(&b, 1 << 20);
  enum foray_status st = fill(t, &s, 0, err);
  if (!st && s.n == 0) st = foray_err_set(err, FORAY_E_ARG, "no held-out text: ask for more tokens");
  if (!st) {
    calibrate(&s);
    for (int c = 1; !st && c < CHAIN; c++) st = fill(t, &s, c, err);
  }
  if (!st) {
    t->ratio = choose(t->net, &s, t->threshold, &t->check);
    st = describe(t, &s, &b);
    if (!st) st = simulate(t, &s, &b);
    if (st) nomem(err);
  }
  for (int e = 0; !st && fold && e < t->net->n_exits; e++)
    for (size_t i = 0; i < t->net->exit[e].map.n; i++) {
      t->net->exit[e].map.w[i] *= FORAY_LOSS_TEMP[s.temp[e]];
      if (t->net->exit[e].prev.n) t->net->exit[e].prev.w[i] *= FORAY_LOSS_TEMP[s.temp[e]];
    }
  table_free(&s);
  if (st) {
    foray_buf_deinit(&b);
    return st;
  }
  *report = (char *)b.data;
  return FORAY_OK;
}
