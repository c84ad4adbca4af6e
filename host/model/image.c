/* Reader of weight images: maps, checks every field, finds tensors, and gives rows back as floats. */
#include "model/image.h"

#include "core/checked.h"
#include "core/err.h"
#include "model/image_plan.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct foray_image_priv {
  const uint8_t *data;
  size_t size;
  bool mapped;
  char *path;
};

const uint8_t *foray_image_data(const struct foray_image *img) { return img->priv->data; }
const char *foray_image_path(const struct foray_image *img) { return img->priv->path; }

void foray_image_close(struct foray_image *img) {
  if (!img) return;
  if (img->priv) {
    if (img->priv->mapped) munmap((void *)(uintptr_t)img->priv->data, img->priv->size);
    free(img->priv->path);
    free(img->priv);
  }
  free(img->tensors);
  free((void *)(uintptr_t)img->meta);
  free(img);
}

#define BAD(...) foray_err_set(err, FORAY_E_FORMAT, __VA_ARGS__)

static enum foray_status check_vocab(const struct foray_image *img, const char *label,
                                     struct foray_err *err) {
  uint32_t n = img->config.n_trim, v = img->config.n_vocab;
  if (!n) return FORAY_OK;
  uint8_t *seen = calloc((size_t)v / 8 + 1, 1);
  if (!seen) return foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", label);
  enum foray_status st = FORAY_OK;
  for (uint32_t i = 0; i < n && st == FORAY_OK; i++) {
    uint32_t id = img->vocab[i];
    if (id >= v || (seen[id / 8] >> (id % 8) & 1)) {
      st = BAD("%s: vocabulary list: entry %u = %u is twice there or outside the vocabulary", label, i, id);
    } else {
      seen[id / 8] = (uint8_t)(seen[id / 8] | 1u << (id % 8));
    }
  }
  free(seen);
  return st;
}

/* Fills img from priv->data. */
static enum foray_status read_all(struct foray_image *img, const char *label, struct foray_err *err) {
  const uint8_t *data = img->priv->data;
  size_t size = img->priv->size;
  struct foray_image_header h;
  if (size < FORAY_IMAGE_PAGE) return BAD("%s: %zu bytes are too few for a weight image", label, size);
  enum foray_status st = foray_image_header_decode(data, label, &h, err);
  if (st != FORAY_OK) return st;
  if (h.file_bytes != size) {
    return BAD("%s: the header says %llu bytes, the file has %zu", label, (unsigned long long)h.file_bytes,
               size);
  }
  img->config = h.config;
  memcpy(img->sha256, h.body_sha256, sizeof img->sha256);
  if (h.flags & ~1u || (h.flags && h.config.tied)) return BAD("%s: unknown flags %#x", label, h.flags);
  /* sizes are bounded by the configuration's limits, so this memory is what the file's own shape needs */
  struct foray_image_tensor *t =
      calloc((size_t)h.config.n_layer * 9 + 3 * FORAY_IMAGE_EXITS_MAX + 8, sizeof *t);
  if (!t) return foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", label);
  img->tensors = t;
  img->n_tensors = foray_image_plan_list(&h.config, h.flags & 1u, t);
  if (h.n_tensors != img->n_tensors) {
    return BAD("%s: %u tensors, the configuration implies %u", label, h.n_tensors, img->n_tensors);
  }
  /* directory, metadata, vocabulary list follow each other from the first page on, each on a beat */
  uint64_t at = FORAY_IMAGE_PAGE, dir_bytes = (uint64_t)h.n_tensors * FORAY_IMAGE_ENTRY_BYTES;
  if (h.dir_off != at || dir_bytes > size - at) return BAD("%s: directory lies outside the file", label);
  at += dir_bytes;
  if (h.meta_off != at || h.meta_bytes > FORAY_IMAGE_META_MAX || h.meta_bytes > size - at) {
    return BAD("%s: metadata lie outside the file", label);
  }
  if (!foray_align_up_u64(at + h.meta_bytes, FORAY_IMAGE_BEAT, &at) || h.vocab_off != at ||
      h.vocab_bytes != (uint64_t)h.config.n_trim * 4 || at > size || h.vocab_bytes > size - at) {
    return BAD("%s: vocabulary list lies outside the file or has another length", label);
  }
  for (uint32_t i = 0; i < h.n_tensors; i++) {
    const char *why = foray_image_entry_decode(data + h.dir_off + (size_t)i * FORAY_IMAGE_ENTRY_BYTES, &t[i]);
    if (why) return BAD("%s: tensor %u (%s): %s", label, i, foray_image_role_name(t[i].role), why);
  }
  if (!foray_image_plan_place(img, at + h.vocab_bytes) || img->file_bytes != size) {
    return BAD("%s: the tensors need %llu bytes, the file has %zu", label,
               (unsigned long long)img->file_bytes, size);
  }
  for (uint32_t i = 0; i < h.n_tensors; i++) {
    const char *why = foray_image_entry_placed(data + h.dir_off + (size_t)i * FORAY_IMAGE_ENTRY_BYTES, &t[i]);
    if (why) return BAD("%s: tensor %u (%s): wrong %s", label, i, t[i].name, why);
  }
  if (h.stream_off != img->stream_off || h.stream_bytes != img->stream_bytes || h.rest_off != img->rest_off ||
      h.rest_bytes != img->rest_bytes) {
    return BAD("%s: sections are not where the tensors are", label);
  }
  char *meta = malloc((size_t)h.meta_bytes + 1);
  if (!meta) return foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", label);
  memcpy(meta, data + h.meta_off, (size_t)h.meta_bytes);
  meta[h.meta_bytes] = 0;
  img->meta = meta;
  if (memchr(meta, 0, (size_t)h.meta_bytes)) return BAD("%s: zero byte in the metadata", label);
  img->vocab = (const uint32_t *)(const void *)(data + h.vocab_off); /* 64-byte aligned */
  return check_vocab(img, label, err);
}

static enum foray_status open_bytes(const void *data, size_t size, bool mapped, const char *label,
                                    struct foray_image **out, struct foray_err *err) {
  struct foray_image *img = calloc(1, sizeof *img);
  struct foray_image_priv *priv = calloc(1, sizeof *priv);
  char *path = strdup(label);
  if (!img || !priv || !path) {
    free(img);
    free(priv);
    free(path);
    if (mapped) munmap((void *)(uintptr_t)data, size);
    return foray_err_set(err, FORAY_E_NOMEM, "%s: out of memory", label);
  }
  *priv = (struct foray_image_priv){.data = data, .size = size, .mapped = mapped, .path = path};
  img->priv = priv;
  enum foray_status st = read_all(img, label, err);
  if (st != FORAY_OK) {
    foray_image_close(img);
    return st;
  }
  *out = img;
  return FORAY_OK;
}

enum foray_status foray_image_open_memory(const void *data, size_t size, const char *label,
                                          struct foray_image **out, struct foray_err *err) {
  if ((uintptr_t)data % FORAY_IMAGE_BEAT) {
    return foray_err_set(err, FORAY_E_ARG, "%s: an image in memory must lie on 64 bytes", label);
  }
  return open_bytes(data, size, false, label, out, err);
}

enum foray_status foray_image_open(const char *path, struct foray_image **out, struct foray_err *err) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(errno));
  struct stat sb;
  if (fstat(fd, &sb) < 0 || !S_ISREG(sb.st_mode)) {
    close(fd);
    return foray_err_set(err, FORAY_E_IO, "%s: not a regular file", path);
  }
  if (sb.st_size < FORAY_IMAGE_PAGE) {
    close(fd);
    return foray_err_set(err, FORAY_E_FORMAT, "%s: %lld bytes are too few for a weight image", path,
                         (long long)sb.st_size);
  }
  void *map = mmap(NULL, (size_t)sb.st_size, PROT_READ, MAP_SHARED, fd, 0);
  int e = errno;
  close(fd);
  if (map == MAP_FAILED) return foray_err_set(err, FORAY_E_IO, "%s: mmap: %s", path, strerror(e));
  return open_bytes(map, (size_t)sb.st_size, true, path, out, err);
}

const struct foray_image_tensor *foray_image_find(const struct foray_image *img, enum foray_image_role role,
                                                  uint32_t index) {
  if (role == FORAY_IMAGE_HEAD_FULL && img->config.tied) role = FORAY_IMAGE_TOKEN_EMBD;
  for (uint32_t i = 0; i < img->n_tensors; i++) {
    if (img->tensors[i].role == role && img->tensors[i].index == index) return &img->tensors[i];
  }
  return NULL;
}

/* ---- the inverse ---- */

static uint16_t row_mant(const uint8_t *base, const struct foray_image_tensor *t, uint32_t r) {
  uint16_t m;
  memcpy(&m, base + t->scale_off + (size_t)r * 2, 2);
  return m;
}
static const uint8_t *row_block(const uint8_t *base, const struct foray_image_tensor *t, uint32_t r) {
  return base + t->data_off + (size_t)(r / FORAY_IMAGE_ROWS) * t->block_bytes;
}

void foray_image_row_q8s(const struct foray_image *img, const struct foray_image_tensor *t, uint32_t r,
                         int8_t *codes, uint8_t *sc, uint16_t *mant) {
  const uint8_t *base = img->priv->data, *block = row_block(base, t, r);
  uint32_t lane = r % FORAY_IMAGE_ROWS;
  *mant = row_mant(base, t, r);
  for (uint32_t g = 0; g < t->groups; g++) {
    const uint8_t *beats = block + foray_image_beats_at(FORAY_IMAGE_Q8S, g);
    sc[g] = block[foray_image_codes_at(FORAY_IMAGE_Q8S, g) + lane];
    for (uint32_t j = 0; j < 8; j++) memcpy(codes + g * 32 + j * 4, beats + j * 64 + lane * 4, 4);
  }
}

void foray_image_row(const struct foray_image *img, const struct foray_image_tensor *t, uint32_t r,
                     float *dst) {
  const uint8_t *base = img->priv->data;
  if (t->type == FORAY_IMAGE_V32) {
    for (uint32_t i = 0; i < t->cols; i++) {
      int32_t m;
      memcpy(&m, base + t->data_off + (size_t)i * 4, 4);
      dst[i] = (float)ldexp((double)m, t->exp);
    }
    return;
  }
  const uint8_t *block = row_block(base, t, r);
  uint32_t lane = r % FORAY_IMAGE_ROWS;
  double mant = ldexp((double)row_mant(base, t, r), t->exp);
  for (uint32_t g = 0; g < t->groups; g++) {
    const uint8_t *codes = block + foray_image_codes_at(t->type, g);
    const uint8_t *beats = block + foray_image_beats_at(t->type, g);
    double s = mant * (double)codes[lane];
    int zp = t->type == FORAY_IMAGE_Q4A ? codes[16 + lane] : 0;
    for (uint32_t c = 0; c < FORAY_IMAGE_GROUP; c++) {
      int v;
      if (t->type == FORAY_IMAGE_Q4A) {
        uint8_t b = beats[c / 8 * 64 + lane * 4 + c % 4];
        v = 16 * (c % 8 < 4 ? b & 15 : b >> 4) - zp;
      } else {
        v = (int8_t)beats[c / 4 * 64 + lane * 4 + c % 4];
      }
      dst[g * FORAY_IMAGE_GROUP + c] = (float)(s * v);
    }
  }
}

void foray_image_bias(const struct foray_image *img, const struct foray_image_tensor *t, float *dst) {
  for (uint32_t i = 0; i < t->rows; i++) {
    int32_t m;
    memcpy(&m, img->priv->data + t->bias_off + (size_t)i * 4, 4);
    dst[i] = (float)ldexp((double)m, t->bias_exp);
  }
}

static bool block_sound(const struct foray_image_tensor *t, const uint8_t *block, uint32_t live) {
  for (uint32_t g = 0; g < t->groups; g++) {
    const uint8_t *codes = block + foray_image_codes_at(t->type, g);
    const uint8_t *beats = block + foray_image_beats_at(t->type, g);
    uint32_t n = t->type == FORAY_IMAGE_Q4A ? 256 : 512;
    for (uint32_t i = 0; i < n; i++) {
      if (t->type == FORAY_IMAGE_Q8S && beats[i] == 0x80) return false;
      if (i % 64 / 4 >= live && beats[i]) return false;
    }
    for (uint32_t r = live; r < FORAY_IMAGE_ROWS; r++) {
      if (codes[r] || (t->type == FORAY_IMAGE_Q4A && codes[16 + r])) return false;
    }
  }
  return true;
}

enum foray_status foray_image_verify(const struct foray_image *img, struct foray_err *err) {
  const uint8_t *data = img->priv->data;
  uint8_t digest[FORAY_SHA256_BYTES];
  foray_sha256_once(data + FORAY_IMAGE_PAGE, img->priv->size - FORAY_IMAGE_PAGE, digest);
  if (memcmp(digest, img->sha256, sizeof digest) != 0) {
    return foray_err_set(err, FORAY_E_MISMATCH, "%s: the body's SHA-256 does not match the header",
                         img->priv->path);
  }
  for (uint32_t i = 0; i < img->n_tensors; i++) {
    const struct foray_image_tensor *t = &img->tensors[i];
    for (uint32_t r = 0; t->type != FORAY_IMAGE_V32 && r < t->rows_pad; r += FORAY_IMAGE_ROWS) {
      uint32_t live = t->rows - r < FORAY_IMAGE_ROWS ? t->rows - r : FORAY_IMAGE_ROWS;
      if (!block_sound(t, row_block(data, t, r), live)) {
        return foray_err_set(err, FORAY_E_FORMAT,
                             "%s: %s: row block %u: code -128, or padding that is not zero", img->priv->path,
                             t->name, r / FORAY_IMAGE_ROWS);
      }
    }
  }
  return FORAY_OK;
}
