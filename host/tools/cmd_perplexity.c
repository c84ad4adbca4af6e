/* foray perplexity: of the target engine (through a forayd), of an edge device, or of the float reference. */
#include "api/edge_node.h"
#include "core/args.h"
#include "core/err.h"
#include "hosttools/commands.h"
#include "hosttools/common.h"
#include "hosttools/show.h"
#include "model/float_ref.h"
#include "model/image.h"
#include "model/perplexity.h"
#include "net/client.h"
#include "rt/drafter.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct ppl {
  const char *model_name, *file, *device, *against, *cloud, *exits;
  int ctx, chunks, threads;
  bool json, quiet;
  struct foray_model *model;
  struct foray_ids ids;
  int32_t bos; /* put first in each window; -1: none */
  size_t windows;
  int32_t *window; /* [ctx] */
  struct foray_score score;
  struct tool_progress bar;
  double bits_per_weight;
};

/* ---------------------------------------------------------------- the target engine, in a forayd */
static enum foray_status score_window(struct ppl *p, struct foray_client *c, struct foray_err *err) {
  size_t n = (size_t)p->ctx, first = foray_ppl_first(n), want = n - 1 - first, got = 0;
  uint32_t request;
  enum foray_status s =
      foray_client_score(c, (const uint32_t *)p->window, (uint32_t)n, (uint32_t)first, &request, err);
  bool last = false;
  while (!s && !last) {
    struct foray_edge_event ev;
    s = foray_client_wait(c, 200, &ev, err);
    if (tool_interrupted()) return foray_err_set(err, FORAY_E_CANCELLED, "interrupted");
    if (s == FORAY_E_TIMEOUT) {
      s = FORAY_OK;
      *err = (struct foray_err){0};
      continue;
    }
    if (!s && ev.kind == FORAY_EDGE_FAILED)
      s = foray_err_set(err, ev.code, "the cloud cannot score: %s", ev.text);
    if (s || ev.kind != FORAY_EDGE_SCORED || ev.request != request) continue;
    for (uint32_t i = 0; i < ev.n_logp; i++, got++) {
      p->score.nll -= ev.logp[i];
      p->score.nll2 += ev.logp[i] * ev.logp[i];
      p->score.tokens++;
    }
    last = ev.last;
  }
  if (!s && got != want)
    s = foray_err_set(err, FORAY_E_PROTO, "the cloud scored %zu tokens of %zu", got, want);
  return s;
}

static void on_loading(const struct foray_edge_event *ev, void *user) {
  struct tool_progress *bar = user;
  tool_progress_update(bar, ev->done, ev->total);
}

static enum foray_status by_cloud(struct ppl *p, struct foray_err *err) {
  char uri[4096], threads[16];
  uint8_t tokenizer[FORAY_SHA256_BYTES];
  snprintf(uri, sizeof uri, "spawn:%s", p->model_name);
  snprintf(threads, sizeof threads, "%d", p->threads);
  const char *args[] = {"--quiet", p->threads ? "--threads" : NULL, threads, NULL};
  foray_tokenizer_hash(p->model->tokenizer, tokenizer);
  struct foray_client_opts o = {.uri = p->cloud ? p->cloud : uri, .spawn_args = args};
  o.edge.tokenizer_sha256 = tokenizer;
  o.edge.dead_ns = INT64_MAX / 4; /* a window of a large model may take long */
  struct foray_client *c = NULL;
  enum foray_status s = foray_client_open(&o, &c, err);
  if (!s) s = foray_client_wait_ready(c, -1, on_loading, &p->bar, err);
  for (size_t w = 0; !s && w < p->windows; w++) {
    foray_ppl_window(p->ids.ids, w, (size_t)p->ctx, p->bos, p->window);
    s = score_window(p, c, err);
    tool_progress_update(&p->bar, w + 1, p->windows);
  }
  foray_client_close(c);
  return s;
}

/* ---------------------------------------------------------------- an edge device, or the float reference */
static enum foray_status by_logits(struct ppl *p, struct foray_drafter *d, struct foray_float_ref *f,
                                   struct foray_err *err) {
  size_t n = (size_t)p->ctx, first = foray_ppl_first(n), rows = n - first, vocab = p->model->config.n_vocab;
  float *edge = d ? malloc(rows * vocab * sizeof *edge) : NULL,
        *ref = f ? malloc(rows * vocab * sizeof *ref) : NULL;
  enum foray_status s = FORAY_OK;
  if ((d && !edge) || (f && !ref)) s = foray_err_set(err, FORAY_E_NOMEM, "out of memory for logits");
  for (size_t w = 0; !s && w < p->windows; w++) {
    if (tool_interrupted()) s = foray_err_set(err, FORAY_E_CANCELLED, "interrupted");
    foray_ppl_window(p->ids.ids, w, n, p->bos, p->window);
    if (!s && d)
      s = foray_drafter_logits(d, (const uint32_t *)p->window, (uint32_t)n, (uint32_t)rows, edge, err);
    if (!s && f) {
      foray_float_ref_truncate(f, 0);
      s = foray_float_ref_feed(f, p->window, n, ref, rows, err);
    }
    for (size_t i = 0; !s && i + 1 < rows; i++) {
      const float *mine = (d ? edge : ref) + i * vocab;
      foray_score_add(&p->score, mine, vocab, p->window[first + i + 1]);
      if (d && f) foray_score_add_kl(&p->score, ref + i * vocab, mine, vocab);
    }
    tool_progress_update(&p->bar, w + 1, p->windows);
  }
  free(edge);
  free(ref);
  return s;
}

static enum foray_status by_device(struct ppl *p, struct foray_err *err) {
  bool is_float = !strcmp(p->device, "float"), against = p->against != NULL;
  struct foray_pool *pool = NULL;
  struct foray_float_ref *f = NULL;
  struct foray_edge_node *node = NULL;
  enum foray_status s = FORAY_OK;
  if (is_float || against) {
    s = foray_pool_open(p->threads, &pool, err);
    if (!s) s = foray_float_ref_open(p->model, pool, (size_t)p->ctx, &f, err);
  }
  if (!s && !is_float) {
    struct foray_generator_opts o = {.edge = p->model_name,
                                     .device = p->device,
                                     .exits = p->exits ? p->exits : "none",
                                     .ctx = (uint32_t)p->ctx,
                                     .threads = p->threads,
                                     .no_exits = true,
                                     .full_head = true};
    s = foray_edge_node_open(&o, true, &node, err);
    if (!s) p->bits_per_weight = foray_edge_node_image(node)->bits_per_block_weight;
  }
  if (!s) s = by_logits(p, node ? foray_edge_node_drafter(node) : NULL, f, err);
  foray_edge_node_close(node);
  foray_float_ref_close(f);
  foray_pool_close(pool);
  return s;
}

static enum foray_status prepare(struct ppl *p, struct foray_err *err) {
  struct foray_buf text;
  enum foray_status s = tool_read_input(p->file, &text, err);
  if (!s) s = foray_model_open(p->model_name, &p->model, err);
  if (!s)
    s = foray_tokenizer_encode(p->model->tokenizer, (const char *)text.data, text.len, FORAY_ENCODE_BOS,
                               &p->ids, err);
  foray_buf_deinit(&text);
  if (s) return s;
  p->bos = foray_tokenizer_adds_bos(p->model->tokenizer) ? foray_tokenizer_bos(p->model->tokenizer) : -1;
  p->windows = foray_ppl_windows(p->ids.n, (size_t)p->ctx, (size_t)p->chunks);
  if (!p->windows)
    return foray_err_set(err, FORAY_E_ARG, "%s: %zu tokens are less than one window of %d",
                         p->file ? p->file : "input", p->ids.n, p->ctx);
  p->window = calloc((size_t)p->ctx, sizeof *p->window);
  return p->window ? FORAY_OK : foray_err_set(err, FORAY_E_NOMEM, "out of memory");
}

static int report(const struct ppl *p) {
  double ppl = foray_score_ppl(&p->score), se = foray_score_ppl_stderr(&p->score);
  bool kl = p->score.kl_tokens > 0;
  if (p->json) {
    json_t *j = json_pack("{s:f s:I s:f s:I s:I s:s s:s}", "ppl", ppl, "tokens", (json_int_t)p->score.tokens,
                          "ppl_stderr", se, "chunks", (json_int_t)p->windows, "ctx", (json_int_t)p->ctx,
                          "model", p->model->name, "device", p->device ? p->device : "cloud");
    if (kl) {
      json_object_set_new(j, "kl", json_real(foray_score_kl(&p->score)));
      json_object_set_new(j, "top1", json_real(foray_score_top1(&p->score)));
    }
    if (p->bits_per_weight > 0) json_object_set_new(j, "bits_per_weight", json_real(p->bits_per_weight));
    return show_json(j);
  }
  printf("perplexity %.4f +- %.4f over %llu tokens (%zu windows of %d)\n", ppl, se,
         (unsigned long long)p->score.tokens, p->windows, p->ctx);
  if (kl)
    printf("against the float model: KL %.5f, same first choice %.2f %%\n", foray_score_kl(&p->score),
           100 * foray_score_top1(&p->score));
  if (p->bits_per_weight > 0) printf("image: %.3f bits a block weight\n", p->bits_per_weight);
  return TOOL_EXIT_OK;
}

int cmd_perplexity(int argc, char **argv) {
  struct ppl p = {.ctx = 512};
  const struct foray_opt opts[] = {
      {"model", 'm', FORAY_OPT_STR, &p.model_name, "NAME|FILE", "the model", 0, 0},
      {"file", 'f', FORAY_OPT_STR, &p.file, "FILE", "text (- or nothing: standard input)", 0, 0},
      {"ctx|ctx-size", 'c', FORAY_OPT_INT, &p.ctx, "N", "tokens a window; the second half is scored (512)", 4,
       32768},
      {"chunks", 0, FORAY_OPT_INT, &p.chunks, "N", "windows at most (0: all)", 0, 1 << 30},
      {"device", 0, FORAY_OPT_STR, &p.device, "DEVICE",
       "an edge device (cpu, ref, ...) or 'float'; default: the target engine in a forayd", 0, 0},
      {"against", 0, FORAY_OPT_STR, &p.against, "float",
       "with --device: divergence from the float model of the same file", 0, 0},
      {"exits", 0, FORAY_OPT_STR, &p.exits, "FILE",
       "edge model with the LoRA of this exits file (default: none)", 0, 0},
      {"cloud", 0, FORAY_OPT_STR, &p.cloud, "WHERE", "a running forayd instead of spawn:MODEL", 0, 0},
      {"threads", 't', FORAY_OPT_INT, &p.threads, "N", "threads (0: one per processor)", 0, 256},
      {"json", 0, FORAY_OPT_FLAG, &p.json, NULL, "print JSON", 0, 0},
      {"quiet", 'q', FORAY_OPT_FLAG, &p.quiet, NULL, "no progress", 0, 0},
      {0}};
  const struct foray_command cmd = {"foray perplexity", "-m MODEL -f FILE [OPTIONS]",
                                    "Perplexity of a model on a text, by llama.cpp's rule.", opts,
                                    "Windows do not overlap; the first token of each is replaced by BOS "
                                    "where the tokenizer adds one; logits of the\n"
                                    "second half are scored. With --device cpu --against float the integer "
                                    "edge model is compared with its source."};
  struct foray_err err = {0};
  int rest;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return TOOL_EXIT_OK;
  case FORAY_ARGS_ERROR: return tool_fail(cmd.name, &err);
  case FORAY_ARGS_RUN: break;
  }
  if (!p.model_name)
    foray_err_set(&err, FORAY_E_ARG, "name the model with -m");
  else if (p.against && (strcmp(p.against, "float") || !p.device))
    foray_err_set(&err, FORAY_E_ARG, "--against float needs --device, and knows nothing but 'float'");
  if (err.code) return tool_fail(cmd.name, &err);
  tool_interrupt_install();
  tool_progress_begin(&p.bar, "perplexity", false, p.quiet);
  enum foray_status s = prepare(&p, &err);
  if (!s) s = p.device ? by_device(&p, &err) : by_cloud(&p, &err);
  tool_progress_end(&p.bar, !s);
  int rc = s ? tool_fail(cmd.name, &err) : report(&p);
  free(p.window);
  foray_ids_deinit(&p.ids);
  foray_model_close(p.model);
  return rc;
}
