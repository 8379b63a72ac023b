/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/linear_avx512.c - products in AVX-512 with VNNI: linear.inc, where
 * vpdpbusd adds four products of unsigned weights and signed activations to each of 16 sums.
 */
#if defined(__x86_64__)
#include "avx512.h"

#define MAX_R 6
#define MAX_P 2
#define ONE_P 4
#include "panel.h"
#include "simd.h"

/* bytes 4g..4g+3 of a block, 16 rows: unsigned, OWN_ZERO above the numbers that they mean */
ALWAYS __m512i quants(const uint8_t *w, const int g, const int type)
{
    const int low = panel_low(type), high = panel_high(type);
    if (low == 8)
        return _mm512_loadu_si512(w + 64 * g);
    __m512i v = _mm512_loadu_si512(w + 64 * (low == 4 ? g % 4 : g / 4));
    if (low == 4 && g >= 4)
        v = _mm512_srli_epi16(v, 4);
    if (low == 2 && g % 4)
        v = _mm512_srli_epi16(v, g % 4 * 2);
    v = _mm512_and_si512(v, _mm512_set1_epi8((char)((1 << low) - 1)));
    if (high) {
        const int at = high == 2 ? g % 4 * 2 : g;
        __m512i t = _mm512_loadu_si512(w + 64 * low + (high == 2 ? 64 * (g / 4) : 0));
        t = at > low ? _mm512_srli_epi16(t, at - low) : _mm512_slli_epi16(t, low - at);
        t = _mm512_and_si512(t, _mm512_set1_epi8((char)(((1 << high) - 1) << low)));
        v = _mm512_or_si512(v, t);
    }
    if (panel_table(type)) {
        __m128i t = _mm_loadu_si128((const __m128i *)(const void *)panel_table(type));
        t = _mm_add_epi8(t, _mm_set1_epi8((char)-128));
        v = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(t), v);
    }
    return v;
}

/* sum[r][p] += bytes [4 * g0, 4 * (g0 + n)) of a block of panel p times those of row r */
ALWAYS void block_q8(const uint8_t *w, uint64_t panel_bytes, const char *x, size_t x_stride,
                     i16 sum[MAX_R][4], const int R, const int P, const int g0, const int n,
                     const int type)
{
    UNROLL for (int i = 0; i < n; i++)
    {
        /* what lies in one vector of the low plane, one after the other */
        const int g = g0 + (panel_low(type) == 4 && n == 8 ? i / 2 + i % 2 * 4 : i);
        __m512i v[4];
        UNROLL for (int p = 0; p < P; p++) v[p] = quants(w + (uint64_t)p * panel_bytes, g, type);
        UNROLL for (int r = 0; r < R; r++)
        {
            __m512i a = _mm512_set1_epi32(load_i32(x + (size_t)r * x_stride + 4 * g));
            UNROLL for (int p = 0; p < P; p++) sum[r][p] = _mm512_dpbusd_epi32(sum[r][p], v[p], a);
        }
    }
}

#define OWN_ZERO(type) (panel_table(type) ? 128 : panel_zero(type))
#define TABLE cpu_linear_avx512
#define ISA "avx512"
#define SPEED 30
#define USABLE cpu_has_avx512
#include "linear.inc"
#include "isa_end.h"
#endif
