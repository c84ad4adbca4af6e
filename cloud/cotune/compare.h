/* cotune/compare.h - the same run with several algorithms and seeds, and one table of all of them. Each
 * finished run leaves its result in <work>/results, so an interrupted comparison goes on with the next one.
 */
#ifndef FORAY_COTUNE_COMPARE_H
#define FORAY_COTUNE_COMPARE_H

#include "cotune/fed.h"

/* Runs what has no result yet, then writes <work>/compare.md, .csv and .svg; the Markdown also goes to out.
 */
enum foray_status foray_compare(const struct foray_fed_config *c, struct foray_mm *gemm, FILE *out, FILE *log,
                                FILE *json, const volatile sig_atomic_t *stop,
                                struct foray_err *err) FORAY_NODISCARD;

/* Mean and half width of the 95 % confidence interval (Student's t; half width 0 for one value). */
void foray_mean_interval(const double *v, int n, double *mean, double *half);

#endif
