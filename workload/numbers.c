/* SPDX-License-Identifier: MIT
 *
 * workload/numbers.c - random numbers that are equal on every machine. libm's functions may differ
 * in the last bit from one processor to the next, so logarithm and power are series here.
 */
#include "impl.h"

#include <math.h>

/* splitmix64 (Steele, Lea, Flood 2014) */
uint64_t pbw_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t pbw_mix(uint64_t seed, uint64_t a, uint64_t b)
{
    uint64_t s = seed;
    s = pbw_random(&s) ^ a;
    s = pbw_random(&s) ^ b;
    return pbw_random(&s);
}

int64_t pbw_between(uint64_t *state, pbw_range r)
{
    /* the remainder's bias is below 2^-40 for all lengths that a range may have */
    return r.lo + (int64_t)(pbw_random(state) % (uint64_t)(r.hi - r.lo + 1));
}

double pbw_unit(uint64_t *state)
{
    return ((double)(pbw_random(state) >> 12) + 0.5) * 0x1p-52;
}

/* 2 artanh((m - 1) / (m + 1)) for m in [1/sqrt(2), sqrt(2)): the terms fall by 33 each */
double pbw_ln(double x)
{
    int e;
    double m = frexp(x, &e);
    if (m < 0.70710678118654752) {
        m *= 2;
        e--;
    }
    double z = (m - 1) / (m + 1), z2 = z * z, sum = 0;
    for (int k = 23; k >= 1; k -= 2)
        sum = sum * z2 + 1.0 / k;
    return 2 * z * sum + e * 0.69314718055994531;
}

double pbw_exp(double x)
{
    if (x < -700)
        return 0;
    double k = floor(x * 1.4426950408889634 + 0.5), r = x - k * 0.69314718055994531, sum = 1;
    for (int i = 18; i >= 1; i--)
        sum = 1 + sum * r / i;
    return ldexp(sum, (int)k);
}

/* polar method (Marsaglia and Bray 1964) */
static double normal(uint64_t *state)
{
    double a, b, s;
    do {
        a = 2 * pbw_unit(state) - 1;
        b = 2 * pbw_unit(state) - 1;
        s = a * a + b * b;
    } while (s >= 1 || s == 0);
    return a * sqrt(-2 * pbw_ln(s) / s);
}

/* Marsaglia and Tsang, A Simple Method for Generating Gamma Variables, 2000 */
double pbw_gamma(uint64_t *state, double shape)
{
    double k = shape < 1 ? shape + 1 : shape, d = k - 1.0 / 3, c = 1 / sqrt(9 * d), v, x;
    for (;;) {
        x = normal(state);
        v = 1 + c * x;
        v = v * v * v;
        if (v > 0 && pbw_ln(pbw_unit(state)) < 0.5 * x * x + d - d * v + d * pbw_ln(v))
            break;
    }
    v *= d;
    if (shape < 1)
        v *= pbw_exp(pbw_ln(pbw_unit(state)) / shape);
    return v / shape;
}
