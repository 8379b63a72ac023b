/* SPDX-License-Identifier: MIT
 *
 * compare/result.h - a trial as one JSON document, which the terminal summary, the report and
 * a bundle are made from. patchbay-compare(1) documents its members.
 *
 * Invariant: whatever is printed is in the document; nothing is computed twice.
 */
#ifndef PBC_RESULT_H
#define PBC_RESULT_H
#include "trial.h"
#include "workload/workload.h"
#include <jansson.h>
#include <stdio.h>

/* What is gathered while blocks run: times of single answers, counters of plugins. */
typedef struct pbc_gather {
    double *v[PBC_MAX_ARMS][2]; /* TTFT, E2E of all timed answers, ms */
    int64_t n[PBC_MAX_ARMS], cap[PBC_MAX_ARMS];
    json_t *plugins[PBC_MAX_ARMS];
    json_t *untimed[PBC_MAX_ARMS]; /* the same after an untimed block: with times of calls */
} pbc_gather;
/* fits pbc_options.on_block; arg is a pbc_gather */
int pbc_gather_block(void *arg, const pbc_row *row, const pbi_answer *a, const pbi_arm *arm);
void pbc_gather_clear(pbc_gather *g);

/* The document, or NULL without memory. name: of the requests; w: NULL for a list of them. */
json_t *pbc_result(const pbc_trial *t, const pbc_gather *g, const char *name,
                   const pbw_workload *w);
/* The summary for a terminal, at most 25 lines for two arms; color: escape sequences. */
void pbc_print(FILE *f, const json_t *result, int color);
/* Exit status that a result calls for: 0, or PBC_EXIT_*. */
enum { PBC_EXIT_DIFFERENT = 10, PBC_EXIT_IDLE = 11, PBC_EXIT_NOT_HELD = 12 };
int pbc_exit_status(const json_t *result);
#endif
