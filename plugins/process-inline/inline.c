/* SPDX-License-Identifier: MIT
 *
 * plugins/process-inline/inline.c - front and engine take turns in one thread of one process.
 *
 * The reference of its slot. Invariant: it never asks the engine to quit, so that caches live
 * on from run to run. Class: EXACT.
 */
#include <patchbay/plugin.h>

typedef struct stats {
    int64_t turns;
} stats;

static int run(void *self, const pb_loops *l, pb_err *err)
{
    stats *st = self;
    (void)err; /* the core knows why its loops ended */
    for (;;) {
        int front = l->front(l->h);
        if (front < 0 || front == PB_LOOP_DONE)
            return front < 0 ? front : 0;
        int engine = l->engine(l->h);
        if (engine < 0)
            return engine;
        st->turns++;
        if (front == PB_LOOP_IDLE && engine == PB_LOOP_IDLE)
            l->relax(l->h);
    }
}

static int create(const pb_host *host, const void *config, void **self, pb_err *err)
{
    (void)config;
    (void)err;
    *self = host->stats;
    return 0;
}

static void destroy(void *self)
{
    (void)self;
}

static const pb_counter counters[] = { PB_COUNTER(stats, turns, PB_C_ENGAGED, "turns",
                                                  "turns that front and engine took"),
                                       PB_COUNTERS_END };
static const pb_process process = { .size = sizeof(pb_process), .run = run };
static const pb_iface ifaces[] = { { "process/1", &process }, { NULL, NULL } };

PB_PLUGIN = { PB_HEAD,
              .flags = PB_EXACT,
              .slot = "process",
              .name = "inline",
              .version = "0.1",
              .license = "MIT",
              .summary = "front and engine in one process, taking turns",
              .counters = counters,
              .stats_size = sizeof(stats),
              .ifaces = ifaces,
              .create = create,
              .destroy = destroy };
