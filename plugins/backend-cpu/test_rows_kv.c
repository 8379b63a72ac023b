/* SPDX-License-Identifier: MIT
 *
 * plugins/backend-cpu/test_rows_kv.c - KV formats: write, copy and attend of every row in the
 * table against the plain-C row of the same name. A part of test_rows.
 *
 * What is expected comes from plain C in the simplest form: pages of 16, one row an item, all
 * spans in order, nothing copied. Invariant: a row that gives these bits with any page size, any
 * items, spans left apart or not, and copied or freed pages in its table cannot let a plugin's
 * choice of pages or a backend's choice of items be seen.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "test_rows.h"

enum { MAX_SEQS = 3 };
enum { KV_NORMAL, KV_TINY, KV_WILD, N_FILLS }; /* what the numbers are like */
enum { WHOLE, APART, SINGLE }; /* spans merged; left in `part`; the same, one span an item */

typedef struct problem {
    int32_t n_seqs, ctx[MAX_SEQS], rows[MAX_SEQS]; /* rows of the last step */
    int32_t n_kv, ratio, hd, vd, page_tokens, window;
    int32_t item_rows, spans, all_spans, n_layers, layer, n_groups, gap, fill;
    float softcap;
    uint32_t seed;
} problem;

/* One format's memory in one problem. */
typedef struct cache {
    const pb_kvfmt *f;
    const problem *p;
    pb_kv_shape shape;
    tail mem, step, q, k, v, y, part, scratch;
    char *base;
    size_t layer, stride, bytes;
    int32_t n_pages, most; /* most: pages of a sequence */
    pb_page *page;         /* [n_seqs][most], then a spare one each */
    pb_attend_item *items;
    int32_t n_items;
} cache;

static cache want_, got_;

/* ---- numbers ---------------------------------------------------------------- */

static float number(int32_t fill, uint32_t *s)
{
    float x = rnd_float(s);
    if (fill == KV_TINY) /* around what a half can hold, and below */
        return m_float((m_bits(rnd_bits(s)) & 0x807fffffu) | (90u + rnd_next(s) % 28) << 23);
    if (fill == KV_WILD && rnd_to(s, 200) == 0)
        return rnd_bits(s);
    return x;
}

/* Vectors of one token or query depend on sequence, position and kind alone. */
static void vector(const problem *p, int32_t seq, int32_t pos, uint32_t kind, int32_t n, float *x)
{
    uint32_t s =
        (p->seed >> 1) * 747796405u + (uint32_t)seq * 2891336453u + (uint32_t)pos * 3u + kind;
    rnd_next(&s);
    for (int32_t i = 0; i < n; i++)
        x[i] = number(p->fill, &s) * (kind == 0 ? 4.0f : 1.0f);
}

/* ---- a step --------------------------------------------------------------------- */

static int32_t pages_of(const problem *p, int32_t q)
{
    return (p->ctx[q] + p->page_tokens - 1) / p->page_tokens;
}

/* Rows [from[q], to[q]) of each sequence; the table is the record's end. */
static pb_step *make_step(cache *c, const int32_t *from, const int32_t *to)
{
    const problem *p = c->p;
    int32_t rows = 0, pages = 0, ns = p->n_seqs;
    for (int32_t q = 0; q < ns; q++) {
        rows += to[q] - from[q];
        pages += pages_of(p, q);
    }
    size_t head = sizeof(pb_step), n_begin = (size_t)p->n_groups * (size_t)(ns + 1);
    size_t ints = (size_t)rows + (size_t)(ns + 1) + n_begin + (size_t)pages;
    size_t pad = ints % 2 * 4;
    pb_step *s = tail_take(&c->step, head + pad + ints * 4, 0);
    s->size = sizeof *s;
    s->bytes = head + pad + ints * 4;
    s->n = 1;
    s->n_rows = rows;
    s->n_seqs = ns;
    s->n_groups = p->n_groups;
    s->kv_pos = (uint32_t)(head + pad);
    s->row_begin = s->kv_pos + (uint32_t)rows * 4;
    s->table_begin = s->row_begin + (uint32_t)(ns + 1) * 4;
    s->table = s->table_begin + (uint32_t)n_begin * 4;
    int32_t *pos = (int32_t *)(void *)((char *)s + s->kv_pos);
    int32_t *begin = (int32_t *)(void *)((char *)s + s->row_begin);
    int32_t *tb = (int32_t *)(void *)((char *)s + s->table_begin) + (p->n_groups - 1) * (ns + 1);
    int32_t *table = (int32_t *)(void *)((char *)s + s->table);
    for (int32_t q = 0, r = 0, t = 0; q < ns; q++) {
        begin[q] = r;
        tb[q] = t;
        for (int32_t i = from[q]; i < to[q]; i++)
            pos[r++] = i;
        for (int32_t i = 0; i < pages_of(p, q); i++)
            table[t++] = c->page[q * c->most + i];
        begin[q + 1] = r;
        tb[q + 1] = t;
    }
    return s;
}

static pb_attend_args make_args(cache *c, const pb_step *s, const int32_t *from, const int32_t *to)
{
    const problem *p = c->p;
    int64_t heads = p->n_kv * p->ratio, gap = p->gap;
    int64_t qs = heads * p->hd + gap, ks = p->n_kv * p->hd + gap, vs = p->n_kv * p->vd + gap;
    int64_t ys = heads * p->vd + gap, rows = s->n_rows;
    float *q = tail_take(&c->q, (size_t)(rows * qs - gap) * 4, 0xff);
    float *k = tail_take(&c->k, (size_t)(rows * ks - gap) * 4, 0xff);
    float *v = tail_take(&c->v, (size_t)(rows * vs - gap) * 4, 0xff);
    float *y = tail_take(&c->y, (size_t)(rows * ys - gap) * 4, CANARY);
    for (int32_t i = 0, r = 0; i < p->n_seqs; i++)
        for (int32_t pos = from[i]; pos < to[i]; pos++, r++) {
            vector(p, i, pos, 0, (int32_t)heads * p->hd, q + r * qs);
            vector(p, i, pos, 1, p->n_kv * p->hd, k + r * ks);
            vector(p, i, pos, 2, p->n_kv * p->vd, v + r * vs);
        }
    return (pb_attend_args){ .size = sizeof(pb_attend_args),
                             .shape = &c->shape,
                             .step = s,
                             .group = p->n_groups - 1,
                             .n_heads = (int32_t)heads,
                             .page_tokens = p->page_tokens,
                             .window = p->window,
                             .scale = 0.3f,
                             .softcap = p->softcap,
                             .kv = c->base + (size_t)p->layer * c->layer,
                             .page_stride = c->stride,
                             .q = q,
                             .k = k,
                             .v = v,
                             .y = y,
                             .q_stride = qs,
                             .k_stride = ks,
                             .v_stride = vs,
                             .y_stride = ys };
}

/* ---- a cache ------------------------------------------------------------------------ */

static void open_cache(cache *c, const pb_kvfmt *f, const problem *p)
{
    uint32_t s = p->seed;
    c->f = f;
    c->p = p;
    c->shape = (pb_kv_shape){ .size = sizeof c->shape,
                              .kind = PB_KV_GQA,
                              .n_layers = p->n_layers,
                              .window = p->window,
                              .n_kv_heads = p->n_kv,
                              .head_dim = p->hd,
                              .v_dim = p->vd };
    assert_int_equal(p->page_tokens % f->granule, 0);
    c->layer = (size_t)f->layer_bytes(&c->shape, p->page_tokens);
    c->stride = c->layer * (size_t)p->n_layers;
    c->most = 0;
    for (int32_t q = 0; q < p->n_seqs; q++)
        c->most = pages_of(p, q) > c->most ? pages_of(p, q) : c->most;
    int32_t n = p->n_seqs * (c->most + 1);
    c->n_pages = n + 1;
    c->page = realloc(c->page, (size_t)n * sizeof *c->page);
    for (int32_t i = 0; i < n; i++)
        c->page[i] = i + 1;
    for (int32_t i = n - 1; i > 0; i--) { /* scattered */
        int32_t j = rnd_to(&s, i + 1);
        pb_page t = c->page[i];
        c->page[i] = c->page[j];
        c->page[j] = t;
    }
    c->bytes = c->stride * (size_t)c->n_pages;
    c->base = tail_take(&c->mem, c->bytes, 0xff); /* NaN until written */
}

static char *page_at(const cache *c, pb_page page)
{
    return c->base + (size_t)page * c->stride + (size_t)c->p->layer * c->layer;
}

static void write_step(cache *c, const pb_attend_args *a)
{
    for (int32_t r = 0; r < a->step->n_rows;) { /* ranges of 1 to 5 rows */
        int32_t n = 1 + r % 5;
        n = n > a->step->n_rows - r ? a->step->n_rows - r : n;
        c->f->write(a, r, r + n);
        r += n;
    }
}

/* The last page of each sequence moves to its spare one, as a plugin's copy on write does. */
static void move_pages(cache *c, const int32_t *held)
{
    const problem *p = c->p;
    for (int32_t q = 0; q < p->n_seqs; q++) {
        int32_t n = held[q] % p->page_tokens, i = held[q] / p->page_tokens;
        pb_page *from = &c->page[q * c->most + i], *to = &c->page[p->n_seqs * c->most + q];
        if (n == 0)
            continue;
        c->f->copy(&c->shape, p->page_tokens, page_at(c, *from), page_at(c, *to), n);
        memset(page_at(c, *from), 0xff, c->layer);
        pb_page t = *from;
        *from = *to;
        *to = t;
    }
}

/* Pages that no row of the step sees any more are the sink, full of NaN. */
static void free_windows(cache *c)
{
    const problem *p = c->p;
    for (int32_t q = 0; q < p->n_seqs; q++) {
        int32_t first = cpu_first_key(p->window, p->ctx[q] - p->rows[q]);
        for (int32_t i = 0; (i + 1) * p->page_tokens <= first; i++)
            c->page[q * c->most + i] = 0;
    }
}

static void make_items(cache *c, const int32_t *from)
{
    const problem *p = c->p;
    int32_t cap = 0, n = 0;
    for (int32_t q = 0; q < p->n_seqs; q++)
        cap += p->rows[q] * p->n_kv * (p->ctx[q] / PB_SPAN + 1);
    c->items = realloc(c->items, (size_t)cap * sizeof *c->items);
    for (int32_t q = 0, row = 0; q < p->n_seqs; row += p->rows[q++])
        for (int32_t r = 0; r < p->rows[q]; r += p->item_rows) {
            int32_t rows = p->rows[q] - r < p->item_rows ? p->rows[q] - r : p->item_rows;
            int32_t s0 = cpu_first_key(p->window, from[q] + r) / PB_SPAN;
            int32_t s1 = (from[q] + r + rows - 1) / PB_SPAN + 1;
            s0 = p->all_spans ? 0 : s0;
            int32_t each = p->spans == SINGLE ? 1 : s1 - s0;
            for (int32_t h = 0; h < p->n_kv; h++)
                for (int32_t s = s0; s < s1; s += each)
                    c->items[n++] = (pb_attend_item){ q, row + r, rows, h, s, each };
        }
    assert_true(n <= cap);
    c->n_items = n;
}

/* Spans that were left apart, merged as the backend does. */
static void merge(const cache *c, const pb_attend_args *a)
{
    int32_t ratio = c->p->ratio, vd = c->p->vd;
    const pb_attend_item *it = c->items;
    for (int32_t i = 0, j; i < c->n_items; i = j) {
        for (j = i + 1; j < c->n_items; j++)
            if (it[j].row0 != it[i].row0 || it[j].kv_head != it[i].kv_head)
                break;
        int64_t stride = it[i].n_spans > 1 ? vd + 2 : a->part_stride;
        int32_t spans = it[i].n_spans > 1 ? it[i].n_spans : j - i;
        for (int32_t n = 0; n < it[i].n_rows * ratio; n++) {
            float *y = a->y + (it[i].row0 + n / ratio) * a->y_stride +
                       (it[i].kv_head * ratio + n % ratio) * (int64_t)vd;
            cpu_merge_spans(a->part + i * a->part_stride + (int64_t)n * it[i].n_spans * (vd + 2),
                            stride, spans, vd, y);
        }
    }
}

/* All items, in ranges, the last range first. */
static void attend_step(cache *c, pb_attend_args *a)
{
    const problem *p = c->p;
    int32_t max_ctx = 0, most = 0;
    for (int32_t q = 0; q < p->n_seqs; q++)
        max_ctx = p->ctx[q] > max_ctx ? p->ctx[q] : max_ctx;
    for (int32_t i = 0; i < c->n_items; i++)
        most = c->items[i].n_spans * c->items[i].n_rows > most
                   ? c->items[i].n_spans * c->items[i].n_rows
                   : most;
    a->items = c->items;
    if (p->spans != WHOLE) {
        a->part_stride = (int64_t)most * p->ratio * (p->vd + 2);
        a->part = tail_take(&c->part, (size_t)(c->n_items * a->part_stride) * 4, CANARY);
    }
    for (int32_t i1 = c->n_items, n = 1; i1 > 0; i1 -= n, n = 1 + n % 3) {
        n = n > i1 ? i1 : n;
        size_t bytes = c->f->scratch_bytes(&c->shape, a->n_heads, max_ctx);
        a->scratch = tail_take(&c->scratch, bytes, 0xff);
        c->f->attend(a, i1 - n, i1);
        assert_true(tail_lead_ok(&c->scratch, a->scratch, 0xff));
    }
    if (a->part) {
        assert_true(tail_lead_ok(&c->part, a->part, CANARY));
        merge(c, a);
    }
    assert_true(tail_lead_ok(&c->y, a->y, CANARY));
}

/* Two steps: most tokens, then the last rows, which attend. Returns the latter's args. */
static pb_attend_args run_kv(cache *c, const pb_kvfmt *f, const problem *p, int attends)
{
    int32_t zero[MAX_SEQS] = { 0 }, held[MAX_SEQS], any = 0;
    open_cache(c, f, p);
    for (int32_t q = 0; q < p->n_seqs; q++) {
        held[q] = p->ctx[q] - p->rows[q];
        any += held[q];
    }
    if (any > 0) {
        const pb_step *s = make_step(c, zero, held);
        pb_attend_args a = make_args(c, s, zero, held);
        write_step(c, &a);
    }
    if (p->seed % 2)
        move_pages(c, held);
    const pb_step *s = make_step(c, held, p->ctx);
    pb_attend_args a = make_args(c, s, held, p->ctx);
    write_step(c, &a);
    if (p->window > 0) {
        free_windows(c);
        s = make_step(c, held, p->ctx);
        a.step = s;
    }
    make_items(c, held);
    if (attends)
        attend_step(c, &a);
    return a;
}

/* ---- comparison ------------------------------------------------------------------------ */

static const pb_kvfmt *plain_of(const pb_kvfmt *f)
{
    for (int i = 0; cpu_kvfmt_any[i]; i++)
        if (!strcmp(cpu_kvfmt_any[i]->name, f->name))
            return cpu_kvfmt_any[i];
    return NULL;
}

static void describe(const pb_kvfmt *f, const problem *p, const char *what)
{
    print_error("%s/%s: %s: %d sequences of %d %d %d, rows %d %d %d, heads %d x %d of %d and %d, "
                "pages of %d, window %d, softcap %g, items of %d rows, spans %d, gap %d, fill %d, "
                "seed %u\n",
                f->name, f->isa, what, p->n_seqs, p->ctx[0], p->ctx[1], p->ctx[2], p->rows[0],
                p->rows[1], p->rows[2], p->n_kv, p->ratio, p->hd, p->vd, p->page_tokens, p->window,
                (double)p->softcap, p->item_rows, p->spans, p->gap, p->fill, p->seed);
}

/* y of the same rows with different strides; what lies between rows is untouched */
static int same_y(const problem *p, const pb_attend_args *a, const pb_attend_args *b)
{
    int64_t width = (int64_t)a->n_heads * p->vd;
    float untouched;
    memset(&untouched, CANARY, 4);
    for (int64_t r = 0; r < a->step->n_rows; r++) {
        for (int64_t i = 0; i < width; i++)
            if (!same_float(a->y[r * a->y_stride + i], b->y[r * b->y_stride + i]))
                return 0;
        for (int64_t i = width; i < b->y_stride && r + 1 < a->step->n_rows; i++)
            if (m_bits(b->y[r * b->y_stride + i]) != m_bits(untouched))
                return 0;
    }
    return 1;
}

/* f against plain C: y against the simplest form, the cache's bytes against the same pages. */
static int agree(const pb_kvfmt *f, const problem *p, int quiet)
{
    const pb_kvfmt *ref = plain_of(f);
    problem simple = *p;
    simple.page_tokens = ref->granule;
    simple.item_rows = simple.n_layers = 1;
    simple.spans = WHOLE;
    simple.all_spans = simple.gap = simple.layer = 0;
    simple.seed &= ~1u; /* no page moves; the numbers stay */
    problem q = *p;
    pb_attend_args got = run_kv(&got_, f, &q, 1);
    run_kv(&want_, ref, &q, 0);
    if (memcmp(want_.base, got_.base, got_.bytes) || !tail_lead_ok(&got_.mem, got_.base, 0xff)) {
        if (!quiet)
            describe(f, p, "the cache differs");
        return 0;
    }
    pb_attend_args want = run_kv(&want_, ref, &simple, 1);
    if (!same_y(p, &want, &got)) {
        if (!quiet)
            describe(f, p, "the output differs");
        return 0;
    }
    return 1;
}

/* ---- the plan -------------------------------------------------------------------------- */

static const int32_t dims[] = { 64, 16, 128, 32, 48, 80 }, ratios[] = { 1, 3, 4, 2, 7, 5, 8 };
static const int32_t lengths[] = { 1,   2,   15,  16,  17,  31,  63,  64,  65,   66,  127, 128,
                                   129, 200, 256, 257, 300, 511, 512, 513, 1030, 577, 96,  33 };
static const int32_t windows[] = { 0, 0, 1, 16, 0, 63, 64, 100, 0, 130, 600, 5 };
static const int32_t page_sizes[] = { 16, 32, 64, 48, 128, 112, 1040 };

static void any_problem(uint32_t *s, problem *p)
{
    *p = (problem){ .n_seqs = 1 + rnd_to(s, MAX_SEQS), .n_kv = 1 + rnd_to(s, 3) };
    p->ratio = ratios[rnd_to(s, 7)];
    p->hd = dims[rnd_to(s, 6)];
    p->vd = rnd_to(s, 4) ? p->hd : dims[rnd_to(s, 6)] - (rnd_to(s, 4) ? 0 : 7);
    p->page_tokens = page_sizes[rnd_to(s, 7)];
    p->window = windows[rnd_to(s, 12)];
    p->item_rows = rnd_to(s, 3) ? 1 + rnd_to(s, CPU_ITEM_ROWS) : CPU_ITEM_ROWS;
    p->spans = rnd_to(s, 3);
    p->all_spans = rnd_to(s, 2);
    p->n_layers = 1 + rnd_to(s, 2);
    p->layer = rnd_to(s, p->n_layers);
    p->n_groups = 1 + rnd_to(s, 2);
    p->gap = rnd_to(s, 3) * 3;
    p->fill = rnd_to(s, 2) ? KV_NORMAL : rnd_to(s, N_FILLS);
    p->softcap = rnd_to(s, 4) ? 0.0f : 2.5f;
    p->seed = rnd_next(s) * 2 + (uint32_t)rnd_to(s, 2);
    int64_t work = (int64_t)p->n_kv * p->ratio * (p->hd + p->vd);
    for (int32_t q = 0; q < p->n_seqs; q++) {
        p->ctx[q] = lengths[rnd_to(s, 24)];
        p->rows[q] = 1 + rnd_to(s, rnd_to(s, 2) ? 3 : 40);
        p->rows[q] = p->rows[q] > p->ctx[q] ? p->ctx[q] : p->rows[q];
        while (p->rows[q] > 1 && work * p->rows[q] * p->ctx[q] > 400000)
            p->rows[q]--;
    }
    if (p->spans == SINGLE)
        p->item_rows = 1;
}

/* Problem i of the plan: each length, head size, ratio and page size with another of the rest. */
static int planned(int i, problem *p)
{
    uint32_t s = (uint32_t)i * 2246822519u + 3;
    if (i >= 96)
        return 0;
    any_problem(&s, p);
    p->ctx[0] = lengths[i % 24];
    p->rows[0] = p->rows[0] > p->ctx[0] ? p->ctx[0] : p->rows[0];
    p->hd = dims[i % 6];
    p->vd = i % 11 == 10 ? p->vd : p->hd;
    p->ratio = ratios[i % 7];
    p->page_tokens = page_sizes[(i / 2) % 7];
    p->window = windows[(i / 3) % 12];
    p->spans = i % 4 == 3 ? SINGLE : i % 3 == 2 ? APART : WHOLE;
    p->item_rows = p->spans == SINGLE ? 1 : i % 5 ? p->item_rows : CPU_ITEM_ROWS;
    if (i % 5 == 0 && p->ctx[0] <= 300) { /* full items */
        p->n_seqs = p->n_kv = 1;
        p->rows[0] = p->ctx[0] < CPU_ITEM_ROWS + i % 3 ? p->ctx[0] : CPU_ITEM_ROWS + i % 3;
    }
    return 1;
}

void test_kv(void **state)
{
    int64_t cases[64] = { 0 };
    const char *env = getenv("PATCHBAY_FUZZ_SEED");
    uint32_t s = env ? (uint32_t)strtoul(env, NULL, 0) : 1;
    double t0 = now_s();
    const pb_kvfmt *f;
    problem p;
    (void)state;
    for (int n = 0; planned(n, &p) || !seconds_over(t0, 0.35); n++) {
        if (!planned(n, &p))
            any_problem(&s, &p);
        for (int i = 0; (f = cpu_kvfmt_at(i)) != NULL; i++) {
            assert_non_null(plain_of(f)); /* a format that nothing defines */
            if (!f->usable() || (f == plain_of(f) && n % 3))
                continue;
            if (!agree(f, &p, 0))
                fail_msg("KV format %s (%s) differs from plain C", f->name, f->isa);
            cases[i]++;
        }
    }
    for (int i = 0; (f = cpu_kvfmt_at(i)) != NULL; i++) {
        assert_true(!f->usable() || cases[i] > 30);
        if (cases[i])
            print_message("%s/%s = %s/any: %lld problems\n", f->name, f->isa, f->name,
                          (long long)cases[i]);
        else
            print_message("%s/%s: not on this machine\n", f->name, f->isa);
    }
}

/* ---- rows with faults are caught ----------------------------------------------------------- */

static void attend_one_more(const pb_attend_args *a, int32_t i0, int32_t i1)
{
    pb_attend_args b = *a;
    b.window += b.window > 0;
    cpu_kvfmt_any[1]->attend(&b, i0, i1);
}

static void attend_bit(const pb_attend_args *a, int32_t i0, int32_t i1)
{
    cpu_kvfmt_any[1]->attend(a, i0, i1);
    float *y = a->y + a->items[i0].row0 * a->y_stride;
    y[0] = m_float(m_bits(y[0]) ^ 1u);
}

static void attend_gap(const pb_attend_args *a, int32_t i0, int32_t i1)
{
    cpu_kvfmt_any[1]->attend(a, i0, i1);
    a->y[a->n_heads * a->shape->v_dim] = 0.0f;
}

static void write_bit(const pb_attend_args *a, int32_t r0, int32_t r1)
{
    pb_attend_args b = *a;
    float k = a->k[r0 * a->k_stride], *one = malloc((size_t)((r1 - r0) * a->k_stride) * 4);
    cpu_kvfmt_any[1]->write(a, r0, r1);
    memcpy(one, a->k + r0 * a->k_stride, (size_t)a->shape->head_dim * 4);
    one[0] = m_float(m_bits(k) ^ 1u);
    b.k = one - r0 * a->k_stride;
    if (r1 == r0 + 1 && a->shape->n_kv_heads == 1)
        cpu_kvfmt_any[1]->write(&b, r0, r1);
    free(one);
}

static void copy_less(const pb_kv_shape *s, int32_t page_tokens, const void *src, void *dst,
                      int32_t n)
{
    if (n > 1)
        cpu_kvfmt_any[1]->copy(s, page_tokens, src, dst, n - 1);
}

void test_kv_see_faults(void **state)
{
    problem p = { .n_seqs = 1, .ctx = { 90 }, .rows = { 5 }, .n_kv = 1, .ratio = 2 };
    p.hd = p.vd = 32;
    p.page_tokens = 32;
    p.window = 40;
    p.item_rows = 4;
    p.n_layers = p.n_groups = 1;
    p.gap = 3;
    p.fill = KV_NORMAL;
    p.seed = 5;
    (void)state;
    pb_kvfmt f = *cpu_kvfmt_any[1];
    assert_string_equal(f.name, "f32");
    assert_true(agree(&f, &p, 1));
    f.attend = attend_one_more;
    assert_false(agree(&f, &p, 1));
    f.attend = attend_bit;
    assert_false(agree(&f, &p, 1));
    f.attend = attend_gap;
    assert_false(agree(&f, &p, 1));
    f.attend = cpu_kvfmt_any[1]->attend;
    f.write = write_bit;
    assert_false(agree(&f, &p, 1));
    f.write = cpu_kvfmt_any[1]->write;
    f.copy = copy_less;
    assert_false(agree(&f, &p, 1));
    f.copy = cpu_kvfmt_any[1]->copy;
    assert_true(agree(&f, &p, 1));
}
