/* foray pack, foray inspect. */
#include "core/args.h"
#include "core/err.h"
#include "hosttools/commands.h"
#include "hosttools/common.h"
#include "hosttools/show.h"
#include "model/exits.h"
#include "model/image.h"
#include "model/model.h"
#include "model/pack.h"
#include "model/quant.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static bool on_progress(void *user, const char *what, double done) {
  struct tool_progress *bar = user;
  enum { STEPS = 1000 };
  bar->what = what;
  tool_progress_update(bar, (uint64_t)(done * STEPS), STEPS);
  return !tool_interrupted();
}

static void print_image_summary(json_t *j) {
  const char *path = json_string_value(json_object_get(j, "file"));
  printf("%s: %.3f bits a block weight\n", path ? path : "image",
         json_number_value(json_object_get(j, "bits_per_block_weight")));
}

int cmd_pack(int argc, char **argv) {
  struct foray_pack_opts po = {0};
  const char *out = NULL, *model_name = NULL, *exits = NULL, *calib = "auto";
  int threads = 0, calib_tokens = 0;
  bool json = false, quiet = false;
  const struct foray_opt opts[] = {
      {"model", 'm', FORAY_OPT_STR, &model_name, "NAME|FILE", "the model", 0, 0},
      {"output", 'o', FORAY_OPT_STR, &out, "FILE",
       "weight image to write (default: the cache, where generate looks)", 0, 0},
      {"exits", 0, FORAY_OPT_STR, &exits, "FILE",
       "exits file (default: the shipped one of this model; 'none')", 0, 0},
      {"adapter", 0, FORAY_OPT_STR, &po.adapter_path, "FILE", "GGUF LoRA to merge (foray-tune writes them)",
       0, 0},
      {"base-image", 0, FORAY_OPT_STR, &po.base_image, "FILE",
       "image without the adapter: only what the adapter touches is rounded anew", 0, 0},
      {"vocab", 0, FORAY_OPT_STR, &po.vocab_path, "FILE",
       "token ids of the trimmed head, one a line, by falling frequency", 0, 0},
      {"bits", 0, FORAY_OPT_DOUBLE, &po.bits_max, "B",
       "bits a block weight at most, all overhead counted (default: by model)", 4.5, 9},
      {"no-full-head", 0, FORAY_OPT_FLAG, &po.no_full_head, NULL, "leave out the head over all ids", 0, 0},
      {"calibrate", 0, FORAY_OPT_STR, &calib, "WHEN", "auto, on or off: rounding that knows the activations",
       0, 0},
      {"calib-file", 0, FORAY_OPT_STR, &po.calib_path, "FILE",
       "text to calibrate with (default: a built-in sample)", 0, 0},
      {"calib-tokens", 0, FORAY_OPT_INT, &calib_tokens, "N", "tokens of it", 0, 1 << 20},
      {"threads", 't', FORAY_OPT_INT, &threads, "N", "threads (0: one per processor)", 0, 256},
      {"json", 0, FORAY_OPT_FLAG, &json, NULL, "print the report of `foray inspect` as JSON", 0, 0},
      {"quiet", 'q', FORAY_OPT_FLAG, &quiet, NULL, "no progress", 0, 0},
      {0}};
  const struct foray_command cmd = {
      "foray pack", "-m MODEL [-o FILE] [OPTIONS]", "Make the weight image that edge devices stream.", opts,
      "Weights become affine 4-bit or symmetric 8-bit, tensor by tensor, where the measured cost is least "
      "for the bits;\n"
      "the LoRA of the exits file is merged first. docs/image.md describes the file."};
  struct foray_err err = {0};
  int rest;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return TOOL_EXIT_OK;
  case FORAY_ARGS_ERROR: return tool_fail(cmd.name, &err);
  case FORAY_ARGS_RUN: break;
  }
  if (!model_name && rest < argc) model_name = argv[rest];
  static const char *const when[] = {"auto", "off", "on"};
  bool known = false;
  for (unsigned i = 0; i < 3; i++)
    if (!strcmp(calib, when[i])) {
      po.calib = (enum foray_pack_calib)i;
      known = true;
    }
  if (!model_name)
    foray_err_set(&err, FORAY_E_ARG, "name the model with -m");
  else if (!known)
    foray_err_set(&err, FORAY_E_ARG, "--calibrate '%s': use auto, on or off", calib);
  if (err.code) return tool_fail(cmd.name, &err);
  po.exits_path = exits && !strcmp(exits, "none") ? "" : exits;
  po.calib_tokens = (uint32_t)calib_tokens;
  struct foray_model *m = NULL;
  struct foray_pool *pool = NULL;
  struct foray_image *img = NULL;
  struct tool_progress bar;
  char path[4096], *report = NULL;
  tool_interrupt_install();
  tool_progress_begin(&bar, "packing", false, quiet);
  po.progress = on_progress;
  po.user = &bar;
  enum foray_status s = foray_model_open(model_name, &m, &err);
  if (!s) s = foray_pool_open(threads, &pool, &err);
  po.pool = pool;
  if (!s && out) s = foray_pack_run(m, &po, out, &report, &err);
  if (!s && !out) {
    s = foray_pack_cached(m, &po, path, sizeof path, &err);
    if (!s) s = foray_image_open(path, &img, &err);
    if (!s) s = foray_image_inspect(img, &report, &err);
  }
  bar.what = "packing";
  tool_progress_end(&bar, !s);
  int rc = TOOL_EXIT_OK;
  if (s) {
    rc = tool_fail(cmd.name, &err);
  } else if (json) {
    puts(report);
  } else {
    json_t *j = json_loads(report, 0, NULL);
    print_image_summary(j);
    json_decref(j);
  }
  free(report);
  foray_image_close(img);
  foray_pool_close(pool);
  foray_model_close(m);
  return rc;
}

/* ---------------------------------------------------------------- inspect */
static enum foray_status gguf_json(const char *name, json_t **out, struct foray_err *err) {
  struct foray_model *m = NULL;
  enum foray_status s = foray_model_open(name, &m, err);
  if (s) return s;
  const struct foray_model_config *c = &m->config;
  uint8_t digest[FORAY_SHA256_BYTES];
  char hex[FORAY_SHA256_HEX];
  foray_model_sha256(m, digest);
  foray_sha256_hex(digest, hex);
  json_t *tensors = json_array();
  for (uint64_t i = 0; i < foray_gguf_n_tensors(m->gguf); i++) {
    const struct foray_gguf_tensor *t = foray_gguf_tensor_at(m->gguf, i);
    json_t *shape = json_array();
    for (uint32_t d = 0; d < t->n_dims; d++) json_array_append_new(shape, json_integer((json_int_t)t->ne[d]));
    json_array_append_new(
        tensors, json_pack("{s:o s:s s:o s:I}", "name", json_stringn(t->name, strlen(t->name)), "type",
                           foray_type_info(t->type)->name, "shape", shape, "bytes", (json_int_t)t->bytes));
  }
  *out = json_pack("{s:s s:s s:s s:s s:i s:i s:i s:i s:i s:i s:i s:i s:o}", "kind", "model", "name", m->name,
                   "sha256", hex, "architecture", foray_arch_name(c->arch), "layers", (int)c->n_layer,
                   "width", (int)c->n_embd, "ffn", (int)c->n_ff, "heads", (int)c->n_head, "kv_heads",
                   (int)c->n_head_kv, "head_size", (int)c->head_dim, "vocabulary", (int)c->n_vocab, "context",
                   (int)c->n_ctx_train, "tensors", tensors);
  foray_model_close(m);
  return FORAY_OK;
}

static enum foray_status image_json(const char *path, bool verify, json_t **out, struct foray_err *err) {
  struct foray_image *img = NULL;
  char *text = NULL;
  enum foray_status s = foray_image_open(path, &img, err);
  if (!s && verify) s = foray_image_verify(img, err);
  if (!s) s = foray_image_inspect(img, &text, err);
  if (!s && !(*out = json_loads(text, 0, NULL)))
    s = foray_err_set(err, FORAY_E_FORMAT, "%s: unreadable report", path);
  if (!s) json_object_set_new(*out, "kind", json_string("image"));
  free(text);
  foray_image_close(img);
  return s;
}

static enum foray_status exits_json(const char *path, json_t **out, struct foray_err *err) {
  struct foray_exits *x = NULL;
  enum foray_status s = foray_exits_open(path, &x, err);
  if (s) return s;
  json_t *exits = json_array();
  for (int e = 0; e < x->n_exits; e++)
    json_array_append_new(exits,
                          json_pack("{s:i s:i s:f}", "layer", (int)x->exit[e].layer, "head_rows",
                                    (int)x->exit[e].head_rows, "threshold", (double)x->exit[e].threshold));
  *out =
      json_pack("{s:s s:s s:s s:s s:s s:i s:i s:o s:s}", "kind", "exits", "name", x->name, "sha256",
                x->sha256, "base", x->base_sha256, "target", x->target_sha256, "vocabulary", (int)x->n_vocab,
                "lora_tensors", (int)x->n_lora, "exits", exits, "command", x->command ? x->command : "");
  foray_exits_close(x);
  return FORAY_OK;
}

/* Scalars as "key: value", arrays of objects as tables of their own keys. */
static void print_plain(json_t *j) {
  const char *key;
  json_t *v;
  json_object_foreach(j, key, v) {
    if (json_is_array(v)) continue;
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6));
    bool quoted = text && text[0] == '"';
    if (text) printf("%-24s%.*s\n", key, (int)(strlen(text) - (quoted ? 2 : 0)), text + (quoted ? 1 : 0));
    free(text);
  }
  json_object_foreach(j, key, v) {
    size_t i;
    json_t *row;
    if (!json_is_array(v) || !json_array_size(v)) continue;
    printf("\n%s:\n", key);
    json_array_foreach(v, i, row) {
      const char *k;
      json_t *cell;
      if (json_is_object(row)) {
        json_object_foreach(row, k, cell) {
          char *text = json_dumps(cell, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(4));
          if (json_is_string(cell))
            printf("  %-28s", json_string_value(cell));
          else
            printf("  %s %-10s", k, text ? text : "");
          free(text);
        }
      } else {
        char *text = json_dumps(row, JSON_ENCODE_ANY);
        printf("  %s", text ? text : "");
        free(text);
      }
      putchar('\n');
    }
  }
}

int cmd_inspect(int argc, char **argv) {
  bool json = false, verify = false;
  const char *name = NULL;
  const struct foray_opt opts[] = {
      {"model", 'm', FORAY_OPT_STR, &name, "NAME|FILE", "what to inspect (also as a plain argument)", 0, 0},
      {"verify", 0, FORAY_OPT_FLAG, &verify, NULL, "weight image: check the hash of its body too", 0, 0},
      {"json", 0, FORAY_OPT_FLAG, &json, NULL, "print JSON", 0, 0},
      {0}};
  const struct foray_command cmd = {"foray inspect", "[OPTIONS] NAME|FILE",
                                    "Show what is in a model (GGUF), an exits file or a weight image.", opts,
                                    NULL};
  struct foray_err err = {0};
  int rest;
  switch (foray_args_parse(&cmd, argc, argv, &rest, &err)) {
  case FORAY_ARGS_DONE: return TOOL_EXIT_OK;
  case FORAY_ARGS_ERROR: return tool_fail(cmd.name, &err);
  case FORAY_ARGS_RUN: break;
  }
  if (!name && rest < argc) name = argv[rest];
  if (!name) {
    foray_err_set(&err, FORAY_E_ARG, "name a model or a file");
    return tool_fail(cmd.name, &err);
  }
  json_t *j = NULL;
  size_t len = strlen(name);
  enum foray_status s;
  if (len > 5 && !strcmp(name + len - 5, ".fimg"))
    s = image_json(name, verify, &j, &err);
  else if (len > 11 && !strcmp(name + len - 11, ".exits.gguf"))
    s = exits_json(name, &j, &err);
  else
    s = gguf_json(name, &j, &err);
  if (s) return tool_fail(cmd.name, &err);
  if (json) return show_json(j);
  print_plain(j);
  json_decref(j);
  return TOOL_EXIT_OK;
}
