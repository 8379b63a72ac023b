/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-common/machine.c - closures, interning and the table of transitions.
 *
 * Sharing of cells keeps right recursion flat: after the last element of a sequence nothing is
 * pushed, so (a b)* needs two cells however long the text is.
 */
#include "machine.h"

#include <stdlib.h>
#include <string.h>

enum { CELLS_PER_STATE = 16, SET_PER_STATE = 32, MAX_POPS = 100000000 };

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

/* Bytes are in one class unless some range begins or ends between them. */
static void find_classes(pbc_machine *m)
{
    uint8_t cut[257] = { 0 };
    for (int32_t i = 0; i < m->g->n_nodes; i++)
        if (m->g->node[i].kind == PBC_BYTE)
            cut[m->g->node[i].lo] = cut[m->g->node[i].hi + 1] = 1;
    m->n_classes = 0;
    for (int32_t b = 0; b < 256; b++) {
        if (b == 0 || cut[b])
            m->sample[m->n_classes++] = (uint8_t)b;
        m->class_of[b] = (uint8_t)(m->n_classes - 1);
    }
}

/* ---- cells ------------------------------------------------------------- */

static uint64_t cell_hash(int32_t node, int32_t parent)
{
    return mix(mix(1, (uint64_t)node), (uint64_t)parent + 1);
}

/* The cell's number, -1 dropped for its depth, or PBC_OVERFLOW. */
static int32_t cell_of(pbc_machine *m, int32_t node, int32_t parent)
{
    uint32_t mask = (uint32_t)m->n_cell_hash - 1, at = (uint32_t)cell_hash(node, parent) & mask;
    for (; m->cell_hash[at]; at = (at + 1) & mask) {
        const pbc_cell *c = &m->cell[m->cell_hash[at] - 1];
        if (c->node == node && c->parent == parent)
            return m->cell_hash[at] - 1;
    }
    int32_t depth = parent < 0 ? 1 : m->cell[parent].depth + 1;
    if (depth > m->max_depth) {
        m->n_dropped++;
        return -1;
    }
    if (m->n_cells == m->max_cells)
        return PBC_OVERFLOW;
    m->cell[m->n_cells] = (pbc_cell){ .node = node, .parent = parent, .depth = depth };
    m->cell_hash[at] = ++m->n_cells;
    return m->n_cells - 1;
}

/* What a closure is doing: work is a stack of cells, out the set that grows at m->set's end. */
typedef struct closure {
    int32_t n_work, n_out, accepts, overflow;
} closure;

static void want(pbc_machine *m, closure *c, int32_t node, int32_t parent)
{
    if (node == 0 && parent < 0) {
        c->accepts = 1;
        return;
    }
    int32_t id = node == 0 ? parent : cell_of(m, node, parent);
    if (id == PBC_OVERFLOW)
        c->overflow = 1;
    if (id < 0 || m->cell[id].seen == m->generation)
        return;
    m->cell[id].seen = m->generation;
    m->work[c->n_work++] = id; /* each cell once, so max_cells are enough */
}

static void expand(pbc_machine *m, closure *c)
{
    while (c->n_work > 0 && !c->overflow) {
        int32_t id = m->work[--c->n_work], parent = m->cell[id].parent;
        const pbc_node *n = &m->g->node[m->cell[id].node];
        m->n_pops++;
        switch (n->kind) {
        case PBC_BYTE:
            if (m->n_set + c->n_out == m->max_set)
                c->overflow = 1;
            else
                m->set[m->n_set + c->n_out++] = id;
            break;
        case PBC_ALT:
            want(m, c, n->a, parent);
            want(m, c, n->b, parent);
            break;
        case PBC_RULE: want(m, c, m->g->rule[n->a].body, parent); break;
        default: { /* CAT: b waits under a */
            int32_t rest = cell_of(m, n->b, parent);
            if (rest == PBC_OVERFLOW)
                c->overflow = 1;
            else if (rest >= 0)
                want(m, c, n->a, rest);
        }
        }
    }
}

/* ---- states ------------------------------------------------------------ */

static int by_number(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* The state of the set at m->set's end: an old one, a new one, DEAD or OVERFLOW. */
static int32_t state_of(pbc_machine *m, const closure *c)
{
    int32_t *s = m->set + m->n_set;
    if (c->overflow)
        return PBC_OVERFLOW;
    if (c->n_out == 0 && !c->accepts)
        return PBC_DEAD;
    qsort(s, (size_t)c->n_out, sizeof *s, by_number);
    uint64_t h = mix(2, (uint64_t)c->accepts);
    for (int32_t i = 0; i < c->n_out; i++)
        h = mix(h, (uint64_t)s[i]);
    uint32_t mask = (uint32_t)m->n_state_hash - 1, at = (uint32_t)h & mask;
    for (; m->state_hash[at]; at = (at + 1) & mask) {
        const pbc_state *t = &m->state[m->state_hash[at] - 1];
        if (t->n == c->n_out && t->accepts == c->accepts &&
            !memcmp(m->set + t->first, s, (size_t)c->n_out * sizeof *s))
            return m->state_hash[at] - 1;
    }
    if (m->n_states == m->max_states)
        return PBC_OVERFLOW;
    m->state[m->n_states] = (pbc_state){ .first = m->n_set, .n = c->n_out, .accepts = c->accepts };
    int32_t *row = m->next + (int64_t)m->n_states * m->n_classes;
    for (int32_t k = 0; k < m->n_classes; k++)
        row[k] = PBC_UNKNOWN;
    m->n_set += c->n_out;
    m->state_hash[at] = ++m->n_states;
    return m->n_states - 1;
}

int32_t pbc_machine_slow_step(pbc_machine *m, int32_t state, int32_t class_of_byte)
{
    closure c = { 0 };
    const pbc_state *s = &m->state[state];
    uint8_t byte = m->sample[class_of_byte];
    m->generation++;
    for (int32_t i = 0; i < s->n && !c.overflow; i++) {
        pbc_cell cell = m->cell[m->set[s->first + i]];
        const pbc_node *n = &m->g->node[cell.node];
        if (byte >= n->lo && byte <= n->hi)
            want(m, &c, 0, cell.parent);
    }
    expand(m, &c);
    int32_t to = state_of(m, &c);
    if (to != PBC_OVERFLOW)
        m->next[(int64_t)state * m->n_classes + class_of_byte] = to;
    return to;
}

/* Moves the cells of a state and all below them to the front, and its set to m->set's start.
 * Parents have lower numbers than what stands on them, before and after. */
static void compact(pbc_machine *m, const pbc_state *s)
{
    int32_t *map = m->work, n = 0;
    for (int32_t i = 0; i < m->n_cells; i++)
        map[i] = -1;
    for (int32_t i = 0; i < s->n; i++)
        for (int32_t c = m->set[s->first + i]; c >= 0 && map[c] < 0; c = m->cell[c].parent)
            map[c] = 0;
    for (int32_t i = 0; i < m->n_cells; i++) {
        if (map[i] < 0)
            continue;
        pbc_cell c = m->cell[i];
        c.parent = c.parent < 0 ? -1 : map[c.parent];
        c.seen = 0;
        m->cell[n] = c;
        map[i] = n++;
    }
    for (int32_t i = 0; i < s->n; i++)
        m->set[i] = map[m->set[s->first + i]];
    m->n_cells = n;
}

int32_t pbc_machine_forget(pbc_machine *m, int32_t keep)
{
    closure c = { 0 };
    uint32_t mask = (uint32_t)m->n_cell_hash - 1;
    if (keep >= 0) {
        c = (closure){ .n_out = m->state[keep].n, .accepts = m->state[keep].accepts };
        compact(m, &m->state[keep]);
    } else {
        m->n_cells = 0;
    }
    m->n_states = m->n_set = 0;
    memset(m->cell_hash, 0, (size_t)m->n_cell_hash * sizeof *m->cell_hash);
    memset(m->state_hash, 0, (size_t)m->n_state_hash * sizeof *m->state_hash);
    for (int32_t i = 0; i < m->n_cells; i++) {
        uint32_t at = (uint32_t)cell_hash(m->cell[i].node, m->cell[i].parent) & mask;
        while (m->cell_hash[at])
            at = (at + 1) & mask;
        m->cell_hash[at] = i + 1;
    }
    if (keep >= 0)
        keep = state_of(m, &c);
    c = (closure){ 0 };
    m->generation = 1;
    want(m, &c, m->g->root, -1);
    expand(m, &c);
    m->start = state_of(m, &c);
    return m->start < 0 ? PBC_OVERFLOW : keep;
}

int pbc_machine_complete(pbc_machine *m, pb_err *err)
{
    for (int32_t s = 0; s < m->n_states; s++)
        for (int32_t k = 0; k < m->n_classes; k++) {
            int32_t to = pbc_machine_slow_step(m, s, k);
            if (to == PBC_OVERFLOW)
                return pbc_fail(err, PB_E_INVAL,
                                "%s: the pattern needs more than max_states = %d states (of 32 "
                                "parts on average); raise it, or lower the repetition counts and "
                                "make alternatives begin "
                                "differently",
                                m->g->who, m->max_states);
            if (m->n_pops > MAX_POPS)
                return pbc_fail(err, PB_E_INVAL,
                                "%s: the pattern is too ambiguous: more than %d steps to compile "
                                "it, %d states so far",
                                m->g->who, MAX_POPS, m->n_states);
        }
    return 0;
}

/* ---- memory ------------------------------------------------------------ */

static void *take(const pbc_machine *m, int64_t n, size_t bytes, const char *tag)
{
    return m->g->host->alloc(m->g->host, (size_t)n * bytes, 0, tag);
}

void pbc_machine_free(pbc_machine *m)
{
    if (!m->g)
        return;
    const pb_host *host = m->g->host;
    void *all[] = { m->cell, m->state, m->set, m->next, m->cell_hash, m->state_hash, m->work };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        host->free(host, all[i]);
    *m = (pbc_machine){ 0 };
}

static int32_t power_above(int64_t n)
{
    int32_t p = 16;
    while (p < n)
        p *= 2;
    return p;
}

int pbc_machine_init(pbc_machine *m, const pbc_grammar *g, int64_t max_states, int64_t max_depth,
                     pb_err *err)
{
    *m = (pbc_machine){ .g = g,
                        .max_states = (int32_t)max_states,
                        .max_depth = (int32_t)max_depth,
                        .max_cells = (int32_t)max_states * CELLS_PER_STATE + 65536,
                        .max_set = (int32_t)max_states * SET_PER_STATE + 65536 };
    find_classes(m);
    m->n_cell_hash = power_above((int64_t)m->max_cells * 2);
    m->n_state_hash = power_above(max_states * 2);
    m->cell = take(m, m->max_cells, sizeof *m->cell, "cells");
    m->state = take(m, max_states, sizeof *m->state, "states");
    m->set = take(m, m->max_set, sizeof *m->set, "sets");
    m->next = take(m, max_states * m->n_classes, sizeof *m->next, "transitions");
    m->cell_hash = take(m, m->n_cell_hash, sizeof *m->cell_hash, "cell numbers");
    m->state_hash = take(m, m->n_state_hash, sizeof *m->state_hash, "state numbers");
    m->work = take(m, m->max_cells, sizeof *m->work, "work");
    if (!m->cell || !m->state || !m->set || !m->next || !m->cell_hash || !m->state_hash ||
        !m->work) {
        pbc_machine_free(m);
        return pbc_fail(err, PB_E_NOMEM, "%s: no memory for max_states = %lld", g->who,
                        (long long)max_states);
    }
    if (pbc_machine_forget(m, -1) != PBC_OVERFLOW)
        return 0;
    pbc_machine_free(m);
    return pbc_fail(err, PB_E_INVAL, "%s: the start alone passes the limits of max_states = %lld",
                    g->who, (long long)max_states);
}
