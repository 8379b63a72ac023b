/* SPDX-License-Identifier: MIT
 *
 * compare/ablation.h - a factorial experiment's document, and how it is shown.
 *
 * The trial's arms are the cells that run, in the design's order. Intervals are over epochs, as in
 * a comparison: each epoch gives one value of each effect.
 */
#ifndef PBC_ABLATION_H
#define PBC_ABLATION_H
#include "factors.h"
#include "trial.h"
#include <jansson.h>
#include <stdio.h>

/* Effects are judged for these metrics of trial.h. */
enum { PBC_N_JUDGED = 4 };
extern const int pbc_judged[PBC_N_JUDGED];

/* main effects and two-factor interactions of a design */
int pbc_n_effects(const pbf_design *d);
/* epochs that one verdict needs */
int pbc_ablation_epochs(const pbf_design *d, double level);

/* The document (patchbay-ablate(1)). arm_of[cell]: arm of the trial, -1 for a cell that was refused
 * with reason[cell]. t may be NULL: then only what ran is known. NULL without memory. */
json_t *pbc_ablation(const pbf_design *d, const pbc_trial *t, const int *arm_of,
                     const char *const *reason, const char *base, const char *workload);
void pbc_ablation_print(FILE *f, const json_t *doc, int color);
int pbc_ablation_html(FILE *f, const json_t *doc);
/* 0, or as pbc_exit_status: a cell's tokens differ although its numeric key is the base's. */
int pbc_ablation_status(const json_t *doc);
#endif
