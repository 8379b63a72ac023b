/* SPDX-License-Identifier: MIT
 *
 * patchbay/policy.h - interfaces scheduler/1, sampler/1, constraint/1, spec/1 and
 * output/1: the policies of an engine.
 *
 * The core owns sequences, queues and time; a policy is a function of const views.
 * What it remembers is indexed by slot and can be rebuilt from the sequence, so any
 * of them may be destroyed and created again between two steps without changing a
 * token. All functions [step] unless marked. Step calls return 0 or PB_E_*.
 */
#ifndef PATCHBAY_POLICY_H
#define PATCHBAY_POLICY_H

#include <patchbay/attention.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- scheduler/1 ------------------------------------------------------- */

typedef struct pb_view {
    size_t size;
    uint64_t step;
    int64_t now_ns;
    int32_t n_waiting, n_running;
    const pb_seq *const *waiting;    /* by arrival */
    const pb_seq *const *running;    /* by admission, oldest first */
    int32_t max_rows, max_seqs;      /* of a step */
    int32_t n_slots_free, max_draft; /* max_draft: tokens the spec may propose; 0 without spec */
    int64_t n_tokens_free;           /* lower bound on tokens that new pages can hold */
    void *h;
    int64_t (*match)(void *h, const pb_seq *s, int64_t *n_inflight); /* see pb_attention.match */
} pb_view;

/* Feed n_tokens of seq in this step (1 <= n_tokens <= n_left; for a waiting one the core
 * clips to what is left after its cached prefix), then verify up to n_draft proposals
 * (only when n_tokens == n_left). */
typedef struct pb_plan {
    const pb_seq *seq;
    int32_t n_tokens, n_draft;
} pb_plan;

typedef struct pb_sched {
    size_t size;
    /* Fills out[0..cap), returns the count, 0 = nothing to do now. Each sequence at most
     * once; rows of all (tokens + drafts) <= max_rows; new ones <= n_slots_free. */
    int32_t (*next)(void *self, const pb_view *v, pb_plan *out, int32_t cap);
    /* Index into v->running of the one to preempt so that `needs` can go on; it must be
     * younger than needs. -1: none, needs itself waits. */
    int32_t (*victim)(void *self, const pb_view *v, const pb_seq *needs);
} pb_sched;

/* ---- sampler/1, constraint/1 ------------------------------------------- */

/* One wanted row. tail: unverified draft tokens between the sequence's end and this row. */
typedef struct pb_pick {
    const pb_seq *seq;
    int32_t out, n_tail;
    const int32_t *tail;
} pb_pick;

typedef struct pb_sampler {
    size_t size;
    /* Fills n draws, prepared by the core with pos, forced = -1 and defaults for
     * greedy. edits point into memory of the sampler, valid until the next call. */
    int (*draw)(void *self, int32_t n, const pb_pick *p, pb_draw *out);
} pb_sampler;

typedef struct pb_constraint {
    size_t size;
    /* Clears the bits of tokens that are not allowed: row i at bits + i * words. */
    int (*mask)(void *self, int32_t n, const pb_pick *p, uint32_t *bits, int64_t words);
} pb_constraint;

/* ---- spec/1 ------------------------------------------------------------ */

typedef struct pb_spec {
    size_t size;
    /* Up to want[i] proposals to follow tokens[n_tokens) of s[i], at out + i * stride. */
    int (*propose)(void *self, int32_t n, const pb_seq *const *s, const int32_t *want, int32_t *out,
                   int32_t stride, int32_t *n_out);
    void (*observe)(void *self, int32_t n, const pb_seq *const *s, const int32_t *proposed,
                    const int32_t *accepted, int64_t step_ns);
} pb_spec;

/* ---- output/1 ---------------------------------------------------------- */

/* Front side: what an output plugin may change of a request before it is tokenized. */
typedef struct pb_request {
    size_t size;
    int64_t max_new;        /* may be lowered */
    const char *system_add; /* set to text that is added to the system turn; or NULL */
    int32_t has_messages, reserved;
} pb_request;

/* keep: of the n_new tokens just accepted, 0 = none of them. finish: end the sequence
 * now. forced: tokens that must come next, before any draw; valid until the next call. */
typedef struct pb_verdict {
    int32_t keep, finish, n_forced, reserved;
    const int32_t *forced;
} pb_verdict;

typedef struct pb_output {
    size_t size;
    int (*request)(void *self, pb_request *r); /* [main] optional */
    /* v[i] is prepared with keep = n_new[i], finish = 0, n_forced = 0. Optional. */
    int (*accept)(void *self, int32_t n, const pb_seq *const *s, const int32_t *n_new,
                  pb_verdict *v);
} pb_output;

#ifdef __cplusplus
}
#endif
#endif
