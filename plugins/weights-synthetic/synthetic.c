/* SPDX-License-Identifier: MIT
 *
 * plugins/weights-synthetic/synthetic.c - a Llama of any shape from a seed, without a file: for
 * lint, CI and benchmarks where only the shape matters.
 *
 * Metadata and tensors look exactly as weights-gguf would show a file of that shape. Rows are
 * made when they are read and never kept, so a 70B shape costs no memory here. Invariant: the
 * bytes of a row are a function of (seed, tensor name and dimensions, type, row) alone, on every
 * machine. Test: tests/unit/test_synthetic.c
 */
#include "quant.h"
#include "../weights-common/fail.h"

#include <patchbay/plugin.h>

#include <math.h>
#include <string.h>

enum { N_BYTES = 256, FIRST_WORD = 3 + N_BYTES, PER_LAYER = 9, MAX_KV = 32, MAX_ROW = 1 << 20 };

typedef struct config {
    int64_t layers, width, heads, kv_heads, head_dim, ffn, vocab, context, seed;
    int32_t type, tie;
} config;

typedef struct stats {
    int64_t rows, bytes;
} stats;

/* What a tensor's values look like: uniform around mean, of this standard deviation. */
typedef struct made {
    uint64_t key;
    float mean, sigma;
} made;

typedef struct synthetic {
    const pb_host *host;
    const config *cfg;
    stats *st;
    pb_meta meta;
    pb_meta_kv kv[MAX_KV];
    pb_tensor *tensors;
    made *how;
    char *names; /* [n_tensors][NAME] */
    char *words; /* texts of the vocabulary */
    pb_str *tokens;
    double *scores;
    int64_t *types;
} synthetic;

enum { NAME = 40, WORD = 24 };

/* Of the option `type`, in its order. The last is a mixture: as files named Q4_K_M have it, other
 * types for some matrices, and smaller blocks for rows that are no multiple of 256. */
static const int32_t type_of[] = { PB_F32,  PB_F16,    PB_Q8_0,   PB_Q4_0,  PB_Q4_1, PB_BF16,
                                   PB_Q5_0, PB_Q5_1,   PB_Q2_K,   PB_Q3_K,  PB_Q4_K, PB_Q5_K,
                                   PB_Q6_K, PB_IQ4_NL, PB_IQ4_XS, PB_MXFP4, -1 };

/* ---- values ------------------------------------------------------------ */

/* finaliser of SplitMix64 (Steele, Lea, Flood 2014) */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t hash_text(uint64_t h, const char *s)
{
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 0x100000001b3u;
    return mix(h);
}

/* Two values of 32 bits each from one hash. All steps are exact or correctly rounded in float,
 * so the bits are the same everywhere. */
static void make_row(const made *m, int64_t row, int64_t cols, float *x)
{
    uint64_t state = mix(m->key + (uint64_t)row * 0x9e3779b97f4a7c15u);
    float step = m->sigma * 1.7320508f / 8388608.0f; /* uniform on +-sqrt(3) sigma */
    for (int64_t i = 0; i < cols; i += 2) {
        uint64_t h = mix(state += 0x9e3779b97f4a7c15u);
        float a = (float)((int32_t)(h & 0xffffff) - 0x800000) * step;
        float b = (float)((int32_t)(h >> 32 & 0xffffff) - 0x800000) * step;
        x[i] = m->mean + a;
        if (i + 1 < cols)
            x[i + 1] = m->mean + b;
    }
}

/* In spans of columns, so that a row of any width needs no memory. */
static int read_rows(const pb_tensor *t, int64_t row0, int64_t n_rows, void *dst)
{
    const synthetic *s = t->owner;
    const made *m = &s->how[t - s->tensors];
    if (row0 < 0 || n_rows < 0 || row0 > t->rows - n_rows)
        return PB_E_INVAL;
    enum { SPAN = 4096 };
    float x[SPAN];
    for (int64_t r = 0; r < n_rows; r++) {
        char *out = (char *)dst + (uint64_t)r * t->row_bytes;
        for (int64_t c = 0; c < t->cols; c += SPAN) {
            int64_t n = t->cols - c < SPAN ? t->cols - c : SPAN;
            made part = *m;
            part.key += (uint64_t)c * 0xd6e8feb86659fd93u;
            make_row(&part, row0 + r, n, x);
            quant_row(t->type, n, x, out + quant_row_bytes(t->type, c));
        }
    }
    __atomic_fetch_add(&s->st->rows, n_rows, __ATOMIC_RELAXED);
    __atomic_fetch_add(&s->st->bytes, n_rows * (int64_t)t->row_bytes, __ATOMIC_RELAXED);
    return 0;
}

/* ---- tensors ----------------------------------------------------------- */

static void add(synthetic *s, const char *name, int32_t type, int64_t rows, int64_t cols,
                float mean, float sigma)
{
    int32_t i = s->meta.n_tensors++;
    char *own = s->names + (size_t)i * NAME;
    memcpy(own, name, strlen(name) + 1);
    uint64_t key = hash_text(mix((uint64_t)s->cfg->seed), name);
    key = mix(key ^ mix((uint64_t)rows) ^ (uint64_t)cols * 0x9e3779b97f4a7c15u);
    s->how[i] = (made){ .key = key, .mean = mean, .sigma = sigma };
    uint64_t look = 0;
    uint32_t bits[2];
    memcpy(&bits[0], &mean, 4);
    memcpy(&bits[1], &sigma, 4);
    look = mix((uint64_t)bits[0] << 32 | bits[1]);
    s->tensors[i] = (pb_tensor){ .name = own,
                                 .type = type,
                                 .n_dims = rows > 1 ? 2 : 1,
                                 .dim = { cols, rows, 1, 1 },
                                 .rows = rows,
                                 .cols = cols,
                                 .row_bytes = quant_row_bytes(type, cols),
                                 .content = mix(key ^ look ^ (uint64_t)type << 56),
                                 .read = read_rows,
                                 .owner = s };
}

/* more: one of the matrices that get more bits */
static int32_t matrix_type(const config *c, int64_t cols, int more)
{
    int32_t type = type_of[c->type];
    if (type >= 0)
        return type;
    if (cols % 256)
        return more ? PB_Q8_0 : PB_Q5_0;
    return more ? PB_Q6_K : PB_Q4_K;
}

/* Deviations, for rows of unit variance: q and k are wide, so that attention picks positions and
 * a wrong one changes the text; embeddings are small against what the layers add, so that a tied
 * output does not just repeat its input; logits get a deviation of about 2. */
static void add_all(synthetic *s)
{
    const config *c = s->cfg;
    int64_t hd = c->head_dim ? c->head_dim : c->width / c->heads;
    int64_t kv = c->kv_heads ? c->kv_heads : c->heads;
    int64_t qw = c->heads * hd, kw = kv * hd;
    float w = 1 / sqrtf((float)c->width);
    char name[NAME];
    struct row {
        const char *name;
        int vector, more;
        int64_t rows, cols;
        float mean, sigma;
    } const layer[PER_LAYER] = {
        { "attn_norm", 1, 0, 1, c->width, 1, 0.1f },
        { "attn_q", 0, 0, qw, c->width, 0, 2 * w },
        { "attn_k", 0, 0, kw, c->width, 0, 2 * w },
        { "attn_v", 0, 1, kw, c->width, 0, w },
        { "attn_output", 0, 0, c->width, qw, 0, 1 / sqrtf((float)qw) },
        { "ffn_norm", 1, 0, 1, c->width, 1, 0.1f },
        { "ffn_gate", 0, 0, c->ffn, c->width, 0, w },
        { "ffn_up", 0, 0, c->ffn, c->width, 0, w },
        { "ffn_down", 0, 1, c->width, c->ffn, 0, 2 / sqrtf((float)c->ffn) },
    };
    int32_t outer = matrix_type(c, c->width, 1);
    add(s, "token_embd.weight", outer, c->vocab, c->width, 0, 2 * w);
    for (int32_t l = 0; l < c->layers; l++)
        for (int i = 0; i < PER_LAYER; i++) {
            const struct row *r = &layer[i];
            snprintf(name, sizeof name, "blk.%d.%s.weight", (int)l, r->name);
            add(s, name, r->vector ? PB_F32 : matrix_type(c, r->cols, r->more && l % 2 == 0),
                r->rows, r->cols, r->mean, r->sigma);
        }
    add(s, "output_norm.weight", PB_F32, 1, c->width, 1, 0.1f);
    if (!c->tie)
        add(s, "output.weight", outer, c->vocab, c->width, 0, 2 * w);
}

/* ---- metadata ---------------------------------------------------------- */

static pb_meta_kv *key(synthetic *s, const char *name, int32_t type)
{
    pb_meta_kv *kv = &s->kv[s->meta.n_kv++];
    *kv = (pb_meta_kv){ .key = name, .type = type, .n = -1 };
    return kv;
}

static void key_int(synthetic *s, const char *name, int64_t v)
{
    key(s, name, PB_M_INT)->i = v;
}

static void key_str(synthetic *s, const char *name, const char *v)
{
    key(s, name, PB_M_STR)->s = (pb_str){ v, strlen(v) };
}

/* A made-up word for each token after the bytes: syllables of a bijective numeral, so no two are
 * equal; none is a merge of two others, as its first letter alone is no token. */
static void word(int64_t i, char *out, size_t *n)
{
    static const char cons[] = "bdfghjklmnprstvz", vow[] = "aeiou";
    char syl[16];
    int k = 0;
    for (int64_t v = i + 1; v > 0; v = (v - 1) / 80) {
        int64_t d = (v - 1) % 80;
        syl[k++] = cons[d / 5];
        syl[k++] = vow[d % 5];
    }
    memcpy(out, "\xe2\x96\x81", 3); /* U+2581, a space */
    *n = 3;
    for (k -= 2; k >= 0; k -= 2) {
        out[(*n)++] = syl[k];
        out[(*n)++] = syl[k + 1];
    }
    out[*n] = 0;
}

/* A byte vocabulary in the form of SentencePiece, filled up with words: any text is tokenized
 * byte by byte, any token prints. */
static int add_vocabulary(synthetic *s, pb_err *err)
{
    static const char *const special[] = { "<unk>", "<s>", "</s>" };
    int64_t n = s->cfg->vocab;
    size_t un = (size_t)n;
    if (n < FIRST_WORD)
        return 0; /* too small: token ids only */
    s->words = s->host->alloc(s->host, un * WORD, 0, "vocabulary");
    s->tokens = s->host->alloc(s->host, un * sizeof *s->tokens, 0, "vocabulary");
    s->scores = s->host->alloc(s->host, un * sizeof *s->scores, 0, "vocabulary");
    s->types = s->host->alloc(s->host, un * sizeof *s->types, 0, "vocabulary");
    if (!s->words || !s->tokens || !s->scores || !s->types)
        return fail(err, PB_E_NOMEM, "no memory for a vocabulary of %lld tokens", (long long)n);
    for (int64_t i = 0; i < n; i++) {
        char *w = s->words + i * WORD;
        size_t len;
        s->types[i] = i == 0 ? 2 : i < 3 ? 3 : i < FIRST_WORD ? 6 : 1;
        if (i < FIRST_WORD) {
            if (i < 3)
                snprintf(w, WORD, "%s", special[i]);
            else
                snprintf(w, WORD, "<0x%02X>", (unsigned)(i - 3));
            len = strlen(w);
        } else
            word(i - FIRST_WORD, w, &len);
        s->tokens[i] = (pb_str){ w, len };
        s->scores[i] = i < FIRST_WORD ? 0 : -(double)(i - FIRST_WORD);
    }
    key_str(s, "tokenizer.ggml.model", "llama");
    pb_meta_kv *kv = key(s, "tokenizer.ggml.tokens", PB_M_STR);
    kv->n = n;
    kv->ss = s->tokens;
    kv = key(s, "tokenizer.ggml.scores", PB_M_FLOAT);
    kv->n = n;
    kv->fs = s->scores;
    kv = key(s, "tokenizer.ggml.token_type", PB_M_INT);
    kv->n = n;
    kv->is = s->types;
    key_int(s, "tokenizer.ggml.unknown_token_id", 0);
    key_int(s, "tokenizer.ggml.bos_token_id", 1);
    key_int(s, "tokenizer.ggml.eos_token_id", 2);
    key(s, "tokenizer.ggml.add_bos_token", PB_M_BOOL)->i = 1;
    return 0;
}

static void add_keys(synthetic *s)
{
    const config *c = s->cfg;
    int64_t hd = c->head_dim ? c->head_dim : c->width / c->heads;
    key_str(s, "general.architecture", "llama");
    key_str(s, "general.name", "synthetic");
    key_int(s, "llama.block_count", c->layers);
    key_int(s, "llama.context_length", c->context);
    key_int(s, "llama.embedding_length", c->width);
    key_int(s, "llama.feed_forward_length", c->ffn);
    key_int(s, "llama.vocab_size", c->vocab);
    key_int(s, "llama.attention.head_count", c->heads);
    key_int(s, "llama.attention.head_count_kv", c->kv_heads ? c->kv_heads : c->heads);
    key_int(s, "llama.attention.key_length", hd);
    key_int(s, "llama.attention.value_length", hd);
    key_int(s, "llama.rope.dimension_count", hd);
    key(s, "llama.attention.layer_norm_rms_epsilon", PB_M_FLOAT)->f = 1e-5;
    key(s, "llama.rope.freq_base", PB_M_FLOAT)->f = 10000;
}

/* ---- interface --------------------------------------------------------- */

static int open_(void *self, const char *path, pb_err *err)
{
    synthetic *s = self;
    if (path && path[0] && strcmp(path, "synthetic") != 0)
        return fail(err, PB_E_INVAL,
                    "weights synthetic reads no file, but a model is named: %s. Leave it away (or "
                    "write: synthetic), or set weights.plugin",
                    path);
    if (s->tensors)
        return fail(err, PB_E_STATE, "weights synthetic is open already");
    size_t n = (size_t)s->cfg->layers * PER_LAYER + 3;
    s->tensors = s->host->alloc(s->host, n * sizeof *s->tensors, 0, "tensors");
    s->how = s->host->alloc(s->host, n * sizeof *s->how, 0, "tensors");
    s->names = s->host->alloc(s->host, n * NAME, 0, "tensors");
    if (!s->tensors || !s->how || !s->names)
        return fail(err, PB_E_NOMEM, "no memory for the list of %zu tensors", n);
    s->meta = (pb_meta){ .size = sizeof s->meta,
                         .naming = "gguf",
                         .path = "synthetic",
                         .kv = s->kv,
                         .tensors = s->tensors };
    add_keys(s);
    add_all(s);
    return add_vocabulary(s, err);
}

static const pb_meta *meta(void *self)
{
    const synthetic *s = self;
    return s->tensors ? &s->meta : NULL;
}

/* ---- lifecycle --------------------------------------------------------- */

static int check(const void *config_, pb_err *err)
{
    const config *c = config_;
    int64_t kv = c->kv_heads ? c->kv_heads : c->heads;
    int64_t hd = c->head_dim ? c->head_dim : c->width / c->heads;
    int block = type_of[c->type] < 0 ? 32 : quant_block(type_of[c->type]);
    if (c->heads % kv)
        return fail(err, PB_E_INVAL, "heads = %lld is not a multiple of kv_heads = %lld",
                    (long long)c->heads, (long long)kv);
    if (!c->head_dim && c->width % c->heads)
        return fail(err, PB_E_INVAL, "width = %lld is not a multiple of heads = %lld: set head_dim",
                    (long long)c->width, (long long)c->heads);
    if (hd < 2 || hd % 2 || hd > 4096)
        return fail(err, PB_E_INVAL, "head_dim = %lld: rope needs an even size of 2 to 4096",
                    (long long)hd);
    if (c->heads * hd > MAX_ROW)
        return fail(err, PB_E_INVAL, "heads x head_dim = %lld is over %d",
                    (long long)(c->heads * hd), MAX_ROW);
    if (c->width % block || c->ffn % block || c->heads * hd % block)
        return fail(err, PB_E_INVAL,
                    "this type has blocks of %d: width = %lld, ffn = %lld and heads x head_dim = "
                    "%lld must be multiples",
                    block, (long long)c->width, (long long)c->ffn, (long long)(c->heads * hd));
    return 0;
}

static int create(const pb_host *host, const void *cfg, void **self, pb_err *err)
{
    synthetic *s = host->alloc(host, sizeof *s, 0, "synthetic");
    if (!s)
        return fail(err, PB_E_NOMEM, "no memory for the reader");
    s->host = host;
    s->cfg = cfg;
    s->st = host->stats;
    *self = s;
    return 0;
}

static void destroy(void *self)
{
    synthetic *s = self;
    const pb_host *h = s->host;
    h->free(h, s->tensors);
    h->free(h, s->how);
    h->free(h, s->names);
    h->free(h, s->words);
    h->free(h, s->tokens);
    h->free(h, s->scores);
    h->free(h, s->types);
    h->free(h, s);
}

/* ---- tables ------------------------------------------------------------ */

static const pb_option options[] = {
    PB_INT(config, layers, "4", "1", "1024", PB_O_OUTPUT, NULL, "layers"),
    PB_INT(config, width, "128", "2", "1048576", PB_O_OUTPUT, NULL, "size of the residual stream"),
    PB_INT(config, heads, "4", "1", "4096", PB_O_OUTPUT, NULL, "query heads"),
    PB_INT(config, kv_heads, "2", "0", "4096", PB_O_OUTPUT, NULL,
           "heads of K and V; 0: as many as heads"),
    PB_INT(config, head_dim, "0", "0", "4096", PB_O_OUTPUT, NULL, "head size; 0: width / heads"),
    PB_INT(config, ffn, "384", "1", "1048576", PB_O_OUTPUT, NULL, "inner size of the MLP"),
    PB_INT(config, vocab, "512", "2", "4194304", PB_O_OUTPUT, "tokens",
           "vocabulary; from 259 on with a tokenizer of bytes and made-up words"),
    PB_INT(config, context, "2048", "1", "16777216", PB_O_OUTPUT, "tokens",
           "context that the model claims"),
    PB_INT(config, seed, "1", "0", NULL, PB_O_OUTPUT, NULL, "other seed, other weights"),
    PB_ENUM(
        config, type, "f32",
        "f32|f16|q8_0|q4_0|q4_1|bf16|q5_0|q5_1|q2_k|q3_k|q4_k|q5_k|q6_k|iq4_nl|iq4_xs|mxfp4|q4_k_m",
        PB_O_OUTPUT,
        "stored type of all matrices; norms are f32; q4_k_m: as files of that name mix types"),
    PB_BOOL(config, tie, "false", PB_O_OUTPUT, "output matrix = embeddings"),
    PB_OPTIONS_END
};

static const pb_counter counters[] = {
    PB_COUNTER(stats, rows, 0, "rows", "rows made"),
    PB_COUNTER(stats, bytes, PB_C_ENGAGED, "bytes", "bytes of these"), PB_COUNTERS_END
};

static const pb_weights weights = { .size = sizeof weights, .open = open_, .meta = meta };
static const pb_iface ifaces[] = { { "weights/1", &weights }, { NULL, NULL } };

PB_PLUGIN = {
    PB_HEAD,
    .flags = PB_EXACT,
    .slot = "weights",
    .name = "synthetic",
    .version = "0.1",
    .license = "MIT",
    .summary = "a Llama of any shape from a seed, without a file",
    .options = options,
    .counters = counters,
    .config_size = sizeof(config),
    .stats_size = sizeof(stats),
    .ifaces = ifaces,
    .check = check,
    .create = create,
    .destroy = destroy,
};
