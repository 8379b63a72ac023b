/* SPDX-License-Identifier: MIT
 *
 * plugins/weights-synthetic/quant_k.c - blocks of 256 (Q2_K to Q6_K, IQ4_XS): groups with scales
 * of few bits under one half, or two with minima. See quant.h.
 */
#include "quant.h"

#include <patchbay/base.h>

#include <math.h>
#include <string.h>

enum { N = 256, MOST_GROUPS = 16 };

typedef struct coded {
    uint16_t d, dmin;
    int scale[MOST_GROUPS], min[MOST_GROUPS]; /* whole numbers that d and dmin are multiplied by */
    int q[N];
} coded;

/* x = d * scale * q, q in -top..top-1: the value farthest from 0 of a group becomes -top */
static void without_minima(const float *x, int groups, int top, int lowest, int highest, coded *c)
{
    const int n = N / groups;
    float s[MOST_GROUPS] = { 0 };
    for (int g = 0; g < groups; g++)
        s[g] = quant_far(x + g * n, n) / (float)-top;
    c->d = quant_f16(quant_far(s, groups) / (float)lowest);
    float d = quant_f16_value(c->d);
    for (int g = 0; g < groups; g++) {
        c->scale[g] = quant_nearest(d != 0 ? s[g] / d : 0, lowest, highest);
        float step = d * (float)c->scale[g], inv = step != 0 ? 1 / step : 0;
        for (int i = g * n; i < (g + 1) * n; i++)
            c->q[i] = quant_nearest(x[i] * inv, -top, top - 1);
    }
}

/* x = d * scale * q - dmin * min, q in 0..most, scale and min in 0..limit */
static void with_minima(const float *x, int groups, int most, int limit, coded *c)
{
    const int n = N / groups;
    float s[MOST_GROUPS] = { 0 }, m[MOST_GROUPS] = { 0 };
    for (int g = 0; g < groups; g++) {
        float lo = 0, hi = 0;
        for (int i = g * n; i < (g + 1) * n; i++) {
            lo = fminf(lo, x[i]);
            hi = fmaxf(hi, x[i]);
        }
        s[g] = (hi - lo) / (float)most;
        m[g] = -lo;
    }
    c->d = quant_f16(quant_far(s, groups) / (float)limit);
    c->dmin = quant_f16(quant_far(m, groups) / (float)limit);
    float d = quant_f16_value(c->d), dmin = quant_f16_value(c->dmin);
    for (int g = 0; g < groups; g++) {
        c->scale[g] = quant_nearest(d > 0 ? s[g] / d : 0, 0, limit);
        c->min[g] = quant_nearest(dmin > 0 ? m[g] / dmin : 0, 0, limit);
        float step = d * (float)c->scale[g], inv = step > 0 ? 1 / step : 0;
        for (int i = g * n; i < (g + 1) * n; i++)
            c->q[i] = quant_nearest((x[i] + dmin * (float)c->min[g]) * inv, 0, most);
    }
}

static void or_in(unsigned char *p, int bits, int shift)
{
    *p = (unsigned char)(*p | bits << shift);
}

/* {scales | mins << 4, two bits of each, half d, half dmin} */
static void q2_k(const float *x, unsigned char *dst, coded *c)
{
    with_minima(x, 16, 3, 15, c);
    for (int g = 0; g < 16; g++)
        dst[g] = (unsigned char)(c->scale[g] | c->min[g] << 4);
    for (int i = 0; i < N; i++)
        or_in(dst + 16 + i / 128 * 32 + i % 32, c->q[i], i / 32 % 4 * 2);
    quant_put16(dst + 80, c->d);
    quant_put16(dst + 82, c->dmin);
}

/* {third bit of each, two bits of each, scales of 6 bits, half d} */
static void q3_k(const float *x, unsigned char *dst, coded *c)
{
    without_minima(x, 16, 4, -32, 31, c);
    for (int i = 0; i < N; i++) {
        int q = c->q[i] + 4;
        or_in(dst + i % 32, q >> 2, i / 32);
        or_in(dst + 32 + i / 128 * 32 + i % 32, q & 3, i / 32 % 4 * 2);
    }
    for (int g = 0; g < 16; g++) {
        int s = c->scale[g] + 32;
        or_in(dst + 96 + g % 8, s & 15, g / 8 * 4);
        or_in(dst + 104 + g % 4, s >> 4, g / 4 * 2);
    }
    quant_put16(dst + 108, c->d);
}

/* {half d, half dmin, scales and mins of 6 bits, fifth bits of Q5_K, nibbles} */
static void q45_k(const float *x, unsigned char *dst, coded *c, int bits)
{
    unsigned char *s = dst + 4, *h = dst + 16, *q = dst + (bits == 5 ? 48 : 16);
    with_minima(x, 8, (1 << bits) - 1, 63, c);
    quant_put16(dst, c->d);
    quant_put16(dst + 2, c->dmin);
    for (int g = 0; g < 4; g++) {
        s[g] = (unsigned char)(c->scale[g] | c->scale[g + 4] >> 4 << 6);
        s[g + 4] = (unsigned char)(c->min[g] | c->min[g + 4] >> 4 << 6);
        s[g + 8] = (unsigned char)((c->scale[g + 4] & 15) | (c->min[g + 4] & 15) << 4);
    }
    for (int i = 0; i < N; i++) {
        or_in(q + i / 64 * 32 + i % 32, c->q[i] & 15, i / 32 % 2 * 4);
        if (bits == 5)
            or_in(h + i % 32, c->q[i] >> 4, i / 32);
    }
}

/* {nibbles, two bits of each, int8 scales, half d} */
static void q6_k(const float *x, unsigned char *dst, coded *c)
{
    without_minima(x, 16, 32, -128, 127, c);
    for (int i = 0; i < N; i++) {
        int q = c->q[i] + 32;
        or_in(dst + i / 128 * 64 + i % 64, q & 15, i / 64 % 2 * 4);
        or_in(dst + 128 + i / 128 * 32 + i % 32, q >> 4, i / 32 % 4 * 2);
    }
    for (int g = 0; g < 16; g++)
        dst[192 + g] = (unsigned char)c->scale[g];
    quant_put16(dst + 208, c->d);
}

/* {half d, high scale bits, low scale bits, nibbles}: x = d * scale * table[q] */
static void iq4_xs(const float *x, unsigned char *dst, coded *c)
{
    without_minima(x, 8, 127, -32, 31, c); /* for the scales */
    float d = quant_f16_value(c->d);
    quant_put16(dst, c->d);
    for (int g = 0; g < 8; g++) {
        int s = c->scale[g] + 32;
        float step = d * (float)c->scale[g], inv = step != 0 ? 1 / step : 0;
        or_in(dst + 2 + g / 4, s >> 4, g % 4 * 2);
        or_in(dst + 4 + g / 2, s & 15, g % 2 * 4);
        for (int i = 0; i < 32; i++)
            or_in(dst + 8 + 16 * g + i % 16, quant_pick(x[32 * g + i] * inv, quant_iq4),
                  i / 16 * 4);
    }
}

void quant_k(int32_t type, const float *x, unsigned char *dst)
{
    coded c;
    memset(dst, 0, (size_t)quant_row_bytes(type, N));
    switch (type) {
    case PB_Q2_K: q2_k(x, dst, &c); break;
    case PB_Q3_K: q3_k(x, dst, &c); break;
    case PB_Q4_K: q45_k(x, dst, &c, 4); break;
    case PB_Q5_K: q45_k(x, dst, &c, 5); break;
    case PB_Q6_K: q6_k(x, dst, &c); break;
    default: iq4_xs(x, dst, &c);
    }
}
