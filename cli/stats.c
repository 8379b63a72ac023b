/* SPDX-License-Identifier: MIT
 *
 * cli/stats.c - statistics of a comparison: an interval for the median of paired ratios, and
 * the verdict. Source: the sign test, e.g. Conover, Practical Nonparametric Statistics, 3.2.
 */
#include "compare.h"

#include <math.h>
#include <stdlib.h>

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Largest k so that the interval [v[k], v[n-1-k]] still covers the median with 95 %: the chance
 * that at most k of n fair coins show heads is 2.5 % or less. -1: none. */
static int order_statistic(int n)
{
    double p = pow(0.5, n), sum = 0;
    int k = -1;
    for (int i = 0; i < n / 2; i++) {
        sum += p;
        if (sum > 0.025)
            break;
        k = i;
        p = p * (double)(n - i) / (double)(i + 1);
    }
    return k;
}

void pbi_ratio_of(double *v, int n, pbi_ratio *out)
{
    *out = (pbi_ratio){ n, NAN, NAN, NAN };
    int good = 0;
    for (int i = 0; i < n; i++)
        if (isfinite(v[i]))
            v[good++] = v[i];
    out->n = n = good;
    if (!n)
        return;
    qsort(v, (size_t)n, sizeof *v, ascending);
    out->median = n % 2 ? v[n / 2] : sqrt(v[n / 2 - 1] * v[n / 2]);
    int k = order_statistic(n);
    if (k >= 0) {
        out->lo = v[k];
        out->hi = v[n - 1 - k];
    }
}

int pbi_verdict(const pbi_ratio *r, const pbi_ratio *noise, double delta, int more_is_better)
{
    if (!isfinite(r->lo))
        return PBI_UNDECIDED;
    if (r->lo >= 1 - delta && r->hi <= 1 + delta)
        return PBI_TIE;
    /* beyond what A shows against itself */
    double low = noise && isfinite(noise->lo) && noise->lo < 1 ? noise->lo : 1;
    double high = noise && isfinite(noise->hi) && noise->hi > 1 ? noise->hi : 1;
    if (r->hi < 1 && r->median < low)
        return more_is_better ? PBI_SLOWER : PBI_FASTER;
    if (r->lo > 1 && r->median > high)
        return more_is_better ? PBI_FASTER : PBI_SLOWER;
    return PBI_UNDECIDED;
}

const char *pbi_verdict_name(int verdict)
{
    static const char *const names[] = { "?", "faster", "slower", "tie", "undecided" };
    return names[verdict > 0 && verdict < 5 ? verdict : 0];
}
