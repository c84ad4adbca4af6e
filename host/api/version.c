#include <foray/version.h>

const char *foray_version(void) { return FORAY_VERSION; }
