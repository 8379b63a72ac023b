/* SPDX-License-Identifier: MIT
 *
 * core/clock.c - the engine's clock, real or virtual.
 */
#define _GNU_SOURCE
#include "clock.h"
#include "error.h"

#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>

struct pbi_clock {
    pb_clock service;
    int is_virtual;
    _Atomic int64_t now;
};

static int advance(void *h, int64_t ns)
{
    pbi_clock *c = h;
    if (!c->is_virtual)
        return PB_E_STATE;
    if (ns < 0)
        return PB_E_INVAL;
    atomic_fetch_add(&c->now, ns);
    return 0;
}

int pbi_clock_new(int is_virtual, pbi_clock **out, pb_err *err)
{
    pbi_clock *c = mmap(NULL, sizeof *c, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (c == MAP_FAILED)
        return pbi_err(err, PB_E_NOMEM, "no shared memory for a clock");
    c->is_virtual = is_virtual;
    c->service = (pb_clock){ .size = sizeof(pb_clock), .h = c, .advance = advance };
    *out = c;
    return 0;
}

void pbi_clock_free(pbi_clock *c)
{
    if (c)
        munmap(c, sizeof *c);
}

int pbi_clock_is_virtual(const pbi_clock *c)
{
    return c->is_virtual;
}

int64_t pbi_clock_now(void *clock)
{
    pbi_clock *c = clock;
    struct timespec ts;
    if (c->is_virtual)
        return atomic_load(&c->now);
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void pbi_clock_reach(pbi_clock *c, int64_t ns)
{
    int64_t now = atomic_load(&c->now);
    while (c->is_virtual && now < ns && !atomic_compare_exchange_weak(&c->now, &now, ns)) {}
}

const pb_clock *pbi_clock_service(const pbi_clock *c)
{
    return &c->service;
}
