/* SPDX-License-Identifier: MIT
 *
 * tests/unit/test_synthetic.c - weights-synthetic: equal options, equal bytes; blocks of all types
 * stand for nearly the same values; sane statistics.
 */
#include "config.h"

#include "models.h"
#include "options.h"
#include "../../plugins/backend-cpu/test_rows.h"
#include "../../plugins/weights-synthetic/quant.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const pb_meta *open_ok(plug *w, const char *const *options)
{
    const pb_meta *m;
    pb_err err = { 0 };
    if (weights_open(w, "synthetic", options, NULL, &m, &err))
        fail_msg("%s", err.msg);
    return m;
}

static uint64_t fnv(uint64_t h, const void *p, size_t n)
{
    for (const unsigned char *b = p; n--; b++)
        h = (h ^ *b) * 0x100000001b3u;
    return h;
}

/* all bytes of all tensors, and their names and contents */
static uint64_t hash_model(const pb_meta *m, int with_content)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (int32_t i = 0; i < m->n_tensors; i++) {
        const pb_tensor *t = &m->tensors[i];
        char *row = malloc(t->row_bytes);
        h = fnv(h, t->name, strlen(t->name));
        if (with_content)
            h = fnv(h, &t->content, sizeof t->content);
        for (int64_t r = 0; r < t->rows; r++) {
            assert_int_equal(t->read(t, r, 1, row), 0);
            h = fnv(h, row, t->row_bytes);
        }
        free(row);
    }
    return h;
}

static void test_equal(void **state)
{
    static const char *const other[] = { "seed=2", NULL };
    plug a, b, c;
    (void)state;
    const pb_meta *ma = open_ok(&a, NULL), *mb = open_ok(&b, NULL), *mc = open_ok(&c, other);
    uint64_t h = hash_model(ma, 0);
    assert_int_equal(hash_model(ma, 1), hash_model(mb, 1));
    assert_int_not_equal(h, hash_model(mc, 0));
    assert_int_not_equal(ma->tensors[0].content, mc->tensors[0].content);
    /* the same on every machine and in every version that does not say otherwise */
    if (h != 0xc238a70aeb4991fcu)
        fail_msg("the default model's bytes changed: %llx", (unsigned long long)h);
    assert_true(plug_counter(&a, "bytes") > 0);
    plug_close(&a);
    plug_close(&b);
    plug_close(&c);
}

/* many rows at once = one by one; rows wider than the span that is made at once; bad ranges */
static void test_ranges(void **state)
{
    static const char *const wide[] = { "ffn=9984", "type=q4_1", "layers=1", NULL };
    plug w;
    (void)state;
    const pb_meta *m = open_ok(&w, wide);
    const pb_tensor *t = meta_tensor(m, "blk.0.ffn_down.weight");
    size_t n = t->row_bytes;
    char *all = malloc(n * (size_t)t->rows), *one = malloc(n);
    assert_int_equal(t->row_bytes, 9984 / 32 * 20);
    assert_int_equal(t->read(t, 0, t->rows, all), 0);
    for (int64_t r = t->rows; r-- > 0;) {
        assert_int_equal(t->read(t, r, 1, one), 0);
        assert_memory_equal(one, all + (size_t)r * n, n);
    }
    assert_memory_not_equal(all, all + n, n);
    assert_int_equal(t->read(t, t->rows, 1, one), PB_E_INVAL);
    assert_int_equal(t->read(t, -1, 1, one), PB_E_INVAL);
    free(all);
    free(one);
    plug_close(&w);
}

/* not used: blocks here are not random */
uint32_t rnd_next(uint32_t *s)
{
    return (*s)++;
}

/* value i of a stored row, by the definitions that test_rows holds the kernels to */
static float stored(int32_t type, const unsigned char *row, int64_t i)
{
    size_t n, bytes = type_block(type, &n);
    element e = type_at(type, row + (size_t)i / n * bytes, (int)((size_t)i % n));
    return n == 1 ? e.d : e.d * (float)e.q + e.m;
}

static void test_types(void **state)
{
    static const struct {
        const char *name;
        double limit; /* of the error, in half deviations; values reach 3.47 of these */
    } types[] = { { "f32", 0 },     { "f16", 0.0006 }, { "q8_0", 0.006 },  { "q4_0", 0.11 },
                  { "q4_1", 0.06 }, { "bf16", 0.004 }, { "q5_0", 0.06 },   { "q5_1", 0.03 },
                  { "q2_k", 0.3 },  { "q3_k", 0.25 },  { "q4_k", 0.06 },   { "q5_k", 0.03 },
                  { "q6_k", 0.04 }, { "iq4_nl", 0.1 }, { "iq4_xs", 0.12 }, { "mxfp4", 0.13 } };
    static const char *const wide[] = { "width=256", "ffn=512", NULL };
    uint64_t content = 0;
    plug f, q;
    (void)state;
    const pb_meta *mf = open_ok(&f, wide);
    const pb_tensor *tf = meta_tensor(mf, "blk.2.ffn_up.weight");
    double sigma = 1 / sqrt((double)tf->cols);
    for (size_t k = 0; k < sizeof types / sizeof types[0]; k++) {
        char type[32];
        const char *const opt[] = { "width=256", "ffn=512", type, NULL };
        snprintf(type, sizeof type, "type=%s", types[k].name);
        const pb_tensor *tq = meta_tensor(open_ok(&q, opt), tf->name);
        unsigned char *a = malloc(tf->row_bytes), *b = malloc(tq->row_bytes);
        double worst = 0, sum = 0, square = 0;
        assert_int_not_equal(tq->content, content);
        content = tq->content;
        for (int64_t r = 0; r < tf->rows; r++) {
            tf->read(tf, r, 1, a);
            tq->read(tq, r, 1, b);
            for (int64_t i = 0; i < tf->cols; i++) {
                double x = stored(PB_F32, a, i), y = stored(tq->type, b, i);
                worst = fmax(worst, fabs(x - y));
                sum += y;
                square += y * y;
            }
        }
        double n = (double)(tf->rows * tf->cols);
        if (worst > types[k].limit * sigma * 2)
            fail_msg("%s: off by %g deviations", types[k].name, worst / sigma);
        assert_true(fabs(sum / n) < 0.02 * sigma);
        /* few bits widen the distribution */
        assert_true(fabs(sqrt(square / n) / sigma - 1) < 0.02 + 0.2 * types[k].limit);
        free(a);
        free(b);
        plug_close(&q);
    }
    plug_close(&f);
}

static void expect_type(const pb_meta *m, const char *name, int32_t type)
{
    const pb_tensor *t = meta_tensor(m, name);
    assert_int_equal(t->type, type);
    assert_int_equal(t->row_bytes, quant_row_bytes(type, t->cols));
}

/* rows of 128 and of 512 */
static void test_mixture(void **state)
{
    static const char *const opt[] = { "ffn=512", "type=q4_k_m", NULL };
    plug w;
    (void)state;
    const pb_meta *m = open_ok(&w, opt);
    expect_type(m, "token_embd.weight", PB_Q8_0);
    expect_type(m, "output_norm.weight", PB_F32);
    expect_type(m, "blk.0.attn_q.weight", PB_Q5_0);
    expect_type(m, "blk.0.attn_v.weight", PB_Q8_0);
    expect_type(m, "blk.1.attn_v.weight", PB_Q5_0);
    expect_type(m, "blk.0.ffn_down.weight", PB_Q6_K);
    expect_type(m, "blk.1.ffn_down.weight", PB_Q4_K);
    plug_close(&w);
}

static void test_f16(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++)
        if ((h & 0x7c00) != 0x7c00)
            assert_int_equal(quant_f16(quant_f16_value((uint16_t)h)), h);
    /* halfway cases go to even, just beside them to the nearer one */
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float a = quant_f16_value((uint16_t)h), b = quant_f16_value((uint16_t)(h + 1));
        float mid = (a + b) / 2;
        assert_int_equal(quant_f16(mid), h + (h & 1));
        assert_int_equal(quant_f16(nextafterf(mid, a)), h);
        assert_int_equal(quant_f16(nextafterf(mid, b)), h + 1);
    }
    assert_int_equal(quant_f16(65519.0f), 0x7bff);
    assert_int_equal(quant_f16(65520.0f), 0x7c00);
    assert_int_equal(quant_f16(-INFINITY), 0xfc00);
    assert_int_equal(quant_f16(NAN) & 0x7e00, 0x7e00);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(((const pb_str *)a)->s, ((const pb_str *)b)->s);
}

static void test_vocabulary(void **state)
{
    static const char *const opt[] = { "vocab=70000", "layers=1", NULL };
    static const char *const few[] = { "vocab=258", "layers=1", NULL };
    plug w;
    (void)state;
    const pb_meta *m = open_ok(&w, opt);
    const pb_meta_kv *tok = meta_key(m, "tokenizer.ggml.tokens");
    assert_int_equal(tok->n, 70000);
    assert_string_equal(tok->ss[3 + 'A'].s, "<0x41>");
    pb_str *sorted = malloc(70000 * sizeof *sorted);
    memcpy(sorted, tok->ss, 70000 * sizeof *sorted);
    qsort(sorted, 70000, sizeof *sorted, by_text);
    for (int i = 1; i < 70000; i++) {
        assert_true(sorted[i].n == strlen(sorted[i].s) && sorted[i].n > 0);
        assert_string_not_equal(sorted[i - 1].s, sorted[i].s);
    }
    free(sorted);
    plug_close(&w);
    assert_null(meta_key(open_ok(&w, few), "tokenizer.ggml.tokens"));
    plug_close(&w);
}

static void refuse_options(const char *a, const char *b, const char *word)
{
    pb_err err = { 0 };
    const pbi_library *lib;
    plug w;
    const char *const opt[] = { "layers=1", NULL };
    const char *const bad[] = { a, b };
    plug_open(&w, "weights", "synthetic", opt, &(pbi_services){ 0 },
              &(pb_run){ .size = sizeof(pb_run) });
    lib = w.use.lib;
    char *config = malloc(lib->desc->config_size);
    memcpy(config, w.use.config, lib->desc->config_size);
    for (int i = 0; i < 2 && bad[i]; i++) {
        char name[32];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(bad[i], "="), bad[i]);
        const pb_option *o = pbi_option_find(lib->desc->options, lib->desc->option_size, name);
        assert_int_equal(pbi_option_set(o, strchr(bad[i], '=') + 1, config, &err), 0);
    }
    assert_int_equal(lib->desc->check(config, &err), PB_E_INVAL);
    if (!strstr(err.msg, word))
        fail_msg("expected \"%s\": %s", word, err.msg);
    free(config);
    plug_close(&w);
}

static void test_refused(void **state)
{
    const pb_meta *m;
    pb_err err = { 0 };
    plug w;
    (void)state;
    assert_int_equal(weights_open(&w, "synthetic", NULL, "model.gguf", &m, &err), PB_E_INVAL);
    assert_non_null(strstr(err.msg, "model.gguf"));
    assert_null(m);
    plug_close(&w);
    assert_int_equal(weights_open(&w, "synthetic", NULL, "synthetic", &m, &err), 0);
    plug_close(&w);
    refuse_options("heads=4", "kv_heads=3", "kv_heads = 3");
    refuse_options("width=130", NULL, "width = 130");
    refuse_options("head_dim=7", NULL, "head_dim = 7");
    refuse_options("type=q8_0", "ffn=100", "ffn = 100");
    refuse_options("type=q4_k", NULL, "blocks of 256");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal),   cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_types),   cmocka_unit_test(test_mixture),
        cmocka_unit_test(test_f16),     cmocka_unit_test(test_vocabulary),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
