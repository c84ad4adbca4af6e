/* engine/repack.h - from the blocks of a GGUF tensor to the layout of kernels.h. Internal to the engine. */
#ifndef FORAY_ENGINE_REPACK_H
#define FORAY_ENGINE_REPACK_H

#include "engine/kernels.h"

#include <foray/status.h>
#include <stdbool.h>
#include <stdint.h>

/* Fills format, shape and sizes of *m (not data) for a rows x cols tensor of a GGUF type. False when there is
 * no kernel for the type, or cols is not a multiple of its block. */
bool ek_mat_shape(struct ek_mat *m, uint32_t ggml_type, int32_t rows, int32_t cols);
/* Bytes of the whole matrix: ek_blocks * block_bytes. */
size_t ek_mat_bytes(const struct ek_mat *m);
/* Repacks blocks [b0, b1): src is the tensor's first byte, dst the matrix's. Writes every byte of these
 * blocks. */
void ek_repack(const struct ek_mat *m, const uint8_t *src, size_t row_bytes, uint8_t *dst, int b0, int b1);
/* out[0..cols) = row `row` as floats: code * scale, then + offset. */
void ek_row(const struct ek_mat *m, int32_t row, float *out);

#endif
