/* SPDX-License-Identifier: MIT
 *
 * plugins/weights-synthetic/quant.h - stored rows of a type from floats: small quantizers, as the
 * layouts are defined by ggml-org/ggml (ggml-common.h, block_*).
 *
 * They aim at valid blocks near the value, not at the smallest error.
 */
#ifndef QUANT_H
#define QUANT_H
#include <stdint.h>

/* elements of a block; 0: unknown type */
int32_t quant_block(int32_t type);
/* bytes of a row of cols values, a multiple of quant_block(); 0: unknown type */
uint64_t quant_row_bytes(int32_t type, int64_t cols);
/* x: [cols] floats; dst: quant_row_bytes bytes, any alignment */
void quant_row(int32_t type, int64_t cols, const float *x, void *dst);
uint16_t quant_f16(float x); /* nearest, ties to even */
float quant_f16_value(uint16_t h);

/* ---- for quant.c and quant_k.c ---- */

void quant_k(int32_t type, const float *x, unsigned char *dst); /* a block of 256 */
int quant_nearest(float x, int lo, int hi);
void quant_put16(unsigned char *p, uint16_t v);
/* index of the 16 ascending numbers that is nearest */
int quant_pick(float x, const int8_t *table);
float quant_far(const float *x, int n); /* the value farthest from 0 */
extern const int8_t quant_iq4[16];
#endif
