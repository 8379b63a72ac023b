/* SPDX-License-Identifier: MIT
 * A scheduler in one small file: one sequence at a time, first come, first served. Tokens stay
 * the same (EXACT), throughput does not: compare it with continuous to see what batching buys. */
#include <patchbay/plugin.h>

typedef struct stats { /* int64_t counters; the core allocates, prints and resets them */
    int64_t steps, held_back;
} stats;

/* What runs in the next step: the oldest running sequence, else the one that waits longest. */
static int32_t next(void *self, const pb_view *v, pb_plan *out, int32_t cap)
{
    stats *st = self;
    const pb_seq *s = v->n_running ? v->running[0] : v->n_waiting ? v->waiting[0] : NULL;
    if (!s || cap < 1)
        return 0;
    int64_t n = s->n_left < v->max_rows ? s->n_left : v->max_rows;
    out[0] = (pb_plan){ .seq = s, .n_tokens = (int32_t)n };
    st->steps++;
    st->held_back += v->n_running + v->n_waiting - 1;
    return 1;
}

/* Who gives up its memory for `needs`: the youngest, if that is another one. */
static int32_t victim(void *self, const pb_view *v, const pb_seq *needs)
{
    return v->running[v->n_running - 1] == needs ? -1 : v->n_running - 1;
}

static int create(const pb_host *host, const void *config, void **self, pb_err *err)
{
    *self = host->stats; /* nothing to remember but the counters */
    return 0;
}

static void destroy(void *self)
{
}

static const pb_counter counters[] = { PB_COUNTER(stats, steps, 0, "steps", "steps planned"),
                                       PB_COUNTER(stats, held_back, PB_C_ENGAGED, "sequences",
                                                  "sequences that had to wait, by step"),
                                       PB_COUNTERS_END };
static const pb_sched sched = { .size = sizeof sched, .next = next, .victim = victim };
static const pb_iface ifaces[] = { { "scheduler/1", &sched }, { NULL, NULL } };

PB_PLUGIN = { PB_HEAD,
              .flags = PB_EXACT,
              .slot = "scheduler",
              .name = "hello",
              .version = "1.0",
              .license = "MIT",
              .summary = "one sequence at a time",
              .counters = counters,
              .stats_size = sizeof(stats),
              .ifaces = ifaces,
              .create = create,
              .destroy = destroy };
