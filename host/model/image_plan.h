/* model/image_plan.h - internal to the image's reader and packer: the tensors that a configuration implies,
 * where they lie, and the fixed-size records of the file. The file has no freedom beyond types, exponents,
 * names and costs: the reader recomputes every offset and refuses another one. */
#ifndef FORAY_MODEL_IMAGE_PLAN_H
#define FORAY_MODEL_IMAGE_PLAN_H

#include "model/image.h"

enum {
  FORAY_IMAGE_ENTRY_BYTES = 128,
  FORAY_IMAGE_TENSORS_MAX = 512 * 9 + 2 * FORAY_IMAGE_EXITS_MAX + 8,
  FORAY_IMAGE_META_MAX = 1 << 24,
  FORAY_IMAGE_EXP_MIN = -200, /* bounds of every exponent in a file */
  FORAY_IMAGE_EXP_MAX = 64,
};

/* Limits and relations of a configuration; what a reader must be sure of before it computes with it. */
enum foray_status foray_image_config_check(const struct foray_image_config *c, const char *label,
                                           struct foray_err *err) FORAY_NODISCARD;

/* Fills role, index, rows, cols, has_bias, off.. of every tensor in order; types are taken from `types`
 * (n_tensors values), or, when NULL, only role, index, rows, cols and has_bias are set. with_full_head: an
 * untied model carries HEAD_FULL. Returns the number of tensors, at most FORAY_IMAGE_TENSORS_MAX. */
uint32_t foray_image_plan_list(const struct foray_image_config *c, bool with_full_head,
                               struct foray_image_tensor *out);
/* Sections and offsets from the listed tensors (type set). first = offset of the first byte after vocabulary
 * list. Returns false on overflow. Sets stream and rest of img, and file_bytes. */
bool foray_image_plan_place(struct foray_image *img, uint64_t first);

struct foray_image_header {
  uint64_t file_bytes, dir_off, meta_off, meta_bytes, vocab_off, vocab_bytes, stream_off, stream_bytes,
      rest_off, rest_bytes;
  uint32_t n_tensors;
  uint32_t flags; /* bit 0: HEAD_FULL is present */
  uint8_t body_sha256[FORAY_SHA256_BYTES];
  struct foray_image_config config;
};
/* page: FORAY_IMAGE_PAGE bytes. encode fills the whole page and its hash. */
void foray_image_header_encode(const struct foray_image_header *h, uint8_t *page);
enum foray_status foray_image_header_decode(const uint8_t *page, const char *label,
                                            struct foray_image_header *h,
                                            struct foray_err *err) FORAY_NODISCARD;
void foray_image_entry_encode(const struct foray_image_tensor *t, uint8_t *entry);
/* Decodes into *t what a file may choose (type, exp, bias_exp, cost, rms_error, name) and compares the rest
 * with what *t already holds (the plan). place: also compare offsets. Returns what is wrong, or NULL. */
const char *foray_image_entry_decode(const uint8_t *entry, struct foray_image_tensor *t);
const char *foray_image_entry_placed(const uint8_t *entry, const struct foray_image_tensor *t);

#endif
