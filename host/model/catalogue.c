#include "model/catalogue.h"

#include "core/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define HUB(url)
#define PACKAGES(dist, version, member, first, last)
static const struct foray_catalogue_entry entries[] = {
#define MODEL(name, title, licence, bytes, sha) {name, title, licence, bytes, sha},
#include "model/catalogue.def"
#undef MODEL
};

size_t foray_catalogue_count(void) { return sizeof entries / sizeof *entries; }
const struct foray_catalogue_entry *foray_catalogue_at(size_t i) {
  return i < foray_catalogue_count() ? &entries[i] : NULL;
}
const struct foray_catalogue_entry *foray_catalogue_find(const char *name) {
  for (size_t i = 0; i < foray_catalogue_count(); i++)
    if (strcmp(entries[i].name, name) == 0) return &entries[i];
  return NULL;
}

enum foray_status foray_cache_dir(char *out, size_t cap, struct foray_err *err) {
  const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  int n;
  if (xdg && *xdg == '/') /* the specification says that relative values are to be ignored */
    n = snprintf(out, cap, "%s/foray/models", xdg);
  else if (home && *home)
    n = snprintf(out, cap, "%s/.cache/foray/models", home);
  else
    return foray_err_set(err, FORAY_E_STATE,
                         "neither XDG_CACHE_HOME nor HOME is set, so there is no place for models");
  if (n < 0 || (size_t)n >= cap)
    return foray_err_set(err, FORAY_E_LIMIT, "the path of the model cache is too long");
  return FORAY_OK;
}

enum foray_status foray_cache_path(const char *name, char *out, size_t cap, bool *present,
                                   struct foray_err *err) {
  enum foray_status s = foray_cache_dir(out, cap, err);
  if (s) return s;
  size_t at = strlen(out);
  int n = snprintf(out + at, cap - at, "/%s.gguf", name);
  if (n < 0 || (size_t)n >= cap - at)
    return foray_err_set(err, FORAY_E_LIMIT, "the path of model '%.80s' is too long", name);
  struct stat st;
  if (present) *present = stat(out, &st) == 0 && S_ISREG(st.st_mode);
  return FORAY_OK;
}
