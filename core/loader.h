/* SPDX-License-Identifier: MIT
 *
 * core/loader.h - finds, opens and inspects plugins; knows nothing of pipelines.
 * Invariant: a library that was handed out passed all checks of its descriptor, was
 * opened from a private copy named by content hash, and is never closed.
 */
#ifndef PBI_LOADER_H
#define PBI_LOADER_H
#include <patchbay/plugin.h>

typedef struct pbi_library {
    const char *slot, *name; /* "attention", "paged" */
    char *path;              /* file it came from, or "(built in)" */
    uint64_t hash;           /* xxh3 of the file; of the descriptor's strings if built in */
    const pb_plugin *desc;   /* normalised copy: never shorter than this core's pb_plugin */
} pbi_library;

/* Opens plugin `name` of `slot` by search order: PATCHBAY_PLUGIN_PATH (colon separated), the
 * build folder when the program runs from there, pkglibdir; built-in ones before all. A name
 * containing '/' is a path. Errors name the file, the reason and the nearest known name. Equal
 * content gives the same library. [main] */
int pbi_loader_open(const char *slot, const char *name, const pbi_library **out, pb_err *err);
/* The same for a file, whatever its slot (lint). */
int pbi_loader_open_file(const char *path, const pbi_library **out, pb_err *err);
/* All plugins that the search path offers; *out is an array of n, owned by the loader. Broken
 * ones are reported through on_bad (may be NULL). */
int pbi_loader_list(const pbi_library *const **out, int *n,
                    void (*on_bad)(void *arg, const char *path, const pb_err *why), void *arg);
/* vtable of interface id, or NULL */
const void *pbi_library_iface(const pbi_library *lib, const char *id);
/* "attention" -> "attention/1"; NULL for an unknown slot. Slots in INI order: pbi_slots[0..n). */
const char *pbi_slot_iface(const char *slot);
extern const char *const pbi_slots[];
extern const int pbi_n_slots;
#endif
