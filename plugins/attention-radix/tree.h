/* SPDX-License-Identifier: MIT
 *
 * plugins/attention-radix/tree.h - a radix tree over token ids whose nodes lie on pages. Knows no
 * sequence; radix.c walks it for them.
 *
 * A node is a run of tokens inside one page: offsets [from, to) of the page at its depth. Where
 * texts part in mid-page, the page's run is split, and each branch has a page of its own that
 * holds the common beginning too: that is what lets a branch be read through one page, and a
 * node be moved to the page of any of its branches.
 *
 * Invariants: a node's children begin with different tokens; children of a node that ends in
 * mid-page begin where it ends, in the same page index. The tree holds one reference on each page
 * that has nodes. A locked node's ancestors are locked. A page is idle if it has nodes, none of
 * them locked, and the tree's is its only reference: then everything below is unlocked too, so
 * that evicting leaf by leaf reaches it.
 */
#ifndef RADIX_TREE_H
#define RADIX_TREE_H
#include <patchbay/plugin.h>

enum { TREE_LRU = 0, TREE_LFU = 1, TREE_FIFO = 2 };

typedef struct tree_node {
    uint64_t key;                      /* cache_key */
    int32_t parent, child, next, prev; /* 0: the root, or none */
    int32_t chain;                     /* next of the hash bucket */
    int32_t beside;                    /* next on the same page */
    int32_t page, from, to;
    int32_t n_child, lock, heap; /* lock: sequences that go through; heap: place + 1, 0 not in it */
    int64_t used, born, hits;
} tree_node;

typedef struct tree_page {
    int32_t first, n, n_locked, idle; /* nodes on it */
} tree_page;

typedef struct tree {
    const pb_host *host;
    const pb_pages *pages;
    int32_t n_groups, page_tokens, n_pages, policy;
    tree_node *node; /* [n_nodes]; 0 is the root */
    tree_page *page; /* [n_pages], by the page in group 0 */
    pb_page *other;  /* [n_pages][n_groups]: the pages that go with it */
    int32_t *token;  /* [n_pages][page_tokens] */
    int32_t *bucket; /* [mask + 1] */
    int32_t *heap;   /* unlocked leaves, the next to go first */
    int32_t n_nodes, free, n_heap, n_idle, n_used; /* free: unused nodes by next; n_used: pages */
    uint32_t mask;
    int64_t clock, evicted, n_freed;
} tree;

/* Allocates for n_pages. 0 or PB_E_NOMEM. [main] */
int tree_init(tree *t, int32_t n_groups, int32_t page_tokens, int32_t n_pages);
void tree_free(tree *t);

/* The child of parent that begins with token, or 0. */
int32_t tree_find(const tree *t, int32_t parent, uint64_t key, int32_t token);
/* How many of n tokens agree with the node's, from its beginning. */
int32_t tree_agree(const tree *t, int32_t i, const int32_t *tokens, int64_t n);
/* The node is divided at offset `at` of its page; returns the upper part, whose only child is i.
 * 0: no node left. */
int32_t tree_split(tree *t, int32_t i, int32_t at);
/* A new leaf at offsets [from, to) of the page p[0..n_groups), whose tokens from offset 0 on are
 * given. 0: no node left. */
int32_t tree_leaf(tree *t, int32_t parent, uint64_t key, const pb_page *p, int32_t from, int32_t to,
                  const int32_t *tokens);
/* Node i goes to page p, which holds the same tokens and KV. */
void tree_move(tree *t, int32_t i, const pb_page *p);
/* Nodes above i in its page index go to its page if nobody else holds theirs. */
void tree_settle(tree *t, int32_t i);
/* Locks i and the nodes above it, up to `above` (excluded). */
void tree_lock(tree *t, int32_t i, int32_t above);
void tree_unlock(tree *t, int32_t i);
/* Notes the use of a node, for eviction. */
void tree_touch(tree *t, int32_t i);
/* A sequence took or gave up its reference on page p. */
void tree_page_changed(tree *t, pb_page p);
void tree_dropped(tree *t, pb_page p);
/* Frees up to n pages. */
void tree_evict(tree *t, int32_t n);
/* Gives up page p with all that hangs on it. 0: it has no node, or one is locked. */
int tree_forget(tree *t, pb_page p);
/* Consistency of links, counts and heap; NULL or what is wrong. */
const char *tree_check(const tree *t);

static inline pb_page *tree_pages(const tree *t, int32_t page)
{
    return t->other + (size_t)page * (size_t)t->n_groups;
}
#endif
