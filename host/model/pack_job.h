/* model/pack_job.h - what the parts of the packer share. Internal to pack*.c. */
#ifndef FORAY_MODEL_PACK_JOB_H
#define FORAY_MODEL_PACK_JOB_H

#include "model/exits.h"
#include "model/image_plan.h"
#include "model/pack.h"
#include "model/pack_codes.h"

struct foray_pack_job {
  const struct foray_model *m;
  const struct foray_pack_opts *opts;
  struct foray_exits *exits;   /* owned, or NULL */
  struct foray_exits *adapter; /* owned: LoRA alone, or NULL */
  uint32_t *vocab;             /* owned: n_trim ids, or NULL */
  struct foray_image img;      /* config, tensors, placement; no mapping */
  struct foray_codes **codes;  /* owned: n_tensors, NULL for vectors and for tables coded while writing */
  bool calibrate;
  uint32_t calib_tokens;             /* really used */
  double measured_kl;                /* sum of the tensors' costs; < 0: not measured */
  char layers_key[FORAY_SHA256_HEX]; /* identity of calibrated layers: all inputs that reach them */
  const char *reuse_dir;             /* where images with the same layers may lie, or NULL */
  const char *stage;
  double stage_from, stage_to;
};

/* Tells opts->progress; false: cancel. frac within the present stage. */
bool foray_pack_tick(const struct foray_pack_job *j, double frac);

/* Reads row r of tensor t as the image has it: dequantised, LoRA merged, rows of q and k permuted to
 * half-split RoPE, rows of the trimmed head by the list. dst: t->cols floats. */
enum foray_status foray_pack_row(const struct foray_pack_job *j, const struct foray_image_tensor *t,
                                 uint32_t r, float *dst, struct foray_err *err) FORAY_NODISCARD;
/* The whole matrix, rows in parallel. */
enum foray_status foray_pack_matrix(const struct foray_pack_job *j, const struct foray_image_tensor *t,
                                    float *dst, struct foray_err *err) FORAY_NODISCARD;
/* rows floats; permuted like the rows. */
enum foray_status foray_pack_bias(const struct foray_pack_job *j, const struct foray_image_tensor *t,
                                  float *dst, struct foray_err *err) FORAY_NODISCARD;

/* Codes of one matrix by rounding to nearest; sets t->exp, t->rms_error. */
enum foray_status foray_pack_round(const struct foray_pack_job *j, struct foray_image_tensor *t,
                                   struct foray_codes **out, struct foray_err *err) FORAY_NODISCARD;

/* Types, codes and costs of all layer matrices, by calibration (pack_calib.c). */
enum foray_status foray_pack_calibrate(struct foray_pack_job *j, struct foray_err *err) FORAY_NODISCARD;

/* Bits of block weights when the tensors have the types that they now have (places them as a side effect). */
double foray_pack_bits(struct foray_pack_job *j);

/* opts->bits_max, or the default. */
double foray_pack_bits_max(const struct foray_pack_opts *o);

/* Path of the exits file that these options mean; "" for none. */
enum foray_status foray_pack_exits_path(const struct foray_model *m, const struct foray_pack_opts *o,
                                        char *path, size_t cap, struct foray_err *err) FORAY_NODISCARD;
/* Sets j->layers_key. */
enum foray_status foray_pack_layers_key(struct foray_pack_job *j, struct foray_err *err) FORAY_NODISCARD;
/* Takes types, codes and costs of the layers from an image in reuse_dir that has the same key; *found says
 * whether there was one. Exits without LoRA, lists and heads do not reach the layers, so another set of them
 * costs seconds, not a calibration. */
enum foray_status foray_pack_reuse(struct foray_pack_job *j, bool *found,
                                   struct foray_err *err) FORAY_NODISCARD;
/* The same from opts->base_image, for what the adapter leaves alone; the rest gets its type there. */
enum foray_status foray_pack_take_base(struct foray_pack_job *j, struct foray_err *err) FORAY_NODISCARD;
/* foray_pack_run without a report. reuse_dir may be NULL. */
enum foray_status foray_pack_run_with(const struct foray_model *m, const struct foray_pack_opts *opts,
                                      const char *out_path, const char *reuse_dir,
                                      struct foray_err *err) FORAY_NODISCARD;

/* Writes the file. */
enum foray_status foray_pack_write(struct foray_pack_job *j, const char *path,
                                   struct foray_err *err) FORAY_NODISCARD;

extern const char foray_pack_sample[]; /* built-in calibration text */

#endif
