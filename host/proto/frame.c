#include "proto/frame.h"

#include "foray.pb-c.h"

#include <protobuf-c/protobuf-c.h>
#include <stdlib.h>
#include <string.h>

static const struct frame_info {
  const char *name;
  size_t limit;
  char who;
  const ProtobufCMessageDescriptor *desc;
} * info_of(unsigned type) {
  static const struct frame_info table[] = {
#define X(name, value, msg, limit, who)                                                                      \
  [value] = {#name, (size_t)(limit), who, &foray__wire__##msg##__descriptor},
      FORAY_FRAME_MAP(X)
#undef X
  };
  if (type >= sizeof table / sizeof *table || !table[type].name) return NULL;
  return &table[type];
}

const char *foray_frame_name(unsigned type) {
  const struct frame_info *i = info_of(type);
  return i ? i->name : "?";
}

void foray_frame_reader_init(struct foray_frame_reader *r, char from) {
  foray_buf_init(&r->buf, (size_t)FORAY_PROTO_FRAME_MAX + FORAY_FRAME_HEADER_MAX);
  r->from = from;
}
void foray_frame_reader_deinit(struct foray_frame_reader *r) { foray_buf_deinit(&r->buf); }
void foray_frame_reader_reset(struct foray_frame_reader *r) { foray_buf_clear(&r->buf); }

/* Header of buf: 0 = not complete, else its size; bad input sets *st. */
static size_t header(const struct foray_frame_reader *r, size_t *payload, enum foray_status *st,
                     struct foray_err *err) {
  const uint8_t *b = r->buf.data;
  *st = FORAY_OK;
  if (r->buf.len == 0) return 0;
  const struct frame_info *i = info_of(b[0]);
  if (!i || (i->who != 'B' && i->who != r->from)) {
    *st = foray_err_set(err, FORAY_E_PROTO, "frame type %u (%s) is not one that the peer may send", b[0],
                        foray_frame_name(b[0]));
    return 0;
  }
  size_t len = 0;
  for (size_t k = 1; k < r->buf.len; k++) {
    len |= (size_t)(b[k] & 0x7f) << (7 * (k - 1));
    if (b[k] & 0x80) {
      if (k == FORAY_FRAME_HEADER_MAX - 1) {
        *st = foray_err_set(err, FORAY_E_PROTO, "%s frame: length of more than 4 bytes", i->name);
        return 0;
      }
      continue;
    }
    if (k > 1 && b[k] == 0) {
      *st = foray_err_set(err, FORAY_E_PROTO, "%s frame: length is not in its shortest form", i->name);
      return 0;
    }
    if (len > i->limit) {
      *st = foray_err_set(err, FORAY_E_LIMIT, "%s frame of %zu bytes, the limit is %zu", i->name, len,
                          i->limit);
      return 0;
    }
    *payload = len;
    return k + 1;
  }
  return 0;
}

enum foray_status foray_frame_feed(struct foray_frame_reader *r, const uint8_t *p, size_t n, size_t *used,
                                   struct foray_frame *f, bool *complete, struct foray_err *err) {
  *used = 0;
  *complete = false;
  if (n == 0) return FORAY_OK;
  for (;;) {
    size_t payload = 0;
    enum foray_status st;
    size_t h = header(r, &payload, &st, err);
    if (st != FORAY_OK) return st;
    size_t want = h ? h + payload - r->buf.len : 1; /* the header comes byte by byte */
    size_t take = want < n - *used ? want : n - *used;
    if (take) {
      st = foray_buf_add(&r->buf, p + *used, take);
      if (st != FORAY_OK) return foray_err_set(err, st, "frame buffer");
      *used += take;
    }
    if (h && r->buf.len == h + payload) {
      f->type = (enum foray_frame_type)r->buf.data[0];
      f->payload = r->buf.data + h;
      f->n = payload;
      *complete = true;
      /* The bytes stay where they are until the next call puts new ones over them. */
      foray_buf_clear(&r->buf);
      return FORAY_OK;
    }
    if (take == 0 || *used == n) {
      if (take) { /* the last byte may have completed a header, or a frame without payload */
        h = header(r, &payload, &st, err);
        if (st != FORAY_OK) return st;
        if (h && r->buf.len == h + payload) continue;
      }
      return FORAY_OK;
    }
  }
}

static size_t put_header(uint8_t out[FORAY_FRAME_HEADER_MAX], enum foray_frame_type type, size_t n) {
  size_t k = 0;
  out[k++] = (uint8_t)type;
  do {
    out[k++] = (uint8_t)((n & 0x7f) | (n > 0x7f ? 0x80 : 0));
    n >>= 7;
  } while (n);
  return k;
}

enum foray_status foray_frame_write(struct foray_buf *out, enum foray_frame_type type, const uint8_t *payload,
                                    size_t n) {
  const struct frame_info *i = info_of((unsigned)type);
  if (!i) return FORAY_E_ARG;
  if (n > i->limit) return FORAY_E_LIMIT;
  uint8_t h[FORAY_FRAME_HEADER_MAX];
  size_t k = put_header(h, type, n), before = out->len;
  enum foray_status st = foray_buf_add(out, h, k);
  if (st == FORAY_OK && n) st = foray_buf_add(out, payload, n);
  if (st != FORAY_OK) out->len = before;
  return st;
}

/* protobuf-c appends to a buffer of its own kind; this one passes the bytes on. */
struct sink {
  ProtobufCBuffer base;
  struct foray_buf *out;
  enum foray_status st;
};
static void sink_append(ProtobufCBuffer *b, size_t n, const uint8_t *p) {
  struct sink *s = (struct sink *)b;
  if (s->st == FORAY_OK && n) s->st = foray_buf_add(s->out, p, n);
}

enum foray_status foray_msg_write(struct foray_buf *out, enum foray_frame_type type,
                                  const struct ProtobufCMessage *m, struct foray_err *err) {
  const struct frame_info *i = info_of((unsigned)type);
  if (!i || m->descriptor != i->desc) return foray_err_set(err, FORAY_E_ARG, "message of another type");
  size_t n = protobuf_c_message_get_packed_size(m), before = out->len;
  if (n > i->limit)
    return foray_err_set(err, FORAY_E_LIMIT, "%s frame of %zu bytes, the limit is %zu", i->name, n, i->limit);
  uint8_t h[FORAY_FRAME_HEADER_MAX];
  size_t k = put_header(h, type, n);
  struct sink s = {{sink_append}, out, FORAY_OK};
  s.st = foray_buf_add(out, h, k);
  if (s.st == FORAY_OK) protobuf_c_message_pack_to_buffer(m, &s.base);
  if (s.st != FORAY_OK) {
    out->len = before;
    return foray_err_set(err, s.st, "%s frame: output of %zu bytes is full", i->name, out->max);
  }
  return FORAY_OK;
}

/* Allocations of one decoding: one arena with a bound, because a hostile payload can ask for many times its
 * size. Everything goes at once. */
struct arena {
  size_t used, cap;
  struct arena_chunk {
    struct arena_chunk *next;
    max_align_t data[];
  } * chunks;
};
static void *arena_alloc(void *data, size_t n) {
  struct arena *a = data;
  if (n > a->cap - a->used) return NULL;
  struct arena_chunk *c = malloc(sizeof *c + n);
  if (!c) return NULL;
  a->used += n;
  c->next = a->chunks;
  a->chunks = c;
  return c->data;
}
static void arena_nofree(void *data, void *p) {
  (void)data;
  (void)p;
}
static void arena_free(struct arena *a) {
  while (a->chunks) {
    struct arena_chunk *c = a->chunks;
    a->chunks = c->next;
    free(c);
  }
}

enum foray_status foray_msg_read(const struct foray_frame *f, struct foray_msg *out, struct foray_err *err) {
  *out = (struct foray_msg){0};
  const struct frame_info *i = info_of((unsigned)f->type);
  if (!i) return foray_err_set(err, FORAY_E_PROTO, "frame type %u", (unsigned)f->type);
  struct arena a = {.cap = 8 * f->n + 65536};
  ProtobufCAllocator al = {arena_alloc, arena_nofree, &a};
  ProtobufCMessage *m = protobuf_c_message_unpack(i->desc, &al, f->n, f->payload);
  if (!m) {
    arena_free(&a);
    return foray_err_set(err, FORAY_E_PROTO, "%s frame: %zu bytes that are not such a message", i->name,
                         f->n);
  }
  out->m = m;
  out->memory = a.chunks;
  return FORAY_OK;
}

void foray_msg_free(struct foray_msg *m) {
  struct arena a = {.chunks = m->memory};
  arena_free(&a);
  *m = (struct foray_msg){0};
}
