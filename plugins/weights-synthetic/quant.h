/* SPDX-License-Identifier: MIT
 *
 * plugins/weights-synthetic/quant.h - stored rows of a type from floats: small quantizers for
 * blocks of 32, as the layouts are defined by ggml-org/ggml (ggml-common.h, block_q*).
 *
 * They aim at valid blocks near the value, not at the smallest error.
 */
#ifndef QUANT_H
#define QUANT_H
#include <stdint.h>

/* bytes of a row of cols values (a multiple of 32 for quantized types); 0: unknown type */
uint64_t quant_row_bytes(int32_t type, int64_t cols);
/* x: [cols] floats; dst: quant_row_bytes bytes, any alignment */
void quant_row(int32_t type, int64_t cols, const float *x, void *dst);
uint16_t quant_f16(float x); /* nearest, ties to even */
float quant_f16_value(uint16_t h);
#endif
