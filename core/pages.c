/* SPDX-License-Identifier: MIT
 *
 * core/pages.c - the page pool. Free pages are a stack, so that the order in which pages are
 * given is a function of the calls alone and recently used memory is used again.
 */
#include "pages.h"
#include "instance.h"
#include <stdlib.h>
#include <string.h>

typedef struct group {
    pb_kv_plan plan;
    int64_t page_bytes;
    int32_t *refs;   /* [n_pages] held by the plugin */
    int32_t *pins;   /* [n_pages] queued copies that read the page */
    int32_t *filled; /* [n_pages] */
    pb_page *free;   /* [n_free] stack */
    int32_t n_free;
} group;

struct pbi_pages {
    char *owner;
    pb_pages service;
    int32_t n_groups, limit;
    group *g;
    pb_copy *copies;
    int32_t n_copies, cap_copies;
    int64_t used, peak;
    int (*poison)(void *arg, int32_t group, pb_page page);
    void *poison_arg;
    pb_err fault;
};

/* ---- misuse ----------------------------------------------------------- */

static void misuse(pbi_pages *p, const char *what, int32_t g, pb_page page, const char *why)
{
    const pbi_call *c = pbi_call_now;
    if (p->fault.code)
        return; /* the first one is the cause */
    pbi_err(&p->fault, PB_E_PLUGIN, "%s: %s of page %d of group %d in %s: %s", p->owner, what, page,
            g, c && c->function ? c->function : "no call", why);
}

/* the group of a page that may be touched, or NULL after recording the misuse */
static group *page_of(pbi_pages *p, const char *what, int32_t g, pb_page page)
{
    if (g < 0 || g >= p->n_groups) {
        misuse(p, what, g, page, "no such group");
        return NULL;
    }
    if (page <= 0 || page >= p->g[g].plan.n_pages) {
        misuse(p, what, g, page,
               page == 0 ? "page 0 is the sink" : "the pool has no such page number");
        return NULL;
    }
    return &p->g[g];
}

/* ---- the free list ---------------------------------------------------- */

static void became_free(pbi_pages *p, int32_t gi, pb_page page)
{
    group *g = &p->g[gi];
    g->free[g->n_free++] = page;
    p->used -= g->page_bytes;
    if (p->poison && p->poison(p->poison_arg, gi, page) < 0)
        misuse(p, "poison", gi, page, "the backend refused");
}

static int32_t available(const pbi_pages *p, const group *g)
{
    int32_t taken, room;
    if (!p->limit)
        return g->n_free;
    taken = g->plan.n_pages - 1 - g->n_free;
    room = p->limit - taken;
    return room < 0 ? 0 : room < g->n_free ? room : g->n_free;
}

static int svc_take(void *h, int32_t gi, int32_t n, pb_page *out)
{
    pbi_pages *p = h;
    group *g;
    if (gi < 0 || gi >= p->n_groups || n < 0) {
        misuse(p, "take", gi, n, "no such group, or a negative number");
        return PB_E_INVAL;
    }
    g = &p->g[gi];
    if (n > available(p, g))
        return PB_E_FULL;
    for (int32_t i = 0; i < n; i++) {
        out[i] = g->free[--g->n_free];
        g->refs[out[i]] = 1;
        g->filled[out[i]] = 0;
    }
    p->used += n * g->page_bytes;
    if (p->used > p->peak)
        p->peak = p->used;
    return 0;
}

static void svc_ref(void *h, int32_t gi, pb_page page)
{
    pbi_pages *p = h;
    group *g = page_of(p, "ref", gi, page);
    if (!g)
        return;
    if (g->refs[page] <= 0)
        misuse(p, "ref", gi, page, "the page is free");
    else
        g->refs[page]++;
}

static void unpin(pbi_pages *p, int32_t gi, pb_page page)
{
    group *g = &p->g[gi];
    if (--g->pins[page] == 0 && g->refs[page] == 0)
        became_free(p, gi, page);
}

/* a copy into a page that nobody holds any more must not run: the page may be given to another */
static void cancel_copies(pbi_pages *p, int32_t gi, pb_page dst)
{
    int32_t keep = 0, n = p->n_copies;
    for (int32_t i = 0; i < n; i++) {
        pb_copy c = p->copies[i];
        if (c.group == gi && c.dst == dst)
            unpin(p, gi, c.src);
        else
            p->copies[keep++] = c;
    }
    p->n_copies = keep;
}

static void svc_unref(void *h, int32_t gi, pb_page page)
{
    pbi_pages *p = h;
    group *g = page_of(p, "unref", gi, page);
    if (!g)
        return;
    if (g->refs[page] <= 0) {
        misuse(p, "unref", gi, page, "the page is free");
        return;
    }
    if (--g->refs[page] > 0)
        return;
    if (p->n_copies)
        cancel_copies(p, gi, page);
    if (g->pins[page] == 0)
        became_free(p, gi, page);
}

static int32_t svc_refs(void *h, int32_t gi, pb_page page)
{
    pbi_pages *p = h;
    group *g = page_of(p, "refs", gi, page);
    return g ? g->refs[page] : 0;
}

static int32_t svc_n_free(void *h, int32_t gi)
{
    pbi_pages *p = h;
    if (gi < 0 || gi >= p->n_groups) {
        misuse(p, "n_free", gi, 0, "no such group");
        return 0;
    }
    return available(p, &p->g[gi]);
}

static const char *bad_copy(const pbi_pages *p, const group *g, int32_t gi, pb_page src,
                            pb_page dst, int32_t n_tokens)
{
    if (n_tokens < 1 || n_tokens > g->plan.page_tokens)
        return "n_tokens is not in 1..page_tokens";
    if (src == dst)
        return "source and target are one page";
    if (g->refs[src] <= 0 && g->pins[src] <= 0)
        return "the source is free";
    if (g->refs[dst] != 1)
        return "the target does not have exactly one reference";
    for (int32_t i = 0; i < p->n_copies; i++) {
        if (p->copies[i].group == gi && p->copies[i].dst == src)
            return "the source is the target of a copy in the same step";
        if (p->copies[i].group == gi && p->copies[i].dst == dst)
            return "the target has a copy in this step already";
    }
    return NULL;
}

static void svc_copy(void *h, int32_t gi, pb_page src, pb_page dst, int32_t n_tokens)
{
    pbi_pages *p = h;
    group *g = page_of(p, "copy", gi, src);
    const char *why;
    if (!g || !page_of(p, "copy to", gi, dst))
        return;
    why = bad_copy(p, g, gi, src, dst, n_tokens);
    if (why) {
        misuse(p, "copy", gi, dst, why);
        return;
    }
    if (p->n_copies == p->cap_copies) {
        int32_t cap = p->cap_copies ? p->cap_copies * 2 : 64;
        pb_copy *c = realloc(p->copies, (size_t)cap * sizeof *c);
        if (!c) {
            misuse(p, "copy", gi, dst, "out of memory");
            return;
        }
        p->copies = c;
        p->cap_copies = cap;
    }
    p->copies[p->n_copies++] =
        (pb_copy){ .group = gi, .src = src, .dst = dst, .n_tokens = n_tokens };
    g->pins[src]++;
}

/* ---- life ------------------------------------------------------------- */

static void drop_groups(pbi_pages *p)
{
    for (int32_t i = 0; i < p->n_groups; i++) {
        free(p->g[i].refs);
        free(p->g[i].pins);
        free(p->g[i].filled);
        free(p->g[i].free);
    }
    free(p->g);
    p->g = NULL;
    p->n_groups = 0;
    p->n_copies = 0;
    p->used = p->peak = 0;
}

int pbi_pages_new(const char *owner, pbi_pages **out, pb_err *err)
{
    pbi_pages *p = calloc(1, sizeof *p);
    size_t n = strlen(owner) + 1;
    if (!p || !(p->owner = malloc(n))) {
        free(p);
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    }
    memcpy(p->owner, owner, n);
    p->service = (pb_pages){ .size = sizeof(pb_pages),
                             .h = p,
                             .take = svc_take,
                             .ref = svc_ref,
                             .unref = svc_unref,
                             .refs = svc_refs,
                             .n_free = svc_n_free,
                             .copy = svc_copy };
    *out = p;
    return 0;
}

/* all pages free; page 1 is given first */
static void fill(group *g)
{
    g->n_free = g->plan.n_pages - 1;
    for (int32_t i = 0; i < g->n_free; i++)
        g->free[i] = g->plan.n_pages - 1 - i;
    memset(g->refs, 0, (size_t)g->plan.n_pages * sizeof *g->refs);
    memset(g->pins, 0, (size_t)g->plan.n_pages * sizeof *g->pins);
    memset(g->filled, 0, (size_t)g->plan.n_pages * sizeof *g->filled);
}

int pbi_pages_plan(pbi_pages *p, int32_t n_groups, const pb_kv_group *kg, const pb_kv_plan *plan,
                   pb_err *err)
{
    drop_groups(p);
    p->g = calloc((size_t)n_groups + 1, sizeof *p->g);
    if (!p->g)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    p->n_groups = n_groups;
    for (int32_t i = 0; i < n_groups; i++) {
        group *g = &p->g[i];
        size_t n = (size_t)plan[i].n_pages;
        g->plan = plan[i];
        g->page_bytes = kg[i].token_bytes * plan[i].page_tokens;
        g->refs = calloc(n, sizeof *g->refs);
        g->pins = calloc(n, sizeof *g->pins);
        g->filled = calloc(n, sizeof *g->filled);
        g->free = calloc(n, sizeof *g->free);
        if (!g->refs || !g->pins || !g->filled || !g->free) {
            drop_groups(p);
            return pbi_err(err, PB_E_NOMEM, "out of memory for %zu pages of group %d", n, i);
        }
        fill(g);
    }
    return 0;
}

void pbi_pages_free(pbi_pages *p)
{
    if (!p)
        return;
    drop_groups(p);
    free(p->copies);
    free(p->owner);
    free(p);
}

const pb_pages *pbi_pages_service(const pbi_pages *p)
{
    return &p->service;
}

void pbi_pages_poison(pbi_pages *p, int (*fn)(void *arg, int32_t group, pb_page page), void *arg)
{
    p->poison = fn;
    p->poison_arg = arg;
}

int64_t pbi_pages_clear(pbi_pages *p)
{
    int64_t left = 0;
    for (int32_t i = 0; i < p->n_groups; i++) {
        group *g = &p->g[i];
        for (pb_page q = 1; q < g->plan.n_pages; q++) {
            if (!g->refs[q] && !g->pins[q])
                continue;
            left++;
            if (p->poison && p->poison(p->poison_arg, i, q) < 0)
                misuse(p, "poison", i, q, "the backend refused");
        }
        fill(g);
    }
    p->n_copies = 0;
    p->used = 0;
    return left;
}

int pbi_pages_fault(pbi_pages *p, pb_err *err)
{
    int code = p->fault.code;
    if (!code)
        return 0;
    if (err)
        *err = p->fault;
    p->fault.code = 0;
    return code;
}

/* ---- the step --------------------------------------------------------- */

const pb_copy *pbi_pages_copies(const pbi_pages *p, int32_t *n)
{
    *n = p->n_copies;
    return p->copies;
}

void pbi_pages_step_done(pbi_pages *p)
{
    int32_t n = p->n_copies;
    p->n_copies = 0;
    for (int32_t i = 0; i < n; i++)
        unpin(p, p->copies[i].group, p->copies[i].src);
}

/* ---- reading ---------------------------------------------------------- */

int32_t pbi_pages_groups(const pbi_pages *p)
{
    return p->n_groups;
}

const pb_kv_plan *pbi_pages_planned(const pbi_pages *p, int32_t g)
{
    return &p->g[g].plan;
}

static int known(const pbi_pages *p, int32_t g, pb_page page)
{
    return g >= 0 && g < p->n_groups && page > 0 && page < p->g[g].plan.n_pages;
}

int32_t pbi_pages_refs(const pbi_pages *p, int32_t g, pb_page page)
{
    return known(p, g, page) ? p->g[g].refs[page] : -1;
}

int32_t pbi_pages_pins(const pbi_pages *p, int32_t g, pb_page page)
{
    return known(p, g, page) ? p->g[g].pins[page] : -1;
}

int32_t pbi_pages_n_free(const pbi_pages *p, int32_t g)
{
    return g >= 0 && g < p->n_groups ? available(p, &p->g[g]) : 0;
}

int32_t pbi_pages_n_unused(const pbi_pages *p, int32_t g)
{
    return p->g[g].n_free;
}

int32_t *pbi_pages_filled(pbi_pages *p, int32_t g)
{
    return p->g[g].filled;
}

int64_t pbi_pages_bytes_used(const pbi_pages *p)
{
    return p->used;
}

double pbi_pages_token_bytes(const pbi_pages *p)
{
    double sum = 0;
    for (int32_t i = 0; i < p->n_groups; i++)
        sum += (double)p->g[i].page_bytes / p->g[i].plan.page_tokens;
    return sum;
}

int64_t pbi_pages_bytes_peak(const pbi_pages *p)
{
    return p->peak;
}

void pbi_pages_peak_reset(pbi_pages *p)
{
    p->peak = p->used;
}

void pbi_pages_limit(pbi_pages *p, int32_t n)
{
    p->limit = n;
}
