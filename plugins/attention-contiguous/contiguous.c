/* SPDX-License-Identifier: MIT
 *
 * plugins/attention-contiguous/contiguous.c - the classic baseline: each running sequence has
 * one page as long as the context, taken whole when it is admitted.
 *
 * It shares nothing, copies nothing and never runs full in mid-sequence; the price is memory
 * for tokens that most sequences never reach. Invariant: a page has one owner and one
 * reference. Class EXACT. Test: test_attention_model.
 */
#include "../attention-common/plan.h"
#include <patchbay/plugin.h>

#include <string.h>

typedef struct stats {
    int64_t pages_used, sequences;
} stats;

typedef struct contiguous {
    const pb_host *host;
    const pb_pages *pages;
    stats *st;
    int32_t max_seqs, n_groups, n_used;
    pb_page *page; /* [max_seqs][PBA_MAX_GROUPS], 0 = none */
} contiguous;

static pb_page *pages_of(const contiguous *c, const pb_seq *s)
{
    return &c->page[(size_t)s->slot * PBA_MAX_GROUPS];
}

static int plan(void *self, int32_t n_groups, const pb_kv_group *g, int64_t budget, int32_t max_ctx,
                pb_kv_plan *out, pb_err *err)
{
    contiguous *c = self;
    c->n_groups = n_groups;
    int64_t useful = c->max_seqs > 0 ? (int64_t)c->max_seqs + 1 : 0; /* a slot each, and the sink */
    return pba_plan("attention-contiguous", 0, useful, n_groups, g, budget, max_ctx, out, err);
}

static int64_t match(void *self, const pb_seq *s, int64_t *n_inflight)
{
    *n_inflight = 0;
    return 0;
}

static int64_t attach(void *self, const pb_seq *s)
{
    ((contiguous *)self)->st->sequences++;
    return 0;
}

static int reserve(void *self, const pb_seq *s, int64_t n_end)
{
    contiguous *c = self;
    pb_page *p = pages_of(c, s);
    if (p[0] || n_end <= 0)
        return 0;
    for (int32_t g = 0; g < c->n_groups; g++) {
        int rc = c->pages->take(c->pages->h, g, 1, &p[g]);
        if (rc) {
            p[g] = 0;
            while (g-- > 0) {
                c->pages->unref(c->pages->h, g, p[g]);
                p[g] = 0;
            }
            return rc;
        }
    }
    c->st->pages_used = ++c->n_used;
    return 0;
}

static int32_t table(void *self, const pb_seq *s, int32_t g, pb_page *out, int32_t cap)
{
    const pb_page *p = pages_of(self, s);
    if (cap < 1 || !p[g])
        return 0;
    out[0] = p[g];
    return 1;
}

static void commit(void *self, const pb_seq *s, int64_t n)
{
}

static void release(void *self, const pb_seq *s, int32_t why)
{
    contiguous *c = self;
    if (s->slot < 0 || s->slot >= c->max_seqs || !pages_of(c, s)[0])
        return;
    pb_page *p = pages_of(c, s);
    for (int32_t g = 0; g < c->n_groups; g++) {
        c->pages->unref(c->pages->h, g, p[g]);
        p[g] = 0;
    }
    c->st->pages_used = --c->n_used;
}

/* The page stays as long as the sequence runs: that is what contiguous means. */
static void truncate_to(void *self, const pb_seq *s, int64_t n)
{
}

static int check(void *self, pb_err *err)
{
    contiguous *c = self;
    for (int32_t i = 0; i < c->max_seqs; i++)
        for (int32_t g = 0; g < c->n_groups; g++) {
            pb_page p = c->page[(size_t)i * PBA_MAX_GROUPS + (size_t)g];
            if (p && c->pages->refs(c->pages->h, g, p) != 1)
                return pba_fail(
                    err, PB_E_INTERNAL,
                    "attention-contiguous: slot %d, group %d: page %d has %d references, not 1", i,
                    g, p, c->pages->refs(c->pages->h, g, p));
        }
    return 0;
}

static int32_t idle(void *self, int32_t g)
{
    return 0;
}

/* ---- lifecycle ---------------------------------------------------------- */

static int create(const pb_host *host, const void *config, void **self, pb_err *err)
{
    contiguous *c = host->alloc(host, sizeof *c, 0, "contiguous");
    if (!c)
        return pba_fail(err, PB_E_NOMEM, "attention-contiguous: no memory for %zu bytes",
                        sizeof *c);
    c->host = host;
    c->st = host->stats;
    c->pages = host->get(host, "pages/1");
    *self = c;
    return 0;
}

static int start(void *self, const pb_run *run, pb_err *err)
{
    contiguous *c = self;
    size_t bytes = (size_t)run->max_seqs * PBA_MAX_GROUPS * sizeof *c->page;
    c->max_seqs = run->max_seqs;
    c->page = c->host->alloc(c->host, bytes, 0, "tables");
    if (!c->page)
        return pba_fail(err, PB_E_NOMEM, "attention-contiguous: no memory for %zu bytes of tables",
                        bytes);
    return 0;
}

/* Nothing is kept between runs; what running sequences hold goes by release. */
static int reset(void *self)
{
    return 0;
}

static void destroy(void *self)
{
    contiguous *c = self;
    c->host->free(c->host, c->page);
    c->host->free(c->host, c);
}

static const pb_attention vtable = {
    .size = sizeof(pb_attention),
    .plan = plan,
    .match = match,
    .attach = attach,
    .reserve = reserve,
    .table = table,
    .commit = commit,
    .truncate = truncate_to,
    .release = release,
    .check = check,
    .idle = idle,
};

static const pb_counter counters[] = {
    PB_COUNTER(stats, pages_used, PB_C_GAUGE, "pages", "pages held by running sequences"),
    PB_COUNTER(stats, sequences, PB_C_ENGAGED, "sequences", "sequences admitted"),
    PB_COUNTERS_END,
};

static const pb_iface ifaces[] = { { "attention/1", &vtable }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .slot = "attention",
    .name = "contiguous",
    .version = "0.1.0",
    .license = "MIT",
    .summary = "one page as long as the context for each sequence: the classic baseline",
    .flags = PB_EXACT,
    .counters = counters,
    .stats_size = sizeof(stats),
    .ifaces = ifaces,
    .create = create,
    .start = start,
    .reset = reset,
    .destroy = destroy,
};
