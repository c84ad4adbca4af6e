/* proto/frame.h - how messages lie in the byte stream.
 *
 * A frame is: type (1 byte), length of the payload (LEB128, 1..4 bytes, shortest form), payload (one
 * protobuf message of that type). A type's own limit is checked before a byte of its payload is kept.
 * Nothing here knows what a message means; edge_sm and cloud_sm do. Not thread-safe. */
#ifndef FORAY_PROTO_FRAME_H
#define FORAY_PROTO_FRAME_H

#include "core/buf.h"
#include "core/err.h"
#include "proto/params.h"

/* X(NAME, wire value, message type prefix in foray.pb-c.h, payload limit, 'E' sent by the edge,
 * 'C' by the cloud, 'B' by both) */
#define FORAY_FRAME_MAP(X)                                                                                   \
  X(HELLO, 1, hello, FORAY_PROTO_FRAME_SMALL_MAX, 'E')                                                       \
  X(OPEN, 2, open, FORAY_PROTO_FRAME_MAX, 'E')                                                               \
  X(RESUME, 3, resume, FORAY_PROTO_FRAME_SMALL_MAX, 'E')                                                     \
  X(DRAFT, 4, draft, FORAY_PROTO_FRAME_SMALL_MAX, 'E')                                                       \
  X(CANCEL, 5, cancel, FORAY_PROTO_FRAME_SMALL_MAX, 'E')                                                     \
  X(CLOSE, 6, close, FORAY_PROTO_FRAME_SMALL_MAX, 'E')                                                       \
  X(SCORE, 7, score, FORAY_PROTO_FRAME_MAX, 'E')                                                             \
  X(PROGRESS, 16, progress, FORAY_PROTO_FRAME_SMALL_MAX, 'C')                                                \
  X(WELCOME, 17, welcome, FORAY_PROTO_FRAME_SMALL_MAX, 'C')                                                  \
  X(OPENED, 18, opened, FORAY_PROTO_FRAME_SMALL_MAX, 'C')                                                    \
  X(VERDICT, 19, verdict, FORAY_PROTO_FRAME_SMALL_MAX, 'C')                                                  \
  X(STATE, 20, state, FORAY_PROTO_FRAME_MAX, 'C')                                                            \
  X(SCORED, 21, scored, FORAY_PROTO_FRAME_MAX, 'C')                                                          \
  X(ERROR, 22, error, FORAY_PROTO_FRAME_SMALL_MAX, 'C')                                                      \
  X(PING, 32, ping, FORAY_PROTO_FRAME_SMALL_MAX, 'B')                                                        \
  X(PONG, 33, pong, FORAY_PROTO_FRAME_SMALL_MAX, 'B')                                                        \
  X(GOODBYE, 34, goodbye, FORAY_PROTO_FRAME_SMALL_MAX, 'B')

enum foray_frame_type {
#define X(name, value, msg, limit, who) FORAY_FRAME_##name = value,
  FORAY_FRAME_MAP(X)
#undef X
};

enum { FORAY_FRAME_HEADER_MAX = 5 };

/* "DRAFT"; "?" for unknown types. */
const char *foray_frame_name(unsigned type);

/* Collects bytes into frames. Zero-initialise through foray_frame_reader_init. */
struct foray_frame_reader {
  struct foray_buf buf; /* unread bytes, at most one frame and what came with it */
  char from;            /* 'E' or 'C': which peer speaks; frames of the other direction are refused */
};

/* One frame; payload borrows the reader's memory until the next call on it. */
struct foray_frame {
  enum foray_frame_type type;
  const uint8_t *payload;
  size_t n;
};

void foray_frame_reader_init(struct foray_frame_reader *r, char from);
void foray_frame_reader_deinit(struct foray_frame_reader *r);
/* Forgets buffered bytes: a new stream begins. */
void foray_frame_reader_reset(struct foray_frame_reader *r);

/* Takes as many of the n bytes as belong to the current frame; *used says how many. *f->payload is non-NULL
 * (n may be 0) when a frame is complete. Call again with the rest. FORAY_E_PROTO (unknown type, wrong
 * direction, length not in shortest form), FORAY_E_LIMIT, FORAY_E_NOMEM: the stream cannot go on. */
enum foray_status foray_frame_feed(struct foray_frame_reader *r, const uint8_t *p, size_t n, size_t *used,
                                   struct foray_frame *f, bool *complete,
                                   struct foray_err *err) FORAY_NODISCARD;

/* Appends a frame. FORAY_E_LIMIT when the payload is over the type's limit or out is full. */
enum foray_status foray_frame_write(struct foray_buf *out, enum foray_frame_type type, const uint8_t *payload,
                                    size_t n) FORAY_NODISCARD;

/* Payload <-> protobuf-c message (ProtobufCMessage *, of the type that FORAY_FRAME_MAP names). Decoding
 * allocates at most 8 bytes per payload byte and 64 KiB more, from memory that foray_msg_free returns. */
struct ProtobufCMessage;
struct foray_msg { /* a decoded message; release with foray_msg_free */
  struct ProtobufCMessage *m;
  void *memory;
};
enum foray_status foray_msg_write(struct foray_buf *out, enum foray_frame_type type,
                                  const struct ProtobufCMessage *m, struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_msg_read(const struct foray_frame *f, struct foray_msg *out,
                                 struct foray_err *err) FORAY_NODISCARD;
void foray_msg_free(struct foray_msg *m); /* a zeroed one is fine */

#endif
