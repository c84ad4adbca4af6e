/* model/pack.h - makes a weight image from a model file, and says what is in one.
 *
 *   struct foray_pack_opts o = {0};                  // defaults; o.progress = show
 *   char path[4096];
 *   foray_pack_cached(model, &o, path, sizeof path, &err);    // packs at first use, then only names the file
 *   foray_image_open(path, &img, &err);
 *
 * The result depends on the inputs (model, exits file, list, calibration text) and the options only, not on
 * threads or the instruction set. Thread rule: one call uses opts.pool alone; several calls need several
 * pools. */
#ifndef FORAY_MODEL_PACK_H
#define FORAY_MODEL_PACK_H

#include "core/pool.h"
#include "model/image.h"
#include "model/model.h"

enum { FORAY_PACKER_VERSION = 2 }; /* rises when the same inputs give other codes */

enum foray_pack_calib {
  FORAY_PACK_CALIB_AUTO =
      0,                    /* second-order rounding unless the file is 4-bit already and no LoRA is merged */
  FORAY_PACK_CALIB_OFF = 1, /* round to nearest with a search of scales: seconds */
  FORAY_PACK_CALIB_ON = 2,
};

struct foray_pack_opts {
  struct foray_pool *pool; /* borrowed; NULL: the calling thread alone */
  /* NULL: the file that foray_exits_locate finds, or none when there is none. "": no exits, no trimmed head.
   */
  const char *exits_path;
  const char *vocab_path; /* text file of ids, one a line, by falling frequency; for a head without exits */
  /* GGUF LoRA that is merged before rounding; NULL: none. */
  const char *adapter_path;
  /* Image of the same model and limits without the adapter: matrices that the adapter does not touch are
   * taken from it as they are, the others are rounded to nearest in the types that they have there. Seconds
   * instead of a calibration. */
  const char *base_image;
  double bits_max;   /* of block weights, all overhead counted; 0: 4.9. Below 4.6: FORAY_E_ARG */
  bool no_full_head; /* leave the full head of an untied model out (perplexity needs it) */
  enum foray_pack_calib calib;
  const char *calib_path; /* text; NULL: the built-in sample */
  uint32_t calib_tokens;  /* 0: 2048 */
  const char *command;    /* noted in the image; may be NULL */
  /* Called from the calling thread, often; done rises from 0 to 1. False cancels (FORAY_E_CANCELLED). */
  bool (*progress)(void *user, const char *what, double done);
  void *user;
};

/* Writes out_path (through a temporary file beside it, renamed at the end). json (may be NULL) receives the
 * report of foray_image_inspect, owned by the caller (free). FORAY_E_UNSUPPORTED: an architecture or feature
 * that the edge devices lack, named. FORAY_E_LIMIT: bits_max cannot be kept. FORAY_E_CANCELLED, FORAY_E_IO,
 * FORAY_E_NOMEM, and what opening the exits file or the text gives. */
enum foray_status foray_pack_run(const struct foray_model *m, const struct foray_pack_opts *opts,
                                 const char *out_path, char **json, struct foray_err *err) FORAY_NODISCARD;

/* The image of these inputs in the cache ($XDG_CACHE_HOME/foray/images/NAME-HASH.fimg); packs it when it is
 * not there. path receives its name. */
enum foray_status foray_pack_cached(const struct foray_model *m, const struct foray_pack_opts *opts,
                                    char *path, size_t cap, struct foray_err *err) FORAY_NODISCARD;

/* What is in an image, as a JSON object: file, hashes, configuration, exits, sections, bits_per_block_weight,
 * bytes a token at full depth and by exit, and per tensor: name, type, shape, bytes, cost, rms_error.
 * *json is owned by the caller (free). */
enum foray_status foray_image_inspect(const struct foray_image *img, char **json,
                                      struct foray_err *err) FORAY_NODISCARD;

#endif
