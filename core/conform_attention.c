/* SPDX-License-Identifier: MIT
 *
 * core/conform_attention.c - a model-based run of an attention plugin, without a device.
 *
 * A page's cells hold, instead of K and V, the hash of all tokens up to their position: what a
 * row would compute from, so that a page with foreign content cannot look right. Each round
 * admits, grows with drafts, preempts, fails, aborts and finishes sequences with common
 * beginnings, in the order of calls that the engine keeps. Free pages are wiped.
 * Invariant checked: before a row is computed, every position that it may read holds the hash
 * of its own sequence's tokens, and what it writes belongs to it alone.
 */
#define _GNU_SOURCE 1
#include "conform_checks.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SEQS = PBI_RIG_SEQS,
    CTX = PBI_RIG_CTX,
    MAX_GROUPS = 2,
    FAMILIES = 4,
    TOKEN_BYTES = 16,
    WINDOW = 24,
    MAX_DRAFT = 4
};

typedef struct mseq {
    pb_seq v;
    int running;
    int32_t tokens[CTX + MAX_DRAFT];
    uint64_t hash[CTX + MAX_DRAFT]; /* of tokens[0..i] */
    int64_t n_feed, n_draft;        /* of the step being built; n_feed 0: not in it */
} mseq;

typedef struct model {
    const pb_attention *att;
    pbi_rig rig;
    pbi_pages *pool;
    int32_t n_groups;
    pb_kv_group group[MAX_GROUPS];
    pb_kv_plan plan[MAX_GROUPS];
    uint64_t *cell[MAX_GROUPS]; /* [n_pages * page_tokens]; 0: nothing */
    int64_t budget;
    uint64_t rng, next_id;
    mseq seq[SEQS];
    int32_t order[SEQS], n_running; /* running slots, oldest first */
    int64_t step, n_cached, n_full, n_reuse_checks;
    pb_page table[MAX_GROUPS][CTX + 1];
    pb_err *err;
} model;

static int wrong(model *m, const mseq *s, const char *fmt, ...) PBI_PRINTF(3, 4);
static int wrong(model *m, const mseq *s, const char *fmt, ...)
{
    char text[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (s)
        return pbi_err(m->err, PB_E_PLUGIN,
                       "step %lld, sequence %llu (%lld tokens, %lld valid): %s", (long long)m->step,
                       (unsigned long long)s->v.id, (long long)s->v.n_tokens,
                       (long long)s->v.n_valid, text);
    return pbi_err(m->err, PB_E_PLUGIN, "step %lld: %s", (long long)m->step, text);
}

/* After each call: misuse of the pool, overrun blocks. */
static int after(model *m, const mseq *s, const char *function)
{
    pb_err e = { 0 };
    pbi_rig_at(&m->rig, NULL);
    if (pbi_pages_fault(m->pool, &e))
        return wrong(m, s, "%s: %.200s", function, e.msg);
    if (m->rig.fault[0])
        return wrong(m, s, "%s: %.150s", function, m->rig.fault);
    return 0;
}

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15ull;
    return (h ^ (h >> 29)) | 1;
}

static int64_t below(model *m, int64_t n)
{
    return pbi_rig_below(&m->rng, n);
}

static void put_token(mseq *s, int64_t at, int32_t token)
{
    s->tokens[at] = token;
    s->hash[at] = mix(at ? s->hash[at - 1] : s->v.cache_key * 77, (uint64_t)token + 1);
}

/* A waiting sequence: a cut of one of few texts, then, mostly, an ending of its own. */
static void new_seq(model *m, int32_t slot)
{
    mseq *s = &m->seq[slot];
    *s = (mseq){ 0 };
    int family = (int)below(m, FAMILIES);
    int64_t common = below(m, 3) ? 1 + below(m, 100) : 48, own = below(m, 3) ? below(m, 20) : 0;
    s->v = (pb_seq){ .size = sizeof s->v,
                     .id = m->next_id++,
                     .cache_key = 1 + (uint64_t)(below(m, 8) == 0),
                     .slot = slot,
                     .state = PB_SEQ_WAITING,
                     .flags = below(m, 10) == 0 ? PB_SEQ_ALL_LOGITS : 0,
                     .tokens = s->tokens,
                     .n_tokens = common + own,
                     .n_prompt = common + own,
                     .n_left = common + own,
                     .max_new = 1 + below(m, 40) };
    for (int64_t i = 0; i < s->v.n_tokens; i++)
        put_token(s, i, (int32_t)(i < common ? (i * i + family * 7) % 11 : below(m, 3)));
}

static int poison(void *arg, int32_t g, pb_page page)
{
    model *m = arg;
    int32_t n = m->plan[g].page_tokens;
    memset(m->cell[g] + (size_t)page * (size_t)n, 0, (size_t)n * sizeof(uint64_t));
    return 0;
}

/* ---- tables ------------------------------------------------------------ */

static int read_table(model *m, mseq *s, int64_t n_end)
{
    for (int32_t g = 0; g < m->n_groups; g++) {
        int32_t cap = (CTX + m->plan[g].page_tokens - 1) / m->plan[g].page_tokens;
        memset(m->table[g], 0x7f, sizeof m->table[g]);
        pbi_rig_at(&m->rig, "table");
        int32_t n = m->att->table(m->rig.self, &s->v, g, m->table[g], cap);
        if (after(m, s, "table"))
            return PB_E_PLUGIN;
        if (n < 0 || n > cap)
            return wrong(m, s, "table() of group %d returns %d pages, cap is %d", g, n, cap);
        if ((int64_t)n * m->plan[g].page_tokens < n_end)
            return wrong(m, s, "table() of group %d has %d pages of %d tokens, %lld were reserved",
                         g, n, m->plan[g].page_tokens, (long long)n_end);
        for (int32_t i = 0; i < n; i++)
            if (m->table[g][i] < 0 || m->table[g][i] >= m->plan[g].n_pages)
                return wrong(m, s, "table() of group %d names page %d of %d", g, m->table[g][i],
                             m->plan[g].n_pages);
    }
    return 0;
}

static uint64_t *cell(model *m, int32_t g, int64_t pos)
{
    int32_t n = m->plan[g].page_tokens;
    return &m->cell[g][(size_t)m->table[g][pos / n] * (size_t)n + (size_t)(pos % n)];
}

/* Positions [0, n) hold the sequence's own tokens, as far back as row `first` looks. */
static int check_content(model *m, mseq *s, int64_t first, int64_t n, const char *when)
{
    for (int32_t g = 0; g < m->n_groups; g++) {
        int64_t from = m->group[g].window ? first - m->group[g].window + 1 : 0;
        for (int64_t p = from > 0 ? from : 0; p < n; p++) {
            uint64_t c = *cell(m, g, p);
            if (c != s->hash[p])
                return wrong(m, s, "%s, position %lld of group %d (page %d) holds %s", when,
                             (long long)p, g, m->table[g][p / m->plan[g].page_tokens],
                             c ? "other tokens" : "nothing");
        }
    }
    return 0;
}

/* ---- calls ------------------------------------------------------------- */

static int release(model *m, mseq *s, int32_t why)
{
    for (int twice = 0; twice < 2; twice++) {
        pbi_rig_at(&m->rig, "release");
        m->att->release(m->rig.self, &s->v, why);
        if (after(m, s, twice ? "release (again)" : "release"))
            return PB_E_PLUGIN;
    }
    int32_t k = 0;
    for (int32_t i = 0; i < m->n_running; i++)
        if (m->order[i] != s->v.slot)
            m->order[k++] = m->order[i];
    m->n_running = k;
    s->running = 0;
    s->v.n_valid = 0;
    s->v.n_left = s->v.n_tokens;
    s->n_feed = s->n_draft = 0;
    s->v.state = PB_SEQ_WAITING;
    return 0;
}

static int admit(model *m, mseq *s)
{
    int64_t inflight = 0;
    pbi_rig_at(&m->rig, "match");
    int64_t n_match = m->att->match(m->rig.self, &s->v, &inflight);
    pbi_rig_at(&m->rig, "attach");
    int64_t n = m->att->attach(m->rig.self, &s->v);
    if (after(m, s, "attach"))
        return PB_E_PLUGIN;
    int64_t most = s->v.flags & PB_SEQ_ALL_LOGITS ? 0 : s->v.n_tokens - 1;
    if (n < 0 || n > most)
        return wrong(m, s, "attach() returns %lld cached tokens, at most %lld may be", (long long)n,
                     (long long)most);
    if (n > n_match)
        return wrong(m, s, "attach() returns %lld cached tokens, match() found %lld", (long long)n,
                     (long long)n_match);
    s->v.n_valid = n;
    s->v.n_left = s->v.n_tokens - n;
    s->v.state = PB_SEQ_RUNNING;
    s->running = 1;
    m->order[m->n_running++] = s->v.slot;
    m->n_cached += n;
    if (n == 0)
        return 0;
    if (read_table(m, s, n))
        return PB_E_PLUGIN;
    m->n_reuse_checks++;
    return check_content(m, s, n, n, "after attach()");
}

/* reserve() for s; when full, preempts the youngest after it. 1: s cannot run now. */
static int reserve(model *m, mseq *s, int64_t n_end)
{
    static pb_page before[MAX_GROUPS][CTX + 1];
    for (;;) {
        int had = s->v.n_valid > 0;
        if (had && read_table(m, s, s->v.n_valid))
            return PB_E_PLUGIN;
        memcpy(before, m->table, sizeof before);
        pbi_rig_at(&m->rig, "reserve");
        int rc = m->att->reserve(m->rig.self, &s->v, n_end);
        if (after(m, s, "reserve"))
            return PB_E_PLUGIN;
        if (rc == 0)
            return 0;
        if (rc != PB_E_FULL)
            return wrong(m, s, "reserve(%lld) returns %d", (long long)n_end, rc);
        m->n_full++;
        if (had) {
            if (read_table(m, s, s->v.n_valid))
                return PB_E_PLUGIN;
            for (int32_t g = 0; g < m->n_groups; g++)
                if (memcmp(before[g], m->table[g],
                           (size_t)((s->v.n_valid - 1) / m->plan[g].page_tokens + 1) *
                               sizeof(pb_page)))
                    return wrong(m, s, "reserve() is full, yet it changed the table of group %d",
                                 g);
        }
        mseq *youngest = &m->seq[m->order[m->n_running - 1]];
        if (m->n_running == 1)
            return wrong(m, s,
                         "reserve(%lld) is full though no other sequence runs; the plan "
                         "promised one of %d tokens",
                         (long long)n_end, CTX);
        if (youngest == s)
            return 1;
        if (release(m, youngest, PB_REL_PREEMPTED))
            return PB_E_PLUGIN;
    }
}

/* ---- a step ------------------------------------------------------------ */

static int build(model *m)
{
    for (int32_t i = 0; i < m->n_running; i++) {
        mseq *s = &m->seq[m->order[i]];
        s->n_feed = s->n_draft = 0;
        if (below(m, 8) == 0)
            continue;
        int64_t n = below(m, 2) ? s->v.n_left : 1 + below(m, s->v.n_left), d = 0;
        if (n == s->v.n_left)
            d = below(m, MAX_DRAFT);
        if (s->v.n_valid + n + d > CTX)
            d = 0;
        int rc = reserve(m, s, s->v.n_valid + n + d);
        if (rc < 0)
            return rc;
        if (rc > 0)
            continue;
        s->n_feed = n;
        s->n_draft = d;
        for (int64_t k = 0; k < d; k++)
            put_token(s, s->v.n_tokens + k, (int32_t)below(m, 3));
    }
    return 0;
}

/* [n_valid, end) of s may be written: it has the only reference. A queued copy may still read
 * the page: copies run before rows. */
static int check_private(model *m, mseq *s, int64_t end)
{
    for (int32_t g = 0; g < m->n_groups; g++) {
        int32_t n = m->plan[g].page_tokens;
        for (int64_t p = s->v.n_valid; p < end; p += n - p % n) {
            pb_page page = m->table[g][p / n];
            if (page == 0)
                return wrong(m, s, "group %d: position %lld lies in the sink", g, (long long)p);
            if (pbi_pages_refs(m->pool, g, page) != 1)
                return wrong(m, s,
                             "group %d: writes page %d, which has %d references: a copy on write "
                             "is missing",
                             g, page, pbi_pages_refs(m->pool, g, page));
        }
    }
    return 0;
}

static void run_copies(model *m)
{
    int32_t n;
    const pb_copy *c = pbi_pages_copies(m->pool, &n);
    for (int32_t i = 0; i < n; i++) {
        size_t t = (size_t)m->plan[c[i].group].page_tokens;
        uint64_t *p = m->cell[c[i].group];
        memcpy(p + (size_t)c[i].dst * t, p + (size_t)c[i].src * t,
               (size_t)c[i].n_tokens * sizeof *p);
    }
}

/* Writes all rows of the step, then looks at what each row could read. */
static int run(model *m)
{
    run_copies(m);
    for (int32_t i = 0; i < m->n_running; i++) {
        mseq *s = &m->seq[m->order[i]];
        int64_t end = s->v.n_valid + s->n_feed + s->n_draft;
        if (!s->n_feed)
            continue;
        if (read_table(m, s, end) || check_private(m, s, end))
            return PB_E_PLUGIN;
        for (int32_t g = 0; g < m->n_groups; g++)
            for (int64_t p = s->v.n_valid; p < end; p++)
                *cell(m, g, p) = s->hash[p];
    }
    for (int32_t i = 0; i < m->n_running; i++) {
        mseq *s = &m->seq[m->order[i]];
        int64_t end = s->v.n_valid + s->n_feed + s->n_draft;
        if (s->n_feed &&
            (read_table(m, s, end) || check_content(m, s, s->v.n_valid, end, "in the step")))
            return PB_E_PLUGIN;
    }
    pbi_pages_step_done(m->pool);
    return after(m, NULL, "the step's end");
}

/* The step of s succeeded: some drafts are accepted, a token is drawn. */
static int accept(model *m, mseq *s)
{
    int64_t kept = s->n_draft ? below(m, s->n_draft + 1) : 0, fed = s->v.n_valid + s->n_feed + kept;
    int64_t reserved = s->v.n_valid + s->n_feed + s->n_draft;
    if (s->n_feed == s->v.n_left) {
        s->v.n_tokens += kept;
        if (s->v.n_tokens < CTX)
            put_token(s, s->v.n_tokens++, (int32_t)below(m, 3));
    }
    s->v.n_valid = fed;
    s->v.n_left = s->v.n_tokens - fed;
    pbi_rig_at(&m->rig, "commit");
    m->att->commit(m->rig.self, &s->v, fed);
    if (after(m, s, "commit"))
        return PB_E_PLUGIN;
    if (fed < reserved) {
        pbi_rig_at(&m->rig, "truncate");
        m->att->truncate(m->rig.self, &s->v, fed);
        if (after(m, s, "truncate"))
            return PB_E_PLUGIN;
    }
    s->n_feed = s->n_draft = 0;
    int done = s->v.n_left == 0 || s->v.n_tokens >= CTX ||
               s->v.n_tokens - s->v.n_prompt >= s->v.max_new || below(m, 60) == 0;
    if (!done)
        return 0;
    if (release(m, s, below(m, 2) ? PB_REL_FINISHED : PB_REL_ABORTED))
        return PB_E_PLUGIN;
    new_seq(m, s->v.slot);
    return 0;
}

static int one_step(model *m)
{
    for (int32_t slot = 0; slot < SEQS; slot++)
        if (!m->seq[slot].running && below(m, 4) == 0 && admit(m, &m->seq[slot]))
            return PB_E_PLUGIN;
    if (build(m) || run(m))
        return PB_E_PLUGIN;
    int fail = below(m, 50) == 0; /* the device failed: nothing of the step holds */
    for (int32_t slot = 0; slot < SEQS; slot++) {
        mseq *s = &m->seq[slot];
        if (s->running && s->n_feed && (fail ? release(m, s, PB_REL_FAILED) : accept(m, s)))
            return PB_E_PLUGIN;
    }
    for (int32_t g = 0; g < m->n_groups; g++) {
        pbi_rig_at(&m->rig, "idle");
        int32_t idle = m->att->idle ? m->att->idle(m->rig.self, g) : 0;
        pbi_rig_at(&m->rig, NULL);
        if (idle < 0 || idle + pbi_pages_n_free(m->pool, g) > m->plan[g].n_pages - 1)
            return wrong(m, NULL, "idle() of group %d says %d, %d of %d pages are free", g, idle,
                         pbi_pages_n_free(m->pool, g), m->plan[g].n_pages - 1);
    }
    return 0;
}

static int release_all(model *m, int32_t why)
{
    while (m->n_running > 0)
        if (release(m, &m->seq[m->order[m->n_running - 1]], why))
            return PB_E_PLUGIN;
    pb_err e = { 0 };
    pbi_rig_at(&m->rig, "check");
    int rc = m->att->check(m->rig.self, &e);
    if (after(m, NULL, "check"))
        return PB_E_PLUGIN;
    return rc ? wrong(m, NULL, "check() when idle: %.200s", e.msg) : 0;
}

/* ---- the run ----------------------------------------------------------- */

/* Starts the instance and plans; equal arguments must give an equal plan. */
static int start(model *m, int again)
{
    pb_kv_plan plan[MAX_GROUPS];
    int rc = pbi_rig_create(&m->rig, m->err);
    if (!rc)
        rc = pbi_rig_start(&m->rig, m->err);
    if (rc)
        return rc;
    pbi_rig_at(&m->rig, "plan");
    rc = m->att->plan(m->rig.self, m->n_groups, m->group, m->budget, CTX, plan, m->err);
    pbi_rig_at(&m->rig, NULL);
    if (rc)
        return rc;
    int64_t bytes = 0;
    for (int32_t g = 0; g < m->n_groups; g++) {
        if (plan[g].page_tokens < 1 || plan[g].n_pages < 2)
            return wrong(m, NULL, "plan() gives %d pages of %d tokens", plan[g].n_pages,
                         plan[g].page_tokens);
        bytes += (int64_t)plan[g].n_pages * plan[g].page_tokens * m->group[g].token_bytes;
    }
    if (bytes > m->budget)
        return wrong(m, NULL, "plan() uses %lld bytes of a budget of %lld", (long long)bytes,
                     (long long)m->budget);
    if (again && memcmp(plan, m->plan, (size_t)m->n_groups * sizeof *plan))
        return wrong(m, NULL, "plan() gives another plan for equal arguments");
    memcpy(m->plan, plan, sizeof plan);
    return 0;
}

/* Destroyed and created anew between two steps, as a swap does. */
static int renew(model *m)
{
    if (release_all(m, PB_REL_SWAPPED))
        return PB_E_PLUGIN;
    int64_t left = pbi_rig_destroy(&m->rig);
    if (left)
        return wrong(m, NULL, "destroy() left %lld bytes of host memory", (long long)left);
    pbi_pages_clear(m->pool);
    return start(m, 1);
}

static int open_model(model *m, const pbi_library *lib, int n_set, const char *const *set,
                      uint64_t seed)
{
    m->rng = seed;
    m->next_id = 1;
    m->att = pbi_library_iface(lib, "attention/1");
    m->n_groups = 1 + (int32_t)(seed % 2);
    for (int32_t g = 0; g < m->n_groups; g++)
        m->group[g] = (pb_kv_group){ .size = sizeof(pb_kv_group),
                                     .kind = PB_KV_GQA,
                                     .n_layers = 2,
                                     .window = g == 1 ? WINDOW : 0,
                                     .granule = 1,
                                     .token_bytes = TOKEN_BYTES };
    /* from one sequence of full length and a bit to four */
    m->budget = (int64_t)m->n_groups * TOKEN_BYTES * CTX * (5 + (int64_t)(seed / 2 % 4) * 2) / 2;
    int rc = pbi_pages_new("attention", &m->pool, m->err);
    m->rig.pages = m->pool ? pbi_pages_service(m->pool) : NULL;
    if (!rc)
        rc = pbi_rig_init(&m->rig, lib, n_set, set, m->err);
    if (!rc)
        rc = start(m, 0);
    if (!rc)
        rc = pbi_pages_plan(m->pool, m->n_groups, m->group, m->plan, m->err);
    for (int32_t g = 0; !rc && g < m->n_groups; g++) {
        m->cell[g] =
            calloc((size_t)m->plan[g].n_pages * (size_t)m->plan[g].page_tokens, sizeof(uint64_t));
        if (!m->cell[g])
            rc = pbi_err(m->err, PB_E_NOMEM, "out of memory");
    }
    if (!rc)
        pbi_pages_poison(m->pool, poison, m);
    return rc;
}

int pbi_conform_attention(const pbi_library *lib, int n_set, const char *const *set, uint64_t seed,
                          int n_steps, pb_err *err)
{
    model *m = calloc(1, sizeof *m);
    if (!m)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    m->err = err;
    int rc = open_model(m, lib, n_set, set, seed);
    for (int32_t slot = 0; !rc && slot < SEQS; slot++)
        new_seq(m, slot);
    for (m->step = 1; !rc && m->step <= n_steps; m->step++) {
        rc = one_step(m);
        if (!rc && below(m, 40) == 0)
            rc = release_all(m, PB_REL_ABORTED);
        if (!rc && below(m, 150) == 0)
            rc = renew(m);
    }
    if (!rc)
        rc = release_all(m, PB_REL_FINISHED);
    if (!rc) { /* what is left idle must give way to one sequence of full length */
        new_seq(m, 0);
        mseq *s = &m->seq[0];
        while (s->v.n_tokens < CTX)
            put_token(s, s->v.n_tokens++, (int32_t)below(m, 3));
        rc = admit(m, s);
        if (!rc)
            rc = reserve(m, s, CTX) ? PB_E_PLUGIN : 0;
        if (!rc)
            rc = release_all(m, PB_REL_FINISHED);
    }
    pb_err e = { 0 };
    if (m->rig.lib && pbi_rig_done(&m->rig, &e) && !rc)
        rc = pbi_err(err, PB_E_PLUGIN, "%s", e.msg);
    for (int32_t g = 0; g < MAX_GROUPS; g++)
        free(m->cell[g]);
    pbi_pages_free(m->pool);
    free(m);
    return rc;
}

/* ---- lint -------------------------------------------------------------- */

int pbi_pages_bench_new(pbi_pages_bench *b, const pbi_library *lib, pb_err *err)
{
    *b = (pbi_pages_bench){ 0 };
    if (strcmp(lib->slot, "attention") != 0)
        return 0;
    const pb_kv_group g = {
        .size = sizeof g, .kind = PB_KV_GQA, .n_layers = 1, .granule = 1, .token_bytes = 4
    };
    const pb_kv_plan plan = { .page_tokens = 8, .n_pages = 64 };
    int rc = pbi_pages_new(lib->name, &b->pool, err);
    if (!rc)
        rc = pbi_pages_plan(b->pool, 1, &g, &plan, err);
    b->service = rc ? NULL : pbi_pages_service(b->pool);
    return rc;
}

void pbi_pages_bench_free(pbi_pages_bench *b)
{
    pbi_pages_free(b->pool);
    *b = (pbi_pages_bench){ 0 };
}

int pbi_check_attention(pbi_lint *l)
{
    for (uint64_t k = 0; k < 12; k++) {
        pb_err err = { 0 };
        int rc = pbi_conform_attention(l->lib, 0, NULL, l->seed + k, 250, &err);
        if (rc)
            return pbi_say(l, PBI_FAIL, "seed %llu: %s", (unsigned long long)(l->seed + k),
                           err.msg);
    }
    return PBI_PASS;
}
