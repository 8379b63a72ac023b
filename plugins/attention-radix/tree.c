/* SPDX-License-Identifier: MIT
 *
 * plugins/attention-radix/tree.c - see tree.h.
 */
#include "tree.h"

#include <string.h>

static int32_t *tokens_of(const tree *t, int32_t page)
{
    return t->token + (size_t)page * (size_t)t->page_tokens;
}

void tree_free(tree *t)
{
    t->host->free(t->host, t->node);
    t->host->free(t->host, t->page);
    t->host->free(t->host, t->other);
    t->host->free(t->host, t->token);
    t->host->free(t->host, t->bucket);
    t->host->free(t->host, t->heap);
    t->node = NULL;
    t->page = NULL;
    t->other = NULL;
    t->token = t->bucket = t->heap = NULL;
}

int tree_init(tree *t, int32_t n_groups, int32_t page_tokens, int32_t n_pages)
{
    size_t n = (size_t)n_pages, nodes = 2 * n + 2, buckets = 1;
    tree_free(t);
    if (n_pages > INT32_MAX / 2 - 2)
        return PB_E_NOMEM;
    while (buckets < nodes)
        buckets *= 2;
    t->n_groups = n_groups;
    t->page_tokens = page_tokens;
    t->n_pages = n_pages;
    t->n_nodes = (int32_t)nodes;
    t->mask = (uint32_t)(buckets - 1);
    t->n_heap = t->n_idle = t->n_used = 0;
    t->node = t->host->alloc(t->host, nodes * sizeof *t->node, 0, "tree nodes");
    t->page = t->host->alloc(t->host, n * sizeof *t->page, 0, "tree pages");
    t->other = t->host->alloc(t->host, n * (size_t)n_groups * sizeof *t->other, 0, "tree pages");
    t->token =
        t->host->alloc(t->host, n * (size_t)page_tokens * sizeof *t->token, 0, "tree tokens");
    t->bucket = t->host->alloc(t->host, buckets * sizeof *t->bucket, 0, "tree index");
    t->heap = t->host->alloc(t->host, nodes * sizeof *t->heap, 0, "tree leaves");
    if (!t->node || !t->page || !t->other || !t->token || !t->bucket || !t->heap)
        return PB_E_NOMEM;
    t->free = 1;
    for (int32_t i = 1; i + 1 < t->n_nodes; i++)
        t->node[i].next = i + 1;
    return 0;
}

/* ---- leaves in the order of eviction: a binary heap --------------------------- */

static int before(const tree *t, int32_t a, int32_t b)
{
    const tree_node *x = &t->node[a], *y = &t->node[b];
    if (t->policy == TREE_FIFO)
        return x->born < y->born;
    if (t->policy == TREE_LFU && x->hits != y->hits)
        return x->hits < y->hits;
    return x->used != y->used ? x->used < y->used : x->born > y->born;
}

static void heap_put(tree *t, int32_t at, int32_t i)
{
    t->heap[at] = i;
    t->node[i].heap = at + 1;
}

static void heap_fix(tree *t, int32_t at)
{
    int32_t i = t->heap[at];
    while (at > 0 && before(t, i, t->heap[(at - 1) / 2])) {
        heap_put(t, at, t->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        int32_t c = 2 * at + 1;
        if (c >= t->n_heap)
            break;
        if (c + 1 < t->n_heap && before(t, t->heap[c + 1], t->heap[c]))
            c++;
        if (!before(t, t->heap[c], i))
            break;
        heap_put(t, at, t->heap[c]);
        at = c;
    }
    heap_put(t, at, i);
}

/* Puts node i into the heap or takes it out, as its state says. */
static void heap_update(tree *t, int32_t i)
{
    tree_node *n = &t->node[i];
    int should = i != 0 && n->n_child == 0 && n->lock == 0;
    if (should && !n->heap) {
        heap_put(t, t->n_heap++, i);
        heap_fix(t, n->heap - 1);
    } else if (!should && n->heap) {
        int32_t at = n->heap - 1, last = t->heap[--t->n_heap];
        n->heap = 0;
        if (last != i) {
            heap_put(t, at, last);
            heap_fix(t, at);
        }
    }
}

void tree_touch(tree *t, int32_t i)
{
    t->node[i].used = ++t->clock;
    t->node[i].hits++;
    if (t->node[i].heap)
        heap_fix(t, t->node[i].heap - 1);
}

/* ---- pages ---------------------------------------------------------------------- */

void tree_page_changed(tree *t, pb_page p)
{
    tree_page *g = &t->page[p];
    int32_t idle = g->n > 0 && g->n_locked == 0 && t->pages->refs(t->pages->h, 0, p) == 1;
    t->n_idle += idle - g->idle;
    g->idle = idle;
}

static void page_enter(tree *t, int32_t i, const pb_page *p, const int32_t *tokens)
{
    tree_node *n = &t->node[i];
    tree_page *g = &t->page[p[0]];
    if (g->n == 0) {
        for (int32_t k = 0; k < t->n_groups; k++)
            t->pages->ref(t->pages->h, k, p[k]);
        if (p != tree_pages(t, p[0]))
            memcpy(tree_pages(t, p[0]), p, (size_t)t->n_groups * sizeof *p);
        t->n_used++;
    }
    if (tokens != tokens_of(t, p[0]))
        memcpy(tokens_of(t, p[0]), tokens, (size_t)n->to * sizeof *tokens);
    n->page = p[0];
    n->beside = g->first;
    g->first = i;
    g->n++;
    g->n_locked += n->lock > 0;
    tree_page_changed(t, p[0]);
}

/* A node left page p: the last one takes the tree's references with it. */
static void page_settle(tree *t, int32_t p)
{
    tree_page *g = &t->page[p];
    if (g->n > 0) {
        tree_page_changed(t, p);
        return;
    }
    t->n_idle -= g->idle;
    g->idle = 0;
    t->n_used--;
    t->n_freed += t->pages->refs(t->pages->h, 0, p) == 1;
    for (int32_t k = 0; k < t->n_groups; k++)
        t->pages->unref(t->pages->h, k, tree_pages(t, p)[k]);
}

static void page_leave(tree *t, int32_t i)
{
    tree_node *n = &t->node[i];
    int32_t p = n->page;
    tree_page *g = &t->page[p];
    int32_t *at = &g->first;
    while (*at && *at != i)
        at = &t->node[*at].beside;
    if (*at)
        *at = n->beside;
    g->n--;
    g->n_locked -= n->lock > 0;
    page_settle(t, p);
}

void tree_move(tree *t, int32_t i, const pb_page *p)
{
    int32_t old = t->node[i].page;
    pb_page to[8];
    if (old == p[0])
        return;
    memcpy(to, p, (size_t)t->n_groups * sizeof *to);
    tree_page *g = &t->page[old]; /* keep it until its tokens are copied */
    g->n++;
    page_leave(t, i);
    page_enter(t, i, to, tokens_of(t, old));
    g->n--;
    page_settle(t, old);
}

/* ---- links ------------------------------------------------------------------------ */

static int32_t first_token(const tree *t, int32_t i)
{
    return tokens_of(t, t->node[i].page)[t->node[i].from];
}

static uint32_t bucket_of(const tree *t, int32_t parent, uint64_t key, int32_t token)
{
    uint64_t z = key ^ ((uint64_t)(uint32_t)parent << 32 | (uint32_t)token);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull; /* Steele, Lea, Flood (2014) */
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (uint32_t)(z >> 32) & t->mask;
}

int32_t tree_find(const tree *t, int32_t parent, uint64_t key, int32_t token)
{
    int32_t i = t->bucket[bucket_of(t, parent, key, token)];
    while (i &&
           (t->node[i].parent != parent || t->node[i].key != key || first_token(t, i) != token))
        i = t->node[i].chain;
    return i;
}

int32_t tree_agree(const tree *t, int32_t i, const int32_t *tokens, int64_t n)
{
    const int32_t *mine = tokens_of(t, t->node[i].page) + t->node[i].from;
    int32_t most = t->node[i].to - t->node[i].from, k = 0;
    if (most > n)
        most = (int32_t)n;
    while (k < most && mine[k] == tokens[k])
        k++;
    return k;
}

/* Node i, whose page and from are set, becomes a child of parent. */
static void link_child(tree *t, int32_t i, int32_t parent)
{
    tree_node *n = &t->node[i], *p = &t->node[parent];
    int32_t *b = &t->bucket[bucket_of(t, parent, n->key, first_token(t, i))];
    n->parent = parent;
    n->chain = *b;
    *b = i;
    n->prev = 0;
    n->next = p->child;
    if (p->child)
        t->node[p->child].prev = i;
    p->child = i;
    p->n_child++;
    heap_update(t, parent);
}

static void unlink_child(tree *t, int32_t i)
{
    tree_node *n = &t->node[i], *p = &t->node[n->parent];
    int32_t *at = &t->bucket[bucket_of(t, n->parent, n->key, first_token(t, i))];
    while (*at && *at != i) /* 0: not there, so the pool gave its page to another too early */
        at = &t->node[*at].chain;
    if (*at)
        *at = n->chain;
    if (n->next)
        t->node[n->next].prev = n->prev;
    *(n->prev ? &t->node[n->prev].next : &p->child) = n->next;
    p->n_child--;
}

static int32_t new_node(tree *t)
{
    int32_t i = t->free;
    if (!i)
        return 0;
    t->free = t->node[i].next;
    t->node[i] = (tree_node){ .born = ++t->clock, .used = t->clock };
    return i;
}

static void give_back(tree *t, int32_t i)
{
    t->node[i] = (tree_node){ .next = t->free };
    t->free = i;
}

/* The only child of mid-page node i, with as many locks, takes its place: a split undone. */
static void join_child(tree *t, int32_t i)
{
    tree_node *n = &t->node[i];
    int32_t c = n->child, parent = n->parent;
    if (i == 0 || n->n_child != 1 || t->node[c].from == 0 || t->node[c].lock != n->lock)
        return;
    unlink_child(t, c);
    unlink_child(t, i);
    t->node[c].from = n->from;
    page_leave(t, i);
    link_child(t, c, parent);
    give_back(t, i);
    heap_update(t, c);
}

int32_t tree_leaf(tree *t, int32_t parent, uint64_t key, const pb_page *p, int32_t from, int32_t to,
                  const int32_t *tokens)
{
    int32_t i = new_node(t);
    if (!i)
        return 0;
    t->node[i].key = key;
    t->node[i].from = from;
    t->node[i].to = to;
    page_enter(t, i, p, tokens);
    link_child(t, i, parent);
    heap_update(t, i);
    join_child(t, parent);
    return i;
}

int32_t tree_split(tree *t, int32_t i, int32_t at)
{
    int32_t u = new_node(t);
    if (!u)
        return 0;
    tree_node *n = &t->node[i], *up = &t->node[u];
    int32_t parent = n->parent;
    unlink_child(t, i);
    up->key = n->key;
    up->from = n->from;
    up->to = at;
    up->lock = n->lock;
    up->used = n->used;
    up->hits = n->hits;
    page_enter(t, u, tree_pages(t, n->page), tokens_of(t, n->page));
    n->from = at;
    link_child(t, u, parent);
    link_child(t, i, u);
    return u;
}

/* ---- locks --------------------------------------------------------------------------- */

static void add_lock(tree *t, int32_t i, int32_t d)
{
    tree_node *n = &t->node[i];
    int32_t was = n->lock > 0;
    n->lock += d;
    if ((n->lock > 0) != was) {
        t->page[n->page].n_locked += (n->lock > 0) - was;
        tree_page_changed(t, n->page);
        heap_update(t, i);
    }
}

void tree_lock(tree *t, int32_t i, int32_t above)
{
    for (; i != above; i = t->node[i].parent)
        add_lock(t, i, 1);
}

void tree_unlock(tree *t, int32_t i)
{
    while (i) {
        int32_t up = t->node[i].parent;
        t->node[i].used = ++t->clock; /* what many go through is left last, so it stays longest */
        add_lock(t, i, -1);
        join_child(t, i); /* a run that a lock kept apart */
        i = up;
    }
}

void tree_settle(tree *t, int32_t i)
{
    const pb_page *p = tree_pages(t, t->node[i].page);
    while (t->node[i].from > 0) {
        i = t->node[i].parent;
        if (t->node[i].page != p[0] && t->pages->refs(t->pages->h, 0, t->node[i].page) == 1)
            tree_move(t, i, p);
    }
}

/* A locked run whose page nobody holds any more goes to the page of a branch that is in use. */
void tree_dropped(tree *t, pb_page p)
{
    tree_page_changed(t, p);
    if (t->page[p].n_locked == 0 || t->pages->refs(t->pages->h, 0, p) > 1)
        return;
    for (int32_t i = t->page[p].first; i;) {
        int32_t c = t->node[i].child;
        while (c && (t->node[c].from == 0 || t->node[c].lock == 0 || t->node[c].page == p))
            c = t->node[c].next;
        if (c && t->node[i].lock > 0) {
            tree_move(t, i, tree_pages(t, t->node[c].page));
            i = t->page[p].first; /* one above it may follow */
        } else {
            i = t->node[i].beside;
        }
    }
}

/* ---- eviction -------------------------------------------------------------------------- */

static void remove_leaf(tree *t, int32_t i)
{
    int32_t parent = t->node[i].parent;
    unlink_child(t, i);
    page_leave(t, i);
    t->node[i].lock = 1; /* out of the heap */
    heap_update(t, i);
    give_back(t, i);
    heap_update(t, parent);
    join_child(t, parent);
}

void tree_evict(tree *t, int32_t n)
{
    int64_t target = t->n_freed + n;
    while (t->n_freed < target && t->n_heap > 0) {
        remove_leaf(t, t->heap[0]);
        t->evicted++;
    }
}

static int unlocked_below(const tree *t, int32_t top)
{
    for (int32_t i = top;;) {
        if (t->node[i].lock)
            return 0;
        if (t->node[i].child) {
            i = t->node[i].child;
            continue;
        }
        while (i != top && !t->node[i].next)
            i = t->node[i].parent;
        if (i == top)
            return 1;
        i = t->node[i].next;
    }
}

int tree_forget(tree *t, pb_page p)
{
    if (t->page[p].n == 0)
        return 0;
    for (int32_t i = t->page[p].first; i; i = t->node[i].beside)
        if (!unlocked_below(t, i))
            return 0;
    while (t->page[p].n > 0) {
        int32_t i = t->page[p].first;
        while (t->node[i].child)
            i = t->node[i].child;
        remove_leaf(t, i);
        t->evicted++;
    }
    return 1;
}

/* ---- check -------------------------------------------------------------------------------- */

static const char *check_node(const tree *t, int32_t i, int32_t *locks)
{
    const tree_node *n = &t->node[i];
    int32_t n_child = 0;
    *locks = 0;
    for (int32_t c = n->child; c; c = t->node[c].next) {
        const tree_node *m = &t->node[c];
        n_child++;
        *locks += m->lock;
        if (m->parent != i)
            return "a child has another parent";
        if (i && m->from != (n->to == t->page_tokens ? 0 : n->to))
            return "a child does not begin where its parent ends";
        if (i && m->key != n->key)
            return "a child has another key";
        if (i && m->from > 0 &&
            memcmp(tokens_of(t, n->page), tokens_of(t, m->page), (size_t)n->to * sizeof(int32_t)) !=
                0)
            return "a branch's page does not begin as its parent's";
        if (tree_find(t, i, m->key, first_token(t, c)) != c)
            return "a child is not found by its first token";
    }
    if (n_child != n->n_child)
        return "children are miscounted";
    if (i && *locks > n->lock)
        return "a node is locked less than its children";
    if (i && (n->heap != 0) != (n_child == 0 && n->lock == 0))
        return "a leaf that may go is not in the heap, or another node is";
    if (i && n->heap && t->heap[n->heap - 1] != i)
        return "the heap's places are wrong";
    return NULL;
}

const char *tree_check(const tree *t)
{
    int32_t n_idle = 0, n_used = 0, locks;
    const char *why = check_node(t, 0, &locks);
    for (int32_t p = 1; p < t->n_pages && !why; p++) {
        const tree_page *g = &t->page[p];
        int32_t n = 0, n_locked = 0;
        for (int32_t i = g->first; i && !why; i = t->node[i].beside) {
            n++;
            n_locked += t->node[i].lock > 0;
            why = t->node[i].page != p ? "a node is listed on another page"
                                       : check_node(t, i, &locks);
        }
        if (!why && (n != g->n || n_locked != g->n_locked))
            why = "nodes of a page are miscounted";
        if (!why && g->idle != (n > 0 && n_locked == 0 && t->pages->refs(t->pages->h, 0, p) == 1))
            why = "a page is taken for idle and is not, or the other way round";
        n_idle += g->idle;
        n_used += n > 0;
    }
    if (!why && (n_idle != t->n_idle || n_used != t->n_used))
        why = "idle or used pages are miscounted";
    return why;
}
