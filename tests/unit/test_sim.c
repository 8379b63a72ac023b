/* SPDX-License-Identifier: MIT
 *
 * tests/unit/test_sim.c - backend-sim: tokens depend on every KV word that a row should read and
 * on nothing else; time follows the prices; what a step may not name is refused.
 */
#include "plug.h"
#include "../../plugins/backend-common/draw.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 97, MAX_ROWS = 64, N_PAGES = 40 };

typedef struct bench {
    plug p;
    const pb_backend *v;
    struct pb_exec *x;
    struct pb_kv *kv;
    void *arena;
    pb_kv_plan plan;
    pb_clock clock;
    int64_t now;
    pb_tensor tensor;
    pb_piece piece;
    pb_weight_use use;
    pb_kv_shape shape;
    pb_val_info vals[3];
    pb_op ops[3];
    pb_program prog;
    uint64_t n; /* steps so far */
} bench;

static int advance(void *h, int64_t ns)
{
    ((bench *)h)->now += ns;
    return 0;
}

static void open_bench(bench *b, const char *const *opt, int32_t page_tokens, int32_t window)
{
    pb_err err = { 0 };
    memset(b, 0, sizeof *b);
    b->clock = (pb_clock){ .size = sizeof b->clock, .h = b, .advance = advance };
    pbi_services svc = { .clock = &b->clock };
    pb_run run = {
        .size = sizeof run, .max_seqs = 8, .max_rows = MAX_ROWS, .max_ctx = 256, .n_vocab = VOCAB
    };
    plug_open(&b->p, "backend", "sim", opt, &svc, &run);
    b->v = b->p.vtbl;
    b->tensor = (pb_tensor){ .name = "w", .rows = VOCAB, .cols = 32, .row_bytes = 64 };
    b->piece = (pb_piece){ .t = &b->tensor, .n_rows = VOCAB, .n_cols = 32 };
    b->use = (pb_weight_use){
        .role = PB_ROLE_LINEAR, .n_pieces = 1, .pieces = &b->piece, .rows = VOCAB, .cols = 32
    };
    b->shape = (pb_kv_shape){ .size = sizeof b->shape,
                              .kind = PB_KV_GQA,
                              .n_layers = 1,
                              .window = window,
                              .n_kv_heads = 1,
                              .head_dim = 32,
                              .v_dim = 32 };
    b->vals[2].picked = 1;
    b->ops[0] = (pb_op){ .kind = PB_OP_EMBED, .name = "embed" };
    b->ops[1] = (pb_op){ .kind = PB_OP_ATTEND, .name = "attend" };
    b->ops[1].u.attend =
        (pb_op_attend){ .n_heads = 1, .n_kv_heads = 1, .head_dim = 32, .v_dim = 32 };
    b->ops[2] = (pb_op){ .kind = PB_OP_LINEAR, .name = "head" };
    b->ops[2].u.linear = (pb_op_linear){ .x = 2, .n_w = 1 };
    b->prog = (pb_program){ .size = sizeof b->prog,
                            .n_ops = 3,
                            .n_vals = 3,
                            .n_weights = 1,
                            .n_groups = 1,
                            .ops = b->ops,
                            .vals = b->vals,
                            .weights = &b->use,
                            .groups = &b->shape,
                            .n_vocab = VOCAB };
    pb_limits lim = {
        .size = sizeof lim, .max_rows = MAX_ROWS, .max_seqs = 8, .max_ctx = 256, .max_out = MAX_ROWS
    };
    void *self = plug_self(&b->p);
    b->plan = (pb_kv_plan){ .page_tokens = page_tokens, .n_pages = N_PAGES };
    assert_int_equal(b->v->compile(self, &b->prog, &lim, &b->x, &err), 0);
    assert_int_equal(b->v->arena(self, 1 << 20, &b->arena, &err), 0);
    assert_int_equal(b->v->kv(self, b->x, b->arena, 1 << 20, 1, &b->plan, &b->kv, &err), 0);
}

static void close_bench(bench *b)
{
    void *self = plug_self(&b->p);
    b->v->kv_free(self, b->kv);
    b->v->exec_free(self, b->x);
    b->v->arena_free(self, b->arena);
    plug_close(&b->p);
}

/* One sequence's part of a step. */
typedef struct part {
    const int32_t *tokens;
    int32_t first, n; /* positions [first, first + n) */
    const pb_page *table;
    int32_t n_pages;
} part;

typedef struct record {
    pb_step s;
    int32_t token[MAX_ROWS], pos[MAX_ROWS], row_begin[9], table_begin[9], table[8 * N_PAGES],
        out_row[MAX_ROWS];
    pb_copy copy[4];
} record;

/* The last row of every part is wanted. */
static record *make_step(bench *b, const part *p, int32_t n, int32_t flags)
{
    record *r = calloc(1, sizeof *r);
    int32_t t = 0;
    r->s = (pb_step){ .size = sizeof r->s,
                      .bytes = sizeof *r,
                      .n = ++b->n,
                      .n_seqs = n,
                      .n_out = n,
                      .n_groups = 1,
                      .flags = flags,
                      .token = offsetof(record, token),
                      .pos = offsetof(record, pos),
                      .kv_pos = offsetof(record, pos),
                      .row_begin = offsetof(record, row_begin),
                      .table_begin = offsetof(record, table_begin),
                      .table = offsetof(record, table),
                      .copy = offsetof(record, copy),
                      .out_row = offsetof(record, out_row) };
    for (int32_t q = 0; q < n; q++) {
        for (int32_t i = 0; i < p[q].n; i++) {
            r->token[r->s.n_rows] = p[q].tokens[p[q].first + i];
            r->pos[r->s.n_rows++] = p[q].first + i;
        }
        for (int32_t i = 0; i < p[q].n_pages; i++)
            r->table[t++] = p[q].table[i];
        r->row_begin[q + 1] = r->s.n_rows;
        r->table_begin[q + 1] = t;
        r->out_row[q] = r->s.n_rows - 1;
    }
    return r;
}

/* Runs and frees r; ids get the greedy tokens. Returns wait's code. */
static int run_step(bench *b, record *r, int32_t *ids, pb_result *out)
{
    pb_draw d[8];
    pb_result res = { .size = sizeof res };
    void *self = plug_self(&b->p);
    for (int i = 0; i < 8; i++)
        d[i] = (pb_draw){ .size = sizeof d[i], .forced = -1, .n_logprobs = -1, .top_p = 1.0f };
    int rc = b->v->submit(self, b->x, b->kv, &r->s);
    if (!rc)
        rc = b->v->pick(self, b->x, r->s.n_out, d, sizeof *d);
    if (!rc)
        rc = b->v->wait(self, b->x, r->s.n, &res);
    for (int32_t i = 0; !rc && ids && i < r->s.n_out; i++)
        ids[i] = res.ids[i];
    if (out)
        *out = res;
    free(r);
    return rc;
}

/* Feeds `n` tokens in chunks, then decodes `more`; tokens has room for both. */
static void generate(bench *b, int32_t *tokens, int32_t n, int32_t more, int32_t chunk,
                     const pb_page *table, int32_t n_pages)
{
    int32_t at = 0;
    while (at < n + more - 1) {
        int32_t feed = at < n ? (n - at < chunk ? n - at : chunk) : 1, id;
        part p = { tokens, at, feed, table, n_pages };
        assert_int_equal(run_step(b, make_step(b, &p, 1, 0), &id, NULL), 0);
        at += feed;
        if (at >= n)
            tokens[at] = id;
    }
}

static const pb_page table_a[] = { 3, 1, 7, 2, 9, 8, 30, 31, 32, 33 };
static const pb_page table_b[] = { 12, 11, 4, 5, 6, 20, 21, 22, 23, 24 };

static void prompt(int32_t *t, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        t[i] = (i * 31 + 5) % VOCAB;
}

static void test_same_text(void **state)
{
    int32_t want[60], have[60];
    for (int32_t window = 0; window <= 9; window += 9)
        for (int32_t page = 4; page <= 16; page += 3)
            for (int32_t chunk = 1; chunk <= 20; chunk += 6) {
                bench b;
                open_bench(&b, NULL, 7, window);
                prompt(want, 20);
                generate(&b, want, 20, 16, 20, table_a, 6);
                close_bench(&b);
                open_bench(&b, NULL, page, window);
                prompt(have, 20);
                generate(&b, have, 20, 16, chunk, table_b, 10);
                close_bench(&b);
                assert_memory_equal(want, have, 36 * sizeof *want);
            }
}

/* The row's logits with position i of its table led astray (-1: none). */
static void last_row(bench *b, const int32_t *t, int32_t n, const pb_page *table,
                     const pb_page *astray, int32_t i, float *row)
{
    pb_page wrong[16];
    pb_result res;
    memcpy(wrong, table, (size_t)n * sizeof *table);
    if (i >= 0)
        wrong[i] = astray[i];
    part p = { t, n - 1, 1, wrong, n };
    assert_int_equal(run_step(b, make_step(b, &p, 1, PB_STEP_LOGITS), NULL, &res), 0);
    memcpy(row, res.logits, VOCAB * sizeof *row);
}

/* Each word that the last row reads is changed in turn, by a page table that is wrong in one
 * place; those before the window are not read. */
static void test_wrong_page_shows(void **state)
{
    for (int32_t window = 0; window <= 4; window += 4) {
        bench b;
        int32_t t[32], other[32];
        float want[VOCAB], have[VOCAB];
        pb_page table[10], astray[10];
        open_bench(&b, NULL, 1, window);
        prompt(t, 10);
        for (int32_t i = 0; i < 10; i++) {
            table[i] = 1 + i;
            astray[i] = 20 + i;
            other[i] = (t[i] + 1) % VOCAB;
        }
        part p = { t, 0, 10, table, 10 }, q = { other, 0, 10, astray, 10 };
        assert_int_equal(run_step(&b, make_step(&b, &p, 1, 0), NULL, NULL), 0);
        assert_int_equal(run_step(&b, make_step(&b, &q, 1, 0), NULL, NULL), 0);
        last_row(&b, t, 10, table, astray, -1, want);
        for (int32_t i = 0; i < 9; i++) {
            last_row(&b, t, 10, table, astray, i, have);
            int same = memcmp(want, have, sizeof want) == 0;
            assert_int_equal(same, window > 0 && i < 10 - window);
        }
        last_row(&b, t, 10, table, astray, -1, have);
        assert_memory_equal(want, have, sizeof want);
        close_bench(&b);
    }
}

static void test_copy_and_poison(void **state)
{
    bench b;
    pb_result res;
    int32_t t[32], id, id2;
    open_bench(&b, NULL, 8, 0);
    prompt(t, 12);
    part p = { t, 0, 12, table_a, 2 };
    assert_int_equal(run_step(&b, make_step(&b, &p, 1, 0), &id, NULL), 0);
    /* the second page is taken over up to position 11, and the last row computed there */
    pb_page moved[] = { table_a[0], 5 };
    p = (part){ t, 11, 1, moved, 2 };
    record *r = make_step(&b, &p, 1, 0);
    r->s.n_copies = 1;
    r->copy[0] = (pb_copy){ .src = table_a[1], .dst = 5, .n_tokens = 3 };
    assert_int_equal(run_step(&b, r, &id2, NULL), 0);
    assert_int_equal(id, id2);
    /* without the copy of position 10 it reads memory that nobody wrote */
    pb_page fresh[] = { table_a[0], 6 };
    p.table = fresh;
    r = make_step(&b, &p, 1, PB_STEP_CHECK);
    r->s.n_copies = 1;
    r->copy[0] = (pb_copy){ .src = table_a[1], .dst = 6, .n_tokens = 2 };
    assert_int_equal(run_step(&b, r, NULL, &res), PB_E_NUMERIC);
    assert_int_equal(res.faulty_op, 1);
    /* nor does a poisoned page go unseen */
    assert_int_equal(b.v->poison(plug_self(&b.p), b.kv, 0, 5), 0);
    p.table = moved;
    assert_int_equal(run_step(&b, make_step(&b, &p, 1, 0), NULL, NULL), PB_E_NUMERIC);
    assert_int_equal(b.v->poison(plug_self(&b.p), b.kv, 0, N_PAGES), PB_E_INVAL);
    close_bench(&b);
}

/* The shortcut of greedy draws gives the token that the row of logits gives. */
static void test_rows(void **state)
{
    bench b;
    int32_t t[32];
    open_bench(&b, NULL, 8, 0);
    void *scratch = malloc(pbc_draw_scratch(VOCAB));
    for (int32_t k = 0; k < 200; k++) {
        prompt(t, 10);
        t[k % 10] = k % VOCAB;
        part p = { t, 0, 10, table_a, 2 };
        pb_result res;
        int32_t id, again;
        pb_draw d = { .size = sizeof d, .forced = -1, .n_logprobs = -1, .top_p = 1.0f };
        assert_int_equal(run_step(&b, make_step(&b, &p, 1, PB_STEP_LOGITS), &id, &res), 0);
        assert_non_null(res.logits);
        assert_int_equal(pbc_draw(&d, res.logits, VOCAB, scratch, &again, NULL), 0);
        assert_int_equal(id, again);
    }
    free(scratch);
    close_bench(&b);
}

/* A row may name a pick of the step before instead of a token. */
static void test_pick_of_before(void **state)
{
    bench b;
    int32_t t[32], id, want, have;
    open_bench(&b, NULL, 8, 0);
    prompt(t, 10);
    part p = { t, 0, 10, table_a, 2 };
    assert_int_equal(run_step(&b, make_step(&b, &p, 1, 0), &id, NULL), 0);
    t[10] = ~0;
    p = (part){ t, 10, 1, table_a, 2 };
    assert_int_equal(run_step(&b, make_step(&b, &p, 1, 0), &have, NULL), 0);
    t[10] = id;
    assert_int_equal(run_step(&b, make_step(&b, &p, 1, 0), &want, NULL), 0);
    assert_int_equal(have, want);
    t[10] = ~1;
    assert_int_equal(run_step(&b, make_step(&b, &p, 1, 0), NULL, NULL), PB_E_INVAL);
    close_bench(&b);
}

static int64_t price(const char *const *opt, int32_t rows)
{
    bench b;
    int32_t t[64];
    open_bench(&b, opt, 16, 0);
    prompt(t, rows);
    part p = { t, 0, rows, table_a, 4 };
    assert_int_equal(run_step(&b, make_step(&b, &p, 1, 0), NULL, NULL), 0);
    int64_t ns = b.now;
    close_bench(&b);
    return ns;
}

static void test_clock(void **state)
{
    static const char *const fixed[] = { "step_us=7", "gflops=0", "gbps=0", NULL };
    static const char *const row[] = { "step_us=7", "gflops=0", "gbps=0", "row_us=2", NULL };
    static const char *const kv[] = { "step_us=0", "gflops=0", "gbps=0", "kv_ns=3", NULL };
    static const char *const band[] = { "step_us=0", "gflops=0", "gbps=1", NULL };
    static const char *const flop[] = { "step_us=0", "gflops=1", "gbps=0", NULL };
    assert_int_equal(price(fixed, 5), 7000);
    assert_int_equal(price(row, 5), 17000);
    assert_int_equal(price(kv, 40), 120);
    /* 97 rows of 64 bytes, and 10 keys of 64 elements of 16 bits */
    assert_int_equal(price(band, 10), 97 * 64 + 10 * 128);
    /* one wanted row of 97 x 32, and 55 (row, key) pairs of 64 multiply-adds */
    assert_int_equal(price(flop, 10), 2 * (97 * 32 + 55 * 64));
}

static void test_refusals(void **state)
{
    bench b;
    int32_t t[32];
    pb_page bad[] = { 1, N_PAGES };
    open_bench(&b, NULL, 8, 0);
    prompt(t, 10);
    part p = { t, 0, 10, bad, 2 };
    assert_int_equal(run_step(&b, make_step(&b, &p, 1, 0), NULL, NULL), PB_E_INVAL);
    p = (part){ t, 0, 10, table_a, 1 };
    assert_int_equal(run_step(&b, make_step(&b, &p, 1, 0), NULL, NULL), PB_E_INVAL);
    t[3] = VOCAB;
    p = (part){ t, 0, 10, table_a, 2 };
    assert_int_equal(run_step(&b, make_step(&b, &p, 1, 0), NULL, NULL), PB_E_INVAL);
    pb_err err = { 0 };
    pb_result res;
    struct pb_kv *kv;
    pb_kv_plan two[2] = { b.plan, b.plan };
    assert_int_equal(b.v->wait(plug_self(&b.p), b.x, 1000, &res), PB_E_STATE);
    assert_int_equal(b.v->kv(plug_self(&b.p), b.x, b.arena, 1 << 20, 2, two, &kv, &err),
                     PB_E_INVAL);
    close_bench(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_text),       cmocka_unit_test(test_wrong_page_shows),
        cmocka_unit_test(test_copy_and_poison), cmocka_unit_test(test_rows),
        cmocka_unit_test(test_pick_of_before),  cmocka_unit_test(test_clock),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
