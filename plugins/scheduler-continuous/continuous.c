/* SPDX-License-Identifier: MIT
 *
 * plugins/scheduler-continuous/continuous.c - iteration-level scheduling: every step is
 * composed anew, so that a sequence joins and leaves between any two tokens of the others.
 *
 * A step is filled in this order: one row for each sequence that decodes, prompts that are not
 * ended (the oldest first, `chunk` tokens each at most), waiting sequences in order of arrival
 * while slots, rows and KV memory last - none is overtaken -, then drafts to verify.
 *
 * It keeps nothing between two calls. Invariants: the plan's sequences are in order of age, so
 * that a victim is never in the part of the step that is already built; the oldest running
 * sequence is never preempted and always gets rows, hence every sequence ends. Class EXACT.
 * After Orca (Yu et al., OSDI 2022). Test: test_schedulers.
 */
#include "../scheduler-common/sched.h"
#include <patchbay/plugin.h>

#include <stdio.h>

typedef struct config {
    int64_t chunk, max_running, headroom;
} config;

typedef struct stats {
    int64_t steps, admitted, held, preempted, chunked;
} stats;

typedef struct continuous {
    const pb_host *host;
    const config *cfg;
    stats *st;
} continuous;

/* Rows that a prompt may take now. */
static int32_t prompt_rows(const continuous *c, int64_t n_left, int32_t rows)
{
    int64_t n = c->cfg->chunk > 0 ? psc_min(n_left, c->cfg->chunk) : n_left;
    return (int32_t)psc_min(n, rows);
}

/* Plans the running sequences, oldest first; returns the rows left. *owed: tokens of their
 * prompts that have no KV yet, which admission must not give away. */
static int32_t plan_running(continuous *c, const pb_view *v, pb_plan *out, int32_t n, int64_t *owed)
{
    int32_t rows = v->max_rows;
    for (int32_t i = 0; i < n; i++) {
        const pb_seq *s = v->running[i];
        /* the oldest has a row whatever it does: then it ends, and the next is the oldest */
        int32_t one = (s->n_left == 1 || i == 0) && s->n_left > 0 && rows > 0;
        out[i] = (pb_plan){ .seq = s, .n_tokens = one };
        rows -= one;
        *owed += s->n_left;
    }
    for (int32_t i = 0; i < n && rows > 0; i++) {
        if (out[i].seq->n_left <= 1)
            continue;
        rows += out[i].n_tokens;
        out[i].n_tokens = prompt_rows(c, out[i].seq->n_left, rows);
        rows -= out[i].n_tokens;
        c->st->chunked += out[i].n_tokens < out[i].seq->n_left;
    }
    return rows;
}

static int32_t next(void *self, const pb_view *v, pb_plan *out, int32_t cap)
{
    continuous *c = self;
    int64_t owed = 0;
    int32_t n_run = v->n_running < cap ? v->n_running : cap;
    int32_t rows = plan_running(c, v, out, n_run, &owed);
    int32_t n_old = psc_drop_empty(out, n_run), n = n_old, slots = v->n_slots_free,
            running = v->n_running;
    int64_t room = v->n_tokens_free - owed;
    for (int32_t i = 0; i < v->n_waiting && rows > 0 && slots > 0 && n < cap; i++) {
        const pb_seq *s = v->waiting[i];
        if (c->cfg->max_running > 0 && running >= c->cfg->max_running)
            break;
        int64_t left = psc_to_compute(v, s);
        room -= left + c->cfg->headroom;
        /* with nothing else to run it is tried anyway: only the engine knows what really fits */
        if (room < 0 && running > 0) {
            c->st->held++;
            break;
        }
        out[n] = (pb_plan){ .seq = s, .n_tokens = prompt_rows(c, left, rows) };
        rows -= out[n].n_tokens;
        c->st->chunked += out[n].n_tokens < left;
        c->st->admitted++;
        n++;
        slots--;
        running++;
    }
    /* last, for proposals may be wrong: they must not keep others out */
    psc_give_drafts(v, out, n_old, rows);
    c->st->steps += n > 0;
    return n;
}

static int32_t victim(void *self, const pb_view *v, const pb_seq *needs)
{
    int32_t i = psc_youngest(v, needs);
    ((continuous *)self)->st->preempted += i >= 0;
    return i;
}

/* ---- lifecycle ---------------------------------------------------------- */

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    continuous *c = host->alloc(host, sizeof *c, 0, "continuous");
    if (!c) {
        err->code = PB_E_NOMEM;
        snprintf(err->msg, sizeof err->msg, "scheduler-continuous: no memory for %zu bytes",
                 sizeof *c);
        return PB_E_NOMEM;
    }
    c->host = host;
    c->cfg = cfg;
    c->st = host->stats;
    *self = c;
    return 0;
}

/* Nothing is kept. */
static int reset(void *self)
{
    return 0;
}

static void destroy(void *self)
{
    continuous *c = self;
    c->host->free(c->host, c);
}

static const pb_sched vtable = { .size = sizeof(pb_sched), .next = next, .victim = victim };

static const pb_option options[] = {
    PB_INT(
        config, chunk, "0", "0", "1048576", PB_O_LIVE, "tokens",
        "prompt tokens that one sequence may feed in a step; 0: as many as the step has rows for"),
    PB_INT(config, max_running, "0", "0", "1048576", PB_O_LIVE, "sequences",
           "sequences that run at once; 0: as many as there are slots"),
    PB_INT(config, headroom, "32", "0", "1048576", PB_O_LIVE, "tokens",
           "KV tokens kept free for each admitted sequence to grow into, so that admission does "
           "not lead to preemption"),
    PB_OPTIONS_END,
};

static const pb_counter counters[] = {
    PB_COUNTER(stats, steps, PB_C_ENGAGED, "steps", "steps composed"),
    PB_COUNTER(stats, admitted, 0, "sequences",
               "sequences planned to start, again after preemption"),
    PB_COUNTER(stats, held, 0, "times", "admissions put off for lack of KV memory"),
    PB_COUNTER(stats, preempted, 0, "sequences", "victims named"),
    PB_COUNTER(stats, chunked, 0, "chunks", "parts of prompts that did not end their prompt"),
    PB_COUNTERS_END,
};

static const pb_iface ifaces[] = { { "scheduler/1", &vtable }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .slot = "scheduler",
    .name = "continuous",
    .version = "0.1.0",
    .license = "MIT",
    .summary = "composes every step anew: sequences join and leave between any two tokens",
    .flags = PB_EXACT,
    .options = options,
    .counters = counters,
    .config_size = sizeof(config),
    .stats_size = sizeof(stats),
    .ifaces = ifaces,
    .create = create,
    .reset = reset,
    .destroy = destroy,
};
