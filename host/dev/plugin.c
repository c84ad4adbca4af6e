#include "dev/plugin.h"

#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_CAP = 4096, FOLDERS_MAX = 16, NAME_CAP = 32 };
static const char prefix[] = "foray-dev-", suffix[] = ".so";

/* The folders to search, each with a final '/'. Returns how many. */
static int folders(char out[FOLDERS_MAX][PATH_CAP]) {
  int n = 0;
  const char *env = getenv("FORAY_DEVICE_PATH");
  if (env) {
    while (*env && n < FOLDERS_MAX) {
      size_t len = strcspn(env, ":");
      if (len && len + 2 < PATH_CAP) snprintf(out[n++], PATH_CAP, "%.*s/", (int)len, env);
      env += len + (env[len] == ':');
    }
    return n;
  }
  char exe[PATH_CAP - 64];
  ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - 1);
  if (len <= 0) return 0;
  exe[len] = 0;
  char *slash = strrchr(exe, '/');
  if (!slash) return 0;
  *slash = 0;
  static const char *const beside[] = {"../devices/", "../../devices/", "../lib/foray/devices/"};
  for (size_t i = 0; i < sizeof beside / sizeof *beside; i++)
    snprintf(out[n++], PATH_CAP, "%s/%s", exe, beside[i]);
  return n;
}

static bool name_ok(const char *name) {
  size_t n = strlen(name);
  return n > 0 && n < NAME_CAP && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

static const struct foray_dev_class *use(const char *path, const char *name, char *why, size_t cap) {
  void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!so) {
    const char *text = dlerror();
    snprintf(why, cap, "%s", text ? text : "cannot be loaded");
    return NULL;
  }
  const struct foray_dev_plugin *p = dlsym(so, "foray_dev_plugin");
  if (!p)
    snprintf(why, cap, "%s is no device plugin (foray_dev_plugin is missing)", path);
  else if (p->version != FORAY_DEV_PLUGIN_VERSION || p->abi_hash != FORAY_ABI_HASH)
    snprintf(why, cap, "%s was built for another version of foray (ABI %016llx, here %016llx): rebuild it",
             path, (unsigned long long)p->abi_hash, (unsigned long long)FORAY_ABI_HASH);
  else if (!p->cls || strcmp(p->cls->name, name) != 0)
    snprintf(why, cap, "%s holds another device than its name says", path);
  else
    return p->cls;
  dlclose(so);
  return NULL;
}

const struct foray_dev_class *foray_dev_plugin_load(const char *name, char *why, size_t cap) {
  char dir[FOLDERS_MAX][PATH_CAP], path[PATH_CAP + 64];
  *why = 0;
  if (!name_ok(name)) return NULL;
  int n = folders(dir);
  for (int i = 0; i < n; i++) {
    snprintf(path, sizeof path, "%s%s%s%s", dir[i], prefix, name, suffix);
    if (access(path, R_OK) == 0) return use(path, name, why, cap);
  }
  return NULL;
}

static int compare(const void *a, const void *b) { return strcmp(a, b); }

void foray_dev_plugin_scan(void (*fn)(void *arg, const char *name), void *arg) {
  enum { FOUND_MAX = 64 };
  char dir[FOLDERS_MAX][PATH_CAP], found[FOUND_MAX][NAME_CAP];
  int n = folders(dir), n_found = 0;
  for (int i = 0; i < n; i++) {
    DIR *d = opendir(dir[i]);
    if (!d) continue;
    int begin = n_found;
    for (struct dirent *e; (e = readdir(d)) && n_found < FOUND_MAX;) {
      size_t len = strlen(e->d_name), fixed = sizeof prefix - 1 + sizeof suffix - 1;
      if (len <= fixed || len - fixed >= NAME_CAP || strncmp(e->d_name, prefix, sizeof prefix - 1) != 0 ||
          strcmp(e->d_name + len - (sizeof suffix - 1), suffix) != 0)
        continue;
      char name[NAME_CAP];
      snprintf(name, sizeof name, "%.*s", (int)(len - fixed), e->d_name + sizeof prefix - 1);
      bool seen = !name_ok(name);
      for (int k = 0; k < n_found && !seen; k++) seen = !strcmp(found[k], name);
      if (!seen) memcpy(found[n_found++], name, sizeof name);
    }
    closedir(d);
    qsort(found[begin], (size_t)(n_found - begin), NAME_CAP, compare);
  }
  for (int i = 0; i < n_found; i++) fn(arg, found[i]);
}
