/* core/err.h - fill a struct foray_err. Thread rule: a foray_err belongs to one thread. */
#ifndef FORAY_CORE_ERR_H
#define FORAY_CORE_ERR_H

#include <foray/status.h>

/* Sets code and text and returns code, so that a failure is one line:
 *   return foray_err_set(err, FORAY_E_FORMAT, "%s: offset %zu: %s", path, off, why);
 * err may be NULL. Text beyond FORAY_ERR_MSG_MAX - 1 bytes is cut. */
enum foray_status foray_err_set(struct foray_err *err, enum foray_status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "<context>: " before the present text (a caller adds where it happened); returns err->code. */
enum foray_status foray_err_prefix(struct foray_err *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
