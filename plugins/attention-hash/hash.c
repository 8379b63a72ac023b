/* SPDX-License-Identifier: MIT
 *
 * plugins/attention-hash/hash.c - reuse of prefixes by block hashes: a full block is known by a
 * hash of its tokens chained to the hash of the block before it; a new sequence starts with the
 * blocks that are already there.
 *
 * Reuse stops at full blocks and never includes the prompt's last token, whose logits are
 * wanted. Blocks that nobody uses stay until pages are needed, then the least recently used
 * goes. The price is one hash of each token and pages kept busy. After vLLM's automatic prefix
 * caching. Class EXACT: equal tokens at equal positions give equal KV bits.
 *
 * Invariants: an indexed block is full and never written again; a hash only proposes - tokens
 * and the block before are compared; a block's entry is the index of its page in group 0.
 * Test: test_attention_model.
 */
#include "../attention-common/blocks.h"
#include <patchbay/plugin.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <string.h>

typedef struct config {
    int64_t page_size, hash_bits;
    double watermark;
} config;

typedef struct stats {
    pba_stats b;
    int64_t cached_tokens, pages_shared, indexed, evicted, collisions;
} stats;

/* An indexed block. uid is never used twice, so that a block whose predecessor went away is not
 * mistaken for the successor of a later one. */
typedef struct entry {
    uint64_t hash, key;   /* key: cache_key */
    uint64_t uid, before; /* uid 0: not indexed; before: uid of the block before, 0 none */
    int32_t chain;        /* next entry of the bucket, 0 none */
    int32_t older, newer; /* idle list; 0 none */
    int32_t idle;
} entry;

/* How far a sequence's blocks are known to the index. Rebuilt from the tokens when lost. */
typedef struct chain {
    int32_t n; /* blocks */
    uint64_t hash, uid;
} chain;

typedef struct hashed {
    const pb_host *host;
    const config *cfg;
    stats *st;
    pba_blocks b;
    pba_cache cache;
    entry *e;        /* [n_pages] */
    pb_page *page;   /* [n_pages][n_groups] */
    int32_t *tokens; /* [n_pages][page_tokens] */
    int32_t *bucket; /* [mask + 1] */
    chain *chain;    /* [max_seqs] */
    uint64_t mask, next_uid;
    int32_t oldest, newest, n_idle, n_indexed;
} hashed;

/* ---- the index ------------------------------------------------------------ */

static pb_page *pages_of(const hashed *h, int32_t i)
{
    return h->page + (size_t)i * (size_t)h->b.n_groups;
}

static int32_t *tokens_of(const hashed *h, int32_t i)
{
    return h->tokens + (size_t)i * (size_t)h->b.page_tokens;
}

/* Where every sequence of this cache_key begins. */
static chain root_of(const pb_seq *s)
{
    return (chain){ .hash = XXH3_64bits(&s->cache_key, sizeof s->cache_key) };
}

static uint64_t hash_block(const hashed *h, const int32_t *tokens, uint64_t before)
{
    uint64_t x = XXH3_64bits_withSeed(tokens, (size_t)h->b.page_tokens * sizeof *tokens, before);
    return h->cfg->hash_bits < 64 ? x & ((1ull << h->cfg->hash_bits) - 1) : x;
}

/* The entry of block c->n of s, which follows c, or 0; *hash is the block's. */
static int32_t find(const hashed *h, const pb_seq *s, const chain *c, uint64_t *hash)
{
    const int32_t *tokens = s->tokens + (size_t)c->n * (size_t)h->b.page_tokens;
    size_t bytes = (size_t)h->b.page_tokens * sizeof *tokens;
    *hash = hash_block(h, tokens, c->hash);
    for (int32_t i = h->bucket[*hash & h->mask]; i; i = h->e[i].chain) {
        const entry *e = &h->e[i];
        if (e->hash != *hash)
            continue;
        if (e->before == c->uid && e->key == s->cache_key &&
            memcmp(tokens_of(h, i), tokens, bytes) == 0)
            return i;
        h->st->collisions++;
    }
    return 0;
}

static void extend(const hashed *h, chain *c, int32_t i, uint64_t hash)
{
    *c = (chain){ .n = c->n + 1, .hash = hash, .uid = h->e[i].uid };
}

static void idle_remove(hashed *h, int32_t i)
{
    entry *e = &h->e[i];
    if (!e->idle)
        return;
    *(e->older ? &h->e[e->older].newer : &h->oldest) = e->newer;
    *(e->newer ? &h->e[e->newer].older : &h->newest) = e->older;
    e->idle = e->older = e->newer = 0;
    h->n_idle--;
}

static void idle_add(hashed *h, int32_t i)
{
    entry *e = &h->e[i];
    e->idle = 1;
    e->older = h->newest;
    e->newer = 0;
    *(h->newest ? &h->e[h->newest].newer : &h->oldest) = i;
    h->newest = i;
    h->n_idle++;
}

/* Takes entry i out of the index and gives up its references. */
static void forget_entry(hashed *h, int32_t i)
{
    int32_t *at = &h->bucket[h->e[i].hash & h->mask];
    while (*at && *at != i)
        at = &h->e[*at].chain;
    if (*at)
        *at = h->e[i].chain;
    idle_remove(h, i);
    h->e[i] = (entry){ .uid = 0 };
    h->n_indexed--;
    for (int32_t g = 0; g < h->b.n_groups; g++)
        h->b.pages->unref(h->b.pages->h, g, pages_of(h, i)[g]);
}

/* Block i of s becomes known; the index holds a reference of its own. */
static int32_t publish(hashed *h, const pb_seq *s, int32_t i, const chain *c, uint64_t hash)
{
    pb_page first = pba_block(&h->b, s->slot, 0)[i];
    entry *e = &h->e[first];
    if (e->uid) /* known under older tokens: cannot be, for it was replaced before it was written */
        return 0;
    *e = (entry){ .hash = hash,
                  .key = s->cache_key,
                  .uid = h->next_uid++,
                  .before = c->uid,
                  .chain = h->bucket[hash & h->mask] };
    h->bucket[hash & h->mask] = first;
    memcpy(tokens_of(h, first), s->tokens + (size_t)i * (size_t)h->b.page_tokens,
           (size_t)h->b.page_tokens * sizeof(int32_t));
    for (int32_t g = 0; g < h->b.n_groups; g++) {
        pb_page p = pba_block(&h->b, s->slot, g)[i];
        pages_of(h, first)[g] = p;
        h->b.pages->ref(h->b.pages->h, g, p);
    }
    h->n_indexed++;
    return first;
}

/* ---- the cache under the block tables (pba_cache) --------------------------- */

static int32_t cache_idle(void *arg)
{
    return ((hashed *)arg)->n_idle;
}

static void cache_evict(void *arg, int32_t n)
{
    hashed *h = arg;
    for (; n > 0 && h->oldest; n--) {
        forget_entry(h, h->oldest);
        h->st->evicted++;
    }
    h->st->indexed = h->n_indexed;
}

static void cache_dropped(void *arg, pb_page p)
{
    hashed *h = arg;
    if (h->e[p].uid && !h->e[p].idle && h->b.pages->refs(h->b.pages->h, 0, p) == 1)
        idle_add(h, p);
}

static int cache_forget(void *arg, pb_page p)
{
    hashed *h = arg;
    if (!h->e[p].uid)
        return 0;
    forget_entry(h, p);
    h->st->evicted++;
    h->st->indexed = h->n_indexed;
    return 1;
}

static int32_t cache_owns(void *arg, pb_page p)
{
    return ((hashed *)arg)->e[p].uid != 0;
}

/* ---- attention/1 ------------------------------------------------------------- */

/* Blocks that s may take from others: full ones before its last token. */
static int32_t reusable(const hashed *h, const pb_seq *s)
{
    if (s->flags & PB_SEQ_ALL_LOGITS || s->n_tokens < 1)
        return 0;
    return (int32_t)((s->n_tokens - 1) / h->b.page_tokens);
}

static int64_t match(void *self, const pb_seq *s, int64_t *n_inflight)
{
    const hashed *h = self;
    chain c = root_of(s);
    uint64_t hash;
    int32_t limit = reusable(h, s), i;
    *n_inflight = 0;
    while (c.n < limit && (i = find(h, s, &c, &hash)) != 0)
        extend(h, &c, i, hash);
    return (int64_t)c.n * h->b.page_tokens;
}

static int64_t attach(void *self, const pb_seq *s)
{
    hashed *h = self;
    chain c = root_of(s);
    uint64_t hash;
    int32_t limit = reusable(h, s), i;
    pba_blocks_join(&h->b, s);
    while (c.n < limit && (i = find(h, s, &c, &hash)) != 0) {
        idle_remove(h, i);
        pba_blocks_share(&h->b, s, pages_of(h, i));
        extend(h, &c, i, hash);
    }
    h->chain[s->slot] = c;
    h->st->pages_shared += c.n;
    h->st->cached_tokens += (int64_t)c.n * h->b.page_tokens;
    return (int64_t)c.n * h->b.page_tokens;
}

static int reserve(void *self, const pb_seq *s, int64_t n_end)
{
    return pba_blocks_reserve(&((hashed *)self)->b, s, n_end);
}

static int32_t table(void *self, const pb_seq *s, int32_t g, pb_page *out, int32_t cap)
{
    return pba_blocks_table(&((hashed *)self)->b, s, g, out, cap);
}

/* Publishes the blocks that became full. One that others published already stays this
 * sequence's own; the chain goes on from theirs, which holds the same tokens. */
static void commit(void *self, const pb_seq *s, int64_t n)
{
    hashed *h = self;
    chain *c = &h->chain[s->slot];
    int32_t full = (int32_t)(n / h->b.page_tokens);
    if (c->n == 0)
        *c = root_of(s);
    while (c->n < full) {
        uint64_t hash;
        int32_t i = find(h, s, c, &hash);
        if (!i)
            i = publish(h, s, c->n, c, hash);
        if (!i)
            break;
        extend(h, c, i, hash);
    }
    h->st->indexed = h->n_indexed;
}

static void truncate_to(void *self, const pb_seq *s, int64_t n)
{
    hashed *h = self;
    chain *c = &h->chain[s->slot];
    pba_blocks_truncate(&h->b, s, n);
    if ((int64_t)c->n * h->b.page_tokens > n)
        c->n = 0; /* known again at the next commit, from the tokens */
}

static void release(void *self, const pb_seq *s, int32_t why)
{
    hashed *h = self;
    pba_blocks_release(&h->b, s);
    if (h->chain && s->slot >= 0 && s->slot < h->b.max_seqs)
        h->chain[s->slot] = (chain){ .n = 0 };
}

static int check(void *self, pb_err *err)
{
    hashed *h = self;
    int32_t n_idle = 0, n_indexed = 0;
    for (int32_t i = 1; i < h->b.n_pages; i++) {
        int32_t is_idle = h->e[i].uid && h->b.pages->refs(h->b.pages->h, 0, i) == 1;
        if (is_idle != h->e[i].idle)
            return pba_fail(err, PB_E_INTERNAL,
                            "attention-hash: page %d: %d references, yet idle is %d", i,
                            h->b.pages->refs(h->b.pages->h, 0, i), h->e[i].idle);
        n_idle += is_idle;
        n_indexed += h->e[i].uid != 0;
    }
    if (n_idle != h->n_idle || n_indexed != h->n_indexed)
        return pba_fail(err, PB_E_INTERNAL,
                        "attention-hash: %d idle and %d indexed blocks, counted as %d and %d",
                        n_idle, n_indexed, h->n_idle, h->n_indexed);
    return pba_blocks_check(&h->b, cache_owns, h, err);
}

static int32_t idle(void *self, int32_t g)
{
    return ((hashed *)self)->n_idle;
}

/* ---- lifecycle ---------------------------------------------------------- */

static void free_index(hashed *h)
{
    h->host->free(h->host, h->e);
    h->host->free(h->host, h->page);
    h->host->free(h->host, h->tokens);
    h->host->free(h->host, h->bucket);
    h->host->free(h->host, h->chain);
    h->e = NULL;
    h->page = h->tokens = h->bucket = NULL;
    h->chain = NULL;
}

static int plan(void *self, int32_t n_groups, const pb_kv_group *g, int64_t budget, int32_t max_ctx,
                pb_kv_plan *out, pb_err *err)
{
    hashed *h = self;
    int rc = pba_blocks_plan(&h->b, h->cfg->page_size, n_groups, g, budget, max_ctx, out, err);
    if (rc || h->b.max_seqs < 1)
        return rc;
    size_t n = (size_t)h->b.n_pages, buckets = 1;
    while (buckets < n)
        buckets *= 2;
    free_index(h);
    h->mask = buckets - 1;
    h->oldest = h->newest = h->n_idle = h->n_indexed = 0;
    h->next_uid = 1;
    h->e = h->host->alloc(h->host, n * sizeof *h->e, 0, "index");
    h->page = h->host->alloc(h->host, n * (size_t)n_groups * sizeof *h->page, 0, "index pages");
    h->tokens = h->host->alloc(h->host, n * (size_t)h->b.page_tokens * sizeof *h->tokens, 0,
                               "index tokens");
    h->bucket = h->host->alloc(h->host, buckets * sizeof *h->bucket, 0, "index buckets");
    h->chain = h->host->alloc(h->host, (size_t)h->b.max_seqs * sizeof *h->chain, 0, "chains");
    if (!h->e || !h->page || !h->tokens || !h->bucket || !h->chain)
        return pba_fail(err, PB_E_NOMEM, "attention-hash: no memory for an index of %zu pages", n);
    return 0;
}

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    hashed *h = host->alloc(host, sizeof *h, 0, "hash");
    if (!h)
        return pba_fail(err, PB_E_NOMEM, "attention-hash: no memory for %zu bytes", sizeof *h);
    h->host = host;
    h->cfg = cfg;
    h->st = host->stats;
    h->cache = (pba_cache){ .arg = h,
                            .idle = cache_idle,
                            .evict = cache_evict,
                            .dropped = cache_dropped,
                            .forget = cache_forget };
    h->b = (pba_blocks){
        .who = "attention-hash",
        .host = host,
        .pages = host->get(host, "pages/1"),
        .st = host->stats,
        .cache = &h->cache,
        .watermark = h->cfg->watermark,
    };
    *self = h;
    return 0;
}

static int start(void *self, const pb_run *run, pb_err *err)
{
    ((hashed *)self)->b.max_seqs = run->max_seqs; /* tables come with plan() */
    return 0;
}

/* Forgets what is idle; what running sequences share goes when they are released. */
static int reset(void *self)
{
    hashed *h = self;
    while (h->oldest)
        forget_entry(h, h->oldest);
    return 0;
}

static void destroy(void *self)
{
    hashed *h = self;
    free_index(h);
    pba_blocks_free(&h->b);
    h->host->free(h->host, h);
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
           "a page holds so many; a multiple of the granule of the backend's KV format; reuse "
           "goes by whole pages"),
    PB_FLOAT(config, watermark, "0.01", "0", "0.5", 0, NULL,
             "part of the pool that a joining sequence leaves free for those that run"),
    PB_INT(config, hash_bits, "64", "1", "64", 0, "bits",
           "of the block hash in use; fewer show that collisions do no harm"),
    PB_OPTIONS_END,
};

static const pb_counter counters[] = {
    PB_COUNTER(stats, cached_tokens, PB_C_ENGAGED, "tokens",
               "of prompts whose KV was there already"),
    PB_COUNTER(stats, pages_shared, 0, "pages", "taken over from other sequences"),
    PB_COUNTER(stats, indexed, PB_C_GAUGE, "pages", "in the index now"),
    PB_COUNTER(stats, evicted, 0, "pages", "idle ones given up for new tokens"),
    PB_COUNTER(stats, collisions, 0, "times", "a hash agreed where tokens did not"),
    PBA_BLOCK_COUNTERS(0),
    PB_COUNTERS_END,
};

static const pb_iface ifaces[] = { { "attention/1", &vtable }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .slot = "attention",
    .name = "hash",
    .version = "0.1.0",
    .license = "MIT",
    .summary = "paged, with reuse of the full blocks that others computed (block hashes)",
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
