/* SPDX-License-Identifier: MIT
 *
 * core/layers.h - what a chain of INI files and --set texts say, last word wins, before
 * any plugin is looked at. Knows slots, knows no option. Invariant: each (slot, name, key)
 * occurs once, with the place where it was last written.
 */
#ifndef PBI_LAYERS_H
#define PBI_LAYERS_H
#include "inifile.h"

typedef struct pbi_word { /* one key, as written */
    const char *slot;     /* of pbi_slots, or "pipeline" */
    char *name;           /* list slots: which of its plugins; else NULL */
    char *key, *value, *origin;
    int used, orphan; /* orphan: written before a later layer replaced the plugin */
} pbi_word;

typedef struct pbi_layers {
    int n_words;
    pbi_word *words;
} pbi_layers;

/* The plugin that fills a slot which no one names; NULL: the slot stays empty. */
const char *pbi_slot_default(const char *slot);
/* constraint, output, kernels */
int pbi_slot_is_list(const char *slot);
/* Reads the chain of bases below text (path: its name). Errors carry file:line. */
int pbi_layers_read(const char *text, size_t n, const char *path, pbi_layers *out, pb_err *err);
int pbi_layers_set(pbi_layers *l, int n_set, const char *const *set, pb_err *err);
/* The word, or NULL; name NULL for slots of one plugin. */
pbi_word *pbi_layers_find(const pbi_layers *l, const char *slot, const char *name, const char *key);
void pbi_layers_free(pbi_layers *l);
/* The next name of a comma separated list at *p, trimmed, into buf; 0 at the end. */
int pbi_list_next(const char **p, char *buf, size_t n);
#endif
