/* journal/journal.h - the commit log: sessions and their committed tokens in SQLite, so that a server that
 * was killed knows them when it comes back, and a board goes on with RESUME instead of sending everything
 * again.
 *
 *   foray_journal_open(path, &j, &err);
 *   foray_journal_each(j, fn, arg, &err);                 // what an earlier process left
 *   foray_journal_begin(j, id, ...); foray_journal_tokens(j, id, first, ids, n); foray_journal_end(j, id);
 *   foray_journal_flush(j, &err);                         // all of that in one transaction
 *
 * begin, tokens and end only queue; flush (or the writer thread of foray_journal_start) writes. The log may
 * lag behind what boards have seen: a board that knows more than the log sends its session anew, so nothing
 * depends on a write having ended. What it must never do is to invent: after a kill at any write each session
 * holds a prefix of its tokens, at least up to the last flush that returned.
 *
 * The file holds prompts and texts as token ids and is readable by its owner only; secrets are kept as
 * SHA-256. A full or broken disk ends the log, not the service (foray_journal_failed). One process at a time
 * owns a file. Queueing is safe from any thread; flush and each are not for two threads at once. */
#ifndef FORAY_JOURNAL_JOURNAL_H
#define FORAY_JOURNAL_JOURNAL_H

#include "core/hash.h"
#include "proto/params.h"

struct foray_journal; /* opaque */

enum {
  FORAY_JOURNAL_PENDING_MAX = 64 << 20
}; /* bytes queued; more (a disk that stands still) ends the log */

struct foray_journal_session {
  uint64_t id, tenant;
  uint8_t secret_sha256[FORAY_SHA256_BYTES];
  double weight;
  uint32_t priority;
  struct foray_gen_request *request; /* each: owned by the journal for the call; begin: borrowed */
  uint32_t *ids, n_ids;              /* generated tokens */
};

/* FORAY_E_BUSY: another process has it; FORAY_E_FORMAT: no journal, or damaged beyond SQLite's own recovery.
 */
enum foray_status foray_journal_open(const char *path, struct foray_journal **out,
                                     struct foray_err *err) FORAY_NODISCARD;
/* Says whose tokens these are (the model's hash); what another model left is forgotten. Before each. */
enum foray_status foray_journal_identity(struct foray_journal *j, const uint8_t sha256[FORAY_SHA256_BYTES],
                                         struct foray_err *err) FORAY_NODISCARD;
void foray_journal_close(struct foray_journal *j); /* writes what waits; NULL is allowed */

void foray_journal_begin(struct foray_journal *j, const struct foray_journal_session *s);
void foray_journal_tokens(struct foray_journal *j, uint64_t id, uint32_t first, const int32_t *ids,
                          uint32_t n);
void foray_journal_end(struct foray_journal *j, uint64_t id);
enum foray_status foray_journal_flush(struct foray_journal *j, struct foray_err *err) FORAY_NODISCARD;
/* A thread that writes whenever something waits. */
enum foray_status foray_journal_start(struct foray_journal *j, struct foray_err *err) FORAY_NODISCARD;
bool foray_journal_failed(struct foray_journal *j, struct foray_err *why);

/* fn may call no journal function. Sessions whose tokens have a hole (which no kill can make) are dropped. */
enum foray_status foray_journal_each(struct foray_journal *j,
                                     void (*fn)(void *arg, struct foray_journal_session *s), void *arg,
                                     struct foray_err *err) FORAY_NODISCARD;

#endif
