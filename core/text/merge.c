/* SPDX-License-Identifier: MIT
 *
 * core/text/merge.c - byte pair encoding of one word, for both kinds of vocabulary:
 * byte-level BPE looks pairs up in the list of merges, SentencePiece BPE asks whether the
 * joined text is a token and takes its score as the rank.
 *
 * It does not cut text into words. Invariant: the result depends on the word alone, and a word
 * of n symbols costs O(n log n), whatever it holds.
 * Sources: Sennrich et al., arXiv 1508.07909; Kudo and Richardson, arXiv 1808.06226.
 */
#include "vocab.h"
#include <stdlib.h>
#include <string.h>

/* A symbol of the word: bytes [at, at + len). Joined symbols leave the right one with len 0. */
typedef struct node {
    uint32_t at, len;
    int32_t prev, next, sym;
} node;

/* A possible join of node `left` with the one after it, seen when their lengths were so. */
typedef struct cand {
    uint32_t rank;
    int32_t left, merged;
    uint32_t len; /* of both */
} cand;

struct pbi_merger {
    const pbi_tokenizer *t;
    node *node;
    cand *heap;
    size_t cap, n_heap; /* cap: nodes; the heap has 3 times as many */
};

pbi_merger *pbi_merger_new(const pbi_tokenizer *t)
{
    pbi_merger *g = calloc(1, sizeof *g);
    if (g)
        g->t = t;
    return g;
}

void pbi_merger_free(pbi_merger *g)
{
    if (!g)
        return;
    free(g->node);
    free(g->heap);
    free(g);
}

static int merger_room(pbi_merger *g, size_t n)
{
    if (n <= g->cap)
        return 0;
    size_t cap = g->cap ? g->cap : 64;
    while (cap < n)
        cap *= 2;
    node *a = realloc(g->node, cap * sizeof *a);
    if (!a)
        return PB_E_NOMEM;
    g->node = a;
    cand *h = realloc(g->heap, 3 * cap * sizeof *h);
    if (!h)
        return PB_E_NOMEM;
    g->heap = h;
    g->cap = cap;
    return 0;
}

static int cand_before(const cand *a, const cand *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->left < b->left;
}

static void heap_push(pbi_merger *g, cand c)
{
    size_t i = g->n_heap++;
    for (; i > 0; i = (i - 1) / 2) {
        if (!cand_before(&c, &g->heap[(i - 1) / 2]))
            break;
        g->heap[i] = g->heap[(i - 1) / 2];
    }
    g->heap[i] = c;
}

static cand heap_pop(pbi_merger *g)
{
    cand top = g->heap[0], last = g->heap[--g->n_heap];
    size_t i = 0;
    for (;;) {
        size_t k = 2 * i + 1;
        if (k >= g->n_heap)
            break;
        if (k + 1 < g->n_heap && cand_before(&g->heap[k + 1], &g->heap[k]))
            k++;
        if (!cand_before(&g->heap[k], &last))
            break;
        g->heap[i] = g->heap[k];
        i = k;
    }
    g->heap[i] = last;
    return top;
}

/* Considers joining node l with its right neighbour. */
static void consider(pbi_merger *g, const char *s, int32_t l)
{
    const pbi_tokenizer *t = g->t;
    const node *a = &g->node[l];
    if (l < 0 || a->next < 0)
        return;
    const node *b = &g->node[a->next];
    cand c = { .left = l, .len = a->len + b->len };
    if (t->kind == PBI_VOCAB_BPE) {
        if (a->sym < 0 || b->sym < 0)
            return;
        const struct pbi_merge *m = pbi_mergemap_get(&t->merges, a->sym, b->sym);
        if (!m)
            return;
        c.rank = m->rank;
        c.merged = m->merged;
    } else {
        if (c.len > t->max_sym)
            return;
        c.merged = pbi_strmap_get(&t->map, s + a->at, c.len);
        if (c.merged < 0)
            return;
        c.rank = t->rank[c.merged];
    }
    heap_push(g, c);
}

/* One node a byte (BPE) or a character (SPM). Returns their number. */
static int32_t word_nodes(pbi_merger *g, const char *s, size_t n)
{
    const pbi_tokenizer *t = g->t;
    int32_t k = 0;
    for (size_t i = 0; i < n; k++) {
        size_t len = t->kind == PBI_VOCAB_BPE ? 1 : pbi_utf8_char(s + i, n - i, NULL);
        if (!len)
            len = 1;
        g->node[k] = (node){ .at = (uint32_t)i,
                             .len = (uint32_t)len,
                             .prev = k - 1,
                             .next = i + len < n ? k + 1 : -1,
                             .sym = pbi_strmap_get(&t->map, s + i, len) };
        i += len;
    }
    return k;
}

int pbi_merger_word(pbi_merger *g, const char *s, size_t n, pbi_ids *out)
{
    const pbi_tokenizer *t = g->t;
    if (!n)
        return 0;
    if (n > 0x3fffffff || merger_room(g, n))
        return PB_E_NOMEM;
    int32_t k = word_nodes(g, s, n);
    g->n_heap = 0;
    for (int32_t i = 0; i + 1 < k; i++)
        consider(g, s, i);
    while (g->n_heap) {
        cand c = heap_pop(g);
        node *a = &g->node[c.left];
        if (!a->len || a->next < 0)
            continue;
        node *b = &g->node[a->next];
        if (a->len + b->len != c.len)
            continue; /* one of them has grown since */
        a->len = c.len;
        a->sym = c.merged;
        a->next = b->next;
        b->len = 0;
        if (a->next >= 0)
            g->node[a->next].prev = c.left;
        consider(g, s, a->prev);
        consider(g, s, c.left);
    }
    for (int32_t i = 0; i >= 0; i = g->node[i].next) {
        const node *a = &g->node[i];
        if (a->sym >= 0 && a->sym < t->n) {
            pbi_ids_push(out, a->sym);
            continue;
        }
        for (uint32_t j = 0; j < a->len; j++) { /* no such token: byte by byte */
            int32_t id = t->byte_id[(unsigned char)s[a->at + j]];
            if (id >= 0)
                pbi_ids_push(out, id);
            else if (t->unk >= 0 && j == 0)
                pbi_ids_push(out, t->unk);
        }
    }
    return out->failed ? PB_E_NOMEM : 0;
}
