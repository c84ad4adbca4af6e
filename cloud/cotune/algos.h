/* cotune/algos.h - the algorithms, one file each. To add one: write algo_<name>.c, name it here and in
 * algos.c. */
#ifndef FORAY_COTUNE_ALGOS_H
#define FORAY_COTUNE_ALGOS_H

#include "cotune/fed.h"

extern const struct foray_algo foray_algo_standalone, foray_algo_central, foray_algo_fedavg,
    foray_algo_fedprox, foray_algo_fedmkt, foray_algo_fedcollm, foray_algo_offsite, foray_algo_proxyfl,
    foray_algo_coplm;

#endif
