/* SPDX-License-Identifier: MIT
 *
 * core/calls.c - who is being called: the word that names the plugin and function at work,
 * times and counts, the call log. Test: tests/unit/test_instance.c.
 */
#define _GNU_SOURCE 1
#include "calls.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

_Thread_local const pbi_call *volatile pbi_call_now;

static _Atomic int tracing;
static char logged[256]; /* slots; set before engines run */

static _Thread_local const pbi_call *spoiler;

void pbi_call_spoiled(void)
{
    pbi_fp_restore();
    if (!spoiler)
        spoiler = pbi_call_now;
}

const pbi_call *pbi_call_spoiler(void)
{
    const pbi_call *c = spoiler;
    spoiler = NULL;
    return c;
}

pbi_call_stat *pbi_call_stat_get(pbi_instance *in, const char *function)
{
    pbi_shared *s = pbi_instance_shared(in);
    for (int i = 0; i < s->n_calls; i++)
        if (strcmp(s->calls[i].call.function, function) == 0)
            return &s->calls[i];
    if (s->n_calls == PBI_MAX_CALLS)
        return &s->calls[PBI_MAX_CALLS - 1];
    pbi_call_stat *c = &s->calls[s->n_calls];
    const pbi_use *u = pbi_instance_use(in);
    c->call = (pbi_call){ .slot = u->slot, .name = u->name, .function = function };
    if (s->n_calls + 1 == PBI_MAX_CALLS)
        c->call.function = "(others)";
    if (s->n_calls)
        c[-1].next = c;
    s->n_calls++;
    return c;
}

const pbi_call_stat *pbi_call_stats(const pbi_instance *in)
{
    const pbi_shared *s = pbi_instance_shared((pbi_instance *)(uintptr_t)in);
    return s->n_calls ? s->calls : NULL;
}

void pbi_shared_clear_calls(pbi_shared *s)
{
    for (int i = 0; i < s->n_calls; i++) {
        atomic_store_explicit(&s->calls[i].n, 0, memory_order_relaxed);
        atomic_store_explicit(&s->calls[i].ns, 0, memory_order_relaxed);
    }
}

void pbi_trace_enable(int on)
{
    atomic_store_explicit(&tracing, on, memory_order_relaxed);
}

int64_t pbi_trace_now(void)
{
    if (!atomic_load_explicit(&tracing, memory_order_relaxed))
        return 0;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void pbi_calls_log(const char *slots)
{
    snprintf(logged, sizeof logged, "%s", slots ? slots : "");
}

int pbi_calls_logged(const pbi_instance *in)
{
    if (!logged[0])
        return 0;
    const pbi_use *u = pbi_instance_use(in);
    size_t n = strlen(u->slot);
    for (const char *p = logged; *p;) {
        size_t k = strcspn(p, ",");
        if ((k == n && memcmp(p, u->slot, n) == 0) || (k == 3 && memcmp(p, "all", 3) == 0))
            return 1;
        p += k + (p[k] == ',');
    }
    return 0;
}

void pbi_calls_print(const pbi_instance *in, const char *function, int64_t result, const char *fmt,
                     ...)
{
    const pbi_use *u = pbi_instance_use(in);
    char args[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(args, sizeof args, fmt, ap);
    va_end(ap);
    /* one write, so that lines of several threads stay whole */
    fprintf(stderr, "%s-%s.%s(%s) -> %" PRId64 "\n", u->slot, u->name, function, args, result);
}
