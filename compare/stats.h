/* SPDX-License-Identifier: MIT
 *
 * compare/stats.h - the statistics of a comparison, apart from what runs and prints.
 *
 * The unit is an epoch: both arms created anew, several paired blocks, one log-ratio. Within an
 * epoch blocks share what one creation happened to give (placement of memory, packing order), so
 * they are no independent evidence. Invariant: no assumption about the shape of the distribution
 * but that, arms taken in random order, a log-ratio is symmetric about its centre.
 */
#ifndef PBC_STATS_H
#define PBC_STATS_H
#include <stdint.h>

/* Centre of n log-ratios and an interval that misses it with a chance of at most `level`:
 * Hodges-Lehmann and the Walsh averages of the signed-rank test, exact up to 64 values, the
 * normal approximation above (Hollander and Wolfe, Nonparametric Statistical Methods, 3.1-3.3).
 * All as ratios, e to the power. Values that are not finite are left out. lo and hi are NaN when
 * n is too small for the level: pbc_least_n. */
typedef struct pbc_interval {
    int n;
    double mid, lo, hi;
} pbc_interval;
/* 0, or -1 without memory. level in (0, 1), two-sided. */
int pbc_interval_of(const double *log_ratio, int n, double level, pbc_interval *out);
/* the smallest n for which an interval of this level exists */
int pbc_least_n(double level);

enum { PBC_FASTER = 1, PBC_SLOWER, PBC_TIE, PBC_UNDECIDED };
/* The verdict for a ratio of times (less is better) or rates (more is better). A tie: the whole
 * interval lies within 1 +- delta. A difference must exclude 1 and lie beyond what the first arm
 * shows against a second instance of itself (noise; may be NULL). */
int pbc_verdict(const pbc_interval *r, const pbc_interval *noise, double delta, int more_is_better);
const char *pbc_verdict_name(int verdict);

/* splitmix64 (Steele, Lea, Flood 2014): the order of arms, seeds of blocks */
uint64_t pbc_random(uint64_t *state);
void pbc_shuffle(int *v, int n, uint64_t *state);
#endif
