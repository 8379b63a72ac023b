/* SPDX-License-Identifier: MIT
 *
 * tests/unit/test_model_llama.c - what model-llama writes for known shapes, and what it says of
 * broken metadata.
 */
#include "config.h"

#include "models.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

static const char *const smol[] = { "layers=30", "width=576",   "heads=9",      "kv_heads=3",
                                    "ffn=1536",  "vocab=49152", "context=8192", "type=q8_0",
                                    "tie=true",  NULL };

/* One opened model and its program. */
typedef struct built {
    plug w, m;
    const pb_meta *meta;
    pbi_program *prog;
    const pb_program *p;
    pb_err err;
    int rc;
} built;

static void build(built *b, const char *weights, const char *const *options, const char *path)
{
    memset(b, 0, sizeof *b);
    if (weights_open(&b->w, weights, options, path, &b->meta, &b->err))
        fail_msg("%s", b->err.msg);
    b->rc = model_build(&b->m, b->meta, &b->prog, &b->err);
    b->p = pbi_program_get(b->prog);
}

static void unbuild(built *b)
{
    pbi_program_free(b->prog);
    plug_close(&b->m);
    plug_close(&b->w);
}

static const pb_op *op_named(const pb_program *p, const char *name)
{
    for (int32_t i = 0; i < p->n_ops; i++)
        if (!strcmp(p->ops[i].name, name))
            return &p->ops[i];
    fail_msg("no operation %s", name);
    return NULL;
}

static void test_smollm2(void **state)
{
    built b;
    (void)state;
    build(&b, "synthetic", smol, NULL);
    if (b.rc)
        fail_msg("%s", b.err.msg);
    const pb_program *p = b.p;
    assert_int_equal(p->n_ops, 1 + 5 * 30 + 2);
    assert_int_equal(p->n_vocab, 49152);
    assert_int_equal(p->ctx_train, 8192);
    assert_int_equal(p->n_groups, 1);
    assert_int_equal(p->groups[0].n_layers, 30);
    assert_int_equal(p->groups[0].n_kv_heads, 3);
    assert_int_equal(p->groups[0].head_dim, 64);
    /* by hand: a layer has q and o of 576 x 576, k and v of 192 x 576, three of 1536 x 576 */
    int64_t layer = 2 * 576 * 576 + 2 * 192 * 576 + 3 * 1536 * 576;
    assert_int_equal(pbi_program_macs(p), 30 * layer + 49152 * 576);
    assert_int_equal(pbi_program_weight_bytes(p), (30 * layer + 49152 * 576) / 32 * 34);
    /* tied: one weight for both */
    assert_int_equal(op_named(p, "embed")->u.embed.table, op_named(p, "output")->u.linear.w[0]);
    const pb_op_attend *a = &op_named(p, "blk.29.attend")->u.attend;
    assert_int_equal(a->layer, 29);
    assert_int_equal(a->n_heads, 9);
    assert_int_equal(a->rope, PB_ROPE_PAIRS);
    assert_int_equal(a->rope_dims, 64);
    assert_true(a->scale == 0.125f);
    assert_true(a->rope_base == 10000 && a->rope_scale == 1);
    /* the residual of a layer is what entered it */
    assert_int_equal(op_named(p, "blk.3.o")->u.linear.residual,
                     op_named(p, "blk.2.down")->u.linear.y[0]);
    assert_int_equal(p->vals[p->logits].width, 49152);
    assert_int_equal(p->vals[p->logits].picked, 1);
    unbuild(&b);
}

static void test_stories(void **state)
{
    built b;
    (void)state;
    if (data_absent())
        skip();
    build(&b, "gguf", NULL, data_path("models/stories260K/stories260K.gguf"));
    if (b.rc)
        fail_msg("%s", b.err.msg);
    assert_int_equal(b.p->n_ops, 1 + 5 * 5 + 2);
    assert_int_equal(b.p->n_vocab, 512);
    assert_int_equal(b.p->groups[0].n_kv_heads, 4);
    assert_int_equal(b.p->groups[0].head_dim, 8);
    int64_t layer = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 172 * 64;
    assert_int_equal(pbi_program_macs(b.p), 5 * layer + 512 * 64);
    /* not tied */
    assert_int_not_equal(op_named(b.p, "embed")->u.embed.table,
                         op_named(b.p, "output")->u.linear.w[0]);
    unbuild(&b);
}

/* biases, rope factors, a head size that is named */
static void test_toy(void **state)
{
    built b;
    (void)state;
    if (data_absent())
        skip();
    build(&b, "gguf", NULL, data_path("models/toy/llama-dense.gguf"));
    if (b.rc)
        fail_msg("%s", b.err.msg);
    const pb_op_linear *qkv = &op_named(b.p, "blk.1.qkv")->u.linear;
    assert_true(qkv->b[0] >= 0 && qkv->b[1] >= 0 && qkv->b[2] >= 0);
    assert_true(op_named(b.p, "blk.1.o")->u.linear.b[0] >= 0);
    assert_true(op_named(b.p, "blk.1.attend")->u.attend.rope_factors >= 0);
    assert_true(op_named(b.p, "blk.1.attend")->u.attend.rope_scale == 1);
    assert_true(op_named(b.p, "blk.0.gate_up")->u.linear.b[1] >= 0);

    /* the file gives each matrix a factor; in the MLP it applies to the bias as well */
    static const struct {
        const char *op, *tensor, *scale;
        int bias;
    } want[] = { { "blk.1.o", "blk.1.attn_output.weight", "blk.1.attn_output.scale", 0 },
                 { "blk.0.down", "blk.0.ffn_down.weight", "blk.0.ffn_down.scale", 0 },
                 { "blk.0.down", "blk.0.ffn_down.bias", "blk.0.ffn_down.scale", 1 } };
    for (int i = 0; i < 3; i++) {
        const pb_op_linear *o = &op_named(b.p, want[i].op)->u.linear;
        const pb_tensor *made = b.p->weights[want[i].bias ? o->b[0] : o->w[0]].pieces[0].t;
        const pb_tensor *base = meta_tensor(b.meta, want[i].tensor);
        const pb_tensor *scale = meta_tensor(b.meta, want[i].scale);
        float x[512], y[512], s;
        assert_int_equal(scale->read(scale, 0, 1, &s), 0);
        assert_int_equal(base->read(base, base->rows - 1, 1, x), 0);
        assert_int_equal(made->read(made, base->rows - 1, 1, y), 0);
        for (int64_t k = 0; k < base->cols; k++)
            assert_true(y[k] == x[k] * s);
        assert_int_not_equal(made->content, base->content);
    }
    const pb_op_linear *o = &op_named(b.p, "blk.1.o")->u.linear;
    assert_ptr_equal(b.p->weights[o->b[0]].pieces[0].t,
                     meta_tensor(b.meta, "blk.1.attn_output.bias"));
    unbuild(&b);
}

static void test_linear_rope(void **state)
{
    plug w, m;
    const pb_meta *meta;
    pb_err err = { 0 };
    pbi_program *prog = NULL;
    pb_meta_kv kv[64];
    (void)state;
    assert_int_equal(weights_open(&w, "synthetic", NULL, NULL, &meta, &err), 0);
    pb_meta copy = *meta;
    memcpy(kv, meta->kv, (size_t)meta->n_kv * sizeof *kv);
    copy.kv = kv;
    kv[copy.n_kv++] = (pb_meta_kv){
        .key = "llama.rope.scaling.type", .type = PB_M_STR, .n = -1, .s = { "linear", 6 }
    };
    kv[copy.n_kv++] =
        (pb_meta_kv){ .key = "llama.rope.scaling.factor", .type = PB_M_FLOAT, .n = -1, .f = 4 };
    if (model_build(&m, &copy, &prog, &err))
        fail_msg("%s", err.msg);
    assert_true(op_named(pbi_program_get(prog), "blk.0.attend")->u.attend.rope_scale == 0.25);
    pbi_program_free(prog);
    plug_close(&m);
    plug_close(&w);
}

/* ---- broken metadata --------------------------------------------------- */

/* Builds from a changed copy of the synthetic model's metadata; the message must have the word. */
static void expect_refused(void (*change)(pb_meta *m, pb_meta_kv *kv, pb_tensor *t),
                           const char *word)
{
    static const char *const small[] = { "layers=2", NULL };
    plug w, m;
    const pb_meta *meta;
    pb_err err = { 0 };
    pbi_program *prog = NULL;
    if (weights_open(&w, "synthetic", small, NULL, &meta, &err))
        fail_msg("%s", err.msg);
    pb_meta copy = *meta;
    pb_meta_kv kv[64];
    pb_tensor t[64];
    assert_true(meta->n_kv < 60 && meta->n_tensors < 60);
    memcpy(kv, meta->kv, (size_t)meta->n_kv * sizeof *kv);
    memcpy(t, meta->tensors, (size_t)meta->n_tensors * sizeof *t);
    copy.kv = kv;
    copy.tensors = t;
    change(&copy, kv, t);
    int rc = model_build(&m, &copy, &prog, &err);
    if (!rc || !strstr(err.msg, word))
        fail_msg("expected an error with \"%s\", got %d: %s", word, rc, err.msg);
    assert_int_equal(rc, err.code);
    assert_null(pbi_program_get(prog));
    pbi_program_free(prog);
    plug_close(&m);
    plug_close(&w);
}

static pb_meta_kv *kv_of(pb_meta *m, const char *key)
{
    return (pb_meta_kv *)(uintptr_t)meta_key(m, key);
}

static pb_tensor *tensor_of(pb_meta *m, const char *name)
{
    return (pb_tensor *)(uintptr_t)meta_tensor(m, name);
}

#define CHANGE(name, ...)                                                                          \
    static void name(pb_meta *m, pb_meta_kv *kv, pb_tensor *t)                                     \
    {                                                                                              \
        (void)m, (void)kv, (void)t;                                                                \
        __VA_ARGS__;                                                                               \
    }
CHANGE(no_blocks, kv_of(m, "llama.block_count")->key = "x")
CHANGE(zero_blocks, kv_of(m, "llama.block_count")->i = 0)
CHANGE(huge_blocks, kv_of(m, "llama.block_count")->i = INT64_MAX)
CHANGE(text_heads, kv_of(m, "llama.attention.head_count")->type = PB_M_STR)
CHANGE(odd_heads, kv_of(m, "llama.attention.head_count_kv")->i = 3)
CHANGE(nan_eps, kv_of(m, "llama.attention.layer_norm_rms_epsilon")->f = NAN)
CHANGE(no_tensor, tensor_of(m, "blk.1.ffn_up.weight")->name = "x")
CHANGE(no_embed, tensor_of(m, "token_embd.weight")->name = "x")
CHANGE(bad_rows, tensor_of(m, "blk.0.attn_k.weight")->rows++)
CHANGE(bad_cols, tensor_of(m, "blk.0.attn_norm.weight")->cols--)
CHANGE(bad_output, tensor_of(m, "output.weight")->rows--)
CHANGE(third_layer, kv_of(m, "llama.block_count")->i = 3)
CHANGE(no_arch, kv_of(m, "general.architecture")->s = ((pb_str){ "mamba", 5 }))

CHANGE(second_layer, kv_of(m, "llama.block_count")->i = 1)
CHANGE(yarn, kv_of(m, "general.name")->key = "llama.rope.scaling.type";
       kv_of(m, "llama.rope.scaling.type")->s = ((pb_str){ "yarn", 4 }))
CHANGE(extra_tensor, t[m->n_tensors] = t[1]; t[m->n_tensors++].name = "blk.0.attn_q_norm.weight")

static void test_refused(void **state)
{
    (void)state;
    expect_refused(no_blocks, "key llama.block_count is missing");
    expect_refused(zero_blocks, "llama.block_count = 0 is outside of 1..");
    expect_refused(huge_blocks, "llama.block_count = 9223372036854775807");
    expect_refused(text_heads, "llama.attention.head_count is not an integer");
    expect_refused(odd_heads, "4 query heads cannot share 3 KV heads");
    expect_refused(nan_eps, "layer_norm_rms_epsilon");
    expect_refused(no_tensor, "tensor blk.1.ffn_up.weight is missing");
    expect_refused(no_embed, "tensor token_embd.weight is missing");
    expect_refused(bad_rows, "tensor blk.0.attn_k.weight");
    expect_refused(bad_cols, "tensor blk.0.attn_norm.weight");
    expect_refused(bad_output, "tensor output.weight");
    expect_refused(third_layer, "tensor blk.2.attn_norm.weight is missing");
    expect_refused(second_layer, "tensor blk.1.attn_norm.weight at offset 0 has no place");
    expect_refused(extra_tensor, "blk.0.attn_q_norm.weight at offset 0 has no place");
    expect_refused(yarn, "\"yarn\"");
    expect_refused(no_arch, "architecture \"mamba\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smollm2), cmocka_unit_test(test_stories),
        cmocka_unit_test(test_toy),     cmocka_unit_test(test_linear_rope),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
