/* SPDX-License-Identifier: MIT
 *
 * core/ring.c - single-producer single-consumer ring of records: a length word, then the
 * message, padded to 8. A record never wraps: where the end is too near, a skip mark sends the
 * reader to the beginning.
 */
#define _GNU_SOURCE
#include "ring.h"
#include "error.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

struct pbi_ring {
    size_t mapped, size;                /* size: a power of two */
    _Alignas(64) _Atomic uint64_t head; /* written by the writer; both only grow */
    _Alignas(64) _Atomic uint64_t tail; /* written by the reader */
    _Alignas(64) unsigned char data[];
};

enum { SKIP = -1, WORD = 8 };

int pbi_ring_new(size_t bytes, pbi_ring **out, pb_err *err)
{
    size_t size = 4096;
    while (size < bytes && size < (size_t)1 << 40)
        size *= 2;
    size_t mapped = sizeof(pbi_ring) + size;
    pbi_ring *r = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (r == MAP_FAILED)
        return pbi_err(err, PB_E_NOMEM, "no shared memory for a ring of %zu bytes", size);
    r->mapped = mapped;
    r->size = size;
    *out = r;
    return 0;
}

void pbi_ring_free(pbi_ring *r)
{
    if (r)
        munmap(r, r->mapped);
}

size_t pbi_ring_max(const pbi_ring *r)
{
    return r->size / 2 - WORD;
}

static size_t record(size_t bytes)
{
    return WORD + (bytes + 7) / 8 * 8;
}

int pbi_ring_put(pbi_ring *r, const void *msg, size_t bytes)
{
    if (bytes > pbi_ring_max(r))
        return PB_E_INVAL;
    uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_acquire);
    size_t at = (size_t)(head & (r->size - 1)), need = record(bytes);
    size_t skip = at + need > r->size ? r->size - at : 0;
    if (need + skip > r->size - (size_t)(head - tail))
        return PB_E_FULL;
    int64_t word = SKIP;
    if (skip) {
        memcpy(r->data + at, &word, WORD);
        at = 0;
    }
    word = (int64_t)bytes;
    memcpy(r->data + at, &word, WORD);
    memcpy(r->data + at + WORD, msg, bytes);
    atomic_store_explicit(&r->head, head + skip + need, memory_order_release);
    return 0;
}

const void *pbi_ring_peek(pbi_ring *r, size_t *bytes)
{
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    int64_t word;
    for (;;) {
        if (atomic_load_explicit(&r->head, memory_order_acquire) == tail)
            return NULL;
        size_t at = (size_t)(tail & (r->size - 1));
        memcpy(&word, r->data + at, WORD);
        if (word != SKIP) {
            *bytes = (size_t)word;
            return r->data + at + WORD;
        }
        tail += r->size - at;
        atomic_store_explicit(&r->tail, tail, memory_order_release);
    }
}

void pbi_ring_pop(pbi_ring *r)
{
    size_t bytes;
    if (!pbi_ring_peek(r, &bytes))
        return;
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    atomic_store_explicit(&r->tail, tail + record(bytes), memory_order_release);
}

void pbi_ring_reset(pbi_ring *r)
{
    atomic_store(&r->tail, atomic_load(&r->head));
}
