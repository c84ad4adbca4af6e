/* journal/pack.h - a generation request as bytes: the wire's Open message. */
#ifndef FORAY_JOURNAL_PACK_H
#define FORAY_JOURNAL_PACK_H

#include "core/buf.h"
#include "proto/params.h"

enum foray_status foray_request_pack(const struct foray_gen_request *r,
                                     struct foray_buf *out) FORAY_NODISCARD;
/* Owned by the caller (free); NULL: not such bytes, or values that no request may have. */
struct foray_gen_request *foray_request_unpack(const void *p, size_t n);

#endif
