/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/test_rows_types.c - stored types for test_rows: random blocks, and what an
 * element of a stored block means, looked up one by one in the block's fields.
 *
 * Written from the formats (ggml-org/ggml ggml-common.h and ggml-quants.c; OCP Microscaling 1.0 for
 * MXFP4) and apart from stored.c and panel.h, which it checks: no table or order is shared.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "test_rows.h"

size_t type_block(int32_t type, size_t *elements)
{
    *elements = 32;
    switch (type) {
    case PB_F32: *elements = 1; return 4;
    case PB_F16:
    case PB_BF16: *elements = 1; return 2;
    case PB_Q4_0:
    case PB_IQ4_NL: return 2 + 16;
    case PB_Q4_1: return 2 + 2 + 16;
    case PB_Q5_0: return 2 + 4 + 16;
    case PB_Q5_1: return 2 + 2 + 4 + 16;
    case PB_Q8_0: return 2 + 32;
    case PB_MXFP4: return 1 + 16;
    case PB_F8_E4M3: *elements = 128; return 4 + 128;
    default: break;
    }
    *elements = 256;
    switch (type) {
    case PB_Q2_K: return 16 + 64 + 2 + 2;
    case PB_Q3_K: return 32 + 64 + 12 + 2;
    case PB_Q4_K: return 2 + 2 + 12 + 128;
    case PB_Q5_K: return 2 + 2 + 12 + 32 + 128;
    case PB_Q6_K: return 128 + 64 + 16 + 2;
    case PB_IQ4_XS: return 2 + 2 + 4 + 128;
    default: fail_msg("test_rows does not know type %d", type); return 0;
    }
}

static float half_of(const uint8_t *p)
{
    return m_half((uint16_t)(p[0] | p[1] << 8));
}

int type_has_min(int32_t type)
{
    return type == PB_Q4_1 || type == PB_Q5_1 || type == PB_Q2_K || type == PB_Q4_K ||
           type == PB_Q5_K;
}

int type_group(int32_t type)
{
    return type == PB_Q2_K || type == PB_Q3_K || type == PB_Q6_K ? 16 : 32;
}

/* six bits: number i of the scales (which 0) or minima (1) of Q4_K and Q5_K */
static int six_bits(const uint8_t *s, int i, int which)
{
    if (i < 4)
        return s[i + 4 * which] & 63;
    return (which ? s[i + 4] >> 4 : s[i + 4] & 15) | (s[i - 4 + 4 * which] >> 6) << 4;
}

/* types of 32 elements */
static element small_at(int32_t type, const uint8_t *b, int k)
{
    static const int e2m1[8] = { 0, 1, 2, 3, 4, 6, 8, 12 };
    static const int iq4[16] = { -127, -104, -83, -65, -49, -35, -22, -10,
                                 1,    13,   25,  38,  53,  69,  89,  113 };
    const uint8_t *last = b + type_block(type, &(size_t){ 0 }) - 16; /* of 4-bit types */
    int nibble = k < 16 ? last[k] & 15 : last[k - 16] >> 4;
    element e = { .d = half_of(b), .q = nibble };
    switch (type) {
    case PB_Q8_0: e.q = (int8_t)b[2 + k]; break;
    case PB_Q4_0: e.q -= 8; break;
    case PB_Q4_1: e.m = half_of(b + 2); break;
    case PB_Q5_0: e.q = (nibble | (b[2 + k / 8] >> k % 8 & 1) << 4) - 16; break;
    case PB_Q5_1:
        e.m = half_of(b + 2);
        e.q = nibble | (b[4 + k / 8] >> k % 8 & 1) << 4;
        break;
    case PB_IQ4_NL: e.q = iq4[nibble]; break;
    default: /* MXFP4: 2^(e - 127) times halves of whole numbers */
        e.d = b[0] == 255 ? __builtin_inff() : (float)__builtin_ldexp(1.0, b[0] - 128);
        e.q = nibble & 8 ? -e2m1[nibble & 7] : e2m1[nibble];
    }
    return e;
}

/* types of 256 elements */
static element large_at(int32_t type, const uint8_t *b, int k)
{
    const int n = k / 128, l = k % 32, j = k % 128 / 32; /* of 128, of the 32 among these */
    element e = { 0 };
    int s;
    switch (type) {
    case PB_Q2_K:
        s = b[k / 16];
        e.d = half_of(b + 80) * (float)(s & 15);
        e.m = -(half_of(b + 82) * (float)(s >> 4));
        e.q = b[16 + 32 * n + l] >> 2 * j & 3;
        break;
    case PB_Q3_K: {
        int i = k / 16, low = i < 8 ? b[96 + i] & 15 : b[96 + i - 8] >> 4;
        s = (low | (b[104 + i % 4] >> 2 * (i / 4) & 3) << 4) - 32;
        e.d = half_of(b + 108) * (float)s;
        e.q = (b[32 + 32 * n + l] >> 2 * j & 3) - (b[l] >> (4 * n + j) & 1 ? 0 : 4);
        break;
    }
    case PB_Q4_K:
    case PB_Q5_K: {
        const uint8_t *qs = b + (type == PB_Q4_K ? 16 : 48) + k / 64 * 32;
        e.d = half_of(b) * (float)six_bits(b + 4, k / 32, 0);
        e.m = -(half_of(b + 2) * (float)six_bits(b + 4, k / 32, 1));
        e.q = k % 64 < 32 ? qs[l] & 15 : qs[l] >> 4;
        if (type == PB_Q5_K)
            e.q += (b[16 + l] >> k / 32 & 1) * 16;
        break;
    }
    case PB_Q6_K: {
        int low = b[64 * n + j % 2 * 32 + l] >> (j < 2 ? 0 : 4) & 15;
        e.d = half_of(b + 208) * (float)(int8_t)b[192 + k / 16];
        e.q = low + (b[128 + 32 * n + l] >> 2 * j & 3) * 16 - 32;
        break;
    }
    default: /* IQ4_XS: its elements are IQ4_NL's */
        s = (b[4 + k / 64] >> (k / 32 % 2 ? 4 : 0) & 15) | ((b[2] | b[3] << 8) >> 2 * (k / 32) & 3)
                                                               << 4;
        e = small_at(PB_IQ4_NL, b + 8 + 16 * (k / 32) - 2, k % 32);
        e.d = half_of(b) * (float)(s - 32);
    }
    return e;
}

/* OCP 8-bit Floating Point Specification 1.0: sign, 4 bits of exponent with bias 7, 3 of mantissa;
 * no infinities. A NaN makes its block NaN. */
static element f8_at(const uint8_t *b, int k)
{
    element e = { .q = 1 };
    float scale;
    int x = b[4 + k], exponent = x >> 3 & 15, mantissa = x & 7;
    memcpy(&scale, b, 4);
    double v = exponent ? __builtin_ldexp(8 + mantissa, exponent - 7 - 3)
                        : __builtin_ldexp(mantissa, -6 - 3);
    e.d = scale * 256.0f * (float)((x & 0x80 ? -v : v) / 256);
    for (int i = 0; i < 128; i++)
        if ((b[4 + i] & 0x7f) == 0x7f)
            e.d = __builtin_nanf("");
    return e;
}

element type_at(int32_t type, const uint8_t *block, int k)
{
    size_t n;
    element e = { .q = 1 };
    type_block(type, &n);
    if (n == 128)
        return f8_at(block, k);
    if (n == 256)
        return large_at(type, block, k);
    if (n == 32)
        return small_at(type, block, k);
    if (type == PB_F32)
        memcpy(&e.d, block, 4);
    else if (type == PB_F16)
        e.d = half_of(block);
    else
        e.d = m_float((uint32_t)block[0] << 16 | (uint32_t)block[1] << 24);
    return e;
}

/* ---- random blocks ------------------------------------------------------------------ */

static uint16_t scale_half(int32_t fill, uint32_t *s)
{
    uint32_t r = rnd_next(s);
    if (fill == F_NORMAL || fill == F_EXTREME) /* about 2^-7, either sign */
        return (uint16_t)(0x2000u | (r & 0x83ffu));
    if (fill == F_TINY) /* zeros and subnormals */
        return (uint16_t)(r & (r & 0x10000u ? 0x8000u : 0x83ffu));
    return (uint16_t)r;
}

static void put_half(uint8_t *p, uint16_t h)
{
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
}

static void fill_float(int32_t type, int32_t fill, uint8_t *w, uint32_t *s)
{
    float x = fill == F_WILD ? rnd_bits(s) : rnd_float(s);
    if (fill == F_TINY)
        x = m_float(m_bits(rnd_bits(s)) & 0x807fffffu);
    if (type == PB_F32)
        memcpy(w, &x, 4);
    else if (type == PB_BF16)
        put_half(w, (uint16_t)(m_bits(x) >> 16));
    else
        put_half(w, fill == F_NORMAL || fill == F_EXTREME ? m_to_half(x) : scale_half(fill, s));
}

void type_fill(int32_t type, int32_t fill, uint8_t *w, uint32_t *s)
{
    static const struct {
        int32_t type, at, n; /* where the halves are */
    } halves[] = {
        { PB_Q2_K, 80, 2 }, { PB_Q3_K, 108, 1 }, { PB_Q6_K, 208, 1 }, { PB_Q4_1, 0, 2 },
        { PB_Q5_1, 0, 2 },  { PB_Q4_K, 0, 2 },   { PB_Q5_K, 0, 2 },   { PB_MXFP4, 0, 0 }
    };
    size_t n, bytes = type_block(type, &n);
    int32_t at = 0, count = 1;
    if (n == 1) {
        fill_float(type, fill, w, s);
        return;
    }
    uint8_t same = (uint8_t)(rnd_to(s, 2) ? 0xff : 0x00); /* all numbers at one end */
    for (size_t i = 0; i < bytes; i++)
        w[i] = fill == F_EXTREME ? same : (uint8_t)rnd_next(s);
    if (fill == F_EXTREME && type == PB_Q8_0)
        memset(w + 2, same ? 0x7f : 0x80, 32);
    for (size_t i = 0; i < sizeof halves / sizeof halves[0]; i++)
        if (halves[i].type == type)
            at = halves[i].at, count = halves[i].n;
    for (int32_t i = 0; i < count; i++)
        put_half(w + at + 2 * i, scale_half(fill, s));
    if (type == PB_F8_E4M3) { /* NaN only in the wild */
        float d = fill == F_WILD ? rnd_bits(s) : rnd_float(s) / 64;
        d = fill == F_TINY ? m_float(m_bits(rnd_bits(s)) & 0x807fffffu) : d;
        memcpy(w, &d, 4);
        for (size_t i = 4; i < bytes && (fill != F_WILD || rnd_to(s, 2)); i++)
            w[i] = (w[i] & 0x7f) == 0x7f ? w[i] ^ 1 : w[i];
        return;
    }
    if (type == PB_MXFP4) /* about 2^-7; denormal; all */
        w[0] = (uint8_t)(fill == F_TINY ? rnd_to(s, 4) : fill == F_WILD ? rnd_to(s, 256) : 121);
}
