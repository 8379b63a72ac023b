/* SPDX-License-Identifier: MIT
 *
 * core/text/vocab.c - from metadata (tokenizer.ggml.*, GGUF specification) to the tables of a
 * vocabulary.
 *
 * It encodes nothing. Invariant: whatever the metadata says, the tables are consistent
 * afterwards (every id < n, every text inside the arena), or the key at fault was named.
 */
#include "vocab.h"
#include <stdlib.h>
#include <string.h>

static const pb_meta_kv *meta_find(const pb_meta *m, const char *key)
{
    for (int32_t i = 0; i < m->n_kv; i++)
        if (!strcmp(m->kv[i].key, key))
            return &m->kv[i];
    return NULL;
}

/* array of the wanted type, or NULL */
static const pb_meta_kv *meta_array(const pb_meta *m, const char *key, int type)
{
    const pb_meta_kv *kv = meta_find(m, key);
    return kv && kv->n >= 0 && kv->type == type ? kv : NULL;
}

static int meta_flag(const pb_meta *m, const char *key, int def)
{
    const pb_meta_kv *kv = meta_find(m, key);
    return kv && kv->n < 0 && (kv->type == PB_M_BOOL || kv->type == PB_M_INT) ? kv->i != 0 : def;
}

/* A token id; absent and 0xffffffff mean none. */
static int meta_id(const pb_meta *m, const char *key, int32_t n, int32_t *out, pb_err *err)
{
    const pb_meta_kv *kv = meta_find(m, key);
    *out = -1;
    if (!kv || kv->n >= 0 || kv->type != PB_M_INT || kv->i == 0xffffffff || kv->i == -1)
        return 0;
    if (kv->i < 0 || kv->i >= n)
        return pbi_err(err, PB_E_FORMAT, "%s: %s = %lld is no id of a vocabulary of %d tokens",
                       m->path, key, (long long)kv->i, n);
    *out = (int32_t)kv->i;
    return 0;
}

/* ---- bytes of a token -------------------------------------------------- */

/* GPT-2's printable stand-ins of bytes (openai/gpt-2 encoder.py, bytes_to_unicode): code point
 * to byte, or -1. Bytes that are printable stand for themselves, the others for 256, 257, ... */
static int byte_of_codepoint(uint32_t c)
{
    static const unsigned char range[][2] = { { 33, 126 }, { 161, 172 }, { 174, 255 } };
    for (int i = 0; i < 3; i++)
        if (c >= range[i][0] && c <= range[i][1])
            return (int)c;
    if (c < 256 || c > 323)
        return -1;
    uint32_t k = c - 256; /* the k-th byte outside of the ranges */
    if (k <= 32)
        return (int)k;
    if (k <= 66)
        return (int)(127 + k - 33);
    return 173;
}

static uint32_t utf8_value(const char *s, size_t len)
{
    const unsigned char *u = (const unsigned char *)s;
    if (len == 1)
        return u[0];
    if (len == 2)
        return (u[0] & 31u) << 6 | (u[1] & 63u);
    if (len == 3)
        return (u[0] & 15u) << 12 | (u[1] & 63u) << 6 | (u[2] & 63u);
    return (u[0] & 7u) << 18 | (u[1] & 63u) << 12 | (u[2] & 63u) << 6 | (u[3] & 63u);
}

/* Writes the bytes that n stand-in characters mean; -1 if one of them means none. */
static long unstand(const char *s, size_t n, char *out)
{
    size_t k = 0;
    for (size_t i = 0; i < n;) {
        size_t len = pbi_utf8_char(s + i, n - i, NULL);
        int b = len ? byte_of_codepoint(utf8_value(s + i, len)) : -1;
        if (b < 0)
            return -1;
        out[k++] = (char)b;
        i += len;
    }
    return (long)k;
}

/* U+2581 to spaces */
static size_t unmark(const char *s, size_t n, char *out)
{
    size_t k = 0;
    for (size_t i = 0; i < n;) {
        if (n - i >= 3 && !memcmp(s + i, "\xe2\x96\x81", 3)) {
            out[k++] = ' ';
            i += 3;
        } else
            out[k++] = s[i++];
    }
    return k;
}

/* "<0x0A>" to 10, or -1 */
static int hex_byte(pb_str s)
{
    static const char digits[] = "0123456789ABCDEF";
    if (s.n != 6 || memcmp(s.s, "<0x", 3) || s.s[5] != '>')
        return -1;
    const char *a = memchr(digits, s.s[3], 16), *b = memchr(digits, s.s[4], 16);
    return a && b ? (int)((a - digits) * 16 + (b - digits)) : -1;
}

static pb_str arena_put(pbi_tokenizer *t, const char *s, size_t n)
{
    char *p = t->arena + t->arena_used;
    if (n)
        memcpy(p, s, n);
    p[n] = 0;
    t->arena_used += n + 1;
    return (pb_str){ p, n };
}

/* bytes that token i stands for, into the arena */
static void token_bytes(pbi_tokenizer *t, int32_t i, pb_str text)
{
    char *p = t->arena + t->arena_used;
    long n = -1;
    int b;
    if (t->type[i] == PBI_TOK_BYTE && (b = hex_byte(text)) >= 0) {
        p[0] = (char)b;
        n = 1;
    } else if (t->kind == PBI_VOCAB_SPM)
        n = (long)unmark(text.s, text.n, p);
    else if (t->type[i] == PBI_TOK_NORMAL)
        n = unstand(text.s, text.n, p);
    if (n < 0) { /* control and user-defined tokens of BPE are plain text */
        t->sym[i] = arena_put(t, text.s, text.n);
        return;
    }
    p[n] = 0;
    t->arena_used += (size_t)n + 1;
    t->sym[i] = (pb_str){ p, (size_t)n };
}

/* ---- tables ------------------------------------------------------------ */

static int load_tokens(pbi_tokenizer *t, const pb_meta *m, pb_err *err)
{
    const pb_meta_kv *tok = meta_array(m, "tokenizer.ggml.tokens", PB_M_STR);
    const pb_meta_kv *type = meta_array(m, "tokenizer.ggml.token_type", PB_M_INT);
    const pb_meta_kv *mer = meta_array(m, "tokenizer.ggml.merges", PB_M_STR);
    if (!tok || tok->n < 1)
        return pbi_err(err, PB_E_FORMAT, "%s: tokenizer.ggml.tokens is missing or empty", m->path);
    if (tok->n > 0x3fffffff)
        return pbi_err(err, PB_E_FORMAT,
                       "%s: tokenizer.ggml.tokens has %lld entries, more than 2^30", m->path,
                       (long long)tok->n);
    if (type && type->n != tok->n)
        return pbi_err(err, PB_E_FORMAT,
                       "%s: tokenizer.ggml.token_type has %lld entries, tokenizer.ggml.tokens %lld",
                       m->path, (long long)type->n, (long long)tok->n);
    t->n = (int32_t)tok->n;
    int64_t n_merges = t->kind == PBI_VOCAB_BPE && mer ? mer->n : 0;
    if (n_merges > 0x0fffffff)
        return pbi_err(err, PB_E_FORMAT,
                       "%s: tokenizer.ggml.merges has %lld entries, more than 2^28", m->path,
                       (long long)n_merges);
    size_t bytes = 1024;
    for (int64_t i = 0; i < tok->n; i++)
        bytes += tok->ss[i].n + 2;
    for (int64_t i = 0; i < n_merges; i++)
        bytes += 2 * mer->ss[i].n + 4;
    size_t syms = (size_t)t->n + 256 + 3 * (size_t)n_merges;
    t->arena = malloc(bytes);
    t->arena_cap = bytes;
    t->sym = calloc(syms, sizeof *t->sym);
    t->type = calloc((size_t)t->n, 1);
    t->eog = calloc((size_t)t->n, 1);
    if (!t->arena || !t->sym || !t->type || !t->eog || pbi_strmap_init(&t->map, syms))
        return pbi_err(err, PB_E_NOMEM, "no memory for a vocabulary of %d tokens", t->n);
    for (int32_t i = 0; i < t->n; i++) {
        int64_t k = type ? type->is[i] : PBI_TOK_NORMAL;
        t->type[i] = k >= 1 && k <= PBI_TOK_BYTE ? (uint8_t)k : PBI_TOK_NORMAL;
        token_bytes(t, i, tok->ss[i]);
        if (t->sym[i].n > t->max_sym)
            t->max_sym = t->sym[i].n;
    }
    t->n_syms = t->n;
    return 0;
}

/* number of a symbol that merges speak of; made when it is no token */
static int32_t intern(pbi_tokenizer *t, const char *s, size_t n)
{
    int32_t k = pbi_strmap_get(&t->map, s, n);
    if (k >= 0)
        return k;
    t->sym[t->n_syms] = arena_put(t, s, n);
    pbi_strmap_put(&t->map, t->sym[t->n_syms].s, n, t->n_syms);
    return t->n_syms++;
}

static int load_merges(pbi_tokenizer *t, const pb_meta *m, pb_err *err)
{
    const pb_meta_kv *mer = meta_array(m, "tokenizer.ggml.merges", PB_M_STR);
    if (!mer)
        return pbi_err(err, PB_E_FORMAT, "%s: tokenizer.ggml.merges is missing", m->path);
    if (pbi_mergemap_init(&t->merges, (size_t)mer->n))
        return pbi_err(err, PB_E_NOMEM, "no memory for %lld merges", (long long)mer->n);
    size_t longest = 0;
    for (int64_t i = 0; i < mer->n; i++)
        if (mer->ss[i].n > longest)
            longest = mer->ss[i].n;
    char *buf = malloc(longest + 1);
    if (!buf)
        return pbi_err(err, PB_E_NOMEM, "no memory for a merge of %zu bytes", longest);
    int rc = 0;
    for (int64_t i = 0; i < mer->n && !rc; i++) {
        pb_str s = mer->ss[i];
        const char *gap = s.n > 2 ? memchr(s.s + 1, ' ', s.n - 2) : NULL;
        size_t n_left = gap ? (size_t)(gap - s.s) : 0;
        long a = gap ? unstand(s.s, n_left, buf) : -1;
        long b = a > 0 ? unstand(gap + 1, s.n - n_left - 1, buf + a) : -1;
        if (a <= 0 || b <= 0) {
            rc = pbi_err(err, PB_E_FORMAT,
                         "%s: tokenizer.ggml.merges[%lld] = \"%.*s\" is not two parts and a space",
                         m->path, (long long)i, (int)(s.n < 60 ? s.n : 60), s.s);
            break;
        }
        int32_t l = intern(t, buf, (size_t)a), r = intern(t, buf + a, (size_t)b);
        pbi_mergemap_put(&t->merges, l, r, (uint32_t)i, intern(t, buf, (size_t)(a + b)));
    }
    free(buf);
    return rc;
}

typedef struct scored {
    double score;
    int32_t id;
} scored;

static int by_score(const void *a, const void *b)
{
    double x = ((const scored *)a)->score, y = ((const scored *)b)->score;
    return x > y ? -1 : x < y;
}

static int load_scores(pbi_tokenizer *t, const pb_meta *m, pb_err *err)
{
    const pb_meta_kv *sc = meta_array(m, "tokenizer.ggml.scores", PB_M_FLOAT);
    if (!sc || sc->n != t->n)
        return pbi_err(err, PB_E_FORMAT,
                       "%s: tokenizer.ggml.scores has %lld entries, tokenizer.ggml.tokens %d",
                       m->path, sc ? (long long)sc->n : 0ll, t->n);
    scored *v = malloc((size_t)t->n * sizeof *v);
    t->rank = malloc((size_t)t->n * sizeof *t->rank);
    if (!v || !t->rank) {
        free(v);
        return pbi_err(err, PB_E_NOMEM, "no memory for %d scores", t->n);
    }
    for (int32_t i = 0; i < t->n; i++) /* a NaN has no place in an order */
        v[i] = (scored){ sc->fs[i] == sc->fs[i] ? sc->fs[i] : -1e30, i };
    qsort(v, (size_t)t->n, sizeof *v, by_score);
    for (int32_t i = 0, r = 0; i < t->n; i++) {
        if (i && v[i].score < v[i - 1].score)
            r = i;
        t->rank[v[i].id] = (uint32_t)r;
    }
    free(v);
    return 0;
}

/* which symbols text may become, and the token of each byte */
static void load_map(pbi_tokenizer *t)
{
    t->words = 1;
    for (int32_t i = 0; i < t->n; i++) {
        pb_str s = t->sym[i];
        int k = t->type[i];
        int merged = t->kind == PBI_VOCAB_BPE
                         ? k == PBI_TOK_NORMAL
                         : k == PBI_TOK_NORMAL || k == PBI_TOK_USER || k == PBI_TOK_UNUSED;
        if (k == PBI_TOK_BYTE && s.n == 1 && t->byte_id[(unsigned char)s.s[0]] < 0)
            t->byte_id[(unsigned char)s.s[0]] = i;
        if (!merged || !s.n)
            continue;
        pbi_strmap_put(&t->map, s.s, s.n, i);
        for (size_t j = 1; j < s.n; j++)
            if (s.s[j] == ' ' && s.s[j - 1] != ' ')
                t->words = 0;
    }
    if (t->kind == PBI_VOCAB_BPE)
        for (int b = 0; b < 256; b++) {
            char c = (char)b;
            int32_t k = intern(t, &c, 1);
            if (k < t->n)
                t->byte_id[b] = k;
        }
}

/* ---- tokens that stand in text by themselves --------------------------- */

static int trie_put(pbi_tokenizer *t, int32_t id, int32_t *cap)
{
    pb_str s = t->sym[id];
    int32_t *link = &t->trie_root[(unsigned char)s.s[0]];
    int control = t->type[id] != PBI_TOK_USER;
    for (size_t i = 0; i < s.n; i++) {
        uint8_t b = (uint8_t)s.s[i];
        while (*link >= 0 && t->trie[*link].byte != b)
            link = &t->trie[*link].next;
        if (*link < 0) {
            if (t->n_trie == *cap) {
                /* link may point into the array that moves */
                ptrdiff_t in = link >= t->trie_root && link < t->trie_root + 256
                                   ? -1
                                   : (char *)link - (char *)t->trie;
                *cap = *cap ? *cap * 2 : 256;
                pbi_trie_node *p = realloc(t->trie, (size_t)*cap * sizeof *p);
                if (!p)
                    return PB_E_NOMEM;
                t->trie = p;
                if (in >= 0)
                    link = (int32_t *)(void *)((char *)p + in);
            }
            t->trie[t->n_trie] = (pbi_trie_node){ .child = -1, .next = -1, .token = -1, .byte = b };
            *link = t->n_trie++;
        }
        if (i + 1 == s.n) {
            pbi_trie_node *e = &t->trie[*link];
            if (e->token < 0) {
                e->token = id;
                e->control = (uint8_t)control;
            }
        } else
            link = &t->trie[*link].child;
    }
    return 0;
}

static int load_trie(pbi_tokenizer *t, pb_err *err)
{
    int32_t cap = 0;
    for (int32_t i = 0; i < t->n; i++) {
        int k = t->type[i];
        if (k != PBI_TOK_CONTROL && k != PBI_TOK_USER && k != PBI_TOK_UNKNOWN)
            continue;
        if (!t->sym[i].n)
            continue;
        if (trie_put(t, i, &cap))
            return pbi_err(err, PB_E_NOMEM, "no memory for special tokens");
    }
    return 0;
}

/* texts of control tokens that end an answer in models which do not say so by id */
static const char *const end_texts[] = { "<|im_end|>",
                                         "<|eot_id|>",
                                         "<|end|>",
                                         "<end_of_turn>",
                                         "<|endoftext|>",
                                         "<|end_of_text|>",
                                         "<|eom_id|>",
                                         "<\xef\xbd\x9c"
                                         "end\xe2\x96\x81of\xe2\x96\x81sentence"
                                         "\xef\xbd\x9c>" };

static int load_special(pbi_tokenizer *t, const pb_meta *m, pb_err *err)
{
    static const char *const ends[] = { "tokenizer.ggml.eos_token_id",
                                        "tokenizer.ggml.eot_token_id",
                                        "tokenizer.ggml.eom_token_id" };
    int rc = meta_id(m, "tokenizer.ggml.bos_token_id", t->n, &t->bos, err);
    if (!rc)
        rc = meta_id(m, "tokenizer.ggml.eos_token_id", t->n, &t->eos, err);
    if (!rc)
        rc = meta_id(m, "tokenizer.ggml.unknown_token_id", t->n, &t->unk, err);
    for (int i = 0; i < 3 && !rc; i++) {
        int32_t id;
        rc = meta_id(m, ends[i], t->n, &id, err);
        if (!rc && id >= 0)
            t->eog[id] = 1;
    }
    if (rc)
        return rc;
    for (int32_t i = 0; i < t->n; i++)
        for (size_t k = 0; k < sizeof end_texts / sizeof *end_texts; k++)
            if (t->type[i] == PBI_TOK_CONTROL && t->sym[i].n == strlen(end_texts[k]) &&
                !memcmp(t->sym[i].s, end_texts[k], t->sym[i].n))
                t->eog[i] = 1;
    int spm = t->kind == PBI_VOCAB_SPM;
    t->add_bos = t->bos >= 0 && meta_flag(m, "tokenizer.ggml.add_bos_token", spm || t->add_bos);
    t->add_eos = t->eos >= 0 && meta_flag(m, "tokenizer.ggml.add_eos_token", 0);
    t->add_prefix = meta_flag(m, "tokenizer.ggml.add_space_prefix", spm);
    return 0;
}

int pbi_vocab_load(pbi_tokenizer *t, const pb_meta *m, pb_err *err)
{
    const pb_meta_kv *kind = meta_find(m, "tokenizer.ggml.model");
    const pb_meta_kv *pre = meta_find(m, "tokenizer.ggml.pre");
    if (!kind || kind->n >= 0 || kind->type != PB_M_STR)
        return pbi_err(err, PB_E_UNSUPPORTED,
                       "%s has no tokenizer (tokenizer.ggml.model); give token ids instead of text",
                       m->path);
    if (kind->s.n == 5 && !memcmp(kind->s.s, "llama", 5))
        t->kind = PBI_VOCAB_SPM;
    else if (kind->s.n == 4 && !memcmp(kind->s.s, "gpt2", 4))
        t->kind = PBI_VOCAB_BPE;
    else
        return pbi_err(err, PB_E_UNSUPPORTED,
                       "%s: tokenizer.ggml.model = \"%.*s\"; known are llama and gpt2", m->path,
                       (int)(kind->s.n < 60 ? kind->s.n : 60), kind->s.s);
    for (int b = 0; b < 256; b++)
        t->byte_id[b] = t->trie_root[b] = -1;
    int rc = load_tokens(t, m, err);
    if (rc)
        return rc;
    load_map(t);
    if (t->kind == PBI_VOCAB_SPM)
        rc = load_scores(t, m, err);
    else {
        if (!pre || pre->n >= 0 || pre->type != PB_M_STR)
            return pbi_err(err, PB_E_FORMAT,
                           "%s: tokenizer.ggml.pre is missing, so words cannot be told apart",
                           m->path);
        rc = pbi_splitter_new(pre->s.s, pre->s.n, &t->splitter, err);
        if (!rc)
            rc = load_merges(t, m, err);
        if (!rc) {
            t->ignore_merges = pbi_splitter_ignore_merges(t->splitter);
            t->nfc = pbi_splitter_nfc(t->splitter);
            t->add_bos = t->ignore_merges; /* Llama 3 files without the key want BOS */
        }
    }
    if (!rc)
        rc = load_special(t, m, err);
    if (!rc)
        rc = load_trie(t, err);
    return rc;
}
