/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-common/analyse.c - what a grammar must be before a machine runs it: every
 * rule defined, able to end, and not beginning with itself.
 *
 * Left recursion: an edge leads from a node to those that may come next before any byte. A cycle
 * through the first part of a sequence would push its second part for ever. Cycles without such
 * a part (a repetition of something that may be empty) are harmless: the machine has seen them.
 * Everything is iterative, since grammars come from files and may be deep.
 */
#include "grammar.h"

#include <string.h>

enum { CAN_END = 1, NULLABLE = 2 };

/* CAN_END: derives some text; NULLABLE: derives the empty one. To a fixed point. */
static void mark(const pbc_grammar *g, uint8_t *is)
{
    for (int changed = 1; changed;) {
        changed = 0;
        for (int32_t i = 0; i < g->n_nodes; i++) {
            const pbc_node *n = &g->node[i];
            uint8_t m = n->kind == PBC_EMPTY  ? CAN_END | NULLABLE
                        : n->kind == PBC_BYTE ? CAN_END
                        : n->kind == PBC_CAT  ? is[n->a] & is[n->b]
                        : n->kind == PBC_ALT  ? is[n->a] | is[n->b]
                                              : is[g->rule[n->a].body];
            changed |= m != is[i];
            is[i] = m;
        }
    }
}

/* k-th node that may come next before any byte, or -1 */
static int32_t left_edge(const pbc_grammar *g, const uint8_t *is, int32_t i, int k)
{
    const pbc_node *n = &g->node[i];
    if (n->kind == PBC_RULE)
        return k == 0 ? g->rule[n->a].body : -1;
    if (n->kind == PBC_ALT)
        return k == 0 ? n->a : k == 1 ? n->b : -1;
    if (n->kind == PBC_CAT)
        return k == 0 ? n->a : k == 1 && is[n->a] & NULLABLE ? n->b : -1;
    return -1;
}

/* Tarjan's strongly connected components with a stack of its own. comp[i]: component number */
typedef struct tarjan {
    int32_t *index, *low, *comp, *stack, *call;
    uint8_t *edge;
    int32_t n_index, n_stack, n_comp;
} tarjan;

static void visit(const pbc_grammar *g, const uint8_t *is, tarjan *t, int32_t from)
{
    int32_t depth = 0;
    t->call[0] = from;
    t->edge[from] = 0;
    t->index[from] = t->low[from] = ++t->n_index;
    t->stack[t->n_stack++] = from;
    while (depth >= 0) {
        int32_t v = t->call[depth], w = left_edge(g, is, v, t->edge[v]);
        if (w >= 0) {
            t->edge[v]++;
            if (!t->index[w]) {
                t->index[w] = t->low[w] = ++t->n_index;
                t->stack[t->n_stack++] = w;
                t->edge[w] = 0;
                t->call[++depth] = w;
            } else if (!t->comp[w] && t->index[w] < t->low[v]) {
                t->low[v] = t->index[w];
            }
            continue;
        }
        if (t->low[v] == t->index[v]) {
            t->n_comp++;
            do
                t->comp[t->stack[--t->n_stack]] = t->n_comp;
            while (t->stack[t->n_stack] != v);
        }
        if (--depth >= 0 && t->low[v] < t->low[t->call[depth]])
            t->low[t->call[depth]] = t->low[v];
    }
}

static const char *rule_in(const pbc_grammar *g, const int32_t *comp, int32_t c)
{
    for (int32_t i = 0; i < g->n_nodes; i++)
        if (comp[i] == c && g->node[i].kind == PBC_RULE && g->rule[g->node[i].a].name[0])
            return g->rule[g->node[i].a].name;
    return NULL;
}

static int left_recursion(const pbc_grammar *g, const uint8_t *is, const int32_t *comp, pb_err *err)
{
    for (int32_t i = 0; i < g->n_nodes; i++) {
        const pbc_node *n = &g->node[i];
        int pushes = n->kind == PBC_CAT && comp[n->a] == comp[i];
        int loops = n->kind == PBC_RULE && g->rule[n->a].name[0] &&
                    comp[g->rule[n->a].body] == comp[i] && !(is[i] & NULLABLE);
        const char *name = pushes || loops ? rule_in(g, comp, comp[i]) : NULL;
        if (name)
            return pbc_fail(err, PB_E_INVAL,
                            "%s: rule %s is left-recursive: it begins with itself; write it as a "
                            "repetition, or with the recursion at its end",
                            g->who, name);
        if (pushes)
            return pbc_fail(err, PB_E_INVAL, "%s: a repetition begins with itself", g->who);
    }
    return 0;
}

static int check_left(const pbc_grammar *g, const uint8_t *is, pb_err *err)
{
    size_t n = (size_t)g->n_nodes;
    int32_t *mem = g->host->alloc(g->host, n * (5 * sizeof *mem + 1), 0, "analysis");
    if (!mem)
        return pbc_fail(err, PB_E_NOMEM, "%s: no memory to check the grammar", g->who);
    tarjan t = { .index = mem,
                 .low = mem + n,
                 .comp = mem + 2 * n,
                 .stack = mem + 3 * n,
                 .call = mem + 4 * n,
                 .edge = (uint8_t *)(mem + 5 * n) };
    for (int32_t i = 0; i < g->n_nodes; i++)
        if (!t.index[i])
            visit(g, is, &t, i);
    int rc = left_recursion(g, is, t.comp, err);
    g->host->free(g->host, mem);
    return rc;
}

static int check_rules(const pbc_grammar *g, const uint8_t *is, int32_t root, pb_err *err)
{
    for (int32_t i = g->n_rules - 1; i >= 0; i--) /* the last is nearer to the cause */
        if (g->rule[i].name[0] && !(is[g->rule[i].body] & CAN_END))
            return pbc_fail(err, PB_E_INVAL,
                            "%s: rule %s (line %d) matches nothing: it never ends, or an empty "
                            "class is in it",
                            g->who, g->rule[i].name, g->rule[i].line);
    for (int32_t i = 0; i < g->n_nodes; i++)
        if (!(is[i] & CAN_END))
            return pbc_fail(err, PB_E_INVAL, "%s: a part of it matches nothing: an empty class",
                            g->who);
    if (!(is[root] & CAN_END))
        return pbc_fail(err, PB_E_INVAL, "%s: it matches nothing", g->who);
    return 0;
}

int pbc_grammar_finish(pbc_grammar *g, int32_t root, pb_err *err)
{
    if (g->failed)
        return pbc_fail(err, PB_E_INVAL,
                        "%s: too large: more than %d nodes or %d rules; lower the repetition "
                        "counts",
                        g->who, PBC_MAX_NODES, PBC_MAX_RULES);
    for (int32_t i = 0; i < g->n_rules; i++)
        if (g->rule[i].body < 0)
            return pbc_fail(err, PB_E_INVAL, "%s: line %d: rule %s is not defined", g->who,
                            g->rule[i].line, g->rule[i].name);
    uint8_t *is = g->host->alloc(g->host, (size_t)g->n_nodes, 0, "marks");
    if (!is)
        return pbc_fail(err, PB_E_NOMEM, "%s: no memory to check the grammar", g->who);
    mark(g, is);
    int rc = check_rules(g, is, root, err);
    if (!rc)
        rc = check_left(g, is, err);
    g->host->free(g->host, is);
    g->root = root;
    return rc;
}
