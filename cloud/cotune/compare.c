#include "cotune/compare.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/err.h"

enum { COLUMNS = 10, SEEDS = 32, ROWS = 16 };
static const struct {
  const char *group, *key, *title;
  double scale;
} COLUMN[COLUMNS] = {{"mean", "rouge_l", "devices Rouge-L", 1},
                     {"mean", "rouge_l_stem", "Rouge-L stemmed", 1},
                     {"mean", "em", "EM", 1},
                     {"mean", "em_plain", "EM with articles", 1},
                     {"mean", "perplexity", "perplexity", 1},
                     {"cloud", "rouge_l", "cloud Rouge-L", 1},
                     {"cloud", "em", "cloud EM", 1},
                     {"cloud", "perplexity", "cloud perplexity", 1},
                     {NULL, "bytes_up", "MiB up", 1.0 / 1048576},
                     {NULL, "bytes_down", "MiB down", 1.0 / 1048576}};

struct row {
  const char *name;
  double v[COLUMNS][SEEDS], mean[COLUMNS], half[COLUMNS];
  int n;
};

void foray_mean_interval(const double *v, int n, double *mean, double *half) {
  static const double T[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                             2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
                             2.080,  2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};
  double s = 0, q = 0;
  for (int i = 0; i < n; i++) s += v[i];
  *mean = n ? s / n : 0;
  for (int i = 0; i < n; i++) q += (v[i] - *mean) * (v[i] - *mean);
  *half = n > 1 ? (n - 2 < 30 ? T[n - 2] : 1.96) * sqrt(q / (n - 1) / n) : 0;
}

static enum foray_status one(struct foray_fed_config *c, struct foray_mm *gemm, const char *path, FILE *log,
                             FILE *json, const volatile sig_atomic_t *stop, struct foray_err *err) {
  struct foray_fed *f = NULL;
  struct foray_fed_result r;
  char tmp[FORAY_PATH + 80];
  enum foray_status st = foray_fed_open(c, gemm, log, json, stop, &f, err);
  if (!st) st = foray_fed_run(f, &r, err);
  if (!st) {
    char *text = foray_fed_result_json(f, &r);
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    FILE *o = text ? fopen(tmp, "wb") : NULL;
    bool ok = o && fputs(text, o) >= 0;
    if (o) ok = fclose(o) == 0 && ok;
    if (!ok || rename(tmp, path)) st = foray_err_set(err, FORAY_E_IO, "%s: cannot be written", path);
    free(text);
  }
  foray_fed_close(f);
  return st;
}

static enum foray_status take(struct row *r, const char *path, struct foray_err *err) {
  json_error_t je;
  json_t *j = json_load_file(path, 0, &je);
  if (!j) return foray_err_set(err, FORAY_E_FORMAT, "%s: %s", path, je.text);
  for (int k = 0; k < COLUMNS; k++) {
    json_t *t = COLUMN[k].group ? json_object_get(j, COLUMN[k].group) : j;
    r->v[k][r->n] = COLUMN[k].scale * json_number_value(json_object_get(t, COLUMN[k].key));
  }
  r->n++;
  json_decref(j);
  return FORAY_OK;
}

static void markdown(FILE *f, const struct row *r, int n) {
  fprintf(f, "| algorithm | seeds |");
  for (int k = 0; k < COLUMNS; k++) fprintf(f, " %s |", COLUMN[k].title);
  fprintf(f, "\n|---|---|");
  for (int k = 0; k < COLUMNS; k++) fprintf(f, "---|");
  for (int i = 0; i < n; i++) {
    fprintf(f, "\n| %s | %d |", r[i].name, r[i].n);
    for (int k = 0; k < COLUMNS; k++)
      if (r[i].half[k] > 0)
        fprintf(f, " %.3f ± %.3f |", r[i].mean[k], r[i].half[k]);
      else
        fprintf(f, " %.3f |", r[i].mean[k]);
  }
  fprintf(f, "\n");
}

static void csv(FILE *f, const struct row *r, int n) {
  fprintf(f, "algorithm,seeds");
  for (int k = 0; k < COLUMNS; k++) fprintf(f, ",%s,%s 95%%", COLUMN[k].title, COLUMN[k].title);
  for (int i = 0; i < n; i++) {
    fprintf(f, "\n%s,%d", r[i].name, r[i].n);
    for (int k = 0; k < COLUMNS; k++) fprintf(f, ",%.6g,%.6g", r[i].mean[k], r[i].half[k]);
  }
  fprintf(f, "\n");
}

/* Bars of mean Rouge-L and EM of the devices, with whiskers. */
static void svg(FILE *f, const struct row *r, int n) {
  static const int column[2] = {0, 2};
  static const char *const colour[2] = {"#3b6ea5", "#d08c3c"};
  double top = 1;
  for (int i = 0; i < n; i++)
    for (int b = 0; b < 2; b++) top = fmax(top, r[i].mean[column[b]] + r[i].half[column[b]]);
  int width = 80 + 90 * n;
  fprintf(f,
          "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"320\" font-family=\"sans-serif\" "
          "font-size=\"12\">\n",
          width);
  fprintf(f, "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n");
  for (int g = 0; g <= 4; g++)
    fprintf(f,
            "<line x1=\"50\" x2=\"%d\" y1=\"%d\" y2=\"%d\" stroke=\"#ddd\"/><text x=\"44\" y=\"%d\" "
            "text-anchor=\"end\">%.1f</text>\n",
            width - 10, 260 - 55 * g, 260 - 55 * g, 264 - 55 * g, top * g / 4);
  for (int i = 0; i < n; i++) {
    for (int b = 0; b < 2; b++) {
      double m = r[i].mean[column[b]], h = r[i].half[column[b]], x = 62 + 90.0 * i + 34 * b,
             y = 260 - 220 * m / top;
      fprintf(f, "<rect x=\"%.1f\" y=\"%.1f\" width=\"30\" height=\"%.1f\" fill=\"%s\"/>\n", x, y, 260 - y,
              colour[b]);
      if (h > 0)
        fprintf(f, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"black\"/>\n", x + 15,
                x + 15, 260 - 220 * (m + h) / top, 260 - 220 * fmax(m - h, 0) / top);
    }
    fprintf(f, "<text x=\"%d\" y=\"278\" text-anchor=\"middle\">%s</text>\n", 94 + 90 * i, r[i].name);
  }
  for (int b = 0; b < 2; b++)
    fprintf(f,
            "<rect x=\"%d\" y=\"296\" width=\"12\" height=\"12\" fill=\"%s\"/><text x=\"%d\" y=\"306\">%s of "
            "the devices, percent</text>\n",
            60 + 200 * b, colour[b], 76 + 200 * b, b ? "exact match" : "Rouge-L");
  fprintf(f, "</svg>\n");
}

static enum foray_status write_one(const char *work, const char *name,
                                   void (*put)(FILE *, const struct row *, int), const struct row *r, int n,
                                   struct foray_err *err) {
  char path[FORAY_PATH + 32];
  snprintf(path, sizeof path, "%s/%s", work, name);
  FILE *f = fopen(path, "wb");
  if (f) put(f, r, n);
  return !f || fclose(f) ? foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(errno)) : FORAY_OK;
}

enum foray_status foray_compare(const struct foray_fed_config *c, struct foray_mm *gemm, FILE *out, FILE *log,
                                FILE *json, const volatile sig_atomic_t *stop, struct foray_err *err) {
  struct row *r = calloc(ROWS, sizeof *r);
  char path[FORAY_PATH + 80];
  struct stat info;
  enum foray_status st = FORAY_OK;
  if (!r) return foray_err_set(err, FORAY_E_NOMEM, "comparison: out of memory");
  if (!c->n_algorithms || !c->n_seeds)
    st = foray_err_set(err, FORAY_E_ARG, "[compare] algorithms and seeds are needed");
  snprintf(path, sizeof path, "%s/results", c->work);
  if (!st && ((mkdir(c->work, 0777) && errno != EEXIST) || (mkdir(path, 0777) && errno != EEXIST)))
    st = foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(errno));
  /* seed by seed, so that an early look compares all algorithms */
  for (int s = 0; !st && s < c->n_seeds; s++)
    for (int a = 0; !st && a < c->n_algorithms; a++) {
      struct foray_fed_config mine;
      memcpy(&mine, c, sizeof mine);
      mine.seed = c->seeds[s];
      memset(mine.algorithm, 0, sizeof mine.algorithm);
      snprintf(mine.algorithm, sizeof mine.algorithm, "%s", c->algorithms[a]);
      snprintf(path, sizeof path, "%s/results/%s-%llu.json", c->work, mine.algorithm,
               (unsigned long long)mine.seed);
      if (stat(path, &info)) st = one(&mine, gemm, path, log, json, stop, err);
      r[a].name = c->algorithms[a];
      if (!st) st = take(&r[a], path, err);
    }
  for (int a = 0; !st && a < c->n_algorithms; a++)
    for (int k = 0; k < COLUMNS; k++) foray_mean_interval(r[a].v[k], r[a].n, &r[a].mean[k], &r[a].half[k]);
  if (!st) st = write_one(c->work, "compare.md", markdown, r, c->n_algorithms, err);
  if (!st) st = write_one(c->work, "compare.csv", csv, r, c->n_algorithms, err);
  if (!st) st = write_one(c->work, "compare.svg", svg, r, c->n_algorithms, err);
  if (!st && out) markdown(out, r, c->n_algorithms);
  free(r);
  return st;
}
