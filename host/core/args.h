/* core/args.h - one option table drives parsing, environment twins, --help, shell completion and the option
 * section of a man page.
 *
 *   int threads = 0; bool json = false; const char *model = NULL;
 *   const struct foray_opt opts[] = {
 *     {"model", 'm', FORAY_OPT_STR, &model, "NAME|FILE", "model to use", 0, 0},
 *     {"threads", 't', FORAY_OPT_INT, &threads, "N", "threads (0: one per processor)", 0, 256},
 *     {"json", 0, FORAY_OPT_FLAG, &json, NULL, "print JSON", 0, 0},
 *     {0}};
 *   const struct foray_command cmd = {"foray tokenize", "[OPTIONS] < FILE", "Turn text into token ids.",
 * opts, NULL}; int rest; // index of the first argument that is no option switch (foray_args_parse(&cmd,
 * argc, argv, &rest, &err)) { case FORAY_ARGS_RUN: break; case FORAY_ARGS_DONE: return 0; case
 * FORAY_ARGS_ERROR: puts(err.msg); return 2; }
 *
 * The command line wins over the environment (FORAY_ARG_THREADS for --threads), the environment over the
 * value that the variable had. --help, --version, --completion-bash and --man are understood everywhere. */
#ifndef FORAY_CORE_ARGS_H
#define FORAY_CORE_ARGS_H

#include <foray/status.h>
#include <stdbool.h>
#include <stdint.h>

enum foray_opt_type {
  FORAY_OPT_FLAG,   /* bool: --x sets true, --no-x sets false */
  FORAY_OPT_INT,    /* int */
  FORAY_OPT_I64,    /* int64_t */
  FORAY_OPT_DOUBLE, /* double */
  FORAY_OPT_STR,    /* const char *, borrowed from argv or the environment */
  FORAY_OPT_LIST,   /* struct foray_strlist *, may be given many times */
};

enum { FORAY_STRLIST_MAX = 64 };
struct foray_strlist {
  const char *v[FORAY_STRLIST_MAX]; /* borrowed */
  int n;
};

struct foray_opt {
  const char *name; /* "n-predict|predict": the first is shown, all are accepted */
  char letter;      /* 0: none */
  enum foray_opt_type type;
  void *dest;
  const char *arg;  /* shown in help; NULL for flags */
  const char *help; /* NULL hides the option from help */
  double min, max;  /* range of numbers; both 0: none */
};

struct foray_command {
  const char *name;    /* "foray tokenize" */
  const char *usage;   /* what follows the name, e.g. "[OPTIONS] MODEL" */
  const char *summary; /* one sentence */
  const struct foray_opt *opts;
  const char *notes; /* further paragraphs for --help and the man page, or NULL */
};

enum foray_args_result { FORAY_ARGS_RUN, FORAY_ARGS_DONE, FORAY_ARGS_ERROR };

/* argv[0] is skipped. Options may stand between positional arguments; "--" ends them. argv is permuted so
 * that the positional ones stand from *rest on. Prints only for --help and its kin (FORAY_ARGS_DONE, stdout).
 */
enum foray_args_result foray_args_parse(const struct foray_command *cmd, int argc, char **argv, int *rest,
                                        struct foray_err *err) FORAY_NODISCARD;

/* Sets the option `name` from text, as a line of a settings file does; before foray_args_parse, which wins
 * over it. The text is copied and lives as long as the process. FORAY_E_ARG: unknown name or bad value. */
enum foray_status foray_args_set(const struct foray_command *cmd, const char *name, const char *value,
                                 struct foray_err *err) FORAY_NODISCARD;

#endif
