/* SPDX-License-Identifier: MIT
 *
 * tests/fuzz/fuzz_gguf.c - broken GGUF files through weights-gguf, model-llama and the tokenizer:
 * every truncation and every changed byte of two headers, then random edits. What is refused has a
 * message; what is taken can be read to its last byte. Memory stays under the file's size + 64 MiB.
 * Runs PATCHBAY_FUZZ_SECONDS (default 2); prints its seed, which PATCHBAY_FUZZ_SEED repeats.
 */
#define _GNU_SOURCE 1
#include "../unit/gguf_make.h"
#include "loader.h"
#include "program.h"
#include "text/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { SLACK = 64 << 20, MAX_ROW = 32 << 20 };

static uint64_t rng, seed;
static uint32_t rnd(uint32_t n)
{
    rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
    return (uint32_t)(rng >> 32) % n;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- a host that counts ------------------------------------------------ */

static size_t mem, mem_peak, blocks;

static void *count_alloc(const pb_host *h, size_t bytes, size_t align, const char *tag)
{
    (void)h, (void)align, (void)tag;
    if (bytes > (size_t)1 << 40)
        return NULL;
    size_t *p = calloc(1, bytes + 64); /* the size lies in front */
    if (!p)
        return NULL;
    p[0] = bytes;
    mem += bytes;
    blocks++;
    if (mem > mem_peak)
        mem_peak = mem;
    return p + 8;
}

static void count_free(const pb_host *h, void *p)
{
    (void)h;
    if (!p)
        return;
    size_t *q = (size_t *)p - 8;
    mem -= q[0];
    blocks--;
    free(q);
}

static void quiet(const pb_host *h, int32_t level, const char *msg)
{
    (void)h, (void)level, (void)msg;
}

static const pb_host host = {
    .size = sizeof host, .alloc = count_alloc, .free = count_free, .log = quiet
};

/* ---- one case ---------------------------------------------------------- */

static const pb_plugin *gguf, *llama;
static const pb_weights *weights;
static const pb_model *model;
static int64_t n_cases, n_taken, n_built, n_text;
static volatile uint64_t sink;
static int file;
static char path[64];

static void die(const char *what, const char *why)
{
    fprintf(stderr, "fuzz_gguf: seed %llu, case %lld: %s: %s\n", (unsigned long long)seed,
            (long long)n_cases, what, why);
    abort();
}

static void use_meta(const pb_meta *m)
{
    uint64_t x = 0;
    for (int32_t i = 0; i < m->n_kv; i++) {
        const pb_meta_kv *kv = &m->kv[i];
        x += strlen(kv->key);
        if (kv->n < 0 && kv->type == PB_M_STR && kv->s.s[kv->s.n])
            die(kv->key, "no 0 after the string");
        for (int64_t k = 0; k < kv->n; k++) {
            if (kv->type == PB_M_STR && kv->ss[k].s[kv->ss[k].n])
                die(kv->key, "no 0 after a string");
            if (kv->type == PB_M_FLOAT)
                x += kv->fs[k] > 0;
            else if (kv->type != PB_M_STR)
                x += (uint64_t)kv->is[k];
        }
    }
    sink += x;
}

static void use_tensors(const pb_meta *m)
{
    for (int32_t i = 0; i < m->n_tensors; i++) {
        const pb_tensor *t = &m->tensors[i];
        if (!t->data || t->rows < 1 || t->row_bytes > MAX_ROW)
            continue;
        char *row = malloc((size_t)t->row_bytes + 1);
        if (!row || t->read(t, 0, 1, row) || t->read(t, t->rows - 1, 1, row))
            die(t->name, "cannot be read");
        if (t->rows < INT64_MAX && !t->read(t, t->rows, 1, row))
            die(t->name, "a row behind the last was read");
        free(row);
    }
}

static void use_model(const pb_meta *m)
{
    pb_err err = { 0 };
    pbi_program *p = NULL;
    pbi_tokenizer *tok = NULL;
    void *self = NULL;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    if (pbi_program_new(&p, &err) || llama->create(&host, NULL, &self, &err))
        die("create", err.msg);
    int rc = model->build(self, m, 64, pbi_program_builder(p), &err);
    if (rc ? !err.msg[0] : !pbi_program_get(p))
        die("build", "neither a program nor a message");
    n_built += !rc;
    pbi_program_free(p);
    llama->destroy(self);
    memset(&err, 0, sizeof err);
    rc = pbi_tokenizer_new(m, &tok, &err);
    if (rc && !err.msg[0])
        die("tokenizer", "no message");
    if (!rc) {
        n_text++;
        if (!pbi_tokenizer_encode(tok, "Once upon a <s>time\xff", 20, 0, &ids, &n_ids, &err))
            free(ids);
        pbi_tokenizer_free(tok);
    }
}

static void run_case(const void *bytes, size_t n)
{
    pb_err err = { 0 };
    void *self = NULL;
    double t0 = now();
    n_cases++;
    if (ftruncate(file, 0) || pwrite(file, bytes, n, 0) != (ssize_t)n)
        die("memfd", "cannot write");
    mem_peak = mem = 0;
    if (gguf->create(&host, NULL, &self, &err))
        die("create", err.msg);
    int rc = weights->open(self, path, &err);
    const pb_meta *m = weights->meta(self);
    if (rc ? (!err.msg[0] || err.code != rc || m) : !m)
        die("open", "result, message and meta disagree");
    if (mem_peak > n + SLACK)
        die("open", "memory above the limit");
    if (!rc) {
        n_taken++;
        use_meta(m);
        use_tensors(m);
        use_model(m);
    }
    gguf->destroy(self);
    if (blocks)
        die("destroy", "memory is left");
    if (now() - t0 > 10)
        die("case", "took over 10 s");
}

/* ---- cases ------------------------------------------------------------- */

/* a small Llama with a byte vocabulary: metadata of each kind, all tensors, data */
static void small_model(gguf_make *g)
{
    static const struct {
        const char *name;
        uint64_t cols, rows;
    } t[] = { { "token_embd.weight", 4, 8 },        { "output_norm.weight", 4, 0 },
              { "blk.0.attn_norm.weight", 4, 0 },   { "blk.0.attn_q.weight", 4, 4 },
              { "blk.0.attn_k.weight", 4, 4 },      { "blk.0.attn_v.weight", 4, 4 },
              { "blk.0.attn_output.weight", 4, 4 }, { "blk.0.ffn_norm.weight", 4, 0 },
              { "blk.0.ffn_gate.weight", 4, 8 },    { "blk.0.ffn_up.weight", 4, 8 },
              { "blk.0.ffn_down.weight", 8, 4 } };
    static const char *const words[] = { "<unk>", "<s>", "</s>", "a", "b", "ab", "<0x20>", "c" };
    const uint64_t n = sizeof t / sizeof *t;
    uint64_t at = 0;
    make_header(g, 3, n, 13);
    make_string_kv(g, "general.architecture", "llama");
    make_number_kv(g, "general.alignment", 4, 4, 8);
    make_number_kv(g, "llama.block_count", 4, 4, 1);
    make_number_kv(g, "llama.context_length", 10, 8, 16);
    make_number_kv(g, "llama.embedding_length", 4, 4, 4);
    make_number_kv(g, "llama.feed_forward_length", 4, 4, 8);
    make_number_kv(g, "llama.attention.head_count", 4, 4, 2);
    make_number_kv(g, "llama.attention.layer_norm_rms_epsilon", 6, 4, 0x3727c5ac);
    make_string_kv(g, "tokenizer.ggml.model", "llama");
    make_number_kv(g, "tokenizer.ggml.bos_token_id", 4, 4, 1);
    make_key(g, "tokenizer.ggml.tokens", 9);
    make_number(g, 4, 8);
    make_number(g, 8, 8);
    for (int i = 0; i < 8; i++)
        make_string(g, words[i]);
    make_key(g, "tokenizer.ggml.scores", 9);
    make_number(g, 4, 6);
    make_number(g, 8, 8);
    for (uint64_t i = 0; i < 8; i++)
        make_number(g, 4, 0xbf800000 + i);
    make_key(g, "tokenizer.ggml.token_type", 9);
    make_number(g, 4, 5);
    make_number(g, 8, 8);
    for (int i = 0; i < 8; i++)
        make_number(g, 4, i == 0 ? 2 : i < 3 ? 3 : i == 6 ? 6 : 1);
    for (uint64_t i = 0; i < n; i++) {
        make_tensor(g, t[i].name, t[i].rows ? 2 : 1, (const uint64_t[]){ t[i].cols, t[i].rows },
                    PB_F32, at);
        at += t[i].cols * (t[i].rows ? t[i].rows : 1) * 4;
    }
    g->infos = g->n;
    make_pad(g, 8);
    g->header = g->n;
    for (uint64_t i = 0; i < at; i++)
        make_number(g, 1, i);
}

static void each_byte(const gguf_make *g)
{
    static const unsigned char flips[] = { 1, 2, 0x10, 0x80, 0xff };
    unsigned char *p = malloc(g->n);
    if (!p)
        die("malloc", "no memory");
    memcpy(p, g->p, g->n);
    for (size_t n = 0; n <= g->header + 8; n++) {
        int64_t taken = n_taken;
        run_case(p, n);
        /* what is left of the page reads as zeros: an unchecked length shows only here */
        if (n_taken > taken && (n < g->infos || n > g->header))
            die("truncated file", "taken");
    }
    run_case(p, g->n - 1);
    for (size_t i = 0; i < g->header; i++) {
        for (size_t k = 0; k < sizeof flips; k++) {
            p[i] = g->p[i] ^ flips[k];
            run_case(p, g->n);
        }
        p[i] = g->p[i];
    }
    free(p);
}

/* arrays that would grow in memory */
static void greedy_file(uint32_t type, size_t bytes)
{
    gguf_make g = { 0 };
    size_t each = type == 8 ? 8 : 1;
    make_header(&g, 3, 0, 1);
    make_key(&g, "list", 9);
    make_number(&g, 4, type);
    make_number(&g, 8, bytes / each);
    for (size_t i = 0; i < bytes / 8; i++)
        make_number(&g, 8, 0);
    run_case(g.p, g.n);
    free(g.p);
}

static void many_strings(size_t n, size_t length)
{
    gguf_make g = { 0 };
    make_header(&g, 3, 0, 1);
    make_key(&g, "list", 9);
    make_number(&g, 4, 8);
    make_number(&g, 8, n);
    for (size_t i = 0; i < n; i++) {
        make_number(&g, 8, length);
        for (size_t k = 0; k < length; k += 8)
            make_number(&g, 8, 0x6161616161616161);
    }
    run_case(g.p, g.n);
    free(g.p);
}

static void random_case(const gguf_make *g)
{
    static const uint64_t odd[] = {
        0,          1,          8,          0x7f,       0xff,
        0xffff,     0x7fffffff, 0x80000000, 0xffffffff, 1ull << 32,
        1ull << 62, 1ull << 63, INT64_MAX,  UINT64_MAX, UINT64_MAX - 31
    };
    unsigned char *p = malloc(g->n + 256);
    size_t n = g->n;
    if (!p)
        die("malloc", "no memory");
    memcpy(p, g->p, n);
    for (uint32_t k = 1 + rnd(4); k-- > 0;) {
        size_t at = rnd((uint32_t)(g->header < n ? g->header : n));
        uint64_t v = odd[rnd(sizeof odd / sizeof *odd)];
        size_t w = 1u << rnd(4), cut = 1 + rnd(16);
        switch (rnd(5)) {
        case 0: p[at] ^= (unsigned char)(1u << rnd(8)); break;
        case 1:
            if (at + w <= n)
                memcpy(p + at, &v, w);
            break;
        case 2: /* shift left */
            if (n > at + cut) {
                memmove(p + at, p + at + cut, n - at - cut);
                n -= cut;
            }
            break;
        case 3: /* shift right */
            if (n + cut <= g->n + 256) {
                memmove(p + at + cut, p + at, n - at);
                n += cut;
            }
            break;
        default: /* copy a place over another */
            w = rnd(64);
            v = rnd((uint32_t)(g->header < n ? g->header : n));
            if (at + w <= n && v + w <= n)
                memmove(p + at, p + v, w);
        }
        if (n < 32)
            break;
    }
    run_case(p, n);
    free(p);
}

static const void *open_plugin(const char *slot, const char *name, const pb_plugin **out)
{
    const pbi_library *lib;
    pb_err err = { 0 };
    if (pbi_loader_open(slot, name, &lib, &err)) {
        fprintf(stderr, "fuzz_gguf: %s\n", err.msg);
        exit(1);
    }
    *out = lib->desc;
    return lib->desc->ifaces[0].vtbl;
}

int main(void)
{
    const char *s = getenv("PATCHBAY_FUZZ_SECONDS"), *r = getenv("PATCHBAY_FUZZ_SEED");
    double end = now() + (s ? strtod(s, NULL) : 2);
    seed = rng = r ? strtoull(r, NULL, 10) : 20241124;
    printf("fuzz_gguf: seed %llu\n", (unsigned long long)seed);
    weights = open_plugin("weights", "gguf", &gguf);
    model = open_plugin("model", "llama", &llama);
    file = memfd_create("fuzz", MFD_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);

    gguf_make g = { 0 };
    small_model(&g);
    run_case(g.p, g.n);
    if (n_taken != 1 || n_built != 1 || n_text != 1)
        die("good file", "refused");
    each_byte(&g);
    greedy_file(0, 24 << 20);
    greedy_file(8, 16 << 20);
    many_strings(100, 70000);
    many_strings(30, 1 << 19);
    do
        random_case(&g);
    while (now() < end);
    free(g.p);
    printf("fuzz_gguf: %lld cases, %lld read, %lld with a program, %lld with a tokenizer\n",
           (long long)n_cases, (long long)n_taken, (long long)n_built, (long long)n_text);
    return 0;
}
