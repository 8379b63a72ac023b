/* SPDX-License-Identifier: MIT
 *
 * plugins/attention-paged/paged.c - block tables: a sequence gets pages of page_size tokens as
 * it grows, from a pool that all sequences share.
 *
 * It changes where KV lies and nothing else: no reuse between sequences. The win is memory -
 * at most page_size - 1 tokens of a sequence are wasted, so several times as many sequences fit
 * as with `contiguous` when lengths are ragged; the price is a look-up for each page and a pool
 * that can run full, upon which the youngest sequence is preempted. After vLLM's PagedAttention
 * (Kwon et al., SOSP 2023). Class EXACT. Test: test_attention_model.
 */
#include "../attention-common/blocks.h"
#include <patchbay/plugin.h>

typedef struct config {
    int64_t page_size;
    double watermark;
} config;

typedef struct paged {
    const pb_host *host;
    const config *cfg;
    pba_blocks b;
} paged;

static int plan(void *self, int32_t n_groups, const pb_kv_group *g, int64_t budget, int32_t max_ctx,
                pb_kv_plan *out, pb_err *err)
{
    paged *p = self;
    return pba_blocks_plan(&p->b, p->cfg->page_size, n_groups, g, budget, max_ctx, out, err);
}

static int64_t match(void *self, const pb_seq *s, int64_t *n_inflight)
{
    *n_inflight = 0;
    return 0;
}

static int64_t attach(void *self, const pb_seq *s)
{
    pba_blocks_join(&((paged *)self)->b, s);
    return 0;
}

static int reserve(void *self, const pb_seq *s, int64_t n_end)
{
    return pba_blocks_reserve(&((paged *)self)->b, s, n_end);
}

static int32_t table(void *self, const pb_seq *s, int32_t g, pb_page *out, int32_t cap)
{
    return pba_blocks_table(&((paged *)self)->b, s, g, out, cap);
}

static void commit(void *self, const pb_seq *s, int64_t n)
{
}

static void truncate_to(void *self, const pb_seq *s, int64_t n)
{
    pba_blocks_truncate(&((paged *)self)->b, s, n);
}

static void release(void *self, const pb_seq *s, int32_t why)
{
    pba_blocks_release(&((paged *)self)->b, s);
}

static int check(void *self, pb_err *err)
{
    return pba_blocks_check(&((paged *)self)->b, NULL, NULL, err);
}

static int32_t idle(void *self, int32_t g)
{
    return 0;
}

/* ---- lifecycle ---------------------------------------------------------- */

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    paged *p = host->alloc(host, sizeof *p, 0, "paged");
    if (!p)
        return pba_fail(err, PB_E_NOMEM, "attention-paged: no memory for %zu bytes", sizeof *p);
    p->host = host;
    p->cfg = cfg;
    p->b = (pba_blocks){
        .who = "attention-paged",
        .host = host,
        .pages = host->get(host, "pages/1"),
        .st = host->stats,
        .watermark = p->cfg->watermark,
    };
    *self = p;
    return 0;
}

static int start(void *self, const pb_run *run, pb_err *err)
{
    ((paged *)self)->b.max_seqs = run->max_seqs; /* tables come with plan() */
    return 0;
}

/* Nothing is kept between runs; what running sequences hold goes by release. */
static int reset(void *self)
{
    return 0;
}

static void destroy(void *self)
{
    paged *p = self;
    pba_blocks_free(&p->b);
    p->host->free(p->host, p);
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

static const pb_option options[] = {
    PB_INT(config, page_size, "16", "1", "65536", 0, "tokens",
           "a page holds so many; a multiple of the granule of the backend's KV format"),
    PB_FLOAT(config, watermark, "0.01", "0", "0.5", 0, NULL,
             "part of the pool that a joining sequence leaves free for those that run"),
    PB_OPTIONS_END,
};

static const pb_counter counters[] = {
    PBA_BLOCK_COUNTERS(PB_C_ENGAGED),
    PB_COUNTERS_END,
};

static const pb_iface ifaces[] = { { "attention/1", &vtable }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .slot = "attention",
    .name = "paged",
    .version = "0.1.0",
    .license = "MIT",
    .summary = "pages from a common pool as a sequence grows: block tables",
    .flags = PB_EXACT,
    .options = options,
    .counters = counters,
    .config_size = sizeof(config),
    .stats_size = sizeof(pba_stats),
    .ifaces = ifaces,
    .create = create,
    .start = start,
    .reset = reset,
    .destroy = destroy,
};
