#include "core/args.h"

#include "core/err.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_MAX_BYTES = 64 };

/* Does `name` (n bytes) match one of the alternatives "a|b|c"? */
static bool name_is(const char *alternatives, const char *name, size_t n) {
  for (const char *p = alternatives; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL) {
    size_t len = strcspn(p, "|");
    if (len == n && memcmp(p, name, n) == 0) return true;
  }
  return false;
}

static int first_name(const struct foray_opt *o) { return (int)strcspn(o->name, "|"); }

static void env_name(const struct foray_opt *o, char out[NAME_MAX_BYTES]) {
  snprintf(out, NAME_MAX_BYTES, "FORAY_ARG_%.*s", first_name(o), o->name);
  for (char *c = out; *c; c++) *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
}

static enum foray_status number(const struct foray_opt *o, const char *from, const char *text, double *d,
                                int64_t *i, struct foray_err *err) {
  char *end;
  bool integer = o->type != FORAY_OPT_DOUBLE;
  errno = 0;
  if (integer) {
    *i = strtoll(text, &end, 0);
    *d = (double)*i;
  } else {
    *d = strtod(text, &end);
    *i = 0;
  }
  if (end == text || *end || errno || !isfinite(*d))
    return foray_err_set(err, FORAY_E_ARG, "%s: '%s' is not %s", from, text,
                         integer ? "a whole number" : "a number");
  double lo = o->min, hi = o->max;
  if (lo == 0 && hi == 0 && o->type == FORAY_OPT_INT) {
    lo = -2147483648.0;
    hi = 2147483647.0;
  }
  if ((lo != 0 || hi != 0) && (*d < lo || *d > hi))
    return foray_err_set(err, FORAY_E_ARG, "%s: %s is outside %.12g .. %.12g", from, text, lo, hi);
  return FORAY_OK;
}

static enum foray_status assign(const struct foray_opt *o, const char *from, const char *text,
                                struct foray_err *err) {
  double d = 0;
  int64_t i = 0;
  enum foray_status s;
  switch (o->type) {
  case FORAY_OPT_FLAG:
    if (!strcmp(text, "1") || !strcmp(text, "true") || !strcmp(text, "on"))
      *(bool *)o->dest = true;
    else if (!strcmp(text, "0") || !strcmp(text, "false") || !strcmp(text, "off"))
      *(bool *)o->dest = false;
    else
      return foray_err_set(err, FORAY_E_ARG, "%s: '%s' is neither on nor off", from, text);
    return FORAY_OK;
  case FORAY_OPT_STR: *(const char **)o->dest = text; return FORAY_OK;
  case FORAY_OPT_LIST: {
    struct foray_strlist *l = o->dest;
    if (l->n == FORAY_STRLIST_MAX)
      return foray_err_set(err, FORAY_E_LIMIT, "%s may be given at most %d times", from, FORAY_STRLIST_MAX);
    l->v[l->n++] = text;
    return FORAY_OK;
  }
  case FORAY_OPT_INT:
    if ((s = number(o, from, text, &d, &i, err))) return s;
    *(int *)o->dest = (int)i;
    return FORAY_OK;
  case FORAY_OPT_I64:
    if ((s = number(o, from, text, &d, &i, err))) return s;
    *(int64_t *)o->dest = i;
    return FORAY_OK;
  case FORAY_OPT_DOUBLE:
    if ((s = number(o, from, text, &d, &i, err))) return s;
    *(double *)o->dest = d;
    return FORAY_OK;
  }
  return FORAY_E_ARG;
}

static void print_wrapped(FILE *f, const char *text, int indent, int width) {
  int col = indent;
  while (*text) {
    size_t n = strcspn(text, " \n");
    if (col > indent && col + (int)n + 1 > width) {
      fprintf(f, "\n%*s", indent, "");
      col = indent;
    } else if (col > indent) {
      fputc(' ', f);
      col++;
    }
    fwrite(text, 1, n, f);
    col += (int)n;
    text += n;
    if (*text == '\n') {
      fprintf(f, "\n%*s", indent, "");
      col = indent;
    }
    if (*text) text++;
  }
  fputc('\n', f);
}

static void print_help(const struct foray_command *c, FILE *f) {
  fprintf(f, "%s\n\nUsage: %s %s\n\nOptions:\n", c->summary, c->name, c->usage);
  for (const struct foray_opt *o = c->opts; o->name; o++) {
    if (!o->help) continue;
    char left[96];
    snprintf(left, sizeof left, "  %c%c%s --%.*s%s%s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ',
             o->letter ? "," : " ", first_name(o), o->name, o->arg ? " " : "", o->arg ? o->arg : "");
    fprintf(f, "%-32s", left);
    if (strlen(left) >= 32) fprintf(f, "\n%32s", "");
    print_wrapped(f, o->help, 32, 110);
  }
  fprintf(f, "%-32sthis text\n%-32sversion\n", "  -h,  --help", "       --version");
  if (c->notes) fprintf(f, "\n%s\n", c->notes);
}

/* roff text of the whole page: `foray COMMAND --man > foray-COMMAND.1` at install time. */
static void print_man(const struct foray_command *c, FILE *f) {
  char page[NAME_MAX_BYTES];
  snprintf(page, sizeof page, "%s", c->name);
  for (char *p = page; *p; p++)
    if (*p == ' ') *p = '-';
  fprintf(f, ".TH %s 1 \"\" \"foray %s\" \"Foray\"\n.SH NAME\n%s \\- %s\n.SH SYNOPSIS\n.B %s\n%s\n", page,
          FORAY_VERSION, page, c->summary, c->name, c->usage);
  if (c->notes) fprintf(f, ".SH DESCRIPTION\n.nf\n%s\n.fi\n", c->notes);
  fprintf(f, ".SH OPTIONS\n");
  for (const struct foray_opt *o = c->opts; o->name; o++) {
    if (!o->help) continue;
    fprintf(f, ".TP\n");
    if (o->letter) fprintf(f, "\\fB\\-%c\\fR, ", o->letter);
    fprintf(f, "\\fB\\-\\-%.*s\\fR%s%s%s\n%s\n", first_name(o), o->name, o->arg ? " \\fI" : "",
            o->arg ? o->arg : "", o->arg ? "\\fR" : "", o->help);
  }
  fprintf(f, ".SH ENVIRONMENT\nEach long option has a twin FORAY_ARG_<NAME> (upper case, dashes as "
             "underscores); the "
             "command line wins.\n.SH EXIT STATUS\n0 on success, 1 on failure, 2 on wrong usage.\n");
}

static void print_completion(const struct foray_command *c, FILE *f) {
  for (const struct foray_opt *o = c->opts; o->name; o++)
    if (o->help) fprintf(f, "--%.*s\n", first_name(o), o->name);
  fprintf(f, "--help\n--version\n");
}

static const struct foray_opt *find_long(const struct foray_command *c, const char *name, size_t n) {
  for (const struct foray_opt *o = c->opts; o->name; o++)
    if (name_is(o->name, name, n)) return o;
  return NULL;
}

static const struct foray_opt *find_letter(const struct foray_command *c, char letter) {
  for (const struct foray_opt *o = c->opts; o->name; o++)
    if (o->letter == letter) return o;
  return NULL;
}

enum foray_status foray_args_set(const struct foray_command *c, const char *name, const char *value,
                                 struct foray_err *err) {
  const struct foray_opt *o = find_long(c, name, strlen(name));
  if (!o) return foray_err_set(err, FORAY_E_ARG, "there is no setting '%s'", name);
  const bool kept = o->type == FORAY_OPT_STR || o->type == FORAY_OPT_LIST; /* these borrow their text */
  char *copy = kept ? strdup(value) : NULL;
  if (kept && !copy) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  return assign(o, name, kept ? copy : value, err);
}

static enum foray_status from_environment(const struct foray_command *c, struct foray_err *err) {
  for (const struct foray_opt *o = c->opts; o->name; o++) {
    char name[NAME_MAX_BYTES];
    env_name(o, name);
    const char *v = getenv(name);
    if (!v) continue;
    enum foray_status s = assign(o, name, v, err);
    if (s) return s;
  }
  return FORAY_OK;
}

/* Handles one argument that starts with '-'; *used = how many arguments it took. */
static enum foray_status option(const struct foray_command *c, int argc, char **argv, int at, int *used,
                                struct foray_err *err) {
  const char *a = argv[at];
  char shown[NAME_MAX_BYTES];
  *used = 1;
  if (a[1] != '-') {
    const struct foray_opt *o = find_letter(c, a[1]);
    snprintf(shown, sizeof shown, "-%c", a[1]);
    if (!o) {
      /* llama.cpp's users type multi-letter options with one dash (-sys): accept a long name so. */
      size_t n = strlen(a + 1);
      o = find_long(c, a + 1, n);
      if (!o) return foray_err_set(err, FORAY_E_ARG, "unknown option '%s'; see %s --help", a, c->name);
      snprintf(shown, sizeof shown, "%.60s", a);
      if (o->type == FORAY_OPT_FLAG) return assign(o, shown, "1", err);
    } else if (o->type == FORAY_OPT_FLAG) {
      if (a[2]) return foray_err_set(err, FORAY_E_ARG, "unknown option '%s'; see %s --help", a, c->name);
      return assign(o, shown, "1", err);
    } else if (a[2]) {
      return assign(o, shown, a + 2, err);
    }
    if (at + 1 >= argc) return foray_err_set(err, FORAY_E_ARG, "%s needs a value (%s)", shown, o->arg);
    *used = 2;
    return assign(o, shown, argv[at + 1], err);
  }
  const char *name = a + 2, *eq = strchr(name, '=');
  size_t n = eq ? (size_t)(eq - name) : strlen(name);
  const struct foray_opt *o = find_long(c, name, n);
  snprintf(shown, sizeof shown, "--%.*s", n > 50 ? 50 : (int)n, name);
  if (!o && n > 3 && !strncmp(name, "no-", 3) && !eq) {
    o = find_long(c, name + 3, n - 3);
    if (o && o->type == FORAY_OPT_FLAG) return assign(o, shown, "0", err);
    o = NULL;
  }
  if (!o) return foray_err_set(err, FORAY_E_ARG, "unknown option '%s'; see %s --help", shown, c->name);
  if (o->type == FORAY_OPT_FLAG) return assign(o, shown, eq ? eq + 1 : "1", err);
  if (eq) return assign(o, shown, eq + 1, err);
  if (at + 1 >= argc) return foray_err_set(err, FORAY_E_ARG, "%s needs a value (%s)", shown, o->arg);
  *used = 2;
  return assign(o, shown, argv[at + 1], err);
}

enum foray_args_result foray_args_parse(const struct foray_command *cmd, int argc, char **argv, int *rest,
                                        struct foray_err *err) {
  if (from_environment(cmd, err)) return FORAY_ARGS_ERROR;
  /* Positional arguments move to the end in their order: options are swapped forward one by one. */
  int n_pos = 0, i = 1, end = argc;
  char **pos = calloc((size_t)argc + 1, sizeof *pos);
  if (!pos) {
    foray_err_set(err, FORAY_E_NOMEM, "out of memory");
    return FORAY_ARGS_ERROR;
  }
  int write = 1;
  enum foray_args_result result = FORAY_ARGS_RUN;
  while (i < end) {
    char *a = argv[i];
    if (!strcmp(a, "--")) {
      for (i++; i < end; i++) pos[n_pos++] = argv[i];
      break;
    }
    if (a[0] != '-' || !a[1]) {
      pos[n_pos++] = a;
      i++;
      continue;
    }
    void (*print)(const struct foray_command *, FILE *) = NULL;
    if (!strcmp(a, "--help") || !strcmp(a, "-h")) print = print_help;
    if (!strcmp(a, "--man")) print = print_man;
    if (!strcmp(a, "--completion-bash")) print = print_completion;
    if (!strcmp(a, "--version")) {
      printf("foray %s\n", FORAY_VERSION);
      result = FORAY_ARGS_DONE;
      break;
    }
    if (print) {
      print(cmd, stdout);
      result = FORAY_ARGS_DONE;
      break;
    }
    int used;
    if (option(cmd, argc, argv, i, &used, err)) {
      result = FORAY_ARGS_ERROR;
      break;
    }
    for (int k = 0; k < used; k++) argv[write++] = argv[i++];
  }
  if (result == FORAY_ARGS_RUN) {
    *rest = argc - n_pos;
    for (int k = 0; k < n_pos; k++) argv[*rest + k] = pos[k];
  }
  free(pos);
  return result;
}
