#include "hosttools/common.h"

#include "core/clock.h"
#include "core/err.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int tool_fail(const char *command, const struct foray_err *err) {
  fprintf(stderr, "%s: %s\n", command, err->msg[0] ? err->msg : foray_status_text(err->code));
  if (err->code == FORAY_E_CANCELLED) return TOOL_EXIT_INTERRUPTED;
  return err->code == FORAY_E_ARG ? TOOL_EXIT_USAGE : TOOL_EXIT_FAILURE;
}

enum foray_status tool_read_input(const char *path, struct foray_buf *out, struct foray_err *err) {
  bool standard = !path || !strcmp(path, "-");
  foray_buf_init(out, TOOL_INPUT_BYTES_MAX);
  FILE *f = standard ? stdin : fopen(path, "rb");
  if (!f) return foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(errno));
  enum foray_status s = FORAY_OK;
  char chunk[65536];
  size_t n;
  while (!s && (n = fread(chunk, 1, sizeof chunk, f)) > 0) s = foray_buf_add(out, chunk, n);
  if (!s && ferror(f)) s = FORAY_E_IO;
  if (!standard) fclose(f);
  if (!s && out->len == 0) s = foray_buf_add(out, "", 0);
  if (!s) return FORAY_OK;
  return foray_err_set(err, s, "%s: %s", standard ? "standard input" : path,
                       s == FORAY_E_LIMIT ? "more than 256 MiB" : foray_status_text(s));
}

static volatile sig_atomic_t interrupts;
static void (*volatile target_fn)(void *);
static void *volatile target_arg;

static void on_interrupt(int sig) {
  (void)sig;
  int n = interrupts + 1;
  interrupts = n;
  if (n > 1) _exit(TOOL_EXIT_INTERRUPTED);
  if (target_fn) target_fn(target_arg);
}

void tool_interrupt_install(void) {
  struct sigaction sa = {.sa_handler = on_interrupt};
  sigemptyset(&sa.sa_mask);
  sigaction(SIGINT, &sa, NULL);
  sigaction(SIGTERM, &sa, NULL);
}

void tool_interrupt_reset(void) {
  interrupts = 0;
  signal(SIGINT, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
}

void tool_interrupt_target(void (*fn)(void *), void *arg) {
  target_fn = NULL;
  target_arg = arg;
  target_fn = fn;
}

bool tool_interrupted(void) { return interrupts > 0; }

enum foray_status tool_color_parse(const char *mode, FILE *stream, bool *on, struct foray_err *err) {
  if (!strcmp(mode, "always") || !strcmp(mode, "never")) {
    *on = mode[0] == 'a';
    return FORAY_OK;
  }
  if (strcmp(mode, "auto"))
    return foray_err_set(err, FORAY_E_ARG, "--color '%s': use auto, always or never", mode);
  const char *term = getenv("TERM"), *no = getenv("NO_COLOR");
  *on = isatty(fileno(stream)) && term && strcmp(term, "dumb") && !(no && *no);
  return FORAY_OK;
}

void tool_progress_begin(struct tool_progress *p, const char *what, bool bytes, bool quiet) {
  *p = (struct tool_progress){.what = what,
                              .began_ns = foray_clock_ns(),
                              .tty = isatty(STDERR_FILENO),
                              .quiet = quiet,
                              .bytes = bytes};
  if (!p->tty && !quiet) fprintf(stderr, "%s ...\n", what);
}

static void draw(const struct tool_progress *p, uint64_t done, uint64_t total, int64_t now) {
  enum { WIDTH = 24 };
  double seconds = (double)(now - p->began_ns) * 1e-9,
         rate = seconds > 0.2 ? (double)(done - p->first) / seconds : 0;
  double share = total ? (double)done / (double)total : 0, unit = p->bytes ? 1e6 : 1;
  char bar[WIDTH + 1];
  for (int i = 0; i < WIDTH; i++) bar[i] = i < (int)(share * WIDTH) ? '#' : '.';
  bar[WIDTH] = 0;
  fprintf(stderr, "\r\033[K%s  ", p->what);
  if (total) fprintf(stderr, "[%s] %3d%%  ", bar, (int)(share * 100));
  if (p->bytes) fprintf(stderr, "%.1f MB", (double)done / unit);
  if (p->bytes && rate > 0) fprintf(stderr, ", %.1f MB/s", rate / unit);
  if (total && rate > 0 && done < total) fprintf(stderr, ", %.0f s left", (double)(total - done) / rate);
  fflush(stderr);
}

void tool_progress_update(struct tool_progress *p, uint64_t done, uint64_t total) {
  if (!p->started) p->first = done;
  p->started = true;
  if (!p->tty || p->quiet) return;
  int64_t now = foray_clock_ns();
  if (now - p->drawn_ns < 100 * 1000000 && done != total) return;
  p->drawn_ns = now;
  draw(p, done, total, now);
}

void tool_progress_end(struct tool_progress *p, bool ok) {
  if (p->quiet) return;
  double seconds = (double)(foray_clock_ns() - p->began_ns) * 1e-9;
  if (p->tty) fprintf(stderr, "\r\033[K");
  fprintf(stderr, "%s: %s after %.1f s\n", p->what, ok ? "done" : "stopped", seconds);
}
