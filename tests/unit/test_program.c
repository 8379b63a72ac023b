/* SPDX-License-Identifier: MIT
 *
 * tests/unit/test_program.c - the program builder: a small valid program, then every rule broken
 * once. Each case is the valid program with one thing changed.
 */
#include "config.h"

#include "program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 96, WIDTH = 64, FFN = 128, HEADS = 4, KV = 2, HD = 16 };

static int no_read(const pb_tensor *t, int64_t row0, int64_t n_rows, void *dst)
{
    (void)t, (void)row0, (void)n_rows, (void)dst;
    return PB_E_INVAL;
}

static pb_tensor tensor(const char *name, int64_t rows, int64_t cols)
{
    return (pb_tensor){ .name = name,
                        .type = PB_F32,
                        .n_dims = 2,
                        .dim = { cols, rows, 1, 1 },
                        .rows = rows,
                        .cols = cols,
                        .row_bytes = (uint64_t)cols * 4,
                        .read = no_read };
}

/* All parts of the program; a case changes some of them before or after they are made. */
typedef struct parts {
    pb_err err;
    pbi_program *p;
    const pb_builder *b;
    pb_tensor embed, norm, qkv, o, gate, up, down;
    pb_piece qkv_piece[3];
    pb_kv_shape kv;
    pb_wid w_embed, w_norm, w_qkv[3], w_o, w_gate, w_up, w_down;
    pb_val x, q, k, v, att, mid, ffn, out, last, logits;
    pb_op op[7];
    int32_t n_ops, n_vocab, ctx;
} parts;

static pb_wid whole(parts *t, int32_t role, const pb_tensor *of)
{
    pb_piece q = { .t = of, .n_rows = of->rows, .n_cols = of->cols };
    return t->b->weight(t->b->h, role, 1, &q);
}

static pb_op linear(const char *name, pb_val x, pb_val y, pb_wid w)
{
    return (pb_op){ .kind = PB_OP_LINEAR,
                    .name = name,
                    .u.linear = { .x = x,
                                  .residual = -1,
                                  .y = { y, -1, -1, -1 },
                                  .w = { w, -1, -1, -1 },
                                  .b = { -1, -1, -1, -1 },
                                  .pre_norm = -1,
                                  .post_norm = -1,
                                  .n_w = 1 } };
}

static void make_tensors(parts *t)
{
    t->embed = tensor("embed", VOCAB, WIDTH);
    t->norm = tensor("norm", 1, WIDTH);
    t->qkv = tensor("qkv", (HEADS + 2 * KV) * HD, WIDTH);
    t->o = tensor("o", WIDTH, HEADS * HD);
    t->gate = tensor("gate", FFN, WIDTH);
    t->up = tensor("up", FFN, WIDTH);
    t->down = tensor("down", WIDTH, FFN);
    int64_t row = 0;
    for (int i = 0; i < 3; i++) {
        int64_t n = (i ? KV : HEADS) * HD;
        t->qkv_piece[i] = (pb_piece){ .t = &t->qkv, .row0 = row, .n_rows = n, .n_cols = WIDTH };
        row += n;
    }
    t->kv = (pb_kv_shape){ .size = sizeof t->kv,
                           .kind = PB_KV_GQA,
                           .n_layers = 1,
                           .n_kv_heads = KV,
                           .head_dim = HD,
                           .v_dim = HD };
}

static void make_weights(parts *t)
{
    const pb_builder *b = t->b;
    t->w_embed = whole(t, PB_ROLE_LINEAR, &t->embed);
    t->w_norm = whole(t, PB_ROLE_VECTOR, &t->norm);
    for (int i = 0; i < 3; i++)
        t->w_qkv[i] = b->weight(b->h, PB_ROLE_LINEAR, 1, &t->qkv_piece[i]);
    t->w_o = whole(t, PB_ROLE_LINEAR, &t->o);
    t->w_gate = whole(t, PB_ROLE_LINEAR, &t->gate);
    t->w_up = whole(t, PB_ROLE_LINEAR, &t->up);
    t->w_down = whole(t, PB_ROLE_LINEAR, &t->down);
    b->group(b->h, &t->kv);
    t->x = b->value(b->h, "x", WIDTH, 0);
    t->q = b->value(b->h, "q", HEADS * HD, 0);
    t->k = b->value(b->h, "k", KV * HD, 0);
    t->v = b->value(b->h, "v", KV * HD, 0);
    t->att = b->value(b->h, "att", HEADS * HD, 0);
    t->mid = b->value(b->h, "mid", WIDTH, 0);
    t->ffn = b->value(b->h, "ffn", FFN, 0);
    t->out = b->value(b->h, "out", WIDTH, 0);
    t->last = b->value(b->h, "last", WIDTH, 1);
    t->logits = b->value(b->h, "logits", VOCAB, 1);
}

static void make_ops(parts *t)
{
    t->op[0] = (pb_op){ .kind = PB_OP_EMBED,
                        .name = "embed",
                        .u.embed = { .y = t->x, .table = t->w_embed, .scale = 1 } };
    t->op[1] = linear("qkv", t->x, t->q, t->w_qkv[0]);
    t->op[1].u.linear.pre_norm = t->w_norm;
    t->op[1].u.linear.n_w = 3;
    for (int i = 1; i < 3; i++) {
        t->op[1].u.linear.w[i] = t->w_qkv[i];
        t->op[1].u.linear.y[i] = i == 1 ? t->k : t->v;
    }
    t->op[2] = (pb_op){ .kind = PB_OP_ATTEND,
                        .name = "attend",
                        .u.attend = { .q = t->q,
                                      .k = t->k,
                                      .v = t->v,
                                      .y = t->att,
                                      .n_heads = HEADS,
                                      .n_kv_heads = KV,
                                      .head_dim = HD,
                                      .v_dim = HD,
                                      .rope = PB_ROPE_PAIRS,
                                      .rope_dims = HD,
                                      .rope_factors = -1,
                                      .q_norm = -1,
                                      .k_norm = -1 } };
    t->op[3] = linear("o", t->att, t->mid, t->w_o);
    t->op[3].u.linear.residual = t->x;
    t->op[4] = linear("gate_up", t->mid, t->ffn, t->w_gate);
    t->op[4].u.linear.w[1] = t->w_up;
    t->op[4].u.linear.n_w = 2;
    t->op[4].u.linear.act = PB_ACT_SILU_MUL;
    t->op[5] = (pb_op){ .kind = PB_OP_ROWS, .name = "rows", .u.rows = { t->mid, t->last } };
    t->op[6] = linear("output", t->last, t->logits, t->w_embed);
    t->n_ops = 7;
    t->n_vocab = VOCAB;
    t->ctx = 32;
}

static void begin(parts *t)
{
    memset(t, 0, sizeof *t);
    make_tensors(t);
    assert_int_equal(pbi_program_new(&t->p, &t->err), 0);
    t->b = pbi_program_builder(t->p);
}

static int finish(parts *t)
{
    for (int32_t i = 0; i < t->n_ops; i++)
        t->b->op(t->b->h, &t->op[i]);
    return t->b->finish(t->b->h, t->logits, t->n_vocab, t->ctx);
}

/* before: changes tensors and shapes; after: operations */
static void expect(void (*before)(parts *), void (*after)(parts *), int code, const char *word)
{
    parts t;
    begin(&t);
    if (before)
        before(&t);
    make_weights(&t);
    make_ops(&t);
    if (after)
        after(&t);
    int rc = finish(&t);
    if (rc != code || (word && !strstr(t.err.msg, word)))
        fail_msg("expected %d with \"%s\", got %d: %s", code, word ? word : "", rc, t.err.msg);
    assert_true((pbi_program_get(t.p) != NULL) == (code == 0));
    pbi_program_free(t.p);
}

#define CHANGE(name, ...)                                                                          \
    static void name(parts *t)                                                                     \
    {                                                                                              \
        __VA_ARGS__;                                                                               \
    }

/* ---- values and weights ------------------------------------------------ */
CHANGE(piece_rows, t->qkv_piece[2].row0++)
CHANGE(piece_negative, t->qkv_piece[0].row0 = -1)
CHANGE(piece_huge, t->qkv_piece[0].row0 = INT64_MAX)
CHANGE(piece_cols, t->qkv_piece[0].n_cols = WIDTH + 1)
CHANGE(piece_empty, t->qkv_piece[0].n_rows = 0)
CHANGE(norm_rows, t->norm.rows = 2)
CHANGE(norm_short, t->norm.cols--)
CHANGE(kv_size, t->kv.size--)
CHANGE(kv_layers, t->kv.n_layers = 0)
CHANGE(value_twice, t->b->value(t->b->h, "x", WIDTH, 0))
CHANGE(value_wide, t->b->value(t->b->h, "wide", 0, 0))

static void stack_mixed(parts *t)
{
    pb_piece q[2] = { t->qkv_piece[0], t->qkv_piece[1] };
    static pb_tensor half;
    half = t->qkv;
    half.type = PB_F16;
    q[1].t = &half;
    t->b->weight(t->b->h, PB_ROLE_LINEAR, 2, q);
}

static void stack_uneven(parts *t)
{
    pb_piece q[2] = { t->qkv_piece[0], t->qkv_piece[1] };
    q[1].n_cols--;
    t->b->weight(t->b->h, PB_ROLE_LINEAR, 2, q);
}

static void test_parts(void **state)
{
    (void)state;
    expect(NULL, NULL, 0, NULL);
    expect(piece_rows, NULL, PB_E_PLUGIN, "tensor qkv is 128 x 64: rows 97+32");
    expect(piece_negative, NULL, PB_E_PLUGIN, "lie outside");
    expect(piece_huge, NULL, PB_E_PLUGIN, "lie outside");
    expect(piece_cols, NULL, PB_E_PLUGIN, "lie outside");
    expect(piece_empty, NULL, PB_E_PLUGIN, "lie outside");
    expect(norm_rows, NULL, PB_E_PLUGIN, "a vector of 2 rows");
    expect(norm_short, NULL, PB_E_FORMAT, "qkv: pre_norm (norm) is 1 x 63, needed is 1 x 64");
    expect(kv_size, NULL, PB_E_PLUGIN, "KV group");
    expect(kv_layers, NULL, PB_E_PLUGIN, "KV group of 0 layers");
    expect(NULL, value_twice, PB_E_PLUGIN, "value x exists already");
    expect(NULL, value_wide, PB_E_PLUGIN, "width 0");
    expect(NULL, stack_mixed, PB_E_UNSUPPORTED, "cannot be one weight");
    expect(NULL, stack_uneven, PB_E_PLUGIN, "64 and 63 columns cannot be stacked");
}

/* ---- operations -------------------------------------------------------- */
CHANGE(read_unwritten, t->op[4].u.linear.x = t->out)
CHANGE(read_nothing, t->op[4].u.linear.x = 99)
CHANGE(read_negative, t->op[4].u.linear.x = -1)
CHANGE(write_twice, t->op[3].u.linear.y[0] = t->x)
CHANGE(write_wrong, t->op[3].u.linear.y[0] = t->ffn)
CHANGE(write_none, t->op[3].u.linear.y[0] = -1)
CHANGE(weight_none, t->op[3].u.linear.w[0] = 99)
CHANGE(weight_role, t->op[3].u.linear.w[0] = t->w_norm)
CHANGE(weight_cols, t->op[3].u.linear.w[0] = t->w_down)
CHANGE(weights_five, t->op[1].u.linear.n_w = 5)
CHANGE(act_one, t->op[3].u.linear.act = PB_ACT_SILU_MUL)
CHANGE(up_rows, t->op[4].u.linear.w[1] = t->w_o)
CHANGE(residual_width, t->op[3].u.linear.residual = t->k)
CHANGE(residual_self, t->op[3].u.linear.residual = t->mid)
CHANGE(residual_mixed, t->op[6].u.linear.residual = t->x)
CHANGE(bias_role, t->op[3].u.linear.b[0] = t->w_o)
CHANGE(group_none, t->op[2].u.attend.group = 1)
CHANGE(layer_none, t->op[2].u.attend.layer = 1)
CHANGE(heads_odd, t->op[2].u.attend.n_heads = 3)
CHANGE(heads_kv, t->op[2].u.attend.n_kv_heads = 4)
CHANGE(rope_wide, t->op[2].u.attend.rope_dims = HD + 2)
CHANGE(rope_odd, t->op[2].u.attend.rope_dims = 7)
CHANGE(factors, t->op[2].u.attend.rope_factors = t->w_norm)
CHANGE(name_twice, t->op[3].name = "qkv")
CHANGE(kind_none, t->op[3].kind = 77)
CHANGE(rows_twice, t->op[5].u.rows.x = t->last)
CHANGE(rows_all, t->op[6] = linear("output", t->mid, t->logits, t->w_embed))
CHANGE(logits_missing, t->n_ops = 6)
CHANGE(logits_width, t->n_vocab = VOCAB - 1)
CHANGE(logits_all, t->logits = t->mid; t->n_vocab = WIDTH)
CHANGE(context_none, t->ctx = 0)

static void test_operations(void **state)
{
    (void)state;
    expect(NULL, read_unwritten, PB_E_PLUGIN, "gate_up: x (out) is read before it is written");
    expect(NULL, read_nothing, PB_E_PLUGIN, "gate_up: x is no value");
    expect(NULL, read_negative, PB_E_PLUGIN, "gate_up: x is no value");
    expect(NULL, write_twice, PB_E_PLUGIN, "o: x is written twice");
    expect(NULL, write_wrong, PB_E_PLUGIN, "o: ffn has width 128, the result 64");
    expect(NULL, write_none, PB_E_PLUGIN, "o: the output is no value");
    expect(NULL, weight_none, PB_E_PLUGIN, "o: w is no weight");
    expect(NULL, weight_role, PB_E_PLUGIN, "has role 2, not 1");
    expect(NULL, weight_cols, PB_E_FORMAT, "o: w (down) is 64 x 128, needed is 64 x 64");
    expect(NULL, weights_five, PB_E_PLUGIN, "5 weights");
    expect(NULL, act_one, PB_E_PLUGIN, "1 weights for activation 1");
    expect(NULL, up_rows, PB_E_FORMAT, "gate and up have 128 and 64 rows");
    expect(NULL, residual_width, PB_E_PLUGIN, "o: residual (k) has width 32");
    expect(NULL, residual_self, PB_E_PLUGIN, "residual");
    expect(NULL, residual_mixed, PB_E_PLUGIN, "residual");
    expect(NULL, bias_role, PB_E_PLUGIN, "o: b (o) has role 1, not 2");
    expect(NULL, group_none, PB_E_PLUGIN, "KV group 1 of 1");
    expect(NULL, layer_none, PB_E_PLUGIN, "does not fit KV group");
    expect(NULL, heads_odd, PB_E_FORMAT, "3 query heads on 2 KV heads");
    expect(NULL, heads_kv, PB_E_PLUGIN, "does not fit KV group");
    expect(NULL, rope_wide, PB_E_FORMAT, "rope over 18 of 16");
    expect(NULL, rope_odd, PB_E_FORMAT, "rope over 7 of 16");
    expect(NULL, factors, PB_E_FORMAT, "rope_factors (norm) is 1 x 64, needed is 1 x 8");
    expect(NULL, name_twice, PB_E_PLUGIN, "qkv");
    expect(NULL, kind_none, PB_E_PLUGIN, "kind 77");
    expect(NULL, rows_twice, PB_E_PLUGIN, "rows");
    expect(NULL, rows_all, PB_E_PLUGIN, "mixes all rows and wanted rows");
    expect(NULL, logits_missing, PB_E_PLUGIN, "logits (logits) is read before");
    expect(NULL, logits_width, PB_E_PLUGIN, "logits (logits) has width 96, 95");
    expect(NULL, logits_all, PB_E_PLUGIN, "ROWS must pick");
    expect(NULL, context_none, PB_E_PLUGIN, "a context of 0");
}

/* The first error stays, whatever comes after it; nothing is added after finish. */
static void test_states(void **state)
{
    parts t;
    (void)state;
    begin(&t);
    assert_true(t.b->value(t.b->h, "bad", -5, 0) < 0);
    char first[sizeof t.err.msg];
    memcpy(first, t.err.msg, sizeof first);
    make_weights(&t);
    make_ops(&t);
    assert_int_equal(t.w_o, PB_E_PLUGIN);
    assert_int_equal(finish(&t), PB_E_PLUGIN);
    assert_string_equal(t.err.msg, first);
    pbi_program_free(t.p);

    begin(&t);
    make_weights(&t);
    make_ops(&t);
    assert_int_equal(finish(&t), 0);
    assert_true(t.b->value(t.b->h, "late", 8, 0) < 0);
    assert_true(t.b->op(t.b->h, &t.op[0]) < 0);
    pbi_program_free(t.p);
    pbi_program_free(NULL);
}

static void test_floors(void **state)
{
    parts t;
    char text[8192] = "";
    (void)state;
    begin(&t);
    make_weights(&t);
    make_ops(&t);
    assert_int_equal(finish(&t), 0);
    const pb_program *p = pbi_program_get(t.p);
    int64_t macs = 128 * 64 + 64 * 64 + 2 * 128 * 64 + 96 * 64;
    assert_int_equal(pbi_program_macs(p), macs);
    assert_int_equal(pbi_program_weight_bytes(p), macs * 4);
    /* the builder keeps its own copies of names and pieces */
    memset(t.qkv_piece, 0, sizeof t.qkv_piece);
    assert_int_equal(p->weights[t.w_qkv[1]].pieces[0].row0, HEADS * HD);
    FILE *f = fmemopen(text, sizeof text, "w");
    pbi_program_print(p, f);
    fclose(f);
    static const char *const words[] = { "gate_up",   "7 operations", "KV group 0: 1 layers",
                                         "w=o(64x64", "heads=4/2x16", "34816 multiply" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strstr(text, words[i]))
            fail_msg("no \"%s\" in:\n%s", words[i], text);
    pbi_program_free(t.p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_operations),
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_floors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
