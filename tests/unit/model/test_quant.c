#include "unit/harness.h"

#include "model/quant.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static size_t unhex(const char *h, uint8_t *out) {
  size_t n = strlen(h) / 2;
  for (size_t i = 0; i < n; i++) {
    unsigned v;
    sscanf(h + 2 * i, "%2x", &v);
    out[i] = (uint8_t)v;
  }
  return n;
}

/* Bit for bit what the gguf package gives (tests/golden/make_quant.py). */
TEST(values_equal_those_of_the_gguf_package) {
  json_error_t je;
  json_t *doc = json_load_file(foray_test_path("tests/golden/quant.json"), 0, &je);
  CU_ASSERT_PTR_NOT_NULL_FATAL(doc);
  CU_ASSERT_EQUAL(json_array_size(doc), 11);
  for (size_t i = 0; i < json_array_size(doc); i++) {
    const json_t *c = json_array_get(doc, i);
    static uint8_t raw[1024], want[4096];
    static float got[1024];
    uint32_t id = (uint32_t)json_integer_value(json_object_get(c, "id"));
    size_t n = (size_t)json_integer_value(json_object_get(c, "n"));
    size_t bytes = unhex(json_string_value(json_object_get(c, "raw")), raw);
    unhex(json_string_value(json_object_get(c, "values")), want);
    CU_ASSERT_STRING_EQUAL(foray_type_info(id)->name, json_string_value(json_object_get(c, "type")));
    CU_ASSERT_EQUAL(foray_type_row_bytes(id, n), bytes);
    CU_ASSERT_EQUAL(foray_dequant_row(id, raw, got, n), FORAY_OK);
    if (memcmp(got, want, n * 4)) {
      size_t k = 0;
      while (!memcmp(&got[k], want + 4 * k, 4)) k++;
      float w;
      memcpy(&w, want + 4 * k, 4);
      printf("  %s: element %zu is %.9g, not %.9g\n", foray_type_info(id)->name, k, (double)got[k],
             (double)w);
      CU_FAIL("values differ");
    }
  }
  json_decref(doc);
}

TEST(bad_types_and_lengths_are_refused) {
  float y[64];
  uint8_t b[64] = {0};
  CU_ASSERT_PTR_NULL(foray_type_info(4));
  CU_ASSERT_PTR_NULL(foray_type_info(UINT32_MAX));
  CU_ASSERT_EQUAL(foray_dequant_row(4, b, y, 32), FORAY_E_UNSUPPORTED);
  CU_ASSERT_EQUAL(foray_dequant_row(FORAY_GGML_I32, b, y, 1), FORAY_E_UNSUPPORTED);
  CU_ASSERT_EQUAL(foray_dequant_row(FORAY_GGML_Q8_0, b, y, 33), FORAY_E_ARG);
  CU_ASSERT_EQUAL(foray_type_row_bytes(FORAY_GGML_Q4_K, 128), 0);
  CU_ASSERT_EQUAL(foray_quantise_row(FORAY_GGML_Q6_K, y, b, 256), FORAY_E_UNSUPPORTED);
}

/* Every half goes to float and back; every float between two halves goes to the nearer one. */
TEST(halves_round_trip_and_round_to_nearest_even) {
  for (uint32_t h = 0; h < 0x10000; h++) {
    float f = foray_fp16_f32((uint16_t)h);
    if (isnan(f)) {
      CU_ASSERT_TRUE(isnan(foray_fp16_f32(foray_f32_fp16(f))));
      continue;
    }
    if (foray_f32_fp16(f) != h) CU_FAIL("a half does not survive");
    if ((h & 0x7fff) >= 0x7bff) continue;
    float up = foray_fp16_f32((uint16_t)(h + 1)), mid = (float)(((double)f + (double)up) / 2);
    uint16_t even = (uint16_t)(h & 1 ? h + 1 : h);
    if (foray_f32_fp16(mid) != even) CU_FAIL("a tie does not go to even");
    if (foray_f32_fp16(nextafterf(mid, f)) != h || foray_f32_fp16(nextafterf(mid, up)) != h + 1)
      CU_FAIL("not rounded to nearest");
  }
  CU_ASSERT_EQUAL(foray_f32_fp16(65520.0f), 0x7c00);
  CU_ASSERT_EQUAL(foray_f32_fp16(65519.0f), 0x7bff);
  CU_ASSERT_EQUAL(foray_f32_fp16(-1e30f), 0xfc00);
  CU_ASSERT_EQUAL(foray_f32_bf16(1.00390625f), 0x3f80);
  CU_ASSERT_EQUAL(foray_f32_bf16(1.01171875f), 0x3f82);
}

TEST(quantised_rows_are_near_what_they_stand_for) {
  static float x[256], y[256];
  uint8_t b[1024];
  for (int i = 0; i < 256; i++) x[i] = sinf((float)i * 0.7f) * (float)(1 + i / 32);
  const struct {
    uint32_t type;
    float tol; /* in units of the largest magnitude of a block of 32 */
  } cases[] = {{FORAY_GGML_F32, 0},        {FORAY_GGML_F16, 0x1p-11f}, {FORAY_GGML_BF16, 0x1p-8f},
               {FORAY_GGML_Q8_0, 0.0045f}, {FORAY_GGML_Q4_0, 0.13f},   {FORAY_GGML_Q4_1, 0.07f}};
  for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
    CU_ASSERT_EQUAL(foray_quantise_row(cases[c].type, x, b, 256), FORAY_OK);
    CU_ASSERT_EQUAL(foray_dequant_row(cases[c].type, b, y, 256), FORAY_OK);
    for (int i = 0; i < 256; i++)
      if (fabsf(x[i] - y[i]) > cases[c].tol * (float)(1 + i / 32)) CU_FAIL("too far off");
  }
}
