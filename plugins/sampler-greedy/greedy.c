/* SPDX-License-Identifier: MIT
 *
 * plugins/sampler-greedy/greedy.c - every row's token is the one with the highest logit, ties
 * to the lower id.
 *
 * The reference of its slot: the core prepares draws for greedy, so there is nothing to fill
 * in. It takes no sampling parameter of a request; a request that asks for a temperature is
 * counted and, once, warned about. Invariant: no state that changes a token.
 * Class: EXACT. Test: tests/unit/test_samplers.c
 */
#include <patchbay/plugin.h>

typedef struct stats {
    int64_t drawn, overridden;
} stats;

typedef struct greedy {
    const pb_host *host;
    stats *st;
    int warned;
} greedy;

/* A request that wants to sample gets the argmax: say so where a user sees it. */
static void warn_once(greedy *g)
{
    if (!g->warned)
        g->host->log(g->host, PB_LOG_WARN,
                     "a request sets temperature > 0, which this sampler does not use; "
                     "[sampler] plugin = chain does");
    g->warned = 1;
}

static int draw(void *self, int32_t n, const pb_pick *p, pb_draw *out)
{
    greedy *g = self;
    for (int32_t i = 0; i < n; i++) {
        const pb_params *q = p[i].seq->params;
        out[i].temperature = 0.0f;
        if (q && q->temperature > 0.0f) {
            g->st->overridden++;
            warn_once(g);
        }
    }
    g->st->drawn += n;
    return 0;
}

static int create(const pb_host *host, const void *config, void **self, pb_err *err)
{
    (void)config;
    greedy *g = host->alloc(host, sizeof *g, 0, "greedy");
    if (!g) {
        *err = (pb_err){ .code = PB_E_NOMEM, .msg = "no memory for the sampler" };
        return PB_E_NOMEM;
    }
    g->host = host;
    g->st = host->stats;
    *self = g;
    return 0;
}

static int reset(void *self)
{
    greedy *g = self;
    g->warned = 0;
    return 0;
}

static void destroy(void *self)
{
    greedy *g = self;
    g->host->free(g->host, g);
}

static const pb_counter counters[] = {
    PB_COUNTER(stats, drawn, PB_C_ENGAGED, "tokens", "rows whose token this sampler chose"),
    PB_COUNTER(stats, overridden, 0, "tokens", "of these: the request asked for a temperature > 0"),
    PB_COUNTERS_END
};

static const pb_sampler sampler = { .size = sizeof sampler, .draw = draw };
static const pb_iface ifaces[] = { { "sampler/1", &sampler }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .flags = PB_EXACT,
    .slot = "sampler",
    .name = "greedy",
    .version = "0.1",
    .license = "MIT",
    .summary = "the token with the highest logit",
    .counters = counters,
    .stats_size = sizeof(stats),
    .ifaces = ifaces,
    .create = create,
    .reset = reset,
    .destroy = destroy,
};
