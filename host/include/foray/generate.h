/* foray/generate.h - text from an edge model that drafts and a cloud model that verifies.
 *
 *   struct foray_generator_opts o = {.edge = "smollm2-135m-instruct", .cloud =
 * "spawn:smollm2-135m-instruct"}; struct foray_generator *g; struct foray_err err = {0}; if
 * (foray_generator_open(&o, &g, &err)) { fprintf(stderr, "%s\n", err.msg); return 1; } struct foray_request r
 * = foray_request_default(); r.prompt = "Why is the sky blue?"; r.chat = true; struct foray_result result; if
 * (foray_generator_run(g, &r, on_token, NULL, &result, &err) == FORAY_OK) printf("%u tokens in %u
 * verifications\n", result.tokens, result.verifications); foray_result_deinit(&result);
 *   foray_generator_close(g);
 *
 *   static bool on_token(void *user, const struct foray_token *t) {   // return false to stop
 *     fwrite(t->text, 1, t->text_len, stdout);
 *     return true;
 *   }
 *
 * What comes out is bit for bit what the cloud model alone would have said with the same parameters and seed,
 * whatever the edge drafts and whatever happens to the link.
 *
 * Ownership: strings in options and requests are borrowed for the call. Thread rule: one thread at a time per
 * generator; foray_generator_interrupt may be called from anywhere, also from a signal handler. */
#ifndef FORAY_GENERATE_H
#define FORAY_GENERATE_H

#include <foray/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { FORAY_EXITS_SHOWN_MAX = 9 }; /* early exits of a program, and full depth */

struct foray_generator; /* opaque */

struct foray_generator_opts {
  const char *edge;   /* model that drafts: catalogue name, GGUF file or weight image; NULL: no drafts */
  const char *device; /* "cpu" (NULL), "ref", "cpu:avx2", ... */
  const char *exits;  /* exits file; NULL: the shipped one of this model if there is one; "none" */
  const char *cloud;  /* "spawn:MODEL", "HOST:PORT", "unix:PATH"; NULL: none, the edge runs alone */
  const char *const *cloud_args; /* NULL-terminated further arguments for a spawned forayd; NULL: none */
  const char
      *cloud_tls; /* folder with ca.crt and client.crt, client.key or token; NULL: ~/.config/foray/tls */
  const char *tokenizer; /* model whose tokenizer is used; NULL: the edge's, else spawn:'s */
  uint32_t ctx;          /* positions; 0: 4096 */
  int threads;           /* of the edge device; 0: one per processor */
  bool no_exits;         /* draft at full depth only */
  bool full_head;        /* draft among all ids instead of the trimmed vocabulary */
  /* Progress of long steps (packing, loading): done of total (0: unknown). False cancels the opening
   * (FORAY_E_CANCELLED). May be NULL. */
  bool (*progress)(void *user, const char *what, uint64_t done, uint64_t total);
  void *progress_user;
};

/* Opens model, image (packed into the cache at first use), device and link, and waits until the cloud is
 * ready. Errors: what the parts say, with the part's name in front. */
FORAY_API enum foray_status foray_generator_open(const struct foray_generator_opts *o,
                                                 struct foray_generator **out,
                                                 struct foray_err *err) FORAY_NODISCARD;
FORAY_API void foray_generator_close(struct foray_generator *g); /* NULL is allowed */
/* Ends the present or next run with FORAY_E_CANCELLED. Async-signal-safe. */
FORAY_API void foray_generator_interrupt(struct foray_generator *g);

enum foray_generate_mode {
  FORAY_GENERATE_SPECULATIVE, /* the edge drafts, the cloud verifies */
  FORAY_GENERATE_PLAIN,       /* the cloud decodes without drafts */
  FORAY_GENERATE_ALONE,       /* the edge model alone: its own text, not the cloud's */
};

struct foray_message {
  const char *role; /* "system", "user", "assistant" */
  const char *content;
};

struct foray_request {
  enum foray_generate_mode mode;
  /* One of: ids (n_ids > 0), messages (n_messages > 0), prompt. */
  const int32_t *ids;
  size_t n_ids;
  const struct foray_message *messages;
  size_t n_messages;
  const char *prompt;
  size_t prompt_len;         /* 0: strlen(prompt) */
  bool chat;                 /* prompt is a user turn; put it into the chat template */
  const char *system;        /* with chat; NULL: the template's default */
  const char *chat_template; /* NULL: the file's */
  uint32_t max_tokens;       /* 0: 128 */
  /* the target's sampler, docs/sampling.md */
  float temperature, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty;
  uint32_t top_k;
  int32_t repeat_last_n;
  uint64_t seed;
  bool ignore_eos;
  const uint32_t *bias_ids;
  const float *bias;
  uint32_t n_bias;
  const char *const *stops; /* NUL-terminated strings; generation ends when one appears */
  uint32_t n_stops;
  /* drafting */
  /* "goodput", "fixed", "maxprob", "margin", "entropy", "evidence", "adaptive". NULL: goodput over a network;
   * maxprob with a cloud on this machine, where times say more about the neighbour than about the link. */
  const char *policy;
  uint32_t draft_max;   /* tokens a block; 0: 8 */
  uint32_t draft_min;   /* 0 */
  float draft_p_min;    /* threshold of the policy; 0: its default */
  float exit_threshold; /* leave early when surer than this; 0: the exits file's; > 1: never */
  bool no_check;        /* early drafts stay as they are when full depth comes past them */
  bool no_ahead;        /* wait for a verdict instead of drafting on; a cloud on this machine implies it */
};
FORAY_API struct foray_request foray_request_default(void); /* temperature 0, nothing filtered */

enum foray_token_origin {
  FORAY_ORIGIN_DRAFT,      /* drafted at the edge and accepted */
  FORAY_ORIGIN_CORRECTION, /* the cloud's, where the draft said something else */
  FORAY_ORIGIN_BONUS,      /* the cloud's, behind a block that was all right */
  FORAY_ORIGIN_CLOUD,      /* the cloud's, nothing was drafted */
  FORAY_ORIGIN_EDGE,       /* the edge's own (ALONE) */
};

struct foray_token {
  int32_t id;
  uint32_t index;   /* 0 = first generated */
  const char *text; /* what this token completes: whole UTF-8 characters, may be empty; not NUL-terminated */
  size_t text_len;
  enum foray_token_origin origin;
  int exit;         /* DRAFT, CORRECTION, EDGE: exit number, n_exits = full depth; else -1 */
  int exit_layer;   /* layers that ran for it; -1 */
  int32_t rejected; /* CORRECTION: id that had been drafted; else -1 */
  float confidence; /* the draft's largest probability; 0 when nothing was drafted */
};
typedef bool foray_on_token(void *user, const struct foray_token *t);

struct foray_result {
  int32_t *ids; /* owned: the generated tokens */
  char *text;   /* owned, NUL-terminated (may hold NULs before text_len) */
  size_t text_len;
  uint32_t prompt_tokens, tokens, verifications, drafted, accepted;
  uint32_t n_exits; /* early ones; entry n_exits below is full depth */
  struct {
    int layer;
    uint32_t drafted, accepted;
    uint32_t judged; /* accepted, or the first of its block that was not: what "how often right" counts */
  } exits[FORAY_EXITS_SHOWN_MAX];
  uint64_t bytes_up, bytes_down; /* of this run */
  uint64_t device_bytes;         /* streamed from device memory for all drafts, wasted ones too */
  uint64_t device_prompt_bytes;  /* the same for the prompt */
  double seconds, first_token_seconds, draft_seconds, wait_seconds;
  const char *finish; /* "stop", "length", "eos", "cancelled"; static */
};

/* on_token may be NULL. result is filled on success and on FORAY_E_CANCELLED (what came so far); call
 * foray_result_deinit in any case. */
FORAY_API enum foray_status foray_generator_run(struct foray_generator *g, const struct foray_request *r,
                                                foray_on_token *on_token, void *user,
                                                struct foray_result *result,
                                                struct foray_err *err) FORAY_NODISCARD;
FORAY_API void foray_result_deinit(struct foray_result *result);

/* Early exits of the edge's program (0 without an edge), and the layers that run up to one (e == n_exits:
 * all). */
FORAY_API uint32_t foray_generator_exits(const struct foray_generator *g);
FORAY_API int foray_generator_exit_layer(const struct foray_generator *g, uint32_t e);
/* Name of the cloud's model as it introduced itself; "" without a cloud. Valid until close. */
FORAY_API const char *foray_generator_cloud_model(const struct foray_generator *g);

#ifdef __cplusplus
}
#endif
#endif
