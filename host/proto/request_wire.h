/* proto/request_wire.h - a generation request as the wire's Open message and back: written once for the edge
 * that sends it, the cloud that takes it, and the journal that keeps it. Thread rule: pure. */
#ifndef FORAY_PROTO_REQUEST_WIRE_H
#define FORAY_PROTO_REQUEST_WIRE_H

#include "proto/params.h"

#include "foray.pb-c.h"

#include <protobuf-c/protobuf-c.h>

/* Room that both directions borrow; must live as long as the result. */
struct foray_request_wire {
  Foray__Wire__Sampling sampling;
  ProtobufCBinaryData stops[FORAY_PROTO_STOPS_MAX];
  const char *stop[FORAY_PROTO_STOPS_MAX];
  uint32_t stop_len[FORAY_PROTO_STOPS_MAX];
};

/* Fills *m with all of r (checked before) but session and generated tokens. m borrows from r and w. */
void foray_request_to_wire(const struct foray_gen_request *r, struct foray_request_wire *w,
                           Foray__Wire__Open *m);

/* The request in m, not checked yet; without sampling in m all of it is 0. Stop strings beyond the limit are
 * counted but not listed, so that the check refuses them. Borrows from m and w. */
struct foray_gen_request foray_request_from_wire(const Foray__Wire__Open *m, struct foray_request_wire *w);

#endif
