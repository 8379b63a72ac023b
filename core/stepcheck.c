/* SPDX-License-Identifier: MIT
 *
 * core/stepcheck.c - the step validator: structure, then ownership of pages. O(rows + pages
 * named by the step), no look at K or V.
 */
#include "stepbuild.h"
#include <stdlib.h>
#include <string.h>

int pbi_step_checker_init(pbi_step_checker *c, pb_err *err)
{
    c->written = calloc((size_t)c->n_groups + 1, sizeof *c->written);
    c->writer = calloc((size_t)c->n_groups + 1, sizeof *c->writer);
    if (!c->written || !c->writer)
        return pbi_err(err, PB_E_NOMEM, "out of memory");
    for (int32_t g = 0; g < c->n_groups; g++) {
        c->written[g] = calloc((size_t)c->plan[g].n_pages, sizeof **c->written);
        c->writer[g] = calloc((size_t)c->plan[g].n_pages, sizeof **c->writer);
        if (!c->written[g] || !c->writer[g])
            return pbi_err(err, PB_E_NOMEM, "out of memory");
    }
    return 0;
}

void pbi_step_checker_free(pbi_step_checker *c)
{
    for (int32_t g = 0; g < c->n_groups; g++) {
        if (c->written)
            free(c->written[g]);
        if (c->writer)
            free(c->writer[g]);
    }
    free(c->written);
    free(c->writer);
    c->written = NULL;
    c->writer = NULL;
}

/* ---- structure -------------------------------------------------------- */

static int outside(const pb_step *s, uint32_t at, uint64_t n, size_t each)
{
    if (n == 0)
        return 0;
    return at < sizeof *s || at % 4 || at > s->bytes || n > (s->bytes - at) / each;
}

static int check_columns(const pbi_step_checker *c, const pb_step *s, pb_err *err)
{
    uint64_t rows, seqs, groups;
    if (s->size != sizeof *s || s->bytes < sizeof *s)
        return pbi_err(err, PB_E_INTERNAL, "step of %zu bytes with a head of %zu", s->bytes,
                       s->size);
    if (s->n_rows < 1 || s->n_rows > c->limits.max_rows || s->n_seqs < 1 ||
        s->n_seqs > c->limits.max_seqs || s->n_out < 0 || s->n_out > c->limits.max_out ||
        s->n_copies < 0 || s->n_groups != c->n_groups)
        return pbi_err(err, PB_E_INTERNAL,
                       "step %llu: %d rows (1..%d), %d sequences (1..%d), %d wanted (0..%d), %d "
                       "copies, %d groups (%d)",
                       (unsigned long long)s->n, s->n_rows, c->limits.max_rows, s->n_seqs,
                       c->limits.max_seqs, s->n_out, c->limits.max_out, s->n_copies, s->n_groups,
                       c->n_groups);
    rows = (uint64_t)s->n_rows;
    seqs = (uint64_t)s->n_seqs;
    groups = (uint64_t)s->n_groups;
    if (outside(s, s->token, rows, 4) || outside(s, s->pos, rows, 4) ||
        outside(s, s->kv_pos, rows, 4) || (s->tree && outside(s, s->tree, rows, 4)) ||
        outside(s, s->row_begin, seqs + 1, 4) || outside(s, s->slot, seqs, 4) ||
        outside(s, s->adapter, seqs, 4) || outside(s, s->table_begin, groups * (seqs + 1), 4) ||
        outside(s, s->copy, (uint64_t)s->n_copies, sizeof(pb_copy)) ||
        outside(s, s->out_row, (uint64_t)s->n_out, 4))
        return pbi_err(err, PB_E_INTERNAL, "step %llu: a column lies outside of its %zu bytes",
                       (unsigned long long)s->n, s->bytes);
    return 0;
}

static int check_tables(const pbi_step_checker *c, const pb_step *s, pb_err *err)
{
    const int32_t *begin = PB_STEP_COL(s, table_begin);
    int32_t at = 0, n = s->n_groups * (s->n_seqs + 1);
    for (int32_t i = 0; i < n; i++) {
        if (begin[i] < at)
            return pbi_err(err, PB_E_INTERNAL, "step %llu: table_begin[%d] = %d is below %d",
                           (unsigned long long)s->n, i, begin[i], at);
        at = begin[i];
    }
    if (outside(s, s->table, (uint64_t)at, sizeof(pb_page)))
        return pbi_err(err, PB_E_INTERNAL, "step %llu: %d table entries lie outside of %zu bytes",
                       (unsigned long long)s->n, at, s->bytes);
    return 0;
}

static int check_rows(const pbi_step_checker *c, const pb_step *s, pb_err *err)
{
    const int32_t *token = PB_STEP_COL(s, token), *begin = PB_STEP_COL(s, row_begin);
    const int32_t *kv_pos = PB_STEP_COL(s, kv_pos), *out = PB_STEP_COL(s, out_row);
    if (begin[0] != 0 || begin[s->n_seqs] != s->n_rows)
        return pbi_err(err, PB_E_INTERNAL, "step %llu: sequences cover rows %d..%d of %d",
                       (unsigned long long)s->n, begin[0], begin[s->n_seqs], s->n_rows);
    for (int32_t i = 0; i < s->n_seqs; i++) {
        if (begin[i + 1] <= begin[i] || begin[i + 1] > s->n_rows)
            return pbi_err(err, PB_E_INTERNAL, "step %llu: sequence %d has rows %d..%d",
                           (unsigned long long)s->n, i, begin[i], begin[i + 1]);
        for (int32_t r = begin[i]; r < begin[i + 1]; r++) {
            if (token[r] >= c->n_vocab)
                return pbi_err(err, PB_E_INTERNAL, "step %llu: row %d: token %d, vocabulary of %d",
                               (unsigned long long)s->n, r, token[r], c->n_vocab);
            if (kv_pos[r] < 0 || kv_pos[r] >= c->limits.max_ctx ||
                (r > begin[i] && kv_pos[r] != kv_pos[r - 1] + 1))
                return pbi_err(err, PB_E_INTERNAL, "step %llu: row %d: KV position %d, context %d",
                               (unsigned long long)s->n, r, kv_pos[r], c->limits.max_ctx);
        }
    }
    for (int32_t i = 0; i < s->n_out; i++)
        if (out[i] < 0 || out[i] >= s->n_rows || (i && out[i] <= out[i - 1]))
            return pbi_err(err, PB_E_INTERNAL,
                           "step %llu: wanted row %d is %d of %d, or not "
                           "ascending",
                           (unsigned long long)s->n, i, out[i], s->n_rows);
    return 0;
}

/* ---- ownership -------------------------------------------------------- */

/* one sequence of the step in one group */
typedef struct lane {
    const pbi_step_checker *c;
    const pb_step *s;
    const pb_page *table;
    const int32_t *filled;
    uint64_t id, step;
    int32_t g, q, n_pages, page_tokens;
    int64_t kv0, kv1; /* positions that are written */
} lane;

static const char *who(const pbi_step_checker *c)
{
    return c->attention ? c->attention : "step";
}

static void lane_open(lane *l, const pbi_step_checker *c, const pb_step *s, const uint64_t *ids,
                      int32_t g, int32_t q)
{
    const int32_t *tb = PB_STEP_COL(s, table_begin) + (size_t)g * ((size_t)s->n_seqs + 1);
    const int32_t *rb = PB_STEP_COL(s, row_begin), *kv = PB_STEP_COL(s, kv_pos);
    *l = (lane){ .c = c, .s = s, .g = g, .q = q, .step = s->n };
    l->table = PB_STEP_COL(s, table) + tb[q];
    l->n_pages = tb[q + 1] - tb[q];
    l->page_tokens = c->plan[g].page_tokens;
    l->filled = c->pages ? pbi_pages_filled(c->pages, g) : NULL;
    l->id = ids ? ids[q] : (uint64_t)PB_STEP_COL(s, slot)[q];
    l->kv0 = kv[rb[q]];
    l->kv1 = kv[rb[q + 1] - 1] + 1;
}

/* the table covers what is written, and its ids are pages */
static int check_cover(const lane *l, pb_err *err)
{
    int64_t need = (l->kv1 + l->page_tokens - 1) / l->page_tokens;
    pb_page n = l->c->plan[l->g].n_pages;
    if (l->n_pages < need)
        return pbi_err(err, PB_E_PLUGIN,
                       "%s: step %llu: the table of seq %llu in group %d has %d pages of %d tokens,"
                       " position %lld needs %lld",
                       who(l->c), (unsigned long long)l->step, (unsigned long long)l->id, l->g,
                       l->n_pages, l->page_tokens, (long long)(l->kv1 - 1), (long long)need);
    for (int32_t k = 0; k < l->n_pages; k++)
        if (l->table[k] < 0 || l->table[k] >= n)
            return pbi_err(err, PB_E_PLUGIN,
                           "%s: step %llu: table: seq %llu names page %d of group %d, the pool has "
                           "1..%d",
                           who(l->c), (unsigned long long)l->step, (unsigned long long)l->id,
                           l->table[k], l->g, n - 1);
    return 0;
}

/* pages that this sequence writes are its own; marks them */
static int check_writes(const lane *l, pbi_step_checker *c, pb_err *err)
{
    int64_t pt = l->page_tokens;
    for (int64_t k = l->kv0 / pt; k <= (l->kv1 - 1) / pt; k++) {
        pb_page p = l->table[k];
        int64_t pos = k * pt > l->kv0 ? k * pt : l->kv0;
        int32_t refs = c->pages ? pbi_pages_refs(c->pages, l->g, p) : 1;
        if (p == 0 || refs < 1)
            return pbi_err(err, PB_E_PLUGIN,
                           "%s: step %llu: page %d of group %d is written at position %lld by seq "
                           "%llu but is free (table)",
                           who(c), (unsigned long long)l->step, p, l->g, (long long)pos,
                           (unsigned long long)l->id);
        if (refs != 1)
            return pbi_err(err, PB_E_PLUGIN,
                           "%s: step %llu: page %d of group %d is written at position %lld by seq "
                           "%llu but has %d references (reserve must make it private)",
                           who(c), (unsigned long long)l->step, p, l->g, (long long)pos,
                           (unsigned long long)l->id, refs);
        if (c->written[l->g][p] == c->epoch)
            return pbi_err(err, PB_E_PLUGIN,
                           "%s: step %llu: page %d of group %d is written at position %lld by seq "
                           "%llu and also by sequence %d of the step (reserve gave it twice)",
                           who(c), (unsigned long long)l->step, p, l->g, (long long)pos,
                           (unsigned long long)l->id, c->writer[l->g][p]);
        c->written[l->g][p] = c->epoch;
        c->writer[l->g][p] = l->q;
    }
    return 0;
}

static int check_copies(pbi_step_checker *c, const pb_step *s, pb_err *err)
{
    const pb_copy *cp = PB_STEP_COPIES(s);
    for (int32_t i = 0; i < s->n_copies; i++) {
        int32_t g = cp[i].group, pt;
        if (g < 0 || g >= c->n_groups || cp[i].src < 1 || cp[i].src >= c->plan[g].n_pages ||
            cp[i].dst < 1 || cp[i].dst >= c->plan[g].n_pages || cp[i].src == cp[i].dst)
            return pbi_err(err, PB_E_PLUGIN, "%s: step %llu: copy %d: page %d to %d of group %d",
                           who(c), (unsigned long long)s->n, i, cp[i].src, cp[i].dst, g);
        pt = c->plan[g].page_tokens;
        if (cp[i].n_tokens < 1 || cp[i].n_tokens > pt)
            return pbi_err(
                err, PB_E_PLUGIN,
                "%s: step %llu: copy %d to page %d of group %d: %d tokens, a page has %d", who(c),
                (unsigned long long)s->n, i, cp[i].dst, g, cp[i].n_tokens, pt);
        if (c->written[g][cp[i].dst] != c->epoch)
            return pbi_err(err, PB_E_PLUGIN,
                           "%s: step %llu: copy %d: its target, page %d of group %d, is written by "
                           "no sequence of the step",
                           who(c), (unsigned long long)s->n, i, cp[i].dst, g);
        if (!c->pages)
            continue;
        if (pbi_pages_pins(c->pages, g, cp[i].src) < 1)
            return pbi_err(err, PB_E_INTERNAL,
                           "step %llu: copy %d: its source, page %d of group "
                           "%d, is not pinned",
                           (unsigned long long)s->n, i, cp[i].src, g);
        if (pbi_pages_filled(c->pages, g)[cp[i].src] < cp[i].n_tokens)
            return pbi_err(err, PB_E_PLUGIN,
                           "%s: step %llu: copy %d takes %d tokens of page %d of group %d, which "
                           "holds %d",
                           who(c), (unsigned long long)s->n, i, cp[i].n_tokens, cp[i].src, g,
                           pbi_pages_filled(c->pages, g)[cp[i].src]);
        pbi_pages_filled(c->pages, g)[cp[i].dst] = cp[i].n_tokens;
    }
    return 0;
}

/* what is read was written: by steps before, or by a copy of this one */
static int check_reads(const lane *l, const pbi_step_checker *c, pb_err *err)
{
    int64_t pt = l->page_tokens, win = c->window ? c->window[l->g] : 0;
    int64_t low = win > 0 && l->kv0 >= win ? l->kv0 - win + 1 : 0;
    for (int64_t k = low / pt; k * pt < l->kv0; k++) {
        pb_page p = l->table[k];
        int64_t want = l->kv0 - k * pt < pt ? l->kv0 - k * pt : pt;
        if (p == 0 || pbi_pages_refs(c->pages, l->g, p) < 1)
            return pbi_err(err, PB_E_PLUGIN,
                           "%s: step %llu: page %d of group %d is read at position %lld by seq %llu"
                           " but is free (table)",
                           who(c), (unsigned long long)l->step, p, l->g, (long long)(k * pt),
                           (unsigned long long)l->id);
        if (c->written[l->g][p] == c->epoch && c->writer[l->g][p] != l->q)
            return pbi_err(err, PB_E_PLUGIN,
                           "%s: step %llu: page %d of group %d is read by seq %llu while sequence "
                           "%d of the step writes it (reserve must copy)",
                           who(c), (unsigned long long)l->step, p, l->g, (unsigned long long)l->id,
                           c->writer[l->g][p]);
        if (l->filled[p] < want)
            return pbi_err(err, PB_E_PLUGIN,
                           "%s: step %llu: page %d of group %d is read up to position %lld by seq "
                           "%llu but holds %d of %lld tokens (reserve: a copy is missing)",
                           who(c), (unsigned long long)l->step, p, l->g,
                           (long long)(k * pt + want - 1), (unsigned long long)l->id, l->filled[p],
                           (long long)want);
    }
    return 0;
}

static void note_writes(const lane *l, pbi_pages *pages)
{
    int32_t *filled = pbi_pages_filled(pages, l->g);
    int64_t pt = l->page_tokens;
    for (int64_t k = l->kv0 / pt; k * pt < l->kv1; k++) {
        int64_t n = l->kv1 - k * pt < pt ? l->kv1 - k * pt : pt;
        if (filled[l->table[k]] < n)
            filled[l->table[k]] = (int32_t)n;
    }
}

static int for_lanes(pbi_step_checker *c, const pb_step *s, const uint64_t *ids, int pass,
                     pb_err *err)
{
    for (int32_t g = 0; g < c->n_groups; g++)
        for (int32_t q = 0; q < s->n_seqs; q++) {
            lane l;
            int rc = 0;
            lane_open(&l, c, s, ids, g, q);
            if (pass == 0)
                rc = check_cover(&l, err);
            if (pass == 0 && !rc)
                rc = check_writes(&l, c, err);
            if (pass == 1)
                rc = check_reads(&l, c, err);
            if (pass == 2)
                note_writes(&l, c->pages);
            if (rc)
                return rc;
        }
    return 0;
}

int pbi_step_check(pbi_step_checker *c, const pb_step *s, const uint64_t *ids, pb_err *err)
{
    int rc = check_columns(c, s, err);
    if (!rc)
        rc = check_tables(c, s, err);
    if (!rc)
        rc = check_rows(c, s, err);
    if (rc)
        return rc;
    if (++c->epoch == 0) { /* wrapped: no old mark may look new */
        for (int32_t g = 0; g < c->n_groups; g++)
            memset(c->written[g], 0, (size_t)c->plan[g].n_pages * sizeof **c->written);
        c->epoch = 1;
    }
    rc = for_lanes(c, s, ids, 0, err);
    if (!rc)
        rc = check_copies(c, s, err);
    if (!rc && c->pages)
        rc = for_lanes(c, s, ids, 1, err);
    if (!rc && c->pages)
        rc = for_lanes(c, s, ids, 2, err);
    return rc;
}
