/* SPDX-License-Identifier: MIT
 *
 * plugins/attention-radix/radix.c - reuse of prefixes by a radix tree over token ids: a new
 * sequence starts with the longest beginning that is in the tree, to the token.
 *
 * Full pages are shared; the part of a page that is needed is copied through the pool when the
 * sequence first writes. Pages enter the tree when a step filled them, so that sequences in
 * flight share, and the unfinished last page when the sequence leaves. Leaves that no sequence
 * goes through are evicted when pages are needed. The price is the tree's walk and pages kept
 * busy. After SGLang's RadixAttention (Zheng et al., 2023). Class EXACT: equal tokens at equal
 * positions give equal KV bits.
 *
 * Invariant: a sequence locks its path in the tree, and holds the page of every node on it that
 * ends with its page; so whoever runs alone can have all other pages. Test:
 * test_attention_model.
 */
#include "../attention-common/blocks.h"
#include "tree.h"

#include <string.h>

typedef struct config {
    int64_t page_size;
    double watermark;
    int32_t evict;
} config;

typedef struct stats {
    pba_stats b;
    int64_t cached_tokens, pages_shared, partial, indexed, evicted;
} stats;

/* How far a sequence goes along the tree: whole pages, all nodes up to `node` locked. */
typedef struct path {
    int32_t node;
    int64_t n;
} path;

typedef struct radix {
    const pb_host *host;
    const config *cfg;
    stats *st;
    pba_blocks b;
    pba_cache cache;
    tree t;
    path *path; /* [max_seqs] */
} radix;

/* ---- the cache under the block tables (pba_cache) --------------------------- */

static void count(radix *r)
{
    r->st->evicted = r->t.evicted;
    r->st->indexed = r->t.n_used;
}

static int32_t cache_idle(void *arg)
{
    return ((radix *)arg)->t.n_idle;
}

static void cache_evict(void *arg, int32_t n)
{
    radix *r = arg;
    tree_evict(&r->t, n);
    count(r);
}

static void cache_dropped(void *arg, pb_page p)
{
    tree_dropped(&((radix *)arg)->t, p);
}

static int cache_forget(void *arg, pb_page p)
{
    radix *r = arg;
    int done = tree_forget(&r->t, p);
    count(r);
    return done;
}

static int32_t cache_owns(void *arg, pb_page p)
{
    return ((radix *)arg)->t.page[p].n > 0;
}

/* ---- walking ------------------------------------------------------------------ */

/* The next node along tokens[at..limit) below *node; *n: tokens of it that agree. 0: none. */
static int32_t next_node(const radix *r, const pb_seq *s, int32_t node, int64_t at, int64_t limit,
                         int32_t *n)
{
    int32_t i = at < limit ? tree_find(&r->t, node, s->cache_key, s->tokens[at]) : 0;
    *n = i ? tree_agree(&r->t, i, s->tokens + at, limit - at) : 0;
    return i;
}

static int ends_here(const radix *r, int32_t i, int32_t n)
{
    return n < r->t.node[i].to - r->t.node[i].from;
}

static const pb_page *own_page(const radix *r, const pb_seq *s, int64_t at, pb_page *p)
{
    for (int32_t g = 0; g < r->b.n_groups; g++)
        p[g] = pba_block(&r->b, s->slot, g)[at / r->b.page_tokens];
    return p;
}

/* Puts tokens [at, end) of s, all in one page, into the tree below `node`, on the page of s where
 * the tree has none. Returns the node that ends there, or 0: no node is left. */
static int32_t insert_page(radix *r, const pb_seq *s, int32_t node, int64_t at, int64_t end)
{
    int64_t begin = at / r->b.page_tokens * r->b.page_tokens;
    while (at < end) {
        int32_t n, i = next_node(r, s, node, at, end, &n);
        pb_page p[PBA_MAX_GROUPS];
        if (i && ends_here(r, i, n)) {
            if (at + n == end)
                return i; /* it goes on beyond what s has: nothing to add */
            i = tree_split(&r->t, i, r->t.node[i].from + n);
        } else if (!i) {
            n = (int32_t)(end - at);
            i = tree_leaf(&r->t, node, s->cache_key, own_page(r, s, at, p), (int32_t)(at - begin),
                          (int32_t)(end - begin), s->tokens + begin);
        }
        if (!i)
            return 0;
        tree_touch(&r->t, i);
        node = i;
        at += n;
    }
    return node;
}

/* Moves the path of s forward over full pages up to n. Where the tree has the page of another,
 * which nobody holds, it gets ours instead; if somebody does, the path waits: it may lead over
 * pages of ours only. insert: adds what the tree lacks. */
static void go_on(radix *r, const pb_seq *s, int64_t n, int insert)
{
    path *w = &r->path[s->slot];
    int32_t pt = r->b.page_tokens;
    while (w->n + pt <= n) {
        int32_t i = w->node, k = 0;
        int64_t at = w->n;
        pb_page p[PBA_MAX_GROUPS];
        if (insert) {
            i = insert_page(r, s, w->node, at, at + pt);
            if (!i)
                return;
        }
        for (; !insert && at < w->n + pt; at += k) {
            i = next_node(r, s, i, at, w->n + pt, &k);
            if (!i || ends_here(r, i, k))
                return;
        }
        own_page(r, s, w->n, p);
        if (r->t.node[i].page != p[0]) {
            if (r->b.pages->refs(r->b.pages->h, 0, r->t.node[i].page) > 1)
                return;
            tree_move(&r->t, i, p);
        }
        tree_lock(&r->t, i, w->node);
        tree_settle(&r->t, i);
        *w = (path){ .node = i, .n = w->n + pt };
    }
}

static void leave_path(radix *r, int32_t slot)
{
    tree_unlock(&r->t, r->path[slot].node);
    r->path[slot] = (path){ .node = 0 };
}

/* ---- attention/1 ---------------------------------------------------------------- */

static int64_t limit_of(const pb_seq *s)
{
    return s->flags & PB_SEQ_ALL_LOGITS || s->n_tokens < 1 ? 0 : s->n_tokens - 1;
}

static int64_t match(void *self, const pb_seq *s, int64_t *n_inflight)
{
    const radix *r = self;
    int64_t at = 0, limit = limit_of(s);
    int32_t node = 0, n = 0, i;
    *n_inflight = 0;
    while ((i = next_node(r, s, node, at, limit, &n)) != 0) {
        at += n;
        if (ends_here(r, i, n))
            break;
        node = i;
    }
    return at;
}

/* Shares the page of each step of the walk; of several nodes in one page index the last has all. */
static int64_t attach(void *self, const pb_seq *s)
{
    radix *r = self;
    int64_t at = 0, limit = limit_of(s);
    int32_t node = 0, n = 0, i, last = 0, pt = r->b.page_tokens;
    path *w = &r->path[s->slot];
    pba_blocks_join(&r->b, s);
    *w = (path){ .node = 0 };
    while ((i = next_node(r, s, node, at, limit, &n)) != 0) {
        tree_touch(&r->t, i);
        if (last && r->t.node[i].from == 0) {
            pba_blocks_share(&r->b, s, tree_pages(&r->t, last));
            tree_page_changed(&r->t, last);
        }
        last = r->t.node[i].page;
        at += n;
        if (ends_here(r, i, n))
            break;
        node = i;
        if (r->t.node[i].to == pt)
            *w = (path){ .node = i, .n = at };
    }
    if (last) {
        pba_blocks_share(&r->b, s, tree_pages(&r->t, last));
        tree_page_changed(&r->t, last);
    }
    tree_lock(&r->t, w->node, 0);
    for (i = w->node; i; i = r->t.node[i].parent)
        if (r->t.node[i].to == pt)
            tree_settle(&r->t, i);
    r->st->cached_tokens += at;
    r->st->pages_shared += at / pt;
    r->st->partial += at % pt > 0;
    return at;
}

static int reserve(void *self, const pb_seq *s, int64_t n_end)
{
    return pba_blocks_reserve(&((radix *)self)->b, s, n_end);
}

static int32_t table(void *self, const pb_seq *s, int32_t g, pb_page *out, int32_t cap)
{
    return pba_blocks_table(&((radix *)self)->b, s, g, out, cap);
}

static void commit(void *self, const pb_seq *s, int64_t n)
{
    radix *r = self;
    go_on(r, s, n, 1);
    count(r);
}

static void truncate_to(void *self, const pb_seq *s, int64_t n)
{
    radix *r = self;
    if (r->path[s->slot].n > n) {
        leave_path(r, s->slot);
        go_on(r, s, n, 0);
    }
    pba_blocks_truncate(&r->b, s, n);
}

/* What s has computed stays for others, its unfinished last page too. */
static void release(void *self, const pb_seq *s, int32_t why)
{
    radix *r = self;
    if (!r->path || s->slot < 0 || s->slot >= r->b.max_seqs)
        return;
    path w = r->path[s->slot];
    int64_t held = (int64_t)r->b.row[s->slot].n * r->b.page_tokens, pt = r->b.page_tokens;
    int64_t n = s->n_valid < held ? s->n_valid : held;
    /* a victim's last page may wait for a copy that has not run yet */
    if ((why == PB_REL_FINISHED || why == PB_REL_ABORTED) && n > w.n) {
        int32_t node = w.node;
        for (int64_t at = w.n; at < n && (node || at == 0); at += pt)
            node = insert_page(r, s, node, at, at + pt < n ? at + pt : n);
    }
    leave_path(r, s->slot);
    pba_blocks_release(&r->b, s);
    count(r);
}

static int check(void *self, pb_err *err)
{
    radix *r = self;
    const char *why = tree_check(&r->t);
    if (why)
        return pba_fail(err, PB_E_INTERNAL, "attention-radix: %s", why);
    return pba_blocks_check(&r->b, cache_owns, r, err);
}

static int32_t idle(void *self, int32_t g)
{
    return ((radix *)self)->t.n_idle;
}

/* ---- lifecycle ---------------------------------------------------------- */

static int plan(void *self, int32_t n_groups, const pb_kv_group *g, int64_t budget, int32_t max_ctx,
                pb_kv_plan *out, pb_err *err)
{
    radix *r = self;
    int rc = pba_blocks_plan(&r->b, r->cfg->page_size, n_groups, g, budget, max_ctx, out, err);
    if (rc || r->b.max_seqs < 1)
        return rc;
    r->host->free(r->host, r->path);
    r->path = r->host->alloc(r->host, (size_t)r->b.max_seqs * sizeof *r->path, 0, "paths");
    rc = r->path ? tree_init(&r->t, n_groups, r->b.page_tokens, r->b.n_pages) : PB_E_NOMEM;
    if (rc)
        return pba_fail(err, rc, "attention-radix: no memory for a tree over %d pages",
                        r->b.n_pages);
    return 0;
}

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    radix *r = host->alloc(host, sizeof *r, 0, "radix");
    if (!r)
        return pba_fail(err, PB_E_NOMEM, "attention-radix: no memory for %zu bytes", sizeof *r);
    r->host = host;
    r->cfg = cfg;
    r->st = host->stats;
    r->cache = (pba_cache){ .arg = r,
                            .idle = cache_idle,
                            .evict = cache_evict,
                            .dropped = cache_dropped,
                            .forget = cache_forget };
    r->t.host = host;
    r->t.pages = host->get(host, "pages/1");
    r->t.policy = r->cfg->evict;
    r->b = (pba_blocks){
        .who = "attention-radix",
        .host = host,
        .pages = r->t.pages,
        .st = host->stats,
        .cache = &r->cache,
        .watermark = r->cfg->watermark,
    };
    *self = r;
    return 0;
}

static int start(void *self, const pb_run *run, pb_err *err)
{
    ((radix *)self)->b.max_seqs = run->max_seqs; /* tables come with plan() */
    return 0;
}

/* Forgets what no running sequence goes through. */
static int reset(void *self)
{
    radix *r = self;
    tree_evict(&r->t, r->t.n_pages);
    r->t.evicted = 0;
    count(r);
    return 0;
}

static void destroy(void *self)
{
    radix *r = self;
    tree_free(&r->t);
    pba_blocks_free(&r->b);
    r->host->free(r->host, r->path);
    r->host->free(r->host, r);
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
           "a page holds so many; a multiple of the granule of the backend's KV format; reuse goes "
           "to the token whatever it is"),
    PB_FLOAT(config, watermark, "0.01", "0", "0.5", 0, NULL,
             "part of the pool that a joining sequence leaves free for those that run"),
    PB_ENUM(config, evict, "lru", "lru|lfu|fifo", 0,
            "which unused leaf goes first: least recently used, least often used, oldest"),
    PB_OPTIONS_END,
};

static const pb_counter counters[] = {
    PB_COUNTER(stats, cached_tokens, PB_C_ENGAGED, "tokens",
               "of prompts whose KV was there already"),
    PB_COUNTER(stats, pages_shared, 0, "pages", "taken over whole"),
    PB_COUNTER(stats, partial, 0, "pages", "taken over in part"),
    PB_COUNTER(stats, indexed, PB_C_GAUGE, "pages", "in the tree now"),
    PB_COUNTER(stats, evicted, 0, "leaves", "given up for new tokens"),
    PBA_BLOCK_COUNTERS(0),
    PB_COUNTERS_END,
};

static const pb_iface ifaces[] = { { "attention/1", &vtable }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .slot = "attention",
    .name = "radix",
    .version = "0.1.0",
    .license = "MIT",
    .summary = "paged, with reuse of the longest beginning that others computed (radix tree)",
    .flags = PB_EXACT,
    .options = options,
    .counters = counters,
    .config_size = sizeof(config),
    .stats_size = sizeof(stats),
    .ifaces = ifaces,
    .create = create,
    .start = start,
    .reset = reset,
    .destroy = destroy,
};
