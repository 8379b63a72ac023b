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
#include "simd.h"

/* sum[r][p] += block of panel p times block of activations r */
ALWAYS void block_q8(const uint8_t *w, uint64_t panel_bytes, const char *x, size_t x_stride,
                     i16 sum[MAX_R][4], const int R, const int P, const int type)
{
    const int n = type == PB_Q8_0 ? 8 : 4;
    const __m512i low = _mm512_set1_epi8(15);
    UNROLL for (int i = 0; i < n; i++)
    {
        __m512i v[4], h[4];
        UNROLL for (int p = 0; p < P; p++)
        {
            v[p] = _mm512_loadu_si512(w + (uint64_t)p * panel_bytes + 64 * i);
            if (type != PB_Q8_0) {
                h[p] = _mm512_and_si512(_mm512_srli_epi16(v[p], 4), low);
                v[p] = _mm512_and_si512(v[p], low);
            }
        }
        UNROLL for (int r = 0; r < R; r++)
        {
            const char *q = x + (size_t)r * x_stride + 4 * i;
            int32_t a, b;
            memcpy(&a, q, 4);
            UNROLL for (int p = 0; p < P; p++) sum[r][p] =
                _mm512_dpbusd_epi32(sum[r][p], v[p], _mm512_set1_epi32(a));
            if (type == PB_Q8_0)
                continue;
            memcpy(&b, q + 16, 4);
            UNROLL for (int p = 0; p < P; p++) sum[r][p] =
                _mm512_dpbusd_epi32(sum[r][p], h[p], _mm512_set1_epi32(b));
        }
    }
}

#define SIGNED_8BIT 0
#include "linear.inc"

LINEAR_TABLE(cpu_linear_avx512, "avx512", 30, cpu_has_avx512);
#endif
