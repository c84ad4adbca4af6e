/* The cache of images: names by content of the inputs, and layers taken over from an image that differs in
 * exits or lists only. */
#include "model/pack_job.h"

#include "core/err.h"
#include "model/catalogue.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static enum foray_status hash_file(struct foray_sha256 *h, const char *path, struct foray_err *err) {
  FILE *f = path && path[0] ? fopen(path, "re") : NULL;
  char buf[65536];
  size_t n;
  if (path && path[0] && !f) return foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(errno));
  foray_sha256_update(h, path && path[0] ? "+" : "-", 1);
  while (f && (n = fread(buf, 1, sizeof buf, f)) > 0) foray_sha256_update(h, buf, n);
  if (f) fclose(f);
  return FORAY_OK;
}

enum foray_status foray_pack_layers_key(struct foray_pack_job *j, struct foray_err *err) {
  const struct foray_pack_opts *o = j->opts;
  uint8_t sha[FORAY_SHA256_BYTES];
  char key[128];
  struct foray_sha256 *h = foray_sha256_open();
  if (!h) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  snprintf(key, sizeof key, "layers %d %d %.6f %u %s", FORAY_IMAGE_VERSION, FORAY_PACKER_VERSION,
           foray_pack_bits_max(o), o->calib_tokens, j->exits && j->exits->n_lora ? j->exits->sha256 : "-");
  foray_sha256_update(h, key, strlen(key) + 1);
  foray_sha256_update(h, j->img.config.source_sha256, FORAY_SHA256_BYTES);
  enum foray_status st = hash_file(h, o->calib_path, err);
  if (st == FORAY_OK && o->adapter_path) st = hash_file(h, o->adapter_path, err);
  foray_sha256_close(h, sha);
  foray_sha256_hex(sha, j->layers_key);
  return st;
}

/* True when the image was calibrated with the same inputs; also reads what its metadata say of that. */
static bool same_layers(const struct foray_pack_job *j, const struct foray_image *img, double *kl,
                        uint32_t *tokens) {
  json_t *meta = json_loads(img->meta, 0, NULL);
  const char *key = json_string_value(json_object_get(meta, "layers"));
  bool same = key && strcmp(key, j->layers_key) == 0;
  *kl = json_number_value(json_object_get(meta, "calibration_kl"));
  *tokens = (uint32_t)json_integer_value(json_object_get(meta, "calibration_tokens"));
  json_decref(meta);
  return same && memcmp(img->config.source_sha256, j->img.config.source_sha256, FORAY_SHA256_BYTES) == 0 &&
         foray_image_verify(img, NULL) == FORAY_OK;
}

static enum foray_status take_layers(struct foray_pack_job *j, const struct foray_image *img,
                                     struct foray_err *err) {
  for (uint32_t i = 0; i < j->img.n_tensors; i++) {
    struct foray_image_tensor *t = &j->img.tensors[i];
    if (t->role > FORAY_IMAGE_FFN_DOWN || t->type == FORAY_IMAGE_V32) continue;
    const struct foray_image_tensor *from = foray_image_find(img, t->role, t->index);
    if (!from || from->rows != t->rows || from->cols != t->cols) {
      return foray_err_set(err, FORAY_E_FORMAT, "%s: %s has another shape", foray_image_path(img), t->name);
    }
    t->type = from->type;
    t->exp = from->exp;
    t->cost = from->cost;
    t->rms_error = from->rms_error;
    foray_codes_close(j->codes[i]);
    j->codes[i] = NULL;
    enum foray_status st = foray_codes_read(img, from, &j->codes[i], err);
    if (st != FORAY_OK) return st;
  }
  return FORAY_OK;
}

enum foray_status foray_pack_take_base(struct foray_pack_job *j, struct foray_err *err) {
  struct foray_image *img;
  enum foray_status st = foray_image_open(j->opts->base_image, &img, err);
  if (st != FORAY_OK) return st;
  st = foray_image_verify(img, err);
  if (st == FORAY_OK && memcmp(img->config.source_sha256, j->img.config.source_sha256, FORAY_SHA256_BYTES))
    st = foray_err_set(err, FORAY_E_MISMATCH, "%s is the image of another model", foray_image_path(img));
  if (st == FORAY_OK) st = take_layers(j, img, err);
  for (uint32_t i = 0; st == FORAY_OK && i < j->img.n_tensors; i++) {
    struct foray_image_tensor *t = &j->img.tensors[i];
    if (t->role > FORAY_IMAGE_FFN_DOWN || !j->codes[i] || !j->adapter ||
        !foray_exits_lora_find(j->adapter, t->name))
      continue;
    foray_codes_close(j->codes[i]); /* rounded anew while writing, in the type that it has */
    j->codes[i] = NULL;
  }
  foray_image_close(img);
  return st;
}

enum foray_status foray_pack_reuse(struct foray_pack_job *j, bool *found, struct foray_err *err) {
  DIR *d = opendir(j->reuse_dir);
  size_t n = strlen(j->m->name);
  enum foray_status st = FORAY_OK;
  *found = false;
  for (struct dirent *e; d && !*found && st == FORAY_OK && (e = readdir(d));) {
    struct foray_image *img;
    char path[4096 + 300];
    size_t len = strlen(e->d_name);
    if (strncmp(e->d_name, j->m->name, n) != 0 || len < 5 || strcmp(e->d_name + len - 5, ".fimg") != 0)
      continue;
    snprintf(path, sizeof path, "%s/%s", j->reuse_dir, e->d_name);
    if (foray_image_open(path, &img, NULL) != FORAY_OK) continue;
    double kl;
    uint32_t tokens;
    if (same_layers(j, img, &kl, &tokens)) {
      st = take_layers(j, img, err);
      *found = st == FORAY_OK;
      j->measured_kl = kl;
      j->calib_tokens = tokens;
    }
    foray_image_close(img);
  }
  if (d) closedir(d);
  return st;
}

static enum foray_status make_dirs(char *path, struct foray_err *err) {
  for (char *p = path + 1;; p++) {
    if (*p && *p != '/') continue;
    char c = *p;
    *p = 0;
    int r = mkdir(path, 0755), e = errno;
    *p = c;
    if (r < 0 && e != EEXIST) return foray_err_set(err, FORAY_E_IO, "%s: %s", path, strerror(e));
    if (!c) return FORAY_OK;
  }
}

enum foray_status foray_pack_cached(const struct foray_model *m, const struct foray_pack_opts *opts,
                                    char *path, size_t cap, struct foray_err *err) {
  static const struct foray_pack_opts none;
  const struct foray_pack_opts *o = opts ? opts : &none;
  char model_path[4096], exits[FORAY_EXITS_PATH_MAX], hex[FORAY_SHA256_HEX];
  uint8_t sha[FORAY_SHA256_BYTES];
  enum foray_status st = foray_cache_path("x", model_path, sizeof model_path, NULL, err);
  if (st == FORAY_OK) st = foray_pack_exits_path(m, o, exits, sizeof exits, err);
  if (st != FORAY_OK) return st;
  struct foray_sha256 *h = foray_sha256_open();
  if (!h) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  char key[128];
  snprintf(key, sizeof key, "%d %d %.6f %d %d %u", FORAY_IMAGE_VERSION, FORAY_PACKER_VERSION,
           foray_pack_bits_max(o), (int)o->calib, o->no_full_head, o->calib_tokens);
  foray_model_sha256(m, sha);
  foray_sha256_update(h, key, strlen(key) + 1);
  foray_sha256_update(h, sha, sizeof sha);
  st = hash_file(h, exits, err);
  if (st == FORAY_OK) st = hash_file(h, o->vocab_path, err);
  if (st == FORAY_OK) st = hash_file(h, o->calib_path, err);
  if (st == FORAY_OK && o->adapter_path) st = hash_file(h, o->adapter_path, err);
  if (st == FORAY_OK && o->base_image) st = hash_file(h, o->base_image, err);
  foray_sha256_close(h, sha);
  if (st != FORAY_OK) return st;
  foray_sha256_hex(sha, hex);
  hex[16] = 0;
  /* .../models/x.gguf -> .../images */
  for (int i = 0; i < 2; i++) {
    char *slash = strrchr(model_path, '/');
    if (slash) *slash = 0;
  }
  int n = snprintf(path, cap, "%s/images", model_path);
  if (n < 0 || (size_t)n >= cap) return foray_err_set(err, FORAY_E_LIMIT, "path of the cache is too long");
  if ((st = make_dirs(path, err)) != FORAY_OK) return st;
  n = snprintf(path, cap, "%s/images/%s-%s.fimg", model_path, m->name, hex);
  if (n < 0 || (size_t)n >= cap) return foray_err_set(err, FORAY_E_LIMIT, "path of the cache is too long");
  struct foray_image *img;
  if (foray_image_open(path, &img, NULL) == FORAY_OK) {
    foray_image_close(img);
    return FORAY_OK;
  }
  char dir[4096];
  snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(path, '/') - path), path);
  return foray_pack_run_with(m, o, path, dir, err);
}
