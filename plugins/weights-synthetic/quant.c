/* SPDX-License-Identifier: MIT
 *
 * plugins/weights-synthetic/quant.c - see quant.h.
 */
#include "quant.h"

#include <patchbay/base.h>

#include <math.h>
#include <string.h>

enum { BLOCK = 32 };

uint64_t quant_row_bytes(int32_t type, int64_t cols)
{
    uint64_t n = (uint64_t)cols, blocks = n / BLOCK;
    switch (type) {
    case PB_F32: return n * 4;
    case PB_F16: return n * 2;
    case PB_Q8_0: return blocks * 34;
    case PB_Q4_0: return blocks * 18;
    case PB_Q4_1: return blocks * 20;
    default: return 0;
    }
}

uint16_t quant_f16(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    uint32_t sign = u >> 16 & 0x8000u, mag = u & 0x7fffffffu;
    if (mag > 0x7f800000u) /* NaN */
        return (uint16_t)(sign | 0x7e00u);
    if (mag >= 0x477ff000u) /* rounds above 65504 */
        return (uint16_t)(sign | 0x7c00u);
    if (mag < 0x38800000u) { /* below 2^-14: the sum with 0.5 rounds to units of 2^-24 */
        float a, half = 0.5f;
        memcpy(&a, &mag, 4);
        a += half;
        memcpy(&u, &a, 4);
        return (uint16_t)(sign | (u - 0x3f000000u));
    }
    mag += 0xfffu + (mag >> 13 & 1u);
    return (uint16_t)(sign | (mag - 0x38000000u) >> 13);
}

float quant_f16_value(uint16_t h)
{
    int e = h >> 10 & 31, m = h & 1023;
    float v = e == 31 ? (m ? NAN : INFINITY)
              : e     ? ldexpf((float)(m + 1024), e - 25)
                      : ldexpf((float)m, -24);
    return h & 0x8000 ? -v : v;
}

static void put16(unsigned char *p, uint16_t v)
{
    p[0] = (unsigned char)(v & 255);
    p[1] = (unsigned char)(v >> 8);
}

static int nearest(float x, int lo, int hi)
{
    long v = lrintf(x);
    return v < lo ? lo : v > hi ? hi : (int)v;
}

/* {half d, int8 q[32]}: x = d q */
static void q8_0(const float *x, unsigned char *dst)
{
    float max = 0;
    for (int i = 0; i < BLOCK; i++)
        max = fmaxf(max, fabsf(x[i]));
    uint16_t h = quant_f16(max / 127);
    float d = quant_f16_value(h), inv = d > 0 ? 1 / d : 0;
    put16(dst, h);
    for (int i = 0; i < BLOCK; i++)
        dst[2 + i] = (unsigned char)nearest(x[i] * inv, -127, 127);
}

/* {half d, nibbles}: x = d (q - 8); byte i holds value i (low) and i + 16 (high) */
static void q4_0(const float *x, unsigned char *dst)
{
    float far = 0;
    for (int i = 0; i < BLOCK; i++)
        if (fabsf(x[i]) > fabsf(far))
            far = x[i];
    uint16_t h = quant_f16(far / -8); /* the value farthest from 0 becomes code 0 */
    float d = quant_f16_value(h), inv = d != 0 ? 1 / d : 0;
    put16(dst, h);
    for (int i = 0; i < BLOCK / 2; i++)
        dst[2 + i] = (unsigned char)(nearest(x[i] * inv + 8, 0, 15) |
                                     nearest(x[i + 16] * inv + 8, 0, 15) << 4);
}

/* {half d, half m, nibbles}: x = d q + m */
static void q4_1(const float *x, unsigned char *dst)
{
    float lo = x[0], hi = x[0];
    for (int i = 1; i < BLOCK; i++) {
        lo = fminf(lo, x[i]);
        hi = fmaxf(hi, x[i]);
    }
    uint16_t hd = quant_f16((hi - lo) / 15), hm = quant_f16(lo);
    float d = quant_f16_value(hd), m = quant_f16_value(hm), inv = d > 0 ? 1 / d : 0;
    put16(dst, hd);
    put16(dst + 2, hm);
    for (int i = 0; i < BLOCK / 2; i++)
        dst[4 + i] = (unsigned char)(nearest((x[i] - m) * inv, 0, 15) |
                                     nearest((x[i + 16] - m) * inv, 0, 15) << 4);
}

void quant_row(int32_t type, int64_t cols, const float *x, void *dst)
{
    unsigned char *p = dst;
    if (type == PB_F32) {
        memcpy(dst, x, (size_t)cols * sizeof *x);
        return;
    }
    if (type == PB_F16) {
        for (int64_t i = 0; i < cols; i++)
            put16(p + 2 * i, quant_f16(x[i]));
        return;
    }
    int64_t bytes = (int64_t)quant_row_bytes(type, BLOCK);
    for (int64_t i = 0; i < cols / BLOCK; i++) {
        if (type == PB_Q8_0)
            q8_0(x + i * BLOCK, p + i * bytes);
        else if (type == PB_Q4_0)
            q4_0(x + i * BLOCK, p + i * bytes);
        else
            q4_1(x + i * BLOCK, p + i * bytes);
    }
}
