/* SPDX-License-Identifier: MIT
 *
 * core/engine_impl.h - what the files of the engine share. Not for the rest of the core.
 *
 * engine.c (life, messages, turn), engine_seqs.c (sequences and queues), engine_plan.c (who
 * runs), engine_step.c (one step on the device), engine_result.c (what came of it).
 */
#ifndef PBI_ENGINE_IMPL_H
#define PBI_ENGINE_IMPL_H
#include "engine.h"

/* One function of one plugin: how it is called, timed and logged. */
typedef struct pbi_site {
    pbi_instance *in;
    pbi_call_stat *st;
    const char *function;
    int log;
} pbi_site;

#define PBI_SITE(s, expr) PBI_CALL((s)->st, expr)
#define PBI_LOG(s, result, ...)                                                                    \
    do {                                                                                           \
        if ((s)->log)                                                                              \
            pbi_calls_print((s)->in, (s)->function, (int64_t)(result), __VA_ARGS__);               \
    } while (0)
#define PBI_SELF(s) pbi_instance_self((s)->in)

/* A sequence; v is what plugins see and comes first, so that a view leads back here. */
typedef struct pbi_sequence {
    pb_seq v;
    pb_params params;
    int32_t *tokens;
    float *logprobs; /* [cap_new] of new tokens of this step */
    int64_t cap_tokens, cap_new;
    uint64_t order; /* of arrival: place in the queue */
    uint32_t flags; /* PBI_SUBMIT_* */
    int32_t n_eos, eos[PBI_MSG_MAX_EOS];
    int64_t limit; /* n_tokens never exceeds it */
    int32_t limit_reason;
    int32_t n_preempted;
    uint64_t hash;
    int64_t next_row; /* position of the first row that was not yet counted (ALL_LOGITS) */
    int64_t n_cached; /* at first admission; -1 before */
    int64_t t_admit;  /* of the first admission; 0 before */
    uint64_t planned; /* step whose plan names it */
    int renewed;      /* the caches were dropped once to make room for it */
    int32_t *forced;  /* what an output plugin wants next */
    int32_t n_forced, cap_forced;
} pbi_sequence;

/* Waiting sequences in order of arrival: a queue that is mostly taken from the front. */
typedef struct pbi_queue {
    const pb_seq **seq;
    int32_t head, n, cap; /* seq[head, head + n) */
} pbi_queue;

/* What became of one item of a step. */
typedef struct pbi_outcome {
    int32_t first_draw;       /* index of its first draw among the step's wanted rows; -1: none */
    int32_t n_accepted;       /* drafts that the draws agreed with */
    int32_t n_new;            /* tokens drawn and appended */
    int32_t n_kept;           /* of these kept */
    int32_t keep;             /* kept and forced ones */
    int32_t finish, dead_end; /* an output said so; a constraint left no token */
    int64_t n_before, base;   /* tokens, n_valid before this step */
} pbi_outcome;

typedef struct pbi_outmsg {
    struct pbi_outmsg *next;
    size_t bytes;
    uint64_t data[]; /* aligned to 8 */
} pbi_outmsg;

struct pbi_engine {
    pbi_engine_options o;
    pb_limits lim;
    pb_run run;
    int32_t n_vocab, max_draft;
    pbi_services svc;
    int n_in;
    pbi_instance **in;
    /* sites by slot; constraint and output are lists */
    const pb_attention *att;
    pbi_site a_match, a_attach, a_reserve, a_commit, a_truncate, a_release, a_check, a_idle;
    const pb_sched *sched;
    pbi_site s_next, s_victim;
    const pb_sampler *sampler;
    pbi_site p_draw;
    const pb_spec *spec;
    pbi_site d_propose, d_observe;
    int n_constraints, n_outputs;
    const pb_constraint **constraint;
    const pb_output **output;
    pbi_site *c_mask, *o_accept;

    /* sequences */
    pbi_queue waiting;
    const pb_seq **running; /* [max_seqs] by admission */
    int32_t n_running;
    int32_t *slots, n_slots; /* free ones */
    uint64_t next_order;

    /* the step being built */
    pb_plan *plan;        /* [max_seqs] */
    int32_t *age;         /* [max_seqs] of plan[i].seq: place in running, then in waiting */
    pbi_step_item *items; /* [max_seqs] */
    pbi_outcome *outcome; /* [max_seqs] */
    uint64_t *ids;        /* [max_seqs] */
    int32_t n_items;
    const pb_seq **spec_seq;                /* [max_seqs] */
    int32_t *spec_want, *spec_n, *spec_acc; /* [max_seqs] */
    int32_t *draft, *draft_row;             /* [max_seqs][max_draft]; row of plan i */
    pb_draw *draws;                         /* [max_out] */
    pb_pick *picks;                         /* [max_out] */
    uint32_t *masks;                        /* [max_out][words] */
    uint8_t *dead;                          /* [max_out] the row has no token that is allowed */
    int64_t words;
    const pb_seq **acc_seq; /* [max_seqs] */
    int32_t *acc_n, *acc_item;
    pb_verdict *verdict;
    void *copy_buf, *copy_raw;
    size_t copy_cap;

    uint64_t step; /* number of the last one */
    uint64_t rng;
    int32_t n_stalled, n_empty, checked_idle;
    pbi_outmsg *out_first, **out_last;
    void *msg_buf;
    size_t msg_cap;
    pbi_engine_stats st;
    int quit, code;
    pb_err err;
};

/* ---- engine.c ---- */
/* Sends, or keeps until the ring has room. 0 or PB_E_NOMEM. */
int pbi_engine_send(pbi_engine *e, const void *msg, size_t bytes);
int pbi_engine_send_done(pbi_engine *e, uint64_t id, const pbi_sequence *s, int32_t reason,
                         const pb_err *err);
void *pbi_engine_buf(pbi_engine *e, size_t bytes);
/* The first misuse of pages since the last call. */
int pbi_engine_pages_fault(pbi_engine *e);
uint64_t pbi_engine_random(pbi_engine *e);
int pbi_engine_renew(pbi_engine *e, const char *slot);

static inline pbi_sequence *pbi_seq_of(const pb_seq *v)
{
    return (pbi_sequence *)(void *)(uintptr_t)v;
}

/* ---- engine_seqs.c ---- */
int pbi_queue_add(pbi_queue *q, const pb_seq *s); /* at its place; 0 or PB_E_NOMEM */
void pbi_queue_remove(pbi_queue *q, int32_t i);
int32_t pbi_queue_find(const pbi_queue *q, const pb_seq *s, int32_t hint); /* -1: not there */
/* Submits a checked message: waits, or is refused with DONE. 0, or PB_E_NOMEM. */
int pbi_seq_submit(pbi_engine *e, const pbi_msg_submit *m);
void pbi_seq_free(pbi_sequence *s);
/* Appends one token. 0 or PB_E_NOMEM. */
int pbi_seq_push(pbi_sequence *s, int32_t id);
/* 1: id ends a generation of this request. */
int pbi_seq_is_eos(const pbi_sequence *s, int32_t id);
/* Waiting seq i of the queue gets a slot and its cached prefix. */
int pbi_seq_admit(pbi_engine *e, const pb_seq *s, int32_t queue_at);
/* Running -> waiting: pages released, to be recomputed. */
int pbi_seq_preempt(pbi_engine *e, pbi_sequence *s, int32_t why);
/* Ends a sequence in any state: releases, sends DONE, frees. */
int pbi_seq_finish(pbi_engine *e, pbi_sequence *s, int32_t reason, const pb_err *err);
int pbi_seq_preempt_all(pbi_engine *e, int32_t why);
int32_t pbi_seq_index(const pbi_engine *e, const pb_seq *s); /* in running; -1 */

/* ---- engine_plan.c ---- */
/* Asks the scheduler, admits, reserves: fills e->items. */
int pbi_engine_plan(pbi_engine *e);
/* ---- engine_step.c ---- */
int pbi_engine_run(pbi_engine *e);
/* ---- engine_result.c ---- */
int pbi_engine_results(pbi_engine *e, const pb_result *r, int64_t step_ns);
#endif
