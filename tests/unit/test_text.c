/* SPDX-License-Identifier: MIT
 *
 * tests/unit/test_text.c - tokenizers against an independent, quadratic implementation on small
 * vocabularies made here; special tokens, broken UTF-8, detokenising and stop strings.
 *
 * Conformance to published vocabularies is tests/e2e/test_vocabs.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/text.h"

/* ---- a vocabulary in arrays -------------------------------------------- */

enum { MAX = 400 };
typedef struct vocab {
    int n, n_merges;
    pb_str tok[MAX], merge[MAX];
    int64_t type[MAX];
    double score[MAX];
    pb_meta_kv kv[16];
    pb_meta meta;
} vocab;

static pb_str copy(const char *s, size_t n)
{
    char *p = malloc(n + 1);
    assert_non_null(p);
    memcpy(p, s, n);
    p[n] = 0;
    return (pb_str){ p, n };
}

static int add(vocab *v, const char *s, int type, double score)
{
    assert_true(v->n < MAX);
    v->tok[v->n] = copy(s, strlen(s));
    v->type[v->n] = type;
    v->score[v->n] = score;
    return v->n++;
}

static void put(vocab *v, pb_meta_kv kv)
{
    assert_true(v->meta.n_kv < 16);
    v->kv[v->meta.n_kv++] = kv;
}

static void put_str(vocab *v, const char *key, const char *s)
{
    put(v, (pb_meta_kv){ .key = key, .type = PB_M_STR, .n = -1, .s = { s, strlen(s) } });
}

static void put_int(vocab *v, const char *key, int64_t i, int type)
{
    put(v, (pb_meta_kv){ .key = key, .type = type, .n = -1, .i = i });
}

static const pb_meta *vocab_meta(vocab *v, const char *model)
{
    v->meta =
        (pb_meta){ .size = sizeof(pb_meta), .naming = "gguf", .path = "test.gguf", .kv = v->kv };
    put_str(v, "tokenizer.ggml.model", model);
    put(v,
        (pb_meta_kv){ .key = "tokenizer.ggml.tokens", .type = PB_M_STR, .n = v->n, .ss = v->tok });
    put(v, (pb_meta_kv){
               .key = "tokenizer.ggml.token_type", .type = PB_M_INT, .n = v->n, .is = v->type });
    put(v, (pb_meta_kv){
               .key = "tokenizer.ggml.scores", .type = PB_M_FLOAT, .n = v->n, .fs = v->score });
    put(v,
        (pb_meta_kv){
            .key = "tokenizer.ggml.merges", .type = PB_M_STR, .n = v->n_merges, .ss = v->merge });
    return &v->meta;
}

static void vocab_clear(vocab *v)
{
    for (int i = 0; i < v->n; i++)
        free((void *)(uintptr_t)v->tok[i].s);
    for (int i = 0; i < v->n_merges; i++)
        free((void *)(uintptr_t)v->merge[i].s);
    free(v);
}

static pbi_tokenizer *open_ok(const pb_meta *m)
{
    pbi_tokenizer *t = NULL;
    pb_err err = { 0 };
    if (pbi_tokenizer_new(m, &t, &err))
        fail_msg("%s", err.msg);
    return t;
}

/* SentencePiece over a, b, c, space and random longer tokens; byte tokens for the rest */
static vocab *spm_vocab(unsigned seed)
{
    vocab *v = calloc(1, sizeof *v);
    assert_non_null(v);
    add(v, "<unk>", 2, 0);
    add(v, "<s>", 3, 0);
    add(v, "</s>", 3, 0);
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        add(v, name, 6, 0);
    }
    static const char *const unit[] = { "a", "b", "c", "\xe2\x96\x81" };
    for (int i = 0; i < 4; i++)
        add(v, unit[i], 1, -1000);
    srand(seed);
    for (int i = 0; i < 40; i++) {
        char s[64] = "";
        int len = 2 + rand() % 4, again = 0;
        /* in every third vocabulary a mark may follow a letter, so that words are joined */
        int inner = seed % 3 == 0 && i < 20;
        for (int k = 0; k < len; k++)
            strcat(s, unit[rand() % (k && !inner ? 3 : 4)]);
        for (int k = 0; k < v->n; k++)
            again |= !strcmp(v->tok[k].s, s);
        if (!again)
            add(v, s, 1, -(double)(rand() % 20));
    }
    vocab_meta(v, "llama");
    put_int(v, "tokenizer.ggml.bos_token_id", 1, PB_M_INT);
    put_int(v, "tokenizer.ggml.eos_token_id", 2, PB_M_INT);
    put_int(v, "tokenizer.ggml.unknown_token_id", 0, PB_M_INT);
    return v;
}

/* a, sep and b in a row, at dst of n bytes; a may be at dst */
static void joined(char *dst, size_t n, const char *a, const char *sep, const char *b)
{
    size_t x = strlen(a), y = strlen(sep), z = strlen(b);
    assert_true(x + y + z < n);
    memmove(dst, a, x);
    memmove(dst + x, sep, y);
    memmove(dst + x + y, b, z + 1);
}

/* Definition of SentencePiece BPE, in O(n^3): join the adjacent pair whose text is the token of
 * the best score, leftmost first, until none is left. */
static int naive_spm(const vocab *v, const char *s, int32_t *out)
{
    char piece[256][128];
    int n = 0, k = 0;
    for (const char *p = s; *p; n++) {
        size_t len = !strncmp(p, "\xe2\x96\x81", 3) ? 3 : 1;
        snprintf(piece[n], sizeof piece[n], "%.*s", (int)len, p);
        p += len;
    }
    for (;;) {
        int at = -1;
        double best = -1e9;
        for (int i = 0; i + 1 < n; i++) {
            char both[256];
            joined(both, sizeof both, piece[i], "", piece[i + 1]);
            for (int j = 259; j < v->n; j++)
                if (!strcmp(v->tok[j].s, both) && v->score[j] > best) {
                    best = v->score[j];
                    at = i;
                }
        }
        if (at < 0)
            break;
        joined(piece[at], sizeof piece[at], piece[at], "", piece[at + 1]);
        memmove(piece[at + 1], piece[at + 2], sizeof piece[0] * (size_t)(n - at - 2));
        n--;
    }
    for (int i = 0; i < n; i++) {
        int id = -1;
        for (int j = 259; j < v->n; j++)
            if (!strcmp(v->tok[j].s, piece[i]))
                id = j;
        if (id >= 0)
            out[k++] = id;
        else
            for (const char *p = piece[i]; *p; p++)
                out[k++] = 3 + (unsigned char)*p;
    }
    return k;
}

static void spm_equals_definition(void **state)
{
    for (unsigned seed = 1; seed <= 30; seed++) {
        vocab *v = spm_vocab(seed);
        pbi_tokenizer *t = open_ok(&v->meta);
        for (int round = 0; round < 40; round++) {
            char plain[64] = "", marked[256] = "\xe2\x96\x81"; /* the space prefix */
            int len = 1 + rand() % 30;
            for (int i = 0; i < len; i++) {
                static const char *const c[] = { "a", "b", "c", " ", "x" };
                int k = rand() % 5;
                strcat(plain, c[k]);
                strcat(marked, k == 3 ? "\xe2\x96\x81" : c[k]);
            }
            int32_t want[512], *ids;
            size_t n;
            int n_want = naive_spm(v, marked, want);
            assert_int_equal(
                pbi_tokenizer_encode(t, plain, strlen(plain), PBI_TEXT_NO_BOS, &ids, &n, NULL), 0);
            assert_int_equal(n, n_want);
            assert_memory_equal(ids, want, n * sizeof *ids);
            char *text;
            size_t n_text;
            assert_int_equal(pbi_tokenizer_decode(t, ids, n, 0, &text, &n_text, NULL), 0);
            assert_string_equal(text, plain);
            free(text);
            free(ids);
        }
        pbi_tokenizer_free(t);
        vocab_clear(v);
    }
}

/* ---- byte-level BPE ---------------------------------------------------- */

/* all printable ASCII and the stand-in of space, merges of random adjacent tokens, a control
 * and a user-defined token at the end */
static vocab *bpe_vocab(unsigned seed)
{
    vocab *v = calloc(1, sizeof *v);
    assert_non_null(v);
    for (int c = 33; c < 127; c++) {
        char s[2] = { (char)c, 0 };
        add(v, s, 1, 0);
    }
    add(v, "\xc4\xa0", 1, 0); /* U+0120, space */
    add(v, "\xc4\x8a", 1, 0); /* U+010A, newline */
    srand(seed);
    while (v->n_merges < 60) {
        static const char *const unit[] = { "a", "b", "c", "\xc4\xa0" };
        char both[64], mer[64];
        const char *l = rand() % 2 ? unit[rand() % 4] : v->tok[rand() % v->n].s;
        const char *r = rand() % 2 ? unit[rand() % 3] : v->tok[rand() % v->n].s;
        int again = strlen(l) + strlen(r) > 12;
        snprintf(both, sizeof both, "%s%s", l, r);
        snprintf(mer, sizeof mer, "%s %s", l, r);
        for (int k = 0; k < v->n; k++)
            again |= !strcmp(v->tok[k].s, both);
        if (again)
            continue;
        add(v, both, 1, 0);
        v->merge[v->n_merges++] = copy(mer, strlen(mer));
    }
    add(v, "<|end|>", 3, 0);
    add(v, "<user>", 4, 0);
    vocab_meta(v, "gpt2");
    put_str(v, "tokenizer.ggml.pre", "gpt-2");
    put_int(v, "tokenizer.ggml.eos_token_id", v->n - 2, PB_M_INT);
    return v;
}

/* Definition of BPE on one word of stand-ins: apply the earliest merge, leftmost, until none. */
static int naive_bpe(const vocab *v, const char *word, int32_t *out)
{
    char piece[128][64];
    int n = 0;
    for (const char *p = word; *p; n++) {
        size_t len = (unsigned char)*p >= 0xc0 ? 2 : 1;
        snprintf(piece[n], sizeof piece[n], "%.*s", (int)len, p);
        p += len;
    }
    for (int r = 0; r < v->n_merges;) {
        int at = -1;
        for (int i = 0; i + 1 < n && at < 0; i++) {
            char both[160];
            joined(both, sizeof both, piece[i], " ", piece[i + 1]);
            if (!strcmp(both, v->merge[r].s))
                at = i;
        }
        if (at < 0) {
            r++;
            continue;
        }
        joined(piece[at], sizeof piece[at], piece[at], "", piece[at + 1]);
        memmove(piece[at + 1], piece[at + 2], sizeof piece[0] * (size_t)(n - at - 2));
        n--;
        r = 0;
    }
    for (int i = 0; i < n; i++)
        for (int j = 0; j < v->n; j++)
            if (!strcmp(v->tok[j].s, piece[i]))
                out[i] = j;
    return n;
}

static void bpe_equals_definition(void **state)
{
    for (unsigned seed = 1; seed <= 30; seed++) {
        vocab *v = bpe_vocab(seed);
        pbi_tokenizer *t = open_ok(&v->meta);
        for (int round = 0; round < 60; round++) {
            char plain[64] = "", word[256] = "";
            if (rand() % 2) {
                strcat(plain, " ");
                strcat(word, "\xc4\xa0");
            }
            int len = 1 + rand() % 20;
            for (int i = 0; i < len; i++) {
                char c[2] = { (char)('a' + rand() % 4), 0 };
                strcat(plain, c);
                strcat(word, c);
            }
            int32_t want[128], *ids;
            size_t n;
            int n_want = naive_bpe(v, word, want);
            assert_int_equal(pbi_tokenizer_encode(t, plain, strlen(plain), 0, &ids, &n, NULL), 0);
            assert_int_equal(n, n_want);
            assert_memory_equal(ids, want, n * sizeof *ids);
            free(ids);
        }
        pbi_tokenizer_free(t);
        vocab_clear(v);
    }
}

/* a long text goes through the word cache, its parts do not: same ids */
static void cache_changes_nothing(void **state)
{
    vocab *v = bpe_vocab(7);
    pbi_tokenizer *t = open_ok(&v->meta);
    char text[4001];
    for (int i = 0; i < 4000; i++)
        text[i] = "abc d"[rand() % 5];
    text[4000] = 0;
    int32_t *all, *part;
    size_t n_all, n_part, done = 0, from = 0;
    assert_int_equal(pbi_tokenizer_encode(t, text, 4000, 0, &all, &n_all, NULL), 0);
    for (size_t i = 1; i <= 4000; i++) /* cut before a space that follows a letter */
        if (i == 4000 || (text[i] == ' ' && text[i - 1] != ' ')) {
            assert_int_equal(
                pbi_tokenizer_encode(t, text + from, i - from, 0, &part, &n_part, NULL), 0);
            assert_true(done + n_part <= n_all);
            assert_memory_equal(part, all + done, n_part * sizeof *part);
            free(part);
            done += n_part;
            from = i;
        }
    assert_int_equal(done, n_all);
    free(all);
    pbi_tokenizer_free(t);
    vocab_clear(v);
}

/* ---- special tokens, bytes --------------------------------------------- */

static void special_only_when_asked(void **state)
{
    vocab *v = bpe_vocab(3);
    pbi_tokenizer *t = open_ok(&v->meta);
    int32_t *ids, end = v->n - 2, user = v->n - 1;
    size_t n;
    static const char text[] = "a<|end|>b<user>";
    assert_int_equal(pbi_tokenizer_encode(t, text, strlen(text), 0, &ids, &n, NULL), 0);
    assert_true(n > 4);
    for (size_t i = 0; i + 1 < n; i++)
        assert_int_not_equal(ids[i], end);
    assert_int_equal(ids[n - 1], user); /* user-defined tokens are text */
    free(ids);
    assert_int_equal(pbi_tokenizer_encode(t, text, strlen(text), PBI_TEXT_SPECIAL, &ids, &n, NULL),
                     0);
    assert_int_equal(n, 4);
    assert_int_equal(ids[1], end);
    assert_int_equal(ids[3], user);
    assert_true(pbi_tokenizer_is_eog(t, end));
    assert_int_equal(pbi_tokenizer_piece(t, end, 0).n, 0);
    assert_int_equal(pbi_tokenizer_piece(t, end, 1).n, 7);
    free(ids);
    pbi_tokenizer_free(t);
    vocab_clear(v);
}

static void bos_once_and_on_request(void **state)
{
    vocab *v = spm_vocab(1);
    pbi_tokenizer *t = open_ok(&v->meta);
    int32_t *ids;
    size_t n;
    assert_int_equal(pbi_tokenizer_encode(t, "", 0, 0, &ids, &n, NULL), 0);
    assert_int_equal(n, 1);
    assert_int_equal(ids[0], 1);
    free(ids);
    assert_int_equal(pbi_tokenizer_encode(t, "<s>a", 4, PBI_TEXT_SPECIAL, &ids, &n, NULL), 0);
    assert_int_equal(ids[0], 1);
    assert_int_not_equal(ids[1], 1);
    free(ids);
    assert_int_equal(pbi_tokenizer_encode(t, "", 0, PBI_TEXT_NO_BOS, &ids, &n, NULL), 0);
    assert_int_equal(n, 0);
    free(ids);
    pbi_tokenizer_free(t);
    vocab_clear(v);
}

/* every byte string has ids that give its bytes back */
static void any_bytes(void **state)
{
    vocab *v = spm_vocab(2);
    pbi_tokenizer *t = open_ok(&v->meta);
    for (int round = 0; round < 500; round++) {
        char s[64];
        size_t len = (size_t)(rand() % 64), n, k = 0;
        for (size_t i = 0; i < len; i++)
            s[i] = (char)(rand() % 4 ? rand() : 0xe2);
        int32_t *ids;
        assert_int_equal(
            pbi_tokenizer_encode(t, s, len, PBI_TEXT_NO_BOS | PBI_TEXT_NO_PREFIX, &ids, &n, NULL),
            0);
        for (size_t i = 0; i < n; i++) {
            pb_str p = pbi_tokenizer_piece(t, ids[i], 0);
            assert_true(k + p.n <= len);
            assert_memory_equal(p.s, s + k, p.n);
            k += p.n;
        }
        assert_int_equal(k, len);
        free(ids);
    }
    pbi_tokenizer_free(t);
    vocab_clear(v);
}

static void broken_vocabularies(void **state)
{
    static const struct {
        const char *key, *says;
        int64_t n;
    } cases[] = { { "tokenizer.ggml.tokens", "tokens is missing", 0 },
                  { "tokenizer.ggml.token_type", "token_type has 1 entries", 1 },
                  { "tokenizer.ggml.scores", "scores has 2 entries", 2 },
                  { "tokenizer.ggml.bos_token_id", "bos_token_id = 70000", -1 },
                  { "tokenizer.ggml.model", "\"what\"", -1 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vocab *v = spm_vocab(1);
        for (int k = 0; k < v->meta.n_kv; k++)
            if (!strcmp(v->kv[k].key, cases[i].key)) {
                v->kv[k].n = cases[i].n;
                v->kv[k].i = 70000;
                v->kv[k].s = (pb_str){ "what", 4 };
            }
        pbi_tokenizer *t = NULL;
        pb_err err = { 0 };
        assert_true(pbi_tokenizer_new(&v->meta, &t, &err) < 0);
        if (!strstr(err.msg, cases[i].says))
            fail_msg("\"%s\" lacks \"%s\"", err.msg, cases[i].says);
        vocab_clear(v);
    }
    vocab *v = bpe_vocab(1);
    v->kv[v->meta.n_kv - 2].s = (pb_str){ "klingon", 7 };
    pbi_tokenizer *t = NULL;
    pb_err err = { 0 };
    assert_int_equal(pbi_tokenizer_new(&v->meta, &t, &err), PB_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "klingon"));
    vocab_clear(v);
}

/* ---- text out ---------------------------------------------------------- */

/* a character cut into byte tokens appears when it is whole; broken ones as U+FFFD */
static void detok_holds_back(void **state)
{
    vocab *v = spm_vocab(1);
    pbi_tokenizer *t = open_ok(&v->meta);
    static const struct {
        const char *in;
        const char *out[8]; /* text after each byte, then after the end */
    } cases[] = {
        { "\xf0\x9f\x98\x81", { "", "", "", "\xf0\x9f\x98\x81" } },
        { "\xe2\x82"
          "A",
          { "", "",
            "\xef\xbf\xbd"
            "A" } },
        { "\xe2\x82", { "", "\xef\xbf\xbd" } },
        { "\xff", { "\xef\xbf\xbd" } },
        { "\xed\xa0\x80",
          { "", "\xef\xbf\xbd\xef\xbf\xbd", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" } },
        { "\xe2\xe2\x82\xac", { "", "\xef\xbf\xbd", "\xef\xbf\xbd", "\xef\xbf\xbd\xe2\x82\xac" } },
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        pbi_detok d;
        char *buf = NULL;
        size_t n = 0, cap = 0, len = strlen(cases[c].in);
        pbi_detok_init(&d, t, 0);
        for (size_t i = 0; i < len; i++) {
            int32_t id = 3 + (unsigned char)cases[c].in[i];
            assert_int_equal(pbi_detok_push(&d, id, i + 1 == len, &buf, &n, &cap), 0);
            assert_string_equal(buf, cases[c].out[i]);
        }
        free(buf);
    }
    pbi_tokenizer_free(t);
    vocab_clear(v);
}

static void stops_across_tokens(void **state)
{
    static const char *const words[] = { "END", "abcabd" };
    pbi_stops *s;
    size_t safe;
    assert_int_equal(pbi_stops_new(2, words, &s, NULL), 0);
    static const struct {
        const char *text;
        size_t sent, safe;
        int found;
    } cases[] = { { "hello", 0, 5, 0 },     { "helloE", 5, 5, 0 },   { "helloEN", 5, 5, 0 },
                  { "helloEND", 5, 5, 1 },  { "helloENx", 5, 8, 0 }, { "abcabc", 0, 3, 0 },
                  { "abcabcabd", 3, 3, 1 }, { "xEND END", 0, 1, 1 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(
            pbi_stops_scan(s, cases[i].text, strlen(cases[i].text), cases[i].sent, &safe),
            cases[i].found);
        assert_int_equal(safe, cases[i].safe);
    }
    pbi_stops_free(s);
    static const char *const empty[] = { "" };
    pb_err err;
    assert_int_equal(pbi_stops_new(1, empty, &s, &err), PB_E_INVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spm_equals_definition),   cmocka_unit_test(bpe_equals_definition),
        cmocka_unit_test(cache_changes_nothing),   cmocka_unit_test(special_only_when_asked),
        cmocka_unit_test(bos_once_and_on_request), cmocka_unit_test(any_bytes),
        cmocka_unit_test(broken_vocabularies),     cmocka_unit_test(detok_holds_back),
        cmocka_unit_test(stops_across_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
