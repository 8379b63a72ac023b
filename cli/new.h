/* SPDX-License-Identifier: MIT
 * cli/new.h - texts of `patchbay new`: a plugin's source is head, slot's head, slot's body, life,
 * slot's tail, descriptor. @SLOT@, @NAME@ and the slot's
 * @STATE@, @START@, @STOP@, @LIST@ are replaced. */
#ifndef PBI_NEW_H
#define PBI_NEW_H

typedef struct pbi_new_slot {
    const char *slot;
    const char *state, *start, *stop; /* fields of the instance; code in start() and destroy() */
    const char *head;                 /* one line: what the plainest plugin of the slot does */
    const char *body;                 /* the slot's functions */
    const char *tail;                 /* vtable and ifaces */
} pbi_new_slot;

/* NULL: no skeleton for this slot */
const pbi_new_slot *pbi_new_find(const char *slot);
extern const char pbi_new_head[], pbi_new_life[], pbi_new_descriptor[], pbi_new_makefile[],
    pbi_new_readme[], pbi_new_ini[];
#endif
