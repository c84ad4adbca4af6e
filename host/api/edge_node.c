#include "api/edge_node.h"

#include "core/err.h"
#include "dev/device.h"
#include "model/image.h"
#include "model/pack.h"
#include "rt/lower.h"

#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 4096, PROGRESS_STEPS = 1000 };

struct foray_edge_node {
  struct foray_model *model;     /* owned */
  struct foray_image *image;     /* owned */
  struct foray_dev *dev;         /* owned */
  struct foray_drafter *drafter; /* owned; borrows image and dev */
};

struct packing {
  const struct foray_generator_opts *o;
};

static bool on_pack(void *user, const char *what, double done) {
  const struct packing *p = user;
  (void)what;
  return !p->o->progress || p->o->progress(p->o->progress_user, "packing the edge model (once)",
                                           (uint64_t)(done * PROGRESS_STEPS), PROGRESS_STEPS);
}

/* o->edge is a weight image itself when it ends in .fimg; its tokenizer then comes from o->tokenizer. */
static enum foray_status find_image(struct foray_edge_node *n, const struct foray_generator_opts *o,
                                    char *path, struct foray_err *err) {
  size_t len = strlen(o->edge);
  if (len > 5 && !strcmp(o->edge + len - 5, ".fimg")) {
    if (!o->tokenizer)
      return foray_err_set(err, FORAY_E_ARG,
                           "%s is a weight image: name the model that it was made from with --tokenizer",
                           o->edge);
    if (len >= PATH_BYTES) return foray_err_set(err, FORAY_E_LIMIT, "the path of the image is too long");
    memcpy(path, o->edge, len + 1);
    return foray_model_open(o->tokenizer, &n->model, err);
  }
  enum foray_status s = foray_model_open(o->edge, &n->model, err);
  if (s) return s;
  struct foray_pool *pool = NULL;
  if ((s = foray_pool_open(o->threads, &pool, err))) return s;
  struct packing p = {o};
  struct foray_pack_opts po = {.pool = pool, .progress = on_pack, .user = &p};
  po.exits_path = o->exits && !strcmp(o->exits, "none") ? "" : o->exits;
  s = foray_pack_cached(n->model, &po, path, PATH_BYTES, err);
  foray_pool_close(pool);
  return s;
}

enum foray_status foray_edge_node_open(const struct foray_generator_opts *o, bool logits,
                                       struct foray_edge_node **out, struct foray_err *err) {
  *out = NULL;
  struct foray_edge_node *n = calloc(1, sizeof *n);
  if (!n) return foray_err_set(err, FORAY_E_NOMEM, "out of memory");
  char path[PATH_BYTES];
  struct foray_drafter_opts dopts = {
      .ctx = o->ctx, .no_exits = o->no_exits, .full_head = o->full_head, .logits = logits};
  enum foray_status s = find_image(n, o, path, err);
  if (!s) s = foray_image_open(path, &n->image, err);
  uint8_t words[FORAY_SHA256_BYTES];
  if (!s) {
    foray_tokenizer_hash(n->model->tokenizer, words);
    if (memcmp(words, n->image->config.tokenizer_sha256, sizeof words))
      s = foray_err_set(err, FORAY_E_MISMATCH, "%s was made for another tokenizer than %s has", path,
                        n->model->name);
  }
  uint64_t heap = 0;
  if (!s) s = foray_drafter_heap_bytes(n->image, &dopts, &heap, err);
  if (!s)
    s = foray_dev_open(o->device ? o->device : "cpu",
                       &(struct foray_dev_opts){.heap_bytes = heap, .threads = o->threads}, &n->dev, err);
  if (!s) s = foray_drafter_open(n->image, n->dev, &dopts, &n->drafter, err);
  if (s) {
    foray_err_prefix(err, "edge '%s'", o->edge);
    foray_edge_node_close(n);
    return s;
  }
  *out = n;
  return FORAY_OK;
}

void foray_edge_node_close(struct foray_edge_node *n) {
  if (!n) return;
  foray_drafter_close(n->drafter);
  foray_dev_close(n->dev);
  foray_image_close(n->image);
  foray_model_close(n->model);
  free(n);
}

const struct foray_model *foray_edge_node_model(const struct foray_edge_node *n) { return n->model; }
struct foray_drafter *foray_edge_node_drafter(const struct foray_edge_node *n) {
  return n->drafter;
}
struct foray_dev *foray_edge_node_device(const struct foray_edge_node *n) {
  return n->dev;
}
const struct foray_image *foray_edge_node_image(const struct foray_edge_node *n) { return n->image; }

uint32_t foray_edge_node_check(const struct foray_edge_node *n) {
  return n ? foray_drafter_defaults(n->drafter).check : 0;
}

float foray_edge_node_threshold(const struct foray_edge_node *n, uint32_t e) {
  return n && e < n->image->config.n_exits ? n->image->config.exit_threshold[e] : 2;
}
