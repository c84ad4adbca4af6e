/* tools/tune.h - the subcommands of foray-tune beside exits. */
#ifndef FORAY_TOOLS_TUNE_H
#define FORAY_TOOLS_TUNE_H

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>

/* Runs the subcommand argv[0] if it is one of them: true, and *rc its exit status. */
bool foray_tune_command(int argc, char **argv, const volatile sig_atomic_t *stop, int *rc);
/* One line of usage each, on f. */
void foray_tune_usage(FILE *f);
/* The part of it in tune_store.c: keygen, publish, versions, show. */
bool foray_tune_store_command(int argc, char **argv, int *rc);

#endif
