/* model/fetch.h - HTTP downloads for the catalogue: into memory, or into a file that a later call can
 * continue. Blocking; the progress callback may cancel. Not for others. */
#ifndef FORAY_MODEL_FETCH_H
#define FORAY_MODEL_FETCH_H

#include "core/buf.h"
#include <stdbool.h>

struct foray_fetch {
  int connect_s;                                       /* most seconds for a connection; 0: 20 */
  int tries;                                           /* attempts, with a pause that doubles between them */
  unsigned pause_ms;                                   /* before the second attempt */
  bool (*progress)(void *user, uint64_t bytes_so_far); /* false cancels; may be NULL */
  void *user;
};

/* FORAY_E_NET (the text has URL and reason), FORAY_E_NOTFOUND for 404 and 410 (never retried), FORAY_E_LIMIT
 * beyond the buffer's maximum, FORAY_E_CANCELLED, FORAY_E_NOMEM. */
enum foray_status foray_fetch_memory(const struct foray_fetch *f, const char *url, struct foray_buf *out,
                                     struct foray_err *err) FORAY_NODISCARD;
/* Appends to `path` what it still lacks (a Range request), at most bytes_max in all. When the server cannot
 * continue, the file is begun again. FORAY_E_IO besides the above. A partial file stays on failure. */
enum foray_status foray_fetch_file(const struct foray_fetch *f, const char *url, const char *path,
                                   uint64_t bytes_max, struct foray_err *err) FORAY_NODISCARD;
/* Resolves a link found on a page. out has room for cap bytes. */
enum foray_status foray_fetch_resolve(const char *page_url, const char *link, char *out,
                                      size_t cap) FORAY_NODISCARD;

#endif
