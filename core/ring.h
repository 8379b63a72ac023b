/* SPDX-License-Identifier: MIT
 *
 * core/ring.h - a queue of messages for one writer and one reader, in memory that both sides
 * of a fork share; the same inline.
 *
 * Messages lie whole and aligned to 8 in the ring, so that the reader uses them in place.
 * Invariant: a message is seen whole or not at all, also if the writer dies in between.
 */
#ifndef PBI_RING_H
#define PBI_RING_H
#include <patchbay/base.h>

typedef struct pbi_ring pbi_ring;
/* bytes: capacity, rounded up to a power of two. [main] */
int pbi_ring_new(size_t bytes, pbi_ring **out, pb_err *err);
void pbi_ring_free(pbi_ring *r); /* NULL allowed */
/* The longest message that this ring can ever take. */
size_t pbi_ring_max(const pbi_ring *r);
/* Writer: 0; PB_E_FULL: later, nothing was written; PB_E_INVAL: longer than pbi_ring_max. */
int pbi_ring_put(pbi_ring *r, const void *msg, size_t bytes);
/* Reader: the next message in place, valid until pop; NULL: none. */
const void *pbi_ring_peek(pbi_ring *r, size_t *bytes);
void pbi_ring_pop(pbi_ring *r);
/* Empties it. No other side may be using it (the peer is dead). */
void pbi_ring_reset(pbi_ring *r);
#endif
