/* proto/params.h - what a generation request may say, and the named limit of everything that comes from
 * a peer. Both machines check against the same table; docs/protocol.md prints it. */
#ifndef FORAY_PROTO_PARAMS_H
#define FORAY_PROTO_PARAMS_H

#include <foray/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FORAY_PROTO_VERSION_MIN = 1, FORAY_PROTO_VERSION_MAX = 1 };

/* Feature bits of the handshake; both ends use the intersection. */
enum {
  FORAY_FEATURE_COUPLED = 1 << 0, /* coupled verification (always there in version 1) */
  FORAY_FEATURE_SCORE = 1 << 1,
  FORAY_FEATURE_RESUME = 1 << 2,
  FORAY_FEATURES_ALL = 7
};

/* X(name, value, unit and meaning) */
#define FORAY_PROTO_LIMIT_MAP(X)                                                                             \
  X(FRAME, 1 << 20, "bytes in a frame's payload, any type")                                                  \
  X(FRAME_SMALL, 4096, "bytes in the payload of a type that carries no long list")                           \
  X(PROMPT, 131072, "ids in a prompt, prompt and generated together")                                        \
  X(SCORE, 32768, "ids in a score request")                                                                  \
  X(SCORED_CHUNK, 4096, "log-probabilities in one answer frame")                                             \
  X(TOKENS, 1 << 20, "max_tokens")                                                                           \
  X(DRAFT, 64, "ids in a round")                                                                             \
  X(ROUNDS, 16, "rounds of a session in flight")                                                             \
  X(SESSIONS, 256, "open sessions of a connection")                                                          \
  X(SCORES, 16, "unanswered score requests of a connection")                                                 \
  X(STOPS, 16, "stop strings of a session")                                                                  \
  X(STOP_BYTES, 256, "bytes in a stop string")                                                               \
  X(BIAS, 1024, "entries in a logit bias list")                                                              \
  X(TOKEN, 128, "bytes in an access token")                                                                  \
  X(EXITS, 16, "exits that a session's closing report tells apart")                                          \
  X(TEXT, 512, "bytes in a text for people")                                                                 \
  X(OUTPUT, 4 << 20, "bytes waiting to be sent before a reader counts as too slow")

enum {
#define X(name, value, text) FORAY_PROTO_##name##_MAX = value,
  FORAY_PROTO_LIMIT_MAP(X)
#undef X
};

enum { FORAY_SESSION_SECRET_BYTES = 16 };

/* How a session ended. Wire values. */
enum foray_finish {
  FORAY_FINISH_NONE = 0,   /* still going */
  FORAY_FINISH_STOP = 1,   /* a stop string appeared; the token that completed it is the last one */
  FORAY_FINISH_LENGTH = 2, /* max_tokens, or the context is full */
  FORAY_FINISH_EOS = 3,    /* an end-of-generation token, which is the last one */
  FORAY_FINISH_CANCEL = 4, /* by the edge */
  FORAY_FINISH_COUNT
};
const char *foray_finish_name(enum foray_finish f); /* "stop", "length", "eos", ...; never NULL */

enum foray_mode { FORAY_MODE_SPECULATIVE = 0, FORAY_MODE_PLAIN = 1, FORAY_MODE_COUNT };

/* The target's sampler. All zero = greedy, except that repeat_penalty 0 and 1 both mean off and
 * top_p 0 and 1 both mean off. The order of the steps is defined by cloud/engine/sampler.h. */
struct foray_gen_sampling {
  float temperature; /* 0: greedy */
  uint32_t top_k;    /* 0: off */
  float top_p;       /* (0, 1] */
  float min_p;       /* [0, 1] */
  float repeat_penalty, presence_penalty, frequency_penalty;
  int32_t repeat_last_n; /* tokens the penalties look back; 0: off, -1: all */
  uint64_t seed;
  const uint32_t *bias_ids; /* n_bias ids with an additive logit bias each */
  const float *bias;
  uint32_t n_bias;
};

/* A generation request; the callee copies what it keeps. Ids are checked against the vocabulary by the
 * cloud. stops[i] has stop_len[i] bytes and may hold any bytes. */
struct foray_gen_request {
  const uint32_t *prompt;
  uint32_t n_prompt;   /* >= 1 */
  uint32_t max_tokens; /* >= 1 */
  enum foray_mode mode;
  bool ignore_eos;
  struct foray_gen_sampling sampling;
  const char *const *stops;
  const uint32_t *stop_len;
  uint32_t n_stops;
  /* 0: none; k + 1: the log-probability of each token and of the k likeliest ones. Not on the wire: whoever
   * runs the scheduler asks for it (cloud/api). */
  uint32_t logprobs;
};

/* What a session tells the cloud when it is closed. */
struct foray_exit_counts {
  uint32_t n, drafted[FORAY_PROTO_EXITS_MAX], accepted[FORAY_PROTO_EXITS_MAX];
};

/* Ranges, NaN, limits: everything that can be said without the model. FORAY_E_ARG or FORAY_E_LIMIT with
 * the name of the field. */
enum foray_status foray_gen_request_check(const struct foray_gen_request *r,
                                          struct foray_err *err) FORAY_NODISCARD;

/* Deep copy in one allocation (owned by the caller, free()); NULL: out of memory. */
struct foray_gen_request *foray_gen_request_copy(const struct foray_gen_request *r);

#endif
