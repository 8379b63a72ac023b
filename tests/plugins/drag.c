/* SPDX-License-Identifier: MIT
 *
 * tests/plugins/drag.c - output-drag: makes every step slower by a known share and changes nothing
 * else. Only built by `make check`, never installed; bench/power.py lets compare find it.
 *
 * Each call waits, without sleeping, for a part of the time since the call before, as long as that
 * was a step and not a pause.
 */
#define _GNU_SOURCE
#include <patchbay/plugin.h>

#include <time.h>

typedef struct config {
    double percent;
} config;

typedef struct stats {
    int64_t waited_ns;
} stats;

typedef struct drag {
    const pb_host *host;
    const config *cfg;
    stats *st;
    int64_t last_ns;
} drag;

enum { PAUSE_NS = 1000000000 };

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int accept(void *self, int32_t n, const pb_seq *const *s, const int32_t *n_new,
                  pb_verdict *v)
{
    drag *d = self;
    int64_t now = now_ns(), took = d->last_ns ? now - d->last_ns : 0;
    (void)n;
    (void)s;
    (void)n_new;
    (void)v;
    if (took < PAUSE_NS) {
        int64_t until = now + (int64_t)((double)took * d->cfg->percent / 100);
        while (now_ns() < until)
            ;
        d->st->waited_ns += until - now;
    }
    d->last_ns = now_ns();
    return 0;
}

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    drag *d = host->alloc(host, sizeof *d, 0, "drag");
    if (!d) {
        *err = (pb_err){ .code = PB_E_NOMEM, .msg = "output-drag: no memory" };
        return PB_E_NOMEM;
    }
    *d = (drag){ .host = host, .cfg = cfg, .st = host->stats };
    *self = d;
    return 0;
}

static void destroy(void *self)
{
    drag *d = self;
    d->host->free(d->host, d);
}

static const pb_option options[] = { PB_FLOAT(config, percent, "2", "0", "100", 0, "%",
                                              "how much longer a step takes"),
                                     PB_OPTIONS_END };
static const pb_counter counters[] = {
    PB_COUNTER(stats, waited_ns, PB_C_ENGAGED, "ns", "time that was wasted"), PB_COUNTERS_END
};
static const pb_output output = { .size = sizeof output, .accept = accept };
static const pb_iface ifaces[] = { { "output/1", &output }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .flags = PB_EXACT,
    .slot = "output",
    .name = "drag",
    .version = "0.1",
    .license = "MIT",
    .summary = "for tests: slower by a known share",
    .options = options,
    .counters = counters,
    .config_size = sizeof(config),
    .stats_size = sizeof(stats),
    .ifaces = ifaces,
    .create = create,
    .destroy = destroy,
};
