/* SPDX-License-Identifier: MIT
 *
 * plugins/attention-common/blocks.c - see blocks.h.
 */
#include "blocks.h"

#include <string.h>

void pba_blocks_free(pba_blocks *b)
{
    b->host->free(b->host, b->row);
    b->host->free(b->host, b->page);
    b->host->free(b->host, b->fresh);
    b->host->free(b->host, b->count);
    b->row = NULL;
    b->page = b->fresh = NULL;
    b->count = NULL;
}

static int allocate(pba_blocks *b, pb_err *err)
{
    size_t seqs = (size_t)b->max_seqs, blocks = (size_t)b->max_blocks, groups = (size_t)b->n_groups;
    pba_blocks_free(b);
    b->st->blocks_held = b->n_held = 0;
    if (blocks > SIZE_MAX / sizeof(pb_page) / PBA_MAX_GROUPS / (seqs + 1))
        return pba_fail(err, PB_E_INVAL, "%s: tables of %d blocks for %d sequences: too large",
                        b->who, b->max_blocks, b->max_seqs);
    b->row = b->host->alloc(b->host, seqs * sizeof *b->row, 0, "rows");
    b->page = b->host->alloc(b->host, seqs * groups * blocks * sizeof *b->page, 0, "block tables");
    b->fresh = b->host->alloc(b->host, groups * blocks * sizeof *b->fresh, 0, "fresh pages");
    b->count = b->host->alloc(b->host, (size_t)b->n_pages * sizeof *b->count, 0, "check");
    if (!b->row || !b->page || !b->fresh || !b->count)
        return pba_fail(err, PB_E_NOMEM, "%s: no memory for tables of %d blocks for %d sequences",
                        b->who, b->max_blocks, b->max_seqs);
    return 0;
}

int pba_blocks_plan(pba_blocks *b, int64_t page_tokens, int32_t n_groups, const pb_kv_group *g,
                    int64_t budget, int32_t max_ctx, pb_kv_plan *out, pb_err *err)
{
    int rc = pba_plan(b->who, page_tokens, 0, n_groups, g, budget, max_ctx, out, err);
    if (rc)
        return rc;
    if (b->max_seqs < 1)
        return 0;
    b->n_groups = n_groups;
    b->page_tokens = (int32_t)page_tokens;
    b->max_blocks = (int32_t)(((int64_t)max_ctx + page_tokens - 1) / page_tokens);
    b->n_pages = out[0].n_pages;
    return allocate(b, err);
}

static void drop(pba_blocks *b, const pb_seq *s, int32_t i)
{
    pb_page first = pba_block(b, s->slot, 0)[i];
    for (int32_t g = 0; g < b->n_groups; g++)
        b->pages->unref(b->pages->h, g, pba_block(b, s->slot, g)[i]);
    if (b->cache)
        b->cache->dropped(b->cache->arg, first);
}

/* Last block first: a cache that evicts what was dropped earliest then ends with the leaves. */
static void shrink(pba_blocks *b, const pb_seq *s, int32_t keep)
{
    pba_row *r = &b->row[s->slot];
    while (r->n > keep) {
        drop(b, s, --r->n);
        b->st->blocks_held = --b->n_held;
    }
}

void pba_blocks_join(pba_blocks *b, const pb_seq *s)
{
    shrink(b, s, 0);
    b->row[s->slot] = (pba_row){ .id = s->id, .joined = 1 };
}

void pba_blocks_share(pba_blocks *b, const pb_seq *s, const pb_page *p)
{
    pba_row *r = &b->row[s->slot];
    for (int32_t g = 0; g < b->n_groups; g++) {
        pba_block(b, s->slot, g)[r->n] = p[g];
        b->pages->ref(b->pages->h, g, p[g]);
    }
    r->n++;
    b->st->blocks_held = ++b->n_held;
}

static int shared(const pba_blocks *b, const pb_seq *s, int32_t i)
{
    for (int32_t g = 0; g < b->n_groups; g++)
        if (b->pages->refs(b->pages->h, g, pba_block(b, s->slot, g)[i]) > 1)
            return 1;
    return 0;
}

static int32_t n_free(const pba_blocks *b)
{
    int32_t n = b->pages->n_free(b->pages->h, 0);
    for (int32_t g = 1; g < b->n_groups; g++) {
        int32_t m = b->pages->n_free(b->pages->h, g);
        n = m < n ? m : n;
    }
    return n;
}

/* Blocks [from, to) of s that must be replaced before they are written. */
static int32_t count_shared(const pba_blocks *b, const pb_seq *s, int32_t from, int32_t to)
{
    int32_t n = 0;
    for (int32_t i = from; i < to; i++)
        n += shared(b, s, i);
    return n;
}

/* Where the pool is too small for a copy, the cache may give its block to the only user. */
static int32_t unshare(pba_blocks *b, const pb_seq *s, int32_t from, int32_t to, int32_t most)
{
    int32_t n = 0;
    for (int32_t i = from; b->cache && i < to && n < most; i++) {
        pb_page p = pba_block(b, s->slot, 0)[i];
        if (b->pages->refs(b->pages->h, 0, p) == 2 && b->cache->forget(b->cache->arg, p))
            n++;
    }
    return n;
}

/* n blocks into b->fresh, all or nothing. */
static int take(pba_blocks *b, int32_t n)
{
    for (int32_t g = 0; g < b->n_groups; g++) {
        int rc = b->pages->take(b->pages->h, g, n, b->fresh + (size_t)g * (size_t)b->max_blocks);
        if (rc == 0)
            continue;
        while (g-- > 0)
            for (int32_t i = 0; i < n; i++)
                b->pages->unref(b->pages->h, g,
                                b->fresh[(size_t)g * (size_t)b->max_blocks + (size_t)i]);
        return rc;
    }
    b->st->blocks_taken += n;
    return 0;
}

/* Makes room for n blocks by eviction. `spare` must stay beside them, free or idle. */
static int make_room(pba_blocks *b, int32_t n, int32_t spare)
{
    int32_t free = n_free(b), idle = b->cache ? b->cache->idle(b->cache->arg) : 0;
    if ((int64_t)free + idle < (int64_t)n + spare)
        return PB_E_FULL;
    if (free < n)
        b->cache->evict(b->cache->arg, n - free);
    return 0;
}

/* Replaces the shared block i by fresh block j; what is valid in it is copied. */
static void replace(pba_blocks *b, const pb_seq *s, int32_t i, int32_t j)
{
    int64_t valid = s->n_valid - (int64_t)i * b->page_tokens;
    pb_page old = pba_block(b, s->slot, 0)[i];
    for (int32_t g = 0; g < b->n_groups; g++) {
        pb_page *p = &pba_block(b, s->slot, g)[i];
        pb_page to = b->fresh[(size_t)g * (size_t)b->max_blocks + (size_t)j];
        if (valid > 0)
            b->pages->copy(b->pages->h, g, *p, to, (int32_t)valid);
        b->pages->unref(b->pages->h, g, *p);
        *p = to;
    }
    b->st->copied_on_write++;
    if (b->cache)
        b->cache->dropped(b->cache->arg, old);
}

int pba_blocks_reserve(pba_blocks *b, const pb_seq *s, int64_t n_end)
{
    pba_row *r = &b->row[s->slot];
    if (n_end > (int64_t)b->max_blocks * b->page_tokens)
        return PB_E_INVAL;
    int32_t need = (int32_t)((n_end + b->page_tokens - 1) / b->page_tokens);
    int32_t from = (int32_t)(s->n_valid / b->page_tokens), to = need < r->n ? need : r->n;
    int32_t n_new = need > r->n ? need - r->n : 0;
    int32_t n_cow = count_shared(b, s, from, to);
    if (n_new + n_cow == 0) {
        r->joined = 0;
        return 0;
    }
    int alone = b->n_held == r->n; /* then the watermark would only block it */
    int32_t spare = r->joined && !alone ? (int32_t)(b->watermark * (double)b->n_pages) : 0;
    int rc = make_room(b, n_new + n_cow, spare);
    if (rc && alone && n_cow > 0) {
        n_cow -= unshare(b, s, from, to, n_cow);
        rc = make_room(b, n_new + n_cow, spare);
    }
    if (!rc) {
        n_cow = count_shared(b, s, from, to); /* eviction may have left s the only user */
        rc = take(b, n_new + n_cow);
    }
    if (rc)
        return rc;
    int32_t j = 0;
    for (int32_t i = from; i < to; i++)
        if (shared(b, s, i))
            replace(b, s, i, j++);
    for (; j < n_new + n_cow; j++, r->n++, b->n_held++)
        for (int32_t g = 0; g < b->n_groups; g++)
            pba_block(b, s->slot, g)[r->n] =
                b->fresh[(size_t)g * (size_t)b->max_blocks + (size_t)j];
    r->joined = 0;
    b->st->blocks_held = b->n_held;
    return 0;
}

int32_t pba_blocks_table(const pba_blocks *b, const pb_seq *s, int32_t g, pb_page *out, int32_t cap)
{
    int32_t n = b->row[s->slot].n < cap ? b->row[s->slot].n : cap;
    if (n > 0)
        memcpy(out, pba_block(b, s->slot, g), (size_t)n * sizeof *out);
    return n;
}

void pba_blocks_truncate(pba_blocks *b, const pb_seq *s, int64_t n)
{
    shrink(b, s, (int32_t)((n + b->page_tokens - 1) / b->page_tokens));
}

void pba_blocks_release(pba_blocks *b, const pb_seq *s)
{
    if (!b->row || s->slot < 0 || s->slot >= b->max_seqs)
        return;
    shrink(b, s, 0);
    b->row[s->slot] = (pba_row){ .id = 0 };
}

int pba_blocks_check(pba_blocks *b, int32_t (*owns)(void *arg, pb_page p), void *arg, pb_err *err)
{
    for (int32_t g = 0; g < b->n_groups; g++) {
        memset(b->count, 0, (size_t)b->n_pages * sizeof *b->count);
        for (int32_t q = 0; q < b->max_seqs; q++)
            for (int32_t i = 0; i < b->row[q].n; i++) {
                pb_page p = pba_block(b, q, g)[i];
                if (p < 1 || p >= b->n_pages)
                    return pba_fail(err, PB_E_INTERNAL,
                                    "%s: slot %d, block %d, group %d: page %d of %d", b->who, q, i,
                                    g, p, b->n_pages);
                b->count[p]++;
                if (owns && g == 0 && b->count[p] == 1)
                    b->count[p] += owns(arg, p);
            }
        for (pb_page p = 1; p < b->n_pages; p++) {
            int32_t have = b->pages->refs(b->pages->h, g, p);
            int32_t mine = b->count[p];
            if (g == 0 && owns && mine == 0)
                mine = owns(arg, p);
            if (g == 0 && mine != have)
                return pba_fail(err, PB_E_INTERNAL,
                                "%s: group 0, page %d: %d references held, the pool counts %d",
                                b->who, p, mine, have);
            if (g > 0 && mine > have) /* what a cache owns is known by its page in group 0 */
                return pba_fail(err, PB_E_INTERNAL,
                                "%s: group %d, page %d: %d references held, the pool counts %d",
                                b->who, g, p, mine, have);
        }
    }
    return 0;
}
