/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/stored.c - the stored types that products know: sizes of their blocks, and
 * how a stored block becomes the planes and the record of panel.h.
 *
 * Formats: ggml-org/ggml ggml-common.h (block structures), ggml-quants.c (order of elements);
 * MXFP4 is the OCP Microscaling specification's with an exponent first. Nothing is converted
 * that could be rounded. Test: test_rows computes products from the stored bytes by another way.
 */
#include "panel.h"

static const cpu_stored types[] = {
    { PB_F32, "F32", 1, 4, 0, { 0 } },
    { PB_F16, "F16", 1, 2, 0, { 0 } },
    { PB_BF16, "BF16", 1, 2, 0, { 0 } },
    { PB_Q4_0, "Q4_0", 32, 18, 1, { 0 } },
    { PB_Q4_1, "Q4_1", 32, 20, 2, { 0, 2 } },
    { PB_Q5_0, "Q5_0", 32, 22, 1, { 0 } },
    { PB_Q5_1, "Q5_1", 32, 24, 2, { 0, 2 } },
    { PB_Q8_0, "Q8_0", 32, 34, 1, { 0 } },
    { PB_Q2_K, "Q2_K", 256, 84, 2, { 80, 82 } },
    { PB_Q3_K, "Q3_K", 256, 110, 1, { 108 } },
    { PB_Q4_K, "Q4_K", 256, 144, 2, { 0, 2 } },
    { PB_Q5_K, "Q5_K", 256, 176, 2, { 0, 2 } },
    { PB_Q6_K, "Q6_K", 256, 210, 1, { 208 } },
    { PB_IQ4_NL, "IQ4_NL", 32, 18, 1, { 0 } },
    { PB_IQ4_XS, "IQ4_XS", 256, 136, 1, { 0 } },
    { PB_MXFP4, "MXFP4", 32, 17, 0, { 0 } },
    { PB_F8_E4M3, "F8_E4M3", 128, 132, 0, { 0 } },
};

const cpu_stored *cpu_stored_of(int32_t type)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].type == type)
            return &types[i];
    return NULL;
}

const char *cpu_type_name(int32_t type)
{
    /* what files hold besides, by the numbers of the GGUF specification */
    static const char *const others[] = {
        [9] = "Q8_1",   [15] = "Q8_K",  [16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS",
        [19] = "IQ1_S", [21] = "IQ3_S", [22] = "IQ2_S",   [24] = "I8",     [25] = "I16",
        [26] = "I32",   [27] = "I64",   [28] = "F64",     [29] = "IQ1_M",  [34] = "TQ1_0",
        [35] = "TQ2_0", [40] = "NVFP4", [41] = "Q1_0",    [42] = "Q2_0",
    };
    const cpu_stored *t = cpu_stored_of(type);
    if (t)
        return t->name;
    if (type == 1009) /* of weights-safetensors */
        return "F8_E4M3 in rows that are no multiple of 128";
    if (type >= 0 && type < (int32_t)(sizeof others / sizeof others[0]) && others[type])
        return others[type];
    return "of unknown name";
}

/* ---- elements of a stored block, as bytes ----------------------------------- */

/* 32 elements of 16 bytes: low halves, then high halves */
static void nibbles(const uint8_t *s, size_t n, uint8_t *q)
{
    for (size_t i = 0; i < n; i++) {
        q[i] = s[i] & 15;
        q[n + i] = s[i] >> 4;
    }
}

/* Q5_0, Q5_1: bit k of the four bytes h belongs to element k. Eight bits become eight bytes: each
 * byte keeps its own bit, which 0x7f then carries to its top. */
static void elements_q5(const uint8_t *h, const uint8_t *s, uint8_t *q)
{
    const uint64_t each = 0x0101010101010101u;
    nibbles(s, 16, q);
    for (int i = 0; i < 4; i++) {
        uint64_t x, bits = (h[i] * each & 0x8040201008040201u) + 0x7f * each;
        memcpy(&x, q + 8 * i, 8);
        x |= (bits >> 7 & each) << 4;
        memcpy(q + 8 * i, &x, 8);
    }
}

/* Q4_K, Q5_K: 64 elements to 32 bytes; h: bits 2c and 2c + 1 of 32 bytes belong to these, or NULL
 */
static void elements_q45k(const uint8_t *h, const uint8_t *s, uint8_t *q)
{
    for (int c = 0; c < 4; c++, s += 32, q += 64) {
        nibbles(s, 32, q);
        for (int i = 0; h && i < 32; i++) {
            q[i] = (uint8_t)(q[i] | (h[i] >> 2 * c & 1) << 4);
            q[32 + i] = (uint8_t)(q[32 + i] | (h[i] >> (2 * c + 1) & 1) << 4);
        }
    }
}

/* Q6_K: 128 elements to 64 bytes of low halves and 32 bytes of two bits */
static void elements_q6k(const uint8_t *l, const uint8_t *h, uint8_t *q)
{
    for (int n = 0; n < 2; n++, l += 64, h += 32, q += 128)
        for (int i = 0; i < 32; i++) {
            q[i] = (uint8_t)((l[i] & 15) | (h[i] & 3) << 4);
            q[32 + i] = (uint8_t)((l[32 + i] & 15) | (h[i] >> 2 & 3) << 4);
            q[64 + i] = (uint8_t)(l[i] >> 4 | (h[i] >> 4 & 3) << 4);
            q[96 + i] = (uint8_t)(l[32 + i] >> 4 | h[i] >> 6 << 4);
        }
}

/* Q2_K, Q3_K: 128 elements to 32 bytes; h: bit j of 32 bytes belongs to the j-th 32, or NULL */
static void elements_q23k(const uint8_t *h, const uint8_t *s, uint8_t *q)
{
    uint64_t x, t;
    for (int j = 0; j < 8; j++, q += 32)
        for (int i = 0; i < 32; i += 8) {
            memcpy(&x, s + j / 4 * 32 + i, 8);
            x = x >> j % 4 * 2 & 0x0303030303030303u;
            if (h) {
                memcpy(&t, h + i, 8);
                x |= (t >> j & 0x0101010101010101u) << 2;
            }
            memcpy(q + i, &x, 8);
        }
}

/* ---- bytes of a record -------------------------------------------------------- */

/* Q4_K, Q5_K: 8 pairs of six bits in 12 bytes, here one after the other */
static void scales_q45k(const uint8_t *s, uint8_t *out)
{
    for (int j = 0; j < 4; j++) {
        out[2 * j] = s[j] & 63;
        out[2 * j + 1] = s[4 + j] & 63;
        out[8 + 2 * j] = (uint8_t)((s[8 + j] & 15) | s[j] >> 6 << 4);
        out[9 + 2 * j] = (uint8_t)(s[8 + j] >> 4 | s[4 + j] >> 6 << 4);
    }
}

/* Q3_K: 16 of six bits in 12 bytes: low halves in the first 8, two bits in the last 4 */
static void scales_q3k(const uint8_t *s, uint8_t *out)
{
    for (int j = 0; j < 16; j++) {
        int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
        out[j] = (uint8_t)((low | (s[8 + j % 4] >> j / 4 * 2 & 3) << 4) - 32);
    }
}

/* IQ4_XS: 8 of six bits: low halves in 4 bytes, two bits in 2 */
static void scales_iq4xs(const uint8_t *high, const uint8_t *low, uint8_t *out)
{
    for (int j = 0; j < 8; j++) {
        int l = low[j / 2] >> j % 2 * 4 & 15, h = high[j / 4] >> j % 4 * 2 & 3;
        out[j] = (uint8_t)((l | h << 4) - 32);
    }
}

/* ---- a unit -------------------------------------------------------------------- */

/* 32 elements to the planes of their block. A word has the four bytes of a g. */
static void to_planes(int32_t type, const uint8_t *q, uint32_t *out)
{
    const int low = panel_low(type), high = panel_high(type);
    uint32_t x[8];
    memcpy(x, q, 32);
    if (low == 4)
        for (int i = 0; i < 4; i++)
            *out++ = (x[i] & 0x0f0f0f0fu) | (x[4 + i] & 0x0f0f0f0fu) << 4;
    for (int i = 0; low == 2 && i < 2; i++, out++)
        *out = (x[4 * i] & 0x03030303u) | (x[4 * i + 1] & 0x03030303u) << 2 |
               (x[4 * i + 2] & 0x03030303u) << 4 | (x[4 * i + 3] & 0x03030303u) << 6;
    if (high == 1) {
        *out = 0;
        for (int g = 0; g < 8; g++)
            *out |= (x[g] >> low & 0x01010101u) << g;
    }
    for (int i = 0; high == 2 && i < 2; i++, out++)
        *out = (x[4 * i] >> low & 0x03030303u) | (x[4 * i + 1] >> low & 0x03030303u) << 2 |
               (x[4 * i + 2] >> low & 0x03030303u) << 4 | (x[4 * i + 3] >> low & 0x03030303u) << 6;
}

static void put_half(const uint8_t *src, int flip, uint8_t out[2])
{
    out[0] = src[0];
    out[1] = (uint8_t)(src[1] ^ (flip ? 0x80 : 0));
}

static void unpack_k(int32_t type, const uint8_t *s, cpu_unit *u)
{
    uint8_t q[256];
    switch (type) {
    case PB_Q2_K:
        memcpy(u->bytes, s, 16);
        elements_q23k(NULL, s + 16, q);
        break;
    case PB_Q3_K:
        scales_q3k(s + 96, u->bytes);
        elements_q23k(s, s + 32, q);
        break;
    case PB_Q4_K:
        scales_q45k(s + 4, u->bytes);
        elements_q45k(NULL, s + 16, q);
        break;
    case PB_Q5_K:
        scales_q45k(s + 4, u->bytes);
        elements_q45k(s + 16, s + 48, q);
        break;
    default: /* Q6_K */ memcpy(u->bytes, s + 192, 16); elements_q6k(s, s + 128, q);
    }
    for (size_t b = 0; b < 8; b++)
        to_planes(type, q + 32 * b, u->plane[b]);
}

void cpu_unpack(const cpu_stored *t, const uint8_t *s, cpu_unit *u)
{
    uint8_t q[32];
    for (int i = 0; i < t->n_halves; i++) /* minima of K types are subtracted */
        put_half(s + t->half[i], i == 1 && t->n == 256, u->half[i]);
    switch (t->type) {
    case PB_Q8_0:
        memcpy(u->plane[0], s + 2, 32);
        for (int i = 0; i < 8; i++)
            u->plane[0][i] ^= 0x80808080u;
        break;
    case PB_Q4_0:
    case PB_IQ4_NL: memcpy(u->plane[0], s + 2, 16); break;
    case PB_Q4_1: memcpy(u->plane[0], s + 4, 16); break;
    case PB_MXFP4:
        u->bytes[0] = s[0];
        memcpy(u->plane[0], s + 1, 16);
        break;
    case PB_Q5_0:
    case PB_Q5_1: {
        const uint8_t *h = s + 2 * t->n_halves;
        elements_q5(h, h + 4, q);
        to_planes(t->type, q, u->plane[0]);
        break;
    }
    case PB_IQ4_XS:
        scales_iq4xs(s + 2, s + 4, u->bytes);
        for (int b = 0; b < 8; b++)
            memcpy(u->plane[b], s + 8 + 16 * b, 16);
        break;
    default: unpack_k(t->type, s, u);
    }
}
