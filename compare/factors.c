/* SPDX-License-Identifier: MIT
 *
 * compare/factors.c - see factors.h. Test: tests/unit/test_factors.c
 */
#define _GNU_SOURCE
#include "factors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading ----------------------------------------------------------------- */

/* "slot" of "slot=a" or "slot.key=a" is the setting that a bare level gets */
static char *settings_of(const char *key, const char *level)
{
    char *s = NULL;
    if (!*level)
        return strdup("");
    return asprintf(&s, "%s=%s", key, level) < 0 ? NULL : s;
}

int pbf_add(pbf_design *d, const char *text, char *why, size_t n)
{
    const char *eq = strchr(text, '=');
    if (!eq || eq == text) {
        snprintf(why, n, "\"%.80s\" is no factor: slot=level|level", text);
        return -1;
    }
    if (d->n_factors == PBF_MAX_FACTORS) {
        snprintf(why, n, "more than %d factors", PBF_MAX_FACTORS);
        return -1;
    }
    pbf_factor *f = &d->factor[d->n_factors++];
    f->text = strdup(text);
    if (!f->text)
        return snprintf(why, n, "out of memory"), -1;
    f->text[eq - text] = 0;
    f->name = f->text;
    for (char *p = f->text + (eq - text) + 1; p;) {
        char *bar = strchr(p, '|');
        if (bar)
            *bar = 0;
        if (f->n == PBF_MAX_LEVELS) {
            snprintf(why, n, "factor %s has more than %d levels", f->name, PBF_MAX_LEVELS);
            return -1;
        }
        f->level[f->n] = p;
        f->settings[f->n] = settings_of(f->name, p);
        if (!f->settings[f->n++])
            return snprintf(why, n, "out of memory"), -1;
        p = bar ? bar + 1 : NULL;
    }
    if (f->n < 2) {
        snprintf(why, n, "factor %s has one level; parted by |: %s=a|b", f->name, f->name);
        return -1;
    }
    return 0;
}

void pbf_clear(pbf_design *d)
{
    for (int f = 0; f < d->n_factors; f++) {
        free(d->factor[f].text);
        for (int l = 0; l < d->factor[f].n; l++)
            free(d->factor[f].settings[l]);
    }
    *d = (pbf_design){ 0 };
}

/* ---- the design ---------------------------------------------------------------- */

/* Four factors in full; each further one is the product of three of them. */
static int plan_fraction(pbf_design *d, char *why, size_t n)
{
    static const int product[4][3] = { { 0, 1, 2 }, { 0, 1, 3 }, { 0, 2, 3 }, { 1, 2, 3 } };
    for (int f = 0; f < d->n_factors; f++)
        if (d->factor[f].n != 2) {
            snprintf(why, n,
                     "more than %d cells; a fraction of them needs factors of two levels, and %s "
                     "has %d",
                     PBF_MAX_CELLS, d->factor[f].name, d->factor[f].n);
            return -1;
        }
    d->n_cells = 16;
    d->fraction = 1 << (d->n_factors - 4);
    for (int c = 0; c < 16; c++)
        for (int f = 0; f < d->n_factors; f++) {
            int bits = 0;
            for (int k = 0; f >= 4 && k < 3; k++)
                bits ^= c >> product[f - 4][k] & 1;
            d->level[c][f] = f < 4 ? c >> f & 1 : bits;
        }
    return 0;
}

int pbf_plan(pbf_design *d, char *why, size_t n)
{
    int cells = 1;
    if (!d->n_factors)
        return snprintf(why, n, "there is no factor"), -1;
    for (int f = 0; f < d->n_factors; f++)
        cells *= d->factor[f].n;
    if (cells > PBF_MAX_CELLS)
        return plan_fraction(d, why, n);
    d->n_cells = cells;
    d->fraction = 1;
    for (int c = 0; c < cells; c++)
        for (int f = 0, left = c; f < d->n_factors; f++) {
            d->level[c][f] = left % d->factor[f].n;
            left /= d->factor[f].n;
        }
    return 0;
}

char *pbf_settings(const pbf_design *d, int cell)
{
    char *s = NULL;
    size_t n;
    FILE *out = open_memstream(&s, &n);
    int some = 0;
    for (int f = 0; out && f < d->n_factors; f++) {
        const char *t = d->factor[f].settings[d->level[cell][f]];
        if (*t)
            fprintf(out, "%s%s", some++ ? "," : "", t);
    }
    return out && !fclose(out) ? s : NULL;
}

char *pbf_name(const pbf_design *d, int cell)
{
    char *s = NULL;
    size_t n;
    FILE *out = open_memstream(&s, &n);
    int some = 0;
    for (int f = 0; out && f < d->n_factors; f++)
        if (d->level[cell][f]) {
            const char *l = d->factor[f].level[d->level[cell][f]];
            fprintf(out, "%s%s=%s", some++ ? " " : "", d->factor[f].name, *l ? l : "none");
        }
    if (out && !some)
        fputs("base", out);
    return out && !fclose(out) ? s : NULL;
}

/* ---- effects -------------------------------------------------------------------- */

/* The cell with the levels of c but for f (and g, if it is not -1), or -1. */
static int sibling(const pbf_design *d, int c, int f, int level_f, int g, int level_g)
{
    for (int k = 0; k < d->n_cells; k++) {
        int same = !d->refused[k];
        for (int i = 0; i < d->n_factors && same; i++) {
            int want = i == f ? level_f : i == g ? level_g : d->level[c][i];
            same = d->level[k][i] == want;
        }
        if (same)
            return k;
    }
    return -1;
}

/* mean over cells where the product of the factors' signs is positive - where it is negative */
static double contrast(const pbf_design *d, int f, int g, const double *y)
{
    double sum[2] = { 0 };
    int n[2] = { 0 };
    for (int c = 0; c < d->n_cells; c++) {
        int plus = g < 0 ? d->level[c][f] : d->level[c][f] == d->level[c][g];
        if (d->refused[c])
            return NAN; /* a fraction has no cell to spare */
        sum[plus] += y[c];
        n[plus]++;
    }
    return sum[1] / n[1] - sum[0] / n[0];
}

double pbf_effect(const pbf_design *d, int f, int b, const double *y)
{
    double sum = 0;
    int n = 0;
    if (d->fraction > 1)
        return contrast(d, f, -1, y);
    for (int c = 0; c < d->n_cells; c++) {
        int other = d->level[c][f] == 0 && !d->refused[c] ? sibling(d, c, f, b, -1, 0) : -1;
        if (other < 0)
            continue;
        sum += y[other] - y[c];
        n++;
    }
    return n ? sum / n : NAN;
}

double pbf_interaction(const pbf_design *d, int f, int b, int g, int c, const double *y)
{
    double sum = 0;
    int n = 0;
    if (d->fraction > 1)
        return 2 * contrast(d, f, g, y);
    for (int k = 0; k < d->n_cells; k++) {
        if (d->level[k][f] || d->level[k][g] || d->refused[k])
            continue;
        int f1 = sibling(d, k, f, b, -1, 0), g1 = sibling(d, k, g, c, -1, 0);
        int both = sibling(d, k, f, b, g, c);
        if (f1 < 0 || g1 < 0 || both < 0)
            continue;
        sum += y[both] - y[g1] - y[f1] + y[k];
        n++;
    }
    return n ? sum / n : NAN;
}

int pbf_aliased(const pbf_design *d, int f, int g, int h, int i)
{
    int same = d->fraction > 1;
    for (int c = 0; c < d->n_cells && same; c++)
        same = (d->level[c][f] == d->level[c][g]) == (d->level[c][h] == d->level[c][i]);
    return same;
}
