/* SPDX-License-Identifier: MIT
 *
 * core/conform_kvfmt.c - KV formats of a kernels plugin: rows are written, attended and copied
 * on pages with fences between them and NaN wherever nothing was written. The answer of a row
 * must have the same bits whatever its pages, its step and its work items are, and be near
 * attention in double.
 */
#define _GNU_SOURCE 1
#include "conform_checks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 80, CUT = 33, HEADS = 4, KV_HEADS = 2, DIM = 64, MAX_PAGES = 2 * N, FENCE = 256 };
enum { QW = HEADS * DIM, KW = KV_HEADS * DIM };

typedef struct record {
    pb_step s;
    int32_t pos[N], row_begin[2], table_begin[2], table[MAX_PAGES];
} record;

typedef struct bench {
    const pb_kvfmt *f;
    pb_kv_shape shape;
    int32_t page_tokens, n_pages, window; /* n_pages: of one sequence */
    size_t layer_bytes, stride;
    char *kv;
    void *scratch;
    float *q, *k, *v, *y; /* [N][width] */
    record r;
} bench;

static void *aligned(size_t bytes)
{
    return aligned_alloc(64, (bytes + 127) / 64 * 64);
}

/* NaN in every page, another byte between pages. */
static void wipe(bench *b)
{
    for (int32_t p = 0; p <= 2 * b->n_pages; p++) {
        memset(b->kv + (size_t)p * b->stride, 0xff, b->layer_bytes);
        memset(b->kv + (size_t)p * b->stride + b->layer_bytes, 0x7b, b->stride - b->layer_bytes);
    }
}

static int fences_hold(const bench *b)
{
    for (int32_t p = 0; p <= 2 * b->n_pages; p++)
        for (size_t i = b->layer_bytes; i < b->stride; i++)
            if (b->kv[(size_t)p * b->stride + i] != 0x7b)
                return 0;
    return 1;
}

/* A step of rows [row0, row1) of the sequence, which lies on `pages`. */
static pb_attend_args make_step(bench *b, int32_t row0, int32_t row1, const pb_page *pages)
{
    record *r = &b->r;
    memset(r, 0, sizeof *r);
    r->s = (pb_step){ .size = sizeof(pb_step),
                      .bytes = sizeof *r,
                      .n = 1,
                      .n_rows = row1 - row0,
                      .n_seqs = 1,
                      .n_groups = 1,
                      .pos = offsetof(record, pos),
                      .kv_pos = offsetof(record, pos),
                      .row_begin = offsetof(record, row_begin),
                      .table_begin = offsetof(record, table_begin),
                      .table = offsetof(record, table) };
    for (int32_t i = 0; i < row1 - row0; i++)
        r->pos[i] = row0 + i;
    r->row_begin[1] = row1 - row0;
    r->table_begin[1] = b->n_pages;
    memcpy(r->table, pages, (size_t)b->n_pages * sizeof *pages);
    return (pb_attend_args){ .size = sizeof(pb_attend_args),
                             .shape = &b->shape,
                             .step = &r->s,
                             .n_heads = HEADS,
                             .page_tokens = b->page_tokens,
                             .window = b->window,
                             .scale = 0.125f,
                             .kv = b->kv,
                             .page_stride = b->stride,
                             .q = b->q + (size_t)row0 * QW,
                             .k = b->k + (size_t)row0 * KW,
                             .v = b->v + (size_t)row0 * KW,
                             .y = b->y + (size_t)row0 * QW,
                             .q_stride = QW,
                             .k_stride = KW,
                             .v_stride = KW,
                             .y_stride = QW,
                             .scratch = b->scratch };
}

/* Writes and attends rows [row0, row1): all at once, or row by row from the last one. */
static void step(bench *b, int32_t row0, int32_t row1, const pb_page *pages, int single)
{
    static pb_attend_item items[N * KV_HEADS];
    pb_attend_args a = make_step(b, row0, row1, pages);
    int32_t n = row1 - row0, n_items = 0;
    a.items = items;
    if (!single)
        b->f->write(&a, 0, n);
    for (int32_t i = n - 1; single && i >= 0; i--)
        b->f->write(&a, i, i + 1);
    for (int32_t h = KV_HEADS - 1; h >= 0; h--)
        for (int32_t i = 0; i < n; i += single ? 1 : n)
            items[n_items++] =
                (pb_attend_item){ .row0 = i, .n_rows = single ? 1 : n, .kv_head = h, .n_spans = 1 };
    if (!single)
        b->f->attend(&a, 0, n_items);
    for (int32_t i = 0; single && i < n_items; i++)
        b->f->attend(&a, i, i + 1);
}

/* The largest distance to attention in double. */
static double distance(const bench *b, const float *y)
{
    double worst = 0;
    for (int32_t r = 0; r < N; r++)
        for (int32_t h = 0; h < HEADS; h++) {
            double p[N], max = -1e300, sum = 0;
            int32_t first = b->window && r - b->window + 1 > 0 ? r - b->window + 1 : 0;
            for (int32_t t = first; t <= r; t++) {
                p[t] = 0;
                for (int32_t d = 0; d < DIM; d++)
                    p[t] += (double)b->q[r * QW + h * DIM + d] * 0.125 *
                            (double)b->k[t * KW + h / (HEADS / KV_HEADS) * DIM + d];
                max = p[t] > max ? p[t] : max;
            }
            for (int32_t t = first; t <= r; t++)
                sum += p[t] = exp(p[t] - max);
            for (int32_t d = 0; d < DIM; d++) {
                double want = 0;
                for (int32_t t = first; t <= r; t++)
                    want += p[t] / sum * (double)b->v[t * KW + h / (HEADS / KV_HEADS) * DIM + d];
                double e = fabs((double)y[r * QW + h * DIM + d] - want);
                worst = e <= worst ? worst : e; /* NaN counts as worst */
            }
        }
    return worst;
}

static int same(pbi_lint *l, const bench *b, const float *want, int32_t row0, const char *how)
{
    for (int32_t i = row0 * QW; i < N * QW; i++)
        if (memcmp(&b->y[i], &want[i], sizeof(float)))
            return pbi_say(l, PBI_FAIL, "%s, window %d: row %d is %.9g alone, %.9g %s", b->f->name,
                           b->window, i / QW, (double)want[i], (double)b->y[i], how);
    if (!fences_hold(b))
        return pbi_say(l, PBI_FAIL, "%s: writes outside of layer_bytes() of a page, %s", b->f->name,
                       how);
    return PBI_PASS;
}

static int check_window(pbi_lint *l, bench *b)
{
    static float want[N * QW];
    pb_page one[MAX_PAGES], two[MAX_PAGES];
    for (int32_t i = 0; i < b->n_pages; i++) {
        one[i] = 1 + i;
        two[i] = 2 * b->n_pages - i; /* backwards */
    }
    wipe(b);
    step(b, 0, N, one, 0);
    memcpy(want, b->y, sizeof want);
    double off = distance(b, want);
    if (!(off < 0.05))
        return pbi_say(l, PBI_FAIL, "%s, window %d: %.3g away from attention in double", b->f->name,
                       b->window, off);
    int status = same(l, b, want, 0, "in one step");
    wipe(b);
    memset(b->y, 0, N * QW * sizeof *b->y);
    step(b, 0, CUT, two, 1);
    step(b, CUT, N, two, 0);
    if (!status)
        status = same(l, b, want, 0, "in two steps, row by row, on other pages");
    /* what was written so far moves to other pages, as a copy on write does */
    wipe(b);
    step(b, 0, CUT, one, 0);
    for (int32_t i = 0; i * b->page_tokens < CUT; i++) {
        int32_t n = CUT - i * b->page_tokens;
        b->f->copy(&b->shape, b->page_tokens, b->kv + (size_t)one[i] * b->stride,
                   b->kv + (size_t)two[i] * b->stride, n < b->page_tokens ? n : b->page_tokens);
    }
    for (int32_t i = 0; i < b->n_pages; i++)
        memset(b->kv + (size_t)one[i] * b->stride, 0xff, b->layer_bytes);
    step(b, CUT, N, two, 1);
    return status ? status : same(l, b, want, CUT, "after copy()");
}

static int check_format(pbi_lint *l, const pb_kvfmt *f)
{
    uint64_t rng = l->seed;
    bench b = { .f = f };
    if (!f->name || !f->isa || !f->usable || !f->layer_bytes || !f->scratch_bytes || !f->write ||
        !f->attend || !f->copy || f->granule < 1)
        return pbi_say(l, PBI_FAIL, "format %s lacks a name, isa, granule or a function",
                       f->name ? f->name : "?");
    if (!f->usable())
        return PBI_SKIP;
    b.shape = (pb_kv_shape){ .size = sizeof b.shape,
                             .kind = PB_KV_GQA,
                             .n_layers = 1,
                             .n_kv_heads = KV_HEADS,
                             .head_dim = DIM,
                             .v_dim = DIM };
    b.page_tokens = (16 + f->granule - 1) / f->granule * f->granule;
    b.n_pages = (N + b.page_tokens - 1) / b.page_tokens;
    b.layer_bytes = (size_t)f->layer_bytes(&b.shape, b.page_tokens);
    if (b.layer_bytes == 0 || b.layer_bytes > (1 << 24))
        return pbi_say(l, PBI_FAIL, "%s: layer_bytes() of %d tokens is %zu", f->name, b.page_tokens,
                       b.layer_bytes);
    b.stride = (b.layer_bytes + FENCE + 63) / 64 * 64;
    b.kv = aligned(b.stride * (size_t)(2 * b.n_pages + 1));
    b.scratch = aligned(f->scratch_bytes(&b.shape, HEADS, N) + 64);
    b.q = aligned(N * QW * sizeof(float));
    b.k = aligned(N * KW * sizeof(float));
    b.v = aligned(N * KW * sizeof(float));
    b.y = aligned(N * QW * sizeof(float));
    for (int i = 0; i < N * QW; i++)
        b.q[i] = (float)pbi_rig_below(&rng, 4001) * 0.0005f - 1.0f;
    for (int i = 0; i < N * KW; i++) {
        b.k[i] = (float)pbi_rig_below(&rng, 4001) * 0.0005f - 1.0f;
        b.v[i] = (float)pbi_rig_below(&rng, 4001) * 0.0005f - 1.0f;
    }
    int status = check_window(l, &b);
    b.window = 21;
    if (!status)
        status = check_window(l, &b);
    void *all[] = { b.kv, b.scratch, b.q, b.k, b.v, b.y };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    return status;
}

int pbi_check_kvfmt(pbi_lint *l)
{
    const pb_kernel_set *set = pbi_library_iface(l->lib, "kernels/1");
    int n_run = 0;
    if (!set->n_kvfmt)
        return pbi_say(l, PBI_SKIP, "no KV formats");
    for (int i = 0; i < set->n_kvfmt; i++) {
        int status = check_format(l, set->kvfmt[i]);
        n_run += status == PBI_PASS;
        if (status >= PBI_FAIL)
            return status;
    }
    return n_run ? PBI_PASS : pbi_say(l, PBI_SKIP, "no format can run on this machine");
}
