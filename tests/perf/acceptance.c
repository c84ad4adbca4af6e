/* How often the target's greedy choice equals the edge model's, position by position along the target's own
 * answers: of the integer edge model on a device, and of its float source. The difference is what the
 * integers cost in acceptance. acceptance EDGE TARGET PROMPTS.jsonl [LIMIT [TOKENS [DEVICE]]] PROMPTS as for
 * foray bench; prompts are taken at equal distances. Prints one JSON object. */
#include "api/edge_node.h"
#include "core/buf.h"
#include "engine/engine.h"
#include "model/chat.h"
#include "model/float_ref.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct foray_err err;
enum { CTX = 1024, PROMPT_MAX = 640 };

static void check(enum foray_status s) {
  if (s == FORAY_OK) return;
  fprintf(stderr, "acceptance: %s\n", err.msg);
  exit(1);
}

static int32_t best(const float *l, int32_t n) {
  int32_t b = 0;
  for (int32_t i = 1; i < n; i++)
    if (l[i] > l[b]) b = i;
  return b;
}

/* The target's greedy answer behind ids[0..n): returns the whole length. */
static int32_t answer(struct foray_engine *e, const struct foray_tokenizer *t, int32_t *ids, int32_t n,
                      int32_t tokens, float *logits) {
  struct foray_engine_seq *s;
  check(foray_engine_seq_open(e, &s, &err));
  int32_t fed = 0, len = n;
  for (;;) {
    struct foray_engine_item it = {
        .seq = s, .tokens = ids + fed, .n = len - fed, .n_logits = 1, .logits = logits};
    check(foray_engine_pass(e, &it, 1, &err));
    fed = len;
    if (len == n + tokens) break;
    int32_t id = best(logits, foray_engine_info(e)->n_vocab);
    if (foray_tokenizer_is_eog(t, id)) break;
    ids[len++] = id;
  }
  foray_engine_seq_close(s);
  return len;
}

int main(int argc, char **argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: acceptance EDGE TARGET PROMPTS.jsonl [LIMIT [TOKENS [DEVICE]]]\n");
    return 2;
  }
  const int limit = argc > 4 ? (int)strtol(argv[4], NULL, 10) : 26,
            tokens = argc > 5 ? (int)strtol(argv[5], NULL, 10) : 64;
  struct foray_model *m, *edge;
  check(foray_model_open(argv[2], &m, &err));
  check(foray_model_open(argv[1], &edge, &err));
  struct foray_engine *e;
  check(foray_engine_open(foray_gguf_path(m->gguf), NULL, &e, &err));
  struct foray_pool *pool;
  check(foray_pool_open(0, &pool, &err));
  struct foray_float_ref *f;
  check(foray_float_ref_open(edge, pool, CTX, &f, &err));
  struct foray_generator_opts o = {.edge = argv[1],
                                   .device = argc > 6 ? argv[6] : "cpu",
                                   .exits = "none",
                                   .ctx = CTX,
                                   .no_exits = true,
                                   .full_head = true};
  struct foray_edge_node *node;
  check(foray_edge_node_open(&o, true, &node, &err));
  struct foray_chat chat;
  check(foray_chat_open(m->gguf, NULL, &chat, &err));

  FILE *in = fopen(argv[3], "r");
  if (!in) {
    perror(argv[3]);
    return 1;
  }
  char *line = NULL;
  size_t cap = 0;
  long lines = 0;
  while (getline(&line, &cap, in) > 0) lines++;
  rewind(in);
  const int32_t vocab = (int32_t)edge->config.n_vocab;
  float *a = malloc((size_t)tokens * (size_t)vocab * sizeof *a),
        *b = malloc((size_t)tokens * (size_t)vocab * sizeof *b),
        *tl = malloc((size_t)foray_engine_info(e)->n_vocab * sizeof *tl);
  if (!a || !b || !tl) return 1;
  long n = 0, dev = 0, flt = 0, only_dev = 0, only_flt = 0, used = 0;
  const long every = lines > limit ? lines / limit : 1;
  for (long i = 0; getline(&line, &cap, in) > 0 && used < limit; i++) {
    if (i % every) continue;
    json_t *j = json_loads(line, 0, NULL);
    const char *text = json_string_value(json_array_get(json_object_get(j, "turns"), 0));
    struct foray_chat_message msg = {"user", text ? text : ""};
    struct foray_ids ids = {0};
    check(foray_chat_encode(&chat, m->tokenizer, &msg, 1, true, &ids, &err));
    json_decref(j);
    int32_t seq[CTX];
    if (ids.n <= PROMPT_MAX) {
      memcpy(seq, ids.ids, ids.n * sizeof *seq);
      const int32_t len = answer(e, m->tokenizer, seq, (int32_t)ids.n, tokens, tl);
      const size_t rows = (size_t)len - ids.n;
      if (rows) {
        /* Row k is what follows position ids.n - 1 + k, so the newest answer token needs no row. */
        check(foray_drafter_logits(foray_edge_node_drafter(node), (const uint32_t *)seq, (uint32_t)len - 1,
                                   (uint32_t)rows, a, &err));
        foray_float_ref_truncate(f, 0);
        check(foray_float_ref_feed(f, seq, (size_t)len - 1, b, rows, &err));
        for (size_t k = 0; k < rows; k++) {
          const int32_t want = seq[ids.n + k];
          const bool x = best(a + k * (size_t)vocab, vocab) == want,
                     y = best(b + k * (size_t)vocab, vocab) == want;
          n++, dev += x, flt += y, only_dev += x && !y, only_flt += y && !x;
        }
      }
      used++;
      fprintf(stderr, "%ld prompts, %ld tokens: device %.2f %%, float %.2f %%\n", used, n,
              100.0 * (double)dev / (double)n, 100.0 * (double)flt / (double)n);
    }
    foray_ids_deinit(&ids);
  }
  const double nn = (double)n, d = (double)(only_dev - only_flt) / nn;
  printf("{\"prompts\": %ld, \"tokens\": %ld, \"accepted_device\": %.4f, \"accepted_float\": %.4f, "
         "\"difference\": %.4f, "
         "\"stderr\": %.4f}\n",
         used, n, (double)dev / nn, (double)flt / nn, d,
         sqrt(((double)(only_dev + only_flt) / nn - d * d) / nn));
  fclose(in);
  free(line);
  free(a);
  free(b);
  free(tl);
  foray_edge_node_close(node);
  foray_float_ref_close(f);
  foray_pool_close(pool);
  foray_engine_close(e);
  foray_model_close(edge);
  foray_model_close(m);
  return 0;
}
