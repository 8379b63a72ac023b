/* SPDX-License-Identifier: MIT
 *
 * tests/fuzz/fuzz_safetensors.c - folders whose config.json, index, tokenizer.model or safetensors
 * file was cut or edited, through weights-safetensors, model-llama and the tokenizer. What is
 * refused has a message; what is taken can be read to its last byte; nothing is left behind.
 * Runs PATCHBAY_FUZZ_SECONDS (default 2); prints its seed, which PATCHBAY_FUZZ_SEED repeats.
 */
#define _GNU_SOURCE 1
#include "loader.h"
#include "program.h"
#include "text/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { N_FILES = 4, ROOM = 1 << 16 };

static uint64_t rng, seed;
static int64_t n_cases, n_taken, n_built;
static long blocks;
static char dir[64];
static const pb_plugin *st, *llama;
static const pb_weights *weights;
static const pb_model *model;

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

static void die(const char *what, const char *why)
{
    fprintf(stderr, "fuzz_safetensors: seed %llu, case %lld (files in %s): %s: %s\n",
            (unsigned long long)seed, (long long)n_cases, dir, what, why);
    abort();
}

static void *counted(const pb_host *h, size_t bytes, size_t align, const char *tag)
{
    (void)h, (void)align, (void)tag;
    void *p = calloc(1, bytes ? bytes : 1);
    blocks += p != NULL;
    return p;
}

static void uncounted(const pb_host *h, void *p)
{
    (void)h;
    blocks -= p != NULL;
    free(p);
}

static void quiet(const pb_host *h, int32_t level, const char *msg)
{
    (void)h, (void)level, (void)msg;
}

static const pb_host host = {
    .size = sizeof host, .alloc = counted, .free = uncounted, .log = quiet
};

/* ---- the good folder --------------------------------------------------- */

typedef struct content {
    const char *name;
    unsigned char p[ROOM];
    size_t n, head; /* head: bytes that are worth changing */
} content;

static content good[N_FILES], bad;

static void text(content *c, const char *name, const char *s)
{
    c->name = name;
    c->n = c->head = strlen(s);
    memcpy(c->p, s, c->n);
}

static void make_shard(content *c)
{
    static const struct {
        const char *name;
        int rows, cols;
    } t[] = { { "model.embed_tokens.weight", 8, 4 },
              { "model.norm.weight", 0, 4 },
              { "model.layers.0.input_layernorm.weight", 0, 4 },
              { "model.layers.0.post_attention_layernorm.weight", 0, 4 },
              { "model.layers.0.self_attn.q_proj.weight", 4, 4 },
              { "model.layers.0.self_attn.k_proj.weight", 4, 4 },
              { "model.layers.0.self_attn.v_proj.weight", 4, 4 },
              { "model.layers.0.self_attn.o_proj.weight", 4, 4 },
              { "model.layers.0.mlp.gate_proj.weight", 8, 4 },
              { "model.layers.0.mlp.up_proj.weight", 8, 4 },
              { "model.layers.0.mlp.down_proj.weight", 4, 8 } };
    char *s = (char *)c->p + 8;
    size_t n = 0, at = 0;
    n += (size_t)sprintf(s + n, "{");
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        size_t bytes = (size_t)(t[i].rows ? t[i].rows : 1) * (size_t)t[i].cols * 4;
        n += (size_t)sprintf(s + n, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", i ? "," : "",
                             t[i].name);
        if (t[i].rows)
            n += (size_t)sprintf(s + n, "%d,", t[i].rows);
        n += (size_t)sprintf(s + n, "%d],\"data_offsets\":[%zu,%zu]}", t[i].cols, at, at + bytes);
        at += bytes;
    }
    n += (size_t)sprintf(s + n, "}");
    for (int i = 0; i < 8; i++)
        c->p[i] = (unsigned char)(n >> (8 * i));
    c->name = "m1.safetensors";
    c->head = 8 + n;
    c->n = 8 + n + at;
}

static void make_good(void)
{
    text(&good[0], "config.json",
         "{\"model_type\":\"llama\",\"hidden_size\":4,\"intermediate_size\":8,"
         "\"num_hidden_layers\":1,\"num_attention_heads\":2,\"rms_norm_eps\":1e-5,"
         "\"tie_word_embeddings\":true,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,"
         "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
         "\"original_max_position_embeddings\":32},\"list\":[1,2.5],\"none\":null}");
    text(&good[1], "model.safetensors.index.json",
         "{\"metadata\":{},\"weight_map\":{\"model.norm.weight\":\"m1.safetensors\"}}");
    static const char pieces[] = "\x0a\x09\x0a\x05<unk>\x18\x02" /* type unknown */
                                 "\x0a\x05\x0a\x03<s>"
                                 "\x0a\x08\x0a\x01"
                                 "a\x15\0\0\xc0\x3f"
                                 "\x12\x02\x18\x02"; /* BPE */
    good[2].name = "tokenizer.model";
    good[2].n = good[2].head = sizeof pieces - 1;
    memcpy(good[2].p, pieces, sizeof pieces - 1);
    make_shard(&good[3]);
}

static void put(const content *c)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, c->name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(c->p, 1, c->n, f) != c->n || fclose(f))
        die(path, "cannot write");
}

/* ---- one case ---------------------------------------------------------- */

static void use_model(const pb_meta *m)
{
    pb_err err = { 0 };
    pbi_program *p = NULL;
    pbi_tokenizer *tok = NULL;
    void *self = NULL;
    if (pbi_program_new(&p, &err) || llama->create(&host, NULL, &self, &err))
        die("create", err.msg);
    int rc = model->build(self, m, 64, pbi_program_builder(p), &err);
    if (rc ? !err.msg[0] : !pbi_program_get(p))
        die("build", "neither a program nor a message");
    n_built += !rc;
    pbi_program_free(p);
    llama->destroy(self);
    if (!pbi_tokenizer_new(m, &tok, &err))
        pbi_tokenizer_free(tok);
}

static void run_case(void)
{
    pb_err err = { 0 };
    void *self = NULL;
    double t0 = now();
    n_cases++;
    if (st->create(&host, NULL, &self, &err))
        die("create", err.msg);
    int rc = weights->open(self, dir, &err);
    const pb_meta *m = weights->meta(self);
    if (rc ? (!err.msg[0] || err.code != rc || m) : !m)
        die("open", "result, message and meta disagree");
    for (int32_t i = 0; m && i < m->n_tensors; i++) {
        const pb_tensor *t = &m->tensors[i];
        char row[ROOM];
        if (t->rows < 1 || t->row_bytes > sizeof row)
            continue;
        if (t->read(t, 0, 1, row) || t->read(t, t->rows - 1, 1, row) ||
            !t->read(t, t->rows, 1, row))
            die(t->name, "rows cannot be read");
    }
    if (m) {
        n_taken++;
        use_model(m);
    }
    st->destroy(self);
    if (blocks)
        die("destroy", "memory is left");
    if (now() - t0 > 10)
        die("case", "took over 10 s");
}

static void edit(content *c)
{
    static const char *const bits[] = {
        "\"",   "{",   "}",       "[",   "]", ",", ":", "-1", "0", "1e999", "4611686018427387904",
        "null", "../", "\\u0000", "\xff"
    };
    for (uint32_t k = 1 + rnd(3); k-- > 0 && c->n > 24;) {
        size_t at = rnd((uint32_t)(c->head < c->n ? c->head : c->n)), cut = 1 + rnd(12);
        const char *bit = bits[rnd(sizeof bits / sizeof *bits)];
        switch (rnd(4)) {
        case 0: c->p[at] ^= (unsigned char)(1u << rnd(8)); break;
        case 1:
            if (at + cut < c->n) {
                memmove(c->p + at, c->p + at + cut, c->n - at - cut);
                c->n -= cut;
            }
            break;
        case 2:
            if (at + strlen(bit) <= c->n)
                memcpy(c->p + at, bit, strlen(bit));
            break;
        default:
            if (c->n + strlen(bit) < ROOM) {
                memmove(c->p + at + strlen(bit), c->p + at, c->n - at);
                memcpy(c->p + at, bit, strlen(bit));
                c->n += strlen(bit);
            }
        }
    }
}

static const void *open_plugin(const char *slot, const char *name, const pb_plugin **out)
{
    const pbi_library *lib;
    pb_err err = { 0 };
    if (pbi_loader_open(slot, name, &lib, &err)) {
        fprintf(stderr, "fuzz_safetensors: %s\n", err.msg);
        exit(1);
    }
    *out = lib->desc;
    return lib->desc->ifaces[0].vtbl;
}

int main(void)
{
    const char *s = getenv("PATCHBAY_FUZZ_SECONDS"), *r = getenv("PATCHBAY_FUZZ_SEED");
    double seconds = s ? strtod(s, NULL) : 2;
    seed = rng = r ? strtoull(r, NULL, 10) : 20241124;
    printf("fuzz_safetensors: seed %llu\n", (unsigned long long)seed);
    weights = open_plugin("weights", "safetensors", &st);
    model = open_plugin("model", "llama", &llama);
    snprintf(dir, sizeof dir, "%s/fuzz_safetensors_XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(dir))
        die("mkdtemp", "failed");
    make_good();
    for (int i = 0; i < N_FILES; i++)
        put(&good[i]);
    run_case();
    if (n_taken != 1 || n_built != 1)
        die("good folder", "refused");
    for (int i = 0; i < N_FILES; i++) { /* truncations */
        for (size_t n = 0; n < good[i].head; n += 1 + good[i].head / 100) {
            int64_t taken = n_taken;
            bad = good[i];
            bad.n = n;
            put(&bad);
            run_case();
            if (n_taken > taken && i != 2) /* pieces end anywhere */
                die(bad.name, "taken though cut");
        }
        put(&good[i]);
    }
    double end = now() + seconds;
    do {
        int i = (int)rnd(N_FILES);
        bad = good[i];
        edit(&bad);
        put(&bad);
        run_case();
        put(&good[i]);
    } while (now() < end);
    for (int i = 0; i < N_FILES; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", dir, good[i].name);
        unlink(path);
    }
    rmdir(dir);
    printf("fuzz_safetensors: %lld cases, %lld read, %lld with a program\n", (long long)n_cases,
           (long long)n_taken, (long long)n_built);
    return 0;
}
