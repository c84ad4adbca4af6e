/* foray/foray.h - everything that libforay offers.
 *
 *   #include <foray/foray.h>                        // or the one header that is needed
 *   cc app.c $(pkg-config --cflags --libs foray)
 *
 * foray/status.h    result codes and error text
 * foray/generate.h  text from an edge model that drafts and a cloud model that verifies
 * foray/version.h   version of headers and library */
#ifndef FORAY_FORAY_H
#define FORAY_FORAY_H

#include <foray/generate.h>
#include <foray/status.h>
#include <foray/version.h>

#endif
