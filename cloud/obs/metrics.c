#include "obs/metrics.h"

#include <stdio.h>

/* Two samples of a family that differ in one label. */
static void pair(struct foray_prom *p, const char *name, const char *type, const char *help, const char *a,
                 double va, const char *b, double vb) {
  foray_prom_family(p, name, type, help);
  foray_prom_sample(p, name, a, va);
  foray_prom_sample(p, name, b, vb);
}

static void speculation(const struct foray_batch_stats *b, struct foray_prom *p) {
  foray_prom_counter(p, "vllm:spec_decode_num_drafts_total", "Rounds of drafts that were taken.", b->rounds);
  foray_prom_counter(p, "vllm:spec_decode_num_draft_tokens_total", "Drafted tokens in them.", b->drafted);
  foray_prom_counter(p, "vllm:spec_decode_num_accepted_tokens_total", "Drafted tokens that were accepted.",
                     b->accepted);
  foray_prom_family(p, "vllm:spec_decode_num_accepted_tokens_per_pos_total", "counter",
                    "Accepted tokens by their place in the round.");
  for (int i = 0; i < FORAY_PROTO_DRAFT_MAX && (i < 8 || b->accepted_at[i]); i++) {
    char l[32];
    snprintf(l, sizeof l, "position=\"%d\"", i);
    foray_prom_sample(p, "vllm:spec_decode_num_accepted_tokens_per_pos_total", l, (double)b->accepted_at[i]);
  }
  foray_prom_counter(p, "foray:drafts_wasted_total", "Drafted tokens that were not accepted.",
                     b->drafted - b->accepted);
  foray_prom_counter(p, "foray:rounds_stale_total", "Rounds dropped because what they built on was wrong.",
                     b->stale_rounds);
  uint64_t exits = 0;
  for (int e = 0; e < FORAY_PROTO_EXITS_MAX; e++) exits += b->exit_drafted[e];
  foray_prom_family(p, "foray:exit_drafted_total", "counter",
                    "Drafts by exit, as edges report them at the end of a session.");
  for (int e = 0; e < FORAY_PROTO_EXITS_MAX; e++) {
    char l[32];
    snprintf(l, sizeof l, "exit=\"%d\"", e);
    if (b->exit_drafted[e] || (e == 0 && !exits))
      foray_prom_sample(p, "foray:exit_drafted_total", l, (double)b->exit_drafted[e]);
  }
  foray_prom_family(p, "foray:exit_accepted_total", "counter", "Accepted drafts by exit.");
  for (int e = 0; e < FORAY_PROTO_EXITS_MAX; e++) {
    char l[32];
    snprintf(l, sizeof l, "exit=\"%d\"", e);
    if (b->exit_drafted[e] || (e == 0 && !exits))
      foray_prom_sample(p, "foray:exit_accepted_total", l, (double)b->exit_accepted[e]);
  }
}

void foray_obs_metrics(const struct foray_obs_now *now, struct foray_prom *p) {
  const struct foray_batch_stats *b = &now->batch;
  foray_prom_gauge(p, "vllm:num_requests_waiting", "Sessions that wait for the next pass.", b->waiting);
  foray_prom_counter(p, "vllm:num_preemptions_total", "Sessions that lost their keys and values to others.",
                     b->evictions);
  foray_prom_counter(p, "vllm:prefix_cache_queries_total", "Prompt tokens looked up among known beginnings.",
                     b->prefix_queries);
  foray_prom_counter(p, "vllm:prefix_cache_hits_total", "Of them found.", b->prefix_hits);
  foray_prom_gauge(p, "foray:sessions", "Sessions that the scheduler holds.", b->sessions);
  foray_prom_gauge(p, "foray:sessions_attached", "Of them with a connection.", b->attached);
  foray_prom_counter(p, "foray:sessions_opened_total", "Sessions opened.", b->opened);
  foray_prom_counter(p, "foray:sessions_resumed_total", "Sessions taken up again after a lost link.",
                     b->resumed);
  foray_prom_counter(p, "foray:sessions_restored_total", "Sessions taken over from the commit log.",
                     b->restored);
  foray_prom_counter(p, "foray:sessions_refused_total", "Sessions refused for want of room.", b->refused);
  foray_prom_counter(p, "foray:tokens_committed_total", "Tokens of the target, all sessions.", b->generated);
  foray_prom_counter(p, "foray:passes_total", "Passes of the target.", b->passes);
  foray_prom_counter(p, "foray:pass_positions_total", "Positions computed in them.", b->tokens);
  foray_prom_family(p, "foray:engine_seconds_total", "counter", "Time in passes of the target.");
  foray_prom_sample(p, "foray:engine_seconds_total", NULL, (double)b->engine_ns * 1e-9);
  foray_prom_family(p, "foray:sampler_seconds_total", "counter", "Time of choosing tokens from logits.");
  foray_prom_sample(p, "foray:sampler_seconds_total", NULL, (double)b->sample_ns * 1e-9);
  foray_prom_family(p, "foray:scheduler_seconds_total", "counter", "Time of the scheduler beside them.");
  foray_prom_sample(p, "foray:scheduler_seconds_total", NULL, (double)b->own_ns * 1e-9);
  foray_prom_hist(p, "foray:verify_batch_size", "Sessions in a pass (batch fill).", &b->fill);
  foray_prom_hist(p, "foray:verify_batch_rows", "Rows of logits in a pass.", &b->rows_hist);
  foray_prom_hist(p, "foray:verify_step_seconds", "Time of a pass.", &b->verify);
  foray_prom_hist(p, "vllm:request_queue_time_seconds", "From a round's arrival to its pass.", &b->queue);
  speculation(b, p);
  pair(p, "foray:link_bytes_total", "counter", "Bytes on edge links.", "direction=\"up\"",
       (double)now->link.bytes_in, "direction=\"down\"", (double)now->link.bytes_out);
  foray_prom_counter(p, "foray:edge_connections_total", "Edge connections accepted.", now->link.conns);
  foray_prom_counter(p, "foray:edge_connections_refused_total", "Edge connections refused by a limit.",
                     now->link.refused);
  foray_prom_counter(p, "foray:tls_resumed_total", "TLS sessions resumed.", now->link.tls_resumed);
  foray_prom_gauge(p, "foray:edge_connections", "Edges connected.", now->link.open);
  pair(p, "foray:http_bytes_total", "counter", "Bytes of HTTP bodies and heads.", "direction=\"up\"",
       (double)now->http.bytes_in, "direction=\"down\"", (double)now->http.bytes_out);
  foray_prom_counter(p, "foray:http_requests_total", "HTTP requests.", now->http.requests);
  foray_prom_counter(p, "foray:http_refused_total", "HTTP connections and requests refused by a limit.",
                     now->http.refused);
  foray_prom_counter(p, "foray:http_aborted_total", "HTTP requests whose client left.", now->http.aborted);
}
