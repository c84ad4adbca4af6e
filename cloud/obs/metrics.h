/* obs/metrics.h - what forayd tells Prometheus: vLLM's names where it has one for the thing, foray: for the
 * rest. docs/operations.md explains each. */
#ifndef FORAY_OBS_METRICS_H
#define FORAY_OBS_METRICS_H

#include "batch/batch.h"
#include "http/prom.h"
#include "http/server.h"
#include "link/server.h"

struct foray_obs_now {
  struct foray_batch_stats batch;
  struct foray_server_stats link;
  struct foray_http_server_stats http;
};
void foray_obs_metrics(const struct foray_obs_now *now, struct foray_prom *p);

#endif
