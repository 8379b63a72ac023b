/* SPDX-License-Identifier: MIT
 *
 * compare/pairs.h - which plugins go together: every level of every factor alone and in pairs with
 * every level of the others, each run once, its tokens and logits compared with what they should
 * be. Measures no time.
 *
 * What a pair should give: the base's tokens if neither changes them alone, those of the one that
 * does if one does. Where both do there is nothing to compare with.
 */
#ifndef PBC_PAIRS_H
#define PBC_PAIRS_H
#include "arm.h"
#include "factors.h"
#include <jansson.h>
#include <stdio.h>

enum {
    PBC_PAIR_SAME = 1,  /* the base's tokens and logits */
    PBC_PAIR_CHANGES,   /* those of the one that changes them, as it declares */
    PBC_PAIR_RUNS,      /* both change them */
    PBC_PAIR_REFUSED,   /* with a reason */
    PBC_PAIR_DIFFERENT, /* a fault */
};

typedef struct pbc_pairs_options {
    const char *model;
    int64_t n;
    const pbi_request *requests;
    /* The pipeline of the base with settings (NULL: none). 0 or PB_E_* */
    int (*load)(void *arg, const char *settings, pbi_pipeline **out, pb_err *err);
    void *load_arg;
    int (*stop)(void *arg);
} pbc_pairs_options;

/* Runs all and makes the document (format patchbay-pairs/1). 0, or PB_E_* when the base itself does
 * not run. */
int pbc_pairs(const pbf_design *d, const pbc_pairs_options *o, json_t **out, pb_err *err);
/* As Markdown, which is also what a terminal gets. */
void pbc_pairs_print(FILE *f, const json_t *doc);
int pbc_pairs_html(FILE *f, const json_t *doc);
/* 0, or the exit status of tokens that differ */
int pbc_pairs_status(const json_t *doc);
#endif
