/* SPDX-License-Identifier: MIT
 *
 * compare/live.h - what is open while a trial runs; shared by trial.c and equal.c only.
 */
#ifndef PBC_LIVE_H
#define PBC_LIVE_H
#include "trial.h"

typedef struct pbc_pool {
    double *v;
    int64_t n, cap;
} pbc_pool;
int pbc_pool_add(pbc_pool *p, double x); /* 0, or -1 without memory */

typedef struct pbc_live {
    pbc_trial *t;
    pbi_arm *holder[PBC_MAX_ARMS], *arm[PBC_MAX_ARMS];
    int n_holders, device_of[PBC_MAX_ARMS];
    pbi_requests requests; /* of the round */
    pbi_answer *answers[PBC_MAX_ARMS];
    pbc_pool pool[PBC_MAX_ARMS][2];       /* TTFT, ITL of the epoch */
    pbi_requests differing[PBC_MAX_ARMS]; /* the request of diff[], to be run again */
    uint64_t state;
    int log_steps; /* of the block under way */
} pbc_live;

/* One block of an arm in the declared cache state, untimed. out[requests.n] is zeroed before. */
int pbc_block(pbc_live *l, int a, pbi_answer *out, pbi_totals *totals, pb_err *err);
void pbc_clear_answers(pbi_answer *a, int64_t n);
/* Compares the round's answers of each arm with the base's. */
int pbc_note_differences(pbc_live *l, int epoch, int round, pb_err *err);
/* Runs the first differing request of each arm again, alone, for the logits at that place. Arms
 * whose logits cannot be seen (another process) stay unexplained. */
int pbc_explain_differences(pbc_live *l, pb_err *err);
/* quality.c: fills t->quality of arms whose numeric key is not the base's. */
int pbc_weigh_differences(pbc_live *l, pb_err *err);
#endif
