/* SPDX-License-Identifier: MIT
 *
 * core/text/maps.c - the hash tables and the id array behind a vocabulary.
 *
 * General containers they are not: filled once to a known size, never shrunk.
 * Invariant: at most half of the entries are used, so that a search ends.
 */
#include "vocab.h"
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

static uint32_t table_size(size_t n)
{
    uint32_t c = 16;
    while (c < 2 * n && c < 0x80000000u)
        c *= 2;
    return c;
}

int pbi_strmap_init(pbi_strmap *m, size_t n)
{
    uint32_t c = table_size(n);
    if (n > 0x3fffffff || !(m->e = malloc(c * sizeof *m->e)))
        return PB_E_NOMEM;
    for (uint32_t i = 0; i < c; i++)
        m->e[i].value = -1;
    m->mask = c - 1;
    m->n = 0;
    return 0;
}

static uint32_t str_hash(const char *s, size_t len)
{
    return (uint32_t)XXH3_64bits(s, len);
}

void pbi_strmap_put(pbi_strmap *m, const char *s, size_t len, int32_t value)
{
    uint32_t h = str_hash(s, len), i = h & m->mask;
    for (; m->e[i].value >= 0; i = (i + 1) & m->mask)
        if (m->e[i].hash == h && m->e[i].len == len && !memcmp(m->e[i].s, s, len))
            return;
    m->e[i].s = s;
    m->e[i].len = (uint32_t)len;
    m->e[i].hash = h;
    m->e[i].value = value;
    m->n++;
}

int32_t pbi_strmap_get(const pbi_strmap *m, const char *s, size_t len)
{
    if (!m->e)
        return -1;
    uint32_t h = str_hash(s, len), i = h & m->mask;
    for (; m->e[i].value >= 0; i = (i + 1) & m->mask)
        if (m->e[i].hash == h && m->e[i].len == len && !memcmp(m->e[i].s, s, len))
            return m->e[i].value;
    return -1;
}

static uint32_t pair_hash(int32_t left, int32_t right)
{
    uint64_t x = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(x >> 32);
}

int pbi_mergemap_init(pbi_mergemap *m, size_t n)
{
    uint32_t c = table_size(n);
    if (n > 0x3fffffff || !(m->e = malloc(c * sizeof *m->e)))
        return PB_E_NOMEM;
    for (uint32_t i = 0; i < c; i++)
        m->e[i].left = -1;
    m->mask = c - 1;
    m->n = 0;
    return 0;
}

void pbi_mergemap_put(pbi_mergemap *m, int32_t left, int32_t right, uint32_t rank, int32_t merged)
{
    uint32_t i = pair_hash(left, right) & m->mask;
    for (; m->e[i].left >= 0; i = (i + 1) & m->mask)
        if (m->e[i].left == left && m->e[i].right == right)
            return;
    m->e[i].left = left;
    m->e[i].right = right;
    m->e[i].rank = rank;
    m->e[i].merged = merged;
    m->n++;
}

const struct pbi_merge *pbi_mergemap_get(const pbi_mergemap *m, int32_t left, int32_t right)
{
    uint32_t i = pair_hash(left, right) & m->mask;
    for (; m->e[i].left >= 0; i = (i + 1) & m->mask)
        if (m->e[i].left == left && m->e[i].right == right)
            return &m->e[i];
    return NULL;
}

static int ids_room(pbi_ids *v, size_t n)
{
    if (v->failed)
        return 0;
    if (v->n + n > v->cap) {
        size_t cap = v->cap ? v->cap * 2 : 64;
        while (cap < v->n + n)
            cap *= 2;
        int32_t *p = realloc(v->id, cap * sizeof *p);
        if (!p) {
            v->failed = 1;
            return 0;
        }
        v->id = p;
        v->cap = cap;
    }
    return 1;
}

void pbi_ids_push(pbi_ids *v, int32_t id)
{
    if (ids_room(v, 1))
        v->id[v->n++] = id;
}

void pbi_ids_repeat(pbi_ids *v, size_t from, size_t n)
{
    if (!n || !ids_room(v, n))
        return;
    memcpy(v->id + v->n, v->id + from, n * sizeof *v->id);
    v->n += n;
}
