/* SPDX-License-Identifier: MIT
 *
 * compare/trial.h - a comparison while it runs: arms in turns on the same requests, what each
 * block measured, and whether the tokens stayed the same. Knows no command line and no page.
 *
 * Words. A block: one arm answers one list of requests from an idle engine, in the declared
 * cache state, drained. An epoch: all arms created anew in random order, one untimed block for
 * each (the first time with hashes of all logits), then `blocks` rounds of timed blocks, each in
 * an order of its own. Arm 0 is the base; the last arm is a second instance of it, which shows
 * how far two equal pipelines seem to differ here (A/A).
 *
 * Arms whose backend, kernels and threads are equal share device, packed weights and arena for
 * the whole trial; then only one runs at a time. Invariant: in every timed block each answer is
 * compared with the base's, token by token.
 */
#ifndef PBC_TRIAL_H
#define PBC_TRIAL_H
#include "metrics.h"
#include "pipeline.h"
#include "requests.h"
#include "stats.h"

enum { PBC_MAX_ARMS = 18, PBC_MAX_EPOCHS = 1000, PBC_MAX_USES = 64, PBC_CONTEXT = 8 };
enum { PBC_COLD, PBC_WARM, PBC_NATURAL }; /* the cache before a block */

enum {
    PBC_REQ_S,
    PBC_TOK_S,
    PBC_TTFT,
    PBC_TPOT,
    PBC_E2E,
    PBC_TTFT_P99, /* of all answers of an epoch together */
    PBC_ITL_P99,
    PBC_N_METRICS
};
typedef struct pbc_metric {
    const char *name, *unit, *key;
    int more_is_better, pooled;
} pbc_metric;
extern const pbc_metric pbc_metrics[PBC_N_METRICS];

/* Requests of a block, drawn anew for each round from its seed (a workload), or always the same
 * (a list). Appends to out. */
typedef struct pbc_source {
    void *arg;
    /* like: an open arm, for vocabulary and context */
    int (*draw)(void *arg, const pbi_arm *like, uint64_t seed, pbi_requests *out, pb_err *err);
    int open_loop; /* requests arrive by the clock, whatever the engine manages */
} pbc_source;

typedef struct pbc_row {          /* one timed block of one arm */
    int epoch, round, arm, place; /* place: its turn within the round */
    double v[PBC_N_METRICS];
    double wall_s, cpu_s, busy; /* busy: share of the machine's time that others took */
    int64_t requests, failed, cached, prompt_tokens, out_tokens, steps, preempted, drafted,
        accepted;
    int disturbed, unsteady;
    double score; /* share of answers that are as expected; NaN: none is */
} pbc_row;

typedef struct pbc_options {
    const char *model;
    int n_arms;                     /* without the second instance of the base: 2 or more */
    pbi_pipeline *const *pipelines; /* [n_arms + 1], the last an equal of the first */
    const char *const *names;       /* [n_arms] */
    pbc_source source;
    int min_epochs, max_epochs, blocks, cache;
    double level, delta; /* two-sided error of a comparison; half-width of a tie */
    double until;        /* 0, or: done when the primary interval's half-width is below this */
    double max_time_s;   /* 0: no limit; an epoch begun is finished */
    uint64_t seed;
    void (*progress)(void *arg, double done, double left_s); /* may be NULL */
    void *progress_arg;
    int (*stop)(void *arg); /* polled; non-zero ends after the answer under way */
    /* after each block, while its arm is open; round -1: an untimed one, for which plugins' calls
     * were timed instead, and of which row says no more. May be NULL. 0 or PB_E_* */
    int (*on_block)(void *arg, const pbc_row *row, const pbi_answer *a, const pbi_arm *arm);
    void *on_block_arg;
} pbc_options;

/* The first answer of an arm that was not the base's. */
typedef struct pbc_difference {
    int found, logits_only;               /* logits_only: equal tokens, other bits */
    int epoch, round;                     /* epoch -1: the untimed block with hashes */
    int64_t request, position, n_answers; /* answers that differ in all */
    int32_t token[2];                     /* base, arm; -1: none there */
    int n_before;
    int32_t before[PBC_CONTEXT]; /* common ids before it */
    double margin[2];            /* logit of the picked token - that of the other, per arm; NaN */
    int explained, repeated;     /* the request ran again alone: margins are known; differs too */
    char text[2][96];            /* the tokens as text */
    char before_text[256];
} pbc_difference;

/* How far an arm is from the base where its numeric key is another. */
typedef struct pbc_quality {
    int64_t n_positions;    /* places of the base's answers that were compared; 0: none */
    double kl_mean, kl_max; /* Kullback-Leibler divergence of the arm from the base, nats */
    double top1;            /* share of places with the same likeliest token */
    int n_samples;          /* drawn of each; 0: neither arm draws */
    double p;               /* chance of samples this different from one distribution */
    char why_not[160];
} pbc_quality;

typedef struct pbc_trial {
    pbc_options o;
    int n_all; /* arms with the second instance of the base */
    pbc_row *rows;
    int n_rows, cap_rows;
    double log_ratio[PBC_MAX_ARMS][PBC_N_METRICS][PBC_MAX_EPOCHS];
    double value[PBC_MAX_ARMS][PBC_N_METRICS][PBC_MAX_EPOCHS]; /* of an epoch */
    pbc_difference diff[PBC_MAX_ARMS];
    pbc_quality quality[PBC_MAX_ARMS];
    int engaged[PBC_MAX_ARMS][PBC_MAX_USES]; /* 1 worked, 0 never, -1 has nothing to tell it by */
    int shares[PBC_MAX_ARMS];                /* device of the base */
    int n_epochs, interrupted, timed_out, reached;
    int64_t n_requests, kv_peak[PBC_MAX_ARMS], kv_arena[PBC_MAX_ARMS], weight_bytes[PBC_MAX_ARMS];
    double began_s;
    pbi_step_event *steps[PBC_MAX_ARMS]; /* of the first timed block */
    int64_t n_steps[PBC_MAX_ARMS], cap_steps[PBC_MAX_ARMS];
} pbc_trial;

/* Runs it. 0, or PB_E_* with err; what was measured until then stays in *out either way. */
int pbc_run(const pbc_options *o, pbc_trial **out, pb_err *err);
void pbc_free(pbc_trial *t);
/* Interval of an arm's metric against the base; the level is shared by the metrics and arms that
 * are judged (Bonferroni). */
void pbc_ratio(const pbc_trial *t, int arm, int metric, pbc_interval *out);
int pbc_judge(const pbc_trial *t, int arm, int metric);
/* Permutation test on the counts of tokens at each position: a and b have 200 samples of 4 tokens
 * each. The chance of a difference at least this large if both are from one distribution. */
double pbc_two_samples(const int32_t *a, const int32_t *b, uint64_t seed);
/* epochs that one verdict needs at these options */
int pbc_least_epochs(const pbc_options *o);
/* i-th use (from *from) of an arm that the base lacks and that never worked; NULL: none */
const pbi_use *pbc_idle_use(const pbc_trial *t, int arm, int *from);
#endif
