/* tools/gen_opts.h - the options that generate, chat and bench share, with llama.cpp's names where it has
 * them. */
#ifndef FORAY_TOOLS_GEN_OPTS_H
#define FORAY_TOOLS_GEN_OPTS_H

#include "core/args.h"
#include "hosttools/common.h"

#include <foray/generate.h>

enum { GEN_BIAS_MAX = FORAY_STRLIST_MAX, GEN_OPTS_MAX = 64 };

struct gen_opts {
  /* what runs */
  const char *edge, *cloud, *cloud_tls, *device, *exits, *tokenizer;
  int ctx, threads, cloud_threads;
  bool no_exits, full_head, plain, alone;
  /* the target's sampler */
  int n_predict, top_k, repeat_last_n;
  double temp, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty;
  int64_t seed;
  bool ignore_eos;
  struct foray_strlist stops, bias;
  /* drafting */
  const char *policy;
  int draft_max, draft_min;
  double draft_p_min, exit_threshold;
  bool no_check, no_ahead;
  /* talk */
  const char *chat_template, *system;
  bool json, quiet;
  /* parsed */
  uint32_t bias_ids[GEN_BIAS_MAX];
  float bias_values[GEN_BIAS_MAX];
  char threads_text[16];
  const char *cloud_args[4]; /* NULL-terminated */
};

void gen_opts_init(struct gen_opts *o); /* greedy, 128 tokens */
/* Writes the shared option rows behind `own` rows and a closing empty row; table has room for GEN_OPTS_MAX.
 */
void gen_opts_table(struct gen_opts *o, const struct foray_opt *own, struct foray_opt *table);
/* Checks combinations, parses --logit-bias, fills in what was left out (the cloud of a bare edge model). */
enum foray_status gen_opts_finish(struct gen_opts *o, struct foray_err *err) FORAY_NODISCARD;

void gen_opts_request(const struct gen_opts *o, struct foray_request *r);
enum foray_status gen_opts_open(const struct gen_opts *o, struct foray_generator **g,
                                struct foray_err *err) FORAY_NODISCARD;

void gen_opts_close(struct foray_generator *g); /* NULL is allowed */

#endif
