/* tools/tune.h - the subcommands of foray-tune beside exits. */
#ifndef FORAY_TOOLS_TUNE_H
#define FORAY_TOOLS_TUNE_H

#include <signal.h>
#include <stdbool.h>

/* Runs the subcommand argv[0] if it is one of them: true, and *rc its exit status. */
bool foray_tune_command(int argc, char **argv, const volatile sig_atomic_t *stop, int *rc);
/* One line of usage each, on f. */
#include <stdio.h>
void foray_tune_usage(FILE *f);

#endif
