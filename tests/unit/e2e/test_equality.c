/* What comes out of speculative generation is what the target alone would have said: real model, real
 * protocol over a socket, several sessions in every pass; drafts of random length, right, wrong or wild,
 * several rounds in flight. Plain generation is compared with a loop around the engine as well.
 *
 * Environment: FORAY_EQ_MODEL (smollm2-135m-instruct), FORAY_EQ_PROMPTS (20), FORAY_EQ_TOKENS (16). */
#include "unit/e2e_server.h"
#include "unit/harness.h"

#include "core/buf.h"
#include "engine/engine.h"
#include "engine/sampler.h"
#include "model/model.h"
#include "net/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 8, PROMPTS_MAX = 512, LINE_MAX_BYTES = 1024, SETTINGS = 4 };

struct job {
  uint32_t prompt; /* index */
  int setting;
  uint32_t *want, n_want; /* plain tokens */
  enum foray_finish finish;
};
struct world {
  struct foray_model *model;
  struct foray_client *client;
  struct foray_ids ids[PROMPTS_MAX];
  uint32_t n_prompts, tokens, vocab;
  struct job *jobs;
  uint32_t n_jobs;
  uint64_t rng, drafted, accepted, rounds;
};

static uint64_t rnd(struct world *w) {
  uint64_t z = (w->rng += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static uint32_t number(const char *name, uint32_t otherwise) {
  const char *v = getenv(name);
  return v ? (uint32_t)strtoul(v, NULL, 10) : otherwise;
}

static const char *const stops[] = {"\n\n\n", "zebra"};
static const uint32_t stop_len[] = {3, 5};

static void fill(const struct world *w, const struct job *j, enum foray_mode mode,
                 struct foray_gen_request *r) {
  *r = (struct foray_gen_request){.prompt = (const uint32_t *)w->ids[j->prompt].ids,
                                  .n_prompt = (uint32_t)w->ids[j->prompt].n,
                                  .max_tokens = w->tokens,
                                  .mode = mode,
                                  .stops = stops,
                                  .stop_len = stop_len,
                                  .n_stops = 2};
  struct foray_gen_sampling *s = &r->sampling;
  s->seed = 1000 + j->prompt;
  if (j->setting >= 1) s->temperature = 1.0f;
  if (j->setting == 2) s->temperature = 0.8f, s->top_p = 0.95f;
  if (j->setting == 3) /* history and every other filter */
    s->top_k = 50, s->min_p = 0.02f, s->repeat_penalty = 1.2f, s->frequency_penalty = 0.2f,
    s->repeat_last_n = 32;
}

struct lane {
  struct job *job;
  uint32_t session, right; /* of 16 drafts */
};

static void propose(struct world *w, struct lane *l) {
  struct foray_edge_view v;
  if (foray_edge_view(foray_client_edge(w->client), l->session, &v) != FORAY_OK) return;
  while (v.open && v.finish == FORAY_FINISH_NONE && v.rounds < 3 && (v.rounds == 0 || rnd(w) % 2)) {
    uint32_t ids[9], n = (uint32_t)(rnd(w) % 9), start = v.n_generated + v.n_guessed;
    if (v.rounds && n == 0) n = 1;
    for (uint32_t k = 0; k < n; k++) {
      bool right = rnd(w) % 16 < l->right && start + k < l->job->n_want;
      ids[k] = right ? l->job->want[start + k] : (uint32_t)(rnd(w) % w->vocab);
    }
    struct foray_err err = {0};
    if (foray_client_draft(w->client, l->session, start, ids, n, NULL, &err) != FORAY_OK) return;
    w->rounds++;
    if (foray_edge_view(foray_client_edge(w->client), l->session, &v) != FORAY_OK) return;
  }
}

/* Runs all jobs, LANES at a time. Plain mode records; speculative mode compares. Returns how many differ. */
static int run(struct world *w, enum foray_mode mode) {
  struct lane lanes[LANES] = {0};
  uint32_t next = 0, busy = 0;
  int bad = 0;
  struct foray_err err = {0};
  for (;;) {
    for (int i = 0; i < LANES && next < w->n_jobs; i++) {
      if (lanes[i].job) continue;
      static const uint32_t right[] = {16, 14, 8, 15, 0, 12};
      lanes[i] = (struct lane){.job = &w->jobs[next], .right = right[next % 6]};
      next++;
      struct foray_gen_request r;
      fill(w, lanes[i].job, mode, &r);
      if (foray_client_request(w->client, &r, &lanes[i].session, &err) != FORAY_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return bad + 1;
      }
      busy++;
    }
    if (!busy) return bad;
    struct foray_edge_event ev;
    if (foray_client_wait(w->client, 120000, &ev, &err) != FORAY_OK || ev.kind == FORAY_EDGE_FAILED) {
      fprintf(stderr, "%s %s\n", err.msg, ev.text);
      return bad + 1;
    }
    w->drafted += ev.kind == FORAY_EDGE_TOKENS ? ev.n_drafted : 0;
    w->accepted += ev.kind == FORAY_EDGE_TOKENS ? ev.n_accepted : 0;
    for (int i = 0; i < LANES; i++) {
      struct lane *l = &lanes[i];
      struct foray_edge_view v;
      if (!l->job || foray_edge_view(foray_client_edge(w->client), l->session, &v) != FORAY_OK) continue;
      if (v.finish == FORAY_FINISH_NONE) {
        if (mode == FORAY_MODE_SPECULATIVE) propose(w, l);
        continue;
      }
      struct job *j = l->job;
      if (mode == FORAY_MODE_PLAIN) {
        j->want = malloc(v.n_generated * sizeof *j->want);
        if (j->want) memcpy(j->want, v.tokens + v.n_prompt, v.n_generated * sizeof *j->want);
        j->n_want = v.n_generated;
        j->finish = v.finish;
      } else if (v.n_generated != j->n_want || v.finish != j->finish ||
                 memcmp(v.tokens + v.n_prompt, j->want, j->n_want * sizeof *j->want) != 0) {
        uint32_t k = 0;
        while (k < v.n_generated && k < j->n_want && v.tokens[v.n_prompt + k] == j->want[k]) k++;
        fprintf(stderr, "prompt %u, setting %d: differs from token %u on (%u %s, plain %u %s)\n", j->prompt,
                j->setting, k, v.n_generated, foray_finish_name(v.finish), j->n_want,
                foray_finish_name(j->finish));
        bad++;
      }
      foray_client_end(w->client, l->session, NULL);
      l->job = NULL;
      busy--;
    }
  }
}

/* Plain decoding without scheduler, protocol and batch: the engine and the sampler in a loop. */
static int engine_alone(struct world *w, const char *path, uint32_t every) {
  struct foray_engine *e;
  struct foray_engine_opts o = foray_engine_opts_default();
  o.n_ctx = 1024;
  if (foray_engine_open(path, &o, &e, NULL) != FORAY_OK) return 1;
  float *logits = malloc(w->vocab * sizeof *logits);
  int bad = 0;
  for (uint32_t q = 0; q < w->n_jobs; q += every) {
    const struct job *j = &w->jobs[q];
    struct foray_gen_request r;
    fill(w, j, FORAY_MODE_PLAIN, &r);
    struct foray_sampler_params p = foray_sampler_params_greedy();
    p.temperature = r.sampling.temperature;
    p.top_k = (int32_t)r.sampling.top_k;
    if (r.sampling.top_p > 0) p.top_p = r.sampling.top_p;
    p.min_p = r.sampling.min_p;
    if (r.sampling.repeat_penalty > 0) p.repeat_penalty = r.sampling.repeat_penalty;
    p.frequency_penalty = r.sampling.frequency_penalty;
    p.repeat_last_n = r.sampling.repeat_last_n;
    p.seed = r.sampling.seed;
    struct foray_sampler *sm;
    struct foray_engine_seq *s;
    if (foray_sampler_open(&p, (int32_t)w->vocab, NULL, 0, &sm, NULL) != FORAY_OK ||
        foray_engine_seq_open(e, &s, NULL) != FORAY_OK)
      return bad + 1;
    int32_t *hist = malloc((r.n_prompt + w->tokens + 1) * sizeof *hist);
    memcpy(hist, r.prompt, r.n_prompt * sizeof *hist);
    int32_t n = (int32_t)r.n_prompt, fed = 0;
    for (uint32_t k = 0; k < j->n_want; k++) {
      struct foray_engine_item it = {
          .seq = s, .tokens = hist + fed, .n = n - fed, .n_logits = 1, .logits = logits};
      if (foray_engine_pass(e, &it, 1, NULL) != FORAY_OK) break;
      fed = n;
      hist[n] = foray_sampler_pick(sm, logits, hist, n, NULL);
      if ((uint32_t)hist[n++] != j->want[k]) {
        fprintf(stderr, "prompt %u, setting %d: the engine alone differs at token %u\n", j->prompt,
                j->setting, k);
        bad++;
        break;
      }
    }
    free(hist);
    foray_sampler_close(sm);
    foray_engine_seq_close(s);
  }
  free(logits);
  foray_engine_close(e);
  return bad;
}

static bool read_prompts(struct world *w, uint32_t want) {
  FILE *f = fopen(foray_test_path("tests/e2e/prompts.txt"), "r");
  if (!f) return false;
  char line[LINE_MAX_BYTES];
  uint32_t total = 0, every;
  while (fgets(line, sizeof line, f)) total++;
  rewind(f);
  every = want && want < total ? total / want : 1; /* a subset is spread over all kinds */
  for (uint32_t i = 0; fgets(line, sizeof line, f) && w->n_prompts < want && w->n_prompts < PROMPTS_MAX;
       i++) {
    if (i % every) continue;
    size_t n = 0;
    for (const char *p = line; *p && *p != '\n'; p++) { /* \n \t \\ are escapes */
      char c = *p;
      if (c == '\\' && p[1]) c = *++p == 'n' ? '\n' : *p == 't' ? '\t' : *p;
      line[n++] = c;
    }
    struct foray_ids *v = &w->ids[w->n_prompts++];
    if (foray_tokenizer_encode(w->model->tokenizer, line, n, FORAY_ENCODE_BOS, v, NULL) != FORAY_OK) break;
    if (!v->n && foray_ids_add(v, 1) != FORAY_OK) break;
  }
  fclose(f);
  return w->n_prompts > 0;
}

TEST(any_drafts_give_the_tokens_of_plain_decoding) {
  const char *name = getenv("FORAY_EQ_MODEL");
  const char *path = foray_test_model(name ? name : "smollm2-135m-instruct");
  if (!path) {
    foray_test_skip("the model is not on this machine");
    return;
  }
  struct world *w = calloc(1, sizeof *w);
  CU_ASSERT_FATAL(w != NULL);
#ifdef __SANITIZE_ADDRESS__
  uint32_t prompts = 2, tokens = 6;
#else
  uint32_t prompts = 20, tokens = 16;
#endif
  prompts = number("FORAY_EQ_PROMPTS", prompts);
  w->tokens = number("FORAY_EQ_TOKENS", tokens);
  CU_ASSERT_FATAL(foray_model_open(path, &w->model, NULL) == FORAY_OK);
  w->vocab = foray_tokenizer_n_vocab(w->model->tokenizer);
  CU_ASSERT_FATAL(read_prompts(w, prompts));
  w->n_jobs = w->n_prompts * SETTINGS;
  w->jobs = calloc(w->n_jobs, sizeof *w->jobs);
  CU_ASSERT_FATAL(w->jobs != NULL);
  for (uint32_t i = 0; i < w->n_jobs; i++)
    w->jobs[i] = (struct job){.prompt = i / SETTINGS, .setting = (int)(i % SETTINGS)};
  struct test_server *s = test_server_start(path, NULL, false);
  CU_ASSERT_FATAL(s != NULL);
  uint8_t hash[32];
  foray_tokenizer_hash(w->model->tokenizer, hash);
  struct foray_client_opts o = {.uri = test_server_uri(s), .edge = {.tokenizer_sha256 = hash}};
  CU_ASSERT_FATAL(foray_client_open(&o, &w->client, NULL) == FORAY_OK);

  CU_ASSERT_EQUAL(run(w, FORAY_MODE_PLAIN), 0);
  int differ = run(w, FORAY_MODE_SPECULATIVE);
  CU_ASSERT_EQUAL(differ, 0);
  foray_client_close(w->client);
  test_server_stop(s);
  uint32_t every = w->n_jobs > 160 ? w->n_jobs / 40 + 1 : 5;
  CU_ASSERT_EQUAL(engine_alone(w, path, every), 0);
  printf("  %u generations (%u prompts x %d samplers, %u tokens at most), %llu rounds, %llu drafted, %llu "
         "accepted: %d differ\n",
         w->n_jobs, w->n_prompts, SETTINGS, w->tokens, (unsigned long long)w->rounds,
         (unsigned long long)w->drafted, (unsigned long long)w->accepted, differ);
  CU_ASSERT(w->accepted > 0 && w->accepted < w->drafted);
  for (uint32_t i = 0; i < w->n_jobs; i++) free(w->jobs[i].want);
  for (uint32_t i = 0; i < w->n_prompts; i++) foray_ids_deinit(&w->ids[i]);
  free(w->jobs);
  foray_model_close(w->model);
  free(w);
}
