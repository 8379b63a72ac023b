/* SPDX-License-Identifier: MIT
 *
 * plugins/weights-synthetic/quant.c - see quant.h.
 */
#include "quant.h"

#include <patchbay/base.h>

#include <math.h>
#include <string.h>

enum { BLOCK = 32 };

static const struct {
    int32_t type, block, bytes;
} types[] = {
    { PB_F32, 1, 4 },      { PB_F16, 1, 2 },      { PB_BF16, 1, 2 },     { PB_Q8_0, 32, 34 },
    { PB_Q4_0, 32, 18 },   { PB_Q4_1, 32, 20 },   { PB_Q5_0, 32, 22 },   { PB_Q5_1, 32, 24 },
    { PB_IQ4_NL, 32, 18 }, { PB_MXFP4, 32, 17 },  { PB_Q2_K, 256, 84 },  { PB_Q3_K, 256, 110 },
    { PB_Q4_K, 256, 144 }, { PB_Q5_K, 256, 176 }, { PB_Q6_K, 256, 210 }, { PB_IQ4_XS, 256, 136 },
};

static size_t find(int32_t type)
{
    size_t i = 0;
    while (i < sizeof types / sizeof types[0] && types[i].type != type)
        i++;
    return i;
}

int32_t quant_block(int32_t type)
{
    size_t i = find(type);
    return i < sizeof types / sizeof types[0] ? types[i].block : 0;
}

uint64_t quant_row_bytes(int32_t type, int64_t cols)
{
    size_t i = find(type);
    return i < sizeof types / sizeof types[0]
               ? (uint64_t)(cols / types[i].block) * (uint64_t)types[i].bytes
               : 0;
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

void quant_put16(unsigned char *p, uint16_t v)
{
    p[0] = (unsigned char)(v & 255);
    p[1] = (unsigned char)(v >> 8);
}

int quant_nearest(float x, int lo, int hi)
{
    long v = lrintf(x);
    return v < lo ? lo : v > hi ? hi : (int)v;
}

float quant_far(const float *x, int n)
{
    float far = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(far))
            far = x[i];
    return far;
}

const int8_t quant_iq4[16] = { -127, -104, -83, -65, -49, -35, -22, -10,
                               1,    13,   25,  38,  53,  69,  89,  113 };

int quant_pick(float x, const int8_t *table)
{
    int i = 0;
    while (i < 15 && x > (float)(table[i] + table[i + 1]) / 2)
        i++;
    return i;
}

/* {half d, int8 q[32]}: x = d q */
static void q8_0(const float *x, unsigned char *dst)
{
    float max = 0;
    for (int i = 0; i < BLOCK; i++)
        max = fmaxf(max, fabsf(x[i]));
    uint16_t h = quant_f16(max / 127);
    float d = quant_f16_value(h), inv = d > 0 ? 1 / d : 0;
    quant_put16(dst, h);
    for (int i = 0; i < BLOCK; i++)
        dst[2 + i] = (unsigned char)quant_nearest(x[i] * inv, -127, 127);
}

static void put_nibbles(const int *q, unsigned char *dst)
{
    for (int i = 0; i < BLOCK / 2; i++)
        dst[i] = (unsigned char)((q[i] & 15) | (q[i + 16] & 15) << 4);
}

static void put_fifth_bits(const int *q, unsigned char *dst)
{
    for (int i = 0; i < 4; i++)
        dst[i] = 0;
    for (int i = 0; i < BLOCK; i++)
        dst[i / 8] = (unsigned char)(dst[i / 8] | (q[i] >> 4 & 1) << i % 8);
}

/* {half d, high bits of 5, nibbles}: x = d (q - 8) or d (q - 16); byte i holds value i (low) and
 * i + 16 (high) */
static void q45_0(const float *x, unsigned char *dst, int bits)
{
    const int top = 1 << bits;
    /* the value farthest from 0 becomes code 0 */
    uint16_t h = quant_f16(quant_far(x, BLOCK) / (float)(-top / 2));
    float d = quant_f16_value(h), inv = d != 0 ? 1 / d : 0;
    int q[BLOCK];
    for (int i = 0; i < BLOCK; i++)
        q[i] = quant_nearest(x[i] * inv + (float)(top / 2), 0, top - 1);
    quant_put16(dst, h);
    if (bits == 5)
        put_fifth_bits(q, dst + 2);
    put_nibbles(q, dst + (bits == 5 ? 6 : 2));
}

/* {half d, half m, high bits of 5, nibbles}: x = d q + m */
static void q45_1(const float *x, unsigned char *dst, int bits)
{
    const int most = (1 << bits) - 1;
    float lo = x[0], hi = x[0];
    for (int i = 1; i < BLOCK; i++) {
        lo = fminf(lo, x[i]);
        hi = fmaxf(hi, x[i]);
    }
    uint16_t hd = quant_f16((hi - lo) / (float)most), hm = quant_f16(lo);
    float d = quant_f16_value(hd), m = quant_f16_value(hm), inv = d > 0 ? 1 / d : 0;
    int q[BLOCK];
    for (int i = 0; i < BLOCK; i++)
        q[i] = quant_nearest((x[i] - m) * inv, 0, most);
    quant_put16(dst, hd);
    quant_put16(dst + 2, hm);
    if (bits == 5)
        put_fifth_bits(q, dst + 4);
    put_nibbles(q, dst + (bits == 5 ? 8 : 4));
}

/* {half d, nibbles}: x = d table[q] */
static void iq4_nl(const float *x, unsigned char *dst)
{
    uint16_t h = quant_f16(quant_far(x, BLOCK) / -127);
    float d = quant_f16_value(h), inv = d != 0 ? 1 / d : 0;
    int q[BLOCK];
    for (int i = 0; i < BLOCK; i++)
        q[i] = quant_pick(x[i] * inv, quant_iq4);
    quant_put16(dst, h);
    put_nibbles(q, dst + 2);
}

/* {exponent, nibbles}: x = 2^(e - 127) times an e2m1 number, of which the largest is 6 */
static void mxfp4(const float *x, unsigned char *dst)
{
    /* twice the numbers, and those that come after 12 are never near */
    static const int8_t table[16] = { 0,   1,   2,   3,   4,   6,   8,   12,
                                      100, 100, 100, 100, 100, 100, 100, 100 };
    int e = 0, q[BLOCK];
    frexpf(fabsf(quant_far(x, BLOCK)), &e); /* far < 2^e: 4 to 8 halves below it */
    e = e - 3 + 127 < 0 ? 0 : e - 3 + 127;
    for (int i = 0; i < BLOCK; i++) {
        int k = quant_pick(fabsf(ldexpf(x[i], 128 - e)), table);
        q[i] = (k > 7 ? 7 : k) | (x[i] < 0 ? 8 : 0);
    }
    dst[0] = (unsigned char)e;
    put_nibbles(q, dst + 1);
}

static uint16_t bf16(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16); /* finite values only */
}

void quant_row(int32_t type, int64_t cols, const float *x, void *dst)
{
    unsigned char *p = dst;
    if (type == PB_F32) {
        memcpy(dst, x, (size_t)cols * sizeof *x);
        return;
    }
    if (type == PB_F16 || type == PB_BF16) {
        for (int64_t i = 0; i < cols; i++)
            quant_put16(p + 2 * i, type == PB_F16 ? quant_f16(x[i]) : bf16(x[i]));
        return;
    }
    const int32_t block = quant_block(type);
    const int64_t bytes = (int64_t)quant_row_bytes(type, block);
    for (int64_t i = 0; i < cols / block; i++, x += block, p += bytes)
        switch (type) {
        case PB_Q8_0: q8_0(x, p); break;
        case PB_Q4_0: q45_0(x, p, 4); break;
        case PB_Q5_0: q45_0(x, p, 5); break;
        case PB_Q4_1: q45_1(x, p, 4); break;
        case PB_Q5_1: q45_1(x, p, 5); break;
        case PB_IQ4_NL: iq4_nl(x, p); break;
        case PB_MXFP4: mxfp4(x, p); break;
        default: quant_k(type, x, p);
        }
}
