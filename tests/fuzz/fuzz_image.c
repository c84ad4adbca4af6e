/* Weight images: any bytes either open, and then every row can be read back, or are refused. The hashes are
 * put right first, so that the fuzzer gets past them. */
#include "core/hash.h"
#include "model/image.h"
#include "model/pack.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct foray_image *img;
  struct foray_err err = {0};
  if (size > 1 << 20) return 0;
  uint8_t *p = aligned_alloc(64, size / 64 * 64 + 64);
  if (!p) return 0;
  memcpy(p, data, size);
  if (size >= FORAY_IMAGE_PAGE) {
    foray_sha256_once(p + FORAY_IMAGE_PAGE, size - FORAY_IMAGE_PAGE, p + 104);
    foray_sha256_once(p, FORAY_IMAGE_PAGE - 32, p + FORAY_IMAGE_PAGE - 32);
  }
  if (foray_image_open_memory(p, size, "fuzz", &img, &err) == FORAY_OK) {
    char *json;
    enum foray_status sound = foray_image_verify(img, &err);
    for (uint32_t i = 0; i < img->n_tensors; i++) {
      const struct foray_image_tensor *t = &img->tensors[i];
      float *row = malloc(t->cols * sizeof *row);
      for (uint32_t r = 0; row && r < t->rows; r++) foray_image_row(img, t, r, row);
      free(row);
      float *bias = t->has_bias ? malloc(t->rows * sizeof *bias) : NULL;
      if (bias) foray_image_bias(img, t, bias);
      free(bias);
    }
    if (sound == FORAY_OK && foray_image_inspect(img, &json, &err) == FORAY_OK) free(json);
    foray_image_close(img);
  }
  free(p);
  return 0;
}
