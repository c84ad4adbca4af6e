#include "cotune/algos.h"

#include <string.h>

const struct foray_algo *const FORAY_ALGOS[] = {
    &foray_algo_standalone, &foray_algo_central, &foray_algo_fedavg,  &foray_algo_fedprox, &foray_algo_fedmkt,
    &foray_algo_fedcollm,   &foray_algo_offsite, &foray_algo_proxyfl, &foray_algo_coplm,   NULL};

const struct foray_algo *foray_algo_find(const char *name) {
  for (int i = 0; FORAY_ALGOS[i]; i++)
    if (!strcmp(FORAY_ALGOS[i]->name, name)) return FORAY_ALGOS[i];
  return NULL;
}
