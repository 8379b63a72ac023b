/* SPDX-License-Identifier: MIT
 *
 * tests/unit/test_safetensors.c - weights-safetensors: folders, shards, broken headers and
 * indexes; and that model-llama finds its way in them.
 */
#include "config.h"

#include "models.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- folders made here ------------------------------------------------- */

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_safetensors_XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    char cmd[128];
    (void)state;
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

static const char *in_dir(const char *name)
{
    static char path[2][256];
    static int k;
    k = !k;
    snprintf(path[k], sizeof path[k], "%s/%s", dir, name);
    return path[k];
}

static void put(const char *name, const void *bytes, size_t n)
{
    FILE *f = fopen(in_dir(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void put_text(const char *name, const char *text)
{
    put(name, text, strlen(text));
}

/* a header and n_data bytes 0, 1, 2, ... */
static void put_shard(const char *name, const char *header, size_t n_data)
{
    static unsigned char buf[32768];
    size_t n = strlen(header);
    assert_true(8 + n + n_data <= sizeof buf);
    for (int i = 0; i < 8; i++)
        buf[i] = (unsigned char)(n >> (8 * i));
    memcpy(buf + 8, header, n);
    for (size_t i = 0; i < n_data; i++)
        buf[8 + n + i] = (unsigned char)i;
    put(name, buf, 8 + n + n_data);
}

/* Opens; on an error the message must have the word. */
static void refuse(const char *path, int code, const char *word)
{
    plug w;
    const pb_meta *m;
    pb_err err = { 0 };
    int rc = weights_open(&w, "safetensors", NULL, path, &m, &err);
    if (rc != code || rc != err.code || !strstr(err.msg, word))
        fail_msg("expected %d with \"%s\", got %d: %s", code, word, rc, err.msg);
    assert_null(m);
    plug_close(&w);
}

static void refuse_header(const char *header, size_t n_data, int code, const char *word)
{
    put_shard("one.safetensors", header, n_data);
    refuse(in_dir("one.safetensors"), code, word);
}

#define T(name, type, shape, from, to)                                                             \
    "\"" name "\":{\"dtype\":\"" type "\",\"shape\":[" shape "],\"data_offsets\":[" from "," to "]}"

static void test_headers(void **state)
{
    plug w;
    const pb_meta *m;
    pb_err err = { 0 };
    unsigned char row[64];
    (void)state;
    put_shard("one.safetensors",
              "{\"__metadata__\":{\"format\":\"pt\"}," T("b", "F16", "2,3", "24", "36") "," T(
                  "a", "F32", "3,2", "0",
                  "24") "," T("s", "BF16", "", "36",
                              "38") "," T("z", "F32", "0,7", "38",
                                          "38") "," T("five", "I8", "1,2,1,1,2", "38", "42") "}",
              42);
    if (weights_open(&w, "safetensors", NULL, in_dir("one.safetensors"), &m, &err))
        fail_msg("%s", err.msg);
    assert_string_equal(m->naming, "hf");
    assert_int_equal(m->n_tensors, 5);
    const pb_tensor *a = meta_tensor(m, "a"), *b = meta_tensor(m, "b");
    assert_int_equal(a->rows, 3);
    assert_int_equal(a->cols, 2);
    assert_int_equal(b->type, PB_F16);
    assert_int_equal(b->read(b, 1, 1, row), 0);
    assert_int_equal(row[0], 30);
    assert_int_equal(b->read(b, 2, 1, row), PB_E_INVAL);
    assert_int_equal(meta_tensor(m, "s")->rows, 1);
    assert_int_equal(meta_tensor(m, "s")->cols, 1);
    assert_int_equal(meta_tensor(m, "z")->rows, 0);
    const pb_tensor *five = meta_tensor(m, "five");
    assert_int_equal(five->rows, 2);
    assert_int_equal(five->n_dims, 4);
    assert_int_not_equal(a->content, b->content);
    plug_close(&w);

    refuse_header("{" T("a", "F32", "3", "0", "8") "}", 8, PB_E_FORMAT, "needs 12 bytes");
    refuse_header("{" T("a", "F32", "2", "0", "8") "}", 7, PB_E_FORMAT, "[0, 8]");
    refuse_header("{" T("a", "F32", "2", "0", "8") "}", 9, PB_E_FORMAT, "end at 8");
    refuse_header("{" T("a", "F32", "2", "4", "12") "}", 12, PB_E_FORMAT, "begins at 4");
    refuse_header("{" T("a", "F32", "2", "0", "8") "," T("b", "F32", "2", "4", "12") "}", 12,
                  PB_E_FORMAT, "b begins at 4, the one before ends at 8");
    refuse_header("{" T("a", "F32", "2", "8", "0") "}", 8, PB_E_FORMAT, "[8, 0]");
    refuse_header("{" T("a", "F32", "-1", "0", "8") "}", 8, PB_E_FORMAT, "dimension 0");
    refuse_header("{" T("a", "F32", "1.5", "0", "8") "}", 8, PB_E_FORMAT, "dimension 0");
    refuse_header("{" T("a", "F32", "4294967296,4294967296", "0", "8") "}", 8, PB_E_FORMAT, "2^63");
    refuse_header("{" T("a", "F32", "0,4294967296,4294967296,4294967296", "0", "0") "}", 0,
                  PB_E_FORMAT, "2^63");
    refuse_header("{" T("a", "F32", "4611686018427387904", "0", "8") "}", 8, PB_E_FORMAT, "bytes");
    refuse_header("{" T("a", "F31", "2", "0", "8") "}", 8, PB_E_UNSUPPORTED, "dtype \"F31\"");
    refuse_header("{" T("a", "F32", "2", "0", "8") "," T("a", "F32", "2", "0", "8") "}", 8,
                  PB_E_FORMAT, "duplicate");
    refuse_header("{\"a\":3}", 0, PB_E_FORMAT, "lacks dtype");
    refuse_header("[1, 2]", 0, PB_E_FORMAT, "no object");
    refuse_header("{\"a\":", 0, PB_E_FORMAT, "JSON at line 1");
    put("one.safetensors", "\x10\0\0\0\0\0\0\0{}", 10);
    refuse(in_dir("one.safetensors"), PB_E_FORMAT, "a header of 16 bytes");
    refuse(in_dir("none.safetensors"), PB_E_INVAL, "none.safetensors");
    refuse("", PB_E_INVAL, "path is empty");
}

#define CONFIG                                                                                     \
    "{\"model_type\":\"llama\",\"list\":[1,2],\"mix\":[1,2.5],\"names\":[\"x\"],\"none\":null,"    \
    "\"yes\":true,\"pi\":3.25,\"deep\":{\"er\":{\"n\":7}}}"
#define INDEX(a, b) "{\"weight_map\":{\"a\":\"" a "\",\"b\":\"" b "\"}}"

static void test_folder(void **state)
{
    plug w;
    const pb_meta *m;
    pb_err err = { 0 };
    (void)state;
    refuse(dir, PB_E_INVAL, "config.json");
    put_text("config.json", CONFIG);
    refuse(dir, PB_E_INVAL, "neither model.safetensors nor");
    put_shard("m1.safetensors", "{" T("a", "F32", "2", "0", "8") "}", 8);
    put_shard("m2.safetensors", "{" T("b", "F32", "2", "0", "8") "}", 8);
    put_shard("m3.safetensors", "{" T("a", "F32", "2", "0", "8") "}", 8);
    put_text("model.safetensors.index.json", INDEX("m1.safetensors", "m2.safetensors"));
    put_text("tokenizer.json", "{}");
    if (weights_open(&w, "safetensors", NULL, dir, &m, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(m->n_tensors, 2);
    assert_string_equal(meta_key(m, "model_type")->s.s, "llama");
    assert_int_equal(meta_key(m, "list")->is[1], 2);
    assert_true(meta_key(m, "mix")->fs[0] == 1 && meta_key(m, "mix")->fs[1] == 2.5);
    assert_string_equal(meta_key(m, "names")->ss[0].s, "x");
    assert_null(meta_key(m, "none"));
    assert_int_equal(meta_key(m, "yes")->type, PB_M_BOOL);
    assert_true(meta_key(m, "pi")->f == 3.25);
    assert_int_equal(meta_key(m, "deep.er.n")->i, 7);
    assert_string_equal(meta_key(m, "hf.tokenizer.json")->s.s, "{}");
    plug_close(&w);

    put("tokenizer.model",
        "\x0a\x09\x0a\x02"
        "ab\x15\0\0\xc0\x3f\x12\x03\xc8\x02\x05",
        16);
    if (weights_open(&w, "safetensors", NULL, dir, &m, &err))
        fail_msg("%s", err.msg);
    assert_string_equal(meta_key(m, "tokenizer.ggml.tokens")->ss[0].s, "ab");
    assert_true(meta_key(m, "tokenizer.ggml.scores")->fs[0] == 1.5);
    assert_string_equal(meta_key(m, "tokenizer.ggml.model")->s.s, "t5");
    assert_int_equal(meta_key(m, "tokenizer.ggml.bos_token_id")->i, 5);
    plug_close(&w);
    put("tokenizer.model",
        "\x0a\x7f"
        "ab",
        4); /* longer than the file */
    refuse(dir, PB_E_FORMAT, "tokenizer.model: no SentencePiece model: broken at offset");
    put("tokenizer.model", "\x0a\x02\x0a\x7f", 4); /* longer than its piece */
    refuse(dir, PB_E_FORMAT, "the field that ends at offset 4 is broken");
    unlink(in_dir("tokenizer.model"));

    put_text("model.safetensors.index.json", INDEX("m2.safetensors", "m1.safetensors"));
    refuse(dir, PB_E_FORMAT, "tensor a is not in m2.safetensors");
    put_text("model.safetensors.index.json", INDEX("m1.safetensors", "m3.safetensors"));
    refuse(dir, PB_E_FORMAT, "tensor a is in");
    put_text("model.safetensors.index.json", INDEX("m1.safetensors", "m9.safetensors"));
    refuse(dir, PB_E_INVAL, "m9.safetensors: cannot open");
    put_text("model.safetensors.index.json", INDEX("m1.safetensors", "../m2.safetensors"));
    refuse(dir, PB_E_FORMAT, "no file name");
    put_text("model.safetensors.index.json", "{\"weight_map\":{\"a\":3}}");
    refuse(dir, PB_E_FORMAT, "no file name");
    put_text("model.safetensors.index.json", "{}");
    refuse(dir, PB_E_FORMAT, "weight_map is missing");
    put_text("config.json", "{\"a\":1e999}");
    refuse(dir, PB_E_FORMAT, "config.json");
}

/* JSON that would grow in memory is refused before it is parsed. */
static void test_greedy(void **state)
{
    size_t n = 3 << 20;
    char *s = malloc(n);
    (void)state;
    s[0] = '[';
    for (size_t i = 1; i < n; i++)
        s[i] = i & 1 ? '0' : ',';
    put("config.json", s, n);
    refuse(dir, PB_E_FORMAT, "bytes of JSON; the limit is");
    memset(s, '[', n);
    put("config.json", s, 1 << 19);
    refuse(dir, PB_E_FORMAT, "JSON at line");
    free(s);
}

/* ---- real test material ------------------------------------------------ */

static void test_manifest(void **state)
{
    json_error_t e;
    size_t i;
    json_t *j;
    (void)state;
    if (data_absent())
        skip();
    json_t *list = json_load_file(data_path("safetensors/malformed/MANIFEST.json"), 0, &e);
    assert_int_equal(json_array_size(list), 17);
    json_array_foreach(list, i, j)
    {
        const char *name = json_string_value(json_object_get(j, "file"));
        int accept = !strcmp(json_string_value(json_object_get(j, "expect")), "accept");
        char under[256];
        plug w;
        const pb_meta *m;
        pb_err err = { 0 };
        snprintf(under, sizeof under, "safetensors/malformed/%s", name);
        int rc = weights_open(&w, "safetensors", NULL, data_path(under), &m, &err);
        if ((rc == 0) != accept)
            fail_msg("%s: expected %s, got %d: %s", name, accept ? "accept" : "reject", rc,
                     err.msg);
        if (rc && !strstr(err.msg, name))
            fail_msg("%s is not named: %s", name, err.msg);
        plug_close(&w);
    }
    json_decref(list);
}

static void build_folder(plug *w, plug *m, const char *under, pbi_program **p, pb_err *err)
{
    const pb_meta *meta;
    if (weights_open(w, "safetensors", NULL, data_path(under), &meta, err))
        fail_msg("%s", err->msg);
    if (model_build(m, meta, p, err))
        fail_msg("%s", err->msg);
}

static const pb_op_attend *first_attend(const pb_program *p)
{
    for (int32_t i = 0; i < p->n_ops; i++)
        if (p->ops[i].kind == PB_OP_ATTEND)
            return &p->ops[i].u.attend;
    fail_msg("no attention");
    return NULL;
}

/* The same model in GGUF, one file, three files: equal programs but for the pairing of rope, and
 * equal bytes of what is not permuted. */
static void test_stories(void **state)
{
    static const char *const folders[] = { "models/stories260K/hf-f32",
                                           "models/stories260K/hf-f32-sharded" };
    plug g;
    const pb_meta *mg;
    pb_err err = { 0 };
    (void)state;
    if (data_absent())
        skip();
    if (weights_open(&g, "gguf", NULL, data_path("models/stories260K/stories260K.gguf"), &mg, &err))
        fail_msg("%s", err.msg);
    for (int i = 0; i < 2; i++) {
        plug w, m;
        pbi_program *p = NULL;
        build_folder(&w, &m, folders[i], &p, &err);
        const pb_program *q = pbi_program_get(p);
        assert_int_equal(q->n_ops, 1 + 5 * 5 + 2);
        assert_int_equal(q->n_vocab, 512);
        assert_int_equal(first_attend(q)->rope, PB_ROPE_HALVES);
        const pb_meta *mw = ((const pb_weights *)w.vtbl)->meta(plug_self(&w));
        const pb_meta_kv *ta = meta_key(mw, "tokenizer.ggml.tokens");
        const pb_meta_kv *tb = meta_key(mg, "tokenizer.ggml.tokens");
        const pb_meta_kv *ka = meta_key(mw, "tokenizer.ggml.token_type");
        const pb_meta_kv *kb = meta_key(mg, "tokenizer.ggml.token_type");
        assert_string_equal(meta_key(mw, "tokenizer.ggml.model")->s.s, "llama");
        assert_int_equal(meta_key(mw, "tokenizer.ggml.bos_token_id")->i, 1);
        assert_int_equal(ta->n, 512);
        for (int64_t k = 0; k < 512; k++) {
            assert_int_equal(ka->is[k], kb->is[k]);
            if (ka->is[k] == 1) /* control tokens are spelled differently there */
                assert_string_equal(ta->ss[k].s, tb->ss[k].s);
        }
        const pb_tensor *a = q->weights[q->ops[0].u.embed.table].pieces[0].t;
        const pb_tensor *b = meta_tensor(mg, "token_embd.weight");
        float x[64], y[64];
        for (int64_t r = 0; r < 512; r++) {
            assert_int_equal(a->read(a, r, 1, x) | b->read(b, r, 1, y), 0);
            assert_memory_equal(x, y, sizeof x);
        }
        pbi_program_free(p);
        plug_close(&m);
        plug_close(&w);
    }
    plug_close(&g);
}

/* Llama 3's factors, from the definition (wavelength against the original context), with the
 * numbers of the folder's config.json: factor 8, low 1, high 4, context 32, heads of 16. */
static void test_llama3(void **state)
{
    plug w, m;
    pbi_program *p = NULL;
    pb_err err = { 0 };
    float f[8];
    (void)state;
    if (data_absent())
        skip();
    build_folder(&w, &m, "hf/llama-rope-llama3", &p, &err);
    const pb_program *q = pbi_program_get(p);
    const pb_op_attend *a = first_attend(q);
    assert_true(a->rope_factors >= 0);
    const pb_tensor *t = q->weights[a->rope_factors].pieces[0].t;
    assert_int_equal(t->cols, 8);
    assert_int_equal(t->read(t, 0, 1, f), 0);
    assert_memory_equal(f, t->data, sizeof f);
    for (int i = 0; i < 8; i++) {
        double freq = pow(10000, -i / 8.0), wave = 6.283185307179586 / freq, want = freq;
        if (wave > 32)
            want = freq / 8;
        else if (wave >= 8) {
            double s = (32 / wave - 1) / 3;
            want = (1 - s) * freq / 8 + s * freq;
        }
        assert_true(fabs(freq / (double)f[i] / want - 1) < 1e-6);
    }
    pbi_program_free(p);
    plug_close(&m);
    plug_close(&w);
    p = NULL;
    build_folder(&w, &m, "hf/llama-gqa-tied", &p, &err);
    q = pbi_program_get(p);
    assert_int_equal(q->ops[0].u.embed.table, q->ops[q->n_ops - 1].u.linear.w[0]);
    assert_true(first_attend(q)->rope_factors < 0);
    pbi_program_free(p);
    plug_close(&m);
    plug_close(&w);
}

/* ---- F8_E4M3 with scales ------------------------------------------------ */

/* Byte i of the data is i, so that a scale and an element say where they came from. */
static void expect_f8(const char *header, size_t n_data, int64_t row, int64_t block, size_t scale,
                      size_t scale_bytes, size_t element)
{
    plug w;
    const pb_meta *m;
    pb_err err = { 0 };
    unsigned char got[4 * 132], d[4] = { 0 };
    put_shard("f8.safetensors", header, n_data);
    if (weights_open(&w, "safetensors", NULL, in_dir("f8.safetensors"), &m, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(m->n_tensors, 1);
    const pb_tensor *t = &m->tensors[0];
    assert_string_equal(t->name, "w");
    assert_int_equal(t->type, PB_F8_E4M3);
    assert_null(t->data);
    assert_int_equal(t->row_bytes, t->cols / 128 * 132);
    assert_true(t->row_bytes <= sizeof got);
    assert_int_equal(t->read(t, t->rows, 1, got), PB_E_INVAL);
    assert_int_equal(t->read(t, row, 1, got), 0);
    for (size_t i = 0; i < scale_bytes; i++)
        d[4 - scale_bytes + i] = (unsigned char)(scale + i);
    if (scale_bytes == 1) { /* F8_E8M0 */
        d[2] = (unsigned char)(scale << 7);
        d[3] = (unsigned char)((scale & 255) >> 1);
    }
    if (scale_bytes == 0) /* 1.0f */
        d[2] = 0x80, d[3] = 0x3f;
    assert_memory_equal(got + block * 132, d, 4);
    for (size_t i = 0; i < 128; i++)
        assert_int_equal(got[(size_t)block * 132 + 4 + i], (unsigned char)(element + i));
    plug_close(&w);
}

static void test_f8(void **state)
{
    (void)state;
    /* blocks of 128 x 128; row 128 has the second row of scales */
    const char *tall = "{" T("w", "F8_E4M3", "130,128", "0",
                             "16640") "," T("w_scale_inv", "F32", "2,1", "16640", "16648") "}";
    expect_f8(tall, 16648, 127, 0, 16640, 4, 127 * 128);
    expect_f8(tall, 16648, 128, 0, 16644, 4, 128 * 128);
    const char *flat = "{" T("w", "F8_E4M3", "2,256", "0", "512") "," T("w_scale_inv", "F32", "1,2",
                                                                        "512", "520") "}";
    expect_f8(flat, 520, 1, 0, 512, 4, 256);
    expect_f8(flat, 520, 1, 1, 516, 4, 256 + 128);
    expect_f8("{" T("w", "F8_E4M3", "2,256", "0", "512") "," T("w_scale_inv", "BF16", "1,2", "512",
                                                               "516") "}",
              516, 1, 1, 514, 2, 256 + 128);
    expect_f8("{" T("w", "F8_E4M3", "2,256", "0", "512") "," T("w_scale_inv", "F8_E8M0", "1,2",
                                                               "512", "514") "}",
              514, 1, 1, 513, 1, 256 + 128);
    /* one for each row; one; none; experts, each a matrix with scales of its own */
    const char *rows =
        "{" T("w", "F8_E4M3", "3,128", "0", "384") "," T("w_scale", "F32", "3", "384", "396") "}";
    expect_f8(rows, 396, 2, 0, 392, 4, 256);
    const char *column =
        "{" T("w", "F8_E4M3", "3,128", "0", "384") "," T("w_scale", "F32", "3,1", "384", "396") "}";
    expect_f8(column, 396, 1, 0, 388, 4, 128);
    const char *one =
        "{" T("w", "F8_E4M3", "3,128", "0", "384") "," T("w_scale", "F32", "", "384", "388") "}";
    expect_f8(one, 388, 2, 0, 384, 4, 256);
    expect_f8("{" T("w", "F8_E4M3", "3,128", "0", "384") "}", 384, 2, 0, 0, 0, 256);
    const char *experts = "{" T("w", "F8_E4M3", "2,3,128", "0",
                                "768") "," T("w_scale_inv", "F32", "2,1,1", "768", "776") "}";
    expect_f8(experts, 776, 2, 0, 768, 4, 256);
    expect_f8(experts, 776, 3, 0, 772, 4, 384);

    refuse_header(
        "{" T("w", "F8_E4M3", "3,128", "0", "384") "," T("w_scale", "F32", "2", "384", "392") "}",
        392, PB_E_UNSUPPORTED, "1 x 2 scales for 3 x 128");
    refuse_header(
        "{" T("w", "F8_E4M3", "3,128", "0", "384") "," T("w_scale", "I32", "3", "384", "396") "}",
        396, PB_E_UNSUPPORTED, "scales of type");
}

/* Rows that no scaled form fits: the tensor can be shown, and its scales too. */
static void test_f8_narrow(void **state)
{
    plug w;
    const pb_meta *m;
    pb_err err = { 0 };
    (void)state;
    put_shard(
        "f8.safetensors",
        "{" T("w", "F8_E4M3", "2,96", "0", "192") "," T("w_scale", "F32", "1", "192", "196") "}",
        196);
    assert_int_equal(weights_open(&w, "safetensors", NULL, in_dir("f8.safetensors"), &m, &err), 0);
    assert_int_equal(m->n_tensors, 2);
    assert_int_not_equal(m->tensors[0].type, PB_F8_E4M3);
    assert_int_equal(m->tensors[0].row_bytes, 96);
    plug_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f8),      cmocka_unit_test(test_f8_narrow),
        cmocka_unit_test(test_headers), cmocka_unit_test(test_folder),
        cmocka_unit_test(test_greedy),  cmocka_unit_test(test_manifest),
        cmocka_unit_test(test_stories), cmocka_unit_test(test_llama3),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
