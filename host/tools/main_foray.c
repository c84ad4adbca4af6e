/* foray: the edge side's command. It only dispatches; the commands are in cmd_*.c. */
#include "hosttools/commands.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static const struct {
  const char *name;
  int (*fn)(int, char **);
  const char *text;
} commands[] = {
#define X(name, fn, text) {#name, fn, text},
#include "hosttools/commands.def"
#undef X
};

enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void usage(FILE *f) {
  fprintf(f,
          "Foray %s: a small model drafts at the edge, a large one verifies in the cloud.\n\n"
          "Usage: foray COMMAND [OPTIONS]\n\nCommands:\n",
          FORAY_VERSION);
  for (int i = 0; i < N_COMMANDS; i++) fprintf(f, "  %-12s%s\n", commands[i].name, commands[i].text);
  fprintf(f, "\n`foray COMMAND --help` explains one. Models are named as in `foray models`, or by a path.\n"
             "Example: foray generate -m smollm2-135m-instruct -p 'Why is the sky blue?'\n");
}

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN); /* a closed pager or peer is an error of the write, not the end of the process */
  if (argc < 2) {
    usage(stderr);
    return 2;
  }
  if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || (!strcmp(argv[1], "help") && argc == 2)) {
    usage(stdout);
    return 0;
  }
  if (!strcmp(argv[1], "--version")) {
    printf("foray %s\n", FORAY_VERSION);
    return 0;
  }
  if (!strcmp(argv[1], "--list-commands")) {
    for (int i = 0; i < N_COMMANDS; i++) puts(commands[i].name);
    return 0;
  }
  if (!strcmp(argv[1], "help")) {
    argv[1] = argv[2];
    static char help[] = "--help";
    argv[2] = help;
  }
  for (int i = 0; i < N_COMMANDS; i++)
    if (!strcmp(argv[1], commands[i].name)) return commands[i].fn(argc - 1, argv + 1);
  fprintf(stderr, "foray: '%s' is not a command; `foray help` lists them\n", argv[1]);
  return 2;
}
