/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/linear_avx2.c - products in AVX2: linear.inc, where vpmaddubsw adds pairs of
 * products in 16 bits. No sum may exceed them: of weights of n bits and their sums FLUSH pairs,
 * each at most 2 * (2^n - 1) * 127, are added before they go to 32 bits. Weights of 8 bits go by
 * their absolute value, at most 2 * 128 * 127, with the sign on the activation.
 */
#if defined(__x86_64__)
#include "avx2.h"

#define MAX_R 2
#define MAX_P 1
#define ONE_P 1
#include "panel.h"
#include "simd.h"

ALWAYS __m256i load8(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

ALWAYS __m256i four(const char *p)
{
    int32_t x;
    memcpy(&x, p, 4);
    return _mm256_set1_epi32(x);
}

/* 1: quants() are the numbers themselves, with their signs */
#define SIGNED(type) ((type) == PB_Q8_0 || (type) == PB_IQ4_NL || (type) == PB_IQ4_XS)
#define OWN_ZERO(type) (SIGNED(type) ? 0 : (type) == PB_MXFP4 ? 12 : panel_zero(type))
/* at most 128, 63, 31 (24 for MXFP4), 15 */
#define FLUSH(type)                                                                                \
    (SIGNED(type)                                                    ? 1                           \
     : panel_low(type) + panel_high(type) == 6                       ? 2                           \
     : panel_low(type) + panel_high(type) == 5 || (type) == PB_MXFP4 ? 4                           \
                                                                     : 8)

/* bytes 4g..4g+3 of a block, 8 rows: OWN_ZERO above the numbers that they mean */
ALWAYS __m256i quants(const uint8_t *w, const int g, const int type)
{
    const int low = panel_low(type), high = panel_high(type);
    if (low == 8)
        return _mm256_xor_si256(load8(w + 64 * g), _mm256_set1_epi8(-128));
    __m256i v = load8(w + 64 * (low == 4 ? g % 4 : g / 4));
    if (low == 4 && g >= 4)
        v = _mm256_srli_epi16(v, 4);
    if (low == 2 && g % 4)
        v = _mm256_srli_epi16(v, g % 4 * 2);
    v = _mm256_and_si256(v, _mm256_set1_epi8((char)((1 << low) - 1)));
    if (high) {
        const int at = high == 2 ? g % 4 * 2 : g;
        __m256i t = load8(w + 64 * low + (high == 2 ? 64 * (g / 4) : 0));
        t = at > low ? _mm256_srli_epi16(t, at - low) : _mm256_slli_epi16(t, low - at);
        t = _mm256_and_si256(t, _mm256_set1_epi8((char)(((1 << high) - 1) << low)));
        v = _mm256_or_si256(v, t);
    }
    if (panel_table(type)) {
        __m128i t = _mm_loadu_si128((const __m128i *)(const void *)panel_table(type));
        t = _mm_add_epi8(t, _mm_set1_epi8((char)OWN_ZERO(type)));
        v = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(t), v);
    }
    return v;
}

/* products of four bytes in 16 bits, two and two added */
ALWAYS __m256i pairs(__m256i w, __m256i q, const int type)
{
    if (SIGNED(type))
        return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w));
    return _mm256_maddubs_epi16(w, q);
}

/* sum[r][0] += bytes [4 * g0, 4 * (g0 + n)) of a block of the panel times those of row r */
ALWAYS void block_q8(const uint8_t *w, uint64_t panel_bytes, const char *x, size_t x_stride,
                     i16 sum[MAX_R][4], const int R, const int P, const int g0, const int n,
                     const int type)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i a[MAX_R], b[MAX_R];
    (void)panel_bytes;
    (void)P;
    UNROLL for (int i = 0; i < n; i++)
    {
        const int g = g0 + (panel_low(type) == 4 && n == 8 ? i / 2 + i % 2 * 4 : i);
        const int first = i % FLUSH(type) == 0;
        const int last = i % FLUSH(type) == FLUSH(type) - 1 || i == n - 1;
        __m256i va = quants(w, g, type), vb = quants(w + 32, g, type);
        UNROLL for (int r = 0; r < R; r++)
        {
            __m256i q = four(x + (size_t)r * x_stride + 4 * g);
            __m256i pa = pairs(va, q, type), pb = pairs(vb, q, type);
            a[r] = first ? pa : _mm256_add_epi16(a[r], pa);
            b[r] = first ? pb : _mm256_add_epi16(b[r], pb);
            if (last) {
                sum[r][0].a = _mm256_add_epi32(sum[r][0].a, _mm256_madd_epi16(a[r], ones));
                sum[r][0].b = _mm256_add_epi32(sum[r][0].b, _mm256_madd_epi16(b[r], ones));
            }
        }
    }
}

#define TABLE cpu_linear_avx2
#define ISA "avx2"
#define SPEED 20
#define USABLE cpu_has_avx2
#include "linear.inc"
#include "isa_end.h"
#endif
