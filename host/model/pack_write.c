/* Writes the image file: sizes first, then every tensor in place through a mapping, then the hashes. */
#include "model/pack_job.h"

#include "core/checked.h"
#include "core/err.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Bounds that numerics.md relies on. Codes are in range by their types; what is left is the product of the
 * row mantissa with the largest sum that a row can reach, which must fit 63 bits after the accumulator's
 * shift: groups * 2^36 < 2^48 keeps M * acc below 2^64 / 1, so the number of groups is bounded. */
static enum foray_status check_bounds(const struct foray_image_tensor *t, struct foray_err *err) {
  if (t->type != FORAY_IMAGE_V32 && t->groups > 4096) {
    return foray_err_set(err, FORAY_E_UNSUPPORTED,
                         "%s: %u columns are more than a device's accumulators hold (4096 groups of 32)",
                         t->name, t->cols);
  }
  return FORAY_OK;
}

static enum foray_status write_vector(const struct foray_pack_job *j, struct foray_image_tensor *t,
                                      uint8_t *dst, struct foray_err *err) {
  float *v = malloc(t->cols * sizeof *v);
  int32_t *m = malloc(t->cols * sizeof *m);
  enum foray_status st =
      v && m ? foray_pack_row(j, t, 0, v, err) : foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  if (st == FORAY_OK) {
    foray_codes_v32(v, t->cols, m, &t->exp);
    memcpy(dst, m, t->cols * sizeof *m);
  }
  free(v);
  free(m);
  return st;
}

static enum foray_status write_matrix(struct foray_pack_job *j, uint32_t i, uint8_t *dst,
                                      struct foray_err *err) {
  struct foray_image_tensor *t = &j->img.tensors[i];
  int32_t *bias = NULL;
  enum foray_status st = FORAY_OK;
  struct foray_codes *c = j->codes[i];
  if (!c) st = foray_pack_round(j, t, &c, err);
  if (st == FORAY_OK && t->has_bias) {
    float *v = malloc(t->rows * sizeof *v);
    bias = malloc(t->rows * sizeof *bias);
    st = v && bias ? foray_pack_bias(j, t, v, err) : foray_err_set(err, FORAY_E_NOMEM, "out of memory");
    if (st == FORAY_OK) foray_codes_v32(v, t->rows, bias, &t->bias_exp);
    free(v);
  }
  if (st == FORAY_OK) {
    t->exp = c->exp;
    foray_codes_write(c, bias, dst);
  }
  foray_codes_close(c);
  j->codes[i] = NULL;
  free(bias);
  return st;
}

static char *meta_text(const struct foray_pack_job *j) {
  const struct foray_pack_opts *o = j->opts;
  json_t *root =
      json_pack("{s:s, s:i, s:s, s:b, s:i, s:f, s:s, s:s}", "program", "foray " FORAY_VERSION, "packer",
                FORAY_PACKER_VERSION, "model", j->m->name, "calibrated", j->calibrate, "calibration_tokens",
                j->calibrate ? (int)j->calib_tokens : 0, "bits_max", foray_pack_bits_max(o), "cost",
                j->measured_kl >= 0 ? "KL (nats a token), share of the layer's measured KL" : "", "command",
                o->command ? o->command : "");
  if (root && j->calibrate) json_object_set_new(root, "layers", json_string(j->layers_key));
  if (root && j->measured_kl >= 0) json_object_set_new(root, "calibration_kl", json_real(j->measured_kl));
  if (root && j->exits) {
    json_object_set_new(root, "exits_name", json_string(j->exits->name));
    json_object_set_new(root, "exits_command", json_string(j->exits->command ? j->exits->command : ""));
  }
  char *s = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
  json_decref(root);
  return s;
}

static enum foray_status fill(struct foray_pack_job *j, uint8_t *map, struct foray_image_header *h,
                              const char *meta, struct foray_err *err) {
  struct foray_image *img = &j->img;
  memcpy(map + h->meta_off, meta, (size_t)h->meta_bytes);
  if (h->vocab_bytes) memcpy(map + h->vocab_off, j->vocab, (size_t)h->vocab_bytes);
  for (uint32_t i = 0; i < img->n_tensors; i++) {
    struct foray_image_tensor *t = &img->tensors[i];
    enum foray_status st = check_bounds(t, err);
    if (st == FORAY_OK) {
      st = t->type == FORAY_IMAGE_V32 ? write_vector(j, t, map + t->off, err)
                                      : write_matrix(j, i, map + t->off, err);
    }
    if (st != FORAY_OK) return st;
    foray_image_entry_encode(t, map + h->dir_off + (size_t)i * FORAY_IMAGE_ENTRY_BYTES);
    if (!foray_pack_tick(j, (double)(t->off + t->bytes) / (double)img->file_bytes)) {
      return foray_err_set(err, FORAY_E_CANCELLED, "packing was cancelled");
    }
  }
  foray_sha256_once(map + FORAY_IMAGE_PAGE, (size_t)h->file_bytes - FORAY_IMAGE_PAGE, h->body_sha256);
  foray_image_header_encode(h, map);
  return FORAY_OK;
}

enum foray_status foray_pack_write(struct foray_pack_job *j, const char *path, struct foray_err *err) {
  struct foray_image *img = &j->img;
  char *meta = meta_text(j), *tmp = NULL;
  if (!meta || asprintf(&tmp, "%s.%ld.tmp", path, (long)getpid()) < 0) {
    free(meta);
    return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  }
  struct foray_image_header h = {.n_tensors = img->n_tensors, .config = img->config};
  uint64_t at = FORAY_IMAGE_PAGE;
  h.dir_off = at;
  at += (uint64_t)img->n_tensors * FORAY_IMAGE_ENTRY_BYTES;
  h.meta_off = at;
  h.meta_bytes = strlen(meta);
  at = (at + h.meta_bytes + FORAY_IMAGE_BEAT - 1) / FORAY_IMAGE_BEAT * FORAY_IMAGE_BEAT;
  h.vocab_off = at;
  h.vocab_bytes = (uint64_t)img->config.n_trim * 4;
  enum foray_status st = FORAY_OK;
  if (!foray_image_plan_place(img, at + h.vocab_bytes) || img->file_bytes > INT64_MAX) {
    st = foray_err_set(err, FORAY_E_LIMIT, "%s: the image would be too large", path);
  }
  h.file_bytes = img->file_bytes;
  h.stream_off = img->stream_off;
  h.stream_bytes = img->stream_bytes;
  h.rest_off = img->rest_off;
  h.rest_bytes = img->rest_bytes;
  h.flags = img->tensors[img->n_tensors - 1].role == FORAY_IMAGE_HEAD_FULL;
  int fd = st == FORAY_OK ? open(tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;
  if (st == FORAY_OK && fd < 0) st = foray_err_set(err, FORAY_E_IO, "%s: %s", tmp, strerror(errno));
  if (st == FORAY_OK) {
    /* real blocks, so that a full disk is an error here and not SIGBUS in the mapping */
    int e = posix_fallocate(fd, 0, (off_t)h.file_bytes);
    uint8_t *map =
        e ? MAP_FAILED : mmap(NULL, (size_t)h.file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
      st = foray_err_set(err, FORAY_E_IO, "%s: %llu bytes: %s", tmp, (unsigned long long)h.file_bytes,
                         strerror(e ? e : errno));
    } else {
      st = fill(j, map, &h, meta, err);
      memcpy(img->sha256, h.body_sha256, sizeof img->sha256);
      if (munmap(map, (size_t)h.file_bytes) < 0 && st == FORAY_OK) {
        st = foray_err_set(err, FORAY_E_IO, "%s: %s", tmp, strerror(errno));
      }
    }
    if (st == FORAY_OK && (fsync(fd) < 0 || rename(tmp, path) < 0)) {
      st = foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(errno));
    }
    close(fd);
    if (st != FORAY_OK) unlink(tmp);
  }
  free(tmp);
  free(meta);
  return st;
}
