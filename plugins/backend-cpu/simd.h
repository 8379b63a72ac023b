/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/simd.h - sixteen floats as one value, in AVX-512 (one register) or AVX2
 * (two): what attend.inc and linear_f32.inc are written in. Included after avx512.h or avx2.h.
 *
 * Invariant: lane by lane these are the IEEE operations of math.h, so both forms and the plain-C
 * rows give the same bits.
 */
#ifndef CPU_SIMD_H
#define CPU_SIMD_H
#include "cpu.h"
#include "math.h"

#define ALWAYS static inline __attribute__((always_inline))

#define UNROLL _Pragma("GCC unroll 16")

ALWAYS float load_f32(const char *p)
{
    float x;
    memcpy(&x, p, 4);
    return x;
}

ALWAYS int32_t load_i32(const char *p)
{
    int32_t x;
    memcpy(&x, p, 4);
    return x;
}

#ifdef CPU_AVX512_H
typedef __m512 v16;
typedef __m512i i16; /* sixteen int32_t */

ALWAYS i16 i_set(int32_t x)
{
    return _mm512_set1_epi32(x);
}
ALWAYS v16 v_from(i16 x)
{
    return _mm512_cvtepi32_ps(x);
}
ALWAYS i16 i_add(i16 a, i16 b)
{
    return _mm512_add_epi32(a, b);
}
/* p[i] >> shift & mask of sixteen uint32_t */
ALWAYS i16 i_field(const uint8_t *p, int shift, int32_t mask)
{
    __m512i v = _mm512_srl_epi32(_mm512_loadu_si512(p), _mm_cvtsi32_si128(shift));
    return _mm512_and_si512(v, _mm512_set1_epi32(mask));
}
ALWAYS i16 i_left(i16 x, const int shift)
{
    return _mm512_slli_epi32(x, (unsigned)shift);
}
/* sixteen bytes as floats */
ALWAYS v16 v_u8(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(
        _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
ALWAYS v16 v_i8(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
/* their halves of four bits */
ALWAYS v16 v_nibble(const uint8_t *p, const int high)
{
    __m512i v = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    v = high ? _mm512_srli_epi32(v, 4) : _mm512_and_si512(v, _mm512_set1_epi32(15));
    return _mm512_cvtepi32_ps(v);
}
/* panel_exponent() of sixteen bytes */
ALWAYS v16 v_exponent(const uint8_t *p)
{
    __m512i v = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    v = _mm512_max_epu32(_mm512_slli_epi32(v, 23), _mm512_set1_epi32(0x400000));
    return _mm512_mul_ps(_mm512_castsi512_ps(v), _mm512_set1_ps(0.5f));
}
/* sixteen bfloat16 */
ALWAYS v16 v_load_bf16(const uint8_t *p)
{
    __m512i v = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
}
/* panel_e4m3() of sixteen bytes: the sign fills what a shift by 7 then leaves above it */
ALWAYS v16 v_load_f8(const uint8_t *p)
{
    __m256i v = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
    v = _mm256_and_si256(_mm256_slli_epi16(v, 7), _mm256_set1_epi16((short)0xbfff));
    return _mm512_cvtph_ps(v);
}
/* table[i] of sixteen int8_t, as floats; i in 0..15 */
ALWAYS v16 v_look(const int8_t *table, i16 i)
{
    return _mm512_permutexvar_ps(i, v_i8((const uint8_t *)table));
}

ALWAYS v16 v_set(float x)
{
    return _mm512_set1_ps(x);
}
ALWAYS v16 v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
ALWAYS void v_store(float *p, v16 x)
{
    _mm512_storeu_ps(p, x);
}
/* the first n of 16 */
ALWAYS void v_store_n(float *p, v16 x, int n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1u), x);
}
ALWAYS v16 v_load_half(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
ALWAYS void v_store_half(void *p, v16 x)
{
    _mm256_storeu_si256((__m256i *)p,
                        _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
ALWAYS v16 v_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}
ALWAYS v16 v_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}
ALWAYS v16 v_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}
ALWAYS v16 v_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}
ALWAYS v16 v_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}
/* a > b ? a : b */
ALWAYS v16 v_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
}
ALWAYS float v_top(v16 a)
{
    return _mm512_reduce_max_ps(a);
}
/* lanes [lo, hi) of a, the others of b; bounds may lie outside of 0..16 */
ALWAYS v16 v_range(v16 a, v16 b, int lo, int hi)
{
    uint32_t above = lo <= 0 ? 0xffffu : lo >= 16 ? 0u : 0xffffu << lo;
    uint32_t below = hi <= 0 ? 0u : hi >= 16 ? 0xffffu : (1u << hi) - 1u;
    return _mm512_mask_mov_ps(b, (__mmask16)(above & below), a);
}
/* p * 2^n, n in the low bits of t (math.h: m_exp) */
ALWAYS v16 v_scale_exp(v16 p, v16 t)
{
    __m512i e = _mm512_add_epi32(_mm512_slli_epi32(_mm512_castps_si512(t), 23),
                                 _mm512_set1_epi32(0x3f800000));
    return _mm512_mul_ps(p, _mm512_castsi512_ps(e));
}
/* x < a ? b : y */
ALWAYS v16 v_if_less(v16 x, v16 a, v16 b, v16 y)
{
    return _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(x, a, _CMP_LT_OQ), b);
}

#else
typedef struct v16 {
    __m256 a, b;
} v16;
typedef struct i16 {
    __m256i a, b;
} i16;

ALWAYS i16 i_set(int32_t x)
{
    return (i16){ _mm256_set1_epi32(x), _mm256_set1_epi32(x) };
}
ALWAYS v16 v_from(i16 x)
{
    return (v16){ _mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b) };
}
ALWAYS i16 i_add(i16 x, i16 y)
{
    return (i16){ _mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b) };
}
ALWAYS __m256i i_field8(const uint8_t *p, int shift, int32_t mask)
{
    __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return _mm256_and_si256(_mm256_srl_epi32(v, _mm_cvtsi32_si128(shift)), _mm256_set1_epi32(mask));
}
ALWAYS i16 i_field(const uint8_t *p, int shift, int32_t mask)
{
    return (i16){ i_field8(p, shift, mask), i_field8(p + 32, shift, mask) };
}
ALWAYS i16 i_left(i16 x, const int shift)
{
    return (i16){ _mm256_slli_epi32(x.a, shift), _mm256_slli_epi32(x.b, shift) };
}
ALWAYS __m128i load_8(const uint8_t *p)
{
    return _mm_loadl_epi64((const __m128i *)(const void *)p);
}
ALWAYS i16 i_u8(const uint8_t *p)
{
    return (i16){ _mm256_cvtepu8_epi32(load_8(p)), _mm256_cvtepu8_epi32(load_8(p + 8)) };
}
ALWAYS v16 v_u8(const uint8_t *p)
{
    return v_from(i_u8(p));
}
ALWAYS v16 v_i8(const uint8_t *p)
{
    return v_from((i16){ _mm256_cvtepi8_epi32(load_8(p)), _mm256_cvtepi8_epi32(load_8(p + 8)) });
}
ALWAYS v16 v_nibble(const uint8_t *p, const int high)
{
    const __m256i low = _mm256_set1_epi32(15);
    i16 v = i_u8(p);
    v.a = high ? _mm256_srli_epi32(v.a, 4) : _mm256_and_si256(v.a, low);
    v.b = high ? _mm256_srli_epi32(v.b, 4) : _mm256_and_si256(v.b, low);
    return v_from(v);
}
ALWAYS __m256 v_exponent8(__m256i v)
{
    v = _mm256_max_epu32(_mm256_slli_epi32(v, 23), _mm256_set1_epi32(0x400000));
    return _mm256_mul_ps(_mm256_castsi256_ps(v), _mm256_set1_ps(0.5f));
}
ALWAYS v16 v_exponent(const uint8_t *p)
{
    i16 v = i_u8(p);
    return (v16){ v_exponent8(v.a), v_exponent8(v.b) };
}
ALWAYS __m256 v_bf16_8(const uint8_t *p)
{
    __m256i v = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
}
ALWAYS v16 v_load_bf16(const uint8_t *p)
{
    return (v16){ v_bf16_8(p), v_bf16_8(p + 16) };
}
ALWAYS v16 v_load_f8(const uint8_t *p)
{
    __m256i v = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
    v = _mm256_and_si256(_mm256_slli_epi16(v, 7), _mm256_set1_epi16((short)0xbfff));
    return (v16){ _mm256_cvtph_ps(_mm256_castsi256_si128(v)),
                  _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1)) };
}
ALWAYS __m256 v_look8(v16 t, __m256i i)
{
    __m256 low = _mm256_permutevar8x32_ps(t.a, i), high = _mm256_permutevar8x32_ps(t.b, i);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(i, 28)));
}
ALWAYS v16 v_look(const int8_t *table, i16 i)
{
    v16 t = v_i8((const uint8_t *)table);
    return (v16){ v_look8(t, i.a), v_look8(t, i.b) };
}

#define V_EACH(f) ((v16){ f(x.a, y.a), f(x.b, y.b) })

ALWAYS v16 v_set(float x)
{
    return (v16){ _mm256_set1_ps(x), _mm256_set1_ps(x) };
}
ALWAYS v16 v_load(const float *p)
{
    return (v16){ _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) };
}
ALWAYS void v_store(float *p, v16 x)
{
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
ALWAYS void v_store_n(float *p, v16 x, int n)
{
    float t[16];
    v_store(t, x);
    memcpy(p, t, (size_t)n * 4);
}
ALWAYS v16 v_load_half(const void *p)
{
    const __m128i *h = (const __m128i *)p;
    return (v16){ _mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1)) };
}
ALWAYS void v_store_half(void *p, v16 x)
{
    __m128i *h = (__m128i *)p;
    _mm_storeu_si128(h, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    _mm_storeu_si128(h + 1, _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
ALWAYS v16 v_fma(v16 a, v16 b, v16 c)
{
    return (v16){ _mm256_fmadd_ps(a.a, b.a, c.a), _mm256_fmadd_ps(a.b, b.b, c.b) };
}
ALWAYS v16 v_mul(v16 x, v16 y)
{
    return V_EACH(_mm256_mul_ps);
}
ALWAYS v16 v_add(v16 x, v16 y)
{
    return V_EACH(_mm256_add_ps);
}
ALWAYS v16 v_sub(v16 x, v16 y)
{
    return V_EACH(_mm256_sub_ps);
}
ALWAYS v16 v_div(v16 x, v16 y)
{
    return V_EACH(_mm256_div_ps);
}
ALWAYS v16 v_max(v16 x, v16 y)
{
    return V_EACH(_mm256_max_ps);
}
ALWAYS float v_top(v16 x)
{
    float t[16], m;
    v_store(t, x);
    m = t[0];
    for (int i = 1; i < 16; i++)
        m = t[i] > m ? t[i] : m;
    return m;
}
ALWAYS __m256 v_range8(__m256 a, __m256 b, int lo, int hi)
{
    __m256i i = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i in = _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(lo), i),
                                     _mm256_cmpgt_epi32(_mm256_set1_epi32(hi), i));
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(in));
}
ALWAYS v16 v_range(v16 a, v16 b, int lo, int hi)
{
    return (v16){ v_range8(a.a, b.a, lo, hi), v_range8(a.b, b.b, lo - 8, hi - 8) };
}
ALWAYS __m256 v_scale_exp8(__m256 p, __m256 t)
{
    __m256i e = _mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(t), 23),
                                 _mm256_set1_epi32(0x3f800000));
    return _mm256_mul_ps(p, _mm256_castsi256_ps(e));
}
ALWAYS v16 v_scale_exp(v16 x, v16 y)
{
    return V_EACH(v_scale_exp8);
}
ALWAYS v16 v_if_less(v16 x, v16 a, v16 b, v16 y)
{
    return (v16){ _mm256_blendv_ps(y.a, b.a, _mm256_cmp_ps(x.a, a.a, _CMP_LT_OQ)),
                  _mm256_blendv_ps(y.b, b.b, _mm256_cmp_ps(x.b, a.b, _CMP_LT_OQ)) };
}
#endif

/* m_exp of math.h, line by line */
ALWAYS v16 v_exp(v16 x)
{
    v16 t = v_fma(x, v_set(M_LOG2E), v_set(M_ROUND)), n = v_sub(t, v_set(M_ROUND));
    v16 r = v_fma(n, v_set(-M_LN2_HI), x);
    r = v_fma(n, v_set(-M_LN2_LO), r);
    v16 p = v_fma(r, v_set(0x1.6d4328p-10f), v_set(0x1.120b74p-7f));
    p = v_fma(p, r, v_set(0x1.5554eap-5f));
    p = v_fma(p, r, v_set(0x1.5554dcp-3f));
    p = v_fma(p, r, v_set(0.5f));
    p = v_fma(p, r, v_set(1.0f));
    p = v_fma(p, r, v_set(1.0f));
    v16 y = v_scale_exp(p, t);
    y = v_if_less(x, v_set(-87.0f), v_set(0.0f), y);
    return v_if_less(v_set(88.0f), x, v_set(__builtin_inff()), y);
}

/* m_tanh of math.h */
ALWAYS v16 v_tanh(v16 x)
{
    v16 e = v_add(v_set(1.0f), v_exp(v_add(x, x)));
    return v_fma(v_set(-2.0f), v_div(v_set(1.0f), e), v_set(1.0f));
}
#endif
