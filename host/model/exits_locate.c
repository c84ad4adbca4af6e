/* Finding the exits file that belongs to a base model: by the hash inside, never by the name. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/err.h"
#include "model/exits.h"
#include "model/gguf.h"

static int by_name(const struct dirent **a, const struct dirent **b) {
  return strcmp((*a)->d_name, (*b)->d_name);
}

/* True when the file at path is an exits file of this base; unreadable ones are passed over. */
static bool belongs(const char *path, const char *base) {
  struct foray_gguf *g;
  struct foray_gguf_str s;
  if (foray_gguf_open(path, &g, NULL)) return false;
  bool yes = !foray_gguf_get_str(g, "foray.exits.base", &s, NULL) && s.len == 64 && !memcmp(s.ptr, base, 64);
  foray_gguf_close(g);
  return yes;
}

static bool search(const char *dir, const char *base, char *path, size_t cap) {
  struct dirent **list;
  int n = dir && *dir ? scandir(dir, &list, NULL, by_name) : -1;
  bool found = false;
  for (int i = 0; i < n; i++) {
    size_t len = strlen(list[i]->d_name);
    if (!found && len > 11 && !strcmp(list[i]->d_name + len - 11, ".exits.gguf") &&
        (size_t)snprintf(path, cap, "%s/%s", dir, list[i]->d_name) < cap)
      found = belongs(path, base);
    free(list[i]);
  }
  if (n >= 0) free(list);
  return found;
}

enum foray_status foray_exits_locate(const char *base_sha256, const char *dir, char *path, size_t cap,
                                     struct foray_err *err) {
  char exe[FORAY_EXITS_PATH_MAX], trial[FORAY_EXITS_PATH_MAX + 64];
  const char *xdg = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
  if (strlen(base_sha256) != 64) return foray_err_set(err, FORAY_E_ARG, "a model's hash has 64 digits");
  if (search(dir, base_sha256, path, cap)) return FORAY_OK;
  if (search(getenv("FORAY_EXITS_DIR"), base_sha256, path, cap)) return FORAY_OK;
  ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
  if (n > 0) {
    exe[n] = 0;
    char *slash = strrchr(exe, '/');
    if (slash) *slash = 0;
    /* installed: bin/ beside share/; build tree: build/<config>/{bin,tests/...} below the sources */
    static const char *const FROM_EXE[] = {"../share/foray/exits", "../../../cloud/train/shipped",
                                           "../../../../cloud/train/shipped"};
    for (int i = 0; i < 3; i++) {
      snprintf(trial, sizeof trial, "%s/%s", exe, FROM_EXE[i]);
      if (search(trial, base_sha256, path, cap)) return FORAY_OK;
    }
  }
  if (xdg && *xdg)
    snprintf(trial, sizeof trial, "%.4000s/foray/exits", xdg);
  else
    snprintf(trial, sizeof trial, "%.4000s/.local/share/foray/exits", home ? home : "");
  if (search(trial, base_sha256, path, cap)) return FORAY_OK;
  return foray_err_set(err, FORAY_E_NOTFOUND,
                       "no exits file for model %.12s...: make one with foray-tune exits", base_sha256);
}
