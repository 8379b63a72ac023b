/* SPDX-License-Identifier: MIT
 *
 * core/inspect.h - checks a descriptor and makes the copies that the core works with.
 * Opens no file and calls no plugin function. Invariant: after pbi_inspect, every
 * function of the copies may be called without a test for NULL.
 */
#ifndef PBI_INSPECT_H
#define PBI_INSPECT_H
#include "error.h"
#include <patchbay/plugin.h>

/* The prefix that never changes: magic and size, then the layout. size_avail: bytes known to be
 * readable at d. PB_E_PLUGIN with what to rebuild. */
int pbi_inspect_head(const pb_plugin *d, size_t size_avail, pb_err *err);
/* Slot, name and the other fields that every plugin has. */
int pbi_inspect_identity(const pb_plugin *d, pb_err *err);
/* Identity, tables, interfaces. *out: a copy with optional functions filled by defaults and with
 * writable copies of all vtables; never freed, like the library it comes from. */
int pbi_inspect(const pb_plugin *d, const pb_plugin **out, pb_err *err);
/* Copy of vtable `id` with defaults; PB_E_PLUGIN names a missing function. Unknown ids ("org.x/1")
 * are passed through unseen. */
int pbi_iface_normalise(const char *id, const void *vtbl, const void **out, pb_err *err);
#endif
