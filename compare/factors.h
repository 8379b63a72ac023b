/* SPDX-License-Identifier: MIT
 *
 * compare/factors.h - a factorial experiment: which combinations of settings run, and what each
 * factor does on average over the others. Pure arithmetic; knows no pipeline.
 *
 * A factor is a list of levels, each a list of settings ("scheduler=chunked,scheduler.budget=64"
 * or nothing); a cell is one level of each. Up to PBF_MAX_CELLS cells all are run; beyond that, if
 * all factors have two levels, a regular fraction of 16 (resolution IV: main effects are clear of
 * two-factor interactions; Box, Hunter and Hunter, Statistics for Experimenters, ch. 6).
 */
#ifndef PBF_FACTORS_H
#define PBF_FACTORS_H
#include <stddef.h>
#include <stdint.h>

enum { PBF_MAX_FACTORS = 8, PBF_MAX_LEVELS = 8, PBF_MAX_CELLS = 16 };

typedef struct pbf_factor {
    char *text;                        /* owns the levels' texts */
    const char *name;                  /* "attention" */
    const char *level[PBF_MAX_LEVELS]; /* settings "attention=radix,attention.evict=lfu"; "" none */
    char *settings[PBF_MAX_LEVELS];
    int n;
} pbf_factor;

typedef struct pbf_design {
    pbf_factor factor[PBF_MAX_FACTORS];
    int n_factors, n_cells, fraction; /* fraction: 1 = all cells, else one of so many */
    int level[PBF_MAX_CELLS][PBF_MAX_FACTORS];
    int refused[PBF_MAX_CELLS]; /* cells that cannot run are left out of all effects */
} pbf_design;

/* Reads "slot=a|b,slot.key=1|": levels parted by '|', the first the base. An empty level sets
 * nothing. 0, or -1 with the reason in why (n bytes). */
int pbf_add(pbf_design *d, const char *text, char *why, size_t n);
/* Decides which cells run. 0, or -1 with the reason. */
int pbf_plan(pbf_design *d, char *why, size_t n);
void pbf_clear(pbf_design *d);
/* All settings of a cell, with commas, malloc'ed. */
char *pbf_settings(const pbf_design *d, int cell);
/* "attention=radix scheduler=chunked", malloc'ed: the levels that are not the first */
char *pbf_name(const pbf_design *d, int cell);

/* Log-ratio of level b of factor f against its first, averaged over the cells that have all else
 * equal. y[cell]: log of what was measured. NaN when no such pair ran. */
double pbf_effect(const pbf_design *d, int f, int b, const double *y);
/* How much stronger (log of the ratio of ratios) level b of f acts when g has level c instead of
 * its first. NaN when it cannot be told. */
double pbf_interaction(const pbf_design *d, int f, int b, int g, int c, const double *y);
/* In a fraction: 1 if the interactions f x g and h x i cannot be told apart. */
int pbf_aliased(const pbf_design *d, int f, int g, int h, int i);
#endif
