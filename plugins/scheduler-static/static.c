/* SPDX-License-Identifier: MIT
 *
 * plugins/scheduler-static/static.c - classic batching: a batch of requests is admitted, all its
 * prompts are fed, then all decode in lockstep until the last one has ended; only then the next
 * batch begins.
 *
 * The arm that `continuous` is compared with: simple, and idle where answers differ in length.
 * A batch is what fits by the longest it may become, so preemption is rare; what is preempted
 * waits for the next batch. It keeps nothing between two calls: "a batch runs" means that a
 * sequence runs. Class EXACT. Test: test_schedulers.
 */
#include "../scheduler-common/sched.h"
#include <patchbay/plugin.h>

#include <stdio.h>

typedef struct config {
    int64_t batch;
} config;

typedef struct stats {
    int64_t steps, batches, admitted, preempted, idle_rows;
} stats;

typedef struct batcher {
    const pb_host *host;
    const config *cfg;
    stats *st;
    int32_t max_ctx;
} batcher;

/* KV tokens that s may come to need. */
static int64_t longest(const batcher *b, const pb_seq *s)
{
    int64_t more = s->max_new >= 0 ? s->max_new - (s->n_tokens - s->n_prompt) : b->max_ctx;
    return psc_min(s->n_tokens + (more > 0 ? more : 0), b->max_ctx > 0 ? b->max_ctx : INT64_MAX);
}

/* Every member gets a row, then the first come get what is left. */
static int32_t new_batch(batcher *b, const pb_view *v, pb_plan *out, int32_t cap)
{
    int64_t most = psc_min(psc_min(b->cfg->batch, v->n_slots_free), psc_min(cap, v->max_rows));
    int64_t room = v->n_tokens_free;
    int32_t n = 0, rows = v->max_rows;
    for (int32_t i = 0; i < v->n_waiting && n < most; i++) {
        room -= longest(b, v->waiting[i]);
        if (room < 0 && n > 0)
            break;
        out[n++] = (pb_plan){ .seq = v->waiting[i], .n_tokens = 1 };
        rows--;
    }
    for (int32_t i = 0; i < n && rows > 0; i++) {
        int32_t more = (int32_t)psc_min(psc_to_compute(v, out[i].seq) - 1, rows);
        out[i].n_tokens += more;
        rows -= more;
    }
    b->st->batches += n > 0;
    b->st->admitted += n;
    return n;
}

/* Prompts before answers: while one of the batch has a prompt to feed, nobody decodes but the
 * oldest. It goes on in every step, so that a batch that outgrew the KV memory still ends. */
static int32_t run_batch(batcher *b, const pb_view *v, pb_plan *out, int32_t n)
{
    int32_t rows = v->max_rows;
    int prompts = 0;
    for (int32_t i = 0; i < n; i++)
        prompts |= v->running[i]->n_left > 1;
    for (int32_t i = 0; i < n; i++) {
        const pb_seq *s = v->running[i];
        int64_t want = prompts && i > 0 && s->n_left == 1 ? 0 : s->n_left;
        out[i] = (pb_plan){ .seq = s, .n_tokens = (int32_t)psc_min(want, rows) };
        rows -= out[i].n_tokens;
    }
    if (!prompts)
        psc_give_drafts(v, out, n, rows);
    n = psc_drop_empty(out, n);
    b->st->idle_rows += b->cfg->batch > n ? b->cfg->batch - n : 0;
    return n;
}

static int32_t next(void *self, const pb_view *v, pb_plan *out, int32_t cap)
{
    batcher *b = self;
    int32_t n = v->n_running > 0 ? run_batch(b, v, out, v->n_running < cap ? v->n_running : cap)
                                 : new_batch(b, v, out, cap);
    b->st->steps += n > 0;
    return n;
}

static int32_t victim(void *self, const pb_view *v, const pb_seq *needs)
{
    int32_t i = psc_youngest(v, needs);
    ((batcher *)self)->st->preempted += i >= 0;
    return i;
}

/* ---- lifecycle ---------------------------------------------------------- */

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    batcher *b = host->alloc(host, sizeof *b, 0, "static");
    if (!b) {
        err->code = PB_E_NOMEM;
        snprintf(err->msg, sizeof err->msg, "scheduler-static: no memory for %zu bytes", sizeof *b);
        return PB_E_NOMEM;
    }
    b->host = host;
    b->cfg = cfg;
    b->st = host->stats;
    *self = b;
    return 0;
}

static int start(void *self, const pb_run *run, pb_err *err)
{
    ((batcher *)self)->max_ctx = run->max_ctx;
    return 0;
}

/* Nothing is kept. */
static int reset(void *self)
{
    return 0;
}

static void destroy(void *self)
{
    batcher *b = self;
    b->host->free(b->host, b);
}

static const pb_sched vtable = { .size = sizeof(pb_sched), .next = next, .victim = victim };

static const pb_option options[] = {
    PB_INT(config, batch, "8", "1", "1048576", PB_O_LIVE, "sequences",
           "that begin together and are waited for together"),
    PB_OPTIONS_END,
};

static const pb_counter counters[] = {
    PB_COUNTER(stats, steps, 0, "steps", "steps composed"),
    PB_COUNTER(stats, batches, PB_C_ENGAGED, "batches", "batches begun"),
    PB_COUNTER(stats, admitted, 0, "sequences", "planned to start, again after preemption"),
    PB_COUNTER(stats, preempted, 0, "sequences", "victims named"),
    PB_COUNTER(stats, idle_rows, 0, "rows", "places of ended members, summed over steps"),
    PB_COUNTERS_END,
};

static const pb_iface ifaces[] = { { "scheduler/1", &vtable }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .slot = "scheduler",
    .name = "static",
    .version = "0.1.0",
    .license = "MIT",
    .summary = "runs a batch to its end before the next one begins: the classic baseline",
    .flags = PB_EXACT,
    .options = options,
    .counters = counters,
    .config_size = sizeof(config),
    .stats_size = sizeof(stats),
    .ifaces = ifaces,
    .create = create,
    .start = start,
    .reset = reset,
    .destroy = destroy,
};
