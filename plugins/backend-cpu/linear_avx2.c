/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/linear_avx2.c - products in AVX2: linear.inc, where vpmaddubsw adds pairs of
 * products in 16 bits. No pair may exceed them: 4-bit weights stay below 2 * 15 * 127, and all
 * eight groups of a block below 8 times that; 8-bit weights go by their absolute value, at most
 * 2 * 128 * 127, with the sign on the activation.
 */
#if defined(__x86_64__)
#include "avx2.h"

#define MAX_R 2
#define MAX_P 1
#define ONE_P 1
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

ALWAYS void block_8bit(const uint8_t *w, const char *x, size_t x_stride, i16 sum[MAX_R][4],
                       const int R)
{
    const __m256i ones = _mm256_set1_epi16(1), flip = _mm256_set1_epi8(-128);
    UNROLL for (int i = 0; i < 8; i++)
    {
        __m256i va = _mm256_xor_si256(load8(w + 64 * i), flip);
        __m256i vb = _mm256_xor_si256(load8(w + 64 * i + 32), flip);
        __m256i ua = _mm256_abs_epi8(va), ub = _mm256_abs_epi8(vb);
        UNROLL for (int r = 0; r < R; r++)
        {
            __m256i q = four(x + (size_t)r * x_stride + 4 * i);
            __m256i a = _mm256_maddubs_epi16(ua, _mm256_sign_epi8(q, va));
            __m256i b = _mm256_maddubs_epi16(ub, _mm256_sign_epi8(q, vb));
            sum[r][0].a = _mm256_add_epi32(sum[r][0].a, _mm256_madd_epi16(a, ones));
            sum[r][0].b = _mm256_add_epi32(sum[r][0].b, _mm256_madd_epi16(b, ones));
        }
    }
}

ALWAYS void block_4bit(const uint8_t *w, const char *x, size_t x_stride, i16 sum[MAX_R][4],
                       const int R)
{
    const __m256i ones = _mm256_set1_epi16(1), low = _mm256_set1_epi8(15);
    __m256i a[MAX_R], b[MAX_R];
    UNROLL for (int r = 0; r < R; r++) a[r] = b[r] = _mm256_setzero_si256();
    UNROLL for (int i = 0; i < 4; i++)
    {
        __m256i va = load8(w + 64 * i), vb = load8(w + 64 * i + 32);
        __m256i ha = _mm256_and_si256(_mm256_srli_epi16(va, 4), low);
        __m256i hb = _mm256_and_si256(_mm256_srli_epi16(vb, 4), low);
        va = _mm256_and_si256(va, low);
        vb = _mm256_and_si256(vb, low);
        UNROLL for (int r = 0; r < R; r++)
        {
            __m256i q = four(x + (size_t)r * x_stride + 4 * i);
            __m256i h = four(x + (size_t)r * x_stride + 4 * i + 16);
            a[r] = _mm256_add_epi16(
                a[r], _mm256_add_epi16(_mm256_maddubs_epi16(va, q), _mm256_maddubs_epi16(ha, h)));
            b[r] = _mm256_add_epi16(
                b[r], _mm256_add_epi16(_mm256_maddubs_epi16(vb, q), _mm256_maddubs_epi16(hb, h)));
        }
    }
    UNROLL for (int r = 0; r < R; r++)
    {
        sum[r][0].a = _mm256_add_epi32(sum[r][0].a, _mm256_madd_epi16(a[r], ones));
        sum[r][0].b = _mm256_add_epi32(sum[r][0].b, _mm256_madd_epi16(b[r], ones));
    }
}

/* sum[r][0] += block of the panel times block of activations r; the weights of 8 bits are taken
 * with their sign, so that the offset of sum must not be theirs (linear.inc: SIGNED_8BIT) */
ALWAYS void block_q8(const uint8_t *w, uint64_t panel_bytes, const char *x, size_t x_stride,
                     i16 sum[MAX_R][4], const int R, const int P, const int type)
{
    (void)panel_bytes;
    (void)P;
    if (type == PB_Q8_0)
        block_8bit(w, x, x_stride, sum, R);
    else
        block_4bit(w, x, x_stride, sum, R);
}

#define SIGNED_8BIT 1
#include "linear.inc"

LINEAR_TABLE(cpu_linear_avx2, "avx2", 20, cpu_has_avx2);
#endif
