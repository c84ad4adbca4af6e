/* Which tensors an image has, where they lie, and the records of its header and directory. */
#include "model/image_plan.h"

#include "core/checked.h"
#include "core/err.h"
#include "model/config.h"
#include "model/exits.h"

#include <math.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "weight images are read in place: a little-endian host is needed"
#endif

bool foray_image_layout_of(enum foray_image_type type, uint32_t rows, uint32_t cols, bool has_bias,
                           struct foray_image_layout *out) {
  struct foray_image_layout l = {0};
  if (!rows || !cols || rows > UINT32_MAX - FORAY_IMAGE_ROWS) return false;
  if (type == FORAY_IMAGE_V32) {
    l.rows_pad = 1;
    if (rows != 1 || has_bias || !foray_align_up_u64((uint64_t)cols * 4, FORAY_IMAGE_BEAT, &l.bytes)) {
      return false;
    }
    *out = l;
    return true;
  }
  if (cols % FORAY_IMAGE_GROUP) return false;
  l.groups = cols / FORAY_IMAGE_GROUP;
  l.rows_pad = (rows + FORAY_IMAGE_ROWS - 1) / FORAY_IMAGE_ROWS * FORAY_IMAGE_ROWS;
  uint64_t block;
  switch (type) {
  case FORAY_IMAGE_Q4A: block = 64 * (((uint64_t)l.groups + 1) / 2) + 256 * (uint64_t)l.groups; break;
  case FORAY_IMAGE_Q8S: block = 64 * (((uint64_t)l.groups + 3) / 4) + 512 * (uint64_t)l.groups; break;
  default: return false;
  }
  if (block > UINT32_MAX) return false;
  l.block_bytes = (uint32_t)block;
  uint64_t at = ((uint64_t)l.rows_pad * 2 + FORAY_IMAGE_BEAT - 1) / FORAY_IMAGE_BEAT * FORAY_IMAGE_BEAT;
  if (has_bias) {
    l.bias_at = at;
    at += (uint64_t)l.rows_pad * 4; /* 16 rows are one beat */
  }
  l.data_at = at;
  uint64_t data;
  if (!foray_mul_u64(block, l.rows_pad / FORAY_IMAGE_ROWS, &data) || !foray_add_u64(at, data, &l.bytes)) {
    return false;
  }
  *out = l;
  return true;
}

static const char *const role_names[] = {
#define X(role, index, matrix) [FORAY_IMAGE_##role] = #role,
    FORAY_IMAGE_ROLES(X)
#undef X
};
static const bool role_matrix[] = {
#define X(role, index, matrix) [FORAY_IMAGE_##role] = matrix,
    FORAY_IMAGE_ROLES(X)
#undef X
};

const char *foray_image_role_name(enum foray_image_role role) {
  return (unsigned)role < FORAY_IMAGE_ROLE_COUNT ? role_names[role] : "?";
}
const char *foray_image_type_name(enum foray_image_type type) {
  switch (type) {
  case FORAY_IMAGE_Q4A: return "Q4A";
  case FORAY_IMAGE_Q8S: return "Q8S";
  case FORAY_IMAGE_V32: return "V32";
  }
  return "?";
}

#define LIMIT(field, lo, hi)                                                                                 \
  if ((int64_t)c->field < (int64_t)(lo) || (int64_t)c->field > (int64_t)(hi)) {                              \
    return foray_err_set(err, FORAY_E_FORMAT, "%s: image: " #field " = %u is outside %u..%u", label,         \
                         (unsigned)c->field, (unsigned)(lo), (unsigned)(hi));                                \
  }

enum foray_status foray_image_config_check(const struct foray_image_config *c, const char *label,
                                           struct foray_err *err) {
  LIMIT(arch, FORAY_ARCH_LLAMA, FORAY_ARCH_QWEN2);
  LIMIT(n_layer, 1, FORAY_LAYERS_MAX);
  LIMIT(n_embd, 32, FORAY_EMBD_MAX);
  LIMIT(n_ff, 32, FORAY_FF_MAX);
  LIMIT(n_head, 1, FORAY_HEADS_MAX);
  LIMIT(n_head_kv, 1, c->n_head);
  LIMIT(head_dim, 2, FORAY_HEAD_DIM_MAX);
  LIMIT(n_vocab, 1, FORAY_VOCAB_MAX);
  LIMIT(n_ctx_train, 1, FORAY_CTX_TRAIN_MAX);
  LIMIT(rope_base, 2, 1u << 30);
  LIMIT(tied, 0, 1);
  LIMIT(n_exits, 0, FORAY_IMAGE_EXITS_MAX);
  LIMIT(exit_prev, 0, c->n_exits != 0);
  LIMIT(exit_check, 0, FORAY_EXITS_CHECK_MAX);
  LIMIT(n_trim, 0, c->n_vocab);
  if (c->n_embd % 32 || c->n_ff % 32 || c->head_dim % 2 || (c->n_head * c->head_dim) % 32 ||
      c->n_head % c->n_head_kv) {
    return foray_err_set(err, FORAY_E_FORMAT, "%s: image: widths do not fit groups of 32 or heads", label);
  }
  if (c->eps_mant <= 0 || c->eps_mant > 1 << 24 || c->eps_exp < FORAY_IMAGE_EXP_MIN ||
      c->eps_exp > FORAY_IMAGE_EXP_MAX) {
    return foray_err_set(err, FORAY_E_FORMAT, "%s: image: bad epsilon", label);
  }
  if (c->n_exits && !c->n_trim) {
    return foray_err_set(err, FORAY_E_FORMAT, "%s: image: exits without a vocabulary list", label);
  }
  for (uint32_t e = 0; e < FORAY_IMAGE_EXITS_MAX; e++) {
    uint32_t l = c->exit_layer[e], r = c->exit_rows[e];
    float t = c->exit_threshold[e];
    uint32_t bits;
    memcpy(&bits, &t, 4);
    bool ok = e < c->n_exits ? l >= 1 && l < c->n_layer && (e == 0 || l > c->exit_layer[e - 1]) && r >= 1 &&
                                   r <= c->n_trim && t >= 0 && t <= 1
                             : l == 0 && r == 0 && bits == 0;
    if (!ok)
      return foray_err_set(err, FORAY_E_FORMAT, "%s: image: exit %u: bad layer, rows or threshold", label, e);
  }
  return FORAY_OK;
}

struct list {
  struct foray_image_tensor *t;
  uint32_t n;
};
static void put(struct list *l, enum foray_image_role role, uint32_t index, uint32_t rows, uint32_t cols,
                bool bias) {
  struct foray_image_tensor *t = &l->t[l->n++];
  *t = (struct foray_image_tensor){
      .role = role, .index = index, .rows = rows, .cols = cols, .has_bias = bias, .type = FORAY_IMAGE_V32};
}

uint32_t foray_image_plan_list(const struct foray_image_config *c, bool with_full_head,
                               struct foray_image_tensor *out) {
  struct list l = {out, 0};
  uint32_t e = 0, q = c->n_head * c->head_dim, kv = c->n_head_kv * c->head_dim, d = c->n_embd, f = c->n_ff;
  bool bias = c->arch == FORAY_ARCH_QWEN2;
  for (uint32_t i = 0; i < c->n_layer; i++) {
    put(&l, FORAY_IMAGE_ATTN_NORM, i, 1, d, false);
    put(&l, FORAY_IMAGE_ATTN_Q, i, q, d, bias);
    put(&l, FORAY_IMAGE_ATTN_K, i, kv, d, bias);
    put(&l, FORAY_IMAGE_ATTN_V, i, kv, d, bias);
    put(&l, FORAY_IMAGE_ATTN_OUTPUT, i, d, q, false);
    put(&l, FORAY_IMAGE_FFN_NORM, i, 1, d, false);
    put(&l, FORAY_IMAGE_FFN_GATE, i, f, d, false);
    put(&l, FORAY_IMAGE_FFN_UP, i, f, d, false);
    put(&l, FORAY_IMAGE_FFN_DOWN, i, d, f, false);
    if (e < c->n_exits && c->exit_layer[e] == i + 1) {
      put(&l, FORAY_IMAGE_EXIT_NORM, e, 1, d, false);
      put(&l, FORAY_IMAGE_EXIT_MAP, e, d, d, false);
      if (c->exit_prev) put(&l, FORAY_IMAGE_EXIT_PREV, e, d, d, false);
      e++;
    }
  }
  put(&l, FORAY_IMAGE_OUTPUT_NORM, 0, 1, d, false);
  if (c->n_trim) put(&l, FORAY_IMAGE_HEAD, 0, c->n_trim, d, false);
  put(&l, FORAY_IMAGE_TOKEN_EMBD, 0, c->n_vocab, d, false);
  if (!c->tied && with_full_head) put(&l, FORAY_IMAGE_HEAD_FULL, 0, c->n_vocab, d, false);
  return l.n;
}

static bool starts_segment(enum foray_image_role r) {
  return r == FORAY_IMAGE_ATTN_NORM || r == FORAY_IMAGE_EXIT_NORM || r == FORAY_IMAGE_OUTPUT_NORM ||
         r == FORAY_IMAGE_TOKEN_EMBD || r == FORAY_IMAGE_HEAD_FULL;
}

bool foray_image_plan_place(struct foray_image *img, uint64_t first) {
  uint64_t at;
  double block_bits = 0, block_weights = 0;
  if (!foray_align_up_u64(first, FORAY_IMAGE_PAGE, &at)) return false;
  img->stream_off = at;
  img->rest_off = 0;
  for (uint32_t i = 0; i < img->n_tensors; i++) {
    struct foray_image_tensor *t = &img->tensors[i];
    uint64_t before = at;
    if (starts_segment(t->role) && !foray_align_up_u64(at, FORAY_IMAGE_PAGE, &at)) return false;
    if (t->role == FORAY_IMAGE_TOKEN_EMBD) {
      img->stream_bytes = before - img->stream_off;
      img->rest_off = at;
    }
    struct foray_image_layout l;
    if (!foray_image_layout_of(t->type, t->rows, t->cols, t->has_bias, &l)) return false;
    t->rows_pad = l.rows_pad;
    t->groups = l.groups;
    t->block_bytes = l.block_bytes;
    t->bytes = l.bytes;
    t->off = at;
    t->scale_off = t->type == FORAY_IMAGE_V32 ? 0 : at;
    t->bias_off = t->has_bias ? at + l.bias_at : 0;
    t->data_off = at + l.data_at;
    if (!foray_add_u64(at, l.bytes, &at)) return false;
    if (t->role <= FORAY_IMAGE_FFN_DOWN) { /* page padding before the segment counts too */
      block_bits += 8.0 * (double)(at - before);
      if (role_matrix[t->role]) block_weights += (double)t->rows * (double)t->cols;
    }
  }
  img->rest_bytes = at - img->rest_off;
  img->file_bytes = at;
  img->bits_per_block_weight = block_weights > 0 ? block_bits / block_weights : 0;
  return img->rest_off != 0;
}

/* ---- records ---- */

struct cursor {
  uint8_t *p;
};
static void put_bytes(struct cursor *c, const void *v, size_t n) {
  memcpy(c->p, v, n);
  c->p += n;
}
static void put_u32(struct cursor *c, uint32_t v) { put_bytes(c, &v, 4); }
static void put_u64(struct cursor *c, uint64_t v) { put_bytes(c, &v, 8); }
static void get_bytes(const uint8_t **p, void *v, size_t n) {
  memcpy(v, *p, n);
  *p += n;
}
static uint32_t get_u32(const uint8_t **p) {
  uint32_t v;
  get_bytes(p, &v, 4);
  return v;
}
static uint64_t get_u64(const uint8_t **p) {
  uint64_t v;
  get_bytes(p, &v, 8);
  return v;
}

static const char magic[8] = {'F', 'O', 'R', 'A', 'Y', 'I', 'M', 'G'};
enum { HASH_AT = FORAY_IMAGE_PAGE - FORAY_SHA256_BYTES };

/* X(integer field of foray_image_config, in file order) */
#define CONFIG_FIELDS(X)                                                                                     \
  X(arch)                                                                                                    \
  X(n_layer)                                                                                                 \
  X(n_embd)                                                                                                  \
  X(n_ff)                                                                                                    \
  X(n_head)                                                                                                  \
  X(n_head_kv)                                                                                               \
  X(head_dim)                                                                                                \
  X(n_vocab)                                                                                                 \
  X(n_ctx_train)                                                                                             \
  X(rope_base)                                                                                               \
  X(tied)                                                                                                    \
  X(n_exits)                                                                                                 \
  X(n_trim)

void foray_image_header_encode(const struct foray_image_header *h, uint8_t *page) {
  const struct foray_image_config *g = &h->config;
  memset(page, 0, FORAY_IMAGE_PAGE);
  struct cursor c = {page};
  put_bytes(&c, magic, 8);
  put_u32(&c, FORAY_IMAGE_VERSION);
  put_u32(&c, FORAY_IMAGE_PAGE);
  put_u64(&c, h->file_bytes);
  put_u64(&c, h->dir_off);
  put_u32(&c, h->n_tensors);
  put_u32(&c, h->flags);
  put_u64(&c, h->meta_off);
  put_u64(&c, h->meta_bytes);
  put_u64(&c, h->vocab_off);
  put_u64(&c, h->vocab_bytes);
  put_u64(&c, h->stream_off);
  put_u64(&c, h->stream_bytes);
  put_u64(&c, h->rest_off);
  put_u64(&c, h->rest_bytes);
  put_bytes(&c, h->body_sha256, FORAY_SHA256_BYTES);
#define X(field) put_u32(&c, g->field);
  CONFIG_FIELDS(X)
#undef X
  put_u32(&c, (uint32_t)g->eps_mant);
  put_u32(&c, (uint32_t)g->eps_exp);
  for (int e = 0; e < FORAY_IMAGE_EXITS_MAX; e++) {
    put_u32(&c, g->exit_layer[e]);
    put_u32(&c, g->exit_rows[e]);
    put_bytes(&c, &g->exit_threshold[e], 4);
  }
  put_bytes(&c, g->source_sha256, FORAY_SHA256_BYTES);
  put_bytes(&c, g->tokenizer_sha256, FORAY_SHA256_BYTES);
  put_bytes(&c, g->exits_sha256, FORAY_SHA256_BYTES);
  put_u32(&c, g->exit_prev); /* these came later: zero in older images */
  put_u32(&c, g->exit_check);
  foray_sha256_once(page, HASH_AT, page + HASH_AT);
}

enum foray_status foray_image_header_decode(const uint8_t *page, const char *label,
                                            struct foray_image_header *h, struct foray_err *err) {
  uint8_t digest[FORAY_SHA256_BYTES];
  const uint8_t *p = page;
  struct foray_image_config *g = &h->config;
  memset(h, 0, sizeof *h);
  if (memcmp(p, magic, 8) != 0) {
    return foray_err_set(err, FORAY_E_FORMAT, "%s: offset 0: not a Foray weight image", label);
  }
  p += 8;
  uint32_t version = get_u32(&p);
  if (version != FORAY_IMAGE_VERSION) {
    return foray_err_set(err, FORAY_E_UNSUPPORTED, "%s: image version %u, this program reads %d: pack again",
                         label, version, FORAY_IMAGE_VERSION);
  }
  foray_sha256_once(page, HASH_AT, digest);
  if (memcmp(digest, page + HASH_AT, sizeof digest) != 0) {
    return foray_err_set(err, FORAY_E_FORMAT, "%s: the hash of the image's header does not match", label);
  }
  if (get_u32(&p) != FORAY_IMAGE_PAGE) {
    return foray_err_set(err, FORAY_E_FORMAT, "%s: offset 12: header size", label);
  }
  h->file_bytes = get_u64(&p);
  h->dir_off = get_u64(&p);
  h->n_tensors = get_u32(&p);
  h->flags = get_u32(&p);
  h->meta_off = get_u64(&p);
  h->meta_bytes = get_u64(&p);
  h->vocab_off = get_u64(&p);
  h->vocab_bytes = get_u64(&p);
  h->stream_off = get_u64(&p);
  h->stream_bytes = get_u64(&p);
  h->rest_off = get_u64(&p);
  h->rest_bytes = get_u64(&p);
  get_bytes(&p, h->body_sha256, FORAY_SHA256_BYTES);
#define X(field) g->field = get_u32(&p);
  CONFIG_FIELDS(X)
#undef X
  g->eps_mant = (int32_t)get_u32(&p);
  g->eps_exp = (int32_t)get_u32(&p);
  for (int e = 0; e < FORAY_IMAGE_EXITS_MAX; e++) {
    g->exit_layer[e] = get_u32(&p);
    g->exit_rows[e] = get_u32(&p);
    get_bytes(&p, &g->exit_threshold[e], 4);
  }
  get_bytes(&p, g->source_sha256, FORAY_SHA256_BYTES);
  get_bytes(&p, g->tokenizer_sha256, FORAY_SHA256_BYTES);
  get_bytes(&p, g->exits_sha256, FORAY_SHA256_BYTES);
  g->exit_prev = get_u32(&p);
  g->exit_check = get_u32(&p);
  for (; p < page + HASH_AT; p++) {
    if (*p) {
      return foray_err_set(err, FORAY_E_FORMAT, "%s: offset %d: reserved byte is not zero", label,
                           (int)(p - page));
    }
  }
  return foray_image_config_check(g, label, err);
}

void foray_image_entry_encode(const struct foray_image_tensor *t, uint8_t *entry) {
  memset(entry, 0, FORAY_IMAGE_ENTRY_BYTES);
  struct cursor c = {entry};
  put_bytes(&c, t->name, FORAY_IMAGE_NAME_MAX);
  put_u32(&c, (uint32_t)t->role);
  put_u32(&c, t->index);
  put_u32(&c, (uint32_t)t->type);
  put_u32(&c, t->has_bias);
  put_u32(&c, t->rows);
  put_u32(&c, t->cols);
  put_u32(&c, (uint32_t)t->exp);
  put_u32(&c, (uint32_t)t->bias_exp);
  put_u64(&c, t->off);
  put_u64(&c, t->bytes);
  put_bytes(&c, &t->cost, 4);
  put_bytes(&c, &t->rms_error, 4);
}

const char *foray_image_entry_decode(const uint8_t *entry, struct foray_image_tensor *t) {
  const uint8_t *p = entry;
  get_bytes(&p, t->name, FORAY_IMAGE_NAME_MAX);
  size_t len = strnlen(t->name, FORAY_IMAGE_NAME_MAX);
  if (len == 0 || len == FORAY_IMAGE_NAME_MAX) return "name is empty or too long";
  for (size_t i = 0; i < FORAY_IMAGE_NAME_MAX; i++) {
    if (i < len ? t->name[i] <= ' ' || t->name[i] > '~' : t->name[i] != 0) return "name is not plain text";
  }
  if (get_u32(&p) != (uint32_t)t->role || get_u32(&p) != t->index) return "not the tensor that comes here";
  uint32_t type = get_u32(&p), bias = get_u32(&p);
  if (type != FORAY_IMAGE_V32 && type != FORAY_IMAGE_Q4A && type != FORAY_IMAGE_Q8S) return "unknown type";
  if ((type == FORAY_IMAGE_V32) == role_matrix[t->role]) return "a type that this tensor cannot have";
  if ((t->role == FORAY_IMAGE_TOKEN_EMBD || t->role == FORAY_IMAGE_HEAD_FULL) && type != FORAY_IMAGE_Q8S) {
    return "a table of another type than Q8S";
  }
  t->type = (enum foray_image_type)type;
  if (bias != (uint32_t)t->has_bias) return "bias flag";
  if (get_u32(&p) != t->rows || get_u32(&p) != t->cols) return "shape is not what the configuration implies";
  t->exp = (int32_t)get_u32(&p);
  t->bias_exp = (int32_t)get_u32(&p);
  if (t->exp < FORAY_IMAGE_EXP_MIN || t->exp > FORAY_IMAGE_EXP_MAX || t->bias_exp < FORAY_IMAGE_EXP_MIN ||
      t->bias_exp > FORAY_IMAGE_EXP_MAX || (!t->has_bias && t->bias_exp)) {
    return "exponent";
  }
  p += 16;
  get_bytes(&p, &t->cost, 4);
  get_bytes(&p, &t->rms_error, 4);
  if (!(t->cost >= 0) || !isfinite(t->cost) || !(t->rms_error >= 0) || !isfinite(t->rms_error)) {
    return "cost is no number";
  }
  for (; p < entry + FORAY_IMAGE_ENTRY_BYTES; p++) {
    if (*p) return "reserved byte is not zero";
  }
  return NULL;
}

const char *foray_image_entry_placed(const uint8_t *entry, const struct foray_image_tensor *t) {
  const uint8_t *p = entry + FORAY_IMAGE_NAME_MAX + 32;
  if (get_u64(&p) != t->off) return "offset";
  if (get_u64(&p) != t->bytes) return "size";
  return NULL;
}
