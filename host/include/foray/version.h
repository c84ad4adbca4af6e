/* foray/version.h - version of headers and library.
 *
 *   if (strcmp(foray_version(), FORAY_VERSION_TEXT)) ...  // headers and library are of different releases
 */
#ifndef FORAY_VERSION_H
#define FORAY_VERSION_H

#include <foray/status.h>

#define FORAY_VERSION_TEXT  "0.1.0"
#define FORAY_VERSION_MAJOR 0
#define FORAY_VERSION_MINOR 1
#define FORAY_VERSION_PATCH 0

#ifdef __cplusplus
extern "C" {
#endif
/* Of the library that is linked; static storage. */
FORAY_API const char *foray_version(void);
#ifdef __cplusplus
}
#endif
#endif
