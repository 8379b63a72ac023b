/* SPDX-License-Identifier: MIT
 *
 * tests/unit/pipe.h - a whole engine for tests: device, runner, engine and a front that is an
 * array. Plugins are named by texts "paged page_size=4"; "@name" is a plugin of the test's own.
 * Without a model it runs a program of attention operations that backend sim can price.
 */
#ifndef PIPE_H
#define PIPE_H
#include "engine.h"

enum { PIPE_LIST = 3 };

typedef struct pipe pipe_t;

typedef struct pipe_config {
    const char *backend, *attention, *scheduler, *sampler, *spec; /* spec may be NULL */
    const char *constraint[PIPE_LIST], *output[PIPE_LIST];        /* NULL: no more */
    const char *weights; /* NULL: the made-up program; else "synthetic ..." with model llama */
    int32_t n_groups, n_vocab, window; /* of the made-up program; window: of its last group */
    int32_t max_seqs, max_rows, max_ctx;
    int64_t kv_tokens; /* KV memory for so many tokens */
    int32_t paranoid, copy_steps, preempt_every, threads;
    int32_t ring; /* messages that the engine may send before the front reads; 0: any number */
    uint64_t amnesia;
    pbi_engine_hooks hooks;
    const pb_plugin *const *fakes; /* ends with NULL; or NULL */
    pipe_t *share;                 /* device and program of this one, which is closed later */
    int32_t own_arena;             /* with share */
} pipe_config;
pipe_config pipe_default(void);

typedef struct pipe_request {
    const int32_t *ids;
    int32_t n, n_prompt; /* n_prompt 0: n */
    int64_t max_new;
    int32_t flags, n_eos, priority; /* PBI_SUBMIT_* */
    int32_t eos[4];
    uint64_t salt, logits_hash;
    pb_params params;
    int32_t at_turn, abort_after; /* submitted at this turn; aborted after so many tokens, -1 no */
} pipe_request;
pipe_request pipe_request_default(void);

typedef struct pipe_answer {
    int32_t *ids;
    float *logprobs;
    int64_t n, cap;
    uint64_t hash;
    int32_t reason, n_preempted; /* reason 0: not done */
    int64_t n_cached;
    pb_err err;
} pipe_answer;

/* 0 or PB_E_*. */
int pipe_open(const pipe_config *c, pipe_t **out, pb_err *err);
void pipe_close(pipe_t *p);
/* Runs n requests to the end. Answers are zeroed before, freed by pipe_answers_free. Fails with
 * PB_E_STATE after too many turns without progress. */
int pipe_run(pipe_t *p, int32_t n, const pipe_request *req, pipe_answer *out, pb_err *err);
/* The same in pieces, so that two may take turns. pipe_turn: 1 = all answered. */
void pipe_begin(pipe_t *p, int32_t n, const pipe_request *req, pipe_answer *out);
int pipe_turn(pipe_t *p, pb_err *err);
int pipe_end(pipe_t *p, pb_err *err);
void pipe_answers_free(pipe_answer *a, int32_t n);
pbi_engine *pipe_engine(pipe_t *p);
pbi_runner *pipe_runner(pipe_t *p);
pbi_device *pipe_device(pipe_t *p);
const pb_program *pipe_program(const pipe_t *p);
/* Puts one message before the engine / takes the last answer of a kind (NULL: none). */
void pipe_put(pipe_t *p, const void *msg, size_t bytes);
const void *pipe_last(pipe_t *p, uint32_t kind);
/* One use with its options, made from text; freed by pipe_use_free. */
pbi_use *pipe_use(const char *slot, const char *text, const pb_plugin *const *fakes, pb_err *err);
void pipe_use_free(pbi_use *u);
uint64_t pipe_random(uint64_t *state);
int32_t pipe_below(uint64_t *state, int32_t n);
#endif
