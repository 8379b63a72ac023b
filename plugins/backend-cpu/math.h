/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/math.h - scalar functions whose bits every instruction set must give:
 * half floats, exp, SiLU, GELU, tanh, sine and cosine.
 *
 * Not a math library: ranges are those that the kernels need. Invariant: only IEEE operations
 * that are correctly rounded (+ - * / sqrt fma, conversions) in one fixed order, so that a
 * vector form of the same lines gives the same bits. docs/numerics.md repeats the definitions.
 */
#ifndef CPU_MATH_H
#define CPU_MATH_H
#include <stdint.h>
#include <string.h>

#define CPU_FMA(a, b, c) __builtin_fmaf(a, b, c)

static inline uint32_t m_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float m_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* binary16 to binary32: exact */
static inline float m_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = h >> 10 & 31u, m = h & 0x3ffu;
    if (e == 31)
        return m_float(sign | 0x7f800000u | m << 13 | (m ? 0x400000u : 0u));
    if (e == 0) {
        float v = (float)m * 0x1p-24f;
        return sign ? -v : v;
    }
    return m_float(sign | (e + 112u) << 23 | m << 13);
}

/* binary32 to binary16, round to nearest even */
static inline uint16_t m_to_half(float x)
{
    uint32_t u = m_bits(x), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (a >> 13 & 0x3ffu));
    if (a >= 0x477ff000u) /* rounds to 65536 or more */
        return (uint16_t)(sign | 0x7c00u);
    if (a < 0x38800000u) { /* subnormal: the sum is rounded at 2^-24 */
        float v = m_float(a) + 0.5f;
        return (uint16_t)(sign | (m_bits(v) - 0x3f000000u));
    }
    a += 0xfffu + (a >> 13 & 1u);
    return (uint16_t)(sign | (a - 0x38000000u) >> 13);
}

#define M_LOG2E 1.44269502162933349609375f
#define M_LN2_HI 0.693145751953125f
#define M_LN2_LO 1.42860676533018704503775e-06f
#define M_ROUND 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer, half to even */

/* e^x, relative error below 2^-22. 0 below -87, infinity above 88, NaN for NaN. */
static inline float m_exp(float x)
{
    float t = CPU_FMA(x, M_LOG2E, M_ROUND), n = t - M_ROUND;
    float r = CPU_FMA(n, -M_LN2_HI, x);
    r = CPU_FMA(n, -M_LN2_LO, r);
    float p = CPU_FMA(r, 0x1.6d4328p-10f, 0x1.120b74p-7f);
    p = CPU_FMA(p, r, 0x1.5554eap-5f);
    p = CPU_FMA(p, r, 0x1.5554dcp-3f);
    p = CPU_FMA(p, r, 0.5f);
    p = CPU_FMA(p, r, 1.0f);
    p = CPU_FMA(p, r, 1.0f);
    float y = p * m_float((m_bits(t) << 23) + 0x3f800000u);
    y = x < -87.0f ? 0.0f : y;
    return x > 88.0f ? __builtin_inff() : y;
}

/* g / (1 + e^-g) */
static inline float m_silu(float g)
{
    return g / (1.0f + m_exp(-g));
}

/* g / (1 + e^-z), z = 2 sqrt(2/pi) (g + 0.044715 g^3): the tanh form of GELU */
static inline float m_gelu(float g)
{
    float z = CPU_FMA(g * g, 0.0713548162726f, 1.59576912161f) * g;
    return g / (1.0f + m_exp(-z));
}

/* 1 - 2 / (1 + e^2x) */
static inline float m_tanh(float x)
{
    return CPU_FMA(-2.0f, 1.0f / (1.0f + m_exp(x + x)), 1.0f);
}

#define M_ROUND_D 6755399441055744.0 /* 1.5 * 2^52 */

/* Cosine and sine of x in double, |x| < 2^27, rounded to float: x = k pi/2 + r in two steps
 * (pi/2 as a sum of three parts), Taylor series of sin r to r^15 and cos r to r^16. */
static inline void m_cossin(double x, float *c, float *s)
{
    double t = x * 0.63661977236758134308 + M_ROUND_D, k = t - M_ROUND_D;
    uint64_t q;
    memcpy(&q, &t, sizeof q);
    double r = __builtin_fma(k, -1.57079632673412561417e+00, x);
    r = __builtin_fma(k, -6.07710050630396597660e-11, r);
    r = __builtin_fma(k, -2.02226624879595063154e-21, r);
    double z = r * r;
    double a = __builtin_fma(z, -1.0 / 1307674368000.0, 1.0 / 6227020800.0);
    a = __builtin_fma(a, z, -1.0 / 39916800.0);
    a = __builtin_fma(a, z, 1.0 / 362880.0);
    a = __builtin_fma(a, z, -1.0 / 5040.0);
    a = __builtin_fma(a, z, 1.0 / 120.0);
    a = __builtin_fma(a, z, -1.0 / 6.0);
    a = __builtin_fma(a * z, r, r);
    double b = __builtin_fma(z, 1.0 / 20922789888000.0, -1.0 / 87178291200.0);
    b = __builtin_fma(b, z, 1.0 / 479001600.0);
    b = __builtin_fma(b, z, -1.0 / 3628800.0);
    b = __builtin_fma(b, z, 1.0 / 40320.0);
    b = __builtin_fma(b, z, -1.0 / 720.0);
    b = __builtin_fma(b, z, 1.0 / 24.0);
    b = __builtin_fma(b, z, -0.5);
    b = __builtin_fma(b, z, 1.0);
    double cd = q & 1 ? a : b, sd = q & 1 ? b : a;
    cd = (q + 1) & 2 ? -cd : cd;
    sd = q & 2 ? -sd : sd;
    *c = (float)cd;
    *s = (float)sd;
}
#endif
