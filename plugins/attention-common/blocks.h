/* SPDX-License-Identifier: MIT
 *
 * plugins/attention-common/blocks.h - block tables by slot on the pool of pages/1: the layout
 * that paged, hash and radix share. Knows no prefix: a cache on top says what may be evicted.
 *
 * A block is one page in every KV group; all groups have pages of equal length, so that one
 * count serves for all. Invariants: a sequence's table holds one reference on each of its
 * pages; a page with more than one is replaced before it is written; a call that answers
 * PB_E_FULL changed nothing.
 */
#ifndef PBA_BLOCKS_H
#define PBA_BLOCKS_H
#include "plan.h"

/* What a cache of idle blocks does for the tables. A block is named by its page in group 0. */
typedef struct pba_cache {
    void *arg;
    int32_t (*idle)(void *arg);            /* blocks that evict could free now */
    void (*evict)(void *arg, int32_t n);   /* frees n of them */
    void (*dropped)(void *arg, pb_page p); /* a sequence gave up its reference on block p */
    /* Gives up the cache's own reference on p, of which one user is left. 1: done; 0: not mine. */
    int (*forget)(void *arg, pb_page p);
} pba_cache;

/* Counters that every plugin on blocks has; they open its stats block. taken: flags of the first,
 * PB_C_ENGAGED where blocks are all that the plugin does. */
typedef struct pba_stats {
    int64_t blocks_taken, blocks_held, copied_on_write;
} pba_stats;
#define PBA_BLOCK_COUNTERS(taken)                                                                  \
    PB_COUNTER(pba_stats, blocks_taken, taken, "blocks", "taken from the pool"),                   \
        PB_COUNTER(pba_stats, blocks_held, PB_C_GAUGE, "blocks",                                   \
                   "in tables now, a shared one for each"),                                        \
        PB_COUNTER(pba_stats, copied_on_write, 0, "blocks", "copied because they were shared")

typedef struct pba_row {
    uint64_t id;    /* of the sequence in this slot, for messages */
    int32_t n;      /* blocks held */
    int32_t joined; /* attached, nothing reserved yet: the watermark holds for it */
} pba_row;

typedef struct pba_blocks {
    const char *who; /* "attention-paged" */
    const pb_host *host;
    const pb_pages *pages;
    pba_stats *st;
    const pba_cache *cache; /* NULL: none */
    double watermark;       /* part of the pool that admission leaves free */
    int32_t max_seqs;       /* from start() */
    int32_t n_groups, page_tokens, max_blocks, n_pages;
    int32_t n_held; /* blocks in tables, a shared one once for each sequence */
    pba_row *row;   /* [max_seqs] */
    pb_page *page;  /* [max_seqs][n_groups][max_blocks] */
    pb_page *fresh; /* [n_groups][max_blocks]: taken in this call */
    int32_t *count; /* [n_pages]: for check */
} pba_blocks;

/* Plans (plan.h) and allocates the tables for b->max_seqs slots; no tables before start().
 * May be called again. [main] */
int pba_blocks_plan(pba_blocks *b, int64_t page_tokens, int32_t n_groups, const pb_kv_group *g,
                    int64_t budget, int32_t max_ctx, pb_kv_plan *out, pb_err *err);
void pba_blocks_free(pba_blocks *b);

/* The page of block i of a slot in group g. */
static inline pb_page *pba_block(const pba_blocks *b, int32_t slot, int32_t g)
{
    return b->page + ((size_t)slot * (size_t)b->n_groups + (size_t)g) * (size_t)b->max_blocks;
}

/* s joins with an empty table. [step] */
void pba_blocks_join(pba_blocks *b, const pb_seq *s);
/* Appends a block, given by its page in each group, and takes a reference. [step] */
void pba_blocks_share(pba_blocks *b, const pb_seq *s, const pb_page *p);
/* attention/1: reserve, table, truncate, release. [step] */
int pba_blocks_reserve(pba_blocks *b, const pb_seq *s, int64_t n_end);
int32_t pba_blocks_table(const pba_blocks *b, const pb_seq *s, int32_t g, pb_page *out,
                         int32_t cap);
void pba_blocks_truncate(pba_blocks *b, const pb_seq *s, int64_t n);
void pba_blocks_release(pba_blocks *b, const pb_seq *s);
/* Counts the references of all tables in b->count (group 0) and compares each group with the
 * pool; owns(arg, p): references that the cache holds on block p. [step] */
int pba_blocks_check(pba_blocks *b, int32_t (*owns)(void *arg, pb_page p), void *arg, pb_err *err);
#endif
