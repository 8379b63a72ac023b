/* SPDX-License-Identifier: MIT
 *
 * core/calls.h - what instance.c and calls.c share: the block of an instance that survives
 * a fork. Not for others. Invariant: it holds no pointer that differs between processes
 * forked from one parent (literals and its own addresses do not).
 */
#ifndef PBI_CALLS_H
#define PBI_CALLS_H
#include "instance.h"

enum { PBI_MAX_CALLS = 48 }; /* functions of a plugin that are called; the last is for the rest */

typedef struct pbi_shared {
    int64_t now, peak; /* bytes of the memory account */
    int32_t n_calls, reserved;
    pbi_call_stat calls[PBI_MAX_CALLS];
} pbi_shared;

pbi_shared *pbi_instance_shared(pbi_instance *in);
void pbi_shared_clear_calls(pbi_shared *s);
#endif
