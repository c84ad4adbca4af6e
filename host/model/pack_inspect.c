/* What is in an image, as JSON. */
#include "model/pack.h"

#include "core/err.h"
#include "model/config.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Three significant digits are what a cost is worth. */
static json_t *number(double v, int digits) {
  char s[40];
  snprintf(s, sizeof s, "%.*g", digits, v);
  return json_real(strtod(s, NULL));
}

static json_t *hash(const uint8_t *sha) {
  char hex[FORAY_SHA256_HEX];
  bool any = false;
  for (int i = 0; i < FORAY_SHA256_BYTES; i++) any |= sha[i] != 0;
  if (!any) return json_null();
  foray_sha256_hex(sha, hex);
  return json_string(hex);
}

/* Bytes that a token reads when it leaves at exit e (n_exits: full depth), all tests before it included. */
static uint64_t bytes_until(const struct foray_image *img, uint32_t e) {
  const struct foray_image_config *c = &img->config;
  uint32_t layers = e < c->n_exits ? c->exit_layer[e] : c->n_layer;
  const struct foray_image_tensor *head = foray_image_find(img, FORAY_IMAGE_HEAD, 0);
  if (!head) head = foray_image_find(img, FORAY_IMAGE_HEAD_FULL, 0);
  uint64_t sum = 0;
  for (uint32_t i = 0; i < img->n_tensors; i++) {
    const struct foray_image_tensor *t = &img->tensors[i];
    if (t->role <= FORAY_IMAGE_FFN_DOWN ? t->index < layers
        : t->role == FORAY_IMAGE_EXIT_NORM || t->role == FORAY_IMAGE_EXIT_MAP ||
                t->role == FORAY_IMAGE_EXIT_PREV
            ? t->index <= e
            : t->role == FORAY_IMAGE_OUTPUT_NORM && e == c->n_exits) {
      sum += t->bytes;
    }
  }
  for (uint32_t i = 0; head && i <= e && i <= c->n_exits; i++) {
    uint32_t rows = i < c->n_exits ? c->exit_rows[i] : head->rows;
    sum += head->bytes / head->rows_pad * rows;
  }
  return sum;
}

enum foray_status foray_image_inspect(const struct foray_image *img, char **json, struct foray_err *err) {
  const struct foray_image_config *c = &img->config;
  json_t *root = json_object(), *tensors = json_array(), *exits = json_array();
  uint64_t rest = 0, block = 0, q8 = 0, weights = 0;
  double cost = 0;
  for (uint32_t i = 0; i < img->n_tensors; i++) {
    const struct foray_image_tensor *t = &img->tensors[i];
    json_t *o = json_pack("{s:s, s:s, s:s, s:[i,i], s:I}", "name", t->name, "role",
                          foray_image_role_name(t->role), "type", foray_image_type_name(t->type), "shape",
                          (int)t->rows, (int)t->cols, "bytes", (json_int_t)t->bytes);
    if (t->cost > 0) json_object_set_new(o, "kl", number((double)t->cost, 3));
    if (t->type != FORAY_IMAGE_V32) json_object_set_new(o, "rms_error", number((double)t->rms_error, 3));
    json_array_append_new(tensors, o);
    cost += (double)t->cost;
    if (t->role <= FORAY_IMAGE_FFN_DOWN) {
      block += t->bytes;
      if (t->type != FORAY_IMAGE_V32) {
        weights += (uint64_t)t->rows * t->cols;
        if (t->type == FORAY_IMAGE_Q8S) q8 += (uint64_t)t->rows * t->cols;
      }
    }
    if (t->off >= img->rest_off) rest += t->bytes;
  }
  for (uint32_t e = 0; e < c->n_exits; e++) {
    json_t *o = json_pack("{s:i, s:i, s:I}", "layer", (int)c->exit_layer[e], "head_rows",
                          (int)c->exit_rows[e], "bytes_per_token", (json_int_t)bytes_until(img, e));
    json_object_set_new(o, "threshold", number((double)c->exit_threshold[e], 6));
    json_array_append_new(exits, o);
  }
  json_object_set_new(root, "file", json_string(foray_image_path(img)));
  json_object_set_new(root, "version", json_integer(FORAY_IMAGE_VERSION));
  json_object_set_new(root, "sha256", hash(img->sha256));
  json_object_set_new(root, "source_sha256", hash(c->source_sha256));
  json_object_set_new(root, "tokenizer_sha256", hash(c->tokenizer_sha256));
  json_object_set_new(root, "exits_sha256", hash(c->exits_sha256));
  json_object_set_new(root, "arch", json_string(foray_arch_name((enum foray_arch)c->arch)));
#define X(field) json_object_set_new(root, #field, json_integer((json_int_t)c->field));
  X(n_layer)
  X(n_embd)
  X(n_ff)
  X(n_head)
  X(n_head_kv)
  X(head_dim)
  X(n_vocab)
  X(n_ctx_train)
  X(rope_base)
  X(n_trim)
#undef X
  json_object_set_new(root, "tied", json_boolean((int)c->tied));
  json_object_set_new(root, "file_bytes", json_integer((json_int_t)img->file_bytes));
  json_object_set_new(root, "stream_bytes", json_integer((json_int_t)img->stream_bytes));
  json_object_set_new(root, "block_bytes", json_integer((json_int_t)block));
  json_object_set_new(root, "table_bytes", json_integer((json_int_t)rest));
  json_object_set_new(root, "bits_per_block_weight", number(img->bits_per_block_weight, 6));
  json_object_set_new(root, "eight_bit_share", number(weights ? (double)q8 / (double)weights : 0, 4));
  if (cost > 0) json_object_set_new(root, "kl", number(cost, 3));
  json_object_set_new(root, "bytes_per_token", json_integer((json_int_t)bytes_until(img, c->n_exits)));
  json_object_set_new(root, "exits", exits);
  json_t *meta = json_loads(img->meta, 0, NULL);
  json_object_set_new(root, "made", meta ? meta : json_object());
  json_object_set_new(root, "tensors", tensors);
  *json = json_dumps(root, JSON_INDENT(1));
  json_decref(root);
  return *json ? FORAY_OK : foray_err_set(err, FORAY_E_NOMEM, "out of memory");
}
