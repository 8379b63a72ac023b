/* SPDX-License-Identifier: MIT
 *
 * tests/plugins/mask.c - constraint-mask: allows a range of ids, and at each position forbids
 * another part of it. Only built by `make check`, never installed.
 *
 * What is allowed depends on the options and the position alone, so that masks are equal in any
 * batch, under speculation and after a restart. A row that would be empty allows `first`.
 */
#include <patchbay/plugin.h>

#include <string.h>

typedef struct config {
    int64_t first, last, modulus;
    int32_t spoil;
} config;

typedef struct stats {
    int64_t rows;
} stats;

typedef struct masks {
    const pb_host *host;
    const config *cfg;
    stats *st;
} masks;

static int is_allowed(const config *c, int64_t id, int64_t pos)
{
    return id >= c->first && id <= c->last && !(c->modulus && (id + pos) % c->modulus == 0);
}

static int mask(void *self, int32_t n, const pb_pick *p, uint32_t *bits, int64_t words)
{
    masks *m = self;
    for (int32_t i = 0; i < n; i++) {
        int64_t pos = p[i].seq->n_tokens + p[i].n_tail, any = 0;
        for (int64_t w = 0; w < words; w++) {
            uint32_t keep = 0;
            for (int64_t k = 0; k < 32; k++)
                keep |= (uint32_t)is_allowed(m->cfg, w * 32 + k, pos) << k;
            any |= keep;
            if (w == words - 1 && !any)
                break;
            bits[i * words + w] &= keep;
        }
        if (!any)
            for (int64_t w = 0; w < words; w++)
                bits[i * words + w] &= w == m->cfg->first / 32 ? 1u << m->cfg->first % 32 : 0;
    }
    m->st->rows += n;
#if defined(__x86_64__)
    if (m->cfg->spoil) /* as a library compiled with -ffast-math does: denormals to zero */
        __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040u);
#endif
    return 0;
}

static int check(const void *cfg, pb_err *err)
{
    const config *c = cfg;
    if (c->first <= c->last)
        return 0;
    *err = (pb_err){ .code = PB_E_INVAL, .msg = "first is greater than last" };
    return PB_E_INVAL;
}

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    masks *m = host->alloc(host, sizeof *m, 0, "mask");
    if (!m) {
        *err = (pb_err){ .code = PB_E_NOMEM, .msg = "no memory for the mask" };
        return PB_E_NOMEM;
    }
    m->host = host;
    m->cfg = cfg;
    m->st = host->stats;
    *self = m;
    return 0;
}

static void destroy(void *self)
{
    masks *m = self;
    m->host->free(m->host, m);
}

static const pb_option options[] = {
    PB_INT(config, first, "0", "0", "1000000", PB_O_OUTPUT, "id", "lowest id that is allowed"),
    PB_INT(config, last, "1000000", "0", "1000000", PB_O_OUTPUT, "id",
           "highest id that is allowed"),
    PB_INT(config, modulus, "3", "0", "1000000", PB_O_OUTPUT, "ids",
           "forbids ids with (id + position) a multiple of it; 0 forbids none of the range"),
    PB_BOOL(config, spoil, "no", 0, "test: leaves the floating-point mode changed"), PB_OPTIONS_END
};

static const pb_counter counters[] = { PB_COUNTER(stats, rows, PB_C_ENGAGED, "rows", "rows masked"),
                                       PB_COUNTERS_END };

static const pb_constraint constraint = { .size = sizeof constraint, .mask = mask };
static const pb_iface ifaces[] = { { "constraint/1", &constraint }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .flags = PB_LOSSY,
    .slot = "constraint",
    .name = "mask",
    .version = "0.1",
    .license = "MIT",
    .summary = "test: a range of ids, less a part that moves with the position",
    .options = options,
    .counters = counters,
    .config_size = sizeof(config),
    .stats_size = sizeof(stats),
    .ifaces = ifaces,
    .check = check,
    .create = create,
    .destroy = destroy,
};
