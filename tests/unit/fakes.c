/* SPDX-License-Identifier: MIT
 * tests/unit/fakes.c - see fakes.h. Written to be read, not to be fast. */
#include "fakes.h"

#include <string.h>

/* ---- @donor ----------------------------------------------------------- */

enum { MAX_GROUPS = 4, MAX_BLOCKS = 512 };

typedef struct donor_config {
    int64_t page_size, bug;
} donor_config;

typedef struct row {
    int32_t active, n_blocks;
    pb_page page[MAX_GROUPS][MAX_BLOCKS], stale[MAX_GROUPS];
    uint64_t key;
    int64_t n; /* tokens whose KV others may use */
    int32_t *tokens;
} row;

typedef struct donor {
    const pb_host *host;
    const pb_pages *pages;
    const donor_config *cfg;
    int32_t n_groups, pt, max_seqs, max_ctx;
    row *row;
} donor;

static int donor_create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    donor *d = host->alloc(host, sizeof *d, 0, "donor");
    d->host = host;
    d->cfg = cfg;
    d->pages = host->get(host, "pages/1");
    *self = d;
    return 0;
}

static int donor_start(void *self, const pb_run *run, pb_err *err)
{
    donor *d = self;
    d->max_seqs = run->max_seqs;
    d->max_ctx = run->max_ctx;
    d->row = d->host->alloc(d->host, (size_t)run->max_seqs * sizeof *d->row, 0, "rows");
    for (int32_t i = 0; i < run->max_seqs; i++)
        d->row[i].tokens =
            d->host->alloc(d->host, ((size_t)run->max_ctx + 1) * sizeof(int32_t), 0, "tokens");
    return 0;
}

static void donor_destroy(void *self)
{
    donor *d = self;
    for (int32_t i = 0; i < d->max_seqs; i++)
        d->host->free(d->host, d->row[i].tokens);
    d->host->free(d->host, d->row);
    d->host->free(d->host, d);
}

static int donor_plan(void *self, int32_t n_groups, const pb_kv_group *g, int64_t budget,
                      int32_t max_ctx, pb_kv_plan *out, pb_err *err)
{
    donor *d = self;
    int64_t each = 0;
    d->n_groups = n_groups;
    d->pt = (int32_t)d->cfg->page_size;
    for (int32_t i = 0; i < n_groups; i++)
        each += g[i].token_bytes;
    for (int32_t i = 0; i < n_groups; i++)
        out[i] = (pb_kv_plan){ d->pt, (pb_page)(budget / each / d->pt) };
    return 0;
}

static int64_t common(const donor *d, const pb_seq *s, const row *r)
{
    int64_t n = 0, most = s->n_tokens - 1;
    if (!r->active || r->key != s->cache_key || s->flags & PB_SEQ_ALL_LOGITS)
        return 0;
    while (n < most && n < r->n && s->tokens[n] == r->tokens[n])
        n++;
    return n;
}

static int64_t donor_match(void *self, const pb_seq *s, int64_t *n_inflight)
{
    donor *d = self;
    int64_t best = 0;
    for (int32_t i = 0; i < d->max_seqs; i++) {
        int64_t n = common(d, s, &d->row[i]);
        best = n > best ? n : best;
    }
    *n_inflight = 0;
    return best;
}

static int64_t donor_attach(void *self, const pb_seq *s)
{
    donor *d = self;
    row *r = &d->row[s->slot], *from = NULL;
    int64_t best = 0;
    for (int32_t i = 0; i < d->max_seqs; i++) {
        int64_t n = i == s->slot ? 0 : common(d, s, &d->row[i]);
        if (n > best) {
            best = n;
            from = &d->row[i];
        }
    }
    r->active = 1;
    r->key = s->cache_key;
    r->n = 0;
    r->n_blocks = (int32_t)((best + d->pt - 1) / d->pt);
    for (int32_t g = 0; g < d->n_groups; g++) {
        r->stale[g] = 0;
        for (int32_t b = 0; b < r->n_blocks; b++) {
            r->page[g][b] = from->page[g][b];
            d->pages->ref(d->pages->h, g, r->page[g][b]);
        }
    }
    return best;
}

/* the block that is written first has other readers */
static int shared_tail(const donor *d, const row *r, int64_t n_valid)
{
    int64_t b = n_valid / d->pt;
    return b < r->n_blocks && d->pages->refs(d->pages->h, 0, r->page[0][b]) > 1;
}

static void replace_tail(donor *d, row *r, int64_t n_valid)
{
    int64_t b = n_valid / d->pt, bug = d->cfg->bug;
    int32_t n = (int32_t)(n_valid % d->pt) - (bug == BUG_SHORT_COPY);
    for (int32_t g = 0; g < d->n_groups; g++) {
        pb_page old = r->page[g][b], fresh;
        d->pages->take(d->pages->h, g, 1, &fresh);
        if (n > 0 && bug != BUG_FORGETS_COPY)
            d->pages->copy(d->pages->h, g, old, fresh, n);
        d->pages->unref(d->pages->h, g, old);
        if (bug == BUG_UNREF_TWICE)
            d->pages->unref(d->pages->h, g, old);
        r->page[g][b] = fresh;
        r->stale[g] = old;
    }
}

static int donor_reserve(void *self, const pb_seq *s, int64_t n_end)
{
    donor *d = self;
    row *r = &d->row[s->slot];
    int32_t need = (int32_t)((n_end + d->pt - 1) / d->pt) - r->n_blocks, copy;
    need = need < 0 ? 0 : need;
    copy = n_end > s->n_valid && d->cfg->bug != BUG_WRITES_SHARED && shared_tail(d, r, s->n_valid);
    for (int32_t g = 0; g < d->n_groups; g++)
        if (d->pages->n_free(d->pages->h, g) < need + copy)
            return PB_E_FULL;
    if (copy)
        replace_tail(d, r, s->n_valid);
    for (int32_t g = 0; g < d->n_groups; g++)
        d->pages->take(d->pages->h, g, need, &r->page[g][r->n_blocks]);
    r->n_blocks += need;
    return 0;
}

static int32_t donor_table(void *self, const pb_seq *s, int32_t g, pb_page *out, int32_t cap)
{
    donor *d = self;
    const row *r = &d->row[s->slot];
    int32_t n = r->n_blocks < cap ? r->n_blocks : cap;
    if (d->cfg->bug == BUG_SHORT_TABLE && n > 1)
        n--;
    memcpy(out, r->page[g], (size_t)n * sizeof *out);
    if (d->cfg->bug == BUG_STALE_TABLE && r->stale[g] && s->n_valid / d->pt < n)
        out[s->n_valid / d->pt] = r->stale[g];
    return n;
}

static void donor_commit(void *self, const pb_seq *s, int64_t n)
{
    donor *d = self;
    row *r = &d->row[s->slot];
    memcpy(r->tokens, s->tokens, (size_t)n * sizeof *r->tokens);
    r->n = n;
    memset(r->stale, 0, sizeof r->stale);
}

static void drop_blocks(donor *d, row *r, int32_t keep)
{
    for (int32_t g = 0; g < d->n_groups; g++)
        for (int32_t b = keep; b < r->n_blocks; b++)
            if (d->cfg->bug != BUG_LEAK || keep || b)
                d->pages->unref(d->pages->h, g, r->page[g][b]);
    if (r->n_blocks > keep)
        r->n_blocks = keep;
}

static void donor_truncate(void *self, const pb_seq *s, int64_t n)
{
    donor *d = self;
    row *r = &d->row[s->slot];
    drop_blocks(d, r, (int32_t)((n + d->pt - 1) / d->pt));
    if (r->n > n)
        r->n = n;
}

static void donor_release(void *self, const pb_seq *s, int32_t why)
{
    donor *d = self;
    if (s->slot < 0)
        return;
    drop_blocks(d, &d->row[s->slot], 0);
    d->row[s->slot].active = 0;
    d->row[s->slot].n = 0;
}

static int donor_check(void *self, pb_err *err)
{
    donor *d = self;
    for (int32_t i = 0; i < d->max_seqs; i++)
        if (d->row[i].active || d->row[i].n_blocks) {
            err->code = PB_E_INTERNAL;
            strcpy(err->msg, "donor: a row is in use while idle");
            return PB_E_INTERNAL;
        }
    return 0;
}

static const pb_attention donor_vtbl = { .size = sizeof(pb_attention),
                                         .plan = donor_plan,
                                         .match = donor_match,
                                         .attach = donor_attach,
                                         .reserve = donor_reserve,
                                         .table = donor_table,
                                         .commit = donor_commit,
                                         .truncate = donor_truncate,
                                         .release = donor_release,
                                         .check = donor_check };
static const pb_iface donor_ifaces[] = { { "attention/1", &donor_vtbl }, { NULL, NULL } };
static const pb_option donor_options[] = {
    PB_INT(donor_config, page_size, "4", "1", "256", 0, "tokens", "of a page"),
    PB_INT(donor_config, bug, "0", "0", "7", 0, NULL, "which fault"), PB_OPTIONS_END
};
static const pb_plugin donor_plugin = { PB_HEAD,
                                        .slot = "attention",
                                        .name = "donor",
                                        .version = "0",
                                        .license = "MIT",
                                        .summary = "shares pages of running sequences",
                                        .options = donor_options,
                                        .config_size = sizeof(donor_config),
                                        .ifaces = donor_ifaces,
                                        .create = donor_create,
                                        .start = donor_start,
                                        .destroy = donor_destroy };

/* ---- @mask, @cut and @sched: no state --------------------------------- */

typedef struct plain_config {
    int64_t none_at, bug, wild;
} plain_config;

typedef struct plain {
    const pb_host *host;
    const plain_config *cfg;
    int32_t n_vocab;
    uint32_t calls;
} plain;

static int plain_create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    plain *p = host->alloc(host, sizeof *p, 0, "plain");
    p->host = host;
    p->cfg = cfg;
    *self = p;
    return 0;
}

static int plain_start(void *self, const pb_run *run, pb_err *err)
{
    ((plain *)self)->n_vocab = run->n_vocab;
    return 0;
}

static void plain_destroy(void *self)
{
    plain *p = self;
    p->host->free(p->host, p);
}

static uint32_t mix(uint32_t a, uint32_t b)
{
    uint32_t z = (a + 0x9e3779b9u) * 0x85ebca6bu ^ (b * 0xc2b2ae35u);
    z ^= z >> 15;
    z *= 0x2c1b3c6du;
    return z ^ z >> 13;
}

static int mask(void *self, int32_t n, const pb_pick *p, uint32_t *bits, int64_t words)
{
    const plain *m = self;
    for (int32_t i = 0; i < n; i++) {
        const pb_seq *s = p[i].seq;
        int64_t at = s->n_tokens + p[i].n_tail;
        int32_t last = p[i].n_tail ? p[i].tail[p[i].n_tail - 1] : s->tokens[s->n_tokens - 1];
        for (int32_t id = 0; id < m->n_vocab; id++)
            if ((mix((uint32_t)(last + at), (uint32_t)id) % 3 == 0 && id != last) ||
                at == m->cfg->none_at)
                bits[i * words + id / 32] &= ~(1u << (id % 32));
    }
    return 0;
}

static int cut(void *self, int32_t n, const pb_seq *const *s, const int32_t *n_new, pb_verdict *v)
{
    static const int32_t after[] = { 5, 9, 2 }, instead[] = { 7 };
    for (int32_t i = 0; i < n; i++)
        for (int32_t k = 0; k < n_new[i]; k++) {
            int64_t at = s[i]->n_tokens - n_new[i] + k, place = at - s[i]->n_prompt;
            uint32_t z = mix((uint32_t)place, (uint32_t)s[i]->tokens[at]);
            if (z % 13 == 1) { /* this token and what it entails */
                v[i].keep = k + 1;
                v[i].n_forced = 1 + (int32_t)(z >> 8) % 3;
                v[i].forced = after;
                break;
            }
            if (z % 13 == 2) { /* another one instead */
                v[i].keep = k;
                v[i].n_forced = 1;
                v[i].forced = instead;
                break;
            }
            if (z % 41 == 3) {
                v[i].keep = k + (int32_t)(z >> 8) % 2;
                v[i].finish = 1;
                break;
            }
        }
    return 0;
}

/* One entry, of any size that is allowed. */
static int32_t wild_entry(const pb_view *v, const pb_seq *s, uint32_t z, int32_t *rows,
                          pb_plan *out)
{
    int64_t most = s->n_left < *rows ? s->n_left : *rows;
    if (most < 1 || z % 5 == 0)
        return 0;
    *out = (pb_plan){ .seq = s, .n_tokens = 1 + (int32_t)((z >> 4) % (uint32_t)most) };
    if (z % 3 == 0)
        out->n_tokens = (int32_t)most;
    *rows -= out->n_tokens;
    if (out->n_tokens == s->n_left && v->max_draft > 0) {
        out->n_draft = (int32_t)((z >> 12) % (uint32_t)(v->max_draft + 1));
        out->n_draft = out->n_draft < *rows ? out->n_draft : *rows;
        *rows -= out->n_draft;
    }
    return 1;
}

static int32_t wild_next(plain *p, const pb_view *v, pb_plan *out, int32_t cap)
{
    uint32_t z = mix(p->calls++, (uint32_t)p->cfg->wild), start = z % 7;
    int32_t n = 0, rows = v->max_rows, slots = v->n_slots_free;
    for (int32_t i = 0; i < v->n_running && n < cap; i++) { /* in an order of its own */
        const pb_seq *s = v->running[(i + (int32_t)start) % v->n_running];
        n += wild_entry(v, s, mix(z, (uint32_t)i), &rows, &out[n]);
    }
    for (int32_t i = v->n_waiting - 1; i >= 0 && n < cap && slots > 0; i--)
        if (wild_entry(v, v->waiting[i], mix(z, 77u + (uint32_t)i), &rows, &out[n])) {
            n++;
            slots--;
        }
    return n;
}

static int32_t sched_next(void *self, const pb_view *v, pb_plan *out, int32_t cap)
{
    static const pb_seq stranger = { .size = sizeof stranger, .n_tokens = 1, .n_left = 1 };
    plain *p = self;
    int64_t bug = p->cfg->bug;
    int32_t n = 0, rows = v->max_rows;
    if (bug == SCHED_IDLE)
        return 0;
    if (p->cfg->wild)
        return wild_next(p, v, out, cap);
    for (int32_t i = 0; i < v->n_running && n < cap && rows > 0; i++, rows--)
        out[n++] = (pb_plan){ .seq = v->running[i], .n_tokens = 1 };
    for (int32_t i = 0; i < v->n_waiting && i < v->n_slots_free && n < cap && rows > 0; i++, rows--)
        out[n++] = (pb_plan){ .seq = v->waiting[i], .n_tokens = 1 };
    if (!n)
        return 0;
    if (bug == SCHED_TWICE && n < cap) {
        out[n] = out[0];
        n++;
    }
    if (bug == SCHED_STRANGER)
        out[n - 1].seq = &stranger;
    if (bug == SCHED_TOO_MANY)
        out[0].n_tokens = (int32_t)out[0].seq->n_left + 1;
    if (bug == SCHED_ZERO)
        out[0].n_tokens = 0;
    if (bug == SCHED_ROWS)
        out[0].n_tokens = v->max_rows + 1;
    if (bug == SCHED_DRAFT)
        out[0].n_draft = 1;
    return n;
}

static int32_t sched_victim(void *self, const pb_view *v, const pb_seq *needs)
{
    const plain *p = self;
    int32_t at = 0;
    while (v->running[at] != needs)
        at++;
    if (p->cfg->bug == SCHED_OLDER)
        return at;
    if (p->cfg->wild) { /* any younger one, or none */
        int32_t younger = v->n_running - 1 - at;
        uint32_t z = mix((uint32_t)v->step, (uint32_t)needs->id);
        return z % 3 == 0 || younger < 1 ? -1 : at + 1 + (int32_t)((z >> 8) % (uint32_t)younger);
    }
    return v->n_running - 1 > at ? v->n_running - 1 : -1;
}

static const pb_sched sched_vtbl = { .size = sizeof sched_vtbl,
                                     .next = sched_next,
                                     .victim = sched_victim };
static const pb_iface sched_ifaces[] = { { "scheduler/1", &sched_vtbl }, { NULL, NULL } };
static const pb_option plain_options[] = {
    PB_INT(plain_config, none_at, "-1", "-1", NULL, 0, NULL, "position without any token"),
    PB_INT(plain_config, bug, "0", "0", "8", 0, NULL, "which fault"),
    PB_INT(plain_config, wild, "0", "0", NULL, 0, NULL, "seed of random plans"), PB_OPTIONS_END
};
static const pb_plugin sched_plugin = { PB_HEAD,
                                        .slot = "scheduler",
                                        .name = "sched",
                                        .version = "0",
                                        .license = "MIT",
                                        .summary = "one row for everyone",
                                        .options = plain_options,
                                        .config_size = sizeof(plain_config),
                                        .ifaces = sched_ifaces,
                                        .create = plain_create,
                                        .start = plain_start,
                                        .destroy = plain_destroy };

static const pb_constraint mask_vtbl = { .size = sizeof mask_vtbl, .mask = mask };
static const pb_output cut_vtbl = { .size = sizeof cut_vtbl, .accept = cut };
static const pb_iface mask_ifaces[] = { { "constraint/1", &mask_vtbl }, { NULL, NULL } };
static const pb_iface cut_ifaces[] = { { "output/1", &cut_vtbl }, { NULL, NULL } };
static const pb_plugin mask_plugin = { PB_HEAD,
                                       .slot = "constraint",
                                       .name = "mask",
                                       .version = "0",
                                       .license = "MIT",
                                       .summary = "allows some tokens",
                                       .options = plain_options,
                                       .config_size = sizeof(plain_config),
                                       .ifaces = mask_ifaces,
                                       .create = plain_create,
                                       .start = plain_start,
                                       .destroy = plain_destroy };
static const pb_plugin cut_plugin = { PB_HEAD,
                                      .slot = "output",
                                      .name = "cut",
                                      .version = "0",
                                      .license = "MIT",
                                      .summary = "forces, drops and ends",
                                      .ifaces = cut_ifaces,
                                      .create = plain_create,
                                      .start = plain_start,
                                      .destroy = plain_destroy };

const pb_plugin *const fakes[] = { &donor_plugin, &mask_plugin, &cut_plugin, &sched_plugin, NULL };
