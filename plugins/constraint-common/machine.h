/* SPDX-License-Identifier: MIT
 *
 * plugins/constraint-common/machine.h - runs a grammar byte by byte: a state is a set of stacks.
 *
 * A cell is (node, parent cell): a node to do and what follows it; equal cells have one number. A
 * state is a sorted set of cells that wait for a byte, with one more bit: may the text end here?
 * Equal sets have one number (found by hash), so a table next[state][class of byte] remembers
 * every transition, and without recursion the machine is a DFA.
 *
 * Bounded: states, cells, members of sets, depth of stacks. A transition that would pass
 * max_depth drops that stack. Passing another bound is PBC_OVERFLOW: pbc_machine_forget and try
 * again. All memory is taken by init. Not thread-safe.
 */
#ifndef PBC_MACHINE_H
#define PBC_MACHINE_H
#include "grammar.h"

enum { PBC_DEAD = -1, PBC_UNKNOWN = -2, PBC_OVERFLOW = -3 };

typedef struct pbc_cell {
    int32_t node, parent, depth, seen; /* parent -1: then the text may end */
} pbc_cell;

typedef struct pbc_state {
    int32_t first, n; /* of set */
    int32_t accepts;
} pbc_state;

typedef struct pbc_machine {
    const pbc_grammar *g;
    uint8_t class_of[256], sample[256]; /* bytes that no range tells apart; one byte of each */
    int32_t n_classes, start;
    int32_t max_states, max_cells, max_set, max_depth;
    int32_t n_states, n_cells, n_set, generation;
    pbc_cell *cell;
    pbc_state *state;
    int32_t *set, *next;             /* next: [max_states][n_classes] */
    int32_t *cell_hash, *state_hash; /* open addressing, number + 1 */
    int32_t n_cell_hash, n_state_hash;
    int32_t *work;             /* cells to expand */
    int64_t n_dropped, n_pops; /* stacks that passed max_depth; effort */
} pbc_machine;

/* [main] g is finished and stays valid. 0 or an error that names the limit. */
int pbc_machine_init(pbc_machine *m, const pbc_grammar *g, int64_t max_states, int64_t max_depth,
                     pb_err *err);
void pbc_machine_free(pbc_machine *m);
/* [main] All transitions of all states, for machines without recursion: 0, or PB_E_INVAL. */
int pbc_machine_complete(pbc_machine *m, pb_err *err);
/* Forgets all states but this one (-1: none) and the start; returns its new number (-1: the start
 * is there), or PBC_OVERFLOW. */
int32_t pbc_machine_forget(pbc_machine *m, int32_t keep);
int32_t pbc_machine_slow_step(pbc_machine *m, int32_t state, int32_t class_of_byte);

/* The state after a byte, PBC_DEAD or PBC_OVERFLOW. state >= 0 */
static inline int32_t pbc_machine_step(pbc_machine *m, int32_t state, uint8_t byte)
{
    int32_t c = m->class_of[byte], to = m->next[(int64_t)state * m->n_classes + c];
    return to != PBC_UNKNOWN ? to : pbc_machine_slow_step(m, state, c);
}
#endif
