/* unit/tiny_program.h - the draft program of the self test, for unit tests of devices. */
#ifndef FORAY_UNIT_TINY_PROGRAM_H
#define FORAY_UNIT_TINY_PROGRAM_H

#include "dev/tiny_program.h"

#endif
