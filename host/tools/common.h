/* tools/common.h - what the commands share: messages, colours, progress, Ctrl-C, reading input. */
#ifndef FORAY_TOOLS_COMMON_H
#define FORAY_TOOLS_COMMON_H

#include "core/buf.h"

#include <foray/status.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum {
  TOOL_EXIT_OK = 0,
  TOOL_EXIT_FAILURE = 1,
  TOOL_EXIT_USAGE = 2,
  TOOL_EXIT_INTERRUPTED = 130,
  TOOL_INPUT_BYTES_MAX = 256 << 20,
};

/* "foray COMMAND: text" on stderr; returns the exit status for the code (2 for FORAY_E_ARG). */
int tool_fail(const char *command, const struct foray_err *err);

/* Whole file, or standard input for "-" or NULL. out is initialised here; deinit it in any case. */
enum foray_status tool_read_input(const char *path, struct foray_buf *out,
                                  struct foray_err *err) FORAY_NODISCARD;

/* Ctrl-C once sets the flag that tool_interrupted() returns; a second one ends the process. */
void tool_interrupt_install(void);
bool tool_interrupted(void);
/* Called from the signal handler at the first Ctrl-C (fn NULL: none): ends a wait. */
void tool_interrupt_target(void (*fn)(void *arg), void *arg);
void tool_interrupt_reset(void); /* Ctrl-C has its usual meaning again, and none has happened */

/* mode: "auto" (a terminal that is not dumb, without NO_COLOR), "always", "never". */
enum foray_status tool_color_parse(const char *mode, FILE *stream, bool *on,
                                   struct foray_err *err) FORAY_NODISCARD;

/* One line of progress on stderr, redrawn at most ten times a second, only on a terminal; without one, a line
 * when a step begins and one when it ends. total 0: unknown. */
struct tool_progress {
  const char *what; /* borrowed */
  int64_t began_ns, drawn_ns;
  uint64_t first; /* value at the first call, so that a resumed download shows its own speed */
  bool tty, started, quiet, bytes;
};
void tool_progress_begin(struct tool_progress *p, const char *what, bool bytes, bool quiet);
void tool_progress_update(struct tool_progress *p, uint64_t done, uint64_t total);
void tool_progress_end(struct tool_progress *p, bool ok);

#endif
