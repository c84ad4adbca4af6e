/* rt/edge_link.h - a session of the wire protocol (proto/edge_sm.h) as the struct foray_link that
 * foray_generate drives. What moves the bytes is a vtable: net's client in the programs, a pair of machines
 * in virtual time in tests.
 *
 *   struct foray_edge_link el;
 *   foray_edge_link_init(&el, &pump, session, n_prompt, plain);   // after the session was requested
 *   struct foray_link link = foray_edge_link_of(&el);
 *   foray_generate(..., &link, ...);
 *
 * A link that is lost and comes back is invisible here: a proposal whose answer was lost is made again,
 * tokens that came along with the resumption count as its answer. Thread rule: as the pump's. */
#ifndef FORAY_RT_EDGE_LINK_H
#define FORAY_RT_EDGE_LINK_H

#include "proto/edge_sm.h"
#include "rt/session.h"

struct foray_edge_pump {
  void *ctx;
  /* foray_client_wait: FORAY_OK with *ev, FORAY_E_TIMEOUT, or what ends the client. timeout_ms < 0: no limit.
   */
  enum foray_status (*wait)(void *ctx, int timeout_ms, struct foray_edge_event *ev, struct foray_err *err);
  enum foray_status (*draft)(void *ctx, uint32_t session, uint32_t start, const uint32_t *ids, uint32_t n,
                             uint32_t *round, struct foray_err *err);
  enum foray_status (*cancel)(void *ctx, uint32_t session, struct foray_err *err);
  struct foray_edge *(*edge)(void *ctx);
  void (*other)(void *ctx, const struct foray_edge_event *ev); /* events of no meaning here; may be NULL */
};

struct foray_edge_link {
  const struct foray_edge_pump *pump; /* borrowed */
  uint32_t session, n_prompt;
  bool plain; /* the session decodes in the cloud alone: tokens come without proposals */
  /* the proposal under way */
  bool open, sent;
  uint32_t at, n, alone;
  uint32_t ids[FORAY_GEN_BLOCK_MAX];
  /* tokens that came and were not handed on yet */
  uint32_t *got; /* owned */
  uint32_t n_got, cap_got, accepted;
  enum foray_finish finish;
  float verify_s;
  uint64_t up0, down0; /* traffic of the client before this session */
};

void foray_edge_link_init(struct foray_edge_link *el, const struct foray_edge_pump *pump, uint32_t session,
                          uint32_t n_prompt, bool plain);
void foray_edge_link_deinit(struct foray_edge_link *el);
struct foray_link foray_edge_link_of(struct foray_edge_link *el); /* borrows el */

#endif
