/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/panel.h - how a packed panel of 16 rows is laid out, for each stored type.
 * The functions take the type as a constant where they are inlined, so that nothing is decided at
 * run time.
 *
 * Float types: the elements as stored, [cols][16]. Another panel of [16][cols] is two parts, each
 * padded to 64 bytes:
 *
 *   quants   for each block of 32 columns, planes of vectors of 64 bytes; a byte (row, j) of vector
 *            i has parts of the elements k = 4g + j, g = 0..7:
 *              low plane, 8 bits: vector g;  4 bits: vector i, g = i in its low half and g = 4 + i
 *              in its high half;  2 bits: vector i, g = 4i + f at bit 2f
 *              high plane, 1 bit: one vector, g at bit g;  2 bits: vector i, g = 4i + f at bit 2f
 *            F8_E4M3: the elements as stored, [32][16]
 *   scales   for each unit of 32 or 256 columns a record: f16 d [16], f16 m [16] if there are
 *            minima, then bytes: whole numbers that d and m are multiplied by, [.][16];
 *            F8_E4M3: for each unit of 128 columns f32 d [16]
 *
 * An element is d * q or fma(d, q, m), q = (its bits) - zero, or looked up by its bits. Invariant:
 * packing loses nothing, and d times a whole number is exact in binary32.
 */
#ifndef CPU_PANEL_H
#define CPU_PANEL_H
#include "cpu.h"

#include <string.h>

static inline int panel_is_float(int32_t type)
{
    return type == PB_F32 || type == PB_F16 || type == PB_BF16;
}

/* types that meet float inputs whatever the option says */
static inline int panel_meets_float(int32_t type)
{
    return panel_is_float(type) || type == PB_F8_E4M3;
}

/* bits of an element in the low and in the high plane */
static inline int panel_low(int32_t type)
{
    return type == PB_Q8_0 || type == PB_F8_E4M3 ? 8 : type == PB_Q2_K || type == PB_Q3_K ? 2 : 4;
}
static inline int panel_high(int32_t type)
{
    switch (type) {
    case PB_Q5_0:
    case PB_Q5_1:
    case PB_Q5_K:
    case PB_Q3_K: return 1;
    case PB_Q6_K: return 2;
    default: return 0;
    }
}

/* what the stored bits are above the number that they mean */
static inline int panel_zero(int32_t type)
{
    switch (type) {
    case PB_Q8_0: return 128;
    case PB_Q6_K: return 32;
    case PB_Q5_0: return 16;
    case PB_Q4_0: return 8;
    case PB_Q3_K: return 4;
    default: return 0;
    }
}

/* The numbers that 4 bits stand for, or NULL: the bits are the number. */
static inline const int8_t *panel_table(int32_t type)
{
    static const int8_t iq4[16] = { -127, -104, -83, -65, -49, -35, -22, -10,
                                    1,    13,   25,  38,  53,  69,  89,  113 };
    /* e2m1 times 2 */
    static const int8_t fp4[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };
    return type == PB_MXFP4 ? fp4 : type == PB_IQ4_NL || type == PB_IQ4_XS ? iq4 : NULL;
}

static inline int panel_has_min(int32_t type)
{
    return type == PB_Q4_1 || type == PB_Q5_1 || type == PB_Q2_K || type == PB_Q4_K ||
           type == PB_Q5_K;
}

/* columns that share a scale */
static inline int panel_group(int32_t type)
{
    return type == PB_Q2_K || type == PB_Q3_K || type == PB_Q6_K ? 16 : 32;
}

/* columns of a record of scales */
static inline int panel_unit(int32_t type)
{
    switch (type) {
    case PB_Q2_K:
    case PB_Q3_K:
    case PB_Q4_K:
    case PB_Q5_K:
    case PB_Q6_K:
    case PB_IQ4_XS: return 256;
    case PB_F8_E4M3: return 128;
    default: return 32;
    }
}

/* halves of a record, and bytes of it for each row */
static inline int panel_halves(int32_t type)
{
    return type == PB_MXFP4 ? 0 : 1 + panel_has_min(type);
}
static inline int panel_bytes(int32_t type)
{
    switch (type) {
    case PB_Q4_K: /* of each group of 32: of d, of m */
    case PB_Q5_K:
    case PB_Q2_K: /* of each group of 16: of d in the low half, of m in the high half */
    case PB_Q3_K: /* signed, of each group of 16 */
    case PB_Q6_K: return 16;
    case PB_IQ4_XS: return 8; /* signed, of each group of 32 */
    case PB_MXFP4: return 1;  /* exponent of d */
    default: return 0;
    }
}

static inline size_t panel_record(int32_t type)
{
    if (type == PB_F8_E4M3)
        return 4 * CPU_ROWS;
    return (size_t)(2 * panel_halves(type) + panel_bytes(type)) * CPU_ROWS;
}

/* bytes of a block's quants */
static inline size_t panel_block(int32_t type)
{
    return (size_t)(panel_low(type) + panel_high(type)) * 64;
}

/* the exponent byte of MXFP4 as the scale of table numbers, 2^(e - 128); 255 gives infinity */
static inline float panel_exponent(uint8_t e)
{
    uint32_t u = (uint32_t)e << 23;
    float d;
    u = u < 0x400000u ? 0x400000u : u;
    memcpy(&d, &u, 4);
    return d * 0.5f;
}

/* An e4m3 as a half of 1/256 its value: its 4 bits of exponent and 3 of mantissa are the top of
 * the half's 5 and 10. That the pattern of NaN becomes a number there is put right by its block's
 * scale, which packing makes NaN. */
static inline uint16_t panel_e4m3(uint8_t x)
{
    return (uint16_t)((x & 0x80) << 8 | (x & 0x7f) << 7);
}

/* where the scales begin, and all bytes of a panel */
static inline uint64_t panel_scales(int32_t type, int64_t cols)
{
    return (uint64_t)cols / CPU_BLOCK * panel_block(type);
}
static inline uint64_t panel_size(int32_t type, int64_t cols)
{
    uint64_t n = (uint64_t)cols;
    if (panel_is_float(type))
        return CPU_ALIGN64(n * CPU_ROWS * (type == PB_F32 ? 4 : 2));
    return panel_scales(type, cols) +
           CPU_ALIGN64(n / (uint64_t)panel_unit(type) * panel_record(type));
}
#endif
