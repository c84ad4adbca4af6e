/* batch/hub.h - connections on one side, the scheduler on the other: events of cloud_sm become commands,
 * results become frames. Without I/O: the libevent server (cloud/link) and the virtual-time tests drive the
 * same code. One thread (the loop's); the scheduler may run in another. */
#ifndef FORAY_BATCH_HUB_H
#define FORAY_BATCH_HUB_H

#include "batch/batch.h"
#include "proto/cloud_sm.h"

struct foray_hub; /* opaque */

enum foray_status foray_hub_create(const struct foray_cloud_config *cfg, uint32_t conns_max,
                                   struct foray_hub **out, struct foray_err *err) FORAY_NODISCARD;
void foray_hub_destroy(struct foray_hub *h);

/* While the model loads, those who said hello see progress. */
void foray_hub_progress(struct foray_hub *h, const char *what, uint64_t done, uint64_t total);
/* From now on requests are served. batch and the strings of id are borrowed. */
void foray_hub_serve(struct foray_hub *h, struct foray_batch *batch, const struct foray_cloud_identity *id);

/* A new connection; 0: no room or no memory. */
uint64_t foray_hub_connect(struct foray_hub *h, int64_t now);
/* Who the other end is, before its first byte is fed: an address for the guard, and the name in its
 * certificate
 * ("" without one). */
void foray_hub_identify(struct foray_hub *h, uint64_t conn, uint64_t address, const char *peer);

/* What somebody who was let in may have. */
struct foray_hub_grant {
  uint64_t tenant;
  double weight;
  uint32_t priority;
};
struct foray_hub_auth {
  void *arg;
  /* Called at Hello. False: refused with FORAY_E_DENIED. */
  bool (*allow)(void *arg, uint64_t address, const char *peer, const char *token, struct foray_hub_grant *g);
};
void foray_hub_set_auth(struct foray_hub *h, const struct foray_hub_auth *a); /* without it all are let in */

/* Its sessions stay with the scheduler until they are resumed or expire. */
void foray_hub_disconnect(struct foray_hub *h, uint64_t conn);
/* Not OK: send what is in the output, then disconnect. */
enum foray_status foray_hub_feed(struct foray_hub *h, uint64_t conn, const uint8_t *p, size_t n, int64_t now,
                                 struct foray_err *err) FORAY_NODISCARD;
size_t foray_hub_output(struct foray_hub *h, uint64_t conn, const uint8_t **p);
void foray_hub_output_consumed(struct foray_hub *h, uint64_t conn, size_t n);
int64_t foray_hub_deadline(struct foray_hub *h, uint64_t conn);
enum foray_status foray_hub_tick(struct foray_hub *h, uint64_t conn, int64_t now,
                                 struct foray_err *err) FORAY_NODISCARD;
/* True once the connection shall end when its output is sent (goodbye, or it reads too slowly). */
bool foray_hub_ending(struct foray_hub *h, uint64_t conn);
/* Turns waiting results into output. */
void foray_hub_pump(struct foray_hub *h);
/* Results of commands whose `conn` has this bit: others than connections of the protocol use the scheduler
 * too. fn sees each; it must not keep pointers. */
#define FORAY_HUB_FOREIGN ((uint64_t)1 << 63)
void foray_hub_sink(struct foray_hub *h, void (*fn)(void *arg, const struct foray_batch_msg *m), void *arg);
/* The server leaves. */
void foray_hub_goodbye(struct foray_hub *h, const char *text);
/* The same for those that have no session open; returns how many have one. */
uint32_t foray_hub_goodbye_idle(struct foray_hub *h, const char *text);
/* The model cannot be loaded: everyone hears why, also those who come later. */
void foray_hub_fail(struct foray_hub *h, enum foray_status code, const char *text);
/* Open connections. */
uint32_t foray_hub_count(const struct foray_hub *h);

#endif
