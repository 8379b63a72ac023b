/* SPDX-License-Identifier: MIT
 *
 * core/arm.h - an arm: one pipeline, ready to run requests. What run, score, compare
 * and the tests use; below it are Device > Model > Runner > Engine and the Front.
 *
 * Arms that share (share != NULL) use one device, one set of packed weights, one
 * thread team and one KV arena; then only one of them may be running at a time, and
 * its KV content is gone when another ran.
 */
#ifndef PBI_ARM_H
#define PBI_ARM_H
#include "instance.h"
#include "text/text.h"

typedef struct pbi_arm pbi_arm;

typedef struct pbi_arm_options {
    const char *model_path; /* for the weights plugin; may be "" for synthetic */
    pbi_arm *share;         /* device, weights, team, arena of this arm; or NULL */
    int own_arena;   /* with share: an arena of its own, so that both may have running sequences */
    int no_text;     /* no tokenizer: requests give ids, answers have no text */
    int hash_logits; /* answers carry logits_hash */
    int want_logits; /* hooks of runs may have on_logits */
    /* tests */
    int copy_steps;    /* each step is copied elsewhere, submitted from there, the copy poisoned */
    uint64_t amnesia;  /* != 0: seed; plugins are destroyed and created anew at random steps */
    int virtual_clock; /* set by backend sim itself */
    /* progress while loading: 0..1; may be NULL */
    void (*progress)(void *arg, const char *what, double done);
    void *progress_arg;
} pbi_arm_options;

/* One request. Strings and arrays stay the caller's, valid during the call that gets them. */
typedef struct pbi_request {
    const char *prompt; /* text of n_prompt bytes, or NULL: ids */
    size_t n_prompt;
    const int32_t *ids;
    int64_t n_ids;
    int64_t max_new; /* -1: until the context is full; 0: no token, prompt is computed */
    int ignore_eos, special, no_bos, all_logits;
    int priority;
    uint64_t salt;    /* keeps tenants' caches apart */
    pb_params params; /* pbi_params_default() */
    int n_stop;
    const char *const *stop;
    int64_t arrival_ns; /* after the start of the run, or after that request's end; 0: at once */
    int64_t after;      /* 0, or 1 + the index of a request before it that must end first */
    /* what the answer should be, for whoever judges it (workload/score.c); the engine never looks
     */
    const char *expect;
    int match;
    int64_t abort_after; /* tests: abort when this many tokens were answered; -1 never */
} pbi_request;
void pbi_request_default(pbi_request *r);
void pbi_params_default(pb_params *p);
/* 0, or PB_E_INVAL with the first parameter that is out of range, its value and limits: those of
 * sampler-chain's options. What is unset (NaN, INT32_MIN) is in range. [any] */
int pbi_params_check(const pb_params *p, pb_err *err);

typedef struct pbi_answer {
    int32_t *prompt_ids, *ids; /* malloc'ed */
    int64_t n_prompt, n_ids, n_cached;
    char *text; /* malloc'ed, 0-terminated, valid UTF-8 */
    size_t n_text;
    const char *finish; /* "stop", "length", "abort", "error", "context" */
    float *logprobs;    /* [n_ids] or NULL */
    uint64_t
        logits_hash; /* of the rows whose tokens were kept, in order; all rows with all_logits */
    /* engine clock: arrival; first admission (0: never); first and last token (0: none) */
    int64_t t_submit_ns, t_admit_ns, t_first_ns, t_last_ns;
    int64_t *t_token_ns; /* [n_ids] */
    pb_err err;          /* code != 0: refused or failed, with the reason */
} pbi_answer;
void pbi_answer_clear(pbi_answer *a);

/* What one step did, as the engine saw it when the step had ended. */
typedef struct pbi_step_event {
    int64_t t_ns, step_ns;    /* its end; its length */
    int64_t kv_used, kv_live; /* bytes of pages taken; of these, tokens of running sequences (one
                                 that two share counts twice) */
    int32_t prefill_rows, decode_rows, running, waiting;
} pbi_step_event;

/* Limits and callbacks of a run, all on the caller's thread; each may be NULL or 0. */
typedef struct pbi_run_hooks {
    void *arg;
    int64_t clients; /* closed loop: no more unanswered requests than this, sent in order */
    void (*on_step)(void *arg, const pbi_step_event *s);
    void (*on_text)(void *arg, int64_t i, const char *s, size_t n); /* stream of request i */
    /* inline pipelines: wanted row of request i at position pos, unedited logits */
    void (*on_logits)(void *arg, int64_t i, int64_t pos, const float *row, int64_t n_vocab);
    int (*stop)(void *arg); /* polled; non-zero: abort all that is unanswered */
} pbi_run_hooks;

/* Counted over one pbi_arm_run. */
typedef struct pbi_totals {
    int64_t wall_ns, cpu_ns, n_steps, n_rows, n_out_tokens, n_prompt_tokens, n_cached_tokens;
    int64_t n_preempted, n_drafted, n_accepted, n_engine_lost;
    int64_t kv_bytes_arena, kv_bytes_peak, weight_bytes;
    int64_t step_ns, device_ns; /* inside steps; inside the backend */
    /* over the time from the first step to the last, each level lasting until the next step */
    double running_mean, waiting_mean, kv_used_mean, kv_live_mean;
    int64_t running_max, waiting_max;
} pbi_totals;

/* Builds everything up to a started engine. p must outlive the arm. [main] */
int pbi_arm_open(const pbi_pipeline *p, const pbi_arm_options *o, pbi_arm **out, pb_err *err);
void pbi_arm_close(pbi_arm *a);
/* Runs n requests to their answers (out[n], cleared by the caller afterwards). A request that
 * is refused does not fail the others. Returns PB_E_* only if the engine cannot go on. */
int pbi_arm_run(pbi_arm *a, int64_t n, const pbi_request *req, pbi_answer *out,
                const pbi_run_hooks *hooks, pbi_totals *totals, pb_err *err);
/* Whether an arm of pipeline p could share a's device: backend, kernels and threads are equal. */
int pbi_arm_can_share(const pbi_arm *a, const pbi_pipeline *p);
/* Turns logits_hash of answers on or off for the runs that follow. */
void pbi_arm_hash_logits(pbi_arm *a, int on);
/* Forgets caches and statistics: as if just started. */
int pbi_arm_reset(pbi_arm *a, pb_err *err);

const pbi_tokenizer *pbi_arm_tokenizer(const pbi_arm *a);
const pb_program *pbi_arm_program(const pbi_arm *a);
int64_t pbi_arm_context(const pbi_arm *a);
/* all live plugin instances, for counters, memory and call statistics */
int pbi_arm_instances(const pbi_arm *a, pbi_instance *const **out);
#endif
