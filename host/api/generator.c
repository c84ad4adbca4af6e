/* The public generator: an edge node (optional), a link to the cloud (optional), and runs over both. */
#include <foray/generate.h>

#include "api/edge_node.h"
#include "core/clock.h"
#include "core/err.h"
#include "model/chat.h"
#include "net/client.h"
#include "rt/edge_link.h"
#include "rt/session.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES_MAX = 64 << 20, MAX_TOKENS_DEFAULT = 128, DRAFT_MAX_DEFAULT = 8, EOG_IDS_MAX = 32 };

struct foray_generator {
  struct foray_edge_node *edge; /* owned; NULL: no drafting */
  struct foray_model *words;    /* owned; the model whose tokenizer is used, where the edge has none */
  const struct foray_model *model;
  struct foray_client *client;     /* owned; NULL: alone */
  bool local;                      /* the cloud is on this machine */
  struct foray_policy_state state; /* what the policy learned so far */
  enum foray_policy_kind state_kind;
  bool has_state;
  volatile sig_atomic_t interrupted;
  uint32_t eog[EOG_IDS_MAX], n_eog;
};

struct run {
  struct foray_generator *g;
  foray_on_token *on_token;
  void *user;
  struct foray_result *result;
  struct foray_ids ids;
  struct foray_buf text;
  struct foray_detok detok;
  double began;
  bool failed; /* out of memory in a callback */
};

struct foray_request foray_request_default(void) {
  return (struct foray_request){.max_tokens = MAX_TOKENS_DEFAULT, .top_p = 1, .repeat_penalty = 1};
}

/* ---------------------------------------------------------------- opening */
struct loading {
  const struct foray_generator_opts *o;
  struct foray_client *client;
};

static void on_cloud_progress(const struct foray_edge_event *ev, void *user) {
  const struct loading *l = user;
  if (l->o->progress && !l->o->progress(l->o->progress_user, "loading the cloud model", ev->done, ev->total))
    foray_client_interrupt(l->client);
}

static enum foray_status connect_cloud(struct foray_generator *g, const struct foray_generator_opts *o,
                                       struct foray_err *err) {
  uint8_t tokenizer[FORAY_SHA256_BYTES];
  foray_tokenizer_hash(g->model->tokenizer, tokenizer);
  struct foray_client_opts co = {.uri = o->cloud, .spawn_args = o->cloud_args, .tls_dir = o->cloud_tls};
  co.edge.tokenizer_sha256 = tokenizer;
  g->local =
      !strncmp(o->cloud, "spawn:", 6) || !strncmp(o->cloud, "unix:", 5) || !strncmp(o->cloud, "fd:", 3);
  enum foray_status s = foray_client_open(&co, &g->client, err);
  struct loading l = {o, g->client};
  if (!s) s = foray_client_wait_ready(g->client, -1, on_cloud_progress, &l, err);
  if (s) foray_err_prefix(err, "cloud '%s'", o->cloud);
  return s;
}

enum foray_status foray_generator_open(const struct foray_generator_opts *o, struct foray_generator **out,
                                       struct foray_err *err) {
  *out = NULL;
  if (!o->edge && !o->cloud)
    return foray_err_set(err, FORAY_E_ARG,
                         "neither an edge model nor a cloud is given: nothing could generate");
  struct foray_generator *g = calloc(1, sizeof *g);
  if (!g) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  enum foray_status s = FORAY_OK;
  if (o->edge) {
    s = foray_edge_node_open(o, false, &g->edge, err);
    if (!s) g->model = foray_edge_node_model(g->edge);
  }
  if (!s && (o->tokenizer || !g->model)) {
    const char *name = o->tokenizer;
    if (!name && !strncmp(o->cloud, "spawn:", 6)) name = o->cloud + 6;
    if (!name)
      s = foray_err_set(err, FORAY_E_ARG, "no edge model: name the model whose tokenizer the cloud '%s' uses",
                        o->cloud);
    else
      s = foray_model_open(name, &g->words, err);
    if (!s) g->model = g->words;
  }
  if (!s && o->cloud) s = connect_cloud(g, o, err);
  if (s) {
    foray_generator_close(g);
    return s;
  }
  uint32_t n = foray_tokenizer_n_vocab(g->model->tokenizer);
  for (uint32_t id = 0; id < n && g->n_eog < EOG_IDS_MAX; id++)
    if (foray_tokenizer_is_eog(g->model->tokenizer, (int32_t)id)) g->eog[g->n_eog++] = id;
  *out = g;
  return FORAY_OK;
}

void foray_generator_close(struct foray_generator *g) {
  if (!g) return;
  foray_client_close(g->client);
  foray_edge_node_close(g->edge);
  foray_model_close(g->words);
  free(g);
}

void foray_generator_interrupt(struct foray_generator *g) {
  g->interrupted = 1;
  if (g->client) foray_client_interrupt(g->client);
}

uint32_t foray_generator_exits(const struct foray_generator *g) {
  return g->edge ? foray_drafter_exits(foray_edge_node_drafter(g->edge)) : 0;
}

int foray_generator_exit_layer(const struct foray_generator *g, uint32_t e) {
  return g->edge ? (int)foray_drafter_exit_layer(foray_edge_node_drafter(g->edge), e) : 0;
}

const char *foray_generator_cloud_model(const struct foray_generator *g) {
  const struct foray_edge_server *info =
      g->client ? foray_edge_server_info(foray_client_edge(g->client)) : NULL;
  return info ? info->model_name : "";
}

/* ---------------------------------------------------------------- prompt */
static enum foray_status encode_prompt(struct foray_generator *g, const struct foray_request *r,
                                       struct foray_ids *ids, struct foray_err *err) {
  if (r->n_ids) {
    for (size_t i = 0; i < r->n_ids; i++)
      if (foray_ids_add(ids, r->ids[i])) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
    return FORAY_OK;
  }
  if (!r->n_messages && !r->prompt) return foray_err_set(err, FORAY_E_ARG, "the request has no prompt");
  const char *prompt = r->prompt;
  size_t len = prompt ? (r->prompt_len ? r->prompt_len : strlen(prompt)) : 0;
  if (!r->n_messages && !r->chat)
    return foray_tokenizer_encode(g->model->tokenizer, prompt, len, FORAY_ENCODE_BOS | FORAY_ENCODE_SPECIAL,
                                  ids, err);
  struct foray_chat chat;
  enum foray_status s = foray_chat_open(g->model->gguf, r->chat_template, &chat, err);
  if (s) return s;
  struct foray_chat_message own[2];
  const struct foray_chat_message *msgs = own;
  struct foray_chat_message *copy = NULL;
  char *text = NULL;
  size_t n = 0;
  if (r->n_messages) {
    copy = calloc(r->n_messages, sizeof *copy);
    for (size_t i = 0; copy && i < r->n_messages; i++)
      copy[i] = (struct foray_chat_message){r->messages[i].role, r->messages[i].content};
    msgs = copy;
    n = r->n_messages;
  } else {
    text = malloc(len + 1);
    if (text) {
      memcpy(text, prompt, len);
      text[len] = 0;
    }
    if (r->system) own[n++] = (struct foray_chat_message){"system", r->system};
    own[n++] = (struct foray_chat_message){"user", text};
  }
  if (!copy && !text)
    s = foray_err_set(err, FORAY_E_NOMEM, "out of memory for the prompt");
  else
    s = foray_chat_encode(&chat, g->model->tokenizer, msgs, n, true, ids, err);
  free(copy);
  free(text);
  return s;
}

/* ---------------------------------------------------------------- tokens */
static bool emit(struct run *r, int32_t id, enum foray_token_origin origin, int exit, int32_t rejected,
                 float conf) {
  struct foray_result *res = r->result;
  size_t before = r->text.len;
  if (res->tokens == 0) res->first_token_seconds = foray_clock_s() - r->began;
  if (foray_ids_add(&r->ids, id) || foray_detok_feed(&r->detok, r->g->model->tokenizer, id, &r->text)) {
    r->failed = true;
    return false;
  }
  struct foray_token t = {.id = id,
                          .index = res->tokens,
                          .text = (const char *)r->text.data + before,
                          .text_len = r->text.len - before,
                          .origin = origin,
                          .exit = exit,
                          .exit_layer =
                              exit >= 0 && r->g->edge ? foray_generator_exit_layer(r->g, (uint32_t)exit) : -1,
                          .rejected = rejected,
                          .confidence = conf};
  if (!t.text_len) t.text = "";
  res->tokens++;
  return !r->on_token || r->on_token(r->user, &t);
}

static bool on_gen_token(void *me, const struct foray_gen_token *t) {
  static const enum foray_token_origin origins[] = {[FORAY_TOKEN_DRAFT] = FORAY_ORIGIN_DRAFT,
                                                    [FORAY_TOKEN_CORRECTION] = FORAY_ORIGIN_CORRECTION,
                                                    [FORAY_TOKEN_BONUS] = FORAY_ORIGIN_BONUS,
                                                    [FORAY_TOKEN_PLAIN] = FORAY_ORIGIN_CLOUD};
  bool drafted = t->source == FORAY_TOKEN_DRAFT || t->source == FORAY_TOKEN_CORRECTION;
  return emit(me, (int32_t)t->id, origins[t->source], drafted ? (int)t->exit : -1,
              t->source == FORAY_TOKEN_CORRECTION ? (int32_t)t->rejected : -1, drafted ? t->conf.top : 0);
}

/* ---------------------------------------------------------------- the three modes */
static enum foray_status gen_params(struct foray_generator *g, const struct foray_request *r,
                                    struct foray_gen_params *p, struct foray_err *err) {
  enum foray_policy_kind kind = g->local ? FORAY_POLICY_MAXPROB : FORAY_POLICY_GOODPUT;
  if (r->policy && !foray_policy_parse(r->policy, &kind))
    return foray_err_set(err, FORAY_E_ARG,
                         "policy '%s' is unknown; use goodput, fixed, maxprob, margin, entropy, "
                         "evidence or adaptive",
                         r->policy);
  *p = foray_gen_defaults();
  p->max_tokens = r->max_tokens ? r->max_tokens : MAX_TOKENS_DEFAULT;
  p->temperature = r->temperature > 0 ? r->temperature : 0;
  p->seed = r->seed;
  p->policy = foray_policy_default(kind);
  p->policy.max = r->draft_max ? r->draft_max : DRAFT_MAX_DEFAULT;
  p->policy.min = r->draft_min < p->policy.max ? r->draft_min : p->policy.max;
  if (p->policy.max > FORAY_POLICY_BLOCK_MAX)
    return foray_err_set(err, FORAY_E_LIMIT, "%u drafts a block; at most %d are possible", p->policy.max,
                         FORAY_POLICY_BLOCK_MAX);
  if (r->draft_p_min > 0) p->policy.threshold = r->draft_p_min;
  for (uint32_t e = 0; e < FORAY_DRAFT_EXITS_MAX; e++)
    p->exit_top[e] = r->exit_threshold > 0 ? r->exit_threshold : foray_edge_node_threshold(g->edge, e);
  p->check = r->no_check ? 0 : foray_edge_node_check(g->edge);
  /* Drafting ahead fills time in which the device would idle; on one machine it takes that time from the
   * cloud. */
  p->ahead = r->no_ahead || g->local ? 0 : p->policy.max;
  p->eog = r->ignore_eos ? NULL : g->eog;
  p->n_eog = r->ignore_eos ? 0 : g->n_eog;
  if (r->mode != FORAY_GENERATE_SPECULATIVE) return FORAY_OK;
  if (!g->has_state || g->state_kind != kind) g->state = foray_policy_start(&p->policy);
  g->has_state = true;
  g->state_kind = kind;
  p->state = &g->state;
  return FORAY_OK;
}

/* ---- net/client.h as what moves the bytes of rt/edge_link.h; an interrupt ends a wait */
static enum foray_status pump_wait(void *ctx, int timeout_ms, struct foray_edge_event *ev,
                                   struct foray_err *err) {
  struct foray_generator *g = ctx;
  if (g->interrupted) return foray_err_set(err, FORAY_E_CANCELLED, "interrupted");
  enum foray_status s;
  do /* an interrupt of an earlier run may still be pending in the client: that one is not ours */
    s = foray_client_wait(g->client, timeout_ms, ev, err);
  while (s == FORAY_E_CANCELLED && !g->interrupted);
  return s;
}
static enum foray_status pump_draft(void *ctx, uint32_t session, uint32_t start, const uint32_t *ids,
                                    uint32_t n, uint32_t *round, struct foray_err *err) {
  return foray_client_draft(((struct foray_generator *)ctx)->client, session, start, ids, n, round, err);
}
static enum foray_status pump_cancel(void *ctx, uint32_t session, struct foray_err *err) {
  return foray_client_cancel(((struct foray_generator *)ctx)->client, session, err);
}
static struct foray_edge *pump_edge(void *ctx) {
  return foray_client_edge(((struct foray_generator *)ctx)->client);
}

/* The cloud decides the text, with drafts (source) or without. */
static enum foray_status run_cloud(struct run *run, const struct foray_gen_request *q,
                                   const struct foray_gen_params *p, const struct foray_draft_source *source,
                                   struct foray_err *err) {
  struct foray_generator *g = run->g;
  const struct foray_edge_pump pump = {
      .ctx = g, .wait = pump_wait, .draft = pump_draft, .cancel = pump_cancel, .edge = pump_edge};
  uint32_t session;
  enum foray_status s = foray_client_request(g->client, q, &session, err);
  if (s) return s;
  struct foray_edge_link el;
  struct foray_gen_stats st = {0};
  foray_edge_link_init(&el, &pump, session, q->n_prompt, source == NULL);
  struct foray_link link = foray_edge_link_of(&el);
  s = foray_generate(q->prompt, q->n_prompt, p, source, &link, on_gen_token, run, &st, err);
  foray_edge_link_deinit(&el);
  struct foray_exit_counts counts = {.n = source ? source->n_exits + 1 : 0};
  if (counts.n > FORAY_PROTO_EXITS_MAX) counts.n = FORAY_PROTO_EXITS_MAX;
  for (uint32_t e = 0; e < counts.n && e <= FORAY_DRAFT_EXITS_MAX; e++) {
    counts.drafted[e] = st.exit_drafted[e];
    counts.accepted[e] = st.exit_accepted[e];
  }
  foray_client_end(g->client, session, counts.n ? &counts : NULL);
  struct foray_result *res = run->result;
  res->verifications = st.verifications;
  res->drafted = st.drafted;
  res->accepted = st.accepted;
  res->n_exits = source ? source->n_exits : 0;
  for (uint32_t e = 0; source && e <= source->n_exits && e < FORAY_EXITS_SHOWN_MAX; e++) {
    res->exits[e].layer = foray_generator_exit_layer(g, e);
    res->exits[e].drafted = st.exit_drafted[e];
    res->exits[e].accepted = st.exit_accepted[e];
    res->exits[e].judged = st.exit_judged[e];
  }
  res->device_bytes = st.draft_bytes;
  res->device_prompt_bytes = st.prompt_bytes;
  res->draft_seconds = st.draft_seconds;
  res->wait_seconds = st.wait_seconds;
  res->finish = foray_finish_name(st.finish);
  if (!s && st.finish == FORAY_FINISH_CANCEL)
    s = foray_err_set(err, FORAY_E_CANCELLED, "stopped by the caller");
  return s;
}

/* The edge model's own text: blocks of full-depth drafts, all kept. No target is involved. */
static enum foray_status run_alone(struct run *run, const struct foray_gen_request *q,
                                   const struct foray_gen_params *p, const struct foray_request *r,
                                   struct foray_err *err) {
  struct foray_generator *g = run->g;
  struct foray_drafter *d = foray_edge_node_drafter(g->edge);
  struct foray_ids all = {0};
  enum foray_status s = FORAY_OK;
  for (uint32_t i = 0; !s && i < q->n_prompt; i++) s = foray_ids_add(&all, (int32_t)q->prompt[i]);
  struct foray_draft_params dp = foray_draft_defaults();
  dp.temperature = p->temperature;
  dp.seed = p->seed;
  for (uint32_t e = 0; e < FORAY_DRAFT_EXITS_MAX; e++)
    dp.exit_top[e] = r->exit_threshold > 0 ? r->exit_threshold : 2;
  run->result->n_exits = foray_drafter_exits(d);
  for (uint32_t e = 0; e <= run->result->n_exits && e < FORAY_EXITS_SHOWN_MAX; e++)
    run->result->exits[e].layer = foray_generator_exit_layer(g, e);
  enum foray_finish finish = FORAY_FINISH_NONE;
  double began = foray_clock_s();
  while (!s && !finish) {
    if (g->interrupted) {
      s = foray_err_set(err, FORAY_E_CANCELLED, "interrupted");
      break;
    }
    uint32_t left = p->max_tokens - run->result->tokens;
    dp.max = left < 8 ? left : 8;
    struct foray_draft out[8];
    uint32_t got = 0;
    s = foray_drafter_sync(d, (const uint32_t *)all.ids, (uint32_t)all.n, err);
    if (!s) s = foray_drafter_draft(d, &dp, out, &got, err);
    if (!s && !got) finish = FORAY_FINISH_LENGTH; /* the context is full */
    for (uint32_t i = 0; !s && !finish && i < got; i++) {
      run->result->drafted++;
      run->result->device_bytes += out[i].bytes;
      if (out[i].exit < FORAY_EXITS_SHOWN_MAX) run->result->exits[out[i].exit].drafted++;
      s = foray_ids_add(&all, (int32_t)out[i].id);
      if (!s && !emit(run, (int32_t)out[i].id, FORAY_ORIGIN_EDGE, (int)out[i].exit, -1, out[i].conf.top))
        s = foray_err_set(err, run->failed ? FORAY_E_NOMEM : FORAY_E_CANCELLED, "stopped");
      if (!r->ignore_eos && foray_tokenizer_is_eog(g->model->tokenizer, (int32_t)out[i].id))
        finish = FORAY_FINISH_EOS;
      if (run->result->tokens == p->max_tokens && !finish) finish = FORAY_FINISH_LENGTH;
    }
  }
  run->result->draft_seconds = foray_clock_s() - began;
  run->result->finish = foray_finish_name(finish ? finish : FORAY_FINISH_CANCEL);
  foray_ids_deinit(&all);
  return s;
}

/* ---------------------------------------------------------------- a run */
static enum foray_status check_mode(const struct foray_generator *g, enum foray_generate_mode mode,
                                    struct foray_err *err) {
  if (mode != FORAY_GENERATE_PLAIN && !g->edge)
    return foray_err_set(err, FORAY_E_STATE, "this generator has no edge model to draft with");
  if (mode != FORAY_GENERATE_ALONE && !g->client)
    return foray_err_set(err, FORAY_E_STATE, "this generator has no cloud to verify with");
  return FORAY_OK;
}

enum foray_status foray_generator_run(struct foray_generator *g, const struct foray_request *r,
                                      foray_on_token *on_token, void *user, struct foray_result *result,
                                      struct foray_err *err) {
  *result = (struct foray_result){.finish = foray_finish_name(FORAY_FINISH_CANCEL)};
  enum foray_status s = check_mode(g, r->mode, err);
  if (s) return s;
  g->interrupted = 0;
  struct foray_ids prompt = {0};
  uint32_t stop_len[FORAY_PROTO_STOPS_MAX];
  if (r->n_stops > FORAY_PROTO_STOPS_MAX)
    return foray_err_set(err, FORAY_E_LIMIT, "%u stop strings; at most %d are possible", r->n_stops,
                         FORAY_PROTO_STOPS_MAX);
  for (uint32_t i = 0; i < r->n_stops; i++)
    stop_len[i] = (uint32_t)strnlen(r->stops[i], FORAY_PROTO_STOP_BYTES_MAX + 1);
  if ((s = encode_prompt(g, r, &prompt, err))) {
    foray_ids_deinit(&prompt);
    return s;
  }
  struct foray_gen_request q = {
      .prompt = (const uint32_t *)prompt.ids,
      .n_prompt = (uint32_t)prompt.n,
      .max_tokens = r->max_tokens ? r->max_tokens : MAX_TOKENS_DEFAULT,
      .mode = r->mode == FORAY_GENERATE_PLAIN ? FORAY_MODE_PLAIN : FORAY_MODE_SPECULATIVE,
      .ignore_eos = r->ignore_eos,
      .sampling = {.temperature = r->temperature,
                   .top_k = r->top_k,
                   .top_p = r->top_p,
                   .min_p = r->min_p,
                   .repeat_penalty = r->repeat_penalty,
                   .presence_penalty = r->presence_penalty,
                   .frequency_penalty = r->frequency_penalty,
                   .repeat_last_n = r->repeat_last_n,
                   .seed = r->seed,
                   .bias_ids = r->bias_ids,
                   .bias = r->bias,
                   .n_bias = r->n_bias},
      .stops = r->stops,
      .stop_len = stop_len,
      .n_stops = r->n_stops,
  };
  struct run run = {.g = g, .on_token = on_token, .user = user, .result = result, .began = foray_clock_s()};
  foray_buf_init(&run.text, TEXT_BYTES_MAX);
  struct foray_edge_stats before = {0}, after = {0};
  if (g->client) foray_edge_stats_get(foray_client_edge(g->client), &before);
  struct foray_gen_params p;
  s = foray_gen_request_check(&q, err);
  if (!s) s = gen_params(g, r, &p, err);
  if (!s && r->mode == FORAY_GENERATE_ALONE) {
    s = run_alone(&run, &q, &p, r, err);
  } else if (!s) {
    struct foray_draft_source src = {0};
    bool drafts = r->mode == FORAY_GENERATE_SPECULATIVE;
    if (drafts) src = foray_drafter_source(foray_edge_node_drafter(g->edge));
    s = run_cloud(&run, &q, &p, drafts ? &src : NULL, err);
  }
  if (run.failed) s = foray_err_set(err, FORAY_E_NOMEM, "out of memory for the text");
  result->seconds = foray_clock_s() - run.began;
  if (g->client) foray_edge_stats_get(foray_client_edge(g->client), &after);
  result->bytes_up = after.bytes_up - before.bytes_up;
  result->bytes_down = after.bytes_down - before.bytes_down;
  result->prompt_tokens = (uint32_t)prompt.n;
  foray_ids_deinit(&prompt);
  if (!s && foray_detok_finish(&run.detok, &run.text)) s = foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  if (!run.text.data && foray_buf_add(&run.text, "", 0))
    s = foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  result->ids = run.ids.ids;
  result->text = (char *)run.text.data;
  result->text_len = run.text.len;
  return s;
}

void foray_result_deinit(struct foray_result *result) {
  free(result->ids);
  free(result->text);
  *result = (struct foray_result){0};
}
