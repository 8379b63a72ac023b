/* SPDX-License-Identifier: MIT
 *
 * cli/compare.h - statistics of a comparison, apart from what runs and prints.
 */
#ifndef PBI_COMPARE_H
#define PBI_COMPARE_H

enum { PBI_FASTER = 1, PBI_SLOWER, PBI_TIE, PBI_UNDECIDED };

/* Paired ratios of n rounds: median, and the interval between two order statistics that holds
 * the median of the differences with at least 95 % (sign test; exact for any distribution of
 * independent rounds). n < 6: no such interval exists; lo and hi are NaN. Sorts v. */
typedef struct pbi_ratio {
    int n;
    double median, lo, hi;
} pbi_ratio;
void pbi_ratio_of(double *v, int n, pbi_ratio *out);
/* The verdict for a ratio B/A of times (less is better) or rates (more is better). noise: the
 * same for a second instance of A. A difference that A shows against itself is none; tie: the
 * whole interval lies within 1 +- delta. */
int pbi_verdict(const pbi_ratio *r, const pbi_ratio *noise, double delta, int more_is_better);
const char *pbi_verdict_name(int verdict);
#endif
