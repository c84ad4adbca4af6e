/* tools/commands.h - each command is a main() of its own: returns the exit status (0, 1 failure, 2 usage). */
#ifndef FORAY_TOOLS_COMMANDS_H
#define FORAY_TOOLS_COMMANDS_H

#define X(name, fn, text) int fn(int argc, char **argv);
#include "hosttools/commands.def"
#undef X

#endif
