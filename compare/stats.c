/* SPDX-License-Identifier: MIT
 *
 * compare/stats.c - see stats.h. Test: tests/unit/test_compare_stats.c, which checks coverage
 * and false verdicts by simulation.
 */
#include "stats.h"

#include <math.h>
#include <stdlib.h>

enum { EXACT_N = 64 };

/* Largest c with P(W <= c) <= tail for the signed-rank statistic W of n values, or -1. The number
 * of subsets of 1..n with sum s, over 2^n, added up from s = 0. */
static int rank_limit(int n, double tail)
{
    double ways[EXACT_N * (EXACT_N + 1) / 2 + 1] = { 0 };
    int top = n * (n + 1) / 2, c = -1;
    if (n > EXACT_N) {
        double mean = top / 2.0, sd = sqrt((double)n * (n + 1) * (2.0 * n + 1) / 24);
        double lo = -9, hi = 9; /* quantile of the normal distribution by bisection */
        for (int i = 0; i < 80; i++) {
            double m = (lo + hi) / 2;
            if (0.5 * erfc(-m / sqrt(2)) < tail)
                lo = m;
            else
                hi = m;
        }
        return (int)floor(mean + lo * sd - 0.5);
    }
    ways[0] = pow(0.5, n);
    for (int k = 1; k <= n; k++)
        for (int s = top; s >= k; s--)
            ways[s] += ways[s - k];
    double sum = 0;
    for (int s = 0; s <= top; s++) {
        sum += ways[s];
        if (sum > tail)
            break;
        c = s;
    }
    return c;
}

int pbc_least_n(double level)
{
    int n = 1;
    while (n < EXACT_N && rank_limit(n, level / 2) < 0)
        n++;
    return n;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int pbc_interval_of(const double *log_ratio, int n, double level, pbc_interval *out)
{
    *out = (pbc_interval){ 0, NAN, NAN, NAN };
    double *v = malloc(((size_t)n + 1) * sizeof *v);
    int m = 0, k = 0;
    for (int i = 0; v && i < n; i++)
        if (isfinite(log_ratio[i]))
            v[m++] = log_ratio[i];
    out->n = m;
    double *w = malloc((size_t)(m + 1) * (size_t)(m + 1) * sizeof *w); /* Walsh averages */
    if (!v || !w || !m) {
        free(v);
        free(w);
        return m ? -1 : 0;
    }
    for (int i = 0; i < m; i++)
        for (int j = i; j < m; j++)
            w[k++] = (v[i] + v[j]) / 2;
    qsort(w, (size_t)k, sizeof *w, ascending);
    out->mid = exp((w[(k - 1) / 2] + w[k / 2]) / 2);
    int c = rank_limit(m, level / 2);
    if (c >= 0) {
        out->lo = exp(w[c]);
        out->hi = exp(w[k - 1 - c]);
    }
    free(v);
    free(w);
    return 0;
}

int pbc_verdict(const pbc_interval *r, const pbc_interval *noise, double delta, int more_is_better)
{
    if (!isfinite(r->lo) || !isfinite(r->hi))
        return PBC_UNDECIDED;
    if (r->lo >= 1 - delta && r->hi <= 1 + delta)
        return PBC_TIE;
    double low = noise && isfinite(noise->lo) && noise->lo < 1 ? noise->lo : 1;
    double high = noise && isfinite(noise->hi) && noise->hi > 1 ? noise->hi : 1;
    if (r->hi < 1 && r->mid < low)
        return more_is_better ? PBC_SLOWER : PBC_FASTER;
    if (r->lo > 1 && r->mid > high)
        return more_is_better ? PBC_FASTER : PBC_SLOWER;
    return PBC_UNDECIDED;
}

const char *pbc_verdict_name(int verdict)
{
    static const char *const names[] = { "?", "faster", "slower", "tie", "undecided" };
    return names[verdict > 0 && verdict < 5 ? verdict : 0];
}

uint64_t pbc_random(uint64_t *s)
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void pbc_shuffle(int *v, int n, uint64_t *state)
{
    for (int i = n - 1; i > 0; i--) {
        int k = (int)(pbc_random(state) % (uint64_t)(i + 1)), t = v[i];
        v[i] = v[k];
        v[k] = t;
    }
}
