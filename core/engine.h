/* SPDX-License-Identifier: MIT
 *
 * core/engine.h - the engine: sequences, queues and the loop over flat steps. It talks to the
 * front by messages only and to plugins through PBI_CALL only.
 *
 * Invariants: time comes from the device's clock; a policy that is destroyed and created anew
 * between two steps changes no token; the oldest running sequence can always go on, and one
 * that can never fit is failed with a reason; n_valid <= n_tokens - 1 while a sequence is to
 * draw a token. What is emitted depends on the request and the numeric key, on nothing else.
 */
#ifndef PBI_ENGINE_H
#define PBI_ENGINE_H
#include "messages.h"
#include "runner.h"

typedef struct pbi_engine pbi_engine;

/* Where messages come from and go to (two rings, or a test's arrays). [step] */
typedef struct pbi_port {
    void *arg;
    const void *(*peek)(void *arg, size_t *bytes); /* next message, aligned to 8; NULL: none */
    void (*pop)(void *arg);                        /* done with what peek returned */
    int (*send)(void *arg, const void *msg, size_t bytes); /* 0, or PB_E_FULL: later */
} pbi_port;

/* For tests and tools, inline only; each may be NULL. [step] */
typedef struct pbi_engine_hooks {
    void *arg;
    /* unedited logits of a kept row (of every row with ALL_LOGITS) at position pos, in order */
    void (*on_logits)(void *arg, uint64_t id, int64_t pos, const float *row, int64_t n_vocab);
    /* each step before it is submitted; then its draws (n = n_out), before pick */
    void (*on_step)(void *arg, const pb_step *s);
    void (*on_draws)(void *arg, int32_t n, const pb_draw *d, size_t stride);
    void (*on_result)(void *arg, const pb_step *s, const pb_result *r);
} pbi_engine_hooks;

typedef struct pbi_engine_options {
    pbi_runner *runner;           /* target; outlives the engine */
    const pbi_pipeline *pipeline; /* uses of scheduler, sampler, constraint, spec, output */
    const pb_text *text;          /* may be NULL */
    pbi_port port;
    pbi_engine_hooks hooks;
    int step_events;       /* a PBI_MSG_STEP after each step */
    int copy_steps;        /* submit a copy of each step at another address, then poison it */
    uint64_t amnesia;      /* != 0: seed; renews plugins at random steps */
    int32_t preempt_every; /* tests: every n-th step preempts the youngest; 0: off */
} pbi_engine_options;

/* Creates and starts scheduler, sampler, constraints, spec and outputs. [main] */
int pbi_engine_open(const pbi_engine_options *o, pbi_engine **out, pb_err *err);
/* Releases all sequences (PB_REL_ABORTED), sends nothing, destroys. */
void pbi_engine_close(pbi_engine *e);
/* Reads messages, runs at most one step, sends answers. Never blocks but on the device.
 * PB_LOOP_BUSY, PB_LOOP_IDLE (nothing to do), PB_LOOP_DONE (QUIT seen), or PB_E_*: the engine
 * cannot go on; the reason is in pbi_engine_error and was sent as FAULT. [step] */
int pbi_engine_turn(pbi_engine *e);
const pb_err *pbi_engine_error(const pbi_engine *e);
/* Between turns: sequences that are waiting or running. */
int32_t pbi_engine_load(const pbi_engine *e);
void pbi_engine_get_stats(const pbi_engine *e, pbi_engine_stats *s);
/* scheduler, sampler, constraints, spec, outputs; the runner has the attention, the device the
 * backend and kernels */
int pbi_engine_instances(const pbi_engine *e, pbi_instance *const **out);
/* The limits to compile for: rows that may be wanted in one step, with drafts. */
void pbi_engine_limits(const pbi_pipeline *p, int64_t max_ctx, pb_limits *out);
#endif
