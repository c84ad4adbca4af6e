/* dev/plugin.h - device classes in shared objects, so that a program runs where OpenCL, XRT or a simulator is
 * not installed: a library that is missing is then one line of `foray devices`.
 *
 *   const struct foray_dev_plugin foray_dev_plugin = {FORAY_DEV_PLUGIN_VERSION, FORAY_ABI_HASH, &class_sim};
 *
 * in foray-dev-sim.so makes `--device sim` work. Plugins are looked for in $FORAY_DEVICE_PATH (folders,
 * separated by ':'; when set, nowhere else), else beside the program: ../devices and ../../devices (build
 * tree), ../lib/foray/devices (installed). A plugin links the archives it needs by itself: nothing is
 * resolved against the program. */
#ifndef FORAY_DEV_PLUGIN_H
#define FORAY_DEV_PLUGIN_H

#include "dev/device_impl.h"

enum { FORAY_DEV_PLUGIN_VERSION = 2 /* raised when foray_dev_class changes */ };

struct foray_dev_plugin {
  uint32_t version;
  uint64_t abi_hash;
  const struct foray_dev_class *cls; /* cls->name = the name in the file's name */
};

/* What a plugin exports under this very name. */
extern __attribute__((visibility("default"))) const struct foray_dev_plugin foray_dev_plugin;

/* Loads foray-dev-<name>.so. NULL when there is no such file (why is left empty) or when it cannot be used
 * (why says so). A plugin that was loaded stays for the life of the process. */
const struct foray_dev_class *foray_dev_plugin_load(const char *name, char *why, size_t cap);

/* Calls fn for the name of each plugin file, once, in the order of the folders. */
void foray_dev_plugin_scan(void (*fn)(void *arg, const char *name), void *arg);

#endif
