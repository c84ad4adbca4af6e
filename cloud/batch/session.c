#include "batch/session.h"

#include "core/err.h"

#include <stdlib.h>
#include <string.h>

static bool reserve(struct foray_session *s, uint32_t more) {
  uint32_t need = s->n_prompt + s->n_gen + more;
  if (need <= s->cap) return true;
  uint32_t cap = need + need / 2 + 64;
  int32_t *t = realloc(s->tokens, (size_t)cap * sizeof *t);
  if (!t) return false;
  s->tokens = t;
  s->cap = cap;
  return true;
}

/* Adds a token's bytes to the text tail; true when a stop string ends in them. The bytes go in one by one,
 * so that a stop string is found at its first end, whatever the tokens are. */
static bool stop_found(struct foray_session *s, const char *p, size_t n) {
  const struct foray_gen_request *r = s->req;
  if (!r->n_stops) return false;
  bool found = false;
  for (size_t i = 0; i < n; i++) {
    if (s->n_tail == sizeof s->tail) memmove(s->tail, s->tail + 1, --s->n_tail);
    s->tail[s->n_tail++] = (uint8_t)p[i];
    for (uint32_t k = 0; k < r->n_stops; k++)
      found |= r->stop_len[k] <= s->n_tail &&
               memcmp(s->tail + s->n_tail - r->stop_len[k], r->stops[k], r->stop_len[k]) == 0;
  }
  return found;
}

/* One token of the target: the only place where a session grows. Room must be there. */
static void commit(struct foray_session *s, const struct foray_target *t, int32_t id) {
  s->tokens[s->n_prompt + s->n_gen++] = id;
  size_t n = 0;
  const char *p = t->piece(t->self, id, &n);
  if (!s->req->ignore_eos && t->is_eog(t->self, id))
    s->finish = FORAY_FINISH_EOS;
  else if (stop_found(s, p, n))
    s->finish = FORAY_FINISH_STOP;
  else if (s->n_gen >= s->req->max_tokens || s->n_prompt + s->n_gen >= t->ctx)
    s->finish = FORAY_FINISH_LENGTH;
}

enum foray_status foray_session_create(const struct foray_target *t, struct foray_gen_request *req,
                                       const uint32_t *generated, uint32_t n_generated,
                                       struct foray_session **out, struct foray_err *err) {
  *out = NULL;
  struct foray_session *s = calloc(1, sizeof *s);
  if (!s) return foray_err_set(err, FORAY_E_NOMEM, "session");
  s->req = req;
  enum foray_status st = FORAY_OK;
  if (!reserve(s, req->n_prompt + n_generated)) st = foray_err_set(err, FORAY_E_NOMEM, "session");
  if (req->logprobs) { /* of plain sessions: one token a pass */
    s->logp = calloc(req->logprobs, sizeof *s->logp);
    s->top = calloc(req->logprobs, sizeof *s->top);
    if (!s->logp || !s->top) st = foray_err_set(err, FORAY_E_NOMEM, "session");
    if (!t->logprobs || req->mode != FORAY_MODE_PLAIN)
      st = foray_err_set(err, FORAY_E_UNSUPPORTED, "no log-probabilities for this session");
  }
  if (st == FORAY_OK) st = t->sampler_open(t->self, req, &s->sampler, err);
  if (st == FORAY_OK) st = t->seq_open(t->self, &s->seq, err);
  if (st != FORAY_OK) {
    s->req = NULL; /* stays the caller's */
    foray_session_destroy(t, s);
    return st;
  }
  for (uint32_t i = 0; i < req->n_prompt; i++) s->tokens[i] = (int32_t)req->prompt[i];
  s->n_prompt = req->n_prompt;
  if (s->n_prompt >= t->ctx) s->finish = FORAY_FINISH_LENGTH;
  for (uint32_t i = 0; i < n_generated && s->finish == FORAY_FINISH_NONE; i++)
    commit(s, t, (int32_t)generated[i]);
  *out = s;
  return FORAY_OK;
}

void foray_session_destroy(const struct foray_target *t, struct foray_session *s) {
  if (!s) return;
  if (s->sampler) t->sampler_close(t->self, s->sampler);
  if (s->seq) t->seq_close(t->self, s->seq);
  free(s->req);
  free(s->tokens);
  free(s->logp);
  free(s->top);
  free(s);
}

void foray_session_reset_rounds(struct foray_session *s) {
  s->n_rounds = s->n_guess = 0;
  s->epoch = 0;
}

bool foray_session_draft(struct foray_session *s, uint32_t round, uint32_t epoch, uint32_t start,
                         const uint32_t *ids, uint32_t n, int64_t now) {
  if (s->finish != FORAY_FINISH_NONE || epoch != s->epoch || s->req->mode != FORAY_MODE_SPECULATIVE)
    return false;
  if (s->n_rounds == FORAY_PROTO_ROUNDS_MAX || n > FORAY_PROTO_DRAFT_MAX) return false;
  if (s->n_rounds) {
    const struct foray_session_round *last = &s->rounds[s->n_rounds - 1];
    if (start != last->start + last->n) return false;
  } else if (start > s->n_gen || n < s->n_gen - start) {
    return false;
  }
  /* What the edge guessed before it knew the last token: the guess must be that token, or the edge has
   * dropped this round and everything behind it. */
  uint32_t known = start < s->n_gen ? s->n_gen - start : 0;
  if (known > n) return false;
  for (uint32_t i = 0; i < known; i++)
    if ((int32_t)ids[i] != s->tokens[s->n_prompt + start + i]) {
      s->epoch++;
      s->n_rounds = s->n_guess = 0;
      return false;
    }
  if (s->n_rounds == 0) s->waiting_since = now;
  s->rounds[s->n_rounds++] = (struct foray_session_round){round, start, n, now};
  for (uint32_t i = known; i < n; i++) s->guess[s->n_guess++] = (int32_t)ids[i];
  return true;
}

uint32_t foray_session_useful(const struct foray_session *s, const struct foray_target *t) {
  uint32_t m = s->n_guess, left = s->req->max_tokens - s->n_gen, room = t->ctx - s->n_prompt - s->n_gen;
  if (room < left) left = room;
  if (left == 0) return 0;
  return m < left - 1 ? m : left - 1; /* m guesses make m + 1 tokens */
}

void foray_session_input(const struct foray_session *s, uint32_t feed, uint32_t guesses, int32_t *out) {
  memcpy(out, s->tokens + s->cached, feed * sizeof *out);
  memcpy(out + feed, s->guess, guesses * sizeof *out);
}

/* Distributes what was committed since generated index `from` over the waiting rounds. */
static uint32_t make_verdicts(struct foray_session *s, uint32_t accepted_end, bool diverged,
                              struct foray_session_verdict *v) {
  uint32_t n_v = 0, done = 0;
  bool finished = s->finish != FORAY_FINISH_NONE;
  for (; done < s->n_rounds; done++) {
    const struct foray_session_round *r = &s->rounds[done];
    uint32_t end = r->start + r->n, acc = accepted_end < end ? accepted_end - r->start : r->n;
    if (accepted_end < r->start) acc = 0;
    bool all = acc == r->n, last = done + 1 == s->n_rounds;
    bool here = last || !all; /* the round that the target's own token belongs to */
    if (finished && all && !here) here = s->n_gen <= end && accepted_end == s->n_gen;
    if (!all && !diverged && !finished) break; /* not looked at wholly yet: its verdict comes later */
    v[n_v] = (struct foray_session_verdict){.round = r->round, .accepted = acc, .arrived = r->arrived};
    if (here) {
      v[n_v].first = r->start + acc;
      v[n_v].n = s->n_gen - v[n_v].first;
      v[n_v].finish = s->finish;
    }
    n_v++;
    if (here) {
      done++;
      break;
    }
  }
  if (diverged || finished) {
    s->n_rounds = s->n_guess = 0;
    if (diverged && !finished) s->epoch++;
    return n_v;
  }
  s->n_rounds -= done;
  memmove(s->rounds, s->rounds + done, s->n_rounds * sizeof *s->rounds);
  return n_v;
}

enum foray_status foray_session_advance(struct foray_session *s, const struct foray_target *t, uint32_t feed,
                                        uint32_t guesses, const float *logits,
                                        struct foray_session_verdict *v, uint32_t *n_verdicts) {
  *n_verdicts = 0;
  s->cached += feed;
  if (!logits) return FORAY_OK;
  if (!reserve(s, guesses + 1)) return FORAY_E_NOMEM;
  uint32_t before = s->n_gen, accepted = 0;
  bool diverged = false;
  for (uint32_t i = 0; i <= guesses; i++) {
    int32_t position = (int32_t)(s->n_prompt + s->n_gen);
#ifdef FORAY_MUTANT_NOISE_OFF_BY_ONE
    position -= i > 0; /* the noise of the position before */
#endif
    int32_t id = t->pick(t->self, s->sampler, logits + (size_t)i * t->vocab, s->tokens, position);
    if (s->logp)
      t->logprobs(t->self, logits + (size_t)i * t->vocab, id, s->req->logprobs - 1, s->logp, s->top);
#ifdef FORAY_MUTANT_ACCEPT_ONE_TOO_MANY
    if (i + 1 == guesses) id = s->guess[i]; /* the last draft is taken on trust */
#endif
    commit(s, t, id);
    bool guessed = i < s->n_guess;
    if (guessed && id == s->guess[i]) {
      accepted++;
    } else {
      diverged = guessed;
      break;
    }
    if (s->finish != FORAY_FINISH_NONE) break;
  }
  /* Every committed token but the last was input of this pass. */
  uint32_t keep = s->n_prompt + s->n_gen - 1, fed = s->cached + guesses;
#ifdef FORAY_MUTANT_ROLLBACK_ONE_SHORT
  if (keep < fed) keep++; /* one rejected draft stays in the cache */
#endif
  s->cached = keep < fed ? keep : fed;
  if (s->cached < fed) t->seq_truncate(t->self, s->seq, s->cached);
#ifdef FORAY_MUTANT_ROLLBACK_ONE_SHORT
  if (s->cached == s->n_prompt + s->n_gen) s->cached--;
#endif
  uint32_t made = s->n_gen - before;
  if (s->req->mode == FORAY_MODE_PLAIN) {
    v[0] = (struct foray_session_verdict){
        .accepted = before, .first = before, .n = made, .finish = s->finish, .arrived = s->waiting_since};
    *n_verdicts = 1;
    return FORAY_OK;
  }
  s->n_guess -= made < s->n_guess ? made : s->n_guess;
  memmove(s->guess, s->guess + made, s->n_guess * sizeof *s->guess);
  *n_verdicts = make_verdicts(s, before + accepted, diverged, v);
  return FORAY_OK;
}
