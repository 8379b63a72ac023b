/* SPDX-License-Identifier: MIT
 *
 * core/account.c - blocks of one plugin instance in a table by address, so that a leak has a
 * name and a wrong free is refused instead of corrupting the heap.
 * Test: tests/unit/test_instance.c.
 */
#define _GNU_SOURCE 1
#include "account.h"
#include <patchbay/base.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 };

struct pbi_block {
    pbi_block *next;
    void *p;
    size_t bytes, mapped; /* mapped: 0 = from the heap */
    const char *tag;
};

void pbi_log(int level, const char *slot, const char *name, const char *msg)
{
    static const char *const words[] = { "debug", "info", "warn", "error" };
    const char *env = getenv("PATCHBAY_LOG");
    int least = PB_LOG_WARN;
    for (int i = 0; env && i < 4; i++)
        if (strcmp(env, words[i]) == 0)
            least = i;
    if (level < least || level > PB_LOG_ERROR)
        return;
    fprintf(stderr, "patchbay: %s%s%s%s%s\n", slot ? slot : "", slot && name ? "-" : "",
            name ? name : "", slot || name ? ": " : "", msg);
}

static void say(const pbi_account *a, int level, const char *msg)
{
    pbi_log(level, a->owner_slot, a->owner_name, msg);
}

static pbi_block **bucket(pbi_account *a, const void *p)
{
    uint64_t h = (uint64_t)(uintptr_t)p * 0x9E3779B97F4A7C15u;
    return &a->buckets[h >> 58];
}

/* Whole huge pages, aligned to one: a mapping with slack whose ends are given back. */
static void *map_huge(size_t bytes, size_t align, size_t *mapped)
{
    size_t unit = align > HUGE_PAGE ? align : HUGE_PAGE;
    if (bytes > SIZE_MAX - 2 * unit)
        return NULL;
    size_t n = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    char *p = mmap(NULL, n + unit, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    size_t lead = (unit - (uintptr_t)p % unit) % unit;
    if (lead)
        munmap(p, lead);
    if (unit - lead)
        munmap(p + lead + n, unit - lead);
    madvise(p + lead, n, MADV_HUGEPAGE); /* advice: systems without it still work */
    *mapped = n;
    return p + lead;
}

void *pbi_account_alloc(pbi_account *a, size_t bytes, size_t align, const char *tag)
{
    if (a->fail_at > 0 && --a->fail_at == 0)
        return NULL;
    if (!align)
        align = 64;
    if (align & (align - 1) || bytes > SIZE_MAX / 4 || align > SIZE_MAX / 4)
        return NULL;
    if (align < sizeof(void *))
        align = sizeof(void *);
    pbi_block *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->bytes = bytes;
    b->tag = tag ? tag : "untagged";
    if (bytes >= HUGE_PAGE)
        b->p = map_huge(bytes, align, &b->mapped);
    else if (posix_memalign(&b->p, align, bytes ? bytes : 1) == 0)
        memset(b->p, 0, bytes ? bytes : 1);
    else
        b->p = NULL;
    if (!b->p) {
        free(b);
        return NULL;
    }
    pbi_block **at = bucket(a, b->p);
    b->next = *at;
    *at = b;
    a->n_blocks++;
    *a->now += (int64_t)bytes;
    if (*a->now > *a->peak)
        *a->peak = *a->now;
    return b->p;
}

static void drop(pbi_account *a, pbi_block *b)
{
    *a->now -= (int64_t)b->bytes;
    a->n_blocks--;
    if (b->mapped)
        munmap(b->p, b->mapped);
    else
        free(b->p);
    free(b);
}

void pbi_account_free(pbi_account *a, void *p)
{
    if (!p)
        return;
    for (pbi_block **at = bucket(a, p); *at; at = &(*at)->next)
        if ((*at)->p == p) {
            pbi_block *b = *at;
            *at = b->next;
            drop(a, b);
            return;
        }
    say(a, PB_LOG_ERROR, "frees memory that it does not have; ignored");
}

int64_t pbi_account_drain(pbi_account *a)
{
    int64_t bytes = 0;
    for (size_t i = 0; i < sizeof a->buckets / sizeof *a->buckets; i++)
        while (a->buckets[i]) {
            pbi_block *b = a->buckets[i];
            char msg[200];
            snprintf(msg, sizeof msg, "did not free %zu bytes ('%.80s')", b->bytes, b->tag);
            say(a, PB_LOG_WARN, msg);
            bytes += (int64_t)b->bytes;
            a->buckets[i] = b->next;
            drop(a, b);
        }
    return bytes;
}
