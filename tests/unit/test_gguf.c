/* SPDX-License-Identifier: MIT
 *
 * tests/unit/test_gguf.c - weights-gguf: what it reads, what it refuses and how it says so, and
 * how much memory it takes for it.
 */
#include "config.h"

#include "gguf_make.h"
#include "models.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- files made here --------------------------------------------------- */

static char made_path[64];

/* Opens the bytes of g as a file. */
static int open_bytes(plug *w, const void *bytes, size_t n, const pb_meta **m, pb_err *err)
{
    FILE *f = fopen(made_path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
    return weights_open(w, "gguf", NULL, made_path, m, err);
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(made_path, sizeof made_path, "/tmp/test_gguf_%ld.gguf", (long)getpid());
    return 0;
}

static int remove_file(void **state)
{
    (void)state;
    unlink(made_path);
    return 0;
}

/* a valid file with each kind of value and the fully read types */
static void sample(gguf_make *g, uint32_t version)
{
    make_header(g, version, 5, 13);
    make_string_kv(g, "general.architecture", "llama");
    make_number_kv(g, "u8", 0, 1, 200);
    make_number_kv(g, "max", 10, 8, UINT64_MAX);
    make_number_kv(g, "i8", 1, 1, (uint64_t)-7);
    make_number_kv(g, "u16", 2, 2, 60000);
    make_number_kv(g, "i16", 3, 2, (uint64_t)-30000);
    make_number_kv(g, "i32", 5, 4, (uint64_t)-2000000000);
    make_number_kv(g, "f32", 6, 4, 0x3fc00000);
    make_number_kv(g, "yes", 7, 1, 131);
    make_number_kv(g, "u64", 10, 8, 1ull << 62);
    make_number_kv(g, "f64", 12, 8, 0xc004000000000000);
    make_key(g, "list", 9);
    make_number(g, 4, 3);
    make_number(g, 8, 2);
    make_number(g, 2, 0xffff);
    make_number(g, 2, 5);
    make_key(g, "words", 9);
    make_number(g, 4, 8);
    make_number(g, 8, 2);
    make_string(g, "one");
    make_string(g, "");
    make_tensor(g, "a", 2, (const uint64_t[]){ 3, 2 }, PB_F32, 0);        /* 24 bytes */
    make_tensor(g, "b", 1, (const uint64_t[]){ 64 }, PB_Q8_0, 32);        /* 68 bytes */
    make_tensor(g, "c", 2, (const uint64_t[]){ 32, 3 }, PB_Q4_0, 128);    /* 54 bytes */
    make_tensor(g, "d", 3, (const uint64_t[]){ 32, 1, 2 }, PB_Q4_1, 192); /* 40 bytes */
    make_tensor(g, "e", 1, (const uint64_t[]){ 5 }, PB_F16, 256);         /* 10 bytes */
    make_pad(g, 32);
    g->header = g->n;
    for (int i = 0; i < 288; i++)
        make_number(g, 1, (uint64_t)i & 255);
}

static void test_values(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        gguf_make g = { 0 };
        plug w;
        const pb_meta *m;
        pb_err err = { 0 };
        sample(&g, version);
        if (open_bytes(&w, g.p, g.n, &m, &err))
            fail_msg("%s", err.msg);
        assert_string_equal(m->naming, "gguf");
        assert_string_equal(m->path, made_path);
        assert_int_equal(m->n_kv, 13);
        assert_int_equal(meta_key(m, "max")->i, INT64_MAX);
        assert_string_equal(meta_key(m, "general.architecture")->s.s, "llama");
        assert_int_equal(meta_key(m, "u8")->i, 200);
        assert_int_equal(meta_key(m, "i8")->i, -7);
        assert_int_equal(meta_key(m, "u16")->i, 60000);
        assert_int_equal(meta_key(m, "i16")->i, -30000);
        assert_int_equal(meta_key(m, "i32")->i, -2000000000);
        assert_true(meta_key(m, "f32")->f == 1.5);
        assert_int_equal(meta_key(m, "yes")->type, PB_M_BOOL);
        assert_int_equal(meta_key(m, "yes")->i, 1);
        assert_int_equal(meta_key(m, "u64")->i, 1ll << 62);
        assert_true(meta_key(m, "f64")->f == -2.5);
        const pb_meta_kv *list = meta_key(m, "list"), *words = meta_key(m, "words");
        assert_int_equal(list->n, 2);
        assert_int_equal(list->is[0], -1);
        assert_int_equal(list->is[1], 5);
        assert_int_equal(words->n, 2);
        assert_string_equal(words->ss[0].s, "one");
        assert_int_equal(words->ss[1].n, 0);

        static const struct {
            const char *name;
            int32_t type;
            int64_t rows, cols;
            uint64_t row_bytes, at;
        } want[] = { { "a", PB_F32, 2, 3, 12, 0 },
                     { "b", PB_Q8_0, 1, 64, 68, 32 },
                     { "c", PB_Q4_0, 3, 32, 18, 128 },
                     { "d", PB_Q4_1, 2, 32, 20, 192 },
                     { "e", PB_F16, 1, 5, 10, 256 } };
        for (int i = 0; i < 5; i++) {
            const pb_tensor *t = meta_tensor(m, want[i].name);
            unsigned char row[128];
            assert_int_equal(t->type, want[i].type);
            assert_int_equal(t->rows, want[i].rows);
            assert_int_equal(t->cols, want[i].cols);
            assert_int_equal(t->row_bytes, want[i].row_bytes);
            assert_int_equal(t->offset, g.header + want[i].at);
            assert_int_equal(t->read(t, t->rows - 1, 1, row), 0);
            assert_memory_equal(row, g.p + t->offset + (uint64_t)(t->rows - 1) * t->row_bytes,
                                t->row_bytes);
            assert_memory_equal(t->data, g.p + t->offset, t->row_bytes);
            assert_int_equal(t->read(t, t->rows, 1, row), PB_E_INVAL);
            assert_int_equal(t->read(t, 0, t->rows + 1, row), PB_E_INVAL);
            for (int j = 0; j < i; j++)
                assert_int_not_equal(t->content, meta_tensor(m, want[j].name)->content);
        }
        plug_close(&w);
        free(g.p);
    }
}

/* A file that is cut while it is open: reads say so instead of dying. */
static void test_shrunk(void **state)
{
    gguf_make g = { 0 };
    plug w;
    const pb_meta *m;
    pb_err err = { 0 };
    char row[128];
    (void)state;
    sample(&g, 3);
    assert_int_equal(open_bytes(&w, g.p, g.n, &m, &err), 0);
    const pb_tensor *t = meta_tensor(m, "a");
    assert_int_equal(t->read(t, 0, 1, row), 0);
    assert_int_equal(truncate(made_path, 100), 0);
    assert_int_equal(t->read(t, 0, 1, row), PB_E_IO);
    assert_string_equal(meta_key(m, "general.architecture")->s.s, "llama"); /* it was copied */
    plug_close(&w);
    free(g.p);
}

/* part no of a split model, with one tensor */
static void part(const char *path, int no, int count, int total, const char *tensor)
{
    gguf_make g = { 0 };
    make_header(&g, 3, 1, 3);
    make_number_kv(&g, "split.no", 2, 2, (uint64_t)no);
    make_number_kv(&g, "split.count", 2, 2, (uint64_t)count);
    make_number_kv(&g, "split.tensors.count", 5, 4, (uint64_t)total);
    make_tensor(&g, tensor, 1, (const uint64_t[]){ 1 }, PB_F32, 0);
    make_pad(&g, 32);
    make_number(&g, 4, (uint64_t)(100 + no));
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(g.p, 1, g.n, f), g.n);
    fclose(f);
    free(g.p);
}

static void refuse_split(const char *path, const char *word)
{
    plug w;
    const pb_meta *m;
    pb_err err = { 0 };
    if (!weights_open(&w, "gguf", NULL, path, &m, &err) || !strstr(err.msg, word))
        fail_msg("expected \"%s\": %s", word, err.msg);
    assert_null(m);
    plug_close(&w);
}

static void test_split(void **state)
{
    static const char *const names[] = { "a", "b", "c" };
    char path[3][96];
    plug w;
    const pb_meta *m;
    pb_err err = { 0 };
    (void)state;
    for (int i = 0; i < 3; i++) {
        snprintf(path[i], sizeof path[i], "%s-%05d-of-00003.gguf", made_path, i + 1);
        part(path[i], i, 3, 3, names[i]);
    }
    if (weights_open(&w, "gguf", NULL, path[0], &m, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(m->n_tensors, 3);
    for (int i = 0; i < 3; i++) {
        uint32_t x;
        const pb_tensor *t = meta_tensor(m, names[i]);
        assert_int_equal(t->read(t, 0, 1, &x), 0);
        assert_int_equal(x, 100 + i);
    }
    plug_close(&w);
    refuse_split(path[1], "is part 2 of 3; name the first");
    part(path[2], 2, 3, 3, "b");
    refuse_split(path[0], "tensor b occurs twice");
    part(path[2], 1, 3, 3, "c");
    refuse_split(path[0], "do not say part 3 of 3");
    part(path[2], 2, 3, 3, "c");
    part(path[0], 0, 3, 4, "a");
    refuse_split(path[0], "3 tensors; split.tensors.count is 4");
    part(path[0], 0, 2, 3, "a");
    refuse_split(path[0], "must end in 00001-of-00002.gguf");
    part(path[0], 0, 60000, 3, "a");
    refuse_split(path[0], "split.count is 60000 (limit 512)");
    part(path[0], 0, 3, 3, "a");
    unlink(path[2]);
    refuse_split(path[0], "00003-of-00003.gguf: cannot open");
    unlink(path[0]);
    unlink(path[1]);
}

/* Without its data section a file is shown; without its last byte it is refused. */
static void test_bare(void **state)
{
    gguf_make g = { 0 };
    plug w;
    const pb_meta *m;
    pb_err err = { 0 };
    char row[128];
    (void)state;
    sample(&g, 3);
    assert_int_equal(open_bytes(&w, g.p, g.header, &m, &err), 0);
    assert_null(meta_tensor(m, "a")->data);
    assert_int_equal(meta_tensor(m, "a")->read(meta_tensor(m, "a"), 0, 1, row), PB_E_FORMAT);
    plug_close(&w);
    size_t end = g.header + 266; /* of tensor e; padding behind it may be missing */
    assert_int_equal(open_bytes(&w, g.p, end, &m, &err), 0);
    plug_close(&w);
    assert_int_equal(open_bytes(&w, g.p, end - 1, &m, &err), PB_E_FORMAT);
    assert_non_null(strstr(err.msg, "tensor e: 10 bytes"));
    plug_close(&w);
    free(g.p);
}

/* Same file, same identity; rewritten, another. */
static void test_identity(void **state)
{
    gguf_make g = { 0 };
    plug a, b;
    const pb_meta *ma, *mb;
    pb_err err = { 0 };
    (void)state;
    sample(&g, 3);
    assert_int_equal(open_bytes(&a, g.p, g.n, &ma, &err), 0);
    assert_int_equal(weights_open(&b, "gguf", NULL, made_path, &mb, &err), 0);
    uint64_t content = meta_tensor(ma, "a")->content;
    assert_int_equal(content, meta_tensor(mb, "a")->content);
    plug_close(&a);
    plug_close(&b);
    usleep(20000); /* a file system's time stamps may be that coarse */
    g.p[g.header] ^= 1;
    assert_int_equal(open_bytes(&a, g.p, g.n, &ma, &err), 0);
    assert_int_not_equal(content, meta_tensor(ma, "a")->content);
    plug_close(&a);
    free(g.p);
}

/* ---- refusals ---------------------------------------------------------- */

static void refuse(const gguf_make *g, const char *word)
{
    plug w;
    const pb_meta *m;
    pb_err err = { 0 };
    int rc = open_bytes(&w, g->p, g->n, &m, &err);
    if (!rc || rc != err.code || !strstr(err.msg, word) || !strstr(err.msg, made_path))
        fail_msg("expected \"%s\", got %d: %s", word, rc, err.msg);
    assert_null(m);
    plug_close(&w);
}

/* one metadata entry after a header that announces it */
static void refuse_kv(uint32_t type, const void *bytes, size_t n, const char *word)
{
    gguf_make g = { 0 };
    make_header(&g, 3, 0, 1);
    make_key(&g, "k", type);
    for (size_t i = 0; i < n; i++)
        make_number(&g, 1, ((const unsigned char *)bytes)[i]);
    refuse(&g, word);
    free(g.p);
}

static void refuse_tensor(uint32_t n_dims, const uint64_t *dims, uint32_t type, uint64_t offset,
                          const char *word)
{
    gguf_make g = { 0 };
    make_header(&g, 3, 1, 0);
    make_tensor(&g, "t", n_dims, dims, type, offset);
    make_pad(&g, 32);
    for (int i = 0; i < 128; i++)
        make_number(&g, 1, 0);
    refuse(&g, word);
    free(g.p);
}

static void test_refused(void **state)
{
    (void)state;
    refuse_kv(13, "", 0, "no value type has number 13");
    refuse_kv(8, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, "18446744073709551615 bytes");
    refuse_kv(8, "\5\0\0\0\0\0\0\0abcd", 12, "needs 5 bytes, the file has 4 left");
    refuse_kv(9, "\4\0\0\0\xff\xff\xff\xff\xff\xff\xff\x3f", 12, "4611686018427387903 elements");
    refuse_kv(9, "\x9\0\0\0\1\0\0\0\0\0\0\0", 12, "array in array");
    refuse_kv(4, "\1", 1, "needs 4 bytes, the file has 1 left");

    refuse_tensor(5, (const uint64_t[]){ 1, 1, 1, 1, 1 }, PB_F32, 0, "5 dimensions");
    refuse_tensor(1, (const uint64_t[]){ 33 }, PB_Q8_0, 0, "rows of 33 elements, Q8_0");
    refuse_tensor(1, (const uint64_t[]){ 32 }, 4, 0, "no element type has number 4");
    refuse_tensor(1, (const uint64_t[]){ 32 }, PB_F32, 8, "offset 8 is no multiple");
    refuse_tensor(1, (const uint64_t[]){ 32 }, PB_F32, 32, "offset is 32");
    refuse_tensor(1, (const uint64_t[]){ 33 }, PB_F32, 0, "132 bytes at offset 64");
    refuse_tensor(2, (const uint64_t[]){ 1ull << 62, 1ull << 62 }, PB_F32, 0, "2^63");
    refuse_tensor(2, (const uint64_t[]){ 1ull << 31, 1ull << 31 }, PB_F32, 0, "bytes");
    refuse_tensor(1, (const uint64_t[]){ UINT64_MAX }, PB_F32, 0, "2^63");
    refuse_tensor(3, (const uint64_t[]){ 0, 1ull << 40, 1ull << 40 }, PB_F32, 0, "2^63");
}

/* ---- real test material ------------------------------------------------ */

static void test_manifest(void **state)
{
    char line[512], name[256], expect[16];
    int n = 0, wrong = 0;
    (void)state;
    if (data_absent())
        skip();
    FILE *f = fopen(data_path("gguf/handcrafted/MANIFEST.tsv"), "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        plug w;
        const pb_meta *m;
        pb_err err = { 0 };
        char under[512];
        if (sscanf(line, "%255[^\t]\t%*d\t%15[^\t\n]", name, expect) != 2)
            continue;
        snprintf(under, sizeof under, "gguf/handcrafted/%s", name);
        int rc = weights_open(&w, "gguf", NULL, data_path(under), &m, &err);
        if ((rc == 0) != !strcmp(expect, "accept")) {
            print_message("%s: expected %s, got %d: %s\n", name, expect, rc, err.msg);
            wrong++;
        }
        if (rc && !strstr(err.msg, name))
            fail_msg("%s is not named: %s", name, err.msg);
        plug_close(&w);
        n++;
    }
    fclose(f);
    assert_int_equal(n, 28);
    assert_int_equal(wrong, 0);
}

static void test_real(void **state)
{
    static const char *const files[] = {
        "models/stories260K/stories260K.gguf", "models/toy/llama-dense.gguf",
        "models/toy/llama-moe.gguf",           "models/toy/qwen2-dense.gguf",
        "models/toy/qwen3-dense.gguf",         "models/toy/qwen3moe-moe.gguf",
        "models/toy/gemma3-dense.gguf",        "models/toy/deepseek2-moe.gguf",
        "models/toy/deepseek-v3-tiny-f32.gguf"
    };
    (void)state;
    if (data_absent())
        skip();
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        plug w;
        const pb_meta *m;
        pb_err err = { 0 };
        if (weights_open(&w, "gguf", NULL, data_path(files[i]), &m, &err))
            fail_msg("%s", err.msg);
        assert_true(m->n_tensors > 20 && meta_key(m, "general.architecture"));
        const pb_tensor *last = &m->tensors[m->n_tensors - 1];
        char *row = malloc(last->row_bytes);
        assert_int_equal(last->read(last, last->rows - 1, 1, row), 0);
        free(row);
        if (i == 0) {
            assert_int_equal(m->n_tensors, 48);
            const pb_tensor *t = meta_tensor(m, "blk.0.ffn_down.weight");
            assert_int_equal(t->cols, 172);
            assert_int_equal(t->rows, 64);
            assert_int_equal(t->row_bytes, 688);
            assert_int_equal(meta_key(m, "llama.block_count")->i, 5);
            assert_int_equal(meta_key(m, "tokenizer.ggml.tokens")->n, 512);
        }
        plug_close(&w);
    }
}

/* one tensor of 512 elements of each type that backends compute with, mixed in one file */
static void test_types(void **state)
{
    static const struct {
        const char *name;
        int32_t type;
        uint64_t bytes;
    } types[] = { { "f32", PB_F32, 2048 },      { "f16", PB_F16, 1024 },
                  { "bf16", PB_BF16, 1024 },    { "q4_0", PB_Q4_0, 288 },
                  { "q4_1", PB_Q4_1, 320 },     { "q5_0", PB_Q5_0, 352 },
                  { "q5_1", PB_Q5_1, 384 },     { "q8_0", PB_Q8_0, 544 },
                  { "q2_k", PB_Q2_K, 168 },     { "q3_k", PB_Q3_K, 220 },
                  { "q4_k", PB_Q4_K, 288 },     { "q5_k", PB_Q5_K, 352 },
                  { "q6_k", PB_Q6_K, 420 },     { "iq4_nl", PB_IQ4_NL, 288 },
                  { "iq4_xs", PB_IQ4_XS, 272 }, { "mxfp4", PB_MXFP4, 272 } };
    enum { N = sizeof types / sizeof types[0] };
    gguf_make g = { 0 };
    plug w;
    const pb_meta *m;
    pb_err err = { 0 };
    uint64_t at[N + 1] = { 0 };
    (void)state;
    make_header(&g, 3, N, 1);
    make_string_kv(&g, "general.architecture", "llama");
    for (int i = 0; i < N; i++) {
        make_tensor(&g, types[i].name, 1, (const uint64_t[]){ 512 }, (uint32_t)types[i].type,
                    at[i]);
        at[i + 1] = (at[i] + types[i].bytes + 31) / 32 * 32;
    }
    make_pad(&g, 32);
    size_t data = g.n;
    for (uint64_t i = 0; i < at[N]; i++)
        make_number(&g, 1, i * 7 & 255);
    if (open_bytes(&w, g.p, g.n, &m, &err))
        fail_msg("%s", err.msg);
    for (int i = 0; i < N; i++) {
        const pb_tensor *t = meta_tensor(m, types[i].name);
        unsigned char row[2048];
        assert_int_equal(t->type, types[i].type);
        assert_int_equal(t->row_bytes, types[i].bytes);
        assert_int_equal(t->read(t, 0, 1, row), 0);
        assert_memory_equal(row, g.p + data + at[i], types[i].bytes);
    }
    plug_close(&w);
    free(g.p);
    refuse_tensor(1, (const uint64_t[]){ 128 }, PB_Q6_K, 0, "Q6_K comes in blocks of 256");
    refuse_tensor(1, (const uint64_t[]){ 128 }, PB_F8_E4M3, 0, "no element type has number 1000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),   cmocka_unit_test(test_values),
        cmocka_unit_test(test_shrunk),  cmocka_unit_test(test_identity),
        cmocka_unit_test(test_bare),    cmocka_unit_test(test_split),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_manifest),
        cmocka_unit_test(test_real),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_file);
}
