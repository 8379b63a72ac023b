/* SPDX-License-Identifier: MIT
 *
 * plugins/scheduler-chunked/chunked.c - chunked prefill: a step has a budget of tokens; decode
 * rows come first, prompts fill the rest in chunks, so that a long prompt is spread over many
 * steps of even length instead of holding all others up in one long step.
 *
 * Waiting sequences join in the order of a policy; who has waited longer than `patience` goes
 * before all others, by arrival, so that no policy starves anybody. It keeps nothing between two
 * calls. Invariants as in `continuous`: running sequences are planned in order of age, the
 * oldest is never preempted and has a row in every step. Class EXACT. After Sarathi-Serve
 * (Agrawal et al., OSDI 2024). Test: test_schedulers.
 */
#include "../scheduler-common/sched.h"
#include <patchbay/plugin.h>

#include <stdio.h>

enum { FCFS = 0, LPM = 1, PRIORITY = 2, SHORTEST = 3 };
enum { YOUNGEST = 0, LARGEST = 1, LOWEST = 2 };
enum { MAX_LOOK = 256 }; /* waiting ones that a policy compares; by arrival, so all come into it */

typedef struct config {
    int64_t budget, max_running, headroom, patience_ms;
    int32_t policy, victim;
} config;

typedef struct stats {
    int64_t steps, admitted, held, preempted, chunks, rescued;
} stats;

typedef struct candidate {
    int64_t rank; /* the lowest joins first */
    int64_t left; /* tokens to compute, 0: not asked yet */
    int32_t index, taken;
} candidate;

typedef struct chunker {
    const pb_host *host;
    const config *cfg;
    stats *st;
    candidate look[MAX_LOOK];
} chunker;

/* ---- who is next --------------------------------------------------------------- */

static int64_t rank_of(const chunker *c, const pb_view *v, const pb_seq *s, int64_t left,
                       int32_t arrival)
{
    if (v->now_ns - s->t_arrival_ns > c->cfg->patience_ms * 1000000)
        return INT64_MIN + arrival;
    switch (c->cfg->policy) {
    case LPM: return left - s->n_tokens; /* minus what is cached */
    case PRIORITY: return -(int64_t)s->priority;
    case SHORTEST: return left;
    default: return arrival;
    }
}

/* Ranks the first waiting sequences; returns their number. What is cached is asked for only where
 * the policy goes by it: a walk over each prompt in each step is not cheap. */
static int32_t look_ahead(chunker *c, const pb_view *v)
{
    int32_t n = v->n_waiting < MAX_LOOK ? v->n_waiting : MAX_LOOK;
    int by_left = c->cfg->policy == LPM || c->cfg->policy == SHORTEST;
    for (int32_t i = 0; i < n; i++) {
        int64_t left = by_left ? psc_to_compute(v, v->waiting[i]) : 0;
        c->look[i] =
            (candidate){ .rank = rank_of(c, v, v->waiting[i], left, i), .left = left, .index = i };
    }
    return n;
}

static candidate *best_of(chunker *c, int32_t n)
{
    candidate *best = NULL;
    for (int32_t i = 0; i < n; i++)
        if (!c->look[i].taken && (!best || c->look[i].rank < best->rank))
            best = &c->look[i];
    return best;
}

/* ---- scheduler/1 ----------------------------------------------------------------- */

/* Decode rows, then chunks, oldest first. *budget: tokens left for prompts; *owed: prompt tokens
 * that have no KV yet. Returns the rows left. */
static int32_t plan_running(chunker *c, const pb_view *v, pb_plan *out, int32_t n, int32_t *budget,
                            int64_t *owed)
{
    int32_t rows = v->max_rows;
    *budget = (int32_t)psc_min(c->cfg->budget, rows);
    for (int32_t i = 0; i < n; i++) {
        const pb_seq *s = v->running[i];
        /* the oldest has a row whatever it does: then it ends, and the next is the oldest */
        int32_t one = (s->n_left == 1 || i == 0) && s->n_left > 0 && rows > 0;
        out[i] = (pb_plan){ .seq = s, .n_tokens = one };
        rows -= one;
        *budget -= one;
        *owed += s->n_left;
    }
    for (int32_t i = 0; i < n && rows > 0 && *budget > 0; i++) {
        int32_t more =
            (int32_t)psc_min(out[i].seq->n_left - out[i].n_tokens, psc_min(*budget, rows));
        if (more < 1)
            continue;
        out[i].n_tokens += more;
        rows -= more;
        *budget -= more;
        c->st->chunks += out[i].n_tokens < out[i].seq->n_left;
    }
    return rows;
}

/* Waiting sequences join while slots, budget and KV memory last; returns how many. */
static int32_t admit(chunker *c, const pb_view *v, pb_plan *out, int32_t cap, int32_t *rows,
                     int32_t budget, int64_t owed)
{
    int64_t room = v->n_tokens_free - owed;
    int32_t n = 0, running = v->n_running, most = v->n_slots_free < cap ? v->n_slots_free : cap;
    if (most < 1 || *rows < 1 || budget < 1 || v->n_waiting < 1)
        return 0;
    int32_t n_look = look_ahead(c, v);
    while (n<most && * rows> 0 && budget > 0) {
        candidate *q = best_of(c, n_look);
        if (!q || (c->cfg->max_running > 0 && running >= c->cfg->max_running))
            break;
        if (q->left == 0)
            q->left = psc_to_compute(v, v->waiting[q->index]);
        room -= q->left + c->cfg->headroom;
        /* with nothing else to run it is tried anyway: only the engine knows what really fits */
        if (room < 0 && running > 0) {
            c->st->held++;
            break;
        }
        q->taken = 1;
        int32_t feed = (int32_t)psc_min(q->left, psc_min(budget, *rows));
        out[n++] = (pb_plan){ .seq = v->waiting[q->index], .n_tokens = feed };
        *rows -= feed;
        budget -= feed;
        running++;
        c->st->chunks += feed < q->left;
        c->st->rescued += q->rank < INT64_MIN + MAX_LOOK && c->cfg->policy != FCFS;
    }
    c->st->admitted += n;
    return n;
}

static int32_t next(void *self, const pb_view *v, pb_plan *out, int32_t cap)
{
    chunker *c = self;
    int64_t owed = 0;
    int32_t budget, n_run = v->n_running < cap ? v->n_running : cap;
    int32_t rows = plan_running(c, v, out, n_run, &budget, &owed);
    int32_t n_old = psc_drop_empty(out, n_run);
    int32_t n = n_old + admit(c, v, out + n_old, cap - n_old, &rows, budget, owed);
    /* last, for proposals may be wrong: they must not keep others out */
    psc_give_drafts(v, out, n_old, rows);
    c->st->steps += n > 0;
    return n;
}

/* Is running a to be preempted rather than b, which is older? */
static int rather(const chunker *c, const pb_seq *a, const pb_seq *b)
{
    if (c->cfg->victim == LARGEST)
        return a->n_valid >= b->n_valid;
    if (c->cfg->victim == LOWEST)
        return a->priority <= b->priority;
    return 1;
}

/* One of those that are younger than the one in need. */
static int32_t victim(void *self, const pb_view *v, const pb_seq *needs)
{
    chunker *c = self;
    int32_t best = -1, i = 0;
    while (i < v->n_running && v->running[i] != needs)
        i++;
    for (i++; i < v->n_running; i++)
        if (best < 0 || rather(c, v->running[i], v->running[best]))
            best = i;
    c->st->preempted += best >= 0;
    return best;
}

/* ---- lifecycle ---------------------------------------------------------- */

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    chunker *c = host->alloc(host, sizeof *c, 0, "chunked");
    if (!c) {
        err->code = PB_E_NOMEM;
        snprintf(err->msg, sizeof err->msg, "scheduler-chunked: no memory for %zu bytes",
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
    chunker *c = self;
    c->host->free(c->host, c);
}

static const pb_sched vtable = { .size = sizeof(pb_sched), .next = next, .victim = victim };

static const pb_option options[] = {
    PB_INT(config, budget, "512", "1", "1048576", PB_O_LIVE, "tokens",
           "of a step: what decode rows leave of it is filled with chunks of prompts"),
    PB_ENUM(
        config, policy, "fcfs", "fcfs|lpm|priority|shortest", PB_O_LIVE,
        "who joins first: by arrival, longest cached prefix, highest priority, fewest tokens to "
        "compute"),
    PB_INT(config, patience_ms, "10000", "0", "86400000", PB_O_LIVE, "ms",
           "who has waited longer joins before all others, by arrival"),
    PB_INT(config, max_running, "0", "0", "1048576", PB_O_LIVE, "sequences",
           "sequences that run at once; 0: as many as there are slots"),
    PB_INT(config, headroom, "32", "0", "1048576", PB_O_LIVE, "tokens",
           "KV tokens kept free for each admitted sequence to grow into"),
    PB_ENUM(
        config, victim, "youngest", "youngest|largest|lowest", PB_O_LIVE,
        "who is preempted of those younger than the one in need: the youngest, the one with most "
        "KV, the one of lowest priority"),
    PB_OPTIONS_END,
};

static const pb_counter counters[] = {
    PB_COUNTER(stats, steps, 0, "steps", "steps composed"),
    PB_COUNTER(stats, admitted, 0, "sequences", "planned to start, again after preemption"),
    PB_COUNTER(stats, chunks, PB_C_ENGAGED, "chunks",
               "parts of prompts that did not end their prompt"),
    PB_COUNTER(stats, held, 0, "times", "admissions put off for lack of KV memory"),
    PB_COUNTER(stats, preempted, 0, "sequences", "victims named"),
    PB_COUNTER(stats, rescued, 0, "sequences",
               "that joined out of turn for they had waited too long"),
    PB_COUNTERS_END,
};

static const pb_iface ifaces[] = { { "scheduler/1", &vtable }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .slot = "scheduler",
    .name = "chunked",
    .version = "0.1.0",
    .license = "MIT",
    .summary = "a token budget for every step: long prompts in chunks beside decode rows",
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
