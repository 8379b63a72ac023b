/* SPDX-License-Identifier: MIT
 *
 * tests/plugins/nocopy.c - attention-nocopy: a joining sequence takes over the pages of a
 * running one as far as their tokens agree, in mid-page as well, and - the planted fault - is
 * not given a copy before it writes. For the step validator and for lint, which must name it.
 * With `copy = yes` it is correct, which shows that nothing but the copy is missing.
 * Only built by `make check`.
 */
#include "../../plugins/attention-common/blocks.h"
#include <patchbay/plugin.h>

typedef struct config {
    int64_t page_size;
    int32_t copy;
} config;

typedef struct stats {
    pba_stats b;
    int64_t cached_tokens;
} stats;

typedef struct runner { /* what a slot holds */
    const pb_seq *seq;
    int64_t n_good;
} runner;

typedef struct nocopy {
    pba_blocks b;
    const config *cfg;
    stats *st;
    runner *run; /* [max_seqs] */
} nocopy;

/* Tokens that s could take from slot i. */
static int64_t common(const nocopy *c, const pb_seq *s, int32_t i)
{
    const pb_seq *r = c->run[i].seq;
    int64_t n = 0, most = s->n_tokens - 1;
    if (!r || r == s || r->cache_key != s->cache_key || s->flags & PB_SEQ_ALL_LOGITS)
        return 0;
    most = c->run[i].n_good < most ? c->run[i].n_good : most;
    while (n < most && r->tokens[n] == s->tokens[n])
        n++;
    return n;
}

static int64_t best(const nocopy *c, const pb_seq *s, int32_t *donor)
{
    int64_t n = 0;
    for (int32_t i = 0; i < c->b.max_seqs; i++) {
        int64_t k = common(c, s, i);
        if (k > n) {
            n = k;
            *donor = i;
        }
    }
    return n;
}

static int64_t match(void *self, const pb_seq *s, int64_t *n_inflight)
{
    int32_t donor = 0;
    *n_inflight = 0;
    return best(self, s, &donor);
}

static int64_t attach(void *self, const pb_seq *s)
{
    nocopy *c = self;
    int32_t donor = 0;
    int64_t n = best(c, s, &donor);
    pba_blocks_join(&c->b, s);
    for (int64_t i = 0; i * c->b.page_tokens < n; i++) {
        pb_page p[PBA_MAX_GROUPS];
        for (int32_t g = 0; g < c->b.n_groups; g++)
            p[g] = pba_block(&c->b, donor, g)[i];
        pba_blocks_share(&c->b, s, p);
    }
    c->run[s->slot] = (runner){ .seq = s, .n_good = n };
    c->st->cached_tokens += n;
    return n;
}

static int32_t only_one(void *h, int32_t g, pb_page p)
{
    (void)h, (void)g, (void)p;
    return 1;
}

static int reserve(void *self, const pb_seq *s, int64_t n_end)
{
    nocopy *c = self;
    const pb_pages *pages = c->b.pages;
    pb_pages lie = *pages;
    lie.refs = only_one; /* so no page seems shared */
    if (!c->cfg->copy)
        c->b.pages = &lie;
    int rc = pba_blocks_reserve(&c->b, s, n_end);
    c->b.pages = pages;
    return rc;
}

static int32_t table(void *self, const pb_seq *s, int32_t g, pb_page *out, int32_t cap)
{
    return pba_blocks_table(&((nocopy *)self)->b, s, g, out, cap);
}

static void commit(void *self, const pb_seq *s, int64_t n)
{
    ((nocopy *)self)->run[s->slot].n_good = n;
}

static void cut(void *self, const pb_seq *s, int64_t n)
{
    nocopy *c = self;
    if (c->run[s->slot].n_good > n)
        c->run[s->slot].n_good = n;
    pba_blocks_truncate(&c->b, s, n);
}

static void release(void *self, const pb_seq *s, int32_t why)
{
    nocopy *c = self;
    (void)why;
    if (c->run && s->slot >= 0 && s->slot < c->b.max_seqs)
        c->run[s->slot] = (runner){ 0 };
    pba_blocks_release(&c->b, s);
}

static int check(void *self, pb_err *err)
{
    return pba_blocks_check(&((nocopy *)self)->b, NULL, NULL, err);
}

static int plan(void *self, int32_t n_groups, const pb_kv_group *g, int64_t budget, int32_t max_ctx,
                pb_kv_plan *out, pb_err *err)
{
    nocopy *c = self;
    return pba_blocks_plan(&c->b, c->cfg->page_size, n_groups, g, budget, max_ctx, out, err);
}

/* ---- lifecycle --------------------------------------------------------- */

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    nocopy *c = host->alloc(host, sizeof *c, 0, "nocopy");
    if (!c)
        return pba_fail(err, PB_E_NOMEM, "attention-nocopy: no memory");
    c->cfg = cfg;
    c->st = host->stats;
    c->b = (pba_blocks){ .who = "attention-nocopy",
                         .host = host,
                         .pages = host->get(host, "pages/1"),
                         .st = &c->st->b };
    *self = c;
    return 0;
}

static int start(void *self, const pb_run *run, pb_err *err)
{
    nocopy *c = self;
    c->b.max_seqs = run->max_seqs;
    c->run = c->b.host->alloc(c->b.host, (size_t)run->max_seqs * sizeof *c->run, 0, "slots");
    return c->run ? 0 : pba_fail(err, PB_E_NOMEM, "attention-nocopy: no memory for slots");
}

static void destroy(void *self)
{
    nocopy *c = self;
    const pb_host *host = c->b.host;
    pba_blocks_free(&c->b);
    host->free(host, c->run);
    host->free(host, c);
}

static const pb_option options[] = {
    PB_INT(config, page_size, "16", "1", "65536", 0, "tokens", "of a page"),
    PB_BOOL(config, copy, "no", 0, "yes: copies before it writes, as it should"), PB_OPTIONS_END
};

static const pb_counter counters[] = { PB_COUNTER(stats, cached_tokens, PB_C_ENGAGED, "tokens",
                                                  "taken over from running sequences"),
                                       PB_COUNTERS_END };

static const pb_attention attention = { .size = sizeof attention,
                                        .plan = plan,
                                        .match = match,
                                        .attach = attach,
                                        .reserve = reserve,
                                        .table = table,
                                        .commit = commit,
                                        .truncate = cut,
                                        .release = release,
                                        .check = check };
static const pb_iface ifaces[] = { { "attention/1", &attention }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .flags = PB_EXACT,
    .slot = "attention",
    .name = "nocopy",
    .version = "0.1",
    .license = "MIT",
    .summary = "test: shares pages in mid-page and forgets the copy on write",
    .options = options,
    .counters = counters,
    .config_size = sizeof(config),
    .stats_size = sizeof(stats),
    .ifaces = ifaces,
    .create = create,
    .start = start,
    .destroy = destroy,
};
