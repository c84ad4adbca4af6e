/* Reports as text: table, comparison, roofline. */
#include "prof/prof_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool cycles(const json_t *r) { return !strcmp(prof_str(r, "unit"), "cycles"); }
static double share(double part, double all) { return all > 0 ? 100 * part / all : 0; }
/* Bytes a ns are GB/s; bytes a cycle stay what they are. "fastest" leaves out what disturbed a call. */
static double fastest(const json_t *row) {
  double t = prof_num(row, "fastest");
  return t > 0 ? prof_num(row, "bytes") / t : 0;
}
static double rate(const json_t *row) {
  double t = prof_num(row, "time");
  return t > 0 ? prof_num(row, "bytes") / t : 0;
}

static void heading(FILE *f, const json_t *r, const char *what) {
  bool engines = json_object_size(json_object_get(r, "engines")) > 0;
  fprintf(f, "%-14s %7s %6s %10s %6s %9s %8s %8s", what, "CALLS", "COLS", cycles(r) ? "KCYCLES" : "MS",
          "SHARE", "MB", cycles(r) ? "B/CYCLE" : "GB/S", "FASTEST");
  if (prof_num(r, "roof") > 0) fprintf(f, " %6s", "ROOF");
  if (engines) fprintf(f, " %6s %7s %7s", "BUSY", "STARVED", "BLOCKED");
  fputc('\n', f);
}

static void line(FILE *f, const json_t *r, const json_t *o) {
  double t = prof_num(o, "time"), calls = prof_num(o, "calls"), roof = prof_num(r, "roof");
  fprintf(f, "%-14s %7.0f %6.2f %10.3f %5.1f%% %9.3f %8.2f %8.2f", prof_str(o, "name"), calls,
          calls > 0 ? prof_num(o, "columns") / calls : 0, t / (cycles(r) ? 1e3 : 1e6),
          share(t, prof_num(r, "time")), prof_num(o, "bytes") / 1e6, rate(o), fastest(o));
  if (roof > 0) fprintf(f, " %5.1f%%", share(rate(o), roof));
  if (json_object_get(o, "busy"))
    fprintf(f, " %5.1f%% %6.1f%% %6.1f%%", share(prof_num(o, "busy"), t), share(prof_num(o, "starved"), t),
            share(prof_num(o, "blocked"), t));
  fputc('\n', f);
}

static void rows(FILE *f, const json_t *r, const char *key, const char *what) {
  const json_t *list = json_object_get(r, key);
  heading(f, r, what);
  for (size_t i = 0; i < json_array_size(list); i++) line(f, r, json_array_get(list, i));
}

void foray_prof_table(FILE *f, const json_t *r) {
  double t = prof_num(r, "time"), drafted = prof_num(r, "drafted"), scale = cycles(r) ? 1e3 : 1e6;
  const char *unit = cycles(r) ? "kcycles" : "ms";
  fprintf(f, "%s on %s: %.0f drafted tokens in %.0f runs behind %.0f tokens of context\n",
          prof_str(r, "model"), prof_str(r, "device"), drafted, prof_num(r, "runs"),
          prof_num(r, "prompt_tokens"));
  fprintf(f, "%.3f %s in all, %.3f %s a token; %.1f%% outside the ops (control, residuals, ring)\n",
          t / scale, unit, drafted > 0 ? t / scale / drafted : 0, unit,
          share(t - prof_num(r, "time_in_ops"), t));
  fprintf(f, "%.3f MB moved, %.3f MB a token, %.2f %s", prof_num(r, "bytes") / 1e6,
          drafted > 0 ? prof_num(r, "bytes") / 1e6 / drafted : 0, rate(r),
          cycles(r) ? "bytes a cycle" : "GB/s");
  if (prof_num(r, "roof") > 0)
    fprintf(f, "; roof %.2f (%s): %.1f%% of it", prof_num(r, "roof"), prof_str(r, "roof_how"),
            share(rate(r), prof_num(r, "roof")));
  const json_t *exits = json_object_get(r, "exits"), *engines = json_object_get(r, "engines");
  fputs("\ntokens by exit:", f);
  for (size_t i = 0; i < json_array_size(exits); i++)
    fprintf(f, " %.0f: %.0f", prof_num(json_array_get(exits, i), "exit"),
            prof_num(json_array_get(exits, i), "tokens"));
  fputs("\n\n", f);
  if (json_array_size(json_object_get(r, "ops"))) {
    rows(f, r, "ops", "OP");
    fputc('\n', f);
    rows(f, r, "layers", "PART");
  } else
    fputs("this device does not tell of its ops: only its counters are known\n", f);
  if (!json_object_size(engines)) return;
  fprintf(f, "\n%-14s %7s %8s %8s %7s\n", "ENGINE", "BUSY", "STARVED", "BLOCKED", "IDLE");
  for (int i = 0; i < FORAY_ENGINE_COUNT; i++) {
    const json_t *e = json_object_get(engines, prof_engine_name(i));
    fprintf(f, "%-14s %6.1f%% %7.1f%% %7.1f%% %6.1f%%\n", prof_engine_name(i), share(prof_num(e, "busy"), t),
            share(prof_num(e, "starved"), t), share(prof_num(e, "blocked"), t),
            share(prof_num(e, "idle"), t));
  }
}

/* ---- two runs ---- */

struct pair {
  const char *name;
  double a, b, bytes_a, bytes_b; /* a token: fastest time, megabytes */
};

static int by_difference(const void *x, const void *y) {
  const struct pair *p = x, *q = y;
  double d = fabs(q->b - q->a) - fabs(p->b - p->a);
  return d > 0 ? 1 : d < 0 ? -1 : strcmp(p->name, q->name);
}

static const json_t *find(const json_t *r, const char *key, const char *name) {
  const json_t *list = json_object_get(r, key);
  for (size_t i = 0; i < json_array_size(list); i++)
    if (!strcmp(prof_str(json_array_get(list, i), "name"), name)) return json_array_get(list, i);
  return NULL;
}

static struct pair pair(const json_t *a, const json_t *b, const char *key, const char *name, double na,
                        double nb) {
  const json_t *x = find(a, key, name), *y = find(b, key, name);
  return (struct pair){name, prof_num(x, "fastest") / na / (cycles(a) ? 1e3 : 1e6),
                       prof_num(y, "fastest") / nb / (cycles(b) ? 1e3 : 1e6), prof_num(x, "bytes") / na / 1e6,
                       prof_num(y, "bytes") / nb / 1e6};
}

static void compare_rows(FILE *f, const json_t *a, const json_t *b, const char *key, const char *what) {
  enum { MAX = 512 };
  struct pair pairs[MAX];
  size_t n = 0;
  double na = fmax(prof_num(a, "drafted"), 1), nb = fmax(prof_num(b, "drafted"), 1);
  const json_t *la = json_object_get(a, key), *lb = json_object_get(b, key);
  for (size_t i = 0; i < json_array_size(la) && n < MAX; i++)
    pairs[n++] = pair(a, b, key, prof_str(json_array_get(la, i), "name"), na, nb);
  for (size_t i = 0; i < json_array_size(lb) && n < MAX; i++) {
    const char *name = prof_str(json_array_get(lb, i), "name");
    if (!find(a, key, name)) pairs[n++] = pair(a, b, key, name, na, nb);
  }
  qsort(pairs, n, sizeof *pairs, by_difference);
  fprintf(f, "%-14s %10s %10s %10s %7s %10s %10s\n", what, "A", "B", "B - A", "B / A", "MB A", "MB B");
  for (size_t i = 0; i < n; i++) {
    const struct pair *p = &pairs[i];
    fprintf(f, "%-14s %10.4f %10.4f %+10.4f ", p->name, p->a, p->b, p->b - p->a);
    if (p->a > 0)
      fprintf(f, "%7.2f", p->b / p->a);
    else
      fprintf(f, "%7s", "-");
    fprintf(f, " %10.3f %10.3f\n", p->bytes_a, p->bytes_b);
  }
}

void foray_prof_compare(FILE *f, const json_t *a, const char *a_name, const json_t *b, const char *b_name) {
  const json_t *r[2] = {a, b};
  const char *names[2] = {a_name, b_name};
  for (int i = 0; i < 2; i++) {
    double n = fmax(prof_num(r[i], "drafted"), 1);
    fprintf(f, "%c = %s: %s on %s, %.3f %s and %.3f MB a token, %.2f %s\n", 'A' + i, names[i],
            prof_str(r[i], "model"), prof_str(r[i], "device"),
            prof_num(r[i], "time") / n / (cycles(r[i]) ? 1e3 : 1e6), cycles(r[i]) ? "kcycles" : "ms",
            prof_num(r[i], "bytes") / 1e6 / n, rate(r[i]), cycles(r[i]) ? "bytes a cycle" : "GB/s");
  }
  if (cycles(a) != cycles(b))
    fputs("(one counts cycles and the other time: only shares can be compared)\n", f);
  fprintf(f,
          "%s a token if each call had been as fast as its descriptor's fastest, by falling difference:\n\n",
          cycles(a) ? "kcycles" : "ms");
  compare_rows(f, a, b, "ops", "OP");
  fputc('\n', f);
  compare_rows(f, a, b, "layers", "PART");
}

/* ---- roofline ---- */

/* Operations (two a multiplication) a byte, and a ns or cycle. */
static double intensity(const json_t *row) {
  double b = prof_num(row, "bytes");
  return b > 0 ? 2 * prof_num(row, "macs") / b : 0;
}
static double speed(const json_t *row) {
  double t = prof_num(row, "time");
  return t > 0 ? 2 * prof_num(row, "macs") / t : 0;
}

void foray_prof_roofline(FILE *f, const json_t *r) {
  enum { W = 64, H = 16 };
  char plot[H][W + 1];
  const json_t *ops = json_object_get(r, "ops");
  double roof = prof_num(r, "roof"), x0 = 1e300, x1 = 0, y0 = 1e300, y1 = 0, best = 0;
  for (size_t i = 0; i < json_array_size(ops); i++) {
    const json_t *o = json_array_get(ops, i);
    if (intensity(o) <= 0 || speed(o) <= 0) continue;
    x0 = fmin(x0, intensity(o)), x1 = fmax(x1, intensity(o));
    y0 = fmin(y0, speed(o)), y1 = fmax(y1, speed(o));
    best = fmax(best, speed(o));
  }
  if (x1 <= 0) return;
  x0 /= 2, x1 *= 2, y0 /= 2, y1 *= 2;
  if (roof > 0) y1 = fmax(y1, fmin(roof * x1, 4 * y1));
  memset(plot, ' ', sizeof plot);
  double lx = log(x1 / x0), ly = log(y1 / y0);
  for (int c = 0; c < W && roof > 0; c++) {
    double y = roof * x0 * exp(lx * c / (W - 1));
    int row = (int)lround((H - 1) * (1 - log(y / y0) / ly));
    if (row >= 0 && row < H) plot[row][c] = '.';
  }
  char letter = 'a';
  fprintf(f, "\nroofline: %s a %s against operations a byte; the dotted line is the memory's\n",
          cycles(r) ? "operations" : "giga-operations", cycles(r) ? "cycle" : "second");
  for (size_t i = 0; i < json_array_size(ops); i++) {
    const json_t *o = json_array_get(ops, i);
    if (intensity(o) <= 0 || speed(o) <= 0 || letter > 'z') continue;
    int c = (int)lround((W - 1) * log(intensity(o) / x0) / lx),
        row = (int)lround((H - 1) * (1 - log(speed(o) / y0) / ly));
    plot[row][c] = letter++;
  }
  for (int k = 0; k < H; k++) {
    plot[k][W] = 0;
    fprintf(f, "%9.3g |%s\n", y1 * exp(-ly * k / (H - 1)), plot[k]);
  }
  fprintf(f, "%9s +", "");
  for (int c = 0; c < W; c++) fputc('-', f);
  fprintf(f, "\n%10s%-32.3g%32.3g\n", "", x0, x1);
  letter = 'a';
  for (size_t i = 0; i < json_array_size(ops); i++) {
    const json_t *o = json_array_get(ops, i);
    if (intensity(o) <= 0 || speed(o) <= 0 || letter > 'z') continue;
    fprintf(f, "  %c %-12s %8.2f op/byte %9.2f %s", letter++, prof_str(o, "name"), intensity(o), speed(o),
            cycles(r) ? "op/cycle" : "Gop/s");
    if (roof > 0) fprintf(f, "  %5.1f%% of the memory's roof", share(rate(o), roof));
    fputc('\n', f);
  }
}
