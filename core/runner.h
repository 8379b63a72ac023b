/* SPDX-License-Identifier: MIT
 *
 * core/runner.h - a program that can run: compiled exec, divided KV arena, page pool and the
 * attention instance that manages it. Takes steps; knows no sequence queue and no sampling.
 *
 * Invariant: the pool's plan is the one that the backend divided the arena by; what the arena
 * holds is the runner's only between two pbi_runner_take_arena that returned 0.
 */
#ifndef PBI_RUNNER_H
#define PBI_RUNNER_H
#include "device.h"
#include "pages.h"
#include "stepbuild.h"

typedef struct pbi_runner pbi_runner;

typedef struct pbi_runner_options {
    pbi_device *device;
    const pb_program *program; /* weights packed on the device; outlives the runner */
    const pbi_use *attention;  /* NULL: no attention instance and no pool: the runner only runs
                                  steps that were made elsewhere; n_plan, plan say how */
    int32_t n_plan;
    const pb_kv_plan *plan;
    pb_limits limits;
    int64_t kv_bytes;
    int own_arena, paranoid;
} pbi_runner_options;

/* [main] */
int pbi_runner_open(const pbi_runner_options *o, pbi_runner **out, pb_err *err);
void pbi_runner_close(pbi_runner *r);
const pbi_runner_options *pbi_runner_opts(const pbi_runner *r);
pbi_instance *pbi_runner_attention(const pbi_runner *r);
pbi_pages *pbi_runner_pages(const pbi_runner *r);
int32_t pbi_runner_groups(const pbi_runner *r);
const pb_kv_plan *pbi_runner_plan(const pbi_runner *r);
int64_t pbi_runner_arena_bytes(const pbi_runner *r);
/* hash of program and weights' contents: sequences of equal models may share KV */
uint64_t pbi_runner_model_key(const pbi_runner *r);

/* Destroys the attention instance and creates it anew; the pool is emptied. No sequence may be
 * attached. */
int pbi_runner_renew(pbi_runner *r, pb_err *err);
/* Takes the arena for this runner. 1: another runner wrote it since, so that all KV is gone
 * (the caller releases its sequences and renews); 0: still ours. [step] */
int pbi_runner_take_arena(pbi_runner *r);

/* Builds step n from its sequences with the queued copies; checks it if the runner is paranoid.
 * The step lies in the runner until the next one is built. ids: [n_items]. [step] */
int pbi_runner_build(pbi_runner *r, uint64_t n, int32_t flags, int32_t n_items,
                     pbi_step_item *items, const uint64_t *ids, const pb_step **out, pb_err *err);
/* Checks a step that came from elsewhere: structure only without an attention instance. */
int pbi_runner_check(pbi_runner *r, const pb_step *s, const uint64_t *ids, pb_err *err);

/* One step on the device: submit, then pick (unless nothing is drawn), then wait. Errors name
 * the backend. d: n_out records of stride bytes. [step] */
int pbi_runner_submit(pbi_runner *r, const pb_step *s, pb_err *err);
int pbi_runner_pick(pbi_runner *r, int32_t n, const pb_draw *d, size_t stride, pb_err *err);
/* PB_E_NUMERIC: NaN or infinity; out->faulty_op is set if the step had PB_STEP_CHECK. */
int pbi_runner_wait(pbi_runner *r, uint64_t step, pb_result *out, pb_err *err);
#endif
