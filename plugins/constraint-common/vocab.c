/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-common/vocab.c - builds the trie by sorting the tokens' bytes, and walks it
 * through a machine.
 *
 * Pieces are copied first: a text service may reuse its buffer from call to call.
 */
#include "vocab.h"

#include <stdlib.h>
#include <string.h>

typedef struct word {
    const uint8_t *s;
    int32_t n, id;
} word;

static int by_bytes(const void *a, const void *b)
{
    const word *x = a, *y = b;
    int32_t n = x->n < y->n ? x->n : y->n;
    int d = memcmp(x->s, y->s, (size_t)n);
    if (d)
        return d;
    if (x->n != y->n)
        return x->n < y->n ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* All bytes in one block; the count of words, or -1. */
static int32_t copy_words(const pbc_vocab *v, word **words, uint8_t **bytes)
{
    size_t total = 0, at = 0;
    int32_t n = 0;
    for (int32_t i = 0; i < v->n_vocab; i++)
        total += v->text->piece(v->text->h, i).n;
    *words = v->host->alloc(v->host, ((size_t)v->n_vocab + 1) * sizeof **words, 0, "words");
    *bytes = v->host->alloc(v->host, total + 1, 0, "bytes");
    if (!*words || !*bytes)
        return -1;
    for (int32_t i = 0; i < v->n_vocab; i++) {
        pb_str s = v->text->piece(v->text->h, i);
        if (s.n == 0 || s.n > PBC_MAX_TOKEN || s.n > total - at || i == v->text->eos)
            continue;
        memcpy(*bytes + at, s.s, s.n);
        (*words)[n++] = (word){ .s = *bytes + at, .n = (int32_t)s.n, .id = i };
        at += s.n;
    }
    qsort(*words, (size_t)n, sizeof **words, by_bytes);
    return n;
}

static int32_t common(const word *a, const word *b)
{
    int32_t k = 0;
    while (k < a->n && k < b->n && a->s[k] == b->s[k])
        k++;
    return k;
}

static int lay_out(pbc_vocab *v, const word *w, int32_t n)
{
    int64_t count = 0;
    for (int32_t i = 0; i < n; i++) {
        count += w[i].n - (i ? common(&w[i - 1], &w[i]) : 0);
        v->max_depth = w[i].n > v->max_depth ? w[i].n : v->max_depth;
    }
    if (count > INT32_MAX - 1)
        return PB_E_NOMEM;
    v->node = v->host->alloc(v->host, (size_t)(count + 1) * sizeof *v->node, 0, "trie");
    v->path = v->host->alloc(v->host, ((size_t)v->max_depth + 1) * sizeof *v->path, 0, "trie path");
    if (!v->node || !v->path)
        return PB_E_NOMEM;
    int32_t *open = v->path; /* node at each depth, while building */
    int32_t depth = 0;
    for (int32_t i = 0; i < n; i++) {
        int32_t keep = i ? common(&w[i - 1], &w[i]) : 0;
        for (; depth > keep; depth--)
            v->node[open[depth]].end = v->n_nodes;
        for (; depth < w[i].n; v->n_nodes++) {
            open[++depth] = v->n_nodes;
            v->node[v->n_nodes] =
                (pbc_trie_node){ .token = -1, .depth = (uint16_t)depth, .byte = w[i].s[depth - 1] };
        }
        v->same[w[i].id] = v->node[open[depth]].token;
        v->node[open[depth]].token = w[i].id;
    }
    for (; depth > 0; depth--)
        v->node[open[depth]].end = v->n_nodes;
    return 0;
}

int pbc_vocab_init(pbc_vocab *v, const pb_host *host, const pb_text *text, pb_err *err)
{
    word *words = NULL;
    uint8_t *bytes = NULL;
    *v = (pbc_vocab){ .host = host, .text = text, .n_vocab = text->n_vocab };
    v->same = host->alloc(host, ((size_t)v->n_vocab + 1) * sizeof *v->same, 0, "equal tokens");
    int32_t n = v->same ? copy_words(v, &words, &bytes) : -1;
    int rc = n < 0 ? PB_E_NOMEM : lay_out(v, words, n);
    host->free(host, words);
    host->free(host, bytes);
    if (!rc)
        return 0;
    pbc_vocab_free(v);
    return pbc_fail(err, PB_E_NOMEM, "no memory for the trie of %d tokens", text->n_vocab);
}

void pbc_vocab_free(pbc_vocab *v)
{
    if (!v->host)
        return;
    v->host->free(v->host, v->node);
    v->host->free(v->host, v->same);
    v->host->free(v->host, v->path);
    *v = (pbc_vocab){ 0 };
}

int pbc_vocab_walk(const pbc_vocab *v, pbc_machine *m, int32_t state, uint32_t *bits)
{
    v->path[0] = state;
    for (int32_t i = 0; i < v->n_nodes;) {
        const pbc_trie_node *n = &v->node[i];
        int32_t to = pbc_machine_step(m, v->path[n->depth - 1], n->byte);
        if (to == PBC_OVERFLOW)
            return PBC_OVERFLOW;
        if (to == PBC_DEAD) {
            i = n->end;
            continue;
        }
        v->path[n->depth] = to;
        for (int32_t id = n->token; id >= 0; id = v->same[id])
            bits[id / 32] |= 1u << id % 32;
        i++;
    }
    return 0;
}

int32_t pbc_vocab_token(const pbc_vocab *v, pbc_machine *m, int32_t state, int32_t id)
{
    pb_str s = v->text->piece(v->text->h, id);
    if (s.n == 0 || s.n > PBC_MAX_TOKEN)
        return PBC_DEAD;
    for (size_t i = 0; i < s.n && state >= 0; i++)
        state = pbc_machine_step(m, state, (uint8_t)s.s[i]);
    return state;
}
